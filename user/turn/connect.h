/* SPDX-License-Identifier: BSD-2-Clause */
/* The progress of a Connect, told by the peer connection. */
#ifndef TURN_CONNECT_H
#define TURN_CONNECT_H

#include "turn/peer_conn.h"

/* The socket of a connecting one has become writable, or failed. */
void turn_connect_ready(struct peer_conn *conn, uint32_t events);
/* Answers 447 (or 508 for a lack of our own) and ends the connection. */
void turn_connect_failed(struct peer_conn *conn, int error);

#endif
