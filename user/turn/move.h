/* SPDX-License-Identifier: BSD-2-Clause */
/* A data connection that goes to the worker that owns the peer connection. */
#ifndef TURN_MOVE_H
#define TURN_MOVE_H

#include "turn/request.h"

/* Posts req's connection to another worker. TURN_LATER, or a STUN code. */
int turn_move_send(struct request *req, unsigned int owner,
		   const uint8_t *connection_id);

#endif
