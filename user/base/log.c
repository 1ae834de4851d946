/* SPDX-License-Identifier: BSD-2-Clause */
/* Structured log on standard error. */
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/syscalls.h"
#include "base/utf8.h"

SYSCALLS(SYSCALLS_ALL, "poll ppoll write");

static _Atomic int current_level = LOG_LEVEL_INFO;
static _Atomic uint64_t dropped;

const char *const log_level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARN] = "warn",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
	NULL,
};

void log_set_level(enum log_level level)
{
	atomic_store(&current_level, (int)level);
}

bool log_enabled(enum log_level level)
{
	return (int)level <=
	       atomic_load_explicit(&current_level, memory_order_relaxed);
}

void log_write(enum log_level level, const char *room, const char *fmt, ...)
{
	char line[1024];
	/* Standard error may be shared with a shell: it is not made
	 * nonblocking, it is asked first. A pipe promises PIPE_BUF bytes.
	 */
	struct pollfd ready = { .fd = STDERR_FILENO, .events = POLLOUT };
	va_list args;
	int head, body;

	if (!log_enabled(level))
		return;
	head = snprintf(line, sizeof(line), "level=%s room=%s ",
			log_level_names[level], room);
	va_start(args, fmt);
	body = vsnprintf(line + head, sizeof(line) - (size_t)head, fmt, args);
	va_end(args);
	size_t len = (size_t)head + (body > 0 ? (size_t)body : 0);
	if (len > sizeof(line) - 1)
		len = sizeof(line) - 1;
	/* Whatever comes from the network is in one line, and moves no terminal. */
	utf8_sanitize(line, len);
	line[len] = '\n';
	if (poll(&ready, 1, 0) == 0 || write(STDERR_FILENO, line, len + 1) < 0)
		atomic_fetch_add(&dropped, 1);
}

bool log_allow_some(struct log_limit *limit, unsigned int lines,
		    uint64_t now_ms, uint64_t *suppressed)
{
	if (now_ms >= limit->next_ms) {
		limit->next_ms = now_ms + 1000;
		limit->used = 0;
	}
	if (limit->used >= lines) {
		limit->suppressed++;
		return false;
	}
	limit->used++;
	*suppressed = limit->suppressed;
	limit->suppressed = 0;
	return true;
}

bool log_allow(struct log_limit *limit, uint64_t now_ms, uint64_t *suppressed)
{
	return log_allow_some(limit, 1, now_ms, suppressed);
}

uint64_t log_dropped(void)
{
	return atomic_load(&dropped);
}
