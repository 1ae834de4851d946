/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a pair begins and ends in wire_ingress: legs that are latched, FINs,
 * resets, and the events that tell of it, each once.
 */
#include "wire_packet.h"

/* What the ring buffer has told since the last look. */
static struct wire_event events[16];
static unsigned int event_count;

static int on_event(void *context, void *data, size_t size)
{
	(void)context;
	if (size == sizeof(events[0]) && event_count < 16)
		memcpy(&events[event_count++], data, size);
	return 0;
}

/* Whether exactly one event has come, of that kind and end. */
static bool told(struct ring_buffer *ring, uint32_t kind, uint32_t end)
{
	event_count = 0;
	ring_buffer__consume(ring);
	return event_count == 1 && events[0].kind == kind &&
	       events[0].end == end && events[0].pair == 0 &&
	       events[0].generation == 7;
}

static bool silent(struct ring_buffer *ring)
{
	event_count = 0;
	ring_buffer__consume(ring);
	return event_count == 0;
}

static struct craft reset(struct world *w, int leg)
{
	struct craft c;

	world_join(w, w->family, &spaces_plain);
	/* The other leg has unacknowledged data, so two numbers are exact. */
	w->pair.leg[leg].sent_end += 5000;
	world_set(w);
	c = world_craft(w, leg);
	c.flags = RST;
	c.ack = 0;
	return c;
}

static void test_reset_numbers(struct world *w, struct ring_buffer *ring)
{
	const char *name = family_name(w);
	struct craft c = reset(w, WIRE_CLIENT);

	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_PEER) &&
			  w->pair.state == WIRE_ENDED &&
			  w->pair.end == WIRE_END_RESET_CLIENT &&
			  frame_get32(frame_l4(&w->out) + 8) == 0,
		  "%s: a reset at the end of what its sender sent", name);
	lab_check(told(ring, WIRE_EVENT_ENDED, WIRE_END_RESET_CLIENT),
		  "%s: is told", name);
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_PEER) && silent(ring),
		  "%s: once, though it passes again", name);
	c = reset(w, WIRE_PEER);
	c.seq -= 5000;
	c.flags = RST | ACK;
	c.ack = 12345;
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_CLIENT) &&
			  told(ring, WIRE_EVENT_ENDED, WIRE_END_RESET_PEER),
		  "%s: a reset at what is acknowledged", name);
}

static void test_reset_checksum(struct world *w, struct ring_buffer *ring)
{
	const char *name = family_name(w);
	struct craft c = reset(w, WIRE_CLIENT);
	bool good = true;
	uint8_t *tcp;

	frame_tcp(&w->in, &c);
	frame_l4(&w->in)[17] ^= 4;
	world_in(w);
	lab_check(world_dropped(w, WIRE_DROP_HEADER) && silent(ring),
		  "%s: a reset with a wrong checksum", name);
	frame_tcp(&w->in, &c);
	tcp = frame_l4(&w->in);
	frame_put16(tcp + 16,
		    (uint16_t)frame_pseudo(&w->in, frame_l4_size(&w->in),
					   IPPROTO_TCP));
	world_in(w);
	if (w->summed)
		lab_check(world_dropped(w, WIRE_DROP_HEADER) && silent(ring),
			  "%s: a reset with half a checksum", name);
	else
		lab_check(w->verdict == TC_ACT_REDIRECT &&
				  told(ring, WIRE_EVENT_ENDED,
				       WIRE_END_RESET_CLIENT),
			  "%s: a reset whose checksum the device completes",
			  name);
	for (size_t payload = 1; payload < 1440; payload += 61) {
		c = reset(w, WIRE_CLIENT);
		c.payload = payload;
		world_send(w, &c);
		good = good && world_forwarded(w, WIRE_PEER) &&
		       told(ring, WIRE_EVENT_ENDED, WIRE_END_RESET_CLIENT);
		c = reset(w, WIRE_CLIENT);
		c.payload = payload;
		frame_tcp(&w->in, &c);
		w->in.data[w->in.size - 1] ^= 1;
		world_in(w);
		good = good && world_dropped(w, WIRE_DROP_HEADER) &&
		       silent(ring);
	}
	lab_check(good, "%s: resets of every length", name);
}

