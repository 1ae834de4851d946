/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ConnectionBind (RFC 6062 5.4): a client's connection becomes data.
 *
 * A wrong identifier burns nothing: the connection may try again, the owner's
 * identifier stays good. But guessing is cut short after a few tries.
 */
#include <stdlib.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/syscalls.h"
#include "turn/move.h"
#include "turn/peer_conn.h"

SYSCALLS(SYSCALLS_RELAY, "sendto");

#define GUESSES_MAX 16

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

/* Who guesses does so on new connections, each with its cost. */
static bool guessed_enough(struct client *client)
{
	if (client->bind_failures < GUESSES_MAX)
		return false;
	transport_stream_close(client->stream, STREAM_CLOSE_PROTOCOL);
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
	if (guessed_enough(req->client))
		return TURN_LATER;
	req->client->bind_failures++;
	code = turn_move_client(req, owner);
	if (code == TURN_LATER)
		req->worker->counters.binds_moved++;
	/* No worker's: who he is decides what he hears. */
	return code == STUN_CODE_BAD_REQUEST ? 0 : code;
}

int turn_connection_bind(struct request *req)
{
	struct client *client = req->client;
	unsigned int owner;
	const uint8_t *id = connection_id_read(req, &owner);
	int code;

	if (!id)
		return STUN_CODE_BAD_REQUEST;
	if (guessed_enough(client))
		return TURN_LATER;
	if (owner == req->worker->index)
		code = bind_here(req, id);
	else
		code = turn_move_send(req, owner, id);
	if (code != TURN_LATER)
		client->bind_failures++;
	return code;
}
