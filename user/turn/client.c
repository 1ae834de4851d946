/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Client connections.
 *
 *   (handshaking ->) fresh -> authenticated -> control (has an allocation) -> over
 *                          -> detached (bound, or moved)  -> over
 *
 * A connection without an allocation lives on borrowed time: from the accept, or
 * from its last authenticated request, unauthenticated_timeout. Bytes alone do
 * not prolong it, so a slow sender gains nothing. Before it has authenticated it
 * costs a struct client, a stream and at most one unfinished message.
 *
 * On a TLS listener the handshake comes first, within handshake_timeout; see
 * stranger.c for the places taken until then. Under DTLS a client is a connection
 * like those, only that there is no stream.
 */
#include "turn/client.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/syscalls.h"
#include "turn/allocation.h"
#include "turn/data.h"
#include "turn/datagram.h"
#include "turn/mobile.h"
#include "turn/proxied.h"
#include "turn/request.h"
#include "turn/stranger.h"
#include "turn/waiting.h"

SYSCALLS(SYSCALLS_RELAY, "getsockname");

/*
 * A CreatePermission for 256 IPv6 peers takes 6 KB, and no request more; a Send
 * indication and ChannelData, of those who are known, have a datagram in them.
 */
#define STRANGERS_MAX ((size_t)16 << 10)

void turn_client_handshake_failed(struct client *client, const char *why)
{
	struct turn_worker *worker = client->worker;
	char remote[ADDR_STRLEN];
	uint64_t suppressed;

	worker->counters.handshake_failures++;
	if (turn_worker_may_log(worker, TURN_LOG_HANDSHAKE, &suppressed))
		log_info(ROOM,
			 "event=handshake_failed listener=%s client=%s "
			 "reason=\"%s\" suppressed=%ju",
			 client->listener->name,
			 addr_format(&client->remote, remote), why,
			 (uintmax_t)suppressed);
}

static void timer_expired(struct timer *timer)
{
	struct client *client = list_entry(timer, struct client, timer);

	if (client->handshaking) {
		turn_client_handshake_failed(client, "not complete in time");
		turn_client_end(client, "handshake_timeout");
		return;
	}
	client->worker->counters.timeouts++;
	turn_client_end(client, "timeout");
}

void turn_client_timer(struct client *client)
{
	struct turn_worker *worker = client->worker;
	uint64_t timeout =
		client->handshaking ?
			turn_limits(worker)->handshake_timeout_ms :
			turn_limits(worker)->unauthenticated_timeout_ms;

	if (!turn_client_connected(client))
		return; /* known for its allocation alone */
	/* A handshake has its time whatever it brings. */
	if ((client->allocation && !client->handshaking) || client->over)
		timer_cancel(worker->loop, &client->timer);
	else
		timer_arm(worker->loop, &client->timer, timeout, timer_expired);
}

int turn_client_message(struct client *client, const uint8_t *data, size_t len)
{
	struct turn_worker *worker = client->worker;
	struct stun_msg msg;

	if (stun_parse(data, len, &msg))
		return -EBADMSG;
	if (stun_check_fingerprint(&msg) < 0) {
		worker->counters.bad_fingerprints++;
		return 0;
	}
	/* Responses and other indications have nothing to say to a server. */
	if (msg.class == STUN_REQUEST)
		turn_request_handle(client, &msg);
	else if (msg.class == STUN_INDICATION && msg.method == STUN_SEND)
		turn_data_send(client, &msg);
	return 0;
}

static ssize_t client_received(void *arg, const uint8_t *data, size_t len)
{
	struct client *client = arg;
	/* Data may still be on their way when the allocation has ended, so who
	 * is known may send them at any time.
	 */
	const bool channel = client->authenticated &&
			     stun_is_channel_data(data, len);
	const size_t most = client->authenticated ? STREAM_MESSAGE_MAX :
						    STRANGERS_MAX;
	ssize_t n = channel ? stun_channel_frame(data, len) :
			      stun_frame(data, len);
	int err = -EBADMSG;

	if (n >= 0 && n <= (ssize_t)most) {
		if (n == 0 || (size_t)n > len)
			return 0;
		err = channel ? turn_data_channel(client, data, (size_t)n) :
				turn_client_message(client, data, (size_t)n);
	}
	if (err) {
		client->worker->counters.bad_messages++;
		return err;
	}
	return client->over || client->waiting ? 0 : n;
}

