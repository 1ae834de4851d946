/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The few fields of kernel structures that wire_snapshot reads. Their places
 * are found when the program is loaded (CO-RE); a field that a kernel does not
 * have is asked for with bpf_core_field_exists() first.
 */
#ifndef KERN_KERNEL_TYPES_H
#define KERN_KERNEL_TYPES_H

#include <linux/in6.h>
#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), \
			     apply_to = record)

struct atomic64 {
	__s64 counter;
};

struct xfrm_state;

struct net_device {
	int ifindex;
};

struct dst_entry {
	struct net_device *dev;
	struct xfrm_state *xfrm;
};

struct sock_common {
	__be32 skc_daddr, skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	int skc_bound_dev_if;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
};

struct sock {
	struct sock_common __sk_common;
	struct dst_entry *sk_dst_cache;
	int sk_rx_dst_ifindex;
	__u32 sk_mark;
};

struct inode {
	__u16 i_mode;
};

struct file {
	struct inode *f_inode;
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct task_struct {
	struct files_struct *files;
};

struct socket {
	struct sock *sk;
};

struct inet_sock {
	struct sock sk;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	__u32 icsk_pmtu_cookie;
};

struct tcp_options_received {
	__u32 ts_recent;
	__u16 tstamp_ok : 1, wscale_ok : 1, sack_ok : 3;
	__u16 snd_wscale : 4, rcv_wscale : 4;
	__u16 mss_clamp;
};

struct rb_root {
	struct rb_node *rb_node;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 rcv_nxt, copied_seq, rcv_wup, rcv_wnd;
	__u32 snd_una, snd_nxt, write_seq, snd_wnd, snd_up;
	__u32 tsoffset;
	__u16 advmss;
	__u16 urg_data;
	__u8 ecn_flags;
	__u8 tcp_usec_ts : 1;
	struct rb_root out_of_order_queue;
	struct tcp_options_received rx_opt;
	void *md5sig_info;
	void *ao_info;
};

#pragma clang attribute pop

#endif
