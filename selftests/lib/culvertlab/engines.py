# SPDX-License-Identifier: BSD-2-Clause
"""The engines a suite runs on: one more engine is one more name in ALL.

A pair may end on another engine than the one asked for, and still carry every byte: `on` says
which one has it, so that a silent fall-back does not pass for the engine under test.
"""

import os
import shutil
import tempfile

from . import tap, tls
from .server import binary
from .wait import wait_for

ALL = ("splice", "uring", "copy", "sockmap", "wire")
# With clients' TLS: unsealed by OpenSSL, whatever is ordered, or by the kernel for an engine that
# splices. These are for cases that make their connections by Lab.client and Lab.pair.
TLS = ("tls", "ktls", "ktls-uring")
CARRIER = {"tls": "copy", "ktls": "splice", "ktls-uring": "uring"}
# What follows an engine that takes only some pairs.
ORDER = {"wire": "wire, splice", "sockmap": "sockmap, splice", "tls": "wire, splice",
         "ktls": "wire, splice", "ktls-uring": "uring, copy"}
# Settings an engine needs to take every pair that it can carry.
SETTINGS = {"wire": {"wire": "always"}, "tls": {"ktls": "no"}}
# Relays packets, not streams: no socket of ours acknowledges what an end sends.
PACKET = ("wire",)
LONG = os.environ.get("CULVERT_LONG", "0") not in ("", "0")

_missing = {}


def chosen(*more):
    """Names of the engines, and more; the environment's ENGINES narrows them."""
    wanted = os.environ.get("ENGINES", "").replace(",", " ").split()
    return [name for name in (*ALL, *more) if not wanted or name in wanted]


def order(engine):
    return ORDER.get(engine, engine)


def config(lab, engine, **sections):
    """Changes of the configuration that make this engine carry pairs; skips when it cannot."""
    require(lab, engine)
    changes = {name: dict(keys) for name, keys in sections.items()}
    changes.setdefault("engine", {}).update(order=order(engine), **SETTINGS.get(engine, {}))
    if engine in TLS:
        certificate, key = tls.certificate(lab.dir)
        changes["listener main"] = {"transport": "tls", "certificate": certificate,
                                    "private_key": key}
    return changes


def missing(lab, engine):
    """Why this engine does not work here, in the daemon's words; None when it does."""
    if engine not in _missing:
        _missing[engine] = _why_not(lab, engine)
    return _missing[engine]


def require(lab, engine):
    """Skip unless this engine works here."""
    if missing(lab, engine):
        raise tap.Skip(missing(lab, engine))


def add_all(lab, cases, names=None):
    """Register every case (name, function(engine), timeout[, engine it is for]) per engine.

    An engine that is not there is one skipped test, not as many as there are cases.
    """
    for engine in names or chosen():
        mine = [case[:3] for case in cases if len(case) < 4 or case[3] in (None, engine)]
        why = missing(lab, engine)
        if why:
            tap.add(f"{engine}: {len(mine)} cases", lambda why=why: tap.skip(why))
            continue
        for name, function, timeout in mine:
            tap.add(f"{engine}: {name}", lambda f=function, e=engine: f(e), timeout)


def totals(server):
    """Pairs each engine has had."""
    return {row["name"]: row["pairs_total"] for row in server.engines()}


def _why_not(lab, engine):
    """Why the engine cannot be had, None when it can."""
    if engine in TLS and not shutil.which("openssl"):
        return "openssl is not installed (package openssl)"
    if engine == "tls":
        return None
    if not _known(lab, engine):
        return f"this culvertd has no engine {engine}"
    server = lab.server({"engine": {"order": order(engine), **SETTINGS.get(engine, {})}})
    rows = {row["name"]: row for row in server.engines()}
    for name in ("ktls", CARRIER[engine]) if engine in TLS else (engine,):
        if name not in rows:
            return f"culvertctl engines does not list {name}"
        if not rows[name]["available"]:
            return f"engine {name} is not available here: {rows[name]['reason']}"
    return None


def _known(lab, engine):
    with tempfile.NamedTemporaryFile("w", dir=lab.dir, suffix=".conf") as file:
        file.write("[realm a]\n[user b]\npassword = c\n"
                   f"[engine]\norder = {order(engine)}\n")
        file.flush()
        node = lab.topo.relay
        try:
            node.run(binary("culvertd"), "--check", file.name)
            return True
        except RuntimeError as error:
            # Anything but an unknown name is worth hearing of.
            tap.check("order" in str(error), f"--check of engine {engine}: {error}")
            return False


def pair(lab, engine, *args, **more):
    """A bound pair as lab.pair makes it, of which this engine has the bytes."""
    made = lab.pair(*args, **more)
    on(lab.server(), made[0], engine)
    return made


def whole(engine, accepted):
    """Bytes a relay can hand on, of those it acknowledged: of TLS, the records that are whole."""
    return accepted - tls.RECORD if engine in TLS else accepted


def row_of(server, data):
    """The row of `culvertctl connections` of this data connection of a client, or None."""
    host, port = data.getsockname()[:2]
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    for row in server.ctl_json("connections")["connections"]:
        if row["client"] == name:
            return row
    return None


def carried_by(server, data):
    """(engine, why not the first of the order) of a pair, once it relays."""
    def relaying():
        row = row_of(server, data)
        return row if row and row["state"] in ("relaying", "joined") else None
    row = wait_for(relaying, 5, f"the pair of {data.getsockname()} is listed as relaying")
    return row["engine"], row.get("why", "")


def on(server, data, engine):
    """Check that this engine carries the pair."""
    used, why = carried_by(server, data)
    tap.equal(used, CARRIER.get(engine, engine), f"engine of the pair (why: {why!r})")
