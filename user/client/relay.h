/* SPDX-License-Identifier: BSD-2-Clause */
/* A local connection joined with a data connection, on a pair. */
#ifndef CLIENT_RELAY_H
#define CLIENT_RELAY_H

#include <stddef.h>

#include "client/session.h"
#include "pair/pair.h"

/* Embedded in its owner. */
struct client_relay {
	struct pair *pair; /* NULL: not joined (yet, any more) */
	/* Over: both descriptors are closed. May free the owner. */
	void (*closed)(struct client_relay *relay, enum pair_end end);
};

/*
 * Joins; `early` (of the peer) goes to the local side first. Takes both
 * descriptors over on success. 0 or -ENOMEM.
 */
int client_relay_join(struct client_relay *relay,
		      const struct client_session *session, int local_fd,
		      int data_fd, const void *early, size_t early_len,
		      void (*closed)(struct client_relay *relay,
				     enum pair_end end));
/* Lets what has arrived through, then ends. Harmless without a pair. */
void client_relay_finish(const struct client_relay *relay);
/* Resets at once; `closed` is not called. Harmless without a pair. */
void client_relay_destroy(struct client_relay *relay);

#endif
