/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of the wire programs share: network namespaces joined by
 * veth pairs, the loaded programs and a join made by hand.
 *
 * Roles: the process itself is in namespace R (the relay); a paused child keeps
 * C (the client) and another P (the peer). Sockets are made in any of them by
 * a moment's visit, for a socket stays in the namespace it was made in.
 */
#ifndef BPF_WIRE_LAB_H
#define BPF_WIRE_LAB_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bpf/tap.h"
#include "wire.skel.h"

#include <culvert/kern_user.h>

static inline void lab_die(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(1);
}

/* Runs an ip(8) or sysctl command; it has to work. */
static inline void lab_run(const char *format, ...)
{
	char command[512];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	if (system(command) != 0)
		lab_die(command);
}

static inline void lab_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		lab_die(path);
	close(fd);
}

/* The same in a namespace given by the process in it. */
static inline void lab_run_in(pid_t pid, const char *command)
{
	lab_run("nsenter -t %d -n sh -c '%s'", pid, command);
}

/* A child in a network namespace of its own that waits to be killed. */
static inline pid_t lab_namespace(void)
{
	int ready[2];
	char byte = 0;
	pid_t pid;

	if (pipe2(ready, O_CLOEXEC))
		lab_die("pipe");
	pid = fork();
	if (pid < 0)
		lab_die("fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWNET) || write(ready[1], &byte, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		lab_die("namespace");
	close(ready[0]);
	return pid;
}

/* Goes to the namespace of `pid`; returns the way back for lab_leave(). */
static inline int lab_enter(pid_t pid)
{
	char path[64];
	int back = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC),
	    there;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	there = open(path, O_RDONLY | O_CLOEXEC);
	if (back < 0 || there < 0 || setns(there, CLONE_NEWNET))
		lab_die(path);
	close(there);
	return back;
}

static inline void lab_leave(int back)
{
	if (setns(back, CLONE_NEWNET))
		lab_die("setns");
	close(back);
}

struct lab {
	pid_t client, peer; /* who keep the namespaces */
	struct wire_bpf *wire;
};

/*
 * To be called first; without root it says that all is skipped, and exits. Makes
 * R with vc (10.1.0.1, fd01::1) to C's eth0 (.2) and vp (10.2.0.1, fd02::1) to
 * P's eth0. R is no router: only its lo forwards.
 */
static inline void lab_begin(struct lab *lab)
{
	lab_need_root();
	if (unshare(CLONE_NEWNET))
		lab_die("unshare");
	lab->client = lab_namespace();
	lab->peer = lab_namespace();
	lab_run("ip link set lo up");
	lab_run("ip link add vc type veth peer name eth0 netns %d",
		lab->client);
	lab_run("ip link add vp type veth peer name eth0 netns %d", lab->peer);
	for (int i = 1; i <= 2; i++) {
		const char *name = i == 1 ? "vc" : "vp";
		char command[256];

		lab_run("ip addr add 10.%d.0.1/24 dev %s", i, name);
		lab_run("ip addr add fd0%d::1/64 dev %s nodad", i, name);
		lab_run("ip link set %s up", name);
		snprintf(command, sizeof(command),
			 "ip addr add 10.%d.0.2/24 dev eth0 && "
			 "ip addr add fd0%d::2/64 dev eth0 nodad && "
			 "ip link set lo up && ip link set eth0 up",
			 i, i);
		lab_run_in(i == 1 ? lab->client : lab->peer, command);
	}
	lab_write("/proc/sys/net/ipv4/conf/lo/forwarding", "1");
	lab_write("/proc/sys/net/ipv6/conf/lo/forwarding", "1");
}

