/* SPDX-License-Identifier: BSD-2-Clause */
/* The broker: checks and offsets of a join, sessions and places over a made-up kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/message.h"
#include "broker/broker.h"
#include "unit/broker_fake.h"
#include "unit/failalloc.h"
#include "unit/open_files.h"
#include "unit/packets.h"

#define CAPACITY 4
#define SECOND   1000000000ull

/* The pure part. */

static void usual(struct wire_snapshot legs[WIRE_LEGS])
{
	legs[WIRE_CLIENT] = fake_snapshot_usual(1);
	legs[WIRE_PEER] = fake_snapshot_usual(2);
}

static void a_usual_pair_may_be_joined(void **state)
{
	struct wire_snapshot legs[WIRE_LEGS];

	(void)state;
	usual(legs);
	assert_int_equal(check_pair(legs, AF_INET, 0, 0), WIRE_OK);
	assert_true(check_quiet(legs, legs));
}

static void expect(const struct wire_snapshot legs[WIRE_LEGS],
		   enum wire_reason reason)
{
	struct wire_snapshot swapped[WIRE_LEGS] = { legs[1], legs[0] };

	assert_int_equal(check_pair(legs, AF_INET, 0, 0), reason);
	assert_int_equal(check_pair(swapped, AF_INET, 0, 0), reason);
}

static void each_rule_has_its_reason(void **state)
{
	struct wire_snapshot legs[WIRE_LEGS];

	(void)state;
#define WITH(change, reason)          \
	do {                          \
		usual(legs);          \
		change;               \
		expect(legs, reason); \
	} while (0)
	WITH(legs[0].found = 0, WIRE_NO_STATE);
	WITH(legs[0].state = TCP_CLOSE_WAIT, WIRE_NO_STATE);
	WITH(legs[0].state = TCP_SYN_SENT, WIRE_NO_STATE);
	WITH(legs[0].timestamps = 0, WIRE_NO_TIMESTAMPS);
	WITH(legs[0].sack = 0, WIRE_NO_SACK);
	WITH(legs[0].rcv_wscale = 11, WIRE_NO_SCALE);
	WITH(legs[0].snd_wscale = 15, WIRE_NO_SCALE);
	WITH(legs[0].ecn = 1, WIRE_NO_ECN);
	WITH(legs[0].md5 = 1, WIRE_NO_MD5);
	WITH(legs[0].mss_clamp = 1459, WIRE_NO_MSS);
	WITH(legs[0].advmss = 1461, WIRE_NO_MSS);
	WITH(legs[0].pmtu = 1499, WIRE_NO_MSS);
	WITH(legs[0].urgent = 1, WIRE_NO_URGENT);
	WITH(legs[0].out_of_order = 1, WIRE_AGAIN);
	WITH(legs[0].copied_seq--, WIRE_AGAIN);
	/* What is final comes before what may pass. */
	WITH((legs[0].copied_seq--, legs[1].sack = 0), WIRE_NO_SACK);
	WITH((legs[0].sack = 0, legs[1].timestamps = 0), WIRE_NO_TIMESTAMPS);
	/* Without scaling the shifts mean nothing. */
	WITH((legs[0].window_scaling = 0, legs[0].rcv_wscale = 14), WIRE_OK);
	/* 2^10 is still below a segment. */
	WITH(legs[0].rcv_wscale = 10, WIRE_OK);
	/* None of them has it. */
	WITH((legs[0].sack = 0, legs[1].sack = 0), WIRE_OK);
	WITH((legs[0].timestamps = 0, legs[1].timestamps = 0), WIRE_OK);
#undef WITH
	usual(legs);
	assert_int_equal(check_pair(legs, AF_INET6, 0, 0), WIRE_NO_MSS);
	/* What is owed to an end fits into its window. */
	assert_int_equal(check_pair(legs, AF_INET, 64256, 0), WIRE_OK);
	assert_int_equal(check_pair(legs, AF_INET, 64257, 0), WIRE_NO_EARLY);
	legs[1].write_seq += 64256;
	assert_int_equal(check_pair(legs, AF_INET, 0, 0), WIRE_OK);
	legs[1].snd_wnd = 0;
	assert_int_equal(check_pair(legs, AF_INET, 0, 0), WIRE_NO_EARLY);
}

static void what_is_left_unread_is_the_peers_and_known(void **state)
{
	struct wire_snapshot legs[WIRE_LEGS];

	(void)state;
	usual(legs);
	legs[WIRE_PEER].copied_seq = legs[WIRE_PEER].rcv_nxt - 5000;
	assert_int_equal(check_pair(legs, AF_INET, 5048, 5000), WIRE_OK);
	/* All of it has been sent to the client already. */
	assert_int_equal(check_pair(legs, AF_INET, 0, 5000), WIRE_OK);
	assert_int_equal(check_pair(legs, AF_INET, 5048, 4999), WIRE_AGAIN);
	assert_int_equal(check_pair(legs, AF_INET, 5048, 5001), WIRE_AGAIN);
	usual(legs);
	assert_int_equal(check_pair(legs, AF_INET, 0, 1), WIRE_AGAIN);
	legs[WIRE_CLIENT].copied_seq = legs[WIRE_CLIENT].rcv_nxt - 5000;
	assert_int_equal(check_pair(legs, AF_INET, 5048, 5000), WIRE_AGAIN);
}

static void what_moves_is_not_quiet(void **state)
{
	struct wire_snapshot before[WIRE_LEGS], after[WIRE_LEGS];

	(void)state;
	usual(before);
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
#define MOVED(change)                                     \
	do {                                              \
		usual(after);                             \
		after[leg].change;                        \
		assert_false(check_quiet(before, after)); \
	} while (0)
		MOVED(rcv_nxt++);
		MOVED(copied_seq++);
		MOVED(write_seq++);
		MOVED(out_of_order = 1);
		MOVED(urgent = 1);
		MOVED(state = TCP_CLOSE_WAIT);
		MOVED(socket++);
		MOVED(found = 0);
#undef MOVED
		usual(after);
		after[leg].snd_una++;
		after[leg].snd_wnd++;
		after[leg].rcv_wup++;
		assert_true(check_quiet(before, after));
	}
}

static uint32_t any32(uint32_t *state)
{
	*state = *state * 1664525 + 1013904223;
	return *state;
}

/* What leaves on one leg comes back on it as it was, wherever numbers begin. */
static void offsets_are_each_others_inverse(void **state)
{
	struct wire_snapshot legs[WIRE_LEGS];
	struct wire_pair pair = { 0 };
	const struct wire_leg *client = &pair.leg[WIRE_CLIENT];
	const struct wire_leg *peer = &pair.leg[WIRE_PEER];
	uint32_t seed = 1;

	(void)state;
	for (int i = 0; i < 10000; i++) {
		uint32_t more = any32(&seed) % 100000;
		uint32_t room = any32(&seed) % 100000;

		usual(legs);
		for (int leg = 0; leg < WIRE_LEGS; leg++) {
			legs[leg].rcv_nxt = any32(&seed);
			/* Some of the window that was offered is used up. */
			legs[leg].rcv_wup = legs[leg].rcv_nxt - 1000;
			legs[leg].rcv_wnd = 1000 + room;
			legs[leg].snd_una = any32(&seed);
			legs[leg].write_seq =
				legs[leg].snd_una + any32(&seed) % 10000;
			legs[leg].timestamp = any32(&seed);
			legs[leg].ts_recent = any32(&seed);
		}
		check_offsets(legs, more, &pair);
		assert_int_equal(client->seq_delta + peer->ack_delta, 0);
		assert_int_equal(client->ack_delta + peer->seq_delta, 0);
		assert_int_equal(client->tsval_delta + peer->tsecr_delta, 0);
		assert_int_equal(client->tsecr_delta + peer->tsval_delta, 0);
		/* The client's next byte is the next the peer expects of us. */
		assert_int_equal(legs[0].rcv_nxt + client->seq_delta,
				 legs[1].write_seq);
		/* The peer's next byte follows all we send to the client. */
		assert_int_equal(legs[1].rcv_nxt + peer->seq_delta,
				 legs[0].write_seq + more);
		assert_int_equal(client->latch, legs[0].write_seq + more);
		assert_int_equal(peer->latch, legs[1].write_seq);
		assert_int_equal(client->received, legs[0].rcv_nxt);
		assert_int_equal(client->offered, legs[0].rcv_nxt + room);
		assert_int_equal(peer->sent_end, legs[1].rcv_nxt);
		/* Never behind what we have sent so far. */
		assert_true((int32_t)(legs[0].ts_recent + client->tsval_delta -
				      legs[1].timestamp) > 0);
		assert_int_equal(client->tsval,
				 legs[0].ts_recent + client->tsval_delta);
		assert_int_equal((uint32_t)client->acked, legs[0].snd_una);
		assert_int_equal((uint32_t)pair.started[0], client->latch);
		assert_true(pair.started[0] >= client->acked);
		assert_int_equal(client->right,
				 legs[0].snd_una + legs[0].snd_wnd);
		assert_int_equal(check_latched(&pair),
				 legs[0].write_seq + more != legs[0].snd_una ||
						 legs[1].write_seq !=
							 legs[1].snd_una ?
					 WIRE_LEG_LATCHED :
					 0);
	}
}

