/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the guards' table has for tunnels: nobody but the site's own exit routers can
 * have packets taken out of one, and what comes out leaves by an exit or not at all.
 * VXLAN-GPE stands for what [exit] tunnel says.
 *
 *   chain prerouting:  VXLAN-GPE by an exit's link, or out of a tunnel    drop
 *   chain input:       VXLAN-GPE from a tunnel peer                       let pass
 *                      other VXLAN-GPE                                    drop
 *   chain forward:     in by an exit's link, into a tunnel                drop
 *                      out of a tunnel by an exit's link                  let pass
 *                      other out of a tunnel                              reject
 *   chain output:      VXLAN-GPE by an exit's link                        drop
 *
 * The first keeps a forged outer source out, wherever in the site it is for. What a
 * provider sends with a source of ours is forged, too: the next would have it leave by
 * another one. The last of forward ends a loop of exit routers that take each other for
 * the right one.
 */
#include "exit/discovery.h"
#include "exit/learn.h"
#include "exit/tunnel.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <stdlib.h>
#include <string.h>

#define PEERS   "tunnel_peers"
#define LEAVING "from_tunnel"
#define EARLY   (-300) /* before connection tracking */

/* The protocols over IPv6 of each kind of tunnel, 0 behind them. */
static const uint8_t protocols[][3] = {
	[CONF_TUNNEL_GPE] = { IPPROTO_UDP },
	[CONF_TUNNEL_IP6] = { IPPROTO_IPV6, IPPROTO_IPIP },
};

static void tunnelled_match(struct nft_batch *batch, uint8_t protocol)
{
	const uint16_t port = htons(TUNNEL_PORT);

	/* Those over IPv4 are something else. */
	if (protocol != IPPROTO_UDP)
		batch_family(batch, AF_INET6);
	batch_meta(batch, NFT_META_L4PROTO);
	batch_equal(batch, &protocol, sizeof(protocol));
	if (protocol != IPPROTO_UDP)
		return;
	batch_payload(batch, NFT_PAYLOAD_TRANSPORT_HEADER, 2, sizeof(port));
	batch_equal(batch, &port, sizeof(port));
}

static void refuse(struct nft_batch *batch)
{
	batch_count(batch, TUNNEL_REFUSED);
	batch_verdict(batch, NF_DROP, NULL);
	batch_rule_end(batch);
}

static void tunnelled_refuse(struct nft_batch *batch, const uint8_t *protocol,
			     const char *chain, uint32_t key,
			     const char *device)
{
	for (; *protocol; protocol++) {
		batch_rule_begin(batch, chain);
		batch_device(batch, key, device);
		tunnelled_match(batch, *protocol);
		refuse(batch);
	}
}

static void peers_put(struct nft_batch *batch, const struct conf *conf)
{
	struct addr_range *ranges;
	size_t count;
	int err = tunnel_sources(conf, &ranges, &count);

	if (err) {
		batch->error = err;
		return;
	}
	batch_ranges(batch, PEERS, AF_INET6, ranges, count);
	free(ranges);
}

static void arriving_rules(struct nft_batch *batch, uint8_t protocol)
{
	batch_rule_begin(batch, "input");
	batch_family(batch, AF_INET6);
	tunnelled_match(batch, protocol);
	batch_source(batch, AF_INET6, 16);
	batch_lookup(batch, PEERS, true);
	batch_verdict(batch, NFT_RETURN, NULL);
	batch_rule_end(batch);
	batch_rule_begin(batch, "input");
	tunnelled_match(batch, protocol);
	refuse(batch);
}

static void leaving_reject(struct nft_batch *batch, sa_family_t family)
{
	batch_rule_begin(batch, LEAVING);
	batch_family(batch, family);
	batch_count(batch, TUNNEL_REFUSED);
	batch_reject(batch, family);
	batch_rule_end(batch);
}

static void link_rules(struct nft_batch *batch, const uint8_t *protocol,
		       const char *link)
{
	tunnelled_refuse(batch, protocol, "prerouting", NFT_META_IIFNAME, link);
	tunnelled_refuse(batch, protocol, "output", NFT_META_OIFNAME, link);
	batch_rule_begin(batch, "forward");
	batch_device(batch, NFT_META_IIFNAME, link);
	batch_device(batch, NFT_META_OIFNAME, EXIT_TUNNEL);
	refuse(batch);
	batch_rule_begin(batch, LEAVING);
	batch_device(batch, NFT_META_OIFNAME, link);
	batch_verdict(batch, NFT_RETURN, NULL);
	batch_rule_end(batch);
}

void tunnel_guard_put(struct nft_batch *batch, const struct conf *conf)
{
	const uint8_t *protocol = protocols[tunnel_kind(conf)];

	if (!tunnel_wanted(conf))
		return;
	batch_chain_hooked(batch, "prerouting", NF_INET_PRE_ROUTING, EARLY);
	batch_chain_hooked(batch, "input", NF_INET_LOCAL_IN, 0);
	batch_chain(batch, LEAVING);
	batch_counter(batch, TUNNEL_REFUSED);
	peers_put(batch, conf);
	tunnelled_refuse(batch, protocol, "prerouting", NFT_META_IIFNAME,
			 EXIT_TUNNEL);
	for (const uint8_t *each = protocol; *each; each++)
		arriving_rules(batch, *each);
	batch_rule_begin(batch, "forward");
	batch_device(batch, NFT_META_IIFNAME, EXIT_TUNNEL);
	batch_verdict(batch, NFT_JUMP, LEAVING);
	batch_rule_end(batch);
	for (size_t i = 0; i < conf->exit_count && !batch->error; i++)
		if (conf->exits[i].link)
			link_rules(batch, protocol, conf->exits[i].link);
	leaving_reject(batch, AF_INET);
	leaving_reject(batch, AF_INET6);
	discovery_guard_put(batch, conf);
	learn_guard_put(batch, conf);
}
