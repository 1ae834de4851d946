#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Bandwidth limits: what a user, an allocation and a realm get, on every engine, within 5 % of any 2 s."""

import contextlib
import os
import selectors
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import engines, tap  # noqa: E402
from culvertlab.data import receive_to_end, same, sender  # noqa: E402
from culvertlab.lab import Lab, need_namespaces  # noqa: E402
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.turn import UDP, Control, Datagrams  # noqa: E402

lab = Lab()
RATE = 8_000_000  # bits a second
SECONDS = 5
CHUNK = bytes(65536)
DATAGRAM = 1000
ATTEMPTS = 5  # of what a busy machine may keep from getting its share


class Load:
    """Bytes on their way through one limit: written as they are taken, counted as they come."""

    def __init__(self, name, rate=RATE):
        self.name, self.rate = name, rate
        self.streams, self.datagrams = [], []
        self.bytes = 0
        self.least = 0.95  # of the rate, unless something else is short of it

    def add(self, source, sink):
        """A stream from one socket to another."""
        self.streams.append((source, sink))

    def add_datagrams(self, send, sink, head, times):
        """`send` sends one of DATAGRAM bytes, at `times` the rate; `head` bytes precede it at the sink."""
        self.datagrams.append((send, sink, head, times))

    def share(self, seconds):
        return self.bytes * 8 / seconds / self.rate


class Pump:
    """All loads at once, in one thread."""

    def __init__(self, loads):
        self.loads = loads
        self.selector = selectors.DefaultSelector()
        for load in loads:
            for source, sink in load.streams:
                for sock in (source, sink):
                    sock.setblocking(False)
                self.selector.register(source, selectors.EVENT_WRITE, (load, -1))
                self.selector.register(sink, selectors.EVENT_READ, (load, 0))
            for _send, sink, head, _times in load.datagrams:
                sink.setblocking(False)
                self.selector.register(sink, selectors.EVENT_READ, (load, head))

    def close(self):
        self.selector.close()

    def run(self, seconds):
        """Counts what arrives within this time."""
        begin = now = time.monotonic()
        sent = {}
        for load in self.loads:
            load.bytes = 0
        while now < begin + seconds:
            for key, _mask in self.selector.select(0.001):
                self._move(key.fileobj, *key.data)
            now = time.monotonic()
            for load in self.loads:
                for send, _sink, _head, times in load.datagrams:
                    due = int((now - begin) * load.rate * times / 8 / DATAGRAM)
                    for _ in range(min(due - sent.get(send, 0), 500)):
                        send()
                    sent[send] = due
        return now - begin

    @staticmethod
    def _move(sock, load, head):
        with contextlib.suppress(BlockingIOError):
            if head < 0:
                sock.send(CHUNK)
            else:
                load.bytes += max(len(sock.recv(1 << 18)) - head, 0)


def config(**sections):
    """Clients over UDP are served, too."""
    return {"listener datagrams": {"transport": "udp", "address": f"0.0.0.0:{lab.port}"},
            **sections}


def users(names, **keys):
    return {f"user {name}": {"password": "secret", **keys} for name in names}


def control(name, kind=Control, realm=None):
    client = lab.keep(kind(lab.topo.client, lab.server().address(), name, "secret"))
    client.challenge()
    client.realm = realm or client.realm
    return client


