/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * DTLS associations.
 *
 *   (nobody -> asked for a cookie ->) handshaking -> open -> over
 *
 * Of who has not shown a cookie nothing is kept: one session serves all of them,
 * is cleared for each datagram, and becomes the association of the first who shows
 * one. A cookie is a digest of the client's addresses and of its ClientHello's
 * random bytes under the listener's own key, good for one to two minutes: it cannot
 * be made, nor used for another address or another ClientHello. Its
 * HelloVerifyRequest is shorter than the shortest ClientHello, so nobody is worth
 * being forged for it.
 *
 * OpenSSL reads and writes datagrams through a BIO of ours, which holds one that
 * has arrived while it is looked at, and hands over each that is to be sent at
 * once. It repeats lost flights when the loop's timer says so; messages of the
 * handshake are cut to what every path carries, and smaller after two repeats.
 * Of messages that come ahead of their time OpenSSL keeps ten, of 17 KiB each at
 * most (see SSL_CTX_set_max_cert_list), and of records of the epoch to come a hundred
 * of that size, of which it gets a few: records_fit(). Whoever lacks his Finished then
 * has it repeated (RFC 6347 4.1 lets such records be discarded).
 */
#include "transport/dtls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/random.h"
#include "base/secret.h"
#include "transport/tls_internal.h"

/* Of a record (RFC 6347 4.1) and of a handshake message in it (4.2.2). */
#define RECORD_HEADER    13
#define RECORD_EPOCH     3
#define RECORD_LENGTH    11
#define RECORD_HANDSHAKE 22
#define CLIENT_HELLO     1
#define HELLO_OFFSET     (RECORD_HEADER + 6) /* 3 bytes: of this fragment */
#define HELLO_RANDOM     (RECORD_HEADER + 12 + 2)
#define RANDOM_LEN       32

/* Records of the next epoch that OpenSSL is given before it begins. */
#define EARLY_MOST 8

#define COOKIE_LEN     20
#define COOKIE_SLOT_MS 60000

/* Bytes of a datagram of the handshake: IPv6's smallest MTU of 1280 with room for a
 * tunnel; then what IPv4 promises of every host.
 */
#define HANDSHAKE_MTU       1200
#define HANDSHAKE_MTU_LEAST 548
#define HEADERS_MAX         48 /* of IPv6 and UDP */
/* RFC 6347 4.2.4.1 would begin with a second; a relay's clients wait for calls. */
#define REPEAT_FIRST_US 500000u
#define REPEAT_MAX_US   60000000u

struct dtls {
	struct tls_server *server;
	SSL *ssl;
	struct loop *loop; /* NULL: nobody's yet */
	const struct dtls_ops *ops;
	void *arg;
	struct dtls_listener *listener; /* NULL: it is somebody's */
	struct timer repeat;
	struct deferred work; /* closed() */
	const uint8_t *in; /* the datagram being looked at */
	size_t in_len;
	uint8_t random[RANDOM_LEN]; /* of its ClientHello */
	uint8_t early; /* records of the next epoch so far, up to EARLY_MOST */
	bool open;
	bool over;
	const char *why;
};

struct dtls_listener {
	dtls_answer_fn answer;
	void *arg;
	uint8_t key[32];
	struct dtls *next; /* the one that nobody has yet; NULL: none */
	BIO_ADDR *unused; /* DTLSv1_listen wants to tell an address */
	/* The ClientHello being looked at. */
	const struct udp_path *path;
	const uint8_t *random;
	bool answered;
};

static int bio_write(BIO *bio, const char *data, int len)
{
	struct dtls *dtls = BIO_get_data(bio);
	struct dtls_listener *listener = dtls->listener;
	const uint8_t *bytes = (const uint8_t *)data;

	BIO_clear_retry_flags(bio);
	if (len <= 0)
		return 0;
	if (listener) {
		listener->answered = true;
		listener->answer(listener->arg, listener->path, bytes,
				 (size_t)len);
	} else {
		dtls->ops->send(dtls->arg, bytes, (size_t)len);
	}
	return len;
}

