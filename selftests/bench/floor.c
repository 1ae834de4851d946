/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * floor: what a set-up costs before a relay has done any work for it.
 *
 * Speaks as much TURN over TCP (RFC 6062) as load needs to set up connections,
 * and makes the system calls which no relay can do without: accept; socket, bind
 * and listen for the relayed port; connect from it; the bytes copied, the end of
 * a stream carried on, close. There is nothing else: whoever has a user name is
 * served, no digest is computed, nobody is told anything, nothing is timed. It
 * is for measurements in a network of its own and nowhere else. What load never
 * does ends the connection: a request in pieces, more bytes than an empty send
 * buffer takes. Peers that connect to a relayed port are not answered.
 *
 * An end is a descriptor with its state, in a table that descriptors index:
 *
 *   LISTENING
 *   CONTROL     a client's; may hold a relayed port and one connection to offer
 *   CONNECTING  to a peer, known to its CONTROL
 *   OFFERED     connected, waits for a ConnectionBind
 *   RELAYING    two of them: a CONTROL that sent a ConnectionBind, and the
 *               OFFERED that it asked for
 *
 * An end belongs to the worker whose epoll watches it, and only that one
 * touches it. An OFFERED end belongs to whoever takes its CONNECTION-ID out of
 * `offer`, which is one atomic exchange: the worker that has the ConnectionBind,
 * which SO_REUSEPORT picked, or the one whose control connection ends. Events
 * carry the tag their end had when it was registered; one that was fetched
 * before its end was offered, closed or used anew bears an old tag and is dropped.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/addr.h"
#include "base/fd.h"
#include "stun/stun.h"

#define WORKERS       2 /* as many as all relays here have */
#define EVENTS_MAX    256
#define ENDS_MAX      65536u /* a CONNECTION-ID has 16 bits for the descriptor */
#define MESSAGE_MAX   1400
#define CHUNK         65536
#define PORT_MIN      10000u
#define PORT_COUNT    (65536u - PORT_MIN)
#define PORT_STEP     7919u /* prime: every port comes once before any again */
#define PORT_TRIES    64
#define RELAY_BACKLOG 256
#define BACKLOG       8192
/* A short read means drained, unless the end of the stream was there already. */
#define RELAY_EVENTS (EPOLLIN | EPOLLRDHUP | EPOLLET)

struct worker {
	int epoll;
	struct end *listener;
	pthread_t thread;
};

enum end_state {
	END_LISTENING,
	END_CONTROL,
	END_CONNECTING,
	END_OFFERED,
	END_RELAYING,
};

struct end {
	_Atomic uint64_t tag; /* of events that count; 0: none does */
	struct worker *worker;
	enum end_state state;
	_Atomic uint32_t offer; /* OFFERED: its CONNECTION-ID until claimed */
	/* CONTROL */
	uint64_t dialled; /* tag of the last connection asked for, or 0 */
	int relayed; /* listens at the relayed address, or -1 */
	union addr relayed_addr;
	/* CONNECTING */
	struct end *control; /* who asked; same worker, closes us when it goes */
	uint8_t txid[STUN_TXID_LEN]; /* of the Connect */
	/* RELAYING */
	bool ended; /* the end of its stream was carried on */
	struct end *other;
};

static struct end ends[ENDS_MAX];
static struct worker workers[WORKERS];
static union addr relay_addr;
static _Atomic uint32_t last_serial, last_port;

static int end_fd(const struct end *end)
{
	return (int)(end - ends);
}

/*
 * The end of a new descriptor, which is closed when there is no room for it.
 * Reading the tag that end_close wrote puts all that the last worker did to this
 * end before what the next one does.
 */
static struct end *end_new(struct worker *worker, int fd, enum end_state state)
{
	struct end *end = (unsigned int)fd < ENDS_MAX ? &ends[fd] : NULL;

	if (!end || atomic_load(&end->tag)) {
		fd_close(&fd);
		return NULL;
	}
	end->state = state;
	end->worker = worker;
	end->relayed = -1;
	end->dialled = 0;
	end->ended = false;
	return end;
}

static int end_watch(struct end *end, int op, uint32_t events)
{
	uint64_t serial = atomic_fetch_add(&last_serial, 1) + 1;
	struct epoll_event event = {
		.events = events,
		.data.u64 = serial << 32 | (uint32_t)end_fd(end),
	};

	atomic_store(&end->tag, event.data.u64);
	if (epoll_ctl(end->worker->epoll, op, end_fd(end), &event) < 0)
		return -errno;
	return 0;
}

static void end_close(struct end *end)
{
	atomic_store(&end->tag, 0);
	close(end_fd(end));
}

