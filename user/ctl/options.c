/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line: one table of options, from which --help is printed too. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"

struct option_info {
	char letter; /* 0: none */
	const char *name, *value;
	const char *commands; /* space around each; NULL: all of them */
	const char *help;
	const char *allowed; /* which values; NULL: any but none */
};

/* Long options without a letter are told by this plus their index. */
#define OPTION_BASE 256

enum option_index {
	OPTION_SOCKET,
	OPTION_JSON,
	OPTION_LIMIT,
	OPTION_WORKERS,
	OPTION_UNDO,
	OPTION_COUNT,
	OPTION_INTERVAL,
	OPTION_PIN,
	OPTION_CONFIG,
	OPTION_REALM,
	OPTION_HELP,
	OPTION_VERSION,
	OPTIONS,
};

static const struct option_info options[OPTIONS] = {
	[OPTION_SOCKET] = { 's', "socket", "PATH", NULL,
			    "control socket; else $CULVERT_CONTROL, else\n" CTL_SOCKET,
			    NULL },
	[OPTION_JSON] = { 'j', "json", NULL, NULL,
			  "print the answer as JSON, one object a line", NULL },
	[OPTION_LIMIT] = { 'l', "limit", "N",
			   " allocations connections user list  top ",
			   "lists, top: at most N rows (1000; top 10000)",
			   "1 to 100000" },
	[OPTION_WORKERS] = { 'w', "workers", NULL, " status ",
			     "status: each worker's counters, too", NULL },
	[OPTION_UNDO] = { 'u', "undo", NULL, " drain ",
			  "drain: take new allocations again", NULL },
	[OPTION_COUNT] = { 'n', "count", "N", " top ",
			   "top: end after N refreshes", "1 to 1000000000" },
	[OPTION_INTERVAL] = { 'i', "interval", "SECONDS", " top ",
			      "top: time between refreshes (1)",
			      "seconds, 0.1 to 3600" },
	[OPTION_PIN] = { 'p', "pin", "DIR", " flush ",
			 "flush: [engine] pin; else " CTL_PIN,
			 "an absolute path" },
	[OPTION_CONFIG] = { 'c', "config", "FILE",
			    " user add  user list  user remove  exits  exits plan  exits trace  exits check ",
			    "user, exits: culvertd's configuration; else\n" CTL_CONF,
			    NULL },
	[OPTION_REALM] = { 'r', "realm", "REALM",
			   " user add  user list  user remove ",
			   "user: of this realm; else the first one", NULL },
	[OPTION_HELP] = { 'h', "help", NULL, NULL, "print this", NULL },
	[OPTION_VERSION] = { 'V', "version", NULL, NULL, "print the version",
			     NULL },
};

/* The columns that the longest command takes with its argument. */
static int commands_width(void)
{
	size_t most = 0;

	for (size_t i = 0; i < ctl_command_count; i++) {
		const struct ctl_command *c = &ctl_commands[i];
		size_t len = strlen(c->name) + 1 +
			     (c->argument ? strlen(c->argument) : 0);

		most = len > most ? len : most;
	}
	return (int)most;
}

static void usage_print(FILE *out)
{
	int width = commands_width();

	fprintf(out, "Usage: culvertctl [OPTION]... COMMAND\n\n"
		     "Looks into a running culvertd and steers it.\n\n"
		     "Commands:\n");
	for (size_t i = 0; i < ctl_command_count; i++) {
		const struct ctl_command *c = &ctl_commands[i];

		fprintf(out, "  %s %-*s %s\n", c->name,
			width - 1 - (int)strlen(c->name),
			c->argument ? c->argument : "", c->help);
	}
	fprintf(out, "\nOptions:\n");
	for (size_t i = 0; i < OPTIONS; i++) {
		const struct option_info *o = &options[i];
		const char *end = strchr(o->help, '\n');
		int first = end ? (int)(end - o->help) : (int)strlen(o->help);
		char left[40];

		snprintf(left, sizeof(left), "-%c, --%s%s%s", o->letter,
			 o->name, o->value ? " " : "",
			 o->value ? o->value : "");
		fprintf(out, "  %-24s %.*s\n", left, first, o->help);
		if (end)
			fprintf(out, "  %-24s %s\n", "", end + 1);
	}
	fprintf(out, "\nExit codes: 0 done, 1 refused or failed, 2 wrong "
		     "usage. See culvertctl(8).\n");
}

