/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One message, hostile: parsed, walked, read as every type, judged by auth,
 * written again. Whatever was accepted must survive being written and read. With a
 * nonce and a signature of ours added, nobody but who it names may get in.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "auth/internal.h"
#include "stun/stun.h"

#define NOW 1700000000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Unlike assert() it stays in every build. */
static void must(bool truth)
{
	if (!truth)
		abort();
}

static const uint8_t key[STUN_KEY_LEN] = "0123456789abcdef";

/* Every reader on every attribute: whatever the type says, bytes are bytes. */
static void read_as_everything(const struct stun_msg *msg,
			       const struct stun_attr *attr)
{
	const char *reason;
	size_t reason_len;
	union addr addr;
	uint32_t number;
	int code;

	must(attr->value >= msg->data + STUN_HEADER_LEN + 4);
	must(attr->value + attr->len <= msg->data + msg->len);
	must((stun_get_u32(attr, &number) == 0) == (attr->len == 4));
	if (stun_get_address(attr, &addr) == 0)
		must(attr->len == (addr_family(&addr) == AF_INET ? 8 : 20));
	if (stun_get_xor_address(msg, attr, &addr) == 0)
		must(attr->len == (addr_family(&addr) == AF_INET ? 8 : 20));
	if (stun_get_error(attr, &code, &reason, &reason_len) == 0) {
		must(code >= 300 && code <= 699);
		must(reason_len + 4 == attr->len);
	}
}

/* Any bytes as PASSWORD-ALGORITHMS: each step within them, or the end. */
static void walk_algorithms(const struct stun_attr *attr)
{
	size_t at = 0, before = 0;
	uint16_t number;
	bool plain;
	int more;

	while ((more = stun_next_algorithm(attr, &at, &number, &plain)) > 0) {
		must(at >= before + 4 && at <= attr->len && at % 4 == 0);
		must(plain == (at == before + 4));
		before = at;
	}
	must(at == before && (more == 0) == (at == attr->len));
}

static void check_walk(const struct stun_msg *msg)
{
	struct stun_attr attr, first;
	size_t at = 0, before = 0;

	while (stun_next(msg, &at, &attr)) {
		must(at > before && at <= msg->len);
		before = at;
		read_as_everything(msg, &attr);
		walk_algorithms(&attr);
		must(attr.type != STUN_ATTR_FINGERPRINT || at == msg->len);
		must(stun_has(msg, attr.type));
		must(stun_find(msg, attr.type, &first));
		must(first.type == attr.type && first.value <= attr.value);
	}
}

static void check_unknown(const struct stun_msg *msg)
{
	static const uint16_t known[] = { STUN_ATTR_USERNAME,
					  STUN_ATTR_MESSAGE_INTEGRITY };
	uint16_t types[8];
	size_t count = stun_unknown(msg, known, 2, types, 8);

	must(count <= 8);
	for (size_t i = 0; i < count; i++) {
		must(types[i] < 0x8000 && stun_has(msg, types[i]));
		must(types[i] != known[0] && types[i] != known[1]);
		for (size_t k = 0; k < i; k++)
			must(types[k] != types[i]);
	}
}

static bool is_seal(uint16_t type)
{
	return type == STUN_ATTR_MESSAGE_INTEGRITY ||
	       type == STUN_ATTR_MESSAGE_INTEGRITY_SHA256 ||
	       type == STUN_ATTR_FINGERPRINT;
}

/* Two realms: alice by her keys, anybody by a secret. */
static struct auth *auth_make(void)
{
	static const struct auth_params params = { .nonce_lifetime_s = 60 };
	struct auth_keys keys = { .md5.len = sizeof(key),
				  .sha256.len = STUN_SHA256_LEN };
	struct auth *auth;

	memcpy(keys.md5.bytes, key, sizeof(key));
	memcpy(keys.sha256.bytes, key, sizeof(key));
	must(auth_new(&params, &auth) == 0);
	must(auth_add_realm(auth, "example.org") == 0);
	must(auth_add_user(auth, "example.org", "alice", &keys) == 0);
	must(auth_add_realm(auth, "rtc") == 0);
	must(auth_add_secret(auth, "rtc", "secret") == 0);
	return auth;
}

