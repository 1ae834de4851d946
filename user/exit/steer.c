/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which exit a forwarded packet takes, where routes by source do not say so: a table
 * of nftables, by a look at the source before the packet is routed.
 *
 *   map steer_4, steer_6:  ranges of sources -> chain to go to
 *   map steer_4_24, ...:   the same of prefixes of the length that prevails (sets.h)
 *   chain prerouting:      goes where the maps say
 *   chain toN:             marks the packet for table 20000 + N
 *   chain deadN:           marks it for nowhere; if that leaves it without a route,
 *                          counts for exit N, and rejects, once a second for a pair
 *                          of addresses
 *
 * With few prefixes the maps have only those of dead exits: what is refused by a route
 * alone would be told "no route" and not why (ICMPv6 type 1 code 5, ICMP type 3
 * code 13), and packets within the site, which an exit's death does not concern, have
 * the same source. With many prefixes the maps have all of them.
 *
 * Chains are there for every table that may be, so that a change of configuration or of
 * health is one of elements (sets.h). One that changes is taken out and put in within a
 * transaction; if a packet should find neither, it is not marked, and the guards have it.
 */
#include "exit/internal.h"

#include <errno.h>
#include <linux/if_packet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter_ipv4.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exit/sets.h"

#define PAIRS_MOST \
	65536 /* told at the same time; others are dropped without a word */
#define DEAD    0x100 /* in the number of a chain: of that exit, which is dead */
#define REJECTS "dead%zu"

static const sa_family_t families[2] = { AF_INET, AF_INET6 };

bool exit_nftable_is(const char *name)
{
	return !strcmp(name, EXIT_NFTABLE) || !strcmp(name, EXIT_STEERS);
}

static const char *map_name(sa_family_t family)
{
	return family == AF_INET6 ? "steer_6" : "steer_4";
}

static const char *pairs_name(sa_family_t family)
{
	return family == AF_INET6 ? "told_6" : "told_4";
}

static void chain_format(uint16_t chain, char out[BATCH_NAME])
{
	snprintf(out, BATCH_NAME, "%s%u", chain & DEAD ? "dead" : "to",
		 chain & (DEAD - 1u));
}

static uint16_t chain_read(const char *name)
{
	bool dead = !strncmp(name, "dead", 4);
	unsigned long number = strtoul(name + (dead ? 4 : 2), NULL, 10);

	return (uint16_t)(number | (dead ? DEAD : 0));
}

/* Whom a refusal is counted for. */
static size_t source_exit(const struct exit_choice *choice)
{
	return choice->owner >= 0 ? (size_t)choice->owner : choice->exits[0];
}

static uint16_t source_chain(const struct conf *conf,
			     const struct exit_host *host,
			     const struct exit_order *order,
			     const struct exit_source *source, bool mapped)
{
	uint32_t table = exit_source_table(conf, host, order, source);

	if (!table)
		return (uint16_t)(DEAD |
				  source_exit(&order->choices[source->choice]));
	return mapped ? (uint16_t)(table - EXIT_TABLE) : RANGE_NONE;
}

int steer_want(const struct conf *conf, const struct exit_host *host,
	       sa_family_t family, struct addr_range **out, size_t *count)
{
	struct range_source *sources;
	struct exit_order order;
	size_t used = 0;
	bool mapped;
	int err = exit_order_make(conf, &order);

	if (err)
		return err;
	mapped = exit_mapped(&order, family);
	sources = calloc(order.source_count + 1, sizeof(*sources));
	for (size_t i = 0; sources && i < order.source_count; i++)
		if (order.sources[i].prefix.family == family)
			sources[used++] = (struct range_source){
				order.sources[i].prefix,
				source_chain(conf, host, &order,
					     &order.sources[i], mapped)
			};
	/* Link-local addresses are nobody's, whatever lies around them. */
	if (sources && family == AF_INET6)
		sources[used++] =
			(struct range_source){ { AF_INET6, 10, { 0xfe, 0x80 } },
					       RANGE_NONE };
	exit_order_clear(&order);
	err = sources ? ranges_of_map(sources, used, ranges_bits(conf, family),
				      out, count) :
			-ENOMEM;
	free(sources);
	return err;
}

