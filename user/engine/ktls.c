/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Has this kernel TLS that can be relied on?
 *
 * Quirks: Linux 6.1 sends bytes twice when a nonblocking writer meets a full
 * socket, and its poll(2) says readable for a part of a record, of which nothing
 * can be read (test_ktls_kernel sees both). 6.12 does neither.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/syscalls.h"
#include "engine/engine.h"

SYSCALLS_EQUAL(SYSCALLS_RELAY, "socket", 0, AF_INET);
SYSCALLS(SYSCALLS_RELAY, "setsockopt close uname");

#define MAJOR 6
#define MINOR 12

static bool kernel_fit(void)
{
	unsigned int major, minor;
	struct utsname name;

	return uname(&name) == 0 &&
	       sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
	       (major > MAJOR || (major == MAJOR && minor >= MINOR));
}

int engine_ktls_probe(void)
{
	static const char name[] = "tls";
	int fd, err;

	if (!kernel_fit())
		return -EOPNOTSUPP;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* The module is looked for before the socket's state. */
	err = setsockopt(fd, IPPROTO_TCP, TCP_ULP, name, sizeof(name) - 1) < 0 ?
		      -errno :
		      0;
	close(fd);
	return err == -ENOTCONN ? 0 : err;
}
