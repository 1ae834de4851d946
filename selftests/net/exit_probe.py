#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Exit routers that ask each other whether they are alive (health = probe).

The site is that of exit_mesh.py, with static routes alone: RXA tunnels to RXB what B lets out. A
router that has stopped hears and says nothing; its links stay up, and so do the routes to it.
"""

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import tap  # noqa: E402
from culvertlab.exits import UNREACHABLE, begin, routers  # noqa: E402
from culvertlab.mesh import ANYCAST, ROUTER, Mesh, mesh_sections  # noqa: E402
from culvertlab.site import nothing_dropped, reached, refused  # noqa: E402
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.topo import run  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

test = tap.test
site, lab = begin(Mesh)
RXA, RXB = site.router
FREEBIND = 78  # IPV6_FREEBIND
DEVICE = "culvert_tunnel"
ECHO_REQUEST, ECHO_REPLY = 128, 129
STOPPED = """
table netdev stopped {
    chain in { type filter hook ingress device "lan" priority 0; drop; }
    chain out { type filter hook egress device "lan" priority 0; drop; }
}
"""


def sections(own, **keys):
    """Those of exit_mesh.py, with probes, the fastest by default."""
    made = mesh_sections(own)
    for one in made.values():
        one.update({"health": "probe", "probe_interval": "100ms", **keys})
    return made


def both(**keys):
    return routers(lab, [(RXA, sections("a", **keys)), (RXB, sections("b", **keys))])


def state(router, name="isp-b"):
    return router.rows()[name]["state"]


@contextlib.contextmanager
def stopped(node):
    """Inside the block the router hears and says nothing within the site."""
    run(*node.command(["nft", "-f", "-"]), input=STOPPED)
    try:
        yield
    finally:
        node.run("nft", "delete", "table", "netdev", "stopped")


def asked(node):
    """A socket that hears of the requests that pass I."""
    with node.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD))
    sock.bind(("to_ra", 0x86DD))
    return sock


def request(sock):
    """(identifier, number, secret) of the next request to B's anycast address."""
    to = socket.inet_pton(socket.AF_INET6, ANYCAST["b"])
    until = time.monotonic() + 3
    while time.monotonic() < until:
        if select.select([sock], [], [], .1)[0]:
            packet = sock.recv(2048)
            if packet[6] == socket.IPPROTO_ICMPV6 and packet[24:40] == to and \
                    packet[40] == ECHO_REQUEST:
                return (*struct.unpack("!HH", packet[44:48]), packet[48:])
    raise AssertionError("nobody is asked")


def asks(node):
    """Does anybody ask, within some intervals?"""
    with contextlib.closing(asked(node)) as sock:
        try:
            request(sock)
        except AssertionError:
            return False
    return True


