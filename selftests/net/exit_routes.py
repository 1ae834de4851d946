#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Routing by source: a site with two providers that filter, behind one exit router.

The router runs culvertd with [exit] sections. Whatever leaves the site must leave by the
provider that its source belongs to: their filters drop nothing.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import engines, netem, proc, tap, turn  # noqa: E402
from culvertlab.data import KIB, ping, swap  # noqa: E402
from culvertlab.exits import UNREACHABLE, ask, await_ready, begin, link_down, linked  # noqa: E402
from culvertlab.server import binary  # noqa: E402
from culvertlab.site import HOP, Site, all_reached, nothing_dropped, reached, refused  # noqa: E402
from culvertlab.stun import ALLOCATE  # noqa: E402
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.wait import holds_for, wait_for  # noqa: E402

test = tap.test
site, lab = begin(Site)


def many():
    """The two exits with so many prefixes that nftables finds the exit of what is forwarded."""
    made = linked()
    for name, ours, other in (("exit isp-a", "10.181", "fd81:1"), ("exit isp-b", "10.182", "fd82:1")):
        made[name]["prefix"] = [made[name]["prefix"], *(f"{ours}.{n}.0/24" for n in range(60)),
                                *(f"{other}:{n}::/64" for n in range(510))]
    return made


def router(**changes):
    """culvertd on the router, its exits ready."""
    server = lab.server({"engine": {"order": "splice"}, **linked(), **changes})
    await_ready(server)
    return server


def states(server):
    """{exit: (state, packets, rejected)} in the kernel."""
    rows = json.loads(ask(server, "-j"))["exits"]
    return {row["name"]: (row["state"], row["packets"], row["rejected"]) for row in rows}


@test("without exits the second prefix leaves by the first provider, which drops it")
def _():
    reached(site, site.client, 4, 0)
    before = site.dropped()
    equal(refused(site, site.client, 4, 1, 1), errno.ETIMEDOUT, "a connection from B's prefix")
    check(site.dropped()[0] > before[0], "A's filter has dropped nothing")


@test("single exit router: each source takes its exit, both families, 0 packets dropped", 30)
def _():
    server = router()
    with nothing_dropped(site):
        all_reached(site, site.client, site.relay)
    rows = states(server)
    for name in ("isp-a", "isp-b"):
        equal(rows[name][0], "up", f"state of {name}")
        check(rows[name][1] >= 12, f"{name} counts {rows[name][1]} packets")
        equal(rows[name][2], 0, f"rejected at {name}")


@test("with many prefixes, too: nftables finds the exit; pairs on splice and on wire", 40)
def _():
    for engine in ("splice", "wire"):
        if engines.missing(lab, engine):
            tap.note(f"{engine}: {engines.missing(lab, engine)}")
            continue
        server = router(**many(), **engines.config(lab, engine))
        with nothing_dropped(site):
            all_reached(site, site.client, site.relay)
            relayed(server, engine)
        said = ask(server, "trace", "10.82.0.2", "10.99.0.1")
        for words in ("belongs to exit isp-b, by", f"goes via {HOP['b'][4]} by to_b"):
            check(words in said, f"no \"{words}\" in:\n{said}")
        rows = json.loads(ask(server, "-j"))["exits"]
        equal({row["name"]: row["by"] for row in rows}, {"isp-a": "map", "isp-b": "map"}, "by")


@contextlib.contextmanager
def no_default():
    """The router's main table has no default route inside the block."""
    routes = (("-4", HOP["a"][4]), ("-6", HOP["a"][6]))
    for family, hop in routes:
        site.relay.run("ip", family, "route", "del", "default", "via", hop)
    try:
        yield
    finally:
        for family, hop in routes:
            site.relay.run("ip", family, "route", "add", "default", "via", hop)


