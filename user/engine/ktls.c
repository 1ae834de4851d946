/* SPDX-License-Identifier: BSD-2-Clause */
/* Has this kernel TLS? */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/syscalls.h"
#include "engine/engine.h"

SYSCALLS_EQUAL(SYSCALLS_RELAY, "socket", 0, AF_INET);
SYSCALLS(SYSCALLS_RELAY, "setsockopt close");

int engine_ktls_probe(void)
{
	static const char name[] = "tls";
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int err;

	if (fd < 0)
		return -errno;
	/* The module is looked for before the socket's state. */
	err = setsockopt(fd, IPPROTO_TCP, TCP_ULP, name, sizeof(name) - 1) < 0 ?
		      -errno :
		      0;
	close(fd);
	return err == -ENOTCONN ? 0 : err;
}
