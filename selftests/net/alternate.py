#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""ALTERNATE-SERVER: who is sent elsewhere, where to, and what `culvert` makes of it."""

import contextlib
import os
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import cli, stun, tap, tls, turn  # noqa: E402
from culvertlab.cli import Cli  # noqa: E402
from culvertlab.data import ping  # noqa: E402
from culvertlab.lab import Lab, need_namespaces  # noqa: E402
from culvertlab.server import config_text, merge  # noqa: E402
from culvertlab.stun import ALLOCATE, temporary  # noqa: E402
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.turn import UDP, family, lifetime, transport  # noqa: E402

lab = Lab()
OTHER_PORT = 3500


def there(version=4, port=OTHER_PORT):
    host = lab.topo.relay.addr(version)
    return f"[{host}]:{port}" if version == 6 else f"{host}:{port}"


ALTERNATE = {"alternate other": {"address": there()}}


def sent_on(client, *attrs, protocol=turn.TCP):
    """Where an Allocate is answered with 300 to."""
    response = client.request(ALLOCATE, [transport(protocol), *attrs])
    equal(response.code, 300, "code")
    check(response.signed_by(client.key), "the answer is not signed")
    return stun.plain_address(response.get(stun.ALTERNATE_SERVER))


@contextlib.contextmanager
def other_server(changes=None):
    """A server at the alternate's address."""
    changes = dict(changes or {})
    changes["listener main"] = {**changes.get("listener main", {}),
                                "address": f"0.0.0.0:{OTHER_PORT}, [::]:{OTHER_PORT}"}
    server = lab.extra_server(changes, port=OTHER_PORT)
    try:
        yield server
    finally:
        server.stop()


@tap.test("while it drains: new clients are sent on, old ones live")
def _():
    need_namespaces(lab)
    server = lab.server(ALTERNATE, fresh=True)
    data, peer, old = lab.pair()
    client, before = lab.client(), server.counters()["allocations_redirected"]
    server.ctl("drain")
    client.challenge()  # who has no credentials learns nothing of other servers
    equal(sent_on(client), (lab.topo.relay.addr(), OTHER_PORT))
    equal(server.counters()["allocations_redirected"], before + 1, "allocations_redirected")
    check(old.refresh() > 0, "the old allocation")
    ping(data, peer)
    equal(old.code(ALLOCATE, [transport()]), 437, "a second Allocate on the old one's 5-tuple")
    server.ctl("drain", "--undo")
    client.allocate()


@tap.test("only to the client's transport and address family; without such a server 508")
def _():
    need_namespaces(lab)
    six = {"alternate six": {"address": there(6, 3600)}, "alternate udp": {
        "transport": "udp", "address": there(4, 3700)}}
    listener = {"listener datagrams": {"transport": "udp",
                                       "address": f"0.0.0.0:{lab.port}, [::]:{lab.port}"}}
    server = lab.server({**ALTERNATE, **six, **listener}, fresh=True)
    server.ctl("drain")
    host = lab.topo.relay.addr
    equal(sent_on(lab.client(4)), (host(4), OTHER_PORT), "TCP, IPv4")
    equal(sent_on(lab.client(6)), (host(6), 3600), "TCP, IPv6")
    equal(sent_on(lab.client(4), family(6)), (host(4), OTHER_PORT), "by the client's own family")
    datagrams = lab.keep(turn.Datagrams(lab.topo.client, server.address()))
    equal(sent_on(datagrams, protocol=UDP), (host(4), 3700), "UDP, IPv4")
    datagrams = lab.keep(turn.Datagrams(lab.topo.client, server.address(6)))
    equal(datagrams.code(ALLOCATE, [transport(UDP)]), 508, "UDP, IPv6")
    token = (stun.RESERVATION_TOKEN, bytes(8))
    equal(lab.client().code(ALLOCATE, [transport(UDP), token]), 508, "what is reserved is here")
    equal(lab.client().code(ALLOCATE, [transport(132)]), 442, "what is refused anyway")


@tap.test("above a share of the limits")
def _():
    server = lab.server({**ALTERNATE, "limits": {"allocations": 4},
                         "server": {"redirect_above": "50%"}}, fresh=True)
    kept = [lab.allocated() for _ in range(2)]
    equal(sent_on(lab.client()), (lab.topo.relay.addr(), OTHER_PORT))
    kept[0].refresh(0)
    lab.allocated()
    check(server.counters()["allocations"] == 2, "allocations now")


# Users made by a secret, the same ones whoever is asked.
UNTIL = int(time.time()) + 600
NAMES = [f"{UNTIL}:user{n}" for n in range(60)]