static void a_later_look_opens_the_latch(void **state)
{
	struct wire_snapshot legs[WIRE_LEGS];
	struct wire_pair pair = { 0 };

	(void)state;
	usual(legs);
	legs[1].write_seq += 5;
	check_offsets(legs, 0, &pair);
	assert_true(check_latched(&pair));
	legs[1].snd_una += 5;
	check_refresh(legs, &pair);
	assert_false(check_latched(&pair));
	assert_true(pair.leg[1].flags & WIRE_LEG_SACK);
	assert_int_equal(pair.leg[1].acked, pair.started[1]);
}

/* What our sockets have said until then bears no later stamp than what follows. */
static void stamps_are_of_the_last_look(void **state)
{
	struct wire_snapshot legs[WIRE_LEGS];
	struct wire_pair pair = { 0 };

	(void)state;
	usual(legs);
	check_offsets(legs, 0, &pair);
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		legs[leg].timestamp += 1000;
		legs[leg].ts_recent += 3;
	}
	check_refresh(legs, &pair);
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		const struct wire_leg *from = &pair.leg[leg],
				      *to = &pair.leg[!leg];

		assert_true((int32_t)(from->tsval - legs[!leg].timestamp) > 0);
		assert_int_equal(from->tsval,
				 legs[leg].ts_recent + from->tsval_delta);
		assert_int_equal(from->tsval_delta + to->tsecr_delta, 0);
	}
}

static void bytes_are_counted_without_fin(void **state)
{
	struct wire_snapshot legs[WIRE_LEGS];
	struct wire_pair pair = { 0 };
	struct wire_leg *client = &pair.leg[WIRE_CLIENT];
	struct wire_leg *peer = &pair.leg[WIRE_PEER];

	(void)state;
	usual(legs);
	check_offsets(legs, 48, &pair);
	assert_int_equal(check_bytes(&pair, WIRE_CLIENT), 0);
	client->acked += 20; /* of the relay's own */
	assert_int_equal(check_bytes(&pair, WIRE_CLIENT), 0);
	client->acked += 28 + 1000;
	assert_int_equal(check_bytes(&pair, WIRE_CLIENT), 1000);
	client->acked += 5ull << 32;
	assert_int_equal(check_bytes(&pair, WIRE_CLIENT), (5ull << 32) + 1000);
	peer->flags |= WIRE_LEG_FIN;
	peer->fin_end = (uint32_t)client->acked + 1 - peer->seq_delta;
	assert_int_equal(check_bytes(&pair, WIRE_CLIENT), (5ull << 32) + 1000);
	client->acked++;
	assert_int_equal(check_bytes(&pair, WIRE_CLIENT), (5ull << 32) + 1000);
	assert_int_equal(check_bytes(&pair, WIRE_PEER), 0);
}

static void a_reset_is_at_the_end_of_what_was_sent(void **state)
{
	struct wire_snapshot legs[WIRE_LEGS];
	struct wire_pair pair = { 0 };
	struct reset_numbers numbers;

	(void)state;
	usual(legs);
	legs[0].write_seq = legs[0].snd_una = UINT32_MAX - 10;
	check_offsets(legs, 0, &pair);
	numbers = check_reset(&pair, WIRE_CLIENT);
	assert_int_equal(numbers.seq, UINT32_MAX - 10);
	assert_int_equal(numbers.ack, legs[0].rcv_nxt);
	/* 100 bytes of the peer are under way to the client, over the wrap. */
	pair.leg[WIRE_PEER].sent_end += 100;
	numbers = check_reset(&pair, WIRE_CLIENT);
	assert_int_equal(numbers.seq, 89);
	numbers = check_reset(&pair, WIRE_PEER);
	assert_int_equal(numbers.ack, legs[1].rcv_nxt + 100);
	/* Never beyond the window. */
	pair.leg[WIRE_CLIENT].right = 50;
	numbers = check_reset(&pair, WIRE_CLIENT);
	assert_int_equal(numbers.seq, 50);
}

/* Sessions and places. */

struct rig {
	struct loop *loop;
	struct broker *broker;
	int channel; /* the worker's end */
	unsigned int sessions; /* so far, each of another worker */
	int fds[WIRE_LEGS]; /* the worker's sockets, by numbers 1 and 2 */
};

static int session_of(struct rig *rig, unsigned int worker)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX,
				    SOCK_SEQPACKET | SOCK_CLOEXEC |
					    SOCK_NONBLOCK,
				    0, pair),
			 0);
	assert_int_equal(session_new(rig->broker, worker, pair[1]), 0);
	return pair[0];
}

static int session_open(struct rig *rig)
{
	return session_of(rig, rig->sessions++);
}

/* Of the rig in use: the broker has its say at the end of a tick. */
static struct loop *broker_loop;

static void tick(struct rig *rig)
{
	for (int i = 0; i < 4; i++)
		assert_int_equal(loop_tick(rig->loop, 0), 0);
}

static void request(struct rig *rig, int channel, const void *message,
		    size_t len, const int *fds, size_t count)
{
	assert_int_equal(message_send(channel, message, len, fds, count, 0), 0);
	tick(rig);
}

/* The next message, which has to be this one. */
static void answer(int channel, uint32_t type, void *out, size_t len)
{
	struct packet_message message;

	loop_tick(broker_loop, 0);
	assert_int_equal(packet_next(channel, MSG_DONTWAIT, &message), 0);
	assert_int_equal(message.len, len);
	assert_int_equal(message.body.type, type);
	memcpy(out, &message.body, len);
	packet_message_close(&message);
}

static bool is_closed(int channel)
{
	char bytes[256];

	return !packet_waits(channel) &&
	       recv(channel, bytes, sizeof(bytes), MSG_DONTWAIT) == 0;
}

static bool is_silent(int channel)
{
	char bytes[256];

	loop_tick(broker_loop, 0);
	return !packet_waits(channel) &&
	       recv(channel, bytes, sizeof(bytes), MSG_DONTWAIT) < 0 &&
	       errno == EAGAIN;
}

static void greet(struct rig *rig, int channel, bool adopts)
{
	struct broker_hello hello = { .type = BROKER_HELLO,
				      .version = BROKER_PROTOCOL,
				      .adopts = adopts };
	struct broker_welcome welcome;

	request(rig, channel, &hello, sizeof(hello), NULL, 0);
	answer(channel, BROKER_WELCOME, &welcome, sizeof(welcome));
	assert_int_equal(welcome.capacity, CAPACITY);
	assert_int_equal(welcome.error, 0);
}

static int setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	memset(&fake, 0, sizeof(fake));
	fake.records_fd = STDERR_FILENO;
	if (!rig || loop_new(&rig->loop) ||
	    fake_broker_new(rig->loop, CAPACITY, &rig->broker))
		return -1;
	*state = rig;
	broker_loop = rig->loop;
	rig->channel = session_open(rig);
	greet(rig, rig->channel, false);
	rig->fds[0] = fake_connect(1, AF_INET);
	rig->fds[1] = fake_connect(2, AF_INET);
	return rig->fds[1] < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	fake_broker_free(rig->broker);
	loop_free(rig->loop);
	close(rig->channel);
	close(rig->fds[0]);
	close(rig->fds[1]);
	free(rig);
	return 0;
}

static struct broker_join join_usual(void)
{
	struct broker_join join = { .type = BROKER_JOIN,
				    .ticket = 42,
				    .to_client = 48,
				    .allocation = 7 };

	strcpy(join.label, "alice@test");
	return join;
}

static enum wire_reason join(struct rig *rig, struct broker_answer *out)
{
	struct broker_join message = join_usual();

	request(rig, rig->channel, &message, sizeof(message), rig->fds, 2);
	answer(rig->channel, BROKER_ANSWER, out, sizeof(*out));
	assert_int_equal(out->ticket, 42);
	return out->reason;
}

static void joined(struct rig *rig, struct broker_answer *out)
{
	assert_int_equal(join(rig, out), WIRE_OK);
	assert_int_equal(rig->broker->records[out->pair].state, WIRE_JOINED);
}

