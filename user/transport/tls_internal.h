/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files about TLS share. Private to the room. */
#ifndef TRANSPORT_TLS_INTERNAL_H
#define TRANSPORT_TLS_INTERNAL_H

#include <linux/tls.h>
#include <openssl/ssl.h>

#include "transport/tls.h"

#define TLS_RECORD_HEAD ((size_t)5)
#define TLS_NONCE_LEN   ((size_t)8) /* what AES-GCM of TLS 1.2 sends of it */
#define TLS_IV_LEN      ((size_t)12)
#define TLS_KEY_MAX     ((size_t)32)
#define TLS_SECRET_MAX  ((size_t)64)

/*
 * Full records that one key of AES-GCM may seal: below the limit of 2^24.5 (RFC 8446
 * 5.5) by a third, for what is written at once may be many.
 */
#define TLS_KEY_RECORDS (UINT64_C(1) << 24)
#define TLS_KEY_SPENT   "as many records as one key is good for"

/* The records that pass one way. */
struct tls_track {
	uint64_t records; /* under the keys in use, the whole ones */
	uint64_t bytes; /* of these, headers and all */
	uint8_t head[TLS_RECORD_HEAD + TLS_NONCE_LEN]; /* of the last one */
	size_t have; /* bytes of a record that is not whole; 0: between two */
	size_t left; /* what is missing of it, once its header is there */
};

/* Messages of a handshake that pass in the clear, whatever records they lie in. */
struct tls_messages {
	uint8_t head[4]; /* type, 3 bytes of length */
	size_t have; /* bytes of the header; 0: between two */
	size_t left; /* of the message, once its header is there */
};

/* OpenSSL's way to the network. */
struct tls_socket {
	int fd;
	const SSL *server; /* whose clients' hellos are bounded; NULL: a client */
	struct tls_messages hello;
	bool ended; /* there is nothing more to read */
	bool clogged; /* the last write was not taken whole */
	bool deaf; /* the kernel writes: OpenSSL must not, under the same keys */
	struct tls_track in, out;
};

/* tls_records.c */

/* NULL: no memory. The socket lives as long as it. */
BIO *tls_socket_bio(struct tls_socket *socket);
void tls_track_feed(struct tls_track *track, const void *data, size_t len);
/* What follows is under new keys. */
void tls_track_begin(struct tls_track *track);
bool tls_track_between(const struct tls_track *track);

/* tls_keys.c */

/* Of TLS 1.3, one way's. */
struct tls_secret {
	uint8_t bytes[TLS_SECRET_MAX];
	size_t len; /* 0: not known */
};

/* All that the next record of one way needs. */
struct tls_keys {
	uint16_t version; /* TLS1_2_VERSION or TLS1_3_VERSION */
	uint16_t cipher; /* TLS_CIPHER_* of linux/tls.h */
	uint8_t key[TLS_KEY_MAX];
	size_t key_len;
	uint8_t iv[TLS_IV_LEN]; /* AES-GCM of TLS 1.2: four bytes of it */
	uint8_t nonce[TLS_NONCE_LEN]; /* the rest, for its next record */
	uint64_t records; /* before it */
};

/*
 * 0, -EOPNOTSUPP for a cipher nobody else has, or -ESTALE when a secret is not
 * known. The secret and the records are those of this way.
 */
int tls_keys_find(const SSL *ssl, const struct tls_secret *secret,
		  const struct tls_track *track, bool reading,
		  struct tls_keys *out);
/* Full records that a key of this session may seal; 0: no limit. */
uint64_t tls_keys_most(const SSL *ssl);
/* Takes a secret from a line of a key log, if it is under this label. */
void tls_secret_parse(const char *line, const char *label,
		      struct tls_secret *out);

/* tls_kernel.c */

#define TLS_RECORD_ALERT     21
#define TLS_RECORD_HANDSHAKE 22
#define TLS_RECORD_DATA      23

/* Makes a socket one that takes keys. 0; -ENOENT: the kernel has no TLS; ... */
int tls_kernel_begin(int fd);
int tls_kernel_install(int fd, bool reading, const struct tls_keys *keys);
/* As recv, but a negative errno, and what kind of record it is from. */
ssize_t tls_kernel_recv(int fd, void *data, size_t len, uint8_t *type);
int tls_kernel_alert(int fd, const uint8_t alert[2]);
/* Records sealed so far, those before the keys were installed included. */
int tls_kernel_records(int fd, uint16_t cipher, uint64_t *out);

