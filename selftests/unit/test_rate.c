/* SPDX-License-Identifier: BSD-2-Clause */
/* Token buckets: the rate holds, in turn, over threads; credit has its bound. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rate.h"

#define SECOND UINT64_C(1000000000)
#define START  (1000 * SECOND)
#define MBIT   UINT64_C(1000000)

/* Bytes of a second at 8 Mbit/s, of the credit, of a share. */
#define PER_S  1000000u
#define CREDIT ((unsigned int)(PER_S * RATE_BURST_NS / SECOND))
#define SHARE  (PER_S / 100)

static struct rate_bucket bucket, other;
static uint64_t delays;

static int setup(void **state)
{
	(void)state;
	bucket = other = (struct rate_bucket){ 0 };
	delays = 0;
	return 0;
}

static struct rates rates_of(uint64_t bits_per_s)
{
	struct rates rates = { .delays = &delays };

	rates_add(&rates, &bucket, bits_per_s);
	return rates;
}

static void no_rate_is_no_limit(void **state)
{
	struct rates rates = rates_of(0);

	(void)state;
	assert_int_equal(rates.count, 0);
	assert_true(rates_pass(&rates, SIZE_MAX, START));
	assert_int_equal(rates_reserve(&rates, SIZE_MAX, START), 0);
}

static void a_share_is_ten_milliseconds_within_bounds(void **state)
{
	struct rates slow = rates_of(64000), fast = rates_of(100000 * MBIT);
	struct rates rates = rates_of(8 * MBIT);

	(void)state;
	assert_int_equal(rates_share(&rates), SHARE);
	assert_int_equal(rates_share(&slow), 2048);
	assert_int_equal(rates_share(&fast), 256 * 1024);
	/* The slowest of all counts. */
	rates_add(&fast, &other, 8 * MBIT);
	assert_int_equal(rates_share(&fast), SHARE);
}

/* What a stream may have had by the end of so many seconds. */
static uint64_t streamed(const struct rates *rates, uint64_t start,
			 unsigned int seconds)
{
	uint64_t now = start, sum = 0, when;

	while (now < start + seconds * SECOND) {
		when = rates_reserve(rates, SHARE, now);
		if (when > now)
			now = when;
		if (now < start + seconds * SECOND)
			sum += SHARE;
	}
	return sum;
}

static void a_stream_gets_its_rate_and_the_credit_once(void **state)
{
	struct rates rates = rates_of(8 * MBIT);
	uint64_t sum = streamed(&rates, START, 5);

	(void)state;
	assert_in_range(sum, 5 * PER_S, 5 * PER_S + CREDIT + SHARE);
	assert_true(delays > 0);
	/* However long it was idle. */
	sum = streamed(&rates, START + 1000 * SECOND, 5);
	assert_in_range(sum, 5 * PER_S, 5 * PER_S + CREDIT + SHARE);
}

static void turns_are_one_after_the_other(void **state)
{
	struct rates rates = rates_of(8 * MBIT);
	uint64_t before = START - RATE_BURST_NS, when;

	(void)state;
	for (int i = 0; i < 50; i++) {
		when = rates_reserve(&rates, SHARE, START);
		assert_int_equal(when, before);
		before = when + SECOND / 100;
	}
}

static void what_is_given_back_is_for_others(void **state)
{
	struct rates rates = rates_of(8 * MBIT);
	uint64_t when = rates_reserve(&rates, SHARE, START);

	(void)state;
	rates_return(&rates, SHARE);
	assert_int_equal(rates_reserve(&rates, SHARE, START), when);
	/* More than was taken makes no credit beyond the bound. */
	rates_return(&rates, 1000 * PER_S);
	assert_int_equal(atomic_load(&bucket.until_ns), 0);
	assert_int_equal(rates_reserve(&rates, SHARE, START),
			 START - RATE_BURST_NS);
}

