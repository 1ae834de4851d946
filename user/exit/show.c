/* SPDX-License-Identifier: BSD-2-Clause */
/* What the kernel has of each exit, asked of the kernel itself. */
#include <errno.h>

#include "base/clock.h"
#include "exit/discovery.h"
#include "exit/internal.h"
#include "exit/learn.h"
#include "exit/tunnel.h"

/* Is every route there that leads the exit's sources of a family to its link? */
static bool routes_there(const struct exit_state *want,
			 const struct exit_state *have, int link,
			 sa_family_t family)
{
	for (size_t i = 0; want && i < want->route_count; i++)
		if (want->routes[i].link == link &&
		    want->routes[i].to.family == family &&
		    !exit_route_there(have, &want->routes[i]))
			return false;
	return link != 0;
}

static bool family_lost(const struct conf_exit *exit,
			const struct exit_host *host,
			const struct exit_state *want,
			const struct exit_state *have, sa_family_t family)
{
	bool has = false;

	for (size_t i = 0; i < exit->prefix_count; i++)
		has |= exit->prefixes[i].family == family;
	return has &&
	       !routes_there(want, have, exit_link_index(host, exit, family),
			     family);
}

/* Is there a prefix of which no host route says that the exit is there? */
static bool prefix_dead(const struct exit_host *host,
			const struct conf_exit *exit)
{
	for (size_t i = 0; i < exit->prefix_count; i++)
		if (exit_dead(host, exit, &exit->prefixes[i]))
			return true;
	return false;
}

/* Of several prefixes the one that takes longest. */
static const char *loss_name(const struct conf_exit *exit,
			     const struct health *health, uint64_t *held_ms)
{
	const char *name = NULL;
	uint64_t now = clock_ms();

	for (size_t i = 0; i < exit->prefix_count; i++) {
		uint64_t held = 0;
		const char *why = health_why(health, exit, &exit->prefixes[i],
					     now, &held);

		if (!why || (name && held < *held_ms))
			continue;
		name = why;
		*held_ms = held;
	}
	return name;
}

const char *exit_state_name(const struct conf_exit *exit,
			    const struct exit_host *host,
			    const struct exit_state *want,
			    const struct exit_state *have, uint64_t *held_ms)
{
	const struct exit_link *link = exit_link_find(host, exit);
	const char *loss = loss_name(exit, host->health, held_ms);

	if (exit->link && !link)
		return "missing";
	if (link && !link->up)
		return "down";
	if (loss)
		return loss;
	if (family_lost(exit, host, want, have, AF_INET) ||
	    family_lost(exit, host, want, have, AF_INET6))
		return "lost";
	return prefix_dead(host, exit) ? "dead" : "up";
}

/* How the table of a source is found, IPv4's way before that of IPv6. */
static const char *method_name(const struct exit_order *order)
{
	static const char *const names[2][2][2] = {
		{ { "rules, subtrees", "rules, map" },
		  { "map, subtrees", "map" } },
		{ { "rules", "map" }, { "subtrees", "map" } },
	};
	bool has[2] = { false, false };
	bool mapped[2] = { exit_mapped(order, AF_INET),
			   exit_mapped(order, AF_INET6) };

	for (size_t i = 0; i < order->source_count; i++)
		has[order->sources[i].prefix.family == AF_INET6] = true;
	if (has[0] && has[1])
		return names[0][mapped[0]][mapped[1]];
	return names[1][has[1]][mapped[has[1]]];
}

int exit_counts_read(struct nft *nft, size_t exit, struct exit_counts *out,
		     bool *guarded)
{
	struct exit_counts counts = { 0 };
	int err = guard_counters(nft, exit, &counts.packets, &counts.rejects);
	bool has = !err;

	if (!err || err == -ENOENT)
		err = steer_counter(nft, exit, &counts.dead);
	if (err && err != -ENOENT)
		return err;
	*out = counts;
	if (guarded)
		*guarded = has;
	return 0;
}

