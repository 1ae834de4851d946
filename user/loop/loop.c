/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The epoll loop of one thread.
 *
 * A tick: wait for events -> deliver them -> letters of other threads -> expired
 * timers -> deferred work. Everything but loop_post belongs to the loop's own
 * thread. Timers hang in a wheel of lists, so arming one cannot fail: slot
 * WHEEL_GRAIN_MS wide, a full turn about 41 s; a timer due in a later turn is
 * looked at once a turn and left in place.
 *
 * Events name a slot, by descriptor and serial number, and not a watch: one that
 * was fetched, or is still registered, for a watch that is no more finds nobody.
 *
 * A descriptor declared by watch_own leaves the epoll set late: watch_del only
 * notes it, and before the next wait it is taken out. Until then it may be
 * watched anew, which changes its registration instead of making another, or be
 * closed, which ends it. A number that was closed may come back as another file
 * in the same tick: so the kernel is always asked (ENOENT: not registered), and
 * taking out what has gone does no harm.
 */
#include "loop/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/syscalls.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "epoll_create1 eventfd2");
SYSCALLS(SYSCALLS_BROKER | SYSCALLS_RELAY | SYSCALLS_EXIT,
	 "epoll_ctl epoll_wait epoll_pwait read write close");

#define WHEEL_SLOTS    4096
#define WHEEL_GRAIN_MS 10
#define WHEEL_WORDS    (WHEEL_SLOTS / 64)
#define EVENTS_MAX     256
#define LEAVING_MAX    256

/* What is known of a descriptor's number. */
struct slot {
	struct watch *watch; /* NULL: nobody's */
	uint32_t serial; /* of its registration */
	bool own; /* see watch_own */
	bool leaving; /* registered, and watched by nobody */
};

struct loop {
	int epoll_fd;
	bool stopping;
	uint64_t now_ms;
	struct epoll_event events[EVENTS_MAX];
	int event_next, event_count; /* of the batch being delivered */

	struct slot *slots; /* by descriptor */
	size_t slot_count;
	uint32_t serial; /* of the last registration */
	int leaving[LEAVING_MAX]; /* some may not be leaving any more */
	int leaving_count;

	struct list wheel[WHEEL_SLOTS];
	uint64_t used[WHEEL_WORDS]; /* a bit per slot that may hold timers */
	uint64_t wheel_tick; /* grains: slots before it are done */

	struct list deferred;

	pthread_mutex_t mail_lock;
	struct list mail;
	struct watch mail_watch;
};

void loop_deliver(struct loop *loop)
{
	struct list letters, *pos, *tmp;

	list_init(&letters);
	pthread_mutex_lock(&loop->mail_lock);
	list_splice_tail(&loop->mail, &letters);
	pthread_mutex_unlock(&loop->mail_lock);
	list_for_each_safe(pos, tmp, &letters) {
		struct letter *letter = list_entry(pos, struct letter, link);

		list_del(pos);
		letter->fn(letter);
	}
}

static void mail_ready(struct watch *watch, uint32_t events)
{
	struct loop *loop = list_entry(watch, struct loop, mail_watch);
	uint64_t count;

	(void)events;
	if (read(watch->fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		abort();
	loop_deliver(loop);
}

int loop_new(struct loop **out)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int fd, err;

	if (!loop)
		return -ENOMEM;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0) {
		err = -errno;
		goto free_loop;
	}
	for (int i = 0; i < WHEEL_SLOTS; i++)
		list_init(&loop->wheel[i]);
	list_init(&loop->deferred);
	list_init(&loop->mail);
	pthread_mutex_init(&loop->mail_lock, NULL);
	loop->now_ms = clock_ms();
	loop->wheel_tick = loop->now_ms / WHEEL_GRAIN_MS;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0) {
		err = -errno;
		goto close_epoll;
	}
	err = watch_add(loop, &loop->mail_watch, fd, EPOLLIN, mail_ready);
	if (err)
		goto close_event;
	*out = loop;
	return 0;

close_event:
	close(fd);
close_epoll:
	pthread_mutex_destroy(&loop->mail_lock);
	close(loop->epoll_fd);
free_loop:
	free(loop->slots);
	free(loop);
	return err;
}

static void deferred_run(struct loop *loop)
{
	while (!list_empty(&loop->deferred)) {
		struct deferred *work =
			list_entry(loop->deferred.next, struct deferred, link);

		list_del(&work->link);
		work->queued = false;
		work->fn(work);
	}
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	loop_deliver(loop);
	deferred_run(loop);
	fd_close(&loop->mail_watch.fd);
	close(loop->epoll_fd);
	pthread_mutex_destroy(&loop->mail_lock);
	free(loop->slots);
	free(loop);
}

/* Unregisters what was left; errors mean that it has been closed. */
static void leaving_flush(struct loop *loop)
{
	for (int i = 0; i < loop->leaving_count; i++) {
		int fd = loop->leaving[i];
		struct slot *slot = &loop->slots[fd];

		if (!slot->leaving)
			continue;
		slot->own = slot->leaving = false;
		epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	}
	loop->leaving_count = 0;
}