@test("a source without a route back is traced as packets go, or as IPv4 drops them")
def _():
    exits = linked()
    exits["exit isp-a"]["prefix"] = "10.81.0.0/16, fd81::/32"
    server = router(**exits)

    def trace(version, to=None):
        source = {4: "10.81.7.7", 6: "fd81:0:0:7::7"}[version]
        return json.loads(ask(server, "trace", "-j", source, to or site.peer.addr(version)))

    def goes(version):
        said = trace(version)
        equal((said["device"], said["gateway"], said["dropped"], said["unreachable"]),
              ("to_a", HOP["a"][version], False, False), f"the way of IPv{version}")
        return said["no_way_back"]

    check(not goes(4) and not goes(6), "there is a way back")
    with no_default():
        check(goes(4) and goes(6), "there is no way back")
        site.relay.run("ip", "route", "add", "blackhole", "10.77.0.0/16")
        try:
            for filters in ("0", "2"):
                site.relay.run("sysctl", "-qw", f"net.ipv4.conf.lan.rp_filter={filters}")
                said = trace(4, "10.77.0.1")
                equal((said["unreachable"], said["dropped"]), (True, False), "to a black hole")
            said = trace(4)
            equal((said["unreachable"], said["dropped"]), (False, True), "validated")
            check(goes(6), "IPv6 validates none")
        finally:
            site.relay.run("sysctl", "-qw", "net.ipv4.conf.lan.rp_filter=0")
            site.relay.run("ip", "route", "del", "blackhole", "10.77.0.0/16")


@test("routes of the site keep their MTU and other metrics for packets of exits", 20)
def _():
    server = router()
    relay = site.relay
    copies = {"fd77::/64": "table 20000", "fd78::/64": "table 20000", "10.91.0.0/24": "table all"}

    def said(to):
        family = "-6" if ":" in to else "-4"
        lines = relay.run("ip", family, "route", "show", *copies[to].split(), to).splitlines()
        return [line for line in lines if " proto 200 " in line or "table 20000" in copies[to]]

    def hold(to, words):
        """Each copy of the route has these words of its metrics, and nothing more is to be done."""
        wait_for(lambda: said(to) and all(words in line for line in said(to)), 3,
                 f"\"{words}\" in {said(to)}")
        equal(len(said(to)), 1, f"copies: {said(to)}")
        wait_for(lambda: "nothing" in ask(server, "plan"), 3, "all is as it should be")

    far = ("fd77::/64", "via", "fd85::2", "dev", "lan")
    near = ("fd78::/64", "dev", "lan")
    own = ("10.91.0.0/24", "dev", "to_a", "proto", "kernel", "scope", "link", "src", "10.91.0.1")
    rich = ("mtu", "lock", "1280", "advmss", "1000", "rtt", "20ms", "initcwnd", "20", "quickack",
            "1", "congctl", "reno", "features", "ecn", "hoplimit", "33")
    try:
        for metrics in (rich, ("mtu", "1300"), ("mtu", "lock", "1280")):
            for route in (far, near):
                relay.run("ip", "-6", "route", "replace", *route, *metrics)
            relay.run("ip", "route", "change", *own, *metrics)
            for to in copies:
                hold(to, " ".join(metrics[:3 if "lock" in metrics else 2]))
        sock = site.client.datagrams(("fd77::9", 9), 0)
        with contextlib.closing(sock):
            sock.send(bytes(1400))
            wait_for(lambda: sock.getsockopt(socket.IPPROTO_IPV6, 24) == 1280, 3, "IPV6_MTU")
        relay.run("ip", "route", "change", *own)
        for route in (far, near):
            relay.run("ip", "-6", "route", "replace", *route)
        wait_for(lambda: not any("mtu" in line for to in copies for line in said(to)), 3,
                 "without metrics again")
    finally:
        relay.run("ip", "route", "change", *own)
        for route in (far, near):
            relay.run("sh", "-c", f"ip -6 route del {' '.join(route)} || :")


