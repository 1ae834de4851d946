/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pair on its way to wire, and on it.
 *
 *   pipelined bytes -> peer, then policy
 *        |
 *        v                 AGAIN (TRIES_MAX)
 *      drain <-----------------------------+<-- early: sent to the client
 *        | the client's socket is empty,   |        ^
 *        | the peer's copied               |        |
 *        v                                 |        |
 *      asked ------------------------------+        |
 *        |   |--more than the client's window holds-+
 *        |   \--refused--> pair_flush(): everything read goes out as prefaces
 *        | joined
 *        v
 *      latched: preface to the client, by its socket; it acknowledges
 *        | ACTIVE: both sockets are closed, struct streams goes
 *        v
 *      active: nothing here but the pair; ENDED closes it
 *
 * The client's preface begins with the owner's answer, which is not sent before
 * the join is decided: to_client counts it. What the peer sent early is added to
 * it, what more the client sent is written to the peer at once.
 *
 * The peer's early bytes are copied and left in its socket until it is decided: a
 * peer that sends as fast as it may fills its window and falls quiet, where reading
 * would open that again. If they do not fit into the client's window, the
 * client's socket sends what there is first, and the join is asked for once more.
 *
 * Whatever happens before "joined" leaves the pair as if wire had not been
 * thought of, with every byte copied so far in a preface, or sent. After it the
 * sockets' bytes mean nothing, and they are never given to an engine.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/syscalls.h"
#include "pair/internal.h"

SYSCALLS(SYSCALLS_RELAY, "recvfrom sendto setsockopt poll ppoll");

#define TRIES_MAX   5
#define EARLY_MAX   262144u /* bytes of the peer that are carried through */
#define DRAIN_BYTES 65536u /* of the client in one try: more is no quiet side */
#define DRAIN_CHUNK 16384
#define NS_PER_MS   UINT64_C(1000000)

/* What has been copied of the peer's bytes is not wanted from its socket any more. */
static void peer_consume(struct streams *streams)
{
	while (streams->unread) {
		ssize_t n = recv(streams->half[PAIR_PEER].fd, NULL,
				 streams->unread, MSG_TRUNC | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		streams->unread -= (size_t)n;
	}
	streams->unread = 0;
}

/* Another way it is, and why. */
static void join_refused(struct pair *pair, enum wire_reason why)
{
	pair->why = (uint8_t)why;
	peer_consume(pair->streams);
	pair->streams->on_decided(pair->owner, why);
	pair_flush(pair);
}

/* Bytes of the client to the peer; those it does not take become a preface. */
static enum wire_reason peer_write(struct pair *pair, const uint8_t *data,
				   size_t len)
{
	struct half *half = &pair->streams->half[PAIR_PEER];
	ssize_t n = send(half->fd, data, len, MSG_NOSIGNAL);

	pair->bytes[PAIR_PEER] += len;
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		half->dead = true;
		return WIRE_NO_STATE;
	}
	n = n < 0 ? 0 : n;
	if ((size_t)n == len)
		return WIRE_OK;
	return pair_half_append(half, data + n, len - (size_t)n) ?
		       WIRE_NO_ERROR :
		       WIRE_NO_EARLY;
}

/* Reads the client's socket to its end, for the peer. WIRE_OK: it is empty. */
static enum wire_reason client_drain(struct pair *pair)
{
	struct half *half = &pair->streams->half[PAIR_CLIENT];
	enum wire_reason why = WIRE_OK;
	uint8_t data[DRAIN_CHUNK] BYTES_UNSET;
	size_t sum = 0;

