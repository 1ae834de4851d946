/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The keys of a session whose handshake is complete, as somebody needs them who
 * goes on with its records in OpenSSL's place: RFC 5246 6.3 for TLS 1.2, RFC 8446
 * 7.3 for TLS 1.3.
 *
 * TLS 1.2's come from the master secret. TLS 1.3's traffic secrets OpenSSL tells
 * as lines of a key log, each at the moment from which on it is used: there the
 * count of records begins. After a key update they are stale, and not told anew.
 */
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <string.h>

#include "transport/tls_internal.h"

#define SALT_LEN 4 /* of AES-GCM in TLS 1.2: what is not sent of a nonce */

/* What EVP_KDF is asked for: more than the longest list below. */
#define PARAMS_MAX 6

static int kdf_derive(const char *name, const OSSL_PARAM *params, uint8_t *out,
		      size_t len)
{
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, name, NULL);
	EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	int ok = ctx ? EVP_KDF_derive(ctx, out, len, params) : 0;

	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	ERR_clear_error();
	return ok == 1 ? 0 : -EINVAL;
}

static OSSL_PARAM octets(const char *key, const void *data, size_t len)
{
	return OSSL_PARAM_construct_octet_string(key, (void *)data, len);
}

static OSSL_PARAM digest_of(const SSL *ssl)
{
	const SSL_CIPHER *cipher = SSL_get_current_cipher(ssl);
	const EVP_MD *md = SSL_CIPHER_get_handshake_digest(cipher);

	return OSSL_PARAM_construct_utf8_string(
		OSSL_KDF_PARAM_DIGEST, (char *)EVP_MD_get0_name(md), 0);
}

/* HKDF-Expand-Label of a traffic secret, without context. */
static int label_expand(const SSL *ssl, const struct tls_secret *secret,
			const char *label, uint8_t *out, size_t len)
{
	static const char prefix[] = "tls13 ";
	int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
	const OSSL_PARAM params[PARAMS_MAX] = {
		OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
		digest_of(ssl),
		octets(OSSL_KDF_PARAM_KEY, secret->bytes, secret->len),
		octets(OSSL_KDF_PARAM_PREFIX, prefix, sizeof(prefix) - 1),
		octets(OSSL_KDF_PARAM_LABEL, label, strlen(label)),
		OSSL_PARAM_construct_end(),
	};

	return kdf_derive("TLS13-KDF", params, out, len);
}

static int keys_1_3(const SSL *ssl, const struct tls_secret *secret,
		    struct tls_keys *out)
{
	int err;

	if (!secret->len)
		return -ESTALE;
	err = label_expand(ssl, secret, "key", out->key, out->key_len);
	if (!err)
		err = label_expand(ssl, secret, "iv", out->iv, TLS_IV_LEN);
	return err;
}

/* The block holds what the client writes with before what the server does. */
static int keys_1_2(const SSL *ssl, bool client_writes, struct tls_keys *out)
{
	static const char label[] = "key expansion";
	const size_t iv_len = out->cipher == TLS_CIPHER_CHACHA20_POLY1305 ?
				      TLS_IV_LEN :
				      SALT_LEN;
	const size_t which = client_writes ? 0 : 1;
	uint8_t master[SSL_MAX_MASTER_KEY_LENGTH];
	uint8_t block[2 * (TLS_KEY_MAX + TLS_IV_LEN)];
	uint8_t seed[2 * SSL3_RANDOM_SIZE];
	size_t len = SSL_SESSION_get_master_key(SSL_get_session(ssl), master,
						sizeof(master));
	const OSSL_PARAM params[PARAMS_MAX] = {
		digest_of(ssl),
		octets(OSSL_KDF_PARAM_SECRET, master, len),
		octets(OSSL_KDF_PARAM_SEED, label, sizeof(label) - 1),
		octets(OSSL_KDF_PARAM_SEED, seed, sizeof(seed)),
		OSSL_PARAM_construct_end(),
	};
	int err;

	SSL_get_server_random(ssl, seed, SSL3_RANDOM_SIZE);
	SSL_get_client_random(ssl, seed + SSL3_RANDOM_SIZE, SSL3_RANDOM_SIZE);
	err = kdf_derive("TLS1-PRF", params, block,
			 2 * (out->key_len + iv_len));
	if (!err) {
		memcpy(out->key, block + which * out->key_len, out->key_len);
		memcpy(out->iv, block + 2 * out->key_len + which * iv_len,
		       iv_len);
	}
	OPENSSL_cleanse(master, sizeof(master));
	OPENSSL_cleanse(block, sizeof(block));
	return err;
}

