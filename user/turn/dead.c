/* SPDX-License-Identifier: BSD-2-Clause */
/* Sources without a way out: replaced whole by whoever knows, searched by Allocate. */
#include "turn/dead.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "turn/shared.h"

void turn_dead_init(struct turn_dead *dead)
{
	*dead = (struct turn_dead){ .spans = NULL };
	pthread_mutex_init(&dead->lock, NULL);
}

void turn_dead_destroy(struct turn_dead *dead)
{
	free(dead->spans);
	pthread_mutex_destroy(&dead->lock);
}

int turn_shared_dead(struct turn_shared *shared, const struct addr_span *spans,
		     size_t count)
{
	struct turn_dead *dead = &shared->dead;
	struct addr_span *copy = calloc(count + 1, sizeof(*copy));
	struct addr_span *old;

	if (!copy)
		return -ENOMEM;
	if (count)
		memcpy(copy, spans, count * sizeof(*copy));
	pthread_mutex_lock(&dead->lock);
	old = dead->spans;
	dead->spans = copy;
	dead->count = count;
	pthread_mutex_unlock(&dead->lock);
	free(old);
	return 0;
}

static int span_find(const void *key, const void *item)
{
	return addr_span_place(item, key);
}

enum turn_way turn_dead_way(struct turn_dead *dead, const union addr *host)
{
	enum turn_way way = TURN_WAY_UNKNOWN;

	pthread_mutex_lock(&dead->lock);
	if (dead->spans)
		way = bsearch(host, dead->spans, dead->count,
			      sizeof(dead->spans[0]), span_find) ?
			      TURN_WAY_DEAD :
			      TURN_WAY_ALIVE;
	pthread_mutex_unlock(&dead->lock);
	return way;
}
