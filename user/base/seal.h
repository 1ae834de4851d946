/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What may stand between a TCP socket and the bytes of its stream: TLS. Rooms that
 * move bytes see this, and need not know what the seal is; without one (NULL) the
 * socket's bytes are the stream's. A seal does not own its descriptor.
 */
#ifndef BASE_SEAL_H
#define BASE_SEAL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* The most that is unsealed at once. */
#define SEAL_RECORD_MAX ((size_t)16 << 10)

struct seal;

struct seal_ops {
	/*
	 * As recv and send, but a negative errno instead of -1. recv may bring
	 * fewer bytes than there are: see `more`. 0 is an end that the other
	 * side has vouched for; a connection that just stops is -ECONNABORTED.
	 * What send has refused (-EAGAIN) must come again, with the same bytes,
	 * before anything else.
	 */
	ssize_t (*recv)(struct seal *seal, void *data, size_t len);
	ssize_t (*send)(struct seal *seal, const void *data, size_t len);
	/* Tells the other side that nothing follows. 0, -EAGAIN, or another
	 * negative errno. Reading goes on.
	 */
	int (*end)(struct seal *seal);
	void (*free)(struct seal *seal);
};

struct seal {
	const struct seal_ops *ops;
	bool open; /* the handshake is complete */
	bool more; /* recv would bring more at once, be it an end: do not poll */
	bool blocked; /* recv's -EAGAIN waits for the socket to take bytes */
	const char *why; /* it has failed, in words; NULL: it has not */
};

static inline ssize_t seal_recv(struct seal *seal, int fd, void *data,
				size_t len)
{
	ssize_t n;

	if (seal)
		return seal->ops->recv(seal, data, len);
	n = recv(fd, data, len, 0);
	return n < 0 ? -errno : n;
}

static inline ssize_t seal_send(struct seal *seal, int fd, const void *data,
				size_t len)
{
	ssize_t n;

	if (seal)
		return seal->ops->send(seal, data, len);
	n = send(fd, data, len, MSG_NOSIGNAL);
	return n < 0 ? -errno : n;
}

/* Harmless without a seal. */
static inline void seal_free(struct seal *seal)
{
	if (seal)
		seal->ops->free(seal);
}

#endif
