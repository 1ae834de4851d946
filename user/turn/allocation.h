/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An allocation: its relayed addresses and permissions; of TCP its peer connections,
 * of UDP its channels.
 */
#ifndef TURN_ALLOCATION_H
#define TURN_ALLOCATION_H

#include "stun/stun.h"
#include "turn/client.h"
#include "turn/reservation.h"
#include "turn/worker.h"

struct outlet;
struct request;

#define TURN_FAMILIES 2

/* IPv4 comes first. */
static inline size_t turn_family_index(sa_family_t family)
{
	return family == AF_INET6;
}

static inline sa_family_t turn_family(size_t index)
{
	return index ? AF_INET6 : AF_INET;
}

struct allocation {
	struct list link; /* of worker->allocations, ended or dead_allocations */
	struct table_node by_serial; /* of worker->serials, while active */
	struct turn_worker *worker;
	struct client *client; /* its control connection; NULL: ended */
	struct client *former; /* the one before it moved; NULL: forgotten */
	struct auth_account *account; /* who made it; a reference */
	/*
	 * By an access token: whom the last one was for (a reference), its key,
	 * and when it ends; 0: by none.
	 */
	struct auth_account *token_account;
	struct stun_key token_key;
	uint64_t until_s;
	struct turn_access access; /* what the settings in force say of him */
	struct rate_bucket buckets[RATE_WAYS]; /* its own */
	struct rates rates[RATE_WAYS]; /* its, the user's and the realm's */
	enum stun_transport transport; /* of the relayed transport addresses */
	struct outlet *outlets[TURN_FAMILIES]; /* NULL: none of this family */
	union addr client_addr;
	struct list conns; /* struct peer_conn */
	struct list permissions; /* struct permission */
	uint64_t serial;
	uint64_t created_ms;
	unsigned int permission_count;
	unsigned int pending; /* connecting or awaiting ConnectionBind */
	unsigned int conn_count; /* all of conns */
	bool ended;

	/* Of UDP alone. */
	struct list channels; /* struct channel */
	unsigned int channel_count;
	uint64_t bytes_to_peers, bytes_to_client;
	struct timer reservation; /* until it is dropped */
	bool reserved; /* a neighbour was, once, under this token */
	uint8_t token[TURN_TOKEN_LEN];

	/* Of a mobile one: which ticket is good, and what it has moved by. */
	bool mobile;
	uint32_t generation;
	uint8_t moved_txid[STUN_TXID_LEN];

	/* Its Allocate, which may come again when its answer was lost. */
	uint8_t txid[STUN_TXID_LEN];
	uint64_t granted_ms;
	/* Why one of two was not to be had: a STUN code; 0: it was. */
	int refused[TURN_FAMILIES];
};

/* The token of this request is its last one; none: none. */
void turn_allocation_token(struct allocation *allocation,
			   const struct request *req);

/* What an Allocate asks for. */
struct allocation_wish {
	enum stun_transport transport;
	bool wanted[TURN_FAMILIES]; /* a relayed transport address of it */
	union addr hosts[TURN_FAMILIES]; /* AF_UNSPEC: not to be had, or not */
	int refused[TURN_FAMILIES]; /* wanted; the STUN code that says why not */
	uint64_t lifetime_ms;
	bool mobile; /* MOBILITY-TICKET */
	/* Of UDP alone. */
	bool even; /* EVEN-PORT */
	bool reserve; /* the next port, too */
	struct reservation *reserved; /* take this, at its host; or NULL */
};

/*
 * Makes req->client's allocation, with at least one of the hosts; takes over what was
 * reserved in any case. 0, or the STUN code that says what ran out.
 */
int turn_allocation_new(const struct request *req,
			const struct allocation_wish *wish);

/*
 * Ends it: no new connections, permissions gone, pending peer connections
 * closed, bound ones finished (or reset, when `hard`). Freed when the last of
 * them is over.
 */
void turn_allocation_end(struct allocation *allocation, const char *reason,
			 bool hard);

/* The active one of this number; NULL: there is none. */
struct allocation *turn_allocation_find(const struct turn_worker *worker,
					uint64_t serial);

/* "udp" or "tcp". */
const char *turn_transport_name(enum stun_transport transport);

/* Sets the time that it, all of it, has left. */
void turn_allocation_prolong(struct allocation *allocation,
			     uint64_t lifetime_ms);

/* Puts it on its way to be freed when it has ended and nothing uses it. */
void turn_allocation_release(struct allocation *allocation);
void turn_allocation_free(struct allocation *allocation); /* the reaper's */

#endif
