# SPDX-License-Identifier: BSD-2-Clause
"""Where a measurement runs: three namespaces, its processes, the relay's memory cgroup.

Beyond the addresses of culvertlab's topology the peer answers on every address of 10.78.0.0/16
and the client may speak from every address of 10.79.0.0/24, without configuring them one by one
("local" routes): RFC 6062 knows one connection per allocation and peer address, and fast
set-ups must not run out of ports.  The relay's namespace routes between the two: that is the
path of the relay called `direct`.
"""

import contextlib
import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from culvertlab import proc, topo

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
PEER_PORT = 5001
PEER_FIRST = "10.78.0.1"
PEERS = 65000
SOURCE_FIRST = "10.79.0.1"
SOURCES = 250
IN_FLIGHT_MOST = 1024  # as the load takes
CONGESTION = os.environ.get("BENCH_CONGESTION") or "cubic"  # of every TCP socket of a run


def _in_flight():
    text = os.environ.get("BENCH_IN_FLIGHT") or "32"
    if not text.isdecimal() or not 1 <= int(text) <= IN_FLIGHT_MOST:
        sys.exit(f"BENCH_IN_FLIGHT: '{text}' is not a number of set-ups, 1 to {IN_FLIGHT_MOST}")
    return int(text)


IN_FLIGHT = _in_flight()  # set-ups at once


class Broken(Exception):
    """A measurement that could not be made; its text is the reason shown."""


class Wrong(Broken):
    """The relay garbled what it carried."""


def tool(name):
    """A program of the build; `bench-tools` have a directory of their own."""
    for directory in (BUILD, os.path.join(BUILD, "bench-tools")):
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK):
            return path
    return None


