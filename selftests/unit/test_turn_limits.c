/* SPDX-License-Identifier: BSD-2-Clause */
/* Limits, timeouts, what operators see and do, reload, and lack of memory. */
#include <sys/resource.h>

#include "unit/open_files.h"
#include "unit/turn_rig.h"

static struct rig rig;

/* For tests that bring their own limits. */
static void open_with(const char *more)
{
	assert_int_equal(rig_open(&rig, 1, more), 0);
}

static int teardown(void **state)
{
	(void)state;
	rig_finish(&rig);
	return 0;
}

/* Is a new connection served? */
static bool served(void)
{
	struct tc tc;
	int code;

	tc_open(&tc, &rig, 0);
	tc_begin(&tc, STUN_BINDING);
	code = tc_ask(&tc);
	tc_close(&tc);
	return code == 0;
}

static void bounds_connections(void **state)
{
	struct tc first, second;

	(void)state;
	open_with("[limits]\nconnections = 2\n");
	tc_open(&first, &rig, 0);
	tc_open(&second, &rig, 0);
	RIG_UNTIL(&rig, rig_counters(&rig).clients == 2);
	assert_false(served());
	assert_int_equal(rig_counters(&rig).rejected_limit, 1);
	tc_close(&first);
	RIG_UNTIL(&rig, rig_counters(&rig).clients == 1);
	assert_true(served());
	tc_close(&second);
}

/* Peers count, too: Connect is refused, who comes in is closed. */
static void bounds_connections_with_peers(void **state)
{
	union addr relayed, peer;
	struct tc tc;
	uint32_t id;
	int listener, fd;

	(void)state;
	open_with("[limits]\nconnections = 2\nconnections_per_user = 2\n");
	listener = peer_listen("127.0.0.2", &peer);
	tc_open(&tc, &rig, 0);
	assert_int_equal(tc_allocate(&tc, &relayed), 0);
	assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &peer), 0);
	assert_int_equal(tc_connect(&tc, &peer, &id), 0);
	addr_set_port(&peer, (uint16_t)(addr_port(&peer) + 1));
	assert_int_equal(tc_connect(&tc, &peer, &id), 508);
	fd = peer_dial("127.0.0.2", &relayed);
	RIG_UNTIL(&rig, fd_state(fd) < 0);
	/* What was refused counts for nobody: it is not the user's quota. */
	assert_int_equal(tc_connect(&tc, &peer, &id), 508);
	close(fd);
	close(listener);
	tc_close(&tc);
}

static void bounds_unauthenticated_connections(void **state)
{
	union addr relayed;
	struct tc known, silent;

	(void)state;
	open_with("[limits]\nunauthenticated = 1\n");
	tc_open(&known, &rig, 0);
	assert_int_equal(tc_allocate(&known, &relayed), 0);
	tc_open(&silent, &rig, 0);
	RIG_UNTIL(&rig, rig_counters(&rig).unauthenticated == 1);
	assert_false(served());
	tc_close(&silent);
	RIG_UNTIL(&rig, rig_counters(&rig).unauthenticated == 0);
	assert_true(served());
	tc_close(&known);
}

static void bounds_allocations(void **state)
{
	union addr relayed;
	struct tc first, second;

	(void)state;
	open_with("[limits]\nallocations = 1\n");
	tc_open(&first, &rig, 0);
	assert_int_equal(tc_allocate(&first, &relayed), 0);
	tc_open(&second, &rig, 0);
	assert_int_equal(tc_allocate(&second, &relayed), 508);
	tc_close(&first);
	RIG_UNTIL(&rig, rig_counters(&rig).allocations == 0);
	assert_int_equal(tc_allocate(&second, &relayed), 0);
	tc_close(&second);
}

static void bounds_a_users_allocations(void **state)
{
	union addr relayed;
	struct tc first, second;

	(void)state;
	open_with("[limits]\nallocations_per_user = 1\n");
	tc_open(&first, &rig, 0);
	assert_int_equal(tc_allocate(&first, &relayed), 0);
	tc_open(&second, &rig, 0);
	assert_int_equal(tc_allocate(&second, &relayed), 486);
	second.user = "bob";
	second.password = "builder";
	assert_int_equal(tc_allocate(&second, &relayed), 0);
	tc_close(&first);
	tc_close(&second);
}

static void bounds_a_realms_allocations(void **state)
{
	union addr relayed;
	struct tc first, second;

	(void)state;
	open_with("[realm third.org]\nallocations = 1\n"
		  "[user carol]\nrealm = third.org\npassword = x\n"
		  "[user dave]\nrealm = third.org\npassword = y\n");
	tc_open(&first, &rig, 0);
	first.user = "carol";
	first.password = "x";
	first.realm = "third.org";
	assert_int_equal(tc_allocate(&first, &relayed), 0);
	tc_open(&second, &rig, 0);
	second.user = "dave";
	second.password = "y";
	second.realm = "third.org";
	assert_int_equal(tc_allocate(&second, &relayed), 486);
	assert_int_equal(rig_counters(&rig).quota_refusals, 1);
	tc_close(&first);
	RIG_UNTIL(&rig, rig_counters(&rig).allocations == 0);
	assert_int_equal(tc_allocate(&second, &relayed), 0);
	tc_close(&second);
}

