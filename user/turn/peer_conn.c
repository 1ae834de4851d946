/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The life of a peer data connection.
 *
 *   connecting -> held -> bound -> over
 *
 * connecting: Connect waits for the peer; the answer goes out when it is held,
 *   or has failed.
 * held: nobody reads from it, so what the peer sends stays in the kernel until
 *   its window is full: back-pressure, not a buffer. It is watched for
 *   errors and hang-ups only.
 * bound: the descriptor belongs to the pair, and so does the end.
 *
 * The allocation lives as long as one of these does, ended or not.
 */
#include "turn/peer_conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/random.h"
#include "crypto/crypto.h"
#include "turn/access.h"
#include "turn/connect.h"
#include "turn/on_wire.h"
#include "turn/outlet.h"

#define ID_TRIES 64

static uint64_t peer_hash(const struct allocation *allocation,
			  const union addr *peer)
{
	uint8_t key[sizeof(uint64_t) + 18];
	uint16_t port = addr_port(peer);
	size_t len;
	const uint8_t *bytes = addr_bytes(peer, &len);

	memcpy(key, &allocation->serial, sizeof(uint64_t));
	put_be16(key + sizeof(uint64_t), port);
	memcpy(key + sizeof(uint64_t) + 2, bytes, len);
	return table_hash(key, sizeof(uint64_t) + 2 + len);
}

struct outlet *turn_peer_conn_outlet(const struct peer_conn *conn)
{
	return turn_outlet_made(conn->allocation, addr_family(&conn->peer));
}

struct peer_conn *turn_peer_conn_find(const struct allocation *allocation,
				      const union addr *peer)
{
	struct table_node *node = table_first(&allocation->worker->peer_conns,
					      peer_hash(allocation, peer));

	for (; node; node = table_next(node)) {
		struct peer_conn *conn =
			list_entry(node, struct peer_conn, node);

		if (conn->allocation == allocation &&
		    addr_equal(&conn->peer, peer))
			return conn;
	}
	return NULL;
}

int turn_peer_conn_admit(const struct allocation *allocation)
{
	struct turn_worker *worker = allocation->worker;
	const struct conf_limits *limits = turn_limits(worker);

	int code;

	if (allocation->pending >= limits->pending_binds ||
	    allocation->conn_count >= limits->connections_per_allocation)
		return STUN_CODE_INSUFFICIENT_CAPACITY;
	code = turn_access_take(worker, allocation->account,
				&allocation->access, AUTH_QUOTA_CONNECTIONS);
	if (code)
		return code;
	if (!turn_slot_take(worker->shared, turn_conf(worker)))
		return 0;
	auth_quota_release(allocation->account, AUTH_QUOTA_CONNECTIONS);
	return STUN_CODE_INSUFFICIENT_CAPACITY;
}

void turn_peer_conn_dismiss(const struct allocation *allocation)
{
	auth_quota_release(allocation->account, AUTH_QUOTA_CONNECTIONS);
	turn_slot_release(allocation->worker->shared);
}

static void timer_expired(struct timer *timer)
{
	struct peer_conn *conn =
		list_entry(timer, struct peer_pending, timer)->conn;

	if (conn->state == PEER_CONN_CONNECTING) {
		turn_connect_failed(conn, -ETIMEDOUT);
		return;
	}
	conn->worker->counters.bind_timeouts++;
	turn_peer_conn_end(conn, "bind_timeout");
}

static void peer_ready(struct watch *watch, uint32_t events)
{
	struct peer_conn *conn =
		list_entry(watch, struct peer_pending, watch)->conn;

	if (conn->state == PEER_CONN_CONNECTING)
		turn_connect_ready(conn, events);
	else if (events & (EPOLLERR | EPOLLHUP))
		turn_peer_conn_end(conn, "peer_reset");
}

int turn_peer_conn_new(struct allocation *allocation, int fd,
		       const union addr *peer, const struct transaction *tx,
		       struct peer_conn **out)
{
	struct turn_worker *worker = allocation->worker;
	struct peer_conn *conn = calloc(1, sizeof(*conn));
	struct peer_pending *pending = calloc(1, sizeof(*pending));
	int err = -ENOMEM;

