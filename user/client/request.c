/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests and answers under long-term credentials (RFC 8489 9.2).
 *
 * A request starts without credentials until the server has challenged once;
 * from then on realm and nonce are used on every connection, for servers need
 * not bind nonces to a connection. A challenge is answered at most
 * CHALLENGES_MAX times per request, so that no server keeps us in a circle, and a
 * second 401 under the same key means that the password is wrong.
 *
 * Challenges are not signed. Who takes the password algorithms out of one is found
 * out by the nonce, which announces them (9.2.1); who makes a nonce of his own
 * gets no further than that with a server whose challenge was heard before, for
 * nothing weaker than what was agreed on then is used (client_auth_strength).
 */
#include "client/request.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/opaque.h"
#include "base/secret.h"
#include "base/utf8.h"
#include "crypto/crypto.h"

#define CHALLENGES_MAX 3

/* Comprehension-required attributes an answer may have, ascending. */
static const uint16_t known[] = {
	STUN_ATTR_MAPPED_ADDRESS,
	STUN_ATTR_USERNAME,
	STUN_ATTR_MESSAGE_INTEGRITY,
	STUN_ATTR_ERROR_CODE,
	STUN_ATTR_UNKNOWN_ATTRIBUTES,
	STUN_ATTR_LIFETIME,
	STUN_ATTR_XOR_PEER_ADDRESS,
	STUN_ATTR_REALM,
	STUN_ATTR_NONCE,
	STUN_ATTR_XOR_RELAYED_ADDRESS,
	STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
	STUN_ATTR_REQUESTED_TRANSPORT,
	STUN_ATTR_MESSAGE_INTEGRITY_SHA256,
	STUN_ATTR_XOR_MAPPED_ADDRESS,
	STUN_ATTR_CONNECTION_ID,
};

void client_text_copy(char *out, size_t size, const void *text, size_t len)
{
	size_t n = len < size ? len : size - 1;

	/* Control characters would move a terminal. */
	memcpy(out, text, n);
	utf8_sanitize(out, n);
	out[n] = '\0';
}

void client_failure_set(struct client_failure *out, int code,
			const char *during, const char *fmt, ...)
{
	char text[sizeof(out->text)];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	client_text_copy(out->text, sizeof(out->text), text, strlen(text));
	out->error.code = code;
	out->error.during = during;
	out->error.reason = out->text;
}

int client_auth_init(struct client_auth *auth, const char *user,
		     const char *password)
{
	int err;

	memset(auth, 0, sizeof(*auth));
	if (!user)
		return 0;
	if (!password)
		return -EINVAL;
	err = opaque_prepare(user, &auth->user);
	if (!err)
		err = opaque_prepare(password, &auth->password);
	if (!err && (strlen(auth->user) > CULVERT_USER_MAX ||
		     strlen(auth->password) > CULVERT_USER_MAX))
		err = -EINVAL;
	if (err)
		client_auth_wipe(auth);
	return err;
}

void client_auth_wipe(struct client_auth *auth)
{
	if (auth->password)
		crypto_wipe(auth->password, strlen(auth->password));
	free(auth->password);
	free(auth->user);
	crypto_wipe(auth, sizeof(*auth));
}

void client_auth_forget(struct client_auth *auth)
{
	char *user = auth->user, *password = auth->password;

	crypto_wipe(auth, sizeof(*auth));
	auth->user = user;
	auth->password = password;
}

static void credentials_put(struct stun_writer *w,
			    struct client_request *request,
			    const struct client_auth *auth)
{
	request->key = auth->key;
	request->sha256 = auth->algorithms_len != 0;
	if (auth->hashed)
		stun_put(w, STUN_ATTR_USERHASH, auth->userhash,
			 sizeof(auth->userhash));
	else
		stun_put_string(w, STUN_ATTR_USERNAME, auth->user);
	stun_put_string(w, STUN_ATTR_REALM, auth->realm);
	stun_put(w, STUN_ATTR_NONCE, auth->nonce, auth->nonce_len);
	if (!request->sha256) {
		stun_put_integrity(w, auth->key.bytes, auth->key.len);
		return;
	}
	stun_put(w, STUN_ATTR_PASSWORD_ALGORITHMS, auth->algorithms,
		 auth->algorithms_len);
	stun_put_algorithms(w, STUN_ATTR_PASSWORD_ALGORITHM, &auth->algorithm,
			    1);
	stun_put_integrity_sha256(w, auth->key.bytes, auth->key.len);
}