	while (why == WIRE_OK) {
		ssize_t n = recv(half->fd, data, sizeof(data), MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return WIRE_OK;
		half->failed = n < 0;
		if (n <= 0)
			return WIRE_NO_STATE;
		sum += (size_t)n;
		why = peer_write(pair, data, (size_t)n);
		if (why == WIRE_OK && sum > DRAIN_BYTES)
			why = WIRE_NO_QUIET;
	}
	return why;
}

/* Adds to the client's preface what the peer has sent since the last look. */
static enum wire_reason peer_append(struct pair *pair, uint8_t *copy,
				    size_t room)
{
	struct streams *streams = pair->streams;
	size_t had = streams->unread;
	ssize_t n = recv(streams->half[PAIR_PEER].fd, copy, room,
			 MSG_PEEK | MSG_DONTWAIT);

	if (n < 0)
		return WIRE_NO_ERROR;
	/* Reading ends before a byte that is urgent. */
	if ((size_t)n < room)
		return WIRE_NO_EARLY;
	if (pair_half_append(&streams->half[PAIR_CLIENT], copy + had,
			     (size_t)n - had))
		return WIRE_NO_ERROR;
	streams->unread = (size_t)n;
	pair->bytes[PAIR_CLIENT] += (size_t)n - had;
	return WIRE_OK;
}

/* WIRE_OK: of all that the peer's socket holds there is a copy. */
static enum wire_reason peer_copy(struct pair *pair)
{
	struct streams *streams = pair->streams;
	struct pollfd peer = { streams->half[PAIR_PEER].fd, POLLIN | POLLRDHUP,
			       0 };
	enum wire_reason why;
	uint8_t *copy;
	size_t have;

	if (poll(&peer, 1, 0) < 0 || peer.revents & ~POLLIN)
		return WIRE_NO_STATE;
	have = peer.revents ? pair_socket_unread(peer.fd) : 0;
	if (have <= streams->unread)
		return WIRE_OK;
	if (have > EARLY_MAX)
		return WIRE_NO_EARLY;
	copy = malloc(have);
	if (!copy)
		return WIRE_NO_ERROR;
	why = peer_append(pair, copy, have);
	free(copy);
	return why;
}

/*
 * Empties the one, copies the other and asks. WIRE_OK: the answer will come. At
 * first the client's socket is taken for empty: its owner has only just read it to
 * its end, and if something has come since, the answer is AGAIN.
 */
static enum wire_reason join_ask(struct pair *pair)
{
	struct streams *streams = pair->streams;
	const struct half *client = &streams->half[PAIR_CLIENT];
	char label[WIRE_LABEL];
	struct wire_join join = {
		.client = client->fd,
		.peer = streams->half[PAIR_PEER].fd,
		.allocation = streams->allocation,
		.expires_ns = streams->expires_ns(pair->owner),
		.label = label,
	};
	enum wire_reason why = peer_copy(pair);
	int err;

	if (why == WIRE_OK && streams->tries > 0)
		why = client_drain(pair);
	if (why != WIRE_OK)
		return why;
	join.to_client = client->preface ? (uint32_t)client->preface_len : 0;
	join.unread = (uint32_t)streams->unread;
	streams->label(pair->owner, label);
	streams->tries++;
	err = wire_join(streams->wire, &pair->link, &join);
	if (err)
		return err == -ENOTCONN ? WIRE_NO_BROKER : WIRE_NO_ERROR;
	return WIRE_OK;
}

/* So that a socket takes more only when all it has is under way; 0: as usual. */
static void send_all(int fd, int on)
{
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &on, sizeof(on));
}

/*
 * The client's window does not hold what is owed to it: that is sent now, and what
 * cannot be sent then waits in the peer's window. Returns whether it will be.
 */
static bool early_send(struct pair *pair)
{
	struct streams *streams = pair->streams;
	struct half *client = &streams->half[PAIR_CLIENT];

	if (!client->preface || streams->half[PAIR_PEER].preface)
		return false;
	pair_half_flush(client);
	if (client->dead)
		return false;
	send_all(client->fd, 1);
	if (pair_half_wait(pair, PAIR_CLIENT)) {
		send_all(client->fd, 0);
		return false;
	}
	streams->early = true;
	streams->tries = 1;
	return true;
}

