/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The life of an allocation.
 *
 *   active -> ended -> freed
 *
 * active: it belongs to its control connection and is gone with it, by Refresh
 *   with 0, by expiry or by an operator.
 * ended: the relayed ports are closed, permissions and pending peer connections
 *   are gone, its place in every quota is free. Bound connections are finishing;
 *   for them, and for who looks at them, the structure stays.
 */
#include "turn/allocation.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "crypto/crypto.h"
#include "turn/access.h"
#include "turn/mobile.h"
#include "turn/outlet.h"
#include "turn/request.h"

void turn_allocation_prolong(struct allocation *allocation,
			     uint64_t lifetime_ms)
{
	struct outlet *outlet = turn_outlet_next(allocation, NULL);

	for (; outlet; outlet = turn_outlet_next(allocation, outlet))
		turn_outlet_prolong(outlet, lifetime_ms);
}

const char *turn_transport_name(enum stun_transport transport)
{
	return transport == STUN_TRANSPORT_UDP ? "udp" : "tcp";
}

/* Made, or ended for a reason. */
static void allocation_log(const struct allocation *allocation,
			   const char *reason)
{
	struct turn_worker *worker = allocation->worker;
	const struct outlet *first = turn_outlet_next(allocation, NULL),
			    *second = turn_outlet_next(allocation, first);
	char client[ADDR_STRLEN], relayed[ADDR_STRLEN], additional[ADDR_STRLEN];
	uint64_t suppressed;

	if (!log_enabled(LOG_LEVEL_INFO) ||
	    !turn_worker_may_log(worker,
				 reason ? TURN_LOG_ALLOCATION_ENDED :
					  TURN_LOG_ALLOCATION,
				 &suppressed))
		return;
	log_info(
		ROOM,
		"event=%s allocation=a%u.%ju user=%s realm=%s client=%s transport=%s relayed=%s%s%s%s%s suppressed=%ju",
		reason ? "allocation_ended" : "allocation", worker->index,
		(uintmax_t)allocation->serial,
		auth_account_user(allocation->account),
		auth_account_realm(allocation->account),
		addr_format(&allocation->client_addr, client),
		turn_transport_name(allocation->transport),
		addr_format(&first->relayed.addr, relayed),
		second ? " additional=" : "",
		second ? addr_format(&second->relayed.addr, additional) : "",
		reason ? " reason=" : "", reason ? reason : "",
		(uintmax_t)suppressed);
}

void turn_allocation_token(struct allocation *allocation,
			   const struct request *req)
{
	if (!req->until_s)
		return;
	auth_account_unref(allocation->token_account);
	allocation->token_account = auth_account_ref(req->account);
	allocation->token_key = req->tx.key;
	allocation->until_s = req->until_s;
}

/* A structure without its relayed addresses. */
static struct allocation *allocation_make(const struct request *req,
					  const struct allocation_wish *wish)
{
	struct turn_worker *worker = req->worker;
	struct allocation *allocation = calloc(1, sizeof(*allocation));

	if (!allocation)
		return NULL;
	allocation->worker = worker;
	allocation->client = req->client;
	allocation->client_addr = req->client->remote;
	allocation->account = auth_account_ref(req->account);
	turn_allocation_token(allocation, req);
	turn_access_set(allocation);
	allocation->transport = wish->transport;
	allocation->granted_ms = wish->lifetime_ms;
	allocation->mobile = wish->mobile;
	memcpy(allocation->refused, wish->refused, sizeof(wish->refused));
	memcpy(allocation->txid, req->tx.txid, sizeof(allocation->txid));
	allocation->created_ms = loop_now(worker->loop);
	allocation->serial = ++worker->allocation_serial;
	list_init(&allocation->conns);
	list_init(&allocation->permissions);
	list_init(&allocation->channels);
	return allocation;
}

static void resource_log(struct turn_worker *worker, const union addr *host,
			 int err)
{
	char address[ADDR_STRLEN];
	uint64_t suppressed;

	if (!turn_worker_may_log(worker, TURN_LOG_RESOURCE, &suppressed))
		return;
	log_warn(ROOM,
		 "event=allocate_failed host=%s error=%s%s suppressed=%ju",
		 addr_format_host(host, address), strerrorname_np(-err),
		 err == -EADDRNOTAVAIL ?
			 " hint=\"this host does not have this address: "
			 "see [relay] address\"" :
			 "",
		 (uintmax_t)suppressed);
}

static uint64_t serial_hash(uint64_t serial)
{
	return table_hash(&serial, sizeof(serial));
}

