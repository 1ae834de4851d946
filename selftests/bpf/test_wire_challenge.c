/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Resets in the window that are not exact, and SYNs: none crosses, its sender is
 * asked by an acknowledgement, seldom enough, and the answer of one who has no
 * connection any more is exact.
 */
#include "wire_packet.h"

/* The client's 5000 bytes are under way, of the peer's 700 all have passed. */
static struct craft reset(struct world *w, int32_t offset)
{
	struct craft c;

	world_join(w, w->family, &spaces_plain);
	w->pair.leg[0].sent_end += 5000;
	w->pair.leg[1].sent_end += 700;
	world_set(w);
	c = world_craft(w, WIRE_CLIENT);
	c.seq = 2000000 + (uint32_t)offset;
	c.ack = 0;
	c.flags = RST;
	return c;
}

/* Whether w->out asks the client as the peer would, with these 12 option bytes. */
static bool asked(struct world *w, uint32_t why, const uint8_t *options)
{
	const struct wire_leg *to = &w->pair.leg[0];
	bool v4 = w->family == AF_INET;
	size_t at = v4 ? 12 : 8, size = v4 ? 4 : 16;
	uint8_t *ip = w->out.data + HEAD_L3, *tcp = frame_l4(&w->out);

	if (w->verdict != TC_ACT_REDIRECT || !frame_right(&w->out) ||
	    w->moved[why] != 1 || w->moved[WIRE_COUNT_CHALLENGED] != 1 ||
	    w->moved[WIRE_COUNT_FORWARDED] ||
	    w->out.size != HEAD_L3 + at + 2 * size + 32)
		return false;
	if (memcmp(ip + at, to->local, size) ||
	    memcmp(ip + at + size, to->remote, size) || ip[v4 ? 8 : 7] != 64 ||
	    memcmp(tcp, &to->local_port, 2) ||
	    memcmp(tcp + 2, &to->remote_port, 2))
		return false;
	return frame_get32(tcp + 4) == 1000700 &&
	       frame_get32(tcp + 8) == 2000000 && tcp[12] == 8 << 4 &&
	       tcp[13] == ACK && frame_get16(tcp + 14) == 100000 >> 8 &&
	       !memcmp(tcp + 20, options, 12);
}

/* 500000: the last TSval that the client was sent, 600000: the last it sent. */
static const uint8_t stamps[] = { 1, 1, 8, 10, 0, 7, 161, 32, 0, 9, 39, 192 };

static bool asks(struct world *w, const uint8_t *options)
{
	return asked(w, WIRE_DROP_RESET, options);
}

static bool unmoved(const struct world *w)
{
	const struct wire_leg *leg = w->pair.leg;

	return w->pair.state == WIRE_JOINED && !leg[0].packets &&
	       leg[0].acked == 1000000 && leg[0].sent_end == 2005000 &&
	       !leg[0].seen_ns && leg[1].acked == 3000000;
}

static void test_numbers(struct world *w)
{
	/* The peer has acknowledged 0, its window ends at 100000. */
	static const int32_t in[] = { 1, 4999, 5001, 100000, 100000 + 255 },
			     silent[] = { -1, -65535, 100000 + 256, 1 << 30,
					  INT32_MIN };
	const char *name = family_name(w);

	for (size_t i = 0; i < sizeof(in) / sizeof(in[0]); i++) {
		struct craft c = reset(w, in[i]);

		world_send(w, &c);
		lab_check(asks(w, stamps) && unmoved(w),
			  "%s: a reset at %d is asked about", name, in[i]);
	}
	for (size_t i = 0; i < sizeof(silent) / sizeof(silent[0]); i++) {
		struct craft c = reset(w, silent[i]);

		world_send(w, &c);
		lab_check(world_dropped(w, WIRE_DROP_RESET) && unmoved(w),
			  "%s: one at %d is not", name, silent[i]);
	}
}

