/* SPDX-License-Identifier: BSD-2-Clause */
/* The maps of the sockmap engine, for one worker. */
#ifndef BROKER_SOCKMAP_H
#define BROKER_SOCKMAP_H

#include <culvert/kern_user.h>

struct sockmap_bpf;

/*
 * Loads the program and its maps anew and attaches the one to the others. The
 * descriptors are the object's: sockmap_release closes them, and what the client
 * has of them by then lives on with the client alone. 0 or a negative errno.
 */
int sockmap_load(struct sockmap_bpf **out, int fds[SOCKMAP_MAPS]);
void sockmap_release(struct sockmap_bpf *bpf);

#endif
