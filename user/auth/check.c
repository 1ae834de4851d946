/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The challenge and the check of a request (RFC 8489 9.2.4).
 *
 * The checks run in the order of the RFC: each answer tells what somebody who got
 * this far may know. Bidding down fails at the nonce, which holds what was offered
 * beside it under our key: a list that was changed on the way does not match it, a
 * nonce that was changed is not ours, one that came with less than the realm of the
 * request offers is as good as stale.
 */
#include <errno.h>
#include <string.h>

#include "auth/internal.h"
#include "crypto/crypto.h"

/* What a request says of its sender. */
struct claim {
	struct stun_attr name; /* USERNAME or USERHASH */
	struct stun_attr realm, nonce;
	bool hashed; /* it is USERHASH */
	bool negotiated; /* it has password algorithms */
	enum stun_algorithm algorithm;
	const struct auth_keys *keys; /* of the user; NULL: none was looked for */
	bool known; /* they are the sender's own, not a decoy's */
	struct auth_account *account; /* his; NULL: that of `owner` */
	const char *owner;
	struct auth_keys stored; /* of the user database */
	/* Of a realm with secrets: USERNAME, and what it says. */
	char text[AUTH_NAME_MAX + 1];
	struct auth_temporary temporary;
	/* Of a token, or of an allocation made by one; 0: neither. */
	uint64_t until_s;
};

size_t auth_offer_algorithms(unsigned int offer, enum stun_algorithm out[2])
{
	size_t count = 0;

	if (offer & AUTH_OFFER_SHA256)
		out[count++] = STUN_ALGORITHM_SHA256;
	out[count++] = STUN_ALGORITHM_MD5;
	return count;
}

void auth_challenge_put(const struct auth *auth, const char *realm_name,
			uint64_t now_s, const union addr *from,
			struct stun_writer *w)
{
	const struct realm *realm =
		auth_realm_find(auth, realm_name, strlen(realm_name));
	/* A realm that is gone offers what most do: nobody gets in anyway. */
	unsigned int offer = realm ? realm->offer :
				     AUTH_OFFER_SHA256 | AUTH_OFFER_ANONYMITY;
	enum stun_algorithm algorithms[2];
	size_t count = auth_offer_algorithms(offer, algorithms);
	char nonce[AUTH_NONCE_MAX];
	int error = auth_nonce_make(&auth->params, now_s, from, offer, nonce);

	if (error) {
		w->error = error;
		return;
	}
	stun_put_string(w, STUN_ATTR_REALM, realm_name);
	stun_put_string(w, STUN_ATTR_NONCE, nonce);
	stun_put_algorithms(w, STUN_ATTR_PASSWORD_ALGORITHMS, algorithms,
			    count);
	if (realm && realm->oauth)
		stun_put_string(w, STUN_ATTR_THIRD_PARTY_AUTHORIZATION,
				realm->oauth);
}

/* Who, by either name but not by both; 0 or -EBADMSG. */
static int claim_read(const struct stun_msg *msg, struct claim *out)
{
	bool named = stun_find(msg, STUN_ATTR_USERNAME, &out->name);

	out->hashed = stun_has(msg, STUN_ATTR_USERHASH);
	if (named == out->hashed ||
	    !stun_find(msg, STUN_ATTR_REALM, &out->realm) ||
	    !stun_find(msg, STUN_ATTR_NONCE, &out->nonce))
		return -EBADMSG;
	if (out->hashed)
		stun_find(msg, STUN_ATTR_USERHASH, &out->name);
	return 0;
}

/* Is this PASSWORD-ALGORITHMS byte for byte as it was sent? */
static bool list_is_ours(const struct stun_attr *list, unsigned int offer)
{
	enum stun_algorithm algorithms[2];
	size_t count = auth_offer_algorithms(offer, algorithms), at = 0;
	uint16_t number;
	bool plain;

	for (size_t i = 0; i < count; i++)
		if (stun_next_algorithm(list, &at, &number, &plain) != 1 ||
		    !plain || number != algorithms[i])
			return false;
	return at == list->len;
}

/* Is PASSWORD-ALGORITHM one entry, which the list has and we know? */
static bool algorithm_is_listed(const struct stun_attr *one,
				const struct stun_attr *list, uint16_t *out)
{
	size_t at = 0;
	uint16_t number, other;
	bool plain;

	if (stun_next_algorithm(one, &at, &number, &plain) != 1 || !plain ||
	    at != one->len)
		return false;
	if (number != STUN_ALGORITHM_MD5 && number != STUN_ALGORITHM_SHA256)
		return false;
	at = 0;
	while (stun_next_algorithm(list, &at, &other, &plain) == 1)
		if (plain && other == number) {
			*out = number;
			return true;
		}
	return false;
}

