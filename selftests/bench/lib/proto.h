/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the two ends of a measured connection agree on. Both run on one machine:
 * integers are in host order, and the counters are a mapped file that load
 * reads while peer writes.
 */
#ifndef BENCH_PROTO_H
#define BENCH_PROTO_H

#include <stdatomic.h>
#include <stdint.h>

#define BENCH_MAGIC 0x74766c63u

/* What the peer does with a connection, seen from the client. */
enum bench_mode {
	BENCH_UP = 1, /* the client sends, the peer reads and counts */
	BENCH_DOWN, /* the peer sends until the connection ends */
	BENCH_BOTH, /* both of these at once */
	BENCH_ECHO, /* small messages come back */
	BENCH_MUTE, /* the peer never reads after the hello */
	BENCH_CHECK, /* `length` bytes of pattern each way, then a verdict */
};

/* The first bytes of every connection. */
struct bench_hello {
	uint32_t magic;
	uint32_t mode; /* enum bench_mode */
	uint64_t length;
	uint64_t seed; /* of the pattern up; the pattern down has seed + 1 */
};

/* Ends a BENCH_CHECK connection, peer to client. */
struct bench_verdict {
	uint64_t received;
	uint64_t intact; /* 1 or 0 */
};

/* Counters of the peer since its start. */
struct bench_stats {
	_Atomic uint64_t received; /* bytes read, hellos not counted */
	_Atomic uint64_t sent;
	_Atomic uint64_t unread; /* in the receive queues of mute connections */
	_Atomic uint64_t open; /* connections */
	_Atomic uint64_t broken; /* no hello, or an echo that did not fit */
};

/* Maps a counter file; create makes it anew. Returns 0 or a negative errno. */
int bench_stats_map(const char *path, int create, struct bench_stats **out);

#endif
