/* SPDX-License-Identifier: BSD-2-Clause */
/* A TCP allocation: its relayed address, permissions and peer connections. */
#ifndef TURN_ALLOCATION_H
#define TURN_ALLOCATION_H

#include "turn/client.h"
#include "turn/worker.h"

struct request;

struct allocation {
	struct list link; /* of worker->allocations, ended or dead_allocations */
	struct turn_worker *worker;
	struct client *client; /* its control connection; NULL: ended */
	struct auth_account *account; /* who made it; a reference */
	struct listener *listener; /* on the relayed transport address */
	struct relayed relayed;
	struct port_claim *claim; /* on it when ended, for pairs on wire */
	union addr client_addr;
	struct list conns; /* struct peer_conn */
	struct list permissions; /* struct permission */
	struct timer expiry;
	uint64_t serial;
	uint64_t created_ms, expires_ms;
	unsigned int permission_count;
	unsigned int pending; /* connecting or awaiting ConnectionBind */
	unsigned int conn_count; /* all of conns */
	bool ended;
};

/*
 * Makes req->client's allocation at `relayed`'s host. 0, or the STUN code that
 * says what ran out.
 */
int turn_allocation_new(const struct request *req, const union addr *host,
			uint64_t lifetime_ms);

/*
 * Ends it: no new connections, permissions gone, pending peer connections
 * closed, bound ones finished (or reset, when `hard`). Freed when the last of
 * them is over.
 */
void turn_allocation_end(struct allocation *allocation, const char *reason,
			 bool hard);

/* Sets the time it has left. */
void turn_allocation_prolong(struct allocation *allocation,
			     uint64_t lifetime_ms);

/* Puts it on its way to be freed when it has ended and nothing uses it. */
void turn_allocation_release(struct allocation *allocation);
void turn_allocation_free(struct allocation *allocation); /* the reaper's */

#endif
