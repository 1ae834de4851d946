/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the helper tells its process's parent, as a file in memory: it has any length,
 * is taken whole or not at all, and goes on by its descriptor to whom it is for.
 *
 * A head, then as many addresses as it says. Both sides are of one program.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/syscalls.h"
#include "exit/exit.h"

SYSCALLS(SYSCALLS_EXIT, "memfd_create write close");
SYSCALLS(SYSCALLS_RELAY, "fstat newfstatat pread64");

#define DEAD_MOST (1u << 20) /* more than any configuration makes */

struct head {
	uint64_t dead_count;
};

void exit_notice_clear(struct exit_notice *notice)
{
	free(notice->dead);
	*notice = (struct exit_notice){ .dead = NULL };
}

bool exit_notice_same(const struct exit_notice *a, const struct exit_notice *b)
{
	return a->dead_count == b->dead_count &&
	       (!a->dead_count ||
		!memcmp(a->dead, b->dead, a->dead_count * sizeof(a->dead[0])));
}

static int put(int fd, const void *bytes, size_t len)
{
	const uint8_t *at = bytes;

	while (len) {
		ssize_t n = write(fd, at, len);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

int exit_notice_pack(const struct exit_notice *notice)
{
	const struct head head = { .dead_count = notice->dead_count };
	int fd = memfd_create("culvert.exits", MFD_CLOEXEC);
	int err;

	if (fd < 0)
		return -errno;
	err = put(fd, &head, sizeof(head));
	if (!err)
		err = put(fd, notice->dead,
			  notice->dead_count * sizeof(notice->dead[0]));
	if (!err)
		return fd;
	close(fd);
	return err;
}

static int get(int fd, void *bytes, size_t len, size_t from)
{
	ssize_t n = pread(fd, bytes, len, (off_t)from);

	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EBADMSG;
}

/* In order, each with its first address before its last, as those who search expect. */
static bool spans_valid(const struct addr_span *spans, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct addr_span *one = &spans[i];

		if ((one->family != AF_INET && one->family != AF_INET6) ||
		    memcmp(one->first, one->last, sizeof(one->first)) > 0)
			return false;
		if (i && addr_span_compare(&spans[i - 1], one) >= 0)
			return false;
	}
	return true;
}

int exit_notice_unpack(int fd, struct exit_notice *out)
{
	struct exit_notice notice = { .dead = NULL };
	struct head head;
	struct stat info;
	int err = get(fd, &head, sizeof(head), 0);

	if (err)
		return err;
	if (head.dead_count > DEAD_MOST || fstat(fd, &info) < 0 ||
	    (size_t)info.st_size !=
		    sizeof(head) + head.dead_count * sizeof(notice.dead[0]))
		return -EBADMSG;
	notice.dead_count = head.dead_count;
	notice.dead = calloc(head.dead_count + 1, sizeof(notice.dead[0]));
	if (!notice.dead)
		return -ENOMEM;
	err = get(fd, notice.dead, head.dead_count * sizeof(notice.dead[0]),
		  sizeof(head));
	if (!err && !spans_valid(notice.dead, notice.dead_count))
		err = -EBADMSG;
	if (err)
		exit_notice_clear(&notice);
	else
		*out = notice;
	return err;
}
