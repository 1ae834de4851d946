/* SPDX-License-Identifier: BSD-2-Clause */
/* What a table of nftables has, as one number. */
#ifndef EXIT_NFT_DIGEST_H
#define EXIT_NFT_DIGEST_H

#include <stdbool.h>
#include <stdint.h>

#include "exit/nft_batch.h"

struct nft_digest {
	/* Are the elements of this set, of a name < BATCH_NAME, to be passed over? */
	bool (*passed)(void *arg, const char *set);
	void *arg;
};

/* 0 or a negative errno. */
int nft_digest(const char *table, const struct nft_digest *what, uint64_t *out);

#endif
