# SPDX-License-Identifier: BSD-2-Clause
"""A site whose two exit routers are no neighbours, as namespaces:

                     /-- exit RXA --- (A) --\\
    host X -- router I                     peer Y
                     \\-- exit RXB --- (B) --/

The router I sends everything that leaves the site to RXA, whatever the source, and knows which of
them has the anycast address of each prefix. The exit routers know each other's by I.
"""

import os

from .site import HOP, NETS, PREFIX, Site
from .topo import Node

# Behind the /48 of the site, no subnet of it.
SUFFIX = "ffff:ffff:ffff:ffff:ffff"
ANYCAST = {"a": f"fd81::{SUFFIX}", "b": f"fd82::{SUFFIX}"}
# Of the links between I and each exit router; I is .1, the router .2.
INNER = {"a": 86, "b": 87}
ROUTER = {"a": "fd86::2", "b": "fd87::2"}
# What packets are tunnelled in; not every kernel has ip6tnl.
TUNNEL = os.environ.get("TUNNEL", "vxlan-gpe")
OWN = {"a": 11, "b": 13}  # the router's own hosts in each prefix of the site


def mesh_sections(own):
    """[exit] sections of the router that has this provider's link."""
    made = {}
    for key, site48 in (("a", "fd81::/48"), ("b", "fd82::/48")):
        made[f"exit isp-{key}"] = {"prefix": f"{PREFIX[key][4]}, {site48}",
                                   "tunnel_peer": ROUTER[key], "tunnel": TUNNEL}
    made[f"exit isp-{own}"] |= {"link": f"to_{own}", "next_hop": ", ".join(HOP[own].values())}
    return made


def interior_sections():
    """[exit] sections of the router I, when it knows where each source has to go."""
    return {f"exit isp-{key}": {"next_hop": f"10.{net}.0.2, fd{net}::2",
                                "prefix": ", ".join(PREFIX[key].values())}
            for key, net in INNER.items()}


class Mesh(Site):
    """router: RXA and RXB; inner: I."""

    def __init__(self):
        super().__init__(routers=2, parts=["i"])
        self.inner = Node(self._name["i"], ["10.81.0.1"], ["fd81::1"])
        self.router = [Node(self._name[f"r{key}"],
                            [f"10.{net}.0.{OWN[key]}" for net in (81, 82, 85)],
                            [f"fd{net}::{OWN[key]}" for net in (81, 82, 85)])
                       for key in ("a", "b")]
        self.relay = self.router[0]

    def _ends(self):
        return [("x", "site", "i", "lan"), ("i", "to_ra", "ra", "lan"), ("i", "to_rb", "rb", "lan")]

    def _inner_addresses(self):
        self._batch("i", ["link set lan down", "link set lan addrgenmode none", "link set lan up",
                          "addr add fe80::1/64 dev lan nodad"])
        for net in (81, 82, 85):
            self._address("x", "site", net, 2)
            self._address("i", "lan", net, 1)
        for key, net in INNER.items():
            self._address("i", f"to_r{key}", net, 1)
            self._address(f"r{key}", "lan", net, 2)
            self._batch(f"r{key}", [line for own in (81, 82, 85) for line in (
                f"addr add 10.{own}.0.{OWN[key]}/32 dev lo",
                f"addr add fd{own}::{OWN[key]}/128 dev lo")])

    def _inner_routes(self):
        for key, net in INNER.items():
            other = "b" if key == "a" else "a"
            self._batch("i", [f"route add {ANYCAST[key]} via fd{net}::2",
                              *[line for own in (81, 82, 85) for line in (
                                  f"route add 10.{own}.0.{OWN[key]} via 10.{net}.0.2",
                                  f"route add fd{own}::{OWN[key]} via fd{net}::2")]])
            self._batch(f"r{key}", [f"route add {to} via fd{net}::1" for to in (
                "fd81::/64", "fd82::/64", "fd85::/64", f"fd{INNER[other]}::/64", ANYCAST[other])])
            self._batch(f"r{key}", [f"route add 10.{own}.0.0/24 via 10.{net}.0.1" for own in (
                81, 82, 85, INNER[other])])
            _, link, net = NETS[key]
            self._batch(key, [f"route add {ANYCAST[key]} via fd{link}::1"])
            self._batch("y", [f"route add {ANYCAST[key]} via fd{net}::1"])
            self._batch(f"r{key}", [f"route add default via 10.{link}.0.2",
                                    f"route add ::/0 via fd{link}::2"])
        self._batch("x", ["route add default via 10.81.0.1", "route add ::/0 via fe80::1 dev site"])
        self._batch("i", ["route add default via 10.86.0.2", "route add ::/0 via fd86::2"])
