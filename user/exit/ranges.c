/* SPDX-License-Identifier: BSD-2-Clause */
/* Prefixes as the ranges of an interval set, which must not overlap. */
#include "exit/ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS_LEAST 64 /* prefixes of one length, that a hash is worth it */

static size_t width(sa_family_t family)
{
	return family == AF_INET6 ? 16 : 4;
}

void range_of_prefix(const struct prefix *prefix, struct addr_range *out)
{
	size_t len = width(prefix->family);
	size_t byte = prefix->bits ? (prefix->bits - 1u) / 8 : 0;
	/* One in the last bit of the prefix, as a part of its byte. */
	unsigned int carry =
		prefix->bits ? 1u << (7 - (prefix->bits - 1u) % 8) : 256;

	*out = (struct addr_range){ .open = false };
	memcpy(out->first, prefix->bytes, len);
	memcpy(out->behind, prefix->bytes, len);
	for (size_t i = byte + 1; carry && i-- > 0;) {
		unsigned int sum = out->behind[i] + carry;

		out->behind[i] = (uint8_t)sum;
		carry = sum >> 8;
	}
	out->open = carry != 0;
}

static void lengths_count(const struct prefix *prefixes, size_t count,
			  sa_family_t family, size_t lengths[129])
{
	for (size_t i = 0; i < count; i++)
		lengths[prefixes[i].bits] += prefixes[i].family == family;
}

unsigned int ranges_bits(const struct conf *conf, sa_family_t family)
{
	size_t lengths[129] = { BLOCKS_LEAST - 1 };
	unsigned int best = 0;

	for (size_t i = 0; i < conf->exit_count; i++) {
		const struct conf_exit *exit = &conf->exits[i];

		lengths_count(exit->prefixes, exit->prefix_count, family,
			      lengths);
		lengths_count(exit->authorised, exit->authorised_count, family,
			      lengths);
	}
	for (unsigned int bits = 1; bits <= 128; bits++)
		if (lengths[bits] > lengths[best])
			best = bits;
	return best;
}

static bool range_same(const struct addr_range *a, const struct addr_range *b)
{
	return a->chain == b->chain && a->open == b->open &&
	       !memcmp(a->first, b->first, sizeof(a->first)) &&
	       (a->open || !memcmp(a->behind, b->behind, sizeof(a->behind)));
}

static bool range_is_block(const struct addr_range *range, sa_family_t family,
			   unsigned int bits)
{
	struct prefix prefix = { .family = family, .bits = (uint8_t)bits };
	struct addr_range block;

	for (size_t i = bits / 8; i < sizeof(range->first); i++)
		if (range->first[i] & (i == bits / 8 ? 0xff >> bits % 8 : 0xff))
			return false;
	memcpy(prefix.bytes, range->first, sizeof(prefix.bytes));
	range_of_prefix(&prefix, &block);
	block.chain = range->chain;
	return range_same(range, &block);
}

size_t ranges_part(struct addr_range *ranges, size_t count, sa_family_t family,
		   unsigned int bits)
{
	size_t blocks = 0;

	for (size_t i = 0; bits && i < count; i++) {
		struct addr_range range = ranges[i];

		if (!range_is_block(&range, family, bits))
			continue;
		ranges[i] = ranges[blocks];
		ranges[blocks++] = range;
	}
	return blocks;
}

static int range_compare(const void *left, const void *right)
{
	const struct addr_range *a = left, *b = right;

	return memcmp(a->first, b->first, sizeof(a->first));
}

/* Does b begin within a, or (joined) right behind it? a does not begin behind b. */
static bool ranges_meet(const struct addr_range *a, const struct addr_range *b,
			bool joined)
{
	return a->open || memcmp(b->first, a->behind, sizeof(a->behind)) <
				  (joined ? 1 : 0);
}

