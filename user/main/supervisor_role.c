/* SPDX-License-Identifier: BSD-2-Clause */
/* What the supervisor's care for the broker and for the exit role share. */
#include <errno.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "main/supervisor_internal.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "clone set_robust_list close");

static void role_child(struct supervisor *sup,
		       int (*run)(const struct role_params *params),
		       pid_t supervisor, int channel, int notice)
{
	struct role_params params = {
		.conf = sup->conf,
		.supervisor = supervisor,
		.channel = channel,
		.notice = notice,
	};
	int status;

	/* It is the child's now. */
	if (notice >= 0)
		sup->exit.notice = -1;
	supervisor_child_close(sup);
	status = run(&params);
	conf_unref(sup->conf);
	exit(status);
}

int supervisor_role_start(struct supervisor *sup, struct supervisor_role *role,
			  int (*run)(const struct role_params *params),
			  int notice)
{
	pid_t pid, supervisor = getpid();
	int fds[2];
	int err = channel_new(fds);

	if (err)
		return err;
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		role_child(sup, run, supervisor, fds[1], notice);
	}
	err = pid < 0 ? -errno : 0;
	close(fds[1]);
	if (err) {
		close(fds[0]);
		return err;
	}
	role->channel = fds[0];
	role->pid = pid;
	retry_began(&role->restart);
	return 0;
}

void supervisor_role_died(struct supervisor_role *role, int status,
			  const char *name, const char *effect)
{
	bool killed = WIFSIGNALED(status);

	role->pid = 0;
	fd_close(&role->channel);
	log_error("main", "event=%s_died %s=%d restart_in_ms=%ju effect=\"%s\"",
		  name, killed ? "signal" : "status",
		  killed ? WTERMSIG(status) : WEXITSTATUS(status),
		  (uintmax_t)retry_ended(&role->restart), effect);
}
