/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker: what it owns, how it starts, takes new settings and ends.
 *
 * It runs on one thread and shares nothing but struct turn_shared, so there are
 * no locks. Objects that have ended are collected on the dead lists and freed by
 * deferred work when the tick's callbacks have returned.
 */
#include "turn/worker.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/syscalls.h"
#include "turn/access.h"
#include "turn/allocation.h"
#include "turn/client.h"
#include "turn/datagram.h"
#include "turn/on_wire.h"
#include "turn/peer_conn.h"
#include "turn/proxied.h"

SYSCALLS(SYSCALLS_RELAY, "getsockname setsockopt");

#define ORDINARY_LINES 20 /* a second, of what is no trouble */

/* A socket of a listener: one of the two. */
struct listener_socket {
	struct list link; /* of turn_listener.sockets */
	struct listener *listener; /* NULL: datagrams */
	struct datagram_port *port;
};

static struct turn_engines *engines_entry(struct list *link)
{
	return list_entry(link, struct turn_engines, link);
}

struct turn_engines *turn_worker_engines(struct turn_worker *worker)
{
	return engines_entry(worker->engine_sets.prev);
}

/* Of sockmap nothing is said before it is known whether its maps come. */
static void engine_unavailable(void *arg, const char *name, int error)
{
	struct turn_worker *worker = arg;

	if (!worker->engine_unavailable ||
	    (strcmp(name, "sockmap") == 0 && !worker->sockmap_known))
		return;
	worker->engine_unavailable(worker->arg, name, error);
}

/* Every engine that somebody may want. */
static size_t engines_wanted(const struct conf *conf, const char **names)
{
	size_t count = 0;

	for (size_t i = 0; engine_all[i] && count < CONF_ENGINES_MAX; i++)
		if (conf_engine_wanted(conf, engine_all[i]->name))
			names[count++] = engine_all[i]->name;
	return count;
}

/* Opens what the settings name; it is in force then. 0 or a negative errno. */
static int engines_open(struct turn_worker *worker,
			const struct turn_settings *settings)
{
	const struct conf_engine *conf = &settings->conf->engine;
	const char *wanted[CONF_ENGINES_MAX];
	const struct engine_params params = {
		.pipe_size = conf->pipe_size,
		.pipes = conf->pipes,
		.copy_buffer = conf->copy_buffer,
		.receive_buffer = conf->receive_buffer,
		.ktls = conf->ktls,
		.seals = worker->seals,
		.sockmap_fds = wire_sockmap_fds(worker->wire),
		.extra = wanted,
		.extra_count = engines_wanted(settings->conf, wanted),
	};
	struct turn_engines *engines = calloc(1, sizeof(*engines));
	int err;

	if (!engines)
		return -ENOMEM;
	err = engine_set_new(worker->loop, &params,
			     (const char *const *)conf->order,
			     conf->order_count, engine_unavailable, worker,
			     &engines->set);
	if (err) {
		free(engines);
		return err;
	}
	list_add_tail(&engines->link, &worker->engine_sets);
	return 0;
}

/* Asks the broker for what the sockmap engine needs, if it is wanted. */
static void sockmap_ask(struct turn_worker *worker)
{
	int err;

	if (!conf_engine_wanted(turn_conf(worker), "sockmap") ||
	    wire_sockmap_fds(worker->wire))
		return;
	err = wire_sockmap(worker->wire);
	worker->sockmap_known = err != 0;
	if (err)
		engine_unavailable(worker, "sockmap", err);
}

void turn_worker_sockmap(struct turn_worker *worker, int error)
{
	worker->sockmap_known = true;
	if (error)
		engine_unavailable(worker, "sockmap", error);
	else
		engines_open(worker, worker->settings);
}

int turn_worker_broker(struct turn_worker *worker, int fd)
{
	int err = wire_channel(worker->wire, fd);

	sockmap_ask(worker);
	return err;
}

static void engines_free(struct turn_engines *engines)
{
	list_del(&engines->link);
	engine_set_free(engines->set);
	free(engines);
}

/* Sets of older settings go with their last pair. */
static void engines_reap(struct turn_worker *worker)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &worker->engine_sets) {
		struct turn_engines *engines = engines_entry(pos);

		if (engines != turn_worker_engines(worker) && !engines->pairs)
			engines_free(engines);
	}
}