/* As BPF does when the last latch opens. */
static void unlatch(struct rig *rig, const struct broker_answer *pair)
{
	struct wire_event event = { .kind = WIRE_EVENT_UNLATCHED,
				    .pair = pair->pair,
				    .generation = pair->generation };
	struct broker_active active;

	for (int i = 0; i < WIRE_LEGS; i++)
		rig->broker->records[pair->pair].leg[i].flags &=
			~WIRE_LEG_LATCHED;
	place_event(rig->broker, &event);
	answer(rig->channel, BROKER_ACTIVE, &active, sizeof(active));
	assert_int_equal(active.pair, pair->pair);
	assert_int_equal(active.generation, pair->generation);
}

static void end(struct rig *rig, const struct broker_answer *pair,
		enum wire_end how)
{
	struct wire_event event = { .kind = WIRE_EVENT_ENDED,
				    .pair = pair->pair,
				    .generation = pair->generation };
	struct wire_pair *record = &rig->broker->records[pair->pair];

	record->state = WIRE_ENDED;
	record->end = how;
	place_event(rig->broker, &event);
}

static void a_pair_lives_and_ends(void **state)
{
	struct rig *rig = *state;
	struct broker_answer pair;
	struct broker_ended ended;
	struct wire_pair *record;

	joined(rig, &pair);
	record = &rig->broker->records[pair.pair];
	assert_string_equal(record->label, "alice@test");
	assert_int_equal(record->allocation, 7);
	assert_int_equal(record->leg[0].remote_port, htons(1001));
	assert_int_equal(fake_flow_count(), 2);
	assert_int_equal(rig->broker->counts[PLACE_LATCHED], 1);
	unlatch(rig, &pair);
	assert_true(fake_by_fd(rig->fds[0])->silent);
	assert_true(fake_by_fd(rig->fds[1])->silent);
	assert_int_equal(rig->broker->counts[PLACE_LATCHED], 0);
	record->leg[WIRE_CLIENT].acked += 48 + 10;
	record->leg[WIRE_PEER].acked += 20;
	end(rig, &pair, WIRE_END_FIN);
	answer(rig->channel, BROKER_ENDED, &ended, sizeof(ended));
	assert_int_equal(ended.end, WIRE_END_FIN);
	assert_int_equal(ended.bytes[WIRE_CLIENT], 10);
	assert_int_equal(ended.bytes[WIRE_PEER], 20);
	/* It lingers, then it is gone. */
	places_sweep(rig->broker);
	assert_int_equal(fake_flow_count(), 2);
	rig->broker->places[pair.pair].due_ns = clock_ns();
	places_sweep(rig->broker);
	assert_int_equal(fake_flow_count(), 0);
	assert_int_equal(record->state, WIRE_FREE);
	assert_int_equal(fake.resets, 0);
}

static void move_client(unsigned int snapshots)
{
	if (snapshots == 1)
		fake.sockets[0].snapshot.rcv_nxt++;
}

static void one_that_moves_meanwhile_is_left_alone(void **state)
{
	struct rig *rig = *state;
	struct broker_answer pair;

	fake.between = move_client;
	assert_int_equal(join(rig, &pair), WIRE_AGAIN);
	assert_int_equal(fake_flow_count(), 0);
	for (int i = 0; i < CAPACITY; i++)
		assert_int_equal(rig->broker->records[i].state, WIRE_FREE);
	assert_false(fake.sockets[0].silent);
	/* The worker has read the byte. */
	fake.sockets[0].snapshot.copied_seq++;
	fake.snapshots = 2;
	joined(rig, &pair);
}

static void acknowledge_client(unsigned int snapshots)
{
	if (snapshots == 1)
		fake.sockets[1].snapshot.snd_una =
			fake.sockets[1].snapshot.write_seq;
}

static void an_acknowledgement_meanwhile_is_taken_over(void **state)
{
	struct rig *rig = *state;
	struct broker_answer pair;

	fake.sockets[1].snapshot.snd_una -= 30;
	fake.between = acknowledge_client;
	joined(rig, &pair);
	assert_false(rig->broker->records[pair.pair].leg[WIRE_PEER].flags &
		     WIRE_LEG_LATCHED);
	assert_int_equal(fake.acknowledged, 0);
}

/* `late`: the leg whose socket has not acknowledged all that it has taken. */
static unsigned int acknowledged(struct rig *rig, int late, uint32_t to_client)
{
	struct wire_snapshot *s = &fake.sockets[late].snapshot;
	struct broker_join message = join_usual();
	struct broker_answer pair;
	struct packet_message told;

	fake.acknowledged = 0;
	message.to_client = to_client;
	s->rcv_wup -= 5;
	request(rig, rig->channel, &message, sizeof(message), rig->fds, 2);
	answer(rig->channel, BROKER_ANSWER, &pair, sizeof(pair));
	assert_int_equal(pair.reason, WIRE_OK);
	s->rcv_wup += 5;
	place_reset(rig->broker, pair.pair, WIRE_END_RESET);
	tick(rig);
	while (!packet_next(rig->channel, MSG_DONTWAIT, &told))
		;
	return fake.acknowledged;
}

static void what_the_sockets_have_taken_is_acknowledged(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(acknowledged(rig, WIRE_PEER, 48), 1);
	assert_int_equal(acknowledged(rig, WIRE_CLIENT, 0), 1);
	/* The answer to the bind does it. */
	assert_int_equal(acknowledged(rig, WIRE_CLIENT, 48), 0);
}

static void an_acknowledgement_bpf_never_saw_opens_the_latch(void **state)
{
	struct rig *rig = *state;
	const struct wire_pair *record;
	struct broker_answer pair;
	struct broker_active active;

	joined(rig, &pair);
	for (int i = 0; i < 12; i++)
		places_sweep(rig->broker);
	assert_true(is_silent(rig->channel));
	fake.sockets[0].snapshot.write_seq += 48;
	fake.sockets[0].snapshot.snd_una += 48;
	for (int i = 0; i < 12; i++)
		places_sweep(rig->broker);
	answer(rig->channel, BROKER_ACTIVE, &active, sizeof(active));
	/* By its number the programs tell a keep-alive from other ACKs. */
	record = &rig->broker->records[pair.pair];
	assert_int_equal(record->leg[0].acked, record->started[0]);
	assert_int_equal(check_bytes(record, WIRE_CLIENT), 0);
}

static void refusals_leave_nothing(void **state)
{
	struct rig *rig = *state;
	struct broker_answer pair;

	fake.sockets[1].unconnected = true;
	assert_int_equal(join(rig, &pair), WIRE_NO_STATE);
	fake.sockets[1].unconnected = false;
	fake.sockets[1].key.family = AF_INET6;
	assert_int_equal(join(rig, &pair), WIRE_NO_FAMILY);
	fake.sockets[1].key.family = AF_INET;
	fake.sockets[1].snapshot.ecn = 1;
	assert_int_equal(join(rig, &pair), WIRE_NO_ECN);
	fake.sockets[1].snapshot.ecn = 0;
	fake.sockets[0].key.remote[0] = 127;
	assert_int_equal(join(rig, &pair), WIRE_NO_LOCAL);
	fake.sockets[0].key.remote[0] = 10;
	fake.insert_error = -E2BIG;
	assert_int_equal(join(rig, &pair), WIRE_NO_ROOM);
	fake.insert_error = -EPERM;
	assert_int_equal(join(rig, &pair), WIRE_NO_ERROR);
	fake.insert_error = 0;
	rig->broker->latched_max = 0;
	assert_int_equal(join(rig, &pair), WIRE_NO_ROOM);
	rig->broker->latched_max = CAPACITY;
	assert_int_equal(fake_flow_count(), 0);
	assert_int_equal(rig->broker->counts[PLACE_LATCHED], 0);
	joined(rig, &pair);
}

/* `*way` of socket `i` is `value` for once. */
static void refuse_way(struct rig *rig, uint32_t *way, uint32_t value,
		       enum wire_reason reason)
{
	struct broker_answer pair;
	uint32_t usual = *way;

	*way = value;
	assert_int_equal(join(rig, &pair), reason);
	*way = usual;
}

