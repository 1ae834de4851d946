#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Anycast addresses of exits: whether another router's exit is there, told by a host route.

The site of two routers on one network (exit_dmz.py), whose exits go by their anycast addresses.
What a routing protocol would do between the routers is done by hand: RXA gets the host routes to
B's anycast addresses, and loses them.
"""

import contextlib
import errno
import ipaddress
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import stun, tap, turn  # noqa: E402
from culvertlab.data import ping  # noqa: E402
from culvertlab.exits import begin, link_down, neighbours, routers  # noqa: E402
from culvertlab.site import HOP, PREFIX, Site, nothing_dropped, reached, refused  # noqa: E402
from culvertlab.stun import ALLOCATE  # noqa: E402
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.topo import run as proc_run  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

test = tap.test
site, lab = begin(Site, routers=2)
RXA, RXB = site.router
# That of IPv6 is made of the prefix, that of IPv4 must be configured.
ANYCAST = {"a": {4: "10.81.0.254", 6: "fd81::ffff:ffff:ffff:ffff"},
           "b": {4: "10.82.0.254", 6: "fd82::ffff:ffff:ffff:ffff"}}
# Numbers of netlink.
LOSSES = 49  # the text of a key has room for so many prefixes
NETFILTER, NFTABLES_NEWS = 12, 1 << 6
RTM_DELROUTE, RTA_DST = 25, 1
# What a host makes of ICMP type 3 code 13 and of ICMPv6 type 1 code 5.
TOLD = {4: errno.EHOSTUNREACH, 6: errno.EACCES}
# Counts at the host what it is told: why, and anything else of the kind.
REFUSALS = """
table inet told {
    counter why { }
    counter other { }
    chain input {
        type filter hook input priority 0
        icmpv6 type destination-unreachable icmpv6 code 5 counter name why accept
        icmp type destination-unreachable icmp code admin-prohibited counter name why accept
        icmpv6 type destination-unreachable counter name other
        icmp type destination-unreachable counter name other
    }
}
"""


def sections(own, far):
    """Those of the router that has this provider's link; `far` is the other router."""
    made = neighbours(own, far)
    for key in ("a", "b"):
        made[f"exit isp-{key}"].update({"anycast": ANYCAST[key][4], "health": "anycast"})
    return made


@contextlib.contextmanager
def both():
    """Both routers; what RXA has learned is forgotten afterwards."""
    with routers(lab, [(RXA, sections("a", RXB)), (RXB, sections("b", RXA))]) as servers:
        try:
            yield servers
        finally:
            for version in (4, 6):
                withdraw(version)


def announce(version, kind=()):
    """RXA learns the way to B's anycast address; kind: ("unreachable",) for none."""
    via = () if kind else ("via", RXB.addr(version), "dev", "lan")
    RXA.run("ip", f"-{version}", "route", "replace", *kind, ANYCAST["b"][version], *via,
            "proto", "babel", "metric", "50")


def withdraw(version):
    """RXA has no host route to it any more."""
    RXA.run("sh", "-c", f"ip -{version} route flush {ANYCAST['b'][version]} proto babel || :")


def become(router, *states):
    """Waits until its exits have these states, and all that belongs to them."""
    wait_for(lambda: sorted(row["state"] for row in router.rows().values()) == sorted(states)
             and "nothing" in router.exits("plan"), 5, f"the exits are {states}")


@test("an exit of another router is used while there is a host route to its anycast address", 40)
def _():
    with both() as (first, _):
        for version in (4, 6):
            become(first, "up", "dead")
            with nothing_dropped(site):
                equal(refused(site, site.client, version, 1), TOLD[version], "what the host is told")
            announce(version)
        become(first, "up", "up")
        with nothing_dropped(site):
            for version in (4, 6):
                reached(site, site.client, version, 0)
                reached(site, site.client, version, 1)


@test("a host route that goes, or becomes unreachable, takes the exit away at once", 40)
def _():
    for version in (4, 6):
        with both() as (first, _):
            for way in (4, 6):
                announce(way)
            become(first, "up", "up")
            announce(version, ("unreachable",))
            become(first, "up", "dead")
            with nothing_dropped(site):
                equal(refused(site, site.client, version, 1), TOLD[version], "what the host is told")
                reached(site, site.client, version, 0)
                reached(site, site.client, 10 - version, 1)
            announce(version)
            become(first, "up", "up")
            withdraw(version)
            become(first, "up", "dead")
            equal(refused(site, site.client, version, 1), TOLD[version], "what the host is told")
            check(first.rows()["isp-b"]["rejected"], "nothing is counted")