static int option_on(int fd, int level, int name)
{
	const int on = 1;

	return setsockopt(fd, level, name, &on, sizeof(on)) < 0 ? -errno : 0;
}

/* A socket that may be bound beside others of its port: fd or negative errno. */
static int socket_new(const union addr *addr)
{
	int fd = socket(addr_family(addr),
			SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	option_on(fd, SOL_SOCKET, SO_REUSEADDR);
	return fd;
}

/* A descriptor and 16 bits of its serial number: no stale id finds a new end. */
static uint32_t offer_id(uint64_t tag)
{
	return (uint32_t)(tag >> 32) << 16 | (uint32_t)(tag & (ENDS_MAX - 1));
}

/* The end offered by this CONNECTION-ID, now the caller's; NULL: gone. */
static struct end *offer_claim(uint32_t id)
{
	struct end *end = &ends[id & (ENDS_MAX - 1)];

	if (!id || !atomic_compare_exchange_strong(&end->offer, &id, 0))
		return NULL;
	return end;
}

/* Closes what the last Connect began, unless a ConnectionBind has taken it. */
static void dialled_drop(struct end *control)
{
	struct end *end = &ends[control->dialled & (ENDS_MAX - 1)];

	if (!control->dialled)
		return;
	if (atomic_load(&end->tag) != control->dialled)
		end = offer_claim(offer_id(control->dialled));
	if (end)
		end_close(end);
	control->dialled = 0;
}

static void control_close(struct end *end)
{
	dialled_drop(end);
	if (end->relayed >= 0)
		close(end->relayed);
	end_close(end);
}

static void pair_close(struct end *end)
{
	end_close(end->other);
	end_close(end);
}

static int answer_send(const struct end *end, struct stun_writer *w)
{
	ssize_t len = stun_end(w);

	if (len < 0)
		return (int)len;
	if (send(end_fd(end), w->buf, (size_t)len, MSG_NOSIGNAL) != len)
		return -EPIPE;
	return 0;
}

/* A second try with a user name is all that is asked for. */
static int challenge_send(const struct end *end, const uint8_t *txid)
{
	uint8_t buf[MESSAGE_MAX];
	struct stun_writer w;

	stun_begin(&w, buf, sizeof(buf), STUN_ERROR, STUN_ALLOCATE, txid);
	stun_put_error(&w, STUN_CODE_UNAUTHENTICATED);
	stun_put_string(&w, STUN_ATTR_REALM, "bench.example");
	stun_put_string(&w, STUN_ATTR_NONCE, "0123456789abcdef");
	return answer_send(end, &w);
}

/*
 * Listens at a port of its own. As a relay that must not share it with another
 * allocation: SO_REUSEPORT, for what is dialled from it, only once it listens.
 */
static int relayed_open(struct end *control)
{
	union addr addr = relay_addr;
	int fd = socket_new(&addr), err = -EADDRINUSE;

	if (fd < 0)
		return fd;
	for (int i = 0; i < PORT_TRIES && err == -EADDRINUSE; i++) {
		uint32_t at = atomic_fetch_add(&last_port, PORT_STEP);

		addr_set_port(&addr, (uint16_t)(PORT_MIN + at % PORT_COUNT));
		err = bind(fd, &addr.sa, addr_len(&addr)) < 0 ? -errno : 0;
	}
	if (!err && listen(fd, RELAY_BACKLOG) < 0)
		err = -errno;
	if (!err)
		err = option_on(fd, SOL_SOCKET, SO_REUSEPORT);
	if (err) {
		fd_close(&fd);
		return err;
	}
	control->relayed = fd;
	control->relayed_addr = addr;
	return 0;
}

static int allocate(struct end *control, const struct stun_msg *msg)
{
	uint8_t buf[MESSAGE_MAX];
	struct stun_writer w;
	int err;

	if (!stun_has(msg, STUN_ATTR_USERNAME))
		return challenge_send(control, msg->txid);
	if (control->relayed >= 0)
		return -EEXIST;
	err = relayed_open(control);
	if (err)
		return err;
	stun_begin(&w, buf, sizeof(buf), STUN_SUCCESS, STUN_ALLOCATE,
		   msg->txid);
	stun_put_xor_address(&w, STUN_ATTR_XOR_RELAYED_ADDRESS,
			     &control->relayed_addr);
	stun_put_u32(&w, STUN_ATTR_LIFETIME, 600);
	return answer_send(control, &w);
}

/* A socket on its way from the relayed address to `to`: fd or negative errno. */
static int peer_dial(const union addr *from, const union addr *to)
{
	int fd = socket_new(from), err;

	if (fd < 0)
		return fd;
	option_on(fd, IPPROTO_TCP, TCP_NODELAY);
	err = option_on(fd, SOL_SOCKET, SO_REUSEPORT);
	if (!err && bind(fd, &from->sa, addr_len(from)) < 0)
		err = -errno;
	if (!err && connect(fd, &to->sa, addr_len(to)) < 0 &&
	    errno != EINPROGRESS)
		err = -errno;
	if (err) {
		fd_close(&fd);
		return err;
	}
	return fd;
}

static int connect_peer(struct end *control, const struct stun_msg *msg)
{
	struct stun_attr attr;
	struct end *end;
	union addr to;
	int fd, err;

	if (control->relayed < 0 ||
	    !stun_find(msg, STUN_ATTR_XOR_PEER_ADDRESS, &attr) ||
	    stun_get_xor_address(msg, &attr, &to))
		return -EBADMSG;
	dialled_drop(control);
	fd = peer_dial(&control->relayed_addr, &to);
	if (fd < 0)
		return fd;
	end = end_new(control->worker, fd, END_CONNECTING);
	if (!end)
		return -EMFILE;
	end->control = control;
	memcpy(end->txid, msg->txid, sizeof(end->txid));
	err = end_watch(end, EPOLL_CTL_ADD, EPOLLOUT | EPOLLET);
	if (err) {
		end_close(end);
		return err;
	}
	control->dialled = atomic_load(&end->tag);
	return 0;
}

/* As soon as `offer` is set the end may be another worker's. */
static void connecting_ready(struct end *end, uint32_t events)
{
	struct end *control = end->control;
	uint32_t id = offer_id(control->dialled);
	uint8_t buf[MESSAGE_MAX];
	struct stun_writer w;

	if (events & (EPOLLERR | EPOLLHUP)) {
		control_close(control);
		return;
	}
	stun_begin(&w, buf, sizeof(buf), STUN_SUCCESS, STUN_CONNECT, end->txid);
	stun_put_u32(&w, STUN_ATTR_CONNECTION_ID, id);
	end->state = END_OFFERED;
	atomic_store(&end->tag, 0);
	atomic_store(&end->offer, id);
	if (answer_send(control, &w))
		control_close(control);
}

/* Watched by the worker of its client's connection from now on. */
static int peer_adopt(struct end *peer, struct worker *worker)
{
	if (peer->worker == worker)
		return end_watch(peer, EPOLL_CTL_MOD, RELAY_EVENTS);
	if (epoll_ctl(peer->worker->epoll, EPOLL_CTL_DEL, end_fd(peer), NULL) <
	    0)
		return -errno;
	peer->worker = worker;
	return end_watch(peer, EPOLL_CTL_ADD, RELAY_EVENTS);
}

/* On success `data` is a control connection no more. */
static int connection_bind(struct end *data, const struct stun_msg *msg)
{
	uint8_t buf[MESSAGE_MAX];
	struct stun_writer w;
	struct stun_attr attr;
	struct end *peer;
	uint32_t id;
	int err;

	if (data->relayed >= 0 ||
	    !stun_find(msg, STUN_ATTR_CONNECTION_ID, &attr) ||
	    stun_get_u32(&attr, &id))
		return -EBADMSG;
	peer = offer_claim(id);
	if (!peer)
		return -ENOENT;
	stun_begin(&w, buf, sizeof(buf), STUN_SUCCESS, STUN_CONNECTION_BIND,
		   msg->txid);
	err = answer_send(data, &w);
	if (!err)
		err = peer_adopt(peer, data->worker);
	if (!err)
		err = end_watch(data, EPOLL_CTL_MOD, RELAY_EVENTS);
	if (err) {
		end_close(peer);
		return err;
	}
	peer->state = data->state = END_RELAYING;
	peer->other = data;
	data->other = peer;
	return 0;
}

static int request_serve(struct end *control, const uint8_t *data, size_t len)
{
	struct stun_msg msg;
	int err = stun_parse(data, len, &msg);

	if (err)
		return err;
	if (msg.class != STUN_REQUEST)
		return -EBADMSG;
	switch (msg.method) {
	case STUN_ALLOCATE:
		return allocate(control, &msg);
	case STUN_CONNECT:
		return connect_peer(control, &msg);
	case STUN_CONNECTION_BIND:
		return connection_bind(control, &msg);
	}
	return -EBADMSG;
}

static void control_ready(struct end *end)
{
	uint8_t buf[MESSAGE_MAX];
	ssize_t got = recv(end_fd(end), buf, sizeof(buf), 0);

	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0 || request_serve(end, buf, (size_t)got))
		control_close(end);
}

