/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * culvert forward: a local port whose connections go to one peer.
 *
 * A connection: waiting for an allocation -> connecting -> relaying -> over. It is
 * not read before it is joined, so the back-pressure is the kernel's. While
 * waiting or connecting it can only end by a reset: what its client has sent was
 * not delivered.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "client/listener.h"
#include "client/place.h"
#include "client/pool.h"
#include "client/relay.h"
#include "client/say.h"
#include "stun/stun.h"

/* Allocations tried for one connection. */
#define TRIES_MAX 3
/* After a signal connections have so long to end by themselves. */
#define STOP_MS 3000

struct forward {
	struct client_session session;
	struct client_listener listener;
	struct client_pool pool;
	union addr local, peer;
	struct list conns;
	unsigned int count;
	struct timer stop_timer;
};

struct conn {
	struct list link;
	struct forward *forward;
	union addr from;
	int fd; /* the local side until it is joined */
	struct client_waiter waiter;
	struct client_slot *slot; /* lent to us */
	unsigned int tries; /* allocations that did not do */
	bool connecting;
	struct client_relay relay;
};

static struct forward *forward_of(struct client_session *session)
{
	return list_entry(session, struct forward, session);
}

/* All is over after a signal: end. */
static void forward_stopped(struct forward *forward)
{
	if (forward->session.stopping && !forward->count &&
	    client_pool_empty(&forward->pool))
		client_session_finish(&forward->session, CLIENT_EXIT_OK);
}

static void forward_stop_check(struct timer *timer)
{
	struct forward *forward = list_entry(timer, struct forward, stop_timer);

	client_session_finish(&forward->session, CLIENT_EXIT_OK);
}

static void conn_free(struct conn *conn, enum client_outcome outcome)
{
	struct forward *forward = conn->forward;
	struct client_slot *slot = conn->slot;

	client_pool_leave(&forward->pool, &conn->waiter);
	if (conn->connecting && slot) {
		culvert_client_cancel(slot->client, conn);
		outcome = CLIENT_OUTCOME_SPOILT;
	}
	client_relay_destroy(&conn->relay);
	fd_reset(&conn->fd);
	list_del(&conn->link);
	forward->count--;
	free(conn);
	if (slot)
		client_pool_put(&forward->pool, slot, outcome);
	if (!forward->session.stopping)
		client_listener_pause(&forward->listener, false);
	else if (!forward->count)
		client_pool_close(&forward->pool);
	forward_stopped(forward);
}

static void conn_refuse(struct conn *conn, const char *why,
			enum client_outcome outcome)
{
	char from[ADDR_STRLEN];

	if (client_session_may_tell(&conn->forward->session))
		client_error("connection from %s refused: %s",
			     addr_format(&conn->from, from), why);
	conn_free(conn, outcome);
}

static void relay_closed(struct client_relay *relay, enum pair_end end)
{
	struct conn *conn = list_entry(relay, struct conn, relay);
	char from[ADDR_STRLEN];

	client_debug("connection from %s ended: %s",
		     addr_format(&conn->from, from), pair_end_name(end));
	conn_free(conn, CLIENT_OUTCOME_USED);
}

static void conn_join(struct conn *conn, const struct culvert_stream *stream)
{
	struct forward *forward = conn->forward;
	int fd = stream->fd, err;
	char from[ADDR_STRLEN];

	err = client_relay_join(&conn->relay, &forward->session, conn->fd, fd,
				stream->early, stream->early_len, relay_closed);
	if (err) {
		fd_reset(&fd);
		conn_refuse(conn, strerror(-err), CLIENT_OUTCOME_USED);
		return;
	}
	conn->fd = -1;
	client_debug("connection from %s: peer reached",
		     addr_format(&conn->from, from));
	client_pool_reached(&forward->pool, conn->slot);
}

/* Ours, not the allocation's: another one would make it worse. */
static bool is_shortage(int code)
{
	return code == -EMFILE || code == -ENFILE || code == -ENOMEM ||
	       code == -ENOBUFS;
}

