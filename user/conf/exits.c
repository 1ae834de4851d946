/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Exits: what concerns more than one of their keys, and whose an address is.
 *
 * The prefixes of all exits lie in one array, by family, then the longer first,
 * then by their bits: a look-up searches each length that there is, the longest
 * first. It is built once and never changes.
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/syscalls.h"
#include "conf/parser.h"

/* if_nametoindex() */
SYSCALLS_SOCKET(SYSCALLS_SUPERVISOR, AF_UNIX, 0);
SYSCALLS(SYSCALLS_SUPERVISOR, "ioctl close");

struct source {
	struct prefix prefix;
	const struct section *section; /* while the text is parsed */
	size_t exit; /* index in conf->exits */
};

struct conf_sources {
	size_t count;
	struct source all[];
};

static int source_compare(const void *left, const void *right)
{
	const struct source *a = left, *b = right;
	int order = prefix_compare(&a->prefix, &b->prefix);

	/* The one that stands later in the file is to blame. */
	return order ? order : (a->exit > b->exit) - (a->exit < b->exit);
}

static void sources_collect(struct parser *p, struct conf_sources *sources)
{
	struct section *s = NULL;

	while ((s = conf_section_next(p, s, SECTION_EXIT)) != NULL) {
		const struct conf_exit *exit = &p->conf->exits[s->index];

		for (size_t i = 0; i < exit->prefix_count; i++)
			sources->all[sources->count++] = (struct source){
				.prefix = exit->prefixes[i],
				.section = s,
				.exit = s->index,
			};
	}
	qsort(sources->all, sources->count, sizeof(sources->all[0]),
	      source_compare);
}

static void sources_check(struct parser *p, const struct conf_sources *sources)
{
	char label[CONF_LABEL_MAX], text[ADDR_STRLEN];

	for (size_t i = 1; i < sources->count; i++) {
		const struct source *first = &sources->all[i - 1];
		const struct source *second = &sources->all[i];

		if (prefix_compare(&first->prefix, &second->prefix) != 0)
			continue;
		conf_error(p, conf_key_line(second->section, "prefix"),
			   "%s prefix: found %s, which [exit %s] has, too; "
			   "allowed: each prefix once",
			   conf_label(SECTION_EXIT, second->section, label),
			   prefix_format(&second->prefix, text),
			   p->conf->exits[first->exit].name);
	}
}

static void sources_make(struct parser *p)
{
	struct conf *conf = p->conf;
	struct conf_sources *sources;
	size_t count = 0;

	for (size_t i = 0; i < conf->exit_count; i++)
		count += conf->exits[i].prefix_count;
	sources = calloc(1, sizeof(*sources) + count * sizeof(struct source));
	if (!sources) {
		conf_no_memory(p);
		return;
	}
	sources_collect(p, sources);
	sources_check(p, sources);
	for (size_t i = 0; i < sources->count; i++)
		sources->all[i].section = NULL;
	conf->sources = sources;
}

/* How many sources from `start` on have the length of the first. */
static size_t length_run(const struct conf_sources *sources, size_t start)
{
	const struct prefix *first = &sources->all[start].prefix;
	size_t low = start, high = sources->count;

	while (low + 1 < high) {
		size_t middle = low + (high - low) / 2;
		const struct prefix *at = &sources->all[middle].prefix;

		if (at->family == first->family && at->bits == first->bits)
			low = middle;
		else
			high = middle;
	}
	return low + 1 - start;
}

static const struct source *run_search(const struct source *run, size_t count,
				       const union addr *addr)
{
	size_t len, low = 0;
	const uint8_t *bytes = addr_bytes(addr, &len);

	if (!bytes || addr_family(addr) != run->prefix.family)
		return NULL;
	/* The last that does not lie behind the address. */
	while (count > 1) {
		size_t half = count / 2;

		if (memcmp(run[low + half].prefix.bytes, bytes, len) <= 0)
			low += half;
		count -= half;
	}
	return prefix_contains(&run[low].prefix, addr) ? &run[low] : NULL;
}

const struct conf_exit *conf_exit_of(const struct conf *conf,
				     const union addr *addr)
{
	const struct conf_sources *sources = conf->sources;
	size_t run = 0;

	for (size_t i = 0; sources && i < sources->count; i += run) {
		const struct source *found;

		run = length_run(sources, i);
		found = run_search(&sources->all[i], run, addr);
		if (found)
			return &conf->exits[found->exit];
	}
	return NULL;
}

bool conf_exit_lets(const struct conf_exit *exit, const union addr *source)
{
	for (size_t i = 0; i < exit->prefix_count; i++)
		if (prefix_contains(&exit->prefixes[i], source))
			return true;
	for (size_t i = 0; i < exit->authorised_count; i++)
		if (prefix_contains(&exit->authorised[i], source))
			return true;
	return exit->unchecked;
}

