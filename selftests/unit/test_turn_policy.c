/* SPDX-License-Identifier: BSD-2-Clause */
/* Which peers are refused: special addresses, their spellings, allow and deny. */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "turn/policy.h"
#include "unit/failalloc.h"

static union addr own_list[3];
static const struct own_addresses own = { .list = own_list, .count = 3 };
static const struct conf_peers plain;

static union addr addr_of(const char *text)
{
	union addr addr;

	assert_int_equal(addr_parse(text, 0, &addr), 0);
	return addr;
}

static bool allowed(const struct conf_peers *peers, const char *text)
{
	const struct turn_policy policy = {
		.rules = { NULL, NULL, &peers->rules },
		.peers = peers,
		.own = &own,
	};
	union addr addr = addr_of(text);

	return turn_policy_judge(&policy, &addr) <= TURN_UNNAMED;
}

/* A list of one rule. */
static void rule_is(struct conf_rule *rule, const char *prefix, uint16_t min,
		    uint16_t max)
{
	assert_int_equal(prefix_parse(prefix, &rule->prefix), 0);
	rule->port_min = min;
	rule->port_max = max;
}

static int setup(void **state)
{
	(void)state;
	own_list[0] = addr_of("192.0.2.1");
	own_list[1] = addr_of("2001:db8::1");
	own_list[2] = addr_of("10.0.0.1");
	return 0;
}

static void refuses_special_addresses(void **state)
{
	static const char *const refused[] = {
		"0.0.0.0",
		"0.1.2.3",
		"127.0.0.1",
		"127.255.255.255",
		"169.254.169.254",
		"224.0.0.1",
		"239.255.255.255",
		"240.0.0.1",
		"255.255.255.255",
		"::",
		"::1",
		"fe80::1",
		"febf:ffff::1",
		"ff00::",
		"ff02::1",
		"ffff::1",
	};
	static const char *const fine[] = {
		"1.0.0.1",         "126.255.255.255", "128.0.0.1",
		"169.253.255.255", "169.255.0.0",     "223.255.255.255",
		"192.168.1.1",     "10.0.0.2",        "2001:db8::2",
		"fec0::1",         "fd00::1",         "fe7f::1",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		if (allowed(&plain, refused[i]))
			fail_msg("%s is allowed", refused[i]);
	for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++)
		if (!allowed(&plain, fine[i]))
			fail_msg("%s is refused", fine[i]);
}

static void refuses_own_addresses(void **state)
{
	(void)state;
	assert_false(allowed(&plain, "192.0.2.1"));
	assert_false(allowed(&plain, "2001:db8::1"));
	assert_true(allowed(&plain, "192.0.2.2"));
}