def allocated(router, index):
    """The relayed host for a client that dials this address of RXA; None: there is no capacity."""
    with turn.Control(site.client, (RXA.addr(4, index), router.server.port)) as client:
        said = client.request(ALLOCATE, [turn.transport()])
        if said.code:
            equal(said.code, 508, "why there is no allocation")
            return None
        return said.address(stun.XOR_RELAYED_ADDRESS)[0]


@test("a dead exit of another router gets no new allocation, 508 without another; what is there stays", 40)
def _():
    with both() as (first, _):
        for way in (4, 6):
            announce(way)
        become(first, "up", "up")
        wait_for(lambda: allocated(first, 1) == RXA.addr(4, 1), 5, "B's address is given")
        client = lab.keep(turn.Control(site.client, (RXA.addr(4, 1), first.server.port)))
        client.allocate()
        sock, far, _ = lab.pair(client)
        withdraw(4)
        wait_for(lambda: allocated(first, 1) is None, 5, "Allocate is answered with 508")
        equal(allocated(first, 0), RXA.addr(4, 0), "the other provider's address")
        check(first.server.counters()["exits_down"], "nothing is counted")
        announce(4)
        become(first, "up", "up")
        ping(sock, far)
        withdraw(4)
        become(first, "up", "dead")
        first.server.sections["relay"] = {"address": f"{RXA.addr(4, 1)}, {RXA.addr(4, 0)}"}
        first.server.write_config()
        equal(first.server.reload(), "reloaded", "the reload")
        for _ in range(6):
            equal(allocated(first, 1), RXA.addr(4, 0), "of two addresses the one that leads out")
        # A relay that is started again has it from the supervisor.
        first.server.kill_hard([first.server.relay_pid()])
        wait_for(lambda: first.server.log_count(r"event=ready") == 2, 10, "another relay")
        equal(allocated(first, 1), RXA.addr(4, 0), "the other relay's first answer")
        announce(4)
        become(first, "up", "up")
        wait_for(lambda: allocated(first, 1) == RXA.addr(4, 1), 5, "B's address is given again")


@test("what an exit was, and for how long it has not been, is told, and so is what it has counted", 40)
def _():
    with both() as (first, _):
        for way in (4, 6):
            announce(way)
        become(first, "up", "up")
        before = first.rows()["isp-b"]["changes"]
        withdraw(4)
        become(first, "up", "dead")
        row = first.rows()["isp-b"]
        equal((row["was"], row["changes"]), ("up", before + 1), "the last change")
        check("up to dead, " in first.exits(), first.exits())
        check(first.server.log_count("event=exit_changed exit=isp-b was=up now=dead"), "no line")
        for source in ("10.82.0.2", "10.82.0.1"):
            said = first.exits("trace", source, "10.99.0.1")
            check("isp-b is dead for it now" in said and "unreachable" in said, said)
        said = first.exits("trace", "fd82::2", "fd99::1")
        check("dead" not in said and f"via {RXB.addr(6)}" in said, said)
        equal(refused(site, site.client, 4, 1), TOLD[4], "what the host is told")
        reached(site, site.client, 4, 0)

        def told():
            """By the control socket, which needs no root."""
            said = json.loads(first.server.control_request(b'{"v":1,"cmd":"exits"}\n'))
            return {row["name"]: row for row in said["data"]["exits"]}
        # Counted every five seconds.
        wait_for(lambda: told()["isp-b"]["rejected"] and told()["isp-a"]["packets"], 10, "counts")
        equal((told()["isp-b"]["state"], told()["isp-b"]["was"]), ("dead", "up"), "told")
        within(told()["isp-b"]["since_ms"], 1, 30000, "milliseconds")
        announce(4)
        become(first, "up", "up")
        equal(first.rows()["isp-b"]["was"], "dead", "the last change")


class Losses:
    """Takes host routes away itself, and hears when nftables are changed behind that."""

    def __init__(self, node):
        with node.entered():
            self.routes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
            self.news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
        self.news.bind((0, NFTABLES_NEWS))

    def lose(self, anycast):
        """Milliseconds from when the route is gone until nftables have changed."""
        family = socket.AF_INET6 if ":" in anycast else socket.AF_INET
        address = socket.inet_pton(family, anycast)
        body = struct.pack("=BBBBBBBBI", family, len(address) * 8, 0, 0, 254, 0, 255, 0, 0)
        body += struct.pack("=HH", 4 + len(address), RTA_DST) + address
        while select.select([self.news], [], [], 0)[0]:
            self.news.recv(1 << 16)
        # Other namespaces may be in the kernel's way until then; it tells of it inside this call.
        self.routes.send(struct.pack("=IHHII", 16 + len(body), RTM_DELROUTE, 1, 1, 0) + body)
        begun = time.monotonic()
        check(select.select([self.news], [], [], 2)[0], "nftables have not changed")
        return (time.monotonic() - begun) * 1000

    def close(self):
        self.routes.close()
        self.news.close()


