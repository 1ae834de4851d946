/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the workers of one process share.
 *
 * Gauges are atomics. The relayed transport addresses in use are a table under a
 * mutex: written once per allocation, read only for a peer whose address is
 * refused or when a relayed port is looked for.
 */
#include "turn/shared.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/random.h"
#include "base/syscalls.h"
#include "crypto/crypto.h"
#include "turn/excess.h"

/* Asks for a limit, sets none. */
SYSCALLS_NULL(SYSCALLS_SUPERVISOR | SYSCALLS_RELAY, "prlimit64", 2);

/* Descriptors of the process (log, channel, control) and of each worker (epoll,
 * io_uring, their eventfds, a first pipe).
 */
#define RESERVE_PROCESS 16u
#define RESERVE_WORKER  8u
#define BUDGET_MIN      16u

/* A range of ports that a walk has found in use. */
struct ports_full {
	bool known;
	uint16_t min, max;
};

/* An address that has relayed ports, for permissions: they have no port. */
struct relayed_host {
	struct list link;
	union addr addr;
	size_t uses, claims; /* the latter are among the former */
	struct ports_full full[2]; /* every port; every even one */
};

int turn_shared_new(unsigned int workers, struct turn_shared **out)
{
	struct turn_shared *shared;

	if (workers == 0 || workers > CONF_MAX_WORKERS)
		return -EINVAL;
	shared = calloc(1, sizeof(*shared));
	if (!shared)
		return -ENOMEM;
	if (auth_guard_new(&shared->guard))
		goto free_shared;
	if (turn_excess_new(&shared->excess))
		goto free_guard;
	if (table_init(&shared->relayed))
		goto free_excess;
	if (turn_sources_init(&shared->handshake_sources))
		goto destroy_relayed;
	if (turn_sources_init(&shared->waiting_sources))
		goto destroy_handshakes;
	shared->worker_count = workers;
	shared->instance = random_u32() >> 8;
	random_bytes(shared->ticket_key, sizeof(shared->ticket_key));
	pthread_mutex_init(&shared->lock, NULL);
	turn_dead_init(&shared->dead);
	list_init(&shared->relayed_hosts);
	list_init(&shared->reservations);
	*out = shared;
	return 0;

destroy_handshakes:
	turn_sources_destroy(&shared->handshake_sources);
destroy_relayed:
	table_destroy(&shared->relayed);
free_excess:
	turn_excess_free(shared->excess);
free_guard:
	auth_guard_free(shared->guard);
free_shared:
	free(shared);
	return -ENOMEM;
}

void turn_shared_free(struct turn_shared *shared)
{
	if (!shared)
		return;
	turn_excess_free(shared->excess);
	crypto_wipe(shared->ticket_key, sizeof(shared->ticket_key));
	auth_guard_free(shared->guard);
	table_destroy(&shared->relayed);
	turn_sources_destroy(&shared->handshake_sources);
	turn_sources_destroy(&shared->waiting_sources);
	pthread_mutex_destroy(&shared->lock);
	turn_dead_destroy(&shared->dead);
	free(shared);
}

void turn_shared_drain(struct turn_shared *shared, bool on)
{
	atomic_store(&shared->draining, on);
}

bool turn_shared_draining(const struct turn_shared *shared)
{
	return atomic_load(&shared->draining);
}

bool turn_gauge_take(_Atomic unsigned int *gauge, unsigned int limit)
{
	unsigned int now = atomic_load(gauge);

	do {
		if (limit && now >= limit)
			return false;
	} while (!atomic_compare_exchange_weak(gauge, &now, now + 1));
	return true;
}

void turn_gauge_release(_Atomic unsigned int *gauge)
{
	atomic_fetch_sub(gauge, 1);
}

int turn_descriptor_take(struct turn_shared *shared)
{
	unsigned int budget = atomic_load(&shared->descriptor_budget);

	return turn_gauge_take(&shared->descriptors, budget) ? 0 : -EMFILE;
}

void turn_descriptor_release(struct turn_shared *shared)
{
	turn_gauge_release(&shared->descriptors);
}

int turn_slot_take(struct turn_shared *shared, const struct conf *conf)
{
	unsigned int limit = conf->limits.connections;

	/* Without a limit of its own the budget is the limit. */
	if (turn_descriptor_take(shared))
		return limit ? -EMFILE : -EDQUOT;
	if (turn_gauge_take(&shared->connections, limit))
		return 0;
	turn_descriptor_release(shared);
	return -EDQUOT;
}

