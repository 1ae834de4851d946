/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Both sockets of a pair in one look, and where packets to their remote ends would
 * be forwarded. Nothing is locked: a socket may be at work on another CPU, so the
 * broker compares two looks with the flows inserted between them (README.md,
 * invariant 1).
 */
#ifndef KERN_SNAPSHOT_H
#define KERN_SNAPSHOT_H

#include "kernel_types.h"
#include "maps.h"
#include "route.h"

#include <bpf/bpf_core_read.h>

#define STATE_LISTEN 10

/* Of an inode's mode: what it is, and a socket. */
#define MODE_KIND   0170000
#define MODE_SOCKET 0140000

/* ecn_flags: RFC 3168 agreed, and since 6.18 accurate ECN. */
#define ECN_AGREED 0x11

/* The question to the routes, of the only run at a time. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bpf_fib_lookup);
} wire_route SEC(".maps");

/* TSval as the remote would see it in a segment sent now. */
static __always_inline __u32 snapshot_clock(const struct tcp_sock *tp)
{
	__u64 unit = 1000000;

	if (bpf_core_field_exists(tp->tcp_usec_ts) &&
	    BPF_CORE_READ_BITFIELD(tp, tcp_usec_ts))
		unit = 1000;
	return (__u32)(bpf_ktime_get_ns() / unit) + tp->tsoffset;
}

static __always_inline void snapshot_options(struct wire_snapshot *s,
					     const struct tcp_sock *tp)
{
	const struct tcp_options_received *rx = &tp->rx_opt;

	s->ts_recent = rx->ts_recent;
	s->timestamps = BPF_CORE_READ_BITFIELD(rx, tstamp_ok);
	s->sack = BPF_CORE_READ_BITFIELD(rx, sack_ok) != 0;
	s->window_scaling = BPF_CORE_READ_BITFIELD(rx, wscale_ok);
	s->snd_wscale = BPF_CORE_READ_BITFIELD(rx, snd_wscale);
	s->rcv_wscale = BPF_CORE_READ_BITFIELD(rx, rcv_wscale);
	s->mss_clamp = rx->mss_clamp;
	s->advmss = tp->advmss;
	s->ecn = (tp->ecn_flags & ECN_AGREED) != 0;
	s->md5 = 0;
	if (bpf_core_field_exists(tp->md5sig_info) && tp->md5sig_info)
		s->md5 = 1;
	if (bpf_core_field_exists(tp->ao_info) && tp->ao_info)
		s->md5 = 1;
}

/* What makes its packets go another way than forwarded ones. */
static __always_inline void snapshot_way(struct wire_snapshot *s,
					 const struct sock *sk)
{
	const struct dst_entry *dst = sk->sk_dst_cache;

	s->bound = sk->__sk_common.skc_bound_dev_if;
	s->mark = sk->sk_mark;
	s->arrival = sk->sk_rx_dst_ifindex;
	s->departure = 0;
	s->ipsec = 0;
	if (!dst)
		return;
	s->departure = dst->dev->ifindex;
	if (bpf_core_field_exists(dst->xfrm) && dst->xfrm)
		s->ipsec = 1;
}

static __always_inline void snapshot_read(struct wire_snapshot *s,
					  const struct tcp_sock *tp)
{
	const struct inet_connection_sock *icsk = &tp->inet_conn;
	const struct sock *sk = &icsk->icsk_inet.sk;
	const struct sock_common *common = &sk->__sk_common;

	s->state = common->skc_state;
	if (s->state == STATE_LISTEN)
		return;
	s->socket = (__u64)(unsigned long)sk;
	s->rcv_nxt = tp->rcv_nxt;
	s->copied_seq = tp->copied_seq;
	s->rcv_wup = tp->rcv_wup;
	s->rcv_wnd = tp->rcv_wnd;
	s->snd_una = tp->snd_una;
	s->snd_nxt = tp->snd_nxt;
	s->write_seq = tp->write_seq;
	s->snd_wnd = tp->snd_wnd;
	s->out_of_order = tp->out_of_order_queue.rb_node != 0;
	s->timestamp = snapshot_clock(tp);
	snapshot_options(s, tp);
	snapshot_way(s, sk);
	s->pmtu = icsk->icsk_pmtu_cookie;
	s->urgent = tp->urg_data || (__s32)(tp->snd_up - tp->snd_una) > 0;
	s->found = 1;
}

