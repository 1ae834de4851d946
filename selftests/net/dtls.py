#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""DTLS listeners: cookies, handshakes good, bad and half-done, certificates, data both ways."""

import contextlib
import os
import re
import shutil
import socket
import struct
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import stun, tap, tls  # noqa: E402
from culvertlab.data import payload, same  # noqa: E402
from culvertlab.dtls import DtlsClient, DtlsError, DtlsSocket, client_hello  # noqa: E402
from culvertlab.lab import Lab, need, need_namespaces, need_version  # noqa: E402
from culvertlab.server import config_text  # noqa: E402
from culvertlab.stun import ALLOCATE, CONNECTION_BIND, CREATE_PERMISSION, REFRESH  # noqa: E402
from culvertlab.tap import check, equal, test  # noqa: E402
from culvertlab.turn import UDP, Datagrams, recv_message, transport, u32  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
CHANNEL = 0x4001
HELLO_VERIFY = 3


def config(limits=None, **listener):
    certificate, key = tls.certificate(lab.dir)
    return {"listener sealed": {"transport": "dtls", "certificate": certificate,
                                "private_key": key,
                                "address": f"0.0.0.0:{lab.port}, [::]:{lab.port}", **listener},
            "limits": limits or {}}


def plain(server, version=4):
    """A UDP socket that talks to the listener."""
    return lab.keep(lab.topo.client.datagrams(server.address(version)))


def elsewhere():
    """One from another address."""
    need_namespaces(lab)
    return lab.keep(lab.topo.peer.datagrams((lab.topo.relay.addr(4, 1), lab.port)))


def handshake(server, authority=None, name=tls.NAME, alpn=(), sock=None):
    authority = authority or tls.certificate(lab.dir)[0]
    return lab.keep(DtlsSocket(sock or plain(server), authority, name, alpn))


def client_of(server, version=4, user="alice"):
    need_version(lab, version)
    password = {"alice": "wonderland", "bob": "builder"}[user]
    trust = (tls.certificate(lab.dir)[0], tls.NAME)
    return lab.keep(DtlsClient(lab.topo.client, server.address(version), user, password,
                               tls=trust))


def binding(sock):
    msg = stun.Message(stun.BINDING)
    sock.sendall(msg.build())
    answer = recv_message(sock)
    equal(answer.txid, msg.txid, "answer to Binding")
    equal(answer.address(stun.XOR_MAPPED_ADDRESS), sock.getsockname()[:2], "address")


def half_open(sock):
    """Show the cookie and say no more; the first record of the answer."""
    sock.sendall(client_hello())
    answer = sock.recv(2048)
    equal(answer[13], HELLO_VERIFY, "kind of the answer")
    sock.sendall(client_hello(answer[28:28 + answer[27]], 1))


@test("a handshake, messages both ways, an end; IPv4 and IPv6")
def _():
    server = lab.server(config())
    for version in (4, 6) if 6 in lab.topo.versions else (4,):
        sock = handshake(server, sock=plain(server, version))
        binding(sock)
        equal(server.counters()["clients"], 1, "clients")
        sock.close()
        wait_for(lambda: server.counters()["clients"] == 0, 5, "the end is noticed")


@test("openssl s_client shakes hands, by ALPN and SNI")
def _():
    other = tls.certificate(lab.dir, "other.example.org")
    mine = tls.certificate(lab.dir)
    server = lab.server(config(certificate=[mine[0], other[0]], private_key=[mine[1], other[1]]))
    host, port = server.address()
    for name, authority in ((tls.NAME, mine[0]), ("other.example.org", other[0])):
        argv = lab.topo.client.command(
            ["openssl", "s_client", "-dtls1_2", "-connect", f"{host}:{port}", "-servername", name,
             "-verify_hostname", name, "-CAfile", authority, "-verify_return_error", "-alpn",
             "stun.turn", "-mtu", "1400"])
        done = subprocess.run(argv, input="", capture_output=True, text=True, timeout=20,
                              check=False)
        said = done.stdout + done.stderr
        check(f"CN = {name}" in said, f"certificate: {said[:600]}")
        check("ALPN protocol: stun.turn" in said, f"ALPN: {said[-600:]}")
        check("Verification: OK" in said and "DTLSv1.2" in said, f"session: {said[-600:]}")


