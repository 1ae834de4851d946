/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Strict source validation of IPv4 drops what comes in by the link of an exit that is
 * not the system's own default route: all of it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "base/syscalls.h"
#include "main/supervisor_internal.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "openat read close");

#define STRICT '1' /* of 0 off, 1 strict, 2 loose; the greater of two counts */

static char setting_read(const char *link)
{
	char path[80], value = '0';
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv4/conf/%s/rp_filter",
		 link);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return value;
	if (read(fd, &value, 1) != 1)
		value = '0';
	close(fd);
	return value;
}

static bool has_ipv4(const struct conf_exit *exit)
{
	for (size_t i = 0; i < exit->prefix_count; i++)
		if (exit->prefixes[i].family == AF_INET)
			return true;
	return false;
}

void supervisor_strict_tell(const struct conf *conf)
{
	char all = setting_read("all");

	for (size_t i = 0; i < conf->exit_count; i++) {
		const struct conf_exit *exit = &conf->exits[i];
		char own;

		if (!exit->link || !has_ipv4(exit))
			continue;
		own = setting_read(exit->link);
		if ((own > all ? own : all) != STRICT)
			continue;
		log_warn("main",
			 "event=exit_strict exit=%s link=%s reason=\"rp_filter "
			 "is strict\" effect=\"IPv4 that comes in by this link "
			 "may be dropped by the kernel\" "
			 "hint=\"sysctl -w net.ipv4.conf.%s.rp_filter=2\"",
			 exit->name, exit->link, exit->link);
	}
}
