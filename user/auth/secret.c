/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Time-limited credentials (the REST convention of WebRTC services): a service
 * shares a secret with this server and makes, without asking it,
 *
 *   user name  second of expiry since 1970, ":" and whom it is for (or neither)
 *   password   base64(HMAC-SHA1(secret, user name))
 *
 * Nothing is stored: the name says what the password must be. Whom it is for is
 * the user; two names for one are the same user with other times.
 *
 * The name was made by somebody else's program: what neither a log line nor a JSON
 * answer could carry, or what would pass for more of a line, is no name.
 */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "auth/internal.h"
#include "base/utf8.h"
#include "crypto/crypto.h"

/* 28 characters of base64 and NUL. */
#define PASSWORD_SIZE (4 * ((CRYPTO_SHA1_LEN + 2) / 3) + 1)

static bool text_ok(const char *text)
{
	const unsigned char *at = (const unsigned char *)text;
	size_t left = strlen(text), n;

	for (; left; at += n, left -= n) {
		n = utf8_text_len(at, left);
		if (!n || *at == ' ' || *at == '"')
			return false;
	}
	return true;
}

int auth_temporary_read(const char *name, struct auth_temporary *out)
{
	const char *at = name;
	uint64_t expires_s = 0;

	for (; isdigit((unsigned char)*at); at++)
		if (__builtin_mul_overflow(expires_s, 10u, &expires_s) ||
		    __builtin_add_overflow(expires_s, (uint64_t)(*at - '0'),
					   &expires_s))
			return -EINVAL;
	if (at == name || (*at && *at != ':') || !text_ok(name))
		return -EINVAL;
	out->expires_s = expires_s;
	out->user = *at && at[1] ? at + 1 : name;
	return 0;
}

int auth_temporary_key(const char *secret, const char *name, const char *realm,
		       enum stun_algorithm algorithm, struct stun_key *out)
{
	const struct iovec part = { (void *)name, strlen(name) };
	uint8_t sum[CRYPTO_SHA1_LEN];
	char password[PASSWORD_SIZE];
	int error = crypto_hmac_sha1(secret, strlen(secret), &part, 1, sum);

	if (error)
		return error;
	crypto_base64(sum, sizeof(sum), password);
	if (algorithm == STUN_ALGORITHM_SHA256) {
		out->len = STUN_SHA256_LEN;
		error = stun_long_term_key_sha256(name, realm, password,
						  out->bytes);
	} else {
		out->len = STUN_KEY_LEN;
		error = stun_long_term_key(name, realm, password, out->bytes);
	}
	crypto_wipe(sum, sizeof(sum));
	crypto_wipe(password, sizeof(password));
	return error;
}
