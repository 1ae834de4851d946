/* SPDX-License-Identifier: BSD-2-Clause */
/* A peer data connection, from the Connect or the accept to its end. */
#ifndef TURN_PEER_CONN_H
#define TURN_PEER_CONN_H

#include "pair/pair.h"
#include "pair/rendezvous.h"
#include "turn/allocation.h"
#include "turn/request.h"

#define TURN_CONNECTION_ID_LEN 4
/* The owner's index stands in the upper bits: 64 workers. */
#define TURN_CONNECTION_ID_RANDOM_BITS 26

/* How long a finished pair may take to deliver what it has. */
#define TURN_LINGER_MS 5000

enum peer_conn_state {
	PEER_CONN_CONNECTING, /* Connect was asked for, not answered */
	PEER_CONN_HELD, /* connected, awaits ConnectionBind, unread */
	PEER_CONN_BOUND, /* a pair has it */
};

/* What a peer connection needs until it is bound. */
struct peer_pending {
	struct peer_conn *conn;
	struct waiting_leg leg; /* while held */
	struct watch watch; /* its fd is the peer's */
	struct timer timer; /* connect_timeout, then bind_timeout */
	struct transaction tx; /* of the Connect, while connecting */
	uint8_t connection_id[TURN_CONNECTION_ID_LEN];
};

/* Small: there may be very many whose pair is on wire. */
struct peer_conn {
	struct list link; /* of allocation->conns, or worker->dead_conns */
	struct table_node node; /* of worker->peer_conns */
	struct peer_pending *pending; /* NULL: bound */
	struct turn_worker *worker;
	struct allocation *allocation; /* lives as long as this does */
	struct pair *pair; /* when bound */
	struct turn_engines *engines; /* the pair's */
	union addr peer;
	union addr client; /* of the data connection; AF_UNSPEC before */
	uint64_t serial;
	uint64_t created_ms;
	uint64_t counted[2]; /* bytes of the pair, by half, when last looked */
	enum peer_conn_state state;
	bool over; /* dead: waits to be freed */
	bool bare; /* on wire: no descriptor is left */
};

/* The relayed transport address it comes from or goes to; may be closed by now. */
struct outlet *turn_peer_conn_outlet(const struct peer_conn *conn);

struct peer_conn *turn_peer_conn_find(const struct allocation *allocation,
				      const union addr *peer);

/*
 * Is there room for one more? Takes a slot and a place in the user's quota when it
 * says 0; 486: that is full, 508: limits of the allocation or of the process.
 */
int turn_peer_conn_admit(const struct allocation *allocation);
/* Gives both back: nothing came of it. */
void turn_peer_conn_dismiss(const struct allocation *allocation);

/*
 * Takes over fd and what was admitted. Connecting ones answer `tx` later. 0, or -ENOMEM
 * and -ENOSPC with both left to the caller.
 */
int turn_peer_conn_new(struct allocation *allocation, int fd,
		       const union addr *peer, const struct transaction *tx,
		       struct peer_conn **out);

/* Connected: gets its CONNECTION-ID and waits for the bind. 0 or -ENOSPC. */
int turn_peer_conn_hold(struct peer_conn *conn);

/* A connection that is not bound: closes the descriptor, frees later. */
void turn_peer_conn_end(struct peer_conn *conn, const char *reason);
/* The same with a reset. A bound one is reset, too, and ends later. */
void turn_peer_conn_kick(struct peer_conn *conn);

/* A data connection of a client that asks for a held peer connection. */
struct bind {
	const struct transaction *tx;
	int fd;
	struct seal *seal; /* the descriptor's; NULL: none */
	union addr client;
	const uint8_t *early; /* bytes that came behind the request */
	size_t early_len;
};

/* The allocation that a CONNECTION-ID is of; NULL: none of this worker's. */
const struct allocation *turn_bind_owner(const struct turn_worker *worker,
					 const uint8_t *connection_id);
/*
 * Finds whom a ConnectionBind means: 0, 400, 441 when it is another's, or 403 when
 * one of the two connections is encrypted and the other not.
 */
int turn_bind_find(struct turn_worker *worker, const uint8_t *connection_id,
		   const struct auth_account *account, bool sealed,
		   struct peer_conn **out);
/*
 * Joins: takes over the descriptor, its seal and its slot. 0, or 500 with both left to the
 * caller and the peer connection waiting (or gone).
 */
int turn_bind_join(struct peer_conn *conn, const struct bind *bind);

/* Counts what its pair has carried since the last look. */
void turn_peer_conn_look(struct peer_conn *conn);

void turn_peer_conn_free(struct peer_conn *conn); /* the reaper's */
/* Closes everything at once, for the end of the worker. */
void turn_peer_conn_destroy(struct peer_conn *conn);

/* A relayed transport address was connected to: their arg is the outlet. */
extern const struct listener_ops turn_relayed_listener_ops;

#endif
