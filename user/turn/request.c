/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From a parsed request to its answer: authentication, unknown attributes, the
 * table of methods, and the one encoder of answers.
 */
#include "turn/request.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "crypto/crypto.h"
#include "turn/access.h"
#include "turn/discovery.h"
#include "turn/excess.h"
#include "turn/mobile.h"
#include "turn/outlet.h"
#include "turn/waiting.h"

#define SOFTWARE "culvert " CULVERT_VERSION

/* Comprehension-required attributes that a request may have, ascending. */
static const uint16_t known[] = {
	STUN_ATTR_MAPPED_ADDRESS,
	STUN_ATTR_USERNAME,
	STUN_ATTR_MESSAGE_INTEGRITY,
	STUN_ATTR_ERROR_CODE,
	STUN_ATTR_UNKNOWN_ATTRIBUTES,
	STUN_ATTR_CHANNEL_NUMBER,
	STUN_ATTR_LIFETIME,
	STUN_ATTR_XOR_PEER_ADDRESS,
	STUN_ATTR_DATA,
	STUN_ATTR_REALM,
	STUN_ATTR_NONCE,
	STUN_ATTR_XOR_RELAYED_ADDRESS,
	STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
	STUN_ATTR_EVEN_PORT,
	STUN_ATTR_REQUESTED_TRANSPORT,
	STUN_ATTR_DONT_FRAGMENT,
	STUN_ATTR_ACCESS_TOKEN,
	STUN_ATTR_MESSAGE_INTEGRITY_SHA256,
	STUN_ATTR_PASSWORD_ALGORITHM,
	STUN_ATTR_USERHASH,
	STUN_ATTR_XOR_MAPPED_ADDRESS,
	STUN_ATTR_RESERVATION_TOKEN,
	STUN_ATTR_CONNECTION_ID,
};

/* A method that is not here is still authenticated before it gets its 400. */
static int method_unknown(struct request *req)
{
	(void)req;
	return STUN_CODE_BAD_REQUEST;
}

struct method {
	uint16_t method;
	bool open; /* needs no credentials */
	int (*handle)(struct request *req);
};

static const struct method methods[] = {
	{ STUN_BINDING, true, turn_binding },
	{ STUN_ALLOCATE, false, turn_allocate },
	{ STUN_REFRESH, false, turn_refresh },
	{ STUN_CREATE_PERMISSION, false, turn_create_permission },
	{ STUN_CHANNEL_BIND, false, turn_channel_bind },
	{ STUN_CONNECT, false, turn_connect },
	{ STUN_CONNECTION_BIND, false, turn_connection_bind },
};

static const struct method other_method = { 0, false, method_unknown };

static const struct method *method_find(uint16_t method)
{
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		if (methods[i].method == method)
			return &methods[i];
	return &other_method;
}

void turn_answer_begin(struct stun_writer *w, uint8_t *buf,
		       enum stun_class class, const struct transaction *tx)
{
	stun_begin(w, buf, TURN_ANSWER_MAX, class, tx->method, tx->txid);
}

ssize_t turn_answer_end(struct stun_writer *w, const struct transaction *tx,
			const struct turn_worker *worker)
{
	/* Who is not known may be somebody else's victim: not a byte more
	 * than must be.
	 */
	if (turn_conf(worker)->software && (tx->authenticated || !tx->datagram))
		stun_put_string(w, STUN_ATTR_SOFTWARE, SOFTWARE);
	if (tx->authenticated && tx->sha256)
		stun_put_integrity_sha256(w, tx->key.bytes, tx->key.len);
	else if (tx->authenticated)
		stun_put_integrity(w, tx->key.bytes, tx->key.len);
	if (tx->fingerprint)
		stun_put_fingerprint(w);
	return stun_end(w);
}

static void answer_withheld(const struct client *client,
			    enum turn_excess_limit limit)
{
	bool network = limit == TURN_EXCESS_NETWORK;
	struct turn_worker *worker = client->worker;
	char remote[ADDR_STRLEN];
	uint64_t suppressed;

	worker->counters.answers_withheld++;
	if (turn_worker_may_log(worker, TURN_LOG_REFLECTION, &suppressed))
		log_warn(ROOM,
			 "event=answers_withheld client=%s limit=%s "
			 "hint=\"many requests without credentials, perhaps "
			 "forged, come from %s\" suppressed=%ju",
			 addr_format(&client->remote, remote),
			 network ? "reflection" : "reflection_total",
			 network ? "this network" : "many networks",
			 (uintmax_t)suppressed);
}

