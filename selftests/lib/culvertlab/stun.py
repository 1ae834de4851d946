# SPDX-License-Identifier: BSD-2-Clause
"""STUN and TURN messages for tests, written from the RFCs and sharing no code with culvert.

A Message is a method, a class, a transaction id and a list of (type, value) attributes.  parse()
is strict on purpose: what a server sends must be well formed down to its padding.
"""

import base64
import hashlib
import hmac
import ipaddress
import os
import struct
import zlib

MAGIC = 0x2112A442

BINDING = 0x001
ALLOCATE = 0x003
REFRESH = 0x004
SEND = 0x006
DATA_METHOD = 0x007
CREATE_PERMISSION = 0x008
CHANNEL_BIND = 0x009
CONNECT = 0x00A
CONNECTION_BIND = 0x00B
CONNECTION_ATTEMPT = 0x00C

REQUEST, INDICATION, SUCCESS, ERROR = range(4)

MAPPED_ADDRESS = 0x0001
CHANGE_REQUEST = 0x0003
USERNAME = 0x0006
MESSAGE_INTEGRITY = 0x0008
ERROR_CODE = 0x0009
UNKNOWN_ATTRIBUTES = 0x000A
CHANNEL_NUMBER = 0x000C
LIFETIME = 0x000D
XOR_PEER_ADDRESS = 0x0012
DATA = 0x0013
REALM = 0x0014
NONCE = 0x0015
XOR_RELAYED_ADDRESS = 0x0016
REQUESTED_ADDRESS_FAMILY = 0x0017
EVEN_PORT = 0x0018
REQUESTED_TRANSPORT = 0x0019
DONT_FRAGMENT = 0x001A
MESSAGE_INTEGRITY_SHA256 = 0x001C
PASSWORD_ALGORITHM = 0x001D
USERHASH = 0x001E
XOR_MAPPED_ADDRESS = 0x0020
RESERVATION_TOKEN = 0x0022
PADDING = 0x0026
RESPONSE_PORT = 0x0027
CONNECTION_ID = 0x002A
ADDITIONAL_ADDRESS_FAMILY = 0x8000
ADDRESS_ERROR_CODE = 0x8001
PASSWORD_ALGORITHMS = 0x8002
ALTERNATE_DOMAIN = 0x8003
SOFTWARE = 0x8022
ALTERNATE_SERVER = 0x8023
FINGERPRINT = 0x8028
RESPONSE_ORIGIN = 0x802B
OTHER_ADDRESS = 0x802C
MOBILITY_TICKET = 0x8030

NONCE_COOKIE = b"obMatJos2"
ALGORITHM_MD5 = struct.pack("!HH", 1, 0)
ALGORITHM_SHA256 = struct.pack("!HH", 2, 0)
PASSWORD_ALGORITHMS_BIT, USERNAME_ANONYMITY = 0x800000, 0x400000  # RFC 8489 18.1


class Malformed(Exception):
    """A message that breaks RFC 8489."""


def key_md5(user, realm, password):
    return hashlib.md5(f"{user}:{realm}:{password}".encode()).digest()


def key_sha256(user, realm, password):
    return hashlib.sha256(f"{user}:{realm}:{password}".encode()).digest()


def userhash(user, realm):
    return hashlib.sha256(f"{user}:{realm}".encode()).digest()


def features(nonce):
    """The security features that a nonce announces, 24 bits."""
    if not nonce.startswith(NONCE_COOKIE):
        return 0
    return int.from_bytes(base64.b64decode(nonce[9:13], validate=True), "big")


def temporary(secret, name):
    """The password of a time-limited user name."""
    digest = hmac.new(secret.encode(), name.encode(), "sha1").digest()
    return base64.b64encode(digest).decode()


def xor_address(address, txid):
    """Encode (host, port) as an XOR-*-ADDRESS value."""
    ip = ipaddress.ip_address(address[0])
    mask = struct.pack("!I", MAGIC) + (txid if ip.version == 6 else b"")
    xored = bytes(a ^ b for a, b in zip(ip.packed, mask))
    family = 1 if ip.version == 4 else 2
    return struct.pack("!BBH", 0, family, address[1] ^ (MAGIC >> 16)) + xored


def unxor_address(value, txid):
    """Decode an XOR-*-ADDRESS value to (host, port)."""
    if len(value) not in (8, 20):
        raise Malformed(f"address attribute of {len(value)} bytes")
    family, port = value[1], struct.unpack("!H", value[2:4])[0] ^ (MAGIC >> 16)
    if (family, len(value)) not in ((1, 8), (2, 20)):
        raise Malformed(f"address family {family} with {len(value)} bytes")
    mask = struct.pack("!I", MAGIC) + txid
    packed = bytes(a ^ b for a, b in zip(value[4:], mask))
    return str(ipaddress.ip_address(packed)), port


def plain_address(value):
    """Decode a MAPPED-ADDRESS or its like to (host, port)."""
    zeros = bytes(16)
    host, port = unxor_address(value, zeros[4:])
    mask = struct.pack("!I", MAGIC)
    packed = ipaddress.ip_address(host).packed
    packed = bytes(a ^ b for a, b in zip(packed, mask)) + packed[4:]
    return str(ipaddress.ip_address(packed)), port ^ (MAGIC >> 16)


def type_encode(method, cls):
    return ((method & 0xF80) << 2 | (method & 0x70) << 1 | (method & 0xF)
            | (cls & 2) << 7 | (cls & 1) << 4)


def type_decode(value):
    method = (value >> 2 & 0xF80) | (value >> 1 & 0x70) | (value & 0xF)
    return method, (value >> 7 & 2) | (value >> 4 & 1)


