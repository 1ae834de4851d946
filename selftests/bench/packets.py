#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""packets.py: processor time of each datagram that is relayed, culvert beside coturn.

Eight clients over UDP with a channel each; ChannelData of 200 and of 1200 bytes go to the peers
and back, 32 of each client under way.  A datagram there and back counts as two.  The same with
Binding requests, of which answers are counted.  All take turns; each figure is the median of RUNS
(default 3) runs of SECONDS (default 4).  With TRAINS=1 what one sends at once goes as one message
(UDP_SEGMENT), which a network device may make of what comes, too.  Needs root.

"relay": the time of all its processes.  What the kernel relays by itself costs them nothing, but
whoever sends and receives: on these devices a program at a hook runs in the time of the sender.
"all": relay and load together.  "added": the same less what the load alone spends when the
relay's namespace routes its datagrams and there is no relay ("direct"), which is what relaying
them costs the machine, wherever it is charged.  Ratios are coturn's time to culvert's.
"""

import json
import os
import resource
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
TRAINS = int(os.environ.get("TRAINS", "0"))
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


class Direct:
    """No relay: its namespace routes."""

    def __init__(self, lab):
        self.relay = lab.topo.relay
        self.process = None
        self.relay.run("sysctl", "-qw", "net.ipv4.ip_forward=1")

    def stop(self):
        self.relay.run("sysctl", "-qw", "net.ipv4.ip_forward=0")


def sockets(lab, server, size):
    """Sockets of the clients and their peers, with what keeps them."""
    kept, fds = [], []
    for _ in range(CLIENTS):
        peer = lab.topo.peer.bound(udp=True)
        if server.process is None:
            client = sock = lab.topo.client.datagrams(peer.getsockname())
        else:
            client = turn.Datagrams(lab.topo.client, server.address())
            sock = client.sock
        if server.process is not None and size != BINDING:
            client.allocate(protocol=turn.UDP)
            if client.channel_bind_code(peer.getsockname(), CHANNEL):
                sys.exit("no channel")
        kept += [client, peer]
        fds += [sock.fileno(), peer.fileno()]
    return kept, fds


def load_seconds():
    """Processor time of the loads so far: of children that have been waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(lab, server, size):
    """Of one run: relay and all, microseconds a datagram; datagrams a second; share lost."""
    if server.process:
        wait_for(lambda: answers(lab, server), 10, "UDP is served")
    kept, fds = sockets(lab, server, size)
    before = cpu_seconds(server.process.pid) if server.process else 0
    load = load_seconds()
    channel = 0 if size == BINDING else CHANNEL
    argv = [TOOL, *map(str, (channel, size, SECONDS, WINDOW, TRAINS)), *map(str, fds)]
    done = subprocess.run(argv, pass_fds=fds, capture_output=True, text=True, check=True)
    load = load_seconds() - load
    used = cpu_seconds(server.process.pid) - before if server.process else 0
    for each in kept:
        each.close()
    told = json.loads(done.stdout)
    count = max(1, told["trips"] if size == BINDING else 2 * told["trips"])
    return (1e6 * used / count, 1e6 * (used + load) / count, count * 1000 / told["ms"],
            told["lost"] / max(1, told["trips"] + told["lost"]))


def show(size, figures):
    """The rows of one case: a line for each relay, a ratio for each of culvert's."""
    what = "Binding answers" if size == BINDING else f"{size} bytes"
    rows = {name: list(map(statistics.median, zip(*runs))) for name, runs in figures.items()}
    # Nobody but a relay answers Binding requests.
    alone = rows["direct"][1] if "direct" in rows else None
    for name, (relay, whole, rate, lost) in rows.items():
        added = f"{whole - alone:7.2f}" if alone is not None else "      -"
        print(f"{what:16} {name:14} us a datagram: relay {relay:5.2f}  all {whole:5.2f}  "
              f"added {added}   {rate:9,.0f} a second  {100 * lost:.2f} % lost")
    for name in rows:
        if name not in ("culvert", "culvert-daemon"):
            continue
        own = f"{rows['coturn'][0] / max(rows[name][0], 0.01):7.2f}"
        added = "      -" if alone is None else \
            f"{(rows['coturn'][1] - alone) / max(rows[name][1] - alone, 0.01):7.2f}"
        print(f"{what:16} {name:14} x coturn:      relay {own}            added {added}")


def run(lab):
    udp = {"listener datagrams": {"transport": "udp", "address": f"0.0.0.0:{lab.port}"},
           "server": {"log_level": "info"},
           # All of them come from one network.
           "limits": {"reflection": "0"}}
    daemon = {**udp, "engine": {"wire_datagrams": "no"}}
    relays = {"culvert": lambda: Culvertd(lab, udp),
              "coturn": lambda: Coturn(lab, udp=True)}
    data = {"direct": lambda: Direct(lab), "culvert-daemon": lambda: Culvertd(lab, daemon),
            **relays}
    figures = {}
    for _ in range(RUNS):
        for size in CASES:
            for name, start in (relays if size == BINDING else data).items():
                server = start()
                figures.setdefault(size, {}).setdefault(name, []).append(
                    measure(lab, server, size))
                server.stop()
    for size in CASES:
        show(size, figures[size])


def main():
    lab = Lab()
    try:
        run(lab)
    finally:
        lab.close()


main()
