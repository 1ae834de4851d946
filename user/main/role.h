/* SPDX-License-Identifier: BSD-2-Clause */
/* What a role beside the relay, the broker or the exits, is started with. */
#ifndef MAIN_ROLE_H
#define MAIN_ROLE_H

#include <sys/types.h>

#include "conf/conf.h"

struct role_params {
	struct conf *conf;
	pid_t supervisor; /* whose end is the role's */
	int channel; /* to the supervisor, taken over */
	int notice; /* what the last exit role has told, likewise; -1: nothing */
};

/* Runs the role to its end; returns the process's exit status. */
int broker_process_run(const struct role_params *params);
int exit_process_run(const struct role_params *params);

#endif
