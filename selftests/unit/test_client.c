/* SPDX-License-Identifier: BSD-2-Clause */
/* The client library against a server that is odd in every way we could think of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/turn_client.h"
#include "client_server.h"
#include "culvert/client.h"
#include "failalloc.h"

#define PATIENCE_MS 10000

/* A client with what its callbacks were told. */
struct rig {
	struct culvert_loop *loop;
	struct server server;
	struct culvert_client *client;
	bool connected, ready, ended;
	int ended_code; /* 0: without an error */
	char reason[200];
	int fds[SERVER_CONNS]; /* connections, in the order they came */
	size_t fd_count;
	char early[64];
	size_t early_len;
	int answers, refusals, last_code; /* of requests with a callback */
	int attempts_failed, permissions_lost;
	bool refuse_attempts, free_in_callback;
	union addr mapped;
};

static void rig_note(struct rig *rig, const struct culvert_error *error)
{
	rig->answers++;
	rig->last_code = error ? error->code : 0;
	if (error) {
		assert_non_null(error->during);
		assert_non_null(error->reason);
		snprintf(rig->reason, sizeof(rig->reason), "%s", error->reason);
		rig->refusals++;
	}
	if (rig->free_in_callback) {
		culvert_client_free(rig->client);
		rig->client = NULL;
	}
}

static void rig_keep(struct rig *rig, const struct culvert_stream *stream)
{
	assert_true(stream->fd >= 0);
	assert_true(rig->fd_count < SERVER_CONNS);
	assert_true(stream->early_len <= sizeof(rig->early));
	rig->fds[rig->fd_count++] = stream->fd;
	rig->early_len = stream->early_len;
	memcpy(rig->early, stream->early, stream->early_len);
}

static void on_connected(void *arg)
{
	((struct rig *)arg)->connected = true;
}

static void on_ready(void *arg)
{
	struct rig *rig = arg;

	assert_false(rig->ready);
	rig->ready = true;
}

static bool on_attempt(void *arg, const struct sockaddr *peer)
{
	assert_int_equal(peer->sa_family, AF_INET);
	return !((struct rig *)arg)->refuse_attempts;
}

static void on_accepted(void *arg, const struct culvert_stream *stream)
{
	rig_keep(arg, stream);
}

static void on_attempt_failed(void *arg, const struct sockaddr *peer,
			      const struct culvert_error *error)
{
	struct rig *rig = arg;

	assert_int_equal(peer->sa_family, AF_INET);
	rig->attempts_failed++;
	rig->last_code = error->code;
}

static void on_permission_lost(void *arg, const struct sockaddr *peer,
			       const struct culvert_error *error)
{
	struct rig *rig = arg;

	(void)peer;
	rig->permissions_lost++;
	rig->last_code = error->code;
}

static void on_ended(void *arg, const struct culvert_error *error)
{
	struct rig *rig = arg;

	assert_false(rig->ended);
	rig->ended = true;
	rig->ended_code = error ? error->code : 0;
	if (error)
		snprintf(rig->reason, sizeof(rig->reason), "%s", error->reason);
	if (rig->free_in_callback) {
		culvert_client_free(rig->client);
		rig->client = NULL;
	}
}

static void on_done(void *arg, const struct culvert_error *error)
{
	rig_note(arg, error);
}

static void on_connect(void *arg, const struct culvert_error *error,
		       const struct culvert_stream *stream)
{
	assert_true(!error != !stream);
	if (stream)
		rig_keep(arg, stream);
	rig_note(arg, error);
}

static void on_binding(void *arg, const struct culvert_error *error,
		       const struct sockaddr *mapped)
{
	struct rig *rig = arg;

	if (mapped)
		client_addr_take(&rig->mapped, mapped);
	rig_note(rig, error);
}

static const struct culvert_events events = {
	.connected = on_connected,
	.ready = on_ready,
	.attempt = on_attempt,
	.accepted = on_accepted,
	.attempt_failed = on_attempt_failed,
	.permission_lost = on_permission_lost,
	.ended = on_ended,
};

static void server_address(const struct rig *rig, struct culvert_server *out)
{
	memset(out, 0, sizeof(*out));
	out->count = 1;
	memcpy(&out->address[0], &rig->server.addr, sizeof(rig->server.addr));
}

/* Options for the rig's server; `server` is filled for them. */
static struct culvert_options rig_options(struct rig *rig,
					  struct culvert_server *server)
{
	server_address(rig, server);
	return (struct culvert_options){
		.server = server,
		.user = SERVER_USER,
		.password = SERVER_PASSWORD,
		.request_timeout_ms = 300,
		.connect_timeout_ms = 300,
	};
}

static void rig_start(struct rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	assert_int_equal(culvert_loop_new(&rig->loop), 0);
	server_start(&rig->server, rig->loop->loop);
}

static void rig_client(struct rig *rig)
{
	struct culvert_server server;
	struct culvert_options options = rig_options(rig, &server);

	assert_int_equal(culvert_client_new(rig->loop, &options, &events, rig,
					    &rig->client),
			 0);
}

static void rig_stop(struct rig *rig)
{
	culvert_client_free(rig->client);
	server_stop(&rig->server);
	for (size_t i = 0; i < rig->fd_count; i++)
		close(rig->fds[i]);
	culvert_loop_free(rig->loop);
}

/* Runs the loop until the condition holds; fails when it never does. */
#define RUN_UNTIL(rig, condition)                                            \
	do {                                                                 \
		uint64_t until_ms = clock_ms() + PATIENCE_MS;                \
                                                                             \
		while (!(condition)) {                                       \
			assert_true(clock_ms() < until_ms);                  \
			assert_int_equal(                                    \
				culvert_loop_dispatch((rig)->loop, 100), 0); \
		}                                                            \
	} while (0)

static void rig_ready(struct rig *rig)
{
	rig_client(rig);
	RUN_UNTIL(rig, rig->ready || rig->ended);
	assert_true(rig->ready);
}

static void rig_connect(struct rig *rig, const char *peer)
{
	union addr addr;

	assert_int_equal(addr_parse(peer, 0, &addr), 0);
	assert_int_equal(culvert_client_connect(rig->client, &addr.sa,
						on_connect, rig),
			 0);
}

static int rig_permit(struct rig *rig, const char *peer)
{
	union addr addr;

	assert_int_equal(addr_parse(peer, 0, &addr), 0);
	return culvert_client_permit(rig->client, &addr.sa, on_done, rig);
}

/* ---- Sent to another server ---- */

static union addr elsewhere; /* where odd_alternate sends clients */

