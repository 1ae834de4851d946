/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clients whose messages are datagrams (RFC 8656 2.1).
 *
 * Such a client is a 5-tuple, and its address may be forged: nothing is kept of
 * it before it has shown its credentials. Its struct client lives on the stack
 * while its request is handled; one that gets an allocation lives as long as that
 * and is found by its 5-tuple. Only requests are answered, and who is not known gets
 * no more than the answer must hold.
 *
 * Under DTLS it is another matter, see dtls.c. A listener may change from the one to
 * the other: whom it knows it goes on with.
 */
#include "turn/datagram.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "turn/data.h"
#include "turn/detour.h"
#include "turn/dtls.h"
#include "turn/lane.h"
#include "turn/request.h"
#include "turn/waiting.h"

uint8_t *turn_datagram_room(const struct client *client, size_t len)
{
	const struct udp_path path = {
		.remote = client->remote,
		.local = client->local,
	};

	return udp_send(client->port->socket, &path, len);
}

void turn_datagram_send(const struct client *client, const uint8_t *data,
			size_t len)
{
	uint8_t *at = turn_datagram_room(client, len);

	if (at)
		memcpy(at, data, len);
}

static uint8_t *key_add(uint8_t *at, const union addr *addr)
{
	const uint16_t port = addr_port(addr);
	size_t len;
	const uint8_t *bytes = addr_bytes(addr, &len);

	memcpy(at, bytes, len);
	memcpy(at + len, &port, sizeof(port));
	return at + len + sizeof(port);
}

uint64_t turn_datagram_hash(const union addr *remote, const union addr *local)
{
	uint8_t key[2 * (16 + sizeof(uint16_t))];
	const uint8_t *end = key_add(key_add(key, remote), local);

	return table_hash(key, (size_t)(end - key));
}

static struct client *client_find(const struct datagram_port *port,
				  const struct udp_path *path)
{
	struct table_node *node =
		table_first(&port->listener->worker->paths,
			    turn_datagram_hash(&path->remote, &path->local));

	for (; node; node = table_next(node)) {
		struct client *client =
			list_entry(node, struct client, by_path);

		if (client->port == port &&
		    addr_equal(&client->remote, &path->remote) &&
		    addr_equal(&client->local, &path->local))
			return client;
	}
	return NULL;
}

void turn_datagram_register(struct client *client)
{
	table_insert(&client->worker->paths, &client->by_path,
		     turn_datagram_hash(&client->remote, &client->local));
}

int turn_datagram_keep(struct request *req)
{
	struct turn_worker *worker = req->worker;
	struct client *client;

	if (turn_client_connected(req->client))
		return 0;
	client = malloc(sizeof(*client));
	if (!client)
		return STUN_CODE_INSUFFICIENT_CAPACITY;
	*client = *req->client;
	turn_listener_ref(client->listener);
	list_add_tail(&client->link, &worker->clients);
	turn_datagram_register(client);
	worker->counters.clients++;
	req->client = client;
	return 0;
}

int turn_datagram_handle(struct client *client, const uint8_t *data, size_t len)
{
	return stun_is_channel_data(data, len) ?
		       turn_data_channel(client, data, len) :
		       turn_client_message(client, data, len);
}

static int stranger_handle(struct datagram_port *port,
			   const struct udp_path *path, const uint8_t *data,
			   size_t len)
{
	struct client stranger = {
		.worker = port->listener->worker,
		.listener = port->listener,
		.port = port,
		.remote = path->remote,
		.local = path->local,
		.authenticated = true, /* not counted otherwise */
	};

	return turn_datagram_handle(&stranger, data, len);
}

/* A message of a client, or of a stranger (NULL). */
static int message_handle(struct datagram_port *port, struct client *client,
			  const struct udp_path *path, const uint8_t *data,
			  size_t len)
{
	return client ? turn_datagram_handle(client, data, len) :
			stranger_handle(port, path, data, len);
}

/* Handles one, or has it handled. 0, or -EBADMSG. */
static int datagram_route(struct datagram_port *port,
			  const struct udp_path *path, const uint8_t *data,
			  size_t len)
{
	struct client *client = client_find(port, path);
	const bool sealed = client ? client->dtls != NULL :
				     port->listener->tls != NULL;

	if (!client && !sealed && turn_detour_take(port, path, data, len))
		return 0;
	return sealed ? turn_dtls_received(port, client, path, data, len) :
			message_handle(port, client, path, data, len);
}

/* What was sent to a whole network is ignored: who forges a source would be paid by all. */
static void received(void *arg, const struct udp_path *path,
		     const uint8_t *data, size_t len)
{
	struct datagram_port *port = arg;

	if (addr_family(&path->local) == AF_UNSPEC ||
	    datagram_route(port, path, data, len))
		port->listener->worker->counters.datagrams_ignored++;
}

bool turn_datagram_handed(struct datagram_port *port,
			  const struct udp_path *path, const uint8_t *data,
			  size_t len)
{
	if (!client_find(port, path) && turn_detour_take(port, path, data, len))
		return true;
	turn_datagram_again(port, path, data, len);
	return client_find(port, path) || turn_waiting_from(port, path) ||
	       turn_detour_has(port, path);
}

void turn_datagram_again(struct datagram_port *port,
			 const struct udp_path *path, const uint8_t *data,
			 size_t len)
{
	struct client *client = client_find(port, path);

	/* Under DTLS its client may have gone meanwhile, and another begun. */
	if (client ? !client->handshaking : !port->listener->tls)
		message_handle(port, client, path, data, len);
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

void turn_datagram_tune(struct datagram_port *port)
{
	const struct turn_listener *listener = port->listener;

	udp_socket_trains(port->socket,
			  listener->tls ||
				  !turn_lanes_wanted(listener->worker));
}

void turn_datagram_retire(struct datagram_port *port)
{
	struct turn_worker *worker;
	struct list *pos, *tmp;

	if (!port)
		return;
	worker = port->listener->worker;
	list_for_each_safe(pos, tmp, &worker->clients) {
		struct client *client = list_entry(pos, struct client, link);

		if (client->port == port)
			turn_client_end(client, "listener_removed");
		/* It may have taken the next one with it: what it was before
		 * it moved.
		 */
		if (tmp != &worker->clients &&
		    list_entry(tmp, struct client, link)->over)
			tmp = worker->clients.next;
	}
	turn_waiting_forget_port(worker, port);
	turn_detours_end(worker, port);
	udp_socket_free(port->socket);
	dtls_listener_free(port->dtls);
	free(port);
}

int turn_datagram_fd(const struct datagram_port *port)
{
	return udp_socket_fd(port->socket);
}

const union addr *turn_datagram_addr(const struct datagram_port *port)
{
	return udp_socket_addr(port->socket);
}
