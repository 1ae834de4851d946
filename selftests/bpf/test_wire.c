/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wire_ingress on crafted segments of a joined pair: what passes and how it
 * looks on the other side, what is dropped and how it is counted, what goes up
 * the stack. Both families, every sequence space across 2^32.
 */
#include "wire_packet.h"

static void test_translated(struct world *w)
{
	struct craft c;
	uint8_t *tcp;
	struct wire_leg *leg;

	world_join(w, w->family, &spaces_plain);
	c = world_craft(w, WIRE_CLIENT);
	c.flags = ACK | PSH;
	c.payload = 333;
	c.ack += 0;
	world_send(w, &c);
	tcp = frame_l4(&w->out);
	lab_check(world_forwarded(w, WIRE_PEER) &&
			  frame_get32(tcp + 4) == 3000000 &&
			  frame_get32(tcp + 8) == 4000000 &&
			  frame_get16(tcp + 14) == 100000 >> 5,
		  "%s: client's data becomes the peer leg's", family_name(w));
	leg = &w->pair.leg[0];
	lab_check(leg->sent_end == 2000333 && leg->packets == 1 &&
			  leg->seen_ns != 0 && leg->right == 1100000 &&
			  leg->window == 100000,
		  "%s: its sender's end is known", family_name(w));
	c = world_craft(w, WIRE_PEER);
	c.ack += 333;
	c.window = 60000;
	c.payload = 77;
	world_send(w, &c);
	tcp = frame_l4(&w->out);
	lab_check(world_forwarded(w, WIRE_CLIENT) &&
			  frame_get32(tcp + 4) == 1000000 &&
			  frame_get32(tcp + 8) == 2000333 &&
			  frame_get16(tcp + 14) == 65535,
		  "%s: peer's data and ACK come back, window at most 65535",
		  family_name(w));
	leg = &w->pair.leg[1];
	lab_check(leg->acked == 3000333 && leg->window == 60000 << 9 &&
			  leg->right == 3000333 + (60000 << 9),
		  "%s: acknowledged, window and right edge are raised",
		  family_name(w));
	c.ack -= 100;
	c.window = 1;
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_CLIENT) && leg->acked == 3000333 &&
			  leg->window == 60000 << 9 &&
			  leg->right == 3000333 + (60000 << 9) &&
			  frame_get16(frame_l4(&w->out) + 14) == 65535,
		  "%s: an older ACK lowers none of them", family_name(w));
}

/* Each space in turn, and all, so that the segment crosses a boundary. */
static void test_wraps(struct world *w)
{
	static const uint32_t edges[] = { 0xffffffb0, 0x7fffffb0 };
	bool good = true;

	for (unsigned int which = 0; which < 16; which++) {
		for (int e = 0; e < 2; e++) {
			uint32_t at[4] = { 10, 1u << 20, 1u << 31, 3u << 30 };
			struct spaces s;
			struct craft c;

			for (int i = 0; i < 4; i++)
				if (which & 1u << i)
					at[i] = edges[e];
			s = (struct spaces){ at[0], at[1], at[2], at[3] };
			world_join(w, w->family, &s);
			c = world_craft(w, WIRE_CLIENT);
			c.payload = 200;
			world_send(w, &c);
			good = good && world_forwarded(w, WIRE_PEER) &&
			       frame_get32(frame_l4(&w->out) + 4) == at[2] &&
			       frame_get32(frame_l4(&w->out) + 8) == at[3];
			c = world_craft(w, WIRE_PEER);
			c.ack += 200;
			c.payload = 150;
			world_send(w, &c);
			good = good && world_forwarded(w, WIRE_CLIENT) &&
			       frame_get32(frame_l4(&w->out) + 4) == at[0] &&
			       frame_get32(frame_l4(&w->out) + 8) ==
				       at[1] + 200 &&
			       w->pair.leg[1].acked == (uint64_t)at[2] + 200;
			c = world_craft(w, WIRE_CLIENT);
			c.ack += 150;
			world_send(w, &c);
			good = good && world_forwarded(w, WIRE_PEER) &&
			       w->pair.leg[0].acked == (uint64_t)at[0] + 150 &&
			       w->pair.leg[0].sent_end == at[1] + 200;
		}
	}
	lab_check(good, "%s: every space wraps at 2^32 and at 2^31",
		  family_name(w));
}