/* Over two allocations; out to peers and in from them. */
static void bounds_a_users_connections(void **state)
{
	union addr relayed[2], peer_addr;
	struct tc tc[2];
	uint32_t id;
	int peer, in;

	(void)state;
	open_with("[limits]\nconnections_per_user = 2\n");
	peer = peer_listen("127.0.0.2", &peer_addr);
	for (int i = 0; i < 2; i++) {
		tc_open(&tc[i], &rig, 0);
		assert_int_equal(tc_allocate(&tc[i], &relayed[i]), 0);
		assert_int_equal(tc_connect(&tc[i], &peer_addr, &id), 0);
	}
	addr_set_port(&peer_addr, 9);
	assert_int_equal(tc_peer(&tc[0], STUN_CONNECT, &peer_addr), 486);
	assert_int_equal(tc_peer(&tc[0], STUN_CREATE_PERMISSION, &peer_addr),
			 0);
	in = peer_dial("127.0.0.2", &relayed[0]);
	RIG_UNTIL(&rig, fd_state(in) < 0);
	close(in);
	assert_int_equal(rig_counters(&rig).quota_refusals, 2);
	/* One's own in the file; a failed one leaves its place. */
	rig_reload(&rig, "[limits]\nconnections_per_user = 3\n");
	for (int i = 0; i < 3; i++)
		assert_int_equal(tc_peer(&tc[0], STUN_CONNECT, &peer_addr),
				 447);
	tc_close(&tc[1]);
	RIG_UNTIL(&rig, rig_counters(&rig).pending == 1);
	rig_reload(&rig, "[limits]\nconnections_per_user = 2\n");
	in = peer_dial("127.0.0.2", &relayed[0]);
	assert_int_equal(tc_next(&tc[0]), 0);
	assert_int_equal(tc[0].msg.method, STUN_CONNECTION_ATTEMPT);
	close(in);
	close(peer);
	tc_close(&tc[0]);
}

/* An address of this test run alone, so that nobody else has its ports. */
static void open_with_ports(const char *ports, char address[ADDR_STRLEN])
{
	unsigned int pid = (unsigned int)getpid();
	char more[256];

	snprintf(address, ADDR_STRLEN, "127.%u.%u.%u", 100 + (pid >> 16) % 100,
		 pid >> 8 & 0xff, pid & 0xff);
	snprintf(more, sizeof(more), "[relay]\naddress = %s\nports = %s\n",
		 address, ports);
	open_with(more);
}

static void bounds_relayed_ports(void **state)
{
	char address[ADDR_STRLEN];
	union addr relayed[2];
	struct tc tc[3];
	uint64_t freed;

	(void)state;
	open_with_ports("61400-61401", address);
	for (int i = 0; i < 3; i++)
		tc_open(&tc[i], &rig, 0);
	assert_int_equal(tc_allocate(&tc[0], &relayed[0]), 0);
	assert_int_equal(tc_allocate(&tc[1], &relayed[1]), 0);
	assert_int_not_equal(addr_port(&relayed[0]), addr_port(&relayed[1]));
	/* The second refusal is from memory. */
	for (int i = 0; i < 2; i++)
		assert_int_equal(tc_allocate(&tc[2], &relayed[0]), 508);
	relayed[0] = relayed[1];
	addr_set_port(&relayed[0], 0);
	assert_true(turn_relayed_full(rig.shared, &relayed[0], 61400, 61401,
				      false, &freed));
	assert_false(turn_relayed_full(rig.shared, &relayed[0], 61400, 61402,
				       false, &freed));
	/* Where none is free, no even one is. */
	assert_true(turn_relayed_full(rig.shared, &relayed[0], 61400, 61401,
				      true, &freed));
	tc_close(&tc[1]);
	RIG_UNTIL(&rig, rig_counters(&rig).allocations == 1);
	/* One was given back after `freed` was read: not full. */
	turn_relayed_full_note(rig.shared, &relayed[0], 61400, 61401, false,
			       freed);
	assert_int_equal(tc_allocate(&tc[2], &relayed[0]), 0);
	tc_close(&tc[0]);
	tc_close(&tc[2]);
}

static int allocate_even(struct tc *tc, union addr *relayed)
{
	int code;

	tc_begin_allocate_udp(tc);
	stun_put(&tc->w, STUN_ATTR_EVEN_PORT, "", 1);
	code = tc_ask(tc);
	if (!code)
		assert_true(
			tc_address(tc, STUN_ATTR_XOR_RELAYED_ADDRESS, relayed));
	return code;
}

