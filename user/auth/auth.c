/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Realms and users.
 *
 * A `struct auth` is filled by one thread and then never changes but in its
 * reference count: workers read it without a lock. It owns its realms and users,
 * and a reference to each user's account.
 */
#include "auth/auth.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "auth/internal.h"
#include "base/secret.h"
#include "crypto/crypto.h"

int auth_new(const struct auth_params *params, struct auth **out)
{
	struct auth *auth;

	assert(params->nonce_lifetime_s > 0);
	auth = calloc(1, sizeof(*auth));
	if (!auth)
		return -ENOMEM;
	if (table_init(&auth->users)) {
		free(auth);
		return -ENOMEM;
	}
	atomic_init(&auth->refs, 1);
	auth->params = *params;
	list_init(&auth->realms);
	*out = auth;
	return 0;
}

struct auth *auth_ref(struct auth *auth)
{
	atomic_fetch_add(&auth->refs, 1);
	return auth;
}

static void user_free(struct user *user)
{
	auth_account_unref(user->account);
	crypto_wipe(user, sizeof(*user));
	free(user);
}

static void users_free(struct table *users)
{
	for (size_t i = 0; i <= users->mask; i++) {
		struct table_node *node = users->buckets[i], *next;

		for (; node; node = next) {
			next = node->next;
			user_free(list_entry(node, struct user, node));
		}
	}
	table_destroy(users);
}

static void realm_free(struct realm *realm)
{
	crypto_wipe(realm->token_keys, sizeof(realm->token_keys));
	free(realm->oauth);
	for (size_t i = 0; i < realm->secret_count; i++) {
		crypto_wipe(realm->secrets[i], strlen(realm->secrets[i]));
		free(realm->secrets[i]);
	}
	free(realm);
}

void auth_unref(struct auth *auth)
{
	struct list *pos, *tmp;

	if (!auth || atomic_fetch_sub(&auth->refs, 1) > 1)
		return;
	users_free(&auth->users);
	list_for_each_safe(pos, tmp, &auth->realms)
		realm_free(list_entry(pos, struct realm, node));
	crypto_wipe(auth, sizeof(*auth));
	free(auth);
}

struct realm *auth_realm_find(const struct auth *auth, const void *name,
			      size_t len)
{
	struct list *pos;

	list_for_each(pos, &auth->realms) {
		struct realm *realm = list_entry(pos, struct realm, node);

		if (strlen(realm->name) == len &&
		    memcmp(realm->name, name, len) == 0)
			return realm;
	}
	return NULL;
}

/* "a:b" of "c" has the hash of "a" of "b:c": the realm tells them apart. */
static bool user_is(const struct user *user,
		    const uint8_t hash[STUN_SHA256_LEN], const void *realm,
		    size_t realm_len)
{
	bool same = secret_equal(user->userhash, hash, STUN_SHA256_LEN);

	return strlen(user->realm->name) == realm_len &&
	       memcmp(user->realm->name, realm, realm_len) == 0 && same;
}

static const struct user *decoy_find(const struct table *users, uint64_t hash)
{
	size_t at = hash & users->mask;

	if (!users->count)
		return NULL;
	while (!users->buckets[at])
		at = (at + 1) & users->mask;
	return list_entry(users->buckets[at], struct user, node);
}

const struct user *auth_user_find(const struct auth *auth,
				  const uint8_t hash[STUN_SHA256_LEN],
				  const void *realm, size_t realm_len,
				  bool *known)
{
	uint64_t short_hash = table_hash(hash, STUN_SHA256_LEN);
	struct table_node *node = table_first(&auth->users, short_hash);
	const struct user *user = NULL;

	*known = false;
	for (; node && !*known; node = table_next(node)) {
		user = list_entry(node, struct user, node);
		*known = user_is(user, hash, realm, realm_len);
	}
	if (user)
		return user;
	user = decoy_find(&auth->users, short_hash);
	if (user)
		*known = user_is(user, hash, realm, realm_len);
	return user;
}

/* RFC 8489 14.9: fewer than 128 characters, UTF-8 making each up to 4 bytes. */
bool auth_realm_ok(const void *realm, size_t len)
{
	const uint8_t *p = realm;
	size_t characters = 0;

	if (len == 0 || len > AUTH_REALM_BYTES || memchr(realm, 0, len))
		return false;
	for (size_t i = 0; i < len; i++)
		characters += (p[i] & 0xc0) != 0x80;
	return characters < AUTH_REALM_MAX;
}

/* RFC 8489 14.3 ends below 509 bytes, RFC 5389's clients may send 512. */
bool auth_name_ok(const void *name, size_t len)
{
	return len > 0 && len <= AUTH_NAME_MAX && !memchr(name, 0, len);
}

int auth_add_realm(struct auth *auth, const char *name)
{
	size_t len = strlen(name);
	struct realm *realm;

	if (!auth_realm_ok(name, len))
		return -EINVAL;
	if (auth_realm_find(auth, name, len))
		return -EEXIST;
	realm = calloc(1, sizeof(*realm) + len + 1);
	if (!realm)
		return -ENOMEM;
	realm->offer = AUTH_OFFER_SHA256 | AUTH_OFFER_ANONYMITY;
	memcpy(realm->name, name, len + 1);
	list_add_tail(&realm->node, &auth->realms);
	return 0;
}

int auth_add_user(struct auth *auth, const char *realm_name, const char *name,
		  const struct auth_keys *keys)
{
	size_t realm_len = strlen(realm_name), len = strlen(name);
	uint8_t hash[STUN_SHA256_LEN];
	struct realm *realm;
	struct user *user;
	bool known;
	int error;

	if (!auth_realm_ok(realm_name, realm_len) || !auth_name_ok(name, len) ||
	    !(keys->md5.len || keys->sha256.len))
		return -EINVAL;
	realm = auth_realm_find(auth, realm_name, realm_len);
	if (!realm)
		return -ENOENT;
	if (realm->secret_count)
		return -EINVAL;
	error = stun_userhash(name, len, realm_name, realm_len, hash);
	if (error)
		return error;
	auth_user_find(auth, hash, realm_name, realm_len, &known);
	if (known)
		return -EEXIST;
	user = calloc(1, sizeof(*user));
	if (!user)
		return -ENOMEM;
	error = auth_account_get(realm_name, name, &user->account);
	if (error) {
		free(user);
		return error;
	}
	user->realm = realm;
	realm->users++;
	user->keys = *keys;
	memcpy(user->userhash, hash, sizeof(hash));
	if (!keys->sha256.len)
		realm->offer &= ~(unsigned int)AUTH_OFFER_SHA256;
	table_insert(&auth->users, &user->node,
		     table_hash(user->userhash, sizeof(user->userhash)));
	return 0;
}

int auth_add_secret(struct auth *auth, const char *realm_name,
		    const char *secret)
{
	struct realm *realm =
		auth_realm_find(auth, realm_name, strlen(realm_name));
	char *copy;

	if (!realm)
		return -ENOENT;
	if (!*secret || realm->users || realm->secret_count == AUTH_SECRETS_MAX)
		return -EINVAL;
	copy = strdup(secret);
	if (!copy)
		return -ENOMEM;
	realm->secrets[realm->secret_count++] = copy;
	/* A name that is not known beforehand cannot be found by its hash. */
	realm->offer &= ~(unsigned int)AUTH_OFFER_ANONYMITY;
	return 0;
}

const char *auth_default_realm(const struct auth *auth)
{
	if (list_empty(&auth->realms))
		return NULL;
	return list_entry(auth->realms.next, struct realm, node)->name;
}
