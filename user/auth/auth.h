/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Long-term credentials (RFC 8489 9.2): realms, users, stateless nonces, and how
 * much of everything users and realms hold.
 *
 * A `struct auth` is built once from a configuration, then shared read-only by
 * all workers (reference counted); a reload builds another. An account is the
 * identity (realm, user name) itself: it outlives reloads while anything refers
 * to it, so two requests come from the same user exactly when their account
 * pointers are equal.
 */
#ifndef AUTH_AUTH_H
#define AUTH_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/rate.h"
#include "store/store.h"
#include "stun/stun.h"

#define AUTH_NAME_MAX     512 /* bytes of a user name (RFC 8489 14.3: < 509) */
#define AUTH_REALM_MAX    128 /* characters (RFC 8489 14.9) */
#define AUTH_NONCE_MAX    64 /* bytes of our nonces with their NUL */
#define AUTH_SECRET_LEN   32
#define AUTH_SECRETS_MAX  4 /* shared with services, of a realm */
#define AUTH_TOKEN_ID_MAX 33 /* bytes of a token key's id with their NUL */

struct auth;
struct auth_account;

struct auth_params {
	uint64_t nonce_lifetime_s; /* how long a nonce is fresh, > 0 */
	/* Keys the nonces; the same across reloads so that they stay valid. */
	uint8_t nonce_secret[AUTH_SECRET_LEN];
	/*
	 * Where users of a realm without a secret are looked for who have not
	 * been added; outlives the auth. NULL: nowhere.
	 */
	struct store *store;
};

/* Returns 0 or -ENOMEM. The first realm added is the default one. */
int auth_new(const struct auth_params *params, struct auth **out);
struct auth *auth_ref(struct auth *auth);
void auth_unref(struct auth *auth); /* accepts NULL; wipes keys */

/* A user's keys, one by each algorithm; a len of 0: not known. */
struct auth_keys {
	struct stun_key md5, sha256;
};

/* Both copy. -EEXIST on a repeat, -ENOENT when the realm is not there, -EINVAL
 * for an empty or overlong name, no key, or a user of a realm with a secret,
 * -ENOMEM, -EIO.
 *
 * A challenge goes to who is not known yet, so a realm offers SHA-256 only while
 * each of its users has that key: clients take the first algorithm they know.
 */
int auth_add_realm(struct auth *auth, const char *realm);
int auth_add_user(struct auth *auth, const char *realm, const char *user,
		  const struct auth_keys *keys);

/*
 * A secret by which a service makes users of its own (auth/secret.c), instead of
 * any that are added. Copied, at most AUTH_SECRETS_MAX. Errors as above; -EINVAL
 * also for one too many, or when the realm has users.
 */
int auth_add_secret(struct auth *auth, const char *realm, const char *secret);

/*
 * Third-party authorization (RFC 7635): tokens for the server of this name are taken,
 * beside users, when they are sealed with one of the keys, "ID:HEX", at most
 * AUTH_SECRETS_MAX. Errors as above; -EINVAL: no key, or one too many.
 */
int auth_add_oauth(struct auth *auth, const char *realm, const char *server,
		   uint64_t skew_s);
int auth_add_oauth_key(struct auth *auth, const char *realm, const char *key);

/* The first realm added, NULL when there is none. */
const char *auth_default_realm(const struct auth *auth);

/*
 * Puts the attributes of a 401 or 438 answer: REALM, a fresh NONCE and
 * PASSWORD-ALGORITHMS. A failure sticks to the writer. from: whose address may be
 * forged, so that the nonce is good from this host alone; NULL: a connection.
 */
void auth_challenge_put(const struct auth *auth, const char *realm,
			uint64_t now_s, const union addr *from,
			struct stun_writer *w);

/* Who sent a request, and how to sign the answer. */
struct auth_identity {
	struct auth_account *account; /* a reference, the caller's */
	struct stun_key key;
	bool sha256; /* with MESSAGE-INTEGRITY-SHA256 */
	/*
	 * Time-limited credentials, and their time is up: good for what there
	 * is, not for anything new.
	 */
	bool expired;
	/*
	 * When the token ends by which he may be here, second of the wall clock:
	 * nothing lives longer; 0: there is none.
	 */
	uint64_t until_s;
};

