/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lanes: channels of UDP allocations whose datagrams the kernel relays.
 *
 *   free -> on -> free
 *
 * A lane is made of two sockets that the relay hands over, by which it proves that it
 * could do itself what the lane does: take what comes to these addresses and send from
 * them. Client and peer no socket proves, for neither is connected; a relay may name
 * anybody, as it may send to anybody (kern/README.md, "Lanes and a hostile relay").
 *
 * Copies of both sockets are kept while the lane is on: else the relay could close
 * them, and the lane would take datagrams that are for the port's next owner.
 *
 * A lane lives no longer than its time (LANE_EXPIRE moves it), its session, and, by a
 * lease that is prolonged every second, this process. A free place rests: what BPF
 * still does with it on another CPU meets no new lane.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "broker/internal.h"

#define SECOND_NS 1000000000ull
#define REST_NS   (SECOND_NS / 10)
#define SWEEP_MS  1000
#define LEASE_NS  (4 * SECOND_NS)

#define CHANNEL_LEAST 0x4000
#define CHANNEL_MOST  0x7fff

int lanes_new(struct broker *broker, uint32_t capacity)
{
	int err;

	list_init(&broker->lanes_free);
	if (!capacity)
		return 0;
	broker->lanes = calloc(capacity, sizeof(*broker->lanes));
	if (!broker->lanes)
		return -ENOMEM;
	err = table_init(&broker->lanes_by_id);
	if (err) {
		free(broker->lanes);
		broker->lanes = NULL;
		return err;
	}
	broker->lane_capacity = capacity;
	for (uint32_t i = 0; i < capacity; i++) {
		struct lane *lane = &broker->lanes[i];

		lane->fds[WIRE_CLIENT] = -1;
		lane->fds[WIRE_PEER] = -1;
		list_init(&lane->link);
		list_add_tail(&lane->link, &broker->lanes_free);
	}
	return 0;
}

static struct wire_lane *record_of(const struct broker *broker,
				   const struct lane *lane)
{
	return &broker->lane_records[lane - broker->lanes];
}

static void lease_set(struct broker *broker, uint64_t until_ns)
{
	__atomic_store_n(&broker->lease->until_ns, until_ns, __ATOMIC_SEQ_CST);
}

void lanes_free(struct broker *broker)
{
	timer_cancel(broker->loop, &broker->lanes_sweep);
	if (!broker->lanes)
		return;
	lease_set(broker, 0);
	for (uint32_t i = 0; i < broker->lane_capacity; i++) {
		fd_close(&broker->lanes[i].fds[WIRE_CLIENT]);
		fd_close(&broker->lanes[i].fds[WIRE_PEER]);
	}
	table_destroy(&broker->lanes_by_id);
	free(broker->lanes);
	broker->lanes = NULL;
	broker->lane_capacity = 0;
}

static uint64_t id_hash(const struct session *session, uint64_t id)
{
	const uint64_t key[2] = { session->worker, id };

	return table_hash(key, sizeof(key));
}

struct lane *lane_find(const struct session *session, uint64_t id)
{
	const struct broker *broker = session->broker;
	struct table_node *node;

	if (!broker->lanes)
		return NULL;
	node = table_first(&broker->lanes_by_id, id_hash(session, id));
	for (; node; node = table_next(node)) {
		struct lane *lane = list_entry(node, struct lane, node);

		if (lane->owner == session && lane->id == id)
			return lane;
	}
	return NULL;
}

static void unhook(struct broker *broker, const struct wire_lane *record)
{
	for (int leg = 0; leg < WIRE_LEGS; leg++)
		broker->ops->lane_unhook(broker, &record->leg[leg].key);
}

static void state_set(struct wire_lane *record, enum wire_lane_state state)
{
	__atomic_store_n(&record->state, state, __ATOMIC_SEQ_CST);
}

void lane_end(struct lane *lane)
{
	struct broker *broker = lane->owner->broker;
	struct wire_lane *record = record_of(broker, lane);

	state_set(record, WIRE_LANE_OFF);
	unhook(broker, record);
	table_remove(&broker->lanes_by_id, &lane->node);
	fd_close(&lane->fds[WIRE_CLIENT]);
	fd_close(&lane->fds[WIRE_PEER]);
	lane->owner = NULL;
	lane->rest_ns = clock_ns() + REST_NS;
	list_del(&lane->link);
	list_add_tail(&lane->link, &broker->lanes_free);
	broker->lane_count--;
}

void lanes_drop(struct session *session)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &session->lanes)
		lane_end(list_entry(pos, struct lane, link));
}