/* A datagram's source may be forged until credentials, or an allocation, tell. */
static bool answer_allowed(const struct client *client,
			   const struct transaction *tx, size_t len)
{
	struct turn_worker *worker = client->worker;
	const struct turn_excess_ask ask = {
		.to = &client->remote,
		.request = tx->request_len,
		.answer = len,
		.rate = turn_limits(worker)->reflection,
		.rate_all = turn_limits(worker)->reflection_total,
	};
	enum turn_excess_limit limit;

	if (!tx->datagram || tx->authenticated || client->allocation ||
	    len <= tx->request_len)
		return true;
	limit = turn_excess_take(worker->shared->excess, &ask,
				 loop_now(worker->loop));
	if (limit)
		answer_withheld(client, limit);
	return !limit;
}

void turn_answer_send(struct client *client, struct stun_writer *w,
		      const struct transaction *tx)
{
	ssize_t len = turn_answer_end(w, tx, client->worker);

	/* Without an answer the client could only wait: let it notice. */
	if (len < 0)
		turn_client_close(client, STREAM_CLOSE_ERROR);
	else if (answer_allowed(client, tx, (size_t)len))
		turn_client_send(client, w->buf, (size_t)len);
}

/* Whom a nonce is for: a source that may be forged is bound to its own. */
static const union addr *nonce_host(const struct client *client)
{
	return turn_client_connected(client) ? NULL : &client->remote;
}

void turn_answer_error_begin(struct stun_writer *w, uint8_t *buf,
			     const struct client *client,
			     const struct transaction *tx, int code)
{
	turn_answer_begin(w, buf, STUN_ERROR, tx);
	client->worker->counters.errors_answered++;
	stun_put_error(w, code);
	/* These two tell how to authenticate (RFC 8489 9.2.4). */
	if (code == STUN_CODE_UNAUTHENTICATED || code == STUN_CODE_STALE_NONCE)
		auth_challenge_put(client->worker->settings->auth,
				   client->listener->realm, clock_wall(),
				   nonce_host(client), w);
}

ssize_t turn_answer_error_write(struct client *client,
				const struct transaction *tx, int code,
				uint8_t buf[TURN_ANSWER_MAX])
{
	struct stun_writer w;

	turn_answer_error_begin(&w, buf, client, tx, code);
	return turn_answer_end(&w, tx, client->worker);
}

void turn_answer_error(struct client *client, const struct transaction *tx,
		       int code)
{
	uint8_t buf[TURN_ANSWER_MAX];
	struct stun_writer w;

	turn_answer_error_begin(&w, buf, client, tx, code);
	turn_answer_send(client, &w, tx);
}

/* Puts UNKNOWN-ATTRIBUTES and answers 420 if there are any. */
static bool unknown_refused(struct request *req)
{
	uint16_t types[TURN_UNKNOWN_MAX];
	uint8_t buf[TURN_ANSWER_MAX];
	struct stun_writer w;
	size_t count = stun_unknown(req->msg, known,
				    sizeof(known) / sizeof(known[0]), types,
				    TURN_UNKNOWN_MAX);

	count = turn_discovery_known(req, types, count);
	if (!count)
		return false;
	turn_answer_error_begin(&w, buf, req->client, &req->tx,
				STUN_CODE_UNKNOWN_ATTRIBUTE);
	stun_put_unknown(&w, types, count);
	turn_answer_send(req->client, &w, &req->tx);
	return true;
}

static enum auth_guard_kind guard_kind(const struct request *req)
{
	if (!turn_client_connected(req->client))
		return AUTH_GUARD_DATAGRAM;
	return req->msg->method == STUN_CONNECTION_BIND ? AUTH_GUARD_BIND :
							  AUTH_GUARD_CONNECTION;
}

/* Does it bring credentials from where too many wrong ones came from? */
static bool credentials_limited(const struct request *req)
{
	struct turn_worker *worker = req->worker;

	if (!req->msg->integrity_at && !req->msg->integrity_sha256_at)
		return false;
	return !auth_guard_allows(worker->shared->guard, &req->client->remote,
				  guard_kind(req),
				  turn_limits(worker)->auth_failures,
				  loop_now(worker->loop));
}

/* No answer: it would tell whether the guess was right. */
static int credentials_ignored(struct request *req)
{
	req->worker->counters.auth_limited++;
	turn_client_close(req->client, STREAM_CLOSE_PROTOCOL);
	return TURN_LATER;
}

