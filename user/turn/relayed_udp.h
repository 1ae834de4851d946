/* SPDX-License-Identifier: BSD-2-Clause */
/* The relayed transport address of a UDP allocation. */
#ifndef TURN_RELAYED_UDP_H
#define TURN_RELAYED_UDP_H

#include "turn/outlet.h"

/*
 * Opens it as the wish has it, at the outlet's host or with what was reserved, which
 * it takes over in any case. 0 or a negative errno.
 */
int turn_relayed_udp_open(struct outlet *outlet,
			  const struct allocation_wish *wish);
void turn_relayed_udp_close(struct outlet *outlet);

#endif
