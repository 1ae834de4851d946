# SPDX-License-Identifier: BSD-2-Clause
"""Medians, ratios, goals, tables.

Ratios are medians over medians of one run: absolute figures belong to the machine, ratios to
the programs.
"""

import statistics

PRODUCT = "culvert-splice"  # the stream engine that goes first: what its goals are held to
WIRE = "culvert-wire"
RIVAL = "haproxy-splice"
FLOOR = "kernel-floor"
FLOOR_NOTE = f"{FLOOR}: the system calls of a set-up without a relay's work"
BULK_TITLES = {"bulk-1": "1 up", "bulk-1-down": "1 down", "bulk-16": "16 up",
               "both": "16 both ways"}
BULK = tuple(BULK_TITLES)

# Goals: relative to the best peer of the same run where there is one.
BULK_RATIO = 0.95
CPU_S_PER_GB = 0.28
SETUP_RATIO = 3.0
FLOOR_RATIO = 1.25
IDLE_KIB = 10.0
HELD_MB = 12.0
# Goals of wire, most of them relative to no relay at all.
WIRE_BULK_RATIO = 0.95
WIRE_CPU_S_PER_GB = 0.03
WIRE_P50_RATIO = 1.15
WIRE_MESSAGES_RATIO = 0.95
WIRE_IDLE_KIB = 1.0
WIRE_PAIRS = 100000
WIRE_HELD_MB = 0.1  # what is under way between two reads of the counters
SYSCALLS_PER_GB = 1.0


