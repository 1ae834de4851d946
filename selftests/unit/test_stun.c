/* SPDX-License-Identifier: BSD-2-Clause */
/* The codec: framing, parsing, walking, values, encoding, integrity. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "crypto/crypto.h"
#include "stun/stun.h"

static const uint8_t txid[STUN_TXID_LEN] = "abcdefghijkl";
static const uint8_t key[STUN_KEY_LEN] = "0123456789abcdef";

/* A message put together by hand, so that the encoder's rules do not bind. */
struct raw {
	uint8_t data[512];
	size_t len;
};

static void raw_begin(struct raw *raw, uint16_t type)
{
	memset(raw, 0, sizeof(*raw));
	put_be16(raw->data, type);
	put_be32(raw->data + 4, STUN_MAGIC);
	memcpy(raw->data + 8, txid, sizeof(txid));
	raw->len = STUN_HEADER_LEN;
}

/* Appends an attribute that says `len` and holds that many bytes, padded. */
static void raw_put(struct raw *raw, uint16_t type, const void *value,
		    size_t len)
{
	uint8_t *attr = raw->data + raw->len;

	assert_true(raw->len + 4 + len + 3 <= sizeof(raw->data));
	put_be16(attr, type);
	put_be16(attr + 2, (uint16_t)len);
	if (len)
		memcpy(attr + 4, value, len);
	raw->len += 4 + ((len + 3) & ~(size_t)3);
	put_be16(raw->data + 2, (uint16_t)(raw->len - STUN_HEADER_LEN));
}

/* Parses an exact copy on the heap: reading past it is caught. */
static int raw_parse(const struct raw *raw, struct stun_msg *msg,
		     uint8_t **heap)
{
	*heap = malloc(raw->len);
	assert_non_null(*heap);
	memcpy(*heap, raw->data, raw->len);
	return stun_parse(*heap, raw->len, msg);
}

static void assert_refused(const struct raw *raw)
{
	struct stun_msg msg, before;
	uint8_t *heap;

	memset(&msg, 0x5a, sizeof(msg));
	memcpy(&before, &msg, sizeof(msg));
	assert_int_equal(raw_parse(raw, &msg, &heap), -EBADMSG);
	assert_memory_equal(&msg, &before, sizeof(msg));
	free(heap);
}

static void assert_accepted(const struct raw *raw)
{
	struct stun_msg msg;
	uint8_t *heap;

	assert_int_equal(raw_parse(raw, &msg, &heap), 0);
	assert_int_equal(msg.len, raw->len);
	free(heap);
}

static void frame_waits_for_a_header(void **state)
{
	struct raw raw;

	(void)state;
	raw_begin(&raw, 0x0003);
	for (size_t len = 0; len < STUN_HEADER_LEN; len++)
		assert_int_equal(stun_frame(raw.data, len), 0);
	assert_int_equal(stun_frame(raw.data, STUN_HEADER_LEN),
			 STUN_HEADER_LEN);
	assert_int_equal(stun_frame(NULL, 0), 0);
}

static void frame_tells_the_length_before_it_is_there(void **state)
{
	struct raw raw;

	(void)state;
	raw_begin(&raw, 0x0003);
	put_be16(raw.data + 2, 65532);
	assert_int_equal(stun_frame(raw.data, STUN_HEADER_LEN), STUN_MAX_LEN);
	put_be16(raw.data + 2, 8);
	assert_int_equal(stun_frame(raw.data, STUN_HEADER_LEN), 28);
	assert_int_equal(stun_frame(raw.data, sizeof(raw.data)), 28);
}

/* Changes one byte and says from how many bytes on the frame must be refused. */
static void assert_judged_at(size_t at, uint8_t value)
{
	struct raw raw;

	raw_begin(&raw, 0x0003);
	raw.data[at] = value;
	for (size_t len = 0; len <= STUN_HEADER_LEN; len++)
		assert_int_equal(stun_frame(raw.data, len) == -EBADMSG,
				 len > at);
}

static void frame_refuses_as_early_as_it_can(void **state)
{
	(void)state;
	assert_judged_at(0, 0x40); /* ChannelData */
	assert_judged_at(0, 0x80);
	assert_judged_at(0, 0x47); /* "GET /" */
	assert_judged_at(3, 1);
	assert_judged_at(3, 2);
	assert_judged_at(3, 3);
	assert_judged_at(4, 0x20);
	assert_judged_at(5, 0);
	assert_judged_at(6, 0);
	assert_judged_at(7, 0);
}

static void header_alone_is_a_message(void **state)
{
	struct raw raw;
	struct stun_msg msg;
	struct stun_attr attr;
	size_t at = 0;

	(void)state;
	raw_begin(&raw, 0x0001);
	assert_int_equal(stun_parse(raw.data, raw.len, &msg), 0);
	assert_ptr_equal(msg.data, raw.data);
	assert_int_equal(msg.len, STUN_HEADER_LEN);
	assert_memory_equal(msg.txid, txid, sizeof(txid));
	assert_int_equal(msg.integrity_at, 0);
	assert_int_equal(msg.fingerprint_at, 0);
	assert_int_equal(msg.integrity_sha256_at, 0);
	assert_false(stun_next(&msg, &at, &attr));
	assert_int_equal(stun_check_fingerprint(&msg), 0);
	assert_int_equal(stun_check_integrity(&msg, key, sizeof(key)), 0);
}

static void parse_wants_the_whole_message(void **state)
{
	struct raw raw;
	struct stun_msg msg;

	(void)state;
	raw_begin(&raw, 0x0001);
	raw_put(&raw, STUN_ATTR_USERNAME, "alice", 5);
	for (size_t len = 0; len < raw.len; len++)
		assert_int_equal(stun_parse(raw.data, len, &msg), -EBADMSG);
	assert_int_equal(stun_parse(raw.data, raw.len + 4, &msg), -EBADMSG);
	assert_int_equal(stun_parse(raw.data, raw.len, &msg), 0);
}

static void parse_refuses_a_bad_header(void **state)
{
	struct raw raw;

	(void)state;
	raw_begin(&raw, 0x4001);
	assert_refused(&raw);
	raw_begin(&raw, 0x8001);
	assert_refused(&raw);
	raw_begin(&raw, 0x0001);
	raw.data[7] ^= 1;
	assert_refused(&raw);
	raw_begin(&raw, 0x0001);
	raw.data[raw.len++] = 0;
	raw.data[3] = 1;
	assert_refused(&raw);
}

/* The attribute's own length field, against the bytes that are there. */
static void parse_refuses_lengths_past_the_end(void **state)
{
	struct raw raw;

	(void)state;
	for (unsigned int len = 0; len <= 0xffff; len++) {
		raw_begin(&raw, 0x0001);
		raw_put(&raw, STUN_ATTR_USERNAME, "12345678", 8);
		put_be16(raw.data + STUN_HEADER_LEN + 2, (uint16_t)len);
		/* Up to 4 leave 4 bytes behind: another attribute, empty. */
		memset(raw.data + STUN_HEADER_LEN + 8, 0, 4);
		if (len >= 1 && len <= 8)
			assert_accepted(&raw);
		else
			assert_refused(&raw);
	}
}

