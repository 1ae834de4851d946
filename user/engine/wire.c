/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wire, seen from a worker: links and what becomes of them.
 *
 *   out --wire_join()--> asked --joined--> latched --ACTIVE--> active
 *    ^                     |  refused,        |                   |
 *    +---------------------+--again-----------+------ENDED--------+
 *
 * A place in the map is given to one pair after another; the generation tells
 * them apart, and a link is found by both.
 *
 * The one thing that must not happen is that a pair is joined and the worker does
 * not know, or takes the sockets for its own and moves bytes beside the kernel:
 *
 * - A join that has been sent is undone by nothing but its answer. Who gives it
 *   up meanwhile leaves its struct wire_ask behind, and if that is joined after
 *   all it is reset.
 * - When the channel breaks, a join that was sent and not answered ends with
 *   WIRE_END_ORPHAN, never with a refusal that would start a stream engine:
 *   nobody knows whether it has happened. One still in the queue is refused.
 * - Latched ones end so, too: a broker resets what was not active on a channel
 *   that has closed, and the next one what the last has left so.
 * - Active ones need nobody. They are claimed from the next broker.
 */
#include <assert.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/syscalls.h"
#include "engine/wire_internal.h"

SYSCALLS_EQUAL(SYSCALLS_RELAY, "bpf", 0, BPF_MAP_LOOKUP_ELEM);
SYSCALLS(SYSCALLS_RELAY, "close");

#define CAPACITY_MAX (1u << 22)
#define ANSWER_MS    5000
#define ASKS_MAX     65536u /* unanswered, in the queue included */

_Static_assert(offsetof(struct wire_ask, message) == 0, "freed as a message");

/*
 * The map's descriptor allows reading only; it cannot be mapped, for the kernel
 * maps a BPF map only through one that may write. A read is one system call.
 */
static int map_read(int map, uint32_t place, struct wire_pair *out)
{
	union bpf_attr attr = {
		.map_fd = (uint32_t)map,
		.key = (uintptr_t)&place,
		.value = (uintptr_t)out,
	};

	if (syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &attr, sizeof(attr)) < 0)
		return -errno;
	return 0;
}

static uint64_t number_hash(uint32_t number)
{
	return number * UINT64_C(0x9e3779b97f4a7c15);
}

static struct wire_link *link_find(const struct wire *wire, uint32_t place)
{
	struct table_node *node = table_first(&wire->links, number_hash(place));

	for (; node; node = table_next(node)) {
		struct wire_link *link =
			list_entry(node, struct wire_link, node);

		if (link->place == place)
			return link;
	}
	return NULL;
}

/* By place and generation. */
static struct wire_link *link_know(const struct wire *wire, uint32_t place,
				   uint32_t generation)
{
	struct wire_link *link = link_find(wire, place);

	return link && link->generation == generation ? link : NULL;
}

static void link_enter(struct wire *wire, struct wire_link *link,
		       uint32_t place, uint32_t generation, struct list *list)
{
	link->wire = wire;
	link->place = place;
	link->generation = generation;
	link->reset = WIRE_RESET_NOT;
	table_insert(&wire->links, &link->node, number_hash(place));
	list_add_tail(&link->list, list);
}

static void link_leave(struct wire_link *link)
{
	table_remove(&link->wire->links, &link->node);
	list_del(&link->list);
	link->state = WIRE_LINK_OUT;
}

static void link_end(struct wire_link *link, enum wire_end end,
		     const struct wire_stats *stats)
{
	static const struct wire_stats none;

	if (link->state == WIRE_LINK_ASKED)
		link->state = WIRE_LINK_OUT;
	else
		link_leave(link);
	link->ops->ended(link, end, stats ? stats : &none);
}

static struct wire_ask *ask_find(const struct wire *wire, uint32_t ticket)
{
	struct table_node *node = table_first(&wire->asks, number_hash(ticket));

	for (; node; node = table_next(node)) {
		struct wire_ask *ask = list_entry(node, struct wire_ask, node);

		if (ask->message.body.join.ticket == ticket)
			return ask;
	}
	return NULL;
}

static bool ask_is_sent(const struct wire_ask *ask)
{
	return list_empty(&ask->message.list);
}

/* Out of the table and its list; the caller frees it. */
static struct wire_link *ask_leave(struct wire *wire, struct wire_ask *ask)
{
	struct wire_link *link = ask->link;

