/* SPDX-License-Identifier: BSD-2-Clause */
/* Connect, connections from peers, ConnectionBind, moves, and how they end. */
#include <pthread.h>

#include "unit/turn_rig.h"

static struct rig rig;

static int setup(void **state)
{
	(void)state;
	return rig_open(&rig, 2, "[limits]\nbind_timeout = 2s\n");
}

static int teardown(void **state)
{
	(void)state;
	rig_finish(&rig);
	return 0;
}

/* A client of worker 0 with an allocation, and a peer that listens. */
struct scene {
	struct tc control, data;
	union addr relayed, peer_addr;
	int listener, peer;
	uint32_t id;
};

static void scene_open(struct scene *scene)
{
	tc_open(&scene->control, &rig, 0);
	assert_int_equal(tc_allocate(&scene->control, &scene->relayed), 0);
	scene->data.fd = -1;
	scene->peer = -1;
	scene->listener = peer_listen("127.0.0.2", &scene->peer_addr);
}

static void scene_close(struct scene *scene)
{
	tc_close(&scene->control);
	tc_close(&scene->data);
	fd_close(&scene->listener);
	fd_close(&scene->peer);
}

/* Connects to the peer and checks where from. */
static void scene_connect(struct scene *scene)
{
	union addr from;

	assert_int_equal(
		tc_connect(&scene->control, &scene->peer_addr, &scene->id), 0);
	scene->peer = peer_accept(&rig, scene->listener, &from);
	assert_true(addr_equal(&from, &scene->relayed));
}

/* Binds by a connection to worker i. */
static void scene_bind(struct scene *scene, unsigned int i)
{
	tc_open_data(&scene->data, &scene->control, i);
	assert_int_equal(tc_bind(&scene->data, scene->id), 0);
	assert_true(scene->data.msg.integrity_at);
}

static void relays_what_it_connected(void **state)
{
	struct scene scene;

	(void)state;
	scene_open(&scene);
	scene_connect(&scene);
	assert_int_equal(scene.id >> 26, 0);
	assert_int_equal(rig_counters(&rig).pending, 1);
	scene_bind(&scene, 0);
	assert_int_equal(rig_counters(&rig).pending, 0);
	assert_int_equal(rig_counters(&rig).relaying, 1);
	assert_int_equal(rig_counters(&rig).clients, 1);
	assert_true(fds_talk(&rig, scene.data.fd, scene.peer));
	assert_int_equal(rig_counters(&rig).bytes_to_peers, 6);
	assert_int_equal(rig_counters(&rig).bytes_to_clients, 9);
	fd_close(&scene.peer);
	RIG_UNTIL(&rig, fd_state(scene.data.fd) < 0);
	tc_close(&scene.data);
	RIG_UNTIL(&rig, rig_counters(&rig).relaying == 0);
	assert_int_equal(rig_counters(&rig).bytes_to_clients, 9);
	assert_int_equal(rig_counters(&rig).binds_moved, 0);
	scene_close(&scene);
}

static void connects_to_several_peers_from_one_address(void **state)
{
	union addr other_addr, from;
	struct scene scene;
	uint32_t id;
	int other, peer;

	(void)state;
	scene_open(&scene);
	scene_connect(&scene);
	other = peer_listen("127.0.0.3", &other_addr);
	assert_int_equal(tc_connect(&scene.control, &other_addr, &id), 0);
	peer = peer_accept(&rig, other, &from);
	assert_true(addr_equal(&from, &scene.relayed));
	assert_int_not_equal(id, scene.id);
	/* And somebody comes in meanwhile. */
	assert_int_equal(tc_peer(&scene.control, STUN_CREATE_PERMISSION,
				 &other_addr),
			 0);
	close(peer);
	peer = peer_dial("127.0.0.3", &scene.relayed);
	assert_int_equal(tc_next(&scene.control), 0);
	assert_int_equal(scene.control.msg.method, STUN_CONNECTION_ATTEMPT);
	close(peer);
	close(other);
	scene_close(&scene);
}

