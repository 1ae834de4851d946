/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client's credentials of RFC 8489: what it makes of a challenge, what it
 * sends, which answers it takes, and that it is not bidden down. No socket: the
 * server's part is done by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "client/request.h"
#include "stun/stun.h"

#define BOTH   "\0\2\0\0\0\1\0\0"
#define MD5    "\0\1\0\0"
#define SHA256 "\0\2\0\0"

struct talk {
	struct client_auth auth;
	struct client_request request;
	struct client_failure failure;
	uint8_t out[CLIENT_REQUEST_MAX]; /* the request sent last */
	struct stun_msg sent;
	uint8_t in[4096];
	struct stun_msg answer;
};

static void talk_start(struct talk *talk)
{
	memset(talk, 0, sizeof(*talk));
	assert_int_equal(client_auth_init(&talk->auth, "alice", "wonderland"),
			 0);
	talk->request.method = STUN_ALLOCATE;
}

static void talk_ask(struct talk *talk)
{
	ssize_t len = client_request_write(&talk->request, &talk->auth, NULL,
					   NULL, talk->out, sizeof(talk->out));

	assert_true(len > 0);
	assert_int_equal(stun_parse(talk->out, (size_t)len, &talk->sent), 0);
}

/* A new request, the talk so far being known. */
static void talk_anew(struct talk *talk)
{
	memset(&talk->request, 0, sizeof(talk->request));
	talk->request.method = STUN_REFRESH;
	talk_ask(talk);
}

static void answer_begin(struct talk *talk, struct stun_writer *w,
			 enum stun_class class)
{
	stun_begin(w, talk->in, sizeof(talk->in), class, talk->request.method,
		   talk->request.txid);
}

static enum client_verdict answer_judge(struct talk *talk,
					struct stun_writer *w)
{
	assert_true(stun_end(w) > 0);
	assert_int_equal(stun_parse(talk->in, w->len, &talk->answer), 0);
	return client_request_judge(&talk->request, &talk->auth, &talk->answer,
				    &talk->failure);
}

/* What the client makes of a challenge; list NULL: without it. */
static enum client_verdict challenged(struct talk *talk, int code,
				      const char *nonce, const char *list,
				      size_t len)
{
	struct stun_writer w;

	answer_begin(talk, &w, STUN_ERROR);
	stun_put_error(&w, code);
	stun_put_string(&w, STUN_ATTR_REALM, "example.org");
	stun_put_string(&w, STUN_ATTR_NONCE, nonce);
	if (list)
		stun_put(&w, STUN_ATTR_PASSWORD_ALGORITHMS, list, len);
	return answer_judge(talk, &w);
}

#define CHALLENGED(talk, code, nonce, list) \
	challenged(talk, code, nonce, list, sizeof(list) - 1)

static void assert_attr(const struct stun_msg *msg, uint16_t type,
			const void *value, size_t len)
{
	struct stun_attr attr;

	assert_true(stun_find(msg, type, &attr));
	assert_int_equal(attr.len, len);
	assert_memory_equal(attr.value, value, len);
}

static void keys_make(uint8_t md5[STUN_KEY_LEN],
		      uint8_t sha256[STUN_SHA256_LEN])
{
	assert_int_equal(stun_long_term_key("alice", "example.org",
					    "wonderland", md5),
			 0);
	assert_int_equal(stun_long_term_key_sha256("alice", "example.org",
						   "wonderland", sha256),
			 0);
}

static void assert_old_credentials(const struct stun_msg *sent)
{
	uint8_t md5[STUN_KEY_LEN], sha256[STUN_SHA256_LEN];

	keys_make(md5, sha256);
	assert_int_equal(stun_check_integrity(sent, md5, sizeof(md5)), 1);
	assert_attr(sent, STUN_ATTR_USERNAME, "alice", 5);
	assert_false(stun_has(sent, STUN_ATTR_USERHASH));
	assert_false(stun_has(sent, STUN_ATTR_PASSWORD_ALGORITHM));
	assert_false(stun_has(sent, STUN_ATTR_PASSWORD_ALGORITHMS));
	assert_false(stun_has(sent, STUN_ATTR_MESSAGE_INTEGRITY_SHA256));
}

