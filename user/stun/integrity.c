/* SPDX-License-Identifier: BSD-2-Clause */
/* MESSAGE-INTEGRITY, FINGERPRINT and the long-term key. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "crypto/crypto.h"
#include "stun/internal.h"

_Static_assert(STUN_INTEGRITY_LEN == CRYPTO_SHA1_LEN, "HMAC-SHA1");
_Static_assert(STUN_KEY_LEN == CRYPTO_MD5_LEN, "the key is an MD5 sum");

int stun_integrity(const uint8_t *data, size_t at, const uint8_t *key,
		   size_t key_len, uint8_t out[STUN_INTEGRITY_LEN])
{
	uint8_t header[STUN_HEADER_LEN];
	size_t end = at + STUN_ATTR_HEADER + STUN_INTEGRITY_LEN;
	/* Only the header differs from what was sent: the rest is not copied. */
	const struct iovec parts[] = {
		{ header, sizeof(header) },
		{ (void *)(data + STUN_HEADER_LEN), at - STUN_HEADER_LEN },
	};

	memcpy(header, data, sizeof(header));
	put_be16(header + 2, (uint16_t)(end - STUN_HEADER_LEN));
	return crypto_hmac_sha1(key, key_len, parts, 2, out);
}

int stun_check_integrity(const struct stun_msg *msg, const uint8_t *key,
			 size_t key_len)
{
	uint8_t expected[STUN_INTEGRITY_LEN];
	const uint8_t *attr = msg->data + msg->integrity_at;
	int error;

	if (!msg->integrity_at)
		return 0;
	if (get_be16(attr + 2) != STUN_INTEGRITY_LEN)
		return -EBADMSG;
	error = stun_integrity(msg->data, msg->integrity_at, key, key_len,
			       expected);
	if (error)
		return error;
	if (!crypto_equal(expected, attr + STUN_ATTR_HEADER, sizeof(expected)))
		return -EBADMSG;
	return 1;
}

int stun_check_fingerprint(const struct stun_msg *msg)
{
	const uint8_t *attr = msg->data + msg->fingerprint_at;

	if (!msg->fingerprint_at)
		return 0;
	if (get_be16(attr + 2) != STUN_FINGERPRINT_LEN)
		return -EBADMSG;
	if (get_be32(attr + STUN_ATTR_HEADER) !=
	    stun_fingerprint(msg->data, msg->fingerprint_at))
		return -EBADMSG;
	return 1;
}

int stun_long_term_key(const char *user, const char *realm,
		       const char *password, uint8_t out[STUN_KEY_LEN])
{
	const struct iovec parts[] = {
		{ (void *)user, strlen(user) },         { (void *)":", 1 },
		{ (void *)realm, strlen(realm) },       { (void *)":", 1 },
		{ (void *)password, strlen(password) },
	};

	return crypto_md5(parts, sizeof(parts) / sizeof(parts[0]), out);
}
