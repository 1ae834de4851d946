/* SPDX-License-Identifier: BSD-2-Clause */
/* Binding (RFC 8489 7). */
#include "turn/discovery.h"

int turn_binding(struct request *req)
{
	int code = turn_discovery_answer(req);

	if (code)
		return code;
	stun_put_xor_address(&req->answer, STUN_ATTR_XOR_MAPPED_ADDRESS,
			     &req->client->remote);
	return 0;
}
