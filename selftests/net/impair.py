#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The impairment box keeps its word: what the other tests stand on."""

import os
import struct
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import boxes, tap  # noqa: E402
from culvertlab.data import MIB, payload, ping, receive, same, sender, swap  # noqa: E402
from culvertlab.lab import Lab  # noqa: E402
from culvertlab.packets import Segment, Tap, mac_of  # noqa: E402
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.topo import in_user_namespace  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab(boxed=True)
test = tap.test
# Nobody has this address; the relay does not forward: the frames end there.
FLOW = (("10.77.1.2", 4000), ("10.77.1.99", 4001))
BURST = 40


def wire():
    """(tap at the client, tap at the relay, the relay's hardware address)."""
    left = lab.keep(Tap(lab.topo.client, "uplink"))
    right = lab.keep(Tap(lab.topo.relay, "toclient"))
    return left, right, mac_of(lab.topo.relay, "toclient")


def numbered(left, mac, numbers, **more):
    """Send segments with their numbers inside."""
    for number in numbers:
        left.send(Segment(FLOW, seq=number, payload=struct.pack("!I", number) * 3, **more), mac)


def arrivals(right, box, before, count):
    """The numbers that came, in their order, once the box has seen `count` more frames."""
    got = []

    def all_through():
        stats = box.stats()
        got.extend(s.seq for s in right.segments() if s.source == FLOW[0])
        return stats["up"]["segments"] - before["up"]["segments"] >= count
    wait_for(all_through, 10, "the box has seen everything")
    return got


def late(right, box):
    """The numbers the box still holds, in their order."""
    wait_for(lambda: not box.stats()["up"]["late"], 10, "nothing is held")
    return [s.seq for s in right.segments() if s.source == FLOW[0]]


def through(count, **conf):
    """Numbers that arrive of `count` sent through these faults, and what the box counted."""
    left, right, mac = wire()
    lab.near.set("up", **{"loss": 0, **conf})
    before = lab.near.stats()
    got = []
    # An ordinary user's sockets hold few frames.
    for first in range(0, count, BURST):
        last = min(first + BURST, count)
        numbered(left, mac, range(first, last))
        got += arrivals(right, lab.near, before, last)
    got += late(right, lab.near)
    after = lab.near.stats()
    return got, {key: after["up"][key] - before["up"][key] for key in after["up"]}


@test("without faults every frame passes once, in order, super-packets too")
def _():
    got, counts = through(5000)
    equal(got, list(range(5000)), "numbers")
    equal((counts["lost"], counts["duplicated"]), (0, 0))
    data, peer, _ = lab.pair()
    swap(data, peer, 2 * MIB)
    stats = lab.near.stats()
    check(stats["up"]["super"] > 0, "no super-packet passed")
    if not in_user_namespace():  # where the box may have room for a flight of super-packets
        equal((stats["overrun"], stats["unsent"]), (0, 0), "frames lost in the box itself")