	if (!conn || !pending)
		goto free_both;
	/* Once told that it is connected, no change of the registration is
	 * needed to be told of errors and hang-ups only.
	 */
	err = watch_add(worker->loop, &pending->watch, fd,
			tx ? EPOLLOUT | EPOLLET : 0, peer_ready);
	if (err)
		goto free_both;
	watch_own(worker->loop, &pending->watch);
	pending->conn = conn;
	conn->pending = pending;
	conn->worker = worker;
	conn->allocation = allocation;
	conn->peer = *peer;
	conn->serial = ++worker->connection_serial;
	conn->created_ms = loop_now(worker->loop);
	conn->state = PEER_CONN_CONNECTING;
	if (tx) {
		pending->tx = *tx;
		timer_arm(worker->loop, &pending->timer,
			  turn_limits(worker)->connect_timeout_ms,
			  timer_expired);
	}
	table_insert(&worker->peer_conns, &conn->node,
		     peer_hash(allocation, peer));
	list_add_tail(&conn->link, &allocation->conns);
	allocation->conn_count++;
	allocation->pending++;
	*out = conn;
	return 0;

free_both:
	free(pending);
	free(conn);
	return err;
}

/* Draws identifiers until one is free. 0 or -ENOSPC. */
static int connection_id_draw(struct peer_conn *conn)
{
	struct turn_worker *worker = conn->worker;
	struct peer_pending *pending = conn->pending;

	for (int i = 0; i < ID_TRIES; i++) {
		uint32_t id = random_u32() >>
			      (32 - TURN_CONNECTION_ID_RANDOM_BITS);

		id |= (uint32_t)worker->index << TURN_CONNECTION_ID_RANDOM_BITS;
		put_be32(pending->connection_id, id);
		/* 0 would read as "none" in too many programs. */
		if (id && rendezvous_add(&worker->rendezvous, &pending->leg,
					 pending->connection_id,
					 sizeof(pending->connection_id)) == 0)
			return 0;
	}
	return -ENOSPC;
}

int turn_peer_conn_hold(struct peer_conn *conn)
{
	struct turn_worker *worker = conn->worker;
	int err = connection_id_draw(conn);

	if (err)
		return err;
	conn->state = PEER_CONN_HELD;
	crypto_wipe(&conn->pending->tx, sizeof(conn->pending->tx));
	worker->counters.pending++;
	timer_arm(worker->loop, &conn->pending->timer,
		  turn_limits(worker)->bind_timeout_ms, timer_expired);
	return 0;
}

static void conn_log(const struct peer_conn *conn, const char *reason)
{
	char peer[ADDR_STRLEN];

	log_debug(
		ROOM,
		"event=connection_ended connection=c%u.%ju allocation=a%u.%ju peer=%s reason=%s",
		conn->worker->index, (uintmax_t)conn->serial,
		conn->worker->index, (uintmax_t)conn->allocation->serial,
		addr_format(&conn->peer, peer), reason);
}

/* One leg's; on wire the descriptor was given back before. */
static void slot_release(const struct peer_conn *conn)
{
	if (conn->bare)
		turn_connection_release(conn->worker->shared);
	else
		turn_slot_release(conn->worker->shared);
}

/* Out of every table and count; freed later. The descriptors are gone. */
static void conn_leave(struct peer_conn *conn, const char *reason)
{
	struct turn_worker *worker = conn->worker;
	struct allocation *allocation = conn->allocation;

	conn_log(conn, reason);
	conn->over = true;
	if (conn->pending) {
		timer_cancel(worker->loop, &conn->pending->timer);
		rendezvous_remove(&worker->rendezvous, &conn->pending->leg);
	}
	table_remove(&worker->peer_conns, &conn->node);
	slot_release(conn);
	auth_quota_release(allocation->account, AUTH_QUOTA_CONNECTIONS);
	if (conn->state == PEER_CONN_HELD)
		worker->counters.pending--;
	if (conn->state != PEER_CONN_BOUND)
		allocation->pending--;
	allocation->conn_count--;
	turn_worker_bury(worker, &conn->link, &worker->dead_conns);
	turn_allocation_release(allocation);
}

static int conn_take_fd(struct peer_conn *conn)
{
	int fd = conn->pending->watch.fd;

	watch_del(conn->worker->loop, &conn->pending->watch);
	return fd;
}

