/* SPDX-License-Identifier: BSD-2-Clause */
/* The four sample messages of RFC 5769, byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "stun/stun.h"

#define PASSWORD "VOkJxbRl1RmTxUk/WvJxBt"

static const uint8_t request[] = {
	0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01,
	0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x10,
	0x53, 0x54, 0x55, 0x4e, 0x20, 0x74, 0x65, 0x73, 0x74, 0x20, 0x63, 0x6c,
	0x69, 0x65, 0x6e, 0x74, 0x00, 0x24, 0x00, 0x04, 0x6e, 0x00, 0x01, 0xff,
	0x80, 0x29, 0x00, 0x08, 0x93, 0x2f, 0xf9, 0xb1, 0x51, 0x26, 0x3b, 0x36,
	0x00, 0x06, 0x00, 0x09, 0x65, 0x76, 0x74, 0x6a, 0x3a, 0x68, 0x36, 0x76,
	0x59, 0x20, 0x20, 0x20, 0x00, 0x08, 0x00, 0x14, 0x9a, 0xea, 0xa7, 0x0c,
	0xbf, 0xd8, 0xcb, 0x56, 0x78, 0x1e, 0xf2, 0xb5, 0xb2, 0xd3, 0xf2, 0x49,
	0xc1, 0xb5, 0x71, 0xa2, 0x80, 0x28, 0x00, 0x04, 0xe5, 0x7a, 0x3b, 0xcf,
};

static const uint8_t response_ipv4[] = {
	0x01, 0x01, 0x00, 0x3c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01,
	0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b,
	0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f, 0x72, 0x20,
	0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43,
	0x00, 0x08, 0x00, 0x14, 0x2b, 0x91, 0xf5, 0x99, 0xfd, 0x9e, 0x90, 0xc3,
	0x8c, 0x74, 0x89, 0xf9, 0x2a, 0xf9, 0xba, 0x53, 0xf0, 0x6b, 0xe7, 0xd7,
	0x80, 0x28, 0x00, 0x04, 0xc0, 0x7d, 0x4c, 0x96,
};

static const uint8_t response_ipv6[] = {
	0x01, 0x01, 0x00, 0x48, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01,
	0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b,
	0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f, 0x72, 0x20,
	0x00, 0x20, 0x00, 0x14, 0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa,
	0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9,
	0x00, 0x08, 0x00, 0x14, 0xa3, 0x82, 0x95, 0x4e, 0x4b, 0xe6, 0x7b, 0xf1,
	0x17, 0x84, 0xc9, 0x7c, 0x82, 0x92, 0xc2, 0x75, 0xbf, 0xe3, 0xed, 0x41,
	0x80, 0x28, 0x00, 0x04, 0xc8, 0xfb, 0x0b, 0x4c,
};

static const uint8_t long_term[] = {
	0x00, 0x01, 0x00, 0x60, 0x21, 0x12, 0xa4, 0x42, 0x78, 0xad, 0x34, 0x33,
	0xc6, 0xad, 0x72, 0xc0, 0x29, 0xda, 0x41, 0x2e, 0x00, 0x06, 0x00, 0x12,
	0xe3, 0x83, 0x9e, 0xe3, 0x83, 0x88, 0xe3, 0x83, 0xaa, 0xe3, 0x83, 0x83,
	0xe3, 0x82, 0xaf, 0xe3, 0x82, 0xb9, 0x00, 0x00, 0x00, 0x15, 0x00, 0x1c,
	0x66, 0x2f, 0x2f, 0x34, 0x39, 0x39, 0x6b, 0x39, 0x35, 0x34, 0x64, 0x36,
	0x4f, 0x4c, 0x33, 0x34, 0x6f, 0x4c, 0x39, 0x46, 0x53, 0x54, 0x76, 0x79,
	0x36, 0x34, 0x73, 0x41, 0x00, 0x14, 0x00, 0x0b, 0x65, 0x78, 0x61, 0x6d,
	0x70, 0x6c, 0x65, 0x2e, 0x6f, 0x72, 0x67, 0x00, 0x00, 0x08, 0x00, 0x14,
	0xf6, 0x70, 0x24, 0x65, 0x6d, 0xd6, 0x4a, 0x3e, 0x02, 0xb8, 0xe0, 0x71,
	0x2e, 0x85, 0xc9, 0xa2, 0x8c, 0xa8, 0x96, 0x66,
};

/* Short-term credentials: the password itself is the key. */
static const uint8_t *const password = (const uint8_t *)PASSWORD;
static const size_t password_len = sizeof(PASSWORD) - 1;

static struct stun_msg parsed(const uint8_t *data, size_t len)
{
	struct stun_msg msg;

	assert_int_equal(stun_frame(data, len), len);
	assert_int_equal(stun_parse(data, len, &msg), 0);
	return msg;
}

static void assert_text(const struct stun_msg *msg, uint16_t type,
			const char *text)
{
	struct stun_attr attr;

	assert_true(stun_find(msg, type, &attr));
	assert_int_equal(attr.len, strlen(text));
	assert_memory_equal(attr.value, text, attr.len);
}

