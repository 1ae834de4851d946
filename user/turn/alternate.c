/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ALTERNATE-SERVER (RFC 8489 10, RFC 8656 7.2).
 *
 * Who is asked has shown credentials first, so that the answer is signed and tells
 * nothing to strangers. Servers of the client's transport and address family come
 * into question, by weight:
 *
 *   draining, or above redirect_above   only the others
 *   with a weight of our own            the others and this one
 *   otherwise                           this one
 *
 * The choice is a function of user, client host and the servers' addresses
 * (rendezvous hashing: each server draws a number for the client, as often as its
 * weight, and the highest wins), the same on each server: a client that was sent
 * on is not sent back.
 */
#include "turn/alternate.h"

#include <stdatomic.h>
#include <string.h>

#define MILLION UINT64_C(1000000)

/* FNV-1a: the servers must agree, so it has no key of this process. */
static uint64_t hash_more(uint64_t hash, const void *data, size_t len)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
	return hash;
}

static uint64_t hash_addr(uint64_t hash, const union addr *addr, uint16_t port)
{
	const uint8_t low_high[2] = { (uint8_t)port, (uint8_t)(port >> 8) };
	size_t len;
	const uint8_t *bytes = addr_bytes(addr, &len);

	return hash_more(hash_more(hash, bytes, len), low_high,
			 sizeof(low_high));
}

/* Spreads what FNV leaves together (the finalizer of splitmix64). */
static uint64_t hash_mix(uint64_t hash)
{
	hash = (hash ^ hash >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	hash = (hash ^ hash >> 27) * UINT64_C(0x94d049bb133111eb);
	return hash ^ hash >> 31;
}

static uint64_t client_hash(const struct request *req)
{
	const char *user = auth_account_user(req->account);
	uint64_t hash =
		hash_more(UINT64_C(0xcbf29ce484222325), user, strlen(user) + 1);

	return hash_addr(hash, &req->client->remote, 0);
}

/* The highest of so many draws of a server. */
static uint64_t draw(uint64_t hash, const union addr *server,
		     unsigned int weight)
{
	uint64_t best = 0;

	hash = hash_addr(hash, server, addr_port(server));
	for (unsigned int i = 0; i < weight; i++) {
		uint64_t drawn = hash_mix(hash + i);

		if (drawn > best)
			best = drawn;
	}
	return best;
}

static const union addr *address_of(const struct conf_alternate *alternate,
				    sa_family_t family)
{
	for (size_t i = 0; i < alternate->address_count; i++)
		if (addr_family(&alternate->addresses[i]) == family)
			return &alternate->addresses[i];
	return NULL;
}

static bool share_is_above(unsigned int used, unsigned int limit,
			   unsigned int above)
{
	return limit && used * MILLION >= (uint64_t)limit * above;
}

static bool server_is_loaded(const struct request *req)
{
	const struct turn_shared *shared = req->worker->shared;
	const unsigned int above = turn_conf(req->worker)->redirect_above;

	return share_is_above(atomic_load(&shared->allocations),
			      turn_limits(req->worker)->allocations, above) ||
	       share_is_above(atomic_load(&shared->descriptors),
			      atomic_load(&shared->descriptor_budget), above);
}

/* What this server draws for the client; 0: it is out of the question. */
static uint64_t own_draw(const struct request *req, uint64_t hash)
{
	union addr own;

	if (turn_shared_draining(req->worker->shared) || server_is_loaded(req))
		return 0;
	if (!turn_conf(req->worker)->weight ||
	    !turn_client_local(req->client, &own))
		return UINT64_MAX;
	return draw(hash, &own, turn_conf(req->worker)->weight);
}

const struct conf_alternate *turn_alternate_for(const struct request *req)
{
	const struct conf *conf = turn_conf(req->worker);
	const struct conf_listener *listener = req->client->listener->conf;
	const struct conf_alternate *found = NULL;
	uint64_t hash, best;

	if (!conf->alternate_count || !listener)
		return NULL;
	hash = client_hash(req);
	best = own_draw(req, hash);
	for (size_t i = 0; i < conf->alternate_count; i++) {
		const struct conf_alternate *one = &conf->alternates[i];
		const union addr *at =
			address_of(one, addr_family(&req->client->remote));
		uint64_t drawn;

		if (one->transport != listener->transport || !at)
			continue;
		drawn = draw(hash, at, one->weight);
		if (drawn > best) {
			best = drawn;
			found = one;
		}
	}
	return found;
}

int turn_alternate_answer(struct request *req,
			  const struct conf_alternate *alternate)
{
	uint8_t buf[TURN_ANSWER_MAX];
	struct stun_writer w;

	req->worker->counters.allocations_redirected++;
	turn_answer_error_begin(&w, buf, req->client, &req->tx,
				STUN_CODE_TRY_ALTERNATE);
	stun_put_address(&w, STUN_ATTR_ALTERNATE_SERVER,
			 address_of(alternate,
				    addr_family(&req->client->remote)));
	if (alternate->domain)
		stun_put_string(&w, STUN_ATTR_ALTERNATE_DOMAIN,
				alternate->domain);
	turn_answer_send(req->client, &w, &req->tx);
	return TURN_LATER;
}
