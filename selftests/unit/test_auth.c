/* SPDX-License-Identifier: BSD-2-Clause */
/* Credentials, nonces, accounts over reloads, quotas, and memory that fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "failalloc.h"
#include "unit/auth_rig.h"

/* A request as a client makes it; a NULL leaves its attribute out. */
struct request {
	const char *user, *realm, *nonce;
	const char *key_user, *key_realm, *password; /* NULL: unsigned */
	uint8_t data[2048];
	struct stun_msg msg;
};

static void request_sign(struct stun_writer *w, const struct request *req)
{
	uint8_t key[STUN_KEY_LEN];

	if (!req->password)
		return;
	assert_int_equal(
		stun_long_term_key(req->key_user ? req->key_user : req->user,
				   req->key_realm ? req->key_realm : req->realm,
				   req->password, key),
		0);
	stun_put_integrity(w, key, sizeof(key));
}

static void request_build(struct request *req)
{
	struct stun_writer w;

	stun_begin(&w, req->data, sizeof(req->data), STUN_REQUEST,
		   STUN_ALLOCATE, NULL);
	stun_put_u8(&w, STUN_ATTR_REQUESTED_TRANSPORT, STUN_TRANSPORT_TCP);
	if (req->user)
		stun_put_string(&w, STUN_ATTR_USERNAME, req->user);
	if (req->realm)
		stun_put_string(&w, STUN_ATTR_REALM, req->realm);
	if (req->nonce)
		stun_put_string(&w, STUN_ATTR_NONCE, req->nonce);
	request_sign(&w, req);
	assert_true(stun_end(&w) > 0);
	assert_int_equal(stun_parse(req->data, w.len, &req->msg), 0);
}

/* What auth_check says; on failure its out-parameter must be untouched. */
static int checked(const struct auth *auth, struct request *req, uint64_t now_s,
		   struct auth_identity *out)
{
	struct auth_identity id, before;
	int error;

	memset(&id, 0x5a, sizeof(id));
	before = id;
	request_build(req);
	error = auth_check(auth, &req->msg, now_s, NULL, NULL, NULL, &id);
	if (error)
		assert_memory_equal(&id, &before, sizeof(id));
	else
		auth_account_unref(id.account); /* the user's keeps it */
	if (!error && out)
		*out = id;
	return error;
}

/* The same with a fresh nonce. */
static int check_as(const struct auth *auth, const char *realm,
		    const char *user, const char *password,
		    struct auth_identity *out)
{
	char nonce[AUTH_NONCE_MAX];
	struct request req = { .user = user,
			       .realm = realm,
			       .nonce = nonce,
			       .password = password };

	nonce_of(auth, "example.org", NOW, nonce);
	return checked(auth, &req, NOW, out);
}

static void right_credentials_identify(void **state)
{
	struct auth *auth = auth_sample();
	struct auth_identity id;
	uint8_t key[STUN_KEY_LEN];

	(void)state;
	assert_int_equal(check_as(auth, "example.org", "alice", "wonder", &id),
			 0);
	assert_string_equal(auth_account_user(id.account), "alice");
	assert_string_equal(auth_account_realm(id.account), "example.org");
	assert_int_equal(
		stun_long_term_key("alice", "example.org", "wonder", key), 0);
	assert_int_equal(id.key.len, sizeof(key));
	assert_memory_equal(id.key.bytes, key, sizeof(key));
	assert_false(id.sha256);
	auth_unref(auth);
}

static void same_name_in_two_realms_is_two_users(void **state)
{
	struct auth *auth = auth_sample();
	struct auth_identity org, net, again;

	(void)state;
	assert_int_equal(check_as(auth, "example.org", "alice", "wonder", &org),
			 0);
	assert_int_equal(check_as(auth, "example.net", "alice", "other", &net),
			 0);
	assert_int_equal(
		check_as(auth, "example.org", "alice", "wonder", &again), 0);
	assert_ptr_not_equal(org.account, net.account);
	assert_ptr_equal(org.account, again.account);
	assert_int_equal(check_as(auth, "example.net", "alice", "wonder", NULL),
			 -EKEYREJECTED);
	auth_unref(auth);
}

static void wrong_credentials_are_rejected(void **state)
{
	struct auth *auth = auth_sample();

	(void)state;
	assert_int_equal(check_as(auth, "example.org", "alice", "Wonder", NULL),
			 -EKEYREJECTED);
	assert_int_equal(check_as(auth, "example.org", "alice", "", NULL),
			 -EKEYREJECTED);
	assert_int_equal(check_as(auth, "example.org", "carol", "wonder", NULL),
			 -EKEYREJECTED);
	assert_int_equal(check_as(auth, "example.com", "alice", "wonder", NULL),
			 -EKEYREJECTED);
	assert_int_equal(check_as(auth, "example.net", "bob", "builder", NULL),
			 -EKEYREJECTED);
	assert_int_equal(check_as(auth, "example.org", "", "wonder", NULL),
			 -EKEYREJECTED);
	assert_int_equal(check_as(auth, "", "alice", "wonder", NULL),
			 -EKEYREJECTED);
	auth_unref(auth);
}