@test("while a copy of a route gets other metrics there is always one")
def _():
    router()
    relay = site.relay

    def change(to, mtu):
        """Whether the copy has it."""
        relay.run("ip", "-6", "route", "replace", to, "dev", "lan", "mtu", mtu)
        wait_for(lambda: f"metric 1024 mtu {mtu}" in relay.run(
            "ip", "-6", "route", "show", "table", "20000", to), 3, "the copy of a route")
        return True

    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(
            relay.command(["ip", "-6", "monitor", "route"]), stdout=said) as news:
        try:
            # It takes a moment to listen.
            wait_for(lambda: change("fd7b::/64", secrets.choice(("1400", "1401"))) and
                     os.fstat(said.fileno()).st_size, 5, "news of routes")
            for mtu in ("1301", "1302", "1303"):
                change("fd7a::/64", mtu)
            relay.run("ip", "-6", "route", "del", "fd7b::/64", "dev", "lan")
            wait_for(lambda: "Deleted fd7b::/64 dev lan table 20000" in
                     os.pread(said.fileno(), 1 << 20, 0).decode(), 5, "the last of the news")
        finally:
            news.kill()
            relay.run("ip", "-6", "route", "flush", "root", "fd7a::/15")
        lines = os.pread(said.fileno(), 1 << 20, 0).decode().splitlines()
    there = 0
    lines = [line for line in lines if "fd7a::/64" in line and "table 20000" in line]
    for line in lines[:lines.index(next(line for line in lines if "mtu 1303" in line)) + 1]:
        there += -1 if line.startswith("Deleted") else 1
        check(there > 0, f"no copy after: {line}")


@test("routes of the main table by an exit's link, however long, take no foreign source there")
def _():
    router()
    site.relay.run("ip", "route", "add", "10.99.0.0/16", "via", HOP["a"][4])
    site.relay.run("ip", "-6", "route", "add", "fd99::/48", "via", HOP["a"][6])
    try:
        with nothing_dropped(site):
            for version in (4, 6):
                reached(site, site.client, version, 1)
    finally:
        site.relay.run("ip", "route", "del", "10.99.0.0/16")
        site.relay.run("ip", "-6", "route", "del", "fd99::/48")


def relayed(server, engine):
    """A pair of each relayed address carries bytes."""
    for version, index in ((4, 0), (4, 1), (6, 0), (6, 1)):
        address = (site.relay.addr(version, index), server.port)
        client = lab.keep(turn.Control(site.client, address))
        client.allocate(*([turn.family(6)] if version == 6 else []))
        data, peer, _ = lab.pair(client, version)
        equal(peer.getpeername()[0], address[0], "the peer's view of the source")
        engines.on(server, data, engine)
        swap(data, peer, 256 * KIB, index)


@test("relayed pairs leave by the exit of their relayed address, on splice and on wire", 40)
def _():
    for engine in ("splice", "wire"):
        if engines.missing(lab, engine):
            tap.note(f"{engine}: {engines.missing(lab, engine)}")
            continue
        server = router(**engines.config(lab, engine))
        with nothing_dropped(site):
            relayed(server, engine)


@test("a lost link: its prefix fails at once, the other goes on, nothing is misrouted", 30)
def _():
    server = router()
    with link_down(site.relay, "to_b"):
        with nothing_dropped(site):
            for version in (4, 6):
                begun = time.monotonic()
                check(refused(site, site.client, version, 1) in UNREACHABLE, "no error at the host")
                # An answer that comes before connect() has returned counts with the second SYN.
                within(time.monotonic() - begun, 0, 1.9, "seconds until the error")
                reached(site, site.client, version, 0)
        equal(states(server)["isp-b"][0], "down", "state")
    wait_for(lambda: states(server)["isp-b"][0] == "up", 5, "the exit is up again")
    with nothing_dropped(site):
        for version in (4, 6):
            reached(site, site.client, version, 1, 5)


def allocate(server):
    """The relayed host of a new allocation, of a client that comes by no exit."""
    with turn.Control(site.client, (site.relay.addr(4, 2), server.port)) as client:
        client.allocate()
        return client.relayed[0]


