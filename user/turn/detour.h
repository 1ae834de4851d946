/* SPDX-License-Identifier: BSD-2-Clause */
/* Datagrams that come to one worker and belong to another's allocation. */
#ifndef TURN_DETOUR_H
#define TURN_DETOUR_H

#include "turn/datagram.h"

/*
 * Hands req's datagram, and what comes from the same 5-tuple from now on, to that
 * worker. TURN_LATER, or a STUN code.
 */
int turn_detour_begin(struct request *req, unsigned int owner);
/* Is there one for this 5-tuple? If so the datagram is on its way, or dropped. */
bool turn_detour_take(struct datagram_port *port, const struct udp_path *path,
		      const uint8_t *data, size_t len);
bool turn_detour_has(const struct datagram_port *port,
		     const struct udp_path *path);
/* Ends those of a port that closes. */
void turn_detours_end(struct turn_worker *worker,
		      const struct datagram_port *port);

#endif
