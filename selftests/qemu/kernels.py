#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""culvert on Debian's other kernels: 6.1 (traffic control only by clsact) and 6.12 (tcx).

Each kernel is booted once, in QEMU under software emulation: its verifier judges every BPF
program of the build, then culvertd relays between three namespaces inside it, over plain veth
pairs, VLAN devices and bridges, and the bytes are compared at both ends.
"""

import glob
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import guestnet, qemu, tap  # noqa: E402
from culvertlab.server import BUILD, binary  # noqa: E402

SERIES = ("6.1", "6.12")
KINDS = ("veth", "vlan", "bridge")
CONNECTIONS, BYTES = 4, 1 << 20
VERDICT = re.compile(r"^(\S+) (\S+) (loaded|refused)(.*)$", re.M)


class Booted:
    """A kernel's guest, booted by the first test that wants it; tests share it."""

    def __init__(self, series):
        self.series = series
        self.guest = self.net = None

    def get(self):
        if not self.guest:
            kernel = qemu.kernel(self.series)
            image = qemu.Image()
            guestnet.fill(image)
            image.modules(kernel, guestnet.MODULES)
            image.program(binary("bpf/verify"), "/usr/bin/verify")
            for path in objects():
                image.file(path, f"/bpf/{os.path.basename(path)}")
            self.guest = qemu.Guest(kernel, image)
            tap.note(f"{kernel.release} booted in {self.guest.boot_seconds:.1f} s")
        return self.guest

    def close(self):
        if self.guest:
            self.guest.close()
        self.guest = None


def objects():
    return sorted(glob.glob(os.path.join(BUILD, "kern", "*.bpf.o")))


def verifies(booted):
    """Every program of every object is loaded; each is told with its size."""
    if not objects():
        raise tap.Skip("the build has no BPF objects")
    guest = booted.get()
    status, output = guest.shell("cd /bpf && verify *.bpf.o", timeout=120)
    for name, program, verdict, more in VERDICT.findall(output):
        tap.note(f"{name} {program} {verdict}{more}")
    tap.equal(status, 0, f"status of verify, which said:\n{output}\nverdict")


def relays(booted, order, kind, version):
    """culvertd with this order between devices of this kind: what is sent arrives, both ways."""
    net = guestnet.GuestNet(booted.get(), kind)
    try:
        net.start_peer()
        net.start_culvertd(order)
        figures = net.load("check", "--connections", CONNECTIONS, "--bytes", BYTES,
                           version=version)
        tap.check(figures["intact"], f"wrong bytes: {figures}\n{net.log('culvertd')}")
        net.stop("culvertd")
    finally:
        net.close()


def register(series):
    booted = Booted(series)
    tap.at_end(booted.close)
    tap.add(f"{series}: every BPF program passes the verifier", lambda: verifies(booted), 150)
    for kind in KINDS:
        for version in (4, 6):
            tap.add(f"{series}: splice relays over {kind}, IPv{version}",
                    lambda k=kind, v=version: relays(booted, "splice", k, v), 90)


for each in SERIES:
    register(each)

if __name__ == "__main__":
    tap.main()
