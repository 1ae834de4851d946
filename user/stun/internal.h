/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the stun room share. */
#ifndef STUN_INTERNAL_H
#define STUN_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "stun/stun.h"

#define STUN_ATTR_HEADER 4
/* Most bytes of attributes in a message: a multiple of four in 16 bits. */
#define STUN_MAX_ATTRS     65532
#define STUN_INTEGRITY_LEN 20
/* RFC 8489 14.6: how far MESSAGE-INTEGRITY-SHA256 may be cut. */
#define STUN_SHA256_MIN      16
#define STUN_ALGORITHM_LEN   4 /* number and length of the parameters */
#define STUN_FINGERPRINT_LEN 4

static inline size_t stun_padded(size_t len)
{
	return (len + 3) & ~(size_t)3;
}

/*
 * XORs address bytes with the cookie and the transaction identifier: the same
 * both ways.
 */
void stun_xor_bytes(uint8_t *bytes, size_t len, const uint8_t *txid);

/*
 * The HMAC-SHA1 of a message whose MESSAGE-INTEGRITY starts at `at`: over what
 * is before it, with a header length that ends behind it. Returns 0, -ENOMEM or
 * -EIO.
 */
int stun_integrity(const uint8_t *data, size_t at, const uint8_t *key,
		   size_t key_len, uint8_t out[STUN_INTEGRITY_LEN]);
/* The same for MESSAGE-INTEGRITY-SHA256 with a value of `len` bytes. */
int stun_integrity_sha256(const uint8_t *data, size_t at, size_t len,
			  const uint8_t *key, size_t key_len,
			  uint8_t out[STUN_SHA256_LEN]);

/* The value of FINGERPRINT for a message that starts it at `at`. */
uint32_t stun_fingerprint(const uint8_t *data, size_t at);

#endif
