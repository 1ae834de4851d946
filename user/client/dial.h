/* SPDX-License-Identifier: BSD-2-Clause */
/* Connecting a TCP socket, and TLS on it, without blocking, with a time limit. */
#ifndef CLIENT_DIAL_H
#define CLIENT_DIAL_H

#include <stdbool.h>

#include "base/addr.h"
#include "base/seal.h"
#include "loop/loop.h"
#include "transport/tls.h"

/* One attempt. Embedded in its owner; zero-initialise before first use. */
struct client_dial {
	struct loop *loop;
	struct watch watch;
	struct timer timer;
	struct deferred failed;
	int error; /* what `failed` will tell */
	bool active;
	struct seal *seal; /* told with a descriptor: the owner's to take */
	const char *why; /* told with an error of TLS, in words; NULL */
	struct tls_client *tls; /* NULL: without */
	const char *name; /* of the server, for TLS; outlives the attempt */
	void (*fn)(struct client_dial *dial, int fd);
};

/*
 * Starts. fn hears the outcome later, never from inside: a connected descriptor
 * (nonblocking, CLOEXEC, TCP_NODELAY, keep-alive; its own from then on) or a
 * negative errno; -ETIMEDOUT after timeout_ms. tls: NULL, or the connection gets a
 * seal, for the server of this name, before it is told.
 */
void client_dial_start(struct client_dial *dial, struct loop *loop,
		       const union addr *to, uint64_t timeout_ms,
		       struct tls_client *tls, const char *name,
		       void (*fn)(struct client_dial *dial, int fd));
/* Closes; fn is not called. Harmless when nothing is under way. */
void client_dial_cancel(struct client_dial *dial);

/* What every TCP socket of ours wants; errors do not matter. */
void client_socket_tune(int fd);

#endif
