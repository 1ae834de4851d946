/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Keys of session tickets. Who gets hold of one can read the sessions of TLS 1.2
 * whose tickets it has sealed, so none is kept longer than two TICKETS_MS. They are
 * changed by whoever needs one when it is time; contexts belong to all workers.
 */
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/random.h"
#include "transport/tls_internal.h"

struct tls_tickets {
	pthread_mutex_t lock;
	struct tls_ticket_key keys[2]; /* in use, before */
	bool has_before;
	uint64_t made_ms; /* the one in use; 0: there is none */
};

int tls_tickets_new(struct tls_tickets **out)
{
	struct tls_tickets *tickets = calloc(1, sizeof(*tickets));

	if (!tickets)
		return -ENOMEM;
	pthread_mutex_init(&tickets->lock, NULL);
	*out = tickets;
	return 0;
}

void tls_tickets_free(struct tls_tickets *tickets)
{
	if (!tickets)
		return;
	pthread_mutex_destroy(&tickets->lock);
	OPENSSL_cleanse(tickets, sizeof(*tickets));
	free(tickets);
}

/* With the lock held. */
static void keys_change(struct tls_tickets *tickets, uint64_t now_ms)
{
	const uint64_t age = now_ms - tickets->made_ms;

	if (tickets->made_ms && age < TICKETS_MS)
		return;
	tickets->has_before = tickets->made_ms && age < 2 * TICKETS_MS;
	if (tickets->has_before)
		tickets->keys[1] = tickets->keys[0];
	else
		OPENSSL_cleanse(&tickets->keys[1], sizeof(tickets->keys[1]));
	random_bytes(&tickets->keys[0], sizeof(tickets->keys[0]));
	tickets->made_ms = now_ms;
}

void tls_tickets_current(struct tls_tickets *tickets, uint64_t now_ms,
			 struct tls_ticket_key *out)
{
	pthread_mutex_lock(&tickets->lock);
	keys_change(tickets, now_ms);
	*out = tickets->keys[0];
	pthread_mutex_unlock(&tickets->lock);
}

int tls_tickets_find(struct tls_tickets *tickets, uint64_t now_ms,
		     const uint8_t name[16], struct tls_ticket_key *out)
{
	int found = 0;

	pthread_mutex_lock(&tickets->lock);
	keys_change(tickets, now_ms);
	for (int i = 0; i < 1 + tickets->has_before && !found; i++)
		if (memcmp(tickets->keys[i].name, name,
			   sizeof(tickets->keys[i].name)) == 0) {
			*out = tickets->keys[i];
			found = i + 1;
		}
	pthread_mutex_unlock(&tickets->lock);
	return found;
}

static bool mac_init(EVP_MAC_CTX *mac, const struct tls_ticket_key *key)
{
	static char digest[] = "SHA256";
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest,
						 0),
		OSSL_PARAM_construct_end(),
	};

	return EVP_MAC_init(mac, key->mac, sizeof(key->mac), params) == 1;
}

/* As SSL_CTX_set_tlsext_ticket_key_evp_cb(3) wants it: -1 an error, 0 no ticket. */
static int ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv,
		      EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int sealing)
{
	struct tls_tickets *tickets =
		SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	struct tls_ticket_key key = { 0 };
	int result = 1;

	if (sealing) {
		tls_tickets_current(tickets, clock_ms(), &key);
		memcpy(name, key.name, sizeof(key.name));
		random_bytes(iv, 16); /* the block of AES */
	} else {
		result = tls_tickets_find(tickets, clock_ms(), name, &key);
	}
	if (result && (EVP_CipherInit_ex2(cipher, EVP_aes_256_cbc(), key.cipher,
					  iv, sealing, NULL) != 1 ||
		       !mac_init(mac, &key)))
		result = -1;
	OPENSSL_cleanse(&key, sizeof(key));
	return result;
}

void tls_tickets_use(struct tls_tickets *tickets, SSL_CTX *context)
{
	SSL_CTX_set_app_data(context, tickets);
	SSL_CTX_set_timeout(context, TICKETS_MS / 1000);
	SSL_CTX_set_tlsext_ticket_key_evp_cb(context, ticket_key);
}
