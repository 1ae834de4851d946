#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Bad input and scarcity: the server answers or closes, counts, frees everything, serves others."""

import contextlib
import errno
import os
import random
import re
import socket
import struct
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import proc, stun, tap, turn  # noqa: E402
from culvertlab.data import KIB, MIB, payload, ping, reset, swap  # noqa: E402
from culvertlab.lab import Lab, need  # noqa: E402
from culvertlab.stun import (ALLOCATE, BINDING, CONNECT, CONNECTION_BIND,  # noqa: E402
                             CREATE_PERMISSION, REFRESH)
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.turn import ended, transport, u32  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
test = tap.test
SHORT = {"limits": {"unauthenticated_timeout": "2s"}}
GONE = ("fin", "rst")


class Bystander:
    """An honest pair that keeps talking during an attack, and how long an answer took at most."""

    def __init__(self, **more):
        self.data, self.peer, self.client = lab.pair(**more)
        self.worst = 0.0
        self._stop = threading.Event()
        self._error = None
        self._thread = threading.Thread(target=self._talk, daemon=True)

    def _talk(self):
        try:
            while not self._stop.wait(0.01):
                start = time.monotonic()
                ping(self.data, self.peer, b"still here?")
                self.worst = max(self.worst, time.monotonic() - start)
        except Exception as error:  # told at the end
            self._error = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *_exc):
        self._stop.set()
        self._thread.join(15)
        if kind is None:
            check(self._error is None, f"the honest pair failed: {self._error!r}")
            within(self.worst, 0, 2, "longest answer of the honest pair, seconds")
            check(self.client.refresh() > 0, "the honest client's Refresh")


def held_descriptors(server):
    """Descriptors of the relay without the pipes it keeps for later."""
    directory = f"/proc/{server.relay_pid()}/fd"
    count = 0
    for name in os.listdir(directory):
        with contextlib.suppress(OSError):
            count += not os.readlink(os.path.join(directory, name)).startswith("pipe:")
    return count


@contextlib.contextmanager
def nothing_left(server, settle=10):
    """After the block the relay holds as many descriptors as before, and little more memory."""
    wait_for(lambda: server.counters()["clients"] == 0, 10, "no client is left from before")
    lab_was = len(lab._open)
    base, rss = held_descriptors(server), server.rss_kib()
    yield
    for closable in lab._open[lab_was:]:
        closable.close()
    wait_for(lambda: held_descriptors(server) <= base, settle,
             f"descriptors back to {base}, last {held_descriptors(server)}")
    wait_for(lambda: server.counters()["clients"] == 0, settle, "no client is counted")
    for counter in ("allocations", "pending", "relaying", "unauthenticated"):
        equal(server.counters()[counter], 0, counter)
    within(server.rss_kib() - rss, -1 << 30, 24 * 1024, "growth of the relay's memory, KiB")


def connect(server):
    return lab.topo.client.connect(server.address())


def signed_allocate(client):
    if client.nonce is None:
        client.challenge()
    return client.signed(ALLOCATE, [transport()])[0]


def is_closed(sock, timeout=5):
    """The server ends this connection, whatever it says before."""
    deadline = time.monotonic() + timeout
    sock.settimeout(timeout)
    try:
        while sock.recv(65536):
            if time.monotonic() > deadline:
                return False
        return True
    except (ConnectionResetError, BrokenPipeError):
        return True
    except TimeoutError:
        return False


@test("truncated messages: cut at every place, then closed")
def _():
    server = lab.server(SHORT)
    with nothing_left(server), Bystander():
        with contextlib.closing(lab.client()) as client:
            raw = signed_allocate(client)
        for cut in range(1, len(raw)):
            sock = connect(server)
            sock.sendall(raw[:cut])
            if cut % 2:
                reset(sock)
            else:
                sock.close()


@test("truncated messages: an end of stream inside a message ends the connection")
def _():
    server = lab.server(SHORT)
    with nothing_left(server):
        with contextlib.closing(lab.client()) as client:
            raw = signed_allocate(client)
        for cut in (1, 19, 20, 21, len(raw) - 1):
            with contextlib.closing(connect(server)) as sock:
                sock.sendall(raw[:cut])
                sock.shutdown(socket.SHUT_WR)
                check(is_closed(sock), f"still open after {cut} bytes and a FIN")


