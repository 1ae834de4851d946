/* SPDX-License-Identifier: BSD-2-Clause */
/* Listening sockets of the configured listeners, one per worker. */
#include "main/sockets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "transport/transport.h"

static struct socket_group *group_find(const struct socket_set *set,
				       const struct socket_group *like)
{
	for (size_t i = 0; set && i < set->count; i++)
		if (!strcmp(set->groups[i].name, like->name) &&
		    addr_equal(&set->groups[i].addr, &like->addr))
			return &set->groups[i];
	return NULL;
}

static void group_close(struct socket_group *group, unsigned int workers)
{
	for (unsigned int i = 0; i < workers; i++)
		fd_close(&group->fds[i]);
}

static int group_open(struct socket_group *group, unsigned int workers,
		      unsigned int backlog)
{
	for (unsigned int i = 0; i < workers; i++) {
		/* The first notices who else listens there; the others join. */
		int fd = i ? listener_open(&group->addr, backlog) :
			     listener_claim(&group->addr, backlog);

		if (fd < 0) {
			group_close(group, i);
			return fd;
		}
		group->fds[i] = fd;
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

/* Adds one listener's addresses to the set. */
static int listener_sockets(const struct conf_listener *listener,
			    const struct socket_set *old,
			    struct socket_set *set, char where[ADDR_STRLEN])
{
	for (size_t i = 0; i < listener->address_count; i++) {
		struct socket_group *group = &set->groups[set->count];
		const struct socket_group *same;

		snprintf(group->name, sizeof(group->name), "%s",
			 listener->name);
		group->addr = listener->addresses[i];
		same = group_find(old, group);
		if (same) {
			*group = *same;
			group->kept = true;
			set->count++;
			continue;
		}
		int err = group_open(group, set->workers, listener->backlog);

		if (err) {
			addr_format(&group->addr, where);
			return err;
		}
		set->count++;
	}
	return 0;
}

int sockets_open(const struct conf *conf, unsigned int workers,
		 const struct socket_set *old, struct socket_set *out,
		 char where[ADDR_STRLEN])
{
	struct socket_set set = { .workers = workers };
	int err = 0;

	snprintf(where, ADDR_STRLEN, "memory");
	set.groups = calloc(address_total(conf) + 1, sizeof(*set.groups));
	if (!set.groups)
		return -ENOMEM;
	for (size_t i = 0; i < conf->listener_count && !err; i++)
		err = listener_sockets(&conf->listeners[i], old, &set, where);
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
		if (!group_find(keep, &set->groups[i]))
			group_close(&set->groups[i], set->workers);
	free(set->groups);
	set->groups = NULL;
	set->count = 0;
}