/* Allocates with credentials are sent on; `count` 1: unsigned, 2: and hangs up. */
static bool odd_alternate(struct server_conn *conn, const struct stun_msg *msg)
{
	struct stun_writer w;
	uint8_t buf[256];

	if (msg->method != STUN_ALLOCATE ||
	    (conn->server->realm && credentials_judge(conn->server, msg)))
		return false;
	stun_begin(&w, buf, sizeof(buf), STUN_ERROR, msg->method, msg->txid);
	stun_put_error(&w, STUN_CODE_TRY_ALTERNATE);
	stun_put_address(&w, STUN_ATTR_ALTERNATE_SERVER, &elsewhere);
	answer_send(conn, &w, conn->server->count != 1);
	if (conn->server->count == 2)
		shutdown(conn->watch.fd, SHUT_RDWR);
	return true;
}

static void test_another_server_is_followed(void **state)
{
	for (int hang_up = 0; hang_up <= 2; hang_up += 2) {
		struct culvert_info info;
		struct server other;
		struct rig rig;

		(void)state;
		rig_start(&rig);
		server_start(&other, rig.loop->loop);
		elsewhere = other.addr;
		rig.server.odd = odd_alternate;
		rig.server.count = hang_up;
		rig_ready(&rig);
		culvert_client_info(rig.client, &info);
		assert_true(
			addr_equal((union addr *)&info.server, &other.addr));
		assert_int_equal(other.granted[STUN_ALLOCATE], 1);
		/* A nonce of its own was asked for. */
		assert_int_equal(other.seen[STUN_ALLOCATE], 2);
		rig_connect(&rig, "198.51.100.1:80");
		RUN_UNTIL(&rig, rig.answers);
		assert_int_equal(rig.last_code, 0);
		assert_int_equal(other.granted[STUN_CONNECTION_BIND], 1);
		server_stop(&other);
		rig_stop(&rig);
	}
}

static void test_nobodys_word_is_not_followed(void **state)
{
	struct server other;
	struct rig rig;

	(void)state;
	for (int unsigned_one = 0; unsigned_one <= 1; unsigned_one++) {
		rig_start(&rig);
		server_start(&other, rig.loop->loop);
		elsewhere = other.addr;
		rig.server.odd = odd_alternate;
		rig.server.count = unsigned_one;
		if (!unsigned_one)
			rig.server.realm = NULL;
		rig_client(&rig);
		RUN_UNTIL(&rig, rig.ended);
		assert_int_equal(rig.ended_code,
				 unsigned_one ? -EBADMSG :
						STUN_CODE_TRY_ALTERNATE);
		assert_int_equal(other.conns, 0);
		server_stop(&other);
		rig_stop(&rig);
	}
}

static void test_nobody_is_sent_in_a_circle(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	elsewhere = rig.server.addr;
	rig.server.odd = odd_alternate;
	rig_client(&rig);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.ended_code, STUN_CODE_TRY_ALTERNATE);
	assert_int_equal(rig.server.conns, 1);
	rig_stop(&rig);
}

static void test_freed_at_another_server(void **state)
{
	struct server other;
	struct rig rig;

	(void)state;
	rig_start(&rig);
	server_start(&other, rig.loop->loop);
	elsewhere = other.addr;
	rig.server.odd = odd_alternate;
	rig_client(&rig);
	RUN_UNTIL(&rig, other.conns);
	culvert_client_free(rig.client);
	rig.client = NULL;
	assert_int_equal(culvert_loop_dispatch(rig.loop, 0), 0);
	assert_false(rig.ended);
	server_stop(&other);
	rig_stop(&rig);
}

/* ---- The plain course ---- */

static void test_allocates_with_credentials(void **state)
{
	struct culvert_info info;
	char text[ADDR_STRLEN];
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig_ready(&rig);
	culvert_client_info(rig.client, &info);
	assert_string_equal(addr_format((union addr *)&info.relayed, text),
			    "192.0.2.1:50000");
	assert_string_equal(info.realm, "example.org");
	assert_string_equal(info.software, "scripted?");
	assert_int_equal(info.lifetime_s, 600);
	assert_true(addr_equal((union addr *)&info.server, &rig.server.addr));
	assert_int_equal(rig.server.seen[STUN_ALLOCATE], 2);
	rig_stop(&rig);
}

static void test_allocates_without_credentials(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.realm = NULL;
	rig_ready(&rig);
	assert_int_equal(rig.server.seen[STUN_ALLOCATE], 1);
	rig_stop(&rig);
}

static void test_close_gives_the_allocation_back(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig_ready(&rig);
	culvert_client_close(rig.client);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.ended_code, 0);
	assert_int_equal(rig.server.granted[STUN_REFRESH], 1);
	rig_stop(&rig);
}

static void test_connects_and_binds_on_a_second_connection(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig_ready(&rig);
	rig_connect(&rig, "198.51.100.1:80");
	RUN_UNTIL(&rig, rig.answers);
	assert_int_equal(rig.last_code, 0);
	assert_int_equal(rig.fd_count, 1);
	assert_int_equal(rig.early_len, 0);
	assert_int_equal(rig.server.conns, 2);
	/* The nonce of the control connection was good for the bind. */
	assert_int_equal(rig.server.seen[STUN_CONNECTION_BIND], 1);
	rig_stop(&rig);
}

static void test_many_connects_at_once(void **state)
{
	char peer[32];
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig_ready(&rig);
	for (int i = 1; i <= 50; i++) {
		snprintf(peer, sizeof(peer), "198.51.100.1:%d", i);
		rig_connect(&rig, peer);
	}
	RUN_UNTIL(&rig, rig.answers == 50);
	assert_int_equal(rig.refusals, 0);
	assert_int_equal(rig.fd_count, 50);
	rig_stop(&rig);
}

static void test_accepts_attempts(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig_ready(&rig);
	assert_int_equal(rig_permit(&rig, "198.51.100.9"), 0);
	RUN_UNTIL(&rig, rig.answers);
	server_attempt(&rig.server, 7, "198.51.100.9:4000");
	RUN_UNTIL(&rig, rig.fd_count == 1);
	rig.refuse_attempts = true;
	server_attempt(&rig.server, 8, "198.51.100.9:4001");
	rig.answers = 0;
	culvert_client_refresh(rig.client, on_done, &rig);
	RUN_UNTIL(&rig, rig.answers);
	assert_int_equal(rig.server.seen[STUN_CONNECTION_BIND], 1);
	rig_stop(&rig);
}

static void test_binding_tells_the_mapped_address(void **state)
{
	struct culvert_info info;
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig_ready(&rig);
	assert_int_equal(culvert_client_binding(rig.client, on_binding, &rig),
			 0);
	RUN_UNTIL(&rig, rig.answers);
	culvert_client_info(rig.client, &info);
	assert_true(addr_equal((union addr *)&info.local, &rig.mapped));
	rig_stop(&rig);
}

