/* SPDX-License-Identifier: BSD-2-Clause */
/* Exits: which rules and routes are wanted, and what the guards let pass. */
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "exit/internal.h"
#include "exit/learn.h"
#include "exit/order.h"
#include "exit/probe.h"
#include "exit/ranges.h"
#include "exit/sets.h"
#include "exit/tunnel.h"
#include "unit/conf_from.h"
#include "unit/failalloc.h"

#define USABLE "[realm example.org]\n[user alice]\npassword = secret\n"

static struct conf *conf_of(const char *exits)
{
	char text[2048];

	snprintf(text, sizeof(text), "%s%s", USABLE, exits);
	return conf_from(text);
}

/* Two exits, whose prefixes lie in each other, and a network of the site. */
static struct conf *two_exits(void)
{
	return conf_of("[exit a]\nlink = wan0\nnext_hop = 192.0.2.1, fe80::1\n"
		       "prefix = 10.0.0.0/8, 2001:db8:a::/48\n"
		       "[exit b]\nlink = wan1\n"
		       "prefix = 10.9.0.0/16, 2001:db8:b::/48\n"
		       "[exit pins]\nprefix = 172.16.0.0/12\n");
}

static struct prefix prefix_of(const char *text)
{
	struct prefix prefix;

	assert_int_equal(prefix_parse(text, &prefix), 0);
	return prefix;
}

/* wan0 up, wan1 as told, lan0; each with its subnets. */
struct lab_host {
	struct exit_link links[3];
	struct exit_way ways[6];
	struct exit_host host;
};

static void host_make(struct lab_host *lab, bool wan1_up)
{
	*lab = (struct lab_host){
		.links = { { .name = "wan0", .index = 2, .up = true, .mtu = 1500 },
			   { .name = "wan1", .index = 3, .up = wan1_up, .mtu = 1500 },
			   { .name = "lan0", .index = 4, .up = true, .mtu = 1500 } },
		.ways = {
			{ .to = prefix_of("192.0.2.0/24"), .link = 2,
			  .kernel = true },
			{ .to = prefix_of("2001:db8:1::/64"), .link = 2,
			  .metric = 256, .kernel = true },
			{ .to = prefix_of("fe80::/64"), .link = 2,
			  .metric = 256, .kernel = true },
			{ .to = prefix_of("2001:db8:a:1::/64"), .link = 4,
			  .metric = 256, .kernel = true },
			{ .to = prefix_of("2000::/3"), .link = 2,
			  .metric = 1024 },
			{ .to = prefix_of("fd00::/8"), .metric = 1 },
		},
	};
	lab->host = (struct exit_host){ .links = lab->links,
					.ways = lab->ways,
					.link_count = 3,
					.way_count = 6 };
}

static bool rule_there(const struct exit_state *state, const char *text)
{
	char found[EXIT_TEXT];

	for (size_t i = 0; i < state->rule_count; i++) {
		exit_rule_format(&state->rules[i], found);
		if (!strcmp(found, text))
			return true;
	}
	return false;
}

/* Links that do not exist are written by their number. */
static bool route_there(const struct exit_state *state, const char *text)
{
	char found[EXIT_TEXT];

	for (size_t i = 0; i < state->route_count; i++) {
		exit_route_format(&state->routes[i], found);
		if (!strcmp(found, text))
			return true;
	}
	return false;
}

static void wanted(bool wan1_up, struct exit_state *out)
{
	struct conf *conf = two_exits();
	struct lab_host lab;

	host_make(&lab, wan1_up);
	/* No such device here, so that the words are the same everywhere. */
	lab.links[0].index = lab.ways[0].link = lab.ways[1].link =
		lab.ways[2].link = lab.ways[4].link = 90002;
	lab.links[1].index = 90003;
	lab.links[2].index = lab.ways[3].link = 90004;
	assert_int_equal(exit_want(conf, &lab.host, out), 0);
	conf_unref(conf);
}

static void longer_prefixes_are_asked_first(void **state)
{
	struct exit_state want;

	(void)state;
	wanted(true, &want);
	assert_int_equal(want.rule_count, 8);
	assert_true(rule_there(&want, "ip -4 rule pref 20001 lookup main "
				      "suppress_prefixlength 0 "
				      "suppress_ifgroup 20000 protocol 200"));
	assert_true(rule_there(&want, "ip -4 rule pref 20019 from 10.9.0.0/16 "
				      "lookup 20010 protocol 200"));
	assert_true(rule_there(&want, "ip -4 rule pref 20027 from 10.0.0.0/8 "
				      "lookup 20013 protocol 200"));
	assert_true(rule_there(&want, "ip -4 rule pref 20150 from 10.9.0.0/16 "
				      "unreachable protocol 200"));
	assert_true(rule_there(&want,
			       "ip -6 rule pref 20001 lookup 20000 protocol "
			       "200"));
	exit_state_clear(&want);
}

static void each_source_has_its_routes(void **state)
{
	struct exit_state want;

	(void)state;
	wanted(true, &want);
	assert_true(route_there(&want, "ip -4 route default via 192.0.2.1 dev "
				       "if90002 table 20013 metric 1024 proto "
				       "200"));
	assert_true(route_there(&want, "ip -4 route 192.0.2.0/24 dev if90002 "
				       "table 20013 metric 256 proto 200"));
	assert_true(route_there(&want, "ip -4 route unreachable default table "
				       "20013 metric 4294967295 proto 200"));
	/* A link with two ends needs no next hop. */
	assert_true(route_there(&want, "ip -4 route default dev if90003 table "
				       "20010 metric 1024 proto 200"));
	/* The wider prefix lets it pass, too, if the link is lost. */
	assert_true(route_there(&want, "ip -4 route default via 192.0.2.1 dev "
				       "if90002 table 20010 metric 1025 proto "
				       "200"));
	assert_true(route_there(&want,
				"ip -6 route default from 2001:db8:a::/48 via "
				"fe80::1 dev if90002 table 20000 metric 1024 "
				"proto 200"));
	assert_true(route_there(&want, "ip -6 route 2001:db8:1::/64 from "
				       "2001:db8:a::/48 dev if90002 table "
				       "20000 metric 256 proto 200"));
	assert_false(route_there(&want, "ip -6 route 2001:db8:1::/64 from "
					"2001:db8:b::/48 dev if90002 table "
					"20000 metric 256 proto 200"));
	exit_state_clear(&want);
}

static void the_site_comes_before_the_exits(void **state)
{
	struct exit_state want;

	(void)state;
	wanted(true, &want);
	assert_true(route_there(&want, "ip -6 route 2001:db8:a:1::/64 dev "
				       "if90004 table 20000 metric 256 proto "
				       "200"));
	assert_true(route_there(&want, "ip -6 route unreachable fd00::/8 table "
				       "20000 metric 1 proto 200"));
	assert_true(route_there(&want, "ip -6 route fe80::/64 dev if90002 "
				       "table 20000 metric 256 proto 200"));
	/* What main sends by an exit is not the site's, however long. */
	assert_false(route_there(&want, "ip -6 route 2000::/3 dev if90002 "
					"table 20000 metric 1024 proto 200"));
	assert_false(route_there(&want, "ip -6 route 2001:db8:1::/64 dev "
					"if90002 table 20000 metric 256 proto "
					"200"));
	exit_state_clear(&want);
}

/* Indices of the exits that a source may leave by, as "2 0". */
static const char *order_of(const struct exit_order *order, const char *prefix)
{
	struct prefix wanted = prefix_of(prefix);
	static char text[64];
	size_t len = 0;

	for (size_t i = 0; i < order->source_count; i++) {
		const struct exit_source *source = &order->sources[i];
		const struct exit_choice *choice =
			&order->choices[source->choice];

		if (prefix_compare(&source->prefix, &wanted) != 0)
			continue;
		text[0] = '\0';
		for (size_t k = 0; k < choice->count; k++)
			len += (size_t)snprintf(text + len, sizeof(text) - len,
						"%s%u", k ? " " : "",
						choice->exits[k]);
		return text;
	}
	return "none";
}

static void the_owner_comes_first_then_those_who_let_it_pass(void **state)
{
	struct conf *conf = conf_of(
		"[exit a]\nlink = wan0\nprefix = 10.0.0.0/8, fd01::/48\n"
		"authorised = 192.0.2.0/24, 172.16.0.0/12, 10.9.0.0/16\n"
		"[exit b]\nlink = wan1\nprefix = 10.9.0.0/16, 192.0.2.0/24\n"
		"authorised = 172.16.0.0/12\nweight = 5\n"
		"[exit open]\nlink = wan2\nnext_hop = 198.51.100.1\n"
		"unchecked = yes\nweight = 3\n"
		"[exit pins]\nprefix = 203.0.113.0/24\nunchecked = yes\n");
	struct exit_order order;

	(void)state;
	assert_int_equal(exit_order_make(conf, &order), 0);
	assert_int_equal(order.source_count, 5);
	assert_string_equal(order_of(&order, "10.0.0.0/8"), "0 2");
	/* Within that of another, which lets it pass, too. */
	assert_string_equal(order_of(&order, "10.9.0.0/16"), "1 2 0");
	assert_string_equal(order_of(&order, "192.0.2.0/24"), "1 2 0");
	assert_string_equal(order_of(&order, "172.16.0.0/12"), "1 2 0");
	/* Without a next hop of IPv6 there is no way for it. */
	assert_string_equal(order_of(&order, "fd01::/48"), "0");
	assert_string_equal(order_of(&order, "203.0.113.0/24"), "none");
	exit_order_clear(&order);
	conf_unref(conf);
}

