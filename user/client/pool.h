/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pool of allocations for connections to one peer: RFC 6062 allows one
 * connection per peer address and allocation (446), so every connection at a time
 * has an allocation of its own.
 */
#ifndef CLIENT_POOL_H
#define CLIENT_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "client/backoff.h"
#include "client/session.h"

struct client_pool;

enum client_slot_state {
	CLIENT_SLOT_MAKING, /* the allocation is under way */
	CLIENT_SLOT_IDLE,
	CLIENT_SLOT_BUSY, /* lent */
	CLIENT_SLOT_CLOSING, /* being given back to the server */
};

/* One allocation. */
struct client_slot {
	struct list link; /* pool->slots */
	struct client_pool *pool;
	struct culvert_client *client;
	enum client_slot_state state;
	uint64_t used_ms; /* when it was last put back; 0: never used */
	struct client_waiter *holder;
	bool asking; /* lent, and whether the peer answers is not known */
};

/* Who wants an allocation. Embedded; zero-initialise. */
struct client_waiter {
	struct list link; /* pool->waiters, while it waits */
	bool waiting;
	uint64_t since_ms;
	bool fresh_only; /* one whose reuse went wrong: no used one again */
	/*
	 * Lent: give it back with client_pool_put. slot NULL: none came in
	 * time.
	 */
	void (*granted)(struct client_waiter *waiter, struct client_slot *slot);
	/* The lent one is gone: it is not to be put back. */
	void (*lost)(struct client_waiter *waiter);
};

struct client_pool {
	struct client_session *session;
	int family;
	unsigned int warm, max;
	/* The very first allocation, or why there is none; once. */
	void (*started)(struct client_pool *pool,
			const struct culvert_error *error);
	/* After client_pool_close: the last allocation is gone. */
	void (*emptied)(struct client_pool *pool);

	struct list slots;
	unsigned int making, idle, busy, closing, asking;
	struct list waiters;
	struct client_backoff backoff;
	uint64_t retry_ms; /* no new allocation before; 0: at once */
	uint64_t rest_ms; /* no connection before: the peer refused (4.3) */
	bool trying; /* the peer refused: one connection at a time */
	bool was_started, closed;
	bool pumping, again; /* see pool_pump */
	struct timer timer;
};

/* Fields above the blank line are given by the caller. */
void client_pool_start(struct client_pool *pool);
/* Ends every allocation at once. */
void client_pool_destroy(struct client_pool *pool);
/* Lends out no more, makes no more. */
void client_pool_freeze(struct client_pool *pool);
/* The same, and gives all back to the server, politely. */
void client_pool_close(struct client_pool *pool);
/* No allocation is left. */
bool client_pool_empty(const struct client_pool *pool);

/* waiter->since_ms stays, unless it is 0: tries share one time limit. */
void client_pool_wait(struct client_pool *pool, struct client_waiter *waiter);
/* Stops waiting; harmless when it does not. */
void client_pool_leave(struct client_pool *pool, struct client_waiter *waiter);

enum client_outcome {
	CLIENT_OUTCOME_USED, /* it had a connection */
	CLIENT_OUTCOME_UNUSED, /* nothing came of it, it is as before */
	CLIENT_OUTCOME_REFUSED, /* the peer was not reached: 447 */
	CLIENT_OUTCOME_SPOILT, /* not to be used again */
};

void client_pool_put(struct client_pool *pool, struct client_slot *slot,
		     enum client_outcome outcome);
/* The peer answered: the connections that wait need not come one by one. */
void client_pool_reached(struct client_pool *pool, struct client_slot *slot);

#endif
