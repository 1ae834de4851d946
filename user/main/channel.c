/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages between the supervisor and the relay role. */
#include "main/channel.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/message.h"
#include "base/syscalls.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "socketpair");
SYSCALLS(SYSCALLS_ALL, "setsockopt");

#define SEND_LIMIT_S 5

_Static_assert(sizeof(struct channel_msg) == 264, "one layout on both sides");

_Static_assert(CHANNEL_FDS_MAX <= MESSAGE_FDS_MAX, "room for descriptors");

int channel_new(int fds[2])
{
	const struct timeval limit = { .tv_sec = SEND_LIMIT_S };
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	for (int i = 0; i < 2; i++) {
		/* One that hangs must not make the other one hang. */
		setsockopt(pair[i], SOL_SOCKET, SO_SNDTIMEO, &limit,
			   sizeof(limit));
		fds[i] = pair[i];
	}
	return 0;
}

int channel_send(int fd, enum channel_type type, int result, const char *text,
		 const int *fds, size_t fd_count)
{
	struct channel_msg msg = { .type = type, .result = result };

	if (fd_count > CHANNEL_FDS_MAX)
		return -EINVAL;
	snprintf(msg.text, sizeof(msg.text), "%s", text);
	return message_send(fd, &msg, sizeof(msg), fds, fd_count, 0);
}

int channel_recv(int fd, struct channel_msg *out, int fds[CHANNEL_FDS_MAX],
		 size_t *fd_count)
{
	struct channel_msg msg;
	struct message got;
	int err = message_recv(fd, &msg, sizeof(msg), CHANNEL_FDS_MAX, 0, &got);
	bool bad;

	if (err)
		return err;
	bad = got.len != sizeof(msg) || got.cut || msg.type < CHANNEL_RELOAD ||
	      msg.type >= CHANNEL_TYPES ||
	      !memchr(msg.text, '\0', sizeof(msg.text));
	if (bad || got.fds_lost)
		message_close(&got);
	if (bad)
		return -EBADMSG;
	*out = msg;
	memcpy(fds, got.fds, got.fd_count * sizeof(int));
	*fd_count = got.fd_count;
	return 0;
}
