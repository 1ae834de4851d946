/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * joins: thousands of joins with data at every moment around them.
 *
 * One program plays the clients and the peers of a TURN-TCP server, each in its
 * network namespace, so both ends of every pair are at hand: each received byte
 * is compared with what was sent, and a pair that does not come to its end in
 * time is told with its plan. A slot is a control connection with an
 * allocation; it makes one join after the other, each by a plan drawn from the
 * seed (lib/plan.h):
 *
 *   asking -> (CONNECTION-ID and the peer's socket are there) -> binding ->
 *   moving -> both sides over -> the next
 *
 * Printed is one line of JSON; anything wrong or stuck is told on standard
 * error. Exit status 1 when there was any.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/addr.h"
#include "base/clock.h"
#include "base/fd.h"
#include "lib/pattern.h"
#include "lib/plan.h"
#include "stun/stun.h"

#define SLOTS_MAX 256
#define LISTENERS 64
#define MESSAGE   1400
#define TEXT      512
#define POKE_NS   1000000000u
#define TOLD_MAX  5 /* faults described; all are counted */

enum who {
	CLIENT,
	PEER,
};

enum ended {
	NOT_ENDED,
	ENDED_FIN,
	ENDED_RESET,
};

/* What an epoll event belongs to; first in what embeds it. */
enum kind {
	KIND_CONTROL,
	KIND_SIDE,
	KIND_LISTENER,
};

struct source {
	enum kind kind;
	int fd;
	uint32_t events; /* registered */
	struct slot *slot;
};

/* A socket of the pair: the client's data connection, or the peer's. */
struct side {
	struct source source;
	enum who who;
	bool connected;
	bool answered; /* the client: the success response was consumed */
	uint8_t head[MESSAGE]; /* the client: ConnectionBind goes first */
	size_t head_len, head_sent;
	uint8_t inbox[MESSAGE]; /* the client: the response, in pieces */
	size_t inbox_len;
	uint64_t random; /* sizes and pauses */
	uint32_t sent, received;
	uint64_t not_before; /* ns: no send before this moment */
	bool fin_sent, closed;
	enum ended ended;
};

struct slot {
	struct source control;
	uint16_t method; /* of the request under way, 0: none */
	uint8_t txid[STUN_TXID_LEN];
	uint8_t inbox[MESSAGE];
	size_t inbox_len;
	union addr relayed;
	uint32_t left; /* joins of this allocation */
	uint32_t listener; /* of the join under way */
	bool retried;
	bool busy; /* a join is under way */
	bool idle; /* no work left */
	bool has_id;
	uint32_t id;
	uint64_t bind_at, deadline; /* ns */
	uint64_t poke_at; /* ns: a reset may have been lost by then; 0: none */
	struct plan plan;
	struct side side[2];
	char realm[TEXT], nonce[TEXT];
	uint8_t key[STUN_KEY_LEN];
	bool has_key;
};

struct joins {
	int epoll;
	int space[2]; /* network namespaces */
	union addr server, peer;
	const char *user, *password;
	uint64_t seed, number; /* joins begun */
	uint64_t total;
	uint32_t in_flight;
	uint64_t timeout_ns;
	struct source listeners[LISTENERS];
	union addr listening[LISTENERS];
	struct slot slots[SLOTS_MAX];
	uint64_t closes; /* descriptors closed: fetched events may be stale */
	uint64_t turned; /* ns: when the slots had their last turn */
	uint64_t done, wrong, stuck, failed, bytes;
};

static struct joins joins;
static uint8_t chunk[256 * 1024];

static void slot_begin(struct slot *slot);
static void slot_next(struct slot *slot);

static void die(const char *what, int error)
{
	fprintf(stderr, "joins: %s: %s\n", what, strerror(error));
	exit(2);
}

static void source_watch(struct source *source, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };
	int op = source->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (source->events == events)
		return;
	/* Watched for nothing still tells of resets; take it out instead. */
	if (!events)
		op = EPOLL_CTL_DEL;
	if (epoll_ctl(joins.epoll, op, source->fd, &event) < 0)
		die("epoll_ctl", errno);
	source->events = events;
}

static void source_close(struct source *source)
{
	source->events = 0;
	fd_close(&source->fd);
	joins.closes++;
}

