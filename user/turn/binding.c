/* SPDX-License-Identifier: BSD-2-Clause */
/* Binding (RFC 8489 7), and the method that TCP allocations do not have. */
#include "turn/allocation.h"
#include "turn/request.h"

int turn_binding(struct request *req)
{
	stun_put_xor_address(&req->answer, STUN_ATTR_XOR_MAPPED_ADDRESS,
			     &req->client->remote);
	return 0;
}

int turn_channel_bind(struct request *req)
{
	struct allocation *allocation;
	int code = turn_request_allocation(req, &allocation);

	return code ? code : STUN_CODE_FORBIDDEN;
}