int turn_connection_take(struct turn_shared *shared, const struct conf *conf)
{
	unsigned int limit = conf->limits.connections;

	/* Where descriptors are the limit of the others, it is one, too. */
	if (!limit)
		limit = atomic_load(&shared->descriptor_budget);
	return turn_gauge_take(&shared->connections, limit) ? 0 : -EDQUOT;
}

void turn_connection_release(struct turn_shared *shared)
{
	turn_gauge_release(&shared->connections);
}

void turn_slot_release(struct turn_shared *shared)
{
	turn_connection_release(shared);
	turn_descriptor_release(shared);
}

static uint64_t at_most(uint64_t value, uint64_t limit)
{
	return value < limit ? value : limit;
}

/* Descriptors that are not for clients, peers and relayed ports. */
static uint64_t reserve(const struct turn_shared *shared,
			const struct conf *conf, uint64_t total)
{
	uint64_t each = RESERVE_WORKER, sum = RESERVE_PROCESS;

	/* A listening socket and its spare descriptor. */
	for (size_t i = 0; i < conf->listener_count; i++)
		each += 2 * conf->listeners[i].address_count;
	sum += each * shared->worker_count;
	/* Operators must get through in the worst hour. */
	sum += at_most(conf->limits.control_clients, total / 8);
	/* Pipes come and go with the load; without one the copy engine
	 * serves, so they need not all be certain.
	 */
	return sum +
	       at_most((uint64_t)conf->engine.pipes * 2 * shared->worker_count,
		       total / 8);
}

void turn_shared_budget(struct turn_shared *shared, const struct conf *conf)
{
	struct rlimit limit;
	uint64_t total, kept;

	if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return;
	total = limit.rlim_cur;
	kept = reserve(shared, conf, total);
	total = total > kept + BUDGET_MIN ? total - kept : BUDGET_MIN;
	atomic_store(&shared->descriptor_budget,
		     (unsigned int)at_most(total, UINT32_MAX));
}

static uint64_t relayed_hash(const union addr *addr)
{
	uint8_t key[18] = { 0 };
	size_t len;
	const uint8_t *bytes = addr_bytes(addr, &len);
	uint16_t port = addr_port(addr);

	memcpy(key, &port, sizeof(port));
	memcpy(key + sizeof(port), bytes, len);
	return table_hash(key, sizeof(port) + len);
}

static struct relayed *relayed_find(struct turn_shared *shared,
				    const union addr *addr)
{
	struct table_node *node =
		table_first(&shared->relayed, relayed_hash(addr));

	for (; node; node = table_next(node)) {
		struct relayed *relayed =
			list_entry(node, struct relayed, node);

		if (addr_equal(&relayed->addr, addr))
			return relayed;
	}
	return NULL;
}

/* Distinct hosts are as few as the machine's addresses: a list will do. */
static struct relayed_host *host_find(struct turn_shared *shared,
				      const union addr *addr)
{
	struct list *pos;

	list_for_each(pos, &shared->relayed_hosts) {
		struct relayed_host *host =
			list_entry(pos, struct relayed_host, link);

		if (addr_same_host(&host->addr, addr))
			return host;
	}
	return NULL;
}

static struct relayed_host *host_get(struct turn_shared *shared,
				     const union addr *addr)
{
	struct relayed_host *host = host_find(shared, addr);

	if (host)
		return host;
	host = calloc(1, sizeof(*host));
	if (!host)
		return NULL;
	host->addr = *addr;
	list_add_tail(&host->link, &shared->relayed_hosts);
	return host;
}

static int relayed_add_locked(struct turn_shared *shared,
			      struct relayed *relayed)
{
	struct relayed_host *host;

	if (relayed_find(shared, &relayed->addr))
		return -EADDRINUSE;
	host = host_get(shared, &relayed->addr);
	if (!host)
		return -ENOMEM;
	host->uses++;
	host->claims += relayed->claimed;
	relayed->host = host;
	table_insert(&shared->relayed, &relayed->node,
		     relayed_hash(&relayed->addr));
	return 0;
}

int turn_relayed_add(struct turn_shared *shared, struct relayed *relayed)
{
	int err;

	pthread_mutex_lock(&shared->lock);
	err = relayed_add_locked(shared, relayed);
	pthread_mutex_unlock(&shared->lock);
	return err;
}