/* Sends c with its sequence number moved; whether it was dropped for `why`. */
static bool moved(struct world *w, struct craft c, int32_t seq, int32_t ack,
		  int why)
{
	c.seq += seq;
	c.ack += ack;
	world_join(w, w->family, &spaces_plain);
	world_send(w, &c);
	return why < 0 ? world_forwarded(w, WIRE_PEER) : world_dropped(w, why);
}

static void test_windows(struct world *w)
{
	struct craft c = world_craft(w, WIRE_CLIENT);
	const char *name = family_name(w);

	c.payload = 10;
	lab_check(moved(w, c, 100000, 0, -1) &&
			  moved(w, c, 100001, 0, WIRE_DROP_SEQUENCE),
		  "%s: a segment may begin at the right edge, not beyond",
		  name);
	lab_check(moved(w, c, -100000, 0, -1) &&
			  moved(w, c, -100001, 0, WIRE_DROP_SEQUENCE),
		  "%s: an old one may be a window old", name);
	lab_check(moved(w, c, 0, 1, WIRE_DROP_ACK) &&
			  moved(w, c, 0, 0x7fffffff, WIRE_DROP_ACK),
		  "%s: nothing unsent is acknowledged", name);
	lab_check(moved(w, c, 0, -100000, -1) &&
			  moved(w, c, 0, -100001, WIRE_DROP_ACK),
		  "%s: an ACK may be a window old", name);
	world_join(w, w->family, &spaces_plain);
	w->pair.leg[0].window = w->pair.leg[1].window = 10;
	world_set(w);
	c.seq -= 65535;
	c.ack -= 65535;
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_PEER),
		  "%s: the least window for old ones is 65535", name);
	c.seq--;
	world_send(w, &c);
	lab_check(world_dropped(w, WIRE_DROP_SEQUENCE), "%s: and no more",
		  name);
}

static void test_scales(struct world *w)
{
	static const struct {
		uint8_t in, out;
		uint16_t field, result;
		uint32_t most; /* ever offered */
	} cases[] = {
		{ 0, 0, 1234, 1234, 0 },
		{ 14, 14, 65535, 65535, 0 },
		{ 14, 0, 4, 65535, 0 },
		{ 14, 0, 3, 49152, 0 },
		{ 3, 0, 0, 0, 0 },
		{ 0, 10, 0, 0, 0 },
		/* Down: at most 1024, of a receiver that has more. */
		{ 0, 7, 100, 0, 256 },
		{ 0, 1, 65535, 32767, 65535 },
		{ 0, 10, 1023, 0, 2048 },
		{ 0, 10, 1024, 1, 2048 },
		{ 0, 10, 2047, 1, 2048 },
		{ 0, 10, 65535, 63, 65535 },
		/* Up: more than that, and of one that has little. */
		{ 0, 11, 2049, 2, 65535 },
		{ 0, 14, 65535, 4, 65535 },
		{ 0, 7, 100, 1, 255 },
		{ 0, 10, 1, 1, 2047 },
		{ 0, 10, 1025, 2, 2047 },
	};
	bool good = true;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct craft c;

		world_join(w, w->family, &spaces_plain);
		w->pair.leg[0].window_shift_in = cases[i].in;
		w->pair.leg[1].window_shift_out = cases[i].out;
		w->pair.leg[0].right = (uint32_t)w->pair.leg[0].acked;
		w->pair.leg[0].window = cases[i].most;
		world_set(w);
		c = world_craft(w, WIRE_CLIENT);
		c.window = cases[i].field;
		world_send(w, &c);
		good = good && world_forwarded(w, WIRE_PEER) &&
		       frame_get16(frame_l4(&w->out) + 14) == cases[i].result;
	}
	lab_check(good, "%s: windows from scale to scale", family_name(w));
}

/* The right edge that the peer sees when the client has received `ack`. */
static uint32_t edge(struct world *w, uint32_t ack, uint16_t window)
{
	uint8_t *tcp = frame_l4(&w->out),
		scale = w->pair.leg[1].window_shift_out;
	struct craft c = world_craft(w, WIRE_CLIENT);

	c.ack = ack;
	c.window = window;
	world_send(w, &c);
	if (!world_forwarded(w, WIRE_PEER))
		return 0;
	return frame_get32(tcp + 8) +
	       ((uint32_t)frame_get16(tcp + 14) << scale);
}

