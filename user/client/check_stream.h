/* SPDX-License-Identifier: BSD-2-Clause */
/* Trying out the two ends of one relayed stream, for `culvert check`. */
#ifndef CLIENT_CHECK_STREAM_H
#define CLIENT_CHECK_STREAM_H

#include <stddef.h>

#include "culvert/client.h"

struct client_echo {
	size_t bytes; /* that came back right */
	double p50_ms, worst_ms; /* of one round trip of a block */
};

/*
 * Sends random blocks from one end to the other and back. Both descriptors are
 * nonblocking; waits at most timeout_ms for each block. Returns 0 or -errno;
 * -EBADMSG: other bytes came back. echo->bytes is set in either case.
 */
int client_check_echo(struct culvert_loop *loop, int caller, int callee,
		      unsigned int rounds, int timeout_ms,
		      struct client_echo *echo);

/*
 * Ends the stream of `caller`, then lets `callee` answer and end. 0, or -errno;
 * -EPIPE: the answer did not come.
 */
int client_check_half_close(struct culvert_loop *loop, int caller, int callee,
			    int timeout_ms);

#endif
