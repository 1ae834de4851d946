/* SPDX-License-Identifier: BSD-2-Clause */
/* The event loop: watches, timers, deferred work, letters between threads. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "loop/loop.h"
#include "unit/failalloc.h"

struct probe {
	struct loop *loop;
	struct watch watch, *victim;
	struct timer timer;
	struct deferred deferred;
	int fired;
	uint64_t fired_ms;
};

static int setup(void **state)
{
	struct loop *loop;

	if (loop_new(&loop))
		return -1;
	*state = loop;
	return 0;
}

static int teardown(void **state)
{
	loop_free(*state);
	return 0;
}

static void timer_fired(struct timer *timer)
{
	struct probe *probe = list_entry(timer, struct probe, timer);

	probe->fired++;
	probe->fired_ms = clock_ms();
}

static void fires_timer_once_and_not_early(void **state)
{
	struct probe probe = { .loop = *state };
	uint64_t start = clock_ms();

	timer_arm(probe.loop, &probe.timer, 35, timer_fired);
	while (!probe.fired)
		loop_tick(probe.loop, -1);
	assert_true(probe.fired_ms >= start + 35);
	assert_false(probe.timer.armed);
	for (uint64_t end = clock_ms() + 50; clock_ms() < end;)
		loop_tick(probe.loop, 10);
	assert_int_equal(probe.fired, 1);
}

static void rearms_and_cancels_timers(void **state)
{
	struct probe probe = { .loop = *state };
	uint64_t start = clock_ms();

	timer_arm(probe.loop, &probe.timer, 100000, timer_fired);
	timer_arm(probe.loop, &probe.timer, 20, timer_fired);
	while (!probe.fired && clock_ms() < start + 5000)
		loop_tick(probe.loop, 5000);
	assert_int_equal(probe.fired, 1);
	timer_arm(probe.loop, &probe.timer, 20, timer_fired);
	timer_cancel(probe.loop, &probe.timer);
	timer_cancel(probe.loop, &probe.timer);
	for (uint64_t end = clock_ms() + 60; clock_ms() < end;)
		loop_tick(probe.loop, 10);
	assert_int_equal(probe.fired, 1);
}

static void arms_sooner_and_never_later(void **state)
{
	struct probe probe = { .loop = *state };
	uint64_t due;

	timer_arm_sooner(probe.loop, &probe.timer, 20, timer_fired);
	assert_true(probe.timer.armed);
	due = probe.timer.due_ms;
	timer_arm_sooner(probe.loop, &probe.timer, 10000, timer_fired);
	assert_true(probe.timer.due_ms == due);
	timer_arm_sooner(probe.loop, &probe.timer, 10, timer_fired);
	assert_true(probe.timer.due_ms == due - 10);
	while (!probe.fired)
		loop_tick(probe.loop, -1);
	/* What has fired says nothing of when it is due next. */
	timer_arm_sooner(probe.loop, &probe.timer, 10000, timer_fired);
	assert_true(probe.timer.armed);
	timer_cancel(probe.loop, &probe.timer);
}

static struct probe *other_probe;

static void cancel_other(struct timer *timer)
{
	struct probe *probe = list_entry(timer, struct probe, timer);

	probe->fired++;
	timer_cancel(probe->loop, &other_probe->timer);
}

static void lets_a_timer_cancel_one_due_with_it(void **state)
{
	struct probe first = { .loop = *state }, second = { .loop = *state };

	other_probe = &second;
	timer_arm(first.loop, &first.timer, 15, cancel_other);
	timer_arm(first.loop, &second.timer, 15, timer_fired);
	while (!first.fired)
		loop_tick(first.loop, -1);
	for (uint64_t end = clock_ms() + 40; clock_ms() < end;)
		loop_tick(first.loop, 10);
	assert_int_equal(second.fired, 0);
}

static void keeps_timers_of_a_later_turn(void **state)
{
	/* Same slot of the wheel as a timer due now, one turn (40.96 s) on. */
	struct probe near = { .loop = *state }, far = { .loop = *state };

	timer_arm(near.loop, &near.timer, 30, timer_fired);
	timer_arm(near.loop, &far.timer, 30 + 40960, timer_fired);
	while (!near.fired)
		loop_tick(near.loop, -1);
	assert_int_equal(far.fired, 0);
	assert_true(far.timer.armed);
	timer_cancel(near.loop, &far.timer);
}

static void read_one(struct watch *watch, uint32_t events)
{
	struct probe *probe = list_entry(watch, struct probe, watch);
	char byte;

	assert_true(events & EPOLLIN);
	assert_int_equal(read(watch->fd, &byte, 1), 1);
	probe->fired++;
	if (probe->victim)
		watch_del(probe->loop, probe->victim);
}