def attribute(kind, value):
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def header(kind, length, txid):
    return struct.pack("!HHI", kind, length, MAGIC) + txid


class Message:
    """One STUN message; `raw` is what came from the wire when it was parsed."""

    def __init__(self, method, cls=REQUEST, attrs=(), txid=None):
        self.method, self.cls = method, cls
        self.txid = txid or os.urandom(12)
        self.attrs = list(attrs)
        self.raw = None

    def __repr__(self):
        code = f" {self.code} {self.reason!r}" if self.cls == ERROR else ""
        attrs = " ".join(f"{t:#06x}" for t, _ in self.attrs)
        return f"<method {self.method:#x} class {self.cls}{code} [{attrs}]>"

    def add(self, kind, value):
        self.attrs.append((kind, value))
        return self

    def get(self, kind):
        """First value of an attribute, None without one."""
        return next((v for t, v in self.attrs if t == kind), None)

    def number(self, kind):
        """A 32-bit attribute."""
        value = self.get(kind)
        if value is None or len(value) != 4:
            raise Malformed(f"attribute {kind:#x} is {value!r}, not 4 bytes, in {self}")
        return struct.unpack("!I", value)[0]

    def address(self, kind):
        value = self.get(kind)
        if value is None:
            raise Malformed(f"no attribute {kind:#x} in {self}")
        return unxor_address(value, self.txid)

    def addresses(self, kind):
        """All values of an attribute, by the version of IP."""
        each = (unxor_address(v, self.txid) for t, v in self.attrs if t == kind)
        return {6 if ":" in address[0] else 4: address for address in each}

    @property
    def code(self):
        """Error code, 0 for any other class."""
        if self.cls != ERROR:
            return 0
        value = self.get(ERROR_CODE)
        if value is None or len(value) < 4:
            raise Malformed("error response without ERROR-CODE")
        if not 3 <= value[2] <= 6 or value[3] > 99:
            raise Malformed(f"ERROR-CODE class {value[2]} number {value[3]}")
        return value[2] * 100 + value[3]

    @property
    def reason(self):
        return (self.get(ERROR_CODE) or b"")[4:].decode()

    @property
    def unknown(self):
        """The list in UNKNOWN-ATTRIBUTES."""
        value = self.get(UNKNOWN_ATTRIBUTES) or b""
        return [struct.unpack("!H", value[i:i + 2])[0] for i in range(0, len(value) - 1, 2)]

    def build(self, key=None, fingerprint=True, sha256=False, cut=32):
        """Bytes for the wire; with a key, MESSAGE-INTEGRITY(-SHA256) is appended.

        cut: so many bytes of the SHA-256 form's.
        """
        body = b"".join(attribute(t, v) for t, v in self.attrs)
        kind = type_encode(self.method, self.cls)
        if key is not None:
            size = 4 + (cut if sha256 else 20)
            signed = header(kind, len(body) + size, self.txid) + body
            digest = hmac.new(key, signed, "sha256" if sha256 else "sha1").digest()
            body += attribute(MESSAGE_INTEGRITY_SHA256 if sha256 else MESSAGE_INTEGRITY,
                              digest[:size - 4])
        if fingerprint:
            crc = zlib.crc32(header(kind, len(body) + 8, self.txid) + body) ^ 0x5354554E
            body += attribute(FINGERPRINT, struct.pack("!I", crc))
        return header(kind, len(body), self.txid) + body

    def signed_by(self, key):
        """True when MESSAGE-INTEGRITY or its SHA-256 form is present and right."""
        return _signed(self.raw, key)


def length_of(head):
    """Length of the message that starts with these 20 bytes."""
    kind, length, magic = struct.unpack("!HHI", head[:8])
    if kind & 0xC000 or magic != MAGIC or length % 4:
        raise Malformed(f"not a STUN header: {head.hex()}")
    return 20 + length


def parse(raw):
    """Parse one whole message, refusing whatever RFC 8489 does not allow a sender."""
    if length_of(raw) != len(raw):
        raise Malformed("length field does not match")
    method, cls = type_decode(struct.unpack("!H", raw[:2])[0])
    msg = Message(method, cls, txid=raw[8:20])
    msg.raw = raw
    pos, last = 20, None
    while pos < len(raw):
        if last == FINGERPRINT:
            raise Malformed("attribute after FINGERPRINT")
        kind, size = struct.unpack("!HH", raw[pos:pos + 4])
        end = pos + 4 + size
        padded = end + -size % 4
        if padded > len(raw):
            raise Malformed(f"attribute {kind:#x} runs over the end")
        if any(raw[end:padded]):
            raise Malformed(f"padding of attribute {kind:#x} is not zero")
        if kind == FINGERPRINT:
            _fingerprint_check(raw, pos)
        msg.attrs.append((kind, raw[pos + 4:end]))
        pos, last = padded, kind
    return msg


def _fingerprint_check(raw, pos):
    crc = zlib.crc32(raw[:pos]) ^ 0x5354554E
    if raw[pos + 4:pos + 8] != struct.pack("!I", crc):
        raise Malformed("wrong FINGERPRINT")


def _signed(raw, key):
    pos = 20
    while pos + 4 <= len(raw):
        kind, size = struct.unpack("!HH", raw[pos:pos + 4])
        if kind in (MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256):
            end = pos + 4 + size
            signed = raw[:2] + struct.pack("!H", end - 20) + raw[4:pos]
            name = "sha1" if kind == MESSAGE_INTEGRITY else "sha256"
            digest = hmac.new(key, signed, name).digest()
            return hmac.compare_digest(digest[:size], raw[pos + 4:end]) and size >= 16
        pos += 4 + size + -size % 4
    return False
