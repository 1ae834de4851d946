/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Strangers: connections that have not authenticated. Each has a place among the
 * connections, one among the unauthenticated and, while its handshake is not
 * complete, one among the half-open ones, of which there are fewest, in all and
 * from one source: each costs far more memory and time.
 */
#include "turn/stranger.h"

#include <errno.h>

void turn_handshake_release(struct turn_shared *shared,
			    const union addr *remote)
{
	turn_gauge_release(&shared->handshakes);
	turn_source_release(&shared->handshake_sources, remote);
}

static const char *handshake_take(struct turn_worker *worker,
				  const union addr *remote)
{
	const struct conf_limits *limits = turn_limits(worker);
	struct turn_shared *shared = worker->shared;

	if (!turn_gauge_take(&shared->handshakes, limits->handshakes)) {
		worker->counters.handshake_rejects++;
		return "handshakes";
	}
	if (turn_source_take(&shared->handshake_sources, remote,
			     limits->handshakes_per_source))
		return NULL;
	turn_gauge_release(&shared->handshakes);
	worker->counters.handshake_source_rejects++;
	return "handshakes_per_source";
}

static void connection_release(struct turn_shared *shared, bool descriptor)
{
	if (descriptor)
		turn_slot_release(shared);
	else
		turn_connection_release(shared);
}

/* Among the unauthenticated and the half-open. */
static const char *places_take(struct turn_worker *worker,
			       const struct stranger *stranger)
{
	struct turn_shared *shared = worker->shared;
	const char *limit = NULL;

	if (!turn_gauge_take(&shared->unauthenticated,
			     turn_limits(worker)->unauthenticated))
		return "unauthenticated";
	if (stranger->handshake)
		limit = handshake_take(worker, &stranger->remote);
	if (limit)
		turn_gauge_release(&shared->unauthenticated);
	return limit;
}

const char *turn_stranger_admit(struct turn_worker *worker,
				const struct stranger *stranger)
{
	struct turn_shared *shared = worker->shared;
	const struct conf *conf = turn_conf(worker);
	const char *limit = "connections";
	int err = stranger->descriptor ? turn_slot_take(shared, conf) :
					 turn_connection_take(shared, conf);

	if (err == -EMFILE) {
		worker->counters.rejected_descriptors++;
		return "descriptors";
	}
	if (!err) {
		limit = places_take(worker, stranger);
		if (!limit)
			return NULL;
		connection_release(shared, stranger->descriptor);
	}
	worker->counters.rejected_limit++;
	return limit;
}

void turn_stranger_dismiss(struct turn_worker *worker,
			   const struct stranger *stranger)
{
	if (stranger->handshake)
		turn_handshake_release(worker->shared, &stranger->remote);
	turn_gauge_release(&worker->shared->unauthenticated);
	connection_release(worker->shared, stranger->descriptor);
}

void turn_stranger_log(struct turn_worker *worker, const char *limit,
		       const union addr *remote)
{
	char text[ADDR_STRLEN];
	uint64_t suppressed;

	if (turn_worker_may_log(worker, TURN_LOG_LIMIT, &suppressed))
		log_warn(ROOM,
			 "event=rejected limit=%s client=%s suppressed=%ju",
			 limit, addr_format(remote, text),
			 (uintmax_t)suppressed);
}
