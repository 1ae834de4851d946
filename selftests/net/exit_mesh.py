#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Virtual DMZ: two exit routers, no neighbours, tunnel to each other what the other's provider lets out.

Each router has an exit with the link of its own provider, and one whose tunnel peer is the other
router. The site sends everything to the first router, whatever the source.
"""

import contextlib
import json
import os
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import tap  # noqa: E402
from culvertlab.exits import UNREACHABLE, begin, link_down, routers  # noqa: E402
from culvertlab.mesh import ANYCAST, ROUTER, TUNNEL, Mesh, mesh_sections  # noqa: E402
from culvertlab.packets import checksum, packed  # noqa: E402
from culvertlab.site import all_reached, nothing_dropped, reached, refused  # noqa: E402
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

test = tap.test
site, lab = begin(Mesh)
FREEBIND = 78  # IPV6_FREEBIND
# The device in the words of ip(8), and what fits into a tunnel by an Ethernet.
DEVICE, FITS = {"vxlan-gpe": ("vxlan external gpe dstport 4790", 1444),
                "ip6tnl": ("ip6tnl mode any external", 1460)}[TUNNEL]


def both(**changes):
    """culvertd on both routers. `changes`: of RXB's sections."""
    return routers(lab, [(site.router[0], mesh_sections("a")),
                         (site.router[1], {**mesh_sections("b"), **changes})])


@test("each source leaves by its provider, through a tunnel from the wrong router; 0 dropped", 40)
def _():
    with both() as servers, nothing_dropped(site):
        all_reached(site, site.client, *site.router)
        for source, far in (("10.82.0.2", "10.99.0.1"), ("fd82::2", "fd99::1")):
            said = servers[0].exits("trace", source, far)
            check(f"tunnelled to {ANYCAST['b']}" in said and "by culvert_tunnel" in said, said)
        for server in servers:
            said = server.exits()
            equal(said.count(" up "), 2, f"exits that are up in:\n{said}")
            check("nothing" in server.exits("plan"), f"left to do:\n{server.exits('plan')}")


def refusals(router):
    """Tunnelled packets that it has refused."""
    return router.told()["tunnel_refused"]


@test("the plan has the device and the routes of tunnels, remove takes them all", 30)
def _():
    with both() as servers:
        first = servers[0]
        first.server.stop()
        removed = first.exits("remove")
        for words in ("- ip link culvert_tunnel", "- ip -6 route local " + ANYCAST["a"]):
            check(words in removed, f"no \"{words}\" in:\n{removed}")
        check("culvert_tunnel" not in first.node.run("ip", "link"), "the device is still there")
        equal(first.node.run("ip", "-6", "route", "show", "table", "all", "proto", "200"), "",
              "routes that are left")
        plan = first.exits("plan")
        for words in (f"+ ip link add culvert_tunnel up mtu {FITS} type {DEVICE}",
                      f"+ ip -6 route default from fd82::/48 encap ip6 id 0 src {ROUTER['a']} "
                      f"dst {ANYCAST['b']} csum dev culvert_tunnel",
                      "+ ip -4 route default encap ip6", "+ table inet culvert_guard"):
            check(words in plan, f"no \"{words}\" in:\n{plan}")


def addresses(node):
    """{address: is it deprecated} of the tunnels' device, but for its link-local one."""
    said = json.loads(node.run("ip", "-j", "-6", "addr", "show", "dev", "culvert_tunnel"))
    return {one["local"]: one.get("deprecated", False)
            for device in said for one in device.get("addr_info", ()) if one["scope"] == "global"}


