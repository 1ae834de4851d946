/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections to a listener with proxy_protocol.
 *
 *   accepted from a trusted proxy -> header read -> a client, as if accepted then
 *                                 -> closed: no such header, or not in time
 *
 * From then on the address in the header is the client's: in answers, limits, quotas
 * and logs. What moves its bytes asks the socket, whose other end is the proxy's.
 * Until then the connection has a stranger's places; those of a handshake are taken
 * in the client's name, so it gives all back and the client takes its own.
 */
#include "turn/proxied.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/fd.h"
#include "transport/proxy.h"
#include "turn/client.h"
#include "turn/stranger.h"

struct proxied {
	struct list link; /* of listener->proxied */
	struct watch watch;
	struct timer timer;
	struct turn_listener *listener;
	union addr proxy;
	struct proxy_reader reader;
};

static void refused(struct turn_listener *listener, const union addr *proxy,
		    const char *why)
{
	struct turn_worker *worker = listener->worker;
	char text[ADDR_STRLEN];
	uint64_t suppressed;

	worker->counters.proxy_refused++;
	if (turn_worker_may_log(worker, TURN_LOG_PROXY, &suppressed))
		log_warn(ROOM,
			 "event=proxy_refused listener=%s source=%s "
			 "reason=\"%s\" suppressed=%ju",
			 listener->name, addr_format(proxy, text), why,
			 (uintmax_t)suppressed);
}

/* Its descriptor is the caller's. */
static void proxied_free(struct proxied *proxied)
{
	struct turn_worker *worker = proxied->listener->worker;
	const struct stranger stranger = {
		.remote = proxied->proxy,
		.descriptor = true,
	};

	watch_del(worker->loop, &proxied->watch);
	timer_cancel(worker->loop, &proxied->timer);
	turn_stranger_dismiss(worker, &stranger);
	worker->counters.unauthenticated--;
	list_del(&proxied->link);
	turn_listener_unref(proxied->listener);
	free(proxied);
}

static void proxied_refuse(struct proxied *proxied, const char *why)
{
	int fd = proxied->watch.fd;

	refused(proxied->listener, &proxied->proxy, why);
	proxied_free(proxied);
	fd_close(&fd);
}

static const char *reason(int err)
{
	switch (err) {
	case -EBADMSG:
		return "no PROXY header, or a malformed one";
	case -ECONNABORTED:
		return "ended before its PROXY header";
	default:
		return strerror(-err);
	}
}

static void proxied_ready(struct watch *watch, uint32_t events)
{
	struct proxied *proxied = list_entry(watch, struct proxied, watch);
	struct turn_listener *listener = proxied->listener;
	union addr client;
	int fd = watch->fd;
	int err = proxy_read(&proxied->reader, fd, &client);

	(void)events;
	if (err == -EAGAIN || err == -EINTR)
		return;
	if (err) {
		proxied_refuse(proxied, reason(err));
		return;
	}
	if (addr_family(&client) == AF_UNSPEC)
		client = proxied->proxy;
	proxied_free(proxied);
	turn_client_admit(listener, fd, &client);
}

static void proxied_late(struct timer *timer)
{
	proxied_refuse(list_entry(timer, struct proxied, timer),
		       "no PROXY header in time");
}

static bool proxy_trusted(const struct conf_listener *conf,
			  const union addr *proxy)
{
	union addr plain = *proxy;

	addr_unmap(&plain);
	for (size_t i = 0; i < conf->proxy_count; i++)
		if (prefix_contains(&conf->proxies[i], &plain))
			return true;
	return false;
}

/* 0 or a negative errno. */
static int proxied_new(struct turn_listener *listener, int fd,
		       const union addr *proxy)
{
	struct turn_worker *worker = listener->worker;
	struct proxied *proxied = calloc(1, sizeof(*proxied));
	int err;

	if (!proxied)
		return -ENOMEM;
	err = watch_add(worker->loop, &proxied->watch, fd, EPOLLIN,
			proxied_ready);
	if (err) {
		free(proxied);
		return err;
	}
	watch_own(worker->loop, &proxied->watch);
	proxied->listener = turn_listener_ref(listener);
	proxied->proxy = *proxy;
	list_add_tail(&proxied->link, &listener->proxied);
	worker->counters.unauthenticated++;
	timer_arm(worker->loop, &proxied->timer,
		  turn_limits(worker)->handshake_timeout_ms, proxied_late);
	return 0;
}

void turn_proxied_accepted(struct turn_listener *listener, int fd,
			   const union addr *proxy)
{
	struct turn_worker *worker = listener->worker;
	const struct stranger stranger = {
		.remote = *proxy,
		.descriptor = true,
	};
	const char *limit = NULL;

	if (!proxy_trusted(listener->conf, proxy)) {
		refused(listener, proxy,
			"not among those of [listener] proxy_protocol");
		fd_close(&fd);
		return;
	}
	limit = turn_stranger_admit(worker, &stranger);
	if (!limit && proxied_new(listener, fd, proxy)) {
		turn_stranger_dismiss(worker, &stranger);
		limit = "memory";
	}
	if (limit) {
		turn_stranger_log(worker, limit, proxy);
		fd_close(&fd);
	}
}

void turn_proxied_close(struct turn_listener *listener)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &listener->proxied) {
		struct proxied *proxied = list_entry(pos, struct proxied, link);
		int fd = proxied->watch.fd;

		proxied_free(proxied);
		fd_close(&fd);
	}
}
