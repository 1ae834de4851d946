/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Has this kernel TLS that can be relied on?
 *
 * Quirks:
 * - Linux 6.1 sends bytes twice when a nonblocking writer meets a full socket, and
 *   its poll(2) says readable for a part of a record, of which nothing can be read
 *   (test_ktls_kernel sees both). 6.12 does neither.
 * - Before 6.12.55 and 6.18 a splice(2) of many small pieces sealed a record with
 *   bytes of the kernel's memory behind them ("tls: trim encrypted message to
 *   match the plaintext on short splice").
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

SYSCALLS_SOCKET(SYSCALLS_RELAY, AF_INET, 0);
SYSCALLS(SYSCALLS_RELAY, "setsockopt close uname");

static bool kernel_fit(void)
{
	unsigned int major, minor, patch = 0;
	struct utsname name;

	if (uname(&name) < 0 ||
	    sscanf(name.release, "%u.%u.%u", &major, &minor, &patch) < 2)
		return false;
	return major > 6 || (major == 6 && minor >= 18) ||
	       (major == 6 && minor == 12 && patch >= 55);
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
