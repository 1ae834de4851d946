/* SPDX-License-Identifier: BSD-2-Clause */
/* Allocate (RFC 8656 7.2, with RFC 6062 5.1 for TCP). */
#include <string.h>

#include "turn/allocation.h"
#include "turn/alternate.h"
#include "turn/datagram.h"
#include "turn/mobile.h"
#include "turn/outlet.h"
#include "turn/relayed_host.h"
#include "turn/request.h"

#define RESERVE_NEXT 0x80 /* of EVEN-PORT's one byte: R */

/* REQUESTED-TRANSPORT: 0, or the code that refuses. */
static int transport_check(const struct request *req,
			   struct allocation_wish *wish)
{
	struct stun_attr attr;

	if (!stun_find(req->msg, STUN_ATTR_REQUESTED_TRANSPORT, &attr) ||
	    attr.len != 4)
		return STUN_CODE_BAD_REQUEST;
	wish->transport = attr.value[0];
	switch (attr.value[0]) {
	case STUN_TRANSPORT_TCP: /* over a stream alone: RFC 6062 5.1 */
		return req->client->stream ? 0 : STUN_CODE_BAD_REQUEST;
	case STUN_TRANSPORT_UDP:
		return turn_conf(req->worker)->relay.udp ? 0 :
							   STUN_CODE_FORBIDDEN;
	default:
		return STUN_CODE_UNSUPPORTED_TRANSPORT;
	}
}

/* EVEN-PORT and its like, which only make sense for UDP: 0 or 400. */
static int attributes_check(const struct request *req,
			    struct allocation_wish *wish)
{
	struct stun_attr even, token;
	const bool has_even = stun_find(req->msg, STUN_ATTR_EVEN_PORT, &even);
	const bool has_token =
		stun_find(req->msg, STUN_ATTR_RESERVATION_TOKEN, &token);

	if (wish->transport == STUN_TRANSPORT_TCP)
		return has_even || has_token ||
				       stun_has(req->msg,
						STUN_ATTR_DONT_FRAGMENT) ?
			       STUN_CODE_BAD_REQUEST :
			       0;
	if ((has_even && even.len != 1) ||
	    (has_token &&
	     (has_even || token.len != TURN_TOKEN_LEN ||
	      stun_has(req->msg, STUN_ATTR_REQUESTED_ADDRESS_FAMILY) ||
	      stun_has(req->msg, STUN_ATTR_ADDITIONAL_ADDRESS_FAMILY))))
		return STUN_CODE_BAD_REQUEST;
	wish->even = has_even;
	wish->reserve = has_even && (even.value[0] & RESERVE_NEXT);
	return 0;
}

/* REQUESTED- or ADDITIONAL-ADDRESS-FAMILY: 0, or the code that refuses. */
static int families_check(const struct request *req,
			  struct allocation_wish *wish)
{
	struct stun_attr attr;
	sa_family_t family;
	int code;

	if (!stun_find(req->msg, STUN_ATTR_ADDITIONAL_ADDRESS_FAMILY, &attr)) {
		code = turn_request_family(req, &family);
		/* IPv4 unless another one is asked for. */
		wish->wanted[turn_family_index(family)] = true;
		return code;
	}
	/* It means both: one port is reserved, and IPv6 is what is added. */
	if (stun_has(req->msg, STUN_ATTR_REQUESTED_ADDRESS_FAMILY) ||
	    wish->reserve || attr.len != 4 || attr.value[0] != STUN_FAMILY_IPV6)
		return STUN_CODE_BAD_REQUEST;
	wish->wanted[0] = wish->wanted[1] = true;
	return 0;
}

/*
 * The host of each family, or why it has none. 0 when one has; 508 rather than 440
 * otherwise, for that may pass.
 */
static int hosts_choose(const struct request *req, struct allocation_wish *wish)
{
	bool found = false;
	int worst = 0;

	for (size_t i = 0; i < TURN_FAMILIES; i++) {
		int code = wish->wanted[i] ?
				   turn_relayed_host(req, turn_family(i),
						     &wish->hosts[i]) :
				   0;

		wish->refused[i] = code;
		found |= wish->wanted[i] && !code;
		if (code > worst)
			worst = code;
	}
	return found ? 0 : worst;
}

