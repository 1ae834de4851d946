/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a hostile relay can say: messages of any type, length and content, with
 * descriptors of all kinds, on two channels, in between what the kernel reports.
 * The kernel is made up; sessions, joins and places are the real ones.
 *
 * Input: steps of a byte that says what, a byte how, and what follows it.
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../unit/broker_fake.h"
#include "base/log.h"
#include "base/message.h"

#define CAPACITY 3
#define CHANNELS 2
#define STEPS    64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

struct run {
	struct loop *loop;
	struct broker *broker;
	int channels[CHANNELS];
	/* Sockets that may be joined, two of datagrams, and what may be neither. */
	int fds[10];
	const uint8_t *data;
	size_t size;
};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	/* Below every level: lines by the million would be all that is measured. */
	log_set_level((enum log_level) - 1);
	return 0;
}

static uint8_t byte(struct run *run)
{
	if (!run->size)
		return 0;
	run->size--;
	return *run->data++;
}

static void channel_open(struct run *run, int which)
{
	int pair[2];

	if (run->channels[which] >= 0)
		close(run->channels[which]);
	run->channels[which] = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
		       0, pair))
		abort();
	if (session_new(run->broker, (unsigned int)which, pair[1]))
		close(pair[0]);
	else
		run->channels[which] = pair[0];
}

/* Any bytes, any descriptors. */
static void raw_step(struct run *run, int channel)
{
	uint8_t message[240]; /* two, and a part of the next */
	size_t len = byte(run) % sizeof(message), count = byte(run) % 8;
	int fds[8];

	for (size_t i = 0; i < len; i++)
		message[i] = byte(run);
	for (size_t i = 0; i < count; i++)
		fds[i] = run->fds[byte(run) % 10];
	message_send(channel, message, len, fds, count, MSG_DONTWAIT);
}

/* The same of lanes: asked for, moved, ended. */
static void lane_step(struct run *run, int channel)
{
	struct broker_lane lane = {
		.type = BROKER_LANE,
		.channel = 0x4000 + byte(run) % 3,
		.client = { 192, 0, 2, byte(run) % 3 },
		.local = { 10, 0, 0, 200 },
		.peer = { 192, 0, 2, byte(run) % 3 },
		.client_port = 1,
		.peer_port = 1,
	};
	struct broker_lane_expire expire = { .type = BROKER_LANE_EXPIRE };
	struct broker_lane_end end = { .type = BROKER_LANE_END };
	uint8_t what = byte(run);
	const int two[2] = { run->fds[what & 64 ? byte(run) % 10 : 8],
			     run->fds[what & 64 ? byte(run) % 10 : 9] };

	fake_by_fd(run->fds[9])->key.family = what & 16 ? AF_INET6 : AF_INET;
	lane.id = expire.id = end.id = byte(run) % 5;
	lane.expires_ns = expire.expires_ns = what & 32 ? 1 : UINT64_MAX;
	if (what & 128)
		((uint8_t *)&lane)[byte(run) % sizeof(lane)] ^= byte(run);
	if (what % 4 < 2)
		message_send(channel, &lane, sizeof(lane), two, 2,
			     MSG_DONTWAIT);
	else if (what % 4 == 2)
		message_send(channel, &expire, sizeof(expire), NULL, 0,
			     MSG_DONTWAIT);
	else
		message_send(channel, &end, sizeof(end), NULL, 0, MSG_DONTWAIT);
}

/* Several in a packet: what the worker says in a tick. */
static void packet_step(struct run *run, int channel)
{
	struct packet packet = { .count = 0 };
	struct broker_join join = { .type = BROKER_JOIN };
	struct broker_reset reset = { .type = BROKER_RESET };
	uint8_t count = byte(run) % 5, cut;

	while (count--) {
		const int two[2] = { run->fds[byte(run) % 8],
				     run->fds[byte(run) % 8] };

		join.ticket = count;
		join.allocation = byte(run) % 4;
		reset.pair = byte(run) % (CAPACITY + 1);
		reset.generation = byte(run) % 8;
		packet_add(&packet, &join, sizeof(join), two, 2);
		packet_add(&packet, &reset, sizeof(reset), NULL, 0);
	}
	cut = byte(run);
	if (cut > 250)
		packet.len -= packet.len ? 1 : 0;
	else if (cut > 245)
		packet.fd_count -= packet.fd_count ? 1 : 0;
	packet_send(channel, &packet, MSG_DONTWAIT);
}