/* A socket in the namespace of the clients or of the peers. */
static int socket_make(enum who who, sa_family_t family)
{
	int one = 1, fd;

	if (setns(joins.space[who], CLONE_NEWNET) < 0)
		die("setns", errno);
	fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("socket", errno);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static void source_dial(struct source *source, enum who who,
			const union addr *to)
{
	int one = 1;

	source->fd = socket_make(who, addr_family(to));
	source->events = 0;
	/* The address the permission is for; the port is found at connect. */
	setsockopt(source->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one,
		   sizeof(one));
	if (who == PEER &&
	    bind(source->fd, &joins.peer.sa, addr_len(&joins.peer)) < 0)
		die("bind", errno);
	if (connect(source->fd, &to->sa, addr_len(to)) < 0 &&
	    errno != EINPROGRESS)
		die("connect", errno);
	source_watch(source, EPOLLOUT);
}

/* The error a connecting socket ended with, 0: connected. */
static int source_error(const struct source *source)
{
	socklen_t len = sizeof(int);
	int error = 0;

	if (getsockopt(source->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return errno;
	return error;
}

/* A fault of the join under way, told with its plan. */
static void fault_tell(struct slot *slot, uint64_t *count, const char *what)
{
	const struct side *client = &slot->side[CLIENT];
	const struct side *peer = &slot->side[PEER];
	char text[TEXT];

	if (++*count > TOLD_MAX)
		return;
	plan_describe(&slot->plan, text, sizeof(text));
	fprintf(stderr,
		"joins: %s: %s; client: answered %d sent %u received %u fin %d "
		"ended %d; peer: connected %d sent %u received %u fin %d ended "
		"%d\n",
		what, text, client->answered, client->sent, client->received,
		client->fin_sent, client->ended, peer->connected, peer->sent,
		peer->received, peer->fin_sent, peer->ended);
}

static void join_drop(struct slot *slot)
{
	source_close(&slot->side[CLIENT].source);
	source_close(&slot->side[PEER].source);
	slot->busy = false;
}

/* The join cannot go on: what is left of its slot goes, too. */
static void slot_abandon(struct slot *slot, uint64_t *count, const char *what)
{
	fault_tell(slot, count, what);
	join_drop(slot);
	source_close(&slot->control);
	slot_begin(slot);
}

/* Requests on the control connection, one at a time. */

static void credentials_put(struct stun_writer *w, const struct slot *slot)
{
	if (!slot->has_key)
		return;
	stun_put_string(w, STUN_ATTR_USERNAME, joins.user);
	stun_put_string(w, STUN_ATTR_REALM, slot->realm);
	stun_put_string(w, STUN_ATTR_NONCE, slot->nonce);
	stun_put_integrity(w, slot->key, sizeof(slot->key));
}

static void request_send(struct slot *slot, uint16_t method)
{
	uint8_t buf[MESSAGE];
	struct stun_writer w;
	union addr peer = joins.peer;
	ssize_t len;

	stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, method, NULL);
	if (method == STUN_ALLOCATE) {
		stun_put_u8(&w, STUN_ATTR_REQUESTED_TRANSPORT,
			    STUN_TRANSPORT_TCP);
		if (addr_family(&joins.peer) == AF_INET6)
			stun_put_u8(&w, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
				    STUN_FAMILY_IPV6);
	}
	if (method == STUN_CONNECT)
		peer = joins.listening[slot->listener];
	if (method == STUN_CONNECT || method == STUN_CREATE_PERMISSION)
		stun_put_xor_address(&w, STUN_ATTR_XOR_PEER_ADDRESS, &peer);
	credentials_put(&w, slot);
	len = stun_end(&w);
	if (len < 0)
		die("request", (int)-len);
	memcpy(slot->txid, buf + STUN_HEADER_LEN - STUN_TXID_LEN,
	       STUN_TXID_LEN);
	slot->method = method;
	if (send(slot->control.fd, buf, (size_t)len, MSG_NOSIGNAL) != len)
		slot_abandon(slot, &joins.failed, "request not sent");
}

static bool text_take(const struct stun_msg *msg, uint16_t type, char *out)
{
	struct stun_attr attr;

	if (!stun_find(msg, type, &attr) || attr.len >= TEXT)
		return false;
	memcpy(out, attr.value, attr.len);
	out[attr.len] = '\0';
	return true;
}

/* A refusal that asks for credentials or a fresh nonce; true: sent again. */
static bool request_retry(struct slot *slot, const struct stun_msg *msg)
{
	struct stun_attr attr;
	const char *reason;
	size_t len;
	int code;

	if (!stun_find(msg, STUN_ATTR_ERROR_CODE, &attr) ||
	    stun_get_error(&attr, &code, &reason, &len))
		return false;
	if (slot->retried || (code != STUN_CODE_UNAUTHENTICATED &&
			      code != STUN_CODE_STALE_NONCE))
		return false;
	slot->retried = true;
	if (!text_take(msg, STUN_ATTR_REALM, slot->realm) ||
	    !text_take(msg, STUN_ATTR_NONCE, slot->nonce) ||
	    stun_long_term_key(joins.user, slot->realm, joins.password,
			       slot->key))
		return false;
	slot->has_key = true;
	request_send(slot, slot->method);
	return true;
}

/* Both the CONNECTION-ID and the peer's socket: the bind may begin. */
static void join_ready(struct slot *slot)
{
	if (slot->has_id && slot->side[PEER].connected && !slot->bind_at)
		slot->bind_at = clock_ns() + slot->plan.bind_delay_us * 1000u;
}

static void id_take(struct slot *slot, const struct stun_msg *msg)
{
	struct stun_attr attr;

	if (!slot->busy || slot->has_id ||
	    !stun_find(msg, STUN_ATTR_CONNECTION_ID, &attr) ||
	    stun_get_u32(&attr, &slot->id)) {
		slot_abandon(slot, &joins.failed, "no CONNECTION-ID");
		return;
	}
	slot->has_id = true;
	join_ready(slot);
}

static void response_handle(struct slot *slot, const struct stun_msg *msg)
{
	uint16_t method = slot->method;
	struct stun_attr attr;

	if (memcmp(msg->txid, slot->txid, STUN_TXID_LEN) != 0)
		return;
	if (msg->class == STUN_ERROR) {
		if (!request_retry(slot, msg))
			slot_abandon(slot, &joins.failed, "request refused");
		return;
	}
	slot->method = 0;
	slot->retried = false;
	if (method == STUN_ALLOCATE) {
		if (!stun_find(msg, STUN_ATTR_XOR_RELAYED_ADDRESS, &attr) ||
		    stun_get_xor_address(msg, &attr, &slot->relayed))
			slot_abandon(slot, &joins.failed, "no relayed address");
		else
			request_send(slot, STUN_CREATE_PERMISSION);
	} else if (method == STUN_CREATE_PERMISSION) {
		slot_next(slot);
	} else {
		id_take(slot, msg);
	}
}

static void control_readable(struct slot *slot)
{
	ssize_t got = recv(slot->control.fd, slot->inbox + slot->inbox_len,
			   sizeof(slot->inbox) - slot->inbox_len, 0);
	struct stun_msg msg;
	ssize_t len;

	if (got <= 0) {
		slot_abandon(slot, &joins.failed, "control connection ended");
		return;
	}
	slot->inbox_len += (size_t)got;
	for (;;) {
		int fd = slot->control.fd;
		uint8_t copy[MESSAGE];

		len = stun_frame(slot->inbox, slot->inbox_len);
		if (len <= 0 || (size_t)len > slot->inbox_len)
			return;
		memcpy(copy, slot->inbox, (size_t)len);
		slot->inbox_len -= (size_t)len;
		memmove(slot->inbox, slot->inbox + len, slot->inbox_len);
		if (stun_parse(copy, (size_t)len, &msg)) {
			slot_abandon(slot, &joins.failed, "bad message");
			return;
		}
		if (msg.class == STUN_INDICATION)
			id_take(slot, &msg);
		else
			response_handle(slot, &msg);
		if (slot->control.fd != fd)
			return; /* abandoned */
	}
}

static void control_event(struct slot *slot, uint32_t events)
{
	if (slot->control.events & EPOLLOUT) {
		if (source_error(&slot->control)) {
			slot_abandon(slot, &joins.failed, "control refused");
			return;
		}
		source_watch(&slot->control, EPOLLIN);
		request_send(slot, STUN_ALLOCATE);
		return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		control_readable(slot);
}

/* The life of a slot. */

static void slot_begin(struct slot *slot)
{
	bool finished = joins.number >= joins.total;

	slot->inbox_len = 0;
	slot->has_key = slot->retried = slot->busy = false;
	slot->method = 0;
	slot->left = 1 + (uint32_t)(joins.number * 7 % 40);
	slot->idle = finished;
	slot->deadline = clock_ns() + joins.timeout_ns;
	if (!finished)
		source_dial(&slot->control, CLIENT, &joins.server);
}

static void side_prepare(struct side *side, enum who who, struct slot *slot)
{
	memset(side, 0, sizeof(*side));
	side->source.kind = KIND_SIDE;
	side->source.fd = -1;
	side->source.slot = slot;
	side->who = who;
	side->random = slot->plan.seed * 2 + who;
}

/* Asks for the next join; without any left the slot ends or allocates anew. */
static void slot_next(struct slot *slot)
{
	struct plan *plan = &slot->plan;

	if (!slot->left || joins.number >= joins.total) {
		source_close(&slot->control);
		slot_begin(slot);
		return;
	}
	slot->left--;
	plan_draw(plan, joins.seed * 1000003 + joins.number++);
	slot->listener = slot->left; /* one tuple is never used twice */
	slot->busy = true;
	slot->has_id = false;
	slot->bind_at = slot->poke_at = 0;
	slot->deadline = clock_ns() + joins.timeout_ns;
	side_prepare(&slot->side[CLIENT], CLIENT, slot);
	side_prepare(&slot->side[PEER], PEER, slot);
	if (plan->incoming)
		source_dial(&slot->side[PEER].source, PEER, &slot->relayed);
	else
		request_send(slot, STUN_CONNECT);
}

static void bind_begin(struct slot *slot)
{
	struct side *client = &slot->side[CLIENT];
	struct stun_writer w;
	ssize_t len;

	slot->bind_at = UINT64_MAX;
	stun_begin(&w, client->head, sizeof(client->head), STUN_REQUEST,
		   STUN_CONNECTION_BIND, NULL);
	stun_put_u32(&w, STUN_ATTR_CONNECTION_ID, slot->id);
	credentials_put(&w, slot);
	len = stun_end(&w);
	if (len < 0)
		die("ConnectionBind", (int)-len);
	client->head_len = (size_t)len;
	source_dial(&client->source, CLIENT, &joins.server);
}

/* The streams. */

static bool side_may_speak(struct side *side, uint64_t now)
{
	const struct slot *slot = side->source.slot;
	const struct plan_side *plan = &slot->plan.side[side->who];
	bool bound = slot->side[CLIENT].answered;

	switch (plan->when) {
	case WHEN_AT_ONCE:
	case WHEN_SOON:
		break;
	case WHEN_BOUND:
	case WHEN_AFTER_BOUND:
		if (!bound)
			return false;
		break;
	case WHEN_SPOKEN_TO:
		if (!side->received)
			return false;
		break;
	}
	if (!side->sent && !side->not_before &&
	    (plan->when == WHEN_SOON || plan->when == WHEN_AFTER_BOUND))
		side->not_before = now + plan->delay_us * 1000u;
	return now >= side->not_before;
}

/* The client's request; true: all of it is out. */
static bool head_send(struct side *side)
{
	const struct plan *plan = &side->source.slot->plan;
	const struct plan_side *mine = &plan->side[side->who];
	size_t len = side->head_len - side->head_sent, extra = 0;
	ssize_t sent;

	if (!len)
		return true;
	if (!side->head_sent && plan->bind_split && plan->bind_split < len)
		len = plan->bind_split;
	else if (mine->when == WHEN_AT_ONCE)
		extra = mine->length < mine->piece ? mine->length : mine->piece;
	/* Request and bytes in one segment, as far as they go. */
	memcpy(chunk, side->head + side->head_sent, len);
	pattern_fill(chunk + len, extra, side->source.slot->plan.seed, 0);
	sent = send(side->source.fd, chunk, len + extra, MSG_NOSIGNAL);
	if (sent < 0)
		return false;
	if ((size_t)sent > len) {
		side->sent = (uint32_t)((size_t)sent - len);
		sent = (ssize_t)len;
	}
	side->head_sent += (size_t)sent;
	return side->head_sent == side->head_len;
}

/* Sends what the plan allows now; false: the socket takes no more. */
static bool side_send(struct side *side, uint64_t now)
{
	const struct slot *slot = side->source.slot;
	const struct plan_side *plan = &slot->plan.side[side->who];

	if (!head_send(side))
		return false;
	while (side->sent < plan->length && side_may_speak(side, now)) {
		uint32_t left = plan->length - side->sent;
		uint32_t piece = 1 + draw_below(&side->random, plan->piece);
		ssize_t sent;

		if (piece > left)
			piece = left;
		pattern_fill(chunk, piece, slot->plan.seed + side->who,
			     side->sent);
		sent = send(side->source.fd, chunk, piece, MSG_NOSIGNAL);
		if (sent < 0)
			return errno != EAGAIN; /* an end is told by reading */
		side->sent += (uint32_t)sent;
		if (plan->pause_us)
			side->not_before = now + draw_below(&side->random,
							    plan->pause_us) *
							 1000u;
	}
	return true;
}

/* Consumes the success response; what is behind it stays in the socket. */
static bool answer_take(struct slot *slot, struct side *side)
{
	struct stun_msg msg;
	ssize_t len = stun_frame(side->inbox, side->inbox_len);
	size_t want = len > 0 ? (size_t)len : STUN_HEADER_LEN;
	ssize_t got;

	if (len < 0 || want > sizeof(side->inbox)) {
		slot_abandon(slot, &joins.wrong, "no STUN message");
		return false;
	}
	got = recv(side->source.fd, side->inbox + side->inbox_len,
		   want - side->inbox_len, 0);
	if (got <= 0) {
		if (got < 0 && errno == EAGAIN)
			return false;
		slot_abandon(slot, &joins.failed, "ended before the response");
		return false;
	}
	side->inbox_len += (size_t)got;
	len = stun_frame(side->inbox, side->inbox_len);
	if (!len || (len > 0 && (size_t)len > side->inbox_len))
		return true; /* there may be more */
	if (len < 0 || stun_parse(side->inbox, (size_t)len, &msg) ||
	    msg.class != STUN_SUCCESS || msg.method != STUN_CONNECTION_BIND) {
		slot_abandon(slot, &joins.failed, "ConnectionBind refused");
		return false;
	}
	side->answered = true;
	return true;
}

/* Where in its stream what came at `at` belongs: repeated, or moved up? */
static void wrong_tell(const struct slot *slot, enum who from,
		       const uint8_t *bytes, size_t len, uint32_t at)
{
	size_t sample = len < 16 ? len : 16;

	if (joins.wrong >= TOLD_MAX)
		return;
	for (uint32_t place = 0; place < slot->plan.side[from].length; place++)
		if (pattern_agrees(bytes, sample, slot->plan.seed + from,
				   place) == sample) {
			fprintf(stderr,
				"joins: at byte %u of the %s came byte %u\n",
				at, from == CLIENT ? "client" : "peer", place);
			return;
		}
	fprintf(stderr, "joins: at byte %u of the %s came a stranger's\n", at,
		from == CLIENT ? "client" : "peer");
}

/* Compares; false: the join was abandoned. */
static bool bytes_take(struct slot *slot, struct side *side, size_t len)
{
	enum who other = side->who == CLIENT ? PEER : CLIENT;
	size_t same = pattern_agrees(chunk, len, slot->plan.seed + other,
				     side->received);

	side->received += (uint32_t)len;
	joins.bytes += len;
	if (same == len && side->received <= slot->plan.side[other].length)
		return true;
	wrong_tell(slot, other, chunk + same, len - same,
		   side->received - (uint32_t)(len - same));
	slot_abandon(slot, &joins.wrong,
		     same < len ? "wrong bytes" : "more bytes than were sent");
	return false;
}

/* Reads all there is; false: the join was abandoned. */
static bool side_receive(struct slot *slot, struct side *side)
{
	while (!side->ended && !side->closed) {
		ssize_t got;

		if (side->who == CLIENT && !side->answered) {
			int fd = side->source.fd;
			size_t had = side->inbox_len;

			if (!answer_take(slot, side))
				return side->source.fd == fd;
			if (!side->answered && side->inbox_len == had)
				return true;
			continue;
		}
		got = recv(side->source.fd, chunk, sizeof(chunk), 0);
		if (got < 0 && errno == EAGAIN)
			return true;
		if (got > 0) {
			if (!bytes_take(slot, side, (size_t)got))
				return false;
			continue;
		}
		side->ended = got ? ENDED_RESET : ENDED_FIN;
	}
	return true;
}

static bool side_all_sent(const struct slot *slot, enum who who)
{
	const struct side *side = &slot->side[who];

	return side->connected && side->head_sent == side->head_len &&
	       side->sent == slot->plan.side[who].length;
}

static bool side_all_received(const struct slot *slot, enum who who)
{
	enum who other = who == CLIENT ? PEER : CLIENT;

	return slot->side[who].received == slot->plan.side[other].length &&
	       (who == PEER || slot->side[CLIENT].answered);
}

/* Does its part of the end as planned. */
static void side_end(struct slot *slot, struct side *side)
{
	enum plan_end end = slot->plan.end;
	enum who who = side->who;
	bool first, mine;

	if (side->closed || side->fin_sent || !side_all_sent(slot, who))
		return;
	mine = end == (who == CLIENT ? END_CLOSE_CLIENT : END_CLOSE_PEER);
	if (mine && side_all_received(slot, who)) {
		source_close(&side->source);
		side->closed = true;
		return;
	}
	mine = end == (who == CLIENT ? END_RESET_CLIENT : END_RESET_PEER);
	if (mine && side_all_received(slot, CLIENT) &&
	    side_all_received(slot, PEER)) {
		side->source.events = 0;
		fd_reset(&side->source.fd);
		joins.closes++;
		side->closed = true;
		slot->poke_at = clock_ns() + POKE_NS;
		return;
	}
	first = end == END_BOTH ||
		end == (who == CLIENT ? END_CLIENT_FIRST : END_PEER_FIRST);
	if (first || side->ended) {
		shutdown(side->source.fd, SHUT_WR);
		side->fin_sent = true;
	}
}

static bool side_over(const struct side *side)
{
	return side->closed || side->ended == ENDED_RESET ||
	       (side->ended && side->fin_sent);
}

/* What the ended streams must have brought. */
static bool join_is_whole(const struct slot *slot)
{
	for (int who = CLIENT; who <= PEER; who++)
		if (!side_all_received(slot, (enum who)who) ||
		    !side_all_sent(slot, (enum who)who))
			return false;
	return true;
}

/* An end that nobody asked for, or that came too early? */
static bool side_cut(const struct slot *slot, const struct side *side)
{
	bool resets = slot->plan.end == END_RESET_CLIENT ||
		      slot->plan.end == END_RESET_PEER;
	/*
	 * The far socket is gone once it has closed: what ends the near one's
	 * stream may be answered by a reset.
	 */
	bool closes = slot->side[side->who == CLIENT ? PEER : CLIENT].closed;

	if (side->ended && !side_all_received(slot, side->who))
		return true;
	return side->ended == ENDED_RESET && !resets && !closes;
}

static void side_watch(struct side *side, bool blocked)
{
	uint32_t events = side->ended ? 0 : EPOLLIN;

	if (side->closed || side->source.fd < 0)
		return;
	source_watch(&side->source, events | (blocked ? EPOLLOUT : 0));
}

/* A reset that got lost comes again when its far end sends. */
static void join_poke(struct slot *slot, uint64_t now)
{
	if (!slot->poke_at || now < slot->poke_at)
		return;
	slot->poke_at = now + POKE_NS;
	for (int i = 0; i < 2; i++)
		if (!slot->side[i].closed && !slot->side[i].fin_sent)
			send(slot->side[i].source.fd, "?", 1, MSG_NOSIGNAL);
}

/* Moves a join on as far as it goes. */
static void join_pump(struct slot *slot, uint64_t now)
{
	if (slot->has_id && slot->bind_at != UINT64_MAX && slot->bind_at &&
	    now >= slot->bind_at)
		bind_begin(slot);
	join_poke(slot, now);
	for (int i = 0; i < 2; i++) {
		struct side *side = &slot->side[i];
		bool room = true;

		if (!side->connected || side->closed)
			continue;
		if (!side_receive(slot, side))
			return;
		if (!side->ended || !side->fin_sent)
			room = side_send(side, now);
		if (side_cut(slot, side)) {
			slot_abandon(slot, &joins.wrong, "cut short");
			return;
		}
		side_end(slot, side);
		side_watch(side, !room);
	}
	if (!side_over(&slot->side[CLIENT]) || !side_over(&slot->side[PEER]))
		return;
	if (!join_is_whole(slot)) {
		slot_abandon(slot, &joins.wrong, "ended without all its bytes");
		return;
	}
	join_drop(slot);
	joins.done++;
	slot_next(slot);
}

static void side_event(struct side *side)
{
	struct slot *slot = side->source.slot;

	if (!side->connected) {
		if (source_error(&side->source)) {
			slot_abandon(slot, &joins.failed, "not connected");
			return;
		}
		side->connected = true;
		source_watch(&side->source, EPOLLIN);
		if (side->who == PEER)
			join_ready(slot);
	}
	join_pump(slot, clock_ns());
}

/* The peer of a Connect: which slot's, the relayed port tells. */
static void listener_event(struct source *listener)
{
	uint32_t index = (uint32_t)(listener - joins.listeners);
	union addr from;
	socklen_t len = sizeof(from);
	int one = 1;
	int fd = accept4(listener->fd, &from.sa, &len,
			 SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (uint32_t i = 0; i < joins.in_flight; i++) {
		struct slot *slot = &joins.slots[i];
		struct side *peer = &slot->side[PEER];

		if (!slot->busy || slot->plan.incoming || peer->connected ||
		    slot->listener != index ||
		    addr_port(&slot->relayed) != addr_port(&from))
			continue;
		peer->source.fd = fd;
		peer->source.events = 0;
		peer->connected = true;
		source_watch(&peer->source, EPOLLIN);
		join_ready(slot);
		join_pump(slot, clock_ns());
		return;
	}
	close(fd); /* of a join that was given up */
}

static void listeners_open(void)
{
	for (uint32_t i = 0; i < LISTENERS; i++) {
		struct source *listener = &joins.listeners[i];
		union addr *addr = &joins.listening[i];
		socklen_t len = sizeof(*addr);

		listener->kind = KIND_LISTENER;
		listener->fd = socket_make(PEER, addr_family(&joins.peer));
		if (bind(listener->fd, &joins.peer.sa, addr_len(&joins.peer)) ||
		    listen(listener->fd, 512) ||
		    getsockname(listener->fd, &addr->sa, &len))
			die("listen", errno);
		source_watch(listener, EPOLLIN);
	}
}

/* When the earliest of all slots has something to do by itself, ns. */
static uint64_t next_wake(uint64_t now)
{
	uint64_t next = now + 100000000u, since = joins.turned;

	for (uint32_t i = 0; i < joins.in_flight; i++) {
		const struct slot *slot = &joins.slots[i];

		if (!slot->busy)
			continue;
		if (slot->bind_at && slot->bind_at < next)
			next = slot->bind_at;
		for (int who = CLIENT; who <= PEER; who++) {
			const struct side *side = &slot->side[who];

			if (side->connected && !side->closed &&
			    side->sent < slot->plan.side[who].length &&
			    side->not_before > since && side->not_before < next)
				next = side->not_before;
		}
	}
	return next > now ? next : now;
}

/* Timed work of every slot; false: all are through. */
static bool slots_turn(void)
{
	uint64_t now = clock_ns();
	bool busy = false;

	joins.turned = now;
	for (uint32_t i = 0; i < joins.in_flight; i++) {
		struct slot *slot = &joins.slots[i];

		if (slot->idle)
			continue;
		busy = true;
		if (now > slot->deadline)
			slot_abandon(slot, &joins.stuck, "stuck");
		else if (slot->busy)
			join_pump(slot, now);
	}
	return busy;
}

static void event_handle(struct source *source, uint32_t events)
{
	if (source->fd < 0)
		return; /* closed by an event before it in this batch */
	switch (source->kind) {
	case KIND_CONTROL:
		control_event(source->slot, events);
		break;
	case KIND_SIDE:
		side_event((struct side *)source);
		break;
	case KIND_LISTENER:
		listener_event(source);
		break;
	}
}

static void run(void)
{
	struct epoll_event events[64];

	for (uint32_t i = 0; i < joins.in_flight; i++) {
		struct slot *slot = &joins.slots[i];

		slot->control.kind = KIND_CONTROL;
		slot->control.slot = slot;
		slot->side[CLIENT].source.fd = slot->side[PEER].source.fd = -1;
		slot_begin(slot);
	}
	while (slots_turn()) {
		uint64_t now = clock_ns(), wait = next_wake(now) - now;
		struct timespec delay = { .tv_nsec = (long)wait };
		int count = epoll_pwait2(joins.epoll, events, 64, &delay, NULL);

		/* What is ready and not handled for a close is told again. */
		now = joins.closes;
		for (int i = 0; i < count && joins.closes == now; i++)
			event_handle(events[i].data.ptr, events[i].events);
	}
}

static const struct option option_table[] = {
	{ "client-space", required_argument, NULL, 'c' },
	{ "peer-space", required_argument, NULL, 'p' },
	{ "server", required_argument, NULL, 's' },
	{ "peer", required_argument, NULL, 'P' },
	{ "user", required_argument, NULL, 'u' },
	{ "password", required_argument, NULL, 'w' },
	{ "joins", required_argument, NULL, 'n' },
	{ "in-flight", required_argument, NULL, 'f' },
	{ "seed", required_argument, NULL, 'S' },
	{ "timeout-ms", required_argument, NULL, 't' },
	{ NULL, 0, NULL, 0 },
};

static int space_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die(path, errno);
	return fd;
}

static bool option_take(int option, const char *text)
{
	switch (option) {
	case 'c':
		joins.space[CLIENT] = space_open(text);
		return true;
	case 'p':
		joins.space[PEER] = space_open(text);
		return true;
	case 's':
		return !addr_parse(text, 3478, &joins.server);
	case 'P':
		return !addr_parse(text, 0, &joins.peer);
	case 'u':
		joins.user = text;
		return true;
	case 'w':
		joins.password = text;
		return true;
	case 'n':
		joins.total = strtoull(text, NULL, 10);
		return true;
	case 'f':
		joins.in_flight = (uint32_t)strtoul(text, NULL, 10);
		return joins.in_flight > 0 && joins.in_flight <= SLOTS_MAX;
	case 'S':
		joins.seed = strtoull(text, NULL, 10);
		return true;
	case 't':
		joins.timeout_ns = strtoull(text, NULL, 10) * 1000000u;
		return true;
	}
	return false;
}

int main(int argc, char **argv)
{
	uint64_t start;
	int option;

	joins.space[CLIENT] = joins.space[PEER] = -1;
	joins.in_flight = 16;
	joins.timeout_ns = 20000000000u;
	while ((option = getopt_long(argc, argv, "", option_table, NULL)) != -1)
		if (!option_take(option, optarg))
			die("options", EINVAL);
	if (joins.space[CLIENT] < 0 || joins.space[PEER] < 0 || !joins.user ||
	    !joins.password || addr_family(&joins.server) == AF_UNSPEC ||
	    addr_family(&joins.peer) == AF_UNSPEC)
		die("options", EINVAL);
	signal(SIGPIPE, SIG_IGN);
	joins.epoll = epoll_create1(EPOLL_CLOEXEC);
	listeners_open();
	start = clock_ns();
	run();
	printf("{\"joins\": %llu, \"whole\": %llu, \"wrong\": %llu, \"stuck\": "
	       "%llu, \"failed\": %llu, \"bytes\": %llu, \"seconds\": %.2f}\n",
	       (unsigned long long)joins.number, (unsigned long long)joins.done,
	       (unsigned long long)joins.wrong, (unsigned long long)joins.stuck,
	       (unsigned long long)joins.failed,
	       (unsigned long long)joins.bytes,
	       (double)(clock_ns() - start) / 1e9);
	return joins.wrong || joins.stuck || joins.failed;
}