static void parse_refuses_a_torn_attribute_header(void **state)
{
	struct raw raw;

	(void)state;
	raw_begin(&raw, 0x0001);
	raw_put(&raw, STUN_ATTR_USERNAME, "1234", 4);
	/* The padding of 5 bytes is not there. */
	raw.data[STUN_HEADER_LEN + 3] = 5;
	assert_refused(&raw);
}

static void every_class_and_method_survives(void **state)
{
	uint8_t buf[STUN_HEADER_LEN];
	struct stun_writer w;
	struct stun_msg msg;

	(void)state;
	for (uint16_t method = 0; method <= 0xfff; method++)
		for (int class = STUN_REQUEST; class <= STUN_ERROR; class ++) {
			stun_begin(&w, buf, sizeof(buf),
				   (enum stun_class) class, method, txid);
			assert_int_equal(stun_end(&w), sizeof(buf));
			assert_int_equal(stun_parse(buf, sizeof(buf), &msg), 0);
			assert_int_equal(msg.class, class);
			assert_int_equal(msg.method, method);
		}
	stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, 0x1000, txid);
	assert_int_equal(stun_end(&w), -EINVAL);
}

/* The wire values of RFC 8656 and RFC 6062, which a round trip cannot tell. */
static void types_are_laced_as_registered(void **state)
{
	static const struct {
		enum stun_class class;
		uint16_t method, wire;
	} cases[] = {
		{ STUN_REQUEST, STUN_BINDING, 0x0001 },
		{ STUN_INDICATION, STUN_BINDING, 0x0011 },
		{ STUN_SUCCESS, STUN_BINDING, 0x0101 },
		{ STUN_ERROR, STUN_BINDING, 0x0111 },
		{ STUN_ERROR, STUN_ALLOCATE, 0x0113 },
		{ STUN_REQUEST, STUN_CONNECT, 0x000a },
		{ STUN_SUCCESS, STUN_CONNECTION_BIND, 0x010b },
		{ STUN_INDICATION, STUN_CONNECTION_ATTEMPT, 0x001c },
		{ STUN_REQUEST, 0x010, 0x0020 },
		{ STUN_REQUEST, 0x080, 0x0200 },
		{ STUN_ERROR, 0xfff, 0x3fff },
	};
	uint8_t buf[STUN_HEADER_LEN];
	struct stun_writer w;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		stun_begin(&w, buf, sizeof(buf), cases[i].class,
			   cases[i].method, txid);
		assert_int_equal(get_be16(buf), cases[i].wire);
	}
}

static void first_of_repeated_attributes_counts(void **state)
{
	struct raw raw;
	struct stun_msg msg;
	struct stun_attr attr;
	size_t at = 0;

	(void)state;
	raw_begin(&raw, 0x0008);
	raw_put(&raw, STUN_ATTR_USERNAME, "one", 3);
	raw_put(&raw, STUN_ATTR_REALM, "r", 1);
	raw_put(&raw, STUN_ATTR_USERNAME, "second", 6);
	assert_int_equal(stun_parse(raw.data, raw.len, &msg), 0);
	assert_true(stun_find(&msg, STUN_ATTR_USERNAME, &attr));
	assert_int_equal(attr.len, 3);
	assert_memory_equal(attr.value, "one", 3);
	assert_true(stun_has(&msg, STUN_ATTR_REALM));
	assert_false(stun_has(&msg, STUN_ATTR_NONCE));
	/* The walk shows them all, in their order. */
	assert_true(stun_next(&msg, &at, &attr));
	assert_true(stun_next(&msg, &at, &attr));
	assert_int_equal(attr.type, STUN_ATTR_REALM);
	assert_true(stun_next(&msg, &at, &attr));
	assert_int_equal(attr.len, 6);
	assert_false(stun_next(&msg, &at, &attr));
	assert_false(stun_next(&msg, &at, &attr));
}

static void absent_attribute_leaves_out_alone(void **state)
{
	struct stun_attr attr = { .type = 7, .len = 9, .value = txid };
	struct raw raw;
	struct stun_msg msg;
	size_t at = 0;

	(void)state;
	raw_begin(&raw, 0x0001);
	assert_int_equal(stun_parse(raw.data, raw.len, &msg), 0);
	assert_false(stun_find(&msg, STUN_ATTR_DATA, &attr));
	assert_false(stun_next(&msg, &at, &attr));
	assert_int_equal(attr.type, 7);
	assert_int_equal(attr.len, 9);
	assert_ptr_equal(attr.value, txid);
}

static void empty_value_is_there(void **state)
{
	struct raw raw;
	struct stun_msg msg;
	struct stun_attr attr;

	(void)state;
	raw_begin(&raw, 0x0001);
	raw_put(&raw, STUN_ATTR_DATA, NULL, 0);
	assert_int_equal(stun_parse(raw.data, raw.len, &msg), 0);
	assert_true(stun_find(&msg, STUN_ATTR_DATA, &attr));
	assert_int_equal(attr.len, 0);
	assert_non_null(attr.value);
}

static void what_follows_integrity_is_ignored(void **state)
{
	uint8_t mac[32] = { 0 };
	struct raw raw;
	struct stun_msg msg;
	struct stun_attr attr;
	uint16_t unknown[4];
	size_t first;

	(void)state;
	raw_begin(&raw, 0x0003);
	raw_put(&raw, STUN_ATTR_USERNAME, "alice", 5);
	first = raw.len;
	raw_put(&raw, STUN_ATTR_MESSAGE_INTEGRITY, mac, 20);
	raw_put(&raw, STUN_ATTR_USERNAME, "mallory", 7);
	raw_put(&raw, STUN_ATTR_REALM, "evil", 4);
	raw_put(&raw, 0x7777, "x", 1);
	raw_put(&raw, STUN_ATTR_MESSAGE_INTEGRITY, mac, 20);
	raw_put(&raw, STUN_ATTR_MESSAGE_INTEGRITY_SHA256, mac, 32);
	raw_put(&raw, STUN_ATTR_LIFETIME, mac, 4);
	raw_put(&raw, STUN_ATTR_FINGERPRINT, mac, 4);
	assert_int_equal(stun_parse(raw.data, raw.len, &msg), 0);
	assert_int_equal(msg.integrity_at, first);
	assert_true(stun_find(&msg, STUN_ATTR_USERNAME, &attr));
	assert_memory_equal(attr.value, "alice", 5);
	assert_false(stun_has(&msg, STUN_ATTR_REALM));
	assert_false(stun_has(&msg, STUN_ATTR_LIFETIME));
	assert_true(stun_has(&msg, STUN_ATTR_MESSAGE_INTEGRITY_SHA256));
	assert_true(stun_has(&msg, STUN_ATTR_FINGERPRINT));
	assert_int_equal(msg.fingerprint_at, raw.len - 8);
	assert_int_equal(stun_unknown(&msg, NULL, 0, unknown, 4), 3);
	assert_int_equal(unknown[0], STUN_ATTR_USERNAME);
	assert_int_equal(unknown[1], STUN_ATTR_MESSAGE_INTEGRITY);
	assert_int_equal(unknown[2], STUN_ATTR_MESSAGE_INTEGRITY_SHA256);
}

