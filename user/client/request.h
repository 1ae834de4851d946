/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One STUN request and its answer: credentials, signing, and the judgement of
 * what came back. No I/O; used on the control connection and on data connections.
 */
#ifndef CLIENT_REQUEST_H
#define CLIENT_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "culvert/client.h"
#include "stun/stun.h"

/* Most bytes of REALM and NONCE (RFC 8489 14.9, 14.10). */
#define CLIENT_TEXT_MAX 763
/* Most bytes of PASSWORD-ALGORITHMS that are sent back. */
#define CLIENT_ALGORITHMS_MAX 128
/* Room for a request with every text at its longest. */
#define CLIENT_REQUEST_MAX 2560

/* Why an answer did not count. */
#define CLIENT_NOT_SIGNED                                           \
	"the server's answer was not signed with our password, so " \
	"it does not count"

/* An error in the making: the text the public structure points at. */
struct client_failure {
	struct culvert_error error;
	char text[192];
};

/* Fills *out; `during` must be a constant. Unprintable bytes become '?'. */
void client_failure_set(struct client_failure *out, int code,
			const char *during, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Copies text of the network as a printable, NUL-terminated string. */
void client_text_copy(char *out, size_t size, const void *text, size_t len);

/* The long-term credentials of RFC 8489 9.2, shared by all connections. */
struct client_auth {
	char *user, *password; /* owned; NULL: none */
	char realm[CLIENT_TEXT_MAX + 1];
	uint8_t nonce[CLIENT_TEXT_MAX];
	size_t nonce_len; /* 0: the server has not asked yet */
	/* PASSWORD-ALGORITHMS as the server sent it; a len of 0: it did not. */
	uint8_t algorithms[CLIENT_ALGORITHMS_MAX];
	size_t algorithms_len;
	enum stun_algorithm algorithm; /* that makes the key */
	bool hashed; /* the server asks for USERHASH */
	uint8_t userhash[STUN_SHA256_LEN];
	struct stun_key key;
};

/*
 * user NULL: without credentials. 0; -EINVAL: too long, no password, or characters
 * that neither may have; -ENOMEM.
 */
int client_auth_init(struct client_auth *auth, const char *user,
		     const char *password);
void client_auth_wipe(struct client_auth *auth);
/* Forgets what the server has said, for another one to be asked. */
void client_auth_forget(struct client_auth *auth);

struct client_request {
	uint16_t method;
	uint8_t txid[STUN_TXID_LEN];
	bool authenticated; /* carried credentials: so must the answer */
	bool sha256; /* with MESSAGE-INTEGRITY-SHA256: so must the answer */
	struct stun_key key; /* they were signed with */
	unsigned int challenges; /* 401 and 438 met so far */
	unsigned int discarded; /* answers that did not count: not signed */
};

typedef void (*client_fill_fn)(struct stun_writer *w, const void *arg);

/*
 * Writes the request under a new transaction id: what fill puts, credentials if
 * the server has asked for them, FINGERPRINT. Returns its length, or -ENOBUFS,
 * -ENOMEM, -EIO.
 */
ssize_t client_request_write(struct client_request *request,
			     const struct client_auth *auth,
			     client_fill_fn fill, const void *arg, uint8_t *buf,
			     size_t cap);

enum client_verdict {
	CLIENT_VERDICT_DISCARD, /* as if it had never come: wait on */
	CLIENT_VERDICT_SUCCESS,
	CLIENT_VERDICT_AGAIN, /* a challenge, learnt: write it once more */
	/* *failure tells; -EBADMSG: not signed as it must be */
	CLIENT_VERDICT_ERROR,
};

/*
 * Judges a message with this request's transaction id (RFC 8489 6.3.3, 6.3.4,
 * 9.2.5) and learns realm, nonce and algorithms from challenges.
 */
enum client_verdict client_request_judge(struct client_request *request,
					 struct client_auth *auth,
					 const struct stun_msg *msg,
					 struct client_failure *failure);

#endif
