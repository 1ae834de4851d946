/* SPDX-License-Identifier: BSD-2-Clause */
/* Data connections over TLS, as descriptors that anybody can use. */
#ifndef CLIENT_TUNNEL_H
#define CLIENT_TUNNEL_H

#include "base/seal.h"
#include "culvert/client.h"

/*
 * Takes a sealed connection over and gives a plain one for it: a TCP socket of
 * this host whose other end is joined with it, on the loop. `early` is what was
 * unsealed already. Returns the nonblocking descriptor, the caller's, or a negative
 * errno with nothing taken.
 */
int client_tunnel_new(struct culvert_loop *loop, int fd, struct seal *seal,
		      const void *early, size_t early_len);
/* Resets those that are left. */
void client_tunnels_free(struct culvert_loop *loop);

#endif