static void another_way_than_that_of_the_programs_is_refused(void **state)
{
	struct rig *rig = *state;
	struct broker_answer pair;

	for (int i = 0; i < WIRE_LEGS; i++) {
		struct wire_snapshot *s = &fake.sockets[i].snapshot;

		refuse_way(rig, &s->device, 0, WIRE_NO_DEVICE);
		refuse_way(rig, &s->device, FAKE_DEVICE + 1, WIRE_NO_DEVICE);
		refuse_way(rig, &s->arrival, FAKE_DEVICE + 1, WIRE_NO_DEVICE);
		refuse_way(rig, &s->arrival, 1, WIRE_NO_LOCAL);
		refuse_way(rig, &s->departure, 1, WIRE_NO_LOCAL);
		refuse_way(rig, &s->bound, FAKE_DEVICE, WIRE_NO_DEVICE);
		refuse_way(rig, &s->mark, 3, WIRE_NO_DEVICE);
		refuse_way(rig, &s->ipsec, 1, WIRE_NO_DEVICE);
		/* It is said at once, though another try would be due, too. */
		s->out_of_order = 1;
		refuse_way(rig, &s->device, 0, WIRE_NO_DEVICE);
		s->out_of_order = 0;
		fake.sockets[i].translated = true;
		assert_int_equal(join(rig, &pair), WIRE_NO_LOCAL);
		fake.sockets[i].translated = false;
	}
	assert_int_equal(fake_flow_count(), 0);
	/* Where it has not been seen it is not held against it. */
	fake.sockets[0].snapshot.arrival = 0;
	joined(rig, &pair);
}

static void close_client(unsigned int snapshots)
{
	if (snapshots == 1)
		fake.sockets[0].snapshot.found = 0;
}

static void replace_client(unsigned int snapshots)
{
	if (snapshots == 1)
		fake.sockets[0].snapshot.socket++;
}

static void one_that_is_gone_at_the_second_look_is_refused(void **state)
{
	void (*const each[])(unsigned int) = { close_client, replace_client };
	struct rig *rig = *state;
	struct broker_answer pair;

	for (int i = 0; i < 2; i++) {
		fake.snapshots = 0;
		fake.between = each[i];
		assert_int_equal(join(rig, &pair), WIRE_NO_STATE);
		assert_int_equal(fake_flow_count(), 0);
		fake.between = NULL;
		fake.sockets[0].snapshot.found = 1;
	}
}

/*
 * What is not proven by a look is asked: a descriptor of another kind or network
 * namespace, whatever its addresses, is nothing an honest relay has.
 */
static void what_no_relay_may_hand_over_is_a_breach(void **state)
{
	struct rig *rig = *state;

	for (int i = 0; i < 2; i++) {
		struct broker_join message = join_usual();
		int channel = session_open(rig);

		greet(rig, channel, false);
		fake.sockets[1].foreign = true;
		fake.sockets[1].unconnected = i == 1;
		/* Its addresses lead to another socket, or to none. */
		fake.sockets[1].snapshot.found = 0;
		request(rig, channel, &message, sizeof(message), rig->fds, 2);
		assert_true(is_closed(channel));
		close(channel);
	}
	assert_int_equal(fake_flow_count(), 0);
}

static void one_socket_twice_is_a_breach(void **state)
{
	const int fds[] = { ((struct rig *)*state)->fds[0],
			    ((struct rig *)*state)->fds[0] };
	struct broker_join message = join_usual();
	struct rig *rig = *state;

	request(rig, rig->channel, &message, sizeof(message), fds, 2);
	assert_true(is_closed(rig->channel));
}

static void the_same_sockets_join_once(void **state)
{
	struct rig *rig = *state;
	struct broker_answer first, second;

	joined(rig, &first);
	assert_int_equal(join(rig, &second), WIRE_NO_STATE);
	assert_int_equal(fake_flow_count(), 2);
	/* Ended, the ends belong to a new connection. */
	unlatch(rig, &first);
	end(rig, &first, WIRE_END_RESET_PEER);
	struct broker_ended ended;

	answer(rig->channel, BROKER_ENDED, &ended, sizeof(ended));
	joined(rig, &second);
	assert_int_equal(fake_flow_count(), 2);
	assert_true(second.pair != first.pair ||
		    second.generation != first.generation);
}

static void a_reset_hits_both_ends(void **state)
{
	struct rig *rig = *state;
	struct broker_reset reset = { .type = BROKER_RESET };
	struct broker_answer pair;
	struct broker_ended ended;

	joined(rig, &pair);
	unlatch(rig, &pair);
	reset.pair = pair.pair;
	reset.generation = pair.generation + 1;
	request(rig, rig->channel, &reset, sizeof(reset), NULL, 0);
	reset.pair = UINT32_MAX;
	request(rig, rig->channel, &reset, sizeof(reset), NULL, 0);
	assert_int_equal(fake.resets, 0);
	reset.pair = pair.pair;
	reset.generation = pair.generation;
	request(rig, rig->channel, &reset, sizeof(reset), NULL, 0);
	answer(rig->channel, BROKER_ENDED, &ended, sizeof(ended));
	assert_int_equal(ended.end, WIRE_END_RESET);
	assert_int_equal(fake.resets, 2);
	assert_int_equal(fake.reset_key[0].remote_port, htons(1001));
	assert_int_equal(fake.reset_numbers[0].seq, 77 + 48);
	assert_int_equal(fake.reset_numbers[0].ack, 10000);
	assert_int_equal(fake.reset_numbers[1].seq, 2 * 77);
	assert_int_equal(fake_flow_count(), 0);
	/* Once. */
	request(rig, rig->channel, &reset, sizeof(reset), NULL, 0);
	assert_true(is_silent(rig->channel));
}

static void a_reset_waits_for_the_last_user(void **state)
{
	struct rig *rig = *state;
	struct broker_answer pair;
	struct broker_ended ended;

	joined(rig, &pair);
	unlatch(rig, &pair);
	fake.reset_error = -EADDRNOTAVAIL;
	place_reset(rig->broker, pair.pair, WIRE_END_RESET);
	answer(rig->channel, BROKER_ENDED, &ended, sizeof(ended));
	assert_int_equal(rig->broker->late_count, 2);
	fake.reset_error = 0;
	fake.resets = 0;
	while (rig->broker->late_count)
		loop_tick(rig->loop, -1);
	assert_int_equal(fake.resets, 2);
}

static void expiry_is_by_allocation(void **state)
{
	struct rig *rig = *state;
	struct broker_expire expire = { .type = BROKER_EXPIRE,
					.allocation = 8,
					.expires_ns = clock_ns() };
	struct broker_answer pair;
	struct broker_ended ended;

	joined(rig, &pair);
	unlatch(rig, &pair);
	request(rig, rig->channel, &expire, sizeof(expire), NULL, 0);
	for (int i = 0; i < 12; i++)
		places_sweep(rig->broker);
	assert_true(is_silent(rig->channel));
	expire.allocation = 7;
	request(rig, rig->channel, &expire, sizeof(expire), NULL, 0);
	for (int i = 0; i < 12; i++)
		places_sweep(rig->broker);
	answer(rig->channel, BROKER_ENDED, &ended, sizeof(ended));
	assert_int_equal(ended.end, WIRE_END_EXPIRED);
}

/* In whatever order they end, the rest are found by their allocation. */
static void expiry_finds_all_pairs_of_an_allocation(void **state)
{
	static const unsigned int orders[][3] = {
		{ 0, 1, 2 }, { 2, 1, 0 }, { 1, 0, 2 }, { 1, 2, 0 }
	};
	struct rig *rig = *state;
	struct broker_expire expire = { .type = BROKER_EXPIRE };

	for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		struct wire_pair *records = rig->broker->records;
		int fds[WIRE_LEGS] = { -1, -1 };
		int64_t at[3];

		for (size_t k = 0; k < 3; k++) {
			struct session *session =
				list_entry(rig->broker->sessions.next,
					   struct session, link);

			while ((at[k] = place_take(rig->broker)) < 0)
				tick(rig);
			records[at[k]].allocation = 40 + i;
			place_latch(rig->broker, (uint32_t)at[k], session, fds);
		}
		expire.allocation = 40 + i;
		for (size_t k = 0; k < 3; k++) {
			expire.expires_ns = UINT64_MAX - k;
			request(rig, rig->channel, &expire, sizeof(expire),
				NULL, 0);
			for (size_t m = k; m < 3; m++)
				assert_int_equal(
					records[at[orders[i][m]]].expires_ns,
					expire.expires_ns);
			place_release(rig->broker, (uint32_t)at[orders[i][k]]);
		}
		assert_int_equal(rig->broker->allocations.count, 0);
	}
}

/* In how many ms the next sweep is, `swept` now or not. */
static uint64_t sweep_in(struct rig *rig, bool swept)
{
	struct timer *sweep = &rig->broker->sweep;

	assert_true(sweep->armed);
	if (swept)
		sweep->fn(sweep);
	return sweep->due_ms - loop_now(rig->loop);
}

