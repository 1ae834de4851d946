/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A worker's side of wire: its channel, who may go on it, adopted pairs.
 *
 * An outlet's number for the broker is unique among all relays whose pairs may be in
 * the kernel: 24 random bits of this process, the family, the worker, the serial. By the random ones a pair of this process is told from one that an earlier relay
 * has left behind. Worker 0 adopts the latter: it lists them, hears of their
 * end, resets them when told to, and keeps their relayed port from new
 * allocations. When they end is in the map; nobody refreshes them any more.
 */
#include "turn/on_wire.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/syscalls.h"
#include "turn/access.h"
#include "turn/client.h"
#include "turn/peer_conn.h"
#include "turn/port.h"

SYSCALLS(SYSCALLS_RELAY, "getsockopt");

#define INSTANCE_SHIFT 40
#define FAMILY_SHIFT   39
#define WORKER_SHIFT   32
#define NS_PER_MS      UINT64_C(1000000)
#define MSS_FRESH_MS   1000

static struct adopted *adopted_of(struct wire_link *link)
{
	return list_entry(link, struct adopted, wire);
}

static void adopted_free(struct adopted *adopted)
{
	struct turn_worker *worker = adopted->worker;

	worker->counters.relaying--;
	worker->adopted_count--;
	turn_port_unclaim(worker->shared, adopted->claim);
	list_del(&adopted->link);
	free(adopted);
}

static void adopted_answered(struct wire_link *link, enum wire_reason reason)
{
	(void)link;
	(void)reason;
}

static void adopted_active(struct wire_link *link)
{
	(void)link;
}

static void adopted_count(struct adopted *adopted,
			  const struct wire_stats *stats)
{
	struct counters *counters = &adopted->worker->counters;

	for (int i = 0; i < WIRE_LEGS; i++) {
		/* A broker started anew may have no counts of what is gone. */
		if (stats->bytes[i] <= adopted->bytes[i])
			continue;
		*(i == WIRE_CLIENT ? &counters->bytes_to_clients :
				     &counters->bytes_to_peers) +=
			stats->bytes[i] - adopted->bytes[i];
		adopted->bytes[i] = stats->bytes[i];
	}
}

static void adopted_ended(struct wire_link *link, enum wire_end end,
			  const struct wire_stats *stats)
{
	struct adopted *adopted = adopted_of(link);

	log_debug(ROOM,
		  "event=connection_ended connection=c%u.%ju adopted=yes "
		  "reason=%s",
		  adopted->worker->index, (uintmax_t)adopted->serial,
		  wire_end_name(end));
	adopted_count(adopted, stats);
	adopted_free(adopted);
}

static const struct wire_link_ops adopted_ops = {
	.answered = adopted_answered,
	.active = adopted_active,
	.ended = adopted_ended,
};

static void leg_addr(union addr *out, const struct wire_pair *pair,
		     const uint8_t *bytes, uint16_t port)
{
	addr_from_bytes(out, (sa_family_t)pair->family, bytes, ntohs(port));
}

static void orphan_adopt(void *arg, uint32_t place,
			 const struct wire_pair *pair)
{
	struct turn_worker *worker = arg;
	const struct wire_leg *client = &pair->leg[WIRE_CLIENT];
	const struct wire_leg *peer = &pair->leg[WIRE_PEER];
	struct adopted *adopted;
	union addr relayed;

	/* One of ours: a worker knows it, or is about to. */
	if (pair->allocation >> INSTANCE_SHIFT == worker->shared->instance ||
	    (pair->family != AF_INET && pair->family != AF_INET6))
		return;
	adopted = calloc(1, sizeof(*adopted));
	if (!adopted)
		return;
	adopted->worker = worker;
	adopted->serial = ++worker->connection_serial;
	adopted->created_ns = pair->created_ns;
	adopted->expires_ns = pair->expires_ns;
	leg_addr(&adopted->client, pair, client->remote, client->remote_port);
	leg_addr(&adopted->peer, pair, peer->remote, peer->remote_port);
	leg_addr(&relayed, pair, peer->local, peer->local_port);
	memcpy(adopted->label, pair->label, sizeof(adopted->label) - 1);
	adopted->claim = turn_port_claim(worker->shared, &relayed);
	adopted->wire.ops = &adopted_ops;
	list_add_tail(&adopted->link, &worker->adopted);
	worker->counters.relaying++;
	worker->adopted_count++;
	worker->counters.adopted++;
	wire_adopt(worker->wire, &adopted->wire, place, pair->generation);
	turn_wire_adopted_look(adopted);
}

