/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From a frame to the key of a flow. What the stack would deliver to a socket
 * is recognised in every form, so that a form which is not translated can be
 * dropped for joined flows: header options, extension headers, fragments.
 */
#ifndef KERN_PACKET_H
#define KERN_PACKET_H

#include "maps.h"
#include "work.h"

#include <linux/if_ether.h>
#include <linux/in.h>

enum packet_kind {
	PACKET_OTHER, /* none of our business */
	PACKET_TCP,
	PACKET_TOO_BIG, /* ICMP type 3 code 4, ICMPv6 type 2 */
	PACKET_UDP, /* arriving, in the usual form: whole, without options */
};

#define EXTENSIONS      4 /* followed; a packet with more goes up the stack */
#define IPV4_WHOLE      0x4000 /* must not be fragmented */
#define IPV4_MORE       0x2000
#define IPV4_OFFSET     0x1fff
#define IPV6_OFFSET     0xfff8
#define NEXT_HOP_BY_HOP 0
#define NEXT_ROUTING    43
#define NEXT_FRAGMENT   44
#define NEXT_AUTH       51
#define NEXT_OPTIONS    60
#define VLAN_NUMBER     0x0fff /* of a tag */
#define JUMBO_OPTION    0xc2
#define JUMBO_SIZE      4

/*
 * The IP header of `head` bytes and a TCP header lie in the linear part, but for
 * odd drivers. Nothing more is asked for: a host's own TCP keeps the payload
 * outside, and to pull some of it in would copy the head of every packet.
 */
static __always_inline void packet_pull(struct __sk_buff *skb, __u32 head)
{
	__u32 want = ETH_HLEN + head + TCP_LONGEST;
	__u32 linear = skb->data_end - skb->data;

	if (linear >= ETH_HLEN + head + TCP_BASE || linear >= skb->len)
		return;
	if (want > skb->len)
		want = skb->len;
	bpf_skb_pull_data(skb, want);
}

static __always_inline void packet_address(__u8 *to, const void *from,
					   __u32 words)
{
	__u32 *out = (__u32 *)to;
	const __u32 *in = from;

	for (__u32 i = 0; i < 4; i++)
		out[i] = i < words ? in[i] : 0;
}

/* The key from the side of who receives: `mine` names our end's address. */
static __always_inline void packet_key(struct packet *p, const void *remote,
				       const void *local, __u32 words)
{
	packet_address(p->key.remote, remote, words);
	packet_address(p->key.local, local, words);
	p->key.family = words == 1 ? AF_INET : AF_INET6;
	p->key.zero[0] = 0;
	p->key.zero[1] = 0;
	p->key.zero[2] = 0;
}

static __always_inline int packet_ports(struct __sk_buff *skb, struct packet *p,
					bool outgoing)
{
	__be16 ports[2];

	if (bpf_skb_load_bytes(skb, p->payload_at, ports, sizeof(ports)))
		return PACKET_OTHER;
	p->key.remote_port = ports[outgoing];
	p->key.local_port = ports[!outgoing];
	return PACKET_TCP;
}

/* The key of a datagram; in any other form it is the stack's. */
static __always_inline int packet_datagram(struct packet *p,
					   const __be16 *ports, bool outgoing)
{
	if (outgoing || p->fault != PACKET_SOUND)
		return PACKET_OTHER;
	p->key.remote_port = ports[0];
	p->key.local_port = ports[1];
	return PACKET_UDP;
}

static __always_inline int packet_parse_v4(struct __sk_buff *skb,
					   struct packet *p, bool outgoing)
{
	void *data = (void *)(long)skb->data,
	     *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	__u8 *icmp = (__u8 *)(ip + 1);
	__u16 fragment;

	if ((void *)(icmp + 4) > end || ip->version != 4)
		return PACKET_OTHER;
	if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_ICMP &&
	    ip->protocol != IPPROTO_UDP)
		return PACKET_OTHER;
	fragment = bpf_ntohs(ip->frag_off);
	if (fragment & IPV4_OFFSET)
		return PACKET_OTHER;
	p->payload_at = ETH_HLEN + ip->ihl * 4;
	p->length = bpf_ntohs(ip->tot_len);
	/* A super-packet whose length the field cannot hold ("BIG TCP"). */
	if (!p->length && skb->gso_size)
		p->length = skb->len - ETH_HLEN;
	p->fault = PACKET_SOUND;
	if (ip->ihl != 5 || p->length > skb->len - ETH_HLEN)
		p->fault = WIRE_DROP_HEADER;
	else if (fragment & IPV4_MORE)
		p->fault = WIRE_DROP_FRAGMENT;
	for (__u32 i = 0; i < IPV4_HEAD / 4; i++)
		p->ip.words[i] = ((__u32 *)ip)[i];
	if (ip->protocol == IPPROTO_ICMP)
		return icmp[0] == 3 && icmp[1] == 4 && !outgoing ?
			       PACKET_TOO_BIG :
			       PACKET_OTHER;
	packet_key(p, outgoing ? &ip->daddr : &ip->saddr,
		   outgoing ? &ip->saddr : &ip->daddr, 1);
	if (ip->protocol == IPPROTO_UDP)
		return packet_datagram(p, (__be16 *)icmp, outgoing);
	if (p->fault != PACKET_SOUND)
		return packet_ports(skb, p, outgoing);
	p->key.remote_port = ((__be16 *)icmp)[outgoing];
	p->key.local_port = ((__be16 *)icmp)[!outgoing];
	return PACKET_TCP;
}

