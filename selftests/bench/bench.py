#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""bench.py [--quick]: culvert beside HAProxy, nginx, coturn and a plain route.

Environment: BENCH_OUT (default build/bench), BENCH_CASES and BENCH_RELAYS (names, comma
separated), BENCH_RUNS (repetitions), BENCH_CONGESTION (control of TCP's congestion at all ends,
default cubic), BENCH_IN_FLIGHT (set-ups at once, default 32).  The relays take turns within every
repetition; figures are medians.  Needs root: three network namespaces are built and removed again.
"""

import argparse
import json
import os
import platform
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]

from benchlib import cases, figures, plots, relays  # noqa: E402
from benchlib.place import BUILD, CONGESTION, IN_FLIGHT, Broken, Wrong, place, tool  # noqa: E402


def names_wanted(variable, known):
    """The names an environment variable lists, all without it; stops on an unknown one."""
    text = os.environ.get(variable, "").replace(",", " ").split()
    for name in text:
        if name not in known:
            sys.exit(f"{variable}: '{name}' is not known; there are: {', '.join(known)}")
    return text or known


def repetitions(case, plan):
    if os.environ.get("BENCH_RUNS"):
        return max(1, int(os.environ["BENCH_RUNS"]))
    return getattr(plan, case.runs)


def say(text):
    print(text, flush=True)


def measure_once(where, case, relay, plan, results):
    """One repetition, tried twice; False when this relay is out of this case."""
    for last in (False, True):
        try:
            measured = case.measure(where, relay, plan)
            break
        except Broken as error:
            say(f"  {case.name:12} {relay.name:16} FAILED: {error}")
            if last or isinstance(error, Wrong):
                results.skip(case.name, relay.name, str(error))
                return False
            results.failures.append((case.name, relay.name, str(error)))
    results.add(case.name, relay.name, measured)
    text = "  ".join(f"{metric} {figures.short(value)} {unit}"
                     for metric, (unit, value) in measured.items())
    say(f"  {case.name:12} {relay.name:16} {text}")
    return True


def measure_case(where, case, contestants, plan, results):
    """All repetitions of a case, the relays taking turns and a new one beginning each time."""
    staying = []
    for relay in contestants:
        reason = case.applies(relay)
        if reason:
            results.skip(case.name, relay.name, reason)
        else:
            staying.append(relay)
    runs = 1 if case.name == "integrity" else repetitions(case, plan)
    for run in range(runs):
        if run and plan.late():
            break
        turn = run % len(staying) if staying else 0
        for relay in staying[turn:] + staying[:turn]:
            if relay in staying and not measure_once(where, case, relay, plan, results):
                staying.remove(relay)
    return staying


def contestants_of(results):
    """The relays asked for that can run here; the others are noted with their reason."""
    everyone = relays.all_relays()
    wanted = names_wanted("BENCH_RELAYS", [relay.name for relay in everyone])
    present = []
    for relay in everyone:
        if relay.name not in wanted:
            continue
        reason = relay.missing()
        if reason:
            results.skip("all", relay.name, reason)
            say(f"  {relay.name}: {reason}")
        else:
            results.versions[relay.name] = relay.version()
            present.append(relay)
    return present


def invited(case, contestants):
    """Those that this case is for: without a word on the others, unlike what cannot take part."""
    return [relay for relay in contestants if relay.only is None or case.name in relay.only]


def measure_all(plan, results):
    everything = cases.all_cases(plan.quick)
    wanted = names_wanted("BENCH_CASES", [case.name for case in everything])
    contestants = contestants_of(results)
    with place() as where:
        # A relay that garbles bytes is not ranked, whatever the cases asked for.
        ranked = invited(everything[0], contestants)
        intact = measure_case(where, everything[0], ranked, plan, results)
        contestants = [relay for relay in contestants if relay in intact or relay not in ranked]
        for case in everything[1:]:
            if case.name in wanted:
                measure_case(where, case, invited(case, contestants), plan, results)
                if case.name == "idle":
                    results.notes["idle"] = case.counted()


def environment(plan, seconds):
    return {"kernel": platform.release(), "machine": platform.machine(),
            "cores": os.cpu_count(), "quick": plan.quick, "congestion": CONGESTION,
            "in_flight": IN_FLIGHT, "date": time.strftime("%Y-%m-%d"), "minutes": round(seconds / 60, 1)}


def write_all(out, results):
    os.makedirs(out, exist_ok=True)
    for name, text in (("bench.json", json.dumps(results.rows(), indent=1) + "\n"),
                       ("bench-about.json", json.dumps(results.about(), indent=1) + "\n"),
                       ("table.txt", figures.table_text(results)),
                       ("table.md", figures.table_markdown(results)),
                       *plots.all_plots(results)):
        with open(os.path.join(out, name), "w", encoding="utf-8") as file:
            file.write(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="short and few runs of everything")
    plan = cases.Plan(parser.parse_args().quick)
    if os.geteuid():
        sys.exit("bench: network namespaces need root; run: sudo make bench")
    for name in ("load", "peer"):
        if not tool(name):
            sys.exit(f"bench: {BUILD}/bench-tools/{name} is not built; run: make bench-tools")
    load_average = os.getloadavg()[0]
    if load_average > 0.5 * os.cpu_count():
        say(f"bench: the machine is busy (load average {load_average:.1f}): trust ratios only")
    results = figures.Results()
    begun = time.monotonic()
    try:
        measure_all(plan, results)
    except KeyboardInterrupt:
        sys.exit("\nbench: stopped; namespaces and processes are removed")
    except RuntimeError as error:
        sys.exit(f"bench: {error}")
    results.environment = environment(plan, time.monotonic() - begun)
    results.environment["load_average_before"] = round(load_average, 2)
    out = os.environ.get("BENCH_OUT") or os.path.join(BUILD, "bench")
    write_all(out, results)
    say("\n" + figures.table_text(results))
    say(f"written: {out}/ bench.json table.md table.txt *.svg")


if __name__ == "__main__":
    main()
