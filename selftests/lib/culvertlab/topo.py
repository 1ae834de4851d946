# SPDX-License-Identifier: BSD-2-Clause
"""Where the tests run: client - relay - peer as network namespaces joined by veth pairs.

Three Nodes, each with IPv4 and IPv6 addresses.  A test script stays one process: a thread enters
a namespace only while it makes a socket, which then stays there.  Names carry our pid and a
random part; they are removed at exit and on signals, and what a killed run left behind is
collected by the next one.

Without root the script starts itself again in a user namespace where it may build the same
topology; where that is forbidden everything runs on the loopback addresses of this machine and
tests that need more skip.
"""

import contextlib
import ctypes
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys

CLONE_NEWNET = 0x40000000
NETNS_DIR = "/run/netns"
INSIDE = "CULVERTLAB_USERNS"
LOOPBACK = "CULVERTLAB_LOOPBACK"  # set it to try what is left without any privilege
_libc = ctypes.CDLL(None, use_errno=True)


def run(*argv, **more):
    """Run a command to its end; its error text goes into the exception."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **more)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


class Node:
    """A place to run things: a namespace, or this one when `name` is None."""

    def __init__(self, name, addr4, addr6):
        self.name = name
        self.addrs = {4: addr4, 6: addr6}
        self.path = f"{NETNS_DIR}/{name}" if name else None
        self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC) if name else -1

    def addr(self, version=4, index=0):
        """One of this node's addresses; its first faces the neighbour named in Topology."""
        return self.addrs[version][index]

    @contextlib.contextmanager
    def entered(self):
        """The calling thread is in this namespace inside the block."""
        if not self.path:
            yield
            return
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self._fd)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)

    def command(self, argv):
        """argv, changed to run here."""
        return [*(["nsenter", f"--net={self.path}", "--"] if self.path else []), *argv]

    def run(self, *argv):
        return run(*self.command(argv))

    def socket(self, version=4, kind=socket.SOCK_STREAM, protocol=0):
        with self.entered():
            return socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, kind, protocol)

    def bound(self, version=4, index=0, port=0, udp=False):
        """A TCP, or UDP, socket bound to one of our addresses."""
        sock = self.socket(version, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        if not udp:  # UDP sockets would share their port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self.addr(version, index), port))
        sock.settimeout(10)
        return sock

    def listen(self, version=4, index=0, port=0, backlog=512):
        sock = self.bound(version, index, port)
        sock.listen(backlog)
        return sock

    def connect(self, address, index=0, timeout=10, rcvbuf=0):
        """Connect from one of our addresses; `rcvbuf` shrinks the receive window."""
        version = 6 if ":" in address[0] else 4
        sock = self.bound(version, index)
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.settimeout(timeout)
        sock.connect(address)
        return sock

    def datagrams(self, address, index=0):
        """A UDP socket that talks to this address alone."""
        sock = self.bound(6 if ":" in address[0] else 4, index, udp=True)
        sock.connect(address)
        return sock

    def free_port(self):
        with contextlib.closing(self.bound()) as sock:
            return sock.getsockname()[1]


def _setns(fd):
    if _libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Loopback:
    """Everything on the loopback interface of the machine: what is possible without privilege."""

    isolated = False

    def __init__(self):
        v6 = _has_ipv6()
        self.versions = (4, 6) if v6 else (4,)
        self.client = Node(None, ["127.0.0.2"], ["::1"])
        self.relay = Node(None, ["127.0.0.1", "127.0.0.1"], ["::1", "::1"])
        self.peer = Node(None, ["127.0.0.3", "127.0.0.4"], ["::1", "::1"])

    def remove(self):
        """Nothing was made."""


def _has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        return True
    return False


class Topology:
    """client 10.77.1.2 - relay 10.77.1.1, 10.77.2.1 - peer 10.77.2.2, 10.77.2.3; fd77:x:: alike.

    10.77.9.0/24 and fd77:9::/64 lie behind the peer and swallow every packet.  Boxed, each leg
    leads through one more namespace, `boxes` = (near the client, near the peer), whose interfaces
    "left" and "right" an impairment box has to join before anything passes.
    """

    isolated = True
    versions = (4, 6)

    def __init__(self, boxed=False):
        self.tag = f"culvert{os.getpid()}-{secrets.token_hex(3)}"
        parts = ["client", "relay", "peer"] + (["near", "far"] if boxed else [])
        self.names = [f"{self.tag}-{part}" for part in parts]
        try:
            for name in self.names:
                run("ip", "netns", "add", name)
                run("nsenter", f"--net={NETNS_DIR}/{name}", "--", "sysctl", "-qw",
                    "net.ipv6.conf.default.accept_dad=0")
            self._wire()
        except BaseException:
            self.remove()
            raise
        client, relay, peer, *boxes = self.names
        self.boxes = [Node(name, [], []) for name in boxes]
        self.client = Node(client, ["10.77.1.2"], ["fd77:1::2"])
        self.relay = Node(relay, ["10.77.1.1", "10.77.2.1"], ["fd77:1::1", "fd77:2::1"])
        self.peer = Node(peer, ["10.77.2.2", "10.77.2.3"], ["fd77:2::2", "fd77:2::3"])
        self.legs = ((self.client, "uplink"), (self.relay, "toclient"),
                     (self.relay, "topeer"), (self.peer, "uplink"))
        if not boxed:
            self.greet()

    def greet(self):
        """Neighbours learn of each other, so that no test waits for that."""
        for near, far in ((self.client, self.relay), (self.relay, self.peer)):
            for address in (far.addrs[4] + far.addrs[6])[::2]:
                with contextlib.suppress(ConnectionRefusedError):
                    near.connect((address, 9), 1 if near is self.relay else 0).close()

    def _wire(self):
        client, relay, peer, *boxes = self.names
        cables = [(client, relay, "uplink", "toclient"), (relay, peer, "topeer", "uplink")]
        if boxes:
            cables = [half for cable, box in zip(cables, boxes) for half in _split(*cable, box)]
        for a, b, left, right in cables:
            run("ip", "link", "add", left, "netns", a, "type", "veth",
                "peer", "name", right, "netns", b)
        for box in boxes:
            self._box_up(box)
        self._batch(client, ["link set lo up", "link set uplink up",
                             "addr add 10.77.1.2/24 dev uplink",
                             "addr add fd77:1::2/64 dev uplink nodad",
                             "route add default via 10.77.1.1",
                             "route add ::/0 via fd77:1::1"])
        self._batch(relay, ["link set lo up", "link set toclient up", "link set topeer up",
                            "addr add 10.77.1.1/24 dev toclient",
                            "addr add 10.77.2.1/24 dev topeer",
                            "addr add fd77:1::1/64 dev toclient nodad",
                            "addr add fd77:2::1/64 dev topeer nodad",
                            "route add 10.77.9.0/24 via 10.77.2.2",
                            "route add fd77:9::/64 via fd77:2::2"])
        self._batch(peer, ["link set lo up", "link set uplink up",
                           "addr add 10.77.2.2/24 dev uplink",
                           "addr add 10.77.2.3/24 dev uplink",
                           "addr add fd77:2::2/64 dev uplink nodad",
                           "addr add fd77:2::3/64 dev uplink nodad",
                           "route add blackhole 10.77.9.0/24",
                           "route add default via 10.77.2.1",
                           "route add ::/0 via fd77:2::1"])

    def _box_up(self, box):
        """Interfaces without a word of their own, and room for long packets."""
        run("nsenter", f"--net={NETNS_DIR}/{box}", "--", "sysctl", "-qw",
            "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
        self._batch(box, [f"link set {name} mtu 9500 up" for name in ("left", "right")])

    @staticmethod
    def _batch(name, lines):
        run("ip", "-n", name, "-batch", "-", input="\n".join(lines) + "\n")

    def remove(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _split(a, b, left, right, box):
    """A cable cut in two, with a box between the halves."""
    return (a, box, left, "left"), (box, b, "right", right)


def collect_garbage():
    """Remove namespaces whose maker is gone."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(NETNS_DIR):
            made = re.fullmatch(r"culvert(\d+)-[0-9a-f]{6}-\w+", name)
            if made and not os.path.exists(f"/proc/{made[1]}"):
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _start_in_user_namespace():
    """Become root of an own user namespace, if the kernel lets us; returns only when not."""
    if os.environ.get(INSIDE) or not shutil.which("unshare"):
        return
    enter = ["unshare", "--user", "--map-root-user", "--mount", "--net"]
    script = 'mount -t tmpfs none /run && exec "$@"'
    if subprocess.run([*enter, "sh", "-c", script, "sh", "ip", "netns", "add", "probe"],
                      capture_output=True, check=False).returncode:
        return
    os.environ[INSIDE] = "1"
    os.execvp(enter[0], [*enter, "sh", "-c", script, "sh", sys.executable, *sys.argv])


def in_user_namespace():
    return bool(os.environ.get(INSIDE))


def as_ordinary_user():
    """Command prefix: root of our user namespace is no root that could become another user."""
    if not in_user_namespace():
        return []
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]


def build(boxed=False):
    """The best topology this user may have."""
    if os.environ.get(LOOPBACK):
        return Loopback()
    if os.geteuid():
        _start_in_user_namespace()
        return Loopback()
    collect_garbage()
    try:
        return Topology(boxed)
    except RuntimeError as error:
        print(f"# no namespaces, running on loopback: {error}", flush=True)
        return Loopback()
