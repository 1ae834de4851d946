/* SPDX-License-Identifier: BSD-2-Clause */
/* Allocations with a relayed address of IPv4 and one of IPv6 (RFC 8656 7.2, 8.2). */
#include "unit/udp_rig.h"

#define BOTH "[relay]\naddress = 127.0.0.1, ::1\n"

static int setup(void **state)
{
	(void)state;
	return udp_rig_open(BOTH);
}

/* What an Allocate was answered, by family: 4, 6. */
struct told {
	union addr relayed[7];
	int error[7];
};

static void told_read(const struct tc *tc, struct told *told)
{
	struct stun_attr attr;
	union addr addr;
	size_t at = 0;

	*told = (struct told){ 0 };
	while (stun_next(&tc->msg, &at, &attr)) {
		if (attr.type == STUN_ATTR_XOR_RELAYED_ADDRESS) {
			assert_int_equal(stun_get_xor_address(&tc->msg, &attr,
							      &addr),
					 0);
			told->relayed[addr_family(&addr) == AF_INET ? 4 : 6] =
				addr;
		}
		if (attr.type == STUN_ATTR_ADDRESS_ERROR_CODE) {
			assert_true(attr.len > 4);
			assert_in_range(attr.value[0], 1, 2);
			assert_int_equal(attr.value[1], 0);
			told->error[attr.value[0] == 1 ? 4 : 6] =
				attr.value[2] * 100 + attr.value[3];
		}
	}
}

static void begin_both(struct tc *tc, bool tcp)
{
	if (!tc->nonce[0])
		assert_int_equal(tc_challenge(tc), 401);
	if (tcp)
		tc_begin_allocate(tc);
	else
		tc_begin_allocate_udp(tc);
	stun_put_u8(&tc->w, STUN_ATTR_ADDITIONAL_ADDRESS_FAMILY,
		    STUN_FAMILY_IPV6);
}

static int allocate_both(struct tc *tc, bool tcp, struct told *told)
{
	int code;

	begin_both(tc, tcp);
	code = tc_ask(tc);
	told_read(tc, told);
	return code;
}

static void open_both(struct tc *tc, bool tcp, struct told *told)
{
	if (tcp)
		tc_open(tc, &rig, 0);
	else
		tc_open_udp(tc, &rig, 0);
	assert_int_equal(allocate_both(tc, tcp, told), 0);
	assert_int_equal(addr_family(&told->relayed[4]), AF_INET);
	assert_int_equal(addr_family(&told->relayed[6]), AF_INET6);
	assert_int_equal(told->error[4] + told->error[6], 0);
}

/* family 0: all. */
static int refresh(struct tc *tc, enum stun_family family, int lifetime)
{
	tc_begin(tc, STUN_REFRESH);
	if (lifetime >= 0)
		stun_put_u32(&tc->w, STUN_ATTR_LIFETIME, (uint32_t)lifetime);
	if (family)
		stun_put_u8(&tc->w, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
			    (uint8_t)family);
	return tc_ask(tc);
}

/* With a transaction ID that looks like none. */
static int refresh_by_zeroes(struct tc *tc, enum stun_family family)
{
	tc_begin(tc, STUN_REFRESH);
	memset(tc->out + 8, 0, sizeof(tc->txid));
	memset(tc->txid, 0, sizeof(tc->txid));
	stun_put_u8(&tc->w, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
		    (uint8_t)family);
	return tc_ask(tc);
}

static void done(struct tc *tc)
{
	assert_int_equal(refresh(tc, 0, 0), 0);
	tc_close(tc);
}

/* What this peer sends to that address must come as a Data indication. */
static void data_comes(struct tc *tc, const struct peer *peer,
		       const union addr *to)
{
	peer_send(peer, to, "hi");
	data_hears(tc, &peer->addr, "hi");
}

static void each_peer_sees_the_address_of_its_family(void **state)
{
	struct peer four, six;
	struct told told;
	struct tc tc;

	(void)state;
	open_both(&tc, false, &told);
	assert_int_equal(rig_counters(&rig).allocations, 1);
	assert_int_equal(rig.shared->relayed.count, 2);
	peer_open(&four, "127.0.0.2");
	peer_open(&six, "::1");
	/* One request may permit both. */
	tc_begin_peer(&tc, STUN_CREATE_PERMISSION, &four.addr);
	stun_put_xor_address(&tc.w, STUN_ATTR_XOR_PEER_ADDRESS, &six.addr);
	assert_int_equal(tc_ask(&tc), 0);
	send_to(&tc, &four.addr, "to four");
	peer_hears(&four, &told.relayed[4], "to four");
	send_to(&tc, &six.addr, "to six");
	peer_hears(&six, &told.relayed[6], "to six");
	data_comes(&tc, &four, &told.relayed[4]);
	data_comes(&tc, &six, &told.relayed[6]);
	assert_int_equal(channel_bind(&tc, &four.addr, 0x4004), 0);
	assert_int_equal(channel_bind(&tc, &six.addr, 0x4006), 0);
	channel_write(&tc, 0x4004, "by four", 0);
	peer_hears(&four, &told.relayed[4], "by four");
	channel_write(&tc, 0x4006, "by six", 0);
	peer_hears(&six, &told.relayed[6], "by six");
	close(four.fd);
	close(six.fd);
	done(&tc);
	assert_int_equal(rig.shared->relayed.count, 0);
	assert_int_equal(rig_counters(&rig).channels, 0);
}

