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
#include <sys/types.h>

#include "base/addr.h"
#include "base/seal.h"
#include "loop/loop.h"

/*
 * Opens a listening TCP socket with SO_REUSEPORT, one per worker, so call it
 * once per worker and address while still privileged. IPv6 sockets are V6ONLY.
 * Returns a nonblocking descriptor or a negative errno.
 */
int listener_open(const union addr *addr, unsigned int backlog);

/*
 * The same for the first of an address's sockets: -EADDRINUSE when somebody
 * listens there already, which SO_REUSEPORT alone would not notice.
 */
int listener_claim(const union addr *addr, unsigned int backlog);

/* A listening socket served by one loop. */
struct listener;

struct listener_ops {
	/*
	 * A new connection: nonblocking, CLOEXEC, TCP_NODELAY where the
	 * listening socket has it. The callee owns fd (closing it refuses the
	 * connection), and may free the listener.
	 */
	void (*accepted)(void *arg, int fd, const union addr *remote);
	/* An accept failed for want of descriptors or memory: the listener
	 * rests 100 ms, after turning one waiting connection away when it has
	 * a spare descriptor.
	 */
	void (*exhausted)(void *arg, int error);
};

/*
 * Takes fd over on success. With `spare` a descriptor is held back to turn
 * connections away when there are no others; without, they wait in the kernel's
 * queue. 0, -ENOMEM, -EMFILE, -ENOSPC.
 */
int listener_new(struct loop *loop, int fd, bool spare,
		 const struct listener_ops *ops, void *arg,
		 struct listener **out);
/* Closes the socket. Also from inside `accepted`. Accepts NULL. */
void listener_free(struct listener *listener);
/* Says that no other process has this socket: see watch_own. */
void listener_own(struct listener *listener);
int listener_fd(const struct listener *listener);

/*
 * A connection that carries messages: reads into a buffer that exists only while
 * a message is incomplete, queues what could not be sent at once.
 */
struct stream;

/*
 * Bytes one read may bring: with what was kept of a message the most that `received`
 * sees at once, but for what stream_params.initial brings.
 */
#define STREAM_READ_MAX ((size_t)32 << 10)
/* The largest message of STUN (RFC 8489 5), more than ChannelData can have. */
#define STREAM_MESSAGE_MAX ((size_t)20 + 65532)

enum stream_close {
	STREAM_CLOSE_EOF, /* the other side ended its stream */
	STREAM_CLOSE_ERROR, /* reset, or a read or write failed */
	STREAM_CLOSE_SEAL, /* TLS failed: transport_stream_why */
	STREAM_CLOSE_KEY, /* a key of TLS is used up */
	STREAM_CLOSE_PROTOCOL, /* the owner said so (received returned < 0) */
	STREAM_CLOSE_QUEUE_FULL, /* the other side does not read */
};

struct stream_ops {
	/*
	 * Bytes have arrived: `data` holds all unconsumed ones. Returns how
	 * many were consumed (0: needs more), or a negative errno to have the
	 * stream closed. Called again while it consumes and bytes are left. May
	 * call transport_stream_send, transport_stream_detach (then returns 0) and transport_stream_close.
	 */
	ssize_t (*received)(void *arg, const uint8_t *data, size_t len);
	/* The seal's handshake is complete: bytes may follow. NULL: not told. */
	void (*opened)(void *arg);
	/* Over: called once, later than whatever caused it; then free it. */
	void (*closed)(void *arg, enum stream_close why);
};

struct stream_params {
	struct loop *loop;
	const struct stream_ops *ops;
	void *arg;
	size_t message_max; /* bytes of the largest message; an unfinished one
			     * of this size is STREAM_CLOSE_PROTOCOL. At most
			     * STREAM_MESSAGE_MAX
			     */
	size_t queue_max; /* bytes that may wait to be sent */
	const uint8_t *initial; /* bytes read elsewhere, taken for the first
				 * to arrive; copied */
	size_t initial_len;
	struct seal *seal; /* taken over on success; NULL: none */
};

/* What is left of a stream that was given away: all of it the taker's. */
struct stream_parts {
	int fd;
	struct seal *seal; /* NULL: none */
	uint8_t *rest; /* bytes behind the last message; freed by the taker */
	size_t rest_len;
};

/* Takes fd over on success. 0, -ENOMEM, -ENOSPC. */
int transport_stream_new(const struct stream_params *params, int fd,
			 struct stream **out);
/* Closes the descriptor and frees. Not from inside `received`. Accepts NULL. */
void transport_stream_free(struct stream *stream);
/* Sends or queues. 0; -ENOBUFS (queue full) and write errors also close. */
int transport_stream_send(struct stream *stream, const void *data, size_t len);
/* Would this many bytes more leave half of the queue free, or find none waiting? */
bool transport_stream_has_room(const struct stream *stream, size_t len);
/*
 * Ends it: nothing is read or sent any more and closed() follows. What the
 * kernel has taken is still delivered, what is queued here is not.
 */
void transport_stream_close(struct stream *stream, enum stream_close why);
/*
 * From inside `received`, which then returns 0: what it was shown stays, and it is
 * not called before transport_stream_resume. Not to be called by it.
 */
void transport_stream_pause(struct stream *stream);
/* Shows it again what it was shown before the pause. Not from inside `received`. */
void transport_stream_resume(struct stream *stream);
/* What is wrong with its seal, in words; "" when nothing is. */
const char *transport_stream_why(const struct stream *stream);
/* Has it a seal? */
bool transport_stream_sealed(const struct stream *stream);
/*
 * Gives the descriptor away, with its seal, for a bind: nothing queued may be left (-EAGAIN if
 * so, -EPIPE when it is closed). The unconsumed bytes behind `consumed` of the
 * message now in `received` are handed over as a copy. 0 or -ENOMEM too. The
 * stream is dead afterwards: transport_stream_free it later, not from inside
 * `received`. closed() is not called.
 */
int transport_stream_detach(struct stream *stream, size_t consumed,
			    struct stream_parts *out);
int transport_stream_fd(const struct stream *stream);

#endif
