# SPDX-License-Identifier: BSD-2-Clause
"""TLS for tests: certificates by the openssl program, and a socket that can half-close."""

import contextlib
import ipaddress
import os
import select
import socket
import ssl
import subprocess
import threading

from .tap import Skip

NAME = "relay.example.org"
RECORD = 16384


def _kind(name):
    try:
        ipaddress.ip_address(name)
        return "IP"
    except ValueError:
        return "DNS"


def certificate(directory, name=NAME, days=30, serial=None, more=0):
    """A self-signed certificate for this name or address: paths of certificate and key.

    more: so many names beside it, of 30 bytes each.
    """
    stem = os.path.join(directory, f"{name}-{serial or days}-{more}")
    names = ",".join([f"{_kind(name)}:{name}",
                      *(f"DNS:{number:016}.example.org" for number in range(more))])
    paths = stem + ".crt", stem + ".key"
    if os.path.exists(paths[0]):
        return paths
    try:
        subprocess.run(["openssl", "req", "-config", "/dev/null", "-x509", "-newkey", "ec",
                        "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-addext",
                        f"subjectAltName={names}", "-days", str(days), "-keyout", paths[1],
                        "-out", paths[0]], check=True, capture_output=True)
    except FileNotFoundError as error:
        raise Skip("openssl is not installed (package openssl)") from error
    return paths


def protect(key, out):
    """The same private key under a passphrase."""
    subprocess.run(["openssl", "pkey", "-in", key, "-out", out, "-aes256", "-passout",
                    "pass:secret"], check=True, capture_output=True)


def client_context(*certificates, version=None, alpn=()):
    """A context that trusts these files alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for path in certificates:
        context.load_verify_locations(path)
    if version:
        context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def _start_quietly(function):
    """In a thread that does not mind if the socket is closed meanwhile."""
    def run():
        with contextlib.suppress(OSError, ValueError):
            function()
    threading.Thread(target=run, daemon=True).start()


class TlsSocket:
    """A connected socket with TLS on it, used like a socket.

    shutdown(SHUT_WR) sends close_notify and reading goes on, which ssl.SSLSocket cannot do; a
    stream cut without close_notify is a ConnectionResetError.  One thread may send while another
    receives.  A record cannot be taken back: what does not go at once of one that was accepted
    from a sender who will not wait is sent by a thread.
    """

    def __init__(self, sock, context, name=NAME):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.lock = threading.RLock()  # of tls and its two sides; held for no system call
        self.sending = threading.Lock()  # of the socket's sending side, taken before `lock`
        self.plain = b""
        self.finished = self.abandoned = False
        while not self._handshake():
            self._feed()

    def _handshake(self):
        try:
            self.tls.do_handshake()
            return True
        except ssl.SSLWantReadError:
            return False
        finally:
            self._flush()

    def _feed(self):
        """Bytes from the network, or its end."""
        data = self.sock.recv(65536)
        with self.lock:
            if data:
                self.incoming.write(data)
            else:
                self.incoming.write_eof()

    def _flush(self):
        with self.sending:
            with self.lock:
                data = self.outgoing.read()
            self._push(data)

    def _push(self, data):
        """Send all, though the socket may be one that does not block."""
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view):]
            except BlockingIOError:
                select.select([], [self.sock], [], 10)

    def _push_later(self, data):
        """The same, by a thread that has `sending` until then."""
        def run():
            try:
                self._push(data)
            finally:
                self.sending.release()
        _start_quietly(run)

    def _read(self, count):
        """What is there: None for nothing yet."""
        with self.lock:
            if self.plain:
                data, self.plain = self.plain[:count], self.plain[count:]
                return data
            try:
                return self.tls.read(count)
            except ssl.SSLWantReadError:
                return None
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLEOFError as error:
                raise ConnectionResetError("cut without close_notify") from error

    def recv(self, count):
        while True:
            data = self._read(count)
            if data is not None:
                return data
            self._feed()

    def pending(self):
        """More may be read without the network: polling would not tell."""
        with self.lock:
            return bool(self.plain or self.tls.pending() or self.incoming.pending)

    def sendall(self, data):
        view = memoryview(data)
        for at in range(0, len(view), RECORD):
            with self.lock:
                self.tls.write(view[at:at + RECORD])
            self._flush()

    def send(self, data):
        """A record at most, as a socket that may not block takes it."""
        if self.gettimeout() != 0:
            data = memoryview(data)[:RECORD]
            self.sendall(data)
            return len(data)
        if not self.sending.acquire(blocking=False):
            raise BlockingIOError("a record is still on its way")
        with self.lock:
            data = memoryview(data)[:RECORD]
            self.tls.write(data)
            sealed = self.outgoing.read()
        try:
            sealed = sealed[self.sock.send(sealed):]
        except BlockingIOError:
            pass
        except OSError:
            self.sending.release()
            raise
        if sealed:
            self._push_later(sealed)
        else:
            self.sending.release()
        return len(data)

    def shutdown(self, how):
        if how != socket.SHUT_WR:
            raise ValueError("only the sending side")
        self._finish()

    def _finish(self):
        with self.lock:
            if self.finished:
                return
            self.finished = True
            self._drain()
            try:
                self.tls.unwrap()
            except ssl.SSLError:
                pass
        if self.gettimeout() == 0:
            _start_quietly(self._flush)
        else:
            self._flush()

    def _drain(self):
        """What has come must be out of the way: it would count as data after the end."""
        data = b"-"
        while data:
            try:
                data = self.tls.read(65536)
            except ssl.SSLError:
                return
            self.plain += data

    def close(self):
        if not self.abandoned and self.sock.fileno() >= 0:
            try:
                self._finish()
            except (OSError, ssl.SSLError):
                pass
        self.sock.close()

    def setsockopt(self, level, option, value):
        # The way to a reset: nothing may be said before it.
        self.abandoned |= (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER)
        self.sock.setsockopt(level, option, value)

    def __getattr__(self, name):
        if name in ("type", "fileno", "getsockname", "getpeername", "gettimeout", "settimeout",
                    "setblocking", "getsockopt", "ioctl"):
            return getattr(self.sock, name)
        raise AttributeError(name)

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()