static void test_manual_waits_for_its_owner(void **state)
{
	struct culvert_server server;
	struct culvert_options options;
	struct rig rig;

	(void)state;
	rig_start(&rig);
	options = rig_options(&rig, &server);
	options.manual = true;
	assert_int_equal(culvert_client_new(rig.loop, &options, &events, &rig,
					    &rig.client),
			 0);
	RUN_UNTIL(&rig, rig.connected);
	assert_int_equal(culvert_client_binding(rig.client, on_binding, &rig),
			 0);
	RUN_UNTIL(&rig, rig.answers);
	assert_int_equal(rig.server.seen[STUN_ALLOCATE], 0);
	assert_int_equal(culvert_client_allocate(rig.client), 0);
	assert_int_equal(culvert_client_allocate(rig.client), -EINVAL);
	RUN_UNTIL(&rig, rig.ready);
	rig_stop(&rig);
}

static void test_next_address_when_the_first_refuses(void **state)
{
	struct culvert_server server;
	struct culvert_options options;
	struct rig rig;
	union addr closed;
	int fd;

	(void)state;
	rig_start(&rig);
	options = rig_options(&rig, &server);
	/* A port nobody listens on: bound and never listened. */
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(addr_parse("127.0.0.1", 0, &closed), 0);
	assert_int_equal(bind(fd, &closed.sa, addr_len(&closed)), 0);
	assert_int_equal(
		getsockname(fd, &closed.sa, &(socklen_t){ sizeof(closed) }), 0);
	server.address[1] = server.address[0];
	memcpy(&server.address[0], &closed, sizeof(closed));
	server.count = 2;
	assert_int_equal(culvert_client_new(rig.loop, &options, &events, &rig,
					    &rig.client),
			 0);
	RUN_UNTIL(&rig, rig.ready || rig.ended);
	assert_true(rig.ready);
	rig_stop(&rig);
	close(fd);
}

static void test_server_that_is_not_there(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	server_stop(&rig.server);
	rig_client(&rig);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.ended_code, -ECONNREFUSED);
	rig_stop(&rig);
}

static void test_foreign_loop_integration(void **state)
{
	uint64_t until_ms = clock_ms() + PATIENCE_MS;
	struct rig rig;
	int timeout_ms;

	(void)state;
	rig_start(&rig);
	rig_client(&rig);
	while (!rig.ready) {
		struct pollfd ready = { .fd = culvert_loop_fd(rig.loop),
					.events = POLLIN };

		assert_true(clock_ms() < until_ms);
		timeout_ms = culvert_loop_timeout(rig.loop);
		/* The time limit of the dial or of a request is armed. */
		assert_true(timeout_ms >= 0);
		assert_true(poll(&ready, 1, timeout_ms) >= 0);
		assert_int_equal(culvert_loop_dispatch(rig.loop, 0), 0);
	}
	rig_stop(&rig);
}

/* ---- Credentials ---- */

static void test_wrong_password_is_told_after_two_requests(void **state)
{
	struct culvert_server server;
	struct culvert_options options;
	struct rig rig;

	(void)state;
	rig_start(&rig);
	options = rig_options(&rig, &server);
	options.password = "looking-glass";
	assert_int_equal(culvert_client_new(rig.loop, &options, &events, &rig,
					    &rig.client),
			 0);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.ended_code, 401);
	assert_int_equal(rig.server.seen[STUN_ALLOCATE], 2);
	rig_stop(&rig);
}

static void test_no_credentials_where_some_are_asked(void **state)
{
	struct culvert_server server;
	struct culvert_options options;
	struct rig rig;

	(void)state;
	rig_start(&rig);
	options = rig_options(&rig, &server);
	options.user = options.password = NULL;
	assert_int_equal(culvert_client_new(rig.loop, &options, &events, &rig,
					    &rig.client),
			 0);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.ended_code, 401);
	rig_stop(&rig);
}

static bool odd_401_for_ever(struct server_conn *conn,
			     const struct stun_msg *msg)
{
	static const char *const realms[] = { "one", "two" };

	/* A new realm each time: there is always reason to try again. */
	conn->server->realm = realms[conn->server->count++ % 2];
	conn->server->nonce++;
	answer_challenge(conn, msg, STUN_CODE_UNAUTHENTICATED);
	return true;
}

static void test_401_circle_is_left(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_401_for_ever;
	rig_client(&rig);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.ended_code, 401);
	assert_true(rig.server.seen[STUN_ALLOCATE] <= 5);
	rig_stop(&rig);
}

static bool odd_438_storm(struct server_conn *conn, const struct stun_msg *msg)
{
	if (!stun_has(msg, STUN_ATTR_MESSAGE_INTEGRITY))
		return false;
	conn->server->nonce++;
	answer_challenge(conn, msg, STUN_CODE_STALE_NONCE);
	return true;
}

static void test_438_storm_is_left(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_438_storm;
	rig_client(&rig);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.ended_code, 438);
	assert_true(rig.server.seen[STUN_ALLOCATE] <= 6);
	rig_stop(&rig);
}

static void test_stale_nonce_costs_one_round_trip(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig_ready(&rig);
	rig.server.nonce++;
	for (int i = 0; i < 5; i++)
		assert_int_equal(
			culvert_client_refresh(rig.client, on_done, &rig), 0);
	RUN_UNTIL(&rig, rig.answers == 5);
	assert_int_equal(rig.refusals, 0);
	rig_stop(&rig);
}

static bool odd_new_nonce_at_bind(struct server_conn *conn,
				  const struct stun_msg *msg)
{
	if (msg->method == STUN_CONNECTION_BIND && !conn->server->count++)
		conn->server->nonce++;
	return false;
}

static void test_stale_nonce_on_the_data_connection(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_new_nonce_at_bind;
	rig_ready(&rig);
	rig_connect(&rig, "198.51.100.1:80");
	RUN_UNTIL(&rig, rig.answers);
	assert_int_equal(rig.last_code, 0);
	assert_int_equal(rig.server.conns, 2);
	assert_int_equal(rig.server.seen[STUN_CONNECTION_BIND], 2);
	rig_stop(&rig);
}

static bool odd_challenge_and_close(struct server_conn *conn,
				    const struct stun_msg *msg)
{
	if (msg->method != STUN_CONNECTION_BIND || conn->server->count++)
		return false;
	conn->server->nonce++;
	answer_challenge(conn, msg, STUN_CODE_STALE_NONCE);
	conn_drop(conn);
	return true;
}

static void test_data_connection_closed_after_a_challenge(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_challenge_and_close;
	rig_ready(&rig);
	rig_connect(&rig, "198.51.100.1:80");
	RUN_UNTIL(&rig, rig.answers);
	assert_int_equal(rig.last_code, 0);
	assert_int_equal(rig.server.conns, 3);
	rig_stop(&rig);
}

