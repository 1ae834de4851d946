/* SPDX-License-Identifier: BSD-2-Clause */
/* The pool of allocations behind `culvert forward`. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "client/pool.h"
#include "client/turn_client.h"
#include "client_server.h"
#include "failalloc.h"

#define PATIENCE_MS 10000
#define WAITERS     8

struct rig;

struct guest {
	struct client_waiter waiter;
	struct rig *rig;
	struct client_slot *slot;
	int grants, refusals, losses;
};

struct rig {
	struct client_config config;
	struct client_session session;
	struct client_pool pool;
	struct server server;
	struct guest guest[WAITERS];
	int started, emptied, start_code;
};

static void on_started(struct client_pool *pool,
		       const struct culvert_error *error)
{
	struct rig *rig = list_entry(pool, struct rig, pool);

	rig->started++;
	rig->start_code = error ? error->code : 0;
}

static void on_emptied(struct client_pool *pool)
{
	list_entry(pool, struct rig, pool)->emptied++;
}

static void on_granted(struct client_waiter *waiter, struct client_slot *slot)
{
	struct guest *guest = list_entry(waiter, struct guest, waiter);

	guest->slot = slot;
	if (slot)
		guest->grants++;
	else
		guest->refusals++;
}

static void on_lost(struct client_waiter *waiter)
{
	struct guest *guest = list_entry(waiter, struct guest, waiter);

	guest->slot = NULL;
	guest->losses++;
}

static void rig_start(struct rig *rig, unsigned int warm, unsigned int max)
{
	memset(rig, 0, sizeof(*rig));
	rig->config.user = SERVER_USER;
	strcpy(rig->config.password, SERVER_PASSWORD);
	rig->config.has_password = true;
	rig->config.timeout_s = 5;
	rig->session.config = &rig->config;
	rig->pool.session = &rig->session;
	rig->pool.family = AF_INET;
	rig->pool.warm = warm;
	rig->pool.max = max;
	rig->pool.started = on_started;
	rig->pool.emptied = on_emptied;
	for (int i = 0; i < WAITERS; i++) {
		rig->guest[i].waiter.granted = on_granted;
		rig->guest[i].waiter.lost = on_lost;
	}
	assert_int_equal(culvert_loop_new(&rig->session.library), 0);
	rig->session.loop = rig->session.library->loop;
	server_start(&rig->server, rig->session.loop);
	rig->session.server.count = 1;
	memcpy(&rig->session.server.address[0], &rig->server.addr,
	       sizeof(rig->server.addr));
	strcpy(rig->session.server.name, "scripted");
}

static void rig_stop(struct rig *rig)
{
	client_pool_destroy(&rig->pool);
	server_stop(&rig->server);
	culvert_loop_free(rig->session.library);
}

#define RUN_UNTIL(rig, condition)                                              \
	do {                                                                   \
		uint64_t until_ms = clock_ms() + PATIENCE_MS;                  \
                                                                               \
		while (!(condition)) {                                         \
			assert_true(clock_ms() < until_ms);                    \
			assert_int_equal(culvert_loop_dispatch(                \
						 (rig)->session.library, 100), \
					 0);                                   \
		}                                                              \
	} while (0)

static void rig_wait(struct rig *rig, int guest)
{
	client_pool_wait(&rig->pool, &rig->guest[guest].waiter);
}

static void test_keeps_allocations_warm(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, 3, 10);
	client_pool_start(&rig.pool);
	RUN_UNTIL(&rig, rig.pool.idle == 3);
	assert_int_equal(rig.started, 1);
	assert_int_equal(rig.start_code, 0);
	rig_wait(&rig, 0);
	assert_int_equal(rig.guest[0].grants, 1);
	/* What was taken is replaced. */
	RUN_UNTIL(&rig, rig.pool.idle == 3);
	assert_int_equal(rig.pool.busy, 1);
	rig_stop(&rig);
}

static void test_each_waiter_has_an_allocation_of_its_own(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, 0, 10);
	client_pool_start(&rig.pool);
	for (int i = 0; i < WAITERS; i++)
		rig_wait(&rig, i);
	RUN_UNTIL(&rig, rig.pool.busy == WAITERS);
	for (int i = 1; i < WAITERS; i++)
		assert_ptr_not_equal(rig.guest[i].slot, rig.guest[0].slot);
	rig_stop(&rig);
}

static void test_first_refusal_is_told(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, 2, 10);
	strcpy(rig.config.password, "wrong");
	client_pool_start(&rig.pool);
	RUN_UNTIL(&rig, rig.started);
	assert_int_equal(rig.start_code, 401);
	rig_stop(&rig);
}

static void test_resting_allocation_is_the_last_resort(void **state)
{
	struct client_slot *first;
	struct rig rig;

	(void)state;
	rig_start(&rig, 1, 2);
	client_pool_start(&rig.pool);
	RUN_UNTIL(&rig, rig.pool.idle == 1);
	rig_wait(&rig, 0);
	first = rig.guest[0].slot;
	assert_non_null(first);
	RUN_UNTIL(&rig, rig.pool.idle == 1);
	client_pool_put(&rig.pool, first, CLIENT_OUTCOME_USED);
	rig_wait(&rig, 1);
	assert_int_equal(rig.guest[1].grants, 1);
	assert_ptr_not_equal(rig.guest[1].slot, first);
	/* Two is the limit: there is only the one that rests. */
	rig_wait(&rig, 2);
	assert_ptr_equal(rig.guest[2].slot, first);
	/* Who had bad luck with a used one waits for a fresh one. */
	client_pool_put(&rig.pool, first, CLIENT_OUTCOME_USED);
	rig.guest[3].waiter.fresh_only = true;
	rig_wait(&rig, 3);
	assert_int_equal(rig.guest[3].grants, 0);
	client_pool_leave(&rig.pool, &rig.guest[3].waiter);
	rig_stop(&rig);
}

