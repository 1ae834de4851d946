/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * TLS as a seal and under message streams. The other side is OpenSSL itself, on a
 * real socket; both sides are moved by turns, so nothing waits.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/clock.h"
#include "base/fd.h"
#include "transport/transport.h"
#include "unit/failalloc.h"
#include "unit/tls_rig.h"
#include "unit/until.h"

static struct identity ours, other;
static struct loop *loop;

static int group_setup(void **state)
{
	struct tls_fault fault;

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	identity_make(&ours, "relay.test");
	identity_make(&other, "other.test");
	return server_make(&ours.pair, 1, CIPHERS, &fault, &server);
}

static int group_teardown(void **state)
{
	(void)state;
	tls_server_unref(server);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return loop_new(&loop);
}

static int teardown(void **state)
{
	(void)state;
	loop_free(loop);
	return 0;
}

static void faults_name_the_part(void **state)
{
	struct tls_pair pair = ours.pair, pairs[2] = { ours.pair, ours.pair };
	struct tls_server *made;
	struct tls_fault fault;

	(void)state;
	pair.certificate_len = 40;
	assert_int_equal(server_make(&pair, 1, CIPHERS, &fault, &made),
			 -EINVAL);
	assert_int_equal(fault.part, TLS_PART_CERTIFICATE);
	pair = ours.pair;
	pair.key_len = 0;
	assert_int_equal(server_make(&pair, 1, CIPHERS, &fault, &made),
			 -EINVAL);
	assert_int_equal(fault.part, TLS_PART_KEY);
	pairs[1].key = other.key;
	pairs[1].key_len = strlen(other.key);
	assert_int_equal(server_make(pairs, 2, CIPHERS, &fault, &made),
			 -EINVAL);
	assert_int_equal(fault.part, TLS_PART_KEY);
	assert_int_equal(fault.pair, 1);
	assert_string_equal(fault.text,
			    "the key does not belong to the certificate");
	assert_int_equal(server_make(&ours.pair, 1, "NONE", &fault, &made),
			 -EINVAL);
	assert_int_equal(fault.part, TLS_PART_CIPHERS);
	assert_int_equal(ERR_peek_error(), 0);
}

/* A certificate's text may be cut, or have anything behind it. */
static void every_cut_of_a_certificate_is_refused(void **state)
{
	char text[2 * PEM_ROOM];
	struct tls_pair pair = ours.pair;
	struct tls_server *made;
	struct tls_fault fault;

	(void)state;
	for (size_t len = 0; len + 2 < ours.pair.certificate_len; len += 7) {
		pair.certificate_len = len;
		assert_int_equal(server_make(&pair, 1, CIPHERS, &fault, &made),
				 -EINVAL);
		assert_int_equal(fault.part, TLS_PART_CERTIFICATE);
	}
	snprintf(text, sizeof(text), "%s%.300s", ours.certificate,
		 other.certificate);
	pair.certificate = text;
	pair.certificate_len = strlen(text);
	assert_int_equal(server_make(&pair, 1, CIPHERS, &fault, &made),
			 -EINVAL);
	snprintf(text, sizeof(text), "%s%s", ours.certificate,
		 other.certificate);
	pair.certificate_len = strlen(text);
	assert_int_equal(server_make(&pair, 1, CIPHERS, &fault, &made), 0);
	assert_true(tls_server_expires(made, 0) > (int64_t)clock_wall());
	tls_server_unref(made);
}

/* Sends what the far side reads bit by bit; nothing is lost, doubled or early. */
static void back_pressure(int version)
{
	static uint8_t data[300000], got[300000];
	struct both both;
	size_t sent = 0, have = 0, n;
	bool stopped = false;
	ssize_t went;

	both_join(&both, version);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + i / 251);
	while (have < sizeof(data)) {
		went = seal_send(both.seal, both.fd, data + sent,
				 sizeof(data) - sent);
		stopped = stopped || went == -EAGAIN;
		assert_true(went >= 0 || went == -EAGAIN);
		sent += went > 0 ? (size_t)went : 0;
		if (SSL_read_ex(both.ssl, got + have, 5000, &n) == 1)
			have += n;
	}
	assert_true(stopped);
	assert_memory_equal(got, data, sizeof(data));
	both_close(&both);
}