void pair_join_sent(struct pair *pair)
{
	struct streams *streams = pair->streams;
	enum wire_reason why;

	streams->early = false;
	send_all(streams->half[PAIR_CLIENT].fd, 0);
	why = join_ask(pair);
	if (why != WIRE_OK)
		join_refused(pair, why);
}

static void joined(struct pair *pair)
{
	struct half *client = &pair->streams->half[PAIR_CLIENT];

	pair->why = WIRE_OK;
	peer_consume(pair->streams);
	pair->streams->on_decided(pair->owner, WIRE_OK);
	if (pair->finishing)
		pair_wire_finish(pair);
	else
		pair->state = PAIR_RELAYING;
	pair->streams->engine = "wire";
	pair_half_flush(client);
	/* Without the preface the client can never acknowledge all of it. */
	if (client->preface && pair_half_wait(pair, PAIR_CLIENT))
		pair_wire_end(pair, PAIR_END_ERROR);
}

/*
 * While the broker tried, an acknowledgement may have been swallowed that our
 * stack takes for sent: it acknowledges again at once.
 */
static void acknowledge(struct pair *pair)
{
	const int on = 1;

	for (int i = 0; i < 2; i++)
		setsockopt(pair->streams->half[i].fd, IPPROTO_TCP, TCP_QUICKACK,
			   &on, sizeof(on));
}

static void join_answered(struct wire_link *link, enum wire_reason reason)
{
	struct pair *pair = list_entry(link, struct pair, link);

	if (reason == WIRE_OK) {
		joined(pair);
		return;
	}
	if (reason == WIRE_AGAIN)
		acknowledge(pair);
	if (reason == WIRE_AGAIN && pair->finishing) {
		reason = WIRE_NO_QUIET;
	} else if (reason == WIRE_AGAIN) {
		reason = pair->streams->tries < TRIES_MAX ? join_ask(pair) :
							    WIRE_NO_QUIET;
		if (reason == WIRE_OK)
			return;
	}
	if (reason == WIRE_NO_EARLY && !pair->finishing && early_send(pair))
		return;
	join_refused(pair, reason);
}

static void wire_is_active(struct wire_link *link)
{
	struct pair *pair = list_entry(link, struct pair, link);
	void (*on_active)(void *owner);

	if (!pair->streams)
		return;
	on_active = pair->streams->on_active;
	pair_streams_free(pair, false);
	on_active(pair->owner);
}

static enum pair_end end_of(const struct pair *pair, enum wire_end end)
{
	switch (end) {
	case WIRE_END_NONE:
	case WIRE_END_ORPHAN:
		return PAIR_END_ERROR;
	case WIRE_END_FIN:
		return PAIR_END_FIN;
	case WIRE_END_RESET_CLIENT:
	case WIRE_END_RESET_PEER:
	case WIRE_END_LATCH:
		return PAIR_END_RESET;
	case WIRE_END_EXPIRED:
		return PAIR_END_FINISHED;
	case WIRE_END_RESET:
		break;
	}
	/* Our own doing, or an operator's behind our back. */
	return pair->how != STOP_NOT ? pair->end : PAIR_END_KICKED;
}

static void wire_has_ended(struct wire_link *link, enum wire_end end,
			   const struct wire_stats *stats)
{
	struct pair *pair = list_entry(link, struct pair, link);

	pair->bytes[PAIR_CLIENT] += stats->bytes[WIRE_CLIENT];
	pair->bytes[PAIR_PEER] += stats->bytes[WIRE_PEER];
	pair->end = (uint8_t)end_of(pair, end);
	/* Silenced ones close without a word; of others nobody knows. */
	pair_close(pair, end == WIRE_END_ORPHAN);
}

static const struct wire_link_ops link_ops = {
	.answered = join_answered,
	.active = wire_is_active,
	.ended = wire_has_ended,
};

