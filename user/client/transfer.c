/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What `send` and `receive` share.
 *
 *   moving -> complete: asks the server with a Refresh -> closing -> success
 *          \-> failed: resets the data connection ------> closing -> failure
 *
 * closing waits for the client to have given its allocation back.
 */
#include "client/transfer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/fd.h"
#include "client/say.h"

static struct client_transfer *transfer_of(struct client_session *session)
{
	return list_entry(session, struct client_transfer, session);
}

static void transfer_stop(struct client_session *session)
{
	struct client_transfer *transfer = transfer_of(session);

	if (!transfer->over)
		client_error("%s: interrupted after %llu bytes", transfer->name,
			     (unsigned long long)transfer->progress.done);
	client_transfer_fail(transfer);
}

enum client_exit client_transfer_open(struct client_transfer *transfer,
				      const struct client_config *config,
				      const char *name, const char *verb)
{
	int err;

	memset(transfer, 0, sizeof(*transfer));
	transfer->name = name;
	transfer->verb = verb;
	transfer->fd = transfer->watch.fd = transfer->file_watch.fd = -1;
	transfer->file.fd = -1;
	transfer->buf = malloc(CLIENT_TRANSFER_BUFFER);
	if (!transfer->buf) {
		client_error("%s: not enough memory", name);
		return CLIENT_EXIT_FAILURE;
	}
	err = client_session_open(&transfer->session, config);
	if (err) {
		free(transfer->buf);
		return client_exit_for(err);
	}
	transfer->session.on_stop = transfer_stop;
	return CLIENT_EXIT_OK;
}

int client_transfer_start(struct client_transfer *transfer, int family,
			  const struct culvert_events *events)
{
	struct culvert_options options;
	int err;

	client_session_options(&transfer->session, family, &options);
	err = culvert_client_new(transfer->session.library, &options, events,
				 transfer, &transfer->client);
	if (err)
		client_error("%s: starting the client failed: %s",
			     transfer->name, strerror(-err));
	return err;
}

enum client_exit client_transfer_run(struct client_transfer *transfer)
{
	return client_session_run(&transfer->session);
}

static void data_release(struct client_transfer *transfer, bool reset)
{
	watch_del(transfer->session.loop, &transfer->file_watch);
	watch_del(transfer->session.loop, &transfer->watch);
	if (reset)
		fd_reset(&transfer->fd);
	else
		fd_close(&transfer->fd);
}

void client_transfer_close(struct client_transfer *transfer)
{
	data_release(transfer, true);
	client_file_close(&transfer->file);
	culvert_client_free(transfer->client);
	client_session_close(&transfer->session);
	free(transfer->buf);
}

/* The outcome is known: give the allocation back and end. */
static void transfer_conclude(struct client_transfer *transfer, bool success)
{
	if (transfer->over)
		return;
	transfer->over = true;
	transfer->failed = !success;
	data_release(transfer, !success);
	client_progress_stop(&transfer->progress, transfer->verb, success);
	if (transfer->client)
		culvert_client_close(transfer->client);
	else
		client_session_finish(&transfer->session, CLIENT_EXIT_FAILURE);
}

void client_transfer_fail(struct client_transfer *transfer)
{
	transfer_conclude(transfer, false);
}

static void transfer_verified(void *arg, const struct culvert_error *error)
{
	struct client_transfer *transfer = arg;

	if (transfer->over)
		return;
	if (error)
		client_session_error(&transfer->session,
				     "the stream may be cut short", error);
	transfer_conclude(transfer, !error);
}

void client_transfer_complete(struct client_transfer *transfer)
{
	int err;

	watch_del(transfer->session.loop, &transfer->file_watch);
	watch_del(transfer->session.loop, &transfer->watch);
	err = culvert_client_refresh(transfer->client, transfer_verified,
				     transfer);
	if (!err)
		return;
	client_error("%s: asking the server whether the stream is whole "
		     "failed: %s",
		     transfer->name, strerror(-err));
	client_transfer_fail(transfer);
}

void client_transfer_ended(struct client_transfer *transfer,
			   const struct culvert_error *error)
{
	struct client_session *session = &transfer->session;
	bool success = transfer->over && !transfer->failed;

	if (error && !transfer->over) {
		client_session_error(session,
				     transfer->fd >= 0 ?
					     "the stream was cut short" :
					     transfer->name,
				     error);
		client_transfer_fail(transfer);
	}
	client_session_finish(session,
			      success ? CLIENT_EXIT_OK : CLIENT_EXIT_FAILURE);
}

void client_transfer_watch(struct client_transfer *transfer,
			   struct watch *watch, int fd, uint32_t events,
			   void (*fn)(struct watch *watch, uint32_t events))
{
	struct loop *loop = transfer->session.loop;
	int err;

	if (transfer->over)
		return;
	/* epoll reports errors even for no events: take it out instead. */
	if (!events) {
		watch_del(loop, watch);
		return;
	}
	if (watch->fd >= 0) {
		watch_set(loop, watch, events);
		return;
	}
	err = watch_add(loop, watch, fd, events, fn);
	if (!err)
		return;
	client_error("%s: waiting for data failed: %s", transfer->name,
		     strerror(-err));
	client_transfer_fail(transfer);
}
