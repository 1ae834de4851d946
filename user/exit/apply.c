/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Brings rules and routes from what they are to what is wanted.
 *
 * First everything that is missing, routes before the rules that lead to them, then
 * away with what is too much, rules first and the last first: a source that has an exit
 * before and after is never without one. Between the two nftables is told (steer.c), for
 * a source may have its exit by a route before and by a map after, or the reverse. While
 * nftables has not been told, what is too much stays if nothing that is wanted has its
 * place. Done anew after every change that somebody else makes; a second time in a row
 * there is nothing to do.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "exit/internal.h"
#include "exit/tunnel.h"

struct applying {
	struct rtnl *rtnl;
	const struct exit_state *want, *have;
	struct exit_change *change;
	bool there; /* what is told of shall be there */
	bool untold; /* nftables knows nothing of it yet */
};

void exit_change_note(struct exit_change *change, bool there, const char *what,
		      int err)
{
	change->count++;
	if (change->out)
		fprintf(change->out, "%c %s\n", there ? '+' : '-', what);
	/* One of them is enough: there may be thousands. */
	if (!err || change->error)
		return;
	change->error = err;
	if (change->failed) {
		snprintf(change->failed, EXIT_TEXT, "%s", what);
		return;
	}
	log_error(ROOM, "event=exit_change_failed %s=\"%s\" error=\"%s\"",
		  there ? "add" : "remove", what, strerror(-err));
}

/* Is one wanted for the same packets? */
static bool rule_followed(const struct exit_state *want,
			  const struct exit_rule *rule)
{
	for (size_t i = 0; i < want->rule_count; i++) {
		const struct exit_rule *other = &want->rules[i];

		if (other->priority == rule->priority &&
		    other->mark == rule->mark &&
		    !prefix_compare(&other->from, &rule->from) &&
		    !prefix_compare(&other->to, &rule->to))
			return true;
	}
	return false;
}

/* Is any wanted for its sources in its table? Only those of exits lead a source. */
static bool route_followed(const struct exit_state *want,
			   const struct exit_route *route)
{
	if (route->table < EXIT_TABLE)
		return true;
	for (size_t i = 0; i < want->route_count; i++)
		if (want->routes[i].table == route->table &&
		    !prefix_compare(&want->routes[i].from, &route->from))
			return true;
	return false;
}

static void rule_differs(void *arg, const struct exit_rule *rule)
{
	const struct applying *applying = arg;
	char text[EXIT_TEXT];
	int err = 0;

	if (applying->untold && !rule_followed(applying->want, rule))
		return;
	if (!applying->change->dry)
		err = rtnl_rule(applying->rtnl, rule, applying->there);
	exit_rule_format(rule, text);
	exit_change_note(applying->change, applying->there, text, err);
}

/*
 * IPv6 takes a route away whatever its tunnel and its metrics: the one that has its place
 * would go.
 */
static bool route_replaced(const struct exit_state *want,
			   const struct exit_route *route)
{
	if (route->to.family == AF_INET6 && exit_route_like(want, route))
		return true;
	if (addr_family(&route->remote) == AF_UNSPEC)
		return false;
	for (size_t i = 0; i < want->route_count; i++) {
		const struct exit_route *other = &want->routes[i];

		if (other->table == route->table &&
		    other->metric == route->metric &&
		    !prefix_compare(&other->to, &route->to) &&
		    !prefix_compare(&other->from, &route->from))
			return true;
	}
	return false;
}

/*
 * Nor does IPv6 add a route on a link where there is one with other metrics, and none of
 * another link is to be replaced: that one goes first. Meanwhile a third leads there, for
 * by none packets within the site would take their source's exit.
 */