@test("loss, duplicates and reordering are as frequent as asked, and counted")
def _():
    got, counts = through(10000, loss=5)
    within(counts["lost"], 400, 600, "of 10,000 lost at 5 %")
    equal(len(got), 10000 - counts["lost"], "arrived")
    equal(got, sorted(got), "the rest is in order")
    lab.near.clear()
    got, counts = through(10000, dup=3)
    within(counts["duplicated"], 220, 380, "of 10,000 doubled at 3 %")
    equal(len(got), 10000 + counts["duplicated"], "arrived")
    lab.near.clear()
    got, counts = through(10000, reorder=2, gap=3)
    within(counts["reordered"], 130, 270, "of 10,000 held at 2 %")
    equal(sorted(got), list(range(10000)), "all arrive")
    late = sum(b < a for a, b in zip(got, got[1:]))
    within(late, counts["reordered"] // 4, counts["reordered"], "steps back")


@test("the same seed makes the same faults, another makes others")
def _():
    lost = []
    for seed in (7, 7, 8):
        lab.near.kill()
        lab.near = boxes.Box(lab, lab.topo.boxes[0], "left", "right", seed)
        lost.append(through(3000, loss=10)[0])
        lab.drop_connections()
    equal(lost[0], lost[1], "survivors of seed 7")
    check(lost[0] != lost[2], "seed 8 lost the same frames as seed 7")


@test("a rule meets exactly the frames it names")
def _():
    left, right, mac = wire()
    before = lab.near.stats()
    lab.near.rule("up", "drop", "data", 3, 2)
    lab.near.rule("up", "dup", "data", 6)
    lab.near.rule("up", "hold", "data", 8, 1, 0, 30)
    lab.near.rule("up", "drop", "data", 1, 100, 9999)  # another flow's port
    lab.near.rule("up", "drop", "fin")
    numbered(left, mac, range(10))
    got = arrivals(right, lab.near, before, 10) + late(right, lab.near)
    equal(got, [0, 1, 4, 5, 5, 6, 8, 9, 7], "numbers")


@test("delay and rate take their time, mtu stops what is longer")
def _():
    lab.near.set("up", delay=30)
    lab.near.set("down", delay=20)
    lab.server()
    data, peer, _ = lab.pair()
    ping(data, peer)
    start = time.monotonic()
    ping(data, peer)
    within(time.monotonic() - start, 0.05, 0.5, "seconds there and back")
    lab.near.clear()
    lab.near.set("up", rate=40, queue=64)
    data, peer, _ = lab.pair()
    text = payload(2 * MIB)
    start = time.monotonic()
    job = sender(data, text)
    same(receive(peer, len(text)), text, "through 40 Mbit/s")
    job.finish()
    within(time.monotonic() - start, 0.4, 5, "seconds for 2 MiB at 40 Mbit/s")
    lab.near.clear()
    left, right, mac = wire()
    before = lab.near.stats()
    lab.near.set("up", mtu=53)  # 20 + 20 + 12 bytes fit
    numbered(left, mac, range(3))
    numbered(left, mac, range(3, 5), options=bytes([1] * 4))
    equal(arrivals(right, lab.near, before, 5), [0, 1, 2], "numbers")
    equal(lab.near.stats()["up"]["too_long"], before["up"]["too_long"] + 2, "too long")


def checksum_errors(node):
    """TCP segments this namespace has refused for their checksum."""
    lines = [line.split() for line in node.run("cat", "/proc/net/snmp").splitlines()
             if line.startswith("Tcp:")]
    return int(dict(zip(*lines))["InCsumErrors"])


@test("what it corrupts is refused by its checksum, with checksum offload on and off")
def _():
    for on in (True, False):
        boxes.offloads(lab.topo, tso=False, gso=False, tx=on)
        try:
            lab.near.set("up", corrupt=2)
            before, refused = lab.near.stats(), checksum_errors(lab.topo.relay)
            # Whose relay ends both connections itself, and so looks at checksums.
            data, peer, _ = lab.pair(changes={"engine": {"order": "splice"}})
            text = payload(4 * MIB)
            job = sender(data, text)
            same(receive(peer, len(text)), text, "through 2 % of corruption")
            job.finish()
            corrupted = lab.near.stats()["up"]["corrupted"] - before["up"]["corrupted"]
            check(corrupted > 10, f"only {corrupted} corrupted")
            within(checksum_errors(lab.topo.relay) - refused, corrupted * 0.9, corrupted,
                   f"of {corrupted} corrupted refused")
        finally:
            boxes.offloads(lab.topo, tx=True, tso=True, gso=True)


@test("nonsense is answered, not obeyed")
def _():
    for line in ("", "up", "sideways loss 1", "up loss", "up loss 101", "up loss -1", "up loss x",
                 "up colour 1", "up rule drop data", "up rule eat data 1 1 0", "both rule"):
        try:
            lab.near.tell(line)
        except tap.Fail:
            continue
        raise tap.Fail(f"{line!r} was obeyed")
    ping(*lab.pair()[:2])


tap.main()
