# SPDX-License-Identifier: BSD-2-Clause
"""What is measured, and how one run of `load` becomes figures.

A case is asked for one repetition with one relay at a time, so that bench.py can go round the
relays.  Relay, peer and load are new processes each time.
"""

import json
import subprocess
import time

from culvertlab import proc
from culvertlab.wait import Timeout, wait_for

from .place import PEER_PORT, Broken, MemoryGroup, Wrong, tool

KIB, MB, GB = 1024, 1e6, 1e9


class Plan:
    """How long and how often: a full run or a quick one."""

    def __init__(self, quick):
        self.quick = quick
        self.warmup_ms = 300 if quick else 700
        self.duration_ms = 1000 if quick else 2000
        self.runs = 2 if quick else 5
        self.few_runs = 1 if quick else 3
        self.check_bytes = 4 << 20 if quick else 16 << 20
        self.idle_pairs = 4000
        self.slow_ms = 2500
        self._enough = time.monotonic() + 170 if quick else None

    def late(self):
        """A quick run repeats nothing any more once it has lasted this long."""
        return self._enough is not None and time.monotonic() > self._enough


class Peer:
    """The far end, with the file of its counters."""

    def __init__(self, place):
        self.place = place
        self.stats = f"{place.dir}/stats"
        self.process = place.spawn(place.peer, [tool("peer"), "--listen", f"0.0.0.0:{PEER_PORT}",
                                                "--stats", self.stats], "peer")
        self.process.wait_for_text("ready", read=self.process.out)

    def stop(self):
        self.place.end(self.process)


class Case:
    """A case of `load` whose one line of JSON holds all figures."""

    memory = False
    few = False  # long, or hardly different from run to run

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
                return self.run(place, relay, running, peer, plan)
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
        argv = [tool("load"), self.load_case, *relay.where(place), "--stats", peer.stats,
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


class PingPong(Case):
    def figures(self, data, relay, plan):
        figures = {"p50": ("us", data["p50_us"]), "p99": ("us", data["p99_us"]),
                   "rate": ("1/s", data["round_trips"] / data["seconds"])}
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

    few = True

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
            return self.memory_figures(before, after, relay, plan)
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

    def memory_figures(self, before, after, relay, plan):
        user, kernel = ((b - a) / plan.idle_pairs for a, b in zip(before, after))
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


def all_cases():
    """The first one must pass: a relay that garbles bytes is not ranked."""
    return [
        Integrity("integrity", "bytes compared", "check"),
        Bulk("bulk-1", "1 connection up", "up", "--connections", 1),
        Bulk("bulk-1-down", "1 connection down", "down", "--connections", 1),
        Bulk("bulk-16", "16 connections up", "up", "--connections", 16),
        Bulk("both", "16 connections both ways", "both", "--connections", 16),
        PingPong("pingpong", "64 bytes there and back", "pingpong", "--size", 64),
        PingPong("messages-64", "64 bytes there and back on 64 connections", "pingpong",
                 "--size", 64, "--connections", 64),
        Setup("setup", "set-ups", "setup", "turn_setup_rate", "--size", 1024, "--in-flight", 32),
        Setup("setup-pairs", "pairs of kept allocations", "pairs", "pair_setup_rate",
              "--size", 1024, "--in-flight", 32),
        Idle("idle", "idle pairs", "idle", "--size", 64),
        SlowReader("slow-reader", "the receiver reads nothing", "slow", "--connections", 1),
    ]
