/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Third-party authorization (RFC 7635): an authorization server, which shares a key
 * with this one, hands out tokens that say by which key a client signs.
 *
 *   ACCESS-TOKEN  length of nonce, nonce, AES-GCM(key length, key, timestamp, lifetime)
 *   USERNAME      which of the shared keys it was sealed with
 *
 * Sealed along with it is the name of this server, so that a token for another one
 * that has the same key is none. Nothing is stored but with an allocation: RFC 7635 8
 * has the token in Allocate and Refresh alone, so that other requests are checked
 * against the key of the allocation they are about, ConnectionBind's by that of the
 * connection it asks for.
 *
 * Whom a token was given to it does not say: the user is the key in it, and a later
 * token with the same key is the same user's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/internal.h"
#include "base/bytes.h"
#include "crypto/crypto.h"

#define NONCE_MAX  64
#define STAMP_LEN  8
#define LIFE_LEN   4
#define MAC_MIN    16
#define PLAIN_MAX  (2 + STUN_SHA256_LEN + STAMP_LEN + LIFE_LEN)
#define FRACTION   16 /* bits of the timestamp, of which 64000 make a second */
#define DIGEST_HEX 16 /* digits that tell keys apart in a user's name */

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int auth_token_key_read(const char *text, struct token_key *out)
{
	const char *colon = strrchr(text, ':'), *hex = colon ? colon + 1 : "";
	size_t id_len = colon ? (size_t)(colon - text) : 0;
	size_t len = strlen(hex) / 2;
	struct token_key key = { .len = len };

	if (!id_len || id_len >= sizeof(key.id) || strlen(hex) % 2 ||
	    (len != 16 && len != 32))
		return -EINVAL;
	memcpy(key.id, text, id_len);
	for (size_t i = 0; i < len; i++) {
		int high = digit_value(hex[2 * i]);
		int low = digit_value(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		key.key[i] = (uint8_t)(high << 4 | low);
	}
	*out = key;
	crypto_wipe(&key, sizeof(key));
	return 0;
}

int auth_token_read(const uint8_t *plain, size_t len, struct auth_token *out)
{
	struct auth_token token = { 0 };
	size_t key_len = len < 2 ? 0 : get_be16(plain);

	if (key_len < MAC_MIN || key_len > sizeof(token.key.bytes) ||
	    len != 2 + key_len + STAMP_LEN + LIFE_LEN)
		return -EBADMSG;
	token.key.len = key_len;
	memcpy(token.key.bytes, plain + 2, key_len);
	plain += 2 + key_len;
	token.begin_s =
		((uint64_t)get_be32(plain) << 32 | get_be32(plain + 4)) >>
		FRACTION;
	token.end_s = token.begin_s + get_be32(plain + STAMP_LEN);
	*out = token;
	crypto_wipe(&token, sizeof(token));
	return 0;
}

int auth_token_open(const struct token_key *key, const char *server,
		    const uint8_t *value, size_t len, struct auth_token *out)
{
	size_t nonce_len = len < 2 ? 0 : get_be16(value);
	const struct crypto_aead aead = {
		.key = key->key,
		.key_len = key->len,
		.nonce = value + 2,
		.nonce_len = nonce_len,
		.bound = server,
		.bound_len = strlen(server),
	};
	uint8_t plain[PLAIN_MAX];
	size_t sealed;
	int error;

	if (!nonce_len || nonce_len > NONCE_MAX || len - 2 < nonce_len)
		return -EBADMSG;
	sealed = len - 2 - nonce_len;
	if (sealed < CRYPTO_TAG_LEN || sealed - CRYPTO_TAG_LEN > sizeof(plain))
		return -EBADMSG;
	error = crypto_unseal(&aead, value + 2 + nonce_len, sealed, plain);
	if (!error)
		error = auth_token_read(plain, sealed - CRYPTO_TAG_LEN, out);
	crypto_wipe(plain, sizeof(plain));
	return error;
}

const struct token_key *auth_token_key_find(const struct realm *realm,
					    const struct stun_attr *id)
{
	for (size_t i = 0; i < realm->token_key_count; i++) {
		const struct token_key *key = &realm->token_keys[i];

		if (strlen(key->id) == id->len &&
		    memcmp(key->id, id->value, id->len) == 0)
			return key;
	}
	return NULL;
}

int auth_token_user(const struct token_key *key, const struct stun_key *mac,
		    char out[AUTH_NAME_MAX + 1])
{
	const struct iovec part = { (void *)mac->bytes, mac->len };
	uint8_t sum[CRYPTO_SHA256_LEN];
	int error = crypto_sha256(&part, 1, sum);
	size_t len;

	if (error)
		return error;
	len = (size_t)snprintf(out, AUTH_NAME_MAX + 1, "%s/", key->id);
	for (size_t i = 0; i < DIGEST_HEX / 2; i++)
		len += (size_t)snprintf(out + len, 3, "%02x", sum[i]);
	crypto_wipe(sum, sizeof(sum));
	return 0;
}

int auth_add_oauth(struct auth *auth, const char *realm_name,
		   const char *server, uint64_t skew_s)
{
	struct realm *realm =
		auth_realm_find(auth, realm_name, strlen(realm_name));

	if (!realm)
		return -ENOENT;
	if (!*server || realm->oauth)
		return -EINVAL;
	realm->oauth = strdup(server);
	realm->oauth_skew_s = skew_s;
	return realm->oauth ? 0 : -ENOMEM;
}

int auth_add_oauth_key(struct auth *auth, const char *realm_name,
		       const char *text)
{
	struct realm *realm =
		auth_realm_find(auth, realm_name, strlen(realm_name));
	int error;

	if (!realm)
		return -ENOENT;
	if (realm->token_key_count == AUTH_SECRETS_MAX)
		return -EINVAL;
	error = auth_token_key_read(text,
				    &realm->token_keys[realm->token_key_count]);
	if (!error)
		realm->token_key_count++;
	return error;
}
