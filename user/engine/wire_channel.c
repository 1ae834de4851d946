/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The channel of wire to the broker: messages in, checked and handed on; messages
 * out, in turn, those of a tick together at its end.
 *
 * What comes in is taken as strictly as the broker takes what we send: the exact
 * length of its type, exactly its descriptors, WELCOME first and once, values in
 * range. Anything else closes the channel, and wire is off for this worker until it
 * is given another one. What is active goes on meanwhile.
 *
 * What goes out waits while the socket is full: first CLAIM and RESET, which hang
 * in the links themselves so that they cannot fail for want of memory, then the
 * messages. Not more than SENT_MAX joins are unanswered at a time: each has two
 * descriptors under way, and the kernel bounds these. Of lanes the same holds.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/message.h"
#include "engine/wire_internal.h"

#define SENT_MAX 128

_Static_assert(SOCKMAP_MAPS <= WIRE_FDS_MAX, "room for the maps");

/* A packet as it came. */
struct arrival {
	uint64_t bytes[PACKET_BYTES / sizeof(uint64_t)];
	struct message came; /* with it */
};

static bool welcome_take(struct wire *wire, const void *body,
			 struct message *came)
{
	size_t count = came->fd_count;

	if (count > 2 || wire->welcome)
		return false;
	came->fd_count = 0;
	wire->welcome = true;
	return wire_welcome(wire, body, count > 0 ? came->fds[0] : -1,
			    count > 1 ? came->fds[1] : -1);
}

static bool sockmap_take(struct wire *wire, const void *body,
			 struct message *came)
{
	size_t count = came->fd_count;

	if (count > SOCKMAP_MAPS)
		return false;
	came->fd_count = 0;
	return wire_sockmap_maps(wire, body, came->fds, count);
}

static bool answer_take(struct wire *wire, const void *body,
			struct message *came)
{
	(void)came;
	return wire_answer(wire, body);
}

static bool active_take(struct wire *wire, const void *body,
			struct message *came)
{
	(void)came;
	return wire_active(wire, body);
}

static bool ended_take(struct wire *wire, const void *body,
		       struct message *came)
{
	(void)came;
	return wire_ended(wire, body);
}

static bool lane_answer_take(struct wire *wire, const void *body,
			     struct message *came)
{
	(void)came;
	return wire_lane_answer(wire, body);
}

static bool lane_ended_take(struct wire *wire, const void *body,
			    struct message *came)
{
	(void)came;
	return wire_lane_ended(wire, body);
}

/* Those that have a packet of their own may have descriptors. */
static const struct kind {
	size_t size;
	bool alone;
	bool (*take)(struct wire *wire, const void *body, struct message *came);
} kinds[] = {
	[BROKER_WELCOME] = { sizeof(struct broker_welcome), true,
			     welcome_take },
	[BROKER_ANSWER] = { sizeof(struct broker_answer), false, answer_take },
	[BROKER_ACTIVE] = { sizeof(struct broker_active), false, active_take },
	[BROKER_ENDED] = { sizeof(struct broker_ended), false, ended_take },
	[BROKER_SOCKMAP_MAPS] = { sizeof(struct broker_sockmap_maps), true,
				  sockmap_take },
	[BROKER_LANE_ANSWER] = { sizeof(struct broker_lane_answer), false,
				 lane_answer_take },
	[BROKER_LANE_ENDED] = { sizeof(struct broker_lane_end), false,
				lane_ended_take },
};

/* The next message of the packet. false: a rule was broken. */
static bool message_take(struct wire *wire, struct arrival *arrival,
			 size_t *read)
{
	struct message *came = &arrival->came;
	const char *body = (const char *)arrival->bytes + *read;
	const struct kind *kind;
	uint32_t type;

	if (came->len - *read < sizeof(type))
		return false;
	memcpy(&type, body, sizeof(type));
	if (type >= sizeof(kinds) / sizeof(kinds[0]) || !kinds[type].take ||
	    (!wire->welcome && type != BROKER_WELCOME))
		return false;
	kind = &kinds[type];
	if (came->len - *read < kind->size ||
	    (kind->alone ? came->len != kind->size : came->fd_count != 0))
		return false;
	*read += kind->size;
	return kind->take(wire, body, came);
}

