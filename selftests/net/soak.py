#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Mixed load on every engine for minutes: what it took comes back, and the counters add up.

The engines run beside each other, each in a process and namespaces of its own, for SOAK_SECONDS:
three minutes, with CULVERT_LONG half an hour. ENGINES=wire is that engine alone. The seed is
printed and SOAK_SEED repeats it.
"""

import os
import random
import re
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import engines, mixed, pins, tap  # noqa: E402
from culvertlab.lab import Lab  # noqa: E402
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

NAMES = engines.chosen()
SEED = int(os.environ.get("SOAK_SEED", random.randrange(1 << 30)))
SECONDS = float(os.environ.get("SOAK_SECONDS", "1800" if engines.LONG else "180"))
RATE = 20 if engines.LONG else 5  # of an engine: all of them share the processors
WARM = 0.3  # of the time: then every pool and cache has what it needs
GROWTH_KIB = 2048  # of a process, after that; 600 have been seen
children = {}  # engine -> its script


def settle(server):
    """No pair in any engine, no entry in the kernel: those of ended ones linger for ten seconds."""
    def left():
        return sum(row["pairs_now"] for row in server.engines()) + pins.entries(server.pids())
    wait_for(lambda: left() == 0, 20, "no pair in any engine, no entry in the kernel")


def soak(lab, engine):
    sections, port = mixed.listeners(lab)
    server = lab.server(engines.config(lab, engine, **sections), fresh=True)
    load = mixed.Load(lab, server, port, SEED)
    load.run(SECONDS * WARM, RATE)
    load.finish()
    settle(server)
    before = mixed.Held(server)
    again = mixed.Load(lab, server, port, SEED + 1)
    again.contexts = load.contexts
    again.run(SECONDS * (1 - WARM), RATE)
    again.finish()
    settle(server)
    verified, ways = load.verified + again.verified, ("bytes_to_peers", "bytes_to_clients")
    # A pair that no engine has any more is counted when its last bytes are acknowledged.
    wait_for(lambda: all(server.counters()[way] >= verified for way in ways), 20,
             f"{verified} bytes counted each way")
    total = server.counters()
    made = load.made + again.made
    within(total["allocations_made"], made, made + load.maybe + again.maybe, "allocations_made")
    equal(total["binds"], load.bound + again.bound, "binds")
    # Who came over TLS, and what wire refuses, are other engines'.
    had, plain = engines.totals(server)[engine], load.plain + again.plain
    check(had * 2 >= plain, f"{engine} had {had} of {plain} pairs")
    before.compare(mixed.Held(server), GROWTH_KIB)
    print(f"# {engine}: {load.steps + again.steps} steps, {made} allocations, "
          f"{load.bound + again.bound} pairs, {plain} of them without TLS, {had} of {engine}, "
          f"{load.reloads + again.reloads} reloads, seed {SEED}")
    lab.stop_server()


def begin(engine):
    """This script for one engine, beside us; it is told to end when we do."""
    child = subprocess.Popen([sys.executable, os.path.abspath(__file__)], text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             env={**os.environ, "ENGINES": engine, "SOAK_SEED": str(SEED)})
    tap.at_end(child.terminate)
    return child


def judge(engine):
    """The verdict of an engine's script, and what it had to say; the first call begins all."""
    if not children:
        children.update({name: begin(name) for name in NAMES})
    child = children[engine]
    said = child.communicate()[0]
    tap.note("\n".join(re.findall("^# ?(.*)", said, re.M)))
    reason = re.search("# SKIP (.*)", said)
    if reason:
        tap.skip(reason[1])
    check(child.returncode == 0, f"status {child.returncode}:\n{said}")


def add(engine, function):
    tap.add(f"{engine}: {SECONDS:.0f} s of everything at once leave nothing behind",
            function, SECONDS + 180)


def main():
    if len(NAMES) == 1:
        lab = Lab()
        add(NAMES[0], lambda: soak(lab, NAMES[0]))
    else:
        for engine in NAMES:
            add(engine, lambda e=engine: judge(e))
    tap.main()


main()
