/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The supervisor's start: all that needs privilege, or whose failure the person
 * who starts it should see. Every failure is logged with what, where, and what to
 * do.
 */
#include "main/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/random.h"
#include "base/syscalls.h"
#include "control/control.h"
#include "crypto/crypto.h"
#include "engine/engine.h"
#include "main/filter.h"
#include "main/hint.h"
#include "main/supervisor_internal.h"

SYSCALLS(SYSCALLS_BEFORE, "geteuid lchown rt_sigaction");
SYSCALLS(SYSCALLS_SUPERVISOR,
	 "openat read close lstat newfstatat unlink unlinkat");

/* *arg, if any: was it about the file itself, not about a line or what one names? */
static void report_line(void *arg, bool is_error, const char *file,
			unsigned int line, const char *message)
{
	const char *kind = is_error ? "error" : "warning";
	bool *whole = arg;

	if (whole && is_error && !line)
		*whole = true;
	if (line)
		fprintf(stderr, "%s:%u: %s: %s\n", file, line, kind, message);
	else
		fprintf(stderr, "%s: %s: %s\n", file, kind, message);
}

int supervisor_check(const char *path)
{
	struct conf *conf;

	if (supervisor_load(path, report_line, NULL, &conf, NULL, NULL))
		return EXIT_FAILURE;
	printf("%s: ok: %zu listeners, %zu realms, %zu users\n", path,
	       conf->listener_count, conf->realm_count, conf->user_count);
	conf_unref(conf);
	return EXIT_SUCCESS;
}

unsigned int supervisor_workers(const struct conf *conf)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	if (conf->workers)
		return conf->workers;
	if (cores < 1)
		return 1;
	return cores > CONF_MAX_WORKERS ? CONF_MAX_WORKERS :
					  (unsigned int)cores;
}

const char *supervisor_listen_hint(const struct supervisor *sup, int err,
				   const struct socket_fault *fault)
{
	const char *hint = hint_for(err);

	switch (err) {
	case -EADDRINUSE:
		return fault->own ?
			       "it overlaps an address this daemon listens on: "
			       "that needs a restart" :
			       "another program has this port: stop it or "
			       "change [listener] address";
	case -EACCES:
		if (sup->user.change && sup->served)
			return "root's privilege for ports below 1024 is given "
			       "up after the start: this needs a restart";
		return "ports below 1024 need root: start as root or change "
		       "[listener] address";
	case -EADDRNOTAVAIL:
		return "this host does not have this address";
	case -EAFNOSUPPORT:
		return "this kernel has no IPv6: take the address out of "
		       "[listener] address";
	default:
		return hint ? hint : "see [listener] address";
	}
}

void supervisor_log_listening(const struct socket_set *set, bool fresh)
{
	char address[ADDR_STRLEN];

	for (size_t i = 0; i < set->count; i++)
		if (!fresh || !set->groups[i].served)
			log_info("main",
				 "event=listening listener=%s address=%s "
				 "transport=%s",
				 set->groups[i].name,
				 addr_format(&set->groups[i].bound, address),
				 set->groups[i].udp ? "udp" : "tcp");
}

static int sockets_start(struct supervisor *sup)
{
	struct socket_fault fault;
	int err = sockets_open(sup->conf, supervisor_workers(sup->conf), NULL,
			       &sup->sockets, &fault);

	if (err)
		log_error("main",
			  "event=listen_failed address=%s error=\"%s\" "
			  "hint=\"%s\"",
			  fault.address, strerror(-err),
			  supervisor_listen_hint(sup, err, &fault));
	return err;
}

static const char *control_hint(int err)
{
	const char *hint = hint_for(err);

	switch (err) {
	case -EADDRINUSE:
		return "another culvertd is running with it: stop that one or "
		       "change [server] control";
	case -ENOENT:
		return "the directory above its directory does not exist: make "
		       "it or change [server] control";
	case -ENAMETOOLONG:
		return "a socket's path has 107 bytes at most: change [server] "
		       "control";
	case -ENOTSOCK:
		return "something else is there: move it away or change "
		       "[server] control";
	case -ENOSPC:
	case -EDQUOT:
		return "no space left there: make some or change [server] "
		       "control";
	default:
		return hint ? hint :
			      "set [server] control to a path this user may "
			      "create";
	}
}

/* Remembers which file the socket is: another daemon may take the path over. */
static void control_remember(struct supervisor *sup)
{
	struct stat file;

	if (lstat(sup->conf->control, &file) == 0)
		sup->control_file = file;
}

