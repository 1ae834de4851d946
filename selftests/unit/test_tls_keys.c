/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What one key may seal, where OpenSSL seals: the limit is lowered, then much is
 * sent. The other side is OpenSSL, as a library and as `openssl s_client`.
 */
#include "unit/rig.h"

#include <openssl/ssl.h>
#include <signal.h>

#include "transport/tls_internal.h"
#include "transport/transport.h"
#include "unit/tls_rig.h"
#include "unit/until.h"

#define BULK ((size_t)1 << 20)
#define MOST 4 /* full records under one key */

static struct identity ours;
static uint8_t bulk[BULK], got[BULK];
static struct both both;
static unsigned int
	updates; /* of its keys by our side, as the far side saw them */

static int group_setup(void **state)
{
	struct tls_fault fault;

	(void)state;
	signal(SIGPIPE, SIG_IGN); /* the far side's */
	identity_make(&ours, "relay.test");
	for (size_t i = 0; i < BULK; i++)
		bulk[i] = pattern(i, 7);
	return server_make(&ours.pair, 1,
			   "ECDHE+AESGCM:ECDHE+AESCCM:ECDHE+CHACHA20:ECDHE+AES:"
			   "TLS_AES_256_GCM_SHA384:TLS_AES_128_CCM_SHA256:"
			   "TLS_CHACHA20_POLY1305_SHA256",
			   &fault, &server);
}

static int group_teardown(void **state)
{
	(void)state;
	tls_server_unref(server);
	return 0;
}

static struct tls_session *session_of(struct seal *seal)
{
	return (struct tls_session *)seal;
}

static void update_seen(int sent, int version, int type, const void *data,
			size_t len, SSL *ssl, void *arg)
{
	(void)version;
	(void)ssl;
	(void)arg;
	updates += !sent && type == SSL3_RT_HANDSHAKE && len &&
		   *(const uint8_t *)data == SSL3_MT_KEY_UPDATE;
}

/* With this cipher alone. The limit is that of the cipher. */
static void join_with(int version, const char *cipher)
{
	both_open(&both, version);
	SSL_set_min_proto_version(both.ssl, version);
	SSL_set_msg_callback(both.ssl, update_seen);
	assert_int_equal(version == TLS1_3_VERSION ?
				 SSL_set_ciphersuites(both.ssl, cipher) :
				 SSL_set_cipher_list(both.ssl, cipher),
			 1);
	both_accept(&both);
	updates = 0;
}

static size_t far_reads(size_t have, size_t most)
{
	size_t n;

	if (most > sizeof(got) - have)
		most = sizeof(got) - have;
	return SSL_read_ex(both.ssl, got + have, most, &n) == 1 ? n : 0;
}

/* What is sent next of the bulk: how much one call seals, nobody interrupts. */
static size_t piece_of(size_t sent)
{
	return BULK - sent < SEAL_RECORD_MAX ? BULK - sent : SEAL_RECORD_MAX;
}

