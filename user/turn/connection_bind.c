/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ConnectionBind (RFC 6062 5.4): a client's connection becomes data.
 *
 * A wrong identifier burns nothing: the connection may try again, the owner's
 * identifier stays good. But a source has only so many ([limits] bind_failures).
 */
#include <stdlib.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "turn/move.h"
#include "turn/peer_conn.h"

SYSCALLS(SYSCALLS_RELAY, "sendto");

/* The socket is no stream any more, so the bad news goes out by hand. */
static void late_error(struct client *client, const struct transaction *tx,
		       int code, struct stream_parts *parts)
{
	uint8_t buf[TURN_ANSWER_MAX];
	ssize_t len = turn_answer_error_write(client, tx, code, buf);

	if (len > 0)
		(void)!seal_send(parts->seal, parts->fd, buf, (size_t)len);
	fd_close(&parts->fd);
	seal_free(parts->seal);
	turn_slot_release(client->worker->shared);
}

static int bind_here(struct request *req, const uint8_t *connection_id)
{
	struct client *client = req->client;
	struct bind bind = { .tx = &req->tx, .client = client->remote };
	struct stream_parts parts;
	struct peer_conn *conn;
	int code = turn_bind_find(req->worker, connection_id, req->account,
				  transport_stream_sealed(client->stream),
				  &conn);

	if (code)
		return code;
	if (turn_client_detach(client, req->msg->len, &parts))
		return STUN_CODE_SERVER_ERROR;
	bind.fd = parts.fd;
	bind.seal = parts.seal;
	bind.early = parts.rest;
	bind.early_len = parts.rest_len;
	code = turn_bind_join(conn, &bind);
	if (code)
		late_error(client, &req->tx, code, &parts);
	free(parts.rest);
	return TURN_LATER;
}

/* NULL: it can be nobody's. */
static const uint8_t *connection_id_read(const struct request *req,
					 unsigned int *owner)
{
	const struct client *client = req->client;
	struct stun_attr attr;

	if (!client->stream || client->allocation ||
	    !stun_find(req->msg, STUN_ATTR_CONNECTION_ID, &attr) ||
	    attr.len != TURN_CONNECTION_ID_LEN)
		return NULL;
	*owner = get_be32(attr.value) >> TURN_CONNECTION_ID_RANDOM_BITS;
	return attr.value;
}

void turn_bind_failed(struct turn_worker *worker, const union addr *from,
		      int code)
{
	unsigned int limit = turn_limits(worker)->bind_failures;
	char remote[ADDR_STRLEN];
	uint64_t suppressed;

	if (code != STUN_CODE_BAD_REQUEST &&
	    code != STUN_CODE_WRONG_CREDENTIALS)
		return;
	worker->counters.bind_failures++;
	if (auth_guard_failed(worker->shared->guard, from,
			      AUTH_GUARD_IDENTIFIER, limit,
			      loop_now(worker->loop)) &&
	    turn_worker_may_log(worker, TURN_LOG_GUESSES, &suppressed))
		log_warn(
			ROOM,
			"event=guessing client=%s identifiers=%u "
			"effect=\"its ConnectionBinds are ignored for a while\" "
			"suppressed=%ju",
			addr_format(from, remote), limit,
			(uintmax_t)suppressed);
}

/* Too many came from there. No answer: it would tell whether this one is right. */
static bool guessed_enough(const struct request *req)
{
	struct turn_worker *worker = req->worker;

	if (auth_guard_allows(worker->shared->guard, &req->client->remote,
			      AUTH_GUARD_IDENTIFIER,
			      turn_limits(worker)->bind_failures,
			      loop_now(worker->loop)))
		return false;
	worker->counters.binds_limited++;
	turn_client_close(req->client, STREAM_CLOSE_PROTOCOL);
	return true;
}

int turn_bind_session(struct request *req, const struct allocation **out)
{
	unsigned int owner;
	const uint8_t *id = connection_id_read(req, &owner);
	int code;

	if (!id || !auth_session_wanted(req->worker->settings->auth, req->msg))
		return 0;
	if (owner == req->worker->index) {
		*out = turn_bind_owner(req->worker, id);
		return 0;
	}
	if (guessed_enough(req))
		return TURN_LATER;
	code = turn_move_client(req, owner);
	if (code == TURN_LATER)
		req->worker->counters.binds_moved++;
	/* No worker's: who he is decides what he hears. */
	return code == STUN_CODE_BAD_REQUEST ? 0 : code;
}

int turn_connection_bind(struct request *req)
{
	unsigned int owner;
	const uint8_t *id = connection_id_read(req, &owner);
	int code;

	if (!id)
		return STUN_CODE_BAD_REQUEST;
	if (guessed_enough(req))
		return TURN_LATER;
	if (owner == req->worker->index)
		code = bind_here(req, id);
	else
		code = turn_move_send(req, owner, id);
	turn_bind_failed(req->worker, &req->client->remote, code);
	return code;
}
