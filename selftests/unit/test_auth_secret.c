/* SPDX-License-Identifier: BSD-2-Clause */
/* Time-limited credentials: names, keys, several secrets, who is who. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "auth/internal.h"
#include "unit/auth_rig.h"
#include "unit/failalloc.h"

#define REALM "rtc.example.org"

static const enum stun_algorithm both[] = { STUN_ALGORITHM_SHA256,
					    STUN_ALGORITHM_MD5 };

static struct auth *auth_new_sample(void)
{
	struct auth *auth = auth_sample();

	assert_int_equal(auth_add_realm(auth, REALM), 0);
	assert_int_equal(auth_add_secret(auth, REALM, "new secret"), 0);
	assert_int_equal(auth_add_secret(auth, REALM, "old secret"), 0);
	return auth;
}

/* A request by a name and the key that a service makes of this secret. */
static int verdict(const struct auth *auth, const char *secret,
		   const char *name, bool sha256, bool hashed,
		   struct auth_identity *out)
{
	uint8_t buf[2048], hash[STUN_SHA256_LEN];
	struct auth_identity id;
	char nonce[AUTH_NONCE_MAX];
	struct stun_key key;
	struct stun_writer w;
	struct stun_msg msg;
	int error;

	nonce_of(auth, REALM, NOW, nonce);
	assert_int_equal(auth_temporary_key(secret, name, REALM,
					    both[sha256 ? 0 : 1], &key),
			 0);
	assert_int_equal(stun_userhash(name, strlen(name), REALM, strlen(REALM),
				       hash),
			 0);
	stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_ALLOCATE, NULL);
	if (hashed)
		stun_put(&w, STUN_ATTR_USERHASH, hash, sizeof(hash));
	else
		stun_put_string(&w, STUN_ATTR_USERNAME, name);
	stun_put_string(&w, STUN_ATTR_REALM, REALM);
	stun_put_string(&w, STUN_ATTR_NONCE, nonce);
	if (sha256) {
		stun_put_algorithms(&w, STUN_ATTR_PASSWORD_ALGORITHMS, both, 2);
		stun_put_algorithms(&w, STUN_ATTR_PASSWORD_ALGORITHM, both, 1);
		stun_put_integrity_sha256(&w, key.bytes, key.len);
	} else {
		stun_put_integrity(&w, key.bytes, key.len);
	}
	assert_true(stun_end(&w) > 0);
	assert_int_equal(stun_parse(buf, w.len, &msg), 0);
	error = auth_check(auth, &msg, NOW, NULL, NULL, NULL, &id);
	if (error)
		return error;
	assert_int_equal(id.sha256, sha256);
	assert_memory_equal(id.key.bytes, key.bytes, key.len);
	if (out)
		*out = id;
	else
		auth_account_unref(id.account);
	return 0;
}

/* Made by: printf %s NAME | openssl dgst -sha1 -hmac SECRET -binary | base64 */
static void password_is_that_of_openssl(void **state)
{
	uint8_t md5[STUN_KEY_LEN], sha256[STUN_SHA256_LEN];
	struct stun_key key;

	(void)state;
	assert_int_equal(
		stun_long_term_key("1700000000:alice", REALM,
				   "sj5sJmtlMK/LVd1I2btYIoPFnRs=", md5),
		0);
	assert_int_equal(auth_temporary_key("new secret", "1700000000:alice",
					    REALM, STUN_ALGORITHM_MD5, &key),
			 0);
	assert_int_equal(key.len, sizeof(md5));
	assert_memory_equal(key.bytes, md5, sizeof(md5));
	assert_int_equal(stun_long_term_key_sha256(
				 "1700000000:alice", REALM,
				 "sj5sJmtlMK/LVd1I2btYIoPFnRs=", sha256),
			 0);
	assert_int_equal(auth_temporary_key("new secret", "1700000000:alice",
					    REALM, STUN_ALGORITHM_SHA256, &key),
			 0);
	assert_int_equal(key.len, sizeof(sha256));
	assert_memory_equal(key.bytes, sha256, sizeof(sha256));
}

static void names_are_read(void **state)
{
	static const struct {
		const char *name;
		uint64_t expires_s;
		const char *user;
	} good[] = {
		{ "1700000000:alice", 1700000000, "alice" },
		{ "1700000000", 1700000000, "1700000000" },
		{ "1700000000:", 1700000000, "1700000000:" },
		{ "0:a:b", 0, "a:b" },
		{ "18446744073709551615:x", UINT64_MAX, "x" },
		{ "7:\xc3\xa9t\xc3\xa9", 7, "\xc3\xa9t\xc3\xa9" },
	};
	static const char *const bad[] = {
		"",
		":alice",
		"alice",
		"alice:1700000000",
		"1700000000 :alice",
		"-1:alice",
		"+1:alice",
		"1700000000alice",
		"18446744073709551616:x",
		"99999999999999999999999999",
		"1:a b",
		"1:a\nlevel=error",
		"1:a\x7f",
		"1:a\x1b[m",
		"1:a\xc2\x9bm",
		"1:a\"b",
		"1:\xff",
		"1:\xc3",
		"1:\xed\xa0\x80",
	};
	struct auth_temporary got = { 5, NULL };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(auth_temporary_read(bad[i], &got), -EINVAL);
		assert_int_equal(got.expires_s, 5);
	}
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(auth_temporary_read(good[i].name, &got), 0);
		assert_int_equal(got.expires_s, good[i].expires_s);
		assert_string_equal(got.user, good[i].user);
	}
}