@test("other protocols than TURN are refused by ALPN, and it is counted")
def _():
    server = lab.server(config())
    before = server.counters()["handshake_failures"]
    try:
        handshake(server, alpn=["h2"])
        raise tap.Fail("h2 was agreed on")
    except DtlsError:
        pass
    wait_for(lambda: server.counters()["handshake_failures"] == before + 1, 5, "counted")
    check(re.search(r"event=handshake_failed listener=sealed client=\S+ reason=\"", server.log()),
          "not logged")


@test("nothing is kept of who has shown no cookie, and he gets less than he sent", 40)
def _():
    server = lab.server(config())
    before, sent, got = server.counters(), 0, 0
    sock = plain(server)
    for n in range(1000):
        message = client_hello(random=struct.pack("!I28x", n))
        sock.send(message)
        sent += len(message)
        got += len(sock.recv(2048))
    check(got < sent, f"{got} bytes for {sent}")
    now = server.counters()
    equal(now["cookies_sent"] - before["cookies_sent"], 1000, "cookies")
    for name in ("clients", "unauthenticated", "handshakes", "accepted"):
        equal(now[name], before[name], name)


@contextlib.contextmanager
def narrow_path(most):
    """No packet of IPv4 beyond so many bytes reaches the client, no piece of one, and no word
    of that the relay; gives a function that tells how many were lost."""
    need("nft", "nftables")
    need_namespaces(lab)
    node = lab.topo.client
    rule = "add rule ip narrow arriving"
    # The filter shall see packets as on a wire.
    lab.topo.relay.run("ip", "link", "set", "toclient", "gso_max_segs", "1")
    node.run("nft", "add table ip narrow; add chain ip narrow arriving "
             "{ type filter hook prerouting priority -450; }; "
             f"{rule} ip length > {most} counter drop; {rule} ip frag-off & 0x3fff != 0 drop")
    try:
        yield lambda: int(re.search(r"packets (\d+)", node.run("nft", "list table ip narrow"))[1])
    finally:
        node.run("nft", "delete table ip narrow")
        lab.topo.relay.run("ip", "link", "set", "toclient", "gso_max_segs", "65535")


@test("a path of 576 bytes that tells nobody: the handshake gets through, data that fit, too", 40)
def _():
    # Few bytes, which one datagram takes, and more than two of the usual size.
    for more in (0, 80):
        pair = tls.certificate(lab.dir, more=more)
        server = lab.server(config({"handshake_timeout": "20s"}, certificate=pair[0],
                                   private_key=pair[1]))
        with narrow_path(576) as lost:
            client = lab.keep(DtlsClient(lab.topo.client, server.address(), "alice", "wonderland",
                                         tls=(pair[0], tls.NAME)))
            check(lost() > 0, "nothing was too long for the path")
            peer = lab.keep(lab.topo.peer.bound(4, udp=True))
            client.allocate(protocol=UDP)
            equal(client.channel_bind_code(peer.getsockname(), CHANNEL), 0, "ChannelBind")
            for size in (1, 400, 480):
                peer.sendto(payload(size, size), client.relayed)
                same(client.sock.recv(), struct.pack("!HH", CHANNEL, size) + payload(size, size),
                     f"{size} bytes to the client")


