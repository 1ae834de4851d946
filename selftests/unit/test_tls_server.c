/* SPDX-License-Identifier: BSD-2-Clause */
/* Which certificate a client is shown, and how long its session ticket is good for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/ssl.h>

#include "transport/tls_internal.h"
#include "unit/identity.h"

#define CIPHERS "ECDHE+AESGCM"
#define NOW     UINT64_C(1000000)

static struct identity rsa, ec, other_rsa;

static int group_setup(void **state)
{
	(void)state;
	identity_of(&rsa, "relay.test", EVP_RSA_gen(2048));
	identity_of(&other_rsa, "other.test", EVP_RSA_gen(2048));
	identity_make(&ec, "relay.test");
	return 0;
}

static struct tls_server *server_of(const struct tls_pair *pairs, size_t count)
{
	const struct tls_server_params params = {
		.pairs = pairs,
		.count = count,
		.ciphers = CIPHERS,
	};
	struct tls_server *server;
	struct tls_fault fault;

	assert_int_equal(tls_server_new(&params, &server, &fault), 0);
	return server;
}

/* A client and a seal at the ends of a connection. */
struct both {
	SSL_CTX *context;
	SSL *client;
	struct seal *seal;
	int fds[2];
};

static void both_open(struct both *both, struct tls_server *server, int version)
{
	assert_int_equal(socketpair(AF_UNIX,
				    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
				    0, both->fds),
			 0);
	both->context = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_max_proto_version(both->context, version);
	both->client = SSL_new(both->context);
	SSL_set_fd(both->client, both->fds[0]);
	SSL_set_connect_state(both->client);
	assert_int_equal(tls_accept(server, both->fds[1], &both->seal), 0);
}

static bool shake(struct both *both)
{
	for (int i = 0; i < 5; i++) {
		SSL_do_handshake(both->client);
		if (!both->seal->open)
			tls_handshake(both->seal);
	}
	return SSL_is_init_finished(both->client) && both->seal->open;
}

static void both_free(struct both *both)
{
	/* Or its session would not be good for another. */
	SSL_set_shutdown(both->client, SSL_SENT_SHUTDOWN);
	SSL_free(both->client);
	SSL_CTX_free(both->context);
	seal_free(both->seal);
	close(both->fds[0]);
	close(both->fds[1]);
}

/* The kind of key that a client is shown who takes such signatures. */
static int kind_shown(struct tls_server *server, int version,
		      const char *signatures, const char *name)
{
	struct both both;
	X509 *shown;
	int kind;

	both_open(&both, server, version);
	assert_int_equal(SSL_set1_sigalgs_list(both.client, signatures), 1);
	SSL_set_tlsext_host_name(both.client, name);
	assert_true(shake(&both));
	shown = SSL_get0_peer_certificate(both.client);
	kind = EVP_PKEY_get_base_id(X509_get0_pubkey(shown));
	both_free(&both);
	return kind;
}

static void a_client_is_shown_what_it_can_verify(void **state)
{
	const struct tls_pair pairs[] = { other_rsa.pair, rsa.pair, ec.pair };
	static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
	struct tls_server *server = server_of(pairs, 3);

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		const int version = versions[i];

		assert_int_equal(kind_shown(server, version,
					    "rsa_pss_rsae_sha256:RSA+SHA256",
					    "relay.test"),
				 EVP_PKEY_RSA);
		assert_int_equal(kind_shown(server, version, "ECDSA+SHA256",
					    "relay.test"),
				 EVP_PKEY_EC);
		/* Who can do both gets what costs the server less. */
		assert_int_equal(kind_shown(server, version,
					    "ECDSA+SHA256:rsa_pss_rsae_sha256",
					    "relay.test"),
				 EVP_PKEY_EC);
		/* The other name has no such key. */
		assert_int_equal(kind_shown(server, version,
					    "ECDSA+SHA256:rsa_pss_rsae_sha256",
					    "other.test"),
				 EVP_PKEY_RSA);
	}
	assert_true(tls_server_expires(server, 2) > 0);
	tls_server_unref(server);
}

