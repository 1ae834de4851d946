/* SPDX-License-Identifier: BSD-2-Clause */
/* Data between the client and the peers of a UDP allocation. */
#ifndef TURN_DATA_H
#define TURN_DATA_H

#include "stun/stun.h"
#include "turn/allocation.h"

/* A Send indication. */
void turn_data_send(struct client *client, const struct stun_msg *msg);
/* A ChannelData message as it came. 0, or -EBADMSG: it is none. */
int turn_data_channel(struct client *client, const uint8_t *data, size_t len);

/* A datagram has arrived at the relayed transport address: udp_received_fn. */
void turn_data_received(void *outlet, const struct udp_path *path,
			const uint8_t *data, size_t len);

/* One that left from there came to nothing: udp_failed_fn. */
void turn_data_failed(void *outlet, const struct udp_failure *failure);

#endif
