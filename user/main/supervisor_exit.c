/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The supervisor's care for the exit role.
 *
 * It is started before the supervisor gives its privileges up, when any exit has a
 * link. One that dies is started again with what is kept for that; a reload ends it
 * and starts one with the new configuration. Between two of them routes and guards
 * stay in the kernel, as they do after the last one.
 *
 * What it says is for the relay: it is passed on unread, and kept for a relay and for an
 * exit role to come.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "exit/exit.h"
#include "main/channel.h"
#include "main/hint.h"
#include "main/supervisor_internal.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "wait4 kill");
SYSCALLS(SYSCALLS_SUPERVISOR, "poll ppoll");

/* What one that ends may take; one that hangs would keep old routes for good. */
#define STOP_LIMIT_MS 5000

static int exit_start(struct supervisor *sup)
{
	sup->exit.renewed = false;
	return supervisor_role_start(sup, &sup->exit.role, exit_process_run,
				     sup->exit.notice);
}

/* Routes that no configuration wants would go unnoticed. */
static void leftovers_tell(const struct supervisor *sup)
{
	size_t changes;

	if (privilege_can_exit() &&
	    !exit_plan(sup->conf, NULL, NULL, &changes) && changes)
		log_warn("main",
			 "event=exits_left changes=%zu reason=\"an earlier "
			 "culvertd had exits, this one has none\" "
			 "hint=\"culvertctl exits remove\"",
			 changes);
}

/* What only may be wrong is for who asks (culvertctl exits check). */
static void setting_tell(void *arg, const struct exit_finding *finding)
{
	(void)arg;
	if (finding->wrong)
		log_warn("main",
			 "event=exit_%s where=\"%s\" reason=\"%s\" "
			 "hint=\"%s\"",
			 finding->name, finding->where, finding->what,
			 finding->hint);
}

void supervisor_exit_start(struct supervisor *sup)
{
	int err;

	if (!exit_wanted(sup->conf)) {
		leftovers_tell(sup);
		return;
	}
	if (!privilege_can_exit()) {
		log_warn("main",
			 "event=exits_off reason=\"no CAP_NET_ADMIN: not "
			 "started as root\" effect=\"packets take the "
			 "system's routes, whatever their source\"");
		return;
	}
	exit_settings_check(sup->conf, setting_tell, NULL);
	err = exit_start(sup);
	if (err)
		hint_log("exit_process", err);
	else
		sup->exit.role.kept = true;
}

void supervisor_exit_died(struct supervisor *sup, int status)
{
	struct supervisor_role *role = &sup->exit.role;

	if (!sup->exit.renewed || status) {
		supervisor_role_died(role, status, "exit",
				     "routes and guards stay as they are");
		return;
	}
	/* As it was told to: the next one is due at once. */
	role->pid = 0;
	fd_close(&role->channel);
	role->restart = (struct retry){ 0 };
}

uint64_t supervisor_exit_due(const struct supervisor *sup)
{
	const struct supervisor_role *role = &sup->exit.role;

	if (!role->kept || sup->stopping)
		return UINT64_MAX;
	if (role->pid)
		return sup->exit.renewed ? sup->exit.kill_at_ms : UINT64_MAX;
	return role->restart.at_ms;
}

static void exit_kill(pid_t pid)
{
	log_error("main",
		  "event=exit_killed reason=\"it did not stop within %d s\"",
		  STOP_LIMIT_MS / 1000);
	kill(pid, SIGKILL);
}

void supervisor_exit_tend(struct supervisor *sup)
{
	int err;

	if (clock_ms() < supervisor_exit_due(sup))
		return;
	if (sup->exit.role.pid) {
		exit_kill(sup->exit.role.pid);
		sup->exit.kill_at_ms = clock_ms() + STOP_LIMIT_MS;
		return;
	}
	err = exit_start(sup);
	if (!err)
		return;
	hint_log("exit_process", err);
	retry_failed(&sup->exit.role.restart);
}

static void notice_take(struct supervisor *sup, int fd)
{
	fd_close(&sup->exit.notice);
	sup->exit.notice = fd;
	/* A relay that does not take it is about to end; the next one has it. */
	if (sup->channel >= 0)
		channel_send(sup->channel, CHANNEL_EXITS, 0, "", &fd, 1);
}

void supervisor_exit_hear(struct supervisor *sup)
{
	struct channel_msg msg;
	int fds[CHANNEL_FDS_MAX];
	size_t count = 0;
	int err = channel_recv(sup->exit.role.channel, &msg, fds, &count);
	bool good = !err && msg.type == CHANNEL_EXITS && count == 1;

	if (good) {
		notice_take(sup, fds[0]);
		return;
	}
	while (count)
		fd_close(&fds[--count]);
	/* No descriptor left for it: the next one comes with the next change. */
	if (!err && msg.type == CHANNEL_EXITS)
		return;
	if (err != -EPIPE)
		log_error("main", "event=channel_bad_message role=exit");
	/* Its end, or the beginning of it. */
	fd_close(&sup->exit.role.channel);
}

void supervisor_exit_renew(struct supervisor *sup)
{
	struct pollfd left = { .fd = sup->exit.role.channel, .events = POLLIN };

	if (!sup->exit.role.pid)
		return;
	if (!sup->exit.renewed)
		sup->exit.kill_at_ms = clock_ms() + STOP_LIMIT_MS;
	/* What it has said is not lost: the next one takes its time. */
	while (left.fd >= 0 && poll(&left, 1, 0) > 0) {
		supervisor_exit_hear(sup);
		left.fd = sup->exit.role.channel;
	}
	sup->exit.renewed = true;
	fd_close(&sup->exit.role.channel);
}

void supervisor_exit_stop(struct supervisor *sup)
{
	struct supervisor_role *role = &sup->exit.role;
	uint64_t until = clock_ms() + STOP_LIMIT_MS;

	fd_close(&sup->exit.notice);
	if (!role->pid)
		return;
	fd_close(&role->channel);
	while (waitpid(role->pid, NULL, WNOHANG) == 0) {
		struct pollfd child = { .fd = sup->signal_fd,
					.events = POLLIN };

		if (clock_ms() >= until) {
			exit_kill(role->pid);
			waitpid(role->pid, NULL, 0);
			break;
		}
		poll(&child, 1, 100);
	}
	role->pid = 0;
}
