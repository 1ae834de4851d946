#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Forged packets on the tuples of a joined pair, from where each end is.

Nothing crosses that a correct TCP would not have accepted, nothing ends that has not ended, no
entry stays behind.  The forger is the strongest there is: on the wire, and it knows all numbers.
splice has the kernel's own TCP on both legs: what holds there is what has to hold everywhere.
"""

import os
import random
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import engines, tap  # noqa: E402
from culvertlab.data import (KIB, MIB, payload, ping, receive, same, sender, swap,
                             unacknowledged)  # noqa: E402
from culvertlab.engines import LONG  # noqa: E402
from culvertlab.lab import Lab, need_namespaces  # noqa: E402
from culvertlab.packets import (ACK, CWR, ECE, FIN, MASK, PSH, RST, SYN, URG, Segment,  # noqa: E402
                                Tap, after, checksum, mac_of, packed, sack, sum_fits, tcp_of,
                                timestamps)
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.turn import ended  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
cases = []
MARK = b"<forged by nobody>"
ANSWER_INTERVAL = 0.05  # seconds: the shortest time between answers to resets
FAR = 0x20000000  # beyond any window
ICMP_UNREACHABLE, NEEDS_FRAGMENTATION = 3, 4


def case(name, timeout=40):
    def register(function):
        cases.append((name, function, timeout * (4 if LONG else 1)))
        return function
    return register


class Leg:
    """One end of a pair, with a tap beside it that can speak for it."""

    def __init__(self, sock, leg, relay_leg, relay):
        self.sock = sock
        self.node = leg[0]
        self.tap = lab.keep(Tap(*leg))
        self.gateway = mac_of(*relay_leg)
        self.me, self.relay = sock.getsockname()[:2], relay
        self.next = self.acked = 0  # what comes next from us; what we have acknowledged
        self.times = None
        self.arrived = []  # raw packets to us since the last look

    def collect(self):
        """Read the tap: our numbers, and what arrived."""
        for packet, outgoing in self.tap.packets():
            segment = tcp_of(packet, outgoing)
            if not outgoing:
                self.arrived.append(packet)
            elif segment and segment.source == self.me and segment.target == self.relay \
                    and MARK not in segment.payload:
                self.next, self.acked = segment.end, segment.ack
                self.times = segment.times() or self.times

    def segment(self, seq=0, ack=0, flags=ACK, payload=b"", options=None, **more):
        """A forgery for us: numbers relative to what comes next."""
        if options is None:
            options = timestamps(*self.times) if self.times else b""
        return Segment((self.me, self.relay), self.next + seq, self.acked + ack, flags, 500,
                       options, payload, **more)

    def send(self, packet, **more):
        self.tap.send(packet, more.pop("mac", self.gateway), **more)


class Rig:
    """A joined pair with both legs tapped; near forges for the client, far for the peer."""

    def __init__(self, engine, version=4):
        need_namespaces(lab)
        self.engine, self.version = engine, version
        self.data, self.peer, self.client = lab.pair(changes=engines.config(lab, engine),
                                                     version=version)
        self.server = lab.server()
        engines.on(self.server, self.data, engine)
        legs = lab.topo.legs
        self.near = Leg(self.data, legs[0], legs[1], self.server.address(version))
        self.far = Leg(self.peer, legs[3], legs[2], self.peer.getpeername()[:2])
        self.legs = (self.near, self.far)
        self.quiet()

    def other(self, leg):
        return self.far if leg is self.near else self.near

    def quiet(self):
        """A ping each way, until both taps have seen the last word of it."""
        for leg in self.legs:
            leg.collect()  # a tap that is full would not see the ping
        ping(self.data, self.peer, b"quiet, please")
        wait_for(self._settled, 5, "both ends have acknowledged everything")
        for leg in self.legs:
            leg.arrived.clear()

    def _settled(self):
        for leg in self.legs:
            leg.collect()
        return all(not unacknowledged(leg.sock) for leg in self.legs) and all(self._answered(leg)
                                                                     for leg in self.legs)

    @staticmethod
    def _answered(leg):
        """Everything that came to this end has been acknowledged by it, as the tap saw it."""
        mine = [s for s in map(tcp_of, leg.arrived) if s and s.target == leg.me]
        return not any(after(s.end, leg.acked) for s in mine)

    def crossed(self, leg):
        """What arrived at the far end of `leg` that must not: run after a ping."""
        far = self.other(leg)
        far.collect()
        bad = []
        for packet in far.arrived:
            segment = tcp_of(packet)
            ours = segment and segment.target == far.me and segment.source == far.relay
            if MARK in packet and not (ours and not sum_fits(packet)):
                bad.append(segment or packet.hex())
            elif ours and sum_fits(packet) and (segment.flags & (RST | SYN | FIN)
                                                or after(segment.ack, far.next)
                                                or not segment.options_sound()):
                bad.append(segment)
        far.arrived.clear()
        return bad

    def try_each(self, leg, forgeries):
        """Send each (name, packet) for this leg; nothing of it may cross or disturb."""
        for name, packet in forgeries:
            leg.send(packet) if not callable(packet) else packet(leg)
            ping(self.data, self.peer, b"still here")
            wait_for(self._settled, 5, f"quiet after {name}")
            bad = self.crossed(leg)
            check(not bad, f"{name} crossed to {self.other(leg).me}: {bad[:3]}")
            # A living connection answers with an ACK or not at all.
            resets = [s for s in map(tcp_of, leg.arrived) if s and s.flags & RST]
            check(not resets, f"{name} at {leg.me} is answered with a reset: {resets[:3]}")
            leg.arrived.clear()

    def quiet_after(self, leg, start):
        """Nothing crossed of what was forged since `start`; the answers are few, and ACKs."""
        ping(self.data, self.peer, b"and now?")
        wait_for(self._settled, 5, "quiet after the flood")
        equal(self.crossed(leg), [], "crossed")
        answers = [s for s in map(tcp_of, leg.arrived)
                   if s and s.target == leg.me and not s.payload]
        bad = [s for s in answers if s.flags != ACK or after(s.ack, leg.next)]
        check(answers and not bad, f"answers at {leg.me}: {bad[:3] or 'none'}")
        # Two of them are the ping's.
        most = 3 + (time.monotonic() - start) / ANSWER_INTERVAL
        check(len(answers) <= most, f"{len(answers)} answers at {leg.me}, at most {most:.0f}")
        leg.arrived.clear()

    def finish(self, size=200 * KIB):
        """The pair is what it was: bytes each way, both ends of stream, and nothing is left."""
        engines.on(self.server, self.data, self.engine)
        swap(self.data, self.peer, size, self.version)
        for one, two in ((self.data, self.peer), (self.peer, self.data)):
            one.shutdown(socket.SHUT_WR)
            equal(ended(two), "fin", "end of stream")
        self.client.close()
        gone(self.server)


def gone(server):
    """No pair, no allocation, no entry in the kernel."""
    wait_for(lambda: server.counters()["relaying"] == 0, 15, "no pair is left")
    wait_for(lambda: server.counters()["allocations"] == 0, 5, "no allocation is left")
    wait_for(lambda: sum(row["pairs_now"] for row in server.engines()) == 0,
             15, "no engine holds a pair")


def versions():
    return lab.topo.versions


def both_ways(engine, forgeries, chosen=None):
    """forgeries(leg) -> [(name, packet)], tried for both ends, over IPv4 and IPv6."""
    for version in chosen or versions():
        rig = Rig(engine, version)
        for leg in rig.legs:
            rig.try_each(leg, forgeries(leg))
        rig.finish()


@case("data outside the window")
def _(engine):
    both_ways(engine, lambda leg: [
        (f"data at {offset:+#x}", leg.segment(offset, payload=MARK, flags=flags))
        for offset in (FAR, -FAR, 1 << 31, (1 << 31) - 1, -(1 << 30), 1 << 30)
        for flags in (ACK, ACK | PSH, ACK | FIN, ACK | URG)])


@case("bytes that were acknowledged long ago, and other bytes in their place")
def _(engine):
    both_ways(engine, lambda leg: [
        (f"old bytes, {ago} back", leg.segment(-ago, payload=(b"x" * ago)[:size]))
        for ago in (1, 5, 13) for size in (1, 5, 13)])


@case("acknowledgements of what was never sent, or long ago")
def _(engine):
    both_ways(engine, lambda leg: [
        (f"ack at {offset:+#x} with {len(text)} bytes", leg.segment(0, offset, payload=text))
        for offset in (1, 1000, FAR, 1 << 30, (1 << 31) - 1, -(1 << 31), -(1 << 30))
        for text in ((b"", MARK) if abs(offset) > 1 << 20 else (b"",))])


@case("resets that are not exact end nothing")
def _(engine):
    both_ways(engine, lambda leg: [
        (f"reset at {offset:+#x}", leg.segment(offset, ack, flags))
        for offset in (1, 2, 1000, 20000, -1, -1000, FAR, -FAR, 1 << 31)
        for flags, ack in ((RST, 0), (RST | ACK, 0), (RST | ACK, FAR))])


@case("a flood of resets that are not exact is answered by a few acknowledgements")
def _(engine):
    for version in versions():
        rig = Rig(engine, version)
        for leg in rig.legs:
            start = time.monotonic()
            for offset in range(1, 400):
                leg.send(leg.segment(offset, 0, RST))
            rig.quiet_after(leg, start)
        rig.finish()


@case("resets and ends of stream with a wrong checksum end nothing")
def _(engine):
    both_ways(engine, lambda leg: [
        (name, leg.segment(0, 0, flags, text, bad=True))
        for name, flags, text in (("reset", RST, b""), ("reset with ACK", RST | ACK, b""),
                                  ("FIN", FIN | ACK, b""), ("data", ACK | PSH, MARK),
                                  ("data with FIN", FIN | ACK, MARK))])


@case("what only a damaged segment carried is no reason to let its acknowledgement pass")
def _(engine):
    for version in versions():
        rig = Rig(engine, version)
        for leg in rig.legs:
            far = rig.other(leg)
            leg.send(leg.segment(0, 0, ACK | PSH, MARK * 20, bad=True))
            leg.send(leg.segment(len(MARK) * 20, 0, ACK | FIN, bad=True))
            for ack in (len(MARK) * 20, len(MARK) * 20 + 1):
                rig.try_each(far, [(f"ack of {ack} damaged bytes", far.segment(0, ack))])
        rig.finish()


@case("a SYN on a living tuple, and flags that make no sense")
def _(engine):
    both_ways(engine, lambda leg: [
        (f"flags {flags:#04x} at {offset:+#x}", leg.segment(offset, 0, flags, text))
        for flags in (SYN, SYN | ACK, SYN | FIN, SYN | RST, SYN | FIN | RST | PSH, 0, PSH, URG,
                      FIN, FIN | PSH | URG, ECE | CWR | SYN)
        for offset, text in ((0, b""), (0, MARK), (1000, b""), (FAR, b""))
        # Without an ACK bit, data and FIN are no part of a connection; RST exact would be.
        if not flags & RST or flags & SYN])


def options_cut(leg):
    """TCP options that run over their end, or over the header's."""
    stamps = timestamps(*leg.times)
    odd = {"timestamps cut": b"\x01\x01\x08\x0a\x00\x00\x00\x01", "length 0": b"\x08\x00\x01\x01",
           "length 1": b"\x05\x01\x01\x01", "length over the end": b"\x01\x01\x05\xff",
           "kind without length": b"\x01\x01\x01\x08", "SACK of 3 bytes": b"\x05\x03\x00\x01",
           "many": b"\x01" * 37 + b"\x08\x0a\x00"}
    found = [(f"options: {name}", leg.segment(0, 0, ACK, MARK, options))
             for name, options in odd.items()]
    found += [(f"header of {doff} words", leg.segment(0, 0, ACK, MARK, stamps, doff=doff))
              for doff in (0, 1, 4, 15)]
    return found


