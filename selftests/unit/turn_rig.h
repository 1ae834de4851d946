/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of the TURN server share: workers on loops in this process, and
 * a small client that speaks STUN over real sockets between ticks of the loops.
 *
 * Every worker has a listening socket of its own, so a test chooses which worker
 * a connection lands on. Nothing sleeps: every wait is a tick until a condition
 * holds, or the test fails. Nothing here allocates, so that allocation failures
 * hit the server alone.
 */
#ifndef UNIT_TURN_RIG_H
#define UNIT_TURN_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fd.h"
#include "conf/conf.h"
#include "store/store.h"
#include "stun/stun.h"
#include "transport/transport.h"
#include "transport/udp.h"
#include "turn/shared.h"
#include "turn/turn.h"
#include "unit/failalloc.h"

#define RIG_WAIT_MS 10000
#define RIG_WORKERS 2

#define RIG_CONF                                                     \
	"[realm example.org]\n"                                      \
	"[realm second.org]\n"                                       \
	"[user alice]\nrealm = example.org\npassword = wonderland\n" \
	"[user bob]\nrealm = example.org\npassword = builder\n"      \
	"[user alice2]\nname = alice\nrealm = second.org\n"          \
	"password = wonderland\n"
/* Unless a test brings its own [peers]. */
#define RIG_PEERS "[peers]\nallow = 127.0.0.0/8, ::1\n"

struct rig {
	unsigned int count; /* workers */
	struct turn_shared *shared;
	struct turn_settings *settings;
	struct loop *loop[RIG_WORKERS];
	struct turn_worker *worker[RIG_WORKERS];
	union addr addr[RIG_WORKERS]; /* where worker i listens */
	union addr udp[RIG_WORKERS]; /* and for datagrams; AF_UNSPEC: not */
	bool threads; /* the loops run by themselves */
};

/* The user database of the settings to come; a test's own. */
static struct store *rig_store;

static inline void rig_report(void *arg, bool is_error, const char *file,
			      unsigned int line, const char *message)
{
	(void)arg;
	if (is_error && !failalloc_hit())
		fprintf(stderr, "# %s:%u: %s\n", file, line, message);
}

/* Is there IPv6 on the loopback? */
static inline bool rig_has_ipv6(void)
{
	const struct sockaddr_in6 local = {
		.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT
	};
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool have = fd >= 0 && bind(fd, (const struct sockaddr *)&local,
				    sizeof(local)) == 0;

	fd_close(&fd);
	return have;
}

/* Settings from RIG_CONF and more text. NULL when memory failed. */
static inline struct turn_settings *rig_settings(const char *more)
{
	static const uint8_t secret[AUTH_SECRET_LEN] = { 7 };
	struct turn_settings *settings = NULL;
	struct conf *conf;
	char text[4096];
	int len = snprintf(text, sizeof(text), "%s%s%s", RIG_CONF,
			   strstr(more, "[peers]") ? "" : RIG_PEERS, more);

	if (conf_parse(text, (size_t)len, "rig", rig_report, NULL, &conf)) {
		assert_true(failalloc_hit());
		return NULL;
	}
	if (turn_settings_new(conf, secret, rig_store, &settings))
		assert_true(failalloc_hit());
	conf_unref(conf);
	return settings;
}

static inline void rig_close(struct rig *rig)
{
	for (unsigned int i = 0; i < rig->count; i++)
		turn_worker_free(rig->worker[i]);
	for (unsigned int i = 0; i < rig->count; i++)
		loop_free(rig->loop[i]);
	if (rig->shared) {
		assert_int_equal(atomic_load(&rig->shared->connections), 0);
		assert_int_equal(atomic_load(&rig->shared->descriptors), 0);
		assert_int_equal(atomic_load(&rig->shared->unauthenticated), 0);
		assert_int_equal(atomic_load(&rig->shared->handshakes), 0);
		assert_int_equal(atomic_load(&rig->shared->allocations), 0);
		assert_int_equal(rig->shared->relayed.count, 0);
		assert_true(list_empty(&rig->shared->relayed_hosts));
	}
	turn_shared_free(rig->shared);
	turn_settings_unref(rig->settings);
}