/* Whether none is shown below `least` or beyond `most` while it fills up. */
static bool edges(struct world *w, uint8_t scale, uint32_t least, uint32_t most)
{
	bool good = true;

	world_join(w, w->family, &spaces_plain);
	w->pair.leg[0].window_shift_in = 0;
	w->pair.leg[1].window_shift_out = scale;
	w->pair.leg[0].right = 1050000;
	/* All that is acknowledged below was sent. */
	w->pair.leg[1].sent_end += 60000;
	world_set(w);
	for (uint32_t ack = 1000000; ack < 1050000; ack += 777) {
		uint32_t shown = edge(w, ack, (uint16_t)(1050000 - ack));

		good = good && shown >= least && shown <= most;
	}
	return good && edge(w, 1050000, 0) == 4050000;
}

/* A fine scale into a coarse one, acknowledged piece by piece until it is full. */
static void test_edges(struct world *w)
{
	const char *name = family_name(w);
	struct craft c;

	lab_check(edges(w, 10, 4050000 - 1023, 4050000),
		  "%s: nothing is shown that was not offered", name);
	lab_check(edges(w, 11, 4050000, 4050000 + 2047),
		  "%s: but in a coarse scale, where nothing less is", name);
	world_join(w, w->family, &spaces_plain);
	c = world_craft(w, WIRE_CLIENT);
	/* The client reads windows in units of 256. */
	c.seq += 100000 + 255;
	world_send(w, &c);
	lab_check(w->verdict == TC_ACT_REDIRECT && frame_right(&w->out) &&
			  frame_get32(frame_l4(&w->out) + 4) == 3100000,
		  "%s: an ACK numbered beyond the edge is put on it", name);
	c.seq++;
	world_send(w, &c);
	lab_check(world_dropped(w, WIRE_DROP_SEQUENCE),
		  "%s: one unit beyond, nothing was offered", name);
}

/* The number on the peer's side of an ACK numbered `back` before its sender's end. */
static uint32_t numbered(struct world *w, uint32_t back, uint32_t unacked,
			 size_t payload)
{
	struct craft c;

	world_join(w, w->family, &spaces_plain);
	w->pair.leg[0].sent_end += 5000;
	w->pair.leg[1].acked += 5000 - unacked;
	world_set(w);
	c = world_craft(w, WIRE_CLIENT);
	c.seq -= back;
	c.payload = payload;
	world_send(w, &c);
	return w->verdict == TC_ACT_REDIRECT && frame_right(&w->out) ?
		       frame_get32(frame_l4(&w->out) + 4) :
		       0;
}

/* The client reads windows in units of 256, so its numbers may go back by 511. */
static void test_numbers(struct world *w)
{
	const char *name = family_name(w);
	struct craft c;

	lab_check(numbered(w, 0, 0, 0) == 3005000 &&
			  numbered(w, 2, 0, 0) == 3005000 &&
			  numbered(w, 511, 0, 0) == 3005000 &&
			  numbered(w, 511, 400, 0) == 3005000 &&
			  numbered(w, 1, 1, 0) == 3005000,
		  "%s: an ACK numbered low by a window's rounding is raised",
		  name);
	lab_check(numbered(w, 512, 0, 0) == 3005000 - 512 &&
			  numbered(w, 2, 0, 2) == 3005000 - 2,
		  "%s: nothing older, nothing with payload", name);
	lab_check(numbered(w, 1, 0, 0) == 3005000 - 1,
		  "%s: a probe stays what it is", name);
	world_join(w, w->family, &spaces_plain);
	w->pair.leg[0].sent_end += 100001;
	world_set(w);
	c = world_craft(w, WIRE_CLIENT);
	c.seq -= 200;
	world_send(w, &c);
	lab_check(w->verdict == TC_ACT_REDIRECT &&
			  frame_get32(frame_l4(&w->out) + 4) == 3099801,
		  "%s: none is put beyond the window", name);
}

static bool flagged(struct world *w, uint8_t flags, int why)
{
	struct craft c = world_craft(w, WIRE_CLIENT);

	world_join(w, w->family, &spaces_plain);
	c.flags = flags;
	world_send(w, &c);
	return why < 0 ? world_forwarded(w, WIRE_PEER) : world_dropped(w, why);
}

