/* SPDX-License-Identifier: BSD-2-Clause */
/* Monotonic and wall-clock time. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Milliseconds since an arbitrary start; never goes back. */
static inline uint64_t clock_ms(void)
{
	return clock_ns() / 1000000u;
}

/* Seconds since the epoch: what a nonce and a log line carry. */
static inline uint64_t clock_wall(void)
{
	return (uint64_t)time(NULL);
}

#endif
