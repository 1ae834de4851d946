/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Internet checksums (RFC 1071, RFC 1624).
 *
 * A packet's TCP checksum may be whole, or, where a device is to complete it
 * (CHECKSUM_PARTIAL: after GRO, from a virtual device), only that of the
 * pseudo header. bpf_l4_csum_replace() knows which: a change of the pseudo
 * header is told to it by BPF_F_PSEUDO_HDR, a change of the segment without.
 *
 * Of one that is whole a device may have said that it is right
 * (CHECKSUM_UNNECESSARY), or what all behind the link's header sums to
 * (CHECKSUM_COMPLETE), which has to stay true when the packet is changed.
 */
#ifndef KERN_CHECKSUM_H
#define KERN_CHECKSUM_H

#include "work.h"

#include <linux/if_ether.h>

static __always_inline __u16 sum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)sum;
}

/* Of a constant number of 32-bit words, as they lie in memory. */
static __always_inline __u64 sum_words(const void *from, __u32 words)
{
	const __u32 *word = from;
	__u64 sum = 0;

	for (__u32 i = 0; i < words; i++)
		sum += word[i];
	return sum;
}

/* The same of their complements: what is taken out of a sum. */
static __always_inline __u64 sum_out(const void *from, __u32 words)
{
	const __u32 *word = from;
	__u64 sum = 0;

	for (__u32 i = 0; i < words; i++)
		sum += (__u32)~word[i];
	return sum;
}

/* The sum of addresses, protocol and length before what `p` carries. */
static __always_inline __u64 sum_pseudo(const struct packet *p, __u32 protocol,
					__u32 length)
{
	__u64 sum = bpf_htonl(protocol) + (__u64)bpf_htonl(length);

	if (p->key.family == AF_INET)
		return sum + sum_words(&p->ip.v4.saddr, 2);
	return sum + sum_words(&p->ip.v6.saddr, 8);
}

/* To the 32 bits that bpf_l4_csum_replace() takes as a difference. */
static __always_inline __u32 sum_difference(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (__u32)sum;
}

/* 64 KiB: the longest packet that is not made of many by this host. */
#define SUM_CHUNKS 128

/* Pointers alone; the numbers are in work->summing. */
struct sum_at {
	struct __sk_buff *skb;
	struct work *work;
};

/* One chunk of a packet; 1 ends the loop. */
static long sum_chunk(__u32 index, struct sum_at *at)
{
	struct work *work = at->work;
	struct summing *s = &work->summing;
	__u64 part = s->left;
	__s64 sum;

	(void)index;
	if (!s->left)
		return 1;
	bound(part, 1, CHUNK);
	/* The last word is padded with zeroes. */
	work->chunk[((part - 1) / 4) & (CHUNK / 4 - 1)] = 0;
	if (bpf_skb_load_bytes(at->skb, s->offset, work->chunk, part))
		return 1;
	s->offset += part;
	s->left -= part;
	part = (part + 3) & ~3ULL;
	bound(part, 4, CHUNK);
	sum = bpf_csum_diff(0, 0, work->chunk, part, s->sum);
	if (sum < 0) {
		s->left = 1;
		return 1;
	}
	s->sum = sum;
	return 0;
}

/* The folded sum of `length` bytes at `offset`, or -1: too many, or a fault. */
static __noinline long sum_packet(struct __sk_buff *skb, struct work *work,
				  __u32 offset, __u32 length)
{
	struct sum_at at = { skb, work };

	work->summing.offset = offset;
	work->summing.left = length;
	work->summing.sum = 0;
	bpf_loop(SUM_CHUNKS, sum_chunk, &at, 0);
	return work->summing.left ? -1 : sum_fold(work->summing.sum);
}

/* The folded sum of the packet that a device has made, or -1: none has. */
static __always_inline long sum_device(struct __sk_buff *skb)
{
	__s64 sum = bpf_csum_update(skb, 0);

	return sum < 0 ? -1 : sum_fold(sum);
}

/*
 * Whether `check` is that of the pseudo header alone, as far as can be seen. What a
 * device has summed may happen to look so.
 */
static __always_inline bool sum_partial(struct __sk_buff *skb, __u64 pseudo,
					__u16 check)
{
	return check == sum_fold(pseudo) && sum_device(skb) < 0;
}

/*
 * Whether `check`, of the `length` bytes that work->packet carries, is right. Its IP
 * header is the usual one, and sound.
 */
static __always_inline bool sum_right(struct __sk_buff *skb, struct work *work,
				      __u64 pseudo, __u32 length, __u16 check)
{
	const struct packet *p = &work->packet;
	long sum;

	if (sum_partial(skb, pseudo, check) ||
	    bpf_csum_level(skb, BPF_CSUM_LEVEL_QUERY) >= 0)
		return true;
	sum = sum_device(skb);
	/* Behind the packet may be what fills up a short frame. */
	if (sum < 0 || p->length + ETH_HLEN != skb->len)
		sum = sum_packet(skb, work, p->payload_at, length);
	else if (p->key.family == AF_INET6)
		pseudo += sum_out(&p->ip, IPV6_HEAD / 4);
	return sum >= 0 && sum_fold(pseudo + sum) == 0xffff;
}

#endif
