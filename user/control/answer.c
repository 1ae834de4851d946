/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reply lines. The frame is written as text and each row through a JSON object
 * of its own, so that a list of 100,000 rows never exists as a tree in memory.
 */
#include "control/answer.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/syscalls.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "openat read close");

/* A list is cut here, to leave space for the end of its line. */
#define ROWS_MAX_BYTES (CONTROL_REPLY_MAX - 65536)

void answer_init(void)
{
	json_object_seed(0);
}

static void append(struct answer *answer, const char *text, size_t len)
{
	size_t room = answer->room ? answer->room : 512;
	char *grown;

	if (answer->failed)
		return;
	if (len > CONTROL_REPLY_MAX - answer->len) {
		answer->failed = true;
		return;
	}
	while (room - answer->len < len)
		room *= 2;
	if (room != answer->room) {
		grown = realloc(answer->text, room);
		if (!grown) {
			answer->failed = true;
			return;
		}
		answer->text = grown;
		answer->room = room;
	}
	memcpy(answer->text + answer->len, text, len);
	answer->len += len;
}

static void append_text(struct answer *answer, const char *text)
{
	append(answer, text, strlen(text));
}

static int append_dump(const char *text, size_t len, void *arg)
{
	append(arg, text, len);
	return 0;
}

/* Takes the object over; NULL is a lack of memory. */
static void append_json(struct answer *answer, json_t *json)
{
	if (!json || json_dump_callback(json, append_dump, answer,
					JSON_COMPACT | JSON_ENCODE_ANY))
		answer->failed = true;
	json_decref(json);
}

static json_t *number(uint64_t n)
{
	return json_integer(n > INT64_MAX ? INT64_MAX : (json_int_t)n);
}

/* Text that is not UTF-8, which none of ours should be, loses its odd bytes. */
static json_t *string(const char *text)
{
	const char *from = text ? text : "";
	json_t *json = json_string(from);
	char plain[512];
	size_t i;

	if (json)
		return json;
	for (i = 0; i < sizeof(plain) - 1 && from[i]; i++)
		plain[i] =
			(char)((unsigned char)from[i] < 0x80 ? from[i] : '?');
	plain[i] = '\0';
	return json_string(plain);
}

/* Sets a member; a lack of memory in either makes *object NULL. */
static void set(json_t **object, const char *key, json_t *value)
{
	if (*object && value && !json_object_set_new(*object, key, value))
		return;
	if (!*object)
		json_decref(value);
	json_decref(*object);
	*object = NULL;
}

static void head(struct answer *answer, enum control_command command)
{
	append_text(answer, "{\"v\":1,\"ok\":true,\"cmd\":\"");
	append_text(answer, control_command_name(command));
	append_text(answer, "\",\"data\":{");
}

static void tail(struct answer *answer)
{
	append_text(answer, "}}\n");
}

void answer_ok(struct answer *answer, enum control_command command)
{
	head(answer, command);
	tail(answer);
}

void answer_error(struct answer *answer, const char *message)
{
	append_text(answer, "{\"v\":1,\"ok\":false,\"error\":");
	append_json(answer, string(message));
	append_text(answer, "}\n");
}

static json_t *counters_json(const struct counters *counters)
{
	json_t *object = json_object();

#define X(name, help) set(&object, #name, number(counters->name));
	COUNTERS(X)
#undef X
	return object;
}

void answer_status(struct answer *answer, const struct control_status *status)
{
	json_t *object = json_object(), *workers = json_array();

	for (unsigned int i = 0; workers && i < status->workers; i++) {
		if (!json_array_append_new(
			    workers, counters_json(&status->per_worker[i])))
			continue;
		json_decref(workers);
		workers = NULL;
	}
	set(&object, "version", string(status->version));
	set(&object, "uptime_ms", number(status->uptime_ms));
	set(&object, "workers", number(status->workers));
	set(&object, "draining", json_boolean(status->draining));
	set(&object, "config_loads", number(status->config_loads));
	set(&object, "total", counters_json(&status->total));
	set(&object, "per_worker", workers);
	append_text(answer,
		    "{\"v\":1,\"ok\":true,\"cmd\":\"status\",\"data\":");
	append_json(answer, object);
	append_text(answer, "}\n");
}

static void list_head(struct answer *answer, enum control_command command,
		      size_t total)
{
	char text[48];

	head(answer, command);
	snprintf(text, sizeof(text), "\"total\":%zu,\"", total);
	append_text(answer, text);
	append_text(answer, control_command_name(command));
	append_text(answer, "\":[");
}

void answer_list_end(struct answer *answer)
{
	append_text(answer, "]");
	tail(answer);
}

static json_t *allocation_json(const struct control_allocation *row)
{
	json_t *object = json_object();

	set(&object, "id", string(row->id));
	set(&object, "client", string(row->client));
	set(&object, "client_transport", string(row->client_transport));
	set(&object, "relayed", string(row->relayed));
	if (*row->additional)
		set(&object, "additional", string(row->additional));
	set(&object, "transport", string(row->transport));
	set(&object, "user", string(row->user));
	set(&object, "realm", string(row->realm));
	set(&object, "age_ms", number(row->age_ms));
	set(&object, "expires_in_ms", number(row->expires_in_ms));
	set(&object, "permissions", number(row->permissions));
	set(&object, "pending", number(row->pending));
	set(&object, "connections", number(row->connections));
	set(&object, "channels", number(row->channels));
	set(&object, "bytes_to_peers", number(row->bytes_to_peers));
	set(&object, "bytes_to_client", number(row->bytes_to_client));
	set(&object, "worker", number(row->worker));
	return object;
}

