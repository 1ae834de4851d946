#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Pairs on wire outlive the processes that made them, and whoever comes after takes them over."""

import os
import socket
import stat
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import engines, pins, proc, stun, tap  # noqa: E402
from culvertlab.data import KIB, MIB, ping, receive_to_end, sender, swap  # noqa: E402
from culvertlab.lab import Lab  # noqa: E402
from culvertlab.tap import check, equal, test  # noqa: E402
from culvertlab.turn import Control, ended  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
ENGINE = "wire"


def config(**sections):
    return engines.config(lab, ENGINE, **sections)


def allocated(server):
    """A client of a server that is not the lab's."""
    client = lab.keep(Control(lab.topo.client, server.address()))
    client.allocate()
    return client


def pair(server, client=None, version=4):
    """A bound pair on wire, of which the relay has no descriptor left."""
    data, peer, client = lab.pair(client, version=version)
    engines.on(server, data, ENGINE)
    row = engines.row_of(server, data)
    ping(data, peer)

    def closed():
        sockets = lab.topo.relay.run("ss", "-Htn")
        return row["client"] not in sockets and row["peer"] not in sockets
    wait_for(closed, 5, "both of the relay's sockets are closed")
    return data, peer, client


def adopted(server):
    return [row for row in server.ctl_json("connections")["connections"]
            if row["state"] == "adopted"]


def kick(server, data, row):
    """The pair of this row is reset and listed no more."""
    server.ctl("kick", row["id"])
    equal(ended(data), "rst", "end of a kicked one")
    wait_for(lambda: engines.row_of(server, data) is None, 10, "kicked")


