/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the policy refuses, by every method that names a peer: Connect,
 * CreatePermission, ChannelBind, Send and ChannelData.
 */
#include "turn/policy.h"
#include "unit/turn_rig.h"

#define PORT    9
#define CHANNEL 0x4000

/* Both families, and no peer at all but those that a test allows. */
#define BOTH                                  \
	"[relay]\naddress = 127.0.0.1, ::1\n" \
	"[peers]\nrelayed = no\nnat64 = 2001:db8:64::/96\n"

static struct rig rig;

/* Clients with an allocation of each kind. */
struct clients {
	struct tc tcp, udp;
	union addr tcp_relayed, udp_relayed;
};

static int setup(void **state)
{
	(void)state;
	return rig_open(&rig, 1, BOTH);
}

static int teardown(void **state)
{
	(void)state;
	rig_finish(&rig);
	return 0;
}

static void allocate(struct tc *tc, uint8_t transport, bool v6,
		     union addr *relayed)
{
	tc_open(tc, &rig, 0);
	assert_int_equal(tc_challenge(tc), 401);
	tc_begin(tc, STUN_ALLOCATE);
	stun_put_u8(&tc->w, STUN_ATTR_REQUESTED_TRANSPORT, transport);
	if (v6)
		stun_put_u8(&tc->w, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
			    STUN_FAMILY_IPV6);
	assert_int_equal(tc_ask(tc), 0);
	assert_true(tc_address(tc, STUN_ATTR_XOR_RELAYED_ADDRESS, relayed));
}

static void clients_open(struct clients *clients, bool v6)
{
	allocate(&clients->tcp, STUN_TRANSPORT_TCP, v6, &clients->tcp_relayed);
	allocate(&clients->udp, STUN_TRANSPORT_UDP, v6, &clients->udp_relayed);
}

static void clients_close(struct clients *clients)
{
	tc_close(&clients->tcp);
	tc_close(&clients->udp);
	RIG_UNTIL(&rig, rig_is_idle(&rig));
}

static uint64_t drops(void)
{
	return rig_counters(&rig).datagrams_dropped;
}

static int channel_bind(struct tc *tc, const union addr *peer)
{
	tc_begin_peer(tc, STUN_CHANNEL_BIND, peer);
	stun_put_u32(&tc->w, STUN_ATTR_CHANNEL_NUMBER, (uint32_t)CHANNEL << 16);
	return tc_ask(tc);
}

static void send_to(struct tc *tc, const union addr *peer)
{
	stun_begin(&tc->w, tc->out, sizeof(tc->out), STUN_INDICATION, STUN_SEND,
		   NULL);
	stun_put_xor_address(&tc->w, STUN_ATTR_XOR_PEER_ADDRESS, peer);
	stun_put(&tc->w, STUN_ATTR_DATA, "data", 4);
	tc_write(tc, tc->out, (size_t)stun_end(&tc->w));
}

static void channel_write(struct tc *tc)
{
	uint8_t buf[STUN_CHANNEL_HEADER + 4] = { 0 };

	stun_channel_begin(buf, CHANNEL, 4);
	tc_write(tc, buf, sizeof(buf));
}

/* BOTH, and this host, at one port or at any, beside. */
static void allow(const char *host, unsigned int port)
{
	char text[512];

	if (port)
		snprintf(text, sizeof(text), BOTH "allow = %s%s%s:%u\n",
			 strchr(host, ':') ? "[" : "", host,
			 strchr(host, ':') ? "]" : "", port);
	else
		snprintf(text, sizeof(text), BOTH "allow = %s\n", host);
	rig_reload(&rig, text);
}

/*
 * Allowed first, so that there are a permission and a channel; then at another port
 * alone, which leaves both; then not at all.
 */
static void refused_by_every_method(struct clients *clients, const char *host)
{
	struct tc *tcp = &clients->tcp, *udp = &clients->udp;
	union addr peer;
	uint64_t before;
	int code;

	assert_int_equal(addr_parse(host, PORT, &peer), 0);
	allow(host, 0);
	assert_int_equal(tc_peer(tcp, STUN_CREATE_PERMISSION, &peer), 0);
	code = channel_bind(udp, &peer);
	if (code)
		fail_msg("%s: ChannelBind %d", host, code);
	allow(host, PORT + 1);
	before = drops();
	send_to(udp, &peer);
	channel_write(udp);
	assert_int_equal(tc_peer(udp, STUN_CREATE_PERMISSION, &peer), 0);
	if (drops() != before + 2)
		fail_msg("%s: Send and ChannelData: %ju drops", host,
			 (uintmax_t)(drops() - before));
	if (channel_bind(udp, &peer) != 403)
		fail_msg("%s: ChannelBind", host);
	if (tc_peer(tcp, STUN_CONNECT, &peer) != 403)
		fail_msg("%s: Connect", host);
	rig_reload(&rig, BOTH);
	if (tc_peer(udp, STUN_CREATE_PERMISSION, &peer) != 403)
		fail_msg("%s: CreatePermission", host);
	/* The channel's number is for the next row. */
	tc_begin(udp, STUN_REFRESH);
	stun_put_u32(&udp->w, STUN_ATTR_LIFETIME, 0);
	assert_int_equal(tc_ask(udp), 0);
	tc_close(udp);
	allocate(udp, STUN_TRANSPORT_UDP, addr_family(&peer) == AF_INET6,
		 &clients->udp_relayed);
}

