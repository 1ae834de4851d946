#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Every relay case on every engine: what goes in comes out, whole, with its end."""

import json
import os
import random
import socket
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import boxes, engines, tap  # noqa: E402
from culvertlab.data import (KIB, MIB, End, Worker, exchange, payload, ping, question,  # noqa: E402
                             receive, receive_slowly, receive_to_any_end, receive_to_end, reset,
                             same, send_accepted, send_all, send_until_blocked, sender, swap,
                             toward, unacknowledged)
from culvertlab.engines import LONG  # noqa: E402
from culvertlab.lab import Lab, need_version  # noqa: E402
from culvertlab.stun import REFRESH  # noqa: E402
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.turn import ended, family, recv_message  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
cases = []


def case(name, timeout=30):
    """A relay case: run once per engine, with the basic configuration and that engine only."""
    def register(function):
        cases.append((name, function, timeout))
        return function
    return register


def config(engine, **limits):
    """Configuration for one engine; skips when the kernel does not give it to us."""
    return engines.config(lab, engine, **({"limits": limits} if limits else {}))


def pair(engine, *args, **more):
    """A bound pair as lab.pair makes it, of which this engine has the bytes."""
    return engines.pair(lab, engine, *args, **more)


def begins(got, sent, accepted, what):
    """What was accepted has arrived; more may have."""
    check(len(got) >= accepted > 0, f"{what}: {len(got)} bytes of {accepted} accepted")
    same(got, sent[:len(got)], what)


@case("bulk both ways at once, IPv4 and IPv6", 40)
def _(engine):
    changes = config(engine)
    data, peer, client = pair(engine, changes=changes)
    swap(data, peer, 32 * MIB)
    ping(data, peer)
    client.close()
    if 6 in lab.topo.versions:
        data, peer, _ = pair(engine, version=6)
        swap(data, peer, 12 * MIB)


@case("a flood before the bind is held back and lost nowhere", 40)
def _(engine):
    client = lab.allocated(changes=config(engine))
    listener = lab.listener()
    cid = client.connect(listener.getsockname())
    peer = lab.accept(listener)
    flood = payload(20 * MIB, 1)
    before = send_until_blocked(peer, flood)
    check(before < len(flood), f"no back-pressure: {before} bytes went before the bind")
    rest = sender(peer, flood[before:], fin=True)
    data = lab.keep(client.bind(cid))
    begun = receive(data, MIB)
    engines.on(lab.server(), data, engine)
    same(begun + receive_to_end(data), flood, "flood")
    rest.finish()


@case("everything and a FIN before the bind")
def _(engine):
    client = lab.allocated(changes=config(engine))
    listener = lab.listener()
    cid = client.connect(listener.getsockname())
    peer = lab.accept(listener)
    sent = payload(40 * KIB)
    send_all(peer, sent, fin=True)
    data = lab.keep(client.bind(cid))
    same(receive_to_end(data), sent, "to the client")
    send_all(data, sent, fin=True)
    same(receive_to_end(peer), sent, "to the peer after its FIN")


@case("bytes pipelined behind ConnectionBind, few and 8 MiB", 40)
def _(engine):
    client = lab.allocated(changes=config(engine))
    for size in (1, 3000, 8 * MIB):
        listener = lab.listener()
        cid = client.connect(listener.getsockname())
        peer = lab.accept(listener)
        early = payload(size, 2)
        data = lab.keep(client.bind_start(cid, early[:1]))
        job = sender(data, early[1:])
        equal(recv_message(data).code, 0, "ConnectionBind")
        same(receive(peer, size), early, f"{size} pipelined bytes")
        job.finish()
        ping(data, peer)


@case("a banner from the peer comes first, then a dialogue")
def _(engine):
    client = lab.allocated(changes=config(engine))
    client.permit(lab.topo.peer.addr())
    peer = lab.keep(lab.topo.peer.connect(client.relayed))
    peer.sendall(b"220 ready\r\n")
    cid, _ = client.attempt()
    data = lab.keep(client.bind(cid, b"EHLO me\r\n"))
    same(receive(data, 11), b"220 ready\r\n", "banner")
    same(receive(peer, 9), b"EHLO me\r\n", "reply")
    engines.on(lab.server(), data, engine)
    for _ in range(50):
        ping(data, peer, b"line\r\n")


