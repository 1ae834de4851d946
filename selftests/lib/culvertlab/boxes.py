# SPDX-License-Identifier: BSD-2-Clause
"""Faults between the nodes: the impairment box, offloads, and sockets with chosen numbers.

    Box        a cable with faults (selftests/net/impair.c): loss, duplicates, order, delay, rate
    offloads   segmentation and checksums by the "hardware" of a veth, on or off
    numbers    a TCP connection whose sequence numbers start where a test wants them
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import socket
import struct
import subprocess

from .server import BUILD
from .tap import Fail, Skip

SIOCETHTOOL = 0x8946
# linux/ethtool.h; the kernel turns off what depends on a feature that goes.
SET = {"rx": 0x15, "tx": 0x17, "sg": 0x19, "tso": 0x1F, "gso": 0x24, "gro": 0x2C}
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
TCP_RECV_QUEUE, TCP_SEND_QUEUE = 1, 2


def tool(name, kind="net-tools"):
    """A C program of the network tests, or of bench-tools; sanitizer builds use the plain one's."""
    for base in (BUILD, os.path.dirname(BUILD)):
        path = os.path.join(base, kind, name)
        if os.path.exists(path):
            return path
    raise Skip(f"{name} is not built (make {kind})")


class Box:
    """The box between two nodes: "up" leads away from the client, "down" towards it."""

    def __init__(self, lab, node, near, far, seed=1):
        self.label = f"impair{lab.next_number()}"
        self._err = os.path.join(lab.dir, f"{self.label}.err")
        argv = node.command([tool("impair"), near, far, str(seed)])
        with open(self._err, "wb") as err:
            self._child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                           stderr=err, text=True, bufsize=1)
        lab.processes.append(self)
        answer = self._answer()
        if answer != "ready":
            raise RuntimeError(f"{self.label}: {answer!r} {self.tail()}")

    @property
    def status(self):
        return self._child.poll()

    def kill(self):
        """It ends by itself with its standard input; its namespace goes after it."""
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()

    def tail(self):
        with open(self._err, encoding="utf-8") as err:
            return err.read().splitlines()[-10:]

    def _answer(self):
        if not select.select([self._child.stdout], [], [], 10)[0]:
            raise Fail(f"{self.label} does not answer")
        return self._child.stdout.readline().strip()

    def _say(self, line):
        self._child.stdin.write(line + "\n")
        return self._answer()

    def tell(self, line):
        """A command that has to be understood."""
        answer = self._say(line)
        if answer != "ok":
            raise Fail(f"{self.label}: {line!r}: {answer}")

    def set(self, way="both", **keys):
        """loss=1 (per cent), delay=20 (ms), rate=100 (Mbit/s), ...: see impair.c."""
        self.tell(way + "".join(f" {key} {value}" for key, value in keys.items()))

    def rule(self, way, action, match, first=1, count=1, port=0, ms=0):
        """From the `first` such frame after now on, `count` of them."""
        self.tell(f"{way} rule {action} {match} {first} {count} {port} {ms}")

    def clear(self):
        self.tell("both clear")

    def stats(self):
        return json.loads(self._say("stats"))


def offload_set(node, interface, **features):
    """offload_set(node, "uplink", tso=False, tx=False): what `ethtool -K` does."""
    with contextlib.closing(node.socket(4, socket.SOCK_DGRAM)) as sock:
        for name, on in features.items():
            value = ctypes.create_string_buffer(struct.pack("II", SET[name], bool(on)))
            request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(value))
            fcntl.ioctl(sock, SIOCETHTOOL, request)


def offloads(topo, **features):
    """The same on every interface of client, relay and peer."""
    for node, interface in topo.legs:
        offload_set(node, interface, **features)


def sysctl(node, **values):
    """Set net.ipv4 values in a node's namespace; a context that puts them back."""
    return _Sysctl(node, values)


class _Sysctl:
    def __init__(self, node, values):
        self.node, self.values, self.before = node, values, {}

    def _set(self, name, value):
        self.node.run("sysctl", "-qw", f"net.ipv4.{name}={value}")

    def __enter__(self):
        for name, value in self.values.items():
            self.before[name] = self.node.run("sysctl", "-n", f"net.ipv4.{name}").strip()
            self._set(name, value)

    def __exit__(self, *_exc):
        for name, value in self.before.items():
            self._set(name, value)


def connect_numbered(node, address, first, index=0, timeout=10):
    """Connect with our sequence numbers starting at `first`; needs CAP_NET_ADMIN.

    TCP_REPAIR on a fresh socket sets the number its SYN will carry.
    """
    version = 6 if ":" in address[0] else 4
    sock = node.bound(version, index)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, struct.pack("I", first & 0xFFFFFFFF))
        # Leaving repair mode keeps the number: connect() then sends a real SYN.
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
    except OSError as error:
        sock.close()
        raise Skip(f"sequence numbers cannot be chosen here: {error}") from error
    sock.settimeout(timeout)
    sock.connect(address)
    return sock
