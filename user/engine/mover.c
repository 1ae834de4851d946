/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Moves the bytes of one flow until it has to wait.
 *
 * Two ways to move, chosen by what the last reads brought: a read below SMALL
 * bytes is cheaper copied through the worker's shared buffer (two system calls,
 * no pipe), a larger one spliced through a pooled pipe. A flow starts copying;
 * one full buffer makes it splice, SMALL_READS small reads in a row make it copy
 * again. Copying is also what a flow falls back to when no pipe is to be had.
 *
 *   pull -> held (pipe or residual) -> push -> pull ...
 *
 * Nothing is pulled while something is held. So EAGAIN of the pull always means
 * that `from` has nothing to give, never that a pipe is full, however few
 * bytes its slots took; and a held pipe always waits for `to`. An idle flow
 * holds neither pipe nor buffer.
 *
 * How `from` ended is remembered in from_ended and reported when nothing is held
 * any more. On Linux received bytes stay readable before a reset is reported.
 *
 * A flow with a rate reserves a share of it before it reads, waits until that is its
 * turn, and reads no more than the share. What it leaves of it, for want of bytes or
 * of room at `to`, it gives back.
 *
 * Quirks:
 * - splice(2) stops before a byte of urgent data and says EAGAIN though poll
 *   says readable: that would spin. So the first pull of a run, made because
 *   poll said readable, answers EAGAIN by copying instead. With a FIN or a reset
 *   behind that byte it says 0 or the error instead, though there are bytes left:
 *   what ends a flow is what recv(2) says.
 * - Where the kernel unseals, splice(2) brings one record at most, and says EINVAL
 *   before one that is no data: that is for the seal's recv.
 * - SPLICE_F_MORE is not used: the last part of a stream's burst would sit in the
 *   kernel for up to 200 ms.
 */
#include "engine/mover.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/syscalls.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "openat newfstatat fstat read close");
SYSCALLS(SYSCALLS_RELAY, "recvfrom sendto splice setsockopt getsockopt");

#define SMALL       16384 /* bytes: up to here copying is cheaper */
#define SMALL_READS 4 /* in a row end splicing */
#define BUDGET      (1 << 20) /* bytes per flow and event, then others' turn */
/* After a read of fewer bytes nothing more is expected: polling tells, for less
 * than a read that says EAGAIN.
 */
#define READ_ON 65536

#define NS_PER_MS UINT64_C(1000000)

/* Of a near source: what it may have under way, in bytes for each microsecond of round
 * trip (40 Gbit/s), and besides for the time that we take to read.
 */
#define NEAR_RATE  5000
#define NEAR_LEAST (512 << 10)

/* What a short write left of the shared buffer. */
struct residual {
	size_t off, len;
	uint8_t data[];
};

/* The number at `column` (from 0) of a file of /proc/sys; 0 when unreadable. */
static unsigned long kernel_limit(const char *path, int column)
{
	char text[128];
	FILE *file = fopen(path, "re");
	char *at = text;
	unsigned long value = 0;

	if (!file)
		return 0;
	if (!fgets(text, sizeof(text), file))
		text[0] = '\0';
	if (fclose(file))
		return 0;
	for (int i = 0; i <= column; i++)
		value = strtoul(at, &at, 10);
	return value;
}

/* Read once, before the relay confines itself: then it opens no file. */
static unsigned long tcp_rmem_max, rmem_max;
static pthread_once_t limits_once = PTHREAD_ONCE_INIT;

static void limits_read(void)
{
	tcp_rmem_max = kernel_limit("/proc/sys/net/ipv4/tcp_rmem", 2);
	rmem_max = kernel_limit("/proc/sys/net/core/rmem_max", 0);
}

/*
 * Receive autotuning may let the queue of a source grow to the third number of
 * tcp_rmem however slow the reader is; 20 MB and more were seen on 6.18, where
 * that was 32 MB. TCP_WINDOW_CLAMP does not help: the window it limits begins
 * behind the queue. SO_RCVBUF does, and counts half of what it then allows. It is
 * silently cut to rmem_max, and a cut one would slow long paths: then leave it.
 */
static int receive_buffer_option(size_t bytes)
{
	size_t value = bytes / 2;

	if (tcp_rmem_max <= bytes || rmem_max < value)
		return 0;
	return (int)value;
}

