/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The splice engine: splice(2) moves the pages of received segments from one
 * socket through a pooled pipe to the other, never into user memory. The pipes
 * and when not to splice: pipe_pool.c and mover.c.
 */
#include "engine/stream.h"

static int open_splice(struct loop *loop, const struct engine_params *params,
		       struct engine **out)
{
	struct pipe_pool *pool;
	int err;

	err = pipe_pool_new(loop, params->pipe_size, params->pipes, &pool);
	if (err)
		return err;
	err = stream_open(loop, pool, params, out);
	if (err)
		pipe_pool_free(pool);
	return err;
}

static int attach(struct engine *engine, struct engine_link *link)
{
	return stream_attach(engine, link, &engine_splice);
}

const struct engine_ops engine_splice = {
	.name = "splice",
	.seals = ENGINE_SEALS_KERNEL,
	.paces = true,
	.open = open_splice,
	.close = stream_close,
	.attach = attach,
	.detach = stream_detach,
	.held = stream_held,
};