static void reap(struct deferred *deferred)
{
	struct turn_worker *worker =
		list_entry(deferred, struct turn_worker, reaper);
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &worker->dead_conns)
		turn_peer_conn_free(list_entry(pos, struct peer_conn, link));
	list_init(&worker->dead_conns);
	list_for_each_safe(pos, tmp, &worker->dead_allocations)
		turn_allocation_free(list_entry(pos, struct allocation, link));
	list_init(&worker->dead_allocations);
	list_for_each_safe(pos, tmp, &worker->dead_clients)
		turn_client_free(list_entry(pos, struct client, link));
	list_init(&worker->dead_clients);
	engines_reap(worker);
}

void turn_worker_bury(struct turn_worker *worker, struct list *link,
		      struct list *dead)
{
	list_del(link);
	list_add_tail(link, dead);
	loop_defer(worker->loop, &worker->reaper, reap);
}

bool turn_worker_may_log(struct turn_worker *worker, enum turn_log kind,
			 uint64_t *suppressed)
{
	bool ordinary = kind == TURN_LOG_ALLOCATION ||
			kind == TURN_LOG_ALLOCATION_ENDED;

	return log_allow_some(&worker->limits[kind],
			      ordinary ? ORDINARY_LINES : 1,
			      loop_now(worker->loop), suppressed);
}

static void lists_init(struct turn_worker *worker)
{
	list_init(&worker->engine_sets);
	list_init(&worker->waiting);
	list_init(&worker->detours);
	list_init(&worker->listeners);
	list_init(&worker->clients);
	list_init(&worker->allocations);
	list_init(&worker->ended);
	list_init(&worker->dead_clients);
	list_init(&worker->dead_conns);
	list_init(&worker->dead_allocations);
}

static void tables_destroy(struct turn_worker *worker)
{
	table_destroy(&worker->permissions);
	table_destroy(&worker->peer_conns);
	table_destroy(&worker->channel_numbers);
	table_destroy(&worker->channel_peers);
	table_destroy(&worker->paths);
	table_destroy(&worker->detour_paths);
	table_destroy(&worker->serials);
}

static int tables_init(struct turn_worker *worker)
{
	int err = table_init(&worker->permissions);

	if (!err)
		err = table_init(&worker->peer_conns);
	if (!err)
		err = table_init(&worker->channel_numbers);
	if (!err)
		err = table_init(&worker->channel_peers);
	if (!err)
		err = table_init(&worker->paths);
	if (!err)
		err = table_init(&worker->detour_paths);
	if (!err)
		err = table_init(&worker->serials);
	if (err)
		tables_destroy(worker);
	return err;
}

/* Makes the tables and reads what must be known. 0 or a negative errno. */
static int worker_open(struct turn_worker *worker)
{
	bool changed;
	int err = rendezvous_init(&worker->rendezvous);

	if (err)
		return err;
	err = tables_init(worker);
	if (err)
		goto destroy_rendezvous;
	/* Without its own addresses a worker would let peers into itself. */
	err = turn_own_addresses_read(&worker->own, &changed);
	if (err)
		goto destroy_tables;
	err = udp_new(worker->loop, &worker->udp);
	if (err)
		goto clear_own;
	err = turn_wire_open(worker);
	if (err)
		goto free_udp;
	err = engines_open(worker, worker->settings);
	if (err)
		goto close_wire;
	return 0;

close_wire:
	turn_wire_close(worker);
free_udp:
	udp_free(worker->udp);
clear_own:
	turn_own_addresses_clear(&worker->own);
destroy_tables:
	tables_destroy(worker);
destroy_rendezvous:
	rendezvous_destroy(&worker->rendezvous);
	return err;
}

int turn_worker_new(const struct turn_worker_params *params,
		    struct turn_worker **out)
{
	struct turn_worker *worker;
	int err;

	if (params->index >= params->shared->worker_count)
		return -EINVAL;
	worker = calloc(1, sizeof(*worker));
	if (!worker)
		return -ENOMEM;
	lists_init(worker);
	worker->shared = params->shared;
	worker->index = params->index;
	worker->loop = params->loop;
	worker->settings = params->settings;
	worker->policy_serial = 1; /* 0: of a channel that was not judged */
	worker->engine_unavailable = params->engine_unavailable;
	worker->broker_lost = params->broker_lost;
	worker->arg = params->arg;
	err = worker_open(worker);
	if (err) {
		free(worker);
		return err;
	}
	turn_settings_ref(worker->settings);
	turn_shared_budget(worker->shared, turn_conf(worker));
	atomic_store(&worker->shared->workers[worker->index], worker);
	*out = worker;
	return 0;
}