static void refuses_bad_peers(void **state)
{
	union addr addr;
	struct scene scene;

	(void)state;
	scene_open(&scene);
	tc_begin(&scene.control, STUN_CONNECT);
	assert_int_equal(tc_ask(&scene.control), 400);
	tc_begin(&scene.control, STUN_CONNECT);
	stun_put(&scene.control.w, STUN_ATTR_XOR_PEER_ADDRESS, "\0\1ab", 4);
	assert_int_equal(tc_ask(&scene.control), 400);
	assert_int_equal(addr_parse("127.0.0.2", 0, &addr), 0);
	assert_int_equal(tc_peer(&scene.control, STUN_CONNECT, &addr), 400);
	assert_int_equal(addr_parse("[2001:db8::1]:9", 0, &addr), 0);
	assert_int_equal(tc_peer(&scene.control, STUN_CONNECT, &addr), 443);
	assert_int_equal(addr_parse("224.0.0.1:9", 0, &addr), 0);
	assert_int_equal(tc_peer(&scene.control, STUN_CONNECT, &addr), 403);
	assert_int_equal(tc_peer(&scene.control, STUN_CONNECT, &scene.relayed),
			 403);
	assert_int_equal(rig_counters(&rig).peer_connects, 0);
	scene_close(&scene);
}

static void needs_a_permission_when_told_so(void **state)
{
	struct scene scene;

	(void)state;
	rig_reload(&rig,
		   "[peers]\nallow = 127.0.0.0/8\nrequire_permission = yes\n");
	scene_open(&scene);
	assert_int_equal(
		tc_connect(&scene.control, &scene.peer_addr, &scene.id), 403);
	assert_int_equal(tc_peer(&scene.control, STUN_CREATE_PERMISSION,
				 &scene.peer_addr),
			 0);
	scene_connect(&scene);
	scene_close(&scene);
}

static void tells_a_refusal_at_once(void **state)
{
	struct scene scene;

	(void)state;
	scene_open(&scene);
	fd_close(&scene.listener);
	for (int i = 0; i < 3; i++)
		assert_int_equal(tc_connect(&scene.control, &scene.peer_addr,
					    &scene.id),
				 447);
	assert_int_equal(rig_counters(&rig).peer_connects, 3);
	assert_int_equal(rig_counters(&rig).peer_connect_failures, 3);
	scene_close(&scene);
}

/* A listener whose queue is full answers no SYN: nothing else does so here. */
static int silent_peer(union addr *addr, int fillers[4])
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*addr);

	assert_int_equal(addr_parse("127.0.0.4", 0, addr), 0);
	assert_int_equal(bind(fd, &addr->sa, addr_len(addr)), 0);
	assert_int_equal(listen(fd, 0), 0);
	assert_int_equal(getsockname(fd, &addr->sa, &len), 0);
	for (int i = 0; i < 4; i++) {
		fillers[i] = socket(
			AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		connect(fillers[i], &addr->sa, addr_len(addr));
	}
	return fd;
}

static void gives_up_on_a_silent_peer_in_time(void **state)
{
	struct scene scene;
	union addr silent;
	int fillers[4], fd;
	uint64_t start;

	(void)state;
	rig_reload(&rig, "[limits]\nconnect_timeout = 1s\n");
	scene_open(&scene);
	fd = silent_peer(&silent, fillers);
	start = clock_ms();
	tc_begin_peer(&scene.control, STUN_CONNECT, &silent);
	tc_send(&scene.control);
	RIG_UNTIL(&rig, rig_counters(&rig).peer_connects == 1);
	assert_int_equal(tc_answer(&scene.control), 447);
	assert_in_range(clock_ms() - start, 990, 3000);
	for (int i = 0; i < 4; i++)
		close(fillers[i]);
	close(fd);
	scene_close(&scene);
}

