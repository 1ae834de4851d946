/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files about TLS share. Private to the room. */
#ifndef TRANSPORT_TLS_INTERNAL_H
#define TRANSPORT_TLS_INTERNAL_H

#include <openssl/ssl.h>

#include "transport/tls.h"

/* What every context of ours has, whichever side it is on. */
void tls_context_init(SSL_CTX *context);

/*
 * A seal around a session, which it takes over with `owner` if it succeeds; owner
 * is given back by `release` at the end. 0 or -ENOMEM.
 */
int tls_seal_new(SSL *ssl, int fd, void *owner, void (*release)(void *owner),
		 struct seal **out);

/* The context that a server's connections begin with. */
SSL_CTX *tls_server_context(const struct tls_server *server);

/* What the contexts of a server for datagrams have beside that. */
void dtls_context_init(SSL_CTX *context);

/* The oldest of OpenSSL's complaints in words, and forgets them all. */
const char *tls_complaint(void);

#endif
