#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Credentials: what RFC 8489 9.2 asks of a server, answer by answer, and that RFC 5389 clients
see nothing of it."""

import os
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import stun, tap  # noqa: E402
from culvertlab.cli import Cli  # noqa: E402
from culvertlab.data import Worker, ping  # noqa: E402
from culvertlab.lab import Lab  # noqa: E402
from culvertlab.stun import ALGORITHM_MD5, ALGORITHM_SHA256, ALLOCATE, REFRESH  # noqa: E402
from culvertlab.tap import check, equal  # noqa: E402
from culvertlab.turn import Closed, ended, recv_message, transport  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
test = tap.test
BOTH = ALGORITHM_SHA256 + ALGORITHM_MD5


def modern(**more):
    """A client of RFC 8489 that has been challenged."""
    client = lab.client(**more)
    client.sha256 = True
    client.challenge()
    return client


def replaced(msg, changes):
    """The message with these attributes' values changed; None takes one out."""
    msg.attrs = [(kind, changes.get(kind, value)) for kind, value in msg.attrs
                 if changes.get(kind, value) is not None]
    return msg


def answer(client, changes, method=ALLOCATE):
    """The answer to a request of this client with some attributes changed before it is signed."""
    msg = replaced(client.message(method, [transport()]), changes)
    return client.exchange(msg, client.key, sha256=client.sha256)


@test("a challenge offers SHA-256 before MD5, and the nonce's cookie says so")
def _():
    response = lab.client().challenge()
    equal(response.get(stun.PASSWORD_ALGORITHMS), BOTH, "PASSWORD-ALGORITHMS")
    equal(stun.features(response.get(stun.NONCE)),
          stun.PASSWORD_ALGORITHMS_BIT | stun.USERNAME_ANONYMITY, "features")
    for kind in (stun.USERNAME, stun.USERHASH, stun.MESSAGE_INTEGRITY,
                 stun.MESSAGE_INTEGRITY_SHA256):
        check(response.get(kind) is None, f"{kind:#x} in a challenge")


@test("an RFC 8489 client by user hash and SHA-256: allocate, refresh, pair, every answer so signed")
def _():
    client = modern()
    client.allocate()
    client.refresh()
    data, peer, _ = lab.pair(client)
    ping(data, peer)
    ping(*lab.incoming(client))
    equal(client.code(ALLOCATE, [transport()]), 437, "an error is signed, too")


@test("an RFC 5389 client is answered with MESSAGE-INTEGRITY")
def _():
    client = lab.allocated()
    response = client.insist(REFRESH)
    check(response.get(stun.MESSAGE_INTEGRITY), "no MESSAGE-INTEGRITY")
    check(response.get(stun.MESSAGE_INTEGRITY_SHA256) is None, "MESSAGE-INTEGRITY-SHA256")


@test("either name, by either algorithm, is one user")
def _():
    client = modern()
    client.allocate()
    equal(answer(client, {}, REFRESH).code, 0, "by hash")
    named = client.message(REFRESH)
    named.attrs[0] = (stun.USERNAME, client.user.encode())
    equal(client.exchange(named, client.key, sha256=True).code, 0, "by name")
    client.sha256 = False
    client.refresh()
    check(client.refresh() > 0, "by MD5")


@test("400: algorithms that are not those of the challenge, before the password is looked at")
def _():
    client = modern()
    good = client.password
    lists = {"MD5 alone: bidden down": ALGORITHM_MD5, "SHA-256 alone": ALGORITHM_SHA256,
             "the other order": ALGORITHM_MD5 + ALGORITHM_SHA256, "none": None, "empty": b"",
             "one more": BOTH + b"\0\3\0\0", "torn": BOTH[:6]}
    ones = {"none": None, "empty": b"", "unknown": b"\0\3\0\0", "both": BOTH,
            "with parameters": b"\0\2\0\4abcd", "torn": b"\0\2"}
    for password in (good, "wrong"):
        client.password = password
        for name, value in lists.items():
            equal(answer(client, {stun.PASSWORD_ALGORITHMS: value}).code, 400, f"list: {name}")
        for name, value in ones.items():
            response = answer(client, {stun.PASSWORD_ALGORITHM: value})
            equal(response.code, 400, f"algorithm: {name}")
            for kind in (stun.NONCE, stun.REALM, stun.USERNAME, stun.USERHASH):
                check(response.get(kind) is None, f"{kind:#x} in the 400")
    client.password = good
    client.allocate()


