/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker's end of wire: what it says to the broker, what it makes of the
 * answers, and what becomes of pairs when the channel breaks.
 */
#include "unit/broker_rig.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "unit/failalloc.h"

#define PIECES 400 /* joins at once */

struct probe {
	struct wire_link link;
	int answered, active, ended;
	enum wire_reason reason;
	enum wire_end end;
	struct wire_stats stats;
	struct wire *again; /* asks once more when refused */
};

struct rig {
	struct loop *loop;
	struct wire *wire;
	struct broker_rig broker;
	int sockets[2];
	struct probe probe[4];
	int changed, lost, orphans, sockmap;
	int sockmap_error;
	uint32_t orphan[BROKER_PLACES];
	struct probe adopted;
	bool adopt;
};

static struct rig *fx;

static int ask(struct probe *probe)
{
	const struct wire_join join = {
		.client = fx->sockets[0],
		.peer = fx->sockets[1],
		.to_client = 88,
		.unread = 40,
		.allocation = 0x1122334455667788,
		.expires_ns = 99,
		.label = "alice@example.org",
	};

	return wire_join(fx->wire, &probe->link, &join);
}

static void answered(struct wire_link *link, enum wire_reason reason)
{
	struct probe *probe = list_entry(link, struct probe, link);

	probe->answered++;
	probe->reason = reason;
	if (reason != WIRE_OK) {
		assert_int_equal(link->state, WIRE_LINK_OUT);
		if (probe->again)
			assert_int_equal(ask(probe), 0);
		probe->again = NULL;
	}
}

static void active(struct wire_link *link)
{
	list_entry(link, struct probe, link)->active++;
}

static void ended(struct wire_link *link, enum wire_end end,
		  const struct wire_stats *stats)
{
	struct probe *probe = list_entry(link, struct probe, link);

	assert_int_equal(link->state, WIRE_LINK_OUT);
	probe->ended++;
	probe->end = end;
	probe->stats = *stats;
}

static const struct wire_link_ops ops = { answered, active, ended };

static void orphan(void *arg, uint32_t place, const struct wire_pair *pair)
{
	struct rig *rig = arg;

	assert_int_equal(pair->generation, rig->broker.pairs[place].generation);
	rig->orphan[rig->orphans++] = place;
	if (!rig->adopt)
		return;
	rig->adopted.link.ops = &ops;
	wire_adopt(rig->wire, &rig->adopted.link, place, pair->generation);
}

static void lost(void *arg)
{
	((struct rig *)arg)->lost++;
}

static void changed(void *arg)
{
	((struct rig *)arg)->changed++;
}

static void sockmap(void *arg, int error)
{
	struct rig *rig = arg;

	rig->sockmap++;
	rig->sockmap_error = error;
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct wire_params params = {
		.worker = 3,
		.answer_ms = 200,
		.orphan = orphan,
		.changed = changed,
		.lost = lost,
		.sockmap = sockmap,
		.read = broker_read_pair,
		.arg = rig,
	};

	if (!rig || loop_new(&rig->loop))
		return -1;
	params.loop = rig->loop;
	if (wire_new(&params, &rig->wire))
		return -1;
	broker_rig_init(&rig->broker, rig->loop);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, rig->sockets))
		return -1;
	for (size_t i = 0; i < 4; i++)
		rig->probe[i].link.ops = &ops;
	*state = fx = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	failalloc_disarm();
	for (size_t i = 0; i < 4; i++)
		wire_forget(&rig->probe[i].link);
	wire_forget(&rig->adopted.link);
	wire_free(rig->wire);
	loop_free(rig->loop);
	broker_rig_free(&rig->broker);
	fd_close(&rig->sockets[0]);
	fd_close(&rig->sockets[1]);
	free(rig);
	return 0;
}

static void tick(struct rig *rig)
{
	loop_tick(rig->loop, 0);
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
	broker_welcome(&rig->broker);
	UNTIL(rig, wire_ready(rig->wire));
}

/* Asks and hears of it; the copies of the sockets are checked and closed. */
static uint32_t asked(struct rig *rig, struct probe *probe)
{
	struct broker_join join;
	struct stat mine, theirs;
	int fds[2];

	assert_int_equal(ask(probe), 0);
	assert_int_equal(probe->link.state, WIRE_LINK_ASKED);
	broker_expect_join(&rig->broker, &join, fds);
	assert_int_equal(join.to_client, 88);
	assert_int_equal(join.unread, 40);
	assert_true(join.allocation == 0x1122334455667788);
	assert_int_equal(join.expires_ns, 99);
	assert_string_equal(join.label, "alice@example.org");
	for (int i = 0; i < 2; i++) {
		assert_int_equal(fstat(rig->sockets[i], &mine), 0);
		assert_int_equal(fstat(fds[i], &theirs), 0);
		assert_true(mine.st_ino == theirs.st_ino);
		close(fds[i]);
	}
	return join.ticket;
}

