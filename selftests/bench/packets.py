#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""packets.py: datagrams relayed per CPU-second of the relay, culvert beside coturn.

Eight clients over UDP with a channel each; ChannelData of 200 and of 1200 bytes go to the peers
and back, 32 of each client under way.  The two take turns; each figure is the median of RUNS
(default 3) runs of SECONDS (default 4).  A datagram there and back counts as two.  The same with
Binding requests, of which answers are counted.  Needs root.
"""

import json
import os
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import proc, stun, turn  # noqa: E402
from culvertlab.lab import Lab  # noqa: E402
from culvertlab.server import BUILD, ROOT, Coturn, Culvertd  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

RUNS = int(os.environ.get("RUNS", "3"))
SECONDS = int(os.environ.get("SECONDS", "4"))
CLIENTS, WINDOW, CHANNEL = 8, 32, 0x4001
BINDING = 0  # in place of the bytes of ChannelData
CASES = (200, 1200, BINDING)
TOOL = os.path.join(ROOT, BUILD, "bench-tools", "packets")


def family(pid):
    return [pid] + [each for child in proc.children(pid) for each in family(child)]


def cpu_seconds(pid):
    """User and system time of a process and its descendants."""
    ticks = 0
    for each in family(pid):
        with open(f"/proc/{each}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def answers(lab, server):
    """Does it serve UDP yet?"""
    try:
        with turn.Datagrams(lab.topo.client, server.address()) as client:
            return client.exchange(stun.Message(stun.BINDING)).code == 0
    except OSError:
        return False


def measure(lab, server, size):
    """(datagrams per CPU-second, datagrams per second, share lost) of one run."""
    wait_for(lambda: answers(lab, server), 10, "UDP is served")
    clients, fds = [], []
    for _ in range(CLIENTS):
        client = turn.Datagrams(lab.topo.client, server.address())
        peer = lab.topo.peer.bound(udp=True)
        if size != BINDING:
            client.allocate(protocol=turn.UDP)
            if client.channel_bind_code(peer.getsockname(), CHANNEL):
                sys.exit("no channel")
        clients += [client, peer]
        fds += [client.sock.fileno(), peer.fileno()]
    before = cpu_seconds(server.process.pid)
    channel = 0 if size == BINDING else CHANNEL
    argv = [TOOL, *map(str, (channel, size, SECONDS, WINDOW)), *map(str, fds)]
    done = subprocess.run(argv, pass_fds=fds, capture_output=True, text=True, check=True)
    used = cpu_seconds(server.process.pid) - before
    for each in clients:
        each.close()
    told = json.loads(done.stdout)
    count = told["trips"] if size == BINDING else 2 * told["trips"]
    return (count / max(used, 0.01), count * 1000 / told["ms"],
            told["lost"] / max(1, told["trips"] + told["lost"]))


def run(lab):
    udp = {"listener datagrams": {"transport": "udp", "address": f"0.0.0.0:{lab.port}"},
           "server": {"log_level": "info"},
           # All of them come from one network.
           "limits": {"reflection": "0"}}
    servers = {"culvert": lambda: Culvertd(lab, udp),
               "coturn": lambda: Coturn(lab, udp=True)}
    figures = {}
    for _ in range(RUNS):
        for size in CASES:
            for name, start in servers.items():
                server = start()
                figures.setdefault((size, name), []).append(measure(lab, server, size))
                server.stop()
    for size in CASES:
        median = {}
        what = "Binding answers" if size == BINDING else f"datagrams of {size} bytes"
        for name in servers:
            per_cpu, rate, lost = map(statistics.median, zip(*figures[size, name]))
            median[name] = per_cpu
            print(f"{what:22} {name:8} {per_cpu:10,.0f} per CPU-second  "
                  f"{rate:10,.0f} per second  {100 * lost:.2f} % lost")
        print(f"{what:22} ratio {median['culvert'] / median['coturn']:.2f}")


def main():
    lab = Lab()
    try:
        run(lab)
    finally:
        lab.close()


main()
