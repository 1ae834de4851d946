/* SPDX-License-Identifier: BSD-2-Clause */
/* Access tokens (RFC 7635): what they hold, whom they let in and for how long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "auth/internal.h"
#include "base/bytes.h"
#include "crypto/crypto.h"
#include "unit/auth_rig.h"

#define REALM  "rtc.example.org"
#define SERVER "turn.example.org"
#define KEY_A  "00112233445566778899aabbccddeeff"
#define KEY_B  KEY_A KEY_A
#define SKEW   5

static struct auth *auth_new_sample(void)
{
	struct auth *auth = auth_sample();

	assert_int_equal(auth_add_realm(auth, REALM), 0);
	assert_int_equal(auth_add_oauth(auth, REALM, SERVER, SKEW), 0);
	assert_int_equal(auth_add_oauth_key(auth, REALM, "old:" KEY_A), 0);
	assert_int_equal(auth_add_oauth_key(auth, REALM, "new:" KEY_B), 0);
	add_user(auth, REALM, "alice", "wonder");
	return auth;
}

/* A token as an authorization server makes it. */
struct made {
	const char *key, *server;
	uint64_t begin_s;
	uint32_t lifetime_s;
	size_t mac_len;
	uint8_t mac;
};

static const struct made usual = {
	.key = "x:" KEY_A,
	.server = SERVER,
	.begin_s = NOW,
	.lifetime_s = 600,
	.mac_len = 20,
	.mac = 7,
};

static size_t make(const struct made *made, uint8_t out[256])
{
	uint8_t plain[128] = { 0 }, nonce[12] = "unique nonce";
	struct token_key key;
	struct crypto_aead aead = {
		.key = key.key,
		.nonce = nonce,
		.nonce_len = sizeof(nonce),
		.bound = made->server,
		.bound_len = strlen(made->server),
	};
	size_t len = 2 + made->mac_len;

	assert_int_equal(auth_token_key_read(made->key, &key), 0);
	aead.key_len = key.len;
	put_be16(plain, (uint16_t)made->mac_len);
	memset(plain + 2, made->mac, made->mac_len);
	put_be32(plain + len, (uint32_t)(made->begin_s >> 16));
	put_be32(plain + len + 4, (uint32_t)(made->begin_s << 16));
	put_be32(plain + len + 8, made->lifetime_s);
	len += 12;
	put_be16(out, sizeof(nonce));
	memcpy(out + 2, nonce, sizeof(nonce));
	assert_int_equal(crypto_seal(&aead, plain, len, out + 14), 0);
	return 14 + len + CRYPTO_TAG_LEN;
}

/* A request by this key's id with this token, or without (NULL). */
static int verdict(const struct auth *auth, const char *id,
		   const struct made *made, const struct auth_session *session,
		   struct auth_identity *out)
{
	uint8_t buf[2048], token[256], mac[32];
	char nonce[AUTH_NONCE_MAX];
	struct stun_writer w;
	struct stun_msg msg;

	nonce_of(auth, REALM, NOW, nonce);
	stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_ALLOCATE, NULL);
	stun_put_string(&w, STUN_ATTR_USERNAME, id);
	stun_put_string(&w, STUN_ATTR_REALM, REALM);
	stun_put_string(&w, STUN_ATTR_NONCE, nonce);
	if (made)
		stun_put(&w, STUN_ATTR_ACCESS_TOKEN, token, make(made, token));
	memset(mac, made ? made->mac : usual.mac, sizeof(mac));
	stun_put_integrity(&w, mac, made ? made->mac_len : usual.mac_len);
	assert_true(stun_end(&w) > 0);
	assert_int_equal(stun_parse(buf, w.len, &msg), 0);
	return auth_check(auth, &msg, NOW, NULL, session, NULL, out);
}

static int refused(const struct auth *auth, const char *id,
		   const struct made *made)
{
	struct auth_identity out;
	int error = verdict(auth, id, made, NULL, &out);

	if (!error)
		auth_account_unref(out.account);
	return error;
}

static void a_challenge_names_the_server(void **state)
{
	struct auth *auth = auth_new_sample();
	uint8_t buf[CHALLENGE_MAX];
	struct stun_attr attr;
	struct stun_msg msg;

	(void)state;
	challenge_of(auth, REALM, NOW, buf, &msg);
	assert_true(
		stun_find(&msg, STUN_ATTR_THIRD_PARTY_AUTHORIZATION, &attr));
	assert_int_equal(attr.len, strlen(SERVER));
	assert_memory_equal(attr.value, SERVER, attr.len);
	challenge_of(auth, "example.org", NOW, buf, &msg);
	assert_false(stun_has(&msg, STUN_ATTR_THIRD_PARTY_AUTHORIZATION));
	auth_unref(auth);
}

static void a_token_lets_in_by_its_key(void **state)
{
	struct auth *auth = auth_new_sample();
	struct auth_identity one, same, other;
	struct made made = usual;

	(void)state;
	assert_int_equal(verdict(auth, "old", &made, NULL, &one), 0);
	assert_int_equal(one.key.len, 20);
	assert_int_equal(one.until_s, NOW + 600 + SKEW);
	assert_false(one.expired);
	assert_memory_equal(auth_account_user(one.account), "old/", 4);
	made.lifetime_s = 900; /* a later one with the same key */
	assert_int_equal(verdict(auth, "old", &made, NULL, &same), 0);
	assert_ptr_equal(same.account, one.account);
	made.mac = 8;
	assert_int_equal(verdict(auth, "old", &made, NULL, &other), 0);
	assert_ptr_not_equal(other.account, one.account);
	auth_account_unref(one.account);
	auth_account_unref(same.account);
	auth_account_unref(other.account);
	made.key = "x:" KEY_B;
	made.mac_len = 32;
	assert_int_equal(refused(auth, "new", &made), 0);
	auth_unref(auth);
}

