#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Exit router discovery (appendix A): a router that tunnels a host's packets tells the host so.

The site is that of exit_mesh.py: everything goes to RXA first, and RXB has the provider of half of it.
"""

import contextlib
import errno
import json
import os
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import tap  # noqa: E402
from culvertlab.exits import begin, routers  # noqa: E402
from culvertlab.mesh import ANYCAST, Mesh, mesh_sections  # noqa: E402
from culvertlab.packets import Tap, checksum, packed  # noqa: E402
from culvertlab.site import all_reached, nothing_dropped, reached  # noqa: E402
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

test = tap.test
site, lab = begin(Mesh)


def told(router):
    """How often it has told hosts of another exit."""
    return router.told()["hosts_told"]


def telling(hosts):
    """RXA and RXB, which tell these hosts."""
    made = [(node, mesh_sections(own)) for own, node in zip("ab", site.router)]
    for _, sections in made:
        for one in sections.values():
            one["discovery_host"] = hosts
    return routers(lab, made)


@contextlib.contextmanager
def flow(version=6, index=1):
    """(a socket at X that takes errors, one at Y) that talk to each other."""
    with contextlib.closing(site.peer.bound(version, udp=True)) as far, \
         contextlib.closing(site.client.bound(version, index, udp=True)) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6 if version == 6 else socket.IPPROTO_IP,
                        25 if version == 6 else 11, 1)  # the queue of errors
        sock.connect(far.getsockname()[:2])
        yield sock, far


def send(sock, data):
    """Sends, whatever error has come before."""
    try:
        sock.send(data)
    except PermissionError:
        sock.send(data)


@test("a host that wants to know is told once a second, and all it sends arrives", 20)
def _():
    with telling("fd82::/64") as servers, flow() as (sock, far), nothing_dropped(site):
        begun, count = time.monotonic(), 0
        while time.monotonic() - begun < 1.5 or count < 50:
            send(sock, b"?")
            equal(far.recv(8), b"?", "what arrives")
            count += 1
        wait_for(lambda: told(servers[0]), 2, "the host is told")
        seconds = time.monotonic() - begun
        within(told(servers[0]), 1, int(seconds) + 1, f"times in {seconds:.1f} s, {count} packets")
        _, ancillary, _, _ = sock.recvmsg(64, 256, socket.MSG_ERRQUEUE)
        number, origin, kind, code = struct.unpack("=IBBB", ancillary[0][2][:7])
        equal((number, origin, kind, code), (errno.EACCES, 3, 1, 5), "the error, of ICMPv6")
        check(not told(servers[1]), "the right router tells, too")


@test("hosts that did not ask are told nothing, nor is an error of ICMP answered", 20)
def _():
    with telling("fd82::77") as servers, nothing_dropped(site):
        for version in (4, 6):
            reached(site, site.client, version, 1)
        equal(told(servers[0]), 0, "times told")
    with telling("::/0") as servers, nothing_dropped(site):
        # An error, then something else, to another address: what is told of is that alone.
        with site.client.entered(), contextlib.closing(
                socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)) as raw:
            raw.bind(("fd82::2", 0))
            for kind, to in ((1, site.peer.addr(6)), (128, "fd94::2")):
                raw.sendto(struct.pack("!BBHI", kind, 0, 0, 0) + bytes(40), (to, 0))
        wait_for(lambda: told(servers[0]), 2, "the host is told")
        equal(told(servers[0]), 1, "times told")


@test("two hundred destinations at once are told of a hundred times a second at most", 20)
def _():
    with telling("::/0") as servers, contextlib.closing(site.client.bound(6, 1, udp=True)) as sock:
        site.peer.run("ip", "-6", "route", "add", "local", "fd99:1::/64", "dev", "lo")
        site.provider["b"].run("ip", "-6", "route", "add", "fd99:1::/64", "via", "fd94::2")
        begun = time.monotonic()
        for number in range(300):
            sock.sendto(b"?", (f"fd99:1::{number + 1:x}", 9))
        wait_for(lambda: told(servers[0]) >= 100, 3, "the host is told")
        seconds = time.monotonic() - begun
        within(told(servers[0]), 100, 100 + 100 * seconds, "times told")


@contextlib.contextmanager
def learner(**more):
    """culvertd at X, which learns exits; what it leaves in the kernel is gone afterwards."""
    sections = {f"exit isp-{key}": {"prefix": f"fd{net}::/48", "discover": "yes", **more}
                for key, net in (("a", 81), ("b", 82))}
    with routers(lab, [(site.client, sections)]) as (host,):
        check(not host.server.log_count("exits_not_learnt"), host.server.log())
        yield host
    equal(site.client.run("ip", "-6", "route", "show", "table", "20000"), "", "routes left")


def learnt(host):
    """[(source, destination, by)] that it has learnt."""
    rows = host.told()["learnt"]
    return [(row["source"], row["destination"], row["by"]) for row in rows]


def through(node):
    """Packets that came in by tunnels at a router, and went."""
    said = json.loads(node.run("ip", "-s", "-j", "link", "show", "culvert_tunnel"))[0]["stats64"]
    return said["rx"]["packets"], said["tx"]["packets"]


WANTED = ("fd82::2", "fd99::1", ANYCAST["b"])


def teach(host):
    """One connection from B's prefix, until the host has learnt."""
    reached(site, site.client, 6, 1)
    wait_for(lambda: learnt(host), 3, "the host has learnt")