static void joined(struct rig *rig, struct probe *probe, uint32_t place)
{
	broker_answer(&rig->broker, asked(rig, probe), WIRE_OK, place);
	UNTIL(rig, probe->link.state == WIRE_LINK_LATCHED);
}

static void made_active(struct rig *rig, struct probe *probe, uint32_t place)
{
	joined(rig, probe, place);
	broker_active(&rig->broker, place);
	UNTIL(rig, probe->link.state == WIRE_LINK_ACTIVE);
}

static void broker_dies(struct rig *rig)
{
	fd_close(&rig->broker.fd);
	UNTIL(rig, !wire_ready(rig->wire));
}

static void introduces_itself_and_is_welcome(void **state)
{
	struct rig *rig = *state;
	struct broker_hello hello;

	assert_false(wire_ready(rig->wire));
	assert_non_null(strstr(wire_why(rig->wire), "there is no broker"));
	assert_int_equal(ask(&rig->probe[0]), -ENOTCONN);
	broker_connect(&rig->broker, rig->wire);
	broker_expect_hello(&rig->broker, &hello);
	assert_int_equal(hello.zero, 0);
	assert_int_equal(hello.adopts, 1);
	tick(rig);
	assert_int_equal(ask(&rig->probe[0]), -ENOTCONN);
	broker_welcome(&rig->broker);
	UNTIL(rig, wire_ready(rig->wire));
	assert_int_equal(wire_capacity(rig->wire), BROKER_PLACES);
	assert_string_equal(wire_why(rig->wire), "");
	assert_int_equal(rig->changed, 1);
}

static void says_why_there_is_no_wire(void **state)
{
	struct rig *rig = *state;
	const struct broker_welcome welcome = {
		.type = BROKER_WELCOME,
		.version = BROKER_PROTOCOL,
		.error = -EPERM,
		.why = "no capability",
	};

	broker_connect(&rig->broker, rig->wire);
	broker_send(&rig->broker, &welcome, sizeof(welcome), NULL, 0);
	UNTIL(rig, rig->changed);
	assert_false(wire_ready(rig->wire));
	assert_string_equal(wire_why(rig->wire), "no capability");
	assert_int_equal(ask(&rig->probe[0]), -ENOTCONN);
}

static void a_pair_lives_from_join_to_end(void **state)
{
	struct rig *rig = *state;
	struct probe *probe = &rig->probe[0];
	struct wire_usage usage;

	ready(rig);
	joined(rig, probe, 5);
	assert_int_equal(probe->answered, 1);
	assert_int_equal(probe->active, 0);
	broker_active(&rig->broker, 5);
	UNTIL(rig, probe->active);
	wire_get_usage(rig->wire, &usage);
	assert_int_equal(usage.pairs_now, 1);
	assert_int_equal(usage.joins, 1);
	broker_ended(&rig->broker, 5, WIRE_END_FIN, 10, 20);
	UNTIL(rig, probe->ended);
	assert_int_equal(probe->end, WIRE_END_FIN);
	assert_int_equal(probe->stats.bytes[WIRE_CLIENT], 10);
	assert_int_equal(probe->stats.bytes[WIRE_PEER], 20);
	assert_int_equal(probe->stats.idle_ns, 7000000);
	assert_int_equal(probe->active, 1);
	wire_get_usage(rig->wire, &usage);
	assert_int_equal(usage.pairs_now, 0);
	/* The place is given to another pair. */
	made_active(rig, &rig->probe[1], 5);
}

static void may_end_before_it_is_active(void **state)
{
	struct rig *rig = *state;
	struct probe *probe = &rig->probe[0];

	ready(rig);
	joined(rig, probe, 0);
	broker_ended(&rig->broker, 0, WIRE_END_LATCH, 0, 0);
	UNTIL(rig, probe->ended);
	assert_int_equal(probe->active, 0);
	assert_int_equal(probe->end, WIRE_END_LATCH);
}

static void may_ask_again_when_refused(void **state)
{
	struct rig *rig = *state;
	struct probe *probe = &rig->probe[0];
	struct broker_join join;
	uint32_t ticket;
	int fds[2];

	ready(rig);
	probe->again = rig->wire;
	ticket = asked(rig, probe);
	broker_answer(&rig->broker, ticket, WIRE_AGAIN, 0);
	UNTIL(rig, probe->answered == 1);
	assert_int_equal(probe->reason, WIRE_AGAIN);
	broker_expect_join(&rig->broker, &join, fds);
	close(fds[0]);
	close(fds[1]);
	assert_int_not_equal(join.ticket, ticket);
	broker_answer(&rig->broker, join.ticket, WIRE_NO_SACK, 0);
	UNTIL(rig, probe->answered == 2);
	assert_int_equal(probe->reason, WIRE_NO_SACK);
	assert_int_equal(probe->link.state, WIRE_LINK_OUT);
}