/* What meets becomes one, of ranges in order. How many there are then. */
static size_t ranges_merge(struct addr_range *ranges, size_t count, bool joined)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++) {
		struct addr_range *last = kept ? &ranges[kept - 1] : NULL;

		if (!last || !ranges_meet(last, &ranges[i], joined)) {
			ranges[kept++] = ranges[i];
			continue;
		}
		if (last->open)
			continue;
		last->open = ranges[i].open;
		if (memcmp(ranges[i].behind, last->behind,
			   sizeof(last->behind)) > 0)
			memcpy(last->behind, ranges[i].behind,
			       sizeof(last->behind));
	}
	return kept;
}

static size_t prefixes_take(const struct prefix *list, size_t count,
			    sa_family_t family, struct addr_range *out)
{
	size_t taken = 0;

	for (size_t i = 0; i < count; i++)
		if (list[i].family == family)
			range_of_prefix(&list[i], &out[taken++]);
	return taken;
}

static void ranges_order(struct addr_range *ranges, size_t used, bool joined,
			 struct addr_range **out, size_t *count)
{
	qsort(ranges, used, sizeof(*ranges), range_compare);
	*count = ranges_merge(ranges, used, joined);
	*out = ranges;
}

int ranges_of_prefixes(const struct prefix *prefixes, size_t prefix_count,
		       struct addr_range **out, size_t *count)
{
	struct addr_range *ranges = calloc(prefix_count + 1, sizeof(*ranges));

	if (!ranges)
		return -ENOMEM;
	for (size_t i = 0; i < prefix_count; i++)
		range_of_prefix(&prefixes[i], &ranges[i]);
	ranges_order(ranges, prefix_count, true, out, count);
	return 0;
}

int ranges_of_exit(const struct conf *conf, size_t exit, sa_family_t family,
		   struct addr_range **out, size_t *count)
{
	struct addr_range *ranges;
	size_t room = 1, used = 0;

	for (size_t i = 0; i < conf->exit_count; i++)
		room += conf->exits[i].prefix_count +
			conf->exits[i].authorised_count;
	ranges = calloc(room, sizeof(*ranges));
	if (!ranges)
		return -ENOMEM;
	for (size_t i = 0; i < conf->exit_count; i++) {
		const struct conf_exit *from = &conf->exits[i];

		if (exit != SIZE_MAX && exit != i)
			continue;
		used += prefixes_take(from->prefixes, from->prefix_count,
				      family, ranges + used);
		used += prefixes_take(from->authorised, from->authorised_count,
				      family, ranges + used);
	}
	ranges_order(ranges, used, exit == SIZE_MAX, out, count);
	return 0;
}

/* By their first address, the shorter before the longer. */
static int map_compare(const void *left, const void *right)
{
	const struct range_source *a = left, *b = right;
	int order = memcmp(a->prefix.bytes, b->prefix.bytes,
			   sizeof(a->prefix.bytes));

	return order ? order : a->prefix.bits - b->prefix.bits;
}

/* The prefixes around the place that is looked at, the outermost first. */
struct nest {
	struct addr_range *out;
	size_t count;
	sa_family_t family;
	unsigned int bits; /* of prefixes that are not joined; 0: all are */
	struct addr_range around[129];
	size_t depth;
};

static bool joins(const struct nest *nest, const struct addr_range *last,
		  const struct addr_range *range)
{
	if (last->open || last->chain != range->chain ||
	    memcmp(last->behind, range->first, sizeof(last->behind)) != 0)
		return false;
	return !nest->bits ||
	       (!range_is_block(last, nest->family, nest->bits) &&
		!range_is_block(range, nest->family, nest->bits));
}

