#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Draws user/man/house.svg: culvert's processes, rooms and the path of a byte.

Usage: tools/house.py >user/man/house.svg
"""

W, H = 960, 660
INK, PAPER, LINE = "#1c2733", "#ffffff", "#5b6b7b"
FILL = {"user": "#e8f0fb", "kernel": "#e9f7ec", "net": "#f6f1e4", "mute": "#f3f4f6"}


def text(x, y, s, size=14, anchor="middle", weight="normal", fill=INK):
    return ('<text x="%g" y="%g" font-size="%g" text-anchor="%s" font-weight="%s" '
            'fill="%s">%s</text>' % (x, y, size, anchor, weight, fill, s))


def box(x, y, w, h, fill, title, lines=()):
    out = ['<rect x="%g" y="%g" width="%g" height="%g" rx="7" fill="%s" stroke="%s"/>' % (
        x, y, w, h, FILL[fill], LINE),
           text(x + w / 2, y + 20, title, 14, weight="600")]
    for i, line in enumerate(lines):
        out.append(text(x + w / 2, y + 39 + 16 * i, line, 12))
    return out


def arrow(points, label="", at=None, wide=1.6, color=LINE):
    path = "M" + " L".join("%g %g" % p for p in points)
    out = ['<path d="%s" fill="none" stroke="%s" stroke-width="%g" '
           'marker-end="url(#tip)"/>' % (path, color, wide)]
    if label:
        out.append(text(at[0], at[1], label, 12, fill=color))
    return out


def main():
    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" '
        'height="%d" font-family="system-ui, sans-serif" role="img" '
        'aria-label="culvert: processes, rooms and the path of a byte">' % (W, H, W, H),
        "<!-- SPDX-License-Identifier: BSD-2-Clause; drawn by tools/house.py -->",
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="11" markerUnits="userSpaceOnUse" '
        'markerHeight="11" orient="auto"><path d="M0 0 L10 5 L0 10 z" fill="context-stroke"/>'
        "</marker></defs>",
        '<rect width="%d" height="%d" fill="%s"/>' % (W, H, PAPER),
        '<rect x="190" y="20" width="580" height="330" rx="10" fill="none" stroke="%s" '
        'stroke-dasharray="5 4"/>' % LINE,
        text(480, 40, "culvertd, user space: decides", 15, weight="600"),
        '<rect x="190" y="390" width="580" height="220" rx="10" fill="none" stroke="%s" '
        'stroke-dasharray="5 4"/>' % LINE,
        text(480, 632, "Linux kernel: carries the bytes", 15, weight="600"),
    ]
    out += box(20, 200, 130, 64, "net", "client", ["culvert, turnutils,", "any RFC 6062 client"])
    out += box(810, 200, 130, 64, "net", "peer", ["any TCP endpoint"])
    out += box(206, 60, 176, 62, "user", "supervisor",
               ["configuration, sockets,", "restart, reload"])
    out += box(392, 60, 176, 62, "user", "broker",
               ["loads BPF, joins, resets;", "parses no network input"])
    out += box(578, 60, 176, 62, "mute", "culvertctl", ["JSON over a UNIX socket:",
                                                     "connections, top, kick"])
    out += box(210, 150, 540, 190, "user", "relay: own user, no capability, N worker threads")
    rooms = [("transport", "listeners, streams"), ("stun", "codec, integrity"),
             ("auth", "credentials, nonces"), ("turn", "allocations, binds"),
             ("pair", "half-close, resets"), ("engine", "wire splice uring copy")]
    for i, (name, what) in enumerate(rooms):
        x, y = 226 + 176 * (i % 3), 184 + 74 * (i // 3)
        out += box(x, y, 160, 56, "mute", name, [what])
    out += box(230, 414, 210, 56, "kernel", "client data connection", ["TCP socket and queues"])
    out += box(520, 414, 210, 56, "kernel", "peer data connection", ["TCP socket and queues"])
    out += box(230, 534, 500, 58, "kernel", "wire: BPF at the interfaces",
               ["packets of one connection become packets of the other; no socket, no queue"])
    out += arrow([(150, 218), (208, 218)], "control", (172, 208))
    for x in (294, 480, 666):
        out += arrow([(x, 122), (x, 148)])
    brown, blue, violet = "#8a4b08", "#1f5fae", "#6639ba"
    out += arrow([(660, 316), (660, 368), (480, 368), (480, 424)],
                 "ConnectionBind joins the two sockets", (600, 384), 1.6, brown)
    out += arrow([(85, 266), (85, 436), (228, 436)], "", None, 3, blue)
    out += arrow([(440, 432), (518, 432)], "", None, 3, blue)
    out += arrow([(730, 436), (875, 436), (875, 266)], "", None, 3, blue)
    out += arrow([(518, 450), (442, 450)], "", None, 3, blue)
    out += arrow([(480, 470), (480, 532)], "both sockets stepped aside", (566, 506), 1.6, brown)
    out += arrow([(50, 266), (50, 570), (228, 570)], "", None, 3, violet)
    out += arrow([(730, 570), (910, 570), (910, 266)], "", None, 3, violet)
    out += [text(480, 464, "pipe pages", 12, fill=blue),
            text(138, 454, "stream engines", 12, fill=blue),
            text(138, 588, "wire: packets", 12, fill=violet)]
    out.append("</svg>")
    print("\n".join(out))


if __name__ == "__main__":
    main()
