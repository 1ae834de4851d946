/* SPDX-License-Identifier: BSD-2-Clause */
/* When to try again what has ended: later each time it did not last. */
#ifndef MAIN_RETRY_H
#define MAIN_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 10000
/* What lasted this long was healthy: the next wait is the least again. */
#define RETRY_HEALTHY_MS 10000

/* Zero-initialise: due at once. */
struct retry {
	uint64_t began_ms;
	uint64_t at_ms; /* not before */
	uint64_t wait_ms; /* the last one; 0: none yet */
};

static inline void retry_began(struct retry *retry)
{
	retry->began_ms = clock_ms();
}

/* How long to wait now that it has ended, in ms. */
static inline uint64_t retry_ended(struct retry *retry)
{
	uint64_t now = clock_ms(), wait = 2 * retry->wait_ms;

	if (!wait || now - retry->began_ms >= RETRY_HEALTHY_MS)
		wait = RETRY_MIN_MS;
	if (wait > RETRY_MAX_MS)
		wait = RETRY_MAX_MS;
	retry->wait_ms = wait;
	retry->at_ms = now + wait;
	return wait;
}

/* It could not even begin. */
static inline void retry_failed(struct retry *retry)
{
	retry->at_ms = clock_ms() + RETRY_MAX_MS;
}

static inline bool retry_due(const struct retry *retry)
{
	return clock_ms() >= retry->at_ms;
}

#endif