/* Grains until the next slot that may hold a timer; WHEEL_SLOTS: none. */
static unsigned int wheel_distance(const struct loop *loop)
{
	for (unsigned int d = 0; d < WHEEL_SLOTS;) {
		unsigned int slot = (loop->wheel_tick + d) % WHEEL_SLOTS;
		uint64_t word = loop->used[slot / 64] >> (slot % 64);

		if (word)
			return d + (unsigned int)__builtin_ctzll(word);
		d += 64 - slot % 64;
	}
	return WHEEL_SLOTS;
}

static int wait_ms(const struct loop *loop, int timeout_ms)
{
	unsigned int distance;
	uint64_t due, wait;

	if (!list_empty(&loop->deferred))
		return 0;
	distance = wheel_distance(loop);
	if (distance >= WHEEL_SLOTS)
		return timeout_ms;
	due = (loop->wheel_tick + distance + 1) * WHEEL_GRAIN_MS;
	wait = due > loop->now_ms ? due - loop->now_ms : 0;
	if (timeout_ms >= 0 && wait > (uint64_t)timeout_ms)
		return timeout_ms;
	return (int)wait;
}

static void slot_expire(struct loop *loop, unsigned int slot)
{
	struct list due;

	list_init(&due);
	list_splice_tail(&loop->wheel[slot], &due);
	loop->used[slot / 64] &= ~(1ull << (slot % 64));
	/* A timer's fn may cancel any other: take them one by one. */
	while (!list_empty(&due)) {
		struct timer *timer = list_entry(due.next, struct timer, link);

		list_del(&timer->link);
		if (timer->due_ms > loop->now_ms) {
			list_add_tail(&timer->link, &loop->wheel[slot]);
			loop->used[slot / 64] |= 1ull << (slot % 64);
			continue;
		}
		timer->armed = false;
		timer->fn(timer);
	}
}

static void timers_expire(struct loop *loop)
{
	uint64_t now_tick = loop->now_ms / WHEEL_GRAIN_MS;
	uint64_t from = loop->wheel_tick, to = now_tick;

	if (to - from > WHEEL_SLOTS) /* slept longer than a turn */
		from = to - WHEEL_SLOTS;
	for (uint64_t tick = from; tick < to; tick++) {
		unsigned int slot = tick % WHEEL_SLOTS;

		loop->wheel_tick = tick + 1;
		if (loop->used[slot / 64] >> (slot % 64) & 1)
			slot_expire(loop, slot);
	}
	loop->wheel_tick = to;
}

static void events_deliver(struct loop *loop)
{
	for (; loop->event_next < loop->event_count;) {
		struct epoll_event *event = &loop->events[loop->event_next++];
		const struct slot *slot =
			&loop->slots[(uint32_t)event->data.u64];

		if (slot->watch && slot->serial == event->data.u64 >> 32)
			slot->watch->fn(slot->watch, event->events);
	}
	loop->event_next = loop->event_count = 0;
}

int loop_tick(struct loop *loop, int timeout_ms)
{
	int n;

	leaving_flush(loop);
	n = epoll_wait(loop->epoll_fd, loop->events, EVENTS_MAX,
		       wait_ms(loop, timeout_ms));
	if (n < 0 && errno != EINTR)
		return -errno;
	loop->now_ms = clock_ms();
	loop->event_next = 0;
	loop->event_count = n > 0 ? n : 0;
	events_deliver(loop);
	timers_expire(loop);
	deferred_run(loop);
	return 0;
}

int loop_run(struct loop *loop)
{
	int err = 0;

	loop->stopping = false;
	while (!loop->stopping && !err)
		err = loop_tick(loop, -1);
	return err;
}

void loop_stop(struct loop *loop)
{
	loop->stopping = true;
}

uint64_t loop_now(const struct loop *loop)
{
	return loop->now_ms;
}

int loop_fd(const struct loop *loop)
{
	return loop->epoll_fd;
}

void loop_update(struct loop *loop)
{
	loop->now_ms = clock_ms();
}

int loop_wait_ms(struct loop *loop)
{
	loop_update(loop);
	return wait_ms(loop, -1);
}

/* The slot of a descriptor, or NULL for want of memory. */
static struct slot *slot_get(struct loop *loop, int fd)
{
	size_t number = (size_t)fd, count = number + number / 2 + 64;
	struct slot *grown;

	if (number < loop->slot_count)
		return &loop->slots[number];
	grown = realloc(loop->slots, count * sizeof(*grown));
	if (!grown)
		return NULL;
	memset(grown + loop->slot_count, 0,
	       (count - loop->slot_count) * sizeof(*grown));
	loop->slots = grown;
	loop->slot_count = count;
	return &grown[number];
}

