/* SPDX-License-Identifier: BSD-2-Clause */
/* Digests: published vectors, pieces, threads, and an algorithm refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crypto/crypto.h"

static void from_hex(const char *hex, uint8_t *out, size_t len)
{
	assert_int_equal(strlen(hex), len * 2);
	for (size_t i = 0; i < len; i++) {
		char pair[3] = { hex[2 * i], hex[2 * i + 1], '\0' };

		out[i] = (uint8_t)strtoul(pair, NULL, 16);
	}
}

/* The text as one piece, and cut in three at every place with an empty piece. */
static size_t pieces(const char *text, size_t len, size_t cut,
		     struct iovec parts[3])
{
	parts[0] = (struct iovec){ (void *)text, cut };
	parts[1] = (struct iovec){ NULL, 0 };
	parts[2] = (struct iovec){ (void *)(text + cut), len - cut };
	return 3;
}

static void assert_md5(const char *text, const char *hex)
{
	uint8_t expected[CRYPTO_MD5_LEN], got[CRYPTO_MD5_LEN];
	size_t len = strlen(text);
	struct iovec parts[3];

	from_hex(hex, expected, sizeof(expected));
	for (size_t cut = 0; cut <= len; cut++) {
		size_t count = pieces(text, len, cut, parts);

		assert_int_equal(crypto_md5(parts, count, got), 0);
		assert_memory_equal(got, expected, sizeof(expected));
	}
}

static void assert_hmac(const char *key, size_t key_len, const char *text,
			const char *sha1, const char *sha256)
{
	uint8_t expected1[CRYPTO_SHA1_LEN], expected256[CRYPTO_SHA256_LEN];
	uint8_t got[CRYPTO_SHA256_LEN];
	size_t len = strlen(text);
	struct iovec parts[3];

	from_hex(sha1, expected1, sizeof(expected1));
	from_hex(sha256, expected256, sizeof(expected256));
	for (size_t cut = 0; cut <= len; cut++) {
		size_t count = pieces(text, len, cut, parts);

		assert_int_equal(
			crypto_hmac_sha1(key, key_len, parts, count, got), 0);
		assert_memory_equal(got, expected1, sizeof(expected1));
		assert_int_equal(
			crypto_hmac_sha256(key, key_len, parts, count, got), 0);
		assert_memory_equal(got, expected256, sizeof(expected256));
	}
}

static void md5_of_rfc_1321(void **state)
{
	(void)state;
	assert_md5("", "d41d8cd98f00b204e9800998ecf8427e");
	assert_md5("a", "0cc175b9c0f1b6a831c399e269772661");
	assert_md5("message digest", "f96b697d7cb7938d525a2f31aaf161d0");
	assert_md5("1234567890123456789012345678901234567890"
		   "1234567890123456789012345678901234567890",
		   "57edf4a22be3c955ac49da2e2107b67a");
}

static void sha256_of_fips_180(void **state)
{
	static const char text[] =
		"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
	uint8_t expected[CRYPTO_SHA256_LEN], got[CRYPTO_SHA256_LEN];
	struct iovec parts[3];

	(void)state;
	from_hex("248d6a61d20638b8e5c026930c3e6039"
		 "a33ce45964ff2167f6ecedd419db06c1",
		 expected, sizeof(expected));
	for (size_t cut = 0; cut < sizeof(text); cut++) {
		size_t count = pieces(text, sizeof(text) - 1, cut, parts);

		assert_int_equal(crypto_sha256(parts, count, got), 0);
		assert_memory_equal(got, expected, sizeof(expected));
	}
}

static void hmac_of_rfc_2202_and_4231(void **state)
{
	char key[131];

	(void)state;
	assert_hmac("Jefe", 4, "what do ya want for nothing?",
		    "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
		    "5bdcc146bf60754e6a042426089575c7"
		    "5a003f089d2739839dec58b964ec3843");
	memset(key, 0x0b, 20);
	assert_hmac(key, 20, "Hi There",
		    "b617318655057264e28bc0b6fb378c8ef146be00",
		    "b0344c61d8db38535ca8afceaf0bf12b"
		    "881dc200c9833da726e9376c2e32cff7");
	/* A key longer than the digest's block is digested first. */
	memset(key, 0xaa, 131);
	assert_hmac(key, 131,
		    "Test Using Larger Than Block-Size Key - Hash Key First",
		    "90d0dace1c1bdc957339307803160335bde6df2b",
		    "60e431591ee0b67f0d8a26aacbf5b77f"
		    "8e0bc6213728c5140546040f0ee37f54");
}