def refuses(server):
    """Is an Allocate answered with 508?"""
    with turn.Control(site.client, (site.relay.addr(4, 2), server.port)) as client:
        return client.code(ALLOCATE, [turn.transport()]) == 508


@test("a dead exit gets no new allocation, 508 without another; what is there survives 2 s", 40)
def _():
    server = router(relay={"address": "10.82.0.1"})
    client = lab.keep(turn.Control(site.client, (site.relay.addr(4, 2), server.port)))
    client.allocate()
    data, peer, _ = lab.pair(client)
    ping(data, peer)
    with link_down(site.relay, "to_b"):
        down = time.monotonic()
        # Each worker looks at the links once a second.
        wait_for(lambda: refuses(server), 5, "Allocate is answered with 508")
        check(server.counters()["exits_down"], "nothing is counted")
        peer.sendall(b"while it is down")
        data.sendall(b"that way, too")
        server.sections["relay"]["address"] = "10.82.0.1, 10.81.0.1"
        server.write_config()
        equal(server.reload(), "reloaded", "the reload")
        wait_for(lambda: all(allocate(server) == "10.81.0.1" for _ in range(6)), 5,
                 "the other provider's address is given, by each worker")
        holds_for(lambda: server.process.status is None, max(0, 2 - (time.monotonic() - down)),
                  "the daemon runs on")
    with nothing_dropped(site):
        equal(data.recv(64), b"while it is down", "bytes to the client")
        equal(peer.recv(64), b"that way, too", "bytes to the peer")
        ping(data, peer)


@test("a link whose source validation is strict draws a warning that says what to do")
def _():
    check(not router().log_count("event=exit_strict"), "a warning without a reason")
    lab.stop_server()
    site.relay.run("sysctl", "-qw", "net.ipv4.conf.to_b.rp_filter=1")
    try:
        server = router()
        equal(server.log_count('event=exit_strict where="link to_b of exit isp-b"'), 1,
              "warnings of B's")
        equal(server.log_count("event=exit_strict"), 1, "warnings")
        check("rp_filter=2" in server.log(), "what to do")
    finally:
        site.relay.run("sysctl", "-qw", "net.ipv4.conf.to_b.rp_filter=0")
        lab.stop_server()


def unplugged():
    return link_down(site.relay, "to_b")


def silent():
    """Nothing passes the link, which nobody is told of."""
    return netem.bad([(site.relay, "to_b"), (site.provider["b"], "site")], "loss", "100%")


# How a provider is lost; not every kernel has netem.
OUTAGE = {"link": unplugged, "netem": silent}[os.environ.get("OUTAGE", "link")]


@test("connections survive an outage of 2 s of their provider, on every engine", 60)
def _():
    names = [name for name in engines.chosen() if not engines.missing(lab, name)]
    users = {f"user {name}": {"realm": "example.org", "password": "secret", "engine": engines.order(name)}
             for name in names}
    server = router(engine={"order": ", ".join(names), "wire": "always"}, **users)
    pairs = []
    for name in names:
        client = lab.keep(turn.Control(site.client, (site.relay.addr(4, 1), server.port), name, "secret"))
        client.allocate()
        data, peer, _ = lab.pair(client)
        engines.on(server, data, name)
        ping(data, peer)
        pairs.append((name, data, peer))
    with OUTAGE():
        down = time.monotonic()
        for _, data, peer in pairs:
            peer.sendall(b"while it is down")
            data.sendall(b"that way, too")
        holds_for(lambda: server.process.status is None, max(0, 2 - (time.monotonic() - down)),
                  "the daemon runs on")
    with nothing_dropped(site):
        for name, data, peer in pairs:
            equal(turn.recv_exact(data, 16), b"while it is down", f"{name}: bytes to the client")
            equal(turn.recv_exact(peer, 13), b"that way, too", f"{name}: bytes to the peer")
            ping(data, peer)
            engines.on(server, data, name)
    tap.note("on " + ", ".join(names))


