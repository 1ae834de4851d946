/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Detours: the kernel gives the datagrams of a 5-tuple to one worker, by a hash, and
 * an allocation stays with the worker that made it. When a client has moved
 * (mobile.c) the two may differ. Then the first worker keeps a detour for the
 * 5-tuple and copies each of its datagrams into a letter for the second, which
 * handles it as if it had come there, and answers from its own socket of the same
 * address.
 *
 *   begun by a Refresh with a ticket of ours -> kept -> ended
 *                                            -> ended
 *
 * It is kept when the second worker says that it knows somebody by that 5-tuple, or
 * that a request of his waits there for the user database. It ends when the second
 * worker does not know him any more, or when nothing came for as long as an allocation
 * can live. That he is not known is said of one datagram, and the next, already under
 * way, may have made him known again: only what is said of the last one sent ends a
 * detour. So who shows tickets that are no good any more leaves nothing behind, or a
 * detour until his next datagram when the database was asked for him. Without a word, as
 * from a worker that has gone, it ends after SETTLE_MS.
 *
 * A 5-tuple that has a detour may be moved on, by the ticket of another allocation: the
 * second worker then has a detour to a third, and hands on what was handed to it, once:
 * two that point at each other end there.
 *
 * Detours of a worker are bounded, and letters under way: over all of them, and of one
 * 5-tuple, so that one who sends more than is handled does not take the others' room
 * (5-tuples of the same hash share theirs). What comes on top is dropped and counted.
 */
#include "turn/detour.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "turn/request.h"

#define DETOURS_MAX  16384 /* of a worker */
#define PARCELS_MAX  1024 /* under way, over all workers */
#define PARCELS_EACH 64 /* of one 5-tuple */
#define HOPS_MAX     2
#define SETTLE_MS    10000

struct detour {
	struct list link; /* of worker->detours */
	struct table_node node; /* of worker->detour_paths */
	struct datagram_port *port;
	struct udp_path path;
	struct turn_worker *worker;
	unsigned int owner; /* the worker that has the allocation */
	uint64_t last; /* number of the last parcel sent */
	uint64_t used_ms;
	bool kept;
	struct timer timer;
};

/* A datagram on its way, then the word whether more such are wanted. */
struct parcel {
	struct letter letter;
	struct turn_shared *shared;
	unsigned int from, to; /* workers */
	unsigned int hops; /* from one to another, with this one */
	bool asks; /* the detour is not kept so far */
	bool known; /* there is such a client, or will be */
	uint64_t number; /* among those of the worker that sent it */
	struct udp_path path;
	char listener[CONF_NAME_MAX];
	size_t len;
	uint8_t data[];
};

static struct detour *detour_find(const struct datagram_port *port,
				  const struct udp_path *path)
{
	struct turn_worker *worker = port->listener->worker;
	struct table_node *node =
		table_first(&worker->detour_paths,
			    turn_datagram_hash(&path->remote, &path->local));

	for (; node; node = table_next(node)) {
		struct detour *detour = list_entry(node, struct detour, node);

		if (detour->port == port &&
		    addr_equal(&detour->path.remote, &path->remote) &&
		    addr_equal(&detour->path.local, &path->local))
			return detour;
	}
	return NULL;
}

static void detour_end(struct detour *detour)
{
	timer_cancel(detour->worker->loop, &detour->timer);
	table_remove(&detour->worker->detour_paths, &detour->node);
	list_del(&detour->link);
	free(detour);
}

/* Its time goes on from the last use. */
static void detour_timer(struct detour *detour);

static void detour_idle(struct timer *timer)
{
	struct detour *detour = list_entry(timer, struct detour, timer);
	const uint64_t idle = loop_now(detour->worker->loop) - detour->used_ms;

	if (!detour->kept ||
	    idle >= turn_limits(detour->worker)->max_lifetime_ms)
		detour_end(detour);
	else
		detour_timer(detour);
}

static void detour_timer(struct detour *detour)
{
	struct loop *loop = detour->worker->loop;
	const uint64_t idle = loop_now(loop) - detour->used_ms;
	const uint64_t most = turn_limits(detour->worker)->max_lifetime_ms;

	timer_arm(loop, &detour->timer,
		  !detour->kept ? SETTLE_MS :
		  most > idle   ? most - idle :
				  0,
		  detour_idle);
}

static struct detour *detour_new(struct datagram_port *port,
				 const struct udp_path *path)
{
	struct turn_worker *worker = port->listener->worker;
	struct detour *detour = worker->detour_paths.count < DETOURS_MAX ?
					calloc(1, sizeof(*detour)) :
					NULL;

	if (!detour)
		return NULL;
	detour->port = port;
	detour->path = *path;
	detour->worker = worker;
	list_add_tail(&detour->link, &worker->detours);
	table_insert(&worker->detour_paths, &detour->node,
		     turn_datagram_hash(&path->remote, &path->local));
	return detour;
}

static _Atomic unsigned int *parcel_slot(struct turn_shared *shared,
					 const struct udp_path *path)
{
	return &shared->parcels_of[turn_datagram_hash(&path->remote,
						      &path->local) %
				   TURN_PARCEL_SLOTS];
}

/* Room for one more, of this 5-tuple and in all. */
static bool parcel_take(struct turn_shared *shared, const struct udp_path *path)
{
	if (!turn_gauge_take(parcel_slot(shared, path), PARCELS_EACH))
		return false;
	if (turn_gauge_take(&shared->parcels, PARCELS_MAX))
		return true;
	turn_gauge_release(parcel_slot(shared, path));
	return false;
}

