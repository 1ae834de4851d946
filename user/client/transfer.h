/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What `send` and `receive` share: one client, one data connection, and an end
 * that is a success only when the whole stream is known to have passed.
 */
#ifndef CLIENT_TRANSFER_H
#define CLIENT_TRANSFER_H

#include <stdbool.h>
#include <stdint.h>

#include "client/file.h"
#include "client/progress.h"
#include "client/session.h"

#define CLIENT_TRANSFER_BUFFER (256u << 10)
/* Bytes moved before other events get their turn. */
#define CLIENT_TRANSFER_TURN (4u << 20)

struct client_transfer {
	struct client_session session;
	struct culvert_client *client;
	const char *name, *verb; /* "send", "sent" */
	struct client_file file;
	struct watch file_watch; /* fd -1: not waited for */
	int fd; /* the data connection; -1 */
	struct watch watch; /* of it; fd -1: not watched */
	struct client_progress progress;
	uint8_t *buf; /* CLIENT_TRANSFER_BUFFER */
	size_t len, off;
	bool over, failed; /* the outcome is known; it is a bad one */
};

/* Session and buffer. Says what is wrong; an exit code. */
enum client_exit client_transfer_open(struct client_transfer *transfer,
				      const struct client_config *config,
				      const char *name, const char *verb);
/* Starts the client, for relayed addresses of this family. 0 or -errno, said. */
int client_transfer_start(struct client_transfer *transfer, int family,
			  const struct culvert_events *events);
enum client_exit client_transfer_run(struct client_transfer *transfer);
void client_transfer_close(struct client_transfer *transfer);

/*
 * Gives up after the caller has said why: the peer gets a reset, so that a part
 * does not look like the whole.
 */
void client_transfer_fail(struct client_transfer *transfer);
/*
 * Both ends of stream have passed. Were they the peer's? A server that loses our
 * allocation ends streams, too: ask it, then end.
 */
void client_transfer_complete(struct client_transfer *transfer);

/* For events.ended. */
void client_transfer_ended(struct client_transfer *transfer,
			   const struct culvert_error *error);

/* Watches fd for events; with no events, not at all. Fails the transfer. */
void client_transfer_watch(struct client_transfer *transfer,
			   struct watch *watch, int fd, uint32_t events,
			   void (*fn)(struct watch *watch, uint32_t events));

#endif
