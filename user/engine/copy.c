/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The copy engine: recv and send through one buffer per worker. It works on any
 * stream socket, needs no privilege and is what the others are tested against. It
 * alone takes sealed ones whose bytes the kernel does not know.
 */
#include "engine/stream.h"

static int open_copy(struct loop *loop, const struct engine_params *params,
		     struct engine **out)
{
	return stream_open(loop, NULL, params, out);
}

static int attach(struct engine *engine, struct engine_link *link)
{
	return stream_attach(engine, link, &engine_copy);
}

const struct engine_ops engine_copy = {
	.name = "copy",
	.seals = ENGINE_SEALS_ANY,
	.paces = true,
	.open = open_copy,
	.close = stream_close,
	.attach = attach,
	.detach = stream_detach,
	.held = stream_held,
};
