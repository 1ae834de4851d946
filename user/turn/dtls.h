/* SPDX-License-Identifier: BSD-2-Clause */
/* Clients whose messages are datagrams under DTLS. */
#ifndef TURN_DTLS_H
#define TURN_DTLS_H

#include "turn/datagram.h"

/* A datagram of such a client; NULL: of nobody yet. 0 or -EBADMSG: nothing came of it. */
int turn_dtls_received(struct datagram_port *port, struct client *client,
		       const struct udp_path *path, const uint8_t *data,
		       size_t len);

#endif
