/* SPDX-License-Identifier: BSD-2-Clause */
/* Processor time of some processes (all their threads) and of the machine. */
#ifndef BENCH_CPU_H
#define BENCH_CPU_H

#include <stddef.h>
#include <sys/types.h>

#define CPU_MAX_PIDS 64

struct cpu_set {
	pid_t pids[CPU_MAX_PIDS];
	size_t count;
};

/* "12,13". Returns 0 or -EINVAL. */
int cpu_set_parse(const char *text, struct cpu_set *out);

/*
 * User and system seconds since their start: threads that ended and io_uring
 * workers are included. A process that is gone counts as 0.
 */
double cpu_set_seconds(const struct cpu_set *set);

/* Busy seconds of all cores since boot, interrupts included. */
double cpu_machine_seconds(void);

#endif
