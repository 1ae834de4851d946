/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The rules and routes that make each source take its exit; pure functions.
 *
 *   pref   IPv4                                   IPv6
 *   20000  main, but no default route and none
 *          by a link of an exit
 *   20001  from PREFIX: the exit's own table      table 20000
 *   20040  from PREFIX: unreachable
 *
 * What the site reaches otherwise than by an exit counts first, for every source. A
 * route of main by an exit's link says nothing of whom it is for, however long its
 * prefix. For IPv4 those links are in an interface group of their own, so that a rule
 * passes over routes by them (suppress_ifgroup). For IPv6 the other routes of main are
 * copied: the look-up that BPF programs do there does not know of such rules (Linux
 * 6.18, fib6_rule_suppress), and what is on wire would leave by main's default route.
 *
 * An exit of another router on a link of the site (natural DMZ, section 5.2.2) differs
 * in its default route alone. Its link is one of the site, and not guarded.
 *
 * A table has the default route, the subnets on the link, and an unreachable route for
 * when the link is lost: the kernel removes what leads there by itself, at once. IPv6
 * has one table for all prefixes since its routes can have a source
 * (CONFIG_IPV6_SUBTREES); of these the longest destination counts first, then the
 * longest source. For IPv4 there is a rule each, the longer prefixes before the
 * shorter. That costs a look at each rule for each packet, but holds for look-ups
 * without a packet, too.
 */
#include <errno.h>
#include <string.h>

#include "exit/internal.h"

/* One exit while its part of the state is made. */
struct making {
	const struct exit_host *host;
	const struct conf_exit *exit;
	struct exit_state *out;
	uint32_t table; /* of IPv4 */
};

bool exit_leads(const struct conf_exit *exit)
{
	return exit->link || exit->next_hop_count;
}

bool exit_hands(const struct conf_exit *exit)
{
	return !exit->link && exit->next_hop_count;
}

bool exit_wanted(const struct conf *conf)
{
	for (size_t i = 0; i < conf->exit_count; i++)
		if (exit_leads(&conf->exits[i]))
			return true;
	return false;
}

bool exit_link_is(const struct conf *conf, const char *name)
{
	for (size_t i = 0; i < conf->exit_count; i++)
		if (conf->exits[i].link && !strcmp(conf->exits[i].link, name))
			return true;
	return false;
}

const struct exit_link *exit_link_find(const struct exit_host *host,
				       const struct conf_exit *exit)
{
	for (size_t i = 0; exit->link && i < host->link_count; i++)
		if (!strcmp(host->links[i].name, exit->link))
			return &host->links[i];
	return NULL;
}

static const union addr *next_hop(const struct conf_exit *exit,
				  sa_family_t family)
{
	for (size_t i = 0; i < exit->next_hop_count; i++)
		if (addr_family(&exit->next_hops[i]) == family)
			return &exit->next_hops[i];
	return NULL;
}

static bool link_up(const struct exit_host *host, int index)
{
	for (size_t i = 0; i < host->link_count; i++)
		if (host->links[i].index == index)
			return host->links[i].up;
	return false;
}

/* Another router is where a subnet of ours has its address. */
static int hop_link(const struct exit_host *host, const union addr *hop)
{
	for (size_t i = 0; hop && i < host->way_count; i++)
		if (host->ways[i].kernel &&
		    prefix_contains(&host->ways[i].to, hop) &&
		    link_up(host, host->ways[i].link))
			return host->ways[i].link;
	return 0;
}

int exit_link_index(const struct exit_host *host, const struct conf_exit *exit,
		    sa_family_t family)
{
	const struct exit_link *link = exit_link_find(host, exit);

	if (!exit->link)
		return hop_link(host, next_hop(exit, family));
	return link && link->up ? link->index : 0;
}

static int rule_add(struct exit_state *out, const struct prefix *from,
		    uint32_t priority, uint32_t table, bool site)
{
	struct exit_rule *rule = exit_array_add(
		(void **)&out->rules, &out->rule_count, sizeof(*rule));

	if (!rule)
		return -ENOMEM;
	rule->from = *from;
	rule->priority = priority;
	rule->table = table;
	rule->site = site;
	return 0;
}

