/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * This machine's addresses and links, as rtnetlink dumps them.
 *
 * Not by getifaddrs(3): the C library asks for ever where a link has more to say
 * than 4 KB (glibc 2.36; 20 long alternative names are enough). Here a dump is read
 * with room for the longest message, what is longer is an error, and dumps that
 * somebody's change has disturbed are begun again a few times.
 */
#include "turn/own.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/syscalls.h"

SYSCALLS_SOCKET(SYSCALLS_RELAY, AF_NETLINK, NETLINK_ROUTE);
SYSCALLS(SYSCALLS_RELAY, "sendto recvfrom close");

#define MATTERS                                                 \
	(IFA_F_TEMPORARY | IFA_F_OPTIMISTIC | IFA_F_DADFAILED | \
	 IFA_F_HOMEADDRESS | IFA_F_DEPRECATED | IFA_F_TENTATIVE)
/*
 * Bytes of messages that the kernel sends at a time: a list of a link's alternative
 * names is an attribute, at most 64 KB. What is not written to costs no memory.
 */
#define BATCH_ROOM (256 * 1024)
#define DUMP_TRIES 10

/* Arrays that grow, and how many each has room for. */
struct reading {
	struct own_addresses now;
	size_t list_room, flags_room, up_room;
	bool ended, disturbed;
};

typedef int (*message_fn)(struct reading *reading, const struct nlmsghdr *msg);

/* The array with room for one more, moved perhaps; NULL without memory. */
static void *array_grow(void *array, size_t count, size_t size, size_t *room)
{
	size_t more = *room ? *room * 2 : 16;
	void *grown;

	if (count < *room)
		return array;
	grown = reallocarray(array, more, size);
	if (grown)
		*room = more;
	return grown;
}

static int host_add(struct reading *reading, const union addr *host)
{
	struct own_addresses *now = &reading->now;
	union addr *list = array_grow(now->list, now->count, sizeof(*list),
				      &reading->list_room);

	if (!list)
		return -ENOMEM;
	now->list = list;
	now->list[now->count++] = *host;
	return 0;
}

static int flags_add(struct reading *reading, const union addr *host,
		     uint32_t flags)
{
	struct own_addresses *now = &reading->now;
	struct own_flags *list = array_grow(now->flags, now->flags_count,
					    sizeof(*list),
					    &reading->flags_room);

	if (!list)
		return -ENOMEM;
	now->flags = list;
	now->flags[now->flags_count++] = (struct own_flags){ *host, flags };
	return 0;
}

static int link_add(struct reading *reading, const char *name)
{
	struct own_addresses *now = &reading->now;
	char(*up)[IF_NAMESIZE] = array_grow(now->up, now->up_count, sizeof(*up),
					    &reading->up_room);

	if (!up)
		return -ENOMEM;
	now->up = up;
	memcpy(up[now->up_count++], name, IF_NAMESIZE);
	return 0;
}

size_t turn_own_edges(const union addr *addr, unsigned int bits,
		      union addr out[2])
{
	uint8_t low[16], high[16];
	size_t len;
	const uint8_t *bytes = addr_bytes(addr, &len);

	if (!bytes || bits + 2 > len * 8)
		return 0;
	for (size_t i = 0; i < len; i++) {
		unsigned int left = bits > i * 8 ? bits - (unsigned int)i * 8 :
						   0;
		uint8_t host = left < 8 ? (uint8_t)(0xff >> left) : 0;

		low[i] = bytes[i] & (uint8_t)~host;
		high[i] = bytes[i] | host;
	}
	addr_from_bytes(&out[0], addr_family(addr), low, 0);
	if (len == 16)
		return 1;
	addr_from_bytes(&out[1], addr_family(addr), high, 0);
	return 2;
}

/* What a message says of an address; bytes are NULL without the attribute. */
struct address {
	const void *host, *broadcast;
	uint32_t flags;
};

