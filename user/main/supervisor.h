/* SPDX-License-Identifier: BSD-2-Clause */
/* The supervisor role: configuration, children, reload, end. */
#ifndef MAIN_SUPERVISOR_H
#define MAIN_SUPERVISOR_H

/* Runs culvertd with this configuration file; returns the exit status. */
int supervisor_run(const char *path);

/* Checks a file as culvertd --check does; returns the exit status. */
int supervisor_check(const char *path);

#endif
