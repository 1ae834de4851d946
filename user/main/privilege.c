/* SPDX-License-Identifier: BSD-2-Clause */
/* Giving up privilege, in named stages. */
#include "main/privilege.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/landlock.h"
#include "base/log.h"
#include "base/syscalls.h"

SYSCALLS(SYSCALLS_BEFORE, "openat newfstatat fstat geteuid prlimit64");
SYSCALLS(SYSCALLS_SUPERVISOR, "setgroups setresgid setresuid setgid setuid");
SYSCALLS(SYSCALLS_SUPERVISOR, "capget capset prctl getppid openat readlink");
SYSCALLS(SYSCALLS_SUPERVISOR, "close");

/* Being uid 0 gives a program nothing, and this cannot be taken back. */
#define SECUREBITS_ROOT_IS_NOTHING                                        \
	(SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_KEEP_CAPS_LOCKED | \
	 SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)

#define BROKER_KEEPS                                                     \
	(1ull << CAP_BPF | 1ull << CAP_PERFMON | 1ull << CAP_NET_ADMIN | \
	 1ull << CAP_NET_BIND_SERVICE)
/* CAP_SYS_NICE: exit/urgent.h */
#define EXIT_KEEPS (1ull << CAP_NET_ADMIN | 1ull << CAP_SYS_NICE)
/* Before that, for the socket of its probes. */
#define EXIT_TAKES (EXIT_KEEPS | 1ull << CAP_NET_RAW)

/*
 * What an id of this user namespace is outside, user_namespaces(7). The file
 * absent or unreadable: there are no user namespaces. -1: the id does not exist.
 */
static int64_t id_outside(const char *path, uint64_t id)
{
	uint64_t first, outside, count;
	int64_t found = -1;
	FILE *map = fopen(path, "re");

	if (!map)
		return (int64_t)id;
	while (fscanf(map, "%" SCNu64 "%" SCNu64 "%" SCNu64, &first, &outside,
		      &count) == 3)
		if (id >= first && id - first < count)
			found = (int64_t)(outside + (id - first));
	(void)fclose(map);
	return found;
}

static bool user_exists_here(const struct passwd *entry)
{
	return id_outside("/proc/self/uid_map", entry->pw_uid) >= 0 &&
	       id_outside("/proc/self/gid_map", entry->pw_gid) >= 0;
}

static int user_refuse(const char *name, const struct passwd *entry)
{
	if (entry) {
		log_error("main",
			  "event=user_refused user=%s reason=\"the relay never "
			  "runs as root or in root's group\" hint=\"set "
			  "[server] user to another one\"",
			  name);
		return -EPERM;
	}
	log_error("main",
		  "event=user_missing user=%s hint=\"make it with: "
		  "useradd --system %s\"",
		  name, name);
	return -ENOENT;
}

int privilege_find_user(const char *name, struct privilege_user *out)
{
	const struct passwd *entry;
	bool stand_in = false;

	memset(out, 0, sizeof(*out));
	if (geteuid() != 0)
		return 0;
	entry = getpwnam(name);
	if (!entry) {
		entry = getpwnam("nobody");
		stand_in = true;
	}
	if (entry && entry->pw_uid == 0 &&
	    id_outside("/proc/self/uid_map", 0) != 0)
		return 0;
	if (!entry || entry->pw_uid == 0 || entry->pw_gid == 0)
		return user_refuse(name, entry);
	if (!user_exists_here(entry))
		return 0;
	if (stand_in)
		log_warn("main",
			 "event=user_missing user=%s using=nobody hint="
			 "\"make one with: useradd --system %s\"",
			 name, name);
	out->change = true;
	out->stand_in = stand_in;
	out->uid = entry->pw_uid;
	out->gid = entry->pw_gid;
	return 0;
}

int privilege_clean_files(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	/* With not a single descriptor to be had the sockets will say so. */
	if (fd < 0 && errno != EMFILE && errno != ENFILE)
		return -errno;
	if (close_range(STDERR_FILENO + 1, ~0U, 0) < 0 && errno != ENOSYS)
		return -errno;
	return 0;
}

