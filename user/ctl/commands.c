/* SPDX-License-Identifier: BSD-2-Clause */
/* The commands of culvertctl but top, and what they share. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"
#include "ctl/grid.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

void ctl_complain(struct ctl *ctl, const char *fmt, ...)
{
	va_list args;

	fputs("culvertctl: ", ctl->err);
	va_start(args, fmt);
	vfprintf(ctl->err, fmt, args);
	va_end(args);
	fputc('\n', ctl->err);
}

enum ctl_exit ctl_connect(struct ctl *ctl)
{
	int err = control_client_new(ctl->path, &ctl->client);

	switch (-err) {
	case 0:
		return CTL_OK;
	case ENOENT:
		return ctl_fail(ctl,
				"there is no %s: culvertd does not run, or its "
				"`control` key has another path (give that "
				"with --socket)",
				ctl->path);
	case ECONNREFUSED:
		return ctl_fail(ctl,
				"nobody answers at %s: culvertd has ended; "
				"start it again",
				ctl->path);
	case EACCES:
	case EPERM:
		return ctl_fail(ctl,
				"no permission to use %s: try as root, or as "
				"the user that culvertd runs as",
				ctl->path);
	case EAGAIN:
		return ctl_fail(ctl,
				"culvertd does not take connections at %s in "
				"time: try again",
				ctl->path);
	default:
		return ctl_fail(ctl, "%s: %s", ctl->path, strerror(-err));
	}
}

static enum ctl_exit ask_failed(struct ctl *ctl, int err)
{
	switch (-err) {
	case ETIMEDOUT:
		return ctl_fail(ctl,
				"culvertd did not answer within %d seconds",
				CTL_TIMEOUT_MS / 1000);
	case ECONNRESET:
	case EPIPE:
		return ctl_fail(ctl, "culvertd closed the connection without "
				     "an answer");
	case EMSGSIZE:
		return ctl_fail(ctl, "the answer is too long: ask for fewer "
				     "rows with --limit");
	case EPROTO:
		return ctl_fail(ctl, "the answer is not understood: is "
				     "culvertd of another version?");
	default:
		return ctl_fail(ctl, "no answer: %s", strerror(-err));
	}
}

enum ctl_exit ctl_ask(struct ctl *ctl, enum control_command command,
		      struct control_answer **out)
{
	struct control_request request = { .command = command,
					   .limit = ctl->limit };
	struct control_answer *answer;
	int err;

	if (ctl->id)
		snprintf(request.id, sizeof(request.id), "%s", ctl->id);
	err = control_client_ask(ctl->client, &request, CTL_TIMEOUT_MS,
				 &answer);
	if (err)
		return ask_failed(ctl, err);
	if (control_answer_error(answer)) {
		ctl_complain(ctl, "%s", control_answer_error(answer));
		control_answer_free(answer);
		return CTL_FAILED;
	}
	*out = answer;
	return CTL_OK;
}

enum ctl_exit ctl_print_json(struct ctl *ctl,
			     const struct control_answer *answer)
{
	char *line = control_answer_json(answer);

	if (!line)
		return ctl_fail(ctl, "no memory");
	fprintf(ctl->out, "%s\n", line);
	free(line);
	return CTL_OK;
}

static enum ctl_exit grid_show(struct ctl *ctl, const struct grid *grid)
{
	return grid_print(grid, ctl->out) ? ctl_fail(ctl, "no memory") : CTL_OK;
}

static void list_cut(const struct ctl *ctl, size_t count, size_t total)
{
	if (count < total)
		fprintf(ctl->out, "%zu of %zu shown; --limit N shows more\n",
			count, total);
}

/* Counters of bytes, told by their names. */
static void counter_cell(struct grid *grid, const char *name, uint64_t value)
{
	char text[HUMAN_LEN];

	if (!strncmp(name, "bytes_", 6))
		grid_cell(grid, "%s", human_bytes(value, text));
	else
		grid_cell(grid, "%" PRIu64, value);
}