static int route_put(const struct applying *applying,
		     const struct exit_route *route)
{
	const struct exit_route *old = exit_route_like(applying->have, route);
	struct exit_route third = *route;
	int err;

	if (!old || route->to.family != AF_INET6 || !route->link ||
	    addr_family(&route->gateway) != AF_UNSPEC ||
	    addr_family(&route->remote) != AF_UNSPEC)
		return rtnl_route(applying->rtnl, route, true);
	third.metric = METRIC_MEANWHILE;
	err = rtnl_route(applying->rtnl, &third, true);
	if (!err)
		err = rtnl_route(applying->rtnl, old, false);
	if (!err)
		err = rtnl_route(applying->rtnl, route, true);
	/* Else it stays until all is well: it is too much then. */
	if (!err)
		err = rtnl_route(applying->rtnl, &third, false);
	return err;
}

static void route_differs(void *arg, const struct exit_route *route)
{
	const struct applying *applying = arg;
	const bool dry = applying->change->dry;
	char text[EXIT_TEXT];
	int err = 0;

	if (applying->untold && !route_followed(applying->want, route))
		return;
	if (!dry && applying->there)
		err = route_put(applying, route);
	else if (!dry && !route_replaced(applying->want, route))
		err = rtnl_route(applying->rtnl, route, false);
	/* The link has gone down meanwhile: we are about to hear of it. */
	if (err == -ENETDOWN || err == -ENODEV)
		err = 0;
	exit_route_format(route, text);
	exit_change_note(applying->change, applying->there, text, err);
}

static void rule_pass(void *arg, const struct exit_rule *rule)
{
	(void)arg;
	(void)rule;
}

static void route_pass(void *arg, const struct exit_route *route)
{
	(void)arg;
	(void)route;
}

/* A link that somebody has put into a group stays there. */
static void groups_apply(const struct applying *applying,
			 const struct conf *conf, const struct exit_host *host)
{
	for (size_t i = 0; i < host->link_count; i++) {
		const struct exit_link *link = &host->links[i];
		bool wanted = conf && exit_link_is(conf, link->name);
		uint32_t group = wanted ? EXIT_GROUP : 0;
		char text[80];
		int err = 0;

		if (wanted ? link->group != 0 : link->group != EXIT_GROUP)
			continue;
		if (!applying->change->dry)
			err = rtnl_group(applying->rtnl, link, group);
		snprintf(text, sizeof(text), "ip link set %s group %u",
			 link->name, EXIT_GROUP);
		exit_change_note(applying->change, wanted, text, err);
	}
}

int exit_apply_new(struct rtnl *rtnl, const struct conf *conf,
		   struct exit_host *host, struct exit_difference *out,
		   struct exit_change *change)
{
	struct applying applying = { .rtnl = rtnl,
				     .change = change,
				     .there = true };
	const struct exit_differ routes = { rule_pass, route_differs,
					    &applying };
	const struct exit_differ rules = { rule_differs, route_pass,
					   &applying };
	struct exit_difference difference = { 0 };
	int err = tunnel_make(rtnl, conf, host, change);

	if (!err && conf)
		err = exit_want(conf, host, &difference.want);
	if (!err)
		err = rtnl_state(rtnl, &difference.have);
	if (err) {
		exit_state_clear(&difference.want);
		return err;
	}
	groups_apply(&applying, conf, host);
	applying.want = &difference.want;
	applying.have = &difference.have;
	exit_state_missing(&difference.want, &difference.have, &routes);
	exit_state_missing(&difference.want, &difference.have, &rules);
	*out = difference;
	return 0;
}

int exit_apply_old(struct rtnl *rtnl, const struct conf *conf,
		   struct exit_host *host, struct exit_difference *difference,
		   bool told, struct exit_change *change)
{
	struct applying applying = { .rtnl = rtnl,
				     .change = change,
				     .want = &difference->want,
				     .untold = !told };
	const struct exit_differ both = { rule_differs, route_differs,
					  &applying };
	int err;

	exit_state_surplus(&difference->want, &difference->have, &both);
	err = tunnel_addresses(rtnl, conf, host, &difference->want, change);
	if (told)
		tunnel_unmake(rtnl, conf, host, change);
	exit_state_clear(&difference->want);
	exit_state_clear(&difference->have);
	return err ? err : change->error;
}