static void writes_under_back_pressure(void **state)
{
	(void)state;
	back_pressure(TLS1_2_VERSION);
	back_pressure(TLS1_3_VERSION);
}

/* Nothing follows the end, but the other direction goes on. */
static void ends_each_way_by_itself(void **state)
{
	uint8_t data[SEAL_RECORD_MAX];
	struct both both;
	size_t n;

	(void)state;
	both_join(&both, TLS1_3_VERSION);
	assert_int_equal(both.seal->ops->end(both.seal), 0);
	assert_int_equal(both.seal->ops->end(both.seal), 0);
	assert_true(seal_send(both.seal, both.fd, "late", 4) < 0);
	UNTIL_BY(SSL_get_shutdown(both.ssl) & SSL_RECEIVED_SHUTDOWN,
		 SSL_read_ex(both.ssl, data, sizeof(data), &n));
	assert_int_equal(SSL_write_ex(both.ssl, "back", 4, &n), 1);
	assert_int_equal(seal_recv(both.seal, both.fd, data, sizeof(data)), 4);
	SSL_shutdown(both.ssl);
	assert_int_equal(seal_recv(both.seal, both.fd, data, sizeof(data)), 0);
	assert_int_equal(seal_recv(both.seal, both.fd, data, sizeof(data)), 0);
	assert_int_equal(both.seal->ops->end(both.seal), 0);
	both_close(&both);
}

/* Bytes and the end behind them in one go: the end is told, then told of. */
static void remembers_an_end_behind_bytes(void **state)
{
	uint8_t data[3 * SEAL_RECORD_MAX];
	struct both both;
	size_t n;

	(void)state;
	both_join(&both, TLS1_3_VERSION);
	assert_int_equal(SSL_write_ex(both.ssl, "tail", 4, &n), 1);
	SSL_shutdown(both.ssl);
	assert_int_equal(seal_recv(both.seal, both.fd, data, sizeof(data)), 4);
	assert_true(both.seal->more);
	assert_int_equal(seal_recv(both.seal, both.fd, data, sizeof(data)), 0);
	assert_false(both.seal->more);
	both_close(&both);
}

static void tells_a_cut_from_an_end(void **state)
{
	uint8_t data[3 * SEAL_RECORD_MAX];
	struct both both;
	size_t n;

	(void)state;
	both_join(&both, TLS1_2_VERSION);
	assert_int_equal(SSL_write_ex(both.ssl, "tail", 4, &n), 1);
	fd_close(&both.far);
	assert_int_equal(seal_recv(both.seal, both.fd, data, sizeof(data)), 4);
	assert_int_equal(seal_recv(both.seal, both.fd, data, sizeof(data)),
			 -ECONNABORTED);
	assert_string_equal(both.seal->why, "ended without close_notify");
	assert_int_equal(seal_send(both.seal, both.fd, "x", 1), -EPIPE);
	both_close(&both);
}