/* The key unknown users are checked against must not be one to sign with. */
static void key_of_nobody_opens_nothing(void **state)
{
	static const uint8_t zero[STUN_KEY_LEN];
	struct auth *auth = auth_sample();
	char nonce[AUTH_NONCE_MAX];
	struct auth_identity id;
	struct stun_writer w;
	struct stun_msg msg;
	uint8_t buf[512];

	(void)state;
	nonce_of(auth, "example.org", NOW, nonce);
	stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_ALLOCATE, NULL);
	stun_put_string(&w, STUN_ATTR_USERNAME, "carol");
	stun_put_string(&w, STUN_ATTR_REALM, "example.org");
	stun_put_string(&w, STUN_ATTR_NONCE, nonce);
	stun_put_integrity(&w, zero, sizeof(zero));
	assert_true(stun_end(&w) > 0);
	assert_int_equal(stun_parse(buf, w.len, &msg), 0);
	assert_int_equal(auth_check(auth, &msg, NOW, NULL, NULL, NULL, &id),
			 -EKEYREJECTED);
	auth_unref(auth);
}

static void unsigned_request_is_challenged(void **state)
{
	struct auth *auth = auth_sample();
	struct request bare = { 0 };
	struct request named = { .user = "alice",
				 .realm = "example.org",
				 .nonce = "x" };

	(void)state;
	assert_int_equal(checked(auth, &bare, NOW, NULL), -ENOKEY);
	assert_int_equal(checked(auth, &named, NOW, NULL), -ENOKEY);
	auth_unref(auth);
}

static void signed_request_must_be_complete(void **state)
{
	struct auth *auth = auth_sample();
	char nonce[AUTH_NONCE_MAX];

	(void)state;
	nonce_of(auth, "example.org", NOW, nonce);
	for (int have = 0; have < 8; have++) {
		struct request req = {
			.user = have & 1 ? "alice" : NULL,
			.realm = have & 2 ? "example.org" : NULL,
			.nonce = have & 4 ? nonce : NULL,
			.key_user = "alice",
			.key_realm = "example.org",
			.password = "wonder",
		};

		assert_int_equal(checked(auth, &req, NOW, NULL),
				 have == 7 ? 0 : -EBADMSG);
	}
	auth_unref(auth);
}

/* Credentials behind MESSAGE-INTEGRITY could be anyone's. */
static void attributes_behind_the_signature_do_not_count(void **state)
{
	struct auth *auth = auth_sample();
	uint8_t key[STUN_KEY_LEN], buf[512];
	char nonce[AUTH_NONCE_MAX];
	struct auth_identity id;
	struct stun_writer w;
	struct stun_msg msg;

	(void)state;
	nonce_of(auth, "example.org", NOW, nonce);
	assert_int_equal(
		stun_long_term_key("alice", "example.org", "wonder", key), 0);
	stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_ALLOCATE, NULL);
	stun_put_string(&w, STUN_ATTR_USERNAME, "alice");
	stun_put_string(&w, STUN_ATTR_REALM, "example.org");
	stun_put_integrity(&w, key, sizeof(key));
	stun_put_string(&w, STUN_ATTR_NONCE, nonce);
	assert_true(stun_end(&w) > 0);
	assert_int_equal(stun_parse(buf, w.len, &msg), 0);
	assert_int_equal(auth_check(auth, &msg, NOW, NULL, NULL, NULL, &id),
			 -EBADMSG);
	auth_unref(auth);
}

/* A name cut at its NUL must not be taken for the shorter one. */
static void names_with_nul_are_rejected(void **state)
{
	static const struct {
		const char *user, *realm;
		uint16_t user_len, realm_len;
	} cases[] = {
		{ "alice\0", "example.org", 6, 11 },
		{ "alice\0x", "example.org", 7, 11 },
		{ "alice", "example.org\0", 5, 12 },
		{ "\0alice", "example.org", 6, 11 },
		{ "alice", "\0", 5, 1 },
	};
	struct auth *auth = auth_sample();
	uint8_t key[STUN_KEY_LEN], buf[512];
	char nonce[AUTH_NONCE_MAX];
	struct auth_identity id;
	struct stun_writer w;
	struct stun_msg msg;

	(void)state;
	nonce_of(auth, "example.org", NOW, nonce);
	assert_int_equal(
		stun_long_term_key("alice", "example.org", "wonder", key), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_ALLOCATE,
			   NULL);
		stun_put(&w, STUN_ATTR_USERNAME, cases[i].user,
			 cases[i].user_len);
		stun_put(&w, STUN_ATTR_REALM, cases[i].realm,
			 cases[i].realm_len);
		stun_put_string(&w, STUN_ATTR_NONCE, nonce);
		stun_put_integrity(&w, key, sizeof(key));
		assert_true(stun_end(&w) > 0);
		assert_int_equal(stun_parse(buf, w.len, &msg), 0);
		assert_int_equal(auth_check(auth, &msg, NOW, NULL, NULL, NULL,
					    &id),
				 -EKEYREJECTED);
	}
	auth_unref(auth);
}

