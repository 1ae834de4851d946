/* SPDX-License-Identifier: BSD-2-Clause */
/* A local listening socket of the command. */
#ifndef CLIENT_LISTENER_H
#define CLIENT_LISTENER_H

#include <stdbool.h>

#include "base/addr.h"
#include "base/log.h"
#include "loop/loop.h"

/* Embedded in its owner. */
struct client_listener {
	struct loop *loop;
	struct watch watch;
	struct timer rest; /* after descriptors ran out */
	union addr addr; /* with the port the kernel chose */
	bool paused;
	struct log_limit failures; /* messages about accept(2) */
	/* A connection: nonblocking, CLOEXEC; the callee's. */
	void (*accepted)(struct client_listener *listener, int fd,
			 const union addr *from);
};

/* 0, or a negative errno of socket, bind or listen. */
int client_listener_open(struct client_listener *listener, struct loop *loop,
			 const union addr *addr,
			 void (*accepted)(struct client_listener *listener,
					  int fd, const union addr *from));
/* While paused connections wait in the kernel's backlog. */
void client_listener_pause(struct client_listener *listener, bool paused);
void client_listener_close(struct client_listener *listener);

#endif