/* Follows extension headers to TCP; for later fragments there is no TCP. */
static __noinline int packet_extensions(struct __sk_buff *skb, struct packet *p)
{
	__u8 next = p->ip.v6.nexthdr;
	__u8 head[4];

	for (int i = 0; i < EXTENSIONS && next != IPPROTO_TCP; i++) {
		if (bpf_skb_load_bytes(skb, p->payload_at, head, 4))
			return PACKET_OTHER;
		switch (next) {
		case NEXT_FRAGMENT:
			if ((head[2] << 8 | head[3]) & IPV6_OFFSET)
				return PACKET_OTHER;
			p->fault = WIRE_DROP_FRAGMENT;
			p->payload_at += 8;
			break;
		case NEXT_AUTH:
			p->payload_at += (head[1] + 2) * 4;
			break;
		case NEXT_HOP_BY_HOP:
		case NEXT_ROUTING:
		case NEXT_OPTIONS:
			p->payload_at += (head[1] + 1) * 8;
			break;
		default:
			return PACKET_OTHER;
		}
		next = head[0];
	}
	return next == IPPROTO_TCP ? PACKET_TCP : PACKET_OTHER;
}

/*
 * An IPv6 super-packet of more than 64 KiB ("BIG TCP") may carry a jumbo length
 * (RFC 2675), put there by this host's own GRO; segmentation takes it out.
 */
static __always_inline bool packet_jumbo(struct __sk_buff *skb,
					 struct packet *p)
{
	__u8 head[4];

	if (p->ip.v6.payload_len || !skb->gso_size ||
	    p->ip.v6.nexthdr != NEXT_HOP_BY_HOP ||
	    bpf_skb_load_bytes(skb, p->payload_at, head, sizeof(head)))
		return false;
	if (head[0] != IPPROTO_TCP || head[1] || head[2] != JUMBO_OPTION ||
	    head[3] != JUMBO_SIZE)
		return false;
	p->payload_at += 8;
	return true;
}

static __always_inline int packet_parse_v6(struct __sk_buff *skb,
					   struct packet *p, bool outgoing)
{
	void *data = (void *)(long)skb->data,
	     *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + ETH_HLEN;
	__u8 *icmp = (__u8 *)(ip + 1);

	if ((void *)(icmp + 4) > end || ip->version != 6)
		return PACKET_OTHER;
	p->payload_at = ETH_HLEN + IPV6_HEAD;
	p->length = bpf_ntohs(ip->payload_len) + IPV6_HEAD;
	if (!ip->payload_len && skb->gso_size)
		p->length = skb->len - ETH_HLEN;
	p->fault = PACKET_SOUND;
	if (p->length > skb->len - ETH_HLEN)
		p->fault = WIRE_DROP_HEADER;
	for (__u32 i = 0; i < IPV6_HEAD / 4; i++)
		p->ip.words[i] = ((__u32 *)ip)[i];
	if (ip->nexthdr == IPPROTO_ICMPV6)
		return icmp[0] == 2 && !outgoing ? PACKET_TOO_BIG :
						   PACKET_OTHER;
	packet_key(p, outgoing ? &ip->daddr : &ip->saddr,
		   outgoing ? &ip->saddr : &ip->daddr, 4);
	if (ip->nexthdr == IPPROTO_UDP)
		return packet_datagram(p, (__be16 *)icmp, outgoing);
	if (ip->nexthdr == IPPROTO_TCP) {
		p->key.remote_port = ((__be16 *)icmp)[outgoing];
		p->key.local_port = ((__be16 *)icmp)[!outgoing];
		return PACKET_TCP;
	}
	if (packet_jumbo(skb, p))
		return packet_ports(skb, p, outgoing);
	p->fault = WIRE_DROP_HEADER;
	if (packet_extensions(skb, p) != PACKET_TCP)
		return PACKET_OTHER;
	return packet_ports(skb, p, outgoing);
}

/* `outgoing`: a packet that leaves, so its source is our end. */
static __always_inline int packet_parse(struct __sk_buff *skb, struct packet *p,
					bool outgoing)
{
	/*
	 * A tagged frame is the VLAN device's, whose own hook will see it; but
	 * VLAN 0 is none: such a tag is for the priority alone (IEEE 802.1Q).
	 */
	if (skb->vlan_present && skb->vlan_tci & VLAN_NUMBER)
		return PACKET_OTHER;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		packet_pull(skb, IPV4_HEAD);
		return packet_parse_v4(skb, p, outgoing);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		packet_pull(skb, IPV6_HEAD);
		return packet_parse_v6(skb, p, outgoing);
	}
	return PACKET_OTHER;
}

#endif
