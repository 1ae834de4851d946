#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Exits with 10,000 prefixes: how soon they are there, and that changes of them lose nothing.

CULVERT_LONG=1 replaces them 40 times instead of 4.
"""

import contextlib
import os
import re
import signal
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import tap  # noqa: E402
from culvertlab.exits import Router, begin, link_down, linked  # noqa: E402
from culvertlab.site import (Site, Stream, all_reached, nothing_dropped, reached,  # noqa: E402
                             refused)
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

test = tap.test
site, lab = begin(Site)
ALL, MOVED = 10000, 2500
REPLACES = 40 if os.environ.get("CULVERT_LONG") else 4
# Beside B's own: it comes and goes.
BESIDE = ["10.82.1.0/24", "fd82:0:0:1::/64"]


def sections(version=0, total=ALL, longer=0):
    """Two exits with so many prefixes in all, half of each family, side by side; every other
    version has a quarter of them elsewhere, and another one beside that of the host.  Of IPv6
    they are as long as the host's own, and found by a hash; of IPv4 the host's own is not.
    They may be longer by some bits."""
    made = linked()
    for one in made.values():
        one["prefix"] = [one["prefix"]]
    odd = version % 2
    for net in range(odd * MOVED, odd * MOVED + total // 2 - 2):
        here = made[f"exit isp-{'ab'[net % 2]}"]["prefix"]
        here.append(f"172.{16 + net // 4096}.{net // 16 % 256}.{net % 16 * 16}/{28 + longer}")
        here.append(f"fd00:0:0:{net:x}::/{64 + longer}")
    if odd:
        made["exit isp-b"]["prefix"] += BESIDE
    for one in made.values():
        one["prefix"] = [", ".join(one["prefix"][at:at + 50])
                         for at in range(0, len(one["prefix"]), 50)]
    return made


@contextlib.contextmanager
def router(total=ALL):
    """culvertd on the router with so many prefixes."""
    with contextlib.closing(Router(lab, site.relay, sections(0, total), 20)) as made:
        yield made


@test("10,000 prefixes are there at once, each source takes its exit, a lost one is refused", 60)
def _():
    with router() as made:
        took = re.search(r"event=exits_ready .*\bms=(\d+)", made.server.log())
        tap.note(f"there after {took[1]} ms")
        # 100 on a machine that does nothing else.
        within(int(took[1]), 0, 1000, "ms until all are there")
        equal({row["by"] for row in made.rows().values()}, {"map"}, "how exits are found")
        with nothing_dropped(site):
            all_reached(site, site.client, site.relay)
        # Its own changes are none that it has to heal.
        equal(made.server.log_count(r"event=exits_changed"), 0, "changes behind the first ones")
        with link_down(site.relay, "to_b"), nothing_dropped(site):
            wait_for(lambda: "nothing" in made.exits("plan"), 5, "the link is lost")
            for version in (4, 6):
                check(refused(site, site.client, version, 1), "no error at the host")
                reached(site, site.client, version, 0)


@test(f"{REPLACES} replaces of 10,000 prefixes under traffic: 0 misrouted, 0 refused, 0 lost",
      15 * REPLACES)
def _():
    with router() as made, contextlib.ExitStack() as stack:
        server, version = made.server, [0]
        ready = server.log_count(r"event=exits_ready")

        def replaced():
            """Asks for the next one when the last one is there."""
            if server.log_count(r"event=exits_ready") < ready + version[0]:
                return False
            if version[0] == REPLACES:
                return True
            version[0] += 1
            server.sections.update(sections(version[0]))
            server.write_config()
            server.process.child.send_signal(signal.SIGHUP)
            return False

        stream = Stream(stack, site, ((4, 1), (6, 1)))
        with nothing_dropped(site):
            stream.run(replaced)
        equal((stream.refused, stream.lost()), (0, 0), "refused, and lost")
        tap.note(f"{stream.sent} sent, {stream.arrived} arrived, {stream.refused} refused")
        equal({name: row["rejected"] for name, row in made.rows().items()},
              {"isp-a": 0, "isp-b": 0}, "rejected by the guards")
        check("nothing" in made.exits("plan"), "something would be changed")


@test("400 prefixes become 10,000, longer ones, 44,000 and 400 again: none misrouted, few refused",
      120)
def _():
    # By routes and by a map (IPv6); by another hash and by more than it has room for, which
    # makes tables anew: there are a few milliseconds in which the kernel has ranges no more.
    with router(400) as made, contextlib.ExitStack() as stack:
        server = made.server

        def become(total, longer):
            ready = server.log_count(r"event=exits_ready")
            server.sections.update(sections(0, total, longer))
            server.write_config()
            server.process.child.send_signal(signal.SIGHUP)
            return lambda: server.log_count(r"event=exits_ready") > ready

        stream = Stream(stack, site, ((4, 1), (6, 1)))
        with nothing_dropped(site):
            for total in (ALL, 400, ALL, 400):
                stream.run(become(total, 0))
            equal((stream.refused, stream.lost()), (0, 0), "refused, and lost")
            for total, longer in ((ALL, 1), (44000, 0), (400, 0)):
                stream.run(become(total, longer))
            lost = stream.lost()
            equal(lost, stream.told(), "lost, and what the host was told of")
            # Those of some milliseconds, on a machine that does nothing else.
            within(lost, 0, stream.sent // 4, "refused")
        tap.note(f"{stream.sent} sent, {stream.arrived} arrived, {stream.told()} refused")
        equal(server.log_count(r"nftables_failed"), 0, "failures")
        check("nothing" in made.exits("plan"), "something would be changed")
        all_reached(site, site.client)


tap.main()
