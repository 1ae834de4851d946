/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The sockmap engine: the kernel queues what arrives on one socket to the other
 * (kern/sockmap.bpf.c); what does not fit there it passes up, and we carry it.
 *
 * A flow, seen from here:
 *
 *   kernel -> settling -> carrying -> kernel
 *
 * kernel: nothing to do; the source is polled for passed bytes and for its end.
 * settling: bytes were passed. Those redirected before may still be on their way to
 *   the target's send buffer; ours would overtake them. Wait.
 * carrying: the mover reads and writes as in the copy engine, until all that was
 *   passed is written. Then the turn is given back by compare-and-swap, which fails
 *   if more was passed meanwhile.
 *
 * The same wait comes before the end of a flow: the end of stream must not overtake
 * what is redirected. How much the target was given is what it has had acknowledged
 * plus what lies in its send queue; how much the source received, TCP_INFO says.
 * TCP_INFO is read first: read the other way round, bytes acknowledged in between
 * count twice. The worker thread that empties the kernel's queue tells nobody, so a
 * wait polls: a few times at once, then by a timer.
 *
 * Joining: both sockets go into a map without a program first, so that the verdict
 * finds its target whichever socket it runs on; then into the one with it. A socket
 * that has had its FIN is refused there: before anything moved that is attach's
 * error; once one of the two is in, the flow of the other is carried by us alone.
 * What was queued before the join is judged when the socket is next read: a look
 * (MSG_PEEK) at the end of the join. A read that takes bytes would do, but on 6.18
 * it sets back the kernel's mark of what was consumed.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/syscalls.h"
#include "engine/sockmap_maps.h"
#include "engine/stream.h"

SYSCALLS(SYSCALLS_RELAY, "getsockopt recvfrom");
SYSCALLS_EQUAL(SYSCALLS_RELAY, "ioctl", 1, SIOCOUTQ);
SYSCALLS_EQUAL(SYSCALLS_RELAY, "ioctl", 1, SIOCINQ);

#define LOOKS       16 /* at once, before the timer */
#define LOOK_MS     10
#define COUNT_TRIES 100

struct sockmap {
	struct stream stream;
	struct sockmap_maps maps;
};

/* One flow. */
struct way {
	struct flow
		carried; /* what the mover sees: passed bytes, and how it ended */
	struct sockmap_flow *shared; /* with the verdict */
	uint64_t received; /* by the source before the join, and read then */
	uint64_t written; /* to the target before the join */
	uint64_t cookie; /* of the source */
	bool judged; /* the verdict has the source */
	bool settled; /* since the verdict began to pass */
	uint8_t looks;
};

struct sockmap_link {
	struct stream_link stream;
	uint32_t place;
	bool placed;
	struct way way[2];
	struct timer timer; /* of flows that wait for FLOW_WAIT_LOOK */
};

static struct sockmap *link_sockmap(const struct sockmap_link *state)
{
	return (struct sockmap *)state->stream.base.engine;
}

static struct sockmap_link *link_of(struct stream_link *state)
{
	return list_entry(state, struct sockmap_link, stream);
}

static uint64_t shared_control(const struct way *way)
{
	return __atomic_load_n(&way->shared->control, __ATOMIC_ACQUIRE);
}

static bool way_passes(const struct way *way)
{
	return shared_control(way) & SOCKMAP_PASSING;
}

static uint64_t shared_redirected(const struct way *way)
{
	return __atomic_load_n(&way->shared->redirected, __ATOMIC_ACQUIRE);
}

static int tcp_counts(int fd, struct tcp_info *info)
{
	socklen_t len = sizeof(*info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &len) ? -errno : 0;
}

/* Bytes ever given to the socket; never too many, so perhaps less than last time:
 * what is acknowledged between the two calls counts for neither.
 */
static int socket_written(int fd, uint64_t *out)
{
	struct tcp_info info;
	int queued, err = tcp_counts(fd, &info);

	if (err)
		return err;
	if (info.tcpi_state == BPF_TCP_CLOSE)
		return -EPIPE;
	if (ioctl(fd, SIOCOUTQ, &queued))
		return -errno;
	*out = info.tcpi_bytes_acked + (uint64_t)queued;
	return 0;
}