static void test_flags(struct world *w)
{
	const char *name = family_name(w);

	lab_check(flagged(w, 0, WIRE_DROP_FLAGS) &&
			  flagged(w, PSH, WIRE_DROP_FLAGS) &&
			  flagged(w, FIN, WIRE_DROP_FLAGS),
		  "%s: without ACK nothing passes", name);
	lab_check(flagged(w, SYN | FIN | ACK, WIRE_DROP_FLAGS) &&
			  flagged(w, SYN | RST, WIRE_DROP_FLAGS) &&
			  flagged(w, FIN | RST | ACK, WIRE_DROP_FLAGS),
		  "%s: senseless combinations", name);
	lab_check(flagged(w, ACK | URG | PSH, -1), "%s: urgent passes", name);
}

static void test_states(struct world *w)
{
	const char *name = family_name(w);
	bool others = true;
	struct craft c;

	world_join(w, w->family, &spaces_plain);
	c = world_craft(w, WIRE_CLIENT);
	c.payload = 10;
	w->pair.state = WIRE_JOINING;
	world_set(w);
	world_send(w, &c);
	lab_check(world_up(w), "%s: while joining, up the stack", name);
	w->pair.state = WIRE_FREE;
	world_set(w);
	world_send(w, &c);
	lab_check(world_up(w), "%s: a free place's flows are none", name);
	w->pair.state = WIRE_JOINED;
	for (size_t i = 0; i < offsetof(struct wire_leg, seq_delta); i++) {
		((uint8_t *)&w->pair.leg[0])[i] ^= 0x80;
		world_set(w);
		world_send(w, &c);
		others = others && world_up(w);
		((uint8_t *)&w->pair.leg[0])[i] ^= 0x80;
	}
	lab_check(others, "%s: a place that is another pair's by now", name);
	w->pair.state = WIRE_ENDED;
	world_set(w);
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_PEER), "%s: ended pairs forward",
		  name);
	c.from_port++;
	world_send(w, &c);
	lab_check(world_up(w), "%s: another tuple goes up the stack", name);
	c.from_port--;
	c.flags = SYN | ACK;
	world_send(w, &c);
	lab_check(world_dropped(w, WIRE_DROP_SYN), "%s: no SYN that answers",
		  name);
	c.flags = SYN;
	world_send(w, &c);
	lab_check(world_up(w), "%s: a SYN on an ended pair, too", name);
	c.flags = ACK;
	world_send(w, &c);
	lab_check(world_up(w), "%s: and what follows it", name);
	world_join(w, w->family, &spaces_plain);
	w->pair.expires_ns = 1;
	world_set(w);
	world_send(w, &c);
	lab_check(world_dropped(w, WIRE_DROP_EXPIRED), "%s: expired", name);
	w->pair.expires_ns = UINT64_MAX;
	world_set(w);
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_PEER), "%s: not yet expired", name);
	frame_tcp(&w->in, &c);
	w->in.data[0] = 2;
	world_in(w);
	lab_check(world_up(w), "%s: a frame for another host", name);
}

static void test_lengths(struct world *w)
{
	const char *name = family_name(w);
	bool good = true;
	struct craft c;
	uint8_t *ip;
	size_t whole;

	world_join(w, w->family, &spaces_plain);
	c = world_craft(w, WIRE_CLIENT);
	c.payload = 3;
	frame_tcp(&w->in, &c);
	whole = w->in.size;
	/* A test run takes no less. */
	for (w->in.size = HEAD_L3 + 40; w->in.size < whole; w->in.size++) {
		world_in(w);
		good = good && (w->verdict == TC_ACT_UNSPEC ||
				world_dropped(w, WIRE_DROP_HEADER));
	}
	lab_check(good, "%s: a frame cut anywhere never passes", name);
	world_send(w, &c);
	w->in.size += 9;
	world_in(w);
	lab_check(world_forwarded(w, WIRE_PEER), "%s: padding passes", name);
	for (int offset = 0; offset < 16; offset++) {
		frame_tcp(&w->in, &c);
		frame_l4(&w->in)[12] = (uint8_t)(offset << 4);
		frame_mend(&w->in);
		world_in(w);
		good = good &&
		       (offset == 5 ? world_forwarded(w, WIRE_PEER) :
				      world_dropped(w, WIRE_DROP_HEADER));
	}
	lab_check(good, "%s: a wrong data offset", name);
	frame_tcp(&w->in, &c);
	ip = w->in.data + HEAD_L3;
	frame_put16(ip + (w->family == AF_INET ? 2 : 4), 19);
	world_in(w);
	lab_check(world_dropped(w, WIRE_DROP_HEADER),
		  "%s: a length below the headers", name);
}