/* Right in form, so that the fuzzer gets past the first checks. */
static void formed_step(struct run *run, int channel)
{
	struct broker_hello hello = { BROKER_HELLO, BROKER_PROTOCOL, 0, 0 };
	struct broker_join join = { .type = BROKER_JOIN };
	struct broker_reset reset = { .type = BROKER_RESET };
	struct broker_claim claim = { .type = BROKER_CLAIM };
	struct broker_expire expire = { .type = BROKER_EXPIRE };
	int two[2];

	switch (byte(run) % 7) {
	case 0:
		hello.adopts = byte(run) % 3;
		message_send(channel, &hello, sizeof(hello), NULL, 0,
			     MSG_DONTWAIT);
		break;
	case 1:
		join.to_client = byte(run);
		join.unread = byte(run);
		join.allocation = byte(run) % 4;
		join.expires_ns = byte(run) % 2;
		two[0] = run->fds[byte(run) % 8];
		two[1] = run->fds[byte(run) % 8];
		message_send(channel, &join, sizeof(join), two, 2,
			     MSG_DONTWAIT);
		break;
	case 2:
		reset.pair = byte(run) % (CAPACITY + 1);
		reset.generation = byte(run) % 8;
		message_send(channel, &reset, sizeof(reset), NULL, 0,
			     MSG_DONTWAIT);
		break;
	case 3:
		claim.pair = byte(run) % (CAPACITY + 1);
		claim.generation = byte(run) % 8;
		message_send(channel, &claim, sizeof(claim), NULL, 0,
			     MSG_DONTWAIT);
		break;
	case 5:
		lane_step(run, channel);
		break;
	case 6:
		packet_step(run, channel);
		break;
	default:
		expire.allocation = byte(run) % 4;
		expire.expires_ns = byte(run) % 2;
		message_send(channel, &expire, sizeof(expire), NULL, 0,
			     MSG_DONTWAIT);
		break;
	}
}

/* What BPF does and says. */
static void kernel_step(struct run *run)
{
	uint32_t index = byte(run) % CAPACITY;
	uint8_t what = byte(run);
	struct wire_pair *record = &run->broker->records[index];
	struct wire_event event = { what & 1 ? WIRE_EVENT_ENDED :
					       WIRE_EVENT_UNLATCHED,
				    index, record->generation - (what >> 7),
				    0 };

	if (record->state == WIRE_JOINED && what & 2) {
		record->leg[0].flags &= ~WIRE_LEG_LATCHED;
		record->leg[1].flags &= ~WIRE_LEG_LATCHED;
	}
	if (record->state == WIRE_JOINED && what & 4) {
		record->state = WIRE_ENDED;
		record->end = what & 8 ? WIRE_END_FIN : WIRE_END_RESET_PEER;
	}
	if (what & 16)
		place_event(run->broker, &event);
	if (what & 32)
		for (int i = 0; i < CAPACITY; i++)
			run->broker->places[i].due_ns = 0;
	if (what & 64)
		places_sweep(run->broker);
	if (what & 128)
		lanes_sweep(run->broker);
	for (int i = 0; i < CAPACITY && what & 64; i++)
		run->broker->lanes[i].rest_ns = 0;
}

static void socket_step(struct run *run)
{
	struct fake_socket *s = &fake.sockets[byte(run) % 8];
	struct wire_snapshot *snapshot = &s->snapshot;

	switch (byte(run) % 12) {
	case 0:
		snapshot->rcv_nxt++;
		break;
	case 1:
		snapshot->copied_seq = snapshot->rcv_nxt;
		break;
	case 2:
		snapshot->state = byte(run) % 12;
		break;
	case 3:
		snapshot->snd_una = snapshot->write_seq += byte(run);
		break;
	case 4:
		s->unconnected = byte(run) % 2;
		break;
	case 5:
		s->closed = byte(run) % 2;
		break;
	case 6:
		s->foreign = byte(run) % 2;
		break;
	case 7:
		snapshot->found = byte(run) % 2;
		break;
	case 8:
		snapshot->device = byte(run) % 2 ? FAKE_DEVICE : 0;
		break;
	case 10:
		s->hidden = byte(run) % 2;
		break;
	case 11:
		fake.altered = byte(run) % 2;
		break;
	default:
		fake.reset_error = byte(run) % 2 ? -EADDRNOTAVAIL : 0;
		break;
	}
}

