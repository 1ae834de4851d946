#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Forged refusals (ICMPv6 type 1 code 5, ICMP type 3 code 13 and others) to a relay's own TCP.

What a forger must know: whether addresses and ports are enough, or the sequence number too, and
what conntrack's word `related` is worth beside that. The forger here is the router that the
packets pass, so that it can know all of it, and be wrong on purpose.
"""

import contextlib
import errno
import json
import os
import select
import socket
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import engines, stun, tap, turn  # noqa: E402
from culvertlab.data import ping  # noqa: E402
from culvertlab.exits import await_ready, begin, linked  # noqa: E402
from culvertlab.packets import checksum  # noqa: E402
from culvertlab.site import Site  # noqa: E402
from culvertlab.tap import equal  # noqa: E402
from culvertlab.topo import run  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

test = tap.test
site, lab = begin(Site)
ETH_P = {4: 0x0800, 6: 0x86DD}
SYN, ACK = 2, 16
# Code: what connect() says. Of IPv6 5 is the draft's, of IPv4 13; the others are for comparison.
CODES = {4: {13: errno.EHOSTUNREACH, 9: errno.ENETUNREACH, 10: errno.EHOSTUNREACH,
             3: errno.ECONNREFUSED},
         6: {5: errno.EACCES, 1: errno.EACCES, 4: errno.ECONNREFUSED}}
REFUSED = {4: 13, 6: 5}
DEAF = """
table inet deaf {
    chain in { type filter hook input priority 0; tcp flags & (syn | ack) == syn drop; }
}
"""
JUDGE = """
table inet judge {
    counter related { }
    counter other { }
    chain in {
        type filter hook input priority 0
        icmp type destination-unreachable ct state related counter name related accept
        icmpv6 type destination-unreachable ct state related counter name related accept
        icmp type destination-unreachable counter name other
        icmpv6 type destination-unreachable counter name other
    }
}
"""


@contextlib.contextmanager
def rules(node, text):
    """A table of nftables, gone with the block."""
    run(*node.command(["nft", "-f", "-"]), input=text)
    try:
        yield
    finally:
        node.run("nft", "delete", "table", *text.split()[1:3])


class Forger:
    """On the router between a host and the others: sees the host's TCP, and refuses it."""

    def __init__(self, node, link, version):
        self.node, self.version = node, version
        with node.entered():
            self.tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM,
                                     socket.htons(ETH_P[version]))
            self.raw = socket.socket(*((socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
                                       if version == 4 else
                                       (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)))
        self.tap.bind((link, ETH_P[version]))

    def close(self):
        self.tap.close()
        self.raw.close()

    def forget(self):
        while select.select([self.tap], [], [], 0)[0]:
            self.tap.recv(65536)

    def seen(self, port, flags):
        """The next packet from this port with just these flags, from its IP header on."""
        at = {4: 20, 6: 40}[self.version]
        while select.select([self.tap], [], [], 5)[0]:
            packet = self.tap.recv(65536)
            if packet[{4: 9, 6: 6}[self.version]] == socket.IPPROTO_TCP and \
                    struct.unpack_from("!H", packet, at)[0] == port and \
                    packet[at + 13] & (SYN | ACK) == flags:
                return packet[:at + 20]
        raise AssertionError(f"nothing from port {port}")

    def refuse(self, packet, code, ahead=0, port=0):
        """Refuses this packet, with another sequence number or source port if need be."""
        at = {4: 20, 6: 40}[self.version]
        source, dest, number = struct.unpack_from("!HHI", packet, at)
        about = packet[:at] + struct.pack("!HHI", port or source, dest,
                                          number + ahead & 0xFFFFFFFF) + packet[at + 8:]
        if self.version == 4:
            body = struct.pack("!BBHI", 3, code, 0, 0) + about
            body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
            to = socket.inet_ntop(socket.AF_INET, packet[12:16])
        else:  # the kernel makes the checksum
            body = struct.pack("!BBHI", 1, code, 0, 0) + about
            to = socket.inet_ntop(socket.AF_INET6, packet[8:24])
        self.raw.sendto(body, (to, 0))


def numbers(node, path):
    lines = [line.split() for line in node.run("cat", path).splitlines()]
    if path.endswith("snmp6"):
        return {name: int(value) for name, value in lines}
    return {names[0] + name: int(value) for names, values in zip(lines[::2], lines[1::2])
            for name, value in zip(names[1:], values[1:])}


def outside(node):
    """Errors that TCP did not take because of their sequence number."""
    return numbers(node, "/proc/net/netstat")["TcpExt:OutOfWindowIcmps"]


def heard(node, version):
    """Errors that have arrived at all."""
    if version == 4:
        return numbers(node, "/proc/net/snmp")["Icmp:InDestUnreachs"]
    return numbers(node, "/proc/net/snmp6")["Icmp6InDestUnreachs"]


@contextlib.contextmanager
def connecting(version):
    """A connect() of X that nobody answers: (socket, its SYN, a forger on its router)."""
    with contextlib.closing(Forger(site.relay, "lan", version)) as forger, contextlib.closing(
            site.client.bound(version, 0)) as sock:
        sock.setblocking(False)
        equal(sock.connect_ex((site.peer.addr(version), 9)), errno.EINPROGRESS, "connect()")
        yield sock, forger.seen(sock.getsockname()[1], SYN), forger


def error_of(sock, timeout=3):
    """What becomes of a connect() within that time; 0: nothing yet."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    poll.poll(timeout * 1000)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@test("a refusal ends a connect() only with the number of its SYN, whatever the code", 40)
def _():
    with rules(site.peer, DEAF):
        for version, codes in CODES.items():
            for code, error in codes.items():
                with connecting(version) as (sock, syn, forger):
                    # Just behind what is on its way, just before it, and far from it.
                    for ahead in (2, -1, 1 << 16, 1 << 31):
                        before = outside(site.client)
                        forger.refuse(syn, code, ahead)
                        wait_for(lambda before=before: outside(site.client) == before + 1, 3,
                                 "TCP has passed it over")
                    equal(error_of(sock, 0), 0, f"IPv{version}, code {code}: wrong numbers")
                    forger.refuse(syn, code, code & 1)  # that of the SYN, or the one behind it
                    equal(error_of(sock), error, f"IPv{version}, code {code}: the right number")


def refuse_next(forger, sock, far, codes, port=0):
    """Refuses, with each code, what a connection would send next; both ends are ours."""
    for code in codes:
        forger.forget()
        sock.sendall(b"?")
        last = forger.seen(port or sock.getsockname()[1], ACK)
        equal(far.recv(1), b"?", "a byte")
        yield code, lambda last=last, code=code: forger.refuse(last, code, 1)


@test("a connection that is established outlives a refusal with the right number", 40)
def _():
    for version, codes in CODES.items():
        with contextlib.closing(site.peer.listen(version)) as listener, contextlib.closing(
                Forger(site.relay, "lan", version)) as forger, contextlib.closing(
                site.client.connect(listener.getsockname()[:2])) as sock, contextlib.closing(
                listener.accept()[0]) as far:
            for code, refuse in refuse_next(forger, sock, far, codes):
                before, passed = heard(site.client, version), outside(site.client)
                refuse()
                wait_for(lambda v=version, b=before: heard(site.client, v) == b + 1, 3, "heard")
                equal(outside(site.client), passed, f"IPv{version}, code {code}: passed over")
                ping(sock, far)


@test("conntrack calls it related without a look at the number: the guard would let it pass", 20)
def _():
    def judged():
        said = json.loads(site.client.run("nft", "-j", "list", "counters"))
        return {one["counter"]["name"]: one["counter"]["packets"] for one in said["nftables"]
                if "counter" in one}
    with rules(site.peer, DEAF), rules(site.client, JUDGE):
        for version, code in REFUSED.items():
            with connecting(version) as (sock, syn, forger):
                before, passed = judged(), outside(site.client)
                forger.refuse(syn, code, 1 << 20)
                wait_for(lambda b=before: judged()["related"] == b["related"] + 1, 3, "related")
                wait_for(lambda p=passed: outside(site.client) == p + 1, 3, "TCP passes it over")
                # What is no connection at all is told from it, and does not concern TCP either.
                forger.refuse(syn, code, port=1)
                wait_for(lambda b=before: judged()["other"] == b["other"] + 1, 3, "not related")
                equal(error_of(sock, 0), 0, "the connect()")


def relay(**changes):
    server = lab.server({**linked(), **changes}, fresh=True)
    await_ready(server)
    return server


@test("the relay's Connect: no wrong number ends it, the right one does at once", 40)
def _():
    server = relay()
    for version, code in REFUSED.items():
        client = lab.keep(turn.Control(site.client, (site.relay.addr(version, 0), server.port)))
        client.allocate(*([turn.family(6)] if version == 6 else []))
        forger = lab.keep(Forger(site.provider["a"], "site", version))
        with contextlib.closing(site.peer.listen(version)) as listener:
            with rules(site.peer, DEAF):
                txid = client.connect_start(listener.getsockname()[:2])
                syn = forger.seen(client.relayed[1], SYN)
                for ahead in (2, -1, 1 << 20):
                    before = outside(site.relay)
                    forger.refuse(syn, code, ahead)
                    wait_for(lambda b=before: outside(site.relay) == b + 1, 3, "passed over")
            # Its next SYN is heard.
            equal(client.response(txid).cls, stun.SUCCESS, f"IPv{version}: the Connect")
        with rules(site.peer, DEAF):
            forger.forget()
            txid = client.connect_start((site.peer.addr(version), 9))
            syn = forger.seen(client.relayed[1], SYN)
            forger.refuse(syn, code)
            with turn.timeout_of(client.sock, .9):  # before the next SYN
                equal(client.response(txid).code, 447, f"IPv{version}: the Connect")


@test("pairs on every engine outlive a refusal to the relay with the right number", 40)
def _():
    names = [name for name in engines.chosen() if not engines.missing(lab, name)]
    users = {f"user {name}": {"realm": "example.org", "password": "secret",
                              "engine": engines.order(name)} for name in names}
    server = relay(engine={"order": ", ".join(names), "wire": "always"}, **users)
    for name in names:
        for version, code in REFUSED.items():
            client = lab.keep(turn.Control(site.client, (site.relay.addr(version, 0), server.port),
                                           name, "secret"))
            client.allocate(*([turn.family(6)] if version == 6 else []))
            data, peer, _ = lab.pair(client, version)
            ping(data, peer)
            engines.on(server, data, name)
            forger = lab.keep(Forger(site.provider["a"], "site", version))
            for _, refuse in refuse_next(forger, data, peer, [code], client.relayed[1]):
                before = heard(site.relay, version)
                refuse()
                wait_for(lambda v=version, b=before: heard(site.relay, v) == b + 1, 3, "heard")
                ping(data, peer)
            engines.on(server, data, name)
    tap.note("on " + ", ".join(names))


tap.main()
