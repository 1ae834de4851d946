/* SPDX-License-Identifier: BSD-2-Clause */
/* What two snapshots say: may this pair be joined, and with which offsets. Pure. */
#ifndef BROKER_CHECKS_H
#define BROKER_CHECKS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/wire_proto.h"

/*
 * WIRE_OK, WIRE_AGAIN or the first rule that forbids it; to_client: bytes the relay
 * sends to the client after the join; unread: bytes of the peer that it has copied
 * and left in the peer's socket.
 */
enum wire_reason check_pair(const struct wire_snapshot legs[WIRE_LEGS],
			    uint32_t family, uint32_t to_client,
			    uint32_t unread);

/* Has either leg moved between the two looks in a way that matters? */
bool check_quiet(const struct wire_snapshot before[WIRE_LEGS],
		 const struct wire_snapshot after[WIRE_LEGS]);

/* Fills both legs' offsets, latches and state of `pair` but no addresses. */
void check_offsets(const struct wire_snapshot legs[WIRE_LEGS],
		   uint32_t to_client, struct wire_pair *pair);

/* Takes over what the second look knows better: acknowledgements, windows, stamps. */
void check_refresh(const struct wire_snapshot legs[WIRE_LEGS],
		   struct wire_pair *pair);

/* Does any leg wait for an acknowledgement of what our socket sends? */
bool check_latched(const struct wire_pair *pair);

/* Payload delivered to this leg's remote end by wire. */
uint64_t check_bytes(const struct wire_pair *pair, enum wire_leg_name leg);

/* The numbers of a reset that this leg's remote end accepts. */
struct reset_numbers {
	uint32_t seq; /* end of all that was sent to it */
	uint32_t ack; /* end of all that it sent */
};
struct reset_numbers check_reset(const struct wire_pair *pair,
				 enum wire_leg_name leg);

/* The key of packets that arrive on this leg. */
void check_key(const struct wire_pair *pair, enum wire_leg_name leg,
	       struct wire_key *out);

#endif