static bool odd_realm_for_refresh(struct server_conn *conn,
				  const struct stun_msg *msg)
{
	if (msg->method == STUN_REFRESH && !conn->server->count++) {
		conn->server->realm = "example.net";
		conn->server->nonce++;
	}
	return false;
}

static void test_another_realm_is_followed(void **state)
{
	struct culvert_info info;
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_realm_for_refresh;
	rig_ready(&rig);
	assert_int_equal(culvert_client_refresh(rig.client, on_done, &rig), 0);
	RUN_UNTIL(&rig, rig.answers);
	assert_int_equal(rig.last_code, 0);
	culvert_client_info(rig.client, &info);
	assert_string_equal(info.realm, "example.net");
	rig_stop(&rig);
}

static bool odd_challenge_without_nonce(struct server_conn *conn,
					const struct stun_msg *msg)
{
	answer_error(conn, msg, STUN_CODE_UNAUTHENTICATED, false);
	return true;
}

static void test_challenge_without_nonce(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_challenge_without_nonce;
	rig_client(&rig);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.ended_code, -EPROTO);
	rig_stop(&rig);
}

/* ---- Integrity ---- */

static void answer_badly_signed(struct server_conn *conn,
				const struct stun_msg *msg, bool signature)
{
	static const uint8_t key[STUN_KEY_LEN] = "somebody else's";
	struct server *server = conn->server;
	struct stun_writer w;
	uint8_t buf[512];

	stun_begin(&w, buf, sizeof(buf), STUN_SUCCESS, msg->method, msg->txid);
	success_fill(server, &w, msg->method, &server->addr);
	if (signature)
		stun_put_integrity(&w, key, sizeof(key));
	answer_send(conn, &w, false);
}

static bool odd_wrong_integrity(struct server_conn *conn,
				const struct stun_msg *msg)
{
	if (credentials_judge(conn->server, msg))
		return false;
	answer_badly_signed(conn, msg, true);
	return true;
}

static bool odd_no_integrity(struct server_conn *conn,
			     const struct stun_msg *msg)
{
	if (credentials_judge(conn->server, msg))
		return false;
	answer_badly_signed(conn, msg, false);
	return true;
}

static void check_unsigned_success(bool (*odd)(struct server_conn *conn,
					       const struct stun_msg *msg))
{
	struct rig rig;

	rig_start(&rig);
	rig.server.odd = odd;
	rig_client(&rig);
	RUN_UNTIL(&rig, rig.ended);
	assert_false(rig.ready);
	assert_int_equal(rig.ended_code, -EBADMSG);
	assert_non_null(strstr(rig.reason, "not signed"));
	rig_stop(&rig);
}

static void test_wrong_integrity_ends_it(void **state)
{
	(void)state;
	check_unsigned_success(odd_wrong_integrity);
}

static void test_missing_integrity_ends_it(void **state)
{
	(void)state;
	check_unsigned_success(odd_no_integrity);
}

static bool odd_unsigned_error(struct server_conn *conn,
			       const struct stun_msg *msg)
{
	if (msg->method != STUN_CONNECT || credentials_judge(conn->server, msg))
		return false;
	answer_error(conn, msg, STUN_CODE_FORBIDDEN, false);
	return true;
}

/* Its own code is not believed either. */
static void test_unsigned_error_ends_it(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_unsigned_error;
	rig_ready(&rig);
	rig_connect(&rig, "198.51.100.1:80");
	RUN_UNTIL(&rig, rig.answers);
	assert_int_equal(rig.last_code, -EBADMSG);
	rig_stop(&rig);
}

/* RFC 8489 9.2.5: an unsigned 400 never came, and there may be no other answer. */
static bool odd_unsigned_400(struct server_conn *conn,
			     const struct stun_msg *msg)
{
	if (msg->method != STUN_CONNECT || credentials_judge(conn->server, msg))
		return false;
	answer_error(conn, msg, STUN_CODE_BAD_REQUEST, false);
	return !conn->server->count++;
}

static void test_unsigned_400_is_as_if_nothing_came(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_unsigned_400;
	rig_ready(&rig);
	rig_connect(&rig, "198.51.100.1:80");
	RUN_UNTIL(&rig, rig.answers);
	assert_int_equal(rig.last_code, -ETIMEDOUT);
	assert_non_null(strstr(rig.reason, "not signed"));
	rig_connect(&rig, "198.51.100.1:80");
	RUN_UNTIL(&rig, rig.answers == 2);
	assert_int_equal(rig.last_code, 0);
	rig_stop(&rig);
}

static bool odd_wrong_fingerprint(struct server_conn *conn,
				  const struct stun_msg *msg)
{
	struct stun_writer w;
	uint8_t buf[512];
	ssize_t len;

	if (msg->method != STUN_BINDING || conn->server->count++)
		return false;
	stun_begin(&w, buf, sizeof(buf), STUN_ERROR, msg->method, msg->txid);
	stun_put_error(&w, STUN_CODE_SERVER_ERROR);
	stun_put_fingerprint(&w);
	len = stun_end(&w);
	buf[len - 1] ^= 1;
	conn_send(conn, buf, (size_t)len);
	return false;
}

static void test_wrong_fingerprint_is_ignored(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_wrong_fingerprint;
	rig_ready(&rig);
	assert_int_equal(culvert_client_binding(rig.client, on_binding, &rig),
			 0);
	RUN_UNTIL(&rig, rig.answers);
	assert_int_equal(rig.last_code, 0);
	rig_stop(&rig);
}

/* ---- Nonsense ---- */

static bool odd_garbage(struct server_conn *conn, const struct stun_msg *msg)
{
	(void)msg;
	conn_send(conn, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
	return true;
}

static void test_garbage_ends_the_client(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_garbage;
	rig_client(&rig);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.ended_code, -EPROTO);
	rig_stop(&rig);
}

static bool odd_half_an_answer(struct server_conn *conn,
			       const struct stun_msg *msg)
{
	(void)msg;
	conn_send(conn, "\x01\x13\x00\x40\x21\x12\xa4\x42", 8);
	conn_drop(conn);
	return true;
}

static void test_truncated_answer_and_close(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_half_an_answer;
	rig_client(&rig);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.ended_code, -EPIPE);
	rig_stop(&rig);
}

static bool odd_silence(struct server_conn *conn, const struct stun_msg *msg)
{
	return msg->method == (uint16_t)conn->server->count;
}

static void test_silent_server_times_out(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_silence;
	rig.server.count = STUN_ALLOCATE;
	rig_client(&rig);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.ended_code, -ETIMEDOUT);
	rig_stop(&rig);
}