/* IFA_LOCAL is this end's address where there are two. */
static struct address address_parse(const struct nlmsghdr *msg)
{
	const struct ifaddrmsg *head = NLMSG_DATA(msg);
	const struct rtattr *attr = IFA_RTA(head);
	const size_t len = head->ifa_family == AF_INET6 ? 16 : 4;
	struct address address = { .flags = head->ifa_flags };
	int left = (int)IFA_PAYLOAD(msg);

	for (; RTA_OK(attr, left); attr = RTA_NEXT(attr, left)) {
		if (attr->rta_type == IFA_FLAGS &&
		    RTA_PAYLOAD(attr) >= sizeof(address.flags))
			memcpy(&address.flags, RTA_DATA(attr),
			       sizeof(address.flags));
		if (RTA_PAYLOAD(attr) < len)
			continue;
		if (attr->rta_type == IFA_BROADCAST)
			address.broadcast = RTA_DATA(attr);
		else if (attr->rta_type == IFA_LOCAL ||
			 (attr->rta_type == IFA_ADDRESS && !address.host))
			address.host = RTA_DATA(attr);
	}
	address.flags &= MATTERS;
	/* The same bit is IFA_F_SECONDARY of IPv4. */
	if (head->ifa_family == AF_INET)
		address.flags &= ~(uint32_t)IFA_F_TEMPORARY;
	return address;
}

static int address_take(struct reading *reading, const struct nlmsghdr *msg)
{
	const struct ifaddrmsg *head = NLMSG_DATA(msg);
	const sa_family_t family = head->ifa_family;
	struct address address;
	union addr hosts[4]; /* itself, its network's ends, its broadcast */
	size_t count = 1;
	int err = 0;

	if (msg->nlmsg_type != RTM_NEWADDR ||
	    msg->nlmsg_len < NLMSG_LENGTH(sizeof(*head)) ||
	    (family != AF_INET && family != AF_INET6))
		return 0;
	address = address_parse(msg);
	if (!address.host)
		return 0;
	addr_from_bytes(&hosts[0], family, address.host, 0);
	count += turn_own_edges(&hosts[0], head->ifa_prefixlen, &hosts[1]);
	if (address.broadcast)
		addr_from_bytes(&hosts[count++], family, address.broadcast, 0);
	if (address.flags)
		err = flags_add(reading, &hosts[0], address.flags);
	for (size_t i = 0; i < count && !err; i++)
		err = host_add(reading, &hosts[i]);
	return err;
}

static int link_take(struct reading *reading, const struct nlmsghdr *msg)
{
	const struct ifinfomsg *head = NLMSG_DATA(msg);
	const unsigned int up = IFF_UP | IFF_RUNNING;
	const struct rtattr *attr = IFLA_RTA(head);
	char name[IF_NAMESIZE] = { 0 };
	int left = (int)IFLA_PAYLOAD(msg);

	if (msg->nlmsg_type != RTM_NEWLINK ||
	    msg->nlmsg_len < NLMSG_LENGTH(sizeof(*head)) ||
	    (head->ifi_flags & up) != up)
		return 0;
	for (; RTA_OK(attr, left); attr = RTA_NEXT(attr, left))
		if (attr->rta_type == IFLA_IFNAME &&
		    RTA_PAYLOAD(attr) <= sizeof(name))
			memcpy(name, RTA_DATA(attr), RTA_PAYLOAD(attr));
	name[sizeof(name) - 1] = '\0';
	return link_add(reading, name);
}

/* An error's message and a dump's last one have a negative errno, or 0. */
static int message_error(const struct nlmsghdr *msg)
{
	int err = 0;

	if (msg->nlmsg_len >= NLMSG_LENGTH(sizeof(err)))
		memcpy(&err, NLMSG_DATA(msg), sizeof(err));
	if (msg->nlmsg_type == NLMSG_ERROR && err >= 0)
		return -EPROTO;
	return err < 0 ? err : 0;
}

