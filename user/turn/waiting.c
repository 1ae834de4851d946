/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests that wait for the user database.
 *
 *   asked -> answered ---------------------> handled again, freed
 *         -> late: handled again as failed -> answered, freed
 *
 * The worker goes on meanwhile. A connection is paused, so that its messages stay
 * in their order, and its bytes wait where they are; a datagram is copied. When the
 * answer is there the request is handled anew from its first byte, as it would
 * have been had the user been known at once: nothing of the first time is kept.
 *
 * The question belongs to the store until it is answered, however late, and with
 * it the struct; [database] waiting bounds them, over all workers, and
 * waiting_per_source those of one source: who asks for names at random makes the
 * database slow first of all for himself.
 */
#include "turn/waiting.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "crypto/crypto.h"
#include "turn/datagram.h"

struct waiting {
	struct list link; /* of worker->waiting */
	struct turn_worker *worker;
	struct client *client; /* a connection; NULL: gone, or datagrams */
	struct datagram_port *port; /* of a datagram; NULL: gone, or none */
	struct udp_path path; /* likewise, but for path.remote */
	struct timer timer;
	struct store_ask ask;
	uint8_t txid[STUN_TXID_LEN];
	size_t len; /* of the datagram */
	uint8_t data[];
};

static struct waiting *waiting_of(struct list *link)
{
	return list_entry(link, struct waiting, link);
}

/* The request is handled again, with this answer. */
static void waiting_end(struct waiting *waiting, struct store_ask *ask)
{
	struct turn_worker *worker = waiting->worker;
	struct client *client = waiting->client;
	struct datagram_port *port = waiting->port;

	timer_cancel(worker->loop, &waiting->timer);
	waiting->client = NULL;
	waiting->port = NULL;
	if (ask->result && ask->result != -ENOENT)
		worker->counters.lookup_failures++;
	worker->answer = ask;
	if (client) {
		client->waiting = NULL;
		transport_stream_resume(client->stream);
	} else if (port) {
		turn_datagram_again(port, &waiting->path, waiting->data,
				    waiting->len);
	}
	worker->answer = NULL;
}

static void waiting_late(struct timer *timer)
{
	struct waiting *waiting = list_entry(timer, struct waiting, timer);
	/* The other one is still being answered. */
	struct store_ask ask = {
		.key = waiting->ask.key,
		.answered = true,
		.result = -ETIMEDOUT,
	};

	waiting_end(waiting, &ask);
}

static void place_release(struct turn_shared *shared, const union addr *remote)
{
	turn_gauge_release(&shared->waiting);
	turn_source_release(&shared->waiting_sources, remote);
}

static void waiting_answered(struct store_ask *ask)
{
	struct waiting *waiting = list_entry(ask, struct waiting, ask);
	struct turn_worker *worker = waiting->worker;

	if (waiting->client || waiting->port)
		waiting_end(waiting, ask);
	timer_cancel(worker->loop, &waiting->timer);
	list_del(&waiting->link);
	place_release(worker->shared, &waiting->path.remote);
	crypto_wipe(&waiting->ask, sizeof(waiting->ask));
	free(waiting);
}

static bool came_from(const struct waiting *waiting,
		      const struct datagram_port *port,
		      const union addr *remote, const union addr *local)
{
	return waiting->port == port &&
	       addr_equal(&waiting->path.remote, remote) &&
	       addr_equal(&waiting->path.local, local);
}

bool turn_waiting_from(const struct datagram_port *port,
		       const struct udp_path *path)
{
	struct list *pos;

	list_for_each(pos, &port->listener->worker->waiting)
		if (came_from(waiting_of(pos), port, &path->remote,
			      &path->local))
			return true;
	return false;
}

/* A client that hears nothing sends its request again: one of them is enough. */
static bool waits_already(const struct request *req)
{
	const struct client *client = req->client;
	struct list *pos;

	list_for_each(pos, &req->worker->waiting) {
		const struct waiting *waiting = waiting_of(pos);

		if (came_from(waiting, client->port, &client->remote,
			      &client->local) &&
		    !memcmp(waiting->txid, req->msg->txid, STUN_TXID_LEN))
			return true;
	}
	return false;
}

static struct waiting *waiting_alloc(struct request *req)
{
	struct client *client = req->client;
	size_t len = client->stream ? 0 : req->msg->len;
	struct waiting *waiting = calloc(1, sizeof(*waiting) + len);

	if (!waiting)
		return NULL;
	waiting->worker = req->worker;
	waiting->len = len;
	memcpy(waiting->data, req->msg->data, len);
	memcpy(waiting->txid, req->msg->txid, STUN_TXID_LEN);
	waiting->path.remote = client->remote;
	if (client->stream) {
		waiting->client = client;
		client->waiting = waiting;
		transport_stream_pause(client->stream);
	} else {
		waiting->port = client->port;
		waiting->path.local = client->local;
	}
	return waiting;
}

/* A datagram is sent again: by then there may be room. */
static int waiting_refused(struct request *req)
{
	req->worker->counters.lookups_refused++;
	return req->client->stream ? STUN_CODE_SERVER_ERROR : TURN_LATER;
}

static bool place_take(struct turn_worker *worker, const union addr *remote)
{
	const struct conf_database *conf = &turn_conf(worker)->database;
	struct turn_shared *shared = worker->shared;

	if (!turn_gauge_take(&shared->waiting, conf->waiting))
		return false;
	if (turn_source_take(&shared->waiting_sources, remote,
			     conf->waiting_per_source))
		return true;
	turn_gauge_release(&shared->waiting);
	worker->counters.lookup_source_refusals++;
	return false;
}

int turn_waiting_new(struct request *req, const struct store_key *key)
{
	struct turn_worker *worker = req->worker;
	const union addr *remote = &req->client->remote;
	struct waiting *waiting;

	if (!req->client->stream && waits_already(req))
		return TURN_LATER;
	if (!place_take(worker, remote))
		return waiting_refused(req);
	waiting = waiting_alloc(req);
	if (!waiting) {
		place_release(worker->shared, remote);
		return waiting_refused(req);
	}
	waiting->ask.key = *key;
	list_add_tail(&waiting->link, &worker->waiting);
	timer_arm(worker->loop, &waiting->timer,
		  turn_conf(worker)->database.timeout_ms, waiting_late);
	worker->counters.lookups++;
	store_ask(worker->settings->store, &waiting->ask, worker->loop,
		  waiting_answered);
	return TURN_LATER;
}

void turn_waiting_forget_client(struct client *client)
{
	if (!client->waiting)
		return;
	client->waiting->client = NULL;
	client->waiting = NULL;
}

void turn_waiting_forget_port(struct turn_worker *worker,
			      const struct datagram_port *port)
{
	struct list *pos;

	list_for_each(pos, &worker->waiting)
		if (waiting_of(pos)->port == port)
			waiting_of(pos)->port = NULL;
}