/* Names as long as a message can carry: none may run over a buffer. */
static void overlong_names_are_rejected(void **state)
{
	static uint8_t buf[STUN_MAX_LEN], name[60000];
	static const size_t lens[] = { 509, 512, 513, 1024, 60000 };
	struct auth *auth = auth_sample();
	uint8_t key[STUN_KEY_LEN] = { 0 };
	char nonce[AUTH_NONCE_MAX];
	struct auth_identity id;
	struct stun_writer w;
	struct stun_msg msg;

	(void)state;
	memset(name, 'a', sizeof(name));
	nonce_of(auth, "example.org", NOW, nonce);
	for (size_t i = 0; i < 2 * sizeof(lens) / sizeof(lens[0]); i++) {
		size_t len = lens[i / 2];

		stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_ALLOCATE,
			   NULL);
		stun_put(&w, STUN_ATTR_USERNAME, name, i & 1 ? len : 5);
		stun_put(&w, STUN_ATTR_REALM, name, i & 1 ? 11 : len);
		stun_put_string(&w, STUN_ATTR_NONCE, nonce);
		stun_put_integrity(&w, key, sizeof(key));
		assert_true(stun_end(&w) > 0);
		assert_int_equal(stun_parse(buf, w.len, &msg), 0);
		assert_int_equal(auth_check(auth, &msg, NOW, NULL, NULL, NULL,
					    &id),
				 -EKEYREJECTED);
	}
	auth_unref(auth);
}

static int nonce_verdict(const struct auth *auth, const char *nonce,
			 uint64_t now_s)
{
	struct request req = { .user = "alice",
			       .realm = "example.org",
			       .nonce = nonce,
			       .password = "wonder" };

	return checked(auth, &req, now_s, NULL);
}

/* What auth_check says of a nonce made for one host and shown by another. */
static int host_guess(const struct auth *auth, const char *to, const char *from,
		      const char *password)
{
	union addr made, shown;
	char text[AUTH_NONCE_MAX];
	struct request req = { .user = "alice",
			       .realm = "example.org",
			       .nonce = text,
			       .password = password };
	struct stun_writer w;
	struct stun_attr nonce;
	struct stun_msg msg;
	struct auth_identity id;
	uint8_t buf[1024];
	int error;

	assert_int_equal(addr_parse(to ? to : "192.0.2.1", 0, &made), 0);
	assert_int_equal(addr_parse(from ? from : "192.0.2.1", 0, &shown), 0);
	stun_begin(&w, buf, sizeof(buf), STUN_ERROR, STUN_ALLOCATE, NULL);
	auth_challenge_put(auth, "example.org", NOW, to ? &made : NULL, &w);
	assert_true(stun_end(&w) > 0);
	assert_int_equal(stun_parse(buf, w.len, &msg), 0);
	assert_true(stun_find(&msg, STUN_ATTR_NONCE, &nonce));
	memcpy(text, nonce.value, nonce.len);
	text[nonce.len] = '\0';
	request_build(&req);
	error = auth_check(auth, &req.msg, NOW, from ? &shown : NULL, NULL,
			   NULL, &id);
	if (!error)
		auth_account_unref(id.account);
	return error;
}

static int host_verdict(const struct auth *auth, const char *to,
			const char *from)
{
	return host_guess(auth, to, from, "wonder");
}

static void nonce_of_datagrams_is_for_one_host(void **state)
{
	struct auth *auth = auth_sample();

	(void)state;
	assert_int_equal(host_verdict(auth, "192.0.2.1:9", "192.0.2.1:9"), 0);
	assert_int_equal(host_verdict(auth, "192.0.2.1:9", "192.0.2.1:10"), 0);
	assert_int_equal(
		host_verdict(auth, "[2001:db8::1]:9", "[2001:db8::1]:9"), 0);
	assert_int_equal(host_verdict(auth, "192.0.2.1:9", "192.0.2.2:9"),
			 -EKEYEXPIRED);
	assert_int_equal(host_verdict(auth, "[2001:db8::1]:9",
				      "[2001:db8::2]:9"),
			 -EKEYEXPIRED);
	/* Whatever the password: nobody can guess or be blamed this way. */
	assert_int_equal(host_guess(auth, "192.0.2.1:9", "192.0.2.1:9", "no"),
			 -EKEYREJECTED);
	assert_int_equal(host_guess(auth, "192.0.2.1:9", "192.0.2.2:9", "no"),
			 -EKEYEXPIRED);
	/* Nor does one of a connection do, or the other way round. */
	assert_int_equal(host_verdict(auth, NULL, "192.0.2.1:9"), -EKEYEXPIRED);
	assert_int_equal(host_verdict(auth, "192.0.2.1:9", NULL), -EKEYEXPIRED);
	auth_unref(auth);
}