ssize_t client_request_write(struct client_request *request,
			     const struct client_auth *auth,
			     client_fill_fn fill, const void *arg, uint8_t *buf,
			     size_t cap)
{
	struct stun_writer w;

	stun_begin(&w, buf, cap, STUN_REQUEST, request->method, NULL);
	if (fill)
		fill(&w, arg);
	stun_put_string(&w, STUN_ATTR_SOFTWARE, "culvert " CULVERT_VERSION);
	request->authenticated = auth->user && auth->nonce_len &&
				 request->method != STUN_BINDING;
	if (request->authenticated)
		credentials_put(&w, request, auth);
	stun_put_fingerprint(&w);
	if (!w.error)
		memcpy(request->txid, buf + 8, sizeof(request->txid));
	return stun_end(&w);
}

/* The security features of a nonce: bit 0 is 32, bit 1 is 16 (RFC 8489 18.1). */
#define FEATURE_ALGORITHMS 32
#define FEATURE_ANONYMITY  16

/* The first six of the 24 bits behind the nonce's cookie; 0 without a cookie. */
static unsigned int nonce_features(const struct stun_attr *nonce)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
		"0123456789+/";
	const char *digit;

	if (nonce->len < 13 || memcmp(nonce->value, "obMatJos2", 9) != 0 ||
	    !nonce->value[9])
		return 0;
	digit = strchr(digits, nonce->value[9]);
	return digit ? (unsigned int)(digit - digits) : 0;
}

/* Does it announce password algorithms that are not there (RFC 8489 9.2.5)? */
static bool algorithms_missing(const struct stun_msg *msg)
{
	struct stun_attr nonce;

	return stun_find(msg, STUN_ATTR_NONCE, &nonce) &&
	       nonce_features(&nonce) & FEATURE_ALGORITHMS &&
	       !stun_has(msg, STUN_ATTR_PASSWORD_ALGORITHMS);
}

/*
 * The list of a challenge and the first of it that is known here. 0; -EBADMSG:
 * not a list we could send back; -ENOTSUP: none is known.
 */
static int algorithms_learn(struct client_auth *auth,
			    const struct stun_msg *msg)
{
	struct stun_attr list;
	size_t at = 0;
	uint16_t number;
	bool plain;
	int more;

	auth->algorithms_len = 0;
	auth->algorithm = STUN_ALGORITHM_MD5;
	if (!stun_find(msg, STUN_ATTR_PASSWORD_ALGORITHMS, &list))
		return 0;
	if (list.len == 0 || list.len > sizeof(auth->algorithms))
		return -EBADMSG;
	memcpy(auth->algorithms, list.value, list.len);
	auth->algorithms_len = list.len;
	while ((more = stun_next_algorithm(&list, &at, &number, &plain)) > 0)
		if (plain && (number == STUN_ALGORITHM_SHA256 ||
			      number == STUN_ALGORITHM_MD5)) {
			auth->algorithm = (enum stun_algorithm)number;
			return 0;
		}
	return more ? more : -ENOTSUP;
}

/* What stands in the way of a thief, from nothing heard yet up. */
static int client_auth_strength(const struct client_auth *auth)
{
	if (!auth->algorithms_len)
		return 0;
	return auth->algorithm == STUN_ALGORITHM_SHA256 ? 2 : 1;
}

static int nonce_learn(struct client_auth *auth, const struct stun_msg *msg)
{
	struct stun_attr realm, nonce;

	if (!stun_find(msg, STUN_ATTR_NONCE, &nonce) || nonce.len == 0 ||
	    nonce.len > CLIENT_TEXT_MAX)
		return -EBADMSG;
	/* RFC 5766 servers may leave the realm out of a 438. */
	if (stun_find(msg, STUN_ATTR_REALM, &realm)) {
		if (realm.len > CLIENT_TEXT_MAX ||
		    memchr(realm.value, 0, realm.len))
			return -EBADMSG;
		memcpy(auth->realm, realm.value, realm.len);
		auth->realm[realm.len] = '\0';
	} else if (!auth->nonce_len) {
		return -EBADMSG;
	}
	memcpy(auth->nonce, nonce.value, nonce.len);
	auth->nonce_len = nonce.len;
	auth->hashed = nonce_features(&nonce) & FEATURE_ANONYMITY;
	return 0;
}