void lane_expire(struct lane *lane, uint64_t expires_ns)
{
	__atomic_store_n(&record_of(lane->owner->broker, lane)->expires_ns,
			 expires_ns, __ATOMIC_RELAXED);
}

static void sweep_run(struct timer *timer)
{
	lanes_sweep(list_entry(timer, struct broker, lanes_sweep));
}

/* As long as there are lanes this is done again and again. */
static void lease_prolong(struct broker *broker, uint64_t now)
{
	lease_set(broker, broker->lane_count ? now + LEASE_NS : 0);
	if (broker->lane_count)
		timer_arm(broker->loop, &broker->lanes_sweep, SWEEP_MS,
			  sweep_run);
}

static void session_sweep(struct session *session, uint64_t now)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &session->lanes) {
		struct lane *lane = list_entry(pos, struct lane, link);

		if (record_of(session->broker, lane)->expires_ns > now)
			continue;
		lane_end(lane);
		session_lane_ended(session, lane->id);
		if (session->dead)
			return; /* and all its lanes have gone */
	}
}

void lanes_sweep(struct broker *broker)
{
	uint64_t now = clock_ns();
	struct list *pos;

	list_for_each(pos, &broker->sessions)
		session_sweep(list_entry(pos, struct session, link), now);
	lease_prolong(broker, now);
}

static bool message_sane(const struct broker_lane *msg)
{
	return !msg->zero && !msg->zero2 && msg->channel >= CHANNEL_LEAST &&
	       msg->channel <= CHANNEL_MOST && msg->client_port &&
	       msg->peer_port && msg->expires_ns;
}

/* The first 4 bytes alone are an IPv4 address. */
static bool bytes_fit(const struct wire_lane_key *key)
{
	static const uint8_t none[12];

	return key->family == AF_INET6 ||
	       (!memcmp(key->remote + 4, none, sizeof(none)) &&
		!memcmp(key->local + 4, none, sizeof(none)));
}

/* One that a socket without special leave can neither send to nor be. */
static bool address_odd(uint8_t family, const uint8_t bytes[16])
{
	struct in6_addr addr;

	if (family == AF_INET)
		return bytes[0] == 0 || bytes[0] == 127 || bytes[0] >= 224;
	memcpy(&addr, bytes, sizeof(addr));
	return IN6_IS_ADDR_UNSPECIFIED(&addr) || IN6_IS_ADDR_LOOPBACK(&addr) ||
	       IN6_IS_ADDR_MULTICAST(&addr) || IN6_IS_ADDR_LINKLOCAL(&addr) ||
	       IN6_IS_ADDR_V4MAPPED(&addr) || IN6_IS_ADDR_V4COMPAT(&addr);
}

static bool is_any(const uint8_t bytes[16])
{
	static const uint8_t any[16];

	return !memcmp(bytes, any, sizeof(any));
}

/* What is asked for, by the addresses of `bound`. */
struct request {
	struct wire_lane_key keys[WIRE_LEGS];
	struct wire_lane_key bound[WIRE_LEGS];
	uint32_t devices[WIRE_LEGS]; /* that lead to the remotes */
};

/*
 * The addresses of both legs. The relayed address is its socket's; that which the
 * client sends to, too, unless that socket has them all. Both must be this host's.
 */
static enum wire_reason keys_make(struct broker *broker,
				  const struct broker_lane *msg,
				  struct request *req)
{
	struct wire_lane_key *client = &req->keys[WIRE_CLIENT],
			     *peer = &req->keys[WIRE_PEER];
	const struct wire_lane_key *listener = &req->bound[WIRE_CLIENT];

	*client = *listener;
	*peer = req->bound[WIRE_PEER];
	client->channel = htons(msg->channel);
	client->remote_port = msg->client_port;
	peer->remote_port = msg->peer_port;
	memcpy(client->remote, msg->client, sizeof(client->remote));
	memcpy(client->local, msg->local, sizeof(client->local));
	memcpy(peer->remote, msg->peer, sizeof(peer->remote));
	if (!bytes_fit(client) || !bytes_fit(peer))
		return WIRE_NO_STATE;
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		const struct wire_lane_key *key = &req->keys[leg];

		if (address_odd(key->family, key->remote) ||
		    address_odd(key->family, key->local))
			return WIRE_NO_LOCAL;
	}
	if (!is_any(listener->local) &&
	    memcmp(client->local, listener->local, sizeof(client->local)) != 0)
		return WIRE_NO_STATE;
	/* Bound is not enough: a socket may be bound to what is another host's. */
	for (int leg = 0; leg < WIRE_LEGS; leg++)
		if (!broker->ops->address_ours(&req->keys[leg]))
			return WIRE_NO_STATE;
	return WIRE_OK;
}