static void any_other_token_is_refused(void **state)
{
	struct auth *auth = auth_new_sample();
	struct made made = usual;

	(void)state;
	assert_int_equal(refused(auth, "new", &made), -EKEYREJECTED);
	assert_int_equal(refused(auth, "none", &made), -EKEYREJECTED);
	assert_int_equal(refused(auth, "alice", &made), -EKEYREJECTED);
	made.server = "turn.example.com";
	assert_int_equal(refused(auth, "old", &made), -EKEYREJECTED);
	made = usual;
	made.mac_len = 8;
	assert_int_equal(refused(auth, "old", &made), -EKEYREJECTED);
	made.mac_len = 33;
	auth_unref(auth);
}

static void a_token_has_its_time(void **state)
{
	static const struct {
		int64_t begin;
		uint32_t lifetime;
		int verdict;
	} cases[] = {
		{ 0, 1, 0 },
		{ -600, 601, 0 },
		{ -600, 600, 0 }, /* clocks may differ */
		{ -600, 600 - SKEW + 1, 0 },
		{ -600, 600 - SKEW, -EKEYREJECTED },
		{ SKEW, 60, 0 },
		{ SKEW + 1, 60, -EKEYREJECTED },
		{ -(int64_t)NOW, 0, -EKEYREJECTED },
		{ -(int64_t)NOW, UINT32_MAX, 0 },
	};
	struct auth *auth = auth_new_sample();

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct made made = usual;

		made.begin_s = (uint64_t)((int64_t)NOW + cases[i].begin);
		made.lifetime_s = cases[i].lifetime;
		assert_int_equal(refused(auth, "old", &made), cases[i].verdict);
	}
	auth_unref(auth);
}

/* RFC 7635 8: the token is in Allocate and Refresh alone. */
static void an_allocation_is_known_by_its_key(void **state)
{
	struct auth *auth = auth_new_sample();
	struct auth_identity made, out;
	struct auth_session session;

	(void)state;
	assert_int_equal(verdict(auth, "old", &usual, NULL, &made), 0);
	session = (struct auth_session){
		.account = made.account,
		.token = made.account,
		.key = &made.key,
		.until_s = made.until_s,
	};
	assert_int_equal(verdict(auth, "old", NULL, NULL, &out), -EKEYREJECTED);
	assert_int_equal(verdict(auth, "new", NULL, &session, &out),
			 -EKEYREJECTED);
	assert_int_equal(verdict(auth, "old", NULL, &session, &out), 0);
	assert_ptr_equal(out.account, made.account);
	assert_int_equal(out.until_s, made.until_s);
	auth_account_unref(out.account);
	session.until_s = NOW;
	assert_int_equal(verdict(auth, "old", NULL, &session, &out),
			 -EKEYREJECTED);
	auth_account_unref(made.account);
	auth_unref(auth);
}

/* Whatever is torn off or changed, it is no token. */
static void a_torn_token_is_none(void **state)
{
	struct token_key key;
	struct auth_token token;
	uint8_t value[256];
	size_t len = make(&usual, value);

	(void)state;
	assert_int_equal(auth_token_key_read("old:" KEY_A, &key), 0);
	assert_int_equal(auth_token_open(&key, SERVER, value, len, &token), 0);
	assert_int_equal(token.begin_s, NOW);
	assert_int_equal(token.end_s, NOW + 600);
	for (size_t i = 0; i < len; i++) {
		assert_int_equal(auth_token_open(&key, SERVER, value, i,
						 &token),
				 -EBADMSG);
		value[i] ^= 1;
		assert_int_equal(auth_token_open(&key, SERVER, value, len,
						 &token),
				 -EBADMSG);
		value[i] ^= 1;
	}
}

static void keys_are_read(void **state)
{
	static const char *const bad[] = {
		"",
		":" KEY_A,
		KEY_A,
		"a:" KEY_A "0",
		"a:" KEY_A "00",
		"a:xx112233445566778899aabbccddeeff",
		"a:",
		"123456789012345678901234567890123:" KEY_A,
	};
	struct auth *auth = auth_new_sample();
	struct token_key key;

	(void)state;
	assert_int_equal(auth_token_key_read("a:b:" KEY_B, &key), 0);
	assert_string_equal(key.id, "a:b");
	assert_int_equal(key.len, 32);
	assert_int_equal(key.key[1], 0x11);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(auth_token_key_read(bad[i], &key), -EINVAL);
	assert_int_equal(auth_add_oauth_key(auth, REALM, "c:" KEY_A), 0);
	assert_int_equal(auth_add_oauth_key(auth, REALM, "d:" KEY_A), 0);
	assert_int_equal(auth_add_oauth_key(auth, REALM, "e:" KEY_A), -EINVAL);
	assert_int_equal(auth_add_oauth(auth, REALM, SERVER, 0), -EINVAL);
	assert_int_equal(auth_add_oauth(auth, "nowhere", SERVER, 0), -ENOENT);
	auth_unref(auth);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_challenge_names_the_server),
		cmocka_unit_test(a_token_lets_in_by_its_key),
		cmocka_unit_test(any_other_token_is_refused),
		cmocka_unit_test(a_token_has_its_time),
		cmocka_unit_test(an_allocation_is_known_by_its_key),
		cmocka_unit_test(a_torn_token_is_none),
		cmocka_unit_test(keys_are_read),
	};

	return cmocka_run_group_tests_name("auth: token", tests, NULL, NULL);
}