/*
 * Which algorithm makes the key. offer: what was sent with this nonce, NULL when
 * the nonce is not ours: then the list cannot be held against anything, and the
 * request can at most earn a new nonce. 0 or -EBADMSG.
 */
static int algorithm_read(const struct stun_msg *msg, const unsigned int *offer,
			  struct claim *out)
{
	struct stun_attr list, one;
	bool has_list = stun_find(msg, STUN_ATTR_PASSWORD_ALGORITHMS, &list);
	bool has_one = stun_find(msg, STUN_ATTR_PASSWORD_ALGORITHM, &one);
	uint16_t number;

	out->negotiated = has_list || has_one;
	out->algorithm = STUN_ALGORITHM_MD5;
	if (!out->negotiated)
		return 0;
	if (!has_list || !has_one || (offer && !list_is_ours(&list, *offer)) ||
	    !algorithm_is_listed(&one, &list, &number))
		return -EBADMSG;
	out->algorithm = (enum stun_algorithm)number;
	return 0;
}

static void keys_stored(struct claim *claim, const struct store_user *user)
{
	struct auth_keys *keys = &claim->stored;

	memcpy(keys->md5.bytes, user->md5, sizeof(user->md5));
	memcpy(keys->sha256.bytes, user->sha256, sizeof(user->sha256));
	keys->md5.len = sizeof(user->md5);
	keys->sha256.len = sizeof(user->sha256);
	claim->keys = keys;
	claim->owner = user->name;
	claim->known = true;
}

/* The user database's word: an answer to this question, or what it has at hand. */
static int stored_find(struct store *store, const struct realm *realm,
		       const uint8_t hash[STUN_SHA256_LEN],
		       struct store_ask *ask)
{
	if (ask->answered && !strcmp(ask->key.realm, realm->name) &&
	    !memcmp(ask->key.hash, hash, STORE_HASH_LEN))
		return ask->result;
	ask->answered = false;
	memcpy(ask->key.realm, realm->name, strlen(realm->name) + 1);
	memcpy(ask->key.hash, hash, STORE_HASH_LEN);
	return store_find(store, &ask->key, &ask->user);
}

/* Somebody who was not added. 0, -EAGAIN, -EHOSTDOWN or -ENOMEM. */
static int user_stored(const struct auth *auth, const struct realm *realm,
		       const uint8_t hash[STUN_SHA256_LEN],
		       struct store_ask *ask, struct claim *claim)
{
	int result;

	if (claim->known || !realm || !auth->params.store)
		return 0;
	result = stored_find(auth->params.store, realm, hash, ask);
	if (!result)
		keys_stored(claim, &ask->user);
	switch (result) {
	case 0:
	case -ENOENT:
		return 0;
	case -EAGAIN:
	case -ENOMEM:
		return result;
	default:
		return -EHOSTDOWN;
	}
}

static void user_added(const struct auth *auth,
		       const uint8_t hash[STUN_SHA256_LEN], struct claim *claim)
{
	const struct stun_attr *realm = &claim->realm;
	const struct user *user = auth_user_find(auth, hash, realm->value,
						 realm->len, &claim->known);

	if (!user)
		return;
	claim->keys = &user->keys;
	claim->account = user->account;
}

/*
 * Whom a request claims to come from. By name, too, the user is found by the hash,
 * so that either way costs the same; a name nobody has is checked against a
 * decoy's key, so that the time of an answer does not tell which names exist. Users
 * that were added come before those of the database.
 */
static int user_claimed(const struct auth *auth,
			const struct realm *known_realm, struct store_ask *ask,
			struct claim *claim)
{
	const struct stun_attr *name = &claim->name, *realm = &claim->realm;
	uint8_t hash[STUN_SHA256_LEN];
	int error = 0;

	if (!auth_realm_ok(realm->value, realm->len))
		return 0;
	if (claim->hashed && name->len == STUN_SHA256_LEN)
		memcpy(hash, name->value, sizeof(hash));
	else if (!claim->hashed && auth_name_ok(name->value, name->len))
		error = stun_userhash(name->value, name->len, realm->value,
				      realm->len, hash);
	else
		return 0;
	if (error)
		return error;
	user_added(auth, hash, claim);
	return user_stored(auth, known_realm, hash, ask, claim);
}

/* 1: signed with this key; otherwise as stun_check_integrity. */
static int signature_check(const struct stun_msg *msg,
			   const struct stun_key *key)
{
	if (msg->integrity_sha256_at)
		return stun_check_integrity_sha256(msg, key->bytes, key->len,
						   STUN_SHA256_LEN);
	return stun_check_integrity(msg, key->bytes, key->len);
}

