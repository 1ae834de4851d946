/* SPDX-License-Identifier: BSD-2-Clause */
/* What a run of a program works on, outside the 512 bytes of its stack. */
#ifndef KERN_WORK_H
#define KERN_WORK_H

#include "maps.h"

#include <linux/ip.h>
#include <linux/ipv6.h>

/* A TCP header as it is in the packet; 64 bytes, so that it copies in words. */
struct tcp_head {
	__be16 source, dest;
	__be32 seq, ack;
	__u8 offset, flags;
	__be16 window, check, urgent;
	__u8 options[40];
	__u8 rest[4];
};

#define TCP_BASE    20 /* header without options */
#define TCP_LONGEST 60

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define IPV4_HEAD 20
#define IPV6_HEAD 40

static __always_inline __u32 ip_head(__u32 family)
{
	return family == AF_INET ? IPV4_HEAD : IPV6_HEAD;
}

#define CHUNK 512 /* bytes of a packet summed at once: what the helper takes */

#define PACKET_SOUND -1

/* The packet at hand, below TCP. */
struct packet {
	struct wire_key key; /* PACKET_TCP */
	union {
		struct iphdr v4;
		struct ipv6hdr v6;
		__u32 words[IPV6_HEAD / 4];
	} ip;
	__u32 length; /* of the IP packet with its header */
	__u32 payload_at; /* where TCP or ICMP begins, from the frame's start */
	int fault; /* PACKET_SOUND, or the enum wire_drop it deserves */
};

/* As it came, in host order, in the spaces of the leg it came from. */
struct segment {
	__u32 seq, ack;
	__u32 payload; /* bytes */
	__u32 window; /* bytes */
	__u32 head; /* bytes of TCP header */
	__u8 flags;
	bool raise; /* the acknowledgement is to be raised to the latch */
};

/* What becomes of a segment's options. */
struct options {
	__u32 tsval_delta, tsecr_delta, ack_delta;
	__u32 tsval; /* the last one translated */
	__u32 flags; /* of the leg: WIRE_LEG_TIMESTAMPS, WIRE_LEG_SACK */
	__u32 has_ack; /* an echo means something beside an ACK only */
	__u32 blank_sack;
	__u32 skip; /* the walk: bytes of the current option to pass over */
	__u32 blank; /* and whether they become no-operations */
};

/* A sum under way: what is still to be added. */
struct summing {
	__u32 offset, left;
	__u32 sum;
};

/* A packet-too-big: about whose packet, and what is said. */
struct too_big {
	__u32 mtu;
	__u32 seq; /* of the packet, as its sender made it */
	__u32 length; /* of the packet, with its IP header */
	__be16 id; /* IPv4: of the packet */
};

/* A UDP header and, where it begins a payload, a ChannelData header. */
struct datagram_head {
	__be16 source, dest, length;
	__u16 check;
	__be16 channel, told; /* RFC 8656 section 12.4 */
};

#define UDP_HEAD          8
#define CHANNEL_DATA_HEAD 4

/* What is moved within a packet at once: more than an Ethernet carries. */
#define MOVED_MOST 2048

/* A datagram on a lane, see datagram.h. */
struct datagram {
	struct datagram_head before, after;
	__u32 payload; /* bytes that the peer sends or gets */
};

/*
 * Working memory of one program run; another does not interrupt it on the same
 * CPU, for bottom halves are off. In a map and not on the stack, because
 *   - state on the stack makes the verifier follow every combination of values
 *     through the walk of options;
 *   - before 6.8 the verifier loses track of what a subprogram reads from the
 *     stack of its caller: it took "sound" for impossible where "not sound" had
 *     been seen first, and wired the branch for it.
 */
struct work {
	struct packet packet;
	struct segment segment;
	struct tcp_head before;
	struct iphdr head; /* IPv4: `after` follows, to be written with it */
	struct tcp_head after;
	/* The pair that the packet is of; what it points to: struct passage. */
	__u32 index; /* of the pair */
	__u32 leg; /* enum wire_leg_name it arrives from */
	__u32 state; /* enum wire_state, as it was found */
	__u64 now; /* CLOCK_MONOTONIC, coarse */
	struct options options;
	struct too_big too_big;
	struct bpf_fib_lookup fib; /* a route: asked, then found */
	__u8 message[96]; /* a packet-too-big read, an answer; from the IP header on */
	struct summing summing;
	__u32 chunk[CHUNK / 4 + 1];
	struct datagram datagram;
	__u8 moved[MOVED_MOST];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct work);
} wire_work SEC(".maps");

/*
 * For a length given to a helper: `value` into [least, most], where the caller
 * knows it to be, by instructions in the very register. What the compiler makes
 * of a comparison in C bounds a copy, of which the verifier of 6.1 knows nothing.
 */
#define bound(value, least, most)                         \
	asm volatile("if %0 >= %1 goto +1\n\t%0 = %1\n\t" \
		     "if %0 <= %2 goto +1\n\t%0 = %2"     \
		     : "+r"(value)                        \
		     : "i"(least), "i"(most))

#endif
