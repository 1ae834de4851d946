/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Seals that the kernel has taken over, on real sockets: skipped where it has no
 * TLS. The other side is OpenSSL.
 */
#include "unit/rig.h"

#include <openssl/ssl.h>
#include <signal.h>

#include "transport/tls_internal.h"
#include "unit/tls_rig.h"
#include "unit/until.h"

#define BULK (1u << 20)

static struct identity ours;
static uint8_t bulk[BULK], got[BULK];

static const struct kind {
	int version;
	const char *cipher;
} kinds[] = {
	{ TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256" },
	{ TLS1_2_VERSION, "ECDHE-ECDSA-AES256-GCM-SHA384" },
	{ TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305" },
	{ TLS1_3_VERSION, "TLS_AES_128_GCM_SHA256" },
	{ TLS1_3_VERSION, "TLS_AES_256_GCM_SHA384" },
	{ TLS1_3_VERSION, "TLS_CHACHA20_POLY1305_SHA256" },
};

#define KINDS   (sizeof(kinds) / sizeof(kinds[0]))
#define KIND_12 (&kinds[0])
#define KIND_13 (&kinds[3])

static int group_setup(void **state)
{
	struct tls_fault fault;

	(void)state;
	signal(SIGPIPE, SIG_IGN); /* the far side's */
	identity_make(&ours, "relay.test");
	for (size_t i = 0; i < BULK; i++)
		bulk[i] = pattern(i, 7);
	return server_make(&ours.pair, 1,
			   "ECDHE+AESGCM:ECDHE+CHACHA20:"
			   "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
			   "TLS_CHACHA20_POLY1305_SHA256",
			   &fault, &server);
}

static int group_teardown(void **state)
{
	(void)state;
	tls_server_unref(server);
	return 0;
}

/* A connection whose handshake is complete; nothing is unread. */
static void open_kind(struct both *both, const struct kind *kind)
{
	uint8_t byte;
	size_t n;

	if (engine_ktls_probe()) {
		print_message("# SKIP this kernel has no TLS\n");
		skip();
	}
	tcp_pair(&both->far, &both->fd);
	both_begin(both, kind->version);
	SSL_set_min_proto_version(both->ssl, kind->version);
	if (kind->version == TLS1_3_VERSION)
		assert_int_equal(SSL_set_ciphersuites(both->ssl, kind->cipher),
				 1);
	else
		assert_int_equal(SSL_set_cipher_list(both->ssl, kind->cipher),
				 1);
	both_accept(both);
	assert_int_equal(seal_send(both->seal, both->fd, "!", 1), 1);
	UNTIL_BY(SSL_read_ex(both->ssl, &byte, 1, &n) == 1, (void)0);
}

static void offload(struct both *both)
{
	both->seal->ops->offload(both->seal);
	if (both->seal->place == SEAL_KEPT_CIPHER) {
		both_close(both);
		print_message("# SKIP this kernel lacks the cipher\n");
		skip();
	}
	assert_string_equal(seal_place_name(both->seal->place), "kernel");
}

static void join_kind(struct both *both, const struct kind *kind)
{
	open_kind(both, kind);
	offload(both);
	assert_true(both->seal->splices);
}

/* What recv says once it says anything. */
static ssize_t hear(struct both *both, void *data, size_t len)
{
	ssize_t n = -EAGAIN;

	UNTIL_BY(n != -EAGAIN, n = seal_recv(both->seal, both->fd, data, len));
	return n;
}

/* One attempt of all four sides of a transfer both ways. */
struct both_ways {
	struct both *both;
	size_t sent, read, far_sent, far_read;
};

static void both_ways_step(struct both_ways *ways)
{
	struct both *both = ways->both;
	ssize_t n = seal_send(both->seal, both->fd, bulk + ways->sent,
			      BULK - ways->sent);
	size_t far;

	assert_true(n >= 0 || n == -EAGAIN);
	ways->sent += n > 0 ? (size_t)n : 0;
	n = seal_recv(both->seal, both->fd, got, 70000);
	assert_true(n > 0 || n == -EAGAIN);
	if (n > 0) {
		assert_memory_equal(got, bulk + ways->read, n);
		ways->read += (size_t)n;
	}
	if (SSL_write_ex(both->ssl, bulk + ways->far_sent,
			 BULK - ways->far_sent, &far) == 1)
		ways->far_sent += far;
	if (SSL_read_ex(both->ssl, got, sizeof(got), &far) == 1) {
		assert_memory_equal(got, bulk + ways->far_read, far);
		ways->far_read += far;
	}
}

static void ends(struct both *both)
{
	uint8_t byte;
	size_t n;

	UNTIL_BY(both->seal->ops->end(both->seal) == 0, (void)0);
	assert_int_equal(both->seal->ops->unsent(both->seal), 0);
	UNTIL_BY(SSL_get_shutdown(both->ssl) & SSL_RECEIVED_SHUTDOWN,
		 SSL_read_ex(both->ssl, &byte, 1, &n));
	assert_true(seal_send(both->seal, both->fd, "late", 4) < 0);
	SSL_shutdown(both->ssl);
	/* However little is asked for at a time. */
	assert_int_equal(hear(both, &byte, 1), 0);
	assert_int_equal(hear(both, &byte, 1), 0);
	assert_null(both->seal->why);
}

static void carries(const struct kind *kind)
{
	struct both both;
	struct both_ways ways = { .both = &both };

	join_kind(&both, kind);
	SSL_set_mode(both.ssl, SSL_MODE_ENABLE_PARTIAL_WRITE);
	UNTIL_BY(ways.read == BULK && ways.far_read == BULK,
		 both_ways_step(&ways));
	ends(&both);
	both_close(&both);
}

static void it_carries_both_ways_to_their_ends(void **state)
{
	carries(*state);
}

/* OpenSSL has a part of a record when it is asked: it goes on reading. */
static void a_record_begun_is_read_to_its_end(void **state)
{
	char record[200];
	uint8_t data[SEAL_RECORD_MAX];
	struct both both;
	size_t len, n;

	(void)state;
	for (size_t cut = 1; cut < 43; cut += 8) {
		open_kind(&both, KIND_13);
		SSL_set0_wbio(both.ssl, BIO_new(BIO_s_mem()));
		assert_int_equal(SSL_write_ex(both.ssl, "half of it, all of it",
					      21, &n),
				 1);
		len = (size_t)BIO_read(SSL_get_wbio(both.ssl), record,
				       sizeof(record));
		SSL_set0_wbio(both.ssl, BIO_new_socket(both.far, BIO_NOCLOSE));
		assert_true(cut < len);
		assert_int_equal(send(both.far, record, cut, 0), cut);
		wait_poll(both.fd, POLLIN);
		assert_int_equal(seal_recv(both.seal, both.fd, data,
					   sizeof(data)),
				 -EAGAIN);
		offload(&both);
		assert_false(both.seal->splices);
		/* The kernel writes meanwhile. */
		assert_int_equal(seal_send(both.seal, both.fd, "pong", 4), 4);
		UNTIL_BY(SSL_read_ex(both.ssl, data, 4, &n) == 1, (void)0);
		assert_int_equal(send(both.far, record + cut, len - cut, 0),
				 len - cut);
		assert_int_equal(SSL_write_ex(both.ssl, "next", 4, &n), 1);
		assert_int_equal(hear(&both, data, 21), 21);
		assert_memory_equal(data, "half of it, all of it", 21);
		assert_true(both.seal->splices);
		assert_int_equal(hear(&both, data, sizeof(data)), 4);
		assert_memory_equal(data, "next", 4);
		ends(&both);
		both_close(&both);
	}
}

/* Sends, ends, and closes at once; the other side reads slowly, to its end. */
static unsigned int send_and_close(struct both *both, size_t size, size_t pace)
{
	size_t sent = 0, have = 0, n = 0;
	unsigned int kept = 0;
	ssize_t went;

	while (sent < size || both->seal->ops->end(both->seal)) {
		went = seal_send(both->seal, both->fd, bulk + sent,
				 size - sent);
		sent += went > 0 ? (size_t)went : 0;
		kept += both->seal->ops->unsent(both->seal) > 0;
		if (SSL_read_ex(both->ssl, got + have, pace, &n) == 1)
			have += n;
	}
	fd_close(&both->fd);
	while (SSL_read_ex(both->ssl, got + have, pace, &n) == 1 ||
	       SSL_want_read(both->ssl)) {
		have += n;
		n = 0;
	}
	assert_int_equal(have, size);
	assert_memory_equal(got, bulk, size);
	assert_true(SSL_get_shutdown(both->ssl) & SSL_RECEIVED_SHUTDOWN);
	return kept;
}

static void an_end_waits_until_tcp_has_all(void **state)
{
	unsigned int kept = 0;
	struct both both;

	(void)state;
	for (int i = 0; i < 24; i++) {
		int small = 10000 + 1000 * i;

		join_kind(&both, i % 2 ? KIND_12 : KIND_13);
		setsockopt(both.fd, SOL_SOCKET, SO_SNDBUF, &small,
			   sizeof(small));
		setsockopt(both.far, SOL_SOCKET, SO_RCVBUF, &small,
			   sizeof(small));
		kept += send_and_close(&both, 200000 + 777 * (size_t)i,
				       3000 + 500 * (size_t)i);
		both_close(&both);
	}
	print_message("# TLS had what TCP did not take %u times\n", kept);
	assert_true(kept > 0);
}

static void a_cut_is_no_end(void **state)
{
	uint8_t data[16];
	struct both both;
	size_t n;

	join_kind(&both, *state);
	assert_int_equal(SSL_write_ex(both.ssl, "tail", 4, &n), 1);
	fd_close(&both.far);
	assert_int_equal(hear(&both, data, sizeof(data)), 4);
	assert_int_equal(hear(&both, data, sizeof(data)), -ECONNABORTED);
	assert_string_equal(both.seal->why, "ended without close_notify");
	assert_int_equal(seal_send(both.seal, both.fd, "x", 1), -EPIPE);
	both_close(&both);
}

/* What came before a key update is read, then the connection has failed. */
static void a_key_update_is_the_end(void **state)
{
	uint8_t data[16];
	struct both both;
	size_t n;

	(void)state;
	join_kind(&both, KIND_13);
	assert_int_equal(SSL_write_ex(both.ssl, "old", 3, &n), 1);
	assert_int_equal(SSL_key_update(both.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
	assert_int_equal(SSL_write_ex(both.ssl, "new", 3, &n), 1);
	assert_int_equal(hear(&both, data, sizeof(data)), 3);
	assert_memory_equal(data, "old", 3);
	assert_int_equal(hear(&both, data, sizeof(data)), -EPROTO);
	assert_non_null(strstr(both.seal->why, "key update"));
	assert_int_equal(hear(&both, data, sizeof(data)), -EPROTO);
	/* The other side is told. */
	UNTIL_BY(SSL_read_ex(both.ssl, data, 1, &n) == 0 &&
			 !SSL_want_read(both.ssl),
		 (void)0);
	UNTIL_BY(both.seal->ops->unsent(both.seal) == 0, (void)0);
	both_close(&both);
}

/* As if its key were good for so many records, of which none is known of. */
static void key_limit(struct both *both, uint64_t most)
{
	((struct tls_session *)both->seal)->most = most;
	both->seal->most = 1;
}

/* What was sealed before arrives, then an alert; other ciphers never end so. */
static void a_key_used_up_is_the_end(void **state)
{
	const struct kind *kind = *state;
	const bool ends = !strstr(kind->cipher, "CHACHA20");
	struct both both;
	ssize_t n = 0;
	size_t sent = 0, have = 0, part;

	join_kind(&both, kind);
	assert_int_equal(both.seal->most, ends ? 1 << 24 : 0);
	if (ends)
		key_limit(&both, 1000);
	while (sent < 2000 && n >= 0) {
		n = seal_send(both.seal, both.fd, bulk + sent, 1);
		sent += n > 0;
		if (SSL_read_ex(both.ssl, got + have, sizeof(got) - have,
				&part) == 1)
			have += part;
	}
	if (ends) {
		assert_int_equal(n, -EKEYEXPIRED);
		assert_in_range(sent, 800, 1000);
		assert_non_null(strstr(both.seal->why, "one key"));
		assert_int_equal(seal_send(both.seal, both.fd, "x", 1), -EPIPE);
	} else {
		assert_int_equal(sent, 2000);
	}
	UNTIL_BY(have == sent,
		 have += SSL_read_ex(both.ssl, got + have, sizeof(got) - have,
				     &part) == 1 ?
				 part :
				 0);
	assert_memory_equal(got, bulk, have);
	if (ends)
		UNTIL_BY(SSL_get_error(both.ssl, SSL_read(both.ssl, got, 1)) ==
				 SSL_ERROR_SSL,
			 (void)0);
	both_close(&both);
}

static void what_is_no_record_is_an_error(void **state)
{
	static const uint8_t wrong[64] = { TLS_RECORD_DATA, 3, 3, 0, 59 };
	uint8_t data[16];
	struct both both;
	size_t n;

	join_kind(&both, *state);
	assert_int_equal(SSL_write_ex(both.ssl, "good", 4, &n), 1);
	assert_int_equal(send(both.far, wrong, sizeof(wrong), 0),
			 sizeof(wrong));
	assert_int_equal(hear(&both, data, sizeof(data)), 4);
	assert_int_equal(hear(&both, data, sizeof(data)), -EPROTO);
	assert_string_equal(both.seal->why,
			    "a record that cannot be decrypted");
	both_close(&both);
}

/* A part of a record must not keep poll(2) awake. */
static void half_a_record_wakes_nobody(void **state)
{
	static const uint8_t half[] = { TLS_RECORD_DATA, 3, 3, 0, 59, 1, 2 };
	struct pollfd poll_fd = { .events = POLLIN };
	struct both both;

	join_kind(&both, *state);
	assert_int_equal(send(both.far, half, sizeof(half), 0), sizeof(half));
	UNTIL_BY(recv(both.fd, NULL, 0, MSG_PEEK) <= 0, (void)0);
	wait_acked(both.far);
	poll_fd.fd = both.fd;
	assert_int_equal(poll(&poll_fd, 1, 0), 0);
	assert_int_equal(seal_recv(both.seal, both.fd, got, 16), -EAGAIN);
	both_close(&both);
}

/* A link: end[0] - plain - relay - sealed - OpenSSL. */
struct relayed {
	struct both both;
	struct end plain;
	int leg;
	struct loop *loop;
	struct engine_set *set;
	struct engine_link link;
	int ended;
};

static void on_end(struct engine_link *link, struct flow *flow)
{
	(void)flow;
	list_entry(link, struct relayed, link)->ended++;
}

static void relay_open(struct relayed *relayed, const char *engine,
		       const struct kind *kind)
{
	const char *const order[] = { engine };
	struct engine_params params = rig_params();
	struct both *both = &relayed->both;
	int fd;

	memset(relayed, 0, sizeof(*relayed));
	params.ktls = true;
	open_kind(both, kind);
	tcp_pair(&fd, &relayed->leg);
	end_init(&relayed->plain, fd, 1, 2);
	assert_int_equal(loop_new(&relayed->loop), 0);
	assert_int_equal(engine_set_new(relayed->loop, &params, order, 1, NULL,
					NULL, &relayed->set),
			 0);
	relayed->link.on_end = on_end;
	relayed->link.flow[0] = (struct flow){ .from = both->fd,
					       .to = relayed->leg,
					       .from_seal = both->seal };
	relayed->link.flow[1] = (struct flow){ .from = relayed->leg,
					       .to = both->fd,
					       .to_seal = both->seal };
	assert_int_equal(engine_set_attach(relayed->set, &relayed->link), 0);
	assert_string_equal(engine_link_name(&relayed->link), engine);
}

static void relay_close(struct relayed *relayed)
{
	if (relayed->link.ops)
		engine_link_detach(&relayed->link);
	engine_set_free(relayed->set);
	loop_free(relayed->loop);
	fd_close(&relayed->plain.fd);
	fd_close(&relayed->leg);
	both_close(&relayed->both);
}

/* The far side sends `sent` of the bulk, reads what comes. */
static void relay_step(struct relayed *relayed, size_t *sent, size_t *have)
{
	SSL *ssl = relayed->both.ssl;
	size_t n;

	if (*sent < BULK &&
	    SSL_write_ex(ssl, bulk + *sent, BULK - *sent, &n) == 1)
		*sent += n;
	if (SSL_read_ex(ssl, got, sizeof(got), &n) == 1)
		for (size_t i = 0; i < n; i++, ++*have)
			assert_int_equal(got[i], pattern(*have, 1));
	end_pump(&relayed->plain);
	loop_tick(relayed->loop, 0);
}

static void an_engine_splices(const char *engine, const struct kind *kind)
{
	struct relayed relayed;
	size_t sent = 0, have = 0;

	relay_open(&relayed, engine, kind);
	SSL_set_mode(relayed.both.ssl, SSL_MODE_ENABLE_PARTIAL_WRITE);
	relayed.plain.other_salt = 7;
	relayed.plain.to_send = BULK;
	UNTIL_BY(have == BULK && relayed.plain.got == BULK,
		 relay_step(&relayed, &sent, &have));
	assert_true(relayed.both.seal->spliced > BULK / 2);
	assert_int_equal(SSL_shutdown(relayed.both.ssl), 0);
	shutdown(relayed.plain.fd, SHUT_WR);
	UNTIL_BY(relayed.ended == 2, relay_step(&relayed, &sent, &have));
	assert_int_equal(relayed.link.flow[0].end, FLOW_FIN);
	assert_int_equal(relayed.link.flow[1].end, FLOW_FIN);
	UNTIL_BY(SSL_get_shutdown(relayed.both.ssl) & SSL_RECEIVED_SHUTDOWN,
		 relay_step(&relayed, &sent, &have));
	relay_close(&relayed);
}

static void splice_and_uring_carry_it(void **state)
{
	an_engine_splices("splice", *state);
	an_engine_splices("uring", *state);
}

/* Bytes, then new keys: the bytes arrive, and the flow ends with an error. */
static void a_spliced_key_update_loses_nothing_before_it(void **state)
{
	struct relayed relayed;
	size_t sent = 0, have = 0;

	(void)state;
	relay_open(&relayed, "splice", KIND_13);
	SSL_set_mode(relayed.both.ssl, SSL_MODE_ENABLE_PARTIAL_WRITE);
	relayed.plain.other_salt = 7;
	UNTIL_BY(sent == BULK, relay_step(&relayed, &sent, &have));
	assert_int_equal(SSL_key_update(relayed.both.ssl,
					SSL_KEY_UPDATE_NOT_REQUESTED),
			 1);
	UNTIL_BY(relayed.ended, (SSL_do_handshake(relayed.both.ssl),
				 relay_step(&relayed, &sent, &have)));
	assert_int_equal(relayed.link.flow[0].end, FLOW_FROM_ERROR);
	UNTIL_BY(relayed.plain.got == BULK, relay_step(&relayed, &sent, &have));
	relay_close(&relayed);
}

/* Of a megabyte what one key is good for arrives; the flow says why no more does. */
static void a_spliced_key_is_used_up(void **state)
{
	struct relayed relayed;
	size_t sent = BULK, have = 0;

	(void)state;
	relay_open(&relayed, "splice", KIND_13);
	key_limit(&relayed.both, 128 + 20);
	relayed.plain.to_send = BULK;
	UNTIL_BY(relayed.ended, relay_step(&relayed, &sent, &have));
	assert_int_equal(relayed.link.flow[1].end, FLOW_TO_ERROR);
	assert_int_equal(relayed.link.flow[1].error, -EKEYEXPIRED);
	assert_true(relayed.both.seal->spliced > 0);
	relay_close(&relayed);
}

int main(void)
{
#define EACH(test)                                                   \
	{ #test " 0", test, NULL, NULL, (void *)&kinds[0] },         \
		{ #test " 1", test, NULL, NULL, (void *)&kinds[1] }, \
		{ #test " 2", test, NULL, NULL, (void *)&kinds[2] }, \
		{ #test " 3", test, NULL, NULL, (void *)&kinds[3] }, \
		{ #test " 4", test, NULL, NULL, (void *)&kinds[4] }, \
	{                                                            \
#test " 5", test, NULL, NULL, (void *)&kinds[5]      \
	}
#define TWO(test)                                               \
	{ #test " 1.2", test, NULL, NULL, (void *)KIND_12 },    \
	{                                                       \
#test " 1.3", test, NULL, NULL, (void *)KIND_13 \
	}
	const struct CMUnitTest tests[] = {
		EACH(it_carries_both_ways_to_their_ends),
		cmocka_unit_test(a_record_begun_is_read_to_its_end),
		cmocka_unit_test(an_end_waits_until_tcp_has_all),
		TWO(a_cut_is_no_end),
		cmocka_unit_test(a_key_update_is_the_end),
		EACH(a_key_used_up_is_the_end),
		TWO(what_is_no_record_is_an_error),
		TWO(half_a_record_wakes_nobody),
		TWO(splice_and_uring_carry_it),
		cmocka_unit_test(a_spliced_key_update_loses_nothing_before_it),
		cmocka_unit_test(a_spliced_key_is_used_up),
	};

	return cmocka_run_group_tests_name("ktls_kernel", tests, group_setup,
					   group_teardown);
}
