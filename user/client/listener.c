/* SPDX-License-Identifier: BSD-2-Clause */
/* A local listening socket of the command. */
#include "client/listener.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "client/dial.h"
#include "client/say.h"

#define BACKLOG 1024
#define BATCH   64 /* accepted before others get their turn */
#define REST_MS 100

static void listener_events(struct client_listener *listener)
{
	bool listening = !listener->paused && !listener->rest.armed;

	watch_set(listener->loop, &listener->watch, listening ? EPOLLIN : 0);
}

static void rest_over(struct timer *timer)
{
	listener_events(list_entry(timer, struct client_listener, rest));
}

/* Without descriptors the loop would spin on the waiting connection. */
static void listener_rest(struct client_listener *listener, int error)
{
	uint64_t swallowed;

	if (log_allow(&listener->failures, loop_now(listener->loop),
		      &swallowed))
		client_error("accepting a local connection failed: %s%s",
			     strerror(error),
			     error == EMFILE || error == ENFILE ?
				     "; raise the limit of open files "
				     "(ulimit -n)" :
				     "");
	timer_arm(listener->loop, &listener->rest, REST_MS, rest_over);
	listener_events(listener);
}

static void listener_ready(struct watch *watch, uint32_t events)
{
	struct client_listener *listener =
		list_entry(watch, struct client_listener, watch);

	(void)events;
	for (int i = 0; i < BATCH && watch->events; i++) {
		union addr from;
		socklen_t len = sizeof(from);
		int fd = accept4(watch->fd, &from.sa, &len,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			client_socket_tune(fd);
			listener->accepted(listener, fd, &from);
		} else if (errno == EAGAIN) {
			return;
		} else if (errno == EMFILE || errno == ENFILE ||
			   errno == ENOMEM || errno == ENOBUFS) {
			listener_rest(listener, errno);
			return;
		}
		/* Others are errors of that one connection (accept(2)). */
	}
}

int client_listener_open(struct client_listener *listener, struct loop *loop,
			 const union addr *addr,
			 void (*accepted)(struct client_listener *listener,
					  int fd, const union addr *from))
{
	socklen_t len = sizeof(listener->addr);
	const int on = 1;
	int err, fd = socket(addr_family(addr),
			     SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	fd_inline(fd);
	if (bind(fd, &addr->sa, addr_len(addr)) || listen(fd, BACKLOG) ||
	    getsockname(fd, &listener->addr.sa, &len)) {
		err = -errno;
		goto close_fd;
	}
	listener->loop = loop;
	listener->accepted = accepted;
	err = watch_add(loop, &listener->watch, fd, EPOLLIN, listener_ready);
	if (!err)
		return 0;
close_fd:
	fd_close(&fd);
	return err;
}

void client_listener_pause(struct client_listener *listener, bool paused)
{
	listener->paused = paused;
	listener_events(listener);
}

void client_listener_close(struct client_listener *listener)
{
	int fd = listener->watch.fd;

	if (!listener->loop || fd < 0)
		return;
	timer_cancel(listener->loop, &listener->rest);
	watch_del(listener->loop, &listener->watch);
	fd_close(&fd);
}
