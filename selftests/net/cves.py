#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Faults that other relays have had, class by class: a test for those that no other script has.

The table of them is culvert-security(7)'s; the first tests hold it, and every other test that the
manual names, against the source tree.
"""

import os
import re
import struct
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import database, proc, stun, tap, turn  # noqa: E402
from culvertlab.data import ping  # noqa: E402
from culvertlab.lab import Lab, need_root  # noqa: E402
from culvertlab.server import ROOT, binary  # noqa: E402
from culvertlab.stun import ALLOCATE, BINDING  # noqa: E402
from culvertlab.tap import check, equal, test, within  # noqa: E402
from culvertlab.turn import UDP, recv_exact, recv_message, transport  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
MANUAL = os.path.join(ROOT, "user", "man", "culvert-security.7")
SECTION = "Faults that other relays have had"
CLASSES = ("Peers inside the relay's own host", "Passwords that are there by default",
           "Old memory in padding", "Numbers that can be guessed",
           "Attributes that are not aligned", "Lengths beyond what is there",
           "A length of 16 bits that wraps", "Handshakes that nobody finishes",
           "State for who has shown nothing", "Names that are commands",
           "Doors for administration")
# Of every UDP allocation here the daemon carries the datagrams itself.
BOTH = {"listener datagrams": {"transport": "udp", "address": f"0.0.0.0:{lab.port}"},
        "engine": {"wire_datagrams": "no"}}
CHANNEL = 0x4001


def manual_named(text):
    """(file, test or None) of everything that the manual names as a test."""
    file, found = None, []
    for line in text.splitlines():
        if line.startswith(".Pa selftests/"):
            file = line.split()[1]
            found.append((file, None))
        elif line.startswith(".Dq ") and file:
            found.append((file, line[4:]))
        elif line.startswith((".It", ".Ss", ".El")):
            file = None
    return found


@test("every test that the threat model names is there")
def _():
    with open(MANUAL, encoding="utf-8") as file:
        named = manual_named(file.read())
    within(len(named), 60, 1000, "tests named")
    for path, name in named:
        path = os.path.join(ROOT, path)
        check(os.path.exists(path), f"there is no {path}")
        with open(path, encoding="utf-8") as file:
            check(name is None or name in file.read(), f"{path} has no test \"{name}\"")


@test("every class of faults is in the manual's table, with a test")
def _():
    with open(MANUAL, encoding="utf-8") as file:
        table = file.read().partition(f".Ss {SECTION}\n")[2].partition("\n.Ss ")[0]
    rows = {row.partition("\n")[0]: row for row in table.split("\n.It ")[1:]}
    equal(sorted(rows), sorted(CLASSES), "classes")
    for name, row in rows.items():
        check(any(one for _, one in manual_named(row)), f"{name}: no test is named")


def code(user, password, realm="example.org"):
    """What an Allocate with these credentials is answered with."""
    client = lab.client(user=user, password=password)
    client.challenge()
    client.realm = realm
    return client.code(ALLOCATE, [transport()])


@test("nobody gets in where nobody was named")
def _():
    lab.server({"user alice": None, "user bob": None, "limits": {"auth_failures": "0"},
                "database": {"url": "none"}})
    names = ("admin", "root", "user", "guest", "test", "turn", "culvert", "coturn", "")
    for name in names:
        for password in ("", name, "admin", "password", "root", "youhavetochooseone"):
            check(code(name, password) in (400, 401), f"{name!r} with {password!r} got in")
    for realm in ("", "culvert", "x" * 200):
        check(code("admin", "", realm) in (400, 401), f"admin of {realm!r} got in")


def fill_with_ones(client):
    """Requests that leave bytes which are not zero wherever the relay has had them."""
    for size in (13, 255, 700):
        client.exchange(stun.Message(BINDING, attrs=[(stun.SOFTWARE, b"\xff" * size)]))


def data_indication_is_clean(client, peer, size):
    """A Data indication with so much data; parse() refuses padding that is not zero."""
    fill_with_ones(client)
    peer.sendto(b"\xff" * 100, client.relayed)
    equal(recv_message(client.sock).get(stun.DATA), b"\xff" * 100, "data before")
    peer.sendto(b"\xee" * size, client.relayed)
    equal(recv_message(client.sock).get(stun.DATA), b"\xee" * size, "data")


def channel_data_is_clean(client, peer, size):
    """Over TCP it is padded, in the place of what was sent before."""
    peer.sendto(b"\xff" * 100, client.relayed)
    equal(recv_exact(client.sock, 104)[4:], b"\xff" * 100, "data before")
    peer.sendto(b"\xee" * size, client.relayed)
    raw = recv_exact(client.sock, 4 + size + -size % 4)
    equal(raw[4:], b"\xee" * size + bytes(-size % 4), "data and padding")


def padding_is_clean(kind, names):
    client = lab.keep(kind(lab.topo.client, lab.server(BOTH).address(), "alice", "wonderland"))
    client.allocate(protocol=UDP)
    for name in names:
        fill_with_ones(client)
        client.code(0x0FF, [(stun.USERNAME, name)])  # signed, or a challenge: each is parsed
    client.permit(lab.topo.peer.addr())
    peer = lab.keep(lab.topo.peer.bound(4, udp=True))
    for size in range(1, 6):
        data_indication_is_clean(client, peer, size)
    equal(client.channel_bind_code(peer.getsockname(), CHANNEL), 0, "ChannelBind")
    for size in range(1, 6) if kind is turn.Control else ():
        channel_data_is_clean(client, peer, size)


@test("padding is zero in answers, Data indications and ChannelData, whatever was there before")
def _():
    for kind in (turn.Control, turn.Datagrams):
        padding_is_clean(kind, (b"a", b"ab", b"abc", b"abcd"))


def spread(numbers, bits, what):
    """As of numbers drawn at random: no two alike, no steps that come again, every bit both ways."""
    equal(len(set(numbers)), len(numbers), f"{what} that differ")
    steps = [b - a for a, b in zip(numbers, numbers[1:])]
    within(len(set(steps)), len(steps) - 2, len(steps), f"steps between {what} that differ")
    for bit in range(bits):
        ones = sum(number >> bit & 1 for number in numbers)
        within(ones, 1, len(numbers) - 1, f"{what} with bit {bit} set")


@test("relayed ports, tokens and nonces follow no order")
def _():
    server = lab.server({**BOTH, "limits": {"reflection": "0"}})
    ports, tokens, nonces = [], [], []
    for _ in range(40):
        client = lab.keep(turn.Datagrams(lab.topo.client, server.address(), "alice", "wonderland"))
        response = client.allocate((stun.EVEN_PORT, b"\x80"), protocol=UDP)
        ports.append(client.relayed[1] >> 1)  # even ones were asked for
        tokens.append(int.from_bytes(response.get(stun.RESERVATION_TOKEN), "big"))
        # Behind cookie, time and offer: the salt and the digest.
        nonces.append(int(client.nonce[13 + 12:], 16))
        client.refresh(0)
    within(max(ports) - min(ports), 4000, 32768, "width of what the ports are from")
    check(len(set(ports)) > 30, f"ports: {ports}")
    steps = [b - a for a, b in zip(ports, ports[1:])]
    check(len(set(steps)) > 30, f"steps between ports: {steps}")
    spread(tokens, 64, "tokens")
    spread(nonces, 8 * 19, "nonces")


def closed_or_waits(sock):
    """It is closed, or nothing comes; never an answer."""
    sock.settimeout(0.2)
    try:
        return sock.recv(1) == b""
    except OSError:  # nothing came, or it was reset
        return True


@test("lengths up to 65535 in streams: what is behind such a message is not read as another")
def _():
    server = lab.server(BOTH)
    hidden = stun.Message(BINDING).build()
    bystander = lab.allocated()
    for length in (65532, 65535):
        for number in (CHANNEL, 0x7FFF, 0x0003):
            client = lab.keep(turn.Control(lab.topo.client, server.address(), "alice",
                                           "wonderland"))
            client.allocate(protocol=UDP)
            head = struct.pack("!HH", number, length)
            if number < 0x4000:
                head += struct.pack("!I", stun.MAGIC) + os.urandom(12)
            client.sock.sendall(head + hidden * 20)
            check(closed_or_waits(client.sock), f"{number:#x} of {length} bytes was cut short")
    bystander.refresh()


@test("ChannelData of 65535 bytes in a stream is taken whole, and the next message behind it")
def _():
    server = lab.server(BOTH)
    client = lab.keep(turn.Control(lab.topo.client, server.address(), "alice", "wonderland"))
    client.allocate(protocol=UDP)
    peer = lab.keep(lab.topo.peer.bound(4, udp=True))
    equal(client.channel_bind_code(peer.getsockname(), CHANNEL), 0, "ChannelBind")
    hidden = stun.Message(BINDING).build(fingerprint=False)
    equal(len(hidden), 20, "bytes of a Binding")
    for length in (65535, 65532, 65508):  # none fits into a datagram
        body = hidden * (length // 20) + bytes(length % 20)
        client.sock.sendall(struct.pack("!HH", CHANNEL, length) + body + bytes(-length % 4))
        check(client.refresh() > 0, "the answer that comes next is not that of a Refresh")


COMMANDS = ("' OR '1'='1", "'; DROP TABLE users; --", "x\" OR \"\"=\"", "\\' OR 1=1 --",
            "carol' --", "%s%s%s%n", "$(reboot)", "`id`", "a b c", "*3", "user:*", "../../etc/passwd",
            "{\"a\":1}", "carol\t", "CAROL")


def names_are_names(kind):
    base = kind(lab)
    tap.at_end(base.close)
    server = lab.server({"database": {"url": base.url, "timeout": "5s"},
                         "limits": {"auth_failures": "0"}})
    add = lab.topo.relay.command([binary("culvertctl"), "-c", server.conf_path, "user", "add"])
    for name in ("carol", "x' OR '1'='1"):
        done = subprocess.run([*add, name], input="sesame\n", text=True, capture_output=True,
                              timeout=20, check=False)
        equal(done.returncode, 0, f"adding {name}: {done.stderr}")
    wait_for(lambda: code("carol", "sesame") == 0, 10, "carol is served")
    for name in COMMANDS:
        for sha256 in (False, True):
            client = lab.client(user=name, password="sesame")
            client.sha256 = sha256
            client.challenge()
            equal(client.code(ALLOCATE, [transport()]), 401, f"{name!r}")
    equal(code("x' OR '1'='1", "sesame"), 0, "who is called so")
    equal(code("carol", "sesame"), 0, "carol, afterwards")


for _kind in (database.Sqlite, database.Postgresql, database.Redis):
    tap.add(f"{_kind.__name__}: names that would be commands are names",
            lambda kind=_kind: names_are_names(kind), 60)


def listening(pid):
    """(protocol, port) of every socket of the network that a process waits on."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{fd}")))
        except OSError:
            continue
    found = set()
    for name in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        with open(f"/proc/{pid}/net/{name}", encoding="utf-8") as file:
            for fields in map(str.split, file.readlines()[1:]):
                # A TCP socket that listens, or one of datagrams with nobody at its other end.
                if fields[9] in inodes and fields[3] in ("0A", "07"):
                    found.add((name.rstrip("6"), int(fields[1].rpartition(":")[2], 16)))
    return found


@test("no process of the daemon listens where no listener was configured")
def _():
    need_root()
    server = lab.server(BOTH, fresh=True)
    seen = set()
    for pid in (server.process.pid, *proc.descendants(server.process.pid)):
        seen |= listening(pid)
    equal(seen, {("tcp", lab.port), ("udp", lab.port)}, "open ports")
    ping(*lab.pair()[:2])


tap.main()
