#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Every engine over bad paths: loss, disorder, twins, damage, odd ends, odd links.

client - box - relay - box - peer; the boxes make the faults (impair.py shows that they do). What
goes in comes out, byte for byte, and of every pair it is known which engine had it.
"""

import contextlib
import json
import os
import random
import select
import socket
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import boxes, engines, pins, stun, tap  # noqa: E402
from culvertlab.data import (KIB, MIB, Worker, payload, ping, question, receive,  # noqa: E402
                             receive_slowly, receive_to_end, reset, same, send_until_blocked,
                             sender, swap, toward, unacknowledged)
from culvertlab.engines import LONG  # noqa: E402
from culvertlab.lab import Lab  # noqa: E402
from culvertlab.packets import ACK, Tap  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.turn import ended, recv_message, u32  # noqa: E402
from culvertlab.wait import holds_for, wait_for  # noqa: E402

lab = Lab(boxed=True)
cases = []
BULK = 32 * MIB if LONG else 3 * MIB
TCP = socket.IPPROTO_TCP


def case(name, timeout=40, only=None):
    """A case: run once per engine, or for one only."""
    def register(function):
        cases.append((name, function, timeout * (6 if LONG else 1), only))
        return function
    return register


def config(engine, **sections):
    return engines.config(lab, engine, **sections)


def pair(engine, *args, **more):
    """A bound pair of which this engine has the bytes."""
    return engines.pair(lab, engine, *args, **more)


def faults(**keys):
    """The same on both legs, both ways."""
    for box in (lab.near, lab.far):
        box.set("both", **keys)


def counted(key):
    """How often the boxes did this to segments, both ways."""
    stats = [box.stats() for box in (lab.near, lab.far)]
    return sum(one[way][key] for one in stats for way in ("up", "down"))


def swaps(engine, kinds, size=BULK, **keys):
    """`size` bytes each way through these faults, IPv4 and a little IPv6."""
    changes = config(engine)
    before = {kind: counted(kind) for kind in kinds}
    for version, part in ((4, size), (6, size // 4)):
        faults(**keys)
        data, peer, client = pair(engine, changes=changes, version=version)
        swap(data, peer, part, version)
        ping(data, peer)
        client.close()
    for kind in kinds:
        check(counted(kind) > before[kind], f"nothing was {kind}")


@case("1 % loss on both legs")
def _(engine):
    swaps(engine, ["lost"], loss=1)


@case("1 % loss and 10 ms each way on both legs")
def _(engine):
    swaps(engine, ["lost"], BULK // 4, loss=1, delay=5)


@case("reordered segments on both legs")
def _(engine):
    swaps(engine, ["reordered"], reorder=3, gap=1)


@case("duplicated segments on both legs")
def _(engine):
    swaps(engine, ["duplicated"], dup=5)


@case("damaged segments on both legs: none is delivered")
def _(engine):
    swaps(engine, ["corrupted"], corrupt=1)


@case("every fault at once")
def _(engine):
    kinds = ["lost", "reordered", "duplicated", "corrupted"]
    swaps(engine, kinds, BULK // 2, loss=1, reorder=2, dup=2, corrupt=0.5, delay=1, jitter=1)


@case("a leg of 20 Mbit/s with a short queue, a fast one with delay")
def _(engine):
    changes = config(engine)
    for slow, fast in ((lab.near, lab.far), (lab.far, lab.near)):
        slow.set("both", rate=20, queue=24)
        fast.set("both", delay=10)
        data, peer, client = pair(engine, changes=changes)
        swap(data, peer, BULK // 6, "rate")
        client.close()
        slow.clear()
        fast.clear()


# One segment near the join or the end meets with an accident.

def dialogue(engine, changes, before=None, after=None):
    """A banner before the bind, bytes behind it, bytes both ways, and both ends of stream.

    `before`(port) runs when the data connection has its port and nothing was sent on it.
    """
    client = lab.allocated(changes=changes)
    client.permit(lab.topo.peer.addr())
    peer = lab.keep(lab.topo.peer.connect(client.relayed))
    banner, early = payload(700, "banner"), payload(900, "early")
    up, down = payload(150 * KIB, "up"), payload(150 * KIB, "down")
    cid, _ = client.attempt()
    data = lab.keep(lab.topo.client.connect(client.server))
    if before:
        before(data.getsockname()[1])
    peer.sendall(banner)
    data.sendall(client.signed(stun.CONNECTION_BIND, [(stun.CONNECTION_ID, u32(cid))])[0] + early)
    equal(recv_message(data).code, 0, "ConnectionBind")
    if after:
        after(data, client.relayed[1])
    jobs = [sender(data, up, fin=True), sender(peer, down, fin=True)]
    back = Worker(receive_to_end, data)
    same(receive_to_end(peer), early + up, "to the peer")
    same(back.finish(), banner + down, "to the client")
    for job in jobs:
        job.finish()
    client.close()
    for box in (lab.near, lab.far):
        box.clear()


def before_relay(whom):
    """(box, way) that what goes to this end meets on its way to the relay."""
    return (lab.near, "up") if whom == "peer" else (lab.far, "down")


# (what, box, way, match, which): on the data connection and the peer's, counted from its start.
ACCIDENTS = [
    ("the ConnectionBind", "near", "up", "data", 1),
    ("the client's first segment after it", "near", "up", "data", 2),
    ("the client's third segment", "near", "up", "data", 3),
    ("the client's first bare ACK", "near", "up", "ack", 1),
    ("the client's second bare ACK", "near", "up", "ack", 2),
    ("the client's first bare ACKs, three of them", "near", "up", "ack", -3),
    ("the success response", "near", "down", "data", 1),
    ("the first bytes to the client", "near", "down", "data", 2),
    ("the relay's first bare ACK to the client", "near", "down", "ack", 1),
    ("the client's FIN", "near", "up", "fin", 1),
    ("the FIN to the client", "near", "down", "fin", 1),
    ("the banner", "far", "down", "data", 1),
    ("the peer's second segment", "far", "down", "data", 2),
    ("the peer's first bare ACK", "far", "down", "ack", 1),
    ("the first bytes to the peer", "far", "up", "data", 1),
    ("the second bytes to the peer", "far", "up", "data", 2),
    ("the relay's first bare ACK to the peer", "far", "up", "ack", 1),
    ("the peer's FIN", "far", "down", "fin", 1),
    ("the FIN to the peer", "far", "up", "fin", 1),
]


def accidents(engine, action, ms=0):
    """Each of ACCIDENTS once, with this action."""
    changes = config(engine)
    server, ruled = lab.server(changes), 0
    before = engines.totals(server)[engine]
    for what, where, way, match, which in ACCIDENTS:
        box = lab.near if where == "near" else lab.far
        first, count = (which, 1) if which > 0 else (1, -which)

        def arrange(port, box=box, rule=(way, action, match, first, count), near=where == "near"):
            box.rule(*rule, port if near else 0, ms)
        had = box.stats()[way]["ruled"]
        try:
            dialogue(engine, changes, before=arrange)
        except Exception as error:
            raise tap.Fail(f"{action} {what}: {type(error).__name__}: {error}") from error
        ruled += box.stats()[way]["ruled"] > had
    # Whether there is a bare ACK at some point is the stacks' affair.
    check(ruled >= len(ACCIDENTS) - 4, f"only {ruled} of {len(ACCIDENTS)} accidents happened")
    # What meets with one at the join may go on by another engine.
    had = engines.totals(server)[engine] - before
    tap.note(f"{engine} had {had} of {len(ACCIDENTS)} pairs")
    check(had > len(ACCIDENTS) // 2, f"{engine} had {had} of {len(ACCIDENTS)} pairs")


@case("any one segment around the join or the end is lost", 60)
def _(engine):
    accidents(engine, "drop")


@case("any one segment around the join or the end comes twice")
def _(engine):
    accidents(engine, "dup")


@case("any one segment around the join or the end is 30 ms late")
def _(engine):
    accidents(engine, "hold", 30)


@case("any one segment around the join or the end is damaged", 60)
def _(engine):
    accidents(engine, "corrupt")


@case("a twin of the SYN, and of the bind, arrives when the pair is long joined")
def _(engine):
    changes = config(engine)
    lab.server(changes)
    for match in ("syn", "data"):
        data, peer, client = late_twin(changes, match)
        swap(data, peer, 200 * KIB, match)
        # Until the twin has arrived and a little more.
        wait_for(lambda: lab.near.stats()["up"]["late"] == 0, 5, "the twin is through")
        swap(data, peer, 200 * KIB, match)
        engines.on(lab.server(), data, engine)
        client.close()
        lab.near.clear()


def late_twin(changes, match):
    """A pair whose first segment of this kind is held; the retransmission makes the join."""
    client = lab.allocated(changes=changes)
    listener = lab.listener()
    cid = client.connect(listener.getsockname())
    peer = lab.accept(listener)
    sock = lab.topo.client.bound()
    lab.near.rule("up", "hold", match, 1, 1, sock.getsockname()[1], 1300 if match == "syn" else 400)
    sock.settimeout(10)
    sock.connect(client.server)
    data = lab.keep(sock)
    data.sendall(client.signed(stun.CONNECTION_BIND, [(stun.CONNECTION_ID, u32(cid))])[0])
    equal(recv_message(data).code, 0, "ConnectionBind")
    return data, peer, client


@case("a reset that is lost: the next segment brings it back")
def _(engine):
    changes = config(engine)
    for whom in ("peer", "client"):
        data, peer, client = pair(engine, changes=changes)
        source, sink = toward(whom, data, peer)
        ping(data, peer)
        box, way = before_relay(whom)
        box.rule(way, "drop", "rst")
        reset(source)
        wait_for(lambda box=box, way=way: box.stats()[way]["ruled"] > 0, 5, "the reset is lost")
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(50):
                sink.sendall(b"are you there?")
                if sink_ended(sink, 0.2):
                    break
        check(ended(sink, 5) in ("rst", "fin"), "the sink's leg is open")
        box.clear()
        client.close()


@case("a reset after bytes that were lost reaches an end that says nothing")
def _(engine):
    changes = config(engine)
    for version in (4, 6):
        for whom in ("peer", "client"):
            data, peer, client = pair(engine, changes=changes, version=version)
            source, sink = toward(whom, data, peer)
            ping(data, peer)
            # No acknowledgement is under way that the source could still answer.
            wait_for(lambda pair=(data, peer): not any(map(unacknowledged, pair)), 5, "quiet")
            box, way = before_relay(whom)
            box.rule(way, "drop", "data", 1, 1000)
            source.sendall(b"nobody hears this")
            wait_for(lambda box=box, way=way: box.stats()[way]["ruled"] > 0, 5, "bytes are lost")
            reset(source)
            equal(ended(sink, 5), "rst", f"end of the silent {whom}, IPv{version}")
            box.clear()
            client.close()


@case("an end that has forgotten the connection connects again from the same port")
def _(engine):
    changes = config(engine)
    for version in (4, 6):
        data, peer, client = pair(engine, changes=changes, version=version)
        ping(data, peer)
        wait_for(lambda pair=(data, peer): not any(map(unacknowledged, pair)), 5, "quiet")
        port = data.getsockname()[1]
        data.setsockopt(TCP, boxes.TCP_REPAIR, 1)  # closes without a word
        data.close()
        again = lab.keep(lab.topo.client.bound(version, port=port))
        again.connect(client.server)
        check(ended(peer, 5) in ("rst", "fin"), "the peer's leg is open")
        client.close()


def sink_ended(sock, seconds):
    try:
        return ended(sock, seconds) != "data"
    except socket.timeout:
        return False


@case("half-close each way under loss")
def _(engine):
    changes = config(engine)
    answer = payload(BULK // 4, "half")
    for whom in ("peer", "client"):
        faults(loss=2)
        data, peer, client = pair(engine, changes=changes)
        question(*toward(whom, data, peer), answer)
        client.close()


@case("one byte at a time both ways under loss and disorder")
def _(engine):
    faults(loss=1, reorder=2, dup=2, gap=1)
    data, peer, _ = pair(engine, changes=config(engine))
    text = payload(1200, 9)
    for sock in (data, peer):
        sock.setsockopt(TCP, socket.TCP_NODELAY, 1)
    for at in range(len(text)):
        data.send(text[at:at + 1])
        peer.send(text[at:at + 1])
    same(receive(peer, len(text)), text, "to the peer")
    same(receive(data, len(text)), text, "to the client")


@case("slow readers with little room both ways under loss")
def _(engine):
    # Again and again: both ends' windows have to close in the same moment for what can go wrong.
    changes = config(engine)
    text = payload(MIB if LONG else 400 * KIB, 10)
    for room in (8, 16, 16, 16, 24, 48) * (10 if LONG else 3):
        faults(loss=1)
        data, peer, client = pair(engine, changes=changes, rcvbuf=room * KIB,
                                  peer_rcvbuf=room * KIB)
        jobs = [sender(data, text), sender(peer, text)]
        readers = [Worker(receive_slowly, sock, len(text), 32 * KIB) for sock in (data, peer)]
        for reader in readers:
            same(reader.finish(), text, "slowly read")
        for job in jobs:
            job.finish()
        client.close()


# Ends that negotiate less.

OPTIONS = {"timestamps": {"tcp_timestamps": 0}, "SACK": {"tcp_sack": 0},
           "window scaling": {"tcp_window_scaling": 0}}


def bare(engine, option, nodes):
    """A pair whose ends on these nodes go without an option, under a little loss."""
    lab.near.clear()
    lab.far.clear()
    changes = config(engine)
    with contextlib.ExitStack() as stack:
        for node in nodes:
            stack.enter_context(boxes.sysctl(node, **OPTIONS[option]))
        data, peer, client = lab.pair(changes=changes)
        used, why = engines.carried_by(lab.server(), data)
        faults(loss=0.5, reorder=1, gap=1)
        swap(data, peer, BULK // 6, option)
        ping(data, peer)
        client.close()
    return used, why


@case("one end without timestamps, SACK or window scaling")
def _(engine):
    for option in OPTIONS:
        for node in (lab.topo.client, lab.topo.peer):
            used, why = bare(engine, option, [node])
            if engine == "wire" and option != "window scaling":
                check(used in engines.ALL and used != "wire", f"{option} differs, yet {used}")
                check(option.lower() in why.lower(), f"why not wire: {why!r} without {option}")
            else:
                equal(used, engine, f"engine without {option} at one end (why: {why!r})")


@case("both ends without timestamps, SACK or window scaling")
def _(engine):
    for option in OPTIONS:
        used, why = bare(engine, option, [lab.topo.client, lab.topo.peer])
        equal(used, engine, f"engine without {option} (why: {why!r})")


# Links.

def mtu_set(near, far):
    """The MTU of both ends of the client's leg, and of the peer's."""
    for (node, interface), mtu in zip(lab.topo.legs, (near, near, far, far)):
        node.run("ip", "link", "set", interface, "mtu", str(mtu))


@case("legs of MTU 1280, 1500 and 9000 in every mixture", 60)
def _(engine):
    changes = config(engine)
    try:
        for near, far in ((1280, 1280), (1280, 1500), (1500, 1280), (9000, 1500), (1280, 9000),
                          (9000, 1280), (9000, 9000)):
            mtu_set(near, far)
            for version in (4, 6):
                data, peer, client = lab.pair(changes=changes, version=version)
                used, why = engines.carried_by(lab.server(), data)
                check(used == engine or (engine == "wire" and near != far and why),
                      f"MTU {near} and {far}: {used} (why: {why!r})")
                swap(data, peer, BULK // 6, f"{near}/{far}")
                ping(data, peer)
                client.close()
    finally:
        mtu_set(1500, 1500)


@case("legs of unlike MTU go on wire when segments are made to fit the narrower one", only="wire")
def _(engine):
    narrow = {"listener main": {"mss": 1400}}
    try:
        for near, far, more in ((9000, 1500, narrow), (1500, 9000, {})):
            mtu_set(near, far)
            changes = config(engine, **more)
            for version in (4, 6):
                data, peer, client = pair(engine, changes=changes, version=version)
                swap(data, peer, BULK // 6, f"{near}/{far}")
                client.close()
        # What clients send is not asked to be shorter here.
        mtu_set(9000, 1500)
        data, _, client = lab.pair(changes=config(engine))
        used, why = engines.carried_by(lab.server(), data)
        check(used != "wire" and "segments" in why, f"{used} (why: {why!r})")
        client.close()
    finally:
        mtu_set(1500, 1500)


class Spare:
    """One more link between relay and peer, which nothing goes by yet."""

    def __init__(self):
        self.relay, self.peer = lab.topo.relay, lab.topo.peer
        self.relay.run("ip", "link", "add", "spare", "type", "veth", "peer", "name", "spare",
                       "netns", os.path.basename(self.peer.path))
        for node, number in ((self.relay, 1), (self.peer, 2)):
            node.run("ip", "addr", "add", f"10.78.2.{number}/24", "dev", "spare")
            node.run("ip", "addr", "add", f"fd78:2::{number}/64", "dev", "spare", "nodad")
            node.run("ip", "link", "set", "spare", "up")
        with self.relay.entered():
            self.index = socket.if_nametoindex("spare")

    def lead(self, relayed, peer):
        """From now on both ends of a pair's leg send by it."""
        near, far = ("fd78:2::1", "fd78:2::2") if ":" in peer else ("10.78.2.1", "10.78.2.2")
        self.relay.run("ip", "route", "replace", peer, "via", far)
        self.peer.run("ip", "route", "replace", relayed, "via", near)

    def bytes(self):
        """What has come by it to the relay, and left."""
        rows = json.loads(self.relay.run("ip", "-s", "-j", "link", "show", "dev", "spare"))
        return [rows[0]["stats64"][way]["bytes"] for way in ("rx", "tx")]

    def remove(self):
        self.relay.run("ip", "link", "del", "spare")


