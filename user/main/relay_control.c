/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Answers of the control socket: each asks every worker on its own thread and
 * puts the parts together on the main thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "main/channel.h"
#include "main/relay_internal.h"

/* Connections looked at, or rows told of, before others have their turn again. */
#define PAGE 200

/* Rows of one worker: fixed size each, at most `limit`; total counts all. */
struct rows {
	char *data;
	size_t count, capacity, total;
	size_t told; /* and freed, of count */
	bool failed; /* no memory: the answer is refused, not cut */
};

struct query {
	struct fanout fanout;
	struct control_reply *reply;
	struct control_request request;
	size_t row_size;
	struct rows rows[CONF_MAX_WORKERS];
	struct turn_cursor cursors[CONF_MAX_WORKERS];
	struct letter more; /* there are rows to tell of */
	size_t told; /* rows of all */
	struct counters counters[CONF_MAX_WORKERS];
	struct turn_wire_info wire[CONF_MAX_WORKERS];
	struct turn_ktls_info ktls[CONF_MAX_WORKERS];
	bool found[CONF_MAX_WORKERS];
};

/* What an `each` callback of turn gets: where the rows of one worker go. */
struct collector {
	struct query *query;
	struct relay_worker *worker;
};

static void *row_add(struct collector *to)
{
	struct rows *rows = &to->query->rows[to->worker->index];
	size_t size = to->query->row_size;

	rows->total++;
	if (rows->count >= to->query->request.limit || rows->failed)
		return NULL;
	if (rows->count == rows->capacity) {
		size_t capacity = rows->capacity ? rows->capacity * 2 : 64;
		char *data = realloc(rows->data, capacity * size);

		if (!data) {
			rows->failed = true;
			return NULL;
		}
		rows->data = data;
		rows->capacity = capacity;
	}
	return memset(rows->data + size * rows->count++, 0, size);
}

static void query_free(struct query *query)
{
	for (unsigned int i = 0; i < CONF_MAX_WORKERS; i++)
		free(query->rows[i].data);
	free(query);
}

static void row_free(const struct query *query, void *row)
{
	struct control_allocation *allocation = row;
	struct control_connection *connection = row;

	if (query->request.command == CONTROL_CONNECTIONS) {
		free(connection->user);
	} else {
		free(allocation->user);
		free(allocation->realm);
	}
}

/* Tells of the next rows of a worker as far as the limit goes, and frees them. */
static void page_tell(struct query *query, struct rows *rows)
{
	size_t left = rows->count - rows->told, total = 0, count;
	size_t take = left < PAGE ? left : PAGE;
	char *first = take ? rows->data + rows->told * query->row_size : NULL;

	for (unsigned int i = 0; i < CONF_MAX_WORKERS; i++)
		total += query->rows[i].total;
	count = query->request.limit - query->told;
	if (count > take)
		count = take;
	if (query->request.command == CONTROL_CONNECTIONS)
		control_reply_connections(query->reply, (void *)first, count,
					  total);
	else
		control_reply_allocations(query->reply, (void *)first, count,
					  total);
	query->told += count;
	rows->told += take;
	for (size_t i = 0; i < take; i++)
		row_free(query, first + i * query->row_size);
}

/* The first worker of which not all is told, the last one otherwise. */
static struct rows *rows_next(struct query *query)
{
	unsigned int i = 0;

	while (i < CONF_MAX_WORKERS - 1 &&
	       query->rows[i].told == query->rows[i].count)
		i++;
	return &query->rows[i];
}

/* One page a tick, or all of them when there is no other tick. */
static void list_tell(struct letter *letter)
{
	struct query *query = list_entry(letter, struct query, more);
	struct relay *relay = query->fanout.relay;
	struct rows *rows;

	do {
		page_tell(query, rows_next(query));
		rows = rows_next(query);
	} while (relay->ending && rows->told < rows->count);
	if (rows->told < rows->count) {
		loop_post(relay->loop, letter, list_tell);
		return;
	}
	control_reply_end(query->reply);
	query_free(query);
}

static void list_done(struct fanout *fanout)
{
	struct query *query = list_entry(fanout, struct query, fanout);
	bool failed = false;

	for (unsigned int i = 0; i < CONF_MAX_WORKERS; i++)
		failed |= query->rows[i].failed;
	if (!failed) {
		list_tell(&query->more);
		return;
	}
	control_reply_error(query->reply, "out of memory");
	for (unsigned int i = 0; i < CONF_MAX_WORKERS; i++)
		for (size_t j = 0; j < query->rows[i].count; j++)
			row_free(query,
				 query->rows[i].data + j * query->row_size);
	query_free(query);
}

