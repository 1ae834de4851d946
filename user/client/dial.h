/* SPDX-License-Identifier: BSD-2-Clause */
/* Connecting a TCP socket without blocking, with a time limit. */
#ifndef CLIENT_DIAL_H
#define CLIENT_DIAL_H

#include <stdbool.h>

#include "base/addr.h"
#include "loop/loop.h"

/* One attempt. Embedded in its owner; zero-initialise before first use. */
struct client_dial {
	struct loop *loop;
	struct watch watch;
	struct timer timer;
	struct deferred failed;
	int error; /* what `failed` will tell */
	bool active;
	void (*fn)(struct client_dial *dial, int fd);
};

/*
 * Starts. fn hears the outcome later, never from inside: a connected descriptor
 * (nonblocking, CLOEXEC, TCP_NODELAY, keep-alive; its own from then on) or a
 * negative errno; -ETIMEDOUT after timeout_ms.
 */
void client_dial_start(struct client_dial *dial, struct loop *loop,
		       const union addr *to, uint64_t timeout_ms,
		       void (*fn)(struct client_dial *dial, int fd));
/* Closes; fn is not called. Harmless when nothing is under way. */
void client_dial_cancel(struct client_dial *dial);

/* What every TCP socket of ours wants; errors do not matter. */
void client_socket_tune(int fd);

#endif
