/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests and answers: authentication, Allocate, Refresh, CreatePermission. */
#include "unit/turn_rig.h"

static struct rig rig;

static int setup(void **state)
{
	(void)state;
	return rig_open(&rig, 1, "");
}

static int teardown(void **state)
{
	(void)state;
	rig_finish(&rig);
	return 0;
}

/* A client with an allocation. */
static union addr allocated(struct tc *tc)
{
	union addr relayed = { 0 };

	tc_open(tc, &rig, 0);
	assert_int_equal(tc_allocate(tc, &relayed), 0);
	return relayed;
}

static void answers_binding_with_the_clients_address(void **state)
{
	union addr mine, seen;
	socklen_t len = sizeof(mine);
	struct stun_attr attr;
	struct tc tc;

	(void)state;
	tc_open(&tc, &rig, 0);
	assert_int_equal(getsockname(tc.fd, &mine.sa, &len), 0);
	tc_begin(&tc, STUN_BINDING);
	assert_int_equal(tc_ask(&tc), 0);
	assert_true(tc_address(&tc, STUN_ATTR_XOR_MAPPED_ADDRESS, &seen));
	assert_true(addr_equal(&mine, &seen));
	assert_true(stun_find(&tc.msg, STUN_ATTR_SOFTWARE, &attr));
	assert_false(tc.msg.integrity_at);
	tc_close(&tc);
}

static void fingerprints_answers_only_when_asked(void **state)
{
	struct tc tc;

	(void)state;
	tc_open(&tc, &rig, 0);
	tc.no_fingerprint = true;
	tc_begin(&tc, STUN_BINDING);
	assert_int_equal(tc_ask(&tc), 0);
	tc_close(&tc);
}

static void challenges_with_realm_and_nonce(void **state)
{
	struct stun_attr attr;
	struct tc tc;

	(void)state;
	tc_open(&tc, &rig, 0);
	assert_int_equal(tc_challenge(&tc), 401);
	assert_true(stun_find(&tc.msg, STUN_ATTR_REALM, &attr));
	assert_int_equal(attr.len, strlen("example.org"));
	assert_memory_equal(attr.value, "example.org", attr.len);
	assert_true(stun_find(&tc.msg, STUN_ATTR_NONCE, &attr));
	assert_false(tc.msg.integrity_at);
	tc_close(&tc);
}

static void refuses_wrong_credentials(void **state)
{
	union addr relayed;
	struct tc tc;

	(void)state;
	tc_open(&tc, &rig, 0);
	tc.password = "wrong";
	assert_int_equal(tc_allocate(&tc, &relayed), 401);
	tc.user = "nobody";
	assert_int_equal(tc_allocate(&tc, &relayed), 401);
	assert_int_equal(rig_counters(&rig).auth_failures, 2);
	assert_int_equal(rig_counters(&rig).unauthenticated, 1);
	tc.user = "alice";
	tc.password = "wonderland";
	snprintf(tc.nonce, sizeof(tc.nonce), "forged");
	assert_int_equal(tc_allocate(&tc, &relayed), 438);
	assert_int_equal(tc_allocate(&tc, &relayed), 0);
	assert_int_equal(rig_counters(&rig).unauthenticated, 0);
	tc_close(&tc);
}

static void refuses_integrity_without_the_rest(void **state)
{
	static const uint8_t key[STUN_KEY_LEN];
	struct tc tc;

	(void)state;
	tc_open(&tc, &rig, 0);
	tc_begin_allocate(&tc);
	stun_put_integrity(&tc.w, key, sizeof(key));
	assert_int_equal(tc_ask(&tc), 400);
	tc_close(&tc);
}

static void serves_users_of_any_realm(void **state)
{
	union addr relayed;
	struct tc tc;

	(void)state;
	tc_open(&tc, &rig, 0);
	tc.realm = "second.org";
	assert_int_equal(tc_allocate(&tc, &relayed), 0);
	tc_close(&tc);
}

