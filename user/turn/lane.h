/* SPDX-License-Identifier: BSD-2-Clause */
/* Channels on wire: those of clients over UDP, whose datagrams the kernel relays. */
#ifndef TURN_LANE_H
#define TURN_LANE_H

#include "turn/channel.h"

/* May any channel of clients over UDP go on wire, as the settings are? */
bool turn_lanes_wanted(const struct turn_worker *worker);
/* Whether its socket may join what peers send at once: where no channel of it goes on
 * wire, as its client and the settings are by now.
 */
void turn_lanes_make_way(struct outlet *outlet);
/* A datagram was relayed here: one that carries some is put on wire, if it can be. */
void turn_lane_used(struct channel *channel);
/* Its end of life, a permission or the settings may be others. */
void turn_lane_refresh(struct channel *channel);
void turn_lanes_refresh(struct allocation *allocation); /* all that it has */
/* Counts what went by wire since the last look. */
void turn_lanes_look(struct turn_worker *worker);
/* Takes the channel off the wire, and counts. */
void turn_lane_end(struct channel *channel);
/* All of them. */
void turn_lanes_end(struct allocation *allocation);

#endif
