/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The uring engine: io_uring says when a socket is ready, the mover moves.
 *
 * One ring per worker; an eventfd it signals is watched in the worker's epoll
 * loop. A flow that has to wait asks for one poll of the socket it waits for. What
 * a tick asked for goes to the kernel in one io_uring_enter at its end.
 *
 *   attached -> detaching (polls being cancelled) -> every poll has come back
 *
 * A link is freed only after the last completion that names it: cancelling is
 * asynchronous, and until then the kernel holds both sockets.
 *
 * The bytes are moved by direct splice(2) and recv/send calls when a poll says so.
 * Measured on 6.18, two cores, veth, beside that choice: OP_SPLICE, which always
 * goes to a worker thread, took 1.3 to 1.4 times the CPU per byte; OP_RECV with
 * provided buffers and OP_SEND carried 1.15 times the messages of 64 connections,
 * but made the round trip of one 1.2 times as long.
 *
 * Quirks:
 * - The ring is made disabled and enabled by the first attach: a ring for a single
 *   issuer belongs to the thread that enables it, and the thread that opens
 *   engines need not be the one that runs the loop.
 * - POLL_ADD always asks for POLLRDHUP too (seen up to 6.18). A poll for POLLOUT
 *   on a socket whose peer has ended its stream completes at once, full or
 *   not, and would be asked for again at once, for ever. Multishot polls say so
 *   once and then speak on changes only: from the first such answer on the
 *   flow's write poll is multishot and stays.
 * - DEFER_TASKRUN is not used. With an eventfd it stalls on 6.12: after a request
 *   that completed inline, the next one completed by task work does not
 *   signal. On 6.18 it gained nothing beside COOP_TASKRUN: 16 connections 7.4 and
 *   8.2 Gbit/s, .27 CPU seconds a GB each, fastest round trips 37 and 35 us
 *   (medians of 7 and 5 interleaved runs on a busy machine; splice 6.8 Gbit/s, .26).
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "base/fd.h"
#include "base/syscalls.h"
#include "engine/mover.h"
#include "engine/private.h"

/* What is asked of a ring no filter sees, hence only for who wants this engine. */
SYSCALLS(SYSCALLS_URING, "io_uring_setup io_uring_enter io_uring_register");
SYSCALLS(SYSCALLS_URING, "eventfd2 write munmap close");

#define RING_ENTRIES 512
#define CQ_ENTRIES   4096
#define TICK_CQES    256 /* completions handled in one tick, as epoll does */
#define RETRY_MS     10 /* after a submission the kernel had no memory for */

struct uring {
	struct engine engine;
	struct mover mover;
	struct io_uring ring;
	int event_fd; /* signalled by the ring; never read, edge triggered */
	bool enabled;
	struct watch watch; /* of event_fd */
	struct list links; /* all, also forgotten ones */
	struct list pending; /* links that want something submitted */
	struct deferred submit;
	struct timer retry;
};

/* What a poll is for: with the flow's index the low bits of its user data. */
enum poll_kind {
	POLL_READ,
	POLL_WRITE,
};
#define TAG_BITS ((uintptr_t)3)

struct uring_flow {
	struct flow_state state;
	bool armed[2]; /* by poll_kind: in flight */
	bool multishot; /* the write poll stays armed */
};

struct uring_link {
	struct link_state base;
	struct list node; /* of uring.links */
	struct list pending; /* of uring.pending, or self-linked */
	struct engine_link *link; /* NULL: forgotten by its owner */
	struct uring_flow flow[2];
	struct deferred detached;
	bool detaching;
	bool cancelled; /* all its polls */
};

static struct uring *link_uring(const struct uring_link *state)
{
	return (struct uring *)state->base.engine;
}

static uint64_t poll_tag(const struct uring_link *state, int i,
			 enum poll_kind kind)
{
	return (uintptr_t)state | (uintptr_t)i << 1 | kind;
}

/* NULL: the ring is full and the kernel takes nothing just now. */
static struct io_uring_sqe *sqe_get(struct uring *uring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

	if (sqe)
		return sqe;
	io_uring_submit(&uring->ring);
	return io_uring_get_sqe(&uring->ring);
}

