/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mobility (RFC 8016).
 *
 *   held by A -> Refresh with the ticket from B -> held by B, A is the former
 *             -> anything else from B ------------> held by B alone
 *
 * A client that asked for it has a ticket: the allocation's worker, number and
 * generation under a tag of ours. From another 5-tuple it shows the ticket in a
 * Refresh, with its credentials: a ticket alone is worth nothing, nor is one of
 * another user. The answer has the ticket of the next generation, so each serves
 * once; that answer may be lost, so the same request from the same place is answered
 * again, and the former 5-tuple is heard, and gets what comes from peers, until the
 * client has used the new one (3.2.2), or has closed the old connection. No channel is
 * put on wire meanwhile; one that is there is taken off. Data connections of a TCP
 * allocation belong to the allocation and notice nothing. A control connection that
 * breaks is what a move looks like, so a mobile allocation outlives it, to the end
 * of its lifetime.
 *
 * The new 5-tuple may have come to another worker, which holds no such allocation:
 * a connection moves there whole (move.c), datagrams take a detour (detour.c); there
 * the Refresh is handled from its first byte.
 */
#include "turn/mobile.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/secret.h"
#include "crypto/crypto.h"
#include "turn/allocation.h"
#include "turn/datagram.h"
#include "turn/detour.h"
#include "turn/lane.h"
#include "turn/move.h"

/*
 * A ticket is text, and no longer than this, for coturn's client takes it for a
 * string of at most 32: the claim in hexadecimal and 96 bits of a tag in base64. The
 * claim is no secret. It is the nonce of its own tag, so no two messages share one.
 */
#define CLAIM_LEN  8
#define TAG_LEN    12
#define NONCE_LEN  12
#define TICKET_LEN ((size_t)2 * CLAIM_LEN + TAG_LEN / 3 * 4)
/* Bits of a claim. */
#define WORKER_BITS     6
#define SERIAL_BITS     34
#define GENERATION_BITS 24

_Static_assert(CONF_MAX_WORKERS <= 1 << WORKER_BITS, "the worker fits");
_Static_assert(WORKER_BITS + SERIAL_BITS + GENERATION_BITS == 8 * CLAIM_LEN,
	       "the claim is full");

#define LOW_BITS(value, bits) ((value) & ((UINT64_C(1) << (bits)) - 1))

/* What a ticket says. */
struct claim {
	unsigned int worker;
	uint64_t serial;
	uint32_t generation;
};

/* The ticket with this claim and a NUL. 0, -ENOMEM or -EIO. */
static int ticket_write(const struct turn_shared *shared, uint64_t claim,
			char out[TICKET_LEN + 1])
{
	uint8_t nonce[NONCE_LEN] = { 0 }, tag[CRYPTO_TAG_LEN];
	const struct crypto_aead seal = {
		.key = shared->ticket_key,
		.key_len = sizeof(shared->ticket_key),
		.nonce = nonce,
		.nonce_len = sizeof(nonce),
	};
	int err;

	put_be64(nonce, claim);
	err = crypto_seal(&seal, "", 0, tag);
	if (err)
		return err;
	snprintf(out, TICKET_LEN + 1, "%016" PRIx64, claim);
	crypto_base64(tag, TAG_LEN, out + (size_t)2 * CLAIM_LEN);
	return 0;
}

void turn_mobile_ticket_put(struct stun_writer *w,
			    const struct allocation *allocation)
{
	const struct turn_worker *worker = allocation->worker;
	const uint64_t claim =
		(uint64_t)worker->index << (SERIAL_BITS + GENERATION_BITS) |
		LOW_BITS(allocation->serial, SERIAL_BITS) << GENERATION_BITS |
		LOW_BITS(allocation->generation, GENERATION_BITS);
	char ticket[TICKET_LEN + 1];
	int err = ticket_write(worker->shared, claim, ticket);

	if (err)
		w->error = err;
	else
		stun_put_string(w, STUN_ATTR_MOBILITY_TICKET, ticket);
}

/* 0, or the code that refuses it. */
static int ticket_read(const struct request *req, struct claim *out)
{
	char digits[2 * CLAIM_LEN + 1], ours[TICKET_LEN + 1];
	struct stun_attr ticket;
	uint64_t claim;

	if (!stun_find(req->msg, STUN_ATTR_MOBILITY_TICKET, &ticket) ||
	    ticket.len != TICKET_LEN)
		return STUN_CODE_BAD_REQUEST;
	memcpy(digits, ticket.value, sizeof(digits) - 1);
	digits[sizeof(digits) - 1] = '\0';
	/* Whatever this makes of other text, the ticket is not that text. */
	claim = strtoull(digits, NULL, 16);
	if (ticket_write(req->worker->shared, claim, ours))
		return STUN_CODE_SERVER_ERROR;
	if (!secret_equal(ticket.value, ours, TICKET_LEN))
		return STUN_CODE_BAD_REQUEST;
	out->worker = (unsigned int)(claim >> (SERIAL_BITS + GENERATION_BITS));
	out->serial = LOW_BITS(claim >> GENERATION_BITS, SERIAL_BITS);
	out->generation = (uint32_t)LOW_BITS(claim, GENERATION_BITS);
	return 0;
}

