/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A client while it speaks STUN: a connection, for control or not yet bound, or a
 * 5-tuple of datagrams.
 */
#ifndef TURN_CLIENT_H
#define TURN_CLIENT_H

#include "transport/dtls.h"
#include "turn/worker.h"

struct allocation;
struct datagram_port;
struct waiting;

struct client {
	struct list link; /* of worker->clients, or dead_clients */
	struct turn_worker *worker;
	struct stream *stream; /* NULL: its messages are datagrams */
	struct datagram_port *port; /* these arrive here; NULL: a stream */
	struct dtls *dtls; /* under this; NULL: plain ones, or a stream */
	union addr local; /* and were sent to this */
	struct table_node by_path; /* of worker->paths: both addresses */
	struct turn_listener *listener;
	struct allocation *allocation; /* that it controls, or did (mobile.c) */
	struct waiting *waiting; /* its connection is paused for; NULL: not */
	union addr remote;
	uint64_t mss_ms; /* when mss was read */
	unsigned int mss; /* of its connection (turn_wire_mss); 0: not known */
	struct timer timer; /* runs while there is no allocation */
	bool over; /* dead: waits to be freed */
	bool absent; /* its connection is gone, and a mobile allocation waits */
	bool authenticated; /* a request was, once */
	bool handshaking; /* of TLS or DTLS: counted among the half-open */
	bool fingerprint; /* its last request had one */
};

/*
 * A stream or an association: its address is not forged, and it lasts without an
 * allocation. Plain datagrams have neither.
 */
static inline bool turn_client_connected(const struct client *client)
{
	return client->stream || client->dtls;
}

/* How a connection comes to a worker. */
struct client_origin {
	struct turn_worker *worker;
	struct turn_listener *listener;
	int fd;
	struct seal *seal; /* NULL: none */
	union addr remote;
	bool authenticated; /* moved here: it has a slot already */
	const uint8_t *initial; /* bytes read before; copied */
	size_t initial_len;
};

/* Takes origin->fd, its seal and its slot over on success. 0 or a negative errno. */
int turn_client_new(const struct client_origin *origin, struct client **out);

/* A connection that is set up otherwise: counts it and starts its time. */
void turn_client_begin(struct client *client);
/* Its handshake is complete, or has failed. */
void turn_client_opened(struct client *client);
void turn_client_handshake_failed(struct client *client, const char *why);

/* A new connection from a listener, whose client a proxy may have to name first. */
void turn_client_accepted(struct turn_listener *listener, int fd,
			  const union addr *remote);

/* A connection of a client at this address: takes its places or closes it. */
void turn_client_admit(struct turn_listener *listener, int fd,
		       const union addr *remote);

/*
 * One whole message. The client may be over or detached afterwards. 0, or -EBADMSG:
 * it is not STUN.
 */
int turn_client_message(struct client *client, const uint8_t *data, size_t len);
/* Sends it one message. */
void turn_client_send(struct client *client, const uint8_t *data, size_t len);
/* The same with data, which may be lost: false, and the client stays as it is. */
bool turn_client_send_data(struct client *client, const uint8_t *data,
			   size_t len);
/* Its allocation is over: a connection may make another, datagrams are forgotten. */
void turn_client_idle(struct client *client, const char *reason);

/* Closes a connection, if it is one: what follows from that comes later. */
void turn_client_close(struct client *client, enum stream_close why);
/* Ends the connection and its allocation; frees later. */
void turn_client_end(struct client *client, const char *reason);

/*
 * Takes the socket out, with the bytes behind `consumed`: the connection
 * becomes data, here or on another worker. The client is freed later; its slot
 * goes with the descriptor. 0, -EAGAIN (answers wait to be sent), -ENOMEM.
 */
int turn_client_detach(struct client *client, size_t consumed,
		       struct stream_parts *out);

/* Is what it says encrypted? */
bool turn_client_sealed(const struct client *client);
/* The address that it has dialled, with the port; false: that is not known. */
bool turn_client_local(const struct client *client, union addr *out);

/* Notes that a request was authentic. */
void turn_client_authenticated(struct client *client);
/* Without an allocation a connection must get on with it. */
void turn_client_timer(struct client *client);

void turn_client_free(struct client *client); /* the reaper's */

#endif
