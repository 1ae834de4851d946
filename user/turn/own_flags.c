/* SPDX-License-Identifier: BSD-2-Clause */
/* What the kernel says of this machine's addresses beside themselves (rtnetlink). */
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/syscalls.h"
#include "turn/policy.h"

SYSCALLS_SOCKET(SYSCALLS_RELAY, AF_NETLINK, NETLINK_ROUTE);
SYSCALLS(SYSCALLS_RELAY, "sendto recvfrom close");

#define MATTERS                                                 \
	(IFA_F_TEMPORARY | IFA_F_OPTIMISTIC | IFA_F_DADFAILED | \
	 IFA_F_HOMEADDRESS | IFA_F_DEPRECATED | IFA_F_TENTATIVE)
#define BATCH_ROOM 32768 /* bytes of messages that the kernel sends at a time */

struct reading {
	struct own_flags *list;
	size_t count, room;
	bool ended;
};

static int flags_add(struct reading *reading, const union addr *host,
		     uint32_t flags)
{
	if (reading->count == reading->room) {
		size_t room = reading->room ? reading->room * 2 : 16;
		struct own_flags *grown =
			reallocarray(reading->list, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		reading->list = grown;
		reading->room = room;
	}
	reading->list[reading->count++] = (struct own_flags){ *host, flags };
	return 0;
}

/* IFA_LOCAL is this end's address where there are two. */
static int address_take(struct reading *reading, const struct nlmsghdr *msg)
{
	const struct ifaddrmsg *head = NLMSG_DATA(msg);
	const struct rtattr *attr = IFA_RTA(head);
	size_t len = head->ifa_family == AF_INET6 ? 16 : 4;
	int left = (int)IFA_PAYLOAD(msg);
	const void *bytes = NULL;
	uint32_t flags = head->ifa_flags;
	union addr host;

	if (head->ifa_family != AF_INET && head->ifa_family != AF_INET6)
		return 0;
	for (; RTA_OK(attr, left); attr = RTA_NEXT(attr, left)) {
		if (attr->rta_type == IFA_FLAGS &&
		    RTA_PAYLOAD(attr) >= sizeof(flags))
			memcpy(&flags, RTA_DATA(attr), sizeof(flags));
		else if (RTA_PAYLOAD(attr) >= len &&
			 (attr->rta_type == IFA_LOCAL ||
			  (attr->rta_type == IFA_ADDRESS && !bytes)))
			bytes = RTA_DATA(attr);
	}
	flags &= MATTERS;
	/* The same bit is IFA_F_SECONDARY of IPv4. */
	if (head->ifa_family == AF_INET)
		flags &= ~(uint32_t)IFA_F_TEMPORARY;
	if (!bytes || !flags)
		return 0;
	addr_from_bytes(&host, head->ifa_family, bytes, 0);
	return flags_add(reading, &host, flags);
}

static int batch_take(struct reading *reading, const void *buf, size_t len)
{
	const struct nlmsghdr *msg = buf;
	int err = 0;

	for (; NLMSG_OK(msg, len) && !err && !reading->ended;
	     msg = NLMSG_NEXT(msg, len)) {
		if (msg->nlmsg_type == NLMSG_ERROR)
			return -EIO;
		reading->ended = msg->nlmsg_type == NLMSG_DONE;
		if (msg->nlmsg_type == RTM_NEWADDR &&
		    msg->nlmsg_len >= NLMSG_LENGTH(sizeof(struct ifaddrmsg)))
			err = address_take(reading, msg);
	}
	return err;
}

static int dump_read(int fd, struct reading *reading)
{
	struct {
		struct nlmsghdr head;
		struct ifaddrmsg body;
	} request = {
		.head = { .nlmsg_len = sizeof(request),
			  .nlmsg_type = RTM_GETADDR,
			  .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
	};
	void *buf;
	int err = 0;

	if (send(fd, &request, sizeof(request), 0) < 0)
		return -errno;
	buf = malloc(BATCH_ROOM);
	if (!buf)
		return -ENOMEM;
	while (!err && !reading->ended) {
		ssize_t n = recv(fd, buf, BATCH_ROOM, 0);

		if (n <= 0)
			err = n < 0 ? -errno : -EIO;
		else
			err = batch_take(reading, buf, (size_t)n);
	}
	free(buf);
	return err;
}

int turn_own_flags_read(struct own_flags **out, size_t *count)
{
	struct reading reading = { .list = NULL };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	int err;

	if (fd < 0)
		return -errno;
	err = dump_read(fd, &reading);
	close(fd);
	if (err) {
		free(reading.list);
		return err;
	}
	*out = reading.list;
	*count = reading.count;
	return 0;
}

uint32_t turn_own_flags(const struct own_addresses *own, const union addr *host)
{
	uint32_t flags = 0;

	for (size_t i = 0; i < own->flags_count; i++)
		if (addr_same_host(&own->flags[i].host, host))
			flags |= own->flags[i].flags;
	return flags;
}