static void refuses_a_duplicate_whatever_the_first_does(void **state)
{
	uint8_t first[STUN_TXID_LEN];
	struct scene scene;
	union addr silent;
	int fillers[4], fd;

	(void)state;
	rig_reload(&rig, "[limits]\nconnect_timeout = 1s\n");
	scene_open(&scene);
	fd = silent_peer(&silent, fillers);
	/* In flight. */
	tc_begin_peer(&scene.control, STUN_CONNECT, &silent);
	tc_send(&scene.control);
	memcpy(first, scene.control.txid, sizeof(first));
	assert_int_equal(tc_peer(&scene.control, STUN_CONNECT, &silent), 446);
	/* The control connection serves others meanwhile. */
	scene_connect(&scene);
	/* Pending, then bound. */
	assert_int_equal(
		tc_peer(&scene.control, STUN_CONNECT, &scene.peer_addr), 446);
	scene_bind(&scene, 0);
	assert_int_equal(
		tc_peer(&scene.control, STUN_CONNECT, &scene.peer_addr), 446);
	assert_int_equal(tc_next(&scene.control), 0);
	assert_memory_equal(scene.control.msg.txid, first, sizeof(first));
	assert_int_equal(tc_code(&scene.control), 447);
	for (int i = 0; i < 4; i++)
		close(fillers[i]);
	close(fd);
	scene_close(&scene);
}

static void forgets_a_connect_when_the_client_goes(void **state)
{
	struct scene scene;
	union addr silent;
	int fillers[4], fd;

	(void)state;
	scene_open(&scene);
	fd = silent_peer(&silent, fillers);
	tc_begin_peer(&scene.control, STUN_CONNECT, &silent);
	tc_send(&scene.control);
	RIG_UNTIL(&rig, rig_counters(&rig).peer_connects == 1);
	scene_close(&scene);
	RIG_UNTIL(&rig, rig_is_idle(&rig));
	for (int i = 0; i < 4; i++)
		close(fillers[i]);
	close(fd);
}

static void answers_a_connect_that_outlives_its_allocation(void **state)
{
	uint8_t first[STUN_TXID_LEN];
	struct scene scene;
	union addr silent;
	int fillers[4], fd;

	(void)state;
	scene_open(&scene);
	fd = silent_peer(&silent, fillers);
	tc_begin_peer(&scene.control, STUN_CONNECT, &silent);
	tc_send(&scene.control);
	memcpy(first, scene.control.txid, sizeof(first));
	tc_begin(&scene.control, STUN_REFRESH);
	stun_put_u32(&scene.control.w, STUN_ATTR_LIFETIME, 0);
	tc_send(&scene.control);
	assert_int_equal(tc_next(&scene.control), 0);
	assert_memory_equal(scene.control.msg.txid, first, sizeof(first));
	assert_int_equal(tc_code(&scene.control), 447);
	assert_int_equal(tc_answer(&scene.control), 0);
	for (int i = 0; i < 4; i++)
		close(fillers[i]);
	close(fd);
	scene_close(&scene);
}

/* Connections from peers */

static void closes_who_has_no_permission(void **state)
{
	struct scene scene;
	int fd;

	(void)state;
	scene_open(&scene);
	assert_int_equal(tc_peer(&scene.control, STUN_CREATE_PERMISSION,
				 &scene.peer_addr),
			 0);
	fd = peer_dial("127.0.0.9", &scene.relayed);
	RIG_UNTIL(&rig, fd_state(fd) < 0);
	assert_int_equal(rig_counters(&rig).peer_accepts, 1);
	assert_int_equal(rig_counters(&rig).peer_accepts_refused, 1);
	/* The client heard nothing of it. */
	tc_begin(&scene.control, STUN_REFRESH);
	assert_int_equal(tc_ask(&scene.control), 0);
	close(fd);
	scene_close(&scene);
}

/* The policy of now counts, not that of the permission's day. */
static void closes_whom_the_policy_refuses_by_now(void **state)
{
	struct scene scene;
	int fd;

	(void)state;
	scene_open(&scene);
	assert_int_equal(tc_peer(&scene.control, STUN_CREATE_PERMISSION,
				 &scene.peer_addr),
			 0);
	/* One port of it, so that the permission stays, but not of this one. */
	rig_reload(&rig, "[peers]\nallow = 127.0.0.2:9\n");
	fd = peer_dial("127.0.0.2", &scene.relayed);
	RIG_UNTIL(&rig, fd_state(fd) < 0);
	close(fd);
	rig_reload(&rig, "[peers]\nallow = 127.0.0.1\n");
	fd = peer_dial("127.0.0.2", &scene.relayed);
	RIG_UNTIL(&rig, fd_state(fd) < 0);
	close(fd);
	assert_int_equal(rig_counters(&rig).peer_accepts_refused, 2);
	scene_close(&scene);
}

