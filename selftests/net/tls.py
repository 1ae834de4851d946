#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""TLS listeners: handshakes good and bad, certificates, reloads, and how streams end.

What is relayed over TLS is tested by relay.py, as engine "tls".
"""

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import cli, engines, proc, stun, tap, tls  # noqa: E402
from culvertlab.data import (KIB, MIB, Worker, digest, payload, ping, receive,  # noqa: E402
                             receive_to_any_end, receive_to_end, reset, same, send_all,
                             sender)
from culvertlab.lab import Lab  # noqa: E402
from culvertlab.server import binary  # noqa: E402
from culvertlab.tap import check, equal, test, within  # noqa: E402
from culvertlab.tls import TlsSocket  # noqa: E402
from culvertlab.turn import CONNECTION_BIND, Control, ended, recv_exact, recv_message, u32  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()


def config(limits=None, server=None, **listener):
    changes = engines.config(lab, "tls", limits=limits or {}, server=server or {})
    changes["listener main"].update(listener)
    return changes


def raw(server):
    """A connection without a word on it."""
    return lab.keep(lab.topo.client.connect(server.address()))


def handshake(server, context=None, name=tls.NAME):
    """The TlsSocket of a new connection."""
    return lab.keep(TlsSocket(raw(server), context or server.tls, name))


def binding(sock):
    """A Binding request and its answer: TURN is spoken here."""
    msg = stun.Message(stun.BINDING)
    sock.sendall(msg.build())
    equal(recv_message(sock).txid, msg.txid, "answer to Binding")


def hello(name=tls.NAME):
    """The bytes of a ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        side.do_handshake()
    return outgoing.read()


@test("TLS 1.2 and 1.3, whole and byte by byte")
def _():
    server = lab.server(config())
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = tls.client_context(tls.certificate(lab.dir)[0], version=version)
        sock = handshake(server, context)
        equal(sock.tls.version(), version.name.replace("_", "."), "version")
        binding(sock)
    sock = raw(server)
    whole, half = hello(), len(hello()) // 2
    for at in range(half):
        sock.sendall(whole[at:at + 1])
    wait_for(lambda: server.counters()["handshakes"] == 1, 5, "one handshake half-way")
    sock.sendall(whole[half:])
    check(sock.recv(1) == b"\x16", "no handshake record in answer to a ClientHello in pieces")


def padded_hello(size):
    """A ClientHello of so many bytes, by an extension nobody knows (RFC 8701); no record."""
    whole = bytearray(hello()[5:])
    more = size - len(whole)
    whole += b"\x7a\x7a" + (more - 4).to_bytes(2, "big") + bytes(more - 4)
    at = 4 + 2 + 32
    at += 1 + whole[at]  # the session's id
    at += 2 + int.from_bytes(whole[at:at + 2], "big")  # ciphers
    at += 1 + whole[at]  # compression
    whole[at:at + 2] = (len(whole) - at - 2).to_bytes(2, "big")
    whole[1:4] = (len(whole) - 4).to_bytes(3, "big")
    return bytes(whole)


def in_records(message, *cuts):
    """Cut into records there, and where one would be too long."""
    cuts = sorted({*cuts, *range(16000, len(message), 16000), len(message)})
    return b"".join(b"\x16\3\1" + (end - begin).to_bytes(2, "big") + message[begin:end]
                    for begin, end in zip([0, *cuts], cuts))


@test("a ClientHello has 16 KiB at most, whatever records it comes in")
def _():
    server = lab.server(config(), fresh=True)
    for size in (600, 4000, 16384 + 4):
        for cuts in ((), (1,), (3, 4, 5), (1, 2, 3, 300)):
            sock = raw(server)
            sock.sendall(in_records(padded_hello(size), *cuts))
            equal(sock.recv(1), b"\x16", f"answer to {size} bytes cut at {cuts}")
    refused = 0
    for size in (16384 + 5, 20000, 60000):
        for cuts in ((), (1, 2), (4,)):
            sock = raw(server)
            sock.sendall(in_records(padded_hello(size), *cuts)[:20])
            check(ended(sock, 5) in ("fin", "rst"), f"{size} bytes cut at {cuts}: it waits for more")
            refused += 1
    wait_for(lambda: server.log_count('reason="a ClientHello beyond 16 KiB"') > 0, 5, "the log")
    equal(server.counters()["handshake_failures"], refused, "handshake_failures")