/* Without MESSAGE-INTEGRITY its SHA-256 sister closes the list. */
static void what_follows_sha256_integrity_is_ignored(void **state)
{
	uint8_t mac[32] = { 0 };
	struct raw raw;
	struct stun_msg msg;
	struct stun_attr attr;
	size_t at = 0;

	(void)state;
	raw_begin(&raw, 0x0003);
	raw_put(&raw, STUN_ATTR_MESSAGE_INTEGRITY_SHA256, mac, 32);
	raw_put(&raw, STUN_ATTR_USERNAME, "mallory", 7);
	raw_put(&raw, STUN_ATTR_MESSAGE_INTEGRITY_SHA256, mac, 32);
	raw_put(&raw, STUN_ATTR_FINGERPRINT, mac, 4);
	assert_int_equal(stun_parse(raw.data, raw.len, &msg), 0);
	assert_int_equal(msg.integrity_at, 0);
	assert_int_equal(msg.integrity_sha256_at, STUN_HEADER_LEN);
	assert_true(stun_next(&msg, &at, &attr));
	assert_int_equal(attr.type, STUN_ATTR_MESSAGE_INTEGRITY_SHA256);
	assert_true(stun_next(&msg, &at, &attr));
	assert_int_equal(attr.type, STUN_ATTR_FINGERPRINT);
	assert_false(stun_next(&msg, &at, &attr));
}

/*
 * What the one that is checked does not cover must not count (RFC 8489 14.6): who
 * appends a name and a MESSAGE-INTEGRITY to a signed message gains nothing.
 */
static void integrity_behind_sha256_does_not_count(void **state)
{
	uint8_t mac[32] = { 0 };
	struct raw raw;
	struct stun_msg msg;

	(void)state;
	raw_begin(&raw, 0x0003);
	raw_put(&raw, STUN_ATTR_MESSAGE_INTEGRITY_SHA256, mac, 32);
	raw_put(&raw, STUN_ATTR_USERNAME, "alice", 5);
	raw_put(&raw, STUN_ATTR_MESSAGE_INTEGRITY, mac, 20);
	raw_put(&raw, STUN_ATTR_REALM, "evil", 4);
	raw_put(&raw, STUN_ATTR_FINGERPRINT, mac, 4);
	assert_int_equal(stun_parse(raw.data, raw.len, &msg), 0);
	assert_int_equal(msg.integrity_sha256_at, STUN_HEADER_LEN);
	assert_int_equal(msg.integrity_at, 0);
	assert_false(stun_has(&msg, STUN_ATTR_MESSAGE_INTEGRITY));
	assert_false(stun_has(&msg, STUN_ATTR_USERNAME));
	assert_false(stun_has(&msg, STUN_ATTR_REALM));
	assert_true(stun_has(&msg, STUN_ATTR_FINGERPRINT));
}

static void fingerprint_must_be_last(void **state)
{
	uint8_t zero[20] = { 0 };
	struct raw raw;

	(void)state;
	raw_begin(&raw, 0x0001);
	raw_put(&raw, STUN_ATTR_FINGERPRINT, zero, 4);
	assert_accepted(&raw);
	raw_put(&raw, STUN_ATTR_SOFTWARE, "x", 1);
	assert_refused(&raw);

	raw_begin(&raw, 0x0001);
	raw_put(&raw, STUN_ATTR_MESSAGE_INTEGRITY, zero, 20);
	raw_put(&raw, STUN_ATTR_FINGERPRINT, zero, 4);
	raw_put(&raw, STUN_ATTR_USERNAME, "x", 1);
	assert_refused(&raw);

	raw_begin(&raw, 0x0001);
	raw_put(&raw, STUN_ATTR_FINGERPRINT, zero, 4);
	raw_put(&raw, STUN_ATTR_FINGERPRINT, zero, 4);
	assert_refused(&raw);
}

static void padding_may_hold_anything(void **state)
{
	struct raw raw;
	struct stun_msg msg;
	struct stun_attr attr;

	(void)state;
	raw_begin(&raw, 0x0001);
	raw_put(&raw, STUN_ATTR_USERNAME, "a", 1);
	raw_put(&raw, STUN_ATTR_REALM, "r", 1);
	memset(raw.data + STUN_HEADER_LEN + 5, 0xff, 3);
	assert_int_equal(stun_parse(raw.data, raw.len, &msg), 0);
	assert_true(stun_find(&msg, STUN_ATTR_REALM, &attr));
	assert_int_equal(attr.len, 1);
}

static void unaligned_message_is_read(void **state)
{
	uint8_t odd[128];
	struct stun_writer w;
	struct stun_msg msg;
	struct stun_attr attr;
	union addr peer, got;
	uint32_t lifetime;

	(void)state;
	assert_int_equal(addr_parse("[2001:db8::7]:9", 0, &peer), 0);
	for (size_t shift = 0; shift < 4; shift++) {
		stun_begin(&w, odd + shift, 120, STUN_REQUEST, STUN_CONNECT,
			   txid);
		stun_put_u32(&w, STUN_ATTR_LIFETIME, 600);
		stun_put_xor_address(&w, STUN_ATTR_XOR_PEER_ADDRESS, &peer);
		stun_put_integrity(&w, key, sizeof(key));
		stun_put_fingerprint(&w);
		assert_true(stun_end(&w) > 0);
		assert_int_equal(stun_parse(odd + shift, w.len, &msg), 0);
		assert_true(stun_find(&msg, STUN_ATTR_LIFETIME, &attr));
		assert_int_equal(stun_get_u32(&attr, &lifetime), 0);
		assert_int_equal(lifetime, 600);
		assert_true(stun_find(&msg, STUN_ATTR_XOR_PEER_ADDRESS, &attr));
		assert_int_equal(stun_get_xor_address(&msg, &attr, &got), 0);
		assert_true(addr_equal(&got, &peer));
		assert_int_equal(stun_check_integrity(&msg, key, sizeof(key)),
				 1);
		assert_int_equal(stun_check_fingerprint(&msg), 1);
	}
}

static void unknown_types_are_listed_once(void **state)
{
	static const uint16_t known[] = { STUN_ATTR_USERNAME, STUN_ATTR_REALM };
	struct raw raw;
	struct stun_msg msg;
	uint16_t out[3] = { 0 };

	(void)state;
	raw_begin(&raw, 0x0003);
	raw_put(&raw, 0x7fff, NULL, 0);
	raw_put(&raw, STUN_ATTR_USERNAME, "x", 1);
	raw_put(&raw, 0x0002, NULL, 0);
	raw_put(&raw, 0x7fff, NULL, 0);
	raw_put(&raw, 0x8000, NULL, 0); /* comprehension-optional */
	raw_put(&raw, 0xffff, NULL, 0);
	raw_put(&raw, STUN_ATTR_REALM, "x", 1);
	raw_put(&raw, 0x0000, NULL, 0);
	assert_int_equal(stun_parse(raw.data, raw.len, &msg), 0);
	assert_int_equal(stun_unknown(&msg, known, 2, out, 3), 3);
	assert_int_equal(out[0], 0x7fff);
	assert_int_equal(out[1], 0x0002);
	assert_int_equal(out[2], 0x0000);
	out[1] = 0xaaaa;
	assert_int_equal(stun_unknown(&msg, known, 2, out, 1), 1);
	assert_int_equal(out[1], 0xaaaa);
	assert_int_equal(stun_unknown(&msg, known, 2, NULL, 0), 0);
}