/*
 * Is it worth another allocation? Yes if this one's connection to the server
 * broke, and if it had been used for this peer before: the server's side of that
 * connection may not be over.
 */
static bool conn_retry(struct conn *conn, int code)
{
	struct client_slot *slot = conn->slot;
	bool reused = slot->used_ms &&
		      (code == STUN_CODE_CONNECTION_ALREADY_EXISTS ||
		       code == STUN_CODE_CONNECTION_TIMEOUT_OR_FAILURE);
	bool broken = code < 0 && code != -ETIMEDOUT && !is_shortage(code);

	if ((!reused && !broken) || ++conn->tries >= TRIES_MAX ||
	    conn->forward->session.stopping)
		return false;
	conn->slot = NULL;
	conn->waiter.fresh_only = true;
	client_pool_put(&conn->forward->pool, slot, CLIENT_OUTCOME_SPOILT);
	client_pool_wait(&conn->forward->pool, &conn->waiter);
	return true;
}

static void conn_fail(struct conn *conn, const struct culvert_error *error)
{
	struct forward *forward = conn->forward;
	char from[ADDR_STRLEN], peer[ADDR_STRLEN], what[2 * ADDR_STRLEN + 40];
	enum client_outcome outcome = CLIENT_OUTCOME_UNUSED;

	if (conn_retry(conn, error->code))
		return;
	if (error->code == STUN_CODE_CONNECTION_TIMEOUT_OR_FAILURE)
		outcome = CLIENT_OUTCOME_REFUSED;
	else if (error->code == STUN_CODE_CONNECTION_ALREADY_EXISTS ||
		 error->code < 0)
		outcome = CLIENT_OUTCOME_SPOILT;
	snprintf(what, sizeof(what), "connection from %s to peer %s refused",
		 addr_format(&conn->from, from),
		 addr_format(&forward->peer, peer));
	if (client_session_may_tell(&forward->session))
		client_session_error(&forward->session, what, error);
	conn_free(conn, outcome);
}

static void conn_connected(void *arg, const struct culvert_error *error,
			   const struct culvert_stream *stream)
{
	struct conn *conn = arg;

	conn->connecting = false;
	if (error)
		conn_fail(conn, error);
	else
		conn_join(conn, stream);
}

static void conn_granted(struct client_waiter *waiter, struct client_slot *slot)
{
	struct conn *conn = list_entry(waiter, struct conn, waiter);
	char from[ADDR_STRLEN];
	int err;

	if (!slot) {
		conn_refuse(conn, "no allocation could be had in time",
			    CLIENT_OUTCOME_UNUSED);
		return;
	}
	conn->slot = slot;
	client_debug("connection from %s: asking for the peer",
		     addr_format(&conn->from, from));
	err = culvert_client_connect(slot->client, &conn->forward->peer.sa,
				     conn_connected, conn);
	if (err)
		conn_refuse(conn, strerror(-err), CLIENT_OUTCOME_SPOILT);
	else
		conn->connecting = true;
}

/* The server ends the data connection as well; let through what there is. */
static void conn_lost(struct client_waiter *waiter)
{
	struct conn *conn = list_entry(waiter, struct conn, waiter);

	conn->slot = NULL;
	client_relay_finish(&conn->relay);
}

static void forward_accepted(struct client_listener *listener, int fd,
			     const union addr *from)
{
	struct forward *forward =
		list_entry(listener, struct forward, listener);
	struct conn *conn = calloc(1, sizeof(*conn));
	char text[ADDR_STRLEN];

	if (!conn) {
		client_error("a connection was refused: not enough memory");
		fd_reset(&fd);
		return;
	}
	conn->forward = forward;
	conn->from = *from;
	conn->fd = fd;
	conn->waiter.granted = conn_granted;
	conn->waiter.lost = conn_lost;
	list_add_tail(&conn->link, &forward->conns);
	client_debug("connection from %s", addr_format(from, text));
	if (++forward->count >= forward->session.connections)
		client_listener_pause(listener, true);
	client_pool_wait(&forward->pool, &conn->waiter);
}