static void resets_when_told_once(void **state)
{
	struct rig *rig = *state;

	ready(rig);
	joined(rig, &rig->probe[0], 1);
	made_active(rig, &rig->probe[1], 2);
	wire_reset(&rig->probe[0].link);
	wire_reset(&rig->probe[0].link);
	wire_reset(&rig->probe[1].link);
	broker_expect_pair(&rig->broker, BROKER_RESET, 1);
	broker_expect_pair(&rig->broker, BROKER_RESET, 2);
	assert_true(broker_silent(&rig->broker));
	broker_ended(&rig->broker, 2, WIRE_END_RESET, 0, 0);
	broker_ended(&rig->broker, 1, WIRE_END_RESET, 0, 0);
	UNTIL(rig, rig->probe[0].ended && rig->probe[1].ended);
}

/* With the broker there, and while there is none. */
static void a_reset_outlives_its_link(void **state)
{
	struct rig *rig = *state;
	struct broker_hello hello;

	ready(rig);
	joined(rig, &rig->probe[0], 1);
	made_active(rig, &rig->probe[1], 2);
	made_active(rig, &rig->probe[2], 3);
	for (int i = 0; i < 2; i++) {
		wire_reset(&rig->probe[i].link);
		wire_forget(&rig->probe[i].link);
		assert_int_equal(rig->probe[i].link.state, WIRE_LINK_OUT);
	}
	tick(rig);
	broker_expect_pair(&rig->broker, BROKER_RESET, 1);
	broker_expect_pair(&rig->broker, BROKER_RESET, 2);
	broker_dies(rig);
	wire_reset(&rig->probe[2].link);
	wire_forget(&rig->probe[2].link);
	broker_connect(&rig->broker, rig->wire);
	broker_expect_hello(&rig->broker, &hello);
	broker_welcome(&rig->broker);
	UNTIL(rig, wire_ready(rig->wire));
	tick(rig);
	broker_expect_pair(&rig->broker, BROKER_RESET, 3);
	/* What was said already is not said again. */
	made_active(rig, &rig->probe[3], 4);
	wire_reset(&rig->probe[3].link);
	tick(rig);
	broker_expect_pair(&rig->broker, BROKER_RESET, 4);
	wire_forget(&rig->probe[3].link);
	tick(rig);
	assert_true(broker_silent(&rig->broker));
}

static void a_join_given_up_is_undone(void **state)
{
	struct rig *rig = *state;
	struct wire_usage usage;
	uint32_t first, second;

	ready(rig);
	first = asked(rig, &rig->probe[0]);
	second = asked(rig, &rig->probe[1]);
	wire_forget(&rig->probe[0].link);
	wire_forget(&rig->probe[1].link);
	assert_int_equal(rig->probe[0].link.state, WIRE_LINK_OUT);
	broker_answer(&rig->broker, first, WIRE_OK, 9);
	broker_answer(&rig->broker, second, WIRE_NO_MSS, 0);
	for (int i = 0; i < 3; i++)
		tick(rig);
	broker_expect_pair(&rig->broker, BROKER_RESET, 9);
	assert_true(broker_silent(&rig->broker));
	/* Nobody knows it; its end is nobody's. */
	broker_active(&rig->broker, 9);
	broker_ended(&rig->broker, 9, WIRE_END_RESET, 0, 0);
	tick(rig);
	assert_true(wire_ready(rig->wire));
	assert_int_equal(rig->probe[0].answered + rig->probe[0].ended, 0);
	wire_get_usage(rig->wire, &usage);
	assert_int_equal(usage.pairs_now, 0);
}

static void prolongs_what_has_pairs(void **state)
{
	struct rig *rig = *state;
	struct broker_expire expire;

	ready(rig);
	wire_expire(rig->wire, 7, 8);
	assert_true(broker_silent(&rig->broker));
	joined(rig, &rig->probe[0], 1);
	wire_expire(rig->wire, 7, 8);
	assert_int_equal(broker_hear(&rig->broker, &expire, sizeof(expire),
				     NULL, 0),
			 BROKER_EXPIRE);
	assert_int_equal(expire.allocation, 7);
	assert_int_equal(expire.expires_ns, 8);
}

