#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The culvert command against culvertd: forward, listen, send, receive, check."""

import contextlib
import os
import re
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import cli, tap  # noqa: E402
from culvertlab.cli import Cli, address_of, local_connect, make_file, text_of  # noqa: E402
from culvertlab.data import (KIB, MIB, digest, payload, ping, receive_to_end, reset,  # noqa: E402
                             receive_slowly, same, send_all, sender, swap)
from culvertlab.lab import Lab, need_namespaces, need_version  # noqa: E402
from culvertlab.server import binary  # noqa: E402
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.turn import ended  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
test = tap.test
GONE = ("fin", "rst")


def client(version=4, changes=None, **more):
    return Cli(lab, lab.server(changes), version, **more)


@test("forward: 40 connections at once, random sizes, both ways", 60)
def _():
    cli.forward_many(client(), 40, MIB)


@test("forward over IPv6", 40)
def _():
    need_version(lab, 6)
    cli.forward_many(client(6), 10, MIB, "-6")


@test("forward on each engine of the client", 40)
def _():
    for engine in ("splice", "uring", "copy"):
        cli.forward_many(client(), 5, MIB, "--engine", engine)


@test("forward: half-closes pass through, then the other direction")
def _():
    listener = lab.listener()
    process, port = cli.forward(client(), listener.getsockname())
    local = local_connect(lab, port)
    peer = lab.accept(listener)
    send_all(local, b"question", fin=True)
    same(receive_to_end(peer), b"question", "question")
    answer = payload(2 * MIB)
    job = sender(peer, answer, fin=True)
    same(receive_to_end(local), answer, "answer")
    job.finish()
    process.stop()


@test("forward: a reset passes through both ways")
def _():
    listener = lab.listener()
    process, port = cli.forward(client(), listener.getsockname())
    for first in (0, 1):
        pair = [local_connect(lab, port), lab.accept(listener)]
        ping(*pair)
        reset(pair[first])
        equal(ended(pair[1 - first]), "rst", "end at the other side")
    check(process.status is None, "culvert ended")
    process.stop()


@test("forward: a peer that refuses ends the local connection, forward goes on")
def _():
    with contextlib.closing(lab.topo.peer.listen()) as gone:
        address = gone.getsockname()
    process, port = cli.forward(client(), address)
    with contextlib.suppress(ConnectionResetError):  # so fast that connect() tells
        check(ended(local_connect(lab, port), 10) in GONE, "the local connection is open")
    check(process.status is None, f"culvert ended: {process.tail()}")
    process.stop()


@test("forward: banner of the peer first")
def _():
    listener = lab.listener()
    process, port = cli.forward(client(), listener.getsockname())
    local = local_connect(lab, port)
    peer = lab.accept(listener)
    peer.sendall(b"220 hello\r\n")
    equal(local.recv(11), b"220 hello\r\n", "banner")
    ping(local, peer)
    process.stop()


@test("forward survives a restart of the server", 60)
def _():
    server = lab.server(fresh=True)
    listener = lab.listener()
    process, port = cli.forward(Cli(lab, server), listener.getsockname())
    local = local_connect(lab, port)
    peer = lab.accept(listener)
    ping(local, peer)
    lab.stop_server()
    check(ended(local, 10) in GONE, "the old connection is open")
    lab.server()

    def works():
        fresh = local_connect(lab, port)
        listener.settimeout(1)
        try:
            far = lab.accept(listener)
            ping(fresh, far)
            return True
        except (TimeoutError, ConnectionError, tap.Fail):
            return False
    wait_for(works, 40, "a new connection through the new server")
    check(process.status is None, "culvert ended")
    process.stop()


@test("listen: 30 connections of a peer to a local service, random sizes, both ways", 60)
def _():
    cli.listen_many(client(), 30, MIB)


@test("listen over IPv6", 40)
def _():
    need_version(lab, 6)
    local = cli.service(lab, 6)
    v6 = client(6)
    process = v6.start("listen", "-6", "--allow", lab.topo.peer.addr(6),
                       text_of(local.getsockname()))
    relayed = address_of(process.wait_for_text(r"relayed (\S+)", read=process.out)[1])
    peer = lab.keep(lab.topo.peer.connect(relayed))
    inner, _ = local.accept()
    swap(lab.keep(inner), peer, MIB)
    process.stop()


@test("listen: the relayed address is the first line, only the allowed come in")
def _():
    need_namespaces(lab)
    local = cli.service(lab)
    process, relayed = cli.listen(client(), local.getsockname(), lab.topo.peer.addr(4, 1))
    check(process.out().splitlines()[0].startswith("relayed "), f"said {process.out()!r}")
    stranger = lab.keep(lab.topo.peer.connect(relayed, 0))
    check(ended(stranger, 5) in GONE, "a stranger came in")
    friend = lab.keep(lab.topo.peer.connect(relayed, 1))
    inner, _ = local.accept()
    ping(lab.keep(inner), friend)
    process.stop()


