/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The broker role: a process around user/broker. The supervisor hands it, over the
 * channel, its ends of the relay's channels, and tells it when to stop: then all
 * pairs are reset and nothing stays in the kernel. When the supervisor is gone
 * without a word, everything stays for the next one.
 */
#include "main/role.h"

#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/log.h"
#include "base/syscalls.h"
#include "broker/broker.h"
#include "loop/loop.h"
#include "main/channel.h"
#include "main/filter.h"
#include "main/hint.h"
#include "main/privilege.h"
#include "main/supervisor_internal.h"

SYSCALLS(SYSCALLS_BROKER_START, "rt_sigaction sched_setscheduler");
SYSCALLS(SYSCALLS_BROKER, "close");

struct process {
	struct loop *loop;
	struct watch channel;
	struct broker *broker;
	bool stop; /* the clean end was asked for */
};

static void channel_ready(struct watch *watch, uint32_t events)
{
	struct process *process = list_entry(watch, struct process, channel);
	struct channel_msg msg;
	int fds[CHANNEL_FDS_MAX];
	size_t count = 0;
	int err = channel_recv(watch->fd, &msg, fds, &count);

	(void)events;
	/* What it has no room for the worker asks for again. */
	if (!err && msg.type == CHANNEL_BROKER && count == 1)
		broker_serve(process->broker, (unsigned int)msg.result,
			     fds[--count]);
	while (count)
		close(fds[--count]);
	if (err || msg.type == CHANNEL_STOP) {
		process->stop = !err;
		loop_stop(process->loop);
	}
}

static int process_start(struct process *process,
			 const struct role_params *params)
{
	const struct conf_engine *engine = &params->conf->engine;
	struct broker_params broker = {
		.pin = engine->pin,
		.pairs = supervisor_wire_wanted(params->conf) ?
				 engine->wire_pairs :
				 0,
		.lanes = engine->wire_channels,
		.devices = (const char *const *)engine->wire_devices,
		.device_count = engine->wire_device_count,
	};
	int err = loop_new(&process->loop);

	if (err)
		return err;
	broker.loop = process->loop;
	err = broker_new(&broker, &process->broker);
	if (err)
		return err;
	err = privilege_broker(params->supervisor);
	if (err)
		return err;
	broker_confine(process->broker);
	err = filter_enter("broker", SYSCALLS_BROKER, params->conf->seccomp);
	if (err)
		return err;
	return watch_add(process->loop, &process->channel, params->channel,
			 EPOLLIN, channel_ready);
}

/*
 * A batch job does not take the processor from the worker that has woken it: what that
 * says next is found in the same go. Where it must not be one, it goes on as it is.
 */
static void work_in_batches(void)
{
	const struct sched_param param = { .sched_priority = 0 };

	(void)sched_setscheduler(0, SCHED_BATCH, &param);
}

int broker_process_run(const struct role_params *params)
{
	struct process process = { .channel = { .fd = -1 } };
	int err;

	work_in_batches();
	signal(SIGPIPE, SIG_IGN);
	err = process_start(&process, params);
	if (!err)
		err = loop_run(process.loop);
	if (err)
		hint_log("broker", err);
	else if (process.stop)
		broker_end(process.broker);
	if (process.loop)
		watch_del(process.loop, &process.channel);
	broker_free(process.broker);
	if (process.loop)
		loop_free(process.loop);
	close(params->channel);
	return err ? EXIT_FAILURE : EXIT_SUCCESS;
}
