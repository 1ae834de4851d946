/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What RFC 8489 adds to long-term credentials: password algorithms, USERHASH,
 * MESSAGE-INTEGRITY-SHA256, and that nobody on the way can bid them down.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "crypto/crypto.h"
#include "unit/auth_rig.h"

#define BOTH   "\0\2\0\0\0\1\0\0"
#define MD5    "\0\1\0\0"
#define SHA256 "\0\2\0\0"

/* Bytes of an attribute; data NULL: it is not there. */
struct bytes {
	const char *data;
	size_t len;
};

#define BYTES(text)                      \
	{                                \
		(text), sizeof(text) - 1 \
	}

enum seal {
	SEAL_SHA256, /* MESSAGE-INTEGRITY-SHA256 */
	SEAL_SHA1, /* MESSAGE-INTEGRITY */
	SEAL_BOTH,
	SEAL_CUT, /* MESSAGE-INTEGRITY-SHA256 of 16 bytes */
};

/* A request of alice of example.org as a client of RFC 8489 makes it. */
struct ask {
	const char *user, *password;
	const char *nonce;
	bool hashed; /* USERHASH instead of USERNAME */
	bool md5; /* the key */
	struct bytes list, one; /* PASSWORD-ALGORITHMS, PASSWORD-ALGORITHM */
	enum seal seal;
};

static const struct ask usual = {
	.user = "alice",
	.password = "wonder",
	.list = BYTES(BOTH),
	.one = BYTES(SHA256),
};

static void key_of(const struct ask *ask, struct stun_key *key)
{
	key->len = ask->md5 ? STUN_KEY_LEN : STUN_SHA256_LEN;
	assert_int_equal(
		ask->md5 ? stun_long_term_key(ask->user, "example.org",
					      ask->password, key->bytes) :
			   stun_long_term_key_sha256(ask->user, "example.org",
						     ask->password, key->bytes),
		0);
}

static void put_bytes(struct stun_writer *w, uint16_t type,
		      const struct bytes *bytes)
{
	if (bytes->data)
		stun_put(w, type, bytes->data, bytes->len);
}

/* Right but for being cut: digested over a header that counts 16 bytes. */
static void put_cut(struct stun_writer *w, const struct stun_key *key)
{
	size_t end = w->len;
	const struct iovec part = { w->buf, end };
	uint8_t sum[STUN_SHA256_LEN];
	struct stun_msg msg;

	put_be16(w->buf + 2, (uint16_t)(end + 20 - STUN_HEADER_LEN));
	assert_int_equal(
		crypto_hmac_sha256(key->bytes, key->len, &part, 1, sum), 0);
	stun_put(w, STUN_ATTR_MESSAGE_INTEGRITY_SHA256, sum, 16);
	assert_int_equal(stun_parse(w->buf, w->len, &msg), 0);
	assert_int_equal(
		stun_check_integrity_sha256(&msg, key->bytes, key->len, 16), 1);
}

static void put_seal(struct stun_writer *w, const struct ask *ask)
{
	struct stun_key key;

	key_of(ask, &key);
	if (ask->seal == SEAL_SHA1 || ask->seal == SEAL_BOTH)
		stun_put_integrity(w, key.bytes, key.len);
	if (ask->seal == SEAL_SHA256 || ask->seal == SEAL_BOTH)
		stun_put_integrity_sha256(w, key.bytes, key.len);
	if (ask->seal == SEAL_CUT)
		put_cut(w, &key);
}

static void ask_build(const struct ask *ask, struct stun_writer *w,
		      uint8_t *buf, size_t cap)
{
	uint8_t hash[STUN_SHA256_LEN];

	stun_begin(w, buf, cap, STUN_REQUEST, STUN_ALLOCATE, NULL);
	if (ask->hashed) {
		assert_int_equal(stun_userhash(ask->user, strlen(ask->user),
					       "example.org",
					       strlen("example.org"), hash),
				 0);
		stun_put(w, STUN_ATTR_USERHASH, hash, sizeof(hash));
	} else {
		stun_put_string(w, STUN_ATTR_USERNAME, ask->user);
	}
	stun_put_string(w, STUN_ATTR_REALM, "example.org");
	stun_put_string(w, STUN_ATTR_NONCE, ask->nonce);
	put_bytes(w, STUN_ATTR_PASSWORD_ALGORITHMS, &ask->list);
	put_bytes(w, STUN_ATTR_PASSWORD_ALGORITHM, &ask->one);
	put_seal(w, ask);
	assert_true(stun_end(w) > 0);
}

