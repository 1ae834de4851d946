#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Clients over UDP and UDP allocations: exact answers, data both ways, peers that lie."""

import os
import random
import socket
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import stun, tap, turn  # noqa: E402
from culvertlab.data import payload, same  # noqa: E402
from culvertlab.lab import Lab, need_namespaces, need_version  # noqa: E402
from culvertlab.packets import Tap  # noqa: E402
from culvertlab.stun import (ALLOCATE, CHANNEL_BIND, CONNECT, CONNECTION_BIND,  # noqa: E402
                             CREATE_PERMISSION, REFRESH, SEND)
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.turn import UDP, lifetime, recv_exact, recv_message, timeout_of  # noqa: E402
from culvertlab.turn import transport, u32  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
# What the kernel does of it is lanes.py's; here every datagram is the daemon's.
LISTENER = {"listener datagrams": {"transport": "udp",
                                   "address": f"0.0.0.0:{lab.port}, [::]:{lab.port}"},
            "engine": {"wire_datagrams": "no"}}
CHANNEL = 0x4001
UDP_SEGMENT = 103


def changed(**sections):
    return {**LISTENER, **sections}


def client_of(version=4, tcp=False, user="alice", changes=LISTENER):
    """A client without allocation."""
    need_version(lab, version)
    server = lab.server(changes)
    kind = turn.Control if tcp else turn.Datagrams
    password = {"alice": "wonderland", "bob": "builder"}[user]
    return lab.keep(kind(lab.topo.client, server.address(version), user, password))


def allocated(version=4, tcp=False, changes=LISTENER, attrs=()):
    client = client_of(version, tcp, changes=changes)
    client.allocate(*([turn.family(6)] if version == 6 else []), *attrs, protocol=UDP)
    return client


def peer_of(version=4, index=0):
    return lab.keep(lab.topo.peer.bound(version, index, udp=True))


def done(client):
    equal(client.refresh(0), 0, "lifetime after Refresh with 0")


def send_message(address, data, *attrs):
    msg = stun.Message(SEND, stun.INDICATION, [(stun.DATA, data), *attrs])
    msg.attrs.insert(0, (stun.XOR_PEER_ADDRESS, stun.xor_address(address[:2], msg.txid)))
    return msg.build()


def channel_message(data, tcp, number=CHANNEL):
    padding = -len(data) % 4 if tcp else 0
    return struct.pack("!HH", number, len(data)) + data + bytes(padding)


def receive_channel(client, tcp, number=CHANNEL):
    """The data of the ChannelData that must come next."""
    if tcp:
        head = recv_exact(client.sock, 4)
        raw = head + recv_exact(client.sock, (struct.unpack("!H", head[2:])[0] + 3) & ~3)
    else:
        raw = client.sock.recv(65536)
    got, length = struct.unpack("!HH", raw[:4])
    equal(got, number, "channel number")
    equal(len(raw), 4 + (length + 3 & ~3 if tcp else length), "length of the message")
    return raw[4:4 + length]


def receive_data(client, address):
    """The data of the Data indication from there that must come next."""
    msg = recv_message(client.sock)
    equal((msg.cls, msg.method), (stun.INDICATION, stun.DATA_METHOD), "class and method")
    equal(msg.address(stun.XOR_PEER_ADDRESS), address[:2], "peer")
    return msg.get(stun.DATA)


def from_relay(peer, client):
    """The next datagram at the peer, which must come from the relayed address."""
    data, source = peer.recvfrom(65536)
    equal(source[:2], client.relayed, "source of what the peer got")
    return data


def silent(sock, seconds=0.2):
    with timeout_of(sock, seconds):
        try:
            return not sock.recv(65536)
        except socket.timeout:
            return True


def drops():
    return lab.server(LISTENER).counters()["datagrams_dropped"]


def each(name, timeout=30):
    """A test over UDP and over TCP, on IPv4 and on IPv6."""
    def register(function):
        for tcp in (False, True):
            for version in (4, 6):
                tap.add(f"{name} ({'TCP' if tcp else 'UDP'}, IPv{version})",
                        lambda tcp=tcp, version=version: function(version, tcp), timeout)
        return function
    return register


