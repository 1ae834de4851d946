/* SPDX-License-Identifier: BSD-2-Clause */
/* Engines below the pair: links, ends, detaching, pipes running out. */
#include "unit/rig.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "engine/pipe_pool.h"
#include "engine/stream.h"
#include "unit/failalloc.h"

#define MIB (1u << 20)

struct rig {
	struct loop *loop;
	struct engine_set *set;
	struct end end[2];
	int leg[2];
	struct engine_link link; /* flow[i] goes to end[i] */
	int ended[2], detached;
	bool detach_on_end;
	bool inside;
};

static void on_end(struct engine_link *link, struct flow *flow)
{
	struct rig *rig = list_entry(link, struct rig, link);

	assert_false(rig->inside);
	assert_int_not_equal(flow->end, FLOW_OPEN);
	rig->ended[flow - link->flow]++;
	if (rig->detach_on_end) {
		rig->inside = true;
		engine_link_detach(link);
		rig->inside = false;
	}
}

static void on_detached(struct engine_link *link)
{
	struct rig *rig = list_entry(link, struct rig, link);

	assert_false(rig->inside);
	assert_string_equal(engine_link_name(link), "-");
	rig->detached++;
}

static void rig_open(struct rig *rig, const char *engine,
		     const struct engine_params *params)
{
	int err;

	assert_int_equal(loop_new(&rig->loop), 0);
	rig->set = rig_set(rig->loop, engine, params, &err);
	assert_non_null(rig->set);
}

static void rig_join(struct rig *rig)
{
	ends_init(rig->end, rig->leg);
	rig->link = (struct engine_link){
		.on_end = on_end,
		.on_detached = on_detached,
	};
	rig->ended[0] = rig->ended[1] = rig->detached = 0;
	for (int i = 0; i < 2; i++) {
		rig->link.flow[i].from = rig->leg[!i];
		rig->link.flow[i].to = rig->leg[i];
	}
}

static int attach(struct rig *rig)
{
	int err;

	rig->inside = true;
	err = engine_set_attach(rig->set, &rig->link);
	rig->inside = false;
	return err;
}

static void rig_part(struct rig *rig)
{
	for (int i = 0; i < 2; i++) {
		fd_close(&rig->leg[i]);
		fd_close(&rig->end[i].fd);
	}
}

static int setup(void **state)
{
	struct engine_params params = rig_params();
	const char *engine = *state;
	struct rig *rig = calloc(1, sizeof(*rig));

	if (!rig)
		return -1;
	rig_open(rig, engine, &params);
	rig_join(rig);
	*state = rig;
	return 0;
}

static int teardown(void **state)
{
	struct rig *rig = *state;

	failalloc_disarm();
	engine_set_free(rig->set);
	loop_free(rig->loop);
	rig_part(rig);
	free(rig);
	return 0;
}

static void detach(struct rig *rig)
{
	rig->inside = true;
	engine_link_detach(&rig->link);
	rig->inside = false;
	RIG_UNTIL(rig->loop, rig->end, rig->detached);
	for (int i = 0; i < 3; i++)
		loop_tick(rig->loop, 0);
	assert_int_equal(rig->detached, 1);
}

