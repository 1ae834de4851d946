/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * DTLS associations. The other side is OpenSSL itself; between the two is a network
 * of this test, which loses, repeats and reorders datagrams as it is told.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/clock.h"
#include "transport/dtls.h"
#include "unit/failalloc.h"
#include "unit/identity.h"
#include "unit/until.h"

#define CIPHERS       "ECDHE+AESGCM"
#define HELLO_MIN     60
#define DATAGRAM_ROOM 2048
#define QUEUE_ROOM    64
#define HANDSHAKE_MTU 1200

/* Of the address sanitizer, whose header gcc keeps to itself. */
size_t __sanitizer_get_current_allocated_bytes(
	void); /* NOLINT(*-reserved-identifier) */

struct datagram {
	uint8_t bytes[DATAGRAM_ROOM];
	size_t len;
};

/* Datagrams on their way in one direction. */
struct way {
	struct datagram queue[QUEUE_ROOM];
	size_t count;
	size_t longest;
};

static struct identity small, large;
static struct tls_server *server, *large_server, *serving;
static struct loop *loop;
static struct dtls_listener *listener;
static struct udp_path path;

static struct way to_server, to_client;
static size_t answers; /* of the listener */

/* What the association has told. */
static struct dtls *dtls;
static bool opened, closed;
static char received[256];
static size_t received_count;

static void way_put(struct way *way, const uint8_t *data, size_t len)
{
	struct datagram *datagram = &way->queue[way->count++];

	assert_true(way->count <= QUEUE_ROOM && len <= DATAGRAM_ROOM);
	memcpy(datagram->bytes, data, len);
	datagram->len = len;
	if (len > way->longest)
		way->longest = len;
}

static void answer(void *arg, const struct udp_path *to, const uint8_t *data,
		   size_t len)
{
	(void)arg;
	assert_ptr_equal(to, &path);
	answers++;
	way_put(&to_client, data, len);
}

static void association_send(void *arg, const uint8_t *data, size_t len)
{
	assert_ptr_equal(arg, &dtls);
	way_put(&to_client, data, len);
}

static void association_opened(void *arg)
{
	assert_ptr_equal(arg, &dtls);
	opened = true;
}

static void association_received(void *arg, const uint8_t *data, size_t len)
{
	assert_ptr_equal(arg, &dtls);
	assert_true(len < sizeof(received));
	memcpy(received, data, len);
	received[len] = '\0';
	received_count++;
}

static void association_closed(void *arg)
{
	assert_ptr_equal(arg, &dtls);
	closed = true;
}

static const struct dtls_ops ops = {
	.send = association_send,
	.opened = association_opened,
	.received = association_received,
	.closed = association_closed,
};

/* The client: OpenSSL on a BIO that holds to datagrams. */
struct client {
	SSL_CTX *context;
	SSL *ssl;
	const struct datagram *in;
};

static BIO_METHOD *client_method;

static int client_write(BIO *bio, const char *data, int len)
{
	(void)bio;
	way_put(&to_server, (const uint8_t *)data, (size_t)len);
	return len;
}

static int client_read(BIO *bio, char *out, int len)
{
	struct client *client = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if (!client->in) {
		BIO_set_retry_read(bio);
		return -1;
	}
	assert_true((size_t)len >= client->in->len);
	memcpy(out, client->in->bytes, client->in->len);
	len = (int)client->in->len;
	client->in = NULL;
	return len;
}

static long client_ctrl(BIO *bio, int command, long number, void *pointer)
{
	(void)bio;
	(void)number;
	(void)pointer;
	if (command == BIO_CTRL_DGRAM_QUERY_MTU)
		return HANDSHAKE_MTU;
	return command == BIO_CTRL_FLUSH;
}