@tap.test("Binding is answered from the address that was asked, with 32 or 44 bytes")
def _():
    for version, size in ((4, 32), (6, 44)) if 6 in lab.topo.versions else ((4, 32),):
        client = client_of(version)
        msg = stun.Message(stun.BINDING)
        client.sock.sendall(msg.build(fingerprint=False))
        raw = client.sock.recv(2048)  # a connected socket takes it from nowhere else
        equal(len(raw), size, "bytes of the answer")
        equal(stun.parse(raw).address(stun.XOR_MAPPED_ADDRESS), client.sock.getsockname()[:2])


@tap.test("what is sent to a whole network is ignored")
def _():
    need_namespaces(lab)
    server = lab.server(LISTENER)
    raw = stun.Message(stun.BINDING).build()
    for version, host in ((4, "10.77.1.255"), (4, "224.0.0.1"), (6, "ff02::1")):
        client = lab.keep(lab.topo.client.bound(version, udp=True))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"uplink")
        before = server.counters()["datagrams_ignored"]
        client.sendto(raw, (host, lab.port))
        # Every worker's socket gets it.
        wait_for(lambda before=before: server.counters()["datagrams_ignored"] == before + 2, 5,
                 f"what was sent to {host} is counted")
        check(silent(client, 0.05), f"an answer to what was sent to {host}")
        client.sendto(raw, server.address(version))
        equal(stun.parse(client.recv(2048)).code, 0, "Binding")


@tap.test("without credentials the answer is a challenge and nothing is kept")
def _():
    client = client_of()
    before = lab.server(LISTENER).counters()
    raw = stun.Message(ALLOCATE, attrs=[transport(UDP)]).build(fingerprint=False)
    client.sock.sendall(raw)
    answer = client.sock.recv(2048)
    equal(stun.parse(answer).code, 401)
    check(len(answer) <= 200, f"{len(answer)} bytes for {len(raw)}")
    after = lab.server(LISTENER).counters()
    for name in ("clients", "unauthenticated", "allocations"):
        equal(after[name], before[name], name)


@tap.test("a nonce is for the host it was sent to: who forges a source gets nowhere with his own")
def _():
    need_namespaces(lab)
    client = client_of()
    client.challenge()
    forged = lab.keep(turn.Datagrams(lab.topo.peer, (lab.topo.relay.addr(4, 1), lab.port)))
    forged.realm, forged.nonce, forged.offer = client.realm, client.nonce, client.offer
    before = lab.server(LISTENER).counters()["allocations_made"]
    raw, txid = forged.signed(ALLOCATE, [transport(UDP)])
    forged.sock.sendall(raw)
    equal(forged.response(txid, ALLOCATE).code, 438, "another host's nonce")
    equal(lab.server(LISTENER).counters()["allocations_made"], before, "allocations made")
    beside = lab.keep(turn.Datagrams(lab.topo.client, client.server))
    beside.realm, beside.nonce, beside.offer = client.realm, client.nonce, client.offer
    raw, txid = beside.signed(ALLOCATE, [transport(UDP)])
    beside.sock.sendall(raw)
    equal(beside.response(txid, ALLOCATE).code, 0, "the same host's, from another port")
    done(beside)


@tap.test("wrong passwords in another's name, without his nonce, do not shut him out")
def _():
    changes = changed(limits={"auth_failures": 3})
    before = lab.server(changes).counters()["auth_failures"]
    forger = client_of(changes=changes)
    forger.realm, forger.nonce, forger.password = "example.org", b"x" * 63, "guess"
    for _ in range(5):
        raw, txid = forger.signed(ALLOCATE, [transport(UDP)])
        forger.sock.sendall(raw)
        equal(forger.response(txid, ALLOCATE).code, 438)
    equal(lab.server(changes).counters()["auth_failures"], before, "auth_failures")
    done(allocated(changes=changes))
    forger.challenge()
    equal(forger.code(ALLOCATE, [transport(UDP)]), 401, "by the right nonce")
    equal(lab.server(changes).counters()["auth_failures"], before + 1, "auth_failures")