/* Opens what can be opened. 0 when something is open, or what has kept it back. */
static int outlets_open(struct allocation *allocation,
			const struct allocation_wish *wish)
{
	int err = -EADDRNOTAVAIL;

	for (size_t i = 0; i < TURN_FAMILIES; i++) {
		const union addr *host = &wish->hosts[i];

		if (addr_family(host) == AF_UNSPEC)
			continue;
		err = turn_outlet_open(allocation, wish, host);
		if (!err)
			continue;
		allocation->refused[i] = STUN_CODE_INSUFFICIENT_CAPACITY;
		resource_log(allocation->worker, host, err);
	}
	return turn_outlet_next(allocation, NULL) ? 0 : err;
}

static int allocation_open(const struct request *req,
			   const struct allocation_wish *wish)
{
	struct turn_worker *worker = req->worker;
	struct allocation *allocation = allocation_make(req, wish);
	int err;

	if (!allocation) {
		turn_reservation_free(worker->shared, wish->reserved);
		return -ENOMEM;
	}
	err = outlets_open(allocation, wish);
	if (err) {
		turn_allocation_free(allocation);
		return err;
	}
	list_add_tail(&allocation->link, &worker->allocations);
	table_insert(&worker->serials, &allocation->by_serial,
		     serial_hash(allocation->serial));
	req->client->allocation = allocation;
	worker->counters.allocations++;
	worker->counters.allocations_made++;
	turn_allocation_prolong(allocation, wish->lifetime_ms);
	turn_client_timer(req->client);
	allocation_log(allocation, NULL);
	return 0;
}

/* A place in every quota: 0, or the code that says which is full. */
static int places_take(const struct request *req)
{
	struct turn_worker *worker = req->worker;
	const struct turn_access access =
		turn_settings_access(worker->settings, req->account);
	int code;

	if (!turn_gauge_take(&worker->shared->allocations,
			     turn_limits(worker)->allocations))
		return STUN_CODE_INSUFFICIENT_CAPACITY;
	code = turn_access_take(worker, req->account, &access,
				AUTH_QUOTA_ALLOCATIONS);
	if (code)
		turn_gauge_release(&worker->shared->allocations);
	return code;
}

static void places_release(struct turn_worker *worker,
			   struct auth_account *account)
{
	auth_quota_release(account, AUTH_QUOTA_ALLOCATIONS);
	turn_gauge_release(&worker->shared->allocations);
}

int turn_allocation_new(const struct request *req,
			const struct allocation_wish *wish)
{
	struct turn_worker *worker = req->worker;
	int err, code = places_take(req);

	if (code) {
		turn_reservation_free(worker->shared, wish->reserved);
		return code;
	}
	err = allocation_open(req, wish);
	if (!err)
		return 0;
	places_release(worker, req->account);
	return STUN_CODE_INSUFFICIENT_CAPACITY;
}

struct allocation *turn_allocation_find(const struct turn_worker *worker,
					uint64_t serial)
{
	struct table_node *node =
		table_first(&worker->serials, serial_hash(serial));

	for (; node; node = table_next(node)) {
		struct allocation *allocation =
			list_entry(node, struct allocation, by_serial);

		if (allocation->serial == serial)
			return allocation;
	}
	return NULL;
}

void turn_allocation_end(struct allocation *allocation, const char *reason,
			 bool hard)
{
	struct turn_worker *worker = allocation->worker;
	struct client *client = allocation->client;
	struct outlet *outlet = turn_outlet_next(allocation, NULL);

	if (allocation->ended)
		return;
	allocation->ended = true;
	allocation_log(allocation, reason);
	for (; outlet; outlet = turn_outlet_next(allocation, outlet))
		turn_outlet_close(outlet);
	places_release(worker, allocation->account);
	worker->counters.allocations--;
	table_remove(&worker->serials, &allocation->by_serial);
	list_del(&allocation->link);
	list_add_tail(&allocation->link, &worker->ended);
	for (size_t i = 0; i < TURN_FAMILIES; i++)
		if (allocation->outlets[i])
			turn_outlet_conns_end(allocation->outlets[i], hard);
	turn_mobile_forget(allocation, reason);
	allocation->client = NULL;
	client->allocation = NULL;
	turn_client_idle(client, reason);
	turn_allocation_release(allocation);
}

void turn_allocation_release(struct allocation *allocation)
{
	struct turn_worker *worker = allocation->worker;

	if (allocation->ended && list_empty(&allocation->conns))
		turn_worker_bury(worker, &allocation->link,
				 &worker->dead_allocations);
}

void turn_allocation_free(struct allocation *allocation)
{
	assert(list_empty(&allocation->conns));
	for (size_t i = 0; i < TURN_FAMILIES; i++)
		turn_outlet_free(allocation->outlets[i]);
	auth_account_unref(allocation->account);
	auth_account_unref(allocation->token_account);
	crypto_wipe(&allocation->token_key, sizeof(allocation->token_key));
	free(allocation);
}
