/* SPDX-License-Identifier: BSD-2-Clause */
/* NAT behavior discovery (RFC 5780): Binding on two addresses and two ports. */
#ifndef TURN_DISCOVERY_H
#define TURN_DISCOVERY_H

#include "turn/request.h"

/*
 * Takes the attributes of this usage off the list of unknown ones where the
 * listener has an alternate and the request is a Binding over UDP. Returns how
 * many are left.
 */
size_t turn_discovery_known(const struct request *req, uint16_t *types,
			    size_t count);

/*
 * Answers a Binding where the listener has an alternate: TURN_LATER when it has
 * been answered, 0 when it is to be answered as everywhere else, or 400.
 */
int turn_discovery_answer(struct request *req);

#endif
