# SPDX-License-Identifier: BSD-2-Clause
"""A TURN-TCP client for tests: it can be polite, and it can be as rude as a test needs.

Control is a control connection.  request() returns the response whatever it says; the named
helpers (allocate, connect, ...) insist on success.  Every response is checked: strict parsing,
transaction id, and integrity where RFC 8489 asks for it.
"""

import contextlib
import socket
import struct
import threading
import time

from . import stun
from .stun import (ALLOCATE, CHANNEL_BIND, CONNECT, CONNECTION_ATTEMPT, CONNECTION_BIND,
                   CREATE_PERMISSION, REFRESH)
from .tap import Fail
from .tls import TlsSocket

TCP = 6
UDP = 17


class Closed(Exception):
    """The server closed the connection where a message was expected."""


def u32(value):
    return struct.pack("!I", value)


def transport(protocol=TCP):
    return (stun.REQUESTED_TRANSPORT, bytes([protocol, 0, 0, 0]))


def lifetime(seconds):
    return (stun.LIFETIME, u32(seconds))


def family(version):
    """REQUESTED-ADDRESS-FAMILY for 4 or 6, or any raw family number as bytes."""
    value = {4: 1, 6: 2}[version] if version in (4, 6) else version
    return (stun.REQUESTED_ADDRESS_FAMILY, bytes([value, 0, 0, 0]))


# ADDITIONAL-ADDRESS-FAMILY: IPv6 beside IPv4
BOTH = (stun.ADDITIONAL_ADDRESS_FAMILY, bytes([2, 0, 0, 0]))


def recv_exact(sock, count):
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise Closed(f"after {len(data)} of {count} bytes")
        data += part
    return data


def recv_message(sock):
    """One message, not a byte more: what follows belongs to the stream."""
    if sock.type == socket.SOCK_DGRAM:
        return stun.parse(sock.recv(65536))
    head = recv_exact(sock, 20)
    return stun.parse(head + recv_exact(sock, stun.length_of(head) - 20))


