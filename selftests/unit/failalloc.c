/* SPDX-License-Identifier: BSD-2-Clause */
/* Allocation wrappers that fail on request. */
#include "failalloc.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#define SWEEP_MAX 100000

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t max);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t max);

/* Calls until the failing one; 0 or less: disarmed or past it. */
static _Atomic long countdown;
static _Atomic bool hit;

static bool should_fail(void)
{
	/* The common path, disarmed, writes nothing. */
	if (atomic_load(&countdown) <= 0)
		return false;
	if (atomic_fetch_sub(&countdown, 1) != 1)
		return false;
	atomic_store(&hit, true);
	errno = ENOMEM;
	return true;
}

void failalloc_arm(long nth)
{
	atomic_store(&hit, false);
	atomic_store(&countdown, nth);
}

void failalloc_disarm(void)
{
	atomic_store(&countdown, 0);
}

bool failalloc_hit(void)
{
	return atomic_load(&hit);
}

long failalloc_sweep(void (*fn)(void *arg), void *arg)
{
	for (long nth = 1; nth <= SWEEP_MAX; nth++) {
		failalloc_arm(nth);
		fn(arg);
		failalloc_disarm();
		if (!failalloc_hit())
			return nth - 1;
	}
	fprintf(stderr, "failalloc: still failing after %d allocations\n",
		SWEEP_MAX);
	abort();
}

void *__wrap_malloc(size_t size)
{
	return should_fail() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return should_fail() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return should_fail() ? NULL : __real_realloc(old, size);
}

char *__wrap_strdup(const char *text)
{
	return should_fail() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t max)
{
	return should_fail() ? NULL : __real_strndup(text, max);
}