@test("a host that is told tunnels to the right exit itself; its connections never hear of it", 30)
def _():
    with telling("fd81::/64, fd82::/64") as servers, learner() as host, nothing_dropped(site):
        all_reached(site, site.client)
        wait_for(lambda: learnt(host), 3, "the host has learnt")
        equal(learnt(host), [WANTED], "what it has learnt")
        before = [through(node) for node in site.router]
        with flow() as (sock, far):
            for _ in range(20):
                sock.send(b"?")  # no error of an earlier one
                equal(far.recv(8), b"?", "what arrives")
        equal(through(site.router[0]), before[0], "packets by RXA's tunnels")
        equal(through(site.router[1])[0], before[1][0] + 20, "packets out of tunnels at RXB")
        said = host.exits()
        check("fd99::1" in said and "forged: 0" in said, said)
        equal(told(servers[0]), 1, "times told")


@test("what was learnt expires, and the oldest goes when there are too many", 30)
def _():
    with telling("fd82::/64"), learner(discover_time="1s", discover_entries="1") as host:
        teach(host)
        wait_for(lambda: not learnt(host), 5, "it has expired")
        wait_for(lambda: "fd99::1" not in site.client.run("ip", "-6", "route", "show", "table",
                                                          "20000"), 40, "the kernel has, too")
    with telling("fd82::/64"), learner(discover_entries="1") as host:
        teach(host)
        with contextlib.closing(site.client.bound(6, 1, udp=True)) as sock:
            sock.sendto(b"?", ("fd94::2", 9))
            wait_for(lambda: learnt(host) == [("fd82::2", "fd94::2", ANYCAST["b"])], 5,
                     "the newest has the place of the oldest")


@test("when the anycast address dies what was learnt of it goes, and nothing more is learnt", 30)
def _():
    way = f"{ANYCAST['b']}/128"
    with telling("fd82::/64"), learner() as host:
        teach(host)
        site.inner.run("ip", "-6", "route", "replace", "unreachable", way, "metric", "1")
        try:
            wait_for(lambda: not learnt(host), 8, "it is forgotten")
            check(host.server.log_count("event=exit_forgotten"), "nothing is told in the log")
        finally:
            site.inner.run("ip", "-6", "route", "del", "unreachable", way, "metric", "1")
        with nothing_dropped(site):
            reached(site, site.client, 6, 1)


def forged(source, about, code=5):
    """An ICMPv6 type 1 to X, of RXA as it seems."""
    body = struct.pack("!BBHI", 1, code, 0, 0) + about
    ends = packed(source) + packed("fd82::2")
    total = checksum(ends + struct.pack("!II", len(body), socket.IPPROTO_ICMPV6) + body)
    return body[:2] + struct.pack("!H", total) + body[4:]


def quoted(port, to="fd99::1"):
    """A datagram of X from this port, as an error quotes it."""
    return (struct.pack("!IHBB", 6 << 28, 8, socket.IPPROTO_UDP, 64) + packed("fd82::2") +
            packed(to) + struct.pack("!HHHH", port, 9, 8, 0))


@contextlib.contextmanager
def forger():
    """send(packet): an ICMPv6 message to X from the router I."""
    with site.inner.entered(), contextlib.closing(
            socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)) as raw:
        yield lambda packet: raw.sendto(packet, ("fd82::2", 0))


def counted(host):
    """(errors about connections, others) that the host has been sent."""
    counts = host.told()
    return counts["told"], counts["forged"]


