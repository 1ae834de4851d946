/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One epoll loop per thread: descriptors, timers, deferred work, and a mailbox
 * through which other threads hand work over.
 */
#ifndef LOOP_LOOP_H
#define LOOP_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct loop;

/* A watched descriptor. Embedded in its owner; the owner keeps fd open. */
struct watch {
	int fd;
	uint32_t events; /* what is registered now: EPOLLIN, EPOLLOUT, ... */
	void (*fn)(struct watch *watch, uint32_t events);
};

/* A one-shot timer. Embedded in its owner; zero-initialise before first use. */
struct timer {
	struct list link;
	uint64_t due_ms;
	bool armed;
	void (*fn)(struct timer *timer);
};

/* Work to do at the end of this tick, after all events were handled. */
struct deferred {
	struct list link; /* zero-initialise, or list_init */
	bool queued;
	void (*fn)(struct deferred *deferred);
};

/* A letter from another thread; freed or reused by its handler. */
struct letter {
	struct list link;
	void (*fn)(struct letter *letter);
};

/* Returns 0, or -ENOMEM, -EMFILE and what epoll_create1 may say. */
int loop_new(struct loop **out);
/* Letters not yet delivered are delivered first. Accepts NULL. */
void loop_free(struct loop *loop);

/* Runs until loop_stop. Returns 0 or a negative errno of epoll_wait. */
int loop_run(struct loop *loop);
/* One round, waiting at most timeout_ms (-1: until something happens). */
int loop_tick(struct loop *loop, int timeout_ms);
void loop_stop(struct loop *loop); /* from its own thread */

/* Time at the start of this tick, milliseconds of clock_ms(). */
uint64_t loop_now(const struct loop *loop);

/*
 * Inside a foreign event loop: the descriptor is readable when loop_tick has
 * events to deliver; loop_wait_ms tells how long to wait for that at most, -1:
 * for ever. loop_update sets loop_now to this moment, which arming a timer long
 * after the last tick needs.
 */
int loop_fd(const struct loop *loop);
int loop_wait_ms(struct loop *loop);
void loop_update(struct loop *loop);

/* Level triggered unless EPOLLET is given. 0, -ENOMEM, -ENOSPC, -EBADF. */
int watch_add(struct loop *loop, struct watch *watch, int fd, uint32_t events,
	      void (*fn)(struct watch *watch, uint32_t events));
/* Changes the registered events; no system call when they are the same. */
void watch_set(struct loop *loop, struct watch *watch, uint32_t events);
/*
 * Unregisters; events already fetched for it are not delivered any more, so
 * the owner may be freed at once. Harmless on one that was never added, when
 * its fd is -1.
 */
void watch_del(struct loop *loop, struct watch *watch);
/* The same, and closes the descriptor. */
void watch_close(struct loop *loop, struct watch *watch);
/*
 * Says that the watched descriptor is the only one of its open file, here and in
 * every process, and that no ring holds the file while it is watched: closing it
 * then ends its registration. Whoever watches it from now on, watch_del and a
 * watch_add that follows in the same tick cost one system call together, watch_del
 * and a close none or a short one. Holds until it is unwatched at the end of a
 * tick.
 */
void watch_own(struct loop *loop, const struct watch *watch);

/* (Re)arms: fn runs once, not before delay_ms from now (10 ms grain). */
void timer_arm(struct loop *loop, struct timer *timer, uint64_t delay_ms,
	       void (*fn)(struct timer *timer));
/* Likewise, unless it is armed for no later than that already. */
void timer_arm_sooner(struct loop *loop, struct timer *timer, uint64_t delay_ms,
		      void (*fn)(struct timer *timer));
void timer_cancel(struct loop *loop, struct timer *timer);

void loop_defer(struct loop *loop, struct deferred *deferred,
		void (*fn)(struct deferred *deferred));
/* Takes queued work back. Harmless when it is not queued. */
void loop_undefer(struct deferred *deferred);

/*
 * Hands a letter to the loop's thread; its fn runs there. Callable from any
 * thread. The letter belongs to the receiver afterwards.
 */
void loop_post(struct loop *loop, struct letter *letter,
	       void (*fn)(struct letter *letter));

/* Delivers what waits in the mailbox now: for a loop whose thread has ended. */
void loop_deliver(struct loop *loop);

#endif
