#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""exit_cost.py [--quick]: what choosing an exit costs a forwarded packet, and how soon it changes.

Lookup: nanoseconds of processor time that a router takes for a packet it forwards, with so many
prefixes of two exits, beside `ip rule` with a rule for each prefix and BIRD with a source-specific
route for each (IPv6; babeld makes the same routes).  "none" has the main table alone, and so has
"a rule", but there were others before: from the first one on the kernel goes through its rules
for each packet.  "no guard" is culvert's choice of an exit alone, which is what the others do,
without the guards of the links.  The packets are of the prefix that the rules have last, to which
the router has a way back, and are dropped where they would arrive; what sending them costs is
measured by dropping them before the router, and taken off.  Each is the least of several runs.

Fail-over: milliseconds from the moment before the link is taken down to the first error at the
host, and, where another exit is authorised, to the first packet that arrives by that one; the
latter beside BIRD and babeld alone (IPv6), with two ways for the source, and no other default.
Needs root.
"""

import argparse
import contextlib
import fcntl
import os
import socket
import struct
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import exits, routing, tap  # noqa: E402
from culvertlab.lab import Lab  # noqa: E402
from culvertlab.site import HOP, PREFIX, Site  # noqa: E402
from culvertlab.topo import run  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

UDP_SEGMENT, IP_RECVERR, IPV6_RECVERR = 103, 11, 25
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
SIZE, BURST = 64, 64  # bytes, and packets of one call
FAR = {4: ("100.128.0.1", 9), 6: ("fd43::1", 9)}
BACK = {4: ("100.64.0.0/10", "via", "10.81.0.2"), 6: ("fd42::/16", "via", "fd81::2")}
DROP = """
table netdev sink {
    chain arriving {
        type filter hook ingress device "%s" priority 0
        ip saddr 100.64.0.0/10 drop
        ip6 saddr fd42::/16 drop
    }
}
"""


def prefix(version, index):
    if version == 4:
        return f"100.{64 + (index >> 8)}.{index & 255}.0/24"
    return f"fd42:0:0:{index:x}::/64"


class Ways:
    """Each contestant: makes the router choose among so many prefixes, until it is left."""

    def __init__(self, site, lab):
        self.site, self.lab, self.relay = site, lab, site.relay

    @contextlib.contextmanager
    def none(self, _version, _count):
        yield

    @contextlib.contextmanager
    def rules(self, version, count):
        """A rule for each prefix, and a table with the provider's route."""
        lines = [f"rule add from {prefix(version, index)} lookup 100 pref 1000"
                 for index in range(count)]
        lines.append(f"route add {'default' if version == 4 else '::/0'} via {HOP['a'][version]} "
                     "table 100")
        self._batch(version, lines)
        yield
        self._batch(version, [line.replace(" add ", " del ", 1) for line in lines])

    def _batch(self, version, lines):
        run("ip", f"-{version}", "-n", self.site.names[1], "-batch", "-",
            input="\n".join(lines) + "\n")

    @contextlib.contextmanager
    def _exits(self, version, count):
        """Every other prefix is B's; half of each is authorised."""
        every = [prefix(version, index) for index in reversed(range(count))]
        made = {f"exit isp-{key}": {"link": f"to_{key}", "next_hop": HOP[key][version],
                                    "prefix": every[first::4], "authorised": every[first + 2::4]}
                for key, first in (("a", 0), ("b", 1))}
        with exits.routers(self.lab, [(self.relay, made)], 120) as (running,):
            yield running

    @contextlib.contextmanager
    def culvert(self, version, count):
        with self._exits(version, count):
            yield

    @contextlib.contextmanager
    def unguarded(self, version, count):
        """What culvertd leaves when it ends, less the guards, which it would put back."""
        with self._exits(version, count) as running:
            running.server.stop()
            self.relay.run("nft", "delete", "table", "inet", "culvert_exits")
            yield

    @contextlib.contextmanager
    def bird(self, _version, count):
        daemon = routing.BirdOfSources(self.lab, self.relay, [HOP["a"][6]],
                                       [prefix(6, index) for index in range(count)])
        with contextlib.closing(daemon):
            wait_for(lambda: self.relay.run("ip", "-6", "route", "show", "proto", "bird")
                     .count("from") >= count, 60, "BIRD has made its routes")
            yield