def short(value):
    """Three significant digits without an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


class Results:
    """Every value measured, what could not be measured and why."""

    def __init__(self):
        self.values = {}   # (case, relay, metric) -> [value]
        self.units = {}    # the same -> unit
        self.skipped = {}  # (case, relay) -> reason
        self.failures = []  # (case, relay, reason) of repetitions that succeeded when tried again
        self.versions = {}
        self.notes = {}
        self.environment = {}

    def add(self, case, relay, measured):
        for metric, (unit, value) in measured.items():
            self.values.setdefault((case, relay, metric), []).append(value)
            self.units[case, relay, metric] = unit

    def skip(self, case, relay, reason):
        self.skipped[case, relay] = reason

    def median(self, case, relay, metric):
        values = self.values.get((case, relay, metric))
        return statistics.median(values) if values else None

    def ratio(self, case, relay, metric, base="direct"):
        """Median over the median of another relay, None when one is missing."""
        value, reference = self.median(case, relay, metric), self.median(case, base, metric)
        return value / reference if value is not None and reference else None

    def relays(self):
        """Those with a figure beyond integrity, in the order measured."""
        seen = dict.fromkeys(relay for case, relay, _ in self.values if case != "integrity")
        return list(seen)

    def cases(self):
        return list(dict.fromkeys(case for case, _, _ in self.values))

    def rows(self):
        """bench.json"""
        return [{"case": case, "relay": relay, "metric": metric,
                 "unit": self.units[case, relay, metric],
                 "median": rounded(statistics.median(values)), "min": rounded(min(values)),
                 "max": rounded(max(values)), "runs": len(values)}
                for (case, relay, metric), values in self.values.items()]

    def about(self):
        """bench-about.json: what the figures need to be understood."""
        return {"environment": self.environment, "versions": self.versions, "notes": self.notes,
                "not_measured": [{"case": case, "relay": relay, "reason": reason}
                                 for (case, relay), reason in self.skipped.items()],
                "failed_at_first": [{"case": case, "relay": relay, "reason": reason}
                                    for case, relay, reason in self.failures],
                "goals": [{"relay": relay, "goal": text, "met": met}
                          for relay, found in all_goals(self) for met, text in found]}

    def spread(self, metric):
        """(largest (max - min) / median of a metric, its case and relay); None with single runs."""
        spreads = [((max(values) - min(values)) / statistics.median(values), case, relay)
                   for (case, relay, name), values in self.values.items()
                   if name == metric and len(values) > 1 and statistics.median(values)]
        return max(spreads) if spreads else None


def rounded(value):
    """Enough digits for any figure here, and none of the noise behind them."""
    return float(f"{value:.6g}")


class Goals:
    """[(True, False or None when not measured, text)], grown check by check."""

    def __init__(self):
        self.found = []

    def check(self, text, value, good, limit):
        if value is None:
            self.found.append((None, f"{text}: not measured ({limit})"))
        else:
            self.found.append((good(value), f"{text}: {short(value)} ({limit})"))

    def least(self, text, value, least):
        self.check(text, value, lambda value: value >= least, f"at least {least:,g}")

    def most(self, text, value, most):
        self.check(text, value, lambda value: value <= most, f"at most {most:g}")


def wire_goals(results):
    """What one path instead of two has to be worth."""
    goal = Goals()
    for case in BULK:
        if case != "bulk-1-down":
            goal.least(f"{case}, x direct", results.ratio(case, WIRE, "throughput"),
                       WIRE_BULK_RATIO)
        goal.most(f"{case}, relay CPU s/GB", results.median(case, WIRE, "relay_cpu"),
                  WIRE_CPU_S_PER_GB)
    goal.most("system calls per GB", results.median("syscalls", WIRE, "syscalls"),
              SYSCALLS_PER_GB)
    goal.most("ping-pong p50, x direct", results.ratio("pingpong", WIRE, "p50"), WIRE_P50_RATIO)
    goal.least("messages on 64 connections, x direct",
               results.ratio("messages-64", WIRE, "rate"), WIRE_MESSAGES_RATIO)
    goal.most("idle pair, KiB", results.median("idle", WIRE, "memory_per_pair"), WIRE_IDLE_KIB)
    goal.least("pairs held and answering", results.median("many", WIRE, "answered"), WIRE_PAIRS)
    goal.least("set-up rate, x splice",
               results.ratio("setup", WIRE, "turn_setup_rate", PRODUCT), 1.0)
    goal.most("slow reader, MB held by the relay", results.median("slow-reader", WIRE, "held"),
              WIRE_HELD_MB)
    return goal.found


def goals(results):
    """The goals of the stream engines: those of PRODUCT."""
    goal = Goals()
    check, found = goal.check, goal.found

    for case in BULK:
        check(f"{case}, x {RIVAL}", results.ratio(case, PRODUCT, "throughput", RIVAL),
              lambda value: value >= BULK_RATIO, f"at least {BULK_RATIO}")
    for case in BULK:
        rival = results.median(case, RIVAL, "relay_cpu") or 0
        check(f"{case}, relay CPU s/GB", results.median(case, PRODUCT, "relay_cpu"),
              lambda value, rival=rival: value <= max(CPU_S_PER_GB, rival),
              f"at most {CPU_S_PER_GB} or {RIVAL}'s {short(rival)}")
    check("set-up rate, x coturn",
          results.ratio("setup", PRODUCT, "turn_setup_rate", "coturn"),
          lambda value: value >= SETUP_RATIO, f"at least {SETUP_RATIO:.0f}")
    check("set-ups per second of relay CPU, x coturn",
          results.ratio("setup", PRODUCT, "rate_per_core", "coturn"),
          lambda value: value >= SETUP_RATIO, f"at least {SETUP_RATIO:.0f}")
    goal.most(f"relay CPU per set-up, x {FLOOR}",
              results.ratio("setup", PRODUCT, "relay_cpu", FLOOR), FLOOR_RATIO)
    check("idle pair, KiB", results.median("idle", PRODUCT, "memory_per_pair"),
          lambda value: value <= IDLE_KIB, f"at most {IDLE_KIB:.0f}")
    check("slow reader, MB held by the relay", results.median("slow-reader", PRODUCT, "held"),
          lambda value: value <= HELD_MB, f"at most {HELD_MB:.0f}")
    return found


class Column:
    """A column of the tables: a metric, if asked with its ratio to direct."""

    def __init__(self, heading, case, metric, ratio=False):
        self.heading, self.case, self.metric, self.ratio = heading, case, metric, ratio

    def cell(self, results, relay):
        value = results.median(self.case, relay, self.metric)
        if value is None:
            return "-"
        if not self.ratio:
            return short(value)
        ratio = results.ratio(self.case, relay, self.metric)
        return f"{short(value)} ({ratio:.2f}x)" if ratio is not None else short(value)


def tables(results):
    """[(title, [columns])], without what this run did not measure."""
    groups = [
        ("Throughput, Gbit/s (x direct)",
         [Column(text, case, "throughput", True) for case, text in BULK_TITLES.items()]),
        ("Processor time of the relay, s/GB",
         [Column(text, case, "relay_cpu") for case, text in BULK_TITLES.items()]),
        ("Processor time of the whole machine with both ends, s/GB",
         [Column(text, case, "machine_cpu") for case, text in BULK_TITLES.items()] +
         [Column("relay's system calls per GB, 16 up", "syscalls", "syscalls")]),
        ("Messages of 64 bytes there and back (x direct)",
         [Column("p50 us", "pingpong", "p50", True), Column("p99 us", "pingpong", "p99"),
          Column("64 connections, 1/s", "messages-64", "rate", True)]),
        ("Set-ups: begin, 1 KB there and back, end",
         [Column("Allocate+Connect+Bind, 1/s", "setup", "turn_setup_rate"),
          Column("allocation kept, 1/s", "setup-pairs", "pair_setup_rate"),
          Column("plain connect, 1/s", "setup", "tcp_setup_rate", True),
          Column("relay CPU, ms each", "setup", "relay_cpu"),
          Column("per second of relay CPU", "setup", "rate_per_core")]),
        ("Memory of the relay",
         [Column("idle pair, KiB", "idle", "memory_per_pair"),
          Column("of it user", "idle", "user_per_pair"),
          Column("of it kernel", "idle", "kernel_per_pair"),
          Column("100,000 pairs, KiB each", "many", "memory_per_pair"),
          Column("descriptors then", "many", "descriptors"),
          Column("slow reader, MB held", "slow-reader", "held"),
          Column("MB left the sender", "slow-reader", "accepted")]),
    ]
    measured = {(case, metric) for case, _, metric in results.values}
    kept = []
    for title, columns in groups:
        columns = [column for column in columns if (column.case, column.metric) in measured]
        if columns:
            kept.append((title, columns))
    return kept


def grid(results, columns):
    """Rows of text for a group of columns; relays without any figure in it are left out."""
    rows = [["relay", *(column.heading for column in columns)]]
    for relay in results.relays():
        cells = [column.cell(results, relay) for column in columns]
        if any(cell != "-" for cell in cells):
            rows.append([relay, *cells])
    return rows


def aligned(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                       for i, (cell, width) in enumerate(zip(row, widths))).rstrip()
             for row in rows]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def remarks(results):
    """Lines below the tables: circumstances, spread, what is missing."""
    about = results.environment
    runs = sorted({len(values) for values in results.values.values()})
    lines = [f"Linux {about.get('kernel')} {about.get('machine')}, {about.get('cores')} cores; "
             "client, relay and peer in three namespaces; "
             f"TCP with {about.get('congestion')}; medians of "
             f"{'-'.join(map(str, runs))} interleaved runs"
             f"{' (quick: short windows)' if about.get('quick') else ''}; "
             f"{about.get('date')}."]
    lines += [f"{version}" for version in dict.fromkeys(results.versions.values()) if version]
    for metric, what in (("throughput", "throughput"), ("p50", "p50"),
                         ("turn_setup_rate", "set-up rate")):
        spread = results.spread(metric)
        if spread:
            lines.append(f"Largest spread of {what}: {spread[0]:.0%} of the median "
                         f"({spread[1]}, {spread[2]}).")
    if "idle" in results.notes:
        lines.append(f"Idle memory counts: {results.notes['idle']}.")
    if WIRE in results.relays():
        lines.append("wire: packets are forwarded in the time of whoever sends or receives them, which "
                     "only the machine's figure counts; a place for each possible pair (512 bytes) is "
                     "reserved at the start, beside the memory of an idle pair.")
    return lines


def not_measured(results):
    return [f"{case}, {relay}: {reason}" for (case, relay), reason in results.skipped.items()]


def all_goals(results):
    """[(relay, its goals)] of those that took part."""
    return [(relay, found(results)) for relay, found in ((WIRE, wire_goals), (PRODUCT, goals))
            if relay in results.relays()]


def goal_lines(results):
    word = {True: "pass", False: "FAIL", None: "  - "}
    lines = []
    for relay, found in all_goals(results):
        lines += [f"goals ({relay}):", *(f"  {word[met]}  {text}" for met, text in found)]
    return lines


def table_text(results):
    lines = []
    for title, columns in tables(results):
        rows = grid(results, columns)
        note = [FLOOR_NOTE] if any(row[0] == FLOOR for row in rows) else []
        lines += [title, *note, *aligned(rows), ""]
    lines += remarks(results)
    if results.skipped:
        lines += ["", "Not measured:", *(f"  {line}" for line in not_measured(results))]
    if results.failures:
        lines += ["", "Failed at first, measured again:",
                  *(f"  {case}, {relay}: {reason}" for case, relay, reason in results.failures)]
    lines += ["", *goal_lines(results)]
    return "\n".join(lines) + "\n"


def table_markdown(results):
    """For the README: one wide table of what people ask first, and the circumstances."""
    columns = [Column("1 up", "bulk-1", "throughput", True),
               Column("16 up", "bulk-16", "throughput", True),
               Column("16 both ways", "both", "throughput", True),
               Column("relay CPU s/GB", "bulk-16", "relay_cpu"),
               Column("machine CPU s/GB", "bulk-16", "machine_cpu"),
               Column("ping-pong p50 us", "pingpong", "p50"),
               Column("TURN set-ups/s", "setup", "turn_setup_rate"),
               Column("KiB per idle pair", "idle", "memory_per_pair"),
               Column("slow reader MB", "slow-reader", "held")]
    measured = {(case, metric) for case, _, metric in results.values}
    columns = [column for column in columns if (column.case, column.metric) in measured]
    rows = [row for row in grid(results, columns) if row[0] != FLOOR]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "| --- |" + " ---: |" * len(columns))
    return "\n".join([*lines, "", "Throughput in Gbit/s (x direct). " +
                      " ".join(remarks(results)[:1])]) + "\n"