static const char *close_reason(struct client *client, enum stream_close why)
{
	struct turn_worker *worker = client->worker;
	char remote[ADDR_STRLEN];
	uint64_t suppressed;

	switch (why) {
	case STREAM_CLOSE_EOF:
		return "closed";
	case STREAM_CLOSE_ERROR:
		return "reset";
	case STREAM_CLOSE_SEAL:
		if (client->handshaking)
			turn_client_handshake_failed(
				client, transport_stream_why(client->stream));
		return "tls";
	case STREAM_CLOSE_KEY:
		worker->counters.tls_keys_spent++;
		return "key";
	case STREAM_CLOSE_PROTOCOL:
		return "protocol";
	case STREAM_CLOSE_QUEUE_FULL:
		worker->counters.send_queue_full++;
		if (turn_worker_may_log(worker, TURN_LOG_QUEUE, &suppressed))
			log_warn(
				ROOM,
				"event=send_queue_full client=%s suppressed=%ju",
				addr_format(&client->remote, remote),
				(uintmax_t)suppressed);
		return "send_queue";
	}
	return "";
}

static void client_closed(void *arg, enum stream_close why)
{
	struct client *client = arg;
	const char *reason = close_reason(client, why);

	if (!turn_mobile_waits(client)) {
		turn_client_end(client, reason);
		return;
	}
	client->absent = true;
	turn_waiting_forget_client(client);
	log_debug(ROOM, "event=client_absent reason=%s", reason);
}

void turn_client_send(struct client *client, const uint8_t *data, size_t len)
{
	if (client->stream)
		transport_stream_send(client->stream, data, len);
	else if (client->dtls)
		dtls_send(client->dtls, data, len);
	else
		turn_datagram_send(client, data, len);
}

bool turn_client_send_data(struct client *client, const uint8_t *data,
			   size_t len)
{
	if (client->stream && !transport_stream_has_room(client->stream, len))
		return false;
	if (client->dtls)
		return dtls_send(client->dtls, data, len) == 0;
	turn_client_send(client, data, len);
	return true;
}

void turn_client_idle(struct client *client, const char *reason)
{
	if (turn_client_connected(client))
		turn_client_timer(client);
	else
		turn_client_end(client, reason);
}

void turn_client_close(struct client *client, enum stream_close why)
{
	if (client->stream)
		transport_stream_close(client->stream, why);
	else if (client->dtls)
		dtls_close(client->dtls);
}

static void client_leave_handshake(struct client *client)
{
	if (!client->handshaking)
		return;
	client->handshaking = false;
	client->worker->counters.handshakes--;
	turn_handshake_release(client->worker->shared, &client->remote);
}

void turn_client_opened(struct client *client)
{
	client_leave_handshake(client);
	turn_client_timer(client);
}

static void client_opened(void *arg)
{
	turn_client_opened(arg);
}

static const struct stream_ops client_stream_ops = {
	.received = client_received,
	.opened = client_opened,
	.closed = client_closed,
};

void turn_client_begin(struct client *client)
{
	struct turn_worker *worker = client->worker;

	list_add_tail(&client->link, &worker->clients);
	worker->counters.clients++;
	if (!client->authenticated)
		worker->counters.unauthenticated++;
	if (client->handshaking)
		worker->counters.handshakes++;
	turn_client_timer(client);
}

int turn_client_new(const struct client_origin *origin, struct client **out)
{
	struct turn_worker *worker = origin->worker;
	struct client *client = calloc(1, sizeof(*client));
	const struct stream_params params = {
		.loop = worker->loop,
		.ops = &client_stream_ops,
		.arg = client,
		.message_max = STREAM_MESSAGE_MAX,
		.queue_max = turn_limits(worker)->send_queue,
		.initial = origin->initial,
		.initial_len = origin->initial_len,
		.seal = origin->seal,
	};
	int err;

	if (!client)
		return -ENOMEM;
	err = transport_stream_new(&params, origin->fd, &client->stream);
	if (err) {
		free(client);
		return err;
	}
	client->worker = worker;
	client->listener = turn_listener_ref(origin->listener);
	client->remote = origin->remote;
	client->authenticated = origin->authenticated;
	client->handshaking = origin->seal && !origin->seal->open;
	turn_client_begin(client);
	*out = client;
	return 0;
}