/* What auth_check says of it; a nonce is made when there is none. */
static int verdict(const struct auth *auth, struct ask ask,
		   struct auth_identity *out)
{
	struct auth_identity id;
	char nonce[AUTH_NONCE_MAX];
	struct stun_writer w;
	struct stun_msg msg;
	uint8_t buf[1024];
	int error;

	nonce_of(auth, "example.org", NOW, nonce);
	if (!ask.nonce)
		ask.nonce = nonce;
	ask_build(&ask, &w, buf, sizeof(buf));
	assert_int_equal(stun_parse(buf, w.len, &msg), 0);
	error = auth_check(auth, &msg, NOW, NULL, NULL, NULL, &id);
	if (!error)
		auth_account_unref(id.account); /* the user's keeps it */
	if (!error && out)
		*out = id;
	return error;
}

static void sha256_is_agreed_on(void **state)
{
	struct auth *auth = auth_sample();
	struct ask ask = usual;
	struct auth_identity id;
	struct stun_key key;

	(void)state;
	for (ask.seal = SEAL_SHA256; ask.seal <= SEAL_BOTH; ask.seal++) {
		assert_int_equal(verdict(auth, ask, &id), 0);
		key_of(&ask, &key);
		assert_int_equal(id.key.len, key.len);
		assert_memory_equal(id.key.bytes, key.bytes, key.len);
		assert_true(id.sha256);
		assert_string_equal(auth_account_user(id.account), "alice");
	}
	ask.password = "Wonder";
	assert_int_equal(verdict(auth, ask, NULL), -EKEYREJECTED);
	auth_unref(auth);
}

static void md5_may_be_taken_from_the_list(void **state)
{
	struct auth *auth = auth_sample();
	struct ask ask = usual;
	struct auth_identity id;

	(void)state;
	ask.one = (struct bytes)BYTES(MD5);
	/* The key goes by the algorithm named, not by the integrity's. */
	assert_int_equal(verdict(auth, ask, NULL), -EKEYREJECTED);
	ask.md5 = true;
	assert_int_equal(verdict(auth, ask, &id), 0);
	assert_int_equal(id.key.len, STUN_KEY_LEN);
	assert_true(id.sha256);
	ask.one = (struct bytes)BYTES(SHA256);
	assert_int_equal(verdict(auth, ask, NULL), -EKEYREJECTED);
	auth_unref(auth);
}

/* RFC 8489 9.2.4, the end: it was processed as though the algorithm were MD5. */
static void no_algorithm_means_md5_and_sha1_answers(void **state)
{
	struct auth *auth = auth_sample();
	struct ask ask = usual;
	struct auth_identity id;

	(void)state;
	ask.list.data = ask.one.data = NULL;
	ask.md5 = true;
	for (ask.seal = SEAL_SHA256; ask.seal <= SEAL_BOTH; ask.seal++) {
		assert_int_equal(verdict(auth, ask, &id), 0);
		assert_false(id.sha256);
		assert_int_equal(id.key.len, STUN_KEY_LEN);
	}
	ask.md5 = false;
	ask.seal = SEAL_SHA256;
	assert_int_equal(verdict(auth, ask, NULL), -EKEYREJECTED);
	auth_unref(auth);
}

/* RFC 8489 14.6: all of it, for RFC 8656 says nothing of cutting. */
static void cut_integrity_is_rejected(void **state)
{
	struct auth *auth = auth_sample();
	struct ask ask = usual;

	(void)state;
	ask.seal = SEAL_CUT;
	assert_int_equal(verdict(auth, ask, NULL), -EKEYREJECTED);
	auth_unref(auth);
}