/* [from, behind) goes where `of` does. */
static void range_emit(struct nest *nest, const uint8_t *from,
		       const uint8_t *behind, bool open,
		       const struct addr_range *of)
{
	struct addr_range *last = nest->count ? &nest->out[nest->count - 1] :
						NULL;
	struct addr_range range = { .open = open, .chain = of->chain };

	if (of->chain == RANGE_NONE ||
	    (!open && memcmp(from, behind, sizeof(of->first)) >= 0))
		return;
	memcpy(range.first, from, sizeof(range.first));
	memcpy(range.behind, behind, sizeof(range.behind));
	if (last && joins(nest, last, &range)) {
		memcpy(last->behind, behind, sizeof(last->behind));
		last->open = open;
	} else {
		nest->out[nest->count++] = range;
	}
}

/* The innermost ends; the one around it goes on behind. */
static void nest_leave(struct nest *nest)
{
	struct addr_range *inner = &nest->around[--nest->depth];

	range_emit(nest, inner->first, inner->behind, inner->open, inner);
	if (!nest->depth)
		return;
	/* Nothing is left of one that ends with it. */
	if (inner->open)
		nest->around[nest->depth - 1].chain = RANGE_NONE;
	else
		memcpy(nest->around[nest->depth - 1].first, inner->behind,
		       sizeof(inner->behind));
}

static void nest_enter(struct nest *nest, const struct addr_range *inner)
{
	struct addr_range *outer;

	while (nest->depth) {
		outer = &nest->around[nest->depth - 1];
		if (outer->open || memcmp(outer->behind, inner->first,
					  sizeof(inner->first)) > 0)
			break;
		nest_leave(nest);
	}
	if (nest->depth) {
		outer = &nest->around[nest->depth - 1];
		range_emit(nest, outer->first, inner->first, false, outer);
	}
	nest->around[nest->depth++] = *inner;
}

int ranges_of_map(struct range_source *sources, size_t source_count,
		  unsigned int bits, struct addr_range **out, size_t *count)
{
	struct nest nest = {
		.bits = bits,
		.family = source_count ? sources[0].prefix.family : AF_UNSPEC,
	};
	struct addr_range range;

	/* Each prefix begins one range and ends one, of the one around it. */
	nest.out = calloc(source_count * 2 + 1, sizeof(*nest.out));
	if (!nest.out)
		return -ENOMEM;
	if (source_count)
		qsort(sources, source_count, sizeof(*sources), map_compare);
	for (size_t i = 0; i < source_count; i++) {
		if (i && !map_compare(&sources[i - 1], &sources[i]))
			continue;
		range_of_prefix(&sources[i].prefix, &range);
		range.chain = sources[i].chain;
		nest_enter(&nest, &range);
	}
	while (nest.depth)
		nest_leave(&nest);
	*out = nest.out;
	*count = nest.count;
	return 0;
}

int ranges_union(const struct addr_range *one, size_t one_count,
		 const struct addr_range *other, size_t other_count,
		 struct addr_range **out, size_t *count)
{
	struct addr_range *both =
		calloc(one_count + other_count + 1, sizeof(*both));
	size_t at = 0;

	if (!both)
		return -ENOMEM;
	for (size_t i = 0; i < one_count + other_count; i++) {
		bool take = at < one_count &&
			    (i - at == other_count ||
			     range_compare(&one[at], &other[i - at]) <= 0);

		both[i] = take ? one[at] : other[i - at];
		at += take;
	}
	*count = ranges_merge(both, one_count + other_count, false);
	*out = both;
	return 0;
}

int ranges_beyond(const struct addr_range *all, size_t all_count,
		  const struct addr_range *other, size_t other_count,
		  struct addr_range **out, size_t *count)
{
	struct addr_range *beyond = calloc(all_count + 1, sizeof(*beyond));
	size_t at = 0, made = 0;

	if (!beyond)
		return -ENOMEM;
	for (size_t i = 0; i < all_count; i++) {
		while (at < other_count &&
		       range_compare(&other[at], &all[i]) < 0)
			at++;
		if (at == other_count || !range_same(&all[i], &other[at]))
			beyond[made++] = all[i];
	}
	*out = beyond;
	*count = made;
	return 0;
}