static void each_exit_of_a_source_has_its_metric(void **state)
{
	struct conf *conf =
		conf_of("[exit a]\nlink = wan0\nnext_hop = 192.0.2.1\n"
			"prefix = 10.0.0.0/8, 2001:db8:a::/48\n"
			"[exit b]\nlink = wan1\nprefix = 10.9.0.0/16\n"
			"authorised = 10.0.0.0/8, 2001:db8:a::/48\n");
	struct exit_state want;
	struct lab_host lab;

	(void)state;
	host_make(&lab, true);
	lab.links[0].index = lab.ways[0].link = lab.ways[1].link =
		lab.ways[2].link = lab.ways[4].link = 90002;
	lab.links[1].index = 90003;
	assert_int_equal(exit_want(conf, &lab.host, &want), 0);
	assert_true(route_there(&want,
				"ip -6 route default from 2001:db8:a::/48 dev "
				"if90002 table 20000 metric 1024 proto 200"));
	assert_true(route_there(&want,
				"ip -6 route default from 2001:db8:a::/48 dev "
				"if90003 table 20000 metric 1025 proto 200"));
	/* Two choices of both, in either order: tables behind the exits'. */
	assert_true(rule_there(&want, "ip -4 rule pref 20027 from 10.0.0.0/8 "
				      "lookup 20113 protocol 200"));
	assert_true(rule_there(&want, "ip -4 rule pref 20019 from 10.9.0.0/16 "
				      "lookup 20010 protocol 200"));
	assert_true(route_there(&want, "ip -4 route default dev if90003 table "
				       "20113 metric 1025 proto 200"));
	assert_true(route_there(&want, "ip -4 route default via 192.0.2.1 dev "
				       "if90002 table 20010 metric 1025 proto "
				       "200"));
	assert_true(route_there(&want, "ip -4 route unreachable default table "
				       "20010 metric 4294967295 proto 200"));
	assert_false(route_there(&want, "ip -4 route unreachable default table "
					"20013 metric 4294967295 proto 200"));
	exit_state_clear(&want);
	conf_unref(conf);
}

/* Routes of main by another router's exit: what is not of the site is beyond it. */
static void beyond_an_exit_each_source_has_its_own_way(void **state)
{
	struct conf *conf =
		conf_of("[exit far]\nnext_hop = 2001:db8:a:1::9, 192.0.2.9\n"
			"prefix = 2001:db8:f::/48, 203.0.113.0/24\n");
	struct exit_state want;
	struct lab_host lab;

	(void)state;
	host_make(&lab, true);
	lab.links[2].index = lab.ways[3].link = 90004;
	lab.ways[4].gateway = conf->exits[0].next_hops[0];
	lab.ways[5].to = prefix_of("198.51.100.0/24");
	lab.ways[5].gateway = conf->exits[0].next_hops[1];
	lab.ways[5].link = 90004;
	assert_int_equal(exit_want(conf, &lab.host, &want), 0);
	assert_true(rule_there(&want, "ip -4 rule pref 20000 to "
				      "198.51.100.0/24 goto 20002 protocol "
				      "200"));
	assert_false(route_there(&want, "ip -6 route 2000::/3 via "
					"2001:db8:a:1::9 dev if2 table 20000 "
					"metric 1024 proto 200"));
	exit_state_clear(&want);
	/* Into a prefix of the site, or a subnet that this host is in. */
	lab.ways[4].to = prefix_of("2001:db8:f:7::/64");
	lab.ways[4].link = 90004;
	lab.ways[5].to = prefix_of("192.0.2.128/25");
	assert_int_equal(exit_want(conf, &lab.host, &want), 0);
	assert_true(route_there(&want, "ip -6 route 2001:db8:f:7::/64 via "
				       "2001:db8:a:1::9 dev if90004 table "
				       "20000 metric 1024 proto 200"));
	assert_false(rule_there(&want, "ip -4 rule pref 20000 to "
				       "192.0.2.128/25 goto 20002 protocol "
				       "200"));
	exit_state_clear(&want);
	conf_unref(conf);
}

/* The table of a prefix's choice, and of the exit of that name alone. */
static void tables_find(const struct conf *conf, const char *prefix,
			const char *name, uint32_t *shared, uint32_t *alone)
{
	const struct prefix want = prefix_of(prefix);
	struct exit_order order;

	*shared = *alone = 0;
	assert_int_equal(exit_order_make(conf, &order), 0);
	for (size_t i = 0; i < order.source_count; i++)
		if (!prefix_compare(&order.sources[i].prefix, &want))
			*shared = order.choices[order.sources[i].choice].table;
	for (size_t i = 0; i < conf->exit_count; i++)
		if (!strcmp(conf->exits[i].name, name))
			*alone = order.tables[i];
	exit_order_clear(&order);
}

/* Nor of others that come and go, unless two fall on one place. */
static void tables_do_not_depend_on_the_order_of_sections(void **state)
{
	static const char a[] = "[exit a]\nlink = wan0\nprefix = 10.0.0.0/8\n";
	static const char b[] = "[exit b]\nlink = wan1\nprefix = 10.9.0.0/16\n";
	static const char *const orders[][3] = {
		{ a, b, "" },
		{ b, a, "" },
		{ "[exit 0]\nlink = wan2\nprefix = 10.7.0.0/16\n", b, a },
	};
	uint32_t first[2], found[2];

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct conf *conf;
		char text[256];

		snprintf(text, sizeof(text), "%s%s%s", orders[i][0],
			 orders[i][1], orders[i][2]);
		conf = conf_of(text);
		tables_find(conf, "10.9.0.0/16", "a", &found[0], &found[1]);
		if (!i)
			memcpy(first, found, sizeof(first));
		assert_true(found[0] > EXIT_TABLE && found[1] > EXIT_TABLE);
		assert_int_not_equal(found[0], found[1]);
		assert_memory_equal(first, found, sizeof(first));
		conf_unref(conf);
	}
}

/* As many exits as there may be, each with a prefix in the one before. */
static void no_two_tables_have_one_number(void **state)
{
	static char text[CONF_EXITS_MAX * 64];
	bool taken[TABLES_MOST + CONF_EXITS_MAX] = { false };
	struct exit_order order;
	struct conf *conf;
	size_t len = (size_t)sprintf(text, USABLE);

	(void)state;
	for (unsigned int i = 0; i < CONF_EXITS_MAX; i++)
		len += (size_t)sprintf(text + len,
				       "[exit %u]\nlink = w%u\n"
				       "prefix = 2001:db8::/%u\n",
				       i, i, 32 + i);
	conf = conf_from(text);
	assert_int_equal(exit_order_make(conf, &order), 0);
	for (size_t i = 0; i < CONF_EXITS_MAX; i++) {
		assert_false(taken[order.tables[i] - EXIT_TABLE - 1]);
		taken[order.tables[i] - EXIT_TABLE - 1] = true;
	}
	assert_int_equal(order.choice_count, CONF_EXITS_MAX);
	for (size_t i = 0; i < order.choice_count; i++)
		if (order.choices[i].count > 1) {
			uint32_t at = order.choices[i].table - EXIT_TABLE - 1;

			assert_false(taken[at]);
			taken[at] = true;
		}
	exit_order_clear(&order);
	conf_unref(conf);
}

/* Its next hop is another router, in a subnet of the site. */
static void another_router_is_handed_its_sources(void **state)
{
	struct conf *conf =
		conf_of("[exit far]\nnext_hop = 2001:db8:a:1::9, 192.0.2.9\n"
			"prefix = 2001:db8:f::/48, 203.0.113.0/24\n");
	struct exit_state want;
	struct lab_host lab;

	(void)state;
	host_make(&lab, true);
	lab.links[2].index = lab.ways[3].link = 90004;
	assert_true(exit_wanted(conf));
	/* In a wider one of another link, too. */
	lab.ways[1].to = prefix_of("2001:db8:a::/48");
	assert_int_equal(exit_want(conf, &lab.host, &want), 0);
	assert_true(route_there(&want, "ip -6 route default from "
				       "2001:db8:f::/48 via 2001:db8:a:1::9 "
				       "dev if90004 table 20000 metric 1024 "
				       "proto 200"));
	/* The network between the two belongs to the site, not to the exit. */
	assert_true(route_there(&want, "ip -6 route 2001:db8:a:1::/64 dev "
				       "if90004 table 20000 metric 256 proto "
				       "200"));
	assert_false(route_there(&want, "ip -6 route 2001:db8:a:1::/64 from "
					"2001:db8:f::/48 dev if90004 table "
					"20000 metric 256 proto 200"));
	exit_state_clear(&want);
	/* No way to it: nothing but the unreachable routes. */
	lab.links[2].up = false;
	assert_int_equal(exit_want(conf, &lab.host, &want), 0);
	assert_false(route_there(&want, "ip -6 route default from "
					"2001:db8:f::/48 via 2001:db8:a:1::9 "
					"dev if90004 table 20000 metric 1024 "
					"proto 200"));
	assert_true(route_there(&want, "ip -6 route unreachable default from "
				       "2001:db8:f::/48 table 20000 metric "
				       "4294967295 proto 200"));
	exit_state_clear(&want);
	conf_unref(conf);
}

