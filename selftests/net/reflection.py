#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What forged UDP requests make the server send: less than they cost, whatever they ask for.

Requests leave the client's namespace in the name of networks behind the peer, so that every
answer goes there; the relay's interfaces count both. Each kind of request has networks of its own.
"""

import contextlib
import itertools
import json
import os
import socket
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import mixed, stun, tap, tls, turn  # noqa: E402
from culvertlab.dtls import DtlsClient, client_hello  # noqa: E402
from culvertlab.lab import Lab, need_namespaces, need_version  # noqa: E402
from culvertlab.stun import ALLOCATE, CREATE_PERMISSION, REFRESH  # noqa: E402
from culvertlab.tap import check, equal, note  # noqa: E402
from culvertlab.turn import UDP, transport  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
ADDRESS = f"{lab.topo.relay.addr()}:{lab.port}, [{lab.topo.relay.addr(6)}]:{lab.port}"
OTHER = f"{lab.topo.relay.addr(4, 1)}:{lab.port + 1}, [{lab.topo.relay.addr(6, 1)}]:{lab.port + 1}"
PLAIN = {"listener datagrams": {"transport": "udp", "address": ADDRESS}}
DISCOVERY = {"listener datagrams": {**PLAIN["listener datagrams"], "alternate": OTHER}}
FLOOD = 12000
_networks = itertools.count(1)


def network(version):
    """A /24 or /48 behind the peer that nobody was sent anything before; its first address."""
    number = next(_networks)
    prefix, gateway = {4: (f"10.99.{number}.0/24", "10.77.2.2"),
                       6: (f"fd99:0:{number:x}::/48", "fd77:2::2")}[version]
    lab.topo.relay.run("ip", f"-{version}", "route", "replace", prefix, "via", gateway)
    return prefix.replace(".0/24", ".1").replace("::/48", "::1")


def interface(name):
    row = json.loads(lab.topo.relay.run("ip", "-s", "-j", "link", "show", "dev", name))[0]
    return row["stats64"]


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF or 0xFFFF


def datagram(source, target, data):
    """An IP packet, whoever it says it is from."""
    length = 8 + len(data)
    udp = struct.pack("!HHHH", 40000, lab.port, length, 0) + data
    if ":" not in source:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, 17, 0)
        return head + socket.inet_aton(source) + socket.inet_aton(target) + udp
    ends = b"".join(socket.inet_pton(socket.AF_INET6, one) for one in (source, target))
    summed = checksum(ends + struct.pack("!II", length, 17) + udp + bytes(length % 2))
    udp = udp[:6] + struct.pack("!H", summed) + udp[8:]
    return struct.pack("!IHBB", 6 << 28, length, 17, 64) + ends + udp


def raw_socket(version):
    with lab.topo.client.entered():
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        return lab.keep(socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW))


def settled(server, wanted, counted):
    """The server has seen them all, or the kernel has dropped some: nothing changes any more."""
    seen = []

    def quiet():
        seen.append((server.counters()[counted], interface("topeer")["tx"]))
        return len(seen) > 8 and all(one == seen[-1] for one in seen[-8:])
    wait_for(quiet, 20, f"{wanted} requests are through")


def flood(changes, requests, version, counted="requests", sources=None):
    """(bytes of IP out for each byte in, answers). counted: what counts those it has looked at."""
    server, target = lab.server(changes), lab.topo.relay.addr(version)
    sources, sock = sources or [network(version)], raw_socket(version)
    packets = [datagram(sources[number % len(sources)], target, raw)
               for number, raw in zip(range(max(len(sources), len(requests))),
                                      itertools.cycle(requests))]
    before, known = (interface("toclient")["rx"], interface("topeer")["tx"]), server.counters()
    for number in range(FLOOD):
        sock.sendto(packets[number % len(packets)], (target, 0))
    settled(server, FLOOD, counted)
    after = interface("toclient")["rx"], interface("topeer")["tx"]
    counts = [(b["bytes"] - a["bytes"] - 14 * (b["packets"] - a["packets"]),
               b["packets"] - a["packets"]) for a, b in zip(before, after)]
    (came, asked), (went, left) = counts
    told = server.counters()
    answered = sum((told[name] - known[name]) * sign
                   for name, sign in ((counted, 1), ("answers_withheld", -1)))
    # A packet that the device cuts into several (UDP_SEGMENT) is counted once.
    went += max(0, answered - left) * (28 if version == 4 else 48)
    check(asked >= FLOOD, f"only {asked} packets came")
    note(f"{asked} packets, {came} bytes in; {answered} answers, {went} bytes out: "
         f"{went / came:.3f}x, on IPv{version}")
    return went / came, answered


def signed(method, *attrs):
    """Credentials of nobody, by a nonce that the server never made."""
    msg = stun.Message(method, attrs=[*attrs, (stun.USERNAME, b"alice"),
                                      (stun.REALM, b"example.org"), (stun.NONCE, b"x" * 63)])
    return msg.build(b"key", fingerprint=False)


def bare(method, *attrs):
    return stun.Message(method, attrs=attrs).build(fingerprint=False)


KINDS = {
    "Binding": lambda: bare(stun.BINDING),
    "Binding with an unknown attribute": lambda: bare(stun.BINDING, (0x7F01, b"")),
    "Allocate without anything": lambda: bare(ALLOCATE),
    "Allocate": lambda: bare(ALLOCATE, transport(UDP)),
    "Refresh": lambda: bare(REFRESH),
    "CreatePermission": lambda: bare(CREATE_PERMISSION),
    "an unknown method": lambda: bare(0x0FF),
    "Allocate by a foreign nonce": lambda: signed(ALLOCATE, transport(UDP)),
}


def limited(version, changes, make):
    def run():
        need_namespaces(lab)
        need_version(lab, version)
        ratio, answered = flood(changes, [make() for _ in range(16)], version)
        check(0 < ratio < 1, f"{ratio:.2f} bytes out for each byte in")
        check(answered > 0, "nobody was answered at all")
    return run


for _name, _make in KINDS.items():
    tap.add(f"{_name}: a forged flood costs more than it makes us send",
            limited(4, PLAIN, _make), 60)
tap.add("Allocate over IPv6: the same", limited(6, PLAIN, KINDS["Allocate"]), 60)
tap.add("Binding with an alternate: the same", limited(4, DISCOVERY, KINDS["Binding"]), 60)


@tap.test("indications, ChannelData and garbage get not a byte", 60)
def _():
    need_namespaces(lab)
    send = stun.Message(stun.SEND, stun.INDICATION, [(stun.DATA, b"x")]).build(fingerprint=False)
    answer = stun.Message(stun.BINDING, stun.SUCCESS).build(fingerprint=False)
    ratio, answered = flood(PLAIN, [send, answer, b"\x40\x00\0\0", b"GET / HTTP/1.0\r\n\r\n"], 4)
    equal(answered, 0, "answers")
    check(ratio < 0.001, "more than neighbours' words went out")


def sealed():
    certificate, key = tls.certificate(lab.dir)
    return {"listener datagrams": {"transport": "dtls", "address": ADDRESS,
                                   "certificate": certificate, "private_key": key}}


def cookie_of_ours(server):
    """One that the listener has made for our own address and the ClientHello of zeros."""
    with contextlib.closing(lab.topo.client.datagrams(server.address())) as sock:
        sock.send(client_hello())
        answer = sock.recv(2048)
    return answer[28:28 + answer[27]]


@tap.test("DTLS: forged ClientHellos, with another's cookie as well, leave nothing and cost more", 60)
def _():
    need_namespaces(lab)
    server = lab.server(sealed())
    cookie = cookie_of_ours(server)
    held, before = mixed.Held(server), server.counters()
    forged = [client_hello(*with_cookie, random=os.urandom(28) + bytes(4))
              for with_cookie in ((), (cookie, 1), (os.urandom(20), 1)) for _ in range(4)]
    ratio, _ = flood(sealed(), forged + [client_hello(cookie, 1)], 4, counted="cookies_sent")
    check(0 < ratio < 1, f"{ratio:.2f} bytes out for each byte in")
    held.compare(mixed.Held(server), 1024)  # batches are touched; 12,000 places would be more
    now = server.counters()
    for name in ("clients", "unauthenticated", "handshakes", "handshake_failures", "accepted"):
        equal(now[name], before[name], name)
    # Who has nothing to do with them is served.
    trust = (tls.certificate(lab.dir)[0], tls.NAME)
    client = lab.keep(DtlsClient(lab.topo.client, server.address(), "alice", "wonderland",
                                 tls=trust))
    client.allocate(protocol=UDP)


def networks():
    """An address of each of 4,096 networks behind the peer."""
    lab.topo.relay.run("ip", "route", "replace", "10.96.0.0/12", "via", "10.77.2.2")
    return [f"10.{96 + number // 256}.{number % 256}.1" for number in range(4096)]


@tap.test("many networks: all of a forged flood together bring no more than they cost", 90)
def _():
    need_namespaces(lab)
    requests = [bare(ALLOCATE, transport(UDP)) for _ in range(16)]
    ratios = []
    for total in ("0", "16K"):
        changes = {**PLAIN, "limits": {"reflection_total": total}}
        ratios.append(flood(changes, requests, 4, sources=networks())[0])
    check(ratios[0] > 2 > 1 > ratios[1] > 0, f"without and with the limit: {ratios}")
    server, sock = lab.server(changes), raw_socket(4)
    check("limit=reflection_total" in server.log(), "no word of it in the log")
    # Who repeats his request beside it is answered in his turn.
    client = lab.keep(turn.Datagrams(lab.topo.client, server.address()))
    client.sock.settimeout(0.05)
    packets = [datagram(source, server.address()[0], requests[0]) for source in networks()[:50]]

    def answered():
        for packet in packets:
            sock.sendto(packet, (server.address()[0], 0))
        with contextlib.suppress(TimeoutError):
            return client.exchange(stun.Message(ALLOCATE)).code == 401
    wait_for(answered, 15, "an answer")


@tap.test("who answers for himself is served beside a flood in the name of others")
def _():
    need_namespaces(lab)
    flood(PLAIN, [bare(ALLOCATE)], 4)
    client = lab.keep(turn.Datagrams(lab.topo.client, lab.server(PLAIN).address()))
    client.allocate(protocol=UDP)
    equal(client.refresh(0), 0)


@tap.test("a network's flood is counted and logged, and who has an allocation there goes on")
def _():
    need_namespaces(lab)
    changes = {**PLAIN, "limits": {"reflection": "256", "nonce_lifetime": "1s"}}
    server = lab.server(changes)
    client = lab.keep(turn.Datagrams(lab.topo.client, server.address()))
    client.allocate(protocol=UDP)
    stranger = lab.keep(turn.Datagrams(lab.topo.client, server.address()))
    before = server.counters()["answers_withheld"]
    for _ in range(200):
        stranger.sock.send(bare(ALLOCATE))
    wait_for(lambda: server.counters()["answers_withheld"] > before + 150, 5, "they are withheld")
    check("event=answers_withheld" in server.log(), "no word of it in the log")
    old = client.nonce

    def stale():
        client.nonce = old
        return client.exchange(client.message(REFRESH), client.key).code == 438
    wait_for(stale, 5, "its nonce is stale, and it is told so")


@tap.test("reflection = 0 turns the limit off")
def _():
    need_namespaces(lab)
    server = lab.server({**PLAIN, "limits": {"reflection": "0"}})
    client = lab.keep(turn.Datagrams(lab.topo.client, server.address()))
    for _ in range(2000):
        equal(client.exchange(stun.Message(ALLOCATE)).code, 401)
    equal(server.counters()["answers_withheld"], 0)


tap.main()
