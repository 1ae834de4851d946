/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pairs on their way to wire, over real TCP, with the test for a broker: whatever
 * it answers, no byte is lost and nobody else touches a joined socket.
 */
#include "unit/pair_rig.h"

#include <fcntl.h>

#include "unit/broker_rig.h"

#define ANSWER "the answer" /* the owner's words to the client */
#define EARLY  262144u /* of the peer that are carried through a join */

/* Beside the pair's rig: the worker's wire and the broker's side of it. */
static struct {
	struct wire *wire;
	struct broker_rig broker;
	struct pair_wire_params params;
	struct pair_policy policy;
	int decided, active; /* calls of the owner's functions */
	enum wire_reason why;
	struct broker_join join; /* the last */
	int copies[2]; /* the broker's */
} side;

static void on_decided(void *owner, enum wire_reason why)
{
	(void)owner;
	side.decided++;
	side.why = why;
}

static void on_active(void *owner)
{
	(void)owner;
	side.active++;
}

static uint64_t expires_ns(void *owner)
{
	(void)owner;
	return 4711;
}

static void label(void *owner, char out[WIRE_LABEL])
{
	(void)owner;
	strcpy(out, "alice@example.org");
}

static void wire_setup(struct loop *loop)
{
	const struct wire_params params = {
		.loop = loop,
		.read = broker_read_pair,
	};
	struct broker_hello hello;

	memset(&side, 0, sizeof(side));
	assert_int_equal(wire_new(&params, &side.wire), 0);
	broker_rig_init(&side.broker, loop);
	broker_connect(&side.broker, side.wire);
	broker_expect_hello(&side.broker, &hello);
	broker_welcome(&side.broker);
	while (!wire_ready(side.wire))
		loop_tick(loop, 10);
	side.copies[0] = side.copies[1] = -1;
}

static int setup(void **state)
{
	struct rig *rig = rig_new("copy");

	if (!rig)
		return -1;
	wire_setup(rig->loop);
	side.params = (struct pair_wire_params){
		.wire = side.wire,
		.control = -1,
		.allocation = 42,
		.expires_ns = expires_ns,
		.label = label,
		.on_decided = on_decided,
		.on_active = on_active,
	};
	rig->params.half[0].preface = (const uint8_t *)ANSWER;
	rig->params.half[0].preface_len = strlen(ANSWER);
	rig->params.wire = &side.params;
	*state = rig;
	return 0;
}

static void copies_close(void)
{
	fd_close(&side.copies[0]);
	fd_close(&side.copies[1]);
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	rig_pair_destroy(rig);
	wire_free(side.wire);
	broker_rig_free(&side.broker);
	copies_close();
	rig_free(rig);
	return 0;
}

/* The pair asks; the answer is the test's. */
static void expect_join(void)
{
	copies_close();
	broker_expect_join(&side.broker, &side.join, side.copies);
	assert_int_equal(side.join.allocation, 42);
	assert_int_equal(side.join.expires_ns, 4711);
	assert_string_equal(side.join.label, "alice@example.org");
}

static void start_asking(struct rig *rig)
{
	join(rig);
	assert_int_equal(state_of(rig), PAIR_JOINING);
	assert_int_equal(side.decided, 0);
	expect_join();
}

static void answer(enum wire_reason reason)
{
	copies_close();
	broker_answer(&side.broker, side.join.ticket, reason, 1);
}

/* The owner's answer, before any byte of the peer. */
static void expect_answer(struct rig *rig)
{
	char got[sizeof(ANSWER)] = "";
	size_t have = 0;
	uint64_t began = clock_ms();

	while (have < strlen(ANSWER)) {
		ssize_t n = recv(rig->end[0].fd, got + have,
				 strlen(ANSWER) - have, MSG_DONTWAIT);

		assert_true(n != 0 && clock_ms() - began < WAIT_MS);
		have += n > 0 ? (size_t)n : 0;
		loop_tick(rig->loop, 1);
	}
	assert_string_equal(got, ANSWER);
}

