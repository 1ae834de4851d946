/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of a session share. */
#ifndef BROKER_SESSION_H
#define BROKER_SESSION_H

#include <stddef.h>

#include "broker/internal.h"

/* It has broken a rule: its end, and a line in the log (session.c). */
void session_breach(struct session *session, const char *what);
/* One with SO_LINGER, of which this is the last copy, would make us wait. */
void session_descriptor_close(int fd);

/* What waits for the end of the tick, or for room in the channel (session_out.c). */
void session_send(struct session *session, const void *message, size_t len);
/* In a packet of its own, with descriptors, which stay open until it is sent. */
void session_send_alone(struct session *session, const void *message,
			size_t len, const int *fds, size_t count);
void session_out_flush(struct session *session);
/* As far as there is room; its end does not follow, whatever happens. */
void session_out_last(struct session *session);
void session_out_free(struct session *session);

/* One packet: others have their turn before the next (request.c). */
void request_read(struct session *session);

#endif
