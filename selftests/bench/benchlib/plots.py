# SPDX-License-Identifier: BSD-2-Clause
"""SVG drawn by hand: no library, readable on light and dark pages.

A panel is a Drawing of fixed width; single files hold one panel, bench.svg holds all.
"""

import math
from xml.sax.saxutils import escape

from .cases import DISTRIBUTION
from .figures import BULK, BULK_TITLES, CPU_S_PER_GB, FLOOR, FLOOR_NOTE, HELD_MB, IDLE_KIB, short

WIDTH = 760
COLOURS = {"direct": "#8c959f", "culvert-wire": "#6639ba", "culvert-splice": "#0969da", "culvert-uring": "#1b9e9e",
           "culvert-copy": "#79b8ff", "culvert-sockmap": "#b8a1e8", "haproxy-splice": "#e16f24", "nginx-stream": "#2da44e",
           "coturn": "#bf3989", "kernel-floor": "#57606a"}
STYLE = """
  .card { fill: #ffffff; stroke: #d0d7de }
  text { font-family: -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif;
         fill: #1f2328; font-size: 12px }
  .title { font-size: 15px; font-weight: 600 }
  .quiet { fill: #59636e; font-size: 11px }
  .value { font-size: 10px; paint-order: stroke; stroke: #ffffff; stroke-width: 3px;
           stroke-linejoin: round }
  .grid { stroke: #d8dee4; stroke-width: 1 }
  .goal { stroke: #cf222e; stroke-width: 1.2; stroke-dasharray: 5 3 }
  .goaltext { fill: #cf222e; font-size: 10px }
  .whisker { stroke: #59636e; stroke-width: 1.4 }
  .limit { stroke: #1f2328; stroke-width: 1.2 }
  .cut { stroke: #ffffff; stroke-width: 3 }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; stroke: #30363d }
    text { fill: #e6edf3 }
    .quiet { fill: #9198a1 }
    .grid { stroke: #262c36 }
    .goal { stroke: #f85149 } .goaltext { fill: #f85149 }
    .whisker { stroke: #9198a1 }
    .value { stroke: #0d1117 }
    .limit { stroke: #e6edf3 }
    .cut { stroke: #0d1117 }
  }
"""


class Drawing:
    """A panel under construction; y grows downwards."""

    def __init__(self, height, title, subtitle):
        self.height, self.title, self.parts = height, title, []
        self.rect(0.5, 0.5, WIDTH - 1, height - 1, "card", radius=8)
        self.text(20, 28, title, "title")
        self.text(20, 46, subtitle, "quiet")

    def text(self, x, y, text, kind="", anchor="start"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" '
                          f'text-anchor="{anchor}">{escape(text)}</text>')

    def line(self, x1, y1, x2, y2, kind):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
                          f'class="{kind}"/>')

    def rect(self, x, y, width, height, kind, radius=0):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                          f'height="{height:.1f}" rx="{radius}" class="{kind}"/>')

    def bar(self, x, y, width, height, colour, hint, opacity=1.0):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" '
                          f'height="{max(height, 0.5):.1f}" rx="1.5" fill="{colour}" '
                          f'fill-opacity="{opacity}"><title>{escape(hint)}</title></rect>')

    def fragment(self, y):
        return f'<g transform="translate(0 {y})">' + "\n".join(self.parts) + "</g>"


def document(drawings):
    gap = 14
    total = sum(drawing.height + gap for drawing in drawings) - gap
    y, body = 0, []
    for drawing in drawings:
        body.append(drawing.fragment(y))
        y += drawing.height + gap
    label = "; ".join(drawing.title for drawing in drawings)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{total}" '
            f'viewBox="0 0 {WIDTH} {total}" role="img" aria-label="{escape(label)}">\n'
            f"<!-- SPDX-License-Identifier: BSD-2-Clause -->\n<style>{STYLE}</style>\n"
            + "\n".join(body) + "\n</svg>\n")


def nice_step(top):
    """A step that divides 0..top into three to six parts."""
    step = 10.0 ** -3
    while True:
        for factor in (1, 2, 5):
            if top / (step * factor) <= 6:
                return step * factor
        step *= 10


def ceiling(values, relays, cut):
    """The top of an axis. With `cut`, one relay far above all others does not flatten them."""
    tops = sorted(max((value for (_, relay), value in values.items() if relay == name), default=0)
                  for name in relays)
    if cut and len(tops) > 1 and tops[-1] > 2 * tops[-2]:
        return tops[-2] * 1.5
    return tops[-1] * 1.08


def legend(drawing, relays, y):
    x = 20
    for relay in relays:
        drawing.bar(x, y - 9, 11, 11, COLOURS.get(relay, "#57606a"), relay)
        drawing.text(x + 16, y, relay, "quiet")
        x += 26 + 6.3 * len(relay)


