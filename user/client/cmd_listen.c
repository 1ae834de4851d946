/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * culvert listen: a relayed address whose connections go to a local service.
 *
 *   allocating -> permitting -> listening --lost--> waiting -> allocating ...
 *
 * A peer's connection: bound by the library -> dialling the service -> relaying ->
 * over. What the peer has sent with the bind is kept meanwhile; the rest waits in
 * the relay. A service that refuses means a reset to the peer.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "client/backoff.h"
#include "client/dial.h"
#include "client/place.h"
#include "client/relay.h"
#include "client/say.h"

#define DIAL_MS 10000
#define STOP_MS 3000

struct listen {
	struct client_session session;
	struct culvert_client *client; /* NULL between two allocations */
	union addr allow[CULVERT_PERMISSIONS_MAX];
	size_t allow_count, permitting, permitted;
	union addr service;
	struct list conns;
	unsigned int count;
	bool announced; /* an address has been told, ever */
	bool up; /* and holds */
	struct client_backoff backoff;
	struct timer timer; /* next attempt; after a signal: the end */
};

struct conn {
	struct list link;
	struct listen *listen;
	union addr peer;
	int fd; /* the data connection until it is joined */
	struct client_dial dial;
	struct client_relay relay;
	size_t early_len;
	uint8_t early[]; /* of the peer */
};

static int listen_allocate(struct listen *listen);

static void listen_stopped(struct listen *listen)
{
	if (listen->session.stopping && !listen->count && !listen->client)
		client_session_finish(&listen->session, CLIENT_EXIT_OK);
}

/* ---- Connections ---- */

static void conn_free(struct conn *conn)
{
	struct listen *listen = conn->listen;

	client_dial_cancel(&conn->dial);
	client_relay_destroy(&conn->relay);
	fd_reset(&conn->fd);
	list_del(&conn->link);
	listen->count--;
	free(conn);
	if (listen->session.stopping && !listen->count && listen->client)
		culvert_client_close(listen->client);
	listen_stopped(listen);
}

static void relay_closed(struct client_relay *relay, enum pair_end end)
{
	struct conn *conn = list_entry(relay, struct conn, relay);
	char peer[ADDR_STRLEN];

	client_debug("connection from %s ended: %s",
		     addr_format(&conn->peer, peer), pair_end_name(end));
	conn_free(conn);
}

static void service_dialled(struct client_dial *dial, int fd)
{
	struct conn *conn = list_entry(dial, struct conn, dial);
	struct listen *listen = conn->listen;
	char peer[ADDR_STRLEN], service[ADDR_STRLEN];
	int err = fd;

	if (fd >= 0)
		err = client_relay_join(&conn->relay, &listen->session, fd,
					conn->fd, conn->early, conn->early_len,
					relay_closed);
	if (!err) {
		conn->fd = -1;
		client_debug("connection from %s: service reached",
			     addr_format(&conn->peer, peer));
		return;
	}
	if (fd >= 0)
		fd_close(&fd);
	if (client_session_may_tell(&listen->session))
		client_error("connection from %s closed: service %s: %s; is "
			     "it running?",
			     addr_format(&conn->peer, peer),
			     addr_format(&listen->service, service),
			     strerror(-err));
	conn_free(conn);
}

/*
 * One too many is reset at once: left alone, its peer would wait for 30 s until the
 * server gives up on us.
 */
static bool listen_full(struct listen *listen,
			const struct culvert_stream *stream)
{
	char addr[ADDR_STRLEN];

	if (listen->count < listen->session.connections)
		return false;
	if (client_session_may_tell(&listen->session))
		client_error("connection from %s refused: %u are open; see "
			     "--connections",
			     addr_format((const union addr *)stream->peer,
					 addr),
			     listen->count);
	return true;
}

static void listen_accepted(void *arg, const struct culvert_stream *stream)
{
	struct listen *listen = arg;
	struct conn *conn = NULL;
	char peer[ADDR_STRLEN];
	int fd = stream->fd;

	if (!listen->session.stopping && !listen_full(listen, stream))
		conn = calloc(1, sizeof(*conn) + stream->early_len);
	if (!conn) {
		fd_reset(&fd);
		return;
	}
	conn->listen = listen;
	memcpy(&conn->peer, stream->peer, sizeof(conn->peer));
	conn->fd = fd;
	conn->early_len = stream->early_len;
	memcpy(conn->early, stream->early, stream->early_len);
	list_add_tail(&conn->link, &listen->conns);
	listen->count++;
	client_debug("connection from %s", addr_format(&conn->peer, peer));
	client_dial_start(&conn->dial, listen->session.loop, &listen->service,
			  DIAL_MS, NULL, NULL, service_dialled);
}

static void listen_attempt_failed(void *arg, const struct sockaddr *peer,
				  const struct culvert_error *error)
{
	struct listen *listen = arg;
	char addr[ADDR_STRLEN], what[ADDR_STRLEN + 16];

	if (!client_session_may_tell(&listen->session))
		return;
	snprintf(what, sizeof(what), "accepting %s",
		 addr_format((const union addr *)peer, addr));
	client_session_error(&listen->session, what, error);
}

/* ---- Allocation ---- */

static void listen_announce(struct listen *listen)
{
	struct culvert_info info;
	char addr[ADDR_STRLEN];

	culvert_client_info(listen->client, &info);
	printf("relayed %s\n",
	       addr_format((const union addr *)&info.relayed, addr));
	fflush(stdout);
	listen->announced = listen->up = true;
	client_backoff_reset(&listen->backoff);
}

