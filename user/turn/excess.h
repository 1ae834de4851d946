/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How much longer than their requests the answers may be that go where nobody has
 * shown to be: the source of a datagram without credentials may be forged.
 */
#ifndef TURN_EXCESS_H
#define TURN_EXCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

struct turn_excess;

/* 0 or -ENOMEM. */
int turn_excess_new(struct turn_excess **out);
void turn_excess_free(struct turn_excess *excess); /* accepts NULL */

enum turn_excess_limit {
	TURN_EXCESS_NONE, /* it may be answered */
	TURN_EXCESS_NETWORK,
	TURN_EXCESS_ALL,
};

/* A request that came in the name of an address, and what would go there. */
struct turn_excess_ask {
	const union addr *to;
	size_t request, answer; /* bytes; the answer is longer */
	/* Bytes a second beyond what came: to its network, and to all together.
	 * TURN_EXCESS_BURST_S seconds' may go at once. 0: any; of the first: both.
	 */
	size_t rate, rate_all;
};

/* What forbids the answer. Counts it if nothing does. From any thread. */
#define TURN_EXCESS_BURST_S 4
enum turn_excess_limit turn_excess_take(struct turn_excess *excess,
					const struct turn_excess_ask *ask,
					uint64_t now_ms);

#endif
