/* SPDX-License-Identifier: BSD-2-Clause */
/* Which of the relay's addresses an allocation gets, by the exits they leave by. */
#include "unit/turn_rig.h"

#define TRIES 12

static struct rig rig;

static int tear_down(void **state)
{
	(void)state;
	rig_close(&rig);
	return 0;
}

/* Clients dial 127.0.0.1; no link has the name "gone0". */
static void open_with(const char *exits)
{
	char more[1024];

	snprintf(more, sizeof(more),
		 "[relay]\naddress = 127.0.0.7, 127.0.0.8\n%s", exits);
	assert_int_equal(rig_open(&rig, 1, more), 0);
}

/* The last byte of the relayed address of a new allocation, or the code. */
static int relayed_at(void)
{
	union addr relayed;
	struct tc tc;
	int code;

	tc_open(&tc, &rig, 0);
	code = tc_allocate(&tc, &relayed);
	tc_close(&tc);
	RIG_UNTIL(&rig, rig_counters(&rig).allocations == 0);
	return code ? code : (int)(ntohl(relayed.in4.sin_addr.s_addr) & 0xff);
}

static void without_exits_the_first_address_is_taken(void **state)
{
	(void)state;
	open_with("");
	for (int i = 0; i < TRIES; i++)
		assert_int_equal(relayed_at(), 7);
}

static void a_dead_exit_gets_no_allocation(void **state)
{
	(void)state;
	open_with("[exit a]\nlink = gone0\nprefix = 127.0.0.7/32\n"
		  "[exit b]\nlink = lo\nprefix = 127.0.0.8/32\n");
	for (int i = 0; i < TRIES; i++)
		assert_int_equal(relayed_at(), 8);
	assert_int_equal(rig_counters(&rig).exits_down, 0);
}

/* From 127.0.0.first to 127.0.0.last. */
static void tell_dead(uint8_t first, uint8_t last)
{
	const struct addr_span span = { .family = AF_INET,
					.first = { 127, 0, 0, first },
					.last = { 127, 0, 0, last } };

	assert_int_equal(turn_shared_dead(rig.shared, &span, first <= last), 0);
}

static void what_the_helper_says_counts_and_not_the_links(void **state)
{
	(void)state;
	open_with("[exit a]\nlink = lo\nprefix = 127.0.0.7/32\n"
		  "[exit b]\nlink = gone0\nprefix = 127.0.0.8/32\n");
	assert_int_equal(relayed_at(), 7);
	tell_dead(1, 7);
	for (int i = 0; i < TRIES; i++)
		assert_int_equal(relayed_at(), 8);
	tell_dead(8, 8);
	for (int i = 0; i < TRIES; i++)
		assert_int_equal(relayed_at(), 7);
	tell_dead(7, 8);
	assert_int_equal(relayed_at(), 508);
	assert_int_equal(rig_counters(&rig).exits_down, 1);
	tell_dead(9, 8);
	assert_in_range(relayed_at(), 7, 8);
}

/* Of an exit that has died nothing is taken away. */
static void an_allocation_outlives_its_exit(void **state)
{
	union addr relayed;
	struct tc tc, other;

	(void)state;
	open_with("[exit a]\nlink = lo\nprefix = 127.0.0.0/8\n");
	tc_open(&tc, &rig, 0);
	assert_int_equal(tc_allocate(&tc, &relayed), 0);
	tell_dead(0, 255);
	tc_open(&other, &rig, 0);
	assert_int_equal(tc_allocate(&other, &relayed), 508);
	tc_close(&other);
	tc_begin(&tc, STUN_REFRESH);
	assert_int_equal(tc_ask(&tc), 0);
	tc_close(&tc);
}

/* Its own link is down, but another provider lets it pass; or none does. */
static void an_authorised_address_goes_by_another_link(void **state)
{
	(void)state;
	open_with("[exit a]\nlink = gone0\nprefix = 127.0.0.7/32\n"
		  "[exit b]\nlink = lo\nauthorised = 127.0.0.7/32\n"
		  "[exit c]\nlink = gone1\nauthorised = 127.0.0.8/32\n");
	for (int i = 0; i < TRIES; i++)
		assert_int_equal(relayed_at(), 7);
	rig_close(&rig);
	open_with("[exit c]\nlink = gone1\nauthorised = 127.0.0.0/8\n");
	assert_int_equal(relayed_at(), 508);
}

static void without_a_living_exit_there_is_no_capacity(void **state)
{
	(void)state;
	open_with("[exit a]\nlink = gone0\nprefix = 127.0.0.0/8\n");
	assert_int_equal(relayed_at(), 508);
	assert_int_equal(rig_counters(&rig).exits_down, 1);
}

/* The exit that the client has come by, whatever the weights. */
static void a_client_stays_with_its_exit(void **state)
{
	(void)state;
	open_with("[exit a]\nlink = lo\nprefix = 127.0.0.7/32\nweight = 1000\n"
		  "[exit b]\nlink = lo\nprefix = 127.0.0.8/32, 127.0.0.1/32\n");
	for (int i = 0; i < TRIES; i++)
		assert_int_equal(relayed_at(), 8);
}

static void weights_share_the_other_clients(void **state)
{
	int first = 0, second = 0;

	(void)state;
	open_with("[exit a]\nlink = lo\nprefix = 127.0.0.7/32\n"
		  "[exit b]\nlink = lo\nprefix = 127.0.0.8/32\n");
	/* Never one of them in so many tries: once in 2^59 runs. */
	for (int i = 0; i < 60; i++)
		relayed_at() == 7 ? first++ : second++;
	assert_true(first > 0 && second > 0);
}

static void weight_0_is_the_last_resort(void **state)
{
	(void)state;
	open_with("[exit a]\nlink = lo\nprefix = 127.0.0.7/32\nweight = 0\n"
		  "[exit b]\nlink = lo\nprefix = 127.0.0.8/32\n");
	for (int i = 0; i < TRIES; i++)
		assert_int_equal(relayed_at(), 8);
	rig_close(&rig);
	open_with("[exit a]\nlink = lo\nprefix = 127.0.0.7/32\nweight = 0\n"
		  "[exit b]\nlink = gone0\nprefix = 127.0.0.8/32\n");
	assert_int_equal(relayed_at(), 7);
}

#define TEST(f) cmocka_unit_test_teardown(f, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(without_exits_the_first_address_is_taken),
		TEST(a_dead_exit_gets_no_allocation),
		TEST(what_the_helper_says_counts_and_not_the_links),
		TEST(an_allocation_outlives_its_exit),
		TEST(an_authorised_address_goes_by_another_link),
		TEST(without_a_living_exit_there_is_no_capacity),
		TEST(a_client_stays_with_its_exit),
		TEST(weights_share_the_other_clients),
		TEST(weight_0_is_the_last_resort),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
