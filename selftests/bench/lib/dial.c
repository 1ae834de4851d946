/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Opens measured connections: straight to an address, or through a TURN server.
 *
 * A session dials the control connection, sends an Allocate without credentials,
 * takes realm and nonce from the 401 and sends it again; then it stands. A
 * connection through it: Connect on the control connection -> CONNECTION-ID ->
 * second TCP connection -> ConnectionBind -> done. Requests on a new connection
 * use the control connection's nonce, as real clients do; a stale nonce is
 * answered once with the new one. Nothing is ever sent behind a ConnectionBind
 * before its answer: some servers lose it.
 *
 * Owners keep the memory of a session or connection until the loop ends, so
 * `done` may close either.
 */
#include "dial.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/fd.h"

/* `base` moved on by `index` host addresses, the last 32 bits counted. */
static void addr_step(union addr *addr, uint32_t index)
{
	size_t len;
	uint8_t bytes[16];
	const uint8_t *from = addr_bytes(addr, &len);

	if (!from || !index)
		return;
	memcpy(bytes, from, len);
	for (size_t i = len; i > len - 4; i--) {
		index += bytes[i - 1];
		bytes[i - 1] = (uint8_t)index;
		index >>= 8;
	}
	addr_from_bytes(addr, addr_family(addr), bytes, addr_port(addr));
}

/* A socket on its way to `to`: an fd or a negative errno. */
static int socket_dial(const struct dial_conf *conf, const union addr *to,
		       uint32_t source)
{
	int one = 1, zero = 0, error;
	int fd = socket(addr_family(to),
			SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	/* What is sent at once acknowledges what came before it: fewer segments
	 * of the near end that would cost every relay's turn the same.
	 */
	setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &zero, sizeof(zero));
	if (addr_family(&conf->source) != AF_UNSPEC) {
		union addr from = conf->source;

		/* The port is picked at connect, when the tuple is known. */
		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one,
			   sizeof(one));
		addr_step(&from, conf->sources ? source % conf->sources : 0);
		if (bind(fd, &from.sa, addr_len(&from)) < 0)
			goto err;
	}
	if (connect(fd, &to->sa, addr_len(to)) < 0 && errno != EINPROGRESS)
		goto err;
	return fd;
err:
	error = -errno;
	fd_close(&fd);
	return error;
}

/* How the dialling ended: 0 or a negative errno. */
static int socket_result(int fd)
{
	socklen_t len = sizeof(int);
	int error = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return -errno;
	return -error;
}

/* Reads once. 0, or a negative errno; the end of the stream is -EPIPE. */
static int inbox_fill(struct dial_inbox *inbox, int fd)
{
	ssize_t got = recv(fd, inbox->data + inbox->len,
			   sizeof(inbox->data) - inbox->len, MSG_DONTWAIT);

	if (got < 0)
		return errno == EAGAIN ? 0 : -errno;
	if (!got)
		return -EPIPE;
	inbox->len += (size_t)got;
	return 0;
}

/* 1: a whole message is in *msg; 0: more to come; negative: not STUN. */
static int inbox_message(const struct dial_inbox *inbox, struct stun_msg *msg)
{
	ssize_t len = stun_frame(inbox->data, inbox->len);
	int error;

	if (len < 0)
		return (int)len;
	if ((size_t)len > sizeof(inbox->data))
		return -EMSGSIZE;
	if (!len || (size_t)len > inbox->len)
		return 0;
	error = stun_parse(inbox->data, (size_t)len, msg);
	return error ? error : 1;
}

static void inbox_drop(struct dial_inbox *inbox, size_t len)
{
	inbox->len -= len;
	memmove(inbox->data, inbox->data + len, inbox->len);
}

/* 0 for a success, the code of an error, -EBADMSG for anything else. */
static int answer_code(const struct stun_msg *msg)
{
	struct stun_attr attr;
	const char *reason;
	size_t reason_len;
	int code;

	if (msg->class == STUN_SUCCESS)
		return 0;
	if (msg->class != STUN_ERROR ||
	    !stun_find(msg, STUN_ATTR_ERROR_CODE, &attr) ||
	    stun_get_error(&attr, &code, &reason, &reason_len))
		return -EBADMSG;
	return code;
}

static bool text_take(const struct stun_msg *msg, uint16_t type,
		      char out[DIAL_TEXT])
{
	struct stun_attr attr;

	if (!stun_find(msg, type, &attr) || attr.len >= DIAL_TEXT)
		return false;
	memcpy(out, attr.value, attr.len);
	out[attr.len] = '\0';
	return true;
}

/* Takes realm and nonce from a 401 or 438: the next request carries them. */
static bool challenge_take(struct dial_session *session,
			   const struct stun_msg *msg)
{
	char realm[DIAL_TEXT];

	if (!text_take(msg, STUN_ATTR_NONCE, session->nonce) ||
	    !text_take(msg, STUN_ATTR_REALM, realm))
		return false;
	if (session->has_key && !strcmp(realm, session->realm))
		return true;
	memcpy(session->realm, realm, sizeof(realm));
	session->has_key = !stun_long_term_key(session->conf->user, realm,
					       session->conf->password,
					       session->key);
	return session->has_key;
}