static void mask_follows_from_what_flows_wait_for(void **state)
{
	static const struct {
		enum flow_wait reads, writes;
		uint32_t mask;
	} rows[] = {
		{ FLOW_WAIT_READ, FLOW_WAIT_READ, EPOLLIN },
		{ FLOW_WAIT_READ, FLOW_WAIT_WRITE, EPOLLIN | EPOLLOUT },
		{ FLOW_WAIT_READ, FLOW_WAIT_NONE, EPOLLIN },
		{ FLOW_WAIT_WRITE, FLOW_WAIT_READ, 0 },
		{ FLOW_WAIT_WRITE, FLOW_WAIT_WRITE, EPOLLOUT },
		{ FLOW_WAIT_WRITE, FLOW_WAIT_NONE, 0 },
		{ FLOW_WAIT_NONE, FLOW_WAIT_READ, 0 },
		{ FLOW_WAIT_NONE, FLOW_WAIT_WRITE, EPOLLOUT },
		{ FLOW_WAIT_NONE, FLOW_WAIT_NONE, 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(stream_mask(rows[i].reads, rows[i].writes),
				 rows[i].mask);
}

/* Feeds len bytes to a flow and runs it until all of it has come out. */
static void mover_feed(struct mover *mover, struct end end[2], size_t len,
		       struct engine_link *link, struct flow_state *state)
{
	struct flow *flow = &link->flow[0];

	end[0].to_send = end[0].sent + len;
	while (end[0].sent < end[0].to_send)
		end_send(&end[0], len);
	wait_acked(end[0].fd);
	while (end[1].got < end[0].sent) {
		mover_run(mover, link, flow, state);
		assert_int_equal(state->wait, FLOW_WAIT_READ);
		assert_null(state->pipe);
		assert_null(state->residual);
		assert_int_equal(state->held, 0);
		end_recv(&end[1], PUMP_CHUNK);
	}
}

static int receive_buffer(int fd)
{
	int value = 0;
	socklen_t len = sizeof(value);

	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &value, &len),
			 0);
	return value;
}

static void mover_bounds_the_receive_buffer_of_bulk_flows_only(void **state)
{
	const struct engine_params params = { .copy_buffer = 1 << 16 };
	struct flow_state flow_state = { 0 };
	struct engine_link link = { 0 };
	struct mover mover;
	struct loop *loop;
	struct end end[2];
	int leg[2], before;

	(void)state;
	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(mover_init(&mover, loop, NULL, &params), 0);
	assert_int_equal(mover.receive_buffer, 0);
	mover.receive_buffer = 70000; /* whatever this kernel's limits are */
	ends_init(end, leg);
	link.flow[0].from = leg[0];
	link.flow[0].to = leg[1];
	before = receive_buffer(leg[0]);
	mover_feed(&mover, end, 100, &link, &flow_state);
	assert_int_equal(receive_buffer(leg[0]), before);
	mover_feed(&mover, end, 60000, &link, &flow_state);
	assert_int_equal(receive_buffer(leg[0]), 140000);
	mover_drop(&mover, &link.flow[0], &flow_state);
	mover_destroy(&mover);
	loop_free(loop);
	for (int i = 0; i < 2; i++) {
		fd_close(&end[i].fd);
		fd_close(&leg[i]);
	}
}

static void mover_gives_a_near_source_less_room(void **state)
{
	const int most = 3 << 20;

	(void)state;
	assert_int_equal(mover_room(most, 0), 512 << 10);
	assert_int_equal(mover_room(most, 100), (512 << 10) + 500000);
	assert_int_equal(mover_room(most, 525), most);
	assert_int_equal(mover_room(most, UINT32_MAX), most);
	assert_int_equal(mover_room(70000, 0), 70000);
	assert_int_equal(mover_room(1 << 28, 50000), 250524288);
}

