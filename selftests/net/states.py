#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A fuzzer of the protocol's states: sessions with right credentials whose messages are damaged.

They go to a daemon built with AddressSanitizer and UBSan, over UDP, TCP and TLS, beside clients
that behave: those must not notice, and nothing may be left in the end. STATES_SECONDS is how long;
the seed is printed and STATES_SEED repeats it.
"""

import os
import random
import sys

os.environ["BUILD"] = os.path.join(os.environ.get("BUILD", "build"), "asan")
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import engines, mixed, tap  # noqa: E402
from culvertlab.data import swap  # noqa: E402
from culvertlab.lab import Lab  # noqa: E402
from culvertlab.server import binary  # noqa: E402

lab = Lab()
SEED = int(os.environ.get("STATES_SEED", random.randrange(1 << 30)))
SECONDS = float(os.environ.get("STATES_SECONDS", "600" if engines.LONG else "15"))
RATE = 2000  # as fast as it answers
GROWTH_KIB = 512 << 10  # the sanitizer keeps what is freed; leaks it tells of at the end


@tap.test(f"{SECONDS:.0f} s of damaged sessions: it lives, behaves to others and keeps nothing",
          SECONDS + 120)
def _():
    if not os.path.exists(binary("culvertd")):
        raise tap.Skip("no culvertd with sanitizers: make check-build")
    sections, port = mixed.listeners(lab)
    server = lab.server({"engine": {"order": "splice, copy"}, **sections}, fresh=True)
    load = mixed.Load(lab, server, port, SEED)
    rude = [(load.mutated, 60), (load.garbage, 5)]
    polite = [(load.stream_client, 2), (load.pair, 4), (load.transfer, 10), (load.end_pair, 3),
              (load.end_client, 1), (load.datagram_client, 1), (load.datagram_talk, 4)]
    load.actions = polite
    load.run(2, 50)
    load.finish()
    before = mixed.Held(server)
    load.actions = rude + polite
    load.run(SECONDS, RATE)
    load.finish()
    data, peer, _ = lab.pair()
    swap(data, peer, 100000)
    lab.drop_connections()
    load.finish()
    before.compare(mixed.Held(server), GROWTH_KIB)
    print(f"# {load.steps} steps, {load.made} allocations, seed {SEED}")
    lab.stop_server()


tap.main()
