/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Moves the bytes of one flow until it has to wait. Private to the room; shared
 * by all stream engines, which differ in who says that a wait is over.
 */
#ifndef ENGINE_MOVER_H
#define ENGINE_MOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/engine.h"
#include "engine/pipe_pool.h"

/* One per worker. */
struct mover {
	struct loop *loop;
	struct pipe_pool *pool; /* NULL: copying only */
	uint8_t *buffer; /* shared: holds nothing between two calls */
	size_t buffer_len;
	int receive_buffer; /* most SO_RCVBUF of a bulk flow's source; 0: leave it */
};

/* What a flow needs before it can go on. */
enum flow_wait {
	FLOW_WAIT_READ, /* `from` readable */
	FLOW_WAIT_SEAL, /* `from` writable: its seal has something to say */
	FLOW_WAIT_WRITE, /* `to` writable */
	FLOW_WAIT_TIME, /* its turn to come, by its rates */
	FLOW_WAIT_LOOK, /* the engine looks again by itself (sockmap) */
	FLOW_WAIT_NONE, /* it has ended */
};

struct residual;

struct flow_state {
	struct pipe *pipe; /* NULL but while held bytes are in it */
	struct residual *residual; /* NULL but while held bytes are in it */
	size_t held; /* bytes read and not yet written */
	enum flow_wait wait;
	bool splicing; /* big reads lately: splice; else copy */
	bool unspliceable; /* `from` refused splice(2) for good */
	uint8_t small_reads; /* in a row, while splicing */
	bool bounded; /* the source's receive buffer has its bound */
	enum flow_end from_ended; /* FLOW_OPEN, or how reading ended */
	int from_error;
	/* Of a flow with a rate. */
	size_t reserved; /* bytes that it may read from turn_ns on */
	uint64_t turn_ns;
	struct timer turn; /* while it waits for that */
	void (*on_turn)(struct timer *turn); /* the engine's: runs the flow */
};

/* Returns 0 or -ENOMEM. Takes the pool over on success. */
int mover_init(struct mover *mover, struct loop *loop, struct pipe_pool *pool,
	       const struct engine_params *params);
void mover_destroy(struct mover *mover);

/*
 * Reads from `from` and writes to `to` until one of them has to be waited for,
 * the flow ends (flow->end) or it has had its share of this tick: then
 * FLOW_WAIT_READ with `from` still readable, so that level-triggered polling
 * comes back at once. The answer is in state->wait; after FLOW_WAIT_TIME on_turn
 * is called, unless mover_drop comes before.
 */
void mover_run(struct mover *mover, struct engine_link *link, struct flow *flow,
	       struct flow_state *state);

/*
 * SO_RCVBUF for a source whose round trip takes rtt_us: at most `most`, less for a near
 * one, which has less under way. Pure.
 */
int mover_room(int most, uint32_t rtt_us);

/* Drops what the flow holds, and its turn. */
void mover_drop(struct mover *mover, const struct flow *flow,
		struct flow_state *state);

#endif