int turn_mobile_asked(const struct request *req, bool *out)
{
	struct stun_attr ticket;

	*out = stun_find(req->msg, STUN_ATTR_MOBILITY_TICKET, &ticket);
	if (!*out)
		return 0;
	if (!turn_conf(req->worker)->relay.mobility || req->client->dtls)
		return STUN_CODE_MOBILITY_FORBIDDEN;
	return ticket.len ? STUN_CODE_BAD_REQUEST : 0;
}

/* Encryption is not lost unseen, and TCP needs a connection (RFC 6062 4.3). */
static bool client_may_take(const struct request *req,
			    const struct allocation *allocation)
{
	const struct client *from = allocation->client, *to = req->client;

	if (allocation->transport == STUN_TRANSPORT_TCP && !to->stream)
		return false;
	return turn_conf(req->worker)->mixed_transports ||
	       turn_client_sealed(from) == turn_client_sealed(to);
}

/* 0, or the code that says why not. */
static int move_check(const struct request *req,
		      const struct allocation *allocation,
		      const struct claim *claim)
{
	if (allocation->account != req->account)
		return STUN_CODE_WRONG_CREDENTIALS;
	if (!allocation->mobile ||
	    LOW_BITS(allocation->generation, GENERATION_BITS) !=
		    claim->generation)
		return STUN_CODE_BAD_REQUEST;
	return client_may_take(req, allocation) ? 0 : STUN_CODE_FORBIDDEN;
}

static void moved_log(const struct allocation *allocation)
{
	struct turn_worker *worker = allocation->worker;
	char from[ADDR_STRLEN], to[ADDR_STRLEN];

	worker->counters.allocations_moved++;
	log_debug(ROOM,
		  "event=allocation_moved allocation=a%u.%ju from=%s to=%s",
		  worker->index, (uintmax_t)allocation->serial,
		  addr_format(&allocation->client_addr, from),
		  addr_format(&allocation->client->remote, to));
}

/* Gives it to req->client, which lasts then. 0 or 508. */
static int move_make(struct request *req, struct allocation *allocation)
{
	int code = req->client->allocation ? 0 : turn_datagram_keep(req);

	if (code)
		return code;
	turn_lanes_end(allocation);
	if (allocation->former != req->client)
		turn_mobile_forget(allocation, "moved");
	allocation->former = allocation->client;
	allocation->client = req->client;
	req->client->allocation = allocation;
	turn_client_timer(req->client);
	moved_log(allocation);
	allocation->client_addr = req->client->remote;
	allocation->generation++;
	memcpy(allocation->moved_txid, req->tx.txid, STUN_TXID_LEN);
	return 0;
}

/* The worker that has it takes the request over. */
static int owner_ask(struct request *req, unsigned int owner)
{
	return req->client->stream ? turn_move_client(req, owner) :
				     turn_detour_begin(req, owner);
}

int turn_mobile_refresh(struct request *req)
{
	const struct allocation *own = req->client->allocation;
	struct allocation *allocation;
	struct claim claim;
	int code = turn_request_in_time(req);

	/* An association cannot be handed to another worker. */
	if (!code && req->client->dtls)
		code = STUN_CODE_MOBILITY_FORBIDDEN;
	if (!code)
		code = ticket_read(req, &claim);
	if (code)
		return code;
	/* The answer was lost. */
	if (own && own->client == req->client &&
	    !memcmp(own->moved_txid, req->tx.txid, STUN_TXID_LEN))
		return 0;
	if (claim.worker != req->worker->index)
		return own ? STUN_CODE_BAD_REQUEST :
			     owner_ask(req, claim.worker);
	allocation = turn_allocation_find(req->worker, claim.serial);
	if (!allocation)
		return STUN_CODE_ALLOCATION_MISMATCH;
	/* It is there already, or has another one. */
	if (own && own->former != req->client)
		return STUN_CODE_BAD_REQUEST;
	if (own && own != allocation)
		return STUN_CODE_BAD_REQUEST;
	code = move_check(req, allocation, &claim);
	return code ? code : move_make(req, allocation);
}

struct client *turn_mobile_receiver(const struct allocation *allocation)
{
	struct client *former = allocation->former;

	return former && !former->absent ? former : allocation->client;
}

void turn_mobile_confirm(struct client *client)
{
	struct allocation *allocation = client->allocation;

	if (allocation && allocation->former && allocation->client == client)
		turn_mobile_forget(allocation, "moved");
}

bool turn_mobile_leave(struct client *client)
{
	struct allocation *allocation = client->allocation;

	if (!allocation || allocation->former != client)
		return false;
	allocation->former = NULL;
	client->allocation = NULL;
	return true;
}

void turn_mobile_forget(struct allocation *allocation, const char *reason)
{
	struct client *former = allocation->former;

	if (!former)
		return;
	allocation->former = NULL;
	former->allocation = NULL;
	turn_client_idle(former, reason);
}

bool turn_mobile_waits(const struct client *client)
{
	const struct allocation *allocation = client->allocation;

	return allocation && allocation->mobile && allocation->client == client;
}
