/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Data connections over TLS, as descriptors that anybody can use.
 *
 *   caller -- fd == TCP over loopback == inner -- pair -- TLS -- server
 *
 * The caller gets an ordinary TCP socket, so that half-close, reset and
 * back-pressure mean what they do on any other: a UNIX socket would make an end of
 * a reset. A pair on the loop does the rest. It outlives the client if it must, to
 * deliver what the caller has sent, as the kernel does for a plain connection.
 */
#include "client/tunnel.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "client/turn_client.h"
#include "engine/engine.h"
#include "pair/pair.h"

#define LINGER_MS   10000
#define COPY_BUFFER (64u << 10)

struct client_tunnel {
	struct list link; /* of culvert_loop.tunnels */
	struct pair *pair;
};

/* Listens on loopback for one connection. A descriptor or a negative errno. */
static int loopback_listen(union addr *addr)
{
	socklen_t len = sizeof(*addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), err;

	if (fd < 0)
		return -errno;
	addr_parse("127.0.0.1", 0, addr);
	if (!bind(fd, &addr->sa, addr_len(addr)) && !listen(fd, 1) &&
	    !getsockname(fd, &addr->sa, &len))
		return fd;
	err = -errno;
	fd_close(&fd);
	return err;
}

/* Somebody else on this host may have been quicker: only our own end will do. */
static int own_end_accept(int listener, const union addr *ours)
{
	union addr remote;
	socklen_t len = sizeof(remote);
	int fd;

	for (;;) {
		len = sizeof(remote);
		fd = accept4(listener, &remote.sa, &len,
			     SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0 || addr_equal(&remote, ours))
			return fd < 0 ? -errno : fd;
		fd_close(&fd);
	}
}

/* Two connected ends. 0 or a negative errno. */
static int ends_open(int ends[2])
{
	union addr addr, ours;
	socklen_t len = sizeof(ours);
	int listener = loopback_listen(&addr), err = 0;

	if (listener < 0)
		return listener;
	ends[0] =
		socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (ends[0] < 0 ||
	    (connect(ends[0], &addr.sa, addr_len(&addr)) &&
	     errno != EINPROGRESS) ||
	    getsockname(ends[0], &ours.sa, &len))
		err = -errno;
	/* Waits for no longer than the loopback device takes. */
	if (!err)
		ends[1] = own_end_accept(listener, &ours);
	if (!err && ends[1] < 0)
		err = ends[1];
	if (err)
		fd_close(&ends[0]);
	fd_close(&listener);
	return err;
}

/* The one engine that takes seals, made when it is needed first. */
static int engines_need(struct culvert_loop *loop)
{
	const struct engine_params params = { .copy_buffer = COPY_BUFFER };
	const char *const order[] = { "copy" };

	if (loop->engines)
		return 0;
	return engine_set_new(loop->loop, &params, order, 1, NULL, NULL,
			      &loop->engines);
}

static void tunnel_closed(void *owner, enum pair_end end)
{
	struct client_tunnel *tunnel = owner;

	(void)end;
	list_del(&tunnel->link);
	free(tunnel);
}

int client_tunnel_new(struct culvert_loop *loop, int fd, struct seal *seal,
		      const void *early, size_t early_len)
{
	struct client_tunnel *tunnel = calloc(1, sizeof(*tunnel));
	struct pair_params params = {
		.loop = loop->loop,
		.half[PAIR_CLIENT] = { .preface = early,
				       .preface_len = early_len },
		.half[PAIR_PEER] = { .fd = fd, .seal = seal },
		.linger_ms = LINGER_MS,
		.on_closed = tunnel_closed,
		.owner = tunnel,
	};
	int ends[2] = { -1, -1 };
	int err = tunnel ? engines_need(loop) : -ENOMEM;

	if (!err)
		err = ends_open(ends);
	if (err)
		goto free_tunnel;
	client_socket_tune(ends[0]);
	client_socket_tune(ends[1]);
	fd_inline(ends[1]);
	fd_inline(fd);
	params.engines = loop->engines;
	params.half[PAIR_CLIENT].fd = ends[1];
	err = pair_new(&params, &tunnel->pair);
	if (err)
		goto close_ends;
	list_add_tail(&tunnel->link, &loop->tunnels);
	return ends[0];

close_ends:
	fd_close(&ends[0]);
	fd_close(&ends[1]);
free_tunnel:
	free(tunnel);
	return err;
}

void client_tunnels_free(struct culvert_loop *loop)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &loop->tunnels) {
		struct client_tunnel *tunnel =
			list_entry(pos, struct client_tunnel, link);

		list_del(pos);
		pair_destroy(tunnel->pair);
		free(tunnel);
	}
	engine_set_free(loop->engines);
	loop->engines = NULL;
}
