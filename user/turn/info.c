/* SPDX-License-Identifier: BSD-2-Clause */
/* What an operator may see and do: snapshots, lists, kick. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

#include "turn/allocation.h"
#include "turn/channel.h"
#include "turn/lane.h"
#include "turn/on_wire.h"
#include "turn/outlet.h"
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

void turn_worker_counters(const struct turn_worker *worker,
			  struct counters *out)
{
	struct counters counters;

	turn_lanes_look((struct turn_worker *)worker);
	counters = worker->counters;
	counters.datagrams_unsent = udp_unsent(worker->udp);
	for (size_t i = 0; i < SEAL_PLACES; i++)
		if (i == SEAL_IN_KERNEL)
			counters.tls_kernel += worker->seals[i];
		else
			counters.tls_copied += worker->seals[i];
	*out = counters;
}

static void id_format(char out[TURN_ID_LEN], char kind,
		      const struct turn_worker *worker, uint64_t serial)
{
	snprintf(out, TURN_ID_LEN, "%c%u.%" PRIu64, kind, worker->index,
		 serial);
}

static const char *client_transport(const struct client *client)
{
	if (!client->stream)
		return client->dtls ? "dtls" : "udp";
	return transport_stream_sealed(client->stream) ? "tls" : "tcp";
}

static void allocation_info(const struct allocation *allocation,
			    struct turn_allocation_info *info)
{
	const struct outlet *first = turn_outlet_next(allocation, NULL),
			    *second = turn_outlet_next(allocation, first);
	uint64_t now = loop_now(allocation->worker->loop);
	uint64_t expires_ms = first->expires_ms;

	if (second && second->expires_ms > expires_ms)
		expires_ms = second->expires_ms;

	*info = (struct turn_allocation_info){
		.client = allocation->client_addr,
		.relayed = first->relayed.addr,
		.user = auth_account_user(allocation->account),
		.realm = auth_account_realm(allocation->account),
		.age_ms = now - allocation->created_ms,
		.expires_in_ms = expires_ms > now ? expires_ms - now : 0,
		.permissions = turn_permissions_count(allocation),
		.pending = allocation->pending,
		.connections = allocation->conn_count - allocation->pending,
		.channels = turn_channels_count(allocation),
		.transport = turn_transport_name(allocation->transport),
		.client_transport = client_transport(allocation->client),
		.bytes_to_peers = allocation->bytes_to_peers,
		.bytes_to_client = allocation->bytes_to_client,
	};
	if (second)
		info->additional = second->relayed.addr;
	id_format(info->id, 'a', allocation->worker, allocation->serial);
}

void turn_worker_each_allocation(
	struct turn_worker *worker,
	bool (*fn)(void *arg, const struct turn_allocation_info *info),
	void *arg)
{
	struct turn_allocation_info info;
	struct list *pos;

	turn_lanes_look(worker);
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
		.why = "",
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
	info->why = pair.seal ? seal_place_text(pair.seal->place) :
				wire_reason_text(pair.why);
	info->bytes_to_client = pair.bytes[PAIR_CLIENT];
	info->bytes_to_peer = pair.bytes[PAIR_PEER];
	info->idle_ms = pair.idle_ms;
}

/* One call of a walk over the connections. */
struct walk {
	struct turn_cursor *at;
	size_t left; /* connections it may still visit */
	bool stopped; /* by fn */
	/* Both want to go on. */
	bool (*conn)(struct walk *walk, struct peer_conn *conn);
	bool (*adopted)(struct walk *walk, struct adopted *adopted);
	/* Of a walk that tells of them. */
	bool (*fn)(void *arg, const struct turn_connection_info *info);
	void *arg;
};

static bool walk_conn(void *arg, struct peer_conn *conn)
{
	struct walk *walk = arg;

	walk->stopped = !walk->conn(walk, conn);
	return !walk->stopped;
}

/* Serials ascend in every list. false: this call has told enough. */
static bool walk_allocation(struct walk *walk,
			    const struct allocation *allocation)
{
	struct turn_cursor *at = walk->at;
	struct list *pos;

	if (at->allocation != allocation->serial)
		at->connection = 0;
	at->allocation = allocation->serial;
	list_for_each(pos, &allocation->conns) {
		struct peer_conn *conn =
			list_entry(pos, struct peer_conn, link);

		if (conn->serial <= at->connection)
			continue;
		if (!walk->left)
			return false;
		walk->left--;
		at->connection = conn->serial;
		if (!walk_conn(walk, conn))
			return false;
	}
	return true;
}

/* Serials ascend, and the one it has come to is mostly still there. */
static struct list *walk_start(const struct walk *walk,
			       const struct turn_worker *worker)
{
	const struct allocation *allocation =
		turn_allocation_find(worker, walk->at->allocation);

	return allocation ? allocation->link.prev :
			    (struct list *)&worker->allocations;
}

static bool walk_allocations(struct walk *walk,
			     const struct turn_worker *worker)
{
	struct list *pos = walk_start(walk, worker)->next;

	for (; pos != &worker->allocations; pos = pos->next) {
		struct allocation *allocation =
			list_entry(pos, struct allocation, link);

		if (allocation->serial >= walk->at->allocation &&
		    !walk_allocation(walk, allocation))
			return false;
	}
	return true;
}

static void adopted_info(struct adopted *adopted,
			 struct turn_connection_info *info)
{
	uint64_t now = clock_ns();
	struct wire_stats stats = { .idle_ns = 0 };