@case("a link comes, the way moves to it in the middle of a transfer, and it goes", only="wire")
def _(engine):
    changes = config(engine)
    for version in (4, 6):
        data, peer, client = pair(engine, changes=changes, version=version)
        swap(data, peer, MIB, "before")
        spare = Spare()
        try:
            name = f"link-{spare.index}-ingress"
            wait_for(lambda name=name: name in pins.names(lab.topo.relay), 5, "it has programs")
            lab.far.set("both", rate=20, queue=50)  # a second and more, if it stayed there
            before = lab.far.stats()["up"]["data"]
            job = Worker(swap, data, peer, 3 * MIB, "moving")
            wait_for(lambda before=before: lab.far.stats()["up"]["data"] > before + 200, 5,
                     "it is under way")
            spare.lead(client.relayed[0], peer.getsockname()[0])
            job.finish()
            lab.far.clear()
            swap(data, peer, MIB, "by the new link")
            before = min(spare.bytes())
            check(before > 2 * MIB, f"by the new link: {spare.bytes()}")
            job = Worker(swap, data, peer, 20 * MIB, "moving back")
            wait_for(lambda spare=spare, before=before: min(spare.bytes()) > before + MIB, 5,
                     "the next is under way")
        finally:
            spare.remove()
        job.finish()
        engines.on(lab.server(), data, engine)
        client.close()