@tap.test("rows 1, 5, 6, 7, 8, 27, 36: what is refused over UDP, and how")
def _():
    client = client_of()
    peer = peer_of().getsockname()
    equal(client.code(ALLOCATE, [transport()]), 400, "TCP Allocate over UDP")
    equal(client.code(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(1))]), 400, "ConnectionBind")
    equal(client.peer_code(CREATE_PERMISSION, peer), 437, "CreatePermission")
    equal(client.channel_bind_code(peer), 437, "ChannelBind")
    equal(client.code(REFRESH), 437, "Refresh")
    equal(client.code(ALLOCATE, [transport(UDP), (0x7F01, b"x")]), 420, "unknown attribute")
    client.allocate(protocol=UDP)
    equal(client.code(ALLOCATE, [transport(UDP)]), 437, "second Allocate")
    equal(client.peer_code(CONNECT, peer), 403, "Connect")
    client.user, client.password = "bob", "builder"
    equal(client.code(REFRESH), 441, "another user")
    client.user, client.password = "alice", "wonderland"
    done(client)
    equal(client.code(REFRESH), 437, "Refresh after the end")


@tap.test("row 37: a message with a wrong FINGERPRINT changes nothing and gets no answer")
def _():
    client = allocated()
    raw = bytearray(client.signed(REFRESH, [lifetime(0)])[0])
    raw[-1] ^= 1
    client.sock.sendall(raw)
    check(client.is_quiet(), "answered")
    check(client.refresh() > 0, "the allocation is gone")
    done(client)


@tap.test("row 17: peers that the policy forbids are 403, and dropped of Send")
def _():
    need_namespaces(lab)
    client = allocated()
    for host in ("127.0.0.1", "224.0.0.1", "0.0.0.0", "255.255.255.255", "169.254.1.1",
                 "10.77.1.255", "10.77.2.0", lab.topo.relay.addr()):
        before = drops()
        if host != lab.topo.relay.addr():  # relayed addresses of the server may be peers
            equal(client.peer_code(CREATE_PERMISSION, (host, 9)), 403, host)
        equal(client.channel_bind_code((host, 9)), 403, host)
        client.sock.sendall(send_message((host, 9), b"x"))
        wait_for(lambda before=before: drops() == before + 1, 5, f"Send to {host} is dropped")
    done(client)


@tap.test("an address that this server gets is refused, one that it loses is not")
def _():
    need_namespaces(lab)
    client, new = allocated(), "10.77.2.99"
    equal(client.channel_bind_code((new, 9)), 0, "while it is nobody's")
    lab.topo.relay.run("ip", "addr", "add", new + "/24", "dev", "topeer")
    try:
        wait_for(lambda: client.peer_code(CREATE_PERMISSION, (new, 9)) == 403, 5, "403")
        before = drops()
        client.sock.sendall(channel_message(b"here", False))
        wait_for(lambda: drops() == before + 1, 5, "ChannelData is dropped")
    finally:
        lab.topo.relay.run("ip", "addr", "del", new + "/24", "dev", "topeer")
    wait_for(lambda: client.peer_code(CREATE_PERMISSION, (new, 9)) == 0, 5, "allowed again")
    done(client)


@tap.test("a retransmitted Allocate is answered alike")
def _():
    client = client_of()
    raw, txid = client.signed(ALLOCATE, [transport(UDP), (stun.EVEN_PORT, b"\x80")])
    answers = []
    for _ in range(3):
        client.sock.sendall(raw)
        answers.append(client.response(txid, ALLOCATE).raw)
    equal(len(set(answers)), 1, "different answers")
    done(client)


@each("data go both ways by indications")
def _(version, tcp):
    client, peer = allocated(version, tcp), peer_of(version)
    address = peer.getsockname()
    client.permit(address[0])
    # An indication has 36 bytes, of IPv6 48, beside the data.
    for size in (0, 1, 3, 4, 1200, 1400, 9000, 65456):
        data = payload(size, size)
        client.sock.sendall(send_message(address, data))
        same(from_relay(peer, client), data, f"{size} bytes to the peer")
        peer.sendto(data, client.relayed)
        same(receive_data(client, address), data, f"{size} bytes to the client")
    done(client)


