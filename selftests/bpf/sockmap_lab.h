/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the programs about sockmap share: namespaces, connections, the verdict, and
 * a sender that can be turned back.
 *
 *   end[0] --- leg[0]  [sockmap]  leg[1] --- end[1]
 */
#ifndef BPF_SOCKMAP_LAB_H
#define BPF_SOCKMAP_LAB_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "sockmap.skel.h"

#include <culvert/kern_user.h>

#define DIE(what)                                                   \
	do {                                                        \
		fprintf(stderr, "%s: %s\n", what, strerror(errno)); \
		exit(2);                                            \
	} while (0)
#define MUST(call) MUST_IS(call, #call)
#define MUST_IS(call, text)        \
	({                         \
		int got_ = (call); \
		if (got_ < 0)      \
			DIE(text); \
		got_;              \
	})

#define WAIT_MS 20000

static inline void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		DIE(path);
	close(fd);
}

static inline void shell(const char *command)
{
	if (system(command) != 0) {
		fprintf(stderr, "failed: %s\n", command);
		exit(2);
	}
}

static inline int namespace_open(void)
{
	return MUST(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
}

/* The relay's namespace and the ends', the same one without veth. */
static int relay_ns, ends_ns;

/* Namespaces of our own, joined by veth or one with a loopback. */
static inline void namespaces_make(bool veth)
{
	char command[200];

	MUST(unshare(CLONE_NEWNET));
	shell("ip link set lo up");
	relay_ns = ends_ns = namespace_open();
	if (!veth)
		return;
	MUST(unshare(CLONE_NEWNET));
	ends_ns = namespace_open();
	snprintf(
		command, sizeof(command),
		"ip link set lo up && ip link add to-relay type veth peer name "
		"to-ends netns /proc/%d/fd/%d && ip addr add 10.9.8.2/24 dev "
		"to-relay && ip link set to-relay up",
		getpid(), relay_ns);
	shell(command);
	MUST(setns(relay_ns, CLONE_NEWNET));
	shell("ip addr add 10.9.8.1/24 dev to-ends && ip link set to-ends up");
}

/* A connected pair; mss 0: the loopback's own. */
static inline void tcp_pair(int *end, int *leg, int mss)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	socklen_t len = sizeof(at);
	const int one = 1;
	int listener = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));

	at.sin_addr.s_addr = relay_ns == ends_ns ? htonl(INADDR_LOOPBACK) :
						   inet_addr("10.9.8.1");
	if (mss)
		MUST(setsockopt(listener, IPPROTO_TCP, TCP_MAXSEG, &mss,
				sizeof(mss)));
	MUST(bind(listener, (struct sockaddr *)&at, len));
	MUST(listen(listener, 1));
	MUST(getsockname(listener, (struct sockaddr *)&at, &len));
	MUST(setns(ends_ns, CLONE_NEWNET));
	*end = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	MUST(setns(relay_ns, CLONE_NEWNET));
	MUST(setsockopt(*end, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
	if (mss)
		MUST(setsockopt(*end, IPPROTO_TCP, TCP_MAXSEG, &mss,
				sizeof(mss)));
	MUST(connect(*end, (struct sockaddr *)&at, len));
	*leg = MUST(
		accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
	close(listener);
}

static inline int sockmap_make(void)
{
	return MUST(bpf_map_create(BPF_MAP_TYPE_SOCKMAP, "dup", 4, 8, 2, NULL));
}

/* The plainest verdict: a bare FIN is dropped, the rest goes to `targets`[0]. */
static inline int plain_verdict(int targets)
{
	struct bpf_insn code[] = {
		{ .code = BPF_LDX | BPF_W | BPF_MEM, /* r2 = skb->len */
		  .dst_reg = 2,
		  .src_reg = 1 },
		{ .code = BPF_JMP | BPF_JEQ | BPF_K, .dst_reg = 2, .off = 6 },
		{ .code = BPF_LD | BPF_DW | BPF_IMM,
		  .dst_reg = 2,
		  .src_reg = BPF_PSEUDO_MAP_FD,
		  .imm = targets },
		{ 0 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 3 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 4 },
		{ .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_sk_redirect_map },
		{ .code = BPF_JMP | BPF_EXIT },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = SK_DROP },
		{ .code = BPF_JMP | BPF_EXIT },
	};

	return MUST(bpf_prog_load(BPF_PROG_TYPE_SK_SKB, "plain", "GPL", code,
				  sizeof(code) / sizeof(code[0]), NULL));
}

static inline void map_put(int map, uint32_t key, int fd)
{
	uint64_t value = (uint64_t)fd;

	MUST(bpf_map_update_elem(map, &key, &value, BPF_ANY));
}

/* What arrives at leg[0] is sent from leg[1]. The maps are the caller's. */
static inline void plain_join(const int leg[2], int maps[2])
{
	int verdict;

	maps[0] = sockmap_make();
	maps[1] = sockmap_make();
	verdict = plain_verdict(maps[0]);
	MUST(bpf_prog_attach(verdict, maps[1], BPF_SK_SKB_STREAM_VERDICT, 0));
	close(verdict);
	map_put(maps[0], 0, leg[1]);
	map_put(maps[1], 0, leg[0]);
}

/* As the broker does it. */
static inline void culvert_load(struct sockmap_bpf *bpf, bool cuts)
{
	bpf->rodata->sockmap_cuts = cuts;
	MUST(sockmap_bpf__load(bpf));
	MUST(bpf_prog_attach(bpf_program__fd(bpf->progs.sockmap_verdict),
			     bpf_map__fd(bpf->maps.sockmap_sources),
			     BPF_SK_SKB_STREAM_VERDICT, 0));
}

/* The same with culvert's verdict, one way, as its engine sets it up. */
static inline void culvert_join(struct sockmap_bpf *bpf, const int leg[2])
{
	uint64_t cookie;
	socklen_t len = sizeof(cookie);
	struct sockmap_flow flow = { .target = 1 };
	uint32_t zero = 0;

	culvert_load(bpf, true);
	MUST(getsockopt(leg[0], SOL_SOCKET, SO_COOKIE, &cookie, &len));
	MUST(bpf_map_update_elem(bpf_map__fd(bpf->maps.sockmap_flows), &cookie,
				 &zero, BPF_ANY));
	MUST(bpf_map_update_elem(bpf_map__fd(bpf->maps.sockmap_state), &zero,
				 &flow, BPF_ANY));
	map_put(bpf_map__fd(bpf->maps.sockmap_targets), 0, leg[0]);
	map_put(bpf_map__fd(bpf->maps.sockmap_targets), 1, leg[1]);
	map_put(bpf_map__fd(bpf->maps.sockmap_sources), 0, leg[0]);
}

/* Reads until `want` bytes have come, or nothing more comes for `quiet_ms`. */
static inline size_t receive(int fd, uint8_t *data, size_t want, int quiet_ms)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	size_t got = 0;

	while (got < want && poll(&pollfd, 1, quiet_ms) > 0) {
		ssize_t n = recv(fd, data + got, want - got, 0);

		if (n <= 0)
			break;
		got += (size_t)n;
	}
	return got;
}

