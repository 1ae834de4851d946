/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages between the supervisor and the relay and exit roles, over SOCK_SEQPACKET. */
#ifndef MAIN_CHANNEL_H
#define MAIN_CHANNEL_H

#include <stddef.h>
#include <stdint.h>

#define CHANNEL_FDS_MAX 64 /* descriptors in one message */

enum channel_type {
	/* supervisor -> relay */
	CHANNEL_RELOAD = 1, /* two descriptors: the new configuration's text,
			     * and the files that it names, packed; result:
			     * how many WANT_RELOADs it answers */
	CHANNEL_LISTENER, /* text: name; a descriptor per worker */
	CHANNEL_COMMIT, /* take what RELOAD and LISTENER brought */
	CHANNEL_REFUSED, /* text: why there is no reload; result: as RELOAD's */
	CHANNEL_STOP,
	/*
	 * One descriptor: an end of a new channel between a worker and the
	 * broker, to each of the two; result: the worker.
	 */
	CHANNEL_BROKER,
	/*
	 * One descriptor: an exit_notice, from the exit role to the supervisor and
	 * from there to the relay.
	 */
	CHANNEL_EXITS,
	/* relay -> supervisor */
	CHANNEL_READY,
	CHANNEL_TAKEN, /* result and text of a COMMIT */
	CHANNEL_WANT_RELOAD, /* culvertctl asked */
	CHANNEL_WANT_STOP,
	CHANNEL_DRAINING, /* culvertctl drain; result: 1, or 0 for undone */
	CHANNEL_WANT_BROKER, /* a channel to the broker ended; result: whose */
	CHANNEL_TYPES,
};

struct channel_msg {
	uint32_t type;
	int32_t result; /* 0 or a negative errno, unless said otherwise */
	char text[256]; /* NUL-terminated */
};

/* A connected pair, CLOEXEC. 0 or a negative errno. */
int channel_new(int fds[2]);

/*
 * 0 or a negative errno. A full channel is waited for, five seconds at most: then
 * the other side hangs, -EAGAIN.
 */
int channel_send(int fd, enum channel_type type, int result, const char *text,
		 const int *fds, size_t fd_count);

/*
 * Receives one message and its descriptors (CLOEXEC; owned by the caller). When
 * this process has no room for all of them none is given: *fd_count is 0.
 * 0; -EPIPE when the other side has gone; -EBADMSG for anything that is not
 * exactly a message of this protocol: close the channel then.
 */
int channel_recv(int fd, struct channel_msg *out, int fds[CHANNEL_FDS_MAX],
		 size_t *fd_count);

#endif