static void what_only_carries_is_swept_seldom(void **state)
{
	struct rig *rig = *state;
	struct broker_expire expire = { .type = BROKER_EXPIRE,
					.allocation = 7 };
	struct broker_answer pair;

	joined(rig, &pair);
	assert_in_range(sweep_in(rig, true), 1, 1000);
	unlatch(rig, &pair);
	assert_in_range(sweep_in(rig, false), 1, 1000);
	rig->broker->records[pair.pair].expires_ns = 0;
	assert_in_range(sweep_in(rig, true), 9000, 10001);
	/* A new time: looked at soon, then when it has come. */
	expire.expires_ns = clock_ns() + 5000000000;
	request(rig, rig->channel, &expire, sizeof(expire), NULL, 0);
	assert_in_range(sweep_in(rig, false), 1, 1000);
	assert_in_range(sweep_in(rig, true), 4000, 5001);
	end(rig, &pair, WIRE_END_FIN);
	assert_in_range(sweep_in(rig, false), 1, 1000);
	assert_in_range(sweep_in(rig, true), 1, 1000);
}

static void a_latch_that_never_opens_is_reset(void **state)
{
	struct rig *rig = *state;
	struct broker_answer pair;
	struct broker_ended ended;

	joined(rig, &pair);
	rig->broker->places[pair.pair].due_ns = clock_ns();
	for (int i = 0; i < 12; i++)
		places_sweep(rig->broker);
	answer(rig->channel, BROKER_ENDED, &ended, sizeof(ended));
	assert_int_equal(ended.end, WIRE_END_LATCH);
	assert_int_equal(rig->broker->places[pair.pair].fds[0], -1);
}

static void lost_events_are_found(void **state)
{
	struct rig *rig = *state;
	struct broker_answer pair;
	struct broker_active active;
	struct broker_ended ended;
	struct wire_pair *record;

	joined(rig, &pair);
	record = &rig->broker->records[pair.pair];
	record->leg[0].flags &= ~WIRE_LEG_LATCHED;
	for (int i = 0; i < 12; i++)
		places_sweep(rig->broker);
	answer(rig->channel, BROKER_ACTIVE, &active, sizeof(active));
	record->state = WIRE_ENDED;
	record->end = WIRE_END_FIN;
	for (int i = 0; i < 12; i++)
		places_sweep(rig->broker);
	answer(rig->channel, BROKER_ENDED, &ended, sizeof(ended));
}

static void one_that_has_ended_is_not_called_active(void **state)
{
	struct rig *rig = *state;
	struct wire_event event = { .kind = WIRE_EVENT_UNLATCHED };
	struct broker_answer pair;
	struct broker_ended ended;
	struct wire_pair *record;

	joined(rig, &pair);
	record = &rig->broker->records[pair.pair];
	for (int i = 0; i < WIRE_LEGS; i++)
		record->leg[i].flags &= ~WIRE_LEG_LATCHED;
	record->state = WIRE_ENDED;
	record->end = WIRE_END_FIN;
	event.pair = pair.pair;
	event.generation = pair.generation;
	place_event(rig->broker, &event);
	answer(rig->channel, BROKER_ENDED, &ended, sizeof(ended));
	assert_int_equal(ended.end, WIRE_END_FIN);
	assert_true(fake.sockets[0].silent && fake.sockets[1].silent);
	event.kind = WIRE_EVENT_ENDED;
	place_event(rig->broker, &event);
	assert_true(is_silent(rig->channel));
	assert_int_equal(fake.resets, 0);
}

static void an_end_is_told_when_its_kind_is_known(void **state)
{
	struct rig *rig = *state;
	struct broker_answer pair;
	struct broker_ended ended;

	joined(rig, &pair);
	unlatch(rig, &pair);
	/* BPF, on another CPU, is between the two. */
	end(rig, &pair, WIRE_END_NONE);
	for (int i = 0; i < 12; i++)
		places_sweep(rig->broker);
	assert_true(is_silent(rig->channel));
	end(rig, &pair, WIRE_END_FIN);
	answer(rig->channel, BROKER_ENDED, &ended, sizeof(ended));
	assert_int_equal(ended.end, WIRE_END_FIN);
}

static void a_closed_channel_leaves_orphans(void **state)
{
	struct rig *rig = *state;
	struct broker_answer active, latched;
	struct broker_ended ended;
	int more[WIRE_LEGS] = { fake_connect(3, AF_INET),
				fake_connect(4, AF_INET) };
	struct broker_join message = join_usual();
	int channel;

	joined(rig, &active);
	unlatch(rig, &active);
	request(rig, rig->channel, &message, sizeof(message), more, 2);
	answer(rig->channel, BROKER_ANSWER, &latched, sizeof(latched));
	assert_int_equal(latched.reason, WIRE_OK);
	close(rig->channel);
	tick(rig);
	/* The latched one is reset, the other goes on. */
	assert_int_equal(fake.resets, 2);
	assert_int_equal(fake_flow_count(), 2);
	assert_int_equal(rig->broker->records[active.pair].state, WIRE_JOINED);
	rig->channel = session_open(rig);
	greet(rig, rig->channel, false);
	channel = session_open(rig);
	greet(rig, channel, true);
	end(rig, &active, WIRE_END_FIN);
	assert_true(is_silent(rig->channel));
	answer(channel, BROKER_ENDED, &ended, sizeof(ended));
	assert_int_equal(ended.pair, active.pair);
	close(channel);
	close(more[0]);
	close(more[1]);
	tick(rig);
}

static void a_pair_can_be_claimed(void **state)
{
	struct rig *rig = *state;
	struct broker_claim claim = { .type = BROKER_CLAIM };
	struct broker_answer pair;
	struct broker_active active;
	struct broker_ended ended;
	int channel;

	joined(rig, &pair);
	unlatch(rig, &pair);
	channel = session_open(rig);
	greet(rig, channel, false);
	claim.pair = pair.pair;
	claim.generation = pair.generation;
	request(rig, channel, &claim, sizeof(claim), NULL, 0);
	answer(channel, BROKER_ACTIVE, &active, sizeof(active));
	claim.generation--;
	request(rig, channel, &claim, sizeof(claim), NULL, 0);
	answer(channel, BROKER_ENDED, &ended, sizeof(ended));
	assert_int_equal(ended.end, WIRE_END_ORPHAN);
	end(rig, &pair, WIRE_END_FIN);
	answer(channel, BROKER_ENDED, &ended, sizeof(ended));
	assert_true(is_silent(rig->channel));
	close(channel);
	tick(rig);
}

/* Whatever the relay asks for, and the pairs go over to the new one. */
static void a_worker_has_one_channel(void **state)
{
	struct rig *rig = *state;
	struct broker_claim claim = { .type = BROKER_CLAIM };
	struct broker_answer pair;
	struct broker_active active;
	struct broker_ended ended;
	int before = rig->channel;

	joined(rig, &pair);
	unlatch(rig, &pair);
	rig->channel = session_of(rig, 0);
	tick(rig);
	assert_true(is_closed(before));
	greet(rig, rig->channel, false);
	claim.pair = pair.pair;
	claim.generation = pair.generation;
	request(rig, rig->channel, &claim, sizeof(claim), NULL, 0);
	answer(rig->channel, BROKER_ACTIVE, &active, sizeof(active));
	end(rig, &pair, WIRE_END_FIN);
	answer(rig->channel, BROKER_ENDED, &ended, sizeof(ended));
	assert_int_equal(ended.end, WIRE_END_FIN);
	close(before);
}

/* It leaves a pair, where the one that would adopt it is freed already. */
static void the_end_outlives_a_worker_that_has_gone(void **state)
{
	struct rig *rig = *state;
	struct broker_answer pair;
	int adopter = session_open(rig);

	greet(rig, adopter, true);
	close(rig->channel);
	tick(rig);
	rig->channel = session_open(rig);
	greet(rig, rig->channel, false);
	joined(rig, &pair);
	unlatch(rig, &pair);
	/* Something waits to be said, and there is a pair to be left. */
	session_active(list_entry(rig->broker->sessions.prev, struct session,
				  link),
		       pair.pair, pair.generation);
	close(rig->channel);
	rig->channel = adopter;
}

/* Who is gone before it is greeted adopts nothing. */
static void without_memory_for_welcome_orphans_wait(void **state)
{
	const struct broker_hello hello = { .type = BROKER_HELLO,
					    .version = BROKER_PROTOCOL,
					    .adopts = 1 };
	struct rig *rig = *state;
	struct broker_answer pair;
	int channel;

	joined(rig, &pair);
	unlatch(rig, &pair);
	close(rig->channel);
	tick(rig);
	channel = session_open(rig);
	failalloc_arm(1);
	request(rig, channel, &hello, sizeof(hello), NULL, 0);
	assert_true(failalloc_hit());
	failalloc_disarm();
	assert_true(is_closed(channel));
	assert_false(list_empty(&rig->broker->orphans));
	close(channel);
	rig->channel = session_open(rig);
	greet(rig, rig->channel, true);
	assert_true(list_empty(&rig->broker->orphans));
}

