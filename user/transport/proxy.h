/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PROXY protocol, versions 1 and 2: the line or the block in which a proxy says where
 * a connection really comes from, before anything else on it.
 */
#ifndef TRANSPORT_PROXY_H
#define TRANSPORT_PROXY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/addr.h"

/* More than any proxy has to say; the rest of 64 KiB is refused. */
#define PROXY_HEADER_MAX ((size_t)2048)

/*
 * The header at the head of the bytes: its length, 0 when there is more of it to
 * come, -EBADMSG when it is none or too long. *source is AF_UNSPEC when the proxy
 * names nobody (UNKNOWN, LOCAL, UNSPEC).
 */
ssize_t proxy_parse(const uint8_t *data, size_t len, union addr *source);

/* A header that is being read; zero-initialise `have`. */
struct proxy_reader {
	size_t have;
	uint8_t bytes[PROXY_HEADER_MAX];
};

/*
 * Takes the header off a nonblocking socket, and not a byte more. 0 with *source,
 * -EAGAIN (there is more of it to come), -EBADMSG, -ECONNABORTED (the connection
 * ended) or another negative errno.
 */
int proxy_read(struct proxy_reader *reader, int fd, union addr *source);

#endif
