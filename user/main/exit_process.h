/* SPDX-License-Identifier: BSD-2-Clause */
/* The exit role: the process that keeps routes and guards as configured. */
#ifndef MAIN_EXIT_PROCESS_H
#define MAIN_EXIT_PROCESS_H

#include <sys/types.h>

#include "conf/conf.h"

struct exit_process_params {
	struct conf *conf;
	pid_t supervisor; /* whose end is this role's */
	int channel; /* to the supervisor, taken over */
};

/* Runs the role to its end; returns the process's exit status. */
int exit_process_run(const struct exit_process_params *params);

#endif
