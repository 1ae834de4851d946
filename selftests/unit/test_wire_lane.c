/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lanes at a worker's end: what the broker is told and in which order, and what becomes
 * of them when they are refused, their time is up, or the broker has gone.
 */
#include "unit/broker_rig.h"

#include <sys/stat.h>

#include "unit/failalloc.h"

#define MANY 200 /* more than may be unanswered */

struct probe {
	struct wire_lane_link link;
	int changed;
	enum wire_reason why;
};

static struct rig {
	struct loop *loop;
	struct wire *wire;
	struct broker_rig broker;
	int sockets[2];
	struct probe probe[MANY];
	struct wire_lane lanes[BROKER_PLACES];
} * fx;

static void changed(struct wire_lane_link *link, enum wire_reason why)
{
	struct probe *probe = list_entry(link, struct probe, link);

	probe->changed++;
	probe->why = why;
}

static const struct wire_lane_ops ops = { changed };

static int read_lane(int map, uint32_t lane, struct wire_lane *out)
{
	(void)map;
	*out = fx->lanes[lane];
	return 0;
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct wire_params params = {
		.read = broker_read_pair,
		.read_lane = read_lane,
	};

	if (!rig || loop_new(&rig->loop))
		return -1;
	*state = fx = rig;
	params.loop = rig->loop;
	if (wire_new(&params, &rig->wire))
		return -1;
	broker_rig_init(&rig->broker, rig->loop);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, rig->sockets))
		return -1;
	for (size_t i = 0; i < MANY; i++)
		rig->probe[i].link.ops = &ops;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	failalloc_disarm();
	for (size_t i = 0; i < MANY; i++)
		wire_lane_end(&rig->probe[i].link);
	wire_free(rig->wire);
	loop_free(rig->loop);
	broker_rig_free(&rig->broker);
	fd_close(&rig->sockets[0]);
	fd_close(&rig->sockets[1]);
	free(rig);
	return 0;
}

