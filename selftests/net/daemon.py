#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""culvertd as a daemon: configuration, reload, privilege, restart, end, and culvertctl."""

import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import engines, proc, tap, turn  # noqa: E402
from culvertlab.data import MIB, ping, swap  # noqa: E402
from culvertlab.lab import Lab, need, need_root  # noqa: E402
from culvertlab.server import Culvertd, binary  # noqa: E402
from culvertlab.stun import ALLOCATE  # noqa: E402
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.turn import ended, transport  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
test = tap.test
DENY_URING = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib",
                                           "deny_uring.py")]


def culvertd(*args):
    """Run culvertd to its end; (status, everything it said)."""
    argv = lab.topo.relay.command([binary("culvertd"), *args])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    return done.returncode, done.stdout + done.stderr


def check_text(text):
    """culvertd --check of this text; (status, output, path)."""
    path = os.path.join(lab.dir, "check.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return (*culvertd("--check", path), path)


def works(server, user="alice", password="wonderland", port=None):
    """A pair through this server carries bytes."""
    address = (server.address()[0], port or server.port)
    client = lab.keep(turn.Control(lab.topo.client, address, user, password))
    client.allocate()
    data, peer, _ = lab.pair(client)
    ping(data, peer)
    return data, peer, client


def refuses(server, user, password):
    with turn.Control(lab.topo.client, server.address(), user, password) as client:
        return client.code(ALLOCATE, [transport()]) == 401


WRONG = """\
[server]
workres = 4
[limits]
connections = many
bind_timeout = 5 parsecs
[listener main]
address = 10.1.2.3.4:99999
[realm example.org]
[user alice]
password = top-secret-word
ha1 = 123
[user bob]
realm = nowhere
password = other-secret-word
[enginee]
[peers]
allow = 10.0.0.0/99
[engine]
order = splice, warp
"""


@test("--check reports every error with file, line, key and what is allowed")
def _():
    status, said, path = check_text(WRONG)
    equal(status, 1, "exit status")
    for line, words in ((2, "workres"), (4, "connections"), (5, "bind_timeout"), (7, "address"),
                        (11, "ha1"), (13, "nowhere"), (15, "enginee"), (17, "allow"),
                        (19, "warp")):
        lines = [t for t in said.splitlines() if t.startswith(f"{path}:{line}:")]
        check(lines, f"no report for line {line} in:\n{said}")
        check(any(words in t for t in lines), f"line {line} does not name {words}: {lines}")
    check("many" in said and "5 parsecs" in said, "what was found is not shown")


@test("--check names the nearest known key and section")
def _():
    _, said, _ = check_text(WRONG)
    check(re.search(r":2: .*\bworkers\b", said), f"workers is not suggested:\n{said}")
    check(re.search(r":15: .*\bengine\b", said), f"engine is not suggested:\n{said}")
    _, said, _ = check_text("[limits]\nbind_timeot = 5s\n")
    check("bind_timeout" in said, f"bind_timeout is not suggested:\n{said}")


@test("--check never shows a password")
def _():
    _, said, _ = check_text(WRONG)
    check("secret-word" not in said, f"a password is shown:\n{said}")
    _, said, _ = check_text("[user alice]\npasswort = top-secret-word\n")
    check("secret-word" not in said, f"a password is shown:\n{said}")


@test("--check accepts a good file with status 0, warns of a short connect_timeout")
def _():
    status, said, _ = check_text("[realm a]\n[user b]\npassword = c\n")
    equal(status, 0, f"exit status, said {said!r}")
    status, said, _ = check_text("[realm a]\n[user b]\npassword = c\n"
                                 "[limits]\nconnect_timeout = 5s\n")
    equal(status, 0, "exit status")
    check("connect_timeout" in said and "warn" in said, f"no warning: {said!r}")


@test("command line: --version and --help are 0, nonsense is 2, a missing file is 1 and named")
def _():
    for option in ("--version", "--help"):
        status, said = culvertd(option)
        equal(status, 0, option)
        check("culvertd" in said, f"{option} said {said!r}")
    equal(culvertd("--nonsense")[0], 2, "--nonsense")
    equal(culvertd("stray")[0], 2, "stray argument")
    status, said = culvertd("-c", "/nonexistent/culvert.conf")
    equal(status, 1, "missing file")
    check("/nonexistent/culvert.conf" in said and "-c FILE" in said, f"said {said!r}")
    equal(culvertd("-V"), culvertd("--version"), "-V")


@test("a certificate that is missing is not taken for a missing configuration")
def _():
    path = os.path.join(lab.dir, "missing.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write("[listener a]\ntransport = tls\ncertificate = /nonexistent/a\n"
                   "private_key = /nonexistent/b\n")
    status, said = culvertd("-c", path)
    equal(status, 1, "exit status")
    check(f"{path}:3:" in said and "-c FILE" not in said, f"said {said!r}")


@test("a configuration with errors does not start and says all of them")
def _():
    path = os.path.join(lab.dir, "bad.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write("[server]\nworkers = lots\nlog_level = loud\n")
    status, said = culvertd("-c", path)
    equal(status, 1, "exit status")
    check(f"{path}:2:" in said and f"{path}:3:" in said, f"said {said!r}")


# Reload

def edited(server, changes):
    """Rewrite the server's file with these changes on top."""
    for section, keys in changes.items():
        server.sections.setdefault(section, {}).update(keys)
    server.write_config()


@test("SIGHUP: a new user works, a removed one is refused, running pairs go on")
def _():
    server = lab.server(fresh=True)
    data, peer, client = works(server)
    _, _, bobs = works(server, "bob", "builder")
    edited(server, {"user carol": {"password": "sings"}})
    del server.sections["user bob"]
    server.write_config()
    equal(server.reload(), "reloaded")
    works(server, "carol", "sings")
    check(refuses(server, "bob", "builder"), "bob may still allocate")
    swap(data, peer, MIB)
    check(client.refresh() > 0, "the old allocation")
    bobs.close()


@test("SIGHUP: a bad file is reported and the old configuration stays")
def _():
    server = lab.server(fresh=True)
    data, peer, _ = works(server)
    server.write_config("[server]\nworkres = 1\n[user dave]\npassword = \n")
    equal(server.reload(), "reload_refused")
    check(re.search(r":2: .*workres", server.log()), "the error is not in the log")
    ping(data, peer)
    works(server)
    check(refuses(server, "dave", "x"), "dave of the bad file may allocate")
    server.write_config()
    equal(server.reload(), "reloaded")
    works(server)


@test("culvertctl reload: good and bad files, with status and words")
def _():
    server = lab.server(fresh=True)
    data, peer, _ = works(server)
    edited(server, {"user carol": {"password": "sings"}})
    server.ctl("reload")
    works(server, "carol", "sings")
    server.write_config("[limits]\nconnections = x\n")
    done = server.ctl("reload", check=False)
    check(done.returncode != 0, "status 0 for a bad file")
    check(f"{server.conf_path}:2" in done.stderr + done.stdout, f"said {done.stderr!r}")
    ping(data, peer)
    works(server, "carol", "sings")


@test("reload: listeners come and go, pairs of a gone listener live on")
def _():
    server = lab.server(fresh=True)
    extra = lab.topo.relay.free_port()
    edited(server, {"listener extra": {"address": f"0.0.0.0:{extra}"}})
    equal(server.reload(), "reloaded")
    data, peer, _ = works(server, port=extra)
    del server.sections["listener extra"]
    server.write_config()
    equal(server.reload(), "reloaded")

    def gone():
        try:
            lab.topo.client.connect((server.address()[0], extra), timeout=1).close()
            return False
        except OSError:
            return True
    wait_for(gone, 5, "the listener is gone")
    ping(data, peer)
    works(server)


@test("reload: limits and engine order apply to what comes after")
def _():
    server = lab.server(fresh=True)
    edited(server, {"engine": {"order": "copy"}, "limits": {"allocations_per_user": 1}})
    equal(server.reload(), "reloaded")
    works(server)
    engines = {row["engine"] for row in server.ctl_json("connections")["connections"]}
    equal(engines, {"copy"}, "engines in use")
    with turn.Control(lab.topo.client, server.address()) as second:
        equal(second.code(ALLOCATE, [transport()]), 486, "second allocation")


@test("reload: what needs a restart is refused and says so")
def _():
    server = lab.server(fresh=True)
    edited(server, {"server": {"workers": 3}})
    equal(server.reload(), "reload_refused")
    check(re.search(r"reload_refused.*workers.*restart", server.log()), "the log does not say why")
    works(server)


@test("many reloads under load lose no pair and leak no descriptor", 40)
def _():
    server = lab.server(fresh=True)
    data, peer, _ = works(server)
    equal(server.reload(), "reloaded")
    base = server.fds()
    for _ in range(20):
        equal(server.reload(), "reloaded")
        ping(data, peer)
    wait_for(lambda: server.fds() <= base, 5, f"descriptors back to {base}, now {server.fds()}")


# Privilege and processes

@test("the relay runs as another user and holds no capability")
def _():
    need_root()
    server = lab.server()
    pid = server.relay_pid()
    check(pid != server.process.pid, "there is no relay process apart from the supervisor")
    for field in ("Uid", "Gid"):
        check("0" not in proc.status_field(pid, field).split(), f"{field} of the relay is root")
    for field in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        equal(int(proc.status_field(pid, field), 16), 0, f"{field} of the relay")
    equal(proc.status_field(pid, "Groups"), "", "supplementary groups")
    caps = int(proc.status_field(server.process.pid, "CapEff"), 16)
    # Beside kill, setgid and setuid what it takes to start a broker again: net_bind_service,
    # net_admin, perfmon, bpf.
    allowed = sum(1 << bit for bit in (5, 6, 7, 10, 12, 38, 39))
    equal(caps & ~allowed, 0, "CapEff of the supervisor beyond these")
    server = lab.server({"engine": {"wire": "never"}})
    caps = int(proc.status_field(server.process.pid, "CapEff"), 16)
    equal(caps & ~(1 << 5 | 1 << 6 | 1 << 7), 0,
          "CapEff of a supervisor without a broker beyond kill, setgid and setuid")


@test("the relay killed is started again and serves; its log says so")
def _():
    server = lab.server({"engine": {"order": "splice"}}, fresh=True)
    data, peer, _ = works(server)
    old = server.relay_pid()
    os.kill(old, signal.SIGKILL)
    for sock in (data, peer):
        check(ended(sock, 5) in ("fin", "rst"), "a connection outlives the relay")
    wait_for(lambda: re.search(r"event=relay_died signal=9", server.log()), 5, "relay_died")
    wait_for(lambda: server.log_count(r"event=ready") == 2, 10, "ready again")
    check(server.relay_pid() != old, "the same relay")
    works(server)
    server.ctl("status")
    server.expect_alive = False
    lab.stop_server()


@test("the supervisor killed takes the relay with it; a new start replaces the stale socket")
def _():
    server = lab.extra_server({"listener main": {"address": f"0.0.0.0:{lab_port()}"}})
    relay = server.relay_pid()
    os.kill(server.process.pid, signal.SIGKILL)
    server.expect_alive = False
    server.process.wait()
    wait_for(lambda: proc.has_ended(relay), 5, "the relay ends")
    check(os.path.exists(server.control), "a stale socket is needed for this test")
    again = lab.extra_server({"listener main": {"address": f"0.0.0.0:{lab_port()}"},
                              "server": {"control": server.control}})
    again.control = server.control
    again.ctl("status")
    again.stop()


_ports = []


def lab_port():
    """A free port that no other server of this script has."""
    while True:
        port = lab.topo.relay.free_port()
        if port not in _ports:
            _ports.append(port)
            return port


def ends_cleanly(signum):
    port = lab_port()
    server = lab.extra_server({"listener main": {"address": f"0.0.0.0:{port}"}}, port=port)
    data, peer, client = works(server)
    relay = server.relay_pid()
    equal(server.process.stop(signum, 5), 0, "exit status")
    check(not os.path.exists(server.control), "the control socket is left")
    check(not os.path.exists(f"/proc/{relay}"), "the relay is left")
    for sock in (data, peer, client.sock):
        check(ended(sock, 2) in ("fin", "rst"), "a connection is left open")
    server.expect_alive = False
    server.health()


@test("SIGTERM ends it with status 0, connections closed, socket removed")
def _():
    ends_cleanly(signal.SIGTERM)


@test("SIGINT, as of Ctrl-C, alike")
def _():
    ends_cleanly(signal.SIGINT)


@test("Ctrl-C on a terminal, which reaches every process at once, alike")
def _():
    port = lab_port()
    server = lab.extra_server({"listener main": {"address": f"0.0.0.0:{port}"}}, port=port)
    os.kill(server.relay_pid(), signal.SIGINT)
    equal(server.process.stop(signal.SIGINT, 5), 0, "exit status")
    check(not os.path.exists(server.control), "the control socket is left")
    server.expect_alive = False
    server.health()


def fails_to_start(changes, prefix=(), **more):
    server = Culvertd(lab, changes, prefix=prefix, wait=False, **more)
    server.expect_alive = False
    try:
        status = server.process.wait(5)
    finally:
        server.process.kill()
    check(status not in (0, None), f"status {status}")
    return server.log(), status


@test("a port in use by another program: status 1 and a message with the address")
def _():
    other = lab.keep(lab.topo.relay.listen())
    host, port = other.getsockname()
    said, status = fails_to_start({"listener main": {"address": f"{host}:{port}"}})
    equal(status, 1, "exit status")
    check(re.search(rf"{re.escape(host)}:{port}.*in use", said), f"said {said!r}")


@test("a port in use by another culvertd: status 1, the other one is not disturbed")
def _():
    server = lab.server()
    said, status = fails_to_start({"listener main": {"address": f"0.0.0.0:{server.port}"}})
    equal(status, 1, "exit status")
    check(re.search(rf"0\.0\.0\.0:{server.port}.*in use", said), f"said {said!r}")
    works(server)


@test("a control socket in use: status 1, a message, the other daemon is not disturbed")
def _():
    server = lab.server()
    said, status = fails_to_start({"server": {"control": server.control},
                                   "listener main": {"address": f"0.0.0.0:{lab_port()}"}})
    equal(status, 1, "exit status")
    check(server.control in said, f"said {said!r}")
    server.ctl("status")


@test("an address this host does not have: status 1 and a message")
def _():
    said, status = fails_to_start({"listener main": {"address": "192.0.2.77:3478"}})
    equal(status, 1, "exit status")
    check("192.0.2.77:3478" in said, f"said {said!r}")


@test("a relayed address or a device this host does not have: the log says which")
def _():
    changes = engines.config(lab, "wire", relay={"address": "192.0.2.77"})
    changes["engine"]["wire_devices"] = "nosuch0"
    server = lab.server(changes)
    equal(lab.client().code(ALLOCATE, [transport()]), 508, "Allocate")
    for told in ("allocate_failed host=192.0.2.77 .*hint=", "device_missing device=nosuch0 hint="):
        wait_for(lambda told=told: re.search(told, server.log()), 5, told)


def nobody():
    need_root()
    need("setpriv", "util-linux")
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]


def nobodys_directory():
    path = os.path.join(lab.dir, "nobody")
    os.makedirs(path, exist_ok=True)
    os.chown(path, 65534, 65534)
    return path


@test("started without root it serves, and says what is off")
def _():
    prefix, port = nobody(), lab_port()
    changes = {"server": {"control": os.path.join(nobodys_directory(), "control.sock")},
               "listener main": {"address": f"0.0.0.0:{port}, [::]:{port}"}}
    server = lab.extra_server(changes, prefix=prefix, port=port, owner=65534)
    server.control = changes["server"]["control"]
    equal(proc.status_field(server.relay_pid(), "Uid").split()[0], "65534", "uid")
    for pid in (server.process.pid, server.relay_pid()):
        # Root's, though the process is not: no core file, no ptrace by its user.
        equal(os.stat(f"/proc/{pid}/mem").st_uid, 0, "owner of the process's memory")
    check(re.search(r"unprivileged", server.log()), "the log does not say it is unprivileged")
    works(server)
    server.ctl("status")
    server.stop()


@test("started without root on a low port: status 1 and a hint")
def _():
    prefix = nobody()
    changes = {"server": {"control": os.path.join(nobodys_directory(), "low.sock")},
               "listener main": {"address": "0.0.0.0:443"}}
    said, status = fails_to_start(changes, prefix=prefix, owner=65534)
    equal(status, 1, "exit status")
    check("0.0.0.0:443" in said and "root" in said, f"said {said!r}")


@test("io_uring forbidden: the next engine is taken, logged exactly once")
def _():
    port = lab_port()
    changes = {"server": {"workers": 4}, "engine": {"order": "uring, splice"},
               "listener main": {"address": f"0.0.0.0:{port}, [::]:{port}"}}
    server = lab.extra_server(changes, prefix=DENY_URING, port=port)
    pairs = [works(server)[:2] for _ in range(8)]
    rows = server.ctl_json("connections")["connections"]
    equal({row["engine"] for row in rows}, {"splice"}, "engines in use")
    for data, peer in pairs:
        swap(data, peer, MIB)
    told = [t for t in server.log().splitlines() if "uring" in t and "unavailable" in t]
    equal(len(told), 1, f"log lines about uring {told}")
    row = [e for e in server.ctl_json("engines")["engines"] if e["name"] == "uring"][0]
    check(not row["available"] and row["reason"], f"culvertctl engines says {row}")
    server.stop()


@test("no engine of the order works: it does not start, or says why")
def _():
    port = lab_port()
    changes = {"engine": {"order": "uring"}, "listener main": {"address": f"0.0.0.0:{port}"}}
    said, _ = fails_to_start(changes, prefix=DENY_URING, port=port)
    check("uring" in said, f"said {said!r}")


@test("a log nobody reads does not stop the relay", 40)
def _():
    port = lab_port()
    fifo = os.path.join(lab.dir, "log.fifo")
    os.mkfifo(fifo)
    unread = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    changes = {"listener main": {"address": f"0.0.0.0:{port}"}, "server": {"log_level": "debug"}}
    prefix = ["sh", "-c", 'exec "$@" 2>"$0"', fifo]
    server = lab.extra_server(changes, prefix=prefix, port=port, wait=False)
    wait_for(lambda: accepts(server), 10, "the server accepts")
    for _ in range(600):
        client = turn.Control(lab.topo.client, server.address())
        client.allocate()
        client.close()
    works(server)
    os.close(unread)
    works(server)
    server.stop()


def accepts(server):
    try:
        lab.topo.client.connect(server.address(), timeout=1).close()
        return True
    except OSError:
        return False


@test("no password in the log at debug level")
def _():
    server = lab.server(fresh=True)
    works(server)
    check(refuses(server, "alice", "wrong-password"), "the wrong password was taken")
    server.reload()
    for secret in ("wonderland", "builder", "wrong-password"):
        check(secret not in server.log(), f"{secret} is in the log")


@test("log lines are key=value with level and room")
def _():
    server = lab.server()
    works(server)
    lines = [t for t in server.log().splitlines() if t]
    odd = [t for t in lines if not re.match(r"(\S+ )?level=\w+ room=\w+ .*event=\w+", t)]
    equal(odd, [], "odd lines")


# culvertctl and the control socket

@test("culvertctl status: for people and as JSON")
def _():
    server = lab.server(fresh=True)
    works(server)
    data = server.ctl_json("status")
    equal(data["total"]["relaying"], 1, "relaying")
    equal(data["total"]["allocations"], 1, "allocations")
    equal(data["workers"], 2, "workers")
    said = server.ctl("status")
    check("allocations" in said and "{" not in said, f"said {said!r}")


@test("culvertctl allocations and connections show what is there, bytes and engine")
def _():
    server = lab.server(fresh=True)
    data, peer, client = works(server)
    swap(data, peer, MIB)
    rows = server.ctl_json("allocations")["allocations"]
    equal(len(rows), 1, "allocations")
    equal(rows[0]["user"], "alice", "user")
    check(rows[0]["relayed"] == "{}:{}".format(*client.relayed), f"relayed in {rows[0]}")

    def counted():
        row = server.ctl_json("connections")["connections"][0]
        both = row["bytes_to_peer"], row["bytes_to_client"]
        return row if min(both) >= MIB + 4 else None
    row = wait_for(counted, 5, "bytes counted")
    equal((row["bytes_to_peer"], row["bytes_to_client"]), (MIB + 4, MIB + 4), "bytes")
    equal(row["state"], "relaying", "state")
    check(row["engine"] in ("wire", "splice", "uring", "copy"), f"engine in {row}")
    said = server.ctl("connections")
    check(row["id"] in said and "alice" in said, f"table {said!r}")
    said = server.ctl("allocations")
    check("alice" in said and rows[0]["relayed"] in said, f"table {said!r}")


@test("culvertctl connections shows more than a worker tells of in one go")
def _():
    server = lab.server({"server": {"workers": 1}, "limits": {"pending_binds": 4000}}, fresh=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    client = lab.allocated(on=server)
    client.permit(lab.topo.peer.addr())
    for _ in range(2100):
        lab.keep(lab.topo.peer.connect(client.relayed))
        client.attempt()
    for limit, shown in ((100000, 2100), (1500, 1500), (10, 10)):
        said = server.ctl_json("connections", "--limit", str(limit))
        equal(len({row["id"] for row in said["connections"]}), shown, f"rows, limit {limit}")
        equal((len(said["connections"]), said["total"]), (shown, 2100), f"limit {limit}")


@test("culvertctl kick: one connection, then the allocation; an unknown id is an error")
def _():
    server = lab.server(fresh=True)
    data, peer, client = works(server)
    other, far, _ = lab.pair(client)
    peer_name = "{}:{}".format(*peer.getsockname())
    row = [r for r in server.ctl_json("connections")["connections"] if r["peer"] == peer_name][0]
    server.ctl("kick", row["id"])
    for sock in (data, peer):
        check(ended(sock, 5) in ("fin", "rst"), "the kicked connection is open")
    ping(other, far)
    server.ctl("kick", row["allocation"])
    for sock in (other, far):
        check(ended(sock, 5) in ("fin", "rst"), "a connection of the kicked allocation is open")
    done = server.ctl("kick", "c0.999999", check=False)
    check(done.returncode != 0 and done.stderr, "no error for an unknown id")
    works(server)


@test("culvertctl drain: nothing new, the old goes on; --undo takes it back")
def _():
    server = lab.server(fresh=True)
    data, peer, client = works(server)
    server.ctl("drain")
    equal(server.ctl_json("status")["draining"], True, "draining")
    with turn.Control(lab.topo.client, server.address()) as late:
        equal(late.code(ALLOCATE, [transport()]), 508, "new allocation")
    ping(data, peer)
    ping(*lab.pair(client)[:2])
    check(client.refresh() > 0, "Refresh while draining")
    server.ctl("drain", "--undo")
    works(server)


@test("culvertctl engines lists every engine with its state")
def _():
    server = lab.server()
    works(server)
    rows = {e["name"]: e for e in server.ctl_json("engines")["engines"]}
    equal(sorted(rows), ["copy", "ktls", "sockmap", "splice", "uring", "wire"], "engines")
    check(rows["splice"]["available"] and rows["splice"]["position"] == 2, f"splice: {rows}")
    equal(rows["wire"]["position"], 1, "place of wire")
    check(rows["wire"]["available"] or rows["wire"]["reason"], f"wire: {rows['wire']}")
    check("splice" in server.ctl("engines"), "table")


@test("culvertctl stop ends the daemon with status 0")
def _():
    port = lab_port()
    server = lab.extra_server({"listener main": {"address": f"0.0.0.0:{port}"}}, port=port)
    server.expect_alive = False
    server.ctl("stop")
    equal(server.process.wait(10), 0, "exit status")
    server.health()


@test("culvertctl: wrong usage is 2, no server is an error with the path")
def _():
    argv = [binary("culvertctl"), "--socket", "/nonexistent/control.sock"]
    done = subprocess.run([*argv, "status"], capture_output=True, text=True, check=False)
    check(done.returncode not in (0, 2), f"status {done.returncode}")
    check("/nonexistent/control.sock" in done.stderr, f"said {done.stderr!r}")
    for wrong in (["nonsense"], [], ["kick"]):
        done = subprocess.run([*argv, *wrong], capture_output=True, text=True, check=False)
        equal(done.returncode, 2, f"status for {wrong}")
        check(done.stderr, f"silence for {wrong}")


@test("the control socket is a 0660 socket")
def _():
    mode = os.stat(lab.server().control).st_mode
    check(stat.S_ISSOCK(mode), "not a socket")
    equal(oct(stat.S_IMODE(mode)), oct(0o660), "mode")


@test("culvertctl of another user is refused, in words")
def _():
    server = lab.server()
    argv = [*nobody(), binary("culvertctl"), "--socket", server.control, "stop"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    equal(done.returncode, 1, f"status of culvertctl as nobody, {done.stderr}")
    check("no permission to use" in done.stderr, f"said {done.stderr!r}")


def asked(server, line):
    return json.loads(server.control_request(line))


@test("control protocol: version 1, several requests on one connection")
def _():
    server = lab.server()
    answer = asked(server, b'{"v":1,"cmd":"status"}\n')
    equal((answer["v"], answer["ok"], answer["cmd"]), (1, True, "status"), "answer")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(server.control)
        sock.sendall(b'{"v":1,"cmd":"status"}\n{"v":1,"cmd":"engines"}\n')
        sock.sendall(b'{"v":1,"cmd":"allo')
        sock.sendall(b'cations"}\n')
        with sock.makefile("rb") as lines:
            answers = [json.loads(lines.readline()) for _ in range(3)]
        equal([a["cmd"] for a in answers], ["status", "engines", "allocations"], "answers")


@test("control protocol: nonsense is answered with an error or an end, and harms nobody")
def _():
    server = lab.server()
    base = server.fds()
    for line in (b"nonsense\n", b"{}\n", b'{"v":1}\n', b'{"v":2,"cmd":"status"}\n',
                 b'{"v":1,"cmd":"frobnicate"}\n', b'{"v":1,"cmd":7}\n', b'[1,2]\n', b'"status"\n',
                 b'{"v":1,"cmd":"kick"}\n', b'{"v":1,"cmd":"connections","limit":-1}\n',
                 b"\x00\xff\xfe\n", b'{"v":1,"cmd":"status"' + b" " * 5000 + b"}\n",
                 b"[" * 4000 + b"\n", b"x" * 100000):
        try:
            reply = server.control_request(line)
        except (ConnectionResetError, BrokenPipeError):
            continue
        except TimeoutError:
            raise tap.Fail(f"no answer to {line[:40]!r}, {len(line)} bytes") from None
        if reply:
            answer = json.loads(reply)
            check(answer["ok"] is False and answer["error"], f"{line[:40]!r}: {answer}")
    server.ctl("status")
    wait_for(lambda: server.fds() <= base, 5, f"descriptors back to {base}")


@test("control_clients: more than allowed are refused, a freed place is given again")
def _():
    server = lab.server({"limits": {"control_clients": 3}})
    waiting = []
    for _ in range(8):
        sock = lab.keep(socket.socket(socket.AF_UNIX))
        sock.settimeout(0.2)
        sock.connect(server.control)
        waiting.append(sock)

    def refused(sock):
        try:
            return sock.recv(4096) == b"" or True
        except socket.timeout:
            return False
        except ConnectionResetError:
            return True
    within(sum(refused(sock) for sock in waiting), 5, 6, "refused of 8 with room for 3")
    for sock in waiting:
        sock.close()
    wait_for(lambda: server.ctl("status", check=False).returncode == 0, 5, "room again")


@test("culvertctl top shows itself on a terminal and ends")
def _():
    server = lab.server()
    works(server)
    main, sub = os.openpty()
    argv = [binary("culvertctl"), "--socket", server.control, "top"]
    child = subprocess.Popen(argv, stdin=sub, stdout=sub, stderr=sub,
                             env={**os.environ, "TERM": "xterm"})
    os.close(sub)
    seen = b""
    os.set_blocking(main, False)

    def shown():
        nonlocal seen
        try:
            seen += os.read(main, 65536)
        except BlockingIOError:
            pass
        return b"alice" in seen
    try:
        wait_for(shown, 5, "top shows the connection's user")
        child.send_signal(signal.SIGINT)
        within(child.wait(5), 0, 130, "status of top after Ctrl-C")
    finally:
        child.kill()
        child.wait()
        os.close(main)


tap.main()