static bool arrival_take(struct wire *wire, struct arrival *arrival)
{
	const struct message *came = &arrival->came;
	size_t read = 0;
	bool right = !came->cut && !came->fds_lost && came->len;

	while (right && read < came->len)
		right = message_take(wire, arrival, &read);
	return right;
}

void wire_channel_close(struct wire *wire, const char *why)
{
	int fd = wire->watch.fd;

	watch_del(wire->params.loop, &wire->watch);
	wire->watch.fd = -1;
	fd_close(&fd);
	timer_cancel(wire->params.loop, &wire->timer);
	wire->welcome = false;
	wire_lost(wire, why);
}

/* One packet a tick: others want a turn, too. */
static void channel_ready(struct watch *watch, uint32_t events)
{
	struct wire *wire = list_entry(watch, struct wire, watch);
	struct arrival arrival BYTES_UNSET;
	int err = message_recv(watch->fd, arrival.bytes, sizeof(arrival.bytes),
			       WIRE_FDS_MAX, MSG_DONTWAIT, &arrival.came);

	(void)events;
	if (!err) {
		wire_overdue(wire, false);
		if (!arrival_take(wire, &arrival))
			err = -EBADMSG;
		message_close(&arrival.came);
	}
	if (!err || err == -EAGAIN) {
		wire_channel_pump(wire);
		return;
	}
	if (err == -EBADMSG)
		log_error("engine",
			  "event=broker_bad_message worker=%u bytes=%zu",
			  wire->params.worker, arrival.came.len);
	wire_channel_close(wire, err == -EBADMSG ?
					 "the broker broke the rules" :
					 "the channel to the broker has ended");
	if (wire->params.lost)
		wire->params.lost(wire->params.arg);
}

/* CLAIM and RESET differ in the type only. */
_Static_assert(sizeof(struct broker_claim) == sizeof(struct broker_reset),
	       "CLAIM");

/* What becomes of a link of which this was said. */
static void link_said(struct wire *wire, struct wire_link *link,
		      enum broker_type type)
{
	struct list *to = &wire->active;

	if (type == BROKER_CLAIM && link->reset)
		to = &wire->resets;
	if (type == BROKER_RESET) {
		link->reset = WIRE_RESET_SENT;
		if (link->state != WIRE_LINK_ACTIVE)
			to = &wire->latched;
	}
	list_del(&link->list);
	list_add_tail(&link->list, to);
}

/* Says this of every link of the list. false: later. */
static bool links_send(struct wire *wire, struct list *links,
		       enum broker_type type)
{
	while (!list_empty(links)) {
		struct packet packet BYTES_UNSET;
		struct list *pos;

		packet.count = 0;
		packet.len = packet.fd_count = 0;
		list_for_each(pos, links) {
			const struct wire_link *link =
				list_entry(pos, struct wire_link, list);
			const struct broker_reset msg = {
				.type = type,
				.pair = link->place,
				.generation = link->generation,
			};

			if (!packet_add(&packet, &msg, sizeof(msg), NULL, 0))
				break;
		}
		if (packet_send(wire->watch.fd, &packet, MSG_DONTWAIT))
			return false;
		while (packet.count--)
			link_said(wire,
				  list_entry(links->next, struct wire_link,
					     list),
				  type);
	}
	return true;
}

static bool links_pump(struct wire *wire)
{
	return links_send(wire, &wire->claims, BROKER_CLAIM) &&
	       links_send(wire, &wire->resets, BROKER_RESET);
}

static void ask_sent(struct wire *wire, struct wire_ask *ask)
{
	ask->since_ms = loop_now(wire->params.loop);
	list_add_tail(&ask->list, &wire->asked);
	wire->sent++;
}

static bool goes_alone(const struct wire_message *message)
{
	return message->body.type == BROKER_EXPIRE ||
	       message->body.type == BROKER_SOCKMAP;
}

/* Moves what goes into the next packet there, and off the messages that wait. */
static void packet_fill(struct wire *wire, struct packet *packet,
			struct list *taken)
{
	unsigned int joins = wire->sent, lanes = wire->lanes_sent;
	bool alone = false;

