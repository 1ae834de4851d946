/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The server's side of TLS: one context for each certificate, made whole from PEM
 * text in memory or not at all. Certificates of the same names with keys of different
 * kinds share one, and OpenSSL shows the client that which it can verify.
 *
 * A connection begins with the first context; when the client names a server (SNI)
 * the first one whose certificate has that name takes it over. Nobody is refused
 * for the name: a client that checks it will do so itself.
 *
 * Sessions are resumed by tickets alone, which the client keeps: nothing of a past
 * session is held here, and tickets end with the configuration they were made in, or
 * with the keys they were made by, see tls_tickets.c.
 */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "transport/tls_internal.h"

/* One of the certificates, and the context it is shown by: a reference to each. */
struct shown {
	X509 *certificate;
	SSL_CTX *context;
};

struct tls_server {
	_Atomic unsigned int refs;
	struct tls_tickets *tickets;
	size_t count;
	struct shown shown[]; /* in the order of the parameters */
};

static int fault_set(struct tls_fault *fault, enum tls_part part, size_t pair,
		     const char *text)
{
	fault->part = part;
	fault->pair = pair;
	snprintf(fault->text, sizeof(fault->text), "%s", text);
	ERR_clear_error();
	return -EINVAL;
}

/* A key under a passphrase would ask the terminal for it. */
static int no_passphrase(char *buf, int size, int writing, void *asked)
{
	(void)writing;
	if (size)
		*buf = '\0';
	*(bool *)asked = true;
	return -1;
}

static BIO *pem_open(const char *text, size_t len)
{
	return len <= INT32_MAX ? BIO_new_mem_buf(text, (int)len) : NULL;
}

/* The certificates behind the first: those that vouch for it. */
static int chain_use(SSL_CTX *context, BIO *pem)
{
	X509 *next;

	while ((next = PEM_read_bio_X509(pem, NULL, NULL, NULL)) != NULL)
		if (SSL_CTX_add0_chain_cert(context, next) != 1) {
			X509_free(next);
			return -EINVAL;
		}
	/* That nothing more is found is the end, all else an error. */
	return ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE ?
		       0 :
		       -EINVAL;
}

static int certificate_read(const struct tls_pair *pair, size_t number,
			    X509 **out, struct tls_fault *fault)
{
	BIO *pem = pem_open(pair->certificate, pair->certificate_len);
	X509 *first = pem ? PEM_read_bio_X509(pem, NULL, NULL, NULL) : NULL;

	BIO_free(pem);
	if (!first)
		return fault_set(fault, TLS_PART_CERTIFICATE, number,
				 "it holds no certificate in PEM form "
				 "(-----BEGIN CERTIFICATE-----)");
	*out = first;
	return 0;
}

static int certificate_use(const struct shown *shown,
			   const struct tls_pair *pair, size_t number,
			   struct tls_fault *fault)
{
	BIO *pem = pem_open(pair->certificate, pair->certificate_len);
	X509 *first = pem ? PEM_read_bio_X509(pem, NULL, NULL, NULL) : NULL;
	const char *why = NULL;

	if (SSL_CTX_use_certificate(shown->context, shown->certificate) != 1)
		why = tls_complaint();
	else if (!first || chain_use(shown->context, pem))
		why = "a certificate behind the first cannot be read";
	X509_free(first);
	BIO_free(pem);
	ERR_clear_error();
	return why ? fault_set(fault, TLS_PART_CERTIFICATE, number, why) : 0;
}

static int key_use(const struct shown *shown, const struct tls_pair *pair,
		   size_t number, struct tls_fault *fault)
{
	BIO *pem = pem_open(pair->key, pair->key_len);
	bool asked = false;
	EVP_PKEY *key = pem ? PEM_read_bio_PrivateKey(pem, NULL, no_passphrase,
						      &asked) :
			      NULL;
	const char *why = NULL;

	if (asked)
		why = "the key is protected by a passphrase: take that off "
		      "with openssl pkey";
	else if (!key)
		why = "it holds no private key in PEM form (-----BEGIN PRIVATE "
		      "KEY-----)";
	/* The context would take it for another of its certificates. */
	else if (X509_check_private_key(shown->certificate, key) != 1 ||
		 SSL_CTX_use_PrivateKey(shown->context, key) != 1)
		why = "the key does not belong to the certificate";
	EVP_PKEY_free(key);
	BIO_free(pem);
	ERR_clear_error();
	return why ? fault_set(fault, TLS_PART_KEY, number, why) : 0;
}