static void test_refused_peer_is_tried_by_one_first(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, 4, 10);
	client_pool_start(&rig.pool);
	RUN_UNTIL(&rig, rig.pool.idle == 4);
	rig_wait(&rig, 0);
	client_pool_put(&rig.pool, rig.guest[0].slot, CLIENT_OUTCOME_REFUSED);
	for (int i = 1; i < 4; i++)
		rig_wait(&rig, i);
	for (int i = 1; i < 4; i++)
		assert_int_equal(rig.guest[i].grants, 0);
	assert_true(rig.pool.rest_ms - loop_now(rig.session.loop) >= 9000);
	/* The ten seconds are over. */
	rig.pool.rest_ms = loop_now(rig.session.loop);
	rig_wait(&rig, 4);
	assert_int_equal(rig.guest[1].grants, 1);
	assert_int_equal(rig.guest[2].grants, 0);
	client_pool_reached(&rig.pool, rig.guest[1].slot);
	for (int i = 2; i <= 4; i++)
		assert_int_equal(rig.guest[i].grants, 1);
	rig_stop(&rig);
}

static void test_lost_allocations_come_back(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, 2, 10);
	client_pool_start(&rig.pool);
	RUN_UNTIL(&rig, rig.pool.idle == 2);
	rig_wait(&rig, 0);
	RUN_UNTIL(&rig, rig.pool.idle == 2);
	for (int i = 0; i < SERVER_CONNS; i++)
		if (rig.server.conn[i].watch.fd >= 0)
			conn_drop(&rig.server.conn[i]);
	RUN_UNTIL(&rig, rig.guest[0].losses);
	assert_int_equal(rig.pool.busy, 0);
	rig_wait(&rig, 1);
	RUN_UNTIL(&rig, rig.guest[1].grants);
	RUN_UNTIL(&rig, rig.pool.idle == 2);
	assert_int_equal(rig.started, 1);
	rig_stop(&rig);
}

static void test_spoilt_allocation_goes_back_to_the_server(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, 1, 10);
	client_pool_start(&rig.pool);
	RUN_UNTIL(&rig, rig.pool.idle == 1);
	rig_wait(&rig, 0);
	client_pool_put(&rig.pool, rig.guest[0].slot, CLIENT_OUTCOME_SPOILT);
	RUN_UNTIL(&rig, rig.server.granted[STUN_REFRESH] == 1);
	RUN_UNTIL(&rig, rig.pool.idle == 1 && !rig.pool.closing);
	rig_stop(&rig);
}

static void test_nobody_waits_for_ever(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, 0, 1);
	client_pool_start(&rig.pool);
	rig_wait(&rig, 0);
	RUN_UNTIL(&rig, rig.guest[0].grants);
	/* As if it had come half a minute ago. */
	rig.guest[1].waiter.since_ms = loop_now(rig.session.loop) - 30000;
	rig_wait(&rig, 1);
	assert_int_equal(rig.guest[1].refusals, 1);
	rig_stop(&rig);
}

static void test_close_gives_everything_back(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig, 3, 10);
	client_pool_start(&rig.pool);
	RUN_UNTIL(&rig, rig.pool.idle == 3);
	client_pool_close(&rig.pool);
	RUN_UNTIL(&rig, rig.emptied);
	assert_true(client_pool_empty(&rig.pool));
	assert_int_equal(rig.server.granted[STUN_REFRESH], 3);
	rig_stop(&rig);
}

static void course_run(void *arg)
{
	uint64_t until_ms = clock_ms() + PATIENCE_MS;
	struct rig *rig = arg;
	struct client_pool pool = {
		.session = &rig->session,
		.family = AF_INET,
		.warm = 1,
		.max = 4,
		.started = on_started,
		.emptied = on_emptied,
	};

	rig->pool = pool;
	rig->started = rig->guest[0].grants = 0;
	rig->guest[0].waiter.since_ms = 0;
	client_pool_start(&rig->pool);
	rig_wait(rig, 0);
	while (!rig->guest[0].grants && clock_ms() < until_ms)
		culvert_loop_dispatch(rig->session.library, 100);
	/* A failure costs a back-off, not the connection. */
	assert_int_equal(rig->guest[0].grants, 1);
	assert_int_equal(rig->started, 1);
	client_pool_destroy(&rig->pool);
	culvert_loop_dispatch(rig->session.library, 0);
}

static void test_allocation_failures(void **state)
{
	struct rig *rig = malloc(sizeof(*rig));

	(void)state;
	rig_start(rig, 1, 4);
	list_init(&rig->pool.slots);
	assert_true(failalloc_sweep(course_run, rig) >= 3);
	list_init(&rig->pool.slots);
	rig_stop(rig);
	free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keeps_allocations_warm),
		cmocka_unit_test(test_each_waiter_has_an_allocation_of_its_own),
		cmocka_unit_test(test_first_refusal_is_told),
		cmocka_unit_test(test_resting_allocation_is_the_last_resort),
		cmocka_unit_test(test_refused_peer_is_tried_by_one_first),
		cmocka_unit_test(test_lost_allocations_come_back),
		cmocka_unit_test(
			test_spoilt_allocation_goes_back_to_the_server),
		cmocka_unit_test(test_nobody_waits_for_ever),
		cmocka_unit_test(test_close_gives_everything_back),
		cmocka_unit_test(test_allocation_failures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
