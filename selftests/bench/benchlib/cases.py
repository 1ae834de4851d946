# SPDX-License-Identifier: BSD-2-Clause
"""What is measured, and how one run of `load` becomes figures.

A case is asked for one repetition with one relay at a time, so that bench.py can go round the
relays.  Relay, peer and load are new processes each time.
"""

import json
import os
import shutil
import subprocess
import time

from culvertlab import proc
from culvertlab.wait import Timeout, wait_for

from .place import IN_FLIGHT, PEER_PORT, Broken, MemoryGroup, Wrong, tool

KIB, MB, GB = 1024, 1e6, 1e9


class Plan:
    """How long and how often: a full run or a quick one."""

    def __init__(self, quick):
        self.quick = quick
        self.warmup_ms = 300 if quick else 700
        self.duration_ms = 1000 if quick else 2000
        self.runs = 2 if quick else 5
        self.few_runs = 1 if quick else 3
        self.many_runs = 2 if quick else 15
        self.check_bytes = 4 << 20 if quick else 16 << 20
        self.idle_pairs = 4000
        self.many_pairs = 100000
        self.slow_ms = 2500
        self._enough = time.monotonic() + 170 if quick else None

    def late(self):
        """A quick run repeats nothing any more once it has lasted this long."""
        return self._enough is not None and time.monotonic() > self._enough


class Peer:
    """The far end, with the file of its counters."""

    def __init__(self, place, port=PEER_PORT):
        self.place, self.port = place, port
        self.stats = f"{place.dir}/stats-{port}"
        self.process = place.spawn(place.peer, [tool("peer"), "--listen", f"0.0.0.0:{port}",
                                                "--stats", self.stats], "peer")
        self.process.wait_for_text("ready", read=self.process.out)

    def stop(self):
        self.place.end(self.process)


class Case:
    """A case of `load` whose one line of JSON holds all figures."""

    memory = False
    runs = "runs"  # the Plan's; few where a case is long or hardly differs from run to run

    def __init__(self, name, title, load_case, *options):
        self.name, self.title, self.load_case, self.options = name, title, load_case, options

    def applies(self, _relay):
        """None, or why this relay has no such case."""
        return None

    def measure(self, place, relay, plan):
        """One repetition: {metric: (unit, value)}."""
        peer = Peer(place)
        try:
            running = relay.start(place, self.memory)
            try:
                figures = self.run(place, relay, running, peer, plan)
                relay.check(place)
                return figures
            finally:
                running.stop()
        finally:
            peer.stop()

    def run(self, place, relay, running, peer, plan):
        process = self.spawn(place, relay, running, peer, plan)
        try:
            return self.figures(finish(process, running), relay, plan)
        finally:
            place.end(process)

    def spawn(self, place, relay, running, peer, plan, **more):
        argv = [tool("load"), self.load_case, *relay.where(place, peer.port),
                "--stats", peer.stats,
                "--warmup", plan.warmup_ms, "--duration", self.duration(plan),
                *self.arguments(relay, plan)]
        if running.pids():
            argv += ["--pid", ",".join(map(str, running.pids()))]
        return place.spawn(place.client, argv, "load", **more)

    def duration(self, plan):
        return plan.duration_ms

    def arguments(self, _relay, _plan):
        return self.options

    def figures(self, data, relay, plan):
        raise NotImplementedError


def answer(process, running):
    """The last line of JSON that load printed; Broken when there is none or it says so."""
    lines = process.out().strip().splitlines()
    state = "" if running.alive() else f" (the relay ended: {running.process.tail(2)})"
    if not lines:
        raise Broken(f"load ended with {process.status}: {process.tail(2)}{state}")
    data = json.loads(lines[-1])
    if not data["ok"]:
        raise Broken(data["error"] + state)
    return data


def finish(process, running):
    try:
        process.wait(90)
    except Timeout as error:
        raise Broken(str(error)) from error
    return answer(process, running)


class Integrity(Case):
    """Not timed: a pattern both ways at once, compared byte by byte at both ends."""

    def arguments(self, _relay, plan):
        return ["--connections", 8, "--bytes", plan.check_bytes]

    def figures(self, data, relay, plan):
        if not data["intact"]:
            raise Wrong(f"wrong bytes on {data['broken']} of {data['connections']} connections")
        return {"intact": ("MB", 2 * data["connections"] * data["bytes_each_way"] / MB)}


class Bulk(Case):
    """Throughput at the receiving ends, and what it cost."""

    def figures(self, data, relay, plan):
        gigabytes = data["bytes"] / GB
        if not gigabytes:
            raise Broken("no byte arrived")
        figures = {"throughput": ("Gbit/s", gigabytes * 8 / data["seconds"]),
                   "machine_cpu": ("s/GB", data["machine_cpu"] / gigabytes)}
        if relay.name != "direct":
            figures["relay_cpu"] = ("s/GB", data["relay_cpu"] / gigabytes)
        return figures


