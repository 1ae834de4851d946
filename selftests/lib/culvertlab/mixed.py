# SPDX-License-Identifier: BSD-2-Clause
"""Mixed load on one culvertd: clients of every kind that come, talk, misbehave and go.

A Load is a random walk of one thread: each step is one action on the clients there are. It counts
what it has brought about, so that the daemon's own counters can be compared at the end.
"""

import contextlib
import os
import random
import shutil
import socket
import struct
import time

from . import proc, stun, tls, turn
from .data import KIB, swap
from .stun import (ALLOCATE, BINDING, CHANNEL_BIND, CONNECT, CONNECTION_BIND, CREATE_PERMISSION,
                   REFRESH, SEND)
from .tap import Fail, check, equal, within
from .wait import wait_for

CLIENTS = 6  # of each kind at a time
RUDE = 100  # damaged sessions over UDP before they are ended
PIPES = 2 * 16 * 2  # ends of the empty ones that two workers may keep
CHANNEL = 0x4001
METHODS = (BINDING, ALLOCATE, REFRESH, SEND, CREATE_PERMISSION, CHANNEL_BIND, CONNECT,
           CONNECTION_BIND)
NOW = ("clients", "unauthenticated", "handshakes", "allocations", "pending", "relaying", "channels",
       "lanes")
BROKEN = (OSError, turn.Closed, Fail)  # what a client of a rude kind may meet


def listeners(lab):
    """Sections of a server for TCP, TLS and UDP, and the TLS listener's port."""
    port = lab.topo.relay.free_port()
    certificate, key = (os.path.join(lab.dir, f"served.{kind}") for kind in ("crt", "key"))
    for source, path in zip(tls.certificate(lab.dir), (certificate, key)):
        shutil.copyfile(source, path)
        os.chmod(path, 0o600)
    both = f"0.0.0.0:{lab.port}, [::]:{lab.port}"
    # All clients have one address: as many challenges and mistakes as they like.
    return {"limits": {"reflection": 0, "bind_failures": 0},
            "relay": {"address": ", ".join(map(lab.topo.relay.addr, lab.topo.versions))},
            "listener datagrams": {"transport": "udp", "address": both},
            "listener tls": {"transport": "tls", "address": f"0.0.0.0:{port}, [::]:{port}",
                             "certificate": certificate, "private_key": key}}, port


def mutate(rng, message):
    """A message with some bytes changed, cut, repeated or inserted."""
    data = bytearray(message)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.choice((0, 1, 0x7f, 0x80, 0xff))
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == 3:
            del data[at:at + rng.randint(1, 8)]
        elif len(data) > 4:
            data[2:4] = struct.pack("!H", rng.randrange(65536))
        data = data or bytearray(1)
    return bytes(data)