static void nonce_ages(void **state)
{
	struct auth *auth = auth_sample();
	char nonce[AUTH_NONCE_MAX];

	(void)state;
	nonce_of(auth, "example.org", NOW, nonce);
	assert_int_equal(nonce_verdict(auth, nonce, NOW), 0);
	assert_int_equal(nonce_verdict(auth, nonce, NOW + LIFETIME), 0);
	assert_int_equal(nonce_verdict(auth, nonce, NOW + LIFETIME + 1),
			 -EKEYEXPIRED);
	assert_int_equal(nonce_verdict(auth, nonce, UINT64_MAX), -EKEYEXPIRED);
	/* Another worker's clock may lag a little; more is refused. */
	assert_int_equal(nonce_verdict(auth, nonce, NOW - 2), 0);
	assert_int_equal(nonce_verdict(auth, nonce, NOW - 60), -EKEYEXPIRED);
	assert_int_equal(nonce_verdict(auth, nonce, 0), -EKEYEXPIRED);
	/* Seconds past 32 bits: the year 2106 is no end. */
	nonce_of(auth, "example.org", UINT32_MAX, nonce);
	assert_int_equal(nonce_verdict(auth, nonce, UINT32_MAX + 100ull), 0);
	nonce_of(auth, "example.org", UINT32_MAX + 9ull, nonce);
	assert_int_equal(nonce_verdict(auth, nonce, UINT32_MAX + 9ull), 0);
	assert_int_equal(nonce_verdict(auth, nonce, 9), -EKEYEXPIRED);
	auth_unref(auth);
}

static void nonce_cannot_be_forged(void **state)
{
	struct auth *auth = auth_sample();
	char nonce[AUTH_NONCE_MAX], forged[AUTH_NONCE_MAX + 1];
	size_t len;

	(void)state;
	nonce_of(auth, "example.org", NOW, nonce);
	len = strlen(nonce);
	for (size_t i = 0; i < len; i++) {
		memcpy(forged, nonce, sizeof(nonce));
		forged[i] = forged[i] == '0' ? '1' : '0';
		assert_int_equal(nonce_verdict(auth, forged, NOW),
				 -EKEYEXPIRED);
		forged[i] = 'A'; /* no digit of ours */
		if (nonce[i] != 'A')
			assert_int_equal(nonce_verdict(auth, forged, NOW),
					 -EKEYEXPIRED);
	}
	memcpy(forged, nonce, sizeof(nonce));
	forged[len - 1] = '\0';
	assert_int_equal(nonce_verdict(auth, forged, NOW), -EKEYEXPIRED);
	snprintf(forged, sizeof(forged), "%s0", nonce);
	assert_int_equal(nonce_verdict(auth, forged, NOW), -EKEYEXPIRED);
	assert_int_equal(nonce_verdict(auth, "", NOW), -EKEYEXPIRED);
	assert_int_equal(nonce_verdict(auth, "f//499k954d6OL34oL9FSTvy64sA",
				       NOW),
			 -EKEYEXPIRED);
	auth_unref(auth);
}

static void nonce_serves_every_configuration_with_its_secret(void **state)
{
	struct auth *one = auth_sample(), *same, *other;
	struct auth_params changed = params;
	char nonce[AUTH_NONCE_MAX];

	(void)state;
	same = auth_sample();
	changed.nonce_secret[0] ^= 1;
	assert_int_equal(auth_new(&changed, &other), 0);
	nonce_of(one, "example.org", NOW, nonce);
	/* RFC 8489 9.2, 18.1: the cookie and both security features. */
	assert_memory_equal(nonce, "obMatJos2wAAA", 13);
	assert_true(strlen(nonce) < AUTH_NONCE_MAX);
	assert_int_equal(nonce_verdict(same, nonce, NOW), 0);
	nonce_of(other, "example.org", NOW, nonce);
	assert_int_equal(nonce_verdict(one, nonce, NOW), -EKEYEXPIRED);
	auth_unref(other);
	auth_unref(same);
	auth_unref(one);
}

/* RFC 8489 9.2.4: two clients must not be given the same one. */
static void nonces_of_one_second_differ(void **state)
{
	struct auth *auth = auth_sample();
	char nonces[50][AUTH_NONCE_MAX];

	(void)state;
	for (int i = 0; i < 50; i++) {
		nonce_of(auth, "example.org", NOW, nonces[i]);
		assert_int_equal(nonce_verdict(auth, nonces[i], NOW), 0);
		for (int k = 0; k < i; k++)
			assert_string_not_equal(nonces[i], nonces[k]);
	}
	auth_unref(auth);
}