static void goes_on_through_key_updates(void **state)
{
	uint8_t data[SEAL_RECORD_MAX];
	struct both both;
	ssize_t got;
	size_t n;

	(void)state;
	both_join(&both, TLS1_3_VERSION);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(
			SSL_key_update(both.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
		assert_int_equal(SSL_write_ex(both.ssl, "ping", 4, &n), 1);
		got = -EAGAIN;
		UNTIL_BY(got != -EAGAIN, got = seal_recv(both.seal, both.fd,
							 data, sizeof(data)));
		assert_int_equal(got, 4);
		assert_int_equal(seal_send(both.seal, both.fd, "pong", 4), 4);
		assert_int_equal(SSL_read_ex(both.ssl, data, 4, &n), 1);
		assert_memory_equal(data, "pong", 4);
	}
	both_close(&both);
}

/* What the far side writes until gather_end is kept, then sent at once. */
static void gather_begin(struct both *both)
{
	SSL_set0_wbio(both->ssl, BIO_new(BIO_s_mem()));
}

static void gather_end(struct both *both, size_t most)
{
	char *bytes;
	long len = BIO_get_mem_data(SSL_get_wbio(both->ssl), &bytes);
	size_t n = (size_t)len < most ? (size_t)len : most;

	assert_int_equal(send(both->far, bytes, n, 0), n);
	SSL_set0_wbio(both->ssl, BIO_new_socket(both->far, BIO_NOCLOSE));
}

static int unread(const struct both *both)
{
	int n = 0;

	assert_int_equal(ioctl(both->fd, FIONREAD, &n), 0);
	return n;
}

/* One read must come back, however much there is that brings no bytes. */
static void a_read_ends_amid_key_updates(void **state)
{
	uint8_t data[4 * SEAL_RECORD_MAX];
	struct both both;
	ssize_t got = -EAGAIN;
	int sent;
	size_t n;

	(void)state;
	both_join(&both, TLS1_3_VERSION);
	gather_begin(&both);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(SSL_key_update(both.ssl,
						SSL_KEY_UPDATE_NOT_REQUESTED),
				 1);
		assert_int_equal(SSL_do_handshake(both.ssl), 1);
	}
	assert_int_equal(SSL_write_ex(both.ssl, "ping", 4, &n), 1);
	gather_end(&both, SIZE_MAX);
	sent = unread(&both);
	assert_int_equal(seal_recv(both.seal, both.fd, data, sizeof(data)),
			 -EAGAIN);
	assert_true(unread(&both) > sent / 2);
	UNTIL_BY(got != -EAGAIN,
		 got = seal_recv(both.seal, both.fd, data, sizeof(data)));
	assert_int_equal(got, 4);
	both_close(&both);
}

static void a_read_takes_few_records(void **state)
{
	uint8_t data[4 * SEAL_RECORD_MAX];
	struct both both;
	ssize_t all = 0, got;
	size_t n;

	(void)state;
	both_join(&both, TLS1_3_VERSION);
	gather_begin(&both);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(SSL_write_ex(both.ssl, "x", 1, &n), 1);
	gather_end(&both, SIZE_MAX);
	while (all < 1000) {
		got = seal_recv(both.seal, both.fd, data, sizeof(data));
		assert_in_range(got, 1, 100);
		/* Polling tells of the others. */
		assert_false(both.seal->more);
		all += got;
	}
	both_close(&both);
}

/* A write that waits for bytes to read must not be told to wait for room. */
static void half_a_renegotiation_stops_no_write(void **state)
{
	char name[250] = "";
	uint8_t data[SEAL_RECORD_MAX];
	struct both both;

	(void)state;
	both_join(&both, TLS1_2_VERSION);
	/* To make the message long. */
	memset(name, 'a', sizeof(name) - 1);
	assert_int_equal(SSL_set_tlsext_host_name(both.ssl, name), 1);
	assert_int_equal(SSL_set_cipher_list(both.ssl, "ALL:@SECLEVEL=0"), 1);
	SSL_set_max_send_fragment(both.ssl, 512);
	gather_begin(&both);
	assert_int_equal(SSL_renegotiate(both.ssl), 1);
	SSL_do_handshake(both.ssl);
	/* The end of the message is kept back. */
	gather_end(&both, 5 + 8 + 512 + 16); /* one record */
	assert_int_equal(seal_recv(both.seal, both.fd, data, sizeof(data)),
			 -EAGAIN);
	assert_int_equal(unread(&both), 0);
	assert_int_equal(seal_send(both.seal, both.fd, "answer", 6), -EPROTO);
	assert_non_null(both.seal->why);
	both_close(&both);
}