def record(sock):
    """(type, body) of the next record that is no change of keys."""
    while True:
        head = recv_exact(sock, 5)
        body = recv_exact(sock, int.from_bytes(head[3:], "big"))
        if head[0] != 20:
            return head[0], body


def asked_again(server):
    """A connection whose ClientHello had no key share for the server (HelloRetryRequest)."""
    sock = raw(server)
    # A group of nobody's among those of the client, and its share is for that.
    sock.sendall(hello().replace(b"\1\3\1\4", b"\1\3\x7a\x7a")
                 .replace(b"\0\x1d\0\x20", b"\x7a\x7a\0\x20"))
    _, answer = record(sock)
    check(answer[6:10] == bytes.fromhex("cf21ad74"), "no HelloRetryRequest")  # RFC 8446 4.1.3
    return sock


@test("a second ClientHello has 16 KiB at most, too")
def _():
    server = lab.server(config(), fresh=True)
    sock = asked_again(server)
    sock.sendall(b"\x14\3\3\0\1\1" + in_records(padded_hello(20000))[:9])
    wait_for(lambda: server.counters()["handshake_failures"] == 1, 5, "it is refused")
    sock = asked_again(server)
    sock.sendall(hello())
    kind, answer = record(sock)
    equal((kind, answer[0]), (22, 2), f"a ServerHello, got {answer[:40].hex()}")


@test("a listener of TLS 1.3 alone refuses 1.2; ciphers are as configured")
def _():
    certificate = tls.certificate(lab.dir)[0]
    server = lab.server(config(tls_version="1.3", ciphers="TLS_CHACHA20_POLY1305_SHA256"))
    sock = handshake(server)
    equal(sock.tls.cipher()[0], "TLS_CHACHA20_POLY1305_SHA256", "cipher")
    old = tls.client_context(certificate, version=ssl.TLSVersion.TLSv1_2)
    try:
        handshake(server, old)
        raise tap.Fail("TLS 1.2 was agreed on")
    except ssl.SSLError:
        pass
    wait_for(lambda: server.counters()["handshake_failures"] == 1, 5, "the failure is counted")
    wait_for(lambda: re.search(r'event=handshake_failed listener=main client=\S+ '
                               r'reason="unsupported protocol"', server.log()), 5, "and logged")


@test("ALPN: stun.turn and stun.nat-discovery, no other")
def _():
    server = lab.server(config())
    certificate = tls.certificate(lab.dir)[0]
    for offered, want in ((["stun.turn"], "stun.turn"), (["http/1.1", "stun.turn"], "stun.turn"),
                          (["stun.nat-discovery"], "stun.nat-discovery"),
                          (["stun.nat-discovery", "stun.turn"], "stun.turn"), ([], None)):
        sock = handshake(server, tls.client_context(certificate, alpn=offered))
        equal(sock.tls.selected_alpn_protocol(), want, f"of {offered}")
        binding(sock)
    try:
        handshake(server, tls.client_context(certificate, alpn=["h2", "http/1.1"]))
        raise tap.Fail("a browser's protocols were taken")
    except ssl.SSLError as error:
        check("no application protocol" in str(error).lower().replace("_", " "), str(error))


@test("certificates by server name; who names no other sees the first")
def _():
    names = (tls.NAME, "other.example.net", "third.example.com")
    pairs = [tls.certificate(lab.dir, name) for name in names]
    server = lab.server(config(certificate=", ".join(p[0] for p in pairs),
                               private_key=", ".join(p[1] for p in pairs)))
    for name in names:
        binding(handshake(server, name=name))
    context = server.tls
    context.check_hostname = False
    for name in (None, "unknown.example.org"):
        sock = handshake(server, context, name)
        equal(sock.tls.getpeercert()["subject"][0][0][1], tls.NAME, f"certificate for {name}")


