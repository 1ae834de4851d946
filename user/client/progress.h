/* SPDX-License-Identifier: BSD-2-Clause */
/* The progress line of a transfer: bytes, rate, time left. */
#ifndef CLIENT_PROGRESS_H
#define CLIENT_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loop/loop.h"

/* Embedded in the transfer; zero-initialise. */
struct client_progress {
	struct loop *loop;
	struct timer timer;
	const char *name;
	uint64_t total; /* bytes; 0: unknown */
	uint64_t done; /* bytes so far; the transfer counts here */
	uint64_t start_ms, last_ms, last_done;
	double rate; /* bytes a second, smoothed; 0: not known yet */
	bool shown; /* standard error is a terminal */
};

/* Starts the clock, and on a terminal the line. */
void client_progress_start(struct client_progress *progress, struct loop *loop,
			   const char *name, uint64_t total);
/* Removes the line; says what was moved when `success`. */
void client_progress_stop(struct client_progress *progress, const char *verb,
			  bool success);

/*
 * The line for the numbers given, at most `columns` wide. rate: bytes a second;
 * elapsed_ms since the start. Returns buf.
 */
const char *client_progress_format(const struct client_progress *progress,
				   uint64_t elapsed_ms, unsigned int columns,
				   char *buf, size_t size);
/* "1.5 GiB"; returns buf. */
const char *client_size_format(double bytes, char buf[16]);
/* "0:07", "1:02:03"; returns buf. */
const char *client_time_format(uint64_t seconds, char buf[16]);

#endif
