/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The supervisor's care for the broker.
 *
 * It is started before the supervisor gives its privileges up, when any connection
 * may go on wire; one that dies is started again with what is kept for that. Every
 * worker of every relay has a channel to it, made here: an end each goes to the
 * relay and to the broker. It is stopped after the relay and then takes everything
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
#include "broker/broker.h"
#include "crypto/crypto.h"
#include "main/broker_process.h"
#include "main/hint.h"
#include "main/supervisor_internal.h"

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

	fd_close(&sup->signal_fd);
	fd_close(&sup->control_fd);
	fd_close(&sup->channel);
	sockets_close(&sup->next_sockets, &sup->sockets);
	sockets_close(&sup->sockets, NULL);
	conf_unref(sup->next_conf);
	crypto_wipe(sup->nonce_secret, sizeof(sup->nonce_secret));
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

static void pairs_close(int fds[CONF_MAX_WORKERS])
{
	for (size_t i = 0; i < CONF_MAX_WORKERS; i++)
		fd_close(&fds[i]);
}

int supervisor_broker_channels(struct supervisor *sup,
			       int relay[CONF_MAX_WORKERS])
{
	int ends[CONF_MAX_WORKERS];
	int err = 0;

	for (size_t i = 0; i < CONF_MAX_WORKERS; i++) {
		ends[i] = -1;
		relay[i] = -1;
	}
	if (sup->broker.channel < 0)
		return -ENOTCONN;
	for (size_t i = 0; i < sup->sockets.workers && !err; i++) {
		int pair[2];

		if (socketpair(AF_UNIX,
			       SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
			       pair) < 0) {
			err = -errno;
			break;
		}
		relay[i] = pair[0];
		ends[i] = pair[1];
	}
	if (!err)
		err = channel_send(sup->broker.channel, CHANNEL_BROKER, 0, "",
				   ends, sup->sockets.workers);
	pairs_close(ends);
	if (err) {
		pairs_close(relay);
		log_error("main", "event=broker_channel_failed error=\"%s\"",
			  strerror(-err));
	}
	return err;
}

void supervisor_broker_died(struct supervisor *sup, int status)
{
	struct supervisor_broker *broker = &sup->broker;
	uint64_t wait = retry_ended(&broker->restart);
	bool killed = WIFSIGNALED(status);

	broker->pid = 0;
	fd_close(&broker->channel);
	log_error("main",
		  "event=broker_died %s=%d restart_in_ms=%ju effect=\"pairs "
		  "on wire go on, no new ones\"",
		  killed ? "signal" : "status",
		  killed ? WTERMSIG(status) : WEXITSTATUS(status),
		  (uintmax_t)wait);
}

/* The relay that runs gets channels to the new one. */
static void relay_tell(struct supervisor *sup)
{
	int relay[CONF_MAX_WORKERS];

	if (!sup->relay || sup->channel < 0 ||
	    supervisor_broker_channels(sup, relay))
		return;
	channel_send(sup->channel, CHANNEL_BROKER, 0, "", relay,
		     sup->sockets.workers);
	pairs_close(relay);
}

uint64_t supervisor_broker_due(const struct supervisor *sup)
{
	if (!sup->broker.kept || sup->broker.pid || sup->stopping)
		return UINT64_MAX;
	return sup->broker.restart.at_ms;
}

void supervisor_broker_tend(struct supervisor *sup)
{
	int err;

	if (clock_ms() < supervisor_broker_due(sup))
		return;
	err = broker_start(sup);
	if (err) {
		hint_log("broker_process", err);
		retry_failed(&sup->broker.restart);
		return;
	}
	relay_tell(sup);
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
