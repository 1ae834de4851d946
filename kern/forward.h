/* SPDX-License-Identifier: BSD-2-Clause */
/* The way of a TCP segment of a joined pair, from the one leg to the other. */
#ifndef KERN_FORWARD_H
#define KERN_FORWARD_H

#include "challenge.h"
#include "checksum.h"
#include "maps.h"
#include "packet.h"
#include "pair.h"
#include "route.h"
#include "segment.h"
#include "too_big.h"
#include "work.h"

/* IP header of p for leg `to`; returns what to add to the TCP checksum. */
static __always_inline __u64 forward_head(struct packet *p,
					  const struct wire_leg *to)
{
	__u64 change;

	if (p->key.family == AF_INET) {
		struct iphdr *ip = &p->ip.v4;

		change = sum_out(&ip->saddr, 2);
		ip->tos = 0;
		ip->ttl = wire_hop_limit;
		ip->saddr = *(__u32 *)to->local;
		ip->daddr = *(__u32 *)to->remote;
		ip->check = 0;
		ip->check = ~sum_fold(sum_words(ip, 5));
		return change + sum_words(&ip->saddr, 2);
	}
	change = sum_out(&p->ip.v6.saddr, 8);
	/* The traffic class goes, the flow label stays. */
	p->ip.words[0] &= bpf_htonl(0xf00fffff);
	p->ip.v6.hop_limit = wire_hop_limit;
	__builtin_memcpy(&p->ip.v6.saddr, to->local, 16);
	__builtin_memcpy(&p->ip.v6.daddr, to->remote, 16);
	return change + sum_words(&p->ip.v6.saddr, 8);
}

/*
 * Writes both headers and mends the TCP checksum. Where the device has summed
 * the whole packet (CHECKSUM_COMPLETE) that sum stays true: the kernel takes
 * the change of the pseudo header out of it, which for IPv4 is right because
 * the header's own checksum has balanced the addresses; IPv6 has none, so its
 * header is stored with a recomputation that puts them in.
 */
static __noinline int forward_write(struct __sk_buff *skb, struct work *work,
				    const struct wire_leg *to)
{
	struct packet *p = &work->packet;
	__u32 check =
		p->payload_at + __builtin_offsetof(struct tcp_head, check);
	__u64 pseudo = forward_head(p, to), head = work->segment.head;
	long error, sum;

	bound(head, TCP_BASE, TCP_LONGEST);
	sum = bpf_csum_diff((__be32 *)&work->before, head,
			    (__be32 *)&work->after, head, 0);
	if (p->key.family == AF_INET) {
		work->head = p->ip.v4;
		head += IPV4_HEAD;
		bound(head, IPV4_HEAD + TCP_BASE, IPV4_HEAD + TCP_LONGEST);
		error = bpf_skb_store_bytes(skb, ETH_HLEN, &work->head, head,
					    BPF_F_INVALIDATE_HASH);
	} else {
		error = bpf_skb_store_bytes(skb, ETH_HLEN, &p->ip, IPV6_HEAD,
					    BPF_F_RECOMPUTE_CSUM |
						    BPF_F_INVALIDATE_HASH) ||
			bpf_skb_store_bytes(skb, p->payload_at, &work->after,
					    head, 0);
	}
	if (error || sum < 0 ||
	    bpf_l4_csum_replace(skb, check, 0, sum_difference(pseudo),
				BPF_F_PSEUDO_HDR) ||
	    bpf_l4_csum_replace(skb, check, 0, sum, 0))
		return -1;
	return 0;
}

/*
 * What a TCP of this very machine sends (a container's) is a clone, of which that keeps
 * the other for when it must be sent again. Forwarding copies the headers of such a one,
 * and so do we, for its receiver cannot merge clones in its queue: that costs it more.
 * Any other packet is left as it is, and so is this one when there is no memory.
 */
static __always_inline void forward_own(struct __sk_buff *skb)
{
	bpf_skb_change_head(skb, 0, 0);
}

/* How long the packet, or each of what it will be cut into, is on the wire. */
static __always_inline __u32 forward_size(struct __sk_buff *skb,
					  const struct work *work)
{
	const struct packet *p = &work->packet;

	if (skb->gso_size)
		return ip_head(p->key.family) + work->segment.head +
		       skb->gso_size;
	return p->length;
}

