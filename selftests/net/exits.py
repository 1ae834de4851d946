#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Exits: what a connection is given by the exit that its relayed address leaves by."""

import json
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import engines, tap, turn  # noqa: E402
from culvertlab.data import KIB, swap  # noqa: E402
from culvertlab.lab import Lab, need_namespaces  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
test = tap.test
need_namespaces(lab)
# The relay has an address in each; which one is relayed is which one the client dials.
PREFIXES = ("10.77.1.0/24, fd77:1::/64", "10.77.2.0/24, fd77:2::/64")


def exits(first, second):
    """Sections of two exits with these engines; None: without any."""
    sections = {}
    for name, prefix, order in zip(("isp-a", "isp-b"), PREFIXES, (first, second)):
        sections[f"exit {name}"] = {"prefix": prefix, **({"engine": order} if order else {})}
    return sections


def pair_of(server, index, version=4, user="alice", password="wonderland", port=None):
    """The data connection of a new pair whose relayed address is in that prefix."""
    address = (lab.topo.relay.addr(version, index), port or server.port)
    client = lab.keep(turn.Control(lab.topo.client, address, user, password))
    client.allocate(*([turn.family(6)] if version == 6 else []))
    equal(client.relayed[0], address[0], "relayed address")
    data, peer, _ = lab.pair(client, version)
    swap(data, peer, 64 * KIB, index)
    return data


@test("pairs of one exit on splice, of the other on wire, both families", 20)
def _():
    engines.require(lab, "wire")
    server = lab.server({"engine": {"order": "copy"}, **exits("splice", "wire, splice")})
    wait_for(lambda: [row for row in server.engines() if row["name"] == "wire"][0]["available"],
             5, "wire works")
    for version in (4, 6):
        equal(engines.carried_by(server, pair_of(server, 0, version)),
              ("splice", "the exit has other engines"), f"isp-a, IPv{version}")
        equal(engines.carried_by(server, pair_of(server, 1, version)), ("wire", ""),
              f"isp-b, IPv{version}")
    refused = [row["fallbacks"] for row in server.engines() if row["name"] == "wire"][0]
    equal({one["reason"]: one["count"] for one in refused}, {"pinned_exit": 2},
          "why pairs are not on wire")


@test("the user's engines come before the realm's, those before the exit's, those before [engine]")
def _():
    port = lab.topo.relay.free_port()
    server = lab.server({"engine": {"order": "uring, copy"}, **exits("copy", None),
                         "listener guests": {"address": f"0.0.0.0:{port}",
                                             "realm": "guests.example.org"},
                         "realm guests.example.org": {"engine": "splice"},
                         "user bob": {"realm": "guests.example.org", "engine": "copy"},
                         "user carol": {"realm": "guests.example.org", "password": "singer"}})

    def carried(index, *who):
        return engines.carried_by(server, pair_of(server, index, 4, *who))
    equal(carried(0), ("copy", "the exit has other engines"), "the exit's")
    equal(carried(0, "carol", "singer", port), ("splice", "the realm has other engines"), "the realm's")
    equal(carried(0, "bob", "builder", port), ("copy", "the user has other engines"), "the user's")
    equal(carried(1)[1], "other engines are configured", "those of [engine]")


@test("a reload moves new pairs to an exit's new engines; those there are stay")
def _():
    server = lab.server({"engine": {"order": "copy"}, **exits("splice", None)}, fresh=True)
    old = pair_of(server, 0)
    equal(engines.carried_by(server, old)[0], "splice", "before")
    server.sections.update(exits(None, "splice"))
    server.write_config()
    equal(server.reload(), "reloaded", "the reload")
    equal(engines.carried_by(server, pair_of(server, 0))[0], "copy", "isp-a, after")
    equal(engines.carried_by(server, pair_of(server, 1))[0], "splice", "isp-b, after")
    equal(engines.carried_by(server, old)[0], "splice", "the old pair")


@test("of equal addresses a deprecated one is not relayed, and is again when it is no more")
def _():
    for version in (4, 6):
        first, second = (lab.topo.relay.addr(version, index) for index in (0, 1))
        address = f"{first}/{24 if version == 4 else 64}"
        device = json.loads(lab.topo.relay.run("ip", "-j", "route", "get", lab.topo.client.addr(
            version, 0)))[0]["dev"]
        server = lab.server({"relay": {"address": f"{first}, {second}"}}, fresh=True)

        def relayed(version=version, server=server):
            client = turn.Control(lab.topo.client, (lab.topo.relay.addr(4, 0), server.port))
            with client:
                client.allocate(*([turn.family(6)] if version == 6 else []))
                return client.relayed[0]
        equal(relayed(), first, "the first one")
        lab.topo.relay.run("ip", "addr", "change", address, "dev", device, "preferred_lft", "0")
        try:
            # Each worker looks at the addresses once a second.
            wait_for(lambda: all(relayed() == second for _ in range(6)), 5, "the other one is given")
        finally:
            lab.topo.relay.run("ip", "addr", "change", address, "dev", device,
                               "preferred_lft", "forever")
        wait_for(lambda: all(relayed() == first for _ in range(6)), 5, "the first one is again")


@test("an exit whose link is not there draws a warning at its line, and the server starts")
def _():
    server = lab.server({"exit isp-a": {"prefix": PREFIXES[0], "link": "gone0"}}, fresh=True)
    check("[exit isp-a] link: found \"gone0\"" in server.log().replace("\\\"", "\""),
          f"no warning in:\n{server.log()}")
    pair_of(server, 1)


tap.main()
