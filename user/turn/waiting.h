/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests whose sender the user database must be asked for. */
#ifndef TURN_WAITING_H
#define TURN_WAITING_H

#include "turn/request.h"

/*
 * Asks for whoever is named by `key`, and handles the request again when that is
 * known. TURN_LATER, or the code to answer when it cannot wait.
 */
int turn_waiting_new(struct request *req, const struct store_key *key);
/* Does a request wait that came by this path? */
bool turn_waiting_from(const struct datagram_port *port,
		       const struct udp_path *path);
/* What it came from is gone: nobody is answered. */
void turn_waiting_forget_client(struct client *client);
void turn_waiting_forget_port(struct turn_worker *worker,
			      const struct datagram_port *port);

#endif
