/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * peer: the far end of measured connections.
 *
 * Every connection opens with a hello that says what to do with it, so one
 * listening socket serves all cases and looks alike behind every relay. The
 * counters live in a mapped file: load takes both ends of its measuring
 * window from them without asking.
 *
 * A connection is HELLO (bytes still missing) -> RUNNING -> gone. Its memory
 * goes at the end of the stream or at the first error.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/addr.h"
#include "base/fd.h"
#include "base/list.h"
#include "lib/flow.h"
#include "lib/proto.h"
#include "loop/loop.h"

#define MUTE_LOOK_MS 20
/* More than any echoed message, and it fits into an empty send buffer. */
#define ECHO_MAX 8192

struct peer {
	struct loop *loop;
	struct watch listener;
	struct bench_stats *stats;
	struct list conns;
	struct timer look; /* while there are mute connections */
};

struct conn {
	struct watch watch;
	struct list link;
	struct peer *peer;
	struct bench_hello hello;
	size_t hello_len; /* bytes of it that are here */
	struct flow flow;
};

static void conn_free(struct conn *conn)
{
	watch_close(conn->peer->loop, &conn->watch);
	list_del(&conn->link);
	atomic_fetch_sub(&conn->peer->stats->open, 1);
	free(conn);
}

static void conn_break(struct conn *conn)
{
	atomic_fetch_add(&conn->peer->stats->broken, 1);
	conn_free(conn);
}

/* 0: alive; otherwise the connection is gone. */
static int conn_receive(struct conn *conn)
{
	ssize_t got = flow_recv(&conn->flow);

	if (got == -EAGAIN)
		return 0;
	if (got <= 0) {
		conn_free(conn);
		return -1;
	}
	atomic_fetch_add(&conn->peer->stats->received, (uint64_t)got);
	return 0;
}

static int conn_transmit(struct conn *conn)
{
	ssize_t sent = flow_send(&conn->flow);

	if (sent == -EAGAIN)
		return 0;
	if (sent < 0) {
		conn_free(conn);
		return -1;
	}
	atomic_fetch_add(&conn->peer->stats->sent, (uint64_t)sent);
	return 0;
}

static void stream_ready(struct watch *watch, uint32_t events)
{
	struct conn *conn = list_entry(watch, struct conn, watch);

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && conn_receive(conn))
		return;
	if (events & EPOLLOUT)
		conn_transmit(conn);
}

static void echo_ready(struct watch *watch, uint32_t events)
{
	struct conn *conn = list_entry(watch, struct conn, watch);
	uint8_t buf[ECHO_MAX];
	ssize_t got = recv(watch->fd, buf, sizeof(buf), MSG_DONTWAIT);

	(void)events;
	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0)
		conn_free(conn);
	else if (send(watch->fd, buf, (size_t)got,
		      MSG_NOSIGNAL | MSG_DONTWAIT) != got)
		conn_break(conn);
}

/* Both directions are through: say what arrived, wait for the end. */
static void check_finish(struct conn *conn)
{
	struct bench_verdict verdict = {
		.received = conn->flow.received,
		.intact = !conn->flow.broken,
	};

	if (send(conn->watch.fd, &verdict, sizeof(verdict), MSG_NOSIGNAL) !=
	    (ssize_t)sizeof(verdict)) {
		conn_break(conn);
		return;
	}
	watch_set(conn->peer->loop, &conn->watch, EPOLLIN);
	conn->watch.fn = stream_ready;
	conn->flow.check = false;
}

static void check_ready(struct watch *watch, uint32_t events)
{
	struct conn *conn = list_entry(watch, struct conn, watch);
	struct flow *flow = &conn->flow;
	uint32_t wanted = 0;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && conn_receive(conn))
		return;
	if (events & EPOLLOUT && flow->sent < flow->length &&
	    conn_transmit(conn))
		return;
	if (flow->received < flow->length)
		wanted |= EPOLLIN;
	if (flow->sent < flow->length)
		wanted |= EPOLLOUT;
	if (wanted)
		watch_set(conn->peer->loop, watch, wanted);
	else
		check_finish(conn);
}

static void mute_look(struct timer *timer)
{
	struct peer *peer = list_entry(timer, struct peer, look);
	uint64_t unread = 0;
	bool any = false;
	struct list *pos;

	list_for_each(pos, &peer->conns) {
		struct conn *conn = list_entry(pos, struct conn, link);
		int queued = 0;

		if (conn->hello.mode != BENCH_MUTE)
			continue;
		any = true;
		if (!ioctl(conn->watch.fd, FIONREAD, &queued))
			unread += (uint64_t)queued;
	}
	atomic_store(&peer->stats->unread, unread);
	if (any)
		timer_arm(peer->loop, timer, MUTE_LOOK_MS, mute_look);
}

/* Only the end of a mute connection matters, and only a reset is seen. */
static void mute_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	conn_free(list_entry(watch, struct conn, watch));
}

