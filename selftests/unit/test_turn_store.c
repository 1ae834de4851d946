/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests of users who are in the user database: they wait, others go on. */
#include "unit/store_file.h"
#include "unit/turn_rig.h"

static struct rig rig;
static struct store_file file;

static void database_set(uint64_t cache_ms)
{
	const struct store_params params = {
		.url = file.url,
		.timeout_ms = 2000,
		.cache_ms = cache_ms,
		.absent_ms = cache_ms,
		.cache_users = 100,
	};

	assert_int_equal(store_configure(rig_store, &params), 0);
}

static void open_with(const char *more)
{
	assert_int_equal(rig_open(&rig, 2, more), 0);
	rig_udp(&rig);
}

static int setup(void **state)
{
	(void)state;
	file_begin(&file);
	file_add(&file, "carol");
	assert_int_equal(store_new(&rig_store), 0);
	database_set(60000);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	RIG_UNTIL(&rig, rig_is_idle(&rig));
	store_stop(rig_store);
	/* What the store has answered at its end. */
	rig_tick(&rig, 0);
	rig_close(&rig);
	store_free(rig_store);
	rig_store = NULL;
	file_end(&file);
	return 0;
}

static void as_carol(struct tc *tc)
{
	tc->user = "carol";
	tc->password = PASSWORD;
}

/* As tc_open, from another address of this host. */
static void open_elsewhere(struct tc *tc)
{
	union addr from;

	assert_int_equal(addr_parse("127.0.0.3", 0, &from), 0);
	tc_init(tc, &rig);
	tc->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(tc->fd, &from.sa, addr_len(&from)), 0);
	assert_int_equal(
		connect(tc->fd, &rig.addr[0].sa, addr_len(&rig.addr[0])), 0);
	tc_nonblocking(tc->fd);
}

