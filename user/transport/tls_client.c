/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client's side of TLS. The server's certificate must be vouched for, by the
 * system's authorities or by those of one file, and be for the name (or address)
 * that was asked for.
 */
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "transport/tls_internal.h"

struct tls_client {
	_Atomic unsigned int refs;
	SSL_CTX *context;
};

/* RFC 7443 */
static const unsigned char protocols[] = "\x09stun.turn";

static int authorities_load(SSL_CTX *context, const char *authorities)
{
	int ok = authorities ? SSL_CTX_load_verify_file(context, authorities) :
			       SSL_CTX_set_default_verify_paths(context);

	return ok == 1 ? 0 : -EINVAL;
}

int tls_client_new(const char *authorities, bool verify,
		   struct tls_client **out, const char **why)
{
	struct tls_client *client = calloc(1, sizeof(*client));
	int err;

	if (!client)
		return -ENOMEM;
	client->context = SSL_CTX_new(TLS_client_method());
	if (!client->context) {
		free(client);
		return -ENOMEM;
	}
	atomic_init(&client->refs, 1);
	tls_context_init(client->context);
	tls_context_count(client->context);
	SSL_CTX_set_min_proto_version(client->context, TLS1_2_VERSION);
	SSL_CTX_set_alpn_protos(client->context, protocols,
				sizeof(protocols) - 1);
	SSL_CTX_set_verify(client->context,
			   verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
	err = verify ? authorities_load(client->context, authorities) : 0;
	if (err) {
		*why = tls_complaint();
		tls_client_unref(client);
		return err;
	}
	*out = client;
	return 0;
}

struct tls_client *tls_client_ref(struct tls_client *client)
{
	atomic_fetch_add(&client->refs, 1);
	return client;
}

void tls_client_unref(struct tls_client *client)
{
	if (!client || atomic_fetch_sub(&client->refs, 1) > 1)
		return;
	SSL_CTX_free(client->context);
	free(client);
}

static void client_release(void *owner)
{
	tls_client_unref(owner);
}

/* SNI is for names; an address stands in the certificate as such. */
static int name_expect(SSL *ssl, const char *name)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
	uint8_t address[sizeof(struct in6_addr)];

	if (inet_pton(AF_INET, name, address) == 1 ||
	    inet_pton(AF_INET6, name, address) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(param, name);
	X509_VERIFY_PARAM_set_hostflags(param,
					X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set_tlsext_host_name(ssl, name) == 1 &&
	       X509_VERIFY_PARAM_set1_host(param, name, 0) == 1;
}

int tls_connect(struct tls_client *client, int fd, const char *name,
		struct seal **out)
{
	SSL *ssl = SSL_new(client->context);
	int err = -ENOMEM;

	if (ssl && name_expect(ssl, name) == 1) {
		SSL_set_connect_state(ssl);
		err = tls_seal_new(ssl, fd, client, client_release, out);
	}
	if (err) {
		ERR_clear_error();
		SSL_free(ssl);
		return err;
	}
	tls_client_ref(client);
	return 0;
}
