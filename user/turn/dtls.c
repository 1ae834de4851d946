/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clients over DTLS.
 *
 * A client is a 5-tuple, as over UDP, but its address is proven by the cookie, so it
 * is a connection in all else: it has a place among them, a time to complete its
 * handshake and to authenticate, and it ends with its association. From another
 * address it is another client. Who begins anew from the same 5-tuple has lost his
 * old association, and proves by the cookie that it is he (RFC 6347 4.2.8).
 */
#include "turn/dtls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "turn/stranger.h"

static void association_send(void *arg, const uint8_t *data, size_t len)
{
	turn_datagram_send(arg, data, len);
}

static void association_opened(void *arg)
{
	turn_client_opened(arg);
}

static void association_received(void *arg, const uint8_t *data, size_t len)
{
	struct client *client = arg;

	if (!client->over && turn_datagram_handle(client, data, len))
		client->worker->counters.datagrams_ignored++;
}

static void association_closed(void *arg)
{
	struct client *client = arg;
	const char *why = dtls_why(client->dtls);

	if (why && client->handshaking)
		turn_client_handshake_failed(client, why);
	turn_client_end(client, why ? "dtls" : "closed");
}

static const struct dtls_ops association_ops = {
	.send = association_send,
	.opened = association_opened,
	.received = association_received,
	.closed = association_closed,
};

static void cookie_send(void *arg, const struct udp_path *path,
			const uint8_t *data, size_t len)
{
	struct datagram_port *port = arg;
	uint8_t *at = udp_send(port->socket, path, len);

	if (at)
		memcpy(at, data, len);
}

static struct client *client_new(struct datagram_port *port,
				 const struct udp_path *path)
{
	struct turn_worker *worker = port->listener->worker;
	struct client *client = calloc(1, sizeof(*client));

	if (!client)
		return NULL;
	client->worker = worker;
	client->listener = turn_listener_ref(port->listener);
	client->port = port;
	client->remote = path->remote;
	client->local = path->local;
	client->handshaking = true;
	client->dtls =
		dtls_accept(port->dtls, worker->loop, &association_ops, client);
	turn_datagram_register(client);
	turn_client_begin(client);
	return client;
}

/* Somebody who is where he says wants to begin. */
static void client_admit(struct datagram_port *port,
			 const struct udp_path *path)
{
	struct turn_worker *worker = port->listener->worker;
	const struct stranger stranger = {
		.remote = path->remote,
		.handshake = true,
	};
	const char *limit = turn_stranger_admit(worker, &stranger);
	struct client *client = limit ? NULL : client_new(port, path);

	worker->counters.accepted++;
	if (client) {
		dtls_begin(client->dtls);
		return;
	}
	if (!limit) {
		turn_stranger_dismiss(worker, &stranger);
		limit = "memory";
	}
	turn_stranger_log(worker, limit, &path->remote);
}

static int hello(struct datagram_port *port, struct client *old,
		 const struct udp_path *path, const uint8_t *data, size_t len)
{
	struct turn_worker *worker = port->listener->worker;
	int err = 0;

	if (!port->dtls)
		err = dtls_listener_new(cookie_send, port, &port->dtls);
	if (!err)
		err = dtls_listener_hello(port->dtls, port->listener->tls, path,
					  data, len);
	if (err == -EAGAIN)
		worker->counters.cookies_sent++;
	if (err)
		return err == -EBADMSG ? err : 0;
	if (old)
		turn_client_end(old, "replaced");
	client_admit(port, path);
	return 0;
}

int turn_dtls_received(struct datagram_port *port, struct client *client,
		       const struct udp_path *path, const uint8_t *data,
		       size_t len)
{
	/* After a reload there may be no DTLS here but for who has it. */
	if (!client ||
	    (port->listener->tls && dtls_begins_anew(client->dtls, data, len)))
		return hello(port, client, path, data, len);
	dtls_feed(client->dtls, data, len);
	return 0;
}