@test("another's cookie, garbage and plain STUN get nowhere")
def _():
    server = lab.server(config())
    mine, other = plain(server), plain(server)
    mine.sendall(client_hello())
    answer = mine.recv(2048)
    cookie = answer[28:28 + answer[27]]
    other.sendall(client_hello(cookie, 1))
    equal(other.recv(2048)[13], HELLO_VERIFY, "another's cookie is answered by a new one")
    before = server.counters()
    other.sendall(stun.Message(stun.BINDING).build())
    for cut in (1, 12, 13, 40, len(client_hello()) - 1):
        other.sendall(client_hello()[:cut])
    other.sendall(b"GET / HTTP/1.0\r\n\r\n")
    wait_for(lambda: server.counters()["datagrams_ignored"] == before["datagrams_ignored"] + 7, 5,
             "seven datagrams are ignored")
    equal(server.counters()["handshakes"], 0, "handshakes")


@test("half-open handshakes are few from one source, end in time, and leave others room", 40)
def _():
    limits = {"handshakes_per_source": 4, "handshakes": 6, "handshake_timeout": "2s"}
    server = lab.server(config(limits))
    before = server.counters()
    for _ in range(7):
        half_open(plain(server))
    wait_for(lambda: server.counters()["handshake_source_rejects"] -
             before["handshake_source_rejects"] == 3, 5, "three are refused")
    equal(server.counters()["handshakes"], 4, "handshakes")
    binding(handshake(server, sock=elsewhere()))
    for _ in range(3):
        half_open(elsewhere())
    wait_for(lambda: server.counters()["handshake_rejects"] - before["handshake_rejects"] == 1, 5,
             "one of all is refused")
    wait_for(lambda: server.counters()["handshakes"] == 0, 10, "all have ended")
    equal(server.counters()["handshake_failures"] - before["handshake_failures"], 6, "failures")
    binding(handshake(server))


@test("who does not authenticate is closed in time, and told")
def _():
    server = lab.server(config({"unauthenticated_timeout": "1s"}))
    sock = handshake(server)
    binding(sock)
    equal(sock.recv(), b"", "what comes after a second")
    wait_for(lambda: server.counters()["clients"] == 0, 5, "it has ended")
    equal(server.counters()["unauthenticated"], 0, "unauthenticated")


def relay_both_ways(version):
    server = lab.server(config())
    client = client_of(server, version)
    peer = lab.keep(lab.topo.peer.bound(version, udp=True))
    address = peer.getsockname()
    family = [(stun.REQUESTED_ADDRESS_FAMILY, b"\x02\0\0\0")] if version == 6 else []
    client.allocate(*family, protocol=UDP)
    rows = server.ctl_json("allocations")["allocations"]
    equal([(row["client_transport"], row["transport"]) for row in rows], [("dtls", "udp")], "rows")
    equal(client.channel_bind_code(address, CHANNEL), 0, "ChannelBind")
    for size in (0, 1, 3, 1200, 1400, 9000):
        data = payload(size, size)
        client.sock.sendall(struct.pack("!HH", CHANNEL, size) + data)
        got, source = peer.recvfrom(65536)
        same(got, data, f"{size} bytes to the peer")
        equal(source[:2], client.relayed, "source")
        peer.sendto(data, client.relayed)
        same(client.sock.recv(), struct.pack("!HH", CHANNEL, size) + data,
             f"{size} bytes to the client")
    before = server.counters()["datagrams_dropped"]
    peer.sendto(bytes(17000), client.relayed)  # no record can hold it
    wait_for(lambda: server.counters()["datagrams_dropped"] == before + 1, 5, "it is dropped")
    equal(client.refresh(0), 0, "lifetime")


@test("data go both ways by channel (IPv4)")
def _():
    relay_both_ways(4)


@test("data go both ways by channel (IPv6)")
def _():
    relay_both_ways(6)


@test("rows 1, 5, 6, 7: what is refused over UDP is refused over DTLS")
def _():
    server = lab.server(config())
    client = client_of(server)
    peer = lab.keep(lab.topo.peer.bound(udp=True)).getsockname()
    equal(client.code(ALLOCATE, [transport()]), 400, "TCP Allocate")
    equal(client.code(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(1))]), 400, "ConnectionBind")
    equal(client.peer_code(CREATE_PERMISSION, peer), 437, "CreatePermission")
    equal(client.code(REFRESH), 437, "Refresh")
    client.allocate(protocol=UDP)
    equal(client.code(ALLOCATE, [transport(UDP)]), 437, "second Allocate")
    equal(client.refresh(0), 0, "lifetime")
    # As over a connection, and unlike over UDP, it goes on.
    client.allocate(protocol=UDP)


