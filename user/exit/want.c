/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The rules and routes that make each source take its exit; pure functions.
 *
 *   pref   IPv4                                   IPv6
 *   20000  to what is beyond an exit: the next    fwmark 0x7fff: main
 *          but one
 *   20001  main, but no default route and none    table 20000
 *          by a link of an exit
 *   20002  fwmark 0x7ffe: unreachable             the same
 *   20003  from PREFIX: the table of its exits
 *   20150  from PREFIX: unreachable
 *
 * What the site reaches otherwise than by an exit counts first, for every source. A
 * route of main by an exit's link says nothing of whom it is for, however long its
 * prefix. For IPv4 those links are in an interface group of their own, so that a rule
 * passes over routes by them (suppress_ifgroup). For IPv6 the other routes of main are
 * copied, metrics (MTU) and all: the look-up that BPF programs do there does not know of
 * such rules (Linux 6.18, fib6_rule_suppress), and what is on wire would leave by main's
 * default route.
 *
 * An exit of another router on a link of the site (natural DMZ, section 5.2.2, and
 * interior routers, 5.2.3) differs in its default route alone. Its link is one of the
 * site, and not guarded. A route of main by its address is a way out like one by an
 * exit's link, unless it leads into a subnet of this host or an exit's prefix: IPv6 has
 * no copy of it, and for IPv4 the look at main is passed over.
 *
 * Whether such an exit is well may be for routing protocols to say (health.h). For
 * them an exit with a link has its anycast addresses, while the link is up: as a host
 * route of main by the link, to be announced, and as local ones, so that packets to
 * them end here. Both go with the link, without our help. Of the routes to others' the
 * kernel is asked by a mark that has main looked at alone, for table 20000 has copies.
 *
 * An exit of another router that is no neighbour has a default route by a tunnel
 * (virtual DMZ, see tunnel.h). With a link and tunnel peers it is we who are tunnelled
 * to, at the anycast addresses.
 *
 * A source has a default route by each exit that lets it pass, with a metric by the
 * exit's place (order.c), the subnets on their links, and an unreachable route for when
 * the last one is lost. The kernel removes what leads by a lost link by itself, at
 * once, so that the next exit takes over without us. IPv6 has one table for all
 * prefixes since its routes can have a source (CONFIG_IPV6_SUBTREES); of these the
 * longest destination counts first, then the longest source. For IPv4 each choice of
 * exits has a table, and each prefix a rule that leads there, the longer prefixes
 * before the shorter. That costs a look at each rule for each packet, but holds for
 * look-ups without a packet, too.
 *
 * With many prefixes nftables finds the table of what is forwarded (steer.c), and marks
 * it. This host's own packets are routed before nftables sees them, and so are those
 * that BPF programs send for it: its addresses have rules.
 *
 *   20003  from ADDRESS of this host: the table of its exits, or unreachable
 *   20140  fwmark N: table 20000 + N
 *   20150  from ADDRESS, fwmark N: unreachable
 */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>

#include "exit/internal.h"
#include "exit/learn.h"
#include "exit/order.h"
#include "exit/tunnel.h"

/* The state while it is made. */
struct making {
	const struct conf *conf;
	const struct exit_host *host;
	const struct exit_order *order;
	struct exit_state *out;
};

const struct exit_rule exit_rule_look = { .from = { .family = AF_INET6 },
					  .priority = RULE_LOOK,
					  .mark = MARK_LOOK,
					  .table = RT_TABLE_MAIN };

bool exit_leads(const struct conf_exit *exit)
{
	return exit->link || exit->next_hop_count || tunnel_leads(exit);
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
	return learn_wanted(conf);
}

bool exit_link_is(const struct conf *conf, const char *name)
{
	for (size_t i = 0; i < conf->exit_count; i++)
		if (conf->exits[i].link && !strcmp(conf->exits[i].link, name))
			return true;
	return false;
}

const struct exit_link *exit_link_named(const struct exit_host *host,
					const char *name)
{
	for (size_t i = 0; name && i < host->link_count; i++)
		if (!strcmp(host->links[i].name, name))
			return &host->links[i];
	return NULL;
}

