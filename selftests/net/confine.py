#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What is left to somebody who runs code in one of culvertd's processes."""

import errno
import os
import platform
import re
import resource
import signal
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from culvertlab import inject, proc, tap, turn  # noqa: E402
from culvertlab.data import ping  # noqa: E402
from culvertlab.lab import Lab, need_root  # noqa: E402
from culvertlab.tap import check, equal, within  # noqa: E402
from culvertlab.wait import wait_for  # noqa: E402

lab = Lab()
test = tap.test
ROLES = ("supervisor", "broker", "relay")
AF_UNIX, AF_INET, AF_PACKET = 1, 2, 17


def role_pids(server):
    """{role: pid} of a daemon that has all three."""
    relay = server.relay_pid()
    others = [pid for pid in proc.children(server.process.pid) if pid != relay]
    check(others, "there is no broker")
    return {"supervisor": server.process.pid, "broker": others[0], "relay": relay}


def works(server):
    client = lab.keep(turn.Control(lab.topo.client, server.address(), "alice", "wonderland"))
    client.allocate()
    data, peer, _ = lab.pair(client)
    ping(data, peer)


def three_roles(changes=None):
    """A daemon whose broker has started, too."""
    need_root()
    server = lab.server(changes, fresh=True)
    wait_for(lambda: any(row["name"] == "wire" and row["available"] for row in server.engines()),
             10, "wire is there")
    return server


@test("a filter and no new privileges are in force in every role and every thread")
def _():
    server = three_roles()
    for role, pid in role_pids(server).items():
        for thread in os.listdir(f"/proc/{pid}/task"):
            path = f"{pid}/task/{thread}"
            equal(proc.status_field(path, "Seccomp"), "2", f"Seccomp of {role}, thread {thread}")
            equal(proc.status_field(path, "NoNewPrivs"), "1", f"NoNewPrivs of {role}")


@test("capabilities: none in the relay, of the others what their work takes")
def _():
    # kill, setgid, setuid; net_bind_service, net_admin, perfmon, bpf
    start, wire = (5, 6, 7), (10, 12, 38, 39)
    allowed = {"supervisor": start + wire, "broker": wire, "relay": ()}
    server = three_roles()
    for role, pid in role_pids(server).items():
        most = sum(1 << bit for bit in allowed[role])
        for thread in os.listdir(f"/proc/{pid}/task"):
            for field in ("CapEff", "CapPrm"):
                has = int(proc.status_field(f"{pid}/task/{thread}", field), 16)
                equal(has & ~most, 0, f"{field} of {role} beyond {most:#x}")
            for field in ("CapInh", "CapAmb"):
                has = int(proc.status_field(f"{pid}/task/{thread}", field), 16)
                equal(has, 0, f"{field} of {role}")


def dies_of(role, name, *arguments, changes=None):
    """A process of this role that makes this call ends, its log line says why."""
    server = three_roles({"engine": {"order": "wire, splice"}, **(changes or {})})
    pid = role_pids(server)[role]
    server.expect_alive = False
    equal(inject.call(pid, name, *arguments), signal.SIGSYS, f"{name} in the {role}")
    wait_for(lambda: re.search(rf"event=syscall_refused role={role} call={name} ", server.log()),
             5, f"the log names {name}")
    if role == "supervisor":
        equal(server.process.wait(), -signal.SIGSYS, "the supervisor's end")
    else:
        wait_for(lambda: re.search(rf"event={role}_died signal={int(signal.SIGSYS)}",
                                   server.log()), 5, f"the supervisor tells of the {role}'s end")
        if role == "relay":
            wait_for(lambda: server.log_count(r"event=ready") == 2, 10, "ready again")
            works(server)
    lab.stop_server()