static bool odd_strangers_first(struct server_conn *conn,
				const struct stun_msg *msg)
{
	static const uint8_t txid[STUN_TXID_LEN] = "nobody's own";
	static const uint8_t filler[8000];
	uint8_t buf[9000];
	struct stun_writer w;

	/* A response to nobody, an unknown indication, a broken attribute
	 * list, and a message too long to be kept.
	 */
	stun_begin(&w, buf, sizeof(buf), STUN_SUCCESS, msg->method, txid);
	answer_send(conn, &w, false);
	stun_begin(&w, buf, sizeof(buf), STUN_INDICATION, 0x3ff, NULL);
	stun_put_u32(&w, 0x7fff, 1);
	answer_send(conn, &w, false);
	stun_begin(&w, buf, sizeof(buf), STUN_SUCCESS, msg->method, msg->txid);
	stun_put_u32(&w, STUN_ATTR_LIFETIME, 1);
	buf[STUN_HEADER_LEN + 3] = 0xff;
	conn_send(conn, buf, w.len);
	stun_begin(&w, buf, sizeof(buf), STUN_INDICATION, STUN_DATA, NULL);
	stun_put(&w, STUN_ATTR_DATA, filler, sizeof(filler));
	answer_send(conn, &w, false);
	return false;
}

static void test_messages_for_nobody_are_ignored(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_strangers_first;
	rig_ready(&rig);
	rig_connect(&rig, "198.51.100.1:80");
	RUN_UNTIL(&rig, rig.answers);
	/* On the data connection a message of that length is none of ours. */
	assert_int_equal(rig.last_code, -EPROTO);
	assert_int_equal(rig.server.granted[STUN_CONNECT], 1);
	rig_stop(&rig);
}

static bool odd_unknown_required(struct server_conn *conn,
				 const struct stun_msg *msg)
{
	struct stun_writer w;
	uint8_t buf[512];

	if (credentials_judge(conn->server, msg))
		return false;
	stun_begin(&w, buf, sizeof(buf), STUN_SUCCESS, msg->method, msg->txid);
	success_fill(conn->server, &w, msg->method, &conn->server->addr);
	stun_put_u32(&w, 0x7ffe, 1);
	answer_send(conn, &w, true);
	return true;
}

static void test_unknown_required_attribute_fails_the_request(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_unknown_required;
	rig_client(&rig);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.ended_code, -EPROTO);
	rig_stop(&rig);
}

static bool odd_success_without_content(struct server_conn *conn,
					const struct stun_msg *msg)
{
	struct stun_writer w;
	uint8_t buf[512];

	if (msg->method != (uint16_t)conn->server->count ||
	    credentials_judge(conn->server, msg))
		return false;
	stun_begin(&w, buf, sizeof(buf), STUN_SUCCESS, msg->method, msg->txid);
	answer_send(conn, &w, true);
	return true;
}

static void test_allocate_success_without_address(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_success_without_content;
	rig.server.count = STUN_ALLOCATE;
	rig_client(&rig);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.ended_code, -EPROTO);
	rig_stop(&rig);
}

static void test_connect_success_without_identifier(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_success_without_content;
	rig.server.count = STUN_CONNECT;
	rig_ready(&rig);
	rig_connect(&rig, "198.51.100.1:80");
	RUN_UNTIL(&rig, rig.answers);
	assert_int_equal(rig.last_code, -EPROTO);
	assert_false(rig.ended);
	rig_stop(&rig);
}

/* ---- Data connections ---- */

static bool odd_glue(struct server_conn *conn, const struct stun_msg *msg)
{
	if (msg->method != STUN_CONNECTION_BIND ||
	    credentials_judge(conn->server, msg))
		return false;
	/* One segment with the answer: corked until both are written. */
	setsockopt(conn->watch.fd, IPPROTO_TCP, TCP_CORK, &(int){ 1 },
		   sizeof(int));
	answer_success(conn, msg);
	conn_send(conn, "\x16\x03\x01 glued", 9);
	setsockopt(conn->watch.fd, IPPROTO_TCP, TCP_CORK, &(int){ 0 },
		   sizeof(int));
	return true;
}

static void test_bytes_behind_the_bind_are_kept(void **state)
{
	char rest[4];
	struct rig rig;
	size_t bound;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_glue;
	rig_ready(&rig);
	rig_connect(&rig, "198.51.100.1:80");
	RUN_UNTIL(&rig, rig.answers);
	assert_int_equal(rig.early_len, 9);
	assert_memory_equal(rig.early, "\x16\x03\x01 glued", 9);
	/* What comes later is read from the descriptor. */
	for (bound = 0; !rig.server.conn[bound].bound;)
		bound++;
	conn_send(&rig.server.conn[bound], "tail", 4);
	assert_int_equal(recv(rig.fds[0], rest, 4, MSG_WAITALL), 4);
	assert_memory_equal(rest, "tail", 4);
	rig_stop(&rig);
}

static bool odd_bind_bytewise(struct server_conn *conn,
			      const struct stun_msg *msg)
{
	uint8_t key[STUN_KEY_LEN], buf[256];
	struct stun_writer w;
	ssize_t len;

	if (msg->method != STUN_CONNECTION_BIND ||
	    credentials_judge(conn->server, msg))
		return false;
	server_key(conn->server, key);
	stun_begin(&w, buf, sizeof(buf), STUN_SUCCESS, msg->method, msg->txid);
	stun_put_integrity(&w, key, sizeof(key));
	len = stun_end(&w);
	/* Each byte a read of its own: the loop turns in between. */
	for (ssize_t i = 0; i < len; i++) {
		conn_send(conn, buf + i, 1);
		culvert_loop_dispatch(
			&(struct culvert_loop){ .loop = conn->server->loop },
			0);
	}
	return true;
}

static void test_bind_answer_in_pieces(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_bind_bytewise;
	rig_ready(&rig);
	rig_connect(&rig, "198.51.100.1:80");
	RUN_UNTIL(&rig, rig.answers);
	assert_int_equal(rig.last_code, 0);
	assert_int_equal(rig.early_len, 0);
	rig_stop(&rig);
}

static bool odd_bind_refused(struct server_conn *conn,
			     const struct stun_msg *msg)
{
	if (msg->method != STUN_CONNECTION_BIND)
		return false;
	switch (conn->server->count) {
	case 0:
		answer_error(conn, msg, STUN_CODE_BAD_REQUEST, true);
		break;
	case 1:
		conn_drop(conn);
		break;
	case 2:
		break; /* silence */
	default:
		conn_send(conn, "SSH-2.0-elsewhere\r\n", 19);
		break;
	}
	return true;
}

static void test_bind_that_fails(void **state)
{
	static const int codes[] = { 400, -EPIPE, -ETIMEDOUT, -EPROTO };
	struct rig rig;

	(void)state;
	for (int i = 0; i < 4; i++) {
		rig_start(&rig);
		rig.server.odd = odd_bind_refused;
		rig.server.count = i;
		rig_ready(&rig);
		rig_connect(&rig, "198.51.100.1:80");
		RUN_UNTIL(&rig, rig.answers);
		assert_int_equal(rig.last_code, codes[i]);
		server_attempt(&rig.server, 9, "198.51.100.1:9");
		RUN_UNTIL(&rig, rig.attempts_failed);
		assert_int_equal(rig.last_code, codes[i]);
		assert_false(rig.ended);
		rig_stop(&rig);
	}
}

