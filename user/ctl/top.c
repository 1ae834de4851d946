/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * culvertctl top: connections by their rates, again and again.
 *
 * A snapshot is the daemon's status and its connections, fetched over one
 * control connection; rates are differences to the snapshot before it. On a
 * terminal the display is replaced each time, elsewhere snapshots follow each
 * other.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/table.h"
#include "ctl/ctl.h"
#include "ctl/grid.h"
#include "ctl/screen.h"

#define ROWS_DEFAULT 10000 /* asked for, unless --limit says otherwise */
#define HEAD_LINES   4 /* above the table's rows */

struct row {
	struct table_node node; /* key: id */
	const struct control_connection *connection;
	uint64_t to_peer, to_client; /* bytes per second */
	bool rated; /* there was a snapshot before */
};

struct snapshot {
	struct control_answer *answer; /* owns texts of connections */
	struct control_status status;
	struct control_connection *connections;
	struct row *rows; /* sorted */
	size_t count, total;
	uint64_t taken_ms;
	struct table by_id; /* rows */
};

static void snapshot_free(struct snapshot *shot)
{
	if (!shot)
		return;
	table_destroy(&shot->by_id);
	free(shot->rows);
	free(shot->status.per_worker);
	control_connections_free(shot->connections, shot->count);
	control_answer_free(shot->answer);
	free(shot);
}

static uint64_t id_hash(const char *id)
{
	return table_hash(id, strlen(id));
}

static const struct row *row_find(const struct snapshot *shot, const char *id)
{
	struct table_node *node;

	if (!shot)
		return NULL;
	for (node = table_first(&shot->by_id, id_hash(id)); node;
	     node = table_next(node)) {
		const struct row *row = list_entry(node, struct row, node);

		if (!strcmp(row->connection->id, id))
			return row;
	}
	return NULL;
}

static uint64_t rate(uint64_t now, uint64_t before, uint64_t ms)
{
	if (now < before || !ms)
		return 0;
	return (uint64_t)((double)(now - before) * 1000.0 / (double)ms);
}

static void row_fill(struct row *row, const struct control_connection *c,
		     const struct snapshot *before, uint64_t ms)
{
	const struct row *old = row_find(before, c->id);

	row->connection = c;
	row->rated = before != NULL;
	/* One that was not there before has moved all its bytes since. */
	row->to_peer = rate(c->bytes_to_peer,
			    old ? old->connection->bytes_to_peer : 0, ms);
	row->to_client = rate(c->bytes_to_client,
			      old ? old->connection->bytes_to_client : 0, ms);
}

static int row_compare(const void *left, const void *right)
{
	const struct row *a = left, *b = right;
	uint64_t ar = a->to_peer + a->to_client, br = b->to_peer + b->to_client;
	uint64_t at =
		a->connection->bytes_to_peer + a->connection->bytes_to_client;
	uint64_t bt =
		b->connection->bytes_to_peer + b->connection->bytes_to_client;

	if (ar != br)
		return ar < br ? 1 : -1;
	if (at != bt)
		return at < bt ? 1 : -1;
	return strcmp(a->connection->id, b->connection->id);
}

static int rows_fill(struct snapshot *shot, const struct snapshot *before)
{
	uint64_t ms = before ? shot->taken_ms - before->taken_ms : 0;

	shot->rows = calloc(shot->count + 1, sizeof(*shot->rows));
	if (!shot->rows || table_init(&shot->by_id))
		return -ENOMEM;
	for (size_t i = 0; i < shot->count; i++)
		row_fill(&shot->rows[i], &shot->connections[i], before, ms);
	qsort(shot->rows, shot->count, sizeof(*shot->rows), row_compare);
	for (size_t i = 0; i < shot->count; i++)
		table_insert(&shot->by_id, &shot->rows[i].node,
			     id_hash(shot->rows[i].connection->id));
	return 0;
}

static enum ctl_exit not_understood(struct ctl *ctl, int err)
{
	return err == -ENOMEM ?
		       ctl_fail(ctl, "no memory") :
		       ctl_fail(ctl, "the answer is not understood: "
				     "is culvertd of another version?");
}

