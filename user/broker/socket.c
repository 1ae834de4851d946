/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TCP sockets, as the broker handles those of the relay: who they are, silence,
 * and resets from made-up ones. Repair mode (TCP_REPAIR, CAP_NET_ADMIN) is what
 * makes a socket change or end without a packet.
 */
#include "broker/socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/addr.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/syscalls.h"

SYSCALLS_SOCKET(SYSCALLS_BROKER, AF_INET, 0);
SYSCALLS_SOCKET(SYSCALLS_BROKER, AF_INET6, 0);
SYSCALLS(SYSCALLS_BROKER, "bind connect");
SYSCALLS(SYSCALLS_BROKER, "getsockopt setsockopt poll ppoll close");

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

uint64_t socket_namespace(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(uint64_t);
	uint64_t cookie = 0;

	if (fd < 0)
		return 0;
	if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) < 0)
		cookie = 0;
	close(fd);
	return cookie;
}

static bool option_is(int fd, int name, int want)
{
	int value = -1;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, name, &value, &len) == 0 &&
	       value == want;
}

/* An Internet socket of this namespace, of this kind? */
static bool socket_is(int fd, uint64_t netns, int type, int protocol)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	return (option_is(fd, SO_DOMAIN, AF_INET) ||
		option_is(fd, SO_DOMAIN, AF_INET6)) &&
	       option_is(fd, SO_TYPE, type) &&
	       option_is(fd, SO_PROTOCOL, protocol) &&
	       getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) ==
		       0 &&
	       cookie == netns;
}

bool socket_is_ours(int fd, uint64_t netns)
{
	return socket_is(fd, netns, SOCK_STREAM, IPPROTO_TCP);
}

bool socket_is_datagrams(int fd, uint64_t netns)
{
	return socket_is(fd, netns, SOCK_DGRAM, IPPROTO_UDP);
}

static int tcp_set(int fd, int name, int value)
{
	return setsockopt(fd, IPPROTO_TCP, name, &value, sizeof(value)) < 0 ?
		       -errno :
		       0;
}

static bool is_closed(int fd)
{
	struct tcp_info info = { .tcpi_state = TCP_CLOSE };
	socklen_t len = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
	       info.tcpi_state == TCP_CLOSE;
}

int sockets_closed(const int fds[WIRE_LEGS])
{
	struct pollfd both[WIRE_LEGS] = { { .fd = fds[WIRE_CLIENT] },
					  { .fd = fds[WIRE_PEER] } };
	int leg = 0;

	/* One that is shut down both ways hangs up, too. */
	if (poll(both, WIRE_LEGS, 0) <= 0)
		return WIRE_LEGS;
	while (leg < WIRE_LEGS &&
	       !(both[leg].revents & POLLHUP && is_closed(fds[leg])))
		leg++;
	return leg;
}

void socket_acknowledge(int fd)
{
	tcp_set(fd, TCP_QUICKACK, 1);
}

void socket_silence(int fd)
{
	static struct log_limit limit;
	uint64_t more;
	int err = tcp_set(fd, TCP_REPAIR, TCP_REPAIR_ON);

	if (err && log_allow(&limit, clock_ms(), &more))
		log_error("broker",
			  "event=silence_failed error=\"%s\" more=%llu",
			  strerror(-err), (unsigned long long)more);
}

void socket_disconnect(int fd)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };

	socket_silence(fd);
	/* In repair mode nothing is sent (tcp_disconnect). */
	(void)connect(fd, &none, sizeof(none));
}

static void key_address(const struct wire_key *key, bool local, union addr *out)
{
	addr_from_bytes(out, key->family, local ? key->local : key->remote,
			ntohs(local ? key->local_port : key->remote_port));
}

/*
 * Both queues' numbers are set while the socket is closed; connected in repair mode
 * it is established without a packet.
 */
static int reset_connect(int fd, const struct wire_key *key, uint32_t seq,
			 uint32_t ack)
{
	union addr local, remote;
	int err = tcp_set(fd, TCP_REPAIR, TCP_REPAIR_ON);

	if (!err)
		err = tcp_set(fd, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
	if (!err)
		err = tcp_set(fd, TCP_QUEUE_SEQ, (int)seq);
	if (!err)
		err = tcp_set(fd, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE);
	if (!err)
		err = tcp_set(fd, TCP_QUEUE_SEQ, (int)ack);
	if (err)
		return err;
	key_address(key, true, &local);
	key_address(key, false, &remote);
	if (bind(fd, &local.sa, addr_len(&local)) < 0 ||
	    connect(fd, &remote.sa, addr_len(&remote)) < 0)
		return -errno;
	return 0;
}

int socket_reset(const struct wire_key *key, uint32_t seq, uint32_t ack)
{
	static struct log_limit limit;
	static const struct linger at_once = { .l_onoff = 1 };
	static const int on = 1;
	bool ipv6 = key->family == AF_INET6;
	uint64_t more;
	int fd = socket(key->family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int err;

	if (fd < 0)
		return -errno;
	/* The address may be gone, and a listener may have the port. */
	setsockopt(fd, ipv6 ? IPPROTO_IPV6 : IPPROTO_IP,
		   ipv6 ? IPV6_FREEBIND : IP_FREEBIND, &on, sizeof(on));
	setsockopt(fd, ipv6 ? IPPROTO_IPV6 : IPPROTO_IP,
		   ipv6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	err = reset_connect(fd, key, seq, ack);
	if (!err) {
		tcp_set(fd, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once,
			   sizeof(at_once));
	} else if (err != -EADDRNOTAVAIL &&
		   log_allow(&limit, clock_ms(), &more)) {
		log_error("broker",
			  "event=reset_failed error=\"%s\" more=%llu "
			  "effect=\"the remote end learns it with its next "
			  "segment\"",
			  strerror(-err), (unsigned long long)more);
	}
	close(fd); /* in repair mode without a word, else by a reset */
	return err;
}