static void lists_unknown_attributes_after_authentication(void **state)
{
	struct stun_attr attr;
	struct tc tc;

	(void)state;
	tc_open(&tc, &rig, 0);
	tc_begin_allocate(&tc);
	stun_put_u32(&tc.w, 0x7f01, 0);
	assert_int_equal(tc_ask(&tc), 401);
	tc_begin_allocate(&tc);
	stun_put_u32(&tc.w, 0x7f01, 0);
	stun_put_u32(&tc.w, 0x7f02, 0);
	stun_put_u32(&tc.w, 0xbfff, 0);
	assert_int_equal(tc_ask(&tc), 420);
	assert_true(tc.msg.integrity_at);
	assert_true(stun_find(&tc.msg, STUN_ATTR_UNKNOWN_ATTRIBUTES, &attr));
	assert_int_equal(attr.len, 4);
	assert_int_equal(get_be16(attr.value), 0x7f01);
	assert_int_equal(get_be16(attr.value + 2), 0x7f02);
	tc.nonce[0] = '\0';
	tc_begin(&tc, STUN_BINDING);
	stun_put_u32(&tc.w, 0x0024, 1);
	assert_int_equal(tc_ask(&tc), 420);
	tc_close(&tc);
}

/* The list is cut, the answer still fits. */
static void answers_very_many_unknown_attributes(void **state)
{
	struct tc tc;

	(void)state;
	tc_open(&tc, &rig, 0);
	tc_begin(&tc, STUN_BINDING);
	for (uint16_t i = 0; i < 400; i++)
		stun_put_u32(&tc.w, (uint16_t)(0x7000 + i), 0);
	assert_int_equal(tc_ask(&tc), 420);
	tc_close(&tc);
}

static void refuses_a_method_it_does_not_know(void **state)
{
	struct tc tc;

	(void)state;
	tc_open(&tc, &rig, 0);
	tc_begin(&tc, 0x0ff);
	assert_int_equal(tc_ask(&tc), 401);
	tc_begin(&tc, 0x0ff);
	assert_int_equal(tc_ask(&tc), 400);
	tc_close(&tc);
}

static void ignores_a_wrong_fingerprint(void **state)
{
	struct tc tc;
	size_t len;

	(void)state;
	tc_open(&tc, &rig, 0);
	assert_int_equal(tc_challenge(&tc), 401);
	tc_begin_allocate(&tc);
	len = tc_end(&tc);
	tc.out[len - 1] ^= 1;
	tc_write(&tc, tc.out, len);
	RIG_UNTIL(&rig, rig_counters(&rig).bad_fingerprints == 1);
	assert_int_equal(rig_counters(&rig).allocations, 0);
	tc_begin(&tc, STUN_BINDING);
	assert_int_equal(tc_ask(&tc), 0);
	tc_close(&tc);
}

static void ignores_indications_and_responses(void **state)
{
	struct tc tc;

	(void)state;
	tc_open(&tc, &rig, 0);
	for (int class = STUN_INDICATION; class <= STUN_ERROR; class ++) {
		stun_begin(&tc.w, tc.out, sizeof(tc.out),
			   (enum stun_class) class, STUN_SEND, NULL);
		tc_write(&tc, tc.out, (size_t)stun_end(&tc.w));
	}
	tc_begin(&tc, STUN_BINDING);
	assert_int_equal(tc_ask(&tc), 0);
	assert_int_equal(rig_counters(&rig).requests, 1);
	tc_close(&tc);
}