class BulkMany(Bulk):
    """The same on many connections, which has two ways to go: the receiver keeps up and copies
    what is still in the cache, or it fell behind once, its queues stay full to the window, and
    every byte comes from memory.  Few runs are a toss between the two.
    """

    runs = "many_runs"


class Syscalls(Bulk):
    """System calls of the relay while it carries, counted by perf in a run of their own."""

    runs = "few_runs"

    def applies(self, relay):
        if relay.name == "direct":
            return "has no relay that could call"
        return None if shutil.which("perf") else "perf is not installed (package linux-perf)"

    def run(self, place, relay, running, peer, plan):
        seconds = plan.duration_ms / 1000
        process = self.spawn(place, relay, running, peer, plan)
        counter = place.spawn(place.client, [
            "perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-D", plan.warmup_ms,
            "-p", ",".join(map(str, running.pids())), "--", "sleep", seconds], "perf")
        try:
            data = finish(process, running)
            counter.wait(10)
            lines = [line for line in counter.err().splitlines() if "sys_enter" in line]
            if not lines or not lines[0][0].isdigit():
                raise Broken(f"perf counted nothing: {counter.tail(2)}")
            calls = int(lines[0].split(",")[0]) / seconds
            rate = data["bytes"] / GB / data["seconds"]
            return {"syscalls": ("1/GB", calls / rate)}
        finally:
            place.end(counter)
            place.end(process)


DISTRIBUTION = ("p1", "p10", "p25", "p50", "p75", "p90", "p99", "p999", "p100")


class PingPong(Case):
    def figures(self, data, relay, plan):
        figures = {name: ("us", data[name + "_us"]) for name in DISTRIBUTION}
        figures["rate"] = ("1/s", data["round_trips"] / data["seconds"])
        if relay.name != "direct" and data["round_trips"]:
            figures["relay_cpu"] = ("us/message",
                                    data["relay_cpu"] / data["round_trips"] / 2 * 1e6)
        return figures


class Setup(Case):
    """How many clients a second begin, say 1 KB and get it back."""

    def __init__(self, name, title, load_case, metric, *options):
        super().__init__(name, title, load_case, *options)
        self.metric = metric

    def applies(self, relay):
        if self.load_case == "pairs" and not relay.turn:
            return "has no allocations"
        return None

    def figures(self, data, relay, plan):
        if not data["rounds"]:
            raise Broken(f"no round succeeded: {data['first_failure']}")
        if data["failures"] * 100 > data["rounds"]:
            raise Broken(f"{data['failures']} failures beside {data['rounds']} rounds: "
                         f"{data['first_failure']}")
        metric = self.metric if relay.turn else "tcp_setup_rate"
        figures = {metric: ("1/s", data["rounds"] / data["seconds"]),
                   "p50": ("ms", data["p50_us"] / 1000), "p99": ("ms", data["p99_us"] / 1000),
                   "failures": ("1", data["failures"])}
        if relay.name != "direct":
            figures["relay_cpu"] = ("ms/set-up", data["relay_cpu"] / data["rounds"] * 1000)
            if data["relay_cpu"]:
                # What one core of the relay could do if nobody else needed the machine.
                figures["rate_per_core"] = ("1/s", data["rounds"] / data["relay_cpu"])
        return figures


class SlowReader(Case):
    """Who holds what the sender got rid of while the receiver reads nothing."""

    def duration(self, plan):
        return plan.slow_ms

    def figures(self, data, relay, plan):
        return {"held": ("MB", data["held"] / MB), "accepted": ("MB", data["accepted"] / MB),
                "unread": ("MB", data["unread"] / MB)}