/* A reset, which a paused connection hears of, too. */
static void hang_up(struct tc *tc)
{
	setsockopt(tc->fd, SOL_SOCKET, SO_LINGER,
		   &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
	tc_close(tc);
}

/* It has been opened: carol is challenged, and asks for an allocation. */
static void carol_goes_on(struct tc *tc, bool udp)
{
	as_carol(tc);
	assert_int_equal(tc_challenge(tc), 401);
	if (udp)
		tc_begin_allocate_udp(tc);
	else
		tc_begin_allocate(tc);
	tc_send(tc);
}

static void carol_asks(struct tc *tc, bool udp)
{
	if (udp)
		tc_open_udp(tc, &rig, 0);
	else
		tc_open(tc, &rig, 0);
	carol_goes_on(tc, udp);
}

static uint64_t lookups(void)
{
	return rig_counters(&rig).lookups;
}

static void a_user_of_the_database_allocates(void **state)
{
	struct tc tc, again;
	union addr relayed;

	(void)state;
	open_with("");
	carol_asks(&tc, false);
	assert_int_equal(tc_answer(&tc), 0);
	assert_int_equal(lookups(), 1);
	tc_open(&again, &rig, 1);
	as_carol(&again);
	assert_int_equal(tc_allocate(&again, &relayed), 0);
	assert_int_equal(lookups(), 1);
	tc_close(&again);
	tc_close(&tc);
}

static void a_wrong_password_and_a_name_nobody_has_are_alike(void **state)
{
	struct tc tc;
	union addr relayed;

	(void)state;
	open_with("");
	tc_open(&tc, &rig, 0);
	tc.user = "carol";
	tc.password = "wrong";
	assert_int_equal(tc_allocate(&tc, &relayed), 401);
	tc.user = "dave";
	assert_int_equal(tc_allocate(&tc, &relayed), 401);
	assert_int_equal(lookups(), 2);
	assert_int_equal(rig_counters(&rig).auth_failures, 2);
	tc_close(&tc);
}

static void who_has_a_section_comes_first(void **state)
{
	struct tc tc;
	union addr relayed;

	(void)state;
	file_add(&file, "alice"); /* with another password */
	open_with("");
	tc_open(&tc, &rig, 0);
	assert_int_equal(tc_allocate(&tc, &relayed), 0);
	tc.password = PASSWORD;
	tc_begin(&tc, STUN_REFRESH);
	assert_int_equal(tc_ask(&tc), 401);
	assert_int_equal(lookups(), 0);
	tc_close(&tc);
}

static void others_go_on_meanwhile(void **state)
{
	struct tc waiting, other;
	union addr relayed;

	(void)state;
	open_with("");
	file_lock(&file);
	carol_asks(&waiting, false);
	RIG_UNTIL(&rig, lookups() == 1);
	tc_open(&other, &rig, 0);
	assert_int_equal(tc_allocate(&other, &relayed), 0);
	assert_int_equal(fd_state(waiting.fd), 0);
	file_unlock(&file);
	assert_int_equal(tc_answer(&waiting), 0);
	tc_close(&other);
	tc_close(&waiting);
}

/* What follows on the connection stays behind it, whatever it is. */
static void a_connection_keeps_its_order(void **state)
{
	struct tc tc;
	uint8_t allocate[STUN_TXID_LEN];

	(void)state;
	open_with("");
	file_lock(&file);
	carol_asks(&tc, false);
	memcpy(allocate, tc.txid, sizeof(allocate));
	tc_begin(&tc, STUN_REFRESH);
	tc_send(&tc);
	RIG_UNTIL(&rig, lookups() == 1);
	file_unlock(&file);
	assert_int_equal(tc_next(&tc), 0);
	assert_memory_equal(tc.msg.txid, allocate, sizeof(allocate));
	assert_int_equal(tc_code(&tc), 0);
	assert_int_equal(tc_answer(&tc), 0);
	assert_int_equal(rig_counters(&rig).requests, 3);
	tc_close(&tc);
}

static void data_behind_a_bind_waits_with_it(void **state)
{
	char early[5000], got[sizeof(early)];
	struct tc tc, data;
	union addr relayed, peer, from;
	int listener, fd;
	uint32_t id;

	(void)state;
	memset(early, 'x', sizeof(early));
	database_set(0); /* each request is a question */
	open_with("");
	tc_open(&tc, &rig, 0);
	as_carol(&tc);
	assert_int_equal(tc_allocate(&tc, &relayed), 0);
	listener = peer_listen("127.0.0.2", &peer);
	assert_int_equal(tc_connect(&tc, &peer, &id), 0);
	fd = peer_accept(&rig, listener, &from);
	file_lock(&file);
	tc_open_data(&data, &tc, 1);
	tc_begin_bind(&data, id);
	tc_send(&data);
	tc_write(&data, early, sizeof(early));
	RIG_UNTIL(&rig, rig.worker[1] && lookups() == 3);
	file_unlock(&file);
	assert_int_equal(tc_answer(&data), 0);
	assert_true(fd_read(&rig, fd, got, sizeof(got)));
	assert_memory_equal(got, early, sizeof(got));
	tc_close(&data);
	close(fd);
	close(listener);
	tc_close(&tc);
}

static void who_goes_while_waiting_is_forgotten(void **state)
{
	struct tc tc;

	(void)state;
	open_with("");
	file_lock(&file);
	carol_asks(&tc, false);
	RIG_UNTIL(&rig, lookups() == 1);
	hang_up(&tc);
	RIG_UNTIL(&rig, rig_counters(&rig).clients == 0);
	file_unlock(&file);
}

static void a_database_that_does_not_answer_is_500(void **state)
{
	struct tc tcp, udp;

	(void)state;
	open_with("[database]\ntimeout = 50ms\n");
	file_lock(&file);
	carol_asks(&tcp, false);
	carol_asks(&udp, true);
	assert_int_equal(tc_answer(&tcp), 500);
	assert_int_equal(tc_answer(&udp), 500);
	assert_int_equal(rig_counters(&rig).lookup_failures, 2);
	file_unlock(&file);
	/* And it is heard again. */
	tc_begin_allocate(&tcp);
	assert_int_equal(tc_ask(&tcp), 0);
	tc_close(&tcp);
	tc_close(&udp);
}

static void a_datagram_that_comes_again_is_answered_once(void **state)
{
	struct tc tc;
	size_t len;

	(void)state;
	open_with("");
	file_lock(&file);
	carol_asks(&tc, true);
	len = (size_t)stun_end(&tc.w);
	tc_write(&tc, tc.out, len);
	tc_write(&tc, tc.out, len);
	RIG_UNTIL(&rig, rig_counters(&rig).requests == 4);
	assert_int_equal(lookups(), 1);
	file_unlock(&file);
	assert_int_equal(tc_answer(&tc), 0);
	rig_tick(&rig, 20);
	assert_int_equal(fd_state(tc.fd), 0);
	tc_begin(&tc, STUN_REFRESH);
	stun_put_u32(&tc.w, STUN_ATTR_LIFETIME, 0);
	assert_int_equal(tc_ask(&tc), 0);
	tc_close(&tc);
}

static void so_many_may_wait(void **state)
{
	struct tc first, second, third;

	(void)state;
	open_with("[database]\nwaiting = 1\n");
	file_lock(&file);
	carol_asks(&first, false);
	RIG_UNTIL(&rig, lookups() == 1);
	carol_asks(&second, false);
	assert_int_equal(tc_answer(&second), 500);
	carol_asks(&third, true);
	RIG_UNTIL(&rig, rig_counters(&rig).lookups_refused == 2);
	assert_int_equal(fd_state(third.fd), 0);
	file_unlock(&file);
	assert_int_equal(tc_answer(&first), 0);
	/* Its place is free again. */
	tc_begin_allocate(&second);
	assert_int_equal(tc_ask(&second), 0);
	tc_close(&first);
	tc_close(&second);
	tc_close(&third);
}

static void so_many_of_one_source_may_wait(void **state)
{
	struct tc first, second, elsewhere;

	(void)state;
	open_with("[database]\nwaiting_per_source = 1\n");
	file_lock(&file);
	carol_asks(&first, false);
	RIG_UNTIL(&rig, lookups() == 1);
	carol_asks(&second, false);
	assert_int_equal(tc_answer(&second), 500);
	open_elsewhere(&elsewhere);
	carol_goes_on(&elsewhere, false);
	RIG_UNTIL(&rig, lookups() == 2);
	/* Who leaves has his place as long as the database is asked for him. */
	hang_up(&first);
	RIG_UNTIL(&rig, rig_counters(&rig).clients == 2);
	tc_begin_allocate(&second);
	assert_int_equal(tc_ask(&second), 500);
	assert_int_equal(rig_counters(&rig).lookup_source_refusals, 2);
	assert_int_equal(rig_counters(&rig).lookups_refused, 2);
	file_unlock(&file);
	assert_int_equal(tc_answer(&elsewhere), 0);
	RIG_UNTIL(&rig, !atomic_load(&rig.shared->waiting));
	tc_begin_allocate(&second);
	assert_int_equal(tc_ask(&second), 0);
	tc_close(&elsewhere);
	tc_close(&second);
}

static void a_listener_that_goes_takes_its_requests_along(void **state)
{
	struct tc tc;

	(void)state;
	open_with("");
	file_lock(&file);
	carol_asks(&tc, true);
	RIG_UNTIL(&rig, lookups() == 1);
	rig_reload(&rig, "[listener other]\naddress = 127.0.0.1:1\n");
	file_unlock(&file);
	RIG_UNTIL(&rig, atomic_load(&rig.shared->waiting) == 0);
	tc_close(&tc);
}

static void who_waits_at_the_end_is_let_go(void **state)
{
	struct tc tcp, udp;

	(void)state;
	open_with("");
	file_lock(&file);
	carol_asks(&tcp, false);
	carol_asks(&udp, true);
	RIG_UNTIL(&rig, lookups() == 2);
	store_stop(rig_store);
	assert_int_equal(tc_answer(&tcp), 500);
	assert_int_equal(tc_answer(&udp), 500);
	file_unlock(&file);
	tc_close(&tcp);
	tc_close(&udp);
}

static void once_without_memory(void *arg)
{
	struct tc tc;
	union addr relayed;
	int code;

	(void)arg;
	if (!rig_open(&rig, 1, "")) {
		tc_open(&tc, &rig, 0);
		as_carol(&tc);
		code = tc_allocate(&tc, &relayed);
		if (code && !failalloc_hit())
			fail_msg("code %d", code);
		tc_close(&tc);
		RIG_UNTIL(&rig, rig_is_idle(&rig) &&
					!atomic_load(&rig.shared->waiting));
	}
	rig_close(&rig);
}

static void survives_lack_of_memory(void **state)
{
	(void)state;
	database_set(0);
	assert_in_range(failalloc_sweep(once_without_memory, NULL), 20, 10000);
	open_with("");
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_user_of_the_database_allocates),
		CASE(a_wrong_password_and_a_name_nobody_has_are_alike),
		CASE(who_has_a_section_comes_first),
		CASE(others_go_on_meanwhile),
		CASE(a_connection_keeps_its_order),
		CASE(data_behind_a_bind_waits_with_it),
		CASE(who_goes_while_waiting_is_forgotten),
		CASE(a_database_that_does_not_answer_is_500),
		CASE(a_datagram_that_comes_again_is_answered_once),
		CASE(so_many_may_wait),
		CASE(so_many_of_one_source_may_wait),
		CASE(a_listener_that_goes_takes_its_requests_along),
		CASE(who_waits_at_the_end_is_let_go),
		CASE(survives_lack_of_memory),
	};

	return cmocka_run_group_tests_name("turn: user database", tests, NULL,
					   NULL);
}