def answer(identifier, number, secret, source=ANYCAST["b"]):
    """Sends RXA this answer from I, whosever address it is from."""
    with site.inner.entered(), contextlib.closing(socket.socket(
            socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, FREEBIND, 1)
        raw.bind((source, 0))
        raw.sendto(struct.pack("!BBHHH", ECHO_REPLY, 0, 0, identifier, number) + secret,
                   (ROUTER["a"], 0))


@test("an exit router that stops is noticed, its sources are refused, and it comes back", 40)
def _():
    with both() as (first, _), nothing_dropped(site):
        for version in (4, 6):
            reached(site, site.client, version, 1)
        with stopped(RXB):
            begun = time.monotonic()
            wait_for(lambda: state(first) == "silent", 3, "the exit is silent")
            tap.note(f"refused after {time.monotonic() - begun:.2f} s")
            for version in (4, 6):
                begun = time.monotonic()
                check(refused(site, site.client, version, 1) in UNREACHABLE, "no error")
                # An error that comes while connect() has the socket counts with the next SYN.
                within(time.monotonic() - begun, 0, 1.9, "seconds until the error")
                reached(site, site.client, version, 0)
            equal(first.exits("plan").strip(), "nothing to be changed", "the plan")
            said = first.exits("trace", "fd82::2", "fd99::1")
            check("isp-b is dead for it now: silent" in said and "unreachable" in said, said)
        wait_for(lambda: state(first) == "up", 5, "it is back")
        for version in (4, 6):
            reached(site, site.client, version, 1)
        equal(state(first, "isp-a"), "up", "the other exit")


@test("a device of tunnels that is made anew does not bring a silent exit back", 40)
def _():
    def device():
        """Its index, or nothing."""
        return [link["ifindex"] for link in json.loads(RXA.run("ip", "-j", "link"))
                if link["ifname"] == DEVICE]

    with both() as (first, _), nothing_dropped(site), stopped(RXB):
        wait_for(lambda: state(first) == "silent", 3, "the exit is silent")
        old = device()
        RXA.run("ip", "link", "del", DEVICE)
        wait_for(lambda: device() not in ([], old), 5, "the device is there again")
        wait_for(lambda: "nothing" in first.exits("plan"), 5, "it is all there")
        check(refused(site, site.client, 6, 1) in UNREACHABLE, "no error")
        equal(first.server.log_count("event=exit_changed exit=isp-b was=silent"), 0, "returns")
        equal(state(first), "silent", "the state of B's exit")


@test("an answer without the secret, or from elsewhere, is none", 40)
def _():
    with both() as (first, _), contextlib.closing(asked(site.inner)) as sock, stopped(RXB):
        wait_for(lambda: first.server.log_count("event=exit_silent"), 3, "it is silent")
        while select.select([sock], [], [], 0)[0]:
            sock.recv(2048)
        identifier, number, secret = request(sock)
        equal(len(secret), 16, "bytes of the secret")
        for wrong in ((identifier, number, bytes(16)), (identifier ^ 1, number, secret),
                      (identifier, number + 1, secret), (identifier, 65535, secret),
                      (identifier, number, secret[:15]), (identifier, number, secret + b"?"),
                      (identifier, number, secret, "fd86::1")):
            answer(*wrong)
        # So that one could have been taken: the right one is, behind them.
        equal(first.server.log_count("event=exit_answers"), 0, "answers that are taken")
        answer(identifier, number, secret)
        wait_for(lambda: first.server.log_count("event=exit_answers"), 3, "the right one is")
        # It is good once.
        wait_for(lambda: first.server.log_count("event=exit_silent") == 2, 3, "silent again")
        answer(identifier, number, secret)
        equal(request(sock)[1], number, "the number of the next request")
        equal(first.server.log_count("event=exit_answers"), 1, "answers that are taken")


@test("nobody is asked with health = link, nor while there is no way to the other router", 40)
def _():
    with both(health="link") as (first, _), stopped(RXB):
        check(not asks(site.inner), "RXA asks")
        equal(state(first), "up", "the state of B's exit")
    way = (f"{ANYCAST['b']}/128", "via", "fd86::1")
    with both() as (first, _):
        RXA.run("ip", "-6", "route", "del", *way)
        try:
            wait_for(lambda: state(first) == "lost", 5, "the exit is lost")
            check(not asks(site.inner), "RXA asks")
            with nothing_dropped(site):
                check(refused(site, site.client, 6, 1) in UNREACHABLE, "no error")
        finally:
            RXA.run("ip", "-6", "route", "replace", *way)
        wait_for(lambda: state(first) == "up" and asks(site.inner), 5, "it is asked again")
        changes = first.rows()["isp-b"]["changes"]
        check(changes >= 2, "the changes")
        # By a new helper, which the supervisor has started without privilege of its own.
        equal(first.server.reload(), "reloaded", "the reload")
        wait_for(lambda: first.server.log_count("event=exits_ready") == 2, 5, "another helper")
        check(asks(site.inner), "it asks nobody")
        equal(state(first), "up", "the state of B's exit")
        equal(first.rows()["isp-b"]["changes"], changes, "changes that the new helper knows of")
        with stopped(RXB):
            wait_for(lambda: state(first) == "silent", 3, "the exit is silent")
            equal(first.server.reload(), "reloaded", "the reload")
            wait_for(lambda: first.server.log_count("event=exits_ready") == 3, 5, "another helper")
            equal(state(first), "silent", "after a reload")
            check(refused(site, site.client, 6, 1) in UNREACHABLE, "no error")
            equal(first.rows()["isp-b"]["changes"], changes + 1, "changes of the exit")
        wait_for(lambda: state(first) == "up", 5, "it is back")


tap.main()