static bool odd_connect_refused(struct server_conn *conn,
				const struct stun_msg *msg)
{
	if (msg->method != STUN_CONNECT || credentials_judge(conn->server, msg))
		return false;
	answer_error(conn, msg, conn->server->count, true);
	return true;
}

static void test_peer_refused_is_left_alone_for_ten_seconds(void **state)
{
	struct rig rig;
	union addr peer;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_connect_refused;
	rig.server.count = 447;
	rig_ready(&rig);
	rig_connect(&rig, "198.51.100.1:80");
	RUN_UNTIL(&rig, rig.answers);
	assert_int_equal(rig.last_code, 447);
	assert_int_equal(addr_parse("198.51.100.1:80", 0, &peer), 0);
	assert_int_equal(culvert_client_connect(rig.client, &peer.sa,
						on_connect, &rig),
			 -EAGAIN);
	/* Another port is another peer, and other codes mean no wait. */
	rig.server.count = 446;
	addr_set_port(&peer, 81);
	for (int i = 0; i < 2; i++) {
		rig.answers = 0;
		assert_int_equal(culvert_client_connect(rig.client, &peer.sa,
							on_connect, &rig),
				 0);
		RUN_UNTIL(&rig, rig.answers);
		assert_int_equal(rig.last_code, 446);
	}
	rig_stop(&rig);
}

static void test_one_connect_per_peer_at_a_time(void **state)
{
	struct rig rig;
	union addr peer;

	(void)state;
	rig_start(&rig);
	rig_ready(&rig);
	rig_connect(&rig, "198.51.100.1:80");
	assert_int_equal(addr_parse("198.51.100.1:80", 0, &peer), 0);
	assert_int_equal(culvert_client_connect(rig.client, &peer.sa,
						on_connect, &rig),
			 -EALREADY);
	RUN_UNTIL(&rig, rig.answers);
	assert_int_equal(rig.last_code, 0);
	rig_stop(&rig);
}

static void test_cancelled_connect_is_closed_quietly(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig_ready(&rig);
	rig_connect(&rig, "198.51.100.1:80");
	culvert_client_cancel(rig.client, &rig);
	RUN_UNTIL(&rig, rig.server.granted[STUN_CONNECTION_BIND]);
	RUN_UNTIL(&rig, !rig.client->data_count);
	assert_int_equal(rig.answers, 0);
	rig_stop(&rig);
}

static bool odd_bind_held(struct server_conn *conn, const struct stun_msg *msg)
{
	return msg->method == STUN_CONNECTION_BIND && conn->server->count;
}

static void test_attempt_flood_is_bounded(void **state)
{
	struct culvert_server server;
	struct culvert_options options;
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_bind_held;
	rig.server.count = 1;
	options = rig_options(&rig, &server);
	options.request_timeout_ms = PATIENCE_MS;
	options.accepts_max = 5;
	assert_int_equal(culvert_client_new(rig.loop, &options, &events, &rig,
					    &rig.client),
			 0);
	RUN_UNTIL(&rig, rig.ready);
	for (uint32_t i = 0; i < 3000; i++) {
		server_attempt(&rig.server, i, "198.51.100.1:9");
		if (i % 100 == 0)
			culvert_loop_dispatch(rig.loop, 0);
	}
	RUN_UNTIL(&rig, rig.client->data_count == CLIENT_INFLIGHT_MAX);
	RUN_UNTIL(&rig, rig.server.seen[STUN_CONNECTION_BIND] == 5);
	assert_int_equal(rig.client->accepting, 5);
	/* The connection is as good as before. */
	assert_int_equal(culvert_client_refresh(rig.client, on_done, &rig), 0);
	RUN_UNTIL(&rig, rig.answers);
	assert_int_equal(rig.server.seen[STUN_CONNECTION_BIND], 5);
	rig_stop(&rig);
}

static bool odd_server_leaves(struct server_conn *conn,
			      const struct stun_msg *msg)
{
	if (msg->method != STUN_CONNECT)
		return false;
	conn_drop(conn);
	return true;
}

static void test_server_that_leaves_fails_what_is_in_flight(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_server_leaves;
	rig_ready(&rig);
	rig_connect(&rig, "198.51.100.1:80");
	rig_connect(&rig, "198.51.100.1:81");
	assert_int_equal(rig_permit(&rig, "198.51.100.9"), 0);
	assert_int_equal(culvert_client_refresh(rig.client, on_done, &rig), 0);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.answers, 4);
	assert_int_equal(rig.refusals, 4);
	assert_true(rig.ended_code == -EPIPE || rig.ended_code == -ECONNRESET);
	assert_int_equal(rig_permit(&rig, "198.51.100.9"), -ENOTCONN);
	rig_stop(&rig);
}

/* Nothing comes that would tell of it: what cannot be sent does. */
static void test_connection_that_takes_no_more_ends_it(void **state)
{
	static const uint8_t bytes[4096];
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig_ready(&rig);
	rig.server.conn[0].bound = true; /* reads no more */
	watch_set(rig.server.loop, &rig.server.conn[0].watch, 0);
	while (!rig.client->out_len)
		assert_int_equal(client_control_send(rig.client, bytes,
						     sizeof(bytes)),
				 0);
	assert_int_equal(shutdown(rig.client->watch.fd, SHUT_WR), 0);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.ended_code, -EPIPE);
	rig_stop(&rig);
}

static void test_client_freed_in_its_callbacks(void **state)
{
	struct rig rig;

	(void)state;
	/* Inside the answer to a Connect, with others in flight. */
	rig_start(&rig);
	rig_ready(&rig);
	rig.free_in_callback = true;
	rig_connect(&rig, "198.51.100.1:80");
	rig_connect(&rig, "198.51.100.1:81");
	assert_int_equal(rig_permit(&rig, "198.51.100.9"), 0);
	RUN_UNTIL(&rig, rig.answers);
	assert_null(rig.client);
	culvert_loop_dispatch(rig.loop, 0);
	assert_int_equal(rig.answers, 1);
	rig_stop(&rig);
	/* Inside the first of many failures, and inside `ended`. */
	for (int inside = 0; inside < 2; inside++) {
		rig_start(&rig);
		rig.server.odd = odd_server_leaves;
		rig_ready(&rig);
		rig_connect(&rig, "198.51.100.1:80");
		rig_connect(&rig, "198.51.100.1:81");
		if (inside)
			culvert_client_cancel(rig.client, &rig);
		rig.free_in_callback = true;
		RUN_UNTIL(&rig, rig.answers || rig.ended);
		assert_null(rig.client);
		assert_int_equal(rig.ended, inside);
		culvert_loop_dispatch(rig.loop, 0);
		rig_stop(&rig);
	}
}

