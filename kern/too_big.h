/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Packet-too-big messages (RFC 792 and 1191, RFC 4443 section 3.2): of a router
 * about a packet we sent on, to be told to the end that made it; and our own,
 * when a packet is larger than the other leg carries.
 */
#ifndef KERN_TOO_BIG_H
#define KERN_TOO_BIG_H

#include "answer.h"
#include "checksum.h"
#include "maps.h"
#include "packet.h"
#include "pair.h"
#include "work.h"

/* What a message quotes of TCP: ports and sequence number. */
struct quote {
	__be16 source, dest;
	__be32 seq;
};

struct too_big_v4 {
	struct iphdr ip;
	__u8 type, code;
	__u16 check;
	__be16 zero, mtu;
	struct iphdr inner;
	struct quote tcp;
};

struct too_big_v6 {
	struct ipv6hdr ip;
	__u8 type, code;
	__u16 check;
	__be32 mtu;
	struct ipv6hdr inner;
	struct quote tcp;
};

/* Less is no path of that protocol: RFC 791, RFC 8200. */
#define MTU_LEAST_V4 68
#define MTU_LEAST_V6 1280
/* Routers quote little, at most what fits an Ethernet. */
#define MESSAGE_LONGEST 1536
static __always_inline void too_big_fill_v4(struct too_big_v4 *m,
					    const struct too_big *t,
					    const struct wire_leg *leg)
{
	ipv4_fill(&m->ip, leg->local, leg->remote, sizeof(*m));
	m->ip.id = 0;
	m->ip.protocol = IPPROTO_ICMP;
	m->ip.check = ~sum_fold(sum_words(&m->ip, 5));
	m->type = 3;
	m->code = 4;
	m->check = 0;
	m->zero = 0;
	m->mtu = bpf_htons(t->mtu > 65535 ? 65535 : t->mtu);
	ipv4_fill(&m->inner, leg->remote, leg->local, t->length);
	m->inner.id = t->id;
	m->inner.protocol = IPPROTO_TCP;
	m->inner.check = ~sum_fold(sum_words(&m->inner, 5));
	m->tcp.source = leg->remote_port;
	m->tcp.dest = leg->local_port;
	m->tcp.seq = bpf_htonl(t->seq);
	m->check = ~sum_fold(sum_words(&m->type, (sizeof(*m) - IPV4_HEAD) / 4));
}

static __always_inline void too_big_fill_v6(struct too_big_v6 *m,
					    const struct too_big *t,
					    const struct wire_leg *leg)
{
	const __u32 length = sizeof(*m) - IPV6_HEAD;
	__u64 sum = bpf_htonl(length) + (__u64)bpf_htonl(IPPROTO_ICMPV6);

	ipv6_fill(&m->ip, leg->local, leg->remote, length);
	m->ip.nexthdr = IPPROTO_ICMPV6;
	m->type = 2;
	m->code = 0;
	m->check = 0;
	m->mtu = bpf_htonl(t->mtu);
	ipv6_fill(&m->inner, leg->remote, leg->local, t->length - IPV6_HEAD);
	m->inner.nexthdr = IPPROTO_TCP;
	m->tcp.source = leg->remote_port;
	m->tcp.dest = leg->local_port;
	m->tcp.seq = bpf_htonl(t->seq);
	sum += sum_words(&m->ip.saddr, 8) + sum_words(&m->type, length / 4);
	m->check = ~sum_fold(sum);
}

/* The packet at hand becomes the message work->too_big to leg's remote. */
static __always_inline int too_big_send(struct __sk_buff *skb,
					struct work *work,
					const struct wire_leg *leg, __u32 what)
{
	const struct too_big *t = &work->too_big;

	if (work->packet.key.family == AF_INET) {
		too_big_fill_v4((struct too_big_v4 *)work->message, t, leg);
		return answer_send(skb, work, leg, sizeof(struct too_big_v4),
				   what);
	}
	too_big_fill_v6((struct too_big_v6 *)work->message, t, leg);
	return answer_send(skb, work, leg, sizeof(struct too_big_v6), what);
}

/* Our own: the packet from `from`'s remote exceeds what the other leg carries. */
static __always_inline int too_big_tell(struct __sk_buff *skb,
					const struct passage *by)
{
	count(WIRE_DROP_TOO_BIG);
	if (!answer_due(&by->from->told_ns, by->work->now))
		return TC_ACT_SHOT;
	return too_big_send(skb, by->work, by->from, WIRE_COUNT_TOO_BIG_SENT);
}

