/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the kernel is given of a TLS session: records counted, keys, nonces. Whoever
 * has these can go on with the session: here it is the test itself, which seals and
 * unseals records beside OpenSSL's other end. What the kernel makes of them needs
 * one with TLS: selftests/net/ktls.py.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>
#include <openssl/ssl.h>

#include "base/bytes.h"
#include "transport/tls_internal.h"
#include "unit/tls_rig.h"

#define TAG_LEN   16
#define ROOM      600
#define ALL_OF_12 "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:ECDHE+AESCCM"
#define ALL_OF_13                                        \
	"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:" \
	"TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_CCM_SHA256"

static struct identity ours;

static int group_setup(void **state)
{
	struct tls_fault fault;

	(void)state;
	signal(SIGPIPE, SIG_IGN); /* the far side's */
	identity_make(&ours, "relay.test");
	return server_make(&ours.pair, 1, ALL_OF_12 ":" ALL_OF_13, &fault,
			   &server);
}

static int group_teardown(void **state)
{
	(void)state;
	tls_server_unref(server);
	return 0;
}

/* However the bytes come, a record counts when it is whole. */
static void records_are_counted_in_any_pieces(void **state)
{
	static const uint8_t bytes[] = {
		22, 3, 3, 0, 1, 9, /* forgotten: */
		20, 3, 3, 0, 1, 1, /* new keys */
		23, 3, 3, 0, 0, /* nothing in it */
		23, 3, 3, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9,
	};

	(void)state;
	for (size_t piece = 1; piece <= sizeof(bytes); piece++) {
		struct tls_track track = { 0 };
		size_t at = 0;

		while (at < sizeof(bytes)) {
			size_t n = sizeof(bytes) - at;

			n = n < piece ? n : piece;
			tls_track_feed(&track, bytes + at, n);
			at += n;
			if (at == sizeof(bytes) - 1)
				assert_false(tls_track_between(&track));
		}
		assert_true(tls_track_between(&track));
		assert_int_equal(track.records, 2);
		assert_memory_equal(track.head + TLS_RECORD_HEAD, bytes + 22,
				    TLS_NONCE_LEN);
	}
}

static void a_secret_is_taken_from_its_line_alone(void **state)
{
	struct tls_secret secret = { .len = 0 };

	(void)state;
	tls_secret_parse("CLIENT_TRAFFIC_SECRET_0 00ff 0a1b", "SERVER",
			 &secret);
	assert_int_equal(secret.len, 0);
	tls_secret_parse("SERVERS 00ff 0a1b", "SERVER", &secret);
	assert_int_equal(secret.len, 0);
	tls_secret_parse("SERVER 00ff 0a1bf", "SERVER", &secret);
	assert_int_equal(secret.len, 2);
	assert_int_equal(secret.bytes[0], 0x0a);
	assert_int_equal(secret.bytes[1], 0x1b);
}

static struct tls_session *session_of(const struct both *both)
{
	return (struct tls_session *)both->seal;
}

/* A connection with this cipher. */
static void join_with(struct both *both, int version, const char *cipher)
{
	both_open(both, version);
	SSL_set_min_proto_version(both->ssl, version);
	if (version == TLS1_3_VERSION)
		assert_int_equal(SSL_set_ciphersuites(both->ssl, cipher), 1);
	else
		assert_int_equal(SSL_set_cipher_list(both->ssl, cipher), 1);
	both_accept(both);
}

static const EVP_CIPHER *aead_of(const struct tls_keys *keys)
{
	switch (keys->cipher) {
	case TLS_CIPHER_AES_GCM_128:
		return EVP_aes_128_gcm();
	case TLS_CIPHER_AES_GCM_256:
		return EVP_aes_256_gcm();
	default:
		return EVP_chacha20_poly1305();
	}
}

/* Is a part of each nonce in its record? */
static bool nonce_sent(const struct tls_keys *keys)
{
	return keys->version == TLS1_2_VERSION &&
	       keys->cipher != TLS_CIPHER_CHACHA20_POLY1305;
}

static void nonce_make(const struct tls_keys *keys, uint8_t out[TLS_IV_LEN])
{
	uint8_t count[8];

	memcpy(out, keys->iv, TLS_IV_LEN);
	put_be64(count, keys->records);
	if (nonce_sent(keys))
		memcpy(out + 4, keys->nonce, TLS_NONCE_LEN);
	else
		for (size_t i = 0; i < 8; i++)
			out[4 + i] ^= count[i];
}

/* What is authenticated beside the text, whose length is given. */
static size_t extra_make(const struct tls_keys *keys, const uint8_t *record,
			 size_t text_len, uint8_t out[13])
{
	if (keys->version == TLS1_3_VERSION) {
		memcpy(out, record, TLS_RECORD_HEAD);
		return TLS_RECORD_HEAD;
	}
	put_be64(out, keys->records);
	memcpy(out + 8, record, 3);
	put_be16(out + 11, (uint16_t)text_len);
	return 13;
}