/* Any one changed byte must break the integrity, the fingerprint or the parse. */
static void assert_every_byte_counts(const uint8_t *data, size_t len,
				     const uint8_t *key, size_t key_len)
{
	struct stun_msg msg = parsed(data, len);
	int fingerprint = stun_check_fingerprint(&msg);
	uint8_t copy[256];

	for (size_t i = 0; i < len; i++) {
		memcpy(copy, data, len);
		copy[i] ^= 1;
		if (stun_parse(copy, len, &msg))
			continue;
		if (stun_check_integrity(&msg, key, key_len) == 1 &&
		    stun_check_fingerprint(&msg) == fingerprint)
			fail_msg("changing byte %zu went unnoticed", i);
	}
}

static void sample_request(void **state)
{
	struct stun_msg msg = parsed(request, sizeof(request));
	struct stun_attr attr;
	uint32_t priority;

	(void)state;
	assert_int_equal(msg.class, STUN_REQUEST);
	assert_int_equal(msg.method, STUN_BINDING);
	assert_ptr_equal(msg.txid, request + 8);
	assert_text(&msg, STUN_ATTR_SOFTWARE, "STUN test client");
	assert_text(&msg, STUN_ATTR_USERNAME, "evtj:h6vY");
	assert_true(stun_find(&msg, 0x0024, &attr));
	assert_int_equal(stun_get_u32(&attr, &priority), 0);
	assert_int_equal(priority, 0x6e0001ff);
	assert_int_equal(stun_check_integrity(&msg, password, password_len), 1);
	assert_int_equal(stun_check_fingerprint(&msg), 1);
	assert_every_byte_counts(request, sizeof(request), password,
				 password_len);
}

static void sample_response(const uint8_t *data, size_t len, const char *where)
{
	struct stun_msg msg = parsed(data, len);
	struct stun_attr attr;
	union addr expected, got;

	assert_int_equal(addr_parse(where, 0, &expected), 0);
	assert_int_equal(msg.class, STUN_SUCCESS);
	assert_int_equal(msg.method, STUN_BINDING);
	assert_text(&msg, STUN_ATTR_SOFTWARE, "test vector");
	assert_true(stun_find(&msg, STUN_ATTR_XOR_MAPPED_ADDRESS, &attr));
	assert_int_equal(stun_get_xor_address(&msg, &attr, &got), 0);
	assert_true(addr_equal(&got, &expected));
	assert_int_equal(stun_check_integrity(&msg, password, password_len), 1);
	assert_int_equal(stun_check_fingerprint(&msg), 1);
	assert_every_byte_counts(data, len, password, password_len);
}

static void sample_ipv4_response(void **state)
{
	(void)state;
	sample_response(response_ipv4, sizeof(response_ipv4),
			"192.0.2.1:32853");
}

static void sample_ipv6_response(void **state)
{
	(void)state;
	sample_response(response_ipv6, sizeof(response_ipv6),
			"[2001:db8:1234:5678:11:2233:4455:6677]:32853");
}

static void long_term_request(void **state)
{
	/* "Matrix" in katakana; the password is given after SASLprep. */
	static const char user[] = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9";
	struct stun_msg msg = parsed(long_term, sizeof(long_term));
	uint8_t key[STUN_KEY_LEN];

	(void)state;
	assert_int_equal(msg.class, STUN_REQUEST);
	assert_int_equal(msg.method, STUN_BINDING);
	assert_text(&msg, STUN_ATTR_USERNAME, user);
	assert_text(&msg, STUN_ATTR_NONCE, "f//499k954d6OL34oL9FSTvy64sA");
	assert_text(&msg, STUN_ATTR_REALM, "example.org");
	assert_int_equal(
		stun_long_term_key(user, "example.org", "TheMatrIX", key), 0);
	assert_int_equal(stun_check_integrity(&msg, key, sizeof(key)), 1);
	assert_int_equal(stun_check_fingerprint(&msg), 0);
	assert_every_byte_counts(long_term, sizeof(long_term), key,
				 sizeof(key));
	key[0] ^= 1;
	assert_int_equal(stun_check_integrity(&msg, key, sizeof(key)),
			 -EBADMSG);
}

/* That sample has zero padding, as our encoder writes: it must come out alike. */
static void long_term_request_is_written_alike(void **state)
{
	static const char user[] = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9";
	uint8_t key[STUN_KEY_LEN], buf[256];
	struct stun_writer w;

	(void)state;
	assert_int_equal(
		stun_long_term_key(user, "example.org", "TheMatrIX", key), 0);
	memset(buf, 0xff, sizeof(buf));
	stun_begin(&w, buf, sizeof(buf), STUN_REQUEST, STUN_BINDING,
		   long_term + 8);
	stun_put_string(&w, STUN_ATTR_USERNAME, user);
	stun_put_string(&w, STUN_ATTR_NONCE, "f//499k954d6OL34oL9FSTvy64sA");
	stun_put_string(&w, STUN_ATTR_REALM, "example.org");
	stun_put_integrity(&w, key, sizeof(key));
	assert_int_equal(stun_end(&w), sizeof(long_term));
	assert_memory_equal(buf, long_term, sizeof(long_term));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sample_request),
		cmocka_unit_test(sample_ipv4_response),
		cmocka_unit_test(sample_ipv6_response),
		cmocka_unit_test(long_term_request),
		cmocka_unit_test(long_term_request_is_written_alike),
	};

	return cmocka_run_group_tests_name("RFC 5769", tests, NULL, NULL);
}
