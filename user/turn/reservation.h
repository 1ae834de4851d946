/* SPDX-License-Identifier: BSD-2-Clause */
/* Relayed ports kept for a later Allocate (RFC 8656 7.2, EVEN-PORT). */
#ifndef TURN_RESERVATION_H
#define TURN_RESERVATION_H

#include "auth/auth.h"
#include "turn/shared.h"

#define TURN_TOKEN_LEN      8
#define TURN_RESERVATION_MS 30000 /* RFC 8656 7.2: at least 30 s */

/* A bound socket that waits; in it the port is in use. */
struct reservation {
	struct list link; /* of shared->reservations */
	struct relayed relayed;
	struct auth_account *account; /* who may take it; a reference */
	int fd; /* with its descriptor's place taken */
	uint8_t token[TURN_TOKEN_LEN];
};

/* Keeps it, under a new token. */
void turn_reservation_keep(struct turn_shared *shared,
			   struct reservation *reservation);
/* The one of this token, the caller's from now on; NULL: none is this account's. */
struct reservation *turn_reservation_take(struct turn_shared *shared,
					  const uint8_t token[TURN_TOKEN_LEN],
					  const struct auth_account *account);
/* Ends the one of this token if it is still kept. */
void turn_reservation_drop(struct turn_shared *shared,
			   const uint8_t token[TURN_TOKEN_LEN]);
/* Closes what it still holds and frees it. Accepts NULL. */
void turn_reservation_free(struct turn_shared *shared,
			   struct reservation *reservation);

#endif