static void delivers_nothing_to_a_watch_removed_in_the_batch(void **state)
{
	struct probe a = { .loop = *state }, b = { .loop = *state };
	int one[2], two[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, one), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, two), 0);
	a.victim = &b.watch;
	b.victim = &a.watch;
	assert_int_equal(watch_add(a.loop, &a.watch, one[0], EPOLLIN, read_one),
			 0);
	assert_int_equal(watch_add(a.loop, &b.watch, two[0], EPOLLIN, read_one),
			 0);
	assert_int_equal(write(one[1], "x", 1), 1);
	assert_int_equal(write(two[1], "x", 1), 1);
	loop_tick(a.loop, 1000);
	loop_tick(a.loop, 0);
	assert_int_equal(a.fired + b.fired, 1);
	watch_del(a.loop, &a.watch);
	watch_del(a.loop, &b.watch);
	for (int i = 0; i < 2; i++) {
		close(one[i]);
		close(two[i]);
	}
}

/* A watched socket with a byte to read, declared by watch_own. */
static void own_open(struct probe *probe, int fds[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(watch_add(probe->loop, &probe->watch, fds[0], EPOLLIN,
				   read_one),
			 0);
	watch_own(probe->loop, &probe->watch);
}

static void hands_an_own_descriptor_on(void **state)
{
	struct probe a = { .loop = *state }, b = { .loop = *state };
	int fds[2];

	own_open(&a, fds);
	/* Twice, as from a stream to a preface to an engine. */
	for (int i = 0; i < 2; i++) {
		watch_del(a.loop, i ? &b.watch : &a.watch);
		assert_int_equal(watch_add(b.loop, &b.watch, fds[0], EPOLLIN,
					   read_one),
				 0);
	}
	loop_tick(b.loop, 1000);
	assert_int_equal(a.fired, 0);
	assert_int_equal(b.fired, 1);
	watch_close(b.loop, &b.watch);
	watch_close(b.loop, &b.watch);
	close(fds[1]);
}

static void forgets_an_own_descriptor_that_stays_open(void **state)
{
	struct probe probe = { .loop = *state }, again = { .loop = *state };
	int fds[2];

	own_open(&probe, fds);
	watch_del(probe.loop, &probe.watch);
	loop_tick(probe.loop, 0);
	assert_int_equal(probe.fired, 0);
	assert_int_equal(watch_add(again.loop, &again.watch, fds[0], EPOLLIN,
				   read_one),
			 0);
	loop_tick(again.loop, 1000);
	assert_int_equal(again.fired, 1);
	watch_del(again.loop, &again.watch);
	close(fds[0]);
	close(fds[1]);
}

/* The number of a closed descriptor comes back as another file at once. */
static void watches_a_number_that_was_reused(void **state)
{
	struct probe old = { .loop = *state }, fresh = { .loop = *state };
	int fds[2], others[2];

	own_open(&old, fds);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, others), 0);
	assert_int_equal(write(others[1], "y", 1), 1);
	watch_del(old.loop, &old.watch);
	assert_int_equal(dup2(others[0], fds[0]), fds[0]);
	close(others[0]);
	assert_int_equal(watch_add(fresh.loop, &fresh.watch, fds[0], EPOLLIN,
				   read_one),
			 0);
	loop_tick(fresh.loop, 1000);
	assert_int_equal(old.fired, 0);
	assert_int_equal(fresh.fired, 1);
	watch_close(fresh.loop, &fresh.watch);
	close(fds[1]);
	close(others[1]);
}

/* Who breaks the promise of watch_own hears nothing that is not its own. */
static void delivers_nothing_for_a_copy_that_stays(void **state)
{
	struct probe probe = { .loop = *state };
	int fds[2], copy;

	own_open(&probe, fds);
	copy = dup(fds[0]);
	assert_true(copy >= 0);
	watch_close(probe.loop, &probe.watch);
	loop_tick(probe.loop, 0);
	assert_int_equal(probe.fired, 0);
	close(copy);
	close(fds[1]);
}

static void unwatches_many_own_descriptors_at_once(void **state)
{
	enum {
		COUNT = 400
	};
	static struct probe probes[COUNT];
	static int fds[COUNT][2];

	for (int i = 0; i < COUNT; i++) {
		probes[i] = (struct probe){ .loop = *state };
		own_open(&probes[i], fds[i]);
	}
	for (int i = 0; i < COUNT; i++)
		watch_del(*state, &probes[i].watch);
	loop_tick(*state, 0);
	for (int i = 0; i < COUNT; i++) {
		assert_int_equal(probes[i].fired, 0);
		close(fds[i][0]);
		close(fds[i][1]);
	}
}