def own_address():
    """It comes back when somebody deletes it; what somebody else has put there stays."""
    ours, other = f"{ANYCAST['a']}/128", "fd86::77"
    line = f"ip -6 address {ours} dev culvert_tunnel"
    with both() as (first, second):
        node = first.node
        equal(addresses(node), {ANYCAST["a"]: True}, "what is there")
        node.run("ip", "-6", "addr", "add", other, "dev", "culvert_tunnel")
        node.run("ip", "-6", "addr", "del", ours, "dev", "culvert_tunnel")
        wait_for(lambda: addresses(node) == {ANYCAST["a"]: True, other: False}, 5,
                 "ours is back, the other is left alone")
        reached(site, second.node, 6, 0)
        node.run("ip", "link", "set", "culvert_tunnel", "down")
        wait_for(lambda: ANYCAST["a"] in addresses(node), 5, "the device is up, with the address")
        reached(site, second.node, 6, 0)
        first.server.stop()
        equal(first.exits("plan").strip(), "nothing to be changed", "the plan")
        check(f"- {line}" in first.exits("remove"), "the address is not removed")
        check(f"+ {line}" in first.exits("plan"), "the plan has no address")


if TUNNEL == "ip6tnl":  # which is for addresses of a device alone
    tap.add("the tunnels' device has the anycast addresses: planned, healed, removed", own_address, 60)


@test("what cannot be reached by a tunnel any more is refused at once, the rest goes on", 40)
def _():
    way = (f"{ANYCAST['b']}/128", "via", "fd86::1")
    with both() as servers:
        first = site.router[0]
        first.run("ip", "-6", "route", "del", *way)
        try:
            wait_for(lambda: servers[0].rows()["isp-b"]["state"] == "lost", 5, "the exit is lost")
            for source, far in (("10.82.0.2", "10.99.0.1"), ("fd82::2", "fd99::1")):
                said = servers[0].exits("trace", source, far)
                check("isp-b is dead for it" in said and "unreachable" in said, said)
            with nothing_dropped(site):
                for version in (4, 6):
                    begun = time.monotonic()
                    check(refused(site, site.client, version, 1) in UNREACHABLE, "no error")
                    within(time.monotonic() - begun, 0, 1.9, "seconds until the error")
                    reached(site, site.client, version, 0)
        finally:
            first.run("ip", "-6", "route", "replace", *way)
        wait_for(lambda: servers[0].rows()["isp-b"]["state"] == "up", 5, "the exit is back")
        with nothing_dropped(site):
            for version in (4, 6):
                reached(site, site.client, version, 1)


@test("the other router's provider is lost: its prefix is refused at once, by that router", 40)
def _():
    with both():
        with link_down(site.router[1], "to_b"), nothing_dropped(site):
            for version in (4, 6):
                check(refused(site, site.client, version, 1) in UNREACHABLE, "no error")
                reached(site, site.client, version, 0)


@test("the first packet that is too big for the tunnel is answered with its size, both families", 30)
def _():
    with both():
        for version, level, discover, do, error, size in (
                (4, socket.IPPROTO_IP, 10, 2, 11, 14), (6, socket.IPPROTO_IPV6, 23, 2, 25, 24)):
            with contextlib.closing(site.client.bound(version, 1, udp=True)) as sock:
                sock.setsockopt(level, discover, do)  # never fragment
                sock.setsockopt(level, error, 1)
                sock.connect((site.peer.addr(version), 9))
                sock.send(bytes(1500 - (28 if version == 4 else 48)))
                wait_for(lambda sock=sock, level=level, size=size:
                         sock.getsockopt(level, size) == FITS, 2, f"IPv{version}: the path's MTU")


def gpe(inner):
    """An IPv6 packet in VXLAN-GPE."""
    return struct.pack("!BHBI", 0x0C, 0, 2, 0) + inner


def datagram(source, to, port):
    """A whole IPv6 packet with an empty datagram."""
    ends = packed(source) + packed(to)
    udp = struct.pack("!HHH", port, port, 8)
    summed = checksum(ends + struct.pack("!II", 8, socket.IPPROTO_UDP) + udp + bytes(2))
    return (struct.pack("!IHBB", 6 << 28, 8, socket.IPPROTO_UDP, 64) + ends + udp +
            struct.pack("!H", summed or 0xFFFF))


def tunnelled(node, source, to, port):
    """Sends Y what a host of B's prefix would, in a tunnel, from any address."""
    inner = datagram("fd82::2", site.peer.addr(6), port)
    if TUNNEL == "ip6tnl":
        with node.entered(), contextlib.closing(socket.socket(
                socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_IPV6)) as raw:
            raw.setsockopt(socket.IPPROTO_IPV6, FREEBIND, 1)
            raw.bind((source, 0))
            raw.sendto(inner, (to, 0))
        return
    with contextlib.closing(node.socket(6, socket.SOCK_DGRAM)) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, FREEBIND, 1)
        sock.bind((source, 0))
        sock.sendto(gpe(inner), (to, 4790))


