/* SPDX-License-Identifier: BSD-2-Clause */
/* Prefixes as the ranges of an interval set, which must not overlap. */
#ifndef EXIT_RANGES_H
#define EXIT_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/conf.h"

struct addr_range {
	uint8_t first[16]; /* 4 of them for IPv4 */
	uint8_t behind[16]; /* the first address that is not in it */
	bool open; /* it goes to the last address: there is none behind */
	uint16_t chain; /* where its packets go, of a map (steer.c) */
};

void range_of_prefix(const struct prefix *prefix, struct addr_range *out);
/*
 * The length that most prefixes of the configuration have, in bits: the kernel finds one
 * of them by a hash sooner than among ranges. 0: they are too few for that to matter.
 */
unsigned int ranges_bits(const struct conf *conf, sa_family_t family);
/* Puts those that are a prefix of that length before the others; how many they are. */
size_t ranges_part(struct addr_range *ranges, size_t count, sa_family_t family,
		   unsigned int bits);
/* Of one family, in order, for the caller to free. Pure. 0 or -ENOMEM. */
int ranges_of_prefixes(const struct prefix *prefixes, size_t prefix_count,
		       struct addr_range **out, size_t *count);
/* A prefix of a map. */
struct range_source {
	struct prefix prefix;
	uint16_t chain;
};

#define RANGE_NONE UINT16_MAX /* packets go nowhere else */

/*
 * The longest prefix counts: ranges that do not overlap, in order, for the caller to
 * free. What touches and goes the same way is one, but for prefixes of that length (bits;
 * 0: any). Sorts `sources`, all of one family. Pure. 0 or -ENOMEM.
 */
int ranges_of_map(struct range_source *sources, size_t source_count,
		  unsigned int bits, struct addr_range **out, size_t *count);

/*
 * What may leave by an exit, in order, for the caller to free. Each prefix has a range,
 * but for those within another: it stays when one beside it comes or goes. exit
 * SIZE_MAX: by any, and what touches is one range. Pure. 0 or -ENOMEM.
 */
int ranges_of_exit(const struct conf *conf, size_t exit, sa_family_t family,
		   struct addr_range **out, size_t *count);

/* Both are in order, and so is what comes out, for the caller to free. 0 or -ENOMEM. */
int ranges_union(const struct addr_range *one, size_t one_count,
		 const struct addr_range *other, size_t other_count,
		 struct addr_range **out, size_t *count);
/* Those of `all` that `other` has not. */
int ranges_beyond(const struct addr_range *all, size_t all_count,
		  const struct addr_range *other, size_t other_count,
		  struct addr_range **out, size_t *count);

#endif