static int bio_read(BIO *bio, char *out, int len)
{
	struct dtls *dtls = BIO_get_data(bio);
	size_t n = dtls->in_len;

	BIO_clear_retry_flags(bio);
	if (!dtls->in || len <= 0) {
		BIO_set_retry_read(bio);
		return -1;
	}
	/* As of a socket: what does not fit of a datagram is lost. */
	if (n > (size_t)len)
		n = (size_t)len;
	memcpy(out, dtls->in, n);
	dtls->in = NULL;
	return (int)n;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
	(void)bio;
	(void)number;
	(void)pointer;
	switch (command) {
	case BIO_CTRL_FLUSH:
		return 1;
	case BIO_CTRL_DGRAM_QUERY_MTU:
		return HANDSHAKE_MTU;
	case BIO_CTRL_DGRAM_GET_FALLBACK_MTU:
		return HANDSHAKE_MTU_LEAST;
	case BIO_CTRL_DGRAM_GET_MTU_OVERHEAD:
		return HEADERS_MAX;
	default:
		return 0;
	}
}

static BIO_METHOD *bio_method;

static void bio_method_make(void)
{
	BIO_METHOD *method = BIO_meth_new(
		BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "datagram");

	if (!method)
		return;
	BIO_meth_set_write(method, bio_write);
	BIO_meth_set_read(method, bio_read);
	BIO_meth_set_ctrl(method, bio_ctrl);
	bio_method = method;
}

static unsigned int repeat_next(SSL *ssl, unsigned int last_us)
{
	(void)ssl;
	if (!last_us)
		return REPEAT_FIRST_US;
	return last_us < REPEAT_MAX_US / 2 ? 2 * last_us : REPEAT_MAX_US;
}

static uint8_t *cookie_add(uint8_t *at, const union addr *addr)
{
	const uint16_t port = addr_port(addr);
	size_t len;
	const uint8_t *bytes = addr_bytes(addr, &len);

	*at++ = (uint8_t)len;
	if (bytes)
		memcpy(at, bytes, len);
	memcpy(at + len, &port, sizeof(port));
	return at + len + sizeof(port);
}

/* The cookie for the ClientHello being looked at, of that minute. */
static bool cookie_make(const struct dtls_listener *listener, uint64_t slot,
			uint8_t out[COOKIE_LEN])
{
	uint8_t text[sizeof(slot) + 2 * (1 + 16 + 2) + RANDOM_LEN];
	uint8_t digest[EVP_MAX_MD_SIZE], *at = text;
	unsigned int len = 0;

	memcpy(at, &slot, sizeof(slot));
	at = cookie_add(at + sizeof(slot), &listener->path->remote);
	at = cookie_add(at, &listener->path->local);
	memcpy(at, listener->random, RANDOM_LEN);
	at += RANDOM_LEN;
	if (!HMAC(EVP_sha256(), listener->key, sizeof(listener->key), text,
		  (size_t)(at - text), digest, &len))
		return false;
	memcpy(out, digest, COOKIE_LEN);
	return true;
}

static uint64_t cookie_slot(void)
{
	return clock_ms() / COOKIE_SLOT_MS;
}

static int cookie_generate(SSL *ssl, unsigned char *cookie, unsigned int *len)
{
	*len = COOKIE_LEN;
	return cookie_make(SSL_get_app_data(ssl), cookie_slot(), cookie);
}

static int cookie_verify(SSL *ssl, const unsigned char *cookie,
			 unsigned int len)
{
	const struct dtls_listener *listener = SSL_get_app_data(ssl);
	uint8_t right[COOKIE_LEN];
	uint64_t slot = cookie_slot();

	/* Of an association it was verified before there was one. */
	if (!listener)
		return 1;
	for (int age = 0; age < 2; age++)
		if (len == COOKIE_LEN &&
		    cookie_make(listener, slot - (uint64_t)age, right) &&
		    secret_equal(cookie, right, COOKIE_LEN))
			return 1;
	return 0;
}

void dtls_context_init(SSL_CTX *context)
{
	SSL_CTX_set_cookie_generate_cb(context, cookie_generate);
	SSL_CTX_set_cookie_verify_cb(context, cookie_verify);
	/* A datagram ends: whoever sends it cannot keep the worker in it. */
	SSL_CTX_set_mode(context, SSL_MODE_AUTO_RETRY);
}