static void algorithms_must_be_those_offered(void **state)
{
	static const struct {
		struct bytes list, one;
	} cases[] = {
		{ BYTES(BOTH), { NULL, 0 } },
		{ { NULL, 0 }, BYTES(SHA256) },
		{ { NULL, 0 }, BYTES(MD5) },
		{ BYTES(MD5), BYTES(MD5) }, /* bidden down */
		{ BYTES(SHA256), BYTES(SHA256) },
		{ BYTES(MD5 SHA256), BYTES(SHA256) },
		{ BYTES(BOTH MD5), BYTES(SHA256) },
		{ BYTES(BOTH "\0\3\0\0"), BYTES(SHA256) },
		{ BYTES(""), BYTES(SHA256) },
		{ BYTES("\0\2\0\0\0\1"), BYTES(SHA256) },
		{ BYTES("\0\2\0\4abcd\0\1\0\0"), BYTES(SHA256) },
		{ BYTES(BOTH), BYTES("") },
		{ BYTES(BOTH), BYTES("\0\2") },
		{ BYTES(BOTH), BYTES("\0\0\0\0") },
		{ BYTES(BOTH), BYTES("\0\3\0\0") },
		{ BYTES(BOTH), BYTES(SHA256 MD5) },
		{ BYTES(BOTH), BYTES("\0\2\0\4abcd") },
		{ BYTES(BOTH), BYTES("\0\2\0\4") },
	};
	struct auth *auth = auth_sample();
	char old[AUTH_NONCE_MAX];

	(void)state;
	nonce_of(auth, "example.org", NOW - LIFETIME - 1, old);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ask ask = usual;

		ask.list = cases[i].list;
		ask.one = cases[i].one;
		assert_int_equal(verdict(auth, ask, NULL), -EBADMSG);
		ask.md5 = true;
		assert_int_equal(verdict(auth, ask, NULL), -EBADMSG);
		/* Before the user, the password and the age of the nonce. */
		ask.user = "carol";
		assert_int_equal(verdict(auth, ask, NULL), -EBADMSG);
		ask.nonce = old;
		assert_int_equal(verdict(auth, ask, NULL), -EBADMSG);
	}
	auth_unref(auth);
}

/* Who takes the features out of the nonce has one that is not ours. */
static void features_cannot_be_taken_out_of_the_nonce(void **state)
{
	static const char *const features[] = { "AAAA", "gAAA", "QAAA", "AAAB",
						"wAAB" };
	struct auth *auth = auth_sample();
	char nonce[AUTH_NONCE_MAX];
	struct ask ask = usual;

	(void)state;
	ask.nonce = nonce;
	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		nonce_of(auth, "example.org", NOW, nonce);
		memcpy(nonce + 9, features[i], 4);
		ask.list = usual.list;
		ask.one = usual.one;
		ask.md5 = false;
		assert_int_equal(verdict(auth, ask, NULL), -EKEYEXPIRED);
		ask.list.data = ask.one.data = NULL;
		ask.md5 = true;
		assert_int_equal(verdict(auth, ask, NULL), -EKEYEXPIRED);
		/* Not ours: the list cannot be told from a right one. */
		ask.list = ask.one = (struct bytes)BYTES(MD5);
		assert_int_equal(verdict(auth, ask, NULL), -EKEYEXPIRED);
		ask.password = "guess";
		assert_int_equal(verdict(auth, ask, NULL), -EKEYREJECTED);
		ask.password = "wonder";
	}
	auth_unref(auth);
}

