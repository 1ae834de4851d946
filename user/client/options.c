/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line of `culvert`: one table for parsing, checking and help. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/opaque.h"
#include "base/secret.h"
#include "client/command.h"
#include "client/say.h"

#define OPTIONS_MAX         32
#define WARM_DEFAULT        4
#define CONNECTIONS_DEFAULT 1024
#define TIMEOUT_DEFAULT_S   15

enum option_kind {
	OPTION_FLAG, /* bool */
	OPTION_TEXT, /* const char * */
	OPTION_NUMBER, /* unsigned int, within min and max */
	OPTION_FAMILY, /* int, set to min */
	OPTION_PASSWORD, /* copied, and overwritten in argv */
};

struct option_spec {
	const char *name; /* long; NULL: only short */
	char letter; /* 0: only long */
	enum option_kind kind;
	size_t offset; /* in struct client_config */
	unsigned int min, max;
	unsigned int commands; /* bits */
	const char *value, *help;
};

#define AT(field) offsetof(struct client_config, field)

/* In the order of --help. */
static const struct option_spec specs[] = {
	{ "server", 's', OPTION_TEXT, AT(server), 0, 0, CLIENT_ALL,
	  "HOST[:PORT]",
	  "TURN server, or turn:HOST:PORT?transport=tcp; "
	  "else $CULVERT_SERVER" },
	{ "tls", 0, OPTION_FLAG, AT(tls), 0, 0, CLIENT_ALL, NULL,
	  "speak TLS, as for turns:HOST (port 5349)" },
	{ "ca-file", 0, OPTION_TEXT, AT(tls_authorities), 0, 0, CLIENT_ALL,
	  "FILE", "who may vouch for the server (default: the system's)" },
	{ "tls-name", 0, OPTION_TEXT, AT(tls_name), 0, 0, CLIENT_ALL, "NAME",
	  "name in the server's certificate (default: HOST)" },
	{ "no-verify", 0, OPTION_FLAG, AT(tls_unverified), 0, 0, CLIENT_ALL,
	  NULL, "take any certificate: whoever is in between reads all" },
	{ "user", 'u', OPTION_TEXT, AT(user), 0, 0, CLIENT_ALL, "USER",
	  "user name; else $CULVERT_USER" },
	{ "password", 'p', OPTION_PASSWORD, 0, 0, 0, CLIENT_ALL, "PASSWORD",
	  "password; others may see it in ps(1)" },
	{ "password-file", 0, OPTION_TEXT, AT(password_file), 0, 0, CLIENT_ALL,
	  "FILE", "password, first line of FILE; else $CULVERT_PASSWORD" },
	{ "allow", 'a', OPTION_TEXT, AT(allow), 0, 0,
	  CLIENT_LISTEN | CLIENT_RECEIVE, "IP[,IP...]",
	  "addresses that may connect (required)" },
	{ "peer", 0, OPTION_TEXT, AT(peer), 0, 0, CLIENT_SEND, "HOST:PORT",
	  "where to send to (required)" },
	{ "warm", 0, OPTION_NUMBER, AT(warm), 0, 256, CLIENT_FORWARD, "N",
	  "allocations kept ready (default 4)" },
	{ "connections", 0, OPTION_NUMBER, AT(connections), 1, 65535,
	  CLIENT_FORWARD | CLIENT_LISTEN, "N",
	  "connections at a time (default 1024)" },
	{ "engine", 0, OPTION_TEXT, AT(engine), 0, 0,
	  CLIENT_FORWARD | CLIENT_LISTEN, "NAME",
	  "splice, uring or copy carries the bytes" },
	{ "json", 0, OPTION_FLAG, AT(json), 0, 0, CLIENT_CHECK, NULL,
	  "print the result for programs" },
	{ "lifetime", 0, OPTION_NUMBER, AT(lifetime_s), 1, 86400, CLIENT_ALL,
	  "SECONDS", "lifetime to ask for (default: the server's)" },
	{ "timeout", 0, OPTION_NUMBER, AT(timeout_s), 1, 3600, CLIENT_ALL,
	  "SECONDS", "wait so long for the server (default 15)" },
	{ NULL, '4', OPTION_FAMILY, AT(family), AF_INET, 0, CLIENT_ALL, NULL,
	  "reach the server by IPv4 only" },
	{ NULL, '6', OPTION_FAMILY, AT(family), AF_INET6, 0, CLIENT_ALL, NULL,
	  "reach the server by IPv6 only" },
	{ "quiet", 'q', OPTION_FLAG, AT(quiet), 0, 0, CLIENT_ALL, NULL,
	  "errors only, no progress" },
	{ "verbose", 'v', OPTION_FLAG, AT(verbose), 0, 0, CLIENT_ALL, NULL,
	  "say what happens" },
	{ "help", 'h', OPTION_FLAG, AT(help), 0, 0, CLIENT_ALL, NULL,
	  "show this and exit" },
	{ "version", 'V', OPTION_FLAG, AT(version), 0, 0, CLIENT_ALL, NULL,
	  "show the version and exit" },
};