/* Whatever it was made of, the answer is whole. */
static void test_forms(struct world *w)
{
	const char *name = family_name(w);
	bool good = true;

	for (size_t payload = 0; payload < 1400; payload += 93) {
		struct craft c = reset(w, 1000);

		c.payload = payload;
		c.flags = RST | ACK;
		c.ack = 1000000 + (uint32_t)payload;
		world_send(w, &c);
		good = good && asks(w, stamps);
		c.options = stamps;
		c.options_size = sizeof(stamps);
		w->pair.leg[0].challenged_ns = 0;
		world_set(w);
		world_send(w, &c);
		good = good && asks(w, stamps);
	}
	lab_check(good, "%s: resets of every length", name);
}

static void test_syns(struct world *w)
{
	static const int32_t offsets[] = { 0, 1, -1, 1 << 30, INT32_MIN };
	const char *name = family_name(w);
	bool good = true;

	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++)
		for (int answer = 0; answer <= 1; answer++) {
			struct craft c = reset(w, offsets[i]);

			c.flags = answer ? SYN | ACK : SYN;
			world_send(w, &c);
			good = good && asked(w, WIRE_DROP_SYN, stamps) &&
			       unmoved(w);
			world_send(w, &c);
			good = good && world_dropped(w, WIRE_DROP_SYN);
		}
	lab_check(good, "%s: a SYN wherever it is numbered", name);
}

static void test_plain(struct world *w)
{
	const char *name = family_name(w);
	struct craft c = reset(w, 1000);

	for (int i = 0; i < WIRE_LEGS; i++)
		w->pair.leg[i].flags &= ~WIRE_LEG_TIMESTAMPS;
	world_set(w);
	world_send(w, &c);
	lab_check(asks(w, (const uint8_t *)"\1\1\1\1\1\1\1\1\1\1\1\1"),
		  "%s: without timestamps there are none", name);
}

static void test_seldom(struct world *w)
{
	const char *name = family_name(w);
	struct craft c = reset(w, 1000);

	world_send(w, &c);
	lab_check(asks(w, stamps) && w->pair.leg[0].challenged_ns &&
			  !w->pair.leg[0].told_ns,
		  "%s: it is asked", name);
	world_send(w, &c);
	lab_check(world_dropped(w, WIRE_DROP_RESET), "%s: not at once again",
		  name);
	w->pair.leg[0].challenged_ns = 1;
	world_set(w);
	world_send(w, &c);
	lab_check(asks(w, stamps), "%s: but some time after", name);
	c = reset(w, 1000);
	w->pair.state = WIRE_ENDED;
	world_set(w);
	world_send(w, &c);
	lab_check(world_dropped(w, WIRE_DROP_RESET), "%s: no more when ended",
		  name);
}

/* RFC 9293 section 3.5.2: at the number that the acknowledgement had. */
static void test_answer(struct world *w)
{
	const char *name = family_name(w);
	struct craft c = reset(w, 90000);

	/* The relay's own last bytes are not all there, which changes nothing. */
	w->pair.leg[1].latch += 300;
	w->pair.leg[1].flags |= WIRE_LEG_LATCHED;
	world_set(w);
	world_send(w, &c);
	lab_check(asks(w, stamps), "%s: lost bytes before a reset", name);
	c.seq = frame_get32(frame_l4(&w->out) + 8);
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_PEER) &&
			  frame_get32(frame_l4(&w->out) + 4) == 3000000 &&
			  w->pair.state == WIRE_ENDED &&
			  w->pair.end == WIRE_END_RESET_CLIENT,
		  "%s: the answer of a closed end resets the pair", name);
}

int main(void)
{
	struct world w;

	world_open(&w);
	while (world_next_family(&w)) {
		test_numbers(&w);
		test_forms(&w);
		test_syns(&w);
		test_plain(&w);
		test_seldom(&w);
		test_answer(&w);
	}
	return lab_end(&w.lab);
}
