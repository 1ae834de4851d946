/* SPDX-License-Identifier: BSD-2-Clause */
/* Giving up privilege, in named stages. */
#include "main/privilege.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"

int privilege_find_user(const char *name, struct privilege_user *out)
{
	const struct passwd *entry;

	memset(out, 0, sizeof(*out));
	if (geteuid() != 0)
		return 0;
	entry = getpwnam(name);
	if (!entry) {
		entry = getpwnam("nobody");
		log_warn("main",
			 "event=user_missing user=%s using=nobody hint="
			 "\"make one with: useradd --system %s\"",
			 name, name);
	}
	if (!entry || entry->pw_uid == 0)
		return -ENOENT;
	out->change = true;
	out->uid = entry->pw_uid;
	out->gid = entry->pw_gid;
	return 0;
}

void privilege_raise_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

/* Drops capabilities beyond `keep` from the bounding set. */
static int bounding_limit(uint64_t keep)
{
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++) {
		if (keep >> cap & 1)
			continue;
		/* EINVAL: a capability this kernel does not know. */
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno != EINVAL)
			return -errno;
	}
	return 0;
}

static int capabilities_set(uint64_t keep)
{
	struct __user_cap_header_struct head = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2] = {
		{ .effective = (uint32_t)keep, .permitted = (uint32_t)keep },
		{ .effective = (uint32_t)(keep >> 32),
		  .permitted = (uint32_t)(keep >> 32) },
	};

	if (syscall(SYS_capset, &head, data) < 0)
		return -errno;
	return 0;
}

int privilege_supervisor(void)
{
	const uint64_t keep = 1ull << CAP_SETUID | 1ull << CAP_SETGID;
	int err = 0;

	if (geteuid() == 0)
		err = bounding_limit(keep);
	if (!err && geteuid() == 0)
		err = capabilities_set(keep);
	if (!err && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		err = -errno;
	return err;
}

int privilege_relay(const struct privilege_user *user)
{
	pid_t parent = getppid();

	if (user->change) {
		if (setgroups(0, NULL) < 0 ||
		    setresgid(user->gid, user->gid, user->gid) < 0 ||
		    setresuid(user->uid, user->uid, user->uid) < 0)
			return -errno;
		/* Leaving uid 0 clears capabilities; refuse to go on if not. */
		if (setuid(0) == 0)
			return -EPERM;
	}
	int err = capabilities_set(0);
	if (err)
		return err;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	/* After the change of user, which would clear it. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return -errno;
	return getppid() == parent ? 0 : -ESRCH;
}