@test("listen: a local service that refuses ends the peer's connection, listen goes on")
def _():
    with contextlib.closing(lab.topo.client.listen()) as gone:
        address = gone.getsockname()
    process, relayed = cli.listen(client(), address, lab.topo.peer.addr())
    for _ in range(2):
        with contextlib.suppress(ConnectionResetError):
            peer = lab.keep(lab.topo.peer.connect(relayed))
            check(ended(peer, 10) in GONE, "the peer's connection is open")
        check(process.status is None, f"culvert ended: {process.tail()}")
    process.stop()


@test("send a file of 24 MiB, and an empty one", 40)
def _():
    cli.send_file(client(), 24 * MIB)
    cli.send_file(client(), 0)


@test("receive a file of 24 MiB, and an empty one", 40)
def _():
    cli.receive_file(client(), 24 * MIB)
    cli.receive_file(client(), 0)


@test("send from stdin, receive to stdout")
def _():
    path, data = make_file(lab, 3 * MIB)
    listener = lab.listener()
    with open(path, "rb") as source:
        process = client().start("send", "--peer", text_of(listener.getsockname()), stdin=source)
        peer = lab.accept(listener)
        same(receive_to_end(peer), data, "stdin at the peer")
        peer.close()
        equal(process.wait(15), 0, "status of send")
    process = client().start("receive", "--allow", lab.topo.peer.addr())
    relayed = address_of(process.wait_for_text(r"relayed (\S+)")[1])
    send_all(lab.keep(lab.topo.peer.connect(relayed)), data, fin=True)
    equal(process.wait(15), 0, "status of receive")
    with open(process.out_path, "rb") as got:
        equal(digest(got.read()), digest(data), "SHA-256 of stdout")


@test("send to receive through the same server, 16 MiB", 40)
def _():
    cli.relay_to_relay(client(), 16 * MIB)


@test("send to a peer that resets is an error with words")
def _():
    path, _ = make_file(lab, 8 * MIB)
    listener = lab.listener()
    process = client().start("send", "--peer", text_of(listener.getsockname()), path)
    reset(lab.accept(listener))
    check(process.wait(15) != 0, "status 0 although the peer reset")
    check(process.err().strip(), "no words")


@test("a slow peer slows send down, nothing is lost", 40)
def _():
    path, data = make_file(lab, 6 * MIB)
    listener = lab.topo.peer.bound()
    listener.setsockopt(1, 8, 32 * KIB)  # SOL_SOCKET, SO_RCVBUF
    listener.listen(1)
    lab.keep(listener)
    process = client().start("send", "--peer", text_of(listener.getsockname()), path)
    peer = lab.accept(listener)
    same(receive_slowly(peer), data, "file at the slow peer")
    peer.close()
    equal(process.wait(15), 0, "status")


@test("check: a good server passes in one screen")
def _():
    cli.checks_well(client())


@test("check: wrong password and dead server fail with words")
def _():
    status, process = client(password="wrong").run("check")
    check(status != 0, "status 0 with the wrong password")
    check(re.search(r"password|credential|401", process.out() + process.err(), re.I), "no words")
    dead = client()
    dead.target = lambda: f"{lab.topo.relay.addr()}:1"
    status, process = dead.run("check")
    check(status != 0, "status 0 without a server")
    check(process.out() + process.err(), "no words")


@test("a wrong password is an error at once, for every command")
def _():
    wrong = client(password="wrong")
    peer = text_of((lab.topo.peer.addr(), 9))
    for args in (["forward", str(lab.topo.client.free_port()), peer],
                 ["listen", "--allow", lab.topo.peer.addr(), "127.0.0.1:9"],
                 ["send", "--peer", peer, "/dev/null"], ["receive", "--allow", "192.0.2.1"]):
        start = time.monotonic()
        status, process = wrong.run(*args)
        check(status != 0, f"{args[0]}: status 0")
        check(re.search(r"password|credential|401|unauthor", process.err(), re.I),
              f"{args[0]} said {process.err()!r}")
        within(time.monotonic() - start, 0, 5, f"seconds {args[0]} took")


@test("an unreachable server is an error with its name")
def _():
    lost = client()
    lost.target = lambda: f"{lab.topo.relay.addr()}:1"
    status, process = lost.run("send", "--peer", text_of((lab.topo.peer.addr(), 9)), "/dev/null")
    check(status != 0, "status 0")
    check(lab.topo.relay.addr() in process.err(), f"said {process.err()!r}")
    lost.target = lambda: "no-such-host.invalid"
    status, process = lost.run("receive", "--allow", "192.0.2.1")
    check(status != 0 and "no-such-host.invalid" in process.err(), f"said {process.err()!r}")