/* A request refused for its credentials that is worth sending once more. */
static bool answer_retries(struct dial_session *session,
			   const struct stun_msg *msg, int code, bool *retried)
{
	bool first = !session->has_key && code == STUN_CODE_UNAUTHENTICATED;

	if (first)
		return challenge_take(session, msg);
	if (*retried || (code != STUN_CODE_STALE_NONCE &&
			 code != STUN_CODE_UNAUTHENTICATED))
		return false;
	*retried = true;
	return challenge_take(session, msg);
}

static void credentials_put(struct stun_writer *w,
			    const struct dial_session *session)
{
	if (!session->has_key)
		return;
	stun_put_string(w, STUN_ATTR_USERNAME, session->conf->user);
	stun_put_string(w, STUN_ATTR_REALM, session->realm);
	stun_put_string(w, STUN_ATTR_NONCE, session->nonce);
	stun_put_integrity(w, session->key, sizeof(session->key));
}

/* Ends and sends a request; remembers its transaction. */
static int request_send(struct stun_writer *w, struct dial_session *session,
			int fd, uint8_t txid[STUN_TXID_LEN])
{
	ssize_t len, sent;

	credentials_put(w, session);
	len = stun_end(w);
	if (len < 0)
		return (int)len;
	memcpy(txid, w->buf + STUN_HEADER_LEN - STUN_TXID_LEN, STUN_TXID_LEN);
	sent = send(fd, w->buf, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0)
		return -errno;
	/* A request that does not fit into a socket buffer: nobody reads. */
	return sent == len ? 0 : -ENOBUFS;
}

static int allocate_send(struct dial_session *session)
{
	uint8_t buf[DIAL_MESSAGE];
	struct stun_writer w;

	stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_ALLOCATE, NULL);
	stun_put_u8(&w, STUN_ATTR_REQUESTED_TRANSPORT, STUN_TRANSPORT_TCP);
	/* The relayed address has to be of the peer's family. */
	if (addr_family(&session->conf->peer) == AF_INET6)
		stun_put_u8(&w, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
			    STUN_FAMILY_IPV6);
	return request_send(&w, session, session->watch.fd, session->txid);
}

static int connect_send(struct dial_conn *conn)
{
	struct dial_session *session = conn->session;
	union addr peer = conn->conf->peer;
	uint8_t buf[DIAL_MESSAGE];
	struct stun_writer w;

	addr_step(&peer, conn->target % conn->conf->targets);
	stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_CONNECT, NULL);
	stun_put_xor_address(&w, STUN_ATTR_XOR_PEER_ADDRESS, &peer);
	return request_send(&w, session, session->watch.fd, conn->txid);
}

static int bind_send(struct dial_conn *conn)
{
	uint8_t buf[DIAL_MESSAGE];
	struct stun_writer w;

	stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_CONNECTION_BIND,
		   NULL);
	stun_put_u32(&w, STUN_ATTR_CONNECTION_ID, conn->id);
	return request_send(&w, conn->session, conn->watch.fd, conn->txid);
}

static void conn_done(struct dial_conn *conn, int error)
{
	list_del(&conn->link);
	if (error)
		watch_close(conn->loop, &conn->watch);
	conn->done(conn, error);
}

static void session_end(struct dial_session *session, int error)
{
	struct list *pos, *tmp;

	watch_close(session->loop, &session->watch);
	list_for_each_safe(pos, tmp, &session->pending)
		conn_done(list_entry(pos, struct dial_conn, link), error);
	session->done(session, error);
}

/* The answer to a ConnectionBind; anything behind it would be lost. */
static void bind_readable(struct watch *watch, uint32_t events)
{
	struct dial_conn *conn = list_entry(watch, struct dial_conn, watch);
	int error = inbox_fill(&conn->inbox, watch->fd);
	struct stun_msg msg = { .len = 0 };
	int there, code;

	(void)events;
	there = error ? error : inbox_message(&conn->inbox, &msg);
	if (!there)
		return;
	if (there > 0 && msg.len != conn->inbox.len)
		there = -EBADMSG;
	if (there < 0) {
		conn_done(conn, there);
		return;
	}
	code = answer_code(&msg);
	if (code > 0 &&
	    answer_retries(conn->session, &msg, code, &conn->retried)) {
		conn->inbox.len = 0;
		error = bind_send(conn);
		if (error)
			conn_done(conn, error);
		return;
	}
	conn_done(conn, code);
}

static void conn_connected(struct watch *watch, uint32_t events)
{
	struct dial_conn *conn = list_entry(watch, struct dial_conn, watch);
	int error = socket_result(watch->fd);

	(void)events;
	if (!error && conn->session) {
		watch->fn = bind_readable;
		watch_set(conn->loop, watch, EPOLLIN);
		error = bind_send(conn);
		if (!error)
			return;
	}
	conn_done(conn, error);
}

