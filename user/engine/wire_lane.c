/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lanes, seen from a worker.
 *
 *   off --wire_lane_ask()--> asked --on--> on
 *    ^                         | refused,   | its time is up, wire_lane_end(),
 *    +-------------------------+------------+ the channel has gone
 *
 * A lane is known by a number that this side gives, so that one can be ended before it
 * is answered. The message that ends it is there from the start: a lane that could not
 * be ended for want of memory would outlive its channel. With the channel to the broker
 * all lanes are gone, and the messages about them, too.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/syscalls.h"
#include "engine/wire_internal.h"

SYSCALLS_EQUAL(SYSCALLS_RELAY, "bpf", 0, BPF_MAP_LOOKUP_ELEM);

#define LANES_MOST (1u << 22)

enum lane_state {
	LANE_OFF,
	LANE_ASKED,
	LANE_ON,
};

/* The descriptor allows reading only: as of wire_pairs. */
static int map_read(int map, uint32_t lane, struct wire_lane *out)
{
	union bpf_attr attr = {
		.map_fd = (uint32_t)map,
		.key = (uintptr_t)&lane,
		.value = (uintptr_t)out,
	};

	if (syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &attr, sizeof(attr)) < 0)
		return -errno;
	return 0;
}

static uint64_t id_hash(uint64_t id)
{
	return id * UINT64_C(0x9e3779b97f4a7c15);
}

int wire_lanes_init(struct wire *wire)
{
	wire->lane_map = -1;
	list_init(&wire->lane_list);
	if (!wire->params.read_lane)
		wire->params.read_lane = map_read;
	return table_init(&wire->lanes);
}

void wire_lanes_free(struct wire *wire)
{
	fd_close(&wire->lane_map);
	table_destroy(&wire->lanes);
}

void wire_lanes_welcome(struct wire *wire, uint32_t capacity, int fd)
{
	struct wire_lane lane;

	fd_close(&wire->lane_map);
	wire->lane_capacity = 0;
	if (fd < 0 || capacity > LANES_MOST ||
	    wire->params.read_lane(fd, capacity - 1, &lane)) {
		fd_close(&fd);
		return;
	}
	wire->lane_map = fd;
	wire->lane_capacity = capacity;
}

bool wire_lanes_ready(const struct wire *wire)
{
	return wire->ready && wire->lane_capacity;
}

bool wire_lane_is_used(const struct wire_lane_link *link)
{
	return link->state != LANE_OFF;
}

static struct wire_lane_link *lane_find(const struct wire *wire, uint64_t id)
{
	struct table_node *node = table_first(&wire->lanes, id_hash(id));

	for (; node; node = table_next(node)) {
		struct wire_lane_link *link =
			list_entry(node, struct wire_lane_link, node);

		if (link->id == id)
			return link;
	}
	return NULL;
}

/* Off; what is left of its messages is freed. */
static void lane_leave(struct wire_lane_link *link)
{
	if (link->ask) {
		list_del(&link->ask->list);
		free(link->ask);
		link->ask = NULL;
	}
	free(link->end);
	link->end = NULL;
	table_remove(&link->wire->lanes, &link->node);
	list_del(&link->list);
	link->state = LANE_OFF;
}

static struct wire_message *ask_make(uint64_t id,
				     const struct wire_lane_wish *wish)
{
	struct wire_message *message = calloc(1, sizeof(*message));
	struct broker_lane *body;

	if (!message)
		return NULL;
	message->len = sizeof(*body);
	message->fds[WIRE_CLIENT] = wish->listener;
	message->fds[WIRE_PEER] = wish->relayed;
	body = &message->body.lane;
	body->type = BROKER_LANE;
	body->channel = wish->channel;
	body->id = id;
	body->expires_ns = wish->expires_ns;
	memcpy(body->client, wish->client, sizeof(body->client));
	memcpy(body->local, wish->local, sizeof(body->local));
	memcpy(body->peer, wish->peer, sizeof(body->peer));
	body->client_port = wish->client_port;
	body->peer_port = wish->peer_port;
	return message;
}