/* The code of an Allocate with ADDITIONAL-ADDRESS-FAMILY and one more attribute. */
static int refused(struct tc *tc, uint16_t type, const void *value, size_t len)
{
	begin_both(tc, false);
	stun_put(&tc->w, type, value, len);
	return tc_ask(tc);
}

static void what_makes_no_sense_with_two_families_is_400(void **state)
{
	struct told told;
	struct tc tc;

	(void)state;
	tc_open_udp(&tc, &rig, 0);
	assert_int_equal(refused(&tc, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
				 "\2\0\0", 4),
			 400);
	/* Before it is asked whether there is such a family. */
	assert_int_equal(refused(&tc, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
				 "\7\0\0", 4),
			 400);
	assert_int_equal(refused(&tc, STUN_ATTR_EVEN_PORT, "\x80", 1), 400);
	assert_int_equal(
		refused(&tc, STUN_ATTR_RESERVATION_TOKEN, "12345678", 8), 400);
	for (uint8_t family = 0; family < 5; family++) {
		tc_begin_allocate_udp(&tc);
		stun_put_u8(&tc.w, STUN_ATTR_ADDITIONAL_ADDRESS_FAMILY, family);
		if (family != STUN_FAMILY_IPV6)
			assert_int_equal(tc_ask(&tc), 400);
	}
	tc_begin_allocate_udp(&tc);
	stun_put(&tc.w, STUN_ATTR_ADDITIONAL_ADDRESS_FAMILY, "\2", 1);
	assert_int_equal(tc_ask(&tc), 400);
	assert_int_equal(rig.shared->relayed.count, 0);
	/* Without R there is nothing to reserve. */
	assert_int_equal(refused(&tc, STUN_ATTR_EVEN_PORT, "", 1), 0);
	told_read(&tc, &told);
	assert_int_equal(addr_port(&told.relayed[4]) % 2, 0);
	assert_int_equal(addr_port(&told.relayed[6]) % 2, 0);
	done(&tc);
}

static void partly(const char *conf, int four, int six)
{
	struct told told;
	struct tc tc;

	rig_reload(&rig, conf);
	tc_open_udp(&tc, &rig, 0);
	assert_int_equal(allocate_both(&tc, false, &told), 0);
	assert_int_equal(told.error[4], four);
	assert_int_equal(told.error[6], six);
	assert_int_equal(addr_family(&told.relayed[4]),
			 four ? AF_UNSPEC : AF_INET);
	assert_int_equal(addr_family(&told.relayed[6]),
			 six ? AF_UNSPEC : AF_INET6);
	assert_int_equal(refresh(&tc, STUN_FAMILY_IPV6, -1), six ? 443 : 0);
	assert_int_equal(refresh(&tc, STUN_FAMILY_IPV4, -1), four ? 443 : 0);
	done(&tc);
}

static void the_family_that_is_not_to_be_had_is_named(void **state)
{
	struct told told;
	struct tc four, six, third;
	union addr relayed;

	(void)state;
	partly("[relay]\naddress = 127.0.0.1\n", 0, 440);
	partly("[relay]\naddress = ::1\n", 440, 0);
	partly("", 0, 440); /* the client has dialled 127.0.0.1 */
	/* An address that this host does not have. */
	partly("[relay]\naddress = 127.0.0.1, 2001:db8::77\n", 0, 508);
	partly("[relay]\naddress = 192.0.2.77, ::1\n", 508, 0);
	/* One port for each; somebody has that of IPv4, then of both. */
	rig_reload(&rig, BOTH "ports = 20600-20600\n");
	tc_open_udp(&four, &rig, 0);
	assert_int_equal(tc_allocate_udp(&four, &relayed), 0);
	partly(BOTH "ports = 20600-20600\n", 508, 0);
	tc_open_udp(&six, &rig, 0);
	assert_int_equal(allocate_both(&six, false, &told), 0);
	tc_open_udp(&third, &rig, 0);
	assert_int_equal(allocate_both(&third, false, &told), 508);
	done(&four);
	done(&six);
	rig_reload(&rig, "[relay]\naddress = 192.0.2.77, 2001:db8::77\n");
	assert_int_equal(allocate_both(&third, false, &told), 508);
	tc_close(&third);
}