	if (ask_is_sent(ask))
		wire->sent--;
	table_remove(&wire->asks, &ask->node);
	list_del(&ask->message.list);
	list_del(&ask->list);
	if (link)
		link->ask = NULL;
	return link;
}

int wire_new(const struct wire_params *params, struct wire **out)
{
	struct wire *wire = calloc(1, sizeof(*wire));

	if (!wire)
		return -ENOMEM;
	wire->params = *params;
	if (table_init(&wire->links) || table_init(&wire->asks) ||
	    wire_lanes_init(wire)) {
		table_destroy(&wire->links);
		table_destroy(&wire->asks);
		free(wire);
		return -ENOMEM;
	}
	if (!wire->params.answer_ms)
		wire->params.answer_ms = ANSWER_MS;
	if (!wire->params.read)
		wire->params.read = map_read;
	wire->watch.fd = -1;
	wire->map = -1;
	for (int i = 0; i < SOCKMAP_MAPS; i++)
		wire->sockmap[i] = -1;
	list_init(&wire->latched);
	list_init(&wire->active);
	list_init(&wire->claims);
	list_init(&wire->resets);
	list_init(&wire->asked);
	list_init(&wire->messages);
	list_init(&wire->unsent);
	snprintf(wire->why, sizeof(wire->why),
		 "there is no broker: culvertd was not started as root, "
		 "or its log says why");
	*out = wire;
	return 0;
}

static void sockmap_release(struct wire *wire)
{
	for (int i = 0; i < SOCKMAP_MAPS; i++)
		fd_close(&wire->sockmap[i]);
}

void wire_free(struct wire *wire)
{
	struct list *pos, *tmp;

	if (!wire)
		return;
	assert(wire->links.count == 0);
	wire->params.changed = NULL;
	wire->params.sockmap = NULL;
	wire_channel_flush(wire);
	if (wire->watch.fd >= 0)
		wire_channel_close(wire, "");
	loop_undefer(&wire->pump);
	list_for_each_safe(pos, tmp, &wire->messages)
		free(list_entry(pos, struct wire_message, list));
	fd_close(&wire->map);
	sockmap_release(wire);
	wire_lanes_free(wire);
	table_destroy(&wire->links);
	table_destroy(&wire->asks);
	free(wire);
}

bool wire_ready(const struct wire *wire)
{
	return wire->ready;
}

const char *wire_why(const struct wire *wire)
{
	return wire->ready ? "" : wire->why;
}

uint32_t wire_capacity(const struct wire *wire)
{
	return wire->capacity;
}

int wire_join(struct wire *wire, struct wire_link *link,
	      const struct wire_join *join)
{
	struct wire_ask *ask;
	struct broker_join *body;

	assert(link->state == WIRE_LINK_OUT);
	if (!wire->ready)
		return -ENOTCONN;
	if (wire->asks.count >= ASKS_MAX)
		return -EBUSY;
	ask = calloc(1, sizeof(*ask));
	if (!ask)
		return -ENOMEM;
	ask->message.len = sizeof(*body);
	ask->message.fds[WIRE_CLIENT] = join->client;
	ask->message.fds[WIRE_PEER] = join->peer;
	list_init(&ask->list);
	body = &ask->message.body.join;
	body->type = BROKER_JOIN;
	body->ticket = ++wire->ticket;
	body->to_client = join->to_client;
	body->unread = join->unread;
	body->allocation = join->allocation;
	body->expires_ns = join->expires_ns;
	snprintf(body->label, sizeof(body->label), "%s", join->label);
	ask->link = link;
	ask->since_ms = loop_now(wire->params.loop);
	link->wire = wire;
	link->ask = ask;
	link->state = WIRE_LINK_ASKED;
	wire->tries++;
	table_insert(&wire->asks, &ask->node, number_hash(body->ticket));
	wire_channel_post(wire, &ask->message);
	return 0;
}

void wire_reset(struct wire_link *link)
{
	struct wire *wire = link->wire;

	if (link->reset != WIRE_RESET_NOT)
		return;
	link->reset = WIRE_RESET_WANTED;
	/* One to be claimed gets there afterwards. */
	if (link->state == WIRE_LINK_ACTIVE && !wire->welcome)
		return;
	list_del(&link->list);
	list_add_tail(&link->list, &wire->resets);
	wire_channel_pump(wire);
}