static void places_run_out_and_are_reclaimed(void **state)
{
	struct rig *rig = *state;
	struct broker_answer pairs[CAPACITY + 1];
	struct broker_ended ended;
	struct broker_join message = join_usual();
	int fds[2 * (CAPACITY + 1)];

	for (uint32_t i = 0; i <= CAPACITY; i++) {
		fds[2 * i] = fake_connect(10 + 2 * i, AF_INET);
		fds[2 * i + 1] = fake_connect(11 + 2 * i, AF_INET);
		request(rig, rig->channel, &message, sizeof(message),
			&fds[2 * i], 2);
		answer(rig->channel, BROKER_ANSWER, &pairs[i],
		       sizeof(pairs[i]));
		if (i == CAPACITY)
			break;
		assert_int_equal(pairs[i].reason, WIRE_OK);
		unlatch(rig, &pairs[i]);
	}
	assert_int_equal(pairs[CAPACITY].reason, WIRE_NO_ROOM);
	end(rig, &pairs[1], WIRE_END_FIN);
	answer(rig->channel, BROKER_ENDED, &ended, sizeof(ended));
	request(rig, rig->channel, &message, sizeof(message),
		&fds[2 * CAPACITY], 2);
	answer(rig->channel, BROKER_ANSWER, &pairs[CAPACITY], sizeof(pairs[0]));
	/* It has made room, which rests a moment. */
	assert_int_equal(pairs[CAPACITY].reason, WIRE_NO_ROOM);
	assert_int_equal(fake_flow_count(), 2 * (CAPACITY - 1));
	rig->broker->places[pairs[1].pair].due_ns = clock_ns();
	request(rig, rig->channel, &message, sizeof(message),
		&fds[2 * CAPACITY], 2);
	answer(rig->channel, BROKER_ANSWER, &pairs[CAPACITY], sizeof(pairs[0]));
	assert_int_equal(pairs[CAPACITY].reason, WIRE_OK);
	assert_int_equal(pairs[CAPACITY].pair, pairs[1].pair);
	assert_int_equal(pairs[CAPACITY].generation, pairs[1].generation + 1);
	/* An event of the one before is not this one's. */
	place_event(rig->broker,
		    &(struct wire_event){ .kind = WIRE_EVENT_UNLATCHED,
					  .pair = pairs[1].pair,
					  .generation = pairs[1].generation });
	assert_true(is_silent(rig->channel));
	for (size_t i = 0; i < 2 * (CAPACITY + 1); i++)
		close(fds[i]);
}

static void what_is_pinned_is_adopted(void **state)
{
	struct rig *rig = *state;
	struct broker *broker = rig->broker;
	struct wire_pair *r = broker->records;
	struct wire_key key;

	for (uint32_t i = 0; i < 4; i++) {
		r[i].family = AF_INET;
		r[i].generation = 5;
		r[i].state = WIRE_JOINED;
		r[i].unlatched = 2;
		for (int leg = 0; leg < WIRE_LEGS; leg++) {
			r[i].leg[leg].remote_port = (__be16)(2 * i + leg + 1);
			check_key(&r[i], leg, &key);
			assert_int_equal(
				fake_flow_insert(&key, i, (uint32_t)leg), 0);
		}
	}
	r[1].state = WIRE_JOINING;
	r[2].leg[0].flags = WIRE_LEG_LATCHED;
	r[3].state = WIRE_ENDED;
	r[3].end = WIRE_END_FIN;
	/* One that nobody knows, one beyond the table. */
	memset(&key, 1, sizeof(key));
	fake_flow_insert(&key, 0, 0);
	memset(&key, 2, sizeof(key));
	fake_flow_insert(&key, CAPACITY, 0);
	places_adopt(broker);
	assert_int_equal(fake_flow_count(), 4);
	assert_int_equal(broker->places[0].state, PLACE_ACTIVE);
	assert_int_equal(broker->places[1].state, PLACE_FREE);
	assert_int_equal(broker->places[2].state, PLACE_FREE);
	assert_int_equal(broker->places[3].state, PLACE_LINGER);
	assert_int_equal(fake.resets, 2);
	assert_int_equal(r[1].state, WIRE_FREE);
	assert_int_equal(r[2].state, WIRE_FREE);
}

/* Nobody was told of it: a relay that lost its broker has given it up. */
static void a_pair_nobody_was_told_of_is_not_adopted(void **state)
{
	struct rig *rig = *state;
	struct wire_pair *record = rig->broker->records;

	record->family = AF_INET;
	record->state = WIRE_JOINED;
	record->unlatched = 1;
	places_adopt(rig->broker);
	assert_int_equal(rig->broker->places[0].state, PLACE_FREE);
	assert_int_equal(record->state, WIRE_FREE);
	assert_int_equal(fake.resets, 2);
}

static void an_end_while_latched_is_told_by_resets(void **state)
{
	struct rig *rig = *state;
	struct broker_answer pair;
	struct broker_ended ended;

	joined(rig, &pair);
	end(rig, &pair, WIRE_END_RESET_PEER);
	answer(rig->channel, BROKER_ENDED, &ended, sizeof(ended));
	assert_int_equal(ended.end, WIRE_END_RESET_PEER);
	assert_int_equal(fake.resets, 2);
	assert_int_equal(fake_flow_count(), 0);
}

/*
 * Found at the activation, though it waits for a lock until then, or by looking where
 * that never comes.
 */
static void a_reset_that_a_socket_swallowed_is_told(void **state)
{
	struct rig *rig = *state;

	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		enum wire_end expected = leg == WIRE_CLIENT ?
						 WIRE_END_RESET_CLIENT :
						 WIRE_END_RESET_PEER;

		for (int looked = 0; looked < 2; looked++) {
			struct wire_event event = {
				.kind = WIRE_EVENT_UNLATCHED
			};
			struct broker_answer pair;
			struct broker_ended ended;

			joined(rig, &pair);
			event.pair = pair.pair;
			event.generation = pair.generation;
			fake.resets = 0;
			fake.sockets[leg].closed = looked;
			fake.sockets[leg].closing = true;
			for (int i = 0; looked && i < 12; i++)
				places_sweep(rig->broker);
			if (!looked)
				place_event(rig->broker, &event);
			answer(rig->channel, BROKER_ENDED, &ended,
			       sizeof(ended));
			assert_int_equal(ended.end, expected);
			assert_true(is_silent(rig->channel));
			assert_int_equal(fake.resets, 2);
			assert_int_equal(fake_flow_count(), 0);
			fake.sockets[leg].closed = false;
			fake.sockets[leg].closing = false;
		}
	}
}

static void a_breach_closes_the_channel(void **state)
{
	struct rig *rig = *state;
	struct broker_hello hello = { .type = BROKER_HELLO,
				      .version = BROKER_PROTOCOL };
	struct broker_join message = join_usual();
	struct broker_reset reset = { .type = BROKER_RESET };
	struct broker_sockmap sockmap = { .type = BROKER_SOCKMAP,
					  .version = BROKER_PROTOCOL };
	struct broker_sockmap_maps maps;
	int unix_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int null_fd = STDERR_FILENO;
	int same[2] = { rig->fds[0], rig->fds[0] };
	int wrong[2] = { rig->fds[0], unix_fd };
	int three[3] = { rig->fds[0], rig->fds[1], null_fd };
	uint32_t type = 77;
	char bytes[200] = { 0 };

#define BREACH(first, message_, len, fds_, count)                  \
	do {                                                       \
		int channel = session_open(rig);                   \
		if (first)                                         \
			greet(rig, channel, false);                \
		request(rig, channel, message_, len, fds_, count); \
		assert_true(is_closed(channel));                   \
		close(channel);                                    \
	} while (0)
	BREACH(false, &message, sizeof(message), rig->fds, 2);
	BREACH(true, &hello, sizeof(hello), NULL, 0);
	BREACH(false, &hello, sizeof(hello) - 1, NULL, 0);
	BREACH(false, &hello, 1, NULL, 0);
	BREACH(false, &hello, sizeof(hello), &null_fd, 1);
	hello.version++;
	BREACH(false, &hello, sizeof(hello), NULL, 0);
	hello.version--;
	hello.adopts = 2;
	BREACH(false, &hello, sizeof(hello), NULL, 0);
	hello.adopts = 0;
	hello.zero = 1;
	BREACH(false, &hello, sizeof(hello), NULL, 0);
	BREACH(true, &type, sizeof(type), NULL, 0);
	type = BROKER_WELCOME;
	BREACH(true, &type, sizeof(type), NULL, 0);
	BREACH(true, &message, sizeof(message), NULL, 0);
	BREACH(true, &message, sizeof(message), rig->fds, 1);
	BREACH(true, &message, sizeof(message), three, 3);
	BREACH(true, &message, sizeof(message), same, 2);
	BREACH(true, &message, sizeof(message), wrong, 2);
	memcpy(bytes, &message, sizeof(message));
	BREACH(true, bytes, sizeof(message) + 1, rig->fds, 2);
	BREACH(true, bytes, sizeof(bytes), rig->fds, 2);
	message.unread = UINT32_MAX;
	BREACH(true, &message, sizeof(message), rig->fds, 2);
	message = join_usual();
	memset(message.label, 'a', sizeof(message.label));
	BREACH(true, &message, sizeof(message), rig->fds, 2);
	message = join_usual();
	message.to_client = UINT32_MAX;
	BREACH(true, &message, sizeof(message), rig->fds, 2);
	reset.zero = 1;
	BREACH(true, &reset, sizeof(reset), NULL, 0);
	BREACH(true, &reset, sizeof(reset), &null_fd, 1);
#undef BREACH
	assert_int_equal(fake_flow_count(), 0);
	/* Others do not notice. */
	request(rig, rig->channel, &sockmap, sizeof(sockmap), NULL, 0);
	answer(rig->channel, BROKER_SOCKMAP_MAPS, &maps, sizeof(maps));
	assert_int_equal(maps.error, 0);
	request(rig, rig->channel, &sockmap, sizeof(sockmap), NULL, 0);
	assert_true(is_closed(rig->channel));
	assert_int_equal(fake.loads, 1);
	close(unix_fd);
}

