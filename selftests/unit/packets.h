/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Message by message what comes in packets of several, on the channels between broker
 * and relay, of either direction.
 */
#ifndef UNIT_PACKETS_H
#define UNIT_PACKETS_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/message.h"
#include "engine/wire_proto.h"

#define PACKETS_CHANNELS 16

/* The rest of a packet, by its socket's cookie: descriptors are used again. */
struct packet_rest {
	uint64_t cookie;
	char bytes[PACKET_BYTES];
	struct message came;
	size_t read, fds_read;
};

/* One message, as if it had come alone. */
struct packet_message {
	union {
		uint32_t type;
		char bytes[256];
	} body;
	size_t len, fd_count;
	int fds[MESSAGE_FDS_MAX]; /* the reader's to close */
};

static struct packet_rest packet_rests[PACKETS_CHANNELS];

static inline struct packet_rest *packet_rest(int channel)
{
	static unsigned int oldest;
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	getsockopt(channel, SOL_SOCKET, SO_COOKIE, &cookie, &len);
	for (int i = 0; i < PACKETS_CHANNELS; i++)
		if (packet_rests[i].cookie == cookie)
			return &packet_rests[i];
	struct packet_rest *rest = &packet_rests[oldest++ % PACKETS_CHANNELS];

	memset(rest, 0, sizeof(*rest));
	rest->cookie = cookie;
	return rest;
}

/* 0: no such type, and the rest of the packet is one message. */
static inline size_t packet_size(uint32_t type, size_t *fds)
{
	*fds = type == BROKER_JOIN || type == BROKER_LANE ? 2 : 0;
	switch (type) {
	case BROKER_JOIN:
		return sizeof(struct broker_join);
	case BROKER_ANSWER:
		return sizeof(struct broker_answer);
	case BROKER_ACTIVE:
	case BROKER_RESET:
	case BROKER_CLAIM:
		return sizeof(struct broker_active);
	case BROKER_ENDED:
		return sizeof(struct broker_ended);
	case BROKER_LANE:
		return sizeof(struct broker_lane);
	case BROKER_LANE_ANSWER:
		return sizeof(struct broker_lane_answer);
	case BROKER_LANE_EXPIRE:
		return sizeof(struct broker_lane_expire);
	case BROKER_LANE_END:
	case BROKER_LANE_ENDED:
		return sizeof(struct broker_lane_end);
	default:
		return 0;
	}
}

/* Is there one that has come already? */
static inline bool packet_waits(int channel)
{
	const struct packet_rest *rest = packet_rest(channel);

	return rest->read < rest->came.len;
}

/* As message_recv. */
static inline int packet_next(int channel, int flags,
			      struct packet_message *out)
{
	struct packet_rest *rest = packet_rest(channel);
	uint32_t type = 0;
	size_t left, fds;

	if (rest->read >= rest->came.len) {
		int err = message_recv(channel, rest->bytes,
				       sizeof(rest->bytes), MESSAGE_FDS_MAX,
				       flags, &rest->came);

		rest->read = rest->fds_read = 0;
		if (err) {
			rest->came.len = 0;
			return err;
		}
	}
	left = rest->came.len - rest->read;
	memcpy(&type, rest->bytes + rest->read,
	       left < sizeof(type) ? left : sizeof(type));
	out->len = packet_size(type, &fds);
	if (!out->len || out->len > left) {
		out->len = left;
		fds = rest->came.fd_count - rest->fds_read;
	}
	if (out->len > sizeof(out->body))
		return -EMSGSIZE;
	out->fd_count = rest->came.fd_count - rest->fds_read;
	if (out->fd_count > fds)
		out->fd_count = fds;
	memcpy(&out->body, rest->bytes + rest->read, out->len);
	memcpy(out->fds, rest->came.fds + rest->fds_read,
	       out->fd_count * sizeof(int));
	rest->read += out->len;
	rest->fds_read += out->fd_count;
	return 0;
}

static inline void packet_message_close(struct packet_message *message)
{
	while (message->fd_count)
		close(message->fds[--message->fd_count]);
}

#endif