class Load:
    def __init__(self, lab, server, tls_port, seed):
        self.lab, self.server, self.tls_port = lab, server, tls_port
        self.rng = random.Random(seed)
        self.streams = []  # [client, [(data socket, peer socket)]]
        self.datagrams = []  # (client, peer socket)
        self.contexts = [tls.client_context(tls.certificate(lab.dir)[0])]
        self.rude = []  # clients of damaged sessions over UDP
        self.maybe = 0  # sessions whose damaged messages may have made an allocation
        self.made = self.bound = self.plain = self.reloads = self.steps = self.verified = 0
        self.actions = [(self.stream_client, 6), (self.pair, 12), (self.transfer, 30),
                        (self.end_pair, 8), (self.end_client, 4), (self.refresh, 6),
                        (self.datagram_client, 3), (self.datagram_talk, 20),
                        (self.end_datagrams, 2), (self.garbage, 8), (self.mutated, 20),
                        (self.reload, 1), (self.renew_certificate, 1)]

    def step(self):
        actions, weights = zip(*self.actions)
        self.steps += 1
        self.rng.choices(actions, weights)[0]()

    def address(self, encrypted):
        host, port = self.server.address()
        return host, self.tls_port if encrypted else port

    def client(self, kind=turn.Control, encrypted=False):
        return kind(self.lab.topo.client, self.address(encrypted), "alice", "wonderland",
                    **({"tls": self.contexts[-1]} if encrypted else {}))

    def stream_client(self):
        if len(self.streams) >= CLIENTS:
            return self.end_client()
        client = self.client(encrypted=self.rng.random() < 0.3)
        client.allocate()
        self.made += 1
        return self.streams.append([client, []])

    def pair(self):
        if not self.streams:
            return self.stream_client()
        client, pairs = self.rng.choice(self.streams)
        with contextlib.closing(self.lab.topo.peer.listen(4)) as listener:
            cid = client.connect(listener.getsockname())
            peer, _ = listener.accept()
        peer.settimeout(10)
        if client.tls:
            client.tls = self.contexts[-1]
        data = client.bind(cid, b"")
        self.bound += 1
        self.plain += not client.tls
        return pairs.append((data, peer))

    def _a_pair(self):
        """(the list it is in, the pair), or None."""
        having = [pairs for _, pairs in self.streams if pairs]
        if not having:
            return None
        pairs = self.rng.choice(having)
        return pairs, self.rng.choice(pairs)

    def transfer(self):
        found = self._a_pair()
        if not found:
            return self.pair()
        size = self.rng.choice((1, 100, 4 * KIB, 64 * KIB, 256 * KIB))
        swap(*found[1], size, seed=self.steps)
        self.verified += size
        return None

    def end_pair(self):
        found = self._a_pair()
        if not found:
            return
        pairs, both = found
        pairs.remove(both)
        first, second = self.rng.sample(both, 2)
        if self.rng.random() < 0.4:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif self.rng.random() < 0.5:
            with contextlib.suppress(OSError):
                first.shutdown(socket.SHUT_WR)
        first.close()
        second.close()

    def _forget(self, entry):
        client, pairs = entry
        for sock in (s for both in pairs for s in both):
            sock.close()
        client.close()

    def end_client(self):
        if not self.streams:
            return
        entry = self.streams.pop(self.rng.randrange(len(self.streams)))
        if self.rng.random() < 0.5:
            entry[0].refresh(0)
        self._forget(entry)

    def refresh(self):
        if self.streams:
            check(self.rng.choice(self.streams)[0].refresh(600) > 0, "a refresh that ends it")

    def datagram_client(self):
        if len(self.datagrams) >= CLIENTS:
            return self.end_datagrams()
        client = self.client(turn.Datagrams)
        peer = self.lab.topo.peer.bound(4, udp=True)
        client.allocate(*([turn.BOTH] if self.rng.random() < 0.5 else []), protocol=turn.UDP)
        self.made += 1
        equal(client.channel_bind_code(peer.getsockname(), CHANNEL), 0, "ChannelBind")
        return self.datagrams.append((client, peer))

    def datagram_talk(self):
        if not self.datagrams:
            return self.datagram_client()
        client, peer = self.rng.choice(self.datagrams)
        for _ in range(4):
            data = self.rng.randbytes(self.rng.choice((0, 1, 200, 1200)))
            client.sock.sendall(struct.pack("!HH", CHANNEL, len(data)) + data)
            got, source = peer.recvfrom(2048)
            equal(got, data, "a datagram to the peer")
            peer.sendto(data, source)
            equal(client.sock.recv(2048)[4:4 + len(data)], data, "a datagram to the client")
        return None

    def end_datagrams(self):
        if not self.datagrams:
            return
        client, peer = self.datagrams.pop(self.rng.randrange(len(self.datagrams)))
        client.refresh(0)
        client.close()
        peer.close()

    def garbage(self):
        """Somebody who speaks no TURN, or half of it, or goes in the middle."""
        encrypted = self.rng.random() < 0.5
        sock = self.lab.topo.client.connect(self.address(encrypted))
        with contextlib.suppress(OSError):
            sock.sendall(self.rng.choice((self.rng.randbytes(self.rng.randint(1, 2000)), b"\x16\x03\x01",
                                          b"GET / HTTP/1.1\r\n\r\n", b"\x00\x01\xff\xff")))
        sock.close()

    def mutated(self):
        """A session with right credentials whose messages are damaged, before or after signing."""
        rng = self.rng
        if len(self.rude) >= RUDE:
            self._end_rude()
        kind = rng.choice((turn.Control, turn.Control, turn.Datagrams))
        encrypted = kind is turn.Control and rng.random() < 0.3
        with contextlib.suppress(*BROKEN), contextlib.ExitStack() as stack:
            client = self.client(kind, encrypted)
            if kind is turn.Datagrams:
                self.rude.append(client)
            else:
                stack.enter_context(client)
            client.sock.settimeout(2)
            client.challenge()
            if rng.random() < 0.7:
                client.allocate(*([turn.BOTH] if rng.random() < 0.5 else []),
                                protocol=turn.UDP if kind is turn.Datagrams or rng.random() < 0.3
                                else turn.TCP)
                self.made += 1
            else:
                self.maybe += 1
            for _ in range(rng.randint(1, 6)):
                client.sock.sendall(self._damaged(client))
            # The daemon has read all that before it ends, as far as it wants to.
            probe = stun.Message(BINDING)
            client.sock.sendall(probe.build())
            client.sock.settimeout(0.05)
            client.sock.recv(4096)

    @staticmethod
    def _heard(client):
        """Returns when the daemon has handled all that this client has sent: by then any answer to
        its last message has come."""
        if not client.nonce:
            return
        message = client.message(REFRESH, [turn.lifetime(0)])
        client.sock.settimeout(2)
        client.sock.sendall(message.build(client.key))
        while client.sock.recv(4096)[8:20] != message.txid:
            pass

    def _end_rude(self):
        """Damaged sessions over UDP: nothing but its lifetime would end their allocation, and who
        got the same port meanwhile would have it."""
        for client in self.rude:
            with contextlib.suppress(*BROKEN):
                self._heard(client)
        ports = {client.sock.getsockname()[1] for client in self.rude}
        for row in self.server.ctl_json("allocations")["allocations"]:
            # Clients over TCP may have the same numbers.
            if row["client_transport"] == "udp" and int(row["client"].rsplit(":", 1)[1]) in ports:
                self.server.control_request(b'{"v":1,"cmd":"kick","id":"%s"}\n' % row["id"].encode())
        for client in self.rude:
            client.close()
        self.rude = []

    def _damaged(self, client):
        rng = self.rng
        where = (rng.choice(("10.77.2.2", "fd77:2::2")), rng.randrange(1, 65536))
        attrs = [rng.choice(((stun.LIFETIME, turn.u32(rng.choice((0, 1, 600, 0xffffffff)))),
                             (stun.CHANNEL_NUMBER, struct.pack("!HH", rng.randrange(65536), 0)),
                             (stun.CONNECTION_ID, rng.randbytes(4)),
                             (stun.DATA, rng.randbytes(rng.randint(0, 300))),
                             turn.transport(rng.randrange(256)),
                             turn.family(rng.choice((4, 6, 3))), turn.BOTH,
                             (rng.randrange(65536), rng.randbytes(rng.randint(0, 20)))))
                 for _ in range(rng.randint(0, 4))]
        method = rng.choice(METHODS)
        message = client.message(method, attrs, stun.INDICATION if method == SEND else stun.REQUEST)
        message.attrs.insert(0, (stun.XOR_PEER_ADDRESS, stun.xor_address(where, message.txid)))
        if rng.random() < 0.2:  # ChannelData of a channel that may be there
            data = rng.randbytes(rng.randint(0, 40))
            return struct.pack("!HH", rng.choice((CHANNEL, rng.randrange(0x4000, 0x8000))),
                               rng.choice((len(data), rng.randrange(65536)))) + data
        if rng.random() < 0.4:  # well signed, oddly made
            return message.build(client.key)
        return mutate(rng, message.build(client.key))

    def reload(self):
        equal(self.server.reload(), "reloaded", "a reload")
        self.reloads += 1

    def renew_certificate(self):
        """Another certificate, and TLS clients that trust it alone from now on."""
        pair = tls.certificate(self.lab.dir, serial=f"s{self.reloads % 4}")
        served = self.server.sections["listener tls"]
        for source, path in zip(pair, (served["certificate"], served["private_key"])):
            shutil.copyfile(source, path)
        self.reload()
        self.contexts.append(tls.client_context(pair[0]))

    def run(self, seconds, rate):
        """At most `rate` steps a second, so that others on this machine get their time."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            self.step()
            ahead = self.steps / rate - (time.monotonic() - began)
            if ahead > 0:
                time.sleep(min(ahead, 1))

    def finish(self):
        """Everybody goes; the daemon has nothing left of them."""
        for entry in self.streams:
            self._forget(entry)
        while self.datagrams:
            self.end_datagrams()
        self.streams = []

        def idle():
            now = self.server.counters()
            return not any(now[name] for name in NOW)
        self._end_rude()
        wait_for(idle, 30, f"nothing is left of the clients: {self.left()}")

    def left(self):
        now = self.server.counters()
        return {name: now[name] for name in NOW if now[name]}


class Held:
    """What a daemon holds at a moment: descriptors and memory of each process, ports."""

    def __init__(self, server):
        self.relay = server.relay_pid()
        # Else the last one would be counted that had asked something.
        wait_for(lambda: not self._asked(server), 5, "nobody is at the control socket")
        self.processes = {pid: _Process(pid) for pid in server.pids()}
        self.ports = 0
        for name in ("tcp", "tcp6", "udp", "udp6"):
            with open(f"/proc/{self.relay}/net/{name}", encoding="ascii") as table:
                self.ports += sum(line.split()[3] in ("0A", "07") for line in table.readlines()[1:])

    def _asked(self, server):
        """Connections of the control socket that the daemon has not closed yet."""
        with open(f"/proc/{self.relay}/net/unix", encoding="ascii") as table:
            rows = [line.split() for line in table]
        # Flags of one that listens are others.
        return sum(row[7:] == [server.control] and row[3] == "00000000" for row in rows)

    def compare(self, later, growth_kib):
        """Fails when `later` holds more, empty pipes and this much memory of each process aside."""
        equal(sorted(later.processes), sorted(self.processes), "processes")
        equal(later.ports, self.ports, "ports that somebody listens on")
        for pid, before in self.processes.items():
            now = later.processes[pid]
            name = "the relay's" if pid == self.relay else "the supervisor's or the broker's"
            equal(now.files, before.files, f"{name} descriptors but pipes")
            within(now.pipes, 0, PIPES, f"{name} pipes")
            within(now.rss_kib, 0, before.rss_kib + growth_kib,
                   f"{name} KiB resident, before {before.rss_kib}")


class _Process:
    def __init__(self, pid):
        kinds = [os.readlink(f"/proc/{pid}/fd/{fd}").split(":")[0]
                 for fd in os.listdir(f"/proc/{pid}/fd")]
        self.pipes = kinds.count("pipe")
        self.files = len(kinds) - self.pipes
        self.rss_kib = proc.rss_kib(pid)