static enum ctl_exit status_print(struct ctl *ctl,
				  const struct control_status *status)
{
	static const char *const titles[] = { ">TOTAL" };
	unsigned int workers = ctl->workers ? status->workers : 0;
	char up[HUMAN_LEN], title[16];
	struct grid grid;
	enum ctl_exit code;

	fprintf(ctl->out,
		"culvertd %s, up %s, %u worker%s, %s, configuration read %" PRIu64
		" time%s\n\n",
		status->version, human_duration(status->uptime_ms, up),
		status->workers, status->workers == 1 ? "" : "s",
		status->draining ? "draining" : "serving", status->config_loads,
		status->config_loads == 1 ? "" : "s");
	grid_init(&grid, titles, COUNT(titles));
	if (workers > GRID_COLUMNS_MAX - 2)
		workers = GRID_COLUMNS_MAX - 2;
	for (unsigned int w = 0; w < workers; w++) {
		snprintf(title, sizeof(title), ">WORKER %u", w);
		grid_column(&grid, title);
	}
	grid_column(&grid, "COUNTER");
#define X(name, help)                                                   \
	counter_cell(&grid, #name, status->total.name);                 \
	for (unsigned int w = 0; w < workers; w++)                      \
		counter_cell(&grid, #name, status->per_worker[w].name); \
	grid_cell(&grid, "%s", help);
	COUNTERS(X)
#undef X
	code = grid_show(ctl, &grid);
	grid_free(&grid);
	return code;
}

static enum ctl_exit status_show(struct ctl *ctl,
				 const struct control_answer *answer)
{
	struct control_status status;
	enum ctl_exit code;
	int err = control_answer_status(answer, &status);

	if (err)
		return ask_failed(ctl, err);
	code = status_print(ctl, &status);
	free(status.per_worker);
	return code;
}

static void allocation_cells(struct grid *grid,
			     const struct control_allocation *row)
{
	char text[HUMAN_LEN];

	grid_cell(grid, "%s", row->id);
	grid_cell(grid, "%s", row->client);
	grid_cell(grid, "%s", row->client_transport);
	grid_cell(grid, "%s%s%s", row->relayed, *row->additional ? "," : "",
		  row->additional);
	grid_cell(grid, "%s", row->transport);
	grid_cell(grid, "%s", row->user);
	grid_cell(grid, "%s", row->realm);
	grid_cell(grid, "%s", human_duration(row->age_ms, text));
	grid_cell(grid, "%s", human_duration(row->expires_in_ms, text));
	grid_cell(grid, "%u", row->permissions);
	grid_cell(grid, "%u", row->pending);
	grid_cell(grid, "%u", row->connections);
	grid_cell(grid, "%u", row->channels);
	grid_cell(grid, "%u", row->worker);
}

static enum ctl_exit allocations_show(struct ctl *ctl,
				      const struct control_answer *answer)
{
	static const char *const titles[] = {
		"ID",       "CLIENT", "BY",        "RELAYED",  "TO",
		"USER",     "REALM",  ">AGE",      ">EXPIRES", ">PERMITTED",
		">PENDING", ">CONNS", ">CHANNELS", ">WORKER",
	};
	struct control_allocation *rows;
	size_t count, total;
	struct grid grid;
	enum ctl_exit code;
	int err = control_answer_allocations(answer, &rows, &count, &total);

	if (err)
		return ask_failed(ctl, err);
	grid_init(&grid, titles, COUNT(titles));
	for (size_t i = 0; i < count; i++)
		allocation_cells(&grid, &rows[i]);
	code = grid_show(ctl, &grid);
	list_cut(ctl, count, total);
	grid_free(&grid);
	control_allocations_free(rows, count);
	return code;
}

static void connection_cells(struct grid *grid,
			     const struct control_connection *row)
{
	char text[HUMAN_LEN];

	grid_cell(grid, "%s", row->id);
	grid_cell(grid, "%s", row->allocation);
	grid_cell(grid, "%s", row->client);
	grid_cell(grid, "%s", row->peer);
	grid_cell(grid, "%s", row->user);
	grid_cell(grid, "%s", row->state);
	grid_cell(grid, "%s", row->engine);
	grid_cell(grid, "%s", human_bytes(row->bytes_to_peer, text));
	grid_cell(grid, "%s", human_bytes(row->bytes_to_client, text));
	grid_cell(grid, "%s", human_duration(row->age_ms, text));
	grid_cell(grid, "%s", human_duration(row->idle_ms, text));
	grid_cell(grid, "%u", row->worker);
	if (row->expires_in_ms)
		grid_cell(grid, "expires in %s",
			  human_duration(row->expires_in_ms, text));
	else
		grid_cell(grid, "%s", row->why);
}

static enum ctl_exit connections_show(struct ctl *ctl,
				      const struct control_answer *answer)
{
	static const char *const titles[] = {
		"ID",    "ALLOCATION", "CLIENT",       "PEER",       "USER",
		"STATE", "ENGINE",     ">TO PEER",     ">TO CLIENT", ">AGE",
		">IDLE", ">WORKER",    "WHY NOT WIRE",
	};
	struct control_connection *rows;
	size_t count, total;
	struct grid grid;
	enum ctl_exit code;
	int err = control_answer_connections(answer, &rows, &count, &total);

	if (err)
		return ask_failed(ctl, err);
	grid_init(&grid, titles, COUNT(titles));
	for (size_t i = 0; i < count; i++)
		connection_cells(&grid, &rows[i]);
	code = grid_show(ctl, &grid);
	list_cut(ctl, count, total);
	grid_free(&grid);
	control_connections_free(rows, count);
	return code;
}

static void engine_cells(struct grid *grid, const struct control_engine *row)
{
	grid_cell(grid, "%s", row->name);
	if (row->position)
		grid_cell(grid, "%u", row->position);
	else
		grid_cell(grid, "-");
	grid_cell(grid, "%s", row->available ? "yes" : "no");
	grid_cell(grid, "%" PRIu64, row->pairs_now);
	grid_cell(grid, "%" PRIu64, row->pairs_total);
	grid_cell(grid, "%s", row->needs);
	grid_cell(grid, "%s", row->reason);
}

/* Connections that an engine did not take: nothing when there are none. */
static enum ctl_exit fallbacks_show(struct ctl *ctl,
				    const struct control_engine *row)
{
	static const char *const titles[] = { "ENGINE", ">NOT TAKEN",
					      "BECAUSE" };
	struct grid grid;
	enum ctl_exit code;

	if (!row->fallback_count)
		return CTL_OK;
	fputs("\n", ctl->out);
	grid_init(&grid, titles, COUNT(titles));
	for (size_t i = 0; i < row->fallback_count; i++) {
		grid_cell(&grid, "%s", row->name);
		grid_cell(&grid, "%" PRIu64, row->fallbacks[i].count);
		grid_cell(&grid, "%s", row->fallbacks[i].text);
	}
	code = grid_show(ctl, &grid);
	grid_free(&grid);
	return code;
}

static enum ctl_exit engines_show(struct ctl *ctl,
				  const struct control_answer *answer)
{
	static const char *const titles[] = { "ENGINE", ">ORDER", "WORKS",
					      ">NOW",   ">TOTAL", "NEEDS",
					      "WHY NOT" };
	struct control_engine *rows;
	size_t count;
	struct grid grid;
	enum ctl_exit code;
	int err = control_answer_engines(answer, &rows, &count);

	if (err)
		return ask_failed(ctl, err);
	grid_init(&grid, titles, COUNT(titles));
	for (size_t i = 0; i < count; i++)
		engine_cells(&grid, &rows[i]);
	code = grid_show(ctl, &grid);
	for (size_t i = 0; i < count && code == CTL_OK; i++)
		code = fallbacks_show(ctl, &rows[i]);
	grid_free(&grid);
	free(rows);
	return code;
}

/* Asks for a list or state, and prints it as asked for. */
static enum ctl_exit query(struct ctl *ctl, enum control_command command,
			   enum ctl_exit (*show)(struct ctl *,
						 const struct control_answer *))
{
	struct control_answer *answer;
	enum ctl_exit code = ctl_ask(ctl, command, &answer);

	if (code)
		return code;
	code = ctl->json ? ctl_print_json(ctl, answer) : show(ctl, answer);
	control_answer_free(answer);
	return code;
}

/* Asks for a change, and confirms that it was made. */
static enum ctl_exit order(struct ctl *ctl, enum control_command command,
			   const char *done)
{
	struct control_answer *answer;
	enum ctl_exit code = ctl_ask(ctl, command, &answer);

	if (code)
		return code;
	if (ctl->json)
		code = ctl_print_json(ctl, answer);
	else
		fprintf(ctl->out, "%s\n", done);
	control_answer_free(answer);
	return code;
}

static enum ctl_exit status_run(struct ctl *ctl)
{
	return query(ctl, CONTROL_STATUS, status_show);
}

static enum ctl_exit allocations_run(struct ctl *ctl)
{
	return query(ctl, CONTROL_ALLOCATIONS, allocations_show);
}

static enum ctl_exit connections_run(struct ctl *ctl)
{
	return query(ctl, CONTROL_CONNECTIONS, connections_show);
}

static enum ctl_exit engines_run(struct ctl *ctl)
{
	return query(ctl, CONTROL_ENGINES, engines_show);
}

static enum ctl_exit kick_run(struct ctl *ctl)
{
	char done[64];

	if (strlen(ctl->id) >= sizeof(((struct control_request *)NULL)->id) ||
	    strpbrk(ctl->id, "\"\\"))
		return ctl_fail(ctl,
				"\"%.40s\" is not the id of an allocation "
				"or connection",
				ctl->id);
	snprintf(done, sizeof(done), "closed %s", ctl->id);
	return order(ctl, CONTROL_KICK, done);
}

static enum ctl_exit drain_run(struct ctl *ctl)
{
	if (ctl->undo)
		return order(ctl, CONTROL_UNDRAIN,
			     "serving: new allocations are taken again");
	return order(ctl, CONTROL_DRAIN,
		     "draining: no new allocations; those there are go on");
}

static enum ctl_exit reload_run(struct ctl *ctl)
{
	return order(ctl, CONTROL_RELOAD, "the configuration is read anew");
}

static enum ctl_exit stop_run(struct ctl *ctl)
{
	return order(ctl, CONTROL_STOP, "stopping");
}

const struct ctl_command ctl_commands[] = {
	{ "status", NULL, status_run, "version, uptime and counters", false },
	{ "allocations", NULL, allocations_run, "the clients' allocations",
	  false },
	{ "connections", NULL, connections_run, "the relayed connections",
	  false },
	{ "engines", NULL, engines_run,
	  "what carries the bytes, and whether it works here", false },
	{ "top", NULL, ctl_top, "connections and their rates, live", false },
	{ "kick", "ID", kick_run, "close an allocation or a connection",
	  false },
	{ "drain", NULL, drain_run, "refuse new allocations", false },
	{ "reload", NULL, reload_run, "read the configuration file anew",
	  false },
	{ "stop", NULL, stop_run, "end the daemon", false },
	{ "user add", "NAME", ctl_user_add,
	  "add to the user database, or change a password", true },
	{ "user list", NULL, ctl_user_list, "who is in the user database",
	  true },
	{ "user remove", "NAME", ctl_user_remove,
	  "take out of the user database", true },
	{ "flush", NULL, ctl_flush,
	  "remove what a daemon that is gone left in the kernel", true },
	{ "exits", NULL, ctl_exits, "the ways out, as they are in the kernel",
	  true },
	{ "exits plan", NULL, ctl_exits_plan,
	  "what the configuration would change in the kernel", true },
	{ "exits trace", "SRC DST", ctl_exits_trace,
	  "which way a packet takes, and why", true },
	{ "exits check", NULL, ctl_exits_check,
	  "what on this host keeps exits from working", true },
	{ "exits remove", NULL, ctl_exits_remove,
	  "take rules, routes and guards out of the kernel", true },
};
const size_t ctl_command_count = COUNT(ctl_commands);

enum ctl_exit ctl_run(int argc, char **argv, FILE *out, FILE *err)
{
	struct ctl ctl = { .out = out, .err = err };
	enum ctl_exit code;

	if (ctl_options_parse(&ctl, argc, argv, &code)) {
		code = ctl.command->alone ? CTL_OK : ctl_connect(&ctl);
		if (!code)
			code = ctl.command->run(&ctl);
		control_client_free(ctl.client);
	}
	if ((fflush(out) || ferror(out)) && !code)
		code = ctl_fail(&ctl, "cannot write the output: %s",
				strerror(errno));
	return code;
}
