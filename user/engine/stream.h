/* SPDX-License-Identifier: BSD-2-Clause */
/* The epoll driver shared by copy, splice and sockmap. Private to the room. */
#ifndef ENGINE_STREAM_H
#define ENGINE_STREAM_H

#include "engine/mover.h"
#include "engine/private.h"

struct stream_link {
	struct link_state base;
	struct engine_link *link;
	struct watch watch[2]; /* fd -1: not in the epoll set */
	struct flow_state flow[2];
	struct deferred detached;
};

/* Where an engine differs from "the mover moves what polling says is ready". */
struct stream_hooks {
	size_t link_size; /* of its struct that begins with a stream_link */
	/* Last step of attach: 0, or a negative errno with nothing moved or held. */
	int (*join)(struct stream_link *state);
	/* Moves flow i: sets its wait, or link->flow[i].end and error. */
	void (*run)(struct stream_link *state, int i);
	void (*leave)(struct stream_link *state); /* undoes join */
};

/* A worker's instance of a stream engine. */
struct stream {
	struct engine engine;
	struct mover mover;
	const struct stream_hooks *hooks; /* NULL: none */
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
/* Runs flow i though polling did not ask for it. May detach the link. */
void stream_look(struct stream_link *state, int i);

/*
 * An instance around a pool (NULL: none), which it takes over if it succeeds:
 * stream_init in zeroed memory of the engine's own, stream_open in memory that
 * stream_close frees.
 */
int stream_init(struct stream *stream, struct loop *loop,
		struct pipe_pool *pool, const struct engine_params *params);
int stream_open(struct loop *loop, struct pipe_pool *pool,
		const struct engine_params *params, struct engine **out);

#endif
