/* SPDX-License-Identifier: BSD-2-Clause */
/* Permissions: which hosts may connect to a relayed transport address. */
#ifndef TURN_PERMISSION_H
#define TURN_PERMISSION_H

#include "turn/allocation.h"

/* An expired one stays until a CreatePermission sweeps or the end: no timers. */
struct permission {
	struct table_node node; /* of worker->permissions */
	struct list link; /* of allocation->permissions */
	struct allocation *allocation;
	union addr peer; /* port is 0 */
	uint64_t expires_ms;
};

bool turn_permission_holds(const struct allocation *allocation,
			   const union addr *peer);
/* Until when, in the loop's milliseconds; 0: it does not hold now. */
uint64_t turn_permission_expires(const struct allocation *allocation,
				 const union addr *peer);
/* Makes or prolongs the one for this peer's host. 0 or 508. */
int turn_permission_grant(struct allocation *allocation,
			  const union addr *peer);
/* Those that the policy forbids now hold no more. */
void turn_permissions_judge(struct allocation *allocation);
/* Removes those of peers of this family. */
void turn_permissions_clear(struct allocation *allocation, sa_family_t family);
/* How many hold now. */
unsigned int turn_permissions_count(const struct allocation *allocation);

#endif