static void mover_splices_large_reads_and_copies_small_ones(void **state)
{
	const struct engine_params params = { .copy_buffer = 1 << 16 };
	struct flow_state flow_state = { 0 };
	struct engine_link link = { 0 };
	struct pipe_pool *pool;
	struct mover mover;
	struct loop *loop;
	struct end end[2];
	int leg[2];

	(void)state;
	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(pipe_pool_new(loop, 1 << 20, 4, &pool), 0);
	assert_int_equal(mover_init(&mover, loop, pool, &params), 0);
	ends_init(end, leg);
	link.flow[0].from = leg[0];
	link.flow[0].to = leg[1];
	mover_feed(&mover, end, 100, &link, &flow_state);
	assert_false(flow_state.splicing);
	mover_feed(&mover, end, 60000, &link, &flow_state);
	assert_true(flow_state.splicing);
	mover_feed(&mover, end, 100, &link, &flow_state);
	assert_true(flow_state.splicing); /* one small read is no trend */
	for (int i = 0; i < 20; i++)
		mover_feed(&mover, end, 100, &link, &flow_state);
	assert_false(flow_state.splicing);
	/* Stuck: now it does hold a pipe, and waits for the right thing. */
	end[0].to_send = 64 * MIB;
	while (flow_state.wait == FLOW_WAIT_READ) {
		end_send(&end[0], PUMP_CHUNK);
		mover_run(&mover, &link, &link.flow[0], &flow_state);
	}
	assert_int_equal(flow_state.wait, FLOW_WAIT_WRITE);
	assert_true(flow_state.held > 0);
	assert_true(flow_state.pipe || flow_state.residual);
	mover_drop(&mover, &link.flow[0], &flow_state);
	mover_destroy(&mover);
	loop_free(loop);
	for (int i = 0; i < 2; i++) {
		fd_close(&end[i].fd);
		fd_close(&leg[i]);
	}
}

struct refusals {
	int count;
	const char *name;
	int error;
};

static void refused(void *arg, const char *name, int error)
{
	struct refusals *refusals = arg;

	refusals->count++;
	refusals->name = name;
	refusals->error = error;
}

static void set_refuses_bad_orders(void **state)
{
	static const char *const unknown[] = { "copy", "teleport" };
	static const char *const twice[] = { "copy", "copy" };
	struct engine_params params = rig_params();
	struct engine_set *set = NULL;
	struct loop *loop;

	(void)state;
	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(engine_set_new(loop, &params, unknown, 2, NULL, NULL,
					&set),
			 -EINVAL);
	assert_int_equal(engine_set_new(loop, &params, twice, 2, NULL, NULL,
					&set),
			 -EINVAL);
	assert_int_equal(engine_set_new(loop, &params, twice, 0, NULL, NULL,
					&set),
			 -ENODEV);
	assert_null(set);
	engine_set_free(NULL);
	loop_free(loop);
}

/* Runs with no descriptor free: splice and uring cannot be opened. */
static void set_leaves_out_what_cannot_be_opened(void **state)
{
	static const char *const order[] = { "uring", "copy" };
	struct engine_params params = rig_params();
	struct refusals refusals = { 0 };
	struct engine_usage usage;
	struct engine_set *set = NULL;
	struct rlimit was, none;
	struct loop *loop;
	int probe;

	(void)state;
	assert_int_equal(loop_new(&loop), 0);
	probe = dup(0);
	assert_true(probe >= 0);
	close(probe);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	none = was;
	none.rlim_cur = (rlim_t)probe;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(engine_set_new(loop, &params, order, 1, refused,
					&refusals, &set),
			 -ENODEV);
	assert_int_equal(engine_set_new(loop, &params, order, 2, refused,
					&refusals, &set),
			 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	assert_int_equal(refusals.count, 2);
	assert_string_equal(refusals.name, "uring");
	assert_true(refusals.error < 0);
	assert_true(engine_set_usage(set, 0, &usage));
	assert_string_equal(usage.name, "uring");
	assert_int_equal(usage.position, 1);
	assert_int_equal(usage.error, refusals.error);
	assert_true(engine_set_usage(set, 1, &usage));
	assert_string_equal(usage.name, "copy");
	assert_int_equal(usage.error, 0);
	assert_false(engine_set_usage(set, 2, &usage));
	engine_set_free(set);
	loop_free(loop);
}

static void usage_counts_links(void **state)
{
	struct rig *rig = *state;
	struct engine_usage usage;

	assert_string_equal(engine_link_name(&rig->link), "-");
	assert_int_equal(engine_link_held(&rig->link, &rig->link.flow[0]), 0);
	for (uint64_t round = 1; round <= 3; round++) {
		rig->detached = 0;
		assert_int_equal(attach(rig), 0);
		assert_true(engine_set_usage(rig->set, 0, &usage));
		assert_int_equal(usage.links_now, 1);
		assert_int_equal(usage.links_total, round);
		assert_string_equal(engine_link_name(&rig->link), usage.name);
		detach(rig);
		assert_true(engine_set_usage(rig->set, 0, &usage));
		assert_int_equal(usage.links_now, 0);
	}
}

static void fin_ends_a_flow_after_its_bytes(void **state)
{
	struct rig *rig = *state;

	rig->end[0].to_send = MIB;
	rig->end[0].fin = true;
	assert_int_equal(attach(rig), 0);
	RIG_UNTIL(rig->loop, rig->end, rig->ended[1]);
	assert_int_equal(rig->link.flow[1].end, FLOW_FIN);
	assert_int_equal(rig->link.flow[1].bytes, MIB);
	assert_int_equal(rig->link.flow[0].end, FLOW_OPEN);
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].got == MIB);
	/* Engines shut nothing down. */
	assert_false(rig->end[1].eof);
	rig->end[1].to_send = MIB;
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].got == MIB);
	detach(rig);
	assert_int_equal(rig->ended[0], 0);
	assert_int_equal(rig->ended[1], 1);
}

