/* SPDX-License-Identifier: BSD-2-Clause */
/* The broker's lanes: who may have one, how long, and what is left, which is nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/message.h"
#include "unit/broker_fake.h"
#include "unit/open_files.h"
#include "unit/packets.h"

#define CAPACITY 3
#define SECOND   1000000000ull
#define LISTENER 3478
#define RELAYED  50000

struct rig {
	struct loop *loop;
	struct broker *broker;
	int channels[2];
	int fds[WIRE_LEGS]; /* the listener's socket, the relayed one */
};

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

/* A worker's channel, greeted. */
static int session_open(struct rig *rig, unsigned int worker)
{
	struct broker_hello hello = { .type = BROKER_HELLO,
				      .version = BROKER_PROTOCOL };
	struct broker_welcome welcome;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX,
				    SOCK_SEQPACKET | SOCK_CLOEXEC |
					    SOCK_NONBLOCK,
				    0, pair),
			 0);
	assert_int_equal(session_new(rig->broker, worker, pair[1]), 0);
	request(rig, pair[0], &hello, sizeof(hello), NULL, 0);
	answer(pair[0], BROKER_WELCOME, &welcome, sizeof(welcome));
	assert_int_equal(welcome.lanes, CAPACITY);
	return pair[0];
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
	for (unsigned int i = 0; i < 2; i++)
		rig->channels[i] = session_open(rig, i);
	rig->fds[0] = fake_datagrams(LISTENER);
	rig->fds[1] = fake_datagrams(RELAYED);
	return rig->fds[1] < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	fake_broker_free(rig->broker);
	loop_free(rig->loop);
	close(rig->channels[0]);
	close(rig->channels[1]);
	close(rig->fds[0]);
	close(rig->fds[1]);
	free(rig);
	return 0;
}

static struct broker_lane lane_usual(uint64_t id)
{
	return (struct broker_lane){
		.type = BROKER_LANE,
		.channel = 0x4001,
		.id = id,
		.expires_ns = clock_ns() + 100 * SECOND,
		.client = { 192, 0, 2, (uint8_t)id },
		.local = { 10, 0, 0, 200 },
		.peer = { 198, 51, 100, (uint8_t)id },
		.client_port = htons(4000),
		.peer_port = htons(5000),
	};
}

static enum wire_reason asked(struct rig *rig, int channel,
			      const struct broker_lane *msg,
			      struct broker_lane_answer *out)
{
	request(rig, channel, msg, sizeof(*msg), rig->fds, WIRE_LEGS);
	answer(channel, BROKER_LANE_ANSWER, out, sizeof(*out));
	assert_true(out->id == msg->id);
	return (enum wire_reason)out->reason;
}

static struct wire_lane *made(struct rig *rig, int channel, uint64_t id)
{
	const struct broker_lane msg = lane_usual(id);
	struct broker_lane_answer told;

	assert_int_equal(asked(rig, channel, &msg, &told), WIRE_OK);
	assert_true(told.lane < CAPACITY);
	assert_int_equal(rig->broker->lane_records[told.lane].generation,
			 told.generation);
	return &rig->broker->lane_records[told.lane];
}

static void end(struct rig *rig, int channel, uint64_t id)
{
	const struct broker_lane_end msg = { .type = BROKER_LANE_END,
					     .id = id };

	request(rig, channel, &msg, sizeof(msg), NULL, 0);
}

/* Places rest before they are given to another. */
static void rested(struct rig *rig)
{
	for (int i = 0; i < CAPACITY; i++)
		rig->broker->lanes[i].rest_ns = 0;
}

static void nothing_is_left(const struct rig *rig)
{
	assert_int_equal(fake_lane_flow_count(), 0);
	assert_int_equal(rig->broker->lane_count, 0);
	for (int i = 0; i < CAPACITY; i++) {
		assert_int_equal(rig->broker->lane_records[i].state,
				 WIRE_LANE_OFF);
		assert_int_equal(rig->broker->lanes[i].fds[0], -1);
		assert_int_equal(rig->broker->lanes[i].fds[1], -1);
	}
}