static void start_joined(struct rig *rig)
{
	start_asking(rig);
	answer(WIRE_OK);
	expect_answer(rig);
}

/* Our sockets are silent by now: the pair closes them. */
static void activate(struct rig *rig)
{
	broker_active(&side.broker, 1);
	RIG_UNTIL(rig->loop, rig->end, side.active);
}

/* Bytes came meanwhile: the pair takes them and asks once more. */
static void answer_again(struct rig *rig)
{
	answer(WIRE_AGAIN);
	while (broker_silent(&side.broker))
		loop_tick(rig->loop, 1);
	expect_join();
}

static void expect_reset(struct rig *rig)
{
	RIG_UNTIL(rig->loop, rig->end, !broker_silent(&side.broker));
	broker_expect_pair(&side.broker, BROKER_RESET, 1);
}

/* The broker tells of an end, and the owner hears how. */
static void expect_closed(struct rig *rig, enum wire_end end, enum pair_end how)
{
	broker_ended(&side.broker, 1, end, 0, 0);
	RIG_UNTIL(rig->loop, rig->end, rig->closed);
	assert_int_equal(rig->how, how);
}

static void put(struct end *end, size_t len)
{
	end->to_send += len;
	while (end->sent < end->to_send)
		end_send(end, PUMP_CHUNK);
}

/* Bytes that the relay's own kernel has. */
static void put_and_wait(struct rig *rig, int i, size_t len)
{
	int have = 0;

	put(&rig->end[i], len);
	while (have < (int)len)
		assert_int_equal(ioctl(rig->leg[i], FIONREAD, &have), 0);
}

/* Goes on as if wire had never been, on the engine there is. */
static void expect_streams(struct rig *rig, enum wire_reason why)
{
	struct pair_info info;

	expect_answer(rig);
	rig->end[0].to_send += 70000;
	rig->end[1].to_send += 80000;
	RIG_UNTIL(rig->loop, rig->end,
		  rig->end[0].got == rig->end[1].to_send &&
			  rig->end[1].got == rig->end[0].to_send);
	pair_get_info(rig->pair, &info);
	assert_int_equal(info.why, why);
	assert_string_equal(info.engine, "copy");
	assert_int_equal(info.bytes[PAIR_CLIENT], rig->end[1].sent);
	assert_int_equal(info.bytes[PAIR_PEER], rig->end[0].sent);
	assert_int_equal(side.decided, 1);
	assert_int_equal(side.why, why);
	rig->end[0].fin = rig->end[1].fin = true;
	RIG_UNTIL(rig->loop, rig->end, rig->closed);
	assert_int_equal(rig->how, PAIR_END_FIN);
	assert_int_equal(side.active, 0);
	assert_true(broker_silent(&side.broker));
}

static void is_joined_when_both_sides_are_quiet(void **state)
{
	struct rig *rig = *state;
	struct pair_info info;

	start_asking(rig);
	assert_int_equal(side.join.to_client, strlen(ANSWER));
	/* Until it is decided the client hears nothing. */
	for (int i = 0; i < 5; i++)
		loop_tick(rig->loop, 0);
	assert_int_equal(recv(rig->end[0].fd, &info, 1, MSG_DONTWAIT), -1);
	answer(WIRE_OK);
	expect_answer(rig);
	pair_get_info(rig->pair, &info);
	assert_int_equal(info.state, PAIR_RELAYING);
	assert_string_equal(info.engine, "wire");
	assert_int_equal(info.why, WIRE_OK);
	assert_int_equal(side.active, 0);
	activate(rig);
	assert_int_equal(fcntl(rig->leg[0], F_GETFD), -1);
	assert_int_equal(fcntl(rig->leg[1], F_GETFD), -1);
	pair_get_info(rig->pair, &info);
	assert_int_equal(info.state, PAIR_RELAYING);
	assert_string_equal(info.engine, "wire");
	broker_ended(&side.broker, 1, WIRE_END_FIN, 1000, 2000);
	RIG_UNTIL(rig->loop, rig->end, rig->closed);
	assert_int_equal(rig->how, PAIR_END_FIN);
	assert_int_equal(rig->last.bytes[PAIR_CLIENT], 1000);
	assert_int_equal(rig->last.bytes[PAIR_PEER], 2000);
}

