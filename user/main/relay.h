/* SPDX-License-Identifier: BSD-2-Clause */
/* The relay role: the process that parses network input, without privilege. */
#ifndef MAIN_RELAY_H
#define MAIN_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#include "auth/auth.h"
#include "conf/conf.h"
#include "main/privilege.h"
#include "main/sockets.h"

/* Exit status of a relay that cannot work at all: starting again is no use. */
#define RELAY_EXIT_FATAL 3

struct relay_params {
	struct conf *conf;
	const struct socket_set *sockets; /* used up: workers take them */
	const struct privilege_user *user;
	pid_t supervisor; /* whose end is the relay's */
	int control_fd; /* of control_listen, taken over */
	int channel; /* to the supervisor, taken over */
	/* To the broker, a worker each, taken over; -1: there is none. */
	int broker[CONF_MAX_WORKERS];
	int exits; /* what CHANNEL_EXITS brought last, taken over; -1: nothing */
	uint64_t config_loads;
	bool draining; /* as the one before this was told to */
	uint8_t nonce_secret[AUTH_SECRET_LEN];
};

/* Runs the role to its end; returns the process's exit status. */
int relay_run(const struct relay_params *params);

#endif