#define UNTIL(rig, condition)                                      \
	do {                                                       \
		uint64_t until_start = clock_ms();                 \
		while (!(condition)) {                             \
			if (clock_ms() - until_start >= WAIT_MS)   \
				fail_msg("never: %s", #condition); \
			loop_tick((rig)->loop, 1);                 \
		}                                                  \
	} while (0)

static void ready(struct rig *rig)
{
	struct broker_hello hello;

	broker_connect(&rig->broker, rig->wire);
	broker_expect_hello(&rig->broker, &hello);
	broker_welcome_lanes(&rig->broker);
	UNTIL(rig, wire_lanes_ready(rig->wire));
}

static int ask(struct rig *rig, struct probe *probe)
{
	const struct wire_lane_wish wish = {
		.listener = rig->sockets[0],
		.relayed = rig->sockets[1],
		.channel = 0x4001,
		.client = { 192, 0, 2, 1 },
		.local = { 192, 0, 2, 2 },
		.peer = { 192, 0, 2, 3 },
		.client_port = htons(1),
		.peer_port = htons(3),
		.expires_ns = 1000,
	};

	return wire_lane_ask(rig->wire, &probe->link, &wish);
}

/* The next message asks for a lane; returns its number. */
static uint64_t heard(struct rig *rig)
{
	struct broker_lane lane;
	struct stat mine, theirs;
	int fds[2];

	assert_int_equal(broker_hear(&rig->broker, &lane, sizeof(lane), fds, 2),
			 BROKER_LANE);
	assert_int_equal(lane.channel, 0x4001);
	assert_int_equal(lane.client[3], 1);
	assert_int_equal(lane.local[3], 2);
	assert_int_equal(lane.peer[3], 3);
	assert_int_equal(lane.client_port, htons(1));
	assert_int_equal(lane.peer_port, htons(3));
	assert_int_equal(lane.zero | lane.zero2, 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(fstat(rig->sockets[i], &mine), 0);
		assert_int_equal(fstat(fds[i], &theirs), 0);
		assert_true(mine.st_ino == theirs.st_ino);
		close(fds[i]);
	}
	return lane.id;
}

static void answer(struct rig *rig, uint64_t id, enum wire_reason reason)
{
	const struct broker_lane_answer msg = {
		.type = BROKER_LANE_ANSWER,
		.reason = reason,
		.id = id,
		.lane = 5,
		.generation = reason == WIRE_OK ? 9 : 0,
	};

	broker_send(&rig->broker, &msg, sizeof(msg), NULL, 0);
}

static uint64_t made(struct rig *rig, struct probe *probe)
{
	int before = probe->changed;
	uint64_t id;

	assert_int_equal(ask(rig, probe), 0);
	id = heard(rig);
	answer(rig, id, WIRE_OK);
	UNTIL(rig, probe->changed > before);
	assert_int_equal(probe->why, WIRE_OK);
	return id;
}

static void expect_end(struct rig *rig, uint64_t id)
{
	struct broker_lane_end msg;

	assert_int_equal(broker_hear(&rig->broker, &msg, sizeof(msg), NULL, 0),
			 BROKER_LANE_END);
	assert_true(msg.id == id);
	assert_int_equal(msg.zero, 0);
}

static void a_lane_is_on_until_it_is_ended(void **state)
{
	struct rig *rig = *state;
	struct probe *probe = &rig->probe[0];
	struct broker_lane_expire expire;
	struct wire_lane lane;
	uint64_t id;

	assert_int_equal(ask(rig, probe), -ENOTCONN);
	ready(rig);
	assert_false(wire_lane_read(&probe->link, &lane));
	id = made(rig, probe);
	assert_true(wire_lane_is_used(&probe->link));
	rig->lanes[5].generation = 9;
	rig->lanes[5].leg[0].bytes = 77;
	assert_true(wire_lane_read(&probe->link, &lane));
	assert_int_equal(lane.leg[0].bytes, 77);
	rig->lanes[5].generation = 10;
	assert_false(wire_lane_read(&probe->link, &lane));
	wire_lane_expire(&probe->link, 1000);
	assert_true(broker_silent(&rig->broker));
	wire_lane_expire(&probe->link, 2000);
	assert_int_equal(broker_hear(&rig->broker, &expire, sizeof(expire),
				     NULL, 0),
			 BROKER_LANE_EXPIRE);
	assert_int_equal(expire.expires_ns, 2000);
	assert_true(expire.id == id);
	wire_lane_end(&probe->link);
	expect_end(rig, id);
	assert_false(wire_lane_is_used(&probe->link));
	assert_int_equal(probe->changed, 1);
	wire_lane_end(&probe->link);
	assert_true(broker_silent(&rig->broker));
}

static void one_given_up_before_its_answer_is_ended(void **state)
{
	struct rig *rig = *state;
	struct probe *probe = &rig->probe[0];
	uint64_t id;

	ready(rig);
	assert_int_equal(ask(rig, probe), 0);
	loop_tick(rig->loop, 0);
	wire_lane_end(&probe->link);
	id = heard(rig);
	expect_end(rig, id);
	answer(rig, id, WIRE_OK);
	/* A later one is not taken for it. */
	made(rig, probe);
	assert_int_equal(probe->changed, 1);
}

static void a_refused_one_may_be_asked_for_again(void **state)
{
	struct rig *rig = *state;
	struct probe *probe = &rig->probe[0];

	ready(rig);
	assert_int_equal(ask(rig, probe), 0);
	answer(rig, heard(rig), WIRE_NO_ROOM);
	UNTIL(rig, probe->changed);
	assert_int_equal(probe->why, WIRE_NO_ROOM);
	assert_false(wire_lane_is_used(&probe->link));
	made(rig, probe);
}

static void its_time_is_up(void **state)
{
	struct rig *rig = *state;
	struct probe *probe = &rig->probe[0];
	struct broker_lane_end msg = { .type = BROKER_LANE_ENDED };

	ready(rig);
	msg.id = made(rig, probe);
	broker_send(&rig->broker, &msg, sizeof(msg), NULL, 0);
	UNTIL(rig, probe->changed == 2);
	assert_false(wire_lane_is_used(&probe->link));
	/* The end of one that is over means nothing. */
	broker_send(&rig->broker, &msg, sizeof(msg), NULL, 0);
	made(rig, probe);
}

static void without_the_broker_all_are_off(void **state)
{
	struct rig *rig = *state;

	ready(rig);
	made(rig, &rig->probe[0]);
	assert_int_equal(ask(rig, &rig->probe[1]), 0);
	fd_close(&rig->broker.fd);
	UNTIL(rig, !wire_ready(rig->wire));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(rig->probe[i].why, WIRE_NO_BROKER);
		assert_false(wire_lane_is_used(&rig->probe[i].link));
	}
	assert_int_equal(ask(rig, &rig->probe[0]), -ENOTCONN);
	ready(rig);
	made(rig, &rig->probe[0]);
	assert_true(broker_silent(&rig->broker));
}