void turn_wire_adopted_look(struct adopted *adopted)
{
	struct wire_stats stats;

	if (wire_link_stats(&adopted->wire, &stats))
		adopted_count(adopted, &stats);
}

static void wire_changed(void *arg)
{
	struct turn_worker *worker = arg;
	bool ready = wire_ready(worker->wire);
	bool first = worker->index == 0;

	if (ready && first)
		log_info(ROOM, "event=wire_ready pairs=%u adopted=%ju",
			 wire_capacity(worker->wire),
			 (uintmax_t)worker->counters.adopted);
	else if (!ready && (first || worker->wire_was_ready))
		log_warn(ROOM, "event=wire_off worker=%u why=\"%s\"",
			 worker->index, wire_why(worker->wire));
	worker->wire_was_ready = ready;
}

static void wire_lost(void *arg)
{
	struct turn_worker *worker = arg;

	if (worker->broker_lost)
		worker->broker_lost(worker->arg);
}

static void sockmap_came(void *arg, int error)
{
	turn_worker_sockmap(arg, error);
}

int turn_wire_open(struct turn_worker *worker)
{
	const struct wire_params params = {
		.loop = worker->loop,
		.worker = worker->index,
		.orphan = worker->index == 0 ? orphan_adopt : NULL,
		.changed = wire_changed,
		.lost = wire_lost,
		.sockmap = sockmap_came,
		.arg = worker,
	};

	list_init(&worker->adopted);
	return wire_new(&params, &worker->wire);
}

void turn_wire_close(struct turn_worker *worker)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &worker->adopted) {
		struct adopted *adopted = list_entry(pos, struct adopted, link);

		wire_forget(&adopted->wire);
		adopted_free(adopted);
	}
	wire_free(worker->wire);
	worker->wire = NULL;
}

_Static_assert(CONF_MAX_WORKERS <= 1 << (FAMILY_SHIFT - WORKER_SHIFT),
	       "the worker fits");

static uint64_t outlet_number(const struct outlet *outlet)
{
	const struct allocation *allocation = outlet->allocation;
	const struct turn_worker *worker = allocation->worker;
	const uint64_t family =
		turn_family_index(addr_family(&outlet->relayed.addr));

	return (uint64_t)worker->shared->instance << INSTANCE_SHIFT |
	       family << FAMILY_SHIFT |
	       (uint64_t)worker->index << WORKER_SHIFT |
	       (uint32_t)allocation->serial;
}

/* Somewhat later than the relay itself would end them, if it still can. */
static uint64_t outlet_expires(const struct outlet *outlet)
{
	return (outlet->expires_ms + TURN_LINGER_MS) * NS_PER_MS;
}

void turn_wire_prolong(const struct outlet *outlet)
{
	if (outlet->allocation->conn_count)
		wire_expire(outlet->allocation->worker->wire,
			    outlet_number(outlet), outlet_expires(outlet));
}

static uint64_t conn_expires(void *owner)
{
	return outlet_expires(turn_peer_conn_outlet(owner));
}

static void conn_label(void *owner, char out[WIRE_LABEL])
{
	const struct peer_conn *conn = owner;
	const struct auth_account *account = conn->allocation->account;

	snprintf(out, WIRE_LABEL, "%s@%s", auth_account_user(account),
		 auth_account_realm(account));
}

