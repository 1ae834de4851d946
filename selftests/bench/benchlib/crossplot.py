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
    """One panel drawn into a shared drawing at x, y."""

    def __init__(self, drawing, x, y, values):
        self.drawing, self.x, self.y, self.values = drawing, x, y, values
        self.rtts = sorted({rtt for rtt, _ in values})
        self.losses = sorted({loss for _, loss in values}, reverse=True)

    def draw(self, title):
        self.drawing.text(self.x + LEFT, self.y + 16, title)
        for row, loss in enumerate(self.losses):
            y = self.y + 26 + CELL_H * row
            self.drawing.text(self.x + LEFT - 6, y + 17, f"{loss:g} %", "quiet", "end")
            for column, rtt in enumerate(self.rtts):
                self.cell(self.x + LEFT + CELL_W * column, y, rtt, loss)
        bottom = self.y + 26 + CELL_H * len(self.losses)
        for column, rtt in enumerate(self.rtts):
            self.drawing.text(self.x + LEFT + CELL_W * (column + 0.5), bottom + 15,
                              f"{rtt:g} ms", "quiet", "middle")

    def cell(self, x, y, rtt, loss):
        ratio = self.values.get((rtt, loss))
        if ratio is None:
            return
        fill, opacity = colour(ratio)
        self.drawing.bar(x + 1, y + 1, CELL_W - 2, CELL_H - 2, fill,
                         f"loss {loss:g} %, RTT {rtt:g} ms: {ratio:.2f}", opacity)
        self.drawing.text(x + CELL_W / 2, y + 17, f"{ratio:.2f}", "value", "middle")


def panel_title(where, share):
    split = "RTT in equal halves" if share == 0.5 else "all RTT on the client leg"
    return f"{PLACES[where]}, {split}"


def document(panels, rate_mbit):
    """SVG of [(where, share, {(rtt, loss): ratio})]."""
    panels = [panel for panel in panels if panel[2]]
    rows = (len(panels) + 1) // 2
    tallest = max((len({loss for _, loss in values}) for _, _, values in panels), default=0)
    height = 26 + CELL_H * tallest + 30
    drawing = plots.Drawing(
        TOP + rows * height + 22, "Split TCP against end to end: throughput ratio splice / wire",
        f"one connection, {rate_mbit} Mbit/s links, RTT of both legs together, loss each way; "
        "orange: split wins, blue: end to end wins")
    for number, (where, share, values) in enumerate(panels):
        Field(drawing, 4 + (number % 2) * 372, TOP + (number // 2) * height,
              values).draw(panel_title(where, share))
    return plots.document([drawing])