/* Tells the kernel what to wait for, in the slot's name. */
static int slot_control(const struct loop *loop, int op, int fd,
			uint32_t events)
{
	struct epoll_event event = {
		.events = events,
		.data.u64 = (uint64_t)loop->slots[fd].serial << 32 |
			    (uint32_t)fd,
	};

	return epoll_ctl(loop->epoll_fd, op, fd, &event) < 0 ? -errno : 0;
}

int watch_add(struct loop *loop, struct watch *watch, int fd, uint32_t events,
	      void (*fn)(struct watch *watch, uint32_t events))
{
	struct slot *slot;
	uint32_t before;
	int err = -ENOENT;

	if (fd < 0)
		return -EBADF;
	slot = slot_get(loop, fd);
	if (!slot)
		return -ENOMEM;
	before = slot->serial;
	slot->serial = ++loop->serial;
	if (slot->leaving)
		err = slot_control(loop, EPOLL_CTL_MOD, fd, events);
	if (err) { /* not registered, or another file by now */
		slot->own = false;
		err = slot_control(loop, EPOLL_CTL_ADD, fd, events);
	}
	slot->leaving = false;
	if (err) {
		slot->serial = before;
		return err;
	}
	slot->watch = watch;
	watch->fd = fd;
	watch->events = events;
	watch->fn = fn;
	return 0;
}

void watch_set(struct loop *loop, struct watch *watch, uint32_t events)
{
	if (watch->events == events || watch->fd < 0)
		return;
	/* Modifying a registered descriptor allocates nothing: a failure is
	 * a descriptor closed behind our back, our own bug.
	 */
	if (slot_control(loop, EPOLL_CTL_MOD, watch->fd, events))
		abort();
	watch->events = events;
}

void watch_own(struct loop *loop, const struct watch *watch)
{
	loop->slots[watch->fd].own = true;
}

/* Takes the watch out of its slot. */
static struct slot *watch_forget(struct loop *loop, struct watch *watch)
{
	struct slot *slot = &loop->slots[watch->fd];

	slot->watch = NULL;
	watch->fd = -1;
	watch->events = 0;
	return slot;
}

void watch_del(struct loop *loop, struct watch *watch)
{
	int fd = watch->fd;
	struct slot *slot;

	if (fd < 0)
		return;
	slot = watch_forget(loop, watch);
	if (slot->own && loop->leaving_count < LEAVING_MAX) {
		slot->leaving = true;
		loop->leaving[loop->leaving_count++] = fd;
		return;
	}
	slot->own = false;
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

void watch_close(struct loop *loop, struct watch *watch)
{
	int fd = watch->fd;
	struct slot *slot;

	if (fd < 0)
		return;
	slot = watch_forget(loop, watch);
	if (!slot->own)
		epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	slot->own = false;
	fd_close(&fd);
}

void timer_arm(struct loop *loop, struct timer *timer, uint64_t delay_ms,
	       void (*fn)(struct timer *timer))
{
	unsigned int slot;
	uint64_t tick;

	if (timer->armed)
		list_del(&timer->link);
	timer->armed = true;
	timer->fn = fn;
	timer->due_ms = loop->now_ms + delay_ms;
	/* Never a slot already passed this turn: it would wait a whole one. */
	tick = timer->due_ms / WHEEL_GRAIN_MS;
	if (tick < loop->wheel_tick)
		tick = loop->wheel_tick;
	slot = tick % WHEEL_SLOTS;
	list_add_tail(&timer->link, &loop->wheel[slot]);
	loop->used[slot / 64] |= 1ull << (slot % 64);
}

void timer_arm_sooner(struct loop *loop, struct timer *timer, uint64_t delay_ms,
		      void (*fn)(struct timer *timer))
{
	if (!timer->armed || timer->due_ms > loop->now_ms + delay_ms)
		timer_arm(loop, timer, delay_ms, fn);
}

void timer_cancel(struct loop *loop, struct timer *timer)
{
	(void)loop;
	if (!timer->armed)
		return;
	list_del(&timer->link);
	timer->armed = false;
}

void loop_defer(struct loop *loop, struct deferred *deferred,
		void (*fn)(struct deferred *deferred))
{
	deferred->fn = fn;
	if (deferred->queued)
		return;
	deferred->queued = true;
	list_add_tail(&deferred->link, &loop->deferred);
}

void loop_undefer(struct deferred *deferred)
{
	if (!deferred->queued)
		return;
	list_del(&deferred->link);
	deferred->queued = false;
}

void loop_post(struct loop *loop, struct letter *letter,
	       void (*fn)(struct letter *letter))
{
	const uint64_t one = 1;
	bool first;

	letter->fn = fn;
	pthread_mutex_lock(&loop->mail_lock);
	first = list_empty(&loop->mail);
	list_add_tail(&letter->link, &loop->mail);
	pthread_mutex_unlock(&loop->mail_lock);
	/* The counter cannot be near its limit: one write per filled box. */
	if (first && write(loop->mail_watch.fd, &one, sizeof(one)) < 0)
		abort();
}
