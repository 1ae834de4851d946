#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""culvertctl exits check: what of a host keeps exits from working is found, and nothing else."""

import contextlib
import json
import os
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import tap  # noqa: E402
from culvertlab.exits import begin, linked, routers  # noqa: E402
from culvertlab.server import binary  # noqa: E402
from culvertlab.site import PREFIX, Site  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402

test = tap.test
site, lab = begin(Site)
ROUTER = site.relay
# What a command sees: no systemd-networkd of this machine's, or one that runs and is told by files.
ALONE = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
exec "$@"
"""
NETWORKD = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /etc/systemd
mkdir -p /run/systemd/netif /run/systemd/networkd.conf.d /etc/systemd/networkd.conf.d
: >/run/systemd/netif/state
while [ "$1" != -- ]; do printf "[Network]\\n$2\\n" >"/$1"; shift 2; done
shift
exec "$@"
"""
BOTH = "ManageForeignRoutes=no\\nManageForeignRoutingPolicyRules=off"
FIREWALL = """
table inet filter {
    chain forward { type filter hook forward priority 0; policy drop; ct state established accept; }
    chain input { type filter hook input priority 0; policy drop; }
    chain odd { type route hook output priority 0; policy accept; }
}
"""


def sections(**more):
    made = linked()
    for name, keys in more.items():
        made[f"exit {name}"] = keys
    return made


def config(made):
    path = os.path.join(lab.dir, f"check{lab.next_number()}.conf")
    with open(path, "w", encoding="ascii") as file:
        file.write("[realm example.org]\n")
        for name, keys in made.items():
            file.write(f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()))
    return path


def seeing(script, *args):
    return ["unshare", "-m", "sh", "-c", script, "sh", *args]


def findings(made=None, before=seeing(ALONE)):
    """What is found, once each; the exit status agrees."""
    path = config(made or sections())
    done = subprocess.run(ROUTER.command([*before, binary("culvertctl"), "exits", "check", "-j",
                                          "-c", path]), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)
    equal(done.stderr, "", "complaints")
    found = json.loads(done.stdout)["findings"]
    equal(done.returncode, int(any(one["wrong"] for one in found)), "the exit status")
    equal(len({(one["name"], one["where"], one["what"]) for one in found}), len(found), "once each")
    return found


def names(*args, **keys):
    return sorted(one["name"] for one in findings(*args, **keys))


@contextlib.contextmanager
def set_to(value, *settings):
    """Inside the block these settings have that value."""
    before = [ROUTER.run("sysctl", "-n", name).strip() for name in settings]
    try:
        for name in settings:
            ROUTER.run("sysctl", "-qw", f"{name}={value}")
        yield
    finally:
        for name, old in zip(settings, before):
            ROUTER.run("sysctl", "-qw", f"{name}={old}")


@test("a router that is in order has nothing found, with its exits at work and without")
def _():
    equal(names(), [], "before")
    said = ROUTER.run(*seeing(ALONE), binary("culvertctl"), "exits", "check", "-c",
                      config(sections()))
    equal(said, "nothing found\n", "in words")
    with routers(lab, [(ROUTER, sections())]):
        before = ROUTER.run("ip", "rule") + ROUTER.run("nft", "list", "ruleset")
        equal(names(), [], "with its own rules and chains")
        equal(ROUTER.run("ip", "rule") + ROUTER.run("nft", "list", "ruleset"), before, "afterwards")


@test("strict source validation, and a link without IPv6, with what to do about it")
def _():
    with set_to(1, "net.ipv4.conf.to_b.rp_filter"):
        found, = findings()
        equal((found["name"], found["wrong"], found["where"]),
              ("strict", True, "link to_b of exit isp-b"), "what is found")
        ROUTER.run(*found["hint"].split())
        equal(names(), [], "after what it says")
    with set_to(1, "net.ipv4.conf.all.rp_filter"), set_to(2, "net.ipv4.conf.to_a.rp_filter"):
        equal([one["where"] for one in findings()], ["link to_b of exit isp-b"], "of all")
    # As if IPv6 were off: the addresses stay for the other tests.
    made = sections()
    made["exit isp-b"]["link"] = "plain0"
    ROUTER.run("ip", "link", "add", "plain0", "type", "veth", "peer", "name", "plain1")
    try:
        equal(names(made), [], "with IPv6")
        with set_to(1, "net.ipv6.conf.plain0.disable_ipv6"):
            found, = findings(made)
            equal((found["name"], found["wrong"]), ("no_ipv6", True), "what is found")
    finally:
        ROUTER.run("ip", "link", "del", "plain0")