static void a_lane_is_made_and_ended(void **state)
{
	struct rig *rig = *state;
	size_t files = open_files();
	struct wire_lane *lane = made(rig, rig->channels[0], 7);
	const struct wire_lane_key *client = &lane->leg[WIRE_CLIENT].key;
	const struct wire_lane_key *peer = &lane->leg[WIRE_PEER].key;

	assert_int_equal(lane->state, WIRE_LANE_ON);
	assert_int_equal(client->channel, htons(0x4001));
	assert_int_equal(client->family, AF_INET);
	assert_int_equal(client->remote[0], 192);
	assert_int_equal(client->remote_port, htons(4000));
	assert_int_equal(client->local_port, htons(LISTENER));
	assert_int_equal(client->local[3], 200);
	assert_int_equal(lane->leg[WIRE_CLIENT].device, FAKE_DEVICE);
	assert_int_equal(peer->channel, 0);
	assert_int_equal(peer->family, AF_INET);
	assert_int_equal(peer->remote[0], 198);
	assert_int_equal(peer->remote_port, htons(5000));
	assert_int_equal(peer->local_port, htons(RELAYED));
	assert_int_equal(fake_lane_flow_count(), 2);
	assert_true(fake.lease.until_ns > clock_ns());
	/* The ports stay taken. */
	assert_int_equal(open_files(), files + 2);
	end(rig, rig->channels[0], 7);
	nothing_is_left(rig);
	assert_int_equal(open_files(), files);
	assert_true(is_silent(rig->channels[0]));
	lanes_sweep(rig->broker);
	assert_int_equal(fake.lease.until_ns, 0);
}

static void its_time_can_be_moved(void **state)
{
	struct rig *rig = *state;
	struct wire_lane *lane = made(rig, rig->channels[0], 7);
	struct broker_lane_expire msg = { .type = BROKER_LANE_EXPIRE, .id = 7 };
	struct broker_lane_end told;

	msg.expires_ns = clock_ns() + 1000 * SECOND;
	request(rig, rig->channels[0], &msg, sizeof(msg), NULL, 0);
	assert_true(lane->expires_ns == msg.expires_ns);
	lanes_sweep(rig->broker);
	assert_int_equal(lane->state, WIRE_LANE_ON);
	/* Another worker's number is another lane's. */
	msg.expires_ns = 1;
	request(rig, rig->channels[1], &msg, sizeof(msg), NULL, 0);
	assert_true(lane->expires_ns > 1);
	request(rig, rig->channels[0], &msg, sizeof(msg), NULL, 0);
	lanes_sweep(rig->broker);
	nothing_is_left(rig);
	answer(rig->channels[0], BROKER_LANE_ENDED, &told, sizeof(told));
	assert_int_equal(told.id, 7);
	/* Of one that is not there nothing is said. */
	request(rig, rig->channels[0], &msg, sizeof(msg), NULL, 0);
	end(rig, rig->channels[0], 7);
	assert_true(is_silent(rig->channels[0]));
}

static void one_whose_time_is_up_is_answered_first(void **state)
{
	struct rig *rig = *state;
	struct broker_lane msg = lane_usual(7);
	struct broker_lane_answer told;
	struct broker_lane_end end;

	msg.expires_ns = 1;
	assert_int_equal(asked(rig, rig->channels[0], &msg, &told), WIRE_OK);
	lanes_sweep(rig->broker);
	answer(rig->channels[0], BROKER_LANE_ENDED, &end, sizeof(end));
	nothing_is_left(rig);
}

static void lanes_end_with_their_channel(void **state)
{
	struct rig *rig = *state;
	struct wire_lane *other;

	made(rig, rig->channels[0], 1);
	made(rig, rig->channels[0], 2);
	other = made(rig, rig->channels[1], 3);
	end(rig, rig->channels[1], 1);
	assert_int_equal(fake_lane_flow_count(), 6);
	close(rig->channels[0]);
	rig->channels[0] = -1;
	tick(rig);
	assert_int_equal(fake_lane_flow_count(), 2);
	assert_int_equal(other->state, WIRE_LANE_ON);
	end(rig, rig->channels[1], 3);
	nothing_is_left(rig);
}

