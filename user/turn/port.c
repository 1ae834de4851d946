/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Relayed sockets.
 *
 * The kernel decides who owns a relayed port. The listening socket is bound with
 * SO_REUSEADDR alone: bind(2) and listen(2) then refuse a port that listens in
 * another allocation, thread or process, and let TIME_WAIT leftovers be. Only
 * when it listens it gets SO_REUSEPORT, which lets this process bind outgoing
 * sockets to the same address and port (RFC 6062 5.2): those ask for both
 * options, never listen, and so never take a SYN from it. Seen on 6.18: with
 * twenty such sockets bound, each of 200 connections reached the listener.
 *
 * Ports are drawn at random (RFC 8656 section 5 on guessing them); when most of
 * the range is taken the rest of it is walked through from a random start; when
 * all of it is, that is remembered: a walk takes as long as many requests.
 *
 * A port is one allocation's for UDP and TCP together. A UDP socket has neither
 * option, so nobody can bind beside it.
 */
#include "turn/port.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/random.h"
#include "base/syscalls.h"
#include "transport/transport.h"

SYSCALLS_SOCKET(SYSCALLS_RELAY, AF_INET, 0);
SYSCALLS_SOCKET(SYSCALLS_RELAY, AF_INET6, 0);
SYSCALLS(SYSCALLS_RELAY, "bind connect listen setsockopt");

#define RANDOM_TRIES 16
#define BIND_TRIES   64 /* system calls spent on ports that others hold */
#define BACKLOG      256
#define PAIR_TRIES   16

static int option_on(int fd, int level, int name)
{
	const int on = 1;

	return setsockopt(fd, level, name, &on, sizeof(on)) < 0 ? -errno : 0;
}

/* Without effect where it is out of the kernel's range. */
static void mss_limit(int fd, unsigned int mss)
{
	const int value = (int)mss;

	if (mss)
		setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &value, sizeof(value));
}

static int socket_new(const union addr *addr, bool udp)
{
	int fd = socket(addr_family(addr),
			(udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK |
				SOCK_CLOEXEC,
			0);
	int err;

	if (fd < 0)
		return -errno;
	if (!udp)
		fd_inline(fd);
	err = udp ? 0 : option_on(fd, SOL_SOCKET, SO_REUSEADDR);
	if (err) {
		fd_close(&fd);
		return err;
	}
	return fd;
}

/* Binds *fd, a fresh socket when it is -1, to addr. 0 or negative errno. */
static int port_try(int *fd, const union addr *addr,
		    const struct port_wish *wish)
{
	int err;

	if (*fd < 0) {
		*fd = socket_new(addr, wish->udp);
		if (*fd < 0) {
			err = *fd;
			*fd = -1;
			return err;
		}
	}
	/* A socket that could not be bound may try another port. */
	if (bind(*fd, &addr->sa, addr_len(addr)) < 0)
		return -errno;
	if (wish->udp)
		return 0;
	mss_limit(*fd, wish->mss);
	if (listen(*fd, BACKLOG) < 0 ||
	    option_on(*fd, SOL_SOCKET, SO_REUSEPORT)) {
		err = -errno;
		fd_close(fd);
		return err;
	}
	return 0;
}

/* One port: binds and registers. -EADDRINUSE: try another; -EBUSY: enough. */
static int port_take(struct turn_shared *shared, const struct port_wish *wish,
		     struct relayed *relayed, uint16_t port, int *fd,
		     int *binds)
{
	int err;

	addr_set_port(&relayed->addr, port);
	if ((wish->even && port % 2) ||
	    turn_relayed_taken(shared, &relayed->addr))
		return -EADDRINUSE;
	if (++*binds > BIND_TRIES)
		return -EBUSY;
	err = port_try(fd, &relayed->addr, wish);
	if (err)
		return err;
	err = turn_relayed_add(shared, relayed);
	if (err)
		fd_close(fd);
	return err;
}

int turn_port_open(struct turn_shared *shared, const struct port_wish *wish,
		   struct relayed *relayed)
{
	const uint16_t min = wish->min, max = wish->max;
	uint32_t count = (uint32_t)max - min + 1, start = random_below(count);
	int fd = -1, binds = 0, err = -EADDRINUSE;
	uint64_t freed;

	if (turn_relayed_full(shared, &relayed->addr, min, max, wish->even,
			      &freed))
		return -EADDRINUSE;
	for (int i = 0; i < RANDOM_TRIES && err == -EADDRINUSE; i++)
		err = port_take(shared, wish, relayed,
				(uint16_t)(min + random_below(count)), &fd,
				&binds);
	for (uint32_t i = 0; i < count && err == -EADDRINUSE; i++)
		err = port_take(shared, wish, relayed,
				(uint16_t)(min + (start + i) % count), &fd,
				&binds);
	/* Ports that others hold are given back without our knowing. */
	if (err == -EADDRINUSE && !binds)
		turn_relayed_full_note(shared, &relayed->addr, min, max,
				       wish->even, freed);
	if (err) {
		fd_close(&fd);
		return err == -EBUSY ? -EADDRINUSE : err;
	}
	return fd;
}

/* The port behind an even one that has just been opened. */
static int neighbour_open(struct turn_shared *shared,
			  const struct port_wish *wish,
			  const struct relayed *relayed, struct relayed *next)
{
	const uint16_t port = addr_port(&relayed->addr);
	const struct port_wish one = {
		.min = (uint16_t)(port + 1),
		.max = (uint16_t)(port + 1),
		.udp = wish->udp,
	};

	if (port == wish->max)
		return -EADDRINUSE;
	next->addr = relayed->addr;
	return turn_port_open(shared, &one, next);
}

int turn_port_open_pair(struct turn_shared *shared,
			const struct port_wish *wish, struct relayed *relayed,
			struct relayed *next, int *fd, int *next_fd)
{
	int first, second = -EADDRINUSE;

	for (int i = 0; i < PAIR_TRIES && second == -EADDRINUSE; i++) {
		first = turn_port_open(shared, wish, relayed);
		if (first < 0)
			return first;
		second = neighbour_open(shared, wish, relayed, next);
		if (second >= 0) {
			*fd = first;
			*next_fd = second;
			return 0;
		}
		turn_relayed_remove(shared, relayed);
		fd_close(&first);
	}
	return second;
}

static int dial(int fd, const union addr *relayed, const union addr *peer,
		bool *connected)
{
	int err = option_on(fd, SOL_SOCKET, SO_REUSEPORT);

	if (err)
		return err;
	if (bind(fd, &relayed->sa, addr_len(relayed)) < 0)
		return -errno;
	if (connect(fd, &peer->sa, addr_len(peer)) == 0)
		*connected = true;
	else if (errno == EINPROGRESS)
		*connected = false;
	else
		return -errno;
	return 0;
}

int turn_port_dial(const union addr *relayed, const union addr *peer,
		   unsigned int mss, bool *connected)
{
	int fd = socket_new(relayed, false), err;

	if (fd < 0)
		return fd;
	mss_limit(fd, mss);
	err = dial(fd, relayed, peer, connected);
	if (err) {
		fd_close(&fd);
		return err;
	}
	return fd;
}

void turn_port_tune(int fd)
{
	option_on(fd, IPPROTO_TCP, TCP_NODELAY);
}
