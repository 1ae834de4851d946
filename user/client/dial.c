/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connecting a TCP socket without blocking, with a time limit.
 *
 *   connecting -> (handshaking, with TLS) -> told
 */
#include "client/dial.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/fd.h"

/* A relay that vanished is noticed after about two minutes of silence. */
#define KEEPALIVE_IDLE_S 60
#define KEEPALIVE_EACH_S 20
#define KEEPALIVE_PROBES 3

void client_socket_tune(int fd)
{
	const int on = 1, idle = KEEPALIVE_IDLE_S, each = KEEPALIVE_EACH_S,
		  probes = KEEPALIVE_PROBES;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &each, sizeof(each));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

static void dial_finish(struct client_dial *dial, int error)
{
	int fd = dial->watch.fd;

	watch_del(dial->loop, &dial->watch);
	timer_cancel(dial->loop, &dial->timer);
	dial->active = false;
	if (error) {
		dial->why = dial->seal ? dial->seal->why : NULL;
		seal_free(dial->seal);
		dial->seal = NULL;
		fd_close(&fd);
	}
	dial->fn(dial, error ? error : fd);
}

/* Goes on with TLS; the first time, begins. 0, -EAGAIN or why not. */
static int dial_handshake(struct client_dial *dial)
{
	int err;

	if (!dial->tls)
		return 0;
	if (!dial->seal) {
		err = tls_connect(dial->tls, dial->watch.fd, dial->name,
				  &dial->seal);
		if (err)
			return err;
	}
	err = tls_handshake(dial->seal);
	if (err == -EAGAIN)
		watch_set(dial->loop, &dial->watch,
			  dial->seal->blocked ? EPOLLOUT : EPOLLIN);
	return err;
}

static void dial_ready(struct watch *watch, uint32_t events)
{
	struct client_dial *dial = list_entry(watch, struct client_dial, watch);
	socklen_t len = sizeof(int);
	int error = 0;

	(void)events;
	if (getsockopt(watch->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	error = error ? -error : dial_handshake(dial);
	if (error != -EAGAIN)
		dial_finish(dial, error);
}

static void dial_expired(struct timer *timer)
{
	dial_finish(list_entry(timer, struct client_dial, timer), -ETIMEDOUT);
}

static void dial_failed(struct deferred *failed)
{
	struct client_dial *dial =
		list_entry(failed, struct client_dial, failed);

	if (!dial->active) /* cancelled meanwhile */
		return;
	dial->active = false;
	dial->fn(dial, dial->error);
}

/* The connecting socket, watched; or a negative errno. */
static int dial_open(struct client_dial *dial, const union addr *to)
{
	int fd, err;

	fd = socket(addr_family(to), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
		    0);
	if (fd < 0)
		return -errno;
	client_socket_tune(fd);
	if (connect(fd, &to->sa, addr_len(to)) < 0 && errno != EINPROGRESS)
		err = -errno;
	else
		err = watch_add(dial->loop, &dial->watch, fd, EPOLLOUT,
				dial_ready);
	if (err)
		fd_close(&fd);
	return err;
}

void client_dial_start(struct client_dial *dial, struct loop *loop,
		       const union addr *to, uint64_t timeout_ms,
		       struct tls_client *tls, const char *name,
		       void (*fn)(struct client_dial *dial, int fd))
{
	dial->loop = loop;
	dial->fn = fn;
	dial->tls = tls;
	dial->name = name;
	dial->seal = NULL;
	dial->why = NULL;
	dial->active = true;
	dial->watch.fd = -1;
	dial->error = dial_open(dial, to);
	if (dial->error)
		loop_defer(loop, &dial->failed, dial_failed);
	else
		timer_arm(loop, &dial->timer, timeout_ms, dial_expired);
}

void client_dial_cancel(struct client_dial *dial)
{
	int fd;

	if (!dial->active)
		return;
	dial->active = false;
	if (dial->failed.queued) {
		list_del(&dial->failed.link);
		dial->failed.queued = false;
		return;
	}
	fd = dial->watch.fd;
	watch_del(dial->loop, &dial->watch);
	timer_cancel(dial->loop, &dial->timer);
	seal_free(dial->seal);
	dial->seal = NULL;
	fd_close(&fd);
}