class Axis:
    """The vertical axis of a bar chart: values to pixels, grid and marks."""

    left, right, bottom, height = 52, WIDTH - 20, 270, 190

    def __init__(self, drawing, top):
        self.drawing, self.top = drawing, top
        step, mark = nice_step(top), 0.0
        while mark <= top:
            self.line(mark, "grid")
            drawing.text(self.left - 6, self.y(mark) + 4, f"{mark:g}", "quiet", "end")
            mark = round(mark + step, 6)

    def y(self, value):
        return self.bottom - self.height * min(value, self.top) / self.top

    def line(self, value, kind):
        self.drawing.line(self.left, self.y(value), self.right, self.y(value), kind)

    def bar(self, x, width, value, colour, hint):
        y = self.y(value)
        self.drawing.bar(x + 1, y, width - 2, self.bottom - y, colour, hint)
        if value > self.top:
            self.drawing.line(x, y + 14, x + width, y + 9, "cut")
        self.drawing.text(x + width / 2, y - 4, short(value), "value", "middle")


def bars(title, subtitle, groups, values, relays, goal=None, limit=None, cut=False):
    """Grouped vertical bars: values[group, relay]; groups: {group: its title}."""
    groups = {group: text for group, text in groups.items()
              if any(key[0] == group for key in values)}
    shown = [relay for relay in relays if any((group, relay) in values for group in groups)]
    drawing = Drawing(330, title, subtitle)
    axis = Axis(drawing, max(ceiling(values, shown, cut), 1.1 * (goal or 0), 1.1 * (limit or 0)))
    for line, kind in ((goal, "goal"), (limit, "limit")):
        if line:
            axis.line(line, kind)
    span = (axis.right - axis.left - (52 if goal else 0)) / len(groups)
    thick = min(32.0, span * 0.88 / len(shown))
    for number, (group, text) in enumerate(groups.items()):
        middle = axis.left + span * (number + 0.5)
        drawing.text(middle, axis.bottom + 18, text, "", "middle")
        for place, relay in enumerate(shown):
            value = values.get((group, relay))
            if value is not None:
                axis.bar(middle + thick * (place - len(shown) / 2), thick, value,
                         COLOURS.get(relay, "#57606a"), f"{relay}, {text}: {short(value)}")
    if goal:
        drawing.text(axis.right, axis.y(goal) - 4, f"goal {goal:g}", "goaltext", "end")
    legend(drawing, shown, 314)
    return drawing


class Row:
    """One relay in a chart of horizontal bars: parts [(value, opacity, name)], a whisker."""

    def __init__(self, relay, parts, note, whisker=None):
        self.relay, self.parts, self.note, self.whisker = relay, parts, note, whisker

    def total(self):
        return sum(value for value, _, _ in self.parts)

    def draw(self, drawing, y, left, room, top, unit):
        x = left
        drawing.text(left - 8, y + 13, self.relay, "", "end")
        for value, opacity, name in self.parts:
            width = min(room * value / top, left + room - x)
            drawing.bar(x, y, width, 18, COLOURS.get(self.relay, "#57606a"),
                        f"{self.relay}, {name}: {short(value)} {unit}", opacity)
            x += width
        if self.total() > top:
            drawing.line(x - 16, y + 19, x - 10, y - 1, "cut")
        if self.whisker is not None and self.whisker > self.total():
            end = left + room * min(self.whisker, top) / top
            drawing.line(x, y + 9, end, y + 9, "whisker")
            if self.whisker <= top:  # beyond the edge it stays open
                drawing.line(end, y + 4, end, y + 14, "whisker")
            x = end
        drawing.text(x + 8, y + 13, self.note, "value")


def rows(title, subtitle, entries, unit, goal=None, cut=False):
    """Horizontal bars, a Row each."""
    left, room = 130, WIDTH - 130 - 190
    drawing = Drawing(76 + 26 * len(entries), title, subtitle)
    totals = {("", entry.relay): entry.total() for entry in entries}
    top = ceiling(totals, [entry.relay for entry in entries], cut)
    whiskers = max((entry.whisker or 0 for entry in entries), default=0)
    top = max(top, min(whiskers * 1.02, 2.5 * top), (goal or 0) * 1.05)
    if goal:
        x = left + room * goal / top
        drawing.line(x, 56, x, drawing.height - 18, "goal")
        drawing.text(x, drawing.height - 7, f"goal {goal:g} {unit}", "goaltext", "middle")
    for number, entry in enumerate(entries):
        entry.draw(drawing, 60 + 26 * number, left, room, top, unit)
    return drawing


def throughput_plot(results):
    values = {(case, relay): results.ratio(case, relay, "throughput")
              for case in BULK for relay in results.relays() if relay != "direct"}
    values = {key: value for key, value in values.items() if value is not None}
    return values and bars("Bulk throughput, relative to no relay at all",
                           "1 = routed directly through the same namespaces; longer is better",
                           BULK_TITLES, values, results.relays(), limit=1.0)


