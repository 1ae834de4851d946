#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Exits over bad links: whatever a network does to packets, none leaves by another's provider.

Each mechanism has its site; on every link between the host and the providers packets are lost,
late, out of order and doubled, which is seen at Y, and then a provider is lost, too. Needs netem:
selftests/qemu/exits.py runs it in a guest.

Where each scenario of exits, and what may befall it, is tested (selftests/net, but for qemu/):

  scenario                              as it should be     over bad links  provider's link lost
  single exit router                    exit_routes         here            exit_routes, here
  natural DMZ                           exit_dmz            here            exit_dmz, here
  virtual DMZ, VXLAN-GPE                exit_mesh           here            exit_mesh, here
  virtual DMZ, ip6tnl                   qemu/exits          here            qemu/exits, here
  interior router, static routes        exit_interior       here            exit_interior, here
  interior router, babeld and BIRD      exit_routing        -               exit_routing
  relaxed filtering lists               exit_relaxed        here            exit_relaxed, here

  fault                                 where
  provider silent for 2 s               exit_routes "an outage of 2 s": link down; qemu/exits: loss
  exit router lost, anycast withdrawn   exit_anycast "within 1 ms", exit_routing
  exit router silent                    exit_probe; over ip6tnl, and late answers: here
  10,000 prefixes replaced              exit_scale
  cost of look-ups                      bench/exit_cost.py (make bench-exits)
  forged code 5                         exit_discovery "forged errors", exit_shield
  forged outer header                   exit_mesh "nobody but a tunnel peer", qemu/exits
  two exits misrouting at each other    exit_mesh "two routers that take each other", qemu/exits
  too big for the tunnel                exit_mesh "too big", qemu/exits
  exit flapping at 10 Hz                exit_anycast "flaps ten times", "told once a second"
  foreign ruleset flush                 exit_routes "nft flush ruleset", "by one healing"
  killed helper                         exit_routes "a killed helper"
