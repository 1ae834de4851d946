/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How fast bytes may pass: token buckets that threads share without a lock.
 *
 * A bucket is one time: until when what has been let through takes at its rate. What
 * is in the past by at most RATE_BURST_NS is credit. Whoever lets bytes pass moves the
 * time on; the rate is given with each call, so a new one holds at once.
 *
 * Streams reserve their bytes and wait for their turn (rates_reserve), so that those
 * who share a bucket are served one after the other; what they do not need they
 * give back. Datagrams do not wait: they pass or are dropped (rates_pass). Since
 * streams always have something reserved ahead, datagrams have a time of their own,
 * which holds them to the rate, and pass though up to RATE_QUEUE_NS is reserved.
 */
#ifndef BASE_RATE_H
#define BASE_RATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * With a share of 10 ms no more than 1.02 of the limit in any two seconds. Threads come
 * to their turn later than that much only where the machine has too much to do.
 */
#define RATE_BURST_NS UINT64_C(30000000)
#define RATE_QUEUE_NS UINT64_C(250000000)

/* Zero-initialise. */
struct rate_bucket {
	_Atomic uint64_t until_ns; /* of all bytes; CLOCK_MONOTONIC */
	_Atomic uint64_t datagrams_ns; /* of those of datagrams alone */
};

/* The ways bytes go, for arrays of two. */
enum rate_way {
	RATE_TO_CLIENT,
	RATE_TO_PEER,
	RATE_WAYS,
};

/* All buckets that bytes have to pass: of the allocation, the user, the realm. */
#define RATES_MAX 3
struct rates {
	struct {
		struct rate_bucket *bucket;
		uint64_t bits_per_s; /* > 0 */
	} rate[RATES_MAX];
	unsigned int count; /* 0: no limit */
	uint64_t *delays; /* counts who has to wait, or is dropped */
};

/* Adds a bucket; bits_per_s 0: no limit, nothing is added. */
void rates_add(struct rates *rates, struct rate_bucket *bucket,
	       uint64_t bits_per_s);

/* How much a stream should reserve at a time, in bytes. There is a limit. */
size_t rates_share(const struct rates *rates);
/* Takes so many bytes; returns when they may pass: not after now_ns is now. */
uint64_t rates_reserve(const struct rates *rates, size_t bytes,
		       uint64_t now_ns);
/* Gives back what was reserved and is not needed. */
void rates_return(const struct rates *rates, size_t bytes);

/* May a datagram pass? Takes its bytes if so. */
bool rates_pass(const struct rates *rates, size_t bytes, uint64_t now_ns);

#endif
