/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What arrives at a device: how many TCP and UDP packets, how many of them summed by
 * a device (CHECKSUM_COMPLETE), and of how many that sum is not theirs. For
 * selftests/net/sums.c; nothing is changed.
 */
#include "checksum.h"

#include <linux/in.h>

enum {
	SEEN,
	SUMMED,
	WRONG,
	COUNTS
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} sums_counts SEC(".maps");

static void sums_count(__u32 what)
{
	__u64 *counter = bpf_map_lookup_elem(&sums_counts, &what);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

static __u8 sums_protocol(struct __sk_buff *skb)
{
	__u32 at = skb->protocol == bpf_htons(ETH_P_IP)   ? ETH_HLEN + 9 :
		   skb->protocol == bpf_htons(ETH_P_IPV6) ? ETH_HLEN + 6 :
							    0;
	__u8 protocol = 0;

	if (at)
		bpf_skb_load_bytes(skb, at, &protocol, 1);
	return protocol;
}

SEC("tc")
int sums_look(struct __sk_buff *skb)
{
	__u8 protocol = sums_protocol(skb);
	__u32 zero = 0;
	struct work *work = bpf_map_lookup_elem(&wire_work, &zero);
	long told = sum_device(skb);

	if (!work || (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP))
		return TC_ACT_UNSPEC;
	sums_count(SEEN);
	if (told < 0)
		return TC_ACT_UNSPEC;
	sums_count(SUMMED);
	if (sum_packet(skb, work, ETH_HLEN, skb->len - ETH_HLEN) != told)
		sums_count(WRONG);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
