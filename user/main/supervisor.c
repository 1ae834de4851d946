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
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/random.h"
#include "control/control.h"
#include "crypto/crypto.h"
#include "main/channel.h"
#include "main/privilege.h"
#include "main/relay.h"
#include "main/sockets.h"

#define RESTART_MIN_MS 100
#define RESTART_MAX_MS 10000
/* A relay that ran this long was healthy: the next death waits the least. */
#define RESTART_HEALTHY_MS 10000

struct supervisor {
	const char *path;
	struct conf *conf;
	struct socket_set sockets;
	struct privilege_user user;
	uint8_t nonce_secret[AUTH_SECRET_LEN];
	uint64_t config_loads;
	int control_fd;
	int signal_fd;
	int channel; /* to the relay; -1 while there is none */
	pid_t relay; /* 0 while there is none */
	bool ready; /* the relay has said so */
	bool stopping;
	uint64_t started_ms, restart_at_ms, restart_delay_ms;
	/* A reload sent and not yet answered: what will be in force then. */
	struct conf *next_conf;
	struct socket_set next_sockets;
	int status;
};

static void report_line(void *arg, bool is_error, const char *file,
			unsigned int line, const char *message)
{
	char *first = arg; /* 256 bytes: the first error, for culvertctl */

	if (line)
		fprintf(stderr, "%s:%u: %s: %s\n", file, line,
			is_error ? "error" : "warning", message);
	else
		fprintf(stderr, "%s: %s: %s\n", file,
			is_error ? "error" : "warning", message);
	if (first && is_error && !*first)
		snprintf(first, 256, "%s:%u: %s", file, line, message);
}

int supervisor_check(const char *path)
{
	struct conf *conf;

	if (conf_load(path, report_line, NULL, &conf, NULL, NULL))
		return EXIT_FAILURE;
	printf("%s: ok: %zu listeners, %zu realms, %zu users\n", path,
	       conf->listener_count, conf->realm_count, conf->user_count);
	conf_unref(conf);
	return EXIT_SUCCESS;
}

static unsigned int workers_wanted(const struct conf *conf)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	if (conf->workers)
		return conf->workers;
	if (cores < 1)
		return 1;
	return cores > CONF_MAX_WORKERS ? CONF_MAX_WORKERS :
					  (unsigned int)cores;
}

static const char *listen_hint(int err)
{
	switch (err) {
	case -EADDRINUSE:
		return "another program has this port: stop it or change "
		       "[listener] address";
	case -EACCES:
		return "ports below 1024 need root: start as root or change "
		       "[listener] address";
	case -EADDRNOTAVAIL:
		return "this host does not have this address";
	default:
		return "see [listener] address";
	}
}

static int sockets_start(struct supervisor *sup)
{
	char where[ADDR_STRLEN];
	int err = sockets_open(sup->conf, workers_wanted(sup->conf), NULL,
			       &sup->sockets, where);

	if (err)
		log_error("main",
			  "event=listen_failed address=%s error=\"%s\" "
			  "hint=\"%s\"",
			  where, strerror(-err), listen_hint(err));
	return err;
}

static int control_start(struct supervisor *sup)
{
	const char *path = sup->conf->control;
	int fd = control_listen(path);

	if (fd < 0) {
		log_error("main",
			  "event=control_failed path=%s error=\"%s\" "
			  "hint=\"%s\"",
			  path, strerror(-fd),
			  fd == -EADDRINUSE ?
				  "another culvertd is running with it" :
				  "set [server] control to a path this user "
				  "may create");
		return fd;
	}
	/* The relay's group may connect; everybody else needs root. */
	if (sup->user.change && chown(path, 0, sup->user.gid) < 0)
		log_warn("main",
			 "event=control_group_failed path=%s "
			 "error=\"%s\"",
			 path, strerror(errno));
	sup->control_fd = fd;
	return 0;
}

static int signals_start(struct supervisor *sup)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	sup->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return sup->signal_fd < 0 ? -errno : 0;
}

/* In the child: what is the supervisor's alone is closed, then the role runs. */
static void relay_child(struct supervisor *sup, int channel)
{
	struct relay_params params = {
		.conf = sup->conf,
		.sockets = &sup->sockets,
		.user = &sup->user,
		.control_fd = sup->control_fd,
		.channel = channel,
		.config_loads = sup->config_loads,
	};
	int status;

	fd_close(&sup->signal_fd);
	memcpy(params.nonce_secret, sup->nonce_secret,
	       sizeof(params.nonce_secret));
	status = relay_run(&params);
	free(sup->sockets.groups);
	conf_unref(sup->conf);
	exit(status);
}

static int relay_start(struct supervisor *sup)
{
	int fds[2];
	int err = channel_new(fds);
	pid_t pid;

	if (err)
		return err;
	pid = fork();
	if (pid < 0) {
		err = -errno;
		close(fds[0]);
		close(fds[1]);
		return err;
	}
	if (pid == 0) {
		close(fds[0]);
		relay_child(sup, fds[1]);
	}
	close(fds[1]);
	sup->channel = fds[0];
	sup->relay = pid;
	sup->ready = false;
	sup->started_ms = clock_ms();
	return 0;
}

