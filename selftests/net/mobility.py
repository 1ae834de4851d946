#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Mobility, RFC 8016: clients that come from another address keep allocation and connections."""

import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import engines, stun, tap, turn  # noqa: E402
from culvertlab.data import KIB, MIB, Worker, payload, ping, receive_slowly  # noqa: E402
from culvertlab.data import same, sender  # noqa: E402
from culvertlab.lab import Lab, need, need_namespaces  # noqa: E402
from culvertlab.server import config_text, merge  # noqa: E402
from culvertlab.stun import ALLOCATE, CONNECT, REFRESH  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.turn import TCP, UDP, ended, lifetime, recv_message  # noqa: E402
from culvertlab.turn import timeout_of, transport  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
MOBILE = {"relay": {"mobility": "yes"}, "server": {"workers": 4}, "listener datagrams": {
    "transport": "udp", "address": f"0.0.0.0:{lab.port}, [::]:{lab.port}"}}
CHANNEL = 0x4001
SECOND = {4: "10.77.1.3", 6: "fd77:1::3"}
ROUNDS = 8  # the kernel chooses the workers: most moves are to another one


def second_address():
    """The client's host has one more address, as it will after the move."""
    need_namespaces(lab)
    node = lab.topo.client
    if len(node.addrs[4]) == 1:
        node.run("ip", "addr", "add", SECOND[4] + "/24", "dev", "uplink")
        node.run("ip", "addr", "add", SECOND[6] + "/64", "dev", "uplink", "nodad")
        node.addrs[4].append(SECOND[4])
        node.addrs[6].append(SECOND[6])


def ticket_attr(ticket=b""):
    return stun.MOBILITY_TICKET, ticket


def made(kind, version=4, protocol=UDP, changes=None, user="alice"):
    """A client of this kind with a mobile allocation: (client, ticket)."""
    second_address()
    server = lab.server(changes or MOBILE)
    client = lab.keep(kind(lab.topo.client, server.address(version), user,
                           {"alice": "wonderland", "bob": "builder"}[user],
                           **({"tls": server.tls} if kind is turn.Control else {})))
    family = [turn.family(6)] if version == 6 else []
    response = client.allocate(ticket_attr(), *family, protocol=protocol)
    return client, response.get(stun.MOBILITY_TICKET)


def elsewhere(client, kind=None, **more):
    """The same client on another 5-tuple, from its host's second address."""
    kind = kind or type(client)
    tls = {"tls": client.tls} if kind is turn.Control else {}
    other = lab.keep(kind(client.node, client.server, client.user, client.password, index=1,
                          **{**tls, **more}))
    if kind is turn.Control:
        other.realm, other.nonce, other.offer = client.realm, client.nonce, client.offer
    other.relayed = client.relayed
    return other


def move(client, ticket, **more):
    """Shows the ticket from elsewhere: (client there, the next ticket)."""
    other = elsewhere(client, **more)
    response = other.insist(REFRESH, [ticket_attr(ticket)])
    return other, response.get(stun.MOBILITY_TICKET)


def channel(data):
    return CHANNEL.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data


def to_peer(client, peer, data):
    client.sock.send(channel(data))
    got, source = peer.recvfrom(65536)
    equal(source[:2], client.relayed, "source")
    same(got, data, "data to the peer")


def to_client(client, peer, data):
    peer.sendto(data, client.relayed)
    same(client.sock.recv(65536), channel(data), "data to the client")


def hears(client, peer, before):
    """The peer's data come to the old address until the new one is used, then to that alone."""
    to_client(before, peer, b"still here")
    to_peer(before, peer, b"was on its way")
    to_peer(client, peer, b"here now")

    def heard():
        peer.sendto(b"where are you?", client.relayed)
        return not silent(client.sock, 0.1)
    wait_for(heard, 5, "the peer's data come to the new address")
    while not silent(client.sock, 0.05) or not silent(before.sock, 0.05):
        pass
    to_client(client, peer, b"there")
    check(silent(before.sock, 0.05), "the old address still gets data")


def silent(sock, seconds=0.2):
    with timeout_of(sock, seconds):
        try:
            return not sock.recv(65536)
        except TimeoutError:
            return True


