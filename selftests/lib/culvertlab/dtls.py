# SPDX-License-Identifier: BSD-2-Clause
"""DTLS for tests: Python's ssl module has none, so OpenSSL's library is called directly."""

import ctypes
import ctypes.util
import select
import socket
import struct
import time

from .tap import Skip
from .turn import Datagrams

WANT_READ, ZERO_RETURN = 2, 6
SET_NAME, GET_TIMEOUT, HANDLE_TIMEOUT, SET_CONNECTED = 55, 73, 74, 32
MESSAGE_MAX = 16384

_libraries = []


def _load():
    if not _libraries:
        names = [ctypes.util.find_library(name) for name in ("ssl", "crypto")]
        if None in names:
            raise Skip("OpenSSL's libraries are not installed (package libssl3)")
        ssl, crypto = map(ctypes.CDLL, names)
        pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
        for library, name, result, *arguments in (
                (ssl, "DTLS_client_method", pointer),
                (ssl, "SSL_CTX_new", pointer, pointer), (ssl, "SSL_CTX_free", None, pointer),
                (ssl, "SSL_CTX_load_verify_locations", number, pointer, text, text),
                (ssl, "SSL_CTX_set_verify", None, pointer, number, pointer),
                (ssl, "SSL_CTX_set_alpn_protos", number, pointer, text, ctypes.c_uint),
                (ssl, "SSL_new", pointer, pointer), (ssl, "SSL_free", None, pointer),
                (ssl, "SSL_set1_host", number, pointer, text),
                (ssl, "SSL_ctrl", ctypes.c_long, pointer, number, ctypes.c_long, pointer),
                (ssl, "SSL_set_bio", None, pointer, pointer, pointer),
                (ssl, "SSL_connect", number, pointer), (ssl, "SSL_shutdown", number, pointer),
                (ssl, "SSL_read", number, pointer, pointer, number),
                (ssl, "SSL_write", number, pointer, pointer, number),
                (ssl, "SSL_get_error", number, pointer, number),
                (crypto, "BIO_new_dgram", pointer, number, number),
                (crypto, "BIO_ctrl", ctypes.c_long, pointer, number, ctypes.c_long, pointer),
                (crypto, "ERR_clear_error", None), (crypto, "ERR_peek_error", ctypes.c_ulong),
                (crypto, "ERR_reason_error_string", text, ctypes.c_ulong)):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        _libraries.extend((ssl, crypto))
    return _libraries


def client_hello(cookie=b"", sequence=0, random=bytes(32)):
    """A ClientHello that says as little as one can, in a record."""
    body = b"\xfe\xfd" + random + b"\0" + bytes([len(cookie)]) + cookie
    body += b"\x00\x02\xc0\x2b" + b"\x01\x00" + b"\x00\x12" + (
        b"\x00\x0a\x00\x04\x00\x02\x00\x17" b"\x00\x0d\x00\x06\x00\x04\x04\x03\x05\x03")
    length = len(body).to_bytes(3, "big")
    message = b"\x01" + length + struct.pack("!H", sequence) + bytes(3) + length + body
    return struct.pack("!BHHHIH", 22, 0xfeff, 0, 0, sequence, len(message)) + message


class DtlsError(Exception):
    """What OpenSSL has against it."""


class DtlsSocket:
    """A connected UDP socket with DTLS on it, used like the socket.

    `authority`: the file that vouches for the server; None: anybody may be it.
    """

    type = socket.SOCK_DGRAM

    def __init__(self, sock, authority, name, alpn=()):
        self.ssl, self.crypto = _load()
        self.sock, self.said = sock, False
        self.context = self.ssl.SSL_CTX_new(self.ssl.DTLS_client_method())
        if authority:
            self.ssl.SSL_CTX_load_verify_locations(self.context, authority.encode(), None)
            self.ssl.SSL_CTX_set_verify(self.context, 1, None)
        if alpn:
            offered = b"".join(bytes([len(one)]) + one.encode() for one in alpn)
            self.ssl.SSL_CTX_set_alpn_protos(self.context, offered, len(offered))
        self.tls = self.ssl.SSL_new(self.context)
        self.ssl.SSL_ctrl(self.tls, SET_NAME, 0, name.encode())
        self.ssl.SSL_set1_host(self.tls, name.encode())
        bio = self.crypto.BIO_new_dgram(sock.fileno(), 0)
        address = ctypes.create_string_buffer(128)
        _name_fill(sock, address)
        self.crypto.BIO_ctrl(bio, SET_CONNECTED, 0, address)
        self.ssl.SSL_set_bio(self.tls, bio, bio)
        self._try(self.ssl.SSL_connect)

    def _left(self):
        """Seconds until something must be sent again, None: nothing."""
        left = (ctypes.c_long * 2)()
        if self.ssl.SSL_ctrl(self.tls, GET_TIMEOUT, 0, ctypes.addressof(left)) != 1:
            return None
        return left[0] + left[1] / 1e6

    def _try(self, function, *args):
        """Call it until it succeeds or the socket's timeout is over; 0: the end."""
        timeout = self.sock.gettimeout()
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            self.crypto.ERR_clear_error()
            result = function(self.tls, *args)
            if result > 0:
                return result
            error = self.ssl.SSL_get_error(self.tls, result)
            if error == ZERO_RETURN:
                return 0
            if error != WANT_READ:
                why = self.crypto.ERR_reason_error_string(self.crypto.ERR_peek_error())
                raise DtlsError(why.decode() if why else f"error {error}")
            self._wait(end)

    def _wait(self, end):
        waits = [max(0, end - time.monotonic())] if end is not None else []
        repeat = self._left()
        if repeat is not None:
            waits.append(repeat)
        ready = select.select([self.sock], [], [], min(waits) if waits else None)[0]
        if not ready and end is not None and time.monotonic() >= end:
            raise socket.timeout("timed out")
        if not ready:
            self.ssl.SSL_ctrl(self.tls, HANDLE_TIMEOUT, 0, None)

    def recv(self, count=MESSAGE_MAX):
        """One message; b"": the server has ended it."""
        buffer = ctypes.create_string_buffer(MESSAGE_MAX)
        length = self._try(self.ssl.SSL_read, buffer, MESSAGE_MAX)
        return buffer.raw[:min(length, count)]

    def sendall(self, data):
        self._try(self.ssl.SSL_write, bytes(data), len(data))

    def abandon(self):
        """Close without a word."""
        if self.tls:
            self.ssl.SSL_free(self.tls)
            self.ssl.SSL_CTX_free(self.context)
            self.tls = None
        self.sock.close()

    def close(self):
        if self.tls:
            self.ssl.SSL_shutdown(self.tls)
        self.abandon()

    def __getattr__(self, name):
        if name in ("fileno", "getsockname", "getpeername", "gettimeout", "settimeout"):
            return getattr(self.sock, name)
        raise AttributeError(name)


def _name_fill(sock, out):
    """The C form of the address that the socket is connected to."""
    libc = ctypes.CDLL(None, use_errno=True)
    length = ctypes.c_uint(len(out))
    if libc.getpeername(sock.fileno(), out, ctypes.byref(length)) < 0:
        raise OSError(ctypes.get_errno(), "getpeername")


class DtlsClient(Datagrams):
    """A client over DTLS; `tls`: authority and name."""

    def dial(self, index=0, rcvbuf=0):
        return DtlsSocket(self.node.datagrams(self.server, index), *self.tls)