static bool engines_have_wire(char *const *order, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(order[i], "wire") == 0)
			return true;
	return false;
}

static int control_fd(const struct allocation *allocation)
{
	return allocation->client ?
		       transport_stream_fd(allocation->client->stream) :
		       -1;
}

/* Do the settings let it go on wire? WIRE_OK, or why not; `pin` says by whose. */
static enum wire_reason settings_ask(const struct outlet *outlet,
				     struct turn_pin *pin)
{
	const struct allocation *allocation = outlet->allocation;
	const struct turn_worker *worker = allocation->worker;
	const struct conf_engine *conf = &turn_conf(worker)->engine;
	bool wanted;

	*pin = turn_settings_pin(worker->settings, &allocation->access,
				 &outlet->relayed.addr);
	wanted = pin->engines ?
			 engines_have_wire(pin->engines->order,
					   pin->engines->count) :
			 engines_have_wire(conf->order, conf->order_count);
	if (conf->wire == CONF_WIRE_NEVER)
		return WIRE_NO_PINNED;
	if (!wanted)
		return pin->why;
	return turn_access_limited(allocation) ? WIRE_NO_RATE : WIRE_OK;
}

bool turn_wire_wanted(const struct outlet *outlet)
{
	struct turn_pin pin;

	return settings_ask(outlet, &pin) == WIRE_OK;
}

enum wire_reason turn_wire_params(const struct peer_conn *conn, bool sealed,
				  struct pair_policy *policy,
				  struct pair_wire_params *out)
{
	struct turn_worker *worker = conn->worker;
	const struct conf_engine *conf = &turn_conf(worker)->engine;
	const struct outlet *outlet = turn_peer_conn_outlet(conn);
	struct turn_pin pin;
	enum wire_reason why = settings_ask(outlet, &pin);

	if (why)
		return why;
	if (sealed)
		return WIRE_NO_SEAL;
	if (!wire_ready(worker->wire))
		return WIRE_NO_BROKER;
	policy->max_rtt_us = (uint32_t)conf->wire_max_rtt_ms * 1000;
	policy->max_growth_us = (uint32_t)conf->wire_max_growth_ms * 1000;
	policy->max_loss = conf->wire_max_loss;
	*out = (struct pair_wire_params){
		.wire = worker->wire,
		.control = control_fd(conn->allocation),
		.allocation = outlet_number(outlet),
		.expires_ns = conn_expires,
		.label = conn_label,
	};
	if (conf->wire == CONF_WIRE_AUTO && !pin.engines)
		out->policy = policy;
	return WIRE_OK;
}

/* Nobody has wanted it on wire. */
static bool is_pinned(enum wire_reason why)
{
	return why == WIRE_NO_PINNED || why == WIRE_NO_PINNED_USER ||
	       why == WIRE_NO_PINNED_REALM || why == WIRE_NO_PINNED_EXIT;
}

void turn_wire_count(struct turn_worker *worker, enum wire_reason why)
{
	worker->wire_reasons[why]++;
	if (why == WIRE_OK)
		worker->counters.wire_joined++;
	else if (!is_pinned(why))
		worker->counters.wire_refused++;
}

/* What fits into one segment on this connection, options and all; 0: unknown. */
static unsigned int mss_read(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return 0;
	/* What is announced counts no options, what is measured does. */
	return info.tcpi_snd_mss +
	       (info.tcpi_options & TCPI_OPT_TIMESTAMPS ? 12 : 0);
}

unsigned int turn_wire_mss(const struct allocation *allocation)
{
	const struct turn_worker *worker = allocation->worker;
	struct client *client = allocation->client;
	int fd = control_fd(allocation);
	uint64_t now;

	if (!wire_ready(worker->wire) || fd < 0)
		return 0;
	now = loop_now(worker->loop);
	if (!client->mss || now - client->mss_ms >= MSS_FRESH_MS) {
		client->mss = mss_read(fd);
		client->mss_ms = now;
	}
	return client->mss;
}