static bool allocation_row(void *arg, const struct turn_allocation_info *info)
{
	struct collector *to = arg;
	struct control_allocation *row = row_add(to);

	if (!row)
		return true;
	snprintf(row->id, sizeof(row->id), "%s", info->id);
	addr_format(&info->client, row->client);
	addr_format(&info->relayed, row->relayed);
	if (addr_family(&info->additional) != AF_UNSPEC)
		addr_format(&info->additional, row->additional);
	snprintf(row->client_transport, sizeof(row->client_transport), "%s",
		 info->client_transport);
	snprintf(row->transport, sizeof(row->transport), "%s", info->transport);
	row->user = strdup(info->user);
	row->realm = strdup(info->realm);
	row->age_ms = info->age_ms;
	row->expires_in_ms = info->expires_in_ms;
	row->permissions = info->permissions;
	row->pending = info->pending;
	row->connections = info->connections;
	row->channels = info->channels;
	row->bytes_to_peers = info->bytes_to_peers;
	row->bytes_to_client = info->bytes_to_client;
	row->worker = to->worker->index;
	return true;
}

static void allocations_each(struct fanout *fanout, struct relay_worker *worker)
{
	struct query *query = list_entry(fanout, struct query, fanout);
	struct collector to = { .query = query, .worker = worker };

	turn_worker_each_allocation(worker->turn, allocation_row, &to);
}

static bool connection_row(void *arg, const struct turn_connection_info *info)
{
	struct collector *to = arg;
	struct control_connection *row = row_add(to);

	if (!row)
		return false;
	snprintf(row->id, sizeof(row->id), "%s", info->id);
	snprintf(row->allocation, sizeof(row->allocation), "%s",
		 info->allocation);
	addr_format(&info->client, row->client);
	addr_format(&info->peer, row->peer);
	row->user = strdup(info->user);
	row->state = info->state;
	row->engine = info->engine;
	row->why = info->why;
	row->expires_in_ms = info->expires_in_ms;
	row->bytes_to_peer = info->bytes_to_peer;
	row->bytes_to_client = info->bytes_to_client;
	row->age_ms = info->age_ms;
	row->idle_ms = info->idle_ms;
	row->worker = to->worker->index;
	return true;
}

static void connections_each(struct fanout *fanout, struct relay_worker *worker)
{
	struct query *query = list_entry(fanout, struct query, fanout);
	struct collector to = { .query = query, .worker = worker };

	if (turn_worker_each_connection(worker->turn,
					&query->cursors[worker->index], PAGE,
					connection_row, &to)) {
		fanout_again(fanout, worker);
		return;
	}
	/* There may be very many beyond the limit: these are only counted. */
	query->rows[worker->index].total =
		turn_worker_connections(worker->turn);
}

static void status_each(struct fanout *fanout, struct relay_worker *worker)
{
	struct query *query = list_entry(fanout, struct query, fanout);

	if (turn_worker_look(worker->turn, &query->cursors[worker->index],
			     PAGE)) {
		fanout_again(fanout, worker);
		return;
	}
	turn_worker_counters(worker->turn, &query->counters[worker->index]);
}

static void status_done(struct fanout *fanout)
{
	struct query *query = list_entry(fanout, struct query, fanout);
	struct relay *relay = fanout->relay;
	struct control_status status = {
		.uptime_ms = clock_ms() - relay->started_ms,
		.workers = relay->worker_count,
		.draining = turn_shared_draining(relay->shared),
		.config_loads = relay->config_loads,
		.per_worker = query->counters,
	};

	snprintf(status.version, sizeof(status.version), "%s", CULVERT_VERSION);
	for (unsigned int i = 0; i < relay->worker_count; i++)
		counters_add(&status.total, &query->counters[i]);
	control_reply_status(query->reply, &status);
	query_free(query);
}

/* Engines: each worker fills a row per engine of the build, in that order. */
static void engines_each(struct fanout *fanout, struct relay_worker *worker)
{
	struct query *query = list_entry(fanout, struct query, fanout);
	struct collector to = { .query = query, .worker = worker };
	struct engine_usage usage;

	turn_worker_wire(worker->turn, &query->wire[worker->index]);
	turn_worker_ktls(worker->turn, &query->ktls[worker->index]);
	for (size_t i = 0; turn_worker_engine(worker->turn, i, &usage); i++) {
		struct control_engine *row = row_add(&to);

		if (!row)
			return;
		row->name = usage.name;
		row->position = usage.position;
		row->available = usage.error == 0;
		row->pairs_now = usage.links_now;
		row->pairs_total = usage.links_total;
		if (usage.error)
			snprintf(row->reason, sizeof(row->reason), "%s",
				 usage.error == -EINPROGRESS ?
					 "the broker is loading its programs" :
					 strerror(-usage.error));
	}
}

