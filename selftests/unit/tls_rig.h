/* SPDX-License-Identifier: BSD-2-Clause */
/* Two ends of TLS: a seal of ours, and OpenSSL itself on the other side. */
#ifndef UNIT_TLS_RIG_H
#define UNIT_TLS_RIG_H

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/ssl.h>

#include "base/fd.h"
#include "transport/tls.h"
#include "unit/identity.h"
#include "unit/until.h"

#define CIPHERS "ECDHE+AESGCM:TLS_AES_128_GCM_SHA256"

static struct tls_server *server; /* the program's own */

static inline int server_make(const struct tls_pair *pairs, size_t count,
			      const char *ciphers, struct tls_fault *fault,
			      struct tls_server **out)
{
	const struct tls_server_params params = {
		.pairs = pairs,
		.count = count,
		.ciphers = ciphers,
	};

	return tls_server_new(&params, out, fault);
}

/* A sealed end and OpenSSL at the other one. */
struct both {
	struct seal *seal;
	int fd;
	SSL_CTX *context;
	SSL *ssl;
	int far;
};

/* OpenSSL's side of two sockets. */
static inline void both_begin(struct both *both, int version)
{
	both->seal = NULL;
	both->context = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_max_proto_version(both->context, version);
	both->ssl = SSL_new(both->context);
	SSL_set_connect_state(both->ssl);
	SSL_set_fd(both->ssl, both->far);
}

static inline void both_open(struct both *both, int version)
{
	int fds[2], small = 4096;

	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	both->fd = fds[0];
	both->far = fds[1];
	setsockopt(both->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	both_begin(both, version);
}

static inline void both_close(struct both *both)
{
	seal_free(both->seal);
	SSL_free(both->ssl);
	SSL_CTX_free(both->context);
	fd_close(&both->fd);
	fd_close(&both->far);
}

/* One attempt of each side. */
static inline void both_shake(struct both *both)
{
	uint8_t data[SEAL_RECORD_MAX];

	SSL_do_handshake(both->ssl);
	assert_int_equal(seal_recv(both->seal, both->fd, data, sizeof(data)),
			 -EAGAIN);
}

/* Of an open one, whose other side has been told what to ask for. */
static inline void both_accept(struct both *both)
{
	assert_int_equal(tls_accept(server, both->fd, &both->seal), 0);
	assert_false(both->seal->open);
	UNTIL_BY(both->seal->open && SSL_is_init_finished(both->ssl),
		 both_shake(both));
}

static inline void both_join(struct both *both, int version)
{
	both_open(both, version);
	both_accept(both);
}

#endif