/* One that has no kernel, because nothing may go on wire: asked all the same. */
static void without_wire_nothing_is_looked_for(void **state)
{
	struct rig *rig = *state, bare = { .loop = rig->loop };
	const struct broker_params params = { .loop = rig->loop };
	struct broker_hello hello = { .type = BROKER_HELLO,
				      .version = BROKER_PROTOCOL };
	struct broker_lane lane = { .type = BROKER_LANE,
				    .channel = 0x4000,
				    .client_port = 1,
				    .peer_port = 1,
				    .expires_ns = 1 };
	struct broker_join message = join_usual();
	const struct broker_reset reset = { .type = BROKER_RESET };
	const struct broker_claim claim = { .type = BROKER_CLAIM };
	struct broker_lane_answer refused;
	struct broker_welcome welcome;
	struct broker_ended ended;
	struct broker_answer pair;

	assert_int_equal(broker_new(&params, &bare.broker), 0);
	assert_int_equal(broker_error(bare.broker), -EOPNOTSUPP);
	bare.channel = session_open(&bare);
	request(&bare, bare.channel, &hello, sizeof(hello), NULL, 0);
	answer(bare.channel, BROKER_WELCOME, &welcome, sizeof(welcome));
	assert_int_equal(welcome.error, -EOPNOTSUPP);
	for (int i = 0; i < WIRE_LEGS; i++)
		bare.fds[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	request(&bare, bare.channel, &lane, sizeof(lane), bare.fds, 2);
	answer(bare.channel, BROKER_LANE_ANSWER, &refused, sizeof(refused));
	assert_int_equal(refused.reason, WIRE_NO_ROOM);
	request(&bare, bare.channel, &message, sizeof(message), bare.fds, 2);
	answer(bare.channel, BROKER_ANSWER, &pair, sizeof(pair));
	assert_int_equal(pair.reason, WIRE_NO_BROKER);
	request(&bare, bare.channel, &reset, sizeof(reset), NULL, 0);
	request(&bare, bare.channel, &claim, sizeof(claim), NULL, 0);
	answer(bare.channel, BROKER_ENDED, &ended, sizeof(ended));
	assert_true(is_silent(bare.channel));
	/* Nor is a place, where what comes after them could not be had. */
	assert_int_equal(places_new(bare.broker, CAPACITY), 0);
	places_free(bare.broker);
	assert_null(place_find(bare.broker, 0, 0));
	broker_free(bare.broker);
	close(bare.channel);
	close(bare.fds[0]);
	close(bare.fds[1]);
}

static void packet_of(struct packet *packet, const void *body, size_t len,
		      const int *fds)
{
	assert_true(packet_add(packet, body, len, fds, fds ? WIRE_LEGS : 0));
}

static void several_in_a_packet_are_taken_in_turn(void **state)
{
	struct rig *rig = *state;
	struct broker_join first = join_usual(), second = join_usual();
	struct broker_reset reset = { .type = BROKER_RESET, .pair = 99 };
	struct broker_claim claim = { .type = BROKER_CLAIM, .pair = 99 };
	struct broker_answer pair;
	struct broker_ended ended;
	struct packet packet = { .count = 0 };
	size_t before = open_files();

	first.ticket = 7;
	second.ticket = 8;
	packet_of(&packet, &first, sizeof(first), rig->fds);
	packet_of(&packet, &reset, sizeof(reset), NULL);
	packet_of(&packet, &second, sizeof(second), rig->fds);
	packet_of(&packet, &claim, sizeof(claim), NULL);
	request(rig, rig->channel, packet.bytes, packet.len, packet.fds,
		packet.fd_count);
	answer(rig->channel, BROKER_ANSWER, &pair, sizeof(pair));
	assert_int_equal(pair.ticket, 7);
	assert_int_equal(pair.reason, WIRE_OK);
	/* The same sockets once more; its copies of them are closed. */
	answer(rig->channel, BROKER_ANSWER, &pair, sizeof(pair));
	assert_int_equal(pair.ticket, 8);
	assert_int_equal(pair.reason, WIRE_NO_STATE);
	answer(rig->channel, BROKER_ENDED, &ended, sizeof(ended));
	assert_int_equal(ended.pair, 99);
	assert_int_equal(open_files(), before + WIRE_LEGS);
}

/* Nothing is done of a packet of which one message is wrong. */
static void a_packet_is_judged_whole(void **state)
{
	struct rig *rig = *state;
	struct broker_join message = join_usual();
	struct broker_expire expire = { .type = BROKER_EXPIRE };
	struct broker_reset reset = { .type = BROKER_RESET, .pair = 99 };
	char bytes[(PACKET_MESSAGES + 1) * sizeof(reset)];
	size_t before = open_files();

	for (int i = 0; i < 5; i++) {
		struct packet packet = { .count = 0 };
		int channel = session_open(rig);

		greet(rig, channel, false);
		packet_of(&packet, &message, sizeof(message), rig->fds);
		if (i == 0) /* has a packet of its own */
			packet_of(&packet, &expire, sizeof(expire), NULL);
		else if (i == 1) /* cut short */
			packet_of(&packet, &reset, sizeof(reset) - 4, NULL);
		else if (i == 2) /* of no kind */
			packet_of(&packet, "\377\377\377\377", 4, NULL);
		else if (i == 3) /* a descriptor more */
			assert_true(packet_add(&packet, &reset, sizeof(reset),
					       rig->fds, 1));
		else /* without its own */
			packet_of(&packet, &message, sizeof(message), NULL);
		request(rig, channel, packet.bytes, packet.len, packet.fds,
			packet.fd_count);
		assert_true(is_closed(channel));
		assert_int_equal(fake_flow_count(), 0);
		close(channel);
	}
	int channel = session_open(rig);

	greet(rig, channel, false);
	for (size_t i = 0; i <= PACKET_MESSAGES; i++)
		memcpy(bytes + i * sizeof(reset), &reset, sizeof(reset));
	request(rig, channel, bytes, sizeof(bytes) - sizeof(reset), NULL, 0);
	assert_true(is_silent(channel));
	request(rig, channel, bytes, sizeof(bytes), NULL, 0);
	assert_true(is_closed(channel));
	close(channel);
	assert_int_equal(open_files(), before);
}

static void no_descriptor_stays(void **state)
{
	struct rig *rig = *state;
	struct broker_join message = join_usual();
	struct broker_answer pair;
	size_t before = open_files();

	for (int i = 0; i < 50; i++) {
		int channel = session_open(rig);

		request(rig, channel, &message, sizeof(message), rig->fds, 2);
		close(channel);
		tick(rig);
	}
	fake.sockets[0].snapshot.md5 = 1;
	for (int i = 0; i < 50; i++)
		assert_int_equal(join(rig, &pair), WIRE_NO_MD5);
	assert_int_equal(open_files(), before);
}

/* A connection that has more to send than its other end ever takes. */
static int lingering(int listener, int *other)
{
	const struct linger wait = { .l_onoff = 1, .l_linger = 20 };
	static const char bytes[65536];
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(getsockname(listener, (void *)&addr, &len), 0);
	assert_int_equal(connect(fd, (void *)&addr, len), 0);
	*other = accept(listener, NULL, NULL);
	while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
	assert_int_equal(
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &wait, sizeof(wait)), 0);
	return fd;
}