/*
 * Whose descriptor this is, in the running process, and its ends. That is read, not
 * asked: a socket of another family or protocol gives nonsense, under which no socket
 * is found, or another one. So who believes it compares `socket` with what is found
 * under the key. What is no socket is not read on: of a signalfd, say, its owner would
 * write what `socket` is. The process is one thread and does nothing else meanwhile.
 */
static __noinline int snapshot_describe(struct wire_call *call, __u32 leg)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct wire_key *key;
	struct fdtable *table;
	struct file **files, *file = NULL;
	struct socket *sock;
	struct sock *sk;
	__u32 fd;

	if (leg >= WIRE_LEGS)
		return 0;
	key = &call->key[leg];
	fd = call->fd[leg];
	__builtin_memset(key, 0, sizeof(*key));
	call->socket[leg] = 0;
	table = BPF_CORE_READ(task, files, fdt);
	files = BPF_CORE_READ(table, fd);
	if (fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	if ((BPF_CORE_READ(file, f_inode, i_mode) & MODE_KIND) != MODE_SOCKET)
		return 0;
	sock = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(sock, sk);
	call->socket[leg] = (__u64)(unsigned long)sk;
	key->remote_port = BPF_CORE_READ(sk, __sk_common.skc_dport);
	key->local_port = bpf_htons(BPF_CORE_READ(sk, __sk_common.skc_num));
	key->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (key->family == AF_INET6) {
		const __u32 *mapped = (const __u32 *)key->remote;

		BPF_CORE_READ_INTO(&key->remote, sk, __sk_common.skc_v6_daddr);
		BPF_CORE_READ_INTO(&key->local, sk,
				   __sk_common.skc_v6_rcv_saddr);
		if (mapped[0] | mapped[1] | (mapped[2] ^ bpf_htonl(0xffff)))
			return 0;
		__builtin_memset(key->remote, 0, sizeof(key->remote));
		__builtin_memset(key->local, 0, sizeof(key->local));
		key->family = AF_INET;
	}
	BPF_CORE_READ_INTO((__be32 *)key->remote, sk, __sk_common.skc_daddr);
	BPF_CORE_READ_INTO((__be32 *)key->local, sk, __sk_common.skc_rcv_saddr);
	return 0;
}

static __noinline int snapshot_take(struct xdp_md *ctx,
				    const struct wire_key *key,
				    struct wire_snapshot *s)
{
	struct bpf_sock_tuple tuple = {};
	struct tcp_sock *tp;
	struct bpf_sock *sk;
	__u32 size;

	s->found = 0;
	if (key->family == AF_INET) {
		tuple.ipv4.saddr = *(__u32 *)key->remote;
		tuple.ipv4.daddr = *(__u32 *)key->local;
		tuple.ipv4.sport = key->remote_port;
		tuple.ipv4.dport = key->local_port;
		size = sizeof(tuple.ipv4);
		sk = bpf_skc_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS,
					0);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, key->remote, 16);
		__builtin_memcpy(tuple.ipv6.daddr, key->local, 16);
		tuple.ipv6.sport = key->remote_port;
		tuple.ipv6.dport = key->local_port;
		size = sizeof(tuple.ipv6);
		sk = bpf_skc_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS,
					0);
	}
	if (!sk)
		return -1;
	tp = (struct tcp_sock *)bpf_skc_to_tcp_sock(sk);
	if (tp)
		snapshot_read(s, tp);
	bpf_sk_release(sk);
	return 0;
}

/* As forward_segment() asks for every packet: what that cannot use is no way. */
static __noinline int snapshot_route(struct xdp_md *ctx,
				     const struct wire_key *key,
				     struct wire_snapshot *s)
{
	__u32 zero = 0;
	struct bpf_fib_lookup *fib = bpf_map_lookup_elem(&wire_route, &zero);

	/* What route_find() reads of a leg is what a key begins with (pair.h). */
	s->device = 0;
	if (!fib)
		return 0;
	fib->l4_protocol = IPPROTO_TCP;
	if (route_find(ctx, fib, key->family, (const struct wire_leg *)key,
		       0) == ROUTE_FOUND)
		s->device = fib->ifindex;
	return 0;
}

/* Both flows of the pair, or neither and why. */
static __noinline int snapshot_hook(const struct wire_call *call)
{
	for (int i = 0; i < WIRE_LEGS; i++) {
		struct wire_flow flow = { .pair = call->pair, .leg = i };
		long err = bpf_map_update_elem(&wire_flows, &call->key[i],
					       &flow, BPF_NOEXIST);

		if (!err)
			continue;
		if (i)
			bpf_map_delete_elem(&wire_flows, &call->key[0]);
		return err;
	}
	return 0;
}

#endif
