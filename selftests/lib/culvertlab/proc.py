# SPDX-License-Identifier: BSD-2-Clause
"""Processes with captured logs, and what /proc tells about them."""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess

from .wait import Timeout, wait_for

SYS_PIDFD_GETFD = 438  # on every architecture
SANITIZER = re.compile(r"(ERROR: (Address|Leak|Thread)Sanitizer|runtime error:)")


class Process:
    """A command running on a node with stdout and stderr in files of their own."""

    def __init__(self, node, argv, directory, label, env=None, stdin=subprocess.DEVNULL):
        self.label = label
        self.out_path = os.path.join(directory, f"{label}.out")
        self.err_path = os.path.join(directory, f"{label}.err")
        with open(self.out_path, "wb") as out, open(self.err_path, "wb") as err:
            self.child = subprocess.Popen(node.command([*_mortal(), *map(str, argv)]), stdin=stdin,
                                          stdout=out, stderr=err, env={**os.environ, **(env or {})})

    @property
    def pid(self):
        return self.child.pid

    @property
    def status(self):
        """Exit status, None while it runs."""
        return self.child.poll()

    def out(self):
        return _read(self.out_path)

    def err(self, since=0):
        """What it has written to stderr, beyond the first `since` bytes."""
        return _read(self.err_path, since)

    def err_size(self):
        return os.path.getsize(self.err_path)

    def wait_for_text(self, pattern, timeout=10, read=None):
        """Wait until the log holds a match; fails at once when the process ends without one."""
        read = read or self.err

        def found():
            ended = self.status is not None
            match = re.search(pattern, read())
            if not match and ended:
                raise RuntimeError(f"{self.label} ended with status {self.status} before "
                                   f"saying {pattern!r}: {self.tail(5)}")
            return match
        return wait_for(found, timeout, f"{self.label} says {pattern!r}")

    def wait(self, timeout=20):
        """Wait for its end; the exit status."""
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise Timeout(f"{self.label} still runs after {timeout} s") from error

    def stop(self, signum=signal.SIGTERM, timeout=10):
        """Signal it and return its status; a process that does not obey is killed."""
        if self.status is None:
            self.child.send_signal(signum)
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Timeout(f"{self.label} did not end {timeout} s after signal {signum}") from None

    def kill(self):
        family = [self.pid, *descendants(self.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.child.wait()
        # What they held, ports above all, is free when they are gone.
        wait_for(lambda: all(map(has_ended, family[1:])), 10, f"the end of {self.label}'s children")

    def tail(self, count=25):
        return self.err().splitlines()[-count:]

    def sanitizer_report(self):
        """The lines around a sanitizer's complaint, empty without one."""
        lines = self.err().splitlines()
        for number, line in enumerate(lines):
            if SANITIZER.search(line):
                return lines[max(0, number - 1):number + 25]
        return []


def _mortal():
    """Command prefix: dies with us, even when we are killed."""
    return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []


def _read(path, since=0):
    with open(path, "rb") as file:
        file.seek(since)
        return file.read().decode(errors="replace")


def children(pid):
    """Direct children of a process."""
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, IndexError):
            if entry.isdigit() and _parent(entry) == pid:
                found.append(int(entry))
    return sorted(found)


def _parent(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def descendants(pid):
    found = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def status_field(pid, field):
    """A field of /proc/PID/status as text."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith(field + ":"):
                return line.split(":", 1)[1].strip()
    raise KeyError(field)


def has_ended(pid):
    """Gone; or dead in a container whose first process does not wait for orphans.

    The first thread may be dead while others still are to go, and with them the descriptors.
    """
    try:
        return status_field(pid, "State").startswith("Z") \
            and len(os.listdir(f"/proc/{pid}/task")) == 1
    except OSError:
        return True


def fd_count(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def fd_copy(pid, number):
    """A copy of a descriptor of another process; None when it has no such."""
    process = os.pidfd_open(pid)
    try:
        got = ctypes.CDLL(None).syscall(SYS_PIDFD_GETFD, process, number, 0)
        return got if got >= 0 else None
    finally:
        os.close(process)


def memory_has(pid, *texts):
    """Which of these byte strings stand anywhere in the process's writable memory."""
    found = set()
    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps, open(f"/proc/{pid}/mem", "rb") as mem:
        for line in maps:
            span, rights = line.split()[:2]
            low, high = (int(end, 16) for end in span.split("-"))
            if not rights.startswith("rw"):
                continue
            try:
                mem.seek(low)
                data = mem.read(high - low)
            except (OSError, ValueError, OverflowError):
                continue  # of a device
            found |= {text for text in texts if text in data}
    return found


def rss_kib(pid):
    return int(status_field(pid, "VmRSS").split()[0])