static void credentials_failed(struct request *req)
{
	struct turn_worker *worker = req->worker;
	const struct client *client = req->client;
	unsigned int limit = turn_limits(worker)->auth_failures;
	char remote[ADDR_STRLEN];
	uint64_t suppressed;

	worker->counters.auth_failures++;
	if (auth_guard_failed(worker->shared->guard, &client->remote,
			      guard_kind(req), limit, loop_now(worker->loop)) &&
	    turn_worker_may_log(worker, TURN_LOG_GUESSES, &suppressed))
		log_warn(ROOM,
			 "event=guessing client=%s failures=%u suppressed=%ju",
			 addr_format(&client->remote, remote), limit,
			 (uintmax_t)suppressed);
}

/*
 * As auth_check, with the user database's answer when there is one. When that must
 * be asked first *code is TURN_LATER, or what to answer; otherwise 0.
 */
static int identify(struct request *req, const struct allocation *allocation,
		    struct auth_identity *identity, int *code)
{
	struct turn_worker *worker = req->worker;
	struct store_ask fresh = { 0 };
	struct store_ask *ask = worker->answer ? worker->answer : &fresh;
	const struct auth_session session = {
		.account = allocation ? allocation->account : NULL,
		.token = allocation ? allocation->token_account : NULL,
		.key = allocation ? &allocation->token_key : NULL,
		.until_s = allocation ? allocation->until_s : 0,
	};
	int err = auth_check(worker->settings->auth, req->msg, clock_wall(),
			     nonce_host(req->client),
			     session.until_s ? &session : NULL, ask, identity);

	*code = err == -EAGAIN ? turn_waiting_new(req, &ask->key) : 0;
	crypto_wipe(&fresh.user, sizeof(fresh.user));
	return err;
}

/*
 * Who sent it? 0, TURN_LATER when it is ignored or waits, or the code to answer.
 * Where too many wrong credentials came from, only the owner of this client's
 * allocation is heard: he does not suffer for others behind his address, or in his
 * name, and tells nobody whether a guess was right.
 */
static int authenticate(struct request *req)
{
	const struct allocation *allocation = req->client->allocation;
	bool limited = credentials_limited(req);
	struct auth_identity identity;
	int err, code = 0;

	if (limited && !allocation)
		return credentials_ignored(req);
	if (req->msg->method == STUN_CONNECTION_BIND)
		code = turn_bind_session(req, &allocation);
	if (code)
		return code;
	err = identify(req, allocation, &identity, &code);
	if (code)
		return code;
	/*
	 * 438 tells that the key was right. On a connection, which ends with a
	 * wrong one, that is no way to guess; with datagrams it would be.
	 */
	if (limited && err != -EHOSTDOWN &&
	    !(err == -EKEYEXPIRED && turn_client_connected(req->client)) &&
	    (err || identity.account != allocation->account)) {
		if (!err)
			auth_account_unref(identity.account);
		return credentials_ignored(req);
	}
	switch (err) {
	case 0:
		break;
	case -ENOKEY:
		return STUN_CODE_UNAUTHENTICATED;
	case -EBADMSG:
		return STUN_CODE_BAD_REQUEST;
	case -EKEYEXPIRED:
		return STUN_CODE_STALE_NONCE;
	case -EKEYREJECTED:
		credentials_failed(req);
		return STUN_CODE_UNAUTHENTICATED;
	default:
		return STUN_CODE_SERVER_ERROR;
	}
	req->account = identity.account;
	req->tx.authenticated = true;
	req->tx.key = identity.key;
	req->tx.sha256 = identity.sha256;
	req->expired = identity.expired;
	req->until_s = identity.until_s;
	crypto_wipe(&identity, sizeof(identity));
	/* A connection lives on by credentials that are good for something. */
	if (!req->expired)
		turn_client_authenticated(req->client);
	return 0;
}

/* 0 or TURN_LATER when it has been answered, or a code to answer. */
static int request_process(struct request *req, const struct method *method,
			   uint8_t buf[TURN_ANSWER_MAX])
{
	int code = method->open ? 0 : authenticate(req);

	if (code)
		return code;
	/* After the credentials: who has none learns nothing (RFC 8489
	 * 9.2.4).
	 */
	if (unknown_refused(req))
		return TURN_LATER;
	turn_answer_begin(&req->answer, buf, STUN_SUCCESS, &req->tx);
	return method->handle(req);
}

