/* SPDX-License-Identifier: BSD-2-Clause */
/* The rendezvous table. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pair/rendezvous.h"
#include "unit/failalloc.h"

static int setup(void **state)
{
	struct rendezvous *rendezvous = calloc(1, sizeof(*rendezvous));

	*state = rendezvous;
	return rendezvous ? rendezvous_init(rendezvous) : -1;
}

static int teardown(void **state)
{
	rendezvous_destroy(*state);
	free(*state);
	return 0;
}

static void finds_a_leg_by_its_token_until_removed(void **state)
{
	struct waiting_leg a = { 0 }, b = { 0 };

	assert_null(rendezvous_find(*state, "aaaa", 4));
	assert_int_equal(rendezvous_add(*state, &a, "aaaa", 4), 0);
	assert_int_equal(rendezvous_add(*state, &b, "aaab", 4), 0);
	assert_ptr_equal(rendezvous_find(*state, "aaaa", 4), &a);
	assert_ptr_equal(rendezvous_find(*state, "aaab", 4), &b);
	assert_null(rendezvous_find(*state, "aaa", 3));
	assert_null(rendezvous_find(*state, "aaaab", 5));
	rendezvous_remove(*state, &a);
	assert_null(rendezvous_find(*state, "aaaa", 4));
	assert_ptr_equal(rendezvous_find(*state, "aaab", 4), &b);
	rendezvous_remove(*state, &a); /* harmless */
	rendezvous_remove(*state, &b);
	assert_null(rendezvous_find(*state, "aaab", 4));
}

static void refuses_a_token_that_is_taken(void **state)
{
	struct waiting_leg a = { 0 }, b = { 0 };

	assert_int_equal(rendezvous_add(*state, &a, "\0\0\0\1", 4), 0);
	assert_int_equal(rendezvous_add(*state, &b, "\0\0\0\1", 4), -EEXIST);
	assert_int_equal(b.token_len, 0);
	rendezvous_remove(*state, &b); /* does not wait: harmless */
	assert_ptr_equal(rendezvous_find(*state, "\0\0\0\1", 4), &a);
	rendezvous_remove(*state, &a);
	assert_int_equal(rendezvous_add(*state, &b, "\0\0\0\1", 4), 0);
	rendezvous_remove(*state, &b);
}

static void refuses_a_bad_length(void **state)
{
	uint8_t token[RENDEZVOUS_TOKEN_MAX + 1] = { 0 };
	struct waiting_leg leg = { 0 };

	assert_int_equal(rendezvous_add(*state, &leg, token, 0), -EINVAL);
	assert_int_equal(rendezvous_add(*state, &leg, token, sizeof(token)),
			 -EINVAL);
	assert_null(rendezvous_find(*state, token, 0));
	assert_null(rendezvous_find(*state, token, sizeof(token)));
	assert_int_equal(
		rendezvous_add(*state, &leg, token, RENDEZVOUS_TOKEN_MAX), 0);
	rendezvous_remove(*state, &leg);
}

#define MANY 5000

static void holds_many_legs(void **state)
{
	struct waiting_leg *legs = calloc(MANY, sizeof(*legs));
	uint32_t *tokens = calloc(MANY, sizeof(*tokens));

	assert_non_null(legs);
	assert_non_null(tokens);
	for (uint32_t i = 0; i < MANY; i++) {
		tokens[i] = i * 7919;
		assert_int_equal(rendezvous_add(*state, &legs[i], &tokens[i],
						sizeof(tokens[i])),
				 0);
	}
	for (uint32_t i = 0; i < MANY; i += 2)
		rendezvous_remove(*state, &legs[i]);
	for (uint32_t i = 0; i < MANY; i++) {
		struct waiting_leg *leg =
			rendezvous_find(*state, &tokens[i], sizeof(tokens[i]));

		assert_ptr_equal(leg, i & 1 ? &legs[i] : NULL);
	}
	free(tokens);
	free(legs);
}

static void init_one(void *arg)
{
	struct rendezvous rendezvous;

	(void)arg;
	if (rendezvous_init(&rendezvous) == 0)
		rendezvous_destroy(&rendezvous);
	else
		assert_true(failalloc_hit());
}

static void survives_a_failing_allocation(void **state)
{
	(void)state;
	assert_true(failalloc_sweep(init_one, NULL) >= 1);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(finds_a_leg_by_its_token_until_removed),
		CASE(refuses_a_token_that_is_taken),
		CASE(refuses_a_bad_length),
		CASE(holds_many_legs),
		CASE(survives_a_failing_allocation),
	};

	return cmocka_run_group_tests_name("rendezvous", tests, NULL, NULL);
}