static void announces_who_has_a_permission(void **state)
{
	union addr from, seen;
	socklen_t len = sizeof(from);
	struct scene scene;
	char buf[5];

	(void)state;
	scene_open(&scene);
	assert_int_equal(tc_peer(&scene.control, STUN_CREATE_PERMISSION,
				 &scene.peer_addr),
			 0);
	scene.peer = peer_dial("127.0.0.2", &scene.relayed);
	assert_int_equal(getsockname(scene.peer, &from.sa, &len), 0);
	assert_int_equal(send(scene.peer, "early", 5, 0), 5);
	assert_int_equal(tc_next(&scene.control), 0);
	assert_int_equal(scene.control.msg.class, STUN_INDICATION);
	assert_int_equal(scene.control.msg.method, STUN_CONNECTION_ATTEMPT);
	assert_false(scene.control.msg.integrity_at);
	assert_true(tc_connection_id(&scene.control, &scene.id));
	assert_true(
		tc_address(&scene.control, STUN_ATTR_XOR_PEER_ADDRESS, &seen));
	assert_true(addr_equal(&from, &seen));
	/* Already there: a Connect to it is a duplicate. */
	assert_int_equal(tc_peer(&scene.control, STUN_CONNECT, &from), 446);
	scene_bind(&scene, 0);
	assert_true(tc_read(&scene.data, buf, 5));
	assert_memory_equal(buf, "early", 5);
	assert_true(fds_talk(&rig, scene.data.fd, scene.peer));
	scene_close(&scene);
}

static void notices_a_peer_that_gives_up(void **state)
{
	struct scene scene;

	(void)state;
	scene_open(&scene);
	scene_connect(&scene);
	fd_reset(&scene.peer);
	RIG_UNTIL(&rig, rig_counters(&rig).pending == 0);
	tc_open_data(&scene.data, &scene.control, 0);
	assert_int_equal(tc_bind(&scene.data, scene.id), 400);
	scene_close(&scene);
}

/* An end of stream is no reason: what came before it is still wanted. */
static void keeps_what_a_peer_sent_before_it_closed(void **state)
{
	struct scene scene;
	char buf[6];

	(void)state;
	scene_open(&scene);
	scene_connect(&scene);
	assert_int_equal(send(scene.peer, "short", 6, 0), 6);
	fd_close(&scene.peer);
	for (int i = 0; i < 10; i++)
		rig_tick(&rig, 2);
	assert_int_equal(rig_counters(&rig).pending, 1);
	scene_bind(&scene, 0);
	assert_true(tc_read(&scene.data, buf, 6));
	assert_string_equal(buf, "short");
	RIG_UNTIL(&rig, fd_state(scene.data.fd) < 0);
	scene_close(&scene);
}

static void closes_what_nobody_binds(void **state)
{
	struct scene scene;
	uint64_t start;

	(void)state;
	scene_open(&scene);
	scene_connect(&scene);
	start = clock_ms();
	RIG_UNTIL(&rig, fd_state(scene.peer) < 0);
	assert_in_range(clock_ms() - start, 1900, 4000);
	assert_int_equal(rig_counters(&rig).bind_timeouts, 1);
	tc_open_data(&scene.data, &scene.control, 0);
	assert_int_equal(tc_bind(&scene.data, scene.id), 400);
	/* The place in the table is free again. */
	fd_close(&scene.peer);
	scene_connect(&scene);
	scene_close(&scene);
}

/* ConnectionBind */

static void refuses_identifiers_that_name_nothing(void **state)
{
	struct scene scene;

	(void)state;
	scene_open(&scene);
	scene_connect(&scene);
	tc_open_data(&scene.data, &scene.control, 0);
	tc_begin(&scene.data, STUN_CONNECTION_BIND);
	assert_int_equal(tc_ask(&scene.data), 400);
	tc_begin(&scene.data, STUN_CONNECTION_BIND);
	stun_put(&scene.data.w, STUN_ATTR_CONNECTION_ID, "12345678", 8);
	assert_int_equal(tc_ask(&scene.data), 400);
	assert_int_equal(tc_bind(&scene.data, 0), 400);
	assert_int_equal(tc_bind(&scene.data, scene.id ^ 1), 400);
	assert_int_equal(tc_bind(&scene.data, UINT32_MAX), 400);
	/* None of that has burned anything. */
	assert_int_equal(tc_bind(&scene.data, scene.id), 0);
	assert_true(fds_talk(&rig, scene.data.fd, scene.peer));
	/* Bound once. */
	{
		struct tc late;

		tc_open_data(&late, &scene.control, 0);
		assert_int_equal(tc_bind(&late, scene.id), 400);
		tc_close(&late);
	}
	scene_close(&scene);
}