/* Where a helper runs, counters are of its configuration, not of the file as it is now. */
static int row_count(struct nft *nft, size_t index,
		     const struct exit_notice *told, struct exit_row *row)
{
	const struct exit_history *old = history_find(told, row->exit->name);
	struct exit_history sum = { .packets = 0 };
	struct exit_counts now;
	int err;

	if (!old && told && told->exit_count)
		return 0;
	err = exit_counts_read(nft, old ? old->index : index, &now,
			       &row->guarded);
	if (err)
		return err;
	if (old)
		sum = *old;
	history_add(&sum, &now);
	row->packets = sum.packets;
	row->rejects = sum.rejects;
	return 0;
}

static int rows_tell(const struct conf *conf, const struct exit_notice *told,
		     struct nft *nft, const struct exit_order *order,
		     const struct exit_host *host,
		     const struct exit_state *want,
		     const struct exit_state *have,
		     void (*fn)(void *arg, const struct exit_row *row),
		     void *arg)
{
	for (size_t i = 0; i < conf->exit_count; i++) {
		struct exit_row row = { .exit = &conf->exits[i] };
		int err;

		if (!exit_leads(row.exit))
			continue;
		row.by = method_name(order);
		row.state = exit_state_name(row.exit, host, want, have,
					    &row.held_ms);
		err = row_count(nft, i, told, &row);
		if (err)
			return err;
		fn(arg, &row);
	}
	return 0;
}

int exit_each(const struct conf *conf, const struct exit_notice *told,
	      void (*fn)(void *arg, const struct exit_row *row), void *arg)
{
	struct exit_state want = { 0 }, have = { 0 };
	struct exit_host host = { 0 };
	struct exit_order order = { 0 };
	struct health *health = NULL;
	struct nft *nft = NULL;
	struct rtnl *rtnl = NULL;
	int err = rtnl_open(&rtnl);

	if (!err)
		err = nft_open(&nft);
	if (!err)
		err = exit_health(conf, rtnl, told ? &told->losses : NULL,
				  &health);
	if (!err)
		err = rtnl_host(rtnl, conf, &host);
	host.health = health;
	if (!err)
		err = exit_want(conf, &host, &want);
	if (!err)
		err = rtnl_state(rtnl, &have);
	if (!err)
		err = exit_order_make(conf, &order);
	if (!err)
		err = rows_tell(conf, told, nft, &order, &host, &want, &have,
				fn, arg);
	exit_state_clear(&want);
	exit_state_clear(&have);
	exit_host_clear(&host);
	exit_order_clear(&order);
	nft_close(nft);
	rtnl_close(rtnl);
	health_free(health);
	return err;
}

int exit_tunnels_read(struct nft *nft, struct exit_tunnels *out)
{
	struct exit_tunnels tunnels = { 0 };
	const struct {
		const char *name;
		uint64_t *value;
	} counters[] = {
		{ TUNNEL_REFUSED, &tunnels.refused },
		{ DISCOVERY_TOLD, &tunnels.told },
		{ LEARN_HEARD, &tunnels.heard },
		{ LEARN_FORGED, &tunnels.forged },
	};
	int err = 0;

	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]) && !err;
	     i++)
		err = nft_counter_read(nft, EXIT_NFTABLE, counters[i].name,
				       counters[i].value);
	if (err && err != -ENOENT)
		return err;
	*out = tunnels;
	return 0;
}

int exit_tunnels(struct exit_tunnels *out)
{
	struct nft *nft = NULL;
	int err = nft_open(&nft);

	if (!err)
		err = exit_tunnels_read(nft, out);
	nft_close(nft);
	return err;
}

int exit_learnt_each(void (*fn)(void *arg, const struct exit_learnt *learnt),
		     void *arg)
{
	struct exit_state state = { 0 };
	struct rtnl *rtnl = NULL;
	int err = rtnl_open(&rtnl);

	if (!err)
		err = rtnl_learnt(rtnl, &state);
	for (size_t i = 0; i < state.route_count; i++) {
		const struct exit_route *route = &state.routes[i];
		struct exit_learnt learnt = { .anycast = route->remote,
					      .expires_s = route->expires_s };

		addr_from_bytes(&learnt.from, AF_INET6, route->from.bytes, 0);
		addr_from_bytes(&learnt.to, AF_INET6, route->to.bytes, 0);
		fn(arg, &learnt);
	}
	exit_state_clear(&state);
	rtnl_close(rtnl);
	return err;
}
