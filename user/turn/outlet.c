/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The relayed transport addresses of an allocation: one, or one of IPv4 and one of
 * IPv6 (RFC 8656 6). Each has a socket and a time to expiry of its own, and peers of
 * its family use it: their permissions, channels and connections are its.
 *
 *   open -> closed -> freed with its allocation
 *
 * closed: by a Refresh with 0, by expiry, or by the end of the allocation, which ends
 *   with the last one that is open. Bound connections may still be finishing: for
 *   them the structure stays.
 */
#include "turn/outlet.h"

#include <stdlib.h>

#include "base/fd.h"
#include "turn/channel.h"
#include "turn/connect.h"
#include "turn/lane.h"
#include "turn/on_wire.h"
#include "turn/peer_conn.h"
#include "turn/permission.h"
#include "turn/port.h"
#include "turn/relayed_udp.h"

struct outlet *turn_outlet_made(const struct allocation *allocation,
				sa_family_t family)
{
	return allocation->outlets[turn_family_index(family)];
}

struct outlet *turn_outlet_of(const struct allocation *allocation,
			      sa_family_t family)
{
	struct outlet *outlet = turn_outlet_made(allocation, family);

	return outlet && !outlet->closed ? outlet : NULL;
}

static sa_family_t family_of(const struct outlet *outlet)
{
	return addr_family(&outlet->relayed.addr);
}

struct outlet *turn_outlet_next(const struct allocation *allocation,
				const struct outlet *before)
{
	size_t i = before ? turn_family_index(family_of(before)) + 1 : 0;

	for (; i < TURN_FAMILIES; i++)
		if (allocation->outlets[i] && !allocation->outlets[i]->closed)
			return allocation->outlets[i];
	return NULL;
}

/* Listens at the relayed transport address. 0 or a negative errno. */
static int outlet_listen(struct outlet *outlet)
{
	struct turn_worker *worker = outlet->allocation->worker;
	const struct conf_relay *relay = &turn_conf(worker)->relay;
	const struct port_wish wish = {
		.min = relay->port_min,
		.max = relay->port_max,
		.mss = turn_wire_mss(outlet->allocation),
	};
	int fd, err = turn_descriptor_take(worker->shared);

	if (err)
		return err;
	fd = turn_port_open(worker->shared, &wish, &outlet->relayed);
	if (fd < 0) {
		err = fd;
		goto release_descriptor;
	}
	err = listener_new(worker->loop, fd, false, &turn_relayed_listener_ops,
			   outlet, &outlet->listener);
	if (!err) {
		listener_own(outlet->listener);
		return 0;
	}
	turn_relayed_remove(worker->shared, &outlet->relayed);
	fd_close(&fd);
release_descriptor:
	turn_descriptor_release(worker->shared);
	return err;
}

int turn_outlet_open(struct allocation *allocation,
		     const struct allocation_wish *wish, const union addr *host)
{
	struct outlet *outlet = calloc(1, sizeof(*outlet));
	int err;

	if (!outlet) {
		turn_reservation_free(allocation->worker->shared,
				      wish->reserved);
		return -ENOMEM;
	}
	outlet->allocation = allocation;
	outlet->relayed.addr = *host;
	err = wish->transport == STUN_TRANSPORT_UDP ?
		      turn_relayed_udp_open(outlet, wish) :
		      outlet_listen(outlet);
	if (err) {
		free(outlet);
		return err;
	}
	allocation->outlets[turn_family_index(addr_family(host))] = outlet;
	return 0;
}

static void outlet_expired(struct timer *timer)
{
	turn_outlet_end(list_entry(timer, struct outlet, expiry), "expired");
}

void turn_outlet_prolong(struct outlet *outlet, uint64_t lifetime_ms)
{
	struct loop *loop = outlet->allocation->worker->loop;

	outlet->expires_ms = loop_now(loop) + lifetime_ms;
	timer_arm(loop, &outlet->expiry, lifetime_ms, outlet_expired);
	turn_wire_prolong(outlet);
	turn_lanes_refresh(outlet->allocation);
}

static void listener_close(struct outlet *outlet)
{
	struct turn_shared *shared = outlet->allocation->worker->shared;

	listener_free(outlet->listener);
	outlet->listener = NULL;
	turn_relayed_remove(shared, &outlet->relayed);
	turn_descriptor_release(shared);
	/* Of pairs on wire no socket keeps the port. */
	if (outlet->allocation->conn_count)
		outlet->claim = turn_port_claim(shared, &outlet->relayed.addr);
}

void turn_outlet_close(struct outlet *outlet)
{
	outlet->closed = true;
	timer_cancel(outlet->allocation->worker->loop, &outlet->expiry);
	turn_channels_clear(outlet->allocation, family_of(outlet));
	if (outlet->udp)
		turn_relayed_udp_close(outlet);
	else
		listener_close(outlet);
	turn_permissions_clear(outlet->allocation, family_of(outlet));
}

static void conn_end(struct peer_conn *conn)
{
	switch (conn->state) {
	case PEER_CONN_CONNECTING: /* the client may still be listening */
		turn_connect_failed(conn, -ECANCELED);
		break;
	case PEER_CONN_HELD:
		turn_peer_conn_end(conn, "allocation_ended");
		break;
	case PEER_CONN_BOUND:
		pair_finish(conn->pair);
		break;
	}
}

void turn_outlet_conns_end(struct outlet *outlet, bool hard)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &outlet->allocation->conns) {
		struct peer_conn *conn =
			list_entry(pos, struct peer_conn, link);

		if (addr_family(&conn->peer) != family_of(outlet))
			continue;
		if (hard)
			turn_peer_conn_kick(conn);
		else
			conn_end(conn);
	}
}

void turn_outlet_end(struct outlet *outlet, const char *reason)
{
	const struct allocation *allocation = outlet->allocation;
	char relayed[ADDR_STRLEN];

	if (turn_outlet_next(allocation, NULL) == outlet &&
	    !turn_outlet_next(allocation, outlet)) {
		turn_allocation_end(outlet->allocation, reason, false);
		return;
	}
	log_debug(ROOM,
		  "event=relayed_ended allocation=a%u.%ju relayed=%s reason=%s",
		  allocation->worker->index, (uintmax_t)allocation->serial,
		  addr_format(&outlet->relayed.addr, relayed), reason);
	turn_outlet_close(outlet);
	turn_outlet_conns_end(outlet, false);
}

void turn_outlet_free(struct outlet *outlet)
{
	if (!outlet)
		return;
	turn_port_unclaim(outlet->allocation->worker->shared, outlet->claim);
	free(outlet);
}