static void either_secret_and_algorithm_serves(void **state)
{
	struct auth *auth = auth_new_sample();
	struct auth_identity id;

	(void)state;
	for (int sha256 = 0; sha256 < 2; sha256++) {
		assert_int_equal(verdict(auth, "new secret", "1800000000:alice",
					 sha256, false, NULL),
				 0);
		assert_int_equal(verdict(auth, "old secret", "1800000000:alice",
					 sha256, false, &id),
				 0);
		assert_string_equal(auth_account_user(id.account), "alice");
		assert_string_equal(auth_account_realm(id.account), REALM);
		assert_false(id.expired);
		auth_account_unref(id.account);
		assert_int_equal(verdict(auth, "oldest secret",
					 "1800000000:alice", sha256, false,
					 NULL),
				 -EKEYREJECTED);
		assert_int_equal(verdict(auth, "new secret", "alice", sha256,
					 false, NULL),
				 -EKEYREJECTED);
		assert_int_equal(verdict(auth, "new secret", "1800000000:alice",
					 sha256, true, NULL),
				 -EKEYREJECTED);
	}
	auth_unref(auth);
}

static void time_runs_out(void **state)
{
	static const struct {
		const char *name;
		bool expired;
	} cases[] = {
		{ "1700000001:a", false },
		{ "1700000000:a", true },
		{ "1699999999:a", true },
		{ "0:a", true },
		{ "18446744073709551615:a", false },
	};
	struct auth *auth = auth_new_sample();
	struct auth_identity id;

	(void)state;
	assert_int_equal(NOW, 1700000000);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(verdict(auth, "new secret", cases[i].name,
					 true, false, &id),
				 0);
		assert_int_equal(id.expired, cases[i].expired);
		auth_account_unref(id.account);
	}
	auth_unref(auth);
}

/* The part behind the colon is the user, whatever the time before it. */
static void quota_goes_by_the_name_part(void **state)
{
	struct auth *auth = auth_new_sample();
	struct auth_identity one, two, other;

	(void)state;
	assert_int_equal(verdict(auth, "new secret", "1800000000:alice", true,
				 false, &one),
			 0);
	assert_int_equal(take(one.account, 2), 0);
	assert_int_equal(verdict(auth, "old secret", "1800000099:alice", false,
				 false, &two),
			 0);
	assert_ptr_equal(one.account, two.account);
	assert_int_equal(take(two.account, 2), 0);
	assert_int_equal(take(two.account, 2), -EDQUOT);
	assert_int_equal(verdict(auth, "new secret", "1800000000:bob", true,
				 false, &other),
			 0);
	assert_ptr_not_equal(one.account, other.account);
	assert_int_equal(take(other.account, 2), 0);
	release(one.account);
	release(one.account);
	release(other.account);
	auth_account_unref(one.account);
	auth_account_unref(two.account);
	auth_account_unref(other.account);
	auth_unref(auth);
}

static void challenge_asks_for_no_userhash(void **state)
{
	struct auth *auth = auth_new_sample();
	char nonce[AUTH_NONCE_MAX];

	(void)state;
	nonce_of(auth, REALM, NOW, nonce);
	assert_memory_equal(nonce, "obMatJos2gAAA", 13);
	nonce_of(auth, "example.org", NOW, nonce);
	assert_memory_equal(nonce, "obMatJos2wAAA", 13);
	auth_unref(auth);
}

static void realm_has_users_or_secrets(void **state)
{
	static const struct auth_keys keys = { .md5.len = STUN_KEY_LEN };
	struct auth *auth = auth_new_sample();

	(void)state;
	assert_int_equal(auth_add_user(auth, REALM, "u", &keys), -EINVAL);
	assert_int_equal(auth_add_secret(auth, "example.org", "x"), -EINVAL);
	assert_int_equal(auth_add_secret(auth, "nowhere", "x"), -ENOENT);
	assert_int_equal(auth_add_secret(auth, REALM, ""), -EINVAL);
	assert_int_equal(auth_add_secret(auth, REALM, "3"), 0);
	assert_int_equal(auth_add_secret(auth, REALM, "4"), 0);
	assert_int_equal(auth_add_secret(auth, REALM, "5"), -EINVAL);
	auth_unref(auth);
}

static void build_and_check(void *arg)
{
	struct auth_identity id;
	struct auth *auth;
	int error;

	(void)arg;
	if (auth_new(&params, &auth))
		return;
	error = auth_add_realm(auth, REALM);
	if (!error)
		error = auth_add_secret(auth, REALM, "new secret");
	if (!error)
		error = verdict(auth, "new secret", "1800000000:alice", true,
				false, &id);
	if (!error)
		auth_account_unref(id.account);
	assert_true(error == 0 || (error == -ENOMEM && failalloc_hit()));
	auth_unref(auth);
}

static void failing_memory_is_told_and_leaks_nothing(void **state)
{
	(void)state;
	/* The configuration, its table, realm and secret; registry, account. */
	assert_true(failalloc_sweep(build_and_check, NULL) >= 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(password_is_that_of_openssl),
		cmocka_unit_test(names_are_read),
		cmocka_unit_test(either_secret_and_algorithm_serves),
		cmocka_unit_test(time_runs_out),
		cmocka_unit_test(quota_goes_by_the_name_part),
		cmocka_unit_test(challenge_asks_for_no_userhash),
		cmocka_unit_test(realm_has_users_or_secrets),
		cmocka_unit_test(failing_memory_is_told_and_leaks_nothing),
	};

	return cmocka_run_group_tests_name("auth: secrets", tests, NULL, NULL);
}
