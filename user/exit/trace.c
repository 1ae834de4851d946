/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which way a packet takes, in the kernel's own words: it is asked for the route, as
 * for a packet of this host or, when the source is another's, for one that arrives by
 * the link that leads there, with the mark that nftables puts on it. Where none does,
 * by any of the site: such a packet is routed all the same, unless IPv4 validates its
 * source.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "exit/internal.h"
#include "exit/tunnel.h"

static void source_tell(const struct conf *conf, struct exit_trace *out)
{
	int longest = -1;

	out->exit = conf_exit_of(conf, &out->from);
	for (size_t i = 0; out->exit && i < out->exit->prefix_count; i++) {
		const struct prefix *prefix = &out->exit->prefixes[i];

		if (prefix->bits <= longest ||
		    !prefix_contains(prefix, &out->from))
			continue;
		longest = prefix->bits;
		out->prefix = *prefix;
	}
}

/* By the link that the route has; of several exits on it one is enough. */
static void guard_tell(const struct conf *conf, struct exit_trace *out)
{
	bool passes = false;

	for (size_t i = 0; i < conf->exit_count; i++) {
		const struct conf_exit *exit = &conf->exits[i];

		if (!exit->link || strcmp(exit->link, out->device) != 0)
			continue;
		out->guard = exit;
		passes |= conf_exit_lets(exit, &out->from);
	}
	out->rejected = out->guard && !passes;
}

/* Some link by which packets of the site may come. */
static int site_link(const struct conf *conf, const struct exit_host *host)
{
	for (size_t i = 0; i < host->link_count; i++) {
		const struct exit_link *link = &host->links[i];

		if (link->up && link->index != LOOPBACK &&
		    strcmp(link->name, EXIT_TUNNEL) != 0 &&
		    !exit_link_is(conf, link->name))
			return link->index;
	}
	return LOOPBACK;
}

/* No route, and routes that say so: unreachable, prohibit, blackhole. */
static bool no_way(int err)
{
	return err == -EHOSTUNREACH || err == -ENETUNREACH || err == -EACCES ||
	       err == -EINVAL;
}

/* link, mark 0: of a packet of this host. */
static int way_find(struct rtnl *rtnl, int link, uint32_t mark,
		    struct exit_trace *out, struct rtnl_way *way)
{
	struct rtnl_way other;
	int err = rtnl_find(rtnl, &out->from, &out->to, link, mark, way);

	/* A blackhole has the same error, but without a source, too. */
	out->dropped = err == -EINVAL && out->no_way_back &&
		       rtnl_find(rtnl, NULL, &out->to, 0, mark, &other) !=
			       -EINVAL;
	out->unreachable = no_way(err) && !out->dropped;
	return no_way(err) ? 0 : err;
}

/* What the helper makes of this host, and of the exit that the source belongs to. */
static int state_tell(struct rtnl *rtnl, const struct conf *conf,
		      const struct exit_losses *losses, struct exit_trace *out,
		      uint32_t *mark, int *link)
{
	struct exit_host host = { .health = NULL };
	struct health *health = NULL;
	int err = rtnl_host(rtnl, conf, &host);

	if (!err)
		err = exit_health(conf, rtnl, losses, &health);
	host.health = health;
	*link = site_link(conf, &host);
	if (!err)
		err = steer_mark(conf, &host, &out->from, mark);
	if (!err && out->exit && exit_leads(out->exit))
		out->dead = exit_dead(&host, out->exit, &out->prefix);
	if (out->dead)
		out->why = health_why(health, out->exit, &out->prefix,
				      clock_ms(), &out->held_ms);
	exit_host_clear(&host);
	health_free(health);
	return err;
}

/* The device of all tunnels does not say where to. */
static void tunnel_tell(struct exit_trace *out)
{
	if (strcmp(out->device, EXIT_TUNNEL) != 0 || !out->exit ||
	    !tunnel_anycast(out->exit, &out->prefix, &out->anycast))
		out->anycast = (union addr){ .sa = { .sa_family = AF_UNSPEC } };
}

int exit_trace(const struct conf *conf, const struct exit_losses *losses,
	       const union addr *from, const union addr *to,
	       struct exit_trace *out)
{
	struct exit_trace trace = { .from = *from, .to = *to };
	struct rtnl *rtnl = NULL;
	struct rtnl_way back = { .link = 0 }, way = { .link = 0 };
	uint32_t mark = 0;
	int link = 0, err;

	if (addr_family(from) != addr_family(to))
		return -EAFNOSUPPORT;
	source_tell(conf, &trace);
	err = rtnl_open(&rtnl);
	if (!err)
		err = rtnl_find(rtnl, NULL, from, 0, 0, &back);
	trace.no_way_back = no_way(err);
	if (!err || trace.no_way_back)
		err = state_tell(rtnl, conf, losses, &trace, &mark, &link);
	if (!trace.no_way_back)
		link = back.link;
	/* This host's own are routed before nftables mark them. */
	if (!err)
		err = way_find(rtnl, back.local ? 0 : link,
			       back.local ? 0 : mark, &trace, &way);
	rtnl_close(rtnl);
	if (err)
		return err;
	trace.table = way.table;
	trace.gateway = way.gateway;
	if (way.link && if_indextoname((unsigned int)way.link, trace.device))
		guard_tell(conf, &trace);
	tunnel_tell(&trace);
	*out = trace;
	return 0;
}