/* Adds every worker's row of this engine to `sum`. */
static void engine_sum(const struct query *query, struct control_engine *sum)
{
	bool seen = false;

	for (unsigned int i = 0; i < CONF_MAX_WORKERS; i++) {
		const struct control_engine *rows =
			(const void *)query->rows[i].data;

		for (size_t j = 0; j < query->rows[i].count; j++) {
			if (strcmp(rows[j].name, sum->name) != 0)
				continue;
			sum->position = rows[j].position;
			/* Until every worker has it, some connections do without. */
			if (!seen || !rows[j].available) {
				sum->available = rows[j].available;
				memcpy(sum->reason, rows[j].reason,
				       sizeof(sum->reason));
			}
			seen = true;
			sum->pairs_now += rows[j].pairs_now;
			sum->pairs_total += rows[j].pairs_total;
		}
	}
}

static const char *engine_needs(const char *name)
{
	static const struct {
		const char *name, *needs;
	} all[] = {
		{ "wire", "root at the start, Linux 6.1, Ethernet devices" },
		{ "splice", "nothing" },
		{ "uring", "io_uring" },
		{ "sockmap", "root at the start, Linux 6.1" },
		{ "copy", "nothing" },
		{ "ktls", "Linux 6.12.55 or 6.18, module tls" },
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (strcmp(all[i].name, name) == 0)
			return all[i].needs;
	return "";
}

/* Where the configured order has wire, from 1; 0: not at all. */
static unsigned int wire_position(const struct conf_engine *conf)
{
	for (size_t i = 0; i < conf->order_count; i++)
		if (strcmp(conf->order[i], "wire") == 0)
			return (unsigned int)i + 1;
	return 0;
}

static void wire_fallbacks(const uint64_t refused[WIRE_REASONS],
			   struct control_engine *out)
{
	for (size_t i = 0; i < WIRE_REASONS; i++) {
		if (!refused[i] || out->fallback_count == CONTROL_FALLBACKS_MAX)
			continue;
		out->fallbacks[out->fallback_count++] =
			(struct control_fallback){
				.reason = wire_reason_name(i),
				.text = wire_reason_text(i),
				.count = refused[i],
			};
	}
}

/* All workers' wire as one row. A worker without it makes it unavailable. */
static void wire_sum(const struct query *query, const struct relay *relay,
		     struct control_engine *out)
{
	uint64_t refused[WIRE_REASONS] = { 0 };
	const char *why = "";

	*out = (struct control_engine){
		.name = "wire",
		.needs = engine_needs("wire"),
		.position = wire_position(&relay->conf->engine),
	};
	for (unsigned int i = 0; i < relay->worker_count; i++) {
		const struct turn_wire_info *info = &query->wire[i];

		out->pairs_now += info->pairs_now;
		out->pairs_total += info->joins;
		if (info->why[0])
			why = info->why;
		for (size_t k = 0; k < WIRE_REASONS; k++)
			refused[k] += info->refused[k];
	}
	if (!query->wire[0].wanted)
		why = out->position ? "[engine] wire is never" :
				      "not in [engine] order";
	out->available = !why[0];
	snprintf(out->reason, sizeof(out->reason), "%s", why);
	wire_fallbacks(refused, out);
}

static void ktls_fallback_add(struct control_engine *out, enum seal_place place,
			      uint64_t count)
{
	if (!count || place == SEAL_IN_KERNEL)
		return;
	out->fallbacks[out->fallback_count++] = (struct control_fallback){
		.reason = seal_place_name(place),
		.text = seal_place_text(place),
		.count = count,
	};
}

/* TLS in the kernel is no engine, but has what a row of one tells. */
static void ktls_sum(const struct query *query, const struct relay *relay,
		     struct control_engine *out)
{
	uint64_t places[SEAL_PLACES] = { 0 };
	int error = 0;

	*out = (struct control_engine){
		.name = "ktls",
		.needs = engine_needs("ktls"),
	};
	for (unsigned int i = 0; i < relay->worker_count; i++) {
		const struct turn_ktls_info *info = &query->ktls[i];

		error = info->error ? info->error : error;
		out->pairs_now += info->pairs_now;
		out->pairs_total += info->places[SEAL_IN_KERNEL];
		for (size_t k = 0; k < SEAL_PLACES; k++)
			places[k] += info->places[k];
	}
	out->available = !error;
	if (error)
		snprintf(out->reason, sizeof(out->reason), "%s",
			 error == -ECANCELED  ? "[engine] ktls is no" :
			 error == -ENOENT     ? "this kernel has none" :
			 error == -EOPNOTSUPP ? "this kernel's is unsafe" :
						strerror(-error));
	for (size_t k = 0; k < SEAL_PLACES; k++)
		ktls_fallback_add(out, k, places[k]);
}

static void engines_done(struct fanout *fanout)
{
	struct query *query = list_entry(fanout, struct query, fanout);
	struct control_engine sums[CONF_ENGINES_MAX + 2];
	size_t count = 1;

	wire_sum(query, fanout->relay, &sums[0]);
	for (size_t i = 0; i < CONF_ENGINES_MAX && engine_all[i]; i++) {
		struct control_engine *sum = &sums[count++];

		memset(sum, 0, sizeof(*sum));
		sum->name = engine_all[i]->name;
		sum->needs = engine_needs(sum->name);
		snprintf(sum->reason, sizeof(sum->reason),
			 "not in [engine] order");
		engine_sum(query, sum);
	}
	ktls_sum(query, fanout->relay, &sums[count++]);
	control_reply_engines(query->reply, sums, count);
	query_free(query);
}

static void kick_each(struct fanout *fanout, struct relay_worker *worker)
{
	struct query *query = list_entry(fanout, struct query, fanout);

	query->found[worker->index] =
		turn_worker_kick(worker->turn, query->request.id) == 0;
}

static void kick_done(struct fanout *fanout)
{
	struct query *query = list_entry(fanout, struct query, fanout);
	bool found = false;

	for (unsigned int i = 0; i < CONF_MAX_WORKERS; i++)
		found |= query->found[i];
	if (found)
		control_reply_ok(query->reply);
	else
		control_reply_error(query->reply,
				    "no allocation or connection has the id "
				    "'%s'; list them with culvertctl "
				    "allocations, culvertctl connections",
				    query->request.id);
	query_free(query);
}

static void query_start(struct relay *relay,
			const struct control_request *request,
			struct control_reply *reply, size_t row_size,
			void (*each)(struct fanout *, struct relay_worker *),
			void (*done)(struct fanout *))
{
	struct query *query = calloc(1, sizeof(*query));

	if (!query) {
		control_reply_error(reply, "out of memory");
		return;
	}
	query->reply = reply;
	query->request = *request;
	query->row_size = row_size;
	fanout_start(relay, &query->fanout, each, done);
}

static void drain(struct relay *relay, bool on, struct control_reply *reply)
{
	turn_shared_drain(relay->shared, on);
	/* For the relay after this one. */
	channel_send(relay->channel.fd, CHANNEL_DRAINING, on, "", NULL, 0);
	log_info("main", "event=%s", on ? "drain" : "undrain");
	control_reply_ok(reply);
}

static void stop(struct relay *relay, struct control_reply *reply)
{
	if (channel_send(relay->channel.fd, CHANNEL_WANT_STOP, 0, "", NULL, 0))
		control_reply_error(reply, "the supervisor has gone");
	else
		control_reply_ok(reply);
}

void relay_control(void *arg, const struct control_request *request,
		   struct control_reply *reply)
{
	struct relay *relay = arg;

	switch (request->command) {
	case CONTROL_STATUS:
		query_start(relay, request, reply, 0, status_each, status_done);
		return;
	case CONTROL_ALLOCATIONS:
		query_start(relay, request, reply,
			    sizeof(struct control_allocation), allocations_each,
			    list_done);
		return;
	case CONTROL_CONNECTIONS:
		query_start(relay, request, reply,
			    sizeof(struct control_connection), connections_each,
			    list_done);
		return;
	case CONTROL_ENGINES:
		query_start(relay, request, reply,
			    sizeof(struct control_engine), engines_each,
			    engines_done);
		return;
	case CONTROL_EXITS:
		relay_exits_show(relay, reply);
		return;
	case CONTROL_KICK:
		query_start(relay, request, reply, 0, kick_each, kick_done);
		return;
	case CONTROL_DRAIN:
		drain(relay, true, reply);
		return;
	case CONTROL_UNDRAIN:
		drain(relay, false, reply);
		return;
	case CONTROL_RELOAD:
		relay_reload_request(relay, reply);
		return;
	case CONTROL_FORGET:
		store_forget(relay->store);
		control_reply_ok(reply);
		return;
	case CONTROL_STOP:
		stop(relay, reply);
		return;
	}
	control_reply_error(reply, "unknown command");
}
