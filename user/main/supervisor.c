/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The supervisor role.
 *
 * It reads the configuration, opens every listening socket and the control
 * socket while it may, gives its privileges up, and starts the relay. A relay
 * that dies is started again, later each time it dies young; the listening
 * sockets live here, so connections wait in their backlog meanwhile. A reload is
 * checked here first and sent to the relay whole.
 *
 *   starting -> running -> (relay died) waiting -> running ... -> stopping
 */
#include "main/supervisor.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "crypto/crypto.h"
#include "main/hint.h"
#include "main/relay.h"
#include "main/supervisor_internal.h"

SYSCALLS(SYSCALLS_SUPERVISOR,
	 "clone set_robust_list wait4 kill poll ppoll read close");

/* A relay told to stop needs some milliseconds; after this it hangs. */
#define STOP_LIMIT_MS 5000

/*
 * In the child: what is the supervisor's alone is closed, then the role runs. The
 * signals stay blocked: those of a terminal or of systemd reach the relay, too,
 * and it is the supervisor that ends it.
 */
static void relay_child(struct supervisor *sup, pid_t supervisor, int channel,
			const int broker[CONF_MAX_WORKERS])
{
	struct relay_params params = {
		.conf = sup->conf,
		.sockets = &sup->sockets,
		.user = &sup->user,
		.supervisor = supervisor,
		.control_fd = sup->control_fd,
		.channel = channel,
		.config_loads = sup->config_loads,
		.exits = sup->exit.notice,
		.draining = sup->draining,
	};
	int status;

	memcpy(params.broker, broker, sizeof(params.broker));
	fd_close(&sup->signal_fd);
	fd_close(&sup->broker.role.channel);
	fd_close(&sup->exit.role.channel);
	memcpy(params.nonce_secret, sup->nonce_secret,
	       sizeof(params.nonce_secret));
	crypto_wipe(sup->nonce_secret, sizeof(sup->nonce_secret));
	status = relay_run(&params);
	crypto_wipe(params.nonce_secret, sizeof(params.nonce_secret));
	free(sup->sockets.groups);
	conf_unref(sup->conf);
	exit(status);
}

void supervisor_child_close(struct supervisor *sup)
{
	fd_close(&sup->signal_fd);
	fd_close(&sup->control_fd);
	fd_close(&sup->channel);
	fd_close(&sup->broker.role.channel);
	fd_close(&sup->exit.role.channel);
	fd_close(&sup->exit.notice);
	sockets_close(&sup->next_sockets, &sup->sockets);
	sockets_close(&sup->sockets, NULL);
	conf_secrets_forget(sup->conf);
	conf_database_forget(sup->conf);
	if (sup->next_conf) {
		conf_secrets_forget(sup->next_conf);
		conf_database_forget(sup->next_conf);
	}
	conf_unref(sup->next_conf);
	crypto_wipe(sup->nonce_secret, sizeof(sup->nonce_secret));
}

static int relay_start(struct supervisor *sup)
{
	int fds[2], broker[CONF_MAX_WORKERS];
	pid_t pid, supervisor = getpid();
	int err = channel_new(fds);

	if (err)
		return err;
	supervisor_broker_channels(sup, broker);
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		relay_child(sup, supervisor, fds[1], broker);
	}
	err = pid < 0 ? -errno : 0;
	close(fds[1]);
	for (size_t i = 0; i < CONF_MAX_WORKERS; i++)
		fd_close(&broker[i]);
	if (err) {
		close(fds[0]);
		return err;
	}
	sup->channel = fds[0];
	sup->relay = pid;
	sup->ready = false;
	sup->reloads_asked = 0;
	retry_began(&sup->restart);
	return 0;
}

static void log_ready(const struct supervisor *sup)
{
	supervisor_log_listening(&sup->sockets, false);
	log_info("main",
		 "event=ready version=%s workers=%u users=%zu "
		 "control=%s",
		 CULVERT_VERSION, sup->sockets.workers, sup->conf->user_count,
		 sup->conf->control);
}

