/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How many of something scarce the clients of one source have at once. A source is
 * an IPv4 address or the /56 of an IPv6 address. From any thread.
 */
#ifndef TURN_SOURCE_H
#define TURN_SOURCE_H

#include <pthread.h>
#include <stdbool.h>

#include "base/addr.h"
#include "base/table.h"

struct turn_sources {
	pthread_mutex_t lock; /* guards what follows */
	struct table table; /* struct source, while it has any */
};

/* 0 or -ENOMEM. */
int turn_sources_init(struct turn_sources *sources);
void turn_sources_destroy(struct turn_sources *sources);

/*
 * One more for this client's source: false when it has `limit` (0: no limit), or
 * without memory to count it.
 */
bool turn_source_take(struct turn_sources *sources, const union addr *client,
		      unsigned int limit);
void turn_source_release(struct turn_sources *sources,
			 const union addr *client);

#endif
