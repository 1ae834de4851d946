#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""General case with a routing protocol: babeld or BIRD on two exit routers and an interior one.

They carry either the host routes to the exits' anycast addresses, by which culvertd on the interior
router knows which exits are there; or, babeld alone, culvertd's default routes of each source, so
that the interior router needs no culvertd.  babeld 1.12 has sources for IPv6 alone, and that is
what it is tried with.  What it retracts it does not always understand itself, and holds until it
expires, 16 s later.
"""

import contextlib
import os
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import exits, routing, tap  # noqa: E402
from culvertlab.mesh import INNER, Mesh  # noqa: E402
from culvertlab.site import (HOP, PREFIX, leaves_by, nothing_dropped, reached,  # noqa: E402
                             refused)
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

site, lab = exits.begin(Mesh)
RXA, RXB = site.router
KEYS = ("a", "b")  # by index of the host's addresses
ANYCAST = {"a": {4: "10.81.0.254", 6: "fd81::ffff:ffff:ffff:ffff"},
           "b": {4: "10.82.0.254", 6: "fd82::ffff:ffff:ffff:ffff"}}


def section(key, hop, link=()):
    return {f"exit isp-{key}": {"prefix": ", ".join(PREFIX[key].values()), "health": "anycast",
                                "anycast": ANYCAST[key][4], "next_hop": ", ".join(hop),
                                **dict(link)}}


def exit_routers():
    return [(site.router[index], section(key, HOP[key].values(), {"link": f"to_{key}"}))
            for index, key in enumerate(KEYS)]


def interior(versions):
    """IPv4 without an anycast address goes by the link."""
    made = {}
    for key, net in INNER.items():
        made.update(section(key, [f"10.{net}.0.2", f"fd{net}::2"]))
        if 4 not in versions:
            del made[f"exit isp-{key}"]["anycast"]
    return site.inner, made


def each_reached(versions, index):
    for version in versions:
        with leaves_by(site, KEYS[index]):
            reached(site, site.client, version, index)


def refused_at_once(versions, index):
    """No attempt of these sources waits for an answer that does not come."""
    for version in versions:
        check(refused(site, site.client, version, index) in exits.UNREACHABLE, "no error")


def a_beats(versions):
    """Nothing of A's sources may be lost meanwhile."""
    return [routing.Beat(site, version, 0) for version in versions]


def states(router):
    return {name: row["state"] for name, row in router.rows().items()}


def outage(versions, gone, back):
    """B's link is lost and comes back; functions that tell when the interior router knows.

    gone None: whether it gets to know meanwhile is left to the daemon, and B's router refuses.
    """
    with contextlib.ExitStack() as stack:
        beats = [stack.enter_context(contextlib.closing(beat)) for beat in a_beats(versions)]
        stack.enter_context(nothing_dropped(site))
        with exits.link_down(RXB, "to_b"):
            begun = time.monotonic()
            # Whoever decides now, its router or the interior one: the host is told.
            refused_at_once(versions, 1)
            if gone:
                wait_for(gone, 15, "the interior router knows that B is lost")
                tap.note(f"the interior router knew after {time.monotonic() - begun:.2f} s")
            refused_at_once(versions, 1)
        begun = time.monotonic()
        wait_for(back, 20, "B is back")
        tap.note(f"and that it is back after {time.monotonic() - begun:.2f} s")
        for version in versions:
            reached(site, site.client, version, 1)
        for beat in beats:
            equal(beat.lost(), 0, "packets of A's sources that are lost")
            check(beat.sent > 10 and not beat.errors, f"{beat.sent} sent, {beat.errors} errors")
    each_reached(versions, 1)


def start(stack, daemon):
    stack.enter_context(contextlib.closing(daemon))


def carried(daemon, versions, retracts=True):
    """Anycast addresses in the routing protocol; culvertd on all three routers."""
    routing.need(daemon.program)
    with exits.routers(lab, [*exit_routers(), interior(versions)]) as (_, _, inner), \
            contextlib.ExitStack() as daemons:
        wait_for(lambda: set(states(inner).values()) == {"dead"}, 5, "both are dead at first")
        refused_at_once(versions, 0)
        for index, key in enumerate(KEYS):
            hosts = [ANYCAST[key][each] for each in versions]
            start(daemons, daemon(lab, site.router[index], ["lan"], hosts))
        start(daemons, daemon(lab, site.inner, ["to_ra", "to_rb"], ()))
        wait_for(lambda: set(states(inner).values()) == {"up"}, 15, "both exits are up")
        with nothing_dropped(site):
            for index in (0, 1):
                each_reached(versions, index)
        outage(versions, (lambda: states(inner)["isp-b"] == "dead") if retracts else None,
               lambda: states(inner)["isp-b"] == "up")
        equal(states(inner)["isp-a"], "up", "the state of the other exit")


@tap.test("babeld carries the anycast addresses: each source by its exit, a dead one is told of", 60)
def _():
    carried(routing.BabeldOfHosts, (6,), retracts=False)


@tap.test("BIRD carries them by OSPF: each source by its exit, a dead one is refused", 60)
def _():
    carried(routing.BirdOfHosts, (4, 6))


@tap.test("babeld carries the default route of each source: no culvertd on the interior router", 60)
def _():
    routing.need("babeld")

    def way(key):
        """Has the interior router a default route for these sources by their router?"""
        said = site.inner.run("ip", "-6", "route", "show", "default", "from", PREFIX[key][6])
        return f"dev to_r{key}" in said
    with exits.routers(lab, exit_routers()), nothing_dropped(site), \
            contextlib.ExitStack() as daemons:
        for index, key in enumerate(KEYS):
            take = [f"ip ::/0 eq 0 proto 200 src-ip {PREFIX[key][6]} if to_{key}"]
            start(daemons, routing.Babeld(lab, site.router[index], ["lan"], take, tables=(20000,)))
        start(daemons, routing.Babeld(lab, site.inner, ["to_ra", "to_rb"]))
        wait_for(lambda: way("a") and way("b"), 15, "both routes are there")
        for index in (0, 1):
            each_reached((6,), index)
        outage((6,), None, lambda: way("b"))


tap.main()
