/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The BPF programs look routes up as for a packet of this host, whose incoming
 * device is lo; the kernel answers only if lo forwards. The host need not forward
 * otherwise. What the switches were before is kept with the pins, so that the
 * broker which ends cleanly restores what the first one found.
 *
 * Whoever writes net.ipv4.ip_forward sets the switch of every device, lo's, too:
 * the kernel tells of changed switches by rtnetlink, and they are set again.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "broker/kernel.h"

SYSCALLS_SOCKET(SYSCALLS_BROKER_START, AF_NETLINK, NETLINK_ROUTE);
SYSCALLS(SYSCALLS_BROKER_START, "openat bind");
SYSCALLS(SYSCALLS_BROKER_START | SYSCALLS_BROKER,
	 "pread64 pwrite64 recvfrom close");

#define MESSAGE_SIZE 4096

static const char *const paths[2] = {
	"/proc/sys/net/ipv4/conf/lo/forwarding",
	"/proc/sys/net/ipv6/conf/lo/forwarding",
};

static int switch_read(int fd)
{
	char text[16] = "";

	if (pread(fd, text, sizeof(text) - 1, 0) <= 0)
		return -1;
	return (int)strtol(text, NULL, 10);
}

static int switch_write(int fd, int value)
{
	char text = (char)('0' + value);

	return pwrite(fd, &text, 1, 0) == 1 ? 0 : -errno;
}

static int switch_set(struct kernel *kernel, int which)
{
	int before;
	int err;
	int fd = open(paths[which], O_RDWR | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT && which == 1)
		return 0; /* a kernel without IPv6 */
	if (fd < 0) {
		/* Read-only, as in a container: somebody else may have set it. */
		err = -errno;
		fd = open(paths[which], O_RDONLY | O_CLOEXEC);
		before = switch_read(fd);
		fd_close(&fd);
		return before == 1 ? 0 : err;
	}
	before = switch_read(fd);
	err = before == 1 ? 0 : switch_write(fd, 1);
	if (err) {
		close(fd);
		return err;
	}
	if (kernel->header.forwarding[which] < 0)
		kernel->header.forwarding[which] = before;
	kernel->forwarding_fds[which] = fd;
	return 0;
}

int forwarding_start(struct kernel *kernel)
{
	for (int i = 0; i < 2; i++) {
		int err = switch_set(kernel, i);

		if (err) {
			log_error("broker",
				  "event=forwarding_failed file=%s "
				  "error=\"%s\"",
				  paths[i], strerror(-err));
			return err;
		}
	}
	return 0;
}

static void switches_look(struct kernel *kernel)
{
	for (int i = 0; i < 2; i++) {
		if (kernel->forwarding_fds[i] < 0 ||
		    switch_read(kernel->forwarding_fds[i]) != 0)
			continue;
		switch_write(kernel->forwarding_fds[i], 1);
		log_warn("broker",
			 "event=forwarding_set file=%s reason=\"somebody "
			 "cleared it: nothing went by wire\"",
			 paths[i]);
	}
}

/* Some switch of some device has changed: which one does not matter. */
static void changed(struct watch *watch, uint32_t events)
{
	char message[MESSAGE_SIZE];

	(void)events;
	/* ENOBUFS says that some were lost, and is over with that. */
	while (recv(watch->fd, message, sizeof(message), MSG_DONTWAIT) >= 0 ||
	       errno == EINTR || errno == ENOBUFS)
		;
	switches_look(list_entry(watch, struct kernel, forwarding_watch));
}

int forwarding_keep(struct kernel *kernel)
{
	struct sockaddr_nl groups = {
		.nl_family = AF_NETLINK,
		.nl_groups = 1u << (RTNLGRP_IPV4_NETCONF - 1) |
			     1u << (RTNLGRP_IPV6_NETCONF - 1),
	};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
			NETLINK_ROUTE);
	int err = fd < 0 ? -errno : 0;

	if (!err && bind(fd, (struct sockaddr *)&groups, sizeof(groups)) < 0)
		err = -errno;
	if (!err)
		err = watch_add(kernel->loop, &kernel->forwarding_watch, fd,
				EPOLLIN, changed);
	if (err)
		fd_close(&fd);
	else
		switches_look(kernel); /* what changed before we listened */
	return err;
}

void forwarding_restore(struct kernel *kernel)
{
	for (int i = 0; i < 2; i++)
		if (kernel->forwarding_fds[i] >= 0 &&
		    kernel->header.forwarding[i] == 0)
			switch_write(kernel->forwarding_fds[i], 0);
}

void forwarding_undo(const struct pin_header *header)
{
	for (int i = 0; i < 2; i++) {
		int fd = -1;

		if (header->forwarding[i] == 0)
			fd = open(paths[i], O_WRONLY | O_CLOEXEC);
		if (fd >= 0)
			switch_write(fd, 0);
		fd_close(&fd);
	}
}

void forwarding_close(struct kernel *kernel)
{
	watch_close(kernel->loop, &kernel->forwarding_watch);
	fd_close(&kernel->forwarding_fds[0]);
	fd_close(&kernel->forwarding_fds[1]);
}
