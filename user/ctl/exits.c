/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * exits: asks the kernel, not the daemon, what became of the [exit] sections: what
 * leads packets to their exit goes on without one. What was before, only a daemon knows.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "conf/conf.h"
#include "ctl/ctl.h"
#include "ctl/grid.h"
#include "exit/exit.h"

#define MAIN_TABLE 254 /* RT_TABLE_MAIN */

static const char *hint(int err)
{
	switch (err) {
	case -EPERM:
	case -EACCES:
		return "this needs root";
	default:
		return strerror(-err);
	}
}

/* What a daemon tells, if one runs. */
struct told {
	struct control_answer *answer;
	struct control_exit *rows; /* their texts are the answer's */
	size_t count;
	struct exit_notice
		notice; /* the same, as far as it bears on what is asked */
};

static int losses_take(struct told *out)
{
	struct exit_losses *losses = &out->notice.losses;
	struct control_loss *rows;
	uint64_t now = clock_ms();
	size_t count;
	int err = control_answer_losses(out->answer, &rows, &count);

	if (err)
		return err;
	losses->all = calloc(count + 1, sizeof(losses->all[0]));
	for (size_t i = 0; losses->all && i < count; i++) {
		struct exit_loss *loss = &losses->all[losses->count++];

		snprintf(loss->what, sizeof(loss->what), "%s", rows[i].what);
		loss->silent = rows[i].silent;
		loss->until_ms = now + rows[i].held_ms;
	}
	free(rows);
	return losses->all ? 0 : -ENOMEM;
}

static int counts_take(struct told *out)
{
	struct exit_notice *notice = &out->notice;

	notice->exits = calloc(out->count + 1, sizeof(notice->exits[0]));
	for (size_t i = 0; notice->exits && i < out->count; i++) {
		const struct control_exit *row = &out->rows[i];
		struct exit_history *one = &notice->exits[notice->exit_count++];

		snprintf(one->name, sizeof(one->name), "%s", row->name);
		one->index = (uint32_t)row->place;
		one->packets = row->packets;
		one->rejects = row->rejected;
		one->seen = (struct exit_counts){ row->seen_packets,
						  row->seen_rejected,
						  row->seen_dead };
	}
	return notice->exits ? 0 : -ENOMEM;
}

static void told_ask(struct ctl *ctl, const struct conf *conf, struct told *out)
{
	const struct control_request request = { .command = CONTROL_EXITS };
	const char *path = strcmp(ctl->path, CTL_SOCKET) != 0 ? ctl->path :
								conf->control;

	*out = (struct told){ .answer = NULL };
	if (control_client_new(path, &ctl->client) ||
	    control_client_ask(ctl->client, &request, CTL_TIMEOUT_MS,
			       &out->answer))
		return;
	if (control_answer_error(out->answer) ||
	    control_answer_exits(out->answer, &out->rows, &out->count) ||
	    losses_take(out) || counts_take(out))
		out->count = 0;
}

static void told_clear(struct told *told)
{
	free(told->rows);
	exit_notice_clear(&told->notice);
	control_answer_free(told->answer);
}

/* NULL: nothing is known. */
static const struct control_exit *told_find(const struct told *told,
					    const char *name)
{
	for (size_t i = 0; i < told->count; i++)
		if (!strcmp(told->rows[i].name, name))
			return &told->rows[i];
	return NULL;
}

struct row_grid {
	struct grid *grid;
	const struct told *told;
};

static void change_cell(struct grid *grid, const struct control_exit *told)
{
	char ago[HUMAN_LEN];

	if (told && *told->was)
		grid_cell(grid, "%s to %s, %s ago", told->was, told->state,
			  human_duration(told->since_ms, ago));
	else
		grid_cell(grid, "%s", told ? "none" : "not known");
}

static void state_cell(struct grid *grid, const struct exit_row *row)
{
	char text[HUMAN_LEN];

	if (row->held_ms)
		grid_cell(grid, "%s for %s", row->state,
			  human_duration(row->held_ms, text));
	else
		grid_cell(grid, "%s", row->state);
}

static void row_cells(void *arg, const struct exit_row *row)
{
	const struct row_grid *rows = arg;
	struct grid *grid = rows->grid;
	const struct conf_exit *exit = row->exit;

	grid_cell(grid, "%s", exit->name);
	grid_cell(grid, "%s", exit->link ? exit->link : "");
	state_cell(grid, row);
	grid_cell(grid, "%zu", exit->prefix_count);
	grid_cell(grid, "%s", row->by);
	grid_cell(grid, "%s",
		  !row->guarded   ? "no" :
		  exit->unchecked ? "counts only" :
				    "yes");
	if (row->guarded)
		grid_cell(grid, "%" PRIu64, row->packets);
	else
		grid_cell(grid, "%s", "");
	grid_cell(grid, "%" PRIu64, row->rejects);
	change_cell(grid, told_find(rows->told, exit->name));
}

