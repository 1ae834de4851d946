/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pool of allocations to one peer.
 *
 *   making -> idle <-> busy;  idle, busy -> closing -> gone
 *
 * `warm` ready allocations are kept, so that a connection costs one Connect and
 * not four round trips. An allocation that had a connection rests before it is
 * used for the same peer again: if our side closed first, the relay's socket is in
 * TIME_WAIT for these two addresses and a Connect would fail. When nothing else can
 * be had, a resting one is lent nevertheless.
 *
 * A server that refuses or is gone is asked again after a jittered back-off.
 * After a 447 the peer is left alone for ten seconds (RFC 6062 4.3), those who wait
 * wait on, and then one connection is tried before the others follow.
 */
#include "client/pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/say.h"
#include "client/turn_client.h"

#define REST_MS     60000 /* TIME_WAIT of Linux */
#define WAIT_MS     30000 /* for an allocation */
#define MAKING_MAX  64 /* at a time */
#define PUMP_MIN_MS 10

static void pool_pump(struct client_pool *pool);

static uint64_t pool_now(const struct client_pool *pool)
{
	return loop_now(pool->session->loop);
}

static unsigned int *slot_counter(struct client_slot *slot)
{
	switch (slot->state) {
	case CLIENT_SLOT_MAKING:
		return &slot->pool->making;
	case CLIENT_SLOT_IDLE:
		return &slot->pool->idle;
	case CLIENT_SLOT_BUSY:
		return &slot->pool->busy;
	case CLIENT_SLOT_CLOSING:
		break;
	}
	return &slot->pool->closing;
}

static void slot_set(struct client_slot *slot, enum client_slot_state state)
{
	(*slot_counter(slot))--;
	slot->state = state;
	(*slot_counter(slot))++;
}

static void slot_asking(struct client_slot *slot, bool asking)
{
	if (slot->asking == asking)
		return;
	slot->asking = asking;
	slot->pool->asking += asking ? 1 : -1u;
}

static void slot_free(struct client_slot *slot)
{
	slot_asking(slot, false);
	(*slot_counter(slot))--;
	list_del(&slot->link);
	culvert_client_free(slot->client);
	free(slot);
}

static void slot_close(struct client_slot *slot)
{
	slot->holder = NULL;
	slot_asking(slot, false);
	slot_set(slot, CLIENT_SLOT_CLOSING);
	culvert_client_close(slot->client);
}

static bool slot_rested(const struct client_slot *slot, uint64_t now)
{
	return !slot->used_ms || now - slot->used_ms >= REST_MS;
}

static void pool_tell_started(struct client_pool *pool,
			      const struct culvert_error *error)
{
	if (pool->was_started)
		return;
	pool->was_started = true;
	pool->started(pool, error);
}

static void slot_ready(void *arg)
{
	struct client_slot *slot = arg;
	struct client_pool *pool = slot->pool;

	struct culvert_info info;
	char addr[ADDR_STRLEN];

	culvert_client_info(slot->client, &info);
	client_debug("allocation %s is ready",
		     addr_format((const union addr *)&info.relayed, addr));
	slot_set(slot, CLIENT_SLOT_IDLE);
	client_backoff_reset(&pool->backoff);
	pool->retry_ms = 0;
	pool_tell_started(pool, NULL);
	pool_pump(pool);
}

/* An allocation could not be made, or was lost: wait before the next. */
static void pool_hold_off(struct client_pool *pool,
			  const struct culvert_error *error)
{
	uint32_t delay;
	bool known = pool->retry_ms > pool_now(pool);

	/* Many may fail for one reason: that is one step, and one message. */
	if (known)
		return;
	delay = client_backoff_next(&pool->backoff);
	pool->retry_ms = pool_now(pool) + delay;
	if (!pool->was_started)
		return;
	client_session_error(pool->session, "allocation lost or refused",
			     error);
	client_info("next attempt in %u.%u s", delay / 1000,
		    delay % 1000 / 100);
}

static void slot_ended(void *arg, const struct culvert_error *error)
{
	struct client_slot *slot = arg;
	struct client_pool *pool = slot->pool;
	struct client_waiter *holder = slot->holder;
	struct client_failure copy;

	if (error)
		client_failure_set(&copy, error->code, error->during, "%s",
				   error->reason);
	slot_free(slot);
	if (holder)
		holder->lost(holder);
	if (error && !pool->closed)
		pool_hold_off(pool, &copy.error);
	if (error)
		pool_tell_started(pool, &copy.error);
	if (pool->closed && client_pool_empty(pool))
		pool->emptied(pool);
	else
		pool_pump(pool);
}