void turn_peer_conn_end(struct peer_conn *conn, const char *reason)
{
	if (conn->over)
		return;
	watch_close(conn->worker->loop, &conn->pending->watch);
	conn_leave(conn, reason);
}

void turn_peer_conn_kick(struct peer_conn *conn)
{
	int fd;

	if (conn->over)
		return;
	if (conn->state == PEER_CONN_BOUND) {
		pair_reset(conn->pair);
		return;
	}
	if (conn->state == PEER_CONN_CONNECTING)
		turn_connect_failed(conn, -ECANCELED);
	if (conn->over)
		return;
	fd = conn_take_fd(conn);
	fd_reset(&fd);
	conn_leave(conn, "kicked");
}

void turn_peer_conn_look(struct peer_conn *conn)
{
	struct counters *counters = &conn->worker->counters;
	struct pair_info info;

	if (!conn->pair)
		return;
	pair_get_info(conn->pair, &info);
	for (int i = 0; i < 2; i++) {
		/* While the broker is not there it may know less. */
		if (info.bytes[i] <= conn->counted[i])
			continue;
		*(i == PAIR_CLIENT ? &counters->bytes_to_clients :
				     &counters->bytes_to_peers) +=
			info.bytes[i] - conn->counted[i];
		conn->counted[i] = info.bytes[i];
	}
}

/* Both descriptors are closed: their places are for others. */
static void pair_active(void *owner)
{
	struct peer_conn *conn = owner;

	conn->bare = true;
	turn_descriptor_release(conn->worker->shared);
	turn_descriptor_release(conn->worker->shared);
}

static void pair_decided(void *owner, enum wire_reason why)
{
	struct peer_conn *conn = owner;

	turn_wire_count(conn->worker, why);
}

/* What a bound connection holds beyond a held one. */
static void bound_leave(struct peer_conn *conn, const char *reason)
{
	struct turn_worker *worker = conn->worker;

	turn_peer_conn_look(conn);
	worker->counters.relaying--;
	conn->engines->pairs--;
	conn->engines = NULL;
	slot_release(conn); /* the data connection's */
	conn_leave(conn, reason);
}

static void pair_closed(void *owner, enum pair_end end)
{
	struct peer_conn *conn = owner;

	if (end == PAIR_END_RESET || end == PAIR_END_ERROR)
		conn->worker->counters.pair_errors++;
	if (end == PAIR_END_KEY)
		conn->worker->counters.tls_keys_spent++;
	bound_leave(conn, pair_end_name(end));
	conn->pair = NULL;
}

void turn_peer_conn_destroy(struct peer_conn *conn)
{
	struct pair *pair = conn->pair;

	if (conn->state != PEER_CONN_BOUND) {
		turn_peer_conn_end(conn, "shutdown");
		return;
	}
	bound_leave(conn, "shutdown");
	conn->pair = NULL;
	pair_destroy(pair);
}

/* Joins `fd` of the peer with the client's. 0 or a negative errno. */
static int pair_join(struct peer_conn *conn, int fd, const struct bind *bind,
		     const uint8_t *answer, size_t answer_len)
{
	struct turn_worker *worker = conn->worker;
	const struct conf_limits *limits = turn_limits(worker);
	struct turn_engines *engines = turn_worker_engines(worker);
	const struct rates *rates = conn->allocation->rates;
	const struct conf_engines *pinned =
		turn_settings_pin(worker->settings, &conn->allocation->access,
				  &turn_peer_conn_outlet(conn)->relayed.addr)
			.engines;
	struct pair_wire_params wire;
	struct pair_policy policy;
	struct pair_params params = {
		.loop = worker->loop,
		.engines = engines->set,
		.half = {
			[PAIR_CLIENT] = { bind->fd, bind->seal, answer,
					  answer_len },
			[PAIR_PEER] = { fd, NULL, bind->early,
					bind->early_len },
		},
		.idle_timeout_ms = limits->idle_timeout_ms,
		.linger_ms = TURN_LINGER_MS,
		.keepalive_ms = limits->keepalive_ms,
		.rates = {
			[PAIR_CLIENT] = &rates[RATE_TO_CLIENT],
			[PAIR_PEER] = &rates[RATE_TO_PEER],
		},
		.on_closed = pair_closed,
		.owner = conn,
	};
	int err;

	if (pinned)
		params.prefer = engine_set_prefer(
			engines->set, (const char *const *)pinned->order,
			pinned->count);
	params.why = turn_wire_params(conn, bind->seal, &policy, &wire);
	wire.on_active = pair_active;
	wire.on_decided = pair_decided;
	if (params.why == WIRE_OK)
		params.wire = &wire;
	else
		turn_wire_count(worker, params.why);
	err = pair_new(&params, &conn->pair);

	if (err)
		return err;
	engines->pairs++;
	conn->engines = engines;
	return 0;
}

