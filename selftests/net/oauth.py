#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Access tokens (RFC 7635), made by coturn's turnutils_oauth and by its client."""

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import stun, tap  # noqa: E402
from culvertlab.data import receive_to_end  # noqa: E402
from culvertlab.lab import Lab, need  # noqa: E402
from culvertlab.stun import (  # noqa: E402
    ALLOCATE, CONNECT, CONNECTION_BIND, CREATE_PERMISSION, REFRESH)
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.turn import transport  # noqa: E402

lab = Lab()
ACCESS_TOKEN = 0x001B
THIRD_PARTY_AUTHORIZATION = 0x802E
SERVER = "turn.example.org"
KEY = b"12345678901234567890123456789012"
MAC = b"a key of 32 bytes for the client"
NEXT_MAC = b"and another key of 32 bytes, too"
# What turnutils_uclient -J seals with.
KEYS = {"north": b"01234567890123456789012345678901", "union": b"1234567890123456",
        "oldempire": KEY}
WITH_TOKENS = {"realm example.org": {"oauth": SERVER,
                                     "oauth_key": [f"{name}:{key.hex()}"
                                                   for name, key in KEYS.items()]},
               "listener udp": {"transport": "udp", "address": f"0.0.0.0:{lab.port}"}}


def token(seconds, server=SERVER, key=KEY, mac=MAC):
    """As an authorization server makes it."""
    need("turnutils_oauth", "coturn")
    text = [base64.b64encode(value).decode() for value in (key, b"unique nonce", mac)]
    argv = ["turnutils_oauth", "-v", "-e", "--server-name", server, "--auth-key-id", "oldempire",
            "--auth-key", text[0], "--auth-key-timestamp", str(int(time.time())),
            "--auth-key-lifetime", "86400", "--auth-key-as-rs-alg", "A256GCM", "--token-nonce",
            text[1], "--token-mac-key", text[2], "--token-lifetime", str(seconds)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    equal(done.returncode, 0, f"turnutils_oauth, said {done.stdout} {done.stderr}")
    return base64.b64decode(json.loads(done.stdout)["access_token"])


class Bearer:
    """A client whose requests are signed with the key of a token."""

    def __init__(self):
        self.client = lab.client(user="oldempire", password="none", changes=WITH_TOKENS)
        self.challenge = self.client.challenge()
        self.mac = MAC

    def ask(self, method, attrs=(), sealed=None, mac=None):
        more = [(ACCESS_TOKEN, sealed)] if sealed else []
        msg = self.client.message(method, [*attrs, *more])
        return self.client.exchange(msg, mac or self.mac)

    def pending(self):
        """A connection to a peer that waits for its ConnectionBind: (its id, the peer's end)."""
        listener = lab.topo.peer.bound()
        listener.listen(1)
        with contextlib.closing(listener):
            msg = self.client.peer_message(CONNECT, listener.getsockname())
            response = self.client.exchange(msg, self.mac)
            equal(response.code, 0, "Connect")
            return response.get(stun.CONNECTION_ID), lab.accept(listener)

    def bind(self, cid, sealed=None, mac=None):
        """ConnectionBind on a new connection: (code, data socket)."""
        more = [(ACCESS_TOKEN, sealed)] if sealed else []
        twin = lab.keep(self.client.other())
        msg = twin.message(CONNECTION_BIND, [(stun.CONNECTION_ID, cid), *more])
        return twin.exchange(msg, mac or self.mac).code, twin.sock

    def carries(self, sealed=None):
        """A connection from Connect to the end of its data, another key having been tried."""
        cid, peer = self.pending()
        equal(self.bind(cid, mac=MAC[::-1])[0], 401, "another key")
        code, data = self.bind(cid, sealed)
        equal(code, 0, "ConnectionBind")
        data.sendall(b"there")
        data.shutdown(socket.SHUT_WR)
        equal(receive_to_end(peer), b"there", "what came")


@tap.test("a challenge names this server; a token allocates, no longer than it is good")
def _():
    bearer = Bearer()
    equal(bearer.challenge.get(THIRD_PARTY_AUTHORIZATION), SERVER.encode(), "name")
    response = bearer.ask(ALLOCATE, [transport()], token(100))
    equal(response.code, 0, "Allocate")
    lifetime = int.from_bytes(response.get(stun.LIFETIME), "big")
    within(lifetime, 1, 105, "lifetime")
    check(response.get(stun.MESSAGE_INTEGRITY), "the answer is not signed")
    msg = bearer.client.peer_message(CREATE_PERMISSION, (lab.topo.peer.addr(4), 0))
    equal(bearer.client.exchange(msg, MAC).code, 0, "without the token")
    equal(bearer.ask(REFRESH, (), token(300)).code, 0, "Refresh with a newer one")


@tap.test("a token of another key, of another server or past its time is 401")
def _():
    bearer = Bearer()
    for name, sealed in {"key": token(100, key=KEY[::-1]), "server": token(100, "turn.example.com"),
                         "torn": token(100)[:-1], "empty": b"\0\0"}.items():
        equal(bearer.ask(ALLOCATE, [transport()], sealed).code, 401, name)
    equal(bearer.ask(ALLOCATE, [transport()]).code, 401, "none at all")


@tap.test("ConnectionBind with the token, or signed by its key alone, on whatever worker")
def _():
    bearer = Bearer()
    equal(bearer.ask(ALLOCATE, [transport()], token(100)).code, 0, "Allocate")
    server = lab.server(WITH_TOKENS)
    before = server.counters()["binds_moved"]
    for _count in range(8):
        bearer.carries()
        bearer.carries(token(100))
        for nobodys in (bytes(4), b"\1\0\0\0", b"\xff" * 4):
            equal(bearer.bind(nobodys)[0], 401, "nobody's connection")
    within(server.counters()["binds_moved"] - before, 1, 64, "moved to the other worker")
    newer = token(100, mac=NEXT_MAC)
    equal(bearer.ask(REFRESH, (), newer, NEXT_MAC).code, 0, "Refresh with another key")
    bearer.mac = NEXT_MAC
    bearer.carries()
    bearer.carries(newer)


@tap.test("who has a password is served beside them")
def _():
    lab.client(changes=WITH_TOKENS).allocate()


def uclient(*form):
    need("turnutils_uclient", "coturn")
    host, port = lab.server(WITH_TOKENS).address()
    process = lab.spawn(lab.topo.client, ["turnutils_uclient", "-J", *form, "-y", "-u", "x", "-w",
                                          "x", "-p", port, "-m", "2", "-n", "5", "-l", "200", "-c",
                                          host], "uclient")
    equal(process.wait(30), 0, f"status, said {process.out()[-400:]}")
    check("Total lost packets 0" in process.out(), process.out()[-400:])


@tap.test("turnutils_uclient -J, whose every Refresh has another token", 40)
def _():
    uclient()


@tap.test("turnutils_uclient -J -T, whose ConnectionBind has no token", 40)
def _():
    uclient("-T")


tap.main()
