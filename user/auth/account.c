/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Accounts: who (realm, user name), and how much they hold.
 *
 * One registry for the process maps an identity to its only account. A `struct
 * auth` refers to the accounts of its users and an allocation to its owner's, so
 * an account outlives a reload while either needs it, and is found again by the
 * next configuration with its count intact.
 *
 * A realm has an account, too, of user "", to which those of its users refer: what
 * a user takes he takes for his realm.
 *
 * The mutex guards the registry's table. Counts are atomic. The last reference
 * is only given up under the mutex, so that a look-up cannot find an account on
 * its way out; any other reference is given up without it.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "auth/internal.h"
#include "base/list.h"
#include "base/table.h"

struct auth_account {
	struct table_node node;
	_Atomic unsigned int refs;
	_Atomic unsigned int used[AUTH_QUOTAS]; /* that exist now */
	struct rate_bucket buckets[RATE_WAYS];
	struct auth_account *all; /* the realm's; a reference; NULL: it is one */
	const char *user; /* behind the realm's NUL */
	char realm[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct table registry; /* without buckets while it is empty */

static uint64_t identity_hash(const char *realm, size_t realm_len,
			      const char *user, size_t user_len)
{
	uint8_t text[AUTH_REALM_BYTES + 1 + AUTH_NAME_MAX];

	memcpy(text, realm, realm_len);
	text[realm_len] = '\0'; /* "ab" of "c" is not "a" of "bc" */
	memcpy(text + realm_len + 1, user, user_len);
	return table_hash(text, realm_len + 1 + user_len);
}

static struct auth_account *registry_find(uint64_t hash, const char *realm,
					  const char *user)
{
	struct table_node *node = table_first(&registry, hash);

	for (; node; node = table_next(node)) {
		struct auth_account *account =
			list_entry(node, struct auth_account, node);

		if (strcmp(account->realm, realm) == 0 &&
		    strcmp(account->user, user) == 0)
			return account;
	}
	return NULL;
}

static struct auth_account *account_new(const char *realm, const char *user)
{
	size_t realm_len = strlen(realm), user_len = strlen(user);
	struct auth_account *account;
	char *copy;

	account = malloc(sizeof(*account) + realm_len + 1 + user_len + 1);
	if (!account)
		return NULL;
	*account = (struct auth_account){ .refs = 1 };
	memcpy(account->realm, realm, realm_len + 1);
	copy = account->realm + realm_len + 1;
	memcpy(copy, user, user_len + 1);
	account->user = copy;
	return account;
}

/* Gives a reference up unless it is the last one. */
static bool unref_shared(struct auth_account *account)
{
	unsigned int refs = atomic_load(&account->refs);

	while (refs > 1)
		if (atomic_compare_exchange_weak(&account->refs, &refs,
						 refs - 1))
			return true;
	return false;
}

/* Called with the mutex held: a look-up may have come between. Accepts NULL. */
static void registry_unref(struct auth_account *account)
{
	struct auth_account *all;

	for (; account && atomic_fetch_sub(&account->refs, 1) == 1;
	     account = all) {
		all = account->all;
		table_remove(&registry, &account->node);
		free(account);
	}
}

/* Called with the mutex held. */
static int registry_get_one(const char *realm, const char *user,
			    struct auth_account *all, struct auth_account **out)
{
	uint64_t hash = identity_hash(realm, strlen(realm), user, strlen(user));
	struct auth_account *account = registry_find(hash, realm, user);

	if (account) {
		*out = auth_account_ref(account);
		return 0;
	}
	account = account_new(realm, user);
	if (!account)
		return -ENOMEM;
	account->all = all ? auth_account_ref(all) : NULL;
	table_insert(&registry, &account->node, hash);
	*out = account;
	return 0;
}

/* So, too: an account and, before it, its realm's. */
static int registry_get(const char *realm, const char *user,
			struct auth_account **out)
{
	struct auth_account *all = NULL;
	int error = 0;

	if (!registry.buckets && table_init(&registry))
		return -ENOMEM;
	if (*user)
		error = registry_get_one(realm, "", NULL, &all);
	if (!error)
		error = registry_get_one(realm, user, all, out);
	registry_unref(all);
	return error;
}

static void registry_trim(void)
{
	if (registry.count == 0)
		table_destroy(&registry);
}

int auth_account_get(const char *realm, const char *user,
		     struct auth_account **out)
{
	int error;

	pthread_mutex_lock(&lock);
	error = registry_get(realm, user, out);
	registry_trim();
	pthread_mutex_unlock(&lock);
	return error;
}

struct auth_account *auth_account_ref(struct auth_account *account)
{
	atomic_fetch_add(&account->refs, 1);
	return account;
}

void auth_account_unref(struct auth_account *account)
{
	if (!account || unref_shared(account))
		return;
	pthread_mutex_lock(&lock);
	registry_unref(account);
	registry_trim();
	pthread_mutex_unlock(&lock);
}

const char *auth_account_user(const struct auth_account *account)
{
	return account->user;
}

const char *auth_account_realm(const struct auth_account *account)
{
	return account->realm;
}

struct auth_account *auth_account_all(struct auth_account *account)
{
	return account->all;
}

struct rate_bucket *auth_account_bucket(struct auth_account *account,
					enum rate_way way)
{
	return &account->buckets[way];
}

static bool count_take(_Atomic unsigned int *used, unsigned int limit)
{
	unsigned int now = atomic_load(used);

	do {
		if (now >= (limit ? limit : UINT_MAX))
			return false;
	} while (!atomic_compare_exchange_weak(used, &now, now + 1));
	return true;
}

static void count_release(_Atomic unsigned int *used)
{
	unsigned int before = atomic_fetch_sub(used, 1);

	assert(before > 0);
	(void)before;
}

int auth_quota_take(struct auth_account *account, enum auth_quota what,
		    unsigned int per_user, unsigned int per_realm)
{
	if (!count_take(&account->used[what], per_user))
		return -EDQUOT;
	if (count_take(&account->all->used[what], per_realm))
		return 0;
	count_release(&account->used[what]);
	return -EDQUOT;
}

void auth_quota_release(struct auth_account *account, enum auth_quota what)
{
	count_release(&account->all->used[what]);
	count_release(&account->used[what]);
}

unsigned int auth_quota_used(const struct auth_account *account,
			     enum auth_quota what)
{
	return atomic_load(&account->used[what]);
}