/* Whether it was joined nobody knows: no second owner of the sockets. */
static void a_broker_that_dies_orphans_what_is_not_active(void **state)
{
	struct rig *rig = *state;

	ready(rig);
	asked(rig, &rig->probe[0]);
	joined(rig, &rig->probe[1], 1);
	made_active(rig, &rig->probe[2], 2);
	broker_dies(rig);
	assert_int_equal(rig->probe[0].ended, 1);
	assert_int_equal(rig->probe[0].end, WIRE_END_ORPHAN);
	assert_int_equal(rig->probe[0].answered, 0);
	assert_int_equal(rig->probe[1].ended, 1);
	assert_int_equal(rig->probe[1].end, WIRE_END_ORPHAN);
	assert_int_equal(rig->probe[2].ended, 0);
	assert_int_equal(rig->probe[2].link.state, WIRE_LINK_ACTIVE);
	assert_int_equal(rig->lost, 1);
	assert_string_equal(wire_why(rig->wire),
			    "the channel to the broker has ended");
	assert_int_equal(ask(&rig->probe[0]), -ENOTCONN);
}

static void a_new_broker_is_told_of_active_pairs(void **state)
{
	struct rig *rig = *state;
	struct broker_hello hello;

	ready(rig);
	for (uint32_t i = 0; i < 3; i++)
		made_active(rig, &rig->probe[i], 10 + i);
	wire_reset(&rig->probe[1].link); /* sent, and lost */
	broker_dies(rig);
	wire_reset(&rig->probe[2].link); /* while there is none */
	broker_connect(&rig->broker, rig->wire);
	broker_expect_hello(&rig->broker, &hello);
	tick(rig);
	assert_true(broker_silent(&rig->broker));
	broker_welcome(&rig->broker);
	UNTIL(rig, wire_ready(rig->wire));
	tick(rig);
	broker_expect_pair(&rig->broker, BROKER_CLAIM, 10);
	broker_expect_pair(&rig->broker, BROKER_CLAIM, 12);
	broker_expect_pair(&rig->broker, BROKER_CLAIM, 11);
	broker_expect_pair(&rig->broker, BROKER_RESET, 12);
	broker_expect_pair(&rig->broker, BROKER_RESET, 11);
	assert_true(broker_silent(&rig->broker));
	/* Its own pairs are no orphans. */
	assert_int_equal(rig->orphans, 0);
	broker_active(&rig->broker, 10);
	broker_ended(&rig->broker, 11, WIRE_END_RESET, 0, 0);
	broker_ended(&rig->broker, 12, WIRE_END_ORPHAN, 0, 0);
	UNTIL(rig, rig->probe[1].ended && rig->probe[2].ended);
	assert_int_equal(rig->probe[0].active, 1);
	assert_int_equal(rig->probe[0].ended, 0);
}

static void a_channel_taken_away_is_a_broker_gone(void **state)
{
	struct rig *rig = *state;

	ready(rig);
	joined(rig, &rig->probe[0], 1);
	assert_int_equal(wire_channel(rig->wire, -1), 0);
	assert_int_equal(rig->probe[0].ended, 1);
	assert_false(wire_ready(rig->wire));
	/* Whoever does that knows. */
	assert_int_equal(rig->lost, 0);
	assert_int_equal(rig->changed, 2);
}

static void a_broker_that_hangs_is_waited_for_not_asked(void **state)
{
	struct rig *rig = *state;
	uint32_t first;

	ready(rig);
	first = asked(rig, &rig->probe[0]);
	for (int i = 0; i < 2; i++) {
		UNTIL(rig, !wire_ready(rig->wire));
		assert_int_equal(rig->changed, 2 + 2 * i);
		assert_string_equal(wire_why(rig->wire),
				    "the broker does not answer");
		assert_int_equal(ask(&rig->probe[1]), -ENOTCONN);
		assert_int_equal(rig->probe[0].ended, 0);
		/* A sign of life, then silence again. */
		if (i == 0)
			broker_active(&rig->broker, 7);
		else
			broker_answer(&rig->broker, first, WIRE_OK, 1);
		UNTIL(rig, wire_ready(rig->wire));
	}
	UNTIL(rig, rig->probe[0].answered);
	assert_int_equal(rig->probe[0].reason, WIRE_OK);
	made_active(rig, &rig->probe[1], 2);
}

/* All that went before a join has filled the channel of a broker that hangs. */
static void one_that_cannot_even_be_asked_hangs_too(void **state)
{
	struct rig *rig = *state;
	char bytes[PACKET_BYTES];

	ready(rig);
	made_active(rig, &rig->probe[1], 2);
	for (int i = 0; i < 2000; i++) {
		wire_expire(rig->wire, 1, 2);
		tick(rig);
	}
	assert_int_equal(ask(&rig->probe[0]), 0);
	UNTIL(rig, !wire_ready(rig->wire));
	assert_string_equal(wire_why(rig->wire), "the broker does not answer");
	assert_int_equal(ask(&rig->probe[2]), -ENOTCONN);
	/* It comes to, and hears of it. */
	while (rig->broker.pairs[5].state != WIRE_JOINED) {
		ssize_t n = recv(rig->broker.fd, bytes, sizeof(bytes),
				 MSG_DONTWAIT);
		struct broker_join join;

		if (n == sizeof(join)) {
			memcpy(&join, bytes, sizeof(join));
			assert_int_equal(join.type, BROKER_JOIN);
			broker_answer(&rig->broker, join.ticket, WIRE_OK, 5);
		}
		tick(rig);
	}
	UNTIL(rig, wire_ready(rig->wire) && rig->probe[0].answered);
}

