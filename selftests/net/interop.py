#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Other people's programs: coturn's client against culvertd, culvert against coturn's server."""

import os
import re
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import cli, engines, tap, tls  # noqa: E402
from culvertlab.cli import Cli  # noqa: E402
from culvertlab.data import KIB, Worker, payload, receive_to_any_end, same, send_all  # noqa: E402
from culvertlab.lab import Lab, need, need_version  # noqa: E402
from culvertlab.server import Coturn  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
test = tap.test
MESSAGES = re.compile(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)")
BYTES = re.compile(r"tot_send_bytes ~ (\d+), tot_recv_bytes ~ (\d+)")


def uclient(server, clients, *more, version=4, messages=20, length=1000, form=("-T",)):
    """Run turnutils_uclient; returns what it printed."""
    need("turnutils_uclient", "coturn")
    host, port = server.address(version)
    argv = ["turnutils_uclient", *form, "-y", "-u", "alice", "-w", "wonderland", "-p", port,
            "-m", clients, "-n", messages, "-l", length, *more, host]
    process = lab.spawn(lab.topo.client, argv, "uclient")
    status = process.wait(60)
    said = process.out() + process.err()
    equal(status, 0, f"status of turnutils_uclient, said {said[-500:]}")
    return said


def nothing_lost(said, clients, messages=20):
    messages_told, bytes_told = MESSAGES.findall(said), BYTES.findall(said)
    check(messages_told and bytes_told, f"no totals in {said[-800:]}")
    sent, received = map(int, messages_told[-1])
    equal(received, sent, "messages received, of those sent")
    sent_bytes, received_bytes = map(int, bytes_told[-1])
    equal(received_bytes, sent_bytes, "bytes received, of those sent")
    check(sent >= clients * messages, f"{sent} messages of {clients} clients")
    lost = re.findall(r"Total lost packets (\d+)", said)
    check(lost and int(lost[-1]) == 0, f"lost packets: {lost}")
    check("ERROR" not in said, f"errors: {[t for t in said.splitlines() if 'ERROR' in t][:5]}")


def uclient_test(clients, *more, version=4):
    def run():
        need_version(lab, version)
        server = lab.server()
        nothing_lost(uclient(server, clients, *more, version=version), clients)
    return run


for _clients in (1, 10, 50):
    tap.add(f"turnutils_uclient -T with {_clients} clients loses nothing",
            uclient_test(_clients), 70)
tap.add("turnutils_uclient -T -x over IPv6 loses nothing", uclient_test(10, "-x", version=6), 70)
def uclient_over_tls(clients, *more, version=4):
    def run():
        need_version(lab, version)
        server = lab.server(engines.config(lab, "tls"))
        authority = tls.certificate(lab.dir)[0]
        said = uclient(server, clients, "-S", "-E", authority, *more, version=version)
        nothing_lost(said, clients)
    return run


tap.add("turnutils_uclient -T -S with 10 clients loses nothing", uclient_over_tls(10), 70)
tap.add("turnutils_uclient -T -S -x over IPv6 loses nothing", uclient_over_tls(3, "-x", version=6),
        70)
tap.add("turnutils_uclient -T -G, extra requests, loses nothing", uclient_test(5, "-G"), 70)


@test("turnutils_uclient -T -W with time-limited credentials loses nothing", 70)
def _():
    changes = {"realm example.org": {"secret": "north"}, "user alice": None, "user bob": None}
    nothing_lost(uclient(lab.server(changes), 5, "-W", "north"), 5)


def uclient_udp_test(clients, *form, version=4):
    def run():
        need_version(lab, version)
        server = lab.server({"listener datagrams": {
            "transport": "udp", "address": f"0.0.0.0:{lab.port}, [::]:{lab.port}"}})
        nothing_lost(uclient(server, clients, version=version, form=form), clients)
        lab.server({})
    return run


