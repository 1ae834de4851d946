#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Users in a database: SQLite, and PostgreSQL and Redis as they really are, which come and go."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import tap, tls  # noqa: E402
from culvertlab.data import Worker  # noqa: E402
from culvertlab.database import SECRET, Postgresql, Redis, Sqlite, TlsPostgresql, row  # noqa: E402
from culvertlab.lab import Lab, need  # noqa: E402
from culvertlab.server import binary  # noqa: E402
from culvertlab.stun import ALLOCATE, REFRESH  # noqa: E402
from culvertlab.tap import Skip, check, equal, within  # noqa: E402
from culvertlab.turn import elapsed, transport  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
PLENTY = {"limits": {"auth_failures": "0"}}
databases = {}


@contextlib.contextmanager
def readable_authorities(*paths):
    """Copies where the confined relay may read them: below /etc."""
    folder = tempfile.mkdtemp(prefix="culvert-test-", dir="/etc")
    try:
        os.chmod(folder, 0o755)
        yield [shutil.copy(path, os.path.join(folder, f"{number}.crt"))
               for number, path in enumerate(paths)]
    finally:
        shutil.rmtree(folder)


def database(kind):
    """The test's own; a server is started once."""
    if kind not in databases:
        try:
            databases[kind] = kind(lab)
        except Skip as why:
            databases[kind] = why
    if isinstance(databases[kind], Skip):
        raise databases[kind]
    return databases[kind]


def served(base, **more):
    """culvertd with this database."""
    return lab.server({**PLENTY, "database": {"url": base.url, "timeout": "500ms", **more}})


