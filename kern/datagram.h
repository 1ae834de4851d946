/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Datagrams on lanes: between a client that speaks ChannelData over UDP and its peer.
 *
 * Nothing is dropped here. What is not plainly a lane's, or cannot be sent on as it is,
 * goes up the stack, where the relay's own sockets wait for it and do as they do
 * without lanes: wrong lengths and checksums, fragments, IP options, super-packets,
 * packets too large for the way on, lanes that have expired.
 *
 * The two kinds of packets differ in the four bytes of the ChannelData header, which
 * are taken out behind the UDP header, or put in. Where a device is to complete
 * the checksum (CHECKSUM_PARTIAL, of packets from this host's virtual devices) the
 * kernel knows the place of the UDP header by its distance from the buffer's start:
 * what stands before it must not be moved, so the payload is. Such a packet is known
 * by its checksum, the pseudo header's alone; that of another, which may happen to be
 * so, is mended by the same calls. Of all others the headers are moved, the shorter part.
 *
 * Where the legs are of two families the kernel takes or makes room for the difference of
 * the IP headers behind the link's, which alone is moved: the UDP header keeps its place,
 * and what is said above holds. The IP header is made anew in any case.
 */
#ifndef KERN_DATAGRAM_H
#define KERN_DATAGRAM_H

#include "answer.h"
#include "checksum.h"
#include "maps.h"
#include "packet.h"
#include "pair.h"
#include "route.h"
#include "work.h"

/* Numbers of channels, RFC 5766 section 11 too: no other payload looks so. */
#define CHANNEL_LEAST 0x4000
#define CHANNEL_MOST  0x7fff

/* A program may make no packet longer than four pages less what they share hold. */
#define LENGTHENED_MOST 16000

/* Between which legs a datagram goes: pointers alone, see struct work. */
struct crossing {
	struct __sk_buff *skb;
	struct work *work;
	struct wire_lane_leg *from;
	const struct wire_lane_leg *to;
};

_Static_assert(sizeof(struct wire_lane_key) == sizeof(struct wire_key) &&
		       __builtin_offsetof(struct wire_lane_key, family) ==
			       __builtin_offsetof(struct wire_key, family) &&
		       __builtin_offsetof(struct wire_lane_key, local_port) ==
			       __builtin_offsetof(struct wire_leg, local_port),
	       "a lane's key begins as a pair's key and leg do");

static __always_inline bool lanes_leased(struct work *work)
{
	__u32 zero = 0;
	struct wire_lease *lease = bpf_map_lookup_elem(&wire_lease, &zero);

	work->now = bpf_ktime_get_coarse_ns();
	return lease && *(volatile __u64 *)&lease->until_ns > work->now;
}

/* The headers to work->datagram.before. False: it is the stack's. */
static __always_inline bool datagram_load(struct __sk_buff *skb,
					  struct work *work)
{
	const struct packet *p = &work->packet;
	struct datagram_head *head = &work->datagram.before;
	__u32 rest = p->length + ETH_HLEN - p->payload_at;

	/* Behind it may be what fills up a short frame. */
	if (skb->gso_size || p->length + ETH_HLEN != skb->len ||
	    p->length + ETH_HLEN < p->payload_at + UDP_HEAD)
		return false;
	head->channel = 0;
	head->told = 0;
	if (rest >= sizeof(*head) ?
		    bpf_skb_load_bytes(skb, p->payload_at, head,
				       sizeof(*head)) :
		    bpf_skb_load_bytes(skb, p->payload_at, head, UDP_HEAD))
		return false;
	work->datagram.payload = rest - UDP_HEAD;
	return bpf_ntohs(head->length) == rest;
}

static __always_inline bool lane_key_is(const struct wire_lane_key *one,
					const struct wire_lane_key *other)
{
	const __u32 *a = (const __u32 *)one, *b = (const __u32 *)other;
	__u32 differ = 0;

	for (__u32 i = 0; i < sizeof(*one) / 4; i++)
		differ |= a[i] ^ b[i];
	return !differ;
}

/* The lane that the key in work->packet and this channel lead to. */
static __always_inline bool lane_look(struct crossing *t, __be16 channel)
{
	struct work *work = t->work;
	struct wire_lane_key *key = (struct wire_lane_key *)&work->packet.key;
	struct wire_lane *lane;
	struct wire_flow *flow;
	__u64 leg;

	key->channel = channel;
	flow = bpf_map_lookup_elem(&wire_lane_flows, key);
	if (!flow)
		return false;
	work->index = flow->pair;
	leg = flow->leg;
	/* By hand: the compiler's own bound is lost on the verifier. */
	asm volatile("%0 &= 1" : "+r"(leg));
	work->leg = leg;
	lane = bpf_map_lookup_elem(&wire_lanes, &work->index);
	if (!lane)
		return false;
	t->from = &lane->leg[leg];
	t->to = &lane->leg[leg ^ 1];
	/* A flow that is deleted while it is read may be another lane's by now. */
	return *(volatile __u32 *)&lane->state == WIRE_LANE_ON &&
	       lane_key_is(&t->from->key, key) &&
	       *(volatile __u64 *)&lane->expires_ns > work->now &&
	       t->from->device == t->skb->ifindex;
}

/*
 * What a client sends begins with the number of a channel; what a peer sends may do so,
 * too. A client's message must be as long as it says: padding is for the relay to judge.
 */
static __always_inline bool lane_find(struct crossing *t)
{
	struct datagram *d = &t->work->datagram;
	__u16 number = bpf_ntohs(d->before.channel);

	if (number >= CHANNEL_LEAST && number <= CHANNEL_MOST &&
	    lane_look(t, d->before.channel) && t->work->leg == WIRE_CLIENT) {
		d->payload -= CHANNEL_DATA_HEAD;
		return bpf_ntohs(d->before.told) == d->payload;
	}
	return lane_look(t, 0) && t->work->leg == WIRE_PEER;
}

static __always_inline __u64 datagram_pseudo(const struct work *work)
{
	return sum_pseudo(&work->packet, IPPROTO_UDP,
			  bpf_ntohs(work->datagram.before.length));
}

/*
 * As a socket judges; IPv4 may do without, IPv6 may not (RFC 8200 section 8.1). The
 * relay makes one for what goes from the one to the other.
 */
static __always_inline bool datagram_intact(const struct crossing *t)
{
	struct work *work = t->work;
	const struct packet *p = &work->packet;
	__u16 check = work->datagram.before.check;

	if (p->key.family == AF_INET &&
	    sum_fold(sum_words(&p->ip.v4, 5)) != 0xffff)
		return false;
	if (!check)
		return p->key.family == AF_INET && t->to->key.family == AF_INET;
	return sum_right(t->skb, work, datagram_pseudo(work),
			 bpf_ntohs(work->datagram.before.length), check);
}

/* How long it becomes, from the UDP header on. */
static __always_inline __u32 datagram_length(const struct work *work)
{
	__u32 length = UDP_HEAD + work->datagram.payload;

	return work->leg == WIRE_CLIENT ? length : length + CHANNEL_DATA_HEAD;
}

/* UDP and ChannelData headers for the other leg, but for the checksum. */
static __always_inline void datagram_head(const struct crossing *t)
{
	struct datagram *d = &t->work->datagram;

	d->after.source = t->to->key.local_port;
	d->after.dest = t->to->key.remote_port;
	d->after.length = bpf_htons(datagram_length(t->work));
	d->after.check = d->before.check;
	d->after.channel = t->to->key.channel;
	d->after.told = bpf_htons(d->payload);
}

/*
 * work->packet becomes one of the other leg, its IP header as the relay's sockets make
 * it: to peers it may be fragmented (RFC 8656 section 14.2), hence it has an
 * identification; to clients not.
 */
static __always_inline void datagram_ip(const struct crossing *t, __u32 length)
{
	const struct wire_lane_key *to = &t->to->key;
	struct packet *p = &t->work->packet;
	struct iphdr *ip = &p->ip.v4;

	p->key.family = to->family;
	p->payload_at = ETH_HLEN + ip_head(to->family);
	if (to->family == AF_INET6) {
		ipv6_fill(&p->ip.v6, to->local, to->remote, length);
		p->ip.v6.nexthdr = IPPROTO_UDP;
		return;
	}
	ipv4_fill(ip, to->local, to->remote, IPV4_HEAD + length);
	ip->protocol = IPPROTO_UDP;
	ip->id = 0;
	if (t->work->leg == WIRE_CLIENT) {
		ip->frag_off = 0;
		ip->id = (__be16)bpf_get_prandom_u32();
	}
	ip->check = ~sum_fold(sum_words(ip, 5));
}

/* What both headers change of the sum that the checksum is of. */
struct changes {
	__u64 pseudo, rest;
};

static __always_inline struct changes datagram_change(const struct crossing *t)
{
	const struct datagram *d = &t->work->datagram;
	const struct packet *p = &t->work->packet;
	__u32 was = bpf_ntohs(d->before.length);
	__u32 is = bpf_ntohs(d->after.length);
	struct changes by;

	by.pseudo = (__u32)~sum_fold(sum_pseudo(p, IPPROTO_UDP, was));
	datagram_ip(t, is);
	by.pseudo += sum_pseudo(p, IPPROTO_UDP, is);
	by.rest = sum_out(&d->before, 1) + sum_words(&d->after, 1) +
		  (__u16)~d->before.length + d->after.length;
	if (t->work->leg == WIRE_CLIENT)
		by.rest += sum_out(&d->before.channel, 1);
	else
		by.rest += sum_words(&d->after.channel, 1);
	return by;
}

/*
 * The room for the other leg's IP header, if that is of another family: what follows
 * the link's header moves nowhere, so a checksum to be completed stays in its place.
 */
static __always_inline long datagram_room(const struct crossing *t)
{
	__be16 type =
		bpf_htons(t->to->key.family == AF_INET ? ETH_P_IP : ETH_P_IPV6);

	if (t->from->key.family == t->to->key.family)
		return 0;
	if (bpf_skb_change_proto(t->skb, type, 0))
		return -1;
	return bpf_skb_store_bytes(t->skb,
				   __builtin_offsetof(struct ethhdr, h_proto),
				   &type, sizeof(type), 0);
}

/* Stores both headers; `flags` of bpf_skb_store_bytes. */
static __always_inline long datagram_store(const struct crossing *t,
					   __u64 flags)
{
	struct work *work = t->work;
	__u32 at = work->packet.payload_at;
	long error;

	if (work->packet.key.family == AF_INET)
		error = bpf_skb_store_bytes(t->skb, ETH_HLEN, &work->packet.ip,
					    IPV4_HEAD, flags);
	else
		error = bpf_skb_store_bytes(t->skb, ETH_HLEN, &work->packet.ip,
					    IPV6_HEAD, flags);
	if (error)
		return error;
	if (work->leg == WIRE_CLIENT)
		return bpf_skb_store_bytes(t->skb, at, &work->datagram.after,
					   UDP_HEAD, flags);
	return bpf_skb_store_bytes(t->skb, at, &work->datagram.after,
				   sizeof(work->datagram.after), flags);
}

/* The headers are moved; the checksum is all here. */
static __noinline int datagram_write(const struct crossing *t)
{
	struct datagram *d = &t->work->datagram;
	struct changes by = datagram_change(t);
	__s32 more = t->work->leg == WIRE_CLIENT ? -CHANNEL_DATA_HEAD :
						   CHANNEL_DATA_HEAD;
	__u16 sum = ~d->before.check;

	/* RFC 768: a sum of zero is sent as all ones. */
	if (d->before.check) {
		d->after.check = ~sum_fold(sum + by.pseudo + by.rest);
		if (!d->after.check)
			d->after.check = 0xffff;
	}
	if (datagram_room(t) ||
	    bpf_skb_adjust_room(t->skb, more, BPF_ADJ_ROOM_NET, 0) ||
	    datagram_store(t, BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH))
		return -1;
	return 0;
}

/* `length` bytes of payload from one place to another. */
static __always_inline long datagram_move(const struct crossing *t, __u32 from,
					  __u32 to, __u32 size)
{
	struct work *work = t->work;
	__u64 length = work->datagram.payload;
	long error = 0;

	bound(length, 1, MOVED_MOST);
	/* Room is made before, or given up after. */
	if (to < from)
		error = bpf_skb_load_bytes(t->skb, from, work->moved, length);
	else if (!bpf_skb_load_bytes(t->skb, from, work->moved, length))
		error = bpf_skb_change_tail(t->skb, size, 0);
	else
		error = -1;
	if (!error)
		error = bpf_skb_store_bytes(t->skb, to, work->moved, length, 0);
	if (!error && to < from)
		error = bpf_skb_change_tail(t->skb, size, 0);
	return error;
}

/* The payload is moved; a device may complete the checksum. */
static __noinline int datagram_write_partial(const struct crossing *t)
{
	struct changes by = datagram_change(t);
	__u32 at = t->work->packet.payload_at;
	__u32 check = at + __builtin_offsetof(struct datagram_head, check);
	__u32 bare = at + UDP_HEAD, full = bare + CHANNEL_DATA_HEAD;
	bool client = t->work->leg == WIRE_CLIENT;
	__u32 size = (client ? bare : full) + t->work->datagram.payload;

	if (datagram_room(t) ||
	    datagram_move(t, client ? full : bare, client ? bare : full,
			  size) ||
	    datagram_store(t, BPF_F_INVALIDATE_HASH) ||
	    bpf_l4_csum_replace(t->skb, check, 0, sum_difference(by.pseudo),
				BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0) ||
	    bpf_l4_csum_replace(t->skb, check, 0, sum_difference(by.rest),
				BPF_F_MARK_MANGLED_0))
		return -1;
	return 0;
}

/* PACKET_UDP has arrived. */
static __noinline int datagram_forward(struct __sk_buff *skb, struct work *work)
{
	struct crossing t = { .skb = skb, .work = work };
	bool partial;
	__u32 size;

	if (!lanes_leased(work) || !datagram_load(skb, work) ||
	    !lane_find(&t) || !datagram_intact(&t))
		return TC_ACT_UNSPEC;
	partial = sum_partial(skb, datagram_pseudo(work),
			      work->datagram.before.check);
	if (partial &&
	    (!work->datagram.payload || work->datagram.payload > MOVED_MOST))
		return TC_ACT_UNSPEC;
	size = ip_head(t.to->key.family) + datagram_length(work);
	work->fib.l4_protocol = IPPROTO_UDP;
	if (size > LENGTHENED_MOST ||
	    route_find(skb, &work->fib, t.to->key.family,
		       (const struct wire_leg *)&t.to->key,
		       size) != ROUTE_FOUND)
		return TC_ACT_UNSPEC;
	datagram_head(&t);
	if (partial ? datagram_write_partial(&t) : datagram_write(&t))
		return drop(WIRE_DROP_ERROR);
	__sync_fetch_and_add(&t.from->packets, 1);
	__sync_fetch_and_add(&t.from->bytes, work->datagram.payload);
	count(WIRE_COUNT_DATAGRAMS);
	return route_take(skb, work);
}

/* Volatile: the compiler would work out one address for both, and none is allowed. */
static __always_inline void
lane_bound(__u32 to[4], const volatile struct bpf_sock *sk, __u32 family)
{
	if (family == AF_INET) {
		to[0] = sk->src_ip4;
		return;
	}
	to[0] = sk->src_ip6[0];
	to[1] = sk->src_ip6[1];
	to[2] = sk->src_ip6[2];
	to[3] = sk->src_ip6[3];
}

/* For the broker: what the stack makes of a leg's datagrams, and the way to it. */
static __noinline int lane_ask(struct __sk_buff *skb,
			       struct bpf_fib_lookup *fib,
			       const struct wire_lane_key *key,
			       struct wire_lane_look *look)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;

	if (key->family == AF_INET) {
		tuple.ipv4.saddr = *(__u32 *)key->remote;
		tuple.ipv4.daddr = *(__u32 *)key->local;
		tuple.ipv4.sport = key->remote_port;
		tuple.ipv4.dport = key->local_port;
		sk = bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4),
				       BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, key->remote, 16);
		__builtin_memcpy(tuple.ipv6.daddr, key->local, 16);
		tuple.ipv6.sport = key->remote_port;
		tuple.ipv6.dport = key->local_port;
		sk = bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv6),
				       BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memset(look, 0, sizeof(*look));
	if (!sk)
		return 0;
	look->found = sk->family == key->family && !sk->bound_dev_if &&
		      !sk->mark;
	look->port = bpf_htons(sk->src_port);
	lane_bound((__u32 *)look->bound, sk, key->family);
	bpf_sk_release(sk);
	fib->l4_protocol = IPPROTO_UDP;
	if (route_find(skb, fib, key->family, (const struct wire_leg *)key,
		       0) == ROUTE_FOUND)
		look->device = fib->ifindex;
	return 0;
}

#endif
