#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Anycast addresses of exits: whether another router's exit is there, told by a host route.

The site of two routers on one network (exit_dmz.py), whose exits go by their anycast addresses.
What a routing protocol would do between the routers is done by hand: RXA gets the host routes to
B's anycast addresses, and loses them.
"""

import contextlib
import errno
import os
import shutil
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import tap  # noqa: E402
from culvertlab.lab import Lab  # noqa: E402
from culvertlab.server import binary  # noqa: E402
from culvertlab.site import HOP, PREFIX, Site, nothing_dropped, reached, refused  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

test = tap.test
if os.geteuid():
    tap.skip_all("needs root")
if not shutil.which("nft"):
    tap.skip_all("nft is not installed (package nftables)")
site = Site(routers=2)
lab = Lab(topology=site)
RXA, RXB = site.router
# That of IPv6 is made of the prefix, that of IPv4 must be configured.
ANYCAST = {"a": {4: "10.81.0.254", 6: "fd81::ffff:ffff:ffff:ffff"},
           "b": {4: "10.82.0.254", 6: "fd82::ffff:ffff:ffff:ffff"}}
UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES)


def exits(server, *args):
    """culvertctl exits on the server's router."""
    config = [] if "remove" in args else ["-c", server.conf_path]
    return server.node.run(binary("culvertctl"), "exits", *args, *config)


def router(own):
    """culvertd on the router that has this provider's link."""
    other = "b" if own == "a" else "a"
    node, far = site.router if own == "a" else reversed(site.router)
    sections = {f"exit isp-{own}": {"link": f"to_{own}", "next_hop": ", ".join(HOP[own].values())},
                f"exit isp-{other}": {"next_hop": f"{far.addr(4)}, {far.addr(6)}"}}
    for key in ("a", "b"):
        sections[f"exit isp-{key}"].update({"prefix": ", ".join(PREFIX[key].values()),
                                            "anycast": ANYCAST[key][4], "health": "anycast"})
    server = lab.extra_server({"engine": {"order": "splice"}, **sections}, node=node)
    wait_for(lambda: server.log_count(r"event=exits_ready"), 5, "exits are ready")
    return server


@contextlib.contextmanager
def routers():
    """Both; what they leave in the kernel is gone afterwards."""
    servers = [router("a"), router("b")]
    try:
        yield servers
    finally:
        for version in (4, 6):
            withdraw(version)
        for server in servers:
            server.stop()
            exits(server, "remove")


def announce(version, kind=()):
    """RXA learns the way to B's anycast address; kind: ("unreachable",) for none."""
    via = () if kind else ("via", RXB.addr(version), "dev", "lan")
    RXA.run("ip", f"-{version}", "route", "replace", *kind, ANYCAST["b"][version], *via,
            "proto", "babel", "metric", "50")


def withdraw(version):
    """RXA has no host route to it any more."""
    RXA.run("sh", "-c", f"ip -{version} route flush {ANYCAST['b'][version]} proto babel || :")


def become(server, state):
    """Waits until one exit of the server has that state, and its routes are as they should be."""
    wait_for(lambda: f" {state} " in exits(server) and "nothing" in exits(server, "plan"), 5,
             f"the exit is {state}")


def up(server):
    """Waits until both are."""
    wait_for(lambda: exits(server).count(" up ") == 2 and "nothing" in exits(server, "plan"), 5,
             "both exits are up")


@test("an exit of another router is used while there is a host route to its anycast address", 40)
def _():
    with routers() as (first, _):
        for version in (4, 6):
            become(first, "dead")
            with nothing_dropped(site):
                check(refused(site, site.client, version, 1) in UNREACHABLE, "no error at the host")
            announce(version)
        up(first)
        with nothing_dropped(site):
            for version in (4, 6):
                reached(site, site.client, version, 0)
                reached(site, site.client, version, 1)


@test("a host route that goes, or becomes unreachable, takes the exit away at once", 40)
def _():
    for version in (4, 6):
        with routers() as (first, _):
            for way in (4, 6):
                announce(way)
            up(first)
            announce(version, ("unreachable",))
            become(first, "dead")
            with nothing_dropped(site):
                check(refused(site, site.client, version, 1) in UNREACHABLE, "no error at the host")
                reached(site, site.client, version, 0)
                reached(site, site.client, 10 - version, 1)
            announce(version)
            up(first)
            withdraw(version)
            become(first, "dead")
            check(refused(site, site.client, version, 1) in UNREACHABLE, "no error at the host")


def has_anycast(node, key):
    """Has it the anycast addresses of this provider, to announce and as its own?"""
    found = []
    for version in (4, 6):
        for table in ("main", "local"):
            said = node.run("ip", f"-{version}", "route", "show", "table", table, "proto", "200")
            found.append(ANYCAST[key][version] in said)
    check(all(found) or not any(found), f"some are there: {found}")
    return all(found)


@test("a router has its own exit's anycast addresses while the link is up", 30)
def _():
    with routers():
        check(has_anycast(RXA, "a") and has_anycast(RXB, "b"), "they are not there")
        check(not has_anycast(RXA, "b"), "RXA has those of B")
        RXB.run("ip", "link", "set", "to_b", "down")
        try:
            wait_for(lambda: not has_anycast(RXB, "b"), 5, "those of B are withdrawn")
        finally:
            RXB.run("ip", "link", "set", "to_b", "up")
            RXB.run("ip", "-6", "addr", "replace", "fd92::1/64", "dev", "to_b", "nodad")
        wait_for(lambda: has_anycast(RXB, "b"), 5, "they are back")


tap.main()
