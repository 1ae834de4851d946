/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The splice pair's state machine.
 *
 *   joining (join.c) --joined--> relaying on wire --ended--> closed
 *      | not joined
 *   flushing --both prefaces written--> relaying --a flow ended--> closing
 *      |                                    |                        |
 *      +------------ pair_stop() -----------+------------------------+
 *                        |
 *          engine detached (asynchronous), queues drained, closed
 *
 * link.flow[i] goes to half[i] and comes from half[!i].
 *
 * What the end of a flow from A to B means:
 *   FIN         shut B down for writing; the other way goes on. When both ways
 *               have ended so: plain close of both, and the kernel sends the rest.
 *               Nothing is unread then, which would turn the close into a reset.
 *   FROM_ERROR  A was reset. What it sent before is on its way to B and a reset
 *               would overtake it: wait until B has acknowledged all, at most
 *               linger_ms, then reset both.
 *   TO_ERROR    B is dead, but bytes it sent before may be on their way to A: the
 *               other flow runs to its end, whatever kind that is (the error may
 *               have been consumed by our write and look like a FIN), then as
 *               above.
 *
 * stop_how says what stopping does with the two descriptors. It starts at once,
 * but the last step, which frees the pair, always comes from the loop: never
 * from inside a function the owner called, and not before the engine let go.
 *
 * One timer serves whatever phase the pair is in: waiting for queues to drain,
 * else pair_finish's look for quiet, else the idle timeout.
 *
 * What only the two sockets need is struct streams, which goes when the pair is
 * active on wire.
 *
 * What may fail after pair_new: memory for an unsent preface or the engine's link;
 * the pair then ends with PAIR_END_ERROR and a reset of both.
 */
#include "pair/internal.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/syscalls.h"

SYSCALLS(SYSCALLS_RELAY, "sendto getsockopt shutdown");
SYSCALLS_EQUAL(SYSCALLS_RELAY, "ioctl", 1, SIOCINQ);

#define DRAIN_MIN_MS 10 /* first look at a queue that is not drained */
#define DRAIN_MAX_MS 160

static void timer_ran(struct timer *timer);

/* Reset, timed out, or otherwise past any further byte? */
static bool socket_closed(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ||
	       info.tcpi_state == TCP_CLOSE;
}

/* Has every byte and the FIN been acknowledged, or can none be any more? */
static bool half_drained(const struct half *half)
{
	size_t sealed = half->seal ? half->seal->ops->unsent(half->seal) : 0;

	/* A reset socket keeps counting what it will never send. */
	return (!sealed && !fd_unsent(half->fd)) || socket_closed(half->fd);
}

/*
 * Nothing more goes to it. Where the kernel seals, the seal's own end has said so:
 * a FIN, behind which Linux 6.12 polls such a socket as if it were plain, so that
 * half a record kept it awake, comes with the close.
 */
static void half_shutdown(const struct half *half)
{
	if (!seal_in_kernel(half->seal))
		shutdown(half->fd, SHUT_WR);
}

size_t pair_socket_unread(int fd)
{
	int value = 0;

	if (ioctl(fd, SIOCINQ, &value) < 0 || value < 0)
		return 0;
	return (size_t)value;
}

void pair_streams_free(struct pair *pair, bool reset)
{
	struct streams *streams = pair->streams;

	pair->streams = NULL;
	for (int i = 0; i < 2; i++) {
		struct half *half = &streams->half[i];

		watch_del(pair->loop, &half->watch);
		if (reset)
			fd_reset(&half->fd);
		else
			fd_close(&half->fd);
		seal_free(half->seal);
		free(half->preface);
		pair->bytes[i] += streams->link.flow[i].bytes;
	}
	free(streams);
}

void pair_close(struct pair *pair, bool reset)
{
	timer_cancel(pair->loop, &pair->timer);
	if (pair->streams)
		pair_streams_free(pair, reset);
	pair->state = PAIR_CLOSED;
	pair->on_closed(pair->owner, pair->end);
	free(pair);
}

/* Reset, or in order. */
static void streams_close(struct pair *pair)
{
	engine_link_refresh(&pair->streams->link);
	pair_close(pair,
		   pair->how == STOP_RESET || pair->how == STOP_DRAIN_RESET);
}