static void client_open(struct client *client)
{
	BIO *bio = BIO_new(client_method);

	client->context = SSL_CTX_new(DTLS_client_method());
	client->in = NULL;
	client->ssl = SSL_new(client->context);
	BIO_set_data(bio, client);
	BIO_set_init(bio, 1);
	SSL_set_bio(client->ssl, bio, bio);
	SSL_set_connect_state(client->ssl);
	assert_int_equal(SSL_set_tlsext_host_name(client->ssl, "small.test"),
			 1);
}

static void client_free(struct client *client)
{
	SSL_free(client->ssl);
	SSL_CTX_free(client->context);
}

/* Lets the client look at one datagram, or at its timer. */
static void client_step(struct client *client, const struct datagram *datagram)
{
	uint8_t none;

	client->in = datagram;
	ERR_clear_error();
	SSL_read(client->ssl, &none, 0);
	if (!datagram)
		DTLSv1_handle_timeout(client->ssl);
	ERR_clear_error();
}

static int hello(const struct datagram *datagram)
{
	return dtls_listener_hello(listener, serving, &path, datagram->bytes,
				   datagram->len);
}

/* What arrives at the server's socket, as the owner deals with it. */
static void server_step(const struct datagram *datagram)
{
	int err;

	if (dtls && !dtls_begins_anew(dtls, datagram->bytes, datagram->len)) {
		dtls_feed(dtls, datagram->bytes, datagram->len);
		return;
	}
	err = hello(datagram);
	if (err) {
		assert_int_equal(err, -EAGAIN);
		return;
	}
	assert_null(dtls);
	dtls = dtls_accept(listener, loop, &ops, &dtls);
	dtls_begin(dtls);
}

/* Takes all that is on its way in one direction. */
static size_t way_take(struct way *way, struct datagram out[QUEUE_ROOM])
{
	size_t count = way->count;

	memcpy(out, way->queue, count * sizeof(*out));
	way->count = 0;
	return count;
}

/* Delivers what is under way, backwards if so; what comes of it waits. */
static void deliver(struct client *client, bool backwards)
{
	static struct datagram moving[QUEUE_ROOM];
	size_t count = way_take(&to_server, moving);

	for (size_t i = 0; i < count; i++)
		server_step(&moving[backwards ? count - 1 - i : i]);
	count = way_take(&to_client, moving);
	for (size_t i = 0; i < count; i++)
		client_step(client, &moving[backwards ? count - 1 - i : i]);
}

/* With a client that waits for it: its time does not stand still either. */
static void handshake(struct client *client, bool backwards)
{
	client_step(client, NULL);
	UNTIL(loop, (deliver(client, backwards), client_step(client, NULL),
		     opened && SSL_is_init_finished(client->ssl)));
}

static void talk(struct client *client)
{
	char buf[16];
	static struct datagram moving[QUEUE_ROOM];
	size_t before = received_count;

	assert_int_equal(SSL_write(client->ssl, "hello", 5), 5);
	deliver(client, false);
	assert_int_equal(received_count, before + 1);
	assert_string_equal(received, "hello");
	assert_int_equal(dtls_send(dtls, (const uint8_t *)"world", 5), 0);
	assert_int_equal(way_take(&to_client, moving), 1);
	client->in = &moving[0];
	assert_int_equal(SSL_read(client->ssl, buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "world", 5);
}

static int server_make(const struct identity *identity, struct tls_server **out)
{
	const struct tls_server_params params = {
		.pairs = &identity->pair,
		.count = 1,
		.datagrams = true,
		.ciphers = CIPHERS,
	};
	struct tls_fault fault;

	return tls_server_new(&params, out, &fault);
}

static int group_setup(void **state)
{
	(void)state;
	client_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK,
				     "client");
	BIO_meth_set_write(client_method, client_write);
	BIO_meth_set_read(client_method, client_read);
	BIO_meth_set_ctrl(client_method, client_ctrl);
	identity_make(&small, "small.test");
	identity_make(&large, "large.test");
	identity_lengthen(&large, 6);
	return server_make(&small, &server) ||
	       server_make(&large, &large_server);
}