static json_t *connection_json(const struct control_connection *row)
{
	json_t *object = json_object();

	set(&object, "id", string(row->id));
	set(&object, "allocation", string(row->allocation));
	set(&object, "client", string(row->client));
	set(&object, "peer", string(row->peer));
	set(&object, "user", string(row->user));
	set(&object, "state", string(row->state));
	set(&object, "engine", string(row->engine));
	set(&object, "why", string(row->why));
	set(&object, "expires_in_ms", number(row->expires_in_ms));
	set(&object, "bytes_to_peer", number(row->bytes_to_peer));
	set(&object, "bytes_to_client", number(row->bytes_to_client));
	set(&object, "age_ms", number(row->age_ms));
	set(&object, "idle_ms", number(row->idle_ms));
	set(&object, "worker", number(row->worker));
	return object;
}

static json_t *fallbacks_json(const struct control_engine *row)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < row->fallback_count; i++) {
		const struct control_fallback *fallback = &row->fallbacks[i];
		json_t *object = json_object();

		set(&object, "reason", string(fallback->reason));
		set(&object, "text", string(fallback->text));
		set(&object, "count", number(fallback->count));
		if (object && !json_array_append_new(array, object))
			continue;
		json_decref(array);
		array = NULL;
	}
	return array;
}

static json_t *engine_json(const struct control_engine *row)
{
	json_t *object = json_object();

	set(&object, "name", string(row->name));
	set(&object, "needs", string(row->needs));
	set(&object, "available", json_boolean(row->available));
	set(&object, "reason", string(row->available ? "" : row->reason));
	set(&object, "position", number(row->position));
	set(&object, "pairs_now", number(row->pairs_now));
	set(&object, "pairs_total", number(row->pairs_total));
	set(&object, "fallbacks", fallbacks_json(row));
	return object;
}

/* Appends a row unless the line is full or broken; false ends the list. */
static bool row_append(struct answer *answer, size_t index, json_t *row)
{
	if (answer->failed || answer->len > ROWS_MAX_BYTES) {
		json_decref(row);
		return false;
	}
	if (index)
		append_text(answer, ",");
	append_json(answer, row);
	return true;
}

void answer_allocations(struct answer *answer,
			const struct control_allocation *rows, size_t count,
			size_t total)
{
	if (!answer->len)
		list_head(answer, CONTROL_ALLOCATIONS, total);
	for (size_t i = 0; i < count; i++)
		if (!row_append(answer, answer->rows++,
				allocation_json(&rows[i])))
			break;
}

void answer_connections(struct answer *answer,
			const struct control_connection *rows, size_t count,
			size_t total)
{
	if (!answer->len)
		list_head(answer, CONTROL_CONNECTIONS, total);
	for (size_t i = 0; i < count; i++)
		if (!row_append(answer, answer->rows++,
				connection_json(&rows[i])))
			break;
}

void answer_engines(struct answer *answer, const struct control_engine *rows,
		    size_t count)
{
	list_head(answer, CONTROL_ENGINES, count);
	for (size_t i = 0; i < count; i++)
		if (!row_append(answer, i, engine_json(&rows[i])))
			break;
	answer_list_end(answer);
}

static json_t *exit_json(const struct control_exit *row)
{
	json_t *object = json_object();

	set(&object, "name", string(row->name));
	set(&object, "state", string(row->state));
	set(&object, "was", string(row->was));
	set(&object, "since_ms", number(row->since_ms));
	set(&object, "changes", number(row->changes));
	set(&object, "packets", number(row->packets));
	set(&object, "rejected", number(row->rejected));
	set(&object, "place", number(row->place));
	set(&object, "seen_packets", number(row->seen_packets));
	set(&object, "seen_rejected", number(row->seen_rejected));
	set(&object, "seen_dead", number(row->seen_dead));
	return object;
}

static json_t *loss_json(const struct control_loss *row)
{
	json_t *object = json_object();

	set(&object, "what", string(row->what));
	set(&object, "silent", json_boolean(row->silent));
	set(&object, "held_ms", number(row->held_ms));
	return object;
}

void answer_exits(struct answer *answer, const struct control_exits *exits)
{
	char text[160];

	list_head(answer, CONTROL_EXITS, exits->count);
	for (size_t i = 0; i < exits->count; i++)
		if (!row_append(answer, i, exit_json(&exits->rows[i])))
			break;
	append_text(answer, "],\"losses\":[");
	for (size_t i = 0; i < exits->loss_count; i++)
		if (!row_append(answer, i, loss_json(&exits->losses[i])))
			break;
	snprintf(text, sizeof(text),
		 "],\"tunnel_refused\":%" PRIu64 ",\"hosts_told\":%" PRIu64
		 ",\"told\":%" PRIu64 ",\"forged\":%" PRIu64,
		 exits->tunnel_refused, exits->hosts_told, exits->told,
		 exits->forged);
	append_text(answer, text);
	tail(answer);
}

void control_allocations_free(struct control_allocation *rows, size_t count)
{
	for (size_t i = 0; rows && i < count; i++) {
		free(rows[i].user);
		free(rows[i].realm);
	}
	free(rows);
}

void control_connections_free(struct control_connection *rows, size_t count)
{
	for (size_t i = 0; rows && i < count; i++)
		free(rows[i].user);
	free(rows);
}
