/* SPDX-License-Identifier: BSD-2-Clause */
/* The terminal under a live display. Private to ctl. */
#ifndef CTL_SCREEN_H
#define CTL_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct screen;

/*
 * Takes the terminal behind `out`: alternate screen, no cursor, keys at once.
 * -ENOTTY when `out` is none. One at a time: signals are the process's.
 */
int screen_open(FILE *out, struct screen **out_screen);
/* Gives the terminal back as it was. Accepts NULL. */
void screen_close(struct screen *screen);

/* Replaces what is shown by as many lines of text as fit. */
void screen_draw(struct screen *screen, const char *text, size_t len);

size_t screen_rows(const struct screen *screen);

enum screen_event {
	SCREEN_TIMEOUT,
	SCREEN_QUIT, /* q, Ctrl-C, or a signal that ends programs */
	SCREEN_REDRAW, /* the terminal has another size */
};

/* Waits for a key or signal until clock_ms() is `until_ms`. */
enum screen_event screen_wait(struct screen *screen, uint64_t until_ms);

#endif
