/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Listening sockets of the configured listeners, one per worker.
 *
 * A reload makes a new set that shares the sockets of addresses that stay, so
 * that no connection waiting in a backlog is lost. Two groups are the same when
 * they have the same descriptors: an address with port 0 may come twice.
 */
#include "main/sockets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "transport/transport.h"
#include "transport/udp.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "getsockname listen");

static bool group_shared(const struct socket_set *set,
			 const struct socket_group *group)
{
	for (size_t i = 0; set && i < set->count; i++)
		if (set->groups[i].fds[0] == group->fds[0])
			return true;
	return false;
}

/* A group of the older set with this address that `set` has not taken yet. */
static const struct socket_group *group_find(const struct socket_set *old,
					     const struct socket_set *set,
					     const union addr *addr, bool udp)
{
	for (size_t i = 0; old && i < old->count; i++)
		if (old->groups[i].udp == udp &&
		    addr_equal(&old->groups[i].addr, addr) &&
		    !group_shared(set, &old->groups[i]))
			return &old->groups[i];
	return NULL;
}

/* Does the older set listen where this address would, too? */
static bool own_overlap(const struct socket_set *old, const union addr *addr,
			bool udp)
{
	for (size_t i = 0; old && i < old->count; i++) {
		const union addr *have = &old->groups[i].bound;

		if (old->groups[i].udp == udp &&
		    addr_family(have) == addr_family(addr) &&
		    addr_port(have) == addr_port(addr) &&
		    (addr_is_any(have) || addr_is_any(addr) ||
		     addr_same_host(have, addr)))
			return true;
	}
	return false;
}

static void group_close(struct socket_group *group, unsigned int workers)
{
	for (unsigned int i = 0; i < workers; i++)
		fd_close(&group->fds[i]);
}

/* The first notices who else listens there; the others join. */
static int socket_open(const struct socket_group *group, bool first,
		       unsigned int backlog)
{
	if (group->udp)
		return first ? udp_claim(&group->bound) :
			       udp_open(&group->bound);
	return first ? listener_claim(&group->bound, backlog) :
		       listener_open(&group->bound, backlog);
}

static int group_open(struct socket_group *group, unsigned int workers,
		      unsigned int backlog)
{
	group->bound = group->addr;
	for (unsigned int i = 0; i < workers; i++) {
		socklen_t len = sizeof(group->bound);
		int fd = socket_open(group, i == 0, backlog);

		if (fd < 0) {
			group_close(group, i);
			return fd;
		}
		group->fds[i] = fd;
		if (getsockname(fd, &group->bound.sa, &len) < 0) {
			int err = -errno;

			group_close(group, i + 1);
			return err;
		}
	}
	return 0;
}

static size_t address_total(const struct conf *conf)
{
	size_t total = 0;

	for (size_t i = 0; i < conf->listener_count; i++)
		total += conf->listeners[i].address_count;
	return total;
}

/* Shares or opens one address of a listener. */
static int group_get(const struct conf_listener *listener,
		     const union addr *addr, const struct socket_set *old,
		     struct socket_set *set)
{
	struct socket_group *group = &set->groups[set->count];
	const bool udp = conf_listener_datagrams(listener);
	const struct socket_group *same = group_find(old, set, addr, udp);
	int err;

	if (same) {
		*group = *same;
		group->served = !strcmp(same->name, listener->name);
	} else {
		group->addr = *addr;
		group->udp = udp;
		err = group_open(group, set->workers, listener->backlog);
		if (err)
			return err;
	}
	snprintf(group->name, sizeof(group->name), "%s", listener->name);
	set->count++;
	return 0;
}

/* Adds one listener's addresses to the set. */
static int listener_sockets(const struct conf_listener *listener,
			    const struct socket_set *old,
			    struct socket_set *set, struct socket_fault *fault)
{
	for (size_t i = 0; i < listener->address_count; i++) {
		const union addr *addr = &listener->addresses[i];
		int err = group_get(listener, addr, old, set);

		if (!err)
			continue;
		addr_format(addr, fault->address);
		fault->own = err == -EADDRINUSE &&
			     own_overlap(old, addr,
					 conf_listener_datagrams(listener));
		/* The default is [::] beside 0.0.0.0; not every host has it. */
		if (err != -EAFNOSUPPORT || !addr_is_any(addr))
			return err;
		log_warn("main",
			 "event=listen_skipped address=%s reason=\"this kernel "
			 "has no IPv6\"",
			 fault->address);
	}
	return 0;
}

int sockets_open(const struct conf *conf, unsigned int workers,
		 const struct socket_set *old, struct socket_set *out,
		 struct socket_fault *fault)
{
	struct socket_set set = { .workers = workers };
	int err = 0;

	memset(fault, 0, sizeof(*fault));
	snprintf(fault->address, sizeof(fault->address), "any");
	set.groups = calloc(address_total(conf) + 1, sizeof(*set.groups));
	if (!set.groups)
		return -ENOMEM;
	for (size_t i = 0; i < conf->listener_count && !err; i++)
		err = listener_sockets(&conf->listeners[i], old, &set, fault);
	if (!err && !set.count)
		err = -EAFNOSUPPORT;
	if (err) {
		sockets_close(&set, old);
		return err;
	}
	*out = set;
	return 0;
}

void sockets_close(struct socket_set *set, const struct socket_set *keep)
{
	for (size_t i = 0; i < set->count; i++)
		if (!group_shared(keep, &set->groups[i]))
			group_close(&set->groups[i], set->workers);
	free(set->groups);
	set->groups = NULL;
	set->count = 0;
}

static unsigned int backlog_of(const struct conf *conf, const char *name)
{
	for (size_t i = 0; i < conf->listener_count; i++)
		if (!strcmp(conf->listeners[i].name, name))
			return conf->listeners[i].backlog;
	return SOMAXCONN;
}

void sockets_set_backlog(const struct socket_set *set, const struct conf *conf)
{
	/* listen() on one that listens changes its backlog, nothing else. */
	for (size_t i = 0; i < set->count; i++)
		for (unsigned int j = 0;
		     j < set->workers && !set->groups[i].udp; j++)
			if (listen(set->groups[i].fds[j],
				   (int)backlog_of(conf, set->groups[i].name)) <
			    0)
				return;
}
