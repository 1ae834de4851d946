/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The splice pair's state machine.
 *
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
 * What may fail after pair_new: memory for an unsent preface or the engine's link;
 * the pair then ends with PAIR_END_ERROR and a reset of both.
 */
#include "pair/pair.h"

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

/*
 * pair_finish: the most one flow may still deliver beyond what has arrived here.
 * More than the send queue of a client that has closed can hold, so nothing that
 * was sent in good faith is cut; yet who keeps sending does not go on for
 * linger_ms.
 */
#define FINISH_BYTES   (16u << 20)
#define QUIET_MS       100 /* pair_finish: nothing moved for so long */
#define FINISH_LOOK_MS 10 /* and looks so often */
#define DRAIN_MIN_MS   10 /* first look at a queue that is not drained */
#define DRAIN_MAX_MS   160

enum stop_how {
	STOP_NOT,
	STOP_CLOSE, /* close both */
	STOP_DRAIN_CLOSE, /* close both when all is acknowledged */
	STOP_DRAIN_RESET, /* reset both when all is acknowledged */
	STOP_RESET, /* reset both */
};

struct half {
	int fd;
	bool dead; /* writing to it failed */
	uint8_t *preface; /* what is left of it; NULL: all written */
	size_t preface_len, preface_off;
	struct watch watch; /* while the preface waits */
};

struct pair {
	struct engine_link link;
	struct half half[2];
	struct loop *loop;
	struct engine_set *engines;
	const char *engine; /* name, kept for pair_get_info after the detach */
	struct timer timer;
	struct deferred stopped; /* no engine to detach from */

	enum pair_state state;
	enum pair_end end;
	enum stop_how how;
	bool detaching;
	bool finishing;
	uint64_t quiet_bytes; /* moved in all at the last look for quiet */
	uint64_t quiet_ms; /* since when nothing has moved */
	uint64_t finish_bytes[2]; /* a flow that comes so far is cut off */
	uint64_t deadline_ms; /* of finishing or draining */
	unsigned int drain_ms; /* between two looks at the queues */

	uint64_t idle_timeout_ms, linger_ms;
	void (*on_closed)(void *owner, enum pair_end end);
	void *owner;
};

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
static bool socket_drained(int fd)
{
	/* A reset socket keeps counting what it will never send. */
	return fd_unsent(fd) == 0 || socket_closed(fd);
}

/* Bytes received and not read. */
static size_t socket_unread(int fd)
{
	int value = 0;

	if (ioctl(fd, SIOCINQ, &value) < 0 || value < 0)
		return 0;
	return (size_t)value;
}

static void pair_close(struct pair *pair)
{
	bool reset = pair->how == STOP_RESET || pair->how == STOP_DRAIN_RESET;

	timer_cancel(pair->loop, &pair->timer);
	for (int i = 0; i < 2; i++) {
		if (reset)
			fd_reset(&pair->half[i].fd);
		else
			fd_close(&pair->half[i].fd);
		free(pair->half[i].preface);
		pair->half[i].preface = NULL;
	}
	pair->state = PAIR_CLOSED;
	pair->on_closed(pair->owner, pair->end);
	free(pair);
}

/* The engine has let go: closes now, or looks again later. */
static void pair_drain(struct pair *pair)
{
	bool drains = pair->how == STOP_DRAIN_CLOSE ||
		      pair->how == STOP_DRAIN_RESET;

	if (!drains || loop_now(pair->loop) >= pair->deadline_ms ||
	    (socket_drained(pair->half[0].fd) &&
	     socket_drained(pair->half[1].fd))) {
		pair_close(pair);
		return;
	}
	timer_arm(pair->loop, &pair->timer, pair->drain_ms, timer_ran);
	if (pair->drain_ms < DRAIN_MAX_MS)
		pair->drain_ms *= 2;
}

static void pair_stopped(struct deferred *deferred)
{
	pair_drain(list_entry(deferred, struct pair, stopped));
}

static void link_detached(struct engine_link *link)
{
	pair_drain(list_entry(link, struct pair, link));
}

/* The one way out of relaying. A later call may only be harder. */
static void pair_stop(struct pair *pair, enum pair_end end, enum stop_how how)
{
	if (pair->how >= how)
		return;
	if (!pair->finishing)
		pair->deadline_ms = loop_now(pair->loop) + pair->linger_ms;
	pair->how = how;
	pair->end = end;
	pair->state = PAIR_CLOSING;
	pair->drain_ms = DRAIN_MIN_MS;
	timer_cancel(pair->loop, &pair->timer);
	for (int i = 0; i < 2; i++)
		watch_del(pair->loop, &pair->half[i].watch);
	if (!pair->link.ops) {
		loop_defer(pair->loop, &pair->stopped, pair_stopped);
	} else if (!pair->detaching) {
		pair->detaching = true;
		engine_link_detach(&pair->link);
	}
}

static uint64_t pair_moved(const struct pair *pair)
{
	engine_link_refresh(&pair->link);
	return pair->link.flow[0].bytes + pair->link.flow[1].bytes;
}