/* It may be active behind our back: nobody else would end it. */
static void what_was_given_up_is_reset_by_the_next_broker(void **state)
{
	struct rig *rig = *state;
	struct broker_hello hello;

	ready(rig);
	joined(rig, &rig->probe[0], 4);
	broker_dies(rig);
	assert_int_equal(rig->probe[0].end, WIRE_END_ORPHAN);
	broker_connect(&rig->broker, rig->wire);
	broker_expect_hello(&rig->broker, &hello);
	broker_welcome(&rig->broker);
	UNTIL(rig, wire_ready(rig->wire));
	tick(rig);
	broker_expect_pair(&rig->broker, BROKER_RESET, 4);
	assert_true(broker_silent(&rig->broker));
	broker_ended(&rig->broker, 4, WIRE_END_RESET, 0, 0);
	tick(rig);
	assert_true(wire_ready(rig->wire));
}

static void a_place_given_anew_ends_who_had_it(void **state)
{
	struct rig *rig = *state;

	rig->adopt = true;
	rig->broker.pairs[3].state = WIRE_JOINED;
	ready(rig);
	assert_int_equal(rig->orphans, 1);
	tick(rig);
	broker_expect_pair(&rig->broker, BROKER_CLAIM, 3);
	joined(rig, &rig->probe[0], 3);
	assert_int_equal(rig->adopted.ended, 1);
	assert_int_equal(rig->adopted.end, WIRE_END_ORPHAN);
	assert_true(wire_ready(rig->wire));
}

static void many_joins_wait_their_turn(void **state)
{
	static struct probe probes[PIECES];
	struct rig *rig = *state;
	size_t heard = 0, most = 0, open = 0;
	uint32_t tickets[PIECES];
	uint64_t start = clock_ms();

	ready(rig);
	for (size_t i = 0; i < PIECES; i++) {
		probes[i] = (struct probe){ .link.ops = &ops };
		assert_int_equal(ask(&probes[i]), 0);
	}
	while (heard < PIECES && clock_ms() - start < WAIT_MS) {
		struct broker_join join;
		int fds[2];

		if (broker_hear(&rig->broker, &join, sizeof(join), fds, 2)) {
			close(fds[0]);
			close(fds[1]);
			tickets[heard++] = join.ticket;
			most = ++open > most ? open : most;
			continue;
		}
		broker_answer(&rig->broker, tickets[heard - open], WIRE_NO_ROOM,
			      0);
		open--;
		tick(rig);
	}
	assert_int_equal(heard, PIECES);
	assert_true(most > 1 && most <= 128);
	/* Those in order, each once; the last ones are never answered. */
	for (size_t i = 0; i < PIECES - open; i++)
		UNTIL(rig, probes[i].answered == 1);
	for (size_t i = PIECES - open; i < PIECES; i++)
		wire_forget(&probes[i].link);
}

static void a_join_never_sent_is_refused_or_forgotten(void **state)
{
	static struct probe probes[PIECES];
	struct rig *rig = *state;
	size_t refused = 0, orphaned = 0;

	ready(rig);
	for (size_t i = 0; i < PIECES; i++) {
		probes[i] = (struct probe){ .link.ops = &ops };
		assert_int_equal(ask(&probes[i]), 0);
	}
	loop_tick(rig->loop, 0);
	wire_forget(&probes[PIECES - 1].link);
	broker_dies(rig);
	for (size_t i = 0; i < PIECES - 1; i++) {
		assert_int_equal(probes[i].answered + probes[i].ended, 1);
		refused += probes[i].answered &&
			   probes[i].reason == WIRE_NO_BROKER;
		orphaned += probes[i].ended && probes[i].end == WIRE_END_ORPHAN;
	}
	assert_int_equal(refused + orphaned, PIECES - 1);
	assert_true(refused && orphaned);
	assert_int_equal(probes[PIECES - 1].answered, 0);
}

static void adopts_what_nobody_knows(void **state)
{
	struct rig *rig = *state;
	struct wire_pair *pairs = rig->broker.pairs;

	rig->adopt = true;
	pairs[3].state = WIRE_JOINED;
	pairs[3].generation = 17;
	pairs[4].state = WIRE_ENDED;
	pairs[5].state = WIRE_JOINING;
	ready(rig);
	assert_int_equal(rig->orphans, 1);
	assert_int_equal(rig->orphan[0], 3);
	assert_int_equal(rig->adopted.link.generation, 17);
	tick(rig);
	broker_expect_pair(&rig->broker, BROKER_CLAIM, 3);
	wire_reset(&rig->adopted.link);
	broker_expect_pair(&rig->broker, BROKER_RESET, 3);
	broker_ended(&rig->broker, 3, WIRE_END_EXPIRED, 1, 2);
	UNTIL(rig, rig->adopted.ended);
}

