/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Realms, users and the check of a request.
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
#include "base/list.h"
#include "base/table.h"
#include "crypto/crypto.h"

struct realm {
	struct list node;
	unsigned int allocations_per_user; /* 0: no limit */
	char name[];
};

struct user {
	struct table_node node; /* under the account's hash */
	const struct realm *realm;
	struct auth_account *account;
	uint8_t key[STUN_KEY_LEN];
};

struct auth {
	_Atomic unsigned int refs;
	struct auth_params params;
	struct list realms; /* the default one first */
	struct table users;
};

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

void auth_unref(struct auth *auth)
{
	struct list *pos, *tmp;

	if (!auth || atomic_fetch_sub(&auth->refs, 1) > 1)
		return;
	users_free(&auth->users);
	list_for_each_safe(pos, tmp, &auth->realms)
		free(list_entry(pos, struct realm, node));
	crypto_wipe(auth, sizeof(*auth));
	free(auth);
}

static struct realm *realm_find(const struct auth *auth, const char *name)
{
	struct list *pos;

	list_for_each(pos, &auth->realms) {
		struct realm *realm = list_entry(pos, struct realm, node);

		if (strcmp(realm->name, name) == 0)
			return realm;
	}
	return NULL;
}

static struct user *user_find(const struct auth *auth, const void *realm,
			      size_t realm_len, const void *name,
			      size_t name_len)
{
	uint64_t hash = auth_identity_hash(realm, realm_len, name, name_len);
	struct table_node *node = table_first(&auth->users, hash);

	for (; node; node = table_next(node)) {
		struct user *user = list_entry(node, struct user, node);

		if (auth_account_is(user->account, realm, realm_len, name,
				    name_len))
			return user;
	}
	return NULL;
}

static struct user *user_of(const struct auth *auth,
			    const struct auth_account *account)
{
	struct table_node *node =
		table_first(&auth->users, auth_account_hash(account));

	for (; node; node = table_next(node)) {
		struct user *user = list_entry(node, struct user, node);

		if (user->account == account)
			return user;
	}
	return NULL;
}

/* RFC 8489 14.9: fewer than 128 characters, UTF-8 making each up to 4 bytes. */
static bool realm_ok(const void *realm, size_t len)
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
static bool name_ok(const void *name, size_t len)
{
	return len > 0 && len <= AUTH_NAME_MAX && !memchr(name, 0, len);
}

int auth_add_realm(struct auth *auth, const char *name,
		   unsigned int allocations_per_user)
{
	size_t len = strlen(name);
	struct realm *realm;

	if (!realm_ok(name, len))
		return -EINVAL;
	if (realm_find(auth, name))
		return -EEXIST;
	realm = malloc(sizeof(*realm) + len + 1);
	if (!realm)
		return -ENOMEM;
	realm->allocations_per_user = allocations_per_user;
	memcpy(realm->name, name, len + 1);
	list_add_tail(&realm->node, &auth->realms);
	return 0;
}

int auth_add_user(struct auth *auth, const char *realm_name, const char *name,
		  const uint8_t key[STUN_KEY_LEN])
{
	size_t realm_len = strlen(realm_name), len = strlen(name);
	const struct realm *realm = realm_find(auth, realm_name);
	struct user *user;
	int error;

	if (!realm_ok(realm_name, realm_len) || !name_ok(name, len))
		return -EINVAL;
	if (!realm)
		return -ENOENT;
	if (user_find(auth, realm_name, realm_len, name, len))
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
	memcpy(user->key, key, STUN_KEY_LEN);
	table_insert(&auth->users, &user->node,
		     auth_account_hash(user->account));
	return 0;
}

const char *auth_default_realm(const struct auth *auth)
{
	if (list_empty(&auth->realms))
		return NULL;
	return list_entry(auth->realms.next, struct realm, node)->name;
}

int auth_nonce(const struct auth *auth, uint64_t now_s,
	       char out[AUTH_NONCE_MAX])
{
	return auth_nonce_make(&auth->params, now_s, out);
}

/* Whom a request claims to come from; NULL when there is no such user. */
static const struct user *user_claimed(const struct auth *auth,
				       const struct stun_attr *realm,
				       const struct stun_attr *name)
{
	if (!realm_ok(realm->value, realm->len) ||
	    !name_ok(name->value, name->len))
		return NULL;
	return user_find(auth, realm->value, realm->len, name->value,
			 name->len);
}

/*
 * A name nobody has is checked against a key nobody has, so that the time of an
 * answer does not tell which names exist.
 */
static int integrity_check(const struct stun_msg *msg, const struct user *user)
{
	static const uint8_t nobody[STUN_KEY_LEN];
	int got = stun_check_integrity(msg, user ? user->key : nobody,
				       STUN_KEY_LEN);

	if (got == -ENOMEM || got == -EIO)
		return got;
	return got == 1 && user ? 0 : -EKEYREJECTED;
}

int auth_check(const struct auth *auth, const struct stun_msg *msg,
	       uint64_t now_s, struct auth_identity *out)
{
	struct stun_attr name, realm, nonce;
	const struct user *user;
	int error;

	if (!msg->integrity_at)
		return -ENOKEY;
	if (!stun_find(msg, STUN_ATTR_USERNAME, &name) ||
	    !stun_find(msg, STUN_ATTR_REALM, &realm) ||
	    !stun_find(msg, STUN_ATTR_NONCE, &nonce))
		return -EBADMSG;
	user = user_claimed(auth, &realm, &name);
	error = integrity_check(msg, user);
	if (error)
		return error;
	/*
	 * Last, as RFC 8489 9.2.4 has it (RFC 5389 asked this first): only who
	 * knows the key hears that the nonce alone is amiss.
	 */
	error = auth_nonce_check(&auth->params, now_s, nonce.value, nonce.len);
	if (error)
		return error;
	out->account = user->account;
	memcpy(out->key, user->key, STUN_KEY_LEN);
	return 0;
}

bool auth_account_valid(const struct auth *auth,
			const struct auth_account *account)
{
	return user_of(auth, account) != NULL;
}

int auth_quota_take(const struct auth *auth, struct auth_account *account)
{
	const struct user *user = user_of(auth, account);

	/* A user the configuration in force does not have gets nothing new. */
	if (!user)
		return -EDQUOT;
	return auth_account_take(account, user->realm->allocations_per_user);
}