/* A link that goes while its pair is to be reset: with nobody to end it, it would
 * live on. A message says so in its place, to the next broker should this one go.
 */
static void link_condemn(struct wire *wire, const struct wire_link *link)
{
	struct wire_message *message = calloc(1, sizeof(*message));

	if (!message)
		return; /* it ends with its allocation's lifetime */
	message->len = sizeof(message->body.reset);
	message->body.reset = (struct broker_reset){
		.type = BROKER_RESET,
		.pair = link->place,
		.generation = link->generation,
	};
	list_add_tail(&message->list, &wire->messages);
}

void wire_forget(struct wire_link *link)
{
	struct wire_ask *ask = link->ask;

	if (link->state == WIRE_LINK_OUT)
		return;
	if (link->state != WIRE_LINK_ASKED) {
		if (link->reset == WIRE_RESET_WANTED) {
			link_condemn(link->wire, link);
			wire_channel_pump(link->wire);
		}
		link_leave(link);
		return;
	}
	link->state = WIRE_LINK_OUT;
	if (ask_is_sent(ask)) {
		ask->link = NULL;
		link->ask = NULL;
	} else {
		ask_leave(link->wire, ask);
		free(ask);
	}
}

void wire_adopt(struct wire *wire, struct wire_link *link, uint32_t place,
		uint32_t generation)
{
	link->state = WIRE_LINK_ACTIVE;
	/* Should it have ended meanwhile the broker says so. */
	link_enter(wire, link, place, generation, &wire->claims);
}

void wire_expire(struct wire *wire, uint64_t allocation, uint64_t expires_ns)
{
	struct wire_message *message;

	/* Without pairs, asked for or joined, there is nothing to tell. */
	if (!wire->links.count && !wire->asks.count)
		return;
	message = calloc(1, sizeof(*message));
	if (!message)
		return; /* they end as they would have without */
	message->len = sizeof(message->body.expire);
	message->body.expire = (struct broker_expire){
		.type = BROKER_EXPIRE,
		.allocation = allocation,
		.expires_ns = expires_ns,
	};
	wire_channel_post(wire, message);
}

/* A join given up before its answer, which says that it was joined. */
static void ask_undo(struct wire *wire, struct wire_ask *ask,
		     const struct broker_answer *msg)
{
	struct wire_message *message = &ask->message;

	message->len = sizeof(message->body.reset);
	message->body.reset = (struct broker_reset){
		.type = BROKER_RESET,
		.pair = msg->pair,
		.generation = msg->generation,
	};
	wire_channel_post(wire, message);
}

bool wire_answer(struct wire *wire, const struct broker_answer *msg)
{
	struct wire_ask *ask = ask_find(wire, msg->ticket);
	struct wire_link *link;

	if (!ask || !ask_is_sent(ask) || msg->reason > WIRE_NO_ERROR)
		return false;
	if (msg->reason == WIRE_OK &&
	    (msg->pair >= wire->capacity ||
	     link_know(wire, msg->pair, msg->generation)))
		return false;
	/* Of an adopted one the end may have been told to nobody. */
	if (msg->reason == WIRE_OK && link_find(wire, msg->pair))
		link_end(link_find(wire, msg->pair), WIRE_END_ORPHAN, NULL);
	link = ask_leave(wire, ask);
	if (!link && msg->reason == WIRE_OK) {
		ask_undo(wire, ask, msg);
		return true;
	}
	free(ask);
	if (!link)
		return true;
	link->state = WIRE_LINK_OUT;
	if (msg->reason == WIRE_OK) {
		link->state = WIRE_LINK_LATCHED;
		link_enter(wire, link, msg->pair, msg->generation,
			   &wire->latched);
		wire->joins++;
	}
	link->ops->answered(link, (enum wire_reason)msg->reason);
	return true;
}

bool wire_active(struct wire *wire, const struct broker_active *msg)
{
	struct wire_link *link = link_know(wire, msg->pair, msg->generation);

	/* Of one given up we do not want to know; a claim was confirmed. */
	if (!link || link->state == WIRE_LINK_ACTIVE)
		return true;
	link->state = WIRE_LINK_ACTIVE;
	if (link->reset != WIRE_RESET_WANTED) {
		list_del(&link->list);
		list_add_tail(&link->list, &wire->active);
	}
	link->ops->active(link);
	return true;
}