"""

import collections
import contextlib
import os
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import netem, tap  # noqa: E402
from culvertlab.data import KIB, Worker, swap  # noqa: E402
from culvertlab.exits import (UNREACHABLE, begin, link_down, linked, neighbours,  # noqa: E402
                              routers)
from culvertlab.mesh import TUNNEL, Mesh, interior_sections, mesh_sections  # noqa: E402
from culvertlab.site import PREFIX, Site, leaves_by, nothing_dropped, refused  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.wait import PATIENCE, holds_for, wait_for  # noqa: E402

single, lab = begin(Site)
netem.require(single.client)
BAD = ("delay", "20ms", "5ms", "reorder", "10%", "loss", "2%", "duplicate", "5%")
FAULTS = {"lost", "doubled", "out of order"}  # of BAD, as Y sees them
WAYS = [(version, index) for version in (4, 6) for index in (0, 1)]
COUNT = 100  # datagrams each way of WAYS
SIZE = 16 * KIB  # bytes each way of each connection
sites = {}


def site_of(kind, **more):
    """One of each class for all cases that want it."""
    if kind is Site and not more:
        return single
    if kind not in sites:
        sites[kind] = kind(**more)
        tap.at_end(sites[kind].remove)
    return sites[kind]


def alone(site):
    return [(site.relay, linked())]


def dmz(site):
    first, second = site.router
    return [(first, neighbours("a", second)), (second, neighbours("b", first))]


def mesh(site, **keys):
    return [(node, {name: {**section, **keys} for name, section in mesh_sections(own).items()})
            for own, node in zip("ab", site.router)]


def interior(site):
    return [*[(node, linked(own)) for own, node in zip("ab", site.router)],
            (site.inner, interior_sections())]


SCENARIOS = {"single exit router": (alone, Site, {}), "natural DMZ": (dmz, Site, {"routers": 2}),
             f"virtual DMZ over {TUNNEL}": (mesh, Mesh, {}), "interior router": (interior, Mesh, {})}


def ends(site):
    """Of all links between the host and the providers, both sides."""
    found = [(site.client, "site"), (site.router[0], "lan")]
    if len(site.router) > 1:
        found.append((site.router[1], "lan"))
    if hasattr(site, "inner"):
        found += [(site.inner, device) for device in ("lan", "to_ra", "to_rb")]
    return found + [end for key, router in zip("ab", (site.router[0], site.router[-1]))
                    for end in ((router, f"to_{key}"), (site.provider[key], "site"))]


def numbers(site, version, index):
    """Datagrams from X to Y: the numbers that arrive, in that order."""
    with contextlib.closing(site.peer.bound(version, udp=True)) as far, \
         contextlib.closing(site.client.datagrams(far.getsockname()[:2], index)) as near:
        arrived = []
        for number in range(COUNT):
            near.send(struct.pack("!I", number))
        far.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while True:
                data, source = far.recvfrom(16)
                equal(source[0], site.client.addr(version, index), "the source at Y")
                arrived.append(struct.unpack("!I", data)[0])
    return arrived


def seen(site):
    """What befalls datagrams, of all WAYS together."""
    found = set()
    for job in [Worker(numbers, site, *way) for way in WAYS]:
        arrived = job.finish()
        times = collections.Counter(arrived)
        check(times, "no datagram arrives")
        # One or two are late without netem, when the sender changes its processor.
        turned = sum(one > other for one, other in zip(arrived, arrived[1:]))
        found |= {word for word, is_so in (
            ("lost", len(times) < COUNT), ("doubled", len(arrived) > len(times)),
            ("out of order", turned > COUNT / 20)) if is_so}
    return found


def swapped(site, version, index):
    """A connection, and bytes both ways, compared."""
    with contextlib.closing(site.peer.listen(version)) as listener:
        listener.settimeout(10 * PATIENCE)
        with contextlib.closing(site.client.connect(listener.getsockname()[:2], index,
                                                    10 * PATIENCE)) as near:
            far, _ = listener.accept()
            with contextlib.closing(far):
                far.settimeout(10 * PATIENCE)
                equal(far.getpeername()[0], near.getsockname()[0], "the source at Y")
                swap(near, far, SIZE)


def all_swapped(site, ways=tuple(WAYS)):
    for job in [Worker(swapped, site, *way) for way in ways]:
        job.finish(30 * PATIENCE)


def provider_lost(site):
    """B's link is: its addresses are refused, A's go on."""
    with link_down(site.router[-1], "to_b"):
        for version in (4, 6):
            check(refused(site, site.client, version, 1, 5 * PATIENCE) in UNREACHABLE, "no error")
        all_swapped(site, [way for way in WAYS if way[1] == 0])


def survives(sections, kind, more):
    """0 packets at the wrong provider, and every byte, whatever befalls them."""
    site = site_of(kind, **more)
    with routers(lab, sections(site)), nothing_dropped(site):
        equal(seen(site), set(), "faults of good links")
        with netem.bad(ends(site), *BAD):
            equal(seen(site), FAULTS, "faults of bad links")
            all_swapped(site)
            provider_lost(site)


for name, scenario in SCENARIOS.items():
    tap.add(f"{name}, links that lose, delay, reorder and double: 0 packets at the wrong provider",
            lambda each=scenario: survives(*each), 60)


class Relaxed(Site):
    """A lets the sources of B out as well, and has what is for them."""

    def __init__(self):
        super().__init__()
        self.authorise("a", [PREFIX["b"]])
        self.announce("a", PREFIX["b"])


@tap.test("relaxed filtering, such links: the sources of a lost provider leave by the other", 60)
def _():
    site = site_of(Relaxed)
    told = {**linked("a", authorised=", ".join(PREFIX["b"].values())), **linked("b")}
    with routers(lab, [(site.relay, told)]), nothing_dropped(site):
        # Neighbours are known then: a lost question for one is asked again after a second.
        equal(seen(site), set(), "faults of good links")
        with netem.bad(ends(site), *BAD):
            equal(seen(site), FAULTS, "faults of bad links")
            with link_down(site.relay, "to_b"), leaves_by(site, "a"):
                all_swapped(site)
            all_swapped(site)


@tap.test("answers of a router that are late, doubled and out of order are answers, none are not", 60)
def _():
    site = site_of(Mesh)
    with routers(lab, mesh(site, health="probe", probe_interval="200ms")) as (first, _), \
         nothing_dropped(site):
        with netem.bad(ends(site), "delay", "10ms", "5ms", "duplicate", "20%"):
            holds_for(lambda: first.rows()["isp-b"]["state"] == "up", 2, "the exit is up")
        # Its router says nothing, nor hears anything.
        with netem.bad([(site.router[1], "lan"), (site.inner, "to_rb")], "loss", "100%"):
            wait_for(lambda: first.rows()["isp-b"]["state"] == "silent", 5, "the exit is silent")
            for version in (4, 6):
                check(refused(site, site.client, version, 1) in UNREACHABLE, "no error")
        wait_for(lambda: first.rows()["isp-b"]["state"] == "up", 5, "it is back")
        all_swapped(site)


tap.main()
