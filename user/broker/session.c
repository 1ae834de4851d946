/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One client on its channel: a worker of the relay. Whatever it sends is checked
 * whole, size, type, order, reserved fields, descriptors, before any of it is used;
 * what breaks a rule closes the channel.
 *
 *   new -> (HELLO) greeted -> (closed, broke a rule, does not read) dead -> freed
 *
 * Nothing is written that would block: what the channel has no room for waits, and
 * while anything waits nothing more is read. Since each message is an answer or
 * about a pair, no more can wait than pairs allow.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/message.h"
#include "base/syscalls.h"
#include "broker/internal.h"

SYSCALLS(SYSCALLS_BROKER, "setsockopt close");

/* A message that a client may send. */
union request {
	uint32_t type;
	struct broker_hello hello;
	struct broker_join join;
	struct broker_reset reset;
	struct broker_expire expire;
	struct broker_sockmap sockmap;
	struct broker_claim claim;
	struct broker_lane lane;
	struct broker_lane_expire lane_expire;
	struct broker_lane_end lane_end;
};

struct input {
	union request request;
	/* Less than it needs: this process has no descriptor left for the others. */
	size_t fd_count;
	int fds[WIRE_LEGS]; /* closed unless they are taken */
};

/* What waits to be sent. */
struct waiting {
	struct list link;
	size_t len;
	union {
		struct broker_answer answer;
		struct broker_active active;
		struct broker_ended ended;
		struct broker_lane_answer lane;
		struct broker_lane_end lane_end;
	} message;
};

static void waiting_free(struct session *session)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &session->out)
		free(list_entry(pos, struct waiting, link));
	list_init(&session->out);
	session->out_count = 0;
}

static void session_free(struct session *session)
{
	watch_close(session->broker->loop, &session->watch);
	loop_undefer(&session->flush);
	waiting_free(session);
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
	watch_close(broker->loop, &session->watch);
	orphans_make(session);
	lanes_drop(session);
	loop_defer(broker->loop, &broker->reap, reap_run);
}

static void breach(struct session *session, const char *what)
{
	log_error("broker",
		  "event=channel_bad_message worker=%u reason=\"%s\" "
		  "action=closed",
		  session->worker, what);
	session_end(session);
}

/* Moves what goes into the next packet there. */
static void packet_fill(struct session *session)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &session->out) {
		struct waiting *waiting = list_entry(pos, struct waiting, link);

		if (!packet_add(&session->packet, &waiting->message,
				waiting->len, NULL, 0))
			return;
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
		packet->len = 0;
	}
	return 0;
}

static void out_flush(struct session *session)
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
	out_flush(list_entry(deferred, struct session, flush));
}