/* ---- Staying alive ---- */

static void test_allocation_is_refreshed_at_half_life(void **state)
{
	uint64_t start_ms;
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.lifetime_s = 1;
	rig_ready(&rig);
	start_ms = clock_ms();
	RUN_UNTIL(&rig, rig.server.granted[STUN_REFRESH] == 3);
	assert_in_range(clock_ms() - start_ms, 1300, 5000);
	assert_false(rig.ended);
	rig_stop(&rig);
}

static bool odd_refresh_refused(struct server_conn *conn,
				const struct stun_msg *msg)
{
	if (msg->method != STUN_REFRESH || credentials_judge(conn->server, msg))
		return false;
	answer_error(conn, msg, conn->server->count, true);
	return true;
}

static void test_mismatch_on_refresh_ends_the_client(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.lifetime_s = 1;
	rig.server.odd = odd_refresh_refused;
	rig.server.count = 437;
	rig_ready(&rig);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.ended_code, 437);
	assert_int_equal(rig.server.seen[STUN_REFRESH], 1);
	rig_stop(&rig);
}

static void test_failing_refresh_is_tried_until_expiry(void **state)
{
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.lifetime_s = 1;
	rig.server.odd = odd_refresh_refused;
	rig.server.count = 500;
	rig_ready(&rig);
	RUN_UNTIL(&rig, rig.ended);
	assert_int_equal(rig.ended_code, 500);
	assert_true(rig.server.seen[STUN_REFRESH] > 1);
	rig_stop(&rig);
}

static bool odd_permission_refused(struct server_conn *conn,
				   const struct stun_msg *msg)
{
	if (msg->method != STUN_CREATE_PERMISSION || !conn->server->count ||
	    credentials_judge(conn->server, msg))
		return false;
	answer_error(conn, msg, conn->server->count, true);
	return true;
}

static void test_permissions_are_refreshed_and_their_loss_is_told(void **state)
{
	struct culvert_server server;
	struct culvert_options options;
	struct rig rig;

	(void)state;
	rig_start(&rig);
	rig.server.odd = odd_permission_refused;
	options = rig_options(&rig, &server);
	options.permission_refresh_s = 1;
	assert_int_equal(culvert_client_new(rig.loop, &options, &events, &rig,
					    &rig.client),
			 0);
	RUN_UNTIL(&rig, rig.ready);
	assert_int_equal(rig_permit(&rig, "198.51.100.9"), 0);
	assert_int_equal(rig_permit(&rig, "198.51.100.9:80"), -EALREADY);
	RUN_UNTIL(&rig, rig.server.granted[STUN_CREATE_PERMISSION] == 2);
	assert_int_equal(rig.answers, 1);
	rig.server.count = 403;
	RUN_UNTIL(&rig, rig.permissions_lost);
	assert_int_equal(rig.last_code, 403);
	assert_int_equal(rig_permit(&rig, "198.51.100.10"), 0);
	RUN_UNTIL(&rig, rig.answers == 2);
	assert_int_equal(rig.last_code, 403);
	assert_int_equal(rig.client->permission_count, 1);
	rig_stop(&rig);
}

static void test_limits_are_told(void **state)
{
	char peer[32];
	struct rig rig;
	int i, err;

	(void)state;
	rig_start(&rig);
	rig_ready(&rig);
	/* A server that does not read: what waits to be sent is bounded. */
	watch_set(rig.loop->loop, &server_control(&rig.server)->watch, 0);
	for (i = 0, err = 0; !err && i < 2 * CLIENT_INFLIGHT_MAX; i++) {
		union addr addr;

		snprintf(peer, sizeof(peer), "198.51.100.1:%d", i + 1);
		assert_int_equal(addr_parse(peer, 0, &addr), 0);
		err = culvert_client_connect(rig.client, &addr.sa, on_connect,
					     &rig);
	}
	assert_int_equal(err, -ENOBUFS);
	assert_int_equal(i, CLIENT_INFLIGHT_MAX + 1);
	for (i = 0, err = 0; !err && i < 2 * CULVERT_PERMISSIONS_MAX; i++) {
		snprintf(peer, sizeof(peer), "198.51.%d.%d", i / 200, i % 200);
		err = rig_permit(&rig, peer);
	}
	assert_int_equal(err, -ENOSPC);
	assert_int_equal(i, CULVERT_PERMISSIONS_MAX + 1);
	RUN_UNTIL(&rig,
		  rig.answers == CLIENT_INFLIGHT_MAX + CULVERT_PERMISSIONS_MAX);
	assert_int_equal(rig.last_code, -ETIMEDOUT);
	rig_stop(&rig);
}

static void test_options_that_cannot_be(void **state)
{
	struct culvert_events none = { .ready = on_ready };
	struct culvert_client *client = NULL;
	struct culvert_options options;
	struct culvert_server server;
	char longest[CULVERT_USER_MAX + 2];
	struct rig rig;

	(void)state;
	rig_start(&rig);
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	options = rig_options(&rig, &server);
	assert_int_equal(culvert_client_new(rig.loop, &options, &none, &rig,
					    &client),
			 -EINVAL);
	options.password = NULL;
	assert_int_equal(culvert_client_new(rig.loop, &options, &events, &rig,
					    &client),
			 -EINVAL);
	options.password = longest;
	assert_int_equal(culvert_client_new(rig.loop, &options, &events, &rig,
					    &client),
			 -EINVAL);
	options.password = "x";
	options.family = AF_UNIX;
	assert_int_equal(culvert_client_new(rig.loop, &options, &events, &rig,
					    &client),
			 -EINVAL);
	assert_null(client);
	rig_stop(&rig);
}

/* ---- Names ---- */