static union addr addr_of(const char *text)
{
	union addr addr;

	assert_int_equal(addr_parse(text, 0, &addr), 0);
	return addr;
}

static void assert_anycast(const struct conf *conf, size_t exit,
			   const char *prefix, const char *anycast)
{
	struct prefix of = prefix_of(prefix);
	union addr found, want;

	if (!anycast) {
		assert_false(exit_anycast(&conf->exits[exit], &of, &found));
		return;
	}
	want = addr_of(anycast);
	assert_true(exit_anycast(&conf->exits[exit], &of, &found));
	assert_true(addr_same_host(&found, &want));
}

static void anycast_is_the_prefix_with_the_suffix_behind(void **state)
{
	struct conf *conf =
		conf_of("[exit a]\nprefix = 2001:db8:a::/48, 10.0.0.0/8\n"
			"[exit b]\nprefix = 2001:db8:b::/61\n"
			"anycast_suffix = ::ffff\n"
			"[exit c]\nprefix = 2001:db8:c::/48, 192.0.2.0/24\n"
			"anycast = 2001:db8::7, 192.0.2.9\n");

	(void)state;
	assert_anycast(conf, 0, "2001:db8:a::/48",
		       "2001:db8:a:ffff:ffff:ffff:ffff:ffff");
	assert_anycast(conf, 0, "2001:db8:a:8::/61",
		       "2001:db8:a:f:ffff:ffff:ffff:ffff");
	assert_anycast(conf, 0, "2001:db8:a::9", "2001:db8:a::9");
	assert_anycast(conf, 0, "10.0.0.0/8", NULL);
	assert_anycast(conf, 1, "2001:db8:b::/61", "2001:db8:b::ffff");
	assert_anycast(conf, 2, "2001:db8:c::/48", "2001:db8::7");
	assert_anycast(conf, 2, "192.0.2.0/24", "192.0.2.9");
	conf_unref(conf);
}

static struct conf *watched_exits(void)
{
	return conf_of("[exit own]\nlink = wan0\nhealth = anycast\n"
		       "prefix = 2001:db8:a::/48, 10.0.0.0/8\n"
		       "anycast = 10.255.0.1\n"
		       "[exit far]\nnext_hop = 2001:db8:a:1::9\n"
		       "health = anycast\nprefix = 2001:db8:f::/48\n");
}

#define TUNNELLED_PROBED                                            \
	"[exit far]\ntunnel_peer = 2001:db8:1::7\nhealth = probe\n" \
	"prefix = 2001:db8:f::/48, 203.0.113.0/24\n"                \
	"[exit own]\nlink = wan0\nhealth = probe\n"                 \
	"tunnel_peer = 2001:db8:1::8\nprefix = 2001:db8:a::/48\n"

#define FAR_ANYCAST "2001:db8:f:ffff:ffff:ffff:ffff:ffff"

static void an_exit_without_its_anycast_is_no_way_out(void **state)
{
	const char *way = "ip -6 route default from 2001:db8:f::/48 via "
			  "2001:db8:a:1::9 dev if90004 table 20000 metric "
			  "1024 proto 200";
	struct conf *conf = watched_exits();
	union addr anycast = addr_of(FAR_ANYCAST);
	struct exit_state want;
	struct health *health;
	struct lab_host lab;

	(void)state;
	host_make(&lab, true);
	lab.links[2].index = lab.ways[3].link = 90004;
	assert_int_equal(health_new(conf, &health), 0);
	lab.host.health = health;
	assert_int_equal(exit_want(conf, &lab.host, &want), 0);
	assert_false(route_there(&want, way));
	assert_true(route_there(&want, "ip -6 route unreachable default from "
				       "2001:db8:f::/48 table 20000 metric "
				       "4294967295 proto 200"));
	assert_true(rule_there(&want, "ip -6 rule pref 20000 fwmark "
				      "0x7fff0000/0x7fff0000 lookup 254 "
				      "protocol 200"));
	exit_state_clear(&want);
	assert_true(health_tell(health, &anycast, true, 0));
	assert_int_equal(exit_want(conf, &lab.host, &want), 0);
	assert_true(route_there(&want, way));
	exit_state_clear(&want);
	health_free(health);
	conf_unref(conf);
}

static void an_exit_with_a_link_has_its_anycast(void **state)
{
	struct conf *conf = watched_exits();
	struct exit_state want;
	struct lab_host lab;

	(void)state;
	host_make(&lab, true);
	lab.links[0].index = 90002;
	assert_int_equal(exit_want(conf, &lab.host, &want), 0);
	assert_true(route_there(&want,
				"ip -6 route "
				"2001:db8:a:ffff:ffff:ffff:ffff:ffff/128 "
				"dev if90002 table 254 metric 1024 "
				"proto 200"));
	assert_true(route_there(&want,
				"ip -6 route local "
				"2001:db8:a:ffff:ffff:ffff:ffff:ffff/128 "
				"dev if90002 table 255 metric 1024 "
				"proto 200"));
	assert_true(route_there(&want, "ip -4 route local 10.255.0.1/32 dev "
				       "if90002 table 255 metric 1024 proto "
				       "200"));
	exit_state_clear(&want);
	lab.links[0].up = false;
	assert_int_equal(exit_want(conf, &lab.host, &want), 0);
	assert_false(route_there(&want, "ip -4 route local 10.255.0.1/32 dev "
					"if90002 table 255 metric 1024 proto "
					"200"));
	exit_state_clear(&want);
	conf_unref(conf);
}

static void an_exit_that_flaps_stays_lost_until_it_is_calm(void **state)
{
	struct conf *conf = watched_exits();
	union addr anycast = addr_of(FAR_ANYCAST);
	unsigned int changes = 0;
	struct health *health;
	uint64_t now = 50000;

	(void)state;
	assert_int_equal(health_new(conf, &health), 0);
	assert_true(health_lost(health, &anycast));
	assert_true(health_tell(health, &anycast, true, now));
	assert_false(health_lost(health, &anycast));
	/* Lost and back, ten times a second for ten seconds. */
	for (int i = 0; i < 100; i++) {
		now += 50;
		changes += health_tell(health, &anycast, false, now);
		assert_true(health_lost(health, &anycast));
		now += 50;
		changes += health_tell(health, &anycast, true, now);
		changes += health_settle(health, now);
	}
	/* The first loss came at once after a return; so was all else one. */
	assert_int_equal(changes, 3);
	assert_true(health_lost(health, &anycast));
	assert_true(health_due(health) > now);
	assert_false(health_settle(health, now + 999));
	assert_true(health_settle(health, now + 1000));
	assert_false(health_lost(health, &anycast));
	assert_int_equal(health_due(health), UINT64_MAX);
	/* After some calm a return counts at once again. */
	now += 60000;
	assert_true(health_tell(health, &anycast, false, now));
	assert_true(health_tell(health, &anycast, true, now + 10));
	health_free(health);
	conf_unref(conf);
}

static void a_router_that_is_silent_takes_its_exit_away(void **state)
{
	struct conf *conf = conf_of(TUNNELLED_PROBED);
	union addr asked, anycast = addr_of(FAR_ANYCAST);
	const struct prefix *v4 = &conf->exits[0].prefixes[1];
	struct health *health;
	uint64_t now = 50000;

	(void)state;
	assert_true(probe_anycast(&conf->exits[0], &asked));
	assert_true(addr_same_host(&asked, &anycast));
	assert_false(probe_anycast(&conf->exits[1], &asked));
	assert_int_equal(health_new(conf, &health), 0);
	/* Well at first, and whatever the host routes are. */
	assert_false(health_exit_lost(health, &conf->exits[0], v4));
	assert_false(health_tell(health, &anycast, false, now));
	health_answer(health, &anycast, false, now);
	assert_true(health_exit_lost(health, &conf->exits[0], v4));
	health_answer(health, &anycast, true, now + 100);
	assert_false(health_exit_lost(health, &conf->exits[0], v4));
	/* Damped like all else. */
	health_answer(health, &anycast, false, now + 200);
	health_answer(health, &anycast, true, now + 300);
	assert_true(health_exit_lost(health, &conf->exits[0], v4));
	assert_int_equal(health_due(health), now + 1300);
	assert_true(health_settle(health, now + 1300));
	assert_false(health_exit_lost(health, &conf->exits[0], v4));
	health_free(health);
	conf_unref(conf);
}