static void u32_wants_four_bytes(void **state)
{
	struct stun_attr attr = { .value = (const uint8_t *)"\1\2\3\4\5" };
	uint32_t value = 77;

	(void)state;
	for (attr.len = 0; attr.len <= 5; attr.len++) {
		if (attr.len == 4)
			continue;
		assert_int_equal(stun_get_u32(&attr, &value), -EBADMSG);
		assert_int_equal(value, 77);
	}
	attr.len = 4;
	assert_int_equal(stun_get_u32(&attr, &value), 0);
	assert_int_equal(value, 0x01020304);
	attr.value = NULL;
	assert_int_equal(stun_get_u32(&attr, &value), -EBADMSG);
}

static void address_length_must_fit_its_family(void **state)
{
	uint8_t value[21] = { 0 };
	struct stun_attr attr = { .value = value };
	union addr out, before;

	(void)state;
	memset(&out, 0x5a, sizeof(out));
	before = out;
	for (int family = 0; family < 256; family++) {
		value[1] = (uint8_t)family;
		for (attr.len = 0; attr.len <= sizeof(value); attr.len++) {
			bool right = (family == 1 && attr.len == 8) ||
				     (family == 2 && attr.len == 20);

			out = before;
			assert_int_equal(stun_get_address(&attr, &out),
					 right ? 0 : -EBADMSG);
			if (!right)
				assert_memory_equal(&out, &before, sizeof(out));
		}
	}
	attr.value = NULL;
	attr.len = 8;
	assert_int_equal(stun_get_address(&attr, &out), -EBADMSG);
}

static void plain_address_is_read_as_it_stands(void **state)
{
	/* The first byte is ignored (RFC 8489 14.1). */
	static const uint8_t v4[] = { 0xff, 1, 0x0d, 0x96, 192, 0, 2, 33 };
	static const uint8_t v6[] = { 0, 2, 0, 80, 0x20, 1, 0x0d, 0xb8, 0, 0,
				      0, 0, 0, 0,  0,    0, 0,    0,    0, 5 };
	struct stun_attr attr = { .value = v4, .len = sizeof(v4) };
	char text[ADDR_STRLEN];
	union addr out;

	(void)state;
	assert_int_equal(stun_get_address(&attr, &out), 0);
	assert_string_equal(addr_format(&out, text), "192.0.2.33:3478");
	attr = (struct stun_attr){ .value = v6, .len = sizeof(v6) };
	assert_int_equal(stun_get_address(&attr, &out), 0);
	assert_string_equal(addr_format(&out, text), "[2001:db8::5]:80");
}

static void xor_addresses_survive(void **state)
{
	static const char *const texts[] = {
		"0.0.0.0:0",
		"255.255.255.255:65535",
		"33.18.164.66:8466",
		"192.0.2.1:3478",
		"[::]:0",
		"[2001:db8::1]:49152",
		"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
		"[::ffff:192.0.2.1]:1",
	};
	uint8_t buf[128];
	struct stun_writer w;
	struct stun_msg msg;
	struct stun_attr attr;
	union addr put, got;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		assert_int_equal(addr_parse(texts[i], 0, &put), 0);
		stun_begin(&w, buf, sizeof(buf), STUN_SUCCESS, STUN_ALLOCATE,
			   NULL);
		stun_put_xor_address(&w, STUN_ATTR_XOR_RELAYED_ADDRESS, &put);
		assert_true(stun_end(&w) > 0);
		assert_int_equal(stun_parse(buf, w.len, &msg), 0);
		assert_true(
			stun_find(&msg, STUN_ATTR_XOR_RELAYED_ADDRESS, &attr));
		assert_int_equal(stun_get_xor_address(&msg, &attr, &got), 0);
		assert_true(addr_equal(&put, &got));
	}
}

static void error_code_is_read_and_bounded(void **state)
{
	/* Reserved bits set: they are ignored. */
	uint8_t value[] = { 0xff, 0xff, 0xfc, 1, 'h', 'e', 'y' };
	struct stun_attr attr = { .value = value, .len = sizeof(value) };
	const char *reason = NULL;
	size_t reason_len = 99;
	int code = -1;

	(void)state;
	assert_int_equal(stun_get_error(&attr, &code, &reason, &reason_len), 0);
	assert_int_equal(code, 401);
	assert_int_equal(reason_len, 3);
	assert_memory_equal(reason, "hey", 3);
	for (int hundreds = 0; hundreds < 8; hundreds++)
		for (int rest = 0; rest < 256; rest++) {
			bool right = hundreds >= 3 && hundreds <= 6 &&
				     rest < 100;

			value[2] = (uint8_t)hundreds;
			value[3] = (uint8_t)rest;
			code = -1;
			assert_int_equal(stun_get_error(&attr, &code, &reason,
							&reason_len),
					 right ? 0 : -EBADMSG);
			assert_int_equal(code,
					 right ? hundreds * 100 + rest : -1);
		}
	value[2] = 4;
	value[3] = 0;
	attr.len = 4;
	assert_int_equal(stun_get_error(&attr, &code, &reason, &reason_len), 0);
	assert_int_equal(reason_len, 0);
	attr.len = 3;
	assert_int_equal(stun_get_error(&attr, &code, &reason, &reason_len),
			 -EBADMSG);
	attr = (struct stun_attr){ .len = 4 };
	assert_int_equal(stun_get_error(&attr, &code, &reason, &reason_len),
			 -EBADMSG);
}

static void errors_carry_the_registered_phrase(void **state)
{
	static const struct {
		int code;
		const char *phrase;
	} cases[] = {
		{ 300, "Try Alternate" },
		{ 400, "Bad Request" },
		{ 401, "Unauthenticated" },
		{ 403, "Forbidden" },
		{ 420, "Unknown Attribute" },
		{ 437, "Allocation Mismatch" },
		{ 438, "Stale Nonce" },
		{ 440, "Address Family not Supported" },
		{ 441, "Wrong Credentials" },
		{ 442, "Unsupported Transport Protocol" },
		{ 443, "Peer Address Family Mismatch" },
		{ 446, "Connection Already Exists" },
		{ 447, "Connection Timeout or Failure" },
		{ 486, "Allocation Quota Reached" },
		{ 500, "Server Error" },
		{ 508, "Insufficient Capacity" },
		{ 699, "Error" },
	};
	uint8_t buf[128];
	struct stun_writer w;
	struct stun_msg msg;
	struct stun_attr attr;
	const char *reason;
	size_t reason_len;
	int code;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		stun_begin(&w, buf, sizeof(buf), STUN_ERROR, STUN_CONNECT,
			   txid);
		stun_put_error(&w, cases[i].code);
		assert_true(stun_end(&w) > 0);
		assert_int_equal(stun_parse(buf, w.len, &msg), 0);
		assert_true(stun_find(&msg, STUN_ATTR_ERROR_CODE, &attr));
		assert_int_equal(
			stun_get_error(&attr, &code, &reason, &reason_len), 0);
		assert_int_equal(code, cases[i].code);
		assert_int_equal(reason_len, strlen(cases[i].phrase));
		assert_memory_equal(reason, cases[i].phrase, reason_len);
		assert_string_equal(stun_reason(code), cases[i].phrase);
	}
}