static void allocation_destroy(struct allocation *allocation)
{
	struct list *pos, *tmp;

	turn_allocation_end(allocation, "shutdown", false);
	list_for_each_safe(pos, tmp, &allocation->conns)
		turn_peer_conn_destroy(list_entry(pos, struct peer_conn, link));
}

static void socket_retire(struct listener_socket *sock)
{
	list_del(&sock->link);
	listener_free(sock->listener);
	turn_datagram_retire(sock->port);
	free(sock);
}

static void sockets_close(struct turn_listener *listener)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &listener->sockets)
		socket_retire(list_entry(pos, struct listener_socket, link));
}

/* Nothing comes in any more; clients may still hold the name and realm. */
static void listener_retire(struct turn_listener *listener)
{
	sockets_close(listener);
	turn_proxied_close(listener);
	list_del(&listener->link);
	turn_listener_unref(listener);
}

void turn_worker_free(struct turn_worker *worker)
{
	struct list *pos, *tmp;

	if (!worker)
		return;
	assert(list_empty(&worker->waiting));
	atomic_store(&worker->shared->workers[worker->index], NULL);
	list_for_each_safe(pos, tmp, &worker->listeners)
		listener_retire(list_entry(pos, struct turn_listener, link));
	list_for_each_safe(pos, tmp, &worker->ended)
		allocation_destroy(list_entry(pos, struct allocation, link));
	list_for_each_safe(pos, tmp, &worker->allocations)
		allocation_destroy(list_entry(pos, struct allocation, link));
	list_for_each_safe(pos, tmp, &worker->clients)
		turn_client_end(list_entry(pos, struct client, link),
				"shutdown");
	reap(&worker->reaper);
	loop_undefer(&worker->reaper);
	turn_wire_close(worker);
	list_for_each_safe(pos, tmp, &worker->engine_sets)
		engines_free(engines_entry(pos));
	rendezvous_destroy(&worker->rendezvous);
	tables_destroy(worker);
	udp_free(worker->udp);
	turn_own_addresses_clear(&worker->own);
	turn_settings_unref(worker->settings);
	free(worker);
}

struct turn_listener *turn_listener_find(struct turn_worker *worker,
					 const char *name)
{
	struct list *pos;

	list_for_each(pos, &worker->listeners) {
		struct turn_listener *listener =
			list_entry(pos, struct turn_listener, link);

		if (strcmp(listener->name, name) == 0)
			return listener;
	}
	return NULL;
}

struct datagram_port *turn_listener_port(const struct turn_listener *listener,
					 const union addr *local)
{
	struct datagram_port *any = NULL;
	struct list *pos;

	list_for_each(pos, &listener->sockets) {
		struct datagram_port *port =
			list_entry(pos, struct listener_socket, link)->port;
		const union addr *bound = port ? turn_datagram_addr(port) :
						 NULL;

		if (bound && addr_equal(bound, local))
			return port;
		if (bound && addr_is_any(bound) &&
		    addr_family(bound) == addr_family(local) &&
		    addr_port(bound) == addr_port(local))
			any = port;
	}
	return any;
}

struct turn_listener *turn_listener_ref(struct turn_listener *listener)
{
	listener->refs++;
	return listener;
}

void turn_listener_unref(struct turn_listener *listener)
{
	if (listener && --listener->refs == 0)
		free(listener);
}

static void client_accepted(void *arg, int fd, const union addr *remote)
{
	turn_client_accepted(arg, fd, remote);
}

static void accept_exhausted(void *arg, int error)
{
	struct turn_listener *listener = arg;
	struct turn_worker *worker = listener->worker;
	uint64_t suppressed;

	worker->counters.rejected_descriptors++;
	if (turn_worker_may_log(worker, TURN_LOG_DESCRIPTORS, &suppressed))
		log_warn(
			ROOM,
			"event=accept_failed listener=%s error=%s suppressed=%ju",
			listener->name, strerrorname_np(-error),
			(uintmax_t)suppressed);
}

static const struct listener_ops client_listener_ops = {
	.accepted = client_accepted,
	.exhausted = accept_exhausted,
};

/* What the settings say of it. */
static void listener_learn(struct turn_listener *listener)
{
	const struct turn_settings *settings = listener->worker->settings;

	listener->conf = turn_settings_listener(settings, listener->name);
	listener->realm = turn_settings_realm(settings, listener->name);
	listener->tls = turn_settings_tls(settings, listener->name);
}