static void assert_new_credentials(const struct stun_msg *sent,
				   const char *list, size_t len,
				   enum stun_algorithm algorithm, bool hashed)
{
	uint8_t md5[STUN_KEY_LEN], sha256[STUN_SHA256_LEN];
	uint8_t one[4] = { 0, (uint8_t)algorithm, 0, 0 };
	uint8_t hash[STUN_SHA256_LEN];
	bool strong = algorithm == STUN_ALGORITHM_SHA256;

	keys_make(md5, sha256);
	assert_int_equal(stun_check_integrity_sha256(
				 sent, strong ? sha256 : md5,
				 strong ? sizeof(sha256) : sizeof(md5), 32),
			 1);
	assert_false(stun_has(sent, STUN_ATTR_MESSAGE_INTEGRITY));
	assert_attr(sent, STUN_ATTR_PASSWORD_ALGORITHMS, list, len);
	assert_attr(sent, STUN_ATTR_PASSWORD_ALGORITHM, one, sizeof(one));
	assert_int_equal(stun_userhash("alice", 5, "example.org", 11, hash), 0);
	assert_true(stun_has(sent, STUN_ATTR_USERNAME) != hashed);
	if (hashed)
		assert_attr(sent, STUN_ATTR_USERHASH, hash, sizeof(hash));
	else
		assert_false(stun_has(sent, STUN_ATTR_USERHASH));
}

/* A success, signed by either integrity with either key. */
static enum client_verdict succeeded(struct talk *talk, bool sha256_integrity,
				     bool sha256_key)
{
	uint8_t md5[STUN_KEY_LEN], sha256[STUN_SHA256_LEN];
	const uint8_t *key = sha256_key ? sha256 : md5;
	size_t len = sha256_key ? sizeof(sha256) : sizeof(md5);
	struct stun_writer w;

	keys_make(md5, sha256);
	answer_begin(talk, &w, STUN_SUCCESS);
	if (sha256_integrity)
		stun_put_integrity_sha256(&w, key, len);
	else
		stun_put_integrity(&w, key, len);
	return answer_judge(talk, &w);
}

static void first_request_has_no_credentials(void **state)
{
	static const uint16_t types[] = {
		STUN_ATTR_USERNAME,
		STUN_ATTR_USERHASH,
		STUN_ATTR_REALM,
		STUN_ATTR_NONCE,
		STUN_ATTR_MESSAGE_INTEGRITY,
		STUN_ATTR_MESSAGE_INTEGRITY_SHA256,
		STUN_ATTR_PASSWORD_ALGORITHM,
		STUN_ATTR_PASSWORD_ALGORITHMS,
	};
	struct talk talk;

	(void)state;
	talk_start(&talk);
	talk_ask(&talk);
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		assert_false(stun_has(&talk.sent, types[i]));
	client_auth_wipe(&talk.auth);
}

/* The transaction is over, and says why. */
static void assert_not_signed(const struct talk *talk,
			      enum client_verdict verdict)
{
	assert_int_equal(verdict, CLIENT_VERDICT_ERROR);
	assert_int_equal(talk->failure.error.code, -EBADMSG);
}

static void old_server_gets_old_credentials(void **state)
{
	static const char *const nonces[] = { "plain", "obMatJos2AAAAx",
					      "obMatJos2", "obMatJos2\tAAA" };
	struct talk talk;

	(void)state;
	for (size_t i = 0; i < sizeof(nonces) / sizeof(nonces[0]); i++) {
		talk_start(&talk);
		talk_ask(&talk);
		assert_int_equal(challenged(&talk, 401, nonces[i], NULL, 0),
				 CLIENT_VERDICT_AGAIN);
		talk_ask(&talk);
		assert_old_credentials(&talk.sent);
		assert_not_signed(&talk, succeeded(&talk, true, false));
		assert_int_equal(succeeded(&talk, false, false),
				 CLIENT_VERDICT_SUCCESS);
		client_auth_wipe(&talk.auth);
	}
}