/* A nonce of ours, of either realm. */
static void put_nonce(const struct auth *auth, struct stun_writer *w,
		      const char *realm)
{
	uint8_t buf[512];
	struct stun_writer challenge;
	struct stun_attr nonce;
	struct stun_msg msg;

	stun_begin(&challenge, buf, sizeof(buf), STUN_ERROR, STUN_ALLOCATE,
		   NULL);
	auth_challenge_put(auth, realm, NOW, NULL, &challenge);
	must(stun_end(&challenge) > 0);
	must(stun_parse(buf, challenge.len, &msg) == 0);
	must(stun_find(&msg, STUN_ATTR_NONCE, &nonce));
	stun_put(w, STUN_ATTR_NONCE, nonce.value, nonce.len);
}

/* The key that a request of the secret's realm must be signed with. */
static bool temporary_key(const struct stun_msg *msg, struct stun_key *out)
{
	struct auth_temporary temporary;
	char text[AUTH_NAME_MAX + 1];
	struct stun_attr name, one;
	bool sha256 = stun_find(msg, STUN_ATTR_PASSWORD_ALGORITHM, &one) &&
		      one.len == 4 && one.value[1] == STUN_ALGORITHM_SHA256;

	if (!stun_find(msg, STUN_ATTR_USERNAME, &name) ||
	    !auth_name_ok(name.value, name.len))
		return false;
	memcpy(text, name.value, name.len);
	text[name.len] = '\0';
	if (auth_temporary_read(text, &temporary))
		return false;
	must(strstr(text, temporary.user));
	return auth_temporary_key("secret", text, "rtc",
				  sha256 ? STUN_ALGORITHM_SHA256 :
					   STUN_ALGORITHM_MD5,
				  out) == 0;
}

/* Whoever was let in said who he is, once, and agreed on what was offered. */
static void must_be_somebody(const struct stun_msg *msg,
			     const struct auth_identity *id)
{
	struct stun_attr list, one;

	must(stun_has(msg, STUN_ATTR_USERNAME) !=
	     stun_has(msg, STUN_ATTR_USERHASH));
	must(stun_has(msg, STUN_ATTR_REALM) && stun_has(msg, STUN_ATTR_NONCE));
	must(strcmp(auth_account_realm(id->account), "rtc") == 0 ||
	     strcmp(auth_account_user(id->account), "alice") == 0);
	must(id->sha256 ==
	     stun_find(msg, STUN_ATTR_PASSWORD_ALGORITHMS, &list));
	must(id->sha256 == stun_find(msg, STUN_ATTR_PASSWORD_ALGORITHM, &one));
	must(!id->sha256 ||
	     (list.len == 8 && memcmp(list.value, "\0\2\0\0\0\1\0\0", 8) == 0));
}

/* The message with a nonce and the right key: what does the rest of it do? */
static void check_auth_signed(const struct auth *auth,
			      const struct stun_msg *msg, bool rtc, bool sha256)
{
	static uint8_t buf[STUN_MAX_LEN];
	struct stun_key by = { .len = sha256 ? STUN_SHA256_LEN : sizeof(key) };
	struct auth_identity id;
	struct stun_attr attr;
	struct stun_writer w;
	struct stun_msg again;
	size_t at = 0;
	int got;

	memcpy(by.bytes, key, sizeof(key));
	if (rtc && !temporary_key(msg, &by))
		return;
	stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, msg->method, msg->txid);
	put_nonce(auth, &w, rtc ? "rtc" : "example.org");
	while (stun_next(msg, &at, &attr))
		if (!is_seal(attr.type))
			stun_put(&w, attr.type, attr.value, attr.len);
	if (sha256)
		stun_put_integrity_sha256(&w, by.bytes, by.len);
	else
		stun_put_integrity(&w, by.bytes, by.len);
	if (stun_end(&w) < 0)
		return;
	must(stun_parse(buf, w.len, &again) == 0);
	got = auth_check(auth, &again, NOW, NULL, NULL, NULL, &id);
	must(got == 0 || got == -EBADMSG || got == -EKEYREJECTED ||
	     got == -EKEYEXPIRED);
	if (got)
		return;
	must_be_somebody(&again, &id);
	auth_account_unref(id.account);
}

static void check_auth(const struct stun_msg *msg)
{
	static struct auth *auth;
	struct auth_identity id;

	if (!auth)
		auth = auth_make();
	/* A nonce of ours takes our secret: nobody finds it. */
	must(auth_check(auth, msg, NOW, NULL, NULL, NULL, &id) < 0);
	for (int how = 0; how < 4; how++)
		check_auth_signed(auth, msg, how & 1, how & 2);
}

