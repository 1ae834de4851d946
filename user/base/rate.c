/* SPDX-License-Identifier: BSD-2-Clause */
/* Token buckets. */
#include "base/rate.h"

#include <assert.h>
#include <stdatomic.h>

#define NS_PER_S UINT64_C(1000000000)

/*
 * A share is what 10 ms bring, but never so little that a byte costs a system call,
 * nor more than what others wait for gladly.
 */
#define SHARES_PER_S 100
#define SHARE_MIN    2048
#define SHARE_MAX    (256u * 1024)

void rates_add(struct rates *rates, struct rate_bucket *bucket,
	       uint64_t bits_per_s)
{
	if (!bits_per_s)
		return;
	assert(rates->count < RATES_MAX);
	rates->rate[rates->count].bucket = bucket;
	rates->rate[rates->count].bits_per_s = bits_per_s;
	rates->count++;
}

/* Less than 2^64 for what is moved at once at any rate above 8 bits a second. */
static uint64_t cost_ns(uint64_t bits_per_s, size_t bytes)
{
	return (uint64_t)bytes * 8 * NS_PER_S / bits_per_s;
}

static uint64_t credit_start(uint64_t now_ns)
{
	return now_ns > RATE_BURST_NS ? now_ns - RATE_BURST_NS : 0;
}

/* Returns when the bytes begin. */
static uint64_t time_take(_Atomic uint64_t *until_ns, uint64_t cost,
			  uint64_t now_ns)
{
	const uint64_t earliest = credit_start(now_ns);
	uint64_t until = atomic_load(until_ns), begin;

	do {
		begin = until > earliest ? until : earliest;
	} while (!atomic_compare_exchange_weak(until_ns, &until, begin + cost));
	return begin;
}

/* A reload may have changed the bucket: never below 0. */
static void time_return(_Atomic uint64_t *until_ns, uint64_t cost)
{
	uint64_t until = atomic_load(until_ns);

	while (!atomic_compare_exchange_weak(until_ns, &until,
					     until > cost ? until - cost : 0))
		;
}

size_t rates_share(const struct rates *rates)
{
	uint64_t share = SHARE_MAX;

	for (unsigned int i = 0; i < rates->count; i++) {
		uint64_t mine = rates->rate[i].bits_per_s / 8 / SHARES_PER_S;

		if (mine < share)
			share = mine;
	}
	return share > SHARE_MIN ? (size_t)share : SHARE_MIN;
}

uint64_t rates_reserve(const struct rates *rates, size_t bytes, uint64_t now_ns)
{
	uint64_t when = 0;

	for (unsigned int i = 0; i < rates->count; i++) {
		uint64_t cost = cost_ns(rates->rate[i].bits_per_s, bytes);
		uint64_t begin = time_take(&rates->rate[i].bucket->until_ns,
					   cost, now_ns);

		if (begin > when)
			when = begin;
	}
	if (when > now_ns && rates->delays)
		++*rates->delays;
	return when;
}

void rates_return(const struct rates *rates, size_t bytes)
{
	for (unsigned int i = 0; i < rates->count; i++)
		time_return(&rates->rate[i].bucket->until_ns,
			    cost_ns(rates->rate[i].bits_per_s, bytes));
}

bool rates_pass(const struct rates *rates, size_t bytes, uint64_t now_ns)
{
	for (unsigned int i = 0; i < rates->count; i++) {
		struct rate_bucket *bucket = rates->rate[i].bucket;

		if (atomic_load(&bucket->datagrams_ns) <= now_ns &&
		    atomic_load(&bucket->until_ns) <= now_ns + RATE_QUEUE_NS)
			continue;
		if (rates->delays)
			++*rates->delays;
		return false;
	}
	for (unsigned int i = 0; i < rates->count; i++) {
		uint64_t cost = cost_ns(rates->rate[i].bits_per_s, bytes);

		time_take(&rates->rate[i].bucket->datagrams_ns, cost, now_ns);
		time_take(&rates->rate[i].bucket->until_ns, cost, now_ns);
	}
	return true;
}
