#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Tables of nftables that a culvertd has left, and that somebody may have changed since.

The next one takes over what is as it should be, counters and all, and makes the rest anew.
"""

import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import tap  # noqa: E402
from culvertlab.exits import UNREACHABLE, await_ready, begin, linked  # noqa: E402
from culvertlab.site import Site, nothing_dropped, reached, refused  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

test = tap.test
site, lab = begin(Site)
STRANGE = "event=nftables_strange"
FEW = linked()
# So many that nftables finds the exit of what is forwarded, and tunnels besides.
MANY = {name: {**keys, "prefix": [keys["prefix"], *(
    f"10.{181 + number}.{n}.0/24" for n in range(60)), *(
    f"fd8{number + 1}:1:{n:x}::/64" for n in range(520))]}
    for number, (name, keys) in enumerate(FEW.items())}
MANY["exit isp-c"] = {"prefix": "fd83::/48", "tunnel_peer": "fd86::2",
                      "discovery_host": "fd81::/64"}
# So many links that nftables finds them by a map.
WIDE = {**FEW, **{f"exit isp-{key}": {"link": f"to_{key}", "prefix": f"fd8{number}::/48"}
                  for number, key in enumerate("de", 4)}}


def started(sections):
    server = lab.server({"engine": {"order": "splice"}, **sections}, fresh=True)
    await_ready(server)
    return server


def nft(*words):
    return site.relay.run("nft", *words)


def tables():
    """What each of them has, without counts; in no order, as what is made anew comes last."""
    said = "\n" + nft("-s", "list", "ruleset")
    return sorted(table.strip() for table in said.split("\ntable "))


def handle(table, chain, needle):
    """Of the first rule there that has these words."""
    for line in nft("-a", "list", "chain", "inet", table, chain).splitlines():
        if needle in line:
            return line.rpartition(" ")[2]
    raise AssertionError(f"no rule with {needle} in {table} {chain}")


@test("what is as it should be is taken over with its counters, by a start and by a reload", 40)
def _():
    for sections in (FEW, MANY, WIDE):
        server = started(sections)
        for version in (4, 6):
            reached(site, site.client, version, 0)
        before = nft("list", "counters", "table", "inet", "culvert_guard")
        check("packets 0" not in before.partition("e0_packets")[2][:60], before)
        lab.stop_server()
        server = started(sections)
        equal(nft("list", "counters", "table", "inet", "culvert_guard"), before, "after a start")
        equal(server.reload(), "reloaded", "the reload")
        wait_for(lambda s=server: s.log_count("event=exits_ready") == 2, 5, "another helper")
        equal(nft("list", "counters", "table", "inet", "culvert_guard"), before, "after a reload")
        check(not server.log_count(STRANGE), server.log())
        check("culvert_sample" not in nft("list", "tables"), "the sample is left")


def let_all_out():
    nft("insert", "rule", "inet", "culvert_guard", "forward", "accept")


def reject_no_more():
    for line in nft("-a", "list", "chain", "inet", "culvert_guard", "e0").splitlines():
        if "reject" in line:
            nft("delete", "rule", "inet", "culvert_guard", "e0", "handle", line.rpartition(" ")[2])


def other_order():
    """The first rule of a link's chain comes last."""
    first = nft("list", "chain", "inet", "culvert_guard", "e0").splitlines()[2].strip()
    nft("delete", "rule", "inet", "culvert_guard", "e0", "handle",
        handle("culvert_guard", "e0", first.partition(" counter")[0]))
    nft("add", "rule", "inet", "culvert_guard", "e0", *first.split())


def link_forgotten():
    text = nft("list", "map", "inet", "culvert_guard", "links_out")
    elements = text.partition("elements = {")[2].partition("}")[0].split(",")
    element, = [part.strip() for part in elements if "to_a" in part]
    nft("delete", "element", "inet", "culvert_guard", "links_out", "{", element, "}")


def link_passed_over():
    nft("delete", "rule", "inet", "culvert_guard", "forward", "handle",
        handle("culvert_guard", "forward", 'oifname "to_a"'))


def policy_changed():
    nft("add", "chain", "inet", "culvert_exits", "mine",
        "{ type filter hook forward priority 1; policy accept; }")


@test("what somebody has changed meanwhile is made anew, with a word in the log", 60)
def _():
    for change, sections in ((let_all_out, FEW), (reject_no_more, FEW), (other_order, FEW),
                             (link_forgotten, WIDE), (link_passed_over, FEW),
                             (policy_changed, FEW)):
        started(sections)
        whole = tables()
        lab.stop_server()
        change()
        check(tables() != whole, f"{change.__name__} has changed nothing")
        server = started(sections)
        equal(server.log_count(STRANGE), 1, f"{change.__name__}: warnings")
        check(tables() == whole, f"{change.__name__}: the tables are {tables()}")
    with nothing_dropped(site):
        check(refused(site, site.client, 6, 2) in UNREACHABLE, "no error")


tap.main()