const struct exit_link *exit_link_find(const struct exit_host *host,
				       const struct conf_exit *exit)
{
	return exit_link_named(host, exit->link);
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

/* Another router is where a subnet of ours has its address: the longest, as ever. */
static int hop_link(const struct exit_host *host, const union addr *hop)
{
	const struct exit_way *found = NULL;

	for (size_t i = 0; hop && i < host->way_count; i++) {
		const struct exit_way *way = &host->ways[i];

		if (way->kernel && prefix_contains(&way->to, hop) &&
		    link_up(host, way->link) &&
		    (!found || way->to.bits > found->to.bits))
			found = way;
	}
	return found ? found->link : 0;
}

int exit_link_index(const struct exit_host *host, const struct conf_exit *exit,
		    sa_family_t family)
{
	const struct exit_link *link = exit_link_find(host, exit);

	if (tunnel_leads(exit))
		return tunnel_link(host, exit, family);
	if (!exit->link)
		return hop_link(host, next_hop(exit, family));
	return link && link->up && !health_link_lost(host->health, exit->link) ?
		       link->index :
		       0;
}

static int rule_add(struct exit_state *out, const struct exit_rule *rule)
{
	struct exit_rule *added = exit_array_add(
		(void **)&out->rules, &out->rule_count, sizeof(*added));

	if (!added)
		return -ENOMEM;
	*added = *rule;
	added->to.family = rule->from.family;
	return 0;
}

static int route_add(struct exit_state *out, const struct exit_route *route)
{
	struct exit_route *added = exit_array_add(
		(void **)&out->routes, &out->route_count, sizeof(*added));

	if (!added)
		return -ENOMEM;
	*added = *route;
	return 0;
}

static bool link_local(const struct prefix *prefix)
{
	return prefix->family == AF_INET6 && prefix->bytes[0] == 0xfe &&
	       (prefix->bytes[1] & 0xc0) == 0x80;
}

bool exit_dead(const struct exit_host *host, const struct conf_exit *exit,
	       const struct prefix *prefix)
{
	if (tunnel_leads(exit) && !tunnel_end(host, exit, prefix))
		return true;
	return !exit_link_index(host, exit, prefix->family) ||
	       health_exit_lost(host->health, exit, prefix);
}

/*
 * Others tunnel to us there, and do not hear when the link goes down: whose packets
 * they are is told so by us.
 */
static int tunnelled_add(const struct making *m, const struct conf_exit *exit,
			 struct exit_route route)
{
	if (!exit->tunnel_peer_count || route.to.family != AF_INET6)
		return 0;
	route.table = RT_TABLE_LOCAL;
	route.link = LOOPBACK;
	route.local = true;
	return route_add(m->out, &route);
}

/* For others to learn that the exit is here, and for packets to it to end here. */
static int anycast_add(const struct making *m, const struct conf_exit *exit,
		       const struct prefix *prefix)
{
	int link = exit_link_index(m->host, exit, prefix->family);
	struct exit_route route = { .to = { .family = prefix->family },
				    .from = { .family = prefix->family },
				    .table = RT_TABLE_MAIN,
				    .metric = METRIC_DEFAULT,
				    .link = link };
	const uint8_t *bytes;
	union addr anycast;
	size_t len;
	int err;

	if (!exit->link || !exit_anycast(exit, prefix, &anycast))
		return 0;
	bytes = addr_bytes(&anycast, &len);
	memcpy(route.to.bytes, bytes, len);
	route.to.bits = (uint8_t)(len * 8);
	if (exit->health != CONF_HEALTH_ANYCAST)
		return tunnelled_add(m, exit, route);
	if (!link)
		return 0;
	err = route_add(m->out, &route);
	route.table = RT_TABLE_LOCAL;
	route.local = true;
	return err ? err : route_add(m->out, &route);
}

static bool subnet_there(const struct exit_state *state, size_t first,
			 const struct prefix *subnet)
{
	for (size_t i = first; i < state->route_count; i++)
		if (!prefix_compare(&state->routes[i].to, subnet))
			return true;
	return false;
}

/* The subnets on the link; what main has twice, as it has it first. */
static int subnets_add(const struct making *m, struct exit_route route)
{
	const struct exit_host *host = m->host;
	const size_t first = m->out->route_count;
	int err = 0;

	route.metric = METRIC_LINK;
	for (size_t i = 0; i < host->way_count && !err; i++) {
		const struct exit_way *way = &host->ways[i];

		route.to = way->to;
		route.metrics = way->metrics;
		route.preference = way->preference;
		if (way->link == route.link && way->kernel &&
		    way->to.family == route.from.family &&
		    !link_local(&way->to) &&
		    !subnet_there(m->out, first, &way->to))
			err = route_add(m->out, &route);
	}
	return err;
}

/* Each address once: of IPv4 an exit has one for all its prefixes. */
static int anycasts_add(const struct making *m, const struct conf_exit *exit)
{
	bool has4 = false;
	int err = 0;

	for (size_t i = 0; i < exit->prefix_count && !err; i++) {
		bool v4 = exit->prefixes[i].family == AF_INET;

		if (!v4 || !has4)
			err = anycast_add(m, exit, &exit->prefixes[i]);
		has4 |= v4;
	}
	return err;
}

/* Of a source that is another's, an exit's first own prefix says whether it is there. */
static const struct prefix *served_as(const struct conf_exit *exit,
				      const struct prefix *from, bool owned)
{
	for (size_t i = 0; i < exit->prefix_count && !owned; i++)
		if (exit->prefixes[i].family == from->family)
			return &exit->prefixes[i];
	return from;
}

bool exit_mapped(const struct exit_order *order, sa_family_t family)
{
	size_t count = 0;

	for (size_t i = 0; i < order->choice_count; i++)
		if (order->choices[i].table > EXIT_TABLE + TABLES_MOST)
			return false;
	for (size_t i = 0; i < order->source_count; i++)
		count += order->sources[i].prefix.family == family;
	return count > (family == AF_INET6 ? FEW_V6 : FEW_V4);
}

uint32_t exit_source_table(const struct conf *conf,
			   const struct exit_host *host,
			   const struct exit_order *order,
			   const struct exit_source *source)
{
	const struct exit_choice *choice = &order->choices[source->choice];

	for (size_t i = 0; i < choice->count; i++) {
		const struct conf_exit *exit = &conf->exits[choice->exits[i]];

		if (exit_dead(host, exit,
			      served_as(exit, &source->prefix,
					choice->exits[i] == choice->owner)))
			continue;
		/* The table knows of links alone, and of those the kernel itself. */
		return i ? order->tables[choice->exits[i]] : choice->table;
	}
	return 0;
}

/* The ways of a source by one exit; `route` has what they have in common. */
static int exit_add(const struct making *m, const struct conf_exit *exit,
		    const struct prefix *as, struct exit_route route,
		    uint32_t metric)
{
	const union addr *hop = next_hop(exit, route.to.family);
	int err = 0;

	route.link = exit_link_index(m->host, exit, route.to.family);
	if (!route.link)
		return 0;
	if (exit->link)
		err = subnets_add(m, route);
	if (tunnel_leads(exit))
		tunnel_encap(m->host, exit, as, &route);
	if (hop)
		route.gateway = *hop;
	route.metric = metric;
	return err ? err : route_add(m->out, &route);
}

/* The ways of a source in a table, and that there is none without them. */
static int choice_add(const struct making *m, const struct exit_source *source,
		      uint32_t table, const struct exit_choice *choice)
{
	const struct exit_route route = {
		.to = { .family = source->prefix.family },
		.from = source->prefix,
		.table = table,
		.metric = METRIC_LOST
	};
	int err = route_add(m->out, &route);

	for (size_t i = 0; i < choice->count && !err; i++) {
		const struct conf_exit *exit =
			&m->conf->exits[choice->exits[i]];
		const struct prefix *as =
			served_as(exit, &source->prefix,
				  choice->exits[i] == choice->owner);

		if (!exit_dead(m->host, exit, as))
			err = exit_add(m, exit, as, route,
				       METRIC_DEFAULT + (uint32_t)i);
	}
	return err;
}

/* What is from there takes that table, or nothing (0). */
static int source_rules_add(const struct making *m, const struct prefix *from,
			    uint32_t table)
{
	unsigned int width = from->family == AF_INET6 ? 128 : 32;
	struct exit_rule rule = { .from = *from,
				  .priority = RULE_SOURCE + width - from->bits,
				  .table = table };
	int err = rule_add(m->out, &rule);

	rule.priority = RULE_LOST;
	rule.table = 0;
	return err ? err : rule_add(m->out, &rule);
}

/* With few prefixes: IPv4 has the routes of a choice once for all sources. */
static int few_add(const struct making *m, sa_family_t family)
{
	const struct exit_source all = { .prefix = { .family = AF_INET } };
	const struct exit_order *order = m->order;
	int err = 0;

	for (size_t i = 0; family == AF_INET && i < order->choice_count && !err;
	     i++)
		if (order->choices[i].ipv4)
			err = choice_add(m, &all, order->choices[i].table,
					 &order->choices[i]);
	for (size_t i = 0; i < order->source_count && !err; i++) {
		const struct exit_source *source = &order->sources[i];
		const struct exit_choice *choice =
			&order->choices[source->choice];

		if (source->prefix.family != family)
			continue;
		err = family == AF_INET6 ?
			      choice_add(m, source, EXIT_TABLE, choice) :
			      source_rules_add(m, &source->prefix,
					       choice->table);
	}
	return err;
}

/* A table of its own for these exits, as far as there are links, and its mark. */
static int table_add(const struct making *m, sa_family_t family, uint32_t table,
		     const uint8_t *exits, size_t count)
{
	const struct exit_route route = { .to = { .family = family },
					  .from = { .family = family },
					  .table = table,
					  .metric = METRIC_LOST };
	struct exit_rule rule = { .from = { .family = family },
				  .priority = RULE_MARK,
				  .mark = (table - EXIT_TABLE) << MARK_SHIFT,
				  .table = table };
	int err = route_add(m->out, &route);

	for (size_t i = 0; i < count && !err; i++) {
		const struct conf_exit *exit = &m->conf->exits[exits[i]];

		err = exit_add(m, exit, served_as(exit, &route.from, false),
			       route, METRIC_DEFAULT + (uint32_t)i);
	}
	if (!err)
		err = rule_add(m->out, &rule);
	rule.priority = RULE_LOST;
	rule.table = 0;
	return err ? err : rule_add(m->out, &rule);
}

/* Does `outer` have all of `inner`? */
static bool prefix_within(const struct prefix *inner,
			  const struct prefix *outer)
{
	union addr addr;

	addr_from_bytes(&addr, inner->family, inner->bytes, 0);
	return outer->bits <= inner->bits && prefix_contains(outer, &addr);
}

/* It may be a network (ip route add local), with prefixes within. */
static int local_add(const struct making *m, const struct prefix *local)
{
	const struct exit_source *longest = NULL;
	int err = 0;

	for (size_t i = 0; i < m->order->source_count && !err; i++) {
		const struct exit_source *source = &m->order->sources[i];

		if (source->prefix.bits > local->bits &&
		    prefix_within(&source->prefix, local))
			err = source_rules_add(
				m, &source->prefix,
				exit_source_table(m->conf, m->host, m->order,
						  source));
		else if ((!longest ||
			  source->prefix.bits > longest->prefix.bits) &&
			 prefix_within(local, &source->prefix))
			longest = source;
	}
	if (!longest || err)
		return err;
	return source_rules_add(m, local,
				exit_source_table(m->conf, m->host, m->order,
						  longest));
}

/* With many prefixes: tables of exits and choices, for what nftables marks. */
static int many_add(const struct making *m, sa_family_t family)
{
	const struct exit_host *host = m->host;
	int err = 0;

	for (size_t i = 0; i < m->conf->exit_count && !err; i++) {
		const uint8_t alone = (uint8_t)i;

		if (exit_leads(&m->conf->exits[i]))
			err = table_add(m, family, m->order->tables[alone],
					&alone, 1);
	}
	for (size_t i = 0; i < m->order->choice_count && !err; i++) {
		const struct exit_choice *choice = &m->order->choices[i];

		if (choice->count > 1)
			err = table_add(m, family, choice->table, choice->exits,
					choice->count);
	}
	for (size_t i = 0; i < host->local_count && !err; i++)
		if (host->locals[i].family == family)
			err = local_add(m, &host->locals[i]);
	return err;
}

static bool hop_known(const struct conf *conf, const union addr *gateway)
{
	for (size_t i = 0; i < conf->exit_count; i++) {
		const union addr *hop =
			next_hop(&conf->exits[i], addr_family(gateway));

		if (exit_hands(&conf->exits[i]) && hop &&
		    !addr_compare_host(hop, gateway))
			return true;
	}
	return false;
}

/* Does it lead by another router's exit to what is not of the site? */
static bool way_beyond(const struct conf *conf, const struct exit_host *host,
		       const struct exit_way *way)
{
	union addr first;

	if (addr_family(&way->gateway) == AF_UNSPEC ||
	    !hop_known(conf, &way->gateway))
		return false;
	addr_from_bytes(&first, way->to.family, way->to.bytes, 0);
	for (size_t i = 0; i < host->way_count; i++)
		if (host->ways[i].kernel &&
		    prefix_contains(&host->ways[i].to, &first))
			return false;
	return !conf_exit_of(conf, &first);
}

/* Does a route of main lead to an exit, and nowhere else? */
static bool way_leaves(const struct conf *conf, const struct exit_host *host,
		       const struct exit_way *way)
{
	for (size_t i = 0; i < host->link_count; i++)
		if (host->links[i].index == way->link &&
		    exit_link_is(conf, host->links[i].name))
			return !link_local(&way->to);
	return way_beyond(conf, host, way);
}

/* Main has a rule of its own for IPv4: whoever goes beyond an exit passes it over. */
static int ways4_add(const struct making *m)
{
	struct exit_rule rule = { .from = { .family = AF_INET },
				  .priority = RULE_BEYOND,
				  .skip_to = RULE_DEAD };
	int err = 0;

	for (size_t i = 0; i < m->host->way_count && !err; i++) {
		rule.to = m->host->ways[i].to;
		if (rule.to.family == AF_INET &&
		    way_beyond(m->conf, m->host, &m->host->ways[i]))
			err = rule_add(m->out, &rule);
	}
	return err;
}

static int ways6_add(const struct making *m)
{
	const struct exit_host *host = m->host;
	int err = 0;

	for (size_t i = 0; i < host->way_count && !err; i++) {
		const struct exit_way *way = &host->ways[i];
		struct exit_route route = { .to = way->to,
					    .from = { .family = AF_INET6 },
					    .gateway = way->gateway,
					    .metrics = way->metrics,
					    .preference = way->preference,
					    .table = EXIT_TABLE,
					    .metric = way->metric,
					    .link = way->link };

		if (way->to.family == AF_INET6 &&
		    !way_leaves(m->conf, host, way))
			err = route_add(m->out, &route);
	}
	return err;
}

static int shared_add(const struct making *m, sa_family_t family)
{
	bool v6 = family == AF_INET6;
	const struct exit_rule site = { .from = { .family = family },
					.priority = RULE_SITE,
					.table = v6 ? EXIT_TABLE : 0,
					.site = !v6 };
	const struct exit_rule dead = { .from = { .family = family },
					.priority = RULE_DEAD,
					.mark = MARK_DEAD };
	bool watches = v6 && m->host->health &&
		       health_watches(m->host->health, AF_INET6);
	int err = rule_add(m->out, &site);

	if (!err)
		err = rule_add(m->out, &dead);
	if (watches && !err)
		err = rule_add(m->out, &exit_rule_look);
	if (err)
		return err;
	return v6 ? ways6_add(m) : ways4_add(m);
}

static int family_add(const struct making *m, sa_family_t family)
{
	size_t count = 0;
	int err;

	for (size_t i = 0; i < m->order->source_count; i++)
		count += m->order->sources[i].prefix.family == family;
	/* What is learnt is in the table of IPv6. */
	if (!count && !(family == AF_INET6 && learn_wanted(m->conf)))
		return 0;
	err = exit_mapped(m->order, family) ? many_add(m, family) :
					      few_add(m, family);
	return err ? err : shared_add(m, family);
}

int exit_want(const struct conf *conf, const struct exit_host *host,
	      struct exit_state *out)
{
	struct exit_state state = { 0 };
	struct exit_order order;
	struct making m = { conf, host, &order, &state };
	int err = exit_order_make(conf, &order);

	if (err)
		return err;
	err = family_add(&m, AF_INET);
	if (!err)
		err = family_add(&m, AF_INET6);
	for (size_t i = 0; i < conf->exit_count && !err; i++)
		err = anycasts_add(&m, &conf->exits[i]);
	exit_order_clear(&order);
	if (err) {
		exit_state_clear(&state);
		return err;
	}
	exit_state_sort(&state);
	*out = state;
	return 0;
}