static void closes_what_is_not_stun(void **state)
{
	static const uint8_t bad_attr[] = {
		0, 1, 0, 4, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4,
		5, 6, 7, 8, 9,    10,   11,   12,   0, 6, 0, 9,
	};
	static const struct {
		const char *text;
		size_t len;
	} others[] = {
		{ "GET / HTTP/1.1\r\n\r\n", 18 },
		{ "\x16\x03\x01\x02\0\x01", 6 }, /* TLS */
		{ "\x40\x01\0\x04", 4 }, /* ChannelData */
		{ "\0\x01\0\x03", 4 }, /* a length no message has */
	};
	struct tc tc;

	(void)state;
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		tc_open(&tc, &rig, 0);
		tc_write(&tc, others[i].text, others[i].len);
		RIG_UNTIL(&rig, tc_is_closed(&tc));
		tc_close(&tc);
	}
	tc_open(&tc, &rig, 0);
	tc_write(&tc, bad_attr, sizeof(bad_attr));
	RIG_UNTIL(&rig, tc_is_closed(&tc));
	tc_close(&tc);
	assert_int_equal(rig_counters(&rig).bad_messages, 5);
}

static void closes_an_oversized_message(void **state)
{
	static const uint8_t header[] = { 0,    1, 0xff, 0xfc, 0x21, 0x12, 0xa4,
					  0x42, 0, 0,    0,    0,    0,    0,
					  0,    0, 0,    0,    0,    0 };
	struct tc tc;

	(void)state;
	tc_open(&tc, &rig, 0);
	tc_write(&tc, header, sizeof(header));
	RIG_UNTIL(&rig, tc_is_closed(&tc));
	tc_close(&tc);
}

static void understands_a_message_in_pieces_and_several_at_once(void **state)
{
	uint8_t txid[STUN_TXID_LEN];
	struct tc tc;
	size_t len;

	(void)state;
	tc_open(&tc, &rig, 0);
	tc_begin(&tc, STUN_BINDING);
	len = tc_end(&tc);
	for (size_t i = 0; i < len; i++) {
		tc_write(&tc, tc.out + i, 1);
		rig_tick(&rig, 1);
	}
	assert_int_equal(tc_answer(&tc), 0);
	tc_begin(&tc, STUN_BINDING);
	memcpy(txid, tc.txid, sizeof(txid));
	tc_send(&tc);
	tc_begin(&tc, STUN_BINDING);
	tc_send(&tc);
	assert_int_equal(tc_next(&tc), 0);
	assert_memory_equal(tc.msg.txid, txid, sizeof(txid));
	assert_int_equal(tc_next(&tc), 0);
	assert_memory_equal(tc.msg.txid, tc.txid, sizeof(txid));
	tc_close(&tc);
}

static void allocates_at_the_dialled_address(void **state)
{
	struct counters now;
	union addr relayed, mapped, mine;
	socklen_t len = sizeof(mine);
	struct stun_attr attr;
	uint32_t lifetime;
	struct tc tc;
	int fd;

	(void)state;
	relayed = allocated(&tc);
	assert_true(addr_same_host(&relayed, &rig.addr[0]));
	assert_in_range(addr_port(&relayed), 49152, 65535);
	assert_int_equal(getsockname(tc.fd, &mine.sa, &len), 0);
	assert_true(tc_address(&tc, STUN_ATTR_XOR_MAPPED_ADDRESS, &mapped));
	assert_true(addr_equal(&mine, &mapped));
	assert_true(stun_find(&tc.msg, STUN_ATTR_LIFETIME, &attr));
	assert_int_equal(stun_get_u32(&attr, &lifetime), 0);
	assert_int_equal(lifetime, 600);
	assert_true(tc.msg.integrity_at);
	assert_false(stun_has(&tc.msg, STUN_ATTR_RESERVATION_TOKEN));
	now = rig_counters(&rig);
	assert_int_equal(now.allocations, 1);
	assert_int_equal(now.allocations_made, 1);
	assert_int_equal(now.clients, 1);
	assert_true(turn_relayed_is(rig.shared, &relayed));
	/* The port is open; without a permission that ends at once. */
	fd = tc_dial(&relayed);
	RIG_UNTIL(&rig, fd_state(fd) < 0);
	close(fd);
	tc_close(&tc);
	RIG_UNTIL(&rig, rig_is_idle(&rig));
	assert_false(turn_relayed_is(rig.shared, &relayed));
}

