/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A connection to nftables, by which tables of ours are read and changed.
 *
 * A change is one transaction, which holds only if nobody else has changed the rules
 * since we looked (NFNL_BATCH_GENID). A table is ours alone and stays when we end
 * (NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST, Linux 6.9): `nft flush ruleset` passes it
 * over. Before 6.9 anybody can take it away; then we are told, and put it back. A
 * comment tells a new process whether the table is the one that it wants.
 */
#ifndef EXIT_NFT_H
#define EXIT_NFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "exit/nft_batch.h"
#include "exit/ranges.h"

#define NFT_COMMENT_MAX 64

struct nft;

int nft_open(struct nft **out);
void nft_close(struct nft *nft); /* accepts NULL; leaves the tables */
/* Readable: somebody has changed nftables. */
int nft_fd(const struct nft *nft);
/*
 * Reads what there is; true: a table of ours was touched by somebody else, or may have
 * been while we changed it. To be asked after each change of ours, too.
 */
bool nft_touched(struct nft *nft);

/* A table as it is. */
struct nft_found {
	char comment[NFT_COMMENT_MAX];
	uint32_t owner; /* 0: nobody */
	uint32_t flags;
};

/* -ENOENT: there is none. */
int nft_table_read(struct nft *nft, const char *name, struct nft_found *out);
/* Packets, by a counter of a table; -ENOENT: there is none. */
int nft_counter_read(struct nft *nft, const char *table, const char *name,
		     uint64_t *out);

/*
 * The ranges of a set, in order, for the caller to free; each of its elements is a
 * prefix like `block`, or NULL: the start or the end of a range. `read`, of a map, makes
 * a number of the name of a chain. -ENOENT: there is no such set; -EAGAIN: it was being
 * changed.
 */
int nft_ranges_read(struct nft *nft, const char *table, const char *set,
		    const struct prefix *block,
		    uint16_t (*read)(const char *chain),
		    struct addr_range **out, size_t *count);

enum nft_how {
	NFT_REPLACE, /* made, or made anew */
	NFT_CHANGE, /* it is there, and ours */
	NFT_ADOPT, /* it is there, but nobody's: it becomes ours */
	NFT_REMOVE,
};

struct nft_change {
	enum nft_how how;
	const char *table;
	const char *comment; /* but for NFT_REMOVE */
	/* What the table has, or is changed by; NULL: nothing. */
	void (*fill)(struct nft_batch *batch, void *arg);
	void *arg;
	bool dry; /* the kernel checks it and does nothing */
	bool asleep; /* no packet sees it, and it ends with the connection */
};

/* 0; -EPERM: the table is another's; or another negative errno. */
int nft_commit(struct nft *nft, const struct nft_change *change);
/* Has nobody but us been able to change it, since we took it? */
bool nft_owned(const struct nft *nft, const struct nft_found *found);
/* Would NFT_ADOPT change anything? */
bool nft_adoptable(struct nft *nft, const struct nft_found *found);
/* May it be changed or adopted? One that others have made must be replaced. */
bool nft_keepable(struct nft *nft, const struct nft_found *found);

#endif
