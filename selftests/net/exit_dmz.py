#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Natural DMZ: two exit routers on one network hand each other what the other's provider lets out.

Each router has an exit with the link of its own provider, and one whose next hop is the other
router. The host sends everything to the first router, whatever the source.
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
UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES)


def exits(server, *args):
    """culvertctl exits on the server's router."""
    config = [] if "remove" in args else ["-c", server.conf_path]
    return server.node.run(binary("culvertctl"), "exits", *args, *config)


def router(own):
    """culvertd on the router that has this provider's link."""
    other = "b" if own == "a" else "a"
    node, far = site.router if own == "a" else reversed(site.router)
    sections = {f"exit isp-{own}": {"link": f"to_{own}", "next_hop": ", ".join(HOP[own].values()),
                                    "prefix": ", ".join(PREFIX[own].values())},
                f"exit isp-{other}": {"next_hop": f"{far.addr(4)}, {far.addr(6)}",
                                      "prefix": ", ".join(PREFIX[other].values())}}
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
        for server in servers:
            server.stop()
            exits(server, "remove")


@test("each source leaves by its provider, whichever router it comes to; 0 packets dropped", 40)
def _():
    with routers() as servers, nothing_dropped(site):
        for node in (site.client, *site.router):
            for version in (4, 6):
                for index in (0, 1):
                    reached(site, node, version, index)
        for server in servers:
            said = exits(server)
            equal(said.count(" up "), 2, f"exits that are up in:\n{said}")


def redirects():
    """ICMP redirects of both families that the host has got so far."""
    said = site.client.run("nstat", "-asz", "IcmpInRedirects", "Icmp6InRedirects")
    return sum(int(line.split()[1]) for line in said.splitlines() if "InRedirects" in line)


@test("no redirect teaches the host a way for all sources", 30)
def _():
    with routers(), nothing_dropped(site):
        for version in (4, 6):
            for _ in range(3):
                reached(site, site.client, version, 1)
                reached(site, site.client, version, 0)
    equal(redirects(), 0, "redirects that the host has got")


@test("the other provider is lost: its prefix is refused, ours goes on", 40)
def _():
    with routers():
        site.router[1].run("ip", "link", "set", "to_b", "down")
        try:
            with nothing_dropped(site):
                for version in (4, 6):
                    check(refused(site, site.client, version, 1) in UNREACHABLE, "no error")
                    reached(site, site.client, version, 0)
        finally:
            site.router[1].run("ip", "link", "set", "to_b", "up")
            site.router[1].run("ip", "-6", "addr", "replace", "fd92::1/64", "dev", "to_b", "nodad")


@test("without a way to the other router its prefix is unreachable, and comes back with it", 40)
def _():
    with routers() as servers:
        site.router[0].run("ip", "addr", "del", "10.81.0.1/24", "dev", "lan")
        try:
            wait_for(lambda: " lost " in exits(servers[0]), 5, "the exit is lost")
            with nothing_dropped(site):
                reached(site, site.client, 6, 1)
        finally:
            site.router[0].run("ip", "addr", "add", "10.81.0.1/24", "dev", "lan")
        wait_for(lambda: " lost " not in exits(servers[0]), 5, "the exit is back")
        with nothing_dropped(site):
            reached(site, site.router[0], 4, 1)


tap.main()
