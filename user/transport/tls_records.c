/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * OpenSSL's way to the socket, which counts the records that pass. Whoever takes a
 * session over, the kernel, must know how many have gone each way under the keys
 * in use, and that none is half on its way; OpenSSL tells neither.
 *
 *   between two records -> 5 bytes of header -> its body -> between two records
 *
 * OpenSSL asks for one header or one body at a time, so what it has read ends with
 * a record whenever it has got all it asked for.
 *
 * It believes what the header of a ClientHello says of its length, up to 128 KiB, and
 * has that memory at once. Nobody has shown anything yet by then: a server of ours
 * does not let it see a header that says more than HELLO_MAX.
 */
#include <errno.h>
#include <openssl/err.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/syscalls.h"
#include "transport/tls_internal.h"

SYSCALLS(SYSCALLS_RELAY, "recvfrom sendto");

#define RECORD_KEY_CHANGE 20 /* change_cipher_spec */

/* With key shares of post-quantum kinds and a ticket a real one has 2 to 4 KiB. */
#define HELLO_MAX ((size_t)16384)

static BIO_METHOD *method;

bool tls_track_between(const struct tls_track *track)
{
	return !track->have;
}

void tls_track_begin(struct tls_track *track)
{
	track->records = 0;
	track->bytes = 0;
}

static void record_passed(struct tls_track *track)
{
	track->records++;
	track->bytes += track->have;
	/* In TLS 1.2. */
	if (track->head[0] == RECORD_KEY_CHANGE)
		tls_track_begin(track);
	track->have = 0;
}

void tls_track_feed(struct tls_track *track, const void *data, size_t len)
{
	const uint8_t *at = data;

	while (len) {
		size_t want = track->have < TLS_RECORD_HEAD ?
				      TLS_RECORD_HEAD - track->have :
				      track->left;
		size_t n = len < want ? len : want;
		size_t room = track->have < sizeof(track->head) ?
				      sizeof(track->head) - track->have :
				      0;

		memcpy(track->head + track->have, at, n < room ? n : room);
		if (track->have >= TLS_RECORD_HEAD)
			track->left -= n;
		track->have += n;
		at += n;
		len -= n;
		if (track->have == TLS_RECORD_HEAD)
			track->left = get_be16(track->head + 3);
		if (track->have >= TLS_RECORD_HEAD && !track->left)
			record_passed(track);
	}
}

static int bio_done(BIO *bio, struct tls_track *track, const void *data,
		    ssize_t n, int retry, size_t *done)
{
	BIO_clear_retry_flags(bio);
	*done = n > 0 ? (size_t)n : 0;
	if (n > 0)
		tls_track_feed(track, data, (size_t)n);
	else if (n < 0 && (errno == EAGAIN || errno == EINTR))
		BIO_set_flags(bio, retry | BIO_FLAGS_SHOULD_RETRY);
	return n > 0;
}

/* Is what follows a ClientHello, or part of one? A second one may be asked for. */
static bool hello_awaited(const struct tls_socket *socket)
{
	if (!socket->server || socket->in.have < TLS_RECORD_HEAD ||
	    socket->in.head[0] != TLS_RECORD_HANDSHAKE)
		return false;
	switch (SSL_get_state(socket->server)) {
	case TLS_ST_BEFORE:
	case TLS_ST_SR_CLNT_HELLO:
	case TLS_ST_EARLY_DATA:
		return true;
	default:
		return false;
	}
}

static bool hello_fits(struct tls_messages *hello, const uint8_t *at,
		       size_t len)
{
	while (len) {
		size_t n = 1;

		if (hello->have < sizeof(hello->head)) {
			hello->head[hello->have++] = *at;
			if (hello->have == sizeof(hello->head))
				hello->left = get_be32(hello->head) & 0xffffff;
		} else {
			n = len < hello->left ? len : hello->left;
			hello->left -= n;
		}
		if (hello->left > HELLO_MAX)
			return false;
		if (hello->have == sizeof(hello->head) && !hello->left)
			hello->have = 0;
		at += n;
		len -= n;
	}
	return true;
}

static int bio_read(BIO *bio, char *data, size_t len, size_t *done)
{
	struct tls_socket *socket = BIO_get_data(bio);
	ssize_t n = recv(socket->fd, data, len, 0);

	socket->ended = n == 0;
	if (n > 0 && hello_awaited(socket) &&
	    !hello_fits(&socket->hello, (const uint8_t *)data, (size_t)n)) {
		errno = EMSGSIZE;
		n = -1;
	}
	return bio_done(bio, &socket->in, data, n, BIO_FLAGS_READ, done);
}

static int bio_write(BIO *bio, const char *data, size_t len, size_t *done)
{
	struct tls_socket *socket = BIO_get_data(bio);
	ssize_t n = -1;

	errno = EPIPE;
	if (!socket->deaf)
		n = send(socket->fd, data, len, MSG_NOSIGNAL);
	socket->clogged = n < (ssize_t)len;
	return bio_done(bio, &socket->out, data, n, BIO_FLAGS_WRITE, done);
}

static long bio_ctrl(BIO *bio, int command, long number, void *data)
{
	const struct tls_socket *socket = BIO_get_data(bio);

	(void)number;
	(void)data;
	switch (command) {
	case BIO_CTRL_FLUSH:
		return 1;
	case BIO_CTRL_EOF:
		return socket->ended;
	default:
		return 0;
	}
}

static void method_make(void)
{
	BIO_METHOD *made =
		BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK,
			     "socket, records counted");

	if (made && BIO_meth_set_read_ex(made, bio_read) == 1 &&
	    BIO_meth_set_write_ex(made, bio_write) == 1 &&
	    BIO_meth_set_ctrl(made, bio_ctrl) == 1)
		method = made;
	else
		BIO_meth_free(made);
}

BIO *tls_socket_bio(struct tls_socket *socket)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	BIO *bio;

	pthread_once(&once, method_make);
	bio = method ? BIO_new(method) : NULL;
	if (!bio)
		return NULL;
	BIO_set_data(bio, socket);
	BIO_set_init(bio, 1);
	return bio;
}