/* One AEAD operation over text, whose tag is behind it. False: it is wrong. */
static bool aead(const struct tls_keys *keys, bool seal, const uint8_t *record,
		 uint8_t *text, size_t len)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t nonce[TLS_IV_LEN], extra[13];
	size_t extra_len = extra_make(keys, record, len, extra);
	int n, ok;

	nonce_make(keys, nonce);
	assert_int_equal(EVP_CipherInit_ex(ctx, aead_of(keys), NULL, keys->key,
					   nonce, seal),
			 1);
	if (!seal)
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_LEN,
				    text + len);
	EVP_CipherUpdate(ctx, NULL, &n, extra, (int)extra_len);
	EVP_CipherUpdate(ctx, text, &n, text, (int)len);
	ok = EVP_CipherFinal_ex(ctx, text + n, &n);
	if (seal)
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_LEN,
				    text + len);
	EVP_CIPHER_CTX_free(ctx);
	return ok == 1;
}

/* Whoever has the keys unseals what the other side seals next. */
static void unseal_next(struct both *both, const char *words)
{
	const struct tls_session *session = session_of(both);
	size_t len = strlen(words), head = TLS_RECORD_HEAD, n;
	uint8_t record[ROOM];
	struct tls_keys keys;
	ssize_t got;

	assert_int_equal(tls_keys_find(session->ssl, &session->secret_in,
				       &session->socket.in, true, &keys),
			 0);
	assert_int_equal(SSL_write_ex(both->ssl, words, len, &n), 1);
	got = recv(both->fd, record, sizeof(record), 0);
	assert_true(got > 0);
	if (nonce_sent(&keys)) {
		memcpy(keys.nonce, record + head, TLS_NONCE_LEN);
		head += TLS_NONCE_LEN;
	}
	assert_true(aead(&keys, false, record, record + head,
			 (size_t)got - head - TAG_LEN));
	assert_memory_equal(record + head, words, len);
}

/* And the other side unseals what he seals. */
static void seal_next(struct both *both, const char *words)
{
	const struct tls_session *session = session_of(both);
	size_t len = strlen(words), head = TLS_RECORD_HEAD, n;
	uint8_t record[ROOM] = { TLS_RECORD_DATA, 3, 3 }, got[ROOM];
	struct tls_keys keys;

	assert_int_equal(tls_keys_find(session->ssl, &session->secret_out,
				       &session->socket.out, false, &keys),
			 0);
	if (nonce_sent(&keys)) {
		memcpy(record + head, keys.nonce, TLS_NONCE_LEN);
		head += TLS_NONCE_LEN;
	}
	memcpy(record + head, words, len);
	if (keys.version == TLS1_3_VERSION)
		record[head + len++] = TLS_RECORD_DATA;
	put_be16(record + 3,
		 (uint16_t)(head - TLS_RECORD_HEAD + len + TAG_LEN));
	assert_true(aead(&keys, true, record, record + head, len));
	len += head + TAG_LEN;
	assert_int_equal(send(both->fd, record, len, 0), len);
	assert_int_equal(SSL_read_ex(both->ssl, got, sizeof(got), &n), 1);
	assert_int_equal(n, strlen(words));
	assert_memory_equal(got, words, n);
}

static void talk(struct both *both, unsigned int times)
{
	uint8_t data[SEAL_RECORD_MAX];
	ssize_t got;
	size_t n;

	while (times--) {
		assert_int_equal(SSL_write_ex(both->ssl, "ping", 4, &n), 1);
		got = -EAGAIN;
		UNTIL_BY(got != -EAGAIN, got = seal_recv(both->seal, both->fd,
							 data, sizeof(data)));
		assert_int_equal(got, 4);
		assert_int_equal(seal_send(both->seal, both->fd, "pong", 4), 4);
		assert_int_equal(SSL_read_ex(both->ssl, data, 4, &n), 1);
	}
}

