/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A request and its answer: what all methods have in common.
 *
 * A handler returns 0 after putting its attributes into the answer, a STUN code,
 * or TURN_LATER when the answer was sent or will be.
 */
#ifndef TURN_REQUEST_H
#define TURN_REQUEST_H

#include "auth/auth.h"
#include "stun/stun.h"
#include "turn/client.h"
#include "turn/worker.h"

#define TURN_LATER (-1)

/* The largest answer: 420 with TURN_UNKNOWN_MAX types, 401 with a long realm. */
#define TURN_ANSWER_MAX  1024
#define TURN_UNKNOWN_MAX 64

/* What an answer must know of its request, which may be long gone. */
struct transaction {
	uint16_t method;
	uint8_t txid[STUN_TXID_LEN];
	struct stun_key key; /* when authenticated */
	bool authenticated;
	bool sha256; /* the answer's integrity is MESSAGE-INTEGRITY-SHA256 */
	bool fingerprint; /* the request had one, so has the answer */
	bool datagram; /* its source address may be forged */
	size_t request_len; /* bytes */
};

struct request {
	struct turn_worker *worker;
	struct client *client; /* Allocate may replace a passing one */
	const struct stun_msg *msg;
	struct transaction tx;
	struct auth_account *account; /* a reference; NULL: nobody known */
	bool expired; /* by credentials whose time is up */
	uint64_t until_s; /* of an access token, as auth_identity has it */
	struct stun_writer answer;
};

/* Handles a request from its parsed message to its answer. */
void turn_request_handle(struct client *client, const struct stun_msg *msg);

/* Starts an answer in a buffer of TURN_ANSWER_MAX bytes. */
void turn_answer_begin(struct stun_writer *w, uint8_t *buf,
		       enum stun_class class, const struct transaction *tx);
/* The same with ERROR-CODE and what goes with it; counts the error. */
void turn_answer_error_begin(struct stun_writer *w, uint8_t *buf,
			     const struct client *client,
			     const struct transaction *tx, int code);
/* Adds SOFTWARE, integrity and FINGERPRINT. Its length or an errno. */
ssize_t turn_answer_end(struct stun_writer *w, const struct transaction *tx,
			const struct turn_worker *worker);
/* Ends and sends. */
void turn_answer_send(struct client *client, struct stun_writer *w,
		      const struct transaction *tx);
/* Sends an error answer. */
void turn_answer_error(struct client *client, const struct transaction *tx,
		       int code);
/* Writes a whole error answer; its length or a negative errno. */
ssize_t turn_answer_error_write(struct client *client,
				const struct transaction *tx, int code,
				uint8_t buf[TURN_ANSWER_MAX]);

/*
 * The allocation that the request is about: 0, 437 without one, 441 when it
 * belongs to another user.
 */
int turn_request_allocation(const struct request *req, struct allocation **out);
/*
 * XOR-PEER-ADDRESS in `attr`: 0, 400 malformed, 443 of the other family than
 * the allocation's.
 */
int turn_request_peer(const struct request *req,
		      const struct allocation *allocation,
		      const struct stun_attr *attr, union addr *out);
/*
 * The one peer of a request, with its port: as above, 400 when there is none, or 403
 * when the policy forbids it.
 */
int turn_request_peer_port(const struct request *req,
			   const struct allocation *allocation,
			   union addr *out);
/* LIFETIME as it will be granted, in ms; 0 stays 0 if `zero`. 0 or 400. */
int turn_request_lifetime(const struct request *req, bool zero,
			  uint64_t *out_ms);
/*
 * REQUESTED-ADDRESS-FAMILY: 0 with AF_INET, AF_INET6 or AF_UNSPEC (absent) in
 * *out; 400 malformed, 440 a family that does not exist.
 */
int turn_request_family(const struct request *req, sa_family_t *out);

/*
 * May credentials make or prolong something? 0, or 401 when their time is up: what
 * is there lives on, to the end of its lifetime.
 */
int turn_request_in_time(const struct request *req);

/*
 * Whose allocation's token may have signed a ConnectionBind that has none, in *out if
 * there is one. 0, TURN_LATER when it is handled by another worker, or a STUN code.
 */
int turn_bind_session(struct request *req, const struct allocation **out);
/* Counts it as a guess if it was one: the code is that of turn_bind_find(). */
void turn_bind_failed(struct turn_worker *worker, const union addr *from,
		      int code);

/* The handlers. */
int turn_binding(struct request *req);
int turn_allocate(struct request *req);
int turn_refresh(struct request *req);
int turn_create_permission(struct request *req);
int turn_channel_bind(struct request *req);
int turn_connect(struct request *req);
int turn_connection_bind(struct request *req);

#endif
