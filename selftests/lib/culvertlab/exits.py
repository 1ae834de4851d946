# SPDX-License-Identifier: BSD-2-Clause
"""culvertd with [exit] sections on the routers of a site, and what it says of them."""

import contextlib
import errno
import json
import os
import shutil

from . import tap
from .lab import Lab
from .server import binary
from .site import HOP, NETS, PREFIX
from .wait import wait_for

UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES)


def require():
    """Skips the whole script where no site can be made."""
    if os.geteuid():
        tap.skip_all("needs root")
    if not shutil.which("nft"):
        tap.skip_all("nft is not installed (package nftables)")


def begin(kind, **more):
    """The site of a script, of this class, and its lab; skips where there can be none."""
    require()
    site = kind(**more)
    return site, Lab(topology=site)


def linked(keys="ab", **more):
    """Sections of these providers' exits on the router with the links to them."""
    return {f"exit isp-{key}": {"link": f"to_{key}", "next_hop": ", ".join(HOP[key].values()),
                                "prefix": ", ".join(PREFIX[key].values()), **more} for key in keys}


def neighbours(own, far):
    """Sections of the router with this provider's link; `far`, on one network with it, has the
    other's."""
    other = "b" if own == "a" else "a"
    return {**linked(own), f"exit isp-{other}": {"next_hop": f"{far.addr(4)}, {far.addr(6)}",
                                                 "prefix": ", ".join(PREFIX[other].values())}}


def ask(server, *args):
    """What culvertctl exits says, of this server's configuration and on its node."""
    config = [] if "remove" in args else ["-c", server.conf_path]
    return server.node.run(binary("culvertctl"), "exits", *args, *config)


def await_ready(server, timeout=5):
    """Waits until the exits of a new server are there."""
    wait_for(lambda: server.log_count(r"event=exits_ready"), timeout, "exits are ready")


class Router:
    """culvertd on one node of a site; `sections` are its exits."""

    def __init__(self, lab, node, sections, timeout=5):
        self.node = node
        self.server = lab.extra_server({"engine": {"order": "splice"}, **sections}, node=node)
        try:
            await_ready(self.server, timeout)
        except BaseException:
            self.close()
            raise

    def exits(self, *args):
        """What culvertctl exits says here."""
        return ask(self.server, *args)

    def told(self):
        """All that it tells, as data."""
        return json.loads(self.exits("-j"))

    def rows(self):
        """{exit: what culvertctl tells of it}"""
        return {row["name"]: row for row in self.told()["exits"]}

    def close(self):
        """Stops it and takes away what it leaves in the kernel."""
        self.server.stop()
        self.exits("remove")


@contextlib.contextmanager
def routers(lab, sections, timeout=5):
    """Runs one on each node: pairs of node and sections; gone afterwards."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Router(lab, node, each, timeout)))
               for node, each in sections]


@contextlib.contextmanager
def link_down(node, link, address6=None):
    """A link of a node is down inside the block; its IPv6 address comes back with it.

    Without that: a router's link to a provider.
    """
    address6 = address6 or f"fd{NETS[link[-1]][1]}::1/64"
    node.run("ip", "link", "set", link, "down")
    try:
        yield
    finally:
        node.run("ip", "link", "set", link, "up")
        node.run("ip", "-6", "addr", "replace", address6, "dev", link, "nodad")
        # The kernel may wait for a second before it says so, and what it is not up for is lost.
        wait_for(lambda: " state UP " in node.run("ip", "link", "show", "dev", link), 5,
                 f"{link} is up again")