static inline void lab_load(struct lab *lab, unsigned int pairs)
{
	libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
	lab->wire = wire_bpf__open();
	if (!lab->wire)
		lab_die("open");
	bpf_map__set_max_entries(lab->wire->maps.wire_flows, 2 * pairs);
	bpf_map__set_max_entries(lab->wire->maps.wire_pairs, pairs);
	bpf_map__set_max_entries(lab->wire->maps.wire_lane_flows, 2 * pairs);
	bpf_map__set_max_entries(lab->wire->maps.wire_lanes, pairs);
	if (wire_bpf__load(lab->wire))
		lab_die("load");
}

static inline void lab_attach(struct lab *lab, const char *device)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = if_nametoindex(device),
		    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, in,
		    .prog_fd = bpf_program__fd(lab->wire->progs.wire_ingress));
	LIBBPF_OPTS(bpf_tc_opts, out,
		    .prog_fd = bpf_program__fd(lab->wire->progs.wire_egress));

	if (bpf_tc_hook_create(&hook))
		lab_die("clsact");
	hook.attach_point = BPF_TC_INGRESS;
	if (bpf_tc_attach(&hook, &in))
		lab_die("ingress");
	hook.attach_point = BPF_TC_EGRESS;
	if (bpf_tc_attach(&hook, &out))
		lab_die("egress");
}

/* Prints the plan; returns the exit status. */
static inline int lab_end(struct lab *lab)
{
	wire_bpf__destroy(lab->wire);
	kill(lab->client, SIGKILL);
	kill(lab->peer, SIGKILL);
	waitpid(lab->client, NULL, 0);
	waitpid(lab->peer, NULL, 0);
	return lab_result();
}

/* Sum over all CPUs. */
static inline uint64_t lab_counter(struct lab *lab, uint32_t what)
{
	uint64_t values[256] = { 0 }, sum = 0;
	int cpus = libbpf_num_possible_cpus();

	if (bpf_map_lookup_elem(bpf_map__fd(lab->wire->maps.wire_counters),
				&what, values))
		lab_die("counter");
	for (int i = 0; i < cpus && i < 256; i++)
		sum += values[i];
	return sum;
}

static inline void lab_pair_read(struct lab *lab, uint32_t index,
				 struct wire_pair *pair)
{
	if (bpf_map_lookup_elem(bpf_map__fd(lab->wire->maps.wire_pairs), &index,
				pair))
		lab_die("pair");
}

static inline void lab_pair_write(struct lab *lab, uint32_t index,
				  const struct wire_pair *pair)
{
	if (bpf_map_update_elem(bpf_map__fd(lab->wire->maps.wire_pairs), &index,
				pair, BPF_ANY))
		lab_die("pair");
}

static inline void lab_flow(struct lab *lab, uint32_t index,
			    const struct wire_pair *pair, uint32_t leg)
{
	const struct wire_leg *l = &pair->leg[leg];
	struct wire_key key = { .family = pair->family };
	struct wire_flow flow = { .pair = index, .leg = leg };

	memcpy(key.remote, l->remote, 16);
	memcpy(key.local, l->local, 16);
	key.remote_port = l->remote_port;
	key.local_port = l->local_port;
	if (bpf_map_update_elem(bpf_map__fd(lab->wire->maps.wire_flows), &key,
				&flow, BPF_ANY))
		lab_die("flow");
}

/* The key of a connected socket of ours, as packets that arrive for it. */
static inline struct wire_key lab_key(int fd)
{
	struct wire_key key = { 0 };
	struct sockaddr_storage here, there;
	socklen_t size = sizeof(here);

	if (getsockname(fd, (struct sockaddr *)&here, &size) ||
	    getpeername(fd, (struct sockaddr *)&there, &size))
		lab_die("getsockname");
	key.family = here.ss_family;
	if (key.family == AF_INET) {
		struct sockaddr_in *a = (void *)&here, *b = (void *)&there;

		memcpy(key.local, &a->sin_addr, 4);
		memcpy(key.remote, &b->sin_addr, 4);
		key.local_port = a->sin_port;
		key.remote_port = b->sin_port;
	} else {
		struct sockaddr_in6 *a = (void *)&here, *b = (void *)&there;

		memcpy(key.local, &a->sin6_addr, 16);
		memcpy(key.remote, &b->sin6_addr, 16);
		key.local_port = a->sin6_port;
		key.remote_port = b->sin6_port;
	}
	return key;
}

