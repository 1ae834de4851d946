/* SPDX-License-Identifier: BSD-2-Clause */
/* The sockmap engine's maps for tests that have no broker. */
#ifndef UNIT_SOCKMAP_FDS_H
#define UNIT_SOCKMAP_FDS_H

/*
 * SOCKMAP_MAPS descriptors, the same at every call, for one set of engines at a
 * time. NULL without root or on a kernel that does not take the programs.
 */
const int *sockmap_fds(void);

#endif
