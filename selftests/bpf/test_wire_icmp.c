/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Packet-too-big in both families: a router's message about a packet that was
 * sent on reaches the end that made it; a packet that the other leg cannot
 * carry is dropped and its sender told. Super-packets count by their segments.
 */
#include "wire_packet.h"

static size_t ip_size(const struct world *w)
{
	return w->family == AF_INET ? 20 : 40;
}

/* A router's message of `mtu` about sequence number `seq` sent on by `leg`. */
static void message(struct world *w, int leg, uint32_t mtu, uint32_t seq,
		    size_t quoted)
{
	const struct wire_leg *l = &w->pair.leg[leg];
	struct craft inner = {
		.family = w->family,
		.from = l->local,
		.to = l->remote,
		.from_port = l->local_port,
		.to_port = l->remote_port,
		.seq = seq,
		.flags = ACK,
		.payload = 1400,
	};
	struct craft outer = inner;
	uint8_t router[16] = { 192, 0, 2, 1 };
	bool v4 = w->family == AF_INET;
	struct frame quote;
	uint8_t *icmp;

	frame_tcp(&quote, &inner);
	outer.from = router;
	outer.to = l->local;
	frame_ip(&w->in, &outer, v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6,
		 8 + ip_size(w) + quoted);
	icmp = frame_l4(&w->in);
	icmp[0] = v4 ? 3 : 2;
	icmp[1] = v4 ? 4 : 0;
	frame_put32(icmp + 4, mtu);
	memcpy(icmp + 8, quote.data + HEAD_L3, ip_size(w) + quoted);
	frame_mend(&w->in);
}

/* Whether w->out tells `leg`'s remote of `mtu` and its own number `seq`. */
static bool tells(struct world *w, int leg, uint32_t mtu, uint32_t seq,
		  uint32_t length, uint32_t what)
{
	const struct wire_leg *to = &w->pair.leg[leg];
	bool v4 = w->family == AF_INET;
	size_t size = v4 ? 4 : 16, at = v4 ? 12 : 8;
	uint8_t *ip = w->out.data + HEAD_L3, *icmp = frame_l4(&w->out);
	uint8_t *inner = icmp + 8, *tcp = inner + ip_size(w);

	if (w->verdict != TC_ACT_REDIRECT || !frame_right(&w->out) ||
	    w->moved[what] != 1 || w->moved[WIRE_COUNT_FORWARDED] ||
	    w->out.size != HEAD_L3 + 2 * ip_size(w) + 16)
		return false;
	if (memcmp(ip + at, to->local, size) ||
	    memcmp(ip + at + size, to->remote, size) ||
	    icmp[0] != (v4 ? 3 : 2) || icmp[1] != (v4 ? 4 : 0) ||
	    frame_get32(icmp + 4) != mtu)
		return false;
	if (memcmp(inner + at, to->remote, size) ||
	    memcmp(inner + at + size, to->local, size) ||
	    memcmp(tcp, &to->remote_port, 2) ||
	    memcmp(tcp + 2, &to->local_port, 2) || frame_get32(tcp + 4) != seq)
		return false;
	if (!v4)
		return frame_get16(inner + 4) + 40u == length && inner[6] == 6;
	return frame_sum(inner, 20, 0) == 0xffff &&
	       frame_get16(inner + 2) == length && inner[9] == 6;
}

/* A pair whose client has sent 10,000 bytes that the peer has not acked. */
static void join(struct world *w)
{
	world_join(w, w->family, &spaces_plain);
	w->pair.leg[0].sent_end += 10000;
	world_set(w);
}

static void test_translated(struct world *w)
{
	uint32_t length = 1420 + (uint32_t)ip_size(w), least;
	const char *name = family_name(w);

	join(w);
	message(w, WIRE_PEER, 1300, 3000000 + 1400, 8);
	world_in(w);
	lab_check(tells(w, WIRE_CLIENT, 1300, 2000000 + 1400, length,
			WIRE_COUNT_TOO_BIG_TRANSLATED),
		  "%s: a router's message reaches who sent the packet", name);
	message(w, WIRE_PEER, 1300, 3000000 + 1400, 700);
	world_in(w);
	lab_check(tells(w, WIRE_CLIENT, 1300, 2000000 + 1400, length,
			WIRE_COUNT_TOO_BIG_TRANSLATED),
		  "%s: however much it quotes", name);
	least = w->family == AF_INET ? 68 : 1280;
	message(w, WIRE_PEER, least, 3000000, 8);
	world_in(w);
	lab_check(tells(w, WIRE_CLIENT, least, 2000000, length,
			WIRE_COUNT_TOO_BIG_TRANSLATED),
		  "%s: the least size", name);
	message(w, WIRE_PEER, least - 1, 3000000, 8);
	world_in(w);
	lab_check(world_dropped(w, WIRE_DROP_ICMP), "%s: a tiny one", name);
	message(w, WIRE_PEER, 0, 3000000, 8);
	world_in(w);
	lab_check(world_dropped(w, WIRE_DROP_ICMP), "%s: none", name);
}

