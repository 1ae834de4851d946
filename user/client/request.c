/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests and answers under long-term credentials (RFC 8489 9.2).
 *
 * A request starts without credentials until the server has challenged once;
 * from then on realm and nonce are used on every connection, for servers need
 * not bind nonces to a connection. A challenge is answered at most
 * CHALLENGES_MAX times per request, so that no server keeps us in a circle, and a
 * second 401 under the same key means that the password is wrong.
 */
#include "client/request.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
	const unsigned char *in = text;
	size_t n = len < size ? len : size - 1;

	/* Bytes above ASCII pass: they may be UTF-8. Control bytes would move
	 * a terminal.
	 */
	for (size_t i = 0; i < n; i++)
		out[i] = in[i] < 0x20 || in[i] == 0x7f ? '?' : (char)in[i];
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
	memset(auth, 0, sizeof(*auth));
	if (!user)
		return 0;
	if (!*user || !password || strlen(user) > CULVERT_USER_MAX ||
	    strlen(password) > CULVERT_USER_MAX)
		return -EINVAL;
	auth->user = strdup(user);
	auth->password = strdup(password);
	if (auth->user && auth->password)
		return 0;
	client_auth_wipe(auth);
	return -ENOMEM;
}

void client_auth_wipe(struct client_auth *auth)
{
	if (auth->password)
		crypto_wipe(auth->password, strlen(auth->password));
	free(auth->password);
	free(auth->user);
	crypto_wipe(auth, sizeof(*auth));
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
	if (request->authenticated) {
		memcpy(request->key, auth->key, sizeof(request->key));
		stun_put_string(&w, STUN_ATTR_USERNAME, auth->user);
		stun_put_string(&w, STUN_ATTR_REALM, auth->realm);
		stun_put(&w, STUN_ATTR_NONCE, auth->nonce, auth->nonce_len);
		stun_put_integrity(&w, auth->key, sizeof(auth->key));
	}
	stun_put_fingerprint(&w);
	if (!w.error)
		memcpy(request->txid, buf + 8, sizeof(request->txid));
	return stun_end(&w);
}

/* Takes realm and nonce over: 0, or -EBADMSG and nothing changes. */
static int challenge_learn(struct client_auth *auth, const struct stun_msg *msg)
{
	char text[CLIENT_TEXT_MAX + 1];
	struct stun_attr realm, nonce;
	const char *name = auth->realm;
	uint8_t key[STUN_KEY_LEN];
	int err;

	if (!stun_find(msg, STUN_ATTR_NONCE, &nonce) || nonce.len == 0 ||
	    nonce.len > CLIENT_TEXT_MAX)
		return -EBADMSG;
	/* RFC 5766 servers may leave the realm out of a 438. */
	if (stun_find(msg, STUN_ATTR_REALM, &realm)) {
		if (realm.len > CLIENT_TEXT_MAX ||
		    memchr(realm.value, 0, realm.len))
			return -EBADMSG;
		memcpy(text, realm.value, realm.len);
		text[realm.len] = '\0';
		name = text;
	} else if (!auth->nonce_len) {
		return -EBADMSG;
	}
	err = stun_long_term_key(auth->user, name, auth->password, key);
	if (err)
		return err;
	memcpy(auth->key, key, sizeof(key));
	crypto_wipe(key, sizeof(key));
	if (name != auth->realm)
		memcpy(auth->realm, name, strlen(name) + 1);
	memcpy(auth->nonce, nonce.value, nonce.len);
	auth->nonce_len = nonce.len;
	return 0;
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
				   during,
				   "a challenge without a usable realm and "
				   "nonce");
		return CLIENT_VERDICT_ERROR;
	}
	request->challenges++;
	if (code == STUN_CODE_UNAUTHENTICATED && request->authenticated &&
	    request->challenges > 1 &&
	    crypto_equal(request->key, auth->key, sizeof(auth->key))) {
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

static enum client_verdict judge_error(struct client_request *request,
				       struct client_auth *auth,
				       const struct stun_msg *msg,
				       int integrity,
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
	if (request->authenticated && integrity != 1) {
		request->discarded++;
		return CLIENT_VERDICT_DISCARD;
	}
	failure_from_answer(request, msg, code, reason, reason_len, failure);
	return CLIENT_VERDICT_ERROR;
}

enum client_verdict client_request_judge(struct client_request *request,
					 struct client_auth *auth,
					 const struct stun_msg *msg,
					 struct client_failure *failure)
{
	uint16_t unknown;
	int integrity = 0;

	if (msg->method != request->method ||
	    (msg->class != STUN_SUCCESS && msg->class != STUN_ERROR) ||
	    stun_check_fingerprint(msg) < 0)
		return CLIENT_VERDICT_DISCARD;
	if (request->authenticated)
		integrity = stun_check_integrity(msg, request->key,
						 sizeof(request->key));
	if (msg->class == STUN_ERROR)
		return judge_error(request, auth, msg, integrity, failure);
	if (request->authenticated && integrity != 1) {
		request->discarded++;
		return CLIENT_VERDICT_DISCARD;
	}
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
