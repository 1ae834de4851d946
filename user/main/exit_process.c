/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The exit role: a process around user/exit. It tells the supervisor, for the relay,
 * which sources have no way out; on the same channel nothing is said to it. It ends when
 * the supervisor closes that, for a new one with another configuration or for good, and
 * leaves the kernel's state as it is: routing goes on without culvertd.
 */
#include "main/role.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "exit/exit.h"
#include "loop/loop.h"
#include "main/channel.h"
#include "main/filter.h"
#include "main/hint.h"
#include "main/privilege.h"

SYSCALLS(SYSCALLS_EXIT, "close");
SYSCALLS_EQUAL(SYSCALLS_SUPERVISOR, "rt_sigaction", 0, SIGPIPE);

struct process {
	struct loop *loop;
	struct watch channel;
	struct exit_helper *helper;
	int lock;
};

static void notice_send(void *arg, const struct exit_notice *notice)
{
	struct process *process = arg;
	int fd = exit_notice_pack(notice);
	int err = fd < 0 ? fd :
			   channel_send(process->channel.fd, CHANNEL_EXITS, 0,
					"", &fd, 1);

	/* It is gone when we are to end. */
	if (err && err != -EPIPE)
		log_error("main",
			  "event=exits_not_told reason=\"the relay cannot be "
			  "told which exits are dead\" error=\"%s\" "
			  "effect=\"it goes by what it was told before\"",
			  strerror(-err));
	fd_close(&fd);
}

/* Nothing is said to us: readable is its end. */
static void channel_ready(struct watch *watch, uint32_t events)
{
	struct process *process = list_entry(watch, struct process, channel);

	(void)events;
	loop_stop(process->loop);
}

/* A file, so before this process gives up the right to open any. */
static int lock_start(struct process *process)
{
	pid_t holder;
	int fd = exit_lock(&holder);

	if (fd == -EBUSY)
		log_error("main",
			  "event=exits_held process=%d reason=\"another "
			  "culvertd keeps the exits of this network "
			  "namespace\" hint=\"stop that one, or take [exit] "
			  "out of this one's configuration\"",
			  (int)holder);
	else if (fd == -EPERM)
		log_error("main",
			  "event=start_failed step=\"lock of exits\" "
			  "error=\"%s\" hint=\"" LOCK_HINT "\"",
			  strerror(-fd));
	else if (fd < 0)
		hint_log("lock " LOCK_DIRECTORY "/" EXIT_LOCK ".lock", fd);
	process->lock = fd;
	return fd < 0 ? fd : 0;
}

/* Without it all begins anew, and the exits work. */
static void notice_take(int fd, struct exit_notice *out)
{
	int err = fd < 0 ? 0 : exit_notice_unpack(fd, out);

	if (err)
		log_warn("main",
			 "event=exits_forgotten reason=\"what the last exit "
			 "process has told cannot be read\" error=\"%s\" "
			 "effect=\"counts and times of exits begin anew\"",
			 strerror(-err));
	fd_close(&fd);
}

static int process_start(struct process *process,
			 const struct role_params *params)
{
	const struct exit_listener listener = { notice_send, process };
	struct exit_notice before = { .dead = NULL };
	int err = loop_new(&process->loop);
	int probes = exit_probe_socket(params->conf);

	if (probes < 0 && probes != -ENOENT)
		log_error("exit",
			  "event=probes_off error=\"%s\" effect=\"exits with "
			  "health = probe are taken for well\" hint=\"start as "
			  "root, with CAP_NET_RAW\"",
			  strerror(-probes));
	notice_take(params->notice, &before);
	if (!err)
		err = privilege_exit(params->supervisor);
	if (!err)
		err = watch_add(process->loop, &process->channel,
				params->channel, EPOLLIN, channel_ready);
	if (!err)
		err = exit_new(process->loop, params->conf, &listener, &before,
			       probes, &process->helper);
	exit_notice_clear(&before);
	if (!err)
		err = filter_enter("exit", SYSCALLS_EXIT,
				   params->conf->seccomp);
	return err;
}

int exit_process_run(const struct role_params *params)
{
	struct process process = { .channel = { .fd = -1 } };
	int err;

	signal(SIGPIPE, SIG_IGN);
	if (lock_start(&process))
		return EXIT_FAILURE;
	err = process_start(&process, params);
	if (!err)
		err = loop_run(process.loop);
	if (err)
		hint_log("exits", err);
	exit_free(process.helper);
	close(process.lock);
	if (process.loop) {
		watch_close(process.loop, &process.channel);
		loop_free(process.loop);
	}
	return err ? EXIT_FAILURE : EXIT_SUCCESS;
}