static int cipher_find(const SSL *ssl, struct tls_keys *out)
{
	switch (SSL_CIPHER_get_cipher_nid(SSL_get_current_cipher(ssl))) {
	case NID_aes_128_gcm:
		out->cipher = TLS_CIPHER_AES_GCM_128;
		out->key_len = TLS_CIPHER_AES_GCM_128_KEY_SIZE;
		return 0;
	case NID_aes_256_gcm:
		out->cipher = TLS_CIPHER_AES_GCM_256;
		out->key_len = TLS_CIPHER_AES_GCM_256_KEY_SIZE;
		return 0;
	case NID_chacha20_poly1305:
		out->cipher = TLS_CIPHER_CHACHA20_POLY1305;
		out->key_len = TLS_CIPHER_CHACHA20_POLY1305_KEY_SIZE;
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

/*
 * CCM is good for a third of what GCM is (RFC 9147 4.5.3). The sequence of records ends
 * before ChaCha20-Poly1305 does, and CBC is far from its limit there.
 */
uint64_t tls_keys_most(const SSL *ssl)
{
	switch (SSL_CIPHER_get_cipher_nid(SSL_get_current_cipher(ssl))) {
	case NID_aes_128_gcm:
	case NID_aes_256_gcm:
		return TLS_KEY_RECORDS;
	case NID_aes_128_ccm:
	case NID_aes_256_ccm:
		return TLS_KEY_RECORDS / 3;
	default:
		return 0;
	}
}

/*
 * What AES-GCM of TLS 1.2 sends of its nonces counts on from where OpenSSL
 * began, at random: under one key none may ever come twice.
 */
static void nonce_follow(const struct tls_track *track, uint8_t *out)
{
	memcpy(out, track->head + TLS_RECORD_HEAD, TLS_NONCE_LEN);
	for (size_t i = TLS_NONCE_LEN; i-- && !++out[i];)
		;
}

int tls_keys_find(const SSL *ssl, const struct tls_secret *secret,
		  const struct tls_track *track, bool reading,
		  struct tls_keys *out)
{
	struct tls_keys keys = {
		.version = (uint16_t)SSL_version(ssl),
		.records = track->records,
	};
	bool client_writes = reading == (bool)SSL_is_server(ssl);
	int err = cipher_find(ssl, &keys);

	if (!err && keys.version == TLS1_3_VERSION)
		err = keys_1_3(ssl, secret, &keys);
	else if (!err)
		err = keys_1_2(ssl, client_writes, &keys);
	nonce_follow(track, keys.nonce);
	if (!err)
		*out = keys;
	OPENSSL_cleanse(&keys, sizeof(keys));
	return err;
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void tls_secret_parse(const char *line, const char *label,
		      struct tls_secret *out)
{
	const char *at = strrchr(line, ' ');
	size_t label_len = strlen(label);

	if (strncmp(line, label, label_len) != 0 || line[label_len] != ' ')
		return;
	out->len = 0;
	/* Its key is the random that the client sent, which is known. */
	for (at++; out->len < TLS_SECRET_MAX; at += 2) {
		int high = digit(at[0]), low = high < 0 ? -1 : digit(at[1]);

		if (low < 0)
			return;
		out->bytes[out->len++] = (uint8_t)(high << 4 | low);
	}
}