static void methods_have_names(void **state)
{
	(void)state;
	assert_string_equal(stun_method_name(STUN_BINDING), "Binding");
	assert_string_equal(stun_method_name(STUN_ALLOCATE), "Allocate");
	assert_string_equal(stun_method_name(STUN_REFRESH), "Refresh");
	assert_string_equal(stun_method_name(STUN_SEND), "Send");
	assert_string_equal(stun_method_name(STUN_DATA), "Data");
	assert_string_equal(stun_method_name(STUN_CREATE_PERMISSION),
			    "CreatePermission");
	assert_string_equal(stun_method_name(STUN_CHANNEL_BIND), "ChannelBind");
	assert_string_equal(stun_method_name(STUN_CONNECT), "Connect");
	assert_string_equal(stun_method_name(STUN_CONNECTION_BIND),
			    "ConnectionBind");
	assert_string_equal(stun_method_name(STUN_CONNECTION_ATTEMPT),
			    "ConnectionAttempt");
	assert_string_equal(stun_method_name(0), "unknown");
	assert_string_equal(stun_method_name(0xfff), "unknown");
}

static void transaction_ids_are_random_unless_given(void **state)
{
	uint8_t one[STUN_HEADER_LEN], two[STUN_HEADER_LEN];
	struct stun_writer w;

	(void)state;
	stun_begin(&w, one, sizeof(one), STUN_REQUEST, STUN_ALLOCATE, NULL);
	stun_begin(&w, two, sizeof(two), STUN_REQUEST, STUN_ALLOCATE, NULL);
	assert_memory_not_equal(one + 8, two + 8, STUN_TXID_LEN);
	stun_begin(&w, one, sizeof(one), STUN_REQUEST, STUN_ALLOCATE, txid);
	assert_memory_equal(one + 8, txid, STUN_TXID_LEN);
}

static void padding_is_written_as_zero(void **state)
{
	static const uint8_t zero[3];
	uint8_t buf[64];
	struct stun_writer w;

	(void)state;
	for (size_t len = 0; len <= 8; len++) {
		size_t padding = (4 - len % 4) % 4;

		memset(buf, 0xff, sizeof(buf));
		stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_BINDING,
			   txid);
		stun_put(&w, STUN_ATTR_DATA, "abcdefgh", len);
		assert_int_equal(stun_end(&w),
				 STUN_HEADER_LEN + 4 + len + padding);
		assert_int_equal(get_be16(buf + 2), 4 + len + padding);
		assert_int_equal(get_be16(buf + STUN_HEADER_LEN + 2), len);
		assert_memory_equal(buf + STUN_HEADER_LEN + 4, "abcdefgh", len);
		assert_memory_equal(buf + STUN_HEADER_LEN + 4 + len, zero,
				    padding);
		assert_int_equal(buf[w.len], 0xff);
	}
}

static void u8_has_three_zero_bytes(void **state)
{
	static const uint8_t expected[] = { 0x00, 0x19, 0, 4, 6, 0, 0, 0 };
	uint8_t buf[64];
	struct stun_writer w;

	(void)state;
	memset(buf, 0xff, sizeof(buf));
	stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_ALLOCATE, txid);
	stun_put_u8(&w, STUN_ATTR_REQUESTED_TRANSPORT, STUN_TRANSPORT_TCP);
	assert_int_equal(stun_end(&w), STUN_HEADER_LEN + 8);
	assert_memory_equal(buf + STUN_HEADER_LEN, expected, 8);
}

static void unknown_attributes_are_written(void **state)
{
	static const uint16_t types[] = { 0x7fff, 0x0002, 0x0018 };
	static const uint8_t expected[] = { 0x00, 0x0a, 0, 6,    0x7f, 0xff,
					    0,    2,    0, 0x18, 0,    0 };
	uint8_t buf[64];
	struct stun_writer w;

	(void)state;
	memset(buf, 0xff, sizeof(buf));
	stun_begin(&w, buf, sizeof(buf), STUN_ERROR, STUN_ALLOCATE, txid);
	stun_put_unknown(&w, types, 3);
	assert_int_equal(stun_end(&w), STUN_HEADER_LEN + sizeof(expected));
	assert_memory_equal(buf + STUN_HEADER_LEN, expected, sizeof(expected));
}

/* Everything the encoder can put, into a buffer of every size up to enough. */
static ssize_t put_all(uint8_t *buf, size_t cap)
{
	static const uint16_t types[] = { 1, 2, 3 };
	struct stun_writer w;
	union addr addr;

	assert_int_equal(addr_parse("[2001:db8::1]:1", 0, &addr), 0);
	stun_begin(&w, buf, cap, STUN_ERROR, STUN_ALLOCATE, txid);
	stun_put(&w, STUN_ATTR_DATA, "12345", 5);
	stun_put_u32(&w, STUN_ATTR_LIFETIME, 1);
	stun_put_u8(&w, STUN_ATTR_REQUESTED_TRANSPORT, 6);
	stun_put_string(&w, STUN_ATTR_REALM, "realm");
	stun_put_xor_address(&w, STUN_ATTR_XOR_PEER_ADDRESS, &addr);
	stun_put_error(&w, 420);
	stun_put_unknown(&w, types, 3);
	stun_put_integrity(&w, key, sizeof(key));
	stun_put_fingerprint(&w);
	return stun_end(&w);
}

static void overflow_sticks_at_every_size(void **state)
{
	uint8_t large[512];
	ssize_t need = put_all(large, sizeof(large));

	(void)state;
	assert_true(need > 0);
	for (size_t cap = 0; cap < (size_t)need; cap++) {
		/* Exactly so large: a write past it is caught. */
		uint8_t *buf = malloc(cap ? cap : 1);

		assert_non_null(buf);
		assert_int_equal(put_all(buf, cap), -ENOBUFS);
		free(buf);
	}
	assert_int_equal(put_all(large, (size_t)need), need);
}

