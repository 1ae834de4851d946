/* SPDX-License-Identifier: BSD-2-Clause */
/* Locks: what one process at a time may do in a network namespace. */
#ifndef BASE_LOCK_H
#define BASE_LOCK_H

#include <sys/types.h>

#define LOCK_DIRECTORY "/run/culvert"
/* What to do about -EPERM. */
#define LOCK_HINT                                                         \
	"chown root " LOCK_DIRECTORY " and chmod go-w it: who may write " \
	"there could take the lock"

/*
 * Takes the lock of this name, LOCK_DIRECTORY/NAME.lock, for this network namespace.
 * It is free again when this process ends, in whatever way, or closes the descriptor
 * that is returned (or any other of that file: it must not take a lock twice). Or a
 * negative errno: -EBUSY: *holder has it, 0 when that lives in another PID namespace;
 * -EPERM: somebody else may write in the directory.
 */
int lock_take(const char *name, pid_t *holder);

#endif