@test("oversized: a length that no message has closes the connection")
def _():
    server = lab.server()
    with nothing_left(server), Bystander():
        for length in (0xFFFC, 0xFFFF, 0x8000):
            with contextlib.closing(connect(server)) as sock:
                head = struct.pack("!HHI", 1, length, stun.MAGIC) + os.urandom(12)
                with contextlib.suppress(ConnectionError):
                    sock.sendall(head + bytes(70000))
                check(is_closed(sock, 3), f"length {length:#x}: open")


@test("oversized: many and long attributes are answered or end the connection")
def _():
    server = lab.server()
    with nothing_left(server):
        for attrs in ([(stun.SOFTWARE, b"x" * 60000)], [(0x8055, b"y")] * 3000,
                      [(stun.USERNAME, b"u" * 5000)], [(0x7777, b"")] * 400,
                      [(stun.NONCE, b"n" * 2000), (stun.REALM, b"r" * 2000)]):
            with contextlib.closing(connect(server)) as sock:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(stun.Message(BINDING, attrs=attrs).build())
                answered_or_closed(sock)


def answered_or_closed(sock, timeout=5):
    sock.settimeout(timeout)
    try:
        return turn.recv_message(sock)
    except (turn.Closed, ConnectionError):
        return None


@test("attributes whose lengths lie are refused or ignored, never believed")
def _():
    server = lab.server(SHORT)
    with nothing_left(server), Bystander():
        for size in (1, 3, 5, 100, 0x7FFF, 0xFFFF):
            for body in (struct.pack("!HH", stun.USERNAME, size),
                         struct.pack("!HH", stun.XOR_PEER_ADDRESS, size) + bytes(4),
                         struct.pack("!HH", stun.MESSAGE_INTEGRITY, size) + bytes(20)):
                with contextlib.closing(connect(server)) as sock:
                    sock.sendall(stun.header(3, len(body), os.urandom(12)) + body)
                    if size > len(body) - 4:
                        answered_or_closed(sock, 3)


@test("random bytes end the connection, 300 times")
def _():
    server = lab.server(SHORT)
    rng = random.Random(1)
    with nothing_left(server), Bystander():
        socks = []
        for number in range(300):
            sock = connect(server)
            head = [b"", b"\0\1", b"\0\3", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"][number % 5]
            with contextlib.suppress(ConnectionError):
                sock.sendall(head + rng.randbytes(rng.choice((1, 19, 20, 21, 600, 5000))))
            socks.append(sock)
        deadline = time.monotonic() + 8
        for number, sock in enumerate(socks):
            left = max(0.1, deadline - time.monotonic())
            check(is_closed(sock, left), f"connection {number} is open")
            sock.close()
    check(server.counters()["bad_messages"] > 100, "bad_messages was not counted")


def mutated(raw, rng):
    """A signed message with a few bytes changed."""
    changed = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF,
                                                           rng.randrange(256)))
    return bytes(changed)


@test("mutated messages, 2,000 of them", 40)
def _():
    server = lab.server(SHORT)
    rng = random.Random(2)
    with nothing_left(server), Bystander():
        with contextlib.closing(lab.client()) as client:
            raws = [signed_allocate(client), client.signed(REFRESH)[0],
                    client.signed(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(1))])[0],
                    client.peer_message(CONNECT, ("10.77.2.2", 9)).build(client.key)]
        for _ in range(250):
            with contextlib.closing(connect(server)) as sock:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(b"".join(mutated(rng.choice(raws), rng) for _ in range(8)))


