/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The helper comes before other processes, real-time at the least priority, while it
 * waits for news and until the packets of an exit that is lost are refused. That takes a
 * third of a millisecond; where others keep all processors busy an ordinary process
 * waits several for its turn, whatever its niceness. What follows, bringing everything
 * into the state that is wanted, may take long with many prefixes or routes: if it has
 * the last time, it is done as an ordinary process.
 */
#ifndef EXIT_URGENT_H
#define EXIT_URGENT_H

/* Around that work. Without CAP_SYS_NICE the process stays ordinary, and says so once. */
void urgent_work_begin(void);
void urgent_work_end(void);

#endif
