/* SPDX-License-Identifier: BSD-2-Clause */
/* Clients over UDP: what is answered, and what nobody gets an answer to. */
#include "unit/turn_rig.h"

static struct rig rig;

static int setup(void **state)
{
	(void)state;
	if (rig_open(&rig, 1, ""))
		return -1;
	rig_udp(&rig);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	RIG_UNTIL(&rig, rig_is_idle(&rig));
	rig_close(&rig);
	return 0;
}

static void answers_binding_with_the_clients_address(void **state)
{
	union addr mine, seen;
	socklen_t len = sizeof(mine);
	struct tc tc;

	(void)state;
	tc_open_udp(&tc, &rig, 0);
	assert_int_equal(getsockname(tc.fd, &mine.sa, &len), 0);
	tc_begin(&tc, STUN_BINDING);
	assert_int_equal(tc_ask(&tc), 0);
	assert_true(tc_address(&tc, STUN_ATTR_XOR_MAPPED_ADDRESS, &seen));
	assert_true(addr_equal(&mine, &seen));
	assert_int_equal(rig_counters(&rig).clients, 0);
	tc_close(&tc);
}

/* A forged source must not become worth forging. */
static void strangers_get_no_more_than_they_must(void **state)
{
	struct tc tc;

	(void)state;
	tc_open_udp(&tc, &rig, 0);
	tc.no_fingerprint = true;
	tc_begin(&tc, STUN_BINDING);
	assert_int_equal(tc_ask(&tc), 0);
	assert_int_equal(tc.msg.len, STUN_HEADER_LEN + 12);
	assert_int_equal(tc_challenge(&tc), 401);
	assert_false(stun_has(&tc.msg, STUN_ATTR_SOFTWARE));
	assert_true(stun_has(&tc.msg, STUN_ATTR_REALM));
	assert_int_equal(rig_counters(&rig).clients, 0);
	assert_int_equal(rig_counters(&rig).unauthenticated, 0);
	/* Who is known gets it. */
	tc_begin(&tc, STUN_REFRESH);
	assert_int_equal(tc_ask(&tc), 437);
	assert_true(stun_has(&tc.msg, STUN_ATTR_SOFTWARE));
	tc_close(&tc);
}

/* Sends what gets no answer; then a Binding, whose answer must come first. */
static void unanswered(struct tc *tc, const void *data, size_t len)
{
	tc_write(tc, data, len);
	tc_begin(tc, STUN_BINDING);
	assert_int_equal(tc_ask(tc), 0);
}

static void nothing_but_requests_is_answered(void **state)
{
	static const enum stun_class classes[] = { STUN_INDICATION,
						   STUN_SUCCESS, STUN_ERROR };
	uint8_t longer[64] = { 0 };
	struct tc tc;
	size_t len;

	(void)state;
	tc_open_udp(&tc, &rig, 0);
	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
		stun_begin(&tc.w, tc.out, sizeof(tc.out), classes[i],
			   STUN_BINDING, NULL);
		len = tc_end(&tc);
		unanswered(&tc, tc.out, len);
	}
	tc_begin(&tc, STUN_BINDING);
	len = tc_end(&tc);
	tc.out[len - 1] ^= 1; /* FINGERPRINT */
	unanswered(&tc, tc.out, len);
	assert_int_equal(rig_counters(&rig).bad_fingerprints, 1);
	assert_int_equal(rig_counters(&rig).datagrams_ignored, 0);
	assert_int_equal(send(tc.fd, "", 0, 0), 0);
	unanswered(&tc, "GET / HTTP/1.0\r\n\r\n", 18);
	unanswered(&tc, "\x40\x00\x00\x04haha", 8);
	/* One byte short, and bytes behind the message. */
	tc_begin(&tc, STUN_BINDING);
	unanswered(&tc, tc.out, STUN_HEADER_LEN - 1);
	tc_begin(&tc, STUN_BINDING);
	memcpy(longer, tc.out, STUN_HEADER_LEN);
	unanswered(&tc, longer, STUN_HEADER_LEN + 4);
	assert_int_equal(rig_counters(&rig).datagrams_ignored, 5);
	tc_close(&tc);
}

static void tcp_is_not_to_be_had_over_udp(void **state)
{
	union addr relayed;
	struct tc tc;

	(void)state;
	tc_open_udp(&tc, &rig, 0);
	assert_int_equal(tc_allocate(&tc, &relayed), 400);
	tc_begin_bind(&tc, 0);
	assert_int_equal(tc_ask(&tc), 400);
	tc_close(&tc);
}

static void a_socket_that_is_not_configured_any_more_closes(void **state)
{
	struct tc tc;
	char byte;

	(void)state;
	tc_open_udp(&tc, &rig, 0);
	rig_reload(&rig, "");
	tc_begin(&tc, STUN_BINDING);
	assert_int_equal(tc_ask(&tc), 0);
	/* The same address and name, but of TCP. */
	rig_reload(&rig, "[listener datagrams]\naddress = 127.0.0.1:0\n");
	tc_begin(&tc, STUN_BINDING);
	tc_send(&tc);
	RIG_UNTIL(&rig, recv(tc.fd, &byte, 1, 0) < 0 && errno == ECONNREFUSED);
	tc_close(&tc);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(answers_binding_with_the_clients_address),
		TEST(strangers_get_no_more_than_they_must),
		TEST(nothing_but_requests_is_answered),
		TEST(tcp_is_not_to_be_had_over_udp),
		TEST(a_socket_that_is_not_configured_any_more_closes),
	};

	return cmocka_run_group_tests_name("turn_udp", tests, NULL, NULL);
}
