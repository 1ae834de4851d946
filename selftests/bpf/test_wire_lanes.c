/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Datagrams on a lane, crafted and run on wire_ingress one at a time: what is relayed
 * and how it looks then, what goes up the stack as it came, and that a forged, damaged
 * or odd one is always among the latter. Between ends of one family and of two.
 */
#include <time.h>

#include "wire_packet.h"

#define CHANNEL       0x4001
#define CLIENT_DEVICE 1 /* test runs are of lo */

struct lanes {
	struct world w; /* its family is the client's */
	bool mixed; /* the peer's is the other */
	struct wire_lane lane; /* as it was set, then as it was left */
};

static const char *lane_name(const struct lanes *l)
{
	static char name[64];

	snprintf(name, sizeof(name), "%s%s", family_name(&l->w),
		 l->mixed ? ", peer of the other family" : "");
	return name;
}

static bool leg_v4(const struct lanes *l, int leg)
{
	return (l->w.family == AF_INET) != (l->mixed && leg == WIRE_PEER);
}

static size_t leg_head(const struct lanes *l, int leg)
{
	return leg_v4(l, leg) ? 20 : 40;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void map_set(struct bpf_map *map, const void *key, const void *value)
{
	if (bpf_map_update_elem(bpf_map__fd(map), key, value, BPF_ANY))
		lab_die("map");
}

static void lane_write(struct lanes *l)
{
	uint32_t zero = 0;

	map_set(l->w.lab.wire->maps.wire_lanes, &zero, &l->lane);
}

static void lease_write(struct lanes *l, uint64_t until_ns)
{
	struct wire_lease lease = { .until_ns = until_ns };
	uint32_t zero = 0;

	map_set(l->w.lab.wire->maps.wire_lease, &zero, &lease);
}

/* A lane in place 0 between the client and the peer of world_leg(). */
static void lane_open(struct lanes *l)
{
	memset(&l->lane, 0, sizeof(l->lane));
	l->lane.state = WIRE_LANE_ON;
	l->lane.generation = 1;
	l->lane.expires_ns = now_ns() + 1000000000000;
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		struct wire_lane_key *key = &l->lane.leg[leg].key;
		int family = leg_v4(l, leg) ? AF_INET : AF_INET6;
		struct wire_flow flow = { .pair = 0, .leg = leg };
		struct wire_leg where;

		memset(&where, 0, sizeof(where));
		world_leg(&where, family, leg + 1);
		memcpy(key->remote, where.remote, 16);
		memcpy(key->local, where.local, 16);
		key->remote_port = where.remote_port;
		key->local_port = where.local_port;
		key->family = family;
		key->channel = leg == WIRE_CLIENT ? htons(CHANNEL) : 0;
		l->lane.leg[leg].device = CLIENT_DEVICE;
		map_set(l->w.lab.wire->maps.wire_lane_flows, key, &flow);
	}
	lane_write(l);
	lease_write(l, now_ns() + 1000000000000);
}

/* A datagram from leg's remote; from the client ChannelData of `size` bytes. */
static void datagram_make(struct lanes *l, int leg, size_t size)
{
	const struct wire_lane_key *from = &l->lane.leg[leg].key;
	struct craft c = { .family = from->family,
			   .from = from->remote,
			   .to = from->local };
	size_t head = leg == WIRE_CLIENT ? 12 : 8;
	uint8_t *udp;

	frame_ip(&l->w.in, &c, IPPROTO_UDP, head + size);
	udp = frame_l4(&l->w.in);
	memcpy(udp, &from->remote_port, 2);
	memcpy(udp + 2, &from->local_port, 2);
	frame_put16(udp + 4, (uint16_t)(head + size));
	if (leg == WIRE_CLIENT) {
		frame_put16(udp + 8, CHANNEL);
		frame_put16(udp + 10, (uint16_t)size);
	}
	for (size_t i = 0; i < size; i++)
		udp[head + i] = (uint8_t)(i * 7 + 1);
	frame_mend(&l->w.in);
}

/* Runs w.in; l->lane tells what was counted. */
static void datagram_run(struct lanes *l)
{
	uint32_t zero = 0;

	world_in(&l->w);
	if (bpf_map_lookup_elem(bpf_map__fd(l->w.lab.wire->maps.wire_lanes),
				&zero, &l->lane))
		lab_die("lane");
}

static bool partial(struct frame *f)
{
	uint8_t *udp = frame_l4(f);

	return frame_get16(udp + 6) ==
	       (uint16_t)frame_pseudo(f, frame_l4_size(f), IPPROTO_UDP);
}

