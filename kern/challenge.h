/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A reset in the window that is not exact, and a SYN on a living connection
 * (RFC 5961 sections 3.2 and 4.2). A reset may be true, what came before it being
 * lost; a SYN may be of an end that has forgotten the connection; both may be
 * forged. The other end is not told, for an old one would obey; the sender is asked,
 * as a TCP would: who still has the connection takes a duplicate acknowledgement, who
 * has none answers with a reset at the number acknowledged, which is exact.
 */
#ifndef KERN_CHALLENGE_H
#define KERN_CHALLENGE_H

#include "answer.h"
#include "checksum.h"
#include "maps.h"
#include "options.h"
#include "pair.h"
#include "segment.h"
#include "work.h"

struct challenge {
	__be16 source, dest;
	__be32 seq, ack;
	__u8 offset, flags;
	__be16 window, check, urgent;
	__be32 options[3];
};

struct challenge_v4 {
	struct iphdr ip;
	struct challenge tcp;
};

struct challenge_v6 {
	struct ipv6hdr ip;
	struct challenge tcp;
};

/* As the other end would say it now; timestamps or no-operations behind it. */
static __always_inline void challenge_fill(struct challenge *tcp,
					   const struct passage *t)
{
	const struct wire_leg *from = t->from, *to = t->to;
	__u32 ack = (__u32)to->acked - from->seq_delta;

	tcp->source = from->local_port;
	tcp->dest = from->remote_port;
	tcp->seq = bpf_htonl(to->sent_end + to->seq_delta);
	tcp->ack = bpf_htonl(ack);
	tcp->offset = sizeof(*tcp) / 4 << 4;
	tcp->flags = TCP_ACK;
	tcp->window = window_field(ack, to->right - from->seq_delta,
				   from->window_shift_out, to->window);
	tcp->check = 0;
	tcp->urgent = 0;
	if (from->flags & WIRE_LEG_TIMESTAMPS) {
		tcp->options[0] = bpf_htonl(OPTIONS_USUAL);
		tcp->options[1] = bpf_htonl(to->tsval);
		tcp->options[2] = bpf_htonl(from->tsval - from->tsval_delta);
	} else {
		__builtin_memset(tcp->options, OPTION_NONE,
				 sizeof(tcp->options));
	}
}

/* To the sender of the segment at hand. */
static __noinline int challenge_send(struct __sk_buff *skb,
				     const struct passage *t)
{
	const __u32 length = sizeof(struct challenge);
	__u64 sum = bpf_htonl(IPPROTO_TCP) + (__u64)bpf_htonl(length);
	struct work *work = t->work;
	struct challenge_v4 *v4 = (struct challenge_v4 *)work->message;
	struct challenge_v6 *v6 = (struct challenge_v6 *)work->message;
	const struct wire_leg *leg = t->from;

	if (work->packet.key.family == AF_INET) {
		ipv4_fill(&v4->ip, leg->local, leg->remote, sizeof(*v4));
		v4->ip.id = 0;
		v4->ip.protocol = IPPROTO_TCP;
		v4->ip.check = ~sum_fold(sum_words(&v4->ip, 5));
		challenge_fill(&v4->tcp, t);
		sum += sum_words(&v4->ip.saddr, 2);
		sum += sum_words(&v4->tcp, length / 4);
		v4->tcp.check = ~sum_fold(sum);
		return answer_send(skb, work, leg, sizeof(*v4),
				   WIRE_COUNT_CHALLENGED);
	}
	ipv6_fill(&v6->ip, leg->local, leg->remote, length);
	v6->ip.nexthdr = IPPROTO_TCP;
	challenge_fill(&v6->tcp, t);
	sum += sum_words(&v6->ip.saddr, 8);
	sum += sum_words(&v6->tcp, length / 4);
	v6->tcp.check = ~sum_fold(sum);
	return answer_send(skb, work, leg, sizeof(*v6), WIRE_COUNT_CHALLENGED);
}

/* SYNs whatever their number, resets in the window that the other end offers. */
static __always_inline bool challenge_fits(const struct passage *t)
{
	__u32 seq = t->work->segment.seq + t->from->seq_delta;

	if (t->work->state != WIRE_JOINED)
		return false;
	return t->work->segment.flags & TCP_SYN ||
	       (!before(seq, (__u32)t->to->acked) &&
		before(seq, t->to->right + window_unit(t->from)));
}

/* The segment at hand is dropped for `why`, and its sender asked. */
static __always_inline int challenge_tell(struct __sk_buff *skb,
					  const struct passage *t, __u32 why)
{
	count(why);
	if (!challenge_fits(t) ||
	    !answer_due(&t->from->challenged_ns, t->work->now))
		return TC_ACT_SHOT;
	return challenge_send(skb, t);
}

#endif