@test("400: integrity of either kind without user, realm or nonce, or with a user twice")
def _():
    client = modern()
    for kind in (stun.USERHASH, stun.REALM, stun.NONCE):
        equal(answer(client, {kind: None}).code, 400, f"without {kind:#x}")
    msg = client.message(ALLOCATE, [transport(), (stun.USERNAME, b"alice")])
    equal(client.exchange(msg, client.key, sha256=True).code, 400, "USERNAME and USERHASH")
    client.allocate()


@test("401: a wrong password or a user hash nobody has, with a whole challenge")
def _():
    client = modern()
    for changes, password in (({}, "wrong"), ({stun.USERHASH: bytes(32)}, "wonderland"),
                              ({stun.USERHASH: b"short"}, "wonderland")):
        client.password = password
        response = answer(client, changes)
        equal(response.code, 401, f"{changes} {password}")
        equal(response.get(stun.PASSWORD_ALGORITHMS), BOTH, "PASSWORD-ALGORITHMS")
        equal(response.get(stun.REALM), b"example.org", "realm")
        check(response.get(stun.NONCE) not in (None, client.nonce), "no new nonce")
    client.password = "wonderland"
    client.allocate()


@test("401: an integrity cut short, for TURN does not provide for it")
def _():
    client = modern()
    msg = client.message(ALLOCATE, [transport()])
    raw = msg.build(client.key, sha256=True, cut=16)
    client.sock.sendall(raw)
    equal(client.response(msg.txid).code, 401)


@test("438: a nonce whose features were taken out is not ours; the new challenge is whole")
def _():
    for features in (b"AAAA", b"gAAA", b"QAAA"):
        client = lab.client()
        client.challenge()
        whole = client.nonce
        client.nonce = whole[:9] + features + whole[13:]
        response = answer(client, {})
        equal(response.code, 438, f"RFC 5389 client, features {features}")
        equal(response.get(stun.PASSWORD_ALGORITHMS), BOTH, "PASSWORD-ALGORITHMS")
        client.sha256 = True
        equal(answer(client, {}).code, 438, f"RFC 8489 client, features {features}")
        client.adopt(response)
        client.allocate()


@test("438: a nonce that has aged, for an RFC 8489 client, too")
def _():
    client = modern(changes={"limits": {"nonce_lifetime": "1s"}})
    client.allocate()
    response = wait_for(lambda: (r := answer(client, {}, REFRESH)).code == 438 and r, 5, "438")
    equal(response.get(stun.PASSWORD_ALGORITHMS), BOTH, "PASSWORD-ALGORITHMS")
    client.adopt(response)
    client.refresh()


def digests(user, password, *kinds):
    makers = {"md5": stun.key_md5, "sha256": stun.key_sha256}
    return {"ha1": [makers[kind](user, "example.org", password).hex() for kind in kinds]}


@test("users with digests: both kinds serve both clients, SHA-256 alone only the new")
def _():
    changes = {"user carol": digests("carol", "wonder", "sha256", "md5"),
               "user dave": digests("dave", "wonder", "sha256")}
    for user in ("carol", "dave"):
        client = modern(user=user, password="wonder", changes=changes)
        client.allocate()
    lab.allocated(user="carol", password="wonder", changes=changes)
    old = lab.client(user="dave", password="wonder", changes=changes)
    equal(old.code(ALLOCATE, [transport()]), 401, "an RFC 5389 client of dave")


