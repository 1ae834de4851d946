/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Listening sockets.
 *
 * Connections are accepted in bounded batches: the epoll is level triggered, so
 * what is left comes in the next tick, after everybody else. Without descriptors
 * a level triggered listener would spin: it rests, and the spare descriptor lets
 * it turn one connection away per rest, so that clients learn of the trouble.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/syscalls.h"
#include "transport/transport.h"

SYSCALLS_SOCKET(SYSCALLS_SUPERVISOR, AF_INET, 0);
SYSCALLS_SOCKET(SYSCALLS_SUPERVISOR, AF_INET6, 0);
SYSCALLS(SYSCALLS_SUPERVISOR, "bind listen setsockopt");
SYSCALLS(SYSCALLS_RELAY, "accept4");
SYSCALLS_EQUAL(SYSCALLS_RELAY, "fcntl", 1, F_DUPFD_CLOEXEC);

#define ACCEPT_BATCH 64
#define REST_MS      100

struct listener {
	struct watch watch;
	struct timer rest;
	struct loop *loop;
	const struct listener_ops *ops;
	void *arg;
	int spare; /* -1: none, or none to be had just now */
	bool wants_spare;
	bool *freed; /* set by listener_free from inside a batch */
};

static int option_set(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno :
									0;
}

static int listener_prepare(int fd, const union addr *addr)
{
	int err = option_set(fd, SOL_SOCKET, SO_REUSEADDR, 1);

	if (!err && addr_family(addr) == AF_INET6)
		err = option_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	/* Inherited by every accepted socket: one call instead of many. */
	if (!err)
		err = option_set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	return err;
}

static int listener_start(int fd, const union addr *addr, unsigned int backlog)
{
	if (bind(fd, &addr->sa, addr_len(addr)) < 0 ||
	    listen(fd, backlog > INT32_MAX ? INT32_MAX : (int)backlog) < 0)
		return -errno;
	/* Inherited when set behind listen(2), seen on 6.18: the first request
	 * is acknowledged by its answer and not by a segment of its own. From
	 * the first answer on the kernel would do so anyway.
	 */
	option_set(fd, IPPROTO_TCP, TCP_QUICKACK, 0);
	return 0;
}

/*
 * A claimant asks for SO_REUSEPORT only when it listens: until then the kernel
 * lets nobody listen beside anybody, afterwards the others may join. Seen on
 * 6.18: connections are spread over it and them alike.
 */
static int listener_make(const union addr *addr, unsigned int backlog,
			 bool claim)
{
	int fd = socket(addr_family(addr),
			SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int err;

	if (fd < 0)
		return -errno;
	err = listener_prepare(fd, addr);
	if (!err && !claim)
		err = option_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (!err)
		err = listener_start(fd, addr, backlog);
	if (!err && claim)
		err = option_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (err) {
		fd_close(&fd);
		return err;
	}
	return fd;
}

int listener_open(const union addr *addr, unsigned int backlog)
{
	return listener_make(addr, backlog, false);
}

int listener_claim(const union addr *addr, unsigned int backlog)
{
	return listener_make(addr, backlog, true);
}

/* Any descriptor will do, and the relay opens no file: a second one of the socket. */
static int spare_take(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

static void rest_over(struct timer *timer)
{
	struct listener *listener = list_entry(timer, struct listener, rest);

	watch_set(listener->loop, &listener->watch, EPOLLIN);
}

static void turn_away(struct listener *listener)
{
	int fd;

	if (!listener->wants_spare)
		return;
	fd_close(&listener->spare);
	fd = accept4(listener->watch.fd, NULL, NULL, SOCK_CLOEXEC);
	fd_close(&fd);
	listener->spare = spare_take(listener->watch.fd);
}

static void exhausted(struct listener *listener, int error)
{
	turn_away(listener);
	watch_set(listener->loop, &listener->watch, 0);
	timer_arm(listener->loop, &listener->rest, REST_MS, rest_over);
	listener->ops->exhausted(listener->arg, error);
}

/* Errors that concern the one connection only, accept(2) "Error handling". */
static bool connection_failed(int error)
{
	switch (error) {
	case ECONNABORTED:
	case EINTR:
	case ENETDOWN:
	case EPROTO:
	case ENOPROTOOPT:
	case EHOSTDOWN:
	case ENONET:
	case EHOSTUNREACH:
	case EOPNOTSUPP:
	case ENETUNREACH:
	case EPERM:
		return true;
	default:
		return false;
	}
}

/* Accepts one. Returns 0, or a negative errno that ends the batch. */
static int accept_one(struct listener *listener)
{
	union addr remote;
	socklen_t len = sizeof(remote);
	int fd = accept4(listener->watch.fd, &remote.sa, &len,
			 SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd >= 0) {
		listener->ops->accepted(listener->arg, fd, &remote);
		return 0;
	}
	return connection_failed(errno) ? 0 : -errno;
}

static void listener_ready(struct watch *watch, uint32_t events)
{
	struct listener *listener = list_entry(watch, struct listener, watch);
	bool freed = false;
	int err = 0;

	(void)events;
	listener->freed = &freed;
	for (int i = 0; i < ACCEPT_BATCH && !err; i++) {
		err = accept_one(listener);
		if (freed)
			return;
	}
	listener->freed = NULL;
	if (err && err != -EAGAIN)
		exhausted(listener, err);
}

int listener_new(struct loop *loop, int fd, bool spare,
		 const struct listener_ops *ops, void *arg,
		 struct listener **out)
{
	struct listener *listener = calloc(1, sizeof(*listener));
	int err;

	if (!listener)
		return -ENOMEM;
	listener->loop = loop;
	listener->ops = ops;
	listener->arg = arg;
	listener->wants_spare = spare;
	listener->spare = spare ? spare_take(fd) : -1;
	if (spare && listener->spare < 0) {
		err = -errno;
		goto free_listener;
	}
	err = watch_add(loop, &listener->watch, fd, EPOLLIN, listener_ready);
	if (err)
		goto close_spare;
	*out = listener;
	return 0;

close_spare:
	fd_close(&listener->spare);
free_listener:
	free(listener);
	return err;
}

void listener_free(struct listener *listener)
{
	if (!listener)
		return;
	if (listener->freed)
		*listener->freed = true;
	timer_cancel(listener->loop, &listener->rest);
	fd_close(&listener->spare);
	watch_close(listener->loop, &listener->watch);
	free(listener);
}

void listener_own(struct listener *listener)
{
	watch_own(listener->loop, &listener->watch);
}

int listener_fd(const struct listener *listener)
{
	return listener->watch.fd;
}
