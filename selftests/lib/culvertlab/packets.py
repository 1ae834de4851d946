# SPDX-License-Identifier: BSD-2-Clause
"""Packets made and read by hand: what a forger sends, and what a tap sees."""

import contextlib
import select
import socket
import struct
import time

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
PACKET_OUTGOING = 4
SOL_PACKET, PACKET_VNET_HDR = 263, 15
SO_RCVBUFFORCE = 33
MASK = 0xFFFFFFFF


def checksum(data):
    """The Internet checksum."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packed(address):
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def timestamps(value, echo):
    """The TCP timestamp option, aligned as Linux sends it."""
    return struct.pack("!BBBBII", 1, 1, 8, 10, value & MASK, echo & MASK)


def sack(*blocks):
    """The SACK option with these (left, right) edges."""
    edges = b"".join(struct.pack("!II", left & MASK, right & MASK) for left, right in blocks)
    return struct.pack("!BBBB", 1, 1, 5, 2 + len(edges)) + edges


class Segment:
    """A TCP segment in its IP packet; every field may be wrong on purpose.

    flow: ((host, port), (host, port)).  Overrides: doff (32-bit words), length (the IP length
    field), bad (wrong TCP checksum), bad_header (what to spoil the IPv4 checksum by), fragment
    (the raw IPv4 flags and offset), ip_options, ttl, urgent, extension (bytes of IPv6 extension
    headers, the last of which names TCP itself) with next_header.
    """

    def __init__(self, flow, seq=0, ack=0, flags=ACK, window=512, options=b"", payload=b"",
                 **more):
        self.source, self.target = flow
        self.seq, self.ack, self.flags, self.window = seq & MASK, ack & MASK, flags, window
        self.options, self.payload = options, payload
        self.more = more

    def tcp(self):
        options = self.options + bytes(-len(self.options) % 4)
        doff = self.more.get("doff", 5 + len(options) // 4)
        head = struct.pack("!HHIIBBHHH", self.source[1], self.target[1], self.seq, self.ack,
                           doff << 4, self.flags, self.window, 0, self.more.get("urgent", 0))
        data = head + options + self.payload
        pseudo = packed(self.source[0]) + packed(self.target[0])
        pseudo += struct.pack("!II", len(data), socket.IPPROTO_TCP)
        value = checksum(pseudo + data)
        if self.more.get("bad"):
            value ^= 0x5A5A
        return data[:16] + struct.pack("!H", value) + data[18:]

    def packet(self):
        """The bytes of the IP packet."""
        data = self.tcp()
        if ":" in self.source[0]:
            return self._packet6(data)
        options = self.more.get("ip_options", b"")
        size = 20 + len(options)
        head = struct.pack("!BBHHHBBH", 0x40 | size // 4, 0,
                           self.more.get("length", size + len(data)), 0x4321,
                           self.more.get("fragment", 0x4000), self.more.get("ttl", 64),
                           socket.IPPROTO_TCP, 0)
        head += packed(self.source[0]) + packed(self.target[0]) + options
        value = checksum(head) ^ self.more.get("bad_header", 0)
        return head[:10] + struct.pack("!H", value) + head[12:] + data

    def _packet6(self, data):
        extension = self.more.get("extension", b"")
        follows = self.more.get("next_header", socket.IPPROTO_TCP)
        length = self.more.get("length", len(extension) + len(data))
        head = struct.pack("!IHBB", 0x60000000, length, follows, self.more.get("ttl", 64))
        return head + packed(self.source[0]) + packed(self.target[0]) + extension + data


class Seen:
    """A TCP segment a tap saw."""

    def __init__(self, packet, outgoing=False):
        self.outgoing = outgoing
        self.version = packet[0] >> 4
        if self.version == 4:
            size = (packet[0] & 15) * 4
            end = struct.unpack("!H", packet[2:4])[0]
            hosts = [socket.inet_ntop(socket.AF_INET, packet[i:i + 4]) for i in (12, 16)]
            self.ttl = packet[8]
        else:
            size, end = 40, 40 + struct.unpack("!H", packet[4:6])[0]
            hosts = [socket.inet_ntop(socket.AF_INET6, packet[i:i + 16]) for i in (8, 24)]
            self.ttl = packet[7]
        tcp = packet[size:end]
        (sport, dport, self.seq, self.ack, doff, self.flags, self.window,
         self.sum) = struct.unpack("!HHIIBBHH", tcp[:18])
        self.source, self.target = (hosts[0], sport), (hosts[1], dport)
        doff = (doff >> 4) * 4
        self.options, self.payload = tcp[20:doff], tcp[doff:]
        self.size = end

    @property
    def end(self):
        """The sequence number after this segment."""
        return (self.seq + len(self.payload) + bool(self.flags & SYN)
                + bool(self.flags & FIN)) & MASK

    def option(self, kind):
        """The value of an option, None without it."""
        at = 0
        while at < len(self.options):
            if self.options[at] == 0:
                return None
            if self.options[at] == 1:
                at += 1
                continue
            size = self.options[at + 1]
            if self.options[at] == kind:
                return self.options[at + 2:at + size]
            at += max(2, size)
        return None

    def options_sound(self):
        """Does every option end inside the header, with a length that says so?"""
        at = 0
        while at < len(self.options) and self.options[at]:
            if self.options[at] == 1:
                at += 1
                continue
            size = self.options[at + 1] if at + 1 < len(self.options) else 0
            if size < 2 or at + size > len(self.options):
                return False
            at += size
        return True

    def times(self):
        """(TSval, TSecr), None without timestamps."""
        value = self.option(8)
        return struct.unpack("!II", value) if value else None

    def __repr__(self):
        names = "".join(n for b, n in ((SYN, "S"), (FIN, "F"), (RST, "R"), (PSH, "P"), (ACK, "."))
                        if self.flags & b)
        return (f"<{self.source[0]}:{self.source[1]} > {self.target[0]}:{self.target[1]} {names} "
                f"seq {self.seq} ack {self.ack} len {len(self.payload)}>")


def tcp_of(packet, outgoing=False):
    """A Seen, or None when this is no whole TCP header behind a plain IP header."""
    if len(packet) >= 40 and packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_TCP \
            and not struct.unpack("!H", packet[6:8])[0] & 0x1FFF:
        least = (packet[0] & 15) * 4 + 20
    elif len(packet) >= 60 and packet[0] >> 4 == 6 and packet[6] == socket.IPPROTO_TCP:
        least = 60
    else:
        return None
    try:
        return Seen(packet, outgoing) if len(packet) >= least else None
    except (struct.error, IndexError):
        return None


def sum_fits(packet):
    """Is the TCP checksum of this IP packet right?"""
    if packet[0] >> 4 == 4:
        size, end = (packet[0] & 15) * 4, struct.unpack("!H", packet[2:4])[0]
        hosts = packet[12:20]
    else:
        size, end = 40, 40 + struct.unpack("!H", packet[4:6])[0]
        hosts = packet[8:40]
    data = packet[size:end]
    return checksum(hosts + struct.pack("!II", len(data), socket.IPPROTO_TCP) + data) == 0


def after(a, b):
    """Does sequence number a come after b?"""
    return 0 < (a - b) & MASK < 1 << 31


class Tap:
    """Sees and makes packets on one interface of a node."""

    def __init__(self, node, interface):
        with node.entered():
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        with contextlib.suppress(PermissionError):
            self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.sock.bind((interface, ETH_P_ALL))
        self.sock.setblocking(False)
        self.mac = self.sock.getsockname()[4]

    def close(self):
        self.sock.close()

    def send(self, packet, to_mac, tag=b""):
        """An IP packet (bytes or Segment) as a frame to this neighbour, perhaps VLAN-tagged."""
        self.sock.send(self._frame(packet, to_mac, tag))

    def _frame(self, packet, to_mac, tag=b""):
        if isinstance(packet, Segment):
            packet = packet.packet()
        kind = ETH_P_IPV6 if packet[0] >> 4 == 6 else ETH_P_IP
        return to_mac + self.mac + tag + struct.pack("!H", kind) + packet

    def send_super(self, segment, to_mac, size):
        """A segment longer than the link's MTU, as one packet to be cut into `size` bytes."""
        packet = segment.packet()
        head = 40 if packet[0] >> 4 == 6 else 20
        pseudo = packed(segment.source[0]) + packed(segment.target[0])
        part = checksum(pseudo + struct.pack("!II", len(packet) - head, socket.IPPROTO_TCP))
        frame = bytearray(self._frame(packet, to_mac))
        # The field holds the pseudo-header's sum; the rest is the device's work.
        struct.pack_into("!H", frame, 14 + head + 16, part ^ 0xFFFF)
        kind = 4 if head == 40 else 1  # VIRTIO_NET_HDR_GSO_TCPV6, _TCPV4
        virtio = struct.pack("=BBHHHH", 1, kind, 14 + head + 20 + len(segment.options), size,
                             14 + head, 16)
        self.sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        try:
            self.sock.send(virtio + bytes(frame))
        finally:
            self.sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 0)

    def packets(self):
        """(IP packet, outgoing) of everything since the last call."""
        found = []
        while True:
            try:
                frame, address = self.sock.recvfrom(1 << 17)
            except BlockingIOError:
                return found
            if frame[12:14] in (b"\x08\x00", b"\x86\xdd"):
                found.append((frame[14:], address[2] == PACKET_OUTGOING))

    def segments(self):
        """The TCP segments since the last call."""
        return [s for s in (tcp_of(*p) for p in self.packets()) if s]

    def forget(self):
        self.packets()

    def wait(self, cond, timeout=5, what="a packet"):
        """The first segment for which cond is true."""
        end = time.monotonic() + timeout
        while select.select([self.sock], [], [], max(0, end - time.monotonic()))[0]:
            for segment in self.segments():
                if cond(segment):
                    return segment
        raise AssertionError(f"{what} was not seen within {timeout} s")


def mac_of(node, interface):
    """The hardware address of an interface."""
    with node.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((interface, 0))
        return sock.getsockname()[4]
