/* SPDX-License-Identifier: BSD-2-Clause */
/* Channels: a number for a peer of a UDP allocation. */
#ifndef TURN_CHANNEL_H
#define TURN_CHANNEL_H

#include "turn/allocation.h"

/* What a lane had carried when it was looked at last. */
struct lane_counts {
	uint64_t up, down; /* datagrams to the peer, to the client */
	uint64_t up_bytes, down_bytes;
};

/* An expired one stays until a ChannelBind sweeps or the end: no timers. */
struct channel {
	struct table_node by_number, by_peer; /* of the worker's tables */
	struct list link; /* of allocation->channels */
	struct allocation *allocation;
	union addr peer;
	uint64_t expires_ms;
	uint64_t judged; /* worker->policy_serial of then; see access.c */
	enum turn_verdict verdict;
	uint16_t number;

	/* Of lane.c alone. */
	struct wire_lane_link lane;
	struct lane_counts seen;
	unsigned int by_us; /* datagrams since it was asked for last */
	bool on_wire;
	bool refused;
};

/* One that holds now, or NULL. */
struct channel *turn_channel_of_number(const struct allocation *allocation,
				       uint16_t number);
struct channel *turn_channel_of_peer(const struct allocation *allocation,
				     const union addr *peer);
/* Removes those to peers of this family. */
void turn_channels_clear(struct allocation *allocation, sa_family_t family);
/* How many hold now. */
unsigned int turn_channels_count(const struct allocation *allocation);

#endif
