/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The other end of a worker's channel: the test speaks for the broker, message by
 * message, and has the pairs in a file instead of a map.
 */
#ifndef UNIT_BROKER_RIG_H
#define UNIT_BROKER_RIG_H

#include "unit/rig.h"

#include <sys/mman.h>

#include "engine/wire.h"
#include "unit/packets.h"

#define BROKER_PLACES 64

struct broker_rig {
	int fd; /* the broker's end; -1: closed */
	struct loop *loop; /* the worker's */
	struct wire_pair *pairs; /* BROKER_PLACES of them */
	int pairs_fd;
};

static inline int broker_read_pair(int map, uint32_t place,
				   struct wire_pair *out)
{
	ssize_t n =
		pread(map, out, sizeof(*out), (off_t)(place * sizeof(*out)));

	return n == sizeof(*out) ? 0 : -ENOENT;
}

static inline void broker_rig_init(struct broker_rig *broker, struct loop *loop)
{
	size_t size = BROKER_PLACES * sizeof(*broker->pairs);

	broker->fd = -1;
	broker->loop = loop;
	broker->pairs_fd = memfd_create("pairs", MFD_CLOEXEC);
	assert_true(broker->pairs_fd >= 0);
	assert_int_equal(ftruncate(broker->pairs_fd, (off_t)size), 0);
	broker->pairs = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
			     broker->pairs_fd, 0);
	assert_ptr_not_equal(broker->pairs, MAP_FAILED);
}

static inline void broker_rig_free(struct broker_rig *broker)
{
	fd_close(&broker->fd);
	fd_close(&broker->pairs_fd);
	munmap(broker->pairs, BROKER_PLACES * sizeof(*broker->pairs));
}

/* A fresh channel; the worker's end goes to the wire. */
static inline void broker_connect(struct broker_rig *broker, struct wire *wire)
{
	int fds[2];

	fd_close(&broker->fd);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	broker->fd = fds[0];
	assert_int_equal(wire_channel(wire, fds[1]), 0);
}

static inline void broker_send(struct broker_rig *broker, const void *body,
			       size_t len, const int *fds, size_t count)
{
	assert_int_equal(message_send(broker->fd, body, len, fds, count, 0), 0);
}

/* What the worker has to say it says at the end of a tick. */
static inline void broker_tick(struct broker_rig *broker)
{
	if (!packet_waits(broker->fd))
		loop_tick(broker->loop, 0);
}

/*
 * The next message: exactly `len` bytes, with `count` descriptors. Its type is
 * returned; 0 when there is none, or the channel was closed.
 */
static inline uint32_t broker_hear(struct broker_rig *broker, void *body,
				   size_t len, int *fds, size_t count)
{
	struct packet_message got;

	broker_tick(broker);
	if (packet_next(broker->fd, MSG_DONTWAIT, &got))
		return 0;
	assert_int_equal(got.len, len);
	memcpy(body, &got.body, len);
	assert_int_equal(got.fd_count, count);
	if (count)
		memcpy(fds, got.fds, count * sizeof(int));
	return got.body.type;
}

static inline void broker_expect_hello(struct broker_rig *broker,
				       struct broker_hello *hello)
{
	assert_int_equal(broker_hear(broker, hello, sizeof(*hello), NULL, 0),
			 BROKER_HELLO);
	assert_int_equal(hello->version, BROKER_PROTOCOL);
}

/* The same with as many lanes, of which the descriptor says nothing. */
static inline void broker_welcome_lanes(struct broker_rig *broker)
{
	const struct broker_welcome welcome = {
		.type = BROKER_WELCOME,
		.version = BROKER_PROTOCOL,
		.capacity = BROKER_PLACES,
		.lanes = BROKER_PLACES,
	};
	const int fds[2] = { broker->pairs_fd, broker->pairs_fd };

	broker_send(broker, &welcome, sizeof(welcome), fds, 2);
}

static inline void broker_welcome(struct broker_rig *broker)
{
	const struct broker_welcome welcome = {
		.type = BROKER_WELCOME,
		.version = BROKER_PROTOCOL,
		.capacity = BROKER_PLACES,
	};

	broker_send(broker, &welcome, sizeof(welcome), &broker->pairs_fd, 1);
}

/* The two descriptors are the test's to close. */
static inline void broker_expect_join(struct broker_rig *broker,
				      struct broker_join *join, int fds[2])
{
	assert_int_equal(broker_hear(broker, join, sizeof(*join), fds, 2),
			 BROKER_JOIN);
}

static inline void broker_answer(struct broker_rig *broker, uint32_t ticket,
				 enum wire_reason reason, uint32_t place)
{
	const struct broker_answer answer = {
		.type = BROKER_ANSWER,
		.ticket = ticket,
		.reason = reason,
		.pair = place,
		.generation = reason == WIRE_OK ?
				      ++broker->pairs[place].generation :
				      0,
	};

	if (reason == WIRE_OK)
		broker->pairs[place].state = WIRE_JOINED;
	broker_send(broker, &answer, sizeof(answer), NULL, 0);
}

static inline void broker_active(struct broker_rig *broker, uint32_t place)
{
	const struct broker_active active = {
		.type = BROKER_ACTIVE,
		.pair = place,
		.generation = broker->pairs[place].generation,
	};

	broker_send(broker, &active, sizeof(active), NULL, 0);
}

static inline void broker_ended(struct broker_rig *broker, uint32_t place,
				enum wire_end end, uint64_t to_client,
				uint64_t to_peer)
{
	const struct broker_ended ended = {
		.type = BROKER_ENDED,
		.pair = place,
		.generation = broker->pairs[place].generation,
		.end = end,
		.bytes = { to_client, to_peer },
		.idle_ns = 7000000,
	};

	broker->pairs[place].state = WIRE_FREE;
	broker_send(broker, &ended, sizeof(ended), NULL, 0);
}

/* A message of a pair: RESET, CLAIM. */
static inline void broker_expect_pair(struct broker_rig *broker,
				      enum broker_type type, uint32_t place)
{
	struct broker_reset msg;

	assert_int_equal(broker_hear(broker, &msg, sizeof(msg), NULL, 0), type);
	assert_int_equal(msg.pair, place);
	assert_int_equal(msg.generation, broker->pairs[place].generation);
	assert_int_equal(msg.zero, 0);
}

static inline bool broker_silent(struct broker_rig *broker)
{
	char byte;

	broker_tick(broker);
	return !packet_waits(broker->fd) &&
	       recv(broker->fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 &&
	       errno == EAGAIN;
}

#endif
