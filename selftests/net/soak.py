#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Mixed load on every engine for minutes: what it took comes back, and the counters add up.

SOAK_SECONDS, three minutes or with CULVERT_LONG half an hour, are shared by the engines; the seed
is printed and SOAK_SEED repeats it.
"""

import os
import random
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import engines, mixed, pins, tap  # noqa: E402
from culvertlab.lab import Lab  # noqa: E402
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
SEED = int(os.environ.get("SOAK_SEED", random.randrange(1 << 30)))
SECONDS = float(os.environ.get("SOAK_SECONDS", "1800" if engines.LONG else "180"))
NAMES = engines.chosen()
SHARE = SECONDS / len(NAMES)
RATE = 200 if engines.LONG else 25
WARM = 0.3  # of the time: then every pool and cache has what it needs
PIPES = 2048  # in the pools of all workers at most
GROWTH_KIB = 6144


def left(server):
    """Pairs of every engine, and their entries in the kernel: ended ones linger for ten seconds."""
    return sum(row["pairs_now"] for row in server.engines()) + pins.flows(lab.topo.relay)


def soak(engine):
    sections, port = mixed.listeners(lab)
    server = lab.server(engines.config(lab, engine, **sections), fresh=True)
    load = mixed.Load(lab, server, port, SEED)
    load.run(SHARE * WARM, RATE)
    load.finish()
    before = mixed.Held(server)
    again = mixed.Load(lab, server, port, SEED + 1)
    again.contexts = load.contexts
    again.run(SHARE * (1 - WARM), RATE)
    again.finish()
    wait_for(lambda: left(server) == 0, 20, "no pair in any engine, no entry in the kernel")
    verified, ways = load.verified + again.verified, ("bytes_to_peers", "bytes_to_clients")
    # A pair that no engine has any more is counted when its last bytes are acknowledged.
    wait_for(lambda: all(server.counters()[way] >= verified for way in ways), 20,
             f"{verified} bytes counted each way")
    total = server.counters()
    made = load.made + again.made
    within(total["allocations_made"], made, made + load.maybe + again.maybe, "allocations_made")
    equal(total["binds"], load.bound + again.bound, "binds")
    # Connections over TLS, and what wire refuses, are other engines'.
    had = engines.totals(server)[engine]
    check(had * 4 >= total["binds"], f"{engine} had {had} of {total['binds']} pairs")
    before.compare(mixed.Held(server), PIPES, GROWTH_KIB)
    print(f"# {engine}: {load.steps + again.steps} steps, {again.made} allocations, "
          f"{again.bound} pairs, {had} of {engine}, {again.reloads} reloads, seed {SEED}")
    lab.stop_server()


for _name in NAMES:
    tap.add(f"{_name}: {SHARE:.0f} s of everything at once leave nothing behind",
            lambda e=_name: soak(e), SHARE + 120)
tap.main()
