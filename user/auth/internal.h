/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the auth room share. */
#ifndef AUTH_INTERNAL_H
#define AUTH_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "auth/auth.h"
#include "base/list.h"
#include "base/table.h"

/* RFC 8489 14.9: bytes of a realm's 127 characters in UTF-8. */
#define AUTH_REALM_BYTES 508

/* What a challenge offers beside RFC 5389; goes into its nonce. */
enum auth_offer {
	AUTH_OFFER_SHA256 = 1, /* SHA-256 before MD5; otherwise MD5 alone */
	AUTH_OFFER_ANONYMITY = 2, /* USERHASH instead of USERNAME */
};

/* A key shared with an authorization server (RFC 7635). */
struct token_key {
	char id[AUTH_TOKEN_ID_MAX];
	uint8_t key[32];
	size_t len; /* 16: A128GCM, 32: A256GCM */
};

struct realm {
	struct list node;
	unsigned int offer; /* of enum auth_offer */
	size_t users;
	char *secrets[AUTH_SECRETS_MAX]; /* with any there are no users */
	size_t secret_count;
	char *oauth; /* this server's name for tokens; NULL: none are taken */
	uint64_t oauth_skew_s; /* by which clocks may differ */
	struct token_key token_keys[AUTH_SECRETS_MAX];
	size_t token_key_count;
	char name[];
};

struct user {
	struct table_node node; /* of auth->users, under the user hash */
	struct realm *realm;
	struct auth_account *account;
	struct auth_keys keys;
	uint8_t userhash[STUN_SHA256_LEN];
};

struct auth {
	_Atomic unsigned int refs;
	struct auth_params params;
	struct list realms; /* the default one first */
	struct table users;
};

/* Fit to be a realm, a user name? */
bool auth_realm_ok(const void *realm, size_t len);
bool auth_name_ok(const void *name, size_t len);

/* NULL: there is none. */
struct realm *auth_realm_find(const struct auth *auth, const void *name,
			      size_t len);
/*
 * The user of this USERHASH and realm, with *known true. Without one *known is
 * false and a decoy is returned, always the same one for a hash, after the same
 * comparisons and as many misses of the cache; NULL: there are no users at all.
 */
const struct user *auth_user_find(const struct auth *auth,
				  const uint8_t hash[STUN_SHA256_LEN],
				  const void *realm, size_t realm_len,
				  bool *known);

/*
 * The account of (realm, user), made when nothing refers to it yet; the caller
 * owns a reference. User "" is the realm's own. Returns 0 or -ENOMEM.
 */
int auth_account_get(const char *realm, const char *user,
		     struct auth_account **out);

/*
 * Writes a nonce of this second and offer, for this host (NULL: for connections).
 * Returns 0, -ENOMEM or -EIO.
 */
int auth_nonce_make(const struct auth_params *params, uint64_t now_s,
		    const union addr *from, unsigned int offer,
		    char out[AUTH_NONCE_MAX]);
/*
 * 0: ours and fresh; -EKEYEXPIRED: ours, not of now; both with what was offered
 * beside it in *offer. -EKEYREVOKED: not ours, or not made for `from`. -ENOMEM,
 * -EIO.
 */
int auth_nonce_check(const struct auth_params *params, uint64_t now_s,
		     const union addr *from, const uint8_t *nonce, size_t len,
		     unsigned int *offer);

/* What a user name of a realm with secrets says. */
struct auth_temporary {
	uint64_t expires_s;
	const char *user; /* whom it is for: a part of the name, or all of it */
};

/* Reads "1700000000:alice" or "1700000000". 0, or -EINVAL: neither. */
int auth_temporary_read(const char *name, struct auth_temporary *out);
/* The key that goes with such a name. 0, -ENOMEM or -EIO. */
int auth_temporary_key(const char *secret, const char *name, const char *realm,
		       enum stun_algorithm algorithm, struct stun_key *out);

/* What is in a token. */
struct auth_token {
	struct stun_key key;
	uint64_t begin_s, end_s; /* when it is good */
};

/* Reads "ID:HEX". 0 or -EINVAL. */
int auth_token_key_read(const char *text, struct token_key *out);
/* Of what was sealed. 0 or -EBADMSG. */
int auth_token_read(const uint8_t *plain, size_t len, struct auth_token *out);
/* ACCESS-TOKEN's value. 0, -EBADMSG: it is none of this key's; -ENOMEM, -EIO. */
int auth_token_open(const struct token_key *key, const char *server,
		    const uint8_t *value, size_t len, struct auth_token *out);
/* NULL: there is none with this id. */
const struct token_key *auth_token_key_find(const struct realm *realm,
					    const struct stun_attr *id);
/* The user's name: id and what tells this key from others. 0, -ENOMEM, -EIO. */
int auth_token_user(const struct token_key *key, const struct stun_key *mac,
		    char out[AUTH_NAME_MAX + 1]);

/* The algorithms of an offer, the preferred one first; how many. */
size_t auth_offer_algorithms(unsigned int offer, enum stun_algorithm out[2]);

#endif
