/* SPDX-License-Identifier: BSD-2-Clause */
/* The limit on what strangers' datagrams bring back: how much, where, how long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <errno.h>

#include "turn/excess.h"
#include "unit/failalloc.h"

#define NOW   UINT64_C(1000000)
#define RATE  1000
#define BURST (RATE * TURN_EXCESS_BURST_S)

static bool take(struct turn_excess *excess, const char *to, size_t bytes,
		 uint64_t now_ms)
{
	union addr addr;

	assert_int_equal(addr_parse(to, 1234, &addr), 0);
	return turn_excess_take(excess,
				&(struct turn_excess_ask){
					.to = &addr,
					.request = 28,
					.answer = 28 + bytes,
					.rate = RATE,
				},
				now_ms) == TURN_EXCESS_NONE;
}

static void so_much_at_once_and_so_much_a_second(void **state)
{
	struct turn_excess *excess;

	(void)state;
	assert_int_equal(turn_excess_new(&excess), 0);
	for (size_t i = 0; i < BURST / 100; i++)
		assert_true(take(excess, "192.0.2.1", 100, NOW));
	assert_false(take(excess, "192.0.2.1", 1, NOW));
	assert_false(take(excess, "192.0.2.1", 100, NOW + 99));
	assert_true(take(excess, "192.0.2.1", 100, NOW + 100));
	assert_false(take(excess, "192.0.2.1", 1, NOW + 100));
	/* However long nothing went there, no more than that at once. */
	assert_true(take(excess, "192.0.2.1", BURST, NOW + 3600000));
	assert_false(take(excess, "192.0.2.1", 1, NOW + 3600000));
	turn_excess_free(excess);
}

static void a_network_shares_it_and_others_do_not(void **state)
{
	struct turn_excess *excess;

	(void)state;
	assert_int_equal(turn_excess_new(&excess), 0);
	assert_true(take(excess, "192.0.2.1", BURST, NOW));
	assert_false(take(excess, "192.0.2.255", 1, NOW));
	assert_true(take(excess, "192.0.3.1", 1, NOW));
	assert_true(take(excess, "2001:db8:1::1", BURST, NOW));
	assert_false(take(excess, "2001:db8:1:ffff::2", 1, NOW));
	assert_true(take(excess, "2001:db8:2::1", 1, NOW));
	turn_excess_free(excess);
}

static void who_is_refused_owes_no_more_for_it(void **state)
{
	struct turn_excess *excess;

	(void)state;
	assert_int_equal(turn_excess_new(&excess), 0);
	assert_true(take(excess, "192.0.2.1", BURST, NOW));
	for (int i = 0; i < 1000; i++)
		assert_false(take(excess, "192.0.2.1", 100, NOW));
	assert_true(take(excess, "192.0.2.1", 100, NOW + 100));
	turn_excess_free(excess);
}

static void many_networks_leave_room_for_one_more(void **state)
{
	struct turn_excess *excess;
	char text[32];

	(void)state;
	assert_int_equal(turn_excess_new(&excess), 0);
	for (int i = 0; i < 2000; i++) {
		snprintf(text, sizeof(text), "10.%d.%d.1", i >> 8, i & 255);
		take(excess, text, BURST, NOW);
	}
	for (int i = 0; i < 8; i++) {
		snprintf(text, sizeof(text), "192.0.%d.1", i);
		if (take(excess, text, 100, NOW))
			break;
		/* One of 270 shares both its places with such. */
		assert_true(i < 7);
	}
	turn_excess_free(excess);
}

/* Requests of 28 bytes, each from a network of its own; how many were answered. */
static size_t ask_all(struct turn_excess *excess, size_t count, size_t answer,
		      size_t rate_all, uint64_t now_ms)
{
	static unsigned int number;
	size_t answered = 0;
	union addr addr;
	const struct turn_excess_ask ask = {
		.to = &addr,
		.request = 28,
		.answer = answer,
		.rate = (size_t)1 << 30,
		.rate_all = rate_all,
	};

	for (size_t i = 0; i < count; i++) {
		const uint8_t bytes[4] = { 10, (uint8_t)(++number >> 8),
					   (uint8_t)number, 1 };
		enum turn_excess_limit limit;

		addr_from_bytes(&addr, AF_INET, bytes, 1);
		limit = turn_excess_take(excess, &ask, now_ms);
		assert_int_not_equal(limit, TURN_EXCESS_NETWORK);
		answered += limit == TURN_EXCESS_NONE;
	}
	return answered;
}

static void all_together_get_what_they_bring(void **state)
{
	struct turn_excess *excess;
	size_t answered;

	(void)state;
	assert_int_equal(turn_excess_new(&excess), 0);
	/* What may go at once. */
	answered = ask_all(excess, BURST / 112, 140, RATE, NOW);
	assert_int_equal(answered, BURST / 112);
	/* Then four that are not answered pay for one that is. */
	answered = ask_all(excess, 50000, 140, RATE, NOW);
	assert_in_range(answered, 50000 / 5 - 10, 50000 / 5 + 1);
	/* And time, as much as it is. */
	answered = ask_all(excess, 9, 140, RATE, NOW + 1000);
	assert_in_range(answered, 8, 9);
	answered = ask_all(excess, BURST, 140, 0, NOW + 1000);
	assert_int_equal(answered, BURST);
	turn_excess_free(excess);
}

static void without_a_limit_there_is_none(void **state)
{
	union addr addr;
	const struct turn_excess_ask ask = {
		.to = &addr,
		.answer = 65535,
		.rate_all = 1,
	};
	struct turn_excess *excess;

	(void)state;
	assert_int_equal(turn_excess_new(&excess), 0);
	assert_int_equal(addr_parse("192.0.2.1", 1, &addr), 0);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(turn_excess_take(excess, &ask, NOW),
				 TURN_EXCESS_NONE);
	turn_excess_free(excess);
	turn_excess_free(NULL);
}

static void without_memory_there_is_no_table(void **state)
{
	struct turn_excess *excess;

	(void)state;
	failalloc_arm(1);
	assert_int_equal(turn_excess_new(&excess), -ENOMEM);
	failalloc_disarm();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(so_much_at_once_and_so_much_a_second),
		cmocka_unit_test(a_network_shares_it_and_others_do_not),
		cmocka_unit_test(who_is_refused_owes_no_more_for_it),
		cmocka_unit_test(many_networks_leave_room_for_one_more),
		cmocka_unit_test(all_together_get_what_they_bring),
		cmocka_unit_test(without_a_limit_there_is_none),
		cmocka_unit_test(without_memory_there_is_no_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