static void reset_of_the_source_ends_a_flow_after_its_bytes(void **state)
{
	struct rig *rig = *state;

	rig->end[0].to_send = 40000;
	end_send(&rig->end[0], 40000);
	wait_acked(rig->end[0].fd);
	end_reset(&rig->end[0]);
	wait_poll(rig->leg[0], POLLHUP);
	rig->detach_on_end = true;
	assert_int_equal(attach(rig), 0);
	RIG_UNTIL(rig->loop, rig->end, rig->detached);
	assert_int_equal(rig->link.flow[1].end, FLOW_FROM_ERROR);
	assert_int_equal(rig->link.flow[1].error, -ECONNRESET);
	assert_int_equal(rig->link.flow[1].bytes, 40000);
	assert_int_equal(rig->ended[0] + rig->ended[1], 1);
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].got == 40000);
}

static void dead_target_ends_a_flow(void **state)
{
	struct rig *rig = *state;

	rig->end[0].to_send = 64 * MIB;
	rig->end[1].deaf = true;
	assert_int_equal(attach(rig), 0);
	rig_stuff(rig->loop, rig->end);
	end_reset(&rig->end[1]);
	RIG_UNTIL(rig->loop, rig->end, rig->ended[1] && rig->ended[0]);
	assert_int_equal(rig->link.flow[1].end, FLOW_TO_ERROR);
	assert_true(rig->link.flow[1].error < 0);
	assert_int_equal(engine_link_held(&rig->link, &rig->link.flow[1]), 0);
	detach(rig);
}

static void detach_drops_what_is_held(void **state)
{
	struct rig *rig = *state;
	uint64_t bytes;

	rig->end[0].to_send = 64 * MIB;
	rig->end[1].deaf = true;
	assert_int_equal(attach(rig), 0);
	rig_stuff(rig->loop, rig->end);
	assert_true(engine_link_held(&rig->link, &rig->link.flow[1]) > 0);
	assert_int_equal(engine_link_held(&rig->link, &rig->link.flow[0]), 0);
	bytes = rig->link.flow[1].bytes;
	detach(rig);
	rig->end[1].deaf = false;
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].got == bytes);
	assert_int_equal(rig->ended[0] + rig->ended[1], 0);
	/* A held pipe did not go back to the pool with bytes in it. */
	rig_part(rig);
	rig_join(rig);
	rig->end[0].to_send = 2 * MIB;
	assert_int_equal(attach(rig), 0);
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].got == 2 * MIB);
	detach(rig);
}

