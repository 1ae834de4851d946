/* SPDX-License-Identifier: BSD-2-Clause */
/* Which exits are reached by tunnels, and where these end; pure functions. */
#include "exit/tunnel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "exit/learn.h"

bool tunnel_leads(const struct conf_exit *exit)
{
	return !exit->link && !exit->next_hop_count && exit->tunnel_peer_count;
}

bool tunnel_wanted(const struct conf *conf)
{
	for (size_t i = 0; i < conf->exit_count; i++)
		if (conf->exits[i].tunnel_peer_count)
			return true;
	return learn_wanted(conf);
}

enum conf_tunnel tunnel_kind(const struct conf *conf)
{
	for (size_t i = 0; i < conf->exit_count; i++)
		if (conf->exits[i].tunnel_peer_count || conf->exits[i].discover)
			return conf->exits[i].tunnel;
	return CONF_TUNNEL_GPE;
}

bool tunnel_anycast(const struct conf_exit *exit, const struct prefix *prefix,
		    union addr *out)
{
	const struct prefix none = { .family = AF_INET6 };
	const struct prefix *of = prefix->family == AF_INET6 ? prefix : NULL;

	for (size_t i = 0; i < exit->prefix_count && !of; i++)
		if (exit->prefixes[i].family == AF_INET6)
			of = &exit->prefixes[i];
	for (size_t i = 0; i < exit->anycast_count && !of; i++)
		if (addr_family(&exit->anycast[i]) == AF_INET6)
			of = &none;
	return of && exit_anycast(exit, of, out);
}

/* Not by an exit's link: what is tunnelled stays within the site. */
static bool within(const struct conf *conf, const struct exit_host *host,
		   int index)
{
	for (size_t i = 0; i < host->link_count; i++)
		if (host->links[i].index == index)
			return host->links[i].up &&
			       !exit_link_is(conf, host->links[i].name);
	return false;
}

/*
 * The link by which main leads there, without its default route. A look-up would
 * find our own copy of a route that has just gone.
 */
static int way_link(const struct conf *conf, const struct exit_host *host,
		    const union addr *addr)
{
	const struct exit_way *best = NULL;

	for (size_t i = 0; i < host->way_count; i++) {
		const struct exit_way *way = &host->ways[i];

		if (!prefix_contains(&way->to, addr) ||
		    (best && best->to.bits > way->to.bits) ||
		    (best && best->to.bits == way->to.bits &&
		     best->metric <= way->metric))
			continue;
		best = way;
	}
	return best && within(conf, host, best->link) ? best->link : 0;
}

static int end_compare(const void *left, const void *right)
{
	const struct exit_end *a = left, *b = right;

	return addr_compare_host(&a->addr, &b->addr);
}

static int end_look(const struct conf *conf, struct exit_host *host,
		    const union addr *addr)
{
	struct exit_end *end;

	/* One address may stand for all prefixes of an exit. */
	if (host->end_count &&
	    addr_same_host(&host->ends[host->end_count - 1].addr, addr))
		return 0;
	end = exit_array_add((void **)&host->ends, &host->end_count,
			     sizeof(*end));
	if (!end)
		return -ENOMEM;
	end->addr = *addr;
	end->link = way_link(conf, host, addr);
	return 0;
}

int tunnel_ends(const struct conf *conf, struct exit_host *host)
{
	union addr addr;
	int err = 0;

	for (size_t i = 0; i < conf->exit_count; i++) {
		const struct conf_exit *exit = &conf->exits[i];

		for (size_t k = 0; k < exit->prefix_count && !err; k++)
			if (tunnel_leads(exit) &&
			    tunnel_anycast(exit, &exit->prefixes[k], &addr))
				err = end_look(conf, host, &addr);
	}
	if (host->end_count)
		qsort(host->ends, host->end_count, sizeof(host->ends[0]),
		      end_compare);
	return err;
}

const struct exit_end *tunnel_end(const struct exit_host *host,
				  const struct conf_exit *exit,
				  const struct prefix *prefix)
{
	const struct exit_end *end;
	struct exit_end key = { .link = 0 };

	if (!host->end_count || !tunnel_anycast(exit, prefix, &key.addr))
		return NULL;
	end = bsearch(&key, host->ends, host->end_count, sizeof(key),
		      end_compare);
	return end && end->link ? end : NULL;
}

void tunnel_encap(const struct exit_host *host, const struct conf_exit *exit,
		  const struct prefix *prefix, struct exit_route *route)
{
	const struct exit_end *end = tunnel_end(host, exit, prefix);

	if (!end)
		return;
	route->remote = end->addr;
	route->source = host->tunnel_source;
}

int tunnel_link(const struct exit_host *host, const struct conf_exit *exit,
		sa_family_t family)
{
	for (size_t i = 0; i < exit->prefix_count; i++) {
		const struct prefix *prefix = &exit->prefixes[i];

		if (prefix->family == family && tunnel_end(host, exit, prefix))
			return host->tunnel;
	}
	return 0;
}

int tunnel_sources(const struct conf *conf, struct addr_range **out,
		   size_t *count)
{
	struct prefix *prefixes;
	size_t room = 1, used = 0, len;
	int err;

	for (size_t i = 0; i < conf->exit_count; i++)
		room += conf->exits[i].tunnel_peer_count +
			conf->exits[i].discovery_host_count;
	prefixes = calloc(room, sizeof(*prefixes));
	if (!prefixes)
		return -ENOMEM;
	for (size_t i = 0; i < conf->exit_count; i++) {
		const struct conf_exit *exit = &conf->exits[i];

		for (size_t k = 0; k < exit->tunnel_peer_count; k++) {
			struct prefix *prefix = &prefixes[used++];

			*prefix = (struct prefix){ AF_INET6, 128, { 0 } };
			memcpy(prefix->bytes,
			       addr_bytes(&exit->tunnel_peers[k], &len), 16);
		}
		for (size_t k = 0; k < exit->discovery_host_count; k++)
			prefixes[used++] = exit->discovery_hosts[k];
	}
	err = ranges_of_prefixes(prefixes, used, out, count);
	free(prefixes);
	return err;
}