@test("a user with MD5 alone keeps its realm on MD5, after a reload as well")
def _():
    server = lab.server({})
    before = modern()
    server.sections["user carol"] = digests("carol", "wonder", "md5")
    server.write_config()
    equal(server.reload(), "reloaded")
    try:
        response = lab.client(on=server).challenge()
        equal(response.get(stun.PASSWORD_ALGORITHMS), ALGORITHM_MD5, "PASSWORD-ALGORITHMS")
        lab.allocated(on=server, user="carol", password="wonder")
        before.allocate()
        old = lab.client(on=server)
        old.sha256 = True
        old.challenge()
        equal(answer(old, {stun.PASSWORD_ALGORITHMS: BOTH}).code, 400, "what was not offered")
    finally:
        del server.sections["user carol"]
        server.write_config()
        equal(server.reload(), "reloaded")


@test("culvert takes SHA-256 where it is offered, and MD5 where that is all")
def _():
    sha256_alone = {"user alice": {**digests("alice", "wonderland", "sha256"), "password": None}}
    status, process = Cli(lab, lab.server(sha256_alone)).run("check")
    equal(status, 0, f"status of check, said {process.out()} {process.err()}")
    md5_alone = {"user alice": {**digests("alice", "wonderland", "md5"), "password": None}}
    status, process = Cli(lab, lab.server(md5_alone)).run("check")
    equal(status, 0, f"status of check, said {process.out()} {process.err()}")


SECRETS = {"user alice": None, "user bob": None,
           "realm example.org": {"secret": ["the new one", "the old one"],
                                 "allocations_per_user": 2}}


def temporary(seconds, user="alice", secret="the new one", sha256=False, changes=None):
    """A client with credentials that a service made, good for so long."""
    name = f"{int(time.time()) + seconds}:{user}"
    client = lab.client(user=name, password=stun.temporary(secret, name),
                        changes=changes or SECRETS)
    client.sha256 = sha256
    return client


@test("time-limited: by either secret and algorithm, with a whole pair; the challenge fits")
def _():
    for secret in ("the new one", "the old one"):
        for sha256 in (False, True):
            client = temporary(3600, "carol", secret, sha256)
            response = client.challenge()
            equal(stun.features(response.get(stun.NONCE)), stun.PASSWORD_ALGORITHMS_BIT,
                  "features: nobody is asked for a user hash")
            client.allocate()
            ping(*lab.pair(client)[:2])
            client.refresh(0)
    equal(temporary(3600, secret="another").code(ALLOCATE, [transport()]), 401, "another secret")
    rows = lab.server(SECRETS).ctl_json("allocations")["allocations"]
    check(all(row["user"] == "carol" for row in rows), f"users {rows}")


@test("time-limited: names that are none, or that would forge a log line, are 401")
def _():
    for name in ("alice", "99999999999:a b", "99999999999:a\nlevel=error", "99999999999x",
                 "99999999999999999999999:alice"):
        client = lab.client(user=name, password=stun.temporary("the new one", name),
                            changes=SECRETS)
        equal(client.code(ALLOCATE, [transport()]), 401, repr(name))


@test("time-limited: when the time is up nothing is made or prolonged, what there is goes on")
def _():
    server = lab.server(SECRETS)
    failures = server.counters()["auth_failures"]
    client = temporary(3)
    client.allocate()
    data, peer, _ = lab.pair(client)
    equal(wait_for(lambda: client.code(REFRESH), 10, "Refresh is refused"), 401)
    check(server.counters()["auth_expired"] > 0, "not counted")
    ping(data, peer)
    client.permit(lab.topo.peer.addr())
    ping(*lab.pair(client)[:2])
    twin = lab.keep(client.other())
    equal(twin.code(ALLOCATE, [transport()]), 401, "Allocate")
    equal(server.counters()["auth_failures"], failures, "taken for guesses")
    equal(client.refresh(0), 0, "giving it back")


@test("time-limited: who has but what was good once is a stranger, and closed as one")
def _():
    client = temporary(-10, changes={**SECRETS, "limits": {"unauthenticated_timeout": "1s"}})

    def closed():
        try:
            equal(client.code(ALLOCATE, [transport()]), 401, "Allocate")
        except (Closed, OSError):
            return True
        return False
    wait_for(closed, 5, "the end of it")