/* Bytes that have arrived here and not been passed on. */
static size_t flow_arrived(const struct pair *pair, const struct flow *flow)
{
	return engine_link_held(&pair->link, flow) + socket_unread(flow->from);
}

/* Is there nothing left that could be delivered? */
static bool pair_empty(const struct pair *pair)
{
	for (int i = 0; i < 2; i++) {
		const struct flow *flow = &pair->link.flow[i];

		if (pair->half[i].preface)
			return false;
		if (flow->end == FLOW_OPEN && flow_arrived(pair, flow))
			return false;
	}
	return pair->link.ops;
}

/* Ends both streams in order, after everything that was sent before. */
static void pair_end_streams(struct pair *pair, enum pair_end end)
{
	shutdown(pair->half[0].fd, SHUT_WR);
	shutdown(pair->half[1].fd, SHUT_WR);
	pair_stop(pair, end, STOP_DRAIN_CLOSE);
}

static bool finish_overdue(const struct pair *pair)
{
	return loop_now(pair->loop) >= pair->deadline_ms ||
	       pair->link.flow[0].bytes > pair->finish_bytes[0] ||
	       pair->link.flow[1].bytes > pair->finish_bytes[1];
}

static void finish_look(struct pair *pair)
{
	uint64_t bytes = pair_moved(pair);

	if (finish_overdue(pair)) {
		pair_stop(pair, PAIR_END_FINISHED, STOP_RESET);
		return;
	}
	if (bytes != pair->quiet_bytes || !pair_empty(pair)) {
		pair->quiet_bytes = bytes;
		pair->quiet_ms = loop_now(pair->loop);
	} else if (loop_now(pair->loop) - pair->quiet_ms >= QUIET_MS) {
		pair_end_streams(pair, PAIR_END_FINISHED);
		return;
	}
	timer_arm(pair->loop, &pair->timer, FINISH_LOOK_MS, timer_ran);
}

static void idle_look(struct pair *pair)
{
	uint64_t idle;

	engine_link_refresh(&pair->link);
	idle = loop_now(pair->loop) - pair->link.active_ms;
	if (idle < pair->idle_timeout_ms)
		timer_arm(pair->loop, &pair->timer,
			  pair->idle_timeout_ms - idle, timer_ran);
	else if (pair_empty(pair))
		pair_end_streams(pair, PAIR_END_IDLE);
	else /* stuck: an end of stream would hide that bytes are missing */
		pair_stop(pair, PAIR_END_IDLE, STOP_RESET);
}

static void timer_ran(struct timer *timer)
{
	struct pair *pair = list_entry(timer, struct pair, timer);

	if (pair->how != STOP_NOT)
		pair_drain(pair);
	else if (pair->finishing)
		finish_look(pair);
	else
		idle_look(pair);
}

/* Writing to half i failed: does the end of the other flow end the pair? */
static bool half_died(struct pair *pair, int i)
{
	pair->half[i].dead = true;
	/* If memory failed and not the socket, that flow might never end. */
	return pair->link.flow[!i].end == FLOW_OPEN &&
	       socket_closed(pair->half[i].fd);
}

static void flow_ended(struct engine_link *link, struct flow *flow)
{
	struct pair *pair = list_entry(link, struct pair, link);
	int i = (int)(flow - link->flow);

	pair->state = PAIR_CLOSING;
	switch (flow->end) {
	case FLOW_OPEN:
		break;
	case FLOW_FIN:
		if (pair->half[!i].dead) {
			pair_stop(pair, PAIR_END_RESET, STOP_DRAIN_RESET);
			break;
		}
		/* Fails on a dead socket only: the other flow will say so. */
		shutdown(pair->half[i].fd, SHUT_WR);
		if (link->flow[!i].end == FLOW_FIN)
			pair_stop(pair, PAIR_END_FIN, STOP_CLOSE);
		break;
	case FLOW_TO_ERROR:
		if (!half_died(pair, i))
			pair_stop(pair, PAIR_END_RESET, STOP_DRAIN_RESET);
		break;
	case FLOW_FROM_ERROR:
		pair_stop(pair, PAIR_END_RESET, STOP_DRAIN_RESET);
		break;
	}
}

/* Both prefaces are out of the way: relaying begins. */
static void pair_attach(struct pair *pair)
{
	if (engine_set_attach(pair->engines, &pair->link) < 0) {
		pair_stop(pair, PAIR_END_ERROR, STOP_DRAIN_RESET);
		return;
	}
	pair->engine = engine_link_name(&pair->link);
	pair->state = pair->finishing ? PAIR_CLOSING : PAIR_RELAYING;
}

/*
 * Sends what it can. A dead half does not end the pair: what it sent before is
 * still to be relayed, and the engine will find it dead.
 */
