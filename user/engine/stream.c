/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The epoll driver shared by the copy, splice and sockmap engines.
 *
 * Per link two watches, one per socket, and two flows. watch[i] watches
 * flow[i].from, which is flow[!i].to: readable, it concerns flow i, writable,
 * the other. After each event every flow that could move has moved until it has
 * to wait, and the masks follow from what the two flows wait for, by
 * stream_mask(). Polling is level triggered: a flow that stopped because
 * it had its share is called again in the next tick, after the others.
 *
 *   attached -> detached (watches gone, held bytes dropped) -> freed, deferred
 *
 * EPOLLHUP and EPOLLERR cannot be masked. A dead socket that no flow waits for
 * (its bytes are stuck behind a slow reader on the other side) would be reported
 * in every tick: it leaves the epoll set until a flow waits for it again.
 * Putting it back may fail for lack of memory; the flow then ends.
 *
 * on_end may detach the link: both flows then wait for nothing, and whoever called
 * on_end finds nothing left to do.
 */
#include "engine/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

uint32_t stream_mask(enum flow_wait reads, enum flow_wait writes)
{
	uint32_t mask = 0;

	if (reads == FLOW_WAIT_READ)
		mask |= EPOLLIN;
	if (reads == FLOW_WAIT_SEAL)
		mask |= EPOLLOUT;
	if (writes == FLOW_WAIT_WRITE)
		mask |= EPOLLOUT;
	return mask;
}

static struct stream *link_stream(const struct stream_link *state)
{
	return (struct stream *)state->base.engine;
}

static void flow_run(struct stream_link *state, int i)
{
	struct engine_link *link = state->link;
	struct stream *stream = link_stream(state);

	if (stream->hooks)
		stream->hooks->run(state, i);
	else
		mover_run(&stream->mover, link, &link->flow[i],
			  &state->flow[i]);
	if (link->flow[i].end != FLOW_OPEN)
		link->on_end(link, &link->flow[i]);
}

/* Ends a flow that did not end by itself. */
static void flow_fail(struct stream_link *state, int i, enum flow_end end,
		      int error)
{
	struct flow *flow = &state->link->flow[i];

	mover_drop(&link_stream(state)->mover, flow, &state->flow[i]);
	state->flow[i].wait = FLOW_WAIT_NONE;
	flow->end = end;
	flow->error = error;
	state->link->on_end(state->link, flow);
}

static void first_ready(struct watch *watch, uint32_t events);
static void second_ready(struct watch *watch, uint32_t events);

/* Registers what the flows wait for at socket i. 0, or a flow has ended. */
static int socket_watch(struct stream_link *state, int i)
{
	struct loop *loop = link_stream(state)->mover.loop;
	struct watch *watch = &state->watch[i];
	uint32_t mask = stream_mask(state->flow[i].wait, state->flow[!i].wait);
	int err;

	if (watch->fd >= 0) {
		watch_set(loop, watch, mask);
		return 0;
	}
	if (!mask)
		return 0;
	err = watch_add(loop, watch, state->link->flow[i].from, mask,
			i ? second_ready : first_ready);
	if (err && mask & EPOLLIN)
		flow_fail(state, i, FLOW_FROM_ERROR, err);
	else if (err)
		flow_fail(state, !i, FLOW_TO_ERROR, err);
	return err;
}

static void link_watch(struct stream_link *state)
{
	for (int i = 0; i < 2; i++)
		if (socket_watch(state, i) < 0)
			i = -1; /* both masks are new */
}

void stream_look(struct stream_link *state, int i)
{
	flow_run(state, i);
	link_watch(state);
}

static void socket_ready(struct stream_link *state, int i, uint32_t events)
{
	const uint32_t broken = EPOLLERR | EPOLLHUP;

	if (!state->watch[i].events && events & broken)
		watch_del(link_stream(state)->mover.loop, &state->watch[i]);
	if (events & (EPOLLIN | broken) &&
	    state->flow[i].wait == FLOW_WAIT_READ)
		flow_run(state, i);
	if (events & (EPOLLOUT | broken) &&
	    state->flow[i].wait == FLOW_WAIT_SEAL)
		flow_run(state, i);
	if (events & (EPOLLOUT | broken) &&
	    state->flow[!i].wait == FLOW_WAIT_WRITE)
		flow_run(state, !i);
	/* A flow to it is open, so we did not shut it down: the socket is dead.
	 * Its own flow says so when it comes to that; if it does not read any
	 * more, who sends to it should not have to find out byte by byte.
	 */
	if (events & EPOLLHUP && state->flow[i].wait != FLOW_WAIT_READ &&
	    state->flow[!i].wait == FLOW_WAIT_READ)
		flow_fail(state, !i, FLOW_TO_ERROR, -EPIPE);
	link_watch(state);
}

