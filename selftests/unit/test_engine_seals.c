/* SPDX-License-Identifier: BSD-2-Clause */
/* Which engine takes a sealed link, and who is asked to unseal it. */
#include "unit/rig.h"

/* Plain bytes under the name of a seal. */
struct mock {
	struct seal seal;
	enum seal_place answer; /* when it is asked to go to the kernel */
	unsigned int asked;
};

static void mock_offload(struct seal *seal)
{
	struct mock *mock = (struct mock *)seal;

	mock->asked++;
	seal->place = mock->answer;
}

static const struct seal_ops mock_ops = { .offload = mock_offload };

static void on_end(struct engine_link *link, struct flow *flow)
{
	(void)link;
	(void)flow;
}

/* The name of the engine that takes a link with this seal. */
static const char *taken_by(struct engine_set *set, struct mock *mock)
{
	static char name[16];
	struct end end[2];
	int leg[2];
	struct engine_link link = { .on_end = on_end };

	ends_init(end, leg);
	link.flow[0] = (struct flow){
		.from = leg[1],
		.to = leg[0],
		.to_seal = &mock->seal,
	};
	link.flow[1] = (struct flow){
		.from = leg[0],
		.to = leg[1],
		.from_seal = &mock->seal,
	};
	mock->seal.ops = &mock_ops;
	assert_int_equal(engine_set_attach(set, &link), 0);
	snprintf(name, sizeof(name), "%s", engine_link_name(&link));
	assert_int_equal(engine_set_sealed(set),
			 mock->seal.place == SEAL_IN_KERNEL);
	engine_link_detach(&link);
	assert_int_equal(engine_set_sealed(set), 0);
	for (int i = 0; i < 2; i++) {
		fd_close(&end[i].fd);
		fd_close(&leg[i]);
	}
	return name;
}

static uint64_t counts[SEAL_PLACES];

static struct engine_set *set_of(struct loop *loop, bool ktls,
				 const char *const *order, size_t count)
{
	const struct engine_params params = {
		.pipe_size = 65536,
		.pipes = 4,
		.copy_buffer = 65536,
		.ktls = ktls,
		.seals = counts,
	};
	struct engine_set *set;

	memset(counts, 0, sizeof(counts));
	assert_int_equal(engine_set_new(loop, &params, order, count, NULL, NULL,
					&set),
			 0);
	return set;
}

static void the_kernel_is_asked_once_where_it_may_be(void **state)
{
	static const char *const order[] = { "splice", "uring", "copy" };
	const bool can = engine_ktls_probe() == 0;
	struct mock yes = { .answer = SEAL_IN_KERNEL },
		    no = { .answer = SEAL_KEPT_CIPHER }, off = yes;
	struct engine_set *set;
	struct loop *loop;

	(void)state;
	assert_int_equal(loop_new(&loop), 0);
	set = set_of(loop, true, order, 3);
	assert_string_equal(taken_by(set, &yes), can ? "splice" : "copy");
	assert_string_equal(taken_by(set, &no), "copy");
	assert_int_equal(yes.asked, can);
	assert_int_equal(no.asked, can);
	assert_int_equal(counts[SEAL_IN_KERNEL], can);
	assert_int_equal(counts[SEAL_KEPT_CIPHER], can);
	assert_int_equal(counts[SEAL_KEPT_ABSENT], can ? 0 : 2);
	engine_set_free(set);
	set = set_of(loop, false, order, 3);
	assert_int_equal(engine_set_ktls(set), -ECANCELED);
	assert_string_equal(taken_by(set, &off), "copy");
	assert_int_equal(off.asked, 0);
	assert_int_equal(counts[SEAL_KEPT_OFF], 1);
	engine_set_free(set);
	loop_free(loop);
}

static void an_order_that_begins_with_copy_asks_nobody(void **state)
{
	static const char *const order[] = { "copy", "splice" };
	struct mock mock = { .answer = SEAL_IN_KERNEL };
	struct engine_set *set;
	struct loop *loop;

	(void)state;
	assert_int_equal(loop_new(&loop), 0);
	set = set_of(loop, true, order, 2);
	assert_string_equal(taken_by(set, &mock), "copy");
	assert_int_equal(mock.asked, 0);
	assert_int_equal(counts[SEAL_KEPT_ORDER], 1);
	engine_set_free(set);
	loop_free(loop);
}

static void every_place_has_a_name_and_a_text(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < SEAL_PLACES; i++) {
		assert_non_null(seal_place_name(i));
		assert_non_null(strstr(seal_place_text(i), "TLS"));
		for (unsigned int k = 0; k < i; k++)
			assert_string_not_equal(seal_place_name(i),
						seal_place_name(k));
	}
	assert_string_equal(seal_place_name(SEAL_PLACES), "?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_kernel_is_asked_once_where_it_may_be),
		cmocka_unit_test(an_order_that_begins_with_copy_asks_nobody),
		cmocka_unit_test(every_place_has_a_name_and_a_text),
	};

	return cmocka_run_group_tests_name("engine_seals", tests, NULL, NULL);
}