static int group_teardown(void **state)
{
	(void)state;
	tls_server_unref(server);
	tls_server_unref(large_server);
	BIO_meth_free(client_method);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	to_server = to_client = (struct way){ 0 };
	answers = received_count = 0;
	opened = closed = false;
	serving = server;
	addr_parse("192.0.2.1:40000", 0, &path.remote);
	addr_parse("192.0.2.2:5349", 0, &path.local);
	return loop_new(&loop) || dtls_listener_new(answer, NULL, &listener);
}

static int teardown(void **state)
{
	(void)state;
	dtls_free(dtls);
	dtls = NULL;
	dtls_listener_free(listener);
	loop_free(loop);
	return 0;
}

static void a_client_proves_its_address_and_talks(void **state)
{
	static struct datagram first;
	struct client client;

	(void)state;
	client_open(&client);
	client_step(&client, NULL);
	assert_int_equal(to_server.count, 1);
	first = to_server.queue[0];
	deliver(&client, false);
	/* Asked, by less than it has sent, and nothing is there of it. */
	assert_int_equal(answers, 1);
	assert_true(to_client.longest < HELLO_MIN);
	assert_true(to_client.longest < first.len);
	assert_null(dtls);
	handshake(&client, false);
	assert_int_equal(answers, 1);
	talk(&client);
	client_free(&client);
}

/* The client's second ClientHello, with the cookie, which is not delivered. */
static void hello_with_cookie(struct client *client, struct datagram *out)
{
	static struct datagram moving[QUEUE_ROOM];

	client_open(client);
	client_step(client, NULL);
	assert_int_equal(way_take(&to_server, moving), 1);
	assert_int_equal(hello(&moving[0]), -EAGAIN);
	assert_int_equal(way_take(&to_client, moving), 1);
	client_step(client, &moving[0]);
	assert_int_equal(way_take(&to_server, moving), 1);
	*out = moving[0];
}

static void a_cookie_is_for_one_address_and_one_hello(void **state)
{
	const struct udp_path right = path;
	static struct datagram good, bad;
	struct client client;
	size_t at;

	(void)state;
	hello_with_cookie(&client, &good);
	addr_set_port(&path.remote, 40001);
	assert_int_equal(hello(&good), -EAGAIN);
	path = right;
	addr_parse("192.0.2.9:40000", 0, &path.remote);
	assert_int_equal(hello(&good), -EAGAIN);
	path = right;
	addr_parse("192.0.2.3:5349", 0, &path.local);
	assert_int_equal(hello(&good), -EAGAIN);
	path = right;
	/* Its random bytes, and the cookie behind them and the session. */
	for (at = 27; at < 27 + 32 + 2 + 20; at++) {
		bad = good;
		bad.bytes[at] ^= 1;
		to_client.count = 0;
		assert_int_not_equal(hello(&bad), 0);
	}
	assert_int_equal(hello(&good), 0);
	/* Another listener's is not ours. */
	dtls_listener_free(listener);
	assert_int_equal(dtls_listener_new(answer, NULL, &listener), 0);
	assert_int_equal(hello(&good), -EAGAIN);
	client_free(&client);
}

static void what_is_no_whole_hello_is_not_answered(void **state)
{
	static struct datagram good, bad;
	struct client client;

	(void)state;
	client_open(&client);
	client_step(&client, NULL);
	good = to_server.queue[0];
	for (size_t len = 0; len < good.len; len++) {
		bad = good;
		bad.len = len;
		assert_int_equal(hello(&bad), -EBADMSG);
	}
	/* Kind of record, version, epoch, kind of message, offset, length. */
	for (size_t i = 0; i < 6; i++) {
		static const size_t at[] = { 0, 1, 3, 13, 20, 16 };

		bad = good;
		bad.bytes[at[i]] ^= 0x40;
		assert_int_equal(hello(&bad), -EBADMSG);
	}
	assert_int_equal(answers, 0);
	assert_int_equal(hello(&good), -EAGAIN);
	client_free(&client);
}

