/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the BPF programs of kern/ and the broker share: keys and values of the
 * maps, states, reasons, events. The sizes are asserted on both sides.
 *
 * Sequence numbers are in host order. "Received" is what the remote end of a leg
 * sent to us, "sent" is what we sent to it: each leg has these two spaces.
 * kern/README.md says how a pair is joined and why no byte is lost.
 */
#ifndef CULVERT_KERN_USER_H
#define CULVERT_KERN_USER_H

#include <linux/types.h>

/* Raised whenever the meaning or layout of anything in this file changes. */
#define WIRE_VERSION 6

/* A TCP connection of this host, seen from a packet that arrives on it. */
struct wire_key {
	__u8 remote[16]; /* IPv4: the first 4 bytes, then zeroes */
	__u8 local[16];
	__be16 remote_port, local_port;
	__u8 family; /* AF_INET or AF_INET6 */
	__u8 zero[3];
};

/* Map wire_flows, a hash: key -> where in wire_pairs. */
struct wire_flow {
	__u32 pair; /* index into wire_pairs */
	__u32 leg; /* WIRE_CLIENT or WIRE_PEER: where such a packet comes from */
};

enum wire_leg_name {
	WIRE_CLIENT,
	WIRE_PEER,
	WIRE_LEGS,
};

/* wire_pair.state. Only the broker changes it, but for JOINED -> ENDED (BPF). */
enum wire_state {
	WIRE_FREE, /* not in use; flows of it are treated as absent */
	/*
	 * The broker is joining: arriving packets go up the stack, but what our
	 * own sockets acknowledge beyond leg.received is stopped (egress).
	 */
	WIRE_JOINING,
	WIRE_JOINED, /* packets are translated and forwarded */
	/*
	 * Both FINs acknowledged, or an exact reset forwarded. Retransmissions
	 * are still forwarded; a SYN goes up the stack. The broker frees it.
	 */
	WIRE_ENDED,
};

/* wire_pair.end, and the event that reports it. */
enum wire_end {
	WIRE_END_NONE,
	WIRE_END_FIN, /* both ends closed in order, all acknowledged */
	WIRE_END_RESET_CLIENT, /* the client reset the connection */
	WIRE_END_RESET_PEER,
	/* Ends the broker brings about, by resets to both ends. */
	WIRE_END_EXPIRED, /* expires_ns has passed */
	WIRE_END_RESET, /* asked for: kick, finish, deleted allocation */
	WIRE_END_LATCH, /* the client never acknowledged the bind's answer */
	WIRE_END_ORPHAN, /* whoever joined it died before it was active */
};

/* wire_leg.flags */
#define WIRE_LEG_LATCHED    (1u << 0) /* remote has not acknowledged `latch` yet */
#define WIRE_LEG_FIN        (1u << 1) /* remote's FIN seen: fin_end is set */
#define WIRE_LEG_TIMESTAMPS (1u << 2) /* RFC 7323, both legs or none */
#define WIRE_LEG_SACK       (1u << 3)

/*
 * One leg of a pair. The first cache line is written by the broker before the
 * pair is joined and constant from then on; the second is written by BPF, by
 * packets that arrive from this leg's remote end only.
 */
struct wire_leg {
	__u8 remote[16], local[16];
	__be16 remote_port, local_port;
	/* Added to a packet that arrives on this leg and leaves on the other. */
	__u32 seq_delta, ack_delta, tsval_delta, tsecr_delta;
	/*
	 * Sent space: the remote must acknowledge so far before our own socket
	 * may be forgotten (everything it has sent or will send ends here).
	 */
	__u32 latch;
	__u32 received; /* received space: end of what our socket has received */
	__u8 window_shift_in; /* scale of the window field in arriving packets */
	__u8 window_shift_out; /* scale in which the remote reads our windows */
	__u8 zero[2];

	/* Sent space, extended to 64 bits: highest acknowledgement that came. */
	__u64 acked;
	__u64 seen_ns; /* CLOCK_MONOTONIC (coarse) of the last packet forwarded */
	__u32 right; /* sent space: highest acknowledgement + window */
	__u32 window; /* largest window the remote has offered, bytes */
	__u32 sent_end; /* received space: highest end of what the remote sent */
	__u32 fin_end; /* received space: the number after its FIN */
	__u32 flags;
	__u32 packets; /* forwarded from this leg, modulo 2^32 */
	__u64 told_ns; /* when its remote was last sent a packet-too-big of ours */
	__u32 tsval; /* highest the other end has been sent on: as it reads it */
	__u32 offered; /* received space, constant: our socket's window ended there */
	__u64 challenged_ns; /* the same of a challenge ACK of ours */
};

#define WIRE_LABEL 64

