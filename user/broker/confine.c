/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What files this process may still touch: the pins, and what the kernel says of its
 * types, which loading a program needs.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/syscalls.h"
#include "broker/internal.h"
#include "broker/kernel.h"

SYSCALLS(SYSCALLS_BROKER_START, "openat prctl close");
SYSCALLS(SYSCALLS_BROKER_START, "landlock_create_ruleset landlock_add_rule");
SYSCALLS(SYSCALLS_BROKER_START, "landlock_restrict_self");

/* All that the first version knows: every kernel with Landlock has it. */
#define FILES_ALL ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)

#define FILES_READ   (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define KERNEL_TYPES "/sys/kernel/btf"

static int rule_add(int rules, const char *path, __u64 access)
{
	struct landlock_path_beneath_attr rule = {
		.allowed_access = access,
		.parent_fd = open(path, O_PATH | O_CLOEXEC),
	};
	long n;

	if (rule.parent_fd < 0)
		return -errno;
	n = syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH,
		    &rule, 0);
	close(rule.parent_fd);
	return (int)n;
}

void confine(const struct kernel *kernel)
{
	struct landlock_ruleset_attr all = { .handled_access_fs = FILES_ALL };
	int rules =
		(int)syscall(SYS_landlock_create_ruleset, &all, sizeof(all), 0);

	if (rules < 0) {
		log_debug("broker", "event=not_confined error=\"%s\"",
			  strerror(errno));
		return;
	}
	/* A kernel without its types has nothing to read there. */
	rule_add(rules, KERNEL_TYPES, FILES_READ);
	if ((kernel &&
	     rule_add(rules, kernel->dir,
		      FILES_ALL & ~(__u64)LANDLOCK_ACCESS_FS_EXECUTE) < 0) ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		log_warn("broker", "event=not_confined error=\"%s\"",
			 strerror(errno));
	close(rules);
}