bool wire_ended(struct wire *wire, const struct broker_ended *msg)
{
	struct wire_link *link = link_know(wire, msg->pair, msg->generation);
	const struct wire_stats stats = {
		.bytes = { msg->bytes[WIRE_CLIENT], msg->bytes[WIRE_PEER] },
		.idle_ns = msg->idle_ns,
	};

	if (msg->end == WIRE_END_NONE || msg->end > WIRE_END_ORPHAN)
		return false;
	if (link)
		link_end(link, (enum wire_end)msg->end, &stats);
	return true;
}

static void orphans_look(struct wire *wire)
{
	struct wire_pair pair;

	for (uint32_t i = 0; i < wire->capacity; i++)
		if (wire->params.read(wire->map, i, &pair) == 0 &&
		    pair.state == WIRE_JOINED && !link_find(wire, i))
			wire->params.orphan(wire->params.arg, i, &pair);
}

/* Can this process read the map? 0, or why not. */
static int map_take(struct wire *wire, uint32_t capacity, int fd)
{
	struct wire_pair pair;
	int err = wire->params.read(fd, capacity - 1, &pair);

	if (err) {
		fd_close(&fd);
		return err;
	}
	fd_close(&wire->map);
	wire->map = fd;
	wire->capacity = capacity;
	return 0;
}

static bool welcome_sane(const struct broker_welcome *msg, int pairs, int lanes)
{
	bool given = msg->capacity != 0;

	return given == (pairs >= 0) && given == (msg->error == 0) &&
	       (msg->lanes != 0) == (lanes >= 0) && (given || !msg->lanes) &&
	       !msg->zero && msg->error <= 0 &&
	       msg->version == BROKER_PROTOCOL &&
	       msg->capacity <= CAPACITY_MAX &&
	       memchr(msg->why, '\0', sizeof(msg->why));
}

bool wire_welcome(struct wire *wire, const struct broker_welcome *msg,
		  int pairs, int lanes)
{
	int err = msg->error;

	if (!welcome_sane(msg, pairs, lanes)) {
		fd_close(&pairs);
		fd_close(&lanes);
		return false;
	}
	if (msg->capacity)
		err = map_take(wire, msg->capacity, pairs);
	wire_lanes_welcome(wire, msg->lanes, lanes);
	wire->ready = !err;
	if (err)
		snprintf(wire->why, sizeof(wire->why), "%s",
			 msg->why[0] ? msg->why : strerror(-err));
	if (wire->ready && wire->params.orphan)
		orphans_look(wire);
	if (wire->params.changed)
		wire->params.changed(wire->params.arg);
	return true;
}

/* A link whose pair may or may not be joined, by somebody who has gone. */
static void asks_lost(struct wire *wire)
{
	while (!list_empty(&wire->asked)) {
		struct wire_ask *ask =
			list_entry(wire->asked.next, struct wire_ask, list);
		struct wire_link *link = ask_leave(wire, ask);

		free(ask);
		if (link)
			link_end(link, WIRE_END_ORPHAN, NULL);
	}
}

/* Joins that were never sent; other messages wait for the next broker. */
static void messages_lost(struct wire *wire)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &wire->messages) {
		struct wire_message *message =
			list_entry(pos, struct wire_message, list);

		if (message->body.type == BROKER_JOIN) {
			list_del(pos);
			list_add_tail(pos, &wire->unsent);
		} else if (message->body.type == BROKER_SOCKMAP) {
			list_del(pos);
			free(message);
		}
	}
	while (!list_empty(&wire->unsent)) {
		struct wire_ask *ask = list_entry(
			wire->unsent.next, struct wire_ask, message.list);
		struct wire_link *link = ask_leave(wire, ask);

		free(ask);
		if (!link)
			continue;
		link->state = WIRE_LINK_OUT;
		link->ops->answered(link, WIRE_NO_BROKER);
	}
}

