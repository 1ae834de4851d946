/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A TURN-TCP server for the client's tests: on the client's own loop, polite by
 * default, and odd wherever a test's hook says so. It allocates no memory.
 */
#ifndef CLIENT_SERVER_H
#define CLIENT_SERVER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/addr.h"
#include "base/fd.h"
#include "loop/loop.h"
#include "stun/stun.h"

#define SERVER_CONNS    128
#define SERVER_USER     "alice"
#define SERVER_PASSWORD "wonderland"

struct server;

struct server_conn {
	struct server *server;
	struct watch watch; /* fd -1: unused */
	uint8_t in[4096];
	size_t in_len;
	bool bound; /* bytes are no longer read */
};

struct server {
	struct loop *loop;
	struct watch watch;
	union addr addr;
	const char *realm; /* NULL: no credentials are asked for */
	unsigned int nonce; /* the one that is valid */
	uint32_t lifetime_s;
	union addr relayed;
	unsigned int seen[16]; /* requests by method, challenged ones too */
	unsigned int granted[16]; /* requests that were answered with success */
	uint32_t last_id;
	struct server_conn conn[SERVER_CONNS];
	unsigned int conns; /* accepted so far */
	/* Told of every request first; true: it is dealt with. */
	bool (*odd)(struct server_conn *conn, const struct stun_msg *msg);
	int count; /* the hook's own */
};

static void server_key(const struct server *server, uint8_t key[STUN_KEY_LEN])
{
	assert_int_equal(stun_long_term_key(SERVER_USER, server->realm,
					    SERVER_PASSWORD, key),
			 0);
}

static void conn_send(struct server_conn *conn, const void *data, size_t len)
{
	assert_int_equal(send(conn->watch.fd, data, len, MSG_NOSIGNAL), len);
}

static void conn_drop(struct server_conn *conn)
{
	int fd = conn->watch.fd;

	watch_del(conn->server->loop, &conn->watch);
	fd_close(&fd);
}

/* Ends the message with integrity and fingerprint, and sends it. */
static void answer_send(struct server_conn *conn, struct stun_writer *w,
			bool signature)
{
	uint8_t key[STUN_KEY_LEN];
	ssize_t len;

	if (signature && conn->server->realm) {
		server_key(conn->server, key);
		stun_put_integrity(w, key, sizeof(key));
	}
	stun_put_fingerprint(w);
	len = stun_end(w);
	assert_true(len > 0);
	conn_send(conn, w->buf, (size_t)len);
}

static inline void answer_error(struct server_conn *conn,
				const struct stun_msg *msg, int code,
				bool signature)
{
	struct stun_writer w;
	uint8_t buf[1024];

	stun_begin(&w, buf, sizeof(buf), STUN_ERROR, msg->method, msg->txid);
	stun_put_error(&w, code);
	answer_send(conn, &w, signature);
}

static void answer_challenge(struct server_conn *conn,
			     const struct stun_msg *msg, int code)
{
	struct server *server = conn->server;
	struct stun_writer w;
	uint8_t buf[1024];
	char nonce[16];

	snprintf(nonce, sizeof(nonce), "nonce%u", server->nonce);
	stun_begin(&w, buf, sizeof(buf), STUN_ERROR, msg->method, msg->txid);
	stun_put_error(&w, code);
	stun_put_string(&w, STUN_ATTR_REALM, server->realm);
	stun_put_string(&w, STUN_ATTR_NONCE, nonce);
	answer_send(conn, &w, false);
}

/* What the method's success response carries. */
static void success_fill(struct server *server, struct stun_writer *w,
			 uint16_t method, const union addr *remote)
{
	switch (method) {
	case STUN_ALLOCATE:
		stun_put_xor_address(w, STUN_ATTR_XOR_RELAYED_ADDRESS,
				     &server->relayed);
		stun_put_u32(w, STUN_ATTR_LIFETIME, server->lifetime_s);
		stun_put_string(w, STUN_ATTR_SOFTWARE, "scripted\n");
		break;
	case STUN_REFRESH:
		stun_put_u32(w, STUN_ATTR_LIFETIME, server->lifetime_s);
		break;
	case STUN_CONNECT:
		stun_put_u32(w, STUN_ATTR_CONNECTION_ID, ++server->last_id);
		break;
	case STUN_BINDING:
		stun_put_xor_address(w, STUN_ATTR_XOR_MAPPED_ADDRESS, remote);
		break;
	default:
		break;
	}
}

static void answer_success(struct server_conn *conn, const struct stun_msg *msg)
{
	struct server *server = conn->server;
	socklen_t len = sizeof(union addr);
	struct stun_writer w;
	union addr remote;
	uint8_t buf[1024];

	getpeername(conn->watch.fd, &remote.sa, &len);
	stun_begin(&w, buf, sizeof(buf), STUN_SUCCESS, msg->method, msg->txid);
	success_fill(server, &w, msg->method, &remote);
	answer_send(conn, &w, msg->method != STUN_BINDING);
	server->granted[msg->method & 15]++;
	conn->bound = msg->method == STUN_CONNECTION_BIND;
}