static void test_server_texts(void **state)
{
	static const struct {
		const char *text;
		int result;
		const char *addr;
	} cases[] = {
		{ "192.0.2.1", 0, "192.0.2.1:3478" },
		{ "192.0.2.1:80", 0, "192.0.2.1:80" },
		{ "2001:db8::1", 0, "[2001:db8::1]:3478" },
		{ "[2001:db8::1]", 0, "[2001:db8::1]:3478" },
		{ "[2001:db8::1]:80", 0, "[2001:db8::1]:80" },
		{ "turn:192.0.2.1", 0, "192.0.2.1:3478" },
		{ "TURN:192.0.2.1:81?transport=tcp", 0, "192.0.2.1:81" },
		{ "turn:192.0.2.1?transport=udp", -EPROTONOSUPPORT, NULL },
		{ "turns:192.0.2.1", 0, "192.0.2.1:5349" },
		{ "turns:192.0.2.1:443?transport=tcp", 0, "192.0.2.1:443" },
		{ "turns:192.0.2.1?transport=udp", -EPROTONOSUPPORT, NULL },
		{ "stuns:192.0.2.1", -EPROTONOSUPPORT, NULL },
		{ "turn:192.0.2.1?what=tcp", -EINVAL, NULL },
		{ "192.0.2.1:0", -EINVAL, NULL },
		{ "192.0.2.1:65536", -EINVAL, NULL },
		{ "192.0.2.1:8x", -EINVAL, NULL },
		{ "192.0.2.1:", -EINVAL, NULL },
		{ ":3478", -EINVAL, NULL },
		{ "", -EINVAL, NULL },
		{ "[2001:db8::1", -EINVAL, NULL },
		{ "[2001:db8::1]80", -EINVAL, NULL },
		{ "[]:80", -EINVAL, NULL },
	};
	struct culvert_server server;
	char text[ADDR_STRLEN];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int result = culvert_resolve(cases[i].text, AF_UNSPEC, &server);

		assert_int_equal(result, cases[i].result);
		if (!result)
			assert_string_equal(
				addr_format((union addr *)&server.address[0],
					    text),
				cases[i].addr);
	}
}

/* ---- Memory that runs out ---- */

static void course_run(void *arg)
{
	uint64_t until_ms = clock_ms() + PATIENCE_MS;
	struct culvert_options options;
	struct culvert_server server;
	struct rig *rig = arg;
	union addr peer;
	int asked = 0;

	memset(rig, 0, sizeof(*rig));
	if (culvert_loop_new(&rig->loop))
		return;
	server_start(&rig->server, rig->loop->loop);
	options = rig_options(rig, &server);
	addr_parse("198.51.100.1:80", 0, &peer);
	if (culvert_client_new(rig->loop, &options, &events, rig, &rig->client))
		goto stop;
	while (!rig->ready && !rig->ended && clock_ms() < until_ms)
		culvert_loop_dispatch(rig->loop, 100);
	if (rig->ended)
		goto stop;
	assert_true(rig->ready);
	asked +=
		!culvert_client_connect(rig->client, &peer.sa, on_connect, rig);
	asked += !culvert_client_permit(rig->client, &peer.sa, on_done, rig);
	asked += !culvert_client_binding(rig->client, on_binding, rig);
	while (rig->answers < asked && clock_ms() < until_ms)
		culvert_loop_dispatch(rig->loop, 100);
	assert_int_equal(rig->answers, asked);
	server_attempt(&rig->server, 5, "198.51.100.1:80");
	rig->answers = 0;
	asked = !culvert_client_refresh(rig->client, on_done, rig);
	while (rig->answers < asked && clock_ms() < until_ms)
		culvert_loop_dispatch(rig->loop, 100);
	culvert_client_close(rig->client);
	while (!rig->ended && clock_ms() < until_ms)
		culvert_loop_dispatch(rig->loop, 100);
	assert_true(rig->ended);
stop:
	rig_stop(rig);
}

static void test_allocation_failures(void **state)
{
	struct rig *rig = malloc(sizeof(*rig));

	(void)state;
	assert_true(failalloc_sweep(course_run, rig) > 5);
	free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allocates_with_credentials),
		cmocka_unit_test(test_allocates_without_credentials),
		cmocka_unit_test(test_close_gives_the_allocation_back),
		cmocka_unit_test(
			test_connects_and_binds_on_a_second_connection),
		cmocka_unit_test(test_many_connects_at_once),
		cmocka_unit_test(test_accepts_attempts),
		cmocka_unit_test(test_binding_tells_the_mapped_address),
		cmocka_unit_test(test_manual_waits_for_its_owner),
		cmocka_unit_test(test_next_address_when_the_first_refuses),
		cmocka_unit_test(test_server_that_is_not_there),
		cmocka_unit_test(test_foreign_loop_integration),
		cmocka_unit_test(
			test_wrong_password_is_told_after_two_requests),
		cmocka_unit_test(test_no_credentials_where_some_are_asked),
		cmocka_unit_test(test_401_circle_is_left),
		cmocka_unit_test(test_438_storm_is_left),
		cmocka_unit_test(test_stale_nonce_costs_one_round_trip),
		cmocka_unit_test(test_stale_nonce_on_the_data_connection),
		cmocka_unit_test(test_data_connection_closed_after_a_challenge),
		cmocka_unit_test(test_another_realm_is_followed),
		cmocka_unit_test(test_challenge_without_nonce),
		cmocka_unit_test(test_wrong_integrity_ends_it),
		cmocka_unit_test(test_missing_integrity_ends_it),
		cmocka_unit_test(test_unsigned_error_ends_it),
		cmocka_unit_test(test_unsigned_400_is_as_if_nothing_came),
		cmocka_unit_test(test_wrong_fingerprint_is_ignored),
		cmocka_unit_test(test_garbage_ends_the_client),
		cmocka_unit_test(test_truncated_answer_and_close),
		cmocka_unit_test(test_silent_server_times_out),
		cmocka_unit_test(test_messages_for_nobody_are_ignored),
		cmocka_unit_test(
			test_unknown_required_attribute_fails_the_request),
		cmocka_unit_test(test_allocate_success_without_address),
		cmocka_unit_test(test_connect_success_without_identifier),
		cmocka_unit_test(test_bytes_behind_the_bind_are_kept),
		cmocka_unit_test(test_bind_answer_in_pieces),
		cmocka_unit_test(test_bind_that_fails),
		cmocka_unit_test(
			test_peer_refused_is_left_alone_for_ten_seconds),
		cmocka_unit_test(test_one_connect_per_peer_at_a_time),
		cmocka_unit_test(test_cancelled_connect_is_closed_quietly),
		cmocka_unit_test(test_attempt_flood_is_bounded),
		cmocka_unit_test(
			test_server_that_leaves_fails_what_is_in_flight),
		cmocka_unit_test(test_connection_that_takes_no_more_ends_it),
		cmocka_unit_test(test_client_freed_in_its_callbacks),
		cmocka_unit_test(test_allocation_is_refreshed_at_half_life),
		cmocka_unit_test(test_mismatch_on_refresh_ends_the_client),
		cmocka_unit_test(test_failing_refresh_is_tried_until_expiry),
		cmocka_unit_test(
			test_permissions_are_refreshed_and_their_loss_is_told),
		cmocka_unit_test(test_another_server_is_followed),
		cmocka_unit_test(test_nobodys_word_is_not_followed),
		cmocka_unit_test(test_nobody_is_sent_in_a_circle),
		cmocka_unit_test(test_freed_at_another_server),
		cmocka_unit_test(test_limits_are_told),
		cmocka_unit_test(test_options_that_cannot_be),
		cmocka_unit_test(test_server_texts),
		cmocka_unit_test(test_allocation_failures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