static enum ctl_exit status_fetch(struct ctl *ctl, struct snapshot *shot)
{
	struct control_answer *answer;
	enum ctl_exit code = ctl_ask(ctl, CONTROL_STATUS, &answer);
	int err;

	if (code)
		return code;
	err = control_answer_status(answer, &shot->status);
	control_answer_free(answer);
	return err ? not_understood(ctl, err) : CTL_OK;
}

static enum ctl_exit snapshot_take(struct ctl *ctl,
				   const struct snapshot *before,
				   struct snapshot **out)
{
	struct snapshot *shot = calloc(1, sizeof(*shot));
	enum ctl_exit code;
	int err;

	if (!shot)
		return ctl_fail(ctl, "no memory");
	code = status_fetch(ctl, shot);
	if (!code)
		code = ctl_ask(ctl, CONTROL_CONNECTIONS, &shot->answer);
	if (code) {
		snapshot_free(shot);
		return code;
	}
	shot->taken_ms = clock_ms();
	err = control_answer_connections(shot->answer, &shot->connections,
					 &shot->count, &shot->total);
	if (!err)
		err = rows_fill(shot, before);
	if (err) {
		snapshot_free(shot);
		return not_understood(ctl, err);
	}
	*out = shot;
	return CTL_OK;
}

static const char *rate_text(uint64_t per_second, bool rated,
			     char out[HUMAN_LEN])
{
	char bytes[HUMAN_LEN];

	if (rated)
		snprintf(out, HUMAN_LEN, "%.*s/s", HUMAN_LEN - 3,
			 human_bytes(per_second, bytes));
	else
		snprintf(out, HUMAN_LEN, "-");
	return out;
}

static void head_print(const struct snapshot *shot,
		       const struct snapshot *before, FILE *out)
{
	const struct counters *now = &shot->status.total;
	const struct counters *then = before ? &before->status.total : now;
	uint64_t ms = before ? shot->taken_ms - before->taken_ms : 0;
	char up[HUMAN_LEN], peers[HUMAN_LEN], clients[HUMAN_LEN], clock[16];
	time_t wall = time(NULL);
	struct tm tm;

	localtime_r(&wall, &tm);
	strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
	fprintf(out, "culvertd %s, up %s, %s, %u worker%s, %s\n",
		shot->status.version,
		human_duration(shot->status.uptime_ms, up),
		shot->status.draining ? "draining" : "serving",
		shot->status.workers, shot->status.workers == 1 ? "" : "s",
		clock);
	fprintf(out,
		"%" PRIu64 " clients, %" PRIu64 " allocations, %" PRIu64
		" relayed connections, %" PRIu64
		" pending; %s to peers, %s to clients\n\n",
		now->clients, now->allocations, now->relaying, now->pending,
		rate_text(rate(now->bytes_to_peers, then->bytes_to_peers, ms),
			  before, peers),
		rate_text(rate(now->bytes_to_clients, then->bytes_to_clients,
			       ms),
			  before, clients));
}

static void row_cells(struct grid *grid, const struct row *row)
{
	const struct control_connection *c = row->connection;
	char text[HUMAN_LEN];

	grid_cell(grid, "%s", c->id);
	grid_cell(grid, "%s", c->user);
	grid_cell(grid, "%s", c->client);
	grid_cell(grid, "%s", c->peer);
	grid_cell(grid, "%s", c->state);
	grid_cell(grid, "%s", c->engine);
	grid_cell(grid, "%s", rate_text(row->to_peer, row->rated, text));
	grid_cell(grid, "%s", rate_text(row->to_client, row->rated, text));
	grid_cell(grid, "%s",
		  human_bytes(c->bytes_to_peer + c->bytes_to_client, text));
	grid_cell(grid, "%s", human_duration(c->age_ms, text));
}