class Meter:
    """Sends from a prefix, as fast as it can; where it goes is dropped."""

    def __init__(self, site, seconds):
        self.site, self.seconds = site, seconds
        site.client.run("ip", "link", "set", "site", "gso_max_segs", "1")

    @contextlib.contextmanager
    def source(self, version, index):
        net = prefix(version, index)
        own = net.replace(".0/24", ".7/32") if version == 4 else net.replace("::/64", "::7/128")
        self.site.client.run("ip", "addr", "add", own, "dev", "lo",
                             *(["nodad"] if version == 6 else []))
        with self.site.client.entered():
            sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6,
                                 socket.SOCK_DGRAM)
        with sock:
            sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, SIZE)
            sock.bind((own.split("/", maxsplit=1)[0], 0))
            sock.connect(FAR[version])
            yield sock
        self.site.client.run("ip", "addr", "del", own, "dev", "lo")

    def run(self, sock, node, device):
        """Nanoseconds a packet that is dropped there."""
        run(*node.command(["nft", "-f", "-"]), input=DROP % device)
        data, count = bytes(SIZE * BURST), 0
        # These devices forward in the time of whoever sends.
        begun, until = time.thread_time(), time.monotonic() + self.seconds
        while time.monotonic() < until:
            sock.send(data)
            count += BURST
        took = time.thread_time() - begun
        node.run("nft", "delete", "table", "netdev", "sink")
        return 1e9 * took / count


def lookups(site, lab, sizes, seconds, runs):
    """{(version, contestant, prefixes): nanoseconds}"""
    ways, meter, found = Ways(site, lab), Meter(site, seconds), {}
    cases = [("none", ways.none, (4, 6), [1])]
    # Those that make rules come last.
    cases += [(name, way, versions, sizes) for name, way, versions in (
        ("BIRD", ways.bird, (6,)), ("culvert", ways.culvert, (4, 6)),
        ("no guard", ways.unguarded, (4, 6)), ("ip rule", ways.rules, (4, 6)))]
    cases.append(("a rule", ways.none, (4, 6), [1]))
    for name, way, versions, counts in cases:
        for version in versions:
            # Rules of IPv4 take minutes to make when there are thousands.
            for count in (each for each in counts
                          if name != "ip rule" or version == 6 or each <= 1000):
                try:
                    with way(version, count), meter.source(version, count - 1) as sock:
                        whole = min(meter.run(sock, site.provider["a"], "site")
                                    for _ in range(runs))
                        alone = min(meter.run(sock, site.relay, "lan") for _ in range(runs))
                except tap.Skip as why:
                    print(f"{name}: {why}")
                    continue
                found[version, name, count] = whole - alone
                print(f"IPv{version}  {name:8} {count if counts is sizes else 0:6} prefixes "
                      f"{whole - alone:9.0f} ns a packet", flush=True)
    return found


def link_flags(node, link, up):
    """Takes a link up or down; the moment before."""
    with node.socket() as sock:
        name = link.encode()
        flags = struct.unpack("16sh", fcntl.ioctl(sock, SIOCGIFFLAGS,
                                                  struct.pack("16sh14x", name, 0))[:18])[1]
        flags = flags | IFF_UP if up else flags & ~IFF_UP
        begun = time.monotonic()
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", name, flags))
        return begun


def outage(site, version, want):
    """Milliseconds until the host has an error ("reject") or Y a packet sent since ("other")."""
    with site.peer.bound(version, udp=True) as far, \
            site.client.datagrams(far.getsockname()[:2], 1) as near:
        if version == 4:
            near.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        else:
            near.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        result, stop = [], threading.Event()

        def errors():
            while not stop.wait(0.0001):
                try:
                    near.send(struct.pack("d", time.monotonic()))
                except OSError:
                    if want == "reject":
                        result.append(time.monotonic())
                        return
        near.send(struct.pack("d", 0))
        far.recv(64)
        sender = threading.Thread(target=errors, daemon=True)
        sender.start()
        begun = link_flags(site.relay, "to_b", False)
        if want == "other":
            while struct.unpack("d", far.recv(64))[0] < begun:
                pass
            result.append(time.monotonic())
        else:
            sender.join(5)
        stop.set()
        sender.join()
    link_flags(site.relay, "to_b", True)
    site.relay.run("ip", "-6", "addr", "replace", "fd92::1/64", "dev", "to_b", "nodad")
    return 1000 * (result[0] - begun) if result else float("nan")