@contextlib.contextmanager
def busy():
    """All processors have something else to do, but for who measures: that comes first."""
    code = "import os\nwhile os.getppid() == %d: pass" % os.getpid()
    with contextlib.ExitStack() as stack:
        for _ in range(os.cpu_count()):
            process = subprocess.Popen([sys.executable, "-c", code])
            stack.callback(process.wait)
            stack.callback(process.kill)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))
        try:
            yield
        finally:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def leaves(prefix):
    """Has RXA a way out for this prefix of B?"""
    said = RXA.run("ip", "-6", "route", "show", "table", "20000", "default", "from", prefix)
    return "via" in said


@test("a lost host route rejects within 1 ms of the event, whoever keeps the processors busy", 60)
def _():
    prefixes = [f"fd82:0:0:{number:x}::/64" for number in range(LOSSES)]
    anycast = [str(ipaddress.IPv6Network(each)[-1]) for each in prefixes]
    made = sections("a", RXB)
    made["exit isp-b"]["prefix"] = ", ".join([PREFIX["b"][4], *prefixes])
    took = []
    with routers(lab, [(RXA, made)]) as (first,), contextlib.closing(Losses(RXA)) as losses:
        for each in (ANYCAST["b"][4], *anycast):
            via = RXB.addr(6 if ":" in each else 4)
            RXA.run("ip", "route", "add", each, "via", via, "dev", "lan", "proto", "babel")
        become(first, "up", "up")
        with busy():
            for prefix, each in zip(prefixes, anycast):
                took.append(losses.lose(each))
                # What follows the refusal is done before the next one.
                wait_for(lambda prefix=prefix: not leaves(prefix), 5, f"{prefix} has no way out")
            took.append(losses.lose(ANYCAST["b"][4]))
        become(first, "up", "dead")
    took.sort()
    tap.note(f"milliseconds of {len(took)}: p50 {took[len(took) // 2]:.2f}, "
             f"p90 {took[len(took) * 9 // 10]:.2f}, p99 {took[-1]:.2f}")
    # The rest is left to what does not let go of a processor: the kernel, the host of a guest.
    within(took[len(took) * 9 // 10], 0, 1, "milliseconds until nftables refuses, of nine in ten")


@contextlib.contextmanager
def told(most, seconds):
    """Inside the block, which takes so long, the host is told so often why."""
    proc_run(*site.client.command(["nft", "-f", "-"]), input=REFUSALS)
    try:
        yield
        said = json.loads(site.client.run("nft", "-j", "list", "counters"))
    finally:
        site.client.run("nft", "delete", "table", "inet", "told")
    found = {one["counter"]["name"]: one["counter"]["packets"] for one in said["nftables"]
             if "counter" in one}
    within(found["why"], 1, most, f"refusals in {seconds} s")
    tap.note(f"{found['why']} told why, {found['other']} otherwise")


def probes(version, seconds, between=lambda: None, index=1):
    """Datagrams from B's prefix (index 0: A's) to Y, 50 a second."""
    with contextlib.closing(site.client.bound(version, index, udp=True)) as sock:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                sock.sendto(b"?", (site.peer.addr(version), 9))
            between()
            select.select([], [], [], .02)


@test("who sends from a dead prefix is told once a second; within the site it goes on", 40)
def _():
    with both() as (first, _), nothing_dropped(site):
        become(first, "up", "dead")
        for version in (4, 6):
            with told(2, 1.5):
                probes(version, 1.5)
        # By RXA, as it forwards it, to RXB on the same network.
        site.client.run("ip", "-6", "route", "add", "fd85::3", "via", "fe80::1", "dev", "site")
        try:
            for node in (RXA, RXB):
                with contextlib.closing(node.listen(6, 2)) as listener:
                    site.client.connect(listener.getsockname()[:2], 1, 3).close()
        finally:
            site.client.run("ip", "-6", "route", "del", "fd85::3")


@test("a host route that flaps ten times a second leaves the exit dead until it is calm", 40)
def _():
    with both() as (first, _):
        announce(4)
        announce(6)
        become(first, "up", "up")
        turns = iter([announce, withdraw] * 100)
        due = [time.monotonic()]

        def flap():
            if time.monotonic() >= due[0]:
                next(turns)(6)
                due[0] += .05
        with nothing_dropped(site), told(4, 3):
            probes(6, 3, flap)
        announce(6)
        become(first, "up", "up")
        with nothing_dropped(site):
            reached(site, site.client, 6, 1)


def held_back(router):
    """What is said of a router whose own exit's link is up, but not taken for it."""
    wait_for(lambda: router.rows()["isp-a"]["state"] == "held", 1, "it is held back")
    within(router.rows()["isp-a"]["held_ms"], 1, 32000, "milliseconds that it is held back")
    check("held for " in router.exits(), router.exits())
    equal(router.exits("plan").strip(), "nothing to be changed", "the plan")
    for version in (4, 6):
        said = router.exits("trace", site.client.addr(version, 0), site.peer.addr(version))
        check("isp-a is dead for it now: held for " in said and "unreachable" in said, said)
    told = json.loads(router.server.control_request(b'{"v":1,"cmd":"exits"}\n'))["data"]
    equal([row["state"] for row in told["exits"] if row["name"] == "isp-a"], ["held"], "told")
    check(any(one["what"] == "to_a" and one["held_ms"] for one in told["losses"]), told)


@test("a link that flaps ten times a second leaves its exit refused until it is calm", 40)
def _():
    # The addresses stay, and the routes by them come back with the link.
    RXA.run("sysctl", "-qw", "net.ipv6.conf.to_a.keep_addr_on_down=1")
    with both() as (first, _), nothing_dropped(site):
        become(first, "up", "dead")
        due = [time.monotonic()]
        turns = iter(["down", "up"] * 100)

        def flap():
            if time.monotonic() >= due[0]:
                RXA.run("ip", "link", "set", "to_a", next(turns))
                due[0] += .05
        with told(3, 2):
            probes(6, 2, flap, 0)
        # Held for one second now, for two when it is lost again, for four the next time: the host
        # may be told with the second SYN only, which takes a second.
        for _ in range(2):
            RXA.run("ip", "link", "set", "to_a", "up")
            wait_for(lambda: first.rows()["isp-a"]["state"] == "up", 5, "it is taken again")
            RXA.run("ip", "link", "set", "to_a", "down")
        RXA.run("ip", "link", "set", "to_a", "up")
        for version in (4, 6):
            equal(refused(site, site.client, version, 0), TOLD[version], "the host is told")
        check("UP" in RXA.run("ip", "-br", "link", "show", "to_a"), "the link is down")
        held_back(first)
        become(first, "up", "dead")
        for version in (4, 6):
            RXA.run("ip", f"-{version}", "route", "replace", "default", "via", HOP["a"][version])
            reached(site, site.client, version, 0)


@test("a route with six hundred next hops to an anycast address, or over it, is told apart", 40)
def _():
    def gone(to):  # ip(8) cannot list it, nor flush it
        RXA.run("ip", "-6", "route", "del", to, "proto", "babel", "metric", "50")

    def hops(to):
        text = "".join(f"route append {to} via fe80::7:{number:x} dev lan proto babel metric 50\n"
                       for number in range(1, 601))
        proc_run(*RXA.command(["ip", "-6", "-batch", "-"]), input=text)

    with both() as (first, _):
        announce(4)
        become(first, "up", "dead")
        hops(ANYCAST["b"][6])
        become(first, "up", "up")
        hops(f"{ANYCAST['b'][6]}/64")
        become(first, "up", "up")
        gone(ANYCAST["b"][6])
        become(first, "up", "dead")
        check(not first.server.log_count("event=exits_not_looked_at"), first.server.log())
        gone(f"{ANYCAST['b'][6]}/64")


def has_anycast(node, key):
    """Has it the anycast addresses of this provider, to announce and as its own?"""
    found = []
    for version in (4, 6):
        for table in ("main", "local"):
            said = node.run("ip", f"-{version}", "route", "show", "table", table, "proto", "200")
            found.append(ANYCAST[key][version] in said)
    return all(found) if any(found) else False


@test("a router has its own exit's anycast addresses while the link is up", 30)
def _():
    with both():
        check(has_anycast(RXA, "a") and has_anycast(RXB, "b"), "they are not there")
        check(not has_anycast(RXA, "b"), "RXA has those of B")
        with link_down(RXB, "to_b"):
            wait_for(lambda: not has_anycast(RXB, "b"), 5, "those of B are withdrawn")
            with nothing_dropped(site):
                for version in (4, 6):
                    equal(refused(site, RXA, version, 0), 0, "by A")
        wait_for(lambda: has_anycast(RXB, "b"), 5, "they are back")


tap.main()