static int allocate_with(struct tc *tc, uint16_t type, const void *value,
			 size_t len)
{
	tc_begin_allocate(tc);
	stun_put(&tc->w, type, value, len);
	return tc_ask(tc);
}

static void refuses_what_a_tcp_allocation_cannot_have(void **state)
{
	struct tc tc;

	(void)state;
	tc_open(&tc, &rig, 0);
	tc_challenge(&tc);
	assert_int_equal(allocate_with(&tc, STUN_ATTR_EVEN_PORT, "\0", 1), 400);
	assert_int_equal(allocate_with(&tc, STUN_ATTR_DONT_FRAGMENT, "", 0),
			 400);
	assert_int_equal(allocate_with(&tc, STUN_ATTR_RESERVATION_TOKEN,
				       "12345678", 8),
			 400);
	assert_int_equal(allocate_with(&tc, STUN_ATTR_LIFETIME, "12", 2), 400);
	assert_int_equal(rig_counters(&rig).allocations, 0);
	tc_close(&tc);
}

static int allocate_transport(struct tc *tc, const void *value, size_t len)
{
	tc_begin(tc, STUN_ALLOCATE);
	stun_put(&tc->w, STUN_ATTR_REQUESTED_TRANSPORT, value, len);
	return tc_ask(tc);
}

static void judges_the_requested_transport(void **state)
{
	struct tc tc;

	(void)state;
	tc_open(&tc, &rig, 0);
	tc_challenge(&tc);
	tc_begin(&tc, STUN_ALLOCATE);
	assert_int_equal(tc_ask(&tc), 400);
	assert_int_equal(allocate_transport(&tc, "\x06", 1), 400);
	assert_int_equal(allocate_transport(&tc, "\x84\0\0\0", 4), 442);
	assert_int_equal(allocate_transport(&tc, "\x06\0\0\0", 4), 0);
	tc_close(&tc);
}

static void refuses_udp_when_told_to(void **state)
{
	struct tc tc;

	(void)state;
	rig_reload(&rig, "[relay]\nudp = no\n");
	tc_open(&tc, &rig, 0);
	tc_challenge(&tc);
	assert_int_equal(allocate_transport(&tc, "\x11\0\0\0", 4), 403);
	tc_close(&tc);
}

static void judges_the_requested_family(void **state)
{
	struct tc tc;

	(void)state;
	tc_open(&tc, &rig, 0);
	tc_challenge(&tc);
	assert_int_equal(allocate_with(&tc, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
				       "\x02\0\0\0", 4),
			 440);
	assert_int_equal(allocate_with(&tc, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
				       "\x09\0\0\0", 4),
			 440);
	assert_int_equal(allocate_with(&tc, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
				       "\x01", 1),
			 400);
	assert_int_equal(allocate_with(&tc, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
				       "\x01\0\0\0", 4),
			 0);
	tc_close(&tc);
}

static void refuses_a_second_allocation_on_a_connection(void **state)
{
	union addr relayed;
	struct tc tc;

	(void)state;
	allocated(&tc);
	assert_int_equal(tc_allocate(&tc, &relayed), 437);
	assert_int_equal(rig_counters(&rig).allocations, 1);
	tc_close(&tc);
}

static uint32_t granted(struct tc *tc, uint16_t method, int64_t seconds)
{
	struct stun_attr attr;
	uint32_t lifetime = 0;

	tc_begin(tc, method);
	if (method == STUN_ALLOCATE)
		stun_put_u8(&tc->w, STUN_ATTR_REQUESTED_TRANSPORT, 6);
	if (seconds >= 0)
		stun_put_u32(&tc->w, STUN_ATTR_LIFETIME, (uint32_t)seconds);
	assert_int_equal(tc_ask(tc), 0);
	assert_true(stun_find(&tc->msg, STUN_ATTR_LIFETIME, &attr));
	assert_int_equal(stun_get_u32(&attr, &lifetime), 0);
	return lifetime;
}