/* Each with 127.0.0.1, then with 198.51.100.7 in the same place. */
static void refuses_spellings_of_refused_addresses(void **state)
{
	static const char *const pairs[][2] = {
		{ "::127.0.0.1", "::198.51.100.7" },
		{ "::ffff:0:127.0.0.1", "::ffff:0:198.51.100.7" },
		{ "2002:7f00:1::", "2002:c633:6407::" },
		{ "2002:7f00:1:1:2:3:4:5", "2002:c633:6407:1:2:3:4:5" },
		/* Teredo: the server, then the client, inverted */
		{ "2001:0:7f00:1:0:0:39cc:9bf8",
		  "2001:0:c633:6407:0:0:39cc:9bf8" },
		{ "2001:0:c633:6407:0:0:80ff:fffe",
		  "2001:0:c633:6407::39cc:9bf8" },
		{ "64:ff9b::127.0.0.1", "64:ff9b::198.51.100.7" },
		{ "64:ff9b:1::127.0.0.1", "64:ff9b:1::198.51.100.7" },
		{ "64:ff9b:1:7f00:0:100::", "64:ff9b:1:c633:64:700::" },
		{ "64:ff9b:1:17f:0:1::", "64:ff9b:1:1c6:33:6407::" },
		{ "64:ff9b:1:1:7f:0:100:0", "64:ff9b:1:1:c6:3364:700:0" },
		/* No unicast address, but with such a tail it is meant. */
		{ "64:ff9b:1:e000:0:100::", "64:ff9b:1:c633:64:800::" },
		/* Translators do not look at what is behind the IPv4 bytes,
		 * but a longer prefix may stand where they would.
		 */
		{ "64:ff9b:1:7f00:0:100:c633:6407",
		  "64:ff9b:1:c633:64:700:c633:6407" },
		{ "64:ff9b:1:17f:0:1:c633:6407",
		  "64:ff9b:1:1c6:33:6407:c633:6407" },
		{ "64:ff9b:1:1:7f:0:133:6407", "64:ff9b:1:1:c6:3364:733:6407" },
		{ "64:ff9b:1:fffe::127.0.0.1", "64:ff9b:1:fffe::198.51.100.7" },
		{ "2001:db8::5efe:127.0.0.1", "2001:db8::5efe:198.51.100.7" },
		{ "2001:db8::200:5efe:10.0.0.1",
		  "2001:db8::200:5efe:10.0.0.2" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		if (allowed(&plain, pairs[i][0]))
			fail_msg("%s is allowed", pairs[i][0]);
		if (!allowed(&plain, pairs[i][1]))
			fail_msg("%s is refused", pairs[i][1]);
	}
}

static void refuses_every_mapped_address(void **state)
{
	(void)state;
	assert_false(allowed(&plain, "::ffff:127.0.0.1"));
	assert_false(allowed(&plain, "::ffff:198.51.100.7"));
	assert_false(allowed(&plain, "::ffff:192.0.2.1"));
}

static void refuses_spellings_of_own_and_denied_addresses(void **state)
{
	struct conf_rule denied;
	struct conf_peers peers = { .rules.deny = &denied,
				    .rules.deny_count = 1 };

	(void)state;
	rule_is(&denied, "198.51.100.0/24", 0, UINT16_MAX);
	assert_false(allowed(&peers, "198.51.100.7"));
	assert_false(allowed(&peers, "64:ff9b::198.51.100.7"));
	assert_false(allowed(&peers, "2002:c633:6407::1"));
	assert_true(allowed(&peers, "64:ff9b::198.51.101.7"));
	assert_false(allowed(&plain, "64:ff9b::192.0.2.1"));
	assert_false(allowed(&plain, "2002:c000:201::1"));
}

static void allow_beats_every_refusal(void **state)
{
	struct conf_rule allow[3], deny;
	struct conf_peers peers = {
		.rules = {
			.allow = allow,
			.allow_count = 3,
			.deny = &deny,
			.deny_count = 1,
		},
	};

	(void)state;
	rule_is(&allow[0], "127.0.0.5", 0, UINT16_MAX);
	rule_is(&allow[1], "::1", 0, UINT16_MAX);
	rule_is(&allow[2], "198.51.100.7", 0, UINT16_MAX);
	rule_is(&deny, "0.0.0.0/0", 0, UINT16_MAX);
	assert_true(allowed(&peers, "127.0.0.5"));
	assert_true(allowed(&peers, "::1"));
	assert_true(allowed(&peers, "198.51.100.7"));
	assert_false(allowed(&peers, "127.0.0.6"));
	assert_false(allowed(&peers, "198.51.100.8"));
	/* The IPv4 address inside may be reached: so may its translation. */
	assert_true(allowed(&peers, "64:ff9b::198.51.100.7"));
	assert_false(allowed(&peers, "64:ff9b::198.51.100.8"));
}

/* With 127.0.0.1 and with 198.51.100.7 behind a prefix of each length. */
static void refuses_spellings_by_configured_translators(void **state)
{
	static const struct {
		const char *prefix, *bad, *good;
	} rows[] = {
		{ "2001:db8::/32", "2001:db8:7f00:1::5",
		  "2001:db8:c633:6407::5" },
		{ "2001:db8:100::/40",
		  "2001:db8:17f:0:1::", "2001:db8:1c6:3364:7::" },
		{ "2001:db8:122::/48",
		  "2001:db8:122:7f00:0:100::", "2001:db8:122:c633:64:700::" },
		{ "2001:db8:122:300::/56",
		  "2001:db8:122:37f:0:1::", "2001:db8:122:3c6:33:6407::" },
		{ "2001:db8:122:344::/64", "2001:db8:122:344:7f:0:100:0",
		  "2001:db8:122:344:c6:3364:700:0" },
		{ "2001:db8:122:344::/96", "2001:db8:122:344::127.0.0.1",
		  "2001:db8:122:344::198.51.100.7" },
	};
	struct prefix prefix;
	struct conf_peers peers = { .nat64 = &prefix, .nat64_count = 1 };

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(prefix_parse(rows[i].prefix, &prefix), 0);
		if (allowed(&peers, rows[i].bad))
			fail_msg("%s is allowed", rows[i].bad);
		if (!allowed(&peers, rows[i].good))
			fail_msg("%s is refused", rows[i].good);
		assert_true(allowed(&plain, rows[i].bad));
	}
}

