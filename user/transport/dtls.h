/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * DTLS 1.2 (RFC 6347), the server's side: messages of clients whose datagrams come
 * to one socket. Which datagram belongs to whom is the owner's to know.
 */
#ifndef TRANSPORT_DTLS_H
#define TRANSPORT_DTLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loop/loop.h"
#include "transport/tls.h"
#include "transport/udp.h"

/* The cookies of one socket: what clients without an association come to. */
struct dtls_listener;

/* Sends one datagram, or loses it. */
typedef void (*dtls_answer_fn)(void *arg, const struct udp_path *path,
			       const uint8_t *data, size_t len);

/* 0 or -ENOMEM. */
int dtls_listener_new(dtls_answer_fn answer, void *arg,
		      struct dtls_listener **out);
void dtls_listener_free(struct dtls_listener *listener); /* accepts NULL */

/*
 * A datagram of somebody without an association, for a server made for datagrams.
 * Nothing of it is kept. 0: a ClientHello with the cookie that only somebody at this
 * address can know; dtls_accept may follow. -EAGAIN: one without, which was answered
 * by a shorter HelloVerifyRequest. -EBADMSG: neither. -ENOMEM.
 */
int dtls_listener_hello(struct dtls_listener *listener,
			struct tls_server *server, const struct udp_path *path,
			const uint8_t *data, size_t len);

/* One client's association. */
struct dtls;

struct dtls_ops {
	/* Sends one datagram to the client, or loses it. */
	void (*send)(void *arg, const uint8_t *data, size_t len);
	/* The handshake is complete: messages may follow. */
	void (*opened)(void *arg);
	/* A message; may call everything but dtls_free. */
	void (*received)(void *arg, const uint8_t *data, size_t len);
	/* Over: called once, later than whatever caused it; then free it. */
	void (*closed)(void *arg);
};

/*
 * Right behind a dtls_listener_hello that returned 0: makes an association of that
 * ClientHello. Nothing is called before dtls_begin.
 */
struct dtls *dtls_accept(struct dtls_listener *listener, struct loop *loop,
			 const struct dtls_ops *ops, void *arg);
/* Answers the ClientHello; then each datagram of that client goes to dtls_feed. */
void dtls_begin(struct dtls *dtls);
void dtls_feed(struct dtls *dtls, const uint8_t *data, size_t len);
/*
 * Is this a ClientHello other than the one that the association began with? Then its
 * client has begun anew, or somebody says so: dtls_listener_hello tells.
 */
bool dtls_begins_anew(const struct dtls *dtls, const uint8_t *data, size_t len);
/* Sends one message. 0, -EPIPE (not open), -EMSGSIZE (beyond SEAL_RECORD_MAX). */
int dtls_send(struct dtls *dtls, const uint8_t *data, size_t len);
/* Tells the client so (close_notify) and ends it; closed() follows. */
void dtls_close(struct dtls *dtls);
/* What was wrong, in words; NULL when nothing was. */
const char *dtls_why(const struct dtls *dtls);
void dtls_free(struct dtls *dtls); /* accepts NULL */

#endif