static void test_fins(struct world *w, struct ring_buffer *ring)
{
	const char *name = family_name(w);
	struct craft c, last;

	world_join(w, w->family, &spaces_plain);
	c = world_craft(w, WIRE_CLIENT);
	c.flags = FIN | ACK;
	c.payload = 100;
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_PEER) &&
			  w->pair.leg[0].flags & WIRE_LEG_FIN &&
			  w->pair.leg[0].fin_end == 2000101 &&
			  w->pair.leg[0].sent_end == 2000101,
		  "%s: the client's FIN", name);
	c = world_craft(w, WIRE_PEER);
	c.ack += 101;
	c.payload = 50;
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_CLIENT) && silent(ring) &&
			  w->pair.state == WIRE_JOINED,
		  "%s: acknowledged, the peer goes on", name);
	c.seq += 50;
	c.payload = 0;
	c.flags = FIN | ACK;
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_CLIENT) && silent(ring),
		  "%s: the peer's FIN", name);
	last = world_craft(w, WIRE_CLIENT);
	last.ack = 1000050;
	world_send(w, &last);
	lab_check(world_forwarded(w, WIRE_PEER) && silent(ring) &&
			  w->pair.state == WIRE_JOINED,
		  "%s: not yet acknowledged", name);
	last.ack++;
	world_send(w, &last);
	lab_check(world_forwarded(w, WIRE_PEER) &&
			  told(ring, WIRE_EVENT_ENDED, WIRE_END_FIN) &&
			  w->pair.state == WIRE_ENDED &&
			  w->pair.end == WIRE_END_FIN,
		  "%s: acknowledged: ended", name);
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_CLIENT) && silent(ring),
		  "%s: the FIN again, forwarded", name);
	world_send(w, &last);
	lab_check(world_forwarded(w, WIRE_PEER) && silent(ring),
		  "%s: its ACK again, told once", name);
}

/* A segment of the client's with `payload` at `seq`, once its FIN has been seen. */
static bool behind_fin(struct world *w, uint32_t seq, size_t payload,
		       uint8_t flags)
{
	struct craft c;

	world_join(w, w->family, &spaces_plain);
	c = world_craft(w, WIRE_CLIENT);
	c.flags = FIN | ACK;
	c.payload = 100;
	world_send(w, &c);
	c.flags = flags;
	c.seq = seq;
	c.payload = payload;
	world_send(w, &c);
	return w->pair.leg[0].fin_end == 2000101 &&
	       w->pair.leg[0].sent_end == 2000101;
}

static void test_behind_fin(struct world *w)
{
	const char *name = family_name(w);

	lab_check(behind_fin(w, 2000101, 10, ACK) &&
			  world_dropped(w, WIRE_DROP_SEQUENCE) &&
			  behind_fin(w, 2000050, 52, ACK) &&
			  world_dropped(w, WIRE_DROP_SEQUENCE),
		  "%s: nothing passes behind a FIN", name);
	lab_check(behind_fin(w, 2000101, 0, FIN | ACK) &&
			  world_dropped(w, WIRE_DROP_SEQUENCE),
		  "%s: nor does a second one", name);
	lab_check(behind_fin(w, 2000000, 100, FIN | ACK) &&
			  world_forwarded(w, WIRE_PEER) &&
			  behind_fin(w, 2000050, 50, ACK) &&
			  world_forwarded(w, WIRE_PEER) &&
			  behind_fin(w, 2000101, 0, ACK) &&
			  world_forwarded(w, WIRE_PEER),
		  "%s: what is before it passes again", name);
}

/* The peer has acknowledged all of the client's, so no end of that is before it. */
static void test_old_fin(struct world *w)
{
	static const uint32_t backs[] = { 1, 100, 65000 };
	const char *name = family_name(w);
	bool good = true;

	for (size_t i = 0; i < sizeof(backs) / sizeof(backs[0]); i++) {
		struct craft c;

		world_join(w, w->family, &spaces_plain);
		c = world_craft(w, WIRE_CLIENT);
		c.seq -= backs[i];
		c.flags = FIN | ACK;
		world_send(w, &c);
		good = good && world_dropped(w, WIRE_DROP_SEQUENCE);
		c = world_craft(w, WIRE_CLIENT);
		c.payload = 10;
		world_send(w, &c);
		good = good && world_forwarded(w, WIRE_PEER) &&
		       !(w->pair.leg[0].flags & WIRE_LEG_FIN);
	}
	lab_check(good, "%s: a FIN before what is acknowledged ends nothing",
		  name);
}

