#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Relaxed ingress filtering: providers that let more than their own prefix pass.

A has been told of B's prefix and of one that belongs to neither; B has been told of the latter.
Y answers all three by A. A source leaves by its own exit, by another that lets it pass while that
one is lost, and by none that does not.
"""

import contextlib
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import exits, tap  # noqa: E402
from culvertlab.data import ping  # noqa: E402
from culvertlab.site import (OTHER, PREFIX, Site, leaves_by, nothing_dropped,  # noqa: E402
                             reached, refused)
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

test = tap.test
site, lab = exits.begin(Site)
OWN = {key: ", ".join(PREFIX[key].values()) for key in ("a", "b")}
NOBODYS = ", ".join(OTHER.values())
B, NOBODY = 1, 2  # of a node's addresses: that of B's prefix, that of nobody's

site.authorise("a", [PREFIX["b"], OTHER])
site.authorise("b", [OTHER])
for prefix in (PREFIX["b"], OTHER):
    site.announce("a", prefix)


def router(a=None, b=None):
    """culvertd on the router, the exits with these keys beside the usual ones."""
    made = {**exits.linked("a", **(a or {})), **exits.linked("b", **(b or {}))}
    return exits.routers(lab, [(site.relay, made)])


def to_b_down():
    return exits.link_down(site.relay, "to_b")


@test("a source leaves by its own exit, by one that is told of it while that is lost; and back", 40)
def _():
    with router(a={"authorised": OWN["b"]}) as (running,), nothing_dropped(site):
        for _ in range(2):
            for version in (4, 6):
                with leaves_by(site, "b"):
                    reached(site, site.client, version, B)
            with to_b_down():
                for version in (4, 6):
                    with leaves_by(site, "a"):
                        reached(site, site.client, version, B)
                said = running.exits("trace", "10.82.0.2", "10.99.0.1")
                check("belongs to exit isp-b" in said and "isp-a lets it pass" in said, said)
            wait_for(lambda: running.rows()["isp-b"]["state"] == "up", 5, "the exit is back")


@test("a connection goes on by the other exit, and on by its own again", 40)
def _():
    with router(a={"authorised": OWN["b"]}) as (running,), nothing_dropped(site):
        for version in (4, 6):
            with contextlib.closing(site.peer.listen(version)) as listener:
                sock = lab.keep(site.client.connect(listener.getsockname()[:2], B))
                far = lab.keep(listener.accept()[0])
                ping(sock, far)
                with to_b_down():
                    with leaves_by(site, "a"):
                        ping(sock, far)
                wait_for(lambda: running.rows()["isp-b"]["state"] == "up", 5, "the exit is back")
                with leaves_by(site, "b"):
                    ping(sock, far)


@test("an exit that is not told of a source does not take it: an error at once", 40)
def _():
    with router() as (running,), to_b_down(), nothing_dropped(site):
        for version in (4, 6):
            check(refused(site, site.client, version, B) in exits.UNREACHABLE, "no error")
        equal(running.rows()["isp-a"]["rejected"], 0, "packets that came as far as A's link")


@test("of exits that are told of a prefix the one with the greatest weight is taken", 40)
def _():
    with router(a={"authorised": NOBODYS, "weight": 1},
                b={"authorised": NOBODYS, "weight": 2}) as (running,), nothing_dropped(site):
        for version in (4, 6):
            with leaves_by(site, "b"):
                reached(site, site.client, version, NOBODY)
        with to_b_down():
            for version in (4, 6):
                with leaves_by(site, "a"):
                    reached(site, site.client, version, NOBODY)


@test("an exit that checks nothing takes the place of every other, and is the last for none", 40)
def _():
    with router(a={"unchecked": "yes", "weight": 9}) as (running,), nothing_dropped(site):
        with leaves_by(site, "b"):
            reached(site, site.client, 6, B)
        with to_b_down():
            for version in (4, 6):
                with leaves_by(site, "a"):
                    reached(site, site.client, version, B)


@test("a reload that takes the word back closes the way", 30)
def _():
    with router(a={"authorised": OWN["b"]}) as (running,), to_b_down(), nothing_dropped(site):
        reached(site, site.client, 4, B)
        del running.server.sections["exit isp-a"]["authorised"]
        running.server.write_config()
        equal(running.server.reload(), "reloaded", "the reload")
        wait_for(lambda: "nothing" in running.exits("plan"), 5, "it is so")
        for version in (4, 6):
            check(refused(site, site.client, version, B) in exits.UNREACHABLE, "no error")


tap.main()