static inline int rig_worker(struct rig *rig, unsigned int i)
{
	struct turn_worker_params params = {
		.shared = rig->shared,
		.index = i,
		.settings = rig->settings,
	};
	socklen_t len = sizeof(rig->addr[i]);
	int fd;

	if (loop_new(&rig->loop[i]))
		return -1;
	params.loop = rig->loop[i];
	if (turn_worker_new(&params, &rig->worker[i]))
		return -1;
	assert_int_equal(addr_parse("127.0.0.1", 0, &rig->addr[i]), 0);
	fd = listener_open(&rig->addr[i], 512);
	assert_true(fd >= 0);
	assert_int_equal(getsockname(fd, &rig->addr[i].sa, &len), 0);
	if (turn_worker_listen(rig->worker[i], fd, "default") == 0)
		return 0;
	close(fd);
	return -1;
}

/* Serves clients over UDP, too. */
static inline void rig_udp(struct rig *rig)
{
	for (unsigned int i = 0; i < rig->count; i++) {
		socklen_t len = sizeof(rig->udp[i]);
		int fd;

		assert_int_equal(addr_parse("127.0.0.1", 0, &rig->udp[i]), 0);
		fd = udp_claim(&rig->udp[i]);
		assert_true(fd >= 0);
		assert_int_equal(getsockname(fd, &rig->udp[i].sa, &len), 0);
		assert_int_equal(
			turn_worker_listen(rig->worker[i], fd, "datagrams"), 0);
	}
}

/* Starts `count` workers; -1 when an allocation failed: rig_close it anyway. */
static inline int rig_open(struct rig *rig, unsigned int count,
			   const char *more)
{
	int err = 0;

	*rig = (struct rig){ .count = count };
	rig->settings = rig_settings(more);
	if (!rig->settings || turn_shared_new(count, &rig->shared))
		return -1;
	for (unsigned int i = 0; i < count && !err; i++)
		err = rig_worker(rig, i);
	return err;
}

static inline void rig_tick(struct rig *rig, int ms)
{
	if (rig->threads) {
		sched_yield();
		return;
	}
	for (unsigned int i = 0; i < rig->count; i++)
		assert_int_equal(loop_tick(rig->loop[i], i ? 0 : ms), 0);
}

/* Turns the loops; if they turn by themselves, waits for the descriptor. */
static inline void rig_wait(struct rig *rig, int fd, short events)
{
	struct pollfd poll_fd = { .fd = fd, .events = events };

	if (rig->threads)
		poll(&poll_fd, 1, RIG_WAIT_MS);
	else
		rig_tick(rig, 1);
}

/* A [listener] that the workers serve. Returns the end of the text. */
static inline char *rig_listener(const struct rig *rig, const char *head,
				 const union addr *addrs, char *text)
{
	char addr[ADDR_STRLEN];

	text += sprintf(text, "%s", head);
	for (unsigned int i = 0; i < rig->count; i++)
		text += sprintf(text, "%s%s", i ? ", " : "",
				addr_format(&addrs[i], addr));
	return text + sprintf(text, "\n");
}

/* New settings for all workers, who keep their sockets unless `more` says. */
static inline void rig_reload(struct rig *rig, const char *more)
{
	struct turn_settings *settings;
	char text[2048], listener[512] = "", *end = listener;

	if (!strstr(more, "[listener")) {
		end = rig_listener(
			rig, "[listener default]\naddress = ", rig->addr, end);
		if (addr_family(&rig->udp[0]) != AF_UNSPEC)
			rig_listener(rig,
				     "[listener datagrams]\n"
				     "transport = udp\naddress = ",
				     rig->udp, end);
	}
	snprintf(text, sizeof(text), "%s%s", more, listener);
	settings = rig_settings(text);
	assert_non_null(settings);
	for (unsigned int i = 0; i < rig->count; i++)
		turn_worker_reload(rig->worker[i], settings);
	turn_settings_unref(settings);
}