static void every_bucket_has_to_agree(void **state)
{
	struct rates rates = rates_of(80 * MBIT);
	uint64_t sum;

	(void)state;
	rates_add(&rates, &other, 8 * MBIT);
	sum = streamed(&rates, START, 5);
	assert_in_range(sum, 5 * PER_S, 5 * PER_S + CREDIT + SHARE);
}

/* Datagrams of 1000 bytes, so many times the rate, for so many seconds. */
static uint64_t poured(const struct rates *rates, uint64_t start,
		       unsigned int times, unsigned int seconds)
{
	const uint64_t step = SECOND / 1000 / times;
	uint64_t sum = 0;

	for (uint64_t now = start; now < start + seconds * SECOND; now += step)
		if (rates_pass(rates, 1000, now))
			sum += 1000;
	return sum;
}

static void datagrams_beyond_the_rate_are_dropped(void **state)
{
	struct rates rates = rates_of(8 * MBIT);

	(void)state;
	assert_in_range(poured(&rates, START, 3, 5), 5 * PER_S,
			5 * PER_S + CREDIT + 2000);
	assert_in_range(delays, 9000, 10000);
	/* Below it none is. */
	delays = 0;
	assert_int_equal(poured(&rates, START + 10 * SECOND, 1, 5), 5 * PER_S);
	assert_int_equal(delays, 0);
}

/* One larger than the credit passes, and is paid for. */
static void a_slow_rate_passes_whole_datagrams(void **state)
{
	struct rates rates = rates_of(64000);
	uint64_t sum = 0;

	(void)state;
	for (uint64_t now = START; now < START + 10 * SECOND;
	     now += SECOND / 100)
		if (rates_pass(&rates, 1400, now))
			sum += 1400;
	assert_in_range(sum, 80000 - 1400, 80000 + 240 + 1400);
}

/* A stream that always waits does not keep datagrams out; both are within. */
static void streams_and_datagrams_share(void **state)
{
	struct rates rates = rates_of(8 * MBIT);
	uint64_t turn = 0, streams = 0, datagrams = 0;

	(void)state;
	for (uint64_t now = START; now < START + 10 * SECOND;
	     now += SECOND / 1000) {
		if (turn <= now) {
			turn = rates_reserve(&rates, SHARE, now);
			streams += SHARE;
		}
		if (now % (4 * SECOND / 1000) == 0 &&
		    rates_pass(&rates, 1000, now))
			datagrams += 1000;
	}
	assert_int_equal(datagrams, 10 * PER_S / 4);
	assert_in_range(streams + datagrams, 10 * PER_S * 95 / 100,
			10 * PER_S * 105 / 100);
}

struct race {
	struct rates rates;
	_Atomic uint64_t last;
};

static void *race_run(void *arg)
{
	struct race *race = arg;

	for (int i = 0; i < 10000; i++) {
		uint64_t when = rates_reserve(&race->rates, SHARE, START);
		uint64_t last = atomic_load(&race->last);

		while (when > last &&
		       !atomic_compare_exchange_weak(&race->last, &last, when))
			;
	}
	return NULL;
}

/* No two get the same turn: the last one is as late as all of them take. */
static void threads_share_without_loss(void **state)
{
	enum {
		THREADS = 4
	};
	struct race race = { .rates = rates_of(8 * MBIT) };
	pthread_t threads[THREADS];

	(void)state;
	race.rates.delays = NULL;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, race_run, &race), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(race.last,
			 START - RATE_BURST_NS +
				 (THREADS * 10000 - 1) * (SECOND / 100));
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(no_rate_is_no_limit),
		TEST(a_share_is_ten_milliseconds_within_bounds),
		TEST(a_stream_gets_its_rate_and_the_credit_once),
		TEST(turns_are_one_after_the_other),
		TEST(what_is_given_back_is_for_others),
		TEST(every_bucket_has_to_agree),
		TEST(datagrams_beyond_the_rate_are_dropped),
		TEST(a_slow_rate_passes_whole_datagrams),
		TEST(streams_and_datagrams_share),
		TEST(threads_share_without_loss),
	};

	return cmocka_run_group_tests_name("rate", tests, NULL, NULL);
}