static void log_ready(const struct supervisor *sup)
{
	char address[ADDR_STRLEN];

	for (size_t i = 0; i < sup->sockets.count; i++)
		log_info("main", "event=listening listener=%s address=%s",
			 sup->sockets.groups[i].name,
			 addr_format(&sup->sockets.groups[i].addr, address));
	log_info("main",
		 "event=ready version=%s workers=%u users=%zu "
		 "control=%s",
		 CULVERT_VERSION, sup->sockets.workers, sup->conf->user_count,
		 sup->conf->control);
}

static void reload_drop(struct supervisor *sup)
{
	if (!sup->next_conf)
		return;
	sockets_close(&sup->next_sockets, &sup->sockets);
	conf_unref(sup->next_conf);
	sup->next_conf = NULL;
}

static void reload_taken(struct supervisor *sup, const struct channel_msg *msg)
{
	if (!sup->next_conf)
		return;
	if (msg->result) {
		log_error("main", "event=reload_failed reason=\"%s\"",
			  msg->text);
		reload_drop(sup);
		return;
	}
	sockets_close(&sup->sockets, &sup->next_sockets);
	sup->sockets = sup->next_sockets;
	conf_unref(sup->conf);
	sup->conf = sup->next_conf;
	sup->next_conf = NULL;
	sup->config_loads++;
	log_set_level(sup->conf->log_level);
	log_info("main", "event=reloaded file=%s users=%zu", sup->path,
		 sup->conf->user_count);
}

/* What a running daemon cannot change: NULL, or the key that differs. */
static const char *reload_fixed(const struct supervisor *sup,
				const struct conf *next)
{
	if (workers_wanted(next) != sup->sockets.workers)
		return "[server] workers";
	if (strcmp(next->control, sup->conf->control) != 0)
		return "[server] control";
	if (strcmp(next->user, sup->conf->user) != 0)
		return "[server] user";
	return NULL;
}

static int text_fd(const char *text, size_t len)
{
	int fd = memfd_create("culvert.conf", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (size_t at = 0; at < len;) {
		ssize_t n = write(fd, text + at, len - at);

		if (n <= 0) {
			int err = n < 0 ? -errno : -EIO;

			close(fd);
			return err;
		}
		at += (size_t)n;
	}
	return fd;
}

static int reload_send(struct supervisor *sup, const char *text, size_t len)
{
	int fd = text_fd(text, len);
	int err;

	if (fd < 0)
		return fd;
	err = channel_send(sup->channel, CHANNEL_RELOAD, 0, "", &fd, 1);
	close(fd);
	for (size_t i = 0; i < sup->next_sockets.count && !err; i++) {
		const struct socket_group *group = &sup->next_sockets.groups[i];

		if (!group->kept)
			err = channel_send(sup->channel, CHANNEL_LISTENER, 0,
					   group->name, group->fds,
					   sup->next_sockets.workers);
	}
	if (!err)
		err = channel_send(sup->channel, CHANNEL_COMMIT, 0, "", NULL,
				   0);
	return err;
}

/* Opens what is new and sends all. 0, or negative with `why` filled. */
static int reload_apply(struct supervisor *sup, struct conf *next,
			const char *text, size_t len, char why[256])
{
	char where[ADDR_STRLEN];
	const char *fixed = reload_fixed(sup, next);
	int err;

	if (fixed) {
		snprintf(why, 256, "%s has changed: that needs a restart",
			 fixed);
		return -EBUSY;
	}
	err = sockets_open(next, sup->sockets.workers, &sup->sockets,
			   &sup->next_sockets, where);
	if (err) {
		snprintf(why, 256, "cannot listen on %s: %s (%s)", where,
			 strerror(-err), listen_hint(err));
		return err;
	}
	sup->next_conf = conf_ref(next);
	err = reload_send(sup, text, len);
	if (err) {
		snprintf(why, 256, "the relay does not answer: %s",
			 strerror(-err));
		reload_drop(sup);
	}
	return err;
}

static void reload(struct supervisor *sup)
{
	char why[256] = "";
	struct conf *next = NULL;
	char *text = NULL;
	size_t len = 0;
	int err = -EBUSY;

	if (!sup->relay || sup->next_conf)
		snprintf(why, sizeof(why),
			 "another reload is under way or the "
			 "relay is starting: try again");
	else
		err = conf_load(sup->path, report_line, why, &next, &text,
				&len);
	if (!err)
		err = reload_apply(sup, next, text, len, why);
	if (err) {
		log_error("main",
			  "event=reload_refused file=%s reason=\"%s\" "
			  "using=\"the configuration as it was\"",
			  sup->path, why);
		if (sup->relay)
			channel_send(sup->channel, CHANNEL_REFUSED, err, why,
				     NULL, 0);
	}
	conf_unref(next);
	if (text)
		crypto_wipe(text, len);
	free(text);
}

static void stop(struct supervisor *sup)
{
	if (sup->stopping)
		return;
	sup->stopping = true;
	log_info("main", "event=stopping");
	if (sup->relay)
		channel_send(sup->channel, CHANNEL_STOP, 0, "", NULL, 0);
}

/* The relay process has ended with this status. */
static void relay_ended(struct supervisor *sup, int status)
{
	uint64_t now = clock_ms();

	sup->relay = 0;
	fd_close(&sup->channel);
	reload_drop(sup);
	if (sup->stopping)
		return;
	if (WIFEXITED(status) && WEXITSTATUS(status) == RELAY_EXIT_FATAL) {
		sup->status = EXIT_FAILURE;
		sup->stopping = true;
		return;
	}
	if (now - sup->started_ms >= RESTART_HEALTHY_MS)
		sup->restart_delay_ms = RESTART_MIN_MS;
	sup->restart_at_ms = now + sup->restart_delay_ms;
	log_error("main", "event=relay_died %s=%d restart_in_ms=%llu",
		  WIFSIGNALED(status) ? "signal" : "status",
		  WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
		  (unsigned long long)sup->restart_delay_ms);
	sup->restart_delay_ms *= 2;
	if (sup->restart_delay_ms > RESTART_MAX_MS)
		sup->restart_delay_ms = RESTART_MAX_MS;
}

static void children_reap(struct supervisor *sup)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == sup->relay)
			relay_ended(sup, status);
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
			reload(sup);
			break;
		case SIGCHLD:
			children_reap(sup);
			break;
		default:
			break;
		}
	}
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
		log_ready(sup);
		break;
	case CHANNEL_TAKEN:
		reload_taken(sup, &msg);
		break;
	case CHANNEL_WANT_RELOAD:
		reload(sup);
		break;
	case CHANNEL_WANT_STOP:
		stop(sup);
		break;
	case CHANNEL_RELOAD:
	case CHANNEL_LISTENER:
	case CHANNEL_COMMIT:
	case CHANNEL_REFUSED:
	case CHANNEL_STOP:
	case CHANNEL_TYPES:
		log_error("main", "event=channel_bad_message type=%u",
			  msg.type);
		break;
	}
}