static void relayed_remove_locked(struct turn_shared *shared,
				  struct relayed *relayed)
{
	struct relayed_host *host = relayed->host;

	table_remove(&shared->relayed, &relayed->node);
	relayed->host = NULL;
	host->full[0].known = host->full[1].known = false;
	host->claims -= relayed->claimed;
	shared->relayed_freed++;
	if (--host->uses == 0) {
		list_del(&host->link);
		free(host);
	}
}

int turn_relayed_hand_over(struct turn_shared *shared, struct relayed *from,
			   struct relayed *to)
{
	int err;

	pthread_mutex_lock(&shared->lock);
	to->addr = from->addr;
	relayed_remove_locked(shared, from);
	err = relayed_add_locked(shared, to);
	pthread_mutex_unlock(&shared->lock);
	return err;
}

void turn_relayed_remove(struct turn_shared *shared, struct relayed *relayed)
{
	if (!relayed->host)
		return;
	pthread_mutex_lock(&shared->lock);
	relayed_remove_locked(shared, relayed);
	pthread_mutex_unlock(&shared->lock);
}

static bool range_full(const struct ports_full *full, uint16_t min,
		       uint16_t max)
{
	return full->known && full->min <= min && max <= full->max;
}

bool turn_relayed_full(struct turn_shared *shared, const union addr *addr,
		       uint16_t min, uint16_t max, bool even, uint64_t *freed)
{
	const struct relayed_host *host;
	bool full;

	pthread_mutex_lock(&shared->lock);
	host = host_find(shared, addr);
	full = host && (range_full(&host->full[0], min, max) ||
			(even && range_full(&host->full[1], min, max)));
	*freed = shared->relayed_freed;
	pthread_mutex_unlock(&shared->lock);
	return full;
}

void turn_relayed_full_note(struct turn_shared *shared, const union addr *addr,
			    uint16_t min, uint16_t max, bool even,
			    uint64_t freed)
{
	struct relayed_host *host;

	pthread_mutex_lock(&shared->lock);
	host = host_find(shared, addr);
	/* Another worker may have given one back behind the walk. */
	if (host && freed == shared->relayed_freed)
		host->full[even] = (struct ports_full){ true, min, max };
	pthread_mutex_unlock(&shared->lock);
}

bool turn_relayed_is(struct turn_shared *shared, const union addr *addr)
{
	const struct relayed_host *host;
	const struct relayed *relayed;
	bool found;

	pthread_mutex_lock(&shared->lock);
	if (addr_port(addr)) {
		relayed = relayed_find(shared, addr);
		found = relayed && !relayed->claimed;
	} else {
		host = host_find(shared, addr);
		found = host && host->uses > host->claims;
	}
	pthread_mutex_unlock(&shared->lock);
	return found;
}

bool turn_relayed_taken(struct turn_shared *shared, const union addr *addr)
{
	bool found;

	pthread_mutex_lock(&shared->lock);
	found = relayed_find(shared, addr) != NULL;
	pthread_mutex_unlock(&shared->lock);
	return found;
}

struct port_claim {
	struct relayed relayed;
	size_t refs;
};

static struct port_claim *claim_locked(struct turn_shared *shared,
				       const union addr *addr)
{
	struct relayed *have = relayed_find(shared, addr);
	struct port_claim *claim;

	if (have && !have->claimed)
		return NULL;
	if (have) {
		claim = list_entry(have, struct port_claim, relayed);
		claim->refs++;
		return claim;
	}
	claim = calloc(1, sizeof(*claim));
	if (!claim)
		return NULL;
	claim->refs = 1;
	claim->relayed.addr = *addr;
	claim->relayed.claimed = true;
	if (relayed_add_locked(shared, &claim->relayed)) {
		free(claim);
		return NULL;
	}
	return claim;
}

struct port_claim *turn_port_claim(struct turn_shared *shared,
				   const union addr *addr)
{
	struct port_claim *claim;

	pthread_mutex_lock(&shared->lock);
	claim = claim_locked(shared, addr);
	pthread_mutex_unlock(&shared->lock);
	return claim;
}

void turn_port_unclaim(struct turn_shared *shared, struct port_claim *claim)
{
	bool last;

	if (!claim)
		return;
	pthread_mutex_lock(&shared->lock);
	last = --claim->refs == 0;
	if (last)
		relayed_remove_locked(shared, &claim->relayed);
	pthread_mutex_unlock(&shared->lock);
	if (last)
		free(claim);
}