def channels(pid):
    """Copies of a process's ends of the channels between relay and broker."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        fd = proc.fd_copy(pid, int(number))
        if fd is None:
            continue
        # Its channel to the supervisor waits for room.
        if not stat.S_ISSOCK(os.fstat(fd).st_mode) or os.get_blocking(fd):
            os.close(fd)
            continue
        sock = socket.socket(fileno=fd)
        if sock.type == socket.SOCK_SEQPACKET:
            found.append(sock)
    return found


def fresh(changes=None):
    return lab.server(changes or config(), fresh=True)


def reborn(server):
    """The relay is started again and has its channels to the broker."""
    wait_for(lambda: server.log_count(r"event=wire_ready") >= 2, 15, "another relay is ready")


@test("the relay is killed: its pairs go on and the next relay adopts them")
def _():
    server = fresh()
    ends = [pair(server) for _ in range(3)]
    if 6 in lab.topo.versions:
        ends.append(pair(server, version=6))
    before = {row["client"]: row for row in server.ctl_json("connections")["connections"]}
    server.kill_hard([server.relay_pid()])
    for data, peer, _ in ends:
        swap(data, peer, MIB)
    reborn(server)
    rows = wait_for(lambda: len(adopted(server)) == len(ends) and adopted(server), 10, "adopted")
    for row in rows:
        old = before[row["client"]]
        equal((row["peer"], row["user"], row["engine"]),
              (old["peer"], "alice@example.org", "wire"), "an adopted row")
        check(row["expires_in_ms"] > 0 and row["age_ms"] >= old["age_ms"], f"times of {row}")
    whole = MIB + len(b"ping")
    wait_for(lambda: [(row["bytes_to_peer"], row["bytes_to_client"]) for row in adopted(server)]
             == [(whole, whole)] * len(ends), 5, "every byte is counted, and once")
    equal(server.counters()["adopted"], len(ends), "adopted, counted")
    equal(server.counters()["relaying"], len(ends), "relaying")
    for data, peer, _ in ends:
        ping(data, peer)
        job = sender(data, b"x" * 100 * KIB, fin=True)
        equal(len(receive_to_end(peer)), 100 * KIB, "to the peer")
        job.finish()
        peer.shutdown(socket.SHUT_WR)
        equal(receive_to_end(data), b"", "the peer's end")
    wait_for(lambda: server.counters()["relaying"] == 0, 20, "ended ones are no more listed")
    check(server.counters()["bytes_to_peers"] >= len(ends) * (MIB + 100 * KIB), "bytes counted on")


@test("an adopted pair can be kicked: both ends are reset")
def _():
    server = fresh()
    data, peer, _ = pair(server)
    server.kill_hard([server.relay_pid()])
    reborn(server)
    row = wait_for(lambda: adopted(server), 10, "adopted")[0]
    server.ctl("kick", row["id"])
    for sock in (data, peer):
        equal(ended(sock), "rst", "end of a kicked one")
    wait_for(lambda: not adopted(server), 10, "kicked: not listed")


@test("the relayed port of an adopted pair is given to nobody else")
def _():
    port = lab.topo.relay.free_port()
    server = fresh(config(relay={"ports": f"{port}-{port}"}))
    data, peer, client = pair(server)
    equal(client.relayed[1], port, "the only port")
    server.kill_hard([server.relay_pid()])
    reborn(server)
    wait_for(lambda: adopted(server), 10, "adopted")
    other = lab.client()
    equal(other.code(stun.ALLOCATE, [(stun.REQUESTED_TRANSPORT, bytes([6, 0, 0, 0]))]), 508,
          "another allocation while the pair lives")
    ping(data, peer)
    data.close()
    peer.close()
    wait_for(lambda: not adopted(server), 20, "ended")
    lab.keep(lab.client()).allocate()


@test("an adopted pair ends when its allocation would have expired")
def _():
    server = fresh(config(limits={"default_lifetime": "3s", "max_lifetime": "3s"}))
    data, peer, client = pair(server)
    client.refresh(3)
    server.kill_hard([server.relay_pid()])
    reborn(server)
    row = wait_for(lambda: adopted(server), 10, "adopted")[0]
    check(0 < row["expires_in_ms"] <= 8000, f"expires in {row['expires_in_ms']} ms")
    ping(data, peer)
    wait_for(lambda: not adopted(server), 20, "expired")
    # Without a word of theirs: nobody but the broker could have told them.
    for sock in (data, peer):
        equal(ended(sock), "rst", "end of an expired one")


@test("the broker is killed: pairs go on, are claimed, and new ones are joined")
def _():
    server = fresh()
    data, peer, _ = pair(server)
    server.kill_hard([server.broker_pid()])
    swap(data, peer, MIB)
    wait_for(lambda: server.log_count(r"event=wire_ready") >= 2, 15, "another broker")
    row = engines.row_of(server, data)
    equal((row["state"], row["engine"]), ("relaying", "wire"), "still the relay's own")
    check(row["bytes_to_peer"] >= MIB, f"bytes of {row}")
    more, other, _ = pair(server)
    swap(more, other, MIB)
    kick(server, data, row)
    ping(more, other)


@test("a channel to a broker that lives breaks: pairs go on, and new ones are joined")
def _():
    server = fresh()
    data, peer, _ = pair(server)
    broker = server.broker_pid()
    for number, culprit in enumerate((server.relay_pid(), broker), 1):
        broken = channels(culprit)
        equal(len(broken), len(channels(broker)), "channels, one of each worker")
        for channel in broken:
            channel.send(b"what is this?")
            channel.close()
        swap(data, peer, MIB)
        wait_for(lambda n=number: server.log_count(r"event=wire_ready") > n, 10, "another channel")
        wait_for(lambda: [r for r in server.engines() if r["name"] == "wire"][0]["available"],
                 10, "each worker has one")
        equal(engines.row_of(server, data)["state"], "relaying", "still the worker's own")
        more, other, _ = pair(server)
        swap(more, other, MIB)
    equal(server.broker_pid(), broker, "the broker has lived on")
    row = engines.row_of(server, data)
    check(row["bytes_to_peer"] >= 2 * MIB, f"bytes of {row}")
    kick(server, data, row)
    ping(more, other)


@test("the whole daemon is killed: pairs go on, and the next daemon adopts them")
def _():
    changes = config()
    lab.stop_server()
    server = lab.extra_server(changes)
    ends = [pair(server, allocated(server)) for _ in range(2)]
    server.kill_hard([server.process.pid, *proc.descendants(server.process.pid)])
    server.process.wait()
    for data, peer, _ in ends:
        swap(data, peer, MIB)
    server = lab.extra_server(changes)
    rows = wait_for(lambda: len(adopted(server)) == 2 and adopted(server), 10, "adopted")
    check(all(row["bytes_to_peer"] >= MIB for row in rows), f"bytes: {rows}")
    for data, peer, _ in ends:
        ping(data, peer)
    # New ones beside them.
    data, peer, _ = pair(server, allocated(server))
    swap(data, peer, MIB)
    server.stop()
    for data, _, _ in ends:
        equal(ended(data), "rst", "end after SIGTERM")


def forwards():
    return lab.topo.relay.run("sysctl", "-n", "net.ipv4.conf.lo.forwarding",
                              "net.ipv6.conf.lo.forwarding").split()


class Orphans:
    """What a daemon that was killed leaves in the kernel, with a pair that goes on."""

    def __init__(self):
        changes = config()
        lab.stop_server()
        self.node = lab.topo.relay
        self.forwarding = forwards()
        server = lab.extra_server(changes)
        self.data, self.peer, _ = pair(server, allocated(server))
        self.programs = pins.programs(self.node)
        check(self.programs, "no program is attached")
        equal(pins.loaded(self.programs), self.programs, "loaded programs")
        equal(pins.flows(self.node), 2, "entries of a pair")
        refused = server.ctl("flush", check=False)
        check(refused.returncode and "runs in this network" in refused.stderr, f"flush: {refused}")
        server.kill_hard([server.process.pid, *proc.descendants(server.process.pid)])
        server.process.wait()
        swap(self.data, self.peer, 100 * KIB)
        self.server = server

    def are_gone(self):
        """As if no culvertd had ever run here."""
        equal(pins.names(self.node), [], "pins")
        check(not os.path.exists(pins.directory(self.node)), "their directory is left")
        wait_for(lambda: not pins.loaded(self.programs), 5, "the programs are unloaded")
        equal(forwards(), self.forwarding, "forwarding of lo")
        self.data.sendall(b"is anybody there?")
        equal(ended(self.data), "rst", "what the pair's packets meet")


@test("flush takes away all that a killed daemon left, and tells so")
def _():
    orphans = Orphans()
    check("removed" in orphans.server.ctl("flush"), "words of flush")
    orphans.are_gone()
    check("nothing" in orphans.server.ctl("flush"), "words of a second flush")


@test("a daemon that is not to use wire leaves nothing of a killed one attached")
def _():
    for changes in ({"engine": {"wire": "never"}}, {"engine": {"order": "splice"}}):
        orphans = Orphans()
        server = lab.extra_server(changes)
        orphans.are_gone()
        equal(server.log_count("event=wire_removed"), 1, "words in the log")
        server.stop()


tap.main()
