/* SPDX-License-Identifier: BSD-2-Clause */
/* Certificates made for a test. */
#ifndef UNIT_IDENTITY_H
#define UNIT_IDENTITY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "transport/tls.h"

#define PEM_ROOM 4096

/* PEM texts of a certificate and its key. */
struct identity {
	char certificate[PEM_ROOM], key[PEM_ROOM];
	struct tls_pair pair;
};

static inline void pem_take(BIO *pem, char out[PEM_ROOM])
{
	int len = BIO_read(pem, out, PEM_ROOM - 1);

	assert_true(len > 0);
	out[len] = '\0';
	BIO_free(pem);
}

/* Takes the key over. */
static inline void identity_of(struct identity *out, const char *name,
			       EVP_PKEY *key)
{
	X509 *x509 = X509_new();
	X509_NAME *subject = X509_get_subject_name(x509);
	BIO *pem = BIO_new(BIO_s_mem());

	ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
	X509_gmtime_adj(X509_getm_notBefore(x509), 0);
	X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
	X509_set_pubkey(x509, key);
	X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
				   (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(x509, subject);
	assert_true(X509_sign(x509, key, EVP_sha256()) > 0);
	assert_int_equal(PEM_write_bio_X509(pem, x509), 1);
	pem_take(pem, out->certificate);
	pem = BIO_new(BIO_s_mem());
	assert_int_equal(PEM_write_bio_PrivateKey(pem, key, NULL, NULL, 0, NULL,
						  NULL),
			 1);
	pem_take(pem, out->key);
	out->pair = (struct tls_pair){ out->certificate,
				       strlen(out->certificate), out->key,
				       strlen(out->key) };
	X509_free(x509);
	EVP_PKEY_free(key);
}

static inline void identity_make(struct identity *out, const char *name)
{
	identity_of(out, name, EVP_EC_gen("P-256"));
}

/* A chain of so many certificates: copies of its own. */
static inline void identity_lengthen(struct identity *identity, size_t count)
{
	const size_t len = strlen(identity->certificate);

	assert_true(count * len < PEM_ROOM);
	for (size_t i = 1; i < count; i++)
		memcpy(identity->certificate + i * len, identity->certificate,
		       len);
	identity->certificate[count * len] = '\0';
	identity->pair.certificate_len = count * len;
}

#endif
