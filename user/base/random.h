/* SPDX-License-Identifier: BSD-2-Clause */
/* Random bytes from the kernel's CSPRNG. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* Fills `out`. Cannot fail: without kernel randomness the process aborts. */
void random_bytes(void *out, size_t len);
uint32_t random_u32(void);
/* Uniform in [0, limit); limit must not be 0. */
uint32_t random_below(uint32_t limit);

#endif