/* The engine has let go: closes now, or looks again later. */
static void pair_drain(struct pair *pair)
{
	struct streams *streams = pair->streams;
	bool drains = pair->how == STOP_DRAIN_CLOSE ||
		      pair->how == STOP_DRAIN_RESET;

	if (!drains || loop_now(pair->loop) >= pair->deadline_ms ||
	    (half_drained(&streams->half[0]) &&
	     half_drained(&streams->half[1]))) {
		streams_close(pair);
		return;
	}
	timer_arm(pair->loop, &pair->timer, streams->drain_ms, timer_ran);
	if (streams->drain_ms < DRAIN_MAX_MS)
		streams->drain_ms *= 2;
}

static void pair_stopped(struct deferred *deferred)
{
	pair_drain(list_entry(deferred, struct streams, stopped)->pair);
}

static void link_detached(struct engine_link *link)
{
	pair_drain(list_entry(link, struct streams, link)->pair);
}

void pair_stop(struct pair *pair, enum pair_end end, enum stop_how how)
{
	struct streams *streams = pair->streams;

	if (pair->how >= how)
		return;
	if (!pair->finishing)
		pair->deadline_ms = loop_now(pair->loop) + pair->linger_ms;
	pair->how = how;
	pair->end = end;
	pair->state = PAIR_CLOSING;
	streams->drain_ms = DRAIN_MIN_MS;
	timer_cancel(pair->loop, &pair->timer);
	/* Should it be joined after all, it will be reset. */
	wire_forget(&pair->link);
	for (int i = 0; i < 2; i++)
		watch_del(pair->loop, &streams->half[i].watch);
	if (!streams->link.ops) {
		loop_defer(pair->loop, &streams->stopped, pair_stopped);
	} else if (!streams->detaching) {
		streams->detaching = true;
		engine_link_detach(&streams->link);
	}
}

static uint64_t streams_moved(const struct streams *streams)
{
	engine_link_refresh(&streams->link);
	return streams->link.flow[0].bytes + streams->link.flow[1].bytes;
}

/* Bytes that have arrived here and not been passed on. */
static size_t flow_arrived(const struct streams *streams,
			   const struct flow *flow)
{
	return engine_link_held(&streams->link, flow) +
	       pair_socket_unread(flow->from);
}

/* Is there nothing left that could be delivered? */
static bool streams_empty(const struct streams *streams)
{
	for (int i = 0; i < 2; i++) {
		const struct flow *flow = &streams->link.flow[i];

		if (streams->half[i].preface)
			return false;
		if (flow->end == FLOW_OPEN && flow_arrived(streams, flow))
			return false;
	}
	return streams->link.ops;
}

/* Ends both streams in order, after everything that was sent before. */
static void streams_end(struct pair *pair, enum pair_end end)
{
	for (int i = 0; i < 2; i++) {
		struct half *half = &pair->streams->half[i];

		/* All is quiet: there is room for it as a rule. */
		if (half->seal)
			half->seal->ops->end(half->seal);
		half_shutdown(half);
	}
	pair_stop(pair, end, STOP_DRAIN_CLOSE);
}

static bool finish_overdue(const struct pair *pair)
{
	const struct streams *streams = pair->streams;

	return loop_now(pair->loop) >= pair->deadline_ms ||
	       streams->link.flow[0].bytes > streams->finish_bytes[0] ||
	       streams->link.flow[1].bytes > streams->finish_bytes[1];
}

static void finish_look(struct pair *pair)
{
	struct streams *streams = pair->streams;
	uint64_t bytes = streams_moved(streams);

	if (finish_overdue(pair)) {
		pair_stop(pair, PAIR_END_FINISHED, STOP_RESET);
		return;
	}
	if (bytes != streams->quiet_bytes || !streams_empty(streams)) {
		streams->quiet_bytes = bytes;
		streams->quiet_ms = loop_now(pair->loop);
	} else if (loop_now(pair->loop) - streams->quiet_ms >= QUIET_MS) {
		streams_end(pair, PAIR_END_FINISHED);
		return;
	}
	timer_arm(pair->loop, &pair->timer, FINISH_LOOK_MS, timer_ran);
}

static uint64_t streams_idle_ms(const struct pair *pair)
{
	const struct engine_link *link = &pair->streams->link;
	uint64_t now_ms = loop_now(pair->loop);

	engine_link_refresh(link);
	/* Its turn may be yet to come. */
	return now_ms > link->active_ms ? now_ms - link->active_ms : 0;
}

