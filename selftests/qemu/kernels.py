#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""culvert on Debian's other kernels: 6.1 (traffic control only by clsact) and 6.12 (tcx).

Each kernel is booted once, in QEMU under software emulation: its verifier judges every BPF
program of the build, the tests of these programs run, and culvertd relays between three namespaces inside it, over plain veth
pairs, VLAN devices and bridges, and the bytes are compared at both ends.  At nightly length the
relay cases of the network tests run there as well, on every engine.
"""

import glob
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import engines, guestnet, qemu, tap  # noqa: E402
from culvertlab.server import BUILD, ROOT, binary  # noqa: E402

SERIES = ("6.1", "6.12")
CASES = (("splice", "veth"), ("uring", "veth"), ("sockmap", "veth"), ("wire", "veth"),
         ("wire", "vlan"), ("wire", "bridge"))
CONNECTIONS, BYTES = 4, 1 << 20
# Seconds, for a machine that is busy with other things as well.
VERIFY_S, BPF_S, RELAY_S, SUITE_S = 240, 120, 180, 900
VERDICT = re.compile(r"^(\S+) (\S+) (loaded|refused)(.*)$", re.M)


class Booted:
    """A kernel's guest, booted by the first test that wants it; tests share it while it lives."""

    def __init__(self, series):
        self.series = series
        self.guest = None

    def get(self):
        if not self.guest or not self.guest.alive:
            kernel = qemu.kernel(self.series)
            image = qemu.Image(kernel, guestnet.MODULES)
            guestnet.fill(image)
            image.program(binary("bpf/verify"), "/usr/bin/verify")
            if engines.LONG:
                guestnet.fill_suite(image)
            for program in bpf_programs():
                if os.access(binary(f"bpf/{program}"), os.X_OK):
                    image.program(binary(f"bpf/{program}"), f"/usr/bin/{program}")
            for path in objects():
                image.file(path, f"/bpf/{os.path.basename(path)}")
            self.guest = qemu.Guest(image, memory_mib=2048 if engines.LONG else 1024)
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
    status, output = guest.shell("cd /bpf && verify *.bpf.o", timeout=VERIFY_S - BPF_S)
    for name, program, verdict, more in VERDICT.findall(output):
        tap.note(f"{name} {program} {verdict}{more}")
    tap.equal(status, 0, f"status of verify, which said:\n{output}\nverdict")


def relays(booted, engine, kind):
    """culvertd with this engine between devices of this kind: all bytes arrive, both ways."""
    net = guestnet.GuestNet(booted.get(), kind)
    try:
        net.start_peer()
        net.start_culvertd(engines.order(engine), engines.SETTINGS.get(engine))
        why = net.engine_missing(engine)
        tap.check(not why, f"{engine}: {why}\n{net.log('culvertd')}")
        for version in (4, 6):
            figures = net.load("check", "--connections", CONNECTIONS, "--bytes", BYTES,
                               version=version)
            tap.check(figures["intact"], f"wrong bytes: {figures}\n{net.log('culvertd')}")
        carried = {name: row["pairs_total"] for name, row in net.engines().items()
                   if row["pairs_total"]}
        tap.equal(carried, {engine: 2 * CONNECTIONS}, "pairs each engine carried")
        net.stop("culvertd")
    finally:
        if net.guest.alive:
            net.close()


def bpf_programs():
    """The tests of BPF objects, which need nothing but the kernel they run on."""
    names = sorted(glob.glob(os.path.join(ROOT, "selftests", "bpf", "test_*.c")))
    return [os.path.splitext(os.path.basename(name))[0] for name in names]


def runs_bpf(booted, program):
    """One of the BPF tests, on the other kernel."""
    if not os.access(binary(f"bpf/{program}"), os.X_OK):
        raise tap.Fail(f"{binary('bpf/' + program)} is not built")
    status, output = booted.get().run(program, timeout=BPF_S,
                                      env={"CMOCKA_MESSAGE_OUTPUT": "TAP"})
    verdicts = re.findall(r"^(?:not )?ok \d+.*$", output, re.M)
    tap.note(f"{len(verdicts)} verdicts")
    tap.check(verdicts and status == 0, f"status {status}, said:\n{failures(output)}")


def runs_suite(booted, engine):
    """The relay cases of the network tests, inside the guest."""
    status, output = booted.get().run(
        "python3", f"{guestnet.SUITE}/selftests/net/relay.py", timeout=SUITE_S,
        env={"ENGINES": engine, "CULVERT_PATIENCE": 10})
    verdicts = re.findall(r"^(?:not )?ok .*$", output, re.M)
    for line in verdicts:
        tap.note(line)
    tap.check(verdicts and status == 0, f"status {status}, said:\n{failures(output)}")


def failures(output):
    """What a TAP program said about its failures; without one, its last lines."""
    parts = re.findall(r"^not ok .*\n(?:#.*\n)*", output, re.M)
    return "".join(parts) or "\n".join(output.splitlines()[-20:])


def register(series):
    booted = Booted(series)
    tap.at_end(booted.close)
    tap.add(f"{series}: every BPF program passes the verifier", lambda: verifies(booted), VERIFY_S)
    for program in bpf_programs():
        tap.add(f"{series}: {program}", lambda p=program: runs_bpf(booted, p), BPF_S + 30)
    for engine, kind in CASES:
        tap.add(f"{series}: {engine} relays over {kind}, IPv4 and IPv6",
                lambda e=engine, k=kind: relays(booted, e, k), RELAY_S)
    for engine in engines.chosen() if engines.LONG else ():
        tap.add(f"{series}: the relay cases on {engine}",
                lambda e=engine: runs_suite(booted, e), SUITE_S + 60)


for each in SERIES:
    register(each)

if __name__ == "__main__":
    tap.main()