/* What to do when listening has failed. */
static const char *listen_hint(int err)
{
	switch (-err) {
	case EADDRINUSE:
		return "; choose another port";
	case EACCES:
		return "; choose a port from 1024 on, or try as root";
	case EADDRNOTAVAIL:
		return "; choose an address of this host";
	default:
		return "";
	}
}

static void forward_started(struct client_pool *pool,
			    const struct culvert_error *error)
{
	struct forward *forward = list_entry(pool, struct forward, pool);
	char local[ADDR_STRLEN];
	int err;

	if (error) {
		client_session_error(&forward->session, "forward", error);
		client_session_finish(&forward->session, CLIENT_EXIT_FAILURE);
		return;
	}
	err = client_listener_open(&forward->listener, forward->session.loop,
				   &forward->local, forward_accepted);
	if (err) {
		client_error("listening on %s failed: %s%s",
			     addr_format(&forward->local, local),
			     strerror(-err), listen_hint(err));
		client_session_finish(&forward->session, CLIENT_EXIT_FAILURE);
		return;
	}
	printf("listening %s\n", addr_format(&forward->listener.addr, local));
	fflush(stdout);
}

static void forward_emptied(struct client_pool *pool)
{
	forward_stopped(list_entry(pool, struct forward, pool));
}

static void forward_stop(struct client_session *session)
{
	struct forward *forward = forward_of(session);
	struct list *pos, *tmp;

	client_pool_freeze(&forward->pool);
	client_listener_close(&forward->listener);
	timer_arm(session->loop, &forward->stop_timer, STOP_MS,
		  forward_stop_check);
	list_for_each_safe(pos, tmp, &forward->conns) {
		struct conn *conn = list_entry(pos, struct conn, link);

		if (conn->relay.pair)
			client_relay_finish(&conn->relay);
		else
			conn_free(conn, CLIENT_OUTCOME_UNUSED);
	}
	if (!forward->count)
		client_pool_close(&forward->pool);
	forward_stopped(forward);
}

static void forward_close(struct forward *forward)
{
	struct list *pos, *tmp;

	forward->session.stopping = true;
	client_pool_freeze(&forward->pool);
	list_for_each_safe(pos, tmp, &forward->conns) {
		struct conn *conn = list_entry(pos, struct conn, link);

		conn->slot = NULL; /* the pool goes as a whole */
		conn_free(conn, CLIENT_OUTCOME_UNUSED);
	}
	client_pool_destroy(&forward->pool);
	client_listener_close(&forward->listener);
	client_session_close(&forward->session);
}

static enum client_exit forward_run(struct forward *forward)
{
	const struct client_config *config = forward->session.config;
	enum client_exit result;
	int err = client_session_open_engines(&forward->session);

	if (err) {
		client_session_close(&forward->session);
		return client_exit_for(err);
	}
	forward->session.on_stop = forward_stop;
	forward->pool.session = &forward->session;
	forward->pool.family = addr_family(&forward->peer);
	forward->pool.warm = config->warm;
	forward->pool.max = forward->session.connections + config->warm;
	forward->pool.started = forward_started;
	forward->pool.emptied = forward_emptied;
	client_pool_start(&forward->pool);
	result = client_session_run(&forward->session);
	forward_close(forward);
	return result;
}

enum client_exit client_cmd_forward(const struct client_config *config)
{
	struct forward forward;
	int err;

	memset(&forward, 0, sizeof(forward));
	forward.listener.watch.fd = -1;
	list_init(&forward.conns);
	err = client_endpoint_find("local address", config->operand[0],
				   "127.0.0.1", &forward.local);
	if (!err)
		err = client_endpoint_find("peer", config->operand[1], NULL,
					   &forward.peer);
	if (!err)
		err = client_session_open(&forward.session, config);
	return err ? client_exit_for(err) : forward_run(&forward);
}
