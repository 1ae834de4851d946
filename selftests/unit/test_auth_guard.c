/* SPDX-License-Identifier: BSD-2-Clause */
/* The limit on guessing: how many, for how long, by whom, in a bounded table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

#include "auth/auth.h"
#include "unit/failalloc.h"

#define NOW   UINT64_C(1000000)
#define LIMIT 6 /* a minute: one in ten seconds */

static union addr address(const char *text)
{
	union addr addr;

	assert_int_equal(addr_parse(text, 1234, &addr), 0);
	return addr;
}

static bool allows(struct auth_guard *guard, const char *from, uint64_t now_ms)
{
	union addr addr = address(from);

	return auth_guard_allows(guard, &addr, AUTH_GUARD_CONNECTION, LIMIT,
				 now_ms);
}

static bool failed(struct auth_guard *guard, const char *from, uint64_t now_ms)
{
	union addr addr = address(from);

	return auth_guard_failed(guard, &addr, AUTH_GUARD_CONNECTION, LIMIT,
				 now_ms);
}

/* As many failures as there may be; only the last one tells. */
static void exhaust(struct auth_guard *guard, const char *from, uint64_t now_ms)
{
	for (int i = 1; i <= LIMIT; i++) {
		assert_true(allows(guard, from, now_ms));
		assert_int_equal(failed(guard, from, now_ms), i == LIMIT);
	}
	assert_false(allows(guard, from, now_ms));
}

static void so_many_at_once_and_so_many_a_minute(void **state)
{
	struct auth_guard *guard;

	(void)state;
	assert_int_equal(auth_guard_new(&guard), 0);
	exhaust(guard, "192.0.2.1", NOW);
	assert_false(allows(guard, "192.0.2.1", NOW + 9999));
	assert_true(allows(guard, "192.0.2.1", NOW + 10000));
	assert_true(failed(guard, "192.0.2.1", NOW + 10000));
	assert_false(allows(guard, "192.0.2.1", NOW + 10000));
	assert_true(allows(guard, "192.0.2.1", NOW + 20000));
	/* After a minute of peace all is forgiven. */
	exhaust(guard, "192.0.2.1", NOW + 80000);
	auth_guard_free(guard);
}

/* What was under way when the limit was reached must not lock out for longer. */
static void debt_has_a_limit(void **state)
{
	struct auth_guard *guard;

	(void)state;
	assert_int_equal(auth_guard_new(&guard), 0);
	exhaust(guard, "192.0.2.1", NOW);
	for (int i = 0; i < 1000; i++)
		assert_false(failed(guard, "192.0.2.1", NOW));
	assert_true(allows(guard, "192.0.2.1", NOW + 10000));
	auth_guard_free(guard);
}

static void sources_are_an_address_or_a_site(void **state)
{
	struct auth_guard *guard;

	(void)state;
	assert_int_equal(auth_guard_new(&guard), 0);
	exhaust(guard, "192.0.2.1:1", NOW);
	assert_false(allows(guard, "192.0.2.1:2", NOW));
	assert_false(allows(guard, "::ffff:192.0.2.1", NOW));
	assert_true(allows(guard, "192.0.2.2", NOW));
	assert_true(allows(guard, "192.0.3.1", NOW));
	exhaust(guard, "2001:db8:1:200::1", NOW);
	assert_false(allows(guard, "2001:db8:1:2ff:ffff:ffff:ffff:ffff", NOW));
	assert_true(allows(guard, "2001:db8:1:300::1", NOW));
	assert_true(allows(guard, "2001:db8:1:100::1", NOW));
	/* The bytes of an IPv4 address are no IPv6 prefix. */
	exhaust(guard, "c633:6401::", NOW);
	assert_true(allows(guard, "198.51.100.1", NOW));
	auth_guard_free(guard);
}

/* A forged source shuts nobody out who comes by a connection, and so on. */
static void kinds_are_counted_apart(void **state)
{
	static const enum auth_guard_kind kinds[] = { AUTH_GUARD_DATAGRAM,
						      AUTH_GUARD_BIND,
						      AUTH_GUARD_IDENTIFIER,
						      AUTH_GUARD_CONNECTION };
	union addr from = address("192.0.2.1");
	struct auth_guard *guard;

	(void)state;
	assert_int_equal(auth_guard_new(&guard), 0);
	for (size_t k = 0; k < 4; k++) {
		for (int i = 0; i < LIMIT; i++)
			auth_guard_failed(guard, &from, kinds[k], LIMIT, NOW);
		for (size_t other = 0; other < 4; other++)
			assert_int_equal(auth_guard_allows(guard, &from,
							   kinds[other], LIMIT,
							   NOW),
					 other > k);
	}
	auth_guard_free(guard);
}

static void limit_of_zero_is_none(void **state)
{
	union addr from = address("192.0.2.1");
	struct auth_guard *guard;

	(void)state;
	assert_int_equal(auth_guard_new(&guard), 0);
	for (int i = 0; i < 100; i++) {
		assert_true(auth_guard_allows(guard, &from,
					      AUTH_GUARD_CONNECTION, 0, NOW));
		assert_false(auth_guard_failed(guard, &from,
					       AUTH_GUARD_CONNECTION, 0, NOW));
	}
	exhaust(guard, "192.0.2.1", NOW);
	assert_true(
		auth_guard_allows(guard, &from, AUTH_GUARD_CONNECTION, 0, NOW));
	/* One a minute: a changed limit goes by the debt there is. */
	assert_false(auth_guard_allows(guard, &from, AUTH_GUARD_CONNECTION, 1,
				       NOW + 59999));
	assert_true(auth_guard_allows(guard, &from, AUTH_GUARD_CONNECTION, 1,
				      NOW + 60000));
	auth_guard_free(guard);
}

/* A crowd with a failure each does not make the table forget the worst. */
static void crowd_does_not_hide_a_guesser(void **state)
{
	struct auth_guard *guard;
	char from[32];

	(void)state;
	assert_int_equal(auth_guard_new(&guard), 0);
	exhaust(guard, "192.0.2.1", NOW);
	for (unsigned int i = 0; i < 100000; i++) {
		snprintf(from, sizeof(from), "10.%u.%u.%u", i >> 16,
			 i >> 8 & 0xff, i & 0xff);
		assert_false(failed(guard, from, NOW));
	}
	assert_false(allows(guard, "192.0.2.1", NOW));
	auth_guard_free(guard);
}

static void no_memory_is_told(void **state)
{
	struct auth_guard *guard = NULL;

	(void)state;
	failalloc_arm(1);
	assert_int_equal(auth_guard_new(&guard), -ENOMEM);
	failalloc_disarm();
	assert_null(guard);
	auth_guard_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(so_many_at_once_and_so_many_a_minute),
		cmocka_unit_test(debt_has_a_limit),
		cmocka_unit_test(sources_are_an_address_or_a_site),
		cmocka_unit_test(kinds_are_counted_apart),
		cmocka_unit_test(limit_of_zero_is_none),
		cmocka_unit_test(crowd_does_not_hide_a_guesser),
		cmocka_unit_test(no_memory_is_told),
	};

	return cmocka_run_group_tests_name("auth: guard", tests, NULL, NULL);
}
