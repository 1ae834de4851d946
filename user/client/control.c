/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control connection: dialling, framing, sending.
 *
 * The server's addresses are tried in order, each with its own time limit; the
 * one that answers is used for the data connections as well (RFC 6062 4.3).
 * Messages are read into a fixed buffer. One that does not fit is skipped, not
 * stored: nothing a server has to say to a TCP allocation is that long. What
 * cannot be sent at once is queued, up to CLIENT_OUT_MAX.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "client/turn_client.h"

static const union addr *server_addr(const struct culvert_client *client)
{
	return &client->server[client->server_index];
}

static void control_fail(struct culvert_client *client, int code,
			 const char *why)
{
	char addr_text[ADDR_STRLEN];
	struct client_failure failure;

	/* A server that has sent us on is free to hang up. */
	if (client->state == CLIENT_REDIRECTED)
		return;
	client_failure_set(&failure, code, "control connection", "%s: %s",
			   addr_format(server_addr(client), addr_text), why);
	client_control_end(client, &failure.error);
}

static void message_handle(struct culvert_client *client, const uint8_t *data,
			   size_t len)
{
	struct stun_msg msg;
	struct stun_attr attr;

	if (stun_parse(data, len, &msg))
		return;
	if (stun_find(&msg, STUN_ATTR_SOFTWARE, &attr))
		client_text_copy(client->software, sizeof(client->software),
				 attr.value, attr.len);
	if (msg.class == STUN_SUCCESS || msg.class == STUN_ERROR)
		client_transaction_answer(client, &msg);
	else if (msg.class == STUN_INDICATION &&
		 msg.method == STUN_CONNECTION_ATTEMPT)
		client_data_attempt(client, &msg);
}

/* Drops the first `len` bytes of the input buffer. */
static void input_drop(struct culvert_client *client, size_t len)
{
	client->in_len -= len;
	memmove(client->in, client->in + len, client->in_len);
}

/* Handles every whole message in the buffer. */
static void input_consume(struct culvert_client *client)
{
	size_t at = 0;

	while (client->state != CLIENT_ENDED) {
		const uint8_t *data = client->in + at;
		size_t left = client->in_len - at;
		ssize_t frame = stun_frame(data, left);

		if (frame < 0) {
			control_fail(client, -EPROTO,
				     "what came is not STUN: is this a TURN "
				     "server's TCP port?");
			return;
		}
		if (frame > CLIENT_IN_MAX) {
			client->skip = (size_t)frame - left;
			at = client->in_len;
			break;
		}
		if (frame == 0 || (size_t)frame > left)
			break;
		at += (size_t)frame;
		message_handle(client, data, (size_t)frame);
	}
	if (client->state != CLIENT_ENDED)
		input_drop(client, at);
}

/* Counts what was read against the message that is being skipped. */
static void input_skip(struct culvert_client *client)
{
	size_t len = client->skip < client->in_len ? client->skip :
						     client->in_len;

	client->skip -= len;
	input_drop(client, len);
}

static const char *error_text(const struct seal *seal, int err)
{
	return seal && seal->why ? seal->why : strerror(-err);
}

static void control_watch(struct culvert_client *client)
{
	uint32_t events = EPOLLIN | (client->out_len ? EPOLLOUT : 0);

	if (client->seal && client->seal->blocked)
		events = EPOLLOUT;
	watch_set(client->loop, &client->watch, events);
}

static void control_read(struct culvert_client *client)
{
	ssize_t n = seal_recv(client->seal, client->watch.fd,
			      client->in + client->in_len,
			      sizeof(client->in) - client->in_len);

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n < 0) {
		control_fail(client, (int)n, error_text(client->seal, (int)n));
		return;
	}
	if (n == 0) {
		control_fail(client, -EPIPE,
			     "the server closed the connection");
		return;
	}
	client->in_len += (size_t)n;
	input_skip(client);
	input_consume(client);
}

