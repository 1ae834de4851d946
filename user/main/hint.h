/* SPDX-License-Identifier: BSD-2-Clause */
/* What to do about a lack that may hit any step. */
#ifndef MAIN_HINT_H
#define MAIN_HINT_H

/* For this negative errno; NULL: no idea. */
const char *hint_for(int err);

/* Logs event=start_failed: which step, the error, and the hint if there is one. */
void hint_log(const char *step, int err);

#endif
