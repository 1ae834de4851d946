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
	union addr addr; /* as configured */
	union addr bound; /* with the port that 0 has become */
	bool udp; /* its sockets receive datagrams and do not listen */
	bool served; /* the older set has it under the same name */
	int fds[CONF_MAX_WORKERS];
};

struct socket_set {
	struct socket_group *groups;
	size_t count;
	unsigned int workers;
};

/* What sockets_open stumbled over. */
struct socket_fault {
	char address[ADDR_STRLEN];
	bool own; /* it overlaps another address that `old` listens on */
};

/*
 * Opens what the configuration asks for. The sockets `old` (may be NULL) has for
 * an address are shared, under whatever name. [::] is left out, with a log line,
 * when this kernel has no IPv6 and there are other addresses. 0, or a negative
 * errno with *fault filled; nothing new stays open then.
 */
int sockets_open(const struct conf *conf, unsigned int workers,
		 const struct socket_set *old, struct socket_set *out,
		 struct socket_fault *fault);

/* Closes all but those shared with `keep` (may be NULL); empties the set. */
void sockets_close(struct socket_set *set, const struct socket_set *keep);

/* Gives every socket the backlog its listener is configured with. */
void sockets_set_backlog(const struct socket_set *set, const struct conf *conf);

#endif