	while (!list_empty(&wire->messages) && !alone) {
		struct wire_message *message = list_entry(
			wire->messages.next, struct wire_message, list);
		bool join = message->body.type == BROKER_JOIN;
		bool lane = message->body.type == BROKER_LANE;

		alone = goes_alone(message);
		/* Of too many an answer comes first. */
		if ((join && joins >= SENT_MAX) ||
		    (lane && lanes >= SENT_MAX) || (alone && packet->count) ||
		    !packet_add(packet, &message->body, message->len,
				message->fds, join || lane ? WIRE_LEGS : 0))
			return;
		joins += join;
		lanes += lane;
		list_del(&message->list);
		list_add_tail(&message->list, taken);
	}
}

static void taken_sent(struct wire *wire, struct list *taken)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, taken) {
		struct wire_message *message =
			list_entry(pos, struct wire_message, list);

		list_del(pos);
		if (message->body.type == BROKER_LANE)
			wire_lane_sent(wire, message);
		if (message->body.type == BROKER_JOIN)
			ask_sent(wire,
				 list_entry(message, struct wire_ask, message));
		else
			free(message);
	}
}

static bool messages_pump(struct wire *wire)
{
	for (;;) {
		struct packet packet BYTES_UNSET;
		struct list taken;

		packet.count = 0;
		packet.len = packet.fd_count = 0;
		list_init(&taken);
		packet_fill(wire, &packet, &taken);
		if (!packet.count)
			return true;
		if (packet_send(wire->watch.fd, &packet, MSG_DONTWAIT)) {
			list_splice_tail(&wire->messages, &taken);
			list_splice_tail(&taken, &wire->messages);
			return false;
		}
		taken_sent(wire, &taken);
	}
}

/* Sent, or still waiting for room in the channel; NULL. */
static struct wire_ask *ask_oldest(const struct wire *wire)
{
	struct list *pos;

	if (!list_empty(&wire->asked))
		return list_entry(wire->asked.next, struct wire_ask, list);
	list_for_each(pos, &wire->messages) {
		struct wire_message *message =
			list_entry(pos, struct wire_message, list);

		if (message->body.type == BROKER_JOIN)
			return list_entry(message, struct wire_ask, message);
	}
	return NULL;
}

static void answer_overdue(struct timer *timer)
{
	struct wire *wire = list_entry(timer, struct wire, timer);
	const struct wire_ask *ask = ask_oldest(wire);
	uint64_t waited;

	if (!ask)
		return;
	waited = loop_now(wire->params.loop) - ask->since_ms;
	if (waited >= wire->params.answer_ms)
		wire_overdue(wire, true);
	else
		timer_arm(wire->params.loop, timer,
			  wire->params.answer_ms - waited, answer_overdue);
}

void wire_channel_flush(struct wire *wire)
{
	bool done;

	loop_undefer(&wire->pump);
	if (!wire->welcome)
		return;
	done = links_pump(wire) && messages_pump(wire);
	watch_set(wire->params.loop, &wire->watch,
		  done ? EPOLLIN : EPOLLIN | EPOLLOUT);
	if (wire->asks.count && !wire->timer.armed)
		timer_arm(wire->params.loop, &wire->timer,
			  wire->params.answer_ms, answer_overdue);
}

static void pump_run(struct deferred *deferred)
{
	wire_channel_flush(list_entry(deferred, struct wire, pump));
}

void wire_channel_pump(struct wire *wire)
{
	loop_defer(wire->params.loop, &wire->pump, pump_run);
}

void wire_channel_post(struct wire *wire, struct wire_message *message)
{
	list_add_tail(&message->list, &wire->messages);
	wire_channel_pump(wire);
}

int wire_channel(struct wire *wire, int fd)
{
	const struct broker_hello hello = {
		.type = BROKER_HELLO,
		.version = BROKER_PROTOCOL,
		.adopts = wire->params.orphan != NULL,
	};
	int err;

	if (wire->watch.fd >= 0)
		wire_channel_close(wire, "another channel has come");
	if (fd < 0)
		return 0;
	err = watch_add(wire->params.loop, &wire->watch, fd, EPOLLIN,
			channel_ready);
	if (err) {
		wire->watch.fd = -1;
		fd_close(&fd);
		return err;
	}
	snprintf(wire->why, sizeof(wire->why),
		 "the broker is loading its programs");
	/* A fresh channel has room; should it fail, reading tells. */
	(void)message_send(fd, &hello, sizeof(hello), NULL, 0, MSG_DONTWAIT);
	return 0;
}
