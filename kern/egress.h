/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What our own sockets say on a tuple that is joined, or being joined. They
 * still deliver the relay's last bytes, but must not end the connection, nor
 * acknowledge what has not been carried over (README.md, invariant 1): the
 * remote would never send it again. A SACK block would be such a promise, too.
 */
#ifndef KERN_EGRESS_H
#define KERN_EGRESS_H

#include "maps.h"
#include "packet.h"
#include "pair.h"
#include "segment.h"
#include "work.h"

/*
 * Acknowledges as much as the other end has, in the window it has opened. An
 * acknowledgement of the time of the join would by and by be too old for the
 * remote to take the segment (RFC 5961 section 5.2), and its window narrow.
 */
static __always_inline void egress_acknowledge(const struct passage *t)
{
	const struct wire_leg *leg = t->from, *other = t->to;
	struct tcp_head *tcp = &t->work->after;
	__u32 known = (__u32)other->acked - leg->seq_delta;
	__u32 right = other->right - leg->seq_delta;
	__u32 ack = leg->received;

	if (before(ack, known))
		ack = known;
	tcp->ack = bpf_htonl(ack);
	tcp->window =
		window_field(ack, right, leg->window_shift_out, other->window);
}

/*
 * By how much our TSval differs from the last that the remote has been sent from
 * the other end, whose clock may be slower or faster than ours. Ahead of it, ours
 * would make the remote take for old what follows (RFC 7323 section 5), and behind
 * it be taken for old itself.
 */
static __always_inline __u32 egress_stamp(const struct passage *t)
{
	const struct tcp_head *tcp = &t->work->before;
	const __be32 *option = (const __be32 *)tcp->options;

	if (t->work->segment.head < TCP_BASE + 12 ||
	    option[0] != bpf_htonl(OPTIONS_USUAL))
		return 0;
	return t->to->tsval - bpf_ntohl(option[1]);
}

/*
 * Joined, a segment speaks for the other end, and a FIN behind the last bytes is
 * taken off; joining, it acknowledges at most leg->received. SACK blocks become
 * no-operations.
 */
static __always_inline int egress_rewrite(struct __sk_buff *skb,
					  const struct passage *t)
{
	struct work *work = t->work;
	const struct packet *p = &work->packet;
	const struct segment *s = &work->segment;
	__u32 check =
		p->payload_at + __builtin_offsetof(struct tcp_head, check);
	__u64 head = s->head;
	long sum;

	__builtin_memset(&work->options, 0, sizeof(work->options));
	if (work->state != WIRE_JOINING) {
		egress_acknowledge(t);
		work->after.flags &= ~TCP_FIN;
		work->options.tsval_delta = egress_stamp(t);
	} else if (before(t->from->received, s->ack)) {
		work->after.ack = bpf_htonl(t->from->received);
	}
	work->options.flags = WIRE_LEG_TIMESTAMPS;
	work->options.blank_sack = 1;
	if (options_translate(work, head - TCP_BASE))
		return -1;
	bound(head, TCP_BASE, TCP_LONGEST);
	sum = bpf_csum_diff((__be32 *)&work->before, head,
			    (__be32 *)&work->after, head, 0);
	if (sum < 0 ||
	    bpf_skb_store_bytes(skb, p->payload_at, &work->after, head, 0) ||
	    bpf_l4_csum_replace(skb, check, 0, sum, 0))
		return -1;
	return 0;
}

/* Options that may hold SACK blocks: anything but timestamps alone, or none. */
static __always_inline bool egress_plain(const struct work *work, __u32 head)
{
	return head == TCP_BASE ||
	       (head == TCP_BASE + 12 &&
		*(__u32 *)work->before.options == bpf_htonl(OPTIONS_USUAL));
}

/* Whether it acknowledges no more than it may. */
static __always_inline bool egress_honest(const struct work *work,
					  const struct wire_leg *leg)
{
	const struct segment *s = &work->segment;

	return !(s->flags & TCP_ACK) ||
	       (!before(leg->received, s->ack) && egress_plain(work, s->head));
}

/* A packet of ours for the remote of a leg. */
static __noinline int egress_segment(struct __sk_buff *skb, struct work *work)
{
	const struct segment *s = &work->segment;
	struct passage t;

	if (!passage_find(&t, work))
		return TC_ACT_UNSPEC;
	if (work->packet.fault != PACKET_SOUND ||
	    segment_load(skb, work, 0) != SEGMENT_PASS)
		return drop(WIRE_DROP_LOCAL);
	if (work->state == WIRE_JOINING) {
		if (egress_honest(work, t.from))
			return TC_ACT_UNSPEC;
		if (!s->payload && !(s->flags & (TCP_FIN | TCP_RST)))
			return drop(WIRE_DROP_LOCAL);
	} else {
		if (work->state == WIRE_ENDED && segment_begins(s)) {
			bpf_map_delete_elem(&wire_flows, &work->packet.key);
			return TC_ACT_UNSPEC;
		}
		if (s->flags & (TCP_SYN | TCP_RST) || !(s->flags & TCP_ACK) ||
		    before(t.from->latch, s->seq + s->payload))
			return drop(WIRE_DROP_LOCAL);
		/* A bare one: a probe, or what must not be said. */
		if (!s->payload &&
		    (s->flags & TCP_FIN || !egress_honest(work, t.from)))
			return drop(WIRE_DROP_LOCAL);
	}
	if (egress_rewrite(skb, &t))
		return drop(WIRE_DROP_LOCAL);
	return TC_ACT_UNSPEC;
}

#endif