class Place:
    """Namespaces, a directory, and every process started here; close() ends and removes all."""

    def __init__(self):
        topo.collect_garbage()
        collect_cgroups()
        self.dir = tempfile.mkdtemp(prefix="culvert-bench-")
        os.chmod(self.dir, 0o755)
        self.bpf = os.path.join(self.dir, "bpf")  # where wire pins its maps
        os.mkdir(self.bpf)
        topo.run("mount", "-t", "bpf", "bpf", self.bpf)
        self.processes = []
        self.serial = 0
        self.topo = None
        try:
            self.topo = topo.Topology()
            self._routes()
        except BaseException:
            self.close()
            raise
        self.client, self.relay, self.peer = self.topo.client, self.topo.relay, self.topo.peer

    def _routes(self):
        net = self.topo
        net.client.run("ip", "route", "add", "local", "10.79.0.0/24", "dev", "lo")
        net.peer.run("ip", "route", "add", "local", "10.78.0.0/16", "dev", "lo")
        net.relay.run("ip", "route", "add", "10.78.0.0/16", "via", net.peer.addr())
        net.relay.run("ip", "route", "add", "10.79.0.0/24", "via", net.client.addr())
        # Not the host's: where that is BBR, these cores would be busy with its pacing timers, and
        # segments of one connection overtake each other (of 6 million 170,000).
        tcp = [f"ipv4.tcp_congestion_control={CONGESTION}"]
        # Closed connections of one relay's turn must not cost the next one its ports.
        ports = [*tcp, "ipv4.ip_local_port_range=1024 65535", "ipv4.tcp_tw_reuse=1"]
        for node, settings in ((net.client, ports),
                               (net.relay, ports + ["ipv4.ip_forward=1", "core.somaxconn=8192"]),
                               (net.peer, [*tcp, "core.somaxconn=8192"])):
            for setting in settings:
                node.run("sysctl", "-q", "-w", f"net.{setting}")

    def spawn(self, node, argv, label, cgroup=None, **more):
        """Start a program on a node; it dies with us, and sits in the cgroup from its start."""
        self.serial += 1
        argv = ["setpriv", "--pdeathsig", "TERM", "--", *argv]
        if cgroup:
            argv = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', cgroup.procs, *argv]
        process = proc.Process(node, argv, self.dir, f"{label}-{self.serial}", **more)
        self.processes.append(process)
        return process

    def end(self, process):
        """Stop a process and forget its logs."""
        if process.status is None:
            with contextlib.suppress(Exception):
                process.stop(signal.SIGTERM, 5)
        if process.child.stdin:
            process.child.stdin.close()
        if process in self.processes:
            self.processes.remove(process)
        for path in (process.out_path, process.err_path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def close(self):
        for process in list(self.processes):
            self.end(process)
        if self.topo:
            self.topo.remove()
        subprocess.run(["umount", self.bpf], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(self.dir, ignore_errors=True)
        collect_cgroups(own=True)


@contextlib.contextmanager
def place():
    """A Place that goes away on errors, Ctrl-C, SIGTERM and SIGHUP alike."""
    def stop(signum, _frame):
        sys.exit(128 + signum)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, stop)
    made = Place()
    try:
        yield made
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        made.close()


def processes_of(pid):
    """A process and all its descendants: nginx and culvertd work in children."""
    return [pid, *proc.descendants(pid)]


def cpu_seconds(pids):
    """User and system time of processes with all their threads; one that is gone counts 0."""
    tick = os.sysconf("SC_CLK_TCK")
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / tick


class MemoryGroup:
    """A memory cgroup, v2 or v1.  `user` is anonymous memory; `kernel` is what the kernel keeps
    for these processes: sockets, files, epoll items, pipes, page tables, socket buffers."""

    def __init__(self):
        base, self.version = _memory_base()
        self.path = os.path.join(base, f"culvert-bench-{os.getpid()}-{time.monotonic_ns()}")
        os.mkdir(self.path)
        self.procs = os.path.join(self.path, "cgroup.procs")
        if self.version == 1:
            # Version 1 charges accepted sockets and socket buffers only below a limit of them.
            with open(os.path.join(self.path, "memory.kmem.tcp.limit_in_bytes"), "w",
                      encoding="utf-8") as file:
                file.write(str(1 << 40))

    def read(self):
        """(user bytes, kernel bytes)"""
        stat = dict(line.split() for line in self._text("memory.stat").splitlines())
        if self.version == 2:
            return int(stat["anon"]), int(stat["kernel"]) + int(stat["sock"])
        kernel = int(self._text("memory.kmem.usage_in_bytes"))
        return int(stat["rss"]), kernel + int(self._text("memory.kmem.tcp.usage_in_bytes"))

    def _text(self, name):
        with open(os.path.join(self.path, name), encoding="utf-8") as file:
            return file.read()

    def remove(self):
        with contextlib.suppress(OSError):
            os.rmdir(self.path)


def _memory_base():
    """The directory new groups are made in, and the cgroup version; Broken without one."""
    with open("/proc/mounts", encoding="utf-8") as file:
        mounts = [line.split() for line in file]
    for _, path, kind, options, *_ in mounts:
        if kind == "cgroup" and "memory" in options.split(","):
            return path, 1
        if kind == "cgroup2":
            with open(os.path.join(path, "cgroup.controllers"), encoding="utf-8") as file:
                if "memory" not in file.read().split():
                    continue
            with open(os.path.join(path, "cgroup.subtree_control"), "r+",
                      encoding="utf-8") as file:
                if "memory" not in file.read().split():
                    file.write("+memory")
            return path, 2
    raise Broken("no memory cgroup")


def collect_cgroups(own=False):
    """Remove groups whose maker is gone, or our own."""
    for path in glob.glob("/sys/fs/cgroup/culvert-bench-*") + \
            glob.glob("/sys/fs/cgroup/memory/culvert-bench-*"):
        maker = os.path.basename(path).split("-")[2]
        if own == (maker == str(os.getpid())) and (own or not os.path.exists(f"/proc/{maker}")):
            with contextlib.suppress(OSError):
                os.rmdir(path)


def version_of(*argv):
    """The first line a program says about itself, or None."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else None