/*
 * Sent on from `leg`: ends, lengths, payload, checksums, what the relay's own sockets
 * would put into the IP header. `summed`: its own checksum is whole.
 */
static bool relayed(struct lanes *l, int leg, bool summed)
{
	struct world *w = &l->w;
	const struct wire_lane_key *to = &l->lane.leg[!leg].key;
	bool v4 = to->family == AF_INET;
	uint8_t *ip = w->out.data + HEAD_L3, *udp = frame_l4(&w->out);
	size_t in = leg == WIRE_CLIENT ? 12 : 8, out = 20 - in;
	size_t size = frame_l4_size(&w->in) - in;

	if (w->verdict != TC_ACT_REDIRECT ||
	    !world_counted(w, WIRE_COUNT_DATAGRAMS) ||
	    frame_get16(w->out.data + 12) != (v4 ? 0x0800 : 0x86dd) ||
	    w->out.size != HEAD_L3 + leg_head(l, !leg) + out + size ||
	    frame_l4_size(&w->out) != out + size ||
	    frame_get16(udp + 4) != out + size)
		return false;
	if (memcmp(ip + (v4 ? 12 : 8), to->local, v4 ? 4 : 16) ||
	    memcmp(ip + (v4 ? 16 : 24), to->remote, v4 ? 4 : 16) ||
	    memcmp(udp, &to->local_port, 2) ||
	    memcmp(udp + 2, &to->remote_port, 2) ||
	    memcmp(udp + out, frame_l4(&w->in) + in, size))
		return false;
	if (leg == WIRE_PEER &&
	    (frame_get16(udp + 8) != CHANNEL || frame_get16(udp + 10) != size))
		return false;
	if (v4 && (ip[0] != 0x45 || ip[1] || ip[8] != 64 || ip[9] != 17 ||
		   frame_get16(ip + 6) != (leg == WIRE_PEER ? 0x4000 : 0) ||
		   frame_sum(ip, 20, 0) != 0xffff))
		return false;
	if (!v4 &&
	    (frame_get32(ip) != 0x60000000 || ip[6] != 17 || ip[7] != 64))
		return false;
	return summed ? frame_right(&w->out) : partial(&w->out);
}

static void expect_up(struct lanes *l, const char *what)
{
	uint64_t before = l->lane.leg[0].packets + l->lane.leg[1].packets;

	datagram_run(l);
	lab_check(world_up(&l->w) && before == l->lane.leg[0].packets +
						       l->lane.leg[1].packets,
		  "%s: %s goes up the stack as it came", lane_name(l), what);
}

/* The same as from a virtual device: its checksum is to be completed. */
static bool relayed_half(struct lanes *l, int leg)
{
	uint8_t *udp = frame_l4(&l->w.in);
	size_t in = leg == WIRE_CLIENT ? 12 : 8, out = 20 - in;

	frame_put16(udp + 6,
		    (uint16_t)frame_pseudo(&l->w.in, frame_l4_size(&l->w.in),
					   IPPROTO_UDP));
	datagram_run(l);
	/* What a device has summed, nobody completes. */
	if (l->w.summed)
		return world_up(&l->w);
	return l->w.verdict == TC_ACT_REDIRECT &&
	       !memcmp(frame_l4(&l->w.out) + out, udp + in,
		       frame_l4_size(&l->w.in) - in);
}

static void test_relayed(struct lanes *l)
{
	static const size_t sizes[] = { 1, 2, 3, 60, 200, 1201, 1400 };
	static const char *const names[] = { "client", "peer" };

	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		bool whole = true, half = true;
		uint64_t bytes = 0, packets = 0, times = l->w.summed ? 1 : 2;

		lane_open(l);
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			datagram_make(l, leg, sizes[i]);
			datagram_run(l);
			whole &= relayed(l, leg, true);
			datagram_make(l, leg, sizes[i]);
			half &= relayed_half(l, leg);
			bytes += times * sizes[i];
			packets += times;
		}
		lab_check(whole, "%s: from the %s, of all lengths",
			  lane_name(l), names[leg]);
		lab_check(half, "%s: the same with half a checksum",
			  lane_name(l));
		lab_check(l->lane.leg[leg].packets == packets &&
				  l->lane.leg[leg].bytes == bytes &&
				  !l->lane.leg[!leg].packets,
			  "%s: and counted", lane_name(l));
	}
	lane_open(l);
	datagram_make(l, WIRE_CLIENT, 0);
	datagram_run(l);
	lab_check(relayed(l, WIRE_CLIENT, true), "%s: an empty one",
		  lane_name(l));
}