/* RFC 8489 9.2.2; the server's own spelling of its realm is what it gets back. */
static int key_make(struct client_auth *auth)
{
	bool sha256 = auth->algorithm == STUN_ALGORITHM_SHA256;
	char *realm;
	int err = opaque_prepare(auth->realm, &realm);

	if (err)
		return err == -EINVAL ? -EBADMSG : err;
	auth->key.len = sha256 ? STUN_SHA256_LEN : STUN_KEY_LEN;
	err = sha256 ? stun_long_term_key_sha256(auth->user, realm,
						 auth->password,
						 auth->key.bytes) :
		       stun_long_term_key(auth->user, realm, auth->password,
					  auth->key.bytes);
	if (!err && auth->hashed)
		err = stun_userhash(auth->user, strlen(auth->user), realm,
				    strlen(realm), auth->userhash);
	free(realm);
	return err;
}

/*
 * Takes a challenge over. Otherwise nothing changes: -EBADMSG it is malformed,
 * -ENOTSUP no algorithm of it is known, -EKEYREJECTED it bids down, -ENOMEM, -EIO.
 */
static int challenge_learn(struct client_auth *auth, const struct stun_msg *msg)
{
	struct client_auth new = *auth;
	int err;

	err = nonce_learn(&new, msg);
	if (!err && algorithms_missing(msg))
		err = -EKEYREJECTED;
	if (!err)
		err = algorithms_learn(&new, msg);
	if (!err && client_auth_strength(&new) < client_auth_strength(auth))
		err = -EKEYREJECTED;
	if (!err)
		err = key_make(&new);
	if (!err)
		*auth = new;
	crypto_wipe(&new, sizeof(new));
	return err;
}

static const char *challenge_trouble(int err)
{
	switch (err) {
	case -EKEYREJECTED:
		return "weaker credentials than the server offers: somebody on "
		       "the way may have changed its challenge";
	case -ENOTSUP:
		return "no password algorithm of the server's is known here";
	default:
		return "a challenge without a usable realm and nonce";
	}
}

static enum client_verdict judge_challenge(struct client_request *request,
					   struct client_auth *auth,
					   const struct stun_msg *msg, int code,
					   struct client_failure *failure)
{
	const char *during = stun_method_name(request->method);
	int err;

	if (!auth->user) {
		client_failure_set(failure, code, during,
				   "the server asks for credentials and there "
				   "are none");
		return CLIENT_VERDICT_ERROR;
	}
	err = challenge_learn(auth, msg);
	if (err) {
		client_failure_set(failure, err == -EBADMSG ? -EPROTO : err,
				   during, "%s", challenge_trouble(err));
		return CLIENT_VERDICT_ERROR;
	}
	request->challenges++;
	if (code == STUN_CODE_UNAUTHENTICATED && request->authenticated &&
	    request->challenges > 1 && request->key.len == auth->key.len &&
	    secret_equal(request->key.bytes, auth->key.bytes, auth->key.len)) {
		client_failure_set(failure, code, during,
				   "user name or password is wrong (realm %s)",
				   auth->realm);
		return CLIENT_VERDICT_ERROR;
	}
	if (request->challenges > CHALLENGES_MAX) {
		client_failure_set(failure, code, during,
				   "the server refused %d nonces it had just "
				   "given",
				   CHALLENGES_MAX);
		return CLIENT_VERDICT_ERROR;
	}
	return CLIENT_VERDICT_AGAIN;
}

static void failure_from_answer(const struct client_request *request,
				const struct stun_msg *msg, int code,
				const char *reason, size_t reason_len,
				struct client_failure *failure)
{
	const char *during = stun_method_name(request->method);
	char addr_text[ADDR_STRLEN];
	struct stun_attr attr;
	union addr other;