	turn_wire_adopted_look(adopted);
	wire_link_stats(&adopted->wire, &stats);
	*info = (struct turn_connection_info){
		.allocation = "-",
		.client = adopted->client,
		.peer = adopted->peer,
		.user = adopted->label,
		.state = "adopted",
		.engine = "wire",
		.why = "",
		.bytes_to_client = adopted->bytes[WIRE_CLIENT],
		.bytes_to_peer = adopted->bytes[WIRE_PEER],
		.age_ms = (now - adopted->created_ns) / 1000000,
		.idle_ms = stats.idle_ns / 1000000,
	};
	if (adopted->expires_ns > now)
		info->expires_in_ms = (adopted->expires_ns - now) / 1000000;
	id_format(info->id, 'c', adopted->worker, adopted->serial);
}

static bool walk_adopted(struct walk *walk, const struct turn_worker *worker)
{
	struct list *pos;

	list_for_each(pos, &worker->adopted) {
		struct adopted *adopted = list_entry(pos, struct adopted, link);

		if (adopted->serial <= walk->at->connection)
			continue;
		if (!walk->left)
			return false;
		walk->left--;
		walk->at->connection = adopted->serial;
		walk->stopped = !walk->adopted(walk, adopted);
		if (walk->stopped)
			return false;
	}
	return true;
}

/* true: there are more. */
static bool walk_run(struct walk *walk, const struct turn_worker *worker)
{
	struct turn_cursor *at = walk->at;

	/* First: one that ends during the walk must not be met again here. */
	if (at->walk == TURN_WALK_ENDED) {
		at->walk = TURN_WALK_ALLOCATIONS;
		if (!each_conn_of((struct list *)&worker->ended, walk_conn,
				  walk))
			return false;
	}
	if (at->walk == TURN_WALK_ALLOCATIONS) {
		if (!walk_allocations(walk, worker))
			return !walk->stopped;
		at->walk = TURN_WALK_ADOPTED;
		at->connection = 0;
	}
	return !walk_adopted(walk, worker) && !walk->stopped;
}

static bool conn_tell(struct walk *walk, struct peer_conn *conn)
{
	struct turn_connection_info info;

	conn_info(conn, &info);
	return walk->fn(walk->arg, &info);
}

static bool adopted_tell(struct walk *walk, struct adopted *adopted)
{
	struct turn_connection_info info;

	adopted_info(adopted, &info);
	return walk->fn(walk->arg, &info);
}

bool turn_worker_each_connection(
	struct turn_worker *worker, struct turn_cursor *at, size_t count,
	bool (*fn)(void *arg, const struct turn_connection_info *info),
	void *arg)
{
	struct walk walk = {
		.at = at,
		.left = count,
		.conn = conn_tell,
		.adopted = adopted_tell,
		.fn = fn,
		.arg = arg,
	};

	return walk_run(&walk, worker);
}

static bool conn_look(struct walk *walk, struct peer_conn *conn)
{
	(void)walk;
	turn_peer_conn_look(conn);
	return true;
}

static bool adopted_look(struct walk *walk, struct adopted *adopted)
{
	(void)walk;
	turn_wire_adopted_look(adopted);
	return true;
}

bool turn_worker_look(struct turn_worker *worker, struct turn_cursor *at,
		      size_t count)
{
	struct walk walk = {
		.at = at,
		.left = count,
		.conn = conn_look,
		.adopted = adopted_look,
	};

	return walk_run(&walk, worker);
}

size_t turn_worker_connections(const struct turn_worker *worker)
{
	return worker->peer_conns.count + worker->adopted_count;
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
	if (usage.error && !worker->sockmap_known &&
	    !strcmp(usage.name, "sockmap"))
		usage.error = -EINPROGRESS;
	*out = usage;
	return true;
}

void turn_worker_wire(const struct turn_worker *worker,
		      struct turn_wire_info *out)
{
	struct wire_usage usage;

	wire_get_usage(worker->wire, &usage);
	*out = (struct turn_wire_info){
		.wanted = conf_engine_wanted(turn_conf(worker), "wire"),
		.why = wire_why(worker->wire),
		.places = wire_capacity(worker->wire),
		.pairs_now = usage.pairs_now,
		.joins = usage.joins,
	};
	memcpy(out->refused, worker->wire_reasons, sizeof(out->refused));
	out->refused[WIRE_OK] = 0;
}

void turn_worker_ktls(const struct turn_worker *worker,
		      struct turn_ktls_info *out)
{
	struct turn_engines *engines =
		turn_worker_engines((struct turn_worker *)worker);
	struct list *pos;

	*out = (struct turn_ktls_info){
		.error = engine_set_ktls(engines->set),
	};
	list_for_each(pos, &worker->engine_sets)
		out->pairs_now += engine_set_sealed(
			list_entry(pos, struct turn_engines, link)->set);
	memcpy(out->places, worker->seals, sizeof(out->places));
}

static int allocation_kick(struct turn_worker *worker, uint64_t serial)
{
	struct allocation *allocation = turn_allocation_find(worker, serial);

	if (!allocation)
		return -ENOENT;
	/* The client learns of it by the end of its connection, if it has one. */
	turn_client_close(allocation->client, STREAM_CLOSE_EOF);
	turn_allocation_end(allocation, "kicked", true);
	return 0;
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

static int adopted_kick(struct turn_worker *worker, uint64_t serial)
{
	struct list *pos;

	list_for_each(pos, &worker->adopted) {
		struct adopted *adopted = list_entry(pos, struct adopted, link);

		if (adopted->serial != serial)
			continue;
		wire_reset(&adopted->wire);
		return 0;
	}
	return -ENOENT;
}

static int connection_kick(struct turn_worker *worker, uint64_t serial)
{
	struct conn_search search = { .serial = serial };

	if (each_conn_of(&worker->allocations, conn_match, &search))
		each_conn_of(&worker->ended, conn_match, &search);
	if (!search.found)
		return adopted_kick(worker, serial);
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