#define RIG_UNTIL(rig, condition)                                      \
	do {                                                           \
		uint64_t give_up = clock_ms() + RIG_WAIT_MS;           \
		while (!(condition)) {                                 \
			if (clock_ms() > give_up)                      \
				fail_msg("waited for %s", #condition); \
			rig_tick(rig, 2);                              \
		}                                                      \
	} while (0)

/* With what connections have carried until now. */
static inline void rig_worker_counters(const struct rig *rig, unsigned int i,
				       struct counters *out)
{
	struct turn_cursor at = { 0 };

	assert_false(turn_worker_look(rig->worker[i], &at, SIZE_MAX));
	turn_worker_counters(rig->worker[i], out);
}

static inline struct counters rig_counters(const struct rig *rig)
{
	struct counters sum = { 0 }, one;

	for (unsigned int i = 0; i < rig->count; i++) {
		rig_worker_counters(rig, i, &one);
		counters_add(&sum, &one);
	}
	return sum;
}

static inline bool rig_is_idle(const struct rig *rig)
{
	struct counters now = rig_counters(rig);

	return !now.clients && !now.unauthenticated && !now.allocations &&
	       !now.pending && !now.relaying;
}

/* A case's end: its clients have gone. */
static inline void rig_finish(struct rig *rig)
{
	RIG_UNTIL(rig, rig_is_idle(rig));
	rig_close(rig);
}

/* A client of the test. */
struct tc {
	struct rig *rig;
	int fd;
	const char *user, *password, *realm;
	char nonce[AUTH_NONCE_MAX]; /* empty: not known */
	bool no_fingerprint;
	uint8_t in[65536];
	size_t in_len, used; /* used: of the message looked at last */
	struct stun_msg msg; /* the last answer */
	uint8_t out[4096];
	struct stun_writer w;
	uint8_t txid[STUN_TXID_LEN];
};

static inline void tc_nonblocking(int fd)
{
	fcntl(fd, F_SETFL, O_NONBLOCK);
}

static inline int tc_dial(const union addr *addr)
{
	int fd = socket(addr_family(addr), SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, &addr->sa, addr_len(addr)), 0);
	tc_nonblocking(fd);
	return fd;
}

/* A client of the rig as alice, not connected. */
static inline void tc_init(struct tc *tc, struct rig *rig)
{
	memset(tc, 0, sizeof(*tc));
	tc->rig = rig;
	tc->user = "alice";
	tc->password = "wonderland";
	tc->realm = "example.org";
}

/* A connection to worker i. */
static inline void tc_open(struct tc *tc, struct rig *rig, unsigned int i)
{
	tc_init(tc, rig);
	tc->fd = tc_dial(&rig->addr[i]);
}

/* Datagrams to worker i. */
static inline void tc_open_udp(struct tc *tc, struct rig *rig, unsigned int i)
{
	const union addr *addr = &rig->udp[i];

	tc_init(tc, rig);
	tc->fd = socket(addr_family(addr), SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_true(tc->fd >= 0);
	assert_int_equal(connect(tc->fd, &addr->sa, addr_len(addr)), 0);
	tc_nonblocking(tc->fd);
}

static inline void tc_close(struct tc *tc)
{
	fd_close(&tc->fd);
}

static inline void tc_write(struct tc *tc, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len) {
		ssize_t n = send(tc->fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN) {
			rig_wait(tc->rig, tc->fd, POLLOUT);
			continue;
		}
		if (n < 0)
			return; /* closed: the reader will see it */
		p += n;
		len -= (size_t)n;
	}
}