/* Writes what the walk shows, with the integrity attributes or without. */
static void rewrite(struct stun_writer *w, uint8_t *buf, size_t cap,
		    const struct stun_msg *msg, bool seals)
{
	struct stun_attr attr;
	size_t at = 0;

	stun_begin(w, buf, cap, msg->class, msg->method, msg->txid);
	while (stun_next(msg, &at, &attr))
		if (seals || !is_seal(attr.type))
			stun_put(w, attr.type, attr.value, attr.len);
}

static void must_be_alike(const struct stun_msg *a, const struct stun_msg *b)
{
	struct stun_attr in_a, in_b;
	size_t at_a = 0, at_b = 0;
	bool more;

	must(a->class == b->class && a->method == b->method);
	must(memcmp(a->data, b->data, 2) == 0);
	must(memcmp(a->txid, b->txid, STUN_TXID_LEN) == 0);
	do {
		more = stun_next(a, &at_a, &in_a);
		must(stun_next(b, &at_b, &in_b) == more);
		if (!more)
			break;
		must(in_a.type == in_b.type && in_a.len == in_b.len);
		must(memcmp(in_a.value, in_b.value, in_a.len) == 0);
	} while (more);
}

static void check_rewrite(const struct stun_msg *msg)
{
	static uint8_t buf[STUN_MAX_LEN], twin[STUN_MAX_LEN];
	struct stun_writer w;
	struct stun_msg again;
	ssize_t len;

	/* What the buffer held before must not show through the padding. */
	memset(buf, 0xff, msg->len);
	memset(twin, 0, msg->len);
	rewrite(&w, twin, sizeof(twin), msg, true);
	rewrite(&w, buf, sizeof(buf), msg, true);
	len = stun_end(&w);
	/* Never longer: the walk skips, and padding is the same. */
	must(len > 0 && (size_t)len <= msg->len);
	must(stun_frame(buf, (size_t)len) == len);
	must(stun_parse(buf, (size_t)len, &again) == 0);
	must_be_alike(msg, &again);
	must(memcmp(buf, twin, (size_t)len) == 0);
	/* And into a buffer that is one byte short. */
	rewrite(&w, buf, (size_t)len - 1, msg, true);
	must(stun_end(&w) < 0);
}

static void check_seal(const struct stun_msg *msg)
{
	static uint8_t buf[STUN_MAX_LEN];
	uint8_t other[STUN_KEY_LEN] = { 0 };
	struct stun_writer w;
	struct stun_msg again;

	rewrite(&w, buf, sizeof(buf), msg, false);
	stun_put_integrity(&w, key, sizeof(key));
	stun_put_integrity_sha256(&w, key, sizeof(key));
	stun_put_fingerprint(&w);
	if (stun_end(&w) < 0)
		return; /* the message was as long as they get */
	must(stun_parse(buf, w.len, &again) == 0);
	must(stun_check_integrity(&again, key, sizeof(key)) == 1);
	must(stun_check_integrity(&again, other, sizeof(other)) < 0);
	must(stun_check_integrity_sha256(&again, key, sizeof(key), 32) == 1);
	must(stun_check_integrity_sha256(&again, other, sizeof(other), 32) < 0);
	must(stun_check_fingerprint(&again) == 1);
	buf[8] ^= 1;
	must(stun_check_integrity_sha256(&again, key, sizeof(key), 16) < 0);
	must(stun_check_integrity(&again, key, sizeof(key)) < 0);
	must(stun_check_fingerprint(&again) < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct stun_msg msg;

	if (stun_parse(data, len, &msg))
		return 0;
	must(stun_frame(data, len) == (ssize_t)len);
	must(msg.len == len && msg.data == data && msg.txid == data + 8);
	must(msg.integrity_at < len && msg.fingerprint_at < len);
	must(stun_has(&msg, STUN_ATTR_FINGERPRINT) == !!msg.fingerprint_at);
	must(stun_has(&msg, STUN_ATTR_MESSAGE_INTEGRITY) == !!msg.integrity_at);
	must(stun_check_fingerprint(&msg) <= 1);
	must(stun_check_integrity(&msg, key, sizeof(key)) <= 1);
	must(stun_has(&msg, STUN_ATTR_MESSAGE_INTEGRITY_SHA256) ==
	     !!msg.integrity_sha256_at);
	must(stun_check_integrity_sha256(&msg, key, sizeof(key), 16) <= 1);
	/* Nothing uncovered may count as signed by the one that is checked. */
	must(!msg.integrity_sha256_at ||
	     msg.integrity_at < msg.integrity_sha256_at);
	check_walk(&msg);
	check_unknown(&msg);
	check_auth(&msg);
	check_rewrite(&msg);
	check_seal(&msg);
	return 0;
}
