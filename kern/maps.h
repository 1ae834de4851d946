/* SPDX-License-Identifier: BSD-2-Clause */
/* The maps of wire, and what every file of it does with them. */
#ifndef KERN_MAPS_H
#define KERN_MAPS_H

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include <culvert/kern_user.h>

#ifndef AF_INET
#define AF_INET  2
#define AF_INET6 10
#endif

/* Time to live of what is sent on; the broker may set it before the load. */
const volatile __u8 wire_hop_limit = 64;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2);
	__type(key, struct wire_key);
	__type(value, struct wire_flow);
} wire_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wire_pair);
} wire_pairs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct wire_call);
} wire_call SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} wire_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WIRE_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} wire_counters SEC(".maps");

/* A TCP header as it is in the packet; 64 bytes, so that it copies in words. */
struct tcp_head {
	__be16 source, dest;
	__be32 seq, ack;
	__u8 offset, flags;
	__be16 window, check, urgent;
	__u8 options[40];
	__u8 rest[4];
};

#define TCP_BASE    20 /* header without options */
#define TCP_LONGEST 60

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define IPV4_HEAD 20
#define IPV6_HEAD 40

#define CHUNK 512 /* bytes of a packet summed at once: what the helper takes */

/*
 * Working memory of one program run. In a map, because state on the stack makes
 * the verifier follow every combination of values through the option walk. A
 * run is not interrupted by another on the same CPU: bottom halves are off.
 */
struct work {
	struct tcp_head before, after;
	__u32 skip; /* option walk: bytes of the current option to pass over */
	__u32 blank; /* and whether they become no-ops */
	struct bpf_fib_lookup fib; /* a route: asked, then found */
	__u8 message[96]; /* a packet-too-big, in or out, without Ethernet header */
	__u32 chunk[CHUNK / 4 + 1];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct work);
} wire_work SEC(".maps");

static __always_inline void count(__u32 what)
{
	__u64 *counter = bpf_map_lookup_elem(&wire_counters, &what);

	if (counter)
		(*counter)++;
}

/* Drops the packet for `why` (enum wire_drop). */
static __always_inline int drop(__u32 why)
{
	count(why);
	return TC_ACT_SHOT;
}

#endif