/* Map wire_pairs, an mmapable array. */
struct wire_pair {
	__u32 state; /* enum wire_state */
	__u32 generation; /* raised when the place is given to another pair */
	__u32 family;
	__u32 end; /* enum wire_end */
	__u64 created_ns, expires_ns; /* CLOCK_MONOTONIC; expires_ns 0: never */
	/*
	 * Of each leg the value of acked at its latch: what is acknowledged
	 * beyond it (less a FIN) is payload that came by wire.
	 */
	__u64 started[WIRE_LEGS];
	__u64 allocation; /* the relay's number for what owns the pair */
	/*
	 * 1 when WIRE_EVENT_UNLATCHED has been sent (BPF), 2 when the relay has
	 * been told (broker): from then on the pair outlives both.
	 */
	__u64 unlatched;
	struct wire_leg leg[WIRE_LEGS];
	char label[WIRE_LABEL]; /* user@realm for lists, NUL-terminated, cut */
};

/* Map wire_events, a ring buffer. */
enum wire_event_kind {
	WIRE_EVENT_UNLATCHED, /* no leg is latched any more */
	WIRE_EVENT_ENDED, /* state is WIRE_ENDED, end says how */
};

struct wire_event {
	__u32 kind;
	__u32 pair, generation;
	__u32 end;
};

/* Map wire_counters, a per-CPU array: packets not forwarded, by reason. */
enum wire_drop {
	WIRE_DROP_SEQUENCE, /* outside the receiver's window */
	WIRE_DROP_ACK, /* acknowledges what was never sent, or far too old */
	WIRE_DROP_RESET, /* a reset that is not exact; perhaps challenged */
	WIRE_DROP_SYN, /* likewise */
	WIRE_DROP_FLAGS, /* no ACK, or a senseless combination */
	WIRE_DROP_OPTIONS, /* malformed TCP options, or MD5/AO */
	WIRE_DROP_HEADER, /* IP options, extension headers, bad length, checksum */
	WIRE_DROP_FRAGMENT,
	WIRE_DROP_ROUTE, /* no route, or one back to this host */
	WIRE_DROP_TOO_BIG, /* exceeds the other leg's MTU; its sender was told */
	WIRE_DROP_EXPIRED, /* past expires_ns */
	WIRE_DROP_LOCAL, /* from our own socket, egress */
	WIRE_DROP_ICMP, /* a packet-too-big that does not fit the pair */
	WIRE_DROP_ERROR, /* a helper failed */
	/* Not drops, counted beside them. */
	WIRE_COUNT_FORWARDED,
	WIRE_COUNT_TOO_BIG_TRANSLATED,
	WIRE_COUNT_TOO_BIG_SENT,
	WIRE_COUNT_CHALLENGED, /* challenge ACKs sent: inexact resets, SYNs */
	WIRE_COUNT_DATAGRAMS, /* relayed on lanes */
	WIRE_COUNTERS,
};

struct wire_snapshot {
	__u32 found; /* 0: no such socket here, the rest is void */
	__u32 state; /* TCP_ESTABLISHED, TCP_CLOSE_WAIT, ... */
	__u64 socket; /* which one: alike are two that are open at the same time */
	__u32 rcv_nxt, copied_seq, rcv_wup, rcv_wnd;
	__u32 snd_una, snd_nxt, write_seq, snd_wnd;
	__u32 out_of_order; /* 1: segments wait in the out-of-order queue */
	__u32 timestamp; /* our TSval now, as the remote would see it */
	__u32 ts_recent; /* the remote's last TSval */
	__u32 timestamps, sack, ecn, md5; /* negotiated; md5 also for TCP-AO */
	__u32 window_scaling, snd_wscale, rcv_wscale;
	__u32 mss_clamp; /* the MSS the remote announced */
	__u32 advmss; /* the MSS we announced */
	__u32 pmtu; /* path MTU to the remote */
	__u32 urgent; /* 1: urgent data is pending in either direction */
	__u32 bound; /* SO_BINDTOIFINDEX; 0: not bound */
	__u32 mark; /* SO_MARK */
	__u32 ipsec; /* 1: a policy transforms what it sends */
	__u32 arrival; /* device its packets came in by; 0: not known yet */
	__u32 departure; /* device it sends by */
	__u32 device; /* that packets to the remote are forwarded to; 0: none */
};

/* Map wire_call, an mmapable array of one: argument and result of wire_snapshot. */
struct wire_call {
	struct wire_key key[WIRE_LEGS];
	__u64 socket[WIRE_LEGS]; /* as in snapshot, of the descriptors */
	__u32 describe; /* 1: key and socket come from the descriptors of who runs it */
	__s32 fd[WIRE_LEGS];
	__u32 hook; /* 1: before the look both keys become flows of `pair` */
	__u32 pair;
	__s32 error; /* of that, a negative errno; there is neither flow then */
	struct wire_snapshot snapshot[WIRE_LEGS];
};

