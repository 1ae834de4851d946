/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One client on its channel: a worker of the relay. What it asks for is in
 * request.c, what it is told in session_out.c.
 *
 *   new -> (HELLO) greeted -> (closed, broke a rule, does not read) dead -> freed
 *
 * While anything waits to be sent nothing more is read. Since each message is an
 * answer or about a pair, no more can wait than pairs allow.
 */
#include "broker/session.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/message.h"
#include "base/syscalls.h"

SYSCALLS(SYSCALLS_BROKER, "setsockopt shutdown close");

/* Packets that a channel that is closed may still hold: in buffers of 2 MiB. */
#define PACKETS_LEFT 4096

void session_descriptor_close(int fd)
{
	static const struct linger off;

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
	close(fd);
}

/*
 * What is still in the channel is not left to the kernel, which would close it as it
 * is. An empty packet looks like the end, so that is not believed.
 */
static void channel_close(struct session *session)
{
	int fd = session->watch.fd;
	struct message came;
	char byte;

	if (fd < 0)
		return;
	shutdown(fd, SHUT_RD);
	for (int i = 0; i < PACKETS_LEFT; i++) {
		if (message_recv(fd, &byte, sizeof(byte), MESSAGE_FDS_MAX,
				 MSG_DONTWAIT, &came))
			continue;
		while (came.fd_count)
			session_descriptor_close(came.fds[--came.fd_count]);
	}
	watch_close(session->broker->loop, &session->watch);
}

static void session_free(struct session *session)
{
	channel_close(session);
	session_out_free(session);
	list_del(&session->link);
	free(session);
}

static void reap_run(struct deferred *deferred)
{
	struct broker *broker = list_entry(deferred, struct broker, reap);
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &broker->sessions) {
		struct session *session = list_entry(pos, struct session, link);

		if (session->dead)
			session_free(session);
	}
}

/* Pairs that are not active die with it, the others wait for a new owner. */
static void orphans_make(struct session *session)
{
	struct broker *broker = session->broker;
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &session->places) {
		struct place *place = list_entry(pos, struct place, owner_link);
		uint32_t index = place_index(broker, place);

		if (place->state == PLACE_LATCHED) {
			place->owner = broker->adopter;
			place_reset(broker, index, WIRE_END_ORPHAN);
		} else {
			place_own(broker, index, broker->adopter);
		}
	}
}

void session_end(struct session *session)
{
	struct broker *broker = session->broker;

	if (session->dead)
		return;
	session->dead = true;
	if (broker->adopter == session)
		broker->adopter = NULL;
	channel_close(session);
	orphans_make(session);
	lanes_drop(session);
	loop_defer(broker->loop, &broker->reap, reap_run);
}

void session_breach(struct session *session, const char *what)
{
	log_error("broker",
		  "event=channel_bad_message worker=%u reason=\"%s\" "
		  "action=closed",
		  session->worker, what);
	session_end(session);
}

static void session_ready(struct watch *watch, uint32_t events)
{
	struct session *session = list_entry(watch, struct session, watch);

	if (session->blocked)
		session_out_flush(session);
	/* What came before the other side closed is still handled. */
	if (!session->dead && !session->blocked)
		request_read(session);
	/* Nobody is left who would read what waits. */
	else if (events & EPOLLHUP)
		session_end(session);
}

/* A worker has one channel: a relay that asks for more does not get more. */
static void sessions_end(struct broker *broker, unsigned int worker)
{
	struct list *pos;

	list_for_each(pos, &broker->sessions) {
		struct session *session = list_entry(pos, struct session, link);

		if (session->worker == worker)
			session_end(session);
	}
}

int session_new(struct broker *broker, unsigned int worker, int fd)
{
	struct session *session = calloc(1, sizeof(*session));

	if (!session) {
		close(fd);
		return -ENOMEM;
	}
	session->broker = broker;
	session->watch.fd = -1;
	list_init(&session->places);
	list_init(&session->lanes);
	list_init(&session->out);
	int err = watch_add(broker->loop, &session->watch, fd, EPOLLIN,
			    session_ready);

	if (err) {
		close(fd);
		free(session);
		return err;
	}
	sessions_end(broker, worker);
	session->worker = worker;
	list_add_tail(&session->link, &broker->sessions);
	return 0;
}

void sessions_free(struct broker *broker)
{
	struct list *pos, *tmp;

	loop_undefer(&broker->reap);
	list_for_each_safe(pos, tmp, &broker->sessions) {
		struct session *session = list_entry(pos, struct session, link);

		/*
		 * How their pairs ended. Who has gone is not told, and leaves
		 * nothing to others, some of whom are freed already.
		 */
		if (!session->dead)
			session_out_last(session);
		session_free(session);
	}
}
