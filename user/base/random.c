/* SPDX-License-Identifier: BSD-2-Clause */
/* Random bytes: small requests are served from a per-thread pool. */
#include "base/random.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/syscalls.h"

SYSCALLS(SYSCALLS_ALL, "getrandom");

/* Forks so far: a child must not draw the bytes its parent's pool holds. */
static _Atomic unsigned int forks;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void forked(void)
{
	atomic_fetch_add(&forks, 1);
}

static void fork_watch(void)
{
	if (pthread_atfork(NULL, NULL, forked))
		abort();
}

static void random_fill(uint8_t *out, size_t len)
{
	while (len) {
		ssize_t n = getrandom(out, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			abort();
		out += n;
		len -= (size_t)n;
	}
}

void random_bytes(void *out, size_t len)
{
	/* One system call serves many identifiers; bytes are wiped as used. */
	static _Thread_local uint8_t pool[256];
	static _Thread_local size_t left;
	static _Thread_local unsigned int drawn_at;

	if (len > sizeof(pool)) {
		random_fill(out, len);
		return;
	}
	pthread_once(&fork_once, fork_watch);
	if (left < len || drawn_at != atomic_load(&forks)) {
		random_fill(pool, sizeof(pool));
		left = sizeof(pool);
		drawn_at = atomic_load(&forks);
	}
	left -= len;
	memcpy(out, pool + left, len);
	explicit_bzero(pool + left, len);
}

uint32_t random_u32(void)
{
	uint32_t v;

	random_bytes(&v, sizeof(v));
	return v;
}

uint32_t random_below(uint32_t limit)
{
	/* Values below the remainder would favour small results: draw again. */
	uint32_t min = -limit % limit, v;

	do
		v = random_u32();
	while (v < min);
	return v % limit;
}