static __always_inline int forward_sound(const struct packet *p)
{
	if (p->fault != PACKET_SOUND)
		return p->fault;
	if (p->key.family == AF_INET &&
	    sum_fold(sum_words(&p->ip.v4, 5)) != 0xffff)
		return WIRE_DROP_HEADER;
	return SEGMENT_PASS;
}

/* Everything that may be said against a segment before it is touched. */
static __noinline int forward_check(struct __sk_buff *skb,
				    const struct passage *t)
{
	struct work *work = t->work;
	struct segment *s = &work->segment;
	int verdict = forward_sound(&work->packet);

	if (verdict == SEGMENT_PASS)
		verdict = segment_load(skb, work, t->from->window_shift_in);
	if (verdict == SEGMENT_PASS)
		verdict = segment_flags(s);
	if (verdict != SEGMENT_PASS)
		return verdict;
	if (!segment_intact(skb, work))
		return WIRE_DROP_HEADER;
	if (work->state == WIRE_ENDED && segment_begins(s)) {
		bpf_map_delete_elem(&wire_flows, &work->packet.key);
		return SEGMENT_UP;
	}
	if (passage_expired(t))
		return WIRE_DROP_EXPIRED;
	if (s->flags & TCP_SYN)
		return WIRE_DROP_SYN;
	verdict = segment_latch(s, t->from);
	if (verdict == SEGMENT_UP && !segment_near(s, t->from, t->to))
		return WIRE_DROP_SEQUENCE;
	if (verdict != SEGMENT_PASS)
		return verdict;
	return segment_check(s, t->from, t->to);
}

/*
 * A bare acknowledgement for our own socket. The remote has gone on by wire, so
 * it is numbered beyond what the socket has received, perhaps beyond its window,
 * and would be refused with what it acknowledges. The end of that window at the
 * join is within it for good, and not below what may have been received since.
 */
static __noinline int forward_up(struct __sk_buff *skb, struct work *work,
				 const struct wire_leg *from)
{
	const struct packet *p = &work->packet;
	__u32 seq = p->payload_at + __builtin_offsetof(struct tcp_head, seq);
	__u32 check =
		p->payload_at + __builtin_offsetof(struct tcp_head, check);
	__be32 was = work->before.seq, next = bpf_htonl(from->offered);

	if (work->segment.flags & TCP_SYN ||
	    !before(from->offered, work->segment.seq))
		return TC_ACT_UNSPEC;
	work->before.seq = next;
	if (bpf_skb_store_bytes(skb, seq, &work->before.seq, sizeof(next), 0) ||
	    bpf_l4_csum_replace(skb, check, was, next, sizeof(next)))
		return drop(WIRE_DROP_ERROR);
	return TC_ACT_UNSPEC;
}

/* PACKET_TCP has arrived. */
static __noinline int forward_segment(struct __sk_buff *skb, struct work *work)
{
	struct passage t;
	__u32 size;
	int verdict;

	if (!passage_find(&t, work) || work->state == WIRE_JOINING)
		return TC_ACT_UNSPEC;
	verdict = forward_check(skb, &t);
	if (verdict == SEGMENT_PASS)
		verdict = segment_translate(&t);
	if (verdict == SEGMENT_UP)
		return forward_up(skb, work, t.from);
	if (verdict == WIRE_DROP_RESET || verdict == WIRE_DROP_SYN)
		return challenge_tell(skb, &t, verdict);
	if (verdict != SEGMENT_PASS)
		return drop(verdict);
	size = forward_size(skb, work);
	work->fib.l4_protocol = IPPROTO_TCP;
	verdict = route_find(skb, &work->fib, work->packet.key.family, t.to,
			     size);
	if (verdict == WIRE_DROP_TOO_BIG) {
		work->too_big = (struct too_big){
			.mtu = work->fib.mtu_result,
			.seq = work->segment.seq,
			.length = size,
			.id = work->packet.ip.v4.id,
		};
		return too_big_tell(skb, &t);
	}
	if (verdict != ROUTE_FOUND)
		return drop(verdict);
	if (work->segment.payload)
		forward_own(skb);
	if (forward_write(skb, work, t.to))
		return drop(WIRE_DROP_ERROR);
	segment_learn(&t);
	count(WIRE_COUNT_FORWARDED);
	return route_take(skb, work);
}

#endif