/* The first list that names the peer decides. */
static void asks_user_realm_and_all_in_this_order(void **state)
{
	struct conf_rule user_allow, user_deny, realm_allow, realm_deny, deny;
	const struct conf_rules user = { &user_allow, &user_deny, 1, 1 };
	const struct conf_rules realm = { &realm_allow, &realm_deny, 1, 1 };
	const struct conf_peers peers = {
		.rules = { .deny = &deny, .deny_count = 1 },
	};
	const struct turn_policy policy = {
		.rules = { &user, &realm, &peers.rules },
		.peers = &peers,
		.own = &own,
	};
	static const struct {
		const char *peer;
		enum turn_verdict verdict;
	} rows[] = {
		{ "10.1.1.1:80", TURN_ALLOWED }, /* by the user's */
		{ "10.1.2.1:80",
		  TURN_DENIED }, /* so, before the realm's allow */
		{ "10.2.2.1:80", TURN_ALLOWED }, /* by the realm's */
		{ "10.2.3.1:80", TURN_DENIED }, /* so */
		{ "10.3.3.1:80", TURN_DENIED }, /* by that of all */
		{ "192.0.2.1:80", TURN_REFUSED }, /* by default */
		{ "192.0.2.2:80", TURN_UNNAMED },
		{ "[64:ff9b::10.1.1.1]:80", TURN_UNNAMED },
		{ "[64:ff9b::10.1.2.1]:80", TURN_DENIED },
	};

	(void)state;
	rule_is(&user_allow, "10.1.1.0/24", 0, UINT16_MAX);
	rule_is(&user_deny, "10.1.0.0/16", 0, UINT16_MAX);
	rule_is(&realm_allow, "10.2.2.0/24", 0, UINT16_MAX);
	rule_is(&realm_deny, "10.2.0.0/16", 0, UINT16_MAX);
	rule_is(&deny, "10.0.0.0/8", 0, UINT16_MAX);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		union addr addr = addr_of(rows[i].peer);

		if (turn_policy_judge(&policy, &addr) != rows[i].verdict)
			fail_msg("%s: %d", rows[i].peer,
				 turn_policy_judge(&policy, &addr));
	}
}

/* A host's permission is had for one port's sake, and a port is judged alone. */
static void rules_may_be_for_ports(void **state)
{
	struct conf_rule allow, deny;
	const struct conf_peers peers = {
		.rules = { &allow, &deny, 1, 1 },
	};

	(void)state;
	rule_is(&allow, "127.0.0.1", 8000, 8080);
	rule_is(&deny, "198.51.100.0/24", 25, 25);
	assert_true(allowed(&peers, "127.0.0.1:8000"));
	assert_true(allowed(&peers, "127.0.0.1:8080"));
	assert_false(allowed(&peers, "127.0.0.1:7999"));
	assert_false(allowed(&peers, "127.0.0.1:8081"));
	assert_true(allowed(&peers, "127.0.0.1"));
	assert_false(allowed(&peers, "127.0.0.2"));
	assert_false(allowed(&peers, "198.51.100.7:25"));
	assert_true(allowed(&peers, "198.51.100.7:26"));
	assert_true(allowed(&peers, "198.51.100.7"));
	/* In translation the port stays. */
	assert_false(allowed(&peers, "[64:ff9b::198.51.100.7]:25"));
	assert_true(allowed(&peers, "[64:ff9b::198.51.100.7]:26"));
	assert_true(allowed(&peers, "[64:ff9b::127.0.0.1]:8000"));
	assert_false(allowed(&peers, "[64:ff9b::127.0.0.1]:8081"));
	/* All ports there are. */
	rule_is(&deny, "198.51.100.0/24", 1, UINT16_MAX);
	assert_false(allowed(&peers, "198.51.100.7"));
}

