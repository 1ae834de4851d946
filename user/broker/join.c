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

#define LOOPBACK_INDEX 1 /* of lo, in every network namespace */

struct attempt {
	struct wire_key keys[WIRE_LEGS];
	uint64_t sockets[WIRE_LEGS];
	/* The descriptors are of the sockets that the keys lead to. */
	bool proven;
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

/* Ends that packets on a wire have? Under others nothing may be found at all. */
static enum wire_reason keys_judge(const struct wire_key keys[WIRE_LEGS])
{
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		if (key_is_loopback(&keys[leg]))
			return WIRE_NO_LOCAL;
		if (key_is_scoped(&keys[leg]))
			return WIRE_NO_DEVICE;
	}
	return WIRE_OK;
}

/* Two TCP sockets of this network namespace, and not one twice? */
static bool sockets_sane(struct broker *broker, const int fds[WIRE_LEGS],
			 const struct attempt *attempt)
{
	const uint64_t *sockets = attempt->sockets;

	if (sockets[WIRE_CLIENT] && sockets[WIRE_CLIENT] == sockets[WIRE_PEER])
		return false;
	return attempt->proven ||
	       (broker->ops->socket_ours(broker, fds[WIRE_CLIENT]) &&
		broker->ops->socket_ours(broker, fds[WIRE_PEER]));
}

/*
 * Both must be the very sockets that were handed over: the one under a key of this
 * network namespace's TCP connections, while its descriptor is open, says all there is
 * to know of the descriptor.
 */
static enum wire_reason look_judge(const struct attempt *attempt,
				   const struct wire_snapshot seen[WIRE_LEGS])
{
	for (int leg = 0; leg < WIRE_LEGS; leg++)
		if (!seen[leg].found ||
		    seen[leg].socket != attempt->sockets[leg])
			return WIRE_NO_STATE;
	return WIRE_OK;
}

/* Do its packets go the way that the programs send and see packets? */
static enum wire_reason way_check(struct broker *broker, int fd,
				  const struct wire_key *key,
				  const struct wire_snapshot *seen)
{
	if (seen->arrival == LOOPBACK_INDEX ||
	    seen->departure == LOOPBACK_INDEX ||
	    broker->ops->translated(broker, fd, key))
		return WIRE_NO_LOCAL;
	if (seen->bound || seen->mark || seen->ipsec ||
	    !broker->ops->attached(broker, seen->device) ||
	    (seen->arrival && !broker->ops->attached(broker, seen->arrival)))
		return WIRE_NO_DEVICE;
	return WIRE_OK;
}

static enum wire_reason check(struct broker *broker, struct attempt *attempt,
			      const struct broker_join *msg,
			      const int fds[WIRE_LEGS])
{
	enum wire_reason found, reason, way = WIRE_OK;

	if (broker->ops->look(broker, fds, attempt->keys, attempt->sockets,
			      attempt->first))
		return WIRE_NO_ERROR;
	found = look_judge(attempt, attempt->first);
	attempt->proven = !found;
	reason = keys_judge(attempt->keys);
	if (!reason)
		reason = found;
	if (!reason && attempt->keys[WIRE_CLIENT].family !=
			       attempt->keys[WIRE_PEER].family)
		reason = WIRE_NO_FAMILY;
	if (!reason)
		reason = check_pair(attempt->first,
				    attempt->keys[WIRE_CLIENT].family,
				    msg->to_client, msg->unread);
	if (reason && reason != WIRE_AGAIN)
		return reason;
	/* What no other try would change is said at once. */
	for (int leg = 0; leg < WIRE_LEGS && !way; leg++)
		way = way_check(broker, fds[leg], &attempt->keys[leg],
				&attempt->first[leg]);
	return way ? way : reason;
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
static int lingering_forget(struct broker *broker,
			    const struct wire_key keys[WIRE_LEGS])
{
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		struct wire_flow old;

		if (broker->ops->flow_find(broker, &keys[leg], &old))
			continue;
		if (old.pair >= broker->capacity ||
		    broker->places[old.pair].state != PLACE_LINGER)
			return -EEXIST;
		place_unhook(broker, old.pair);
		place_release(broker, old.pair);
	}
	return 0;
}

static int hook(struct broker *broker, uint32_t index, struct attempt *attempt)
{
	const struct broker_ops *ops = broker->ops;
	int err = ops->hook(broker, attempt->keys, index, attempt->second);

	if (err != -EEXIST)
		return err;
	err = lingering_forget(broker, attempt->keys);
	return err ? err :
		     ops->hook(broker, attempt->keys, index, attempt->second);
}

static enum wire_reason hook_reason(int err)
{
	static struct log_limit limit;
	uint64_t more;

	switch (err) {
	case 0:
		return WIRE_OK;
	case -EEXIST:
		return WIRE_NO_STATE;
	case -E2BIG:
		return WIRE_NO_ROOM;
	default:
		if (log_allow(&limit, clock_ms(), &more))
			log_error("broker",
				  "event=flow_failed error=\"%s\" more=%llu",
				  strerror(-err), (unsigned long long)more);
		return WIRE_NO_ERROR;
	}
}

/*
 * A remote end whose bytes our socket has taken and not acknowledged yet would
 * send them again, since that socket is about to fall silent. What the relay is
 * still to send to the client acknowledges, too.
 */
static void acknowledge(struct broker *broker, const struct attempt *attempt,
			const int fds[WIRE_LEGS], uint32_t to_client)
{
	const struct wire_snapshot *seen = attempt->second;

	for (int leg = 0; leg < WIRE_LEGS; leg++)
		if (seen[leg].rcv_wup != seen[leg].rcv_nxt &&
		    (leg != WIRE_CLIENT || !to_client))
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
	reason = hook_reason(hook(broker, index, attempt));
	if (!reason)
		reason = look_judge(attempt, attempt->second);
	if (!reason && !check_quiet(attempt->first, attempt->second))
		reason = WIRE_AGAIN;
	if (reason) {
		place_unhook(broker, index);
		place_release(broker, index);
		return reason;
	}
	check_refresh(attempt->second, record);
	__atomic_store_n(&record->state, WIRE_JOINED, __ATOMIC_SEQ_CST);
	acknowledge(broker, attempt, fds, msg->to_client);
	return WIRE_OK;
}

static bool message_sane(const struct broker_join *msg)
{
	return msg->to_client <= TO_CLIENT_MAX &&
	       msg->unread <= TO_CLIENT_MAX &&
	       memchr(msg->label, '\0', sizeof(msg->label));
}

int join_pair(struct broker *broker, struct session *session,
	      const struct broker_join *msg, const int fds[WIRE_LEGS],
	      struct broker_answer *answer)
{
	struct attempt attempt = { .proven = false };
	enum wire_reason reason;
	int64_t index = -1;

	if (!message_sane(msg))
		return -EBADMSG;
	reason = check(broker, &attempt, msg, fds);
	if (!sockets_sane(broker, fds, &attempt))
		return -EBADMSG;
	if (!reason) {
		index = broker->counts[PLACE_LATCHED] < broker->latched_max ?
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