static void usage_fail(struct ctl *ctl, enum ctl_exit *code,
		       const char *message, const char *what)
{
	fprintf(ctl->err, "culvertctl: %s%s%s%s; see culvertctl --help\n",
		message, what ? " \"" : "", what ? what : "", what ? "\"" : "");
	*code = CTL_USAGE;
}

static bool whole_number(const char *text, unsigned long max,
			 unsigned long *out)
{
	char *end;
	unsigned long n;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	n = strtoul(text, &end, 10);
	if (errno || *end || n < 1 || n > max)
		return false;
	*out = n;
	return true;
}

static bool option_take(struct ctl *ctl, enum option_index index,
			const char *value)
{
	unsigned long n;
	double seconds;
	char *end;

	switch (index) {
	case OPTION_SOCKET:
		ctl->path = value;
		return *value != '\0';
	case OPTION_JSON:
		ctl->json = true;
		return true;
	case OPTION_WORKERS:
		ctl->workers = true;
		return true;
	case OPTION_UNDO:
		ctl->undo = true;
		return true;
	case OPTION_LIMIT:
		if (!whole_number(value, CONTROL_LIMIT_MAX, &n))
			return false;
		ctl->limit = n;
		return true;
	case OPTION_PIN:
		ctl->pin = value;
		return *value == '/';
	case OPTION_COUNT:
		return whole_number(value, 1000000000, &ctl->count);
	case OPTION_INTERVAL:
		seconds = strtod(value, &end);
		if (end == value || *end || !(seconds >= 0.1) || seconds > 3600)
			return false;
		ctl->interval_ms = (unsigned int)(seconds * 1000);
		return true;
	case OPTION_CONFIG:
		ctl->config = value;
		return *value != '\0';
	case OPTION_REALM:
		ctl->realm = value;
		return *value != '\0';
	case OPTION_HELP:
	case OPTION_VERSION:
	case OPTIONS:
		break;
	}
	return true;
}

static const struct ctl_command *command_find(const char *name)
{
	for (size_t i = 0; i < ctl_command_count; i++)
		if (!strcmp(ctl_commands[i].name, name))
			return &ctl_commands[i];
	return NULL;
}

/* A command's name may have two words; *used tells. */
static const struct ctl_command *words_find(int count, char **words, int *used)
{
	const struct ctl_command *found = NULL;
	char two[32];

	if (count > 1 && snprintf(two, sizeof(two), "%s %s", words[0],
				  words[1]) < (int)sizeof(two))
		found = command_find(two);
	*used = found ? 2 : 1;
	return found ? found : command_find(words[0]);
}

/* Fills what getopt_long() wants from the table. */
static void options_translate(char letters[2 * OPTIONS + 2],
			      struct option longs[OPTIONS + 1])
{
	char *l = letters;

	*l++ = ':'; /* tell a missing value from an unknown option */
	memset(longs, 0, sizeof(*longs) * (OPTIONS + 1));
	for (int i = 0; i < OPTIONS; i++) {
		*l++ = options[i].letter;
		if (options[i].value)
			*l++ = ':';
		longs[i].name = options[i].name;
		longs[i].has_arg = options[i].value ? required_argument :
						      no_argument;
		longs[i].val = OPTION_BASE + i;
	}
	*l = '\0';
}

static int option_index(int c)
{
	if (c >= OPTION_BASE)
		return c - OPTION_BASE;
	for (int i = 0; i < OPTIONS; i++)
		if (options[i].letter == c)
			return i;
	return -1;
}

/* Is each option given one of this command's? */
static bool options_fit(struct ctl *ctl, unsigned int given,
			enum ctl_exit *code)
{
	char name[32];

	snprintf(name, sizeof(name), " %s ", ctl->command->name);
	for (int i = 0; i < OPTIONS; i++) {
		if (!(given >> i & 1) || !options[i].commands ||
		    strstr(options[i].commands, name))
			continue;
		fprintf(ctl->err,
			"culvertctl: --%s is not for the command \"%s\"; see "
			"culvertctl --help\n",
			options[i].name, ctl->command->name);
		*code = CTL_USAGE;
		return false;
	}
	return true;
}

/* As many as its argument has words. */
static int arguments_wanted(const struct ctl_command *command)
{
	if (!command->argument)
		return 0;
	return strchr(command->argument, ' ') ? 2 : 1;
}