/* RFC 8489 9.2.4 asks for the key before the age of the nonce. */
static void wrong_password_outranks_a_stale_nonce(void **state)
{
	struct auth *auth = auth_sample();
	struct request req = { .user = "alice",
			       .realm = "example.org",
			       .nonce = "stale",
			       .password = "guess" };

	(void)state;
	assert_int_equal(checked(auth, &req, NOW, NULL), -EKEYREJECTED);
	req.password = "wonder";
	assert_int_equal(checked(auth, &req, NOW, NULL), -EKEYEXPIRED);
	auth_unref(auth);
}

static void integrity_of_another_length_is_rejected(void **state)
{
	struct auth *auth = auth_sample();
	char nonce[AUTH_NONCE_MAX];
	struct auth_identity id;
	struct stun_writer w;
	struct stun_msg msg;
	uint8_t buf[512];

	(void)state;
	nonce_of(auth, "example.org", NOW, nonce);
	stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_ALLOCATE, NULL);
	stun_put_string(&w, STUN_ATTR_USERNAME, "alice");
	stun_put_string(&w, STUN_ATTR_REALM, "example.org");
	stun_put_string(&w, STUN_ATTR_NONCE, nonce);
	stun_put(&w, STUN_ATTR_MESSAGE_INTEGRITY, "short", 5);
	assert_true(stun_end(&w) > 0);
	assert_int_equal(stun_parse(buf, w.len, &msg), 0);
	assert_int_equal(auth_check(auth, &msg, NOW, NULL, NULL, NULL, &id),
			 -EKEYREJECTED);
	auth_unref(auth);
}

static void realms_and_users_are_checked_when_added(void **state)
{
	static const struct auth_keys keys = { .md5.len = STUN_KEY_LEN };
	char name[AUTH_NAME_MAX + 2], realm[AUTH_REALM_MAX + 1];
	struct auth *auth;

	(void)state;
	memset(name, 'n', sizeof(name));
	memset(realm, 'r', sizeof(realm));
	name[AUTH_NAME_MAX + 1] = '\0';
	realm[AUTH_REALM_MAX] = '\0';
	assert_int_equal(auth_new(&params, &auth), 0);
	assert_null(auth_default_realm(auth));
	assert_int_equal(auth_add_user(auth, "a", "u", &keys), -ENOENT);
	assert_int_equal(auth_add_realm(auth, ""), -EINVAL);
	assert_int_equal(auth_add_realm(auth, realm), -EINVAL);
	assert_int_equal(auth_add_realm(auth, realm + 1), 0);
	assert_int_equal(auth_add_realm(auth, "a"), 0);
	assert_int_equal(auth_add_realm(auth, "a"), -EEXIST);
	assert_string_equal(auth_default_realm(auth), realm + 1);
	assert_int_equal(auth_add_user(auth, "a", "", &keys), -EINVAL);
	assert_int_equal(auth_add_user(auth, "a", name, &keys), -EINVAL);
	assert_int_equal(auth_add_user(auth, "", "u", &keys), -EINVAL);
	assert_int_equal(auth_add_user(auth, realm, "u", &keys), -EINVAL);
	assert_int_equal(auth_add_user(auth, "b", "u", &keys), -ENOENT);
	assert_int_equal(auth_add_user(auth, "a", name + 1, &keys), 0);
	assert_int_equal(auth_add_user(auth, "a", name + 1, &keys), -EEXIST);
	assert_int_equal(auth_add_user(auth, realm + 1, name + 1, &keys), 0);
	auth_unref(auth);
}

/* RFC 8489 14.9 counts characters, not bytes. */
static void realm_length_is_counted_in_characters(void **state)
{
	char realm[4 * AUTH_REALM_MAX + 1];
	struct auth *auth;
	struct auth_identity id;

	(void)state;
	for (size_t i = 0; i < AUTH_REALM_MAX; i++)
		memcpy(realm + 4 * i, "\xf0\x9f\x8c\x8d", 4);
	realm[4 * AUTH_REALM_MAX] = '\0';
	assert_int_equal(auth_new(&params, &auth), 0);
	assert_int_equal(auth_add_realm(auth, realm), -EINVAL);
	realm[4 * (AUTH_REALM_MAX - 1)] = '\0';
	assert_int_equal(auth_add_realm(auth, realm), 0);
	add_user(auth, realm, "u", "p");
	assert_int_equal(check_as(auth, realm, "u", "p", &id), 0);
	assert_string_equal(auth_account_realm(id.account), realm);
	/* Continuation bytes alone are no characters, and still too many. */
	memset(realm, 0x80, sizeof(realm) - 1);
	assert_int_equal(auth_add_realm(auth, realm), -EINVAL);
	auth_unref(auth);
}

