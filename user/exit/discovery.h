/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Exit router discovery (appendix A): hosts learn which exit router to tunnel to from
 * the one that tunnels on their behalf.
 */
#ifndef EXIT_DISCOVERY_H
#define EXIT_DISCOVERY_H

#include <stdbool.h>

#include "conf/conf.h"
#include "exit/nft_batch.h"

/* A counter of the guards' table. */
#define DISCOVERY_TOLD "discovery_told"

/* Does any host want to know? */
bool discovery_tells(const struct conf *conf);
/* The router's part of that table; there are tunnels (discovery_tell.c). */
void discovery_guard_put(struct nft_batch *batch, const struct conf *conf);
/* The table of family ip6 beside it: made anew, or gone. conf NULL: gone. */
void discovery_tell_put(struct nft_batch *batch, const struct conf *conf);
/* It is as wanted, but nobody's. */
void discovery_tell_adopt(struct nft_batch *batch, const struct conf *conf);

#endif