/*
 * The key a request was signed with. Where there is none to check against, because
 * the user has no key for the algorithm, one that nobody has takes its place.
 */
static int key_check(const struct stun_msg *msg, const struct claim *claim,
		     struct stun_key *out)
{
	static const struct auth_keys nobody = {
		.md5.len = STUN_KEY_LEN,
		.sha256.len = STUN_SHA256_LEN,
	};
	const struct auth_keys *keys = claim->keys ? claim->keys : &nobody;
	bool sha256 = claim->algorithm == STUN_ALGORITHM_SHA256;
	const struct stun_key *key = sha256 ? &keys->sha256 : &keys->md5;
	bool known = claim->known && key->len;
	int got;

	if (!key->len)
		key = sha256 ? &nobody.sha256 : &nobody.md5;
	got = signature_check(msg, key);
	if (got == -ENOMEM || got == -EIO)
		return got;
	if (got != 1 || !known)
		return -EKEYREJECTED;
	*out = *key;
	return 0;
}

/* The user's key of a realm whose users are known. */
static int user_check(const struct auth *auth, const struct realm *realm,
		      const struct stun_msg *msg, struct store_ask *ask,
		      struct claim *claim, struct stun_key *out)
{
	int error = user_claimed(auth, realm, ask, claim);

	return error ? error : key_check(msg, claim, out);
}

/* The key by one of the realm's secrets: each is tried. */
static int secret_check(const struct realm *realm, const struct stun_msg *msg,
			struct claim *claim, struct stun_key *out)
{
	struct stun_key key;
	int error = -EKEYREJECTED, got;

	if (claim->hashed || !auth_name_ok(claim->name.value, claim->name.len))
		return -EKEYREJECTED;
	memcpy(claim->text, claim->name.value, claim->name.len);
	claim->text[claim->name.len] = '\0';
	if (auth_temporary_read(claim->text, &claim->temporary))
		return -EKEYREJECTED;
	for (size_t i = 0; i < realm->secret_count && error == -EKEYREJECTED;
	     i++) {
		got = auth_temporary_key(realm->secrets[i], claim->text,
					 realm->name, claim->algorithm, &key);
		if (!got)
			got = signature_check(msg, &key);
		if (got == 1)
			*out = key;
		error = got == 1                      ? 0 :
			got == -ENOMEM || got == -EIO ? got :
							-EKEYREJECTED;
	}
	claim->owner = claim->temporary.user;
	crypto_wipe(&key, sizeof(key));
	return error;
}

static int key_take(const struct stun_msg *msg, const struct stun_key *key,
		    struct stun_key *out)
{
	int got = signature_check(msg, key);

	if (got == 1)
		*out = *key;
	return got == 1                      ? 0 :
	       got == -ENOMEM || got == -EIO ? got :
					       -EKEYREJECTED;
}

/*
 * By the key of a token; coturn's client signs with SHA-1 by the first 16 bytes of
 * one that has 20.
 */
static int token_key_take(const struct stun_msg *msg,
			  const struct stun_key *key, struct stun_key *out)
{
	struct stun_key cut = *key;
	int error = key_take(msg, key, out);

	if (error == -EKEYREJECTED && key->len == CRYPTO_SHA1_LEN) {
		cut.len = STUN_KEY_LEN;
		error = key_take(msg, &cut, out);
	}
	crypto_wipe(&cut, sizeof(cut));
	return error;
}

/* The key that an access token has in it (RFC 7635 7). */
static int token_check(const struct realm *realm, const struct stun_msg *msg,
		       const struct stun_attr *value, uint64_t now_s,
		       struct claim *claim, struct stun_key *out)
{
	const struct token_key *key = auth_token_key_find(realm, &claim->name);
	struct auth_token token;
	int error = key && !claim->hashed ?
			    auth_token_open(key, realm->oauth, value->value,
					    value->len, &token) :
			    -EBADMSG;

	if (error)
		return error == -EBADMSG ? -EKEYREJECTED : error;
	error = token.begin_s > now_s + realm->oauth_skew_s ||
				now_s >= token.end_s + realm->oauth_skew_s ?
			-EKEYREJECTED :
			token_key_take(msg, &token.key, out);
	if (!error)
		error = auth_token_user(key, &token.key, claim->text);
	claim->owner = claim->text;
	claim->until_s = token.end_s + realm->oauth_skew_s;
	crypto_wipe(&token, sizeof(token));
	return error;
}

