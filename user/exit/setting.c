/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Settings of the kernel, in /proc/sys, that keep exits from working: read only, for
 * whose they are we do not know.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/syscalls.h"
#include "exit/check.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "openat read close");

#define STRICT '1' /* of 0 off, 1 strict, 2 loose; the greater of two counts */

/* The first character; '0' where there is none. `family` "ipv4" or "ipv6". */
static char setting_read(const char *family, const char *link, const char *name)
{
	char path[100], value = '0';
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/net/%s/conf/%s/%s", family,
		 link, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return value;
	if (read(fd, &value, 1) != 1)
		value = '0';
	close(fd);
	return value;
}

static bool has_family(const struct conf_exit *exit, sa_family_t family)
{
	for (size_t i = 0; i < exit->prefix_count; i++)
		if (exit->prefixes[i].family == family)
			return true;
	return false;
}

bool exit_has_family(const struct conf *conf, sa_family_t family)
{
	for (size_t i = 0; i < conf->exit_count; i++)
		if (exit_leads(&conf->exits[i]) &&
		    has_family(&conf->exits[i], family))
			return true;
	return false;
}

bool exit_forwards(sa_family_t family)
{
	return setting_read(family == AF_INET6 ? "ipv6" : "ipv4", "all",
			    "forwarding") != '0';
}

/* What comes in by a link that is not the system's own default route is dropped. */
static void strict_check(const struct exit_checking *checking,
			 const struct conf_exit *exit)
{
	struct exit_finding finding = { .name = "strict", .wrong = true };
	char all = setting_read("ipv4", "all", "rp_filter");
	char own = setting_read("ipv4", exit->link, "rp_filter");

	if (!has_family(exit, AF_INET) || (own > all ? own : all) != STRICT)
		return;
	snprintf(finding.where, sizeof(finding.where), "link %s of exit %s",
		 exit->link, exit->name);
	snprintf(finding.what, sizeof(finding.what),
		 "rp_filter is strict: IPv4 that comes in by this link may be "
		 "dropped by the kernel");
	snprintf(finding.hint, sizeof(finding.hint),
		 "sysctl -w net.ipv4.conf.%s.rp_filter=2", exit->link);
	checking->fn(checking->arg, &finding);
}

static void ipv6_check(const struct exit_checking *checking,
		       const struct conf_exit *exit)
{
	struct exit_finding finding = { .name = "no_ipv6", .wrong = true };

	if (!has_family(exit, AF_INET6) ||
	    setting_read("ipv6", exit->link, "disable_ipv6") == '0')
		return;
	snprintf(finding.where, sizeof(finding.where), "link %s of exit %s",
		 exit->link, exit->name);
	snprintf(finding.what, sizeof(finding.what),
		 "IPv6 is off there, and the exit has prefixes of it");
	snprintf(finding.hint, sizeof(finding.hint),
		 "sysctl -w net.ipv6.conf.%s.disable_ipv6=0", exit->link);
	checking->fn(checking->arg, &finding);
}

/* One that others tunnel to, or that tunnels for others, is a router. */
static bool is_router(const struct conf *conf)
{
	for (size_t i = 0; i < conf->exit_count; i++)
		if (conf->exits[i].tunnel_peer_count)
			return true;
	return false;
}

/* A host that only has exits for itself need not forward anything. */
static void forwarding_check(const struct exit_checking *checking,
			     sa_family_t family)
{
	struct exit_finding finding = { .name = "no_forwarding",
					.wrong = is_router(checking->conf) };
	bool six = family == AF_INET6;

	if (exit_forwards(family) || !exit_has_family(checking->conf, family))
		return;
	snprintf(finding.where, sizeof(finding.where), "this host, %s",
		 six ? "IPv6" : "IPv4");
	snprintf(finding.what, sizeof(finding.what),
		 "forwarding is off: the exits are for this host alone, not "
		 "for a site behind it");
	snprintf(finding.hint, sizeof(finding.hint),
		 "as a router: sysctl -w net.%s.conf.all.forwarding=1",
		 six ? "ipv6" : "ipv4");
	checking->fn(checking->arg, &finding);
}

void exit_settings_check(const struct conf *conf,
			 void (*fn)(void *arg,
				    const struct exit_finding *finding),
			 void *arg)
{
	const struct exit_checking checking = { conf, fn, arg };

	for (size_t i = 0; i < conf->exit_count; i++) {
		if (!conf->exits[i].link)
			continue;
		strict_check(&checking, &conf->exits[i]);
		ipv6_check(&checking, &conf->exits[i]);
	}
	forwarding_check(&checking, AF_INET);
	forwarding_check(&checking, AF_INET6);
}