static void stop(struct supervisor *sup)
{
	if (sup->stopping)
		return;
	sup->stopping = true;
	sup->stop_by_ms = clock_ms() + STOP_LIMIT_MS;
	log_info("main", "event=stopping");
	/* Without a channel it ends by itself. */
	if (sup->channel >= 0)
		channel_send(sup->channel, CHANNEL_STOP, 0, "", NULL, 0);
}

static void relay_kill(struct supervisor *sup)
{
	log_error("main",
		  "event=relay_killed reason=\"it did not stop within "
		  "%d s\"",
		  STOP_LIMIT_MS / 1000);
	sup->stop_by_ms = clock_ms() + STOP_LIMIT_MS;
	if (kill(sup->relay, SIGKILL) < 0)
		log_error("main", "event=kill_failed pid=%d error=\"%s\"",
			  (int)sup->relay, strerror(errno));
}

static void relay_died(struct supervisor *sup, int status)
{
	bool killed = WIFSIGNALED(status);
	int number = killed ? WTERMSIG(status) : WEXITSTATUS(status);
	uint64_t wait;

	if (sup->stopping) {
		log_error("main", "event=relay_died %s=%d while=stopping",
			  killed ? "signal" : "status", number);
		sup->status = EXIT_FAILURE;
		return;
	}
	/* What kept the first relay from starting keeps every other one. */
	if (!killed && number == RELAY_EXIT_FATAL && !sup->served) {
		sup->status = EXIT_FAILURE;
		sup->stopping = true;
		return;
	}
	wait = retry_ended(&sup->restart);
	log_error("main", "event=relay_died %s=%d restart_in_ms=%ju",
		  killed ? "signal" : "status", number, (uintmax_t)wait);
}

static void channel_handle(struct supervisor *sup)
{
	struct channel_msg msg;
	int fds[CHANNEL_FDS_MAX];
	size_t count = 0;
	int err = channel_recv(sup->channel, &msg, fds, &count);

	while (count) /* the relay has no descriptor to give */
		close(fds[--count]);
	if (err) {
		if (err == -EBADMSG)
			log_error("main", "event=channel_bad_message");
		/* Its exit status arrives by SIGCHLD; it ends without us. */
		fd_close(&sup->channel);
		return;
	}
	switch ((enum channel_type)msg.type) {
	case CHANNEL_READY:
		sup->ready = true;
		sup->served = true;
		log_ready(sup);
		supervisor_reload_pending(sup);
		break;
	case CHANNEL_TAKEN:
		supervisor_reload_taken(sup, &msg);
		break;
	case CHANNEL_WANT_RELOAD:
		sup->reloads_asked++;
		supervisor_reload(sup);
		break;
	case CHANNEL_WANT_STOP:
		stop(sup);
		break;
	case CHANNEL_DRAINING:
		sup->draining = msg.result;
		break;
	case CHANNEL_WANT_BROKER:
		supervisor_broker_want(sup, msg.result);
		break;
	case CHANNEL_RELOAD:
	case CHANNEL_LISTENER:
	case CHANNEL_COMMIT:
	case CHANNEL_REFUSED:
	case CHANNEL_STOP:
	case CHANNEL_BROKER:
	case CHANNEL_EXITS:
	case CHANNEL_TYPES:
		log_error("main", "event=channel_bad_message type=%u",
			  msg.type);
		break;
	}
}

/* What the relay said last; its end closes the channel. */
static void channel_finish(struct supervisor *sup)
{
	struct pollfd left = { .fd = sup->channel, .events = POLLIN };

	while (sup->channel >= 0 && poll(&left, 1, 0) > 0)
		channel_handle(sup);
	fd_close(&sup->channel);
}

/* The relay process has ended with this status. */
static void relay_ended(struct supervisor *sup, int status)
{
	sup->relay = 0;
	channel_finish(sup);
	sup->ready = false;
	if (!sup->stopping || status)
		relay_died(sup, status);
	supervisor_reload_drop(sup, sup->stopping ?
					    "culvertd is stopping" :
					    "the relay died while taking it");
	supervisor_reload_pending(sup);
}