def udp_moves(version):
    def run():
        for number in range(ROUNDS):
            client, ticket = made(turn.Datagrams, version)
            peer = lab.keep(lab.topo.peer.bound(version, udp=True))
            equal(client.channel_bind_code(peer.getsockname(), CHANNEL), 0)
            for size in range(100, 112):  # enough for the channel to go on wire
                to_peer(client, peer, payload(size, number))
            before = lab.server(MOBILE).counters()["allocations_moved"]
            there, ticket = move(client, ticket)
            equal(lab.server(MOBILE).counters()["allocations_moved"], before + 1, "counted")
            hears(there, peer, client)
            for size in range(1190, 1202):
                to_peer(there, peer, payload(size, number))
                to_client(there, peer, payload(size, -number))
            equal(client.code(REFRESH), 437, "the old address, once the new one is in use")
            check(there.refresh() > 0, "an ordinary Refresh from the new one")
            back, ticket = move(there, ticket)
            hears(back, peer, there)
            equal(back.refresh(0), 0)
            equal(elsewhere(back).code(REFRESH, [ticket_attr(ticket)]), 437, "after the end")
    return run


for _version in (4, 6):
    tap.add(f"UDP: a channel goes on from another address, on any worker (IPv{_version})",
            udp_moves(_version), 60)


def tcp_moves(engine):
    def run():
        changes = {**engines.config(lab, engine), "relay": {"mobility": "yes"}}
        changes.setdefault("server", {})["workers"] = 4
        for broken in (False, True, False, True):
            client, ticket = made(turn.Control, protocol=TCP, changes=changes)
            data, peer, _ = lab.pair(client)
            flood = payload(3 * MIB, 8016)
            reader = Worker(receive_slowly, data)
            writer = sender(peer, flood, fin=True)
            if broken:
                client.reset()
            there, ticket = move(client, ticket)
            same(reader.finish(), flood, "the stream")
            writer.finish()
            check(there.refresh() > 0, "Refresh")
            if not broken:
                client.close()
            ping(*lab.pair(there)[:2])
            ping(*lab.incoming(there))
            data.sendall(b"after the move")
            equal(there.refresh(0), 0)
    return run


for _engine in ("splice", "tls"):
    tap.add(f"TCP: data connections survive a move of the control connection ({_engine})",
            tcp_moves(_engine), 60)


@tap.test("a UDP allocation moves from datagrams to a connection and back")
def _():
    for _ in range(ROUNDS):
        client, ticket = made(turn.Datagrams)
        there, ticket = move(client, ticket, kind=turn.Control)
        check(there.refresh() > 0, "over TCP")
        equal(client.code(REFRESH), 437, "the old address")
        back, ticket = move(there, ticket, kind=turn.Datagrams)
        equal(back.refresh(0), 0)