for _name, _form in (("by channels", ()), ("by Send", ("-s",)), ("without RTCP ports", ("-c",)),
                     ("over TCP", ("-t",)), ("over TCP by Send", ("-t", "-s"))):
    tap.add(f"turnutils_uclient, UDP {_name}, loses nothing", uclient_udp_test(10, *_form), 70)
tap.add("turnutils_uclient, UDP over IPv6, loses nothing", uclient_udp_test(10, "-x", version=6), 70)


@test("turnutils_uclient, UDP over TLS, loses nothing, and culvertctl says so", 70)
def _():
    server = lab.server(engines.config(lab, "tls"))
    authority = tls.certificate(lab.dir)[0]
    seen = Worker(wait_for, lambda: {(row["client_transport"], row["transport"])
                                     for row in server.ctl_json("allocations")["allocations"]},
                  30, "an allocation")
    nothing_lost(uclient(server, 5, "-E", authority, form=("-t", "-S")), 5)
    equal(seen.finish(), {("tls", "udp")}, "transports")
    lab.server({})


@test("turnutils_uclient, UDP over DTLS, loses nothing, and culvertctl says so", 70)
def _():
    authority, key = tls.certificate(lab.dir)
    server = lab.server({"listener sealed": {
        "transport": "dtls", "certificate": authority, "private_key": key,
        "address": f"0.0.0.0:{lab.port}, [::]:{lab.port}"}})
    seen = Worker(wait_for, lambda: {(row["client_transport"], row["transport"])
                                     for row in server.ctl_json("allocations")["allocations"]},
                  30, "an allocation")
    nothing_lost(uclient(server, 5, "-E", authority, form=("-S",)), 5)
    equal(seen.finish(), {("dtls", "udp")}, "transports")
    lab.server({})


@test("turnutils_stunclient hears its own address")
def _():
    need("turnutils_stunclient", "coturn")
    server = lab.server({"listener datagrams": {"transport": "udp",
                                                "address": f"0.0.0.0:{lab.port}"}})
    host, port = server.address()
    process = lab.spawn(lab.topo.client, ["turnutils_stunclient", "-p", port, host], "stunclient")
    process.wait(20)
    said = process.out() + process.err()
    check(re.search(rf"reflexive addr: {re.escape(lab.topo.client.addr())}:", said), said[-500:])
    lab.server({})


ICE_PAIR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib", "ice_pair.py")


def aioice_test(way):
    def run():
        changes = {"listener datagrams": {"transport": "udp", "address": f"0.0.0.0:{lab.port}"}}
        env = {}
        if way == "tls":
            certificate, key = tls.certificate(lab.dir, lab.topo.relay.addr())
            changes = {"listener main": {"transport": "tls", "certificate": certificate,
                                         "private_key": key}}
            env["SSL_CERT_FILE"] = certificate
        host, port = lab.server(changes).address()
        argv = ["/usr/bin/python3", ICE_PAIR, host, port, way, "alice", "wonderland", 50]
        process = lab.spawn(lab.topo.client, argv, "aioice", env=env)
        status = process.wait(30)
        if status == 77:
            tap.skip("aioice is not installed (package python3-aioice)")
        said = process.out()
        equal(status, 0, f"status, said {said}{process.err()[-800:]}")
        equal(re.findall(r"^(\w+) \S+:\d+$", said, re.M), ["relay"] * 2, "candidates")
        check("same 50" in said, f"messages unchanged: {said}")
    return run


for _way in ("udp", "tcp", "tls"):
    tap.add(f"aioice connects two ends by relay candidates over {_way.upper()}", aioice_test(_way),
            40)


@test("turnutils_uclient with the wrong password is refused")
def _():
    need("turnutils_uclient", "coturn")
    host, port = lab.server().address()
    before = lab.server().counters()["allocations_made"]
    argv = ["turnutils_uclient", "-T", "-y", "-u", "alice", "-w", "wrong", "-p", port, host]
    process = lab.spawn(lab.topo.client, argv, "uclient")
    check(process.wait(30) != 0, "status 0 with the wrong password")
    equal(lab.server().counters()["allocations_made"], before, "allocations made")


