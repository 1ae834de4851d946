/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TCP options through wire_ingress: timestamps and SACK edges move, wherever
 * they stand; what was not agreed is blanked; what is malformed is dropped.
 */
#include "wire_packet.h"

#define OPTIONS_MOST 40

struct options {
	uint8_t bytes[OPTIONS_MOST];
	size_t size;
};

static void put(struct options *o, uint8_t byte)
{
	if (o->size < OPTIONS_MOST)
		o->bytes[o->size++] = byte;
}

static void put32(struct options *o, uint32_t value)
{
	for (int shift = 24; shift >= 0; shift -= 8)
		put(o, (uint8_t)(value >> shift));
}

static void put_timestamps(struct options *o, uint32_t value, uint32_t echo)
{
	put(o, 8);
	put(o, 10);
	put32(o, value);
	put32(o, echo);
}

static void put_sack(struct options *o, int blocks, uint32_t first)
{
	put(o, 5);
	put(o, (uint8_t)(2 + 8 * blocks));
	for (int i = 0; i < 2 * blocks; i++)
		put32(o, first + 1000u * (uint32_t)i);
}

/* No-operations up to a multiple of 4. */
static void pad(struct options *o)
{
	while (o->size & 3)
		put(o, 1);
}

/* Sends a client's segment with these options. */
static void send_options(struct world *w, const struct options *o,
			 uint8_t flags)
{
	struct craft c = world_craft(w, WIRE_CLIENT);

	c.flags = flags;
	c.options = o->bytes;
	c.options_size = o->size;
	c.payload = 11;
	world_send(w, &c);
}

/* Whether it was forwarded with exactly these. */
static bool came(struct world *w, const struct options *o)
{
	return world_forwarded(w, WIRE_PEER) &&
	       !memcmp(frame_l4(&w->out) + 20, o->bytes, o->size);
}

/* By the deltas of world_join(): peer's clock and client's, in their order. */
#define VALUE(ts) ((ts) + 700000 - 600000)
#define ECHO(ts)  ((ts) + 800000 - 500000)
#define EDGE(seq) ((seq) + 4000000 - 1000000)

static void test_layouts(struct world *w)
{
	bool usual = true, odd = true;

	for (int before = 0; before < 8; before++) {
		struct options in = { .size = 0 }, out = { .size = 0 };

		for (int i = 0; i < before; i++) {
			put(&in, 1);
			put(&out, 1);
		}
		put_timestamps(&in, 0xfffffff0, 500010);
		put_timestamps(&out, VALUE(0xfffffff0), ECHO(500010));
		pad(&in);
		pad(&out);
		world_join(w, w->family, &spaces_plain);
		send_options(w, &in, ACK);
		if (before == 2)
			usual = came(w, &out);
		else
			odd = odd && came(w, &out);
	}
	lab_check(usual, "%s: timestamps as usual", family_name(w));
	lab_check(odd, "%s: timestamps anywhere", family_name(w));
}

static void test_sack(struct world *w)
{
	bool good = true;

	for (int blocks = 1; blocks <= 4; blocks++) {
		for (int before = 0; before < 5; before++) {
			struct options in = { .size = 0 }, out = { .size = 0 };

			for (int i = 0; i < before; i++) {
				put(&in, 1);
				put(&out, 1);
			}
			put_sack(&in, blocks, 0xfffffc00);
			put_sack(&out, blocks, EDGE(0xfffffc00));
			if (blocks < 4 && before < 3) {
				put_timestamps(&in, 1, 2);
				put_timestamps(&out, VALUE(1), ECHO(2));
			}
			pad(&in);
			pad(&out);
			world_join(w, w->family, &spaces_plain);
			send_options(w, &in, ACK);
			good = good && came(w, &out);
		}
	}
	lab_check(good,
		  "%s: one to four SACK blocks, anywhere, timestamps "
		  "behind them",
		  family_name(w));
}

