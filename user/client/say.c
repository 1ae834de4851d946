/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages of the `culvert` command, above its status line. */
#include "client/say.h"

#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CLEAR "\r\033[K"

static bool quiet_set, verbose_set;
static char status[512];

void client_say_setup(bool quiet, bool verbose)
{
	quiet_set = quiet;
	verbose_set = verbose;
}

bool client_say_quiet(void)
{
	return quiet_set;
}

/*
 * Standard error may be shared with a shell, so it is not made nonblocking but
 * asked first: a stopped reader must not stop the transfer.
 */
static void error_write(const char *text, size_t len)
{
	struct pollfd ready = { .fd = STDERR_FILENO, .events = POLLOUT };

	if (poll(&ready, 1, 0) != 1)
		return;
	/* Nobody is left to tell when this fails. */
	if (write(STDERR_FILENO, text, len) < 0)
		return;
}

void client_say(enum client_say_level level, const char *fmt, ...)
{
	char text[1024];
	size_t len, head;
	va_list args;
	int body;

	if ((level == CLIENT_SAY_INFO && quiet_set) ||
	    (level == CLIENT_SAY_DEBUG && !verbose_set))
		return;
	head = (size_t)snprintf(text, sizeof(text),
				"%sculvert: ", *status ? CLEAR : "");
	va_start(args, fmt);
	body = vsnprintf(text + head, sizeof(text) - head - 1, fmt, args);
	va_end(args);
	len = head + (body > 0 ? (size_t)body : 0);
	if (len > sizeof(text) - 2)
		len = sizeof(text) - 2;
	for (size_t i = head; i < len; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			text[i] = '?';
	text[len++] = '\n';
	error_write(text, len);
	if (*status)
		error_write(status, strlen(status));
}

void client_say_status(const char *line)
{
	char text[sizeof(status) + sizeof(CLEAR)];
	int len;

	if (!line && !*status)
		return;
	snprintf(status, sizeof(status), "%s", line ? line : "");
	len = snprintf(text, sizeof(text), CLEAR "%s", status);
	error_write(text, (size_t)len);
}