/* Who asks for one of them again does not have all ports looked through. */
static void remembers_that_even_ports_are_in_use(void **state)
{
	char address[ADDR_STRLEN];
	union addr relayed, host;
	struct tc tc[2];
	uint64_t freed;

	(void)state;
	open_with_ports("61404-61405", address);
	for (int i = 0; i < 2; i++) {
		tc_open(&tc[i], &rig, 0);
		assert_int_equal(tc_challenge(&tc[i]), 401);
	}
	assert_int_equal(allocate_even(&tc[0], &relayed), 0);
	assert_int_equal(addr_port(&relayed), 61404);
	host = relayed;
	addr_set_port(&host, 0);
	assert_false(turn_relayed_full(rig.shared, &host, 61404, 61405, true,
				       &freed));
	assert_int_equal(allocate_even(&tc[1], &relayed), 508);
	assert_true(turn_relayed_full(rig.shared, &host, 61404, 61405, true,
				      &freed));
	assert_false(turn_relayed_full(rig.shared, &host, 61404, 61405, false,
				       &freed));
	/* Back again, and had by another. */
	tc_close(&tc[0]);
	RIG_UNTIL(&rig, rig_counters(&rig).allocations == 0);
	assert_int_equal(allocate_even(&tc[1], &relayed), 0);
	assert_int_equal(addr_port(&relayed), 61404);
	tc_close(&tc[1]);
}

/* A port that another program listens on is not taken. */
static void leaves_ports_of_others_alone(void **state)
{
	char address[ADDR_STRLEN];
	union addr relayed, taken;
	struct tc tc[2];
	int fd;

	(void)state;
	open_with_ports("61402-61403", address);
	assert_int_equal(addr_parse(address, 61402, &taken), 0);
	fd = listener_open(&taken, 1);
	assert_true(fd >= 0);
	for (int i = 0; i < 2; i++)
		tc_open(&tc[i], &rig, 0);
	assert_int_equal(tc_allocate(&tc[0], &relayed), 0);
	assert_int_equal(addr_port(&relayed), 61403);
	assert_int_equal(tc_allocate(&tc[1], &relayed), 508);
	close(fd);
	tc_close(&tc[0]);
	tc_close(&tc[1]);
}

static void bounds_connections_of_an_allocation(void **state)
{
	union addr relayed, peer[3], from;
	struct tc tc, data;
	int listener[3], fd;
	uint32_t id;

	(void)state;
	open_with("[limits]\npending_binds = 1\n"
		  "connections_per_allocation = 2\n");
	for (int i = 0; i < 3; i++)
		listener[i] = peer_listen("127.0.0.2", &peer[i]);
	tc_open(&tc, &rig, 0);
	assert_int_equal(tc_allocate(&tc, &relayed), 0);
	assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &peer[0]), 0);
	assert_int_equal(tc_connect(&tc, &peer[0], &id), 0);
	assert_int_equal(tc_connect(&tc, &peer[1], &id), 508);
	fd = peer_dial("127.0.0.2", &relayed);
	RIG_UNTIL(&rig, fd_state(fd) < 0);
	close(fd);
	tc_open_data(&data, &tc, 0);
	assert_int_equal(tc_bind(&data, id), 0);
	assert_int_equal(tc_connect(&tc, &peer[1], &id), 0);
	/* A bind leaves no more than the second limit. */
	fd = peer_accept(&rig, listener[0], &from);
	close(fd);
	tc_close(&data);
	RIG_UNTIL(&rig, rig_counters(&rig).relaying == 0);
	tc_open_data(&data, &tc, 0);
	assert_int_equal(tc_bind(&data, id), 0);
	assert_int_equal(tc_connect(&tc, &peer[2], &id), 0);
	{
		struct tc more;

		tc_open_data(&more, &tc, 0);
		assert_int_equal(tc_bind(&more, id), 0);
		assert_int_equal(tc_connect(&tc, &peer[0], &id), 508);
		tc_close(&more);
	}
	for (int i = 0; i < 3; i++)
		close(listener[i]);
	tc_close(&data);
	tc_close(&tc);
}

static void closes_who_does_not_authenticate(void **state)
{
	union addr relayed;
	struct tc silent, slow, known;
	uint64_t start;

	(void)state;
	open_with("[limits]\nunauthenticated_timeout = 300ms\n");
	tc_open(&known, &rig, 0);
	assert_int_equal(tc_allocate(&known, &relayed), 0);
	start = clock_ms();
	tc_open(&silent, &rig, 0);
	tc_open(&slow, &rig, 0);
	/* Bytes and Binding requests do not prolong it. */
	tc_begin(&slow, STUN_BINDING);
	assert_int_equal(tc_ask(&slow), 0);
	RIG_UNTIL(&rig, rig_counters(&rig).timeouts == 2);
	assert_in_range(clock_ms() - start, 290, 2000);
	assert_true(tc_is_closed(&silent));
	/* An allocation may be silent. After it the time runs again. */
	tc_begin(&known, STUN_REFRESH);
	stun_put_u32(&known.w, STUN_ATTR_LIFETIME, 0);
	assert_int_equal(tc_ask(&known), 0);
	RIG_UNTIL(&rig, rig_counters(&rig).timeouts == 3);
	tc_close(&silent);
	tc_close(&slow);
	tc_close(&known);
}