@each("data go both ways by channel, in order")
def _(version, tcp):
    client, peer = allocated(version, tcp), peer_of(version)
    equal(client.channel_bind_code(peer.getsockname(), CHANNEL), 0)
    sizes = [0, 1, 2, 3, 4, 1200, 1400, 9000] + [1200] * 30 + [1199, 17]
    pieces = [payload(size, n) for n, size in enumerate(sizes)]
    for data in pieces:
        client.sock.sendall(channel_message(data, tcp))
    for n, data in enumerate(pieces):
        same(from_relay(peer, client), data, f"piece {n} to the peer")
    for data in pieces:
        peer.sendto(data, client.relayed)
    for n, data in enumerate(pieces):
        same(receive_channel(client, tcp), data, f"piece {n} to the client")
    for size in (16380, 16381, 40000, 65507 - 4 * (not tcp)):  # with its header it is UDP's most
        data = payload(size, size)
        client.sock.sendall(channel_message(data, tcp))
        same(from_relay(peer, client), data, f"{size} bytes to the peer")
        peer.sendto(data, client.relayed)
        same(receive_channel(client, tcp), data, f"{size} bytes to the client")
    done(client)


@tap.test("peers that lie: another host is dropped, another port is no channel")
def _():
    client, peer = allocated(), peer_of()
    equal(client.channel_bind_code(peer.getsockname(), CHANNEL), 0)
    before = drops()
    with lab.topo.relay.bound(udp=True) as stranger:
        stranger.sendto(b"let me in", client.relayed)
        wait_for(lambda: drops() == before + 1, 5, "the stranger's datagram is dropped")
    other = peer_of()
    other.sendto(struct.pack("!HH", CHANNEL, 4) + b"fake", client.relayed)
    same(receive_data(client, other.getsockname()), struct.pack("!HH", CHANNEL, 4) + b"fake", "it")
    done(client)


def train_of(sock, pieces, *to):
    """All pieces as one message that the kernel cuts: of one length but for the last."""
    size = len(pieces[0])
    check(all(len(one) == size for one in pieces[:-1]) and len(pieces[-1]) <= size, "a train")
    sock.sendmsg([b"".join(pieces)], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", size))],
                 0, *to)


@each("trains are judged one by one")
def trains(version, tcp):
    """What is sent at once is judged one by one: lengths that lie, padding, numbers of nobody."""
    client, peer = allocated(version, tcp), peer_of(version)
    equal(client.channel_bind_code(peer.getsockname()), 0, "ChannelBind")
    for size, last in ((1, 1), (7, 3), (8, 5), (1201, 1200), (1300, 1)):
        pieces = [payload(size, n) for n in range(40)] + [payload(last, 99)]
        train_of(peer, pieces, client.relayed)
        for n, data in enumerate(pieces):
            same(receive_channel(client, tcp), data, f"{n} of a train of {size} bytes each")
    if not tcp:
        head = struct.Struct("!HH")
        train_of(client.sock, [
            head.pack(CHANNEL, 12) + b"x" * 12, head.pack(CHANNEL, 9) + b"y" * 9 + bytes(3),
            head.pack(CHANNEL, 13) + b"z" * 12, head.pack(CHANNEL, 65535) + b"z" * 12,
            head.pack(CHANNEL + 1, 12) + b"z" * 12, b"\xff" * 16, bytes(16),
            head.pack(CHANNEL, 0) + bytes(12), head.pack(CHANNEL, 12) + b"w" * 12,
            head.pack(CHANNEL, 3) + b"end"])
        for data in (b"x" * 12, b"y" * 9, b"", b"w" * 12, b"end"):
            same(peer.recv(65536), data, "what the peer gets of a train")
    done(client)


@tap.test("permissions and channels expire by themselves")
def _():
    changes = changed(limits={"permission_lifetime": "1s", "channel_lifetime": "3s"})
    client, peer = allocated(changes=changes), peer_of()
    address = peer.getsockname()
    equal(client.channel_bind_code(address, CHANNEL), 0)

    def no_permission():
        client.sock.sendall(channel_message(b"x", False))
        return silent(peer, 0.1)
    wait_for(no_permission, 10, "the permission has expired")

    def no_channel():
        client.permit(address[0])
        peer.sendto(b"y", client.relayed)
        return client.sock.recv(2048)[0] & 0xC0 == 0
    wait_for(no_channel, 10, "the channel has expired")
    done(client)


@tap.test("row 40: quota of a user is 486, no ports is 508; both work again afterwards")
def _():
    changes = changed(limits={"allocations_per_user": 1}, relay={"ports": "50100-50100"})
    first, second = client_of(changes=changes), client_of(changes=changes)
    bob = client_of(user="bob", changes=changes)
    first.allocate(protocol=UDP)
    equal(second.code(ALLOCATE, [transport(UDP)]), 486)
    equal(bob.code(ALLOCATE, [transport(UDP)]), 508)
    done(first)
    second.allocate(protocol=UDP)
    done(second)


