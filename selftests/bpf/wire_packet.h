/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Crafted frames for the wire programs, run on them one at a time: a frame out
 * of a few fields, checksums from scratch, and what became of it.
 */
#ifndef BPF_WIRE_PACKET_H
#define BPF_WIRE_PACKET_H

#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include "wire_lab.h"

#define FRAME_MOST 4096
#define HEAD_L3    14

#ifndef BPF_F_TEST_SKB_CHECKSUM_COMPLETE
#define BPF_F_TEST_SKB_CHECKSUM_COMPLETE (1U << 2) /* Linux 6.17 */
#endif

enum {
	FIN = 0x01,
	SYN = 0x02,
	RST = 0x04,
	PSH = 0x08,
	ACK = 0x10,
	URG = 0x20,
};

struct frame {
	uint8_t data[FRAME_MOST];
	size_t size;
};

/* What a segment is made of; the rest has usual values. */
struct craft {
	int family;
	const uint8_t *from, *to; /* addresses */
	uint16_t from_port, to_port; /* network order */
	uint32_t seq, ack;
	uint16_t window; /* as in the header */
	uint8_t flags;
	const uint8_t *options;
	size_t options_size; /* a multiple of 4 */
	size_t payload;
};

static inline uint16_t frame_get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t frame_get32(const uint8_t *at)
{
	return (uint32_t)frame_get16(at) << 16 | frame_get16(at + 2);
}

static inline void frame_put16(uint8_t *at, uint16_t value)
{
	at[0] = value >> 8;
	at[1] = (uint8_t)value;
}

static inline void frame_put32(uint8_t *at, uint32_t value)
{
	frame_put16(at, value >> 16);
	frame_put16(at + 2, (uint16_t)value);
}

static inline bool frame_v4(const struct frame *f)
{
	return f->data[HEAD_L3] >> 4 == 4;
}

/* The usual place of TCP or ICMP: without IP options, extension headers. */
static inline uint8_t *frame_l4(struct frame *f)
{
	return f->data + HEAD_L3 + (frame_v4(f) ? 20 : 40);
}

