#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a host without credentials can make the relay hold: memory has a cap, however many come."""

import contextlib
import os
import socket
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import mixed, stun, tap, turn  # noqa: E402
from culvertlab.data import ping  # noqa: E402
from culvertlab.lab import Lab  # noqa: E402
from culvertlab.tap import check, within  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
LIMITS = {"unauthenticated": 200, "handshakes": 50, "handshakes_per_source": 50, "reflection": 0,
          "unauthenticated_timeout": "60s", "handshake_timeout": "60s"}
# A message of 16 KiB, all but its last byte; a ClientHello that says it is as long as one can be.
HALF_MESSAGE = b"\x00\x03\x3f\xe8" + bytes.fromhex("2112a442") + bytes(12) + bytes(16000)
HALF_HELLO = b"\x16\x03\x01\x40\x00\x01\x00\x40\x00\x03\x03" + bytes(16000)
CAP_KIB = 200 * 64 + 50 * 80  # connections' buffers, handshakes
STEADY_KIB = 1024


def flood(load, count):
    """So many of each kind, which stay as long as the relay lets them."""
    for encrypted, half in ((False, HALF_MESSAGE), (True, HALF_HELLO)):
        for _ in range(count):
            sock = lab.keep(lab.topo.client.connect(load.address(encrypted)))
            with contextlib.suppress(OSError):
                sock.setblocking(False)
                sock.send(half)
    asked = stun.Message(stun.ALLOCATE, attrs=[turn.transport()]).build()
    for _ in range(count // 50):
        client = lab.keep(load.client(turn.Datagrams))
        for _ in range(50):
            with contextlib.suppress(socket.timeout, ConnectionError):
                client.sock.send(asked)
                client.sock.recv(2048)


@tap.test("TCP, TLS and UDP: twice as many who never authenticate hold no more memory", 90)
def _():
    sections, port = mixed.listeners(lab)
    server = lab.server({**sections, "limits": LIMITS}, fresh=True)
    load = mixed.Load(lab, server, port, 1)
    ping(*lab.pair()[:2])
    base = server.rss_kib()
    flood(load, 400)
    wait_for(lambda: server.counters()["rejected_limit"] > 0, 10, "the limit is met")
    full, files = server.rss_kib(), server.fds()
    within(full - base, -1 << 30, CAP_KIB, "KiB more when the limits are met")
    flood(load, 800)
    within(server.rss_kib() - full, -1 << 30, STEADY_KIB, "KiB more for twice as many")
    within(server.fds(), 0, files + 2, "descriptors")
    now = server.counters()
    within(now["unauthenticated"], 1, LIMITS["unauthenticated"], "unauthenticated")
    within(now["handshakes"], 0, LIMITS["handshakes"], "handshakes")
    check(now["allocations"] == 1, "an allocation without credentials")


tap.main()
