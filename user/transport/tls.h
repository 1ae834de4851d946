/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TLS 1.2 and 1.3 (RFC 8446, RFC 7443 for the protocol names) as a seal; what a
 * server is known by also serves DTLS, see dtls.h. The one room with libssl.
 */
#ifndef TRANSPORT_TLS_H
#define TRANSPORT_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/seal.h"

/* A certificate with its chain and its private key, both PEM. */
struct tls_pair {
	const char *certificate;
	size_t certificate_len;
	const char *key;
	size_t key_len;
};

struct tls_server_params {
	const struct tls_pair *pairs; /* the first is for who names no other */
	size_t count; /* 1 at least */
	bool only_1_3; /* else TLS 1.2, too */
	bool datagrams; /* DTLS 1.2 instead, for dtls_listener_hello */
	const char *ciphers; /* names apart by ":", those of both versions */
};

enum tls_part {
	TLS_PART_CERTIFICATE,
	TLS_PART_KEY,
	TLS_PART_CIPHERS,
	TLS_PART_OTHER,
};

/* What is wrong with the parameters. */
struct tls_fault {
	enum tls_part part;
	size_t pair; /* whose certificate or key */
	char text[200];
};

/* What all connections of a listener share: counted, usable by all threads. */
struct tls_server;

/* 0, -ENOMEM, or -EINVAL; then `fault` says what is wrong. */
int tls_server_new(const struct tls_server_params *params,
		   struct tls_server **out, struct tls_fault *fault);
/* When a pair's certificate ceases to be valid, in seconds since 1970. */
int64_t tls_server_expires(const struct tls_server *server, size_t pair);
struct tls_server *tls_server_ref(struct tls_server *server);
void tls_server_unref(struct tls_server *server); /* accepts NULL */

/*
 * Seals an accepted, nonblocking connection; its first recv begins the handshake.
 * 0 or -ENOMEM.
 */
int tls_accept(struct tls_server *server, int fd, struct seal **out);

/* What the connections of a client have in common: counted. */
struct tls_client;

/*
 * authorities: a PEM file of those who may vouch for a server; NULL: the system's.
 * Without `verify` anybody may be the server. 0, -ENOMEM, or -EINVAL with *why.
 */
int tls_client_new(const char *authorities, bool verify,
		   struct tls_client **out, const char **why);
struct tls_client *tls_client_ref(struct tls_client *client);
void tls_client_unref(struct tls_client *client); /* accepts NULL */

/*
 * Seals a connected, nonblocking socket to the server of this name or address.
 * 0 or -ENOMEM.
 */
int tls_connect(struct tls_client *client, int fd, const char *name,
		struct seal **out);
/*
 * Goes on with the handshake, before any send: 0 when it is complete, -EAGAIN (wait
 * for the socket to be readable, or writable when seal->blocked), or another
 * negative errno, seal->why; -ENOKEY: the server could not be verified.
 */
int tls_handshake(struct seal *seal);

#endif