def pairs(name, count, allocations):
    """Bound pairs of one user over so many allocations."""
    made = []
    for _ in range(allocations):
        client = control(name)
        client.allocate()
        made += [lab.pair(client)[:2] for _ in range(count // allocations)]
    return made


def stream_load(name, count, up, allocations=1, rate=RATE):
    load = Load(name, rate)
    for data, peer in pairs(name, count, allocations):
        load.add(*((data, peer) if up else (peer, data)))
    return load


def datagram_load(name, up, times=3):
    """ChannelData of a client over UDP."""
    load = Load(name)
    client = control(name, Datagrams)
    client.allocate(protocol=UDP)
    peer = lab.keep(lab.topo.peer.bound(udp=True))
    equal(client.channel_bind_code(peer.getsockname()), 0)
    message = b"\x40\x01" + DATAGRAM.to_bytes(2, "big") + bytes(DATAGRAM)
    if up:
        load.add_datagrams(lambda: client.sock.send(message), peer, 0, times)
    else:
        relayed = client.relayed
        load.add_datagrams(lambda: peer.sendto(bytes(DATAGRAM), relayed), client.sock, 4, times)
    return load


def measured(loads, seconds=SECONDS):
    """Each load's share of its rate; again while one lacks a bit: the machine may be busy."""
    pump = Pump(loads)
    with contextlib.closing(pump):
        for attempt in range(ATTEMPTS):
            if attempt:
                pump.run(0.5)  # what has come meanwhile is not of the next time
            took = pump.run(seconds)
            shares = {load.name: load.share(took) for load in loads}
            if all(shares[load.name] >= load.least for load in loads):
                break
    return shares


def hold(shares, low=0.95, high=1.05):
    for name, share in shares.items():
        tap.note(f"{name}: {share:.3f} of its rate")
    for name, share in shares.items():
        check(low <= share <= high, f"{name}: {share:.3f} of its rate")


def engine_of(name):
    """(engine, why) of the user's connections, which must agree."""
    rows = [row for row in lab.server().ctl_json("connections")["connections"]
            if row["user"] == name]
    kinds = {(row["engine"], row["why"]) for row in rows}
    equal(len(kinds), 1, f"engines of {name}: {kinds}")
    return kinds.pop()


@tap.test("each engine, each direction, 1 and 8 connections of a user: within 5 %", 60)
def _():
    need_namespaces(lab)
    here = [name for name in engines.ALL if not engines.missing(lab, name)]
    cases = {f"{engine}-{way}-{count}": (engine, way == "up", count)
             for engine in here for way in ("up", "down") for count in (1, 8)}
    changes = {"engine": {"order": "wire, splice, copy", "wire": "always"}}
    for name, (engine, _up, _count) in cases.items():
        changes.update(users([name], engine=engine, bandwidth=RATE))
    lab.server(changes)
    loads = [stream_load(name, count, up, min(count, 2))
             for name, (_engine, up, count) in cases.items()]
    for name, (engine, _up, _count) in cases.items():
        used, why = engine_of(name)
        # These two have no say in when a byte passes.
        equal(used, "splice" if engine in ("wire", "sockmap") else engine, f"engine of {name}")
        if engine == "wire":
            equal(why, "its bandwidth has a limit", f"why {name} is not on wire")
    hold(measured(loads), high=1.02)
    check(lab.server().counters()["rate_delays"] > 0, "rate_delays")


@tap.test("limits of an allocation and of a realm; a reload changes what is under way", 60)
def _():
    need_namespaces(lab)
    server = lab.server({"realm example.org": {"bandwidth_per_allocation": RATE},
                         "realm other.org": {"bandwidth": RATE},
                         **users(["alone", "idle"]),
                         **users(["carol", "dave"], realm="other.org")})
    loads = [stream_load("alone", 1, True), stream_load("idle", 1, False)]
    realm = Load("realm")
    for name in ("carol", "dave"):
        client = control(name, realm="other.org")
        client.allocate()
        realm.add(*lab.pair(client)[:2])
    loads.append(realm)
    hold(measured(loads, 2), high=1.03)
    server.sections["realm example.org"]["bandwidth_per_allocation"] = RATE // 2
    server.write_config()
    equal(server.reload(), "reloaded")
    for load in loads[:2]:
        load.rate = RATE // 2
    measured(loads, 0.5)  # what was under way at the old rate
    hold(measured(loads, 2), high=1.03)


@tap.test("datagrams: within 5 %, not shut out by connections; silence earns 30 ms", 60)
def _():
    need_namespaces(lab)
    lab.server(config(**users(["up", "down", "mixed"], bandwidth=RATE)))
    loads = [datagram_load("up", True), datagram_load("down", False)]
    mixed = [stream_load("mixed", 2, True), datagram_load("mixed", True, 0.25)]
    mixed[0].least, mixed[1].least, mixed[1].name = 0.7, 0.2, "mixed datagrams"
    shares = measured([*loads, *mixed])
    parts = [shares.pop(load.name) for load in mixed]
    hold(shares)
    tap.note("mixed: {:.3f} by connections, {:.3f} by datagrams".format(*parts))
    within(parts[1], 0.2, 0.26, "datagrams beside connections")
    within(sum(parts), 0.95, 1.05, "connections and datagrams together")
    with contextlib.closing(Pump([])) as nothing:
        nothing.run(1)
    hold(measured(loads, 1), high=1.05)


@tap.test("what is slowed down arrives whole, with its end, on each engine", 30)
def _():
    need_namespaces(lab)
    names = [name for name in ("splice", "uring", "copy") if not engines.missing(lab, name)]
    changes = {}
    for name in names:
        changes.update(users([name], engine=name, bandwidth="16M"))
    lab.server(changes)
    sent, under_way = os.urandom(1 << 20), []
    for name in names:
        (data, peer), = pairs(name, 1, 1)
        under_way.append((name, sender(data, sent, fin=True), peer))
    for name, worker, peer in under_way:
        same(receive_to_end(peer), sent, name)
        worker.finish()


tap.main()
