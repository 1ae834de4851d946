/* SPDX-License-Identifier: BSD-2-Clause */
/* What each case does once its connections are open. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "load.h"

/* Round trips a run keeps: enough for 10 s at 400,000 a second. */
#define ROUND_TRIPS_MAX (4u << 20)

static struct load_times round_trips;

static struct load_conn *conn_of(struct watch *watch)
{
	return list_entry(watch, struct load_conn, dial.watch);
}

/* A connection that ends or fails under way ends the run. */
static void conn_lost(struct load_conn *conn, ssize_t result)
{
	load_fail(conn->load, "transfer", result < 0 ? (int)result : -EPIPE);
}

/* Greets on every connection, then watches it. 0 or the run has failed. */
static int all_start(struct load *load, uint32_t extra, uint32_t events,
		     void (*ready)(struct watch *watch, uint32_t events))
{
	for (uint32_t i = 0; i < load->options.connections; i++) {
		struct load_conn *conn = &load->conns[i];
		int error = pool_hello(conn, extra);

		if (error) {
			load_fail(load, "hello", error);
			return error;
		}
		conn->sent_at = clock_ns();
		conn->got = 0;
		conn->dial.watch.fn = ready;
		watch_set(load->loop, &conn->dial.watch, events);
	}
	return 0;
}

/* up, down, both */

static void stream_ready(struct watch *watch, uint32_t events)
{
	struct load_conn *conn = conn_of(watch);

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		ssize_t got = flow_recv(&conn->flow);

		if (got <= 0 && got != -EAGAIN) {
			conn_lost(conn, got);
			return;
		}
		if (got > 0)
			conn->load->received += (uint64_t)got;
	}
	if (events & EPOLLOUT) {
		ssize_t sent = flow_send(&conn->flow);

		if (sent < 0 && sent != -EAGAIN)
			conn_lost(conn, sent);
	}
}

static void stream_done(struct timer *timer)
{
	struct load *load = list_entry(timer, struct load, phase);
	struct load_sample end;

	load_sample(load, &end);
	load_print_window(load, &end);
	puts("}");
	load_end(load);
}

static void stream_start(struct load *load)
{
	uint32_t events = EPOLLOUT;

	if (load->kind->mode == BENCH_DOWN)
		events = EPOLLIN;
	else if (load->kind->mode == BENCH_BOTH)
		events = EPOLLIN | EPOLLOUT;
	if (!all_start(load, 0, events, stream_ready))
		load_window(load, stream_done);
}

/* pingpong */

static void message_send(struct load_conn *conn)
{
	uint8_t buf[8192] = { 0 };
	uint32_t size = conn->load->options.size;
	ssize_t sent;

	conn->sent_at = clock_ns();
	conn->got = 0;
	sent = send(conn->dial.watch.fd, buf, size,
		    MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent != (ssize_t)size)
		conn_lost(conn, sent < 0 ? -errno : -ENOBUFS);
}

/* 1: the whole message is back; 0: not yet; -1: the run has failed. */
static int message_receive(struct load_conn *conn)
{
	uint8_t buf[8192];
	ssize_t got = recv(conn->dial.watch.fd, buf,
			   conn->load->options.size - conn->got, MSG_DONTWAIT);

	if (got < 0 && errno == EAGAIN)
		return 0;
	if (got <= 0) {
		conn_lost(conn, got < 0 ? -errno : 0);
		return -1;
	}
	conn->got += (uint32_t)got;
	return conn->got == conn->load->options.size;
}

static void pong_ready(struct watch *watch, uint32_t events)
{
	struct load_conn *conn = conn_of(watch);
	struct load *load = conn->load;

	(void)events;
	if (message_receive(conn) <= 0)
		return;
	load->received += load->options.size;
	if (load->measuring)
		times_add(&round_trips, (uint32_t)(clock_ns() - conn->sent_at));
	message_send(conn);
}

/* What a distribution's plot needs: p50, p99 and those between and beyond. */
static const struct {
	const char *name;
	double q;
} quantiles[] = {
	{ "p1", 0.01 },  { "p10", 0.1 },    { "p25", 0.25 },
	{ "p50", 0.5 },  { "p75", 0.75 },   { "p90", 0.9 },
	{ "p99", 0.99 }, { "p999", 0.999 }, { "p100", 1.0 },
};

static void pingpong_done(struct timer *timer)
{
	struct load *load = list_entry(timer, struct load, phase);
	struct load_sample end;

	load_sample(load, &end);
	times_sort(&round_trips);
	load_print_window(load, &end);
	printf(", \"round_trips\": %zu", round_trips.count);
	for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++)
		printf(", \"%s_us\": %.2f", quantiles[i].name,
		       times_quantile(&round_trips, quantiles[i].q) / 1e3);
	puts("}");
	times_free(&round_trips);
	load_end(load);
}

static void pingpong_start(struct load *load)
{
	int error = times_new(&round_trips, ROUND_TRIPS_MAX);

	if (error)
		load_fail(load, "store", error);
	else if (!all_start(load, load->options.size, EPOLLIN, pong_ready))
		load_window(load, pingpong_done);
}

