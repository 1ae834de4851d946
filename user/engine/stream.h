/* SPDX-License-Identifier: BSD-2-Clause */
/* The epoll driver shared by the copy and splice engines. Private to the room. */
#ifndef ENGINE_STREAM_H
#define ENGINE_STREAM_H

#include "engine/mover.h"
#include "engine/private.h"

/* A worker's instance of a stream engine. */
struct stream {
	struct engine engine;
	struct mover mover;
};

/*
 * What to poll a socket for. `reads` is what the flow that reads from it waits
 * for, `writes` the flow that writes to it. EPOLLERR and EPOLLHUP come anyway.
 */
uint32_t stream_mask(enum flow_wait reads, enum flow_wait writes);

/* The parts of engine_ops that copy and splice have in common. */
void stream_close(struct engine *engine);
int stream_attach(struct engine *engine, struct engine_link *link,
		  const struct engine_ops *ops);
void stream_detach(struct engine *engine, struct engine_link *link);
size_t stream_held(const struct engine_link *link, const struct flow *flow);

/* Makes an instance around a pool (NULL: none), which it takes over if it succeeds. */
int stream_open(struct loop *loop, struct pipe_pool *pool,
		const struct engine_params *params, struct engine **out);

#endif