@tap.test("EVEN-PORT keeps the next port for the bearer of the token, on any worker")
def _():
    for _ in range(4):  # the kernel chooses the worker
        first = client_of()
        response = first.insist(ALLOCATE, [transport(UDP), (stun.EVEN_PORT, b"\x80")])
        port = response.address(stun.XOR_RELAYED_ADDRESS)[1]
        equal(port % 2, 0, "parity")
        token = (stun.RESERVATION_TOKEN, response.get(stun.RESERVATION_TOKEN))
        equal(client_of(user="bob").code(ALLOCATE, [transport(UDP), token]), 508, "of another")
        second = client_of()
        response = second.insist(ALLOCATE, [transport(UDP), token])
        equal(response.address(stun.XOR_RELAYED_ADDRESS)[1], port + 1, "the next port")
        equal(client_of().code(ALLOCATE, [transport(UDP), token]), 508, "twice")
        done(first)
        done(second)


def both_families():
    """Configuration with a relayed address of each family."""
    need_version(lab, 6)
    return changed(relay={"address": f"{lab.topo.relay.addr(4)}, {lab.topo.relay.addr(6)}"})


@each("one allocation has both families, by indications and by channels")
def _(version, tcp):
    client = client_of(version, tcp, changes=both_families())
    relayed = client.allocate_both(protocol=UDP)
    peers = {of: peer_of(of) for of in (4, 6)}
    client.permit(*(peer.getsockname()[0] for peer in peers.values()))
    for of, peer in peers.items():
        client.relayed = relayed[of]
        address, data = peer.getsockname(), payload(1200, of)
        client.sock.sendall(send_message(address, data))
        same(from_relay(peer, client), data, f"to the peer of IPv{of}")
        peer.sendto(data, relayed[of])
        same(receive_data(client, address), data, f"from the peer of IPv{of}")
        equal(client.channel_bind_code(address, CHANNEL + of), 0)
        client.sock.sendall(channel_message(data, tcp, CHANNEL + of))
        same(from_relay(peer, client), data, f"by channel to the peer of IPv{of}")
        peer.sendto(data, relayed[of])
        same(receive_channel(client, tcp, CHANNEL + of), data, f"by channel from it, IPv{of}")
    done(client)


@tap.test("of two families one ends by Refresh, with what it has; the other goes on")
def _():
    server = lab.server(both_families())
    client = client_of(changes=both_families())
    relayed = client.allocate_both(protocol=UDP)
    four, six = peer_of(4), peer_of(6)
    for n, peer in enumerate((four, six)):
        equal(client.channel_bind_code(peer.getsockname(), CHANNEL + n), 0)
    shown = "{}:{},[{}]:{}".format(*relayed[4], *relayed[6])
    check(shown in server.ctl("allocations"), f"no {shown} in the table")
    row = server.ctl_json("allocations")["allocations"][-1]
    equal((row["relayed"], row["additional"]), tuple(shown.split(",")))
    equal(client.refresh(0, turn.family(6)), 0, "lifetime")
    equal(client.code(REFRESH, [turn.family(6)]), 443, "Refresh of what has ended")
    equal(client.peer_code(CREATE_PERMISSION, six.getsockname()[:2]), 443, "permission")
    six.sendto(b"nobody", relayed[6])
    client.sock.sendall(channel_message(b"nobody", False, CHANNEL + 1))
    client.sock.sendall(channel_message(b"still", False))
    client.relayed = relayed[4]
    same(from_relay(four, client), b"still", "by the other channel")
    four.sendto(b"there", relayed[4])
    same(receive_channel(client, False), b"there", "back")
    check(silent(six, 0.05), "the peer of IPv6 got something")
    row = server.ctl_json("allocations")["allocations"][-1]
    equal((row["relayed"], row.get("additional"), row["channels"], row["permissions"]),
          (shown.split(",", 1)[0], None, 1, 1))
    done(client)