/*
 * Lanes: channels of UDP allocations (RFC 8656 section 12) whose client speaks UDP.
 * A datagram between client and peer is made one of the other leg at the hook where
 * it arrives. Map wire_lane_flows, a hash: such a key -> struct wire_flow, where in
 * wire_lanes. The beginning is that of a wire_key.
 */
struct wire_lane_key {
	__u8 remote[16], local[16];
	__be16 remote_port, local_port;
	__u8 family;
	__u8 zero;
	__be16 channel; /* that its ChannelData names; 0: it comes from a peer */
};

struct wire_lane_leg {
	struct wire_lane_key key; /* of its flow */
	__u32 device; /* by which its datagrams come; others go up the stack */
	__u32 zero;
	/* By BPF: sent on from this leg's remote; bytes of what the peer sees. */
	__u64 packets, bytes;
};

enum wire_lane_state {
	WIRE_LANE_OFF, /* flows of it are treated as absent */
	WIRE_LANE_ON,
};

/* Map wire_lanes, an mmapable array, all by the broker but what a leg counts. */
struct wire_lane {
	__u32 state; /* enum wire_lane_state */
	__u32 generation; /* raised when the place is given to another channel */
	__u64 expires_ns; /* CLOCK_MONOTONIC: whichever ends first of channel,
			   * permission and allocation */
	struct wire_lane_leg leg[WIRE_LEGS];
};

/* Map wire_lease, an mmapable array of one: no lane is used beyond it. */
struct wire_lease {
	__u64 until_ns; /* CLOCK_MONOTONIC; the broker prolongs it while it lives */
};

/* Who would get a leg's datagrams from the stack, and where those to it go. */
struct wire_lane_look {
	__u32 found; /* 0: no socket */
	__u32 device; /* that datagrams to the remote are sent by; 0: none */
	__u8 bound[16]; /* the socket's own address, zeroes: any */
	__be16 port;
	__u8 zero[6];
};

/* Map wire_lane_call, an mmapable array of one: the same of wire_lane_look. */
struct wire_lane_call {
	struct wire_lane_key key[WIRE_LEGS];
	struct wire_lane_look look[WIRE_LEGS];
};

/* The sockmap engine's maps, in the order the broker hands them over. */
enum sockmap_map {
	SOCKMAP_SOURCES, /* index -> socket whose arriving data is judged */
	SOCKMAP_TARGETS, /* index -> the same socket, to be written to */
	SOCKMAP_FLOWS, /* socket cookie -> index */
	SOCKMAP_STATE, /* index -> struct sockmap_flow; mmapable */
	SOCKMAP_MAPS,
};

#define SOCKMAP_PAIRS 16384 /* of one worker; a pair has two indices */

/* sockmap_flow.control: bytes passed up so far, doubled, and this bit. */
#define SOCKMAP_PASSING 1u

/* sockmap_flow.flags */
#define SOCKMAP_STARTED (1u << 0) /* next is set */
#define SOCKMAP_BASED   (1u << 1) /* base is set */
#define SOCKMAP_BROKEN  (1u << 2) /* bytes are missing: reset the pair */

/* sockmap_flow.sent: the relay lets the socket go; what arrives is dropped. */
#define SOCKMAP_LEFT (~0ull)

/* One direction: what arrives on one socket and goes to the other. */
struct sockmap_flow {
	__u32 target; /* index of the other socket; by the relay before the join */
	__u32 flags; /* by BPF */
	__u32 next; /* by BPF: sequence number after what has been judged */
	__u32 base; /* by BPF: the target's write sequence at the first verdict */
	/*
	 * By BPF; the relay clears SOCKMAP_PASSING by compare-and-swap when it
	 * has read all that was passed and written it to the target.
	 */
	__u64 control;
	__u64 redirected; /* by BPF: bytes */
	/* By the relay: bytes of the passed ones it has written, or SOCKMAP_LEFT. */
	__u64 sent;
	__u64 seen_ns; /* by BPF: CLOCK_MONOTONIC (coarse) of the last verdict */
	__u64 overlaps, overlapped; /* by BPF: buffers, bytes received before */
};

#define WIRE_ASSERT(what, size) \
	_Static_assert(sizeof(struct what) == (size), #what)
WIRE_ASSERT(wire_key, 40);
WIRE_ASSERT(wire_flow, 8);
WIRE_ASSERT(wire_leg, 128);
WIRE_ASSERT(wire_pair, 384);
WIRE_ASSERT(wire_event, 16);
WIRE_ASSERT(wire_lane_key, 40);
WIRE_ASSERT(wire_lane_leg, 64);
WIRE_ASSERT(wire_lane, 144);
WIRE_ASSERT(wire_lane_look, 32);
WIRE_ASSERT(sockmap_flow, 64);

#endif