static void grants_lifetimes_between_default_and_maximum(void **state)
{
	struct tc tc;

	(void)state;
	tc_open(&tc, &rig, 0);
	tc_challenge(&tc);
	assert_int_equal(granted(&tc, STUN_ALLOCATE, 0), 600);
	assert_int_equal(granted(&tc, STUN_REFRESH, -1), 600);
	assert_int_equal(granted(&tc, STUN_REFRESH, 1), 600);
	assert_int_equal(granted(&tc, STUN_REFRESH, 1234), 1234);
	assert_int_equal(granted(&tc, STUN_REFRESH, 3601), 3600);
	assert_int_equal(granted(&tc, STUN_REFRESH, UINT32_MAX), 3600);
	assert_int_equal(granted(&tc, STUN_REFRESH, 0), 0);
	assert_int_equal(rig_counters(&rig).allocations, 0);
	tc_begin(&tc, STUN_REFRESH);
	assert_int_equal(tc_ask(&tc), 437);
	/* The connection is free for another one. */
	assert_int_equal(granted(&tc, STUN_ALLOCATE, 5000), 3600);
	tc_close(&tc);
}

static int refresh_with(struct tc *tc, uint16_t type, const void *value,
			size_t len)
{
	tc_begin(tc, STUN_REFRESH);
	stun_put(&tc->w, type, value, len);
	return tc_ask(tc);
}

static void refreshes_only_its_own_family(void **state)
{
	struct tc tc;

	(void)state;
	allocated(&tc);
	assert_int_equal(refresh_with(&tc, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
				      "\x02\0\0\0", 4),
			 443);
	assert_int_equal(refresh_with(&tc, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
				      "\x07\0\0\0", 4),
			 443);
	assert_int_equal(refresh_with(&tc, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
				      "\x01", 1),
			 400);
	assert_int_equal(refresh_with(&tc, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
				      "\x01\0\0\0", 4),
			 0);
	assert_int_equal(refresh_with(&tc, STUN_ATTR_LIFETIME, "x", 1), 400);
	tc_close(&tc);
}

static void expires_and_is_gone(void **state)
{
	union addr relayed;
	uint64_t start;
	struct tc tc;

	(void)state;
	rig_reload(&rig, "[limits]\ndefault_lifetime = 1s\n"
			 "max_lifetime = 1s\n");
	start = clock_ms();
	relayed = allocated(&tc);
	RIG_UNTIL(&rig, rig_counters(&rig).allocations == 0);
	assert_in_range(clock_ms() - start, 990, 3000);
	assert_false(turn_relayed_is(rig.shared, &relayed));
	tc_begin(&tc, STUN_REFRESH);
	assert_int_equal(tc_ask(&tc), 437);
	tc_close(&tc);
}

static void keeps_an_allocation_to_its_user(void **state)
{
	union addr peer, relayed;
	struct tc tc;

	(void)state;
	allocated(&tc);
	assert_int_equal(addr_parse("127.0.0.2:9", 0, &peer), 0);
	tc.user = "bob";
	tc.password = "builder";
	tc_begin(&tc, STUN_REFRESH);
	assert_int_equal(tc_ask(&tc), 441);
	assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &peer), 441);
	assert_int_equal(tc_peer(&tc, STUN_CONNECT, &peer), 441);
	assert_int_equal(tc_peer(&tc, STUN_CHANNEL_BIND, &peer), 441);
	assert_int_equal(tc_allocate(&tc, &relayed), 437);
	/* The same name in another realm is another user. */
	tc.user = "alice";
	tc.password = "wonderland";
	tc.realm = "second.org";
	tc_begin(&tc, STUN_REFRESH);
	assert_int_equal(tc_ask(&tc), 441);
	tc.realm = "example.org";
	tc_begin(&tc, STUN_REFRESH);
	assert_int_equal(tc_ask(&tc), 0);
	tc_close(&tc);
}

