/* SPDX-License-Identifier: BSD-2-Clause */
/* A reply line understood: from JSON text back to the structures. */
#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/client.h"

struct control_answer {
	json_t *root;
	const json_t *data; /* of root; NULL when refused */
};

/*
 * Members are taken with these; each ANDs into *ok whether the member was there
 * and of the right type, so that a row is checked once at its end.
 */
static uint64_t number(const json_t *object, const char *key, bool *ok)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_integer(value) || json_integer_value(value) < 0) {
		*ok = false;
		return 0;
	}
	return (uint64_t)json_integer_value(value);
}

static unsigned int small_number(const json_t *object, const char *key,
				 bool *ok)
{
	uint64_t n = number(object, key, ok);

	if (n > UINT32_MAX)
		*ok = false;
	return (unsigned int)n;
}

static bool boolean(const json_t *object, const char *key, bool *ok)
{
	const json_t *value = json_object_get(object, key);

	*ok &= json_is_boolean(value);
	return json_is_true(value);
}

static const char *text(const json_t *object, const char *key, bool *ok)
{
	const char *value = json_string_value(json_object_get(object, key));

	if (!value)
		*ok = false;
	return value ? value : "";
}

/* A member that an older daemon does not send. */
static const char *text_optional(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "";
}

static uint64_t number_optional(const json_t *object, const char *key)
{
	bool have = true;

	return number(object, key, &have);
}

static void text_copy(const json_t *object, const char *key, bool *ok,
		      char *out, size_t size)
{
	snprintf(out, size, "%s", text(object, key, ok));
}

int control_answer_parse(const char *line, size_t len,
			 struct control_answer **out)
{
	struct control_answer *answer = calloc(1, sizeof(*answer));
	json_error_t where;
	bool ok = true, done;

	if (!answer)
		return -ENOMEM;
	answer->root = json_loadb(line, len, JSON_REJECT_DUPLICATES, &where);
	if (!answer->root) {
		free(answer);
		return json_error_code(&where) == json_error_out_of_memory ?
			       -ENOMEM :
			       -EPROTO;
	}
	done = boolean(answer->root, "ok", &ok);
	if (number(answer->root, "v", &ok) != CONTROL_VERSION)
		ok = false;
	if (done)
		answer->data = json_object_get(answer->root, "data");
	else
		text(answer->root, "error", &ok);
	if (!ok || (done && !json_is_object(answer->data))) {
		control_answer_free(answer);
		return -EPROTO;
	}
	*out = answer;
	return 0;
}

void control_answer_free(struct control_answer *answer)
{
	if (!answer)
		return;
	json_decref(answer->root);
	free(answer);
}

const char *control_answer_error(const struct control_answer *answer)
{
	if (answer->data)
		return NULL;
	return json_string_value(json_object_get(answer->root, "error"));
}

char *control_answer_json(const struct control_answer *answer)
{
	json_t *object = json_object();
	char *line = NULL;

	if (object &&
	    !json_object_set_new(object, "v", json_integer(CONTROL_VERSION)) &&
	    !json_object_update(object, (json_t *)answer->data))
		line = json_dumps(object, JSON_COMPACT);
	json_decref(object);
	return line;
}

static void counters_decode(const json_t *object, bool *ok,
			    struct counters *out)
{
	/* A counter this daemon does not have yet, or no more, is 0. */
	bool have;

	*ok &= json_is_object(object);
#define X(name, help) \
	have = true;  \
	out->name = number(object, #name, &have);
	COUNTERS(X)
#undef X
}

int control_answer_status(const struct control_answer *answer,
			  struct control_status *out)
{
	const json_t *data = answer->data, *workers;
	struct control_status status = { .version = "" };
	bool ok = true;

