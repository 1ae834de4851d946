/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Opens measured connections: straight to an address, or through a TURN server
 * (RFC 6062). Everything runs on one loop; nothing blocks.
 */
#ifndef BENCH_DIAL_H
#define BENCH_DIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/list.h"
#include "loop/loop.h"
#include "stun/stun.h"

#define DIAL_TEXT    512 /* longest realm or nonce, with its NUL */
#define DIAL_MESSAGE 1400

struct dial_conf {
	union addr server; /* whom to dial: the peer, a relay, a TURN server */
	bool turn;
	const char *user, *password;
	union addr peer; /* TURN: the first peer; without TURN unused */
	/* Consecutive addresses from `peer`, or `server` without TURN. */
	uint32_t targets;
	union addr source; /* AF_UNSPEC: any */
	uint32_t sources; /* consecutive addresses to spread over */
};

/* A TURN message that arrives in pieces. */
struct dial_inbox {
	uint8_t data[DIAL_MESSAGE];
	size_t len;
};

/* An allocation. Embedded in its owner. */
struct dial_session {
	struct loop *loop;
	const struct dial_conf *conf;
	struct watch watch; /* the control connection */
	struct list pending; /* dial_conn waiting for a Connect answer */
	char realm[DIAL_TEXT], nonce[DIAL_TEXT];
	uint8_t key[STUN_KEY_LEN];
	bool has_key;
	bool retried; /* the Allocate met one stale nonce already */
	uint8_t txid[STUN_TXID_LEN];
	struct dial_inbox inbox;
	uint32_t source; /* index of the source address */
	/* error 0: the allocation stands; it may end (error) later. */
	void (*done)(struct dial_session *session, int error);
};

/*
 * A connection being opened, then owned by the caller from `done` with error 0
 * on: it sets watch.fn and the events itself. Embedded in its owner.
 */
struct dial_conn {
	struct loop *loop;
	const struct dial_conf *conf;
	struct dial_session *session; /* NULL without TURN */
	struct watch watch;
	struct list link; /* in session->pending */
	uint32_t target;
	uint32_t id; /* CONNECTION-ID */
	bool retried;
	uint8_t txid[STUN_TXID_LEN];
	struct dial_inbox inbox;
	/* error: negative errno, or a STUN code. */
	void (*done)(struct dial_conn *conn, int error);
};

/* Returns 0, or a negative errno when `done` will not be called. */
int dial_session_open(struct dial_session *session, struct loop *loop,
		      const struct dial_conf *conf, uint32_t source,
		      void (*done)(struct dial_session *session, int error));
/* Closes the control connection: the allocation goes with it. */
void dial_session_close(struct dial_session *session);

/* `session` must stand; NULL dials straight. As above. */
int dial_conn_open(struct dial_conn *conn, struct loop *loop,
		   const struct dial_conf *conf, struct dial_session *session,
		   uint32_t target, uint32_t source,
		   void (*done)(struct dial_conn *conn, int error));
void dial_conn_close(struct dial_conn *conn);

/* "447 Connection Timeout or Failure" or the errno's text. */
const char *dial_error(int error);

#endif
