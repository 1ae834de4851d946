/* SPDX-License-Identifier: BSD-2-Clause */
/* The event loop as the public header shows it. */
#include <errno.h>
#include <stdlib.h>

#include "client/turn_client.h"

int culvert_loop_new(struct culvert_loop **out)
{
	struct culvert_loop *loop = malloc(sizeof(*loop));
	int err;

	if (!loop)
		return -ENOMEM;
	err = loop_new(&loop->loop);
	if (err) {
		free(loop);
		return err;
	}
	*out = loop;
	return 0;
}

void culvert_loop_free(struct culvert_loop *loop)
{
	if (!loop)
		return;
	loop_free(loop->loop);
	free(loop);
}

int culvert_loop_dispatch(struct culvert_loop *loop, int timeout_ms)
{
	return loop_tick(loop->loop, timeout_ms);
}

int culvert_loop_fd(const struct culvert_loop *loop)
{
	return loop_fd(loop->loop);
}

int culvert_loop_timeout(struct culvert_loop *loop)
{
	return loop_wait_ms(loop->loop);
}
