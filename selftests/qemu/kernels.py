#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""culvert on Debian's other kernels: 6.1 (traffic control only by clsact) and 6.12 (tcx).

Each kernel is booted once, in QEMU under software emulation: its verifier judges every BPF
program of the build, the tests of these programs run, and culvertd, behind its filters and
Landlock, relays between three namespaces inside it, over plain veth pairs, VLAN devices and
bridges, and the bytes are compared at both ends.  At nightly length the relay cases of the
network tests run there as well, on every engine.
"""

import glob
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import engines, guestnet, qemu, tap  # noqa: E402
from culvertlab.server import BUILD, ROOT, binary  # noqa: E402

SERIES = ("6.1", "6.12")
TLS_SERIES = ("6.12",)  # whose TLS culvertd uses
TLS_ENGINES = "ktls ktls-uring"
# Of the relay cases those that a slow guest is fast enough for.
TLS_CASES = ("FIN before the bind", "few and 8 MiB", "a banner from the peer",
             "both sides half-close", "close right after")
CASES = (("splice", "veth"), ("uring", "veth"), ("sockmap", "veth"), ("wire", "veth"),
         ("wire", "vlan"), ("wire", "bridge"))
CONNECTIONS, BYTES = 4, 1 << 20
# Seconds, for a machine that is busy with other things as well.
VERIFY_S, BPF_S, RELAY_S, SUITE_S, TLS_S = 240, 120, 180, 900, 240
TLS_TEST = "unit/test_ktls_kernel"
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
            if engines.LONG or self.series in TLS_SERIES:
                guestnet.fill_suite(image)
            if os.access(binary(TLS_TEST), os.X_OK):
                image.program(binary(TLS_TEST), "/usr/bin/test_ktls_kernel")
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


def confined(net):
    """Filters and Landlock are in force in every role, and nobody but root sees their memory."""
    filters, owners, without = net.confinement()
    tap.check(len(owners) > 2 and len(filters) > len(owners), f"roles and threads: {owners}, {filters}")
    tap.equal(set(filters), {"2"}, "Seccomp of every thread")
    tap.equal(set(owners), {"0"}, "owner of the memory of every role")
    tap.equal(without, 0, "roles without Landlock")
    tap.note(f"behind filters and Landlock: {len(filters)} threads of {len(owners)} processes")


def relays(booted, engine, kind):
    """culvertd with this engine between devices of this kind: all bytes arrive, both ways."""
    net = guestnet.GuestNet(booted.get(), kind)
    try:
        # What a host that keeps core files has.
        net.script(["sysctl -qw fs.suid_dumpable=1"])
        net.start_peer()
        net.start_culvertd(engines.order(engine), engines.SETTINGS.get(engine))
        why = net.engine_missing(engine)
        tap.check(not why, f"{engine}: {why}\n{net.log('culvertd')}")
        if (engine, kind) == ("wire", "veth"):  # with a broker
            confined(net)
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


def tls_units(booted):
    """What the kernel makes of TLS sessions that are handed to it, cipher by cipher."""
    if not os.access(binary(TLS_TEST), os.X_OK):
        raise tap.Skip(f"{binary(TLS_TEST)} is not built")
    status, output = booted.get().run("test_ktls_kernel", timeout=TLS_S,
                                      env={"CMOCKA_MESSAGE_OUTPUT": "TAP",
                                           "ASAN_OPTIONS": "detect_leaks=0"})
    verdicts = re.findall(r"^ok \d+.*$", output, re.M)
    skipped = [line for line in verdicts if "SKIP" in line]
    tap.note(f"{len(verdicts)} verdicts, {len(skipped)} of them skipped")
    tap.check(verdicts and not skipped and status == 0,
              f"status {status}, said:\n{failures(output)}")


def tls_suite(booted):
    """Relay cases over TLS that the kernel encrypts: splice and uring carry every pair."""
    status, output = booted.get().run(
        "python3", f"{guestnet.SUITE}/selftests/net/relay.py", *TLS_CASES, timeout=TLS_S,
        env={"ENGINES": TLS_ENGINES, "CULVERT_PATIENCE": 10})
    verdicts = re.findall(r"^(?:not )?ok .*$", output, re.M)
    for line in verdicts:
        tap.note(line)
    tap.check(len(verdicts) == len(TLS_CASES) * len(TLS_ENGINES.split()) and status == 0
              and "SKIP" not in output, f"status {status}, said:\n{failures(output)}")


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
    if series in TLS_SERIES:
        tap.add(f"{series}: sessions of TLS that the kernel takes over",
                lambda: tls_units(booted), TLS_S + 30)
        tap.add(f"{series}: relay cases over TLS in the kernel, by splice and by uring",
                lambda: tls_suite(booted), TLS_S + 30)
    for engine in engines.chosen() if engines.LONG else ():
        tap.add(f"{series}: the relay cases on {engine}",
                lambda e=engine: runs_suite(booted, e), SUITE_S + 60)


for each in SERIES:
    register(each)

if __name__ == "__main__":
    tap.main()