static void counts_payload_only(void **state)
{
	struct rig *rig = *state;
	struct wire_pair *pair = &rig->broker.pairs[6];
	struct wire_leg *client = &pair->leg[WIRE_CLIENT];
	struct wire_leg *peer = &pair->leg[WIRE_PEER];
	struct wire_stats stats;

	ready(rig);
	made_active(rig, &rig->probe[0], 6);
	pair->started[WIRE_CLIENT] = 0x1fffffff0;
	pair->started[WIRE_PEER] = 0x100000500;
	client->acked = 0x1ffffff00; /* latched: less than started */
	peer->acked = 0x100000507;
	pair->created_ns = clock_ns() - 5000000000;
	assert_true(wire_link_stats(&rig->probe[0].link, &stats));
	assert_int_equal(stats.bytes[WIRE_CLIENT], 0);
	assert_int_equal(stats.bytes[WIRE_PEER], 7);
	assert_true(stats.idle_ns >= 5000000000);
	/* Past 2^32, and the peer's FIN is acknowledged by the client. */
	client->acked = 0x200000010;
	peer->flags = WIRE_LEG_FIN;
	peer->fin_end = 0x1000;
	peer->seq_delta = 0x10u - 0x1000u;
	peer->seen_ns = clock_ns() - 1000000000;
	assert_true(wire_link_stats(&rig->probe[0].link, &stats));
	assert_int_equal(stats.bytes[WIRE_CLIENT], 0x20 - 1);
	assert_int_equal(stats.bytes[WIRE_PEER], 7);
	assert_true(stats.idle_ns >= 1000000000 && stats.idle_ns < 4000000000);
	client->acked--; /* not yet */
	assert_true(wire_link_stats(&rig->probe[0].link, &stats));
	assert_int_equal(stats.bytes[WIRE_CLIENT], 0x20 - 1);
	/* Of another pair in this place nothing is told. */
	pair->generation++;
	assert_false(wire_link_stats(&rig->probe[0].link, &stats));
	pair->generation--;
}

static void hands_out_the_maps_of_sockmap(void **state)
{
	struct rig *rig = *state;
	struct broker_sockmap_maps maps = { .type = BROKER_SOCKMAP_MAPS };
	struct broker_sockmap heard;
	int fds[SOCKMAP_MAPS];

	assert_int_equal(wire_sockmap(rig->wire), -ENOTCONN);
	ready(rig);
	assert_null(wire_sockmap_fds(rig->wire));
	assert_int_equal(wire_sockmap(rig->wire), 0);
	assert_int_equal(wire_sockmap(rig->wire), 0);
	assert_int_equal(broker_hear(&rig->broker, &heard, sizeof(heard), NULL,
				     0),
			 BROKER_SOCKMAP);
	assert_true(broker_silent(&rig->broker));
	maps.error = -EPERM;
	broker_send(&rig->broker, &maps, sizeof(maps), NULL, 0);
	UNTIL(rig, rig->sockmap == 1);
	assert_int_equal(rig->sockmap_error, -EPERM);
	assert_null(wire_sockmap_fds(rig->wire));
	assert_int_equal(wire_sockmap(rig->wire), 0);
	maps.error = 0;
	for (int i = 0; i < SOCKMAP_MAPS; i++)
		fds[i] = rig->broker.pairs_fd;
	broker_send(&rig->broker, &maps, sizeof(maps), fds, SOCKMAP_MAPS);
	UNTIL(rig, rig->sockmap == 2);
	assert_int_equal(rig->sockmap_error, 0);
	assert_non_null(wire_sockmap_fds(rig->wire));
	/* They outlive the broker; a question does not. */
	assert_int_equal(wire_sockmap(rig->wire), 0);
	broker_dies(rig);
	assert_int_equal(rig->sockmap, 3);
	assert_int_equal(rig->sockmap_error, -ENOTCONN);
	assert_non_null(wire_sockmap_fds(rig->wire));
}

/* One message that breaks a rule. */
struct bad {
	const char *what;
	bool welcome; /* after a WELCOME */
	size_t cut; /* bytes too few; SIZE_MAX: one too many */
	size_t fds;
	size_t len;
	union {
		uint32_t type;
		struct broker_welcome welcome;
		struct broker_answer answer;
		struct broker_active active;
		struct broker_ended ended;
		struct broker_sockmap_maps sockmap;
	} body;
};

#define BODY(name, ...)                              \
	.len = sizeof(((struct bad *)0)->body.name), \
	.body.name = { __VA_ARGS__ }