@test("a handshake that stalls is ended in time; half-open ones are limited", 40)
def _():
    limits = {"handshakes": 8, "handshake_timeout": "3s"}
    server = lab.server(config(limits))
    before = server.counters()
    stalled = [raw(server) for _ in range(8)]
    for sock in stalled[4:]:
        sock.sendall(hello()[:40])
    wait_for(lambda: server.counters()["handshakes"] == 8, 5, "eight handshakes")
    check(ended(raw(server), 5) in ("fin", "rst"), "the ninth was let in")
    equal(server.counters()["handshake_rejects"] - before["handshake_rejects"], 1, "rejects")
    for sock in stalled:
        check(ended(sock, 8) in ("fin", "rst"), "a stalled handshake goes on")
    now = server.counters()
    equal(now["handshakes"], 0, "handshakes now")
    equal(now["handshake_failures"] - before["handshake_failures"], 8, "failures")
    # A complete one does not count, and has longer.
    done = [handshake(server) for _ in range(12)]
    equal(server.counters()["handshakes"], 0, "handshakes when complete")
    check(not done[0].pending(), "it was ended")
    binding(done[0])


@test("a stalled reader's handshake ends, too")
def _():
    server = lab.server(config({"handshake_timeout": "1s"}))
    sock = lab.keep(lab.topo.client.connect(server.address(), rcvbuf=2048))
    sock.sendall(hello())
    data, _ = receive_to_any_end(sock, 10)
    check(data[:1] == b"\x16", "no answer before the end")


@test("garbage, plain STUN and half a handshake end the connection, nothing else")
def _():
    server = lab.server(config())
    good = handshake(server)
    plain = stun.Message(stun.BINDING).build()
    whole = hello()
    spoilt = whole[:60] + bytes(len(whole) - 60)
    for what in (bytes(100), b"GET / HTTP/1.1\r\n\r\n", plain, spoilt, whole[:5] + b"\xff" * 600,
                 b"\x16\x03\x01\xff\xff" + bytes(70000), payload(5000)):
        sock = raw(server)
        with contextlib.suppress(OSError):
            sock.sendall(what)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        receive_to_any_end(sock, 10)
    for cut in range(0, len(whole), 37):
        sock = raw(server)
        sock.sendall(whole[:cut])
        sock.close()
    wait_for(lambda: server.counters()["handshakes"] == 0, 5, "no handshake left")
    binding(good)


@test("garbage behind the handshake ends the connection")
def _():
    server = lab.server(config())
    sock = handshake(server)
    binding(sock)
    sock.sock.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
    check(ended(sock.sock, 5) in ("data", "fin", "rst"), "a forged record is taken")
    wait_for(lambda: server.counters()["clients"] == 0, 5, "the client is gone")


@test("requests cut into records of one byte, many requests in one record")
def _():
    server = lab.server(config())
    sock = handshake(server)
    text = stun.Message(stun.BINDING).build()
    for byte in text:
        sock.sendall(bytes([byte]))
    recv_message(sock)
    sock.sendall(text * 300)
    for _ in range(300):
        recv_message(sock)


@test("the largest record, with the bind in it, and its end right behind")
def _():
    lab.server(config())
    client = lab.allocated()
    for size in (1, 100, 15000, 40 * KIB):
        listener = lab.listener()
        cid = client.connect(listener.getsockname())
        peer = lab.accept(listener)
        early = payload(size, size)
        request = client.signed(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(cid))])[0]
        data = handshake(lab.server())
        # One write: bind, bytes and close_notify arrive together.
        with data.lock:
            for at in range(0, len(request + early), tls.RECORD):
                data.tls.write((request + early)[at:at + tls.RECORD])
            with contextlib.suppress(ssl.SSLError):
                data.tls.unwrap()
        data._flush()
        same(receive_to_end(peer), early, f"{size} bytes behind the bind")
        send_all(peer, b"answer", fin=True)
        equal(recv_message(data).code, 0, "ConnectionBind")
        same(receive_to_end(data), b"answer", "answer after the half-close")


@test("a stream cut without close_notify is a reset at the peer, what came before is whole")
def _():
    lab.server(config())
    data, peer, client = lab.pair()
    sent = payload(300 * KIB, 1)
    job = sender(data, sent)
    got = receive(peer, len(sent))
    job.finish()
    data.sock.shutdown(socket.SHUT_WR)
    rest, how = receive_to_any_end(peer)
    same(got + rest, sent, "before the cut")
    equal(how, "rst", "end of a stream that was cut")
    client.close()
    data, peer, _ = lab.pair()
    data.sock.close()
    equal(receive_to_any_end(peer)[1], "rst", "end of a connection that was cut")