static void parcel_release(struct turn_shared *shared,
			   const struct udp_path *path)
{
	turn_gauge_release(&shared->parcels);
	turn_gauge_release(parcel_slot(shared, path));
}

static void parcel_free(struct parcel *parcel)
{
	parcel_release(parcel->shared, &parcel->path);
	free(parcel);
}

/* The socket for a parcel's path of the worker of this index; NULL: none. */
static struct datagram_port *parcel_port(const struct parcel *parcel,
					 unsigned int index)
{
	struct turn_worker *worker =
		atomic_load(&parcel->shared->workers[index]);
	struct turn_listener *listener =
		worker ? turn_listener_find(worker, parcel->listener) : NULL;

	return listener ? turn_listener_port(listener, &parcel->path.local) :
			  NULL;
}

/* The word of its owner. */
static void detour_told(struct detour *detour, const struct parcel *parcel)
{
	if (parcel->known && !detour->kept) {
		detour->kept = true;
		detour_timer(detour);
	} else if (!parcel->known && parcel->number == detour->last) {
		detour_end(detour);
	}
}

/* Back where it came from. */
static void parcel_returned(struct letter *letter)
{
	struct parcel *parcel = list_entry(letter, struct parcel, letter);
	struct datagram_port *port = parcel_port(parcel, parcel->from);
	struct detour *detour = port ? detour_find(port, &parcel->path) : NULL;

	if (detour && detour->owner == parcel->to)
		detour_told(detour, parcel);
	parcel_free(parcel);
}

/* true: there is a client, or will be, or it has gone on. */
static bool parcel_handle(const struct parcel *parcel,
			  struct datagram_port *port)
{
	struct turn_worker *worker = port->listener->worker;
	bool known;

	worker->parcel_hops = parcel->hops;
	known = turn_datagram_handed(port, &parcel->path, parcel->data,
				     parcel->len);
	worker->parcel_hops = 0;
	return known;
}

static void parcel_arrived(struct letter *letter)
{
	struct parcel *parcel = list_entry(letter, struct parcel, letter);
	struct turn_worker *from =
		atomic_load(&parcel->shared->workers[parcel->from]);
	struct datagram_port *port = parcel_port(parcel, parcel->to);

	parcel->known = port && parcel_handle(parcel, port);
	/* What is as it was needs no word. */
	if (from && (parcel->asks || !parcel->known))
		loop_post(from->loop, &parcel->letter, parcel_returned);
	else
		parcel_free(parcel);
}

/* false: there is no room, or nobody to send it to. */
static bool parcel_send(struct detour *detour, const uint8_t *data, size_t len)
{
	struct turn_worker *worker = detour->worker;
	struct turn_shared *shared = worker->shared;
	struct turn_worker *to =
		detour->owner < shared->worker_count ?
			atomic_load(&shared->workers[detour->owner]) :
			NULL;
	struct parcel *parcel;

	if (!to || !parcel_take(shared, &detour->path))
		return false;
	parcel = malloc(sizeof(*parcel) + len);
	if (!parcel) {
		parcel_release(shared, &detour->path);
		return false;
	}
	parcel->shared = shared;
	parcel->from = worker->index;
	parcel->to = detour->owner;
	parcel->hops = worker->parcel_hops + 1;
	parcel->asks = !detour->kept;
	parcel->number = ++worker->parcel_serial;
	detour->last = parcel->number;
	parcel->path = detour->path;
	memcpy(parcel->listener, detour->port->listener->name, CONF_NAME_MAX);
	parcel->len = len;
	memcpy(parcel->data, data, len);
	loop_post(to->loop, &parcel->letter, parcel_arrived);
	return true;
}

int turn_detour_begin(struct request *req, unsigned int owner)
{
	const struct client *client = req->client;
	const struct udp_path path = {
		.remote = client->remote,
		.local = client->local,
	};
	struct detour *detour = detour_find(client->port, &path);

	if (!detour)
		detour = detour_new(client->port, &path);
	if (!detour)
		return STUN_CODE_INSUFFICIENT_CAPACITY;
	detour->owner = owner;
	detour->kept = false;
	detour->used_ms = loop_now(req->worker->loop);
	detour_timer(detour);
	if (!parcel_send(detour, req->msg->data, req->msg->len))
		return STUN_CODE_INSUFFICIENT_CAPACITY;
	return TURN_LATER;
}

bool turn_detour_take(struct datagram_port *port, const struct udp_path *path,
		      const uint8_t *data, size_t len)
{
	struct turn_worker *worker = port->listener->worker;
	struct detour *detour =
		worker->detour_paths.count ? detour_find(port, path) : NULL;

	if (!detour || worker->parcel_hops >= HOPS_MAX)
		return false;
	detour->used_ms = loop_now(worker->loop);
	if (!parcel_send(detour, data, len))
		worker->counters.datagrams_dropped++;
	return true;
}

bool turn_detour_has(const struct datagram_port *port,
		     const struct udp_path *path)
{
	return detour_find(port, path) != NULL;
}

void turn_detours_end(struct turn_worker *worker,
		      const struct datagram_port *port)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &worker->detours) {
		struct detour *detour = list_entry(pos, struct detour, link);

		if (detour->port == port)
			detour_end(detour);
	}
}
