/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The TURN server (RFC 8656 with RFC 6062) of one process: what is shared, and one
 * turn_worker per thread that owns its clients, allocations and pairs.
 */
#ifndef TURN_TURN_H
#define TURN_TURN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/auth.h"
#include "base/addr.h"
#include "base/counters.h"
#include "conf/conf.h"
#include "engine/engine.h"
#include "engine/wire.h"
#include "loop/loop.h"
#include "transport/tls.h"

#define TURN_ID_LEN 32 /* "a3.17", "c3.17": kind, worker, serial number */

/*
 * Everything the request handlers read of one configuration: immutable, counted,
 * swapped whole by a reload.
 */
struct turn_settings;

/*
 * store: the user database, which outlives the settings; NULL: none. On success the
 * secrets of `conf` are wiped: there are keys of them. 0, -ENOMEM, or -EINVAL (a user
 * or realm the auth room refuses).
 */
int turn_settings_new(struct conf *conf,
		      const uint8_t nonce_secret[AUTH_SECRET_LEN],
		      struct store *store, struct turn_settings **out);
/*
 * What a [listener] needs for TLS or DTLS; NULL when it is for neither. 0, -ENOMEM, or
 * -EINVAL: `fault` says what is wrong with its certificates, keys or ciphers.
 */
int turn_listener_tls(const struct conf_listener *listener,
		      struct tls_server **out, struct tls_fault *fault);
struct turn_settings *turn_settings_ref(struct turn_settings *settings);
void turn_settings_unref(struct turn_settings *settings); /* accepts NULL */

/* Process-wide: limits counted over all workers, relayed ports, the workers. */
struct turn_shared;

/* 0, -ENOMEM, or -EINVAL for none or more than CONF_MAX_WORKERS. Call after
 * RLIMIT_NOFILE has its final value.
 */
int turn_shared_new(unsigned int workers, struct turn_shared **out);
void turn_shared_free(struct turn_shared *shared); /* accepts NULL */
/* Refuse new allocations (508) and new client connections' Allocates, or not. */
void turn_shared_drain(struct turn_shared *shared, bool on);
bool turn_shared_draining(const struct turn_shared *shared);
/*
 * Sources that have no way out now, in order; copied. From then on new allocations go by
 * this and not by which links are up. 0 or -ENOMEM.
 */
int turn_shared_dead(struct turn_shared *shared, const struct addr_span *spans,
		     size_t count);

struct turn_worker;

struct turn_worker_params {
	struct turn_shared *shared;
	unsigned int index; /* 0 .. workers - 1; goes into CONNECTION-IDs */
	struct loop *loop;
	struct turn_settings *settings; /* referenced */
	/* Called when an engine cannot run here; once per worker and engine. */
	void (*engine_unavailable)(void *arg, const char *name, int error);
	/* Its channel to the broker has ended: it wants another. May be NULL. */
	void (*broker_lost)(void *arg);
	void *arg;
};

/*
 * Builds a worker. Call in any thread before its loop runs. 0, -ENOMEM, -EMFILE,
 * -EINVAL (index, engine names), -ENODEV (no engine), or what reading its
 * own addresses says (own.h).
 */
int turn_worker_new(const struct turn_worker_params *params,
		    struct turn_worker **out);
/*
 * Closes everything it owns. No worker of this turn_shared may be running in
 * another thread: stop and join them all, then free the workers, then their
 * loops (which deliver what is under way between workers), then turn_shared.
 */
void turn_worker_free(struct turn_worker *worker); /* accepts NULL */

/* Everything below is called on the worker's own loop thread. */

/*
 * Serves a descriptor of listener_open; takes it over on success. name finds the
 * [listener] of the settings (its realm), also after a reload.
 */
int turn_worker_listen(struct turn_worker *worker, int fd, const char *name);
/*
 * Takes new settings; existing allocations and pairs go on. Engines are reopened
 * for new pairs when [engine] changed; sockets whose listener or address is not
 * in the settings any more are closed.
 */
void turn_worker_reload(struct turn_worker *worker,
			struct turn_settings *settings);

