/* SPDX-License-Identifier: BSD-2-Clause */
/* What every engine's own structures begin with. Private to the room. */
#ifndef ENGINE_PRIVATE_H
#define ENGINE_PRIVATE_H

#include <stdint.h>

#include "engine/engine.h"

/* First member of each engine's worker instance. */
struct engine {
	uint64_t links_now, links_total;
	uint64_t kernel_now; /* of them, with a seal that the kernel has */
};

/* First member of what engine_link.state points to. */
struct link_state {
	struct engine *engine;
};

static inline bool engine_link_in_kernel(const struct engine_link *link)
{
	return seal_in_kernel(link->flow[0].from_seal) ||
	       seal_in_kernel(link->flow[0].to_seal);
}

/* Bookkeeping of attach: the engine has taken the link. */
static inline void engine_link_taken(struct engine *engine,
				     struct engine_link *link,
				     const struct engine_ops *ops,
				     struct link_state *state)
{
	state->engine = engine;
	link->state = state;
	link->ops = ops;
	engine->links_now++;
	engine->links_total++;
	engine->kernel_now += engine_link_in_kernel(link);
}

/* Bookkeeping of detach: the engine holds nothing of the link any more. */
static inline void engine_link_gone(struct engine *engine,
				    struct engine_link *link)
{
	engine->links_now--;
	engine->kernel_now -= engine_link_in_kernel(link);
	link->state = NULL;
	link->ops = NULL;
}

/* Deferred work that its owner does not live to see. */
static inline void engine_undefer(struct deferred *deferred)
{
	if (deferred->queued)
		list_del(&deferred->link);
	deferred->queued = false;
}

/*
 * splice(2) has no MSG_NOSIGNAL: a write to a dead socket raises SIGPIPE, which
 * by default ends the process. Ignores it unless the program handles it.
 */
void engine_ignore_sigpipe(void);

extern const struct engine_ops engine_splice, engine_uring, engine_sockmap,
	engine_copy;

#endif
