/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of the auth room share: a configuration, its challenges. */
#ifndef UNIT_AUTH_RIG_H
#define UNIT_AUTH_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "auth/auth.h"

#define NOW      1700000000u
#define LIFETIME 3600u

static const struct auth_params params = {
	.nonce_lifetime_s = LIFETIME,
	.nonce_secret = "thirty-two bytes kept by nobody",
};

static inline void add_user(struct auth *auth, const char *realm,
			    const char *user, const char *password)
{
	struct auth_keys keys = { .md5.len = STUN_KEY_LEN,
				  .sha256.len = STUN_SHA256_LEN };

	assert_int_equal(
		stun_long_term_key(user, realm, password, keys.md5.bytes), 0);
	assert_int_equal(stun_long_term_key_sha256(user, realm, password,
						   keys.sha256.bytes),
			 0);
	assert_int_equal(auth_add_user(auth, realm, user, &keys), 0);
}

#define CHALLENGE_MAX 1024

/* A challenge of this realm, parsed in buf. */
static inline void challenge_of(const struct auth *auth, const char *realm,
				uint64_t now_s, uint8_t buf[CHALLENGE_MAX],
				struct stun_msg *msg)
{
	struct stun_writer w;

	stun_begin(&w, buf, CHALLENGE_MAX, STUN_ERROR, STUN_ALLOCATE, NULL);
	auth_challenge_put(auth, realm, now_s, NULL, &w);
	assert_true(stun_end(&w) > 0);
	assert_int_equal(stun_parse(buf, w.len, msg), 0);
}

/* The nonce of a challenge of this realm. */
static inline void nonce_of(const struct auth *auth, const char *realm,
			    uint64_t now_s, char nonce[AUTH_NONCE_MAX])
{
	struct stun_attr attr;
	struct stun_msg msg;
	uint8_t buf[CHALLENGE_MAX];

	challenge_of(auth, realm, now_s, buf, &msg);
	assert_true(stun_find(&msg, STUN_ATTR_NONCE, &attr));
	assert_true(attr.len < AUTH_NONCE_MAX);
	memcpy(nonce, attr.value, attr.len);
	nonce[attr.len] = '\0';
}

/* One more allocation of a user who may have `limit`. */
static inline int take(struct auth_account *account, unsigned int limit)
{
	return auth_quota_take(account, AUTH_QUOTA_ALLOCATIONS, limit, 0);
}

static inline void release(struct auth_account *account)
{
	auth_quota_release(account, AUTH_QUOTA_ALLOCATIONS);
}

static inline unsigned int used(const struct auth_account *account)
{
	return auth_quota_used(account, AUTH_QUOTA_ALLOCATIONS);
}

/* Two realms, the same name in both. */
static inline struct auth *auth_sample(void)
{
	struct auth *auth;

	assert_int_equal(auth_new(&params, &auth), 0);
	assert_int_equal(auth_add_realm(auth, "example.org"), 0);
	assert_int_equal(auth_add_realm(auth, "example.net"), 0);
	add_user(auth, "example.org", "alice", "wonder");
	add_user(auth, "example.org", "bob", "builder");
	add_user(auth, "example.net", "alice", "other");
	return auth;
}

#endif
