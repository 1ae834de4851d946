/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the supervisor role share. */
#ifndef MAIN_SUPERVISOR_INTERNAL_H
#define MAIN_SUPERVISOR_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "auth/auth.h"
#include "conf/conf.h"
#include "main/channel.h"
#include "main/privilege.h"
#include "main/retry.h"
#include "main/role.h"
#include "main/sockets.h"

/* A role beside the relay, if there is one (supervisor_role.c). */
struct supervisor_role {
	bool kept; /* one was started: there shall always be one */
	pid_t pid; /* 0 while there is none */
	int channel; /* -1 while there is none, or it is to end */
	struct retry restart;
};

/* supervisor_broker.c */
struct supervisor_broker {
	struct supervisor_role role;
	uint64_t wanting; /* workers that want another channel to it, as bits */
	struct retry give; /* when they get it */
};

/* supervisor_exit.c */
struct supervisor_exit {
	struct supervisor_role role;
	bool renewed; /* it was told to end, for the next one */
	int notice; /* what one said last, for the next ones; -1: nothing */
	uint64_t kill_at_ms; /* then, if it has not */
};

struct supervisor {
	const char *path;
	struct conf *conf;
	struct socket_set sockets;
	struct privilege_user user;
	uint8_t nonce_secret[AUTH_SECRET_LEN];
	uint64_t config_loads;
	int control_fd;
	struct stat control_file; /* the socket's, to know it again */
	int signal_fd;
	int channel; /* to the relay; -1 while there is none */
	pid_t relay; /* 0 while there is none */
	bool ready; /* the relay has said so */
	bool served; /* some relay has said so: this can work here */
	bool stopping;
	bool draining; /* outlives a relay that was told to */
	struct retry restart; /* of the relay */
	struct supervisor_broker broker;
	struct supervisor_exit exit;
	uint64_t stop_by_ms; /* when a relay that still runs is killed */
	/* A reload sent and not yet answered: what will be in force then. */
	struct conf *next_conf;
	struct socket_set next_sockets;
	bool reload_again; /* asked for while it could not be done */
	int reloads_asked; /* WANT_RELOADs of this relay */
	int status;
};

/*
 * conf_load, and whether the listeners' certificates and keys are fit for use; that
 * is reported in the same way (supervisor_conf.c). 0 or a negative errno.
 */
int supervisor_load(const char *path, conf_report_fn report, void *arg,
		    struct conf **out, char **text, size_t *len);

/*
 * Everything up to the first relay (supervisor_start.c): configuration, sockets,
 * signals, privileges. 0, or a negative errno that has been logged.
 */
int supervisor_start(struct supervisor *sup);
/* Removes the control socket, if the one at its path is still ours. */
void supervisor_control_remove(const struct supervisor *sup);

/* In a child other than the relay: closes and wipes what is not its own. */
void supervisor_child_close(struct supervisor *sup);

/* A process that `run` is all of; notice: role.h. 0 or a negative errno. */
int supervisor_role_start(struct supervisor *sup, struct supervisor_role *role,
			  int (*run)(const struct role_params *params),
			  int notice);
/* It has ended, unasked; logs when the next one comes, and what that means. */
void supervisor_role_died(struct supervisor_role *role, int status,
			  const char *name, const char *effect);

/* May any connection go on wire by this configuration? */
bool supervisor_wire_wanted(const struct conf *conf);
/* Starts it if that is wanted and allowed; logs why not. With all privileges. */
void supervisor_broker_start(struct supervisor *sup);
/* New channels to it, an end for each worker of a new relay; -1: none. */
void supervisor_broker_channels(struct supervisor *sup,
				int relay[CONF_MAX_WORKERS]);
/* The relay says that a worker's channel has ended. */
void supervisor_broker_want(struct supervisor *sup, int worker);
void supervisor_broker_died(struct supervisor *sup, int status);
/* When there is something to do for it, by the clock; UINT64_MAX: never. */
uint64_t supervisor_broker_due(const struct supervisor *sup);
void supervisor_broker_tend(struct supervisor *sup); /* if it is time */
/* After the relay's end: resets what is joined, leaves nothing in the kernel. */
void supervisor_broker_stop(struct supervisor *sup);

/* Warns of links whose IPv4 the kernel drops, whatever the routes say (strict.c). */
/* Starts it if that is wanted and allowed; logs why not. With all privileges. */
void supervisor_exit_start(struct supervisor *sup);
void supervisor_exit_died(struct supervisor *sup, int status);
/* When one has to be started, by the clock; UINT64_MAX: never. */
uint64_t supervisor_exit_due(const struct supervisor *sup);
void supervisor_exit_tend(struct supervisor *sup); /* if it is time */
/* It says something, or ends: its channel is readable. */
void supervisor_exit_hear(struct supervisor *sup);
/* Another configuration is in force. */
void supervisor_exit_renew(struct supervisor *sup);
/* Its work stays in the kernel. */
void supervisor_exit_stop(struct supervisor *sup);

/* How many workers this configuration asks for here. */
unsigned int supervisor_workers(const struct conf *conf);

/* A line for each address; `fresh`: that the set before did not have. */
void supervisor_log_listening(const struct socket_set *set, bool fresh);

/* What to do about an error of sockets_open. */
const char *supervisor_listen_hint(const struct supervisor *sup, int err,
				   const struct socket_fault *fault);

/*
 * Reads the file again and takes it, or says why not (supervisor_reload.c). While
 * the relay starts or is taking an earlier one it is kept for afterwards.
 */
void supervisor_reload(struct supervisor *sup);
/* The relay's answer to one that was sent. */
void supervisor_reload_taken(struct supervisor *sup,
			     const struct channel_msg *msg);
/* The relay is ready, or idle again: does what had to wait. */
void supervisor_reload_pending(struct supervisor *sup);
/* Forgets one that was sent; harmless without. */
void supervisor_reload_drop(struct supervisor *sup, const char *why);

#endif