def nonsense(rng):
    """A random authenticated request: its integrity is right, its attributes are not."""
    method = rng.choice((ALLOCATE, REFRESH, CONNECT, CONNECTION_BIND, CREATE_PERMISSION,
                         stun.CHANNEL_BIND, rng.randrange(0x1000)))
    kinds = (stun.LIFETIME, stun.XOR_PEER_ADDRESS, stun.REQUESTED_TRANSPORT, stun.EVEN_PORT,
             stun.CONNECTION_ID, stun.REQUESTED_ADDRESS_FAMILY, stun.DATA, stun.CHANNEL_NUMBER,
             stun.RESERVATION_TOKEN, stun.DONT_FRAGMENT, stun.USERHASH, stun.PASSWORD_ALGORITHM,
             stun.PASSWORD_ALGORITHMS, rng.randrange(0x10000))
    attrs = [(rng.choice(kinds), rng.randbytes(rng.choice((0, 1, 3, 4, 5, 8, 20, 33))))
             for _ in range(rng.randint(0, 5))]
    return method, [a for a in attrs if a[0] not in (stun.MESSAGE_INTEGRITY, stun.FINGERPRINT,
                                                     stun.MESSAGE_INTEGRITY_SHA256)]


@test("well signed nonsense, 3,000 requests, each answered", 60)
def _():
    server = lab.server()
    rng = random.Random(3)
    with nothing_left(server), Bystander():
        client = lab.client()
        client.challenge()
        for number in range(3000):
            if number % 100 == 0:
                client.close()
                client = lab.keep(client.other())
            msg = client.message(*nonsense(rng))
            rng.shuffle(msg.attrs)
            try:
                client.exchange(msg, client.key)
            except (turn.Closed, ConnectionError):
                client = lab.keep(client.other())
        client.close()


@test("misordered: responses, indications and ChannelData from a client do no harm")
def _():
    server = lab.server(SHORT)
    with nothing_left(server):
        with contextlib.closing(lab.client()) as client:
            for cls in (stun.INDICATION, stun.SUCCESS, stun.ERROR):
                for method in range(1, 14):
                    client.sock.sendall(stun.Message(method, cls).build())
            client.allocate()
            client.sock.sendall(b"\x40\x00\x00\x08ignored!")
            with contextlib.suppress(turn.Closed, ConnectionError):
                check(client.is_quiet(0.2), "ChannelData was answered")


def dribble(socks, byte=b"\0"):
    """One more byte on each; how many are still open for us."""
    alive = 0
    for sock in socks:
        try:
            sock.send(byte, socket.MSG_DONTWAIT)
            alive += 1
        except OSError as error:
            if error.errno == errno.EAGAIN:
                alive += 1
    return alive


@test("slowloris: 200 connections that dribble are closed at unauthenticated_timeout", 40)
def _():
    server = lab.server(SHORT)
    with nothing_left(server), Bystander():
        before = server.counters()["timeouts"]
        raw = stun.Message(ALLOCATE, attrs=[(stun.SOFTWARE, b"slow" * 100)]).build()
        socks = [connect(server) for _ in range(200)]
        start, at = time.monotonic(), iter(raw)
        wait_for(lambda: dribble(socks, bytes([next(at, 0)])) == 0, 10, "all of them are closed")
        within(time.monotonic() - start, 1, 6, "seconds until all were closed")
        check(server.counters()["timeouts"] - before >= 200, "timeouts were not counted")
        for sock in socks:
            sock.close()


@test("a connection that never speaks, and one that only asks Binding, is closed in time")
def _():
    server = lab.server(SHORT)
    with nothing_left(server):
        silent, chatty = connect(server), lab.client()
        start = time.monotonic()

        def binding():
            try:
                chatty.exchange(stun.Message(BINDING))
                return False
            except (turn.Closed, ConnectionError):
                return True
        with contextlib.closing(silent):
            check(ended(silent, 6) in GONE, "the silent one is open")
        within(time.monotonic() - start, 1.5, 5, "seconds")
        wait_for(binding, 6, "the one that only asks Binding is closed")


@test("an authenticated connection is not closed by unauthenticated_timeout")
def _():
    lab.server(SHORT)
    silent = lab.client()
    allocated = lab.allocated()
    check(ended(silent.sock, 6) in GONE, "the silent one is open")
    check(allocated.refresh() > 0, "the allocation was closed with it")


@test("10,000 connects and closes", 60)
def _():
    server = lab.server(SHORT)
    with nothing_left(server, 20), Bystander():
        for number in range(10000):
            sock = connect(server)
            if number % 3:
                reset(sock)
            else:
                sock.close()
        wait_for(lambda: server.counters()["accepted"] >= 10000, 10, "10,000 are counted")


