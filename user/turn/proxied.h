/* SPDX-License-Identifier: BSD-2-Clause */
/* Connections of which a proxy has to say first where they come from. */
#ifndef TURN_PROXIED_H
#define TURN_PROXIED_H

#include "turn/worker.h"

/* A new connection from `proxy`: takes it over, or closes it. */
void turn_proxied_accepted(struct turn_listener *listener, int fd,
			   const union addr *proxy);
/* Closes those of a listener that are not clients yet. */
void turn_proxied_close(struct turn_listener *listener);

#endif
