/* SPDX-License-Identifier: BSD-2-Clause */
/* What one join does: drawn from a seed, the same for the same seed. */
#ifndef NET_PLAN_H
#define NET_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* When a side begins to send its bytes. */
enum plan_when {
	WHEN_AT_ONCE, /* client: behind the ConnectionBind; peer: connected */
	WHEN_SOON, /* as AT_ONCE after a pause, without waiting for anything */
	WHEN_BOUND, /* the client has seen the success response */
	WHEN_AFTER_BOUND, /* and a pause later */
	WHEN_SPOKEN_TO, /* the first byte of the other side has come */
};

enum plan_end {
	END_CLIENT_FIRST, /* half-close by one; the other ends when it sees it */
	END_PEER_FIRST,
	END_BOTH, /* each ends its stream when it has sent everything */
	END_CLOSE_CLIENT, /* close when all is sent and received */
	END_CLOSE_PEER,
	END_RESET_CLIENT, /* a reset when everything has arrived everywhere */
	END_RESET_PEER,
	END_COUNT,
};

struct plan_side {
	enum plan_when when;
	uint32_t length; /* bytes to send */
	uint32_t piece; /* of one send, at most */
	uint32_t pause_us; /* between two sends, at most */
	uint32_t delay_us; /* the pause of SOON and AFTER_BOUND */
};

struct plan {
	uint64_t seed;
	bool incoming; /* the peer connects; else the client asks for it */
	enum plan_end end;
	uint32_t bind_delay_us; /* from the CONNECTION-ID to the data connection */
	uint32_t bind_split; /* bytes of ConnectionBind in the first send; 0: all */
	struct plan_side side[2]; /* client, peer */
};

void plan_draw(struct plan *out, uint64_t seed);
/* One line that tells it. */
void plan_describe(const struct plan *plan, char *buf, size_t len);

#endif