static int wait_ms(const struct supervisor *sup)
{
	uint64_t now = clock_ms();

	if (sup->relay)
		return -1;
	return sup->restart_at_ms > now ? (int)(sup->restart_at_ms - now) : 0;
}

static void supervise(struct supervisor *sup)
{
	while (!sup->stopping || sup->relay) {
		struct pollfd polls[2] = {
			{ .fd = sup->signal_fd, .events = POLLIN },
			{ .fd = sup->channel, .events = POLLIN },
		};

		if (poll(polls, 2, wait_ms(sup)) < 0 && errno != EINTR)
			break;
		if (polls[1].revents)
			channel_handle(sup);
		if (polls[0].revents)
			signal_handle(sup);
		if (sup->relay || sup->stopping ||
		    clock_ms() < sup->restart_at_ms)
			continue;
		int err = relay_start(sup);

		if (err) {
			log_error("main",
				  "event=relay_start_failed "
				  "error=\"%s\"",
				  strerror(-err));
			sup->restart_at_ms = clock_ms() + RESTART_MAX_MS;
		}
	}
}

static int supervisor_start(struct supervisor *sup)
{
	int err =
		conf_load(sup->path, report_line, NULL, &sup->conf, NULL, NULL);

	if (err)
		return err;
	sup->config_loads = 1;
	log_set_level(sup->conf->log_level);
	random_bytes(sup->nonce_secret, sizeof(sup->nonce_secret));
	privilege_raise_files();
	err = privilege_find_user(sup->conf->user, &sup->user);
	if (err) {
		log_error("main",
			  "event=user_missing user=%s hint=\"make it "
			  "with: useradd --system %s\"",
			  sup->conf->user, sup->conf->user);
		return err;
	}
	if (!sup->user.change)
		log_info("main",
			 "event=unprivileged uid=%u off=\"change of "
			 "user; ports below 1024\" reason=\"not started as "
			 "root\"",
			 (unsigned int)geteuid());
	err = signals_start(sup);
	if (!err)
		err = sockets_start(sup);
	if (!err)
		err = control_start(sup);
	if (!err)
		err = privilege_supervisor();
	return err;
}

int supervisor_run(const char *path)
{
	struct supervisor sup = {
		.path = path,
		.control_fd = -1,
		.signal_fd = -1,
		.channel = -1,
		.restart_delay_ms = RESTART_MIN_MS,
		.status = EXIT_SUCCESS,
	};

	if (supervisor_start(&sup))
		sup.status = EXIT_FAILURE;
	else
		supervise(&sup);
	if (sup.control_fd >= 0)
		unlink(sup.conf->control);
	if (sup.status == EXIT_SUCCESS)
		log_info("main", "event=stopped");
	fd_close(&sup.control_fd);
	fd_close(&sup.signal_fd);
	sockets_close(&sup.sockets, NULL);
	conf_unref(sup.conf);
	crypto_wipe(sup.nonce_secret, sizeof(sup.nonce_secret));
	return sup.status;
}
