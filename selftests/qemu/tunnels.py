#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The virtual DMZ (selftests/net/exit_mesh.py) over ip6tnl, on a kernel that has it: Debian's 6.12."""

import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import guestnet, qemu, tap  # noqa: E402

SERIES = "6.12"
MODULES = ["veth", "bridge", "ip6_tunnel", "nf_tables", "nft_fib_inet", "nft_reject_inet", "nft_ct",
           "nft_limit", "nft_log", "nft_dup_ipv6", "sch_netem"]
CASES = ("each source leaves", "nobody but a tunnel peer")
SUITE_S = 240  # a guest on a busy machine; alone it takes a quarter
VERDICT = re.compile(r"^(?:not )?ok .*$", re.M)


def booted():
    if not shutil.which("nft"):
        raise tap.Skip("nft is not installed (package nftables)")
    image = qemu.Image(qemu.kernel(SERIES), MODULES)
    guestnet.fill(image)
    guestnet.fill_suite(image)
    image.program("nft")
    return qemu.Guest(image)


@tap.test("the virtual DMZ over ip6tnl: each source by its provider, and nobody else is let out",
          SUITE_S + qemu.BOOT_S)
def _():
    with booted() as guest:
        tap.note(f"booted in {guest.boot_seconds:.1f} s")
        status, output = guest.run(
            "python3", f"{guestnet.SUITE}/selftests/net/exit_mesh.py", *CASES, timeout=SUITE_S,
            env={"TUNNEL": "ip6tnl", "CULVERT_PATIENCE": 10})
        verdicts = VERDICT.findall(output)
        for line in verdicts:
            tap.note(line)
        tap.check(len(verdicts) == len(CASES) and status == 0 and "SKIP" not in output,
                  f"status {status}, said:\n{output[-3000:]}")


tap.main()