def outages(site, version, want, runs, ready, who="culvert"):
    """Takes the link down so often, and tells how long it took."""
    times = []
    for _ in range(runs):
        wait_for(ready, 30, "the first way is there")
        times.append(outage(site, version, want))
    what = "an error at the host" if want == "reject" else "a packet by the other exit"
    print(f"IPv{version}  {who:8} link lost to {what}: {min(times):.2f} to {max(times):.2f} ms",
          flush=True)


@contextlib.contextmanager
def bird_alone(site, lab):
    daemon = routing.BirdOfSources(lab, site.relay, [HOP["b"][6], HOP["a"][6]], [PREFIX["b"][6]])
    with contextlib.closing(daemon):
        yield


@contextlib.contextmanager
def babeld_alone(site, lab):
    """The providers tell of B's prefix, A of a dearer way."""
    routing.need("babeld")
    with contextlib.ExitStack() as stack:
        for key, net, metric in (("a", 93, 4096), ("b", 94, 256)):
            route = ["default", "from", PREFIX["b"][6], "via", f"fd{net}::2", "proto", "static"]
            node = site.provider[key]
            node.run("ip", "-6", "route", "add", *route)
            stack.callback(node.run, "ip", "-6", "route", "del", *route)
            stack.enter_context(contextlib.closing(routing.BabeldOfSources(
                lab, node, ["site"], [PREFIX["b"][6]], metric)))
        stack.enter_context(contextlib.closing(
            routing.Babeld(lab, site.relay, ["to_a", "to_b"])))
        yield


def daemons(site, lab, runs):
    """What routing daemons take that have no helper: IPv6."""
    plain = ["default", "via", HOP["a"][6]]
    site.relay.run("ip", "-6", "route", "del", *plain)
    try:
        for name, alone in (("BIRD", bird_alone), ("babeld", babeld_alone)):
            try:
                with alone(site, lab):
                    outages(site, 6, "other", runs, lambda: any(
                        "from " + PREFIX["b"][6] in line and "dev to_b" in line for line in
                        site.relay.run("ip", "-6", "route", "show").splitlines()), name)
            except tap.Skip as why:
                print(f"{name}: {why}")
    finally:
        site.relay.run("ip", "-6", "route", "add", *plain)


def failovers(site, lab, runs):
    site.authorise("a", [PREFIX["b"]])
    site.announce("a", PREFIX["b"])
    for want, more in (("reject", {}), ("other", {"authorised": ", ".join(PREFIX["b"].values())})):
        made = {f"exit isp-{key}": {"link": f"to_{key}", "next_hop": ", ".join(HOP[key].values()),
                                    "prefix": ", ".join(PREFIX[key].values())}
                for key in ("a", "b")}
        made["exit isp-a"].update(more)
        for version in (4, 6):
            # Another one each time: an exit that flaps is held back. A host is told once a second.
            with exits.routers(lab, [(site.relay, made)]) as (running,):
                outages(site, version, want, runs, lambda running=running, version=version:
                        running.rows()["isp-b"]["state"] == "up" and "elements" not in
                        site.relay.run("nft", "list", "set", "inet", "culvert_exits",
                                       f"told_{version}"))
    daemons(site, lab, runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="up to 1000 prefixes, within 90 s")
    quick = parser.parse_args().quick
    if os.geteuid():
        sys.exit("exit_cost: network namespaces need root; run: sudo make bench-exits")
    site = Site()
    lab = Lab(topology=site)
    try:
        for version in (4, 6):
            far = "100.128.0.0/16" if version == 4 else "fd43::/16"
            site.relay.run("ip", f"-{version}", "route", "add", far, "via", HOP["a"][version])
            # The kernel looks for the way back of each packet of IPv4 when there are rules.
            site.relay.run("ip", f"-{version}", "route", "add", *BACK[version])
        lookups(site, lab, (10, 1000) if quick else (10, 1000, 10000), 0.2 if quick else 1,
                3 if quick else 5)
        failovers(site, lab, 2 if quick else 4)
    finally:
        lab.close()


main()
