/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A TLS session as a seal.
 *
 *   handshaking (inside recv) -> open -> ended: one way, or both
 *                                     -> failed
 *
 * OpenSSL reads and writes the descriptor by tls_records.c. It holds one record at
 * most in each way: one that is not whole yet, and one that the socket has not taken yet,
 * so a reader that stands still costs no more than that here. What stays behind of a
 * whole record, because the caller had no room for it, no polling would tell of:
 * seal.more does.
 *
 * How reading has ended is remembered, for what brought the end may have brought
 * bytes before it, and OpenSSL must not be asked again after it has failed.
 *
 * A key of AES-GCM has sealed enough after 2^24.5 full records (RFC 8446 5.5; TLS 1.2
 * says nothing of it, and has the same cipher), of which OpenSSL keeps no count. What
 * was written under it is counted, small records as what they are of a full one; at
 * TLS_KEY_RECORDS a session of TLS 1.3 goes on with the next key, and one of TLS 1.2
 * is over, without an alert: OpenSSL has none to be sent from outside. Keys of the
 * other side are its own to count; its updates are followed.
 *
 * A stream that ends without close_notify has been cut, by whomever: that is an
 * error, never an end of stream (RFC 8446 6.1).
 */
#include "transport/tls.h"

#include <openssl/err.h>
#include <stdlib.h>

#include "transport/tls_internal.h"

/*
 * Records that one call of recv takes, so that who sends tiny ones cannot keep the
 * worker; 32 of the largest are 512 KiB.
 */
#define RECORDS_MAX 32

static struct tls_session *session_of(struct seal *seal)
{
	return (struct tls_session *)seal; /* its first member */
}

const char *tls_complaint(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_error());

	ERR_clear_error();
	return text ? text : "the connection broke";
}

int tls_session_fail(struct tls_session *session, int error, const char *why)
{
	session->stopped = true;
	session->failed = true;
	session->error = error;
	session->seal.why = why;
	return error;
}

/*
 * Why an operation did not succeed: -EAGAIN, or what has become of the session. 0
 * for the end of the stream.
 */
static int session_judge(struct tls_session *session, int result)
{
	int saved = errno;

	switch (SSL_get_error(session->ssl, result)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		session->stopped = true;
		return 0;
	case SSL_ERROR_SYSCALL:
		ERR_clear_error();
		return tls_session_fail(session, saved ? -saved : -ECONNABORTED,
					saved == EMSGSIZE ?
						"a ClientHello beyond 16 KiB" :
						"the connection broke");
	default:
		break;
	}
	if (ERR_GET_REASON(ERR_peek_error()) ==
	    SSL_R_UNEXPECTED_EOF_WHILE_READING) {
		ERR_clear_error();
		return tls_session_fail(session, -ECONNABORTED,
					session->seal.open ?
						"ended without close_notify" :
						"ended during the handshake");
	}
	return tls_session_fail(session, -EPROTO, tls_complaint());
}

/* Did the handshake end? */
static bool session_look(struct tls_session *session)
{
	if (!session->seal.open && SSL_is_init_finished(session->ssl)) {
		session->seal.open = true;
		session->most = tls_keys_most(session->ssl);
	}
	return session->seal.open;
}

int tls_handshake(struct seal *seal)
{
	struct tls_session *session = session_of(seal);
	long verified;
	int err;

	ERR_clear_error();
	errno = 0;
	err = SSL_do_handshake(session->ssl);
	if (session_look(session))
		return 0;
	verified = SSL_get_verify_result(session->ssl);
	if (ERR_GET_REASON(ERR_peek_error()) ==
	    SSL_R_CERTIFICATE_VERIFY_FAILED) {
		ERR_clear_error();
		return tls_session_fail(
			session, -ENOKEY,
			X509_verify_cert_error_string(verified));
	}
	err = session_judge(session, err);
	seal->blocked = err == -EAGAIN && SSL_want_write(session->ssl);
	/* The end of the stream has no place here. */
	return err ? err :
		     tls_session_fail(session, -EPIPE,
				      "ended during the handshake");
}

static ssize_t session_recv(struct seal *seal, void *data, size_t len)
{
	struct tls_session *session = session_of(seal);
	size_t at = 0, n;
	int err = 0;

	seal->blocked = false;
	if (seal->splices)
		return tls_offload_recv(session, data, len);
	for (int i = 0; i < RECORDS_MAX && !session->stopped &&
			(!at || len - at >= SEAL_RECORD_MAX);
	     i++) {
		ERR_clear_error();
		errno = 0;
		err = SSL_read_ex(session->ssl, (uint8_t *)data + at, len - at,
				  &n);
		session_look(session);
		if (err != 1) {
			err = session_judge(session, err);
			seal->blocked = err == -EAGAIN &&
					SSL_want_write(session->ssl);
			break;
		}
		at += n;
	}
	seal->more = at && (session->stopped || SSL_pending(session->ssl));
	if (seal->place == SEAL_IN_KERNEL)
		tls_offload_reading(session);
	if (at)
		return (ssize_t)at;
	return session->stopped ? session->error : err;
}

/* Sees that no key seals too much. 0, or -EKEYEXPIRED: it can have no other. */
static int session_rekey(struct tls_session *session)
{
	const struct tls_socket *socket = &session->socket;
	SSL *ssl = session->ssl;

	if (!session->most ||
	    socket->out.bytes < session->most * SEAL_RECORD_MAX)
		return 0;
	if (SSL_version(ssl) != TLS1_3_VERSION)
		return tls_session_fail(session, -EKEYEXPIRED, TLS_KEY_SPENT);
	/* It goes before the next record, but not before one that is on its way;
	 * while it is on its own, another one is refused.
	 */
	if (!socket->clogged)
		SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
	return 0;
}