static void closes_who_does_not_read_answers(void **state)
{
	struct tc tc;
	size_t len;

	(void)state;
	open_with("[limits]\nsend_queue = 4K\n");
	tc_open(&tc, &rig, 0);
	tc_begin(&tc, STUN_BINDING);
	len = tc_end(&tc);
	while (!rig_counters(&rig).send_queue_full) {
		for (int i = 0; i < 200; i++)
			(void)!send(tc.fd, tc.out, len,
				    MSG_NOSIGNAL | MSG_DONTWAIT);
		rig_tick(&rig, 0);
	}
	RIG_UNTIL(&rig, rig_counters(&rig).clients == 0);
	tc_close(&tc);
}

static void refuses_allocations_while_draining(void **state)
{
	union addr relayed;
	struct tc old, new;

	(void)state;
	open_with("");
	tc_open(&old, &rig, 0);
	assert_int_equal(tc_allocate(&old, &relayed), 0);
	turn_shared_drain(rig.shared, true);
	assert_true(turn_shared_draining(rig.shared));
	tc_open(&new, &rig, 0);
	assert_int_equal(tc_allocate(&new, &relayed), 508);
	tc_begin(&old, STUN_REFRESH);
	assert_int_equal(tc_ask(&old), 0);
	turn_shared_drain(rig.shared, false);
	assert_int_equal(tc_allocate(&new, &relayed), 0);
	tc_close(&old);
	tc_close(&new);
}

/* Without descriptors requests fail with 508, and go on when there are some. */
static void survives_a_lack_of_descriptors(void **state)
{
	union addr relayed, peer;
	struct rlimit old, none;
	struct tc tc, late;
	uint32_t id;
	int listener, fd;

	(void)state;
	open_with("[limits]\nconnections = 100\n");
	listener = peer_listen("127.0.0.2", &peer);
	tc_open(&tc, &rig, 0);
	assert_int_equal(tc_challenge(&tc), 401);
	tc_open(&late, &rig, 0);
	assert_int_equal(tc_allocate(&late, &relayed), 0);
	fd = dup(STDERR_FILENO);
	close(fd);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = (rlim_t)fd;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(tc_allocate(&tc, &relayed), 508);
	assert_int_equal(tc_connect(&late, &peer, &id), 508);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(tc_allocate(&tc, &relayed), 0);
	assert_int_equal(tc_connect(&late, &peer, &id), 0);
	close(listener);
	tc_close(&tc);
	tc_close(&late);
}

/* The descriptors that RLIMIT_NOFILE leaves are counted before they are out. */
static void keeps_descriptors_in_reserve(void **state)
{
	struct rlimit old, few;
	struct tc tc[40];
	unsigned int budget;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = old;
	few.rlim_cur = 80;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	open_with("[engine]\npipes = 4\n");
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	budget = atomic_load(&rig.shared->descriptor_budget);
	assert_in_range(budget, 16, 40 - 1);
	for (unsigned int i = 0; i <= budget; i++)
		tc_open(&tc[i], &rig, 0);
	RIG_UNTIL(&rig, rig_counters(&rig).rejected_limit == 1);
	assert_int_equal(rig_counters(&rig).clients, budget);
	for (unsigned int i = 0; i <= budget; i++)
		tc_close(&tc[i]);
}

/* What operators see and do */

struct rows {
	unsigned int count;
	struct turn_allocation_info allocation;
	struct turn_connection_info connection;
};

static bool allocation_row(void *arg, const struct turn_allocation_info *info)
{
	struct rows *rows = arg;

	rows->count++;
	rows->allocation = *info;
	return true;
}

static bool connection_row(void *arg, const struct turn_connection_info *info)
{
	struct rows *rows = arg;

	rows->count++;
	rows->connection = *info;
	return true;
}

static struct rows allocations(void)
{
	struct rows rows = { 0 };

	turn_worker_each_allocation(rig.worker[0], allocation_row, &rows);
	return rows;
}

static struct rows connections(void)
{
	struct turn_cursor at = { 0 };
	struct rows rows = { 0 };

	turn_worker_each_connection(rig.worker[0], &at, SIZE_MAX,
				    connection_row, &rows);
	return rows;
}

static bool first_only(void *arg, const struct turn_connection_info *info)
{
	(void)info;
	(*(int *)arg)++;
	return false;
}