#define SPECS     (sizeof(specs) / sizeof(specs[0]))
#define LONG_BASE 256 /* getopt's value of specs[i] is LONG_BASE + i */

static bool takes_value(const struct option_spec *spec)
{
	switch (spec->kind) {
	case OPTION_FLAG:
	case OPTION_FAMILY:
		return false;
	case OPTION_TEXT:
	case OPTION_NUMBER:
	case OPTION_PASSWORD:
		return true;
	}
	return false;
}

static void tables_build(struct option *longs, char *shorts)
{
	size_t n = 0;

	*shorts++ = ':';
	for (size_t i = 0; i < SPECS; i++) {
		const struct option_spec *spec = &specs[i];

		if (spec->name)
			longs[n++] =
				(struct option){ spec->name,
						 takes_value(spec) ?
							 required_argument :
							 no_argument,
						 NULL, LONG_BASE + (int)i };
		if (spec->letter) {
			*shorts++ = spec->letter;
			if (takes_value(spec))
				*shorts++ = ':';
		}
	}
	longs[n] = (struct option){ 0 };
	*shorts = '\0';
}

static const struct option_spec *spec_find(int value)
{
	if (value >= LONG_BASE)
		return &specs[value - LONG_BASE];
	for (size_t i = 0; i < SPECS; i++)
		if (specs[i].letter == value)
			return &specs[i];
	return NULL;
}

static int password_set(struct client_config *config, const char *text,
			const char *from)
{
	size_t len = strlen(text);

	if (len > CULVERT_USER_MAX) {
		client_error("the password of %s is too long: at most %d bytes",
			     from, CULVERT_USER_MAX);
		return -EINVAL;
	}
	memcpy(config->password, text, len + 1);
	config->has_password = true;
	return 0;
}

static int number_set(unsigned int *out, const struct option_spec *spec,
		      const char *text)
{
	unsigned long value;
	char *end;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *text < '0' || *text > '9' || *end || value < spec->min ||
	    value > spec->max) {
		client_error("--%s %s: a number from %u to %u is wanted",
			     spec->name, text, spec->min, spec->max);
		return -EINVAL;
	}
	*out = (unsigned int)value;
	return 0;
}

static int spec_apply(struct client_config *config,
		      const struct option_spec *spec, char *text)
{
	char *field = (char *)config + spec->offset;
	int err;

	if (config->command && !(spec->commands & config->command->bit)) {
		client_error("--%s is no option of culvert %s; see culvert %s "
			     "--help",
			     spec->name, config->command->name,
			     config->command->name);
		return -EINVAL;
	}
	switch (spec->kind) {
	case OPTION_FLAG:
		*(bool *)field = true;
		return 0;
	case OPTION_FAMILY:
		*(int *)field = (int)spec->min;
		return 0;
	case OPTION_TEXT:
		*(const char **)field = text;
		return 0;
	case OPTION_NUMBER:
		return number_set((unsigned int *)field, spec, text);
	case OPTION_PASSWORD:
		err = password_set(config, text, "--password");
		memset(text, 'x', strlen(text));
		return err;
	}
	return -EINVAL;
}

/*
 * Reads options from argv[1] on: those before the first operand, which is the
 * command, or once that is known all, wherever they stand.
 */