static void many_users_are_all_found(void **state)
{
	char user[24], password[24];
	struct auth *auth;
	struct auth_identity id;

	(void)state;
	assert_int_equal(auth_new(&params, &auth), 0);
	assert_int_equal(auth_add_realm(auth, "r"), 0);
	for (int i = 0; i < 500; i++) {
		snprintf(user, sizeof(user), "user%d", i);
		snprintf(password, sizeof(password), "secret%d", i);
		add_user(auth, "r", user, password);
	}
	for (int i = 0; i < 500; i++) {
		snprintf(user, sizeof(user), "user%d", i);
		snprintf(password, sizeof(password), "secret%d", i);
		assert_int_equal(check_as(auth, "r", user, password, &id), 0);
		assert_string_equal(auth_account_user(id.account), user);
	}
	auth_unref(auth);
}

static void account_is_the_same_over_a_reload(void **state)
{
	struct auth *before = auth_sample(), *after;
	struct auth_identity old, new;

	(void)state;
	assert_int_equal(
		check_as(before, "example.org", "alice", "wonder", &old), 0);
	auth_account_ref(old.account);
	assert_int_equal(take(old.account, 3), 0);
	/* The reload changes the password and the limit, and drops bob. */
	assert_int_equal(auth_new(&params, &after), 0);
	assert_int_equal(auth_add_realm(after, "example.org"), 0);
	add_user(after, "example.org", "alice", "changed");
	auth_unref(before);
	assert_int_equal(check_as(after, "example.org", "alice", "wonder",
				  NULL),
			 -EKEYREJECTED);
	assert_int_equal(
		check_as(after, "example.org", "alice", "changed", &new), 0);
	assert_ptr_equal(old.account, new.account);
	assert_int_equal(used(new.account), 1);
	assert_int_equal(take(new.account, 2), 0);
	assert_int_equal(take(new.account, 2), -EDQUOT);
	release(new.account);
	release(new.account);
	auth_account_unref(old.account);
	auth_unref(after);
}

/* An allocation keeps its owner's account when no configuration has it. */
static void account_outlives_every_configuration(void **state)
{
	struct auth *auth = auth_sample();
	struct auth_identity id, again;

	(void)state;
	assert_int_equal(check_as(auth, "example.org", "bob", "builder", &id),
			 0);
	auth_account_ref(id.account);
	assert_int_equal(take(id.account, 3), 0);
	auth_unref(auth);
	assert_string_equal(auth_account_user(id.account), "bob");
	assert_string_equal(auth_account_realm(id.account), "example.org");
	auth = auth_sample();
	assert_int_equal(
		check_as(auth, "example.org", "bob", "builder", &again), 0);
	assert_ptr_equal(id.account, again.account);
	assert_int_equal(used(again.account), 1);
	release(id.account);
	auth_account_unref(id.account);
	auth_unref(auth);
}