static void reordered_flights_are_put_in_order(void **state)
{
	struct client client;

	(void)state;
	serving = large_server; /* more than one datagram */
	client_open(&client);
	handshake(&client, true);
	talk(&client);
	client_free(&client);
}

static void a_lost_flight_is_repeated(void **state)
{
	struct client client;
	size_t lost;

	(void)state;
	client_open(&client);
	client_step(&client, NULL);
	deliver(&client, false);
	assert_int_equal(to_server.count, 1);
	server_step(&to_server.queue[0]);
	to_server.count = 0;
	lost = to_client.count;
	assert_true(lost > 0);
	to_client.count = 0;
	/* Of itself: the client says nothing. */
	UNTIL(loop, to_client.count > 0);
	assert_true(to_client.count >= lost);
	handshake(&client, false);
	talk(&client);
	client_free(&client);
}

static void handshakes_fit_every_path(void **state)
{
	struct client client;

	(void)state;
	serving = large_server;
	client_open(&client);
	client_step(&client, NULL);
	deliver(&client, false);
	server_step(&to_server.queue[0]);
	assert_true(to_client.count > 1);
	assert_in_range(to_client.longest, HANDSHAKE_MTU / 2, HANDSHAKE_MTU);
	/* Smaller where nothing comes through. */
	for (int i = 0; i < 3; i++) {
		to_client = (struct way){ 0 };
		UNTIL(loop, to_client.count > 0);
	}
	assert_true(to_client.longest <= 548);
	to_server.count = 0;
	handshake(&client, false);
	talk(&client);
	client_free(&client);
}

/* As many as one cares to send, each with its number in its header's last byte. */
static void feed_many(struct datagram *datagram, size_t number_at)
{
	for (unsigned int i = 0; i < 1000; i++) {
		datagram->bytes[9] = (uint8_t)(i >> 8);
		datagram->bytes[10] = (uint8_t)i;
		if (number_at)
			datagram->bytes[number_at] = (uint8_t)(i % 16);
		dtls_feed(dtls, datagram->bytes, datagram->len);
	}
}

/* As far as the server's flight, which the client has not read yet. */
static void client_waits(struct client *client)
{
	client_open(client);
	client_step(client, NULL);
	deliver(client, false);
	server_step(&to_server.queue[0]);
	to_server.count = 0;
}

/* A ChangeCipherSpec, and behind it as many records of `epoch` as find room. */
static void feed_together(uint8_t epoch)
{
	static const uint8_t change[] = { 20, 254, 253, 0, 0, 0, 0,
					  0,  0,   0,   3, 0, 1, 1 };
	const uint8_t record[13] = { 22, 254, 253, 0, epoch, 0, 0,
				     0,  0,   0,   0, 0,     1 };
	static struct datagram many;

	memcpy(many.bytes, change, sizeof(change));
	many.len = sizeof(change);
	for (uint8_t i = 0; many.len + 14 <= HANDSHAKE_MTU; i++) {
		memcpy(many.bytes + many.len, record, sizeof(record));
		many.bytes[many.len + 10] = i;
		many.len += 14;
	}
	dtls_feed(dtls, many.bytes, many.len);
}

static void little_is_kept_of_what_comes_ahead_of_its_time(void **state)
{
	/* What may be a Finished, of the epoch to come. */
	static struct datagram early = {
		.bytes = { 22, 254, 253, 0, 1, 0, 0, 0, 0, 0, 1, 0, 40 },
		.len = 13 + 40,
	};
	/* A piece of a message that is said to have 65,536 bytes. */
	static struct datagram piece = {
		.bytes = { 22, 254, 253, 0, 0, 0, 0, 0, 0,  0, 1, 0, 22,
			   11, 1,   0,   0, 0, 3, 0, 0, 99, 0, 0, 10 },
		.len = 13 + 22,
	};
	struct client client;
	size_t before;

	(void)state;
	client_waits(&client);
	before = __sanitizer_get_current_allocated_bytes();
	feed_many(&early, 0);
	feed_many(&piece, 18);
	for (int i = 0; i < 20; i++)
		feed_together(1);
	assert_true(__sanitizer_get_current_allocated_bytes() - before <
		    200000);
	client_free(&client);
}