@test("a forged record in the middle of a transfer resets both legs")
def _():
    lab.server(config())
    data, peer, _ = lab.pair()
    ping(data, peer)
    data.sock.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
    equal(receive_to_any_end(peer), (b"", "rst"), "what the peer sees")


@test("row 28: a data connection in the clear for a control connection in TLS, and the reverse")
def _():
    both = config()
    both["listener plain"] = {"address": f"0.0.0.0:{lab.topo.relay.free_port()}"}
    for mixed in ("no", "yes"):
        server = lab.server({**both, "server": {"mixed_transports": mixed}})
        port = int(both["listener plain"]["address"].split(":")[1])
        plain = (server.address()[0], port)
        for first, second in (((server.address(), server.tls), (plain, None)),
                              ((plain, None), (server.address(), server.tls))):
            client = lab.keep(Control(lab.topo.client, first[0], tls=first[1]))
            client.allocate()
            listener = lab.listener()
            cid = client.connect(listener.getsockname())
            peer = lab.accept(listener)
            other = Control(lab.topo.client, second[0], tls=second[1])
            other.realm, other.nonce = client.realm, client.nonce
            code = lab.keep(other).code(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(cid))])
            equal(code, 0 if mixed == "yes" else 403, f"mixed_transports = {mixed}")
            if mixed == "yes":
                ping(other.sock, peer)
                continue
            # Nothing is burnt: the right kind of connection binds.
            ping(lab.keep(client.bind(cid)), peer)


@test("`culvertctl connections` says why it is not wire")
def _():
    server = lab.server(config())
    data, peer, _ = lab.pair()
    ping(data, peer)
    used, why = engines.carried_by(server, data)
    equal(used, "copy", "engine")
    check(re.search("TLS.*ktls is no", why), f"why: {why!r}")
    rows = {row["name"]: row for row in server.engines()}
    check(not rows["ktls"]["available"], f"{rows['ktls']}")
    equal([(row["reason"], row["count"]) for row in rows["ktls"]["fallbacks"]], [("off", 1)],
          "data connections that the kernel did not get")


@test("a reload brings a new certificate; a transfer goes on through it", 60)
def _():
    first, second = tls.certificate(lab.dir), tls.certificate(lab.dir, days=31)
    live = [os.path.join(lab.dir, "live.crt"), os.path.join(lab.dir, "live.key")]

    def install(pair):
        for source, path in zip(pair, live):
            shutil.copyfile(source, path)
    install(first)
    server = lab.server(config(certificate=live[0], private_key=live[1]))
    data, peer, client = lab.pair()
    sent = payload(48 * MIB, 2)
    jobs = [sender(data, sent), sender(peer, sent[::-1])]
    got = [Worker(receive, peer, len(sent)), Worker(receive, data, len(sent))]
    new = tls.client_context(second[0])
    for pair, context in ((second, new), (first, server.tls), (second, new)):
        install(pair)
        equal(server.reload(), "reloaded", "reload")
        binding(handshake(server, context))
        try:
            handshake(server, server.tls if context is new else new)
            raise tap.Fail("the old certificate is still shown")
        except ssl.SSLCertVerificationError:
            pass
    for job in jobs:
        job.finish(50)
    equal(digest(got[0].finish()), digest(sent), "to the peer")
    equal(digest(got[1].finish()), digest(sent[::-1]), "to the client")
    within(client.refresh(600), 500, 700, "lifetime by the old control connection")


@test("private keys as text are the supervisor's alone, passwords, too; also after a reload")
def _():
    pair = tls.certificate(lab.dir)
    server = lab.server(config(certificate=pair[0], private_key=pair[1]))
    with open(pair[1], "rb") as file:
        key = file.read().split(b"\n")[1]  # a line of base64
    equal(len(key), 64, "length of the line")
    for when in ("started", "reloaded"):
        binding(handshake(server))
        equal(proc.memory_has(server.process.pid, key), {key}, "in the supervisor, to compare")
        roles = proc.children(server.process.pid)
        check(len(roles) > 1, f"only these processes: {roles}")
        for pid in roles:
            equal(proc.memory_has(pid, key, b"wonderland"), set(), f"in a child when {when}")
        equal(server.reload(), "reloaded", "reload")


