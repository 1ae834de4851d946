#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Where the daemon's secrets are in memory: in the processes that need them and in no other."""

import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import proc, tap, tls, turn  # noqa: E402
from culvertlab.lab import Lab  # noqa: E402
from culvertlab.stun import ALLOCATE  # noqa: E402
from culvertlab.tap import check, equal, test  # noqa: E402
from culvertlab.turn import transport  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
if os.geteuid() or not lab.topo.isolated:
    tap.skip_all("needs root and network namespaces")
PASSWORD, SECRET, STORED = "of alice in wonderland", "shared with a web service", "of-the-database"
TOKEN_KEY = bytes(range(0x41, 0x61)).hex()
TLS_PORT = lab.port + 1
# What each process may know, as it stands in the configuration; of the key of a listener a line.
MAY = {"supervisor": {PASSWORD, SECRET, STORED, TOKEN_KEY, "key"}, "relay": {SECRET, STORED},
       "broker": set(), "exit": set()}


def sections():
    certificate, key = tls.certificate(lab.dir)
    return {"user alice": {"password": PASSWORD}, "user bob": None,
            "realm web": {"secret": SECRET},
            "realm tokens": {"oauth": "turn.example.org", "oauth_key": f"north:{TOKEN_KEY}"},
            "listener web": {"address": f"127.0.0.1:{lab.port + 2}", "realm": "web"},
            "listener tokens": {"transport": "tls", "address": f"0.0.0.0:{TLS_PORT}",
                                "realm": "tokens", "certificate": certificate,
                                "private_key": key},
            "database": {"url": f"redis://culvert:{STORED}@127.0.0.1:1/0", "timeout": "100ms"},
            "exit isp-a": {"prefix": "10.77.2.0/24", "link": "topeer", "next_hop": "10.77.2.2"}}


def needles():
    """{what: the bytes to look for}."""
    with open(tls.certificate(lab.dir)[1], "rb") as file:
        key = file.read().split(b"\n")[1]
    equal(len(key), 64, "length of a line of the key")
    return {**{text: text.encode() for text in (PASSWORD, SECRET, STORED, TOKEN_KEY)}, "key": key}


def roles(server):
    """{role: pid} of all four. The exit role has no BPF map, the broker has."""
    relay = server.relay_pid()
    found = {"supervisor": server.process.pid, "relay": relay}
    for pid in proc.children(server.process.pid):
        if pid != relay:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            found["broker" if any("bpf-map" in link for link in links) else "exit"] = pid
    return found


def served():
    server = lab.server(sections(), fresh=True)
    wait_for(lambda: server.log_count("event=exits_ready") and set(roles(server)) == set(MAY), 10,
             "all four processes are there")
    return server


def used(server):
    """Every kind of credentials is asked for once."""
    client = lab.keep(turn.Control(lab.topo.client, server.address(), "alice", PASSWORD))
    client.allocate()
    stranger = lab.keep(turn.Control(lab.topo.client, server.address(), "carol", "x"))
    stranger.challenge()
    equal(stranger.code(ALLOCATE, [transport()]), 500, "who is in the database, which is not there")


def looked_for(server, when):
    texts = needles()
    for role, pid in roles(server).items():
        found = proc.memory_has(pid, *texts.values())
        known = {what for what, text in texts.items() if text in found}
        equal(sorted(known), sorted(MAY[role]), f"what the {role} knows, {when}")


@test("each secret is known to the processes that need it: started, reloaded, started again", 60)
def _():
    server = served()
    used(server)
    looked_for(server, "started")
    equal(server.reload(), "reloaded", "reload")
    wait_for(lambda: server.log_count("event=exits_ready") == 2, 10, "the exits' next process")
    used(server)
    looked_for(server, "reloaded")
    before = roles(server)
    server.kill_hard([before["broker"], before["relay"]])
    wait_for(lambda: server.log_count("event=ready") == 2 and set(roles(server)) == set(MAY), 20,
             "they are started again")
    used(server)
    looked_for(server, "started again")
    lab.stop_server()


@test("no process can be looked into by the daemon's user")
def _():
    server = served()
    for role, pid in roles(server).items():
        equal(os.stat(f"/proc/{pid}/mem").st_uid, 0, f"owner of the {role}'s memory")
    relay = roles(server)["relay"]
    check(proc.status_field(relay, "Uid").split()[0] != "0", "the relay is root's")
    lab.stop_server()


tap.main()