/* Nor can a nonce of ours that came with less: of another realm, or of before. */
static void lesser_nonce_of_ours_is_stale(void **state)
{
	struct auth *auth = auth_sample(), *before;
	static const struct auth_keys weak = { .md5.len = STUN_KEY_LEN };
	char nonce[AUTH_NONCE_MAX];
	struct ask ask = usual;

	(void)state;
	assert_int_equal(auth_add_realm(auth, "weak"), 0);
	assert_int_equal(auth_add_user(auth, "weak", "bob", &weak), 0);
	assert_int_equal(auth_add_realm(auth, "rtc"), 0);
	assert_int_equal(auth_add_secret(auth, "rtc", "secret"), 0);
	ask.nonce = nonce;
	nonce_of(auth, "weak", NOW, nonce);
	ask.list = ask.one = (struct bytes)BYTES(MD5);
	ask.md5 = true;
	assert_int_equal(verdict(auth, ask, NULL), -EKEYEXPIRED);
	ask.list.data = ask.one.data = NULL;
	assert_int_equal(verdict(auth, ask, NULL), -EKEYEXPIRED);
	ask.password = "guess";
	assert_int_equal(verdict(auth, ask, NULL), -EKEYREJECTED);
	/* It asks for no user hash. */
	ask = usual;
	ask.nonce = nonce;
	nonce_of(auth, "rtc", NOW, nonce);
	assert_int_equal(verdict(auth, ask, NULL), -EKEYEXPIRED);
	/* One that came with the same is as good as one's own. */
	nonce_of(auth, "example.net", NOW, nonce);
	assert_int_equal(verdict(auth, ask, NULL), 0);
	/* Before a reload the realm had a user with MD5 alone. */
	assert_int_equal(auth_new(&params, &before), 0);
	assert_int_equal(auth_add_realm(before, "example.org"), 0);
	assert_int_equal(auth_add_user(before, "example.org", "bob", &weak), 0);
	nonce_of(before, "example.org", NOW, nonce);
	ask.list = ask.one = (struct bytes)BYTES(MD5);
	ask.md5 = true;
	assert_int_equal(verdict(auth, ask, NULL), -EKEYEXPIRED);
	auth_unref(before);
	auth_unref(auth);
}

static void userhash_stands_for_the_name(void **state)
{
	struct auth *auth = auth_sample();
	struct ask ask = usual;
	struct auth_identity named, hashed;

	(void)state;
	assert_int_equal(verdict(auth, ask, &named), 0);
	ask.hashed = true;
	assert_int_equal(verdict(auth, ask, &hashed), 0);
	assert_ptr_equal(named.account, hashed.account);
	ask.password = "Wonder";
	assert_int_equal(verdict(auth, ask, NULL), -EKEYREJECTED);
	ask.user = "carol";
	assert_int_equal(verdict(auth, ask, NULL), -EKEYREJECTED);
	/* Also for who agreed on no algorithm. */
	ask = usual;
	ask.hashed = ask.md5 = true;
	ask.list.data = ask.one.data = NULL;
	assert_int_equal(verdict(auth, ask, &hashed), 0);
	auth_unref(auth);
}

/* Signed by hand: a USERHASH of this length and of this realm, and a name. */
static int hashed_by_hand(const struct auth *auth, const uint8_t *hash,
			  size_t len, const char *realm, const char *name,
			  const char *key_realm)
{
	struct auth_identity id;
	char nonce[AUTH_NONCE_MAX];
	uint8_t key[STUN_KEY_LEN], buf[1024];
	struct stun_writer w;
	struct stun_msg msg;
	int error;

	nonce_of(auth, realm, NOW, nonce);
	assert_int_equal(stun_long_term_key("alice", key_realm, "wonder", key),
			 0);
	stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_ALLOCATE, NULL);
	if (name)
		stun_put_string(&w, STUN_ATTR_USERNAME, name);
	stun_put(&w, STUN_ATTR_USERHASH, hash, len);
	stun_put_string(&w, STUN_ATTR_REALM, realm);
	stun_put_string(&w, STUN_ATTR_NONCE, nonce);
	stun_put_integrity(&w, key, sizeof(key));
	assert_true(stun_end(&w) > 0);
	assert_int_equal(stun_parse(buf, w.len, &msg), 0);
	error = auth_check(auth, &msg, NOW, NULL, NULL, NULL, &id);
	if (!error)
		auth_account_unref(id.account);
	return error;
}

