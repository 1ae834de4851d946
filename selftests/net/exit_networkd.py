#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Exits beside systemd-networkd, the real one, which has the links and addresses of the router.

It takes routes and rules that it does not know for leftovers, unless it is told to leave them
(ManageForeignRoutes, ManageForeignRoutingPolicyRules). It runs in the router's network namespace
and in a mount namespace of its own, where udev seems to have seen all links.
"""

import contextlib
import os
import re
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import tap  # noqa: E402
from culvertlab.exits import begin, linked, routers  # noqa: E402
from culvertlab.site import HOP, NETS, Site, nothing_dropped, reached  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

test = tap.test
NETWORKD = "/lib/systemd/systemd-networkd"
if not os.access(NETWORKD, os.X_OK):
    tap.skip_all("systemd-networkd is not installed (package systemd)")
site, lab = begin(Site)
ROUTER = site.relay
for link in ("to_a", "to_b"):  # it does not take over what somebody else has configured
    ROUTER.run("ip", "addr", "flush", "dev", link, "scope", "global")
START = f"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t sysfs sysfs /sys
mkdir -p /run/udev/data
for file in /sys/class/net/*/ifindex; do echo I:1 >/run/udev/data/n$(cat $file); done
mkdir -p /run/systemd/network /run/systemd/netif /run/systemd/networkd.conf.d
cp "$1"/*.network /run/systemd/network
cp "$1"/*.conf /run/systemd/networkd.conf.d
chown -R systemd-network /run/systemd/netif
exec {NETWORKD}
"""
LEAVE = "ManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n"


def write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


@contextlib.contextmanager
def networkd(settings):
    """It has configured the links; ends with the block."""
    folder = os.path.join(lab.dir, f"networkd{lab.next_number()}")
    os.mkdir(folder)
    write(f"{folder}/test.conf", f"[Network]\n{settings}")
    for key, (_, net, _) in NETS.items():
        write(f"{folder}/{key}.network",
              f"[Match]\nName=to_{key}\n[Network]\nAddress=10.{net}.0.1/24\nAddress=fd{net}::1/64\n"
              "LinkLocalAddressing=ipv6\nIPv6AcceptRA=no\nIPv6DuplicateAddressDetection=0\n" +
              (f"[Route]\nGateway={HOP[key][4]}\n[Route]\nGateway={HOP[key][6]}\n"
               if key == "a" else ""))
    process = lab.spawn(ROUTER, ["env", "SYSTEMD_LOG_LEVEL=debug", "SYSTEMD_LOG_TARGET=console",
                                 "unshare", "-m", "sh", "-c", START, "sh", folder], "networkd")
    try:
        for key in NETS:
            wait_for(lambda key=key: f"to_{key}: State changed: configuring -> configured"
                     in process.err(), 10, f"systemd-networkd has configured to_{key}")
        yield process
    finally:
        process.stop()


def each_reached():
    with nothing_dropped(site):
        for version in (4, 6):
            for index in (0, 1):
                reached(site, site.client, version, index)


def taken(process):
    """How much of ours systemd-networkd takes away, by its own words."""
    return len(re.findall("Removing foreign (?:route .* proto: 200,|routing policy rule)",
                          process.err()))


def settled(router):
    wait_for(lambda: "nothing" in router.exits("plan"), 5, "nothing would be changed")


@test("systemd-networkd that is told so leaves rules and routes alone, started again, too", 60)
def _():
    with networkd(LEAVE):
        pass
    with routers(lab, [(ROUTER, linked())]) as (router,):
        settled(router)
        for _ in range(2):
            with networkd(LEAVE) as process:
                each_reached()
                equal(taken(process), 0, "rules and routes that are taken away")
            settled(router)
            each_reached()


@test("what systemd-networkd takes away when it is not told is put back", 60)
def _():
    with networkd(""):
        pass
    with routers(lab, [(ROUTER, linked())]) as (router,):
        settled(router)
        with networkd("") as process:
            check(taken(process) > 8, f"it takes away {taken(process)}")
            settled(router)
            each_reached()
        settled(router)
        each_reached()


tap.main()