/* A kernel that gives no answer: the socket is none any more. */
static struct rtnl *rtnl_broken(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), next = dup(null);
	struct rtnl *rtnl;

	assert_true(next > null);
	close(next);
	/* The lowest number that is free, which is the one of before. */
	assert_int_equal(rtnl_open(&rtnl), 0);
	assert_int_equal(dup2(null, next), next);
	close(null);
	return rtnl;
}

static void a_loss_that_is_known_does_not_wait_for_other_answers(void **state)
{
	struct conf *conf = watched_exits();
	struct rtnl *rtnl = rtnl_broken();
	uint64_t now = clock_ms();
	struct health *health;
	bool changed = false;
	char buf[256];
	struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);
	struct ifinfomsg *head = mnl_nlmsg_put_extra_header(msg, sizeof(*head));

	(void)state;
	assert_int_equal(health_new(conf, &health), 0);
	assert_true(health_tell_link(health, "wan0", true, now));
	msg->nlmsg_type = RTM_DELLINK;
	head->ifi_family = AF_UNSPEC;
	mnl_attr_put_strz(msg, IFLA_IFNAME, "wan0");
	assert_true(health_news(health, msg));
	assert_true(health_look(health, rtnl, now, &changed) < 0);
	assert_true(changed);
	assert_true(health_link_lost(health, "wan0"));
	rtnl_close(rtnl);
	health_free(health);
	conf_unref(conf);
}

/* Its exit's ways, though the link is up. */
static void assert_own_way(struct conf *conf, struct lab_host *lab, bool there)
{
	const char *way = "ip -6 route default from 2001:db8:a::/48 dev "
			  "if90002 table 20000 metric 1024 proto 200";
	const char *announced = "ip -6 route "
				"2001:db8:a:ffff:ffff:ffff:ffff:ffff/128 dev "
				"if90002 table 254 metric 1024 proto 200";
	struct exit_state want;

	assert_int_equal(exit_want(conf, &lab->host, &want), 0);
	assert_int_equal(route_there(&want, way), there);
	assert_int_equal(route_there(&want, announced), there);
	exit_state_clear(&want);
}

static void a_link_that_flaps_stays_lost_until_it_is_calm(void **state)
{
	struct conf *conf = watched_exits();
	unsigned int changes = 0;
	struct health *health;
	struct lab_host lab;
	uint64_t now = 50000;

	(void)state;
	host_make(&lab, true);
	lab.links[0].index = 90002;
	assert_int_equal(health_new(conf, &health), 0);
	lab.host.health = health;
	assert_own_way(conf, &lab, false);
	assert_true(health_tell_link(health, "wan0", true, now));
	assert_own_way(conf, &lab, true);
	for (int i = 0; i < 100; i++) {
		now += 50;
		changes += health_tell_link(health, "wan0", false, now);
		assert_own_way(conf, &lab, false);
		now += 50;
		changes += health_tell_link(health, "wan0", true, now);
		changes += health_settle(health, now);
	}
	assert_int_equal(changes, 3);
	assert_own_way(conf, &lab, false);
	assert_false(health_settle(health, now + 999));
	assert_true(health_settle(health, now + 1000));
	assert_own_way(conf, &lab, true);
	/* A link of nobody's exit. */
	assert_false(health_tell_link(health, "lan0", false, now));
	assert_false(health_link_lost(health, "lan0"));
	health_free(health);
	conf_unref(conf);
}

#define TUNNELLED                                                 \
	"[exit near]\nlink = wan0\nnext_hop = 192.0.2.1\n"        \
	"prefix = 2001:db8:a::/48, 203.0.113.0/24\n"              \
	"tunnel_peer = 2001:db8:a:1::2\n"                         \
	"[exit far]\nprefix = 198.51.100.0/24, 2001:db8:f::/48\n" \
	"tunnel_peer = 2001:db8:f:1::2\n"                         \
	"discovery_host = 2001:db8:f:2::/64\n"

#define FAR_END "encap ip6 id 0 dst 2001:db8:f:ffff:ffff:ffff:ffff:ffff csum "
#define FAR_V6                                              \
	"ip -6 route default from 2001:db8:f::/48 " FAR_END \
	"dev if90009 table 20000 metric 1024 proto 200"

/* As two_exits()' host, with a device for tunnels and a way to the other end. */
static void tunnels_wanted(const struct conf *conf, struct lab_host *lab,
			   struct exit_state *out)
{
	lab->host.ends = NULL;
	lab->host.end_count = 0;
	lab->host.tunnel = 90009;
	assert_int_equal(tunnel_ends(conf, &lab->host), 0);
	assert_int_equal(exit_want(conf, &lab->host, out), 0);
	free(lab->host.ends);
}

static void another_exit_is_tunnelled_to_at_its_anycast_address(void **state)
{
	struct conf *conf = conf_of(TUNNELLED);
	struct exit_state want;
	struct lab_host lab;

	(void)state;
	host_make(&lab, true);
	lab.ways[5].to = prefix_of("2001:db8:f:ffff:ffff:ffff:ffff:ffff/128");
	lab.ways[5].link = 4;
	tunnels_wanted(conf, &lab, &want);
	assert_true(route_there(&want, FAR_V6));
	assert_true(route_there(&want, "ip -4 route default " FAR_END
				       "dev if90009 table 20111 metric 1024 "
				       "proto 200"));
	/* Ours is where others tunnel to. */
	assert_true(route_there(
		&want, "ip -6 route local 2001:db8:a:ffff:ffff:ffff:ffff:ffff"
		       "/128 dev lo table 255 metric 1024 proto 200"));
	exit_state_clear(&want);
	conf_unref(conf);
}

/* Only a way within the site counts, and the longest of them. */
static void without_a_way_nothing_is_tunnelled(void **state)
{
	struct conf *conf = conf_of(TUNNELLED);
	struct exit_state want;
	struct lab_host lab;

	(void)state;
	for (int i = 0; i < 4; i++) {
		host_make(&lab, true);
		/* 2000::/3 leads to an exit's link. */
		if (i == 1)
			lab.ways[5].to = prefix_of("2001:db8:f:ffff::/64");
		if (i == 2)
			lab.links[2].up = false;
		if (i >= 2)
			lab.ways[3].to = prefix_of("2001:db8:f::/48");
		tunnels_wanted(conf, &lab, &want);
		assert_int_equal(route_there(&want, FAR_V6), i == 3);
		assert_true(route_there(&want,
					"ip -6 route unreachable default from "
					"2001:db8:f::/48 table 20000 metric "
					"4294967295 proto 200"));
		exit_state_clear(&want);
	}
	conf_unref(conf);
}

static void only_peers_may_tunnel_to_us(void **state)
{
	struct conf *conf = conf_of(TUNNELLED);
	struct addr_range *ranges;
	size_t count;

	(void)state;
	assert_true(tunnel_wanted(conf));
	assert_int_equal(tunnel_sources(conf, &ranges, &count), 0);
	assert_int_equal(count, 3);
	assert_int_equal(ranges[0].first[15], 2);
	assert_int_equal(ranges[0].behind[15], 3);
	free(ranges);
	conf_unref(conf);
	conf = two_exits();
	assert_false(tunnel_wanted(conf));
	conf_unref(conf);
}

/* ICMPv6 type 1 code 5 to ::2, about a packet of ::2 to ::9. */
static void told_make(uint8_t out[88])
{
	memset(out, 0, 88);
	out[0] = out[48] = 0x60;
	out[6] = IPPROTO_ICMPV6;
	out[39] = out[71] = 2;
	out[40] = 1;
	out[41] = 5;
	out[87] = 9;
}

static void only_errors_about_who_is_told_are_heard(void **state)
{
	static const struct {
		size_t at;
		uint8_t value;
	} wrong[] = { { 0, 0x45 }, { 6, IPPROTO_UDP }, { 39, 3 }, { 40, 3 },
		      { 41, 4 },   { 48, 0x45 },       { 71, 3 } };
	union addr from = addr_of("::1"), to = from;
	uint8_t packet[88];

	(void)state;
	told_make(packet);
	for (size_t len = 0; len < sizeof(packet); len++)
		assert_int_equal(learn_parse(packet, len, &from, &to), -EINVAL);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		told_make(packet);
		packet[wrong[i].at] = wrong[i].value;
		assert_int_equal(learn_parse(packet, sizeof(packet), &from,
					     &to),
				 -EINVAL);
	}
	assert_true(addr_equal(&from, &to));
	told_make(packet);
	assert_int_equal(learn_parse(packet, sizeof(packet), &from, &to), 0);
	assert_int_equal(from.in6.sin6_addr.s6_addr[15], 2);
	assert_int_equal(to.in6.sin6_addr.s6_addr[15], 9);
}