/*
 * Takes over a channel to the broker instead of the one before; -1: there is
 * none. 0, or -ENOMEM and -ENOSPC with it closed: wire is off.
 */
int turn_worker_broker(struct turn_worker *worker, int fd);

/* Bytes of connections as of the last turn_worker_look. */
void turn_worker_counters(const struct turn_worker *worker,
			  struct counters *out);

struct turn_allocation_info {
	char id[TURN_ID_LEN];
	union addr client, relayed;
	union addr additional; /* of the other family; AF_UNSPEC: none */
	const char *user, *realm;
	uint64_t age_ms, expires_in_ms;
	unsigned int permissions, pending, connections, channels;
	/* "tcp" or "udp", of the relayed address; of what the client speaks
	 * "tls" and "dtls", too
	 */
	const char *transport, *client_transport;
	uint64_t bytes_to_peers, bytes_to_client; /* of a UDP one */
};

struct turn_connection_info {
	char id[TURN_ID_LEN], allocation[TURN_ID_LEN];
	union addr client; /* of the data connection; AF_UNSPEC before the bind */
	union addr peer;
	const char *user;
	/* connecting, held, joining, flushing, relaying, closing, adopted */
	const char *state;
	const char *engine; /* "-" before one is attached */
	const char *why; /* it is not on wire, in words; "" when it is */
	uint64_t expires_in_ms; /* of an adopted one; 0: never */
	uint64_t bytes_to_peer, bytes_to_client;
	uint64_t age_ms, idle_ms;
};

/* Calls fn per row until it returns false. */
void turn_worker_each_allocation(
	struct turn_worker *worker,
	bool (*fn)(void *arg, const struct turn_allocation_info *info),
	void *arg);

enum turn_walk {
	TURN_WALK_ENDED, /* allocations that have ended, all in one go */
	TURN_WALK_ALLOCATIONS,
	TURN_WALK_ADOPTED,
};

/*
 * Where a walk over the connections goes on. Zero-initialise. What begins or ends
 * between two calls may be left out; nothing is told twice.
 */
struct turn_cursor {
	enum turn_walk walk;
	uint64_t allocation; /* serial of the one it has come to */
	uint64_t connection; /* serial of the last one told of */
};

/*
 * Calls fn for the next `count` connections at most, and for those of allocations
 * that have ended beside them. true: there are more; false: no more, or fn has
 * returned false.
 */
bool turn_worker_each_connection(
	struct turn_worker *worker, struct turn_cursor *at, size_t count,
	bool (*fn)(void *arg, const struct turn_connection_info *info),
	void *arg);

/*
 * Counts what the next `count` connections at most, and those of allocations that have
 * ended beside them, have carried since they were looked at last. true: there are
 * more.
 */
bool turn_worker_look(struct turn_worker *worker, struct turn_cursor *at,
		      size_t count);

/* How many connections there are. */
size_t turn_worker_connections(const struct turn_worker *worker);

/* The engines of this worker: engine_set_usage, summed over reloads. */
bool turn_worker_engine(const struct turn_worker *worker, size_t i,
			struct engine_usage *out);

/* What wire has done for this worker. */
struct turn_wire_info {
	bool wanted; /* the configuration lets connections go on it */
	const char *why; /* it does not work, in words; "" when it does */
	uint32_t places; /* for pairs of all workers; 0: not known */
	uint64_t pairs_now, joins;
	uint64_t refused[WIRE_REASONS]; /* pairs, by enum wire_reason */
};
void turn_worker_wire(const struct turn_worker *worker,
		      struct turn_wire_info *out);

/* Data connections over TLS. */
struct turn_ktls_info {
	int error; /* 0: the kernel may have them; -ECANCELED: not wanted */
	uint64_t pairs_now; /* of it */
	uint64_t places[SEAL_PLACES]; /* so far, by enum seal_place */
};
void turn_worker_ktls(const struct turn_worker *worker,
		      struct turn_ktls_info *out);

/* Ends an allocation with all its connections, or one connection (reset).
 * 0 or -ENOENT.
 */
int turn_worker_kick(struct turn_worker *worker, const char *id);

#endif