/* What to wait for after the hello; 0 for a mode that does not exist. */
static uint32_t conn_start(struct conn *conn)
{
	struct peer *peer = conn->peer;
	const int one = 1;

	/* Streams are acknowledged as usual, see listener_open. */
	if (conn->hello.mode != BENCH_ECHO)
		setsockopt(conn->watch.fd, IPPROTO_TCP, TCP_QUICKACK, &one,
			   sizeof(one));
	switch (conn->hello.mode) {
	case BENCH_UP:
		conn->watch.fn = stream_ready;
		return EPOLLIN;
	case BENCH_DOWN:
	case BENCH_BOTH:
		conn->watch.fn = stream_ready;
		return EPOLLIN | EPOLLOUT;
	case BENCH_ECHO:
		conn->watch.fn = echo_ready;
		return EPOLLIN;
	case BENCH_MUTE:
		conn->watch.fn = mute_ready;
		timer_arm(peer->loop, &peer->look, 0, mute_look);
		return EPOLLRDHUP;
	case BENCH_CHECK:
		conn->flow.check = true;
		conn->flow.seed_in = conn->hello.seed;
		conn->flow.seed_out = conn->hello.seed + 1;
		conn->flow.length = conn->hello.length;
		conn->watch.fn = check_ready;
		return EPOLLIN | EPOLLOUT;
	}
	return 0;
}

static void hello_ready(struct watch *watch, uint32_t events)
{
	struct conn *conn = list_entry(watch, struct conn, watch);
	uint8_t *at = (uint8_t *)&conn->hello + conn->hello_len;
	uint32_t wanted;
	ssize_t got;

	(void)events;
	got = recv(watch->fd, at, sizeof(conn->hello) - conn->hello_len,
		   MSG_DONTWAIT);
	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0) {
		/* Relays test their server with connections that say nothing. */
		conn_free(conn);
		return;
	}
	conn->hello_len += (size_t)got;
	if (conn->hello_len < sizeof(conn->hello))
		return;
	wanted = conn->hello.magic == BENCH_MAGIC ? conn_start(conn) : 0;
	if (wanted)
		watch_set(conn->peer->loop, watch, wanted);
	else
		conn_break(conn);
}

static void listener_ready(struct watch *watch, uint32_t events)
{
	struct peer *peer = list_entry(watch, struct peer, listener);
	int fd;

	(void)events;
	fd = accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return;

	struct conn *conn = calloc(1, sizeof(*conn));

	if (!conn) {
		fd_close(&fd);
		return;
	}
	conn->peer = peer;
	conn->flow.fd = fd;
	list_add_tail(&conn->link, &peer->conns);
	atomic_fetch_add(&peer->stats->open, 1);
	if (watch_add(peer->loop, &conn->watch, fd, EPOLLIN, hello_ready)) {
		conn->watch.fd = -1;
		fd_close(&fd);
		conn_break(conn);
		return;
	}
	watch_own(peer->loop, &conn->watch);
}

/*
 * Accepted sockets inherit TCP_NODELAY and, set behind listen(2), that the first
 * message is acknowledged by its echo: no calls and segments of the far end that
 * would cost every relay's turn the same.
 */
static int listener_open(const char *text)
{
	union addr addr;
	int one = 1, zero = 0;
	int fd;

	if (addr_parse(text, 0, &addr))
		return -EINVAL;
	fd = socket(addr_family(&addr),
		    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (bind(fd, &addr.sa, addr_len(&addr)) < 0 || listen(fd, 8192) < 0) {
		int error = -errno;

		fd_close(&fd);
		return error;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &zero, sizeof(zero));
	return fd;
}

static int usage(void)
{
	fputs("usage: peer --listen ADDR:PORT --stats FILE\n", stderr);
	return 2;
}

static int fail(const char *what, int error)
{
	fprintf(stderr, "peer: %s: %s\n", what, strerror(-error));
	return 1;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "listen", required_argument, NULL, 'l' },
		{ "stats", required_argument, NULL, 's' },
		{ NULL, 0, NULL, 0 },
	};
	const char *listen_on = NULL, *stats = NULL;
	struct peer peer = { .listener = { .fd = -1 } };
	int option, error, fd;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'l')
			listen_on = optarg;
		else if (option == 's')
			stats = optarg;
		else
			return usage();
	}
	if (!listen_on || !stats)
		return usage();
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	list_init(&peer.conns);
	error = bench_stats_map(stats, 1, &peer.stats);
	if (error)
		return fail(stats, error);
	fd = listener_open(listen_on);
	if (fd < 0)
		return fail(listen_on, fd);
	error = loop_new(&peer.loop);
	if (!error)
		error = watch_add(peer.loop, &peer.listener, fd, EPOLLIN,
				  listener_ready);
	if (error)
		return fail("loop", error);
	puts("ready");
	fflush(stdout);
	error = loop_run(peer.loop);
	return error ? fail("loop", error) : 0;
}
