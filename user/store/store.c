/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store's thread: from a question to its answer.
 *
 *   a worker's ask -> letter -> lookup -> backend -> cache -> letter -> done()
 *
 * Who asks for a user that is being looked up already joins that lookup: a
 * thousand requests of one user cost one query. How long an asker waits is his own
 * affair: he may give up, but the ask is the store's until done is called. A lookup
 * ends when its backend says so, which gives each a time.
 *
 * The backend, the lookups and the loop belong to the thread; the cache is
 * everybody's. The backend is changed by a letter; `none` is read without one.
 */
#include "store/store.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/syscalls.h"
#include "store/internal.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "clone set_robust_list rseq");

struct store {
	struct loop *loop;
	pthread_t thread;
	struct cache *cache;
	struct backend *backend; /* NULL: none */
	struct list lookups; /* under way */
	struct letter end;
	bool ending; /* its thread has ended */
	_Atomic bool none; /* there is no database to ask */

	/* What was set last, to tell a change; of the thread that sets it. */
	char *url;
	struct store_params params;
};

/* A change on its way to the thread. */
struct change {
	struct letter letter;
	struct store *store;
	struct store_params params;
	struct backend *backend; /* the next one; NULL: none */
};

static const struct backend_ops *const backends[] = {
	&store_sqlite,
	&store_postgresql,
	&store_redis,
};

const struct backend_ops *store_backend(const char *url)
{
	for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++)
		if (!strncmp(url, backends[i]->scheme,
			     strlen(backends[i]->scheme)))
			return backends[i];
	return NULL;
}

bool store_url_ok(const char *url)
{
	const struct backend_ops *ops = store_backend(url);

	return ops ? ops->url_ok(url) : !strcmp(url, "none");
}

static void *thread_main(void *arg)
{
	struct store *store = arg;
	int err = loop_run(store->loop);

	if (err)
		log_error(ROOM, "event=loop_failed error=\"%s\"",
			  strerror(-err));
	return NULL;
}

int store_new(struct store **out)
{
	struct store *store = calloc(1, sizeof(*store));
	int err;

	if (!store)
		return -ENOMEM;
	list_init(&store->lookups);
	atomic_init(&store->none, true);
	err = cache_new(&store->cache);
	if (err)
		goto free_store;
	err = loop_new(&store->loop);
	if (err)
		goto free_cache;
	err = -pthread_create(&store->thread, NULL, thread_main, store);
	if (err)
		goto free_loop;
	*out = store;
	return 0;

free_loop:
	loop_free(store->loop);
free_cache:
	cache_free(store->cache);
free_store:
	free(store);
	return err;
}

static void backend_close(struct store *store)
{
	if (store->backend)
		store->backend->ops->close(store->backend);
	store->backend = NULL;
}

static void end_arrived(struct letter *letter)
{
	struct store *store = list_entry(letter, struct store, end);

	loop_stop(store->loop);
}

static void url_free(char *url)
{
	if (url)
		explicit_bzero(url, strlen(url));
	free(url);
}

void store_stop(struct store *store)
{
	if (!store || store->ending)
		return;
	loop_post(store->loop, &store->end, end_arrived);
	pthread_join(store->thread, NULL);
	store->ending = true;
	atomic_store(&store->none, true);
	/* What was under way, in its order; whoever asked hears of the end. */
	loop_deliver(store->loop);
	backend_close(store);
}

void store_free(struct store *store)
{
	if (!store)
		return;
	store_stop(store);
	loop_free(store->loop);
	cache_free(store->cache);
	url_free(store->url);
	free(store);
}

static void change_arrived(struct letter *letter)
{
	struct change *change = list_entry(letter, struct change, letter);
	struct store *store = change->store;

	backend_close(store);
	cache_configure(store->cache, &change->params);
	store->backend = change->backend;
	free(change);
}

static bool params_same(const struct store *store,
			const struct store_params *params)
{
	const struct store_params *now = &store->params;

	return store->url && !strcmp(store->url, params->url) &&
	       now->timeout_ms == params->timeout_ms &&
	       now->cache_ms == params->cache_ms &&
	       now->absent_ms == params->absent_ms &&
	       now->cache_users == params->cache_users;
}

/* It is made here, where a lack of memory can be told, and used there. */
static int change_new(struct store *store, const struct store_params *params,
		      struct change **out)
{
	const struct backend_env env = {
		.loop = store->loop,
		.url = params->url,
		.timeout_ms = params->timeout_ms,
	};
	const struct backend_ops *ops = store_backend(params->url);
	struct change *change = calloc(1, sizeof(*change));
	int err;