static void test_ipv4_header(struct world *w)
{
	uint8_t *ip = w->in.data + HEAD_L3;
	struct craft c;

	world_join(w, AF_INET, &spaces_plain);
	c = world_craft(w, WIRE_CLIENT);
	c.payload = 30;
	frame_tcp(&w->in, &c);
	ip[10] ^= 1;
	world_in(w);
	lab_check(world_dropped(w, WIRE_DROP_HEADER), "IPv4: wrong checksum");
	frame_tcp(&w->in, &c);
	frame_put16(ip + 6, 0x2000);
	frame_mend(&w->in);
	world_in(w);
	lab_check(world_dropped(w, WIRE_DROP_FRAGMENT), "IPv4: first fragment");
	frame_put16(ip + 6, 5);
	frame_mend(&w->in);
	world_in(w);
	lab_check(world_up(w), "IPv4: a later fragment is nobody's");
	frame_tcp(&w->in, &c);
	memmove(ip + 24, ip + 20, 50);
	memset(ip + 20, 1, 4);
	ip[0] = 0x46;
	frame_put16(ip + 2, 74);
	w->in.size += 4;
	world_in(w);
	lab_check(world_dropped(w, WIRE_DROP_HEADER), "IPv4: IP options");
	frame_tcp(&w->in, &c);
	ip[9] = IPPROTO_UDP;
	world_in(w);
	lab_check(world_up(w), "IPv4: UDP");
	frame_tcp(&w->in, &c);
	ip[0] = 0x65;
	world_in(w);
	lab_check(world_up(w), "IPv4: another version");
}

/* Puts `size` bytes of extension headers, 8 for each of `kinds`, before TCP. */
static void extend(struct world *w, const struct craft *c, const uint8_t *kinds,
		   size_t count, uint16_t fragment)
{
	uint8_t *ip = w->in.data + HEAD_L3;
	size_t size = 8 * count;

	frame_tcp(&w->in, c);
	memmove(ip + 40 + size, ip + 40, w->in.size - HEAD_L3 - 40);
	memset(ip + 40, 0, size);
	ip[6] = kinds[0];
	for (size_t i = 0; i < count; i++) {
		uint8_t *at = ip + 40 + 8 * i;

		at[0] = i + 1 < count ? kinds[i + 1] : IPPROTO_TCP;
		if (kinds[i] == 44)
			frame_put16(at + 2, fragment);
	}
	frame_put16(ip + 4, (uint16_t)(frame_get16(ip + 4) + size));
	w->in.size += size;
	world_in(w);
}

static void test_ipv6_header(struct world *w)
{
	static const uint8_t hop[] = { 0 }, chain[] = { 0, 60, 43, 60 },
			     first[] = { 60, 44 },
			     long_chain[] = { 60, 60, 60, 60, 60 },
			     unknown[] = { 135 }, auth[] = { 51 };
	struct craft c;

	world_join(w, AF_INET6, &spaces_plain);
	c = world_craft(w, WIRE_CLIENT);
	c.payload = 30;
	extend(w, &c, hop, 1, 0);
	lab_check(world_dropped(w, WIRE_DROP_HEADER),
		  "IPv6: hop-by-hop options");
	extend(w, &c, chain, 4, 0);
	lab_check(world_dropped(w, WIRE_DROP_HEADER), "IPv6: four extensions");
	extend(w, &c, first, 2, 1);
	lab_check(world_dropped(w, WIRE_DROP_FRAGMENT), "IPv6: first fragment");
	extend(w, &c, first, 2, 9 << 3);
	lab_check(world_up(w), "IPv6: a later fragment is nobody's");
	extend(w, &c, long_chain, 5, 0);
	lab_check(world_up(w), "IPv6: a longer chain is nobody's");
	extend(w, &c, unknown, 1, 0);
	lab_check(world_up(w), "IPv6: an extension unknown");
	extend(w, &c, auth, 1, 0);
	lab_check(world_dropped(w, WIRE_DROP_HEADER), "IPv6: authentication");
}

