/* SPDX-License-Identifier: BSD-2-Clause */
/* Sending clients that ask for an allocation to another server. */
#ifndef TURN_ALTERNATE_H
#define TURN_ALTERNATE_H

#include "turn/request.h"

/*
 * Shall the sender of this Allocate go elsewhere? NULL: no. That it must not stay,
 * whether or not there is one, is the caller's to see.
 */
const struct conf_alternate *turn_alternate_for(const struct request *req);

/* Answers 300 with where to go. TURN_LATER. */
int turn_alternate_answer(struct request *req,
			  const struct conf_alternate *alternate);

#endif