/* The answer to a key update has to wait behind bytes that wait. */
static void key_updates_under_back_pressure(void **state)
{
	static uint8_t data[200000], got[200000];
	uint8_t ping[SEAL_RECORD_MAX];
	struct both both;
	size_t sent = 0, have = 0, n;
	ssize_t went = 0;
	bool pinged = false;

	(void)state;
	both_join(&both, TLS1_3_VERSION);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + i / 251);
	while (went >= 0) {
		sent += (size_t)went;
		went = seal_send(both.seal, both.fd, data + sent,
				 sizeof(data) - sent);
	}
	assert_int_equal(went, -EAGAIN);
	assert_int_equal(SSL_key_update(both.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
	assert_int_equal(SSL_write_ex(both.ssl, "ping", 4, &n), 1);
	while (have < sizeof(data)) {
		went = seal_recv(both.seal, both.fd, ping, sizeof(ping));
		assert_true(went == 4 || went == -EAGAIN);
		pinged = pinged || went == 4;
		went = seal_send(both.seal, both.fd, data + sent,
				 sizeof(data) - sent);
		assert_true(went >= 0 || went == -EAGAIN);
		sent += went > 0 ? (size_t)went : 0;
		if (SSL_read_ex(both.ssl, got + have, 5000, &n) == 1)
			have += n;
	}
	assert_true(pinged);
	assert_memory_equal(got, data, sizeof(data));
	both_close(&both);
}

/* Both ends ours. Returns what the client's handshake came to. */
static int shake_with(struct tls_client *client, const char *name)
{
	struct seal *near = NULL, *far = NULL;
	uint8_t data[SEAL_RECORD_MAX];
	int fds[2], err = -EAGAIN;

	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	assert_int_equal(tls_accept(server, fds[0], &far), 0);
	assert_int_equal(tls_connect(client, fds[1], name, &near), 0);
	while (err == -EAGAIN) {
		err = tls_handshake(near);
		seal_recv(far, fds[0], data, sizeof(data));
	}
	if (err)
		assert_non_null(near->why);
	if (!err) {
		assert_int_equal(seal_send(near, fds[1], "hello", 5), 5);
		assert_int_equal(seal_recv(far, fds[0], data, 2), 2);
		assert_true(far->more);
		assert_int_equal(seal_recv(far, fds[0], data, 3), 3);
		assert_false(far->more);
	}
	seal_free(near);
	seal_free(far);
	close(fds[0]);
	close(fds[1]);
	return err;
}

static void authority_write(char path[40], const struct identity *identity)
{
	int fd;

	strcpy(path, "/tmp/culvert-test-tls-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, identity->certificate,
			       strlen(identity->certificate)),
			 strlen(identity->certificate));
	close(fd);
}

static void a_client_knows_its_server(void **state)
{
	struct tls_client *client;
	char good[40], bad[40];
	const char *why = NULL;

	(void)state;
	authority_write(good, &ours);
	authority_write(bad, &other);
	assert_int_equal(tls_client_new(good, true, &client, &why), 0);
	assert_int_equal(shake_with(client, "relay.test"), 0);
	assert_int_equal(shake_with(client, "other.test"), -ENOKEY);
	assert_int_equal(shake_with(client, "192.0.2.1"), -ENOKEY);
	tls_client_unref(client);
	assert_int_equal(tls_client_new(bad, true, &client, &why), 0);
	assert_int_equal(shake_with(client, "relay.test"), -ENOKEY);
	tls_client_unref(client);
	assert_int_equal(tls_client_new(NULL, false, &client, &why), 0);
	assert_int_equal(shake_with(client, "other.test"), 0);
	tls_client_unref(client);
	unlink(good);
	unlink(bad);
	assert_int_equal(tls_client_new(good, true, &client, &why), -EINVAL);
	assert_non_null(why);
}

/* Streams: messages are lines. */

struct reader {
	struct stream *stream;
	char got[256];
	size_t len;
	int opened, closed;
	enum stream_close why;
	bool detach;
	struct stream_parts parts;
};

static ssize_t line_received(void *arg, const uint8_t *data, size_t len)
{
	struct reader *reader = arg;
	const uint8_t *end = memchr(data, '\n', len);
	size_t n;

	if (!end)
		return 0;
	n = (size_t)(end - data) + 1;
	assert_true(reader->len + n <= sizeof(reader->got));
	memcpy(reader->got + reader->len, data, n);
	reader->len += n;
	if (reader->detach &&
	    !transport_stream_detach(reader->stream, n, &reader->parts))
		return 0;
	return (ssize_t)n;
}

