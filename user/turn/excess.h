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

/*
 * May a network be sent `bytes` more than came from it? Counts them if so. rate:
 * bytes a second, of which TURN_EXCESS_BURST_S seconds' may come at once; 0: any.
 * From any thread.
 */
#define TURN_EXCESS_BURST_S 4
bool turn_excess_take(struct turn_excess *excess, const union addr *to,
		      size_t bytes, size_t rate, uint64_t now_ms);

#endif