static void test_not_agreed(struct world *w)
{
	struct options in = { .size = 0 }, out = { .size = 0 };

	put_timestamps(&in, 1, 2);
	put_sack(&in, 1, 5000);
	pad(&in);
	while (out.size < in.size)
		put(&out, 1);
	world_join(w, w->family, &spaces_plain);
	w->pair.leg[0].flags = 0;
	world_set(w);
	send_options(w, &in, ACK);
	lab_check(came(w, &out), "%s: neither agreed: both blanked",
		  family_name(w));
	in.size = out.size = 0;
	put(&in, 34);
	put(&in, 6);
	put32(&in, 0xdeadbeef);
	put(&in, 253);
	put(&in, 2);
	while (out.size < in.size)
		put(&out, 1);
	put_timestamps(&in, 1, 2);
	put_timestamps(&out, VALUE(1), ECHO(2));
	put(&in, 0);
	put(&out, 0);
	put(&in, 99);
	put(&out, 99);
	pad(&in);
	pad(&out);
	world_join(w, w->family, &spaces_plain);
	send_options(w, &in, ACK);
	lab_check(came(w, &out), "%s: unknown ones blanked, up to the end mark",
		  family_name(w));
	in.size = out.size = 0;
	put(&in, 1);
	put(&in, 1);
	put_timestamps(&in, 7, 0);
	world_join(w, w->family, &spaces_plain);
	send_options(w, &in, RST);
	put(&out, 1);
	put(&out, 1);
	put_timestamps(&out, VALUE(7), 0);
	lab_check(came(w, &out), "%s: without an ACK no echo", family_name(w));
}

static bool refused(struct world *w, const char *bytes, size_t size)
{
	struct options o = { .size = size };

	memcpy(o.bytes, bytes, size);
	world_join(w, w->family, &spaces_plain);
	send_options(w, &o, ACK);
	return world_dropped(w, WIRE_DROP_OPTIONS);
}

#define REFUSED(w, bytes) refused(w, bytes, sizeof(bytes) - 1)

static void test_malformed(struct world *w)
{
	const char *name = family_name(w);
	bool good;

	lab_check(REFUSED(w, "\3\0\1\1") && REFUSED(w, "\3\1\1\1") &&
			  REFUSED(w, "\1\10\0\1"),
		  "%s: lengths 0 and 1", name);
	lab_check(REFUSED(w, "\1\1\1\5") && REFUSED(w, "\1\1\3\3") &&
			  REFUSED(w, "\375\5\1\1"),
		  "%s: cut short", name);
	good = REFUSED(w, "\1\1\10\11\0\0\0\0\0\0\0\1") &&
	       REFUSED(w, "\10\13\0\0\0\0\0\0\0\0\0\1") &&
	       REFUSED(w, "\1\1\1\10\12\0\0\0\0\0\0\0");
	lab_check(good, "%s: timestamps of a wrong length", name);
	good = REFUSED(w, "\5\2\1\1") &&
	       REFUSED(w, "\1\1\5\11\0\0\0\0\0\0\0\0") &&
	       REFUSED(w, "\5\13\0\0\0\0\0\0\0\0\0\1") &&
	       REFUSED(w, "\1\1\5\22\0\0\0\0\0\0\0\0") &&
	       REFUSED(w, "\5\52\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
			  "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
	lab_check(good, "%s: SACK of a wrong length", name);
	good = REFUSED(w, "\23\22\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\1") &&
	       REFUSED(w, "\35\4\1\1");
	lab_check(good, "%s: MD5 and AO", name);
}

/* Every layout of up to 40 bytes out of a small alphabet, by chance. */
static void test_chance(struct world *w)
{
	static const uint8_t kinds[] = { 0, 1, 1, 1, 2, 5, 8, 8, 19, 253 };
	uint32_t state = 12345;
	int forwarded = 0, dropped = 0, other = 0;

	world_join(w, w->family, &spaces_plain);
	for (int round = 0; round < 3000; round++) {
		struct options o = { .size = 0 };

		state = state * 1664525 + 1013904223;
		o.size = (state >> 20) % 11 * 4;
		for (size_t i = 0; i < o.size; i++) {
			state = state * 1664525 + 1013904223;
			o.bytes[i] = state >> 31 ?
					     kinds[(state >> 8) % 10] :
					     (uint8_t)((state >> 16) % 12);
		}
		send_options(w, &o, ACK);
		if (world_forwarded(w, WIRE_PEER))
			forwarded++;
		else if (world_dropped(w, WIRE_DROP_OPTIONS))
			dropped++;
		else
			other++;
	}
	lab_check(!other && forwarded > 100 && dropped > 100,
		  "%s: 3000 layouts by chance pass whole or are dropped",
		  family_name(w));
}

int main(void)
{
	struct world w;

	world_open(&w);
	while (world_next_form(&w)) {
		world_join(&w, w.family, &spaces_plain);
		test_layouts(&w);
		test_sack(&w);
		test_not_agreed(&w);
		test_malformed(&w);
		test_chance(&w);
	}
	return lab_end(&w.lab);
}