static void put_after_an_error_does_nothing(void **state)
{
	uint8_t buf[STUN_HEADER_LEN + 8];
	struct stun_writer w;

	(void)state;
	stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_BINDING, txid);
	stun_put(&w, STUN_ATTR_DATA, "123456789", 9);
	/* This would fit, but the message is no longer what was meant. */
	stun_put_u32(&w, STUN_ATTR_LIFETIME, 1);
	assert_int_equal(stun_end(&w), -ENOBUFS);
	assert_int_equal(w.len, STUN_HEADER_LEN);
	/* The first error is the one that is told. */
	stun_put_error(&w, 1);
	assert_int_equal(stun_end(&w), -ENOBUFS);
}

static void largest_message_is_written_and_read(void **state)
{
	static uint8_t buf[STUN_MAX_LEN + 64], value[65536];
	struct stun_writer w;
	struct stun_msg msg;
	struct stun_attr attr;

	(void)state;
	stun_begin(&w, buf, sizeof(buf), STUN_INDICATION, STUN_DATA, txid);
	stun_put(&w, STUN_ATTR_DATA, value, 65528);
	assert_int_equal(stun_end(&w), STUN_MAX_LEN);
	assert_int_equal(stun_frame(buf, w.len), STUN_MAX_LEN);
	assert_int_equal(stun_parse(buf, w.len, &msg), 0);
	assert_true(stun_find(&msg, STUN_ATTR_DATA, &attr));
	assert_int_equal(attr.len, 65528);
	/* Not even an empty attribute goes behind it. */
	stun_put(&w, STUN_ATTR_SOFTWARE, NULL, 0);
	assert_int_equal(stun_end(&w), -EINVAL);
}

static void values_past_16_bits_are_refused(void **state)
{
	static const size_t lens[] = {
		65529,        65532,        65533,   65535,
		65536,        65540,        131072,  (size_t)1 << 32,
		SIZE_MAX - 8, SIZE_MAX - 3, SIZE_MAX
	};
	static uint8_t buf[4 * 65536];
	struct stun_writer w;

	(void)state;
	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		stun_begin(&w, buf, sizeof(buf), STUN_INDICATION, STUN_DATA,
			   txid);
		stun_put(&w, STUN_ATTR_DATA, buf, lens[i]);
		assert_int_equal(stun_end(&w), -EINVAL);
	}
}

static void counts_past_16_bits_are_refused(void **state)
{
	static const size_t counts[] = { 32765, 32766, 65536, SIZE_MAX / 2 + 2,
					 SIZE_MAX };
	static const uint16_t types[1];
	static uint8_t buf[4 * 65536];
	struct stun_writer w;

	(void)state;
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		stun_begin(&w, buf, sizeof(buf), STUN_ERROR, STUN_DATA, txid);
		stun_put_unknown(&w, types, counts[i]);
		assert_int_equal(stun_end(&w), -EINVAL);
	}
}

static void nonsense_is_not_written(void **state)
{
	static const int codes[] = { -1, 0, 299, 700, 100000 };
	union addr none = { .sa.sa_family = AF_UNSPEC };
	uint8_t buf[128];
	struct stun_writer w;

	(void)state;
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		stun_begin(&w, buf, sizeof(buf), STUN_ERROR, STUN_DATA, txid);
		stun_put_error(&w, codes[i]);
		assert_int_equal(stun_end(&w), -EINVAL);
	}
	stun_begin(&w, buf, sizeof(buf), STUN_ERROR, STUN_DATA, txid);
	stun_put_xor_address(&w, STUN_ATTR_XOR_PEER_ADDRESS, &none);
	assert_int_equal(stun_end(&w), -EINVAL);
}

/* An attacker appends and rewrites the length: what was signed still stands. */
static void integrity_covers_what_is_before_it(void **state)
{
	struct raw raw;
	struct stun_msg msg;
	struct stun_writer w;

	(void)state;
	raw_begin(&raw, 0);
	stun_begin(&w, raw.data, sizeof(raw.data), STUN_REQUEST, STUN_ALLOCATE,
		   txid);
	stun_put_string(&w, STUN_ATTR_USERNAME, "alice");
	stun_put_integrity(&w, key, sizeof(key));
	raw.len = w.len;
	raw_put(&raw, STUN_ATTR_SOFTWARE, "appended", 8);
	assert_int_equal(stun_parse(raw.data, raw.len, &msg), 0);
	assert_int_equal(stun_check_integrity(&msg, key, sizeof(key)), 1);
	assert_false(stun_has(&msg, STUN_ATTR_SOFTWARE));
	raw.data[STUN_HEADER_LEN + 4] ^= 1;
	assert_int_equal(stun_check_integrity(&msg, key, sizeof(key)),
			 -EBADMSG);
}

static void integrity_of_another_length_is_wrong(void **state)
{
	struct raw raw;
	struct stun_msg msg;
	struct stun_writer w;
	uint8_t mac[32] = { 0 }, *heap;

	(void)state;
	for (size_t len = 0; len <= sizeof(mac); len++) {
		raw_begin(&raw, 0x0003);
		raw_put(&raw, STUN_ATTR_MESSAGE_INTEGRITY, mac, len);
		assert_int_equal(raw_parse(&raw, &msg, &heap), 0);
		assert_int_equal(stun_check_integrity(&msg, key, sizeof(key)),
				 -EBADMSG);
		free(heap);
	}
	/* Even with the right bytes there, some of them called padding. */
	stun_begin(&w, raw.data, sizeof(raw.data), STUN_REQUEST, STUN_ALLOCATE,
		   txid);
	stun_put_integrity(&w, key, sizeof(key));
	for (uint8_t len = 17; len <= 20; len++) {
		raw.data[STUN_HEADER_LEN + 3] = len;
		assert_int_equal(stun_parse(raw.data, w.len, &msg), 0);
		assert_int_equal(stun_check_integrity(&msg, key, sizeof(key)),
				 len == 20 ? 1 : -EBADMSG);
	}
}

/* Both may be there, the SHA-256 one behind and over the other. */
static void sha256_integrity_covers_what_is_before_it(void **state)
{
	uint8_t buf[512], longer[32] = "0123456789abcdef0123456789abcdef";
	struct stun_writer w;
	struct stun_msg msg;

	(void)state;
	for (int both = 0; both < 2; both++) {
		stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_ALLOCATE,
			   txid);
		stun_put_string(&w, STUN_ATTR_USERNAME, "alice");
		if (both)
			stun_put_integrity(&w, key, sizeof(key));
		stun_put_integrity_sha256(&w, longer, sizeof(longer));
		stun_put_fingerprint(&w);
		assert_int_equal(stun_end(&w),
				 20 + 12 + (both ? 24 : 0) + 36 + 8);
		assert_int_equal(stun_parse(buf, w.len, &msg), 0);
		assert_int_equal(msg.integrity_at, both ? 32 : 0);
		assert_int_equal(stun_check_integrity(&msg, key, sizeof(key)),
				 both);
		assert_int_equal(stun_check_integrity_sha256(
					 &msg, longer, sizeof(longer), 32),
				 1);
		assert_int_equal(stun_check_integrity_sha256(
					 &msg, longer, sizeof(longer) - 1, 32),
				 -EBADMSG);
		for (size_t i = 0; i < msg.integrity_sha256_at + 36; i++) {
			buf[i] ^= 1;
			if (stun_parse(buf, w.len, &msg) == 0)
				assert_int_not_equal(
					stun_check_integrity_sha256(
						&msg, longer, sizeof(longer),
						16),
					1);
			buf[i] ^= 1;
		}
	}
}