static void carries_early_and_pipelined_bytes_through(void **state)
{
	struct rig *rig = *state;
	uint8_t preface[300];

	for (size_t i = 0; i < sizeof(preface); i++)
		preface[i] = pattern(i, rig->end[0].salt);
	rig->params.half[PAIR_PEER].preface = preface;
	rig->params.half[PAIR_PEER].preface_len = sizeof(preface);
	rig->end[0].sent = rig->end[0].to_send = sizeof(preface);
	put_and_wait(rig, 0, 50); /* behind what came with the request */
	put_and_wait(rig, 1, 5000); /* a banner */
	start_asking(rig);
	/* The broker finds the 50, which are read only now. */
	answer_again(rig);
	assert_int_equal(side.join.to_client, strlen(ANSWER) + 5000);
	assert_int_equal(side.join.unread, 5000);
	RIG_UNTIL(rig->loop, &rig->end[0],
		  (end_pump(&rig->end[1]), rig->end[1].got == 350));
	answer(WIRE_OK);
	expect_answer(rig);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].got == 5000);
	activate(rig);
	broker_ended(&side.broker, 1, WIRE_END_RESET_PEER, 7, 8);
	RIG_UNTIL(rig->loop, rig->end, rig->closed);
	assert_int_equal(rig->how, PAIR_END_RESET);
	assert_int_equal(rig->last.bytes[PAIR_CLIENT], 5007);
	assert_int_equal(rig->last.bytes[PAIR_PEER], 358);
}

static void asks_again_with_what_came_meanwhile(void **state)
{
	struct rig *rig = *state;

	start_asking(rig);
	for (uint32_t i = 1; i < 4; i++) {
		put_and_wait(rig, 1, 100);
		put_and_wait(rig, 0, 10);
		answer_again(rig);
		assert_int_equal(side.join.to_client, strlen(ANSWER) + 100 * i);
	}
	answer(WIRE_OK);
	expect_answer(rig);
	RIG_UNTIL(rig->loop, rig->end,
		  rig->end[0].got == 300 && rig->end[1].got == 30);
	assert_int_equal(side.why, WIRE_OK);
}

static void gives_up_on_two_that_never_get_quiet(void **state)
{
	struct rig *rig = *state;

	start_asking(rig);
	for (int i = 0; i < 4; i++) {
		put_and_wait(rig, 1, 100);
		answer_again(rig);
	}
	put_and_wait(rig, 0, 100);
	answer(WIRE_AGAIN);
	expect_streams(rig, WIRE_NO_QUIET);
}

static void goes_on_by_streams_when_refused(void **state)
{
	struct rig *rig = *state;

	put_and_wait(rig, 1, 3000);
	put_and_wait(rig, 0, 4000);
	start_asking(rig);
	put(&rig->end[1], 500);
	answer(WIRE_NO_TIMESTAMPS);
	expect_streams(rig, WIRE_NO_TIMESTAMPS);
}

static void does_not_ask_without_a_broker(void **state)
{
	struct rig *rig = *state;

	fd_close(&side.broker.fd);
	while (wire_ready(side.wire))
		loop_tick(rig->loop, 1);
	join(rig);
	assert_int_equal(side.why, WIRE_NO_BROKER);
	expect_answer(rig);
	RIG_UNTIL(rig->loop, rig->end, state_of(rig) == PAIR_RELAYING);
}

