/* SPDX-License-Identifier: BSD-2-Clause */
/* The event loop as the public header shows it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/tunnel.h"
#include "client/turn_client.h"

int culvert_loop_new(struct culvert_loop **out)
{
	struct culvert_loop *loop = calloc(1, sizeof(*loop));
	int err;

	if (!loop)
		return -ENOMEM;
	err = loop_new(&loop->loop);
	if (err) {
		free(loop);
		return err;
	}
	list_init(&loop->tunnels);
	*out = loop;
	return 0;
}

static bool tls_serves(const struct culvert_loop *loop,
		       const struct culvert_options *options)
{
	const char *have = loop->tls_authorities;
	const char *want = options->tls_authorities;

	return loop->tls && loop->tls_unverified == options->tls_unverified &&
	       (have && want ? !strcmp(have, want) : have == want);
}

/* Loading the system's authorities takes time and a megabyte: not for each. */
int client_loop_tls(struct culvert_loop *loop,
		    const struct culvert_options *options,
		    struct tls_client **out)
{
	const char *want = options->tls_authorities, *why;
	struct tls_client *tls;
	char *copy;
	int err;

	if (!tls_serves(loop, options)) {
		err = tls_client_new(want, !options->tls_unverified, &tls,
				     &why);
		if (err)
			return err;
		copy = want ? strdup(want) : NULL;
		if (want && !copy) {
			tls_client_unref(tls);
			return -ENOMEM;
		}
		tls_client_unref(loop->tls);
		free(loop->tls_authorities);
		loop->tls = tls;
		loop->tls_authorities = copy;
		loop->tls_unverified = options->tls_unverified;
	}
	*out = tls_client_ref(loop->tls);
	return 0;
}

void culvert_loop_free(struct culvert_loop *loop)
{
	if (!loop)
		return;
	client_tunnels_free(loop);
	tls_client_unref(loop->tls);
	free(loop->tls_authorities);
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
