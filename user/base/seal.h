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

/* Who seals: the kernel, or why the process itself. */
enum seal_place {
	SEAL_UNDECIDED,
	SEAL_IN_KERNEL, /* sockets of it take and give the stream's bytes */
	SEAL_KEPT_ORDER, /* an engine that unseals by itself came first */
	SEAL_KEPT_OFF, /* by the configuration */
	SEAL_KEPT_ABSENT, /* this kernel cannot */
	SEAL_KEPT_CIPHER, /* it cannot with this cipher */
	SEAL_KEPT_RECORDS, /* smaller records were agreed on than its own */
	SEAL_KEPT_KEYS, /* they are not those of the handshake any more */
	SEAL_KEPT_STATE, /* the stream has ended, or a record is half sent */
	SEAL_KEPT_ERROR, /* it refused the keys */
	SEAL_PLACES,
};

struct seal_ops {
	/*
	 * As recv and send, but a negative errno instead of -1. recv may bring
	 * fewer bytes than there are: see `more`. 0 is an end that the other
	 * side has vouched for; a connection that just stops is -ECONNABORTED.
	 * -EKEYEXPIRED of send: the key has sealed as much as is safe, and no
	 * other can be had. What send has refused (-EAGAIN) must come again, with the same bytes,
	 * before anything else.
	 */
	ssize_t (*recv)(struct seal *seal, void *data, size_t len);
	ssize_t (*send)(struct seal *seal, const void *data, size_t len);
	/* Tells the other side that nothing follows. 0, -EAGAIN, or another
	 * negative errno. Reading goes on.
	 */
	int (*end)(struct seal *seal);
	/* Has the kernel seal, if it can: seal->place says. Once, when all that
	 * was given to send has gone. recv, send and end go on as before.
	 */
	void (*offload)(struct seal *seal);
	/* Sets `records` and `most` anew. 0, or -EKEYEXPIRED when the kernel's
	 * key has sealed as much as is safe.
	 */
	int (*recount)(struct seal *seal);
	/* Bytes that send, or splice(2), took and the socket does not count. */
	size_t (*unsent)(struct seal *seal);
	void (*free)(struct seal *seal);
};

struct seal {
	const struct seal_ops *ops;
	bool open; /* the handshake is complete */
	bool more; /* recv would bring more at once, be it an end: do not poll */
	bool splices; /* the socket gives the stream's bytes: splice(2) may read */
	enum seal_place place; /* in the kernel: splice(2) may write */
	uint64_t spliced; /* bytes written so: seal_spliced */
	uint64_t records; /* that it may have sealed since the last recount */
	uint64_t most; /* of them, before the next one; 0: no limit */
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

static inline bool seal_in_kernel(const struct seal *seal)
{
	return seal && seal->place == SEAL_IN_KERNEL;
}

/* May the kernel seal another record? 0, or the connection's end. */
static inline int seal_ready(struct seal *seal)
{
	return seal && seal->most && seal->records >= seal->most ?
		       seal->ops->recount(seal) :
		       0;
}

/* Each call that writes begins a record, and every 16 KiB another one. */
static inline void seal_wrote(struct seal *seal, size_t n)
{
	seal->records += 1 + n / SEAL_RECORD_MAX;
}

/* splice(2) has written n bytes to its socket. */
static inline void seal_spliced(struct seal *seal, size_t n)
{
	if (!seal)
		return;
	seal->spliced += n;
	seal_wrote(seal, n);
}

/* In words, and in one. */
const char *seal_place_text(enum seal_place place);
const char *seal_place_name(enum seal_place place);

/* Harmless without a seal. */
static inline void seal_free(struct seal *seal)
{
	if (seal)
		seal->ops->free(seal);
}

#endif
