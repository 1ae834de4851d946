/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The supervisor's care for the exit role.
 *
 * It is started before the supervisor gives its privileges up, when any exit has a
 * link. One that dies is started again with what is kept for that; a reload ends it
 * and starts one with the new configuration. Between two of them routes and guards
 * stay in the kernel, as they do after the last one.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "exit/exit.h"
#include "main/exit_process.h"
#include "main/hint.h"
#include "main/supervisor_internal.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "clone set_robust_list wait4 kill");
SYSCALLS(SYSCALLS_SUPERVISOR, "poll ppoll close");

#define STOP_LIMIT_MS 5000

static void exit_child(struct supervisor *sup, pid_t supervisor, int channel)
{
	struct exit_process_params params = {
		.conf = sup->conf,
		.supervisor = supervisor,
		.channel = channel,
	};
	int status;

	supervisor_child_close(sup);
	status = exit_process_run(&params);
	conf_unref(sup->conf);
	exit(status);
}

static int exit_start(struct supervisor *sup)
{
	struct supervisor_exit *role = &sup->exit;
	pid_t pid, supervisor = getpid();
	int fds[2];
	int err = channel_new(fds);

	if (err)
		return err;
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		exit_child(sup, supervisor, fds[1]);
	}
	err = pid < 0 ? -errno : 0;
	close(fds[1]);
	if (err) {
		close(fds[0]);
		return err;
	}
	role->channel = fds[0];
	role->pid = pid;
	role->renewed = false;
	retry_began(&role->restart);
	return 0;
}

/* Routes that no configuration wants would go unnoticed. */
static void leftovers_tell(const struct supervisor *sup)
{
	size_t changes;

	if (privilege_can_exit() && !exit_plan(sup->conf, NULL, &changes) &&
	    changes)
		log_warn("main",
			 "event=exits_left changes=%zu reason=\"an earlier "
			 "culvertd had exits, this one has none\" "
			 "hint=\"culvertctl exits remove\"",
			 changes);
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
	err = exit_start(sup);
	if (err)
		hint_log("exit_process", err);
	else
		sup->exit.kept = true;
}

void supervisor_exit_died(struct supervisor *sup, int status)
{
	struct supervisor_exit *role = &sup->exit;
	bool killed = WIFSIGNALED(status);

	role->pid = 0;
	fd_close(&role->channel);
	/* As it was told to: the next one is due at once. */
	if (role->renewed && !status) {
		role->restart = (struct retry){ 0 };
		return;
	}
	log_error("main",
		  "event=exit_died %s=%d restart_in_ms=%ju effect=\"routes "
		  "and guards stay as they are\"",
		  killed ? "signal" : "status",
		  killed ? WTERMSIG(status) : WEXITSTATUS(status),
		  (uintmax_t)retry_ended(&role->restart));
}

uint64_t supervisor_exit_due(const struct supervisor *sup)
{
	const struct supervisor_exit *role = &sup->exit;

	if (!role->kept || role->pid || sup->stopping)
		return UINT64_MAX;
	return role->restart.at_ms;
}

void supervisor_exit_tend(struct supervisor *sup)
{
	int err;

	if (clock_ms() < supervisor_exit_due(sup))
		return;
	err = exit_start(sup);
	if (!err)
		return;
	hint_log("exit_process", err);
	retry_failed(&sup->exit.restart);
}

void supervisor_exit_renew(struct supervisor *sup)
{
	if (!sup->exit.pid)
		return;
	sup->exit.renewed = true;
	fd_close(&sup->exit.channel);
}

void supervisor_exit_stop(struct supervisor *sup)
{
	struct supervisor_exit *role = &sup->exit;
	uint64_t until = clock_ms() + STOP_LIMIT_MS;

	if (!role->pid)
		return;
	fd_close(&role->channel);
	while (waitpid(role->pid, NULL, WNOHANG) == 0) {
		struct pollfd child = { .fd = sup->signal_fd,
					.events = POLLIN };

		if (clock_ms() >= until) {
			log_error("main",
				  "event=exit_killed reason=\"it did not stop "
				  "within %d s\"",
				  STOP_LIMIT_MS / 1000);
			kill(role->pid, SIGKILL);
			waitpid(role->pid, NULL, 0);
			break;
		}
		poll(&child, 1, 100);
	}
	role->pid = 0;
}