/* Its own routes come when it has learnt, by a table that is looked at for them. */
static void a_host_that_learns_has_its_table(void **state)
{
	struct conf *conf = conf_of("[exit a]\nprefix = 2001:db8:a::/48\n"
				    "discover = yes\n");
	struct exit_state want;
	struct lab_host lab;

	(void)state;
	host_make(&lab, true);
	assert_true(exit_wanted(conf));
	assert_true(tunnel_wanted(conf));
	assert_int_equal(exit_want(conf, &lab.host, &want), 0);
	assert_true(rule_there(&want, "ip -6 rule pref 20001 lookup 20000 "
				      "protocol 200"));
	for (size_t i = 0; i < want.route_count; i++)
		assert_int_equal(want.routes[i].from.bits, 0);
	exit_state_clear(&want);
	conf_unref(conf);
}

static void a_lost_link_leaves_unreachable_routes(void **state)
{
	struct exit_state want;

	(void)state;
	wanted(false, &want);
	assert_false(route_there(&want, "ip -4 route default dev if90003 table "
					"20010 metric 1024 proto 200"));
	assert_true(route_there(&want, "ip -4 route unreachable default table "
				       "20010 metric 4294967295 proto 200"));
	assert_true(route_there(&want, "ip -6 route unreachable default from "
				       "2001:db8:b::/48 table 20000 metric "
				       "4294967295 proto 200"));
	exit_state_clear(&want);
}

struct tally {
	size_t rules, routes;
};

static void rule_tally(void *arg, const struct exit_rule *rule)
{
	(void)rule;
	((struct tally *)arg)->rules++;
}

static void route_tally(void *arg, const struct exit_route *route)
{
	(void)route;
	((struct tally *)arg)->routes++;
}

static struct tally missing(const struct exit_state *want,
			    const struct exit_state *have)
{
	struct tally tally = { 0, 0 };
	const struct exit_differ differ = { rule_tally, route_tally, &tally };

	exit_state_missing(want, have, &differ);
	return tally;
}

static void only_what_differs_is_told_of(void **state)
{
	struct exit_state up, down, none = { 0 };
	struct tally tally;

	(void)state;
	wanted(true, &up);
	wanted(false, &down);
	tally = missing(&up, &up);
	assert_int_equal(tally.rules + tally.routes, 0);
	/* A default route of each family. */
	tally = missing(&up, &down);
	assert_int_equal(tally.rules, 0);
	assert_int_equal(tally.routes, 2);
	tally = missing(&down, &up);
	assert_int_equal(tally.rules + tally.routes, 0);
	tally = missing(&up, &none);
	assert_int_equal(tally.rules, up.rule_count);
	assert_int_equal(tally.routes, up.route_count);
	exit_state_clear(&up);
	exit_state_clear(&down);
}

/* Metrics as the kernel tells of them. */
static const struct exit_metrics *mtu_keep(struct exit_metrics **list,
					   uint32_t mtu, bool lock)
{
	char buf[128] = "";
	struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);

	if (lock)
		mnl_attr_put_u32(msg, RTAX_LOCK, 1u << RTAX_MTU);
	mnl_attr_put_u32(msg, RTAX_MTU, mtu);
	mnl_attr_put_u32(msg, RTAX_ADVMSS, 1000);
	return exit_metrics_keep(list, mnl_nlmsg_get_payload(msg),
				 mnl_nlmsg_get_payload_len(msg));
}

static void a_copy_of_a_route_has_its_metrics(void **state)
{
	struct conf *conf = two_exits();
	struct exit_state want, other;
	struct exit_route changed;
	struct lab_host lab;

	(void)state;
	host_make(&lab, true);
	lab.links[2].index = lab.ways[3].link = 90004;
	lab.ways[0].metrics = mtu_keep(&lab.host.metrics, 1400, false);
	lab.ways[3].metrics = mtu_keep(&lab.host.metrics, 1280, true);
	lab.ways[3].preference = 1;
	assert_ptr_equal(mtu_keep(&lab.host.metrics, 1400, false),
			 lab.ways[0].metrics);
	assert_int_equal(exit_want(conf, &lab.host, &want), 0);
	assert_true(route_there(&want, "ip -6 route 2001:db8:a:1::/64 dev "
				       "if90004 table 20000 metric 256 proto "
				       "200 mtu lock 1280 advmss 1000"));
	for (size_t i = 0; i < want.route_count; i++) {
		const struct exit_route *route = &want.routes[i];

		if (route->to.family == AF_INET && route->metric == 256)
			assert_ptr_equal(route->metrics, lab.ways[0].metrics);
		else
			assert_int_equal(route->metrics != NULL,
					 route->preference);
	}
	/* Another one, and yet in the same place. */
	lab.ways[3].metrics = mtu_keep(&lab.host.metrics, 1300, true);
	assert_int_equal(exit_want(conf, &lab.host, &other), 0);
	assert_int_equal(missing(&want, &other).routes, 1);
	for (size_t i = 0; i < want.route_count; i++) {
		changed = want.routes[i];
		assert_ptr_equal(exit_route_like(&want, &changed),
				 &want.routes[i]);
		assert_non_null(exit_route_like(&other, &changed));
		changed.table++;
		assert_null(exit_route_like(&other, &changed));
	}
	exit_state_clear(&want);
	exit_state_clear(&other);
	lab.host = (struct exit_host){ .metrics = lab.host.metrics };
	exit_host_clear(&lab.host);
	conf_unref(conf);
}

/* As no kernel has told of any: one byte of a number. */
static void a_metric_that_is_cut_short_is_not_told_of(void **state)
{
	static const uint16_t types[] = { RTAX_MTU, RTAX_LOCK };

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		const struct nlattr attr = { NLA_HDRLEN + 1, types[i] };
		struct exit_metrics *list = NULL;
		uint8_t bytes[NLA_HDRLEN + 1] = { 0 };
		struct exit_route route = { .to = prefix_of("fd00::/8"),
					    .from = { .family = AF_INET6 } };
		char text[EXIT_TEXT];

		memcpy(bytes, &attr, sizeof(attr));
		route.metrics = exit_metrics_keep(&list, bytes, sizeof(bytes));
		assert_non_null(route.metrics);
		exit_route_format(&route, text);
		assert_null(strstr(text, "mtu"));
		exit_host_clear(&(struct exit_host){ .metrics = list });
	}
}

/* Or each heal would put one in the place of the other. */
static void of_a_subnet_that_main_has_twice_the_first_is_copied(void **state)
{
	struct conf *conf = two_exits();
	struct exit_state once, twice;
	struct lab_host lab;

	(void)state;
	host_make(&lab, true);
	assert_int_equal(exit_want(conf, &lab.host, &once), 0);
	lab.ways[4] = lab.ways[1];
	lab.ways[4].metric = 512;
	lab.ways[4].metrics = mtu_keep(&lab.host.metrics, 1400, false);
	lab.ways[5] = lab.ways[0];
	lab.ways[5].metric = 512;
	lab.ways[5].metrics = lab.ways[4].metrics;
	assert_int_equal(exit_want(conf, &lab.host, &twice), 0);
	assert_int_equal(missing(&twice, &once).routes, 0);
	for (size_t i = 0; i < twice.route_count; i++)
		assert_null(twice.routes[i].metrics);
	exit_state_clear(&once);
	exit_state_clear(&twice);
	lab.host = (struct exit_host){ .metrics = lab.host.metrics };
	exit_host_clear(&lab.host);
	conf_unref(conf);
}

/* What has been taken away so far must not have left what refuses behind. */
struct taken {
	const struct exit_state *of;
	size_t routes, rules, refusing;
	bool gone[64];
};

static void rule_taken(void *arg, const struct exit_rule *rule)
{
	struct taken *taken = arg;

	assert_int_equal(taken->routes, 0);
	taken->rules++;
	/* The last one first: sorted as they are looked at, of one source. */
	assert_ptr_equal(
		rule, &taken->of->rules[taken->of->rule_count - taken->rules]);
}

static void route_taken(void *arg, const struct exit_route *route)
{
	struct taken *taken = arg;

	taken->routes++;
	taken->refusing += !route->link;
	taken->gone[route - taken->of->routes] = true;
	for (size_t i = 0; i < taken->of->route_count; i++) {
		const struct exit_route *other = &taken->of->routes[i];

		if (other->table == route->table && !other->link &&
		    other->metric > route->metric &&
		    !prefix_compare(&other->to, &route->to) &&
		    !prefix_compare(&other->from, &route->from))
			assert_true(taken->gone[i]);
	}
}

static void what_refuses_goes_before_what_it_stands_behind(void **state)
{
	struct exit_state have, none = { 0 };
	struct taken taken = { .of = &have };
	const struct exit_differ differ = { rule_taken, route_taken, &taken };

	(void)state;
	wanted(true, &have);
	assert_in_range(have.route_count, 1, sizeof(taken.gone));
	exit_state_surplus(&none, &have, &differ);
	assert_int_equal(taken.rules, have.rule_count);
	assert_int_equal(taken.routes, have.route_count);
	assert_true(taken.refusing > 2);
	exit_state_surplus(&have, &have, &differ);
	assert_int_equal(taken.rules, have.rule_count);
	assert_int_equal(taken.routes, have.route_count);
	exit_state_clear(&have);
}

