/* SPDX-License-Identifier: BSD-2-Clause */
/* The broker role: the process that keeps the privileges wire needs. */
#ifndef MAIN_BROKER_PROCESS_H
#define MAIN_BROKER_PROCESS_H

#include <sys/types.h>

#include "conf/conf.h"

struct broker_process_params {
	const struct conf *conf;
	pid_t supervisor; /* whose end is the broker's */
	int channel; /* to the supervisor, taken over */
};

/* Runs the role to its end; returns the process's exit status. */
int broker_process_run(const struct broker_process_params *params);

#endif
