/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages with descriptors: SCM_RIGHTS, read and written in one place. */
#include "base/message.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/syscalls.h"

SYSCALLS(SYSCALLS_ALL, "sendmsg recvmsg close");

union fd_space {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int) * MESSAGE_FDS_MAX)];
};

int message_send(int fd, const void *body, size_t len, const int *fds,
		 size_t fd_count, int flags)
{
	struct iovec part = { .iov_base = (void *)body, .iov_len = len };
	struct msghdr head = { .msg_iov = &part, .msg_iovlen = 1 };
	union fd_space space BYTES_UNSET;

	if (fd_count > MESSAGE_FDS_MAX)
		return -EINVAL;
	if (fd_count) {
		struct cmsghdr *rights;

		head.msg_control = space.bytes;
		head.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
		memset(&space, 0, head.msg_controllen);
		rights = CMSG_FIRSTHDR(&head);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
		memcpy(CMSG_DATA(rights), fds, sizeof(int) * fd_count);
	}
	while (sendmsg(fd, &head, flags | MSG_NOSIGNAL) < 0) {
		if (errno == ENOBUFS)
			return -EAGAIN;
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

static size_t fds_take(struct msghdr *head, int *fds)
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

int message_recv(int fd, void *body, size_t room, size_t fds_max, int flags,
		 struct message *out)
{
	struct iovec part = { .iov_base = body, .iov_len = room };
	union fd_space space BYTES_UNSET;
	/* CMSG_SPACE rounds up: one descriptor more would find room. */
	struct msghdr head = { .msg_iov = &part,
			       .msg_iovlen = 1,
			       .msg_control = space.bytes,
			       .msg_controllen =
				       CMSG_LEN(sizeof(int) * fds_max) };
	size_t fd_count;
	ssize_t n;

	if (fds_max > MESSAGE_FDS_MAX)
		return -EINVAL;
	do
		n = recvmsg(fd, &head, flags | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	fd_count = fds_take(&head, out->fds);
	/* Without descriptors an empty message is what the end looks like. */
	if (n == 0 && !fd_count)
		return -EPIPE;
	out->len = (size_t)n;
	out->cut = head.msg_flags & MSG_TRUNC;
	out->fds_lost = head.msg_flags & MSG_CTRUNC;
	out->fd_count = fd_count;
	return 0;
}

void message_close(struct message *message)
{
	while (message->fd_count)
		close(message->fds[--message->fd_count]);
}

bool packet_add(struct packet *packet, const void *body, size_t len,
		const int *fds, size_t fd_count)
{
	if (packet->count == PACKET_MESSAGES ||
	    len > PACKET_BYTES - packet->len ||
	    fd_count > PACKET_FDS - packet->fd_count)
		return false;
	memcpy(packet->bytes + packet->len, body, len);
	if (fd_count)
		memcpy(packet->fds + packet->fd_count, fds,
		       sizeof(int) * fd_count);
	packet->len += len;
	packet->fd_count += fd_count;
	packet->count++;
	return true;
}

int packet_send(int fd, const struct packet *packet, int flags)
{
	return message_send(fd, packet->bytes, packet->len, packet->fds,
			    packet->fd_count, flags);
}