static bool poll_wanted(const struct uring_flow *flow, enum poll_kind kind)
{
	if (flow->armed[kind])
		return false;
	if (kind == POLL_READ)
		return flow->state.wait == FLOW_WAIT_READ;
	return flow->state.wait == FLOW_WAIT_WRITE ||
	       (flow->multishot && flow->state.wait != FLOW_WAIT_NONE);
}

static int poll_arm(struct uring_link *state, int i, enum poll_kind kind)
{
	struct io_uring_sqe *sqe = sqe_get(link_uring(state));
	const struct flow *flow = &state->link->flow[i];

	if (!sqe)
		return -EAGAIN;
	if (kind == POLL_READ)
		io_uring_prep_poll_add(sqe, flow->from, POLLIN);
	else if (state->flow[i].multishot)
		io_uring_prep_poll_multishot(sqe, flow->to, POLLOUT);
	else
		io_uring_prep_poll_add(sqe, flow->to, POLLOUT);
	io_uring_sqe_set_data64(sqe, poll_tag(state, i, kind));
	state->flow[i].armed[kind] = true;
	return 0;
}

static int poll_cancel(struct uring_link *state, int i, enum poll_kind kind)
{
	struct io_uring_sqe *sqe = sqe_get(link_uring(state));

	if (!sqe)
		return -EAGAIN;
	/* Its own answer says nothing: the poll's completion does. */
	io_uring_prep_cancel64(sqe, poll_tag(state, i, kind), 0);
	io_uring_sqe_set_data64(sqe, 0);
	return 0;
}

/* Submits what the link wants. 0, or -EAGAIN: call again later. */
static int link_submit(struct uring_link *state)
{
	int err = 0;

	if (state->cancelled)
		return 0;
	for (int k = 0; k < 4 && !err; k++) {
		int i = k >> 1;
		enum poll_kind kind = k & 1;

		if (!state->detaching && poll_wanted(&state->flow[i], kind))
			err = poll_arm(state, i, kind);
		else if (state->detaching && state->flow[i].armed[kind])
			err = poll_cancel(state, i, kind);
	}
	/* Cancelling twice what was cancelled does no harm. */
	if (!err)
		state->cancelled = state->detaching;
	return err;
}

static void submit_retry(struct timer *timer);

static void pending_submit(struct uring *uring)
{
	int err = 0;

	while (!err && !list_empty(&uring->pending)) {
		struct uring_link *state = list_entry(
			uring->pending.next, struct uring_link, pending);

		err = link_submit(state);
		if (!err)
			list_del(&state->pending);
	}
	/* What is not taken, for lack of memory, stays in the ring. */
	if (io_uring_submit(&uring->ring) < 0 || err ||
	    io_uring_sq_ready(&uring->ring))
		timer_arm(uring->mover.loop, &uring->retry, RETRY_MS,
			  submit_retry);
}

static void submit_retry(struct timer *timer)
{
	pending_submit(list_entry(timer, struct uring, retry));
}

static void submit_deferred(struct deferred *deferred)
{
	pending_submit(list_entry(deferred, struct uring, submit));
}

/* At the end of this tick what the link then wants is submitted. */
static void link_queue(struct uring_link *state)
{
	struct uring *uring = link_uring(state);

	list_del(&state->pending);
	list_add_tail(&state->pending, &uring->pending);
	loop_defer(uring->mover.loop, &uring->submit, submit_deferred);
}

static void link_free(struct uring_link *state)
{
	list_del(&state->node);
	list_del(&state->pending);
	free(state);
}

static void link_detached(struct deferred *deferred)
{
	struct uring_link *state =
		list_entry(deferred, struct uring_link, detached);
	struct engine_link *link = state->link;

	engine_link_gone(state->base.engine, link);
	link_free(state);
	link->on_detached(link);
}

/* Detaching: has the last poll come back? */
static void link_settle(struct uring_link *state)
{
	for (int i = 0; i < 2; i++)
		if (state->flow[i].armed[POLL_READ] ||
		    state->flow[i].armed[POLL_WRITE])
			return;
	if (state->link)
		loop_defer(link_uring(state)->mover.loop, &state->detached,
			   link_detached);
	else
		link_free(state);
}

