/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Moving a connection to the worker that owns what it asks for: a data connection to
 * that of its peer connection, a client that shows a mobility ticket to that of its
 * allocation. A ConnectionBind that is signed by the key of its allocation's token
 * goes there before it has been authenticated: nobody else knows the key.
 *
 * SO_REUSEPORT gives a new connection to any worker, the CONNECTION-ID says which
 * one has the waiting leg. The descriptor goes there once, by letter, with the
 * verified identity and the bytes behind the request. The letter owns them, and
 * the connection's slot, from transport_stream_detach here to the bind there; a worker
 * that is gone when the letter is delivered makes it drop all of them.
 *
 * If the bind fails over there, the connection becomes a client of that worker
 * and gets its error answer from it.
 */
#include "turn/move.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "crypto/crypto.h"
#include "turn/peer_conn.h"

struct move {
	struct letter letter;
	struct turn_shared *shared;
	unsigned int owner;
	struct stream_parts parts;
	union addr remote;
	struct auth_account *account; /* a reference; NULL: nobody known */
	bool authenticated; /* a request was, once */
	bool whole; /* the request is handled there: no bind */
	struct transaction tx;
	uint8_t connection_id[TURN_CONNECTION_ID_LEN];
	char listener[CONF_NAME_MAX];
};

static void move_free(struct move *move)
{
	auth_account_unref(move->account);
	seal_free(move->parts.seal);
	free(move->parts.rest);
	crypto_wipe(move, sizeof(*move));
	free(move);
}

static int move_bind(struct move *move, struct turn_worker *worker)
{
	const struct bind bind = {
		.tx = &move->tx,
		.fd = move->parts.fd,
		.seal = move->parts.seal,
		.client = move->remote,
		.early = move->parts.rest,
		.early_len = move->parts.rest_len,
	};
	struct peer_conn *conn;
	int code = turn_bind_find(worker, move->connection_id, move->account,
				  bind.seal, &conn);

	if (!code)
		code = turn_bind_join(conn, &bind);
	if (!code)
		move->parts.seal = NULL;
	return code;
}

/* A stranger has left his place among the unauthenticated behind. */
static bool place_take(const struct move *move, struct turn_worker *worker)
{
	return move->authenticated ||
	       turn_gauge_take(&worker->shared->unauthenticated,
			       turn_limits(worker)->unauthenticated);
}

static void place_release(const struct move *move, struct turn_worker *worker)
{
	if (!move->authenticated)
		turn_gauge_release(&worker->shared->unauthenticated);
}

/* Makes it a client here. NULL: nobody took the descriptor. */
static struct client *move_admit(struct move *move, struct turn_worker *worker)
{
	const struct client_origin origin = {
		.worker = worker,
		.listener = turn_listener_find(worker, move->listener),
		.fd = move->parts.fd,
		.seal = move->parts.seal,
		.remote = move->remote,
		.authenticated = move->authenticated,
		.initial = move->parts.rest,
		.initial_len = move->parts.rest_len,
	};
	struct client *client;

	if (!origin.listener || !place_take(move, worker))
		return NULL;
	if (turn_client_new(&origin, &client)) {
		place_release(move, worker);
		return NULL;
	}
	move->parts.seal = NULL;
	return client;
}

/* Makes it a client here that hears why. False: nobody took the descriptor. */
static bool move_settle(struct move *move, struct turn_worker *worker, int code)
{
	struct client *client = move_admit(move, worker);

	if (!client)
		return false;
	client->fingerprint = move->tx.fingerprint;
	turn_answer_error(client, &move->tx, code);
	return true;
}

static void move_drop(struct move *move)
{
	fd_close(&move->parts.fd);
	turn_slot_release(move->shared);
}

static void move_arrived(struct letter *letter)
{
	struct move *move = list_entry(letter, struct move, letter);
	struct turn_worker *worker =
		atomic_load(&move->shared->workers[move->owner]);
	int code;

	if (!worker) {
		move_drop(move);
	} else if (move->whole) {
		if (!move_admit(move, worker))
			move_drop(move);
	} else {
		code = move_bind(move, worker);
		turn_bind_failed(worker, &move->remote, code);
		if (code && !move_settle(move, worker, code))
			move_drop(move);
	}
	move_free(move);
}

/* A letter to that worker; NULL without memory. */
static struct move *move_new(const struct request *req, unsigned int owner)
{
	struct move *move = calloc(1, sizeof(*move));

	if (!move)
		return NULL;
	move->shared = req->worker->shared;
	move->owner = owner;
	move->parts.fd = -1;
	move->remote = req->client->remote;
	move->account = req->account ? auth_account_ref(req->account) : NULL;
	move->authenticated = req->client->authenticated;
	move->tx = req->tx;
	memcpy(move->listener, req->client->listener->name, CONF_NAME_MAX);
	return move;
}

/* With what came behind `consumed` bytes. TURN_LATER or a STUN code. */
static int move_post(struct request *req, struct move *move, size_t consumed)
{
	struct turn_shared *shared = req->worker->shared;
	struct turn_worker *to =
		move->owner < shared->worker_count ?
			atomic_load(&shared->workers[move->owner]) :
			NULL;

	if (!to || turn_client_detach(req->client, consumed, &move->parts)) {
		move_free(move);
		return to ? STUN_CODE_SERVER_ERROR : STUN_CODE_BAD_REQUEST;
	}
	loop_post(to->loop, &move->letter, move_arrived);
	return TURN_LATER;
}

int turn_move_send(struct request *req, unsigned int owner,
		   const uint8_t *connection_id)
{
	struct move *move = move_new(req, owner);
	int code;

	if (!move)
		return STUN_CODE_SERVER_ERROR;
	memcpy(move->connection_id, connection_id, TURN_CONNECTION_ID_LEN);
	code = move_post(req, move, req->msg->len);
	if (code == TURN_LATER)
		req->worker->counters.binds_moved++;
	return code;
}

int turn_move_client(struct request *req, unsigned int owner)
{
	struct move *move = move_new(req, owner);

	if (!move)
		return STUN_CODE_SERVER_ERROR;
	move->whole = true;
	return move_post(req, move, 0);
}
