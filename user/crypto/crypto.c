/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Digests over libcrypto.
 *
 * Looking an algorithm up costs more than digesting a STUN message, so the
 * process fetches each once, and each thread keeps one context per algorithm
 * that is initialised anew for every message. A thread's contexts are made at
 * its first digest, and freed when it ends or, for the thread that calls exit(),
 * by an exit handler. That handler is registered after libcrypto's own, hence
 * runs before it.
 *
 * What may fail: a provider that does not have the algorithm (MD5 under FIPS)
 * is -EIO at every call, a context that cannot be made is -ENOMEM at this call.
 */
#include "crypto/crypto.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Fetched once; NULL where no provider has it. */
static EVP_MD *md5, *sha256;
static EVP_MAC *hmac;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t thread_key;
static bool thread_key_made;

struct contexts {
	EVP_MD_CTX *md5, *sha256;
	EVP_MAC_CTX *hmac_sha1;
	EVP_MAC_CTX *hmac_sha256;
};

static _Thread_local struct contexts mine;

static void contexts_free(void *arg)
{
	struct contexts *contexts = arg;

	EVP_MD_CTX_free(contexts->md5);
	EVP_MD_CTX_free(contexts->sha256);
	EVP_MAC_CTX_free(contexts->hmac_sha1);
	EVP_MAC_CTX_free(contexts->hmac_sha256);
	*contexts = (struct contexts){ 0 };
}

static void process_exit(void)
{
	contexts_free(&mine);
	EVP_MD_free(md5);
	EVP_MD_free(sha256);
	EVP_MAC_free(hmac);
	md5 = sha256 = NULL;
	hmac = NULL;
}

static void process_init(void)
{
	md5 = EVP_MD_fetch(NULL, "MD5", NULL);
	sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	thread_key_made = pthread_key_create(&thread_key, contexts_free) == 0;
	/* Without a handler the contexts stay until the process is gone. */
	(void)atexit(process_exit);
}

/*
 * A failed digest must leave nothing on the thread's error queue: TLS code asks
 * that queue whether its own last call failed.
 */
static int fail(int error)
{
	ERR_clear_error();
	return error;
}

void crypto_init(void)
{
	pthread_once(&once, process_init);
}

/* This thread's contexts, whose freeing is arranged; NULL without memory. */
static struct contexts *contexts_get(void)
{
	crypto_init();
	if (!thread_key_made || pthread_setspecific(thread_key, &mine))
		return NULL;
	return &mine;
}

/* Makes *slot an HMAC context over `digest`, without a key yet. */
static int hmac_make(EVP_MAC_CTX **slot, const char *digest)
{
	char *name = (char *)digest; /* libcrypto only reads it */
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name,
						 0),
		OSSL_PARAM_construct_end(),
	};
	EVP_MAC_CTX *ctx;

	if (!contexts_get())
		return -ENOMEM;
	if (!hmac)
		return -EIO;
	ctx = EVP_MAC_CTX_new(hmac);
	if (!ctx)
		return -ENOMEM;
	if (!EVP_MAC_CTX_set_params(ctx, params)) {
		EVP_MAC_CTX_free(ctx);
		return -EIO;
	}
	*slot = ctx;
	return 0;
}

static int digest_make(EVP_MD_CTX **slot)
{
	if (!contexts_get())
		return -ENOMEM;
	*slot = EVP_MD_CTX_new();
	return *slot ? 0 : -ENOMEM;
}

static int hmac_run(EVP_MAC_CTX *ctx, const void *key, size_t key_len,
		    const struct iovec *parts, size_t count, uint8_t *out,
		    size_t out_len)
{
	uint8_t digest[CRYPTO_SHA256_LEN];
	size_t len = 0;

	/* A NULL key would mean "the key of last time". */
	if (!EVP_MAC_init(ctx, key_len ? key : "", key_len, NULL))
		return fail(-EIO);
	for (size_t i = 0; i < count; i++)
		if (!EVP_MAC_update(ctx, parts[i].iov_base, parts[i].iov_len))
			return fail(-EIO);
	if (!EVP_MAC_final(ctx, digest, &len, sizeof(digest)) || len != out_len)
		return fail(-EIO);
	memcpy(out, digest, out_len);
	return 0;
}

static int digest_run(EVP_MD_CTX *ctx, const EVP_MD *type,
		      const struct iovec *parts, size_t count, uint8_t *out,
		      size_t out_len)
{
	uint8_t digest[EVP_MAX_MD_SIZE];

	if (!type || !EVP_DigestInit_ex2(ctx, type, NULL))
		return fail(-EIO);
	for (size_t i = 0; i < count; i++)
		if (!EVP_DigestUpdate(ctx, parts[i].iov_base, parts[i].iov_len))
			return fail(-EIO);
	if (!EVP_DigestFinal_ex(ctx, digest, NULL))
		return fail(-EIO);
	memcpy(out, digest, out_len);
	crypto_wipe(digest, sizeof(digest)); /* it may be a user's key */
	return 0;
}

int crypto_md5(const struct iovec *parts, size_t count,
	       uint8_t out[CRYPTO_MD5_LEN])
{
	int error = mine.md5 ? 0 : digest_make(&mine.md5);

	if (error)
		return fail(error);
	return digest_run(mine.md5, md5, parts, count, out, CRYPTO_MD5_LEN);
}

int crypto_sha256(const struct iovec *parts, size_t count,
		  uint8_t out[CRYPTO_SHA256_LEN])
{
	int error = mine.sha256 ? 0 : digest_make(&mine.sha256);

	if (error)
		return fail(error);
	return digest_run(mine.sha256, sha256, parts, count, out,
			  CRYPTO_SHA256_LEN);
}

int crypto_hmac_sha1(const void *key, size_t key_len, const struct iovec *parts,
		     size_t count, uint8_t out[CRYPTO_SHA1_LEN])
{
	int error = mine.hmac_sha1 ? 0 : hmac_make(&mine.hmac_sha1, "SHA1");

	if (error)
		return fail(error);
	return hmac_run(mine.hmac_sha1, key, key_len, parts, count, out,
			CRYPTO_SHA1_LEN);
}

int crypto_hmac_sha256(const void *key, size_t key_len,
		       const struct iovec *parts, size_t count,
		       uint8_t out[CRYPTO_SHA256_LEN])
{
	int error = mine.hmac_sha256 ? 0 :
				       hmac_make(&mine.hmac_sha256, "SHA256");

	if (error)
		return fail(error);
	return hmac_run(mine.hmac_sha256, key, key_len, parts, count, out,
			CRYPTO_SHA256_LEN);
}

void crypto_base64(const void *data, size_t len, char *out)
{
	EVP_EncodeBlock((unsigned char *)out, data, (int)len);
}

void crypto_wipe(void *secret, size_t len)
{
	OPENSSL_cleanse(secret, len);
}