def cpu_plot(results):
    values = {(case, relay): results.median(case, relay, "relay_cpu")
              for case in BULK for relay in results.relays()}
    values = {key: value for key, value in values.items() if value is not None}
    return values and bars("Processor time of the relay, seconds per GB",
                           "all processes and threads of the relay; shorter is better",
                           BULK_TITLES, values, results.relays(), CPU_S_PER_GB, cut=True)


def pingpong_plot(results):
    entries = []
    for relay in results.relays():
        p50, p99 = (results.median("pingpong", relay, metric) for metric in ("p50", "p99"))
        if p50 is not None:
            entries.append(Row(relay, [(p50, 1.0, "p50")],
                               f"{short(p50)}  (p99 {short(p99)})", p99))
    return entries and rows("Ping-pong of 64 bytes, microseconds",
                            "bar: median, whisker: 99th percentile; shorter is better",
                            entries, "us")


def latency_plot(results):
    """Each relay a line over the quantiles, from the fastest message to the slowest."""
    lines = {}
    for relay in results.relays():
        values = [results.median("pingpong", relay, name) for name in DISTRIBUTION]
        if None not in values:
            lines[relay] = values
    if not lines:
        return None
    drawing = Drawing(330, "Ping-pong of 64 bytes: the whole distribution, microseconds",
                      "quantiles of round trips, logarithmic scale; lower is better")
    low = min(min(values) for values in lines.values())
    high = max(max(values) for values in lines.values()) * 1.1
    left, right, bottom, height = 52, WIDTH - 30, 262, 186

    def y(value):
        return bottom - height * math.log(value / low) / math.log(high / low)

    for mark in (factor * 10 ** power for power in range(0, 7) for factor in (1, 2, 5)):
        if low <= mark <= high:
            drawing.line(left, y(mark), right, y(mark), "grid")
            drawing.text(left - 6, y(mark) + 4, f"{mark:,}", "quiet", "end")
    step = (right - left - 20) / (len(DISTRIBUTION) - 1)
    for place, name in enumerate(DISTRIBUTION):
        text = {"p999": "p99.9", "p100": "max"}.get(name, name)
        drawing.text(left + 10 + step * place, bottom + 16, text, "quiet", "middle")
    for relay, values in lines.items():
        points = " ".join(f"{left + 10 + step * place:.1f},{y(value):.1f}"
                          for place, value in enumerate(values))
        drawing.parts.append(f'<polyline points="{points}" fill="none" stroke-width="2" '
                             f'stroke="{COLOURS.get(relay, "#57606a")}"><title>{escape(relay)}'
                             f'</title></polyline>')
    legend(drawing, lines, 312)
    return drawing


def memory_plot(results):
    entries = []
    for relay in results.relays():
        user, kernel = (results.median("idle", relay, metric)
                        for metric in ("user_per_pair", "kernel_per_pair"))
        if user is not None:
            entries.append(Row(relay, [(kernel, 1.0, "kernel"), (user, 0.5, "user")],
                               f"{short(kernel + user)} = {short(kernel)} kernel "
                               f"+ {short(user)} user"))
    return entries and rows("Memory of the relay for one idle pair, KiB",
                            "4,000 pairs; dark: kernel, light: user; shorter is better",
                            entries, "KiB", IDLE_KIB, cut=True)


def setup_plot(results):
    entries = []
    for relay in results.relays():
        full = results.median("setup", relay, "turn_setup_rate")
        kept = results.median("setup-pairs", relay, "pair_setup_rate")
        if full is not None:
            note = f"{short(full)}" + (f"  (allocation kept: {short(kept)})" if kept else "")
            entries.append(Row(relay, [(full, 1.0, "set-ups")], note, kept))
    if not entries:
        return None
    drawing = rows("Clients that begin, per second",
                   "bar: Allocate, Connect, ConnectionBind, 1 KB each way; "
                   "whisker: the same with the allocation kept; longer is better",
                   entries, "1/s")
    if any(entry.relay == FLOOR for entry in entries):
        drawing.text(20, drawing.height - 7, FLOOR_NOTE, "quiet")
    return drawing


def slow_plot(results):
    entries = []
    for relay in results.relays():
        held = results.median("slow-reader", relay, "held")
        if held is not None and relay != "direct":
            entries.append(Row(relay, [(held, 1.0, "held")], short(held)))
    return entries and rows("A receiver that reads nothing: what the relay holds, MB",
                            "2.5 s after the start; shorter is better", entries, "MB", HELD_MB,
                            cut=True)


def all_plots(results):
    """[(file name, SVG)] for what was measured."""
    makers = (("throughput", throughput_plot), ("cpu", cpu_plot), ("pingpong", pingpong_plot),
              ("latency", latency_plot),
              ("setup", setup_plot), ("memory", memory_plot), ("slow-reader", slow_plot))
    drawn = [(name, maker(results)) for name, maker in makers]
    drawn = [(name, drawing) for name, drawing in drawn if drawing]
    files = [(f"{name}.svg", document([drawing])) for name, drawing in drawn]
    if drawn:
        files.append(("bench.svg", document([drawing for _, drawing in drawn])))
    return files