static inline void tc_drop(struct tc *tc, size_t len)
{
	tc->in_len -= len;
	memmove(tc->in, tc->in + len, tc->in_len);
}

/* Reads what is there: 1 something, 0 nothing now, -1 closed. */
static inline int tc_fill(struct tc *tc)
{
	ssize_t n = recv(tc->fd, tc->in + tc->in_len,
			 sizeof(tc->in) - tc->in_len, 0);

	if (n > 0)
		tc->in_len += (size_t)n;
	if (n < 0 && errno == EAGAIN)
		return 0;
	return n > 0 ? 1 : -1;
}

/* The next message in tc->msg, valid until the next call. -1: closed. */
static inline int tc_next(struct tc *tc)
{
	uint64_t give_up = clock_ms() + RIG_WAIT_MS;
	ssize_t len;

	tc_drop(tc, tc->used);
	tc->used = 0;
	while (len = stun_frame(tc->in, tc->in_len),
	       len == 0 || (len > 0 && (size_t)len > tc->in_len)) {
		int filled = tc_fill(tc);

		if (filled < 0)
			return -1;
		if (!filled)
			rig_wait(tc->rig, tc->fd, POLLIN);
		if (clock_ms() > give_up)
			fail_msg("no message from the server");
	}
	assert_true(len > 0);
	assert_int_equal(stun_parse(tc->in, (size_t)len, &tc->msg), 0);
	tc->used = (size_t)len;
	return 0;
}

static inline bool tc_is_closed(struct tc *tc)
{
	tc->in_len = tc->used = 0;
	return tc_fill(tc) < 0;
}

static inline void tc_begin(struct tc *tc, uint16_t method)
{
	stun_begin(&tc->w, tc->out, sizeof(tc->out), STUN_REQUEST, method,
		   NULL);
	memcpy(tc->txid, tc->out + 8, sizeof(tc->txid));
}

static inline void tc_key(const struct tc *tc, uint8_t key[STUN_KEY_LEN])
{
	assert_int_equal(
		stun_long_term_key(tc->user, tc->realm, tc->password, key), 0);
}

/* Ends the message begun, with credentials when there is a nonce. */
static inline size_t tc_end(struct tc *tc)
{
	uint8_t key[STUN_KEY_LEN];
	ssize_t len;

	if (tc->nonce[0]) {
		tc_key(tc, key);
		stun_put_string(&tc->w, STUN_ATTR_USERNAME, tc->user);
		stun_put_string(&tc->w, STUN_ATTR_REALM, tc->realm);
		stun_put_string(&tc->w, STUN_ATTR_NONCE, tc->nonce);
		stun_put_integrity(&tc->w, key, sizeof(key));
	}
	if (!tc->no_fingerprint)
		stun_put_fingerprint(&tc->w);
	len = stun_end(&tc->w);
	assert_true(len > 0);
	return (size_t)len;
}

static inline void tc_send(struct tc *tc)
{
	size_t len = tc_end(tc);

	tc_write(tc, tc->out, len);
}

static inline void tc_learn(struct tc *tc)
{
	struct stun_attr attr;

	if (!stun_find(&tc->msg, STUN_ATTR_NONCE, &attr))
		return;
	assert_in_range(attr.len, 1, sizeof(tc->nonce) - 1);
	memcpy(tc->nonce, attr.value, attr.len);
	tc->nonce[attr.len] = '\0';
}

/* The code of tc->msg: 0 success. */
static inline int tc_code(const struct tc *tc)
{
	struct stun_attr attr;
	const char *reason;
	size_t len;
	int code = 0;

	if (tc->msg.class == STUN_SUCCESS)
		return 0;
	assert_int_equal(tc->msg.class, STUN_ERROR);
	assert_true(stun_find(&tc->msg, STUN_ATTR_ERROR_CODE, &attr));
	assert_int_equal(stun_get_error(&attr, &code, &reason, &len), 0);
	return code;
}