static void does_not_carry_a_flood_through(void **state)
{
	struct rig *rig = *state;
	const int room = 1 << 20;

	setsockopt(rig->leg[1], SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	rig->end[1].to_send = EARLY + 20000;
	while (rig->end[1].sent < rig->end[1].to_send)
		end_send(&rig->end[1], PUMP_CHUNK);
	wait_acked(rig->end[1].fd);
	join(rig);
	assert_int_equal(side.decided, 1);
	expect_streams(rig, WIRE_NO_EARLY);
}

/* More than the client's window holds: sent first, joined behind it. */
static void sends_first_what_the_window_does_not_hold(void **state)
{
	struct rig *rig = *state;

	put_and_wait(rig, 1, 50000);
	start_asking(rig);
	assert_int_equal(side.join.unread, 50000);
	answer(WIRE_NO_EARLY);
	expect_answer(rig);
	assert_int_equal(side.decided, 0);
	expect_join();
	assert_int_equal(side.join.to_client, 0);
	assert_int_equal(side.join.unread, 50000);
	/* Meanwhile there is more of both. */
	put_and_wait(rig, 1, 700);
	put_and_wait(rig, 0, 10);
	answer_again(rig);
	assert_int_equal(side.join.to_client, 700);
	assert_int_equal(side.join.unread, 50700);
	answer(WIRE_OK);
	RIG_UNTIL(rig->loop, rig->end,
		  rig->end[0].got == 50700 && rig->end[1].got == 10);
	assert_int_equal(side.why, WIRE_OK);
	activate(rig);
	broker_ended(&side.broker, 1, WIRE_END_FIN, 7, 8);
	RIG_UNTIL(rig->loop, rig->end, rig->closed);
	assert_int_equal(rig->last.bytes[PAIR_CLIENT], 50707);
	assert_int_equal(rig->last.bytes[PAIR_PEER], 18);
}

/* What has been sent first does not come twice. */
static void goes_on_by_streams_behind_what_was_sent_first(void **state)
{
	struct rig *rig = *state;

	put_and_wait(rig, 1, 50000);
	start_asking(rig);
	answer(WIRE_NO_EARLY);
	expect_answer(rig);
	expect_join();
	put(&rig->end[1], 500);
	answer(WIRE_NO_EARLY);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].got == 50500);
	assert_int_equal(side.decided, 1);
	assert_int_equal(side.why, WIRE_NO_EARLY);
	rig->end[0].fin = rig->end[1].fin = true;
	RIG_UNTIL(rig->loop, rig->end, rig->closed);
	assert_int_equal(rig->how, PAIR_END_FIN);
	assert_int_equal(rig->last.bytes[PAIR_CLIENT], 50500);
}

static void does_not_ask_when_the_peer_takes_no_more(void **state)
{
	struct rig *rig = *state;
	size_t len = 16u << 20;
	uint8_t *preface = malloc(len);

	assert_non_null(preface);
	for (size_t i = 0; i < len; i++)
		preface[i] = pattern(i, rig->end[0].salt);
	rig->params.half[PAIR_PEER].preface = preface;
	rig->params.half[PAIR_PEER].preface_len = len;
	rig->end[0].sent = rig->end[0].to_send = len;
	join(rig);
	free(preface);
	assert_int_equal(side.decided, 1);
	expect_streams(rig, WIRE_NO_EARLY);
}

static void ended_side(struct rig *rig, int i)
{
	put(&rig->end[i], 1000);
	shutdown(rig->end[i].fd, SHUT_WR);
	rig->end[i].fin_done = rig->end[i].fin = true;
	wait_poll(rig->leg[i], POLLRDHUP);
	/* The peer's is looked at before anything is asked, the client's is not. */
	if (i == 0) {
		start_asking(rig);
		answer(WIRE_NO_STATE);
	} else {
		join(rig);
	}
	expect_answer(rig);
	assert_int_equal(side.why, WIRE_NO_STATE);
	rig->end[!i].to_send = 20000;
	rig->end[!i].fin = true;
	RIG_UNTIL(rig->loop, rig->end, rig->closed);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].eof && rig->end[1].eof);
	assert_int_equal(rig->how, PAIR_END_FIN);
	assert_int_equal(rig->end[!i].got, 1000);
	assert_int_equal(rig->end[i].got, 20000);
}