static void assert_range(const struct addr_range *range, const char *first,
			 const char *behind)
{
	struct prefix prefix = prefix_of(first);

	assert_memory_equal(range->first, prefix.bytes, 16);
	if (behind) {
		prefix = prefix_of(behind);
		assert_memory_equal(range->behind, prefix.bytes, 16);
	}
	assert_int_equal(range->open, !behind);
}

static void sources_become_ranges_that_do_not_overlap(void **state)
{
	struct conf *conf =
		conf_of("[exit a]\nlink = lo\n"
			"prefix = 10.0.0.0/9, 10.128.0.0/9, 10.1.2.3\n"
			"prefix = 192.0.2.128/25, 255.255.255.255, 0.0.0.0/32\n"
			"prefix = 2001:db8:ffff::/48\n"
			"[exit b]\nlink = lo\nprefix = 11.0.0.0/8, ::/0\n");
	struct addr_range *ranges;
	size_t count;

	(void)state;
	assert_int_equal(ranges_of_exit(conf, 0, AF_INET, &ranges, &count), 0);
	assert_int_equal(count, 5);
	assert_range(&ranges[0], "0.0.0.0", "0.0.0.1");
	/* One beside it may come or go, and it stays as it is. */
	assert_range(&ranges[1], "10.0.0.0", "10.128.0.0");
	assert_range(&ranges[2], "10.128.0.0", "11.0.0.0");
	assert_range(&ranges[3], "192.0.2.128", "192.0.3.0");
	assert_range(&ranges[4], "255.255.255.255", NULL);
	free(ranges);
	assert_int_equal(
		ranges_of_exit(conf, SIZE_MAX, AF_INET, &ranges, &count), 0);
	assert_int_equal(count, 4);
	assert_range(&ranges[1], "10.0.0.0", "12.0.0.0");
	free(ranges);
	assert_int_equal(ranges_of_exit(conf, 0, AF_INET6, &ranges, &count), 0);
	assert_int_equal(count, 1);
	assert_range(&ranges[0], "2001:db8:ffff::", "2001:db9::");
	free(ranges);
	assert_int_equal(
		ranges_of_exit(conf, SIZE_MAX, AF_INET6, &ranges, &count), 0);
	assert_int_equal(count, 1);
	assert_range(&ranges[0], "::", NULL);
	free(ranges);
	conf_unref(conf);
}

static struct addr_range range_of(const char *first, const char *behind)
{
	struct prefix from = prefix_of(first), to = { .family = AF_UNSPEC };
	struct addr_range range = { .open = !behind };

	if (behind)
		to = prefix_of(behind);
	memcpy(range.first, from.bytes, sizeof(range.first));
	memcpy(range.behind, to.bytes, sizeof(range.behind));
	return range;
}

/* As a prefix is split, one goes, one comes, and one stays. */
static void ranges_of_two_are_those_of_either(void **state)
{
	const struct addr_range old[] = { range_of("10.0.0.0", "10.1.0.0"),
					  range_of("10.1.0.0", "10.2.0.0"),
					  range_of("10.4.0.0", "10.8.0.0") };
	const struct addr_range new[] = { range_of("10.1.0.0", "10.2.0.0"),
					  range_of("10.4.0.0", "10.5.0.0"),
					  range_of("10.7.0.0", "10.8.0.0"),
					  range_of("11.0.0.0", NULL) };
	struct addr_range *ranges;
	size_t count;

	(void)state;
	assert_int_equal(ranges_union(old, 3, new, 4, &ranges, &count), 0);
	assert_int_equal(count, 4);
	assert_range(&ranges[0], "10.0.0.0", "10.1.0.0");
	assert_range(&ranges[1], "10.1.0.0", "10.2.0.0");
	assert_range(&ranges[2], "10.4.0.0", "10.8.0.0");
	assert_range(&ranges[3], "11.0.0.0", NULL);
	free(ranges);
	assert_int_equal(ranges_beyond(new, 4, old, 3, &ranges, &count), 0);
	assert_int_equal(count, 3);
	assert_range(&ranges[0], "10.4.0.0", "10.5.0.0");
	assert_range(&ranges[1], "10.7.0.0", "10.8.0.0");
	assert_range(&ranges[2], "11.0.0.0", NULL);
	free(ranges);
	assert_int_equal(ranges_beyond(old, 3, new, 4, &ranges, &count), 0);
	assert_int_equal(count, 2);
	assert_range(&ranges[0], "10.0.0.0", "10.1.0.0");
	assert_range(&ranges[1], "10.4.0.0", "10.8.0.0");
	free(ranges);
	assert_int_equal(ranges_union(NULL, 0, NULL, 0, &ranges, &count), 0);
	assert_int_equal(count, 0);
	free(ranges);
}

static void assert_steered(const struct addr_range *range, const char *first,
			   const char *behind, uint16_t chain)
{
	assert_range(range, first, behind);
	assert_int_equal(range->chain, chain);
}

static void the_longest_prefix_of_a_map_counts(void **state)
{
	struct range_source sources[] = {
		{ prefix_of("10.0.0.0/8"), 1 },
		{ prefix_of("10.128.0.0/9"), 2 },
		{ prefix_of("10.9.0.0/16"), 2 },
		{ prefix_of("10.9.4.0/24"), 1 },
		{ prefix_of("10.9.8.0/24"), RANGE_NONE },
		{ prefix_of("11.0.0.0/8"), 2 },
		{ prefix_of("255.0.0.0/8"), 3 },
		{ prefix_of("255.255.255.255"), 4 },
	};
	struct addr_range *ranges;
	size_t count;

	(void)state;
	assert_int_equal(ranges_of_map(sources, 8, 0, &ranges, &count), 0);
	assert_int_equal(count, 9);
	assert_steered(&ranges[0], "10.0.0.0", "10.9.0.0", 1);
	assert_steered(&ranges[1], "10.9.0.0", "10.9.4.0", 2);
	assert_steered(&ranges[2], "10.9.4.0", "10.9.5.0", 1);
	assert_steered(&ranges[3], "10.9.5.0", "10.9.8.0", 2);
	assert_steered(&ranges[4], "10.9.9.0", "10.10.0.0", 2);
	assert_steered(&ranges[5], "10.10.0.0", "10.128.0.0", 1);
	/* Side by side, and the same chain. */
	assert_steered(&ranges[6], "10.128.0.0", "12.0.0.0", 2);
	assert_steered(&ranges[7], "255.0.0.0", "255.255.255.255", 3);
	assert_steered(&ranges[8], "255.255.255.255", NULL, 4);
	free(ranges);
	assert_int_equal(ranges_of_map(sources, 0, 0, &ranges, &count), 0);
	assert_int_equal(count, 0);
	free(ranges);
}

/* Of those of one length each has its place in a hash, whatever lies beside it. */
static void prefixes_of_one_length_stand_alone(void **state)
{
	struct range_source sources[] = {
		{ prefix_of("10.0.0.0/24"), 1 },
		{ prefix_of("10.0.1.0/24"), 1 },
		{ prefix_of("10.0.2.0/25"), 1 },
		{ prefix_of("10.0.2.128/25"), 1 },
		{ prefix_of("10.0.4.0/23"), 2 },
		{ prefix_of("10.0.5.0/24"), 1 },
		{ prefix_of("172.16.0.0/12"), 5 },
		{ prefix_of("255.255.254.0/23"), 3 },
		{ prefix_of("255.255.255.0/24"), 4 },
	};
	struct addr_range *ranges;
	size_t count;

	(void)state;
	assert_int_equal(ranges_of_map(sources, 9, 24, &ranges, &count), 0);
	assert_int_equal(count, 8);
	assert_steered(&ranges[0], "10.0.0.0", "10.0.1.0", 1);
	assert_steered(&ranges[1], "10.0.1.0", "10.0.2.0", 1);
	/* Two halves are one as well. */
	assert_steered(&ranges[2], "10.0.2.0", "10.0.3.0", 1);
	assert_steered(&ranges[3], "10.0.4.0", "10.0.5.0", 2);
	assert_steered(&ranges[4], "10.0.5.0", "10.0.6.0", 1);
	assert_steered(&ranges[5], "172.16.0.0", "172.32.0.0", 5);
	assert_steered(&ranges[6], "255.255.254.0", "255.255.255.0", 3);
	assert_steered(&ranges[7], "255.255.255.0", NULL, 4);
	assert_int_equal(ranges_part(ranges, count, AF_INET, 0), 0);
	assert_int_equal(ranges_part(ranges, count, AF_INET, 24), 7);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(ranges_part(&ranges[i], 1, AF_INET, 24),
				 i < 7);
	free(ranges);
}

/* An exit with that many networks, and one with few. */
static struct conf *many_prefixes(unsigned int count)
{
	struct conf *conf;
	char *text = malloc(256 + count * 64u);
	size_t len = (size_t)sprintf(
		text, USABLE "[exit a]\nlink = wan0\nprefix = 192.0.2.0/24\n"
			     "[exit b]\nlink = wan1\nprefix = 2001:db8::/48\n");

