/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The relay's side of the channel: stop, and reload.
 *
 * A reload is RELOAD (the text, already checked by the supervisor), a LISTENER
 * for each new address, then COMMIT. Nothing changes before COMMIT; then the
 * settings are built and every worker takes them. Whoever asked by the control
 * socket is answered when it is over.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "crypto/crypto.h"
#include "main/channel.h"
#include "main/relay_internal.h"

struct reload_waiter {
	struct list link;
	struct control_reply *reply;
};

struct reload {
	struct fanout fanout;
	struct turn_settings *settings;
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

static void waiters_answer(struct relay *relay, int result, const char *text)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &relay->reload_waiters) {
		struct reload_waiter *waiter =
			list_entry(pos, struct reload_waiter, link);

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
	waiters_answer(relay, -ECANCELED, "culvertd is stopping");
	pending_clear(&relay->pending);
}

void relay_reload_request(struct relay *relay, struct control_reply *reply)
{
	struct reload_waiter *waiter = malloc(sizeof(*waiter));

	if (!waiter) {
		control_reply_error(reply, "out of memory");
		return;
	}
	waiter->reply = reply;
	list_add_tail(&waiter->link, &relay->reload_waiters);
	if (channel_send(relay->channel.fd, CHANNEL_WANT_RELOAD, 0, "", NULL,
			 0))
		waiters_answer(relay, -EPIPE, "the supervisor has gone");
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

static int conf_receive(int fd, struct conf **out)
{
	struct stat info;
	char *text;
	int err;

	if (fstat(fd, &info) < 0)
		return -errno;
	if (info.st_size == 0)
		return conf_parse("", 0, "reload", report_nothing, NULL, out);
	text = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (text == MAP_FAILED)
		return -errno;
	err = conf_parse(text, (size_t)info.st_size, "reload", report_nothing,
			 NULL, out);
	munmap(text, (size_t)info.st_size);
	return err;
}

/* Keeps descriptors of one new address until COMMIT. */
static int pending_listener(struct relay *relay, const char *name,
			    const int *fds, size_t count)
{
	struct relay_pending *pending = &relay->pending;
	struct relay_socket *more;

	if (count != relay->worker_count || strlen(name) >= sizeof(more->name))
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

static void reload_each(struct fanout *fanout, struct relay_worker *worker)
{
	struct reload *reload = list_entry(fanout, struct reload, fanout);
	struct relay_pending *pending = &fanout->relay->pending;

	turn_worker_reload(worker->turn, reload->settings);
	for (size_t i = 0; i < pending->socket_count; i++) {
		int *fd = &pending->sockets[i].fds[worker->index];
		int err = turn_worker_listen(worker->turn, *fd,
					     pending->sockets[i].name);

		if (!err)
			*fd = -1;
		else
			log_error("main",
				  "event=listen_failed listener=%s "
				  "worker=%u error=\"%s\"",
				  pending->sockets[i].name, worker->index,
				  strerror(-err));
	}
}

static void reload_done(struct fanout *fanout)
{
	struct reload *reload = list_entry(fanout, struct reload, fanout);
	struct relay *relay = fanout->relay;

	conf_unref(relay->conf);
	relay->conf = conf_ref(relay->pending.conf);
	relay->config_loads++;
	relay->reloading = false;
	log_set_level(relay->conf->log_level);
	turn_settings_unref(reload->settings);
	free(reload);
	pending_clear(&relay->pending);
	waiters_answer(relay, 0, "");
	channel_send(relay->channel.fd, CHANNEL_TAKEN, 0, "", NULL, 0);
}

static int reload_commit(struct relay *relay)
{
	struct reload *reload;
	int err;

	if (!relay->pending.conf)
		return -EBADMSG;
	reload = calloc(1, sizeof(*reload));
	if (!reload)
		return -ENOMEM;
	err = turn_settings_new(relay->pending.conf, relay->nonce_secret,
				&reload->settings);
	if (err) {
		free(reload);
		return err;
	}
	relay->reloading = true;
	fanout_start(relay, &reload->fanout, reload_each, reload_done);
	return 0;
}

static void reload_failed(struct relay *relay, int err)
{
	char text[128];

	snprintf(text, sizeof(text), "the relay could not take it: %s",
		 strerror(-err));
	pending_clear(&relay->pending);
	waiters_answer(relay, err, text);
	channel_send(relay->channel.fd, CHANNEL_TAKEN, err, text, NULL, 0);
}

/* Handles one message; its descriptors that are not taken are closed after. */
static int message_handle(struct relay *relay, const struct channel_msg *msg,
			  int *fds, size_t *count)
{
	int err;

	switch ((enum channel_type)msg->type) {
	case CHANNEL_RELOAD:
		pending_clear(&relay->pending);
		return *count == 1 ?
			       conf_receive(fds[0], &relay->pending.conf) :
			       -EBADMSG;
	case CHANNEL_LISTENER:
		err = pending_listener(relay, msg->text, fds, *count);
		if (!err)
			*count = 0;
		return err;
	case CHANNEL_COMMIT:
		return reload_commit(relay);
	case CHANNEL_REFUSED:
		waiters_answer(relay, -EINVAL, msg->text);
		return 0;
	case CHANNEL_STOP:
		loop_stop(relay->loop);
		return 0;
	case CHANNEL_READY:
	case CHANNEL_TAKEN:
	case CHANNEL_WANT_RELOAD:
	case CHANNEL_WANT_STOP:
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
	if (err) {
		/* The supervisor is the only reason to run. */
		if (err == -EBADMSG)
			log_error("main", "event=channel_bad_message");
		loop_stop(relay->loop);
		return;
	}
	err = message_handle(relay, &msg, fds, &count);
	while (count)
		close(fds[--count]);
	if (err)
		reload_failed(relay, err);
}
