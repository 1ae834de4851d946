#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A relay whose relayed address leaves by another exit router than its own.

It runs on RXA and relays an address of B's prefix, whose link RXB has: on the same network (natural
DMZ), where wire carries the pairs, or behind a tunnel (virtual DMZ), where it does not.
"""

import contextlib
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import engines, tap, turn  # noqa: E402
from culvertlab.data import KIB, MIB, swap  # noqa: E402
from culvertlab.exits import Router, await_ready, neighbours, require  # noqa: E402
from culvertlab.lab import Lab  # noqa: E402
from culvertlab.mesh import Mesh, mesh_sections  # noqa: E402
from culvertlab.site import Site, nothing_dropped  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

test = tap.test
require()
# RXA's, of its link to the site's router.
INNER_ADDRESS = {4: "10.86.0.2", 6: "fd86::2"}


@contextlib.contextmanager
def relay(lab, first, second):
    """culvertd on RXA, which relays, and on RXB, with these exits."""
    with contextlib.closing(Router(lab, lab.topo.router[1], second)):
        relayed = ", ".join(lab.topo.relay.addr(version, 1) for version in (4, 6))
        server = lab.server({"engine": {"order": "wire, splice", "wire": "always"},
                             "relay": {"address": relayed}, **first}, fresh=True)
        await_ready(server)
        wait_for(lambda: [row for row in server.engines() if row["name"] == "wire"][0][
            "available"], 5, "wire works")
        yield server
        lab.stop_server()


def pairs(lab, server, version, address):
    """Two pairs with a relayed address of B's prefix, by Connect and by ConnectionAttempt."""
    client = lab.keep(turn.Control(lab.topo.client, (address, server.port)))
    client.allocate(*([turn.family(6)] if version == 6 else []))
    equal(client.relayed[0], lab.topo.relay.addr(version, 1), "the relayed address")
    yield lab.pair(client, version)[:2]
    yield lab.incoming(client, version=version)


def refusals(server):
    """{reason: pairs} that were not taken by wire."""
    row, = [row for row in server.engines() if row["name"] == "wire"]
    return {one["reason"]: one["count"] for one in row["fallbacks"]}


def left_by_b(site):
    """Large packets count once."""
    passed = site.passed()
    check(passed["b"] > 100 and not passed["a"], f"packets by the providers: {passed}")


@test("behind a tunnel: wire refuses with its reason, a stream engine has every byte", 60)
def _():
    site = Mesh()
    lab = Lab(topology=site)
    engines.require(lab, "wire")

    def carried(server, why, versions):
        for version in versions:
            for data, peer in pairs(lab, server, version, INNER_ADDRESS[version]):
                equal(engines.carried_by(server, data), ("splice", why), f"IPv{version}")
                swap(data, peer, 4 * MIB, version)
    with relay(lab, mesh_sections("a"), mesh_sections("b")) as server, nothing_dropped(site):
        # The client's segments are larger than what fits into the tunnel; then they are not.
        carried(server, "segments of one side do not fit the other's path", (4, 6))
        site.relay.run("ip", "route", "replace", "10.81.0.0/24", "via", "10.86.0.1", "advmss",
                       "1200")
        carried(server, "a route by a device without wire", (4,))
        equal(refusals(server), {"mss": 4, "device": 2}, "why pairs are not on wire")
        left_by_b(site)


@test("on the same network: wire has the pairs, which leave by the other router", 60)
def _():
    site = Site(routers=2)
    lab = Lab(topology=site)
    engines.require(lab, "wire")
    with relay(lab, neighbours("a", site.router[1]), neighbours("b", site.router[0])) as server, \
            nothing_dropped(site):
        for version in (4, 6):
            for data, peer in pairs(lab, server, version, site.relay.addr(version, 1)):
                equal(engines.carried_by(server, data), ("wire", ""), f"IPv{version}")
                swap(data, peer, 4 * MIB, version)
                swap(peer, data, 64 * KIB, version)
        left_by_b(site)


tap.main()