class Idle(Case):
    """Memory of the relay for a pair that has carried a message and rests.

    Memory cgroup: anonymous memory and all kernel memory charged to the relay. Without one:
    proportional set size, and the growth of the machine's slab caches by more than the two ends
    of the connections themselves need (known from the case of `direct`, which has to come first).
    """

    runs = "few_runs"

    def __init__(self, name, title, load_case, *options):
        super().__init__(name, title, load_case, *options)
        self.ends_slab = None
        try:
            MemoryGroup().remove()
            self.memory = True
        except (Broken, OSError):
            self.memory = False

    def applies(self, relay):
        if relay.name == "direct" and self.memory:
            return "has no relay whose memory could grow"
        return None

    def arguments(self, relay, plan):
        allocations = ["--allocations", plan.idle_pairs // 500] if relay.turn else []
        return [*self.options, "--connections", plan.idle_pairs, *allocations]

    def run(self, place, relay, running, peer, plan):
        before = self.memory_now(running)
        process = self.spawn(place, relay, running, peer, plan, stdin=subprocess.PIPE)
        try:
            wait_for(lambda: process.status is not None or process.out().strip(), 60, "idle pairs")
            answer(process, running)
            after = settled(lambda: self.memory_now(running))
            return self.memory_figures(before, after, relay, plan.idle_pairs)
        except Timeout as error:
            raise Broken(str(error)) from error
        finally:
            process.child.stdin.close()
            place.end(process)

    def memory_now(self, running):
        """(user bytes, kernel bytes)"""
        if running.group:
            return running.group.read()
        return sum(pss(pid) for pid in running.pids()), slab()

    def memory_figures(self, before, after, relay, pairs):
        user, kernel = ((b - a) / pairs for a, b in zip(before, after))
        if not self.memory:
            if relay.name == "direct":
                self.ends_slab = kernel
                return {"ends_slab": ("KiB", kernel / KIB)}
            if self.ends_slab is None:
                raise Broken("needs `direct` before it, or a memory cgroup")
            kernel -= self.ends_slab
        return {"memory_per_pair": ("KiB", (user + kernel) / KIB),
                "user_per_pair": ("KiB", user / KIB), "kernel_per_pair": ("KiB", kernel / KIB)}

    def counted(self):
        if self.memory:
            return "memory cgroup of the relay: anonymous and kernel memory"
        return "proportional set size, and slab beyond what the two ends need"


class Many(Idle):
    """More pairs than the relay could hold descriptors for, all of them awake at the end."""

    parts = 8  # processes at either end: each holds fewer than RLIMIT_NOFILE

    def applies(self, relay):
        if relay.name != "culvert-wire":
            return "holds two descriptors for every pair"
        return super().applies(relay)

    def arguments(self, relay, plan):
        return [*self.options, "--connections", plan.many_pairs // self.parts,
                "--allocations", 25, "--timeout", 400000]

    def measure(self, place, relay, plan):
        self.peers = [Peer(place, PEER_PORT + 1 + i) for i in range(self.parts)]
        try:
            return super().measure(place, relay, plan)
        finally:
            for peer in self.peers:
                peer.stop()

    def run(self, place, relay, running, peer, plan):
        before, begun = self.memory_now(running), time.monotonic()
        loads = [self.spawn(place, relay, running, each, plan, stdin=subprocess.PIPE)
                 for each in self.peers]
        try:
            self.wait_ready(loads, 1, running)
            seconds = time.monotonic() - begun
            after = settled(lambda: self.memory_now(running))
            descriptors = max(len(os.listdir(f"/proc/{pid}/fd")) for pid in running.pids())
            for load in loads:
                load.child.stdin.write(b"\n")
                load.child.stdin.flush()
            self.wait_ready(loads, 2, running)
            pairs = plan.many_pairs // self.parts * self.parts
            figures = self.memory_figures(before, after, relay, pairs)
            figures["answered"] = ("pairs", pairs)
            figures["descriptors"] = ("1", descriptors)
            figures["join_rate"] = ("1/s", pairs / seconds)
            return figures
        finally:
            for load in loads:
                load.child.stdin.close()
                place.end(load)

    @staticmethod
    def wait_ready(loads, times, running):
        """Every load has said `ready` so often: all its pairs have answered."""
        def ready():
            for load in loads:
                if load.status is not None:
                    answer(load, running)
                    raise Broken(f"load ended: {load.tail(2)}")
            return all(load.out().count('"ready"') >= times for load in loads)
        try:
            wait_for(ready, 300, "pairs")
        except Timeout as error:
            raise Broken(str(error)) from error


def settled(read):
    """The value of read() once it stays within 1 % for half a second; the last one after 5 s."""
    history = []

    def still():
        history.append(read())
        recent = [sum(value) for value in history[-50:]]
        return len(recent) == 50 and max(recent) - min(recent) <= max(recent) * 0.01
    try:
        wait_for(still, 5)
    except Timeout:
        pass
    return history[-1]


def pss(pid):
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * KIB
    except OSError:
        pass
    return proc.rss_kib(pid) * KIB


def slab():
    with open("/proc/meminfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("Slab:"):
                return int(line.split()[1]) * KIB
    return 0


def all_cases(quick=False):
    """The first one must pass: a relay that garbles bytes is not ranked."""
    return [
        Integrity("integrity", "bytes compared", "check"),
        Bulk("bulk-1", "1 connection up", "up", "--connections", 1),
        Bulk("bulk-1-down", "1 connection down", "down", "--connections", 1),
        BulkMany("bulk-16", "16 connections up", "up", "--connections", 16),
        BulkMany("both", "16 connections both ways", "both", "--connections", 16),
        PingPong("pingpong", "64 bytes there and back", "pingpong", "--size", 64),
        PingPong("messages-64", "64 bytes there and back on 64 connections", "pingpong",
                 "--size", 64, "--connections", 64),
        Setup("setup", "set-ups", "setup", "turn_setup_rate", "--size", 1024, "--in-flight", IN_FLIGHT),
        Setup("setup-pairs", "pairs of kept allocations", "pairs", "pair_setup_rate",
              "--size", 1024, "--in-flight", IN_FLIGHT),
        Syscalls("syscalls", "system calls", "up", "--connections", 16),
        Idle("idle", "idle pairs", "idle", "--size", 64),
        *([] if quick else [Many("many", "100,000 pairs", "idle", "--size", 64)]),
        SlowReader("slow-reader", "the receiver reads nothing", "slow", "--connections", 1),
    ]
