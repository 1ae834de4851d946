/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Connect (RFC 6062 5.2): out to a peer from the relayed transport address.
 *
 * The answer waits for the peer, the control connection does not: other requests
 * are served meanwhile. Our own timer counts connect_timeout, because the
 * kernel's SYNs are retried for two minutes.
 */
#include "turn/connect.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/syscalls.h"
#include "crypto/crypto.h"
#include "turn/on_wire.h"
#include "turn/outlet.h"
#include "turn/permission.h"
#include "turn/port.h"

SYSCALLS(SYSCALLS_RELAY, "getsockopt");

static void connected(struct peer_conn *conn)
{
	struct client *client = conn->allocation->client;
	struct transaction tx = conn->pending->tx;
	uint8_t buf[TURN_ANSWER_MAX];
	struct stun_writer w;

	if (turn_peer_conn_hold(conn)) {
		turn_connect_failed(conn, -ENOSPC);
		return;
	}
	turn_answer_begin(&w, buf, STUN_SUCCESS, &tx);
	stun_put(&w, STUN_ATTR_CONNECTION_ID, conn->pending->connection_id,
		 sizeof(conn->pending->connection_id));
	turn_answer_send(client, &w, &tx);
	crypto_wipe(&tx, sizeof(tx));
}

void turn_connect_failed(struct peer_conn *conn, int error)
{
	struct client *client = conn->allocation->client;
	struct transaction tx = conn->pending->tx;
	int code = error == -ENOSPC ? STUN_CODE_INSUFFICIENT_CAPACITY :
				      STUN_CODE_CONNECTION_TIMEOUT_OR_FAILURE;

	conn->worker->counters.peer_connect_failures++;
	turn_peer_conn_end(conn, strerrorname_np(-error));
	turn_answer_error(client, &tx, code);
	crypto_wipe(&tx, sizeof(tx));
}

void turn_connect_ready(struct peer_conn *conn, uint32_t events)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (!(events & (EPOLLERR | EPOLLHUP))) {
		connected(conn);
		return;
	}
	if (getsockopt(conn->pending->watch.fd, SOL_SOCKET, SO_ERROR, &error,
		       &len) < 0)
		error = errno;
	/* Without an error it was connected and is over already. */
	turn_connect_failed(conn, error ? -error : -ECONNRESET);
}

/* The peer of a Connect: 0, or the code that refuses it. */
static int peer_check(const struct request *req,
		      const struct allocation *allocation, union addr *peer)
{
	const struct outlet *outlet;
	int code = turn_request_peer_port(req, allocation, peer);

	if (code)
		return code;
	outlet = turn_outlet_of(allocation, addr_family(peer));
	/* To itself, TCP would connect one socket with its own end. */
	if (addr_equal(peer, &outlet->relayed.addr))
		return STUN_CODE_FORBIDDEN;
	if (turn_conf(req->worker)->peers.require_permission &&
	    !turn_permission_holds(allocation, peer))
		return STUN_CODE_FORBIDDEN;
	if (turn_peer_conn_find(allocation, peer))
		return STUN_CODE_CONNECTION_ALREADY_EXISTS;
	return 0;
}

/* What stopped a connection before the network was asked. */
static int dial_code(int error)
{
	switch (error) {
	case -EMFILE:
	case -ENFILE:
	case -ENOBUFS:
	case -ENOMEM:
		return STUN_CODE_INSUFFICIENT_CAPACITY;
	default:
		return STUN_CODE_CONNECTION_TIMEOUT_OR_FAILURE;
	}
}

/* Admitted. TURN_LATER, or a code with nothing left behind. */
static int peer_dial(struct request *req, struct allocation *allocation,
		     const union addr *peer)
{
	const struct outlet *outlet =
		turn_outlet_of(allocation, addr_family(peer));
	struct turn_worker *worker = req->worker;
	struct peer_conn *conn;
	bool up;
	int fd = turn_port_dial(&outlet->relayed.addr, peer,
				turn_wire_mss(allocation), &up);

	worker->counters.peer_connects++;
	if (fd < 0) {
		worker->counters.peer_connect_failures++;
		return dial_code(fd);
	}
	turn_port_tune(fd);
	if (turn_peer_conn_new(allocation, fd, peer, &req->tx, &conn)) {
		fd_close(&fd);
		return STUN_CODE_INSUFFICIENT_CAPACITY;
	}
	if (up)
		connected(conn);
	return TURN_LATER;
}

int turn_connect(struct request *req)
{
	struct allocation *allocation;
	union addr peer;
	int code = turn_request_allocation(req, &allocation);

	if (!code && allocation->transport != STUN_TRANSPORT_TCP)
		code = STUN_CODE_FORBIDDEN;
	if (!code)
		code = peer_check(req, allocation, &peer);
	if (!code)
		code = turn_peer_conn_admit(allocation);
	if (code)
		return code;
	code = peer_dial(req, allocation, &peer);
	if (code != TURN_LATER)
		turn_peer_conn_dismiss(allocation);
	return code;
}