#define HEAD(kind) .type = BROKER_##kind
#define GREET(...) \
	BODY(welcome, HEAD(WELCOME), .version = BROKER_PROTOCOL, __VA_ARGS__)
#define ANSWER(...) .welcome = true, BODY(answer, HEAD(ANSWER), __VA_ARGS__)
#define ENDED(...)  .welcome = true, BODY(ended, HEAD(ENDED), __VA_ARGS__)

/* Ticket 1 is unanswered, ticket 2 was joined at place 0, generation 1. */
static const struct bad bads[] = {
	{ "nothing at all", .len = 4, .body.type = 0 },
	{ "an unknown type", .welcome = true, .len = 4, .body.type = 99 },
	{ "a type of ours", .welcome = true, .len = 16,
	  .body.type = BROKER_RESET },
	{ "less than a type", .welcome = true, .len = 4, .cut = 1,
	  .body.type = BROKER_ACTIVE },
	{ "ANSWER before WELCOME",
	  BODY(answer, HEAD(ANSWER), .ticket = 1, .reason = WIRE_NO_ECN) },
	{ "ACTIVE before WELCOME", BODY(active, HEAD(ACTIVE)) },
	{ "a second WELCOME", .welcome = true, .fds = 1,
	  GREET(.capacity = BROKER_PLACES) },
	{ "WELCOME cut short", .cut = 1, .fds = 1,
	  GREET(.capacity = BROKER_PLACES) },
	{ "WELCOME without its map", GREET(.capacity = BROKER_PLACES) },
	{ "WELCOME with two maps", .fds = 2, GREET(.capacity = BROKER_PLACES) },
	{ "a map and an error", .fds = 1,
	  GREET(.capacity = BROKER_PLACES, .error = -EPERM) },
	{ "neither map nor error", GREET(.capacity = 0) },
	{ "a map of nothing", .fds = 1, GREET(.error = -EPERM) },
	{ "a positive error", GREET(.error = EPERM) },
	{ "a map without end", .fds = 1, GREET(.capacity = UINT32_MAX) },
	{ "another version", .fds = 1,
	  BODY(welcome, HEAD(WELCOME), .version = BROKER_PROTOCOL + 1,
	       .capacity = BROKER_PLACES) },
	{ "an answer nobody asked for", ANSWER(.ticket = 77) },
	{ "an answer twice", ANSWER(.ticket = 2, .reason = WIRE_NO_ECN) },
	{ "an answer cut short", .cut = 4, ANSWER(.ticket = 1) },
	{ "an answer too long", .cut = SIZE_MAX, ANSWER(.ticket = 1) },
	{ "an answer with a descriptor", .fds = 1,
	  ANSWER(.ticket = 1, .reason = WIRE_NO_ECN) },
	{ "a reason that is ours",
	  ANSWER(.ticket = 1, .reason = WIRE_NO_BROKER) },
	{ "a reason that is none", ANSWER(.ticket = 1, .reason = 1000) },
	{ "a place behind the last",
	  ANSWER(.ticket = 1, .pair = BROKER_PLACES, .generation = 1) },
	{ "a place in use", ANSWER(.ticket = 1, .pair = 0, .generation = 1) },
	{ "ACTIVE cut short", .welcome = true, .cut = 4,
	  BODY(active, HEAD(ACTIVE), .generation = 1) },
	{ "an end that is none", ENDED(.generation = 1) },
	{ "an end unheard of",
	  ENDED(.generation = 1, .end = WIRE_END_ORPHAN + 1) },
	{ "an end cut short", .cut = 8,
	  ENDED(.generation = 1, .end = WIRE_END_FIN) },
	{ "maps nobody asked for", .welcome = true, .fds = SOCKMAP_MAPS,
	  BODY(sockmap, HEAD(SOCKMAP_MAPS)) },
};

static void bad_one(const struct bad *bad, struct rig *rig)
{
	char space[sizeof(bad->body) + 64] = { 0 };
	int fds[8];
	size_t len = bad->len - (bad->cut == SIZE_MAX ? 0 : bad->cut);
	uint32_t unanswered;

	memset(rig->broker.pairs, 0, BROKER_PLACES * sizeof(struct wire_pair));
	if (bad->welcome) {
		ready(rig);
		unanswered = asked(rig, &rig->probe[0]);
		assert_int_equal(unanswered, 1);
		joined(rig, &rig->probe[1], 0);
	} else {
		broker_connect(&rig->broker, rig->wire);
	}
	memcpy(space, &bad->body, bad->len);
	for (size_t i = 0; i < 8; i++)
		fds[i] = rig->broker.pairs_fd;
	broker_send(&rig->broker, space, len + (bad->cut == SIZE_MAX), fds,
		    bad->fds);
	for (int i = 0; i < 3; i++)
		tick(rig);
	if (wire_ready(rig->wire) ||
	    strcmp(wire_why(rig->wire), "the broker broke the rules") != 0)
		fail_msg("taken: %s", bad->what);
	/* Once, and before a WELCOME, too. */
	assert_int_equal(rig->lost, 1);
	if (bad->welcome) {
		assert_int_equal(rig->probe[0].ended, 1);
		assert_int_equal(rig->probe[1].ended, 1);
	}
}

