/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Joins two sockets. kern/README.md has the picture and the reason why no byte is
 * lost: snapshot, checks, record and flows in state JOINING, a second snapshot that
 * must be equal, then JOINED. All of it happens in one go; a join that fails
 * leaves nothing behind and has changed neither socket.
 */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "broker/internal.h"

/* More than any relay holds of early bytes and the answer before them. */
#define TO_CLIENT_MAX (16u << 20)

struct attempt {
	struct wire_key keys[WIRE_LEGS];
	uint64_t cookies[WIRE_LEGS];
	struct wire_snapshot first[WIRE_LEGS], second[WIRE_LEGS];
};

static bool key_is_loopback(const struct wire_key *key)
{
	struct in6_addr local, remote;

	if (key->family == AF_INET)
		return key->remote[0] == 127 || key->local[0] == 127;
	memcpy(&local, key->local, sizeof(local));
	memcpy(&remote, key->remote, sizeof(remote));
	return IN6_IS_ADDR_LOOPBACK(&local) || IN6_IS_ADDR_LOOPBACK(&remote);
}

/* A link-local address means nothing without its interface. */
static bool key_is_scoped(const struct wire_key *key)
{
	return key->family == AF_INET6 && key->remote[0] == 0xfe &&
	       (key->remote[1] & 0xc0) == 0x80;
}

static int sockets_describe(struct broker *broker, const int fds[WIRE_LEGS],
			    struct attempt *attempt, enum wire_reason *reason)
{
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		int err = broker->ops->socket_key(broker, fds[leg],
						  &attempt->keys[leg],
						  &attempt->cookies[leg]);

		if (err == -EBADMSG)
			return err;
		if (err == -EAFNOSUPPORT)
			*reason = WIRE_NO_DEVICE;
		else if (err)
			*reason = WIRE_NO_STATE;
	}
	if (*reason)
		return 0;
	if (attempt->cookies[WIRE_CLIENT] == attempt->cookies[WIRE_PEER])
		return -EBADMSG;
	if (attempt->keys[WIRE_CLIENT].family !=
	    attempt->keys[WIRE_PEER].family)
		*reason = WIRE_NO_FAMILY;
	for (int leg = 0; leg < WIRE_LEGS && !*reason; leg++) {
		if (key_is_loopback(&attempt->keys[leg]))
			*reason = WIRE_NO_LOCAL;
		else if (key_is_scoped(&attempt->keys[leg]))
			*reason = WIRE_NO_DEVICE;
	}
	return 0;
}

/* Looks at both sockets; they must be the very ones that were handed over. */
static enum wire_reason look(struct broker *broker,
			     const struct attempt *attempt,
			     struct wire_snapshot out[WIRE_LEGS])
{
	if (broker->ops->snapshot(broker, attempt->keys, out))
		return WIRE_NO_ERROR;
	for (int leg = 0; leg < WIRE_LEGS; leg++)
		if (!out[leg].found || out[leg].cookie != attempt->cookies[leg])
			return WIRE_NO_STATE;
	return WIRE_OK;
}

static enum wire_reason check(struct broker *broker, struct attempt *attempt,
			      const struct broker_join *msg,
			      const int fds[WIRE_LEGS])
{
	enum wire_reason reason = look(broker, attempt, attempt->first);

	if (!reason)
		reason = check_pair(attempt->first,
				    attempt->keys[WIRE_CLIENT].family,
				    msg->to_client);
	if (reason && reason != WIRE_AGAIN)
		return reason;
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		enum wire_reason route = broker->ops->route(
			broker, fds[leg], &attempt->keys[leg]);

		if (route)
			return route;
	}
	return reason;
}

static void record_fill(struct broker *broker, uint32_t index,
			const struct broker_join *msg,
			const struct attempt *attempt)
{
	struct wire_pair *record = &broker->records[index];

	record->family = attempt->keys[WIRE_CLIENT].family;
	record->created_ns = clock_ns();
	record->expires_ns = msg->expires_ns;
	record->allocation = msg->allocation;
	memcpy(record->label, msg->label, sizeof(record->label));
	for (int i = 0; i < WIRE_LEGS; i++) {
		struct wire_leg *leg = &record->leg[i];
		const struct wire_key *key = &attempt->keys[i];

		memcpy(leg->remote, key->remote, sizeof(leg->remote));
		memcpy(leg->local, key->local, sizeof(leg->local));
		leg->remote_port = key->remote_port;
		leg->local_port = key->local_port;
		leg->seen_ns = record->created_ns;
	}
	check_offsets(attempt->first, msg->to_client, record);
}

