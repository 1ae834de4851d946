/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the guards' table has on a host that learns exits: ICMPv6 type 1 code 5 to a
 * source of such an exit is for the learner alone. TCP and UDP would take it for the
 * end of a connection that works, as Linux does.
 *
 *   chain input:  about a connection of ours, LEARN_MOST a second  count, log, drop
 *                 about a connection of ours                       drop
 *                 else                                             count, drop
 */
#include "exit/learn.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <stdlib.h>

#define SOURCES "discovery_sources"

static void sources_put(struct nft_batch *batch, const struct conf *conf)
{
	struct prefix *prefixes;
	struct addr_range *ranges;
	size_t room = 1, used = 0, count;
	int err;

	for (size_t i = 0; i < conf->exit_count; i++)
		room += conf->exits[i].prefix_count;
	prefixes = calloc(room, sizeof(*prefixes));
	if (!prefixes) {
		batch->error = -ENOMEM;
		return;
	}
	for (size_t i = 0; i < conf->exit_count; i++) {
		const struct conf_exit *exit = &conf->exits[i];

		for (size_t k = 0; k < exit->prefix_count; k++)
			if (exit->discover &&
			    exit->prefixes[k].family == AF_INET6)
				prefixes[used++] = exit->prefixes[k];
	}
	err = ranges_of_prefixes(prefixes, used, &ranges, &count);
	free(prefixes);
	if (err) {
		batch->error = err;
		return;
	}
	batch_ranges(batch, SOURCES, AF_INET6, ranges, count);
	free(ranges);
}

/* Type 1 code 5, to a source that exits are learnt for. */
static void told_match(struct nft_batch *batch)
{
	const uint8_t protocol = IPPROTO_ICMPV6, told[] = { 1, 5 };

	batch_rule_begin(batch, "input");
	batch_family(batch, AF_INET6);
	batch_meta(batch, NFT_META_L4PROTO);
	batch_equal(batch, &protocol, sizeof(protocol));
	batch_payload(batch, NFT_PAYLOAD_TRANSPORT_HEADER, 0, sizeof(told));
	batch_equal(batch, told, sizeof(told));
	batch_payload(batch, NFT_PAYLOAD_NETWORK_HEADER, 24, 16);
	batch_lookup(batch, SOURCES, true);
}

void learn_guard_put(struct nft_batch *batch, const struct conf *conf)
{
	const uint32_t related = NF_CT_STATE_BIT(IP_CT_RELATED);

	batch_counter(batch, LEARN_HEARD);
	batch_counter(batch, LEARN_FORGED);
	if (!learn_wanted(conf))
		return;
	sources_put(batch, conf);
	told_match(batch);
	batch_tracked(batch, related);
	batch_limit(batch, LEARN_MOST);
	batch_count(batch, LEARN_HEARD);
	batch_log(batch, LEARN_GROUP, LEARN_BYTES);
	batch_verdict(batch, NF_DROP, NULL);
	batch_rule_end(batch);
	told_match(batch);
	batch_tracked(batch, related);
	batch_verdict(batch, NF_DROP, NULL);
	batch_rule_end(batch);
	told_match(batch);
	batch_count(batch, LEARN_FORGED);
	batch_verdict(batch, NF_DROP, NULL);
	batch_rule_end(batch);
}
