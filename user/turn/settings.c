/* SPDX-License-Identifier: BSD-2-Clause */
/* Builds the realms and users of a configuration; counted and immutable. */
#include "turn/settings.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "crypto/crypto.h"

/* Offered when no realm is configured: nobody can authenticate then. */
#define NO_REALM "culvert"

static int realms_add(struct auth *auth, const struct conf *conf)
{
	int err = 0;

	for (size_t i = 0; i < conf->realm_count && !err; i++) {
		const struct conf_realm *realm = &conf->realms[i];

		err = auth_add_realm(auth, realm->name);
		for (size_t k = 0; k < realm->secret_count && !err; k++)
			err = auth_add_secret(auth, realm->name,
					      realm->secrets[k]);
		if (!err && realm->oauth)
			err = auth_add_oauth(auth, realm->name, realm->oauth,
					     realm->oauth_skew_ms / 1000);
		for (size_t k = 0; k < realm->oauth_key_count && !err; k++)
			err = auth_add_oauth_key(auth, realm->name,
						 realm->oauth_keys[k]);
	}
	return err;
}

static int keys_make(const struct conf_user *user, struct auth_keys *keys)
{
	int err;

	keys->md5.len = STUN_KEY_LEN;
	keys->sha256.len = STUN_SHA256_LEN;
	err = stun_long_term_key(user->name, user->realm, user->password,
				 keys->md5.bytes);
	if (!err)
		err = stun_long_term_key_sha256(user->name, user->realm,
						user->password,
						keys->sha256.bytes);
	return err;
}

static void key_take(struct stun_key *key, const uint8_t *bytes, size_t len)
{
	memcpy(key->bytes, bytes, len);
	key->len = len;
}

static int user_add(struct auth *auth, const struct conf_user *user)
{
	const struct conf_ha1 *ha1 = &user->ha1;
	struct auth_keys keys = { 0 };
	int err = 0;

	if (user->password)
		err = keys_make(user, &keys);
	if (ha1->has_md5)
		key_take(&keys.md5, ha1->md5, sizeof(ha1->md5));
	if (ha1->has_sha256)
		key_take(&keys.sha256, ha1->sha256, sizeof(ha1->sha256));
	if (!err)
		err = auth_add_user(auth, user->realm, user->name, &keys);
	crypto_wipe(&keys, sizeof(keys));
	return err;
}

static int users_add(struct auth *auth, const struct conf *conf)
{
	int err = 0;

	for (size_t i = 0; i < conf->user_count && !err; i++)
		err = user_add(auth, &conf->users[i]);
	return err;
}

/* What the file says of a user, or under user "" of a realm. */
struct owner {
	struct table_node node;
	const struct conf_user *user; /* NULL: a realm's */
	const struct conf_realm *realm; /* of a user NULL */
};

static uint64_t owner_hash(const char *user, const char *realm)
{
	return table_hash(user, strlen(user)) * 31 +
	       table_hash(realm, strlen(realm));
}

static bool owner_is(const struct owner *owner, const char *user,
		     const char *realm)
{
	if (!owner->user)
		return !*user && !strcmp(owner->realm->name, realm);
	return !strcmp(owner->user->name, user) &&
	       !strcmp(owner->user->realm, realm);
}

static int owner_add(struct table *owners, const struct conf_user *user,
		     const struct conf_realm *realm)
{
	struct owner *owner = calloc(1, sizeof(*owner));

	if (!owner)
		return -ENOMEM;
	owner->user = user;
	owner->realm = realm;
	table_insert(owners, &owner->node,
		     user ? owner_hash(user->name, user->realm) :
			    owner_hash("", realm->name));
	return 0;
}

static void owners_free(struct table *owners)
{
	for (size_t i = 0; owners->buckets && i <= owners->mask; i++)
		while (owners->buckets[i]) {
			struct table_node *node = owners->buckets[i];

			table_remove(owners, node);
			free(list_entry(node, struct owner, node));
		}
	table_destroy(owners);
}