/* Both sockets are who gets these datagrams, and the way on is the programs'. */
static enum wire_reason look_judge(struct broker *broker, struct request *req)
{
	struct wire_lane_look seen[WIRE_LEGS];

	if (broker->ops->lane_look(broker, req->keys, seen))
		return WIRE_NO_ERROR;
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		const struct wire_lane_key *bound = &req->bound[leg];

		if (!seen[leg].found || seen[leg].port != bound->local_port ||
		    memcmp(seen[leg].bound, bound->local,
			   sizeof(bound->local)) != 0)
			return WIRE_NO_STATE;
		if (!broker->ops->attached(broker, seen[leg].device))
			return WIRE_NO_DEVICE;
		if (broker->ops->lane_altered(broker, &req->keys[leg]))
			return WIRE_NO_LOCAL;
		req->devices[leg] = seen[leg].device;
	}
	return WIRE_OK;
}

static struct lane *lane_take(struct broker *broker)
{
	struct lane *lane;

	if (broker->lane_count >= broker->lanes_max ||
	    list_empty(&broker->lanes_free))
		return NULL;
	lane = list_entry(broker->lanes_free.next, struct lane, link);
	return lane->rest_ns > clock_ns() ? NULL : lane;
}

static void record_fill(struct wire_lane *record, const struct request *req,
			const struct broker_lane *msg)
{
	uint32_t generation = record->generation + 1;

	memset(record, 0, sizeof(*record));
	record->generation = generation;
	record->expires_ns = msg->expires_ns;
	for (int leg = 0; leg < WIRE_LEGS; leg++) {
		record->leg[leg].key = req->keys[leg];
		record->leg[leg].device = req->devices[leg];
	}
}

/* Both flows, or neither. */
static enum wire_reason hook(struct broker *broker, uint32_t index,
			     const struct request *req)
{
	for (uint32_t leg = 0; leg < WIRE_LEGS; leg++) {
		int err = broker->ops->lane_hook(broker, &req->keys[leg], index,
						 leg);

		if (!err)
			continue;
		if (leg)
			broker->ops->lane_unhook(broker, &req->keys[0]);
		return err == -EEXIST ? WIRE_NO_STATE : WIRE_NO_ERROR;
	}
	return WIRE_OK;
}

static enum wire_reason lane_open(struct session *session,
				  const struct broker_lane *msg,
				  struct request *req, const int fds[WIRE_LEGS],
				  struct broker_lane_answer *answer)
{
	struct broker *broker = session->broker;
	struct lane *lane = lane_take(broker);
	enum wire_reason reason;
	struct wire_lane *record;

	if (!lane)
		return WIRE_NO_ROOM;
	record = record_of(broker, lane);
	record_fill(record, req, msg);
	reason = hook(broker, (uint32_t)(lane - broker->lanes), req);
	if (reason)
		return reason;
	lane->owner = session;
	lane->id = msg->id;
	memcpy(lane->fds, fds, sizeof(lane->fds));
	list_del(&lane->link);
	list_add_tail(&lane->link, &session->lanes);
	table_insert(&broker->lanes_by_id, &lane->node,
		     id_hash(session, msg->id));
	state_set(record, WIRE_LANE_ON);
	answer->lane = (uint32_t)(lane - broker->lanes);
	answer->generation = record->generation;
	/* No sweep: were its time up already, its end would be told first. */
	if (!broker->lane_count++)
		lease_prolong(broker, clock_ns());
	return WIRE_OK;
}

int lane_make(struct session *session, const struct broker_lane *msg,
	      const int fds[WIRE_LEGS], struct broker_lane_answer *answer)
{
	struct broker *broker = session->broker;
	struct request req = { .devices = { 0 } };
	enum wire_reason reason;

	*answer = (struct broker_lane_answer){
		.type = BROKER_LANE_ANSWER,
		.reason = WIRE_NO_ROOM,
		.id = msg->id,
	};
	if (!message_sane(msg) || lane_find(session, msg->id))
		return -EBADMSG;
	for (int leg = 0; leg < WIRE_LEGS; leg++)
		if (broker->ops->datagram_bound(broker, fds[leg],
						leg == WIRE_CLIENT,
						&req.bound[leg]))
			return -EBADMSG;
	if (!broker->lanes)
		return 0;
	reason = keys_make(broker, msg, &req);
	if (!reason)
		reason = look_judge(broker, &req);
	if (!reason)
		reason = lane_open(session, msg, &req, fds, answer);
	answer->reason = reason;
	return 0;
}
