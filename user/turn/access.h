/* SPDX-License-Identifier: BSD-2-Clause */
/* What an allocation may do, by its user, its realm and [peers]. */
#ifndef TURN_ACCESS_H
#define TURN_ACCESS_H

#include "turn/allocation.h"

struct channel;

/* May this address be a peer's? */
bool turn_access_allows(const struct allocation *allocation,
			const union addr *peer);
/*
 * May its host be, at any port? For a permission, whose port means nothing (RFC 8656
 * 10.2), but that a refused host is excepted for a relayed address alone, or,
 * without a port, for any that it has.
 */
bool turn_access_allows_host(const struct allocation *allocation,
			     const union addr *peer);
/* The same of a channel's peer, which is judged once as a rule. */
bool turn_access_allows_channel(struct channel *channel);

/*
 * One more allocation or peer connection for this account: 0, or 486 when the user or
 * the realm has as many as it may.
 */
int turn_access_take(struct turn_worker *worker, struct auth_account *account,
		     const struct turn_access *access, enum auth_quota what);

/* Fills in what the settings in force say: access and rates. */
void turn_access_set(struct allocation *allocation);
/* Has its bandwidth a limit, either way? Then nothing in the kernel carries it. */
bool turn_access_limited(const struct allocation *allocation);
/* May a datagram pass now? Counts one that may not. */
bool turn_access_passes(const struct allocation *allocation, enum rate_way way,
			size_t len);

/* Reads this machine's addresses and links, if that is a second ago. */
void turn_access_refresh(struct turn_worker *worker);

/* After worker->settings has changed. */
void turn_access_reload(struct turn_worker *worker);

#endif