static void shows_allocations_and_connections(void **state)
{
	union addr relayed, peer, other, from;
	struct tc tc, data;
	struct rows rows;
	struct turn_cursor at = { 0 };
	int listener, second, fd, visits = 0;
	uint32_t id;

	(void)state;
	open_with("");
	listener = peer_listen("127.0.0.2", &peer);
	second = peer_listen("127.0.0.3", &other);
	tc_open(&tc, &rig, 0);
	assert_int_equal(tc_allocate(&tc, &relayed), 0);
	assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &peer), 0);
	assert_int_equal(tc_connect(&tc, &peer, &id), 0);
	rows = allocations();
	assert_int_equal(rows.count, 1);
	assert_string_equal(rows.allocation.id, "a0.1");
	assert_string_equal(rows.allocation.user, "alice");
	assert_string_equal(rows.allocation.realm, "example.org");
	assert_true(addr_equal(&rows.allocation.relayed, &relayed));
	assert_int_equal(rows.allocation.permissions, 1);
	assert_int_equal(rows.allocation.pending, 1);
	assert_int_equal(rows.allocation.connections, 0);
	assert_in_range(rows.allocation.expires_in_ms, 590000, 600000);
	rows = connections();
	assert_int_equal(rows.count, 1);
	assert_string_equal(rows.connection.id, "c0.1");
	assert_string_equal(rows.connection.allocation, "a0.1");
	assert_string_equal(rows.connection.state, "held");
	assert_string_equal(rows.connection.engine, "-");
	assert_int_equal(addr_family(&rows.connection.client), AF_UNSPEC);
	assert_true(addr_equal(&rows.connection.peer, &peer));
	tc_open_data(&data, &tc, 0);
	assert_int_equal(tc_bind(&data, id), 0);
	fd = peer_accept(&rig, listener, &from);
	assert_true(fds_talk(&rig, data.fd, fd));
	rows = connections();
	assert_string_equal(rows.connection.state, "relaying");
	assert_string_not_equal(rows.connection.engine, "-");
	assert_int_equal(rows.connection.bytes_to_peer, 6);
	assert_int_equal(rows.connection.bytes_to_client, 9);
	rows = allocations();
	assert_int_equal(rows.allocation.pending, 0);
	assert_int_equal(rows.allocation.connections, 1);
	assert_int_equal(tc_connect(&tc, &other, &id), 0);
	assert_false(turn_worker_each_connection(rig.worker[0], &at, SIZE_MAX,
						 first_only, &visits));
	assert_int_equal(visits, 1);
	close(fd);
	close(listener);
	close(second);
	tc_close(&data);
	tc_close(&tc);
}

struct page {
	char ids[128]; /* "c0.1 c0.2 " */
	bool more;
};

static bool page_row(void *arg, const struct turn_connection_info *info)
{
	struct page *page = arg;

	strcat(page->ids, info->id);
	strcat(page->ids, " ");
	return true;
}

static struct page page_next(struct turn_cursor *at, size_t count)
{
	struct page page = { 0 };

	page.more = turn_worker_each_connection(rig.worker[0], at, count,
						page_row, &page);
	return page;
}

/* What comes and goes between two calls neither repeats nor hides the rest. */
static void connections_are_told_in_pages(void **state)
{
	struct turn_cursor at = { 0 };
	union addr relayed, peer[3];
	int listener[3];
	struct tc tc[3];
	struct page page;
	uint32_t id;

	(void)state;
	open_with("");
	for (int i = 0; i < 3; i++) {
		static const char *const hosts[] = { "127.0.0.2", "127.0.0.3",
						     "127.0.0.4" };

		listener[i] = peer_listen(hosts[i], &peer[i]);
	}
	for (int i = 0; i < 3; i++) {
		tc_open(&tc[i], &rig, 0);
		assert_int_equal(tc_allocate(&tc[i], &relayed), 0);
	}
	for (int i = 0; i < 6; i++) {
		assert_int_equal(tc_peer(&tc[i % 3], STUN_CREATE_PERMISSION,
					 &peer[i / 3]),
				 0);
		assert_int_equal(tc_connect(&tc[i % 3], &peer[i / 3], &id), 0);
	}
	for (int i = 0; i < 6; i++) {
		page = page_next(&at, 1);
		assert_int_equal(strlen(page.ids), strlen("c0.1 "));
		/* Allocation after allocation. */
		assert_int_equal(page.ids[3], "142536"[i]);
		assert_int_equal(page.more, i < 5);
	}
	memset(&at, 0, sizeof(at));
	page = page_next(&at, 3);
	assert_string_equal(page.ids, "c0.1 c0.4 c0.2 ");
	assert_true(page.more);
	/* The allocation it has come to goes, and the next gets one more. */
	tc_close(&tc[1]);
	while (rig_counters(&rig).allocations > 2)
		rig_tick(&rig, 10);
	assert_int_equal(tc_peer(&tc[2], STUN_CREATE_PERMISSION, &peer[2]), 0);
	assert_int_equal(tc_connect(&tc[2], &peer[2], &id), 0);
	page = page_next(&at, 4);
	assert_string_equal(page.ids, "c0.3 c0.6 c0.7 ");
	assert_false(page.more);
	tc_close(&tc[0]);
	tc_close(&tc[2]);
	for (int i = 0; i < 3; i++)
		close(listener[i]);
}

static uint64_t bytes_counted(void)
{
	struct counters counters;

	turn_worker_counters(rig.worker[0], &counters);
	return counters.bytes_to_peers + counters.bytes_to_clients;
}