static void reader_opened(void *arg)
{
	((struct reader *)arg)->opened++;
}

static void reader_closed(void *arg, enum stream_close why)
{
	struct reader *reader = arg;

	reader->closed++;
	reader->why = why;
}

static const struct stream_ops reader_ops = {
	.received = line_received,
	.opened = reader_opened,
	.closed = reader_closed,
};

/* The seal goes to a stream; 0 or -1 without memory. */
static int reader_open(struct reader *reader, struct both *both)
{
	struct stream_params params = {
		.loop = loop,
		.ops = &reader_ops,
		.arg = reader,
		.message_max = 64,
		.queue_max = 65536,
	};

	memset(reader, 0, sizeof(*reader));
	reader->parts.fd = -1;
	both_open(both, TLS1_3_VERSION);
	if (tls_accept(server, both->fd, &params.seal))
		return -1;
	if (transport_stream_new(&params, both->fd, &reader->stream)) {
		seal_free(params.seal);
		return -1;
	}
	both->fd = -1;
	return 0;
}

static void step(struct both *both)
{
	SSL_do_handshake(both->ssl);
	assert_int_equal(loop_tick(loop, 1), 0);
}

static void a_stream_shakes_hands_then_hands_over(void **state)
{
	struct reader reader;
	struct both both;
	char answer[8];
	size_t n;

	(void)state;
	assert_int_equal(reader_open(&reader, &both), 0);
	assert_true(transport_stream_sealed(reader.stream));
	UNTIL_BY(reader.opened, step(&both));
	assert_int_equal(SSL_write_ex(both.ssl, "one\ntwo\nth", 10, &n), 1);
	assert_int_equal(SSL_write_ex(both.ssl, "ree\n", 4, &n), 1);
	UNTIL_BY(reader.len == 14, step(&both));
	assert_memory_equal(reader.got, "one\ntwo\nthree\n", 14);
	assert_int_equal(transport_stream_send(reader.stream, "yes", 3), 0);
	UNTIL_BY(SSL_read_ex(both.ssl, answer, 3, &n) == 1, step(&both));
	assert_memory_equal(answer, "yes", 3);
	SSL_shutdown(both.ssl);
	UNTIL_BY(reader.closed, step(&both));
	assert_int_equal(reader.why, STREAM_CLOSE_EOF);
	assert_int_equal(reader.opened, 1);
	transport_stream_free(reader.stream);
	both_close(&both);
}

/* Of one record: the message, bytes behind it; and the seal goes on. */
static void a_stream_gives_its_seal_away(void **state)
{
	struct reader reader;
	struct both both;
	uint8_t data[SEAL_RECORD_MAX];
	size_t n;

	(void)state;
	assert_int_equal(reader_open(&reader, &both), 0);
	reader.detach = true;
	UNTIL_BY(reader.opened, step(&both));
	assert_int_equal(SSL_write_ex(both.ssl, "bind\nbehind", 11, &n), 1);
	UNTIL_BY(reader.parts.fd >= 0, step(&both));
	assert_int_equal(reader.parts.rest_len, 6);
	assert_memory_equal(reader.parts.rest, "behind", 6);
	assert_non_null(reader.parts.seal);
	transport_stream_free(reader.stream);
	assert_int_equal(SSL_write_ex(both.ssl, "more", 4, &n), 1);
	assert_int_equal(seal_recv(reader.parts.seal, reader.parts.fd, data,
				   sizeof(data)),
			 4);
	seal_free(reader.parts.seal);
	free(reader.parts.rest);
	close(reader.parts.fd);
	both_close(&both);
}

