/* SPDX-License-Identifier: BSD-2-Clause */
/* What every subcommand stands on: loop, signals, server, engines, errors. */
#ifndef CLIENT_SESSION_H
#define CLIENT_SESSION_H

#include <stdbool.h>

#include "base/log.h"
#include "client/command.h"
#include "culvert/client.h"
#include "engine/engine.h"
#include "loop/loop.h"

struct client_session {
	const struct client_config *config;
	struct culvert_server server;
	struct culvert_loop *library;
	struct loop *loop; /* the same as `library` */
	struct engine_set *engines; /* NULL unless asked for */
	unsigned int pipes; /* that engines may hold, and */
	unsigned int connections; /* at a time: what descriptors allow */
	struct watch signals;
	struct log_limit refusals; /* messages about one connection each */
	bool stopping; /* SIGINT, SIGTERM or SIGHUP came */
	/* Ends what is under way, then calls client_session_finish. */
	void (*on_stop)(struct client_session *session);
	bool done;
	enum client_exit result;
};

/*
 * Looks the server up, makes the loop, takes signals over. Says what is wrong.
 * Returns 0 or a negative errno.
 */
int client_session_open(struct client_session *session,
			const struct client_config *config);
/* Opens the engines that carry pairs, as configured. */
int client_session_open_engines(struct client_session *session);
void client_session_close(struct client_session *session);

/* The exit code for what these functions and those of place.h return. */
enum client_exit client_exit_for(int error);

/* Runs until client_session_finish; returns what that was given. */
enum client_exit client_session_run(struct client_session *session);
void client_session_finish(struct client_session *session,
			   enum client_exit result);

/* Fills options for a client of this session: server, credentials, limits. */
void client_session_options(const struct client_session *session, int family,
			    struct culvert_options *out);

/* Says that `what` failed, why, and what to do. */
void client_session_error(const struct client_session *session,
			  const char *what, const struct culvert_error *error);
/*
 * May one more refused connection be told? Once a second; what was swallowed is
 * counted and told then.
 */
bool client_session_may_tell(struct client_session *session);
/* What to do about an error; "" when nothing comes to mind. */
const char *client_error_advice(int code);

#endif
