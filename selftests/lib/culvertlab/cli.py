# SPDX-License-Identifier: BSD-2-Clause
"""The `culvert` command in scenarios that run against any TURN-TCP server.

Each scenario takes a Cli, which knows the server and the credentials.  Sizes and ends of streams
are what the caller says: not every server keeps the last bytes of a stream.
"""

import os
import random
import re

from . import tls
from .data import End, Worker, digest, exchange, payload, receive_to_end, same, send_all
from .server import binary
from .tap import check, equal
from .wait import wait_for


class Cli:
    """Runs `culvert` as client of one server, with alice's credentials."""

    def __init__(self, lab, server, version=4, password="wonderland"):
        self.lab, self.server, self.version = lab, server, version
        self.password = password
        self.tls = []  # options, for a server that speaks TLS

    def target(self):
        host, port = self.server.address(self.version)
        return f"[{host}]:{port}" if self.version == 6 else f"{host}:{port}"

    def argv(self, command, *args):
        return [binary("culvert"), command, "-s", self.target(), "-u", "alice", *self.tls, *args]

    def over_tls(self, authority, *more):
        """Speak TLS with the server, which this certificate vouches for."""
        self.tls = ["--tls", "--ca-file", authority, "--tls-name", tls.NAME, *more]
        return self

    def start(self, command, *args, node=None, **more):
        """Start it; the password goes by environment."""
        env = {"CULVERT_PASSWORD": self.password, "RES_OPTIONS": "timeout:1 attempts:1"}
        node = node or self.lab.topo.client
        return self.lab.spawn(node, self.argv(command, *args), f"culvert-{command}", env=env,
                              **more)

    def run(self, command, *args, timeout=20, **more):
        """Run it to its end; (status, process)."""
        process = self.start(command, *args, **more)
        return process.wait(timeout), process


def text_of(address):
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address_of(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def local_connect(lab, port, version=4):
    """Connect to a forwarded port as soon as it is there."""
    def attempt():
        try:
            return lab.topo.client.connect((lab.topo.client.addr(version), port))
        except ConnectionRefusedError:
            return None
    return lab.keep(wait_for(attempt, 10, f"local port {port} accepts"))


def forward(cli, peer, *args):
    """Start a forward to this peer address; (process, local port)."""
    lab = cli.lab
    port = lab.topo.client.free_port()
    host = lab.topo.client.addr(cli.version)
    local = text_of((host, port))
    return cli.start("forward", *args, local, text_of(peer)), port


def forward_many(cli, count, most, *args, fin=True):
    """`count` connections at once through a forward, random sizes up to `most`, both ways."""
    lab = cli.lab
    listener = lab.listener(cli.version)
    process, port = forward(cli, listener.getsockname(), *args)
    rng = random.Random(count)
    ends = []
    for number in range(count):
        local = local_connect(lab, port, cli.version)
        peer = lab.accept(listener)
        up = payload(rng.randint(1, most), number)
        down = payload(rng.randint(1, most), -number)
        ends += [End(local, up, down, rng, fin), End(peer, down, up, rng, fin)]
    exchange(ends, 60)
    check(process.status is None, f"culvert ended with {process.status}: {process.tail()}")
    process.stop()


def service(lab, version=4):
    """A local service on the client's side; its listening socket."""
    return lab.keep(lab.topo.client.listen(version))


def listen(cli, service_address, *allowed):
    """Start `culvert listen`; (process, relayed address)."""
    process = cli.start("listen", "--allow", ",".join(allowed), text_of(service_address))
    found = process.wait_for_text(r"relayed (\S+)", read=process.out)
    return process, address_of(found[1])


def listen_many(cli, count, most, fin=True):
    """`count` connections of a peer carried to a local service, random sizes, both ways."""
    lab = cli.lab
    local = service(lab, cli.version)
    process, relayed = listen(cli, local.getsockname(), lab.topo.peer.addr(cli.version))
    rng = random.Random(count)
    ends = []
    for number in range(count):
        peer = lab.keep(lab.topo.peer.connect(relayed))
        inner, _ = local.accept()
        lab.keep(inner)
        up = payload(rng.randint(1, most), number)
        down = payload(rng.randint(1, most), -number)
        ends += [End(inner, up, down, rng, fin), End(peer, down, up, rng, fin)]
    exchange(ends, 60)
    check(process.status is None, f"culvert ended with {process.status}: {process.tail()}")
    process.stop()


def make_file(lab, size):
    path = os.path.join(lab.dir, f"file{lab.next_number()}")
    data = payload(size, size)
    with open(path, "wb") as file:
        file.write(data)
    return path, data


def send_file(cli, size, *args):
    """`culvert send` of a file to a listening peer; compares what arrives."""
    lab = cli.lab
    path, data = make_file(lab, size)
    listener = lab.listener(cli.version)
    process = cli.start("send", *args, "--peer", text_of(listener.getsockname()), path)
    peer = lab.accept(listener)
    same(receive_to_end(peer), data, "file at the peer")
    peer.close()
    equal(process.wait(15), 0, f"status of send, said {process.tail()}")


def receive_file(cli, size, *args):
    """`culvert receive` of what a peer sends; compares the file."""
    lab = cli.lab
    path = os.path.join(lab.dir, f"received{lab.next_number()}")
    data = payload(size, size)
    process = cli.start("receive", *args, "--allow", lab.topo.peer.addr(cli.version), path)
    relayed = address_of(process.wait_for_text(r"relayed (\S+)")[1])
    peer = lab.keep(lab.topo.peer.connect(relayed))
    job = Worker(send_all, peer, data, True)
    job.finish()
    equal(process.wait(20), 0, f"status of receive, said {process.tail()}")
    with open(path, "rb") as file:
        got = file.read()
    equal((len(got), digest(got)), (len(data), digest(data)), "file received")


def relay_to_relay(cli, size, send_as=None):
    """receive and send through the same server: the peer of one is the relay of the other."""
    lab = cli.lab
    path, data = make_file(lab, size)
    target = path + ".copy"
    host = cli.server.address(cli.version)[0]
    receiver = cli.start("receive", "--allow", host, target)
    relayed = receiver.wait_for_text(r"relayed (\S+)")[1]
    sender = (send_as or cli).start("send", "--peer", relayed, path)
    equal(sender.wait(20), 0, f"status of send, said {sender.tail()}")
    equal(receiver.wait(20), 0, f"status of receive, said {receiver.tail()}")
    with open(target, "rb") as file:
        equal(digest(file.read()), digest(data), "SHA-256 of the copy")


def checks_well(cli):
    """`culvert check` says yes in one screen."""
    status, process = cli.run("check", timeout=30)
    said = process.out() + process.err()
    equal(status, 0, f"status of check, said {said!r}")
    check(re.search(r"relayed", said, re.I), f"no relayed address in {said!r}")
    check(len(said.splitlines()) <= 24, f"{len(said.splitlines())} lines are more than a screen")