@tap.test("a family that the server does not have is named by ADDRESS-ERROR-CODE")
def _():
    need_version(lab, 6)
    for version in (4, 6):
        client = client_of(changes=changed(relay={"address": lab.topo.relay.addr(version)}))
        told = client.allocate_both(protocol=UDP)
        equal(told[10 - version], 440, "of the other family")
        equal(told[version][0], lab.topo.relay.addr(version), "host")
        done(client)
    client = client_of(changes=both_families())
    for attr in (turn.family(4), turn.family(6), (stun.EVEN_PORT, b"\x80"),
                 (stun.RESERVATION_TOKEN, bytes(8))):
        equal(client.code(ALLOCATE, [transport(UDP), turn.BOTH, attr]), 400, f"with {attr}")
    four = (stun.ADDITIONAL_ADDRESS_FAMILY, bytes([1, 0, 0, 0]))
    equal(client.code(ALLOCATE, [transport(UDP), four]), 400, "IPv4 is not what is added")


@tap.test("DONT-FRAGMENT: what fits goes whole, what does not is not sent")
def _():
    need_namespaces(lab)
    client, peer = allocated(attrs=[(stun.DONT_FRAGMENT, b"")]), peer_of()
    address = peer.getsockname()
    client.permit(address[0])
    tapped = lab.keep(Tap(*lab.topo.legs[3]))
    for attrs, want in (([(stun.DONT_FRAGMENT, b"")], True), ([], False)):
        client.sock.sendall(send_message(address, bytes(1400), *attrs))
        same(from_relay(peer, client), bytes(1400), "what fits")
        equal([packet[6] >> 6 & 1 == 1 for packet, outgoing in tapped.packets()
               if not outgoing and packet[0] == 0x45 and packet[9] == socket.IPPROTO_UDP], [want],
              "the DF bits of what was sent")
    before = lab.server(LISTENER).counters()["datagrams_unsent"]
    client.sock.sendall(send_message(address, bytes(3000), (stun.DONT_FRAGMENT, b"")))
    wait_for(lambda: lab.server(LISTENER).counters()["datagrams_unsent"] == before + 1, 5,
             "it is counted")
    check(silent(peer), "it was sent")
    client.sock.sendall(send_message(address, bytes(3000)))
    same(from_relay(peer, client), bytes(3000), "what may be cut")
    done(client)


@tap.test("culvertctl allocations shows both transports, kick ends it")
def _():
    server = lab.server(LISTENER)
    for tcp in (False, True):
        client, peer = allocated(tcp=tcp), peer_of()
        equal(client.channel_bind_code(peer.getsockname(), CHANNEL), 0)
        rows = [row for row in server.ctl_json("allocations")["allocations"]
                if row["relayed"].endswith(f":{client.relayed[1]}")]
        equal(len(rows), 1, "rows")
        equal((rows[0]["client_transport"], rows[0]["transport"]), ("tcp" if tcp else "udp", "udp"))
        equal((rows[0]["channels"], rows[0]["permissions"]), (1, 1))
        server.ctl("kick", rows[0]["id"])
        if not tcp:
            equal(client.code(REFRESH), 437, "Refresh after kick")


@tap.test("garbage and lies over UDP get no answer and leave the server well", 60)
def _():
    client, peer = allocated(), peer_of()
    equal(client.channel_bind_code(peer.getsockname(), CHANNEL), 0)
    stranger = client_of()
    rng = random.Random(8656)
    good = [client.signed(REFRESH)[0], send_message(peer.getsockname(), b"x" * 40),
            channel_message(b"y" * 40, False), stun.Message(ALLOCATE).build(),
            client.peer_message(CHANNEL_BIND, peer.getsockname()[:2]).build(client.key)]
    for n in range(3000):
        raw = bytearray(rng.choice(good))
        for _ in range(rng.randrange(1, 6)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        raw = raw[:rng.randrange(len(raw) + 1)] if n % 3 == 0 else raw
        (client if n % 2 else stranger).sock.send(raw)
        if n % 50 == 0:  # what is answered is read, so that nothing is lost
            for one in (client, stranger):
                while not silent(one.sock, 0.001):
                    pass
    for one in (client, stranger):
        while not silent(one.sock, 0.1):
            pass
    equal(stranger.exchange(stun.Message(stun.BINDING)).code, 0, "Binding afterwards")
    lab.server(LISTENER).health()


tap.main()
