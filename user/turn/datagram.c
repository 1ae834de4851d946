/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clients whose messages are datagrams (RFC 8656 2.1).
 *
 * Such a client is a 5-tuple, and its address may be forged: nothing is kept of
 * it before it has shown its credentials. Its struct client lives on the stack
 * while its request is handled. Only requests are answered, and who is not known
 * gets no more than the answer must hold.
 */
#include "turn/datagram.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "turn/request.h"

struct datagram_port {
	struct turn_listener *listener;
	struct udp_socket *socket;
};

void turn_datagram_send(const struct client *client, const uint8_t *data,
			size_t len)
{
	const struct udp_path path = {
		.remote = client->remote,
		.local = client->local,
	};
	uint8_t *at = udp_send(client->port->socket, &path, len);

	if (at)
		memcpy(at, data, len);
}

static void received(void *arg, const struct udp_path *path,
		     const uint8_t *data, size_t len)
{
	struct datagram_port *port = arg;
	struct turn_worker *worker = port->listener->worker;
	struct client stranger = {
		.worker = worker,
		.listener = port->listener,
		.port = port,
		.remote = path->remote,
		.local = path->local,
	};

	if (turn_client_message(&stranger, data, len))
		worker->counters.datagrams_ignored++;
}

int turn_datagram_serve(struct turn_listener *listener, int fd,
			struct datagram_port **out)
{
	struct datagram_port *port = calloc(1, sizeof(*port));
	int err;

	if (!port)
		return -ENOMEM;
	port->listener = listener;
	err = udp_socket_new(listener->worker->udp, fd, received, port,
			     &port->socket);
	if (err) {
		free(port);
		return err;
	}
	*out = port;
	return 0;
}

void turn_datagram_retire(struct datagram_port *port)
{
	if (!port)
		return;
	udp_socket_free(port->socket);
	free(port);
}

int turn_datagram_fd(const struct datagram_port *port)
{
	return udp_socket_fd(port->socket);
}
