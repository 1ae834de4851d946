/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Network devices, by rtnetlink. Our programs belong on every Ethernet device that
 * packets reach under its own name: not on lo, not on a port of a bridge or a
 * member of a bond or team, whose packets are seen at the device above; or on the
 * devices that the configuration names.
 *
 *   RTM_NEWLINK -> carries? attached : removed        RTM_DELLINK -> removed
 *
 * A pin is named after the device's index, which no rename changes. Messages that
 * are lost (ENOBUFS) make all devices be listed anew.
 */
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if_arp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/syscalls.h"
#include "broker/kernel.h"

SYSCALLS_SOCKET(SYSCALLS_BROKER, AF_NETLINK, NETLINK_ROUTE);
SYSCALLS_SOCKET(SYSCALLS_BROKER, AF_INET, 0);
SYSCALLS_SOCKET(SYSCALLS_BROKER, AF_UNIX, 0); /* if_nametoindex() */
SYSCALLS(SYSCALLS_BROKER, "bind sendto recvfrom ioctl close");

#define DUMP_SIZE 32768
#define AGAIN_MS  1000

/* What a message says of a device. */
struct seen {
	int index;
	char name[IFNAMSIZ];
	bool ethernet, loopback;
	bool part; /* of a bridge, bond or team */
};

static struct device *find(const struct kernel *kernel, int index)
{
	struct list *pos;

	list_for_each(pos, &kernel->devices) {
		struct device *device = list_entry(pos, struct device, link);

		if (device->index == index)
			return device;
	}
	return NULL;
}

bool device_attached(const struct kernel *kernel, int index)
{
	const struct device *device = find(kernel, index);

	return device && device->attached;
}

static bool wanted(const struct kernel *kernel, const struct seen *seen)
{
	if (!seen->ethernet || seen->loopback)
		return false;
	if (!kernel->wanted_count)
		return !seen->part;
	for (size_t i = 0; i < kernel->wanted_count; i++)
		if (strcmp(kernel->wanted[i], seen->name) == 0)
			return true;
	return false;
}

/*
 * Large receive offload merges packets so that they cannot be forwarded; the
 * kernel turns it off itself only where it forwards by its own.
 */
static void lro_off(const char *name)
{
	struct ethtool_value value = { .cmd = ETHTOOL_GFLAGS };
	struct ifreq request;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return;
	memset(&request, 0, sizeof(request));
	memcpy(request.ifr_name, name, IFNAMSIZ);
	request.ifr_data = (void *)&value;
	if (ioctl(fd, SIOCETHTOOL, &request) == 0 &&
	    value.data & ETH_FLAG_LRO) {
		value.cmd = ETHTOOL_SFLAGS;
		value.data &= ~(uint32_t)ETH_FLAG_LRO;
		if (ioctl(fd, SIOCETHTOOL, &request) == 0)
			log_info("broker", "event=lro_off device=%s", name);
		else
			log_warn("broker",
				 "event=lro_stays device=%s error=\"%s\" "
				 "effect=\"merged packets cannot be "
				 "forwarded\"",
				 name, strerror(errno));
	}
	close(fd);
}

static void device_attach(struct kernel *kernel, struct device *device)
{
	const bool was = device->attached;
	int err = attach_device(kernel, device);

	/* -ENODEV: it has gone meanwhile, and we shall hear of that. */
	if (err && err != -ENODEV)
		log_error("broker",
			  "event=attach_failed device=%s error=\"%s\" "
			  "effect=\"no wire over it\"",
			  device->name, strerror(-err));
	device->attached = !err;
	if (err)
		return;
	lro_off(device->name);
	if (was)
		return;
	log_info("broker", "event=attached device=%s by=%s", device->name,
		 kernel->clsact ? "clsact" : "tcx");
}

static void device_detach(struct kernel *kernel, struct device *device)
{
	if (!device->attached)
		return;
	attach_remove(kernel->dir, device->index);
	device->attached = false;
	log_info("broker", "event=detached device=%s", device->name);
}

