/* SPDX-License-Identifier: BSD-2-Clause */
/* Endless streams of bytes without repetition, one for each seed. */
#ifndef NET_PATTERN_H
#define NET_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The next number of a generator whose state is *state. */
uint64_t draw_next(uint64_t *state);
/* Evenly among 0 .. below - 1; below > 0. */
uint32_t draw_below(uint64_t *state, uint32_t below);

/* The bytes [at, at + len) of the stream of `seed`. */
void pattern_fill(uint8_t *buf, size_t len, uint64_t seed, uint64_t at);
/* How many bytes agree with it, from the first on. */
size_t pattern_agrees(const uint8_t *buf, size_t len, uint64_t seed,
		      uint64_t at);

#endif