static int owners_add(struct table *owners, const struct conf *conf)
{
	int err = table_init(owners);

	for (size_t i = 0; i < conf->realm_count && !err; i++)
		err = owner_add(owners, NULL, &conf->realms[i]);
	for (size_t i = 0; i < conf->user_count && !err; i++)
		err = owner_add(owners, &conf->users[i], NULL);
	return err;
}

static const struct owner *owner_find(const struct table *owners,
				      const char *user, const char *realm)
{
	struct table_node *node = table_first(owners, owner_hash(user, realm));

	for (; node; node = table_next(node)) {
		const struct owner *owner =
			list_entry(node, struct owner, node);

		if (owner_is(owner, user, realm))
			return owner;
	}
	return NULL;
}

struct turn_access turn_settings_access(const struct turn_settings *settings,
					const struct auth_account *account)
{
	const char *realm_name = auth_account_realm(account);
	const struct owner *user = owner_find(
		&settings->owners, auth_account_user(account), realm_name);
	const struct owner *realm =
		owner_find(&settings->owners, "", realm_name);

	return (struct turn_access){
		.user = user ? user->user : NULL,
		.realm = realm ? realm->realm : NULL,
	};
}

static const struct conf_engines *exit_engines(const struct conf *conf,
					       const union addr *relayed)
{
	const struct conf_exit *exit = conf_exit_of(conf, relayed);

	return exit && exit->engines.count ? &exit->engines : NULL;
}

struct turn_pin turn_settings_pin(const struct turn_settings *settings,
				  const struct turn_access *access,
				  const union addr *relayed)
{
	struct turn_pin pin = { NULL, WIRE_NO_PINNED };

	if (access->user && access->user->engines.count)
		return (struct turn_pin){ &access->user->engines,
					  WIRE_NO_PINNED_USER };
	if (access->realm && access->realm->engines.count)
		return (struct turn_pin){ &access->realm->engines,
					  WIRE_NO_PINNED_REALM };
	pin.engines = exit_engines(settings->conf, relayed);
	if (pin.engines)
		pin.why = WIRE_NO_PINNED_EXIT;
	return pin;
}

int turn_listener_tls(const struct conf_listener *listener,
		      struct tls_server **out, struct tls_fault *fault)
{
	struct tls_pair pairs[CONF_FILES_MAX];
	const struct tls_server_params params = {
		.pairs = pairs,
		.count = listener->certificate_count,
		.only_1_3 = listener->tls_version == CONF_TLS_1_3,
		.datagrams = conf_listener_datagrams(listener),
		.ciphers = listener->ciphers,
	};

	*out = NULL;
	if (!conf_listener_sealed(listener))
		return 0;
	for (size_t i = 0; i < params.count; i++)
		pairs[i] = (struct tls_pair){
			.certificate = listener->certificates[i].text,
			.certificate_len = listener->certificates[i].len,
			.key = listener->private_keys[i].text,
			.key_len = listener->private_keys[i].len,
		};
	return tls_server_new(&params, out, fault);
}

static int tls_add(struct turn_settings *settings, const struct conf *conf)
{
	struct tls_fault fault;
	int err = 0;

	settings->tls =
		calloc(conf->listener_count, sizeof(struct tls_server *));
	if (!settings->tls)
		return -ENOMEM;
	for (size_t i = 0; i < conf->listener_count && !err; i++)
		err = turn_listener_tls(&conf->listeners[i], &settings->tls[i],
					&fault);
	return err;
}

static void tls_free(struct turn_settings *settings, const struct conf *conf)
{
	for (size_t i = 0; settings->tls && i < conf->listener_count; i++)
		tls_server_unref(settings->tls[i]);
	free(settings->tls);
}

int turn_settings_new(struct conf *conf,
		      const uint8_t nonce_secret[AUTH_SECRET_LEN],
		      struct store *store, struct turn_settings **out)
{
	struct turn_settings *settings = calloc(1, sizeof(*settings));
	struct auth_params params = {
		.nonce_lifetime_s = conf->limits.nonce_lifetime_ms / 1000,
		.store = store,
	};
	int err;