static void idle_look(struct pair *pair)
{
	struct streams *streams = pair->streams;
	uint64_t idle = streams_idle_ms(pair);

	if (idle < pair->idle_timeout_ms)
		timer_arm(pair->loop, &pair->timer,
			  pair->idle_timeout_ms - idle, timer_ran);
	else if (streams_empty(streams))
		streams_end(pair, PAIR_END_IDLE);
	else /* stuck: an end of stream would hide that bytes are missing */
		pair_stop(pair, PAIR_END_IDLE, STOP_RESET);
}

static void timer_ran(struct timer *timer)
{
	struct pair *pair = list_entry(timer, struct pair, timer);

	if (pair_on_wire(pair))
		pair_wire_look(pair);
	else if (pair->how != STOP_NOT)
		pair_drain(pair);
	else if (pair->finishing)
		finish_look(pair);
	else
		idle_look(pair);
}

void pair_look_in(struct pair *pair, uint64_t ms)
{
	timer_arm(pair->loop, &pair->timer, ms, timer_ran);
}

/* Writing to half i failed: does the end of the other flow end the pair? */
static bool half_died(struct pair *pair, int i)
{
	pair->streams->half[i].dead = true;
	/* If memory failed and not the socket, that flow might never end. */
	return pair->streams->link.flow[!i].end == FLOW_OPEN &&
	       socket_closed(pair->streams->half[i].fd);
}

static void flow_ended(struct engine_link *link, struct flow *flow)
{
	struct streams *streams = list_entry(link, struct streams, link);
	struct pair *pair = streams->pair;
	int i = (int)(flow - link->flow);

	pair->state = PAIR_CLOSING;
	switch (flow->end) {
	case FLOW_OPEN:
		break;
	case FLOW_FIN:
		if (streams->half[!i].dead) {
			pair_stop(pair, PAIR_END_RESET, STOP_DRAIN_RESET);
			break;
		}
		/* Fails on a dead socket only: the other flow will say so. */
		half_shutdown(&streams->half[i]);
		if (link->flow[!i].end == FLOW_FIN)
			pair_stop(pair, PAIR_END_FIN, STOP_CLOSE);
		break;
	case FLOW_TO_ERROR:
		if (!half_died(pair, i))
			pair_stop(pair,
				  flow->error == -EKEYEXPIRED ? PAIR_END_KEY :
								PAIR_END_RESET,
				  STOP_DRAIN_RESET);
		break;
	case FLOW_FROM_ERROR:
		pair_stop(pair, PAIR_END_RESET, STOP_DRAIN_RESET);
		break;
	}
}

/* Both prefaces are out of the way: relaying begins. */
static void pair_attach(struct pair *pair)
{
	struct streams *streams = pair->streams;

	/* What was read before the reset has been passed on. */
	if (streams->half[0].failed || streams->half[1].failed) {
		pair_stop(pair, PAIR_END_RESET, STOP_DRAIN_RESET);
		return;
	}
	if (engine_set_attach_prefer(streams->engines, &streams->link,
				     streams->prefer) < 0) {
		pair_stop(pair, PAIR_END_ERROR, STOP_DRAIN_RESET);
		return;
	}
	if (streams->keepalive_ms)
		fd_keepalive(streams->half[PAIR_PEER].fd,
			     streams->keepalive_ms);
	streams->engine = engine_link_name(&streams->link);
	pair->state = pair->finishing ? PAIR_CLOSING : PAIR_RELAYING;
}

/*
 * A dead half does not end the pair: what it sent before is still to be relayed,
 * and the engine will find it dead.
 */
void pair_half_flush(struct half *half)
{
	while (half->preface) {
		ssize_t n = seal_send(half->seal, half->fd,
				      half->preface + half->preface_off,
				      half->preface_len - half->preface_off);

		if (n == -EINTR)
			continue;
		if (n == -EAGAIN)
			return;
		if (n > 0)
			half->preface_off += (size_t)n;
		half->dead = n < 0;
		if (half->dead || half->preface_off == half->preface_len) {
			free(half->preface);
			half->preface = NULL;
		}
	}
}