static void nothing_lingers_in_the_broker(void **state)
{
	struct rig *rig = *state;
	struct sockaddr_in addr = { .sin_family = AF_INET };
	struct broker_reset reset = { .type = BROKER_RESET };
	int fds[PACKET_FDS + 1], others[2], second;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint64_t began;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(listener, (void *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(listener, 2), 0);
	/* The last copies are those under way: more than any packet has, */
	for (int i = 0; i < PACKET_FDS; i++)
		fds[i] = listener;
	fds[PACKET_FDS] = lingering(listener, &others[0]);
	second = lingering(listener, &others[1]);
	assert_int_equal(message_send(rig->channel, &reset, sizeof(reset), fds,
				      PACKET_FDS + 1, 0),
			 0);
	close(fds[PACKET_FDS]);
	/* and one behind that, which ends the channel, and behind what looks so. */
	assert_int_equal(send(rig->channel, "", 0, 0), 0);
	assert_int_equal(message_send(rig->channel, &reset, sizeof(reset),
				      &second, 1, 0),
			 0);
	close(second);
	began = clock_ms();
	tick(rig);
	assert_true(clock_ms() - began < 10000);
	assert_true(list_empty(&rig->broker->sessions));
	close(others[0]);
	close(others[1]);
	close(listener);
}

static void who_does_not_read_is_dropped(void **state)
{
	struct rig *rig = *state;
	struct broker_claim claim = { .type = BROKER_CLAIM, .pair = 99 };
	struct list *pos;
	size_t sessions = 0;
	ssize_t n;

	/* Answered each; unread they fill the channel, then no more is read. */
	do
		n = send(rig->channel, &claim, sizeof(claim),
			 MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n > 0 && (tick(rig), true));
	assert_int_equal(errno, EAGAIN);
	list_for_each(pos, &rig->broker->sessions) {
		struct session *session = list_entry(pos, struct session, link);

		assert_in_range(session->out_count, 1, 1);
		sessions++;
	}
	assert_int_equal(sessions, 1);
	/* Read, it goes on. */
	for (int i = 0; i < 10000; i++) {
		char bytes[256];

		if (recv(rig->channel, bytes, sizeof(bytes), MSG_DONTWAIT) < 0)
			tick(rig);
	}
	list_for_each(pos, &rig->broker->sessions)
		assert_int_equal(
			list_entry(pos, struct session, link)->out_count, 0);
}

static void the_maps_wait_for_room_in_the_channel(void **state)
{
	struct rig *rig = *state;
	struct session *session =
		list_entry(rig->broker->sessions.next, struct session, link);
	struct broker_sockmap sockmap = { .type = BROKER_SOCKMAP,
					  .version = BROKER_PROTOCOL };
	struct broker_sockmap_maps maps;
	const char filler[1024] = { 0 };
	char bytes[sizeof(filler)];
	struct message came;
	size_t count = 0;

	while (send(session->watch.fd, filler, sizeof(filler), MSG_DONTWAIT) >
	       0)
		count++;
	assert_int_equal(errno, EAGAIN);
	request(rig, rig->channel, &sockmap, sizeof(sockmap), NULL, 0);
	assert_false(list_empty(&rig->broker->sessions));
	assert_int_equal(fake.releases, 0);
	while (count--)
		assert_int_equal(recv(rig->channel, bytes, sizeof(bytes),
				      MSG_DONTWAIT),
				 sizeof(filler));
	tick(rig);
	assert_int_equal(message_recv(rig->channel, &maps, sizeof(maps),
				      MESSAGE_FDS_MAX, MSG_DONTWAIT, &came),
			 0);
	assert_int_equal(came.len, sizeof(maps));
	assert_int_equal(maps.type, BROKER_SOCKMAP_MAPS);
	assert_int_equal(came.fd_count, SOCKMAP_MAPS);
	message_close(&came);
	assert_int_equal(fake.releases, 1);
	assert_false(list_empty(&rig->broker->sessions));
}

static void flood_of_events_ends_one_that_does_not_read(void **state)
{
	struct rig *rig = *state;
	struct broker_ended ended = { .type = BROKER_ENDED };
	struct session *session =
		list_entry(rig->broker->sessions.next, struct session, link);

	for (int i = 0; i < 100000 && !session->dead; i++)
		session_ended(session, &ended);
	assert_true(session->dead);
	tick(rig);
	assert_true(list_empty(&rig->broker->sessions));
}

static void without_memory(void *arg)
{
	struct loop *loop;
	struct broker *broker;
	int pair[2];

	(void)arg;
	if (loop_new(&loop))
		return;
	if (!fake_broker_new(loop, CAPACITY, &broker)) {
		assert_int_equal(socketpair(AF_UNIX,
					    SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
					    pair),
				 0);
		session_new(broker, 0, pair[1]);
		close(pair[0]);
		fake_broker_free(broker);
	}
	loop_free(loop);
}

static void nothing_breaks_without_memory(void **state)
{
	(void)state;
	assert_true(failalloc_sweep(without_memory, NULL) > 0);
}

#define WITH_RIG(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_usual_pair_may_be_joined),
		cmocka_unit_test(each_rule_has_its_reason),
		cmocka_unit_test(what_is_left_unread_is_the_peers_and_known),
		cmocka_unit_test(what_moves_is_not_quiet),
		cmocka_unit_test(offsets_are_each_others_inverse),
		cmocka_unit_test(a_later_look_opens_the_latch),
		cmocka_unit_test(stamps_are_of_the_last_look),
		cmocka_unit_test(bytes_are_counted_without_fin),
		WITH_RIG(a_worker_has_one_channel),
		WITH_RIG(the_end_outlives_a_worker_that_has_gone),
		cmocka_unit_test(a_reset_is_at_the_end_of_what_was_sent),
		WITH_RIG(a_pair_lives_and_ends),
		WITH_RIG(one_that_moves_meanwhile_is_left_alone),
		WITH_RIG(an_acknowledgement_meanwhile_is_taken_over),
		WITH_RIG(what_the_sockets_have_taken_is_acknowledged),
		WITH_RIG(an_acknowledgement_bpf_never_saw_opens_the_latch),
		WITH_RIG(refusals_leave_nothing),
		WITH_RIG(another_way_than_that_of_the_programs_is_refused),
		WITH_RIG(one_that_is_gone_at_the_second_look_is_refused),
		WITH_RIG(what_no_relay_may_hand_over_is_a_breach),
		WITH_RIG(one_socket_twice_is_a_breach),
		WITH_RIG(the_same_sockets_join_once),
		WITH_RIG(a_reset_hits_both_ends),
		WITH_RIG(a_reset_waits_for_the_last_user),
		WITH_RIG(expiry_is_by_allocation),
		WITH_RIG(expiry_finds_all_pairs_of_an_allocation),
		WITH_RIG(what_only_carries_is_swept_seldom),
		WITH_RIG(a_latch_that_never_opens_is_reset),
		WITH_RIG(lost_events_are_found),
		WITH_RIG(one_that_has_ended_is_not_called_active),
		WITH_RIG(an_end_is_told_when_its_kind_is_known),
		WITH_RIG(a_closed_channel_leaves_orphans),
		WITH_RIG(a_pair_can_be_claimed),
		WITH_RIG(without_memory_for_welcome_orphans_wait),
		WITH_RIG(places_run_out_and_are_reclaimed),
		WITH_RIG(what_is_pinned_is_adopted),
		WITH_RIG(a_pair_nobody_was_told_of_is_not_adopted),
		WITH_RIG(an_end_while_latched_is_told_by_resets),
		WITH_RIG(a_reset_that_a_socket_swallowed_is_told),
		WITH_RIG(a_breach_closes_the_channel),
		WITH_RIG(without_wire_nothing_is_looked_for),
		WITH_RIG(several_in_a_packet_are_taken_in_turn),
		WITH_RIG(a_packet_is_judged_whole),
		WITH_RIG(no_descriptor_stays),
		WITH_RIG(nothing_lingers_in_the_broker),
		WITH_RIG(who_does_not_read_is_dropped),
		WITH_RIG(the_maps_wait_for_room_in_the_channel),
		WITH_RIG(flood_of_events_ends_one_that_does_not_read),
		cmocka_unit_test(nothing_breaks_without_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
