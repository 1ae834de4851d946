/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guards: a table of nftables that lets no source out by the link of an exit that
 * does not authorise it, whatever the routes say. Its host is told at once
 * (ICMPv6 type 1 code 5, source address failed ingress policy; ICMP type 3 code 13).
 *
 *   set links:      those of exits
 *   maps links_in, links_out:  LINK -> jump fN, LINK -> jump eN
 *   chain forward:  iifgroup not 0, iifname vmap links_in
 *                   oifname vmap links_out, or a rule for each of few links
 *   chain output:   ICMP redirects are dropped, when there is an exit of another
 *                   router: hosts would keep them by destination alone, whatever the
 *                   source
 *                   oifname as above
 *   chain fN, in by the link of exit N:
 *              out by another's, source of any exit            count, drop
 *              out by any other, source of any exit, destination of none, when there
 *              is an exit of another router                    count, drop
 *   chain eN, of the link of exit N and of those behind it with the same link:
 *              source of one of them               count, let pass
 *              link-local (IPv6) or none           let pass
 *              of nobody, an address of this link  count, let pass
 *              else                                count, reject
 *
 * A name costs a packet 30 ns to compare and 80 to look for, its link's group 15. An
 * exit's link is in a group: in EXIT_GROUP, where the helper has put it, or in one of
 * somebody else's choice, so what comes in by one of none is not looked at. That includes
 * a link made anew until the helper has seen it; what goes out by such a one is looked at.
 *
 * Sources are looked for by a hash first, where one length of prefixes prevails (sets.h).
 * What it has for tunnels is in tunnel_guard.c. A digest of all of this stands in the
 * table's comment, but not of the sources: they are sets, and change by elements.
 */
#include "exit/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "exit/discovery.h"
#include "exit/sets.h"
#include "exit/tunnel.h"

/* One more whenever this file makes other rules of the same configuration. */
#define RULES 10

#define ALL SIZE_MAX /* the set of every exit's sources */
/* Names of counters, by the exit's index. */
#define PACKETS "e%zu_packets"
#define REJECTS "e%zu_rejects"

#define LINKS     "links"
#define LINKS_IN  "links_in"
#define LINKS_OUT "links_out"

/* Links up to which a packet's is compared with each. */
#define LINKS_FEW 3

#define REDIRECT_V4 5 /* types of ICMP and ICMPv6 */
#define REDIRECT_V6 137

static void comment_make(const struct conf *conf, char out[NFT_COMMENT_MAX])
{
	uint64_t digest = EXIT_DIGEST;
	const uint8_t rules = RULES;
	const unsigned int bits[2] = { ranges_bits(conf, AF_INET),
				       ranges_bits(conf, AF_INET6) };

	digest = exit_digest(digest, &rules, sizeof(rules));
	digest = exit_digest(digest, bits, sizeof(bits));
	for (size_t i = 0; i < conf->exit_count; i++) {
		const struct conf_exit *exit = &conf->exits[i];
		const char *link = exit->link ? exit->link : "";

		bool hands = exit_hands(exit);

		digest = exit_digest(digest, link, strlen(link) + 1);
		digest = exit_digest(digest, &hands, sizeof(hands));
		digest = exit_digest(digest, &exit->unchecked,
				     sizeof(exit->unchecked));
		/* These alone are in sets that do not change by elements. */
		if (exit->discover)
			digest = exit_digest_prefixes(digest, exit->prefixes,
						      exit->prefix_count);
		digest = exit_digest(digest, &exit->tunnel,
				     sizeof(exit->tunnel));
		digest = exit_digest_addrs(digest, exit->tunnel_peers,
					   exit->tunnel_peer_count);
		digest = exit_digest_prefixes(digest, exit->discovery_hosts,
					      exit->discovery_host_count);
		digest = exit_digest(digest, &exit->discover,
				     sizeof(exit->discover));
	}
	snprintf(out, NFT_COMMENT_MAX, "exits of culvert, %016" PRIx64, digest);
}

