/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A TCP segment between two connections: whether it may pass (the rules of
 * README.md), what it looks like on the other side, what it tells about the end
 * that sent it. RFC 9293 section 3.10.7.4, RFC 5961.
 */
#ifndef KERN_SEGMENT_H
#define KERN_SEGMENT_H

#include "checksum.h"
#include "maps.h"
#include "options.h"
#include "packet.h"
#include "pair.h"
#include "work.h"

/* Verdicts beside enum wire_drop. */
#define SEGMENT_PASS -1
#define SEGMENT_UP   -2 /* the stack's: our socket still waits for it */

/* Never called older than this, whatever the window: RFC 5961 section 5. */
#define WINDOW_LEAST 65535

/*
 * The header to work->before and after. Returns SEGMENT_PASS or why not. What lies
 * in the linear part is taken first: it mostly ends with the header, and a copy
 * that goes beyond takes longer.
 */
static __always_inline int segment_load(struct __sk_buff *skb,
					struct work *work, __u32 shift)
{
	const struct packet *p = &work->packet;
	struct segment *s = &work->segment;
	__u32 rest = p->length + ETH_HLEN - p->payload_at;
	__u32 linear = skb->data_end - skb->data;
	__u64 want = rest;

	if (p->length + ETH_HLEN < p->payload_at + TCP_BASE)
		return WIRE_DROP_HEADER;
	if (linear > p->payload_at && linear - p->payload_at < want)
		want = linear - p->payload_at;
	bound(want, TCP_BASE, TCP_LONGEST);
	if (bpf_skb_load_bytes(skb, p->payload_at, &work->before, want))
		return WIRE_DROP_HEADER;
	s->head = (work->before.offset >> 4) * 4;
	if (s->head < TCP_BASE || s->head > rest)
		return WIRE_DROP_HEADER;
	if (s->head > want) {
		want = s->head;
		bound(want, TCP_BASE, TCP_LONGEST);
		if (bpf_skb_load_bytes(skb, p->payload_at, &work->before, want))
			return WIRE_DROP_HEADER;
	}
	s->payload = rest - s->head;
	s->seq = bpf_ntohl(work->before.seq);
	s->ack = bpf_ntohl(work->before.ack);
	s->window = (__u32)bpf_ntohs(work->before.window) << (shift & 31);
	s->flags = work->before.flags;
	s->raise = false;
	__builtin_memcpy(&work->after, &work->before, sizeof(work->after));
	return SEGMENT_PASS;
}

static __always_inline int segment_flags(const struct segment *s)
{
	__u8 flags = s->flags & (TCP_SYN | TCP_FIN | TCP_RST);

	if (flags & (flags - 1))
		return WIRE_DROP_FLAGS;
	if (!(s->flags & (TCP_ACK | TCP_SYN | TCP_RST)))
		return WIRE_DROP_FLAGS;
	return SEGMENT_PASS;
}