@test("10,000 unauthenticated requests leave no state", 60)
def _():
    server = lab.server(SHORT)
    with nothing_left(server), Bystander():
        for _ in range(20):
            with contextlib.closing(lab.client()) as client:
                raw = stun.Message(ALLOCATE, attrs=[transport()]).build()
                for _ in range(500):
                    client.sock.sendall(raw)
                    equal(turn.recv_message(client.sock).code, 401)


@test("allocations made and dropped, 1,000 of them with pending peers", 60)
def _():
    server = lab.server({"limits": {"connections": 20000}})
    listener = lab.listener(backlog=4096)
    with nothing_left(server, 20), Bystander():
        for number in range(1000):
            client = lab.client()
            client.allocate()
            if number % 4 == 0:
                client.connect(listener.getsockname())
                listener.accept()[0].close()
            client.reset() if number % 2 else client.close()


@test("a client that does not read its answers is closed, memory stays bounded", 40)
def _():
    server = lab.server()
    with nothing_left(server), Bystander():
        client = lab.allocated()
        refresh = b"".join(client.signed(REFRESH)[0] for _ in range(200))
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sock.settimeout(3)
        try:
            for _ in range(2000):
                client.sock.sendall(refresh)
            raise tap.Fail("400,000 requests were taken although no answer was read")
        except (TimeoutError, ConnectionError):
            pass
        client.close()


# Limits

def rejected(sock):
    return ended(sock, 3) in GONE


@test("connections: the one too many is closed at once and counted, a freed place is given")
def _():
    server = lab.server({"limits": {"connections": 10}})
    first = [lab.client() for _ in range(10)]
    for client in first:
        client.challenge()
    extra = lab.client()
    check(rejected(extra.sock), "the eleventh connection is open")
    check(server.counters()["rejected_limit"] >= 1, "rejected_limit is not counted")
    first[0].close()

    def fits():
        client = lab.client()
        try:
            client.challenge()
            return True
        except (turn.Closed, ConnectionError):
            return False
    wait_for(fits, 5, "room for one again")
    for client in first[1:]:
        client.exchange(stun.Message(BINDING))


@test("unauthenticated: silent ones are bounded, authenticated ones do not count")
def _():
    server = lab.server({"limits": {"unauthenticated": 5}})
    allocated = [lab.allocated() for _ in range(8)]
    silent = [lab.keep(connect(server)) for _ in range(5)]
    wait_for(lambda: server.counters()["unauthenticated"] == 5, 5, "five are counted")
    check(rejected(connect(server)), "the sixth silent one is open")
    for client in allocated:
        client.refresh()
    silent[0].close()
    wait_for(lambda: server.counters()["unauthenticated"] == 4, 5, "four are counted")
    lab.allocated()


@test("pending_binds: Connect is refused, incoming is closed, a bind makes room")
def _():
    lab.server({"limits": {"pending_binds": 3}})
    client = lab.allocated()
    listeners = [lab.listener() for _ in range(4)]
    cids = [client.connect(listener.getsockname()) for listener in listeners[:3]]
    code = client.peer_code(CONNECT, listeners[3].getsockname())
    check(code in (486, 508), f"fourth Connect: {code}, want 486 or 508")
    client.permit(lab.topo.peer.addr())
    late = lab.keep(lab.topo.peer.connect(client.relayed))
    check(ended(late, 3) in GONE, "the fourth connection came in")
    check(client.is_quiet(), "it was indicated")
    peer = lab.accept(listeners[0])
    ping(lab.keep(client.bind(cids[0])), peer)
    client.connect(listeners[3].getsockname())
    ping(*lab.pair(lab.allocated())[:2])


