/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wire_ingress on a long walk of segments of a joined pair that no TCP would send, near
 * what it would: whatever comes, what is forwarded is whole and right, and what the pair
 * knows moves in one direction only and stays within what both ends have said.
 */
#include "wire_packet.h"

#define STEPS 1500

static uint32_t pick(const uint32_t *from, size_t count)
{
	return from[(size_t)random() % count];
}

/* By how much a number is off. */
static uint32_t off(void)
{
	static const uint32_t by[] = {
		0,      0,        0,       0,        1,        -1u,
		7,      -100u,    1000,    65535,    -65536u,  99999,
		100000, -100000u, 1 << 20, 1u << 30, 1u << 31, -(1u << 30),
	};

	return pick(by, sizeof(by) / sizeof(by[0]));
}

static uint8_t flags(void)
{
	static const uint32_t of[] = {
		ACK, ACK,       ACK | PSH, ACK | PSH, ACK, ACK | URG, ACK | FIN,
		RST, RST | ACK, SYN,       SYN | ACK, FIN, 0,         FIN | RST
	};

	return (uint8_t)pick(of, random() % 8 ? 6 : sizeof(of) / sizeof(of[0]));
}

/* Timestamps as agreed, or anything. */
static size_t options(uint8_t to[40], const struct wire_leg *leg)
{
	size_t size = (size_t)(random() % 11) * 4;

	if (random() % 4) {
		frame_put32(to, 0x0101080a);
		frame_put32(to + 4, leg->tsval - leg->tsval_delta +
					    (random() % 4 ? 1 : off() / 2));
		frame_put32(to + 8, (uint32_t)random());
		return 12;
	}
	for (size_t i = 0; i < size; i++)
		to[i] = (uint8_t)(random() % 3 ? random() % 12 : random());
	return size;
}

/* Not behind, in a space of 32 bits. */
static bool reached(uint32_t now, uint32_t was)
{
	return (int32_t)(now - was) >= 0;
}

static bool leg_sound(const struct wire_pair *now, const struct wire_pair *was,
		      int leg)
{
	const struct wire_leg *x = &now->leg[leg], *y = &now->leg[!leg];
	const struct wire_leg *old = &was->leg[leg];

	return x->acked >= old->acked && reached(x->sent_end, old->sent_end) &&
	       reached(x->right, old->right) && x->window >= old->window &&
	       reached(x->tsval, old->tsval) &&
	       !(old->flags & ~x->flags & ~WIRE_LEG_LATCHED) &&
	       (!(old->flags & WIRE_LEG_FIN) || x->fin_end == old->fin_end) &&
	       /* Nothing is acknowledged that the other has not sent. */
	       reached(y->sent_end, (uint32_t)x->acked + x->ack_delta) &&
	       /* Nothing is sent far beyond what the other has offered. */
	       reached(y->right + 65536, x->sent_end + x->seq_delta);
}

/* What is said of the frame that was run. */
static bool frame_sound(struct world *w, const struct wire_pair *was, int leg)
{
	uint8_t out = frame_l4(&w->out)[13];

	if (w->verdict == TC_ACT_REDIRECT && w->moved[WIRE_COUNT_FORWARDED])
		return world_forwarded(w, !leg) && !(out & SYN);
	if (w->verdict == TC_ACT_REDIRECT) /* an answer to its sender */
		return frame_right(&w->out) && !(out & (SYN | RST | FIN));
	if (w->verdict == TC_ACT_UNSPEC)
		return world_up(w) || was->leg[leg].flags & WIRE_LEG_LATCHED ||
		       was->state == WIRE_ENDED;
	/* The answer is of another length: wire_packet.h. */
	if (w->verdict == FRAME_MISSUMMED)
		return w->moved[WIRE_COUNT_CHALLENGED];
	return w->verdict == TC_ACT_SHOT;
}

static void step_craft(struct world *w, int leg)
{
	struct craft c = world_craft(w, leg);
	uint8_t more[40];

	c.seq += off();
	c.ack = (random() % 2 ? c.ack :
				w->pair.leg[!leg].sent_end -
					w->pair.leg[leg].ack_delta) +
		off();
	c.flags = flags();
	c.window = (uint16_t)random();
	c.payload = (size_t)(random() % 3 ? 0 : random() % 1200);
	c.options = more;
	c.options_size = options(more, &w->pair.leg[leg]);
	frame_tcp(&w->in, &c);
	/* Not the first word: the flow label of IPv6 crosses. */
	if (random() % 8 == 0)
		w->in.data[HEAD_L3 + 4 + random() % 56] ^=
			(uint8_t)(1 << random() % 8);
	if (random() % 16 == 0)
		w->in.size += (size_t)random() % 9 - 4;
}

static void pair_begin(struct world *w)
{
	const struct spaces spaces = { (uint32_t)random() * 2,
				       (uint32_t)random() * 2,
				       (uint32_t)random() * 2,
				       (uint32_t)random() * 2 };

	world_join(w, w->family, &spaces);
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		struct wire_leg *x = &w->pair.leg[leg];

		if (random() % 3)
			continue;
		/* As if the last 48 bytes were not acknowledged yet. */
		x->acked -= 48;
		x->flags |= WIRE_LEG_LATCHED;
	}
	world_set(w);
}

static void test_walk(struct world *w)
{
	unsigned int forwarded = 0, ended = 0, wrong = 0;

	srandom(11);
	pair_begin(w);
	for (int i = 0; i < STEPS; i++) {
		const struct wire_pair was = w->pair;
		int leg = (int)(random() & 1);

		step_craft(w, leg);
		world_in(w);
		forwarded += w->moved[WIRE_COUNT_FORWARDED] != 0;
		wrong += !frame_sound(w, &was, leg);
		for (int x = 0; x < WIRE_LEGS; x++)
			wrong += !leg_sound(&w->pair, &was, x);
		if (w->pair.state == WIRE_ENDED) {
			ended++;
			if (random() % 4 == 0)
				pair_begin(w);
		} else if (w->pair.state != WIRE_JOINED) {
			wrong++;
		}
	}
	lab_check(!wrong && forwarded > STEPS / 20 && ended,
		  "%s: %d odd segments, %u of them forwarded, %u after an end",
		  family_name(w), STEPS, forwarded, ended);
}

int main(void)
{
	struct world w;

	world_open(&w);
	while (world_next_form(&w))
		test_walk(&w);
	return lab_end(&w.lab);
}