/* A session that has no client yet. 0 or -ENOMEM. */
static int dtls_new(struct dtls_listener *listener, struct tls_server *server,
		    struct dtls **out)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct dtls *dtls = calloc(1, sizeof(*dtls));
	BIO *bio;

	if (!dtls)
		return -ENOMEM;
	pthread_once(&once, bio_method_make);
	dtls->server = tls_server_ref(server);
	dtls->listener = listener;
	dtls->ssl = SSL_new(tls_server_context(server));
	bio = dtls->ssl && bio_method ? BIO_new(bio_method) : NULL;
	if (!bio) {
		ERR_clear_error();
		dtls_free(dtls);
		return -ENOMEM;
	}
	BIO_set_data(bio, dtls);
	BIO_set_init(bio, 1);
	SSL_set_bio(dtls->ssl, bio, bio);
	SSL_set_app_data(dtls->ssl, listener);
	SSL_set_accept_state(dtls->ssl);
	DTLS_set_timer_cb(dtls->ssl, repeat_next);
	*out = dtls;
	return 0;
}

void dtls_free(struct dtls *dtls)
{
	if (!dtls)
		return;
	if (dtls->loop) {
		timer_cancel(dtls->loop, &dtls->repeat);
		loop_undefer(&dtls->work);
	}
	SSL_free(dtls->ssl);
	tls_server_unref(dtls->server);
	free(dtls);
}

int dtls_listener_new(dtls_answer_fn answer, void *arg,
		      struct dtls_listener **out)
{
	struct dtls_listener *listener = calloc(1, sizeof(*listener));

	if (!listener)
		return -ENOMEM;
	listener->unused = BIO_ADDR_new();
	if (!listener->unused) {
		ERR_clear_error();
		free(listener);
		return -ENOMEM;
	}
	listener->answer = answer;
	listener->arg = arg;
	random_bytes(listener->key, sizeof(listener->key));
	*out = listener;
	return 0;
}

/* The client's ChangeCipherSpec has been read: what is encrypted is of this epoch. */
static bool epoch_changed(const struct dtls *dtls)
{
	OSSL_HANDSHAKE_STATE state = SSL_get_state(dtls->ssl);

	return dtls->open || state == TLS_ST_SR_CHANGE ||
	       state == TLS_ST_SR_FINISHED;
}

/* How much of a datagram OpenSSL may have: up to a record that it should not keep. */
static size_t records_fit(struct dtls *dtls, const uint8_t *data, size_t len)
{
	size_t at = 0;

	while (at + RECORD_HEADER <= len) {
		uint16_t epoch = get_be16(data + at + RECORD_EPOCH);

		/* Nobody changes keys twice: there is no renegotiation. */
		if (epoch > 1)
			return at;
		if (epoch && !epoch_changed(dtls)) {
			if (dtls->early == EARLY_MOST)
				return at;
			dtls->early++;
		}
		at += RECORD_HEADER + get_be16(data + at + RECORD_LENGTH);
	}
	return len;
}

void dtls_listener_free(struct dtls_listener *listener)
{
	if (!listener)
		return;
	dtls_free(listener->next);
	BIO_ADDR_free(listener->unused);
	OPENSSL_cleanse(listener->key, sizeof(listener->key));
	free(listener);
}

/*
 * The random bytes of a ClientHello at the head of a datagram, NULL if it holds none
 * or a piece of one: RFC 6347 4.2.1 wants it whole, for nothing is kept of it.
 */
static const uint8_t *hello_random(const uint8_t *data, size_t len)
{
	if (len < HELLO_RANDOM + RANDOM_LEN || data[0] != RECORD_HANDSHAKE ||
	    get_be16(data + RECORD_EPOCH) != 0 ||
	    data[RECORD_HEADER] != CLIENT_HELLO || data[HELLO_OFFSET] ||
	    get_be16(data + HELLO_OFFSET + 1))
		return NULL;
	return data + HELLO_RANDOM;
}

int dtls_listener_hello(struct dtls_listener *listener,
			struct tls_server *server, const struct udp_path *path,
			const uint8_t *data, size_t len)
{
	struct dtls *next = listener->next;
	int result;

	listener->random = hello_random(data, len);
	if (!listener->random)
		return -EBADMSG;
	if (!next || next->server != server) {
		dtls_free(next);
		listener->next = NULL;
		if (dtls_new(listener, server, &listener->next))
			return -ENOMEM;
		next = listener->next;
	}
	listener->path = path;
	listener->answered = false;
	next->in = data;
	next->early = 0;
	next->in_len = records_fit(next, data, len);
	ERR_clear_error();
	result = DTLSv1_listen(next->ssl, listener->unused);
	ERR_clear_error();
	next->in = NULL;
	if (result == 1) {
		memcpy(next->random, listener->random, RANDOM_LEN);
		return 0;
	}
	/* What stopped it may be with it still. */
	if (result < 0) {
		dtls_free(next);
		listener->next = NULL;
	}
	return listener->answered ? -EAGAIN : -EBADMSG;
}

