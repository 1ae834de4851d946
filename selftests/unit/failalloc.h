/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Makes the nth allocation fail, in every unit test program.
 *
 * Every unit test is linked with --wrap for malloc, calloc, realloc, strdup and
 * strndup, so that calls from our own objects arrive at failalloc.c; libraries
 * are not touched. Disarmed, calls pass through. Armed, exactly one call (the
 * nth from then on, in any thread) returns NULL with errno ENOMEM.
 */
#ifndef FAILALLOC_H
#define FAILALLOC_H

#include <stdbool.h>

/* nth counts from 1. Forgets an earlier hit. */
void failalloc_arm(long nth);
void failalloc_disarm(void);
/* Has the armed failure been handed out since failalloc_arm()? */
bool failalloc_hit(void);

/*
 * Runs fn(arg) with its 1st, 2nd, ... allocation failing, until a run ends
 * without a failure: the last run is thus a plain success. fn frees what it
 * made, in either case; whether it was hit it may ask failalloc_hit(). Code
 * whose allocations need no error path (a table that does not grow) makes a
 * run both hit and successful: fn decides what it asserts.
 * Returns how many allocations were made to fail; aborts past 100000.
 */
long failalloc_sweep(void (*fn)(void *arg), void *arg);

#endif