static void refuses_a_bind_on_the_control_connection(void **state)
{
	struct scene scene;

	(void)state;
	scene_open(&scene);
	scene_connect(&scene);
	assert_int_equal(tc_bind(&scene.control, scene.id), 400);
	scene_bind(&scene, 0);
	scene_close(&scene);
}

static void lets_a_challenged_bind_try_again(void **state)
{
	struct scene scene;

	(void)state;
	scene_open(&scene);
	scene_connect(&scene);
	tc_open(&scene.data, &rig, 0);
	assert_int_equal(tc_bind(&scene.data, scene.id), 401);
	assert_int_equal(tc_bind(&scene.data, scene.id), 0);
	assert_true(fds_talk(&rig, scene.data.fd, scene.peer));
	scene_close(&scene);
}

static void keeps_an_identifier_to_its_user(void **state)
{
	struct scene scene;
	struct tc thief;

	(void)state;
	scene_open(&scene);
	scene_connect(&scene);
	for (unsigned int i = 0; i < 2; i++) {
		tc_open(&thief, &rig, i);
		thief.user = "bob";
		thief.password = "builder";
		assert_int_equal(tc_bind(&thief, scene.id), 401);
		assert_int_equal(tc_bind(&thief, scene.id), 441);
		/* The same name of another realm. */
		thief.user = "alice";
		thief.password = "wonderland";
		thief.realm = "second.org";
		assert_int_equal(tc_bind(&thief, scene.id), 441);
		tc_close(&thief);
	}
	/* Another's identifier is as good a guess as nobody's. */
	assert_int_equal(rig_counters(&rig).bind_failures, 4);
	scene_bind(&scene, 0);
	assert_true(fds_talk(&rig, scene.data.fd, scene.peer));
	scene_close(&scene);
}

/* Guesses of one source end, on however many connections and whichever worker. */
static void cuts_guessing_short(void **state)
{
	struct scene scene;
	int code, guesses = 0;

	(void)state;
	rig_reload(&rig, "[limits]\nbind_failures = 20\n");
	scene_open(&scene);
	do {
		uint32_t owner = (uint32_t)guesses & 1;

		tc_open_data(&scene.data, &scene.control, 0);
		code = tc_bind(&scene.data, owner << 26 | (uint32_t)guesses);
		tc_close(&scene.data);
	} while (code == 400 && ++guesses < 100);
	/* As long as it takes some are paid for. */
	assert_in_range(guesses, 20, 30);
	assert_int_equal(rig_counters(&rig).bind_failures, guesses);
	assert_int_equal(rig_counters(&rig).binds_limited, 1);
	scene_close(&scene);
}

static void forwards_what_follows_the_request(void **state)
{
	uint8_t early[20000], got[sizeof(early)];
	struct scene scene;
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(early); i++)
		early[i] = (uint8_t)(i * 7);
	for (unsigned int worker = 0; worker < 2; worker++) {
		scene_open(&scene);
		scene_connect(&scene);
		tc_open_data(&scene.data, &scene.control, worker);
		tc_begin_bind(&scene.data, scene.id);
		len = tc_end(&scene.data);
		tc_write(&scene.data, scene.data.out, len);
		tc_write(&scene.data, early, sizeof(early));
		assert_int_equal(tc_answer(&scene.data), 0);
		assert_true(fd_read(&rig, scene.peer, got, sizeof(got)));
		assert_memory_equal(got, early, sizeof(got));
		assert_true(fds_talk(&rig, scene.data.fd, scene.peer));
		scene_close(&scene);
	}
}