static inline uint32_t frame_sum(const uint8_t *at, size_t size, uint32_t sum)
{
	for (size_t i = 0; i < size; i++)
		sum += i & 1 ? at[i] : (uint32_t)at[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Sum of the pseudo header and `size` bytes behind the IP header. */
static inline uint32_t frame_pseudo(struct frame *f, size_t size, int protocol)
{
	uint8_t *ip = f->data + HEAD_L3;
	uint32_t sum = (uint32_t)(size >> 16) + (size & 0xffff) + protocol;

	return frame_v4(f) ? frame_sum(ip + 12, 8, sum) :
			     frame_sum(ip + 8, 32, sum);
}

/* Length of what follows the IP header, by that header. */
static inline size_t frame_l4_size(struct frame *f)
{
	uint8_t *ip = f->data + HEAD_L3;

	return frame_v4(f) ? frame_get16(ip + 2) - 20u : frame_get16(ip + 4);
}

/* Where a protocol has its checksum. */
static inline size_t frame_check_at(int protocol)
{
	return protocol == IPPROTO_TCP ? 16 : protocol == IPPROTO_UDP ? 6 : 2;
}

/* Makes the checksums right after a change; ICMP, TCP or UDP. */
static inline void frame_mend(struct frame *f)
{
	uint8_t *ip = f->data + HEAD_L3, *l4 = frame_l4(f);
	int protocol = frame_v4(f) ? ip[9] : ip[6];
	uint8_t *check = l4 + frame_check_at(protocol);
	size_t size = frame_l4_size(f);
	uint32_t sum = 0;

	if (frame_v4(f)) {
		frame_put16(ip + 10, 0);
		frame_put16(ip + 10, (uint16_t)~frame_sum(ip, 20, 0));
	}
	frame_put16(check, 0);
	if (protocol != IPPROTO_ICMP)
		sum = frame_pseudo(f, size, protocol);
	frame_put16(check, (uint16_t)~frame_sum(l4, size, sum));
}

/* Whether every checksum is right, from scratch. */
static inline bool frame_right(struct frame *f)
{
	uint8_t *ip = f->data + HEAD_L3;
	int protocol = frame_v4(f) ? ip[9] : ip[6];
	size_t size = frame_l4_size(f);
	uint32_t sum = 0;

	if (frame_v4(f) && frame_sum(ip, 20, 0) != 0xffff)
		return false;
	if (protocol != IPPROTO_ICMP)
		sum = frame_pseudo(f, size, protocol);
	return frame_sum(frame_l4(f), size, sum) == 0xffff;
}

static inline void frame_ip(struct frame *f, const struct craft *c,
			    int protocol, size_t size)
{
	uint8_t *ip = f->data + HEAD_L3;

	memset(f->data, 0, sizeof(f->data));
	frame_put16(f->data + 12, c->family == AF_INET ? 0x0800 : 0x86dd);
	if (c->family == AF_INET) {
		ip[0] = 0x45;
		ip[1] = 0xb8; /* a class of service that must not cross */
		frame_put16(ip + 2, (uint16_t)(20 + size));
		frame_put16(ip + 4, 0x1234);
		frame_put16(ip + 6, 0x4000);
		ip[8] = 3;
		ip[9] = protocol;
		memcpy(ip + 12, c->from, 4);
		memcpy(ip + 16, c->to, 4);
	} else {
		frame_put32(ip, 0x6b812345);
		frame_put16(ip + 4, (uint16_t)size);
		ip[6] = protocol;
		ip[7] = 3;
		memcpy(ip + 8, c->from, 16);
		memcpy(ip + 24, c->to, 16);
	}
	f->size = HEAD_L3 + (c->family == AF_INET ? 20 : 40) + size;
}

static inline void frame_tcp(struct frame *f, const struct craft *c)
{
	uint8_t *tcp;

	frame_ip(f, c, IPPROTO_TCP, 20 + c->options_size + c->payload);
	tcp = frame_l4(f);
	memcpy(tcp, &c->from_port, 2);
	memcpy(tcp + 2, &c->to_port, 2);
	frame_put32(tcp + 4, c->seq);
	frame_put32(tcp + 8, c->ack);
	tcp[12] = (uint8_t)((20 + c->options_size) / 4 << 4);
	tcp[13] = c->flags;
	frame_put16(tcp + 14, c->window);
	if (c->options_size)
		memcpy(tcp + 20, c->options, c->options_size);
	for (size_t i = 0; i < c->payload; i++)
		tcp[20 + c->options_size + i] = (uint8_t)(i * 7 + 1);
	frame_mend(f);
}

#define FRAME_MISSUMMED -2 /* no verdict of a program */

/*
 * Runs a program on `in`; returns its verdict, `out` gets the frame after it.
 * `summed`: as by a device that has summed all of it (CHECKSUM_COMPLETE); the kernel
 * compares that sum with the frame afterwards, FRAME_MISSUMMED if it is not its sum.
 */
static inline int frame_run(const struct bpf_program *program,
			    const struct frame *in, const struct __sk_buff *ctx,
			    bool summed, struct frame *out)
{
	struct __sk_buff context = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = in->data,
		    .data_size_in = (uint32_t)in->size, .data_out = out->data,
		    .data_size_out = sizeof(out->data), .repeat = 1);

	if (summed)
		run.flags = BPF_F_TEST_SKB_CHECKSUM_COMPLETE;

	if (ctx) {
		context = *ctx;
		run.ctx_in = &context;
		run.ctx_size_in = sizeof(context);
	}
	if (bpf_prog_test_run_opts(bpf_program__fd(program), &run)) {
		if (errno == EBADMSG)
			return FRAME_MISSUMMED;
		lab_die("test run");
	}
	out->size = run.data_size_out;
	return (int)run.retval;
}

/* A pair in place 0 and what the next frame is to do with it. */
struct world {
	struct lab lab;
	int family;
	bool summed; /* what arrives: frame_run() */
	struct wire_pair pair; /* as it was set, then as it was left */
	struct frame in, out;
	uint64_t counters[WIRE_COUNTERS], moved[WIRE_COUNTERS];
	int verdict;
};

static inline const char *family_name(const struct world *w)
{
	if (w->summed)
		return w->family == AF_INET ? "IPv4, summed" : "IPv6, summed";
	return w->family == AF_INET ? "IPv4" : "IPv6";
}

/* Whether this kernel can make frames that a device has summed: Linux 6.17. */
static inline bool world_sums(const struct world *w)
{
	static const uint8_t frame[64] = { [12] = 0x08 };
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame,
		    .data_size_in = sizeof(frame), .repeat = 1,
		    .flags = BPF_F_TEST_SKB_CHECKSUM_COMPLETE);

	return !bpf_prog_test_run_opts(
		bpf_program__fd(w->lab.wire->progs.wire_ingress), &run);
}