@test("a bad certificate is refused whole, by file, line and reason; the old one stays", 60)
def _():
    pair = tls.certificate(lab.dir)
    other = tls.certificate(lab.dir, "other.example.net")
    live = [os.path.join(lab.dir, "bad.crt"), os.path.join(lab.dir, "bad.key")]
    for source, path in zip(pair, live):
        shutil.copyfile(source, path)
    server = lab.server(config(certificate=live[0], private_key=live[1]))
    with open(server.conf_path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    line = {key: next(i for i, text in enumerate(lines, 1) if text.startswith(key))
            for key in ("certificate", "private_key")}
    protected = os.path.join(lab.dir, "protected.key")
    tls.protect(pair[1], protected)
    for key, content, reason in (
            ("certificate", b"", "it holds no certificate in PEM form"),
            ("certificate", b"-----BEGIN CERTIFICATE-----\nnonsense\n", "no certificate"),
            ("private_key", b"", "it holds no private key in PEM form"),
            ("private_key", open(other[1], "rb").read(), "does not belong to the certificate"),
            ("private_key", open(protected, "rb").read(), "protected by a passphrase"),
            ("private_key", None, "cannot be read: No such file")):
        at = 0 if key == "certificate" else 1
        before = len(server.log())
        if content is None:
            os.unlink(live[at])
        else:
            with open(live[at], "wb") as file:
                file.write(content)
        equal(server.reload(), "reload_refused", f"reload with {reason}")
        said = server.log()[before:]
        want = rf"{re.escape(server.conf_path)}:{line[key]}: \[listener main\] {key}: .*{reason}"
        check(re.search(want, said), f"no {want!r} in {said!r}")
        binding(handshake(server))
        shutil.copyfile(pair[at], live[at])
    equal(server.reload(), "reloaded", "reload with the good ones")


@test("--check says what is wrong with certificates")
def _():
    pair, other = tls.certificate(lab.dir), tls.certificate(lab.dir, "other.example.net")
    soon = tls.certificate(lab.dir, days=2)
    node, path = lab.topo.relay, os.path.join(lab.dir, "check.conf")

    def said(**keys):
        lines = [f"{key} = {value}" for key, value in keys.items()]
        with open(path, "w", encoding="utf-8") as file:
            os.chmod(path, 0o600)
            file.write("\n".join(["[realm a]", "[user b]", "password = c", "[listener t]", *lines]))
        done = lab.spawn(node, [binary("culvertd"), "--check", path], "check")
        done.wait(10)
        return done.status, done.out() + done.err()
    good = {"transport": "tls", "certificate": pair[0], "private_key": pair[1]}
    for changes, status, reason in (
            ({}, 0, "ok: 1 listeners"),
            ({"certificate": soon[0], "private_key": soon[1]}, 0, ":6: warning: .*expires on"),
            ({"private_key": other[1]}, 1, ":7: error: .*does not belong"),
            ({"private_key": f"{pair[1]}, {other[1]}"}, 1, ":7: error: .*2 for 1 certificates"),
            ({"ciphers": "NONSENSE"}, 1, ':8: error: .*ciphers: found "NONSENSE"'),
            ({"ciphers": "TLS_NONSENSE"}, 1, ":8: error: .*ciphers"),
            ({"certificate": "relative.pem"}, 1, ":6: error: .*absolute paths"),
            ({"transport": "tcp"}, 1, ":6: error: .*found without TLS"),
            ({"transport": "tls", "certificate": "", "private_key": ""}, 1, "found none")):
        got = said(**{**good, **changes})
        equal(got[0], status, f"status with {changes}: {got[1]}")
        check(re.search(reason, got[1]), f"no {reason!r} in {got[1]!r}")


@test("key updates in the middle of a stream, and asked for by the client")
def _():
    server = lab.server(config())
    host, port = server.address()
    # `K` in s_client updates both sides' keys; it sends what it reads.
    program = lab.spawn(lab.topo.client, [
        "openssl", "s_client", "-connect", f"{host}:{port}", "-tls1_3", "-servername", tls.NAME,
        "-CAfile", tls.certificate(lab.dir)[0]], "s_client", stdin=subprocess.PIPE)
    program.wait_for_text("Post-Handshake New Session Ticket|Verify return code", read=program.out)
    for count in range(1, 4):
        program.child.stdin.write(b"K\n")
        program.child.stdin.flush()
        wait_for(lambda want=count: program.err().count("KEYUPDATE") >= want, 10, "a key update")
    equal(server.counters()["clients"], 1, "clients after key updates")
    # Not STUN: what is read after the updates is still understood, and refused as such.
    program.child.stdin.write(b"hello, this is twenty bytes or more\n")
    program.child.stdin.flush()
    wait_for(lambda: server.counters()["bad_messages"] == 1, 5, "bytes behind the key updates")


@test("renegotiation is refused")
def _():
    server = lab.server(config())
    host, port = server.address()
    program = lab.spawn(lab.topo.client, [
        "openssl", "s_client", "-connect", f"{host}:{port}", "-tls1_2", "-CAfile",
        tls.certificate(lab.dir)[0]], "s_client", stdin=subprocess.PIPE)
    program.wait_for_text("Verify return code", read=program.out)
    program.child.stdin.write(b"R\n")
    program.child.stdin.flush()
    wait_for(lambda: "no renegotiation" in program.err(), 10, "no renegotiation")


# The `culvert` command.


def culvert(*more):
    return cli.Cli(lab, lab.server(config())).over_tls(tls.certificate(lab.dir)[0], *more)


@test("culvert check --tls: all is well")
def _():
    status, process = culvert().run("check", timeout=30)
    equal(status, 0, f"status, said {process.out()}{process.err()}")


@test("culvert forward and listen --tls: 10 connections at once, half-close and all", 60)
def _():
    cli.forward_many(culvert(), 10, 300 * KIB)
    cli.listen_many(culvert(), 10, 300 * KIB)


@test("culvert send and receive --tls: every byte", 60)
def _():
    path, data = cli.make_file(lab, 6 * MIB)
    listener = lab.listener()
    process = culvert().start("send", "--peer", cli.text_of(listener.getsockname()), path)
    peer = lab.accept(listener)
    same(receive_to_end(peer), data, "sent file")
    peer.close()
    equal(process.wait(15), 0, f"status of send: {process.err()}")
    path = os.path.join(lab.dir, "received")
    process = culvert().start("receive", "--allow", lab.topo.peer.addr(), path)
    relayed = cli.address_of(process.wait_for_text(r"relayed (\S+)")[1])
    peer = lab.keep(lab.topo.peer.connect(relayed))
    send_all(peer, data, fin=True)
    equal(process.wait(15), 0, f"status of receive: {process.err()}")
    with open(path, "rb") as file:
        same(file.read(), data, "received file")


@test("culvert --tls refuses a certificate that is not vouched for, or of another name")
def _():
    other = tls.certificate(lab.dir, "other.example.net")[0]
    for options, reason in ((["--ca-file", other], "self-signed certificate"),
                            (["--tls-name", "other.example.net"], "[Hh]ostname mismatch"),
                            (["--tls-name", "192.0.2.7"], "IP address mismatch")):
        status, process = culvert(*options).run("check", timeout=30)
        check(status != 0, f"status 0 with {options}")
        check(re.search(reason, process.out() + process.err()),
              f"no {reason!r} in {process.out()}{process.err()}")
    equal(culvert("--ca-file", other, "--no-verify").run("check", timeout=30)[0], 0,
          "status with --no-verify")


@test("culvert receive --tls: a stream that is cut is no file")
def _():
    path = os.path.join(lab.dir, "cut")
    process = culvert().start("receive", "--allow", lab.topo.peer.addr(), path)
    relayed = cli.address_of(process.wait_for_text(r"relayed (\S+)")[1])
    peer = lab.keep(lab.topo.peer.connect(relayed))
    send_all(peer, payload(MIB))
    reset(peer)
    check(process.wait(15) != 0, "status 0 for a part")


tap.main()
