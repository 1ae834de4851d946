/* SPDX-License-Identifier: BSD-2-Clause */
/* An allocation's relayed transport address of one family, with what hangs on it. */
#ifndef TURN_OUTLET_H
#define TURN_OUTLET_H

#include "turn/allocation.h"
#include "turn/shared.h"

struct outlet {
	struct allocation *allocation;
	struct relayed relayed; /* the address stays when it is closed */
	struct listener *listener; /* on it; NULL: UDP, or closed */
	struct udp_socket *udp; /* bound to it; NULL: TCP, or closed */
	struct port_claim *claim; /* on it when closed, for pairs on wire */
	struct timer expiry;
	uint64_t expires_ms;
	bool refreshed_away; /* closed by the Refresh of end_txid, not by time */
	uint8_t end_txid[STUN_TXID_LEN];
	bool closed;
};

/* The one for peers of this family; NULL: there is none, or no more. */
struct outlet *turn_outlet_of(const struct allocation *allocation,
			      sa_family_t family);
/* Walks the open ones, IPv4 first: the one behind `before`, or the first; or NULL. */
struct outlet *turn_outlet_next(const struct allocation *allocation,
				const struct outlet *before);
/* The one of this family, also when it is closed by now. */
struct outlet *turn_outlet_made(const struct allocation *allocation,
				sa_family_t family);

/*
 * Opens one at this host, or, of UDP, with what the wish has of a reservation, which
 * it takes over in any case. 0 or a negative errno.
 */
int turn_outlet_open(struct allocation *allocation,
		     const struct allocation_wish *wish,
		     const union addr *host);

/* Sets the time it has left. */
void turn_outlet_prolong(struct outlet *outlet, uint64_t lifetime_ms);

/* Ends it, with the permissions, channels and connections of its family, or the
 * whole allocation when no other is open.
 */
void turn_outlet_end(struct outlet *outlet, const char *reason);

/* For the end of the allocation: everything but connections; then these. */
void turn_outlet_close(struct outlet *outlet);
void turn_outlet_conns_end(struct outlet *outlet, bool hard);
void turn_outlet_free(struct outlet *outlet); /* accepts NULL */

#endif