static void a_lane_needs_the_relays_own_addresses(void **state)
{
	struct rig *rig = *state;
	int channel = rig->channels[0];
	struct fake_socket *listener = fake_by_fd(rig->fds[0]);
	struct fake_socket *relayed = fake_by_fd(rig->fds[1]);
	struct broker_lane msg;
	struct broker_lane_answer told;
	const struct fake_socket usual[2] = { *listener, *relayed };

#define REFUSED(change, why)                                               \
	do {                                                               \
		msg = lane_usual(7);                                       \
		*listener = usual[0];                                      \
		*relayed = usual[1];                                       \
		fake.altered = fake.strange = false;                       \
		fake.look_error = fake.insert_error = 0;                   \
		change;                                                    \
		assert_int_equal(asked(rig, channel, &msg, &told), (why)); \
		nothing_is_left(rig);                                      \
	} while (0)
	REFUSED(msg.local[3]++, WIRE_NO_STATE);
	REFUSED((memset(listener->key.local, 0, 16), fake.strange = true),
		WIRE_NO_STATE);
	REFUSED(listener->hidden = true, WIRE_NO_STATE);
	REFUSED(relayed->hidden = true, WIRE_NO_STATE);
	REFUSED(memset(relayed->key.local, 0, 16), WIRE_NO_LOCAL);
	REFUSED(msg.client[0] = 127, WIRE_NO_LOCAL);
	REFUSED(msg.peer[0] = 224, WIRE_NO_LOCAL);
	REFUSED(msg.peer[0] = 255, WIRE_NO_LOCAL);
	REFUSED(msg.peer[0] = 0, WIRE_NO_LOCAL);
	REFUSED(msg.peer[9] = 1, WIRE_NO_STATE);
	REFUSED(listener->snapshot.device = 0, WIRE_NO_DEVICE);
	REFUSED(relayed->snapshot.device = 9, WIRE_NO_DEVICE);
	REFUSED(fake.altered = true, WIRE_NO_LOCAL);
	REFUSED(fake.look_error = -EPERM, WIRE_NO_ERROR);
	REFUSED(fake.insert_error = -E2BIG, WIRE_NO_ERROR);
	/* All addresses, of which this is one. */
	msg = lane_usual(7);
	*listener = usual[0];
	memset(listener->key.local, 0, sizeof(listener->key.local));
	*relayed = usual[1];
	fake.insert_error = 0;
	assert_int_equal(asked(rig, channel, &msg, &told), WIRE_OK);
	assert_int_equal(
		rig->broker->lane_records[told.lane].leg[0].key.local[3], 200);
#undef REFUSED
}

static struct fake_socket *family_set(int fd, int family)
{
	struct fake_socket *s = fake_by_fd(fd);

	s->key.family = (__u8)family;
	return s;
}

/* 2001:db8::last */
static void address_set(uint8_t out[16], uint8_t last)
{
	const uint8_t bytes[16] = { 0x20, 0x01, 0x0d, 0xb8, [15] = last };

	memcpy(out, bytes, sizeof(bytes));
}

static void client_and_peer_may_be_of_two_families(void **state)
{
	struct rig *rig = *state;
	struct broker_lane msg = lane_usual(7), peer_v6, client_v6;
	struct broker_lane_answer told;
	const struct wire_lane *lane;

	peer_v6 = client_v6 = msg;
	address_set(peer_v6.peer, 9);
	address_set(client_v6.client, 8);
	address_set(client_v6.local, 1);
	address_set(family_set(rig->fds[1], AF_INET6)->key.local, 2);
	assert_int_equal(asked(rig, rig->channels[0], &peer_v6, &told),
			 WIRE_OK);
	lane = &rig->broker->lane_records[told.lane];
	assert_int_equal(lane->leg[WIRE_CLIENT].key.family, AF_INET);
	assert_int_equal(lane->leg[WIRE_PEER].key.family, AF_INET6);
	assert_memory_equal(lane->leg[WIRE_PEER].key.remote, peer_v6.peer, 16);
	assert_int_equal(fake_lane_flow_count(), 2);
	end(rig, rig->channels[0], 7);
	nothing_is_left(rig);
	/* Each address is judged by its own leg's family. */
	peer_v6.client[5] = 1;
	assert_int_equal(asked(rig, rig->channels[0], &peer_v6, &told),
			 WIRE_NO_STATE);
	memset(msg.peer, 0, sizeof(msg.peer));
	memset(msg.peer + 10, 0xff, 2);
	memcpy(msg.peer + 12, (uint8_t[]){ 198, 51, 100, 7 }, 4);
	assert_int_equal(asked(rig, rig->channels[0], &msg, &told),
			 WIRE_NO_LOCAL);
	family_set(rig->fds[1], AF_INET);
	assert_int_equal(asked(rig, rig->channels[0], &msg, &told),
			 WIRE_NO_STATE);
	nothing_is_left(rig);
	rested(rig);
	memset(fake_by_fd(rig->fds[1])->key.local + 4, 0, 12);
	address_set(family_set(rig->fds[0], AF_INET6)->key.local, 1);
	assert_int_equal(asked(rig, rig->channels[0], &client_v6, &told),
			 WIRE_OK);
	lane = &rig->broker->lane_records[told.lane];
	assert_int_equal(lane->leg[WIRE_CLIENT].key.family, AF_INET6);
	assert_int_equal(lane->leg[WIRE_PEER].key.family, AF_INET);
}