/* The answer to what was sent last: its code, -1 when closed. */
static inline int tc_answer(struct tc *tc)
{
	uint8_t key[STUN_KEY_LEN];

	if (tc_next(tc))
		return -1;
	assert_memory_equal(tc->msg.txid, tc->txid, sizeof(tc->txid));
	assert_int_equal(stun_check_fingerprint(&tc->msg), !tc->no_fingerprint);
	tc_learn(tc);
	if (tc->msg.integrity_at) {
		tc_key(tc, key);
		assert_int_equal(
			stun_check_integrity(&tc->msg, key, sizeof(key)), 1);
	}
	return tc_code(tc);
}

static inline int tc_ask(struct tc *tc)
{
	tc_send(tc);
	return tc_answer(tc);
}

/* Gets a nonce by an unauthenticated Allocate. */
static inline int tc_challenge(struct tc *tc)
{
	tc->nonce[0] = '\0';
	tc_begin(tc, STUN_ALLOCATE);
	return tc_ask(tc);
}

static inline void tc_begin_allocate(struct tc *tc)
{
	tc_begin(tc, STUN_ALLOCATE);
	stun_put_u8(&tc->w, STUN_ATTR_REQUESTED_TRANSPORT, STUN_TRANSPORT_TCP);
}

static inline bool tc_address(const struct tc *tc, uint16_t type,
			      union addr *out)
{
	struct stun_attr attr;

	return stun_find(&tc->msg, type, &attr) &&
	       stun_get_xor_address(&tc->msg, &attr, out) == 0;
}

static inline void tc_begin_allocate_udp(struct tc *tc)
{
	tc_begin(tc, STUN_ALLOCATE);
	stun_put_u8(&tc->w, STUN_ATTR_REQUESTED_TRANSPORT, STUN_TRANSPORT_UDP);
}

/* A UDP allocation. The code; *relayed on success. */
static inline int tc_allocate_udp(struct tc *tc, union addr *relayed)
{
	int code;

	if (!tc->nonce[0] && (code = tc_challenge(tc)) != 401)
		return code ? code : 1;
	tc_begin_allocate_udp(tc);
	code = tc_ask(tc);
	if (!code)
		assert_true(
			tc_address(tc, STUN_ATTR_XOR_RELAYED_ADDRESS, relayed));
	return code;
}

/* The code; *relayed on success. */
static inline int tc_allocate(struct tc *tc, union addr *relayed)
{
	int code;

	if (!tc->nonce[0] && (code = tc_challenge(tc)) != 401)
		return code ? code : 1;
	tc_begin_allocate(tc);
	code = tc_ask(tc);
	if (!code)
		assert_true(
			tc_address(tc, STUN_ATTR_XOR_RELAYED_ADDRESS, relayed));
	return code;
}

static inline void tc_begin_peer(struct tc *tc, uint16_t method,
				 const union addr *peer)
{
	tc_begin(tc, method);
	stun_put_xor_address(&tc->w, STUN_ATTR_XOR_PEER_ADDRESS, peer);
}

static inline int tc_peer(struct tc *tc, uint16_t method,
			  const union addr *peer)
{
	tc_begin_peer(tc, method, peer);
	return tc_ask(tc);
}

static inline bool tc_connection_id(const struct tc *tc, uint32_t *id)
{
	struct stun_attr attr;

	return stun_find(&tc->msg, STUN_ATTR_CONNECTION_ID, &attr) &&
	       stun_get_u32(&attr, id) == 0;
}

static inline int tc_connect(struct tc *tc, const union addr *peer,
			     uint32_t *id)
{
	int code = tc_peer(tc, STUN_CONNECT, peer);

	if (!code)
		assert_true(tc_connection_id(tc, id));
	return code;
}

