/* SPDX-License-Identifier: BSD-2-Clause */
/* Relayed sockets: listening on a relayed port, and dialling from it. */
#ifndef TURN_PORT_H
#define TURN_PORT_H

#include "turn/shared.h"

/*
 * Finds a free port of [min, max] at relayed->addr's host, listens there and
 * registers it: relayed->addr then has the port. Returns the nonblocking
 * descriptor, -EADDRINUSE when no port was found, or what socket(2), bind(2)
 * and listen(2) say. mss: the largest segment to ask peers for; 0: the kernel's.
 */
int turn_port_listen(struct turn_shared *shared, uint16_t min, uint16_t max,
		     unsigned int mss, struct relayed *relayed);

/*
 * Starts a connection from the relayed transport address to a peer. Returns the
 * nonblocking descriptor with *connected set, or a negative errno.
 */
int turn_port_dial(const union addr *relayed, const union addr *peer,
		   unsigned int mss, bool *connected);

/* What every relayed leg gets: TCP_NODELAY and keep-alive. */
void turn_port_tune(int fd, uint64_t keepalive_ms);

#endif