static void test_foreign(struct world *w)
{
	const char *name = family_name(w);
	uint8_t *ip = w->in.data + HEAD_L3, *icmp;

	join(w);
	message(w, WIRE_PEER, 1300, 3000000 - 1, 8);
	world_in(w);
	lab_check(world_dropped(w, WIRE_DROP_ICMP),
		  "%s: about what is acknowledged", name);
	message(w, WIRE_PEER, 1300, 3000000 + 10000, 8);
	world_in(w);
	lab_check(world_dropped(w, WIRE_DROP_ICMP),
		  "%s: about what was not sent", name);
	message(w, WIRE_PEER, 1300, 3000000 + 9999, 8);
	world_in(w);
	lab_check(w->verdict == TC_ACT_REDIRECT, "%s: about the last byte",
		  name);
	message(w, WIRE_PEER, 1300, 3000000, 8);
	icmp = frame_l4(&w->in);
	icmp[8 + ip_size(w)] ^= 1;
	frame_mend(&w->in);
	world_in(w);
	lab_check(world_up(w), "%s: of another tuple goes up the stack", name);
	message(w, WIRE_PEER, 1300, 3000000, 8);
	icmp[2] ^= 1;
	world_in(w);
	lab_check(world_dropped(w, WIRE_DROP_ICMP), "%s: a wrong checksum",
		  name);
	message(w, WIRE_PEER, 1300, 3000000, 8);
	ip[ip_size(w) - 1] ^= 1;
	frame_mend(&w->in);
	world_in(w);
	lab_check(world_dropped(w, WIRE_DROP_ICMP), "%s: to another address",
		  name);
	message(w, WIRE_PEER, 1300, 3000000, 7);
	world_in(w);
	lab_check(world_up(w), "%s: one that quotes too little", name);
	message(w, WIRE_PEER, 1300, 3000000, 1530);
	world_in(w);
	lab_check(world_dropped(w, WIRE_DROP_ICMP), "%s: one too long", name);
	message(w, WIRE_PEER, 1300, 3000000, 8);
	icmp[w->family == AF_INET ? 1 : 0] = 1;
	frame_mend(&w->in);
	world_in(w);
	lab_check(world_up(w), "%s: another type goes up the stack", name);
	message(w, WIRE_PEER, 1300, 3000000, 8);
	icmp[8 + (w->family == AF_INET ? 9 : 6)] = IPPROTO_UDP;
	frame_mend(&w->in);
	world_in(w);
	lab_check(world_up(w), "%s: another protocol, too", name);
}

static void test_states(struct world *w)
{
	const char *name = family_name(w);

	join(w);
	w->pair.state = WIRE_JOINING;
	world_set(w);
	message(w, WIRE_PEER, 1300, 3000000, 8);
	world_in(w);
	lab_check(world_up(w), "%s: while joining, up the stack", name);
	join(w);
	w->pair.leg[1].flags |= WIRE_LEG_LATCHED;
	w->pair.leg[1].acked -= 2000;
	world_set(w);
	message(w, WIRE_PEER, 1300, 3000000 - 1, 8);
	world_in(w);
	lab_check(world_up(w), "%s: about our socket's own packet, too", name);
	message(w, WIRE_PEER, 1300, 3000000, 8);
	world_in(w);
	lab_check(w->verdict == TC_ACT_REDIRECT, "%s: not about the next",
		  name);
	w->pair.expires_ns = 1;
	world_set(w);
	world_in(w);
	lab_check(world_dropped(w, WIRE_DROP_EXPIRED), "%s: expired", name);
}

/* A client's segment so long that its IP packet has `size` bytes. */
static void send_size(struct world *w, size_t size, uint32_t gso_size)
{
	struct __sk_buff ctx = { .gso_size = gso_size, .gso_segs = 2 };
	struct craft c = world_craft(w, WIRE_CLIENT);

	c.payload = size - ip_size(w) - 20;
	frame_tcp(&w->in, &c);
	world_run(w, w->lab.wire->progs.wire_ingress, gso_size ? &ctx : NULL);
}

