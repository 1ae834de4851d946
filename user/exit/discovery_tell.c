/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Telling hosts that another exit router is the right one for their packets, by ICMPv6
 * type 1 code 5, while the packets are tunnelled on: the kernel does all of it.
 *
 *   table ip6, chain forward:  from a host that wants to know, into a tunnel
 *                              once a second for a pair of addresses,
 *                              TELL_MOST times in all       copy it to this host
 *   table inet, chain output:  such a copy                  count, reject
 *
 * A reject takes the place of the packet, so that the packet needs a copy; expressions
 * that copy are not there in tables of family inet.
 */
#include "exit/discovery.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "exit/internal.h"

#define COMMENT   "exits of culvert, discovery"
#define HOSTS     "discovery_hosts"
#define PAIRS     "discovery_pairs"
#define PAIRS_MAX 4096
#define TELL_MOST 100
#define BEHIND    10 /* what the guards reject is not told of twice */

bool discovery_tells(const struct conf *conf)
{
	for (size_t i = 0; i < conf->exit_count; i++)
		if (conf->exits[i].discovery_host_count)
			return true;
	return false;
}

static int hosts_ranges(const struct conf *conf, struct addr_range **out,
			size_t *count)
{
	struct prefix *prefixes;
	size_t room = 1, used = 0;
	int err;

	for (size_t i = 0; i < conf->exit_count; i++)
		room += conf->exits[i].discovery_host_count;
	prefixes = calloc(room, sizeof(*prefixes));
	if (!prefixes)
		return -ENOMEM;
	for (size_t i = 0; i < conf->exit_count; i++)
		for (size_t k = 0; k < conf->exits[i].discovery_host_count; k++)
			prefixes[used++] = conf->exits[i].discovery_hosts[k];
	err = ranges_of_prefixes(prefixes, used, out, count);
	free(prefixes);
	return err;
}

static void hosts_put(struct nft_batch *batch, const struct conf *conf)
{
	struct addr_range *ranges;
	size_t count;
	int err = hosts_ranges(conf, &ranges, &count);

	if (err) {
		batch->error = err;
		return;
	}
	batch_ranges(batch, HOSTS, AF_INET6, ranges, count);
	free(ranges);
}

/* From such a host, by that device. */
static void host_match(struct nft_batch *batch, const char *device)
{
	batch_device(batch, NFT_META_OIFNAME, device);
	batch_family(batch, AF_INET6);
	batch_source(batch, AF_INET6, 16);
	batch_lookup(batch, HOSTS, true);
}

void discovery_guard_put(struct nft_batch *batch, const struct conf *conf)
{
	const uint32_t local = RTN_LOCAL;

	batch_counter(batch, DISCOVERY_TOLD);
	if (!discovery_tells(conf))
		return;
	hosts_put(batch, conf);
	batch_rule_begin(batch, "output");
	host_match(batch, "lo");
	batch_fib(batch, NFTA_FIB_F_SADDR, NFT_FIB_RESULT_ADDRTYPE);
	batch_differs(batch, &local, sizeof(local));
	batch_count(batch, DISCOVERY_TOLD);
	batch_reject(batch, AF_INET6);
	batch_rule_end(batch);
}

/* Nobody answers an error of ICMPv6 (RFC 4443, 2.4). */
static void errors_pass(struct nft_batch *batch)
{
	const uint8_t protocol = IPPROTO_ICMPV6, informs = 0x80, error = 0;

	batch_rule_begin(batch, "forward");
	batch_meta(batch, NFT_META_L4PROTO);
	batch_equal(batch, &protocol, sizeof(protocol));
	batch_payload(batch, NFT_PAYLOAD_TRANSPORT_HEADER, 0, sizeof(error));
	batch_mask(batch, &informs, sizeof(informs));
	batch_equal(batch, &error, sizeof(error));
	batch_verdict(batch, NFT_RETURN, NULL);
	batch_rule_end(batch);
}

void discovery_tell_put(struct nft_batch *batch, const struct conf *conf)
{
	batch->family = NFPROTO_IPV6;
	batch_table_clear(batch, COMMENT, false);
	if (conf && discovery_tells(conf)) {
		batch_table_add(batch, COMMENT, false);
		batch_chain_hooked(batch, "forward", NF_INET_FORWARD, BEHIND);
		hosts_put(batch, conf);
		batch_pairs(batch, PAIRS, AF_INET6, PAIRS_MAX);
		errors_pass(batch);
		batch_rule_begin(batch, "forward");
		host_match(batch, EXIT_TUNNEL);
		batch_pair_limit(batch, PAIRS, AF_INET6);
		batch_limit(batch, TELL_MOST);
		batch_copy_here(batch);
		batch_rule_end(batch);
	}
	batch->family = NFPROTO_INET;
}

void discovery_tell_adopt(struct nft_batch *batch, const struct conf *conf)
{
	if (!discovery_tells(conf))
		return;
	batch->family = NFPROTO_IPV6;
	batch_table_add(batch, COMMENT, false);
	batch->family = NFPROTO_INET;
}