static void closes_a_watched_descriptor(void **state)
{
	struct probe probe = { .loop = *state };
	int fds[2], copy;

	/* Not its own: a copy keeps the file, and must not be heard of. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	copy = dup(fds[0]);
	assert_true(copy >= 0);
	assert_int_equal(watch_add(probe.loop, &probe.watch, fds[0], EPOLLIN,
				   read_one),
			 0);
	watch_close(probe.loop, &probe.watch);
	assert_int_equal(probe.watch.fd, -1);
	assert_int_equal(write(fds[1], "x", 1), 1);
	loop_tick(probe.loop, 0);
	assert_int_equal(probe.fired, 0);
	close(copy);
	close(fds[1]);
}

static void changes_interest(void **state)
{
	struct probe probe = { .loop = *state };
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(
		watch_add(probe.loop, &probe.watch, fds[0], 0, read_one), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	loop_tick(probe.loop, 0);
	assert_int_equal(probe.fired, 0);
	watch_set(probe.loop, &probe.watch, EPOLLIN);
	loop_tick(probe.loop, 1000);
	assert_int_equal(probe.fired, 1);
	watch_del(probe.loop, &probe.watch);
	watch_del(probe.loop, &probe.watch);
	close(fds[0]);
	close(fds[1]);
}

static void deferred_run_again(struct deferred *deferred)
{
	struct probe *probe = list_entry(deferred, struct probe, deferred);

	if (++probe->fired < 3)
		loop_defer(probe->loop, deferred, deferred_run_again);
}

static void runs_deferred_work_in_the_same_tick(void **state)
{
	struct probe probe = { .loop = *state };

	loop_defer(probe.loop, &probe.deferred, deferred_run_again);
	loop_defer(probe.loop, &probe.deferred, deferred_run_again);
	loop_tick(probe.loop, -1);
	assert_int_equal(probe.fired, 3);
}

#define LETTERS 20000

struct post {
	struct letter letter;
	struct loop *loop;
	int *count;
};

static struct post posts[LETTERS];

static void letter_count(struct letter *letter)
{
	struct post *post = list_entry(letter, struct post, letter);

	if (++*post->count == LETTERS)
		loop_stop(post->loop);
}

static void *post_all(void *arg)
{
	(void)arg;
	for (int i = 0; i < LETTERS; i++)
		loop_post(posts[i].loop, &posts[i].letter, letter_count);
	return NULL;
}

static void delivers_every_letter_of_another_thread(void **state)
{
	pthread_t thread;
	int count = 0;

	for (int i = 0; i < LETTERS; i++) {
		posts[i].loop = *state;
		posts[i].count = &count;
	}
	assert_int_equal(pthread_create(&thread, NULL, post_all, NULL), 0);
	assert_int_equal(loop_run(*state), 0);
	pthread_join(thread, NULL);
	assert_int_equal(count, LETTERS);
}

static void delivers_waiting_letters_on_request(void **state)
{
	int count = 0;

	posts[0].loop = *state;
	posts[0].count = &count;
	loop_post(*state, &posts[0].letter, letter_count);
	loop_deliver(*state);
	assert_int_equal(count, 1);
}

static void new_once(void *arg)
{
	struct loop *loop;

	(void)arg;
	if (!loop_new(&loop))
		loop_free(loop);
}

static void survives_failing_allocations(void **state)
{
	(void)state;
	failalloc_sweep(new_once, NULL);
}

static void hard_close_resets_the_other_end(void **state)
{
	int fd = -1;

	(void)state;
	fd_close(&fd);
	fd_reset(&fd);
	assert_int_equal(fd, -1);
	assert_int_equal(fd_unsent(-1), 0);
}

#define LOOP_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LOOP_TEST(fires_timer_once_and_not_early),
		LOOP_TEST(rearms_and_cancels_timers),
		LOOP_TEST(arms_sooner_and_never_later),
		LOOP_TEST(lets_a_timer_cancel_one_due_with_it),
		LOOP_TEST(keeps_timers_of_a_later_turn),
		LOOP_TEST(delivers_nothing_to_a_watch_removed_in_the_batch),
		LOOP_TEST(hands_an_own_descriptor_on),
		LOOP_TEST(forgets_an_own_descriptor_that_stays_open),
		LOOP_TEST(watches_a_number_that_was_reused),
		LOOP_TEST(delivers_nothing_for_a_copy_that_stays),
		LOOP_TEST(unwatches_many_own_descriptors_at_once),
		LOOP_TEST(closes_a_watched_descriptor),
		LOOP_TEST(changes_interest),
		LOOP_TEST(runs_deferred_work_in_the_same_tick),
		LOOP_TEST(delivers_every_letter_of_another_thread),
		LOOP_TEST(delivers_waiting_letters_on_request),
		cmocka_unit_test(survives_failing_allocations),
		cmocka_unit_test(hard_close_resets_the_other_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