static void session_send(struct session *session, const void *message,
			 size_t len)
{
	/* ACTIVE and ENDED of each pair, an end of each lane, the answers to the
	 * last requests.
	 */
	size_t limit = 2 * (size_t)session->broker->capacity +
		       session->broker->lane_capacity + PACKET_MESSAGES;
	struct waiting *waiting = NULL;

	if (session->dead)
		return;
	if (session->out_count < limit)
		waiting = calloc(1, sizeof(*waiting));
	if (!waiting) {
		breach(session, "it does not read");
		return;
	}
	memcpy(&waiting->message, message, len);
	waiting->len = len;
	list_add_tail(&waiting->link, &session->out);
	session->out_count++;
	if (!session->blocked)
		loop_defer(session->broker->loop, &session->flush, flush_run);
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

static void orphans_take(struct session *session)
{
	struct broker *broker = session->broker;
	struct list *pos, *tmp;

	broker->adopter = session;
	list_for_each_safe(pos, tmp, &broker->orphans) {
		struct place *place = list_entry(pos, struct place, owner_link);

		place_own(broker, place_index(broker, place), session);
	}
}

static void hello(struct session *session, struct input *input)
{
	const struct broker_hello *msg = &input->request.hello;
	struct broker *broker = session->broker;
	struct broker_welcome answer = {
		.type = BROKER_WELCOME,
		.version = BROKER_PROTOCOL,
		.error = broker->error,
	};
	int fds[2];
	size_t count = 0;

	if (session->greeted || msg->adopts > 1) {
		breach(session, "a HELLO out of place");
		return;
	}
	if (msg->zero) {
		breach(session, "a reserved field");
		return;
	}
	if (msg->version != BROKER_PROTOCOL) {
		breach(session, "another version of the protocol");
		return;
	}
	memcpy(answer.why, broker->why, sizeof(answer.why));
	if (!broker->error) {
		answer.capacity = broker->capacity;
		answer.lanes = broker->lane_capacity;
		fds[count++] = broker->ops->records(broker);
		if (answer.lanes)
			fds[count++] = broker->ops->lanes(broker);
	}
	if (message_send(session->watch.fd, &answer, sizeof(answer), fds, count,
			 MSG_DONTWAIT)) {
		session_end(session);
		return;
	}
	session->greeted = true;
	if (msg->adopts && !broker->error)
		orphans_take(session);
}

static void answer_refused(struct session *session, uint32_t ticket,
			   enum wire_reason reason)
{
	struct broker_answer answer = {
		.type = BROKER_ANSWER,
		.ticket = ticket,
		.reason = reason,
	};

	session_send(session, &answer, sizeof(answer));
}

static void join(struct session *session, struct input *input)
{
	const struct broker_join *msg = &input->request.join;
	struct broker *broker = session->broker;
	struct broker_answer answer;
	int err;

	if (input->fd_count < WIRE_LEGS) {
		answer_refused(session, msg->ticket, WIRE_NO_ROOM);
		return;
	}
	if (broker->error) {
		answer_refused(session, msg->ticket, WIRE_NO_BROKER);
		return;
	}
	err = join_pair(broker, session, msg, input->fds, &answer);
	if (err) {
		breach(session, "a JOIN of what is not two sockets");
		return;
	}
	if (!answer.reason)
		input->fd_count = 0; /* the place has them */
	session_send(session, &answer, sizeof(answer));
	if (!answer.reason && !check_latched(&broker->records[answer.pair]))
		place_activate(broker, answer.pair);
}

static void reset(struct session *session, struct input *input)
{
	const struct broker_reset *msg = &input->request.reset;

	if (msg->zero)
		breach(session, "a reserved field");
	else if (place_find(session->broker, msg->pair, msg->generation))
		place_reset(session->broker, msg->pair, WIRE_END_RESET);
}

static void expire(struct session *session, struct input *input)
{
	const struct broker_expire *msg = &input->request.expire;
	struct broker *broker = session->broker;
	struct list *pos;

	if (msg->zero) {
		breach(session, "a reserved field");
		return;
	}
	if (broker->counts[PLACE_FREE] < broker->capacity)
		places_sweep_soon(broker);
	list_for_each(pos, &session->places) {
		struct wire_pair *record = &broker->records[place_index(
			broker, list_entry(pos, struct place, owner_link))];

		if (record->allocation == msg->allocation)
			__atomic_store_n(&record->expires_ns, msg->expires_ns,
					 __ATOMIC_RELAXED);
	}
}

static void claim(struct session *session, struct input *input)
{
	const struct broker_claim *msg = &input->request.claim;
	struct broker *broker = session->broker;
	struct broker_ended ended = {
		.type = BROKER_ENDED,
		.pair = msg->pair,
		.generation = msg->generation,
		.end = WIRE_END_ORPHAN,
	};
	struct place *place;

	if (msg->zero) {
		breach(session, "a reserved field");
		return;
	}
	place = place_find(broker, msg->pair, msg->generation);
	if (!place || place->state == PLACE_LINGER) {
		session_ended(session, &ended);
		return;
	}
	place_own(broker, msg->pair, session);
	if (place->state == PLACE_ACTIVE)
		session_active(session, msg->pair, msg->generation);
}

static void sockmap(struct session *session, struct input *input)
{
	struct broker *broker = session->broker;
	struct broker_sockmap_maps answer = { .type = BROKER_SOCKMAP_MAPS };
	struct sockmap_bpf *bpf = NULL;
	int fds[SOCKMAP_MAPS];
	int err;

	if (input->request.sockmap.version != BROKER_PROTOCOL) {
		breach(session, "another version of the protocol");
		return;
	}
	if (session->sockmap) {
		breach(session, "the maps a second time");
		return;
	}
	session->sockmap = true;
	answer.error = broker->ops->sockmap_load(&bpf, fds);
	if (answer.error)
		log_warn("broker", "event=sockmap_failed error=\"%s\"",
			 strerror(-answer.error));
	err = message_send(session->watch.fd, &answer, sizeof(answer), fds,
			   answer.error ? 0 : SOCKMAP_MAPS, MSG_DONTWAIT);
	broker->ops->sockmap_release(bpf);
	if (err)
		session_end(session);
}

static void lane(struct session *session, struct input *input)
{
	const struct broker_lane *msg = &input->request.lane;
	struct broker_lane_answer answer = {
		.type = BROKER_LANE_ANSWER,
		.reason = WIRE_NO_ROOM,
		.id = msg->id,
	};

	if (input->fd_count < WIRE_LEGS) {
		session_send(session, &answer, sizeof(answer));
		return;
	}
	if (lane_make(session, msg, input->fds, &answer)) {
		breach(session, "a LANE of what is none");
		return;
	}
	if (!answer.reason)
		input->fd_count = 0; /* the lane has them */
	session_send(session, &answer, sizeof(answer));
}

static void lane_prolong(struct session *session, struct input *input)
{
	const struct broker_lane_expire *msg = &input->request.lane_expire;
	struct lane *found = lane_find(session, msg->id);

	if (msg->zero)
		breach(session, "a reserved field");
	else if (found)
		lane_expire(found, msg->expires_ns);
}

static void lane_over(struct session *session, struct input *input)
{
	const struct broker_lane_end *msg = &input->request.lane_end;
	struct lane *found = lane_find(session, msg->id);

	if (msg->zero)
		breach(session, "a reserved field");
	else if (found)
		lane_end(found);
}

static const struct kind {
	size_t size;
	size_t fds; /* descriptors */
	bool first; /* may come before HELLO */
	bool alone; /* in its packet */
	void (*fn)(struct session *session, struct input *input);
} kinds[] = {
	[BROKER_HELLO] = { sizeof(struct broker_hello), 0, true, true, hello },
	[BROKER_JOIN] = { sizeof(struct broker_join), WIRE_LEGS, false, false,
			  join },
	[BROKER_RESET] = { sizeof(struct broker_reset), 0, false, false,
			   reset },
	[BROKER_EXPIRE] = { sizeof(struct broker_expire), 0, false, true,
			    expire },
	[BROKER_CLAIM] = { sizeof(struct broker_claim), 0, false, false,
			   claim },
	[BROKER_SOCKMAP] = { sizeof(struct broker_sockmap), 0, true, true,
			     sockmap },
	[BROKER_LANE] = { sizeof(struct broker_lane), WIRE_LEGS, false, false,
			  lane },
	[BROKER_LANE_EXPIRE] = { sizeof(struct broker_lane_expire), 0, false,
				 false, lane_prolong },
	[BROKER_LANE_END] = { sizeof(struct broker_lane_end), 0, false, false,
			      lane_over },
};

/* One with SO_LINGER, of which this is the last copy, would make us wait. */
static void descriptor_close(int fd)
{
	static const struct linger off;

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
	close(fd);
}

/* A packet as it came, and how far its messages have been handled. */
struct arrival {
	char bytes[PACKET_BYTES];
	struct message came; /* with it */
	size_t read, fds_read;
};

/* Of the message there, if one may be; NULL: it may not, and why. */
static const struct kind *kind_at(const struct session *session,
				  const struct arrival *arrival, size_t at,
				  const char **why)
{
	size_t left = arrival->came.len - at;
	const struct kind *kind = NULL;
	uint32_t type;

	if (left >= sizeof(type)) {
		memcpy(&type, arrival->bytes + at, sizeof(type));
		if (type < sizeof(kinds) / sizeof(kinds[0]) && kinds[type].fn)
			kind = &kinds[type];
	}
	if (!kind)
		*why = "an unknown type";
	else if (left < kind->size ||
		 (kind->alone && arrival->came.len != kind->size))
		*why = "a wrong length";
	else if (!session->greeted && !kind->first)
		*why = "no HELLO before it";
	else
		return kind;
	return NULL;
}

/* NULL, or what is wrong with the packet: checked whole, before any of it is used. */
static const char *arrival_wrong(const struct session *session,
				 const struct arrival *arrival)
{
	const struct message *came = &arrival->came;
	size_t at = 0, fds = 0, count = 0;
	const char *why = NULL;

	if (came->cut || !came->len)
		return "a wrong length";
	while (at < came->len) {
		const struct kind *kind = kind_at(session, arrival, at, &why);

		if (!kind)
			return why;
		if (++count > PACKET_MESSAGES)
			return "too many in a packet";
		at += kind->size;
		fds += kind->fds;
	}
	/* Lost ones are the last, for want of a place in this process. */
	if (came->fd_count > fds || (came->fds_lost && !fds))
		return "descriptors it may not have";
	return came->fd_count < fds && !came->fds_lost ?
		       "less descriptors than it needs" :
		       NULL;
}

/* The next message, with its own descriptors. */
static const struct kind *input_take(const struct session *session,
				     struct arrival *arrival,
				     struct input *input)
{
	size_t left = arrival->came.fd_count - arrival->fds_read;
	const char *why;
	const struct kind *kind =
		kind_at(session, arrival, arrival->read, &why);

	memset(input, 0, sizeof(*input));
	memcpy(&input->request, arrival->bytes + arrival->read, kind->size);
	input->fd_count = left < kind->fds ? left : kind->fds;
	memcpy(input->fds, arrival->came.fds + arrival->fds_read,
	       input->fd_count * sizeof(int));
	arrival->read += kind->size;
	arrival->fds_read += input->fd_count;
	return kind;
}

static void arrival_handle(struct session *session, struct arrival *arrival)
{
	while (arrival->read < arrival->came.len && !session->dead) {
		struct input input;
		const struct kind *kind = input_take(session, arrival, &input);

		kind->fn(session, &input);
		while (input.fd_count)
			descriptor_close(input.fds[--input.fd_count]);
	}
}

/* One packet a tick: others have their turn before the next. */
static void packet_read(struct session *session)
{
	struct arrival arrival BYTES_UNSET;
	const char *why;
	int err = message_recv(session->watch.fd, arrival.bytes,
			       sizeof(arrival.bytes), MESSAGE_FDS_MAX,
			       MSG_DONTWAIT, &arrival.came);

	if (err == -EAGAIN)
		return;
	if (err) {
		session_end(session);
		return;
	}
	arrival.read = arrival.fds_read = 0;
	why = arrival_wrong(session, &arrival);
	if (why)
		breach(session, why);
	else
		arrival_handle(session, &arrival);
	while (arrival.fds_read < arrival.came.fd_count)
		descriptor_close(arrival.came.fds[arrival.fds_read++]);
}

static void session_ready(struct watch *watch, uint32_t events)
{
	struct session *session = list_entry(watch, struct session, watch);

	if (session->blocked)
		out_flush(session);
	/* What came before the other side closed is still handled. */
	if (!session->dead && !session->blocked)
		packet_read(session);
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
			(void)out_send(session);
		session_free(session);
	}
}