static void quota_is_per_user(void **state)
{
	struct auth *auth = auth_sample();
	struct auth_identity alice, bob, unlimited;

	(void)state;
	assert_int_equal(
		check_as(auth, "example.org", "alice", "wonder", &alice), 0);
	assert_int_equal(check_as(auth, "example.org", "bob", "builder", &bob),
			 0);
	assert_int_equal(
		check_as(auth, "example.net", "alice", "other", &unlimited), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(take(alice.account, 3), 0);
	assert_int_equal(take(alice.account, 3), -EDQUOT);
	assert_int_equal(used(alice.account), 3);
	assert_int_equal(take(bob.account, 3), 0);
	release(alice.account);
	assert_int_equal(take(alice.account, 3), 0);
	assert_int_equal(take(alice.account, 3), -EDQUOT);
	for (int i = 0; i < 5000; i++)
		assert_int_equal(take(unlimited.account, 0), 0);
	assert_int_equal(used(unlimited.account), 5000);
	auth_unref(auth);
}

/* What a user takes counts for his realm, and each kind by itself. */
static void quota_of_a_realm_is_its_users_together(void **state)
{
	const enum auth_quota what = AUTH_QUOTA_CONNECTIONS;
	struct auth *auth = auth_sample();
	struct auth_identity alice, bob, other;
	struct auth_account *all;

	(void)state;
	assert_int_equal(
		check_as(auth, "example.org", "alice", "wonder", &alice), 0);
	assert_int_equal(check_as(auth, "example.org", "bob", "builder", &bob),
			 0);
	assert_int_equal(
		check_as(auth, "example.net", "alice", "other", &other), 0);
	all = auth_account_all(alice.account);
	assert_ptr_equal(all, auth_account_all(bob.account));
	assert_ptr_not_equal(all, auth_account_all(other.account));
	assert_int_equal(auth_quota_take(alice.account, what, 2, 3), 0);
	assert_int_equal(auth_quota_take(alice.account, what, 2, 3), 0);
	assert_int_equal(auth_quota_take(alice.account, what, 2, 3), -EDQUOT);
	assert_int_equal(auth_quota_take(bob.account, what, 2, 3), 0);
	assert_int_equal(auth_quota_take(bob.account, what, 2, 3), -EDQUOT);
	assert_int_equal(auth_quota_used(all, what), 3);
	/* A refusal took nothing. */
	assert_int_equal(auth_quota_used(bob.account, what), 1);
	assert_int_equal(auth_quota_take(other.account, what, 2, 3), 0);
	assert_int_equal(used(all), 0);
	auth_quota_release(alice.account, what);
	assert_int_equal(auth_quota_take(bob.account, what, 2, 3), 0);
	auth_unref(auth);
}

/* Threads take and give back; each looks whether the limit was passed. */
struct race {
	struct auth *auth;
	struct auth_account *account;
	_Atomic unsigned int held;
	_Atomic unsigned int most;
	_Atomic unsigned int taken, refused;
};

static void note_most(struct race *race, unsigned int held)
{
	unsigned int most = atomic_load(&race->most);

	while (held > most &&
	       !atomic_compare_exchange_weak(&race->most, &most, held))
		;
}

static void *race_quota(void *arg)
{
	struct race *race = arg;

	for (int i = 0; i < 20000; i++) {
		if (take(race->account, 3)) {
			atomic_fetch_add(&race->refused, 1);
			continue;
		}
		note_most(race, atomic_fetch_add(&race->held, 1) + 1);
		atomic_fetch_add(&race->taken, 1);
		atomic_fetch_sub(&race->held, 1);
		release(race->account);
	}
	return NULL;
}

static void run_threads(void *(*fn)(void *arg), void *arg)
{
	enum {
		THREADS = 8
	};
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, fn, arg), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void quota_holds_under_concurrency(void **state)
{
	struct race race = { .auth = auth_sample() };
	struct auth_identity id;

	(void)state;
	assert_int_equal(
		check_as(race.auth, "example.org", "alice", "wonder", &id), 0);
	race.account = id.account;
	run_threads(race_quota, &race);
	assert_true(race.most >= 1 && race.most <= 3);
	assert_int_equal(race.taken + race.refused, 8 * 20000);
	assert_int_equal(used(id.account), 0);
	auth_unref(race.auth);
}

/* Everyone takes and nobody gives back: exactly the limit is handed out. */
static void *race_take(void *arg)
{
	struct race *race = arg;

	for (int i = 0; i < 1000; i++)
		if (take(race->account, 5000) == 0)
			atomic_fetch_add(&race->taken, 1);
	return NULL;
}

static void quota_hands_out_exactly_the_limit(void **state)
{
	struct race race = { 0 };
	struct auth_identity id;

	(void)state;
	assert_int_equal(auth_new(&params, &race.auth), 0);
	assert_int_equal(auth_add_realm(race.auth, "r"), 0);
	add_user(race.auth, "r", "u", "p");
	assert_int_equal(check_as(race.auth, "r", "u", "p", &id), 0);
	race.account = id.account;
	run_threads(race_take, &race);
	assert_int_equal(race.taken, 5000);
	assert_int_equal(used(id.account), 5000);
	auth_unref(race.auth);
}

/* Configurations come and go in threads while all of them want one account. */
static void *race_accounts(void *arg)
{
	static const struct auth_keys keys = { .md5.len = STUN_KEY_LEN };
	struct auth *auth;

	(void)arg;
	for (int i = 0; i < 500; i++) {
		if (auth_new(&params, &auth))
			return NULL;
		auth_add_realm(auth, "r");
		auth_add_user(auth, "r", "u", &keys);
		auth_add_user(auth, "r", i & 1 ? "odd" : "even", &keys);
		auth_unref(auth_ref(auth));
		auth_unref(auth);
	}
	return NULL;
}

static void accounts_survive_concurrent_reloads(void **state)
{
	struct auth *auth;
	struct auth_identity id, after;

	(void)state;
	/* Nobody holds the account: it is made and freed over and over. */
	run_threads(race_accounts, NULL);
	/* Somebody does: it stays the same. */
	assert_int_equal(auth_new(&params, &auth), 0);
	assert_int_equal(auth_add_realm(auth, "r"), 0);
	add_user(auth, "r", "u", "p");
	assert_int_equal(check_as(auth, "r", "u", "p", &id), 0);
	run_threads(race_accounts, NULL);
	assert_int_equal(check_as(auth, "r", "u", "p", &after), 0);
	assert_ptr_equal(id.account, after.account);
	auth_unref(auth);
}

/* Workers check requests against one configuration at once. */
static void *race_check(void *arg)
{
	struct race *race = arg;
	struct auth_identity id;
	char nonce[AUTH_NONCE_MAX];
	struct request req = { .user = "alice",
			       .realm = "example.org",
			       .nonce = nonce,
			       .password = "wonder" };

	nonce_of(race->auth, "example.org", NOW, nonce);
	for (int i = 0; i < 500; i++) {
		request_build(&req);
		if (auth_check(race->auth, &req.msg, NOW, NULL, NULL, NULL,
			       &id))
			continue;
		atomic_fetch_add(&race->taken, id.account == race->account);
		auth_account_unref(id.account);
	}
	return NULL;
}

static void requests_are_checked_in_parallel(void **state)
{
	struct race race = { .auth = auth_sample() };
	struct auth_identity id;

	(void)state;
	assert_int_equal(
		check_as(race.auth, "example.org", "alice", "wonder", &id), 0);
	race.account = id.account;
	run_threads(race_check, &race);
	assert_int_equal(race.taken, 8 * 500);
	auth_unref(race.auth);
}

static void references_keep_a_configuration(void **state)
{
	struct auth *auth = auth_sample();

	(void)state;
	assert_ptr_equal(auth_ref(auth), auth);
	auth_unref(auth);
	assert_string_equal(auth_default_realm(auth), "example.org");
	auth_unref(auth);
	auth_unref(NULL);
	auth_account_unref(NULL);
}

/* Builds a configuration and uses it, however far memory allows. */
static void build_and_use(void *arg)
{
	static const struct auth_keys keys = { .md5.len = STUN_KEY_LEN };
	struct auth *auth, *untouched = (struct auth *)&auth;
	char nonce[AUTH_NONCE_MAX];
	char user[16];
	int error;

	(void)arg;
	auth = untouched;
	error = auth_new(&params, &auth);
	if (error) {
		assert_int_equal(error, -ENOMEM);
		assert_ptr_equal(auth, untouched);
		return;
	}
	error = auth_add_realm(auth, "r");
	assert_true(error == 0 || error == -ENOMEM);
	for (int i = 0; i < 40 && !error; i++) {
		snprintf(user, sizeof(user), "u%d", i);
		error = auth_add_user(auth, "r", user, &keys);
		assert_true(error == 0 || error == -ENOMEM);
		/* Tried again it works: nothing half made is in the way. */
		if (error)
			assert_int_equal(auth_add_user(auth, "r", user, &keys),
					 0);
	}
	/* An error is told only when an allocation failed. */
	if (error)
		assert_true(failalloc_hit());
	nonce_of(auth, "example.org", NOW, nonce);
	auth_unref(auth);
}

static void failing_memory_is_told_and_leaks_nothing(void **state)
{
	(void)state;
	/* At least a user and an account for each of 40 names. */
	assert_true(failalloc_sweep(build_and_use, NULL) >= 80);
	assert_false(failalloc_hit());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(right_credentials_identify),
		cmocka_unit_test(same_name_in_two_realms_is_two_users),
		cmocka_unit_test(wrong_credentials_are_rejected),
		cmocka_unit_test(key_of_nobody_opens_nothing),
		cmocka_unit_test(unsigned_request_is_challenged),
		cmocka_unit_test(signed_request_must_be_complete),
		cmocka_unit_test(attributes_behind_the_signature_do_not_count),
		cmocka_unit_test(names_with_nul_are_rejected),
		cmocka_unit_test(overlong_names_are_rejected),
		cmocka_unit_test(nonce_of_datagrams_is_for_one_host),
		cmocka_unit_test(nonce_ages),
		cmocka_unit_test(nonce_cannot_be_forged),
		cmocka_unit_test(
			nonce_serves_every_configuration_with_its_secret),
		cmocka_unit_test(nonces_of_one_second_differ),
		cmocka_unit_test(wrong_password_outranks_a_stale_nonce),
		cmocka_unit_test(integrity_of_another_length_is_rejected),
		cmocka_unit_test(realms_and_users_are_checked_when_added),
		cmocka_unit_test(realm_length_is_counted_in_characters),
		cmocka_unit_test(many_users_are_all_found),
		cmocka_unit_test(account_is_the_same_over_a_reload),
		cmocka_unit_test(account_outlives_every_configuration),
		cmocka_unit_test(quota_is_per_user),
		cmocka_unit_test(quota_of_a_realm_is_its_users_together),
		cmocka_unit_test(quota_holds_under_concurrency),
		cmocka_unit_test(quota_hands_out_exactly_the_limit),
		cmocka_unit_test(accounts_survive_concurrent_reloads),
		cmocka_unit_test(requests_are_checked_in_parallel),
		cmocka_unit_test(references_keep_a_configuration),
		cmocka_unit_test(failing_memory_is_told_and_leaks_nothing),
	};

	return cmocka_run_group_tests_name("auth", tests, NULL, NULL);
}
