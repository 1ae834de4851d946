# SPDX-License-Identifier: BSD-2-Clause
"""The relays that are compared, each at its best for this job.

HAProxy splices because it is told to (`option splice-request`, `splice-response`,
`tune.pipesize 1M`); with `splice-auto` it mostly copies here and would look worse than it is.
nginx keeps half-closed connections (`proxy_half_close on`).  All have two workers or threads.
A relay is started anew for every measurement: none profits or suffers from what ran before.
"""

import json
import os
import shutil

from culvertlab.wait import Timeout, wait_for

from .place import (IN_FLIGHT, PEER_FIRST, PEER_PORT, PEERS, SOURCE_FIRST, SOURCES, Broken,
                    MemoryGroup, processes_of, tool, version_of)

NGINX_STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"
USER, PASSWORD = "bench", "bench"


class Relay:
    """One way from client to peer. `turn`: it speaks RFC 6062; otherwise it is dialled."""

    name = ""
    turn = False
    port = 0
    only = None  # names of the cases it is made for; it is no relay beyond them

    def missing(self):
        """Why it cannot run here, or None."""
        return None

    def version(self):
        return None

    def check(self, place):
        """Broken when what ran was not what the name says."""

    def start(self, place, memory=False):
        """Start it; the Running to stop again."""
        group = MemoryGroup() if memory else None
        process = None
        try:
            process = self.launch(place, group)
            running = Running(place, process, group)
            wait_for(lambda: self._answers(place, process), 15, f"{self.name} accepts")
            return running
        except Timeout as error:
            place.end(process)
            raise Broken(str(error)) from error

    def launch(self, place, group):
        raise NotImplementedError

    def _answers(self, place, process):
        if process.status is not None:
            text = (process.err() + process.out()).strip().splitlines()[-3:]
            raise Broken(f"{self.name} ended with status {process.status}: {' | '.join(text)}")
        try:
            place.client.connect((place.relay.addr(), self.port)).close()
            return True
        except OSError:
            return False

    def where(self, place, peer_port=PEER_PORT):
        """How load reaches the peer through this relay."""
        if self.turn:
            return ["--turn", f"{place.relay.addr()}:{self.port}", "--user", USER,
                    "--password", PASSWORD, "--peer", f"{PEER_FIRST}:{peer_port}",
                    "--targets", PEERS, "--source", SOURCE_FIRST, "--sources", SOURCES]
        return ["--connect", f"{place.relay.addr()}:{self.port}",
                "--source", SOURCE_FIRST, "--sources", SOURCES]


class Running:
    """A started relay. Its processes are looked up once they are all there."""

    def __init__(self, place, process, group):
        self.place, self.process, self.group = place, process, group

    def pids(self):
        return processes_of(self.process.pid) if self.process else []

    def stop(self):
        if self.process:
            self.place.end(self.process)
        if self.group:
            self.group.remove()

    def alive(self):
        return not self.process or self.process.status is None


class Direct(Relay):
    """Routed through the relay's namespace without a relay: the physical limit."""

    name = "direct"

    def start(self, place, memory=False):
        return Running(place, None, None)

    def launch(self, place, group):
        raise NotImplementedError

    def where(self, place, peer_port=PEER_PORT):
        return ["--connect", f"{PEER_FIRST}:{peer_port}", "--targets", PEERS,
                "--source", SOURCE_FIRST, "--sources", SOURCES]


class Culvert(Relay):
    """culvertd with one engine."""

    turn = True

    def __init__(self, engine, port, order=None):
        self.name, self.engine, self.port = f"culvert-{engine}", engine, port
        self.order = order or engine

    def missing(self):
        return None if tool("culvertd") else "build/culvertd is not there"

    def engines(self, place):
        text = place.relay.run(tool("culvertctl"), "--socket",
                               os.path.join(place.dir, self.name) + ".sock", "--json", "engines")
        return {row["name"]: row for row in json.loads(text)["engines"]}

    def ready(self, place):
        """What the broker brings may come a moment after the listeners."""
        try:
            wait_for(lambda: self.engines(place)[self.engine]["available"], 5, "engine")
        except Timeout as error:
            reason = self.engines(place)[self.engine]["reason"]
            raise Broken(f"no {self.engine}: {reason}") from error

    def engine_lines(self, place):
        if self.engine != "wire":
            return f"order = {self.order}"
        return (f"order = {self.order}\nwire = always\nwire_pairs = 131072\n"
                f"pin = {place.bpf}/culvert")

    def check(self, place):
        """Broken when other engines carried pairs: the figures would bear the wrong name."""
        rows = self.engines(place)
        others = {name: row["pairs_total"] for name, row in rows.items()
                  if row["pairs_total"] and name != self.engine}
        why = {row["reason"]: row["count"] for row in rows[self.engine].get("fallbacks", [])}
        # What the end of the load has closed before its bind is nothing to join.
        if set(why) == {"state"} and sum(others.values()) <= IN_FLIGHT:
            return
        if others:
            raise Broken(f"not only {self.engine} carried pairs: {others}, why: {why}")

    def version(self):
        return version_of(tool("culvertd"), "--version")

    def launch(self, place, group):
        base = os.path.join(place.dir, self.name)
        write(base + ".conf", f"""
[server]
workers = 2
control = {base}.sock
[listener bench]
address = {place.relay.addr()}:{self.port}
[relay]
address = {place.relay.addr(index=1)}
ports = 10000-65535
[realm bench.example]
[user {USER}]
password = {PASSWORD}
[engine]
{self.engine_lines(place)}
[limits]
allocations_per_user = 100000
""")
        process = place.spawn(place.relay, [tool("culvertd"), "-c", base + ".conf"], self.name,
                              group)
        try:
            process.wait_for_text(r"\bevent=ready\b")
            self.ready(place)
        except (RuntimeError, Timeout) as error:
            place.end(process)
            raise Broken(str(error)) from error
        except Broken:
            place.end(process)
            raise
        return process