/* RFC 8489 14.6: 16 to 32 bytes in fours, and not fewer than the usage wants. */
static void sha256_integrity_may_be_cut(void **state)
{
	uint8_t whole[512], *heap;
	struct stun_writer w;
	struct stun_msg msg;
	struct raw raw;
	bool fits;

	(void)state;
	for (size_t len = 0; len <= 40; len++) {
		/* The header's length is under the digest: one for each. */
		memset(whole, 0, sizeof(whole));
		stun_begin(&w, whole, sizeof(whole), STUN_REQUEST,
			   STUN_ALLOCATE, txid);
		put_be16(whole + 2, (uint16_t)(4 + len));
		struct iovec part = { whole, 20 };

		assert_int_equal(crypto_hmac_sha256(key, sizeof(key), &part, 1,
						    whole + 24),
				 0);
		raw_begin(&raw, 0x0003);
		raw_put(&raw, STUN_ATTR_MESSAGE_INTEGRITY_SHA256, whole + 24,
			len);
		assert_int_equal(raw_parse(&raw, &msg, &heap), 0);
		fits = len >= 16 && len <= 32 && len % 4 == 0;
		assert_int_equal(stun_check_integrity_sha256(&msg, key,
							     sizeof(key), 16),
				 fits ? 1 : -EBADMSG);
		/* No usage may go below 16. */
		assert_int_equal(stun_check_integrity_sha256(&msg, key,
							     sizeof(key), 0),
				 fits ? 1 : -EBADMSG);
		assert_int_equal(stun_check_integrity_sha256(&msg, key,
							     sizeof(key), 32),
				 len == 32 ? 1 : -EBADMSG);
		free(heap);
	}
}

/* What PASSWORD-ALGORITHMS of these bytes holds; -1: malformed. */
static int algorithms_read(const void *value, size_t len, uint16_t *numbers,
			   bool *plain)
{
	struct stun_attr attr;
	struct stun_msg msg;
	uint8_t *heap;
	struct raw raw;
	size_t at = 0;
	int count = 0, more;

	raw_begin(&raw, 0x0113);
	raw_put(&raw, STUN_ATTR_PASSWORD_ALGORITHMS, value, len);
	assert_int_equal(raw_parse(&raw, &msg, &heap), 0);
	assert_true(stun_find(&msg, STUN_ATTR_PASSWORD_ALGORITHMS, &attr));
	while ((more = stun_next_algorithm(&attr, &at, &numbers[count],
					   &plain[count])) > 0)
		count++;
	free(heap);
	assert_true(more == 0 || more == -EBADMSG);
	return more ? -1 : count;
}

static void password_algorithms_are_walked(void **state)
{
	uint16_t numbers[8];
	bool plain[8];

	(void)state;
	assert_int_equal(algorithms_read("", 0, numbers, plain), 0);
	assert_int_equal(algorithms_read("\0\2\0\0\0\1\0\0", 8, numbers, plain),
			 2);
	assert_int_equal(numbers[0], STUN_ALGORITHM_SHA256);
	assert_int_equal(numbers[1], STUN_ALGORITHM_MD5);
	assert_true(plain[0] && plain[1]);
	/* Parameters are padded as an attribute is. */
	assert_int_equal(algorithms_read("\x12\x34\0\5abcdexyz\0\1\0\0", 16,
					 numbers, plain),
			 2);
	assert_int_equal(numbers[0], 0x1234);
	assert_int_equal(numbers[1], STUN_ALGORITHM_MD5);
	assert_true(!plain[0] && plain[1]);
	for (size_t len = 1; len < 4; len++)
		assert_int_equal(algorithms_read("\0\1\0", len, numbers, plain),
				 -1);
	assert_int_equal(algorithms_read("\0\1\0\1", 4, numbers, plain), -1);
	assert_int_equal(algorithms_read("\0\1\0\5abcdefg", 11, numbers, plain),
			 -1);
	assert_int_equal(algorithms_read("\0\1\xff\xff"
					 "abcd",
					 8, numbers, plain),
			 -1);
	assert_int_equal(algorithms_read("\0\1\0\0\0", 5, numbers, plain), -1);
}

static void password_algorithms_are_written(void **state)
{
	static const enum stun_algorithm both[] = { STUN_ALGORITHM_SHA256,
						    STUN_ALGORITHM_MD5 };
	struct stun_writer w;
	struct stun_attr attr;
	struct stun_msg msg;
	uint8_t buf[64];

	(void)state;
	memset(buf, 0xff, sizeof(buf));
	stun_begin(&w, buf, sizeof(buf), STUN_ERROR, STUN_ALLOCATE, txid);
	stun_put_algorithms(&w, STUN_ATTR_PASSWORD_ALGORITHMS, both, 2);
	stun_put_algorithms(&w, STUN_ATTR_PASSWORD_ALGORITHM, both, 1);
	assert_int_equal(stun_end(&w), 20 + 12 + 8);
	assert_int_equal(stun_parse(buf, w.len, &msg), 0);
	assert_true(stun_find(&msg, STUN_ATTR_PASSWORD_ALGORITHMS, &attr));
	assert_int_equal(attr.len, 8);
	assert_memory_equal(attr.value, "\0\2\0\0\0\1\0\0", 8);
	assert_true(stun_find(&msg, STUN_ATTR_PASSWORD_ALGORITHM, &attr));
	assert_int_equal(attr.len, 4);
	assert_memory_equal(attr.value, "\0\2\0\0", 4);
	stun_put_algorithms(&w, STUN_ATTR_PASSWORD_ALGORITHMS, both, SIZE_MAX);
	assert_int_equal(stun_end(&w), -EINVAL);
}

/* The first of two counts, even when only the second is right. */
static void second_integrity_does_not_help(void **state)
{
	uint8_t zero[20] = { 0 };
	struct raw raw;
	struct stun_msg msg;
	struct stun_writer w;

	(void)state;
	stun_begin(&w, raw.data, sizeof(raw.data), STUN_REQUEST, STUN_ALLOCATE,
		   txid);
	stun_put(&w, STUN_ATTR_MESSAGE_INTEGRITY, zero, sizeof(zero));
	stun_put_integrity(&w, key, sizeof(key));
	assert_int_equal(stun_parse(raw.data, w.len, &msg), 0);
	assert_int_equal(msg.integrity_at, STUN_HEADER_LEN);
	assert_int_equal(stun_check_integrity(&msg, key, sizeof(key)),
			 -EBADMSG);
}