/* From none to IPv4, then IPv6, then none: false. */
static inline bool world_next_family(struct world *w)
{
	w->family = w->family == AF_INET6 ? 0 :
		    w->family == AF_INET  ? AF_INET6 :
					    AF_INET;
	return w->family;
}

/*
 * The same, and again with sums of a device. Not for what changes the length of a
 * frame's tail: the kernel then forgets the sum, and compares it all the same.
 */
static inline bool world_next_form(struct world *w)
{
	if (world_next_family(w))
		return true;
	w->summed = !w->summed && world_sums(w);
	return w->summed && world_next_family(w);
}

static inline void world_leg(struct wire_leg *leg, int family, int net)
{
	char remote[32], local[32];

	snprintf(remote, sizeof(remote),
		 family == AF_INET ? "10.%d.0.2" : "fd0%d::2", net);
	snprintf(local, sizeof(local),
		 family == AF_INET ? "10.%d.0.1" : "fd0%d::1", net);
	if (inet_pton(family, remote, leg->remote) != 1 ||
	    inet_pton(family, local, leg->local) != 1)
		lab_die("address");
	leg->remote_port = htons(net == 1 ? 40000 : 5000);
	leg->local_port = htons(net == 1 ? 3478 : 50000);
}

/* Where the four sequence spaces stand at the join. */
struct spaces {
	uint32_t client_sent, client_received; /* by our sockets */
	uint32_t peer_sent, peer_received;
};

static const struct spaces spaces_plain = { 1000000, 2000000, 3000000,
					    4000000 };

/* A joined pair, nothing latched, windows of 100,000 bytes, scale 7 and 9. */
static inline void world_join(struct world *w, int family,
			      const struct spaces *spaces)
{
	struct wire_snapshot client = {
		.rcv_nxt = spaces->client_received,
		.rcv_wup = spaces->client_received,
		.rcv_wnd = 32768,
		.write_seq = spaces->client_sent,
		.snd_una = spaces->client_sent,
		.snd_wnd = 100000,
		.timestamp = 500000,
		.ts_recent = 600000,
		.timestamps = 1,
		.sack = 1,
		.snd_wscale = 7,
		.rcv_wscale = 8,
	};
	struct wire_snapshot peer = client;
	struct wire_key keys[WIRE_LEGS] = { 0 };
	struct wire_leg where;

	peer.rcv_nxt = peer.rcv_wup = spaces->peer_received;
	peer.write_seq = peer.snd_una = spaces->peer_sent;
	peer.timestamp = 700000;
	peer.ts_recent = 800000;
	peer.snd_wscale = 9;
	peer.rcv_wscale = 5;
	w->family = family;
	memset(&w->pair, 0, sizeof(w->pair));
	w->pair.state = WIRE_JOINED;
	w->pair.generation = 7;
	w->pair.family = family;
	for (int i = 0; i < WIRE_LEGS; i++) {
		memset(&where, 0, sizeof(where));
		world_leg(&where, family, i + 1);
		memcpy(keys[i].remote, where.remote, 16);
		memcpy(keys[i].local, where.local, 16);
		keys[i].remote_port = where.remote_port;
		keys[i].local_port = where.local_port;
	}
	lab_leg(&w->pair.leg[0], &keys[0], &client, &peer, 0, 0);
	lab_leg(&w->pair.leg[1], &keys[1], &peer, &client, 0, 0);
	lab_pair_write(&w->lab, 0, &w->pair);
	lab_flow(&w->lab, 0, &w->pair, WIRE_CLIENT);
	lab_flow(&w->lab, 0, &w->pair, WIRE_PEER);
}