static void empty_key_is_not_the_last_key(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_hmac("Jefe", 4, "what do ya want for nothing?",
			    "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
			    "5bdcc146bf60754e6a042426089575c7"
			    "5a003f089d2739839dec58b964ec3843");
		assert_hmac(NULL, 0, "",
			    "fbdb1d1b18aa6c08324b7d64b71fb76370690e1d",
			    "b613679a0814d9ec772f95d778c35fc5"
			    "ff1697c493715653c6c712144292c5ad");
	}
}

static void no_pieces_are_an_empty_message(void **state)
{
	uint8_t expected[CRYPTO_MD5_LEN], got[CRYPTO_MD5_LEN];

	(void)state;
	from_hex("d41d8cd98f00b204e9800998ecf8427e", expected,
		 sizeof(expected));
	assert_int_equal(crypto_md5(NULL, 0, got), 0);
	assert_memory_equal(got, expected, sizeof(expected));
}

static void *digest_many(void *arg)
{
	uint8_t *sum = arg, got[CRYPTO_SHA1_LEN];
	char text[64];

	for (int i = 0; i < 2000; i++) {
		memset(text, i & 0xff, sizeof(text));
		const struct iovec part = { text, sizeof(text) };

		if (crypto_hmac_sha1(text, 16, &part, 1, got))
			return "a digest failed";
		for (size_t k = 0; k < sizeof(got); k++)
			sum[k] ^= (uint8_t)(got[k] + i);
		if (crypto_md5(&part, 1, got))
			return "a digest failed";
		for (size_t k = 0; k < CRYPTO_MD5_LEN; k++)
			sum[k] ^= (uint8_t)(got[k] + i);
	}
	return NULL;
}

static void threads_do_not_disturb_each_other(void **state)
{
	enum {
		THREADS = 4
	};
	uint8_t sums[THREADS + 1][CRYPTO_SHA1_LEN] = { { 0 } };
	pthread_t threads[THREADS];
	void *trouble;

	(void)state;
	assert_null(digest_many(sums[THREADS]));
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, digest_many,
						sums[i]),
				 0);
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], &trouble), 0);
		assert_null(trouble);
		assert_memory_equal(sums[i], sums[THREADS], CRYPTO_SHA1_LEN);
	}
}

/* In a process that never digested: every provider refuses every algorithm. */
static int refused_in_child(void)
{
	uint8_t out[CRYPTO_SHA256_LEN], before[sizeof(out)];
	const struct iovec part = { (void *)"x", 1 };

	memset(out, 0x5a, sizeof(out));
	memcpy(before, out, sizeof(out));
	if (!EVP_set_default_properties(NULL, "provider=none"))
		return 10;
	for (int i = 0; i < 2; i++) {
		if (crypto_md5(&part, 1, out) != -EIO)
			return 1;
		if (crypto_hmac_sha1("k", 1, &part, 1, out) != -EIO)
			return 2;
		if (crypto_sha256(&part, 1, out) != -EIO)
			return 6;
		if (crypto_hmac_sha256("k", 1, &part, 1, out) != -EIO)
			return 3;
	}
	if (memcmp(out, before, sizeof(out)) != 0)
		return 4;
	if (ERR_peek_error())
		return 5;
	return 0;
}