static void first_known_algorithm_is_taken(void **state)
{
	static const struct {
		const char *nonce, *list;
		size_t len;
		enum stun_algorithm algorithm;
		bool hashed;
	} cases[] = {
		{ "obMatJos2gAAAx", BOTH, 8, STUN_ALGORITHM_SHA256, false },
		{ "obMatJos2wAAAx", BOTH, 8, STUN_ALGORITHM_SHA256, true },
		{ "obMatJos2wAAAx", MD5, 4, STUN_ALGORITHM_MD5, true },
		{ "obMatJos2gAAAx", MD5 SHA256, 8, STUN_ALGORITHM_MD5, false },
		{ "obMatJos2gAAAx", "\0\7\0\5abcde\0\0\0" SHA256, 16,
		  STUN_ALGORITHM_SHA256, false },
		/* With parameters it is not what we know by that number. */
		{ "obMatJos2gAAAx", "\0\2\0\4abcd" MD5, 12, STUN_ALGORITHM_MD5,
		  false },
		/* Unknown features, and a list that nothing announces. */
		{ "obMatJos2////x", BOTH, 8, STUN_ALGORITHM_SHA256, true },
		{ "plain", BOTH, 8, STUN_ALGORITHM_SHA256, false },
	};
	struct talk talk;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		bool strong = cases[i].algorithm == STUN_ALGORITHM_SHA256;

		talk_start(&talk);
		talk_ask(&talk);
		assert_int_equal(challenged(&talk, 401, cases[i].nonce,
					    cases[i].list, cases[i].len),
				 CLIENT_VERDICT_AGAIN);
		talk_ask(&talk);
		assert_new_credentials(&talk.sent, cases[i].list, cases[i].len,
				       cases[i].algorithm, cases[i].hashed);
		assert_int_equal(succeeded(&talk, true, strong),
				 CLIENT_VERDICT_SUCCESS);
		/* The next request, too, and after a 438. */
		talk_anew(&talk);
		assert_new_credentials(&talk.sent, cases[i].list, cases[i].len,
				       cases[i].algorithm, cases[i].hashed);
		assert_int_equal(challenged(&talk, 438, cases[i].nonce,
					    cases[i].list, cases[i].len),
				 CLIENT_VERDICT_AGAIN);
		talk_ask(&talk);
		assert_new_credentials(&talk.sent, cases[i].list, cases[i].len,
				       cases[i].algorithm, cases[i].hashed);
		client_auth_wipe(&talk.auth);
	}
}

static void answers_are_signed_as_requests_are(void **state)
{
	struct talk talk;

	(void)state;
	talk_start(&talk);
	talk_ask(&talk);
	assert_int_equal(CHALLENGED(&talk, 401, "obMatJos2wAAAx", BOTH),
			 CLIENT_VERDICT_AGAIN);
	talk_ask(&talk);
	assert_not_signed(&talk, succeeded(&talk, false, true));
	assert_not_signed(&talk, succeeded(&talk, false, false));
	assert_not_signed(&talk, succeeded(&talk, true, false));
	assert_int_equal(succeeded(&talk, true, true), CLIENT_VERDICT_SUCCESS);
	client_auth_wipe(&talk.auth);
}

static void refused(struct talk *talk, enum client_verdict verdict, int code,
		    const char *why)
{
	struct client_auth before = talk->auth;

	assert_int_equal(verdict, CLIENT_VERDICT_ERROR);
	assert_int_equal(talk->failure.error.code, code);
	assert_non_null(strstr(talk->failure.text, why));
	assert_memory_equal(&before, &talk->auth, sizeof(before));
	client_auth_wipe(&talk->auth);
}

/* RFC 8489 9.2.5: the nonce announces a list that somebody has taken out. */
static void stripped_list_is_noticed(void **state)
{
	struct talk talk;

	(void)state;
	for (int code = 401; code <= 438; code += 37) {
		talk_start(&talk);
		talk_ask(&talk);
		refused(&talk,
			challenged(&talk, code, "obMatJos2gAAAx", NULL, 0),
			-EKEYREJECTED, "weaker");
	}
}