int pair_half_append(struct half *half, const uint8_t *data, size_t len)
{
	size_t room = half->preface ? half->preface_room : 0;
	uint8_t *grown;

	if (!half->preface)
		half->preface_len = half->preface_off = 0;
	if (room - half->preface_len < len) {
		room = half->preface_len + len;
		/* The second time there is more to come. */
		if (half->preface)
			room *= 2;
		grown = realloc(half->preface, room);
		if (!grown)
			return -ENOMEM;
		half->preface = grown;
		half->preface_room = room;
	}
	memcpy(half->preface + half->preface_len, data, len);
	half->preface_len += len;
	return 0;
}

static void half_ready(struct pair *pair, int i)
{
	struct streams *streams = pair->streams;
	struct half *half = &streams->half[i];

	streams->link.active_ms = loop_now(pair->loop);
	pair_half_flush(half);
	if (half->preface)
		return;
	watch_del(pair->loop, &half->watch);
	if (streams->early)
		pair_join_sent(pair);
	else if (!streams->half[!i].preface && !pair_on_wire(pair))
		pair_attach(pair);
}

static void client_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	half_ready(
		list_entry(watch, struct streams, half[PAIR_CLIENT].watch)->pair,
		PAIR_CLIENT);
}

static void peer_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	half_ready(
		list_entry(watch, struct streams, half[PAIR_PEER].watch)->pair,
		PAIR_PEER);
}

int pair_half_wait(struct pair *pair, int i)
{
	struct half *half = &pair->streams->half[i];

	return watch_add(pair->loop, &half->watch, half->fd, EPOLLOUT,
			 i == PAIR_CLIENT ? client_ready : peer_ready);
}

void pair_flush(struct pair *pair)
{
	struct half *half = pair->streams->half;
	int err = 0;

	if (!pair->finishing)
		pair->state = PAIR_FLUSHING;
	for (int i = 0; i < 2; i++) {
		pair_half_flush(&half[i]);
		if (half[i].preface && pair_half_wait(pair, i))
			err = -ENOSPC;
	}
	if (err)
		pair_stop(pair, PAIR_END_ERROR, STOP_DRAIN_RESET);
	else if (!half[0].preface && !half[1].preface)
		pair_attach(pair);
}

/*
 * Starts with the caller's copy of the preface; a socket just joined takes it
 * whole as a rule, and nothing has to be kept.
 */
static int half_start(struct half *half, const struct pair_half_params *params)
{
	ssize_t n = 0;

	if (params->preface_len)
		n = seal_send(half->seal, half->fd, params->preface,
			      params->preface_len);
	half->dead = n < 0 && n != -EAGAIN && n != -EINTR;
	if (half->dead)
		return 0; /* as in pair_half_flush */
	if (n < 0)
		n = 0;
	if ((size_t)n == params->preface_len)
		return 0;
	return pair_half_append(half, params->preface + n,
				params->preface_len - (size_t)n);
}

/* Two allocations: the small one may outlive the other by far. */
static struct pair *pair_alloc(void)
{
	struct pair *pair = calloc(1, sizeof(*pair));
	struct streams *streams = calloc(1, sizeof(*streams));

	if (!pair || !streams) {
		free(pair);
		free(streams);
		return NULL;
	}
	pair->streams = streams;
	streams->pair = pair;
	return pair;
}

static void streams_init(struct pair *pair, const struct pair_params *params)
{
	struct streams *streams = pair->streams;

	streams->engines = params->engines;
	streams->prefer = params->prefer;
	streams->keepalive_ms = params->keepalive_ms;
	streams->engine = "-";
	streams->link.on_end = flow_ended;
	streams->link.on_detached = link_detached;
	streams->link.active_ms = loop_now(pair->loop);
	for (int i = 0; i < 2; i++) {
		struct half *half = &streams->half[i];

		half->fd = params->half[i].fd;
		half->seal = params->half[i].seal;
		half->watch.fd = -1;
		streams->link.flow[i].to = half->fd;
		streams->link.flow[i].to_seal = half->seal;
		streams->link.flow[i].rates = params->rates[i];
		streams->link.flow[!i].from = half->fd;
		streams->link.flow[!i].from_seal = half->seal;
	}
}

