# SPDX-License-Identifier: BSD-2-Clause
"""Streams of bytes: making them, pushing them from threads, and comparing what arrives."""

import contextlib
import hashlib
import random
import select
import selectors
import socket
import struct
import threading
import time

from .tap import Fail
from .tls import TlsSocket
from .turn import timeout_of
from .wait import wait_for

KIB = 1 << 10
MIB = 1 << 20
CHUNK = 256 * KIB


def payload(size, seed=0):
    """Bytes without repetition a shifted or repeated block could hide in."""
    return random.Random(f"{seed}/{size}").randbytes(size)


def digest(data):
    return hashlib.sha256(data).hexdigest()[:16]


def same(got, want, what):
    """Compare byte for byte; say where they part."""
    if got == want:
        return
    at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
    raise Fail(f"{what}: {len(got)} bytes, want {len(want)}; first difference at {at}")


class Worker(threading.Thread):
    """A thread whose exception comes out of finish()."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self._function, self._args = function, args
        self.result = self.error = None
        self.start()

    def run(self):
        try:
            self.result = self._function(*self._args)
        except Exception as error:  # handed to finish()
            self.error = error

    def finish(self, timeout=30):
        self.join(timeout)
        if self.is_alive():
            raise Fail(f"still busy after {timeout} s: {self._function.__name__}")
        if self.error:
            raise self.error
        return self.result


def send_all(sock, data, fin=False, timeout=30):
    with timeout_of(sock, timeout):
        sock.sendall(data)
    if fin:
        sock.shutdown(socket.SHUT_WR)


def sender(sock, data, fin=False):
    """Send in the background."""
    return Worker(send_all, sock, data, fin)


def receive(sock, count, timeout=30):
    """Exactly `count` bytes, or what came before the end of the stream."""
    parts, have = [], 0
    with timeout_of(sock, timeout):
        while have < count:
            part = sock.recv(min(CHUNK, count - have))
            if not part:
                break
            parts.append(part)
            have += len(part)
    return b"".join(parts)


def receive_to_end(sock, timeout=30):
    """Everything up to the FIN.  A reset is an error."""
    return receive(sock, 1 << 62, timeout)


def receive_to_any_end(sock, timeout=30):
    """(everything that came, "fin" or "rst")."""
    parts = []
    with timeout_of(sock, timeout):
        while True:
            try:
                part = sock.recv(CHUNK)
            except ConnectionResetError:
                return b"".join(parts), "rst"
            if not part:
                return b"".join(parts), "fin"
            parts.append(part)


def receiver(sock, count):
    return Worker(receive, sock, count)


def receive_slowly(sock, count=1 << 62, step=64 * KIB, pause=0.002):
    """Read in small steps with a pause after each: the pace is the point, not the time."""
    parts, have = [], 0
    with timeout_of(sock, 30):
        while have < count:
            part = sock.recv(min(step, count - have))
            if not part:
                break
            parts.append(part)
            have += len(part)
            time.sleep(pause)
    return b"".join(parts)


def send_until_blocked(sock, data, quiet=0.5):
    """Send as much as is accepted until nothing more goes for `quiet` seconds; its length."""
    sent = 0
    view = memoryview(data)
    sock.setblocking(False)
    try:
        while sent < len(data):
            try:
                sent += sock.send(view[sent:sent + CHUNK])
            except BlockingIOError:
                if not select.select([], [sock], [], quiet)[1]:
                    break
    finally:
        sock.settimeout(10)
    return sent


def reset(sock):
    """Close with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def unacknowledged(sock):
    """Bytes in our send queue that the other end has not acknowledged (SIOCOUTQ)."""
    import fcntl
    import termios
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]


def send_accepted(sock, data, quiet=0.5):
    """Send until nothing more is taken; how many bytes the other end has acknowledged then.

    How much a relay's sockets take for a reader that reads nothing is each kernel's own affair.
    """
    went = send_until_blocked(sock, data, quiet)
    left, since = unacknowledged(sock), time.monotonic()

    def at_rest():
        nonlocal left, since
        now = unacknowledged(sock)
        if now != left:
            left, since = now, time.monotonic()
        return left == 0 or time.monotonic() - since > quiet
    wait_for(at_rest, 10, "nothing more is acknowledged")
    return went - left