static void a_repeated_allocate_is_answered_alike(void **state)
{
	uint8_t request[512], answer[512];
	size_t len, answer_len;
	struct tc tc;

	(void)state;
	tc_open_udp(&tc, &rig, 0);
	begin_both(&tc, false);
	len = tc_end(&tc);
	memcpy(request, tc.out, len);
	tc_write(&tc, request, len);
	assert_int_equal(tc_answer(&tc), 0);
	answer_len = tc.msg.len;
	memcpy(answer, tc.msg.data, answer_len);
	assert_int_equal(refresh(&tc, STUN_FAMILY_IPV4, 0), 0);
	memcpy(tc.txid, request + 8, sizeof(tc.txid));
	tc_write(&tc, request, len);
	assert_int_equal(tc_answer(&tc), 0);
	assert_int_equal(tc.msg.len, answer_len);
	assert_memory_equal(tc.msg.data, answer, answer_len);
	assert_int_equal(rig.shared->relayed.count, 1);
	done(&tc);
}

static void one_family_ends_and_leaves_the_other_alone(void **state)
{
	struct peer four, six;
	struct told told;
	struct tc tc;

	(void)state;
	open_both(&tc, false, &told);
	peer_open(&four, "127.0.0.2");
	peer_open(&six, "::1");
	assert_int_equal(channel_bind(&tc, &four.addr, 0x4004), 0);
	assert_int_equal(channel_bind(&tc, &six.addr, 0x4006), 0);
	assert_int_equal(refresh(&tc, STUN_FAMILY_IPV6, 0), 0);
	/* Its answer was lost. */
	tc_write(&tc, tc.out, (size_t)tc.w.len);
	assert_int_equal(tc_answer(&tc), 0);
	assert_int_equal(rig.shared->relayed.count, 1);
	assert_int_equal(rig_counters(&rig).channels, 1);
	assert_int_equal(rig_counters(&rig).allocations, 1);
	assert_int_equal(refresh(&tc, STUN_FAMILY_IPV6, 0), 443);
	assert_int_equal(refresh(&tc, STUN_FAMILY_IPV6, -1), 443);
	assert_int_equal(tc_peer(&tc, STUN_CREATE_PERMISSION, &six.addr), 443);
	assert_int_equal(channel_bind(&tc, &six.addr, 0x4006), 443);
	send_to(&tc, &six.addr, "x");
	channel_write(&tc, 0x4006, "x", 0);
	RIG_UNTIL(&rig, rig_counters(&rig).datagrams_dropped == 2);
	/* The number is free for the other family. */
	channel_write(&tc, 0x4004, "still there", 0);
	peer_hears(&four, &told.relayed[4], "still there");
	assert_int_equal(refresh(&tc, STUN_FAMILY_IPV4, -1), 0);
	/* The last one takes the allocation with it. */
	assert_int_equal(refresh(&tc, STUN_FAMILY_IPV4, 0), 0);
	assert_int_equal(refresh(&tc, 0, -1), 437);
	assert_true(rig_is_idle(&rig));
	close(four.fd);
	close(six.fd);
	tc_close(&tc);
}

static void each_family_has_its_own_time(void **state)
{
	struct told told;
	struct tc tc;

	(void)state;
	rig_reload(&rig, BOTH "[limits]\ndefault_lifetime = 1\n");
	open_both(&tc, false, &told);
	while (rig.shared->relayed.count == 2) {
		assert_int_equal(refresh(&tc, STUN_FAMILY_IPV4, 600), 0);
		rig_tick(&rig, 10);
	}
	assert_int_equal(refresh(&tc, STUN_FAMILY_IPV6, 600), 443);
	assert_int_equal(refresh_by_zeroes(&tc, STUN_FAMILY_IPV6), 443);
	assert_int_equal(refresh(&tc, STUN_FAMILY_IPV4, 600), 0);
	done(&tc);
}

static bool row_take(void *arg, const struct turn_allocation_info *info)
{
	*(struct turn_allocation_info *)arg = *info;
	return true;
}