/* To be called after a change of w->pair. */
static inline void world_set(struct world *w)
{
	lab_pair_write(&w->lab, 0, &w->pair);
}

/* A bare ACK that comes from leg's remote, next in all spaces. */
static inline struct craft world_craft(const struct world *w, int leg)
{
	const struct wire_leg *from = &w->pair.leg[leg];

	return (struct craft){
		.family = w->family,
		.from = from->remote,
		.to = from->local,
		.from_port = from->remote_port,
		.to_port = from->local_port,
		.seq = from->sent_end,
		.ack = (uint32_t)from->acked,
		.window = 500,
		.flags = ACK,
	};
}

/* Runs w->in on a program; w->pair, w->moved and w->out tell what it did. */
static inline void world_run(struct world *w, const struct bpf_program *program,
			     const struct __sk_buff *ctx)
{
	for (uint32_t i = 0; i < WIRE_COUNTERS; i++)
		w->counters[i] = lab_counter(&w->lab, i);
	w->verdict = frame_run(program, &w->in, ctx, w->summed, &w->out);
	for (uint32_t i = 0; i < WIRE_COUNTERS; i++)
		w->moved[i] = lab_counter(&w->lab, i) - w->counters[i];
	lab_pair_read(&w->lab, 0, &w->pair);
}

static inline void world_in(struct world *w)
{
	world_run(w, w->lab.wire->progs.wire_ingress, NULL);
}

/* Crafts and runs on wire_ingress. */
static inline void world_send(struct world *w, const struct craft *c)
{
	frame_tcp(&w->in, c);
	world_in(w);
}

/* Whether `what` has been counted once and nothing else. */
static inline bool world_counted(const struct world *w, uint32_t what)
{
	for (uint32_t i = 0; i < WIRE_COUNTERS; i++)
		if (w->moved[i] != (i == what))
			return false;
	return true;
}

static inline bool world_dropped(const struct world *w, uint32_t why)
{
	return w->verdict == TC_ACT_SHOT && world_counted(w, why);
}

/* Up the stack, untouched. */
static inline bool world_up(const struct world *w)
{
	return w->verdict == TC_ACT_UNSPEC && world_counted(w, WIRE_COUNTERS) &&
	       w->in.size == w->out.size &&
	       !memcmp(w->in.data, w->out.data, w->in.size);
}

/* Forwarded to the remote of `leg`: addresses, ports, life, checksums, bytes. */
static inline bool world_forwarded(struct world *w, int leg)
{
	const struct wire_leg *to = &w->pair.leg[leg];
	bool v4 = w->family == AF_INET;
	uint8_t *ip = w->out.data + HEAD_L3, *tcp = frame_l4(&w->out);
	uint8_t *was = frame_l4(&w->in);
	size_t head = (was[12] >> 4) * 4u;

	if (w->verdict != TC_ACT_REDIRECT || w->in.size != w->out.size ||
	    !world_counted(w, WIRE_COUNT_FORWARDED) || !frame_right(&w->out))
		return false;
	if (memcmp(ip + (v4 ? 12 : 8), to->local, v4 ? 4 : 16) ||
	    memcmp(ip + (v4 ? 16 : 24), to->remote, v4 ? 4 : 16) ||
	    memcmp(tcp, &to->local_port, 2) ||
	    memcmp(tcp + 2, &to->remote_port, 2))
		return false;
	if (ip[v4 ? 8 : 7] != 64 ||
	    (v4 ? ip[1] != 0 : frame_get32(ip) != 0x60012345))
		return false;
	return tcp[12] == was[12] && tcp[13] == was[13] &&
	       !memcmp(tcp + head, was + head, frame_l4_size(&w->in) - head);
}

static inline void world_open(struct world *w)
{
	memset(w, 0, sizeof(*w));
	lab_begin(&w->lab);
	lab_load(&w->lab, 4);
}

#endif