static void knows_the_broadcast_addresses_of_a_network(void **state)
{
	static const struct {
		const char *addr;
		unsigned int bits;
		const char *low, *high;
	} rows[] = {
		{ "192.0.2.77", 24, "192.0.2.0", "192.0.2.255" },
		{ "192.0.2.77", 30, "192.0.2.76", "192.0.2.79" },
		{ "192.0.2.77", 31, NULL, NULL },
		{ "192.0.2.77", 32, NULL, NULL },
		{ "192.0.2.77", 128, NULL, NULL },
		{ "10.1.2.3", 8, "10.0.0.0", "10.255.255.255" },
		{ "10.1.2.3", 13, "10.0.0.0", "10.7.255.255" },
		{ "10.1.2.3", 0, "0.0.0.0", "255.255.255.255" },
		{ "2001:db8::77", 64, "2001:db8::", NULL },
		{ "2001:db8::77", 126, "2001:db8::74", NULL },
		{ "2001:db8::77", 127, NULL, NULL },
		{ "2001:db8::77", 128, NULL, NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		union addr addr = addr_of(rows[i].addr), out[2], want;
		size_t count = turn_own_edges(&addr, rows[i].bits, out);

		assert_int_equal(count, !!rows[i].low + !!rows[i].high);
		if (rows[i].low) {
			want = addr_of(rows[i].low);
			assert_true(addr_same_host(&out[0], &want));
		}
		if (rows[i].high) {
			want = addr_of(rows[i].high);
			assert_true(addr_same_host(&out[1], &want));
		}
	}
}

static void lists_what_an_ipv6_address_may_mean(void **state)
{
	union addr out[TURN_POLICY_EMBEDDED_MAX];
	union addr addr = addr_of("2001:0:c633:6407::80ff:fffe");
	union addr server = addr_of("198.51.100.7");
	union addr client = addr_of("127.0.0.1");

	(void)state;
	assert_int_equal(turn_policy_embedded(&addr, out), 2);
	assert_true(addr_same_host(&out[0], &server));
	assert_true(addr_same_host(&out[1], &client));
	addr = addr_of("2001:db8::7");
	assert_int_equal(turn_policy_embedded(&addr, out), 0);
	addr = addr_of("198.51.100.7");
	assert_int_equal(turn_policy_embedded(&addr, out), 0);
}

static void reads_the_addresses_of_this_machine(void **state)
{
	struct own_addresses here = { 0 };
	union addr loopback = addr_of("127.0.0.1");
	union addr broadcast = addr_of("127.255.255.255");
	bool found = false, edge = false, changed = false;

	(void)state;
	assert_int_equal(turn_own_addresses_read(&here, &changed), 0);
	assert_true(changed);
	for (size_t i = 0; i < here.count; i++) {
		found |= addr_same_host(&here.list[i], &loopback);
		edge |= addr_same_host(&here.list[i], &broadcast);
	}
	assert_true(found);
	assert_true(edge);
	assert_int_equal(turn_own_addresses_read(&here, &changed), 0);
	assert_false(changed);
	here.list[0] = broadcast;
	assert_int_equal(turn_own_addresses_read(&here, &changed), 0);
	assert_true(changed);
	/* A failure leaves what was known. */
	failalloc_arm(1);
	assert_true(turn_own_addresses_read(&here, &changed) < 0);
	failalloc_disarm();
	assert_true(here.count > 0);
	turn_own_addresses_clear(&here);
	assert_int_equal(here.count, 0);
}

/* 400 alternative names of 124 bytes: the kernel says 50 KB of one link. */
static int names_add(void)
{
	FILE *ip = popen("ip -batch -", "w");

	assert_non_null(ip);
	fputs("link set lo up\n", ip);
	for (int i = 0; i < 400; i++)
		fprintf(ip, "link property add dev lo altname n%0123d\n", i);
	return pclose(ip);
}

/* The C library's getifaddrs() does not come back from such a link. */
static void reads_links_of_many_names(void **state)
{
	struct own_addresses here = { 0 };
	bool changed;

	(void)state;
	if (unshare(CLONE_NEWNET)) {
		print_message("# no network namespace: %s\n", strerror(errno));
		skip();
	}
	assert_int_equal(names_add(), 0);
	alarm(10);
	assert_int_equal(turn_own_addresses_read(&here, &changed), 0);
	alarm(0);
	assert_true(turn_own_link_up(&here, "lo"));
	assert_int_equal(here.up_count, 1);
	assert_true(here.count >= 3);
	turn_own_addresses_clear(&here);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_special_addresses),
		cmocka_unit_test(refuses_own_addresses),
		cmocka_unit_test(refuses_spellings_of_refused_addresses),
		cmocka_unit_test(refuses_every_mapped_address),
		cmocka_unit_test(refuses_spellings_of_own_and_denied_addresses),
		cmocka_unit_test(allow_beats_every_refusal),
		cmocka_unit_test(refuses_spellings_by_configured_translators),
		cmocka_unit_test(asks_user_realm_and_all_in_this_order),
		cmocka_unit_test(rules_may_be_for_ports),
		cmocka_unit_test(knows_the_broadcast_addresses_of_a_network),
		cmocka_unit_test(lists_what_an_ipv6_address_may_mean),
		cmocka_unit_test(reads_the_addresses_of_this_machine),
		/* Leaves the machine's network for one of its own. */
		cmocka_unit_test(reads_links_of_many_names),
	};

	return cmocka_run_group_tests_name("turn policy", tests, setup, NULL);
}
