/* SPDX-License-Identifier: BSD-2-Clause */
/* Pipes shared by all flows of one worker. Private to the room. */
#ifndef ENGINE_PIPE_POOL_H
#define ENGINE_PIPE_POOL_H

#include <stddef.h>

#include "base/list.h"
#include "loop/loop.h"

struct pipe_pool;

struct pipe {
	struct list link;
	int rd, wr; /* nonblocking */
	size_t size; /* bytes the kernel granted; its slots may fill earlier */
};

/*
 * size: bytes wanted in a pipe; limit: pipes the pool may have at a time.
 * Returns 0, -ENOMEM, or what pipe2 said about the first pipe.
 */
int pipe_pool_new(struct loop *loop, size_t size, unsigned int limit,
		  struct pipe_pool **out);
/* All pipes were given back. Accepts NULL. */
void pipe_pool_free(struct pipe_pool *pool);

/* An empty pipe; NULL when there is none to be had: copy instead. */
struct pipe *pipe_pool_get(struct pipe_pool *pool);
/* Gives back an empty pipe. Accepts NULL. */
void pipe_pool_put(struct pipe_pool *pool, struct pipe *pipe);
/* Gives back a pipe with bytes in it: they are lost. Accepts NULL. */
void pipe_pool_drop(struct pipe_pool *pool, struct pipe *pipe);

#endif