def urgent(sock, data):
    """Sends each byte as urgent data of its own; it has arrived when this returns."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in data:
        sock.send(bytes([byte]), socket.MSG_OOB)
    wait_for(lambda: not unacknowledged(sock), 5, "the relay has the urgent bytes")


@case("urgent bytes of either side come before the bind is answered")
def _(engine):
    if engine in engines.TLS:
        tap.skip("TLS has no urgent data")
    client = lab.allocated(changes=config(engine))
    client.permit(lab.topo.peer.addr())
    for _ in range(4):
        peer = lab.keep(lab.topo.peer.connect(client.relayed))
        urgent(peer, b"123")
        cid, _ = client.attempt()
        data = lab.keep(client.bind_start(cid))
        urgent(data, b"456")
        equal(recv_message(data).code, 0, "ConnectionBind")
        same(receive(data, 3), b"123", "the peer's urgent bytes")
        same(receive(peer, 3), b"456", "the client's urgent bytes")
        ping(data, peer)


@case("half-close by either side, then the other side's stream")
def _(engine):
    changes = config(engine)
    answer = payload(3 * MIB, 3)
    for whom in ("peer", "client"):
        data, peer, client = pair(engine, changes=changes)
        question(*toward(whom, data, peer), answer)
        client.close()


@case("both sides half-close at once")
def _(engine):
    data, peer, _ = pair(engine, changes=config(engine))
    up, down = payload(MIB, 4), payload(MIB, 5)
    jobs = [sender(data, up, fin=True), sender(peer, down, fin=True)]
    back = Worker(receive_to_end, data)
    same(receive_to_end(peer), up, "to the peer")
    same(back.finish(), down, "to the client")
    for job in jobs:
        job.finish()


@case("close right after writing MiBs to a slow reader: every byte, then FIN", 40)
def _(engine):
    changes = config(engine)
    sent = payload(5 * MIB, 6)
    for whom in ("peer", "client"):
        data, peer, client = pair(engine, changes=changes, rcvbuf=32 * KIB, peer_rcvbuf=32 * KIB)
        source, sink = toward(whom, data, peer)
        reader = Worker(receive_slowly, sink)
        send_all(source, sent)
        source.close()
        same(reader.finish(), sent, f"to the {whom}")
        client.close()


@case("a reset by either side: what was accepted arrives, then the reset")
def _(engine):
    changes = config(engine)
    sent = payload(200 * KIB, 7)
    for whom in ("peer", "client"):
        data, peer, client = pair(engine, changes=changes, rcvbuf=8 * KIB, peer_rcvbuf=8 * KIB)
        source, sink = toward(whom, data, peer)
        # Accepted by whom: the relay, or with packets relayed the far end alone.
        reader = Worker(receive, sink, len(sent)) if engine in engines.PACKET else None
        accepted = send_accepted(source, sent)
        got = reader.finish() if reader else b""
        reset(source)
        rest, how = receive_to_any_end(sink)
        begins(got + rest, sent, engines.whole(engine, accepted), f"to the {whom} before the reset")
        equal(how, "rst", f"end of the stream to the {whom}")
        client.close()


@case("a reset while the other side sends")
def _(engine):
    changes = config(engine)
    for whom in ("peer", "client"):
        data, peer, client = pair(engine, changes=changes)
        source, sink = toward(whom, data, peer)
        # Far more than any relay holds, or takes until it has heard of the reset.
        flood = payload(30 * MIB, 8) * 8
        job = sender(source, flood)
        receive(sink, MIB)
        reset(sink)
        try:
            job.finish(15)
            raise tap.Fail("240 MiB went to a connection that was reset")
        except (ConnectionResetError, BrokenPipeError):
            pass
        client.close()


@case("byte-wise writes both ways")
def _(engine):
    data, peer, _ = pair(engine, changes=config(engine))
    text = payload(1500, 9)
    for sock in (data, peer):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(len(text)):
        data.send(text[at:at + 1])
        peer.send(text[at:at + 1])
    same(receive(peer, len(text)), text, "to the peer")
    same(receive(data, len(text)), text, "to the client")
    for byte in text[:200]:
        ping(data, peer, bytes([byte]))


@case("urgent bytes are bytes: nothing is lost or stuck behind them")
def _(engine):
    if engine in engines.TLS:
        tap.skip("TLS has no urgent data")
    data, peer, _ = pair(engine, changes=config(engine))
    text = payload(100 * KIB, 17)
    for whom in ("peer", "client"):
        source, sink = toward(whom, data, peer)
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        job = Worker(send_urgent, source, text)
        same(receive(sink, 4 * len(text) + 4), (text + b"!") * 4, f"to the {whom}")
        job.finish()
    ping(data, peer)


def send_urgent(sock, text):
    for _ in range(4):
        sock.sendall(text)
        sock.send(b"!", socket.MSG_OOB)


@case("writes of all sizes in turn")
def _(engine):
    data, peer, _ = pair(engine, changes=config(engine))
    rng = random.Random(10)
    for _ in range(60):
        size = rng.choice((1, 100, 4096, 16384, 16385, 65536, 300000, MIB))
        source, sink = toward(rng.choice(("peer", "client")), data, peer)
        text = payload(size, size)
        job = sender(source, text)
        same(receive(sink, size), text, f"{size} bytes")
        job.finish()


@case("a slow reader either way and both ways at once", 40)
def _(engine):
    changes = config(engine)
    sent = payload(3 * MIB, 11)
    for directions in (("peer",), ("client",), ("peer", "client")):
        data, peer, client = pair(engine, changes=changes, rcvbuf=16 * KIB, peer_rcvbuf=16 * KIB)
        jobs, readers = [], []
        for whom in directions:
            source, sink = toward(whom, data, peer)
            jobs.append(sender(source, sent))
            readers.append(Worker(receive_slowly, sink, len(sent), 32 * KIB))
        for reader in readers:
            same(reader.finish(), sent, "slowly read")
        for job in jobs:
            job.finish()
        client.close()


@case("a reader that stops blocks its sender, not the other direction")
def _(engine):
    changes = config(engine)
    flood = payload(40 * MIB, 12)
    for whom in ("peer", "client"):
        data, peer, client = pair(engine, changes=changes)
        source, sink = toward(whom, data, peer)
        sent = send_until_blocked(source, flood, 0.3)
        check(sent < len(flood), "no back-pressure")
        text = payload(4 * MIB, 13)
        job = sender(sink, text)
        same(receive(source, len(text)), text, "against the stalled direction")
        job.finish()
        same(receive(sink, sent), flood[:sent], "stalled bytes")
        ping(data, peer)
        client.close()


@case("100 pairs at once, random sizes and pieces", 60)
def _(engine):
    rng = random.Random(14)
    changes = config(engine)
    ends = []
    for group in range(10):
        version = 6 if group % 3 == 2 and 6 in lab.topo.versions else 4
        client = lab.allocated(version, changes=changes)
        for _ in range(10):
            data, peer, _ = lab.pair(client, version)
            if not ends:
                engines.on(lab.server(), data, engine)
            up, down = (payload(int(rng.paretovariate(0.4) * 500) % (2 * MIB), len(ends) + i)
                        for i in (0, 1))
            up, down = up or b"x", down or b"y"
            ends += [End(data, up, down, rng), End(peer, down, up, rng)]
    exchange(ends, 45)


@case("everything closed at once in mid-flight leaves nothing behind")
def _(engine):
    server = lab.server(config(engine))
    lab.allocated().close()
    wait_for(lambda: server.counters()["clients"] == 0, 5, "no clients")
    base = server.fds()
    blob = payload(300 * KIB, 15)
    clients = [lab.allocated() for _ in range(5)]
    pairs = [lab.pair(client)[:2] for client in clients for _ in range(8)]
    for data, peer in pairs:
        data.setblocking(False)
        peer.setblocking(False)
        data.send(blob)
        peer.send(blob)
    for number, (data, peer) in enumerate(pairs):
        for sock in (data, peer):
            if number % 2:
                reset(sock)
            else:
                sock.close()
    for client in clients:
        client.close()
    wait_for(lambda: server.counters()["relaying"] == 0, 10, "no relayed connection")
    wait_for(lambda: server.counters()["allocations"] == 0, 10, "no allocation")
    # Pipes stay pooled: splice and uring keep some for the next pair.
    pipes = lambda: sum("pipe:" in t for t in fd_targets(server))  # noqa: E731
    wait_for(lambda: server.fds() - pipes() <= base, 10, f"descriptors back to {base}")


def fd_targets(server):
    directory = f"/proc/{server.relay_pid()}/fd"
    targets = []
    for name in os.listdir(directory):
        try:
            targets.append(os.readlink(os.path.join(directory, name)))
        except OSError:
            continue
    return targets


def send_endlessly(sock):
    """Send until an error ends it; how much went."""
    block, sent = payload(MIB, 16), 0
    sock.settimeout(15)
    try:
        while sent < 4096 * MIB:
            sent += sock.send(block)
    except (ConnectionResetError, BrokenPipeError):
        return sent
    raise tap.Fail("4 GiB went through")


@case("an allocation deleted with data flowing closes both legs soon")
def _(engine):
    data, peer, client = pair(engine, changes=config(engine))
    senders = [Worker(send_endlessly, sock) for sock in (data, peer)]
    for sock in (data, peer):
        receive(sock, MIB)
    readers = [Worker(receive_to_any_end, sock, 15) for sock in (data, peer)]
    equal(client.refresh(0), 0)
    start = time.monotonic()
    for job in readers + senders:
        job.finish(15)
    # What has arrived is delivered, but nobody goes on for the ten seconds a slow reader has.
    within(time.monotonic() - start, 0, 5, "seconds until both legs ended")


@case("what has arrived when its allocation is deleted is delivered to a slow reader, then an end")
def _(engine):
    changes = config(engine)
    sent = payload(200 * KIB, 18)
    for whom in ("peer", "client"):
        data, peer, client = pair(engine, changes=changes, rcvbuf=8 * KIB, peer_rcvbuf=8 * KIB)
        source, sink = toward(whom, data, peer)
        # With packets relayed this is what the sink has taken, for the relay holds nothing.
        accepted = send_accepted(source, sent)
        equal(client.refresh(0), 0)
        if engine in engines.PACKET:
            got, how = receive_to_any_end(sink)
            equal(how, "rst", "end of a stream that was cut")
            equal(ended(source), "rst", "end at the sender")
        else:
            got = receive_slowly(sink, step=8 * KIB)
            check(ended(source) in ("fin", "rst"), "the sender's leg is open")
        begins(got, sent, accepted, f"to the {whom}")


@case("of two relayed addresses one ends, with its connections; the other's go on")
def _(engine):
    need_version(lab, 6)
    relay = lab.topo.relay
    client = lab.client(changes=engines.config(
        lab, engine, relay={"address": f"{relay.addr(4)}, {relay.addr(6)}"}))
    relayed = client.allocate_both()
    legs = {}
    for version in (4, 6):
        client.relayed = relayed[version]
        data, peer, _ = lab.pair(client, version)
        equal(peer.getpeername()[:2], relayed[version], "where the connection comes from")
        legs[version] = [(data, peer), lab.incoming(client, version=version)]
        for one in legs[version]:
            ping(*one)
    equal(client.refresh(0, family(6)), 0, "lifetime of IPv6")
    for one in legs[6]:
        for sock in one:
            check(ended(sock) in ("fin", "rst"), "a connection of IPv6 is open")
    for one in legs[4]:
        ping(*one)
    check(client.refresh(600, family(4)) >= 600, "lifetime of IPv4")
    equal(client.code(REFRESH, [family(6)]), 443, "Refresh of IPv6")
    equal(client.refresh(0, family(4)), 0, "lifetime of IPv4")
    for one in legs[4]:
        for sock in one:
            check(ended(sock) in ("fin", "rst"), "a connection of IPv4 is open")
    equal(client.code(REFRESH), 437, "Refresh of nothing")


@case("idle_timeout closes what is idle, not what moves", 20)
def _(engine):
    changes = config(engine, idle_timeout="1s")
    lab.server(changes)
    start = time.monotonic()  # before the last bytes, however slow this machine is
    data, peer, client = pair(engine, changes=changes)
    busy, far, _ = pair(engine, client)
    data.settimeout(0)

    def idle_is_closed():
        ping(busy, far)
        try:
            return data.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
    wait_for(idle_is_closed, 6, "the idle pair is closed")
    check(time.monotonic() - start > 0.8, "closed too early")
    check(ended(peer, 3) in ("fin", "rst"), "the peer's leg is open")
    ping(busy, far)


def beyond_the_numbers(engine):
    """More than 2^32 bytes each way: sequence numbers of the relay's own choice wrap, too."""
    server = lab.server(config(engine))
    before = engines.totals(server)
    peer, stats = lab.topo.peer, os.path.join(lab.dir, "stats")
    far = lab.spawn(peer, [boxes.tool("peer", "bench-tools"), "--listen", f"{peer.addr()}:5001",
                           "--stats", stats], "peer")
    far.wait_for_text("ready", read=far.out)
    host, port = server.address()
    load = lab.spawn(lab.topo.client, [
        boxes.tool("load", "bench-tools"), "check", "--turn", f"{host}:{port}", "--user", "alice",
        "--password", "wonderland", "--peer", f"{peer.addr()}:5001", "--stats", stats,
        "--connections", 1, "--bytes", (1 << 32) + 100 * MIB, "--timeout", 280000], "load")
    load.wait(290)
    check(load.out(), f"load said nothing: {load.tail()}")
    said = json.loads(load.out().splitlines()[-1])
    check(said["ok"] and said["intact"], f"wrong bytes: {said}")
    equal(engines.totals(server)[engine] - before[engine], 1, f"pairs {engine} had")


if LONG:  # half a minute for each engine; `load` speaks no TLS
    cases += [("more than 2^32 bytes each way", beyond_the_numbers, 300, name)
              for name in engines.chosen()]
engines.add_all(lab, cases, engines.chosen(*engines.TLS))
tap.main()