static int options_read(struct client_config *config, int argc, char **argv)
{
	struct option longs[OPTIONS_MAX + 1];
	char shorts[OPTIONS_MAX * 2 + 3] = "+";
	int value, err;

	_Static_assert(SPECS <= OPTIONS_MAX, "room for every option");
	tables_build(longs, shorts + (config->command ? 0 : 1));
	optind = 0; /* starts anew: once for the command, once for the rest */
	opterr = 0;
	while ((value = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		if (value == ':') {
			client_error("%s wants a value; see culvert --help",
				     argv[optind - 1]);
			return -EINVAL;
		}
		if (value == '?') {
			client_error("unknown option %s; see culvert --help",
				     argv[optind - 1]);
			return -EINVAL;
		}
		err = spec_apply(config, spec_find(value), optarg);
		if (err)
			return err;
	}
	return 0;
}

static int password_file_read(struct client_config *config)
{
	char text[CULVERT_USER_MAX + 2];
	const char *path = config->password_file;
	FILE *file = fopen(path, "re");
	ssize_t len;
	int err;

	if (!file) {
		client_error("password file %s: %s", path, strerror(errno));
		return -EINVAL;
	}
	/* Unbuffered: the password is not to stay in a buffer of stdio's. */
	setvbuf(file, NULL, _IONBF, 0);
	len = secret_line_read(file, text, sizeof(text));
	fclose(file);
	if (len < 0) {
		client_error("password file %s: %s", path,
			     secret_line_error(len));
		return -EINVAL;
	}
	err = password_set(config, text, path);
	explicit_bzero(text, sizeof(text));
	return err;
}

static int password_find(struct client_config *config)
{
	char *environment = getenv("CULVERT_PASSWORD");
	int err = 0;

	if (config->has_password)
		return 0;
	if (config->password_file)
		return password_file_read(config);
	if (environment) {
		err = password_set(config, environment, "CULVERT_PASSWORD");
		explicit_bzero(environment, strlen(environment));
	}
	return err;
}

/* The library would say no more than that it is invalid. */
static int text_check(const char *what, const char *text)
{
	char *prepared;
	int err = opaque_prepare(text, &prepared);

	if (err) {
		client_error("the %s: %s", what,
			     err == -EINVAL ? "allowed is " OPAQUE_ALLOWED :
					      strerror(-err));
		return err;
	}
	explicit_bzero(prepared, strlen(prepared));
	free(prepared);
	return 0;
}

static int config_complete(struct client_config *config)
{
	const struct client_command *command = config->command;

	if (!config->server)
		config->server = getenv("CULVERT_SERVER");
	if (!config->user)
		config->user = getenv("CULVERT_USER");
	if (!config->server) {
		client_error("no server: give -s HOST[:PORT]");
		return -EINVAL;
	}
	if (password_find(config))
		return -EINVAL;
	if (config->user && !config->has_password) {
		client_error("no password for user %s: give --password-file, "
			     "CULVERT_PASSWORD or -p",
			     config->user);
		return -EINVAL;
	}
	if (config->user && (text_check("user name", config->user) ||
			     text_check("password", config->password)))
		return -EINVAL;
	if ((command->bit & (CLIENT_LISTEN | CLIENT_RECEIVE)) &&
	    !config->allow) {
		client_error("nobody may connect: give --allow IP[,IP...], the "
			     "addresses of the peers");
		return -EINVAL;
	}
	if (command->bit == CLIENT_SEND && !config->peer) {
		client_error("no receiver: give --peer HOST:PORT");
		return -EINVAL;
	}
	return 0;
}

static const struct client_command *command_find(const char *name)
{
	const struct client_command *command = client_commands;

	for (; command->name; command++)
		if (!strcmp(command->name, name))
			return command;
	client_error("unknown command %s; see culvert --help", name);
	return NULL;
}

int client_config_read(struct client_config *config, int argc, char **argv)
{
	size_t operands;

	*config = (struct client_config){
		.warm = WARM_DEFAULT,
		.connections = CONNECTIONS_DEFAULT,
		.timeout_s = TIMEOUT_DEFAULT_S,
	};
	if (options_read(config, argc, argv))
		return -EINVAL;
	if (config->help || config->version)
		return 0;
	if (optind >= argc) {
		client_error("no command; see culvert --help");
		return -EINVAL;
	}
	config->command = command_find(argv[optind]);
	if (!config->command)
		return -EINVAL;
	argc -= optind;
	argv += optind;
	if (options_read(config, argc, argv))
		return -EINVAL;
	if (config->help || config->version)
		return 0;
	config->operand = argv + optind;
	operands = config->operands = (size_t)(argc - optind);
	if (operands < config->command->operands_min ||
	    operands > config->command->operands_max) {
		client_error("usage: culvert %s %s", config->command->name,
			     config->command->synopsis);
		return -EINVAL;
	}
	return config_complete(config);
}

static void spec_print(const struct option_spec *spec)
{
	char left[64];
	int at = 0;

	if (spec->letter)
		at = snprintf(left, sizeof(left), "-%c%s", spec->letter,
			      spec->name ? ", " : "");
	if (spec->name)
		at += snprintf(left + at, sizeof(left) - (size_t)at, "--%s",
			       spec->name);
	snprintf(left + at, sizeof(left) - (size_t)at, "%s%s",
		 spec->value ? " " : "", spec->value ? spec->value : "");
	printf("  %-26s %s%s\n", left, strlen(left) > 26 ? "\n" : "",
	       spec->help);
}

void client_help_print(const struct client_command *command)
{
	const struct client_command *each = client_commands;

	if (command)
		printf("usage: culvert %s %s\n\n%s.\n\n", command->name,
		       command->synopsis, command->summary);
	else
		printf("usage: culvert COMMAND [OPTIONS] ...\n\n"
		       "TCP connections through a TURN server (RFC 6062).\n\n");
	for (; !command && each->name; each++)
		printf("  %-8s %s\n           %s\n", each->name, each->synopsis,
		       each->summary);
	printf("%sOptions:\n", command ? "" : "\n");
	for (size_t i = 0; i < SPECS; i++)
		if (!command || specs[i].commands & command->bit)
			spec_print(&specs[i]);
	printf("\nExit status: 0 success, 1 failure, 2 wrong usage. "
	       "See culvert(1).\n");
}