static bool range_has(const struct addr_range *range, const uint8_t bytes[16])
{
	return memcmp(bytes, range->first, sizeof(range->first)) >= 0 &&
	       (range->open ||
		memcmp(bytes, range->behind, sizeof(range->behind)) < 0);
}

int steer_mark(const struct conf *conf, const struct exit_host *host,
	       const union addr *from, uint32_t *mark)
{
	uint8_t bytes[16] = { 0 };
	struct addr_range *ranges;
	size_t count, len;
	const uint8_t *address = addr_bytes(from, &len);
	int err = steer_want(conf, host, addr_family(from), &ranges, &count);

	if (err)
		return err;
	memcpy(bytes, address, len);
	*mark = 0;
	for (size_t i = 0; i < count; i++)
		if (range_has(&ranges[i], bytes))
			*mark = ranges[i].chain & DEAD ?
					MARK_DEAD :
					(uint32_t)ranges[i].chain << MARK_SHIFT;
	free(ranges);
	return 0;
}

static void chain_to(struct nft_batch *batch, uint16_t table)
{
	char name[BATCH_NAME];

	chain_format(table, name);
	batch_chain(batch, name);
	batch_rule_begin(batch, name);
	batch_mark(batch, EXIT_MARKS, (uint32_t)table << MARK_SHIFT);
	batch_rule_end(batch);
}

static void chain_dead(struct nft_batch *batch, size_t exit)
{
	const uint32_t none = 0, local = RTN_LOCAL;
	const uint8_t host = PACKET_HOST;
	char name[BATCH_NAME], counter[BATCH_NAME];

	chain_format((uint16_t)(exit | DEAD), name);
	snprintf(counter, sizeof(counter), REJECTS, exit);
	batch_counter(batch, counter);
	batch_chain(batch, name);
	batch_rule_begin(batch, name);
	batch_mark(batch, EXIT_MARKS, MARK_DEAD);
	batch_rule_end(batch);
	batch_rule_begin(batch, name);
	batch_meta(batch, NFT_META_PKTTYPE);
	batch_equal(batch, &host, sizeof(host));
	batch_fib(batch, NFTA_FIB_F_DADDR, NFT_FIB_RESULT_ADDRTYPE);
	batch_differs(batch, &local, sizeof(local));
	batch_fib(batch, NFTA_FIB_F_DADDR | NFTA_FIB_F_MARK,
		  NFT_FIB_RESULT_OIF);
	batch_equal(batch, &none, sizeof(none));
	batch_count(batch, counter);
	batch_verdict(batch, NFT_GOTO, "refuse");
	batch_rule_end(batch);
}

/* What the map has for the source of a packet; bits > 0: the one beside it. */
static void branch(struct nft_batch *batch, sa_family_t family,
		   unsigned int bits)
{
	char map[BATCH_NAME];

	sets_name(map_name(family), bits, map);
	batch_rule_begin(batch, "prerouting");
	batch_family(batch, family);
	batch_network(batch, family, bits);
	batch_branch(batch, map);
	batch_rule_end(batch);
}