/* Those of TLS 1.3 have names of their own, and a list. */
static int ciphers_use(SSL_CTX *context, const char *ciphers,
		       struct tls_fault *fault)
{
	char list[2][1024] = { "", "" };
	const char *at = ciphers;
	int ok = 1;

	while (*at) {
		size_t len = strcspn(at, ":");
		char *to = list[strncmp(at, "TLS_", 4) == 0];
		size_t used = strlen(to);

		if (used + len + 2 > sizeof(list[0]))
			return fault_set(fault, TLS_PART_CIPHERS, 0,
					 "the list is too long");
		snprintf(to + used, sizeof(list[0]) - used, "%s%.*s",
			 used ? ":" : "", (int)len, at);
		at += len + (at[len] == ':');
	}
	if (list[0][0])
		ok = SSL_CTX_set_cipher_list(context, list[0]);
	if (ok == 1 && list[1][0])
		ok = SSL_CTX_set_ciphersuites(context, list[1]);
	return ok == 1 ? 0 :
			 fault_set(fault, TLS_PART_CIPHERS, 0, tls_complaint());
}

/* RFC 7443: what speaks STUN inside says so. Both mean the same here. */
static int alpn_select(SSL *ssl, const unsigned char **out,
		       unsigned char *out_len, const unsigned char *offered,
		       unsigned int len, void *arg)
{
	static const unsigned char ours[] = "\x09stun.turn"
					    "\x12stun.nat-discovery";
	unsigned char *found;

	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto(&found, out_len, ours, sizeof(ours) - 1,
				  offered, len) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = found;
	return SSL_TLSEXT_ERR_OK;
}

static int name_select(SSL *ssl, int *alert, void *arg)
{
	const struct tls_server *server = arg;
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

	*alert = SSL_AD_UNRECOGNIZED_NAME; /* sent by nobody: see NOACK */
	for (size_t i = 0; name && i < server->count; i++) {
		const struct shown *shown = &server->shown[i];

		if (X509_check_host(shown->certificate, name, 0, 0, NULL) != 1)
			continue;
		SSL_set_SSL_CTX(ssl, shown->context);
		return SSL_TLSEXT_ERR_OK;
	}
	return SSL_TLSEXT_ERR_NOACK;
}

static int version_min(const struct tls_server_params *params)
{
	if (params->datagrams)
		return DTLS1_2_VERSION;
	return params->only_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION;
}

/* What all contexts of a server have, whatever they show. */
static int context_prepare(SSL_CTX *context, struct tls_server *server,
			   const struct tls_server_params *params,
			   struct tls_fault *fault)
{
	static const unsigned char sessions[] = "culvert";

	tls_context_init(context);
	SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_alpn_select_cb(context, alpn_select, NULL);
	SSL_CTX_set_tlsext_servername_callback(context, name_select);
	SSL_CTX_set_tlsext_servername_arg(context, server);
	tls_tickets_use(server->tickets, context);
	/* No client is asked for certificates. With datagrams this bounds what
	 * waits of messages that came too early, too.
	 */
	SSL_CTX_set_max_cert_list(context, 1);
	if (params->datagrams) {
		dtls_context_init(context);
	} else {
		tls_context_count(context);
		tls_context_tell_secrets(context);
	}
	if (SSL_CTX_set_session_id_context(context, sessions,
					   sizeof(sessions) - 1) != 1 ||
	    SSL_CTX_set_min_proto_version(context, version_min(params)) != 1)
		return fault_set(fault, TLS_PART_OTHER, 0, tls_complaint());
	return ciphers_use(context, params->ciphers, fault);
}

