#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Exact answers: what the server says to every case RFC 6062, 8656 and 8489 describe.

Rows are numbered as in the design's table; those that need datagrams are in udp.py, 28 is in
tls.py. The first test finds a test for each.
"""

import contextlib
import glob
import os
import re
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import stun, tap, turn  # noqa: E402
from culvertlab.data import (KIB, MIB, Worker, payload, ping, receive, receive_slowly,  # noqa: E402
                             receive_to_end, reset, same, send_all, send_until_blocked, sender,
                             toward)
from culvertlab.lab import Lab, need_namespaces, need_version  # noqa: E402
from culvertlab.stun import (ALLOCATE, CONNECT, CONNECTION_BIND, CREATE_PERMISSION,  # noqa: E402
                             REFRESH, SEND)
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.turn import elapsed, ended, family, lifetime, recv_message, transport  # noqa: E402
from culvertlab.turn import u32  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
FAST = {"limits": {"bind_timeout": "1s", "connect_timeout": "2s", "permission_lifetime": "2s"}}
ROWS = 41
BLACK_HOLE = {4: "10.77.9.9", 6: "fd77:9::9"}


def row(name, timeout=30):
    """A test on IPv4."""
    return tap.test(name, timeout)


def row_both(name, timeout=30):
    """A test run on IPv4 and again on IPv6; the function takes the version."""
    def register(function):
        def on_six():
            need_version(lab, 6)
            function(6)
        tap.add(name, lambda: function(4), timeout)
        tap.add(f"{name} (IPv6)", on_six, timeout)
        return function
    return register


def refused_port(version):
    """An address at the peer where nobody listens."""
    with contextlib.closing(lab.topo.peer.bound(version)) as sock:
        return sock.getsockname()[:2]


@row("every row of the table has a test that is named for it")
def _():
    found = set()
    for path in glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "*.py")):
        with open(path, encoding="utf-8") as file:
            for names in re.findall(r'"rows? (\d+(?:, \d+)*):', file.read()):
                found.update(map(int, names.split(", ")))
    equal(sorted(set(range(1, ROWS + 1)) - found), [], "rows without a test")


# Slow ones with the defaults of the RFC start first and are looked at in the end.

class Defaults:
    """A server with default timeouts, a Connect into nowhere and a bind that never comes."""

    def __init__(self):
        self.server = lab.extra_server({"listener main": {
            "address": "0.0.0.0:3500, [::]:3500"}}, port=3500)
        self.client = turn.Control(lab.topo.client, self.server.address())
        self.client.allocate()
        self.listener = lab.topo.peer.listen()
        self.client.connect(self.listener.getsockname())
        self.peer, _ = self.listener.accept()
        self.unbound = Worker(elapsed, ended, self.peer, 60)
        txid = self.client.connect_start((BLACK_HOLE[4], 9))
        self.client.sock.settimeout(60)
        self.answer = Worker(elapsed, self.client.response, txid)


defaults = {}


@row("defaults for rows 11 and 29: started in the background")
def start_defaults():
    need_namespaces(lab)
    defaults["it"] = Defaults()


@row("row 2: EVEN-PORT, DONT-FRAGMENT or RESERVATION-TOKEN is 400")
def _():
    client = lab.client()
    for kind, value in ((stun.EVEN_PORT, b"\0"), (stun.EVEN_PORT, b"\x80"),
                        (stun.DONT_FRAGMENT, b""), (stun.RESERVATION_TOKEN, bytes(8))):
        equal(client.code(ALLOCATE, [transport(), (kind, value)]), 400, f"with {kind:#x}")
    client.allocate()


@row("row 3: a transport that is neither TCP nor UDP is 442, none or a malformed one is 400")
def _():
    client = lab.client()
    for protocol in (0, 1, 7, 132, 255):
        equal(client.code(ALLOCATE, [transport(protocol)]), 442, f"transport {protocol}")
    equal(client.code(ALLOCATE, []), 400, "no REQUESTED-TRANSPORT")
    equal(client.code(ALLOCATE, [(stun.REQUESTED_TRANSPORT, b"\6")]), 400, "one byte long")
    client.allocate()


@row("row 4: UDP relaying is forbidden by policy: 403")
def _():
    client = lab.client(changes={"relay": {"udp": "no"}})
    equal(client.code(ALLOCATE, [transport(turn.UDP)]), 403)
    client.allocate()


@row_both("row 5: a second Allocate on the 5-tuple is 437")
def _(version):
    client = lab.allocated(version)
    equal(client.code(ALLOCATE, [transport()]), 437)
    client.refresh()


@row("row 6: an unknown comprehension-required attribute is 420 with the list of them")
def _():
    client = lab.client()
    odd = [(0x7F01, b"x"), (0x7F02, b""), (0xBFFF, b"optional")]
    response = client.request(ALLOCATE, [transport(), *odd])
    equal(response.code, 420)
    equal(sorted(response.unknown), [0x7F01, 0x7F02], "UNKNOWN-ATTRIBUTES")
    client.allocate((0xBFFF, b"optional"))
    equal(client.code(REFRESH, [(0x7F01, b"x")]), 420, "Refresh")


@row_both("row 7: Connect, CreatePermission and Refresh without allocation are 437")
def _(version):
    client = lab.client(version)
    peer = (lab.topo.peer.addr(version), 9)
    equal(client.peer_code(CONNECT, peer), 437, "Connect")
    equal(client.peer_code(CREATE_PERMISSION, peer), 437, "CreatePermission")
    equal(client.code(REFRESH), 437, "Refresh")


@row_both("row 8: Connect on a UDP allocation is 403, over a connection, too")
def _(version):
    client = lab.client(version)
    client.allocate(*([family(6)] if version == 6 else []), protocol=turn.UDP)
    equal(client.peer_code(CONNECT, refused_port(version)), 403)
    check(client.refresh() > 0, "the allocation is gone")


@row("row 9: Connect without or with a malformed XOR-PEER-ADDRESS is 400")
def _():
    client = lab.allocated()
    equal(client.code(CONNECT), 400, "none")
    for value in (b"", b"\0\1\2\3", b"\0\1" + bytes(8), b"\0\2" + bytes(6), b"\0\1" + bytes(18),
                  b"\0\7" + bytes(6), b"\0\0" + bytes(6)):
        equal(client.code(CONNECT, [(stun.XOR_PEER_ADDRESS, value)]), 400, value.hex())
        equal(client.code(CREATE_PERMISSION, [(stun.XOR_PEER_ADDRESS, value)]), 400, value.hex())
    equal(client.code(CREATE_PERMISSION), 400, "CreatePermission without any")


@row_both("row 10: a peer that refuses is 447 at once")
def _(version):
    client = lab.allocated(version)
    code, took = elapsed(client.peer_code, CONNECT, refused_port(version))
    equal(code, 447)
    within(took, 0, 2, "seconds")
    lab.pair(client, version)


@row_both("row 11: a peer that does not answer is 447 after connect_timeout")
def _(version):
    need_namespaces(lab)
    client = lab.allocated(version, changes=FAST)
    code, took = elapsed(client.peer_code, CONNECT, (BLACK_HOLE[version], 9))
    equal(code, 447)
    within(took, 1.9, 5, "seconds")


@row_both("row 12: a duplicate Connect in flight is 446 at once, the control connection lives on")
def _(version):
    need_namespaces(lab)
    client = lab.allocated(version, changes=FAST)
    client.connect_start((BLACK_HOLE[version], 9))
    code, took = elapsed(client.peer_code, CONNECT, (BLACK_HOLE[version], 9))
    equal(code, 446)
    within(took, 0, 0.5, "seconds")
    within(client.refresh(), 1, 3600, "lifetime while a Connect is in flight")
    listener = lab.listener(version)
    client.connect(listener.getsockname())
    lab.accept(listener)


@row_both("row 13: a duplicate Connect to a pending or bound peer is 446, after its end fine")
def _(version):
    client = lab.allocated(version)
    listener = lab.listener(version)
    address = listener.getsockname()
    cid = client.connect(address)
    peer = lab.accept(listener)
    equal(client.peer_code(CONNECT, address[:2]), 446, "pending")
    data = lab.keep(client.bind(cid))
    equal(client.peer_code(CONNECT, address[:2]), 446, "bound")
    ping(data, peer)
    peer.close()
    equal(ended(data), "fin")
    data.close()
    wait_for(lambda: client.peer_code(CONNECT, address[:2]) == 0, 10, "Connect works again")


@row("row 14: Connect without permission succeeds; require_permission makes it 403")
def _():
    data, peer, _ = lab.pair()
    ping(data, peer)
    strict = lab.allocated(changes={"peers": {"require_permission": "yes"}})
    listener = lab.listener()
    equal(strict.peer_code(CONNECT, listener.getsockname()), 403, "without permission")
    strict.permit(lab.topo.peer.addr())
    strict.connect(listener.getsockname())


@row_both("row 15: peers see the relayed address and port, two of them at once")
def _(version):
    client = lab.allocated(version)
    pairs = []
    for index in (0, 1):
        listener = lab.listener(version, index)
        cid = client.connect(listener.getsockname())
        peer, source = listener.accept()
        equal(source[:2], client.relayed, f"source seen by peer {index}")
        pairs.append((lab.keep(client.bind(cid)), lab.keep(peer)))
    for data, peer in pairs:
        ping(data, peer)


@row("row 15: a configured relay address and port range is used in both directions")
def _():
    need_namespaces(lab)
    changes = {"relay": {"address": "10.77.2.1, fd77:2::1", "ports": "51000-51009"}}
    client = lab.allocated(changes=changes)
    equal(client.relayed[0], "10.77.2.1", "relayed address")
    within(client.relayed[1], 51000, 51009, "relayed port")
    data, peer, _ = lab.pair(client)
    equal(peer.getpeername(), client.relayed, "source seen by the peer")
    ping(data, peer)
    ping(*lab.incoming(client))


@row_both("row 16: a peer of the other address family is 443")
def _(version):
    client = lab.allocated(version)
    other = ("10.77.2.2" if version == 6 else "fd77:2::2", 9)
    equal(client.peer_code(CONNECT, other), 443, "Connect")
    equal(client.peer_code(CREATE_PERMISSION, other), 443, "CreatePermission")


FORBIDDEN4 = ["127.0.0.1", "127.255.255.254", "169.254.0.1", "169.254.169.254", "224.0.0.1",
              "239.255.255.255", "0.0.0.0", "0.1.2.3", "255.255.255.255", "10.77.1.1", "10.77.2.1"]
FORBIDDEN6 = ["::1", "::", "fe80::1", "febf::1", "ff02::1", "ff0e::1", "fd77:1::1", "fd77:2::1"]


def spellings(address):
    """Every way to write an IPv4 address as an IPv6 one."""
    raw = socket.inet_aton(address)
    inverted = bytes(b ^ 0xFF for b in raw)
    forms = {
        "mapped ::ffff:0:0/96": bytes(10) + b"\xff\xff" + raw,
        "compatible ::/96": bytes(12) + raw,
        "6to4 2002::/16": b"\x20\x02" + raw + bytes(10),
        "Teredo client 2001::/32": b"\x20\x01\0\0" + bytes([192, 0, 2, 1]) + bytes(4) + inverted,
        "Teredo server 2001::/32": b"\x20\x01\0\0" + raw + bytes(4)
                                   + bytes(b ^ 0xFF for b in (10, 77, 2, 2)),
        "NAT64 64:ff9b::/96": b"\0\x64\xff\x9b" + bytes(8) + raw,
        "local NAT64 64:ff9b:1::/48, /96 layout": b"\0\x64\xff\x9b\0\1" + bytes(6) + raw,
        "local NAT64 64:ff9b:1::/48, /48 layout": b"\0\x64\xff\x9b\0\1" + raw[:2] + b"\0" + raw[2:]
                                                  + bytes(5),
        "translated ::ffff:0:0:0/96": bytes(8) + b"\xff\xff\0\0" + raw,
        "ISATAP fd77:2::5efe:0:0": b"\xfd\x77\0\2" + bytes(6) + b"\x5e\xfe" + raw,
    }
    return {name: socket.inet_ntop(socket.AF_INET6, form) for name, form in forms.items()}


def forbid(client, address, name=""):
    for method, label in ((CONNECT, "Connect"), (CREATE_PERMISSION, "CreatePermission")):
        equal(client.peer_code(method, (address, 80)), 403, f"{label} {address} {name}")


def forbid_channels(version, addresses):
    """Of a UDP allocation, where a channel to an allowed peer is bound."""
    client = lab.client(version)
    client.allocate(*([family(6)] if version == 6 else []), protocol=turn.UDP)
    for address in addresses:
        equal(client.channel_bind_code((address, 80)), 403, f"ChannelBind {address}")
    equal(client.channel_bind_code((lab.topo.peer.addr(version), 80)), 0, "an allowed peer")


@row("row 17: forbidden IPv4 peers are 403 on Connect, CreatePermission and ChannelBind")
def _():
    need_namespaces(lab)
    client = lab.allocated()
    for address in FORBIDDEN4:
        forbid(client, address)
    forbid_channels(4, FORBIDDEN4)
    check(client.refresh() > 0, "the allocation lives on")


@row("row 17: forbidden IPv6 peers are 403")
def _():
    need_namespaces(lab)
    client = lab.allocated(6)
    for address in FORBIDDEN6:
        forbid(client, address)
    forbid_channels(6, FORBIDDEN6)


def forbid_spelling(name):
    need_namespaces(lab)
    client = lab.allocated(6)
    for address in ("127.0.0.1", "169.254.169.254", "10.77.1.1", "0.0.0.0", "224.0.0.1"):
        forbid(client, spellings(address)[name], f"for {address}")


for _name in list(spellings("127.0.0.1"))[:8]:
    tap.add(f"row 17: forbidden IPv4 peers spelled as {_name} are 403",
            lambda name=_name: forbid_spelling(name))


@row("row 17: a peer that is allowed in IPv4 is no peer when written as a mapped address")
def _():
    need_namespaces(lab)
    client = lab.allocated(6)
    forbid(client, "::ffff:10.77.2.2")
    lab.pair(client, 6)


@row("row 17: a mapped address cannot slip past peers deny")
def _():
    need_namespaces(lab)
    changes = {"peers": {"deny": "10.77.2.3, fd77:2::3"}}
    client = lab.allocated(6, changes=changes)
    for address in spellings("10.77.2.3").values():
        if address.startswith("fd77") or address.startswith("::ffff:0:"):
            continue
        forbid(client, address)
    forbid(client, "fd77:2::3")
    forbid(lab.allocated(), "10.77.2.3")
    lab.pair(version=6)


@row("row 17: peers allow makes exceptions, deny refuses more")
def _():
    need_namespaces(lab)
    changes = {"peers": {"allow": "127.0.0.5, ::1", "deny": "10.77.2.0/24"}}
    client = lab.allocated(changes=changes)
    forbid(client, "10.77.1.255", "broadcast address of a network of this server's")
    equal(client.peer_code(CONNECT, ("127.0.0.5", 9)), 447, "allowed loopback address")
    forbid(client, "127.0.0.6")
    forbid(client, "10.77.2.2", "denied prefix")
    equal(lab.allocated(6).peer_code(CONNECT, ("::1", 9)), 447, "allowed ::1")
    changes = {"peers": {"allow": "10.77.2.2", "deny": "10.77.2.0/24"}}
    lab.pair(changes=changes)


def relay_to_relay(version):
    left, right = lab.allocated(version), lab.allocated(version, user="bob")
    right.permit(left.relayed[0])
    return left, right


@row_both("row 17: a relayed address of this very server is an allowed peer")
def _(version):
    left, right = relay_to_relay(version)
    cid = left.connect(right.relayed)
    other, seen = right.attempt()
    equal(seen, left.relayed, "peer address")
    ping(left.bind(cid), right.bind(other))


@row("row 17: [peers] relayed = no refuses it")
def _():
    need_namespaces(lab)
    left = lab.allocated(changes={"peers": {"relayed": "no"}})
    right = lab.allocated(user="bob")
    equal(left.peer_code(CONNECT, right.relayed), 403)


@row_both("row 18: incoming without permission is accepted, closed at once, not indicated")
def _(version):
    client = lab.allocated(version)
    client.permit(lab.topo.peer.addr(version, 1))
    if not lab.topo.isolated and version == 6:
        raise tap.Skip("loopback has one IPv6 address")
    peer = lab.keep(lab.topo.peer.connect(client.relayed))
    equal(ended(peer, 3), "fin")
    check(client.is_quiet(), "an indication came")


@row_both("row 19: incoming where the permission names another port is a ConnectionAttempt")
def _(version):
    client = lab.allocated(version)
    equal(client.peer_code(CREATE_PERMISSION, (lab.topo.peer.addr(version), 1)), 0)
    peer = lab.keep(lab.topo.peer.connect(client.relayed))
    cid, seen = client.attempt()
    equal(seen, peer.getsockname()[:2], "XOR-PEER-ADDRESS")
    ping(client.bind(cid), peer)


@row_both("row 20: small data before the bind comes after the success response")
def _(version):
    client = lab.allocated(version)
    listener = lab.listener(version)
    cid = client.connect(listener.getsockname())
    peer = lab.accept(listener)
    peer.sendall(b"220 banner\r\n")
    data = lab.keep(client.bind(cid))
    same(receive(data, 12), b"220 banner\r\n", "banner")
    ping(data, peer)


@row_both("row 21: any amount of data before the bind is held back, nothing is lost", 40)
def _(version):
    client = lab.allocated(version)
    listener = lab.listener(version)
    cid = client.connect(listener.getsockname())
    peer = lab.accept(listener)
    flood = payload(20 * MIB, 21)
    before = send_until_blocked(peer, flood)
    check(before < len(flood), f"no back-pressure: {before} bytes went before the bind")
    data = lab.keep(client.bind(cid))
    job = sender(peer, flood[before:], fin=True)
    same(receive_to_end(data), flood, "stream")
    job.finish()


@row_both("row 22: bytes pipelined behind ConnectionBind are forwarded")
def _(version):
    for size in (1, 1000, 100 * KIB):
        early = payload(size)
        data, peer, client = lab.pair(version=version, early=early)
        same(receive(peer, size), early, f"{size} pipelined bytes")
        ping(data, peer)
        client.close()


@row_both("row 23: ConnectionBind without credentials is 401 with a nonce; the retry succeeds")
def _(version):
    client = lab.allocated(version)
    listener = lab.listener(version)
    cid = client.connect(listener.getsockname())
    peer = lab.accept(listener)
    data = lab.keep(turn.Control(lab.topo.client, client.server))
    data.challenge(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(cid))])
    data.insist(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(cid))])
    ping(data.sock, peer)


@row_both("row 24: another user's ConnectionBind is refused, the owner's succeeds")
def _(version):
    client = lab.allocated(version)
    listener = lab.listener(version)
    cid = client.connect(listener.getsockname())
    peer = lab.accept(listener)
    thief = lab.client(version, user="bob")
    check(thief.bind_code(cid) in (401, 441), "the thief was not refused")
    ping(lab.keep(client.bind(cid)), peer)


@row("row 25: ConnectionBind with an unknown, missing, malformed or bound identifier is 400")
def _():
    client = lab.allocated()
    for cid in (0, 1, 0xFFFFFFFF, 0x12345678):
        equal(client.bind_code(cid), 400, f"identifier {cid:#x}")
    for attrs in ([], [(stun.CONNECTION_ID, b"")], [(stun.CONNECTION_ID, bytes(8))]):
        with contextlib.closing(client.other()) as twin:
            equal(twin.code(CONNECTION_BIND, attrs), 400, f"attributes {attrs}")
    listener = lab.listener()
    cid = client.connect(listener.getsockname())
    peer = lab.accept(listener)
    data = lab.keep(client.bind(cid))
    equal(client.bind_code(cid), 400, "already bound")
    ping(data, peer)


@row("row 25: after a 400 the same connection may bind the right identifier")
def _():
    client = lab.allocated()
    listener = lab.listener()
    cid = client.connect(listener.getsockname())
    data = lab.keep(client.other())
    equal(data.code(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(cid ^ 1))]), 400)
    data.insist(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(cid))])
    ping(data.sock, lab.accept(listener))


@row("row 25: a wrong ConnectionBind and the right one behind it, with data, across workers")
def _():
    client = lab.allocated(changes={"server": {"workers": 4}})
    for number in range(24):
        listener = lab.listener()
        cid = client.connect(listener.getsockname())
        wrong = (cid + (number % 4 << 26) & 0xFFFFFFF) ^ 1
        early = payload(5000, number)
        bind = [client.signed(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(i))])
                for i in (wrong, cid)]
        data = lab.keep(lab.topo.client.connect(client.server))
        data.sendall(bind[0][0] + bind[1][0] + early)
        equal(recv_message(data).code, 400, "wrong identifier")
        equal(recv_message(data).code, 0, "right identifier")
        peer = lab.accept(listener)
        same(receive(peer, len(early)), early, "bytes behind both")
        ping(data, peer)
        for sock in (data, peer, listener):
            sock.close()


@row_both("row 26: ConnectionBind on the control connection is 400, the identifier stays good")
def _(version):
    client = lab.allocated(version)
    listener = lab.listener(version)
    cid = client.connect(listener.getsockname())
    equal(client.code(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(cid))]), 400)
    ping(lab.keep(client.bind(cid)), lab.accept(listener))


@row_both("row 29: a connection not bound within bind_timeout is closed, its identifier is gone")
def _(version):
    client = lab.allocated(version, changes=FAST)
    listener = lab.listener(version)
    cid = client.connect(listener.getsockname())
    peer = lab.accept(listener)
    how, took = elapsed(ended, peer, 5)
    equal(how, "fin", "outgoing")
    within(took, 0.7, 3, "seconds")
    equal(client.bind_code(cid), 400, "late bind")
    client.permit(lab.topo.peer.addr(version))
    peer = lab.keep(lab.topo.peer.connect(client.relayed))
    cid, _ = client.attempt()
    equal(ended(peer, 5), "fin", "incoming")
    equal(client.bind_code(cid), 400, "late bind of an incoming connection")
    client.refresh()


def pairs_each_way(client, version):
    """One pair by Connect and one by ConnectionAttempt."""
    return [lab.pair(client, version)[:2], lab.incoming(client, 1, version)]


def all_closed(pairs, what):
    for data, peer in pairs:
        check(ended(data, 5) in ("fin", "rst"), f"{what}: the client's leg is open")
        check(ended(peer, 5) in ("fin", "rst"), f"{what}: the peer's leg is open")


def port_is_closed(address):
    try:
        lab.topo.peer.connect(address, timeout=2).close()
        return False
    except ConnectionRefusedError:
        return True


@row_both("row 30: Refresh 0 closes every data connection and the relayed port")
def _(version):
    client = lab.allocated(version)
    pairs = pairs_each_way(client, version)
    equal(client.refresh(0), 0, "lifetime")
    all_closed(pairs, "Refresh 0")
    wait_for(lambda: port_is_closed(client.relayed), 5, "relayed port closed")
    equal(client.code(REFRESH), 437, "Refresh afterwards")


@row_both("row 30: expiry closes every data connection, both legs")
def _(version):
    changes = {"limits": {"default_lifetime": "2s", "max_lifetime": "2s"}}
    client = lab.allocated(version, changes=changes)
    start = time.monotonic()
    pairs = pairs_each_way(client, version)
    ping(*pairs[0])
    all_closed(pairs, "expiry")
    within(time.monotonic() - start, 1.5, 5, "seconds until expiry")
    check(port_is_closed(client.relayed), "the relayed port still accepts")


def control_ends(version, how):
    client = lab.allocated(version)
    pairs = pairs_each_way(client, version)
    pending = lab.listener(version)
    client.connect(pending.getsockname())
    waiting = lab.accept(pending)
    how(client)
    all_closed(pairs, "control connection ended")
    equal(ended(waiting, 5), "fin", "pending peer connection")
    wait_for(lambda: port_is_closed(client.relayed), 5, "relayed port closed")


@row_both("row 30: closing the control connection closes every data connection")
def _(version):
    control_ends(version, turn.Control.close)


@row_both("row 30: resetting the control connection closes every data connection")
def _(version):
    control_ends(version, turn.Control.reset)


@row_both("row 31: the sender writes MiBs and closes at once: every byte, then FIN", 60)
def _(version):
    sent = payload(6 * MIB, 31)
    for whom in ("peer", "client"):
        data, peer, client = lab.pair(version=version, rcvbuf=64 * KIB, peer_rcvbuf=64 * KIB)
        source, sink = toward(whom, data, peer)
        reader = Worker(receive_slowly, sink)
        send_all(source, sent)
        source.close()
        same(reader.finish(), sent, f"stream to the {whom}")
        client.close()


@row_both("row 32: after the client's half-close the answer still comes through")
def _(version):
    data, peer, _ = lab.pair(version=version)
    send_all(data, b"request", fin=True)
    same(receive_to_end(peer), b"request", "request")
    answer = payload(2 * MIB, 32)
    job = sender(peer, answer, fin=True)
    same(receive_to_end(data), answer, "answer")
    job.finish()


@row("row 33: ChannelBind on a TCP allocation is 403, a Send indication is dropped")
def _():
    client = lab.allocated()
    listener = lab.listener()
    address = listener.getsockname()
    client.permit(address[0])
    for number in (0x4000, 0x4FFF, 0x7FFF):
        equal(client.channel_bind_code(address, number), 403, f"channel {number:#x}")
    send = stun.Message(SEND, stun.INDICATION, [(stun.DATA, b"dropped")])
    send.attrs.insert(0, (stun.XOR_PEER_ADDRESS, stun.xor_address(address, send.txid)))
    client.sock.sendall(send.build())
    check(client.is_quiet(), "Send was answered")
    listener.settimeout(0.2)
    try:
        listener.accept()
        raise tap.Fail("Send opened a connection to the peer")
    except TimeoutError:
        pass
    client.refresh()


@row("row 34: a stale nonce is 438 with nonce and realm, the new one works")
def _():
    client = lab.allocated(changes={"limits": {"nonce_lifetime": "1s"}})
    old = client.nonce

    def stale():
        response = client.exchange(client.message(REFRESH), client.key)
        return response if response.code == 438 else None
    response = wait_for(stale, 5, "438")
    equal(response.get(stun.REALM), b"example.org", "realm")
    check(response.get(stun.NONCE) not in (None, old), "no new nonce")
    client.adopt(response)
    equal(client.code(REFRESH), 0, "with the new nonce")


@row("row 34: a nonce the server never made is 438 with a new one")
def _():
    client = lab.client()
    client.challenge()
    good = client.nonce
    flipped = good[:-1] + (b"0" if good[-1:] != b"0" else b"1")
    for nonce in (b"forged", b"x" * 127, b"", flipped, good + b"0", good[:-1]):
        client.nonce = nonce
        response = client.exchange(client.message(ALLOCATE, [transport()]), client.key)
        if nonce == b"" and response.code in (400, 401):
            continue
        equal(response.code, 438, f"nonce {nonce!r}")
        check(response.get(stun.NONCE), "no nonce in the 438")
        equal(response.get(stun.REALM), b"example.org", "realm")
    client.nonce = good
    client.allocate()


@row("row 35: a wrong password is 401 on every request, an unknown user alike")
def _():
    client = lab.client(password="wrong")
    equal(client.code(ALLOCATE, [transport()]), 401, "Allocate")
    client.user = "mallory"
    equal(client.code(ALLOCATE, [transport()]), 401, "unknown user")
    good = lab.allocated()
    listener = lab.listener()
    cid = good.connect(listener.getsockname())
    good.password = "wrong"
    peer = (lab.topo.peer.addr(), 9)
    equal(good.code(REFRESH), 401, "Refresh")
    equal(good.peer_code(CONNECT, peer), 401, "Connect")
    equal(good.peer_code(CREATE_PERMISSION, peer), 401, "CreatePermission")
    equal(good.channel_bind_code(peer), 401, "ChannelBind")
    equal(good.bind_code(cid), 401, "ConnectionBind")
    good.password = "wonderland"
    ping(lab.keep(good.bind(cid)), lab.accept(listener))


@row("row 35: a request without USERNAME, REALM or NONCE but with integrity is 400")
def _():
    client = lab.client()
    client.challenge()
    for absent in (stun.USERNAME, stun.REALM, stun.NONCE):
        msg = client.message(ALLOCATE, [transport()])
        msg.attrs = [a for a in msg.attrs if a[0] != absent]
        equal(client.exchange(msg, client.key).code, 400, f"without {absent:#x}")
    client.allocate()


@row("row 36: another user on the allocation is 441")
def _():
    client = lab.allocated()
    client.user, client.password = "bob", "builder"
    peer = (lab.topo.peer.addr(), 9)
    equal(client.code(REFRESH), 441, "Refresh")
    equal(client.peer_code(CONNECT, peer), 441, "Connect")
    equal(client.peer_code(CREATE_PERMISSION, peer), 441, "CreatePermission")
    client.user, client.password = "alice", "wonderland"
    client.refresh()


@row_both("row 37: a bad FINGERPRINT gets no answer and changes nothing")
def _(version):
    client = lab.client(version)
    attrs = [transport(), family(version)]
    raw, _ = client.signed(ALLOCATE, attrs)
    client.sock.sendall(raw[:-1] + bytes([raw[-1] ^ 1]))
    check(client.is_quiet(), "a bad FINGERPRINT was answered")
    equal(client.code(ALLOCATE, attrs), 0, "the next Allocate is the first")


@row("row 37: a request without FINGERPRINT is served")
def _():
    client = lab.client()
    client.challenge()
    msg = client.message(ALLOCATE, [transport()])
    equal(client.exchange(msg, client.key, fingerprint=False).code, 0)


@row("row 38: REQUESTED-ADDRESS-FAMILY not served or nonsense is 440")
def _():
    need_namespaces(lab)
    client = lab.client(changes={"relay": {"address": "10.77.1.1"}})
    for number in (0, 3, 255):
        equal(client.code(ALLOCATE, [transport(), family(number)]), 440, f"family {number}")
    equal(client.code(ALLOCATE, [transport(), family(6)]), 440, "IPv6 is not served")
    client.allocate(family(4))


@row("row 38: REQUESTED-ADDRESS-FAMILY chooses the relayed address")
def _():
    need_namespaces(lab)
    changes = {"relay": {"address": "10.77.1.1, fd77:1::1"}}
    for dialled in (4, 6):
        for wanted, address in ((4, "10.77.1.1"), (6, "fd77:1::1")):
            client = lab.client(dialled, changes=changes)
            client.allocate(family(wanted))
            equal(client.relayed[0], address, f"IPv{wanted} asked over IPv{dialled}")
            data, peer, _ = lab.pair(client, wanted)
            equal(peer.getpeername()[:2], client.relayed, "source seen by the peer")
            ping(data, peer)


@row("row 38: without REQUESTED-ADDRESS-FAMILY the relayed address is IPv4 where there is one")
def _():
    need_namespaces(lab)
    for dialled in (4, 6):
        client = lab.client(dialled, changes={"relay": {"address": "fd77:1::1, 10.77.1.1"}})
        client.allocate()
        equal(client.relayed[0], "10.77.1.1", f"asked over IPv{dialled}")


@row_both("row 39: STUN- and TLS-looking bytes on a bound connection are opaque")
def _(version):
    data, peer, client = lab.pair(version=version)
    looks = [stun.Message(stun.BINDING).build(), client.signed(REFRESH, [lifetime(0)])[0],
             client.signed(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(1))])[0],
             bytes.fromhex("16030100c8010000c40303") + payload(190), b"\x40\x00\x00\x04abcd"]
    for text in looks:
        ping(data, peer, text)
    client.refresh()


@row("row 40: allocations_per_user reached is 486, a freed one makes room")
def _():
    first = lab.allocated(changes={"limits": {"allocations_per_user": 2}})
    lab.allocated()
    third = lab.client()
    equal(third.code(ALLOCATE, [transport()]), 486, "third allocation")
    lab.allocated(user="bob")
    first.refresh(0)
    wait_for(lambda: third.code(ALLOCATE, [transport()]) == 0, 5, "room after Refresh 0")


@row("row 40: a realm's own allocations_per_user wins over [limits]")
def _():
    lab.allocated(changes={"realm example.org": {"allocations_per_user": "1"}})
    equal(lab.client().code(ALLOCATE, [transport()]), 486)


@row("row 40: relayed ports used up is 508, a freed one makes room")
def _():
    first = lab.allocated(changes={"relay": {"ports": "50100-50101"}})
    second = lab.allocated()
    equal(sorted([first.relayed[1], second.relayed[1]]), [50100, 50101], "ports")
    third = lab.client()
    equal(third.code(ALLOCATE, [transport()]), 508)
    second.close()
    wait_for(lambda: third.code(ALLOCATE, [transport()]) == 0, 5, "room after a close")


@row_both("row 41: the stream outlives its permission, a new connection does not")
def _(version):
    client = lab.allocated(version, changes=FAST)
    data, peer = lab.incoming(client, 0, version)

    def refused():
        late = lab.topo.peer.connect(client.relayed)
        with contextlib.closing(late):
            how = ended(late, 3)
        return how == "fin" and not client.indications and client.is_quiet(0.1)
    wait_for(lambda: refused() or client.indications.clear(), 8, "permission expires")
    ping(data, peer)


# Beyond the table.

@row("Binding is answered without credentials with the client's address")
def _():
    client = lab.client()
    response = client.exchange(stun.Message(stun.BINDING))
    equal(response.code, 0)
    equal(response.address(stun.XOR_MAPPED_ADDRESS), client.sock.getsockname()[:2], "mapped")


@row("Binding over IPv6")
def _():
    need_version(lab, 6)
    client = lab.client(6)
    response = client.exchange(stun.Message(stun.BINDING))
    equal(response.address(stun.XOR_MAPPED_ADDRESS), client.sock.getsockname()[:2], "mapped")


@row("an unknown method is refused with 400, not with silence")
def _():
    client = lab.client()
    client.challenge()
    equal(client.code(0x0FF), 400)
    client.allocate()


@row("indications and responses sent to the server are ignored")
def _():
    client = lab.client()
    for cls in (stun.INDICATION, stun.SUCCESS, stun.ERROR):
        client.sock.sendall(stun.Message(stun.BINDING, cls).build())
    check(client.is_quiet(0.2), "the server answered")
    client.allocate()


@row("LIFETIME: the default at least, the maximum at most")
def _():
    for asked, want in ((1, 600), (599, 600), (1000, 1000), (3600, 3600), (86400, 3600),
                        (0xFFFFFFFF, 3600)):
        client = lab.client()
        response = client.allocate(lifetime(asked))
        equal(response.number(stun.LIFETIME), want, f"Allocate with {asked}")
        equal(client.refresh(asked), want, f"Refresh with {asked}")
        client.close()
    client = lab.client()
    equal(client.allocate().number(stun.LIFETIME), 600, "Allocate without LIFETIME")
    equal(client.refresh(), 600, "Refresh without LIFETIME")
    equal(client.code(REFRESH, [(stun.LIFETIME, b"\0")]), 400, "malformed LIFETIME")


@row("Refresh prolongs an allocation")
def _():
    changes = {"limits": {"default_lifetime": "2s", "max_lifetime": "30s"}}
    client = lab.allocated(changes=changes)
    short = lab.allocated()
    equal(client.refresh(20), 20, "granted")
    wait_for(lambda: port_is_closed(short.relayed), 8, "the other one expires")
    equal(client.refresh(), 2, "Refresh without LIFETIME")


@row("Refresh 0 frees the connection for a new allocation")
def _():
    client = lab.allocated()
    equal(client.refresh(0), 0)
    client.allocate()
    data, peer, _ = lab.pair(client)
    ping(data, peer)


@row("Refresh with the wrong REQUESTED-ADDRESS-FAMILY is 443, the right one is fine")
def _():
    client = lab.allocated()
    equal(client.code(REFRESH, [family(6)]), 443)
    client.refresh(None, family(4))


@row("several addresses in one CreatePermission: all or none")
def _():
    client = lab.allocated()
    client.permit(lab.topo.peer.addr(4, 0), lab.topo.peer.addr(4, 1))
    for index in (0, 1):
        lab.keep(lab.topo.peer.connect(client.relayed, index))
        client.attempt()
    if lab.topo.isolated:
        strict = lab.allocated()
        pair = [(lab.topo.peer.addr(), 0), ("127.0.0.1", 0)]
        equal(strict.peer_code(CREATE_PERMISSION, pair), 403, "one of two forbidden")
        late = lab.keep(lab.topo.peer.connect(strict.relayed))
        equal(ended(late, 3), "fin", "permission of the good half")


@row("a nonce serves every connection of the client, not only the one that got it")
def _():
    client = lab.allocated()
    twin = lab.keep(client.other())
    response = twin.exchange(twin.message(ALLOCATE, [transport()]), twin.key)
    equal(response.code, 0, "Allocate with the nonce of another connection")


REALMS = {"realm second.org": {}, "listener second": {"address": "0.0.0.0:3490, [::]:3490",
                                                      "realm": "second.org"},
          "user alice2": {"name": "alice", "realm": "second.org", "password": "looking-glass"},
          "user carol": {"realm": "second.org", "ha1": stun.key_md5("carol", "second.org",
                                                                    "wonder").hex()}}


@row("several realms: each listener offers its own, a user belongs to one")
def _():
    first = lab.allocated(changes=REALMS)
    equal(first.realm, "example.org", "realm of the first listener")
    server = (first.server[0], 3490)
    with turn.Control(lab.topo.client, server, "alice", "looking-glass") as second:
        second.allocate()
        equal(second.realm, "second.org", "realm of the second listener")
    with turn.Control(lab.topo.client, server, "alice", "wonderland") as wrong:
        equal(wrong.code(ALLOCATE, [transport()]), 401, "password of the other realm")
    with turn.Control(lab.topo.client, server, "bob", "builder") as wrong:
        equal(wrong.code(ALLOCATE, [transport()]), 401, "user of the other realm")


@row("several realms: another realm's user cannot bind an identifier")
def _():
    client = lab.allocated(changes=REALMS)
    listener = lab.listener()
    cid = client.connect(listener.getsockname())
    with turn.Control(lab.topo.client, (client.server[0], 3490), "alice", "looking-glass") as other:
        check(other.bind_code(cid) in (400, 401, 441), "alice of second.org was let in")
    ping(lab.keep(client.bind(cid)), lab.accept(listener))


@row("a user with an HA1 key instead of a password")
def _():
    lab.server(REALMS)
    server = (lab.topo.relay.addr(), 3490)
    with turn.Control(lab.topo.client, server, "carol", "wonder") as client:
        client.allocate()
        client.refresh()
    with turn.Control(lab.topo.client, server, "carol", "wander") as client:
        equal(client.code(ALLOCATE, [transport()]), 401)


@row("nonce: no two challenges share one")
def _():
    nonces = {lab.client().challenge().get(stun.NONCE) for _ in range(20)}
    equal(len(nonces), 20, "different nonces")


@row_both("workers: ConnectionBind on another worker keeps pipelined and held bytes", 40)
def _(version):
    client = lab.allocated(version, changes={"server": {"workers": 4}})
    for number in range(40):
        listener = lab.listener(version)
        cid = client.connect(listener.getsockname())
        peer = lab.accept(listener)
        early, held = payload(64 * KIB + number, number), payload(10 * KIB + number, -number)
        peer.sendall(held)
        data = lab.keep(client.bind(cid, early))
        same(receive(peer, len(early)), early, f"pipelined bytes of bind {number}")
        same(receive(data, len(held)), held, f"held bytes of bind {number}")
        ping(data, peer)
        for sock in (data, peer, listener):
            sock.close()


@row("workers: connections from many ports reach more than one worker")
def _():
    server = lab.server({"server": {"workers": 4}})
    for _ in range(24):
        lab.allocated()
    workers = {a.get("worker") for a in server.ctl_json("allocations").get("allocations", [])}
    if workers <= {None}:
        raise tap.Skip("culvertctl allocations does not tell the worker")
    check(len(workers) > 1, f"all 24 allocations on worker {workers}")


def simultaneous_open(version, permitted):
    """Both SYNs are lost on the way at first, so that the retransmissions cross."""
    need_namespaces(lab)
    client = lab.allocated(version)
    node, gateway = lab.topo.peer, {4: "10.77.2.1", 6: "fd77:2::1"}[version]
    if permitted:
        client.permit(node.addr(version))
    ip = ["ip", f"-{version}", "neigh"]
    node.run(*ip, "replace", gateway, "lladdr", "02:00:00:00:00:99", "dev", "uplink")
    try:
        peer = lab.keep(node.bound(version))
        peer.setblocking(False)
        peer.connect_ex(client.relayed)
        txid = client.connect_start(peer.getsockname())
        check(client.is_quiet(0.2), "something came although every SYN is lost")
    finally:
        node.run(*ip, "del", gateway, "dev", "uplink")
    response = client.response(txid)
    equal(response.code, 0, "Connect")
    wait_for(lambda: peer.connect_ex(client.relayed) == 106, 10, "the peer's connect() succeeds")
    peer.settimeout(10)
    data = lab.keep(client.bind(response.number(stun.CONNECTION_ID)))
    ping(data, peer)
    equal(peer.getpeername()[:2], client.relayed, "one connection, not two")


@row_both("simultaneous open: crossing SYNs make one connection")
def _(version):
    simultaneous_open(version, permitted=False)


@row_both("simultaneous open: a permission for the peer changes nothing")
def _(version):
    simultaneous_open(version, permitted=True)


@row("Connect to a peer that already came in is 446, and the stream lives on")
def _():
    client = lab.allocated()
    data, peer = lab.incoming(client)
    check(client.peer_code(CONNECT, peer.getsockname()) in (446, 447), "second connection made")
    ping(data, peer)


@row("requests pipelined on the control connection are answered in order")
def _():
    client = lab.client()
    client.challenge()
    first, id1 = client.signed(ALLOCATE, [transport()])
    rest = [client.signed(REFRESH) for _ in range(20)]
    client.sock.sendall(first + b"".join(raw for raw, _ in rest))
    equal(client.response(id1).code, 0, "Allocate")
    for _, txid in rest:
        equal(client.response(txid).code, 0, "Refresh")


@row("a message that arrives byte by byte is understood")
def _():
    client = lab.client()
    client.challenge()
    raw, txid = client.signed(ALLOCATE, [transport()])
    for byte in raw:
        client.sock.sendall(bytes([byte]))
    equal(client.response(txid).code, 0)


@row("attributes after MESSAGE-INTEGRITY are ignored")
def _():
    client = lab.allocated()
    msg = client.message(REFRESH)
    signed = msg.build(client.key, fingerprint=False)
    extra = stun.attribute(stun.LIFETIME, u32(0))
    raw = signed[:2] + struct.pack("!H", len(signed) - 20 + len(extra)) + signed[4:] + extra
    client.sock.sendall(raw)
    check(client.response(msg.txid).code in (0, 400), "odd answer")
    check(client.refresh() > 0, "LIFETIME 0 behind the integrity was obeyed")


@row("SOFTWARE is sent unless software = no")
def _():
    client = lab.client()
    check(client.exchange(stun.Message(stun.BINDING)).get(stun.SOFTWARE), "no SOFTWARE")
    client = lab.client(changes={"server": {"software": "no"}})
    check(client.exchange(stun.Message(stun.BINDING)).get(stun.SOFTWARE) is None, "SOFTWARE sent")


@row("a reset by a peer before the bind frees its identifier")
def _():
    client = lab.allocated()
    listener = lab.listener()
    cid = client.connect(listener.getsockname())
    reset(lab.accept(listener))
    code = wait_for(lambda: client.bind_code(cid), 5, "the bind is refused")
    equal(code, 400)
    client.refresh()


@row("row 29: with the default the peer connection is closed after 30 s, not before", 45)
def _():
    if "it" not in defaults:
        raise tap.Skip("the server for the defaults did not start")
    how, took = defaults["it"].unbound.finish(40)
    equal(how, "fin", "end of the peer connection")
    within(took, 29.5, 34, "seconds")


@row("row 11: with the default Connect fails with 447 after 30 s, not before", 45)
def _():
    if "it" not in defaults:
        raise tap.Skip("the server for the defaults did not start")
    it = defaults.pop("it")
    response, took = it.answer.finish(40)
    equal(response.code, 447)
    within(took, 29.5, 34, "seconds")
    it.server.stop()


tap.main()
