/* SPDX-License-Identifier: BSD-2-Clause */
/* Waiting on a condition, with what moves things on between two looks. */
#ifndef UNIT_UNTIL_H
#define UNIT_UNTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "loop/loop.h"

#define UNTIL_MS 10000

#define UNTIL_BY(condition, step)                                      \
	do {                                                           \
		uint64_t give_up = clock_ms() + UNTIL_MS;              \
		while (!(condition)) {                                 \
			if (clock_ms() > give_up)                      \
				fail_msg("waited for %s", #condition); \
			step;                                          \
		}                                                      \
	} while (0)

#define UNTIL(loop, condition) \
	UNTIL_BY(condition, assert_int_equal(loop_tick(loop, 5), 0))

#endif