	text_copy(data, "version", &ok, status.version, sizeof(status.version));
	status.uptime_ms = number(data, "uptime_ms", &ok);
	status.workers = small_number(data, "workers", &ok);
	status.draining = boolean(data, "draining", &ok);
	status.config_loads = number(data, "config_loads", &ok);
	counters_decode(json_object_get(data, "total"), &ok, &status.total);
	workers = json_object_get(data, "per_worker");
	if (!ok || json_array_size(workers) != status.workers)
		return -EPROTO;
	status.per_worker =
		calloc((size_t)status.workers + 1, sizeof(*status.per_worker));
	if (!status.per_worker)
		return -ENOMEM;
	for (unsigned int i = 0; i < status.workers; i++)
		counters_decode(json_array_get(workers, i), &ok,
				&status.per_worker[i]);
	if (!ok) {
		free(status.per_worker);
		return -EPROTO;
	}
	*out = status;
	return 0;
}

/* How the rows of one kind of list are made and unmade. */
struct row_kind {
	const char *key;
	size_t size;
	int (*decode)(const json_t *row, void *out); /* 0, -EPROTO, -ENOMEM */
	void (*free)(void *rows, size_t count); /* NULL: free() will do */
};

/*
 * `rows` points to a pointer to rows of this kind, which the caller frees as its
 * kind is; `total` may be NULL.
 */
static int list_decode(const struct control_answer *answer,
		       const struct row_kind *kind, void *rows, size_t *count,
		       size_t *total)
{
	const json_t *list = json_object_get(answer->data, kind->key);
	bool ok = json_is_array(list);
	size_t all = 0, n;
	char *array;
	int err = 0;

	if (total)
		all = (size_t)number(answer->data, "total", &ok);
	if (!ok)
		return -EPROTO;
	n = json_array_size(list);
	array = calloc(n + 1, kind->size);
	if (!array)
		return -ENOMEM;
	for (size_t i = 0; i < n && !err; i++)
		err = kind->decode(json_array_get(list, i),
				   array + i * kind->size);
	if (err) {
		if (kind->free)
			kind->free(array, n);
		else
			free(array);
		return err;
	}
	memcpy(rows, &array, sizeof(array));
	*count = n;
	if (total)
		*total = all;
	return 0;
}

static int allocation_decode(const json_t *row, void *to)
{
	struct control_allocation *out = to;
	bool ok = true;
	const char *user, *realm;

	text_copy(row, "id", &ok, out->id, sizeof(out->id));
	text_copy(row, "client", &ok, out->client, sizeof(out->client));
	text_copy(row, "client_transport", &ok, out->client_transport,
		  sizeof(out->client_transport));
	text_copy(row, "relayed", &ok, out->relayed, sizeof(out->relayed));
	if (json_object_get(row, "additional"))
		text_copy(row, "additional", &ok, out->additional,
			  sizeof(out->additional));
	text_copy(row, "transport", &ok, out->transport,
		  sizeof(out->transport));
	user = text(row, "user", &ok);
	realm = text(row, "realm", &ok);
	out->age_ms = number(row, "age_ms", &ok);
	out->expires_in_ms = number(row, "expires_in_ms", &ok);
	out->permissions = small_number(row, "permissions", &ok);
	out->pending = small_number(row, "pending", &ok);
	out->connections = small_number(row, "connections", &ok);
	out->channels = small_number(row, "channels", &ok);
	out->bytes_to_peers = number(row, "bytes_to_peers", &ok);
	out->bytes_to_client = number(row, "bytes_to_client", &ok);
	out->worker = small_number(row, "worker", &ok);
	if (!ok)
		return -EPROTO;
	out->user = strdup(user);
	out->realm = strdup(realm);
	return out->user && out->realm ? 0 : -ENOMEM;
}

static void allocations_free(void *rows, size_t count)
{
	control_allocations_free(rows, count);
}

int control_answer_allocations(const struct control_answer *answer,
			       struct control_allocation **rows, size_t *count,
			       size_t *total)
{
	static const struct row_kind kind = {
		.key = "allocations",
		.size = sizeof(struct control_allocation),
		.decode = allocation_decode,
		.free = allocations_free,
	};

	return list_decode(answer, &kind, rows, count, total);
}

static int connection_decode(const json_t *row, void *to)
{
	struct control_connection *out = to;
	bool ok = true;
	const char *user;

	text_copy(row, "id", &ok, out->id, sizeof(out->id));
	text_copy(row, "allocation", &ok, out->allocation,
		  sizeof(out->allocation));
	text_copy(row, "client", &ok, out->client, sizeof(out->client));
	text_copy(row, "peer", &ok, out->peer, sizeof(out->peer));
	user = text(row, "user", &ok);
	out->state = text(row, "state", &ok);
	out->engine = text(row, "engine", &ok);
	out->why = text_optional(row, "why");
	out->expires_in_ms = number_optional(row, "expires_in_ms");
	out->bytes_to_peer = number(row, "bytes_to_peer", &ok);
	out->bytes_to_client = number(row, "bytes_to_client", &ok);
	out->age_ms = number(row, "age_ms", &ok);
	out->idle_ms = number(row, "idle_ms", &ok);
	out->worker = small_number(row, "worker", &ok);
	if (!ok)
		return -EPROTO;
	out->user = strdup(user);
	return out->user ? 0 : -ENOMEM;
}

static void connections_free(void *rows, size_t count)
{
	control_connections_free(rows, count);
}

int control_answer_connections(const struct control_answer *answer,
			       struct control_connection **rows, size_t *count,
			       size_t *total)
{
	static const struct row_kind kind = {
		.key = "connections",
		.size = sizeof(struct control_connection),
		.decode = connection_decode,
		.free = connections_free,
	};

	return list_decode(answer, &kind, rows, count, total);
}

static void fallbacks_decode(const json_t *list, bool *ok,
			     struct control_engine *out)
{
	size_t n = json_array_size(list);

