#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""wire with packets that a device has summed (CHECKSUM_COMPLETE, as mlx5 makes them).

No virtual device makes such sums, but connection tracking does, for packets without any that a
bridge in the relay's namespace shows it: they go up the bridge, where wire is, with their sum.
`sums` tells how many come so, and at the ends whether the sum still is the packet's.
"""

import os
import select
import socket
import struct
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import boxes, engines, tap, turn  # noqa: E402
from culvertlab.data import (KIB, MIB, payload, ping, receive, reset, same, sender, swap,  # noqa: E402
                             toward)
from culvertlab.lab import Lab, need, need_namespaces, need_root  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.turn import UDP, ended  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
CHANNEL = 0x4001
TRACKING = """
table inet sums {
    chain every {
        type filter hook prerouting priority 0
        ct state invalid counter
    }
}
"""


class Sums:
    """sums(1) at a device: since the last look (packets, summed by a device, wrongly)."""

    def __init__(self, node, device):
        self.name = f"{device} of {node.name}"
        self._child = subprocess.Popen(node.command([boxes.tool("sums"), device]), text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1)
        if self._line() != "ready":
            raise tap.Skip("no program can be put before others here (tcx, Linux 6.6)")
        self._last = (0, 0, 0)

    def _line(self):
        if not select.select([self._child.stdout], [], [], 10)[0]:
            raise tap.Fail(f"sums at {self.name} does not answer")
        return self._child.stdout.readline().strip()

    def look(self):
        self._child.stdin.write("\n")
        now = tuple(map(int, self._line().split()))
        moved = tuple(a - b for a, b in zip(now, self._last))
        self._last = now
        return moved

    def close(self):
        self._child.stdin.close()
        self._child.wait(10)
        self._child.stdout.close()


def bridge(device):
    """A bridge in this device's place, with its name and addresses, of which it is a port."""
    index = {"toclient": 1, "topeer": 2}[device]
    lines = [f"link set {device} down", f"addr flush dev {device}",
             f"link set {device} name port{index}", f"link add {device} type bridge",
             f"link set port{index} master {device}", f"link set port{index} up",
             f"link set {device} up", f"addr add 10.77.{index}.1/24 dev {device}",
             f"addr add fd77:{index}::1/64 dev {device} nodad"]
    lab.topo.relay.run("sh", "-ec", "".join(f"ip {line}\n" for line in lines))


def build():
    """Both legs by bridges whose connection tracking sums; the ends' packets have no sums yet."""
    need_root()
    need_namespaces(lab)
    need("nft", "nftables")
    relay = lab.topo.relay
    for device in ("toclient", "topeer"):
        bridge(device)
    try:
        relay.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1",
                  "net.bridge.bridge-nf-call-ip6tables=1")
        relay.run("sh", "-c", f"echo '{TRACKING}' | nft -f -")
    except RuntimeError as error:
        raise tap.Skip(f"bridges show nothing to connection tracking here: {error}") from error
    for node, device in (lab.topo.legs[0], lab.topo.legs[3]):
        boxes.offload_set(node, device, tx=0, tso=0, gso=0, gro=0)
    lab.topo.greet()


class Watch:
    """All four devices: what arrives at the relay is summed, and what arrives at the ends right."""

    def __init__(self):
        self.sums = [lab.keep(Sums(*leg)) for leg in lab.topo.legs]
        self.begin()

    def begin(self):
        for one in self.sums:
            one.look()

    def judge(self, what, least):
        """`least` packets each way."""
        for one in self.sums:
            seen, summed, wrong = one.look()
            check(summed >= least, f"{what}: {summed} of {seen} packets are summed at {one.name}")
            equal(wrong, 0, f"{what}: wrong sums at {one.name}, of {summed}")


def errors():
    """Checksum errors that the stacks of both ends have counted."""
    found = []
    for node in (lab.topo.client, lab.topo.peer):
        rows = [line.split() for line in node.run("cat", "/proc/net/snmp").splitlines()]
        found += [dict(zip(names, values))["InCsumErrors"] for names, values in zip(rows, rows[1:])
                  if names[0] == values[0] in ("Tcp:", "Udp:") and "InCsumErrors" in names]
    return found


