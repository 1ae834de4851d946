/* SPDX-License-Identifier: BSD-2-Clause */
/* Allocations that follow their clients to another address (RFC 8016). */
#ifndef TURN_MOBILE_H
#define TURN_MOBILE_H

#include "turn/request.h"

/* MOBILITY-TICKET of an Allocate: *out tells if there is one. 0, 400 or 405. */
int turn_mobile_asked(const struct request *req, bool *out);

/* Puts the ticket by which the allocation can be moved next. */
void turn_mobile_ticket_put(struct stun_writer *w,
			    const struct allocation *allocation);

/*
 * MOBILITY-TICKET of a Refresh: 0, and the allocation is req->client's; TURN_LATER
 * when another worker has it; or a code.
 */
int turn_mobile_refresh(struct request *req);

/* Where the client of an active allocation gets what comes from peers. */
struct client *turn_mobile_receiver(const struct allocation *allocation);
/* The client has used its new address: the one before is forgotten. */
void turn_mobile_confirm(struct client *client);
/*
 * The client ends. True: its allocation is another's by now and goes on; it is not
 * this client's any more.
 */
bool turn_mobile_leave(struct client *client);
/* The allocation ends, or has moved again. */
void turn_mobile_forget(struct allocation *allocation, const char *reason);
/* The connection is gone: shall its allocation wait for it on another one? */
bool turn_mobile_waits(const struct client *client);

#endif