def routes_forget():
    """No host remembers a narrow link."""
    for node in (lab.topo.client, lab.topo.relay, lab.topo.peer):
        for family in ("-4", "-6"):
            node.run("ip", family, "route", "flush", "cache")


def longest(tapped, source):
    """The longest IP packet from this address since the last look."""
    return max((s.size for s in tapped.segments() if s.source == source), default=0)


@case("a narrow link on the way: its router's packet-too-big reaches who sends")
def _(engine):
    changes = config(engine)
    for version in (4, 6):
        for whom, mtu in (("peer", 1300), ("client", 1400)):
            box, way = (lab.far, "up") if whom == "peer" else (lab.near, "down")
            routes_forget()
            data, peer, client = pair(engine, changes=changes, version=version)
            source, sink = toward(whom, data, peer)
            box.set(way, mtu=mtu, tell=1)
            before = box.stats()[way]
            text = payload(BULK // 3, f"narrow{mtu}")
            job = sender(source, text)
            same(receive(sink, len(text)), text, f"to the {whom} through {mtu} bytes")
            job.finish()
            now = box.stats()[way]
            check(now["told"] > before["told"], "nothing was too long")
            check(now["too_long"] - before["too_long"] < 200, f"{now['too_long']} were too long")
            ping(data, peer)
            if engine in engines.PACKET:
                # Who sends has learnt it: nothing longer leaves it any more.
                leg = lab.topo.legs[0 if whom == "peer" else 3]
                tapped = lab.keep(Tap(*leg))
                job = sender(source, text)
                same(receive(sink, len(text)), text, f"again to the {whom}")
                job.finish()
                equal(longest(tapped, source.getsockname()[:2]), mtu, "longest packet")
            box.clear()
            client.close()
    routes_forget()


OFFLOADS = {"none": {}, "tx": {"tx": 1}, "tx tso gso": {"tx": 1, "tso": 1, "gso": 1},
            "gro": {"gro": 1}, "tx tso gso gro": {"tx": 1, "tso": 1, "gso": 1, "gro": 1}}


@case("segmentation, coalescing and checksum offloads on and off", 60)
def _(engine):
    changes = config(engine)
    off = dict.fromkeys(("tx", "tso", "gso", "gro"), 0)
    try:
        for name, on in OFFLOADS.items():
            boxes.offloads(lab.topo, **{**off, **on})
            for version in (4, 6):
                data, peer, client = pair(engine, changes=changes, version=version)
                swap(data, peer, BULK // 3, name)
                ping(data, peer)
                for sock in (data, peer):
                    sock.shutdown(socket.SHUT_WR)
                for sock in (peer, data):
                    equal(ended(sock), "fin", f"end with offloads: {name}")
                client.close()
    finally:
        plain_segments()


def plain_segments():
    """Segments as long as the MTU, so that one fault meets one of them."""
    boxes.offloads(lab.topo, tx=1, tso=0, gso=0, gro=0)


@case("frames with a priority tag on both legs")
def _(engine):
    changes = config(engine)
    faults(tag=1)
    for version in (4, 6):
        data, peer, client = pair(engine, changes=changes, version=version)
        swap(data, peer, BULK // 3, version)
        for sock in (data, peer):
            sock.shutdown(socket.SHUT_WR)
        for sock in (peer, data):
            equal(ended(sock), "fin", "end")
        client.close()


# Quiet.

def keepalive(sock, idle=1, interval=1):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(TCP, socket.TCP_KEEPIDLE, idle)
    sock.setsockopt(TCP, socket.TCP_KEEPINTVL, interval)
    sock.setsockopt(TCP, socket.TCP_KEEPCNT, 2)


def bare_acks(tapped, me, seen):
    """Add to seen what carries at most a probe's byte, from us and to us."""
    for segment in tapped.segments():
        if segment.flags == ACK and len(segment.payload) <= 1:
            seen[0] += segment.source == me
            seen[1] += segment.target == me
    return seen


@case("keep-alive of both ends is answered while nothing else is sent")
def _(engine):
    data, peer, _ = pair(engine, changes=config(engine))
    ping(data, peer)
    ends = [(lab.keep(Tap(*leg)), sock.getsockname()[:2], [0, 0])
            for leg, sock in ((lab.topo.legs[0], data), (lab.topo.legs[3], peer))]
    for sock in (data, peer):
        keepalive(sock)
    wait_for(lambda: min(min(bare_acks(*end)) for end in ends) >= 3, 15,
             "three probes of each end, answered")
    # Whose probes are they? With packets relayed the far end's own stack answers.
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
    near, far = ends
    bare_acks(*far)
    far[2][:] = near[2][:] = [0, 0]
    wait_for(lambda: min(bare_acks(*near)) >= 2, 15, "two more of the client's, answered")
    came = bare_acks(*far)[1]
    check(came >= 1 if engine in engines.PACKET else came == 0,
          f"{came} probes of the client reached the peer")
    ping(data, peer)


def send_until_closed(source, data, tapped):
    """Send until the tap has seen a window of zero for the sender; how many bytes were taken.

    That nothing more goes for a while does not yet say so: a relay that waits for a processor
    empties the queues once more.
    """
    me = source.getsockname()[:2]
    sent, end = 0, time.monotonic() + 20
    while time.monotonic() < end:
        sent += send_until_blocked(source, memoryview(data)[sent:], 0.4)
        if any(s.target == me and s.window == 0 and s.flags & ACK for s in tapped.segments()):
            return sent
    raise AssertionError("no window of zero was seen within 20 s")


@case("a window of zero: probes go on through loss, and it opens again")
def _(engine):
    changes = config(engine)
    for whom in ("peer", "client"):
        data, peer, client = pair(engine, changes=changes, rcvbuf=8 * KIB, peer_rcvbuf=8 * KIB)
        source, sink = toward(whom, data, peer)
        box, way = before_relay(whom)
        tapped = lab.keep(Tap(*lab.topo.legs[0 if whom == "peer" else 3]))
        flood = payload(24 * MIB, "zero")
        me = source.getsockname()[:2]
        sent = send_until_closed(source, flood, tapped)
        check(sent < len(flood), "no back-pressure")
        # The first probe is lost; the next has to come. A sender that overran the window when
        # it closed probes with the segment that did not fit.
        box.rule(way, "drop", "any", 1, 1)
        seen = []

        def probed(seen=seen, me=me, tapped=tapped):
            seen += [s for s in tapped.segments() if s.source == me]
            return len(seen) >= (4 if LONG else 2)
        wait_for(probed, 30 if LONG else 15, "probes, the first of them lost")
        same(receive(sink, sent), flood[:sent], f"stalled bytes to the {whom}")
        ping(data, peer)
        box.clear()
        client.close()


@case("a reader that has paused for long goes on at once")
def _(engine):
    changes = config(engine)
    text = payload(24 * MIB, "pause")
    stalled = []
    for version, toward in ((4, "peer"), (6, "client")):
        data, peer, client = pair(engine, changes=changes, version=version, rcvbuf=200 * KIB,
                                  peer_rcvbuf=200 * KIB)
        source, sink = (data, peer) if toward == "peer" else (peer, data)
        stalled.append((source, sink, sender(source, text), client))
    # Three seconds, and it would be three more until the sender tries again by itself.
    wait_for(lambda: all(backed_off(source) >= 4 for source, *_ in stalled), 20, "both are stuck")
    for source, sink, job, client in stalled:
        got, longest = waited(sink, len(text))
        same(got, text, "read after the pause")
        job.finish()
        # Not all of the time, which is as many round trips as there are windows in it.
        check(longest < 2, f"{longest:.1f} s without a byte")
        client.close()


def waited(sock, count):
    """Receive so many bytes; and the longest time, in seconds, for which there were none."""
    got, longest = bytearray(), 0
    while len(got) < count:
        start = time.monotonic()
        piece = sock.recv(min(MIB, count - len(got)))
        longest = max(longest, time.monotonic() - start)
        check(piece, f"end after {len(got)} of {count} bytes")
        got += piece
    return got, longest


def backed_off(sock):
    """How often the timer that repeats or probes has been doubled."""
    return sock.getsockopt(TCP, socket.TCP_INFO, 8)[4]


@case("nothing for a long while, then bytes", 400 if LONG else 30)
def _(engine):
    data, peer, _ = pair(engine, changes=config(engine))
    ping(data, peer)
    holds_for(lambda: not select.select([data, peer], [], [], 0)[0], 240 if LONG else 2,
              "both ends stay open, and nothing arrives")
    swap(data, peer, 100 * KIB, "idle")
    engines.on(lab.server(), data, engine)


# Numbers.

def wrapping(client, cid, before):
    """A bound data connection whose first sequence number lies `before` the wrap."""
    data = lab.keep(boxes.connect_numbered(lab.topo.client, client.server, -before))
    data.sendall(client.signed(stun.CONNECTION_BIND, [(stun.CONNECTION_ID, u32(cid))])[0])
    equal(recv_message(data).code, 0, "ConnectionBind")
    return data


@case("sequence numbers of both ends wrap before, at and after the join", 60)
def _(engine):
    changes = config(engine)
    rng = random.Random(20)
    for version in (4, 6):
        faults(loss=0.5, reorder=1, dup=1, gap=1)
        client = lab.allocated(version, changes=changes)
        client.permit(lab.topo.peer.addr(version))
        for before in (1, 2, 60, 250, 1500, 70000, rng.randint(2, 300000), rng.randint(2, 300000)):
            peer = lab.keep(boxes.connect_numbered(lab.topo.peer, client.relayed,
                                                   -rng.choice((1, 2, 900, before, 90000))))
            cid, _ = client.attempt()
            data = wrapping(client, cid, before)
            engines.on(lab.server(), data, engine)
            swap(data, peer, 400 * KIB, before)
            for sock, other in ((data, peer), (peer, data)):
                sock.shutdown(socket.SHUT_WR)
                equal(ended(other), "fin", "end of stream")
            data.close()
            peer.close()


# What `auto` makes of a path.

def chosen_for(data_ok, words):
    """Ask for a pair under `auto`: is it on wire, and does the reason hold these words?"""
    data, peer, client = lab.pair()
    used, why = engines.carried_by(lab.server(), data)
    check((used == "wire") == data_ok, f"{used} was chosen (why: {why!r})")
    check(all(word in why.lower() for word in words), f"why: {why!r} lacks {words}")
    swap(data, peer, 200 * KIB, used)
    client.close()


@case("auto: a clean short path goes on wire, a long or a lossy one does not", only="wire")
def _(engine):
    changes = config(engine)
    changes["engine"]["wire"] = "auto"
    lab.server(changes)
    chosen_for(True, [])
    for box in (lab.near, lab.far):
        box.set("both", delay=20)
        chosen_for(False, ["policy", "long"])
        box.clear()
        # Loss that was met on the way to the bind: the SYN-ACK of every connection.
        way = "down" if box is lab.near else "up"
        box.rule(way, "drop", "data", 1, 1)
        box.rule(way, "drop", "synack" if way == "down" else "syn", 1, 1)
        chosen_for(False, ["policy", "loses"])
        box.clear()
    chosen_for(True, [])


plain_segments()
engines.add_all(lab, cases)
tap.main()