static void unknown_algorithms_end_it(void **state)
{
	struct talk talk;

	(void)state;
	talk_start(&talk);
	talk_ask(&talk);
	refused(&talk, CHALLENGED(&talk, 401, "obMatJos2gAAAx", "\0\7\0\0"),
		-ENOTSUP, "no password algorithm");
}

static void malformed_lists_end_it(void **state)
{
	static const struct {
		const char *list;
		size_t len;
	} cases[] = { { "", 0 },
		      { "\0\7\0", 3 },
		      { "\0\7\0\4ab", 6 },
		      { "\0\7\0\0\0", 5 } };
	char longest[CLIENT_ALGORITHMS_MAX + 4] = { 0 };
	struct talk talk;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		talk_start(&talk);
		talk_ask(&talk);
		refused(&talk,
			challenged(&talk, 401, "obMatJos2gAAAx", cases[i].list,
				   cases[i].len),
			-EPROTO, "without a usable");
	}
	memcpy(longest + sizeof(longest) - 4, SHA256, 4);
	talk_start(&talk);
	talk_ask(&talk);
	refused(&talk,
		challenged(&talk, 401, "obMatJos2gAAAx", longest,
			   sizeof(longest)),
		-EPROTO, "without a usable");
	talk_start(&talk);
	talk_ask(&talk);
	assert_int_equal(challenged(&talk, 401, "obMatJos2gAAAx", longest + 4,
				    sizeof(longest) - 4),
			 CLIENT_VERDICT_AGAIN);
	talk_ask(&talk);
	assert_new_credentials(&talk.sent, longest + 4, sizeof(longest) - 4,
			       STUN_ALGORITHM_SHA256, false);
	client_auth_wipe(&talk.auth);
}

/* A forged challenge with a nonce of its own: nothing in it says what is gone. */
static void nothing_weaker_than_before_is_used(void **state)
{
	struct talk talk;

	(void)state;
	for (int code = 401; code <= 438; code += 37)
		for (int weaker = 0; weaker < 2; weaker++) {
			talk_start(&talk);
			talk_ask(&talk);
			assert_int_equal(CHALLENGED(&talk, 401,
						    "obMatJos2wAAAx", BOTH),
					 CLIENT_VERDICT_AGAIN);
			talk_anew(&talk);
			refused(&talk,
				weaker ? CHALLENGED(&talk, code,
						    "obMatJos2wAAAy", MD5) :
					 challenged(&talk, code, "forged", NULL,
						    0),
				-EKEYREJECTED, "weaker");
		}
	/* Stronger is welcome. */
	talk_start(&talk);
	talk_ask(&talk);
	assert_int_equal(challenged(&talk, 401, "plain", NULL, 0),
			 CLIENT_VERDICT_AGAIN);
	talk_anew(&talk);
	assert_int_equal(CHALLENGED(&talk, 438, "obMatJos2gAAAx", BOTH),
			 CLIENT_VERDICT_AGAIN);
	talk_ask(&talk);
	assert_new_credentials(&talk.sent, BOTH, 8, STUN_ALGORITHM_SHA256,
			       false);
	client_auth_wipe(&talk.auth);
}

static void second_401_means_a_wrong_password(void **state)
{
	struct talk talk;

	(void)state;
	talk_start(&talk);
	talk_ask(&talk);
	assert_int_equal(CHALLENGED(&talk, 401, "obMatJos2wAAAx", BOTH),
			 CLIENT_VERDICT_AGAIN);
	talk_ask(&talk);
	assert_int_equal(CHALLENGED(&talk, 401, "obMatJos2wAAAy", BOTH),
			 CLIENT_VERDICT_ERROR);
	assert_int_equal(talk.failure.error.code, 401);
	client_auth_wipe(&talk.auth);
}

/*
 * RFC 8489 9.2.5: what is wrongly signed, or not, ends the transaction and is not
 * believed; but an unsigned 400, and an answer that was stripped, never came.
 */
