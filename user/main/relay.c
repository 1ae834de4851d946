/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The relay role: start, threads, end.
 *
 * The main thread has a loop of its own for the control socket and the channel
 * to the supervisor; each worker thread runs one loop and owns all that hangs in
 * it. Workers are asked by letters (fanout) and never share state with the main
 * thread but turn_shared. The role ends when the supervisor says so or is gone.
 */
#include "main/relay.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "crypto/crypto.h"
#include "main/channel.h"
#include "main/filter.h"
#include "main/hint.h"
#include "main/relay_internal.h"

SYSCALLS_EQUAL(SYSCALLS_SUPERVISOR, "rt_sigaction", 0, SIGPIPE);
SYSCALLS_WHERE(SYSCALLS_RELAY, "clone", 0, CLONE_THREAD, CLONE_THREAD);
SYSCALLS(SYSCALLS_RELAY, "set_robust_list rseq");
/* The first pthread_create() sets the C library's own handler. */
SYSCALLS_EQUAL(SYSCALLS_RELAY, "rt_sigaction", 0, __SIGRTMIN + 1);

static void fanout_back(struct letter *letter)
{
	struct fanout_part *part =
		list_entry(letter, struct fanout_part, letter);
	struct fanout *fanout = part->fanout;

	if (--fanout->left == 0)
		fanout->done(fanout);
}

static void fanout_there(struct letter *letter)
{
	struct fanout_part *part =
		list_entry(letter, struct fanout_part, letter);
	struct relay *relay = part->fanout->relay;

	part->again = false;
	part->fanout->each(part->fanout, part->worker);
	if (part->again && !relay->ending)
		loop_post(part->worker->loop, letter, fanout_there);
	else
		loop_post(relay->loop, letter, fanout_back);
}

void fanout_again(struct fanout *fanout, const struct relay_worker *worker)
{
	fanout->parts[worker->index].again = true;
}

void fanout_start(struct relay *relay, struct fanout *fanout,
		  void (*each)(struct fanout *fanout,
			       struct relay_worker *worker),
		  void (*done)(struct fanout *fanout))
{
	fanout->relay = relay;
	fanout->each = each;
	fanout->done = done;
	fanout->left = relay->worker_count;
	for (unsigned int i = 0; i < relay->worker_count; i++) {
		struct fanout_part *part = &fanout->parts[i];

		part->fanout = fanout;
		part->worker = &relay->workers[i];
		loop_post(part->worker->loop, &part->letter, fanout_there);
	}
}

/* The log says once, not once a worker, that an engine cannot run. */
static void engine_unavailable(void *arg, const char *name, int error)
{
	static _Atomic uint64_t said;
	const struct engine_ops *const *ops = engine_all;
	uint64_t bit = 1;

	(void)arg;
	while (*ops && strcmp((*ops)->name, name) != 0) {
		ops++;
		bit <<= 1;
	}
	if (atomic_fetch_or(&said, bit) & bit)
		return;
	log_warn("engine",
		 "event=engine_unavailable engine=%s error=\"%s\" "
		 "using=\"the next in [engine] order\"",
		 name, strerror(-error));
}

static void broker_lost(void *arg)
{
	relay_broker_lost(arg);
}

static void *worker_main(void *arg)
{
	struct relay_worker *worker = arg;
	int err = loop_run(worker->loop);

	if (err)
		log_error("main", "event=loop_failed worker=%u error=\"%s\"",
			  worker->index, strerror(-err));
	return NULL;
}

static int worker_start(struct relay *relay, unsigned int index,
			struct turn_settings *settings,
			const struct socket_set *sockets, int broker)
{
	struct relay_worker *worker = &relay->workers[index];
	struct turn_worker_params params = {
		.shared = relay->shared,
		.index = index,
		.settings = settings,
		.engine_unavailable = engine_unavailable,
		.broker_lost = broker_lost,
		.arg = worker,
	};
	int err;

	worker->relay = relay;
	worker->index = index;
	err = loop_new(&worker->loop);
	if (err)
		return err;
	params.loop = worker->loop;
	err = turn_worker_new(&params, &worker->turn);
	if (!err)
		err = turn_worker_broker(worker->turn, broker);
	for (size_t i = 0; i < sockets->count && !err; i++)
		err = turn_worker_listen(worker->turn,
					 sockets->groups[i].fds[index],
					 sockets->groups[i].name);
	return err;
}

static int threads_start(struct relay *relay)
{
	for (unsigned int i = 0; i < relay->worker_count; i++) {
		struct relay_worker *worker = &relay->workers[i];
		int err = pthread_create(&worker->thread, NULL, worker_main,
					 worker);

		if (err)
			return -err;
		worker->running = true;
	}
	return 0;
}

static void worker_stop(struct letter *letter)
{
	struct fanout_part *part =
		list_entry(letter, struct fanout_part, letter);

	loop_stop(part->worker->loop);
}

/* Letters still under way find everything they need alive: a query goes to a
 * worker and back, a moved connection to another worker.
 */
static void letters_finish(struct relay *relay)
{
	for (int round = 0; round < 2; round++) {
		for (unsigned int i = 0; i < relay->worker_count; i++)
			if (relay->workers[i].turn)
				loop_deliver(relay->workers[i].loop);
		loop_deliver(relay->loop);
	}
}