static void needs_an_allocation(void **state)
{
	union addr peer;
	struct tc tc;

	(void)state;
	assert_int_equal(addr_parse("127.0.0.2:9", 0, &peer), 0);
	tc_open(&tc, &rig, 0);
	tc_challenge(&tc);
	assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &peer), 437);
	assert_int_equal(tc_peer(&tc, STUN_CONNECT, &peer), 437);
	assert_int_equal(tc_peer(&tc, STUN_CHANNEL_BIND, &peer), 437);
	tc_close(&tc);
}

static void refuses_channels(void **state)
{
	union addr peer;
	struct tc tc;

	(void)state;
	allocated(&tc);
	assert_int_equal(addr_parse("127.0.0.2:9", 0, &peer), 0);
	assert_int_equal(tc_peer(&tc, STUN_CHANNEL_BIND, &peer), 403);
	tc_close(&tc);
}

/* What the only allocation says of itself. */
static bool info_take(void *arg, const struct turn_allocation_info *info)
{
	*(struct turn_allocation_info *)arg = *info;
	return true;
}

static unsigned int permissions(void)
{
	struct turn_allocation_info info = { 0 };

	turn_worker_each_allocation(rig.worker[0], info_take, &info);
	return info.permissions;
}

static void permits_all_addresses_or_none(void **state)
{
	union addr good[2], six, own;
	struct tc tc;

	(void)state;
	allocated(&tc);
	assert_int_equal(addr_parse("127.0.0.2", 0, &good[0]), 0);
	assert_int_equal(addr_parse("127.0.0.3:77", 0, &good[1]), 0);
	assert_int_equal(addr_parse("[2001:db8::1]:1", 0, &six), 0);
	assert_int_equal(addr_parse("224.0.0.1", 0, &own), 0);
	tc_begin(&tc, STUN_CREATE_PERMISSION);
	assert_int_equal(tc_ask(&tc), 400);
	tc_begin_peer(&tc, STUN_CREATE_PERMISSION, &good[0]);
	stun_put_xor_address(&tc.w, STUN_ATTR_XOR_PEER_ADDRESS, &six);
	assert_int_equal(tc_ask(&tc), 443);
	tc_begin_peer(&tc, STUN_CREATE_PERMISSION, &good[0]);
	stun_put_xor_address(&tc.w, STUN_ATTR_XOR_PEER_ADDRESS, &own);
	assert_int_equal(tc_ask(&tc), 403);
	tc_begin_peer(&tc, STUN_CREATE_PERMISSION, &good[0]);
	stun_put(&tc.w, STUN_ATTR_XOR_PEER_ADDRESS, "short", 5);
	assert_int_equal(tc_ask(&tc), 400);
	assert_int_equal(permissions(), 0);
	tc_begin_peer(&tc, STUN_CREATE_PERMISSION, &good[0]);
	stun_put_xor_address(&tc.w, STUN_ATTR_XOR_PEER_ADDRESS, &good[1]);
	stun_put_xor_address(&tc.w, STUN_ATTR_XOR_PEER_ADDRESS, &good[0]);
	assert_int_equal(tc_ask(&tc), 0);
	assert_int_equal(permissions(), 2);
	assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &good[0]), 0);
	assert_int_equal(permissions(), 2);
	tc_close(&tc);
}

