/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stateless nonces: the second they were made in, and a keyed digest that proves
 * they are ours, both in hexadecimal behind the nonce cookie.
 *
 * Nothing is stored per client, and nothing of the 5-tuple goes in: RFC 6062
 * clients use the control connection's nonce on their data connections.
 */
#include <errno.h>
#include <string.h>

#include "auth/internal.h"
#include "base/bytes.h"
#include "crypto/crypto.h"

#define TIME_LEN 8
#define MAC_LEN  16 /* of the digest's 32 bytes: forging takes 2^128 tries */
#define RAW_LEN  (TIME_LEN + MAC_LEN)
/*
 * RFC 8489 9.2: a server of that specification says so at the start of its
 * nonces, with 24 bits in base64 for the security features it uses: none.
 */
#define COOKIE      \
	"obMatJos2" \
	"AAAA"
#define COOKIE_LEN (sizeof(COOKIE) - 1)
#define TEXT_LEN   (COOKIE_LEN + (size_t)2 * RAW_LEN)

/* A nonce from the future is a forgery or a clock set back: little is let by. */
#define SKEW_S 5

_Static_assert(TEXT_LEN < AUTH_NONCE_MAX, "the text and its NUL fit");

static int nonce_text(const struct auth_params *params, uint64_t time_s,
		      char text[TEXT_LEN])
{
	static const char digits[] = "0123456789abcdef";
	uint8_t raw[TIME_LEN + CRYPTO_SHA256_LEN];
	const struct iovec parts[] = {
		{ raw, TIME_LEN },
		{ (void *)"nonce", 5 },
	};
	int error;

	put_be64(raw, time_s);
	error = crypto_hmac_sha256(params->nonce_secret,
				   sizeof(params->nonce_secret), parts, 2,
				   raw + TIME_LEN);
	if (error)
		return error;
	memcpy(text, COOKIE, COOKIE_LEN);
	text += COOKIE_LEN;
	for (size_t i = 0; i < RAW_LEN; i++) {
		text[2 * i] = digits[raw[i] >> 4];
		text[2 * i + 1] = digits[raw[i] & 0xf];
	}
	return 0;
}

int auth_nonce_make(const struct auth_params *params, uint64_t now_s,
		    char out[AUTH_NONCE_MAX])
{
	char text[TEXT_LEN];
	int error = nonce_text(params, now_s, text);

	if (error)
		return error;
	memcpy(out, text, TEXT_LEN);
	out[TEXT_LEN] = '\0';
	return 0;
}

/* The value of a digit as we write it; -1: it is none. */
static int digit_value(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* The second a nonce claims; false when it is not hexadecimal as we write it. */
static bool nonce_time(const uint8_t *nonce, uint64_t *out)
{
	const uint8_t *hex = nonce + COOKIE_LEN;
	uint64_t time_s = 0;

	for (size_t i = 0; i < (size_t)2 * TIME_LEN; i++) {
		int digit = digit_value(hex[i]);

		if (digit < 0)
			return false;
		time_s = time_s << 4 | (uint64_t)digit;
	}
	*out = time_s;
	return true;
}

int auth_nonce_check(const struct auth_params *params, uint64_t now_s,
		     const uint8_t *nonce, size_t len)
{
	char expected[TEXT_LEN];
	uint64_t time_s;
	int error;

	if (len != TEXT_LEN || !nonce_time(nonce, &time_s))
		return -EKEYEXPIRED;
	if (time_s > now_s ? time_s - now_s > SKEW_S :
			     now_s - time_s > params->nonce_lifetime_s)
		return -EKEYEXPIRED;
	error = nonce_text(params, time_s, expected);
	if (error)
		return error;
	return crypto_equal(nonce, expected, TEXT_LEN) ? 0 : -EKEYEXPIRED;
}