static void holds_a_flooding_peer_back_and_loses_nothing(void **state)
{
	static uint8_t block[65536], got[65536];
	size_t sent = 0, total = (size_t)16 << 20, seen = 0;
	struct scene scene;
	ssize_t n;

	(void)state;
	scene_open(&scene);
	scene_connect(&scene);
	for (size_t i = 0; i < sizeof(block); i++)
		block[i] = (uint8_t)(i % 251);
	while ((n = send(scene.peer, block + sent % sizeof(block),
			 sizeof(block) - sent % sizeof(block), MSG_NOSIGNAL)) >
	       0)
		sent += (size_t)n;
	assert_true(sent < total); /* the window is shut */
	scene_bind(&scene, 0);
	while (seen < total) {
		size_t left = total - sent, room;

		room = sizeof(block) - sent % sizeof(block);
		n = send(scene.peer, block + sent % sizeof(block),
			 left < room ? left : room, MSG_NOSIGNAL);
		if (n > 0)
			sent += (size_t)n;
		rig_tick(&rig, 0);
		if (!tc_read(&scene.data, got, 4096))
			fail_msg("ended after %zu bytes", seen);
		assert_memory_equal(got, block + seen % sizeof(block), 4096);
		seen += 4096;
	}
	scene_close(&scene);
}

/* Moves */

static void moves_a_bind_to_the_worker_that_owns_the_peer(void **state)
{
	struct counters second;
	struct scene scene;

	(void)state;
	scene_open(&scene);
	scene_connect(&scene);
	scene_bind(&scene, 1);
	assert_int_equal(rig_counters(&rig).binds_moved, 1);
	rig_worker_counters(&rig, 1, &second);
	assert_int_equal(second.clients, 0);
	assert_int_equal(second.relaying, 0);
	assert_true(fds_talk(&rig, scene.data.fd, scene.peer));
	scene_close(&scene);
}

static void lets_a_moved_connection_try_again(void **state)
{
	struct counters first;
	struct scene scene;

	(void)state;
	scene_open(&scene);
	scene_connect(&scene);
	tc_open_data(&scene.data, &scene.control, 1);
	assert_int_equal(tc_bind(&scene.data, scene.id ^ 1), 400);
	/* It lives on worker 0 now, control and itself. */
	rig_worker_counters(&rig, 0, &first);
	assert_int_equal(first.clients, 2);
	assert_int_equal(tc_bind(&scene.data, scene.id), 0);
	assert_true(fds_talk(&rig, scene.data.fd, scene.peer));
	scene_close(&scene);
}

/* A wrong bind and a right one in one segment: the second is not lost. */
static void answers_what_is_pipelined_behind_a_failed_move(void **state)
{
	struct scene scene;

	(void)state;
	scene_open(&scene);
	scene_connect(&scene);
	tc_open_data(&scene.data, &scene.control, 1);
	tc_begin_bind(&scene.data, scene.id ^ 1);
	tc_send(&scene.data);
	tc_begin_bind(&scene.data, scene.id);
	tc_send(&scene.data);
	assert_int_equal(tc_next(&scene.data), 0);
	assert_int_equal(tc_code(&scene.data), 400);
	assert_int_equal(tc_answer(&scene.data), 0);
	assert_true(fds_talk(&rig, scene.data.fd, scene.peer));
	scene_close(&scene);
}

/* The leg is gone when the letter arrives. */
static void survives_a_leg_that_ends_during_a_move(void **state)
{
	struct counters second;
	struct scene scene;

	(void)state;
	scene_open(&scene);
	scene_connect(&scene);
	tc_open_data(&scene.data, &scene.control, 1);
	tc_begin_bind(&scene.data, scene.id);
	tc_send(&scene.data);
	/* Only worker 1 runs: the letter lies in worker 0's box. */
	do {
		loop_tick(rig.loop[1], 5);
		rig_worker_counters(&rig, 1, &second);
	} while (!second.binds_moved);
	assert_int_equal(turn_worker_kick(rig.worker[0], "c0.1"), 0);
	assert_int_equal(tc_answer(&scene.data), 400);
	scene_close(&scene);
}