@tap.test("an answer that was lost is given again, with a ticket that is good")
def _():
    for kind, protocol in ((turn.Datagrams, UDP), (turn.Control, TCP)):
        for _ in range(ROUNDS // 2):
            client, ticket = made(kind, protocol=protocol)
            there = elsewhere(client)
            there.challenge(REFRESH)
            raw, txid = there.signed(REFRESH, [ticket_attr(ticket)])
            for _ in range(3):
                there.sock.send(raw)
                response = there.response(txid, REFRESH)
                equal(response.code, 0, "code")
            check(client.refresh() > 0, "the old address, while the new one is not in use")
            back, _ = move(there, response.get(stun.MOBILITY_TICKET))
            equal(back.refresh(0), 0)


@tap.test("tickets: used ones, forged ones and cut ones are 400, other users' 441")
def _():
    client, ticket = made(turn.Datagrams)
    there, fresh = move(client, ticket)
    equal(elsewhere(client).code(REFRESH, [ticket_attr(ticket)]), 400, "a used one")
    equal(there.code(REFRESH, [ticket_attr(fresh)]), 400, "from where the allocation is")
    for at in range(0, len(fresh), 3):
        forged = fresh[:at] + bytes([fresh[at] ^ 1]) + fresh[at + 1:]
        equal(elsewhere(client).code(REFRESH, [ticket_attr(forged)]), 400, f"byte {at} changed")
    for wrong in (b"", b"x", fresh[:-1], fresh + b"x", bytes(len(fresh))):
        equal(elsewhere(client).code(REFRESH, [ticket_attr(wrong)]), 400, wrong.hex())
    thief = elsewhere(client)
    thief.user, thief.password = "bob", "builder"
    moved = lab.server(MOBILE).counters()["allocations_moved"]
    equal(thief.code(REFRESH, [ticket_attr(fresh)]), 441, "another user")
    equal(lab.server(MOBILE).counters()["allocations_moved"], moved, "moved by another user")
    stranger = elsewhere(client)
    response = stranger.exchange(stun.Message(REFRESH, attrs=[ticket_attr(fresh)]))
    equal(response.code, 401, "without credentials")
    other, other_ticket = made(turn.Datagrams)
    equal(other.code(REFRESH, [ticket_attr(fresh)]), 400, "who has an allocation already")
    check(there.refresh() > 0 and other.refresh() > 0, "both are as they were")
    check(ticket != fresh and fresh != other_ticket, "tickets are alike")
    equal(made(turn.Datagrams)[0].code(ALLOCATE, [transport(UDP), ticket_attr(fresh)]), 437,
          "Allocate with one, on an allocation")
    blank = elsewhere(client)
    equal(blank.code(ALLOCATE, [transport(UDP), ticket_attr(fresh)]), 400, "Allocate with one")


@tap.test("without mobility the request is 405; who does not ask has no ticket")
def _():
    second_address()
    client = lab.client(changes={})
    equal(client.code(ALLOCATE, [transport(), ticket_attr()]), 405)
    client.allocate()
    client = lab.client(changes=MOBILE)
    check(client.allocate().get(stun.MOBILITY_TICKET) is None, "a ticket nobody asked for")
    client.close()
    tcp, ticket = made(turn.Control, protocol=TCP)
    equal(elsewhere(tcp, kind=turn.Datagrams).code(REFRESH, [ticket_attr(ticket)]), 403,
          "a TCP allocation to datagrams")


@tap.test("an allocation is not moved from TLS to a plain connection")
def _():
    plain = lab.topo.relay.free_port()
    changes = {**engines.config(lab, "tls"), "relay": {"mobility": "yes"},
               "listener plain": {"address": f"0.0.0.0:{plain}"}}
    client, ticket = made(turn.Control, protocol=TCP, changes=changes)
    there = lab.keep(turn.Control(client.node, (client.server[0], plain), index=1))
    equal(there.code(REFRESH, [ticket_attr(ticket)]), 403)
    move(client, ticket)


@tap.test("a mobile allocation outlives its connection, to the end of its lifetime")
def _():
    changes = {**MOBILE, "limits": {"default_lifetime": "2s", "max_lifetime": "60s"}}
    client, _ = made(turn.Control, protocol=TCP, changes=changes)
    data, peer, _ = lab.pair(client)
    client.reset()
    ping(data, peer)
    late = lab.keep(lab.topo.peer.connect(client.relayed, 1))
    equal(ended(late, 5), "fin", "a peer without permission, meanwhile")
    equal(lab.server(changes).counters()["allocations"], 1, "allocations, meanwhile")
    check(ended(data, 10) in ("fin", "rst"), "the data connection at the end")
    wait_for(lambda: lab.server(changes).counters()["allocations"] == 0, 5, "it ends")


@tap.test("what is under way when the connection breaks is nobody's trouble")
def _():
    changes = {**MOBILE, "limits": {"connect_timeout": "1s", "bind_timeout": "1s"}}
    client, ticket = made(turn.Control, protocol=TCP, changes=changes)
    client.permit(lab.topo.peer.addr())
    client.connect_start(("10.77.9.9", 9))
    client.reset()
    peer = lab.keep(lab.topo.peer.connect(client.relayed))
    equal(ended(peer, 5), "fin", "a peer that nobody can be told of")
    there, _ = move(client, ticket)
    equal(there.peer_code(CONNECT, (lab.topo.peer.addr(), 9)), 447, "Connect afterwards")


@tap.test("a listener that goes away takes clients in the middle of a move with it")
def _():
    second_address()
    server = lab.server(MOBILE, fresh=True)
    clients = [made(turn.Datagrams) for _ in range(ROUNDS)]
    moved = [move(*one) for one in clients]
    kept, ticket = made(turn.Control)
    there, _ = move(kept, ticket)
    server.write_config(config_text(merge(server.sections, {"listener datagrams": None})))
    equal(server.reload(), "reloaded")
    equal(server.counters()["allocations"], 1, "allocations left")
    check(there.refresh() > 0, "the one over TCP")
    for client, _ in moved:
        client.sock.close()
    lab.stop_server()


@tap.test("turnutils_uclient with mobility loses nothing", 70)
def _():
    need("turnutils_uclient", "coturn")
    server = lab.server(MOBILE)
    host, port = server.address()
    before = server.counters()["allocations_moved"]
    argv = ["turnutils_uclient", "-M", "-y", "-u", "alice", "-w", "wonderland", "-p", port,
            "-m", 3, "-n", 20, "-l", 1000, host]
    process = lab.spawn(lab.topo.client, argv, "uclient")
    equal(process.wait(30), 0, f"status, said {(process.out() + process.err())[-600:]}")
    check("Total lost packets 0 " in process.out() + process.err(), process.out()[-400:])
    check(server.counters()["allocations_moved"] > before, "nothing has moved")


@tap.test("10 KiB datagrams through a detour, and more of them than it takes")
def _():
    before = lab.server(MOBILE).counters()["allocations"]
    for _ in range(ROUNDS):
        client, ticket = made(turn.Datagrams)
        peer = lab.keep(lab.topo.peer.bound(udp=True))
        equal(client.channel_bind_code(peer.getsockname(), CHANNEL), 0)
        there, _ = move(client, ticket)
        to_peer(there, peer, payload(10 * KIB, 1))
        for _ in range(3000):
            there.sock.send(channel(b"flood"))
        while not silent(peer, 0.05):
            pass
        to_peer(there, peer, b"well")
        equal(there.refresh(0), 0)
    equal(lab.server(MOBILE).counters()["allocations"], before, "allocations left")


def codes_of(client, count):
    """{transaction: error code} of the next answers; those of two workers come in any order."""
    answers = [recv_message(client.sock) for _ in range(count)]
    return {answer.txid: answer.code for answer in answers}


@tap.test("a 5-tuple with a detour takes another allocation over, of any worker")
def _():
    for _ in range(3 * ROUNDS):
        first, first_ticket = made(turn.Datagrams)
        second, second_ticket = made(turn.Datagrams)
        there, _ = move(first, first_ticket)
        end, end_txid = there.signed(REFRESH, [lifetime(0)])
        move_on, move_txid = there.signed(REFRESH, [ticket_attr(second_ticket)])
        for _ in range(40):  # the two behind them come in one batch, before the detour ends
            there.sock.send(b"busy")
        there.sock.send(end)
        there.sock.send(move_on)
        equal(codes_of(there, 2), {end_txid: 0, move_txid: 0}, "codes of the end and of the ticket")
        there.relayed = second.relayed
        peer = lab.keep(lab.topo.peer.bound(udp=True))
        equal(there.channel_bind_code(peer.getsockname(), CHANNEL), 0)
        to_peer(there, peer, b"there")
        to_client(there, peer, b"and back")
        equal(there.refresh(0), 0)


@tap.test("a new allocation right after the end of the old one, through a detour, is kept")
def _():
    before = lab.server(MOBILE).counters()["allocations"]
    for _ in range(3 * ROUNDS):
        client, ticket = made(turn.Datagrams)
        there, _ = move(client, ticket)
        check(there.refresh() > 0, "it is kept")
        end, end_txid = there.signed(REFRESH, [lifetime(0)])
        begin, begin_txid = there.signed(ALLOCATE, [transport(UDP)])
        there.sock.send(end)
        there.sock.send(begin)
        equal(codes_of(there, 2), {end_txid: 0, begin_txid: 0}, "codes of the end and of Allocate")
        check(there.refresh() > 0, "the new one")
        equal(there.refresh(0), 0)
        client.sock.close()
        there.sock.close()
    equal(lab.server(MOBILE).counters()["allocations"], before, "allocations left")


tap.main()