/* A stream with what another one gave away. */
static void reader_take_over(struct reader *reader)
{
	const struct stream_params params = {
		.loop = loop,
		.ops = &reader_ops,
		.arg = reader,
		.message_max = 64,
		.queue_max = 65536,
		.seal = reader->parts.seal,
		.initial = reader->parts.rest,
		.initial_len = reader->parts.rest_len,
	};

	transport_stream_free(reader->stream);
	reader->detach = false;
	assert_int_equal(transport_stream_new(&params, reader->parts.fd,
					      &reader->stream),
			 0);
	free(reader->parts.rest);
}

/* The seal has seen the end already, so no polling will tell of it. */
static void check_end_given_away(const char *rest)
{
	struct reader reader;
	struct both both;
	size_t n;

	assert_int_equal(reader_open(&reader, &both), 0);
	reader.detach = true;
	UNTIL_BY(reader.opened, step(&both));
	assert_int_equal(SSL_write_ex(both.ssl, "bind\n", 5, &n), 1);
	if (*rest)
		SSL_write_ex(both.ssl, rest, strlen(rest), &n);
	SSL_shutdown(both.ssl);
	UNTIL_BY(reader.parts.fd >= 0, assert_int_equal(loop_tick(loop, 1), 0));
	assert_true(reader.parts.seal->more);
	assert_int_equal(reader.parts.rest_len, strlen(rest));
	reader_take_over(&reader);
	UNTIL_BY(reader.closed, assert_int_equal(loop_tick(loop, 1), 0));
	assert_int_equal(reader.why, STREAM_CLOSE_EOF);
	assert_int_equal(reader.len, 5 + strlen(rest));
	transport_stream_free(reader.stream);
	both_close(&both);
}

static void a_stream_begins_with_what_its_seal_knows(void **state)
{
	(void)state;
	check_end_given_away("");
	check_end_given_away("behind\n");
}

static void a_stream_says_why_no_tls_was_agreed_on(void **state)
{
	struct reader reader;
	struct both both;

	(void)state;
	assert_int_equal(reader_open(&reader, &both), 0);
	assert_int_equal(send(both.far, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
	UNTIL_BY(reader.closed, assert_int_equal(loop_tick(loop, 1), 0));
	assert_int_equal(reader.why, STREAM_CLOSE_SEAL);
	assert_string_equal(transport_stream_why(reader.stream),
			    "http request");
	assert_int_equal(reader.opened, 0);
	transport_stream_free(reader.stream);
	both_close(&both);
}

static void conversation(void *arg)
{
	struct reader reader;
	struct both both;
	size_t n;

	(void)arg;
	if (reader_open(&reader, &both)) {
		both_close(&both);
		return;
	}
	reader.detach = true;
	UNTIL_BY(reader.opened || reader.closed, step(&both));
	SSL_write_ex(both.ssl, "bi", 2, &n);
	step(&both);
	SSL_write_ex(both.ssl, "nd\nbehind", 9, &n);
	UNTIL_BY(reader.len || reader.closed, step(&both));
	seal_free(reader.parts.seal);
	free(reader.parts.rest);
	fd_close(&reader.parts.fd);
	transport_stream_free(reader.stream);
	both_close(&both);
}

static void survives_every_allocation_failure(void **state)
{
	(void)state;
	assert_true(failalloc_sweep(conversation, NULL) > 3);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(faults_name_the_part),
		TEST(every_cut_of_a_certificate_is_refused),
		TEST(writes_under_back_pressure),
		TEST(ends_each_way_by_itself),
		TEST(remembers_an_end_behind_bytes),
		TEST(tells_a_cut_from_an_end),
		TEST(goes_on_through_key_updates),
		TEST(a_read_ends_amid_key_updates),
		TEST(a_read_takes_few_records),
		TEST(half_a_renegotiation_stops_no_write),
		TEST(key_updates_under_back_pressure),
		TEST(a_client_knows_its_server),
		TEST(a_stream_shakes_hands_then_hands_over),
		TEST(a_stream_gives_its_seal_away),
		TEST(a_stream_begins_with_what_its_seal_knows),
		TEST(a_stream_says_why_no_tls_was_agreed_on),
		TEST(survives_every_allocation_failure),
	};

	return cmocka_run_group_tests_name("tls", tests, group_setup,
					   group_teardown);
}
