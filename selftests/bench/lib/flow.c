/* SPDX-License-Identifier: BSD-2-Clause */
/* One end of a measured connection: sending, reading, checking a pattern. */
#include "flow.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* Single-threaded programs: one buffer serves every connection in turn. */
static uint8_t chunk[FLOW_CHUNK];

/* splitmix64: no two positions of a stream, and no two streams, look alike. */
static uint64_t pattern_word(uint64_t seed, uint64_t index)
{
	uint64_t z = (seed << 40) + (index + 1) * 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return htole64(z ^ (z >> 31));
}

/* The word that covers `at`: how many of its bytes lie in [at, at + len). */
static size_t pattern_piece(uint64_t seed, uint64_t at, size_t len,
			    uint8_t piece[8])
{
	uint64_t word = pattern_word(seed, at / 8);
	size_t skip = at % 8;
	size_t count = 8 - skip < len ? 8 - skip : len;

	memcpy(piece, (const uint8_t *)&word + skip, count);
	return count;
}

void pattern_fill(uint8_t *buf, size_t len, uint64_t seed, uint64_t at)
{
	while (len) {
		uint8_t piece[8];
		size_t count = pattern_piece(seed, at, len, piece);

		memcpy(buf, piece, count);
		buf += count;
		at += count;
		len -= count;
	}
}

bool pattern_matches(const uint8_t *buf, size_t len, uint64_t seed, uint64_t at)
{
	while (len) {
		uint8_t piece[8];
		size_t count = pattern_piece(seed, at, len, piece);

		if (memcmp(buf, piece, count) != 0)
			return false;
		buf += count;
		at += count;
		len -= count;
	}
	return true;
}

ssize_t flow_send(struct flow *flow)
{
	size_t len = sizeof(chunk);
	ssize_t sent;

	if (flow->check) {
		if (flow->length - flow->sent < len)
			len = flow->length - flow->sent;
		pattern_fill(chunk, len, flow->seed_out, flow->sent);
	}
	sent = send(flow->fd, chunk, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0)
		return -errno;
	flow->sent += (uint64_t)sent;
	return sent;
}

ssize_t flow_recv(struct flow *flow)
{
	size_t len = sizeof(chunk);
	ssize_t got;

	if (flow->check && flow->length - flow->received < len)
		len = flow->length - flow->received;
	got = recv(flow->fd, chunk, len, MSG_DONTWAIT);
	if (got < 0)
		return -errno;
	if (flow->check &&
	    !pattern_matches(chunk, (size_t)got, flow->seed_in, flow->received))
		flow->broken = true;
	flow->received += (uint64_t)got;
	return got;
}