static void unsigned_errors_do_not_count(void **state)
{
	uint8_t md5[STUN_KEY_LEN], sha256[STUN_SHA256_LEN];
	struct stun_writer w;
	struct talk talk;

	(void)state;
	keys_make(md5, sha256);
	talk_start(&talk);
	talk_ask(&talk);
	assert_int_equal(CHALLENGED(&talk, 401, "obMatJos2wAAAx", BOTH),
			 CLIENT_VERDICT_AGAIN);
	talk_ask(&talk);
	answer_begin(&talk, &w, STUN_ERROR);
	stun_put_error(&w, 400);
	assert_int_equal(answer_judge(&talk, &w), CLIENT_VERDICT_DISCARD);
	answer_begin(&talk, &w, STUN_ERROR);
	stun_put_error(&w, 437);
	stun_put_string(&w, STUN_ATTR_NONCE, "obMatJos2wAAAx");
	stun_put_integrity_sha256(&w, sha256, sizeof(sha256));
	assert_int_equal(answer_judge(&talk, &w), CLIENT_VERDICT_DISCARD);
	assert_int_equal(talk.request.discarded, 2);
	answer_begin(&talk, &w, STUN_ERROR);
	stun_put_error(&w, 400);
	stun_put_integrity_sha256(&w, md5, sizeof(md5));
	assert_not_signed(&talk, answer_judge(&talk, &w));
	answer_begin(&talk, &w, STUN_ERROR);
	stun_put_error(&w, 437);
	assert_not_signed(&talk, answer_judge(&talk, &w));
	answer_begin(&talk, &w, STUN_ERROR);
	stun_put_error(&w, 437);
	stun_put_integrity_sha256(&w, sha256, sizeof(sha256));
	assert_int_equal(answer_judge(&talk, &w), CLIENT_VERDICT_ERROR);
	assert_int_equal(talk.failure.error.code, 437);
	client_auth_wipe(&talk.auth);
}

/* RFC 8489 9.2.2; but the realm goes back as it came. */
static void credentials_are_prepared(void **state)
{
	uint8_t key[STUN_SHA256_LEN];
	struct client_auth auth;
	struct stun_writer w;
	struct talk talk;

	(void)state;
	memset(&talk, 0, sizeof(talk));
	assert_int_equal(client_auth_init(&talk.auth, "ame\u0301lie",
					  "open\u00a0sesame"),
			 0);
	talk.request.method = STUN_ALLOCATE;
	talk_ask(&talk);
	answer_begin(&talk, &w, STUN_ERROR);
	stun_put_error(&w, 401);
	stun_put_string(&w, STUN_ATTR_REALM, "e\u0301.org");
	stun_put_string(&w, STUN_ATTR_NONCE, "n");
	assert_int_equal(answer_judge(&talk, &w), CLIENT_VERDICT_AGAIN);
	talk_ask(&talk);
	assert_attr(&talk.sent, STUN_ATTR_USERNAME, "am\u00e9lie", 7);
	assert_attr(&talk.sent, STUN_ATTR_REALM, "e\u0301.org", 7);
	assert_int_equal(stun_long_term_key("am\u00e9lie", "\u00e9.org",
					    "open sesame", key),
			 0);
	assert_int_equal(stun_check_integrity(&talk.sent, key, STUN_KEY_LEN),
			 1);
	client_auth_wipe(&talk.auth);
	assert_int_equal(client_auth_init(&auth, "alice", "a\tb"), -EINVAL);
	assert_int_equal(client_auth_init(&auth, "ali\u200bce", "ab"), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_request_has_no_credentials),
		cmocka_unit_test(old_server_gets_old_credentials),
		cmocka_unit_test(first_known_algorithm_is_taken),
		cmocka_unit_test(answers_are_signed_as_requests_are),
		cmocka_unit_test(stripped_list_is_noticed),
		cmocka_unit_test(unknown_algorithms_end_it),
		cmocka_unit_test(malformed_lists_end_it),
		cmocka_unit_test(nothing_weaker_than_before_is_used),
		cmocka_unit_test(second_401_means_a_wrong_password),
		cmocka_unit_test(unsigned_errors_do_not_count),
		cmocka_unit_test(credentials_are_prepared),
	};

	return cmocka_run_group_tests_name("client: RFC 8489", tests, NULL,
					   NULL);
}