static int conn_dial(struct dial_conn *conn, uint32_t source)
{
	union addr to = conn->conf->server;
	int error, fd;

	if (!conn->session)
		addr_step(&to, conn->target % conn->conf->targets);
	fd = socket_dial(conn->conf, &to, source);
	if (fd < 0)
		return fd;
	error = watch_add(conn->loop, &conn->watch, fd, EPOLLOUT,
			  conn_connected);
	if (error) {
		fd_close(&fd);
		conn->watch.fd = -1;
		return error;
	}
	watch_own(conn->loop, &conn->watch);
	return 0;
}

/* The answer to a Connect: a CONNECTION-ID to present, or why not. */
static void connect_answered(struct dial_conn *conn, const struct stun_msg *msg)
{
	int code = answer_code(msg);
	struct stun_attr attr;

	if (code > 0 &&
	    answer_retries(conn->session, msg, code, &conn->retried)) {
		code = connect_send(conn);
		if (!code)
			return;
	}
	if (!code && (!stun_find(msg, STUN_ATTR_CONNECTION_ID, &attr) ||
		      stun_get_u32(&attr, &conn->id)))
		code = -EBADMSG;
	list_del(&conn->link);
	if (!code)
		code = conn_dial(conn, conn->session->source);
	if (code)
		conn_done(conn, code);
}

/* 0, or the error the session ends with. */
static int session_answered(struct dial_session *session,
			    const struct stun_msg *msg)
{
	struct list *pos;
	int code;

	if (msg->class == STUN_INDICATION)
		return 0;
	if (msg->method == STUN_CONNECT) {
		list_for_each(pos, &session->pending) {
			struct dial_conn *conn =
				list_entry(pos, struct dial_conn, link);

			if (memcmp(conn->txid, msg->txid, STUN_TXID_LEN))
				continue;
			connect_answered(conn, msg);
			break;
		}
		return 0;
	}
	if (msg->method != STUN_ALLOCATE)
		return -EBADMSG;
	code = answer_code(msg);
	if (code > 0 && answer_retries(session, msg, code, &session->retried))
		return allocate_send(session);
	if (!code)
		session->done(session, 0);
	return code;
}

static void session_readable(struct watch *watch, uint32_t events)
{
	struct dial_session *session =
		list_entry(watch, struct dial_session, watch);
	int error = inbox_fill(&session->inbox, watch->fd);
	struct stun_msg msg;

	(void)events;
	while (!error) {
		int there = inbox_message(&session->inbox, &msg);

		if (!there)
			return;
		error = there < 0 ? there : session_answered(session, &msg);
		if (session->watch.fd < 0)
			return; /* closed by a `done` */
		if (!error)
			inbox_drop(&session->inbox, msg.len);
	}
	session_end(session, error);
}

static void session_connected(struct watch *watch, uint32_t events)
{
	struct dial_session *session =
		list_entry(watch, struct dial_session, watch);
	int error = socket_result(watch->fd);

	(void)events;
	if (!error) {
		watch->fn = session_readable;
		watch_set(session->loop, watch, EPOLLIN);
		error = allocate_send(session);
	}
	if (error)
		session_end(session, error);
}

int dial_session_open(struct dial_session *session, struct loop *loop,
		      const struct dial_conf *conf, uint32_t source,
		      void (*done)(struct dial_session *session, int error))
{
	int error, fd;

	memset(session, 0, sizeof(*session));
	session->loop = loop;
	session->conf = conf;
	session->source = source;
	session->done = done;
	session->watch.fd = -1;
	list_init(&session->pending);
	fd = socket_dial(conf, &conf->server, source);
	if (fd < 0)
		return fd;
	error = watch_add(loop, &session->watch, fd, EPOLLOUT,
			  session_connected);
	if (error) {
		fd_close(&fd);
		session->watch.fd = -1;
		return error;
	}
	watch_own(loop, &session->watch);
	return 0;
}

void dial_session_close(struct dial_session *session)
{
	if (session->watch.fd >= 0)
		watch_close(session->loop, &session->watch);
}

int dial_conn_open(struct dial_conn *conn, struct loop *loop,
		   const struct dial_conf *conf, struct dial_session *session,
		   uint32_t target, uint32_t source,
		   void (*done)(struct dial_conn *conn, int error))
{
	int error;

	memset(conn, 0, sizeof(*conn));
	conn->loop = loop;
	conn->conf = conf;
	conn->session = session;
	conn->target = target;
	conn->done = done;
	conn->watch.fd = -1;
	list_init(&conn->link);
	if (!session)
		return conn_dial(conn, source);
	list_add_tail(&conn->link, &session->pending);
	error = connect_send(conn);
	if (error)
		list_del(&conn->link);
	return error;
}

void dial_conn_close(struct dial_conn *conn)
{
	list_del(&conn->link);
	if (conn->watch.fd >= 0)
		watch_close(conn->loop, &conn->watch);
}

const char *dial_error(int error)
{
	static char text[96];

	if (error < 0)
		return strerror(-error);
	snprintf(text, sizeof(text), "%d %s", error, stun_reason(error));
	return text;
}