@test("nobody but a tunnel peer has packets let out: forged outer headers, inside and outside", 30)
def _():
    with both() as servers, contextlib.closing(site.peer.bound(6, udp=True)) as far:
        port = far.getsockname()[1]
        for node, source in ((site.peer, "fd99::1"), (site.peer, ROUTER["a"]),
                             (site.client, "fd82::2"), (site.client, "fd81::2")):
            wanted = refusals(servers[1]) + 1
            tunnelled(node, source, ANYCAST["b"], port)
            wait_for(lambda wanted=wanted: refusals(servers[1]) == wanted, 2,
                     f"a tunnelled packet of {source} is refused")
        # By RXA's link, for RXB and as if from there: refused where it comes in.
        tunnelled(site.peer, ROUTER["b"], ANYCAST["a"], port)
        wait_for(lambda: refusals(servers[0]) == 1, 2, "it is refused at the other router")
        far.settimeout(0)
        try:
            raise AssertionError(f"{far.recv(64)} is let out")
        except BlockingIOError:
            pass
        # So that something could have come.
        far.settimeout(5)
        tunnelled(site.router[0], ROUTER["a"], ANYCAST["b"], port)
        equal(far.recvfrom(64)[1][0], "fd82::2", "the source of what a peer has tunnelled")


@test("what a provider sends with a source of the site is not tunnelled to the other one", 30)
def _():
    # As a neighbour on A's link would: A's own route to Y for this source alone leads to RXA.
    way = ("fd99::1", "from", "fd82::/64", "via", "fd91::1")
    with both() as servers, contextlib.closing(site.peer.bound(6, udp=True)) as far, \
         contextlib.closing(site.provider["a"].socket(6, socket.SOCK_DGRAM)) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, FREEBIND, 1)
        sock.bind(("fd82::2", 0))
        site.provider["a"].run("ip", "-6", "route", "add", *way)
        try:
            sock.sendto(b"?", ("fd99::1", far.getsockname()[1]))
            wait_for(lambda: refusals(servers[0]) == 1, 2, "it is refused")
        finally:
            site.provider["a"].run("ip", "-6", "route", "del", *way)
        # So that it could have come: the site's own does.
        with contextlib.closing(site.client.bound(6, 1, udp=True)) as own:
            own.sendto(b"!", ("fd99::1", far.getsockname()[1]))
            equal(far.recv(8), b"!", "what arrives at Y")


def sent(node):
    """Packets that went into tunnels there."""
    said = json.loads(node.run("ip", "-s", "-j", "link", "show", "culvert_tunnel"))
    return said[0]["stats64"]["tx"]["packets"]


@test("two routers that take each other for the right one: one packet too much, and an error", 30)
def _():
    # RXB believes that B's link is at RXA's; each tunnels to the other's own address.
    loop = {"prefix": "10.82.0.0/24, fd82::/48", "anycast": ROUTER["a"], "tunnel_peer": ROUTER["a"],
            "tunnel": TUNNEL}
    with both(**{"exit isp-b": loop}) as servers:
        first = servers[0]
        first.server.sections["exit isp-b"]["anycast"] = ROUTER["b"]
        first.server.write_config()
        equal(first.server.reload(), "reloaded", "the reload")
        wait_for(lambda: "nothing" in first.exits("plan"), 5, "it is so")
        wait_for(lambda: servers[1].rows()["isp-b"]["state"] == "up", 5, "RXB believes so")
        for version in (4, 6):
            before = [sent(node) for node in site.router]
            check(refused(site, site.client, version, 1) in UNREACHABLE, "no error")
            after = [sent(node) for node in site.router]
            within(after[0] - before[0], 1, 2, "SYNs that RXA has tunnelled")
            equal(after[1], before[1], "packets that RXB has tunnelled back")


tap.main()
