/* SPDX-License-Identifier: BSD-2-Clause */
/* culvert: the client command. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "client/command.h"
#include "client/say.h"

int main(int argc, char **argv)
{
	struct client_config config;
	enum client_exit result;

	signal(SIGPIPE, SIG_IGN);
	if (client_config_read(&config, argc, argv))
		return CLIENT_EXIT_USAGE;
	if (config.version) {
		printf("culvert " CULVERT_VERSION "\n");
		return CLIENT_EXIT_OK;
	}
	if (config.help) {
		client_help_print(config.command);
		return CLIENT_EXIT_OK;
	}
	client_say_setup(config.quiet, config.verbose);
	result = config.command->run(&config);
	client_say_status(NULL);
	explicit_bzero(config.password, sizeof(config.password));
	return result;
}
