/* SPDX-License-Identifier: BSD-2-Clause */
/* Sources that nothing leaves by now, as the exits' helper says. From any thread. */
#ifndef TURN_DEAD_H
#define TURN_DEAD_H

#include <pthread.h>
#include <stddef.h>

#include "base/addr.h"

struct turn_dead {
	pthread_mutex_t lock; /* guards what follows */
	struct addr_span *spans; /* in order; NULL: nobody has said */
	size_t count;
};

enum turn_way {
	TURN_WAY_UNKNOWN, /* nobody watches the exits */
	TURN_WAY_ALIVE, /* or it is of no exit */
	TURN_WAY_DEAD,
};

void turn_dead_init(struct turn_dead *dead);
void turn_dead_destroy(struct turn_dead *dead);
/* Can packets with this source leave? */
enum turn_way turn_dead_way(struct turn_dead *dead, const union addr *host);

#endif
