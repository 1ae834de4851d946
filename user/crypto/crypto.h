/* SPDX-License-Identifier: BSD-2-Clause */
/* Digests and seals for STUN and credentials (libcrypto behind it). */
#ifndef CRYPTO_CRYPTO_H
#define CRYPTO_CRYPTO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define CRYPTO_MD5_LEN    16
#define CRYPTO_SHA1_LEN   20
#define CRYPTO_SHA256_LEN 32

/*
 * Has libcrypto read its configuration, which may name modules to load. The first
 * digest does it, too: call it before a process confines itself.
 */
void crypto_init(void);

/* Each takes `count` pieces as one message. Returns 0 or -ENOMEM/-EIO. */
int crypto_md5(const struct iovec *parts, size_t count,
	       uint8_t out[CRYPTO_MD5_LEN]);
int crypto_sha256(const struct iovec *parts, size_t count,
		  uint8_t out[CRYPTO_SHA256_LEN]);
int crypto_hmac_sha1(const void *key, size_t key_len, const struct iovec *parts,
		     size_t count, uint8_t out[CRYPTO_SHA1_LEN]);
int crypto_hmac_sha256(const void *key, size_t key_len,
		       const struct iovec *parts, size_t count,
		       uint8_t out[CRYPTO_SHA256_LEN]);

/* Base64 with padding and a NUL: of `len` bytes 4 * ((len + 2) / 3) + 1. */
void crypto_base64(const void *data, size_t len, char *out);

#define CRYPTO_TAG_LEN 16

/* AES-GCM under one key and nonce, which no two messages may share. */
struct crypto_aead {
	const uint8_t *key;
	size_t key_len; /* 16 or 32 */
	const uint8_t *nonce;
	size_t nonce_len; /* 1 to 64; 12 is the usual */
	const void *bound; /* what the tag vouches for, too; not sealed */
	size_t bound_len;
};

/* Writes len + CRYPTO_TAG_LEN bytes. 0, -EINVAL (a length), -ENOMEM or -EIO. */
int crypto_seal(const struct crypto_aead *aead, const void *plain, size_t len,
		uint8_t *out);
/*
 * Of `len` sealed bytes writes len - CRYPTO_TAG_LEN. 0, or as above, or -EBADMSG:
 * not what crypto_seal has written under these.
 */
int crypto_unseal(const struct crypto_aead *aead, const uint8_t *sealed,
		  size_t len, uint8_t *out);

/* Overwrites a secret; not optimised away. */
void crypto_wipe(void *secret, size_t len);

#endif
