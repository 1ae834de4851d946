/* SPDX-License-Identifier: BSD-2-Clause */
/* Relayed sockets: listening on a relayed port, and dialling from it. */
#ifndef TURN_PORT_H
#define TURN_PORT_H

#include "turn/shared.h"

/* What a relayed port shall be. */
struct port_wish {
	uint16_t min, max;
	bool udp; /* else it listens, for TCP */
	bool even;
	unsigned int mss; /* the largest segment to ask peers for; 0: the
			   * kernel's */
};

/*
 * Finds a free port at relayed->addr's host, binds to it and registers it:
 * relayed->addr then has the port. Returns the nonblocking descriptor,
 * -EADDRINUSE when no port was found, or what socket(2), bind(2) and listen(2)
 * say.
 */
int turn_port_open(struct turn_shared *shared, const struct port_wish *wish,
		   struct relayed *relayed);
/* The same for an even one and the next. 0 with both descriptors, or an errno. */
int turn_port_open_pair(struct turn_shared *shared,
			const struct port_wish *wish, struct relayed *relayed,
			struct relayed *next, int *fd, int *next_fd);

/*
 * Starts a connection from the relayed transport address to a peer. Returns the
 * nonblocking descriptor with *connected set, or a negative errno.
 */
int turn_port_dial(const union addr *relayed, const union addr *peer,
		   unsigned int mss, bool *connected);

/* What every relayed leg gets: TCP_NODELAY. */
void turn_port_tune(int fd);

#endif