static void idle_link_holds_nothing(void **state)
{
	struct rig *rig = *state;

	rig->end[0].to_send = rig->end[1].to_send = 4 * MIB;
	assert_int_equal(attach(rig), 0);
	RIG_UNTIL(rig->loop, rig->end,
		  rig->end[0].got == 4 * MIB && rig->end[1].got == 4 * MIB);
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			engine_link_held(&rig->link, &rig->link.flow[i]), 0);
	assert_true(ticks_in(rig->loop, 100) < 20);
	detach(rig);
}

static void forgets_a_link_at_once(void **state)
{
	struct rig *rig = *state;

	for (int round = 0; round < 3; round++) {
		if (round) {
			rig_part(rig);
			rig_join(rig);
		}
		rig->end[0].to_send = 64 * MIB;
		rig->end[1].deaf = true;
		assert_int_equal(attach(rig), 0);
		if (round)
			rig_stuff(rig->loop, rig->end);
		if (round == 2)
			engine_link_detach(&rig->link);
		rig->link.on_detached = NULL;
		engine_link_detach(&rig->link);
		assert_string_equal(engine_link_name(&rig->link), "-");
		memset(&rig->link, 0xff, sizeof(rig->link));
		for (int i = 0; i < 5; i++)
			loop_tick(rig->loop, 1);
	}
	assert_int_equal(rig->detached, 0);
}

/* Takes its time, loses nothing, and leaves off while it waits for its turn. */
static void a_rate_holds_and_loses_nothing(void **state)
{
	struct rig *rig = *state;
	struct rate_bucket bucket = { 0 };
	uint64_t delays = 0, until, begin = clock_ms();
	struct rates rates = { .delays = &delays };

	/* Half a second's bytes, of which the credit passes at once. */
	rates_add(&rates, &bucket, 2 * 8 * MIB);
	rig->link.flow[1].rates = &rates;
	rig->end[0].to_send = MIB;
	rig->end[0].fin = true;
	if (attach(rig)) {
		assert_int_equal(attach(rig), -EOPNOTSUPP); /* sockmap */
		return;
	}
	rig->end[1].to_send = MIB; /* no rate this way */
	RIG_UNTIL(rig->loop, rig->end, rig->end[0].got == MIB);
	assert_true(rig->end[1].got < MIB);
	RIG_UNTIL(rig->loop, rig->end, rig->end[1].got == MIB);
	assert_true(clock_ms() - begin >= 350);
	assert_true(delays > 0);
	RIG_UNTIL(rig->loop, rig->end, rig->ended[1]);
	assert_int_equal(rig->link.flow[1].end, FLOW_FIN);
	detach(rig);
	/* A turn that will not come any more is given back. */
	rig_part(rig);
	rig_join(rig);
	rates.rate[0].bits_per_s = 64000;
	rig->link.flow[1].rates = &rates;
	rig->end[0].to_send = MIB;
	assert_int_equal(attach(rig), 0);
	delays = 0;
	RIG_UNTIL(rig->loop, rig->end, delays);
	until = atomic_load(&bucket.until_ns);
	detach(rig);
	/* 2048 bytes at 64 kbit/s. */
	assert_int_equal(until - atomic_load(&bucket.until_ns), 256000000);
	assert_true(rig->end[1].got < 64 * 1024);
}

static void attach_one(void *arg)
{
	struct rig *rig = arg;

	rig_join(rig);
	if (attach(rig) < 0) {
		assert_true(failalloc_hit());
		assert_string_equal(engine_link_name(&rig->link), "-");
	} else {
		rig->end[0].to_send = 100000;
		RIG_UNTIL(rig->loop, rig->end,
			  rig->end[1].got == 100000 || rig->ended[1]);
		assert_true(failalloc_hit() || !rig->ended[1]);
		detach(rig);
	}
	rig_part(rig);
}

static void attach_survives_failing_allocations(void **state)
{
	struct rig *rig = *state;

	rig_part(rig);
	assert_true(failalloc_sweep(attach_one, rig) >= 1);
}