/* No call looks at more than it is told to, and no byte counts twice. */
static void connections_are_counted_in_slices(void **state)
{
	static const char *const hosts[] = { "127.0.0.2", "127.0.0.3",
					     "127.0.0.4" };
	const uint64_t each = sizeof("there") + sizeof("and back");
	struct turn_cursor at = { 0 };
	union addr relayed, peer, from;
	int listener[3], fds[3];
	struct tc tc, data[3];
	uint32_t id;

	(void)state;
	open_with("[engine]\norder = copy\n");
	tc_open(&tc, &rig, 0);
	assert_int_equal(tc_allocate(&tc, &relayed), 0);
	for (int i = 0; i < 3; i++) {
		listener[i] = peer_listen(hosts[i], &peer);
		assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &peer),
				 0);
		assert_int_equal(tc_connect(&tc, &peer, &id), 0);
		tc_open_data(&data[i], &tc, 0);
		assert_int_equal(tc_bind(&data[i], id), 0);
		fds[i] = peer_accept(&rig, listener[i], &from);
		assert_true(fds_talk(&rig, data[i].fd, fds[i]));
	}
	assert_int_equal(bytes_counted(), 0);
	for (uint64_t i = 1; i <= 3; i++) {
		assert_int_equal(turn_worker_look(rig.worker[0], &at, 1),
				 i < 3);
		assert_int_equal(bytes_counted(), i * each);
	}
	memset(&at, 0, sizeof(at));
	assert_false(turn_worker_look(rig.worker[0], &at, 4));
	assert_int_equal(bytes_counted(), 3 * each);
	/* Ended between two looks, and once more behind it. */
	assert_true(fds_talk(&rig, data[0].fd, fds[0]));
	memset(&at, 0, sizeof(at));
	assert_true(turn_worker_look(rig.worker[0], &at, 1));
	for (int i = 0; i < 3; i++) {
		tc_close(&data[i]);
		close(fds[i]);
		close(listener[i]);
	}
	RIG_UNTIL(&rig, turn_worker_connections(rig.worker[0]) == 0);
	assert_int_equal(bytes_counted(), 4 * each);
	assert_false(turn_worker_look(rig.worker[0], &at, 1));
	assert_int_equal(bytes_counted(), 4 * each);
	tc_close(&tc);
}

static void lists_engines(void **state)
{
	struct engine_usage usage;

	(void)state;
	open_with("[engine]\norder = copy\n");
	assert_true(turn_worker_engine(rig.worker[0], 0, &usage));
	assert_string_equal(usage.name, "copy");
	assert_int_equal(usage.error, 0);
	assert_false(turn_worker_engine(rig.worker[0], 1, &usage));
}

static void kicks(void **state)
{
	union addr relayed, peer[3], from;
	int listener[3], fd[3];
	struct tc tc, data;
	uint32_t id;

	(void)state;
	open_with("");
	tc_open(&tc, &rig, 0);
	assert_int_equal(tc_allocate(&tc, &relayed), 0);
	for (int i = 0; i < 3; i++) {
		listener[i] = peer_listen("127.0.0.2", &peer[i]);
		assert_int_equal(tc_connect(&tc, &peer[i], &id), 0);
		fd[i] = peer_accept(&rig, listener[i], &from);
		close(listener[i]);
	}
	tc_open_data(&data, &tc, 0);
	assert_int_equal(tc_bind(&data, id), 0);
	assert_int_equal(turn_worker_kick(rig.worker[0], "c0.9"), -ENOENT);
	assert_int_equal(turn_worker_kick(rig.worker[0], "c1.1"), -ENOENT);
	assert_int_equal(turn_worker_kick(rig.worker[0], "x0.1"), -ENOENT);
	assert_int_equal(turn_worker_kick(rig.worker[0], "c0.1x"), -ENOENT);
	assert_int_equal(turn_worker_kick(rig.worker[0], "c0"), -ENOENT);
	assert_int_equal(turn_worker_kick(rig.worker[0], ""), -ENOENT);
	/* A held one. */
	assert_int_equal(turn_worker_kick(rig.worker[0], "c0.1"), 0);
	RIG_UNTIL(&rig, fd_state(fd[0]) < 0);
	assert_int_equal(rig_counters(&rig).pending, 1);
	/* A bound one, both legs. */
	assert_int_equal(turn_worker_kick(rig.worker[0], "c0.3"), 0);
	RIG_UNTIL(&rig, fd_state(fd[2]) < 0 && fd_state(data.fd) < 0);
	assert_int_equal(rig_counters(&rig).allocations, 1);
	/* The allocation, its control connection and the last one. */
	assert_int_equal(turn_worker_kick(rig.worker[0], "a0.1"), 0);
	RIG_UNTIL(&rig, fd_state(fd[1]) < 0 && fd_state(tc.fd) < 0);
	assert_int_equal(turn_worker_kick(rig.worker[0], "a0.1"), -ENOENT);
	for (int i = 0; i < 3; i++)
		close(fd[i]);
	tc_close(&data);
	tc_close(&tc);
}

