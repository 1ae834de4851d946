/* SPDX-License-Identifier: BSD-2-Clause */
/* What the workers of one process share; everything callable from any thread. */
#ifndef TURN_SHARED_H
#define TURN_SHARED_H

#include <pthread.h>

#include "base/list.h"
#include "base/table.h"
#include "turn/dead.h"
#include "turn/source.h"
#include "turn/turn.h"

/* A relayed transport address in use. Embedded in its allocation. */
struct relayed {
	struct table_node node;
	union addr addr;
	struct relayed_host *host; /* NULL: not registered */
	bool claimed; /* by a port_claim: nobody's, but not to be given away */
};

#define TURN_PARCEL_SLOTS 256

struct turn_shared {
	unsigned int worker_count;
	uint32_t instance; /* random, 24 bits: tells this process from others */
	_Atomic(struct turn_worker *) workers[CONF_MAX_WORKERS];
	_Atomic bool draining;

	/* Limits over all workers; what a limit of 0 means is the caller's. */
	_Atomic unsigned int connections; /* of clients and of peers */
	_Atomic unsigned int descriptors; /* those and relayed sockets */
	_Atomic unsigned int unauthenticated; /* client connections */
	_Atomic unsigned int handshakes; /* of TLS and DTLS, half-open */
	_Atomic unsigned int waiting; /* requests, for the user database */
	_Atomic unsigned int allocations;
	_Atomic unsigned int descriptor_budget;

	struct auth_guard *guard; /* of failed credentials */
	struct turn_excess *excess; /* of answers to strangers */
	uint8_t ticket_key[32]; /* of mobility tickets */
	_Atomic unsigned int parcels; /* datagrams between workers */
	/* The same by a hash of their 5-tuples. */
	_Atomic unsigned int parcels_of[TURN_PARCEL_SLOTS];
	struct turn_sources handshake_sources; /* whose handshakes these are */
	struct turn_sources waiting_sources; /* whose requests wait */

	struct turn_dead dead; /* sources that no allocation gets */

	pthread_mutex_t lock; /* guards what follows */
	struct table relayed;
	struct list relayed_hosts;
	uint64_t relayed_freed; /* addresses given back so far */
	struct list reservations; /* struct reservation */
};

/* Counts one more unless there are `limit` (0: no limit). */
bool turn_gauge_take(_Atomic unsigned int *gauge, unsigned int limit);
void turn_gauge_release(_Atomic unsigned int *gauge);

/* A connection and its descriptor: 0, -EDQUOT (limits.connections) or -EMFILE
 * (the descriptors that RLIMIT_NOFILE leaves).
 */
int turn_slot_take(struct turn_shared *shared, const struct conf *conf);
void turn_slot_release(struct turn_shared *shared);
/* A connection without a descriptor (DTLS): 0 or -EDQUOT. */
int turn_connection_take(struct turn_shared *shared, const struct conf *conf);
/* A descriptor that is no connection: 0 or -EMFILE. */
int turn_descriptor_take(struct turn_shared *shared);
void turn_descriptor_release(struct turn_shared *shared);

/* Works out how many descriptors sockets may use, from RLIMIT_NOFILE, so that
 * the rest of the process is not starved.
 */
void turn_shared_budget(struct turn_shared *shared, const struct conf *conf);

/* Registers relayed->addr. 0, -EADDRINUSE or -ENOMEM. */
int turn_relayed_add(struct turn_shared *shared, struct relayed *relayed);
void turn_relayed_remove(struct turn_shared *shared, struct relayed *relayed);
/* The address changes hands, at no moment free for others. 0 or -ENOMEM. */
int turn_relayed_hand_over(struct turn_shared *shared, struct relayed *from,
			   struct relayed *to);
/*
 * Are all ports, or all even ones, of [min, max] at addr's host known to be
 * relayed ones? A walk that found no other tells so by the note, with the *freed
 * from before it, and is spared until one is given back.
 */
bool turn_relayed_full(struct turn_shared *shared, const union addr *addr,
		       uint16_t min, uint16_t max, bool even, uint64_t *freed);
void turn_relayed_full_note(struct turn_shared *shared, const union addr *addr,
			    uint16_t min, uint16_t max, bool even,
			    uint64_t freed);
/*
 * Is this an active relayed transport address of this process? With port 0:
 * the host of one?
 */
bool turn_relayed_is(struct turn_shared *shared, const union addr *addr);
/* The same, or is it claimed? */
bool turn_relayed_taken(struct turn_shared *shared, const union addr *addr);

/* A relayed port that must not be given away though no allocation has it. */
struct port_claim;
/* Counted; NULL when an allocation has it or without memory. */
struct port_claim *turn_port_claim(struct turn_shared *shared,
				   const union addr *addr);
void turn_port_unclaim(struct turn_shared *shared,
		       struct port_claim *claim); /* accepts NULL */

/* A connection that keeps none of its descriptors. */
void turn_connection_release(struct turn_shared *shared);

#endif