static void set_name(char out[32], size_t exit, sa_family_t family)
{
	int version = family == AF_INET6 ? 6 : 4;

	if (exit == ALL)
		snprintf(out, 32, "all_%d", version);
	else
		snprintf(out, 32, "e%zu_%d", exit, version);
}

static int sources_want(struct range_sets *out, const struct conf *conf,
			size_t exit, sa_family_t family)
{
	struct range_set *set;
	char name[32];

	set_name(name, exit, family);
	/* What touches is one of all's: they are few, whatever their length. */
	set = sets_add(out, name, family,
		       exit == ALL ? 0 : ranges_bits(conf, family));
	return set ? ranges_of_exit(conf, exit, family, &set->ranges,
				    &set->count) :
		     -ENOMEM;
}

/* One for each exit that looks at sources, and that of all. */
static int sets_want(const struct conf *conf, struct range_sets *out)
{
	int err = sources_want(out, conf, ALL, AF_INET);

	if (!err)
		err = sources_want(out, conf, ALL, AF_INET6);
	for (size_t i = 0; i < conf->exit_count && !err; i++) {
		if (!conf->exits[i].link || conf->exits[i].unchecked)
			continue;
		err = sources_want(out, conf, i, AF_INET);
		if (!err)
			err = sources_want(out, conf, i, AF_INET6);
	}
	return err;
}

/* Are there exits of routers that packets are handed to? */
static bool hands(const struct conf *conf)
{
	for (size_t i = 0; i < conf->exit_count; i++)
		if (exit_hands(&conf->exits[i]))
			return true;
	return false;
}

/* bits > 0: only what is in the set beside that of the exit is looked for. */
static void source_match(struct nft_batch *batch, sa_family_t family,
			 size_t exit, unsigned int bits, bool inside)
{
	char name[32], set[BATCH_NAME];

	set_name(name, exit, family);
	sets_name(name, bits, set);
	batch_family(batch, family);
	batch_network(batch, family, bits);
	batch_lookup(batch, set, inside);
}

/* It is not for a source of any exit. */
static void beyond_match(struct nft_batch *batch, sa_family_t family)
{
	bool v6 = family == AF_INET6;
	char name[32];

	set_name(name, ALL, family);
	batch_payload(batch, NFT_PAYLOAD_NETWORK_HEADER, v6 ? 24 : 16,
		      v6 ? 16 : 4);
	batch_lookup(batch, name, false);
}

/* An address of this host on the device that the packet leaves by. */
static void own_match(struct nft_batch *batch)
{
	const uint32_t local = RTN_LOCAL;

	batch_fib(batch, NFTA_FIB_F_SADDR | NFTA_FIB_F_OIF,
		  NFT_FIB_RESULT_ADDRTYPE);
	batch_equal(batch, &local, sizeof(local));
}

static void count(struct nft_batch *batch, const char *format, size_t exit)
{
	char name[32];

	snprintf(name, sizeof(name), format, exit);
	batch_count(batch, name);
}

static void counter_put(struct nft_batch *batch, const char *format,
			size_t exit)
{
	char name[32];

	snprintf(name, sizeof(name), format, exit);
	batch_counter(batch, name);
}

/* Sources that begin like this mean the link, or nobody yet (RFC 4862, DHCP). */
static void prefix_pass(struct nft_batch *batch, const char *chain,
			sa_family_t family, const uint8_t *first,
			const uint8_t *bits, size_t len)
{
	batch_rule_begin(batch, chain);
	batch_family(batch, family);
	batch_source(batch, family, len);
	batch_mask(batch, bits, len);
	batch_equal(batch, first, len);
	batch_verdict(batch, NF_ACCEPT, NULL);
	batch_rule_end(batch);
}

