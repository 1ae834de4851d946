/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a session is told: messages out, in turn, those of a tick together at its
 * end. Nothing is written that would block: what the channel has no room for waits.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/message.h"
#include "broker/session.h"

/* What waits to be sent. */
struct waiting {
	struct list link;
	size_t len;
	bool alone; /* in its packet */
	size_t fd_count;
	int fds[SOCKMAP_MAPS]; /* borrowed; none but of one that goes alone */
	char message[];
};

/* Their descriptors are lent to the answer, and sent or not wanted any more. */
static void maps_release(struct session *session)
{
	session->broker->ops->sockmap_release(session->maps);
	session->maps = NULL;
}

void session_out_free(struct session *session)
{
	struct list *pos, *tmp;

	loop_undefer(&session->flush);
	list_for_each_safe(pos, tmp, &session->out)
		free(list_entry(pos, struct waiting, link));
	list_init(&session->out);
	session->out_count = 0;
	maps_release(session);
}

/* Moves what goes into the next packet there. */
static void packet_fill(struct session *session)
{
	struct packet *packet = &session->packet;
	struct list *pos, *tmp;
	bool alone = false;

	list_for_each_safe(pos, tmp, &session->out) {
		struct waiting *waiting = list_entry(pos, struct waiting, link);

		if (alone || (waiting->alone && packet->count) ||
		    !packet_add(packet, waiting->message, waiting->len,
				waiting->fds, waiting->fd_count))
			return;
		alone = waiting->alone;
		list_del(pos);
		free(waiting);
	}
}

/* 0 when all is sent; -EAGAIN; or another negative errno. */
static int out_send(struct session *session)
{
	struct packet *packet = &session->packet;

	while (session->out_count) {
		int err;

		/* Else it is one that the channel had no room for. */
		if (!packet->count)
			packet_fill(session);
		err = packet_send(session->watch.fd, packet, MSG_DONTWAIT);
		if (err)
			return err;
		session->out_count -= packet->count;
		packet->count = 0;
		packet->len = packet->fd_count = 0;
	}
	maps_release(session);
	return 0;
}

void session_out_last(struct session *session)
{
	(void)out_send(session);
}

void session_out_flush(struct session *session)
{
	int err;

	if (session->dead)
		return;
	err = out_send(session);
	session->blocked = err == -EAGAIN;
	if (err && !session->blocked)
		session_end(session);
	else
		watch_set(session->broker->loop, &session->watch,
			  session->blocked ? EPOLLOUT : EPOLLIN);
}

static void flush_run(struct deferred *deferred)
{
	session_out_flush(list_entry(deferred, struct session, flush));
}

/* Lets it wait; NULL: the session is dead. */
static struct waiting *waiting_new(struct session *session, const void *message,
				   size_t len)
{
	/* ACTIVE and ENDED of each pair, an end of each lane, the answers to the
	 * last requests.
	 */
	size_t limit = 2 * (size_t)session->broker->capacity +
		       session->broker->lane_capacity + PACKET_MESSAGES;
	struct waiting *waiting = NULL;

	if (session->dead)
		return NULL;
	if (session->out_count < limit)
		waiting = calloc(1, sizeof(*waiting) + len);
	if (!waiting) {
		session_breach(session, "it does not read");
		return NULL;
	}
	memcpy(waiting->message, message, len);
	waiting->len = len;
	list_add_tail(&waiting->link, &session->out);
	session->out_count++;
	if (!session->blocked)
		loop_defer(session->broker->loop, &session->flush, flush_run);
	return waiting;
}

void session_send(struct session *session, const void *message, size_t len)
{
	waiting_new(session, message, len);
}

void session_send_alone(struct session *session, const void *message,
			size_t len, const int *fds, size_t count)
{
	struct waiting *waiting = waiting_new(session, message, len);

	if (!waiting)
		return;
	waiting->alone = true;
	waiting->fd_count = count;
	memcpy(waiting->fds, fds, count * sizeof(int));
}

void session_active(struct session *session, uint32_t pair, uint32_t generation)
{
	struct broker_active msg = {
		.type = BROKER_ACTIVE,
		.pair = pair,
		.generation = generation,
	};

	session_send(session, &msg, sizeof(msg));
}

void session_ended(struct session *session, const struct broker_ended *msg)
{
	session_send(session, msg, sizeof(*msg));
}

void session_lane_ended(struct session *session, uint64_t id)
{
	struct broker_lane_end msg = { .type = BROKER_LANE_ENDED, .id = id };

	session_send(session, &msg, sizeof(msg));
}