static void a_peer_that_has_ended_its_stream_stays_off(void **state)
{
	ended_side(*state, PAIR_PEER);
}

static void a_client_that_has_ended_its_stream_stays_off(void **state)
{
	ended_side(*state, PAIR_CLIENT);
}

/* What was read before the reset arrives before it is passed on. */
static void a_reset_peer_resets_the_client_after_its_bytes(void **state)
{
	struct rig *rig = *state;

	start_asking(rig);
	put_and_wait(rig, 1, 900);
	answer_again(rig);
	copies_close();
	end_reset(&rig->end[1]);
	wait_poll(rig->leg[1], POLLHUP);
	broker_answer(&side.broker, side.join.ticket, WIRE_AGAIN, 0);
	expect_answer(rig);
	RIG_UNTIL(rig->loop, rig->end,
		  rig->end[0].error == ECONNRESET && rig->closed);
	assert_int_equal(rig->end[0].got, 900);
	assert_int_equal(side.why, WIRE_NO_STATE);
	assert_int_equal(rig->how, PAIR_END_RESET);
}

static void a_broker_that_dies_while_asked_ends_the_pair(void **state)
{
	struct rig *rig = *state;

	start_asking(rig);
	copies_close();
	fd_close(&side.broker.fd);
	RIG_UNTIL(rig->loop, rig->end, rig->closed);
	assert_int_equal(rig->how, PAIR_END_ERROR);
	RIG_UNTIL(rig->loop, rig->end,
		  rig->end[0].error == ECONNRESET &&
			  rig->end[1].error == ECONNRESET);
}

static void a_broker_that_dies_while_latched_ends_the_pair(void **state)
{
	struct rig *rig = *state;

	start_joined(rig);
	fd_close(&side.broker.fd);
	RIG_UNTIL(rig->loop, rig->end, rig->closed);
	assert_int_equal(rig->how, PAIR_END_ERROR);
	assert_int_equal(side.active, 0);
}

static void an_active_pair_survives_its_broker(void **state)
{
	struct rig *rig = *state;

	start_joined(rig);
	activate(rig);
	fd_close(&side.broker.fd);
	RIG_UNTIL(rig->loop, rig->end, !wire_ready(side.wire));
	assert_int_equal(rig->closed, 0);
	/* A kick waits for the next broker. */
	pair_reset(rig->pair);
	assert_int_equal(state_of(rig), PAIR_CLOSING);
	broker_connect(&side.broker, side.wire);
	(void)broker_hear(&side.broker, &(struct broker_hello){ 0 },
			  sizeof(struct broker_hello), NULL, 0);
	broker_welcome(&side.broker);
	RIG_UNTIL(rig->loop, rig->end, !broker_silent(&side.broker));
	broker_expect_pair(&side.broker, BROKER_CLAIM, 1);
	broker_expect_pair(&side.broker, BROKER_RESET, 1);
	expect_closed(rig, WIRE_END_RESET, PAIR_END_KICKED);
}

static void a_kick_while_asked_undoes_the_join(void **state)
{
	struct rig *rig = *state;

	start_asking(rig);
	pair_reset(rig->pair);
	RIG_UNTIL(rig->loop, rig->end, rig->closed);
	assert_int_equal(rig->how, PAIR_END_KICKED);
	answer(WIRE_OK);
	expect_reset(rig);
}

