/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The workers' channels to the broker, from the second on: of a broker that was
 * started anew, or instead of one that has ended while the broker lives. Of the
 * latter the worker tells the main thread, and that the supervisor, by one letter
 * at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "main/channel.h"
#include "main/relay_internal.h"

/* A channel on its way to the worker. */
struct handover {
	struct letter letter;
	struct relay_worker *worker;
	int fd;
};

static void lost(struct letter *letter)
{
	struct relay_worker *worker =
		list_entry(letter, struct relay_worker, broker_lost);

	atomic_store(&worker->broker_lost_posted, false);
	channel_send(worker->relay->channel.fd, CHANNEL_WANT_BROKER,
		     (int)worker->index, "", NULL, 0);
}

void relay_broker_lost(struct relay_worker *worker)
{
	if (!atomic_exchange(&worker->broker_lost_posted, true))
		loop_post(worker->relay->loop, &worker->broker_lost, lost);
}

static void failed(struct relay_worker *worker, int err)
{
	log_error("main", "event=broker_channel_failed worker=%u error=\"%s\"",
		  worker->index, strerror(-err));
	relay_broker_lost(worker);
}

static void handed_over(struct letter *letter)
{
	struct handover *handover = list_entry(letter, struct handover, letter);
	struct relay_worker *worker = handover->worker;
	int err = turn_worker_broker(worker->turn, handover->fd);

	free(handover);
	if (err)
		failed(worker, err);
}

int relay_broker(struct relay *relay, int index, int fd)
{
	struct relay_worker *worker;
	struct handover *handover = NULL;

	if (index < 0 || (unsigned int)index >= relay->worker_count)
		return -EBADMSG;
	worker = &relay->workers[index];
	if (fd >= 0)
		handover = calloc(1, sizeof(*handover));
	if (!handover) {
		failed(worker, fd < 0 ? -EMFILE : -ENOMEM);
		fd_close(&fd);
		return 0;
	}
	handover->worker = worker;
	handover->fd = fd;
	loop_post(worker->loop, &handover->letter, handed_over);
	return 0;
}