@test("a source that no provider knows is told so: ICMPv6 code 5, and nothing is dropped outside")
def _():
    server = router()
    before = states(server)["isp-a"][2]
    with nothing_dropped(site):
        equal(refused(site, site.client, 6, 2), errno.EACCES, "IPv6")
        equal(refused(site, site.client, 4, 2), errno.EHOSTUNREACH, "IPv4")
    check(states(server)["isp-a"][2] >= before + 2, "the guard has counted nothing")


def forge(node, source, count=20):
    """Datagrams with this source, from whoever may own it, to the far end; no reply is awaited."""
    family, far = (socket.AF_INET6, "fd99::1") if ":" in source else (socket.AF_INET, "10.99.0.1")
    with node.socket(6 if ":" in source else 4, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        data = struct.pack("!HHHH", 4444, 5555, 8, 0)
        ends = socket.inet_pton(family, source) + socket.inet_pton(family, far)
        head = struct.pack("!IHBB", 6 << 28, len(data), socket.IPPROTO_UDP, 64) \
            if family == socket.AF_INET6 else \
            struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0, 64, socket.IPPROTO_UDP, 0)
        for _ in range(count):
            sock.sendto(head + ends + data, (far, 0))


def provider_forges(server):
    """A sends with a source of B's prefix, for what is behind B."""
    wait_for(lambda: {row[0] for row in states(server).values()} == {"up"}, 5, "both are up")
    for version, source in ((4, "10.82.0.2"), (6, "fd82::2")):
        way = [] if version == 4 else ["-6"]
        far = "10.99.0.1" if version == 4 else "fd99::1"
        ours = "10.91.0.1" if version == 4 else "fd91::1"
        before, passed = states(server)["isp-a"][2], site.passed()
        provider = site.provider["a"]
        provider.run("ip", *way, "route", "add", far, "via", ours, "table", "77")
        provider.run("ip", *way, "rule", "add", "pref", "10", "to", far, "iif", "lo", "table", "77")
        try:
            forge(provider, source)
            wait_for(lambda: states(server)["isp-a"][2] >= before + 20, 5, "all are counted")
        finally:
            provider.run("ip", *way, "rule", "del", "pref", "10")
            provider.run("ip", *way, "route", "del", far, "table", "77")
        equal(site.passed()["b"], passed["b"], "packets that B let pass")


@test("a provider that sends with a source of ours has nothing carried to the other one", 30)
def _():
    # The links in the group of exits' links, and one or both in somebody else's.
    for mine in ((), ("to_a",), ("to_b",), ("to_a", "to_b")):
        with contextlib.ExitStack() as stack:
            for link in mine:
                site.relay.run("ip", "link", "set", link, "group", "7")
                stack.callback(site.relay.run, "ip", "link", "set", link, "group", "0")
            provider_forges(router())


@test("two exits by one link let out the sources of both, and nobody else's", 30)
def _():
    one = linked()
    one["exit second"] = {**one["exit isp-a"], "prefix": "10.85.0.0/24, fd85::/64"}
    server = router(**one)
    for source, name in (("10.81.0.2", "isp-a"), ("10.85.0.2", "second"), ("fd85::2", "second")):
        before = states(server)[name]
        forge(site.client, source)
        wait_for(lambda name=name, before=before: states(server)[name][1] >= before[1] + 20, 5,
                 f"what {name} lets out is counted")
        equal(states(server)["isp-a"][2], 0, "rejected")


@test("link-local sources of IPv4 are not forwarded to a provider")
def _():
    server = router()
    before = states(server)["isp-a"][2]
    with nothing_dropped(site):
        forge(site.client, "169.254.9.9")
        wait_for(lambda: states(server)["isp-a"][2] >= before + 20, 5, "all are rejected")


