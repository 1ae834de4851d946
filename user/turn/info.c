/* SPDX-License-Identifier: BSD-2-Clause */
/* What an operator may see and do: snapshots, lists, kick. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "turn/allocation.h"
#include "turn/peer_conn.h"
#include "turn/permission.h"

static bool each_conn_of(struct list *allocations,
			 bool (*fn)(void *arg, struct peer_conn *conn),
			 void *arg)
{
	struct list *pos, *at, *tmp;

	list_for_each(pos, allocations) {
		struct allocation *allocation =
			list_entry(pos, struct allocation, link);

		list_for_each_safe(at, tmp, &allocation->conns)
			if (!fn(arg, list_entry(at, struct peer_conn, link)))
				return false;
	}
	return true;
}

/* All peer connections, those of ended allocations too. */
static void each_conn(const struct turn_worker *worker,
		      bool (*fn)(void *arg, struct peer_conn *conn), void *arg)
{
	if (each_conn_of((struct list *)&worker->allocations, fn, arg))
		each_conn_of((struct list *)&worker->ended, fn, arg);
}

static bool bytes_add(void *arg, struct peer_conn *conn)
{
	struct counters *counters = arg;
	struct pair_info info;

	if (!conn->pair)
		return true;
	pair_get_info(conn->pair, &info);
	counters->bytes_to_clients += info.bytes[PAIR_CLIENT];
	counters->bytes_to_peers += info.bytes[PAIR_PEER];
	return true;
}

void turn_worker_counters(const struct turn_worker *worker,
			  struct counters *out)
{
	struct counters counters = worker->counters;

	each_conn(worker, bytes_add, &counters);
	*out = counters;
}

static void id_format(char out[TURN_ID_LEN], char kind,
		      const struct turn_worker *worker, uint64_t serial)
{
	snprintf(out, TURN_ID_LEN, "%c%u.%" PRIu64, kind, worker->index,
		 serial);
}

static void allocation_info(const struct allocation *allocation,
			    struct turn_allocation_info *info)
{
	uint64_t now = loop_now(allocation->worker->loop);

	*info = (struct turn_allocation_info){
		.client = allocation->client_addr,
		.relayed = allocation->relayed.addr,
		.user = auth_account_user(allocation->account),
		.realm = auth_account_realm(allocation->account),
		.age_ms = now - allocation->created_ms,
		.expires_in_ms = allocation->expires_ms > now ?
					 allocation->expires_ms - now :
					 0,
		.permissions = turn_permissions_count(allocation),
		.pending = allocation->pending,
		.connections = allocation->conn_count - allocation->pending,
	};
	id_format(info->id, 'a', allocation->worker, allocation->serial);
}

void turn_worker_each_allocation(
	struct turn_worker *worker,
	bool (*fn)(void *arg, const struct turn_allocation_info *info),
	void *arg)
{
	struct turn_allocation_info info;
	struct list *pos;

	list_for_each(pos, &worker->allocations) {
		allocation_info(list_entry(pos, struct allocation, link),
				&info);
		if (!fn(arg, &info))
			return;
	}
}

static const char *state_name(enum peer_conn_state state)
{
	switch (state) {
	case PEER_CONN_CONNECTING:
		return "connecting";
	case PEER_CONN_HELD:
		return "held";
	case PEER_CONN_BOUND:
		return "bound"; /* the pair knows better */
	}
	return "";
}

static void conn_info(const struct peer_conn *conn,
		      struct turn_connection_info *info)
{
	uint64_t age = loop_now(conn->worker->loop) - conn->created_ms;
	struct pair_info pair;

	*info = (struct turn_connection_info){
		.client = conn->client,
		.peer = conn->peer,
		.user = auth_account_user(conn->allocation->account),
		.state = state_name(conn->state),
		.engine = "-",
		.age_ms = age,
		.idle_ms = age,
	};
	id_format(info->id, 'c', conn->worker, conn->serial);
	id_format(info->allocation, 'a', conn->worker,
		  conn->allocation->serial);
	if (!conn->pair)
		return;
	pair_get_info(conn->pair, &pair);
	info->state = pair_state_name(pair.state);
	info->engine = pair.engine;
	info->bytes_to_client = pair.bytes[PAIR_CLIENT];
	info->bytes_to_peer = pair.bytes[PAIR_PEER];
	info->idle_ms = pair.idle_ms;
}

struct connection_visit {
	bool (*fn)(void *arg, const struct turn_connection_info *info);
	void *arg;
};

static bool connection_visit(void *arg, struct peer_conn *conn)
{
	const struct connection_visit *visit = arg;
	struct turn_connection_info info;

	conn_info(conn, &info);
	return visit->fn(visit->arg, &info);
}

void turn_worker_each_connection(
	struct turn_worker *worker,
	bool (*fn)(void *arg, const struct turn_connection_info *info),
	void *arg)
{
	struct connection_visit visit = { fn, arg };

	each_conn(worker, connection_visit, &visit);
}

/* What an engine did for earlier settings. */
static void usage_add_older(const struct turn_worker *worker,
			    const struct turn_engines *now,
			    struct engine_usage *usage)
{
	struct engine_usage older;
	struct list *pos;

	list_for_each(pos, &worker->engine_sets) {
		struct turn_engines *engines =
			list_entry(pos, struct turn_engines, link);

		if (engines == now)
			continue;
		for (size_t i = 0; engine_set_usage(engines->set, i, &older);
		     i++) {
			if (strcmp(older.name, usage->name) != 0)
				continue;
			usage->links_now += older.links_now;
			usage->links_total += older.links_total;
		}
	}
}

bool turn_worker_engine(const struct turn_worker *worker, size_t i,
			struct engine_usage *out)
{
	struct turn_engines *engines =
		turn_worker_engines((struct turn_worker *)worker);
	struct engine_usage usage;

	if (!engine_set_usage(engines->set, i, &usage))
		return false;
	usage_add_older(worker, engines, &usage);
	*out = usage;
	return true;
}

static int allocation_kick(struct turn_worker *worker, uint64_t serial)
{
	struct list *pos;

	list_for_each(pos, &worker->allocations) {
		struct allocation *allocation =
			list_entry(pos, struct allocation, link);

		if (allocation->serial != serial)
			continue;
		/* The client learns of it by the end of its connection. */
		transport_stream_close(allocation->client->stream,
				       STREAM_CLOSE_EOF);
		turn_allocation_end(allocation, "kicked", true);
		return 0;
	}
	return -ENOENT;
}

struct conn_search {
	uint64_t serial;
	struct peer_conn *found;
};

static bool conn_match(void *arg, struct peer_conn *conn)
{
	struct conn_search *search = arg;

	if (conn->serial == search->serial)
		search->found = conn;
	return !search->found;
}

static int connection_kick(struct turn_worker *worker, uint64_t serial)
{
	struct conn_search search = { .serial = serial };

	each_conn(worker, conn_match, &search);
	if (!search.found)
		return -ENOENT;
	turn_peer_conn_kick(search.found);
	return 0;
}

int turn_worker_kick(struct turn_worker *worker, const char *id)
{
	unsigned int index;
	uint64_t serial;
	char kind;
	int end = 0;

	if (sscanf(id, "%c%u.%" SCNu64 "%n", &kind, &index, &serial, &end) !=
		    3 ||
	    id[end] || index != worker->index)
		return -ENOENT;
	switch (kind) {
	case 'a':
		return allocation_kick(worker, serial);
	case 'c':
		return connection_kick(worker, serial);
	default:
		return -ENOENT;
	}
}