/* The client leg latched: the relay's last 500 bytes, of which 100 are acked. */
static struct craft latched(struct world *w)
{
	struct craft c;

	world_join(w, w->family, &spaces_plain);
	c = world_craft(w, WIRE_CLIENT);
	w->pair.leg[0].acked -= 500;
	w->pair.leg[0].right -= 500;
	w->pair.leg[0].flags |= WIRE_LEG_LATCHED;
	world_set(w);
	c.ack -= 400;
	return c;
}

/* For our socket, as if nothing had gone by wire; whether it arrives so. */
static bool numbered(struct world *w, uint32_t offered, uint32_t seq,
		     uint32_t expected)
{
	struct craft c = latched(w);
	uint8_t *tcp = frame_l4(&w->out);

	w->pair.leg[0].sent_end = 2000000 + 100000;
	w->pair.leg[0].offered = offered;
	world_set(w);
	c.seq = seq;
	world_send(w, &c);
	if (w->verdict != TC_ACT_UNSPEC || !world_counted(w, WIRE_COUNTERS) ||
	    !frame_right(&w->out) || frame_get32(tcp + 4) != expected)
		return false;
	frame_put32(tcp + 4, seq);
	frame_mend(&w->out);
	return w->in.size == w->out.size &&
	       !memcmp(w->in.data, w->out.data, w->in.size);
}

static void test_latch_numbers(struct world *w)
{
	const uint32_t offered = 2032768, least = 2000000 - 100000;
	const char *name = family_name(w);

	lab_check(numbered(w, offered, 2100000, offered) &&
			  numbered(w, offered, 2000001, 2000001),
		  "%s: an ACK for the socket is numbered for it", name);
	lab_check(numbered(w, 2000000, 2100000, 2000000) &&
			  numbered(w, 2001000, 2100000, 2001000) &&
			  numbered(w, 2200000, 2100000, 2100000),
		  "%s: in the window that it had", name);
	lab_check(numbered(w, offered, 2000000, 2000000) &&
			  numbered(w, offered, 1999999, 1999999),
		  "%s: a probe stays as it is", name);
	lab_check(numbered(w, offered, least, least) &&
			  !numbered(w, offered, least - 1, least - 1) &&
			  world_dropped(w, WIRE_DROP_SEQUENCE),
		  "%s: an old one may be a window old", name);
	/* The peer offers less than our socket did, or more. */
	lab_check(!numbered(w, offered, 2100256, offered) &&
			  world_dropped(w, WIRE_DROP_SEQUENCE) &&
			  numbered(w, offered, 2100255, offered) &&
			  !numbered(w, 2200000, 2200001, 2200000) &&
			  world_dropped(w, WIRE_DROP_SEQUENCE) &&
			  numbered(w, 2200000, 2200000, 2200000),
		  "%s: one beyond both windows is nobody's", name);
}

static void test_latch(struct world *w, struct ring_buffer *ring)
{
	static const uint8_t sack[] = { 1,  1,  5, 10, 0,  15,
					65, 80, 0, 15, 66, 64 };
	const char *name = family_name(w);
	struct craft c = latched(w);
	uint8_t *tcp;

	world_send(w, &c);
	lab_check(world_up(w) && silent(ring) &&
			  w->pair.leg[0].flags & WIRE_LEG_LATCHED,
		  "%s: an ACK below the latch is the socket's", name);
	c.payload = 20;
	c.options = sack;
	c.options_size = sizeof(sack);
	world_send(w, &c);
	tcp = frame_l4(&w->out);
	lab_check(world_forwarded(w, WIRE_PEER) && silent(ring) &&
			  frame_get32(tcp + 8) == 4000000 &&
			  frame_get16(tcp + 14) == (100000 - 500) >> 5 &&
			  !memcmp(tcp + 20, "\1\1\1\1\1\1\1\1\1\1\1\1", 12),
		  "%s: data passes, its ACK raised, its SACK blank", name);
	lab_check(w->pair.leg[0].acked == 999600 &&
			  w->pair.leg[0].sent_end == 2000020 &&
			  w->pair.leg[0].flags & WIRE_LEG_LATCHED,
		  "%s: and counts as it was meant", name);
	c = latched(w);
	c.flags = FIN | ACK;
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_PEER) &&
			  frame_get32(frame_l4(&w->out) + 8) == 4000000,
		  "%s: a FIN passes likewise", name);
	c = latched(w);
	c.flags = RST | ACK;
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_PEER) &&
			  frame_get32(frame_l4(&w->out) + 8) == 4000000 &&
			  told(ring, WIRE_EVENT_ENDED, WIRE_END_RESET_CLIENT),
		  "%s: a reset, too", name);
	c = latched(w);
	w->pair.leg[0].right = (uint32_t)w->pair.leg[0].acked;
	world_set(w);
	c.window = 2;
	c.payload = 1;
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_PEER) &&
			  frame_get16(frame_l4(&w->out) + 14) == 0,
		  "%s: no window beyond the latch, none passes", name);
	c = latched(w);
	c.ack += 400;
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_PEER) &&
			  !(w->pair.leg[0].flags & WIRE_LEG_LATCHED) &&
			  told(ring, WIRE_EVENT_UNLATCHED, 0),
		  "%s: the ACK at the latch clears it and passes", name);
	world_send(w, &c);
	c.ack -= 400;
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_PEER) && silent(ring),
		  "%s: from then on all pass", name);
}