@case("TCP options cut short and headers longer than the packet")
def _(engine):
    # A correct TCP ignores the malformed option and may take the rest of the segment: with bytes
    # they come behind the window, to be read and not accepted; in the window as bare ACKs.
    def forgeries(leg):
        found = []
        for name, segment in options_cut(leg):
            segment.seq = (segment.seq + FAR) & MASK
            found.append((name, segment))
        for name, segment in options_cut(leg):
            segment.payload = b""
            found.append((f"{name}, a bare ACK", segment))
        return found
    both_ways(engine, forgeries)


@case("SACK blocks of what was never sent")
def _(engine):
    def forgeries(leg):
        stamps = timestamps(*leg.times)
        return [(f"SACK {left:+#x}", leg.segment(-1, 0, ACK, b"",
                                                 stamps + sack((leg.acked + left,
                                                                leg.acked + left + 1000))))
                for left in (1, 1000, FAR, -FAR, 1 << 31)]
    both_ways(engine, forgeries)


@case("IPv4 options, wrong lengths, wrong header checksums")
def _(engine):
    def forgeries(leg):
        size = 20 + 20 + 12 + len(MARK)
        found = [(f"IP options {name}", leg.segment(FAR, payload=MARK, ip_options=value))
                 for name, value in (("nop", b"\x01\x01\x01\x00"),
                                     ("record route", b"\x07\x07\x04\0\0\0\0\0"),
                                     ("source route", b"\x83\x07\x04\x0a\x4d\x02\x02\0"))]
        found += [(f"length {length}", leg.segment(payload=MARK, length=length))
                  for length in (0, 10, 20, 30, 39, size + 1, size + 1000, 65535)]
        found.append(("header checksum", leg.segment(payload=MARK, bad_header=0x1234)))
        found += [(f"IP options {name} on an ACK", leg.segment(ip_options=value))
                  for name, value in (("nop", b"\x01\x01\x01\x00"), ("end", bytes(4)),
                                      ("cut short", b"\x07\x20\x04\x00"))]
        return found
    both_ways(engine, forgeries, [4])