static void a_kick_resets_what_is_joined(void **state)
{
	struct rig *rig = *state;

	start_joined(rig);
	pair_reset(rig->pair);
	pair_reset(rig->pair);
	assert_int_equal(rig->closed, 0);
	broker_expect_pair(&side.broker, BROKER_RESET, 1);
	assert_true(broker_silent(&side.broker));
	broker_ended(&side.broker, 1, WIRE_END_RESET, 3, 4);
	RIG_UNTIL(rig->loop, rig->end, rig->closed);
	assert_int_equal(rig->how, PAIR_END_KICKED);
	assert_int_equal(rig->last.bytes[PAIR_CLIENT], 3);
}

static void somebody_elses_reset_is_a_kick(void **state)
{
	struct rig *rig = *state;

	start_joined(rig);
	expect_closed(rig, WIRE_END_RESET, PAIR_END_KICKED);
}

/* Joined and active, and its record says when the last packet came. */
static struct wire_pair *on_wire(struct rig *rig)
{
	struct wire_pair *pair = &side.broker.pairs[1];

	start_joined(rig);
	pair->created_ns = clock_ns();
	activate(rig);
	return pair;
}

static void finishes_when_packets_have_stopped(void **state)
{
	struct rig *rig = *state;
	struct wire_pair *pair = on_wire(rig);
	uint64_t moving = clock_ms() + 300;

	pair_finish(rig->pair);
	pair_finish(rig->pair);
	assert_int_equal(state_of(rig), PAIR_CLOSING);
	while (clock_ms() < moving) {
		pair->leg[0].seen_ns = clock_ns();
		loop_tick(rig->loop, 5);
		assert_true(broker_silent(&side.broker));
	}
	expect_reset(rig);
	expect_closed(rig, WIRE_END_RESET, PAIR_END_FINISHED);
}

static void does_not_finish_a_sender_without_end(void **state)
{
	struct rig *rig = *state;
	struct wire_pair *pair = on_wire(rig);
	uint64_t began = clock_ms();

	pair->started[WIRE_PEER] = 100;
	pair->leg[WIRE_PEER].acked = 100;
	pair_finish(rig->pair);
	while (broker_silent(&side.broker)) {
		assert_true(clock_ms() - began < rig->params.linger_ms / 2);
		pair->leg[WIRE_PEER].acked += 1u << 20;
		pair->leg[WIRE_CLIENT].seen_ns = clock_ns();
		loop_tick(rig->loop, 2);
	}
	broker_expect_pair(&side.broker, BROKER_RESET, 1);
}

static void idles_by_the_stamps_of_the_packets(void **state)
{
	struct rig *rig = *state;
	struct wire_pair *pair;
	uint64_t moving;

	rig->params.idle_timeout_ms = 200;
	pair = on_wire(rig);
	moving = clock_ms() + 500;
	while (clock_ms() < moving) {
		pair->leg[1].seen_ns = clock_ns();
		loop_tick(rig->loop, 5);
		assert_true(broker_silent(&side.broker));
	}
	RIG_UNTIL(rig->loop, rig->end, !broker_silent(&side.broker));
	assert_true(clock_ms() >= moving + 150);
	broker_expect_pair(&side.broker, BROKER_RESET, 1);
	expect_closed(rig, WIRE_END_RESET, PAIR_END_IDLE);
}

static void finishing_while_asked_ends_either_way(void **state)
{
	struct rig *rig = *state;

	put_and_wait(rig, 1, 700);
	start_asking(rig);
	pair_finish(rig->pair);
	answer(WIRE_AGAIN);
	expect_answer(rig);
	RIG_UNTIL(rig->loop, rig->end, rig->closed);
	assert_int_equal(rig->how, PAIR_END_FINISHED);
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].eof);
	assert_int_equal(rig->end[0].got, 700);
}

static void finishing_while_asked_ends_once_joined(void **state)
{
	struct rig *rig = *state;

	start_asking(rig);
	pair_finish(rig->pair);
	answer(WIRE_OK);
	expect_answer(rig);
	expect_reset(rig);
	expect_closed(rig, WIRE_END_RESET, PAIR_END_FINISHED);
}

