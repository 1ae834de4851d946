#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""General case: an interior router sends each source to the exit router of its provider.

The interior router has an exit for each provider, with the provider's router as the next hop.
The exit routers have one each, with their link, and know nothing of the other's.
"""

import contextlib
import errno
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import exits, tap  # noqa: E402
from culvertlab.mesh import INNER, Mesh, interior_sections  # noqa: E402
from culvertlab.site import leaves_by, nothing_dropped, reached, refused  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

test = tap.test
site, lab = exits.begin(Mesh)
KEYS = ("a", "b")  # by index of the host's addresses


def exit_router(index):
    """Node and sections of the router that has this provider's link."""
    key = KEYS[index]
    return site.router[index], exits.linked(key)


@contextlib.contextmanager
def domain():
    """All three run; the interior router is the one that is yielded."""
    inner = (site.inner, interior_sections())
    with exits.routers(lab, [exit_router(0), exit_router(1), inner]) as running:
        yield running[2]


def each_reached(index):
    for version in (4, 6):
        with leaves_by(site, KEYS[index]):
            reached(site, site.client, version, index)


@test("without it B's sources come to A's router, which rejects them", 30)
def _():
    with exits.routers(lab, [exit_router(0), exit_router(1)]), nothing_dropped(site):
        each_reached(0)
        equal(refused(site, site.client, 6, 1), errno.EACCES, "IPv6")
        equal(refused(site, site.client, 4, 1), errno.EHOSTUNREACH, "IPv4")


@test("each source leaves by its provider, both families; 0 packets dropped", 40)
def _():
    with domain(), nothing_dropped(site):
        for index in (0, 1):
            each_reached(index)


@contextlib.contextmanager
def beyond(version):
    """A route of the interior router's main table to Y, by A's router."""
    net, far = INNER["a"], ("10.99.0.0/16" if version == 4 else "fd99::/48")
    hop = f"10.{net}.0.2" if version == 4 else f"fd{net}::2"
    route = (f"-{version}", "route", "add", far, "via", hop)
    site.inner.run("ip", *route)
    try:
        yield
    finally:
        site.inner.run("ip", f"-{version}", "route", "del", far)


@test("static routes to what is beyond an exit are for its sources alone, before and after", 40)
def _():
    with beyond(4), beyond(6), domain(), nothing_dropped(site):
        for index in (0, 1):
            each_reached(index)
    with domain() as router, nothing_dropped(site):
        with beyond(4), beyond(6):
            wait_for(lambda: "to 10.99.0.0/16 goto" in router.node.run("ip", "rule"), 5,
                     "the route is known")
            for index in (0, 1):
                each_reached(index)
            said = router.exits("trace", "10.82.0.2", "10.99.0.1")
            check("belongs to exit isp-b" in said and "via 10.87.0.2" in said, said)
        wait_for(lambda: "to 10.99.0.0/16 goto" not in router.node.run("ip", "rule"), 5,
                 "the route is forgotten")


@test("the link to an exit router is lost: its sources fail at once, the others go on", 40)
def _():
    with domain() as router:
        with exits.link_down(site.inner, "to_rb", "fd87::1/64"), nothing_dropped(site):
            for version in (4, 6):
                check(refused(site, site.client, version, 1) in exits.UNREACHABLE, "no error")
            each_reached(0)
        wait_for(lambda: router.rows()["isp-b"]["state"] == "up", 5, "the exit is back")
        with nothing_dropped(site):
            each_reached(1)


@test("a provider's link is lost: its router says so at once, the other's sources go on", 40)
def _():
    with domain(), nothing_dropped(site):
        with exits.link_down(site.router[1], "to_b"):
            for version in (4, 6):
                check(refused(site, site.client, version, 1) in exits.UNREACHABLE, "no error")
            each_reached(0)


tap.main()
