/* SPDX-License-Identifier: BSD-2-Clause */
/* What one join does. */
#include "lib/plan.h"

#include <stdio.h>

#include "lib/pattern.h"

/*
 * Round trips of the test network take tens of microseconds: short pauses put
 * bytes into the middle of the join, long ones behind it.
 */
static uint32_t pause_draw(uint64_t *random)
{
	static const uint32_t most[] = { 30, 100, 300, 1000, 5000 };

	return draw_below(random, most[draw_below(random, 5)]);
}

static uint32_t size_draw(uint64_t *random)
{
	static const uint32_t most[] = { 1, 100, 1448, 3000, 16384, 65536 };

	return 1 + draw_below(random, most[draw_below(random, 6)]);
}

static void side_draw(struct plan_side *side, uint64_t *random)
{
	side->when = (enum plan_when)draw_below(random, WHEN_SPOKEN_TO + 1);
	side->length = draw_below(random, 12) ? size_draw(random) : 0;
	side->piece = draw_below(random, 3) ? 1 << 20 : size_draw(random);
	/* Bytes one by one take for ever at this length. */
	if (side->length / side->piece > 200)
		side->piece = side->length / 200;
	side->pause_us = draw_below(random, 2) ? 0 : pause_draw(random) / 8;
	side->delay_us = pause_draw(random);
}

void plan_draw(struct plan *out, uint64_t seed)
{
	uint64_t random = seed;
	struct plan_side *client = &out->side[0], *peer = &out->side[1];

	out->seed = seed;
	out->incoming = draw_below(&random, 2);
	out->end = (enum plan_end)draw_below(&random, END_COUNT);
	out->bind_delay_us = draw_below(&random, 2) ? 0 : pause_draw(&random);
	out->bind_split = draw_below(&random, 8) ? 0 :
						   1 + draw_below(&random, 60);
	side_draw(client, &random);
	side_draw(peer, &random);
	/* Somebody has to speak first. */
	if (client->when == WHEN_SPOKEN_TO &&
	    (peer->when == WHEN_SPOKEN_TO || !peer->length))
		client->when = WHEN_BOUND;
	if (peer->when == WHEN_SPOKEN_TO && !client->length)
		peer->when = WHEN_SOON;
}

void plan_describe(const struct plan *plan, char *buf, size_t len)
{
	static const char *const when[] = { "at once", "soon", "bound",
					    "after bound", "spoken to" };
	static const char *const end[] = { "client first", "peer first",
					   "both",         "close client",
					   "close peer",   "reset client",
					   "reset peer" };
	const struct plan_side *client = &plan->side[0], *peer = &plan->side[1];

	snprintf(buf, len,
		 "seed %llu, %s, end %s, bind delay %u us split %u, client "
		 "%u bytes %s (piece %u, pause %u, delay %u), peer %u bytes %s "
		 "(piece %u, pause %u, delay %u)",
		 (unsigned long long)plan->seed,
		 plan->incoming ? "incoming" : "connect", end[plan->end],
		 plan->bind_delay_us, plan->bind_split, client->length,
		 when[client->when], client->piece, client->pause_us,
		 client->delay_us, peer->length, when[peer->when], peer->piece,
		 peer->pause_us, peer->delay_us);
}