@test("an end by the client, a kick and a reload without the listener end the allocation")
def _():
    server = lab.server(config())
    for how in ("close", "kick", "reload"):
        client = client_of(server)
        client.allocate(protocol=UDP)
        if how == "close":
            client.close()
        elif how == "kick":
            server.ctl("kick", server.ctl_json("allocations")["allocations"][0]["id"])
        else:
            sections = dict(server.sections)
            sections.pop("listener sealed")
            server.write_config(config_text(sections))
            server.reload()
        wait_for(lambda: server.counters()["allocations"] == 0, 5, f"the end by {how}")
        wait_for(lambda: server.counters()["clients"] == 0, 5, f"the client's end by {how}")
        if how != "close":
            equal(client.sock.recv(), b"", "what the client hears")
    lab.server({})


@test("a client that begins anew from its port has lost its allocation, and may have another")
def _():
    server = lab.server(config())
    client = client_of(server)
    client.allocate(protocol=UDP)
    port = client.sock.getsockname()[1]
    client.sock.abandon()
    again = lab.topo.client.bound(port=port, udp=True)
    again.connect(server.address())
    sock = handshake(server, sock=again)
    binding(sock)
    wait_for(lambda: server.counters()["allocations"] == 0, 5, "the old allocation's end")
    equal(server.counters()["clients"], 1, "clients")


@test("renewed certificates are for new clients; established ones go on", 40)
def _():
    first, second = (tls.certificate(lab.dir, serial=n) for n in (1, 2))
    live = [os.path.join(lab.dir, "live.crt"), os.path.join(lab.dir, "live.key")]

    def install(pair):
        for source, path in zip(pair, live):
            shutil.copyfile(source, path)
    install(first)
    server = lab.server(config(certificate=live[0], private_key=live[1]))
    old = handshake(server, first[0])
    binding(old)
    install(second)
    equal(server.reload(), "reloaded", "reload")
    binding(old)
    binding(handshake(server, second[0]))
    try:
        handshake(server, first[0])
        raise tap.Fail("the old certificate is still shown")
    except DtlsError:
        pass
    binding(old)
    lab.server({})


@test("from plain datagrams to DTLS by a reload: whoever is known goes on")
def _():
    server = lab.server({"listener sealed": {"transport": "udp",
                                             "address": f"0.0.0.0:{lab.port}, [::]:{lab.port}"}})
    known = lab.keep(Datagrams(lab.topo.client, server.address()))
    known.allocate(protocol=UDP)
    sections = dict(server.sections)
    sections["listener sealed"] = config()["listener sealed"]
    server.write_config(config_text(sections))
    equal(server.reload(), "reloaded", "reload")
    check(known.refresh() > 0, "the allocation is gone")
    binding(handshake(server))
    stranger = plain(server)
    stranger.settimeout(0.3)
    stranger.sendall(stun.Message(stun.BINDING).build())
    try:
        stranger.recv(2048)
        raise tap.Fail("plain STUN was answered")
    except socket.timeout:
        pass
    lab.server({})


@test("from DTLS to plain datagrams by a reload: whoever is known goes on")
def _():
    server = lab.server(config())
    client = client_of(server)
    client.allocate(protocol=UDP)
    sections = dict(server.sections)
    sections["listener sealed"] = {"transport": "udp",
                                   "address": sections["listener sealed"]["address"]}
    server.write_config(config_text(sections))
    equal(server.reload(), "reloaded", "reload")
    check(client.refresh() > 0, "the allocation is gone")
    client.sock.sock.send(client_hello())  # as if it began anew
    check(client.refresh() > 0, "the allocation is gone after a ClientHello")
    binding(plain(server))
    lab.server({})


tap.main()
