/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A TLS session as a seal.
 *
 *   handshaking (inside recv) -> open -> ended: one way, or both
 *                                     -> failed
 *
 * OpenSSL reads and writes the descriptor itself. It holds one record at most in
 * each way: one that is not whole yet, and one that the socket has not taken yet,
 * so a reader that stands still costs no more than that here. What stays behind of a
 * whole record, because the caller had no room for it, no polling would tell of:
 * seal.more does.
 *
 * How reading has ended is remembered, for what brought the end may have brought
 * bytes before it, and OpenSSL must not be asked again after it has failed.
 *
 * A stream that ends without close_notify has been cut, by whomever: that is an
 * error, never an end of stream (RFC 8446 6.1).
 */
#include "transport/tls.h"

#include <openssl/err.h>
#include <signal.h>
#include <stdlib.h>

#include "base/syscalls.h"
#include "transport/tls_internal.h"

SYSCALLS(SYSCALLS_RELAY, "read write");
SYSCALLS_EQUAL(SYSCALLS_SUPERVISOR | SYSCALLS_RELAY, "rt_sigaction", 0,
	       SIGPIPE);

/*
 * Records that one call of recv takes, so that who sends tiny ones cannot keep the
 * worker; 32 of the largest are 512 KiB.
 */
#define RECORDS_MAX 32

struct session {
	struct seal seal;
	SSL *ssl;
	void *owner;
	void (*release)(void *owner);
	bool stopped; /* reading has ended */
	bool failed; /* writing must not be tried again either */
	bool told; /* the other side, that nothing follows */
	int error; /* of the reading: a negative errno, or 0: in order */
};

static struct session *session_of(struct seal *seal)
{
	return (struct session *)seal; /* its first member */
}

const char *tls_complaint(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_error());

	ERR_clear_error();
	return text ? text : "the connection broke";
}

static int session_fail(struct session *session, int error, const char *why)
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
static int session_judge(struct session *session, int result)
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
		return session_fail(session, saved ? -saved : -ECONNABORTED,
				    "the connection broke");
	default:
		break;
	}
	if (ERR_GET_REASON(ERR_peek_error()) ==
	    SSL_R_UNEXPECTED_EOF_WHILE_READING) {
		ERR_clear_error();
		return session_fail(session, -ECONNABORTED,
				    session->seal.open ?
					    "ended without close_notify" :
					    "ended during the handshake");
	}
	return session_fail(session, -EPROTO, tls_complaint());
}

int tls_handshake(struct seal *seal)
{
	struct session *session = session_of(seal);
	long verified;
	int err;

	ERR_clear_error();
	errno = 0;
	err = SSL_do_handshake(session->ssl);
	seal->open = err == 1;
	if (seal->open)
		return 0;
	verified = SSL_get_verify_result(session->ssl);
	if (ERR_GET_REASON(ERR_peek_error()) ==
	    SSL_R_CERTIFICATE_VERIFY_FAILED) {
		ERR_clear_error();
		return session_fail(session, -ENOKEY,
				    X509_verify_cert_error_string(verified));
	}
	err = session_judge(session, err);
	seal->blocked = err == -EAGAIN && SSL_want_write(session->ssl);
	/* The end of the stream has no place here. */
	return err ? err :
		     session_fail(session, -EPIPE,
				  "ended during the handshake");
}

static ssize_t session_recv(struct seal *seal, void *data, size_t len)
{
	struct session *session = session_of(seal);
	size_t at = 0, n;
	int err = 0;

	seal->blocked = false;
	for (int i = 0; i < RECORDS_MAX && !session->stopped &&
			(!at || len - at >= SEAL_RECORD_MAX);
	     i++) {
		ERR_clear_error();
		errno = 0;
		err = SSL_read_ex(session->ssl, (uint8_t *)data + at, len - at,
				  &n);
		seal->open = seal->open || SSL_is_init_finished(session->ssl);
		if (err != 1) {
			err = session_judge(session, err);
			seal->blocked = err == -EAGAIN &&
					SSL_want_write(session->ssl);
			break;
		}
		at += n;
	}
	seal->more = at && (session->stopped || SSL_pending(session->ssl));
	if (at)
		return (ssize_t)at;
	return session->stopped ? session->error : err;
}

static ssize_t session_send(struct seal *seal, const void *data, size_t len)
{
	struct session *session = session_of(seal);
	size_t at = 0, n;
	int err = 0;

	if (session->failed || session->told)
		return -EPIPE;
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
		return session_fail(session, -EPROTO,
				    "part of a handshake behind the handshake");
	return err < 0 ? err : len ? -EPIPE : 0;
}

static int session_end(struct seal *seal)
{
	struct session *session = session_of(seal);
	int err;

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

static void session_free(struct seal *seal)
{
	struct session *session = session_of(seal);

	SSL_free(session->ssl);
	if (session->release)
		session->release(session->owner);
	free(session);
}

static const struct seal_ops session_ops = {
	.recv = session_recv,
	.send = session_send,
	.end = session_end,
	.free = session_free,
};

/* OpenSSL's writes have no MSG_NOSIGNAL. What the program does with it stays. */
static void sigpipe_ignore(void)
{
	struct sigaction now;

	if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL)
		signal(SIGPIPE, SIG_IGN);
}

void tls_context_init(SSL_CTX *context)
{
	sigpipe_ignore();
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
	struct session *session = calloc(1, sizeof(*session));

	if (!session)
		return -ENOMEM;
	if (SSL_set_fd(ssl, fd) != 1) {
		ERR_clear_error();
		free(session);
		return -ENOMEM;
	}
	session->seal.ops = &session_ops;
	session->ssl = ssl;
	session->owner = owner;
	session->release = release;
	*out = &session->seal;
	return 0;
}