class Haproxy(Relay):
    name = "haproxy-splice"
    port = 4010

    def missing(self):
        return None if shutil.which("haproxy") else "haproxy is not installed"

    def version(self):
        return version_of("haproxy", "-v")

    def launch(self, place, group):
        path = os.path.join(place.dir, "haproxy.cfg")
        write(path, f"""
global
    nbthread 2
    maxconn 4600
    tune.pipesize 1048576
defaults
    mode tcp
    option splice-request
    option splice-response
    timeout connect 5s
    timeout client 10m
    timeout server 10m
frontend bench
    bind {place.relay.addr()}:{self.port} backlog 8192
    maxconn 4600
    default_backend peer
backend peer
    server peer {PEER_FIRST}:{PEER_PORT}
""")
        return place.spawn(place.relay, ["haproxy", "-db", "-f", path], self.name, group)


class Nginx(Relay):
    name = "nginx-stream"
    port = 4011

    def missing(self):
        if not shutil.which("nginx"):
            return "nginx is not installed"
        return None if os.path.exists(NGINX_STREAM) else "nginx's stream module is not installed"

    def version(self):
        return version_of("nginx", "-v")

    def launch(self, place, group):
        path = os.path.join(place.dir, "nginx.conf")
        write(path, f"""
load_module {NGINX_STREAM};
daemon off;
user root;
worker_processes 2;
worker_rlimit_nofile 20000;
pid {place.dir}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 9500; }}
stream {{
    server {{
        listen {place.relay.addr()}:{self.port} backlog=8192;
        proxy_pass {PEER_FIRST}:{PEER_PORT};
        proxy_half_close on;
        proxy_timeout 10m;
        tcp_nodelay on;
    }}
}}
""")
        return place.spawn(place.relay, ["nginx", "-p", place.dir, "-c", path], self.name, group)


class Coturn(Relay):
    name = "coturn"
    turn = True
    port = 4012

    def missing(self):
        return None if shutil.which("turnserver") else "coturn is not installed"

    def version(self):
        return "coturn " + (version_of("turnserver", "--version") or "").split()[-1]

    def launch(self, place, group):
        path = os.path.join(place.dir, "turnserver.conf")
        write(path, f"""
listening-ip={place.relay.addr()}
listening-port={self.port}
relay-ip={place.relay.addr(index=1)}
min-port=10000
max-port=65535
relay-threads=2
lt-cred-mech
user={USER}:{PASSWORD}
realm=bench.example
no-tls
no-dtls
no-udp
no-cli
no-stdout-log
simple-log
log-file=/dev/null
pidfile={place.dir}/turnserver.pid
userdb={place.dir}/turnserver.db
""")
        return place.spawn(place.relay, ["turnserver", "-c", path], self.name, group)


class KernelFloor(Relay):
    """floor.c: the system calls of a set-up and nothing else, what any relay has to pay.

    Not a contestant but a measure: it serves anybody, and was made for these cases.
    """

    name = "kernel-floor"
    turn = True
    port = 4013
    only = frozenset(("setup", "setup-pairs"))

    def missing(self):
        return None if tool("floor") else "bench-tools/floor is not built"

    def launch(self, place, group):
        return place.spawn(place.relay, [
            tool("floor"), "--listen", f"{place.relay.addr()}:{self.port}",
            "--relay", place.relay.addr(index=1)], self.name, group)


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.lstrip())


def all_relays():
    return [Direct(), Culvert("wire", 4004, "wire, splice"), Culvert("splice", 4001), Culvert("uring", 4002), Culvert("copy", 4003), Culvert("sockmap", 4005, "sockmap, splice"),
            Haproxy(), Nginx(), Coturn(), KernelFloor()]
