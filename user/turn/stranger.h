/* SPDX-License-Identifier: BSD-2-Clause */
/* The places that a connection takes before anybody knows who it is. */
#ifndef TURN_STRANGER_H
#define TURN_STRANGER_H

#include "turn/worker.h"

struct stranger {
	union addr remote;
	bool descriptor; /* it has one: it is a stream */
	bool handshake; /* TLS or DTLS comes first */
};

/* Takes them all, or counts and names the limit that was reached. NULL: taken. */
const char *turn_stranger_admit(struct turn_worker *worker,
				const struct stranger *stranger);
/* Gives back what turn_stranger_admit has taken. */
void turn_stranger_dismiss(struct turn_worker *worker,
			   const struct stranger *stranger);
/* Its place among the half-open handshakes alone. */
void turn_handshake_release(struct turn_shared *shared,
			    const union addr *remote);
/* Says that one was turned away; rarely. */
void turn_stranger_log(struct turn_worker *worker, const char *limit,
		       const union addr *remote);

#endif