static void pending_free(struct peer_conn *conn)
{
	if (conn->pending)
		crypto_wipe(&conn->pending->tx, sizeof(conn->pending->tx));
	free(conn->pending);
	conn->pending = NULL;
}

static void conn_bound(struct peer_conn *conn, const struct bind *bind)
{
	struct turn_worker *worker = conn->worker;
	char peer[ADDR_STRLEN], client[ADDR_STRLEN];

	timer_cancel(worker->loop, &conn->pending->timer);
	rendezvous_remove(&worker->rendezvous, &conn->pending->leg);
	pending_free(conn);
	conn->state = PEER_CONN_BOUND;
	conn->client = bind->client;
	conn->allocation->pending--;
	worker->counters.pending--;
	worker->counters.relaying++;
	worker->counters.binds++;
	log_debug(
		ROOM,
		"event=bound connection=c%u.%ju allocation=a%u.%ju client=%s peer=%s",
		worker->index, (uintmax_t)conn->serial, worker->index,
		(uintmax_t)conn->allocation->serial,
		addr_format(&conn->client, client),
		addr_format(&conn->peer, peer));
}

int turn_bind_join(struct peer_conn *conn, const struct bind *bind)
{
	struct turn_worker *worker = conn->worker;
	uint8_t buf[TURN_ANSWER_MAX];
	struct stun_writer w;
	ssize_t len;
	int fd;

	turn_answer_begin(&w, buf, STUN_SUCCESS, bind->tx);
	len = turn_answer_end(&w, bind->tx, worker);
	if (len < 0)
		return STUN_CODE_SERVER_ERROR;
	/* The pair watches the descriptor by itself. */
	fd = conn_take_fd(conn);
	if (pair_join(conn, fd, bind, buf, (size_t)len) == 0) {
		conn_bound(conn, bind);
		return 0;
	}
	if (watch_add(worker->loop, &conn->pending->watch, fd, 0, peer_ready)) {
		fd_close(&fd);
		conn_leave(conn, "resources");
	}
	return STUN_CODE_SERVER_ERROR;
}

/* RFC 6062 4.3: a data connection goes to where the control connection went. */
static bool bind_matches(const struct peer_conn *conn, bool sealed)
{
	const struct client *control = conn->allocation->client;

	return turn_conf(conn->worker)->mixed_transports || !control ||
	       transport_stream_sealed(control->stream) == sealed;
}

/* NULL: none of this worker's. */
static struct peer_conn *held_find(const struct turn_worker *worker,
				   const uint8_t *connection_id)
{
	struct waiting_leg *leg = rendezvous_find(
		&worker->rendezvous, connection_id, TURN_CONNECTION_ID_LEN);

	return leg ? list_entry(leg, struct peer_pending, leg)->conn : NULL;
}

const struct allocation *turn_bind_owner(const struct turn_worker *worker,
					 const uint8_t *connection_id)
{
	const struct peer_conn *conn = held_find(worker, connection_id);

	return conn ? conn->allocation : NULL;
}

int turn_bind_find(struct turn_worker *worker, const uint8_t *connection_id,
		   const struct auth_account *account, bool sealed,
		   struct peer_conn **out)
{
	struct peer_conn *conn = held_find(worker, connection_id);

	if (!conn)
		return STUN_CODE_BAD_REQUEST;
	/* By a token, the last one's key is as good as the first one's. */
	if (conn->allocation->account != account &&
	    conn->allocation->token_account != account)
		return STUN_CODE_WRONG_CREDENTIALS;
	if (!bind_matches(conn, sealed))
		return STUN_CODE_FORBIDDEN;
	*out = conn;
	return 0;
}

void turn_peer_conn_free(struct peer_conn *conn)
{
	pending_free(conn);
	free(conn);
}