@test("time-limited: newer credentials of the same user go on with the allocation, another's not")
def _():
    client = temporary(60)
    client.allocate()
    newer, other = temporary(120), temporary(60, "bob")
    for who, code in ((other, 441), (newer, 0)):
        client.user, client.password = who.user, who.password
        equal(client.code(REFRESH), code, f"Refresh by {who.user}")


@test("time-limited: the quota counts by the user, not by the time before it")
def _():
    for seconds in (60, 61):
        temporary(seconds, "dave").allocate()
    equal(temporary(62, "dave").code(ALLOCATE, [transport()]), 486, "the third")
    temporary(60, "bob").allocate()


@test("time-limited: a secret that is taken out ends what it made, at the next Refresh")
def _():
    server = lab.server(SECRETS)
    old, new = temporary(60, "old", "the old one"), temporary(60, "new")
    old.allocate()
    new.allocate()
    server.sections["realm example.org"]["secret"] = "the new one"
    server.write_config()
    equal(server.reload(), "reloaded")
    equal(old.code(REFRESH), 401, "by the old secret")
    new.refresh()
    server.sections["realm example.org"]["secret"] = SECRETS["realm example.org"]["secret"]
    server.write_config()
    equal(server.reload(), "reloaded")


@test("guessing: a source that failed too often is not heard, who is in goes on, others come in")
def _():
    server = lab.server({"limits": {"auth_failures": 6}})
    before = server.counters()
    inside, other, guesser = lab.allocated(), lab.allocated(), lab.client(password="guess")
    for number in range(6):
        equal(guesser.code(ALLOCATE, [transport()]), 401, f"guess {number}")
    guesser.password = "wonderland"
    guesser.sock.sendall(guesser.signed(ALLOCATE, [transport()])[0])
    equal(ended(guesser.sock), "fin", "the right password, too late")
    late = lab.client()
    late.challenge()
    late.sock.sendall(late.signed(ALLOCATE, [transport()])[0])
    equal(ended(late.sock), "fin", "another connection from there")
    inside.nonce = b"stale"
    check(inside.refresh() > 0, "who is in, by a new nonce")
    ping(*lab.pair(inside)[:2])
    for who, user, password in ((inside, "alice", "guess"), (other, "bob", "builder")):
        who.user, who.password = user, password
        who.sock.sendall(who.signed(REFRESH)[0])
        equal(ended(who.sock), "fin", f"{user} by who is in as alice")
    now = server.counters()
    equal(now["auth_failures"] - before["auth_failures"], 6, "auth_failures")
    equal(now["auth_limited"] - before["auth_limited"], 4, "auth_limited")
    equal(server.log_count(r"event=guessing client=\S+ failures=6 "), 1, "log lines")


class Impostor:
    """Answers the first request of one connection with this challenge."""

    def __init__(self, *attrs):
        self.listener, self.attrs = lab.keep(lab.topo.relay.listen()), attrs
        self.requests = Worker(self._serve)

    def address(self, _version=4):
        return self.listener.getsockname()[:2]

    def _serve(self):
        sock = lab.accept(self.listener)
        request = recv_message(sock)
        challenge = stun.Message(request.method, stun.ERROR, [
            (stun.ERROR_CODE, b"\0\0\4\1Unauthenticated"), (stun.REALM, b"example.org"),
            *self.attrs], request.txid)
        sock.sendall(challenge.build())
        return sock.recv(4096)


@test("culvert does not answer a challenge whose algorithms were taken out or are unknown")
def _():
    for attrs, words in (([], "weaker credentials"),
                         ([(stun.PASSWORD_ALGORITHMS, b"\0\7\0\0")], "no password algorithm")):
        impostor = Impostor((stun.NONCE, b"obMatJos2gAAAnonce"), *attrs)
        status, process = Cli(lab, impostor).run("receive", "--allow", lab.topo.peer.addr(),
                                                 os.path.join(lab.dir, "nothing"))
        check(status != 0, "status 0")
        check(words in process.out() + process.err(), f"said {process.out()} {process.err()}")
        equal(impostor.requests.finish(10), b"", "what came after the challenge")


tap.main()
