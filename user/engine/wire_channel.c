/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The channel of wire to the broker: messages in, checked and handed on; messages
 * out, in turn.
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

#include "base/fd.h"
#include "base/log.h"
#include "base/message.h"
#include "engine/wire_internal.h"

#define SENT_MAX 128
#define RECV_MAX 64 /* messages a tick: others want a turn, too */

_Static_assert(SOCKMAP_MAPS <= WIRE_FDS_MAX, "room for the maps");

/* One message as it came. */
struct arrival {
	union {
		uint32_t type;
		struct broker_welcome welcome;
		struct broker_answer answer;
		struct broker_active active;
		struct broker_ended ended;
		struct broker_sockmap_maps sockmap;
		struct broker_lane_answer lane;
		struct broker_lane_end lane_end;
		char bytes[256];
	} body;
	struct message came; /* with it */
};

static bool welcome_take(struct wire *wire, struct arrival *arrival)
{
	struct message *came = &arrival->came;
	size_t count = came->fd_count;

	if (came->len != sizeof(arrival->body.welcome) || count > 2 ||
	    wire->welcome)
		return false;
	came->fd_count = 0;
	wire->welcome = true;
	return wire_welcome(wire, &arrival->body.welcome,
			    count > 0 ? came->fds[0] : -1,
			    count > 1 ? came->fds[1] : -1);
}

static bool sockmap_take(struct wire *wire, struct arrival *arrival)
{
	struct message *came = &arrival->came;
	size_t count = came->fd_count;

	if (came->len != sizeof(arrival->body.sockmap))
		return false;
	came->fd_count = 0;
	return wire_sockmap_maps(wire, &arrival->body.sockmap, came->fds,
				 count);
}

