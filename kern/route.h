/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where a packet leaves. The lookup is that of a packet this host sends itself:
 * "in by lo" is how the kernel names those, so that rules by source apply. It
 * asks that lo forwards (net.ipv4.conf.lo.forwarding), which lets no packet of
 * any other device through.
 */
#ifndef KERN_ROUTE_H
#define KERN_ROUTE_H

#include "checksum.h"
#include "maps.h"
#include "work.h"

#include <linux/if_ether.h>

#define LOOPBACK_INDEX 1

/* fib_lookup knows nothing longer; no segment on a wire is. */
#define ROUTE_SIZE_MOST 65535

#define ROUTE_FOUND -1

/*
 * To leg's remote from its local address, for IP packets of `size` bytes; 0: of
 * any size. fib->l4_protocol is the caller's to set. Returns ROUTE_FOUND,
 * WIRE_DROP_ROUTE or WIRE_DROP_TOO_BIG, with which fib->mtu_result is what fits.
 */
static __noinline int route_find(void *ctx, struct bpf_fib_lookup *fib,
				 __u32 family, const struct wire_leg *leg,
				 __u32 size)
{
	__u8 protocol = fib->l4_protocol;
	long found;

	__builtin_memset(fib, 0, sizeof(*fib));
	fib->family = family;
	fib->l4_protocol = protocol;
	fib->ifindex = LOOPBACK_INDEX;
	fib->sport = leg->local_port;
	fib->dport = leg->remote_port;
	fib->tot_len = size > ROUTE_SIZE_MOST ? ROUTE_SIZE_MOST : size;
	if (family == AF_INET) {
		fib->ipv4_src = *(__u32 *)leg->local;
		fib->ipv4_dst = *(__u32 *)leg->remote;
	} else {
		__builtin_memcpy(fib->ipv6_src, leg->local, 16);
		__builtin_memcpy(fib->ipv6_dst, leg->remote, 16);
	}
	found = bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
	if (found == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return WIRE_DROP_TOO_BIG;
	/* Without a neighbour entry the redirect makes one and waits for it. */
	if (found != BPF_FIB_LKUP_RET_SUCCESS &&
	    found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return WIRE_DROP_ROUTE;
	return ROUTE_FOUND;
}

/*
 * Where a device has summed the packet (CHECKSUM_COMPLETE), redirection counts the
 * link's header in, and a virtual device that gets the packet takes out the new
 * one, which the neighbour's address is put into after us: they are made equal.
 * A neighbour that is not known yet has none: who gets that packet sums it again.
 */
static __always_inline void route_link(struct __sk_buff *skb,
				       const struct bpf_fib_lookup *fib)
{
	struct ethhdr link;

	if (skb->gso_size || sum_device(skb) < 0 ||
	    !(*(__u32 *)fib->dmac | *(__u16 *)&fib->dmac[4]))
		return;
	__builtin_memcpy(link.h_dest, fib->dmac, ETH_ALEN);
	__builtin_memcpy(link.h_source, fib->smac, ETH_ALEN);
	/* Of no part that is summed, before redirection. */
	bpf_skb_store_bytes(skb, 0, &link, 2 * ETH_ALEN, 0);
}

/* The packet leaves by the route in work->fib, without a priority tag. */
static __always_inline int route_take(struct __sk_buff *skb,
				      const struct work *work)
{
	struct bpf_redir_neigh hop = {
		/* The next hop's: IPv4 may be sent by way of IPv6. */
		.nh_family = work->fib.family,
	};
	long done;

	if (skb->vlan_present && bpf_skb_vlan_pop(skb))
		return drop(WIRE_DROP_ERROR);
	route_link(skb, &work->fib);
	__builtin_memcpy(hop.ipv6_nh, work->fib.ipv6_dst, 16);
	done = bpf_redirect_neigh(work->fib.ifindex, &hop, sizeof(hop), 0);
	return done == TC_ACT_REDIRECT ? TC_ACT_REDIRECT :
					 drop(WIRE_DROP_ERROR);
}

#endif