static void is_destroyed_at_every_stage(void **state)
{
	struct rig *rig = *state;

	start_asking(rig);
	rig_pair_destroy(rig);
	answer(WIRE_OK);
	expect_reset(rig);
	broker_ended(&side.broker, 1, WIRE_END_RESET, 0, 0);
	for (int stage = 0; stage < 2; stage++) {
		rig_reconnect(rig);
		side.active = side.decided = 0;
		start_joined(rig);
		if (stage)
			activate(rig);
		rig_pair_destroy(rig);
		broker_ended(&side.broker, 1, WIRE_END_ORPHAN, 0, 0);
		loop_tick(rig->loop, 1);
	}
	assert_int_equal(rig->closed, 0);
}

static void policy_decides_before_the_broker_is_asked(void **state)
{
	struct rig *rig = *state;
	int control[2];

	/* Over loopback every round trip takes some microseconds. */
	side.policy = (struct pair_policy){ .max_rtt_us = 1, .max_loss = 1000 };
	side.params.policy = &side.policy;
	tcp_pair(&control[0], &control[1]);
	side.params.control = control[1];
	join(rig);
	assert_int_equal(side.why, WIRE_NO_POLICY_RTT);
	assert_true(broker_silent(&side.broker));
	close(control[0]);
	close(control[1]);
	expect_streams(rig, WIRE_NO_POLICY_RTT);
}

static void started_without_memory(void *arg)
{
	struct rig *rig = arg;
	uint64_t began = clock_ms();

	rig->closed = side.decided = 0;
	rig_reconnect(rig);
	put_and_wait(rig, 1, 100);
	if (pair_new(&rig->params, &rig->pair)) {
		fd_close(&rig->leg[0]);
		fd_close(&rig->leg[1]);
		rig->pair = NULL;
		return;
	}
	if (rig->pair)
		pair_reset(rig->pair);
	while (!rig->closed && clock_ms() - began < WAIT_MS)
		loop_tick(rig->loop, 1);
	assert_int_equal(rig->closed, 1);
	if (!broker_silent(&side.broker)) {
		expect_join();
		answer(WIRE_NO_ROOM);
	}
}

static void survives_a_lack_of_memory(void **state)
{
	failalloc_sweep(started_without_memory, *state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(is_joined_when_both_sides_are_quiet),
		TEST(carries_early_and_pipelined_bytes_through),
		TEST(asks_again_with_what_came_meanwhile),
		TEST(gives_up_on_two_that_never_get_quiet),
		TEST(goes_on_by_streams_when_refused),
		TEST(does_not_ask_without_a_broker),
		TEST(does_not_carry_a_flood_through),
		TEST(sends_first_what_the_window_does_not_hold),
		TEST(goes_on_by_streams_behind_what_was_sent_first),
		TEST(does_not_ask_when_the_peer_takes_no_more),
		TEST(a_peer_that_has_ended_its_stream_stays_off),
		TEST(a_client_that_has_ended_its_stream_stays_off),
		TEST(a_reset_peer_resets_the_client_after_its_bytes),
		TEST(a_broker_that_dies_while_asked_ends_the_pair),
		TEST(a_broker_that_dies_while_latched_ends_the_pair),
		TEST(an_active_pair_survives_its_broker),
		TEST(a_kick_while_asked_undoes_the_join),
		TEST(a_kick_resets_what_is_joined),
		TEST(somebody_elses_reset_is_a_kick),
		TEST(finishes_when_packets_have_stopped),
		TEST(does_not_finish_a_sender_without_end),
		TEST(idles_by_the_stamps_of_the_packets),
		TEST(finishing_while_asked_ends_either_way),
		TEST(finishing_while_asked_ends_once_joined),
		TEST(is_destroyed_at_every_stage),
		TEST(policy_decides_before_the_broker_is_asked),
		TEST(survives_a_lack_of_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