static void learnt_cells(void *arg, const struct exit_learnt *learnt)
{
	struct grid *grid = arg;
	char text[ADDR_STRLEN];

	grid_cell(grid, "%s", addr_format_host(&learnt->from, text));
	grid_cell(grid, "%s", addr_format_host(&learnt->to, text));
	grid_cell(grid, "%s", addr_format_host(&learnt->anycast, text));
	grid_cell(grid, "%" PRIu32, learnt->expires_s);
}

/* What this host has learnt, if it learns. */
static int learnt_show(FILE *out, const struct exit_tunnels *tunnels)
{
	static const char *const titles[] = { "SOURCE", "DESTINATION", "BY",
					      ">SECONDS", NULL };
	struct grid grid;
	int err;

	if (!tunnels->heard && !tunnels->forged)
		return 0;
	fprintf(out,
		"told of another exit: %" PRIu64 " times, forged: %" PRIu64
		"\n",
		tunnels->heard, tunnels->forged);
	grid_init(&grid, titles, 4);
	err = exit_learnt_each(learnt_cells, &grid);
	if (!err)
		err = grid_print(&grid, out);
	grid_free(&grid);
	return err;
}

static enum ctl_exit rows_show(struct ctl *ctl, const struct conf *conf,
			       const struct told *told)
{
	static const char *const titles[] = {
		"EXIT",    "LINK",     "STATE",     ">PREFIXES",   "BY",
		"GUARDED", ">PACKETS", ">REJECTED", "LAST CHANGE", NULL
	};
	struct exit_tunnels tunnels = { 0 };
	struct grid grid;
	const struct row_grid rows = { &grid, told };
	int err;

	grid_init(&grid, titles, 9);
	err = exit_each(conf, &told->notice, row_cells, (void *)&rows);
	if (!err)
		err = grid_print(&grid, ctl->out);
	if (!err)
		err = exit_tunnels(&tunnels);
	if (!err && tunnels.refused)
		fprintf(ctl->out, "tunnelled packets refused: %" PRIu64 "\n",
			tunnels.refused);
	if (!err && tunnels.told)
		fprintf(ctl->out, "hosts told of another exit: %" PRIu64 "\n",
			tunnels.told);
	if (!err)
		err = learnt_show(ctl->out, &tunnels);
	grid_free(&grid);
	return err ? ctl_fail(ctl, "cannot look at the exits: %s", hint(err)) :
		     CTL_OK;
}

struct json_rows {
	FILE *out;
	const char *separator;
	const struct told *told; /* NULL: of no matter */
};

/* Members that are there if a daemon has told them. */
static void change_json(FILE *out, const struct control_exit *told)
{
	if (!told)
		return;
	fprintf(out,
		",\"was\":\"%s\",\"since_ms\":%" PRIu64 ",\"changes\":%" PRIu64,
		told->was, told->since_ms, told->changes);
}

static void row_json(void *arg, const struct exit_row *row)
{
	struct json_rows *rows = arg;

	fprintf(rows->out, "%s{\"name\":", rows->separator);
	control_json_text(rows->out, row->exit->name);
	fputs(",\"link\":", rows->out);
	control_json_text(rows->out, row->exit->link ? row->exit->link : "");
	fprintf(rows->out,
		",\"state\":\"%s\",\"held_ms\":%" PRIu64
		",\"prefixes\":%zu,\"by\":\"%s\","
		"\"guarded\":%s,"
		"\"packets\":%" PRIu64 ",\"rejected\":%" PRIu64,
		row->state, row->held_ms, row->exit->prefix_count, row->by,
		row->guarded ? "true" : "false", row->packets, row->rejects);
	change_json(rows->out, told_find(rows->told, row->exit->name));
	fputs("}", rows->out);
	rows->separator = ",";
}

static void learnt_json(void *arg, const struct exit_learnt *learnt)
{
	struct json_rows *rows = arg;
	char from[ADDR_STRLEN], to[ADDR_STRLEN], by[ADDR_STRLEN];

	fprintf(rows->out,
		"%s{\"source\":\"%s\",\"destination\":\"%s\",\"by\":\"%s\","
		"\"expires_s\":%" PRIu32 "}",
		rows->separator, addr_format_host(&learnt->from, from),
		addr_format_host(&learnt->to, to),
		addr_format_host(&learnt->anycast, by), learnt->expires_s);
	rows->separator = ",";
}

