/* SPDX-License-Identifier: BSD-2-Clause */
/* Which of this host's addresses a new allocation gets. */
#ifndef TURN_RELAYED_HOST_H
#define TURN_RELAYED_HOST_H

#include "turn/request.h"

/*
 * The host of the relayed address of this family. 0; 440: there is none; 508: there are,
 * but nothing leaves by their exits now.
 */
int turn_relayed_host(const struct request *req, sa_family_t family,
		      union addr *out);

#endif