int mover_init(struct mover *mover, struct loop *loop, struct pipe_pool *pool,
	       const struct engine_params *params)
{
	size_t buffer_len = params->copy_buffer;
	uint8_t *buffer;

	if (buffer_len < SMALL)
		buffer_len = SMALL;
	buffer = malloc(buffer_len);
	if (!buffer)
		return -ENOMEM;
	*mover = (struct mover){
		.loop = loop,
		.pool = pool,
		.buffer = buffer,
		.buffer_len = buffer_len,
	};
	pthread_once(&limits_once, limits_read);
	if (params->receive_buffer)
		mover->receive_buffer =
			receive_buffer_option(params->receive_buffer);
	return 0;
}

void mover_destroy(struct mover *mover)
{
	pipe_pool_free(mover->pool);
	free(mover->buffer);
}

static int held_keep(struct flow_state *state, const uint8_t *data, size_t len)
{
	struct residual *rest = malloc(sizeof(*rest) + len);

	if (!rest)
		return -ENOMEM;
	rest->off = 0;
	rest->len = len;
	memcpy(rest->data, data, len);
	state->residual = rest;
	state->held = len;
	return 0;
}

static void held_release(struct mover *mover, struct flow_state *state)
{
	pipe_pool_put(mover->pool, state->pipe);
	free(state->residual);
	state->pipe = NULL;
	state->residual = NULL;
}

static void turn_give_back(const struct flow *flow, struct flow_state *state)
{
	if (state->reserved)
		rates_return(flow->rates, state->reserved);
	state->reserved = 0;
}

static void link_active(struct engine_link *link, uint64_t ms)
{
	if (ms > link->active_ms)
		link->active_ms = ms;
}

