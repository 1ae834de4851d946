/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sessions that the kernel takes over from OpenSSL, each way by itself.
 *
 *   OpenSSL both ways -> the kernel seals -> the kernel unseals, too
 *
 * The first step needs that nothing waits to be sent; the second that no record
 * has been read in part, so it comes with a recv that leaves none. Until then
 * OpenSSL reads on, what it holds goes first, and nothing is lost. It must not
 * write any more: two writers under one key would use a nonce twice. With the
 * second step OpenSSL's session is gone.
 *
 * Whatever refuses a step leaves that way to OpenSSL.
 *
 * What the kernel does not do by itself:
 * - It cannot change keys before Linux 6.14: a key update of the other side is an
 *   error, for its state cannot be given back to OpenSSL. Since then it stops at the
 *   update (EKEYEXPIRED) and takes new keys from setsockopt(2). They would have to
 *   be derived here, from secrets kept for as long as the connection lasts, in both
 *   ways, with the answer ordered among what is spliced; no kernel here has been seen
 *   to do it. So it stays an error. So is a renegotiation.
 * - For the same reason a key that has sealed enough is an end, too (tls.c says when
 *   it is). The kernel has the exact number of records, but asking costs a system
 *   call: what is written counts as so many records as it may have become, and when
 *   these could be too many, the kernel is asked.
 * - A sealed record may have been taken by it and not yet by TCP, when there was
 *   no room. shutdown(2) and close(2) would cut it off, and SIOCOUTQ does not
 *   count it. But its bytes can be counted: see tls_offload_unsent.
 * - Linux sent an alert as data when it came behind a record that was not complete
 *   and did not fit, up to 6.17: so the end waits until all has gone.
 */
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/syscalls.h"
#include "transport/tls_internal.h"

SYSCALLS(SYSCALLS_RELAY, "getsockopt sendto");

#define TCP_CLOSE     7 /* of netinet/tcp.h, whose tcp_info is too old */
#define RECORDS_LEFT  128 /* of these few no more are begun */
#define LOOKS_MAX     16 /* at two counts that go together */
#define ALERT_WARNING 1
#define ALERT_FATAL   2
#define KEY_UPDATE    24 /* a message of TLS 1.3's handshake */

/* Is this session one that can be gone on with elsewhere? */
static enum seal_place state_judge(const struct tls_session *session)
{
	const SSL_SESSION *agreed = SSL_get_session(session->ssl);

	if (!SSL_is_server(session->ssl) || session->rekeyed)
		return SEAL_KEPT_KEYS;
	/* The kernel's records have 16 KiB. */
	if (SSL_SESSION_get_max_fragment_length(agreed) !=
	    TLSEXT_max_fragment_length_DISABLED)
		return SEAL_KEPT_RECORDS;
	if (!session->seal.open || SSL_in_init(session->ssl) ||
	    session->stopped || session->failed || session->told ||
	    SSL_pending(session->ssl) || session->socket.clogged ||
	    !tls_track_between(&session->socket.out))
		return SEAL_KEPT_STATE;
	return SEAL_IN_KERNEL;
}

/* Bytes acknowledged since the connection was made; false: it is closed. */
static bool bytes_acked(int fd, uint64_t *out)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ||
	    info.tcpi_state == TCP_CLOSE)
		return false;
	*out = info.tcpi_bytes_acked;
	return true;
}

/*
 * Bytes that ever came into TCP's send queue, exactly: 0, -EAGAIN when
 * acknowledgements kept coming between the looks, or -ENOTCONN.
 */
static int bytes_entered(int fd, uint64_t *out)
{
	uint64_t before, after, queued;

	for (int i = 0; i < LOOKS_MAX; i++) {
		if (!bytes_acked(fd, &before))
			return -ENOTCONN;
		queued = fd_unsent(fd);
		if (!bytes_acked(fd, &after))
			return -ENOTCONN;
		*out = before + queued;
		if (before == after)
			return 0;
	}
	return -EAGAIN;
}