_coturn = {}


def to_coturn(version=4):
    """A Cli for coturn's server, started once, in place of culvertd."""
    need("turnserver", "coturn")
    need_version(lab, version)
    lab.stop_server()
    if "it" not in _coturn:
        _coturn["it"] = Coturn(lab, port=lab.topo.relay.free_port())
    _coturn["it"].health()
    return Cli(lab, _coturn["it"], version)


@test("culvert check against coturn: all is well but half-close, which coturn resets")
def _():
    status, process = to_coturn().run("check", timeout=30)
    verdicts = re.findall(r"^(ok|FAIL|skip)\s+(\S+)", process.out(), re.M)
    failed = {what for verdict, what in verdicts if verdict == "FAIL"}
    check(failed <= {"half-close"}, f"failed: {failed}\n{process.out()}")
    check(len(verdicts) > 5, f"said {process.out()!r}")
    equal(status, 1 if failed else 0, "status")


@test("culvert check against coturn over IPv6")
def _():
    _, process = to_coturn(6).run("check", timeout=30)
    check(re.search(r"^ok\s+data", process.out(), re.M), f"said {process.out()!r}")


@test("culvert forward against coturn: 10 connections at once", 60)
def _():
    cli.forward_many(to_coturn(), 10, 60 * KIB, fin=False)


@test("culvert listen against coturn: 10 connections at once", 60)
def _():
    cli.listen_many(to_coturn(), 10, 60 * KIB, fin=False)


@test("culvert send against coturn: every byte, or an error that says so", 40)
def _():
    good = to_coturn()
    path, data = cli.make_file(lab, 100 * KIB)
    listener = lab.listener()
    process = good.start("send", "--peer", cli.text_of(listener.getsockname()), path)
    peer = lab.accept(listener)
    got, _ = receive_to_any_end(peer)
    peer.close()
    status = process.wait(15)
    check(data.startswith(got), "other bytes than were sent")
    check(status != 0 or got == data, f"status 0 with {len(got)} of {len(data)} bytes")
    check(status == 0 or process.err().strip(), "no words")


@test("culvert receive against coturn: every byte, or an error that says so", 40)
def _():
    good = to_coturn()
    path, data = os.path.join(lab.dir, "from-coturn"), payload(50 * KIB)
    process = good.start("receive", "--allow", lab.topo.peer.addr(), path)
    relayed = cli.address_of(process.wait_for_text(r"relayed (\S+)")[1])
    peer = lab.keep(lab.topo.peer.connect(relayed))
    send_all(peer, data)
    wait_for(lambda: os.path.exists(path) and os.path.getsize(path) == len(data), 10, "all of it")
    peer.close()
    status = process.wait(15)
    with open(path, "rb") as file:
        got = file.read()
    same(got, data, "file")
    check(status == 0 or process.err().strip(), "no words")


def tls_coturn(version=4):
    """A Cli that speaks TLS with coturn."""
    need("turnserver", "coturn")
    lab.stop_server()
    pair = tls.certificate(lab.dir)
    if "tls" not in _coturn:
        _coturn["tls"] = Coturn(lab, port=lab.topo.relay.free_port(), pair=pair)
    _coturn["tls"].health()
    cli_of = Cli(lab, _coturn["tls"], version).over_tls(pair[0])
    cli_of.target = lambda: f"{lab.topo.relay.addr(version)}:{_coturn['tls'].tls_port}"
    return cli_of


@test("culvert check --tls against coturn")
def _():
    _, process = tls_coturn().run("check", timeout=30)
    check(re.search(r"^ok\s+data", process.out(), re.M), f"said {process.out()!r}")


@test("culvert forward --tls against coturn: 10 connections at once", 60)
def _():
    cli.forward_many(tls_coturn(), 10, 60 * KIB, fin=False)


tap.main()