/* Issued together for one server: the same alternative names, or else subject. */
static bool names_same(const X509 *a, const X509 *b)
{
	int at_a = X509_get_ext_by_NID(a, NID_subject_alt_name, -1);
	int at_b = X509_get_ext_by_NID(b, NID_subject_alt_name, -1);

	if (at_a < 0 && at_b < 0)
		return X509_NAME_cmp(X509_get_subject_name(a),
				     X509_get_subject_name(b)) == 0;
	return at_a >= 0 && at_b >= 0 &&
	       ASN1_STRING_cmp(
		       X509_EXTENSION_get_data(X509_get_ext(a, at_a)),
		       X509_EXTENSION_get_data(X509_get_ext(b, at_b))) == 0;
}

static int key_kind(const X509 *certificate)
{
	return EVP_PKEY_get_base_id(X509_get0_pubkey(certificate));
}

/* Does it show a certificate with such a key already? */
static bool context_has_kind(const struct tls_server *server,
			     const SSL_CTX *context, int kind)
{
	for (size_t i = 0; i < server->count; i++)
		if (server->shown[i].context == context &&
		    key_kind(server->shown[i].certificate) == kind)
			return true;
	return false;
}

/* A reference to the context that this certificate joins; NULL: none. */
static SSL_CTX *context_find(const struct tls_server *server,
			     const X509 *certificate)
{
	for (size_t i = 0; i < server->count; i++) {
		const struct shown *other = &server->shown[i];

		if (!other->context ||
		    !names_same(other->certificate, certificate) ||
		    context_has_kind(server, other->context,
				     key_kind(certificate)))
			continue;
		SSL_CTX_up_ref(other->context);
		return other->context;
	}
	return NULL;
}

/* The next pair of the parameters. */
static int pair_add(struct tls_server *server,
		    const struct tls_server_params *params,
		    struct tls_fault *fault)
{
	const size_t number = server->count;
	const struct tls_pair *pair = &params->pairs[number];
	struct shown *shown = &server->shown[number];
	int err = certificate_read(pair, number, &shown->certificate, fault);

	if (err)
		return err;
	shown->context = context_find(server, shown->certificate);
	server->count++;
	if (!shown->context) {
		shown->context = SSL_CTX_new(params->datagrams ?
						     DTLS_server_method() :
						     TLS_server_method());
		if (!shown->context)
			return -ENOMEM;
		err = context_prepare(shown->context, server, params, fault);
	}
	if (!err)
		err = certificate_use(shown, pair, number, fault);
	if (!err)
		err = key_use(shown, pair, number, fault);
	return err;
}

int tls_server_new(const struct tls_server_params *params,
		   struct tls_server **out, struct tls_fault *fault)
{
	struct tls_server *server = calloc(
		1, sizeof(*server) + params->count * sizeof(struct shown));
	int err;

	if (!server)
		return -ENOMEM;
	atomic_init(&server->refs, 1);
	err = tls_tickets_new(&server->tickets);
	while (!err && server->count < params->count)
		err = pair_add(server, params, fault);
	if (err) {
		ERR_clear_error();
		tls_server_unref(server);
		return err;
	}
	*out = server;
	return 0;
}

SSL_CTX *tls_server_context(const struct tls_server *server)
{
	return server->shown[0].context;
}

int64_t tls_server_expires(const struct tls_server *server, size_t pair)
{
	const X509 *certificate = server->shown[pair].certificate;
	struct tm end;

	if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) != 1)
		return 0;
	return timegm(&end);
}

struct tls_server *tls_server_ref(struct tls_server *server)
{
	atomic_fetch_add(&server->refs, 1);
	return server;
}

void tls_server_unref(struct tls_server *server)
{
	if (!server || atomic_fetch_sub(&server->refs, 1) > 1)
		return;
	for (size_t i = 0; i < server->count; i++) {
		X509_free(server->shown[i].certificate);
		SSL_CTX_free(server->shown[i].context);
	}
	tls_tickets_free(server->tickets);
	free(server);
}

static void server_release(void *owner)
{
	tls_server_unref(owner);
}

int tls_accept(struct tls_server *server, int fd, struct seal **out)
{
	SSL *ssl = SSL_new(tls_server_context(server));
	int err;

	if (!ssl) {
		ERR_clear_error();
		return -ENOMEM;
	}
	SSL_set_accept_state(ssl);
	err = tls_seal_new(ssl, fd, server, server_release, out);
	if (err)
		SSL_free(ssl);
	else
		tls_server_ref(server);
	return err;
}