	for (unsigned int i = 0; i < count; i++)
		len += (size_t)sprintf(text + len,
				       "prefix = 10.%u.%u.0/24, "
				       "2001:db8:%x::/48\n",
				       i / 256 + 1, i % 256, i + 1);
	conf = conf_from(text);
	free(text);
	return conf;
}

static void the_length_of_most_prefixes_prevails(void **state)
{
	struct conf *few = many_prefixes(62), *many = many_prefixes(64);

	(void)state;
	assert_int_equal(ranges_bits(few, AF_INET), 0);
	assert_int_equal(ranges_bits(few, AF_INET6), 0);
	assert_int_equal(ranges_bits(many, AF_INET), 24);
	assert_int_equal(ranges_bits(many, AF_INET6), 48);
	conf_unref(few);
	conf_unref(many);
}

static void many_prefixes_are_for_nftables_to_find(void **state)
{
	struct conf *conf = many_prefixes(1100);
	struct prefix locals[] = { prefix_of("10.1.7.9"),
				   prefix_of("127.0.0.0/8"),
				   prefix_of("2001:db8:8::9") };
	struct exit_state want;
	struct lab_host lab;
	struct addr_range *ranges;
	size_t count;

	(void)state;
	host_make(&lab, true);
	lab.links[1].index = 90003;
	lab.host.locals = locals;
	lab.host.local_count = 3;
	assert_int_equal(exit_want(conf, &lab.host, &want), 0);
	assert_true(want.rule_count < 30 && want.route_count < 30);
	assert_true(rule_there(&want, "ip -4 rule pref 20003 from 10.1.7.9/32 "
				      "lookup 20038 protocol 200"));
	assert_true(rule_there(&want, "ip -6 rule pref 20003 from "
				      "2001:db8:8::9/128 lookup 20038 protocol "
				      "200"));
	assert_true(rule_there(&want, "ip -4 rule pref 20140 fwmark "
				      "0x260000/0x7fff0000 lookup 20038 "
				      "protocol 200"));
	assert_true(rule_there(&want,
			       "ip -6 rule pref 20150 fwmark "
			       "0x260000/0x7fff0000 unreachable protocol "
			       "200"));
	assert_true(route_there(&want, "ip -6 route default dev if90003 table "
				       "20038 metric 1024 proto 200"));
	exit_state_clear(&want);
	assert_int_equal(steer_want(conf, &lab.host, AF_INET, &ranges, &count),
			 0);
	assert_int_equal(count, 1101);
	assert_steered(&ranges[0], "10.1.0.0", "10.1.1.0", 38);
	free(ranges);
	/* The link is lost. */
	lab.links[1].up = false;
	assert_int_equal(steer_want(conf, &lab.host, AF_INET, &ranges, &count),
			 0);
	assert_int_equal(ranges[0].chain & 0xff, 1);
	assert_true(ranges[0].chain > 0xff);
	free(ranges);
	assert_int_equal(exit_want(conf, &lab.host, &want), 0);
	assert_true(rule_there(&want, "ip -4 rule pref 20003 from 10.1.7.9/32 "
				      "unreachable protocol 200"));
	exit_state_clear(&want);
	conf_unref(conf);
}

static void assert_span(const struct addr_span *span, const char *first,
			const char *last)
{
	union addr addr;

	assert_int_equal(addr_parse(first, 0, &addr), 0);
	assert_int_equal(addr_span_place(span, &addr), 0);
	addr_parse(last, 0, &addr);
	assert_int_equal(addr_span_place(span, &addr), 0);
}

/* Sources of one link that is up and of one that is down, IPv4 and IPv6. */
static void dead_sources(struct exit_notice *out)
{
	struct conf *conf = conf_of("[exit a]\nlink = wan0\n"
				    "prefix = 10.8.0.0/16, 2001:db8:a::/48\n"
				    "[exit b]\nlink = wan1\n"
				    "prefix = 10.9.0.0/16, 2001:db8:b::/48\n");
	static const sa_family_t families[] = { AF_INET, AF_INET6 };
	struct range_sets steer = { .state = SETS_KNOWN };
	struct range_set *map;
	struct lab_host lab;

	host_make(&lab, false);
	for (size_t i = 0; i < 2; i++) {
		map = sets_add(&steer, "", families[i], 0);
		assert_non_null(map);
		assert_int_equal(steer_want(conf, &lab.host, families[i],
					    &map->ranges, &map->count),
				 0);
	}
	assert_int_equal(steer_dead(&steer, &out->dead, &out->dead_count), 0);
	sets_clear(&steer);
	conf_unref(conf);
}

static void what_is_dead_is_told_to_the_byte(void **state)
{
	const struct exit_loss lost = { .what = "wan0", .until_ms = 5 };
	struct exit_notice notice = { .dead = NULL }, read;
	union addr addr;
	int fd;

	(void)state;
	dead_sources(&notice);
	notice.losses = (struct exit_losses){ calloc(1, sizeof(lost)), 1 };
	notice.losses.all[0] = lost;
	assert_int_equal(notice.dead_count, 2);
	assert_span(&notice.dead[0], "10.9.0.0", "10.9.255.255");
	assert_span(&notice.dead[1],
		    "2001:db8:b::", "2001:db8:b:ffff:ffff:ffff:ffff:ffff");
	addr_parse("10.8.255.255", 0, &addr);
	assert_int_equal(addr_span_place(&notice.dead[0], &addr), -1);
	addr_parse("10.10.0.0", 0, &addr);
	assert_int_equal(addr_span_place(&notice.dead[0], &addr), 1);
	fd = exit_notice_pack(&notice);
	assert_true(fd >= 0);
	assert_int_equal(exit_notice_unpack(fd, &read), 0);
	assert_true(exit_notice_same(&notice, &read));
	read.losses.all[0].until_ms++;
	assert_false(exit_notice_same(&notice, &read));
	exit_notice_clear(&read);
	close(fd);
	memset(notice.losses.all[0].what, 'x', sizeof(lost.what));
	fd = exit_notice_pack(&notice);
	assert_int_equal(exit_notice_unpack(fd, &read), -EBADMSG);
	close(fd);
	exit_notice_clear(&notice);
}

/* One exit up, one whose link is down and comes; what is told survives the way. */
static void what_an_exit_was_is_remembered(void **state)
{
	struct conf *conf = two_exits();
	struct exit_notice notice = { .tunnels = { .refused = 9 } }, read;
	struct exit_history *next;
	struct lab_host lab;
	size_t count;
	int fd;

	(void)state;
	host_make(&lab, false);
	assert_int_equal(history_new(conf, NULL, 100, &notice.exits,
				     &notice.exit_count),
			 0);
	assert_int_equal(notice.exit_count, 2);
	history_look(notice.exits, 2, conf, &lab.host, 100);
	assert_string_equal(notice.exits[1].name, "b");
	assert_string_equal(notice.exits[1].state, "down");
	assert_string_equal(notice.exits[1].was, "");
	host_make(&lab, true);
	history_look(notice.exits, 2, conf, &lab.host, 200);
	history_look(notice.exits, 2, conf, &lab.host, 300);
	assert_string_equal(notice.exits[1].was, "down");
	assert_string_equal(notice.exits[1].state, "up");
	assert_int_equal(notice.exits[1].changed_ms, 200);
	assert_int_equal(notice.exits[1].changes, 1);
	assert_int_equal(notice.exits[0].changes, 0);
	fd = exit_notice_pack(&notice);
	assert_int_equal(exit_notice_unpack(fd, &read), 0);
	assert_true(exit_notice_same(&notice, &read));
	assert_int_equal(read.tunnels.refused, 9);
	/* The next helper's: "a" is as before, and a change when it looks. */
	assert_int_equal(history_new(conf, &read, 400, &next, &count), 0);
	assert_int_equal(next[1].changed_ms, 200);
	assert_int_equal(next[1].changes, 1);
	assert_string_equal(next[1].was, "down");
	history_look(next, 2, conf, &lab.host, 500);
	assert_int_equal(next[1].changed_ms, 200);
	host_make(&lab, false);
	history_look(next, 2, conf, &lab.host, 600);
	assert_int_equal(next[1].changes, 2);
	free(next);
	exit_notice_clear(&read);
	close(fd);
	memset(notice.exits[0].was, 'x', sizeof(notice.exits[0].was));
	fd = exit_notice_pack(&notice);
	assert_int_equal(exit_notice_unpack(fd, &read), -EBADMSG);
	close(fd);
	exit_notice_clear(&notice);
	conf_unref(conf);
}

static void counted_assert(const struct exit_history *one, uint64_t packets,
			   uint64_t rejects)
{
	assert_int_equal(one->packets, packets);
	assert_int_equal(one->rejects, rejects);
}

