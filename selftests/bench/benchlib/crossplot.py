# SPDX-License-Identifier: BSD-2-Clause
"""The plot of crossover.py: a field of ratios over RTT and loss for each place of the loss."""

from . import plots

CELL_W, CELL_H = 50, 26
LEFT, TOP = 64, 62
PLACES = {"client": "loss on the client leg", "peer": "loss on the peer leg",
          "both": "loss on both legs"}


def colour(ratio):
    """Blue where end to end wins, orange where split TCP does, grey within 5 %."""
    if ratio > 1.05:
        return "#e16f24", min(1.0, 0.25 + (ratio - 1.05) / 3)
    if ratio < 0.95:
        return "#0969da", min(1.0, 0.25 + (0.95 - ratio) * 1.5)
    return "#8c959f", 0.25


class Field:
    """One panel in a shared drawing: a row of cells for each (label, {rtt: ratio})."""

    def __init__(self, drawing, x, y, rows):
        self.drawing, self.x, self.y, self.rows = drawing, x, y, rows
        self.rtts = sorted({rtt for _, values in rows for rtt in values})

    def draw(self, title):
        self.drawing.text(self.x + LEFT, self.y + 16, title)
        for row, (label, values) in enumerate(self.rows):
            y = self.y + 26 + CELL_H * row
            self.drawing.text(self.x + LEFT - 6, y + 17, label, "quiet", "end")
            for column, rtt in enumerate(self.rtts):
                if rtt in values:
                    self.cell(self.x + LEFT + CELL_W * column, y, f"{label}, RTT {rtt:g} ms",
                              values[rtt])
        bottom = self.y + 26 + CELL_H * len(self.rows)
        for column, rtt in enumerate(self.rtts):
            self.drawing.text(self.x + LEFT + CELL_W * (column + 0.5), bottom + 15,
                              f"{rtt:g} ms", "quiet", "middle")

    def cell(self, x, y, hint, ratio):
        fill, opacity = colour(ratio)
        self.drawing.bar(x + 1, y + 1, CELL_W - 2, CELL_H - 2, fill, f"{hint}: {ratio:.2f}",
                         opacity)
        self.drawing.text(x + CELL_W / 2, y + 17, f"{ratio:.2f}", "value", "middle")


def loss_rows(values):
    """Rows of a Field from {(rtt, loss): ratio}, the highest loss on top."""
    losses = sorted({loss for _, loss in values}, reverse=True)
    return [(f"{loss:g} %", {rtt: ratio for (rtt, at), ratio in values.items() if at == loss})
            for loss in losses]


def panel_title(where, share):
    split = "RTT in equal halves" if share == 0.5 else "all RTT on the client leg"
    return f"{PLACES[where]}, {split}"


def document(panels, starts, rate_mbit):
    """SVG of [(where, share, {(rtt, loss): ratio})] and of the starts {label: {rtt: ratio}}."""
    fields = [(panel_title(where, share), loss_rows(values))
              for where, share, values in panels if values]
    if starts:
        fields.append(("the first second, without loss", list(starts.items())))
    lines = (len(fields) + 1) // 2
    height = 26 + CELL_H * max((len(rows) for _, rows in fields), default=0) + 30
    drawing = plots.Drawing(
        TOP + lines * height + 22, "Split TCP against end to end: throughput ratio splice / end to end",
        f"one connection, {rate_mbit} Mbit/s links, RTT of both legs together, loss each way; "
        "orange: split wins, blue: end to end wins")
    for number, (title, rows) in enumerate(fields):
        Field(drawing, 4 + (number % 2) * 372, TOP + (number // 2) * height, rows).draw(title)
    return plots.document([drawing])
