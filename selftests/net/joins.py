#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Joins by the thousand with data at every moment around them (joins.c), on every engine.

No byte may be wrong and no pair may get stuck, whoever speaks first, however it ends, on a clean
path and on a bad one.  CULVERT_LONG=1: 10,000 joins an engine.
"""

import json
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import boxes, engines, tap  # noqa: E402
from culvertlab.engines import LONG  # noqa: E402
from culvertlab.lab import Lab  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab(boxed=True)
cases = []
SEED = int(os.environ.get("SEED", "1"))


def case(name, timeout=60):
    def register(function):
        cases.append((name, function, timeout * (20 if LONG else 1)))
        return function
    return register


def joins(engine, count, version=4, in_flight=16, seed=SEED, timeout_ms=20000):
    """Run that many; every one whole.  Returns how many the engine had itself."""
    server = lab.server(engines.config(lab, engine))
    before, errors = engines.totals(server), server.log_count(r"level=error")
    host, port = server.address(version)
    target = f"[{host}]:{port}" if version == 6 else f"{host}:{port}"
    argv = [boxes.tool("joins"), "--client-space", lab.topo.client.path,
            "--peer-space", lab.topo.peer.path, "--server", target,
            "--peer", lab.topo.peer.addr(version), "--user", "alice", "--password", "wonderland",
            "--joins", count, "--in-flight", in_flight, "--seed", seed, "--timeout-ms", timeout_ms]
    process = lab.spawn(lab.topo.relay, argv, "joins")
    status = process.wait(1200 if LONG else 55)
    check(process.out(), f"joins said nothing, status {status}: {process.tail()}")
    result = json.loads(process.out())
    tap.note(f"{engine}, IPv{version}: {result}")
    bad = {key: result[key] for key in ("wrong", "stuck", "failed")}
    equal(bad, dict.fromkeys(bad, 0), f"faults, said {process.tail(3)}")
    equal(result["whole"], count, "whole joins")
    wait_for(lambda: server.counters()["relaying"] == 0, 15, "no pair is left")
    wait_for(lambda: server.counters()["allocations"] == 0, 15, "no allocation is left")
    equal(server.log_count(r"level=error"), errors, "errors in the log")
    after = engines.totals(server)
    had = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    tap.note(f"pairs by engine: {had}")
    return had.get(engine, 0)


def mostly(engine, had, count):
    """A stream engine has every pair; an engine that chooses has the most of them."""
    least = count if engine not in engines.ORDER else count // 2
    check(had >= least, f"{engine} had {had} of {count} pairs")


@case("joins on a clean path, IPv4")
def _(engine):
    count = 10000 if LONG else 1000
    mostly(engine, joins(engine, count), count)


@case("joins on a clean path, IPv6")
def _(engine):
    count = 10000 if LONG else 400
    mostly(engine, joins(engine, count, 6), count)


@case("joins one at a time, and many at once")
def _(engine):
    count = 2000 if LONG else 150
    mostly(engine, joins(engine, count, in_flight=1), count)
    mostly(engine, joins(engine, 2 * count, in_flight=100), 2 * count)


@case("joins through loss, disorder and twins on both legs")
def _(engine):
    count = 5000 if LONG else 300
    for box in (lab.near, lab.far):
        box.set("both", loss=1, reorder=2, dup=2, gap=0.5)
    mostly(engine, joins(engine, count, in_flight=64, timeout_ms=50000), count)


@case("joins with 3 ms each way, so that much is under way at each join")
def _(engine):
    count = 5000 if LONG else 300
    for box in (lab.near, lab.far):
        box.set("both", delay=3, jitter=1)
    mostly(engine, joins(engine, count, in_flight=64), count)


@case("joins without segmentation by the hardware")
def _(engine):
    count = 5000 if LONG else 300
    boxes.offloads(lab.topo, tx=0, tso=0, gso=0, gro=0)
    try:
        mostly(engine, joins(engine, count), count)
    finally:
        boxes.offloads(lab.topo, tx=1, tso=1, gso=1, gro=0)


engines.add_all(lab, cases)
tap.main()