static void control_flush(struct culvert_client *client)
{
	ssize_t n = seal_send(client->seal, client->watch.fd, client->out,
			      client->out_len);
	size_t gone;

	if (n == -EAGAIN || n == -EINTR)
		return;
	/* One that takes no more is ready for ever: nothing may wait for it. */
	gone = n < 0 ? client->out_len : (size_t)n;
	client->out_len -= gone;
	memmove(client->out, client->out + gone, client->out_len);
	if (client->out_len)
		return;
	free(client->out);
	client->out = NULL;
	client->out_cap = 0;
	control_watch(client);
	if (n < 0)
		control_fail(client, (int)n, error_text(client->seal, (int)n));
}

static void control_ready(struct watch *watch, uint32_t events)
{
	struct culvert_client *client =
		list_entry(watch, struct culvert_client, watch);

	bool blocked = client->seal && client->seal->blocked;

	if (events & EPOLLOUT && client->out_len)
		control_flush(client);
	if (client->watch.fd < 0)
		return;
	if (events & ~EPOLLOUT || blocked)
		control_read(client);
	/* Of this no polling would tell; the seal goes when the client ends. */
	while (client->seal && client->seal->more)
		control_read(client);
	if (client->seal)
		control_watch(client);
}

static int output_queue(struct culvert_client *client, const uint8_t *data,
			size_t len)
{
	size_t want = client->out_len + len;
	uint8_t *grown;

	if (want > CLIENT_OUT_MAX)
		return -ENOBUFS;
	if (want > client->out_cap) {
		grown = realloc(client->out, want * 2);
		if (!grown)
			return -ENOMEM;
		client->out = grown;
		client->out_cap = want * 2;
	}
	memcpy(client->out + client->out_len, data, len);
	client->out_len = want;
	control_watch(client);
	return 0;
}

int client_control_send(struct culvert_client *client, const void *data,
			size_t len)
{
	const uint8_t *rest = data;
	ssize_t n;

	if (client->watch.fd < 0)
		return -ENOTCONN;
	/* Half a message on the wire cannot be taken back: be sure of room
	 * before the first byte.
	 */
	if (client->out_len)
		return output_queue(client, rest, len);
	n = seal_send(client->seal, client->watch.fd, rest, len);
	if (n == (ssize_t)len)
		return 0;
	if (n < 0 && n != -EAGAIN && n != -EINTR)
		return 0; /* the watch will tell, and end the client */
	if (n < 0)
		n = 0;
	return output_queue(client, rest + n, len - (size_t)n);
}

static void control_dialled(struct client_dial *dial, int fd)
{
	struct culvert_client *client =
		list_entry(dial, struct culvert_client, dial);
	int err;

	if (fd < 0) {
		if (client->server_index + 1 < client->server_count) {
			client->server_index++;
			client_control_dial(client);
			return;
		}
		control_fail(client, fd, dial->why ? dial->why : strerror(-fd));
		return;
	}
	err = watch_add(client->loop, &client->watch, fd, EPOLLIN,
			control_ready);
	if (err) {
		seal_free(dial->seal);
		fd_close(&fd);
		control_fail(client, err, strerror(-err));
		return;
	}
	client->seal = dial->seal;
	client_control_connected(client);
}

void client_control_dial(struct culvert_client *client)
{
	client_dial_start(&client->dial, client->loop, server_addr(client),
			  client->options.dial_timeout_ms, client->tls,
			  client->tls_name, control_dialled);
}

void client_control_stop(struct culvert_client *client)
{
	int fd = client->watch.fd;

	client_dial_cancel(&client->dial);
	client->in_len = client->skip = 0;
	watch_del(client->loop, &client->watch);
	seal_free(client->seal);
	client->seal = NULL;
	fd_close(&fd);
	free(client->out);
	client->out = NULL;
	client->out_len = client->out_cap = 0;
}