static void bounds_and_expires_permissions(void **state)
{
	union addr peer[4], multicast;
	struct tc tc;

	(void)state;
	rig_reload(&rig, "[limits]\npermissions_per_allocation = 2\n"
			 "permission_lifetime = 1s\n");
	allocated(&tc);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(addr_parse("127.0.0.2", 0, &peer[i]), 0);
		((uint8_t *)&peer[i].in4.sin_addr)[3] = (uint8_t)(2 + i);
	}
	assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &peer[0]), 0);
	tc_begin_peer(&tc, STUN_CREATE_PERMISSION, &peer[1]);
	stun_put_xor_address(&tc.w, STUN_ATTR_XOR_PEER_ADDRESS, &peer[2]);
	assert_int_equal(tc_ask(&tc), 508);
	assert_int_equal(permissions(), 1);
	/* What comes on top is not even judged. */
	assert_int_equal(addr_parse("224.0.0.1", 0, &multicast), 0);
	tc_begin_peer(&tc, STUN_CREATE_PERMISSION, &peer[0]);
	stun_put_xor_address(&tc.w, STUN_ATTR_XOR_PEER_ADDRESS, &peer[0]);
	stun_put_xor_address(&tc.w, STUN_ATTR_XOR_PEER_ADDRESS, &multicast);
	assert_int_equal(tc_ask(&tc), 508);
	assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &peer[1]), 0);
	assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &peer[2]), 508);
	assert_int_equal(permissions(), 2);
	RIG_UNTIL(&rig, permissions() == 0);
	/* Expired ones make room. */
	tc_begin_peer(&tc, STUN_CREATE_PERMISSION, &peer[2]);
	stun_put_xor_address(&tc.w, STUN_ATTR_XOR_PEER_ADDRESS, &peer[3]);
	assert_int_equal(tc_ask(&tc), 0);
	assert_int_equal(permissions(), 2);
	tc_close(&tc);
}

static void chooses_the_relay_address_by_family(void **state)
{
	union addr relayed;
	struct tc tc;

	(void)state;
	rig_reload(&rig, "[relay]\naddress = ::1, 127.0.0.7\n"
			 "ports = 50200-50300\n");
	relayed = allocated(&tc);
	assert_int_equal(addr_family(&relayed), AF_INET);
	assert_int_equal(relayed.in4.sin_addr.s_addr, htonl(0x7f000007));
	assert_in_range(addr_port(&relayed), 50200, 50300);
	assert_int_equal(granted(&tc, STUN_REFRESH, 0), 0);
	assert_int_equal(allocate_with(&tc, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
				       "\x02\0\0\0", 4),
			 0);
	assert_true(tc_address(&tc, STUN_ATTR_XOR_RELAYED_ADDRESS, &relayed));
	assert_int_equal(addr_family(&relayed), AF_INET6);
	tc_close(&tc);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(answers_binding_with_the_clients_address),
		TEST(fingerprints_answers_only_when_asked),
		TEST(challenges_with_realm_and_nonce),
		TEST(refuses_wrong_credentials),
		TEST(refuses_integrity_without_the_rest),
		TEST(serves_users_of_any_realm),
		TEST(lists_unknown_attributes_after_authentication),
		TEST(answers_very_many_unknown_attributes),
		TEST(refuses_a_method_it_does_not_know),
		TEST(ignores_a_wrong_fingerprint),
		TEST(ignores_indications_and_responses),
		TEST(closes_what_is_not_stun),
		TEST(closes_an_oversized_message),
		TEST(understands_a_message_in_pieces_and_several_at_once),
		TEST(allocates_at_the_dialled_address),
		TEST(refuses_what_a_tcp_allocation_cannot_have),
		TEST(judges_the_requested_transport),
		TEST(refuses_udp_when_told_to),
		TEST(judges_the_requested_family),
		TEST(refuses_a_second_allocation_on_a_connection),
		TEST(grants_lifetimes_between_default_and_maximum),
		TEST(refreshes_only_its_own_family),
		TEST(expires_and_is_gone),
		TEST(keeps_an_allocation_to_its_user),
		TEST(needs_an_allocation),
		TEST(refuses_channels),
		TEST(permits_all_addresses_or_none),
		TEST(bounds_and_expires_permissions),
		TEST(chooses_the_relay_address_by_family),
	};

	return cmocka_run_group_tests_name("turn", tests, NULL, NULL);
}