void privilege_hide_memory(void)
{
	/* Fails for no reason but a wrong number. */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

void privilege_raise_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

/*
 * What a program run from here could gain: nothing. Both need CAP_SETPCAP; where
 * root lacks it, as in some containers, PR_SET_NO_NEW_PRIVS has to do.
 */
static int gains_refuse(void)
{
	if (prctl(PR_SET_SECUREBITS, SECUREBITS_ROOT_IS_NOTHING, 0, 0, 0) < 0 &&
	    errno != EPERM)
		return -errno;
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		/* EINVAL: a capability this kernel does not know. */
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 &&
		    errno != EINVAL && errno != EPERM)
			return -errno;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

/* Drops all but these, as far as they are there. */
static int capabilities_limit(uint64_t keep)
{
	struct __user_cap_header_struct head = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &head, data) < 0)
		return -errno;
	for (int i = 0; i < 2; i++) {
		data[i].permitted &= (uint32_t)(keep >> 32 * i);
		data[i].effective = data[i].permitted;
		data[i].inheritable = 0;
	}
	if (syscall(SYS_capset, &head, data) < 0)
		return -errno;
	return 0;
}

static bool capability_has(int cap)
{
	struct __user_cap_header_struct head = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];

	return syscall(SYS_capget, &head, data) == 0 &&
	       data[CAP_TO_INDEX(cap)].permitted & CAP_TO_MASK(cap);
}

bool privilege_can_broker(void)
{
	return capability_has(CAP_BPF) && capability_has(CAP_PERFMON) &&
	       capability_has(CAP_NET_ADMIN);
}

bool privilege_can_exit(void)
{
	return capability_has(CAP_NET_ADMIN);
}

int privilege_supervisor(const struct privilege_user *user, bool broker,
			 bool exits)
{
	uint64_t keep = (broker ? BROKER_KEEPS : 0) | (exits ? EXIT_TAKES : 0);
	int err;

	if (user->change) {
		if (!capability_has(CAP_SETUID) || !capability_has(CAP_SETGID))
			return -EPERM;
		keep |= 1ull << CAP_SETUID | 1ull << CAP_SETGID |
			1ull << CAP_KILL;
	}
	err = gains_refuse();
	return err ? err : capabilities_limit(keep);
}

#if defined(__SANITIZE_ADDRESS__)
/* The leak check at the end lists this process's threads. */
#define START_READS "/proc"
#define START_USE   LANDLOCK_LIST
#else
#define START_READS "/proc/sys/net"
#define START_USE   LANDLOCK_READ
#endif

static int die_with(pid_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return -errno;
	return getppid() == parent ? 0 : -ESRCH;
}

int privilege_broker(pid_t parent)
{
	int err = gains_refuse();

	if (!err)
		err = capabilities_limit(BROKER_KEEPS);
	return err ? err : die_with(parent);
}

int privilege_exit(pid_t parent)
{
	int err = gains_refuse();

	if (!err)
		err = capabilities_limit(EXIT_KEEPS);
	if (err)
		return err;
	landlock_confine("exit", NULL, 0);
	return die_with(parent);
}

static void directory_of(const char *path, char out[PATH_MAX])
{
	const char *slash = strrchr(path, '/');

	*out = '\0';
	if (slash && slash - path < PATH_MAX) {
		memcpy(out, path, (size_t)(slash - path));
		out[slash - path] = '\0';
	}
}

/*
 * What the start reads; the directory of the user database, for the file may be
 * replaced; or what the names of hosts are looked up by, whose own file often lies
 * elsewhere.
 */
static void relay_files_refuse(const char *database, bool remote)
{
	char path[PATH_MAX], directory[PATH_MAX] = "";
	struct landlock_path readable[4] = {
		{ START_READS, START_USE }, { "/dev/urandom", LANDLOCK_READ }
	};
	size_t count = 2;

	if (database)
		directory_of(database, directory);
	if (remote) {
		readable[count++] =
			(struct landlock_path){ "/etc", LANDLOCK_READ };
		if (realpath("/etc/resolv.conf", path))
			directory_of(path, directory);
	}
	if (*directory)
		readable[count++] =
			(struct landlock_path){ directory, LANDLOCK_READ };
	landlock_confine("relay", readable, count);
}

int privilege_relay(const struct privilege_user *user, const char *database,
		    bool remote, pid_t parent)
{
	if (user->change) {
		if (setgroups(0, NULL) < 0 ||
		    setresgid(user->gid, user->gid, user->gid) < 0 ||
		    setresuid(user->uid, user->uid, user->uid) < 0)
			return -errno;
		/* Root's: libpq fails on certificates there that it may not see. */
		unsetenv("HOME");
		/* Leaving uid 0 clears capabilities; refuse to go on if not. */
		if (setuid(0) == 0 || setgid(0) == 0)
			return -EPERM;
		/* It has made it what fs.suid_dumpable says. */
		privilege_hide_memory();
	}
	int err = capabilities_limit(0);
	if (err)
		return err;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	relay_files_refuse(database, remote);
	/* After the change of user, which would clear it. */
	return die_with(parent);
}
