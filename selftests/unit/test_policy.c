/* SPDX-License-Identifier: BSD-2-Clause */
/* When wire pays: the decision from what is measured at the bind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "pair/policy.h"

#define MS 1000u

static const struct pair_policy usual = { .max_rtt_us = 20 * MS,
					  .max_growth_us = 12 * MS,
					  .max_loss = 1000 };
static const struct pair_path fresh = { .rtt_us = MS, .segments = 4 };

static enum wire_reason decide(const struct pair_path *client,
			       const struct pair_path *peer,
			       const struct pair_path *control)
{
	return pair_policy_decide(&usual, client, peer, control);
}

static void a_clean_short_path_goes_on_wire(void **state)
{
	(void)state;
	assert_int_equal(decide(&fresh, &fresh, NULL), WIRE_OK);
	assert_int_equal(decide(&fresh, &fresh, &fresh), WIRE_OK);
}

static void what_nobody_measured_counts_as_good(void **state)
{
	const struct pair_path unknown = { .rtt_us = UINT32_MAX };

	(void)state;
	assert_int_equal(decide(&unknown, &unknown, &unknown), WIRE_OK);
	assert_int_equal(decide(&unknown, &fresh, NULL), WIRE_OK);
}

static void round_trips_of_both_sides_add_up(void **state)
{
	const struct pair_path near = { .rtt_us = 10 * MS, .segments = 4 };
	const struct pair_path far = { .rtt_us = 10 * MS + 1, .segments = 4 };
	const struct pair_path huge = { .rtt_us = UINT32_MAX - 1 };

	(void)state;
	assert_int_equal(decide(&near, &near, NULL), WIRE_OK);
	assert_int_equal(decide(&near, &far, NULL), WIRE_NO_POLICY_RTT);
	assert_int_equal(decide(&far, &near, NULL), WIRE_NO_POLICY_RTT);
	assert_int_equal(decide(&huge, &huge, NULL), WIRE_NO_POLICY_RTT);
	/* The older connection has seen a shorter one on the same path. */
	assert_int_equal(decide(&far, &near, &fresh), WIRE_OK);
	assert_int_equal(decide(&near, &far, &fresh), WIRE_OK);
}

static void no_end_sees_its_round_trip_grow_much(void **state)
{
	const struct pair_path near = { .rtt_us = 4 * MS };
	const struct pair_path far = { .rtt_us = 12 * MS + 1 };
	const struct pair_path silent = { .rtt_us = 4 * MS };
	const struct pair_path eager = { .rtt_us = 4 * MS, .heard = true };
	struct pair_policy any = usual;

	(void)state;
	assert_int_equal(decide(&near, &far, NULL), WIRE_NO_POLICY_GROWTH);
	/* Nothing of a silent peer's has been acknowledged. */
	assert_int_equal(decide(&far, &silent, NULL), WIRE_OK);
	assert_int_equal(decide(&far, &eager, NULL), WIRE_NO_POLICY_GROWTH);
	/* It is what the client's path is, not what one look saw. */
	assert_int_equal(decide(&far, &eager, &near), WIRE_OK);
	any.max_growth_us = 0;
	assert_int_equal(pair_policy_decide(&any, &near, &far, NULL), WIRE_OK);
}

static void a_handshake_that_met_loss_is_evidence(void **state)
{
	const struct pair_path lossy = { .rtt_us = MS,
					 .segments = 4,
					 .again = 1 };

	(void)state;
	assert_int_equal(decide(&lossy, &fresh, NULL), WIRE_NO_POLICY_LOSS);
	assert_int_equal(decide(&fresh, &lossy, NULL), WIRE_NO_POLICY_LOSS);
	assert_int_equal(decide(&fresh, &fresh, &lossy), WIRE_NO_POLICY_LOSS);
}

static void the_share_of_loss_counts_not_the_number(void **state)
{
	struct pair_path control = { .rtt_us = MS,
				     .segments = 1000000,
				     .again = 1000 };

	(void)state;
	assert_int_equal(decide(&fresh, &fresh, &control), WIRE_OK);
	control.again++;
	assert_int_equal(decide(&fresh, &fresh, &control), WIRE_NO_POLICY_LOSS);
	control.segments = control.again = UINT32_MAX;
	assert_int_equal(decide(&fresh, &fresh, &control), WIRE_NO_POLICY_LOSS);
}

static void both_limits_can_be_lifted(void **state)
{
	const struct pair_policy any = { .max_rtt_us = 0, .max_loss = 1000000 };
	const struct pair_policy none = { .max_rtt_us = 0, .max_loss = 0 };
	const struct pair_path worst = { .rtt_us = 900 * MS,
					 .segments = 10,
					 .again = 10 };
	const struct pair_path once = { .segments = UINT32_MAX, .again = 1 };

	(void)state;
	assert_int_equal(pair_policy_decide(&any, &worst, &worst, &worst),
			 WIRE_OK);
	assert_int_equal(pair_policy_decide(&none, &fresh, &fresh, &fresh),
			 WIRE_OK);
	assert_int_equal(pair_policy_decide(&none, &fresh, &fresh, &once),
			 WIRE_NO_POLICY_LOSS);
}

static void no_connection_has_no_path(void **state)
{
	struct pair_path path = { 1, 2, 3, true };
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	pair_path_read(fds[0], &path);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(path.rtt_us, UINT32_MAX);
	assert_int_equal(path.segments, 0);
	assert_int_equal(path.again, 0);
	assert_false(path.heard);
	pair_path_read(-1, &path);
	assert_int_equal(path.rtt_us, UINT32_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_clean_short_path_goes_on_wire),
		cmocka_unit_test(what_nobody_measured_counts_as_good),
		cmocka_unit_test(round_trips_of_both_sides_add_up),
		cmocka_unit_test(no_end_sees_its_round_trip_grow_much),
		cmocka_unit_test(a_handshake_that_met_loss_is_evidence),
		cmocka_unit_test(the_share_of_loss_counts_not_the_number),
		cmocka_unit_test(both_limits_can_be_lifted),
		cmocka_unit_test(no_connection_has_no_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
