/* SPDX-License-Identifier: BSD-2-Clause */
/* Landlock, landlock(7), of whatever version the kernel has. */
#include "base/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/landlock.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/syscalls.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "landlock_create_ruleset landlock_add_rule");
SYSCALLS(SYSCALLS_SUPERVISOR, "landlock_restrict_self openat close");

#define SCOPED_ALL 3 /* abstract UNIX sockets and signals of others */

/* What the first version knows: a rule must name no right that is not handled. */
#define RIGHTS_FIRST ((UINT64_C(1) << 13) - 1)

/* What a set of rules refuses. The headers of Linux 6.1 name only the first field. */
struct ruleset {
	uint64_t files, net, scoped;
};

/* All that this version knows: REFER since 2, TRUNCATE since 3, IOCTL_DEV since 5. */
static struct ruleset ruleset_all(int version)
{
	unsigned int rights = version < 2 ? 13 :
			      version < 3 ? 14 :
			      version < 5 ? 15 :
					    16;

	return (struct ruleset){
		.files = (UINT64_C(1) << rights) - 1,
		.scoped = SCOPED_ALL,
	};
}

static uint64_t rights_of(enum landlock_use use)
{
	switch (use) {
	case LANDLOCK_READ:
		return LANDLOCK_ACCESS_FS_READ_FILE;
	case LANDLOCK_LIST:
		return LANDLOCK_ACCESS_FS_READ_FILE |
		       LANDLOCK_ACCESS_FS_READ_DIR;
	case LANDLOCK_KEEP:
		return RIGHTS_FIRST & ~(uint64_t)LANDLOCK_ACCESS_FS_EXECUTE;
	}
	return 0;
}

static int path_open(const struct landlock_path *path)
{
	char at[PATH_MAX];
	char *slash;
	int fd;

	if (snprintf(at, sizeof(at), "%s", path->path) >= (int)sizeof(at))
		return -1;
	do
		fd = open(at, O_PATH | O_CLOEXEC);
	while (fd < 0 && path->use != LANDLOCK_KEEP &&
	       (slash = strrchr(at, '/')) != NULL && slash != at &&
	       (*slash = '\0', true));
	return fd;
}

/* Without its rule nothing may be done there. */
static void path_allow(int rules, const struct landlock_path *path)
{
	struct landlock_path_beneath_attr rule = {
		.allowed_access = rights_of(path->use),
		.parent_fd = path_open(path),
	};

	if (rule.parent_fd < 0)
		return;
	syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule,
		0);
	close(rule.parent_fd);
}

void landlock_confine(const char *role, const struct landlock_path *paths,
		      size_t count)
{
	int version = (int)syscall(SYS_landlock_create_ruleset, NULL, 0,
				   LANDLOCK_CREATE_RULESET_VERSION);
	struct ruleset all = ruleset_all(version);
	int rules = version < 0 ?
			    version :
			    (int)syscall(SYS_landlock_create_ruleset, &all,
					 version < 6 ? sizeof(all.files) :
						       sizeof(all),
					 0);

	for (size_t i = 0; i < count && rules >= 0; i++)
		path_allow(rules, &paths[i]);
	if (rules < 0 || syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		log_info("base",
			 "event=files_not_refused role=%s error=\"%s\" "
			 "reason=\"no Landlock\" effect=\"[server] seccomp and "
			 "the rights of its user remain\"",
			 role, strerror(errno));
	if (rules >= 0)
		close(rules);
}
