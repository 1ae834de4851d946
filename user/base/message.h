/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages with descriptors over a SOCK_SEQPACKET socket of this host: one by one, or
 * several in a packet, back to back, with the descriptors of all in the same order.
 */
#ifndef BASE_MESSAGE_H
#define BASE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>

/* Descriptors in one message: the kernel sends no more (SCM_MAX_FD). */
#define MESSAGE_FDS_MAX 253

/* What came with the body of one that was received. */
struct message {
	size_t len; /* of the body, as far as it had room */
	bool cut; /* the body was longer than that */
	bool fds_lost; /* more descriptors than asked for, or than may be open */
	size_t fd_count;
	int fds[MESSAGE_FDS_MAX]; /* CLOEXEC; the receiver's to close */
};

/*
 * Sends the body and lends the descriptors. Flags as send's. 0; -EINVAL: too many
 * descriptors; -EAGAIN: no room now; or another negative errno.
 */
int message_send(int fd, const void *body, size_t len, const int *fds,
		 size_t fd_count, int flags);

/*
 * Receives a body of at most `room` bytes and at most `fds_max` descriptors; those
 * beyond are closed. Flags as recv's. 0; -EAGAIN: nothing is there; -EPIPE: the
 * other side has gone; or another negative errno. *out is set with 0 only.
 */
int message_recv(int fd, void *body, size_t room, size_t fds_max, int flags,
		 struct message *out);

/* Closes the descriptors it still has. */
void message_close(struct message *message);

#define PACKET_MESSAGES 32
#define PACKET_BYTES    3072
#define PACKET_FDS      64

/* What is to be sent together; empty when zero. Borrows the descriptors. */
struct packet {
	unsigned int count; /* messages */
	size_t len, fd_count;
	char bytes[PACKET_BYTES];
	int fds[PACKET_FDS];
};

/* false: it is full, and as it was. */
bool packet_add(struct packet *packet, const void *body, size_t len,
		const int *fds, size_t fd_count);
/* As message_send. */
int packet_send(int fd, const struct packet *packet, int flags);

#endif