int wire_lane_ask(struct wire *wire, struct wire_lane_link *link,
		  const struct wire_lane_wish *wish)
{
	if (!wire_lanes_ready(wire))
		return -ENOTCONN;
	if (wire->lanes.count >= wire->lane_capacity)
		return -EBUSY;
	link->id = ++wire->lane_id;
	link->ask = ask_make(link->id, wish);
	link->end = calloc(1, sizeof(*link->end));
	if (!link->ask || !link->end) {
		free(link->ask);
		free(link->end);
		link->ask = link->end = NULL;
		return -ENOMEM;
	}
	link->wire = wire;
	link->expires_ns = wish->expires_ns;
	link->state = LANE_ASKED;
	table_insert(&wire->lanes, &link->node, id_hash(link->id));
	list_add_tail(&link->list, &wire->lane_list);
	wire_channel_post(wire, link->ask);
	return 0;
}

void wire_lane_sent(struct wire *wire, const struct wire_message *message)
{
	struct wire_lane_link *link = lane_find(wire, message->body.lane.id);

	wire->lanes_sent++;
	if (link)
		link->ask = NULL;
}

void wire_lane_expire(struct wire_lane_link *link, uint64_t expires_ns)
{
	struct wire_message *message;

	if (link->state == LANE_OFF || link->expires_ns == expires_ns)
		return;
	link->expires_ns = expires_ns;
	if (link->ask) {
		link->ask->body.lane.expires_ns = expires_ns;
		return;
	}
	message = calloc(1, sizeof(*message));
	if (!message)
		return; /* it ends as it would have without */
	message->len = sizeof(message->body.lane_expire);
	message->body.lane_expire = (struct broker_lane_expire){
		.type = BROKER_LANE_EXPIRE,
		.id = link->id,
		.expires_ns = expires_ns,
	};
	wire_channel_post(link->wire, message);
}

void wire_lane_end(struct wire_lane_link *link)
{
	struct wire *wire = link->wire;
	struct wire_message *end = link->end;
	bool sent = !link->ask;

	if (link->state == LANE_OFF)
		return;
	/* What was never sent needs no end. */
	if (sent)
		link->end = NULL;
	lane_leave(link);
	if (!sent)
		return;
	end->len = sizeof(end->body.lane_end);
	end->body.lane_end = (struct broker_lane_end){
		.type = BROKER_LANE_END,
		.id = link->id,
	};
	wire_channel_post(wire, end);
}

bool wire_lane_answer(struct wire *wire, const struct broker_lane_answer *msg)
{
	struct wire_lane_link *link = lane_find(wire, msg->id);

	if (!wire->lanes_sent || msg->reason > WIRE_NO_ERROR ||
	    (msg->reason == WIRE_OK && msg->lane >= wire->lane_capacity) ||
	    (link && (link->state != LANE_ASKED || link->ask)))
		return false;
	wire->lanes_sent--;
	if (!link)
		return true;
	if (msg->reason == WIRE_OK) {
		link->state = LANE_ON;
		link->lane = msg->lane;
		link->generation = msg->generation;
	} else {
		lane_leave(link);
	}
	link->ops->changed(link, (enum wire_reason)msg->reason);
	return true;
}

bool wire_lane_ended(struct wire *wire, const struct broker_lane_end *msg)
{
	struct wire_lane_link *link = lane_find(wire, msg->id);

	if (!link)
		return true;
	if (link->state != LANE_ON)
		return false;
	lane_leave(link);
	link->ops->changed(link, WIRE_NO_STATE);
	return true;
}

static void messages_drop(struct wire *wire)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &wire->messages) {
		struct wire_message *message =
			list_entry(pos, struct wire_message, list);

		if (message->body.type != BROKER_LANE_EXPIRE &&
		    message->body.type != BROKER_LANE_END)
			continue;
		list_del(pos);
		free(message);
	}
}

void wire_lanes_lost(struct wire *wire)
{
	messages_drop(wire);
	wire->lanes_sent = 0;
	while (!list_empty(&wire->lane_list)) {
		struct wire_lane_link *link = list_entry(
			wire->lane_list.next, struct wire_lane_link, list);

		lane_leave(link);
		link->ops->changed(link, WIRE_NO_BROKER);
	}
}

bool wire_lane_read(const struct wire_lane_link *link, struct wire_lane *out)
{
	const struct wire *wire = link->wire;
	struct wire_lane lane;

	if (!link->generation || wire->lane_map < 0 ||
	    link->lane >= wire->lane_capacity ||
	    wire->params.read_lane(wire->lane_map, link->lane, &lane) ||
	    lane.generation != link->generation)
		return false;
	*out = lane;
	return true;
}