/* A table that is made anew begins at 0, the other one need not. */
static void what_is_counted_goes_on_when_a_counter_begins_anew(void **state)
{
	struct exit_history one = { .packets = 0 };

	(void)state;
	history_add(&one, &(struct exit_counts){ 10, 5, 2 });
	counted_assert(&one, 10, 7);
	history_add(&one, &(struct exit_counts){ 10, 5, 2 });
	counted_assert(&one, 10, 7);
	history_add(&one, &(struct exit_counts){ 13, 5, 3 });
	counted_assert(&one, 13, 8);
	history_add(&one, &(struct exit_counts){ 4, 0, 4 });
	counted_assert(&one, 17, 9);
	/* Another's place. */
	one.seen = (struct exit_counts){ 900, 800, 700 };
	history_add(&one, &(struct exit_counts){ 901, 802, 703 });
	counted_assert(&one, 18, 14);
}

/* Or a guard that nobody has touched would be another one after a restart. */
static void a_digest_is_of_what_is_meant(void **state)
{
	struct prefix one[2], other[2];
	union addr addr, same;
	uint64_t before;

	(void)state;
	memset(one, 0x55, sizeof(one));
	memset(other, 0xaa, sizeof(other));
	for (size_t i = 0; i < 2; i++) {
		one[i].family = other[i].family = AF_INET6;
		one[i].bits = other[i].bits = 64;
		memset(one[i].bytes, (int)i, sizeof(one[i].bytes));
		memset(other[i].bytes, (int)i, sizeof(other[i].bytes));
	}
	before = exit_digest_prefixes(EXIT_DIGEST, one, 2);
	assert_true(before == exit_digest_prefixes(EXIT_DIGEST, other, 2));
	other[1].bits = 63;
	assert_true(before != exit_digest_prefixes(EXIT_DIGEST, other, 2));
	memset(&addr, 0x55, sizeof(addr));
	memset(&same, 0xaa, sizeof(same));
	assert_int_equal(addr_parse("192.0.2.1", 0, &addr), 0);
	assert_int_equal(addr_parse("192.0.2.1", 0, &same), 0);
	assert_true(exit_digest_addrs(EXIT_DIGEST, &addr, 1) ==
		    exit_digest_addrs(EXIT_DIGEST, &same, 1));
}

/* Cut short, too long, out of order: nothing of it is taken. */
static void a_notice_that_is_broken_is_refused(void **state)
{
	struct exit_notice notice = { .dead = NULL }, read;
	struct addr_span first;
	int fd;

	(void)state;
	assert_int_equal(exit_notice_unpack(-1, &read), -EBADF);
	dead_sources(&notice);
	fd = exit_notice_pack(&notice);
	assert_int_equal(ftruncate(fd, 4), 0);
	assert_int_equal(exit_notice_unpack(fd, &read), -EBADMSG);
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(exit_notice_unpack(fd, &read), -EBADMSG);
	close(fd);
	first = notice.dead[0];
	notice.dead[0] = notice.dead[1];
	notice.dead[1] = first;
	fd = exit_notice_pack(&notice);
	assert_int_equal(exit_notice_unpack(fd, &read), -EBADMSG);
	close(fd);
	exit_notice_clear(&notice);
}

static void exits_without_links_want_nothing(void **state)
{
	struct conf *conf = conf_of("[exit pins]\nprefix = 10.0.0.0/8\n");
	struct exit_host host = { 0 };
	struct exit_state want;

	(void)state;
	assert_false(exit_wanted(conf));
	assert_int_equal(exit_want(conf, &host, &want), 0);
	assert_int_equal(want.rule_count + want.route_count, 0);
	exit_state_clear(&want);
	conf_unref(conf);
}

static void everything_is_made(void *arg)
{
	struct conf *conf = arg;
	struct addr_range *ranges;
	struct health *health;
	struct exit_state want;
	struct lab_host lab;
	size_t count;
	int err;

	host_make(&lab, true);
	err = exit_want(conf, &lab.host, &want);
	if (!err)
		exit_state_clear(&want);
	else
		assert_int_equal(err, -ENOMEM);
	err = tunnel_sources(conf, &ranges, &count);
	if (!err)
		free(ranges);
	else
		assert_int_equal(err, -ENOMEM);
	err = ranges_of_exit(conf, 0, AF_INET, &ranges, &count);
	if (!err)
		free(ranges);
	else
		assert_int_equal(err, -ENOMEM);
	err = steer_want(conf, &lab.host, AF_INET6, &ranges, &count);
	if (!err)
		free(ranges);
	else
		assert_int_equal(err, -ENOMEM);
	err = health_new(conf, &health);
	if (!err)
		health_free(health);
	else
		assert_int_equal(err, -ENOMEM);
}

static void a_lack_of_memory_leaks_nothing(void **state)
{
	struct conf *conf = watched_exits();

	(void)state;
	assert_true(failalloc_sweep(everything_is_made, conf) > 0);
	conf_unref(conf);
}

static int fails(const struct nlmsghdr *msg, void *arg)
{
	(void)msg;
	(void)arg;
	errno = ENOMEM;
	return MNL_CB_ERROR;
}

static int counts(const struct nlmsghdr *msg, void *arg)
{
	(void)msg;
	++*(int *)arg;
	return MNL_CB_OK;
}

static int links_ask(struct rtnl *rtnl, mnl_cb_t each, int *count)
{
	char buf[256] = "";
	struct nlmsghdr *request = mnl_nlmsg_put_header(buf);

	request->nlmsg_type = RTM_GETLINK;
	request->nlmsg_flags = NLM_F_DUMP;
	mnl_nlmsg_put_extra_header(request, sizeof(struct ifinfomsg));
	return rtnl_exchange(rtnl, request, each, count);
}

/* Links, or their end, are still to be read when the first one gives up. */
static void an_exchange_that_failed_leaves_nothing_to_the_next(void **state)
{
	struct rtnl *rtnl;
	int count = 0;

	(void)state;
	assert_int_equal(rtnl_open(&rtnl), 0);
	assert_int_equal(links_ask(rtnl, fails, NULL), -ENOMEM);
	assert_int_equal(links_ask(rtnl, counts, &count), 0);
	assert_true(count > 0);
	rtnl_close(rtnl);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(longer_prefixes_are_asked_first),
		cmocka_unit_test(
			an_exchange_that_failed_leaves_nothing_to_the_next),
		cmocka_unit_test(each_source_has_its_routes),
		cmocka_unit_test(the_site_comes_before_the_exits),
		cmocka_unit_test(a_copy_of_a_route_has_its_metrics),
		cmocka_unit_test(a_metric_that_is_cut_short_is_not_told_of),
		cmocka_unit_test(
			of_a_subnet_that_main_has_twice_the_first_is_copied),
		cmocka_unit_test(
			the_owner_comes_first_then_those_who_let_it_pass),
		cmocka_unit_test(each_exit_of_a_source_has_its_metric),
		cmocka_unit_test(beyond_an_exit_each_source_has_its_own_way),
		cmocka_unit_test(another_router_is_handed_its_sources),
		cmocka_unit_test(anycast_is_the_prefix_with_the_suffix_behind),
		cmocka_unit_test(an_exit_without_its_anycast_is_no_way_out),
		cmocka_unit_test(an_exit_with_a_link_has_its_anycast),
		cmocka_unit_test(
			an_exit_that_flaps_stays_lost_until_it_is_calm),
		cmocka_unit_test(a_link_that_flaps_stays_lost_until_it_is_calm),
		cmocka_unit_test(a_router_that_is_silent_takes_its_exit_away),
		cmocka_unit_test(
			another_exit_is_tunnelled_to_at_its_anycast_address),
		cmocka_unit_test(without_a_way_nothing_is_tunnelled),
		cmocka_unit_test(only_peers_may_tunnel_to_us),
		cmocka_unit_test(only_errors_about_who_is_told_are_heard),
		cmocka_unit_test(a_host_that_learns_has_its_table),
		cmocka_unit_test(a_lost_link_leaves_unreachable_routes),
		cmocka_unit_test(only_what_differs_is_told_of),
		cmocka_unit_test(
			what_refuses_goes_before_what_it_stands_behind),
		cmocka_unit_test(sources_become_ranges_that_do_not_overlap),
		cmocka_unit_test(ranges_of_two_are_those_of_either),
		cmocka_unit_test(the_longest_prefix_of_a_map_counts),
		cmocka_unit_test(prefixes_of_one_length_stand_alone),
		cmocka_unit_test(the_length_of_most_prefixes_prevails),
		cmocka_unit_test(many_prefixes_are_for_nftables_to_find),
		cmocka_unit_test(what_is_dead_is_told_to_the_byte),
		cmocka_unit_test(what_an_exit_was_is_remembered),
		cmocka_unit_test(
			what_is_counted_goes_on_when_a_counter_begins_anew),
		cmocka_unit_test(a_digest_is_of_what_is_meant),
		cmocka_unit_test(a_notice_that_is_broken_is_refused),
		cmocka_unit_test(tables_do_not_depend_on_the_order_of_sections),
		cmocka_unit_test(no_two_tables_have_one_number),
		cmocka_unit_test(
			a_loss_that_is_known_does_not_wait_for_other_answers),
		cmocka_unit_test(exits_without_links_want_nothing),
		cmocka_unit_test(a_lack_of_memory_leaks_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