def swap(left, right, size, seed=0):
    """Send `size` bytes each way at once and compare both."""
    up, down = payload(size, f"{seed}up"), payload(size, f"{seed}down")
    jobs = [sender(left, up), sender(right, down)]
    got = [receiver(right, size), receiver(left, size)]
    for job in jobs:
        job.finish()
    same(got[0].finish(), up, "client to peer")
    same(got[1].finish(), down, "peer to client")


def toward(whom, data, peer):
    """(sender, receiver) of the direction to "peer" or to "client"."""
    return (data, peer) if whom == "peer" else (peer, data)


def question(asker, other, answer):
    """`asker` says something and ends its stream; the answer arrives all the same."""
    send_all(asker, b"question", fin=True)
    same(receive_to_end(other), b"question", "question")
    job = sender(other, answer, fin=True)
    same(receive_to_end(asker), answer, "answer")
    job.finish()


def ping(left, right, text=b"ping"):
    """A few bytes each way: the pair is alive."""
    left.sendall(text)
    same(receive(right, len(text)), text, "client to peer")
    right.sendall(text[::-1])
    same(receive(left, len(text)), text[::-1], "peer to client")


def receive_to_end_of(sock, data):
    """The stream holds exactly `data` and then ends with a FIN."""
    same(receive_to_end(sock), data, "stream")


class End:
    """One end of many concurrent streams: sends `out` in random pieces, collects `got`.

    With `fin` it ends its stream after `out` and waits for the other's end; without, for the
    last byte only.
    """

    def __init__(self, sock, out, want, rng, fin=True):
        self.sock, self.out, self.want, self.rng = sock, memoryview(out), want, rng
        self.fin = fin
        self.got = bytearray()
        self.sent = 0
        self.finished = False
        sock.setblocking(False)

    def _buffered(self):
        """What TLS has taken off the network: polling does not tell of it."""
        parts = []
        with contextlib.suppress(BlockingIOError):
            while isinstance(self.sock, TlsSocket) and self.sock.pending():
                parts.append(self.sock.recv(CHUNK))
        return b"".join(parts)

    def mask(self):
        reads = 0 if self.finished else selectors.EVENT_READ
        return reads | (selectors.EVENT_WRITE if self.sent < len(self.out) else 0)

    def step(self, events):
        if events & selectors.EVENT_READ:
            part = self.sock.recv(self.rng.choice((1000, 65536, CHUNK)))
            self.got += part + (self._buffered() if part else b"")
            self.finished = not part or not self.fin and len(self.got) >= len(self.want)
        if events & selectors.EVENT_WRITE and self.sent < len(self.out):
            piece = self.rng.choice((1, 100, 5000, 60000, CHUNK))
            self.sent += self.sock.send(self.out[self.sent:self.sent + piece])
            if self.sent == len(self.out) and self.fin:
                self.sock.shutdown(socket.SHUT_WR)


def exchange(ends, timeout=30):
    """Drive all Ends in one loop until each has sent and received everything."""
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        for end in ends:
            selector.register(end.sock, end.mask(), end)
        while selector.get_map():
            if time.monotonic() > deadline:
                busy = [(len(e.data.got), e.data.sent) for e in selector.get_map().values()]
                raise Fail(f"{len(busy)} streams unfinished, (got, sent): {busy[:5]}")
            for key, events in selector.select(1):
                _exchange_step(selector, key.data, events)
    for number, end in enumerate(ends):
        same(bytes(end.got), end.want, f"stream {number}")


def _exchange_step(selector, end, events):
    before = end.mask()
    try:
        end.step(events)
    except BlockingIOError:
        return
    if not end.mask():
        selector.unregister(end.sock)
    elif end.mask() != before:
        selector.modify(end.sock, end.mask(), end)