static void special_rules(struct nft_batch *batch, const char *chain)
{
	static const uint8_t link6[] = { 0xfe, 0x80 }, bits6[] = { 0xff, 0xc0 };
	static const uint8_t none[16];
	static const uint8_t whole[16] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
					   0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
					   0xff, 0xff, 0xff, 0xff };

	prefix_pass(batch, chain, AF_INET6, link6, bits6, sizeof(link6));
	prefix_pass(batch, chain, AF_INET6, none, whole, 16);
	prefix_pass(batch, chain, AF_INET, none, whole, 4);
}

static void source_rule(struct nft_batch *batch, const char *chain, size_t exit,
			sa_family_t family, unsigned int bits)
{
	batch_rule_begin(batch, chain);
	source_match(batch, family, exit, bits, true);
	count(batch, PACKETS, exit);
	batch_verdict(batch, NF_ACCEPT, NULL);
	batch_rule_end(batch);
}

/* Hashes first: they have most of what is there, of either family. */
static void source_rules(struct nft_batch *batch, const struct conf *conf,
			 const char *chain, size_t exit)
{
	const unsigned int bits4 = ranges_bits(conf, AF_INET),
			   bits6 = ranges_bits(conf, AF_INET6);

	if (bits4)
		source_rule(batch, chain, exit, AF_INET, bits4);
	if (bits6)
		source_rule(batch, chain, exit, AF_INET6, bits6);
	source_rule(batch, chain, exit, AF_INET, 0);
	source_rule(batch, chain, exit, AF_INET6, 0);
}

/* What is of none of the link's exits. */
static void rest_rules(struct nft_batch *batch, const char *chain, size_t exit,
		       sa_family_t family)
{
	batch_rule_begin(batch, chain);
	source_match(batch, family, ALL, 0, false);
	own_match(batch);
	count(batch, PACKETS, exit);
	batch_verdict(batch, NF_ACCEPT, NULL);
	batch_rule_end(batch);
	batch_rule_begin(batch, chain);
	batch_family(batch, family);
	count(batch, REJECTS, exit);
	batch_reject(batch, family);
	batch_rule_end(batch);
}

static void forged_begin(struct nft_batch *batch, const char *chain,
			 const char *link)
{
	char name[IFNAMSIZ] = "";

	snprintf(name, sizeof(name), "%s", link);
	batch_rule_begin(batch, chain);
	batch_meta(batch, NFT_META_OIFNAME);
	batch_differs(batch, name, sizeof(name));
}

static void forged_end(struct nft_batch *batch, size_t exit)
{
	count(batch, REJECTS, exit);
	batch_verdict(batch, NF_DROP, NULL);
	batch_rule_end(batch);
}

/*
 * What a provider sends with a source of ours is forged: it does not go through us to
 * another one, by our link or by another router's. Routers on a wire that they share
 * send back by the same link.
 */
static void forged_rules(struct nft_batch *batch, const struct conf *conf,
			 const char *chain, size_t exit, sa_family_t family)
{
	const char *link = conf->exits[exit].link;

	forged_begin(batch, chain, link);
	batch_meta(batch, NFT_META_OIFNAME);
	batch_lookup(batch, LINKS, true);
	source_match(batch, family, ALL, 0, true);
	forged_end(batch, exit);
	if (!hands(conf))
		return;
	forged_begin(batch, chain, link);
	source_match(batch, family, ALL, 0, true);
	beyond_match(batch, family);
	forged_end(batch, exit);
}

static void redirect_rule(struct nft_batch *batch, sa_family_t family,
			  uint8_t protocol, uint8_t type)
{
	batch_rule_begin(batch, "output");
	batch_family(batch, family);
	batch_meta(batch, NFT_META_L4PROTO);
	batch_equal(batch, &protocol, sizeof(protocol));
	batch_payload(batch, NFT_PAYLOAD_TRANSPORT_HEADER, 0, sizeof(type));
	batch_equal(batch, &type, sizeof(type));
	batch_verdict(batch, NF_DROP, NULL);
	batch_rule_end(batch);
}