/* max: rows of the table that fit. */
static int snapshot_print(const struct snapshot *shot,
			  const struct snapshot *before, size_t max, FILE *out)
{
	static const char *const titles[] = {
		"ID",     "USER",     "CLIENT",     "PEER",   "STATE",
		"ENGINE", ">TO PEER", ">TO CLIENT", ">BYTES", ">AGE",
	};
	struct grid grid;
	int err;

	head_print(shot, before, out);
	grid_init(&grid, titles, sizeof(titles) / sizeof(titles[0]));
	for (size_t i = 0; i < shot->count && i < max; i++)
		row_cells(&grid, &shot->rows[i]);
	err = grid_print(&grid, out);
	grid_free(&grid);
	return err;
}

static enum ctl_exit show_on_screen(struct ctl *ctl, struct screen *screen,
				    const struct snapshot *shot,
				    const struct snapshot *before)
{
	size_t rows = screen_rows(screen), len = 0;
	char *text = NULL;
	FILE *memory = open_memstream(&text, &len);
	int err;

	if (!memory)
		return ctl_fail(ctl, "no memory");
	err = snapshot_print(shot, before,
			     rows > HEAD_LINES ? rows - HEAD_LINES : 0, memory);
	if (fclose(memory) || err) {
		free(text);
		return ctl_fail(ctl, "no memory");
	}
	screen_draw(screen, text, len);
	free(text);
	return CTL_OK;
}

static enum ctl_exit show(struct ctl *ctl, struct screen *screen,
			  const struct snapshot *shot,
			  const struct snapshot *before)
{
	if (screen)
		return show_on_screen(ctl, screen, shot, before);
	if (ctl->json)
		return ctl_print_json(ctl, shot->answer);
	if (before)
		fputc('\n', ctl->out);
	if (snapshot_print(shot, before, SIZE_MAX, ctl->out))
		return ctl_fail(ctl, "no memory");
	return CTL_OK;
}

/* Waits for the next turn; false: quit. */
static bool turn_wait(struct ctl *ctl, struct screen *screen, uint64_t due_ms,
		      const struct snapshot *shot,
		      const struct snapshot *before)
{
	enum screen_event event = SCREEN_REDRAW;
	uint64_t now;

	while (screen && event == SCREEN_REDRAW) {
		event = screen_wait(screen, due_ms);
		if (event == SCREEN_REDRAW &&
		    show_on_screen(ctl, screen, shot, before))
			return false;
	}
	if (screen)
		return event == SCREEN_TIMEOUT;
	while ((now = clock_ms()) < due_ms)
		poll(NULL, 0, (int)(due_ms - now));
	return true;
}

static enum ctl_exit top_loop(struct ctl *ctl, struct screen *screen)
{
	struct snapshot *shot = NULL, *before = NULL;
	uint64_t due_ms = clock_ms();
	enum ctl_exit code = CTL_OK;

	for (unsigned long turn = 1;; turn++) {
		snapshot_free(before);
		before = shot;
		shot = NULL;
		code = snapshot_take(ctl, before, &shot);
		if (!code)
			code = show(ctl, screen, shot, before);
		if (code || turn == ctl->count)
			break;
		if (!screen && fflush(ctl->out))
			break; /* ctl_run() complains */
		due_ms += ctl->interval_ms;
		if (due_ms < clock_ms())
			due_ms = clock_ms();
		if (!turn_wait(ctl, screen, due_ms, shot, before))
			break;
	}
	snapshot_free(before);
	snapshot_free(shot);
	return code;
}

enum ctl_exit ctl_top(struct ctl *ctl)
{
	struct screen *screen = NULL;
	char *message = NULL;
	size_t len = 0;
	FILE *err = ctl->err;
	enum ctl_exit code;
	int opened = -ENOTTY;

	if (!ctl->limit)
		ctl->limit = ROWS_DEFAULT;
	if (!ctl->json)
		opened = screen_open(ctl->out, &screen);
	if (opened && opened != -ENOTTY)
		return ctl_fail(ctl, "the terminal: %s", strerror(-opened));
	/* A complaint on the screen that is left would be lost. */
	if (screen)
		ctl->err = open_memstream(&message, &len);
	if (!ctl->err)
		ctl->err = err;
	code = top_loop(ctl, screen);
	screen_close(screen);
	if (ctl->err != err) {
		fclose(ctl->err);
		ctl->err = err;
		fputs(message, err);
		free(message);
	}
	return code;
}