static void flow_ended(struct uring_link *state, int i)
{
	struct flow *flow = &state->link->flow[i];

	/* Its reads are over; the reset of its source is still worth knowing. */
	if (flow->end == FLOW_FIN)
		state->flow[!i].multishot = true;
	state->link->on_end(state->link, flow);
}

static void flow_run(struct uring_link *state, int i)
{
	struct flow *flow = &state->link->flow[i];

	mover_run(&link_uring(state)->mover, state->link, flow,
		  &state->flow[i].state);
	if (flow->end != FLOW_OPEN)
		flow_ended(state, i);
}

static void flow_fail(struct uring_link *state, int i, enum flow_end end,
		      int error)
{
	struct flow *flow = &state->link->flow[i];

	mover_drop(&link_uring(state)->mover, flow, &state->flow[i].state);
	state->flow[i].state.wait = FLOW_WAIT_NONE;
	flow->end = end;
	flow->error = error;
	flow_ended(state, i);
}

static void turn_came(struct uring_link *state, int i)
{
	flow_run(state, i);
	link_queue(state);
}

static void first_turn(struct timer *turn)
{
	turn_came(list_entry(turn, struct uring_link, flow[0].state.turn), 0);
}

static void second_turn(struct timer *turn)
{
	turn_came(list_entry(turn, struct uring_link, flow[1].state.turn), 1);
}

static void write_polled(struct uring_link *state, int i, int res)
{
	enum flow_wait wait = state->flow[i].state.wait;

	if (!(res & (POLLOUT | POLLERR | POLLHUP)))
		state->flow[i].multishot = true; /* see the quirks */
	else if (wait == FLOW_WAIT_WRITE)
		flow_run(state, i);
	else if (wait == FLOW_WAIT_READ && res & POLLHUP)
		flow_fail(state, i, FLOW_TO_ERROR, -EPIPE);
}

static void poll_done(const struct io_uring_cqe *cqe)
{
	uintptr_t tag = (uintptr_t)cqe->user_data;
	struct uring_link *state = (struct uring_link *)(tag & ~TAG_BITS);
	int i = tag >> 1 & 1;
	enum poll_kind kind = tag & 1;

	if (!state)
		return; /* a cancel's own answer */
	if (!(cqe->flags & IORING_CQE_F_MORE))
		state->flow[i].armed[kind] = false;
	if (state->detaching) {
		link_settle(state);
		return;
	}
	if (state->flow[i].state.wait == FLOW_WAIT_NONE)
		return; /* a write poll that outlived its flow */
	if (cqe->res < 0)
		flow_fail(state, i,
			  kind == POLL_READ ? FLOW_FROM_ERROR : FLOW_TO_ERROR,
			  cqe->res);
	else if (kind == POLL_WRITE)
		write_polled(state, i, cqe->res);
	else if (state->flow[i].state.wait == FLOW_WAIT_READ)
		flow_run(state, i);
	link_queue(state);
}

static void ring_ready(struct watch *watch, uint32_t events)
{
	struct uring *uring = list_entry(watch, struct uring, watch);
	struct io_uring_cqe *cqe;

	(void)events;
	for (int n = 0; io_uring_peek_cqe(&uring->ring, &cqe) == 0; n++) {
		struct io_uring_cqe done = *cqe;

		if (n == TICK_CQES) { /* others' turn; then come back */
			eventfd_write(uring->event_fd, 1);
			break;
		}
		io_uring_cqe_seen(&uring->ring, cqe);
		poll_done(&done);
	}
}

