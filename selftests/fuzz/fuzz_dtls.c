/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Datagrams to a DTLS listener, and to an association whose handshake is not complete.
 * The first byte says which; datagrams follow, each behind two bytes of length. To
 * nobody known no more is ever sent than came, and no guess is a cookie.
 */
#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "transport/dtls.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define COOKIE_AT   61 /* its length, in the ClientHello below */
#define COOKIE_LEN  20
#define HELLO_MOST  256
#define ANSWER_HEAD 28

/* Unlike assert() it stays in every build. */
static void must(bool truth)
{
	if (!truth)
		abort();
}

static struct tls_server *server;
static struct loop *loop;
static struct udp_path path;
static size_t answered;
static uint8_t cookie[COOKIE_LEN];

static void answer(void *arg, const struct udp_path *to, const uint8_t *data,
		   size_t len)
{
	(void)arg;
	must(to == &path && len == ANSWER_HEAD + COOKIE_LEN);
	answered += len;
	memcpy(cookie, data + ANSWER_HEAD, COOKIE_LEN);
}

static void association_send(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	must(data && len <= 1200);
}

static void association_event(void *arg)
{
	(void)arg;
}

static void association_received(void *arg, const uint8_t *data, size_t len)
{
	(void)arg;
	(void)data;
	(void)len;
	abort(); /* without the keys */
}

static const struct dtls_ops ops = {
	.send = association_send,
	.opened = association_event,
	.received = association_received,
	.closed = association_event,
};

static size_t pem_take(BIO *pem, char *out, size_t room)
{
	int len = BIO_read(pem, out, (int)room);

	must(len > 0);
	BIO_free(pem);
	return (size_t)len;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x509 = X509_new();
	BIO *certificate = BIO_new(BIO_s_mem()),
	    *private = BIO_new(BIO_s_mem());
	char texts[2][4096];
	struct tls_pair pair = { .certificate = texts[0], .key = texts[1] };
	const struct tls_server_params params = {
		.pairs = &pair,
		.count = 1,
		.datagrams = true,
		.ciphers = "ECDHE+AESGCM",
	};
	struct tls_fault fault;

	(void)argc;
	(void)argv;
	X509_gmtime_adj(X509_getm_notBefore(x509), 0);
	X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
	X509_set_pubkey(x509, key);
	must(X509_sign(x509, key, EVP_sha256()) > 0);
	must(PEM_write_bio_X509(certificate, x509) == 1);
	must(PEM_write_bio_PrivateKey(private, key, NULL, NULL, 0, NULL,
				      NULL) == 1);
	pair.certificate_len = pem_take(certificate, texts[0], 4096);
	pair.key_len = pem_take(private, texts[1], 4096);
	X509_free(x509);
	EVP_PKEY_free(key);
	must(tls_server_new(&params, &server, &fault) == 0);
	must(loop_new(&loop) == 0);
	must(addr_parse("192.0.2.1:40000", 0, &path.remote) == 0);
	must(addr_parse("192.0.2.2:5349", 0, &path.local) == 0);
	return 0;
}

/* A ClientHello with room for a cookie. Its length. */
static size_t hello_make(uint8_t out[HELLO_MOST], size_t cookie_len)
{
	static const uint8_t head[] = { 22, 254, 255, [10] = 0, 0, 0, 1 };
	/* Suites, compression, the curve and the signatures. */
	static const uint8_t tail[] =
		"\x00\x02\xc0\x2b\x01\x00\x00\x12"
		"\x00\x0a\x00\x04\x00\x02\x00\x17"
		"\x00\x0d\x00\x06\x00\x04\x04\x03\x05\x03";
	size_t len = COOKIE_AT - 1 + 1 + cookie_len + sizeof(tail) - 1;

	memset(out, 0, HELLO_MOST);
	memcpy(out, head, sizeof(head));
	put_be16(out + 11, (uint16_t)(len - 13));
	put_be16(out + 15, (uint16_t)(len - 25));
	put_be16(out + 23, (uint16_t)(len - 25));
	put_be16(out + 25, 0xfefd);
	out[18] = cookie_len ? 1 : 0;
	out[10] = out[18];
	out[COOKIE_AT - 1] = (uint8_t)cookie_len;
	memcpy(out + COOKIE_AT, cookie, cookie_len);
	memcpy(out + COOKIE_AT + cookie_len, tail, sizeof(tail) - 1);
	return len;
}

static struct dtls *association_make(struct dtls_listener *listener)
{
	uint8_t hello[HELLO_MOST];
	size_t len = hello_make(hello, 0);
	struct dtls *dtls;

	must(dtls_listener_hello(listener, server, &path, hello, len) ==
	     -EAGAIN);
	len = hello_make(hello, COOKIE_LEN);
	must(dtls_listener_hello(listener, server, &path, hello, len) == 0);
	dtls = dtls_accept(listener, loop, &ops, NULL);
	dtls_begin(dtls);
	return dtls;
}

static void datagram_see(struct dtls_listener *listener, struct dtls *dtls,
			 const uint8_t *data, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1); /* a byte too far is caught */
	int err;

	must(copy);
	memcpy(copy, data, len);
	if (dtls) {
		dtls_begins_anew(dtls, copy, len);
		dtls_feed(dtls, copy, len);
	} else {
		answered = 0;
		err = dtls_listener_hello(listener, server, &path, copy, len);
		must(err == -EAGAIN || err == -EBADMSG);
		must((err == -EAGAIN) == (answered > 0));
		must(answered <= len);
	}
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct dtls_listener *listener;
	struct dtls *dtls = NULL;
	size_t at = 1;

	if (!len)
		return 0;
	must(dtls_listener_new(answer, NULL, &listener) == 0);
	if (data[0] & 1)
		dtls = association_make(listener);
	while (len - at >= 2) {
		size_t piece = get_be16(data + at);

		at += 2;
		if (piece > len - at)
			piece = len - at;
		datagram_see(listener, dtls, data + at, piece);
		at += piece;
	}
	loop_tick(loop, 0);
	dtls_free(dtls);
	dtls_listener_free(listener);
	return 0;
}
