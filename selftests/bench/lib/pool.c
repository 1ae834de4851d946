/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pool: all connections of a case, opened a few at a time.
 *
 * Allocations first, then connections, connection i through allocation
 * i % allocations and to peer address i: RFC 6062 knows one connection per
 * allocation and peer address. The first failure ends the run: a figure over
 * fewer connections than asked for would compare unlike things.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "load.h"

static void pool_advance(struct load *load);

static void session_done(struct dial_session *dial, int error)
{
	struct load *load = list_entry(dial, struct load_session, dial)->load;

	if (error) {
		load_fail(load, "allocation", error);
		return;
	}
	load->sessions_open++;
	pool_advance(load);
}

static void conn_done(struct dial_conn *dial, int error)
{
	struct load_conn *conn = list_entry(dial, struct load_conn, dial);
	struct load *load = conn->load;

	if (error) {
		load_fail(load, "connection", error);
		return;
	}
	conn->flow.fd = dial->watch.fd;
	watch_set(load->loop, &dial->watch, 0);
	load->conns_open++;
	if (load->conns_open == load->options.connections)
		load->kind->start(load);
	else
		pool_advance(load);
}

static int conn_open(struct load *load, uint32_t index)
{
	struct load_conn *conn = &load->conns[index];
	struct dial_session *session = NULL;

	conn->load = load;
	conn->index = index;
	if (load->options.dial.turn)
		session =
			&load->sessions[index % load->options.allocations].dial;
	return dial_conn_open(&conn->dial, load->loop, &load->options.dial,
			      session, index, index, conn_done);
}

/* Starts what may start now. */
static void pool_advance(struct load *load)
{
	const struct load_options *options = &load->options;
	uint32_t limit = options->in_flight;
	int error = 0;

	while (!error && load->sessions_asked < options->allocations &&
	       load->sessions_asked - load->sessions_open < limit) {
		uint32_t index = load->sessions_asked++;

		load->sessions[index].load = load;
		error = dial_session_open(&load->sessions[index].dial,
					  load->loop, &options->dial, index,
					  session_done);
	}
	if (error) {
		load_fail(load, "allocation", error);
		return;
	}
	if (load->sessions_open < options->allocations)
		return;
	while (!error && load->conns_asked < options->connections &&
	       load->conns_asked - load->conns_open < limit)
		error = conn_open(load, load->conns_asked++);
	if (error)
		load_fail(load, "connection", error);
}

int pool_open(struct load *load)
{
	struct load_options *options = &load->options;

	if (!options->dial.turn)
		options->allocations = 0;
	else if (!options->allocations ||
		 options->allocations > options->connections)
		options->allocations = options->connections;
	load->sessions =
		calloc(options->allocations + 1, sizeof(*load->sessions));
	load->conns = calloc(options->connections, sizeof(*load->conns));
	if (!load->sessions || !load->conns)
		return -ENOMEM;
	pool_advance(load);
	return 0;
}

void pool_close(struct load *load)
{
	for (uint32_t i = 0; load->conns && i < load->conns_asked; i++)
		dial_conn_close(&load->conns[i].dial);
	for (uint32_t i = 0; load->sessions && i < load->sessions_asked; i++)
		dial_session_close(&load->sessions[i].dial);
	free(load->conns);
	free(load->sessions);
	load->conns = NULL;
	load->sessions = NULL;
}

int pool_hello(struct load_conn *conn, uint32_t extra)
{
	uint8_t buf[sizeof(struct bench_hello) + 8192] = { 0 };
	struct bench_hello hello = {
		.magic = BENCH_MAGIC,
		.mode = conn->load->kind->mode,
		.length = conn->load->options.bytes,
		.seed = 2 * (uint64_t)conn->index + 1,
	};
	size_t len = sizeof(hello) + extra;
	ssize_t sent;

	if (len > sizeof(buf))
		return -EINVAL;
	memcpy(buf, &hello, sizeof(hello));
	sent = send(conn->dial.watch.fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0)
		return -errno;
	conn->flow.check = conn->load->kind->mode == BENCH_CHECK;
	conn->flow.seed_out = hello.seed;
	conn->flow.seed_in = hello.seed + 1;
	conn->flow.length = hello.length;
	return (size_t)sent == len ? 0 : -ENOBUFS;
}
