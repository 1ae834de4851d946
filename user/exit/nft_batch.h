/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages of one transaction of nftables, for a table of family inet, and one of
 * another family with the same name.
 *
 * What fails for lack of memory is noted in `error`; what follows does no harm then.
 */
#ifndef EXIT_NFT_BATCH_H
#define EXIT_NFT_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "exit/ranges.h"

#define BATCH_NAME 32 /* bytes of a name, with NUL */

struct mnl_socket;
struct nftnl_batch;
struct nftnl_expr;
struct nftnl_rule;

struct nft_batch {
	struct nftnl_batch *messages;
	const char *table;
	struct nftnl_rule *rule; /* under way */
	uint32_t *sequence; /* of messages on this socket */
	uint32_t flags; /* of tables */
	uint32_t before[2]; /* the same of what is there, families inet and ip6 */
	uint16_t family; /* of the table, NFPROTO_INET at first */
	int error;
};

/* Room on the socket for a transaction with many prefixes. */
void batch_room(struct mnl_socket *socket);
/* Counts on the rules being of that generation: -ERESTART if they are not. */
int batch_begin(struct nft_batch *batch, uint32_t generation);
/* Without it the kernel checks all and does nothing. */
void batch_end(struct nft_batch *batch);
/* 0, or the first failure. */
int batch_send(struct nft_batch *batch, struct mnl_socket *socket);
void batch_free(struct nft_batch *batch);

void batch_table_add(struct nft_batch *batch, const char *comment, bool tell);
/* There or not, it is gone then. */
void batch_table_clear(struct nft_batch *batch, const char *comment, bool tell);
/* A chain to jump to. */
void batch_chain(struct nft_batch *batch, const char *name);
void batch_chain_hooked(struct nft_batch *batch, const char *name,
			uint32_t hook, int32_t priority);
void batch_counter(struct nft_batch *batch, const char *name);
/*
 * A set of ranges of addresses, or with `most` > 0 of so many prefixes of one length;
 * `map`: each with a chain to go to.
 */
void batch_set(struct nft_batch *batch, const char *set, sa_family_t family,
	       uint32_t most, bool map);
/* Elements of it, added or taken out; format NULL: they have no chains. */
struct batch_elements {
	const char *set;
	sa_family_t family;
	void (*format)(uint16_t chain, char out[BATCH_NAME]);
	const struct addr_range *ranges;
	size_t count;
	bool blocks; /* of a set of prefixes: there are no ends */
};
void batch_elements(struct nft_batch *batch, const struct batch_elements *what,
		    bool there);
/* A set of these ranges. */
void batch_ranges(struct nft_batch *batch, const char *set, sa_family_t family,
		  const struct addr_range *ranges, size_t count);
/*
 * A set of so many links at most, or a map of them, and one of them, with the chain to
 * jump to (map) or NULL.
 */
void batch_links(struct nft_batch *batch, const char *name, uint32_t most,
		 bool map);
void batch_link(struct nft_batch *batch, const char *where, const char *link,
		const char *chain);
/* A set of pairs of addresses that packets make themselves, each for a second. */
void batch_pairs(struct nft_batch *batch, const char *set, sa_family_t family,
		 uint32_t most);

/* A rule at the end of its chain: what it compares, then what it does. */
void batch_rule_begin(struct nft_batch *batch, const char *chain);
void batch_rule_end(struct nft_batch *batch);
/* Loads something, which is compared next. */
void batch_meta(struct nft_batch *batch, uint32_t key);
void batch_payload(struct nft_batch *batch, uint32_t base, uint32_t offset,
		   size_t len);
/* The first bytes of the source address, as many as that. */
void batch_source(struct nft_batch *batch, sa_family_t family, size_t len);
/* So many bits of it, and nothing behind them; 0: all of it. */
void batch_network(struct nft_batch *batch, sa_family_t family,
		   unsigned int bits);
void batch_fib(struct nft_batch *batch, uint32_t flags, uint32_t result);
void batch_mask(struct nft_batch *batch, const uint8_t *bits, size_t len);
void batch_equal(struct nft_batch *batch, const void *data, size_t len);
void batch_differs(struct nft_batch *batch, const void *data, size_t len);
/* The packet's device, NFT_META_IIFNAME or NFT_META_OIFNAME, has this name. */
void batch_device(struct nft_batch *batch, uint32_t key, const char *device);
void batch_family(struct nft_batch *batch, sa_family_t family);
void batch_lookup(struct nft_batch *batch, const char *set, bool inside);
/* Goes, or jumps, to the chain that the map has for what was loaded. */
void batch_branch(struct nft_batch *batch, const char *map);
/* Goes on once a second for each pair of source and destination. */
void batch_pair_limit(struct nft_batch *batch, const char *set,
		      sa_family_t family);
/* Goes on so often a second in all. */
void batch_limit(struct nft_batch *batch, uint32_t packets);
/* Connection tracking has it in one of these states. */
void batch_tracked(struct nft_batch *batch, uint32_t states);
/* So many bytes of it go to who listens to that group. */
void batch_log(struct nft_batch *batch, uint16_t group, uint32_t bytes);
/* Family ip6: a copy of the packet goes to this host. */
void batch_copy_here(struct nft_batch *batch);
/* Changes these bits of the packet's mark. */
void batch_mark(struct nft_batch *batch, uint32_t bits, uint32_t value);
void batch_count(struct nft_batch *batch, const char *counter);
/* chain NULL with NFT_RETURN, NF_DROP and such. */
void batch_verdict(struct nft_batch *batch, int code, const char *chain);
/* Tells the sender why: ICMPv6 code 5, ICMP code 13. */
void batch_reject(struct nft_batch *batch, sa_family_t family);

#endif
