/* SPDX-License-Identifier: BSD-2-Clause */
/* Endless streams of bytes: splitmix64 of seed and place. */
#include "lib/pattern.h"

#include <string.h>

static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint64_t draw_next(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15u;
	return mix(*state);
}

uint32_t draw_below(uint64_t *state, uint32_t below)
{
	return (uint32_t)((draw_next(state) >> 32) * below >> 32);
}

static uint8_t pattern_byte(uint64_t seed, uint64_t at)
{
	uint64_t word = mix(mix(seed) + at / 8 * 0x9e3779b97f4a7c15u);

	return (uint8_t)(word >> at % 8 * 8);
}

void pattern_fill(uint8_t *buf, size_t len, uint64_t seed, uint64_t at)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = pattern_byte(seed, at + i);
}

size_t pattern_agrees(const uint8_t *buf, size_t len, uint64_t seed,
		      uint64_t at)
{
	for (size_t i = 0; i < len; i++)
		if (buf[i] != pattern_byte(seed, at + i))
			return i;
	return len;
}