@test("the password by option, file and environment")
def _():
    server = lab.server()
    path = os.path.join(lab.dir, "password")
    with open(path, "w", encoding="utf-8") as file:
        file.write("wonderland\n")
    base = lab.topo.client.command([binary("culvert"), "check", "-s",
                                    "{}:{}".format(*server.address()), "-u", "alice"])
    clean = {k: v for k, v in os.environ.items() if k != "CULVERT_PASSWORD"}
    for more, env in ((["-p", "wonderland"], clean), (["--password-file", path], clean),
                      ([], {**clean, "CULVERT_PASSWORD": "wonderland"})):
        done = subprocess.run([*base, *more], env=env, capture_output=True, text=True, timeout=30,
                              check=False)
        equal(done.returncode, 0, f"with {more}: {done.stderr}")


@test("wrong usage is status 2 with words")
def _():
    for args in ([], ["frobnicate"], ["forward"], ["send", "-s", "127.0.0.1", "-u", "a", "-p", "b"],
                 ["forward", "-s", "127.0.0.1", "-u", "a", "-p", "b", "1234", "not-an-address"],
                 ["check", "--nonsense"]):
        done = subprocess.run([binary("culvert"), *args], capture_output=True, text=True,
                              timeout=10, check=False)
        equal(done.returncode, 2, f"status for {args}")
        check(done.stderr, f"silence for {args}")
    for option in ("--help", "--version"):
        done = subprocess.run([binary("culvert"), option], capture_output=True, check=False)
        equal(done.returncode, 0, option)


BRIEF = {"limits": {"default_lifetime": "2s", "max_lifetime": "2s", "nonce_lifetime": "3s"}}


@test("the allocation is refreshed: forward and listen outlive lifetimes and nonces", 40)
def _():
    good = client(changes=BRIEF)
    listener = lab.listener()
    forwarder, port = cli.forward(good, listener.getsockname())
    pair = local_connect(lab, port), lab.accept(listener)
    local = cli.service(lab)
    keeper, relayed = cli.listen(good, local.getsockname(), lab.topo.peer.addr())
    start = time.monotonic()

    def lives():
        ping(*pair)
        return time.monotonic() - start > 7
    wait_for(lives, 15, "seven seconds of life")
    peer = lab.keep(lab.topo.peer.connect(relayed))
    inner, _ = local.accept()
    ping(lab.keep(inner), peer)
    for process in (forwarder, keeper):
        check(process.status is None, f"culvert ended: {process.tail()}")
        process.stop()


@test("SIGINT ends forward and listen with status 0 or 130, the allocation goes with them")
def _():
    server = lab.server(fresh=True)
    listener = lab.listener()
    process, port = cli.forward(Cli(lab, server), listener.getsockname())
    local = local_connect(lab, port)
    ping(local, lab.accept(listener))
    check(process.stop(2, 5) in (0, 130, -2), "status of forward")
    check(ended(local, 5) in GONE, "the local connection is open")
    wait_for(lambda: server.counters()["allocations"] == 0, 5, "no allocation is left")


@test("a progress bar on a terminal, none elsewhere")
def _():
    path, data = make_file(lab, 12 * MIB)
    listener = lab.listener()
    process = client().start("send", "--peer", text_of(listener.getsockname()), path)
    peer = lab.accept(listener)
    receive_to_end(peer)
    peer.close()
    equal(process.wait(10), 0, "status")
    check("\r" not in process.err() and "\x1b" not in process.err(), "a bar in a file")
    shown = on_terminal(client().argv("send", "--peer", text_of(listener.getsockname()), path),
                        lambda: receive_slow_enough(lab.accept(listener), data))
    check(re.search(rb"\d+ ?%", shown), f"no percentage in {shown[-300:]!r}")
    check(re.search(rb"[KMG]i?B/s", shown), f"no rate in {shown[-300:]!r}")


def receive_slow_enough(sock, data):
    same(receive_slowly(sock, step=128 * KIB, pause=0.015), data, "file")
    sock.close()


def on_terminal(argv, meanwhile):
    """Run with stderr on a terminal; what it wrote there."""
    main, sub = os.openpty()
    child = subprocess.Popen(lab.topo.client.command(argv), stdin=subprocess.DEVNULL, stderr=sub,
                             stdout=subprocess.DEVNULL,
                             env={**os.environ, "CULVERT_PASSWORD": "wonderland", "TERM": "xterm"})
    os.close(sub)
    try:
        meanwhile()
        equal(child.wait(15), 0, "status")
        shown = b""
        with contextlib.suppress(OSError):
            while part := os.read(main, 65536):
                shown += part
        return shown
    finally:
        child.kill()
        child.wait()
        os.close(main)


tap.main()
