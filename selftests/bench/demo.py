#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""demo.py: a file each way through culvertd, between three network namespaces.

client - relay - peer: the client is the `culvert` command, the peer a plain TCP program that has
never heard of TURN. Beside it the same file is sent directly, without a relay; both take turns
three times. DEMO_MIB sets the file's size (default 1024).
"""

import hashlib
import json
import os
import re
import shutil
import statistics
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]

from culvertlab.wait import Timeout, wait_for  # noqa: E402
from benchlib.place import BUILD, cpu_seconds, place, processes_of, tool  # noqa: E402

PLAIN = [sys.executable, os.path.join(HERE, "benchlib", "plain.py")]
PORT, USER, PASSWORD = 5001, "demo", "through-the-bank"
DEADLINE = 300
RUNS = 3


def say(text):
    print(text, flush=True)


def roomy_directory(size):
    """Memory when it has room for the file and its copy, else the build directory."""
    for path in ("/dev/shm", BUILD):
        if os.path.isdir(path) and shutil.disk_usage(path).free > 3 * size:
            return path
    sys.exit(f"demo: needs {3 * size >> 20} MiB free in /dev/shm or {BUILD}; "
             "or run: DEMO_MIB=64 make demo")


def make_file(path, size):
    """Random bytes; their SHA-256."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        left = size
        while left:
            block = os.urandom(min(left, 1 << 20))
            file.write(block)
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Demo:
    """The file, the places and the server."""

    def __init__(self, where, directory, size):
        self.where, self.size = where, size
        self.source = os.path.join(directory, "source")
        self.copy = os.path.join(directory, "copy")
        self.control = os.path.join(where.dir, "control.sock")
        say(f"A file of {size >> 20} MiB of random bytes ...")
        self.digest = make_file(self.source, size)
        self.server = self.start_server()
        self.failed = False

    def start_server(self):
        conf = os.path.join(self.where.dir, "culvert.conf")
        with open(conf, "w", encoding="utf-8") as file:
            file.write(f"[server]\ncontrol = {self.control}\n"
                       f"[listener demo]\naddress = {self.where.relay.addr()}:3478\n"
                       f"[relay]\naddress = {self.where.relay.addr(index=1)}\n"
                       f"[realm demo.example]\n[user {USER}]\npassword = {PASSWORD}\n")
        server = self.where.spawn(self.where.relay, [tool("culvertd"), "-c", conf], "culvertd")
        server.wait_for_text(r"\bevent=ready\b")
        return server

    def plain(self, node, *argv):
        return self.where.spawn(node, [*PLAIN, *argv], "plain")

    def client(self, command, *argv):
        argv = [tool("culvert"), command, "-s", f"{self.where.relay.addr()}:3478", "-u", USER,
                *argv]
        return self.where.spawn(self.where.client, argv, f"culvert-{command}",
                                env={"CULVERT_PASSWORD": PASSWORD})

    def finish(self, *processes):
        """Wait for all; what the first, the plain one at the peer, printed last."""
        for process in processes:
            status = process.wait(DEADLINE)
            if status:
                raise RuntimeError(f"{process.label} ended with {status}: "
                                   f"{' | '.join(process.tail(3))}")
        return json.loads(processes[0].out().strip().splitlines()[-1])

    def receiver(self, node):
        process = self.plain(node, "receive", node.addr(), PORT, self.copy)
        process.wait_for_text("ready", read=process.out)
        return process

    def direct_up(self):
        receiver = self.receiver(self.where.peer)
        sender = self.plain(self.where.client, "send", self.where.peer.addr(), PORT, self.source)
        return self.finish(receiver, sender)

    def direct_down(self):
        receiver = self.receiver(self.where.client)
        sender = self.plain(self.where.peer, "send", self.where.client.addr(), PORT, self.source)
        return self.finish(sender, receiver)

    def relayed_up(self):
        receiver = self.receiver(self.where.peer)
        sender = self.client("send", "--peer", f"{self.where.peer.addr()}:{PORT}", self.source)
        engine = self.engine(sender)
        return {**self.finish(receiver, sender), "engine": engine}

    def relayed_down(self):
        receiver = self.client("receive", "--allow", self.where.peer.addr(), self.copy)
        relayed = receiver.wait_for_text(r"relayed (\S+):(\d+)")
        sender = self.plain(self.where.peer, "send", relayed[1].strip("[]"), relayed[2],
                            self.source)
        engine = self.engine(sender)
        return {**self.finish(sender, receiver), "engine": engine}

    def engine(self, process):
        """The engine culvertctl shows for the running connection."""
        def seen():
            text = self.where.relay.run(tool("culvertctl"), "--socket", self.control, "--json",
                                        "connections")
            found = re.search(r'"engine": *"([a-z_]+)"', text)
            return found[1] if found else process.status is not None and "unseen"
        return wait_for(seen, 30, "the connection in culvertctl")

    def compare(self, name, direct, relayed):
        """Direct and relayed take turns; ratios are of medians."""
        references, results, cpus = [], [], []
        pids = processes_of(self.server.pid)
        for _ in range(RUNS):
            references.append(self.checked(f"{name}, directly", direct()))
            before = cpu_seconds(pids)
            results.append(self.checked(f"{name}, through culvertd", relayed()))
            cpus.append((cpu_seconds(pids) - before) / (results[-1]["bytes"] / 1e9))
        reference, result = (statistics.median(run["seconds"] for run in runs)
                             for runs in (references, results))
        engines = ", ".join(dict.fromkeys(run["engine"] for run in results))
        say(f"  {name}: engine {engines}; {self.size * 8e-9 / result:.1f} Gbit/s, "
            f"{reference / result:.2f}x direct; relay CPU {statistics.median(cpus):.2f} s/GB\n")

    def checked(self, name, result):
        """Says what one transfer did and whether its bytes are the file's."""
        same = sha256(self.copy) == self.digest and result["bytes"] == self.size
        os.unlink(self.copy)
        say(f"    {name + ':':34} {result['bytes'] / 1e6:.0f} MB in {result['seconds']:.2f} s, "
            f"{result['bytes'] * 8e-9 / result['seconds']:.1f} Gbit/s, "
            f"SHA-256 {'equal' if same else 'DIFFERENT'}")
        self.failed |= not same
        return result


def check_here():
    if os.geteuid():
        sys.exit("demo: network namespaces need root. Run exactly this:\n\n    sudo make demo\n")
    missing = [name for name in ("culvertd", "culvert", "culvertctl") if not tool(name)]
    if missing:
        sys.exit(f"demo: not built: {', '.join(missing)}; run: make")


def main():
    check_here()
    size = int(os.environ.get("DEMO_MIB", "1024")) << 20
    directory = tempfile.mkdtemp(prefix="culvert-demo-", dir=roomy_directory(size))
    try:
        with place() as where:
            demo = Demo(where, directory, size)
            say(f"client {where.client.addr()} - relay {where.relay.addr()}, "
                f"{where.relay.addr(index=1)} - peer {where.peer.addr()}; "
                f"SHA-256 {demo.digest[:16]}...")
            demo.compare("client to peer", demo.direct_up, demo.relayed_up)
            demo.compare("peer to client", demo.direct_down, demo.relayed_down)
            if demo.failed:
                return "demo: bytes were changed on the way"
            say("Every byte arrived as it was sent.")
            return 0
    except KeyboardInterrupt:
        return "\ndemo: stopped; namespaces and processes are removed"
    except (RuntimeError, Timeout) as error:
        return f"demo: {error}"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