static void whoever_has_the_keys_goes_on(void **state)
{
	static const struct {
		int version;
		const char *cipher;
	} all[] = {
		{ TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256" },
		{ TLS1_2_VERSION, "ECDHE-ECDSA-AES256-GCM-SHA384" },
		{ TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305" },
		{ TLS1_3_VERSION, "TLS_AES_128_GCM_SHA256" },
		{ TLS1_3_VERSION, "TLS_AES_256_GCM_SHA384" },
		{ TLS1_3_VERSION, "TLS_CHACHA20_POLY1305_SHA256" },
	};

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(all) / sizeof(all[0]); i++) {
		struct both both;

		join_with(&both, all[i / 2].version, all[i / 2].cipher);
		talk(&both, i % 2 ? 300 : 0);
		seal_next(&both, "a record that OpenSSL did not make");
		unseal_next(&both, "a record that OpenSSL did not read");
		both_close(&both);
	}
}

/* No nonce comes twice: whoever goes on does so where OpenSSL has stopped. */
static void nonces_that_are_sent_go_on_in_order(void **state)
{
	uint8_t record[ROOM];
	struct tls_keys keys;
	struct both both;

	(void)state;
	join_with(&both, TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256");
	talk(&both, 3);
	assert_int_equal(tls_keys_find(session_of(&both)->ssl, NULL,
				       &session_of(&both)->socket.out, false,
				       &keys),
			 0);
	assert_int_equal(seal_send(both.seal, both.fd, "next", 4), 4);
	assert_true(recv(both.far, record, sizeof(record), MSG_PEEK) > 4);
	assert_memory_equal(record + TLS_RECORD_HEAD, keys.nonce,
			    TLS_NONCE_LEN);
	both_close(&both);
}

/* Where the seal stays when it is asked to go to the kernel. */
static enum seal_place place_asked(struct both *both)
{
	both->seal->ops->offload(both->seal);
	return both->seal->place;
}

/* It is asked to go on a socket that no kernel encrypts: all goes on here. */
static void without_the_kernel_all_goes_on(void **state)
{
	struct both both;

	(void)state;
	both_join(&both, TLS1_3_VERSION);
	assert_int_equal(place_asked(&both), SEAL_KEPT_ERROR);
	assert_false(both.seal->splices);
	talk(&both, 3);
	assert_int_equal(both.seal->ops->unsent(both.seal), 0);
	assert_int_equal(both.seal->ops->end(both.seal), 0);
	both_close(&both);
}

static void ciphers_of_openssl_alone_stay_with_it(void **state)
{
	struct both both;

	(void)state;
	join_with(&both, TLS1_3_VERSION, "TLS_AES_128_CCM_SHA256");
	assert_int_equal(place_asked(&both), SEAL_KEPT_CIPHER);
	both_close(&both);
	join_with(&both, TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA256");
	assert_int_equal(place_asked(&both), SEAL_KEPT_CIPHER);
	talk(&both, 3);
	both_close(&both);
}

static void changed_keys_are_not_given_away(void **state)
{
	struct both both;

	(void)state;
	both_join(&both, TLS1_3_VERSION);
	assert_int_equal(SSL_key_update(both.ssl, SSL_KEY_UPDATE_NOT_REQUESTED),
			 1);
	talk(&both, 1);
	assert_int_equal(place_asked(&both), SEAL_KEPT_KEYS);
	talk(&both, 3);
	both_close(&both);
}

static void small_records_stay_small(void **state)
{
	struct both both;

	(void)state;
	both_open(&both, TLS1_3_VERSION);
	SSL_set_tlsext_max_fragment_length(both.ssl,
					   TLSEXT_max_fragment_length_1024);
	both_accept(&both);
	assert_int_equal(place_asked(&both), SEAL_KEPT_RECORDS);
	both_close(&both);
}

/* Neither what has ended nor what is half on its way is handed over. */
static void a_stream_under_way_stays(void **state)
{
	static uint8_t flood[1 << 20];
	uint8_t data[2 * SEAL_RECORD_MAX];
	struct both both;
	ssize_t sent = 0;
	size_t n;

	(void)state;
	both_join(&both, TLS1_3_VERSION);
	while (sent >= 0)
		sent = seal_send(both.seal, both.fd, flood, sizeof(flood));
	assert_int_equal(sent, -EAGAIN);
	assert_int_equal(place_asked(&both), SEAL_KEPT_STATE);
	both_close(&both);
	both_join(&both, TLS1_3_VERSION);
	assert_int_equal(SSL_write_ex(both.ssl, "last", 4, &n), 1);
	SSL_shutdown(both.ssl);
	assert_int_equal(seal_recv(both.seal, both.fd, data, sizeof(data)), 4);
	assert_true(both.seal->more);
	assert_int_equal(place_asked(&both), SEAL_KEPT_STATE);
	both_close(&both);
}

/* Once the kernel writes, OpenSSL writes nothing under the same keys. */
static void openssl_is_silent_beside_the_kernel(void **state)
{
	uint8_t data[SEAL_RECORD_MAX];
	struct both both;

	(void)state;
	both_join(&both, TLS1_3_VERSION);
	talk(&both, 1);
	session_of(&both)->socket.deaf = true;
	assert_int_equal(SSL_key_update(both.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
	assert_int_equal(SSL_do_handshake(both.ssl), 1);
	assert_true(seal_recv(both.seal, both.fd, data, sizeof(data)) <= 0);
	assert_true(seal_send(both.seal, both.fd, "x", 1) < 0);
	assert_int_equal(recv(both.far, data, sizeof(data), 0), -1);
	assert_int_equal(errno, EAGAIN);
	both_close(&both);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_are_counted_in_any_pieces),
		cmocka_unit_test(a_secret_is_taken_from_its_line_alone),
		cmocka_unit_test(whoever_has_the_keys_goes_on),
		cmocka_unit_test(nonces_that_are_sent_go_on_in_order),
		cmocka_unit_test(without_the_kernel_all_goes_on),
		cmocka_unit_test(ciphers_of_openssl_alone_stay_with_it),
		cmocka_unit_test(changed_keys_are_not_given_away),
		cmocka_unit_test(small_records_stay_small),
		cmocka_unit_test(a_stream_under_way_stays),
		cmocka_unit_test(openssl_is_silent_beside_the_kernel),
	};

	return cmocka_run_group_tests_name("ktls", tests, group_setup,
					   group_teardown);
}
