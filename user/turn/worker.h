/* SPDX-License-Identifier: BSD-2-Clause */
/* One thread's share of the TURN server: owner of clients and allocations. */
#ifndef TURN_WORKER_H
#define TURN_WORKER_H

#include "base/list.h"
#include "base/log.h"
#include "base/table.h"
#include "engine/wire.h"
#include "pair/rendezvous.h"
#include "transport/tls.h"
#include "transport/transport.h"
#include "transport/udp.h"
#include "turn/policy.h"
#include "turn/settings.h"
#include "turn/shared.h"
#include "turn/turn.h"

#define ROOM "turn"

/* Rate-limited log lines, each kind by itself. */
enum turn_log {
	TURN_LOG_LIMIT, /* a connection over a limit was closed */
	TURN_LOG_GUESSES, /* a source has failed too often to authenticate */
	TURN_LOG_REFLECTION, /* strangers of a network get no answer */
	TURN_LOG_DESCRIPTORS, /* an accept failed */
	TURN_LOG_HANDSHAKE, /* TLS could not be agreed on */
	TURN_LOG_PROXY, /* who connected is no proxy, or speaks like none */
	TURN_LOG_QUEUE, /* a client does not read */
	TURN_LOG_RESOURCE, /* a request failed for want of memory and such */
	TURN_LOG_ALLOCATION, /* an allocation was made */
	TURN_LOG_ALLOCATION_ENDED,
	TURN_LOG_KINDS,
};

/*
 * The engines of one [engine] section. Pairs keep theirs until they end, so
 * sets of older configurations live on.
 */
struct turn_engines {
	struct list link; /* of worker->engine_sets, the one in force last */
	struct engine_set *set;
	size_t pairs;
};

/* What serves one name of [listener]: its sockets and the realm to offer. */
struct turn_listener {
	struct list link; /* of worker->listeners */
	struct turn_worker *worker;
	struct list sockets;
	struct list proxied; /* struct proxied: not clients yet */
	size_t refs; /* one of the worker, one of each client and of those */
	const struct conf_listener *conf; /* in worker->settings; NULL: gone */
	const char *realm; /* lives there, too */
	struct tls_server *tls; /* so, too; NULL: none, or nobody new is served */
	char name[CONF_NAME_MAX];
};

struct turn_worker {
	struct turn_shared *shared;
	unsigned int index;
	struct loop *loop;
	struct turn_settings *settings;
	void (*engine_unavailable)(void *arg, const char *name, int error);
	void (*broker_lost)(void *arg);
	void *arg;

	struct udp *udp; /* of its UDP sockets */
	struct wire *wire; /* may have no channel */
	bool wire_was_ready;
	bool sockmap_known; /* whether there will be its maps */
	struct list adopted; /* struct adopted; of worker 0 */
	size_t adopted_count;
	uint64_t wire_reasons[WIRE_REASONS]; /* pairs, by what kept them off */
	uint64_t seals[SEAL_PLACES]; /* data connections', by who decrypts */

	struct list engine_sets; /* struct turn_engines */
	bool engines_missed; /* the settings' own could not be opened */
	struct rendezvous rendezvous; /* CONNECTION-ID -> struct peer_conn */
	struct table permissions; /* (allocation, host) -> struct permission */
	struct table peer_conns; /* (allocation, peer) -> struct peer_conn */
	struct table channel_numbers; /* (allocation, number) -> struct channel */
	struct table channel_peers; /* (allocation, peer) -> struct channel */
	struct table paths; /* 5-tuple -> struct client of datagrams */
	struct table detour_paths; /* 5-tuple -> struct detour */
	struct list detours; /* the same */
	uint64_t parcel_serial; /* of the last datagram that took one */
	unsigned int parcel_hops; /* of the one that is being handled; else 0 */
	struct list waiting; /* struct waiting */
	/* For the request that is handled again because of it; else NULL. */
	struct store_ask *answer;
	struct list listeners; /* struct turn_listener */
	struct list clients; /* struct client */
	struct list allocations; /* struct allocation, active */
	struct table serials; /* serial -> the same */
	struct list ended; /* allocations whose pairs still deliver */

	/* Freed at the end of the tick: callbacks still on the stack may
	 * look at them.
	 */
	struct list dead_clients, dead_conns, dead_allocations;
	struct deferred reaper;

	struct counters counters;
	uint64_t allocation_serial, connection_serial;
	struct own_addresses own;
	uint64_t policy_serial; /* grows when peers may be judged otherwise */
	struct log_limit limits[TURN_LOG_KINDS];
};

static inline const struct conf *turn_conf(const struct turn_worker *worker)
{
	return worker->settings->conf;
}

static inline const struct conf_limits *
turn_limits(const struct turn_worker *worker)
{
	return &worker->settings->conf->limits;
}

/* Its maps have come, or will not: engines are opened again. */
void turn_worker_sockmap(struct turn_worker *worker, int error);

/* The engines for a new pair. */
struct turn_engines *turn_worker_engines(struct turn_worker *worker);

/* Puts a dead object's link on one of the dead lists, to be freed. */
void turn_worker_bury(struct turn_worker *worker, struct list *link,
		      struct list *dead);

/*
 * True when a line of this kind may be logged; see log_allow. Allocations begin
 * and end as a matter of course: of their lines there may be more.
 */
bool turn_worker_may_log(struct turn_worker *worker, enum turn_log kind,
			 uint64_t *suppressed);

struct turn_listener *turn_listener_find(struct turn_worker *worker,
					 const char *name);
/*
 * Its socket for datagrams that is bound to this address, or to any with its port;
 * NULL: there is none.
 */
struct datagram_port *turn_listener_port(const struct turn_listener *listener,
					 const union addr *local);
struct turn_listener *turn_listener_ref(struct turn_listener *listener);
void turn_listener_unref(struct turn_listener *listener); /* accepts NULL */

#endif