static void rows_refused(bool v6, const char *const *rows, size_t count)
{
	struct clients clients;

	clients_open(&clients, v6);
	for (size_t i = 0; i < count; i++)
		refused_by_every_method(&clients, rows[i]);
	clients_close(&clients);
}

static void every_method_refuses_ipv4_addresses_that_mean_here(void **state)
{
	static const char *const rows[] = {
		"127.0.0.2", "127.255.255.255", "169.254.169.254",
		"224.0.0.1", "239.1.2.3",       "0.0.0.0",
		"0.1.2.3",   "255.255.255.255", "240.0.0.1",
	};

	(void)state;
	rows_refused(false, rows, sizeof(rows) / sizeof(rows[0]));
}

static void every_method_refuses_ipv6_addresses_that_mean_here(void **state)
{
	static const char *const rows[] = {
		"::",
		"fe80::1",
		"ff02::1",
		"::ffff:198.51.100.7",
		"::127.0.0.1",
		"::ffff:0:127.0.0.1",
		"2002:7f00:1::1",
		"2001:0:7f00:1:0:0:39cc:9bf8",
		"64:ff9b::127.0.0.1",
		"64:ff9b:1::127.0.0.1",
		"64:ff9b:1:7f00:0:100::",
		"2001:db8:64::127.0.0.1",
		"2001:db8::5efe:127.0.0.1",
	};

	(void)state;
	rows_refused(true, rows, sizeof(rows) / sizeof(rows[0]));
}

static void every_method_refuses_this_machine(void **state)
{
	struct own_addresses here = { 0 };
	struct clients clients;
	char text[ADDR_STRLEN];
	bool changed;

	(void)state;
	assert_int_equal(turn_own_addresses_read(&here, &changed), 0);
	for (int v6 = 0; v6 < 2; v6++) {
		clients_open(&clients, v6);
		for (size_t i = 0; i < here.count; i++)
			if ((addr_family(&here.list[i]) == AF_INET6) == v6)
				refused_by_every_method(
					&clients,
					addr_format_host(&here.list[i], text));
		clients_close(&clients);
	}
	turn_own_addresses_clear(&here);
}

/* alice's lists, then the realm's, then those of all. */
static void lists_of_a_user_and_a_realm_come_first(void **state)
{
	struct tc alice, bob, other;
	union addr relayed, peer[3];

	(void)state;
	rig_close(&rig);
	assert_int_equal(rig_open(&rig, 1, ""), 0);
	for (unsigned int i = 0; i < 3; i++) {
		char host[16];

		snprintf(host, sizeof(host), "127.0.0.%u", i + 2);
		assert_int_equal(addr_parse(host, PORT, &peer[i]), 0);
	}
	rig_reload(&rig, "[realm third.org]\nallow = 127.0.0.4\n"
			 "[user carol]\nrealm = third.org\npassword = x\n"
			 "allow = 127.0.0.2\ndeny = 127.0.0.4\n"
			 "[user dave]\nrealm = third.org\npassword = y\n"
			 "[peers]\nallow = 127.0.0.3\n");
	tc_open(&alice, &rig, 0);
	assert_int_equal(tc_allocate(&alice, &relayed), 0);
	tc_open(&bob, &rig, 0);
	bob.user = "carol";
	bob.password = "x";
	bob.realm = "third.org";
	assert_int_equal(tc_allocate(&bob, &relayed), 0);
	tc_open(&other, &rig, 0);
	other.user = "dave";
	other.password = "y";
	other.realm = "third.org";
	assert_int_equal(tc_allocate(&other, &relayed), 0);
	/* 127.0.0.2: carol's list; .3: of all; .4: the realm's, not carol's. */
	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(tc_peer(&alice, STUN_CREATE_PERMISSION,
					 &peer[i]),
				 i == 1 ? 0 : 403);
		assert_int_equal(tc_peer(&bob, STUN_CREATE_PERMISSION,
					 &peer[i]),
				 i == 2 ? 403 : 0);
		assert_int_equal(tc_peer(&other, STUN_CREATE_PERMISSION,
					 &peer[i]),
				 i == 0 ? 403 : 0);
	}
	tc_close(&alice);
	tc_close(&bob);
	tc_close(&other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			every_method_refuses_ipv4_addresses_that_mean_here,
			setup, teardown),
		cmocka_unit_test_setup_teardown(
			every_method_refuses_ipv6_addresses_that_mean_here,
			setup, teardown),
		cmocka_unit_test_setup_teardown(
			every_method_refuses_this_machine, setup, teardown),
		cmocka_unit_test_setup_teardown(
			lists_of_a_user_and_a_realm_come_first, setup,
			teardown),
	};

	return cmocka_run_group_tests_name("turn access", tests, NULL, NULL);
}
