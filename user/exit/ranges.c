/* SPDX-License-Identifier: BSD-2-Clause */
/* Prefixes as the ranges of an interval set, which must not touch each other. */
#include "exit/ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static size_t width(sa_family_t family)
{
	return family == AF_INET6 ? 16 : 4;
}

static void range_make(const struct prefix *prefix, struct addr_range *out)
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

static int range_compare(const void *left, const void *right)
{
	const struct addr_range *a = left, *b = right;

	return memcmp(a->first, b->first, sizeof(a->first));
}

/* Does b begin within a or right behind it? a begins before b. */
static bool ranges_touch(const struct addr_range *a, const struct addr_range *b)
{
	return a->open || memcmp(b->first, a->behind, sizeof(a->behind)) <= 0;
}

static size_t ranges_merge(struct addr_range *ranges, size_t count)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++) {
		struct addr_range *last = kept ? &ranges[kept - 1] : NULL;

		if (!last || !ranges_touch(last, &ranges[i])) {
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
			range_make(&list[i], &out[taken++]);
	return taken;
}

static void ranges_order(struct addr_range *ranges, size_t used,
			 struct addr_range **out, size_t *count)
{
	qsort(ranges, used, sizeof(*ranges), range_compare);
	*count = ranges_merge(ranges, used);
	*out = ranges;
}

int ranges_of_prefixes(const struct prefix *prefixes, size_t prefix_count,
		       struct addr_range **out, size_t *count)
{
	struct addr_range *ranges = calloc(prefix_count + 1, sizeof(*ranges));

	if (!ranges)
		return -ENOMEM;
	for (size_t i = 0; i < prefix_count; i++)
		range_make(&prefixes[i], &ranges[i]);
	ranges_order(ranges, prefix_count, out, count);
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
	ranges_order(ranges, used, out, count);
	return 0;
}
