/* SPDX-License-Identifier: BSD-2-Clause */
/* One end of a measured connection: sending, reading, checking a pattern. */
#ifndef BENCH_FLOW_H
#define BENCH_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* One send or recv moves at most this much. */
#define FLOW_CHUNK (256u * 1024)

struct flow {
	int fd;
	bool check; /* send the pattern of seed_out, compare with seed_in */
	bool broken; /* a byte differed */
	uint64_t seed_out, seed_in;
	uint64_t length; /* bytes to send in all when checking */
	uint64_t sent, received;
};

/* Bytes moved; 0 (recv only): end of stream; -EAGAIN or another errno. */
ssize_t flow_send(struct flow *flow);
ssize_t flow_recv(struct flow *flow);

/* The bytes [at, at + len) of the endless pattern of `seed`. */
void pattern_fill(uint8_t *buf, size_t len, uint64_t seed, uint64_t at);
bool pattern_matches(const uint8_t *buf, size_t len, uint64_t seed,
		     uint64_t at);

#endif