/* The second end of stream closes both: that sends the other one's FIN, too. */
static void stream_ended(struct end *end)
{
	end->ended = true;
	if (end->other->ended)
		pair_close(end);
	else
		shutdown(end_fd(end->other), SHUT_WR);
}

static void relaying_ready(struct end *end, uint32_t events)
{
	uint8_t buf[CHUNK];
	ssize_t got;

	if (end->ended) {
		if (events & EPOLLERR)
			pair_close(end);
		return;
	}
	do {
		got = recv(end_fd(end), buf, sizeof(buf), 0);
		if (got > 0 && send(end_fd(end->other), buf, (size_t)got,
				    MSG_NOSIGNAL) != got) {
			pair_close(end);
			return;
		}
	} while (got == sizeof(buf) || (got > 0 && events & EPOLLRDHUP));
	if (!got)
		stream_ended(end);
	else if (got < 0 && errno != EAGAIN)
		pair_close(end);
}

static void listening_ready(struct end *listener)
{
	for (;;) {
		int fd = accept4(end_fd(listener), NULL, NULL,
				 SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct end *end;

		if (fd < 0)
			return;
		end = end_new(listener->worker, fd, END_CONTROL);
		if (end && end_watch(end, EPOLL_CTL_ADD, EPOLLIN))
			end_close(end);
	}
}

static void end_ready(uint64_t tag, uint32_t events)
{
	struct end *end = &ends[tag & (ENDS_MAX - 1)];

	if (atomic_load(&end->tag) != tag)
		return;
	switch (end->state) {
	case END_LISTENING:
		listening_ready(end);
		return;
	case END_CONTROL:
		control_ready(end);
		return;
	case END_CONNECTING:
		connecting_ready(end, events);
		return;
	case END_OFFERED:
		return;
	case END_RELAYING:
		relaying_ready(end, events);
		return;
	}
}

static void *worker_run(void *arg)
{
	struct worker *worker = arg;
	struct epoll_event events[EVENTS_MAX];

	for (;;) {
		int count = epoll_wait(worker->epoll, events, EVENTS_MAX, -1);

		if (count < 0 && errno != EINTR)
			return NULL;
		for (int i = 0; i < count; i++)
			end_ready(events[i].data.u64, events[i].events);
	}
}

/* Answers acknowledge requests: inherited when set behind listen(2). */
static int listener_open(const union addr *addr)
{
	int fd = socket_new(addr), zero = 0;

	if (fd < 0)
		return fd;
	option_on(fd, SOL_SOCKET, SO_REUSEPORT);
	option_on(fd, IPPROTO_TCP, TCP_NODELAY);
	if (bind(fd, &addr->sa, addr_len(addr)) < 0 ||
	    listen(fd, BACKLOG) < 0) {
		int err = -errno;

		fd_close(&fd);
		return err;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &zero, sizeof(zero));
	return fd;
}

static int worker_start(struct worker *worker, const union addr *addr)
{
	int fd = listener_open(addr), err;

	if (fd < 0)
		return fd;
	worker->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (worker->epoll < 0)
		return -errno;
	worker->listener = end_new(worker, fd, END_LISTENING);
	if (!worker->listener)
		return -EMFILE;
	err = end_watch(worker->listener, EPOLL_CTL_ADD, EPOLLIN);
	if (err)
		return err;
	return -pthread_create(&worker->thread, NULL, worker_run, worker);
}

static int usage(void)
{
	fputs("usage: floor --listen ADDR:PORT --relay ADDR\n", stderr);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "listen", required_argument, NULL, 'l' },
		{ "relay", required_argument, NULL, 'r' },
		{ NULL, 0, NULL, 0 },
	};
	union addr listen_addr = { .sa.sa_family = AF_UNSPEC };
	int option, err = 0;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'l')
			err = addr_parse(optarg, 3478, &listen_addr);
		else if (option == 'r')
			err = addr_parse(optarg, 0, &relay_addr);
		if (option == '?' || err)
			return usage();
	}
	if (addr_family(&listen_addr) == AF_UNSPEC ||
	    addr_family(&relay_addr) == AF_UNSPEC)
		return usage();
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	for (int i = 0; i < WORKERS; i++) {
		err = worker_start(&workers[i], &listen_addr);
		if (err) {
			fprintf(stderr, "floor: %s\n", strerror(-err));
			return 1;
		}
	}
	puts("ready");
	fflush(stdout);
	for (int i = 0; i < WORKERS; i++)
		pthread_join(workers[i].thread, NULL);
	return 1;
}