def weighed(own, others):
    users = {"realm example.org": {"secret": "north"}, "user alice": None, "user bob": None}
    alternates = {f"alternate a{port}": {"address": there(4, port), "weight": weight}
                  for port, weight in others.items()}
    return {**users, **alternates, "server": {"weight": own}}


def choices(server):
    """Where each of the users is served: a port."""
    chosen = {}
    for name in NAMES:
        client = turn.Control(lab.topo.client, server.address(), name, temporary("north", name))
        response = client.request(ALLOCATE, [transport(), lifetime(600)])
        chosen[name] = server.port if response.code == 0 else \
            stun.plain_address(response.get(stun.ALTERNATE_SERVER))[1]
        client.close()
    return chosen


@tap.test("by weight: shares are kept, and servers that know each other agree", 60)
def _():
    need_namespaces(lab)
    server = lab.server(weighed(1, {OTHER_PORT: 2, 3600: 1}), fresh=True)
    with other_server(weighed(2, {lab.port: 1, 3600: 1})) as other:
        chosen = choices(server)
        shares = {port: list(chosen.values()).count(port) for port in set(chosen.values())}
        within(shares.get(lab.port, 0), 5, 27, f"of 60 that stay, a quarter; {shares}")
        within(shares.get(OTHER_PORT, 0), 18, 42, f"of 60 that go to the half; {shares}")
        equal(choices(server), chosen, "the same again")
        equal(choices(other), chosen, "the other's choice")


@tap.test("a reload brings an alternate and takes it away")
def _():
    server = lab.server({}, fresh=True)
    server.ctl("drain")
    client = lab.client()
    equal(client.code(ALLOCATE, [transport()]), 508, "without one")
    server.write_config(config_text(merge(server.sections, ALTERNATE)))
    equal(server.reload(), "reloaded")
    equal(sent_on(client), (lab.topo.relay.addr(), OTHER_PORT))
    server.write_config()
    equal(server.reload(), "reloaded")
    equal(client.code(ALLOCATE, [transport()]), 508, "without one again")


@tap.test("culvert follows", 60)
def _():
    need_namespaces(lab)
    server = lab.server(ALTERNATE, fresh=True)
    server.ctl("drain")
    with other_server() as other:
        cli.forward_many(Cli(lab, server), 3, 5000)
        equal(server.counters()["allocations_made"], 0, "here")
        check(other.counters()["allocations_made"] > 0, "nothing was allocated there")


@tap.test("culvert follows over TLS to the name it is told, and to no other", 60)
def _():
    need_namespaces(lab)
    pairs = [tls.certificate(lab.dir), tls.certificate(lab.dir, "second.example.org")]
    trusted = os.path.join(lab.dir, "both.crt")
    with open(trusted, "w", encoding="utf-8") as out:
        for certificate, _ in pairs:
            with open(certificate, encoding="utf-8") as file:
                out.write(file.read())

    def sealed(pair):
        return {"listener main": {"transport": "tls", "certificate": pair[0],
                                  "private_key": pair[1]}}
    with other_server(sealed(pairs[1])) as other:
        for domain in ("second.example.org", None, "third.example.org"):
            alternate = {"alternate other": {"address": there(), "transport": "tls",
                                             **({"domain": domain} if domain else {})}}
            server = lab.server({**sealed(pairs[0]), **alternate}, fresh=True)
            server.ctl("drain")
            before = other.counters()["allocations_made"]
            client = Cli(lab, server).over_tls(trusted)
            if domain == "second.example.org":
                cli.forward_many(client, 1, 5000)
            else:
                path, _ = cli.make_file(lab, 10)
                status, process = client.run("send", "--peer", "10.77.2.2:9", path)
                check(status != 0, f"followed to {domain}")
                check("hostname mismatch" in process.err(), process.err())
            made = other.counters()["allocations_made"] - before
            equal(made > 0, domain == "second.example.org", f"allocations there, told {domain}")


@tap.test("two servers that send clients to each other: culvert gives up")
def _():
    need_namespaces(lab)
    server = lab.server(ALTERNATE, fresh=True)
    server.ctl("drain")
    with other_server({"alternate back": {"address": there(4, lab.port)}}) as other:
        other.ctl("drain")
        path, _ = cli.make_file(lab, 10)
        status, process = Cli(lab, server).run("send", "--peer", "10.77.2.2:9", path)
        check(status != 0, "status 0")
        check("300" in process.err(), process.err())
        told = [one.counters()["allocations_redirected"] for one in (server, other)]
        within(sum(told), 2, 4, f"answers with 300: {told}")


tap.main()
