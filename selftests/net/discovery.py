#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""NAT behavior discovery, RFC 5780: two addresses, two ports, and what clients may ask for."""

import os
import socket
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import stun, tap, turn  # noqa: E402
from culvertlab.lab import Lab, need, need_namespaces, need_version  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.turn import u32  # noqa: E402

lab = Lab()
CHANGE_IP, CHANGE_PORT = 4, 2
PORTS = (lab.port, lab.port + 1)


def bracketed(host, port):
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def config():
    relay = lab.topo.relay

    def both(index):
        return ", ".join(bracketed(relay.addr(version, index), PORTS[index])
                         for version in lab.topo.versions)
    return {"listener datagrams": {"transport": "udp", "address": both(0), "alternate": both(1)}}


def started():
    need_namespaces(lab)
    return lab.server(config())


def client_socket(version=4):
    need_version(lab, version)
    sock = lab.keep(lab.topo.client.bound(version, udp=True))
    sock.settimeout(5)
    return sock


def ask(sock, server, *attrs):
    """A Binding from an unconnected socket: (response, where it came from)."""
    msg = stun.Message(stun.BINDING, attrs=attrs)
    sock.sendto(msg.build(), server)
    raw, source = sock.recvfrom(65536)
    response = stun.parse(raw)
    equal(response.txid, msg.txid, "transaction id")
    return response, source[:2]


def change(flags):
    return stun.CHANGE_REQUEST, u32(flags)


@tap.test("turnutils_natdiscovery finds no NAT, and that anybody may answer")
def _():
    need("turnutils_natdiscovery", "coturn")
    started()
    argv = ["turnutils_natdiscovery", "-m", "-f", "-p", PORTS[0], "-L", lab.topo.client.addr(),
            lab.topo.relay.addr()]
    process = lab.spawn(lab.topo.client, argv, "natdiscovery")
    status = process.wait(25)
    said = process.out() + process.err()
    equal(status, 0, f"status, said {said[-800:]}")
    check("NAT with Endpoint Independent Filtering" in said, said[-1500:])
    check("No NAT detected" in said or "Endpoint Independent Mapping" in said, said[-1500:])


def table_test(version):
    def run():
        started()
        sock = client_socket(version)
        hosts = [lab.topo.relay.addr(version, index) for index in (0, 1)]
        for ip in (0, 1):
            for port in (0, 1):
                other = hosts[1 - ip], PORTS[1 - port]
                for flags in (None, 0, CHANGE_PORT, CHANGE_IP, CHANGE_IP | CHANGE_PORT):
                    response, source = ask(sock, (hosts[ip], PORTS[port]),
                                           *([] if flags is None else [change(flags)]))
                    bits = flags or 0
                    want = (hosts[ip ^ bool(bits & CHANGE_IP)],
                            PORTS[port ^ bool(bits & CHANGE_PORT)])
                    what = f"asked {hosts[ip]} port {PORTS[port]} with {flags}"
                    equal(response.code, 0, what)
                    equal(source, want, f"source, {what}")
                    for kind, address in ((stun.RESPONSE_ORIGIN, want), (stun.OTHER_ADDRESS, other),
                                          (stun.MAPPED_ADDRESS, sock.getsockname()[:2])):
                        equal(stun.plain_address(response.get(kind)), address, f"{kind:#x}, {what}")
                    equal(response.address(stun.XOR_MAPPED_ADDRESS), sock.getsockname()[:2], what)
    return run


for _version in (4, 6):
    tap.add(f"every CHANGE-REQUEST, asked at each of the four sockets (IPv{_version})",
            table_test(_version))


@tap.test("RESPONSE-PORT: the answer goes to another port of the same host")
def _():
    server = started().address()
    sock, other = client_socket(), client_socket()
    port = other.getsockname()[1]
    for value in (struct.pack("!H", port), struct.pack("!HH", port, 0)):
        msg = stun.Message(stun.BINDING, attrs=[(stun.RESPONSE_PORT, value)])
        sock.sendto(msg.build(), server)
        raw, source = other.recvfrom(65536)
        response = stun.parse(raw)
        equal((response.txid, source), (msg.txid, server), "answer at the other port")
        equal(response.address(stun.XOR_MAPPED_ADDRESS), sock.getsockname(), "mapped address")
    for value in (b"", b"\0", bytes(2), bytes(8)):
        equal(ask(sock, server, (stun.RESPONSE_PORT, value))[0].code, 400, value.hex())