/*
 * These ends may still be in the map for an older connection that ended, was
 * forgotten by both ends and lingers; one that has not ended is not given up.
 */
static int flow_insert(struct broker *broker, const struct wire_key *key,
		       uint32_t index, uint32_t leg)
{
	struct wire_flow flow = { .pair = index, .leg = leg }, old;
	int err = broker->ops->flow_insert(broker, key, &flow);

	if (err != -EEXIST)
		return err;
	err = broker->ops->flow_find(broker, key, &old);
	if (err || old.pair >= broker->capacity || old.pair == index ||
	    broker->places[old.pair].state != PLACE_LINGER)
		return -EEXIST;
	place_unhook(broker, old.pair);
	place_release(broker, old.pair);
	return broker->ops->flow_insert(broker, key, &flow);
}

static enum wire_reason flows_insert(struct broker *broker, uint32_t index,
				     const struct attempt *attempt)
{
	static struct log_limit limit;
	uint64_t more;

	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		int err = flow_insert(broker, &attempt->keys[leg], index,
				      (uint32_t)leg);

		if (err == -EEXIST)
			return WIRE_NO_STATE;
		if (err == -E2BIG)
			return WIRE_NO_ROOM;
		if (err) {
			if (log_allow(&limit, clock_ms(), &more))
				log_error("broker",
					  "event=flow_failed error=\"%s\" "
					  "more=%llu",
					  strerror(-err),
					  (unsigned long long)more);
			return WIRE_NO_ERROR;
		}
	}
	return WIRE_OK;
}

/*
 * A remote end whose bytes our socket has taken and not acknowledged yet would
 * send them again, since that socket is about to fall silent.
 */
static void acknowledge(struct broker *broker, const struct attempt *attempt,
			const int fds[WIRE_LEGS])
{
	for (int leg = 0; leg < WIRE_LEGS; leg++)
		if (attempt->second[leg].rcv_wup !=
		    attempt->second[leg].rcv_nxt)
			broker->ops->acknowledge(fds[leg]);
}

static enum wire_reason join(struct broker *broker, uint32_t index,
			     const struct broker_join *msg,
			     struct attempt *attempt, const int fds[WIRE_LEGS])
{
	struct wire_pair *record = &broker->records[index];
	enum wire_reason reason;

	record_fill(broker, index, msg, attempt);
	__atomic_store_n(&record->state, WIRE_JOINING, __ATOMIC_SEQ_CST);
	reason = flows_insert(broker, index, attempt);
	if (!reason)
		reason = look(broker, attempt, attempt->second);
	if (!reason && !check_quiet(attempt->first, attempt->second))
		reason = WIRE_AGAIN;
	if (reason) {
		place_unhook(broker, index);
		place_release(broker, index);
		return reason;
	}
	check_refresh(attempt->second, record);
	__atomic_store_n(&record->state, WIRE_JOINED, __ATOMIC_SEQ_CST);
	acknowledge(broker, attempt, fds);
	return WIRE_OK;
}

static bool message_sane(const struct broker_join *msg)
{
	return !msg->zero && msg->to_client <= TO_CLIENT_MAX &&
	       memchr(msg->label, '\0', sizeof(msg->label));
}

int join_pair(struct broker *broker, struct session *session,
	      const struct broker_join *msg, const int fds[WIRE_LEGS],
	      struct broker_answer *answer)
{
	enum wire_reason reason = WIRE_OK;
	struct attempt attempt;
	int64_t index = -1;
	int err;

	if (!message_sane(msg))
		return -EBADMSG;
	err = sockets_describe(broker, fds, &attempt, &reason);
	if (err)
		return err;
	if (!reason)
		reason = check(broker, &attempt, msg, fds);
	if (!reason) {
		index = broker->latched < broker->latched_max ?
				place_take(broker) :
				-1;
		reason = index < 0 ? WIRE_NO_ROOM :
				     join(broker, (uint32_t)index, msg,
					  &attempt, fds);
	}
	*answer = (struct broker_answer){
		.type = BROKER_ANSWER,
		.ticket = msg->ticket,
		.reason = reason,
	};
	if (reason)
		return 0;
	answer->pair = (uint32_t)index;
	answer->generation = broker->records[index].generation;
	place_latch(broker, (uint32_t)index, session, fds);
	return 0;
}
