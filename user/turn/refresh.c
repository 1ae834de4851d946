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

int turn_refresh(struct request *req)
{
	const bool moved = stun_has(req->msg, STUN_ATTR_MOBILITY_TICKET);
	struct allocation *allocation;
	uint64_t lifetime_ms;
	sa_family_t family;
	int code = moved ? turn_mobile_refresh(req) : 0;

	if (!code)
		code = refresh_allocation(req, &allocation);
	if (code)
		return code;
	code = turn_request_family(req, &family);
	/* A family that does not exist is not the allocation's either. */
	if (code == STUN_CODE_ADDRESS_FAMILY_NOT_SUPPORTED)
		return STUN_CODE_PEER_ADDRESS_FAMILY_MISMATCH;
	if (code)
		return code;
	if (family != AF_UNSPEC && !turn_outlet_of(allocation, family))
		return STUN_CODE_PEER_ADDRESS_FAMILY_MISMATCH;
	code = turn_request_lifetime(req, true, &lifetime_ms);
	if (!code && lifetime_ms)
		code = turn_request_in_time(req);
	if (code)
		return code;
	if (lifetime_ms)
		turn_allocation_prolong(allocation, lifetime_ms);
	else
		turn_allocation_end(allocation, "refresh", false);
	if (moved && lifetime_ms)
		turn_mobile_ticket_put(&req->answer, allocation);
	stun_put_u32(&req->answer, STUN_ATTR_LIFETIME,
		     (uint32_t)(lifetime_ms / 1000));
	return 0;
}
