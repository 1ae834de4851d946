/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables of nftables with sets of ranges, brought to what is wanted by elements: one
 * that stays is never missing, whereas a set that is replaced whole is, for some
 * packets.
 *
 * Where many prefixes are of one length, a set may have another beside it for those
 * alone, named for the length: a hash. There a source is found by one look where a range
 * is searched for (40 instead of 400 ns among 10,000), and a prefix is one element
 * instead of two. The length belongs to the table's comment: with another one the table
 * is made anew, and so it is when a hash is full. Packets may be refused meanwhile, for
 * 15 ms with 10,000 prefixes, but none goes astray.
 */
#ifndef EXIT_SETS_H
#define EXIT_SETS_H

#include "exit/internal.h"
#include "exit/nft_batch.h"
#include "exit/ranges.h"

struct range_set {
	char name[BATCH_NAME];
	sa_family_t family;
	uint8_t bits; /* of the prefixes that are in a set of their own; 0: none is */
	struct addr_range *ranges; /* in order */
	size_t count;
};

/* What a table is, but for the elements of its sets. */
struct sets_table {
	const char *name;
	const char *comment; /* another one, when the table is to be another */
	const char *effect; /* of its not being there, for a message */
	/* Chains and rules, when the sets are there. */
	void (*make)(struct nft_batch *batch, const struct conf *conf);
	/*
	 * What goes with it, its adoption, and its end; NULL: nothing. What the kernel
	 * refuses of the first two is left out, and told by `without`.
	 */
	void (*beside)(struct nft_batch *batch, const struct conf *conf);
	void (*adopt)(struct nft_batch *batch, const struct conf *conf);
	void (*without)(const struct conf *conf, int err);
	void (*forget)(struct nft_batch *batch);
	/* Of maps: names of chains, and back. NULL: sets have none. */
	void (*format)(uint16_t chain, char out[BATCH_NAME]);
	uint16_t (*read)(const char *chain);
};

/* One more, empty; NULL: no memory. Good until the next one is added. */
struct range_set *sets_add(struct range_sets *sets, const char *name,
			   sa_family_t family, unsigned int bits);
/* What the set beside it is called, of prefixes of that length; 0: the set itself. */
void sets_name(const char *name, unsigned int bits, char out[BATCH_NAME]);

/*
 * Looks for the table, unless it is known. `again`: somebody may have changed it. `dry`: no
 * other one is made to compare it with; then its comment is believed.
 */
int sets_look(struct nft *nft, const struct sets_table *table,
	      const struct conf *conf, bool again, bool dry,
	      const struct range_sets *want, struct range_sets *have);
/*
 * Brings what was looked at from `have` to `want`, which changes hands on success,
 * unless it is a plan.
 */
int sets_commit(struct nft *nft, const struct sets_table *table,
		const struct conf *conf, struct range_sets *want,
		struct range_sets *have, struct exit_change *change);
/* The table goes, if it is there. */
int sets_remove(struct nft *nft, const struct sets_table *table,
		struct range_sets *have, struct exit_change *change);
/* What either lets pass; both are of one table. 0 or -ENOMEM. */
int sets_union(const struct range_sets *one, const struct range_sets *other,
	       struct range_sets *out);

#endif
