/* SPDX-License-Identifier: BSD-2-Clause */
/* Clients whose messages are datagrams. */
#ifndef TURN_DATAGRAM_H
#define TURN_DATAGRAM_H

#include "turn/client.h"

/* A socket that such clients send to. */
struct datagram_port;

/* Serves a socket of udp_open; takes it over on success. 0 or a negative errno. */
int turn_datagram_serve(struct turn_listener *listener, int fd,
			struct datagram_port **out);
void turn_datagram_retire(struct datagram_port *port);
int turn_datagram_fd(const struct datagram_port *port);

/* Sends a client one message. */
void turn_datagram_send(const struct client *client, const uint8_t *data,
			size_t len);

#endif