/* 0, or the code of the challenge it deserves. */
static int credentials_judge(const struct server *server,
			     const struct stun_msg *msg)
{
	uint8_t key[STUN_KEY_LEN];
	struct stun_attr nonce;
	char want[16];

	if (!server->realm || msg->method == STUN_BINDING)
		return 0;
	server_key(server, key);
	if (stun_check_integrity(msg, key, sizeof(key)) != 1 ||
	    !stun_find(msg, STUN_ATTR_NONCE, &nonce))
		return STUN_CODE_UNAUTHENTICATED;
	snprintf(want, sizeof(want), "nonce%u", server->nonce);
	if (nonce.len != strlen(want) || memcmp(nonce.value, want, nonce.len))
		return STUN_CODE_STALE_NONCE;
	return 0;
}

static void request_answer(struct server_conn *conn, const struct stun_msg *msg)
{
	struct server *server = conn->server;
	int code;

	assert_int_equal(msg->class, STUN_REQUEST);
	assert_int_equal(stun_check_fingerprint(msg), 1);
	server->seen[msg->method & 15]++;
	if (server->odd && server->odd(conn, msg))
		return;
	code = credentials_judge(server, msg);
	if (code)
		answer_challenge(conn, msg, code);
	else
		answer_success(conn, msg);
}

static void conn_ready(struct watch *watch, uint32_t events)
{
	struct server_conn *conn = list_entry(watch, struct server_conn, watch);
	struct stun_msg msg;
	ssize_t n, frame;

	(void)events;
	n = recv(watch->fd, conn->in + conn->in_len,
		 sizeof(conn->in) - conn->in_len, MSG_DONTWAIT);
	if (n <= 0) {
		conn_drop(conn);
		return;
	}
	conn->in_len += (size_t)n;
	while (watch->fd >= 0 && !conn->bound) {
		frame = stun_frame(conn->in, conn->in_len);
		if (frame <= 0 || (size_t)frame > conn->in_len)
			break;
		assert_int_equal(stun_parse(conn->in, (size_t)frame, &msg), 0);
		request_answer(conn, &msg);
		conn->in_len -= (size_t)frame;
		memmove(conn->in, conn->in + frame, conn->in_len);
	}
	if (watch->fd >= 0 && conn->bound)
		watch_set(conn->server->loop, watch, 0);
}

static void server_accept(struct watch *watch, uint32_t events)
{
	struct server *server = list_entry(watch, struct server, watch);
	int fd = accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct server_conn *conn = server->conn;

	(void)events;
	assert_true(fd >= 0);
	while (conn->watch.fd >= 0)
		conn++;
	assert_true(conn < server->conn + SERVER_CONNS);
	memset(conn, 0, sizeof(*conn));
	conn->server = server;
	assert_int_equal(watch_add(server->loop, &conn->watch, fd, EPOLLIN,
				   conn_ready),
			 0);
	server->conns++;
}

static void server_start(struct server *server, struct loop *loop)
{
	socklen_t len = sizeof(server->addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memset(server, 0, sizeof(*server));
	server->loop = loop;
	server->realm = "example.org";
	server->lifetime_s = 600;
	assert_int_equal(addr_parse("192.0.2.1:50000", 0, &server->relayed), 0);
	assert_int_equal(addr_parse("127.0.0.1", 0, &server->addr), 0);
	assert_int_equal(bind(fd, &server->addr.sa, addr_len(&server->addr)),
			 0);
	assert_int_equal(listen(fd, 128), 0);
	assert_int_equal(getsockname(fd, &server->addr.sa, &len), 0);
	for (size_t i = 0; i < SERVER_CONNS; i++)
		server->conn[i].watch.fd = -1;
	assert_int_equal(
		watch_add(loop, &server->watch, fd, EPOLLIN, server_accept), 0);
}

static void server_stop(struct server *server)
{
	int fd = server->watch.fd;

	for (size_t i = 0; i < SERVER_CONNS; i++)
		if (server->conn[i].watch.fd >= 0)
			conn_drop(&server->conn[i]);
	watch_del(server->loop, &server->watch);
	fd_close(&fd);
}

/* The control connection: the first that is open. */
static struct server_conn *server_control(struct server *server)
{
	struct server_conn *conn = server->conn;

	while (conn->watch.fd < 0)
		conn++;
	return conn;
}

static inline void server_attempt(struct server *server, uint32_t id,
				  const char *peer)
{
	struct stun_writer w;
	uint8_t buf[256];
	union addr addr;

	assert_int_equal(addr_parse(peer, 0, &addr), 0);
	stun_begin(&w, buf, sizeof(buf), STUN_INDICATION,
		   STUN_CONNECTION_ATTEMPT, NULL);
	stun_put_u32(&w, STUN_ATTR_CONNECTION_ID, id);
	stun_put_xor_address(&w, STUN_ATTR_XOR_PEER_ADDRESS, &addr);
	answer_send(server_control(server), &w, false);
}

#endif
