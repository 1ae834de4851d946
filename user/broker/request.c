/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a session asks for: messages in. Whatever comes is checked whole, size,
 * type, order, reserved fields, descriptors, before any of it is used; what breaks
 * a rule closes the channel.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/message.h"
#include "broker/session.h"

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
	int fds[2] = { -1, -1 };
	size_t count = 0;

	if (session->greeted || msg->adopts > 1) {
		session_breach(session, "a HELLO out of place");
		return;
	}
	if (msg->zero) {
		session_breach(session, "a reserved field");
		return;
	}
	if (msg->version != BROKER_PROTOCOL) {
		session_breach(session, "another version of the protocol");
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
	session_send_alone(session, &answer, sizeof(answer), fds, count);
	if (session->dead)
		return;
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
		session_breach(session, "a JOIN of what is not two sockets");
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
		session_breach(session, "a reserved field");
	else if (place_find(session->broker, msg->pair, msg->generation))
		place_reset(session->broker, msg->pair, WIRE_END_RESET);
}

static void expire(struct session *session, struct input *input)
{
	const struct broker_expire *msg = &input->request.expire;
	struct broker *broker = session->broker;

	if (msg->zero) {
		session_breach(session, "a reserved field");
		return;
	}
	if (broker->counts[PLACE_FREE] < broker->capacity)
		places_sweep_soon(broker);
	places_expire(session, msg->allocation, msg->expires_ns);
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
		session_breach(session, "a reserved field");
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
	int fds[SOCKMAP_MAPS] = { -1 };

	if (input->request.sockmap.version != BROKER_PROTOCOL) {
		session_breach(session, "another version of the protocol");
		return;
	}
	if (session->sockmap) {
		session_breach(session, "the maps a second time");
		return;
	}
	session->sockmap = true;
	answer.error = broker->ops->sockmap_load(&session->maps, fds);
	if (answer.error)
		log_warn("broker", "event=sockmap_failed error=\"%s\"",
			 strerror(-answer.error));
	session_send_alone(session, &answer, sizeof(answer), fds,
			   answer.error ? 0 : SOCKMAP_MAPS);
}

static void lane(struct session *session, struct input *input)
{
	const struct broker_lane *msg = &input->request.lane;
	struct broker_lane_answer answer = {
		.type = BROKER_LANE_ANSWER,
		.reason = WIRE_NO_ROOM,
		.id = msg->id,
	};

	/* Without wire there is no kernel to ask, and none was said to be. */
	if (input->fd_count < WIRE_LEGS || session->broker->error) {
		session_send(session, &answer, sizeof(answer));
		return;
	}
	if (lane_make(session, msg, input->fds, &answer)) {
		session_breach(session, "a LANE of what is none");
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
		session_breach(session, "a reserved field");
	else if (found)
		lane_expire(found, msg->expires_ns);
}

static void lane_over(struct session *session, struct input *input)
{
	const struct broker_lane_end *msg = &input->request.lane_end;
	struct lane *found = lane_find(session, msg->id);

	if (msg->zero)
		session_breach(session, "a reserved field");
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
			session_descriptor_close(input.fds[--input.fd_count]);
	}
}

void request_read(struct session *session)
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
		session_breach(session, why);
	else
		arrival_handle(session, &arrival);
	while (arrival.fds_read < arrival.came.fd_count)
		session_descriptor_close(arrival.came.fds[arrival.fds_read++]);
}
