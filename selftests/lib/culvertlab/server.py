# SPDX-License-Identifier: BSD-2-Clause
"""The programs under test: culvertd with its configuration and control, and coturn beside it."""

import contextlib
import copy
import json
import os
import re
import signal
import socket
import subprocess

from . import proc, tls, topo
from .tap import Fail
from .wait import Timeout, wait_for

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
PINS = "/sys/fs/bpf/culvert"  # [engine] pin: below it a directory for each network namespace
COMING = re.compile("the broker is loading")  # what `culvertctl engines` says meanwhile


def binary(name):
    return os.path.join(BUILD, name)


def config_text(sections):
    """INI text from {section: {key: value}}."""
    lines = []
    for section, keys in sections.items():
        lines.append(f"[{section}]")
        for key, value in keys.items():
            values = value if isinstance(value, list) else [value]  # a key given several times
            lines += [f"{key} = {one}" for one in values]
        lines.append("")
    return "\n".join(lines)


def merge(base, changes):
    """base with changes on top; None removes a key or a section."""
    merged = copy.deepcopy(base)
    for section, keys in (changes or {}).items():
        if keys is None:
            merged.pop(section, None)
            continue
        target = merged.setdefault(section, {})
        for key, value in keys.items():
            if value is None:
                target.pop(key, None)
            else:
                target[key] = value
    return merged