CASES = [("relay", "execve", "runs a program", ()), ("relay", "openat", "makes a file", (-100, 0, os.O_CREAT | os.O_RDWR)),
         ("relay", "socket", "opens a UNIX socket", (AF_UNIX, 1)),
         ("relay", "mmap", "makes code", (0, 4096, inject.EXEC, 0x22)),
         ("relay", "io_uring_setup", "sets up an io_uring without that engine", (1,)),
         # From where the lower half of its address is that of none.
         ("relay", "prlimit64", "sets a limit", (0, resource.RLIMIT_CPU, 7 << 32)),
         ("broker", "execve", "runs a program", ()), ("broker", "ptrace", "looks into another", ()),
         ("supervisor", "execve", "runs a program", ())]
NO_DATABASE = {"database": {"url": "none"}}
for _role, _name, _what, _arguments in CASES:
    def _case(role=_role, name=_name, arguments=_arguments):
        inject.need()
        dies_of(role, name, *arguments)
    tap.add(f"a {_role} that {_what} ends, and the log says by which call", _case)


@test("a relay that opens a file where there is no user database ends, too")
def _():
    inject.need()
    dies_of("relay", "openat", -100, changes=NO_DATABASE)


def file_refused(server, path, flags=os.O_RDONLY):
    """Does the relay get EACCES for what its user may open? Behind no filter, for Landlock's sake."""
    relay = server.relay_pid()
    equal(inject.open_file(relay, path, flags), -errno.EACCES, f"{path} opened by the relay")


@test("files: the relay reads what it must and no other, also without a filter")
def _():
    inject.need()
    place = os.path.join(lab.dir, "users")
    os.mkdir(place, 0o755)
    os.chmod(lab.dir, 0o755)
    for name in (place, lab.dir):
        with open(os.path.join(name, "file"), "w", encoding="utf-8") as file:
            os.chmod(file.name, 0o666)
    os.chmod(place, 0o777)
    server = three_roles({"server": {"seccomp": "off"},
                          "database": {"url": f"sqlite:{place}/users.db"}})
    if "event=files_not_refused" in server.log():
        raise tap.Skip("this kernel has no Landlock")
    relay = server.relay_pid()
    within(inject.open_file(relay, f"{place}/file", os.O_RDONLY), 0, 1 << 20, "the users' directory")
    for path in (f"{lab.dir}/file", "/etc/passwd", "/etc/hostname", "/"):
        file_refused(server, path)
    file_refused(server, f"{place}/file", os.O_RDWR)
    file_refused(server, f"{place}/new", os.O_RDWR | os.O_CREAT)
    works(server)


@test("files and signals: the broker opens its pins alone and signals nobody, also without a filter")
def _():
    inject.need()
    server = three_roles({"server": {"seccomp": "off"}})
    if "event=files_not_refused" in server.log():
        raise tap.Skip("this kernel has no Landlock")
    broker = role_pids(server)["broker"]
    for path in ("/etc/passwd", "/", "/proc/sys/kernel/core_pattern", server.conf_path):
        equal(inject.open_file(broker, path, os.O_RDONLY), -errno.EACCES, f"{path} opened")
    equal(inject.open_file(broker, f"{lab.dir}/new", os.O_RDWR | os.O_CREAT), -errno.EACCES, "a new file")
    # Since Linux 6.12; the supervisor's user is the broker's.
    if tuple(map(int, re.findall(r"\d+", platform.release())[:2])) >= (6, 12):
        equal(inject.call(broker, "kill", server.process.pid, 0), -errno.EPERM, "a signal")
    works(server)


@test("seccomp = log lets the call pass, off has no filter")
def _():
    inject.need()
    server = three_roles({"server": {"seccomp": "log"}})
    relay = role_pids(server)["relay"]
    equal(inject.call(relay, "execve"), -errno.EFAULT, "execve of nothing")
    works(server)
    server = three_roles({"server": {"seccomp": "off"}})
    for role, pid in role_pids(server).items():
        equal(proc.status_field(pid, "Seccomp"), "0", f"Seccomp of {role}")
    works(server)


tap.main()
