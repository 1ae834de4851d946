/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The other end of the control socket: asks one thing at a time and waits for
 * the answer. For culvertctl and tests; it blocks.
 */
#ifndef CONTROL_CLIENT_H
#define CONTROL_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "control/control.h"

struct control_client;
struct control_answer;

/* Returns 0 or a negative errno of connect(): -ENOENT, -ECONNREFUSED, -EACCES. */
int control_client_new(const char *path, struct control_client **out);
void control_client_free(struct control_client *client); /* accepts NULL */

/*
 * Sends a request and waits for its reply, at most timeout_ms between two signs
 * of life. Returns 0, or
 *   -ETIMEDOUT   the daemon is silent
 *   -ECONNRESET  it closed the connection
 *   -EMSGSIZE    the reply is longer than CONTROL_REPLY_MAX
 *   -EPROTO      the reply is not one of this protocol's
 *   -EINTR       a signal arrived first
 * After any of these the connection is of no more use.
 */
int control_client_ask(struct control_client *client,
		       const struct control_request *request, int timeout_ms,
		       struct control_answer **out);

/* NULL when the request was carried out, else why it was not. */
const char *control_answer_error(const struct control_answer *answer);

/*
 * The data object and the protocol's version, {"v":1,...}, as JSON on one line;
 * the caller frees it. NULL: no memory.
 */
char *control_answer_json(const struct control_answer *answer);

/*
 * The data as structures. Each returns 0, -EPROTO when something is missing or
 * of a wrong type, or -ENOMEM. Constant texts in rows belong to the answer.
 */
int control_answer_status(const struct control_answer *answer,
			  struct control_status *out); /* free per_worker */
int control_answer_allocations(const struct control_answer *answer,
			       struct control_allocation **rows, size_t *count,
			       size_t *total);
int control_answer_connections(const struct control_answer *answer,
			       struct control_connection **rows, size_t *count,
			       size_t *total);
int control_answer_engines(const struct control_answer *answer,
			   struct control_engine **rows, size_t *count);
int control_answer_exits(const struct control_answer *answer,
			 struct control_exit **rows, size_t *count);
/* Of the same answer. */
int control_answer_losses(const struct control_answer *answer,
			  struct control_loss **rows, size_t *count);
void control_answer_free(struct control_answer *answer); /* accepts NULL */

/* Understands one reply line; for tests and fuzzing. -EPROTO or -ENOMEM. */
int control_answer_parse(const char *line, size_t len,
			 struct control_answer **out);

/* Writes a text as a JSON string. */
void control_json_text(FILE *out, const char *text);

#endif