static void table_make(struct nft_batch *batch, const struct conf *conf)
{
	batch_chain_hooked(batch, "prerouting", NF_INET_PRE_ROUTING,
			   NF_IP_PRI_MANGLE);
	for (size_t i = 0; i < 2; i++)
		if (ranges_bits(conf, families[i]))
			branch(batch, families[i],
			       ranges_bits(conf, families[i]));
	for (size_t i = 0; i < 2; i++)
		branch(batch, families[i], 0);
	batch_chain(batch, "refuse");
	for (size_t i = 0; i < 2; i++) {
		batch_pairs(batch, pairs_name(families[i]), families[i],
			    PAIRS_MOST);
		batch_rule_begin(batch, "refuse");
		batch_family(batch, families[i]);
		batch_pair_limit(batch, pairs_name(families[i]), families[i]);
		batch_reject(batch, families[i]);
		batch_rule_end(batch);
	}
	batch_rule_begin(batch, "refuse");
	batch_verdict(batch, NF_DROP, NULL);
	batch_rule_end(batch);
	for (uint16_t i = 1; i <= TABLES_MOST; i++)
		chain_to(batch, i);
	for (size_t i = 0; i < CONF_EXITS_MAX; i++)
		chain_dead(batch, i);
}

static void comment_make(const struct conf *conf, char out[NFT_COMMENT_MAX])
{
	snprintf(out, NFT_COMMENT_MAX, "exits of culvert, by source, /%u /%u",
		 ranges_bits(conf, AF_INET), ranges_bits(conf, AF_INET6));
}

static const struct sets_table steers = {
	.name = EXIT_STEERS,
	.effect = "forwarded packets are not led by their source",
	.make = table_make,
	.format = chain_format,
	.read = chain_read,
};

int steer_maps(const struct conf *conf, const struct exit_host *host,
	       struct range_sets *out)
{
	int err = 0;

	for (size_t i = 0; i < 2 && !err; i++) {
		struct range_set *map =
			sets_add(out, map_name(families[i]), families[i],
				 ranges_bits(conf, families[i]));

		err = map ? steer_want(conf, host, families[i], &map->ranges,
				       &map->count) :
			    -ENOMEM;
	}
	return err;
}

int steer_apply(struct nft *nft, struct range_sets *steer,
		const struct conf *conf, const struct exit_host *host,
		bool again, struct exit_change *change)
{
	struct range_sets want = { .state = SETS_UNKNOWN };
	char comment[NFT_COMMENT_MAX];
	struct sets_table table = steers;
	int err;

	if (!conf || !exit_wanted(conf))
		return sets_remove(nft, &steers, steer, change);
	comment_make(conf, comment);
	table.comment = comment;
	err = steer_maps(conf, host, &want);
	if (!err)
		err = sets_look(nft, &table, conf, again, change->dry, &want,
				steer);
	if (!err)
		err = sets_commit(nft, &table, conf, &want, steer, change);
	sets_clear(&want);
	return err;
}

int steer_counter(struct nft *nft, size_t exit, uint64_t *rejects)
{
	char name[BATCH_NAME];

	snprintf(name, sizeof(name), REJECTS, exit);
	return nft_counter_read(nft, EXIT_STEERS, name, rejects);
}

/* The address before this one, which is not the first of all. */
static void address_back(uint8_t *bytes, size_t len)
{
	while (len-- && bytes[len]-- == 0)
		;
}

static void range_span(const struct addr_range *range, sa_family_t family,
		       struct addr_span *out)
{
	size_t len = family == AF_INET6 ? 16 : 4;

	*out = (struct addr_span){ .family = family };
	memcpy(out->first, range->first, len);
	memset(out->last, 0xff, len);
	if (range->open)
		return;
	memcpy(out->last, range->behind, len);
	address_back(out->last, len);
}

int steer_dead(const struct range_sets *steer, struct addr_span **out,
	       size_t *count)
{
	struct addr_span *spans;
	size_t room = 1, used = 0;

	for (size_t i = 0; i < steer->count; i++)
		room += steer->all[i].count;
	spans = calloc(room, sizeof(*spans));
	if (!spans)
		return -ENOMEM;
	for (size_t i = 0; i < steer->count; i++) {
		const struct range_set *map = &steer->all[i];

		for (size_t k = 0; k < map->count; k++)
			if (map->ranges[k].chain & DEAD)
				range_span(&map->ranges[k], map->family,
					   &spans[used++]);
	}
	*out = spans;
	*count = used;
	return 0;
}
