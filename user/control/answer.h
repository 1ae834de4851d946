/* SPDX-License-Identifier: BSD-2-Clause */
/* Reply lines: from structures to JSON text. Private to control. */
#ifndef CONTROL_ANSWER_H
#define CONTROL_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

#include "control/control.h"

/* A reply line being written; the first failure sticks. */
struct answer {
	char *text; /* owned; NULL at first */
	size_t len, room;
	size_t rows; /* of its list */
	bool failed; /* no memory, or over CONTROL_REPLY_MAX */
};

/* The library opens a file for its first object; once, before a process confines itself. */
void answer_init(void);

/* The next rows of a list, behind its head; its end is answer_list_end(). */
void answer_allocations(struct answer *answer,
			const struct control_allocation *rows, size_t count,
			size_t total);
void answer_connections(struct answer *answer,
			const struct control_connection *rows, size_t count,
			size_t total);
void answer_list_end(struct answer *answer);

/* Each writes one whole line; answer->failed tells whether that worked. */
void answer_ok(struct answer *answer, enum control_command command);
void answer_error(struct answer *answer, const char *message);
void answer_status(struct answer *answer, const struct control_status *status);
void answer_engines(struct answer *answer, const struct control_engine *rows,
		    size_t count);
void answer_exits(struct answer *answer, const struct control_exits *exits);

#endif