	if (!settings)
		return -ENOMEM;
	settings->store = store;
	if (!params.nonce_lifetime_s)
		params.nonce_lifetime_s = 1;
	memcpy(params.nonce_secret, nonce_secret, AUTH_SECRET_LEN);
	err = auth_new(&params, &settings->auth);
	crypto_wipe(&params, sizeof(params));
	if (!err)
		err = realms_add(settings->auth, conf);
	if (!err)
		err = users_add(settings->auth, conf);
	if (!err)
		err = owners_add(&settings->owners, conf);
	if (!err)
		err = tls_add(settings, conf);
	if (err) {
		tls_free(settings, conf);
		owners_free(&settings->owners);
		auth_unref(settings->auth);
		free(settings);
		return err == -ENOMEM ? -ENOMEM : -EINVAL;
	}
	/* There are keys and contexts of them now. */
	conf_secrets_forget(conf);
	settings->conf = conf_ref(conf);
	atomic_init(&settings->refs, 1);
	*out = settings;
	return 0;
}

struct turn_settings *turn_settings_ref(struct turn_settings *settings)
{
	atomic_fetch_add(&settings->refs, 1);
	return settings;
}

void turn_settings_unref(struct turn_settings *settings)
{
	if (!settings || atomic_fetch_sub(&settings->refs, 1) > 1)
		return;
	tls_free(settings, settings->conf);
	owners_free(&settings->owners);
	auth_unref(settings->auth);
	conf_unref(settings->conf);
	free(settings);
}

const struct conf_listener *
turn_settings_listener(const struct turn_settings *settings, const char *name)
{
	const struct conf *conf = settings->conf;

	for (size_t i = 0; i < conf->listener_count; i++)
		if (strcmp(conf->listeners[i].name, name) == 0)
			return &conf->listeners[i];
	return NULL;
}

struct tls_server *turn_settings_tls(const struct turn_settings *settings,
				     const char *listener)
{
	const struct conf_listener *found =
		turn_settings_listener(settings, listener);

	return found ? settings->tls[found - settings->conf->listeners] : NULL;
}

unsigned int turn_settings_mss(const struct turn_settings *settings,
			       const char *listener)
{
	const struct conf_listener *found =
		turn_settings_listener(settings, listener);

	return found ? found->mss : 0;
}

bool turn_settings_has_address(const struct turn_settings *settings,
			       const char *listener, const union addr *addr,
			       bool udp)
{
	const struct conf_listener *found =
		turn_settings_listener(settings, listener);

	if (found && conf_listener_datagrams(found) != udp)
		return false;
	for (size_t i = 0; found && i < found->address_count; i++) {
		const union addr *have = &found->addresses[i];

		if (addr_same_host(have, addr) &&
		    (!addr_port(have) || addr_port(have) == addr_port(addr)))
			return true;
	}
	return false;
}

const char *turn_settings_realm(const struct turn_settings *settings,
				const char *listener)
{
	const struct conf_listener *found =
		turn_settings_listener(settings, listener);
	const char *realm = found ? found->realm : NULL;

	if (!realm)
		realm = auth_default_realm(settings->auth);
	return realm ? realm : NO_REALM;
}

bool turn_settings_same_engines(const struct turn_settings *a,
				const struct turn_settings *b)
{
	const struct conf_engine *left = &a->conf->engine;
	const struct conf_engine *right = &b->conf->engine;

	if (left->order_count != right->order_count ||
	    left->pipe_size != right->pipe_size ||
	    left->pipes != right->pipes ||
	    left->copy_buffer != right->copy_buffer ||
	    left->receive_buffer != right->receive_buffer)
		return false;
	for (size_t i = 0; i < left->order_count; i++)
		if (strcmp(left->order[i], right->order[i]) != 0)
			return false;
	/* Users and realms may want more. */
	for (size_t i = 0; engine_all[i]; i++)
		if (conf_engine_wanted(a->conf, engine_all[i]->name) !=
		    conf_engine_wanted(b->conf, engine_all[i]->name))
			return false;
	return true;
}
