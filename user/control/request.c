/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A request line, parsed strictly: one JSON object, no key twice, version 1.
 * Keys that are not known are passed over, so that a newer culvertctl can ask
 * an older daemon.
 */
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "control/control.h"

static const char *const command_names[] = {
	[CONTROL_STATUS] = "status",
	[CONTROL_ALLOCATIONS] = "allocations",
	[CONTROL_CONNECTIONS] = "connections",
	[CONTROL_ENGINES] = "engines",
	[CONTROL_EXITS] = "exits",
	[CONTROL_KICK] = "kick",
	[CONTROL_DRAIN] = "drain",
	[CONTROL_UNDRAIN] = "undrain",
	[CONTROL_RELOAD] = "reload",
	[CONTROL_FORGET] = "forget",
	[CONTROL_STOP] = "stop",
};

const char *control_command_name(enum control_command command)
{
	return command_names[command];
}

static const char *version_parse(const json_t *root)
{
	const json_t *v = json_object_get(root, "v");

	if (!json_is_integer(v))
		return "key \"v\" is missing or no number: send \"v\":1";
	if (json_integer_value(v) != CONTROL_VERSION)
		return "this daemon speaks version 1 only: send \"v\":1";
	return NULL;
}

static const char *command_parse(const json_t *root,
				 struct control_request *request)
{
	const char *name = json_string_value(json_object_get(root, "cmd"));

	if (!name)
		return "key \"cmd\" is missing or no text: send the name of a "
		       "command";
	for (size_t i = 0; i < sizeof(command_names) / sizeof(*command_names);
	     i++) {
		if (strcmp(command_names[i], name) != 0)
			continue;
		request->command = (enum control_command)i;
		return NULL;
	}
	return "unknown command; there are status, allocations, connections, "
	       "engines, exits, kick, drain, undrain, reload, forget and stop";
}

static const char *limit_parse(const json_t *root,
			       struct control_request *request)
{
	const json_t *limit = json_object_get(root, "limit");

	request->limit = CONTROL_LIMIT_DEFAULT;
	if (!limit)
		return NULL;
	if (!json_is_integer(limit) || json_integer_value(limit) < 1 ||
	    json_integer_value(limit) > CONTROL_LIMIT_MAX)
		return "\"limit\" must be a whole number from 1 to 100000";
	request->limit = (size_t)json_integer_value(limit);
	return NULL;
}

/* "a12.7" or "c12.7" */
static bool id_valid(const char *id)
{
	size_t first, second;

	if (*id != 'a' && *id != 'c')
		return false;
	first = strspn(++id, "0123456789");
	if (!first || id[first] != '.')
		return false;
	id += first + 1;
	second = strspn(id, "0123456789");
	return second && !id[second];
}

static const char *id_parse(const json_t *root, struct control_request *request)
{
	const char *id = json_string_value(json_object_get(root, "id"));

	if (request->command != CONTROL_KICK)
		return NULL;
	if (!id || strlen(id) >= sizeof(request->id) || !id_valid(id))
		return "\"id\" must name what to kick: the id of an allocation "
		       "such as \"a0.7\", or of a connection such as \"c0.7\"";
	memcpy(request->id, id, strlen(id) + 1);
	return NULL;
}

int control_parse_request(const char *line, size_t len,
			  struct control_request *out, const char **error)
{
	struct control_request request;
	json_error_t where;
	const char *wrong;
	json_t *root;

	memset(&request, 0, sizeof(request));
	root = json_loadb(line, len, JSON_REJECT_DUPLICATES, &where);
	if (!json_is_object(root)) {
		json_decref(root);
		*error = "a request is one JSON object on one line, without "
			 "repeated keys";
		return -EINVAL;
	}
	wrong = version_parse(root);
	if (!wrong)
		wrong = command_parse(root, &request);
	if (!wrong)
		wrong = limit_parse(root, &request);
	if (!wrong)
		wrong = id_parse(root, &request);
	json_decref(root);
	if (wrong) {
		*error = wrong;
		return -EINVAL;
	}
	*out = request;
	return 0;
}
