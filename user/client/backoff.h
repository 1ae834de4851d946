/* SPDX-License-Identifier: BSD-2-Clause */
/* Waiting between attempts: doubling, with jitter so that clients spread out. */
#ifndef CLIENT_BACKOFF_H
#define CLIENT_BACKOFF_H

#include <stdint.h>

#include "base/random.h"

#define CLIENT_BACKOFF_MIN_MS 500
#define CLIENT_BACKOFF_MAX_MS 30000

struct client_backoff {
	uint32_t step_ms; /* 0: the last attempt succeeded */
};

/* How long to wait now, in ms: between half of the step and the whole. */
static inline uint32_t client_backoff_next(struct client_backoff *backoff)
{
	uint32_t step = backoff->step_ms * 2;

	if (step < CLIENT_BACKOFF_MIN_MS)
		step = CLIENT_BACKOFF_MIN_MS;
	if (step > CLIENT_BACKOFF_MAX_MS)
		step = CLIENT_BACKOFF_MAX_MS;
	backoff->step_ms = step;
	return step / 2 + random_below(step / 2 + 1);
}

static inline void client_backoff_reset(struct client_backoff *backoff)
{
	backoff->step_ms = 0;
}

#endif