/* One of each family: the first that is one too many, or NULL. */
static const union addr *family_twice(const union addr *list, size_t count)
{
	for (size_t i = 1; i < count; i++)
		for (size_t k = 0; k < i; k++)
			if (addr_family(&list[i]) == addr_family(&list[k]))
				return &list[i];
	return NULL;
}

static bool family_has(const struct conf_exit *exit, sa_family_t family)
{
	for (size_t i = 0; i < exit->prefix_count; i++)
		if (exit->prefixes[i].family == family)
			return true;
	for (size_t i = 0; i < exit->authorised_count; i++)
		if (exit->authorised[i].family == family)
			return true;
	return exit->unchecked;
}

/* `list` is the value of a key with one address of each family. */
static void families_check(struct parser *p, const struct section *s,
			   const char *key, const union addr *list,
			   size_t count)
{
	const struct conf_exit *exit = &p->conf->exits[s->index];
	const union addr *twice = family_twice(list, count);
	char label[CONF_LABEL_MAX], text[ADDR_STRLEN];

	conf_label(s->kind, s, label);
	if (twice)
		conf_error(p, conf_key_line(s, key),
			   "%s %s: found %s, the second address of its family; "
			   "allowed: one of IPv4 and one of IPv6",
			   label, key, addr_format_host(twice, text));
	for (size_t i = 0; i < count; i++)
		/* Packets of IPv4 may be tunnelled to it. */
		if (!family_has(exit, addr_family(&list[i])) &&
		    !(exit->tunnel_peer_count && !strcmp(key, "anycast")))
			conf_error(p, conf_key_line(s, key),
				   "%s %s: found %s, but no prefix of its "
				   "family; allowed: with such a prefix",
				   label, key,
				   addr_format_host(&list[i], text));
}

/* Without a link the kernel would not know which one is meant. */
static void hops_check(struct parser *p, const struct section *s,
		       const struct conf_exit *exit)
{
	const struct prefix link_local = { AF_INET6, 10, { 0xfe, 0x80 } };
	char label[CONF_LABEL_MAX], text[ADDR_STRLEN];

	for (size_t i = 0; i < exit->next_hop_count; i++) {
		const union addr *hop = &exit->next_hops[i];

		if (!exit->link && !conf_key_refused(s, "link") &&
		    prefix_contains(&link_local, hop))
			conf_error(p, conf_key_line(s, "next_hop"),
				   "%s next_hop: found %s, a link-local "
				   "address, without link; allowed: with it",
				   conf_label(s->kind, s, label),
				   addr_format_host(hop, text));
	}
}

/* With health = anycast there must be an address to look for. */
static void health_check(struct parser *p, const struct section *s,
			 const struct conf_exit *exit)
{
	char label[CONF_LABEL_MAX];
	bool has = exit->anycast_count != 0;

	for (size_t i = 0; i < exit->prefix_count; i++)
		has |= exit->prefixes[i].family == AF_INET6;
	if (exit->health == CONF_HEALTH_ANYCAST && !has)
		conf_error(p, conf_key_line(s, "health"),
			   "%s health: found anycast, but neither anycast nor "
			   "a prefix of IPv6; allowed: with one of them",
			   conf_label(s->kind, s, label));
	if (exit->health != CONF_HEALTH_PROBE)
		return;
	if (exit->unchecked)
		conf_error(p, conf_key_line(s, "health"),
			   "%s health: found probe with unchecked = yes, an "
			   "exit that any other may stand in for; allowed: "
			   "link or anycast",
			   conf_label(s->kind, s, label));
	if (!exit->tunnel_peer_count || (!exit->link && exit->next_hop_count))
		conf_error(p, conf_key_line(s, "health"),
			   "%s health: found probe, but no tunnel leads to it; "
			   "allowed: with tunnel_peer, and next_hop only with "
			   "link",
			   conf_label(s->kind, s, label));
}