static int batch_take(struct reading *reading, const void *buf, size_t len,
		      message_fn take)
{
	const struct nlmsghdr *msg = buf;
	int err = 0;

	for (; NLMSG_OK(msg, len) && !err && !reading->ended;
	     msg = NLMSG_NEXT(msg, len)) {
		reading->disturbed |= !!(msg->nlmsg_flags & NLM_F_DUMP_INTR);
		reading->ended = msg->nlmsg_type == NLMSG_DONE;
		if (reading->ended || msg->nlmsg_type == NLMSG_ERROR)
			err = message_error(msg);
		else
			err = take(reading, msg);
	}
	return err;
}

static int batches_read(struct reading *reading, int fd, message_fn take)
{
	void *buf = malloc(BATCH_ROOM);
	int err = buf ? 0 : -ENOMEM;

	while (!err && !reading->ended) {
		ssize_t n = recv(fd, buf, BATCH_ROOM, MSG_TRUNC);

		if (n > BATCH_ROOM)
			err = -EMSGSIZE;
		else if (n <= 0)
			err = n < 0 ? -errno : -EPROTO;
		else
			err = batch_take(reading, buf, (size_t)n, take);
	}
	free(buf);
	return err;
}

/* Links' statistics, most of what there is to tell, are left out. */
static int dump_ask(int fd, uint16_t type)
{
	struct {
		struct nlmsghdr head;
		struct ifinfomsg body;
		struct rtattr attr;
		uint32_t mask;
	} request = {
		.head = { .nlmsg_len = sizeof(request),
			  .nlmsg_type = type,
			  .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.attr = { RTA_LENGTH(sizeof(request.mask)), IFLA_EXT_MASK },
		.mask = RTEXT_FILTER_SKIP_STATS,
	};

	if (type == RTM_GETADDR)
		request.head.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifaddrmsg));
	return send(fd, &request, request.head.nlmsg_len, 0) < 0 ? -errno : 0;
}

/* A socket of its own: what is left of a dump that failed goes with it. */
static int dump_read(struct reading *reading, uint16_t type, message_fn take)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	int err;

	if (fd < 0)
		return -errno;
	reading->ended = false;
	err = dump_ask(fd, type);
	if (!err)
		err = batches_read(reading, fd, take);
	close(fd);
	return err;
}

static int reading_make(struct reading *reading)
{
	int err = -EINTR;

	for (int try = 0; try < DUMP_TRIES && err == -EINTR; try++) {
		turn_own_addresses_clear(&reading->now);
		*reading = (struct reading){ .ended = false };
		err = dump_read(reading, RTM_GETADDR, address_take);
		if (!err)
			err = dump_read(reading, RTM_GETLINK, link_take);
		if (!err && reading->disturbed)
			err = -EINTR;
	}
	return err;
}

/* In another order they count as changed: then channels are judged once more. */
static bool list_same(const struct own_addresses *own,
		      const struct own_addresses *now)
{
	if (own->count != now->count)
		return false;
	for (size_t i = 0; i < now->count; i++)
		if (!addr_same_host(&own->list[i], &now->list[i]))
			return false;
	return true;
}

int turn_own_addresses_read(struct own_addresses *own, bool *changed)
{
	struct reading reading = { .ended = false };
	int err = reading_make(&reading);

	if (err) {
		turn_own_addresses_clear(&reading.now);
		return err;
	}
	*changed = !list_same(own, &reading.now);
	reading.now.next_ms = own->next_ms;
	turn_own_addresses_clear(own);
	*own = reading.now;
	return 0;
}

void turn_own_addresses_clear(struct own_addresses *own)
{
	free(own->list);
	free(own->flags);
	free(own->up);
	*own = (struct own_addresses){ 0 };
}

bool turn_own_link_up(const struct own_addresses *own, const char *name)
{
	for (size_t i = 0; i < own->up_count; i++)
		if (!strcmp(own->up[i], name))
			return true;
	return false;
}

uint32_t turn_own_flags(const struct own_addresses *own, const union addr *host)
{
	uint32_t flags = 0;

	for (size_t i = 0; i < own->flags_count; i++)
		if (addr_same_host(&own->flags[i].host, host))
			flags |= own->flags[i].flags;
	return flags;
}
