/* SPDX-License-Identifier: BSD-2-Clause */
/* Which of this host's addresses is the better source for peers not known yet. */
#ifndef TURN_RANK_H
#define TURN_RANK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"

struct turn_candidate {
	const union addr *host;
	uint32_t flags; /* IFA_F_DEPRECATED and such */
	bool near; /* of the exit that the client has come in by */
	bool last_resort; /* of an exit with weight 0 */
};

/* Is it one at all? Not before it is known that nobody else has it. Pure. */
bool turn_candidate_usable(const struct turn_candidate *candidate);
/* Of two of one family the one with more is preferred. Pure. */
unsigned int turn_candidate_rank(const struct turn_candidate *candidate);

#endif
