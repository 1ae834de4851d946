/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Data connections: from Connect or ConnectionAttempt to a bound descriptor (RFC
 * 6062 4.3, 4.4).
 *
 *   outgoing: asking -> dialing -> binding -> handed over
 *   incoming: waiting -> dialing -> binding -> handed over
 *
 * waiting: accepts_max others of peers are under way; those that wait longer than
 * the server keeps an unbound connection are dropped. binding: the
 * ConnectionBind is out on the new connection. Its answer may be followed at once
 * by the peer's bytes: what was read behind it goes to the owner with the
 * descriptor. A challenge is answered on the same connection; a server that closes
 * it after the challenge is dialled once more, with the nonce it gave.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "client/tunnel.h"
#include "client/turn_client.h"
#include "crypto/crypto.h"

#define DATA_IN_MAX 4096

enum data_state {
	DATA_ASKING, /* Connect is under way */
	DATA_WAITING, /* for its turn */
	DATA_DIALING,
	DATA_BINDING,
};

struct client_data {
	struct list link; /* client->data, or client->attempts while waiting */
	struct culvert_client *client;
	enum data_state state;
	bool incoming;
	bool redialled;
	union addr peer;
	uint32_t id; /* CONNECTION-ID */
	uint64_t deadline_ms; /* the server forgets the id then */
	struct client_transaction connect;
	struct client_dial dial;
	struct watch watch;
	struct seal *seal; /* of the connection; NULL: none */
	struct timer timer;
	struct client_request bind;
	uint8_t in[DATA_IN_MAX];
	size_t in_len;
	culvert_connect_fn fn; /* outgoing; NULL: cancelled */
	void *arg;
};

static void attempts_next(struct culvert_client *client);
static void data_dial(struct client_data *data);

static void data_close(struct client_data *data)
{
	struct loop *loop = data->client->loop;
	int fd = data->watch.fd;

	client_transaction_cancel(&data->connect);
	client_dial_cancel(&data->dial);
	timer_cancel(loop, &data->timer);
	watch_del(loop, &data->watch);
	seal_free(data->seal);
	data->seal = NULL;
	fd_close(&fd);
}

static void data_free(struct client_data *data)
{
	struct culvert_client *client = data->client;

	data_close(data);
	list_del(&data->link);
	client->data_count--;
	if (data->incoming && data->state != DATA_WAITING)
		client->accepting--;
	crypto_wipe(&data->bind.key, sizeof(data->bind.key));
	free(data);
}

static struct client_data *data_new(struct culvert_client *client,
				    const union addr *peer)
{
	struct client_data *data = calloc(1, sizeof(*data));

	if (!data)
		return NULL;
	data->client = client;
	data->peer = *peer;
	data->watch.fd = -1;
	client_transaction_init(&data->connect, client);
	list_add_tail(&data->link, &client->data);
	client->data_count++;
	return data;
}

/* Over without a connection: tells who asked. */
static void data_fail(struct client_data *data,
		      const struct culvert_error *error)
{
	struct culvert_client *client = data->client;
	bool incoming = data->incoming;
	union addr peer = data->peer;
	culvert_connect_fn fn = data->fn;
	void *arg = data->arg;

	data_free(data);
	if (client->freed)
		return;
	if (!incoming && fn)
		fn(arg, error, NULL);
	else if (incoming && client->events.attempt_failed)
		client->events.attempt_failed(client->arg, &peer.sa, error);
	attempts_next(client);
}

static void data_fail_code(struct client_data *data, int code,
			   const char *during, const char *why)
{
	struct client_failure failure;

	client_failure_set(&failure, code, during, "%s", why);
	data_fail(data, &failure.error);
}

/*
 * Over TLS it is the plain end of a tunnel that the owner gets. False: `data` has
 * failed and is gone.
 */
static bool data_tunnel(struct client_data *data, struct culvert_stream *stream)
{
	int fd;

	/* The tunnel watches the descriptor by itself. */
	watch_del(data->client->loop, &data->watch);
	fd = client_tunnel_new(data->client->library, stream->fd, data->seal,
			       stream->early, stream->early_len);
	if (fd < 0) {
		fd_close(&stream->fd);
		data_fail_code(data, fd, "data connection", strerror(-fd));
		return false;
	}
	data->seal = NULL;
	stream->fd = fd;
	stream->early_len = 0;
	return true;
}

