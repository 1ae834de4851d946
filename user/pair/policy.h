/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Does wire pay for this pair? Pure functions of what the kernel has measured on
 * both sides when they are joined.
 */
#ifndef PAIR_POLICY_H
#define PAIR_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/wire_proto.h"

struct pair_policy {
	uint32_t max_rtt_us; /* both sides together; 0: any */
	uint32_t max_growth_us; /* of what an end has measured; 0: any */
	uint32_t max_loss; /* segments sent again, parts per million */
};

/* What is known of one side. */
struct pair_path {
	uint32_t rtt_us; /* the least measured; UINT32_MAX: none was */
	uint32_t segments; /* sent */
	uint32_t again; /* of them, sent again */
	bool heard; /* it has sent bytes to us */
};

/*
 * WIRE_OK or one of WIRE_NO_POLICY_*, by the paths of client and peer.
 * control: the client's older connection over the same path; NULL: none.
 */
enum wire_reason pair_policy_decide(const struct pair_policy *policy,
				    const struct pair_path *client,
				    const struct pair_path *peer,
				    const struct pair_path *control);

/* What the kernel knows of a connected socket's path; nothing on failure. */
void pair_path_read(int fd, struct pair_path *out);

#endif