/* At one moment: bytes given to the socket, and received by it and read. */
static int socket_counts(int fd, uint64_t *written, uint64_t *read)
{
	struct tcp_info before, after;
	int queued, unread;

	for (int i = 0; i < COUNT_TRIES; i++) {
		if (tcp_counts(fd, &before) || ioctl(fd, SIOCOUTQ, &queued) ||
		    ioctl(fd, SIOCINQ, &unread) || tcp_counts(fd, &after))
			return -errno;
		if (after.tcpi_state != BPF_TCP_ESTABLISHED)
			return -ENOTCONN;
		if (before.tcpi_bytes_acked != after.tcpi_bytes_acked ||
		    before.tcpi_bytes_received != after.tcpi_bytes_received)
			continue;
		*written = after.tcpi_bytes_acked + (uint64_t)queued;
		*read = after.tcpi_bytes_received - (uint64_t)unread;
		return 0;
	}
	return -EAGAIN;
}

/* 0: all that was redirected lies in the target's send buffer; -EAGAIN; or what
 * writing to it would say.
 */
static int way_settle(struct way *way)
{
	uint64_t written = 0, redirected = shared_redirected(way);
	int err = socket_written(way->carried.to, &written);

	if (err)
		return err;
	return written < way->written + redirected + way->carried.bytes ?
		       -EAGAIN :
		       0;
}

static void look_again(struct timer *timer)
{
	struct sockmap_link *state =
		list_entry(timer, struct sockmap_link, timer);

	for (int i = 0; i < 2; i++)
		if (state->stream.flow[i].wait == FLOW_WAIT_LOOK)
			stream_look(&state->stream, i);
}

/* What it waits for is about to happen: polling says readable meanwhile. */
static void way_wait(struct sockmap_link *state, int i)
{
	struct way *way = &state->way[i];

	if (way->looks < LOOKS) {
		way->looks++;
		state->stream.flow[i].wait = FLOW_WAIT_READ;
		return;
	}
	state->stream.flow[i].wait = FLOW_WAIT_LOOK;
	if (!state->timer.armed)
		timer_arm(link_sockmap(state)->stream.mover.loop, &state->timer,
			  LOOK_MS, look_again);
}

static void way_end(struct way *way, enum flow_end end, int error)
{
	way->carried.end = end;
	way->carried.error = error;
}