/* Bound: the descriptor and what was read behind the answer are the owner's. */
static void data_hand_over(struct client_data *data, size_t used)
{
	struct culvert_client *client = data->client;
	struct culvert_stream stream = {
		.fd = data->watch.fd,
		.early = data->in + used,
		.early_len = data->in_len - used,
		.peer = &data->peer.sa,
	};
	int fd;

	if (data->seal && !data_tunnel(data, &stream))
		return;
	fd = stream.fd;
	/* Out of the lists first: the owner may free the client. */
	timer_cancel(client->loop, &data->timer);
	watch_del(client->loop, &data->watch);
	list_del(&data->link);
	client->data_count--;
	if (data->incoming)
		client->accepting--;
	if (data->incoming && client->events.accepted)
		client->events.accepted(client->arg, &stream);
	else if (!data->incoming && data->fn)
		data->fn(data->arg, NULL, &stream);
	else
		fd_close(&fd);
	crypto_wipe(&data->bind.key, sizeof(data->bind.key));
	free(data);
	if (client->state == CLIENT_READY)
		attempts_next(client);
}

static void bind_fill(struct stun_writer *w, const void *arg)
{
	const struct client_data *data = arg;

	stun_put_u32(w, STUN_ATTR_CONNECTION_ID, data->id);
}

/* A new connection's send buffer holds a request many times over. */
static int bind_send(struct client_data *data)
{
	uint8_t buf[CLIENT_REQUEST_MAX];
	ssize_t len, sent;

	len = client_request_write(&data->bind, &data->client->auth, bind_fill,
				   data, buf, sizeof(buf));
	if (len < 0)
		return (int)len;
	sent = seal_send(data->seal, data->watch.fd, buf, (size_t)len);
	if (sent < 0)
		return (int)sent;
	return sent == len ? 0 : -ENOBUFS;
}

/* The answer, judged; returns false when `data` is gone. */
static bool bind_answer(struct client_data *data, const struct stun_msg *msg)
{
	struct client_failure failure;
	int err;

	if (memcmp(msg->txid, data->bind.txid, STUN_TXID_LEN) != 0)
		return true;
	switch (client_request_judge(&data->bind, &data->client->auth, msg,
				     &failure)) {
	case CLIENT_VERDICT_DISCARD:
		return true;
	case CLIENT_VERDICT_SUCCESS:
		data_hand_over(data, msg->len);
		return false;
	case CLIENT_VERDICT_ERROR:
		data_fail(data, &failure.error);
		return false;
	case CLIENT_VERDICT_AGAIN:
		break;
	}
	err = bind_send(data);
	if (err)
		data_fail_code(data, err, "ConnectionBind", strerror(-err));
	return !err;
}

/* Takes one message off the buffer; false: `data` is gone or needs more. */
static bool bind_consume(struct client_data *data)
{
	ssize_t frame = stun_frame(data->in, data->in_len);
	struct stun_msg msg;

	if (frame < 0 || frame > DATA_IN_MAX) {
		data_fail_code(data, -EPROTO, "ConnectionBind",
			       "the server's answer is not STUN");
		return false;
	}
	if (frame == 0 || (size_t)frame > data->in_len)
		return false;
	if (!stun_parse(data->in, (size_t)frame, &msg) &&
	    !bind_answer(data, &msg))
		return false;
	data->in_len -= (size_t)frame;
	memmove(data->in, data->in + frame, data->in_len);
	return true;
}

static void bind_closed(struct client_data *data, int code)
{
	if (data->bind.challenges && !data->redialled) {
		data_close(data);
		data->redialled = true;
		data_dial(data);
		return;
	}
	data_fail_code(data, code, "ConnectionBind",
		       code == -EPIPE ? "the server closed the connection" :
					strerror(-code));
}

/* What a seal has left comes in the next turn: the socket can be written. */
static void bind_watch(struct client_data *data)
{
	uint32_t events = EPOLLIN;

	if (data->seal->more || data->seal->blocked)
		events = EPOLLOUT;
	watch_set(data->client->loop, &data->watch, events);
}