def ctl(server, *args, stdin="", status=0):
    argv = lab.topo.relay.command([binary("culvertctl"), "-c", server.conf_path, *args])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False,
                          input=stdin)
    equal(done.returncode, status, f"culvertctl {args}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def add(server, name, password="sesame"):
    return ctl(server, "user", "add", name, stdin=password + "\n")


def code(user, password="sesame", sha256=False):
    """What an Allocate of a new client is answered with."""
    client = lab.client(user=user, password=password)
    client.sha256 = sha256
    client.challenge()
    return client.code(ALLOCATE, [transport()])


def is_added_changed_and_removed(kind):
    base = database(kind)
    server = served(base)
    equal(code("carol"), 500 if kind is Postgresql else 401, "before there is anybody")
    check("added carol" in add(server, "carol"), "not added")
    wait_for(lambda: code("carol") == 0, 10, "carol is served")
    equal(code("carol", sha256=True), 0, "by user hash and SHA-256")
    equal(code("carol", "wrong"), 401, "a wrong password")
    equal(code("dave"), 401, "nobody")
    check("changed carol" in add(server, "carol", "another"), "not changed")
    equal(code("carol"), 401, "the password of before")
    equal(code("carol", "another"), 0, "the new password")
    check("carol" in ctl(server, "user", "list"), "not listed")
    client = lab.client(user="carol", password="another")
    client.allocate()
    check("removed carol" in ctl(server, "user", "remove", "carol"), "not removed")
    equal(client.code(REFRESH), 401, "of who was removed")
    # As typed, and as clients send it.
    check("added caf\u00e9" in add(server, "cafe\u0301", "se\u00a0same"), "not prepared")
    equal(code("caf\u00e9", "se same", sha256=True), 0, "a name that was prepared")
    ctl(server, "user", "remove", "caf\u00e9")
    ctl(server, "user", "add", "carol", stdin="\u200b\n", status=1)
    said = ctl(server, "user", "add", "carol", stdin="open\0sesame\n", status=1)
    check("NUL" in said, f"of a password with a NUL: {said}")
    ctl(server, "user", "remove", "carol", status=1)
    check("carol" not in ctl(server, "user", "list"), "still listed")


def many_are_served(kind):
    base = database(kind)
    server = served(base)
    add(server, "first")
    rows = [row(f"user{number}", f"pass{number}") for number in range(1000)]
    base.fill(rows)
    before = server.counters()["lookups"]
    for number in range(0, 1000, 4):
        client = lab.client(user=f"user{number}", password=f"pass{number}")
        client.sha256 = number % 8 == 0
        client.allocate()
        client.close()
    equal(server.counters()["lookups"] - before, 250, "lookups")
    check("user999" in ctl(server, "user", "list", "--limit", "2000"), "user999 is not listed")
    check("there are more" in ctl(server, "user", "list"), "the limit does not cut")


def goes_and_comes_back(kind):
    base = database(kind)
    server = served(base)
    for name in ("carol", "erin", "frank"):
        add(server, name)
    wait_for(lambda: code("carol") == 0, 10, "carol is served")
    base.kill()
    equal(code("carol"), 0, "who is remembered")
    equal(code("alice", "wonderland"), 0, "who has a section")
    got, seconds = elapsed(code, "erin")
    equal(got, 500, "who is not remembered")
    within(seconds, 0, 2, "seconds until then")
    base.start()
    wait_for(lambda: code("erin") == 0, 10, "erin is served again")
    equal(code("erin", "wrong"), 401, "and nobody else")
    check(server.log_count("event=database_failed"), "nothing of it in the log")
    wait_for(lambda: server.log_count("event=database_back"), 5, "the log tells of its return")


def stops_and_goes_on(kind):
    base = database(kind)
    server = served(base)
    for name in ("carol", "grace", "heidi"):
        add(server, name)
    wait_for(lambda: code("carol") == 0, 10, "carol is served")
    base.pause()
    slow = lab.client(user="grace", password="sesame")
    slow.challenge()
    waiting = Worker(slow.code, ALLOCATE, [transport()])
    wait_for(lambda: server.counters()["lookups"] >= 2, 5, "a request waits")
    got, seconds = elapsed(code, "carol")
    equal(got, 0, "who is remembered")
    within(seconds, 0, 0.4, "seconds for him")
    equal(code("alice", "wonderland"), 0, "who has a section")
    equal(waiting.finish(), 500, "who waited in vain")
    base.resume()
    wait_for(lambda: code("heidi") == 0, 15, "heidi is served again")


def for_each(name, function, kinds=(Sqlite, Postgresql, Redis), timeout=30):
    for kind in kinds:
        tap.add(f"{kind.__name__}: {name}", lambda kind=kind: function(kind), timeout)


for_each("a user is added, changed, listed and removed while the daemon runs",
         is_added_changed_and_removed)
for_each("1,000 users, by name and by hash", many_are_served)
for_each("killed, nobody gets in who is not remembered; started again, all do",
         goes_and_comes_back, (Postgresql, Redis))
for_each("stopped, it delays those alone that must ask it", stops_and_goes_on,
         (Postgresql, Redis))


@tap.test("requests of one user share one question")
def _():
    base = database(Redis)
    server = served(base, timeout="5s")
    add(server, "ivan")
    wait_for(lambda: code("nobody") == 401, 10, "the connection to the server is there")
    before = base.questions()
    clients = [lab.client(user="ivan", password="sesame") for _ in range(60)]
    for client in clients:
        client.challenge()
    base.pause()
    workers = [Worker(client.code, ALLOCATE, [transport()]) for client in clients]
    wait_for(lambda: server.counters()["lookups"] >= 60, 10, "all wait")
    base.resume()
    for worker in workers:
        within(worker.finish(), 0, 486, "code")
    equal(base.questions() - before, 1, "questions")


@tap.test("names in the database, whoever wrote them, move no terminal and break no JSON")
def _():
    base = Sqlite(lab)
    server = served(base)
    add(server, "carol")
    base.fill([row("evil\x1b[2J\u009b2J\"", "x"), (*row("x", "x")[:2], b"\xff\x9b", b"", b"")])
    said = ctl(server, "user", "list")
    check("evil?[2J??2J" in said and "\x1b" not in said and "\u009b" not in said, repr(said))
    names = {user["user"] for user in json.loads(ctl(server, "--json", "user", "list"))["users"]}
    equal(names, {"carol", "evil\x1b[2J\ufffd\ufffd2J\"", "\ufffd\ufffd"}, "names")
    base.close()


@tap.test("PostgreSQL over TLS: what the URL says of it holds, for the daemon and culvertctl")
def _():
    base = database(TlsPostgresql)
    with readable_authorities(base.authority, tls.certificate(lab.dir)[0]) as (right, wrong):
        verified = base.tls_url(sslmode="verify-full", sslrootcert=right)
        server = lab.server({**PLENTY, "database": {"url": verified, "timeout": "2s"}})
        add(server, "mallory")
        wait_for(lambda: code("mallory") == 0, 10, "mallory is served")
        equal(base.encrypted(), {"culvertd": True}, "what the server says of the connection")
        for options in ({"sslmode": "verify-full", "sslrootcert": wrong}, {"sslmode": "disable"}):
            server = lab.server({**PLENTY, "database": {"url": base.tls_url(**options)}})
            equal(code("mallory"), 500, f"code with {options}")
            wait_for(lambda: server.log_count("event=database_failed"), 5, "the log says so")
            ctl(server, "user", "list", status=1)


@tap.test("the daemon's log has no password, whatever goes wrong")
def _():
    for kind in (Redis, Postgresql):
        base = database(kind)
        for url in (base.url, base.url.replace("culvert:", "culvert:x")):
            server = lab.server({**PLENTY, "database": {"url": url, "timeout": "1s"}})
            wait_for(lambda: code("judy") in (401, 500), 10, "an answer")
            for word in (SECRET, SECRET.replace(" ", ""), SECRET.replace(" ", "%20")):
                check(word not in server.log(), "a password in the log")


@tap.test("by a host's name, where nobody is: 500, behind the filter as well")
def _():
    for url in ("redis://culvert:x@localhost:1/0", "postgresql://culvert:x@localhost:1/users"):
        server = lab.server({**PLENTY, "database": {"url": url, "timeout": "500ms"}})
        equal(code("judy"), 500, url)
        wait_for(lambda: server.log_count("event=database_failed"), 10, "the log tells of it")


@tap.test("another database takes a restart")
def _():
    server = served(database(Sqlite))
    server.sections["database"]["url"] = "redis://localhost/1"
    server.write_config()
    equal(server.reload(), "reload_refused", "reload")
    lab.stop_server()


@tap.test("a URL that is none is refused, and not shown")
def _():
    server = served(database(Sqlite))
    server.sections["database"]["url"] = "redis://culvert:hush@/"
    server.write_config()
    equal(server.reload(), "reload_refused", "reload")
    check("hush" not in server.log(), "a password in the log")
    lab.stop_server()


@tap.test("turnutils_uclient as a user of the database, over UDP and RFC 6062", 40)
def _():
    need("turnutils_uclient", "coturn")
    base = database(Sqlite)
    server = lab.server({**PLENTY, "database": {"url": base.url},
                         "listener udp": {"transport": "udp", "address": f"0.0.0.0:{lab.port}"}})
    add(server, "laura")
    host, port = server.address()
    for form in (["-T"], []):
        process = lab.spawn(lab.topo.client,
                            ["turnutils_uclient", *form, "-y", "-u", "laura", "-w", "sesame",
                             "-p", port, "-m", "2", "-n", "5", "-l", "200", "-c", host],
                            "uclient")
        equal(process.wait(30), 0, f"status, said {process.out()[-400:]}")
        check("Total lost packets 0" in process.out(), process.out()[-400:])
    check(server.counters()["lookups"] >= 1, "nobody was looked up")


tap.at_end(lambda: [base.close() for base in databases.values() if not isinstance(base, Skip)])
tap.main()