/* gateway NULL: on the link; link 0: unreachable. */
static int route_add(const struct making *m, const struct prefix *to,
		     const struct prefix *from, const union addr *gateway,
		     int link, uint32_t metric)
{
	struct exit_state *out = m->out;
	struct exit_route *route = exit_array_add(
		(void **)&out->routes, &out->route_count, sizeof(*route));

	if (!route)
		return -ENOMEM;
	route->to = *to;
	route->from = (struct prefix){ .family = to->family };
	if (to->family == AF_INET6)
		route->from = *from;
	if (gateway)
		route->gateway = *gateway;
	route->link = link;
	route->metric = metric;
	route->table = to->family == AF_INET6 ? EXIT_TABLE : m->table;
	return 0;
}

static bool link_local(const struct prefix *prefix)
{
	return prefix->family == AF_INET6 && prefix->bytes[0] == 0xfe &&
	       (prefix->bytes[1] & 0xc0) == 0x80;
}

/* The routes of a source; IPv4 has them once for all prefixes of an exit. */
static int source_add(const struct making *m, const struct prefix *from)
{
	const struct prefix all = { .family = from->family };
	const struct exit_host *host = m->host;
	int link = exit_link_index(host, m->exit, from->family);
	int err = route_add(m, &all, from, NULL, 0, METRIC_LOST);

	if (!err && link)
		err = route_add(m, &all, from, next_hop(m->exit, from->family),
				link, METRIC_DEFAULT);
	for (size_t i = 0; i < host->way_count && m->exit->link && link && !err;
	     i++)
		if (host->ways[i].link == link && host->ways[i].kernel &&
		    host->ways[i].to.family == from->family &&
		    !link_local(&host->ways[i].to))
			err = route_add(m, &host->ways[i].to, from, NULL, link,
					METRIC_LINK);
	return err;
}

static int prefix_add(const struct making *m, const struct prefix *prefix,
		      bool *has4)
{
	int err = 0;

	if (prefix->family == AF_INET6)
		return source_add(m, prefix);
	if (!*has4)
		err = source_add(m, prefix);
	*has4 = true;
	if (!err)
		err = rule_add(m->out, prefix, RULE_SOURCE + 32u - prefix->bits,
			       m->table, false);
	return err ? err : rule_add(m->out, prefix, RULE_LOST, 0, false);
}

static int exit_add(const struct making *m, bool family[2])
{
	bool has4 = false;
	int err = 0;

	for (size_t i = 0; i < m->exit->prefix_count && !err; i++) {
		const struct prefix *prefix = &m->exit->prefixes[i];

		family[prefix->family == AF_INET6] = true;
		err = prefix_add(m, prefix, &has4);
	}
	return err;
}

/* Does a route of main lead to an exit, and nowhere else? */
static bool way_leaves(const struct conf *conf, const struct exit_host *host,
		       const struct exit_way *way)
{
	for (size_t i = 0; i < host->link_count; i++)
		if (host->links[i].index == way->link)
			return exit_link_is(conf, host->links[i].name) &&
			       !link_local(&way->to);
	return false;
}

static int ways6_add(const struct making *m, const struct conf *conf)
{
	const struct prefix all = { .family = AF_INET6 };
	const struct exit_host *host = m->host;
	int err = 0;

	for (size_t i = 0; i < host->way_count && !err; i++) {
		const struct exit_way *way = &host->ways[i];
		bool hop = addr_family(&way->gateway) != AF_UNSPEC;

		if (way->to.family == AF_INET6 && !way_leaves(conf, host, way))
			err = route_add(m, &way->to, &all,
					hop ? &way->gateway : NULL, way->link,
					way->metric);
	}
	return err;
}

static int shared_add(const struct making *m, const struct conf *conf,
		      const bool family[2])
{
	const struct prefix v4 = { .family = AF_INET };
	const struct prefix v6 = { .family = AF_INET6 };
	int err = 0;

	if (family[0])
		err = rule_add(m->out, &v4, RULE_SITE, 0, true);
	if (family[1] && !err)
		err = rule_add(m->out, &v6, RULE_SOURCE, EXIT_TABLE, false);
	if (family[1] && !err)
		err = ways6_add(m, conf);
	return err;
}

int exit_want(const struct conf *conf, const struct exit_host *host,
	      struct exit_state *out)
{
	struct exit_state state = { 0 };
	struct making m = { .host = host, .out = &state };
	bool family[2] = { false, false };
	int err = 0;

	for (size_t i = 0; i < conf->exit_count && !err; i++) {
		m.exit = &conf->exits[i];
		m.table = EXIT_TABLE + 1 + (uint32_t)i;
		if (exit_leads(m.exit))
			err = exit_add(&m, family);
	}
	if (!err)
		err = shared_add(&m, conf, family);
	if (err) {
		exit_state_clear(&state);
		return err;
	}
	exit_state_sort(&state);
	*out = state;
	return 0;
}
