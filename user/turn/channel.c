/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ChannelBind (RFC 8656 12.2) and the look-up of channels.
 *
 * A number and a peer belong to each other: while the binding holds, neither can
 * be bound to another. Each is found in a table of its own.
 */
#include "turn/channel.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "turn/lane.h"
#include "turn/permission.h"
#include "turn/request.h"

#define NUMBER_MIN 0x4000
#define NUMBER_MAX 0x4fff
#define OLD_MAX    0x7fff /* RFC 5766 11 */

static uint64_t number_hash(const struct allocation *allocation,
			    uint16_t number)
{
	const uint64_t key[2] = { allocation->serial, number };

	return table_hash(key, sizeof(key));
}

static uint64_t peer_hash(const struct allocation *allocation,
			  const union addr *peer)
{
	uint8_t key[sizeof(uint64_t) + sizeof(uint16_t) + 16];
	const uint16_t port = addr_port(peer);
	size_t len;
	const uint8_t *bytes = addr_bytes(peer, &len);
	uint8_t *at = key;

	memcpy(at, &allocation->serial, sizeof(uint64_t));
	at += sizeof(uint64_t);
	memcpy(at, &port, sizeof(port));
	at += sizeof(port);
	memcpy(at, bytes, len);
	return table_hash(key, (size_t)(at - key) + len);
}

static bool holds_now(const struct channel *channel)
{
	return channel->expires_ms >
	       loop_now(channel->allocation->worker->loop);
}

struct channel *turn_channel_of_number(const struct allocation *allocation,
				       uint16_t number)
{
	struct table_node *node =
		table_first(&allocation->worker->channel_numbers,
			    number_hash(allocation, number));

	for (; node; node = table_next(node)) {
		struct channel *channel =
			list_entry(node, struct channel, by_number);

		if (channel->allocation == allocation &&
		    channel->number == number)
			return holds_now(channel) ? channel : NULL;
	}
	return NULL;
}

struct channel *turn_channel_of_peer(const struct allocation *allocation,
				     const union addr *peer)
{
	struct table_node *node;

	if (!allocation->channel_count)
		return NULL;
	node = table_first(&allocation->worker->channel_peers,
			   peer_hash(allocation, peer));
	for (; node; node = table_next(node)) {
		struct channel *channel =
			list_entry(node, struct channel, by_peer);

		if (channel->allocation == allocation &&
		    addr_equal(&channel->peer, peer))
			return holds_now(channel) ? channel : NULL;
	}
	return NULL;
}

static void channel_remove(struct channel *channel)
{
	struct allocation *allocation = channel->allocation;
	struct turn_worker *worker = allocation->worker;

	turn_lane_end(channel);
	table_remove(&worker->channel_numbers, &channel->by_number);
	table_remove(&worker->channel_peers, &channel->by_peer);
	list_del(&channel->link);
	allocation->channel_count--;
	worker->counters.channels--;
	free(channel);
}

void turn_channels_clear(struct allocation *allocation, sa_family_t family)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &allocation->channels) {
		struct channel *channel = list_entry(pos, struct channel, link);

		if (addr_family(&channel->peer) == family)
			channel_remove(channel);
	}
}

static void channels_sweep(struct allocation *allocation)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &allocation->channels) {
		struct channel *channel = list_entry(pos, struct channel, link);

		if (!holds_now(channel))
			channel_remove(channel);
	}
}

unsigned int turn_channels_count(const struct allocation *allocation)
{
	unsigned int count = 0;
	struct list *pos;

	list_for_each(pos, &allocation->channels)
		count += holds_now(list_entry(pos, struct channel, link));
	return count;
}

static struct channel *channel_add(struct allocation *allocation,
				   uint16_t number, const union addr *peer)
{
	struct turn_worker *worker = allocation->worker;
	struct channel *channel;

	if (allocation->channel_count >=
	    turn_limits(worker)->channels_per_allocation)
		return NULL;
	channel = calloc(1, sizeof(*channel));
	if (!channel)
		return NULL;
	channel->allocation = allocation;
	channel->number = number;
	channel->peer = *peer;
	table_insert(&worker->channel_numbers, &channel->by_number,
		     number_hash(allocation, number));
	table_insert(&worker->channel_peers, &channel->by_peer,
		     peer_hash(allocation, peer));
	list_add_tail(&channel->link, &allocation->channels);
	allocation->channel_count++;
	worker->counters.channels++;
	return channel;
}

/* What the request asks for: 0, or the code that refuses it. */
static int request_read(const struct request *req,
			const struct allocation *allocation, uint16_t *number,
			union addr *peer)
{
	const bool old = turn_conf(req->worker)->relay.old_channels;
	struct stun_attr attr;

	if (!stun_find(req->msg, STUN_ATTR_CHANNEL_NUMBER, &attr) ||
	    attr.len != 4)
		return STUN_CODE_BAD_REQUEST;
	*number = get_be16(attr.value);
	if (*number < NUMBER_MIN || *number > (old ? OLD_MAX : NUMBER_MAX))
		return STUN_CODE_BAD_REQUEST;
	return turn_request_peer_port(req, allocation, peer);
}

/* Makes or prolongs the binding and its permission. 0 or a code. */
static int channel_bind(struct allocation *allocation, uint16_t number,
			const union addr *peer)
{
	struct turn_worker *worker = allocation->worker;
	struct channel *channel, *other;
	bool fresh;
	int code;

	channels_sweep(allocation);
	channel = turn_channel_of_number(allocation, number);
	other = turn_channel_of_peer(allocation, peer);
	if (channel != other)
		return STUN_CODE_BAD_REQUEST;
	fresh = !channel;
	if (fresh)
		channel = channel_add(allocation, number, peer);
	if (!channel)
		return STUN_CODE_INSUFFICIENT_CAPACITY;
	code = turn_permission_grant(allocation, peer);
	if (code && fresh)
		channel_remove(channel);
	if (code)
		return code;
	channel->expires_ms = loop_now(worker->loop) +
			      turn_limits(worker)->channel_lifetime_ms;
	/* The permission may be of other channels, too. */
	turn_lanes_refresh(allocation);
	return 0;
}

int turn_channel_bind(struct request *req)
{
	struct allocation *allocation;
	uint16_t number;
	union addr peer;
	int code = turn_request_allocation(req, &allocation);

	if (code)
		return code;
	if (allocation->transport != STUN_TRANSPORT_UDP)
		return STUN_CODE_FORBIDDEN;
	code = request_read(req, allocation, &number, &peer);
	return code ? code : channel_bind(allocation, number, &peer);
}
