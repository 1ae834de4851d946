/* SPDX-License-Identifier: BSD-2-Clause */
/* Refresh (RFC 8656 8.2, with RFC 8016 3.2 for a client that has moved). */
#include <string.h>

#include "turn/allocation.h"
#include "turn/mobile.h"
#include "turn/outlet.h"

/*
 * A new token need not have the key of the one before (RFC 7635 8): here, where it
 * must be shown, any of the realm's is taken, for whoever shows it sends from the
 * client's own address. The allocation goes on being counted as its maker's.
 */
static int refresh_allocation(struct request *req, struct allocation **out)
{
	struct allocation *own = req->client->allocation;
	int code = turn_request_allocation(req, out);

	if (code == STUN_CODE_WRONG_CREDENTIALS && own->until_s &&
	    req->until_s && stun_has(req->msg, STUN_ATTR_ACCESS_TOKEN) &&
	    strcmp(auth_account_realm(own->account),
		   auth_account_realm(req->account)) == 0) {
		*out = own;
		code = 0;
	}
	if (!code && stun_has(req->msg, STUN_ATTR_ACCESS_TOKEN))
		turn_allocation_token(*out, req);
	return code;
}

/*
 * What the request is about: *out, or all of the allocation (NULL). One that this very
 * request has ended is found, too: its answer may have been lost. 0 or a code.
 */
static int outlet_find(const struct request *req,
		       const struct allocation *allocation, struct outlet **out)
{
	struct outlet *outlet = NULL;
	sa_family_t family;
	int code = turn_request_family(req, &family);

	if (code == STUN_CODE_BAD_REQUEST)
		return code;
	if (!code && family != AF_UNSPEC)
		outlet = turn_outlet_made(allocation, family);
	if (outlet && outlet->closed &&
	    (!outlet->refreshed_away ||
	     memcmp(outlet->end_txid, req->tx.txid, STUN_TXID_LEN) != 0))
		outlet = NULL;
	/* A family that does not exist is not the allocation's either. */
	if (!outlet && (code || family != AF_UNSPEC))
		return STUN_CODE_PEER_ADDRESS_FAMILY_MISMATCH;
	*out = outlet;
	return 0;
}

static void lifetime_set(const struct request *req,
			 struct allocation *allocation, struct outlet *outlet,
			 uint64_t lifetime_ms)
{
	if (outlet && outlet->closed)
		return;
	if (outlet && lifetime_ms) {
		turn_outlet_prolong(outlet, lifetime_ms);
	} else if (outlet) {
		outlet->refreshed_away = true;
		memcpy(outlet->end_txid, req->tx.txid, STUN_TXID_LEN);
		turn_outlet_end(outlet, "refresh");
	} else if (lifetime_ms) {
		turn_allocation_prolong(allocation, lifetime_ms);
	} else {
		turn_allocation_end(allocation, "refresh", false);
	}
}

int turn_refresh(struct request *req)
{
	const bool moved = stun_has(req->msg, STUN_ATTR_MOBILITY_TICKET);
	struct allocation *allocation;
	struct outlet *outlet;
	uint64_t lifetime_ms;
	int code = moved ? turn_mobile_refresh(req) : 0;

	if (!code)
		code = refresh_allocation(req, &allocation);
	if (!code)
		code = outlet_find(req, allocation, &outlet);
	if (!code)
		code = turn_request_lifetime(req, true, &lifetime_ms);
	if (!code && lifetime_ms)
		code = turn_request_in_time(req);
	if (code)
		return code;
	lifetime_set(req, allocation, outlet, lifetime_ms);
	if (moved && !allocation->ended)
		turn_mobile_ticket_put(&req->answer, allocation);
	stun_put_u32(&req->answer, STUN_ATTR_LIFETIME,
		     (uint32_t)(lifetime_ms / 1000));
	return 0;
}