/* A second key of the same kind has no place beside the first: it is never shown. */
static void two_of_one_kind_are_apart(void **state)
{
	const struct tls_pair pairs[] = { ec.pair, ec.pair };
	struct tls_server *server = server_of(pairs, 2);

	(void)state;
	assert_int_equal(kind_shown(server, TLS1_3_VERSION, "ECDSA+SHA256",
				    "relay.test"),
			 EVP_PKEY_EC);
	tls_server_unref(server);
}

static void a_bad_pair_is_named_whichever_it_joins(void **state)
{
	struct tls_pair pairs[] = { rsa.pair, ec.pair };
	const struct tls_server_params params = {
		.pairs = pairs,
		.count = 2,
		.ciphers = CIPHERS,
	};
	struct tls_server *server;
	struct tls_fault fault;

	(void)state;
	pairs[1].key = rsa.pair.key;
	pairs[1].key_len = rsa.pair.key_len;
	assert_int_equal(tls_server_new(&params, &server, &fault), -EINVAL);
	assert_int_equal(fault.part, TLS_PART_KEY);
	assert_int_equal(fault.pair, 1);
}

static void keys_of_tickets_change_and_go(void **state)
{
	struct tls_ticket_key first, second, found;
	struct tls_tickets *tickets;

	(void)state;
	assert_int_equal(tls_tickets_new(&tickets), 0);
	tls_tickets_current(tickets, NOW, &first);
	tls_tickets_current(tickets, NOW + TICKETS_MS - 1, &found);
	assert_memory_equal(&first, &found, sizeof(first));
	tls_tickets_current(tickets, NOW + TICKETS_MS, &second);
	assert_memory_not_equal(&first, &second, sizeof(first));
	assert_int_equal(tls_tickets_find(tickets, NOW + TICKETS_MS,
					  second.name, &found),
			 1);
	assert_int_equal(tls_tickets_find(tickets, NOW + 2 * TICKETS_MS - 1,
					  first.name, &found),
			 2);
	assert_memory_equal(&first, &found, sizeof(first));
	assert_int_equal(tls_tickets_find(tickets, NOW + 2 * TICKETS_MS,
					  first.name, &found),
			 0);
	/* Nobody came for long: the last key is too old to be the one before. */
	tls_tickets_current(tickets, NOW + 2 * TICKETS_MS, &second);
	assert_int_equal(tls_tickets_find(tickets, NOW + 9 * TICKETS_MS,
					  second.name, &found),
			 0);
	tls_tickets_free(tickets);
}

/* Whether a second handshake takes up the session of the first. */
static bool resumes(struct tls_server *first, struct tls_server *second)
{
	struct both both;
	SSL_SESSION *session;
	bool reused;

	both_open(&both, first, TLS1_2_VERSION);
	assert_true(shake(&both));
	session = SSL_get1_session(both.client);
	assert_int_equal(SSL_SESSION_get_ticket_lifetime_hint(session),
			 TICKETS_MS / 1000);
	both_free(&both);
	both_open(&both, second, TLS1_2_VERSION);
	assert_int_equal(SSL_set_session(both.client, session), 1);
	assert_true(shake(&both));
	reused = SSL_session_reused(both.client);
	SSL_SESSION_free(session);
	both_free(&both);
	return reused;
}

static void a_ticket_is_good_where_it_was_made(void **state)
{
	struct tls_server *server = server_of(&ec.pair, 1);
	struct tls_server *reloaded = server_of(&ec.pair, 1);

	(void)state;
	assert_true(resumes(server, server));
	assert_false(resumes(server, reloaded));
	tls_server_unref(server);
	tls_server_unref(reloaded);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_client_is_shown_what_it_can_verify),
		cmocka_unit_test(two_of_one_kind_are_apart),
		cmocka_unit_test(a_bad_pair_is_named_whichever_it_joins),
		cmocka_unit_test(keys_of_tickets_change_and_go),
		cmocka_unit_test(a_ticket_is_good_where_it_was_made),
	};

	return cmocka_run_group_tests_name("tls_server", tests, group_setup,
					   NULL);
}