@test("permissions_per_allocation: the one too many is refused, none of its request is taken")
def _():
    lab.server({"limits": {"permissions_per_allocation": 2}})
    client = lab.allocated()
    client.permit("203.0.113.1")
    code = client.peer_code(CREATE_PERMISSION, [("203.0.113.2", 0), ("203.0.113.3", 0)])
    check(code in (486, 508), f"three permissions: {code}, want 486 or 508")
    client.permit("203.0.113.1")
    client.permit(lab.topo.peer.addr())
    peer = lab.keep(lab.topo.peer.connect(client.relayed))
    cid, _ = client.attempt()
    ping(lab.keep(client.bind(cid)), peer)


@test("connections_per_allocation: the one too many is refused, an end makes room")
def _():
    lab.server({"limits": {"connections_per_allocation": 2}})
    client = lab.allocated()
    pairs = [lab.pair(client)[:2] for _ in range(2)]
    listener = lab.listener()
    code = client.peer_code(CONNECT, listener.getsockname())
    check(code in (486, 508), f"third Connect: {code}, want 486 or 508")
    for sock in pairs[0]:
        sock.close()
    wait_for(lambda: client.peer_code(CONNECT, listener.getsockname()) == 0, 5, "room again")
    ping(*pairs[1])


@test("allocations: the one too many is 508, whoever asks")
def _():
    lab.server({"limits": {"allocations": 2}})
    lab.allocated()
    second = lab.allocated(user="bob")
    third = lab.client()
    code = third.code(ALLOCATE, [transport()])
    check(code in (486, 508), f"third allocation: {code}, want 508")
    second.refresh(0)
    wait_for(lambda: third.code(ALLOCATE, [transport()]) == 0, 5, "room again")


@test("CONNECTION-IDs cannot be counted, and guessing them does not pay")
def _():
    client = lab.allocated()
    cids = []
    for _ in range(30):
        listener = lab.listener()
        cids.append(client.connect(listener.getsockname()))
    equal(len(set(cids)), len(cids), "distinct identifiers")
    steps = [b - a for a, b in zip(cids, cids[1:])]
    check(len(set(steps)) > 20, f"the steps between identifiers are {sorted(set(steps))}")
    server = lab.server({"limits": {"bind_failures": 20}})
    owner, bound = lab.client(user="bob", password="builder"), lab.pair()[:2]
    owner.allocate()
    listener = lab.listener()
    cid = owner.connect(listener.getsockname())
    before = server.counters()
    # Another's is a guess as well; the worker's number is in the upper bits.
    guessed = sum(guesses(lab.allocated(), identifiers) for identifiers in (
        [cid] * 7, range(7), [n % 2 << 26 | n for n in range(7)]))
    # Three seconds pay for one.
    within(guessed, 20, 22, "guesses that were answered, of 21 and what comes")
    with contextlib.suppress(turn.Closed, ConnectionError):
        raise tap.Fail(f"{owner.bind_code(cid)}: it tells whether a guess is right")
    now = server.counters()
    equal(now["bind_failures"] - before["bind_failures"], guessed, "bind_failures")
    check(now["binds_limited"] > before["binds_limited"], "binds_limited")
    equal(server.log_count(r"event=guessing client=\S+ identifiers=20 "), 1, "log lines")
    ping(*bound)
    owner.refresh()
    # Who comes from elsewhere is served.
    twin = lab.keep(turn.Control(lab.topo.peer, (lab.topo.relay.addr(4, 1), lab.port), "bob",
                                 "builder"))
    twin.challenge(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(cid))])
    twin.insist(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(cid))])
    ping(twin.sock, lab.accept(listener))


def guesses(client, identifiers):
    """How many of these a new connection for each gets an answer to."""
    answered = 0
    for identifier in identifiers:
        with contextlib.suppress(turn.Closed, ConnectionError), client.other() as guesser:
            code = guesser.code(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(identifier))])
            check(code in (400, 441), f"{code} to a guess")
            answered += 1
    return answered


# Descriptor exhaustion

def limited(files, changes):
    """A server with room for so many descriptors, beside the shared one."""
    need("prlimit", "util-linux")
    port = lab.topo.relay.free_port()
    changes = {"listener main": {"address": f"0.0.0.0:{port}, [::]:{port}"}, **changes}
    return lab.extra_server(changes, prefix=["prlimit", f"--nofile={files}:{files}", "--"],
                            port=port)