static inline uint32_t queue_seq(int fd, int queue)
{
	uint32_t seq;
	socklen_t len = sizeof(seq);

	MUST(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue,
			sizeof(queue)));
	MUST(getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &seq, &len));
	return seq;
}

static inline void queue_seq_set(int fd, int queue, uint32_t seq)
{
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue,
			sizeof(queue)));
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &seq, sizeof(seq)));
}

/*
 * Without what would have to be repaired, too: timestamps, window scaling, SACK.
 * Before any connection is made.
 */
static inline void options_off(void)
{
	write_file("/proc/sys/net/ipv4/tcp_timestamps", "0");
	write_file("/proc/sys/net/ipv4/tcp_window_scaling", "0");
	write_file("/proc/sys/net/ipv4/tcp_sack", "0");
}

/* Turns the connection's sender back by `bytes` that were received already. */
static inline int sender_rewind(int fd, uint32_t bytes)
{
	const int mss = 32767; /* 536 without it */
	const int on = 1, off = TCP_REPAIR_OFF_NO_WP;
	struct sockaddr_in local, remote;
	socklen_t len = sizeof(local);
	struct tcp_repair_window window;
	socklen_t window_len = sizeof(window);
	uint32_t sent, received;
	int again;

	MUST(getsockname(fd, (struct sockaddr *)&local, &len));
	MUST(getpeername(fd, (struct sockaddr *)&remote, &len));
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)));
	sent = queue_seq(fd, TCP_SEND_QUEUE);
	received = queue_seq(fd, TCP_RECV_QUEUE);
	MUST(getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window,
			&window_len));
	close(fd); /* in repair mode: silently */
	again = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	MUST(setsockopt(again, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
	MUST(setsockopt(again, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)));
	MUST(setsockopt(again, IPPROTO_TCP, TCP_MAXSEG, &mss, sizeof(mss)));
	MUST(bind(again, (struct sockaddr *)&local, len));
	queue_seq_set(again, TCP_SEND_QUEUE, sent - bytes);
	queue_seq_set(again, TCP_RECV_QUEUE, received);
	MUST(connect(again, (struct sockaddr *)&remote, len));
	window.snd_wl1 = received;
	window.max_window = window.snd_wnd;
	MUST(setsockopt(again, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window,
			window_len));
	MUST(setsockopt(again, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)));
	return again;
}

#endif