static void bind_ready(struct watch *watch, uint32_t events)
{
	struct client_data *data = list_entry(watch, struct client_data, watch);
	ssize_t n = seal_recv(data->seal, watch->fd, data->in + data->in_len,
			      sizeof(data->in) - data->in_len);

	(void)events;
	if (data->seal)
		bind_watch(data);
	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0) {
		bind_closed(data, n < 0 ? (int)n : -EPIPE);
		return;
	}
	data->in_len += (size_t)n;
	while (bind_consume(data))
		;
}

static void bind_expired(struct timer *timer)
{
	struct client_data *data = list_entry(timer, struct client_data, timer);

	data_fail_code(data, -ETIMEDOUT, "ConnectionBind",
		       data->bind.discarded ?
			       CLIENT_NOT_SIGNED :
			       "the server did not answer in time");
}

static void data_dialled(struct client_dial *dial, int fd)
{
	struct client_data *data = list_entry(dial, struct client_data, dial);
	int err = fd;

	if (fd < 0)
		goto fail;
	err = watch_add(data->client->loop, &data->watch, fd, EPOLLIN,
			bind_ready);
	if (err) {
		seal_free(dial->seal);
		fd_close(&fd);
		goto fail;
	}
	data->seal = dial->seal;
	data->state = DATA_BINDING;
	memset(&data->bind, 0, sizeof(data->bind));
	data->bind.method = STUN_CONNECTION_BIND;
	data->in_len = 0;
	err = bind_send(data);
	if (err)
		goto fail;
	timer_arm(data->client->loop, &data->timer,
		  data->client->options.request_timeout_ms, bind_expired);
	return;

fail:
	data_fail_code(data, err, "data connection",
		       dial->why ? dial->why : strerror(-err));
}

static void data_dial(struct client_data *data)
{
	struct culvert_client *client = data->client;

	data->state = DATA_DIALING;
	client_dial_start(&data->dial, client->loop,
			  &client->server[client->server_index],
			  client->options.dial_timeout_ms, client->tls,
			  client->tls_name, data_dialled);
}

static bool connection_id_get(const struct stun_msg *msg, uint32_t *out)
{
	struct stun_attr attr;

	return stun_find(msg, STUN_ATTR_CONNECTION_ID, &attr) &&
	       !stun_get_u32(&attr, out);
}

/* ---- Outgoing ---- */

static void connect_fill(struct stun_writer *w, const void *arg)
{
	const struct client_data *data =
		list_entry(arg, struct client_data, connect);

	stun_put_xor_address(w, STUN_ATTR_XOR_PEER_ADDRESS, &data->peer);
}

static void rest_add(struct culvert_client *client, const union addr *peer)
{
	struct client_rest *rest = &client->rest[client->rest_next];

	client->rest_next = (client->rest_next + 1) % CLIENT_RESTS;
	rest->peer = *peer;
	rest->until_ms = loop_now(client->loop) + CLIENT_REST_MS;
}

static bool rest_holds(const struct culvert_client *client,
		       const union addr *peer)
{
	for (size_t i = 0; i < CLIENT_RESTS; i++)
		if (client->rest[i].until_ms > loop_now(client->loop) &&
		    addr_equal(&client->rest[i].peer, peer))
			return true;
	return false;
}

static void connect_done(struct client_transaction *t,
			 const struct stun_msg *msg,
			 const struct culvert_error *error)
{
	struct client_data *data = list_entry(t, struct client_data, connect);

	if (error) {
		if (error->code == STUN_CODE_CONNECTION_TIMEOUT_OR_FAILURE)
			rest_add(data->client, &data->peer);
		data_fail(data, error);
	} else if (!connection_id_get(msg, &data->id)) {
		data_fail_code(data, -EPROTO, "Connect",
			       "the answer has no connection identifier");
	} else {
		data_dial(data);
	}
}

