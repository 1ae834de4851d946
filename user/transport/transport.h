/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Listeners and client connections: bytes in, bytes out, back-pressure and
 * limits. What the bytes mean is the owner's.
 */
#ifndef TRANSPORT_TRANSPORT_H
#define TRANSPORT_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "loop/loop.h"

/*
 * Opens a listening TCP socket with SO_REUSEPORT, one per worker, so call it
 * once per worker and address while still privileged. IPv6 sockets are V6ONLY.
 * Returns a nonblocking descriptor or a negative errno.
 */
int listener_open(const union addr *addr, unsigned int backlog);

/* A listening socket served by one loop. */
struct listener;

struct listener_ops {
	/*
	 * A new connection: nonblocking, CLOEXEC, TCP_NODELAY. The callee owns
	 * fd (closing it refuses the connection).
	 */
	void (*accepted)(void *arg, int fd, const union addr *remote);
	/* An accept failed for want of descriptors or memory; the listener
	 * drops one waiting connection with its spare descriptor and rests
	 * 100 ms.
	 */
	void (*exhausted)(void *arg, int error);
};

/* Takes fd over on success. 0, -ENOMEM, -EMFILE, -ENOSPC. */
int listener_new(struct loop *loop, int fd, const struct listener_ops *ops,
		 void *arg, struct listener **out);
void listener_free(struct listener *listener); /* accepts NULL */
/* Stops accepting new connections, or goes on. */
void listener_pause(struct listener *listener, bool paused);

/*
 * A connection that carries messages: reads into a buffer that exists only while
 * a message is incomplete, queues what could not be sent at once.
 */
struct stream;

enum stream_close {
	STREAM_CLOSE_EOF,	/* the other side ended its stream */
	STREAM_CLOSE_ERROR,	/* reset, or a read or write failed */
	STREAM_CLOSE_PROTOCOL,	/* the owner said so (received returned < 0) */
	STREAM_CLOSE_QUEUE_FULL, /* the other side does not read */
};

struct stream_ops {
	/*
	 * Bytes have arrived: `data` holds all unconsumed ones. Returns how
	 * many were consumed (0: needs more), or a negative errno to have the
	 * stream closed. Called again while it consumes and bytes are left. May
	 * call stream_send, stream_detach (then returns 0) and stream_close.
	 */
	ssize_t (*received)(void *arg, const uint8_t *data, size_t len);
	/* Over: called once, later than whatever caused it; then free it. */
	void (*closed)(void *arg, enum stream_close why);
};

struct stream_params {
	struct loop *loop;
	const struct stream_ops *ops;
	void *arg;
	size_t message_max; /* bytes of the largest message; more unconsumed
			     * than this is STREAM_CLOSE_PROTOCOL */
	size_t queue_max;   /* bytes that may wait to be sent */
};

/* Takes fd over on success. 0, -ENOMEM, -ENOSPC. */
int stream_new(const struct stream_params *params, int fd, struct stream **out);
/* Closes the descriptor and frees. Not from inside `received`. Accepts NULL. */
void stream_free(struct stream *stream);
/* Sends or queues. 0; -ENOBUFS (queue full) and write errors also close. */
int stream_send(struct stream *stream, const void *data, size_t len);
/* Ends it after what is queued was sent (or at once): closed() follows. */
void stream_close(struct stream *stream, enum stream_close why);
/*
 * Gives the descriptor away, for a bind: nothing queued may be left (-EAGAIN if
 * so). The unconsumed bytes behind `consumed` of the message now in `received`
 * are handed over as a copy (*rest, freed by the caller; NULL when none). The
 * stream is dead afterwards: stream_free it later, not from inside `received`.
 */
int stream_detach(struct stream *stream, size_t consumed, int *fd,
		  uint8_t **rest, size_t *rest_len);
int stream_fd(const struct stream *stream);

#endif