	for (size_t i = 0; i < n && i < CONTROL_FALLBACKS_MAX; i++) {
		const json_t *row = json_array_get(list, i);

		out->fallbacks[i] = (struct control_fallback){
			.reason = text(row, "reason", ok),
			.text = text(row, "text", ok),
			.count = number(row, "count", ok),
		};
		out->fallback_count++;
	}
}

static int engine_decode(const json_t *row, void *to)
{
	struct control_engine *out = to;
	bool ok = true;

	out->name = text(row, "name", &ok);
	out->needs = text_optional(row, "needs");
	out->available = boolean(row, "available", &ok);
	text_copy(row, "reason", &ok, out->reason, sizeof(out->reason));
	out->position = small_number(row, "position", &ok);
	out->pairs_now = number(row, "pairs_now", &ok);
	out->pairs_total = number(row, "pairs_total", &ok);
	fallbacks_decode(json_object_get(row, "fallbacks"), &ok, out);
	return ok ? 0 : -EPROTO;
}

int control_answer_engines(const struct control_answer *answer,
			   struct control_engine **rows, size_t *count)
{
	static const struct row_kind kind = {
		.key = "engines",
		.size = sizeof(struct control_engine),
		.decode = engine_decode,
	};

	return list_decode(answer, &kind, rows, count, NULL);
}

static int exit_decode(const json_t *row, void *to)
{
	struct control_exit *out = to;
	bool ok = true;

	out->name = text(row, "name", &ok);
	out->state = text(row, "state", &ok);
	out->was = text(row, "was", &ok);
	out->since_ms = number(row, "since_ms", &ok);
	out->changes = number(row, "changes", &ok);
	out->packets = number(row, "packets", &ok);
	out->rejected = number(row, "rejected", &ok);
	out->place = number(row, "place", &ok);
	out->seen_packets = number(row, "seen_packets", &ok);
	out->seen_rejected = number(row, "seen_rejected", &ok);
	out->seen_dead = number(row, "seen_dead", &ok);
	return ok ? 0 : -EPROTO;
}

int control_answer_exits(const struct control_answer *answer,
			 struct control_exit **rows, size_t *count)
{
	static const struct row_kind kind = {
		.key = "exits",
		.size = sizeof(struct control_exit),
		.decode = exit_decode,
	};

	return list_decode(answer, &kind, rows, count, NULL);
}

static int loss_decode(const json_t *row, void *to)
{
	struct control_loss *out = to;
	bool ok = true;

	out->what = text(row, "what", &ok);
	out->silent = boolean(row, "silent", &ok);
	out->held_ms = number(row, "held_ms", &ok);
	return ok ? 0 : -EPROTO;
}

int control_answer_losses(const struct control_answer *answer,
			  struct control_loss **rows, size_t *count)
{
	static const struct row_kind kind = {
		.key = "losses",
		.size = sizeof(struct control_loss),
		.decode = loss_decode,
	};

	return list_decode(answer, &kind, rows, count, NULL);
}

void control_json_text(FILE *out, const char *text)
{
	json_t *string = json_string(text);

	if (!string || json_dumpf(string, out, JSON_ENCODE_ANY))
		fputs("null", out);
	json_decref(string);
}