	if (!change)
		return -ENOMEM;
	err = ops ? ops->open(&env, &change->backend) : 0;
	if (err) {
		free(change);
		return err;
	}
	change->store = store;
	change->params = *params;
	*out = change;
	return 0;
}

int store_configure(struct store *store, const struct store_params *params)
{
	struct change *change;
	char *url;
	int err;

	if (params_same(store, params))
		return 0;
	url = strdup(params->url);
	if (!url)
		return -ENOMEM;
	err = change_new(store, params, &change);
	if (err) {
		url_free(url);
		return err;
	}
	url_free(store->url);
	store->url = url;
	store->params = *params;
	store->params.url = url;
	atomic_store(&store->none, !change->backend);
	loop_post(store->loop, &change->letter, change_arrived);
	return 0;
}

int store_find(struct store *store, const struct store_key *key,
	       struct store_user *out)
{
	if (atomic_load(&store->none))
		return -ENOENT;
	return cache_find(store->cache, key, clock_ms(), out);
}

void store_forget(struct store *store)
{
	cache_clear(store->cache);
}

static void ask_delivered(struct letter *letter)
{
	struct store_ask *ask = list_entry(letter, struct store_ask, letter);

	ask->answered = true;
	ask->done(ask);
}

static void ask_answer(struct store_ask *ask, int result,
		       const struct store_user *user)
{
	ask->result = result;
	if (!result)
		ask->user = *user;
	loop_post(ask->loop, &ask->letter, ask_delivered);
}

void store_lookup_done(struct lookup *lookup, int result,
		       const struct store_user *user)
{
	struct list *pos, *tmp;

	if (!result || result == -ENOENT)
		cache_put(lookup->store->cache, &lookup->key,
			  result ? NULL : user, lookup->generation, clock_ms());
	list_for_each_safe(pos, tmp, &lookup->asks)
		ask_answer(list_entry(pos, struct store_ask, link), result,
			   user);
	list_del(&lookup->all);
	free(lookup);
}

/* One that was begun after the last change of the database: its answer is as good. */
static struct lookup *lookup_find(struct store *store,
				  const struct store_key *key,
				  unsigned int generation)
{
	struct list *pos;

	list_for_each(pos, &store->lookups) {
		struct lookup *lookup = list_entry(pos, struct lookup, all);

		if (lookup->generation == generation &&
		    !memcmp(lookup->key.hash, key->hash, sizeof(key->hash)) &&
		    !strcmp(lookup->key.realm, key->realm))
			return lookup;
	}
	return NULL;
}

static void lookup_start(struct store *store, struct store_ask *ask,
			 unsigned int generation)
{
	struct lookup *lookup = calloc(1, sizeof(*lookup));

	if (!lookup) {
		ask_answer(ask, -ENOMEM, NULL);
		return;
	}
	lookup->store = store;
	lookup->key = ask->key;
	lookup->generation = generation;
	lookup->since_ms = clock_ms();
	list_init(&lookup->link);
	list_init(&lookup->asks);
	list_add_tail(&ask->link, &lookup->asks);
	list_add_tail(&lookup->all, &store->lookups);
	store->backend->ops->find(store->backend, lookup);
}

static void ask_arrived(struct letter *letter)
{
	struct store_ask *ask = list_entry(letter, struct store_ask, letter);
	struct store *store = ask->store;
	unsigned int generation = cache_generation(store->cache);
	struct lookup *under_way;
	int known;

	if (!store->backend) {
		ask_answer(ask, -ECANCELED, NULL);
		return;
	}
	/* It may have come in while the letter was on its way. */
	known = cache_find(store->cache, &ask->key, clock_ms(), &ask->user);
	if (known != -EAGAIN) {
		ask_answer(ask, known, &ask->user);
		return;
	}
	under_way = lookup_find(store, &ask->key, generation);
	if (under_way)
		list_add_tail(&ask->link, &under_way->asks);
	else
		lookup_start(store, ask, generation);
}

void store_ask(struct store *store, struct store_ask *ask, struct loop *loop,
	       void (*done)(struct store_ask *ask))
{
	ask->store = store;
	ask->loop = loop;
	ask->done = done;
	ask->answered = false;
	loop_post(store->loop, &ask->letter, ask_arrived);
}
