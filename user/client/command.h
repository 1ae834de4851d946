/* SPDX-License-Identifier: BSD-2-Clause */
/* The subcommands of `culvert` and what the command line told them. */
#ifndef CLIENT_COMMAND_H
#define CLIENT_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include "culvert/client.h"

/* Exit codes of `culvert`. */
enum client_exit {
	CLIENT_EXIT_OK,
	CLIENT_EXIT_FAILURE,
	CLIENT_EXIT_USAGE,
};

/* The command line, read. Texts point into argv, the environment or here. */
struct client_config {
	const struct client_command *command;
	const char *server, *user;
	char password[CULVERT_USER_MAX + 2]; /* "" when has_password is not */
	bool has_password;
	int family; /* of the server: AF_INET, AF_INET6, AF_UNSPEC */
	bool verbose, quiet, json, help, version;
	bool tls, tls_unverified;
	const char *tls_authorities, *tls_name;
	const char *engine; /* NULL: the default order */
	const char *allow, *peer, *password_file;
	unsigned int warm; /* idle allocations kept ready */
	unsigned int connections; /* at a time */
	unsigned int lifetime_s; /* 0: the server's default */
	unsigned int timeout_s; /* for dialling and for answers */
	char **operand;
	size_t operands;
};

/* Bits of who takes an option. */
enum client_command_bit {
	CLIENT_FORWARD = 1,
	CLIENT_LISTEN = 2,
	CLIENT_SEND = 4,
	CLIENT_RECEIVE = 8,
	CLIENT_CHECK = 16,
	CLIENT_ALL = 31,
};

struct client_command {
	const char *name, *synopsis, *summary;
	enum client_command_bit bit;
	size_t operands_min, operands_max;
	enum client_exit (*run)(const struct client_config *config);
};

extern const struct client_command client_commands[]; /* name NULL ends */

enum client_exit client_cmd_forward(const struct client_config *config);
enum client_exit client_cmd_listen(const struct client_config *config);
enum client_exit client_cmd_send(const struct client_config *config);
enum client_exit client_cmd_receive(const struct client_config *config);
enum client_exit client_cmd_check(const struct client_config *config);

/*
 * Reads the command line: 0, or -EINVAL after saying what is wrong. The password
 * is taken from the option, the file or CULVERT_PASSWORD, and removed from where
 * ps(1) would show it.
 */
int client_config_read(struct client_config *config, int argc, char **argv);

/* Prints the help of one command, or of all with NULL, on standard output. */
void client_help_print(const struct client_command *command);

#endif
