/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A database on a server: one connection, on which questions follow each other
 * without waiting for the answers, which come in the same order.
 *
 *   idle -> connecting -> ready -> idle
 *
 * It is opened for the first question and kept. Whatever goes wrong with it (it
 * cannot be opened, the server ends it, an answer is not understood, the oldest
 * question is older than timeout_ms) ends it with all questions on it: one that is
 * left out would hand its answer to the next. From then on questions are answered
 * with -EHOSTDOWN at once, for a time that doubles with each failure in a row; the
 * first one after it tries again. A server that ends a connection on which nothing
 * was asked has only tidied up.
 */
#include "store/remote.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/clock.h"

#define REST_MIN_MS 100
#define REST_MAX_MS 5000

enum state {
	IDLE,
	CONNECTING,
	READY,
};

struct remote {
	struct backend backend;
	const struct remote_driver *driver;
	void *own; /* the driver's */
	struct loop *loop;
	uint64_t timeout_ms;
	enum state state;
	struct watch watch;
	struct list queued; /* lookups, for a connection */
	struct list asked; /* lookups, in the order of their questions */
	struct timer timer; /* for the oldest of either */
	uint64_t rest_until_ms, rest_ms;
	bool failing; /* the last connection failed: its return is news */
	struct log_limit limit;
};

static struct remote *remote_of(struct backend *backend)
{
	return list_entry(backend, struct remote, backend);
}

static struct lookup *lookup_of(struct list *link)
{
	return list_entry(link, struct lookup, link);
}

static void list_fail(struct list *list, int err)
{
	while (!list_empty(list)) {
		struct lookup *lookup = lookup_of(list->next);

		list_del(&lookup->link);
		store_lookup_done(lookup, err, NULL);
	}
}

static void remote_end(struct remote *remote, int err)
{
	watch_del(remote->loop, &remote->watch);
	remote->watch.fd = -1;
	timer_cancel(remote->loop, &remote->timer);
	remote->driver->disconnect(remote->own);
	remote->state = IDLE;
	list_fail(&remote->asked, err);
	list_fail(&remote->queued, err);
}

static void failure_log(struct remote *remote, int err, const char *why)
{
	uint64_t suppressed;

	if (log_allow(&remote->limit, clock_ms(), &suppressed))
		log_error(ROOM,
			  "event=database_failed database=%.*s error=%s "
			  "reason=\"%s\" suppressed=%ju",
			  (int)strcspn(remote->backend.ops->scheme, ":"),
			  remote->backend.ops->scheme, strerrorname_np(-err),
			  why, (uintmax_t)suppressed);
}

static void remote_fail(struct remote *remote, int err, const char *why)
{
	bool idle = remote->state == READY && list_empty(&remote->asked);

	if (!idle) {
		remote->rest_ms = remote->rest_ms ? remote->rest_ms * 2 :
						    REST_MIN_MS;
		if (remote->rest_ms > REST_MAX_MS)
			remote->rest_ms = REST_MAX_MS;
		remote->rest_until_ms = clock_ms() + remote->rest_ms;
		remote->failing = true;
		failure_log(remote, err, why);
	}
	remote_end(remote, err);
}

static void timer_expired(struct timer *timer);

/* For whoever has waited longest; nobody: not at all. */
static void timer_set(struct remote *remote)
{
	const struct list *list = list_empty(&remote->asked) ? &remote->queued :
							       &remote->asked;
	uint64_t now = clock_ms(), due;

	timer_cancel(remote->loop, &remote->timer);
	if (list_empty(list))
		return;
	due = lookup_of(list->next)->since_ms + remote->timeout_ms;
	timer_arm(remote->loop, &remote->timer, due > now ? due - now : 0,
		  timer_expired);
}

static void timer_expired(struct timer *timer)
{
	struct remote *remote = list_entry(timer, struct remote, timer);

	remote_fail(remote, -ETIMEDOUT,
		    remote->state == READY ?
			    "it does not answer" :
			    "it does not take a connection in time");
}

