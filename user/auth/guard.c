/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Failed credentials by source: an IPv4 address, or the /56 of IPv6 that a site
 * has for itself.
 *
 * Each source has a debt: a failure adds the minute's share of one, time takes it
 * off again, and with a minute's worth no more is looked at. So `limit` failures
 * may come at once and `limit` a minute from then on.
 *
 * The table has a fixed size, whoever comes. A source falls into one of its sets by
 * a keyed hash, so nobody chooses whom he meets there, and the way with the least
 * debt gives way: who wants to be forgotten must bring as much debt from
 * WAYS other sources of the same set.
 *
 * Kinds are counted apart: the source of a datagram may be forged, which must not
 * shut out who comes by a connection; and who failed to allocate must not take the
 * data connections of others behind the same address with him.
 */
#include "auth/auth.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/table.h"

#define SETS      2048 /* a power of two */
#define WAYS      4
#define KEY_LEN   9 /* family, kind, 4 or 7 bytes of address */
#define MINUTE_US UINT64_C(60000000)

struct debtor {
	uint8_t key[KEY_LEN];
	uint64_t until_us; /* when the debt will be paid; 0: nobody is here */
};

struct auth_guard {
	pthread_mutex_t lock;
	struct debtor debtors[SETS][WAYS];
};

int auth_guard_new(struct auth_guard **out)
{
	struct auth_guard *guard = calloc(1, sizeof(*guard));

	if (!guard)
		return -ENOMEM;
	pthread_mutex_init(&guard->lock, NULL);
	*out = guard;
	return 0;
}

void auth_guard_free(struct auth_guard *guard)
{
	if (!guard)
		return;
	pthread_mutex_destroy(&guard->lock);
	free(guard);
}

static void key_make(const union addr *from, enum auth_guard_kind kind,
		     uint8_t key[KEY_LEN])
{
	union addr site;
	const uint8_t *bytes;
	size_t len;

	addr_site(from, &site);
	bytes = addr_bytes(&site, &len);
	memset(key, 0, KEY_LEN);
	key[0] = (uint8_t)len;
	key[1] = (uint8_t)kind;
	if (bytes)
		memcpy(key + 2, bytes, len == 4 ? 4 : 7);
}

/* The source's place, NULL without one; *spare is the one to take then. */
static struct debtor *debtor_find(struct auth_guard *guard,
				  const uint8_t key[KEY_LEN],
				  struct debtor **spare)
{
	struct debtor *set =
		guard->debtors[table_hash(key, KEY_LEN) & (SETS - 1)];

	*spare = set;
	for (size_t i = 0; i < WAYS; i++) {
		if (set[i].until_us && memcmp(set[i].key, key, KEY_LEN) == 0)
			return &set[i];
		if (set[i].until_us < (*spare)->until_us)
			*spare = &set[i];
	}
	return NULL;
}

static uint64_t debt_of(const struct debtor *debtor, uint64_t now_us)
{
	return debtor->until_us > now_us ? debtor->until_us - now_us : 0;
}

/* Debt enough that one more failure would be one too many. */
static bool debt_is_full(uint64_t debt_us, unsigned int limit)
{
	return debt_us + MINUTE_US / limit > MINUTE_US;
}

bool auth_guard_allows(struct auth_guard *guard, const union addr *from,
		       enum auth_guard_kind kind, unsigned int limit,
		       uint64_t now_ms)
{
	struct debtor *debtor, *spare;
	uint8_t key[KEY_LEN];
	uint64_t debt = 0;

	if (!limit)
		return true;
	key_make(from, kind, key);
	pthread_mutex_lock(&guard->lock);
	debtor = debtor_find(guard, key, &spare);
	if (debtor)
		debt = debt_of(debtor, now_ms * 1000);
	pthread_mutex_unlock(&guard->lock);
	return !debt_is_full(debt, limit);
}

bool auth_guard_failed(struct auth_guard *guard, const union addr *from,
		       enum auth_guard_kind kind, unsigned int limit,
		       uint64_t now_ms)
{
	struct debtor *debtor, *spare;
	uint8_t key[KEY_LEN];
	uint64_t debt, before;

	if (!limit)
		return false;
	key_make(from, kind, key);
	pthread_mutex_lock(&guard->lock);
	debtor = debtor_find(guard, key, &spare);
	if (!debtor) {
		debtor = spare;
		memcpy(debtor->key, key, KEY_LEN);
		debtor->until_us = 0;
	}
	before = debt_of(debtor, now_ms * 1000);
	debt = before + MINUTE_US / limit;
	/* Requests that were under way when the limit was reached add nothing. */
	if (debt > MINUTE_US)
		debt = MINUTE_US;
	debtor->until_us = now_ms * 1000 + debt;
	pthread_mutex_unlock(&guard->lock);
	return !debt_is_full(before, limit) && debt_is_full(debt, limit);
}
