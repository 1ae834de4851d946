/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The relay's side of the channel: stop, and reload.
 *
 * A reload is RELOAD (the text, already checked by the supervisor), a LISTENER
 * for each address that is new or goes to another listener, then COMMIT. Nothing
 * changes before COMMIT, which is answered with TAKEN, once:
 *
 *   listening   every worker serves the new sockets; one may lack descriptors
 *   settling    every worker takes the new settings, and with them lets go of
 *               sockets that are not in them. After a failure it takes the old
 *               settings again, which takes the new sockets back.
 *
 * Whoever asked by the control socket has a number; the supervisor says up to
 * which one a reload answers.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "engine/engine.h"
#include "main/channel.h"
#include "main/hint.h"
#include "main/relay_internal.h"

SYSCALLS(SYSCALLS_RELAY, "newfstatat fstat munmap close");

struct reload_waiter {
	struct list link;
	struct control_reply *reply;
	int number; /* of its WANT_RELOAD, from 1 */
};

struct reload {
	struct fanout fanout;
	struct turn_settings *settings; /* the new ones */
	_Atomic int error; /* what a worker failed with */
};

static void pending_clear(struct relay_pending *pending)
{
	for (size_t i = 0; i < pending->socket_count; i++)
		for (unsigned int j = 0; j < CONF_MAX_WORKERS; j++)
			fd_close(&pending->sockets[i].fds[j]);
	free(pending->sockets);
	conf_unref(pending->conf);
	memset(pending, 0, sizeof(*pending));
}

/* Answers those up to this number. */
static void waiters_answer(struct relay *relay, int number, int result,
			   const char *text)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &relay->reload_waiters) {
		struct reload_waiter *waiter =
			list_entry(pos, struct reload_waiter, link);

		if (waiter->number > number)
			continue;
		list_del(pos);
		if (result)
			control_reply_error(waiter->reply, "%s", text);
		else
			control_reply_ok(waiter->reply);
		free(waiter);
	}
}

void relay_reload_free(struct relay *relay)
{
	waiters_answer(relay, relay->reloads_asked, -ECANCELED,
		       "culvertd is stopping");
	pending_clear(&relay->pending);
}

void relay_reload_request(struct relay *relay, struct control_reply *reply)
{
	struct reload_waiter *waiter = malloc(sizeof(*waiter));

	if (!waiter) {
		control_reply_error(reply, "out of memory");
		return;
	}
	if (channel_send(relay->channel.fd, CHANNEL_WANT_RELOAD, 0, "", NULL,
			 0)) {
		free(waiter);
		control_reply_error(reply, "the supervisor does not answer: "
					   "see its log");
		return;
	}
	waiter->reply = reply;
	waiter->number = ++relay->reloads_asked;
	list_add_tail(&waiter->link, &relay->reload_waiters);
}

/* The supervisor has shown every error already: here they cannot happen. */
static void report_nothing(void *arg, bool is_error, const char *file,
			   unsigned int line, const char *message)
{
	(void)arg;
	(void)is_error;
	(void)file;
	(void)line;
	(void)message;
}

/* All bytes of a descriptor. `none` when there are none; else to be unmapped. */
static const void *bytes_map(int fd, const void *none, size_t *len)
{
	struct stat info;
	const void *bytes;

	if (fstat(fd, &info) < 0)
		return MAP_FAILED;
	*len = (size_t)info.st_size;
	if (!*len)
		return none;
	bytes = mmap(NULL, *len, PROT_READ, MAP_PRIVATE, fd, 0);
	return bytes;
}

static void bytes_unmap(const void *bytes, size_t len)
{
	if (bytes != MAP_FAILED && len)
		munmap((void *)bytes, len);
}

/* fds: the text, and the files that it names. */
static int conf_receive(const int fds[2], struct conf **out)
{
	struct conf *conf = NULL;
	size_t len[2] = { 0, 0 };
	const void *text = bytes_map(fds[0], "", &len[0]);
	const void *files = bytes_map(fds[1], "", &len[1]);
	int err = text == MAP_FAILED || files == MAP_FAILED ? -errno : 0;

	if (!err)
		err = conf_parse(text, len[0], "reload", report_nothing, NULL,
				 &conf);
	if (!err)
		err = conf_files_unpack(conf, files, len[1]);
	if (err)
		conf_unref(conf);
	else
		*out = conf;
	bytes_unmap(text, len[0]);
	bytes_unmap(files, len[1]);
	return err;
}

