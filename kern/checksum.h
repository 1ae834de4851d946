/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Internet checksums (RFC 1071, RFC 1624).
 *
 * A packet's TCP checksum may be whole, or, where a device is to complete it
 * (CHECKSUM_PARTIAL: after GRO, from a virtual device), only that of the
 * pseudo header. bpf_l4_csum_replace() knows which: a change of the pseudo
 * header is told to it by BPF_F_PSEUDO_HDR, a change of the segment without.
 */
#ifndef KERN_CHECKSUM_H
#define KERN_CHECKSUM_H

#include "work.h"

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

/* To the 32 bits that bpf_l4_csum_replace() takes as a difference. */
static __always_inline __u32 sum_difference(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (__u32)sum;
}

#define SUM_CHUNKS 3

/* The folded sum of `length` bytes at `offset`, or -1: too many, or a fault. */
static __noinline long sum_packet(struct __sk_buff *skb, struct work *work,
				  __u32 offset, __u32 length)
{
	__s64 sum = 0;

	if (length > SUM_CHUNKS * CHUNK)
		return -1;
	for (int i = 0; i < SUM_CHUNKS && length; i++) {
		__u64 part = length;

		bound(part, 1, CHUNK);
		length -= part;
		/* The last word is padded with zeroes. */
		work->chunk[((part - 1) / 4) & (CHUNK / 4 - 1)] = 0;
		if (bpf_skb_load_bytes(skb, offset, work->chunk, part))
			return -1;
		offset += part;
		part = (part + 3) & ~3ULL;
		bound(part, 4, CHUNK);
		sum = bpf_csum_diff(0, 0, work->chunk, part, sum);
		if (sum < 0)
			return -1;
	}
	return sum_fold(sum);
}

#endif