int pair_new(const struct pair_params *params, struct pair **out)
{
	struct pair *pair = pair_alloc();
	int err;

	if (!pair)
		return -ENOMEM;
	pair->loop = params->loop;
	pair->idle_timeout_ms = (uint32_t)params->idle_timeout_ms;
	pair->linger_ms = (uint32_t)params->linger_ms;
	pair->on_closed = params->on_closed;
	pair->owner = params->owner;
	pair->why = (uint8_t)params->why;
	/* The peer's was payload, the client's the owner's own words. */
	pair->bytes[PAIR_PEER] = params->half[PAIR_PEER].preface_len;
	streams_init(pair, params);
	if (pair->idle_timeout_ms)
		timer_arm(pair->loop, &pair->timer, pair->idle_timeout_ms,
			  timer_ran);
	err = half_start(&pair->streams->half[PAIR_PEER],
			 &params->half[PAIR_PEER]);
	*out = pair;
	if (!err && params->wire) {
		pair_join(pair, params);
		return 0;
	}
	if (!err)
		err = half_start(&pair->streams->half[PAIR_CLIENT],
				 &params->half[PAIR_CLIENT]);
	if (err)
		pair_stop(pair, PAIR_END_ERROR, STOP_DRAIN_RESET);
	else
		pair_flush(pair);
	return 0;
}

static void streams_finish(struct pair *pair)
{
	struct streams *streams = pair->streams;

	streams->quiet_bytes = streams_moved(streams);
	streams->quiet_ms = loop_now(pair->loop);
	for (int i = 0; i < 2; i++) {
		const struct flow *flow = &streams->link.flow[i];

		streams->finish_bytes[i] = flow->bytes +
					   flow_arrived(streams, flow) +
					   FINISH_BYTES;
	}
}

void pair_finish(struct pair *pair)
{
	if (pair->finishing || pair->how != STOP_NOT)
		return;
	pair->finishing = true;
	pair->state = PAIR_CLOSING;
	pair->deadline_ms = loop_now(pair->loop) + pair->linger_ms;
	if (pair_on_wire(pair))
		pair_wire_finish(pair);
	else
		streams_finish(pair);
	timer_arm(pair->loop, &pair->timer, FINISH_LOOK_MS, timer_ran);
}

void pair_reset(struct pair *pair)
{
	if (pair_on_wire(pair))
		pair_wire_end(pair, PAIR_END_KICKED);
	else
		pair_stop(pair, PAIR_END_KICKED, STOP_RESET);
}

void pair_destroy(struct pair *pair)
{
	struct streams *streams = pair->streams;

	wire_forget(&pair->link);
	if (streams && streams->link.ops) {
		streams->link.on_detached = NULL;
		engine_link_detach(&streams->link);
	}
	timer_cancel(pair->loop, &pair->timer);
	if (streams) {
		loop_undefer(&streams->stopped);
		pair_streams_free(pair, true);
	}
	free(pair);
}

void pair_get_info(const struct pair *pair, struct pair_info *out)
{
	const struct streams *streams = pair->streams;

	out->state = pair->state;
	out->why = pair->why;
	out->engine = streams ? streams->engine : "wire";
	out->seal = streams ? streams->half[PAIR_CLIENT].seal : NULL;
	out->idle_ms = 0;
	for (int i = 0; i < 2; i++)
		out->bytes[i] = pair->bytes[i];
	if (pair_on_wire(pair)) {
		pair_wire_info(pair, out);
	} else if (streams) {
		out->idle_ms = streams_idle_ms(pair);
		for (int i = 0; i < 2; i++)
			out->bytes[i] += streams->link.flow[i].bytes;
	}
}

const char *pair_state_name(enum pair_state state)
{
	switch (state) {
	case PAIR_JOINING:
		return "joining";
	case PAIR_FLUSHING:
		return "flushing";
	case PAIR_RELAYING:
		return "relaying";
	case PAIR_CLOSING:
		return "closing";
	case PAIR_CLOSED:
		return "closed";
	}
	return "?";
}

const char *pair_end_name(enum pair_end end)
{
	switch (end) {
	case PAIR_END_FIN:
		return "fin";
	case PAIR_END_RESET:
		return "reset";
	case PAIR_END_IDLE:
		return "idle";
	case PAIR_END_FINISHED:
		return "finished";
	case PAIR_END_KICKED:
		return "kicked";
	case PAIR_END_KEY:
		return "key";
	case PAIR_END_ERROR:
		return "error";
	}
	return "?";
}