/* What is tunnelled goes over IPv6, to an anycast address of IPv6. */
static void peers_check(struct parser *p, const struct section *s,
			const struct conf_exit *exit)
{
	char label[CONF_LABEL_MAX], text[ADDR_STRLEN];
	bool anycast = family_has(exit, AF_INET6);

	conf_label(s->kind, s, label);
	for (size_t i = 0; i < exit->tunnel_peer_count; i++)
		if (addr_family(&exit->tunnel_peers[i]) != AF_INET6)
			conf_error(p, conf_key_line(s, "tunnel_peer"),
				   "%s tunnel_peer: found %s; allowed: "
				   "addresses of IPv6, which tunnels go over",
				   label,
				   addr_format_host(&exit->tunnel_peers[i],
						    text));
	for (size_t i = 0; i < exit->discovery_host_count; i++)
		if (exit->discovery_hosts[i].family != AF_INET6)
			conf_error(
				p, conf_key_line(s, "discovery_host"),
				"%s discovery_host: found %s; allowed: "
				"addresses and prefixes of IPv6, which alone "
				"has an error for it",
				label,
				prefix_format(&exit->discovery_hosts[i], text));
	for (size_t i = 0; i < exit->anycast_count; i++)
		anycast |= addr_family(&exit->anycast[i]) == AF_INET6;
	if (exit->discover && !anycast && !conf_key_refused(s, "anycast"))
		conf_error(p, conf_key_line(s, "discover"),
			   "%s discover: found yes without a prefix of IPv6; "
			   "allowed: with one",
			   label);
	if (exit->tunnel_peer_count && !anycast &&
	    !conf_key_refused(s, "anycast"))
		conf_error(p, conf_key_line(s, "tunnel_peer"),
			   "%s tunnel_peer: found without a prefix of IPv6 "
			   "and without an anycast address of IPv6; allowed: "
			   "with one of them, which is tunnelled to",
			   label);
}

static void exit_check(struct parser *p, const struct section *s)
{
	struct conf_exit *exit = &p->conf->exits[s->index];
	char label[CONF_LABEL_MAX];

	exit->link_line = conf_key_line(s, "link");
	/* What was refused is reported, and the rest hangs together with it. */
	if (conf_key_refused(s, "prefix") || conf_key_refused(s, "authorised"))
		return;
	if (!exit->prefix_count && !exit->authorised_count &&
	    !exit->unchecked && !conf_key_refused(s, "unchecked"))
		conf_error(p, s->line,
			   "%s: found neither prefix, authorised nor unchecked "
			   "= yes; allowed: one of them at least",
			   conf_label(s->kind, s, label));
	hops_check(p, s, exit);
	families_check(p, s, "next_hop", exit->next_hops, exit->next_hop_count);
	families_check(p, s, "anycast", exit->anycast, exit->anycast_count);
	peers_check(p, s, exit);
	if (!conf_key_refused(s, "anycast"))
		health_check(p, s, exit);
}

/* There is one device for all tunnels. */
static void tunnels_check(struct parser *p)
{
	const struct conf_exit *first = NULL;
	struct section *s = NULL;
	char label[CONF_LABEL_MAX];

	while ((s = conf_section_next(p, s, SECTION_EXIT)) != NULL) {
		const struct conf_exit *exit = &p->conf->exits[s->index];

		if (!exit->tunnel_peer_count && !exit->discover)
			continue;
		if (!first)
			first = exit;
		if (exit->tunnel != first->tunnel)
			conf_error(p, s->line,
				   "%s tunnel: found another one than [exit "
				   "%s] has; allowed: one for all exits with "
				   "tunnels",
				   conf_label(s->kind, s, label), first->name);
	}
}

static int name_compare(const void *left, const void *right)
{
	const struct conf_exit *a = left, *b = right;

	return strcmp(a->name, b->name);
}

/*
 * By name: what the kernel is told of an exit has its index in it, and stays when
 * sections change places. What has errors, as two of a name, is not used.
 */
static void exits_sort(struct parser *p)
{
	struct conf_exit *exits = p->conf->exits;
	struct section *s = NULL;

	if (!p->conf->exit_count || p->errors || p->no_memory)
		return;
	qsort(exits, p->conf->exit_count, sizeof(*exits), name_compare);
	while ((s = conf_section_next(p, s, SECTION_EXIT)) != NULL) {
		const struct conf_exit named = { .name = s->name };
		const struct conf_exit *at =
			bsearch(&named, exits, p->conf->exit_count,
				sizeof(*exits), name_compare);

		s->index = (size_t)(at - exits);
	}
}

void conf_exits_check(struct parser *p)
{
	struct section *s = NULL;

	exits_sort(p);
	while ((s = conf_section_next(p, s, SECTION_EXIT)) != NULL)
		exit_check(p, s);
	tunnels_check(p);
	if (p->conf->exit_count)
		sources_make(p);
}

void conf_exits_look(const struct conf *conf, const char *file,
		     conf_report_fn report, void *arg)
{
	for (size_t i = 0; i < conf->exit_count; i++) {
		const struct conf_exit *exit = &conf->exits[i];
		char message[200];

		if (!exit->link || if_nametoindex(exit->link))
			continue;
		snprintf(message, sizeof(message),
			 "[exit %s] link: found \"%s\", a device that is not "
			 "there now",
			 exit->name, exit->link);
		report(arg, false, file, exit->link_line, message);
	}
}
