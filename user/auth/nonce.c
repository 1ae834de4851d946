/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stateless nonces: the second they were made in, what was offered beside them,
 * random bytes that set each apart, and a keyed digest that proves they are ours,
 * in hexadecimal behind the nonce cookie.
 *
 * Nothing is stored per client. Of a connection nothing of the 5-tuple goes in:
 * RFC 6062 clients use the control connection's nonce on their data connections.
 * Of datagrams the client's host does: who forges a source is not shown the nonce
 * that goes there, and his own would let him guess passwords past the limit, or
 * have peers' data sent to a third party. Its port does not: a client may use one
 * nonce for several allocations.
 *
 * Two clients must not be given the same one (RFC 8489 9.2.4), hence the salt. The
 * offer goes in so that the list a client sends back can be held against the one
 * it was given, also when a reload has changed it since.
 */
#include <errno.h>
#include <string.h>

#include "auth/internal.h"
#include "base/bytes.h"
#include "base/random.h"
#include "base/secret.h"
#include "crypto/crypto.h"

#define TIME_LEN  5 /* seconds until the year 36812 */
#define OFFER_LEN 1
#define SALT_LEN  7
#define CLAIM_LEN (TIME_LEN + OFFER_LEN + SALT_LEN)
#define MAC_LEN \
	12 /* of the digest's 32 bytes: a guess has one chance in 2^96 */
#define RAW_LEN (CLAIM_LEN + MAC_LEN)
/*
 * RFC 8489 9.2: a server of that specification says so at the start of its
 * nonces, with 24 bits in base64 for the security features it uses. The first
 * bit says that PASSWORD-ALGORITHMS comes along, the next one asks for USERHASH
 * (18.1); a nonce without them is not ours, so taking them off gains nobody
 * anything.
 */
#define COOKIE           "obMatJos2"
#define COOKIE_ALGORITHM "gAAA"
#define COOKIE_ANONYMITY "wAAA"
#define COOKIE_LEN       (sizeof(COOKIE) - 1 + sizeof(COOKIE_ALGORITHM) - 1)
#define TEXT_LEN         (COOKIE_LEN + (size_t)2 * RAW_LEN)

/* A nonce from the future is a forgery or a clock set back: little is let by. */
#define SKEW_S 5

_Static_assert(TEXT_LEN < AUTH_NONCE_MAX, "the text and its NUL fit");

static void time_put(uint8_t out[TIME_LEN], uint64_t time_s)
{
	out[0] = (uint8_t)(time_s >> 32);
	put_be32(out + 1, (uint32_t)time_s);
}

static uint64_t time_get(const uint8_t in[TIME_LEN])
{
	return (uint64_t)in[0] << 32 | get_be32(in + 1);
}

/* The nonce that has this time, offer and salt, for this host. */
static int nonce_text(const struct auth_params *params, const union addr *from,
		      const uint8_t claim[CLAIM_LEN], char text[TEXT_LEN])
{
	static const char digits[] = "0123456789abcdef";
	uint8_t raw[CLAIM_LEN + CRYPTO_SHA256_LEN];
	size_t len = 0;
	const uint8_t *host = from ? addr_bytes(from, &len) : NULL;
	const struct iovec parts[] = {
		{ raw, CLAIM_LEN },
		{ (void *)"nonce", 5 },
		{ (void *)host, len },
	};
	int error;

	memcpy(raw, claim, CLAIM_LEN);
	error = crypto_hmac_sha256(params->nonce_secret,
				   sizeof(params->nonce_secret), parts,
				   host ? 3 : 2, raw + CLAIM_LEN);
	if (error)
		return error;
	memcpy(text, COOKIE, sizeof(COOKIE) - 1);
	memcpy(text + sizeof(COOKIE) - 1,
	       claim[TIME_LEN] & AUTH_OFFER_ANONYMITY ? COOKIE_ANONYMITY :
							COOKIE_ALGORITHM,
	       sizeof(COOKIE_ALGORITHM) - 1);
	text += COOKIE_LEN;
	for (size_t i = 0; i < RAW_LEN; i++) {
		text[2 * i] = digits[raw[i] >> 4];
		text[2 * i + 1] = digits[raw[i] & 0xf];
	}
	return 0;
}

int auth_nonce_make(const struct auth_params *params, uint64_t now_s,
		    const union addr *from, unsigned int offer,
		    char out[AUTH_NONCE_MAX])
{
	uint8_t claim[CLAIM_LEN];
	char text[TEXT_LEN];
	int error;

	time_put(claim, now_s);
	claim[TIME_LEN] = (uint8_t)offer;
	random_bytes(claim + TIME_LEN + OFFER_LEN, SALT_LEN);
	error = nonce_text(params, from, claim, text);
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

/* What a nonce claims; false when it is not hexadecimal as we write it. */
static bool nonce_claim(const uint8_t *nonce, uint8_t claim[CLAIM_LEN])
{
	const uint8_t *hex = nonce + COOKIE_LEN;

	for (size_t i = 0; i < CLAIM_LEN; i++) {
		int high = digit_value(hex[2 * i]);
		int low = digit_value(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		claim[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

int auth_nonce_check(const struct auth_params *params, uint64_t now_s,
		     const union addr *from, const uint8_t *nonce, size_t len,
		     unsigned int *offer)
{
	uint8_t claim[CLAIM_LEN];
	char expected[TEXT_LEN];
	uint64_t time_s;
	int error;

	if (len != TEXT_LEN || !nonce_claim(nonce, claim))
		return -EKEYREVOKED;
	error = nonce_text(params, from, claim, expected);
	if (error)
		return error;
	if (!secret_equal(nonce, expected, TEXT_LEN))
		return -EKEYREVOKED;
	*offer = claim[TIME_LEN];
	time_s = time_get(claim);
	if (time_s > now_s)
		return time_s - now_s > SKEW_S ? -EKEYEXPIRED : 0;
	return now_s - time_s > params->nonce_lifetime_s ? -EKEYEXPIRED : 0;
}
