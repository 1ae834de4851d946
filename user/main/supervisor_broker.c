/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The supervisor's care for the broker.
 *
 * It is started before the supervisor gives its privileges up, when any connection
 * may go on wire; one that dies is started again with what is kept for that. Every
 * worker of every relay has a channel to it, made here: an end each goes to the
 * relay and to the broker. One that ends while the broker lives, because one of the
 * two broke a rule or lacked memory, is made anew when the relay asks, the later the
 * more often it does. It is stopped after the relay and then takes everything
 * out of the kernel; killed, it leaves all in place for the next one.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "broker/broker.h"
#include "main/broker_process.h"
#include "main/hint.h"
#include "main/supervisor_internal.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "clone set_robust_list wait4 kill");
SYSCALLS(SYSCALLS_SUPERVISOR, "poll ppoll socketpair geteuid close");

_Static_assert(CONF_MAX_WORKERS <= 64, "a bit each");

/* Resetting 100,000 pairs takes some seconds. */
#define STOP_LIMIT_MS 30000

bool supervisor_wire_wanted(const struct conf *conf)
{
	return conf_engine_wanted(conf, "wire");
}

static void broker_child(struct supervisor *sup, pid_t supervisor, int channel)
{
	struct broker_process_params params = {
		.conf = sup->conf,
		.supervisor = supervisor,
		.channel = channel,
	};
	int status;

	supervisor_child_close(sup);
	status = broker_process_run(&params);
	conf_unref(sup->conf);
	exit(status);
}

static int broker_start(struct supervisor *sup)
{
	struct supervisor_broker *broker = &sup->broker;
	pid_t pid, supervisor = getpid();
	int fds[2];
	int err = channel_new(fds);

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
		broker_child(sup, supervisor, fds[1]);
	}
	close(fds[1]);
	broker->channel = fds[0];
	broker->pid = pid;
	retry_began(&broker->restart);
	return 0;
}

/* Old programs never stay attached under a daemon that does not want them. */
static void leftovers_remove(const struct supervisor *sup)
{
	bool found;

	if (geteuid() == 0 && privilege_can_broker() &&
	    !broker_flush(sup->conf->engine.pin, &found) && found)
		log_info("main",
			 "event=wire_removed reason=\"an earlier culvertd left "
			 "it, this one does not use it\"");
}

void supervisor_broker_start(struct supervisor *sup)
{
	int err;

	bool wire = supervisor_wire_wanted(sup->conf);

	if (!wire)
		leftovers_remove(sup);
	if (!wire && !conf_engine_wanted(sup->conf, "sockmap"))
		return;
	if (!privilege_can_broker()) {
		log_info("main",
			 "event=broker_off off=\"wire, sockmap\" "
			 "reason=\"no CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: "
			 "not started as root\" using=\"the next in [engine] "
			 "order\"");
		return;
	}
	err = broker_start(sup);
	if (err)
		hint_log("broker_process", err);
	else
		sup->broker.kept = true;
}

/* A channel of this worker: its end of it, or a negative errno. */
static int channel_make(const struct supervisor *sup, unsigned int worker)
{
	int pair[2], err;

	if (sup->broker.channel < 0)
		return -ENOTCONN;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
		       0, pair) < 0)
		return -errno;
	err = channel_send(sup->broker.channel, CHANNEL_BROKER, (int)worker, "",
			   &pair[1], 1);
	close(pair[1]);
	if (!err)
		return pair[0];
	close(pair[0]);
	return err;
}

/* With a broker that has died this is no news: the next one gets new ones. */
static void channel_failed(struct supervisor *sup, unsigned int worker, int err)
{
	if (err != -ENOTCONN && err != -EPIPE)
		log_error("main",
			  "event=broker_channel_failed worker=%u error=\"%s\"",
			  worker, strerror(-err));
	supervisor_broker_want(sup, (int)worker);
}

void supervisor_broker_channels(struct supervisor *sup,
				int relay[CONF_MAX_WORKERS])
{
	sup->broker.wanting = 0;
	for (unsigned int i = 0; i < CONF_MAX_WORKERS; i++) {
		relay[i] = -1;
		if (i >= sup->sockets.workers || !sup->broker.kept)
			continue;
		relay[i] = channel_make(sup, i);
		if (relay[i] < 0)
			channel_failed(sup, i, relay[i]);
	}
}