static enum wire_reason policy_ask(const struct pair *pair,
				   const struct pair_wire_params *params)
{
	struct pair_path path[2], control;

	if (!params->policy)
		return WIRE_OK;
	for (int i = 0; i < 2; i++)
		pair_path_read(pair->streams->half[i].fd, &path[i]);
	if (params->control >= 0)
		pair_path_read(params->control, &control);
	return pair_policy_decide(params->policy, &path[PAIR_CLIENT],
				  &path[PAIR_PEER],
				  params->control >= 0 ? &control : NULL);
}

void pair_join(struct pair *pair, const struct pair_params *params)
{
	const struct pair_wire_params *wire = params->wire;
	const struct pair_half_params *client = &params->half[PAIR_CLIENT];
	struct streams *streams = pair->streams;
	enum wire_reason why = WIRE_OK;

	pair->link.ops = &link_ops;
	pair->state = PAIR_JOINING;
	streams->wire = wire->wire;
	streams->on_active = wire->on_active;
	streams->allocation = wire->allocation;
	streams->expires_ns = wire->expires_ns;
	streams->on_decided = wire->on_decided;
	streams->label = wire->label;
	if (pair_half_append(&streams->half[PAIR_CLIENT], client->preface,
			     client->preface_len)) {
		pair_stop(pair, PAIR_END_ERROR, STOP_DRAIN_RESET);
		return;
	}
	if (streams->half[PAIR_PEER].dead)
		why = WIRE_NO_STATE;
	else if (streams->half[PAIR_PEER].preface)
		why = WIRE_NO_EARLY;
	else if (!wire_ready(streams->wire))
		why = WIRE_NO_BROKER;
	if (why == WIRE_OK)
		why = policy_ask(pair, wire);
	if (why == WIRE_OK)
		why = join_ask(pair);
	if (why != WIRE_OK)
		join_refused(pair, why);
}

bool pair_on_wire(const struct pair *pair)
{
	return pair->link.state >= WIRE_LINK_LATCHED;
}

void pair_wire_end(struct pair *pair, enum pair_end end)
{
	if (pair->how != STOP_NOT)
		return;
	pair->how = STOP_RESET;
	pair->end = (uint8_t)end;
	pair->state = PAIR_CLOSING;
	timer_cancel(pair->loop, &pair->timer);
	wire_reset(&pair->link);
}

static uint64_t wire_moved(const struct wire_stats *stats)
{
	return stats->bytes[WIRE_CLIENT] + stats->bytes[WIRE_PEER];
}

void pair_wire_finish(struct pair *pair)
{
	struct wire_stats stats = { .idle_ns = 0 };

	wire_link_stats(&pair->link, &stats);
	pair->finish_moved = wire_moved(&stats) + 2 * FINISH_BYTES;
}

/* What is under way arrives by itself; then both are reset. */
static void wire_finish_look(struct pair *pair, const struct wire_stats *stats)
{
	if (stats->idle_ns >= QUIET_MS * NS_PER_MS ||
	    wire_moved(stats) > pair->finish_moved ||
	    loop_now(pair->loop) >= pair->deadline_ms)
		pair_wire_end(pair, PAIR_END_FINISHED);
	else
		pair_look_in(pair, FINISH_LOOK_MS);
}

void pair_wire_look(struct pair *pair)
{
	struct wire_stats stats = { .idle_ns = 0 };
	uint64_t idle_ms;

	wire_link_stats(&pair->link, &stats);
	idle_ms = stats.idle_ns / NS_PER_MS;
	if (pair->finishing)
		wire_finish_look(pair, &stats);
	else if (idle_ms < pair->idle_timeout_ms)
		pair_look_in(pair, pair->idle_timeout_ms - idle_ms);
	else
		pair_wire_end(pair, PAIR_END_IDLE);
}

void pair_wire_info(const struct pair *pair, struct pair_info *out)
{
	struct wire_stats stats;

	out->engine = "wire";
	if (!wire_link_stats(&pair->link, &stats))
		return;
	out->bytes[PAIR_CLIENT] += stats.bytes[WIRE_CLIENT];
	out->bytes[PAIR_PEER] += stats.bytes[WIRE_PEER];
	out->idle_ms = stats.idle_ns / NS_PER_MS;
}