static void no_more_are_asked_for_than_there_is_room(void **state)
{
	struct rig *rig = *state;
	int sent = 0;

	ready(rig);
	for (int i = 0; i < BROKER_PLACES; i++)
		assert_int_equal(ask(rig, &rig->probe[i]), 0);
	assert_int_equal(ask(rig, &rig->probe[BROKER_PLACES]), -EBUSY);
	for (; !broker_silent(&rig->broker); sent++)
		answer(rig, heard(rig), WIRE_NO_STATE);
	UNTIL(rig, rig->probe[BROKER_PLACES - 1].changed);
	assert_int_equal(sent, BROKER_PLACES);
}

static void a_broker_that_breaks_the_rules_is_left(void **state)
{
	struct rig *rig = *state;
	struct probe *probe = &rig->probe[0];
	struct broker_lane_answer msg = { .type = BROKER_LANE_ANSWER };
	struct broker_lane_end over = { .type = BROKER_LANE_ENDED };

#define BREACH(change, message)                                              \
	do {                                                                 \
		ready(rig);                                                  \
		assert_int_equal(ask(rig, probe), 0);                        \
		over.id = msg.id = heard(rig);                               \
		change;                                                      \
		broker_send(&rig->broker, &(message), sizeof(message), NULL, \
			    0);                                              \
		UNTIL(rig, !wire_ready(rig->wire));                          \
	} while (0)
	BREACH(msg.reason = WIRE_NO_ERROR + 1, msg);
	BREACH((msg.reason = WIRE_OK, msg.lane = BROKER_PLACES), msg);
	BREACH(, over);
#undef BREACH
	/* An answer that nobody asked for. */
	ready(rig);
	msg.lane = 0;
	broker_send(&rig->broker, &msg, sizeof(msg), NULL, 0);
	UNTIL(rig, !wire_ready(rig->wire));
}

static void without_memory(void *arg)
{
	struct rig *rig = arg;

	if (!ask(rig, &rig->probe[0]))
		wire_lane_end(&rig->probe[0].link);
}

static void survives_a_lack_of_memory(void **state)
{
	struct rig *rig = *state;

	ready(rig);
	assert_true(failalloc_sweep(without_memory, rig) > 0);
}

#define WITH_RIG(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_RIG(a_lane_is_on_until_it_is_ended),
		WITH_RIG(one_given_up_before_its_answer_is_ended),
		WITH_RIG(a_refused_one_may_be_asked_for_again),
		WITH_RIG(its_time_is_up),
		WITH_RIG(without_the_broker_all_are_off),
		WITH_RIG(no_more_are_asked_for_than_there_is_room),
		WITH_RIG(a_broker_that_breaks_the_rules_is_left),
		WITH_RIG(survives_a_lack_of_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