static void links_lost(struct wire *wire)
{
	struct list gone, *pos, *tmp;

	list_init(&gone);
	list_splice_tail(&wire->latched, &gone);
	list_for_each_safe(pos, tmp, &wire->resets) {
		struct wire_link *link =
			list_entry(pos, struct wire_link, list);

		list_del(pos);
		list_add_tail(pos, link->state == WIRE_LINK_ACTIVE ?
					   &wire->active :
					   &gone);
	}
	list_for_each(pos, &wire->active) {
		struct wire_link *link =
			list_entry(pos, struct wire_link, list);

		if (link->reset == WIRE_RESET_SENT)
			link->reset = WIRE_RESET_WANTED;
	}
	list_splice_tail(&wire->active, &wire->claims);
	while (!list_empty(&gone)) {
		struct wire_link *link =
			list_entry(gone.next, struct wire_link, list);

		/* It may have become active without our knowing. */
		link_condemn(wire, link);
		link_end(link, WIRE_END_ORPHAN, NULL);
	}
}

/*
 * A channel given up would take all that is asked for with it. Its answers are worth
 * as much when they come late, so all that waits.
 */
void wire_overdue(struct wire *wire, bool overdue)
{
	if (overdue ? !wire->ready : !wire->overdue)
		return;
	wire->overdue = overdue;
	wire->ready = !overdue;
	snprintf(wire->why, sizeof(wire->why), "the broker does not answer");
	if (wire->params.changed)
		wire->params.changed(wire->params.arg);
}

void wire_lost(struct wire *wire, const char *why)
{
	bool was = wire->ready;

	wire->ready = wire->overdue = false;
	snprintf(wire->why, sizeof(wire->why), "%s", why);
	asks_lost(wire);
	messages_lost(wire);
	links_lost(wire);
	wire_lanes_lost(wire);
	if (wire->sockmap_asked) {
		wire->sockmap_asked = false;
		if (wire->params.sockmap)
			wire->params.sockmap(wire->params.arg, -ENOTCONN);
	}
	if (was && wire->params.changed)
		wire->params.changed(wire->params.arg);
}

int wire_sockmap(struct wire *wire)
{
	struct wire_message *message;

	if (wire->sockmap_asked)
		return 0;
	if (wire->watch.fd < 0)
		return -ENOTCONN;
	message = calloc(1, sizeof(*message));
	if (!message)
		return -ENOMEM;
	message->len = sizeof(message->body.sockmap);
	message->body.sockmap = (struct broker_sockmap){
		.type = BROKER_SOCKMAP,
		.version = BROKER_PROTOCOL,
	};
	wire->sockmap_asked = true;
	wire_channel_post(wire, message);
	return 0;
}

bool wire_sockmap_maps(struct wire *wire, const struct broker_sockmap_maps *msg,
		       const int *fds, size_t count)
{
	bool given = msg->error == 0;

	if (!wire->sockmap_asked || msg->error > 0 ||
	    count != (given ? SOCKMAP_MAPS : 0)) {
		while (count)
			close(fds[--count]);
		return false;
	}
	wire->sockmap_asked = false;
	sockmap_release(wire);
	for (size_t i = 0; i < count; i++)
		wire->sockmap[i] = fds[i];
	if (wire->params.sockmap)
		wire->params.sockmap(wire->params.arg, msg->error);
	return true;
}

const int *wire_sockmap_fds(const struct wire *wire)
{
	return wire->sockmap[0] < 0 ? NULL : wire->sockmap;
}

bool wire_link_read(const struct wire_link *link, struct wire_pair *out)
{
	const struct wire *wire = link->wire;
	struct wire_pair pair;

	if (!wire || link->place >= wire->capacity ||
	    link->state < WIRE_LINK_LATCHED ||
	    wire->params.read(wire->map, link->place, &pair) != 0 ||
	    pair.generation != link->generation || pair.state == WIRE_FREE)
		return false;
	*out = pair;
	return true;
}

/* Payload acknowledged by this leg's remote end, without the other's FIN. */
static uint64_t leg_bytes(const struct wire_pair *pair, int to)
{
	const struct wire_leg *leg = &pair->leg[to], *from = &pair->leg[!to];
	uint64_t bytes = leg->acked - pair->started[to];
	uint32_t fin = from->fin_end + from->seq_delta;

	/* While it is latched. */
	if (leg->acked <= pair->started[to])
		return 0;
	if (from->flags & WIRE_LEG_FIN &&
	    (int32_t)((uint32_t)leg->acked - fin) >= 0)
		bytes--;
	return bytes;
}