static void drops_a_move_to_a_worker_that_is_gone(void **state)
{
	struct counters second;
	struct scene scene;

	(void)state;
	scene_open(&scene);
	scene_connect(&scene);
	tc_open_data(&scene.data, &scene.control, 1);
	tc_begin_bind(&scene.data, scene.id);
	tc_send(&scene.data);
	tc_write(&scene.data, "and more", 8);
	do {
		loop_tick(rig.loop[1], 5);
		rig_worker_counters(&rig, 1, &second);
	} while (!second.binds_moved);
	/* Freed with the letter in the box: rig_close checks the slots. */
	rig_close(&rig);
	assert_true(fd_state(scene.data.fd) < 0);
	assert_true(fd_state(scene.peer) < 0);
	scene_close(&scene);
	assert_int_equal(rig_open(&rig, 2, ""), 0);
}

static void *loop_thread(void *arg)
{
	return (void *)(intptr_t)loop_run(arg);
}

struct stop {
	struct letter letter;
	struct loop *loop;
};

static void stop_arrived(struct letter *letter)
{
	loop_stop(list_entry(letter, struct stop, letter)->loop);
}

/* Two threads for real; every other bind moves. */
static void moves_between_running_threads(void **state)
{
	struct stop stops[RIG_WORKERS];
	pthread_t threads[RIG_WORKERS];
	struct scene scene;

	(void)state;
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, loop_thread,
						rig.loop[i]),
				 0);
	rig.threads = true;
	for (unsigned int i = 0; i < 40; i++) {
		scene_open(&scene);
		scene_connect(&scene);
		assert_int_equal(send(scene.peer, "hi", 2, 0), 2);
		scene_bind(&scene, i % 2);
		{
			char buf[2];

			assert_true(tc_read(&scene.data, buf, 2));
			assert_memory_equal(buf, "hi", 2);
		}
		assert_true(fds_talk(&rig, scene.data.fd, scene.peer));
		scene_close(&scene);
	}
	rig.threads = false;
	for (unsigned int i = 0; i < 2; i++) {
		stops[i].loop = rig.loop[i];
		loop_post(rig.loop[i], &stops[i].letter, stop_arrived);
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	}
	assert_int_equal(rig_counters(&rig).binds, 40);
	assert_int_equal(rig_counters(&rig).binds_moved, 20);
}

/* Ends */

static void all_ended(struct scene *scene, int pending)
{
	RIG_UNTIL(&rig, fd_state(scene->peer) < 0);
	RIG_UNTIL(&rig, fd_state(scene->data.fd) < 0);
	RIG_UNTIL(&rig, fd_state(pending) < 0);
	RIG_UNTIL(&rig, rig_counters(&rig).relaying == 0);
	assert_int_equal(rig_counters(&rig).pending, 0);
	assert_int_equal(rig_counters(&rig).allocations, 0);
	assert_false(turn_relayed_is(rig.shared, &scene->relayed));
}

/* One bound connection in the scene, one held: the returned end. */
static int bound_and_held(struct scene *scene)
{
	union addr addr, from;
	uint32_t id;
	int listener, fd;

	scene_open(scene);
	scene_connect(scene);
	scene_bind(scene, 0);
	listener = peer_listen("127.0.0.5", &addr);
	assert_int_equal(tc_connect(&scene->control, &addr, &id), 0);
	fd = peer_accept(&rig, listener, &from);
	close(listener);
	return fd;
}

static void ends_everything_with_the_control_connection(void **state)
{
	struct scene scene;
	int held;

	(void)state;
	held = bound_and_held(&scene);
	tc_close(&scene.control);
	all_ended(&scene, held);
	close(held);
	scene_close(&scene);
	held = bound_and_held(&scene);
	fd_reset(&scene.control.fd);
	all_ended(&scene, held);
	close(held);
	scene_close(&scene);
}

static void ends_everything_with_refresh_zero(void **state)
{
	struct scene scene;
	int held;

	(void)state;
	held = bound_and_held(&scene);
	tc_begin(&scene.control, STUN_REFRESH);
	stun_put_u32(&scene.control.w, STUN_ATTR_LIFETIME, 0);
	assert_int_equal(tc_ask(&scene.control), 0);
	all_ended(&scene, held);
	close(held);
	scene_close(&scene);
}

static void ends_everything_with_expiry(void **state)
{
	struct scene scene;
	int held;

	(void)state;
	rig_reload(&rig,
		   "[limits]\ndefault_lifetime = 1s\nmax_lifetime = 1s\n");
	held = bound_and_held(&scene);
	all_ended(&scene, held);
	close(held);
	scene_close(&scene);
}