/* Takes what RESERVATION-TOKEN means: 0, or 508 when it is not to be had. */
static int reservation_claim(const struct request *req,
			     struct allocation_wish *wish)
{
	const union addr *addr;
	struct stun_attr token;

	if (!stun_find(req->msg, STUN_ATTR_RESERVATION_TOKEN, &token))
		return 0;
	wish->reserved = turn_reservation_take(req->worker->shared, token.value,
					       req->account);
	if (!wish->reserved)
		return STUN_CODE_INSUFFICIENT_CAPACITY;
	addr = &wish->reserved->relayed.addr;
	wish->hosts[turn_family_index(addr_family(addr))] = *addr;
	return 0;
}

/* Everything that can be refused, or sent elsewhere, without making anything. */
static int request_check(struct request *req, struct allocation_wish *wish)
{
	const struct conf_alternate *alternate;
	int code;

	if (req->client->allocation)
		return STUN_CODE_ALLOCATION_MISMATCH;
	code = transport_check(req, wish);
	if (!code)
		code = attributes_check(req, wish);
	if (!code)
		code = families_check(req, wish);
	if (!code)
		code = turn_request_lifetime(req, false, &wish->lifetime_ms);
	if (!code)
		code = turn_mobile_asked(req, &wish->mobile);
	if (code)
		return code;
	/* What is reserved is here; else 508 is for who cannot go elsewhere. */
	if (stun_has(req->msg, STUN_ATTR_RESERVATION_TOKEN))
		return turn_shared_draining(req->worker->shared) ?
			       STUN_CODE_INSUFFICIENT_CAPACITY :
			       0;
	alternate = turn_alternate_for(req);
	if (alternate)
		return turn_alternate_answer(req, alternate);
	if (turn_shared_draining(req->worker->shared))
		return STUN_CODE_INSUFFICIENT_CAPACITY;
	return hosts_choose(req, wish);
}

/* Makes it, for a client that lasts. 0 or a code. */
static int allocation_make(struct request *req, struct allocation_wish *wish)
{
	int code = turn_datagram_keep(req);

	if (code)
		return code;
	code = reservation_claim(req, wish);
	if (!code)
		code = turn_allocation_new(req, wish);
	/* Of datagrams nobody is known without an allocation. */
	if (code)
		turn_client_idle(req->client, "refused");
	return code;
}

/* Is it the request that made the allocation, again (RFC 8656 7.2)? */
static bool is_repeat(const struct request *req)
{
	const struct allocation *allocation = req->client->allocation;

	return allocation && allocation->account == req->account &&
	       memcmp(allocation->txid, req->tx.txid, STUN_TXID_LEN) == 0;
}

/* What it got, also if it has ended since, and what it did not get. */
static void addresses_put(struct stun_writer *w,
			  const struct allocation *allocation)
{
	for (size_t i = 0; i < TURN_FAMILIES; i++)
		if (allocation->outlets[i])
			stun_put_xor_address(
				w, STUN_ATTR_XOR_RELAYED_ADDRESS,
				&allocation->outlets[i]->relayed.addr);
	for (size_t i = 0; i < TURN_FAMILIES; i++)
		if (allocation->refused[i])
			stun_put_address_error(
				w, i ? STUN_FAMILY_IPV6 : STUN_FAMILY_IPV4,
				allocation->refused[i]);
}

int turn_allocate(struct request *req)
{
	struct allocation_wish wish = { 0 };
	const struct allocation *allocation;
	int code = 0;

	if (!is_repeat(req)) {
		code = turn_request_in_time(req);
		if (!code)
			code = request_check(req, &wish);
		if (!code)
			code = allocation_make(req, &wish);
	}
	if (code)
		return code;
	allocation = req->client->allocation;
	addresses_put(&req->answer, allocation);
	stun_put_u32(&req->answer, STUN_ATTR_LIFETIME,
		     (uint32_t)(allocation->granted_ms / 1000));
	if (allocation->reserved)
		stun_put(&req->answer, STUN_ATTR_RESERVATION_TOKEN,
			 allocation->token, TURN_TOKEN_LEN);
	if (allocation->mobile)
		turn_mobile_ticket_put(&req->answer, allocation);
	stun_put_xor_address(&req->answer, STUN_ATTR_XOR_MAPPED_ADDRESS,
			     &req->client->remote);
	return 0;
}
