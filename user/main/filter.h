/* SPDX-License-Identifier: BSD-2-Clause */
/* seccomp filters: a role makes the system calls its code states, no other. */
#ifndef MAIN_FILTER_H
#define MAIN_FILTER_H

#include "base/syscalls.h"
#include "conf/conf.h"

/*
 * From here on this process, and all that it starts, makes only the system calls
 * that lines (base/syscalls.h) of these roles name. `role` names it in the log.
 * 0, also when the mode is off; -EOPNOTSUPP when this kernel or architecture has
 * no filters; another negative errno. Logged.
 */
int filter_enter(const char *role, unsigned int roles, enum conf_seccomp mode);

#endif