bool wire_link_stats(const struct wire_link *link, struct wire_stats *out)
{
	struct wire_pair pair;
	uint64_t now, seen;

	if (!wire_link_read(link, &pair))
		return false;
	now = clock_ns();
	seen = pair.created_ns;
	for (int i = 0; i < WIRE_LEGS; i++) {
		if (pair.leg[i].seen_ns > seen)
			seen = pair.leg[i].seen_ns;
		out->bytes[i] = leg_bytes(&pair, i);
	}
	out->idle_ns = now > seen ? now - seen : 0;
	return true;
}

void wire_get_usage(const struct wire *wire, struct wire_usage *out)
{
	*out = (struct wire_usage){
		.pairs_now = wire->links.count,
		.lanes_now = wire->lanes.count,
		.joins = wire->joins,
		.asked = wire->tries,
	};
}

struct words {
	const char *name, *text;
};

static const struct words reasons[WIRE_REASONS] = {
	[WIRE_OK] = { "ok", "" },
	[WIRE_AGAIN] = { "again", "data came during the join" },
	[WIRE_NO_FAMILY] = { "family", "IPv4 on one side, IPv6 on the other" },
	[WIRE_NO_TIMESTAMPS] = { "timestamps",
				 "TCP timestamps on one side only" },
	[WIRE_NO_SACK] = { "sack",
			   "SACK (selective acknowledgements) on one side only" },
	[WIRE_NO_SCALE] = { "scale", "a window scale coarser than a segment" },
	[WIRE_NO_ECN] = { "ecn", "congestion notification was negotiated" },
	[WIRE_NO_MD5] = { "md5", "signed segments" },
	[WIRE_NO_MSS] = { "mss",
			  "segments of one side do not fit the other's path" },
	[WIRE_NO_LOCAL] = { "local",
			    "an end is on this host, or this host translates it" },
	[WIRE_NO_DEVICE] = { "device", "a route by a device without wire" },
	[WIRE_NO_STATE] = { "state", "a side had ended or failed" },
	[WIRE_NO_URGENT] = { "urgent", "urgent data under way" },
	[WIRE_NO_ROOM] = { "room", "wire_pairs are in use" },
	[WIRE_NO_ERROR] = { "error", "a system call of the join failed" },
	[WIRE_NO_BROKER] = { "broker", "wire is off: see culvertctl engines" },
	[WIRE_NO_QUIET] = { "quiet", "data kept coming during the join" },
	[WIRE_NO_EARLY] = { "early", "too many bytes before the join" },
	[WIRE_NO_POLICY_LOSS] = { "policy_loss",
				  "policy: a side loses segments" },
	[WIRE_NO_POLICY_RTT] = { "policy_rtt", "policy: a long path" },
	[WIRE_NO_POLICY_GROWTH] = { "policy_growth",
				    "policy: a much longer round trip" },
	[WIRE_NO_PINNED] = { "pinned", "other engines are configured" },
	[WIRE_NO_PINNED_USER] = { "pinned_user", "the user has other engines" },
	[WIRE_NO_PINNED_REALM] = { "pinned_realm",
				   "the realm has other engines" },
	[WIRE_NO_PINNED_EXIT] = { "pinned_exit", "the exit has other engines" },
	[WIRE_NO_SEAL] = { "tls", "TLS, whose bytes the relay has to decrypt" },
	[WIRE_NO_RATE] = { "rate", "its bandwidth has a limit" },
};

const char *wire_reason_text(enum wire_reason reason)
{
	return reason < WIRE_REASONS ? reasons[reason].text : "?";
}

const char *wire_reason_name(enum wire_reason reason)
{
	return reason < WIRE_REASONS ? reasons[reason].name : "?";
}

const char *wire_end_name(enum wire_end end)
{
	switch (end) {
	case WIRE_END_NONE:
		return "none";
	case WIRE_END_FIN:
		return "fin";
	case WIRE_END_RESET_CLIENT:
		return "reset_client";
	case WIRE_END_RESET_PEER:
		return "reset_peer";
	case WIRE_END_EXPIRED:
		return "expired";
	case WIRE_END_RESET:
		return "reset";
	case WIRE_END_LATCH:
		return "latch";
	case WIRE_END_ORPHAN:
		return "orphan";
	}
	return "?";
}
