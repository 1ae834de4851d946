/* SPDX-License-Identifier: BSD-2-Clause */
/* Clients whose messages are datagrams. */
#ifndef TURN_DATAGRAM_H
#define TURN_DATAGRAM_H

#include "turn/client.h"

struct request;

/* A socket that such clients send to. */
struct datagram_port {
	struct turn_listener *listener;
	struct udp_socket *socket;
	struct dtls_listener *dtls; /* made with the first ClientHello */
};

/* Serves a socket of udp_open; takes it over on success. 0 or a negative errno. */
int turn_datagram_serve(struct turn_listener *listener, int fd,
			struct datagram_port **out);
/* What the settings say of it. */
void turn_datagram_tune(struct datagram_port *port);
/* Closes it; its clients' allocations end. Accepts NULL. */
void turn_datagram_retire(struct datagram_port *port);
int turn_datagram_fd(const struct datagram_port *port);
/* What it is bound to. */
const union addr *turn_datagram_addr(const struct datagram_port *port);

/*
 * The request has shown credentials and asks for an allocation: a client that
 * lives on the stack is replaced by one that lives as long as that. 0 or 508.
 */
int turn_datagram_keep(struct request *req);

/* A request that arrived there is handled again. */
void turn_datagram_again(struct datagram_port *port,
			 const struct udp_path *path, const uint8_t *data,
			 size_t len);
/* Makes a client known by its 5-tuple, until it is over. */
void turn_datagram_register(struct client *client);
/* A whole message of a client. 0, or -EBADMSG: it is nothing that a client sends. */
int turn_datagram_handle(struct client *client, const uint8_t *data,
			 size_t len);

/*
 * A datagram that has come to another worker's socket of the same address. False:
 * it was handled, and nobody is known by its 5-tuple, which has no detour from here
 * either, and no request from it waits.
 */
bool turn_datagram_handed(struct datagram_port *port,
			  const struct udp_path *path, const uint8_t *data,
			  size_t len);
uint64_t turn_datagram_hash(const union addr *remote, const union addr *local);

/* Room for one message to a client, to be filled at once; NULL: it is too long. */
uint8_t *turn_datagram_room(const struct client *client, size_t len);
/* Sends a client one datagram as it is. */
void turn_datagram_send(const struct client *client, const uint8_t *data,
			size_t len);

#endif
