/* SPDX-License-Identifier: BSD-2-Clause */
/* Giving up privilege, in named stages. */
#ifndef MAIN_PRIVILEGE_H
#define MAIN_PRIVILEGE_H

#include <stdbool.h>
#include <sys/types.h>

/* Whom the relay runs as. */
struct privilege_user {
	bool change; /* false: started without root, stays who it is */
	bool stand_in; /* "nobody", whose group is not ours to trust */
	uid_t uid;
	gid_t gid;
};

/*
 * Looks the configured user up, when running as root; "nobody" stands in for one
 * that does not exist, with a log line. Root of a user namespace that has no
 * such user is an ordinary user outside, and stays what it is. 0, -ENOENT, or
 * -EPERM (the relay never runs as root); logged.
 */
int privilege_find_user(const char *name, struct privilege_user *out);

/*
 * Descriptors 0 to 2 are open afterwards, and no other: what the caller left
 * open is not for the relay, and no socket becomes standard error. 0 or a
 * negative errno.
 */
int privilege_clean_files(void);

/*
 * No core file is made of this process's memory, which holds keys, and no other
 * process of its user looks into it. Its children's neither.
 */
void privilege_hide_memory(void);

/* Raises the soft descriptor limit to the hard one. */
void privilege_raise_files(void);

/* Has this process what the broker, what the exit role needs? */
bool privilege_can_broker(void);
bool privilege_can_exit(void);

/*
 * The supervisor after start. When the relay is another user it keeps CAP_SETUID
 * and CAP_SETGID, which starting it again after a crash needs, and CAP_KILL, to
 * end one that hangs and for PR_SET_PDEATHSIG to have an effect; with a broker or
 * an exit role what those keep, for the same reason; else nothing. No program it could run
 * gets anything back. 0 or a negative errno.
 */
int privilege_supervisor(const struct privilege_user *user, bool broker,
			 bool exits);

/*
 * The broker after start: CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN are left, and
 * CAP_NET_BIND_SERVICE, without which it could not reset a client of a port below
 * 1024. Dies with its parent. 0 or a negative errno; -ESRCH as below.
 */
int privilege_broker(pid_t parent);

/*
 * The exit role after start: CAP_NET_ADMIN and CAP_SYS_NICE are left, and no file
 * can be opened. Dies with its parent. 0 or a negative errno; -ESRCH as below.
 */
int privilege_exit(pid_t parent);

/*
 * The relay: becomes the user for good, no capability is left, none can be
 * regained. With Landlock no path is opened any more, made or removed, but for
 * reading below /proc/sys/net, /dev/urandom and the file of users (NULL: none),
 * and, where users are on a remote server, /etc and where resolv.conf is:
 * then no BPF map is pinned, whose pin could be opened for writing, though its
 * descriptor can only read; and from Linux 6.12 on no process but itself is
 * signalled. Dies with its parent. 0 or a negative errno; -ESRCH when the parent
 * has gone already.
 */
int privilege_relay(const struct privilege_user *user, const char *database,
		    bool remote, pid_t parent);

#endif