/* Feeds what the client has said but for its Finished. */
static void feed_unfinished(void)
{
	static struct datagram moving[QUEUE_ROOM];
	size_t count = way_take(&to_server, moving), at;

	for (size_t i = 0; i < count; i++) {
		const uint8_t *data = moving[i].bytes;

		for (at = 0; at < moving[i].len && !data[at + 4];
		     at += 13 + (size_t)(data[at + 11] << 8 | data[at + 12]))
			;
		if (at)
			dtls_feed(dtls, data, at);
	}
}

static void little_is_kept_of_who_does_not_finish(void **state)
{
	static struct datagram moving[QUEUE_ROOM], early = {
		.bytes = { 22, 254, 253, 0, 2, 0, 0, 0, 0, 0, 1, 0, 40 },
		.len = 13 + 40,
	};
	struct client client;
	size_t before, count;

	(void)state;
	client_waits(&client);
	count = way_take(&to_client, moving);
	for (size_t i = 0; i < count; i++)
		client_step(&client, &moving[i]);
	feed_unfinished();
	before = __sanitizer_get_current_allocated_bytes();
	feed_many(&early, 0);
	assert_true(__sanitizer_get_current_allocated_bytes() <
		    before + 100000);
	handshake(&client, false);
	talk(&client);
	client_free(&client);
}

static void records_of_an_epoch_to_come_do_no_harm(void **state)
{
	static struct datagram early = {
		.bytes = { 22, 254, 253, 0, 1, 0, 0, 0, 0, 0, 1, 0, 40 },
		.len = 13 + 40,
	};
	struct client client;
	size_t before;

	(void)state;
	client_waits(&client);
	feed_many(&early, 0);
	/* What the client says in time is heard, and the next epoch never comes. */
	handshake(&client, false);
	talk(&client);
	before = __sanitizer_get_current_allocated_bytes();
	early.bytes[4] = 2;
	feed_many(&early, 0);
	feed_together(2);
	talk(&client);
	assert_true(__sanitizer_get_current_allocated_bytes() <= before + 1000);
	client_free(&client);
}

static void garbage_does_not_end_it(void **state)
{
	static struct datagram garbage;
	struct client client;

	(void)state;
	client_open(&client);
	handshake(&client, false);
	for (size_t len = 0; len < 200; len++) {
		memset(garbage.bytes, (int)len, len);
		dtls_feed(dtls, garbage.bytes, len);
	}
	talk(&client);
	assert_int_equal(SSL_write(client.ssl, "forged", 6), 6);
	to_server.queue[0].bytes[20] ^= 1;
	deliver(&client, false);
	assert_string_equal(received, "hello");
	talk(&client);
	client_free(&client);
}

static void a_repeated_message_is_heard_once(void **state)
{
	static struct datagram moving[QUEUE_ROOM];
	struct client client;

	(void)state;
	client_open(&client);
	handshake(&client, false);
	assert_int_equal(SSL_write(client.ssl, "once", 4), 4);
	assert_int_equal(way_take(&to_server, moving), 1);
	for (int i = 0; i < 3; i++)
		server_step(&moving[0]);
	assert_int_equal(received_count, 1);
	client_free(&client);
}

static void a_client_that_begins_anew_is_noticed(void **state)
{
	static struct datagram first;
	struct client client, again;

	(void)state;
	client_open(&client);
	client_step(&client, NULL);
	deliver(&client, false);
	first = to_server.queue[0]; /* with its cookie */
	handshake(&client, false);
	/* What comes late is not it. */
	assert_false(dtls_begins_anew(dtls, first.bytes, first.len));
	server_step(&first);
	to_client.count = 0;
	talk(&client);
	client_open(&again);
	client_step(&again, NULL);
	first = to_server.queue[0];
	assert_true(dtls_begins_anew(dtls, first.bytes, first.len));
	assert_int_equal(hello(&first), -EAGAIN);
	to_client.count = to_server.count = 0;
	talk(&client);
	client_free(&client);
	client_free(&again);
}