@tap.test("PADDING: as much as was sent, 1500 bytes at most; with RESPONSE-PORT 400")
def _():
    server = started().address()
    sock = client_socket()
    for size, want in ((1, None), (4, 4), (1000, 1000), (1500, 1500), (9000, 1500)):
        response, _ = ask(sock, server, (stun.PADDING, bytes(size)))
        got = response.get(stun.PADDING)
        equal(None if got is None else len(got), want, f"padding for {size} bytes")
    both = [(stun.PADDING, bytes(100)), (stun.RESPONSE_PORT, struct.pack("!H", 9))]
    equal(ask(sock, server, *both)[0].code, 400, "both")
    equal(ask(sock, server, (stun.CHANGE_REQUEST, b"\0\0"))[0].code, 400, "short CHANGE-REQUEST")


@tap.test("attributes of another usage are 420 as ever, and the list has them alone")
def _():
    server = started().address()
    response, _ = ask(client_socket(), server, change(CHANGE_IP), (0x7F01, b"x"))
    equal((response.code, response.unknown), (420, [0x7F01]))


@tap.test("without an alternate, and over TCP, all three are unknown: 420")
def _():
    asked = [change(CHANGE_PORT), (stun.PADDING, bytes(8)), (stun.RESPONSE_PORT, bytes([0, 9]))]
    kinds = [kind for kind, _ in asked]
    started()
    tcp = lab.client(changes=config())
    response = tcp.exchange(stun.Message(stun.BINDING, attrs=asked))
    equal((response.code, response.unknown), (420, kinds), "over TCP")
    check(tcp.exchange(stun.Message(stun.BINDING)).get(stun.OTHER_ADDRESS) is None, "OTHER-ADDRESS")
    server = lab.server({"listener datagrams": {"transport": "udp",
                                                "address": f"0.0.0.0:{lab.port}"}}).address()
    sock = client_socket()
    response, _ = ask(sock, server, *asked)
    equal((response.code, response.unknown), (420, kinds), "without an alternate")
    response, _ = ask(sock, server)
    check(response.get(stun.OTHER_ADDRESS) is None, "OTHER-ADDRESS without an alternate")
    check(response.get(stun.RESPONSE_ORIGIN) is None, "RESPONSE-ORIGIN without an alternate")


@tap.test("only Binding knows them: an Allocate with CHANGE-REQUEST is 420")
def _():
    client = lab.keep(turn.Datagrams(lab.topo.client, started().address()))
    equal(client.code(stun.ALLOCATE, [turn.transport(turn.UDP), change(0)]), 420)


@tap.test("a reload brings the alternate and takes it away")
def _():
    need_namespaces(lab)
    plain = {"listener datagrams": {"transport": "udp",
                                    "address": bracketed(lab.topo.relay.addr(), PORTS[0])}}
    server = lab.server(plain, fresh=True)
    sock = client_socket()
    check(ask(sock, server.address())[0].get(stun.OTHER_ADDRESS) is None, "before")
    keys = server.sections["listener datagrams"]
    keys["alternate"] = bracketed(lab.topo.relay.addr(4, 1), PORTS[1])
    server.write_config()
    equal(server.reload(), "reloaded")
    equal(ask(sock, server.address(), change(CHANGE_IP | CHANGE_PORT))[1],
          (lab.topo.relay.addr(4, 1), PORTS[1]), "source with the alternate")
    del keys["alternate"]
    server.write_config()
    equal(server.reload(), "reloaded")
    equal(ask(sock, server.address(), change(0))[0].code, 420, "afterwards")
    sock.sendto(stun.Message(stun.BINDING).build(), (lab.topo.relay.addr(4, 1), PORTS[1]))
    sock.settimeout(0.2)
    try:
        sock.recv(2048)
        raise tap.Fail("the alternate still answers")
    except socket.timeout:
        pass
    lab.stop_server()


tap.main()