def pair(version):
    changes = engines.config(lab, "wire")
    return engines.pair(lab, "wire", changes=changes, version=version)


def test(name):
    """A test over each protocol, after which no end has met a wrong checksum."""
    def register(function):
        for version in (4, 6):
            def run(version=version):
                before = errors()
                function(Watch(), version)
                equal(errors(), before, "checksum errors at client and peer")
            tap.add(f"{name} (IPv{version})", run)
    return register


@test("bytes both ways, and both ends of stream")
def _(watch, version):
    data, peer, _ = pair(version)
    watch.begin()
    swap(data, peer, MIB, version)
    watch.judge("bytes both ways", 500)
    ping(data, peer)
    for sock in (data, peer):
        sock.shutdown(socket.SHUT_WR)
    for sock in (peer, data):
        equal(ended(sock), "fin", "end of stream")
    watch.judge("the ends", 2)


@test("both ends without timestamps, or without SACK")
def _(watch, version):
    for option in ("tcp_timestamps", "tcp_sack"):
        with boxes.sysctl(lab.topo.client, **{option: 0}), \
                boxes.sysctl(lab.topo.peer, **{option: 0}):
            data, peer, _ = pair(version)
        watch.begin()
        swap(data, peer, 200 * KIB, option)
        watch.judge(option, 100)


@test("a reset each way")
def _(watch, version):
    for whom in ("peer", "client"):
        data, peer, _ = pair(version)
        ping(data, peer)
        source, sink = toward(whom, data, peer)
        reset(source)
        equal(ended(sink), "rst", f"end of the {whom}")
    watch.judge("resets", 1)


@test("segments too long for the other leg: their sender is told")
def _(watch, version):
    data, end, _ = pair(version)
    text = payload(300 * KIB, "long")
    for node, device in lab.topo.legs[2:]:
        node.run("ip", "link", "set", device, "mtu", "1400")
    try:
        job = sender(data, text)
        same(receive(end, len(text)), text, "to the peer by 1400 bytes")
        job.finish()
        swap(data, end, 100 * KIB, "long")
    finally:
        for node, device in lab.topo.legs[2:]:
            node.run("ip", "link", "set", device, "mtu", "1500")
        lab.topo.client.run("ip", f"-{version}", "route", "flush", "cache")
    watch.judge("long segments", 100)


@test("datagrams on a lane both ways, to a peer of each family")
def _(watch, version):
    relay = lab.topo.relay
    changes = {"listener datagrams": {"transport": "udp",
                                      "address": f"0.0.0.0:{lab.port}, [::]:{lab.port}"},
               "relay": {"address": f"{relay.addr(4)}, {relay.addr(6)}"}}
    server = lab.server(changes)
    for to in (4, 6):
        lane(watch, server, version, to)


def lane(watch, server, version, to):
    client = lab.keep(turn.Datagrams(lab.topo.client, server.address(version)))
    peer = lab.keep(lab.topo.peer.bound(to, udp=True))
    client.allocate(*([turn.family(6)] if to == 6 else []), protocol=UDP)
    equal(client.channel_bind_code(peer.getsockname(), CHANNEL), 0, "ChannelBind")
    peer.connect(client.relayed)

    def wired():
        return server.counters()["datagrams_on_wire"]

    def both_ways(data):
        told = struct.pack("!HH", CHANNEL, len(data)) + data
        client.sock.sendall(told)
        same(peer.recv(65536), data, f"{len(data)} bytes to the peer")
        peer.sendall(data)
        same(client.sock.recv(65536), told, f"{len(data)} bytes to the client")

    before = wired()
    wait_for(lambda: both_ways(b"to the lane") or wired() > before, 10, "the channel is on wire")
    before = wired()
    watch.begin()
    sizes = [1, 2, 3, 4, 50, 199, 1200, 1400]
    for size in sizes:
        both_ways(payload(size, size))
    watch.judge("datagrams", len(sizes))
    equal(wired() - before, 2 * len(sizes), "datagrams by wire")


try:
    build()
except tap.Skip as why:
    tap.skip_all(why)
tap.main()