class Control:
    """One client connection to the server, on which an allocation may be made."""

    def __init__(self, node, server, user="alice", password="wonderland", index=0, tls=None):
        """`tls`: the ssl context of a client, for TLS."""
        self.node, self.server, self.tls = node, server, tls
        self.user, self.password = user, password
        self.sock = self.dial(index)
        self.realm = self.nonce = None
        self.offer = None  # PASSWORD-ALGORITHMS of the last challenge
        self.sha256 = False  # speak RFC 8489: SHA-256, and USERHASH if the nonce asks for it
        self.relayed = self.mapped = None
        self.indications = []

    def dial(self, index=0, rcvbuf=0):
        sock = self.node.connect(self.server, index, rcvbuf=rcvbuf)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return TlsSocket(sock, self.tls) if self.tls else sock

    def close(self):
        self.sock.close()

    def reset(self):
        """Close with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()

    @property
    def key(self):
        derive = stun.key_sha256 if self.sha256 else stun.key_md5
        return derive(self.user, self.realm, self.password)

    def challenge(self, method=ALLOCATE, attrs=()):
        """Send a request without credentials, expect 401, keep realm and nonce."""
        response = self.exchange(stun.Message(method, attrs=attrs))
        if response.code != 401:
            raise Fail(f"request without credentials: {response}, want 401")
        self.adopt(response)
        return response

    def adopt(self, response):
        """Take realm and nonce from a 401 or 438."""
        realm, nonce = response.get(stun.REALM), response.get(stun.NONCE)
        if realm is None or nonce is None:
            raise Fail(f"{response} lacks realm or nonce")
        self.realm, self.nonce = realm.decode(), nonce
        self.offer = response.get(stun.PASSWORD_ALGORITHMS)

    def message(self, method, attrs=(), cls=stun.REQUEST):
        """A request with this user's credentials, not yet built."""
        msg = stun.Message(method, cls, attrs)
        if self.sha256 and stun.features(self.nonce) & stun.USERNAME_ANONYMITY:
            msg.add(stun.USERHASH, stun.userhash(self.user, self.realm))
        else:
            msg.add(stun.USERNAME, self.user.encode())
        msg.add(stun.REALM, self.realm.encode())
        msg.add(stun.NONCE, self.nonce)
        if self.sha256:
            msg.add(stun.PASSWORD_ALGORITHMS, self.offer)
            msg.add(stun.PASSWORD_ALGORITHM, stun.ALGORITHM_SHA256)
        return msg

    def signed(self, method, attrs=()):
        """The bytes of an authenticated request and its transaction id."""
        if self.nonce is None:
            self.challenge()
        msg = self.message(method, attrs)
        return msg.build(self.key, sha256=self.sha256), msg.txid

    def request(self, method, attrs=()):
        """Send an authenticated request; a stale nonce is renewed once."""
        for _ in range(2):
            raw, txid = self.signed(method, attrs)
            self.sock.sendall(raw)
            response = self.response(txid, method)
            if response.code != 438:
                break
            self.adopt(response)
        self._integrity_check(response)
        return response

    def exchange(self, msg, key=None, **how):
        """Send a message as it is and wait for its response."""
        self.sock.sendall(msg.build(key, **how))
        return self.response(msg.txid, msg.method)

    def response(self, txid, method=None):
        """Wait for the response with this id; indications before it are kept."""
        while True:
            msg = recv_message(self.sock)
            if msg.cls == stun.INDICATION:
                self.indications.append(msg)
                continue
            if msg.txid != txid or msg.cls == stun.REQUEST:
                raise Fail(f"unexpected {msg}")
            if method is not None and msg.method != method:
                raise Fail(f"response of another method: {msg}")
            return msg

    def _integrity_check(self, response):
        bare = response.get(stun.MESSAGE_INTEGRITY) is None \
            and response.get(stun.MESSAGE_INTEGRITY_SHA256) is None
        if bare and response.cls != stun.SUCCESS:
            return
        if response.get(stun.MESSAGE_INTEGRITY_SHA256 if self.sha256
                        else stun.MESSAGE_INTEGRITY) is None:
            raise Fail(f"{response} is not signed as its request was")
        if not response.signed_by(self.key):
            raise Fail(f"{response} is not signed with the user's key")

    def code(self, method, attrs=()):
        """Error code of an authenticated request, 0 for success."""
        return self.request(method, attrs).code

    def insist(self, method, attrs=()):
        """An authenticated request that has to succeed."""
        response = self.request(method, attrs)
        if response.cls != stun.SUCCESS:
            raise Fail(f"{response}, want success")
        return response

    def allocate(self, *attrs, protocol=TCP):
        response = self.insist(ALLOCATE, [transport(protocol), *attrs])
        self.relayed = response.address(stun.XOR_RELAYED_ADDRESS)
        self.mapped = response.address(stun.XOR_MAPPED_ADDRESS)
        if self.mapped != self.sock.getsockname()[:2]:
            raise Fail(f"mapped address {self.mapped}, want {self.sock.getsockname()[:2]}")
        return response

    def allocate_both(self, *attrs, protocol=TCP):
        """The relayed addresses by version; ADDRESS-ERROR-CODE has the code of a missing one."""
        response = self.insist(ALLOCATE, [transport(protocol), BOTH, *attrs])
        error = response.get(stun.ADDRESS_ERROR_CODE)
        missing = {{1: 4, 2: 6}[error[0]]: error[2] * 100 + error[3]} if error else {}
        return {**response.addresses(stun.XOR_RELAYED_ADDRESS), **missing}

    def refresh(self, seconds=None, *attrs):
        """Refresh; returns the granted lifetime."""
        wanted = [] if seconds is None else [lifetime(seconds)]
        return self.insist(REFRESH, [*wanted, *attrs]).number(stun.LIFETIME)

    def _peer_request(self, method, address, *attrs):
        """A request whose XOR-PEER-ADDRESS is encoded for its own transaction id."""
        for _ in range(2):
            if self.nonce is None:
                self.challenge()
            msg = self.peer_message(method, address, *attrs)
            response = self.exchange(msg, self.key, sha256=self.sha256)
            if response.code != 438:
                break
            self.adopt(response)
        self._integrity_check(response)
        return response

    def peer_message(self, method, address, *attrs):
        msg = self.message(method, attrs)
        for one in address if isinstance(address, list) else [address]:
            msg.attrs.insert(0, (stun.XOR_PEER_ADDRESS, stun.xor_address(one, msg.txid)))
        return msg

    def peer_code(self, method, address, *attrs):
        """Error code of Connect, CreatePermission or ChannelBind with this peer address."""
        return self._peer_request(method, address, *attrs).code

    def permit(self, *hosts):
        """CreatePermission for one or more addresses."""
        response = self._peer_request(CREATE_PERMISSION, [(h, 0) for h in hosts])
        if response.cls != stun.SUCCESS:
            raise Fail(f"permission for {hosts}: {response}")

    def channel_bind_code(self, address, number=0x4001):
        value = struct.pack("!HH", number, 0)
        return self.peer_code(CHANNEL_BIND, address, (stun.CHANNEL_NUMBER, value))

    def connect(self, address):
        """Connect to a peer; returns the CONNECTION-ID."""
        response = self._peer_request(CONNECT, address[:2])
        if response.cls != stun.SUCCESS:
            raise Fail(f"Connect to {address}: {response}")
        return response.number(stun.CONNECTION_ID)

    def connect_start(self, address):
        """Send a Connect and do not wait; returns its transaction id."""
        if self.nonce is None:
            self.challenge()
        msg = self.peer_message(CONNECT, address[:2])
        self.sock.sendall(msg.build(self.key, sha256=self.sha256))
        return msg.txid

    def attempt(self, timeout=10):
        """Wait for a ConnectionAttempt; returns (id, peer address)."""
        if not self.indications:
            with timeout_of(self.sock, timeout):
                msg = recv_message(self.sock)
            if msg.cls != stun.INDICATION:
                raise Fail(f"unexpected {msg}")
            self.indications.append(msg)
        msg = self.indications.pop(0)
        if msg.method != CONNECTION_ATTEMPT:
            raise Fail(f"unexpected {msg}")
        return msg.number(stun.CONNECTION_ID), msg.address(stun.XOR_PEER_ADDRESS)

    def is_quiet(self, seconds=0.3):
        """True when nothing is sent to us, not even an end, for this long."""
        if self.indications:
            return False
        with timeout_of(self.sock, seconds):
            try:
                self.indications.append(recv_message(self.sock))
                return False
            except socket.timeout:
                return True

    def other(self, **more):
        """Another connection of the same client with the nonce it already has."""
        twin = Control(self.node, self.server, **{"user": self.user, "password": self.password,
                                                   "tls": self.tls, **more})
        twin.realm, twin.nonce = self.realm, self.nonce
        twin.offer, twin.sha256 = self.offer, self.sha256
        return twin

    def bind(self, cid, early=b"", rcvbuf=0):
        """ConnectionBind on a new connection, `early` right behind it; returns the data socket."""
        sock = self.bind_start(cid, early, rcvbuf)
        response = recv_message(sock)
        if response.cls != stun.SUCCESS or response.method != CONNECTION_BIND:
            raise Fail(f"ConnectionBind {cid:#x}: {response}")
        self._integrity_check(response)
        return sock

    def bind_start(self, cid, early=b"", rcvbuf=0):
        """As bind(), but the response is left to be read."""
        sock = self.dial(rcvbuf=rcvbuf)
        sock.sendall(self.signed(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(cid))])[0] + early)
        return sock

    def bind_code(self, cid):
        """Error code of a ConnectionBind on a fresh connection that is closed again."""
        with contextlib.closing(self.other()) as twin:
            return twin.code(CONNECTION_BIND, [(stun.CONNECTION_ID, u32(cid))])


class Datagrams(Control):
    """A client over UDP."""

    def dial(self, index):
        return self.node.datagrams(self.server, index)


_timeouts = {}  # of a socket: what it had before, then those of the blocks it is in
_timeouts_lock = threading.Lock()


@contextlib.contextmanager
def timeout_of(sock, seconds):
    """The socket's timeout is this inside the block, which another thread may be in, too."""
    with _timeouts_lock:
        _timeouts.setdefault(sock, [sock.gettimeout()]).append(seconds)
        sock.settimeout(seconds)
    try:
        yield sock
    finally:
        with _timeouts_lock:
            inside = _timeouts[sock]
            del inside[inside.index(seconds, 1)]
            if len(inside) == 1:
                del _timeouts[sock]
            sock.settimeout(inside[-1])


def ended(sock, timeout=10):
    """How the stream ends when nothing more should come: "fin", "rst" or "data"."""
    with timeout_of(sock, timeout):
        try:
            return "data" if sock.recv(1) else "fin"
        except ConnectionResetError:
            return "rst"


def elapsed(function, *args):
    """(result, seconds it took)."""
    start = time.monotonic()
    return function(*args), time.monotonic() - start
