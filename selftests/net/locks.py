#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""One culvertd in a network namespace has wire, one has the exits: who is second, and who may not."""

import os
import re
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import engines, exits, proc, tap  # noqa: E402
from culvertlab.lab import Lab, need  # noqa: E402
from culvertlab.server import binary  # noqa: E402
from culvertlab.tap import check, equal, test  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

exits.require()
lab = Lab()
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
EXIT = {"exit only": {"link": "lo", "next_hop": "10.99.0.1", "prefix": "10.99.0.0/24"}}
LOCKS = {"wire": "/run/culvert/wire.lock", "exits": "/run/culvert/exits.lock"}
HOLDER = {"wire": r"wire_off reason=\"another culvertd \(its process (\d+)\) has wire",
          "exits": r"exits_held process=(\d+) .*hint="}


def ready(server):
    exits.await_ready(server, 10)
    return server


def config(**more):
    return engines.config(lab, "wire", **EXIT, **more)


def second():
    """Another culvertd of the same network namespace."""
    port = lab.topo.relay.free_port()
    return lab.extra_server(config(**{"listener main": {"address": f"0.0.0.0:{port}"}}), port=port)


def wire_reason(server):
    return {row["name"]: row["reason"] for row in server.engines()}["wire"]


@test("an ordinary user who takes names of locks first keeps nothing from starting", 40)
def _():
    need("setpriv", "util-linux")
    wanted = config()  # skips where there is no wire anyway
    lab.stop_server()
    script = ("import socket, sys\nheld = []\nfor name in sys.argv[1:]:\n"
              "    held.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))\n"
              "    held[-1].bind('\\0' + name)\nprint('held', flush=True)\nsys.stdin.read()\n")
    taker = lab.spawn(lab.topo.relay, [*NOBODY, sys.executable, "-c", script,
                                       "culvert-wire", "culvert-exits"], "taker", stdin=subprocess.PIPE)
    taker.wait_for_text("held", read=taker.out)
    server = ready(lab.server(wanted))
    equal(wire_reason(server), "", "why wire does not work")
    for path in LOCKS.values():
        done = subprocess.run([*NOBODY, sys.executable, "-c", "import sys; open(sys.argv[1])", path],
                              capture_output=True, text=True, check=False)
        check("PermissionError" in done.stderr, f"an ordinary user opens {path}: {done.stderr}")


@test("a second culvertd of the namespace is told who has wire and the exits, and takes them over", 60)
def _():
    first = ready(lab.server(config(), fresh=True))
    pids = proc.children(first.process.pid)
    other = second()
    for what, pattern in HOLDER.items():
        told = wait_for(lambda pattern=pattern: re.search(pattern, other.log()), 10, f"{what}: who has it")
        check(int(told[1]) in pids, f"{what}: process {told[1]}, not one of {pids}")
    check("stop that one" in wire_reason(other), wire_reason(other))
    equal(wire_reason(first), "", "the first one's wire")
    for words in (["exits", "remove"], ["flush"]):
        done = subprocess.run(lab.topo.relay.command([binary("culvertctl"), *words]),
                              capture_output=True, text=True, check=False)
        equal(done.returncode, 1, f"status of {words}")
        told = re.search(r"process (\d+)\)", done.stderr)
        check(told and int(told[1]) in pids, f"{words}: {done.stderr}")
    first.kill_hard([first.process.pid, *pids])
    ready(other)
    other.stop()


@test("nothing of a lock stays after kill -9: the next culvertd has wire and the exits at once", 40)
def _():
    server = ready(lab.server(config(), fresh=True))
    server.kill_hard([server.process.pid, *proc.children(server.process.pid)])
    server = ready(lab.server(config(), fresh=True))
    equal(wire_reason(server), "", "why wire does not work")
    equal(server.log_count("exits_held"), 0, "refusals")


tap.main()