/* Lengths that their fields cannot hold, as GRO makes them of many segments. */
static void test_jumbo(struct world *w)
{
	static const uint8_t hop[] = {
		IPPROTO_TCP, 0, 0xc2, 4, 0, 1, 0x23, 0x45
	};
	struct __sk_buff ctx = { .gso_size = 1000, .gso_segs = 3 };
	uint8_t *ip = w->in.data + HEAD_L3, *tcp = w->out.data + HEAD_L3 + 48;
	struct craft c;

	world_join(w, w->family, &spaces_plain);
	c = world_craft(w, WIRE_CLIENT);
	c.payload = 3000;
	frame_tcp(&w->in, &c);
	frame_put16(ip + (w->family == AF_INET ? 2 : 4), 0);
	if (w->family == AF_INET) {
		frame_put16(ip + 10, 0);
		frame_put16(ip + 10, (uint16_t)~frame_sum(ip, 20, 0));
	}
	world_run(w, w->lab.wire->progs.wire_ingress, &ctx);
	lab_check(w->verdict == TC_ACT_REDIRECT &&
			  world_counted(w, WIRE_COUNT_FORWARDED) &&
			  w->pair.leg[0].sent_end == 2003000,
		  "%s: a super-packet without a length", family_name(w));
	world_in(w);
	lab_check(world_dropped(w, WIRE_DROP_HEADER),
		  "%s: but no packet from the wire", family_name(w));
	if (w->family == AF_INET)
		return;
	world_join(w, w->family, &spaces_plain);
	memmove(ip + 48, ip + 40, w->in.size - HEAD_L3 - 40);
	memcpy(ip + 40, hop, 8);
	ip[6] = 0;
	w->in.size += 8;
	world_run(w, w->lab.wire->progs.wire_ingress, &ctx);
	lab_check(w->verdict == TC_ACT_REDIRECT &&
			  world_counted(w, WIRE_COUNT_FORWARDED) &&
			  w->pair.leg[0].sent_end == 2003000 &&
			  frame_get16(tcp + 2) == 5000,
		  "IPv6: a super-packet with a jumbo length");
	world_in(w);
	lab_check(world_dropped(w, WIRE_DROP_HEADER),
		  "IPv6: but no packet from the wire");
}

/* What is wrong with the TCP checksum, 0 when it is right. */
static uint32_t checksum_fault(struct frame *f)
{
	size_t size = frame_l4_size(f);
	uint32_t sum = frame_pseudo(f, size, IPPROTO_TCP);

	return frame_sum(frame_l4(f), size, sum) % 0xffff;
}

/*
 * Frames with a few bytes changed by chance: none passes whose checksum tells,
 * and none that does not pass moves the state of the pair.
 */
static void test_damaged(struct world *w)
{
	static const uint8_t options[] = { 1,  1,   8, 10, 0,   9,
					   39, 192, 0, 7,  161, 32 };
	int passed = 0, dropped = 0, other = 0;
	uint32_t state = 4711;
	struct wire_pair joined;

	for (int round = 0; round < 5000; round++) {
		struct craft c;

		world_join(w, w->family, &spaces_plain);
		joined = w->pair;
		c = world_craft(w, WIRE_CLIENT);
		c.payload = 17;
		c.options = options;
		c.options_size = sizeof(options);
		frame_tcp(&w->in, &c);
		for (int i = 0; i <= round % 3; i++) {
			state = state * 1664525 + 1013904223;
			w->in.data[HEAD_L3 +
				   (state >> 8) % (w->in.size - HEAD_L3)] ^=
				(uint8_t)(state >> 24);
		}
		world_in(w);
		if (w->verdict == TC_ACT_REDIRECT &&
		    world_counted(w, WIRE_COUNT_FORWARDED) &&
		    !checksum_fault(&w->in) && !checksum_fault(&w->out))
			passed++;
		else if ((w->verdict == TC_ACT_SHOT || world_up(w)) &&
			 !memcmp(&w->pair, &joined, sizeof(joined)))
			dropped++;
		else
			other++;
	}
	lab_check(!other && passed < 500 && dropped > 4500,
		  "%s: 5000 damaged frames: only harmless ones pass (%d)",
		  family_name(w), passed);
}