static void keeps_a_stream_beyond_its_permission(void **state)
{
	struct scene scene;
	int late;

	(void)state;
	rig_reload(&rig, "[limits]\npermission_lifetime = 1s\n");
	scene_open(&scene);
	assert_int_equal(tc_peer(&scene.control, STUN_CREATE_PERMISSION,
				 &scene.peer_addr),
			 0);
	scene.peer = peer_dial("127.0.0.2", &scene.relayed);
	assert_int_equal(tc_next(&scene.control), 0);
	assert_true(tc_connection_id(&scene.control, &scene.id));
	scene_bind(&scene, 0);
	do {
		late = peer_dial("127.0.0.2", &scene.relayed);
		for (int i = 0; i < 20 && fd_state(late) == 0; i++)
			rig_tick(&rig, 5);
		close(late);
	} while (!rig_counters(&rig).peer_accepts_refused);
	assert_true(fds_talk(&rig, scene.data.fd, scene.peer));
	scene_close(&scene);
}

/* Relay to relay through the same server, refused addresses or not. */
static void reaches_its_own_relayed_addresses_only(void **state)
{
	struct scene left, right;
	union addr from, host, self;

	(void)state;
	rig_reload(&rig, "[peers]\nallow = 192.0.2.1\n");
	scene_open(&left);
	scene_open(&right);
	from = left.relayed;
	host = from;
	addr_set_port(&host, 0);
	self = from;
	addr_set_port(&self, 9);
	assert_int_equal(tc_peer(&left.control, STUN_CONNECT, &self), 403);
	assert_int_equal(tc_peer(&right.control, STUN_CREATE_PERMISSION, &self),
			 403);
	assert_int_equal(tc_peer(&right.control, STUN_CREATE_PERMISSION, &host),
			 0);
	assert_int_equal(tc_connect(&left.control, &right.relayed, &left.id),
			 0);
	assert_int_equal(tc_next(&right.control), 0);
	assert_true(tc_connection_id(&right.control, &right.id));
	scene_bind(&left, 0);
	scene_bind(&right, 1);
	assert_true(fds_talk(&rig, left.data.fd, right.data.fd));
	scene_close(&left);
	scene_close(&right);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(relays_what_it_connected),
		TEST(connects_to_several_peers_from_one_address),
		TEST(refuses_bad_peers),
		TEST(needs_a_permission_when_told_so),
		TEST(tells_a_refusal_at_once),
		TEST(gives_up_on_a_silent_peer_in_time),
		TEST(refuses_a_duplicate_whatever_the_first_does),
		TEST(forgets_a_connect_when_the_client_goes),
		TEST(answers_a_connect_that_outlives_its_allocation),
		TEST(closes_who_has_no_permission),
		TEST(closes_whom_the_policy_refuses_by_now),
		TEST(announces_who_has_a_permission),
		TEST(notices_a_peer_that_gives_up),
		TEST(keeps_what_a_peer_sent_before_it_closed),
		TEST(closes_what_nobody_binds),
		TEST(refuses_identifiers_that_name_nothing),
		TEST(refuses_a_bind_on_the_control_connection),
		TEST(lets_a_challenged_bind_try_again),
		TEST(keeps_an_identifier_to_its_user),
		TEST(cuts_guessing_short),
		TEST(forwards_what_follows_the_request),
		TEST(holds_a_flooding_peer_back_and_loses_nothing),
		TEST(moves_a_bind_to_the_worker_that_owns_the_peer),
		TEST(lets_a_moved_connection_try_again),
		TEST(answers_what_is_pipelined_behind_a_failed_move),
		TEST(survives_a_leg_that_ends_during_a_move),
		TEST(drops_a_move_to_a_worker_that_is_gone),
		TEST(moves_between_running_threads),
		TEST(ends_everything_with_the_control_connection),
		TEST(ends_everything_with_refresh_zero),
		TEST(ends_everything_with_expiry),
		TEST(keeps_a_stream_beyond_its_permission),
		TEST(reaches_its_own_relayed_addresses_only),
	};

	return cmocka_run_group_tests_name("turn relay", tests, NULL, NULL);
}
