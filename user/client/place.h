/* SPDX-License-Identifier: BSD-2-Clause */
/* A host and a port as people write them, and what they stand for. */
#ifndef CLIENT_PLACE_H
#define CLIENT_PLACE_H

#include <stddef.h>

#include "base/addr.h"

struct client_place {
	char host[256];
	char port[6]; /* "" when it was not given */
};

/*
 * Splits HOST, HOST:PORT, IPV6, [IPV6] or [IPV6]:PORT, `len` bytes of text.
 * Returns 0 or -EINVAL.
 */
int client_place_split(struct client_place *place, const char *text,
		       size_t len);

/*
 * The address of HOST:PORT, or of PORT alone on default_host unless that is NULL;
 * looks names up, which blocks, and prefers IPv4. Returns 0; after saying what is
 * wrong, naming `what`: -EINVAL not such a text, -ENOENT no such host.
 */
int client_endpoint_find(const char *what, const char *text,
			 const char *default_host, union addr *out);

/*
 * Reads "IP,IP,..." of one address family, at most `max`; *count of them. Says
 * what is wrong and returns -EINVAL then.
 */
int client_allow_read(const char *text, union addr *out, size_t max,
		      size_t *count);

#endif