/* What a record has beyond its data. */
static size_t record_overhead(const struct tls_keys *keys)
{
	const size_t tag = 16;

	if (keys->version == TLS1_3_VERSION)
		return TLS_RECORD_HEAD + 1 + tag;
	if (keys->cipher == TLS_CIPHER_CHACHA20_POLY1305)
		return TLS_RECORD_HEAD + tag;
	return TLS_RECORD_HEAD + TLS_NONCE_LEN + tag;
}

/* Gives the kernel a socket and the keys to write with. */
static enum seal_place keys_install(struct tls_session *session,
				    const struct tls_keys *keys)
{
	struct tls_moved *moved = &session->moved;
	const int fd = session->socket.fd;
	int err = tls_kernel_begin(fd);

	if (err)
		return err == -ENOENT   ? SEAL_KEPT_ABSENT :
		       err == -ENOTCONN ? SEAL_KEPT_STATE :
					  SEAL_KEPT_ERROR;
	moved->cipher = keys->cipher;
	moved->overhead = record_overhead(keys);
	moved->records = keys->records;
	if (bytes_entered(fd, &moved->entered))
		return SEAL_KEPT_STATE;
	err = tls_kernel_install(fd, false, keys);
	if (err)
		return err == -ENOENT ? SEAL_KEPT_CIPHER : SEAL_KEPT_ERROR;
	session->seal.most = session->most;
	session->seal.records = keys->records;
	return SEAL_IN_KERNEL;
}

void tls_offload_reading(struct tls_session *session)
{
	struct tls_keys keys;
	int err;

	if (session->stopped || session->rekeyed || session->moved.stays ||
	    SSL_pending(session->ssl) ||
	    !tls_track_between(&session->socket.in))
		return;
	err = tls_keys_find(session->ssl, &session->secret_in,
			    &session->socket.in, true, &keys);
	if (!err)
		err = tls_kernel_install(session->socket.fd, true, &keys);
	OPENSSL_cleanse(&keys, sizeof(keys));
	session->moved.stays = err;
	if (err)
		return;
	session->seal.splices = true;
	tls_session_forget(session);
}

void tls_offload(struct tls_session *session)
{
	enum seal_place place = state_judge(session);
	struct tls_keys keys = { 0 };
	int err = 0;

	if (place == SEAL_IN_KERNEL)
		err = tls_keys_find(session->ssl, &session->secret_out,
				    &session->socket.out, false, &keys);
	if (err)
		place = err == -ESTALE ? SEAL_KEPT_KEYS : SEAL_KEPT_CIPHER;
	if (place == SEAL_IN_KERNEL)
		place = keys_install(session, &keys);
	OPENSSL_cleanse(&keys, sizeof(keys));
	session->seal.place = place;
	if (place != SEAL_IN_KERNEL)
		return;
	session->socket.deaf = true;
	tls_offload_reading(session);
}

static int alert_send(struct tls_session *session, uint8_t level,
		      uint8_t description)
{
	const uint8_t alert[] = { level, description };
	int err = tls_kernel_alert(session->socket.fd, alert);

	if (!err)
		session->moved.sent += sizeof(alert);
	return err;
}

/* The other side hears why, if there is room for it and it would go as an alert. */
static ssize_t refuse(struct tls_session *session, uint8_t alert, int error,
		      const char *why)
{
	if (!tls_offload_unsent(session))
		alert_send(session, ALERT_FATAL, alert);
	return tls_session_fail(session, error, why);
}

static ssize_t alert_take(struct tls_session *session, const uint8_t *data,
			  size_t len)
{
	struct tls_moved *moved = &session->moved;
	const uint8_t *alert = moved->alert;

	if (len > sizeof(moved->alert) - moved->alert_len)
		return refuse(session, SSL_AD_DECODE_ERROR, -EPROTO,
			      "a broken alert");
	memcpy(moved->alert + moved->alert_len, data, len);
	moved->alert_len += len;
	if (moved->alert_len < sizeof(moved->alert))
		return -EAGAIN;
	moved->alert_len = 0;
	if (alert[1] == SSL_AD_CLOSE_NOTIFY) {
		session->stopped = true;
		return 0;
	}
	if (alert[0] == ALERT_WARNING)
		return -EAGAIN;
	return tls_session_fail(session, -ECONNRESET,
				SSL_alert_desc_string_long(alert[1]));
}