/* Nothing was passed: has the source ended? True: bytes were passed just now. */
static bool way_peek(struct sockmap_link *state, int i)
{
	struct way *way = &state->way[i];
	uint8_t byte;
	ssize_t n = recv(way->carried.from, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	state->stream.flow[i].wait = FLOW_WAIT_READ;
	if (n > 0)
		return true;
	if (n == 0)
		way_end(way, FLOW_FIN, 0);
	else if (errno != EAGAIN && errno != EINTR)
		way_end(way, FLOW_FROM_ERROR, -errno);
	return false;
}

/* Before bytes are carried: 0, or why they cannot be now (-EAGAIN) or ever. */
static int way_settle_once(struct way *way)
{
	int err = way->settled ? 0 : way_settle(way);

	if (!err) {
		way->settled = true;
		way->looks = 0;
	}
	return err;
}

/* All that was passed is written: gives the turn back to the kernel. */
static void way_give_back(struct way *way)
{
	__u64 control = shared_control(way);

	if (control >> 1 == way->carried.bytes &&
	    __atomic_compare_exchange_n(&way->shared->control, &control,
					control & ~(__u64)SOCKMAP_PASSING,
					false, __ATOMIC_ACQ_REL,
					__ATOMIC_ACQUIRE))
		way->settled = false;
}

/* Moves what was passed; sets carried.end, or what the flow waits for. */
static void way_carry(struct sockmap_link *state, int i)
{
	struct flow_state *flow = &state->stream.flow[i];
	struct way *way = &state->way[i];
	int err = 0;

	if (way->judged && !way_passes(way) && !way_peek(state, i))
		return;
	/* Readable and not passed: no place in the order of the stream. */
	if (way->judged && !way_passes(way))
		err = -EIO;
	else if (way->judged)
		err = way_settle_once(way);
	if (err == -EAGAIN) {
		way_wait(state, i);
		return;
	}
	if (err) {
		way_end(way, FLOW_TO_ERROR, err);
		return;
	}
	mover_run(&link_sockmap(state)->stream.mover, state->stream.link,
		  &way->carried, flow);
	__atomic_store_n(&way->shared->sent, way->carried.bytes,
			 __ATOMIC_RELEASE);
	if (way->judged && way->carried.end == FLOW_OPEN &&
	    flow->wait == FLOW_WAIT_READ)
		way_give_back(way);
}

/* Has the verdict seen all bytes of a source whose end of stream is here? */
static bool way_judged_all(const struct way *way)
{
	struct tcp_info info;
	uint64_t judged = shared_redirected(way) + (shared_control(way) >> 1);

	/*
	 * tcpi_bytes_received counts the FIN. A source that was reset, and whose error
	 * somebody else's write has taken, has none: no difference may go below 0.
	 */
	return tcp_counts(way->carried.from, &info) ||
	       info.tcpi_bytes_received <= way->received + judged + 1;
}

/*
 * The source has ended: 0 when all that came from it is written, -EAGAIN when not
 * yet, or why it never will be.
 */
static int way_finish(struct sockmap_link *state, int i)
{
	struct way *way = &state->way[i];

	if (!way->judged || way->carried.end == FLOW_TO_ERROR)
		return 0;
	if (way->carried.end == FLOW_FIN &&
	    shared_control(way) >> 1 != way->carried.bytes) {
		/* Passed bytes wait behind others: the end came too early. */
		way->carried.end = FLOW_OPEN;
		state->stream.flow[i].from_ended = FLOW_OPEN;
		return -EAGAIN;
	}
	if (way->carried.end == FLOW_FIN && !way_judged_all(way))
		return -EAGAIN;
	return way_settle(way);
}

static uint64_t way_moved(const struct way *way)
{
	return way->carried.bytes + shared_redirected(way);
}

static void run(struct stream_link *base, int i)
{
	struct sockmap_link *state = link_of(base);
	struct flow *flow = &base->link->flow[i];
	struct way *way = &state->way[i];
	int err;

	if (way->shared->flags & SOCKMAP_BROKEN)
		way_end(way, FLOW_FROM_ERROR, -EIO);
	if (way->carried.end == FLOW_OPEN)
		way_carry(state, i);
	flow->bytes = way_moved(way);
	if (way->carried.end == FLOW_OPEN)
		return;
	err = way_finish(state, i);
	if (err == -EAGAIN) {
		way_wait(state, i);
		return;
	}
	if (err)
		way_end(way, FLOW_TO_ERROR, err);
	base->flow[i].wait = FLOW_WAIT_NONE;
	flow->bytes = way_moved(way);
	flow->error = way->carried.error;
	flow->end = way->carried.end;
}

/*
 * Reads and forgets what was passed, while the verdict still has the socket and drops
 * the rest: else the kernel frees it after the socket's last accounts were settled (a
 * warning in inet_sock_destruct, and a page that counts as TCP memory for ever), and
 * a later read finds a gap in the sequence (a warning in tcp_recvmsg). 6.18.
 */
static void way_drop_passed(struct sockmap_link *state, const struct way *way)
{
	const struct mover *mover = &link_sockmap(state)->stream.mover;

	if (!way->judged)
		return;
	__atomic_store_n(&way->shared->sent, SOCKMAP_LEFT, __ATOMIC_RELEASE);
	while (recv(way->carried.from, mover->buffer, mover->buffer_len,
		    MSG_DONTWAIT) > 0)
		;
}

static void leave(struct stream_link *base)
{
	struct sockmap_link *state = link_of(base);
	struct sockmap *sockmap = link_sockmap(state);
	const struct sockmap_maps *maps = &sockmap->maps;
	uint32_t first = 2 * state->place;

	if (!state->placed)
		return; /* detached again, to be forgotten */
	state->placed = false;
	timer_cancel(sockmap->stream.mover.loop, &state->timer);
	for (uint32_t i = 0; i < 2; i++) {
		way_drop_passed(state, &state->way[i]);
		sockmap_socket_remove(maps, SOCKMAP_SOURCES, first + i);
		/* Nothing else is judged; the place's next owner counts anew. */
		if (state->way[i].shared)
			base->link->flow[i].bytes = way_moved(&state->way[i]);
	}
	for (uint32_t i = 0; i < 2; i++) {
		sockmap_socket_remove(maps, SOCKMAP_TARGETS, first + i);
		sockmap_cookie_remove(maps, state->way[i].cookie);
	}
	sockmap_place_give(&sockmap->maps, state->place);
}

/* Flow i: from the socket at index i to the one at the other. */
static int way_prepare(struct sockmap_link *state, uint32_t i)
{
	const struct sockmap_maps *maps = &link_sockmap(state)->maps;
	const struct flow *flow = &state->stream.link->flow[i];
	uint32_t index = 2 * state->place + i;
	struct way *way = &state->way[i];
	socklen_t len = sizeof(way->cookie);
	int err;

	way->carried.from = flow->from;
	way->carried.to = flow->to;
	way->shared = &maps->flows[index];
	*way->shared = (struct sockmap_flow){ .target = index ^ 1 };
	if (getsockopt(flow->from, SOL_SOCKET, SO_COOKIE, &way->cookie, &len))
		return -errno;
	err = socket_counts(flow->from, &state->way[!i].written,
			    &way->received);
	if (!err)
		err = sockmap_cookie_put(maps, way->cookie, index);
	if (!err)
		err = sockmap_socket_put(maps, SOCKMAP_TARGETS, index,
					 flow->from);
	return err;
}

static int join(struct stream_link *base)
{
	struct sockmap_link *state = link_of(base);
	struct sockmap *sockmap = (struct sockmap *)base->base.engine;
	int64_t place = sockmap_place_take(&sockmap->maps);
	int err;

	if (place < 0)
		return (int)place;
	state->place = (uint32_t)place;
	state->placed = true;
	err = way_prepare(state, 0);
	if (!err)
		err = way_prepare(state, 1);
	for (uint32_t i = 0; i < 2 && !err; i++) {
		err = sockmap_socket_put(&sockmap->maps, SOCKMAP_SOURCES,
					 2 * state->place + i,
					 base->link->flow[i].from);
		state->way[i].judged = !err;
		if (i)
			err = 0; /* the other is in: this one we carry */
	}
	if (err) {
		leave(base);
		return err;
	}
	for (int i = 0; i < 2; i++)
		way_peek(state, i);
	return 0;
}

static size_t held(const struct engine_link *link, const struct flow *flow)
{
	const struct sockmap_link *state = link->state;
	size_t i = (size_t)(flow - link->flow);
	const struct way *way = &state->way[i];
	uint64_t taken, written = 0, carried = state->stream.flow[i].held;

	if (!way->judged || socket_written(way->carried.to, &written))
		return carried;
	/* Read here, or out of the source's receive queue on the way. */
	taken = way->written + shared_redirected(way) +
		(shared_control(way) >> 1);
	return taken > written ? taken - written : carried;
}

static void refresh(const struct engine_link *link)
{
	struct sockmap_link *state = link->state;
	struct engine_link *owned = state->stream.link;

	if (!state->placed)
		return; /* leave() has counted; the place may be another's */
	for (int i = 0; i < 2; i++) {
		const struct way *way = &state->way[i];
		uint64_t seen_ms = __atomic_load_n(&way->shared->seen_ns,
						   __ATOMIC_RELAXED) /
				   1000000;

		owned->flow[i].bytes = way_moved(way);
		if (seen_ms > owned->active_ms)
			owned->active_ms = seen_ms;
	}
}

static const struct stream_hooks hooks = {
	.link_size = sizeof(struct sockmap_link),
	.join = join,
	.run = run,
	.leave = leave,
};

static int open_sockmap(struct loop *loop, const struct engine_params *params,
			struct engine **out)
{
	struct sockmap *sockmap;
	int err;

	if (!params->sockmap_fds)
		return -EOPNOTSUPP;
	sockmap = calloc(1, sizeof(*sockmap));
	if (!sockmap)
		return -ENOMEM;
	err = sockmap_maps_open(&sockmap->maps, params->sockmap_fds);
	if (err)
		goto free_sockmap;
	err = stream_init(&sockmap->stream, loop, NULL, params);
	if (err)
		goto close_maps;
	sockmap->stream.hooks = &hooks;
	*out = &sockmap->stream.engine;
	return 0;

close_maps:
	sockmap_maps_close(&sockmap->maps);
free_sockmap:
	free(sockmap);
	return err;
}

static void close_sockmap(struct engine *engine)
{
	sockmap_maps_close(&((struct sockmap *)engine)->maps);
	stream_close(engine);
}

static int attach(struct engine *engine, struct engine_link *link)
{
	return stream_attach(engine, link, &engine_sockmap);
}

const struct engine_ops engine_sockmap = {
	.name = "sockmap",
	.open = open_sockmap,
	.close = close_sockmap,
	.attach = attach,
	.detach = stream_detach,
	.held = held,
	.refresh = refresh,
};
