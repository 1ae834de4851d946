# SPDX-License-Identifier: BSD-2-Clause
"""A site with two providers, as namespaces:

                   /-- (A) --\\
    host X -- exit R          peer Y
                   \\-- (B) --/

Each provider lets out what comes from its own prefix and counts what else it has to drop. The
site has a network of each prefix, and one that no provider knows; its router's own default
route goes by A. Y is reached by both and answers each prefix by its provider.

With two routers, RXA and RXB on one network of the site, each has the link of one provider:

              /-- exit RXA --- (A) --\\
    host X --+                        peer Y
              \\-- exit RXB --- (B) --/
"""

import contextlib
import errno
import json
import os
import secrets
import select
import time

from .tap import check, equal
from .topo import NETNS_DIR, Node, collect_garbage, run
from .wait import PATIENCE

PREFIX = {"a": {4: "10.81.0.0/24", 6: "fd81::/64"}, "b": {4: "10.82.0.0/24", 6: "fd82::/64"}}
OTHER = {4: "10.85.0.0/24", 6: "fd85::/64"}  # of no provider
HOP = {"a": {4: "10.91.0.2", 6: "fd91::2"}, "b": {4: "10.92.0.2", 6: "fd92::2"}}
# Number of a network: of the site, of the router's link, of the provider's link to Y.
NETS = {"a": (81, 91, 93), "b": (82, 92, 94)}

FILTER = """
table inet ingress {
    counter dropped { }
    chain forward {
        type filter hook forward priority 0
        iifname "site" ip saddr { %s, %s } counter accept
        iifname "site" ip6 saddr { %s, %s } counter accept
        iifname "site" counter name dropped drop
    }
}
"""


