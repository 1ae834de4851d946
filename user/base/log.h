/* SPDX-License-Identifier: BSD-2-Clause */
/* Structured log on standard error: one key=value line per event. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARN,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

/* By level; NULL at the end. */
extern const char *const log_level_names[];

void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);

/*
 * Writes "level=... room=ROOM " and the formatted rest. Never blocks: a line
 * that does not fit into standard error's pipe is dropped and counted.
 */
void log_write(enum log_level level, const char *room, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define log_error(room, ...) log_write(LOG_LEVEL_ERROR, room, __VA_ARGS__)
#define log_warn(room, ...)  log_write(LOG_LEVEL_WARN, room, __VA_ARGS__)
#define log_info(room, ...)  log_write(LOG_LEVEL_INFO, room, __VA_ARGS__)
#define log_debug(room, ...)                                           \
	do {                                                           \
		if (log_enabled(LOG_LEVEL_DEBUG))                      \
			log_write(LOG_LEVEL_DEBUG, room, __VA_ARGS__); \
	} while (0)

/* Lets some events through per second; counts what it suppressed. */
struct log_limit {
	uint64_t next_ms; /* when a new second begins */
	uint64_t suppressed;
	unsigned int used; /* lines of this second */
};

/*
 * True when the caller should log now; *suppressed then holds how many were
 * swallowed since the last line. A limit belongs to one thread.
 */
bool log_allow(struct log_limit *limit, uint64_t now_ms, uint64_t *suppressed);
/* The same with so many lines per second instead of one. */
bool log_allow_some(struct log_limit *limit, unsigned int lines,
		    uint64_t now_ms, uint64_t *suppressed);

/* Lines dropped so far because standard error was full. */
uint64_t log_dropped(void);

#endif