/* Who made the allocation that a request is about, by a token. */
struct auth_session {
	struct auth_account *account; /* whose it is */
	const struct auth_account *token; /* whom its last token was for */
	const struct stun_key *key; /* of that token */
	uint64_t until_s;
};

/*
 * Verifies a request as RFC 8489 9.2.4 has it; from: as above. Returns 0 and fills
 * *out, or
 *   -EAGAIN        the user database must be asked for ask->key first: come
 *                  again with its answer
 *   -EHOSTDOWN     the user database cannot tell who this is (500)
 *   -ENOKEY        no MESSAGE-INTEGRITY of either kind: challenge (401)
 *   -EBADMSG       one without a user, REALM or NONCE, or with password
 *                  algorithms other than those that came with the NONCE (400)
 *   -EKEYREJECTED  unknown user or realm, or wrong password (401)
 *   -EKEYEXPIRED   nonce not ours, another host's or too old (438);
 *                  with the right key, or when it is not from's, with any
 *   -ENOMEM, -EIO  the digest failed (500)
 * An unknown user costs the same time as a wrong password. ask: may be unanswered,
 * and NULL when there is no user database; wiped by the caller. session: for requests
 * without a token; NULL: none.
 */
int auth_check(const struct auth *auth, const struct stun_msg *msg,
	       uint64_t now_s, const union addr *from,
	       const struct auth_session *session, struct store_ask *ask,
	       struct auth_identity *out);

/*
 * Is the request signed by the key of a token that it has not got with it? Then the
 * session tells. By its looks: nothing is verified.
 */
bool auth_session_wanted(const struct auth *auth, const struct stun_msg *msg);

struct auth_account *auth_account_ref(struct auth_account *account);
void auth_account_unref(struct auth_account *account); /* accepts NULL */
const char *auth_account_user(const struct auth_account *account);
const char *auth_account_realm(const struct auth_account *account);

/* What users and realms hold a limited number of. */
enum auth_quota {
	AUTH_QUOTA_ALLOCATIONS,
	AUTH_QUOTA_CONNECTIONS, /* of peers */
	AUTH_QUOTAS,
};

/*
 * Takes one for the user and one for his realm, from any thread. Returns 0, or
 * -EDQUOT with nothing taken: one of the two has as many as it may; 0: no limit.
 */
int auth_quota_take(struct auth_account *account, enum auth_quota what,
		    unsigned int per_user, unsigned int per_realm);
void auth_quota_release(struct auth_account *account, enum auth_quota what);
unsigned int auth_quota_used(const struct auth_account *account,
			     enum auth_quota what);
/* Whose name is "": what all users of the realm hold. */
struct auth_account *auth_account_all(struct auth_account *account);
/* What the account's bytes of one way pass; lives as long as the account. */
struct rate_bucket *auth_account_bucket(struct auth_account *account,
					enum rate_way way);

/*
 * A limit on guessing, by where the guesses come from; callable from any thread.
 */
struct auth_guard;

/* What is counted each by itself. */
enum auth_guard_kind {
	AUTH_GUARD_CONNECTION,
	/* ConnectionBind: who has an allocation must get its connections. */
	AUTH_GUARD_BIND,
	AUTH_GUARD_DATAGRAM, /* whose source may be forged */
	AUTH_GUARD_IDENTIFIER, /* ConnectionBind: of CONNECTION-IDs */
};

/* Returns 0 or -ENOMEM. */
int auth_guard_new(struct auth_guard **out);
void auth_guard_free(struct auth_guard *guard); /* accepts NULL */

/* May what is guessed from here be looked at? limit: failures a minute; 0: any. */
bool auth_guard_allows(struct auth_guard *guard, const union addr *from,
		       enum auth_guard_kind kind, unsigned int limit,
		       uint64_t now_ms);
/* A wrong one came from here. True when the limit has just been reached. */
bool auth_guard_failed(struct auth_guard *guard, const union addr *from,
		       enum auth_guard_kind kind, unsigned int limit,
		       uint64_t now_ms);

#endif