static enum ctl_exit rows_json(struct ctl *ctl, const struct conf *conf,
			       const struct told *told)
{
	struct json_rows rows = { ctl->out, "", told };
	struct json_rows learnt = { ctl->out, "", NULL };
	struct exit_tunnels tunnels = { 0 };
	int err;

	fputs("{\"v\":1,\"exits\":[", ctl->out);
	err = exit_each(conf, &told->notice, row_json, &rows);
	if (!err)
		err = exit_tunnels(&tunnels);
	fprintf(ctl->out,
		"],\"tunnel_refused\":%" PRIu64 ",\"hosts_told\":%" PRIu64
		",\"told\":%" PRIu64 ",\"forged\":%" PRIu64 ",\"learnt\":[",
		tunnels.refused, tunnels.told, tunnels.heard, tunnels.forged);
	if (!err)
		err = exit_learnt_each(learnt_json, &learnt);
	fputs("]}\n", ctl->out);
	return err ? ctl_fail(ctl, "cannot look at the exits: %s", hint(err)) :
		     CTL_OK;
}

/* The lines of a plan are for people; JSON has their number. */
static enum ctl_exit changes_tell(struct ctl *ctl, const char *what,
				  size_t changes)
{
	if (ctl->json)
		fprintf(ctl->out, "{\"v\":1,\"%s\":%zu}\n", what, changes);
	else if (!changes)
		fprintf(ctl->out, "nothing to be %s\n", what);
	return CTL_OK;
}

enum ctl_exit ctl_exits(struct ctl *ctl)
{
	struct conf *conf;
	struct told told;
	enum ctl_exit code;

	if (ctl_conf_load(ctl, &conf))
		return CTL_FAILED;
	told_ask(ctl, conf, &told);
	code = (ctl->json ? rows_json : rows_show)(ctl, conf, &told);
	told_clear(&told);
	conf_unref(conf);
	return code;
}

enum ctl_exit ctl_exits_plan(struct ctl *ctl)
{
	struct conf *conf;
	struct told told;
	size_t changes;
	int err;

	if (ctl_conf_load(ctl, &conf))
		return CTL_FAILED;
	told_ask(ctl, conf, &told);
	err = exit_plan(conf, &told.notice.losses, ctl->json ? NULL : ctl->out,
			&changes);
	told_clear(&told);
	conf_unref(conf);
	if (err)
		return ctl_fail(ctl, "cannot plan: %s", hint(err));
	return changes_tell(ctl, "changed", changes);
}

static const char *trace_reason(const struct exit_trace *trace)
{
	if (trace->guard)
		return trace->table == MAIN_TABLE ? "as the main table says" :
						    "as its source says";
	return trace->exit && addr_family(&trace->gateway) == AF_UNSPEC ?
		       "on a link of the site" :
		       "within the site, or by another router";
}

static void dead_show(FILE *out, const struct exit_trace *trace)
{
	char text[HUMAN_LEN];

	if (!trace->exit || !trace->dead)
		return;
	fprintf(out, "exit %s is dead for it now%s%s", trace->exit->name,
		trace->why ? ": " : "", trace->why ? trace->why : "");
	if (trace->held_ms)
		fprintf(out, " for %s", human_duration(trace->held_ms, text));
	fputs("\n", out);
}

static void trace_show(FILE *out, const struct exit_trace *trace)
{
	char from[ADDR_STRLEN], prefix[ADDR_STRLEN], hop[ADDR_STRLEN];
	char anycast[ADDR_STRLEN];
	bool via = addr_family(&trace->gateway) != AF_UNSPEC;

	addr_format_host(&trace->from, from);
	if (trace->exit)
		fprintf(out, "%s belongs to exit %s, by %s\n", from,
			trace->exit->name,
			prefix_format(&trace->prefix, prefix));
	else
		fprintf(out, "%s belongs to no exit\n", from);
	dead_show(out, trace);
	if (trace->no_way_back)
		fprintf(out, "there is no route back to %s\n", from);
	if (trace->dropped) {
		fprintf(out, "dropped: so the kernel takes nothing from there "
			     "(rp_filter)\n");
		return;
	}
	if (trace->unreachable) {
		fprintf(out, "unreachable: there is no way for it now\n");
		return;
	}
	if (addr_family(&trace->anycast) != AF_UNSPEC)
		fprintf(out, "tunnelled to %s\n",
			addr_format_host(&trace->anycast, anycast));
	fprintf(out, "goes %s%s%sby %s, table %u: %s\n", via ? "via " : "",
		via ? addr_format_host(&trace->gateway, hop) : "",
		via ? " " : "", trace->device, trace->table,
		trace_reason(trace));
	if (trace->guard)
		fprintf(out, "the guard of %s %s\n", trace->guard->name,
			trace->rejected ? "rejects it" : "lets it pass");
}

