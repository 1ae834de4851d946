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
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/syscalls.h"
#include "broker/broker.h"
#include "main/hint.h"
#include "main/supervisor_internal.h"

SYSCALLS(SYSCALLS_SUPERVISOR, "wait4 kill");
SYSCALLS(SYSCALLS_SUPERVISOR, "poll ppoll socketpair geteuid close");

_Static_assert(CONF_MAX_WORKERS <= 64, "a bit each");

/* Resetting 100,000 pairs takes some seconds. */
#define STOP_LIMIT_MS 30000

bool supervisor_wire_wanted(const struct conf *conf)
{
	return conf_engine_wanted(conf, "wire");
}

/* Old programs never stay attached under a daemon that does not want them. */
static void leftovers_remove(const struct supervisor *sup)
{
	bool found;
	pid_t holder;

	if (geteuid() == 0 && privilege_can_broker() &&
	    !broker_flush(sup->conf->engine.pin, &found, &holder) && found)
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
	err = supervisor_role_start(sup, &sup->broker.role, broker_process_run,
				    -1);
	if (err)
		hint_log("broker_process", err);
	else
		sup->broker.role.kept = true;
}

/* A channel of this worker: its end of it, or a negative errno. */
static int channel_make(const struct supervisor *sup, unsigned int worker)
{
	int pair[2], err;

	if (sup->broker.role.channel < 0)
		return -ENOTCONN;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
		       0, pair) < 0)
		return -errno;
	err = channel_send(sup->broker.role.channel, CHANNEL_BROKER,
			   (int)worker, "", &pair[1], 1);
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
		if (i >= sup->sockets.workers || !sup->broker.role.kept)
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
	if (!broker->role.pid || broker->wanting & bit)
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
	sup->broker.wanting = 0;
	supervisor_role_died(&sup->broker.role, status, "broker",
			     "pairs on wire go on, no new ones");
}

uint64_t supervisor_broker_due(const struct supervisor *sup)
{
	const struct supervisor_broker *broker = &sup->broker;

	if (!broker->role.kept || sup->stopping)
		return UINT64_MAX;
	if (!broker->role.pid)
		return broker->role.restart.at_ms;
	if (!sup->relay || !broker->wanting)
		return UINT64_MAX;
	return broker->give.at_ms;
}

static void broker_restart(struct supervisor *sup)
{
	int err = supervisor_role_start(sup, &sup->broker.role,
					broker_process_run, -1);

	if (err) {
		hint_log("broker_process", err);
		retry_failed(&sup->broker.role.restart);
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
	if (!sup->broker.role.pid) {
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
	struct pollfd end = { .fd = broker->role.channel, .events = POLLIN };
	int status = 0;

	if (!broker->role.pid)
		return;
	channel_send(broker->role.channel, CHANNEL_STOP, 0, "", NULL, 0);
	/* It says nothing: readable is its end. */
	if (poll(&end, 1, STOP_LIMIT_MS) <= 0) {
		log_error("main",
			  "event=broker_killed reason=\"it did not stop "
			  "within %d s\"",
			  STOP_LIMIT_MS / 1000);
		kill(broker->role.pid, SIGKILL);
	}
	waitpid(broker->role.pid, &status, 0);
	broker->role.pid = 0;
	fd_close(&broker->role.channel);
	if (status == 0)
		broker_pin_remove(sup->conf->engine.pin);
}