static ssize_t session_send(struct seal *seal, const void *data, size_t len)
{
	struct tls_session *session = session_of(seal);
	size_t at = 0, n;
	int err = 0;

	if (session->failed || session->told)
		return -EPIPE;
	if (seal->place == SEAL_IN_KERNEL)
		return tls_offload_send(session, data, len);
	/* An update with nothing behind it would keep the end from being told. */
	err = len ? session_rekey(session) : 0;
	if (err)
		return err;
	while (at < len) {
		ERR_clear_error();
		errno = 0;
		err = SSL_write_ex(session->ssl, (const uint8_t *)data + at,
				   len - at, &n);
		if (err != 1) {
			err = session_judge(session, err);
			break;
		}
		at += n;
	}
	if (at)
		return (ssize_t)at;
	/* In the middle of a message of the handshake nothing can be sent, and
	 * room in the socket, which is polled for, does not help. No client
	 * cuts a key update in two; a renegotiation is refused in any case.
	 */
	if (err == -EAGAIN && SSL_is_server(session->ssl) &&
	    SSL_want_read(session->ssl))
		return tls_session_fail(
			session, -EPROTO,
			"part of a handshake behind the handshake");
	return err < 0 ? err : len ? -EPIPE : 0;
}

static int session_end(struct seal *seal)
{
	struct tls_session *session = session_of(seal);
	int err;

	if (seal->place == SEAL_IN_KERNEL)
		return tls_offload_end(session);
	if (session->told)
		return 0;
	if (session->failed || !seal->open)
		return -EPIPE;
	ERR_clear_error();
	errno = 0;
	/* 0: sent, the other side has not said so yet; nobody waits for it. */
	err = SSL_shutdown(session->ssl);
	session->told = err >= 0;
	return session->told ? 0 : session_judge(session, err);
}

static void session_offload(struct seal *seal)
{
	tls_offload(session_of(seal));
}

static size_t session_unsent(struct seal *seal)
{
	const struct tls_session *session = session_of(seal);

	return seal->place == SEAL_IN_KERNEL ? tls_offload_unsent(session) : 0;
}

void tls_session_forget(struct tls_session *session)
{
	SSL_free(session->ssl);
	session->ssl = NULL;
	OPENSSL_cleanse(&session->secret_in, sizeof(session->secret_in));
	OPENSSL_cleanse(&session->secret_out, sizeof(session->secret_out));
}

static int session_recount(struct seal *seal)
{
	return tls_offload_recount(session_of(seal));
}

static void session_free(struct seal *seal)
{
	struct tls_session *session = session_of(seal);

	tls_session_forget(session);
	if (session->release)
		session->release(session->owner);
	free(session);
}

static const struct seal_ops session_ops = {
	.recv = session_recv,
	.send = session_send,
	.end = session_end,
	.offload = session_offload,
	.recount = session_recount,
	.unsent = session_unsent,
	.free = session_free,
};

/* Each at the moment from which on it is used: the count of records begins. */
static void secret_told(const SSL *ssl, const char *line)
{
	struct tls_session *session = SSL_get_app_data(ssl);
	size_t in = session->secret_in.len, out = session->secret_out.len;

	tls_secret_parse(line, "CLIENT_TRAFFIC_SECRET_0", &session->secret_in);
	tls_secret_parse(line, "SERVER_TRAFFIC_SECRET_0", &session->secret_out);
	if (session->secret_in.len != in)
		tls_track_begin(&session->socket.in);
	if (session->secret_out.len != out)
		tls_track_begin(&session->socket.out);
}

static void message_passed(int sent, int version, int type, const void *data,
			   size_t len, SSL *ssl, void *arg)
{
	struct tls_session *session = SSL_get_app_data(ssl);

	(void)version;
	(void)arg;
	if (type != SSL3_RT_HANDSHAKE || !len ||
	    *(const uint8_t *)data != SSL3_MT_KEY_UPDATE)
		return;
	session->rekeyed = true;
	tls_track_begin(sent ? &session->socket.out : &session->socket.in);
}

void tls_context_count(SSL_CTX *context)
{
	SSL_CTX_set_msg_callback(context, message_passed);
}

void tls_context_tell_secrets(SSL_CTX *context)
{
	SSL_CTX_set_keylog_callback(context, secret_told);
}

void tls_context_init(SSL_CTX *context)
{
	/* What waits to be sent moves about between two attempts. */
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
					  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					  SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_options(context,
			    SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	/* What brings no bytes (a key update) ends a read: polling tells of what
	 * follows. Else who sends nothing else keeps the worker in it.
	 */
	SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY);
}

int tls_seal_new(SSL *ssl, int fd, void *owner, void (*release)(void *owner),
		 struct seal **out)
{
	struct tls_session *session = calloc(1, sizeof(*session));
	BIO *bio;

	if (!session)
		return -ENOMEM;
	session->socket.fd = fd;
	session->socket.server = SSL_is_server(ssl) ? ssl : NULL;
	bio = tls_socket_bio(&session->socket);
	if (!bio) {
		ERR_clear_error();
		free(session);
		return -ENOMEM;
	}
	SSL_set_bio(ssl, bio, bio);
	SSL_set_app_data(ssl, session);
	session->seal.ops = &session_ops;
	session->ssl = ssl;
	session->owner = owner;
	session->release = release;
	*out = &session->seal;
	return 0;
}
