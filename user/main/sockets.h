/* SPDX-License-Identifier: BSD-2-Clause */
/* Listening sockets: the supervisor opens and keeps them, workers serve them. */
#ifndef MAIN_SOCKETS_H
#define MAIN_SOCKETS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/addr.h"
#include "conf/conf.h"

/* One address of one [listener]: a socket for each worker. */
struct socket_group {
	char name[CONF_NAME_MAX];
	union addr addr;
	bool kept; /* shared with an older set while one replaces the other */
	int fds[CONF_MAX_WORKERS];
};

struct socket_set {
	struct socket_group *groups;
	size_t count;
	unsigned int workers;
};

/*
 * Opens what the configuration asks for. Sockets that `old` (may be NULL) has
 * for the same name and address are shared, marked kept. 0, or a negative errno
 * with *where naming the address that failed; nothing stays open then.
 */
int sockets_open(const struct conf *conf, unsigned int workers,
		 const struct socket_set *old, struct socket_set *out,
		 char where[ADDR_STRLEN]);

/* Closes all but those that `keep` (may be NULL) has too; empties the set. */
void sockets_close(struct socket_set *set, const struct socket_set *keep);

#endif