static void userhash_must_be_whole_and_alone(void **state)
{
	uint8_t hash[STUN_SHA256_LEN + 4] = { 0 };
	struct auth *auth = auth_sample();

	(void)state;
	assert_int_equal(stun_userhash("alice", strlen("alice"), "example.org",
				       strlen("example.org"), hash),
			 0);
	for (size_t len = 0; len <= sizeof(hash); len++)
		assert_int_equal(hashed_by_hand(auth, hash, len, "example.org",
						NULL, "example.org"),
				 len == STUN_SHA256_LEN ? 0 : -EKEYREJECTED);
	assert_int_equal(hashed_by_hand(auth, hash, STUN_SHA256_LEN,
					"example.org", "alice", "example.org"),
			 -EBADMSG);
	/* The hash of one realm under the name of another. */
	assert_int_equal(hashed_by_hand(auth, hash, STUN_SHA256_LEN,
					"example.net", NULL, "example.org"),
			 -EKEYREJECTED);
	assert_int_equal(hashed_by_hand(auth, hash, STUN_SHA256_LEN,
					"example.net", NULL, "example.net"),
			 -EKEYREJECTED);
	auth_unref(auth);
}

/* "a:b" of "c" and "a" of "b:c" have one hash: the realm tells them apart. */
static void equal_userhashes_of_two_realms(void **state)
{
	uint8_t hash[STUN_SHA256_LEN];
	struct auth *auth;

	(void)state;
	assert_int_equal(auth_new(&params, &auth), 0);
	assert_int_equal(auth_add_realm(auth, "x:c"), 0);
	assert_int_equal(auth_add_realm(auth, "c"), 0);
	add_user(auth, "c", "alice:x", "other");
	assert_int_equal(stun_userhash("alice", strlen("alice"), "x:c",
				       strlen("x:c"), hash),
			 0);
	assert_int_equal(hashed_by_hand(auth, hash, sizeof(hash), "x:c", NULL,
					"x:c"),
			 -EKEYREJECTED);
	add_user(auth, "x:c", "alice", "wonder");
	assert_int_equal(hashed_by_hand(auth, hash, sizeof(hash), "x:c", NULL,
					"x:c"),
			 0);
	assert_int_equal(hashed_by_hand(auth, hash, sizeof(hash), "c", NULL,
					"x:c"),
			 -EKEYREJECTED);
	auth_unref(auth);
}

/* A user of example.org with the digests of "wonder" named. */
static void add_digests(struct auth *auth, const char *user, bool md5,
			bool sha256)
{
	struct auth_keys keys = { 0 };

	if (md5) {
		keys.md5.len = STUN_KEY_LEN;
		assert_int_equal(stun_long_term_key(user, "example.org",
						    "wonder", keys.md5.bytes),
				 0);
	}
	if (sha256) {
		keys.sha256.len = STUN_SHA256_LEN;
		assert_int_equal(stun_long_term_key_sha256(user, "example.org",
							   "wonder",
							   keys.sha256.bytes),
				 0);
	}
	assert_int_equal(auth_add_user(auth, "example.org", user, &keys),
			 md5 || sha256 ? 0 : -EINVAL);
}

/* PASSWORD-ALGORITHMS of a realm's challenge. */
static void assert_offer(const struct auth *auth, const char *realm,
			 const char *list, size_t len)
{
	struct stun_attr attr;
	struct stun_msg msg;
	uint8_t buf[CHALLENGE_MAX];

	challenge_of(auth, realm, NOW, buf, &msg);
	assert_true(stun_find(&msg, STUN_ATTR_REALM, &attr));
	assert_int_equal(attr.len, strlen(realm));
	assert_memory_equal(attr.value, realm, attr.len);
	assert_true(stun_find(&msg, STUN_ATTR_PASSWORD_ALGORITHMS, &attr));
	assert_int_equal(attr.len, len);
	assert_memory_equal(attr.value, list, len);
}