	if (!reason_len) {
		reason = stun_reason(code);
		reason_len = strlen(reason);
	}
	if (code == STUN_CODE_TRY_ALTERNATE &&
	    stun_find(msg, STUN_ATTR_ALTERNATE_SERVER, &attr) &&
	    !stun_get_address(&attr, &other))
		client_failure_set(failure, code, during,
				   "the server asks to use %s instead",
				   addr_format(&other, addr_text));
	else
		client_failure_set(failure, code, during, "%.*s",
				   (int)reason_len, reason);
}

static bool is_signed(const struct stun_msg *msg)
{
	return stun_has(msg, STUN_ATTR_MESSAGE_INTEGRITY) ||
	       stun_has(msg, STUN_ATTR_MESSAGE_INTEGRITY_SHA256);
}

/*
 * RFC 8489 9.2.5: over a reliable transport, and there is no other here, an answer
 * that is not signed as it must be ends the transaction at once. Two kinds are
 * ignored instead: one whose nonce shows that something was taken out, and an
 * unsigned 400 (`code`), which a server may have to give. It may know no better.
 */
static enum client_verdict judge_untrusted(struct client_request *request,
					   const struct stun_msg *msg, int code,
					   struct client_failure *failure)
{
	if (algorithms_missing(msg) ||
	    (code == STUN_CODE_BAD_REQUEST && !is_signed(msg))) {
		request->discarded++;
		return CLIENT_VERDICT_DISCARD;
	}
	client_failure_set(failure, -EBADMSG, stun_method_name(request->method),
			   CLIENT_NOT_SIGNED);
	return CLIENT_VERDICT_ERROR;
}

static enum client_verdict judge_error(struct client_request *request,
				       struct client_auth *auth,
				       const struct stun_msg *msg, bool trusted,
				       struct client_failure *failure)
{
	struct stun_attr attr;
	const char *reason;
	size_t reason_len;
	int code;

	if (!stun_find(msg, STUN_ATTR_ERROR_CODE, &attr) ||
	    stun_get_error(&attr, &code, &reason, &reason_len))
		return CLIENT_VERDICT_DISCARD;
	if (request->method != STUN_BINDING &&
	    (code == STUN_CODE_UNAUTHENTICATED ||
	     code == STUN_CODE_STALE_NONCE))
		return judge_challenge(request, auth, msg, code, failure);
	if (!trusted)
		return judge_untrusted(request, msg, code, failure);
	failure_from_answer(request, msg, code, reason, reason_len, failure);
	return CLIENT_VERDICT_ERROR;
}

/* Signed as the request was, with our key, if the request was signed. */
static bool answer_trusted(const struct client_request *request,
			   const struct stun_msg *msg)
{
	const struct stun_key *key = &request->key;

	if (algorithms_missing(msg))
		return false;
	if (!request->authenticated)
		return true;
	if (request->sha256)
		return stun_check_integrity_sha256(msg, key->bytes, key->len,
						   STUN_SHA256_LEN) == 1;
	return stun_check_integrity(msg, key->bytes, key->len) == 1;
}

enum client_verdict client_request_judge(struct client_request *request,
					 struct client_auth *auth,
					 const struct stun_msg *msg,
					 struct client_failure *failure)
{
	uint16_t unknown;
	bool trusted;

	if (msg->method != request->method ||
	    (msg->class != STUN_SUCCESS && msg->class != STUN_ERROR) ||
	    stun_check_fingerprint(msg) < 0)
		return CLIENT_VERDICT_DISCARD;
	trusted = answer_trusted(request, msg);
	if (msg->class == STUN_ERROR)
		return judge_error(request, auth, msg, trusted, failure);
	if (!trusted)
		return judge_untrusted(request, msg, 0, failure);
	if (stun_unknown(msg, known, sizeof(known) / sizeof(known[0]), &unknown,
			 1)) {
		client_failure_set(failure, -EPROTO,
				   stun_method_name(request->method),
				   "the answer demands attribute 0x%04x, "
				   "which is not known here",
				   unknown);
		return CLIENT_VERDICT_ERROR;
	}
	return CLIENT_VERDICT_SUCCESS;
}