/* A Connect under way is answered when its connection is kicked. */
static void kicks_a_connect_under_way(void **state)
{
	union addr relayed, silent;
	int fillers[4], fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(silent);
	struct tc tc;

	(void)state;
	open_with("");
	assert_int_equal(addr_parse("127.0.0.4", 0, &silent), 0);
	assert_int_equal(bind(fd, &silent.sa, addr_len(&silent)), 0);
	assert_int_equal(listen(fd, 0), 0);
	assert_int_equal(getsockname(fd, &silent.sa, &len), 0);
	for (int i = 0; i < 4; i++) {
		fillers[i] = socket(
			AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		connect(fillers[i], &silent.sa, addr_len(&silent));
	}
	tc_open(&tc, &rig, 0);
	assert_int_equal(tc_allocate(&tc, &relayed), 0);
	tc_begin_peer(&tc, STUN_CONNECT, &silent);
	tc_send(&tc);
	RIG_UNTIL(&rig, connections().count == 1);
	assert_string_equal(connections().connection.state, "connecting");
	assert_int_equal(turn_worker_kick(rig.worker[0], "c0.1"), 0);
	assert_int_equal(tc_answer(&tc), 447);
	for (int i = 0; i < 4; i++)
		close(fillers[i]);
	close(fd);
	tc_close(&tc);
}

/* Reload */

static void reload_removes_users_and_keeps_what_is_there(void **state)
{
	struct turn_settings *settings;
	static const uint8_t secret[AUTH_SECRET_LEN] = { 7 };
	static const char text[] =
		"[realm second.org]\n[user bob]\nrealm = second.org\n"
		"password = builder\n[peers]\nallow = 127.0.0.0/8\n"
		"[engine]\norder = copy\n";
	union addr relayed, peer, from;
	struct tc tc, data, late;
	struct stun_attr attr;
	struct engine_usage usage;
	struct conf *conf;
	char whole[1024], served_by[512];
	int listener, fd, len;
	uint32_t id;

	(void)state;
	open_with("[engine]\norder = splice, copy\n");
	listener = peer_listen("127.0.0.2", &peer);
	tc_open(&tc, &rig, 0);
	assert_int_equal(tc_allocate(&tc, &relayed), 0);
	assert_int_equal(tc_connect(&tc, &peer, &id), 0);
	fd = peer_accept(&rig, listener, &from);
	tc_open_data(&data, &tc, 0);
	assert_int_equal(tc_bind(&data, id), 0);
	rig_listener(&rig, "[listener default]\naddress = ", rig.addr,
		     served_by);
	len = snprintf(whole, sizeof(whole), "%s%s", text, served_by);
	assert_int_equal(conf_parse(whole, (size_t)len, "rig", rig_report, NULL,
				    &conf),
			 0);
	assert_int_equal(turn_settings_new(conf, secret, NULL, &settings), 0);
	conf_unref(conf);
	turn_worker_reload(rig.worker[0], settings);
	turn_settings_unref(settings);
	/* alice is gone, her stream is not. */
	tc_begin(&tc, STUN_REFRESH);
	assert_int_equal(tc_ask(&tc), 401);
	assert_true(stun_find(&tc.msg, STUN_ATTR_REALM, &attr));
	assert_memory_equal(attr.value, "second.org", attr.len);
	assert_true(fds_talk(&rig, data.fd, fd));
	assert_string_equal(connections().connection.engine, "splice");
	assert_string_equal(connections().connection.user, "alice");
	tc_open(&late, &rig, 0);
	late.user = "bob";
	late.password = "builder";
	late.realm = "second.org";
	assert_int_equal(tc_allocate(&late, &relayed), 0);
	assert_true(turn_worker_engine(rig.worker[0], 0, &usage));
	assert_string_equal(usage.name, "copy");
	assert_false(turn_worker_engine(rig.worker[0], 1, &usage));
	close(fd);
	close(listener);
	tc_close(&data);
	tc_close(&tc);
	tc_close(&late);
}

/* What could not be opened is tried again by a reload of the same. */
static void opens_engines_it_missed(void **state)
{
	struct turn_settings *settings;
	struct engine_usage usage;

	(void)state;
	open_with("[engine]\norder = splice\n");
	settings = rig_settings("[engine]\norder = copy\n");
	failalloc_arm(1);
	turn_worker_reload(rig.worker[0], settings);
	assert_true(failalloc_hit());
	failalloc_disarm();
	assert_true(turn_worker_engine(rig.worker[0], 0, &usage));
	assert_string_equal(usage.name, "splice");
	turn_worker_reload(rig.worker[0], settings);
	turn_settings_unref(settings);
	assert_true(turn_worker_engine(rig.worker[0], 0, &usage));
	assert_string_equal(usage.name, "copy");
}

static void reload_stops_listeners_that_are_gone(void **state)
{
	struct tc old;
	int fd;

	(void)state;
	open_with("");
	tc_open(&old, &rig, 0);
	assert_int_equal(tc_challenge(&old), 401);
	rig_reload(&rig, "[listener other]\naddress = 127.0.0.1:1\n");
	/* Who is connected goes on, nobody comes in. */
	assert_int_equal(tc_challenge(&old), 401);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, &rig.addr[0].sa, addr_len(&rig.addr[0])),
			 -1);
	close(fd);
	tc_close(&old);
}