@test("a host that does not forward is told of; a router of a mesh that does not is wrong")
def _():
    mesh = sections()
    mesh["exit isp-b"] = {"tunnel_peer": "fd86::2", "prefix": PREFIX["b"][6]}
    with set_to(0, "net.ipv6.conf.all.forwarding"):
        equal([(one["name"], one["wrong"], one["where"]) for one in findings()],
              [("no_forwarding", False, "this host, IPv6")], "of IPv6")
        equal([(one["name"], one["wrong"]) for one in findings(mesh)], [("no_forwarding", True)],
              "of a router")
    with set_to(0, "net.ipv4.ip_forward"):
        equal([one["where"] for one in findings()], ["this host, IPv4"], "of IPv4")
    equal(names(mesh), [], "of a router that does")


@test("systemd-networkd that would take rules or routes away, by all the files that it reads")
def _():
    def told(*files):
        return sorted(one["what"].split()[3] for one in findings(
            before=seeing(NETWORKD, *files, "--")) if one["name"] == "networkd")
    if not os.path.isdir("/etc/systemd"):
        tap.skip("there is no /etc/systemd here")
    equal(told(), ["routes", "rules"], "told nothing")
    equal(told("etc/systemd/networkd.conf", BOTH), [], "told by its file")
    equal(told("etc/systemd/networkd.conf", " ManageForeignRoutes = no # as ever"),
          ["routes", "rules"], "there are no comments behind a value")
    equal(told("run/systemd/networkd.conf.d/10.conf", BOTH,
               "etc/systemd/networkd.conf.d/20.conf", "ManageForeignRoutes=yes"), ["routes"],
          "the last one counts")
    equal(told("run/systemd/networkd.conf.d/10.conf", BOTH,
               "etc/systemd/networkd.conf.d/10.conf", ""), ["routes", "rules"],
          "one hides the other")
    equal(told("etc/systemd/networkd.conf", "#ManageForeignRoutes=no\\n[Other]\\n" + BOTH),
          ["routes", "rules"], "comments and other sections")


@test("rules of others ahead of ours, and a firewall that drops what is forwarded")
def _():
    for number in ("100", "20160"):
        ROUTER.run("ip", "-6", "rule", "add", "pref", number, "from", "fd99::/64", "lookup", "99")
    try:
        found, = findings()
        equal((found["name"], found["wrong"], found["where"]),
              ("rule_ahead", False, "routing rules of IPv6, preference 100"), "what is found")
    finally:
        for number in ("100", "20160"):
            ROUTER.run("ip", "-6", "rule", "del", "pref", number)
    path = os.path.join(lab.dir, "firewall")
    with open(path, "w", encoding="ascii") as file:
        file.write(FIREWALL)
    ROUTER.run("nft", "-f", path)
    try:
        found, = findings()
        equal((found["name"], found["wrong"], found["where"]),
              ("firewall", False, "chain forward of table filter of nftables"), "what is found")
        with set_to(0, "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            equal(names(), ["no_forwarding"] * 2, "where nothing is forwarded")
    finally:
        ROUTER.run("nft", "delete", "table", "inet", "filter")


@test("a kernel that lacks what the configuration wants says so, and which option it is")
def _():
    made = sections()
    made["exit isp-b"] = {"tunnel_peer": "fd86::2", "prefix": PREFIX["b"][6], "tunnel": "ip6tnl"}
    try:
        lab.topo.client.run("ip", "link", "add", "try0", "type", "ip6tnl", "external")
    except RuntimeError:
        found, = findings(made)
        equal((found["name"], found["wrong"]), ("kernel", True), "what is found")
        check("CONFIG_IPV6_TUNNEL" in found["hint"], found)
    else:
        lab.topo.client.run("ip", "link", "del", "try0")
        equal(names(made), [], "of a kernel that has it")


tap.main()