@test("forged errors create nothing: of no connection, or while nobody answers for the exit", 30)
def _():
    with learner() as host, forger() as send_forged:
        equal(counted(host), (0, 0), "before")
        for port in range(5):
            send_forged(forged("fd81::1", quoted(1000 + port)))
        wait_for(lambda: counted(host)[1] == 5, 3, "they are seen through")
        # Of a connection that there is: the exit is asked, and nobody answers.
        with contextlib.closing(site.client.bound(6, 1, udp=True)) as sock:
            sock.sendto(b"?", ("fd99::1", 9))
            send_forged(forged("fd81::1", quoted(sock.getsockname()[1])))
            wait_for(lambda: counted(host)[0] == 1, 3, "it is looked into")
        wait_for(lambda: host.server.log_count("event=exit_forgotten"), 8, "the exit is given up")
        equal(learnt(host), [], "what is learnt")


INSIDE = "fd82:0:0:5::1"  # of the prefix that X's exits have, behind the router I


@test("an error about a connection within the site, as anybody may forge it, does not divert it", 30)
def _():
    site.inner.run("ip", "-6", "addr", "add", f"{INSIDE}/128", "dev", "lo", "nodad")
    with telling("fd82::/64"), learner() as host, forger() as send_forged, \
         contextlib.closing(site.inner.socket(6, socket.SOCK_DGRAM)) as near, \
         contextlib.closing(site.client.bound(6, 1, udp=True)) as sock:
        near.bind((INSIDE, 9))
        near.settimeout(5)
        port = sock.getsockname()[1]
        for to in (INSIDE, "fd99::1"):
            sock.sendto(b"?", (to, 9))
            send_forged(forged("fd81::1", quoted(port, to)))
        # The one behind it was taken for true, since anybody's word is enough for that.
        wait_for(lambda: WANTED in learnt(host), 3, "the host has learnt")
        equal(learnt(host), [WANTED], "what it has learnt")
        near.recv(8)
        sock.sendto(b"!", (INSIDE, 9))
        equal(near.recv(8), b"!", "what arrives within the site")


@test("told of what it has learnt a host begins anew: the tunnel was the wrong way, or is gone", 30)
def _():
    with telling("fd82::/64"), learner() as host, forger() as send_forged, \
         contextlib.closing(site.client.bound(6, 1, udp=True)) as sock:
        sock.sendto(b"?", ("fd99::1", 9))
        error = forged("fd81::1", quoted(sock.getsockname()[1]))

        def until(wanted):
            def done():
                send_forged(error)
                return learnt(host) == wanted
            return done
        for wanted in ([WANTED], [], [WANTED]):
            wait_for(until(wanted), 5, f"it has learnt {wanted}")


@contextlib.contextmanager
def questions():
    """next(): what X asks RXB's anycast address next; nothing else answers."""
    way = ("blackhole", f"{ANYCAST['b']}/128", "metric", "1")
    site.inner.run("ip", "-6", "route", "add", *way)
    try:
        with contextlib.closing(Tap(site.inner, "lan")) as tap_lan:
            def asked():
                found = []

                def seen():
                    found.extend(packet for packet, outgoing in tap_lan.packets()
                                 if not outgoing and packet[6] == socket.IPPROTO_UDP and
                                 packet[24:40] == packed(ANYCAST["b"]))
                    return found
                wait_for(seen, 3, "the exit is asked")
                return found[0]
            yield asked
    finally:
        site.inner.run("ip", "-6", "route", "del", *way)


@test("only who has seen the question can answer it: wrong and old secrets neither make nor end", 30)
def _():
    with learner() as host, forger() as send_forged, questions() as asked, \
         contextlib.closing(site.client.bound(6, 1, udp=True)) as sock:
        sock.sendto(b"?", ("fd99::1", 9))
        send_forged(forged("fd81::1", quoted(sock.getsockname()[1])))
        first = asked()
        equal(len(first), 40 + 8 + 16, "bytes of the question")
        for code in (0, 4):
            for wrong in (first[:48] + bytes(16), first[:-1] + bytes([first[-1] ^ 1]), first[:-1],
                          first + b"?"):
                send_forged(forged("fd81::1", wrong, code))
        second = asked()
        check(second[48:] != first[48:], "the secret is the same")
        send_forged(forged("fd81::1", first, 4))
        send_forged(forged("fd81::1", first, 0))
        third = asked()
        equal((learnt(host), host.server.log_count("event=exit_forgotten")), ([], 0), "what came of it")
        # So that one could have.
        send_forged(forged("fd81::1", third, 4))
        wait_for(lambda: learnt(host) == [WANTED], 2, "the right answer is taken")


tap.main()