/* false: a rule was broken. */
static bool arrival_take(struct wire *wire, struct arrival *arrival)
{
	const struct message *came = &arrival->came;

	if (came->cut || came->fds_lost ||
	    came->len < sizeof(arrival->body.type))
		return false;
	if (arrival->body.type == BROKER_WELCOME)
		return welcome_take(wire, arrival);
	if (!wire->welcome)
		return false;
	if (arrival->body.type == BROKER_SOCKMAP_MAPS)
		return sockmap_take(wire, arrival);
	if (came->fd_count)
		return false;
	switch (arrival->body.type) {
	case BROKER_ANSWER:
		return came->len == sizeof(arrival->body.answer) &&
		       wire_answer(wire, &arrival->body.answer);
	case BROKER_ACTIVE:
		return came->len == sizeof(arrival->body.active) &&
		       wire_active(wire, &arrival->body.active);
	case BROKER_ENDED:
		return came->len == sizeof(arrival->body.ended) &&
		       wire_ended(wire, &arrival->body.ended);
	case BROKER_LANE_ANSWER:
		return came->len == sizeof(arrival->body.lane) &&
		       wire_lane_answer(wire, &arrival->body.lane);
	case BROKER_LANE_ENDED:
		return came->len == sizeof(arrival->body.lane_end) &&
		       wire_lane_ended(wire, &arrival->body.lane_end);
	default:
		return false;
	}
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

static void answer_overdue(struct timer *timer);

static void channel_ready(struct watch *watch, uint32_t events)
{
	struct wire *wire = list_entry(watch, struct wire, watch);
	struct arrival arrival = { .body.type = 0 };
	int err = 0;

	(void)events;
	for (int i = 0; i < RECV_MAX && !err; i++) {
		err = message_recv(watch->fd, &arrival.body,
				   sizeof(arrival.body), WIRE_FDS_MAX,
				   MSG_DONTWAIT, &arrival.came);
		if (err)
			break;
		wire_overdue(wire, false);
		if (!arrival_take(wire, &arrival))
			err = -EBADMSG;
		message_close(&arrival.came);
	}
	if (!err || err == -EAGAIN) {
		wire_channel_pump(wire);
		if (!list_empty(&wire->asked) && !wire->timer.armed)
			timer_arm(wire->params.loop, &wire->timer,
				  wire->params.answer_ms, answer_overdue);
		return;
	}
	if (err == -EBADMSG)
		log_error(
			"engine",
			"event=broker_bad_message worker=%u type=%u bytes=%zu",
			wire->params.worker, arrival.body.type,
			arrival.came.len);
	wire_channel_close(wire, err == -EBADMSG ?
					 "the broker broke the rules" :
					 "the channel to the broker has ended");
	if (wire->params.lost)
		wire->params.lost(wire->params.arg);
}

/* false: later. A broker that has gone is found out by reading. */
static bool send_now(struct wire *wire, const void *body, size_t len,
		     const int *fds)
{
	return !message_send(wire->watch.fd, body, len, fds,
			     fds ? WIRE_LEGS : 0, MSG_DONTWAIT);
}

/* CLAIM and RESET differ in the type only. */
static bool link_send(struct wire *wire, const struct wire_link *link,
		      enum broker_type type)
{
	const struct broker_reset msg = {
		.type = type,
		.pair = link->place,
		.generation = link->generation,
	};

	_Static_assert(sizeof(struct broker_claim) == sizeof(msg), "CLAIM");
	return send_now(wire, &msg, sizeof(msg), NULL);
}

static void link_list(struct wire_link *link, struct list *to)
{
	list_del(&link->list);
	list_add_tail(&link->list, to);
}

static bool links_pump(struct wire *wire)
{
	while (!list_empty(&wire->claims)) {
		struct wire_link *link =
			list_entry(wire->claims.next, struct wire_link, list);

		if (!link_send(wire, link, BROKER_CLAIM))
			return false;
		link_list(link, link->reset ? &wire->resets : &wire->active);
	}
	while (!list_empty(&wire->resets)) {
		struct wire_link *link =
			list_entry(wire->resets.next, struct wire_link, list);

		if (!link_send(wire, link, BROKER_RESET))
			return false;
		link->reset = WIRE_RESET_SENT;
		link_list(link, link->state == WIRE_LINK_ACTIVE ?
					&wire->active :
					&wire->latched);
	}
	return true;
}

static void answer_overdue(struct timer *timer)
{
	struct wire *wire = list_entry(timer, struct wire, timer);
	struct wire_ask *ask;
	uint64_t waited;

	wire_channel_pump(wire);
	if (list_empty(&wire->asked))
		return;
	ask = list_entry(wire->asked.next, struct wire_ask, list);
	waited = loop_now(wire->params.loop) - ask->sent_ms;
	if (waited >= wire->params.answer_ms)
		wire_overdue(wire, true);
	else
		timer_arm(wire->params.loop, timer,
			  wire->params.answer_ms - waited, answer_overdue);
}

static void ask_sent(struct wire *wire, struct wire_ask *ask)
{
	ask->sent_ms = loop_now(wire->params.loop);
	list_add_tail(&ask->list, &wire->asked);
	wire->sent++;
	if (!wire->timer.armed)
		timer_arm(wire->params.loop, &wire->timer,
			  wire->params.answer_ms, answer_overdue);
}

static bool messages_pump(struct wire *wire)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &wire->messages) {
		struct wire_message *message =
			list_entry(pos, struct wire_message, list);
		bool join = message->body.type == BROKER_JOIN;
		bool lane = message->body.type == BROKER_LANE;

		if ((join && wire->sent >= SENT_MAX) ||
		    (lane && wire->lanes_sent >= SENT_MAX))
			return true; /* an answer comes first */
		if (!send_now(wire, &message->body, message->len,
			      join || lane ? message->fds : NULL))
			return false;
		list_del(&message->list);
		if (lane)
			wire_lane_sent(wire, message);
		if (join)
			ask_sent(wire,
				 list_entry(message, struct wire_ask, message));
		else
			free(message);
	}
	return true;
}

void wire_channel_pump(struct wire *wire)
{
	bool done;

	if (!wire->welcome)
		return;
	done = links_pump(wire) && messages_pump(wire);
	watch_set(wire->params.loop, &wire->watch,
		  done ? EPOLLIN : EPOLLIN | EPOLLOUT);
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
	send_now(wire, &hello, sizeof(hello), NULL);
	return 0;
}