static void open_one(void *arg)
{
	static const char *const order[] = { "splice", "uring", "copy" };
	struct engine_params params = rig_params();
	struct engine_set *set = NULL;
	int err = engine_set_new(arg, &params, order, 3, NULL, NULL, &set);

	if (err)
		assert_true(failalloc_hit());
	engine_set_free(set);
}

static void opening_survives_failing_allocations(void **state)
{
	struct loop *loop;

	(void)state;
	assert_int_equal(loop_new(&loop), 0);
	assert_true(failalloc_sweep(open_one, loop) >= 5);
	loop_free(loop);
}

/* One pipe for five flows that are all stuck: the others copy. */
static void relays_with_one_pipe_for_all(void **state)
{
	struct engine_params params = rig_params();
	const char *engine = *state;
	struct rig *rigs = calloc(5, sizeof(*rigs));

	assert_non_null(rigs);
	params.pipes = 1;
	rig_open(&rigs[0], engine, &params);
	for (int k = 0; k < 5; k++) {
		struct rig *rig = &rigs[k];

		rig->loop = rigs[0].loop;
		rig->set = rigs[0].set;
		rig_join(rig);
		rig->end[0].to_send = 256 * (uint64_t)MIB;
		rig->end[1].deaf = true;
		assert_int_equal(attach(rig), 0);
	}
	for (int k = 0; k < 5; k++) {
		rig_stuff(rigs[k].loop, rigs[k].end);
		assert_true(engine_link_held(&rigs[k].link,
					     &rigs[k].link.flow[1]) > 0);
		rigs[k].end[0].to_send = rigs[k].end[0].sent;
	}
	assert_true(ticks_in(rigs[0].loop, 100) < 30);
	for (int k = 0; k < 5; k++) {
		rigs[k].end[1].deaf = false;
		RIG_UNTIL(rigs[k].loop, rigs[k].end,
			  rigs[k].end[1].got == rigs[k].end[0].sent);
		detach(&rigs[k]);
		rig_part(&rigs[k]);
	}
	engine_set_free(rigs[0].set);
	loop_free(rigs[0].loop);
	free(rigs);
}

/* Past the quota: small pipes are no pipes, large enough ones may be. */
static void pool_refuses_small_pipes(void)
{
	struct pipe_pool *pool;
	struct loop *loop;
	struct pipe *pipe;

	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(pipe_pool_new(loop, 1 << 20, 4, &pool), 0);
	pipe = pipe_pool_get(pool);
	assert_true(!pipe || pipe->size >= 64 << 10);
	pipe_pool_put(pool, pipe);
	pipe_pool_free(pool);
	loop_free(loop);
}

/* Bulk through one engine as a user whose pipe quota is used up. */
static int quota_child(const char *engine)
{
	struct engine_params params = rig_params();
	struct rig rig = { 0 };
	size_t pages = 0;
	int fds[2];

	if (getuid() == 0 && (setgid(65534) || setuid(65534)))
		return 2;
	for (int i = 0; i < 128 && pages < 20000; i++) {
		if (pipe2(fds, O_CLOEXEC) < 0)
			break;
		if (fcntl(fds[0], F_SETPIPE_SZ, 1 << 20) > 0)
			pages += 256;
	}
	if (pages >= 20000)
		return 3; /* there is no quota here */
	pool_refuses_small_pipes();
	rig_open(&rig, engine, &params);
	rig_join(&rig);
	rig.end[0].to_send = rig.end[1].to_send = 4 * MIB;
	assert_int_equal(attach(&rig), 0);
	RIG_UNTIL(rig.loop, rig.end,
		  rig.end[0].got == 4 * MIB && rig.end[1].got == 4 * MIB);
	detach(&rig);
	engine_set_free(rig.set);
	loop_free(rig.loop);
	return 0;
}