static void first_ready(struct watch *watch, uint32_t events)
{
	socket_ready(list_entry(watch, struct stream_link, watch[0]), 0,
		     events);
}

static void second_ready(struct watch *watch, uint32_t events)
{
	socket_ready(list_entry(watch, struct stream_link, watch[1]), 1,
		     events);
}

static void first_turn(struct timer *turn)
{
	stream_look(list_entry(turn, struct stream_link, flow[0].turn), 0);
}

static void second_turn(struct timer *turn)
{
	stream_look(list_entry(turn, struct stream_link, flow[1].turn), 1);
}

/* An end that a seal has seen already comes with no event of its own. */
static enum flow_wait flow_first_wait(const struct flow *flow)
{
	return flow->from_seal && flow->from_seal->more ? FLOW_WAIT_SEAL :
							  FLOW_WAIT_READ;
}

int stream_attach(struct engine *engine, struct engine_link *link,
		  const struct engine_ops *ops)
{
	struct stream *stream = (struct stream *)engine;
	const struct stream_hooks *hooks = stream->hooks;
	struct loop *loop = stream->mover.loop;
	struct stream_link *state;
	int err;

	state = calloc(1, hooks ? hooks->link_size : sizeof(*state));
	if (!state)
		return -ENOMEM;
	state->base.engine = engine;
	state->link = link;
	state->watch[1].fd = -1;
	for (int i = 0; i < 2; i++) {
		state->flow[i].wait = flow_first_wait(&link->flow[i]);
		state->flow[i].on_turn = i ? second_turn : first_turn;
	}
	err = watch_add(loop, &state->watch[0], link->flow[0].from,
			stream_mask(state->flow[0].wait, FLOW_WAIT_NONE),
			first_ready);
	if (err)
		goto free_state;
	err = watch_add(loop, &state->watch[1], link->flow[1].from,
			stream_mask(state->flow[1].wait, FLOW_WAIT_NONE),
			second_ready);
	if (err)
		goto del_first;
	err = hooks ? hooks->join(state) : 0;
	if (err)
		goto del_second;
	link->active_ms = loop_now(loop);
	engine_link_taken(engine, link, ops, &state->base);
	return 0;

del_second:
	watch_del(loop, &state->watch[1]);
del_first:
	watch_del(loop, &state->watch[0]);
free_state:
	free(state);
	return err;
}

static void link_detached(struct deferred *deferred)
{
	struct stream_link *state =
		list_entry(deferred, struct stream_link, detached);
	struct engine_link *link = state->link;

	engine_link_gone(state->base.engine, link);
	free(state);
	link->on_detached(link);
}

void stream_detach(struct engine *engine, struct engine_link *link)
{
	struct stream *stream = (struct stream *)engine;
	struct stream_link *state = link->state;

	for (int i = 0; i < 2; i++) {
		watch_del(stream->mover.loop, &state->watch[i]);
		mover_drop(&stream->mover, &link->flow[i], &state->flow[i]);
		state->flow[i].wait = FLOW_WAIT_NONE;
	}
	if (stream->hooks)
		stream->hooks->leave(state);
	if (link->on_detached) {
		loop_defer(stream->mover.loop, &state->detached, link_detached);
		return;
	}
	engine_undefer(&state->detached);
	engine_link_gone(engine, link);
	free(state);
}

size_t stream_held(const struct engine_link *link, const struct flow *flow)
{
	const struct stream_link *state = link->state;

	return state->flow[flow - link->flow].held;
}

int stream_init(struct stream *stream, struct loop *loop,
		struct pipe_pool *pool, const struct engine_params *params)
{
	return mover_init(&stream->mover, loop, pool, params);
}

int stream_open(struct loop *loop, struct pipe_pool *pool,
		const struct engine_params *params, struct engine **out)
{
	struct stream *stream = calloc(1, sizeof(*stream));
	int err;

	if (!stream)
		return -ENOMEM;
	err = stream_init(stream, loop, pool, params);
	if (err)
		goto free_stream;
	*out = &stream->engine;
	return 0;

free_stream:
	free(stream);
	return err;
}

void stream_close(struct engine *engine)
{
	struct stream *stream = (struct stream *)engine;

	mover_destroy(&stream->mover);
	free(stream);
}