static void two_channels_of_a_client_are_two_lanes(void **state)
{
	struct rig *rig = *state;
	struct broker_lane msg = lane_usual(8);
	struct broker_lane_answer told;

	made(rig, rig->channels[0], 7);
	/* The same number, the same peer: somebody has them. */
	memcpy(msg.client, lane_usual(7).client, sizeof(msg.client));
	assert_int_equal(asked(rig, rig->channels[1], &msg, &told),
			 WIRE_NO_STATE);
	msg.channel++;
	memcpy(msg.peer, lane_usual(7).peer, sizeof(msg.peer));
	assert_int_equal(asked(rig, rig->channels[1], &msg, &told),
			 WIRE_NO_STATE);
	assert_int_equal(fake_lane_flow_count(), 2);
	msg.peer[3]++;
	assert_int_equal(asked(rig, rig->channels[1], &msg, &told), WIRE_OK);
}

static void places_run_out_and_rest(void **state)
{
	struct rig *rig = *state;
	struct broker_lane msg = lane_usual(9);
	struct broker_lane_answer told;

	for (uint64_t id = 1; id <= CAPACITY; id++)
		made(rig, rig->channels[0], id);
	assert_int_equal(asked(rig, rig->channels[0], &msg, &told),
			 WIRE_NO_ROOM);
	end(rig, rig->channels[0], 2);
	assert_int_equal(asked(rig, rig->channels[0], &msg, &told),
			 WIRE_NO_ROOM);
	rested(rig);
	assert_int_equal(made(rig, rig->channels[0], 9)->generation, 2);
	end(rig, rig->channels[0], 9);
	rested(rig);
	/* What this process may open of descriptors is a limit, too. */
	rig->broker->lanes_max = 2;
	assert_int_equal(asked(rig, rig->channels[0], &msg, &told),
			 WIRE_NO_ROOM);
}

static void a_breach_closes_the_channel_and_its_lanes(void **state)
{
	struct rig *rig = *state;
	struct broker_lane msg;
	struct broker_lane_end over = { .type = BROKER_LANE_END };
	struct broker_lane_expire expire = { .type = BROKER_LANE_EXPIRE };
	int wrong = fake_connect(5, AF_INET), none = STDERR_FILENO, fds[2];
	int channel;

#define BREACH(change, message, first, second, count)                   \
	do {                                                            \
		channel = session_open(rig, 4);                         \
		made(rig, channel, 1);                                  \
		msg = lane_usual(2);                                    \
		fds[0] = (first);                                       \
		fds[1] = (second);                                      \
		change;                                                 \
		request(rig, channel, &(message), sizeof(message), fds, \
			count);                                         \
		assert_true(is_closed(channel));                        \
		close(channel);                                         \
		nothing_is_left(rig);                                   \
		rested(rig);                                            \
	} while (0)
	BREACH(msg.channel = 0x3fff, msg, rig->fds[0], rig->fds[1], 2);
	BREACH(msg.channel = 0x8000, msg, rig->fds[0], rig->fds[1], 2);
	BREACH(msg.zero = 1, msg, rig->fds[0], rig->fds[1], 2);
	BREACH(msg.zero2 = 1, msg, rig->fds[0], rig->fds[1], 2);
	BREACH(msg.client_port = 0, msg, rig->fds[0], rig->fds[1], 2);
	BREACH(msg.peer_port = 0, msg, rig->fds[0], rig->fds[1], 2);
	BREACH(msg.expires_ns = 0, msg, rig->fds[0], rig->fds[1], 2);
	BREACH(msg.id = 1, msg, rig->fds[0], rig->fds[1], 2);
	BREACH(, msg, rig->fds[0], wrong, 2);
	BREACH(, msg, wrong, rig->fds[1], 2);
	BREACH(, msg, none, rig->fds[1], 2);
	BREACH(, msg, rig->fds[0], rig->fds[1], 1);
	BREACH(, msg, rig->fds[0], rig->fds[1], 0);
	BREACH(over.zero = 1, over, 0, 0, 0);
	BREACH(over.zero = 0, over, rig->fds[0], 0, 1);
	BREACH(expire.zero = 1, expire, 0, 0, 0);
#undef BREACH
	close(wrong);
}

#define WITH_RIG(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_RIG(a_lane_is_made_and_ended),
		WITH_RIG(its_time_can_be_moved),
		WITH_RIG(one_whose_time_is_up_is_answered_first),
		WITH_RIG(lanes_end_with_their_channel),
		WITH_RIG(a_lane_needs_the_relays_own_addresses),
		WITH_RIG(client_and_peer_may_be_of_two_families),
		WITH_RIG(two_channels_of_a_client_are_two_lanes),
		WITH_RIG(places_run_out_and_rest),
		WITH_RIG(a_breach_closes_the_channel_and_its_lanes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
