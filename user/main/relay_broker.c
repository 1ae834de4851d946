/* SPDX-License-Identifier: BSD-2-Clause */
/* The workers' channels to the broker, when there is another one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "main/relay_internal.h"

struct handover {
	struct fanout fanout;
	int fds[CONF_MAX_WORKERS]; /* -1: none, or taken */
};

static void broker_each(struct fanout *fanout, struct relay_worker *worker)
{
	struct handover *handover = list_entry(fanout, struct handover, fanout);
	int *fd = &handover->fds[worker->index];
	int err = turn_worker_broker(worker->turn, *fd);

	*fd = -1;
	if (err)
		log_error("main",
			  "event=broker_channel_failed worker=%u error=\"%s\"",
			  worker->index, strerror(-err));
}

static void broker_done(struct fanout *fanout)
{
	struct handover *handover = list_entry(fanout, struct handover, fanout);

	for (size_t i = 0; i < CONF_MAX_WORKERS; i++)
		fd_close(&handover->fds[i]);
	free(handover);
}

int relay_broker(struct relay *relay, const int *fds, size_t count)
{
	struct handover *handover;

	/* One each, or this process had no room for them. */
	if (count != relay->worker_count)
		return -EMFILE;
	handover = calloc(1, sizeof(*handover));
	if (!handover)
		return -ENOMEM;
	for (size_t i = 0; i < CONF_MAX_WORKERS; i++)
		handover->fds[i] = i < count ? fds[i] : -1;
	fanout_start(relay, &handover->fanout, broker_each, broker_done);
	return 0;
}