@test("trace tells which way a packet takes, and why")
def _():
    server = router()
    for source, far, hop in (("10.82.0.2", "10.99.0.1", "10.92.0.2"),
                             ("10.82.0.1", "10.99.0.1", "10.92.0.2"),
                             ("fd82::2", "fd99::1", "fd92::2")):
        said = ask(server, "trace", source, far)
        for words in ("belongs to exit isp-b, by", f"goes via {hop} by to_b", "lets it pass"):
            check(words in said, f"no \"{words}\" in:\n{said}")
    said = ask(server, "trace", "10.85.0.2", "10.99.0.1")
    check("belongs to no exit" in said and "isp-a rejects it" in said, said)
    said = ask(server, "trace", "fd82::2", "fd81::2")
    check("by lan" in said and "guard" not in said, said)
    with link_down(site.relay, "to_b"):
        said = ask(server, "trace", "fd82::2", "fd99::1")
        check("belongs to exit isp-b" in said and "unreachable" in said, said)


@test("a next hop that the kernel refuses is told of, and costs nobody else anything")
def _():
    own = {"link": "to_a", "next_hop": "fd91::1", "prefix": "fd86::/64"}
    server = router(**{"exit isp-c": own})
    check(server.log_count(r'event=exit_change_failed add="ip -6 route default from fd86::/64'),
          f"nothing is told in:\n{server.log()}")
    equal(states(server)["isp-c"][0], "lost", "state")
    with nothing_dropped(site):
        for version in (4, 6):
            reached(site, site.client, version, 1)


def rules():
    """All of both families; of one preference the kernel has them in any order."""
    said = site.relay.run("ip", "rule") + site.relay.run("ip", "-6", "rule")
    return "\n".join(sorted(said.splitlines()))


def healing(monitor):
    """(ms from the last rule that went to the last that came back, how many went, came back)."""
    times = {}
    stamp = re.compile(r"T(\d+):(\d+):([\d.]+)\]\s+(Deleted )?")
    for line in monitor.out().splitlines():
        found = stamp.search(line)
        if found and "proto 200" in line:
            when = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
            times.setdefault(bool(found[4]), []).append(when)
    went, came = times.get(True, []), times.get(False, [])
    return (came[-1] - went[-1]) * 1000 if came and went else 0, len(went), len(came)


@test("rules, routes and group that somebody takes away are back at once, by one healing")
def _():
    server = router()
    wanted = rules()
    wanted4 = site.relay.run("ip", "rule").count("proto 200")
    monitor = lab.spawn(site.relay, ["stdbuf", "-oL", "ip", "-ts", "monitor", "rule"], "monitor")
    wait_for(lambda: monitor.status is not None or listens(monitor.pid), 5, "the monitor listens")
    site.relay.run("ip", "rule", "flush", "protocol", "200")
    wait_for(lambda: rules() == wanted, 2, "rules are back")
    wait_for(lambda: healing(monitor)[1] >= wanted4 and healing(monitor)[2] >= wanted4, 2,
             "the monitor has told of all")
    took, went, came = healing(monitor)
    tap.note(f"healed {took:.2f} ms after the last of {went} rules went")
    equal(came, went, "rules that came back, each once")
    within(took, 0, 100, "ms until they are back")
    site.relay.run("ip", "-6", "route", "flush", "table", "20000")
    site.relay.run("ip", "link", "set", "to_a", "group", "0")
    wait_for(lambda: states(server)["isp-b"][0] == "up" and "nothing" in ask(server, "plan"), 2,
             "routes and group are back")
    with nothing_dropped(site):
        reached(site, site.client, 6, 1)


def churn(count):
    """Somebody who makes and removes devices all the time, beside many that stay."""
    here, batch = site.relay, ["ip", "-force", "-batch", "-"]
    command = here.command(batch)
    subprocess.run(command, input="".join(f"link add d{n} type bridge\n" for n in range(count)),
                   text=True, check=True)
    script = "link add q type bridge\\nlink del q\\n" * 50
    return lab.spawn(here, ["sh", "-c", f"while printf '{script}' | ip -force -batch - 2>&1; do :; done"],
                     "churn")