/* From the loop's thread: from now on the ring is its. */
static int ring_enable(struct uring *uring)
{
	int err;

	if (uring->enabled)
		return 0;
	err = watch_add(uring->mover.loop, &uring->watch, uring->event_fd,
			EPOLLIN | EPOLLET, ring_ready);
	if (err)
		return err;
	/* liburing 2.3 forgot to export io_uring_enable_rings(). */
	err = io_uring_register((unsigned int)uring->ring.ring_fd,
				IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	if (err < 0)
		watch_del(uring->mover.loop, &uring->watch);
	else
		uring->enabled = true;
	return err < 0 ? err : 0;
}

static int attach(struct engine *engine, struct engine_link *link)
{
	struct uring *uring = (struct uring *)engine;
	struct uring_link *state;
	int err = ring_enable(uring);

	if (err)
		return err;
	state = calloc(1, sizeof(*state));
	if (!state)
		return -ENOMEM;
	state->link = link;
	state->flow[0].state.on_turn = first_turn;
	state->flow[1].state.on_turn = second_turn;
	list_init(&state->pending);
	list_add_tail(&state->node, &uring->links);
	link->active_ms = loop_now(uring->mover.loop);
	engine_link_taken(engine, link, &engine_uring, &state->base);
	link_queue(state);
	return 0;
}

static void detach(struct engine *engine, struct engine_link *link)
{
	struct uring *uring = (struct uring *)engine;
	struct uring_link *state = link->state;

	for (int i = 0; i < 2; i++) {
		mover_drop(&uring->mover, &link->flow[i],
			   &state->flow[i].state);
		state->flow[i].state.wait = FLOW_WAIT_NONE;
	}
	state->detaching = true;
	link_queue(state);
	if (!link->on_detached) {
		engine_undefer(&state->detached);
		engine_link_gone(engine, link);
		state->link = NULL;
	}
	link_settle(state);
}

static size_t held(const struct engine_link *link, const struct flow *flow)
{
	const struct uring_link *state = link->state;

	return state->flow[flow - link->flow].state.held;
}

static void ring_exit(struct uring *uring)
{
	io_uring_queue_exit(&uring->ring);
	fd_close(&uring->event_fd);
}

/* The best kind of ring this kernel has. */
static int ring_init(struct uring *uring)
{
	static const unsigned int kinds[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,
		IORING_SETUP_COOP_TASKRUN,
		0,
	};
	int err = -EINVAL;

	for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		struct io_uring_params params = {
			.flags = kinds[k] | IORING_SETUP_R_DISABLED |
				 IORING_SETUP_CQSIZE,
			.cq_entries = CQ_ENTRIES,
		};

		err = io_uring_queue_init_params(RING_ENTRIES, &uring->ring,
						 &params);
		if (err != -EINVAL)
			break;
	}
	if (err)
		return err;
	uring->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = uring->event_fd < 0 ? -errno : 0;
	if (!err)
		err = io_uring_register_eventfd(&uring->ring, uring->event_fd);
	if (err)
		ring_exit(uring);
	return err;
}

static int open_uring(struct loop *loop, const struct engine_params *params,
		      struct engine **out)
{
	struct uring *uring = calloc(1, sizeof(*uring));
	struct pipe_pool *pool;
	int err;

	if (!uring)
		return -ENOMEM;
	list_init(&uring->links);
	list_init(&uring->pending);
	uring->watch.fd = -1;
	uring->event_fd = -1;
	err = ring_init(uring);
	if (err)
		goto free_uring;
	err = pipe_pool_new(loop, params->pipe_size, params->pipes, &pool);
	if (err)
		goto exit_ring;
	err = mover_init(&uring->mover, loop, pool, params);
	if (err)
		goto free_pool;
	*out = &uring->engine;
	return 0;

free_pool:
	pipe_pool_free(pool);
exit_ring:
	ring_exit(uring);
free_uring:
	free(uring);
	return err;
}

static void close_uring(struct engine *engine)
{
	struct uring *uring = (struct uring *)engine;
	struct list *pos, *tmp;

	watch_del(uring->mover.loop, &uring->watch);
	timer_cancel(uring->mover.loop, &uring->retry);
	engine_undefer(&uring->submit);
	ring_exit(uring);
	list_for_each_safe(pos, tmp, &uring->links)
		link_free(list_entry(pos, struct uring_link, node));
	mover_destroy(&uring->mover);
	free(uring);
}

const struct engine_ops engine_uring = {
	.name = "uring",
	.seals = ENGINE_SEALS_KERNEL,
	.paces = true,
	.open = open_uring,
	.close = close_uring,
	.attach = attach,
	.detach = detach,
	.held = held,
};