static void every_cipher_has_its_limit(void **state)
{
	static const struct {
		int version;
		const char *cipher;
		uint64_t most;
	} cases[] = {
		{ TLS1_2_VERSION, "ECDHE-ECDSA-AES256-GCM-SHA384", 1 << 24 },
		{ TLS1_2_VERSION, "ECDHE-ECDSA-AES256-CCM", (1 << 24) / 3 },
		{ TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305", 0 },
		{ TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA256", 0 },
		{ TLS1_3_VERSION, "TLS_AES_256_GCM_SHA384", 1 << 24 },
		{ TLS1_3_VERSION, "TLS_AES_128_CCM_SHA256", (1 << 24) / 3 },
		{ TLS1_3_VERSION, "TLS_CHACHA20_POLY1305_SHA256", 0 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		join_with(cases[i].version, cases[i].cipher);
		assert_int_equal(session_of(both.seal)->most, cases[i].most);
		both_close(&both);
	}
}

/* In pieces of this size, to who reads that much at once; every byte arrives. */
static void send_all(size_t len, size_t piece, size_t read)
{
	const struct tls_session *session = session_of(both.seal);
	size_t sent = 0, have = 0, rest;
	ssize_t n;

	while (have < len) {
		rest = len - sent;
		n = seal_send(both.seal, both.fd, bulk + sent,
			      rest < piece ? rest : piece);
		assert_true(n >= 0 || n == -EAGAIN);
		sent += n > 0 ? (size_t)n : 0;
		have += far_reads(have, read);
		assert_true(session->socket.out.bytes <=
			    session->most * SEAL_RECORD_MAX + 2 * (piece + 64));
	}
	assert_memory_equal(got, bulk, len);
	assert_int_equal(seal_send(both.seal, both.fd, bulk, 0), 0);
	assert_int_equal(both.seal->ops->end(both.seal), 0);
}

/* Also where the socket takes nothing more, neither of the bytes nor of the update. */
static void a_key_is_changed_in_time(void **state)
{
	static const size_t reads[] = { BULK, 5000, 700 };

	(void)state;
	for (size_t i = 0; i < sizeof(reads) / sizeof(reads[0]); i++) {
		join_with(TLS1_3_VERSION, "TLS_AES_256_GCM_SHA384");
		session_of(both.seal)->most = MOST;
		send_all(BULK, SEAL_RECORD_MAX, reads[i]);
		assert_in_range(updates, BULK / (MOST + 2) / SEAL_RECORD_MAX,
				BULK / MOST / SEAL_RECORD_MAX);
		both_close(&both);
	}
}

/* A record of one byte is no full one. */
static void small_records_count_for_what_they_are(void **state)
{
	(void)state;
	join_with(TLS1_3_VERSION, "TLS_AES_256_GCM_SHA384");
	session_of(both.seal)->most = 1;
	send_all(2000, 1, 2000); /* each of 23 bytes, with its header */
	assert_int_equal(updates, 2000 * 23 / SEAL_RECORD_MAX);
	both_close(&both);
}

static void a_cipher_without_limit_keeps_its_key(void **state)
{
	(void)state;
	join_with(TLS1_3_VERSION, "TLS_CHACHA20_POLY1305_SHA256");
	for (size_t sent = 0, have = 0; have < BULK;) {
		ssize_t n =
			seal_send(both.seal, both.fd, bulk + sent, BULK - sent);

		sent += n > 0 ? (size_t)n : 0;
		have += far_reads(have, BULK);
	}
	assert_memory_equal(got, bulk, BULK);
	assert_int_equal(updates, 0);
	both_close(&both);
}

/* What was sealed before arrives, and the end is not taken for one in order. */
static void without_key_updates_it_is_the_end(void **state)
{
	size_t sent = 0, have = 0;
	ssize_t n = 0;

	(void)state;
	join_with(TLS1_2_VERSION, "ECDHE-ECDSA-AES256-GCM-SHA384");
	session_of(both.seal)->most = MOST;
	while (n >= 0 || n == -EAGAIN) {
		n = seal_send(both.seal, both.fd, bulk + sent, 4096);
		sent += n > 0 ? (size_t)n : 0;
		have += far_reads(have, BULK);
	}
	assert_int_equal(n, -EKEYEXPIRED);
	assert_in_range(sent, (MOST - 1) * SEAL_RECORD_MAX,
			MOST * SEAL_RECORD_MAX);
	assert_non_null(strstr(both.seal->why, "one key"));
	assert_int_equal(seal_send(both.seal, both.fd, "x", 1), -EPIPE);
	assert_int_equal(both.seal->ops->end(both.seal), -EPIPE);
	fd_close(&both.fd);
	UNTIL_BY(have == sent, have += far_reads(have, BULK));
	assert_memory_equal(got, bulk, have);
	assert_int_equal(far_reads(have, 1), 0);
	assert_false(SSL_get_shutdown(both.ssl) & SSL_RECEIVED_SHUTDOWN);
	both_close(&both);
}

static ssize_t all_received(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	(void)data;
	return (ssize_t)len;
}

static void closed_for(void *arg, enum stream_close why)
{
	*(enum stream_close *)arg = why;
}

static void a_stream_ends_for_its_key(void **state)
{
	static const struct stream_ops ops = { .received = all_received,
					       .closed = closed_for };
	enum stream_close why = STREAM_CLOSE_EOF;
	struct stream_params params = {
		.ops = &ops, .arg = &why, .message_max = 64, .queue_max = 65536
	};
	struct stream *stream;
	int err = 0;

	(void)state;
	join_with(TLS1_2_VERSION, "ECDHE-ECDSA-AES256-GCM-SHA384");
	session_of(both.seal)->most = 1;
	assert_int_equal(loop_new(&params.loop), 0);
	params.seal = both.seal;
	assert_int_equal(transport_stream_new(&params, both.fd, &stream), 0);
	both.seal = NULL;
	both.fd = -1;
	for (size_t sent = 0; !err && sent < BULK; sent += 1000) {
		err = transport_stream_send(stream, bulk, 1000);
		far_reads(0, BULK);
	}
	assert_int_equal(err, -EKEYEXPIRED);
	UNTIL(params.loop, why != STREAM_CLOSE_EOF);
	assert_int_equal(why, STREAM_CLOSE_KEY);
	assert_string_equal(transport_stream_why(stream), TLS_KEY_SPENT);
	transport_stream_free(stream);
	loop_free(params.loop);
	both_close(&both);
}

/* Our own client to our own server, each way: both change their keys. */
static void a_client_changes_its_keys_too(void **state)
{
	struct tls_client *client;
	struct seal *near, *far;
	const char *why;
	size_t sent = 0, have = 0;
	int fds[2], err = -EAGAIN;
	ssize_t n;

	(void)state;
	assert_int_equal(tls_client_new(NULL, false, &client, &why), 0);
	tcp_pair(&fds[0], &fds[1]);
	assert_int_equal(tls_accept(server, fds[0], &far), 0);
	assert_int_equal(tls_connect(client, fds[1], "relay.test", &near), 0);
	while (err == -EAGAIN) {
		err = tls_handshake(near);
		seal_recv(far, fds[0], got, sizeof(got));
	}
	assert_int_equal(err, 0);
	assert_int_equal(session_of(near)->most, 1 << 24);
	session_of(near)->most = MOST;
	while (have < BULK) {
		n = seal_send(near, fds[1], bulk + sent, piece_of(sent));
		sent += n > 0 ? (size_t)n : 0;
		n = seal_recv(far, fds[0], got + have, BULK - have);
		assert_true(n > 0 || n == -EAGAIN);
		have += n > 0 ? (size_t)n : 0;
	}
	assert_memory_equal(got, bulk, BULK);
	assert_true(session_of(near)->rekeyed && session_of(far)->rekeyed);
	seal_free(near);
	seal_free(far);
	tls_client_unref(client);
	close(fds[0]);
	close(fds[1]);
}

/* `openssl s_client` to this port, what it prints at *out. */
static pid_t s_client(uint16_t port, int *out)
{
	char where[32];
	int fds[2];
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	snprintf(where, sizeof(where), "127.0.0.1:%d", port);
	pid = fork();
	if (!pid) {
		dup2(fds[1], STDOUT_FILENO);
		close(fds[0]);
		dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
		execlp("openssl", "openssl", "s_client", "-quiet", "-tls1_3",
		       "-connect", where, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	*out = fds[0];
	return pid;
}

static void s_client_follows(void **state)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct seal *seal;
	socklen_t len = sizeof(at);
	size_t sent = 0, have = 0;
	int fd = socket(AF_INET, SOCK_STREAM, 0), out, near, status;
	ssize_t n = -EAGAIN;
	pid_t pid;

	(void)state;
	assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	pid = s_client(ntohs(at.sin_port), &out);
	assert_int_equal(poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, UNTIL_MS),
			 1);
	near = accept4(fd, NULL, NULL, SOCK_NONBLOCK);
	assert_true(near >= 0);
	assert_int_equal(tls_accept(server, near, &seal), 0);
	UNTIL_BY(seal->open, n = seal_recv(seal, near, got, sizeof(got)));
	assert_int_equal(n, -EAGAIN);
	session_of(seal)->most = MOST;
	while (have < BULK) {
		n = seal_send(seal, near, bulk + sent, piece_of(sent));
		sent += n > 0 ? (size_t)n : 0;
		/* A pipe and what waits in the sockets are less than all. */
		n = sent == BULK || n == -EAGAIN ?
			    read(out, got + have, BULK - have) :
			    0;
		assert_true(n >= 0 && (n || sent < BULK));
		have += (size_t)n;
	}
	assert_memory_equal(got, bulk, BULK);
	assert_true(session_of(seal)->rekeyed);
	assert_true(session_of(seal)->socket.out.bytes < BULK / 2);
	assert_int_equal(seal->ops->end(seal), 0);
	seal_free(seal);
	close(near);
	close(fd);
	close(out);
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_cipher_has_its_limit),
		cmocka_unit_test(a_key_is_changed_in_time),
		cmocka_unit_test(small_records_count_for_what_they_are),
		cmocka_unit_test(a_cipher_without_limit_keeps_its_key),
		cmocka_unit_test(without_key_updates_it_is_the_end),
		cmocka_unit_test(a_stream_ends_for_its_key),
		cmocka_unit_test(a_client_changes_its_keys_too),
		cmocka_unit_test(s_client_follows),
	};

	return cmocka_run_group_tests_name("tls_keys", tests, group_setup,
					   group_teardown);
}
