#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Natural DMZ: two exit routers on one network hand each other what the other's provider lets out.

Each router has an exit with the link of its own provider, and one whose next hop is the other
router. The host sends everything to the first router, whatever the source.
"""

import contextlib
import os
import socket
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import tap  # noqa: E402
from culvertlab.exits import UNREACHABLE, begin, link_down, neighbours, routers  # noqa: E402
from culvertlab.site import Site, all_reached, nothing_dropped, reached, refused  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

test = tap.test
site, lab = begin(Site, routers=2)
TRANSPARENT = {4: (socket.IPPROTO_IP, 19), 6: (socket.IPPROTO_IPV6, 75)}
ROUTER_A = {4: "10.91.0.1", 6: "fd91::1"}  # RXA, as its provider has it


def both():
    """culvertd on both routers."""
    first, second = site.router
    return routers(lab, [(first, neighbours("a", second)), (second, neighbours("b", first))])


@test("each source leaves by its provider, whichever router it comes to; 0 packets dropped", 40)
def _():
    with both() as servers, nothing_dropped(site):
        all_reached(site, site.client, *site.router)
        for server in servers:
            said = server.exits()
            equal(said.count(" up "), 2, f"exits that are up in:\n{said}")


def redirects():
    """ICMP redirects of both families that the host has got so far."""
    said = site.client.run("nstat", "-asz", "IcmpInRedirects", "Icmp6InRedirects")
    return sum(int(line.split()[1]) for line in said.splitlines() if "InRedirects" in line)


def rejected(router):
    """Packets that the guard of its own link has refused."""
    return next(row["rejected"] for row in router.rows().values() if row.get("link"))


@test("no redirect teaches the host a way for all sources", 30)
def _():
    with both(), nothing_dropped(site):
        for version in (4, 6):
            for _ in range(3):
                reached(site, site.client, version, 1)
                reached(site, site.client, version, 0)
    equal(redirects(), 0, "redirects that the host has got")


@test("the other provider is lost: its prefix is refused, ours goes on", 40)
def _():
    with both():
        with link_down(site.router[1], "to_b"), nothing_dropped(site):
            for version in (4, 6):
                check(refused(site, site.client, version, 1) in UNREACHABLE, "no error")
                reached(site, site.client, version, 0)


def states(router):
    return [row["state"] for row in router.rows().values()]


@test("without a way to the other router its prefix is unreachable, and comes back with it", 40)
def _():
    with both() as servers:
        site.router[0].run("ip", "addr", "del", "10.81.0.1/24", "dev", "lan")
        try:
            wait_for(lambda: "lost" in states(servers[0]), 5, "the exit is lost")
            with nothing_dropped(site):
                reached(site, site.client, 6, 1)
        finally:
            site.router[0].run("ip", "addr", "add", "10.81.0.1/24", "dev", "lan")
        wait_for(lambda: "lost" not in states(servers[0]), 5, "the exit is back")
        with nothing_dropped(site):
            reached(site, site.router[0], 4, 1)


@test("what a provider sends with a source of the site is not handed to the other router", 30)
def _():
    # As a neighbour on A's link would: A's own route to Y leads to RXA for this source alone.
    node = site.provider["a"]
    with both() as servers:
        for version, source in ((4, "10.82.0.2"), (6, "fd82::2")):
            to = site.peer.addr(version)
            way = (f"-{version}", "route", "add", to, "via", ROUTER_A[version], "table", "77")
            rule = (f"-{version}", "rule", "add", "from", source, "table", "77")
            node.run("ip", *way)
            node.run("ip", *rule)
            with contextlib.closing(site.peer.bound(version, udp=True)) as far, \
                 contextlib.closing(node.socket(version, socket.SOCK_DGRAM)) as sock:
                sock.setsockopt(*TRANSPARENT[version], 1)
                sock.bind((source, 0))
                before = rejected(servers[0])
                sock.sendto(b"?", far.getsockname()[:2])
                wait_for(lambda before=before: rejected(servers[0]) == before + 1, 2,
                         f"IPv{version}: it is refused")
                # So that it could have come: the site's own does.
                with contextlib.closing(site.client.bound(version, 1, udp=True)) as own:
                    own.sendto(b"!", far.getsockname()[:2])
                    equal(far.recv(8), b"!", "what arrives at Y")


tap.main()