/* Another connection of the same two ends, which an ended pair must not touch. */
static __always_inline bool segment_begins(const struct segment *s)
{
	return (s->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/*
 * A leg whose remote has not acknowledged all that the relay sent itself: bare
 * acknowledgements are our socket's. Other segments pass, with the highest
 * acknowledgement that means nothing new to the other end; their SACK blocks
 * speak of our bytes. The right edge of the window stays where it was.
 */
static __always_inline int segment_latch(struct segment *s,
					 const struct wire_leg *from)
{
	if (!(*(volatile __u32 *)&from->flags & WIRE_LEG_LATCHED) ||
	    !(s->flags & TCP_ACK) || !before(s->ack, from->latch))
		return SEGMENT_PASS;
	if (!s->payload && !(s->flags & (TCP_FIN | TCP_RST)))
		return SEGMENT_UP;
	s->raise = true;
	return SEGMENT_PASS;
}

static __always_inline __u32 window_least(const struct wire_leg *leg)
{
	return leg->window > WINDOW_LEAST ? leg->window : WINDOW_LEAST;
}

/* What leg's remote reads of a window is this fine, in bytes. */
static __always_inline __u32 window_unit(const struct wire_leg *leg)
{
	return 1U << (leg->window_shift_out & 31);
}

/* Whether nothing of it needs the receiver's answer but what it acknowledges. */
static __always_inline bool segment_bare(const struct segment *s)
{
	return !s->payload && !(s->flags & (TCP_FIN | TCP_RST));
}

/*
 * By how much a window that `leg`'s remote reads may exceed what was offered, its
 * field being rounded up. That remote may number a bare acknowledgement so far
 * out; told to the other end as at the edge, it is not refused there.
 */
static __always_inline bool
segment_ahead(const struct segment *s, const struct wire_leg *leg, __u32 ahead)
{
	return segment_bare(s) && ahead < window_unit(leg);
}

/*
 * Payload where none can be of this sender's: behind its FIN, or in numbers that
 * our own socket fills, while the other end still lacks bytes of ours. Or a first
 * FIN before what the other end has acknowledged, which would end all that follows.
 */
static __always_inline bool segment_foreign(const struct segment *s,
					    const struct wire_leg *from,
					    const struct wire_leg *to)
{
	__u32 end = s->seq + s->payload + !!(s->flags & TCP_FIN);

	if (*(volatile __u32 *)&from->flags & WIRE_LEG_FIN) {
		if (before(from->fin_end, end))
			return true;
	} else if (s->flags & TCP_FIN &&
		   !before((__u32)to->acked, end + from->seq_delta)) {
		return true;
	}
	return s->payload && before(s->seq, from->received) &&
	       *(volatile __u32 *)&to->flags & WIRE_LEG_LATCHED;
}

/*
 * Whether our own socket may hear of a bare acknowledgement: its number is one that
 * the other end, or that socket at the time of the join, would take or answer.
 */
static __always_inline bool segment_near(const struct segment *s,
					 const struct wire_leg *from,
					 const struct wire_leg *to)
{
	__u32 seq = s->seq + from->seq_delta;

	if (before(seq, (__u32)to->acked - window_least(to)))
		return false;
	return !before(to->right, seq) || !before(from->offered, s->seq) ||
	       segment_ahead(s, from, seq - to->right);
}

/* Whether the other end would take or answer it. */
static __always_inline int segment_check(const struct segment *s,
					 const struct wire_leg *from,
					 const struct wire_leg *to)
{
	__u32 seq = s->seq + from->seq_delta;
	__u32 acked = to->acked;

	if (s->flags & TCP_RST)
		return seq == acked || s->seq == from->sent_end ?
			       SEGMENT_PASS :
			       WIRE_DROP_RESET;
	if (before(to->right, seq) && !segment_ahead(s, from, seq - to->right))
		return WIRE_DROP_SEQUENCE;
	if (before(seq, acked - window_least(to)) ||
	    segment_foreign(s, from, to))
		return WIRE_DROP_SEQUENCE;
	if (before(to->sent_end, s->ack + from->ack_delta) && !s->raise)
		return WIRE_DROP_ACK;
	if (before(s->ack, (__u32)from->acked - window_least(from)))
		return WIRE_DROP_ACK;
	return SEGMENT_PASS;
}

/* A unit up to which a receiver that has room has room for one. */
#define WINDOW_FINE 1024

/*
 * A window from ack to `right`, in a scale of `shift`, of a receiver that has once
 * offered `most`. Rounded down, but for a receiver of which too little would be left.
 */
static __always_inline __be16 window_field(__u32 ack, __u32 right, __u8 shift,
					   __u32 most)
{
	__u64 window = before(ack, right) ? right - ack : 0;
	__u64 unit = 1ULL << (shift & 31);

	if (unit > WINDOW_FINE || most < 2 * unit)
		window += unit - 1;
	window >>= shift & 31;
	return bpf_htons(window > 65535 ? 65535 : window);
}

/* The furthest right edge that from's remote has shown. */
static __always_inline __u32 segment_right(const struct segment *s,
					   const struct wire_leg *from)
{
	__u32 right = from->right, edge = s->ack + s->window;

	return before(right, edge) ? edge : right;
}

/*
 * A bare acknowledgement by rounding numbered below the end of what its sender has
 * sent, where a window moves back with what is acknowledged: the other end, having
 * received all, would not read it. A probe, of one who lacks no acknowledgement, is
 * numbered so on purpose.
 */
static __always_inline bool segment_behind(const struct segment *s,
					   const struct wire_leg *from,
					   const struct wire_leg *to)
{
	__u32 end = from->sent_end;
	bool probe = s->seq + 1 == end &&
		     (__u32)to->acked == end + from->seq_delta;

	return segment_bare(s) && before(s->seq, end) && !probe &&
	       end - s->seq < 2 * window_unit(from);
}

/* The number that a segment has on the other side. */
static __always_inline __u32 segment_number(const struct segment *s,
					    const struct wire_leg *from,
					    const struct wire_leg *to)
{
	__u32 seq = s->seq + from->seq_delta, right = to->right;
	__u32 end = from->sent_end + from->seq_delta;

	/* Beyond the window that end has not been accepted. */
	if (segment_behind(s, from, to) && !before(right, end))
		seq = end;
	if (before(right, seq) && segment_ahead(s, from, seq - right))
		return right;
	return seq;
}

/* work->after becomes the header for the other side. SEGMENT_PASS or why not. */
static __always_inline int segment_translate(const struct passage *t)
{
	const struct wire_leg *from = t->from, *to = t->to;
	struct work *work = t->work;
	const struct segment *s = &work->segment;
	struct options *o = &work->options;
	struct tcp_head *tcp = &work->after;
	__u32 ack = s->raise ? from->latch : s->ack;

	tcp->source = to->local_port;
	tcp->dest = to->remote_port;
	tcp->seq = bpf_htonl(segment_number(s, from, to));
	if (s->flags & TCP_ACK)
		tcp->ack = bpf_htonl(ack + from->ack_delta);
	tcp->window = window_field(ack, segment_right(s, from),
				   to->window_shift_out, from->window);
	o->tsval_delta = from->tsval_delta;
	o->tsecr_delta = from->tsecr_delta;
	o->tsval = from->tsval;
	o->ack_delta = from->ack_delta;
	o->flags = from->flags;
	o->has_ack = s->flags & TCP_ACK;
	o->blank_sack = s->raise;
	if (options_translate(work, s->head - TCP_BASE))
		return WIRE_DROP_OPTIONS;
	return SEGMENT_PASS;
}

/*
 * Whether the TCP checksum is right: a damaged segment must not move the state
 * of a pair. GRO has looked before it made one of many.
 */
static __always_inline bool segment_intact(struct __sk_buff *skb,
					   struct work *work)
{
	const struct packet *p = &work->packet;
	__u32 length = p->length + ETH_HLEN - p->payload_at;

	return skb->gso_size ||
	       sum_right(skb, work, sum_pseudo(p, IPPROTO_TCP, length), length,
			 work->before.check);
}

/* What a segment that passes says about its sender. */
static __always_inline void segment_learn(const struct passage *t)
{
	const struct segment *s = &t->work->segment;
	struct wire_leg *from = t->from, *to = t->to;
	__u32 end = s->seq + s->payload;
	__u32 last = bpf_ntohl(t->work->after.seq) + s->payload;

	from->packets++;
	if (from->seen_ns != t->work->now)
		from->seen_ns = t->work->now;
	if (s->flags & TCP_RST) {
		pair_end(t, t->work->leg == WIRE_CLIENT ?
				    WIRE_END_RESET_CLIENT :
				    WIRE_END_RESET_PEER);
		return;
	}
	if (s->flags & TCP_FIN) {
		end++;
		last++;
		if (!(from->flags & WIRE_LEG_FIN)) {
			*(volatile __u32 *)&from->fin_end = end;
			__sync_fetch_and_or(&from->flags, WIRE_LEG_FIN);
		}
	}
	raise(&from->sent_end, end);
	raise_extended(&from->acked, s->ack);
	/* Of an old duplicate the other end reads neither stamp nor window. */
	if (!before(last, (__u32)to->acked)) {
		raise(&from->tsval, t->work->options.tsval);
		raise(&from->right, s->ack + s->window);
		if (from->window < s->window)
			from->window = s->window;
	}
	if (!before(s->ack, from->latch) && from->flags & WIRE_LEG_LATCHED)
		pair_unlatch(t);
	if (t->work->state == WIRE_JOINED && leg_finished(from, to) &&
	    leg_finished(to, from))
		pair_end(t, WIRE_END_FIN);
}

#endif
