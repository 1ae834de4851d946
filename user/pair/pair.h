/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The splice pair: two TCP sockets joined, from the bind to the last byte.
 *
 *   (joining ->) flushing -> relaying -> closing -> closed
 *
 * joining: the broker was asked to put the pair on wire; both prefaces are held
 *   back or were written, and what arrives waits or was read into them. When it
 *   succeeds, relaying goes on without the sockets; else all goes on below.
 * flushing: the preface of each half (for TURN: the ConnectionBind success to
 *   the client, the bytes pipelined behind the request to the peer) is written
 *   before anything of the other side; nothing is read meanwhile.
 * relaying: an engine has both flows, or wire the pair.
 * closing: one flow has ended. FIN is passed on after the tail was written; a
 *   reset is passed on after what came before it was delivered. The end of a sealed
 *   half is what its seal calls so; a connection that just stops was cut: a reset.
 * (held, before the pair exists, is a waiting leg nobody reads from.)
 */
#ifndef PAIR_PAIR_H
#define PAIR_PAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/engine.h"
#include "engine/wire.h"
#include "loop/loop.h"
#include "pair/policy.h"

struct pair;

enum pair_state {
	PAIR_JOINING,
	PAIR_FLUSHING,
	PAIR_RELAYING,
	PAIR_CLOSING,
	PAIR_CLOSED,
};

enum pair_end {
	PAIR_END_FIN, /* both sides ended their streams */
	PAIR_END_RESET, /* a side was reset or failed; passed on */
	PAIR_END_IDLE, /* idle_timeout_ms */
	PAIR_END_FINISHED, /* pair_finish */
	PAIR_END_KICKED, /* pair_reset */
	PAIR_END_KEY, /* a key of TLS is used up */
	PAIR_END_ERROR, /* no engine, no memory, the broker has gone */
};

/* The two halves' order in arrays: what goes to it comes from the other. */
enum pair_half {
	PAIR_CLIENT,
	PAIR_PEER,
};

struct pair_half_params {
	/* Connected, nonblocking, inline (fd_inline); taken over on success. */
	int fd;
	struct seal *seal; /* as fd; NULL: none */
	const uint8_t *preface; /* to be sent to this half first; copied */
	size_t preface_len;
};

/* How a pair may go on wire. */
struct pair_wire_params {
	struct wire *wire;
	const struct pair_policy *policy; /* NULL: whenever it can */
	int control; /* the client's older connection; -1: none */
	uint64_t allocation; /* for wire_expire */
	uint64_t (*expires_ns)(void *owner); /* as wire_join's, at this moment */
	void (*label)(void *owner, char out[WIRE_LABEL]); /* for lists */
	/* It is on wire (WIRE_OK), or will not be. From pair_new, too. */
	void (*on_decided)(void *owner, enum wire_reason why);
	/* Both descriptors have been closed; the pair goes on. */
	void (*on_active)(void *owner);
};

struct pair_params {
	struct loop *loop;
	struct engine_set *engines;
	uint32_t prefer; /* of engine_set_prefer */
	const struct rates *rates[2]; /* to the half; borrowed; NULL: any */
	/* NULL: not on wire; as it must be when a half is sealed. */
	const struct pair_wire_params *wire;
	enum wire_reason why; /* when NULL */
	struct pair_half_params half[2]; /* by enum pair_half */
	uint64_t idle_timeout_ms; /* 0: never */
	uint64_t linger_ms; /* pair_finish and resets wait this long */
	/* Of the peer's socket while an engine has it; the client's has its own. */
	uint64_t keepalive_ms; /* 0: none */
	/*
	 * The pair is over: both descriptors are closed and it is freed when
	 * this returns. Never called from inside a function of this header.
	 */
	void (*on_closed)(void *owner, enum pair_end end);
	void *owner;
};

/*
 * Joins. Returns 0, or -ENOMEM/-ENOSPC with both descriptors left to the caller.
 * Later failures arrive by on_closed.
 */
int pair_new(const struct pair_params *params, struct pair **out);

/*
 * The reason for the pair has gone (allocation expired, control connection
 * closed): deliver what has arrived, then end both streams; after linger_ms with
 * data still moving or stuck, reset.
 */
void pair_finish(struct pair *pair);

/* Resets both halves now (kick). */
void pair_reset(struct pair *pair);

/* Resets and frees at once, without on_closed: for shutting a worker down.
 * The engines must not be used afterwards except to free them.
 */
void pair_destroy(struct pair *pair);

struct pair_info {
	enum pair_state state;
	const char *engine;
	enum wire_reason why; /* it is not on wire */
	const struct seal *seal; /* the client's; NULL: none */
	uint64_t bytes[2]; /* delivered to the client, to the peer */
	uint64_t idle_ms;
};

void pair_get_info(const struct pair *pair, struct pair_info *out);
const char *pair_state_name(enum pair_state state);
const char *pair_end_name(enum pair_end end);

#endif