/* One segment in the form a device leaves it, then with a wrong checksum. */
static void test_checksums(struct world *w)
{
	static const size_t sizes[] = { 0, 1, 491, 492, 493, 1440, 3001 };
	const char *name = family_name(w);
	struct __sk_buff ctx = { .gso_size = 1000, .gso_segs = 2 };
	bool whole = true, wrong = true, partial = true;
	struct wire_pair joined;
	struct craft c;

	lab_run("ip link set vp mtu 4000");
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		world_join(w, w->family, &spaces_plain);
		joined = w->pair;
		c = world_craft(w, WIRE_CLIENT);
		c.payload = sizes[i];
		c.flags = ACK | FIN;
		frame_tcp(&w->in, &c);
		w->in.data[w->in.size - (sizes[i] ? 1 : 2)] ^= 1;
		world_in(w);
		wrong = wrong && world_dropped(w, WIRE_DROP_HEADER) &&
			!memcmp(&w->pair, &joined, sizeof(joined));
		frame_tcp(&w->in, &c);
		world_in(w);
		whole = whole && world_forwarded(w, WIRE_PEER);
		frame_put16(frame_l4(&w->in) + 16,
			    (uint16_t)frame_pseudo(&w->in,
						   frame_l4_size(&w->in),
						   IPPROTO_TCP));
		world_in(w);
		partial = partial &&
			  (w->summed ? world_dropped(w, WIRE_DROP_HEADER) :
				       w->verdict == TC_ACT_REDIRECT);
	}
	lab_check(wrong, "%s: wrong checksums pass nowhere, move nothing",
		  name);
	lab_check(whole, "%s: right ones pass at every length", name);
	lab_check(partial,
		  w->summed ? "%s: half a one is a wrong one" :
			      "%s: nor is one missed that a device completes",
		  name);
	c.payload = 2000;
	c.flags = ACK;
	world_join(w, w->family, &spaces_plain);
	frame_tcp(&w->in, &c);
	w->in.data[w->in.size - 1] ^= 1;
	world_run(w, w->lab.wire->progs.wire_ingress, &ctx);
	lab_check(w->verdict == TC_ACT_REDIRECT,
		  "%s: a super-packet's were looked at before", name);
	lab_run("ip link set vp mtu 1500");
}

static bool forwarded_again(struct world *w)
{
	struct craft c;

	world_join(w, w->family, &spaces_plain);
	c = world_craft(w, WIRE_CLIENT);
	world_send(w, &c);
	return world_forwarded(w, WIRE_PEER);
}

/* The lookup is that of a packet of this host: rules by source count. */
static void test_routes(struct world *w)
{
	const char *name = family_name(w),
		   *v = w->family == AF_INET ? "" : "-6";
	const char *local = w->family == AF_INET ? "10.2.0.1" : "fd02::1";
	const char *remote = w->family == AF_INET ? "10.2.0.2" : "fd02::2";

	lab_run("ip %s rule add from %s lookup 77 pref 10", v, local);
	lab_run("ip %s route add unreachable default table 77", v);
	lab_check(!forwarded_again(w) && world_dropped(w, WIRE_DROP_ROUTE),
		  "%s: a rule by source without a route", name);
	lab_run("ip %s route replace default dev vp table 77", v);
	lab_check(forwarded_again(w), "%s: and with one", name);
	lab_run("ip %s rule del pref 10", v);
	lab_run("ip %s route flush table 77", v);
	lab_run("ip %s route add blackhole %s table main", v, remote);
	lab_check(!forwarded_again(w) && world_dropped(w, WIRE_DROP_ROUTE),
		  "%s: a blackhole", name);
	lab_run("ip %s route del blackhole %s", v, remote);
	lab_run("ip addr add %s dev vc %s", remote,
		w->family == AF_INET ? "" : "nodad");
	/* The kernel may still be at it: for IPv6 a work queue does that. */
	lab_run("timeout 5 sh -c 'until ip %s route show table local %s |"
		" grep -q .; do :; done'",
		v, remote);
	lab_check(!forwarded_again(w) && world_dropped(w, WIRE_DROP_ROUTE),
		  "%s: back to this host", name);
	lab_run("ip %s addr del %s/%d dev vc", v, remote,
		w->family == AF_INET ? 32 : 128);
	lab_check(forwarded_again(w), "%s: the route is back", name);
}

int main(void)
{
	struct world w;

	world_open(&w);
	while (world_next_form(&w)) {
		test_translated(&w);
		test_wraps(&w);
		world_join(&w, w.family, &spaces_plain);
		test_windows(&w);
		test_scales(&w);
		test_edges(&w);
		test_numbers(&w);
		test_flags(&w);
		test_states(&w);
		test_lengths(&w);
		test_jumbo(&w);
		test_damaged(&w);
		test_checksums(&w);
		test_routes(&w);
	}
	test_ipv4_header(&w);
	test_ipv6_header(&w);
	return lab_end(&w.lab);
}
