/* SPDX-License-Identifier: BSD-2-Clause */
/* culvertctl: asks a running culvertd, and shows its answers. */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "control/client.h"

#define CTL_TIMEOUT_MS 10000
#define CTL_SOCKET     "/run/culvert/control.sock" /* as in culvert.conf(5) */
#define CTL_CONF       "/etc/culvert/culvert.conf" /* as in culvertd(8) */
#define CTL_PIN        "/sys/fs/bpf/culvert" /* likewise */

enum ctl_exit {
	CTL_OK = 0,
	CTL_FAILED = 1, /* refused, not reachable, or not printable */
	CTL_USAGE = 2,
};

struct ctl_command;
struct conf;

/* One invocation: what the command line said, and where output goes. */
struct ctl {
	FILE *out, *err;
	const struct ctl_command *command;
	const char *path; /* of the socket */
	const char *id; /* kick; user add, remove: the name */
	const char *other; /* exits trace: where to, with id where from */
	const char *config, *realm; /* user; config: exits, too */
	const char *pin; /* flush */
	bool json, workers, undo;
	size_t limit; /* rows; 0: the command's own default */
	unsigned long count; /* snapshots of top; 0: no end */
	unsigned int interval_ms; /* between them */
	struct control_client *client;
};

struct ctl_command {
	const char *name, *argument; /* NULL: takes none; of one word or two */
	enum ctl_exit (*run)(struct ctl *ctl);
	const char *help;
	bool alone; /* asks no daemon */
};

extern const struct ctl_command ctl_commands[];
extern const size_t ctl_command_count;

/* Runs one command line, as main() would get it. */
enum ctl_exit ctl_run(int argc, char **argv, FILE *out, FILE *err);

/*
 * Reads the command line into *ctl. Returns true to go on; false when it is
 * dealt with, --help for one, and *code is the exit code.
 */
bool ctl_options_parse(struct ctl *ctl, int argc, char **argv,
		       enum ctl_exit *code);

/* Connects, or says why not and what to do. */
enum ctl_exit ctl_connect(struct ctl *ctl);

/*
 * Asks, and complains if that fails or is refused. *out is an answer that is no
 * refusal.
 */
enum ctl_exit ctl_ask(struct ctl *ctl, enum control_command command,
		      struct control_answer **out);

/* Prints {"v":1,...}: the data object on a line. */
enum ctl_exit ctl_print_json(struct ctl *ctl,
			     const struct control_answer *answer);

/* Writes "culvertctl: " and the message to ctl->err. */
void ctl_complain(struct ctl *ctl, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The same, as the exit code to return: a macro lets analyzers see it. */
#define ctl_fail(ctl, ...) (ctl_complain(ctl, __VA_ARGS__), CTL_FAILED)

enum ctl_exit ctl_top(struct ctl *ctl);
enum ctl_exit ctl_flush(struct ctl *ctl);
enum ctl_exit ctl_user_add(struct ctl *ctl);
enum ctl_exit ctl_user_list(struct ctl *ctl);
enum ctl_exit ctl_user_remove(struct ctl *ctl);
enum ctl_exit ctl_exits(struct ctl *ctl);
enum ctl_exit ctl_exits_plan(struct ctl *ctl);
enum ctl_exit ctl_exits_check(struct ctl *ctl);
enum ctl_exit ctl_exits_remove(struct ctl *ctl);
enum ctl_exit ctl_exits_trace(struct ctl *ctl);

/* Loads --config; complains of its errors. 0, or a negative errno. */
int ctl_conf_load(struct ctl *ctl, struct conf **out);

#endif
