/* SPDX-License-Identifier: BSD-2-Clause */
/* Refresh (RFC 8656 8.2, with RFC 8016 3.2 for a client that has moved). */
#include "turn/allocation.h"
#include "turn/mobile.h"

int turn_refresh(struct request *req)
{
	const bool moved = stun_has(req->msg, STUN_ATTR_MOBILITY_TICKET);
	struct allocation *allocation;
	uint64_t lifetime_ms;
	sa_family_t family;
	int code = moved ? turn_mobile_refresh(req) : 0;

	if (!code)
		code = turn_request_allocation(req, &allocation);
	if (code)
		return code;
	code = turn_request_family(req, &family);
	/* A family that does not exist is not the allocation's either. */
	if (code == STUN_CODE_ADDRESS_FAMILY_NOT_SUPPORTED)
		return STUN_CODE_PEER_ADDRESS_FAMILY_MISMATCH;
	if (code)
		return code;
	if (family != AF_UNSPEC &&
	    family != addr_family(&allocation->relayed.addr))
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