static void listen_permitted(void *arg, const struct culvert_error *error)
{
	struct listen *listen = arg;

	if (error && error->code > 0)
		client_session_error(&listen->session, "--allow", error);
	listen->permitted += !error;
	/* With an error below 0 the client ends and says so itself. */
	if (--listen->permitting || (error && error->code < 0))
		return;
	if (listen->permitted) {
		listen_announce(listen);
		return;
	}
	client_error("listen: the server permits none of %s",
		     listen->session.config->allow);
	client_session_finish(&listen->session, CLIENT_EXIT_FAILURE);
}

static void listen_ready(void *arg)
{
	struct listen *listen = arg;
	int err;

	listen->permitting = listen->permitted = 0;
	for (size_t i = 0; i < listen->allow_count; i++) {
		err = culvert_client_permit(listen->client,
					    &listen->allow[i].sa,
					    listen_permitted, listen);
		if (!err)
			listen->permitting++;
		else if (err != -EALREADY) /* named twice */
			client_error("--allow: %s", strerror(-err));
	}
	if (!listen->permitting)
		culvert_client_close(listen->client);
}

static void listen_permission_lost(void *arg, const struct sockaddr *peer,
				   const struct culvert_error *error)
{
	struct listen *listen = arg;
	char addr[ADDR_STRLEN], what[ADDR_STRLEN + 40];

	snprintf(what, sizeof(what),
		 "the permission of %s could not be refreshed",
		 addr_format_host((const union addr *)peer, addr));
	client_session_error(&listen->session, what, error);
}

static void attempt_due(struct timer *timer)
{
	struct listen *listen = list_entry(timer, struct listen, timer);
	int err = listen_allocate(listen);

	if (!err)
		return;
	client_error("listen: starting the client failed: %s", strerror(-err));
	timer_arm(listen->session.loop, timer,
		  client_backoff_next(&listen->backoff), attempt_due);
}

static void listen_ended(void *arg, const struct culvert_error *error)
{
	struct listen *listen = arg;
	struct list *pos;
	uint32_t delay;

	culvert_client_free(listen->client);
	listen->client = NULL;
	if (error)
		client_session_error(&listen->session,
				     listen->up ? "allocation lost" :
						  "no allocation",
				     error);
	listen->up = false;
	if (!listen->session.stopping && !listen->announced) {
		client_session_finish(&listen->session, CLIENT_EXIT_FAILURE);
		return;
	}
	/* The server ends their data connections, too. */
	list_for_each(pos, &listen->conns)
		client_relay_finish(&list_entry(pos, struct conn, link)->relay);
	listen_stopped(listen);
	if (listen->session.stopping)
		return;
	delay = client_backoff_next(&listen->backoff);
	client_info("next attempt in %u.%u s", delay / 1000,
		    delay % 1000 / 100);
	timer_arm(listen->session.loop, &listen->timer, delay, attempt_due);
}

static int listen_allocate(struct listen *listen)
{
	static const struct culvert_events events = {
		.ready = listen_ready,
		.accepted = listen_accepted,
		.attempt_failed = listen_attempt_failed,
		.permission_lost = listen_permission_lost,
		.ended = listen_ended,
	};
	struct culvert_options options;

	client_session_options(&listen->session, addr_family(&listen->allow[0]),
			       &options);
	return culvert_client_new(listen->session.library, &options, &events,
				  listen, &listen->client);
}

/* ---- The command ---- */

static void stop_expired(struct timer *timer)
{
	struct listen *listen = list_entry(timer, struct listen, timer);

	client_session_finish(&listen->session, CLIENT_EXIT_OK);
}

static void listen_stop(struct client_session *session)
{
	struct listen *listen = list_entry(session, struct listen, session);
	struct list *pos, *tmp;

	timer_arm(session->loop, &listen->timer, STOP_MS, stop_expired);
	list_for_each_safe(pos, tmp, &listen->conns) {
		struct conn *conn = list_entry(pos, struct conn, link);

		if (conn->relay.pair)
			client_relay_finish(&conn->relay);
		else
			conn_free(conn);
	}
	if (!listen->count && listen->client)
		culvert_client_close(listen->client);
	listen_stopped(listen);
}

static void listen_close(struct listen *listen)
{
	struct list *pos, *tmp;

	listen->session.stopping = true;
	timer_cancel(listen->session.loop, &listen->timer);
	culvert_client_free(listen->client);
	listen->client = NULL;
	list_for_each_safe(pos, tmp, &listen->conns)
		conn_free(list_entry(pos, struct conn, link));
	client_session_close(&listen->session);
}

static enum client_exit listen_run(struct listen *listen)
{
	enum client_exit result = CLIENT_EXIT_FAILURE;
	int err = client_session_open_engines(&listen->session);

	if (err) {
		client_session_close(&listen->session);
		return client_exit_for(err);
	}
	listen->session.on_stop = listen_stop;
	err = listen_allocate(listen);
	if (err)
		client_error("listen: starting the client failed: %s",
			     strerror(-err));
	else
		result = client_session_run(&listen->session);
	listen_close(listen);
	return result;
}

enum client_exit client_cmd_listen(const struct client_config *config)
{
	struct listen listen;
	int err;

	memset(&listen, 0, sizeof(listen));
	list_init(&listen.conns);
	err = client_allow_read(config->allow, listen.allow,
				CULVERT_PERMISSIONS_MAX, &listen.allow_count);
	if (!err)
		err = client_endpoint_find("service", config->operand[0],
					   "127.0.0.1", &listen.service);
	if (!err)
		err = client_session_open(&listen.session, config);
	return err ? client_exit_for(err) : listen_run(&listen);
}