static void half_flush(struct half *half)
{
	while (half->preface) {
		ssize_t n = send(half->fd, half->preface + half->preface_off,
				 half->preface_len - half->preface_off,
				 MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
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

static void half_ready(struct pair *pair, int i)
{
	struct half *half = &pair->half[i];

	pair->link.active_ms = loop_now(pair->loop);
	half_flush(half);
	if (half->preface)
		return;
	watch_del(pair->loop, &half->watch);
	if (!pair->half[!i].preface)
		pair_attach(pair);
}

static void client_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	half_ready(list_entry(watch, struct pair, half[PAIR_CLIENT].watch),
		   PAIR_CLIENT);
}

static void peer_ready(struct watch *watch, uint32_t events)
{
	(void)events;
	half_ready(list_entry(watch, struct pair, half[PAIR_PEER].watch),
		   PAIR_PEER);
}

/*
 * Starts with the caller's copy of the preface; a socket just joined takes it
 * whole as a rule, and nothing has to be kept.
 */
static int half_start(struct pair *pair, int i,
		      const struct pair_half_params *params)
{
	struct half *half = &pair->half[i];
	const int one = 1;
	ssize_t n = 0;
	size_t rest;

	half->fd = params->fd;
	half->watch.fd = -1;
	/* Urgent data is data: otherwise reading would drop the byte. */
	setsockopt(half->fd, SOL_SOCKET, SO_OOBINLINE, &one, sizeof(one));
	if (params->preface_len)
		n = send(half->fd, params->preface, params->preface_len,
			 MSG_NOSIGNAL);
	half->dead = n < 0 && errno != EAGAIN && errno != EINTR;
	if (half->dead)
		return 0; /* as in half_flush */
	if (n < 0)
		n = 0;
	rest = params->preface_len - (size_t)n;
	if (!rest)
		return 0;
	half->preface = malloc(rest);
	if (!half->preface)
		return -ENOMEM;
	memcpy(half->preface, params->preface + n, rest);
	half->preface_len = rest;
	return watch_add(pair->loop, &half->watch, half->fd, EPOLLOUT,
			 i == PAIR_CLIENT ? client_ready : peer_ready);
}

int pair_new(const struct pair_params *params, struct pair **out)
{
	struct pair *pair = calloc(1, sizeof(*pair));
	int err = 0;

	if (!pair)
		return -ENOMEM;
	pair->loop = params->loop;
	pair->engines = params->engines;
	pair->engine = "-";
	pair->idle_timeout_ms = params->idle_timeout_ms;
	pair->linger_ms = params->linger_ms;
	pair->on_closed = params->on_closed;
	pair->owner = params->owner;
	pair->link.on_end = flow_ended;
	pair->link.on_detached = link_detached;
	pair->link.active_ms = loop_now(pair->loop);
	for (int i = 0; i < 2; i++) {
		int failed = half_start(pair, i, &params->half[i]);

		err = err ? err : failed;
		pair->link.flow[i].to = params->half[i].fd;
		pair->link.flow[i].from = params->half[!i].fd;
	}
	if (pair->idle_timeout_ms)
		timer_arm(pair->loop, &pair->timer, pair->idle_timeout_ms,
			  timer_ran);
	if (err)
		pair_stop(pair, PAIR_END_ERROR, STOP_DRAIN_RESET);
	else if (!pair->half[0].preface && !pair->half[1].preface)
		pair_attach(pair);
	*out = pair;
	return 0;
}

void pair_finish(struct pair *pair)
{
	if (pair->finishing || pair->how != STOP_NOT)
		return;
	pair->finishing = true;
	pair->state = PAIR_CLOSING;
	pair->deadline_ms = loop_now(pair->loop) + pair->linger_ms;
	pair->quiet_bytes = pair_moved(pair);
	pair->quiet_ms = loop_now(pair->loop);
	for (int i = 0; i < 2; i++) {
		const struct flow *flow = &pair->link.flow[i];

		pair->finish_bytes[i] =
			flow->bytes + flow_arrived(pair, flow) + FINISH_BYTES;
	}
	timer_arm(pair->loop, &pair->timer, FINISH_LOOK_MS, timer_ran);
}

void pair_reset(struct pair *pair)
{
	pair_stop(pair, PAIR_END_KICKED, STOP_RESET);
}

void pair_destroy(struct pair *pair)
{
	if (pair->link.ops) {
		pair->link.on_detached = NULL;
		engine_link_detach(&pair->link);
	}
	timer_cancel(pair->loop, &pair->timer);
	if (pair->stopped.queued)
		list_del(&pair->stopped.link);
	for (int i = 0; i < 2; i++) {
		watch_del(pair->loop, &pair->half[i].watch);
		fd_reset(&pair->half[i].fd);
		free(pair->half[i].preface);
	}
	free(pair);
}

void pair_get_info(const struct pair *pair, struct pair_info *out)
{
	engine_link_refresh(&pair->link);
	out->state = pair->state;
	out->engine = pair->engine;
	out->idle_ms = loop_now(pair->loop) - pair->link.active_ms;
	for (int i = 0; i < 2; i++)
		out->bytes[i] = pair->link.flow[i].bytes;
}

const char *pair_state_name(enum pair_state state)
{
	switch (state) {
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
	case PAIR_END_ERROR:
		return "error";
	}
	return "?";
}