/* Threads first, then what they owned: nothing runs while it is freed. */
static void workers_end(struct relay *relay)
{
	static struct fanout_part parts[CONF_MAX_WORKERS];

	for (unsigned int i = 0; i < relay->worker_count; i++) {
		if (!relay->workers[i].running)
			continue;
		parts[i].worker = &relay->workers[i];
		loop_post(relay->workers[i].loop, &parts[i].letter,
			  worker_stop);
	}
	for (unsigned int i = 0; i < relay->worker_count; i++)
		if (relay->workers[i].running)
			pthread_join(relay->workers[i].thread, NULL);
	relay->ending = true;
	/* Its last answers are among the letters. */
	store_stop(relay->store);
	letters_finish(relay);
	for (unsigned int i = 0; i < relay->worker_count; i++)
		turn_worker_free(relay->workers[i].turn);
	for (unsigned int i = 0; i < relay->worker_count; i++)
		loop_free(relay->workers[i].loop);
}

int relay_database(struct relay *relay, const struct conf *conf)
{
	const struct store_params params = {
		.url = conf->database.url,
		.timeout_ms = conf->database.timeout_ms,
		.cache_ms = conf->database.cache_ms,
		.absent_ms = conf->database.cache_absent_ms,
		.cache_users = conf->database.cache_users,
	};

	return store_configure(relay->store, &params);
}

/* All is opened, and nothing has come from the network yet. */
static int filter_start(const struct conf *conf)
{
	unsigned int roles = SYSCALLS_RELAY;

	if (conf_engine_wanted(conf, "uring"))
		roles |= SYSCALLS_URING;
	if (conf_database_wanted(conf))
		roles |= SYSCALLS_STORE;
	if (conf_database_remote(conf))
		roles |= SYSCALLS_REMOTE;
	return filter_enter("relay", roles, conf->seccomp);
}

static int relay_start(struct relay *relay, const struct relay_params *params)
{
	int exits = params->exits;
	int err = store_new(&relay->store);

	if (!err)
		err = relay_database(relay, params->conf);
	if (!err)
		err = turn_settings_new(params->conf, params->nonce_secret,
					relay->store, &relay->settings);
	if (err)
		return err;
	err = turn_shared_new(relay->worker_count, &relay->shared);
	if (!err)
		turn_shared_drain(relay->shared, params->draining);
	if (!err && exits >= 0)
		relay_exits(relay, exits);
	fd_close(&exits);
	for (unsigned int i = 0; i < relay->worker_count && !err; i++)
		err = worker_start(relay, i, relay->settings, params->sockets,
				   params->broker[i]);
	if (err)
		return err;
	err = control_server_new(relay->loop, params->control_fd,
				 params->conf->limits.control_clients,
				 relay_control, relay, &relay->control);
	if (err)
		return err;
	err = watch_add(relay->loop, &relay->channel, params->channel, EPOLLIN,
			relay_channel_ready);
	if (!err)
		err = filter_start(params->conf);
	return err ? err : threads_start(relay);
}

static void relay_end(struct relay *relay)
{
	workers_end(relay);
	watch_del(relay->loop, &relay->channel);
	relay_reload_free(relay);
	control_server_free(relay->control);
	loop_free(relay->loop);
	turn_shared_free(relay->shared);
	turn_settings_unref(relay->settings);
	store_free(relay->store);
	exit_notice_clear(&relay->exits);
	conf_unref(relay->conf);
	crypto_wipe(relay->nonce_secret, sizeof(relay->nonce_secret));
	free(relay);
}

static int relay_new(const struct relay_params *params, struct relay **out)
{
	struct relay *relay = calloc(1, sizeof(*relay));

	if (!relay)
		return -ENOMEM;
	relay->channel.fd = -1;
	relay->conf = conf_ref(params->conf);
	relay->worker_count = params->sockets->workers;
	relay->started_ms = clock_ms();
	relay->config_loads = params->config_loads;
	list_init(&relay->reload_waiters);
	memcpy(relay->nonce_secret, params->nonce_secret,
	       sizeof(relay->nonce_secret));
	int err = loop_new(&relay->loop);

	if (err) {
		conf_unref(relay->conf);
		free(relay);
		return err;
	}
	*out = relay;
	return 0;
}

int relay_run(const struct relay_params *params)
{
	struct relay *relay;
	int status, err;

	signal(SIGPIPE, SIG_IGN);
	err = privilege_relay(params->user, conf_database_file(params->conf),
			      conf_database_remote(params->conf),
			      params->supervisor);
	if (err) {
		log_error("main",
			  "event=privilege_failed error=\"%s\" hint="
			  "\"the relay will not run with privileges\"",
			  strerror(-err));
		return RELAY_EXIT_FATAL;
	}
	err = relay_new(params, &relay);
	if (err) {
		hint_log("relay", err);
		return RELAY_EXIT_FATAL;
	}
	err = relay_start(relay, params);
	if (err) {
		hint_log("relay", err);
		relay->status = RELAY_EXIT_FATAL;
	} else if (!channel_send(params->channel, CHANNEL_READY, 0, "", NULL,
				 0)) {
		err = loop_run(relay->loop);
		if (err) {
			log_error("main",
				  "event=loop_failed worker=main error=\"%s\"",
				  strerror(-err));
			relay->status = EXIT_FAILURE;
		}
	}
	status = relay->status;
	relay_end(relay);
	return status;
}