def pair_on(server):
    client = lab.keep(turn.Control(lab.topo.client, server.address()))
    client.allocate()
    return lab.pair(client)


def refused_lines(server):
    """Log lines that tell of descriptors or limits running out."""
    return [line for line in server.log().splitlines()
            if re.search(r"descriptor|Too many open|EMFILE|limit|level=(warn|error)", line)]


def exhaust(server, count):
    """Open connections until the server takes no more; those we hold."""
    socks = []
    for _ in range(count):
        with contextlib.suppress(OSError):
            socks.append(lab.topo.client.connect(server.address(), timeout=2))
    return socks


def serves(server):
    """A new client gets a pair that works."""
    try:
        ping(*pair_on(server)[:2])
        return True
    except (turn.Closed, ConnectionError, tap.Fail, TimeoutError):
        return False


def survives(server, counter, words):
    data, peer, client = pair_on(server)
    swap(data, peer, MIB)
    before = len(server.log())
    socks = exhaust(server, 300)
    wait_for(lambda: re.search(words, server.log()[before:]), 10, f"{words} in the log")
    start = time.monotonic()
    ping(data, peer)
    check(client.refresh() > 0, "Refresh of the client that was there before")
    within(time.monotonic() - start, 0, 2, "seconds for an old client's requests")
    swap(data, peer, MIB)
    listener = lab.listener()
    code = client.peer_code(CONNECT, listener.getsockname())
    check(code in (0, 447, 486, 508), f"Connect without descriptors: {code}")
    check(server.counters()[counter] > 0, f"{counter} is counted, by a control socket that answers")
    within(len(refused_lines(server)), 1, 30, "log lines about it")
    for sock in socks:
        sock.close()
    wait_for(lambda: serves(server), 15, "new clients are served again")
    server.stop()


@test("descriptor exhaustion: EMFILE on accept, old clients served, recovers", 60)
def _():
    survives(limited(80, {"limits": {"connections": 100000, "unauthenticated": 100000},
                          "server": {"workers": 2}}),
             "rejected_descriptors", "descriptors|EMFILE|Too many")


@test("descriptor exhaustion: the default limit stays below RLIMIT_NOFILE", 60)
def _():
    survives(limited(200, {"limits": {"unauthenticated": 100000}}), "rejected_limit",
             "event=rejected limit=")


@test("descriptor exhaustion: EMFILE while connecting and relaying on every engine", 60)
def _():
    for engine in ("splice", "uring", "copy"):
        order = engine if engine == "copy" else f"{engine}, copy"
        server = limited(200, {"engine": {"order": order},
                              "limits": {"connections": 100000}})
        pairs = []
        with contextlib.suppress(turn.Closed, ConnectionError, tap.Fail, TimeoutError):
            for _ in range(60):
                pairs.append(pair_on(server))
        check(len(pairs) > 5, f"{engine}: only {len(pairs)} pairs")
        for data, peer, _ in pairs:
            swap(data, peer, 100 * KIB)
        lab.drop_connections()
        wait_for(lambda on=server: on.counters()["clients"] == 0, 10, "all are gone")
        ping(*pair_on(server)[:2])
        server.stop()


@test("a flood of incoming connections from a permitted peer is bounded and harms nobody", 40)
def _():
    server = lab.server({"limits": {"pending_binds": 50}})
    with nothing_left(server), Bystander():
        client = lab.allocated()
        client.permit(lab.topo.peer.addr())
        socks = [lab.topo.peer.connect(client.relayed) for _ in range(500)]
        wait_for(lambda: server.counters()["pending"] == 50, 5, "50 are pending")
        check(proc.rss_kib(server.relay_pid()) < 200 * 1024, "memory")
        for sock in socks:
            reset(sock)
        wait_for(lambda: server.counters()["pending"] == 0, 10, "none is pending")
        client.close()


@test("payload on a control connection after Allocate ends it, not the server")
def _():
    server = lab.server()
    with nothing_left(server), Bystander():
        client = lab.allocated()
        with contextlib.suppress(ConnectionError, TimeoutError):
            client.sock.sendall(payload(MIB))
        check(is_closed(client.sock), "a control connection full of payload is open")


tap.main()