static inline void lab_snapshot(struct lab *lab, struct wire_call *call)
{
	uint8_t packet[64] = { [12] = 0x08 };
	uint32_t zero = 0;
	int map = bpf_map__fd(lab->wire->maps.wire_call);
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = packet,
		    .data_size_in = sizeof(packet), .repeat = 1);

	if (bpf_map_update_elem(map, &zero, call, BPF_ANY) ||
	    bpf_prog_test_run_opts(
		    bpf_program__fd(lab->wire->progs.wire_snapshot), &run) ||
	    bpf_map_lookup_elem(map, &zero, call))
		lab_die("snapshot");
}

/* README.md's table: of packets that come from `from`'s remote. */
static inline void lab_leg(struct wire_leg *leg, const struct wire_key *key,
			   const struct wire_snapshot *from,
			   const struct wire_snapshot *to, uint32_t from_more,
			   uint32_t to_more)
{
	memset(leg, 0, sizeof(*leg));
	memcpy(leg->remote, key->remote, 16);
	memcpy(leg->local, key->local, 16);
	leg->remote_port = key->remote_port;
	leg->local_port = key->local_port;
	leg->latch = from->write_seq + from_more;
	leg->received = from->rcv_nxt;
	leg->offered = from->rcv_wup + from->rcv_wnd;
	leg->seq_delta = to->write_seq + to_more - from->rcv_nxt;
	leg->ack_delta = to->rcv_nxt - leg->latch;
	leg->tsval_delta = to->timestamp - from->ts_recent;
	leg->tsecr_delta = to->ts_recent - from->timestamp;
	leg->tsval = from->ts_recent + leg->tsval_delta;
	leg->window_shift_in = from->snd_wscale;
	leg->window_shift_out = from->rcv_wscale;
	leg->acked = from->snd_una;
	leg->right = from->snd_una + from->snd_wnd;
	leg->window = from->snd_wnd;
	leg->sent_end = from->rcv_nxt;
	leg->flags = (from->timestamps ? WIRE_LEG_TIMESTAMPS : 0) |
		     (from->sack ? WIRE_LEG_SACK : 0);
	if (leg->latch != from->snd_una)
		leg->flags |= WIRE_LEG_LATCHED;
}

/* Joins two sockets as place `index`; `more` bytes go to the client after it. */
static inline bool lab_join(struct lab *lab, uint32_t index, int client,
			    int peer, uint32_t more)
{
	struct wire_call one = { .key = { lab_key(client), lab_key(peer) } };
	struct wire_call two = one;
	struct wire_pair pair = {
		.state = WIRE_JOINING,
		.family = one.key[0].family,
		.generation = 1,
	};
	struct wire_snapshot *s = one.snapshot, *again = two.snapshot;

	lab_snapshot(lab, &one);
	if (!s[0].found || !s[1].found)
		return false;
	lab_leg(&pair.leg[0], &one.key[0], &s[0], &s[1], more, 0);
	lab_leg(&pair.leg[1], &one.key[1], &s[1], &s[0], 0, more);
	lab_pair_write(lab, index, &pair);
	lab_flow(lab, index, &pair, WIRE_CLIENT);
	lab_flow(lab, index, &pair, WIRE_PEER);
	lab_snapshot(lab, &two);
	if (s[0].rcv_nxt != again[0].rcv_nxt ||
	    s[1].rcv_nxt != again[1].rcv_nxt)
		return false;
	pair.state = WIRE_JOINED;
	lab_pair_write(lab, index, &pair);
	return true;
}

/* Closes without a word to the other end. */
static inline void lab_silence(int fd)
{
	int on = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)))
		lab_die("TCP_REPAIR");
	close(fd);
}

#endif