static void trace_json(FILE *out, const struct exit_trace *trace)
{
	char hop[ADDR_STRLEN] = "", anycast[ADDR_STRLEN] = "";

	if (addr_family(&trace->anycast) != AF_UNSPEC)
		addr_format_host(&trace->anycast, anycast);
	if (addr_family(&trace->gateway) != AF_UNSPEC)
		addr_format_host(&trace->gateway, hop);
	fputs("{\"v\":1,\"exit\":", out);
	control_json_text(out, trace->exit ? trace->exit->name : "");
	fputs(",\"device\":", out);
	control_json_text(out, trace->device);
	fprintf(out,
		",\"gateway\":\"%s\",\"anycast\":\"%s\",\"table\":%u,"
		"\"dead\":%s,\"why\":\"%s\",\"held_ms\":%" PRIu64
		",\"no_way_back\":%s,\"dropped\":%s"
		",\"unreachable\":%s,\"rejected\":%s}\n",
		hop, anycast, trace->table, trace->dead ? "true" : "false",
		trace->why ? trace->why : "", trace->held_ms,
		trace->no_way_back ? "true" : "false",
		trace->dropped ? "true" : "false",
		trace->unreachable ? "true" : "false",
		trace->rejected ? "true" : "false");
}

static enum ctl_exit trace_ends(struct ctl *ctl, union addr *from,
				union addr *to)
{
	if (addr_parse(ctl->id, 0, from))
		return ctl_fail(ctl, "the source \"%.60s\" is no IP address",
				ctl->id);
	if (addr_parse(ctl->other, 0, to))
		return ctl_fail(ctl,
				"the destination \"%.60s\" is no IP address",
				ctl->other);
	if (addr_family(from) != addr_family(to))
		return ctl_fail(ctl,
				"%s and %s are of two families: a packet has "
				"both of IPv4 or both of IPv6",
				ctl->id, ctl->other);
	return CTL_OK;
}

enum ctl_exit ctl_exits_trace(struct ctl *ctl)
{
	struct exit_trace trace;
	union addr from, to;
	struct conf *conf;
	struct told told;
	int err;

	if (trace_ends(ctl, &from, &to) || ctl_conf_load(ctl, &conf))
		return CTL_FAILED;
	told_ask(ctl, conf, &told);
	err = exit_trace(conf, &told.notice.losses, &from, &to, &trace);
	if (!err)
		(ctl->json ? trace_json : trace_show)(ctl->out, &trace);
	told_clear(&told);
	conf_unref(conf);
	return err ? ctl_fail(ctl, "cannot trace: %s", hint(err)) : CTL_OK;
}

struct findings {
	struct ctl *ctl;
	const char *separator;
	size_t wrong, all;
};

static void finding_show(void *arg, const struct exit_finding *finding)
{
	struct findings *findings = arg;

	findings->all++;
	findings->wrong += finding->wrong;
	fprintf(findings->ctl->out, "%s: %s: %s; %s\n",
		finding->wrong ? "wrong" : "look", finding->where,
		finding->what, finding->hint);
}

static void finding_json(void *arg, const struct exit_finding *finding)
{
	struct findings *findings = arg;
	FILE *out = findings->ctl->out;

	findings->wrong += finding->wrong;
	fprintf(out, "%s{\"name\":\"%s\",\"wrong\":%s,\"where\":",
		findings->separator, finding->name,
		finding->wrong ? "true" : "false");
	control_json_text(out, finding->where);
	fputs(",\"what\":", out);
	control_json_text(out, finding->what);
	fputs(",\"hint\":", out);
	control_json_text(out, finding->hint);
	fputs("}", out);
	findings->separator = ",";
}

enum ctl_exit ctl_exits_check(struct ctl *ctl)
{
	struct findings findings = { .ctl = ctl, .separator = "" };
	struct conf *conf;
	int err;

	if (ctl_conf_load(ctl, &conf))
		return CTL_FAILED;
	if (ctl->json)
		fputs("{\"v\":1,\"findings\":[", ctl->out);
	err = exit_check(conf, ctl->json ? finding_json : finding_show,
			 &findings);
	if (ctl->json)
		fputs("]}\n", ctl->out);
	else if (!err && !findings.all)
		fputs("nothing found\n", ctl->out);
	conf_unref(conf);
	if (err)
		return ctl_fail(ctl, "cannot look at everything: %s",
				hint(err));
	return findings.wrong ? CTL_FAILED : CTL_OK;
}

enum ctl_exit ctl_exits_remove(struct ctl *ctl)
{
	size_t changes;
	pid_t holder = -1;
	int err = exit_remove(ctl->json ? NULL : ctl->out, &changes, &holder);

	if (err == -EBUSY && holder >= 0)
		return ctl_fail(ctl,
				"cannot remove the exits: a culvertd (its "
				"process %d) keeps them in this network "
				"namespace: stop it first",
				(int)holder);
	if (err)
		return ctl_fail(ctl, "cannot remove the exits: %s", hint(err));
	return changes_tell(ctl, "removed", changes);
}