static void test_forged(struct lanes *l)
{
	uint8_t *ip = l->w.in.data + HEAD_L3;
	uint8_t *udp = ip + leg_head(l, WIRE_CLIENT);

	lane_open(l);
	datagram_make(l, WIRE_CLIENT, 100);
	ip[leg_v4(l, WIRE_CLIENT) ? 15 : 23] ^= 1;
	frame_mend(&l->w.in);
	expect_up(l, "ChannelData from another address");
	datagram_make(l, WIRE_CLIENT, 100);
	udp[1] ^= 1;
	frame_mend(&l->w.in);
	expect_up(l, "from another port of the client's host");
	datagram_make(l, WIRE_CLIENT, 100);
	frame_put16(udp + 8, CHANNEL + 1);
	frame_mend(&l->w.in);
	expect_up(l, "a channel that is not bound");
	datagram_make(l, WIRE_CLIENT, 100);
	memset(udp + 8, 0, 20);
	frame_put32(udp + 12, 0x2112a442);
	frame_mend(&l->w.in);
	expect_up(l, "a STUN message of the client");
	udp = ip + leg_head(l, WIRE_PEER);
	datagram_make(l, WIRE_PEER, 100);
	udp[1] ^= 1;
	frame_mend(&l->w.in);
	expect_up(l, "a datagram from another port of the peer");
	datagram_make(l, WIRE_PEER, 100);
	udp[3] ^= 1;
	frame_mend(&l->w.in);
	expect_up(l, "to another relayed port");
	/* What a peer sends may look like ChannelData of anybody. */
	datagram_make(l, WIRE_PEER, 100);
	frame_put16(udp + 8, CHANNEL);
	frame_mend(&l->w.in);
	datagram_run(l);
	lab_check(relayed(l, WIRE_PEER, true),
		  "%s: a peer's payload that looks like ChannelData is payload",
		  lane_name(l));
	datagram_make(l, WIRE_CLIENT, 100);
	l->lane.leg[WIRE_CLIENT].device = 999;
	lane_write(l);
	expect_up(l, "one that comes by another device");
}

static void test_damaged(struct lanes *l)
{
	uint8_t *ip = l->w.in.data + HEAD_L3, *udp;

	lane_open(l);
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		udp = ip + leg_head(l, leg);
		datagram_make(l, leg, 100);
		udp[50] ^= 1;
		expect_up(l, "a damaged payload");
		datagram_make(l, leg, 100);
		frame_put16(udp + 4, frame_get16(udp + 4) - 1);
		frame_mend(&l->w.in);
		expect_up(l, "a UDP length below that of IP");
		datagram_make(l, leg, 100);
		frame_put16(udp + 4, frame_get16(udp + 4) + 1);
		frame_mend(&l->w.in);
		expect_up(l, "one above it");
		datagram_make(l, leg, 100);
		l->w.in.size += 3;
		expect_up(l, "a frame longer than its packet");
		datagram_make(l, leg, 100);
		l->w.in.size -= 3;
		expect_up(l, "a frame cut short");
		datagram_make(l, leg, 100);
		frame_put16(udp + 6, 0);
		if (leg_v4(l, leg) && !l->mixed) {
			datagram_run(l);
			lab_check(l->w.verdict == TC_ACT_REDIRECT &&
					  !frame_get16(frame_l4(&l->w.out) + 6),
				  "IPv4: without checksum it stays so");
		} else {
			expect_up(l, "no checksum, which IPv6 demands,");
		}
	}
	udp = ip + leg_head(l, WIRE_CLIENT);
	datagram_make(l, WIRE_CLIENT, 100);
	frame_put16(udp + 10, 99);
	frame_mend(&l->w.in);
	expect_up(l, "padded ChannelData");
	datagram_make(l, WIRE_CLIENT, 100);
	frame_put16(udp + 10, 101);
	frame_mend(&l->w.in);
	expect_up(l, "ChannelData that says more than there is");
}

static void test_headers(struct lanes *l, int leg)
{
	uint8_t *ip = l->w.in.data + HEAD_L3;

	lane_open(l);
	datagram_make(l, leg, 100);
	ip[10] ^= 1;
	expect_up(l, "a wrong IP checksum");
	datagram_make(l, leg, 100);
	frame_put16(ip + 6, 0x2000);
	frame_mend(&l->w.in);
	expect_up(l, "a first fragment");
	frame_put16(ip + 6, 1);
	frame_mend(&l->w.in);
	expect_up(l, "a later fragment");
}