static int slot_new(struct client_pool *pool)
{
	static const struct culvert_events events = {
		.ready = slot_ready,
		.ended = slot_ended,
	};
	struct culvert_options options;
	struct client_slot *slot = calloc(1, sizeof(*slot));
	int err;

	if (!slot)
		return -ENOMEM;
	client_session_options(pool->session, pool->family, &options);
	err = culvert_client_new(pool->session->library, &options, &events,
				 slot, &slot->client);
	if (err) {
		free(slot);
		return err;
	}
	slot->pool = pool;
	slot->state = CLIENT_SLOT_MAKING;
	pool->making++;
	list_add_tail(&slot->link, &pool->slots);
	return 0;
}

/* The best idle allocation: rested before resting, the longest rest first. */
static struct client_slot *idle_choose(const struct client_pool *pool,
				       bool resting, bool fresh_only)
{
	struct client_slot *best = NULL;
	struct list *pos;

	list_for_each(pos, &pool->slots) {
		struct client_slot *slot =
			list_entry(pos, struct client_slot, link);

		if (slot->state != CLIENT_SLOT_IDLE ||
		    (fresh_only && slot->used_ms))
			continue;
		if (!resting && !slot_rested(slot, pool_now(pool)))
			continue;
		if (!best || slot->used_ms < best->used_ms)
			best = slot;
	}
	return best;
}

static unsigned int waiters_count(const struct client_pool *pool)
{
	const struct list *pos;
	unsigned int n = 0;

	list_for_each(pos, &pool->waiters)
		n++;
	return n;
}

static void waiter_remove(struct client_waiter *waiter)
{
	list_del(&waiter->link);
	waiter->waiting = false;
}

static void waiter_grant(struct client_waiter *waiter, struct client_slot *slot)
{
	waiter_remove(waiter);
	slot->holder = waiter;
	slot_set(slot, CLIENT_SLOT_BUSY);
	slot_asking(slot, true);
	waiter->granted(waiter, slot);
}

/* No more can be made just now, so a resting one is better than none. */
static bool pool_exhausted(const struct client_pool *pool)
{
	return pool->making + pool->idle + pool->busy >= pool->max ||
	       pool->retry_ms > pool_now(pool);
}

static void waiters_serve(struct client_pool *pool)
{
	struct client_waiter *waiter;
	struct client_slot *slot;

	while (!list_empty(&pool->waiters)) {
		if (pool->rest_ms > pool_now(pool) ||
		    (pool->trying && pool->asking))
			return;
		waiter = list_entry(pool->waiters.next, struct client_waiter,
				    link);
		slot = idle_choose(pool,
				   pool_exhausted(pool) && !waiter->fresh_only,
				   waiter->fresh_only);
		if (!slot)
			return;
		waiter_grant(waiter, slot);
	}
}

static void waiters_expire(struct client_pool *pool)
{
	while (!list_empty(&pool->waiters)) {
		struct client_waiter *waiter = list_entry(
			pool->waiters.next, struct client_waiter, link);

		if (pool_now(pool) - waiter->since_ms < WAIT_MS)
			return;
		waiter_remove(waiter);
		waiter->granted(waiter, NULL);
	}
}

static unsigned int idle_rested(const struct client_pool *pool, bool rested)
{
	const struct list *pos;
	unsigned int n = 0;

	list_for_each(pos, &pool->slots) {
		const struct client_slot *slot =
			list_entry(pos, struct client_slot, link);

		if (slot->state == CLIENT_SLOT_IDLE &&
		    slot_rested(slot, pool_now(pool)) == rested)
			n++;
	}
	return n;
}

static void slots_make(struct client_pool *pool)
{
	struct client_failure failure;
	unsigned int want = pool->warm + waiters_count(pool);
	unsigned int have = idle_rested(pool, true) + pool->making;
	int err;

	/* The first one alone: its failure is told, and ends the command. */
	if (!pool->was_started)
		want = 1;
	while (have < want && pool->making < MAKING_MAX &&
	       !pool_exhausted(pool)) {
		err = slot_new(pool);
		if (err) {
			client_failure_set(&failure, err, "starting", "%s",
					   strerror(-err));
			pool_hold_off(pool, &failure.error);
			pool_tell_started(pool, &failure.error);
			return;
		}
		have++;
	}
}

