/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is said to an end in place of forwarding what it sent: the packet at hand
 * is made another and turned round.
 */
#ifndef KERN_ANSWER_H
#define KERN_ANSWER_H

#include "checksum.h"
#include "maps.h"
#include "packet.h"
#include "route.h"
#include "work.h"

/* One a leg and kind; the sender's next try finds out about a lost one. */
#define ANSWER_INTERVAL_NS 50000000ULL
/* The lengths of an answer: an IP packet in work->message. */
#define ANSWER_LEAST (IPV4_HEAD + TCP_BASE)
#define ANSWER_MOST  96
/*
 * Cut from the front when a packet becomes an answer: more than the
 * headers before TCP. The kernel then forgets that a device should complete
 * the checksum of the TCP that was there.
 */
#define CUT 64

/* Whether the last one was so long ago; `told` is when, in the leg. */
static __always_inline bool answer_due(__u64 *told, __u64 now)
{
	__u64 was = *(volatile __u64 *)told;

	if (was && now - was < ANSWER_INTERVAL_NS)
		return false;
	return __sync_val_compare_and_swap(told, was, now) == was;
}

static __always_inline void ipv4_fill(struct iphdr *ip, const __u8 *from,
				      const __u8 *to, __u32 length)
{
	ip->version = 4;
	ip->ihl = 5;
	ip->tos = 0;
	ip->tot_len = bpf_htons(length);
	ip->frag_off = bpf_htons(IPV4_WHOLE);
	ip->ttl = wire_hop_limit;
	ip->check = 0;
	ip->saddr = *(__u32 *)from;
	ip->daddr = *(__u32 *)to;
}

static __always_inline void ipv6_fill(struct ipv6hdr *ip, const __u8 *from,
				      const __u8 *to, __u32 length)
{
	*(__be32 *)ip = bpf_htonl(6 << 28);
	ip->payload_len = bpf_htons(length);
	ip->hop_limit = wire_hop_limit;
	__builtin_memcpy(&ip->saddr, from, 16);
	__builtin_memcpy(&ip->daddr, to, 16);
}

/*
 * The packet at hand becomes work->message, `length` bytes from the IP header on,
 * to leg's remote; it is counted as `what`.
 */
static __noinline int answer_send(struct __sk_buff *skb, struct work *work,
				  const struct wire_leg *leg, __u32 length,
				  __u32 what)
{
	__u64 size = length;

	bound(size, ANSWER_LEAST, ANSWER_MOST);
	work->fib.l4_protocol = IPPROTO_TCP;
	if (route_find(skb, &work->fib, work->packet.key.family, leg, size) !=
	    ROUTE_FOUND)
		return drop(WIRE_DROP_ROUTE);
	if (bpf_skb_change_tail(skb, ETH_HLEN + size + CUT, 0) ||
	    bpf_skb_adjust_room(skb, -CUT, BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, work->message, size,
				BPF_F_RECOMPUTE_CSUM))
		return drop(WIRE_DROP_ERROR);
	count(what);
	return route_take(skb, work);
}

#endif
