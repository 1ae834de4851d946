/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the relay role share. */
#ifndef MAIN_RELAY_INTERNAL_H
#define MAIN_RELAY_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "auth/auth.h"
#include "conf/conf.h"
#include "control/control.h"
#include "exit/exit.h"
#include "loop/loop.h"
#include "store/store.h"
#include "turn/turn.h"

/* One worker thread with its loop. */
struct relay_worker {
	struct relay *relay;
	unsigned int index;
	pthread_t thread;
	bool running;
	struct loop *loop;
	struct turn_worker *turn;
	/* On its way to the main thread: the channel to the broker is lost. */
	struct letter broker_lost;
	_Atomic bool broker_lost_posted;
};

/* A listening socket on its way to a worker. */
struct relay_socket {
	char name[CONF_NAME_MAX];
	int fds[CONF_MAX_WORKERS];
};

/* What a reload has brought so far, before its COMMIT. */
struct relay_pending {
	int error; /* the first thing that went wrong; COMMIT answers it */
	struct conf *conf;
	struct relay_socket *sockets;
	size_t socket_count;
};

struct relay {
	struct loop *loop; /* of the main thread: control and channel */
	struct watch channel;
	struct control_server *control;
	struct turn_shared *shared;
	struct store *store; /* the user database */
	struct conf *conf;
	struct turn_settings *settings; /* made of it */
	struct relay_worker workers[CONF_MAX_WORKERS];
	unsigned int worker_count;
	struct exit_notice exits; /* what their helper has said last */
	uint64_t started_ms;
	uint64_t config_loads;
	uint8_t nonce_secret[AUTH_SECRET_LEN];
	struct relay_pending pending;
	struct list reload_waiters; /* culvertctl reload, waiting for the end */
	int reloads_asked; /* WANT_RELOADs sent */
	int reloads_covered; /* of these, answered by the one under way */
	bool reloading;
	bool ending; /* its threads have ended */
	int status; /* exit status when the loop ends */
};

/*
 * Runs `each` on every worker's thread, then `done` on the main thread.
 * Embedded in what the caller allocates; `done` frees it.
 */
struct fanout;

struct fanout_part {
	struct letter letter;
	struct fanout *fanout;
	struct relay_worker *worker;
	bool again;
};

struct fanout {
	struct relay *relay;
	void (*each)(struct fanout *fanout, struct relay_worker *worker);
	void (*done)(struct fanout *fanout);
	unsigned int left;
	struct fanout_part parts[CONF_MAX_WORKERS];
};

void fanout_start(struct relay *relay, struct fanout *fanout,
		  void (*each)(struct fanout *fanout,
			       struct relay_worker *worker),
		  void (*done)(struct fanout *fanout));

/*
 * From `each`: that it be called again on this worker, after what else waits there.
 * Not any more when the relay ends.
 */
void fanout_again(struct fanout *fanout, const struct relay_worker *worker);

/* Answers the control socket (relay_control.c). */
void relay_control(void *arg, const struct control_request *request,
		   struct control_reply *reply);

/* Has the user database looked for where this says. 0 or -ENOMEM. */
int relay_database(struct relay *relay, const struct conf *conf);

/* The channel to the supervisor (relay_reload.c). */
void relay_channel_ready(struct watch *watch, uint32_t events);
/*
 * The workers' channels to the broker (relay_broker.c). Takes over a new one of a
 * worker; -1: it could not be received. 0, or -EBADMSG: there is no such worker.
 */
int relay_broker(struct relay *relay, int worker, int fd);
/* A worker's has ended: the supervisor is asked for another. On its thread. */
void relay_broker_lost(struct relay_worker *worker);
/* What the exits' helper has said; fd stays the caller's (relay_exits.c). */
void relay_exits(struct relay *relay, int fd);
/* Answers a control client that asks for it. */
void relay_exits_show(const struct relay *relay, struct control_reply *reply);
/* A control client asked for a reload: answered when it has ended. */
void relay_reload_request(struct relay *relay, struct control_reply *reply);
void relay_reload_free(struct relay *relay);

#endif