static void test_ends(struct lanes *l)
{
	lane_open(l);
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		datagram_make(l, leg, 100);
		l->lane.expires_ns = now_ns() - 100000000;
		lane_write(l);
		expect_up(l, "past expires_ns one");
		l->lane.expires_ns = now_ns() + 1000000000000;
		l->lane.state = WIRE_LANE_OFF;
		lane_write(l);
		expect_up(l, "on a lane that is off one");
		l->lane.state = WIRE_LANE_ON;
		l->lane.leg[leg].key.remote_port ^= 1;
		lane_write(l);
		expect_up(l, "on a place of another lane one");
		l->lane.leg[leg].key.remote_port ^= 1;
		l->lane.leg[leg].key.channel ^= 1;
		lane_write(l);
		expect_up(l, "or of another channel one");
		l->lane.leg[leg].key.channel ^= 1;
		lane_write(l);
		lease_write(l, now_ns() - 100000000);
		expect_up(l, "without a broker one");
		lease_write(l, 0);
		expect_up(l, "before the first lane one");
		lease_write(l, now_ns() + 1000000000000);
		datagram_run(l);
		lab_check(relayed(l, leg, true), "%s: and else it passes",
			  lane_name(l));
	}
}

/* What is too large for the way on is user space's to fragment. */
static void test_large(struct lanes *l)
{
	size_t ip = leg_head(l, WIRE_CLIENT);

	lane_open(l);
	lab_run("ip link set vc mtu 1400");
	datagram_make(l, WIRE_PEER, 1400 - ip - 8 - 4);
	datagram_run(l);
	lab_check(relayed(l, WIRE_PEER, true), "%s: as large as may be",
		  lane_name(l));
	datagram_make(l, WIRE_PEER, 1400 - ip - 8 - 3);
	expect_up(l, "a byte more");
	lab_run("ip link set vc mtu 1500");
}

/* What no socket sees in this form is nothing that the programs touch. */
static void test_odd(struct lanes *l, int leg)
{
	static const uint8_t next[] = { 0, 43, 44, 60, 135 };
	const struct __sk_buff super = { .gso_size = 50 };
	uint8_t *ip = l->w.in.data + HEAD_L3;
	uint64_t before;
	bool up = true;

	lane_open(l);
	datagram_make(l, leg, 100);
	before = l->lane.leg[leg].packets;
	world_run(&l->w, l->w.lab.wire->progs.wire_ingress, &super);
	lab_check(l->w.verdict == TC_ACT_UNSPEC &&
			  before == l->lane.leg[leg].packets,
		  "%s: a super-packet goes up the stack", lane_name(l));
	for (size_t i = 0; i < sizeof(next); i++) {
		size_t head = leg_head(l, leg), size = leg_v4(l, leg) ? 4 : 8;
		struct frame *in = &l->w.in;

		datagram_make(l, leg, 100);
		memmove(ip + head + size, ip + head, in->size - HEAD_L3 - head);
		memset(ip + head, leg_v4(l, leg) ? 1 : 0, size);
		in->size += size;
		if (leg_v4(l, leg)) {
			ip[0] = 0x46;
			frame_put16(ip + 2, (uint16_t)(in->size - HEAD_L3));
			frame_put16(ip + 10, 0);
			frame_put16(ip + 10, (uint16_t)~frame_sum(ip, 24, 0));
		} else {
			ip[6] = next[i];
			ip[head] = IPPROTO_UDP;
			frame_put16(ip + 4,
				    (uint16_t)(in->size - HEAD_L3 - head));
		}
		datagram_run(l);
		up &= world_up(&l->w);
	}
	lab_check(up, "%s: so does what has options or extension headers",
		  lane_name(l));
}

/* A word of the payload by which the sum becomes 0: RFC 768 has all ones for it. */
static void test_zero_sum(struct lanes *l, int leg)
{
	size_t in = leg == WIRE_CLIENT ? 12 : 8;
	uint8_t *udp;

	lane_open(l);
	datagram_make(l, leg, 100);
	datagram_run(l);
	udp = frame_l4(&l->w.in);
	frame_put16(udp + in, (uint16_t)frame_sum(frame_l4(&l->w.out) + 6, 2,
						  frame_get16(udp + in)));
	frame_mend(&l->w.in);
	datagram_run(l);
	lab_check(relayed(l, leg, true) &&
			  frame_get16(frame_l4(&l->w.out) + 6) == 0xffff,
		  "%s: a sum of zero is sent as all ones", lane_name(l));
	datagram_make(l, leg, 100);
	frame_put16(udp + in,
		    (uint16_t)frame_sum(udp + 6, 2, frame_get16(udp + in)));
	frame_mend(&l->w.in);
	lab_check(!frame_get16(udp + 6), "%s: one that arrives so",
		  lane_name(l));
	frame_put16(udp + 6, 0xffff);
	datagram_run(l);
	lab_check(relayed(l, leg, true), "%s: is right", lane_name(l));
}

