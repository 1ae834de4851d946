/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the helper tells its process's parent, as a file in memory: it has any length,
 * is taken whole or not at all, and goes on by its descriptor to whom it is for.
 *
 * A head, then as many exits, addresses and losses as it says. Both sides are of one program.
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
	uint64_t exit_count, dead_count, loss_count;
	struct exit_tunnels tunnels;
};

void exit_notice_clear(struct exit_notice *notice)
{
	free(notice->dead);
	free(notice->exits);
	free(notice->losses.all);
	*notice = (struct exit_notice){ .dead = NULL };
}

static bool same(const void *a, size_t a_count, const void *b, size_t b_count,
		 size_t size)
{
	return a_count == b_count &&
	       (!a_count || !memcmp(a, b, a_count * size));
}

bool exit_notice_same(const struct exit_notice *a, const struct exit_notice *b)
{
	return same(a->dead, a->dead_count, b->dead, b->dead_count,
		    sizeof(a->dead[0])) &&
	       same(a->exits, a->exit_count, b->exits, b->exit_count,
		    sizeof(a->exits[0])) &&
	       same(a->losses.all, a->losses.count, b->losses.all,
		    b->losses.count, sizeof(a->losses.all[0])) &&
	       !memcmp(&a->tunnels, &b->tunnels, sizeof(a->tunnels));
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
	const struct head head = { .exit_count = notice->exit_count,
				   .dead_count = notice->dead_count,
				   .loss_count = notice->losses.count,
				   .tunnels = notice->tunnels };
	int fd = memfd_create("culvert.exits", MFD_CLOEXEC);
	int err;

	if (fd < 0)
		return -errno;
	err = put(fd, &head, sizeof(head));
	if (!err)
		err = put(fd, notice->exits,
			  notice->exit_count * sizeof(notice->exits[0]));
	if (!err)
		err = put(fd, notice->dead,
			  notice->dead_count * sizeof(notice->dead[0]));
	if (!err)
		err = put(fd, notice->losses.all,
			  notice->losses.count * sizeof(notice->losses.all[0]));
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

/* Their texts end. */
static bool exits_valid(const struct exit_history *exits, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!memchr(exits[i].name, '\0', sizeof(exits[i].name)) ||
		    !memchr(exits[i].state, '\0', sizeof(exits[i].state)) ||
		    !memchr(exits[i].was, '\0', sizeof(exits[i].was)))
			return false;
	return true;
}

static bool losses_valid(const struct exit_losses *losses)
{
	for (size_t i = 0; i < losses->count; i++)
		if (!memchr(losses->all[i].what, '\0',
			    sizeof(losses->all[i].what)))
			return false;
	return true;
}

static int lists_read(int fd, struct exit_notice *notice)
{
	struct exit_losses *losses = &notice->losses;
	const size_t exits = notice->exit_count * sizeof(notice->exits[0]);
	const size_t dead = notice->dead_count * sizeof(notice->dead[0]);
	const size_t lost = losses->count * sizeof(losses->all[0]);
	const size_t head = sizeof(struct head);
	struct stat info;
	int err;

	if (fstat(fd, &info) < 0)
		return -errno;
	if ((size_t)info.st_size != head + exits + dead + lost)
		return -EBADMSG;
	notice->exits = calloc(1, exits + 1);
	notice->dead = calloc(1, dead + 1);
	losses->all = calloc(1, lost + 1);
	if (!notice->exits || !notice->dead || !losses->all)
		return -ENOMEM;
	err = get(fd, notice->exits, exits, head);
	if (!err)
		err = get(fd, notice->dead, dead, head + exits);
	if (!err)
		err = get(fd, losses->all, lost, head + exits + dead);
	if (!err && (!exits_valid(notice->exits, notice->exit_count) ||
		     !losses_valid(losses) ||
		     !spans_valid(notice->dead, notice->dead_count)))
		err = -EBADMSG;
	return err;
}

int exit_notice_unpack(int fd, struct exit_notice *out)
{
	struct exit_notice notice = { .dead = NULL };
	struct head head;
	int err = get(fd, &head, sizeof(head), 0);

	if (err)
		return err;
	if (head.dead_count > DEAD_MOST || head.loss_count > DEAD_MOST ||
	    head.exit_count > CONF_EXITS_MAX)
		return -EBADMSG;
	notice.exit_count = head.exit_count;
	notice.dead_count = head.dead_count;
	notice.losses.count = head.loss_count;
	notice.tunnels = head.tunnels;
	err = lists_read(fd, &notice);
	if (err)
		exit_notice_clear(&notice);
	else
		*out = notice;
	return err;
}