void supervisor_control_remove(const struct supervisor *sup)
{
	const char *path = sup->conf->control;
	struct stat file;

	/* An inode's number is soon used again, its time is not. */
	if (lstat(path, &file) < 0 || file.st_dev != sup->control_file.st_dev ||
	    file.st_ino != sup->control_file.st_ino ||
	    file.st_mtim.tv_sec != sup->control_file.st_mtim.tv_sec ||
	    file.st_mtim.tv_nsec != sup->control_file.st_mtim.tv_nsec)
		return;
	if (unlink(path) < 0)
		log_warn("main",
			 "event=control_left path=%s error=\"%s\" hint=\"the "
			 "next start replaces it\"",
			 path, strerror(errno));
}

static int control_start(struct supervisor *sup)
{
	const char *path = sup->conf->control;
	int fd = control_listen(path);

	if (fd < 0) {
		log_error("main",
			  "event=control_failed path=%s error=\"%s\" "
			  "hint=\"%s\"",
			  path, strerror(-fd), control_hint(fd));
		return fd;
	}
	sup->control_fd = fd;
	control_remember(sup);
	/* The relay's group may connect, when it is culvert's own; everybody
	 * else needs root.
	 */
	if (sup->user.change && !sup->user.stand_in &&
	    lchown(path, 0, sup->user.gid) < 0)
		log_warn("main",
			 "event=control_group_failed path=%s "
			 "error=\"%s\"",
			 path, strerror(errno));
	return 0;
}

static int signals_start(struct supervisor *sup)
{
	sigset_t set;

	/* Ignored by the caller, it would hide the relay's death from us. */
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	sup->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (sup->signal_fd >= 0)
		return 0;
	int err = -errno;

	hint_log("signalfd", err);
	return err;
}

/* A reload reads the file as root without root's privileges: can it? */
static void path_check(const struct supervisor *sup)
{
	int fd = open(sup->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (fd < 0 && errno == EACCES)
		log_warn("main",
			 "event=reload_impossible file=%s error=\"%s\" "
			 "hint=\"root without privileges must be able to read "
			 "it: chown root the file and its directory\"",
			 sup->path, strerror(errno));
	fd_close(&fd);
}

static int privileges_drop(struct supervisor *sup)
{
	int err = privilege_supervisor(&sup->user, sup->broker.role.kept,
				       sup->exit.role.kept);

	if (err)
		log_error("main",
			  "event=privilege_failed error=\"%s\" hint=\"as root "
			  "it needs CAP_SETUID and CAP_SETGID; or start it "
			  "as an ordinary user\"",
			  strerror(-err));
	else
		path_check(sup);
	return err;
}

/* Its children's calls are its own: they begin behind its filter. */
static int filter_start(const struct supervisor *sup)
{
	unsigned int roles = SYSCALLS_SUPERVISOR | SYSCALLS_RELAY;

	if (sup->broker.role.kept)
		roles |= SYSCALLS_BROKER_START | SYSCALLS_BROKER;
	if (conf_engine_wanted(sup->conf, "uring"))
		roles |= SYSCALLS_URING;
	if (sup->exit.role.kept)
		roles |= SYSCALLS_EXIT;
	if (conf_database_wanted(sup->conf))
		roles |= SYSCALLS_STORE;
	if (conf_database_remote(sup->conf))
		roles |= SYSCALLS_REMOTE;
	return filter_enter("supervisor", roles, sup->conf->seccomp);
}

static void load_hint(int err)
{
	if (err == -ENOENT)
		fprintf(stderr, "culvertd: write it, see culvert.conf(5), or "
				"name another one with -c FILE\n");
	if (err == -EACCES)
		fprintf(stderr, "culvertd: start it as root, or as who may "
				"read that file\n");
}

int supervisor_start(struct supervisor *sup)
{
	bool whole = false;
	int err = privilege_clean_files();

	if (err) {
		hint_log("descriptors", err);
		return err;
	}
	err = supervisor_load(sup->path, report_line, &whole, &sup->conf, NULL,
			      NULL);
	if (whole)
		load_hint(err);
	if (err)
		return err;
	sup->config_loads = 1;
	log_set_level(sup->conf->log_level);
	random_bytes(sup->nonce_secret, sizeof(sup->nonce_secret));
	privilege_hide_memory();
	privilege_raise_files();
	crypto_init();
	err = privilege_find_user(sup->conf->user, &sup->user);
	if (err)
		return err;
	if (!sup->user.change)
		log_info("main",
			 "event=unprivileged uid=%u off=\"change of "
			 "user; ports below 1024\" reason=\"%s\"",
			 (unsigned int)geteuid(),
			 geteuid() ? "not started as root" :
				     "root of a user namespace without other "
				     "users");
	err = signals_start(sup);
	if (!err)
		err = sockets_start(sup);
	if (!err)
		err = control_start(sup);
	if (err)
		return err;
	supervisor_broker_start(sup);
	supervisor_exit_start(sup);
	/* Who has privilege loads the kernel's module by asking for it. */
	if (sup->conf->engine.ktls)
		engine_ktls_probe();
	err = privileges_drop(sup);
	return err ? err : filter_start(sup);
}