/* The peer's payload in the numbers of what our socket owes to the client. */
static void test_owed(struct world *w)
{
	const char *name = family_name(w);
	bool good = true;
	struct craft c;

	for (uint32_t back = 1; back <= 501; back += 100) {
		latched(w);
		c = world_craft(w, WIRE_PEER);
		c.seq -= back;
		c.payload = 300;
		world_send(w, &c);
		good = good && world_dropped(w, WIRE_DROP_SEQUENCE);
	}
	lab_check(good, "%s: our own bytes are not the other end's to send",
		  name);
	c.payload = 0;
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_CLIENT), "%s: a probe has none",
		  name);
	c.seq = w->pair.leg[1].received;
	c.payload = 300;
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_CLIENT), "%s: what follows passes",
		  name);
	w->pair.leg[0].flags &= ~WIRE_LEG_LATCHED;
	world_set(w);
	c.seq--;
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_CLIENT),
		  "%s: without a latch all that is old, too", name);
}

static void test_two_latches(struct world *w, struct ring_buffer *ring)
{
	const char *name = family_name(w);
	struct craft c;

	latched(w);
	w->pair.leg[1].flags |= WIRE_LEG_LATCHED;
	w->pair.leg[1].acked -= 10;
	world_set(w);
	c = world_craft(w, WIRE_CLIENT);
	c.ack = w->pair.leg[0].latch;
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_PEER) && silent(ring),
		  "%s: the first of two latches says nothing", name);
	c = world_craft(w, WIRE_PEER);
	c.ack = w->pair.leg[1].latch;
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_CLIENT) &&
			  told(ring, WIRE_EVENT_UNLATCHED, 0),
		  "%s: the last one does", name);
	latched(w);
	c = world_craft(w, WIRE_CLIENT);
	c.ack = w->pair.leg[0].latch;
	c.seq += 200000;
	world_send(w, &c);
	lab_check(world_dropped(w, WIRE_DROP_SEQUENCE) && silent(ring) &&
			  w->pair.leg[0].flags & WIRE_LEG_LATCHED,
		  "%s: a dropped segment clears nothing", name);
	world_join(w, w->family, &spaces_plain);
	c = world_craft(w, WIRE_CLIENT);
	world_send(w, &c);
	lab_check(world_forwarded(w, WIRE_PEER) && silent(ring),
		  "%s: without a latch nothing is told", name);
}

int main(void)
{
	struct ring_buffer *ring;
	struct world w;

	world_open(&w);
	ring = ring_buffer__new(bpf_map__fd(w.lab.wire->maps.wire_events),
				on_event, NULL, NULL);
	if (!ring)
		lab_die("ring buffer");
	while (world_next_form(&w)) {
		test_reset_numbers(&w, ring);
		test_reset_checksum(&w, ring);
		test_fins(&w, ring);
		test_behind_fin(&w);
		test_old_fin(&w);
		test_latch(&w, ring);
		test_latch_numbers(&w);
		test_owed(&w);
		test_two_latches(&w, ring);
	}
	ring_buffer__free(ring);
	return lab_end(&w.lab);
}
