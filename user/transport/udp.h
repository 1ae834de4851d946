/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * UDP sockets of one loop: datagrams in, datagrams out, both in batches. What the
 * bytes mean is the owner's.
 */
#ifndef TRANSPORT_UDP_H
#define TRANSPORT_UDP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "loop/loop.h"

/*
 * Opens a bound socket for clients with SO_REUSEPORT, one per worker, so call it
 * once per worker and address: of all of them the kernel gives the datagrams of
 * one 5-tuple to the same. IPv6 sockets are V6ONLY. A nonblocking descriptor or a
 * negative errno.
 */
int udp_open(const union addr *addr);
/* The same for the first of an address's sockets: as listener_claim. */
int udp_claim(const union addr *addr);
/* Is this a socket of udp_open, and not one that listens? */
bool udp_is(int fd);

/* The buffers that all sockets of a loop share. */
struct udp;

/* 0 or -ENOMEM. */
int udp_new(struct loop *loop, struct udp **out);
void udp_free(struct udp *udp); /* its sockets are freed before; accepts NULL */
/* Datagrams that could not be sent: the kernel had no room or no way. */
uint64_t udp_unsent(const struct udp *udp);

struct udp_socket;

/* Both ends of a datagram. */
struct udp_path {
	union addr remote;
	/* AF_UNSPEC: of one to send, the kernel's choice; of one that arrived, no
	 * address of one host (multicast, broadcast).
	 */
	union addr local;
};

/*
 * A datagram has arrived; `data` is valid during the call. The callee may send,
 * but not free this socket.
 */
typedef void (*udp_received_fn)(void *arg, const struct udp_path *path,
				const uint8_t *data, size_t len);

/* Takes a bound descriptor over on success. 0, -ENOMEM, -ENOSPC. */
int udp_socket_new(struct udp *udp, int fd, udp_received_fn received, void *arg,
		   struct udp_socket **out);
/* What ICMP or ICMPv6 says of a datagram that was sent. */
struct udp_failure {
	union addr remote; /* whom the datagram was for */
	uint8_t type, code; /* of ICMP or ICMPv6, as remote's family is */
	uint32_t mtu; /* of the next link, where that is the trouble; else 0 */
};
/* As udp_received_fn. What fails has been sent long ago, if by this socket at all. */
typedef void (*udp_failed_fn)(void *arg, const struct udp_failure *failure);

/* Asks to be told. 0 or a negative errno. */
int udp_socket_failures(struct udp_socket *socket, udp_failed_fn failed);
/*
 * Lets datagrams of one sender come in trains, for a third less work each; the callee
 * sees them one by one as before. A network device that joins them for this socket
 * does so before programs at its hooks, which take no trains: not where one may take
 * over what comes here. No error: what a kernel cannot do it does not. What has come
 * before they are forbidden again, and has not been read, is lost.
 */
void udp_socket_trains(struct udp_socket *socket, bool on);
/* Lets routers cut what is sent, and does not believe ICMP of IPv4 for it. */
void udp_socket_fragments(struct udp_socket *socket);
/* What waits to be sent is sent, the descriptor closed. Accepts NULL. */
void udp_socket_free(struct udp_socket *socket);
int udp_socket_fd(const struct udp_socket *socket);
/* What it is bound to. */
const union addr *udp_socket_addr(const struct udp_socket *socket);

/*
 * Room for a datagram of len bytes that leaves at the end of the loop's tick, for
 * the caller to fill at once. NULL: no datagram can be that long.
 */
uint8_t *udp_send(struct udp_socket *socket, const struct udp_path *path,
		  size_t len);
/* Sends one now that no router may cut (IPv4: DF), or drops and counts it. */
void udp_send_whole(struct udp_socket *socket, const union addr *to,
		    const uint8_t *data, size_t len);
/* Sends everything that waits now. */
void udp_flush(struct udp *udp);

#endif