/* What is known of the sealing that the kernel does. */
struct tls_moved {
	uint16_t cipher;
	bool stays; /* reading, with OpenSSL, for the kernel refused it */
	size_t overhead; /* bytes of a record that are no data */
	uint64_t records, entered; /* counts at its beginning */
	uint64_t sent; /* bytes given to it by us */
	uint8_t alert[2]; /* received; a small read brings half of one */
	size_t alert_len;
};

struct tls_session {
	struct seal seal; /* the first member */
	struct tls_socket socket;
	SSL *ssl; /* NULL: the kernel has both ways */
	void *owner;
	void (*release)(void *owner);
	bool stopped; /* reading has ended */
	bool failed; /* writing must not be tried again either */
	bool told; /* the other side, that nothing follows */
	bool rekeyed; /* the keys are not those of the handshake */
	uint64_t most; /* tls_keys_most, once it is open */
	int error; /* of the reading: a negative errno, or 0: in order */
	struct tls_secret secret_in, secret_out;
	struct tls_moved moved;
};

/* tls.c */

/* Reading and writing are over. Returns error. */
int tls_session_fail(struct tls_session *session, int error, const char *why);
/* OpenSSL's part has nothing to do any more. */
void tls_session_forget(struct tls_session *session);
/* Has changes of keys told, where the counts begin anew. */
void tls_context_count(SSL_CTX *context);
/* Has the secrets told that tls_offload needs. */
void tls_context_tell_secrets(SSL_CTX *context);

/* tls_offload.c: the seal's functions once the kernel seals. */

/* Tries it: seal.place says how it went. */
void tls_offload(struct tls_session *session);
/* Has the kernel read, too, if this is the moment. */
void tls_offload_reading(struct tls_session *session);
ssize_t tls_offload_recv(struct tls_session *session, void *data, size_t len);
ssize_t tls_offload_send(struct tls_session *session, const void *data,
			 size_t len);
/* seal_ops.recount. The other side is told when the key is used up. */
int tls_offload_recount(struct tls_session *session);
/* Bytes, of records too, that the kernel's TLS has and its TCP has not. */
size_t tls_offload_unsent(const struct tls_session *session);
int tls_offload_end(struct tls_session *session);

/* What every context of ours has, whichever side it is on. */
void tls_context_init(SSL_CTX *context);

/*
 * A seal around a session, which it takes over with `owner` if it succeeds; owner
 * is given back by `release` at the end. 0 or -ENOMEM.
 */
int tls_seal_new(SSL *ssl, int fd, void *owner, void (*release)(void *owner),
		 struct seal **out);

/* The context that a server's connections begin with. */
SSL_CTX *tls_server_context(const struct tls_server *server);

/*
 * The keys that a server's session tickets are sealed with: the one in use, for
 * TICKETS_MS, and the one before, which opens what it has sealed for as long again.
 */
#define TICKETS_MS UINT64_C(3600000)

struct tls_ticket_key {
	uint8_t name[16]; /* stands in the ticket */
	uint8_t cipher[32], mac[32];
};

struct tls_tickets;

/* 0 or -ENOMEM. */
int tls_tickets_new(struct tls_tickets **out);
void tls_tickets_free(struct tls_tickets *tickets); /* accepts NULL */
/* Lets a context's tickets be made with them; they must outlive it. */
void tls_tickets_use(struct tls_tickets *tickets, SSL_CTX *context);
/* The key to seal with at this time, a copy to be wiped. */
void tls_tickets_current(struct tls_tickets *tickets, uint64_t now_ms,
			 struct tls_ticket_key *out);
/* That of a ticket: 1, 2 when it is the one before, 0 when it is gone. */
int tls_tickets_find(struct tls_tickets *tickets, uint64_t now_ms,
		     const uint8_t name[16], struct tls_ticket_key *out);

/* What the contexts of a server for datagrams have beside that. */
void dtls_context_init(SSL_CTX *context);

/* The oldest of OpenSSL's complaints in words, and forgets them all. */
const char *tls_complaint(void);

#endif
