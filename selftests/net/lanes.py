#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Channels of UDP allocations on wire: what the kernel relays, what it leaves to the daemon, and
that no lane outlives its permission, its allocation or the processes that answer for it."""

import contextlib
import os
import signal
import socket
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import boxes, packets, proc, tap, turn  # noqa: E402
from culvertlab.data import payload, same  # noqa: E402
from culvertlab.lab import Lab, need_namespaces, need_root  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.turn import UDP, timeout_of  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
CHANNEL = 0x4001
FIRST = 8  # datagrams that the daemon relays before it asks for a lane
LEASE = 8  # seconds after which no lane is used without a broker, at the latest
UDP_SEGMENT = 103
HEAD = {4: 20, 6: 40}  # of IP


def config(**sections):
    relay = lab.topo.relay
    return {"listener datagrams": {"transport": "udp",
                                   "address": f"0.0.0.0:{lab.port}, [::]:{lab.port}"},
            "relay": {"address": f"{relay.addr(4)}, {relay.addr(6)}"}, **sections}


def message(data, number=CHANNEL):
    return struct.pack("!HH", number, len(data)) + data


def silent(sock, seconds=0.2):
    with timeout_of(sock, seconds):
        try:
            sock.recv(65536)
            return False
        except TimeoutError:
            return True


def drain(sock):
    while not silent(sock, 0.05):
        pass


class Channel:
    """A client's channel to a peer, of another version if that is given; `number` of them may be
    bound by one client."""

    def __init__(self, server, version=4, client=None, number=CHANNEL, to=None):
        self.server, self.number, to = server, number, to or version
        self.client = client or lab.keep(turn.Datagrams(lab.topo.client, server.address(version)))
        self.peer = lab.keep(lab.topo.peer.bound(to, udp=True))
        if client is None:
            self.client.allocate(*([turn.family(6)] if to == 6 else []), protocol=UDP)
        self.bind()

    def bind(self):
        equal(self.client.channel_bind_code(self.peer.getsockname(), self.number), 0, "ChannelBind")

    def up(self, data):
        """To the peer; what it gets."""
        self.client.sock.sendall(message(data, self.number))
        got, source = self.peer.recvfrom(65536)
        equal(source[:2], self.client.relayed, "source of what the peer got")
        same(got, data, f"{len(data)} bytes to the peer")

    def down(self, data):
        self.peer.sendto(data, self.client.relayed)
        same(self.client.sock.recv(65536), message(data, self.number),
             f"{len(data)} bytes to the client")

    def passes(self):
        """Whether a datagram gets to the peer."""
        self.client.sock.sendall(message(b"x", self.number))
        return not silent(self.peer, 0.1)

    def on_wire(self):
        """One datagram after the other until the kernel relays them."""
        before = wired(self.server)

        def counted():
            for _ in range(FIRST):
                self.up(b"to the lane")
            return wired(self.server) > before
        wait_for(counted, 10, "the channel is on wire")
        return self


def serve(**sections):
    need_root()
    need_namespaces(lab)
    return lab.server(config(**sections))


def wired(server):
    return server.counters()["datagrams_on_wire"]


@contextlib.contextmanager
def summed():
    """What both ends send bears a whole checksum, which no device is to complete."""
    ends = (lab.topo.legs[0], lab.topo.legs[3])
    try:
        for end in ends:
            boxes.offload_set(*end, tx=0)
        yield
    finally:
        for end in ends:
            boxes.offload_set(*end, tx=1)


def crossed(version, to):
    """Both ways between two families, with checksums that are to be completed and whole ones."""
    both_ways(version, to)
    with summed():
        both_ways(version, to, empty=True)


def both_ways(version, to, empty=False):
    server = serve()
    one = Channel(server, version, to=to).on_wire()
    first = server.counters()
    sizes = [0, 1, 2, 3, 4, 50, 200, 1200, 1400]
    for n, size in enumerate(sizes):
        one.up(payload(size, n))
        one.down(payload(size, n))
    last = server.counters()
    # Without a byte the kernel has nothing to move, where a checksum is to be completed.
    equal(last["datagrams_on_wire"] - first["datagrams_on_wire"],
          2 * len(sizes) - (0 if empty else 2), "by wire")
    for name in ("datagrams_to_peers", "datagrams_to_clients"):
        equal(last[name] - first[name], len(sizes), name)
    for name in ("bytes_to_peers", "bytes_to_clients"):
        equal(last[name] - first[name], sum(sizes), name)
    rows = server.ctl_json("allocations")["allocations"]
    row = [row for row in rows if row["relayed"].endswith(f":{one.client.relayed[1]}")][0]
    check(row["bytes_to_peers"] >= sum(sizes), "the allocation's bytes")
    equal(row["bytes_to_client"], sum(sizes), "the allocation's bytes to the client")
    before = server.counters()["lanes"]
    equal(one.client.refresh(0), 0)
    equal(server.counters()["lanes"], before - 1, "lanes after the end")
    equal(server.counters()["datagrams_to_peers"], last["datagrams_to_peers"], "still counted")


for each in (4, 6):
    tap.add(f"what goes by wire arrives whole and is counted (IPv{each})",
            lambda version=each: both_ways(version, version))
    tap.add(f"the same from IPv{each} to the other family, with and without offloads",
            lambda version=each: crossed(version, 10 - version))


@tap.test("a burst keeps its order on the lane, both ways")
def _():
    one = Channel(serve()).on_wire()
    pieces = [payload(size, n) for n, size in enumerate([1200] * 40 + [17, 1199, 1, 300] * 10)]
    for data in pieces:
        one.client.sock.sendall(message(data))
    for n, data in enumerate(pieces):
        same(one.peer.recv(65536), data, f"piece {n} to the peer")
    for data in pieces:
        one.peer.sendto(data, one.client.relayed)
    for n, data in enumerate(pieces):
        same(one.client.sock.recv(65536), message(data), f"piece {n} to the client")


def both_families(version):
    """Channels of one client to a peer of each family."""
    server = serve()
    client = lab.keep(turn.Datagrams(lab.topo.client, server.address(version)))
    relayed = client.allocate_both(protocol=UDP)
    client.relayed = relayed[version]
    alike = Channel(server, version, client).on_wire()
    client.relayed = relayed[10 - version]
    other = Channel(server, 10 - version, client, CHANNEL + 1).on_wire()
    before = wired(server)
    other.up(payload(200, 1))
    other.down(payload(200, 2))
    client.relayed = relayed[version]
    alike.up(payload(1200, 1))
    alike.down(payload(1200, 2))
    equal(wired(server), before + 4, "by wire")
    equal(client.refresh(0, turn.family(10 - version)), 0, "the other family ends")
    wait_for(lambda: not other.passes(), 5, "the other family's lane is gone")
    before = wired(server)
    alike.up(payload(1200, 3))
    equal(wired(server), before + 1, "by wire afterwards")
    equal(client.refresh(0, turn.family(version)), 0, "the end")
    wait_for(lambda: not alike.passes(), 5, "the lane of what has ended is gone")


for each in (4, 6):
    tap.add(f"of two relayed addresses each has its channels (client over IPv{each})",
            lambda version=each: both_families(version))


@tap.test("what is too long for the client's way is fragmented by the daemon")
def _():
    server = serve()
    one = Channel(server).on_wire()
    for size, by_wire in ((1468, 1), (1469, 0), (1472, 0), (9000, 0)):
        before = wired(server)
        one.down(payload(size, size))
        equal(wired(server) - before, by_wire, f"{size} bytes, by wire")
    before = wired(server)
    one.up(payload(4000, 1))
    equal(wired(server), before, "fragments by wire")


def too_long(version, to):
    """Each way up to what the shorter payload of the two families allows, not a byte more."""
    server = serve()
    one = Channel(server, version, to=to).on_wire()
    least = {one.up: min(1500 - HEAD[version] - 12, 1500 - HEAD[to] - 8),
             one.down: min(1500 - HEAD[to] - 8, 1500 - HEAD[version] - 12)}
    for way, most in least.items():
        for size, by_wire in ((most, 1), (most + 1, 0), (4000, 0)):
            before = wired(server)
            way(payload(size, size))
            equal(wired(server) - before, by_wire, f"{way.__name__} {size} bytes, by wire")


@tap.test("datagrams beyond what a program may lengthen go by the daemon")
def _():
    legs = lab.topo.legs
    server = serve()
    try:
        for node, device in legs:
            node.run("ip", "link", "set", device, "mtu", "65535")
        for version, to in ((4, 4), (4, 6), (6, 4), (6, 6)):
            one = Channel(server, version, to=to).on_wire()
            with summed():
                for size, by_wire in ((15000, 1), (17000, 0), (65000, 0)):
                    before = wired(server)
                    one.down(payload(size, size))
                    equal(wired(server) - before, by_wire, f"{size} bytes by wire")
    finally:
        for node, device in legs:
            node.run("ip", "link", "set", device, "mtu", "1500")


def header(packet):
    """What an IP header says but for lengths, addresses, identification, flow label."""
    if packet[0] >> 4 == 4:
        return (4, packet[1], packet[6:8], packet[8], packet[9])
    return (6, packet[0] << 4 & 0xF0 | packet[1] >> 4, packet[6], packet[7])


def watched(version, to):
    """The kernel's datagrams look as the daemon's do; packet sockets share the packets, and what
    they have seen stays as it was."""
    server = serve()
    taps = {lab.keep(packets.Tap(lab.topo.relay, device)): family
            for device, family in (("toclient", version), ("topeer", to))}
    one = Channel(server, version, to=to)
    data = payload(700, 1)
    looks = []
    for by_wire in (0, 2):
        before = wired(server)
        looks.append([])
        for way in (one.up, one.down):
            for at in taps:
                at.forget()
            way(data)
            for at, family in taps.items():
                seen = [packet for packet, _ in at.packets() if packet.endswith(data)]
                equal([packet[0] >> 4 for packet in seen], [family], f"{way.__name__}, packets")
                looks[-1] += map(header, seen)
        equal(wired(server), before + by_wire, "by wire")
        if not by_wire:
            one.on_wire()
    equal(*looks, "headers of the daemon's and the kernel's")


def super_packet(version, to):
    """UDP_SEGMENT: what a device would cut is the daemon's, what has been cut is the lane's."""
    server = serve()
    one = Channel(server, version, to=to).on_wire()
    one.peer.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1200)
    data = payload(3000, 1)
    node, device = lab.topo.legs[3]
    for offload, by_wire in ((1, 0), (0, 3)):
        boxes.offload_set(node, device, gso=offload, tx=offload)
        before = wired(server)
        try:
            one.peer.sendto(data, one.client.relayed)
        finally:
            boxes.offload_set(node, device, gso=1, tx=1)
        for at in range(0, len(data), 1200):
            same(one.client.sock.recv(65536), message(data[at:at + 1200]), f"from byte {at}")
        equal(wired(server) - before, by_wire, f"by wire with offload {offload}")


def permission_ends(version, to):
    server = serve(limits={"permission_lifetime": "2s", "channel_lifetime": "1h"})
    one = Channel(server, version, to=to).on_wire()
    wait_for(lambda: not one.passes(), 10, "the permission has expired")
    drain(one.peer)
    wait_for(lambda: server.counters()["lanes"] == 0, 5, "the lane is gone")


for each in (4, 6):
    def add(name, function, version=each):
        tap.add(f"from IPv{version} to the other family: {name}",
                lambda: function(version, 10 - version))
    add("what is too long for the way on goes by the daemon", too_long)
    add("super-packets of UDP", super_packet)
    add("packets look as without a lane", watched)
    add("a permission that ends takes the lane with it", permission_ends)


@tap.test("another's channel number, another port and a padded message are no lane's")
def _():
    server = serve()
    one = Channel(server).on_wire()
    other = lab.keep(turn.Datagrams(lab.topo.client, server.address()))
    before = wired(server)
    other.sock.sendall(message(b"not mine"))
    check(silent(one.peer), "another client's ChannelData")
    one.client.sock.sendall(message(b"no such", CHANNEL + 1))
    check(silent(one.peer), "a channel that is not bound")
    stranger = lab.keep(lab.topo.peer.bound(index=1, udp=True))
    stranger.sendto(b"let me in", one.client.relayed)
    check(silent(one.client.sock), "a host without permission")
    neighbour = lab.keep(lab.topo.peer.bound(udp=True))
    neighbour.sendto(b"as an indication", one.client.relayed)
    equal(one.client.sock.recv(2048)[0] & 0xC0, 0, "from a port without channel")
    one.client.sock.sendall(message(b"odd") + b"\0")
    equal(one.peer.recv(2048), b"odd", "a padded one")
    equal(wired(server), before, "by wire")
    one.up(b"and so on")
    equal(wired(server), before + 1, "by wire")


@tap.test("two channels of a client and two clients of a peer do not meet")
def _():
    server = serve()
    before = server.counters()["lanes"]
    one = Channel(server).on_wire()
    two = Channel(server, client=one.client, number=CHANNEL + 1).on_wire()
    three = Channel(server).on_wire()
    for n, each_one in enumerate((one, two, three)):
        each_one.up(payload(100, n))
        each_one.down(payload(100, n))
    equal(server.counters()["lanes"], before + 3, "lanes")
    equal(one.client.refresh(0), 0)
    equal(server.counters()["lanes"], before + 1, "lanes without that client's")
    three.up(b"on")


@tap.test("a permission that ends takes the lane with it, a new one brings it back", 40)
def _():
    server = serve(limits={"permission_lifetime": "2s", "channel_lifetime": "1h"})
    one = Channel(server).on_wire()
    wait_for(lambda: not one.passes(), 10, "the permission has expired")
    drain(one.peer)
    one.client.permit(one.peer.getsockname()[0])
    check(one.passes(), "after a new permission")
    one.on_wire()
    # As long as it is renewed the lane goes on.
    before = server.counters()["lanes_made"]
    for _ in range(4):
        one.client.permit(one.peer.getsockname()[0])
        wait_for(lambda: not silent(one.peer, 0.001) or one.passes(), 5, "it goes on")
        silent(one.peer, 0.8)
    drain(one.peer)
    check(one.passes(), "the renewed one")
    check(server.counters()["lanes_made"] <= before + 1, "lanes were made anew")


def ends(one, how):
    """The broker hears of it by a message of its own, so a moment later."""
    wait_for(lambda: not one.passes(), 2, f"nothing passes after {how}")


@tap.test("allocations end by Refresh, kick and peers that are denied: nothing passes any more")
def _():
    server = serve()
    one = Channel(server).on_wire()
    equal(one.client.refresh(0), 0)
    ends(one, "Refresh with 0")
    two = Channel(server).on_wire()
    rows = server.ctl_json("allocations")["allocations"]
    equal(len(rows), 1, "allocations")
    server.ctl("kick", rows[0]["id"])
    ends(two, "kick")
    three = Channel(server).on_wire()
    sections = {**server.sections, "peers": {**server.sections.get("peers", {}),
                                             "deny": lab.topo.peer.addr()}}
    kept, server.sections = server.sections, sections
    server.write_config()
    equal(server.reload(), "reloaded")
    ends(three, "its peer is denied")
    server.sections = kept
    server.write_config()
    equal(server.reload(), "reloaded")
    equal(server.counters()["lanes"], 0, "lanes")


@tap.test("wire_datagrams can be turned off and on; realms without wire or with a limit have none")
def _():
    server = serve()
    one = Channel(server).on_wire()
    engine = server.sections.get("engine", {})
    kept = server.sections
    for switch, lanes in (("no", 0), ("yes", 1)):
        server.sections = {**kept, "engine": {**engine, "wire_datagrams": switch}}
        server.write_config()
        equal(server.reload(), "reloaded")
        one.bind()
        if lanes:
            one.on_wire()
        for n in range(2 * FIRST):
            one.up(payload(100, n))
        equal(server.counters()["lanes"], lanes, f"lanes with {switch}")
    realm = kept.get("realm example.org", {})
    for key, value in (("engine", "splice, copy"), ("bandwidth", "100M")):
        server.sections = {**kept, "realm example.org": {**realm, key: value}}
        server.write_config()
        equal(server.reload(), "reloaded")
        one.bind()
        for n in range(2 * FIRST):
            one.up(payload(100, n))
        equal(server.counters()["lanes"], 0, f"lanes of a realm with {key}")
    server.sections = kept
    server.write_config()
    equal(server.reload(), "reloaded")


@tap.test("more channels than wire_channels are relayed by the daemon")
def _():
    server = serve(engine={"wire_channels": 1})
    one = Channel(server).on_wire()
    two = Channel(server)
    for n in range(3 * FIRST):
        two.up(payload(100, n))
        one.up(payload(100, n))
    counters = server.counters()
    equal((counters["lanes"], counters["lanes_refused"]), (1, 1), "lanes and refused ones")
    equal(one.client.refresh(0), 0)

    def room():
        two.bind()  # one that was refused is asked for again after a ChannelBind
        for n in range(FIRST):
            two.up(payload(100, n))
        return server.counters()["lanes"]
    wait_for(room, 10, "there is room")


@tap.test("the relay is killed: its lanes are gone at once", 40)
def _():
    server = serve()
    one = Channel(server).on_wire()
    server.kill_hard([server.relay_pid()])
    wait_for(lambda: not one.passes(), 5, "nothing passes")
    wait_for(lambda: server.log_count(r"event=wire_ready") >= 2, 15, "another relay is ready")
    check(not one.passes(), "by the next relay")
    Channel(server).on_wire().down(b"a new one")
    lab.stop_server()


@tap.test("the broker is killed: the daemon goes on, and channels go on wire again", 40)
def _():
    server = serve()
    one = Channel(server).on_wire()
    server.kill_hard([server.broker_pid()])
    for n in range(4 * FIRST):
        one.up(payload(100, n))
        one.down(payload(100, n))

    def back():
        one.up(b"back?")
        counters = server.counters()
        return counters["lanes"] == 1 and counters["lanes_made"] >= 2
    wait_for(back, 30, "it is on wire again")
    one.down(b"back")
    lab.stop_server()


@tap.test("all is killed: no lane is used for longer than the lease", 40)
def _():
    server = serve()
    one = Channel(server).on_wire()
    pids = [server.process.pid, *proc.descendants(server.process.pid)]
    for pid in pids:  # who restarts others comes first
        os.kill(pid, signal.SIGSTOP)
    server.kill_hard(pids)
    wait_for(lambda: not one.passes(), LEASE, "the lease has ended")
    lab.stop_server()


tap.main()
