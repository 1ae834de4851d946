/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Channels on wire.
 *
 * A channel is asked for when it has carried a few datagrams: one that carries none
 * takes no place, and the host's connection tracking, if there is any, knows by then
 * whether it translates. From the moment it is on the kernel relays what it can;
 * what it cannot comes here as before. It ends with whichever ends first, the channel,
 * its permission, its allocation, and the broker is told when that moves. One that is
 * refused is asked for again when the client has prolonged any of them.
 */
#include "turn/lane.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "transport/udp.h"
#include "turn/access.h"
#include "turn/client.h"
#include "turn/datagram.h"
#include "turn/on_wire.h"
#include "turn/outlet.h"
#include "turn/permission.h"

#define FIRST_BY_US 8 /* datagrams */
#define NS_PER_MS   UINT64_C(1000000)
/* An end that moves by less is not told: with each request it does. */
#define SLACK_NS (1000 * NS_PER_MS)

static struct outlet *outlet_of(const struct channel *channel)
{
	return turn_outlet_of(channel->allocation, addr_family(&channel->peer));
}

static uint64_t expires_ns(const struct channel *channel)
{
	const struct outlet *outlet = outlet_of(channel);
	uint64_t ms =
		turn_permission_expires(channel->allocation, &channel->peer);

	if (channel->expires_ms < ms)
		ms = channel->expires_ms;
	if (outlet->expires_ms < ms)
		ms = outlet->expires_ms;
	return ms * NS_PER_MS;
}

bool turn_lanes_wanted(const struct turn_worker *worker)
{
	const struct conf *conf = turn_conf(worker);

	return conf->engine.wire_datagrams && conf_engine_wanted(conf, "wire");
}

/* May a channel of this outlet? */
static bool lanes_may(const struct outlet *outlet)
{
	const struct allocation *allocation = outlet->allocation;

	return allocation->client &&
	       !turn_client_connected(allocation->client) &&
	       turn_conf(allocation->worker)->engine.wire_datagrams &&
	       turn_wire_wanted(outlet);
}

void turn_lanes_make_way(struct outlet *outlet)
{
	if (outlet->udp)
		udp_socket_trains(outlet->udp, !lanes_may(outlet));
}

static bool is_wanted(const struct channel *channel)
{
	return !channel->allocation->former && lanes_may(outlet_of(channel));
}

static void count(struct channel *channel, const struct wire_lane *lane)
{
	const struct wire_lane_leg *peers = &lane->leg[WIRE_CLIENT],
				   *client = &lane->leg[WIRE_PEER];
	struct allocation *allocation = channel->allocation;
	struct counters *counters = &allocation->worker->counters;
	struct lane_counts *seen = &channel->seen;
	uint64_t up = peers->bytes - seen->up_bytes;
	uint64_t down = client->bytes - seen->down_bytes;

	counters->datagrams_to_peers += peers->packets - seen->up;
	counters->datagrams_to_clients += client->packets - seen->down;
	counters->datagrams_on_wire +=
		peers->packets - seen->up + client->packets - seen->down;
	counters->bytes_to_peers += up;
	counters->bytes_to_clients += down;
	allocation->bytes_to_peers += up;
	allocation->bytes_to_client += down;
	*seen = (struct lane_counts){
		.up = peers->packets,
		.down = client->packets,
		.up_bytes = peers->bytes,
		.down_bytes = client->bytes,
	};
}

static void look(struct channel *channel)
{
	struct wire_lane lane;

	if (channel->on_wire && wire_lane_read(&channel->lane, &lane))
		count(channel, &lane);
}

static void off(struct channel *channel)
{
	look(channel);
	if (channel->on_wire)
		channel->allocation->worker->counters.lanes--;
	channel->on_wire = false;
	channel->by_us = 0;
}