/* Sends what the socket takes. */
static void remote_flush(struct remote *remote)
{
	char why[STORE_WHY_SIZE] = "";
	int err = remote->driver->flush(remote->own, why);

	if (err && err != -EAGAIN)
		remote_fail(remote, err, why);
	else
		watch_set(remote->loop, &remote->watch,
			  err ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void queued_ask(struct remote *remote)
{
	char why[STORE_WHY_SIZE] = "";

	while (!list_empty(&remote->queued)) {
		struct lookup *lookup = lookup_of(remote->queued.next);
		int err = remote->driver->ask(remote->own, &lookup->key, why);

		if (err) {
			remote_fail(remote, err, why);
			return;
		}
		list_del(&lookup->link);
		list_add_tail(&lookup->link, &remote->asked);
	}
	remote_flush(remote);
}

/* An answer: whatever went wrong before is over. */
static void answer_take(struct remote *remote, int result,
			const struct store_user *user, const char *why)
{
	struct lookup *lookup = lookup_of(remote->asked.next);

	if (remote->failing)
		log_info(ROOM, "event=database_back");
	remote->failing = false;
	remote->rest_ms = 0;
	if (result == -EBADMSG)
		failure_log(remote, result, why);
	list_del(&lookup->link);
	store_lookup_done(lookup, result, user);
}

static void answers_take(struct remote *remote)
{
	char why[STORE_WHY_SIZE] = "";
	struct store_user user;
	int err = 0;

	while (!err && !list_empty(&remote->asked)) {
		int result = remote->driver->next(remote->own, &user, why);

		if (!result || result == -ENOENT || result == -EBADMSG)
			answer_take(remote, result, &user, why);
		else
			err = result;
	}
	explicit_bzero(&user, sizeof(user));
	if (err && err != -EAGAIN)
		remote_fail(remote, err, why);
	else
		timer_set(remote);
}

static void ready_happened(struct remote *remote, uint32_t events)
{
	char why[STORE_WHY_SIZE] = "";
	int err = 0;

	if (events & ~(uint32_t)EPOLLOUT)
		err = remote->driver->receive(remote->own, why);
	/* What came before an end is good. */
	answers_take(remote);
	if (remote->state != READY)
		return;
	if (err)
		remote_fail(remote, err, why);
	else
		remote_flush(remote);
}

static void remote_happened(struct watch *watch, uint32_t events);

static int remote_watch(struct remote *remote, uint32_t events)
{
	return watch_add(remote->loop, &remote->watch,
			 remote->driver->fd(remote->own), events,
			 remote_happened);
}

static void connecting_go_on(struct remote *remote)
{
	char why[STORE_WHY_SIZE] = "";
	uint32_t events = EPOLLIN;
	int err;

	/* Its descriptor may be closed, and another come instead. */
	watch_del(remote->loop, &remote->watch);
	remote->watch.fd = -1;
	err = remote->driver->connecting(remote->own, &events, why);
	if (err && err != -EAGAIN) {
		remote_fail(remote, err, why);
		return;
	}
	if (remote_watch(remote, events)) {
		remote_fail(remote, -ENOMEM, "out of memory");
		return;
	}
	if (!err) {
		remote->state = READY;
		queued_ask(remote);
	}
}

static void remote_happened(struct watch *watch, uint32_t events)
{
	struct remote *remote = list_entry(watch, struct remote, watch);

	if (remote->state == CONNECTING)
		connecting_go_on(remote);
	else
		ready_happened(remote, events);
}

static void remote_connect(struct remote *remote)
{
	char why[STORE_WHY_SIZE] = "";
	int err = remote->driver->connect(remote->own, why);

	remote->state = CONNECTING;
	/* It can be written to when it is there, or has failed. */
	if (!err && remote_watch(remote, EPOLLOUT)) {
		store_why(why, "", "out of memory");
		err = -ENOMEM;
	}
	if (err)
		remote_fail(remote, err, why);
}

void remote_find(struct backend *backend, struct lookup *lookup)
{
	struct remote *remote = remote_of(backend);

	if (remote->state == IDLE && clock_ms() < remote->rest_until_ms) {
		store_lookup_done(lookup, -EHOSTDOWN, NULL);
		return;
	}
	list_add_tail(&lookup->link, &remote->queued);
	if (!remote->timer.armed)
		timer_set(remote);
	if (remote->state == IDLE)
		remote_connect(remote);
	else if (remote->state == READY)
		queued_ask(remote);
}

void remote_close(struct backend *backend)
{
	struct remote *remote = remote_of(backend);

	remote_end(remote, -ECANCELED);
	remote->driver->free(remote->own);
	free(remote);
}

int remote_new(const struct backend_env *env, const struct backend_ops *ops,
	       const struct remote_driver *driver, void *own,
	       struct backend **out)
{
	struct remote *remote = calloc(1, sizeof(*remote));

	if (!remote)
		return -ENOMEM;
	remote->backend.ops = ops;
	remote->driver = driver;
	remote->own = own;
	remote->loop = env->loop;
	remote->timeout_ms = env->timeout_ms;
	remote->watch.fd = -1;
	list_init(&remote->queued);
	list_init(&remote->asked);
	*out = &remote->backend;
	return 0;
}