class Site:
    """Takes the place of a Topology: clients at X, the relay at R, peers at Y."""

    isolated = True
    versions = (4, 6)

    def __init__(self, routers=1, parts=("lan",)):
        """`parts`: what is between the host and two routers."""
        collect_garbage()
        self._router = {"a": "ra", "b": "rb"} if routers == 2 else {"a": "ra", "b": "ra"}
        tag = f"culvert{os.getpid()}-{secrets.token_hex(3)}"
        self.tag = tag
        parts = ["x", "ra", "a", "b", "y"] + (["rb", *parts] if routers == 2 else [])
        self.names = [f"{tag}-{part}" for part in parts]
        self._name = dict(zip(parts, self.names))
        try:
            for part, name in self._name.items():
                # A host heeds redirects, a router does not. Errors are looked for more often
                # than the kernel would send them to one host, once a second, and to all.
                forward = int(part not in ("x", "y"))
                run("ip", "netns", "add", name)
                run("nsenter", f"--net={NETNS_DIR}/{name}", "--", "sysctl", "-eqw",
                    "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0",
                    "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0",
                    "net.ipv4.icmp_msgs_per_sec=1000000", "net.ipv4.icmp_msgs_burst=100000",
                    f"net.ipv4.ip_forward={forward}", f"net.ipv6.conf.all.forwarding={forward}")
            self._cables()
            self._addresses()
            self._routes()
            self.client = Node(self._name["x"], ["10.81.0.2", "10.82.0.2", "10.85.0.2"],
                               ["fd81::2", "fd82::2", "fd85::2"])
            self.router = [Node(self._name[part], [f"10.{net}.0.{host}" for net in (81, 82, 85)],
                                [f"fd{net}::{host}" for net in (81, 82, 85)])
                           for part, host in (("ra", 1), ("rb", 3))[:routers]]
            self.relay = self.router[0]
            self.peer = Node(self._name["y"], ["10.99.0.1", "10.99.0.1"], ["fd99::1", "fd99::1"])
            self.provider = {key: Node(self._name[key], [], []) for key in ("a", "b")}
            self._filters()
        except BaseException:
            self.remove()
            raise

    def _cables(self):
        ends = [(self._router["a"], "to_a", "a", "site"), (self._router["b"], "to_b", "b", "site"),
                ("a", "net", "y", "from_a"), ("b", "net", "y", "from_b")]
        for one, left, other, right in ends + self._ends():
            run("ip", "link", "add", left, "netns", self._name[one], "type", "veth",
                "peer", "name", right, "netns", self._name[other])
            for end, link in ((one, left), (other, right)):
                self._batch(end, [f"link set {link} up", "link set lo up"])
        if "lan" in self._name:
            self._batch("lan", ["link add br0 type bridge", "link set br0 up",
                                *[f"link set p{port} master br0" for port in range(3)]])

    def _ends(self):
        """Cables within the site."""
        if "lan" in self._name:
            return [("x", "site", "lan", "p0"), ("ra", "lan", "lan", "p1"),
                    ("rb", "lan", "lan", "p2")]
        return [("x", "site", "ra", "lan")]

    def _batch(self, part, lines):
        run("ip", "-n", self._name[part], "-batch", "-", input="\n".join(lines) + "\n")

    def _address(self, part, link, net, host):
        self._batch(part, [f"addr add 10.{net}.0.{host}/24 dev {link}",
                           f"addr add fd{net}::{host}/64 dev {link} nodad"])

    def _inner_addresses(self):
        # The host knows its router by its only link-local address, as router advertisements say.
        self._batch("ra", ["link set lan down", "link set lan addrgenmode none", "link set lan up",
                           "addr add fe80::1/64 dev lan nodad"])
        for net in (81, 82, 85):
            self._address("x", "site", net, 2)
            self._address("ra", "lan", net, 1)
            if "rb" in self._name:
                self._address("rb", "lan", net, 3)

    def _addresses(self):
        self._inner_addresses()
        for key, (_, link, net) in NETS.items():
            self._address(self._router[key], f"to_{key}", link, 1)
            self._address(key, "site", link, 2)
            self._address(key, "net", net, 1)
            self._address("y", f"from_{key}", net, 2)
        self._batch("y", ["addr add 10.99.0.1/32 dev lo", "addr add fd99::1/128 dev lo"])

    def _inner_routes(self):
        self._batch("x", ["route add default via 10.81.0.1", "route add ::/0 via fe80::1 dev site"])
        self._batch("ra", ["route add default via 10.91.0.2", "route add ::/0 via fd91::2"])
        if "rb" in self._name:
            self._batch("rb", ["route add default via 10.92.0.2", "route add ::/0 via fd92::2"])

    def _routes(self):
        self._inner_routes()
        for key, (site, link, net) in NETS.items():
            self._batch(key, [f"route add 10.99.0.1 via 10.{net}.0.2",
                              f"route add fd99::1 via fd{net}::2",
                              f"route add 10.{site}.0.0/24 via 10.{link}.0.1",
                              f"route add fd{site}::/64 via fd{link}::1"])
            for far in (site, link):
                self._batch("y", [f"route add 10.{far}.0.0/24 via 10.{net}.0.1",
                                  f"route add fd{far}::/64 via fd{net}::1"])

    def _filters(self):
        for key, node in self.provider.items():
            link = NETS[key][1]
            run(*node.command(["nft", "-f", "-"]),
                input=FILTER % (PREFIX[key][4], f"10.{link}.0.0/24",
                                PREFIX[key][6], f"fd{link}::/64"))

    def authorise(self, key, prefixes):
        """A provider lets these pass from now on, each a dictionary by version."""
        for prefix in prefixes:
            for version, word in ((4, "ip"), (6, "ip6")):
                self.provider[key].run("nft", "insert", "rule", "inet", "ingress", "forward",
                                       "iifname", "site", word, "saddr", prefix[version],
                                       "counter", "accept")

    def announce(self, key, prefix):
        """Y sends what is for this prefix by that provider from now on."""
        _, link, net = NETS[key]
        self._batch(key, [f"route replace {prefix[4]} via 10.{link}.0.1",
                          f"route replace {prefix[6]} via fd{link}::1"])
        self._batch("y", [f"route replace {prefix[4]} via 10.{net}.0.1",
                          f"route replace {prefix[6]} via fd{net}::1"])

    def dropped(self):
        """Packets that the providers' filters have dropped: (by A, by B)."""
        found = []
        for key in ("a", "b"):
            said = json.loads(self.provider[key].run("nft", "-j", "list", "counters"))
            found.append(sum(one["counter"]["packets"] for one in said["nftables"]
                             if "counter" in one))
        return tuple(found)

    def passed(self):
        """Packets of the site that the providers have let pass: {"a": , "b": }"""
        found = {}
        for key, node in self.provider.items():
            said = json.loads(node.run("nft", "-j", "list", "chain", "inet", "ingress", "forward"))
            found[key] = sum(part["counter"]["packets"] for one in said["nftables"]
                             for part in one.get("rule", {}).get("expr", ())
                             if isinstance(part.get("counter"), dict))
        return found

    def remove(self):
        for name in self.names:
            run("sh", "-c", f"ip netns del {name} 2>/dev/null || :")


