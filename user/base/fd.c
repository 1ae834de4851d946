/* SPDX-License-Identifier: BSD-2-Clause */
/* File descriptor helpers. */
#include "base/fd.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/syscalls.h"

SYSCALLS(SYSCALLS_ALL, "close setsockopt");
SYSCALLS_EQUAL(SYSCALLS_ALL, "ioctl", 1, SIOCOUTQ);

void fd_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

void fd_reset(int *fd)
{
	struct linger hard = { .l_onoff = 1, .l_linger = 0 };

	if (*fd >= 0)
		setsockopt(*fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	fd_close(fd);
}

void fd_keepalive(int fd, uint64_t idle_ms)
{
	const int on = idle_ms > 0;
	uint64_t idle_s = (idle_ms + 999) / 1000;
	/* tcp_sock(7): the kernel takes no more. */
	const int idle = idle_s > 32767 ? 32767 : (int)idle_s;

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	if (on)
		setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
}

void fd_inline(int fd)
{
	const int on = 1;

	setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on));
}

size_t fd_unsent(int fd)
{
	int value = 0;

	if (ioctl(fd, SIOCOUTQ, &value) < 0 || value < 0)
		return 0;
	return (size_t)value;
}