static void users_with_one_digest_alone(void **state)
{
	struct auth *auth;
	struct ask ask = usual;
	char nonce[AUTH_NONCE_MAX];

	(void)state;
	assert_int_equal(auth_new(&params, &auth), 0);
	assert_int_equal(auth_add_realm(auth, "example.org"), 0);
	assert_int_equal(auth_add_realm(auth, "example.net"), 0);
	add_digests(auth, "nobody", false, false);
	add_digests(auth, "alice", false, true);
	assert_offer(auth, "example.org", BOTH, 8);
	assert_int_equal(verdict(auth, ask, NULL), 0);
	ask.md5 = true;
	ask.one = (struct bytes)BYTES(MD5);
	assert_int_equal(verdict(auth, ask, NULL), -EKEYREJECTED);
	ask.list.data = ask.one.data = NULL;
	assert_int_equal(verdict(auth, ask, NULL), -EKEYREJECTED);
	/* One who has MD5 alone keeps SHA-256 from being offered. */
	ask = usual;
	nonce_of(auth, "example.org", NOW, nonce);
	add_digests(auth, "bob", true, false);
	assert_offer(auth, "example.org", MD5, 4);
	assert_offer(auth, "example.net", BOTH, 8);
	assert_offer(auth, "no such realm", BOTH, 8);
	assert_int_equal(verdict(auth, ask, NULL), -EBADMSG);
	/* What was offered with an earlier nonce still holds. */
	ask.nonce = nonce;
	assert_int_equal(verdict(auth, ask, NULL), 0);
	ask.user = "bob";
	assert_int_equal(verdict(auth, ask, NULL), -EKEYREJECTED);
	ask.nonce = NULL;
	ask.list = ask.one = (struct bytes)BYTES(MD5);
	ask.md5 = true;
	assert_int_equal(verdict(auth, ask, NULL), 0);
	auth_unref(auth);
}

/* An algorithm a user has no key for must not be opened by the key of nobody. */
static void absent_key_opens_nothing(void **state)
{
	static const uint8_t zero[STUN_SHA256_LEN];
	struct auth *auth;
	struct auth_identity id;
	char nonce[AUTH_NONCE_MAX];
	struct stun_writer w;
	struct stun_msg msg;
	uint8_t buf[512];

	(void)state;
	assert_int_equal(auth_new(&params, &auth), 0);
	assert_int_equal(auth_add_realm(auth, "example.org"), 0);
	add_digests(auth, "alice", false, true);
	nonce_of(auth, "example.org", NOW, nonce);
	for (size_t len = 0; len <= STUN_SHA256_LEN; len += STUN_KEY_LEN) {
		stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_ALLOCATE,
			   NULL);
		stun_put_string(&w, STUN_ATTR_USERNAME, "alice");
		stun_put_string(&w, STUN_ATTR_REALM, "example.org");
		stun_put_string(&w, STUN_ATTR_NONCE, nonce);
		stun_put_integrity_sha256(&w, zero, len);
		assert_true(stun_end(&w) > 0);
		assert_int_equal(stun_parse(buf, w.len, &msg), 0);
		assert_int_equal(auth_check(auth, &msg, NOW, NULL, NULL, NULL,
					    &id),
				 -EKEYREJECTED);
	}
	auth_unref(auth);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sha256_is_agreed_on),
		cmocka_unit_test(md5_may_be_taken_from_the_list),
		cmocka_unit_test(no_algorithm_means_md5_and_sha1_answers),
		cmocka_unit_test(cut_integrity_is_rejected),
		cmocka_unit_test(algorithms_must_be_those_offered),
		cmocka_unit_test(features_cannot_be_taken_out_of_the_nonce),
		cmocka_unit_test(lesser_nonce_of_ours_is_stale),
		cmocka_unit_test(userhash_stands_for_the_name),
		cmocka_unit_test(userhash_must_be_whole_and_alone),
		cmocka_unit_test(equal_userhashes_of_two_realms),
		cmocka_unit_test(users_with_one_digest_alone),
		cmocka_unit_test(absent_key_opens_nothing),
	};

	return cmocka_run_group_tests_name("auth: RFC 8489", tests, NULL, NULL);
}
