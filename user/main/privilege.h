/* SPDX-License-Identifier: BSD-2-Clause */
/* Giving up privilege, in named stages. */
#ifndef MAIN_PRIVILEGE_H
#define MAIN_PRIVILEGE_H

#include <stdbool.h>
#include <sys/types.h>

/* Whom the relay runs as. */
struct privilege_user {
	bool change; /* false: started without root, stays who it is */
	uid_t uid;
	gid_t gid;
};

/*
 * Looks the configured user up (only when running as root; "nobody" stands in
 * for one that does not exist, with a log line). 0 or -ENOENT.
 */
int privilege_find_user(const char *name, struct privilege_user *out);

/* Raises the soft descriptor limit to the hard one. */
void privilege_raise_files(void);

/*
 * The supervisor after start: keeps CAP_SETUID and CAP_SETGID, which starting
 * the relay again after a crash needs, and nothing else. 0 or negative errno.
 */
int privilege_supervisor(void);

/*
 * The relay: becomes the user for good, no capability is left, none can be
 * regained. Dies with its parent. 0 or negative errno.
 */
int privilege_relay(const struct privilege_user *user);

#endif