void turn_request_handle(struct client *client, const struct stun_msg *msg)
{
	struct request req = {
		.worker = client->worker,
		.client = client,
		.msg = msg,
		.tx = { .method = msg->method,
			.fingerprint = msg->fingerprint_at != 0,
			.datagram = !turn_client_connected(client),
			.request_len = msg->len },
	};
	uint8_t buf[TURN_ANSWER_MAX];
	int code;

	memcpy(req.tx.txid, msg->txid, sizeof(req.tx.txid));
	client->worker->counters.requests += !client->worker->answer;
	client->fingerprint = req.tx.fingerprint;
	code = request_process(&req, method_find(msg->method), buf);
	if (code > 0)
		turn_answer_error(req.client, &req.tx, code);
	else if (code == 0)
		turn_answer_send(req.client, &req.answer, &req.tx);
	auth_account_unref(req.account);
	crypto_wipe(&req.tx, sizeof(req.tx));
}

int turn_request_allocation(const struct request *req, struct allocation **out)
{
	struct allocation *allocation = req->client->allocation;

	if (!allocation)
		return STUN_CODE_ALLOCATION_MISMATCH;
	if (allocation->account != req->account)
		return STUN_CODE_WRONG_CREDENTIALS;
	if (!stun_has(req->msg, STUN_ATTR_MOBILITY_TICKET))
		turn_mobile_confirm(req->client);
	*out = allocation;
	return 0;
}

int turn_request_peer(const struct request *req,
		      const struct allocation *allocation,
		      const struct stun_attr *attr, union addr *out)
{
	union addr peer;

	if (stun_get_xor_address(req->msg, attr, &peer))
		return STUN_CODE_BAD_REQUEST;
	if (!turn_outlet_of(allocation, addr_family(&peer)))
		return STUN_CODE_PEER_ADDRESS_FAMILY_MISMATCH;
	*out = peer;
	return 0;
}

int turn_request_peer_port(const struct request *req,
			   const struct allocation *allocation, union addr *out)
{
	struct stun_attr attr;
	union addr peer;
	int code;

	if (!stun_find(req->msg, STUN_ATTR_XOR_PEER_ADDRESS, &attr))
		return STUN_CODE_BAD_REQUEST;
	code = turn_request_peer(req, allocation, &attr, &peer);
	if (code)
		return code;
	if (!addr_port(&peer))
		return STUN_CODE_BAD_REQUEST;
	if (!turn_access_allows(allocation, &peer))
		return STUN_CODE_FORBIDDEN;
	*out = peer;
	return 0;
}

int turn_request_lifetime(const struct request *req, bool zero,
			  uint64_t *out_ms)
{
	const struct conf_limits *limits = turn_limits(req->worker);
	uint64_t wanted = limits->default_lifetime_ms;
	struct stun_attr attr;
	uint32_t seconds;
	uint64_t now_s;

	if (stun_find(req->msg, STUN_ATTR_LIFETIME, &attr)) {
		if (stun_get_u32(&attr, &seconds))
			return STUN_CODE_BAD_REQUEST;
		if (zero && seconds == 0) {
			*out_ms = 0;
			return 0;
		}
		if ((uint64_t)seconds * 1000 > wanted)
			wanted = (uint64_t)seconds * 1000;
	}
	if (wanted > limits->max_lifetime_ms)
		wanted = limits->max_lifetime_ms;
	/* RFC 7635 8: no longer than the token. */
	now_s = clock_wall();
	if (req->until_s && req->until_s > now_s &&
	    wanted > (req->until_s - now_s) * 1000)
		wanted = (req->until_s - now_s) * 1000;
	*out_ms = wanted;
	return 0;
}

int turn_request_in_time(const struct request *req)
{
	if (!req->expired)
		return 0;
	req->worker->counters.auth_expired++;
	return STUN_CODE_UNAUTHENTICATED;
}

int turn_request_family(const struct request *req, sa_family_t *out)
{
	struct stun_attr attr;

	*out = AF_UNSPEC;
	if (!stun_find(req->msg, STUN_ATTR_REQUESTED_ADDRESS_FAMILY, &attr))
		return 0;
	if (attr.len != 4)
		return STUN_CODE_BAD_REQUEST;
	switch (attr.value[0]) {
	case STUN_FAMILY_IPV4:
		*out = AF_INET;
		return 0;
	case STUN_FAMILY_IPV6:
		*out = AF_INET6;
		return 0;
	default:
		return STUN_CODE_ADDRESS_FAMILY_NOT_SUPPORTED;
	}
}
