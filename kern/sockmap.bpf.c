// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The sockmap engine's verdict: what arrives on one socket of a pair is queued to
 * the other without a visit to user space, or passed up for the relay to carry.
 *
 *   kernel: fits into the other socket's send buffer -> redirected
 *   passing: it did not; everything is passed until the relay has caught up
 *
 * Verdicts of one socket run under its lock, one after the other. Only they turn
 * passing on, only the relay turns it off (sockmap_flow.control).
 *
 * Quirks, seen up to 6.18:
 * - Redirected segments wait in a queue that nothing charges or limits, and passed
 *   ones behind them, uncharged too. So nothing is redirected but what the other
 *   socket's send buffer surely takes: the queue is soon empty again.
 * - The kernel hands over whole buffers of the receive queue, not what is new in
 *   them. A buffer may begin with bytes that were received before: a retransmission
 *   that got merged with new data behind it (in the backlog of a socket that was
 *   locked, by GRO, or by its sender), or a segment the relay had read in part.
 *   recv(2) skips such a beginning by its sequence number; so must we.
 * - A bare FIN comes as an empty buffer. Redirected, it breaks the other socket.
 * - Redirecting to a socket that is not there drops: look first, and pass.
 */
#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include <culvert/kern_user.h>

#define CUT_MOST  4095 /* bytes bpf_skb_adjust_room takes off at once */
#define CUT_STEPS 128 /* half a megabyte: more than any buffer holds */
/* What the head of a segment takes of a send buffer beside its bytes. */
#define HEAD_SPACE 4096

/* The kernel's own, as far as they are read here. */
struct sk_buff {
	char cb[48]; /* of TCP: the sequence number comes first */
} __attribute__((preserve_access_index));
struct sock {
	int sk_sndbuf;
	int sk_wmem_queued;
} __attribute__((preserve_access_index));
struct inet_sock {
	struct sock sk;
} __attribute__((preserve_access_index));
struct inet_connection_sock {
	struct inet_sock icsk_inet;
} __attribute__((preserve_access_index));
struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 copied_seq;
	__u32 write_seq;
} __attribute__((preserve_access_index));

/* Has the program: sockets whose arriving data is judged. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2 * SOCKMAP_PAIRS);
	__type(key, __u32);
	__type(value, __u64);
} sockmap_sources SEC(".maps");

/* Has none: both sockets of a pair are here before either is judged. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2 * SOCKMAP_PAIRS);
	__type(key, __u32);
	__type(value, __u64);
} sockmap_targets SEC(".maps");

/* Socket cookie -> index of its flow. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * SOCKMAP_PAIRS);
	__type(key, __u64);
	__type(value, __u32);
} sockmap_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * SOCKMAP_PAIRS);
	__type(key, __u32);
	__type(value, struct sockmap_flow);
} sockmap_state SEC(".maps");

/* False only in the test that shows what happens then. */
const volatile _Bool sockmap_cuts = 1;

/* The context is the kernel's sk_buff, which 6.1 has no typed way to. */
static __u32 buffer_seq(struct __sk_buff *skb)
{
	const struct sk_buff *kernel = (void *)skb;
	__u32 seq = 0;

	bpf_probe_read_kernel(&seq, sizeof(seq),
			      (void *)skb + bpf_core_field_offset(kernel->cb));
	return seq;
}

/* Takes `bytes` off the beginning. 0, or negative: no memory. */
static int buffer_cut(struct __sk_buff *skb, __u32 bytes)
{
	for (int i = 0; i < CUT_STEPS && bytes; i++) {
		__u32 step = bytes < CUT_MOST ? bytes : CUT_MOST;

		if (bpf_skb_adjust_room(skb, -(__s32)step, 0, 0))
			return -1;
		bytes -= step;
	}
	return bytes ? -1 : 0;
}

/*
 * Takes off what was received before. Returns the bytes that are new; 0: none, or
 * the stream cannot be kept whole and the flow is marked broken.
 */
static __u32 buffer_renew(struct __sk_buff *skb, struct sockmap_flow *flow)
{
	__u32 seq = buffer_seq(skb), len = skb->len;
	__s32 old;

	if (!(flow->flags & SOCKMAP_STARTED)) {
		struct tcp_sock *tcp = skb->sk ? bpf_skc_to_tcp_sock(skb->sk) :
						 0;

		flow->next = tcp ? tcp->copied_seq : seq;
		flow->flags |= SOCKMAP_STARTED;
	}
	old = (__s32)(flow->next - seq);
	if (old < (__s32)len)
		flow->next = seq + len;
	if (old < 0)
		flow->flags |= SOCKMAP_BROKEN;
	if (old <= 0)
		return len;
	if ((__u32)old > len)
		old = (__s32)len;
	flow->overlaps++;
	flow->overlapped += (__u32)old;
	if (!sockmap_cuts)
		return len;
	if (buffer_cut(skb, (__u32)old)) {
		flow->flags |= SOCKMAP_BROKEN;
		return 0;
	}
	return len - (__u32)old;
}

/* Will the other socket, looked at, take `len` bytes without blocking? */
static _Bool socket_fits(struct sockmap_flow *flow, struct bpf_sock *sk,
			 __u32 len)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	__u64 space, used;
	__u32 backlog;

	/* A socket that was reset stays in its maps until it is closed. */
	if (!tcp || (sk->state != BPF_TCP_ESTABLISHED &&
		     sk->state != BPF_TCP_CLOSE_WAIT))
		return 0;
	if (!(flow->flags & SOCKMAP_BASED)) {
		flow->base = tcp->write_seq;
		flow->flags |= SOCKMAP_BASED;
	}
	/* Redirected, and not yet in the send buffer. */
	backlog = (__u32)(flow->redirected + flow->sent) -
		  (tcp->write_seq - flow->base);
	space = (__u32)tcp->inet_conn.icsk_inet.sk.sk_sndbuf;
	used = (__u32)tcp->inet_conn.icsk_inet.sk.sk_wmem_queued +
	       2 * (__u64)backlog + len + HEAD_SPACE;
	return used <= space - space / 4;
}

static _Bool target_fits(struct sockmap_flow *flow, __u32 len)
{
	__u32 target = flow->target;
	struct bpf_sock *sk = bpf_map_lookup_elem(&sockmap_targets, &target);
	_Bool fits;

	if (!sk)
		return 0;
	fits = socket_fits(flow, sk, len);
	bpf_sk_release(sk);
	return fits;
}

SEC("sk_skb/stream_verdict")
int sockmap_verdict(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb), control;
	__u32 *index = bpf_map_lookup_elem(&sockmap_flows, &cookie);
	struct sockmap_flow *flow;
	__u32 len;

	if (!skb->len)
		return SK_DROP;
	flow = index ? bpf_map_lookup_elem(&sockmap_state, index) : 0;
	if (!flow)
		return SK_PASS;
	len = buffer_renew(skb, flow);
	if (!len || flow->sent == SOCKMAP_LEFT)
		return SK_DROP;
	flow->seen_ns = bpf_ktime_get_coarse_ns();
	control = flow->control;
	if (control & SOCKMAP_PASSING &&
	    __sync_val_compare_and_swap(&flow->control, control,
					control + 2 * (__u64)len) == control)
		return SK_PASS;
	control &= ~(__u64)SOCKMAP_PASSING;
	if (target_fits(flow, len)) {
		flow->redirected += len;
		return bpf_sk_redirect_map(skb, &sockmap_targets, flow->target,
					   0);
	}
	flow->control = control + 2 * (__u64)len + SOCKMAP_PASSING;
	return SK_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