/* Bytes of the headers changed at random, sums mended or not, lengths moved. */
static void test_random(struct lanes *l, int leg, unsigned int times)
{
	size_t head = HEAD_L3 + leg_head(l, leg) + 12;
	unsigned int wrong = 0, sent = 0;

	srandom(7);
	lane_open(l);
	for (unsigned int i = 0; i < times; i++) {
		struct frame *in = &l->w.in;

		datagram_make(l, leg, (size_t)random() % 300 + 1);
		for (long changes = random() % 3; changes >= 0; changes--)
			in->data[random() % (long)head] ^=
				(uint8_t)(1 << random() % 8);
		if (random() % 4 == 0)
			in->size += (size_t)random() % 9 - 4;
		if (random() % 2 && frame_l4_size(in) < 400 &&
		    frame_l4_size(in) > 20)
			frame_mend(in);
		datagram_run(l);
		sent += l->w.verdict == TC_ACT_REDIRECT;
		wrong += l->w.verdict == TC_ACT_REDIRECT ?
				 !relayed(l, leg, true) :
				 !world_up(&l->w);
	}
	lab_check(!wrong && sent && sent < times,
		  "%s: of %u with random changes all are sent right or not "
		  "touched (%u sent)",
		  lane_name(l), times, sent);
}

static void test_form(struct lanes *l)
{
	test_relayed(l);
	test_forged(l);
	test_damaged(l);
	for (int leg = 0; leg < WIRE_LEGS; leg++)
		if (leg_v4(l, leg))
			test_headers(l, leg);
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		test_odd(l, leg);
		test_zero_sum(l, leg);
		test_random(l, leg, 200);
	}
	test_ends(l);
	test_large(l);
}

/* A socket of datagrams under a key of wire_lane_look. */
static int look_prepare(struct wire_lane_call *call, int leg)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct wire_lane_key *key = &call->key[leg];
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, len) ||
	    getsockname(fd, (struct sockaddr *)&at, &len))
		lab_die("socket");
	key->family = AF_INET;
	memcpy(key->local, &at.sin_addr, sizeof(at.sin_addr));
	memcpy(key->remote, &at.sin_addr, sizeof(at.sin_addr));
	key->local_port = at.sin_port;
	key->remote_port = htons(9);
	return fd;
}

/*
 * Kernels before 6.4 let packets in while the broker has a program run: that must not
 * work where their runs do.
 */
static void test_look(struct lab *lab)
{
	const struct bpf_map *map = lab->wire->maps.wire_work;
	size_t size = (bpf_map__value_size(map) + 7) & ~7ul;
	size_t all = size * (size_t)libbpf_num_possible_cpus();
	uint8_t *before = malloc(all), *after = calloc(1, all);
	struct wire_lane_call call = { .look = { { .found = 0 } } };
	char packet[64] = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = packet,
		    .data_size_in = sizeof(packet));
	uint32_t zero = 0;
	int fds[WIRE_LEGS];

	for (int leg = 0; leg < WIRE_LEGS; leg++)
		fds[leg] = look_prepare(&call, leg);
	map_set(lab->wire->maps.wire_lane_call, &zero, &call);
	memset(before, 0xa5, all);
	map_set(lab->wire->maps.wire_work, &zero, before);
	if (bpf_prog_test_run_opts(
		    bpf_program__fd(lab->wire->progs.wire_lane_look), &run) ||
	    bpf_map_lookup_elem(bpf_map__fd(lab->wire->maps.wire_lane_call),
				&zero, &call) ||
	    bpf_map_lookup_elem(bpf_map__fd(map), &zero, after))
		lab_die("wire_lane_look");
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		lab_check(call.look[leg].found,
			  "wire_lane_look finds socket %d", leg);
		close(fds[leg]);
	}
	lab_check(!memcmp(before, after, all),
		  "wire_lane_look leaves the memory of packets' runs alone");
	free(before);
	free(after);
}

int main(void)
{
	struct lanes l;

	memset(&l, 0, sizeof(l));
	world_open(&l.w);
	while (world_next_form(&l.w)) {
		l.mixed = false;
		test_form(&l);
		l.mixed = true;
		test_form(&l);
	}
	test_look(&l.w.lab);
	return lab_end(&l.w.lab);
}