static void both_are_shown(void **state)
{
	struct turn_allocation_info row = { 0 };
	struct told told;
	struct tc tc;

	(void)state;
	open_both(&tc, false, &told);
	assert_int_equal(refresh(&tc, STUN_FAMILY_IPV6, 3000), 0);
	turn_worker_each_allocation(rig.worker[0], row_take, &row);
	assert_true(addr_equal(&row.relayed, &told.relayed[4]));
	assert_true(addr_equal(&row.additional, &told.relayed[6]));
	assert_in_range(row.expires_in_ms, 2990000, 3000000);
	assert_int_equal(refresh(&tc, STUN_FAMILY_IPV4, 0), 0);
	turn_worker_each_allocation(rig.worker[0], row_take, &row);
	assert_true(addr_equal(&row.relayed, &told.relayed[6]));
	assert_int_equal(addr_family(&row.additional), AF_UNSPEC);
	done(&tc);
}

/* One allocation, whatever it has. */
static void two_families_are_one_of_a_quota(void **state)
{
	struct told told;
	struct tc a, b;

	(void)state;
	rig_reload(&rig, BOTH "[limits]\nallocations_per_user = 2\n");
	open_both(&a, false, &told);
	open_both(&b, false, &told);
	assert_int_equal(rig_counters(&rig).allocations, 2);
	done(&a);
	done(&b);
}

static void tcp_connections_belong_to_their_family(void **state)
{
	union addr four, six, from;
	int four_fd = peer_listen("127.0.0.2", &four);
	int six_fd = peer_listen("::1", &six);
	uint32_t four_id, six_id;
	struct tc tc, data;
	struct told told;
	int fds[2];

	(void)state;
	open_both(&tc, true, &told);
	assert_int_equal(tc_connect(&tc, &four, &four_id), 0);
	fds[0] = peer_accept(&rig, four_fd, &from);
	assert_true(addr_equal(&from, &told.relayed[4]));
	assert_int_equal(tc_connect(&tc, &six, &six_id), 0);
	fds[1] = peer_accept(&rig, six_fd, &from);
	assert_true(addr_equal(&from, &told.relayed[6]));
	assert_int_equal(tc_connect(&tc, &told.relayed[6], &six_id), 403);
	assert_int_equal(refresh(&tc, STUN_FAMILY_IPV6, 0), 0);
	RIG_UNTIL(&rig, fd_state(fds[1]) < 0);
	assert_int_equal(tc_connect(&tc, &six, &six_id), 443);
	assert_int_equal(fd_state(fds[0]), 0);
	tc_open_data(&data, &tc, 0);
	assert_int_equal(tc_bind(&data, four_id), 0);
	tc_write(&data, "x", 1);
	RIG_UNTIL(&rig, fd_state(fds[0]) == 1);
	tc_close(&data);
	close(fds[0]);
	close(fds[1]);
	close(four_fd);
	close(six_fd);
	done(&tc);
}

/* All that may fail for want of memory; what was to be had is given. */
static void story(void *arg)
{
	struct told told;
	union addr peer;
	struct tc tc;

	(void)arg;
	tc_open_udp(&tc, &rig, 0);
	if (allocate_both(&tc, false, &told) == 0) {
		for (int family = 4; family <= 6; family += 2)
			assert_int_equal(told.error[family] == 0,
					 addr_family(&told.relayed[family]) !=
						 AF_UNSPEC);
		assert_int_equal(addr_parse("[::1]:9", 0, &peer), 0);
		channel_bind(&tc, &peer, 0x4000);
		refresh(&tc, STUN_FAMILY_IPV6, 0);
		refresh(&tc, 0, 0);
	}
	tc_close(&tc);
	RIG_UNTIL(&rig, rig_is_idle(&rig));
	assert_int_equal(rig.shared->relayed.count, 0);
}

static void survives_every_allocation_failure(void **state)
{
	(void)state;
	story(NULL); /* tables have grown */
	assert_true(failalloc_sweep(story, NULL) > 8);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, udp_rig_close)
	const struct CMUnitTest tests[] = {
		TEST(each_peer_sees_the_address_of_its_family),
		TEST(what_makes_no_sense_with_two_families_is_400),
		TEST(the_family_that_is_not_to_be_had_is_named),
		TEST(a_repeated_allocate_is_answered_alike),
		TEST(one_family_ends_and_leaves_the_other_alone),
		TEST(each_family_has_its_own_time),
		TEST(both_are_shown),
		TEST(two_families_are_one_of_a_quota),
		TEST(tcp_connections_belong_to_their_family),
		TEST(survives_every_allocation_failure),
	};

	if (!rig_has_ipv6()) {
		puts("1..0 # SKIP this host has no IPv6");
		return 0;
	}
	return cmocka_run_group_tests_name("turn_families", tests, NULL, NULL);
}
