/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages between the supervisor and the relay role. */
#include "main/channel.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#define SEND_LIMIT_S 5

_Static_assert(sizeof(struct channel_msg) == 264, "one layout on both sides");

union fd_space {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int) * CHANNEL_FDS_MAX)];
};

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
	struct iovec part = { .iov_base = &msg, .iov_len = sizeof(msg) };
	struct msghdr head = { .msg_iov = &part, .msg_iovlen = 1 };
	union fd_space space;

	if (fd_count > CHANNEL_FDS_MAX)
		return -EINVAL;
	snprintf(msg.text, sizeof(msg.text), "%s", text);
	if (fd_count) {
		memset(&space, 0, sizeof(space));
		head.msg_control = space.bytes;
		head.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
		struct cmsghdr *rights = CMSG_FIRSTHDR(&head);

		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
		memcpy(CMSG_DATA(rights), fds, sizeof(int) * fd_count);
	}
	while (sendmsg(fd, &head, MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

static size_t fds_take(struct msghdr *head, int fds[CHANNEL_FDS_MAX])
{
	size_t count = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(head); c;
	     c = CMSG_NXTHDR(head, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), count * sizeof(int));
	}
	return count;
}

int channel_recv(int fd, struct channel_msg *out, int fds[CHANNEL_FDS_MAX],
		 size_t *fd_count)
{
	struct channel_msg msg;
	struct iovec part = { .iov_base = &msg, .iov_len = sizeof(msg) };
	union fd_space space;
	struct msghdr head = { .msg_iov = &part,
			       .msg_iovlen = 1,
			       .msg_control = space.bytes,
			       .msg_controllen = sizeof(space.bytes) };
	ssize_t n;

	do
		n = recvmsg(fd, &head, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	size_t count = fds_take(&head, fds);
	if (n == 0 && count == 0)
		return -EPIPE;
	bool bad = n != sizeof(msg) || head.msg_flags & MSG_TRUNC ||
		   msg.type < CHANNEL_RELOAD || msg.type >= CHANNEL_TYPES ||
		   !memchr(msg.text, '\0', sizeof(msg.text));
	/* MSG_CTRUNC: descriptors were lost, for want of free ones here. */
	if (bad || head.msg_flags & MSG_CTRUNC)
		while (count)
			close(fds[--count]);
	if (bad)
		return -EBADMSG;
	*out = msg;
	*fd_count = count;
	return 0;
}