static int open_files(void)
{
	int count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static void whoever_breaks_a_rule_is_left(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
		int before = open_files();
		void *own = NULL;

		assert_int_equal(setup(&own), 0);
		bad_one(&bads[i], own);
		teardown(&own);
		/* Descriptors of a bad message are not kept, either. */
		assert_int_equal(open_files(), before);
	}
	fx = NULL;
}

static void why_must_end(void **state)
{
	struct rig *rig = *state;
	struct broker_welcome welcome = { .type = BROKER_WELCOME,
					  .version = BROKER_PROTOCOL,
					  .error = -EPERM };

	memset(welcome.why, 'x', sizeof(welcome.why));
	broker_connect(&rig->broker, rig->wire);
	broker_send(&rig->broker, &welcome, sizeof(welcome), NULL, 0);
	UNTIL(rig,
	      strcmp(wire_why(rig->wire), "the broker broke the rules") == 0);
}

static void a_map_that_cannot_be_read_is_no_wire(void **state)
{
	struct rig *rig = *state;
	const struct broker_welcome welcome = {
		.type = BROKER_WELCOME,
		.version = BROKER_PROTOCOL,
		.capacity = BROKER_PLACES + 1,
	};

	broker_connect(&rig->broker, rig->wire);
	broker_send(&rig->broker, &welcome, sizeof(welcome),
		    &rig->broker.pairs_fd, 1);
	UNTIL(rig, rig->changed);
	assert_false(wire_ready(rig->wire));
	assert_string_equal(wire_why(rig->wire), strerror(ENOENT));
}

static void made_without_memory(void *arg)
{
	struct rig *rig = arg;
	const struct wire_params params = { .loop = rig->loop };
	struct wire *wire = NULL;
	int err = wire_new(&params, &wire);

	assert_true(err == 0 || err == -ENOMEM);
	if (!err)
		wire_free(wire);
}

static void asked_without_memory(void *arg)
{
	struct rig *rig = arg;
	int err = ask(&rig->probe[0]);

	assert_true(err == 0 || err == -ENOMEM);
	assert_int_equal(rig->probe[0].link.state == WIRE_LINK_OUT, err != 0);
	wire_expire(rig->wire, 1, 2);
	wire_forget(&rig->probe[0].link);
}

static void survives_a_lack_of_memory(void **state)
{
	struct rig *rig = *state;

	failalloc_sweep(made_without_memory, rig);
	ready(rig);
	failalloc_sweep(asked_without_memory, rig);
	assert_true(wire_ready(rig->wire));
}

static void every_reason_has_words(void **state)
{
	(void)state;
	for (int i = 0; i < WIRE_REASONS; i++) {
		assert_non_null(wire_reason_name(i));
		assert_non_null(wire_reason_text(i));
		assert_int_equal(wire_reason_text(i)[0] == '\0', i == WIRE_OK);
	}
	for (int i = WIRE_END_NONE; i <= WIRE_END_ORPHAN; i++)
		assert_string_not_equal(wire_end_name(i), "?");
	assert_string_equal(wire_reason_text(WIRE_REASONS), "?");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(introduces_itself_and_is_welcome),
		TEST(says_why_there_is_no_wire),
		TEST(a_pair_lives_from_join_to_end),
		TEST(may_end_before_it_is_active),
		TEST(may_ask_again_when_refused),
		TEST(resets_when_told_once),
		TEST(a_reset_outlives_its_link),
		TEST(a_join_given_up_is_undone),
		TEST(prolongs_what_has_pairs),
		TEST(a_broker_that_dies_orphans_what_is_not_active),
		TEST(a_new_broker_is_told_of_active_pairs),
		TEST(a_channel_taken_away_is_a_broker_gone),
		TEST(a_broker_that_hangs_is_waited_for_not_asked),
		TEST(one_that_cannot_even_be_asked_hangs_too),
		TEST(what_was_given_up_is_reset_by_the_next_broker),
		TEST(a_place_given_anew_ends_who_had_it),
		TEST(many_joins_wait_their_turn),
		TEST(a_join_never_sent_is_refused_or_forgotten),
		TEST(adopts_what_nobody_knows),
		TEST(counts_payload_only),
		TEST(hands_out_the_maps_of_sockmap),
		cmocka_unit_test(whoever_breaks_a_rule_is_left),
		TEST(why_must_end),
		TEST(a_map_that_cannot_be_read_is_no_wire),
		TEST(survives_a_lack_of_memory),
		cmocka_unit_test(every_reason_has_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