/* Keeps descriptors of one new address until COMMIT. */
static int pending_listener(struct relay *relay, const char *name,
			    const int *fds, size_t count)
{
	struct relay_pending *pending = &relay->pending;
	struct relay_socket *more;

	if (pending->error)
		return pending->error;
	/* Sent, but this process has no descriptors left for them. */
	if (count != relay->worker_count)
		return -EMFILE;
	if (strlen(name) >= sizeof(more->name))
		return -EBADMSG;
	more = realloc(pending->sockets,
		       (pending->socket_count + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	pending->sockets = more;
	more += pending->socket_count++;
	memcpy(more->name, name, strlen(name) + 1);
	for (unsigned int i = 0; i < CONF_MAX_WORKERS; i++)
		more->fds[i] = i < count ? fds[i] : -1;
	return 0;
}

/* Over, for better or worse: everybody who waits for it is told. */
static void reload_end(struct relay *relay, int err)
{
	char text[256] = "";
	const char *hint = hint_for(err);

	if (err)
		snprintf(text, sizeof(text),
			 "the relay could not take it: %s%s%s", strerror(-err),
			 hint ? ": " : "", hint ? hint : "");
	relay->reloading = false;
	pending_clear(&relay->pending);
	waiters_answer(relay, relay->reloads_covered, err, text);
	channel_send(relay->channel.fd, CHANNEL_TAKEN, err, text, NULL, 0);
}

static void listen_each(struct fanout *fanout, struct relay_worker *worker)
{
	struct reload *reload = list_entry(fanout, struct reload, fanout);
	struct relay_pending *pending = &fanout->relay->pending;

	for (size_t i = 0; i < pending->socket_count; i++) {
		int *fd = &pending->sockets[i].fds[worker->index];
		int err = turn_worker_listen(worker->turn, *fd,
					     pending->sockets[i].name);

		if (!err) {
			*fd = -1;
			continue;
		}
		atomic_store(&reload->error, err);
		log_error("main",
			  "event=listen_failed listener=%s worker=%u "
			  "error=\"%s\"",
			  pending->sockets[i].name, worker->index,
			  strerror(-err));
		return;
	}
}

static void settle_each(struct fanout *fanout, struct relay_worker *worker)
{
	turn_worker_reload(worker->turn, fanout->relay->settings);
}

static void settle_done(struct fanout *fanout)
{
	struct reload *reload = list_entry(fanout, struct reload, fanout);
	struct relay *relay = fanout->relay;
	int err = atomic_load(&reload->error);

	turn_settings_unref(reload->settings);
	free(reload);
	reload_end(relay, err);
}

static void listen_done(struct fanout *fanout)
{
	struct reload *reload = list_entry(fanout, struct reload, fanout);
	struct relay *relay = fanout->relay;
	struct turn_settings *old = relay->settings;

	if (!atomic_load(&reload->error)) {
		relay->settings = reload->settings;
		reload->settings = old;
		conf_unref(relay->conf);
		relay->conf = conf_ref(relay->pending.conf);
		relay->config_loads++;
		log_set_level(relay->conf->log_level);
		if (relay_database(relay, relay->conf))
			log_error("main", "event=database_kept error=ENOMEM "
					  "hint=\"reload again\"");
	}
	fanout_start(relay, fanout, settle_each, settle_done);
}

static bool engines_equal(const struct conf_engine *a,
			  const struct conf_engine *b)
{
	bool same = a->order_count == b->order_count;

	for (size_t i = 0; same && i < a->order_count; i++)
		same = strcmp(a->order[i], b->order[i]) == 0;
	return same;
}

/*
 * An order of which no engine runs here: the workers would keep what they have,
 * and the next relay could not start. Tried before, on the main thread's loop.
 */
static int engines_check(struct relay *relay, const struct conf_engine *conf)
{
	const struct engine_params params = {
		.pipe_size = conf->pipe_size,
		.pipes = conf->pipes,
		.copy_buffer = conf->copy_buffer,
	};
	struct engine_set *set;
	int err;

	if (engines_equal(conf, &relay->conf->engine))
		return 0;
	err = engine_set_new(relay->loop, &params,
			     (const char *const *)conf->order,
			     conf->order_count, NULL, NULL, &set);
	if (!err)
		engine_set_free(set);
	return err;
}

static int reload_commit(struct relay *relay)
{
	struct reload *reload;
	int err = relay->pending.error;

	if (!err && !relay->pending.conf)
		err = -EBADMSG;
	if (!err)
		err = engines_check(relay, &relay->pending.conf->engine);
	if (err)
		return err;
	reload = calloc(1, sizeof(*reload));
	if (!reload)
		return -ENOMEM;
	err = turn_settings_new(relay->pending.conf, relay->nonce_secret,
				relay->store, &reload->settings);
	if (err) {
		free(reload);
		return err;
	}
	relay->reloading = true;
	fanout_start(relay, &reload->fanout, listen_each, listen_done);
	return 0;
}

static int reload_begin(struct relay *relay, const struct channel_msg *msg,
			const int *fds, size_t count)
{
	struct relay_pending *pending = &relay->pending;

	/* Workers look at the one under way. */
	if (relay->reloading)
		return -EBADMSG;
	pending_clear(pending);
	relay->reloads_covered = msg->result;
	/* None: it was sent, but this process has no descriptor left. */
	pending->error = count == 2 ? conf_receive(fds, &pending->conf) :
				      -EMFILE;
	return 0;
}

static void reload_refused(struct relay *relay, const struct channel_msg *msg)
{
	if (!relay->reloading)
		pending_clear(&relay->pending);
	waiters_answer(relay, msg->result, -EINVAL, msg->text);
}

/*
 * Handles one message; its descriptors that are not taken are closed after.
 * -EBADMSG when it has no place here.
 */
static int message_handle(struct relay *relay, const struct channel_msg *msg,
			  int *fds, size_t *count)
{
	int err;

	switch ((enum channel_type)msg->type) {
	case CHANNEL_RELOAD:
		return reload_begin(relay, msg, fds, *count);
	case CHANNEL_LISTENER:
		if (relay->reloading)
			return -EBADMSG;
		err = pending_listener(relay, msg->text, fds, *count);
		if (!err)
			*count = 0;
		else if (!relay->pending.error)
			relay->pending.error = err;
		return 0;
	case CHANNEL_COMMIT:
		if (relay->reloading)
			return -EBADMSG;
		err = reload_commit(relay);
		if (err)
			reload_end(relay, err);
		return 0;
	case CHANNEL_REFUSED:
		reload_refused(relay, msg);
		return 0;
	case CHANNEL_STOP:
		loop_stop(relay->loop);
		return 0;
	case CHANNEL_BROKER:
		if (*count > 1)
			return -EBADMSG;
		err = relay_broker(relay, msg->result, *count ? fds[0] : -1);
		if (!err)
			*count = 0;
		return err;
	case CHANNEL_EXITS:
		relay_exits(relay, *count ? fds[0] : -1);
		return *count > 1 ? -EBADMSG : 0;
	case CHANNEL_READY:
	case CHANNEL_TAKEN:
	case CHANNEL_WANT_RELOAD:
	case CHANNEL_WANT_STOP:
	case CHANNEL_DRAINING:
	case CHANNEL_WANT_BROKER:
	case CHANNEL_TYPES:
		break;
	}
	return -EBADMSG;
}

void relay_channel_ready(struct watch *watch, uint32_t events)
{
	struct relay *relay = list_entry(watch, struct relay, channel);
	struct channel_msg msg;
	int fds[CHANNEL_FDS_MAX];
	size_t count = 0;
	int err = channel_recv(watch->fd, &msg, fds, &count);

	(void)events;
	if (!err)
		err = message_handle(relay, &msg, fds, &count);
	while (count)
		close(fds[--count]);
	if (!err)
		return;
	/* The supervisor is the only reason to run. */
	if (err == -EBADMSG) {
		log_error("main", "event=channel_bad_message");
		relay->status = EXIT_FAILURE;
	}
	loop_stop(relay->loop);
}
