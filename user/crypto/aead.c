/* SPDX-License-Identifier: BSD-2-Clause */
/* AES-GCM over libcrypto: what only we, or who shares a key with us, could write. */
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdbool.h>

#include "crypto/crypto.h"

static const EVP_CIPHER *cipher_of(const struct crypto_aead *aead)
{
	switch (aead->key_len) {
	case 16:
		return EVP_aes_128_gcm();
	case 32:
		return EVP_aes_256_gcm();
	default:
		return NULL;
	}
}

/* Key, nonce and what is bound in. */
static bool aead_begin(EVP_CIPHER_CTX *ctx, const struct crypto_aead *aead,
		       bool seal)
{
	int len;

	return EVP_CipherInit_ex(ctx, cipher_of(aead), NULL, NULL, NULL,
				 seal) == 1 &&
	       EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IVLEN,
				   (int)aead->nonce_len, NULL) == 1 &&
	       EVP_CipherInit_ex(ctx, NULL, NULL, aead->key, aead->nonce, -1) ==
		       1 &&
	       (!aead->bound_len ||
		EVP_CipherUpdate(ctx, NULL, &len, aead->bound,
				 (int)aead->bound_len) == 1);
}

static bool lengths_ok(const struct crypto_aead *aead, size_t len)
{
	return cipher_of(aead) && aead->nonce_len && aead->nonce_len <= 64 &&
	       aead->bound_len <= INT_MAX && len <= INT_MAX;
}

static int seal(EVP_CIPHER_CTX *ctx, const struct crypto_aead *aead,
		const void *plain, size_t len, uint8_t *out)
{
	int done, last;

	if (!aead_begin(ctx, aead, true) ||
	    EVP_CipherUpdate(ctx, out, &done, plain, (int)len) != 1 ||
	    EVP_CipherFinal_ex(ctx, out + done, &last) != 1 ||
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, CRYPTO_TAG_LEN,
				out + len) != 1)
		return -EIO;
	return 0;
}

static int unseal(EVP_CIPHER_CTX *ctx, const struct crypto_aead *aead,
		  const uint8_t *sealed, size_t len, uint8_t *out)
{
	int done, last;

	if (!aead_begin(ctx, aead, false) ||
	    EVP_CipherUpdate(ctx, out, &done, sealed, (int)len) != 1 ||
	    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, CRYPTO_TAG_LEN,
				(void *)(sealed + len)) != 1)
		return -EIO;
	/* Only now is it known whose it is. */
	if (EVP_CipherFinal_ex(ctx, out + done, &last) == 1)
		return 0;
	crypto_wipe(out, len);
	return -EBADMSG;
}

int crypto_seal(const struct crypto_aead *aead, const void *plain, size_t len,
		uint8_t *out)
{
	EVP_CIPHER_CTX *ctx;
	int err;

	if (!lengths_ok(aead, len))
		return -EINVAL;
	ctx = EVP_CIPHER_CTX_new();
	if (!ctx)
		return -ENOMEM;
	err = seal(ctx, aead, plain, len, out);
	EVP_CIPHER_CTX_free(ctx);
	ERR_clear_error();
	return err;
}

int crypto_unseal(const struct crypto_aead *aead, const uint8_t *sealed,
		  size_t len, uint8_t *out)
{
	EVP_CIPHER_CTX *ctx;
	int err;

	if (len < CRYPTO_TAG_LEN)
		return -EBADMSG;
	len -= CRYPTO_TAG_LEN;
	if (!lengths_ok(aead, len))
		return -EINVAL;
	ctx = EVP_CIPHER_CTX_new();
	if (!ctx)
		return -ENOMEM;
	err = unseal(ctx, aead, sealed, len, out);
	EVP_CIPHER_CTX_free(ctx);
	ERR_clear_error();
	return err;
}