/* Makes a client of it, sealed where the listener is for TLS. */
static int client_make(struct client_origin *origin)
{
	struct tls_server *tls = origin->listener->tls;
	struct client *client;
	int err = tls ? tls_accept(tls, origin->fd, &origin->seal) : 0;

	if (err)
		return err;
	err = turn_client_new(origin, &client);
	if (err)
		seal_free(origin->seal);
	return err;
}

void turn_client_admit(struct turn_listener *listener, int fd,
		       const union addr *remote)
{
	struct turn_worker *worker = listener->worker;
	struct client_origin origin = {
		.worker = worker,
		.listener = listener,
		.fd = fd,
		.remote = *remote,
	};
	const struct stranger stranger = {
		.remote = *remote,
		.descriptor = true,
		.handshake = listener->tls,
	};
	const char *limit = turn_stranger_admit(worker, &stranger);

	if (!limit && client_make(&origin)) {
		turn_stranger_dismiss(worker, &stranger);
		limit = "memory";
	}
	if (limit) {
		turn_stranger_log(worker, limit, remote);
		fd_close(&fd);
	}
}

void turn_client_accepted(struct turn_listener *listener, int fd,
			  const union addr *remote)
{
	listener->worker->counters.accepted++;
	if (listener->conf && listener->conf->proxy_count)
		turn_proxied_accepted(listener, fd, remote);
	else
		turn_client_admit(listener, fd, remote);
}

/* Counts a connection as authenticated, or as gone before it was. */
static void client_leave_unauthenticated(struct client *client)
{
	if (client->authenticated)
		return;
	client->authenticated = true;
	client->worker->counters.unauthenticated--;
	turn_gauge_release(&client->worker->shared->unauthenticated);
}

void turn_client_authenticated(struct client *client)
{
	/* Of datagrams each request is by itself. */
	if (!turn_client_connected(client))
		return;
	client_leave_unauthenticated(client);
	turn_client_timer(client);
}

bool turn_client_sealed(const struct client *client)
{
	return client->stream ? transport_stream_sealed(client->stream) :
				client->dtls != NULL;
}

bool turn_client_local(const struct client *client, union addr *out)
{
	union addr local = client->local;
	socklen_t len = sizeof(local);

	if (client->stream && getsockname(transport_stream_fd(client->stream),
					  &local.sa, &len) < 0)
		return false;
	*out = local;
	return true;
}

/* Common to both ends: it is not among the clients any more. */
static void client_leave(struct client *client)
{
	struct turn_worker *worker = client->worker;

	client->over = true;
	turn_waiting_forget_client(client);
	timer_cancel(worker->loop, &client->timer);
	client_leave_handshake(client);
	client_leave_unauthenticated(client);
	worker->counters.clients--;
	if (!client->stream)
		table_remove(&worker->paths, &client->by_path);
	turn_worker_bury(worker, &client->link, &worker->dead_clients);
}

void turn_client_end(struct client *client, const char *reason)
{
	struct turn_worker *worker = client->worker;
	char remote[ADDR_STRLEN];

	if (client->over)
		return;
	client_leave(client);
	if (!turn_mobile_leave(client) && client->allocation)
		turn_allocation_end(client->allocation, reason, false);
	if (client->stream)
		turn_slot_release(worker->shared);
	else if (client->dtls)
		turn_connection_release(worker->shared);
	turn_client_close(client, STREAM_CLOSE_EOF);
	log_debug(ROOM, "event=client_closed client=%s reason=%s",
		  addr_format(&client->remote, remote), reason);
}

int turn_client_detach(struct client *client, size_t consumed,
		       struct stream_parts *out)
{
	int err = transport_stream_detach(client->stream, consumed, out);

	if (err)
		return err;
	client_leave(client);
	return 0;
}

void turn_client_free(struct client *client)
{
	transport_stream_free(client->stream);
	dtls_free(client->dtls);
	turn_listener_unref(client->listener);
	free(client);
}
