/* SPDX-License-Identifier: BSD-2-Clause */
/* Binding (RFC 8489 7). */
#include "turn/request.h"

int turn_binding(struct request *req)
{
	stun_put_xor_address(&req->answer, STUN_ATTR_XOR_MAPPED_ADDRESS,
			     &req->client->remote);
	return 0;
}
