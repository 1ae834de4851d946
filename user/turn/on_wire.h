/* SPDX-License-Identifier: BSD-2-Clause */
/* A worker's side of wire: its channel, who may go on it, adopted pairs. */
#ifndef TURN_ON_WIRE_H
#define TURN_ON_WIRE_H

#include "pair/pair.h"
#include "turn/outlet.h"
#include "turn/peer_conn.h"
#include "turn/worker.h"

/* A connection of an earlier relay that goes on in the kernel. */
struct adopted {
	struct list link; /* of worker->adopted */
	struct turn_worker *worker;
	struct wire_link wire;
	uint64_t serial;
	uint64_t bytes[WIRE_LEGS]; /* to client, to peer; when last looked */
	uint64_t created_ns,
		expires_ns; /* CLOCK_MONOTONIC; expires_ns 0: never */
	union addr client, peer;
	struct port_claim *claim; /* of its relayed port; NULL: none */
	char label[WIRE_LABEL];
};

/* Makes worker->wire, without a channel. 0 or -ENOMEM. */
int turn_wire_open(struct turn_worker *worker);
/* Forgets what is adopted. */
void turn_wire_close(struct turn_worker *worker);

/* Its pairs on wire live as long as it does. */
void turn_wire_prolong(const struct outlet *outlet);

/* Do the settings let what goes through it go on wire? */
bool turn_wire_wanted(const struct outlet *outlet);

/*
 * Shall a bound connection be put on wire? Fills `out` and returns WIRE_OK, or
 * says why not. `policy` is for `out` to point to.
 * sealed: the data connection is encrypted.
 */
enum wire_reason turn_wire_params(const struct peer_conn *conn, bool sealed,
				  struct pair_policy *policy,
				  struct pair_wire_params *out);

/* Notes why a pair has not gone on wire, or that it has (WIRE_OK). */
void turn_wire_count(struct turn_worker *worker, enum wire_reason why);

/* Brings adopted->bytes and the counters up to date. */
void turn_wire_adopted_look(struct adopted *adopted);

/* For clients on wire the peer must not send what does not fit their path: the
 * MSS to ask peers for, or 0.
 */
unsigned int turn_wire_mss(const struct allocation *allocation);

#endif