static void redirect_rules(struct nft_batch *batch, const struct conf *conf)
{
	if (!hands(conf))
		return;
	redirect_rule(batch, AF_INET, IPPROTO_ICMP, REDIRECT_V4);
	redirect_rule(batch, AF_INET6, IPPROTO_ICMPV6, REDIRECT_V6);
}

/* Is the exit's link that of `first`, which has one? */
static bool shares(const struct conf *conf, size_t first, size_t index)
{
	const char *link = conf->exits[index].link;

	return link && !strcmp(link, conf->exits[first].link);
}

/* Is it the first exit of its link? */
static bool is_first(const struct conf *conf, size_t index)
{
	for (size_t i = 0; i < index; i++)
		if (conf->exits[i].link && shares(conf, i, index))
			return false;
	return conf->exits[index].link != NULL;
}

static bool links_few(const struct conf *conf)
{
	size_t links = 0;

	for (size_t i = 0; i < conf->exit_count; i++)
		links += is_first(conf, i);
	return links <= LINKS_FEW;
}

/* The chain of a link, of which this is the first exit. */
static void link_put(struct nft_batch *batch, const struct conf *conf,
		     size_t first)
{
	const char *link = conf->exits[first].link;
	size_t open = ALL;
	char chain[32];

	snprintf(chain, sizeof(chain), "e%zu", first);
	batch_chain(batch, chain);
	for (size_t i = first; i < conf->exit_count; i++) {
		if (!shares(conf, first, i))
			continue;
		counter_put(batch, PACKETS, i);
		counter_put(batch, REJECTS, i);
		if (conf->exits[i].unchecked) {
			open = i;
			continue;
		}
		source_rules(batch, conf, chain, i);
	}
	special_rules(batch, chain);
	if (open != ALL) {
		batch_rule_begin(batch, chain);
		count(batch, PACKETS, open);
		batch_rule_end(batch);
	} else {
		rest_rules(batch, chain, first, AF_INET);
		rest_rules(batch, chain, first, AF_INET6);
	}
	if (!links_few(conf))
		batch_link(batch, LINKS_OUT, link, chain);
	snprintf(chain, sizeof(chain), "f%zu", first);
	batch_chain(batch, chain);
	forged_rules(batch, conf, chain, first, AF_INET);
	forged_rules(batch, conf, chain, first, AF_INET6);
	batch_link(batch, LINKS_IN, link, chain);
	batch_link(batch, LINKS, link, NULL);
}

static void links_in_rule(struct nft_batch *batch)
{
	const uint32_t none = 0;

	batch_rule_begin(batch, "forward");
	batch_meta(batch, NFT_META_IIFGROUP);
	batch_differs(batch, &none, sizeof(none));
	batch_meta(batch, NFT_META_IIFNAME);
	batch_branch(batch, LINKS_IN);
	batch_rule_end(batch);
}

/* The last of their chain. */
static void links_out_rules(struct nft_batch *batch, const struct conf *conf,
			    const char *base)
{
	const bool few = links_few(conf);
	char chain[32];

	for (size_t i = 0; i < conf->exit_count && few; i++) {
		if (!is_first(conf, i))
			continue;
		snprintf(chain, sizeof(chain), "e%zu", i);
		batch_rule_begin(batch, base);
		batch_device(batch, NFT_META_OIFNAME, conf->exits[i].link);
		batch_verdict(batch, NFT_GOTO, chain);
		batch_rule_end(batch);
	}
	if (few)
		return;
	batch_rule_begin(batch, base);
	batch_meta(batch, NFT_META_OIFNAME);
	batch_branch(batch, LINKS_OUT);
	batch_rule_end(batch);
}