/* A lane is on by its owner, with two flows and two sockets, or not at all. */
static void lanes_check(const struct broker *broker)
{
	unsigned int flows = 0, used = 0;

	for (uint32_t i = 0; i < CAPACITY; i++) {
		const struct lane *lane = &broker->lanes[i];
		bool on = broker->lane_records[i].state == WIRE_LANE_ON;

		if (on != (lane->owner != NULL) || on != (lane->fds[0] >= 0) ||
		    on != (lane->fds[1] >= 0) ||
		    (on && (lane->owner->dead ||
			    lane_find(lane->owner, lane->id) != lane)))
			abort();
		flows += on ? 2 : 0;
		used += on;
	}
	if (flows != fake_lane_flow_count() || used != broker->lane_count ||
	    (used && !fake.lease.until_ns))
		abort();
}

/* What must hold whatever was said. */
static void invariants_check(const struct run *run)
{
	const struct broker *broker = run->broker;
	unsigned int flows = 0, latched = 0;

	for (uint32_t i = 0; i < CAPACITY; i++) {
		const struct place *place = &broker->places[i];

		if (place->state != PLACE_FREE)
			flows += 2;
		if (place->state == PLACE_LATCHED)
			latched++;
		if ((place->state == PLACE_FREE) !=
		    (broker->records[i].state == WIRE_FREE))
			abort();
		if ((place->state == PLACE_LATCHED) != (place->fds[0] >= 0) ||
		    (place->fds[0] >= 0) != (place->fds[1] >= 0))
			abort();
	}
	if (flows != fake_flow_count() ||
	    latched != broker->counts[PLACE_LATCHED])
		abort();
	lanes_check(broker);
}

static void run_open(struct run *run)
{
	memset(&fake, 0, sizeof(fake));
	fake.records_fd = STDERR_FILENO;
	if (loop_new(&run->loop) ||
	    fake_broker_new(run->loop, CAPACITY, &run->broker))
		abort();
	for (int i = 0; i < 6; i++)
		run->fds[i] = fake_connect((uint32_t)i + 1, AF_INET);
	run->fds[6] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	run->fds[7] = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	run->fds[8] = fake_datagrams(3478);
	run->fds[9] = fake_datagrams(50000);
	for (int i = 0; i < CHANNELS; i++) {
		run->channels[i] = -1;
		channel_open(run, i);
	}
}

static void run_close(struct run *run)
{
	fake_broker_free(run->broker);
	loop_free(run->loop);
	for (int i = 0; i < CHANNELS; i++)
		if (run->channels[i] >= 0)
			close(run->channels[i]);
	for (int i = 0; i < 10; i++)
		close(run->fds[i]);
}

static void step(struct run *run)
{
	uint8_t what = byte(run);
	int which = what >> 7, channel = run->channels[which];
	char bytes[256];

	switch (what % 7) {
	case 0:
		raw_step(run, channel);
		break;
	case 1:
	case 2:
	case 3:
		formed_step(run, channel);
		break;
	case 4:
		kernel_step(run);
		break;
	case 5:
		socket_step(run);
		break;
	default:
		channel_open(run, which);
		break;
	}
	for (int i = 0; i < 3; i++)
		loop_tick(run->loop, 0);
	if (what & 64)
		while (run->channels[which] >= 0 &&
		       recv(run->channels[which], bytes, sizeof(bytes),
			    MSG_DONTWAIT) > 0)
			;
	invariants_check(run);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct run run = { .data = data, .size = size };

	run_open(&run);
	for (int i = 0; i < STEPS && run.size; i++)
		step(&run);
	run_close(&run);
	return 0;
}