static void relays_when_the_pipe_quota_is_used_up(void **state)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(quota_child(*state));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 2 || WEXITSTATUS(status) == 3) {
		print_message("# no pipe quota to use up\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void pool_keeps_its_limit_and_takes_pipes_back(void **state)
{
	struct pipe_pool *pool;
	struct pipe *a, *b, *c;
	struct loop *loop;
	uint8_t byte = 1;

	(void)state;
	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(pipe_pool_new(loop, 128 << 10, 2, &pool), 0);
	a = pipe_pool_get(pool);
	b = pipe_pool_get(pool);
	assert_non_null(a);
	assert_non_null(b);
	assert_true(a->size >= 64 << 10);
	assert_null(pipe_pool_get(pool));
	pipe_pool_put(pool, a);
	assert_ptr_equal(pipe_pool_get(pool), a);
	/* One with bytes in it is not handed out again. */
	assert_int_equal(write(a->wr, &byte, 1), 1);
	pipe_pool_drop(pool, a);
	c = pipe_pool_get(pool);
	assert_non_null(c);
	assert_int_equal(read(c->rd, &byte, 1), -1);
	assert_int_equal(errno, EAGAIN);
	pipe_pool_put(pool, b);
	pipe_pool_put(pool, c);
	pipe_pool_put(pool, NULL);
	pipe_pool_drop(pool, NULL);
	pipe_pool_free(pool);
	pipe_pool_free(NULL);
	loop_free(loop);
}

static void pool_asks_again_after_a_refusal(void **state)
{
	struct pipe *a, *b = NULL;
	struct pipe_pool *pool;
	struct rlimit was, none;
	struct loop *loop;
	uint64_t start;
	int probe;

	(void)state;
	assert_int_equal(loop_new(&loop), 0);
	assert_int_equal(pipe_pool_new(loop, 128 << 10, 8, &pool), 0);
	a = pipe_pool_get(pool);
	assert_non_null(a);
	probe = dup(0);
	close(probe);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	none = was;
	none.rlim_cur = (rlim_t)probe;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_null(pipe_pool_get(pool));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	assert_null(pipe_pool_get(pool));
	for (start = clock_ms(); !b && clock_ms() - start < WAIT_MS;) {
		loop_tick(loop, 5);
		b = pipe_pool_get(pool);
	}
	assert_non_null(b);
	pipe_pool_put(pool, a);
	pipe_pool_put(pool, b);
	pipe_pool_free(pool);
	loop_free(loop);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest plain[] = {
		cmocka_unit_test(mask_follows_from_what_flows_wait_for),
		cmocka_unit_test(
			mover_bounds_the_receive_buffer_of_bulk_flows_only),
		cmocka_unit_test(mover_gives_a_near_source_less_room),
		cmocka_unit_test(
			mover_splices_large_reads_and_copies_small_ones),
		cmocka_unit_test(set_refuses_bad_orders),
		cmocka_unit_test(set_leaves_out_what_cannot_be_opened),
		cmocka_unit_test(opening_survives_failing_allocations),
		cmocka_unit_test(pool_keeps_its_limit_and_takes_pipes_back),
		cmocka_unit_test(pool_asks_again_after_a_refusal),
	};
	const struct CMUnitTest cases[] = {
		CASE(usage_counts_links),
		CASE(fin_ends_a_flow_after_its_bytes),
		CASE(reset_of_the_source_ends_a_flow_after_its_bytes),
		CASE(dead_target_ends_a_flow),
		CASE(detach_drops_what_is_held),
		CASE(idle_link_holds_nothing),
		CASE(forgets_a_link_at_once),
		CASE(a_rate_holds_and_loses_nothing),
		CASE(attach_survives_failing_allocations),
		cmocka_unit_test(relays_with_one_pipe_for_all),
		cmocka_unit_test(relays_when_the_pipe_quota_is_used_up),
	};

	return rig_run("engine", plain, sizeof(plain) / sizeof(plain[0]), cases,
		       sizeof(cases) / sizeof(cases[0]));
}