/* Until one of its ends of life moves. */
static void refuse(struct channel *channel, enum wire_reason why)
{
	const struct allocation *allocation = channel->allocation;

	channel->refused = true;
	allocation->worker->counters.lanes_refused++;
	log_debug(ROOM,
		  "event=lane_refused allocation=a%u.%ju channel=%u reason=%s",
		  allocation->worker->index, (uintmax_t)allocation->serial,
		  channel->number, wire_reason_name(why));
}

static void changed(struct wire_lane_link *link, enum wire_reason why)
{
	struct channel *channel = list_entry(link, struct channel, lane);
	struct counters *counters = &channel->allocation->worker->counters;

	if (why == WIRE_OK) {
		channel->on_wire = true;
		channel->seen = (struct lane_counts){ .up = 0 };
		counters->lanes++;
		counters->lanes_made++;
		return;
	}
	if (!channel->on_wire && why != WIRE_NO_BROKER)
		refuse(channel, why);
	off(channel);
}

static const struct wire_lane_ops lane_ops = { .changed = changed };

static void bytes_put(uint8_t out[16], const union addr *addr)
{
	size_t len;
	const uint8_t *bytes = addr_bytes(addr, &len);

	memcpy(out, bytes, len);
}

static void ask(struct channel *channel)
{
	struct allocation *allocation = channel->allocation;
	const struct client *client = allocation->client;
	struct wire_lane_wish wish = {
		.listener = turn_datagram_fd(client->port),
		.relayed = udp_socket_fd(outlet_of(channel)->udp),
		.channel = channel->number,
		.client_port = htons(addr_port(&client->remote)),
		.peer_port = htons(addr_port(&channel->peer)),
		.expires_ns = expires_ns(channel),
	};
	int err;

	bytes_put(wish.client, &client->remote);
	bytes_put(wish.local, &client->local);
	bytes_put(wish.peer, &channel->peer);
	channel->lane.ops = &lane_ops;
	err = wire_lane_ask(allocation->worker->wire, &channel->lane, &wish);
	if (err == -EBUSY)
		refuse(channel, WIRE_NO_ROOM);
	else if (err)
		channel->by_us = 0;
}

void turn_lane_used(struct channel *channel)
{
	const struct allocation *allocation = channel->allocation;

	if (++channel->by_us < FIRST_BY_US || channel->refused ||
	    wire_lane_is_used(&channel->lane))
		return;
	if (is_wanted(channel) && expires_ns(channel) &&
	    wire_lanes_ready(allocation->worker->wire))
		ask(channel);
	else
		channel->by_us = 0;
}

void turn_lane_end(struct channel *channel)
{
	if (!wire_lane_is_used(&channel->lane))
		return;
	off(channel);
	wire_lane_end(&channel->lane);
}

void turn_lane_refresh(struct channel *channel)
{
	uint64_t now = channel->lane.expires_ns, next = expires_ns(channel);

	channel->refused = false;
	if (!wire_lane_is_used(&channel->lane))
		return;
	if (!next || !is_wanted(channel) ||
	    !turn_access_allows_channel(channel))
		turn_lane_end(channel);
	else if (next < now || next - now >= SLACK_NS)
		wire_lane_expire(&channel->lane, next);
}

void turn_lanes_refresh(struct allocation *allocation)
{
	struct outlet *outlet = turn_outlet_next(allocation, NULL);
	struct list *pos;

	for (; outlet; outlet = turn_outlet_next(allocation, outlet))
		turn_lanes_make_way(outlet);
	list_for_each(pos, &allocation->channels)
		turn_lane_refresh(list_entry(pos, struct channel, link));
}

void turn_lanes_end(struct allocation *allocation)
{
	struct list *pos;

	list_for_each(pos, &allocation->channels)
		turn_lane_end(list_entry(pos, struct channel, link));
}

void turn_lanes_look(struct turn_worker *worker)
{
	struct list *pos, *at;

	if (!worker->counters.lanes)
		return;
	list_for_each(pos, &worker->allocations) {
		struct allocation *allocation =
			list_entry(pos, struct allocation, link);

		list_for_each(at, &allocation->channels)
			look(list_entry(at, struct channel, link));
	}
}
