/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether another exit router of the site is alive, where no routing protocol says so
 * (health = probe): it is asked, and one that is silent takes its exit away.
 */
#ifndef EXIT_PROBE_H
#define EXIT_PROBE_H

#include "exit/internal.h"
#include "loop/loop.h"

struct prober;

/* The address that an exit is probed by. Pure. False: it is not probed. */
bool probe_anycast(const struct conf_exit *exit, union addr *out);

/*
 * Asks on the loop from now on, by the socket of exit_probe_socket(), which becomes its
 * own; tells health, and calls fn when that may have changed. host is looked at each
 * time. 0 or a negative errno; the socket is closed then.
 */
struct prober_params {
	const struct conf *conf;
	const struct exit_host *host;
	struct health *health;
	void (*fn)(void *arg);
	void *arg;
};
int prober_new(struct loop *loop, const struct prober_params *params,
	       int socket, struct prober **out);
void prober_free(struct prober *prober); /* accepts NULL */

#endif
