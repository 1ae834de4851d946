#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Exits on a kernel that has ip6tnl and netem, Debian's 6.12, in one guest.

The virtual DMZ (selftests/net/exit_mesh.py) over ip6tnl instead of VXLAN-GPE, every mechanism over
bad links (exit_netem.py, whose head tells which scenario and fault is tested where), and a provider
that is silent for 2 s.
"""

import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import guestnet, qemu, tap  # noqa: E402

SERIES = "6.12"
MODULES = ["veth", "bridge", "ip6_tunnel", "vxlan", "nf_tables", "nft_fib_inet", "nft_reject_inet",
           "nft_ct", "nft_limit", "nft_log", "nft_dup_ipv6", "sch_netem", "sch_ingress", "cls_bpf"]
SUITE_S = 600  # a guest on a busy machine; alone it takes a tenth
VERDICT = re.compile(r"^(?:not )?ok .*$", re.M)
PLAN = re.compile(r"^1\.\.(\d+)$", re.M)
started = []


def booted():
    """The guest, booted by the first test that wants it."""
    if not shutil.which("nft"):
        raise tap.Skip("nft is not installed (package nftables)")
    if not started or not started[-1].alive:
        image = qemu.Image(qemu.kernel(SERIES), MODULES)
        guestnet.fill(image)
        guestnet.fill_suite(image)
        image.program("nft")
        started.append(qemu.Guest(image))
        tap.at_end(started[-1].close)
        tap.note(f"booted in {started[-1].boot_seconds:.1f} s")
    return started[-1]


def inside(script, *words, **env):
    """Cases of a network test, in the guest: all of them pass, none is skipped."""
    status, output = booted().run(
        "python3", f"{guestnet.SUITE}/selftests/net/{script}", *words, timeout=SUITE_S,
        env={"CULVERT_PATIENCE": 10, **env})
    verdicts, plan = VERDICT.findall(output), PLAN.search(output)
    for line in verdicts:
        tap.note(line)
    tap.check(plan and len(verdicts) == int(plan[1]) > 0 and status == 0 and "SKIP" not in output,
              f"status {status}, said:\n{output[-3000:]}")


@tap.test("the virtual DMZ over ip6tnl, every case of it", SUITE_S + qemu.BOOT_S)
def _():
    inside("exit_mesh.py", TUNNEL="ip6tnl")


@tap.test("each mechanism over links that lose, delay, reorder and double", SUITE_S + qemu.BOOT_S)
def _():
    inside("exit_netem.py", TUNNEL="ip6tnl")


@tap.test("the virtual DMZ over VXLAN-GPE and such links", SUITE_S + qemu.BOOT_S)
def _():
    inside("exit_netem.py", "virtual DMZ", TUNNEL="vxlan-gpe")


@tap.test("connections survive a provider that is silent for 2 s", SUITE_S + qemu.BOOT_S)
def _():
    inside("exit_routes.py", "an outage of 2 s", OUTAGE="netem", ENGINES="splice wire")


tap.main()