static void refused_algorithm_is_eio(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (pid == 0)
		_exit(refused_in_child());
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void base64_of_rfc_4648(void **state)
{
	static const char *const expected[] = {
		"", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy",
	};
	char got[9];

	(void)state;
	for (size_t len = 0; len <= 6; len++) {
		crypto_base64("foobar", len, got);
		assert_string_equal(got, expected[len]);
	}
}

/* Test case 4 of the GCM specification (McGrew, Viega), and 16 with 256 bits. */
static void seals_as_published(void **state)
{
	static const struct {
		size_t key_len;
		const char *key, *sealed;
	} cases[] = {
		{ 16, "feffe9928665731c6d6a8f9467308308",
		  "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
		  "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091"
		  "5bc94fbc3221a5db94fae95ae7121a47" },
		{ 32,
		  "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
		  "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
		  "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
		  "76fc6ece0f4e1768cddf8853bb2d551b" },
	};
	uint8_t key[32], nonce[12], bound[20], plain[60], want[76], got[76];

	(void)state;
	from_hex("cafebabefacedbaddecaf888", nonce, sizeof(nonce));
	from_hex("feedfacedeadbeeffeedfacedeadbeefabaddad2", bound,
		 sizeof(bound));
	from_hex(
		"d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
		"1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
		plain, sizeof(plain));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct crypto_aead aead = { key,   cases[i].key_len,
						  nonce, sizeof(nonce),
						  bound, sizeof(bound) };

		from_hex(cases[i].key, key, cases[i].key_len);
		from_hex(cases[i].sealed, want, sizeof(want));
		assert_int_equal(crypto_seal(&aead, plain, sizeof(plain), got),
				 0);
		assert_memory_equal(got, want, sizeof(want));
		memset(got, 0, sizeof(got));
		assert_int_equal(crypto_unseal(&aead, want, sizeof(want), got),
				 0);
		assert_memory_equal(got, plain, sizeof(plain));
	}
}

static void a_seal_that_was_changed_does_not_open(void **state)
{
	const uint8_t key[32] = { 1 }, other[32] = { 2 }, nonce[12] = { 3 };
	struct crypto_aead aead = { key, 32, nonce, 12, "bound", 5 };
	uint8_t sealed[5 + CRYPTO_TAG_LEN], out[5];

	(void)state;
	assert_int_equal(crypto_seal(&aead, "plain", 5, sealed), 0);
	for (size_t i = 0; i < sizeof(sealed) * 8; i++) {
		sealed[i / 8] ^= (uint8_t)(1 << i % 8);
		assert_int_equal(crypto_unseal(&aead, sealed, sizeof(sealed),
					       out),
				 -EBADMSG);
		sealed[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	for (size_t len = 0; len < sizeof(sealed); len++)
		assert_int_equal(crypto_unseal(&aead, sealed, len, out),
				 -EBADMSG);
	aead.bound_len = 4;
	assert_int_equal(crypto_unseal(&aead, sealed, sizeof(sealed), out),
			 -EBADMSG);
	aead.bound_len = 5;
	aead.key = other;
	assert_int_equal(crypto_unseal(&aead, sealed, sizeof(sealed), out),
			 -EBADMSG);
	aead.key_len = 24;
	assert_int_equal(crypto_seal(&aead, "plain", 5, sealed), -EINVAL);
	aead.key = key;
	aead.key_len = 32;
	assert_int_equal(crypto_unseal(&aead, sealed, sizeof(sealed), out), 0);
	assert_memory_equal(out, "plain", 5);
}

static void wipe_leaves_zeroes(void **state)
{
	uint8_t secret[33];

	(void)state;
	memset(secret, 0xff, sizeof(secret));
	crypto_wipe(secret, 32);
	for (size_t i = 0; i < 32; i++)
		assert_int_equal(secret[i], 0);
	assert_int_equal(secret[32], 0xff);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* First: it needs a process without fetched algorithms. */
		cmocka_unit_test(refused_algorithm_is_eio),
		cmocka_unit_test(md5_of_rfc_1321),
		cmocka_unit_test(sha256_of_fips_180),
		cmocka_unit_test(hmac_of_rfc_2202_and_4231),
		cmocka_unit_test(empty_key_is_not_the_last_key),
		cmocka_unit_test(no_pieces_are_an_empty_message),
		cmocka_unit_test(threads_do_not_disturb_each_other),
		cmocka_unit_test(base64_of_rfc_4648),
		cmocka_unit_test(seals_as_published),
		cmocka_unit_test(a_seal_that_was_changed_does_not_open),
		cmocka_unit_test(wipe_leaves_zeroes),
	};

	return cmocka_run_group_tests_name("crypto", tests, NULL, NULL);
}