/* Is this the first of a command's two words? */
static bool word_first(const char *word)
{
	size_t len = strlen(word);

	for (size_t i = 0; i < ctl_command_count; i++)
		if (!strncmp(ctl_commands[i].name, word, len) &&
		    ctl_commands[i].name[len] == ' ')
			return true;
	return false;
}

/* What may stand for these words: all commands that begin with the first. */
static void words_unknown(struct ctl *ctl, int count, char **words,
			  enum ctl_exit *code)
{
	size_t len = strlen(words[0]);
	const char *before = "";

	*code = CTL_USAGE;
	fprintf(ctl->err, "culvertctl: unknown command \"%s%s%s\"; ", words[0],
		count > 1 ? " " : "", count > 1 ? words[1] : "");
	for (size_t i = 0; i < ctl_command_count; i++) {
		const char *name = ctl_commands[i].name;

		if (strncmp(name, words[0], len) != 0 ||
		    (name[len] && name[len] != ' '))
			continue;
		fprintf(ctl->err, "%s%s", *before ? before : "there is ", name);
		before = ", ";
	}
	fputs("; see culvertctl --help\n", ctl->err);
}

static bool words_take(struct ctl *ctl, int count, char **words,
		       enum ctl_exit *code)
{
	int used, wanted;

	if (!count) {
		usage_fail(ctl, code, "a command is missing", NULL);
		return false;
	}
	ctl->command = words_find(count, words, &used);
	if (word_first(words[0]) &&
	    (!ctl->command || (used == 1 && count > 1))) {
		words_unknown(ctl, count, words, code);
		return false;
	}
	if (!ctl->command) {
		usage_fail(ctl, code, "unknown command", words[0]);
		return false;
	}
	words += used;
	count -= used;
	wanted = arguments_wanted(ctl->command);
	if (count < wanted) {
		fprintf(ctl->err,
			"culvertctl: the command %s needs %s; see culvertctl "
			"--help\n",
			ctl->command->name, ctl->command->argument);
		*code = CTL_USAGE;
		return false;
	}
	if (count > wanted) {
		usage_fail(ctl, code, "one word too many:", words[wanted]);
		return false;
	}
	ctl->id = wanted > 0 ? words[0] : NULL;
	ctl->other = wanted > 1 ? words[1] : NULL;
	return true;
}

/* One option of getopt's. Returns false when that ends the parsing. */
static bool option_handle(struct ctl *ctl, int c, char **argv,
			  unsigned int *given, enum ctl_exit *code)
{
	int index = option_index(c);

	if (c == '?' && optopt >= OPTION_BASE) {
		usage_fail(ctl, code,
			   "this option takes no value:", argv[optind - 1]);
		return false;
	}
	if (c == ':' || index < 0) {
		usage_fail(ctl, code,
			   c == ':' ? "a value is missing for option" :
				      "unknown option",
			   argv[optind - 1]);
		return false;
	}
	*given |= 1u << index;
	*code = CTL_OK;
	if (index == OPTION_HELP) {
		usage_print(ctl->out);
		return false;
	}
	if (index == OPTION_VERSION) {
		fprintf(ctl->out, "culvertctl %s\n", CULVERT_VERSION);
		return false;
	}
	if (option_take(ctl, (enum option_index)index, optarg))
		return true;
	fprintf(ctl->err,
		"culvertctl: --%s does not take \"%s\"; allowed: %s; see "
		"culvertctl --help\n",
		options[index].name, optarg,
		options[index].allowed ? options[index].allowed :
					 "what is not empty");
	*code = CTL_USAGE;
	return false;
}

bool ctl_options_parse(struct ctl *ctl, int argc, char **argv,
		       enum ctl_exit *code)
{
	char letters[2 * OPTIONS + 2];
	struct option longs[OPTIONS + 1];
	const char *path = getenv("CULVERT_CONTROL");
	unsigned int given = 0;
	int c;

	ctl->path = path && *path ? path : CTL_SOCKET;
	ctl->interval_ms = 1000;
	ctl->config = CTL_CONF;
	options_translate(letters, longs);
	opterr = 0;
	optind = 0; /* begin anew, also in a second run of one process */
	while ((c = getopt_long(argc, argv, letters, longs, NULL)) != -1)
		if (!option_handle(ctl, c, argv, &given, code))
			return false;
	return words_take(ctl, argc - optind, argv + optind, code) &&
	       options_fit(ctl, given, code);
}