/* Idle allocations beyond what is kept go back to the server. */
static void slots_trim(struct client_pool *pool)
{
	unsigned int resting = idle_rested(pool, false);
	unsigned int rested = idle_rested(pool, true);
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &pool->slots) {
		struct client_slot *slot =
			list_entry(pos, struct client_slot, link);
		unsigned int *count =
			slot_rested(slot, pool_now(pool)) ? &rested : &resting;

		if (slot->state != CLIENT_SLOT_IDLE || *count <= pool->warm)
			continue;
		(*count)--;
		slot_close(slot);
	}
}

static void earlier(uint64_t *due, uint64_t candidate)
{
	if (candidate && (!*due || candidate < *due))
		*due = candidate;
}

static void pool_timer(struct timer *timer)
{
	pool_pump(list_entry(timer, struct client_pool, timer));
}

/* Wakes up when a waiter expires, or an attempt or the peer is due. */
static void pool_arm(struct client_pool *pool)
{
	uint64_t now = pool_now(pool), due = 0;

	if (!list_empty(&pool->waiters))
		earlier(&due, list_entry(pool->waiters.next,
					 struct client_waiter, link)
					      ->since_ms +
				      WAIT_MS);
	if (pool->retry_ms > now)
		earlier(&due, pool->retry_ms);
	if (pool->rest_ms > now)
		earlier(&due, pool->rest_ms);
	if (!due)
		timer_cancel(pool->session->loop, &pool->timer);
	else
		timer_arm(pool->session->loop, &pool->timer,
			  due > now + PUMP_MIN_MS ? due - now : PUMP_MIN_MS,
			  pool_timer);
}

/* Whoever is served may come back at once: that is another round, not deeper. */
static void pool_pump(struct client_pool *pool)
{
	pool->again = true;
	if (pool->pumping)
		return;
	pool->pumping = true;
	while (pool->again && !pool->closed) {
		pool->again = false;
		waiters_expire(pool);
		waiters_serve(pool);
		slots_make(pool);
		slots_trim(pool);
	}
	pool->pumping = false;
	if (!pool->closed)
		pool_arm(pool);
}

void client_pool_start(struct client_pool *pool)
{
	list_init(&pool->slots);
	list_init(&pool->waiters);
	pool_pump(pool);
}

void client_pool_freeze(struct client_pool *pool)
{
	pool->closed = true;
	timer_cancel(pool->session->loop, &pool->timer);
}

void client_pool_close(struct client_pool *pool)
{
	struct list *pos, *tmp;

	client_pool_freeze(pool);
	list_for_each_safe(pos, tmp, &pool->slots) {
		struct client_slot *slot =
			list_entry(pos, struct client_slot, link);

		if (slot->state != CLIENT_SLOT_CLOSING)
			slot_close(slot);
	}
}

bool client_pool_empty(const struct client_pool *pool)
{
	return list_empty(&pool->slots);
}

void client_pool_destroy(struct client_pool *pool)
{
	struct list *pos, *tmp;

	client_pool_freeze(pool);
	list_for_each_safe(pos, tmp, &pool->slots)
		slot_free(list_entry(pos, struct client_slot, link));
}

void client_pool_wait(struct client_pool *pool, struct client_waiter *waiter)
{
	waiter->waiting = true;
	if (!waiter->since_ms)
		waiter->since_ms = pool_now(pool);
	list_add_tail(&waiter->link, &pool->waiters);
	pool_pump(pool);
}

void client_pool_leave(struct client_pool *pool, struct client_waiter *waiter)
{
	(void)pool;
	if (waiter->waiting)
		waiter_remove(waiter);
}

void client_pool_put(struct client_pool *pool, struct client_slot *slot,
		     enum client_outcome outcome)
{
	slot->holder = NULL;
	slot_asking(slot, false);
	slot_set(slot, CLIENT_SLOT_IDLE);
	switch (outcome) {
	case CLIENT_OUTCOME_USED:
		slot->used_ms = pool_now(pool);
		break;
	case CLIENT_OUTCOME_UNUSED:
		break;
	case CLIENT_OUTCOME_REFUSED:
		pool->rest_ms = pool_now(pool) + CLIENT_REST_MS;
		pool->trying = true;
		break;
	case CLIENT_OUTCOME_SPOILT:
		slot_close(slot);
		break;
	}
	pool_pump(pool);
}

void client_pool_reached(struct client_pool *pool, struct client_slot *slot)
{
	slot_asking(slot, false);
	pool->trying = false;
	pool->rest_ms = 0;
	pool_pump(pool);
}
