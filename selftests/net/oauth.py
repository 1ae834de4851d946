#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Access tokens (RFC 7635), made by coturn's turnutils_oauth and by its client."""

import base64
import json
import os
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import stun, tap  # noqa: E402
from culvertlab.lab import Lab, need  # noqa: E402
from culvertlab.stun import ALLOCATE, CREATE_PERMISSION, REFRESH  # noqa: E402
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.turn import transport  # noqa: E402

lab = Lab()
ACCESS_TOKEN = 0x001B
THIRD_PARTY_AUTHORIZATION = 0x802E
SERVER = "turn.example.org"
KEY = b"12345678901234567890123456789012"
MAC = b"a key of 32 bytes for the client"
# What turnutils_uclient -J seals with.
KEYS = {"north": b"01234567890123456789012345678901", "union": b"1234567890123456",
        "oldempire": KEY}
WITH_TOKENS = {"realm example.org": {"oauth": SERVER,
                                     "oauth_key": [f"{name}:{key.hex()}"
                                                   for name, key in KEYS.items()]},
               "listener udp": {"transport": "udp", "address": f"0.0.0.0:{lab.port}"}}


def token(seconds, server=SERVER, key=KEY):
    """As an authorization server makes it."""
    need("turnutils_oauth", "coturn")
    text = [base64.b64encode(value).decode() for value in (key, b"unique nonce", MAC)]
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

    def ask(self, method, attrs=(), sealed=None):
        more = [(ACCESS_TOKEN, sealed)] if sealed else []
        msg = self.client.message(method, [*attrs, *more])
        return self.client.exchange(msg, MAC)


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


@tap.test("who has a password is served beside them")
def _():
    lab.client(changes=WITH_TOKENS).allocate()


@tap.test("turnutils_uclient -J, whose every Refresh has another token", 40)
def _():
    need("turnutils_uclient", "coturn")
    host, port = lab.server(WITH_TOKENS).address()
    process = lab.spawn(lab.topo.client, ["turnutils_uclient", "-J", "-y", "-u", "x", "-w", "x",
                                          "-p", port, "-m", "2", "-n", "5", "-l", "200", "-c",
                                          host], "uclient")
    equal(process.wait(30), 0, f"status, said {process.out()[-400:]}")
    check("Total lost packets 0" in process.out(), process.out()[-400:])


tap.main()