struct dtls *dtls_accept(struct dtls_listener *listener, struct loop *loop,
			 const struct dtls_ops *ops, void *arg)
{
	struct dtls *dtls = listener->next;

	listener->next = NULL;
	SSL_set_app_data(dtls->ssl, NULL);
	dtls->listener = NULL;
	dtls->loop = loop;
	dtls->ops = ops;
	dtls->arg = arg;
	return dtls;
}

static void closed_deliver(struct deferred *work)
{
	struct dtls *dtls = list_entry(work, struct dtls, work);

	dtls->ops->closed(dtls->arg);
}

static void dtls_end(struct dtls *dtls, const char *why)
{
	dtls->over = true;
	dtls->why = why;
	timer_cancel(dtls->loop, &dtls->repeat);
	loop_defer(dtls->loop, &dtls->work, closed_deliver);
}

static void repeat_due(struct timer *timer);

/* When the flight that was sent last has to be sent again, if it has to. */
static void repeat_arm(struct dtls *dtls)
{
	struct timeval left;

	if (!dtls->over && DTLSv1_get_timeout(dtls->ssl, &left) == 1)
		timer_arm(dtls->loop, &dtls->repeat,
			  (uint64_t)left.tv_sec * 1000 +
				  (uint64_t)left.tv_usec / 1000 + 1,
			  repeat_due);
	else
		timer_cancel(dtls->loop, &dtls->repeat);
}

static void repeat_due(struct timer *timer)
{
	struct dtls *dtls = list_entry(timer, struct dtls, repeat);

	ERR_clear_error();
	if (DTLSv1_handle_timeout(dtls->ssl) < 0)
		dtls_end(dtls, tls_complaint());
	else
		repeat_arm(dtls);
}

static void opened_look(struct dtls *dtls)
{
	if (dtls->open || !SSL_is_init_finished(dtls->ssl))
		return;
	dtls->open = true;
	dtls->ops->opened(dtls->arg);
}

/* Why there is nothing more to read: the datagram is used up, or it is over. */
static void read_judge(struct dtls *dtls, int result)
{
	switch (SSL_get_error(dtls->ssl, result)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		ERR_clear_error();
		break;
	case SSL_ERROR_ZERO_RETURN:
		dtls_end(dtls, NULL);
		break;
	default:
		dtls_end(dtls, tls_complaint());
		break;
	}
}

static void dtls_read(struct dtls *dtls)
{
	uint8_t message[SEAL_RECORD_MAX] BYTES_UNSET;
	size_t len;
	int result = 1;

	while (result == 1 && !dtls->over) {
		ERR_clear_error();
		result = SSL_read_ex(dtls->ssl, message, sizeof(message), &len);
		opened_look(dtls);
		if (dtls->over)
			break;
		if (result == 1)
			dtls->ops->received(dtls->arg, message, len);
		else
			read_judge(dtls, result);
	}
	repeat_arm(dtls);
}

void dtls_begin(struct dtls *dtls)
{
	dtls_read(dtls);
}

void dtls_feed(struct dtls *dtls, const uint8_t *data, size_t len)
{
	if (dtls->over)
		return;
	len = records_fit(dtls, data, len);
	if (!len)
		return;
	dtls->in = data;
	dtls->in_len = len;
	dtls_read(dtls);
	dtls->in = NULL;
}

bool dtls_begins_anew(const struct dtls *dtls, const uint8_t *data, size_t len)
{
	const uint8_t *random = hello_random(data, len);

	return random && memcmp(random, dtls->random, RANDOM_LEN) != 0;
}

int dtls_send(struct dtls *dtls, const uint8_t *data, size_t len)
{
	size_t sent;

	if (dtls->over || !dtls->open)
		return -EPIPE;
	if (len > SEAL_RECORD_MAX)
		return -EMSGSIZE;
	ERR_clear_error();
	if (SSL_write_ex(dtls->ssl, data, len, &sent) == 1)
		return 0;
	ERR_clear_error();
	return -EPIPE;
}

void dtls_close(struct dtls *dtls)
{
	if (dtls->over)
		return;
	ERR_clear_error();
	if (dtls->open)
		SSL_shutdown(dtls->ssl);
	ERR_clear_error();
	dtls_end(dtls, NULL);
}

const char *dtls_why(const struct dtls *dtls)
{
	return dtls->why;
}