@test("what is taken away comes back while others change devices all the time", 60)
def _():
    router()
    table = re.search(r"from 10\.81\.0\.0/24 lookup (\d+)", rules())[1]
    busy = churn(100)
    try:
        for _ in range(8):
            site.relay.run("ip", "route", "del", "default", "table", table)
            wait_for(lambda: "via" in site.relay.run("ip", "route", "show", "table", table), 5,
                     "the route is back")
    finally:
        busy.stop()
        subprocess.run(site.relay.command(["ip", "-force", "-batch", "-"]), text=True, check=True,
                       input="".join(f"link del d{n}\n" for n in range(100)))


def listens(pid):
    """Has a process in that namespace joined groups of netlink by its own number?"""
    with open(f"/proc/{pid}/net/netlink", encoding="ascii") as file:
        rows = [line.split() for line in file]
    return any(row[2] == str(pid) and int(row[3], 16) for row in rows[1:])


@test("nft flush ruleset passes the guards by, and nobody else may change them")
def _():
    server = router()
    site.relay.run("nft", "flush", "ruleset")
    if "culvert_guard" not in site.relay.run("nft", "list", "tables"):
        tap.note("this kernel knows no tables with an owner")
    wait_for(lambda: "culvert_guard" in site.relay.run("nft", "list", "tables"), 2, "guards")
    equal(refused(site, site.client, 6, 2), errno.EACCES, "a foreign source")
    check("nothing" in ask(server, "plan"), "something would be changed")


def exit_process(server):
    """The exit role: the child of the supervisor with CAP_NET_ADMIN, CAP_SYS_NICE and nothing else."""
    for pid in proc.children(server.process.pid):
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            if f"CapPrm:\t{1 << 12 | 1 << 23:016x}" in file.read():
                return pid
    return None


@test("a killed helper leaves routes and guards, and another one takes over")
def _():
    server = router()
    pid = exit_process(server)
    check(pid, "no process with these capabilities alone")
    ready = server.log_count(r"event=exits_ready")
    os.kill(pid, signal.SIGKILL)
    with nothing_dropped(site):
        reached(site, site.client, 4, 1)
        equal(refused(site, site.client, 6, 2), errno.EACCES, "a foreign source")
    wait_for(lambda: server.log_count(r"event=exits_ready") > ready, 5, "another one")
    check(exit_process(server) not in (pid, None), "no new process")
    check("nothing" in ask(server, "plan"), "something would be changed")


@test("a reload moves a prefix: the plan says what, then it is so")
def _():
    server = router()
    server.sections["exit isp-a"]["prefix"] = "10.81.0.0/24, fd81::/64, fd85::/64"
    server.write_config()
    plan = ask(server, "plan")
    check("+ ip -6 route default from fd85::/64" in plan and "~ table inet" in plan,
          f"the plan: {plan}")
    check("10.81" not in plan, f"the plan changes what stays: {plan}")
    equal(server.reload(), "reloaded", "the reload")
    wait_for(lambda: "nothing" in ask(server, "plan"), 5, "it is so")
    equal(refused(site, site.client, 6, 2, 1), errno.ETIMEDOUT, "the router lets it out; A does not")


@test("what is there outlives the daemon; remove takes all of it")
def _():
    server = router()
    denied = subprocess.run(site.relay.command([binary("culvertctl"), "exits", "remove"]),
                            capture_output=True, text=True, check=False)
    equal(denied.returncode, 1, "remove beside a running daemon")
    lab.stop_server()
    with nothing_dropped(site):
        reached(site, site.client, 4, 1)
    check("- ip -6 route default from" in ask(server, "remove"), "nothing is told of")
    check("20000" not in rules(), f"rules are left: {rules()}")
    equal(site.relay.run("nft", "list", "tables").strip(), "", "tables that are left")
    equal(site.relay.run("ip", "-6", "route", "show", "table", "all", "proto", "200").strip(), "",
          "routes that are left")
    check("nothing" in ask(server, "remove"), "a second time there is something")


tap.main()
