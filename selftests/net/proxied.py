#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Clients behind a proxy that speaks the PROXY protocol: HAProxy, and headers made by hand."""

import os
import re
import socket
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import engines, stun, tap, tls  # noqa: E402
from culvertlab.data import MIB, payload, receive, same, sender  # noqa: E402
from culvertlab.lab import Lab, need, need_namespaces  # noqa: E402
from culvertlab.server import config_text  # noqa: E402
from culvertlab.stun import ALLOCATE  # noqa: E402
from culvertlab.tap import check, equal, test  # noqa: E402
from culvertlab.tls import TlsSocket  # noqa: E402
from culvertlab.turn import Closed, Control, ended, recv_message, transport  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
NAMED = ("203.0.113.9", 4711)


def config(engine="splice", limits=None, **listener):
    changes = engines.config(lab, engine, limits=limits or {})
    changes.setdefault("listener main", {}).update(
        {"proxy_protocol": f"{lab.topo.client.addr(4)}, {lab.topo.client.addr(6)}"
         if 6 in lab.topo.versions else lab.topo.client.addr(4), **listener})
    return changes


def line(source=NAMED):
    return f"PROXY TCP4 {source[0]} 192.0.2.1 {source[1]} 3478\r\n".encode()


def block(source=NAMED, command=0x21, family=0x11, tlvs=b""):
    body = socket.inet_aton(source[0]) + socket.inet_aton("192.0.2.1") + \
        struct.pack("!HH", source[1], 3478) + tlvs
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(body)) + body


class Named(Control):
    """A client for whom a proxy says that this is its host."""

    def __init__(self, server, host, password):
        self.host = host
        super().__init__(lab.topo.client, server.address(), password=password)

    def dial(self, index=0, rcvbuf=0):
        sock = super().dial(index, rcvbuf)
        sock.sendall(line((self.host, NAMED[1])))
        return sock


def raw(server, node=None):
    host = server.address() if node is None else (lab.topo.relay.addr(4, 1), lab.port)
    return lab.keep((node or lab.topo.client).connect(host))


def mapped(sock):
    """Where the server says that we are."""
    msg = stun.Message(stun.BINDING)
    sock.sendall(msg.build())
    answer = recv_message(sock)
    equal(answer.txid, msg.txid, "answer to Binding")
    return answer.address(stun.XOR_MAPPED_ADDRESS)


def haproxy(server, how):
    """HAProxy in front of the server; the address to connect to."""
    need("haproxy", "haproxy")
    port = lab.topo.client.free_port()
    host = lab.topo.client.addr()
    path = os.path.join(lab.dir, f"haproxy{lab.next_number()}.cfg")
    with open(path, "w", encoding="utf-8") as file:
        file.write("global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n"
                   "  timeout client 60s\n  timeout server 60s\n"
                   f"frontend f\n  bind {host}:{port}\n  default_backend b\n"
                   f"backend b\n  server s {server.address()[0]}:{server.address()[1]} {how}\n")
    lab.spawn(lab.topo.client, ["haproxy", "-db", "-f", path], "haproxy")

    def listening():
        try:
            lab.topo.client.connect((host, port)).close()
            return True
        except OSError:
            return False
    wait_for(listening, 10, "HAProxy listens")
    return host, port


def through(engine, how):
    server = lab.server(config(engine))
    client = lab.keep(Control(lab.topo.client, haproxy(server, how), tls=server.tls))
    client.allocate()  # insists on our own address as the mapped one
    rows = server.ctl_json("allocations")["allocations"]
    equal([row["client"] for row in rows],
          ["%s:%d" % client.sock.getsockname()], "client of the allocation")
    data, peer, _ = lab.pair(client)
    engines.on(server, data, engine)
    sent = payload(4 * MIB, 3)
    jobs = [sender(data, sent), sender(peer, sent[::-1])]
    same(receive(peer, len(sent)), sent, "to the peer")
    same(receive(data, len(sent)), sent[::-1], "to the client")
    for job in jobs:
        job.finish(30)


for _engine in ("splice", "wire", "tls"):
    for _how in ("send-proxy", "send-proxy-v2"):
        tap.add(f"HAProxy's {_how} names the client; {_engine} carries every byte",
                lambda e=_engine, h=_how: through(e, h), 60)