static void test_told(struct world *w)
{
	const char *name = family_name(w);

	world_join(w, w->family, &spaces_plain);
	send_size(w, 1400, 0);
	lab_check(world_forwarded(w, WIRE_PEER),
		  "%s: a packet as long as the MTU", name);
	send_size(w, 1401, 0);
	lab_check(tells(w, WIRE_CLIENT, 1400,
			2001360 - (uint32_t)ip_size(w) + 20, 1401,
			WIRE_COUNT_TOO_BIG_SENT) &&
			  w->moved[WIRE_DROP_TOO_BIG] == 1 &&
			  w->pair.leg[0].packets == 1,
		  "%s: a byte more: dropped, its sender told", name);
	send_size(w, 1401, 0);
	lab_check(world_dropped(w, WIRE_DROP_TOO_BIG),
		  "%s: not told at once again", name);
	w->pair.leg[0].told_ns = 1;
	world_set(w);
	send_size(w, 1500, 0);
	lab_check(w->verdict == TC_ACT_REDIRECT &&
			  w->moved[WIRE_COUNT_TOO_BIG_SENT] == 1,
		  "%s: but some time after", name);
}

static void test_super(struct world *w)
{
	const char *name = family_name(w);
	uint32_t fits = 1400 - (uint32_t)ip_size(w) - 20;

	world_join(w, w->family, &spaces_plain);
	send_size(w, 3500, fits);
	lab_check(world_forwarded(w, WIRE_PEER),
		  "%s: a super-packet of fitting segments", name);
	send_size(w, 3500, fits + 1);
	lab_check(tells(w, WIRE_CLIENT, 1400, 2003480 - (uint32_t)ip_size(w),
			1401, WIRE_COUNT_TOO_BIG_SENT),
		  "%s: of segments a byte too long", name);
}

/* What may be told: to the client, a possible size, of what is under way. */
static bool tells_sense(struct world *w)
{
	const struct wire_leg *to = &w->pair.leg[WIRE_CLIENT];
	bool v4 = w->family == AF_INET;
	uint8_t *ip = w->out.data + HEAD_L3, *icmp = frame_l4(&w->out);
	uint32_t seq = frame_get32(icmp + 8 + ip_size(w) + 4);

	return frame_right(&w->out) &&
	       w->moved[WIRE_COUNT_TOO_BIG_TRANSLATED] == 1 &&
	       !memcmp(ip + (v4 ? 16 : 24), to->remote, v4 ? 4 : 16) &&
	       frame_get32(icmp + 4) >= (v4 ? 68 : 1280) &&
	       seq - 2000000u < 10000;
}

/* Bits of both headers changed at random, the sums mended or not, lengths moved. */
static void test_random(struct world *w)
{
	const size_t head = 2 * ip_size(w) + 16;
	unsigned int told = 0, wrong = 0;

	srandom(13);
	join(w);
	for (int i = 0; i < 500; i++) {
		struct frame *in = &w->in;

		message(w, WIRE_PEER, 1300, 2999000 + random() % 12000,
			8 + (size_t)random() % 100);
		for (long changes = random() % 3; changes; changes--)
			in->data[HEAD_L3 + random() % (long)head] ^=
				(uint8_t)(1 << random() % 8);
		if (random() % 8 == 0)
			in->size += (size_t)random() % 9 - 4;
		if (random() % 4 && frame_l4_size(in) < 300)
			frame_mend(in);
		world_in(w);
		told += w->verdict == TC_ACT_REDIRECT;
		if (w->verdict == TC_ACT_REDIRECT)
			wrong += !tells_sense(w);
		else if (w->verdict == TC_ACT_UNSPEC)
			wrong += !world_up(w);
		else
			wrong += w->verdict != TC_ACT_SHOT;
	}
	lab_check(!wrong && told,
		  "%s: of odd messages only what has sense is told (%u)",
		  family_name(w), told);
}

int main(void)
{
	struct world w;

	world_open(&w);
	lab_run("ip route add 192.0.2.0/24 dev vp");
	while (world_next_family(&w)) {
		test_translated(&w);
		test_random(&w);
		test_foreign(&w);
		test_states(&w);
	}
	lab_run("ip link set vp mtu 1400");
	while (world_next_family(&w)) {
		test_told(&w);
		test_super(&w);
	}
	return lab_end(&w.lab);
}