static void device_forget(struct kernel *kernel, struct device *device)
{
	device_detach(kernel, device);
	list_del(&device->link);
	free(device);
}

static void device_seen(struct kernel *kernel, const struct seen *seen)
{
	struct device *device = find(kernel, seen->index);

	if (!device) {
		device = calloc(1, sizeof(*device));
		if (!device)
			return;
		device->index = seen->index;
		list_add_tail(&device->link, &kernel->devices);
	}
	memcpy(device->name, seen->name, sizeof(device->name));
	device->carries = wanted(kernel, seen);
	device->listed = true;
	if (device->carries && (!device->attached || kernel->links_lost))
		device_attach(kernel, device);
	else if (!device->carries)
		device_detach(kernel, device);
}

/* A VRF's devices are parts of it, too, but see their packets themselves. */
static bool part_of_other(struct rtattr *info)
{
	int left = (int)RTA_PAYLOAD(info);

	for (struct rtattr *a = RTA_DATA(info); RTA_OK(a, left);
	     a = RTA_NEXT(a, left))
		if (a->rta_type == IFLA_INFO_SLAVE_KIND)
			return strncmp(RTA_DATA(a), "vrf", RTA_PAYLOAD(a)) != 0;
	return true;
}

static void seen_read(struct nlmsghdr *head, struct seen *seen)
{
	struct ifinfomsg *info = NLMSG_DATA(head);
	int left = (int)head->nlmsg_len - (int)NLMSG_LENGTH(sizeof(*info));
	struct rtattr *kind = NULL;
	bool has_master = false;

	memset(seen, 0, sizeof(*seen));
	seen->index = info->ifi_index;
	seen->ethernet = info->ifi_type == ARPHRD_ETHER;
	seen->loopback = info->ifi_flags & IFF_LOOPBACK;
	for (struct rtattr *a = IFLA_RTA(info); RTA_OK(a, left);
	     a = RTA_NEXT(a, left)) {
		size_t len = RTA_PAYLOAD(a);

		if (a->rta_type == IFLA_IFNAME && len <= IFNAMSIZ)
			memcpy(seen->name, RTA_DATA(a), len);
		else if (a->rta_type == IFLA_MASTER)
			has_master = true;
		else if ((a->rta_type & NLA_TYPE_MASK) == IFLA_LINKINFO)
			kind = a;
	}
	seen->name[IFNAMSIZ - 1] = '\0';
	seen->part = has_master && (!kind || part_of_other(kind));
}

/* false: the end of a listing. */
static bool message_handle(struct kernel *kernel, struct nlmsghdr *head)
{
	const struct ifinfomsg *info = NLMSG_DATA(head);
	struct device *device;
	struct seen seen;

	if (head->nlmsg_type == NLMSG_DONE || head->nlmsg_type == NLMSG_ERROR)
		return false;
	if (head->nlmsg_len < NLMSG_LENGTH(sizeof(*info)))
		return true;
	/* A port that leaves its bridge is reported as a deleted AF_BRIDGE link. */
	if (info->ifi_family != AF_UNSPEC)
		return true;
	if (head->nlmsg_type == RTM_NEWLINK) {
		seen_read(head, &seen);
		device_seen(kernel, &seen);
	} else if (head->nlmsg_type == RTM_DELLINK) {
		device = find(kernel, info->ifi_index);
		if (device)
			device_forget(kernel, device);
	}
	return true;
}

/* One datagram; 1, 0 at the end of a listing, or a negative errno. */
static int messages_read(struct kernel *kernel, int fd, int flags)
{
	static union {
		struct nlmsghdr head;
		char bytes[DUMP_SIZE];
	} buffer;
	ssize_t n = recv(fd, &buffer, sizeof(buffer), flags);
	unsigned int left;

	if (n < 0)
		return errno == EINTR ? 1 : -errno;
	left = (unsigned int)n;
	for (struct nlmsghdr *head = &buffer.head; NLMSG_OK(head, left);
	     head = NLMSG_NEXT(head, left))
		if (!message_handle(kernel, head))
			return 0;
	return 1;
}

