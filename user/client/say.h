/* SPDX-License-Identifier: BSD-2-Clause */
/* What the `culvert` command tells people, on standard error. */
#ifndef CLIENT_SAY_H
#define CLIENT_SAY_H

#include <stdbool.h>

enum client_say_level {
	CLIENT_SAY_ERROR, /* always shown */
	CLIENT_SAY_INFO, /* not with --quiet */
	CLIENT_SAY_DEBUG, /* with --verbose only */
};

void client_say_setup(bool quiet, bool verbose);
bool client_say_quiet(void);

/*
 * "culvert: ..." and a newline. Never blocks; control bytes become '?'. An error
 * says what happened, where, and what to do.
 */
void client_say(enum client_say_level level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#define client_error(...) client_say(CLIENT_SAY_ERROR, __VA_ARGS__)
#define client_info(...)  client_say(CLIENT_SAY_INFO, __VA_ARGS__)
#define client_debug(...) client_say(CLIENT_SAY_DEBUG, __VA_ARGS__)

/*
 * The line at the bottom of the terminal: replaced by the next one, moved below
 * messages, removed with NULL.
 */
void client_say_status(const char *line);

#endif