@test("every header names whom it says, byte by byte or at once")
def _():
    server = lab.server(config())
    for header in (line(), block(), block(tlvs=b"\x01\0\x04stun"), block(tlvs=bytes(1500))):
        sock = raw(server)
        sock.sendall(header)
        equal(mapped(sock), NAMED, f"named by {header[:20]}")
    for header in (line(), block()):
        sock = raw(server)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(header)):
            sock.sendall(header[at:at + 1])
        equal(mapped(sock), NAMED, f"named by {header[:20]}")


@test("who names nobody is himself: LOCAL, UNSPEC, UNKNOWN")
def _():
    server = lab.server(config())
    for header in (block(command=0x20), SIGNATURE + b"\x21\0\0\0", b"PROXY UNKNOWN\r\n"):
        sock = raw(server)
        sock.sendall(header)
        equal(mapped(sock), sock.getsockname()[:2], f"after {header[:20]}")


@test("who is no proxy is refused, and the log says so")
def _():
    need_namespaces(lab)
    server = lab.server(config())
    before = server.counters()["proxy_refused"]
    stranger = raw(server, lab.topo.peer)
    check(ended(stranger) in ("fin", "rst"), "he may stay")
    equal(server.counters()["proxy_refused"] - before, 1, "proxy_refused")
    check(re.search(r'event=proxy_refused listener=main source=\S+ reason="not among',
                    server.log()), "not in the log")


@test("no header, a bad one, one too long or too late: closed and counted")
def _():
    server = lab.server(config(limits={"handshake_timeout": "1s"}))
    before = server.counters()["proxy_refused"]
    said = (stun.Message(stun.BINDING).build(), b"\x16\x03\x01\x02\0" + bytes(100),
            b"PROXY TCP4 1.2.3.4\r\n", b"PROXY UNKNOWN " + b"x" * 200, block(family=0x12),
            SIGNATURE + b"\x21\x11\xff\xff" + bytes(3000), line()[:20])
    socks = [raw(server) for _ in said]
    for sock, words in zip(socks, said):
        sock.sendall(words)
    for sock in socks:
        check(ended(sock) in ("fin", "rst"), "it may stay")
    gone = raw(server)
    gone.sendall(b"PROXY")
    gone.close()
    wait_for(lambda: server.counters()["proxy_refused"] - before == len(said) + 1, 5, "counted")
    now = server.counters()
    equal((now["unauthenticated"], now["clients"]), (0, 0), "left behind")
    check(not re.search(r"event=proxy_refused .*PROXY TCP4", server.log()), "the log repeats it")


@test("limits are those of whom it names")
def _():
    server = lab.server(config(limits={"auth_failures": 2}))

    def code(host, password):
        client = lab.keep(Named(server, host, password))
        client.challenge()
        try:
            return client.code(ALLOCATE, [transport(99)])
        except Closed:
            return None
    for _ in range(2):
        equal(code("203.0.113.1", "guess"), 401, "a guess")
    equal(code("203.0.113.1", "wonderland"), None, "where guesses come from")
    equal(code("203.0.113.2", "wonderland"), 442, "another address by the same proxy")


@test("half-open handshakes are counted for whom it names")
def _():
    server = lab.server(config("tls", {"handshakes_per_source": 2, "handshake_timeout": "2s"}))
    before = server.counters()["handshake_source_rejects"]
    for n in range(3):
        raw(server).sendall(line(("203.0.113.1", 1000 + n)))
    wait_for(lambda: server.counters()["handshake_source_rejects"] == before + 1, 5, "one rejected")
    sock = raw(server)
    sock.sendall(line())
    equal(mapped(lab.keep(TlsSocket(sock, server.tls, tls.NAME))), NAMED, "another's address")


@test("a listener that goes takes those along who have not said who they are")
def _():
    server = lab.server(config())
    waiting = raw(server)
    wait_for(lambda: server.counters()["unauthenticated"] == 1, 5, "it waits")
    sections = dict(server.sections)
    sections["listener other"] = sections.pop("listener main")
    sections["listener other"]["address"] = f"0.0.0.0:{lab.topo.relay.free_port()}"
    server.write_config(config_text(sections))
    equal(server.reload(), "reloaded", "reload")
    check(ended(waiting) in ("fin", "rst"), "it may stay")
    equal(server.counters()["unauthenticated"], 0, "unauthenticated")
    lab.server({})


tap.main()
