// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The packet-level TCP splice: its programs. kern/README.md explains it. */
#include "datagram.h"
#include "egress.h"
#include "forward.h"
#include "maps.h"
#include "packet.h"
#include "snapshot.h"
#include "too_big.h"
#include "work.h"

SEC("tc")
int wire_ingress(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct work *work = bpf_map_lookup_elem(&wire_work, &zero);

	/* What others in the segment overhear is not for this host. */
	if (!work || skb->pkt_type != 0)
		return TC_ACT_UNSPEC;
	switch (packet_parse(skb, &work->packet, false)) {
	case PACKET_TCP:
		return forward_segment(skb, work);
	case PACKET_TOO_BIG:
		return too_big_translate(skb, work);
	case PACKET_UDP:
		return datagram_forward(skb, work);
	}
	return TC_ACT_UNSPEC;
}

SEC("tc")
int wire_egress(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct work *work;

	/* Only what this host made itself has come in nowhere. */
	if (skb->ingress_ifindex)
		return TC_ACT_UNSPEC;
	work = bpf_map_lookup_elem(&wire_work, &zero);
	if (!work)
		return TC_ACT_UNSPEC;
	if (packet_parse(skb, &work->packet, true) != PACKET_TCP)
		return TC_ACT_UNSPEC;
	return egress_segment(skb, work);
}

/* Run by the broker, one run at a time, on a packet that does not matter. */
SEC("xdp")
int wire_snapshot(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct wire_call *call = bpf_map_lookup_elem(&wire_call, &zero);
	__u32 hooked;

	if (!call)
		return XDP_PASS;
	call->error = 0;
	if (call->describe)
		for (__u32 i = 0; i < WIRE_LEGS; i++)
			snapshot_describe(call, i);
	if (call->hook)
		call->error = snapshot_hook(call);
	if (call->error)
		return XDP_PASS;
	/* A full barrier: the flows are there before anything is looked at. */
	hooked = __sync_fetch_and_add(&call->hook, 0);
	for (int i = 0; i < WIRE_LEGS; i++) {
		snapshot_take(ctx, &call->key[i], &call->snapshot[i]);
		if (!hooked)
			snapshot_route(ctx, &call->key[i], &call->snapshot[i]);
	}
	return XDP_PASS;
}

/* The same before it makes a lane. */
SEC("tc")
int wire_lane_look(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct wire_lane_call *call =
		bpf_map_lookup_elem(&wire_lane_call, &zero);
	struct bpf_fib_lookup *fib = bpf_map_lookup_elem(&wire_route, &zero);

	if (!call || !fib)
		return TC_ACT_UNSPEC;
	for (int i = 0; i < WIRE_LEGS; i++)
		lane_ask(skb, fib, &call->key[i], &call->look[i]);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual BSD/GPL";
