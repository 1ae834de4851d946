/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A relayed socket of a UDP allocation: opened at a port of its own, with the
 * next one kept (RFC 8656 7.2, EVEN-PORT), or taken over from a reservation.
 */
#include "turn/relayed_udp.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "turn/data.h"
#include "turn/lane.h"
#include "turn/port.h"

static void reservation_expired(struct timer *timer)
{
	struct allocation *allocation =
		list_entry(timer, struct allocation, reservation);

	turn_reservation_drop(allocation->worker->shared, allocation->token);
}

/* Room for the port beside an allocation's. NULL without memory or descriptors. */
static struct reservation *reservation_new(const struct allocation *allocation)
{
	struct reservation *reservation = calloc(1, sizeof(*reservation));

	if (!reservation)
		return NULL;
	reservation->fd = -1;
	list_init(&reservation->link);
	reservation->account = auth_account_ref(allocation->account);
	return reservation;
}

/* Opens two neighbours: *fd and what the reservation keeps. 0 or an errno. */
static int pair_open(struct outlet *outlet, const struct port_wish *wish,
		     int *fd)
{
	struct allocation *allocation = outlet->allocation;
	struct turn_shared *shared = allocation->worker->shared;
	struct reservation *next = reservation_new(allocation);
	int err = next ? turn_descriptor_take(shared) : -ENOMEM;

	if (err) {
		turn_reservation_free(shared, next);
		return err;
	}
	err = turn_port_open_pair(shared, wish, &outlet->relayed,
				  &next->relayed, fd, &next->fd);
	if (err) {
		turn_descriptor_release(shared);
		turn_reservation_free(shared, next);
		return err;
	}
	turn_reservation_keep(shared, next);
	allocation->reserved = true;
	memcpy(allocation->token, next->token, TURN_TOKEN_LEN);
	timer_arm(allocation->worker->loop, &allocation->reservation,
		  TURN_RESERVATION_MS, reservation_expired);
	return 0;
}

/* A port of the configured range. 0 or a negative errno. */
static int fresh_open(struct outlet *outlet, const struct allocation_wish *wish,
		      int *fd)
{
	struct turn_worker *worker = outlet->allocation->worker;
	const struct conf_relay *relay = &turn_conf(worker)->relay;
	const struct port_wish port = {
		.min = relay->port_min,
		.max = relay->port_max,
		.udp = true,
		.even = wish->even,
	};
	int err = turn_descriptor_take(worker->shared);

	if (err)
		return err;
	if (wish->reserve) {
		err = pair_open(outlet, &port, fd);
	} else {
		*fd = turn_port_open(worker->shared, &port, &outlet->relayed);
		err = *fd < 0 ? *fd : 0;
	}
	if (err)
		turn_descriptor_release(worker->shared);
	return err;
}

/* The reservation's port and descriptor, with its place, change hands. */
static int reserved_open(struct outlet *outlet, struct reservation *reserved,
			 int *fd)
{
	struct turn_shared *shared = outlet->allocation->worker->shared;
	int err;

	/* The socket keeps others off the port of UDP alone. */
	err = turn_relayed_hand_over(shared, &reserved->relayed,
				     &outlet->relayed);
	if (!err) {
		*fd = reserved->fd;
		reserved->fd = -1;
	}
	turn_reservation_free(shared, reserved);
	return err;
}

int turn_relayed_udp_open(struct outlet *outlet,
			  const struct allocation_wish *wish)
{
	struct turn_worker *worker = outlet->allocation->worker;
	int fd = -1;
	int err = wish->reserved ? reserved_open(outlet, wish->reserved, &fd) :
				   fresh_open(outlet, wish, &fd);

	if (err)
		return err;
	err = udp_socket_new(worker->udp, fd, turn_data_received, outlet,
			     &outlet->udp);
	if (!err) {
		/* What the client does not forbid may be cut (RFC 8656 14.2). */
		udp_socket_fragments(outlet->udp);
		turn_lanes_make_way(outlet);
		/* Without it clients are not told of what fails, no more. */
		udp_socket_failures(outlet->udp, turn_data_failed);
		return 0;
	}
	fd_close(&fd);
	turn_relayed_udp_close(outlet);
	return err;
}

void turn_relayed_udp_close(struct outlet *outlet)
{
	struct allocation *allocation = outlet->allocation;
	struct turn_worker *worker = allocation->worker;

	udp_socket_free(outlet->udp);
	outlet->udp = NULL;
	turn_relayed_remove(worker->shared, &outlet->relayed);
	turn_descriptor_release(worker->shared);
	timer_cancel(worker->loop, &allocation->reservation);
	if (allocation->reserved)
		turn_reservation_drop(worker->shared, allocation->token);
}