static int devices_list(struct kernel *kernel)
{
	struct {
		struct nlmsghdr head;
		struct ifinfomsg info;
	} request = {
		.head = { .nlmsg_len = sizeof(request),
			  .nlmsg_type = RTM_GETLINK,
			  .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
	};
	struct list *pos, *tmp;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	int err;

	if (fd < 0)
		return -errno;
	list_for_each(pos, &kernel->devices)
		list_entry(pos, struct device, link)->listed = false;
	err = send(fd, &request, sizeof(request), 0) < 0 ? -errno : 1;
	while (err > 0)
		err = messages_read(kernel, fd, 0);
	close(fd);
	if (err)
		return err;
	list_for_each_safe(pos, tmp, &kernel->devices) {
		struct device *device = list_entry(pos, struct device, link);

		if (!device->listed)
			device_forget(kernel, device);
	}
	return 0;
}

/*
 * Each that is there is attached to once more, which changes nothing where our
 * programs are: what was lost may be that another device has got its index.
 */
static void again_run(struct timer *timer)
{
	struct kernel *kernel = list_entry(timer, struct kernel, link_again);

	if (devices_list(kernel))
		timer_arm(kernel->loop, timer, AGAIN_MS, again_run);
	else
		kernel->links_lost = false;
}

static void links_ready(struct watch *watch, uint32_t events)
{
	struct kernel *kernel = list_entry(watch, struct kernel, link_watch);
	int err;

	(void)events;
	/* All that is old is read before the listing, which it would undo. */
	do {
		err = messages_read(kernel, watch->fd, MSG_DONTWAIT);
		if (err == -ENOBUFS)
			kernel->links_lost = true;
	} while (err >= 0 || err == -ENOBUFS);
	if (kernel->links_lost)
		timer_arm(kernel->loop, &kernel->link_again, 0, again_run);
}

static int links_watch(struct kernel *kernel)
{
	struct sockaddr_nl groups = { .nl_family = AF_NETLINK,
				      .nl_groups = RTMGRP_LINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
			NETLINK_ROUTE);
	int err;

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&groups, sizeof(groups)) < 0)
		err = -errno;
	else
		err = watch_add(kernel->loop, &kernel->link_watch, fd, EPOLLIN,
				links_ready);
	if (err)
		close(fd);
	return err;
}

/* Pins of devices that have gone, or that are not wanted any more. */
static void stale_remove(void *arg, const char *name)
{
	struct kernel *kernel = arg;
	int index = attach_pin_index(name);
	const struct device *device = index ? find(kernel, index) : NULL;

	if (index && (!device || !device->attached))
		attach_remove(kernel->dir, index);
}

/* A name that is written wrong looks like a device that has yet to come. */
static void missing_tell(const struct kernel *kernel)
{
	for (size_t i = 0; i < kernel->wanted_count; i++)
		if (!if_nametoindex(kernel->wanted[i]))
			log_warn("broker",
				 "event=device_missing device=%s "
				 "hint=\"in [engine] wire_devices; it is "
				 "attached to when it comes\"",
				 kernel->wanted[i]);
}

int devices_start(struct kernel *kernel)
{
	/* Watched before they are listed: nothing falls between. */
	int err = links_watch(kernel);

	if (!err)
		err = devices_list(kernel);
	if (err)
		return err;
	pin_each(kernel->dir, stale_remove, kernel);
	missing_tell(kernel);
	return 0;
}

void devices_free(struct kernel *kernel)
{
	struct list *pos, *tmp;

	timer_cancel(kernel->loop, &kernel->link_again);
	watch_close(kernel->loop, &kernel->link_watch);
	list_for_each_safe(pos, tmp, &kernel->devices)
		free(list_entry(pos, struct device, link));
	list_init(&kernel->devices);
}