static void reload_changes_limits_for_what_comes(void **state)
{
	union addr relayed;
	struct tc first, second;

	(void)state;
	open_with("");
	tc_open(&first, &rig, 0);
	tc_open(&second, &rig, 0);
	assert_int_equal(tc_allocate(&first, &relayed), 0);
	rig_reload(&rig, "[limits]\nallocations_per_user = 1\n");
	assert_int_equal(tc_allocate(&second, &relayed), 486);
	tc_begin(&first, STUN_REFRESH);
	assert_int_equal(tc_ask(&first), 0);
	tc_close(&first);
	tc_close(&second);
}

/* Memory */

static void starts_and_stops(void *arg)
{
	(void)arg;
	rig_open(&rig, 2, "[engine]\norder = splice, copy\n");
	rig_close(&rig);
}

static void survives_allocation_failures_at_start(void **state)
{
	(void)state;
	assert_true(failalloc_sweep(starts_and_stops, NULL) > 20);
}

struct story {
	struct tc control, data, other;
	int listener, out, in;
};

/* Everything once; any step may fail for want of memory. */
static bool story_told(struct story *story)
{
	union addr relayed, peer, from;
	uint32_t id;

	story->listener = peer_listen("127.0.0.2", &peer);
	tc_open(&story->control, &rig, 0);
	if (tc_allocate(&story->control, &relayed) ||
	    tc_peer(&story->control, STUN_CREATE_PERMISSION, &peer) ||
	    tc_connect(&story->control, &peer, &id))
		return false;
	story->out = peer_accept(&rig, story->listener, &from);
	tc_open_data(&story->data, &story->control, 0);
	tc_begin_bind(&story->data, id);
	{
		size_t len = tc_end(&story->data);

		tc_write(&story->data, story->data.out, len);
		tc_write(&story->data, "early", 5);
	}
	if (tc_answer(&story->data))
		return false;
	{
		char buf[5];

		if (!fd_read(&rig, story->out, buf, 5))
			return false;
		assert_memory_equal(buf, "early", 5);
	}
	if (!fds_talk(&rig, story->data.fd, story->out))
		return false;
	story->in = peer_dial("127.0.0.2", &relayed);
	RIG_UNTIL(&rig,
		  fd_state(story->in) < 0 || fd_state(story->control.fd) != 0);
	if (fd_state(story->control.fd) <= 0 || tc_next(&story->control) ||
	    !tc_connection_id(&story->control, &id))
		return false;
	tc_open_data(&story->other, &story->control, 1);
	return tc_bind(&story->other, id) == 0 &&
	       fds_talk(&rig, story->other.fd, story->in);
}

static void story(void *arg)
{
	struct story story = { .listener = -1, .out = -1, .in = -1 };
	bool told;

	(void)arg;
	story.control.fd = story.data.fd = story.other.fd = -1;
	told = story_told(&story);
	if (!failalloc_hit())
		assert_true(told);
	tc_close(&story.control);
	tc_close(&story.data);
	tc_close(&story.other);
	fd_close(&story.listener);
	fd_close(&story.out);
	fd_close(&story.in);
	RIG_UNTIL(&rig, rig_is_idle(&rig));
}

static void survives_every_allocation_failure(void **state)
{
	size_t files;

	(void)state;
	assert_int_equal(rig_open(&rig, 2, "[engine]\norder = splice, copy\n"),
			 0);
	story(NULL); /* tables have grown, caches are warm */
	files = open_files();
	assert_true(failalloc_sweep(story, NULL) > 15);
	assert_int_equal(open_files(), files);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, teardown)
	const struct CMUnitTest tests[] = {
		TEST(bounds_connections),
		TEST(bounds_connections_with_peers),
		TEST(bounds_unauthenticated_connections),
		TEST(bounds_allocations),
		TEST(bounds_a_users_allocations),
		TEST(remembers_that_even_ports_are_in_use),
		TEST(bounds_a_realms_allocations),
		TEST(bounds_a_users_connections),
		TEST(bounds_relayed_ports),
		TEST(leaves_ports_of_others_alone),
		TEST(bounds_connections_of_an_allocation),
		TEST(closes_who_does_not_authenticate),
		TEST(closes_who_does_not_read_answers),
		TEST(refuses_allocations_while_draining),
		TEST(survives_a_lack_of_descriptors),
		TEST(keeps_descriptors_in_reserve),
		TEST(shows_allocations_and_connections),
		TEST(connections_are_told_in_pages),
		TEST(connections_are_counted_in_slices),
		TEST(lists_engines),
		TEST(kicks),
		TEST(kicks_a_connect_under_way),
		TEST(reload_removes_users_and_keeps_what_is_there),
		TEST(opens_engines_it_missed),
		TEST(reload_stops_listeners_that_are_gone),
		TEST(reload_changes_limits_for_what_comes),
		cmocka_unit_test(survives_allocation_failures_at_start),
		TEST(survives_every_allocation_failure),
	};

	return cmocka_run_group_tests_name("turn limits", tests, NULL, NULL);
}
