/* SPDX-License-Identifier: BSD-2-Clause */
/* The integrity attributes, FINGERPRINT, long-term keys and USERHASH. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/secret.h"
#include "crypto/crypto.h"
#include "stun/internal.h"

_Static_assert(STUN_INTEGRITY_LEN == CRYPTO_SHA1_LEN, "HMAC-SHA1");
_Static_assert(STUN_KEY_LEN == CRYPTO_MD5_LEN, "the key is an MD5 sum");
_Static_assert(STUN_SHA256_LEN == CRYPTO_SHA256_LEN, "HMAC-SHA256");

/*
 * What is digested for an attribute at `at` with a value of `len` bytes: only
 * the header differs from what was sent, so the rest is not copied.
 */
static void covered(const uint8_t *data, size_t at, size_t len,
		    uint8_t header[STUN_HEADER_LEN], struct iovec parts[2])
{
	memcpy(header, data, STUN_HEADER_LEN);
	put_be16(header + 2,
		 (uint16_t)(at + STUN_ATTR_HEADER + len - STUN_HEADER_LEN));
	parts[0] = (struct iovec){ header, STUN_HEADER_LEN };
	parts[1] = (struct iovec){ (void *)(data + STUN_HEADER_LEN),
				   at - STUN_HEADER_LEN };
}

int stun_integrity(const uint8_t *data, size_t at, const uint8_t *key,
		   size_t key_len, uint8_t out[STUN_INTEGRITY_LEN])
{
	uint8_t header[STUN_HEADER_LEN];
	struct iovec parts[2];

	covered(data, at, STUN_INTEGRITY_LEN, header, parts);
	return crypto_hmac_sha1(key, key_len, parts, 2, out);
}

int stun_integrity_sha256(const uint8_t *data, size_t at, size_t len,
			  const uint8_t *key, size_t key_len,
			  uint8_t out[STUN_SHA256_LEN])
{
	uint8_t header[STUN_HEADER_LEN];
	struct iovec parts[2];

	covered(data, at, len, header, parts);
	return crypto_hmac_sha256(key, key_len, parts, 2, out);
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
	if (!secret_equal(expected, attr + STUN_ATTR_HEADER, sizeof(expected)))
		return -EBADMSG;
	return 1;
}

int stun_check_integrity_sha256(const struct stun_msg *msg, const uint8_t *key,
				size_t key_len, size_t min)
{
	uint8_t expected[STUN_SHA256_LEN];
	const uint8_t *attr = msg->data + msg->integrity_sha256_at;
	size_t len;
	int error;

	if (!msg->integrity_sha256_at)
		return 0;
	len = get_be16(attr + 2);
	if (len < STUN_SHA256_MIN || len < min || len > STUN_SHA256_LEN ||
	    len % 4)
		return -EBADMSG;
	error = stun_integrity_sha256(msg->data, msg->integrity_sha256_at, len,
				      key, key_len, expected);
	if (error)
		return error;
	if (!secret_equal(expected, attr + STUN_ATTR_HEADER, len))
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

/* user ":" realm ":" password */
static void credentials(const char *user, const char *realm,
			const char *password, struct iovec parts[5])
{
	parts[0] = (struct iovec){ (void *)user, strlen(user) };
	parts[1] = (struct iovec){ (void *)":", 1 };
	parts[2] = (struct iovec){ (void *)realm, strlen(realm) };
	parts[3] = (struct iovec){ (void *)":", 1 };
	parts[4] = (struct iovec){ (void *)password, strlen(password) };
}

int stun_long_term_key(const char *user, const char *realm,
		       const char *password, uint8_t out[STUN_KEY_LEN])
{
	struct iovec parts[5];

	credentials(user, realm, password, parts);
	return crypto_md5(parts, 5, out);
}

int stun_long_term_key_sha256(const char *user, const char *realm,
			      const char *password,
			      uint8_t out[STUN_SHA256_LEN])
{
	struct iovec parts[5];

	credentials(user, realm, password, parts);
	return crypto_sha256(parts, 5, out);
}

int stun_userhash(const void *user, size_t user_len, const void *realm,
		  size_t realm_len, uint8_t out[STUN_SHA256_LEN])
{
	const struct iovec parts[] = {
		{ (void *)user, user_len },
		{ (void *)":", 1 },
		{ (void *)realm, realm_len },
	};

	return crypto_sha256(parts, 3, out);
}