/* idle: every pair carries a message, then rests: another one for each byte of stdin */

static void idle_ready(struct watch *watch, uint32_t events);

static void idle_rest(struct load *load)
{
	char byte;

	puts("{\"ok\": true, \"event\": \"ready\"}");
	fflush(stdout);
	if (read(STDIN_FILENO, &byte, 1) <= 0) {
		load_end(load);
		return;
	}
	load->finished = 0;
	for (uint32_t i = 0; i < load->options.connections; i++) {
		struct load_conn *conn = &load->conns[i];

		watch_set(load->loop, &conn->dial.watch, EPOLLIN);
		message_send(conn);
	}
}

static void idle_ready(struct watch *watch, uint32_t events)
{
	struct load_conn *conn = conn_of(watch);
	struct load *load = conn->load;

	(void)events;
	if (message_receive(conn) <= 0)
		return;
	watch_set(load->loop, watch, 0);
	if (++load->finished == load->options.connections)
		idle_rest(load);
}

static void idle_start(struct load *load)
{
	all_start(load, load->options.size, EPOLLIN, idle_ready);
}

/* slow: the peer stops reading; who holds what was sent? */

static void slow_done(struct timer *timer)
{
	struct load *load = list_entry(timer, struct load, phase);
	uint64_t accepted = 0, unacked = 0, unread, arrived;

	for (uint32_t i = 0; i < load->options.connections; i++) {
		struct load_conn *conn = &load->conns[i];

		accepted += conn->flow.sent;
		unacked += fd_unsent(conn->flow.fd);
	}
	unread = atomic_load(&load->stats->unread);
	arrived = unacked + unread;
	printf("{\"ok\": true, \"accepted\": %llu, \"unacked\": %llu, "
	       "\"unread\": %llu, \"held\": %llu}\n",
	       (unsigned long long)accepted, (unsigned long long)unacked,
	       (unsigned long long)unread,
	       (unsigned long long)(accepted > arrived ? accepted - arrived :
							 0));
	load_end(load);
}

static void slow_start(struct load *load)
{
	if (!all_start(load, 0, EPOLLOUT, stream_ready))
		timer_arm(load->loop, &load->phase, load->options.duration_ms,
			  slow_done);
}

/* check: the pattern both ways, and the peer's verdict on its half */

static void check_print(struct load *load)
{
	printf("{\"ok\": true, \"intact\": %s, \"broken\": %u, "
	       "\"connections\": %u, \"bytes_each_way\": %llu}\n",
	       load->broken ? "false" : "true", load->broken,
	       load->options.connections,
	       (unsigned long long)load->options.bytes);
	load_end(load);
}

static void verdict_ready(struct watch *watch, uint32_t events)
{
	struct load_conn *conn = conn_of(watch);
	struct load *load = conn->load;
	ssize_t got = recv(watch->fd, (uint8_t *)&conn->verdict + conn->got,
			   sizeof(conn->verdict) - conn->got, MSG_DONTWAIT);

	(void)events;
	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0) {
		conn_lost(conn, got < 0 ? -errno : 0);
		return;
	}
	conn->got += (uint32_t)got;
	if (conn->got < sizeof(conn->verdict))
		return;
	watch_set(load->loop, watch, 0);
	if (conn->flow.broken || !conn->verdict.intact ||
	    conn->verdict.received != conn->flow.length)
		load->broken++;
	if (++load->finished == load->options.connections)
		check_print(load);
}

static void check_ready(struct watch *watch, uint32_t events)
{
	struct load_conn *conn = conn_of(watch);
	struct flow *flow = &conn->flow;
	uint32_t wanted = 0;

	stream_ready(watch,
		     events & ~(flow->sent < flow->length ? 0u : EPOLLOUT));
	if (watch->fd < 0)
		return;
	if (flow->received < flow->length)
		wanted |= EPOLLIN;
	if (flow->sent < flow->length)
		wanted |= EPOLLOUT;
	if (!wanted) {
		conn->got = 0;
		watch->fn = verdict_ready;
		wanted = EPOLLIN;
	}
	watch_set(conn->load->loop, watch, wanted);
}

static void check_start(struct load *load)
{
	all_start(load, 0, EPOLLIN | EPOLLOUT, check_ready);
}

const struct load_case load_cases[] = {
	{ "up", BENCH_UP, pool_open, stream_start },
	{ "down", BENCH_DOWN, pool_open, stream_start },
	{ "both", BENCH_BOTH, pool_open, stream_start },
	{ "pingpong", BENCH_ECHO, pool_open, pingpong_start },
	{ "idle", BENCH_ECHO, pool_open, idle_start },
	{ "slow", BENCH_MUTE, pool_open, slow_start },
	{ "check", BENCH_CHECK, pool_open, check_start },
	{ "setup", BENCH_ECHO, setup_run, NULL },
	{ "pairs", BENCH_ECHO, setup_pairs_run, NULL },
	{ NULL, 0, NULL, NULL },
};