static struct turn_listener *listener_get(struct turn_worker *worker,
					  const char *name)
{
	struct turn_listener *listener = turn_listener_find(worker, name);

	if (listener)
		return listener;
	listener = calloc(1, sizeof(*listener));
	if (!listener)
		return NULL;
	listener->worker = worker;
	listener->refs = 1;
	list_init(&listener->sockets);
	list_init(&listener->proxied);
	memcpy(listener->name, name, strlen(name) + 1);
	listener_learn(listener);
	list_add_tail(&listener->link, &worker->listeners);
	return listener;
}

/* What clients are asked not to exceed; 0: what the kernel makes of it. */
static void socket_mss(int fd, unsigned int mss)
{
	const int value = (int)mss;

	setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &value, sizeof(value));
}

/* What the settings say of it. */
static void socket_tune(const struct listener_socket *sock,
			const struct turn_listener *listener)
{
	const struct turn_worker *worker = listener->worker;
	int fd;

	if (sock->port) {
		turn_datagram_tune(sock->port);
		return;
	}
	fd = listener_fd(sock->listener);
	fd_keepalive(fd, turn_limits(worker)->keepalive_ms);
	fd_inline(fd);
	socket_mss(fd, turn_settings_mss(worker->settings, listener->name));
}

static int socket_serve(struct turn_listener *listener, int fd)
{
	struct turn_worker *worker = listener->worker;
	struct listener_socket *sock = calloc(1, sizeof(*sock));
	int err;

	if (!sock)
		return -ENOMEM;
	if (udp_is(fd))
		err = turn_datagram_serve(listener, fd, &sock->port);
	else
		err = listener_new(worker->loop, fd, true, &client_listener_ops,
				   listener, &sock->listener);
	if (err) {
		free(sock);
		return err;
	}
	socket_tune(sock, listener);
	list_add_tail(&sock->link, &listener->sockets);
	return 0;
}

int turn_worker_listen(struct turn_worker *worker, int fd, const char *name)
{
	struct turn_listener *listener;
	int err;

	if (strlen(name) >= CONF_NAME_MAX)
		return -EINVAL;
	listener = listener_get(worker, name);
	if (!listener)
		return -ENOMEM;
	err = socket_serve(listener, fd);
	if (err && list_empty(&listener->sockets))
		listener_retire(listener);
	return err;
}

static bool socket_is_configured(const struct listener_socket *sock,
				 const struct turn_listener *listener)
{
	int fd = sock->port ? turn_datagram_fd(sock->port) :
			      listener_fd(sock->listener);
	union addr addr;
	socklen_t len = sizeof(addr);

	return getsockname(fd, &addr.sa, &len) < 0 ||
	       turn_settings_has_address(listener->worker->settings,
					 listener->name, &addr,
					 sock->port != NULL);
}

/* The sockets whose address is still configured go on, the others close. */
static void sockets_reload(struct turn_listener *listener)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &listener->sockets) {
		struct listener_socket *sock =
			list_entry(pos, struct listener_socket, link);

		if (socket_is_configured(sock, listener))
			socket_tune(sock, listener);
		else
			socket_retire(sock);
	}
}

static void listeners_reload(struct turn_worker *worker)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &worker->listeners) {
		struct turn_listener *listener =
			list_entry(pos, struct turn_listener, link);

		if (listener->conf)
			sockets_reload(listener);
		else
			listener_retire(listener);
	}
}

/*
 * Clients know their listener even when it serves nobody new. Those of TLS go on
 * with the certificate they were shown.
 */
static void listeners_refresh(struct turn_worker *worker)
{
	struct list *pos;

	list_for_each(pos, &worker->listeners)
		listener_learn(list_entry(pos, struct turn_listener, link));
	list_for_each(pos, &worker->clients)
		listener_learn(list_entry(pos, struct client, link)->listener);
}

void turn_worker_reload(struct turn_worker *worker,
			struct turn_settings *settings)
{
	struct turn_settings *old = worker->settings;
	int err;

	if (worker->engines_missed ||
	    !turn_settings_same_engines(old, settings)) {
		err = engines_open(worker, settings);
		worker->engines_missed = err != 0;
		if (err)
			log_warn(ROOM, "event=engines_kept worker=%u error=%s",
				 worker->index, strerrorname_np(-err));
	}
	worker->settings = turn_settings_ref(settings);
	sockmap_ask(worker);
	listeners_refresh(worker);
	listeners_reload(worker);
	turn_access_reload(worker);
	turn_shared_budget(worker->shared, turn_conf(worker));
	engines_reap(worker);
	turn_settings_unref(old);
}
