#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Where split TCP begins to beat end-to-end TCP: loss against RTT, for the policy `auto`.

Usage: crossover.py [--quick] [--runs N] [--out DIR] [--against wire|direct]

A Debian 6.12 kernel runs in QEMU under software emulation.  In it netem gives each leg between
client, relay and peer a rate of 20 Mbit/s, a delay and a loss, the same both ways.  One
connection sends up: once over `splice`, where each leg recovers its own losses, and once end to
end, over `wire` or routed past the relay (`direct`), which the network cannot tell apart.  The
rate limit, and not the emulated processor, bounds both.  Written: crossover.json, every point;
crossover.svg, the ratio splice / end to end.  The exit status is 77 where QEMU or the kernel
package is missing.
"""

import argparse
import json
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from benchlib import crossplot  # noqa: E402
from culvertlab import engines, guestnet, qemu  # noqa: E402
from culvertlab.server import BUILD  # noqa: E402
from culvertlab.tap import Fail, Skip, equal  # noqa: E402

SERIES = "6.12"
RATE_MBIT = 20
LOSSES = (0, 0.01, 0.1, 0.5, 1, 2)  # per cent
RTTS = (0, 1, 5, 20, 50, 100)  # ms, both legs together
QUICK_LOSSES, QUICK_RTTS = (0, 0.1, 1), (0, 5, 50)
# Which legs lose packets, and the client leg's share of the RTT.
PANELS = (("client", 0.5), ("peer", 0.5), ("both", 0.5), ("client", 1.0), ("peer", 1.0))
WARMUP_MS = 1000
USER = {"splice": {"user": "split"}}  # who is pinned to it


def duration_ms(rtt):
    """Long paths need longer to show what they can do."""
    return 3000 if rtt <= 20 else 5000


class Point:
    """Conditions of both legs."""

    def __init__(self, where, share, rtt, loss):
        self.where = where if loss else "none"
        self.share = share if rtt else 0.5
        self.rtt, self.loss = rtt, loss

    def key(self):
        return self.where, self.share, self.rtt, self.loss

    def legs(self):
        """{leg: (rtt ms, loss %)}"""
        parts = {"client": self.share, "peer": 1 - self.share}
        return {leg: (round(self.rtt * part, 3), self.loss if self.where in (leg, "both") else 0)
                for leg, part in parts.items()}

    def apply(self, net):
        for leg, (rtt, loss) in self.legs().items():
            net.impair(leg, rtt, loss, RATE_MBIT)


def measure(net, point, engine, start):
    """Mbit/s that reach the peer, in the long run or in the first second."""
    point.apply(net)
    times = (0, 1000) if start else (WARMUP_MS, duration_ms(point.rtt))
    carried = 0 if engine == "direct" else net.engines()[engine]["pairs_total"]
    figures = net.load("up", "--warmup", times[0], "--duration", times[1],
                       relay=engine != "direct", **USER.get(engine, {}))
    if engine != "direct":
        equal(net.engines()[engine]["pairs_total"], carried + 1, f"pairs that {engine} carried")
    return figures["bytes"] * 8 / figures["seconds"] / 1e6


class Sweep:
    """All points; a point that several panels share is measured once."""

    def __init__(self, quick, runs):
        self.losses, self.rtts = (QUICK_LOSSES, QUICK_RTTS) if quick else (LOSSES, RTTS)
        self.panels = PANELS[:3] if quick else PANELS
        self.runs = runs
        self.against = "direct"
        self.values = {}  # key -> {"splice": [Mbit/s], "end_to_end": [Mbit/s]}
        self.starts = {}  # the same of first seconds

    def points(self):
        seen = {}
        for where, share in self.panels:
            for rtt in self.rtts:
                for loss in self.losses:
                    point = Point(where, share, rtt, loss)
                    seen.setdefault(point.key(), point)
        return list(seen.values())

    def run(self, net, save):
        points = self.points()
        clean = [point for point in points if not point.loss]
        todo = [(point, True) for point in clean] + [(point, False) for point in points]
        for turn in range(self.runs):
            for number, (point, start) in enumerate(todo, 1):
                self.one(net, point, start)
                self.tell(f"{turn + 1}.{number}/{len(todo)}", point, start)
                save()

    def one(self, net, point, start):
        values = (self.starts if start else self.values).setdefault(
            point.key(), {"splice": [], "end_to_end": []})
        for name, engine in (("splice", "splice"), ("end_to_end", self.against)):
            values[name].append(measure(net, point, engine, start))

    def tell(self, where, point, start):
        values = (self.starts if start else self.values)[point.key()]
        print(f"{where} {'first second, ' if start else ''}"
              f"loss {point.loss} % on {point.where}, "
              f"RTT {point.rtt} ms ({point.share:.0%} on the client leg): "
              f"splice {values['splice'][-1]:.1f}, end to end {values['end_to_end'][-1]:.1f} "
              f"Mbit/s", flush=True)

    @staticmethod
    def rows(measured):
        """For crossover.json."""
        rows = []
        for (where, share, rtt, loss), values in measured.items():
            legs = Point(where, share, rtt, loss).legs()
            if ratio(values) is None:
                continue
            rows.append({"loss_on": where, "loss_percent": loss, "rtt_ms": rtt,
                         "client_rtt_ms": legs["client"][0], "peer_rtt_ms": legs["peer"][0],
                         "splice_mbit": round(statistics.median(values["splice"]), 2),
                         "end_to_end_mbit": round(statistics.median(values["end_to_end"]), 2),
                         "ratio": round(ratio(values), 3), "runs": len(values["end_to_end"])})
        return rows

    def panel(self, where, share):
        """{(rtt, loss): ratio} of one panel."""
        found = {(rtt, loss): ratio(self.values.get(Point(where, share, rtt, loss).key()))
                 for rtt in self.rtts for loss in self.losses}
        return {key: value for key, value in found.items() if value is not None}

    def start_rows(self):
        """{label: {rtt: ratio}} of the first seconds."""
        labels = {0.5: "halves", 1.0: "client"}
        found = {}
        for share in dict.fromkeys(share for _, share in self.panels):
            for rtt in self.rtts:
                value = ratio(self.starts.get(Point("none", share, rtt, 0).key()))
                if value is not None:
                    found.setdefault(labels[share], {})[rtt] = value
        return found


def ratio(values):
    """Splice over end to end, medians; None before both are measured."""
    if not values or not values["splice"] or not values["end_to_end"]:
        return None
    return statistics.median(values["splice"]) / max(statistics.median(values["end_to_end"]), 0.01)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a coarse grid, about 3 minutes")
    parser.add_argument("--runs", type=int, default=1, help="repetitions of the whole grid")
    parser.add_argument("--out", default=os.path.join(BUILD, "bench"))
    parser.add_argument("--against", choices=("wire", "direct"),
                        help="what goes end to end; wire, unless this culvertd lacks it")
    return parser.parse_args()


def boot():
    kernel = qemu.kernel(SERIES)
    image = qemu.Image(kernel, guestnet.MODULES)
    guestnet.fill(image)
    return kernel, qemu.Guest(image)


def sweep_in_guest(options):
    sweep = Sweep(options.quick, options.runs)
    os.makedirs(options.out, exist_ok=True)
    kernel, guest = boot()
    started = time.monotonic()
    with guest:
        net = guestnet.GuestNet(guest)
        net.no_segmentation()
        net.start_peer()
        net.start_culvertd(engines.order("wire"), engines.SETTINGS["wire"],
                           users={"split": {"engine": "splice"}})
        # This waits until the kernel's engines are loaded, too.
        sweep.against = end_to_end(net, options.against)

        def save():
            write(options, sweep, kernel, time.monotonic() - started)
        sweep.run(net, save)
        net.stop("culvertd")
    return sweep


def end_to_end(net, wanted):
    """The network cannot tell wire from a router: where there is no wire, routing stands in."""
    missing = net.engine_missing("wire")
    if wanted == "wire" and missing:
        raise Fail(f"wire: {missing}")
    return wanted or ("direct" if missing else "wire")


def write(options, sweep, kernel, seconds):
    about = {"kernel": kernel.release, "rate_mbit": RATE_MBIT, "end_to_end": sweep.against,
             "seconds": round(seconds), "points": sweep.rows(sweep.values),
             "first_second": sweep.rows(sweep.starts)}
    with open(os.path.join(options.out, "crossover.json"), "w", encoding="utf-8") as file:
        json.dump(about, file, indent=1)
        file.write("\n")
    with open(os.path.join(options.out, "crossover.svg"), "w", encoding="utf-8") as file:
        file.write(crossplot.document([(where, share, sweep.panel(where, share))
                                       for where, share in sweep.panels],
                                      sweep.start_rows(), RATE_MBIT))


def main():
    options = arguments()
    try:
        sweep_in_guest(options)
    except Skip as why:
        print(f"crossover: {why}")
        return 77
    except Fail as error:
        print(f"crossover: {error}", file=sys.stderr)
        return 1
    print(f"written: {options.out}/crossover.json, {options.out}/crossover.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