/* A data connection with the nonce and credentials of a control connection. */
static inline void tc_open_data(struct tc *data, const struct tc *control,
				unsigned int i)
{
	tc_open(data, control->rig, i);
	data->user = control->user;
	data->password = control->password;
	data->realm = control->realm;
	memcpy(data->nonce, control->nonce, sizeof(data->nonce));
}

static inline void tc_begin_bind(struct tc *data, uint32_t id)
{
	tc_begin(data, STUN_CONNECTION_BIND);
	stun_put_u32(&data->w, STUN_ATTR_CONNECTION_ID, id);
}

static inline int tc_bind(struct tc *data, uint32_t id)
{
	tc_begin_bind(data, id);
	return tc_ask(data);
}

/* A peer that listens on 127.0.0.n. */
static inline int peer_listen(const char *host, union addr *addr)
{
	socklen_t len = sizeof(*addr);
	int fd;

	assert_int_equal(addr_parse(host, 0, addr), 0);
	fd = socket(addr_family(addr), SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, &addr->sa, addr_len(addr)), 0);
	assert_int_equal(listen(fd, 64), 0);
	assert_int_equal(getsockname(fd, &addr->sa, &len), 0);
	tc_nonblocking(fd);
	return fd;
}

/* The connection waiting at a peer, and where it comes from. */
static inline int peer_accept(struct rig *rig, int listener, union addr *from)
{
	socklen_t len = sizeof(*from);
	int fd;

	RIG_UNTIL(rig, (fd = accept4(listener, &from->sa, &len,
				     SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
	return fd;
}

/* Connects to a relayed address from 127.0.0.n. */
static inline int peer_dial(const char *host, const union addr *to)
{
	union addr from;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(addr_parse(host, 0, &from), 0);
	assert_int_equal(bind(fd, &from.sa, addr_len(&from)), 0);
	assert_int_equal(connect(fd, &to->sa, addr_len(to)), 0);
	tc_nonblocking(fd);
	return fd;
}

/* How a descriptor stands: 1 has data, 0 open and silent, -1 ended. */
static inline int fd_state(int fd)
{
	char c;
	ssize_t n = recv(fd, &c, 1, MSG_PEEK);

	if (n < 0 && errno == EAGAIN)
		return 0;
	return n > 0 ? 1 : -1;
}

/* Reads exactly len bytes, ticking. False when it ended before. */
static inline bool fd_read(struct rig *rig, int fd, void *out, size_t len)
{
	uint64_t give_up = clock_ms() + RIG_WAIT_MS;
	uint8_t *p = out;

	while (len) {
		ssize_t n = recv(fd, p, len, 0);

		if (n == 0 || (n < 0 && errno != EAGAIN))
			return false;
		if (n > 0) {
			p += n;
			len -= (size_t)n;
			continue;
		}
		rig_wait(rig, fd, POLLIN);
		if (clock_ms() > give_up)
			fail_msg("%zu bytes are missing", len);
	}
	return true;
}

/* The same after an answer: what came right behind it is read first. */
static inline bool tc_read(struct tc *tc, void *out, size_t len)
{
	size_t have;

	tc_drop(tc, tc->used);
	tc->used = 0;
	have = tc->in_len < len ? tc->in_len : len;
	memcpy(out, tc->in, have);
	tc_drop(tc, have);
	return fd_read(tc->rig, tc->fd, (uint8_t *)out + have, len - have);
}

/* What one sends the other gets, both ways. False when one ended. */
static inline bool fds_talk(struct rig *rig, int a, int b)
{
	static const char there[] = "there", back[] = "and back";
	char buf[16];

	if (send(a, there, sizeof(there), MSG_NOSIGNAL) != sizeof(there) ||
	    !fd_read(rig, b, buf, sizeof(there)))
		return false;
	assert_string_equal(buf, there);
	if (send(b, back, sizeof(back), MSG_NOSIGNAL) != sizeof(back) ||
	    !fd_read(rig, a, buf, sizeof(back)))
		return false;
	assert_string_equal(buf, back);
	return true;
}

#endif
