/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connections from peers (RFC 6062 5.3): accepted always, kept when a permission
 * holds for the host, and announced by a ConnectionAttempt.
 */
#include <errno.h>
#include <string.h>

#include "base/fd.h"
#include "turn/access.h"
#include "turn/connect.h"
#include "turn/outlet.h"
#include "turn/peer_conn.h"
#include "turn/permission.h"
#include "turn/port.h"

/* Indications carry no integrity (RFC 8489 9.2.4). */
static void attempt_indicate(const struct peer_conn *conn)
{
	struct client *client = conn->allocation->client;
	uint8_t buf[TURN_ANSWER_MAX];
	struct stun_writer w;
	ssize_t len;

	stun_begin(&w, buf, sizeof(buf), STUN_INDICATION,
		   STUN_CONNECTION_ATTEMPT, NULL);
	stun_put(&w, STUN_ATTR_CONNECTION_ID, conn->pending->connection_id,
		 sizeof(conn->pending->connection_id));
	stun_put_xor_address(&w, STUN_ATTR_XOR_PEER_ADDRESS, &conn->peer);
	if (client->fingerprint)
		stun_put_fingerprint(&w);
	len = stun_end(&w);
	/* A client that cannot be told is closed by its stream. */
	if (len > 0)
		transport_stream_send(client->stream, buf, (size_t)len);
}

/*
 * The kernel has one connection per pair of addresses: another one that we know
 * of is dead, its end not yet seen. A bound one still delivers what it has.
 */
static void old_replace(struct peer_conn *old)
{
	switch (old->state) {
	case PEER_CONN_CONNECTING:
		turn_connect_failed(old, -ECONNRESET);
		break;
	case PEER_CONN_HELD:
		turn_peer_conn_end(old, "replaced");
		break;
	case PEER_CONN_BOUND:
		break;
	}
}

/* A peer with a permission, and admitted. False: nobody took fd. */
static bool peer_keep(struct allocation *allocation, int fd,
		      const union addr *peer)
{
	struct peer_conn *old = turn_peer_conn_find(allocation, peer);
	struct peer_conn *conn;

	if (old)
		old_replace(old);
	if (turn_peer_conn_new(allocation, fd, peer, NULL, &conn))
		return false;
	turn_port_tune(fd);
	if (turn_peer_conn_hold(conn))
		turn_peer_conn_end(conn, "no_identifier");
	else
		attempt_indicate(conn);
	return true;
}

static void peer_rejected(const struct allocation *allocation,
			  const union addr *peer)
{
	struct turn_worker *worker = allocation->worker;
	char text[ADDR_STRLEN];
	uint64_t suppressed;

	worker->counters.rejected_limit++;
	if (turn_worker_may_log(worker, TURN_LOG_LIMIT, &suppressed))
		log_warn(
			ROOM,
			"event=rejected limit=peers allocation=a%u.%ju peer=%s suppressed=%ju",
			worker->index, (uintmax_t)allocation->serial,
			addr_format(peer, text), (uintmax_t)suppressed);
}

static void peer_accepted(void *arg, int fd, const union addr *remote)
{
	const struct outlet *outlet = arg;
	struct allocation *allocation = outlet->allocation;
	struct turn_worker *worker = allocation->worker;

	worker->counters.peer_accepts++;
	/* The policy may have changed since the permission was made. */
	if (!turn_permission_holds(allocation, remote) ||
	    !turn_access_allows(allocation, remote)) {
		worker->counters.peer_accepts_refused++;
		fd_close(&fd);
		return;
	}
	if (turn_peer_conn_admit(allocation)) {
		peer_rejected(allocation, remote);
		fd_close(&fd);
		return;
	}
	if (!peer_keep(allocation, fd, remote)) {
		turn_peer_conn_dismiss(allocation);
		fd_close(&fd);
	}
}

static void accept_exhausted(void *arg, int error)
{
	const struct outlet *outlet = arg;
	struct allocation *allocation = outlet->allocation;
	struct turn_worker *worker = allocation->worker;
	uint64_t suppressed;

	worker->counters.rejected_descriptors++;
	if (turn_worker_may_log(worker, TURN_LOG_DESCRIPTORS, &suppressed))
		log_warn(
			ROOM,
			"event=accept_failed allocation=a%u.%ju error=%s suppressed=%ju",
			worker->index, (uintmax_t)allocation->serial,
			strerrorname_np(-error), (uintmax_t)suppressed);
}

const struct listener_ops turn_relayed_listener_ops = {
	.accepted = peer_accepted,
	.exhausted = accept_exhausted,
};
