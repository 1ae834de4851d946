/* SPDX-License-Identifier: BSD-2-Clause */
/* A connection that goes to the worker that owns what it asks for. */
#ifndef TURN_MOVE_H
#define TURN_MOVE_H

#include "turn/request.h"

/* Posts req's connection to another worker. TURN_LATER, or a STUN code. */
int turn_move_send(struct request *req, unsigned int owner,
		   const uint8_t *connection_id);

/*
 * Posts req's connection with this very request to the worker that has its
 * allocation, to be handled there, authenticated or not. TURN_LATER, or a STUN code.
 */
int turn_move_client(struct request *req, unsigned int owner);

#endif
