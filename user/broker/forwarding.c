/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The BPF programs look routes up as for a packet of this host, whose incoming
 * device is lo; the kernel answers only if lo forwards. The host need not forward
 * otherwise. What the switches were before is kept with the pins, so that the
 * broker which ends cleanly restores what the first one found.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/kernel.h"

#define LOOK_MS 200

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

/*
 * Whoever writes net.ipv4.ip_forward sets the switch of every device, lo's, too.
 */
static void look(struct timer *timer)
{
	struct kernel *kernel =
		list_entry(timer, struct kernel, forwarding_look);

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
	timer_arm(kernel->loop, timer, LOOK_MS, look);
}

void forwarding_keep(struct kernel *kernel)
{
	timer_arm(kernel->loop, &kernel->forwarding_look, LOOK_MS, look);
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
	fd_close(&kernel->forwarding_fds[0]);
	fd_close(&kernel->forwarding_fds[1]);
}