static void children_reap(struct supervisor *sup)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == sup->relay)
			relay_ended(sup, status);
		else if (pid == sup->broker.role.pid)
			supervisor_broker_died(sup, status);
		else if (pid == sup->exit.role.pid)
			supervisor_exit_died(sup, status);
}

static void signal_handle(struct supervisor *sup)
{
	struct signalfd_siginfo info;

	while (read(sup->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGINT:
		case SIGTERM:
			stop(sup);
			break;
		case SIGHUP:
			supervisor_reload(sup);
			break;
		case SIGCHLD:
			children_reap(sup);
			break;
		default:
			break;
		}
	}
}

static int wait_ms(const struct supervisor *sup)
{
	uint64_t now = clock_ms();
	uint64_t until = UINT64_MAX;
	uint64_t broker = supervisor_broker_due(sup);
	uint64_t exit_role = supervisor_exit_due(sup);

	if (!sup->relay)
		until = sup->restart.at_ms;
	else if (sup->stopping)
		until = sup->stop_by_ms;
	if (broker < until)
		until = broker;
	if (exit_role < until)
		until = exit_role;
	if (until == UINT64_MAX)
		return -1;
	return until > now ? (int)(until - now) : 0;
}

static void relay_restart(struct supervisor *sup)
{
	int err = relay_start(sup);

	if (!err)
		return;
	hint_log("relay_process", err);
	if (!sup->served) {
		sup->status = EXIT_FAILURE;
		sup->stopping = true;
		return;
	}
	retry_failed(&sup->restart);
	log_info("main", "event=restart_later restart_in_ms=%d", RETRY_MAX_MS);
}

static void supervise(struct supervisor *sup)
{
	while (!sup->stopping || sup->relay) {
		struct pollfd polls[3] = {
			{ .fd = sup->signal_fd, .events = POLLIN },
			{ .fd = sup->channel, .events = POLLIN },
			{ .fd = sup->exit.role.channel, .events = POLLIN },
		};

		if (poll(polls, 3, wait_ms(sup)) < 0 && errno != EINTR) {
			hint_log("poll", -errno);
			sup->status = EXIT_FAILURE;
			break;
		}
		if (polls[1].revents)
			channel_handle(sup);
		/* A reload may have closed it just now. */
		if (polls[2].revents && sup->exit.role.channel >= 0)
			supervisor_exit_hear(sup);
		if (polls[0].revents)
			signal_handle(sup);
		if (sup->stopping && sup->relay &&
		    clock_ms() >= sup->stop_by_ms)
			relay_kill(sup);
		supervisor_broker_tend(sup);
		supervisor_exit_tend(sup);
		if (!sup->stopping && !sup->relay && retry_due(&sup->restart))
			relay_restart(sup);
	}
}

int supervisor_run(const char *path)
{
	struct supervisor sup = {
		.path = path,
		.control_fd = -1,
		.signal_fd = -1,
		.channel = -1,
		.broker = { .role = { .channel = -1 } },
		.exit = { .role = { .channel = -1 }, .notice = -1 },
		.status = EXIT_SUCCESS,
	};

	if (supervisor_start(&sup))
		sup.status = EXIT_FAILURE;
	else
		supervise(&sup);
	supervisor_broker_stop(&sup);
	supervisor_exit_stop(&sup);
	if (sup.control_fd >= 0)
		supervisor_control_remove(&sup);
	if (sup.status == EXIT_SUCCESS)
		log_info("main", "event=stopped");
	fd_close(&sup.control_fd);
	fd_close(&sup.signal_fd);
	sockets_close(&sup.sockets, NULL);
	conf_unref(sup.conf);
	crypto_wipe(sup.nonce_secret, sizeof(sup.nonce_secret));
	return sup.status;
}
