/* SPDX-License-Identifier: BSD-2-Clause */
/* The order of source addresses, a test for each rule of RFC 6724 that there is. */
#include <linux/if_addr.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "turn/policy.h"
#include "turn/rank.h"

#define NATIVE "2001:db8::1"

static unsigned int rank(const char *text, uint32_t flags, bool near,
			 bool last_resort)
{
	struct turn_candidate candidate = { .flags = flags,
					    .near = near,
					    .last_resort = last_resort };
	union addr host;

	assert_int_equal(addr_parse(text, 0, &host), 0);
	candidate.host = &host;
	return turn_candidate_rank(&candidate);
}

static bool usable(uint32_t flags)
{
	const struct turn_candidate candidate = { .flags = flags };

	return turn_candidate_usable(&candidate);
}

static void tentative_addresses_are_no_candidates(void **state)
{
	(void)state;
	assert_true(usable(0));
	assert_true(usable(IFA_F_DEPRECATED | IFA_F_TEMPORARY));
	assert_false(usable(IFA_F_TENTATIVE));
	assert_false(usable(IFA_F_DADFAILED));
	assert_true(usable(IFA_F_TENTATIVE | IFA_F_OPTIMISTIC));
}

static void rule_2_global_scope_comes_first(void **state)
{
	static const char *const nears[] = { "::1", "fe80::1" };
	static const char *const nears4[] = { "127.0.0.1", "169.254.1.1" };

	(void)state;
	/* Before all that follows. */
	for (size_t i = 0; i < 2; i++) {
		assert_true(rank(NATIVE, IFA_F_DEPRECATED, false, true) >
			    rank(nears[i], IFA_F_HOMEADDRESS, true, false));
		assert_true(rank("10.0.0.1", IFA_F_DEPRECATED, false, true) >
			    rank(nears4[i], 0, true, false));
	}
}

static void rule_3_deprecated_addresses_come_last(void **state)
{
	(void)state;
	assert_true(rank(NATIVE, 0, false, true) >
		    rank(NATIVE, IFA_F_DEPRECATED | IFA_F_HOMEADDRESS, true,
			 false));
	assert_true(
		rank(NATIVE, 0, false, false) >
		rank(NATIVE, IFA_F_TENTATIVE | IFA_F_OPTIMISTIC, false, false));
}

static void rule_4_home_addresses_come_first(void **state)
{
	(void)state;
	assert_true(rank(NATIVE, IFA_F_HOMEADDRESS, false, true) >
		    rank(NATIVE, 0, true, false));
}

static void rule_5_the_clients_exit_comes_first(void **state)
{
	(void)state;
	assert_true(rank("fd00::1", IFA_F_TEMPORARY, true, true) >
		    rank(NATIVE, 0, false, false));
}

static void the_last_resort_comes_behind_it(void **state)
{
	(void)state;
	assert_true(rank("fd00::1", IFA_F_TEMPORARY, false, false) >
		    rank(NATIVE, 0, false, true));
}

static void rule_6_native_addresses_come_first(void **state)
{
	static const char *const others[] = { "fd00::1", "2002:c000:201::1",
					      "2001:0:1::1", "fec0::1",
					      "3ffe::1" };

	(void)state;
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		assert_true(rank(NATIVE, IFA_F_TEMPORARY, false, false) >
			    rank(others[i], 0, false, false));
	/* All of IPv4 has one label. */
	assert_int_equal(rank("10.0.0.1", 0, false, false),
			 rank("192.0.2.1", 0, false, false));
}

static void rule_7_temporary_addresses_come_last(void **state)
{
	(void)state;
	assert_true(rank(NATIVE, 0, false, false) >
		    rank(NATIVE, IFA_F_TEMPORARY, false, false));
}

/* Whatever has none of the flags that matter, such as the loopback's, has 0. */
static void flags_are_those_of_the_address(void **state)
{
	struct own_flags flags[2] = { { .flags = IFA_F_DEPRECATED },
				      { .flags = IFA_F_TENTATIVE } };
	struct own_addresses own = { .flags = flags, .flags_count = 2 };
	struct own_addresses here = { 0 };
	union addr other;
	bool changed;

	(void)state;
	addr_parse("192.0.2.1", 0, &flags[0].host);
	addr_parse(NATIVE, 0, &flags[1].host);
	addr_parse("192.0.2.2", 0, &other);
	assert_int_equal(turn_own_flags(&own, &flags[0].host),
			 IFA_F_DEPRECATED);
	assert_int_equal(turn_own_flags(&own, &flags[1].host), IFA_F_TENTATIVE);
	assert_int_equal(turn_own_flags(&own, &other), 0);
	assert_int_equal(turn_own_addresses_read(&here, &changed), 0);
	addr_parse("127.0.0.1", 0, &other);
	assert_int_equal(turn_own_flags(&here, &other), 0);
	turn_own_addresses_clear(&here);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tentative_addresses_are_no_candidates),
		cmocka_unit_test(rule_2_global_scope_comes_first),
		cmocka_unit_test(rule_3_deprecated_addresses_come_last),
		cmocka_unit_test(rule_4_home_addresses_come_first),
		cmocka_unit_test(rule_5_the_clients_exit_comes_first),
		cmocka_unit_test(the_last_resort_comes_behind_it),
		cmocka_unit_test(rule_6_native_addresses_come_first),
		cmocka_unit_test(rule_7_temporary_addresses_come_last),
		cmocka_unit_test(flags_are_those_of_the_address),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