static void an_end_is_told_either_way(void **state)
{
	static struct datagram moving[QUEUE_ROOM];
	struct client client;
	char byte;

	(void)state;
	client_open(&client);
	handshake(&client, false);
	SSL_shutdown(client.ssl);
	deliver(&client, false);
	UNTIL(loop, closed);
	assert_null(dtls_why(dtls));
	assert_int_equal(dtls_send(dtls, (const uint8_t *)"x", 1), -EPIPE);
	client_free(&client);
	dtls_free(dtls);
	dtls = NULL;
	answers = 0;
	closed = opened = false;
	client_open(&client);
	handshake(&client, false);
	dtls_close(dtls);
	assert_int_equal(way_take(&to_client, moving), 1);
	client.in = &moving[0];
	assert_int_equal(SSL_read(client.ssl, &byte, 1), 0);
	assert_int_equal(SSL_get_error(client.ssl, 0), SSL_ERROR_ZERO_RETURN);
	UNTIL(loop, closed);
	client_free(&client);
}

static void a_failed_handshake_says_why(void **state)
{
	struct client client;

	(void)state;
	client_open(&client);
	assert_int_equal(SSL_set_cipher_list(client.ssl, "ECDHE-ECDSA-AES128-"
							 "SHA256"),
			 1);
	client_step(&client, NULL);
	deliver(&client, false);
	deliver(&client, false);
	UNTIL(loop, closed);
	assert_string_equal(dtls_why(dtls), "no shared cipher");
	client_free(&client);
}

static void long_messages_are_refused(void **state)
{
	static uint8_t data[SEAL_RECORD_MAX + 1];
	struct client client;

	(void)state;
	client_open(&client);
	handshake(&client, false);
	assert_int_equal(dtls_send(dtls, data, sizeof(data)), -EMSGSIZE);
	talk(&client);
	client_free(&client);
}

/* One ClientHello to a listener of its own. */
static void ask(void *arg)
{
	struct dtls_listener *own;
	int err = dtls_listener_new(answer, NULL, &own);

	if (!err) {
		err = dtls_listener_hello(own, serving, &path,
					  ((struct datagram *)arg)->bytes,
					  ((struct datagram *)arg)->len);
		dtls_listener_free(own);
	}
	assert_int_equal(err, failalloc_hit() ? -ENOMEM : -EAGAIN);
	to_client.count = 0;
}

static void survives_every_allocation_failure(void **state)
{
	static struct datagram good;
	struct client client;

	(void)state;
	client_open(&client);
	client_step(&client, NULL);
	good = to_server.queue[0];
	assert_int_equal(failalloc_sweep(ask, &good), 2);
	client_free(&client);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_client_proves_its_address_and_talks),
		TEST(a_cookie_is_for_one_address_and_one_hello),
		TEST(what_is_no_whole_hello_is_not_answered),
		TEST(reordered_flights_are_put_in_order),
		TEST(a_lost_flight_is_repeated),
		TEST(handshakes_fit_every_path),
		TEST(little_is_kept_of_what_comes_ahead_of_its_time),
		TEST(little_is_kept_of_who_does_not_finish),
		TEST(records_of_an_epoch_to_come_do_no_harm),
		TEST(garbage_does_not_end_it),
		TEST(a_repeated_message_is_heard_once),
		TEST(a_client_that_begins_anew_is_noticed),
		TEST(an_end_is_told_either_way),
		TEST(a_failed_handshake_says_why),
		TEST(long_messages_are_refused),
		TEST(survives_every_allocation_failure),
	};

	return cmocka_run_group_tests_name("dtls", tests, group_setup,
					   group_teardown);
}