void supervisor_broker_want(struct supervisor *sup, int worker)
{
	struct supervisor_broker *broker = &sup->broker;
	uint64_t bit;

	if (worker < 0 || (unsigned int)worker >= sup->sockets.workers) {
		log_error("main", "event=channel_bad_message worker=%d",
			  worker);
		return;
	}
	bit = UINT64_C(1) << worker;
	/* One that is started anew gives each worker a channel anyway. */
	if (!broker->pid || broker->wanting & bit)
		return;
	if (!broker->wanting)
		retry_ended(&broker->give);
	broker->wanting |= bit;
}

/* The relay that runs gets channels, for those of its workers that want one. */
static void channels_give(struct supervisor *sup)
{
	uint64_t wanting = sup->broker.wanting;

	retry_began(&sup->broker.give);
	sup->broker.wanting = 0;
	for (unsigned int i = 0; i < sup->sockets.workers; i++) {
		int fd;

		if (!(wanting >> i & 1))
			continue;
		fd = channel_make(sup, i);
		if (fd < 0) {
			channel_failed(sup, i, fd);
			continue;
		}
		/* When the relay does not take it, it is about to end. */
		channel_send(sup->channel, CHANNEL_BROKER, (int)i, "", &fd, 1);
		close(fd);
		log_debug("main", "event=broker_channel_new worker=%u", i);
	}
}

void supervisor_broker_died(struct supervisor *sup, int status)
{
	struct supervisor_broker *broker = &sup->broker;
	uint64_t wait = retry_ended(&broker->restart);
	bool killed = WIFSIGNALED(status);

	broker->pid = 0;
	broker->wanting = 0;
	fd_close(&broker->channel);
	log_error("main",
		  "event=broker_died %s=%d restart_in_ms=%ju effect=\"pairs "
		  "on wire go on, no new ones\"",
		  killed ? "signal" : "status",
		  killed ? WTERMSIG(status) : WEXITSTATUS(status),
		  (uintmax_t)wait);
}

uint64_t supervisor_broker_due(const struct supervisor *sup)
{
	const struct supervisor_broker *broker = &sup->broker;

	if (!broker->kept || sup->stopping)
		return UINT64_MAX;
	if (!broker->pid)
		return broker->restart.at_ms;
	if (!sup->relay || !broker->wanting)
		return UINT64_MAX;
	return broker->give.at_ms;
}

static void broker_restart(struct supervisor *sup)
{
	int err = broker_start(sup);

	if (err) {
		hint_log("broker_process", err);
		retry_failed(&sup->broker.restart);
		return;
	}
	/* A relay that is not there yet gets its channels when it starts. */
	sup->broker.wanting = sup->relay ? UINT64_MAX : 0;
	channels_give(sup);
}

void supervisor_broker_tend(struct supervisor *sup)
{
	if (clock_ms() < supervisor_broker_due(sup))
		return;
	if (!sup->broker.pid) {
		broker_restart(sup);
		return;
	}
	log_warn("main",
		 "event=broker_channel_ended workers=0x%jx waited_ms=%ju "
		 "action=\"another one\"",
		 (uintmax_t)sup->broker.wanting,
		 (uintmax_t)sup->broker.give.wait_ms);
	channels_give(sup);
}

void supervisor_broker_stop(struct supervisor *sup)
{
	struct supervisor_broker *broker = &sup->broker;
	struct pollfd end = { .fd = broker->channel, .events = POLLIN };
	int status = 0;

	if (!broker->pid)
		return;
	channel_send(broker->channel, CHANNEL_STOP, 0, "", NULL, 0);
	/* It says nothing: readable is its end. */
	if (poll(&end, 1, STOP_LIMIT_MS) <= 0) {
		log_error("main",
			  "event=broker_killed reason=\"it did not stop "
			  "within %d s\"",
			  STOP_LIMIT_MS / 1000);
		kill(broker->pid, SIGKILL);
	}
	waitpid(broker->pid, &status, 0);
	broker->pid = 0;
	fd_close(&broker->channel);
	if (status == 0)
		broker_pin_remove(sup->conf->engine.pin);
}
