#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Run a command for which io_uring_setup(2) fails with EPERM, as seccomp policies make it.

Usage: deny_uring.py COMMAND [ARGUMENT...]
"""

import ctypes
import os
import struct
import sys

IO_URING_SETUP = 425  # the same on every architecture
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LD_NR, JEQ, RET = 0x20, 0x15, 0x06
ALLOW, FAIL_EPERM = 0x7FFF0000, 0x00050001


def instruction(code, k, jump_true=0, jump_false=0):
    return struct.pack("HBBI", code, jump_true, jump_false, k)


def deny():
    program = b"".join([instruction(LD_NR, 0), instruction(JEQ, IO_URING_SETUP, 0, 1),
                        instruction(RET, FAIL_EPERM), instruction(RET, ALLOW)])
    buffer = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(
        struct.pack("H6xP", len(program) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() and libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, head, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    deny()
    os.execvp(sys.argv[1], sys.argv[1:])