static void table_make(struct nft_batch *batch, const struct conf *conf)
{
	batch_chain_hooked(batch, "forward", NF_INET_FORWARD, 0);
	batch_chain_hooked(batch, "output", NF_INET_LOCAL_OUT, 0);
	batch_links(batch, LINKS, CONF_EXITS_MAX, false);
	batch_links(batch, LINKS_IN, CONF_EXITS_MAX, true);
	if (!links_few(conf))
		batch_links(batch, LINKS_OUT, CONF_EXITS_MAX, true);
	for (size_t i = 0; i < conf->exit_count && !batch->error; i++)
		if (is_first(conf, i))
			link_put(batch, conf, i);
	links_in_rule(batch);
	redirect_rules(batch, conf);
	tunnel_guard_put(batch, conf);
	links_out_rules(batch, conf, "forward");
	links_out_rules(batch, conf, "output");
}

/*
 * The kernel may refuse the table by which hosts are told: it lacks nft_dup_ipv6, or
 * another process owns it. That hosts go on by the tunnel costs them a detour; without
 * guards any source would go out.
 */
static void untold(const struct conf *conf, int err)
{
	if (discovery_tells(conf))
		log_warn(ROOM,
			 "event=hosts_not_told table=\"ip6 %s\" error=\"%s\" "
			 "effect=\"no host learns of its exit router ([exit] "
			 "discovery_host), packets go on by the tunnel\" "
			 "hint=\"is the kernel's nft_dup_ipv6 there, and the "
			 "table nobody else's? then restart culvertd\"",
			 EXIT_NFTABLE, strerror(-err));
}

static void table_forget(struct nft_batch *batch)
{
	discovery_tell_put(batch, NULL);
}

/* `open`: what is let out now stays so. */
static int apply(struct nft *nft, struct range_sets *guard,
		 const struct conf *conf, bool again, bool open,
		 struct exit_change *change)
{
	char comment[NFT_COMMENT_MAX] = "";
	const struct sets_table table = {
		.name = EXIT_NFTABLE,
		.comment = comment,
		.effect = "nothing keeps a foreign source off a link",
		.make = table_make,
		.beside = discovery_tell_put,
		.adopt = discovery_tell_adopt,
		.without = untold,
		.forget = table_forget,
	};
	struct range_sets want = { .state = SETS_UNKNOWN }, wider = want;
	int err;

	if (!conf || !exit_wanted(conf))
		return sets_remove(nft, &table, guard, change);
	if (guard->exact && !again)
		return 0;
	guard->exact = false;
	comment_make(conf, comment);
	err = sets_want(conf, &want);
	if (!err)
		err = sets_look(nft, &table, conf, again, change->dry, &want,
				guard);
	open = open && guard->state != SETS_NONE;
	if (!err && open)
		err = sets_union(guard, &want, &wider);
	if (!err)
		err = sets_commit(nft, &table, conf, open ? &wider : &want,
				  guard, change);
	guard->exact = !err && !open && !change->dry;
	sets_clear(&want);
	sets_clear(&wider);
	return err;
}

int guard_open(struct nft *nft, struct range_sets *guard,
	       const struct conf *conf, bool again, struct exit_change *change)
{
	return apply(nft, guard, conf, again, true, change);
}

int guard_apply(struct nft *nft, struct range_sets *guard,
		const struct conf *conf, bool again, struct exit_change *change)
{
	return apply(nft, guard, conf, again, false, change);
}

int guard_counters(struct nft *nft, size_t exit, uint64_t *packets,
		   uint64_t *rejects)
{
	char name[32];
	uint64_t out = 0, rejected = 0;
	int err;

	snprintf(name, sizeof(name), PACKETS, exit);
	err = nft_counter_read(nft, EXIT_NFTABLE, name, &out);
	if (!err) {
		snprintf(name, sizeof(name), REJECTS, exit);
		err = nft_counter_read(nft, EXIT_NFTABLE, name, &rejected);
	}
	if (err)
		return err;
	*packets = out;
	*rejects = rejected;
	return 0;
}