/* Is USERNAME the key's id that this user came by? */
static bool session_fits(const struct auth_session *session,
			 const struct claim *claim)
{
	const char *user = auth_account_user(session->token);
	const char *slash = strrchr(user, '/');
	const char *realm = auth_account_realm(session->token);

	return slash && !claim->hashed &&
	       claim->name.len == (size_t)(slash - user) &&
	       !memcmp(claim->name.value, user, claim->name.len) &&
	       claim->realm.len == strlen(realm) &&
	       !memcmp(claim->realm.value, realm, claim->realm.len);
}

bool auth_session_wanted(const struct auth *auth, const struct stun_msg *msg)
{
	struct claim claim = { 0 };
	const struct realm *realm;

	if ((!msg->integrity_at && !msg->integrity_sha256_at) ||
	    stun_has(msg, STUN_ATTR_ACCESS_TOKEN) || claim_read(msg, &claim) ||
	    claim.hashed)
		return false;
	realm = auth_realm_find(auth, claim.realm.value, claim.realm.len);
	return realm && realm->oauth && auth_token_key_find(realm, &claim.name);
}

static int session_check(const struct auth_session *session,
			 const struct stun_msg *msg, uint64_t now_s,
			 struct claim *claim, struct stun_key *out)
{
	claim->account = session->account;
	claim->until_s = session->until_s;
	return now_s < session->until_s ? key_take(msg, session->key, out) :
					  -EKEYREJECTED;
}

/* By what it is signed, of all that a realm may know its clients by. */
static int sender_check(const struct auth *auth, const struct realm *realm,
			const struct stun_msg *msg, uint64_t now_s,
			const struct auth_session *session,
			struct store_ask *ask, struct claim *claim,
			struct stun_key *out)
{
	struct stun_attr token;

	if (realm && realm->oauth) {
		if (stun_find(msg, STUN_ATTR_ACCESS_TOKEN, &token))
			return token_check(realm, msg, &token, now_s, claim,
					   out);
		if (session && session_fits(session, claim))
			return session_check(session, msg, now_s, claim, out);
	}
	return realm && realm->secret_count ?
		       secret_check(realm, msg, claim, out) :
		       user_check(auth, realm, msg, ask, claim, out);
}

/* A reference to the sender's account. 0 or -ENOMEM. */
static int account_take(const struct realm *realm, const struct claim *claim,
			struct auth_account **out)
{
	if (claim->owner)
		return auth_account_get(realm->name, claim->owner, out);
	*out = auth_account_ref(claim->account);
	return 0;
}

int auth_check(const struct auth *auth, const struct stun_msg *msg,
	       uint64_t now_s, const union addr *from,
	       const struct auth_session *session, struct store_ask *ask,
	       struct auth_identity *out)
{
	struct claim claim = { 0 };
	const struct realm *realm;
	struct stun_key key;
	unsigned int offer = 0;
	int error, nonce;

	if (!msg->integrity_at && !msg->integrity_sha256_at)
		return -ENOKEY;
	error = claim_read(msg, &claim);
	if (error)
		return error;
	nonce = auth_nonce_check(&auth->params, now_s, from, claim.nonce.value,
				 claim.nonce.len, &offer);
	if (nonce == -ENOMEM || nonce == -EIO)
		return nonce;
	error = algorithm_read(msg, nonce == -EKEYREVOKED ? NULL : &offer,
			       &claim);
	if (error)
		return error;
	/*
	 * Who could not read the answer that went to this host may have forged
	 * its address: what he guesses is neither looked at nor held against it.
	 * 438 also for a wrong password, of which RFC 8489 9.2.4 has 401 first:
	 * told apart, right ones could be found without being counted.
	 */
	if (from && nonce == -EKEYREVOKED)
		return -EKEYEXPIRED;
	realm = auth_realm_find(auth, claim.realm.value, claim.realm.len);
	/*
	 * It came with less than the realm offers: from another realm, or from
	 * before a reload. Who is shown such a one on the way must not be held
	 * to the less.
	 */
	if (!nonce && realm && realm->offer & ~offer)
		nonce = -EKEYEXPIRED;
	error = sender_check(auth, realm, msg, now_s, session, ask, &claim,
			     &key);
	if (error)
		goto wipe;
	/* Only who knows the key hears that the nonce alone is amiss. */
	error = nonce ? -EKEYEXPIRED :
			account_take(realm, &claim, &out->account);
	if (!error) {
		out->key = key;
		out->sha256 = claim.negotiated;
		out->expired = claim.temporary.user &&
			       claim.temporary.expires_s <= now_s;
		out->until_s = claim.until_s;
	}
wipe:
	crypto_wipe(&key, sizeof(key));
	crypto_wipe(&claim.stored, sizeof(claim.stored));
	return error;
}