/* A link that waits for its turn waits for us: it is not idle before that comes. */
static void turn_await(struct mover *mover, struct engine_link *link,
		       struct flow_state *state, uint64_t now_ns)
{
	uint64_t ms = (state->turn_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS;

	timer_arm(mover->loop, &state->turn, ms, state->on_turn);
	link_active(link, loop_now(mover->loop) + ms);
}

/*
 * How much may be read now? 0: nothing, the timer will tell when. A share for which
 * the flow had to wait is taken when it comes, though the rates have changed since.
 */
static size_t turn_take(struct mover *mover, struct engine_link *link,
			const struct flow *flow, struct flow_state *state)
{
	uint64_t now_ns;

	if (!flow->rates || !(flow->rates->count || state->reserved))
		return SIZE_MAX;
	now_ns = clock_ns();
	if (!state->reserved) {
		state->reserved = rates_share(flow->rates);
		state->turn_ns =
			rates_reserve(flow->rates, state->reserved, now_ns);
	}
	if (state->turn_ns <= now_ns)
		return state->reserved;
	turn_await(mover, link, state, now_ns);
	return 0;
}

void mover_drop(struct mover *mover, const struct flow *flow,
		struct flow_state *state)
{
	timer_cancel(mover->loop, &state->turn);
	turn_give_back(flow, state);
	if (state->held && state->pipe) {
		pipe_pool_drop(mover->pool, state->pipe);
		state->pipe = NULL;
	}
	held_release(mover, state);
	state->held = 0;
}

static void flow_ended(struct mover *mover, struct flow *flow,
		       struct flow_state *state, enum flow_end end, int error)
{
	flow->end = end;
	flow->error = error;
	state->wait = FLOW_WAIT_NONE;
	mover_drop(mover, flow, state);
}

/* Reading brought 0 or a negative errno. 0: it may be tried again at once. */
static int from_stopped(struct flow_state *state, ssize_t n)
{
	if (n == -EINTR)
		return 0;
	if (n == -EAGAIN)
		return -EAGAIN;
	if (n < 0)
		state->from_error = (int)n;
	state->from_ended = state->from_error ? FLOW_FROM_ERROR : FLOW_FIN;
	return 0;
}

static void moved(struct mover *mover, struct engine_link *link,
		  struct flow *flow, size_t n)
{
	flow->bytes += n;
	link_active(link, loop_now(mover->loop));
}

static ssize_t pipe_push(const struct flow *flow,
			 const struct flow_state *state)
{
	int err = seal_ready(flow->to_seal);
	ssize_t n;

	if (err)
		return err;
	n = splice(state->pipe->rd, NULL, flow->to, NULL, state->held,
		   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (n < 0)
		return -errno;
	seal_spliced(flow->to_seal, (size_t)n);
	return n;
}

/* Writes what is held. 0: all; -EAGAIN: `to` is full; else it failed. */
static int push(struct mover *mover, struct engine_link *link,
		struct flow *flow, struct flow_state *state)
{
	struct residual *rest = state->residual;
	ssize_t n;

	while (state->held) {
		if (rest)
			n = seal_send(flow->to_seal, flow->to,
				      rest->data + rest->off,
				      rest->len - rest->off);
		else
			n = pipe_push(flow, state);
		if (n == -EINTR)
			continue;
		if (n < 0)
			return (int)n;
		if (n == 0) /* a pipe shorter than counted: our own bug */
			return -EPIPE;
		if (rest)
			rest->off += (size_t)n;
		state->held -= (size_t)n;
		moved(mover, link, flow, (size_t)n);
	}
	if (rest)
		held_release(mover, state);
	return 0;
}

int mover_room(int most, uint32_t rtt_us)
{
	int64_t near = NEAR_LEAST + (int64_t)rtt_us * NEAR_RATE;

	return near < most ? (int)near : most;
}

/*
 * Of bulk, and of a flow that is to be slow. Best effort: a socket without the
 * bound still works. A near source fills any bound before we have read, and what
 * is read from a long queue is not in the cache any more: one connection on one
 * machine lost a fifth of its rate to a queue of 6 MiB.
 */
static void source_bound(const struct mover *mover, const struct flow *flow,
			 struct flow_state *state)
{
	struct tcp_info info = { .tcpi_rtt = UINT32_MAX };
	socklen_t len = sizeof(info);
	int room;

	if (state->bounded || !mover->receive_buffer)
		return;
	state->bounded = true;
	getsockopt(flow->from, IPPROTO_TCP, TCP_INFO, &info, &len);
	room = mover_room(mover->receive_buffer, info.tcpi_rtt);
	setsockopt(flow->from, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
}

/* Was this copied read so large that the next one should be spliced? */
static void copied(const struct mover *mover, const struct flow *flow,
		   struct flow_state *state, size_t n)
{
	if (!mover->pool || state->splicing || state->unspliceable || n < SMALL)
		return;
	if (flow->from_seal && !flow->from_seal->splices)
		return;
	state->splicing = true;
	state->small_reads = 0;
}

/*
 * One read of at most `want` and the write of what it brought; the unwritten rest is held.
 * Returns the bytes read; 0: `from` has ended or may be tried again; -EAGAIN:
 * `from` has nothing; else writing failed.
 */
static ssize_t copy(struct mover *mover, struct engine_link *link,
		    struct flow *flow, struct flow_state *state, size_t want)
{
	ssize_t n, sent;

	if (want > mover->buffer_len)
		want = mover->buffer_len;
	if (mover->pool && !state->splicing && !state->unspliceable &&
	    want > SMALL)
		want = SMALL;
	n = seal_recv(flow->from_seal, flow->from, mover->buffer, want);
	if (n <= 0)
		return from_stopped(state, n);
	if (n >= SMALL)
		source_bound(mover, flow, state);
	copied(mover, flow, state, (size_t)n);
	do
		sent = seal_send(flow->to_seal, flow->to, mover->buffer,
				 (size_t)n);
	while (sent == -EINTR);
	if (sent < 0 && sent != -EAGAIN)
		return sent;
	if (sent < 0)
		sent = 0;
	if (sent > 0)
		moved(mover, link, flow, (size_t)sent);
	if (sent < n &&
	    held_keep(state, mover->buffer + sent, (size_t)(n - sent)) < 0)
		return -ENOMEM;
	return n;
}

/* One read into the pipe. Returns as copy() does. */
static ssize_t pull(struct flow *flow, struct flow_state *state, size_t want)
{
	size_t room = state->pipe->size < want ? state->pipe->size : want;
	ssize_t n = splice(flow->from, NULL, state->pipe->wr, NULL, room,
			   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

	if (n < 0 && errno == EINVAL) {
		state->unspliceable = !flow->from_seal;
		state->splicing = false;
		return 0;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return from_stopped(state, -errno);
	if (n <= 0) {
		/* Perhaps urgent data: recv() knows. But it will not find the
		 * error that splice(2) has taken off the socket.
		 */
		if (n < 0 && errno != ENOMEM)
			state->from_error = -errno;
		state->splicing = false;
		return 0;
	}
	state->held = (size_t)n;
	if (n >= SMALL)
		state->small_reads = 0;
	else if (++state->small_reads >= SMALL_READS)
		state->splicing = false;
	return n;
}

static ssize_t move_once(struct mover *mover, struct engine_link *link,
			 struct flow *flow, struct flow_state *state,
			 size_t want)
{
	if (state->splicing && !state->pipe)
		state->pipe = pipe_pool_get(mover->pool);
	if (state->splicing && state->pipe)
		return pull(flow, state, want);
	/* What a copy leaves over is not in it: others may need it. */
	pipe_pool_put(mover->pool, state->pipe);
	state->pipe = NULL;
	return copy(mover, link, flow, state, want);
}

/* The least that makes one expect more. */
static ssize_t read_on(const struct flow *flow)
{
	return flow->from_seal && flow->from_seal->splices ?
		       (ssize_t)SEAL_RECORD_MAX :
		       READ_ON;
}

/* After a read of n bytes: another one in this run? */
static bool reads_on(const struct flow *flow, struct flow_state *state,
		     ssize_t n, bool first, size_t done)
{
	/* Of this no polling would tell. */
	if (flow->from_seal && flow->from_seal->more)
		return true;
	if (n == -EAGAIN && first && state->splicing) {
		state->splicing = false;
		return true;
	}
	if (n > 0)
		return n >= read_on(flow) && done < BUDGET;
	return n == 0;
}

/* All has been written. -EAGAIN: `to` has to be told of the end, and is full. */
static int flow_end(const struct flow *flow, const struct flow_state *state)
{
	if (state->from_ended != FLOW_FIN || !flow->to_seal)
		return 0;
	return flow->to_seal->ops->end(flow->to_seal);
}

/* Writes what is held and reports ends. True: the flow may read. */
static bool settle(struct mover *mover, struct engine_link *link,
		   struct flow *flow, struct flow_state *state)
{
	int err = push(mover, link, flow, state);

	if (!err)
		err = flow_end(flow, state);
	state->wait = FLOW_WAIT_READ;
	if (err == -EAGAIN)
		state->wait = FLOW_WAIT_WRITE;
	else if (err)
		flow_ended(mover, flow, state, FLOW_TO_ERROR, err);
	else if (state->from_ended)
		flow_ended(mover, flow, state, state->from_ended,
			   state->from_error);
	return state->wait == FLOW_WAIT_READ;
}

/* The same in turn; FLOW_WAIT_TIME and -EAGAIN before that. */
static ssize_t move_paced(struct mover *mover, struct engine_link *link,
			  struct flow *flow, struct flow_state *state)
{
	size_t want = turn_take(mover, link, flow, state);
	ssize_t n;

	if (!want) {
		state->wait = FLOW_WAIT_TIME;
		source_bound(mover, flow, state);
		return -EAGAIN;
	}
	n = move_once(mover, link, flow, state, want);
	if (n > 0 && want != SIZE_MAX)
		state->reserved -= (size_t)n;
	return n;
}

void mover_run(struct mover *mover, struct engine_link *link, struct flow *flow,
	       struct flow_state *state)
{
	bool more = true, first = true;
	size_t done = 0;

	while (settle(mover, link, flow, state) && more) {
		ssize_t n = move_paced(mover, link, flow, state);

		if (n < 0 && n != -EAGAIN) {
			flow_ended(mover, flow, state, FLOW_TO_ERROR, (int)n);
			break;
		}
		if (state->wait == FLOW_WAIT_TIME)
			break;
		if (n > 0)
			done += (size_t)n;
		if (n == -EAGAIN && flow->from_seal &&
		    flow->from_seal->blocked) {
			state->wait = FLOW_WAIT_SEAL;
			break;
		}
		more = reads_on(flow, state, n, first, done);
		first = false;
	}
	if (state->wait != FLOW_WAIT_TIME)
		turn_give_back(flow, state);
	if (!state->held)
		held_release(mover, state);
}
