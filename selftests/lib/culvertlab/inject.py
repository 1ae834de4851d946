# SPDX-License-Identifier: BSD-2-Clause
"""Has a running process make a system call of our choosing, as code that took it over would.

By ptrace(2), on x86-64: the thread is stopped where it waits in the kernel, just behind a
`syscall` instruction, which it runs again with other registers.
"""

import ctypes
import os
import platform
import signal

from . import proc, tap

ATTACH, DETACH, GETREGS, SETREGS, SYSCALL = 16, 17, 12, 13, 24
NUMBERS = {"write": 1, "mmap": 9, "socket": 41, "fork": 57, "execve": 59, "kill": 62, "mkdir": 83,
           "ptrace": 101, "mount": 165, "openat": 257, "prlimit64": 302, "bpf": 321, "io_uring_setup": 425}
EXEC = 4  # PROT_EXEC
STOPS = 10000  # tries to find a thread in a system call


class Regs(ctypes.Structure):
    """struct user_regs_struct of x86-64."""
    _fields_ = [(name, ctypes.c_ulonglong) for name in (
        "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
        "fs_base gs_base ds es fs gs").split()]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def _ptrace(request, pid, data=None):
    if _libc.ptrace(request, pid, None, data) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"ptrace {request}: {os.strerror(error)}")


def need():
    if platform.machine() != "x86_64":
        raise tap.Skip("makes system calls in other processes on x86-64 only")


def open_file(pid, path, flags):
    """openat(2); the name is written below the stack pointer of the thread."""
    data = path.encode() + b"\0"
    at = _attached(pid, lambda regs: _write(pid, regs.rsp - 4096, data))
    return call(pid, "openat", -100, at, flags, 0o600)


def _write(pid, at, data):
    with open(f"/proc/{pid}/mem", "r+b", 0) as memory:
        memory.seek(at)
        memory.write(data)
    return at


def _stop(pid):
    """Stops the thread behind a `syscall` instruction; its registers.

    It may just have something to do: then what lies before its next instruction is another one.
    """
    regs = Regs()
    for _ in range(STOPS):
        _ptrace(ATTACH, pid)
        os.waitpid(pid, 0)
        _ptrace(GETREGS, pid, ctypes.byref(regs))
        if ctypes.c_longlong(regs.orig_rax).value >= 0:
            return regs
        _ptrace(DETACH, pid)
        os.sched_yield()
    raise AssertionError(f"process {pid} does not wait in the kernel")


def _attached(pid, function):
    result = function(_stop(pid))
    _ptrace(DETACH, pid)
    return result


def call(pid, name, *arguments):
    """The call's result (negative errno), or SIGSYS when a filter has refused it."""
    regs, other = _stop(pid), Regs()
    ctypes.pointer(other)[0] = regs
    other.rip -= 2
    other.rax, other.orig_rax = NUMBERS[name], ctypes.c_ulonglong(-1).value
    values = [*arguments, 0, 0, 0, 0, 0, 0]
    other.rdi, other.rsi, other.rdx, other.r10, other.r8, other.r9 = (
        ctypes.c_ulonglong(value).value for value in values[:6])
    _ptrace(SETREGS, pid, ctypes.byref(other))
    for _ in ("at its entry", "at its exit"):
        _ptrace(SYSCALL, pid)
        os.waitpid(pid, 0)
    if int(proc.status_field(pid, "SigPnd"), 16) >> (signal.SIGSYS - 1) & 1:
        _ptrace(DETACH, pid)
        return signal.SIGSYS
    _ptrace(GETREGS, pid, ctypes.byref(other))
    # Interrupted as it was: the kernel starts its wait again.
    _ptrace(SETREGS, pid, ctypes.byref(regs))
    _ptrace(DETACH, pid)
    return ctypes.c_longlong(other.rax).value
