/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pipes shared by all flows of one worker.
 *
 * A flow holds a pipe only while bytes are in it, so as many pipes are out as
 * flows are stuck behind a slow reader; the rest take turns with a few.
 *
 * What may fail: descriptors run out (EMFILE, ENFILE), and an unprivileged user
 * may have /proc/sys/fs/pipe-user-pages-soft pages in all pipes together, 64
 * pipes of 1 MiB by default: past it F_SETPIPE_SZ says EPERM and new pipes come
 * with two pages. Smaller sizes are tried then, down to SIZE_MIN; below that
 * splicing costs more than copying, and the caller is told that there is none.
 * A refusal is remembered for RETRY_MS: asking costs three system calls.
 */
#include "engine/pipe_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/syscalls.h"

SYSCALLS(SYSCALLS_RELAY, "pipe2 close");
SYSCALLS_EQUAL(SYSCALLS_RELAY, "fcntl", 1, F_SETPIPE_SZ);
SYSCALLS_EQUAL(SYSCALLS_RELAY, "fcntl", 1, F_GETPIPE_SZ);

#define SIZE_MIN 65536 /* the kernel's default for one pipe */
#define IDLE_MAX 16 /* empty pipes kept; more are closed: see the quota */
#define RETRY_MS 100

struct pipe_pool {
	struct loop *loop;
	struct list idle;
	unsigned int idle_count;
	unsigned int count, limit; /* pipes open: idle and out */
	size_t size;
	uint64_t retry_ms; /* no new pipe before this loop time */
};

static void pipe_close(struct pipe_pool *pool, struct pipe *pipe)
{
	close(pipe->rd);
	close(pipe->wr);
	free(pipe);
	pool->count--;
}

/* Bytes granted, or 0 when less than SIZE_MIN can be had. */
static size_t pipe_grow(int fd, size_t want)
{
	int now;

	for (; want > SIZE_MIN; want /= 2) {
		int got = fcntl(fd, F_SETPIPE_SZ, (int)want);

		if (got > 0)
			return (size_t)got;
	}
	now = fcntl(fd, F_GETPIPE_SZ);
	return now >= SIZE_MIN ? (size_t)now : 0;
}

static int pipe_open(struct pipe_pool *pool, struct pipe **out)
{
	struct pipe *pipe = malloc(sizeof(*pipe));
	int fds[2], err;

	if (!pipe)
		return -ENOMEM;
	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0) {
		err = -errno;
		goto free_pipe;
	}
	pipe->rd = fds[0];
	pipe->wr = fds[1];
	pipe->size = pipe_grow(pipe->rd, pool->size);
	err = -EPERM;
	if (!pipe->size)
		goto close_fds;
	list_init(&pipe->link);
	pool->count++;
	*out = pipe;
	return 0;

close_fds:
	close(fds[0]);
	close(fds[1]);
free_pipe:
	free(pipe);
	return err;
}

int pipe_pool_new(struct loop *loop, size_t size, unsigned int limit,
		  struct pipe_pool **out)
{
	struct pipe_pool *pool = calloc(1, sizeof(*pool));
	struct pipe *pipe = NULL;
	int err;

	if (!pool)
		return -ENOMEM;
	pool->loop = loop;
	pool->size = size;
	pool->limit = limit;
	list_init(&pool->idle);
	/* The quota may be used up just now and free later: only a system
	 * that gives no pipe at all is refused.
	 */
	err = pipe_open(pool, &pipe);
	if (err && err != -EPERM)
		goto free_pool;
	if (!err)
		pipe_pool_put(pool, pipe);
	*out = pool;
	return 0;

free_pool:
	free(pool);
	return err;
}

void pipe_pool_free(struct pipe_pool *pool)
{
	struct list *pos, *tmp;

	if (!pool)
		return;
	list_for_each_safe(pos, tmp, &pool->idle)
		pipe_close(pool, list_entry(pos, struct pipe, link));
	free(pool);
}

struct pipe *pipe_pool_get(struct pipe_pool *pool)
{
	struct pipe *pipe = NULL;

	if (!list_empty(&pool->idle)) {
		/* The last one used: its slots are still in the cache. */
		pipe = list_entry(pool->idle.prev, struct pipe, link);
		list_del(&pipe->link);
		pool->idle_count--;
		return pipe;
	}
	if (pool->count >= pool->limit || loop_now(pool->loop) < pool->retry_ms)
		return NULL;
	if (pipe_open(pool, &pipe) < 0) {
		pool->retry_ms = loop_now(pool->loop) + RETRY_MS;
		return NULL;
	}
	return pipe;
}

void pipe_pool_put(struct pipe_pool *pool, struct pipe *pipe)
{
	if (!pipe)
		return;
	if (pool->idle_count >= IDLE_MAX) {
		pipe_close(pool, pipe);
		return;
	}
	list_add_tail(&pipe->link, &pool->idle);
	pool->idle_count++;
}

void pipe_pool_drop(struct pipe_pool *pool, struct pipe *pipe)
{
	if (pipe)
		pipe_close(pool, pipe);
}