def fragments(segment, pieces):
    """The IPv4 packet in this many fragments."""
    packet = segment.packet()
    head, data = packet[:20], packet[20:]
    step = (len(data) // pieces // 8) * 8 or 8
    found = []
    for at in range(0, len(data), step):
        part = data[at:at + step]
        more = 0x2000 if at + step < len(data) else 0
        new = head[:2] + struct.pack("!HHHBBH", 20 + len(part), 0x7777, more | at // 8, 64,
                                     socket.IPPROTO_TCP, 0) + head[12:]
        found.append(new[:10] + struct.pack("!H", checksum(new[:20])) + new[12:20] + part)
    return found


@case("fragments: alone, in a series, out of order")
def _(engine):
    def forgeries(leg):
        def series(order):
            def send(of):
                parts = fragments(of.segment(FAR, payload=MARK * 10), 4)
                for part in sorted(parts, key=order):
                    of.send(part)
            return send
        return [("an ACK in fragments", lambda of: [of.send(part) for part in
                                                    fragments(of.segment(), 4)]),
                ("a first fragment", leg.segment(payload=MARK, fragment=0x2000)),
                ("a later fragment", leg.segment(payload=MARK, fragment=0x0010)),
                ("a middle fragment", leg.segment(payload=MARK, fragment=0x2001)),
                ("a series of fragments", series(lambda p: p[6:8])),
                ("a series backwards", series(lambda p: bytes(255 - b for b in p[6:8])))]
    both_ways(engine, forgeries, [4])


@case("IPv6 extension headers, fragments and wrong lengths")
def _(engine):
    if 6 not in versions():
        raise tap.Skip("no IPv6 here")
    pad = bytes([6, 0, 1, 4, 0, 0, 0, 0])  # next: TCP, PadN

    def forgeries(leg):
        size = 20 + 12 + len(MARK)
        found = [(name, leg.segment(FAR, payload=MARK, next_header=kind, extension=pad))
                 for name, kind in (("hop-by-hop", 0), ("destination options", 60),
                                    ("routing", 43))]
        found += [(f"{name} on an ACK", leg.segment(next_header=kind, extension=pad))
                  for name, kind in (("hop-by-hop", 0), ("destination options", 60))]
        found += [("an atomic fragment with an ACK",
                   leg.segment(next_header=44, extension=struct.pack("!BBHI", 6, 0, 0, 9)))]
        found += [(name, leg.segment(payload=MARK, next_header=44,
                                     extension=struct.pack("!BBHI", 6, 0, value, 0x1234)))
                  for name, value in (("a first fragment", 1), ("a later fragment", 0x80),
                                      ("a middle fragment", 0x81))]
        found += [("an atomic fragment", leg.segment(FAR, payload=MARK, next_header=44,
                                                     extension=struct.pack("!BBHI", 6, 0, 0, 9))),
                  ("no next header", leg.segment(payload=MARK, next_header=59)),
                  ("UDP inside", leg.segment(payload=MARK, next_header=17))]
        found += [(f"length {length}", leg.segment(payload=MARK, length=length))
                  for length in (0, 10, 19, size + 1, size + 500, 65535)]
        return found
    both_ways(engine, forgeries, [6])


@case("frames that are not for this host: another address, a VLAN, everybody's")
def _(engine):
    def forgeries(leg):
        def frame(**more):
            return lambda of: of.send(of.segment(payload=MARK), **more)
        return [("another host's address", frame(mac=b"\x02\0\0\0\0\x77")),
                ("the broadcast address", frame(mac=b"\xff" * 6)),
                ("a multicast address", frame(mac=b"\x01\0\x5e\0\0\1")),
                ("a VLAN of which we are no member", frame(tag=b"\x81\0\0\5")),
                ("two VLAN tags", frame(tag=b"\x88\xa8\0\5\x81\0\0\6"))]
    both_ways(engine, forgeries)


@case("super-packets outside the window")
def _(engine):
    def forgeries(leg):
        def big(offset, flags=ACK):
            return lambda of: of.tap.send_super(
                of.segment(offset, flags=flags, payload=MARK * 1000), of.gateway, 1400)
        return [(f"a super-packet at {offset:+#x}", big(offset, flags))
                for offset in (FAR, -FAR, 1 << 31) for flags in (ACK, ACK | FIN)]
    both_ways(engine, forgeries)


@case("timestamps of the past (PAWS)")
def _(engine):
    def forgeries(leg):
        value, echo = leg.times
        return [(f"TSval {offset:+#x}", leg.segment(0, 0, ACK, b"", timestamps(value + offset,
                                                                              echo)))
                for offset in (-100000, -(1 << 30))]
    both_ways(engine, forgeries)


def too_big(leg, seq, mtu, quoted=8):
    """A router's "packet too big" about what the relay sent to this end."""
    inner = Segment((leg.relay, leg.me), seq, leg.next, ACK, payload=b"x" * 1000).packet()
    if ":" in leg.me[0]:
        body = inner[:40 + quoted]
        data = struct.pack("!BBHI", 2, 0, 0, mtu) + body
        pseudo = packed(leg.me[0]) + packed(leg.relay[0]) + struct.pack("!II", len(data), 58)
        data = data[:2] + struct.pack("!H", checksum(pseudo + data)) + data[4:]
        return struct.pack("!IHBB", 0x60000000, len(data), 58, 64) + packed(leg.me[0]) \
            + packed(leg.relay[0]) + data
    data = struct.pack("!BBHHH", ICMP_UNREACHABLE, NEEDS_FRAGMENTATION, 0, 0, mtu) \
        + inner[:20 + quoted]
    data = data[:2] + struct.pack("!H", checksum(data)) + data[4:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0, 64, 1, 0) \
        + packed(leg.me[0]) + packed(leg.relay[0])
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + data


def icmp_about(leg):
    """ICMP packets that arrived at this end."""
    leg.collect()
    return [p for p in leg.arrived if (p[0] >> 4 == 4 and p[9] == 1)
            or (p[0] >> 4 == 6 and p[6] == 58 and p[40] == 2)]


@case("packet-too-big about packets that were never sent")
def _(engine):
    for version in versions():
        rig = Rig(engine, version)
        for leg in rig.legs:
            far = rig.other(leg)
            for seq in (leg.acked + FAR, leg.acked - FAR, leg.acked + (1 << 31)):
                for mtu in (0, 60, 1300, 65535):
                    leg.send(too_big(leg, seq, mtu))
            leg.send(too_big(leg, leg.acked, 1300, 4))  # without the sequence number
            rig.quiet()
            equal(icmp_about(far), [], "ICMP that reached the other end")
        rig.finish(2 * MIB)


@case("a flood of random packets on both tuples while bytes flow", 60)
def _(engine):
    rng = random.Random(21)
    for version in versions():
        rig = Rig(engine, version)
        text = payload((64 if LONG else 8) * MIB, version)
        jobs = [sender(rig.data, text), sender(rig.peer, text)]
        before = rig.near.next, rig.far.next
        for _ in range(20000 if LONG else 3000):
            leg = rng.choice(rig.legs)
            leg.send(garbage(rng, leg))
        same(receive(rig.peer, len(text)), text, "to the peer")
        same(receive(rig.data, len(text)), text, "to the client")
        for job in jobs:
            job.finish()
        check(before != (0, 0), "the numbers were never learnt")
        rig.quiet()
        rig.finish()


def garbage(rng, leg):
    """A packet on the tuple that no TCP accepts: far outside the window whatever it says."""
    more = {}
    if rng.random() < 0.2:
        more["doff"] = rng.randrange(16)
    if rng.random() < 0.2:
        more["bad"] = True
    if rng.random() < 0.1:
        more["length"] = rng.randrange(0, 1600)
    if rng.random() < 0.1 and leg.me[0].count("."):
        more["fragment"] = rng.randrange(0x4000)
    options = rng.randbytes(rng.randrange(0, 40)) if rng.random() < 0.5 else None
    offset = rng.choice((FAR, 2 * FAR, 1 << 31, -FAR, -2 * FAR)) + rng.randrange(1 << 24)
    return leg.segment(offset, rng.randrange(1 << 32), rng.randrange(256),
                       rng.randbytes(rng.randrange(0, 900)), options, **more)


@case("an exact reset ends the pair at both ends, and nothing is left")
def _(engine):
    for version in versions():
        for which in (0, 1):
            rig = Rig(engine, version)
            leg = rig.legs[which]
            leg.send(leg.segment(0, 0, RST))
            check(ended(rig.other(leg).sock) in ("rst", "fin"), "the other end is open")
            # The end it was forged for learns of it when it speaks.
            try:
                leg.sock.sendall(b"hello?")
                equal(ended(leg.sock, 5), "rst", "end of the one it was forged for")
            except (ConnectionResetError, BrokenPipeError):
                pass
            rig.client.close()
            gone(rig.server)


@case("after the end its numbers and a new connection on the same ports do no harm")
def _(engine):
    for version in versions():
        rig = Rig(engine, version)
        rig.finish()
        for leg in rig.legs:
            leg.collect()
            rig.other(leg).arrived.clear()
            # Behind its own end of stream, and far away.
            for packet in (leg.segment(0, payload=MARK), leg.segment(FAR, payload=MARK),
                           leg.segment(1, 0, RST), leg.segment(0, 0, FIN | ACK, MARK),
                           leg.segment(0, 0, SYN)):
                leg.send(packet)
        data, peer, client = lab.pair(version=version)
        swap(data, peer, 100 * KIB)
        for leg in rig.legs:
            leg.collect()
            check(not any(MARK in packet for packet in leg.arrived), "late bytes crossed")
        client.close()
        gone(rig.server)


@case("silence after the forgeries: no answer calls for another", 30)
def _(engine):
    rig = Rig(engine)
    for leg in rig.legs:
        for offset in (FAR, -FAR, 1):
            for ack in (0, FAR, -FAR):
                leg.send(leg.segment(offset, ack))
    spoke = [time.monotonic()]

    def silent():
        for leg in rig.legs:
            leg.collect()
            if any(tcp_of(packet) for packet in leg.arrived):
                spoke[0] = time.monotonic()
            leg.arrived.clear()
        return time.monotonic() - spoke[0] > 0.3
    wait_for(silent, 5, "0.3 s without a segment at either end")
    rig.finish()


engines.add_all(lab, cases, [name for name in engines.chosen() if name in ("splice", "wire")])
tap.main()
