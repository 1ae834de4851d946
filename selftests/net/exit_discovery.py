#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Exit router discovery (appendix A): a router that tunnels a host's packets tells the host so.

The site is that of exit_mesh.py: everything goes to RXA first, and RXB has the provider of half of it.
"""

import contextlib
import errno
import json
import os
import shutil
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import tap  # noqa: E402
from culvertlab.lab import Lab  # noqa: E402
from culvertlab.mesh import Mesh, mesh_sections  # noqa: E402
from culvertlab.packets import checksum, packed  # noqa: E402
from culvertlab.server import binary  # noqa: E402
from culvertlab.site import nothing_dropped, reached  # noqa: E402
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

test = tap.test
if os.geteuid():
    tap.skip_all("needs root")
if not shutil.which("nft"):
    tap.skip_all("nft is not installed (package nftables)")
site = Mesh()
lab = Lab(topology=site)


def exits(server, *args):
    """culvertctl exits on the server's node."""
    config = [] if "remove" in args else ["-c", server.conf_path]
    return server.node.run(binary("culvertctl"), "exits", *args, *config)


def told(server):
    """How often the router has told hosts of another exit."""
    return json.loads(exits(server, "-j"))["hosts_told"]


@contextlib.contextmanager
def routers(hosts):
    """RXA and RXB, which tell these hosts; what they leave in the kernel is gone afterwards."""
    servers = []
    try:
        for own, node in zip("ab", site.router):
            sections = mesh_sections(own)
            for one in sections.values():
                one["discovery_host"] = hosts
            servers.append(lab.extra_server({"engine": {"order": "splice"}, **sections}, node=node))
        for server in servers:
            wait_for(lambda server=server: server.log_count(r"event=exits_ready"), 5, "exits")
        yield servers
    finally:
        for server in servers:
            server.stop()
            exits(server, "remove")


@contextlib.contextmanager
def flow(version=6, index=1):
    """(a socket at X that takes errors, one at Y) that talk to each other."""
    with contextlib.closing(site.peer.bound(version, udp=True)) as far, \
         contextlib.closing(site.client.bound(version, index, udp=True)) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6 if version == 6 else socket.IPPROTO_IP,
                        25 if version == 6 else 11, 1)  # the queue of errors
        sock.connect(far.getsockname()[:2])
        yield sock, far


def send(sock, data):
    """Sends, whatever error has come before."""
    try:
        sock.send(data)
    except PermissionError:
        sock.send(data)


@test("a host that wants to know is told once a second, and all it sends arrives", 20)
def _():
    with routers("fd82::/64") as servers, flow() as (sock, far), nothing_dropped(site):
        begun, count = time.monotonic(), 0
        while time.monotonic() - begun < 1.5 or count < 50:
            send(sock, b"?")
            equal(far.recv(8), b"?", "what arrives")
            count += 1
        wait_for(lambda: told(servers[0]), 2, "the host is told")
        seconds = time.monotonic() - begun
        within(told(servers[0]), 1, int(seconds) + 1, f"times in {seconds:.1f} s, {count} packets")
        _, ancillary, _, _ = sock.recvmsg(64, 256, socket.MSG_ERRQUEUE)
        number, origin, kind, code = struct.unpack("=IBBB", ancillary[0][2][:7])
        equal((number, origin, kind, code), (errno.EACCES, 3, 1, 5), "the error, of ICMPv6")
        check(not told(servers[1]), "the right router tells, too")


@test("hosts that did not ask are told nothing, nor is an error of ICMP answered", 20)
def _():
    with routers("fd82::77") as servers, nothing_dropped(site):
        for version in (4, 6):
            reached(site, site.client, version, 1)
        equal(told(servers[0]), 0, "times told")
    with routers("::/0") as servers, nothing_dropped(site):
        # An error, then something else, to another address: what is told of is that alone.
        with site.client.entered(), contextlib.closing(
                socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)) as raw:
            raw.bind(("fd82::2", 0))
            for kind, to in ((1, site.peer.addr(6)), (128, "fd94::2")):
                raw.sendto(struct.pack("!BBHI", kind, 0, 0, 0) + bytes(40), (to, 0))
        wait_for(lambda: told(servers[0]), 2, "the host is told")
        equal(told(servers[0]), 1, "times told")


@test("two hundred destinations at once are told of a hundred times a second at most", 20)
def _():
    with routers("::/0") as servers, contextlib.closing(site.client.bound(6, 1, udp=True)) as sock:
        site.peer.run("ip", "-6", "route", "add", "local", "fd99:1::/64", "dev", "lo")
        site.provider["b"].run("ip", "-6", "route", "add", "fd99:1::/64", "via", "fd94::2")
        begun = time.monotonic()
        for number in range(300):
            sock.sendto(b"?", (f"fd99:1::{number + 1:x}", 9))
        wait_for(lambda: told(servers[0]) >= 100, 3, "the host is told")
        seconds = time.monotonic() - begun
        within(told(servers[0]), 100, 100 + 100 * seconds, "times told")


tap.main()