def reached(site, node, version, index, timeout=3):
    """One connection from an address of a node to Y, a byte each way, closed by both."""
    timeout *= PATIENCE
    with contextlib.closing(site.peer.listen(version)) as listener:
        listener.settimeout(timeout)
        with contextlib.closing(node.connect(listener.getsockname()[:2], index, timeout)) as sock:
            far, _ = listener.accept()
            with contextlib.closing(far):
                far.settimeout(timeout)
                sock.sendall(b"?")
                equal(far.recv(1), b"?", "the byte that arrives")
                equal(far.getpeername()[0], node.addr(version, index), "the source at Y")
                far.sendall(b"!")
                equal(sock.recv(1), b"!", "the answer")
            # What is left to say is said now: later it would count as another's.
            equal(sock.recv(1), b"", "the end")


def all_reached(site, *nodes):
    """reached() from the address of each provider, of both families, of these nodes."""
    for node in nodes:
        for version in (4, 6):
            for index in (0, 1):
                reached(site, node, version, index)


def refused(site, node, version, index, timeout=3):
    """The errno with which a connection from there to Y fails, 0 if it does not."""
    with contextlib.closing(site.peer.listen(version)) as listener:
        try:
            node.connect(listener.getsockname()[:2], index, timeout).close()
        except TimeoutError:
            return errno.ETIMEDOUT
        except OSError as error:
            return error.errno
    return 0


@contextlib.contextmanager
def leaves_by(site, key):
    """What leaves the site inside the block leaves by this provider, and something does."""
    before = site.passed()
    yield
    for each, packets in site.passed().items():
        left = packets - before[each]
        check(left > 0 if each == key else not left, f"{left} packets left by {each}")


@contextlib.contextmanager
def nothing_dropped(site):
    """No provider's filter drops a packet inside the block."""
    before = site.dropped()
    yield
    equal(site.dropped(), before, "packets dropped by the filters of A and B")


class Stream:
    """Datagrams from addresses of X to Y, at a rate each; what is refused and what arrives counts.

    `ways`: (version, index of X's address). The sockets close with the stack.
    """

    def __init__(self, stack, site, ways, rate=1000):
        self.pairs = []
        for version, index in ways:
            far = stack.enter_context(site.peer.bound(version, udp=True))
            near = stack.enter_context(site.client.datagrams(far.getsockname()[:2], index))
            self.pairs.append((near, far))
        self.sent = self.refused = self.arrived = 0
        self._host = site.client
        self._errors = self._unreachables()
        self._period = 1 / rate
        self._begun = time.monotonic()

    def seconds(self):
        return time.monotonic() - self._begun

    def run(self, done):
        """Until that holds, which is asked after each beat; a beat that is late is made up for."""
        due = time.monotonic()
        while not done():
            for near, _ in self.pairs:
                try:
                    near.send(b"?")
                    self.sent += 1
                except OSError:
                    self.refused += 1
            due += self._period
            self._take(due)

    def _unreachables(self):
        said = self._host.run("nstat", "-asz", "IcmpInDestUnreachs", "Icmp6InDestUnreachs")
        return sum(int(line.split()[1]) for line in said.splitlines() if line[0] != "#")

    def told(self):
        """How many errors have come; a socket tells of several that came together once, and of
        some never."""
        return self._unreachables() - self._errors

    def lost(self):
        """How many have not arrived when half a second more has passed."""
        self._take(time.monotonic() + .5)
        return self.sent - self.arrived

    def _take(self, until):
        fars = [far for _, far in self.pairs]
        while True:
            ready = select.select(fars, [], [], max(0, until - time.monotonic()))[0]
            if not ready:
                return
            for far in ready:
                far.recv(16)
                self.arrived += 1