static void fingerprint_of_another_length_is_wrong(void **state)
{
	struct raw raw;
	struct stun_msg msg;
	struct stun_writer w;
	uint8_t sum[8] = { 0 }, *heap;

	(void)state;
	for (size_t len = 0; len <= sizeof(sum); len++) {
		raw_begin(&raw, 0x0001);
		raw_put(&raw, STUN_ATTR_FINGERPRINT, sum, len);
		assert_int_equal(raw_parse(&raw, &msg, &heap), 0);
		assert_int_equal(stun_check_fingerprint(&msg), -EBADMSG);
		free(heap);
	}
	stun_begin(&w, raw.data, sizeof(raw.data), STUN_REQUEST, STUN_BINDING,
		   txid);
	stun_put_fingerprint(&w);
	for (uint8_t len = 1; len <= 4; len++) {
		raw.data[STUN_HEADER_LEN + 3] = len;
		assert_int_equal(stun_parse(raw.data, w.len, &msg), 0);
		assert_int_equal(stun_check_fingerprint(&msg),
				 len == 4 ? 1 : -EBADMSG);
	}
}

/* The sum, computed bit by bit as the polynomial says. */
static uint32_t slow_crc32(const uint8_t *data, size_t len)
{
	uint32_t crc = 0xffffffffu;

	for (size_t i = 0; i < len; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

static void fingerprint_is_the_crc_of_the_rest(void **state)
{
	uint8_t value[256], buf[512];
	struct stun_writer w;
	struct stun_msg msg;
	size_t at;

	(void)state;
	for (size_t i = 0; i < sizeof(value); i++)
		value[i] = (uint8_t)i;
	for (size_t len = 0; len <= sizeof(value); len++) {
		stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_BINDING,
			   NULL);
		stun_put(&w, STUN_ATTR_DATA, value, len);
		at = w.len;
		stun_put_fingerprint(&w);
		assert_int_equal(stun_end(&w), at + 8);
		assert_int_equal(get_be32(buf + at + 4) ^ 0x5354554eu,
				 slow_crc32(buf, at));
		assert_int_equal(stun_parse(buf, w.len, &msg), 0);
		assert_int_equal(stun_check_fingerprint(&msg), 1);
		buf[8] ^= 1;
		assert_int_equal(stun_check_fingerprint(&msg), -EBADMSG);
	}
}

static void long_term_key_is_the_md5_of_three(void **state)
{
	/* The example of RFC 8489 14.5: "user", "realm", "pass". */
	static const uint8_t expected[] = { 0x84, 0x93, 0xfb, 0xc5, 0x3b, 0xa5,
					    0x82, 0xfb, 0x4c, 0x04, 0x4c, 0x45,
					    0x6b, 0xdc, 0x40, 0xeb };
	uint8_t got[STUN_KEY_LEN];

	(void)state;
	assert_int_equal(stun_long_term_key("user", "realm", "pass", got), 0);
	assert_memory_equal(got, expected, sizeof(expected));
}

/* The same three and two texts, as `printf %s user:realm:pass | sha256sum`. */
static void sha256_sums_of_credentials(void **state)
{
	static const uint8_t expected[] = { 0x07, 0xe9, 0x34, 0x11, 0x7a, 0xbd,
					    0x40, 0x83, 0x6e, 0x7c, 0x63, 0x29,
					    0xb5, 0x47, 0x31, 0xb2, 0xb2, 0xd2,
					    0xa5, 0xf9, 0xa7, 0x1f, 0x54, 0x49,
					    0x22, 0xd7, 0x5e, 0x07, 0x30, 0xd8,
					    0x25, 0x1b };
	const struct iovec part = { (void *)"user:realm", 10 };
	uint8_t got[STUN_SHA256_LEN], sum[STUN_SHA256_LEN];

	(void)state;
	assert_int_equal(
		stun_long_term_key_sha256("user", "realm", "pass", got), 0);
	assert_memory_equal(got, expected, sizeof(expected));
	assert_int_equal(stun_userhash("user", strlen("user"), "realm",
				       strlen("realm"), got),
			 0);
	assert_int_equal(crypto_sha256(&part, 1, sum), 0);
	assert_memory_equal(got, sum, sizeof(sum));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frame_waits_for_a_header),
		cmocka_unit_test(frame_tells_the_length_before_it_is_there),
		cmocka_unit_test(frame_refuses_as_early_as_it_can),
		cmocka_unit_test(header_alone_is_a_message),
		cmocka_unit_test(parse_wants_the_whole_message),
		cmocka_unit_test(parse_refuses_a_bad_header),
		cmocka_unit_test(parse_refuses_lengths_past_the_end),
		cmocka_unit_test(parse_refuses_a_torn_attribute_header),
		cmocka_unit_test(every_class_and_method_survives),
		cmocka_unit_test(types_are_laced_as_registered),
		cmocka_unit_test(first_of_repeated_attributes_counts),
		cmocka_unit_test(absent_attribute_leaves_out_alone),
		cmocka_unit_test(empty_value_is_there),
		cmocka_unit_test(what_follows_integrity_is_ignored),
		cmocka_unit_test(what_follows_sha256_integrity_is_ignored),
		cmocka_unit_test(integrity_behind_sha256_does_not_count),
		cmocka_unit_test(fingerprint_must_be_last),
		cmocka_unit_test(padding_may_hold_anything),
		cmocka_unit_test(unaligned_message_is_read),
		cmocka_unit_test(unknown_types_are_listed_once),
		cmocka_unit_test(u32_wants_four_bytes),
		cmocka_unit_test(address_length_must_fit_its_family),
		cmocka_unit_test(plain_address_is_read_as_it_stands),
		cmocka_unit_test(xor_addresses_survive),
		cmocka_unit_test(error_code_is_read_and_bounded),
		cmocka_unit_test(errors_carry_the_registered_phrase),
		cmocka_unit_test(methods_have_names),
		cmocka_unit_test(transaction_ids_are_random_unless_given),
		cmocka_unit_test(padding_is_written_as_zero),
		cmocka_unit_test(u8_has_three_zero_bytes),
		cmocka_unit_test(unknown_attributes_are_written),
		cmocka_unit_test(overflow_sticks_at_every_size),
		cmocka_unit_test(put_after_an_error_does_nothing),
		cmocka_unit_test(largest_message_is_written_and_read),
		cmocka_unit_test(values_past_16_bits_are_refused),
		cmocka_unit_test(counts_past_16_bits_are_refused),
		cmocka_unit_test(nonsense_is_not_written),
		cmocka_unit_test(integrity_covers_what_is_before_it),
		cmocka_unit_test(integrity_of_another_length_is_wrong),
		cmocka_unit_test(second_integrity_does_not_help),
		cmocka_unit_test(fingerprint_of_another_length_is_wrong),
		cmocka_unit_test(fingerprint_is_the_crc_of_the_rest),
		cmocka_unit_test(long_term_key_is_the_md5_of_three),
		cmocka_unit_test(sha256_sums_of_credentials),
		cmocka_unit_test(sha256_integrity_covers_what_is_before_it),
		cmocka_unit_test(sha256_integrity_may_be_cut),
		cmocka_unit_test(password_algorithms_are_walked),
		cmocka_unit_test(password_algorithms_are_written),
	};

	return cmocka_run_group_tests_name("stun", tests, NULL, NULL);
}