/*
 * A router's message, read: fills the packet's key (of the leg whose remote the packet
 * was for) and work->too_big, seq in that leg's sent space. False: not about
 * TCP that we sent in the form we send it.
 */
static __always_inline bool too_big_read(struct __sk_buff *skb,
					 struct work *work)
{
	struct packet *p = &work->packet;
	struct too_big *t = &work->too_big;
	struct too_big_v4 *v4 = (struct too_big_v4 *)work->message;
	struct too_big_v6 *v6 = (struct too_big_v6 *)work->message;
	struct quote *quote;

	if (p->fault != PACKET_SOUND)
		return false;
	if (p->ip.v4.version == 4) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, v4, sizeof(*v4)) ||
		    *(__u8 *)&v4->inner != 0x45 ||
		    v4->inner.protocol != IPPROTO_TCP ||
		    v4->inner.frag_off & bpf_htons(IPV4_MORE | IPV4_OFFSET))
			return false;
		packet_key(p, &v4->inner.daddr, &v4->inner.saddr, 1);
		t->length = bpf_ntohs(v4->inner.tot_len);
		t->id = v4->inner.id;
		t->mtu = bpf_ntohs(v4->mtu);
		quote = &v4->tcp;
	} else {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, v6, sizeof(*v6)) ||
		    v6->inner.version != 6 || v6->inner.nexthdr != IPPROTO_TCP)
			return false;
		packet_key(p, &v6->inner.daddr, &v6->inner.saddr, 4);
		t->length = bpf_ntohs(v6->inner.payload_len) + IPV6_HEAD;
		t->mtu = bpf_ntohl(v6->mtu);
		quote = &v6->tcp;
	}
	p->key.remote_port = quote->dest;
	p->key.local_port = quote->source;
	t->seq = bpf_ntohl(quote->seq);
	return true;
}

/* Whether the message itself is whole, to us, and of a possible size. */
static __always_inline bool too_big_sound(struct __sk_buff *skb,
					  struct work *work)
{
	const struct packet *p = &work->packet;
	const struct too_big *t = &work->too_big;
	__u32 length = p->length + ETH_HLEN - p->payload_at;
	__u64 sum = 0;
	long rest;

	if (p->key.family == AF_INET) {
		if (t->mtu < MTU_LEAST_V4 ||
		    p->ip.v4.daddr != *(__u32 *)p->key.local ||
		    sum_fold(sum_words(&p->ip.v4, 5)) != 0xffff)
			return false;
	} else {
		__u64 *to = (__u64 *)&p->ip.v6.daddr;
		__u64 *local = (__u64 *)p->key.local;

		if (t->mtu < MTU_LEAST_V6 || to[0] != local[0] ||
		    to[1] != local[1])
			return false;
		sum = bpf_htonl(IPPROTO_ICMPV6) + (__u64)bpf_htonl(length) +
		      sum_words(&p->ip.v6.saddr, 8);
	}
	if (length > MESSAGE_LONGEST)
		return false;
	rest = sum_packet(skb, work, p->payload_at, length);
	return rest >= 0 && sum_fold(sum + rest) == 0xffff;
}

/* PACKET_TOO_BIG has arrived. */
static __noinline int too_big_translate(struct __sk_buff *skb,
					struct work *work)
{
	struct too_big *m = &work->too_big;
	struct passage t;

	if (!too_big_read(skb, work) || !passage_find(&t, work) ||
	    work->state == WIRE_JOINING)
		return TC_ACT_UNSPEC;
	/* What our own socket has sent and still answers for. */
	if (t.from->flags & WIRE_LEG_LATCHED && before(m->seq, t.from->latch))
		return TC_ACT_UNSPEC;
	if (passage_expired(&t))
		return drop(WIRE_DROP_EXPIRED);
	/* RFC 5927 section 4.1: about what is under way. */
	if (before(m->seq, (__u32)t.from->acked) ||
	    !before(m->seq, t.to->sent_end + t.to->seq_delta) ||
	    !too_big_sound(skb, work))
		return drop(WIRE_DROP_ICMP);
	m->seq -= t.to->seq_delta;
	return too_big_send(skb, work, t.to, WIRE_COUNT_TOO_BIG_TRANSLATED);
}

#endif