/* A record that is no data. */
static ssize_t control_take(struct tls_session *session, uint8_t type,
			    const uint8_t *data, size_t len)
{
	if (type == TLS_RECORD_ALERT)
		return alert_take(session, data, len);
	if (type == TLS_RECORD_HANDSHAKE && len && data[0] == KEY_UPDATE)
		return refuse(session, SSL_AD_INTERNAL_ERROR, -EPROTO,
			      "a key update, which the kernel cannot follow");
	return refuse(session, SSL_AD_UNEXPECTED_MESSAGE, -EPROTO,
		      "a record that has no place here");
}

ssize_t tls_offload_recv(struct tls_session *session, void *data, size_t len)
{
	uint8_t type;
	ssize_t n;

	if (session->stopped)
		return session->error;
	n = tls_kernel_recv(session->socket.fd, data, len, &type);
	if (n == -EAGAIN || n == -EINTR)
		return n;
	if (n == -EBADMSG || n == -EMSGSIZE || n == -EINVAL)
		return refuse(session, SSL_AD_BAD_RECORD_MAC, -EPROTO,
			      "a record that cannot be decrypted");
	if (n < 0)
		return tls_session_fail(session, (int)n,
					"the connection broke");
	if (type != TLS_RECORD_DATA)
		return control_take(session, type, data, (size_t)n);
	if (!n)
		return tls_session_fail(session, -ECONNABORTED,
					"ended without close_notify");
	return n;
}

int tls_offload_recount(struct tls_session *session)
{
	const uint16_t cipher = session->moved.cipher;
	uint64_t records;
	int err;

	if (session->failed)
		return -EPIPE;
	err = tls_kernel_records(session->socket.fd, cipher, &records);
	if (err)
		return err;
	if (records + RECORDS_LEFT >= session->most)
		return (int)refuse(session, SSL_AD_INTERNAL_ERROR, -EKEYEXPIRED,
				   TLS_KEY_SPENT);
	session->seal.records = 0;
	session->seal.most = session->most - records - RECORDS_LEFT;
	return 0;
}

ssize_t tls_offload_send(struct tls_session *session, const void *data,
			 size_t len)
{
	int err = seal_ready(&session->seal);
	ssize_t n;

	if (err)
		return err;
	n = send(session->socket.fd, data, len, MSG_NOSIGNAL);
	if (n < 0)
		return -errno;
	session->moved.sent += (uint64_t)n;
	seal_wrote(&session->seal, (size_t)n);
	return n;
}

/*
 * All that was given to the kernel, sealed or not, against what TCP has of it: each
 * record that the kernel has counted is longer than its data by the same number.
 */
size_t tls_offload_unsent(const struct tls_session *session)
{
	const struct tls_moved *moved = &session->moved;
	uint64_t given = moved->sent + session->seal.spliced;
	uint64_t records, entered;
	int err =
		tls_kernel_records(session->socket.fd, moved->cipher, &records);

	if (!err)
		err = bytes_entered(session->socket.fd, &entered);
	if (err)
		return err == -EAGAIN;
	given += (records - moved->records) * moved->overhead;
	entered -= moved->entered;
	return given > entered ? (size_t)(given - entered) : 0;
}

int tls_offload_end(struct tls_session *session)
{
	int err;

	if (session->failed)
		return -EPIPE;
	if (tls_offload_unsent(session))
		return -EAGAIN;
	if (session->told)
		return 0;
	err = alert_send(session, ALERT_WARNING, SSL_AD_CLOSE_NOTIFY);
	if (err)
		return err;
	session->told = true;
	return tls_offload_unsent(session) ? -EAGAIN : 0;
}