class Culvertd:
    """One running culvertd.  Its log is stderr; it is ready when it says so."""

    def __init__(self, lab, changes=None, prefix=(), port=None, wait=True, owner=None,
                 node=None):
        """`node`: where it runs, the topology's relay unless given."""
        self.lab = lab
        self.number = lab.next_number()
        self.label = f"culvertd{self.number}"
        self.port = port or lab.port
        self.control = os.path.join(lab.dir, f"{self.label}.sock")
        self.conf_path = os.path.join(lab.dir, f"{self.label}.conf")
        self.changes = changes
        self.sections = merge(self._base(), changes)
        self.tls = self._client_context()
        self.write_config()
        if owner is not None:
            os.chown(self.conf_path, owner, owner)
        argv = [*topo.as_ordinary_user(), *prefix, binary("culvertd"), "-c", self.conf_path]
        self.node = node or lab.topo.relay
        self.process = proc.Process(self.node, argv, lab.dir, self.label, _sanitizer_env())
        lab.processes.append(self.process)
        self.expect_alive = True
        if wait:
            self.process.wait_for_text(r"\bevent=ready\b")
            self._kernel_engines_settle()

    def _base(self):
        base = {"server": {"workers": 2, "control": self.control, "log_level": "debug"},
                "listener main": {"address": f"0.0.0.0:{self.port}, [::]:{self.port}"},
                "realm example.org": {},
                "user alice": {"password": "wonderland"},
                "user bob": {"password": "builder"}}
        if not self.lab.topo.isolated:
            base["peers"] = {"allow": "127.0.0.0/8, ::1"}
        return base

    def _client_context(self):
        """What a client of the main listener needs for TLS; None when it is not for TLS."""
        main = self.sections["listener main"]
        if main.get("transport") != "tls":
            return None
        return tls.client_context(*main["certificate"].split(", "))

    def _kernel_engines_settle(self):
        """wire and sockmap come with the broker, a moment after the listeners."""
        named = self.sections.get("engine", {}).get("order", "wire, splice, uring, copy")
        if "wire" not in named and "sockmap" not in named:
            return

        def loaded():
            return not any(row["name"] in named and COMING.search(row["reason"])
                           for row in self.engines())
        # Fail: a test's own configuration has its control socket elsewhere.
        with contextlib.suppress(Timeout, Fail):
            wait_for(loaded, 30)

    def engines(self):
        """The rows of `culvertctl engines`."""
        return self.ctl_json("engines")["engines"]

    def write_config(self, text=None):
        with open(self.conf_path, "w", encoding="utf-8") as file:
            os.chmod(self.conf_path, 0o600)  # it holds passwords
            file.write(config_text(self.sections) if text is None else text)

    def address(self, version=4):
        return self.lab.topo.relay.addr(version), self.port

    def log(self):
        return self.process.err()

    def log_count(self, pattern):
        return len(re.findall(pattern, self.log()))

    def pids(self):
        """The supervisor, the relay and the broker."""
        return [self.process.pid, *proc.children(self.process.pid)]

    def relay_pid(self):
        """The relay process: the child of the supervisor that holds the listening sockets."""
        pids = proc.children(self.process.pid)
        if not pids:
            return self.process.pid
        return max(pids, key=_socket_count)

    def broker_pid(self):
        """The child of the supervisor that is not the relay."""
        relay = self.relay_pid()
        others = [pid for pid in proc.children(self.process.pid) if pid != relay]
        if len(others) != 1:
            raise Fail(f"{len(others)} processes beside the relay")
        return others[0]

    def kill_hard(self, pids):
        """kill -9; what the daemon itself says of it is expected."""
        self.expect_alive = False
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: all(proc.has_ended(pid) for pid in pids), 10, "killed processes are gone")

    def fds(self):
        return proc.fd_count(self.relay_pid())

    def rss_kib(self):
        return proc.rss_kib(self.relay_pid())

    def ctl(self, *args, check=True):
        """culvertctl with these arguments; its stdout."""
        argv = self.node.command([binary("culvertctl"), "--socket", self.control, *args])
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        if check and done.returncode:
            raise Fail(f"culvertctl {' '.join(args)}: {done.returncode} {done.stderr.strip()}")
        return done.stdout if check else done

    def ctl_json(self, *args):
        """The data of a culvertctl --json answer."""
        answer = json.loads(self.ctl("--json", *args))
        return answer.get("data", answer)

    def control_request(self, line):
        """One raw line to the control socket; the raw reply line."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(self.control)
            sock.sendall(line)
            reply = b""
            while not reply.endswith(b"\n"):
                part = sock.recv(65536)
                if not part:
                    break
                reply += part
            return reply

    def reload(self):
        """SIGHUP; waits for the log to say how it went: "reloaded" or "reload_refused"."""
        before = self.process.err_size()
        self.process.child.send_signal(signal.SIGHUP)
        return wait_for(lambda: self._reloads(before), 10, "the log tells of a reload")[-1]

    def _reloads(self, since):
        return re.findall(r"event=(reloaded|reload_refused|reload_failed)\b",
                          self.process.err(since))

    def counters(self):
        return self.ctl_json("status")["total"]

    def health(self):
        """Raise when it crashed or a sanitizer complained."""
        refused = re.findall(r".*event=syscall_refused.*", self.log())
        if refused and self.expect_alive:
            raise Fail("a role made a system call that its code does not state: " + refused[0])
        report = self.process.sanitizer_report()
        if report:
            raise Fail("sanitizer report:\n" + "\n".join(report))
        if self.expect_alive and self.process.status is not None:
            raise Fail(f"{self.label} ended with {self.process.status}")
        if self.expect_alive and re.search(r"event=relay_died", self.log()):
            raise Fail(f"{self.label}: the relay process died")

    def stop(self):
        """Clean end by SIGTERM; anything but status 0 is a failure."""
        if self.process.status is None:
            status = self.process.stop(signal.SIGTERM)
            if status:
                raise Fail(f"{self.label} ended with {status} after SIGTERM")
        self.expect_alive = False
        self.health()


def _socket_count(pid):
    try:
        return sum("socket:" in os.readlink(f"/proc/{pid}/fd/{fd}")
                   for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return -1


def _sanitizer_env():
    return {"ASAN_OPTIONS": "abort_on_error=0:detect_leaks=1:exitcode=99",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99"}


class Coturn:
    """coturn's turnserver with one user, as a peer implementation."""

    def __init__(self, lab, changes=None, port=None, pair=None, udp=False):
        """`pair`: certificate and key; TLS is spoken on self.tls_port, too. `udp`: UDP as well."""
        self.lab, self.changes = lab, changes
        self.tls = None
        self.tls_port = lab.topo.relay.free_port() if pair else None
        self.port = port or lab.port
        label = f"coturn{lab.next_number()}"
        relay = lab.topo.relay
        argv = ["turnserver", "-n", "--listening-port", self.port, "--lt-cred-mech",
                "--user", "alice:wonderland", "--user", "bob:builder", "--realm", "example.org",
                "--no-dtls", *([] if udp else ["--no-udp"]), "--no-cli", "--simple-log",
                "--fingerprint",
                "--log-file", "stdout", "--relay-threads", "2",
                "--pidfile", f"{lab.dir}/{label}.pid", "--userdb", f"{lab.dir}/{label}.db"]
        argv += ["--tls-listening-port", self.tls_port, "--cert", pair[0], "--pkey", pair[1]] \
            if pair else ["--no-tls"]
        for version in lab.topo.versions:
            argv += ["-L", relay.addr(version), "-E", relay.addr(version)]
        if not lab.topo.isolated:
            argv.append("--allow-loopback-peers")
        self.process = proc.Process(relay, argv, lab.dir, label)
        lab.processes.append(self.process)
        self.expect_alive = True
        wait_for(self._answers, 10, "coturn accepts connections")

    def _answers(self):
        try:
            self.lab.topo.client.connect(self.address()).close()
            return True
        except OSError:
            return False

    def address(self, version=4):
        return self.lab.topo.relay.addr(version), self.port

    def log(self):
        return self.process.out()

    def health(self):
        if self.expect_alive and self.process.status is not None:
            raise Fail(f"coturn ended with {self.process.status}")

    def stop(self):
        self.expect_alive = False
        self.process.kill()