static bool connect_asked(const struct culvert_client *client,
			  const union addr *peer)
{
	const struct list *pos;

	list_for_each(pos, &client->data) {
		const struct client_data *data =
			list_entry(pos, struct client_data, link);

		if (!data->incoming && data->state == DATA_ASKING &&
		    addr_equal(&data->peer, peer))
			return true;
	}
	return false;
}

int culvert_client_connect(struct culvert_client *client,
			   const struct sockaddr *peer, culvert_connect_fn fn,
			   void *arg)
{
	struct client_data *data;
	union addr addr;
	int err;

	if (client->state != CLIENT_READY)
		return -ENOTCONN;
	if (client_addr_take(&addr, peer) || !fn)
		return -EINVAL;
	loop_update(client->loop);
	if (connect_asked(client, &addr))
		return -EALREADY;
	if (rest_holds(client, &addr))
		return -EAGAIN;
	if (client->data_count >= CLIENT_INFLIGHT_MAX)
		return -ENOBUFS;
	data = data_new(client, &addr);
	if (!data)
		return -ENOMEM;
	data->fn = fn;
	data->arg = arg;
	err = client_transaction_start(&data->connect, STUN_CONNECT,
				       connect_fill,
				       client->options.connect_timeout_ms,
				       connect_done);
	if (err)
		data_free(data);
	return err;
}

void client_data_cancel(struct culvert_client *client, const void *arg)
{
	struct list *pos;

	/* What is under way goes on to its bind, which is closed then: the
	 * server would keep the peer's connection for 30 s otherwise.
	 */
	list_for_each(pos, &client->data) {
		struct client_data *data =
			list_entry(pos, struct client_data, link);

		if (!data->incoming && data->arg == arg)
			data->fn = NULL;
	}
}

/* ---- Incoming ---- */

static void attempt_start(struct client_data *data)
{
	data->client->accepting++;
	list_del(&data->link);
	list_add_tail(&data->link, &data->client->data);
	data_dial(data);
}

static void attempts_next(struct culvert_client *client)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &client->attempts) {
		struct client_data *data =
			list_entry(pos, struct client_data, link);

		if (client->state != CLIENT_READY ||
		    client->accepting >= client->options.accepts_max)
			return;
		if (data->deadline_ms > loop_now(client->loop))
			attempt_start(data);
		else
			data_free(data);
	}
}

void client_data_attempt(struct culvert_client *client,
			 const struct stun_msg *msg)
{
	struct client_data *data;
	struct stun_attr attr;
	union addr peer;
	uint32_t id;

	if (client->state != CLIENT_READY || !client->events.accepted ||
	    stun_check_fingerprint(msg) < 0 || !connection_id_get(msg, &id) ||
	    !stun_find(msg, STUN_ATTR_XOR_PEER_ADDRESS, &attr) ||
	    stun_get_xor_address(msg, &attr, &peer))
		return;
	/* Beyond the limit an attempt is not answered: the server closes the
	 * peer's connection after its 30 s.
	 */
	if (client->data_count >= CLIENT_INFLIGHT_MAX)
		return;
	if (client->events.attempt &&
	    !client->events.attempt(client->arg, &peer.sa))
		return;
	if (client->state != CLIENT_READY)
		return;
	data = data_new(client, &peer);
	if (!data)
		return;
	data->incoming = true;
	data->state = DATA_WAITING;
	data->id = id;
	data->deadline_ms = loop_now(client->loop) + CLIENT_BIND_MS;
	list_del(&data->link);
	list_add_tail(&data->link, &client->attempts);
	attempts_next(client);
}

/* ---- The end ---- */

void client_data_end(struct culvert_client *client,
		     const struct culvert_error *error)
{
	struct list *pos, *tmp;

	/* Without an error nobody is told, and the memory goes later: this may
	 * run inside the callback of one of these.
	 */
	list_for_each_safe(pos, tmp, &client->data) {
		struct client_data *data =
			list_entry(pos, struct client_data, link);

		if (error)
			data_fail(data, error);
		else
			data_close(data);
	}
}

void client_data_free(struct culvert_client *client)
{
	struct list *pos, *tmp;

	list_splice_tail(&client->attempts, &client->data);
	list_for_each_safe(pos, tmp, &client->data)
		data_free(list_entry(pos, struct client_data, link));
}
