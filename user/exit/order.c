/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The order of exits for each source (section 5.1, relaxed ingress filtering).
 *
 * A source may leave by every exit whose provider lets it pass: one with a prefix
 * around it, its own or authorised, or one that checks nothing. The owner, with the
 * longest own prefix, comes first, for answers come that way; then the greater weight,
 * then the lesser name, which conf has them by.
 *
 * A table's number is where a digest of its exits' names falls among TABLES_MOST, or the
 * next that is free: exits first, by name, then choices, by address. When two fall on one
 * place a reload may move the second; packets under way to it may then be refused, once.
 *
 * The prefixes lie in each other or side by side: sorted by address, the wider first,
 * those around one are a stack.
 */
#include "exit/order.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "exit/internal.h"

#define DEPTH_MAX 129 /* of prefixes in each other: 0 to 128 bits */

_Static_assert(CONF_EXITS_MAX <= 64, "exits are bits of a word");

struct entry {
	struct prefix prefix;
	uint8_t exit; /* index */
	bool own;
};

struct sweep {
	const struct conf *conf;
	uint64_t unchecked[2]; /* exits that let anything pass: IPv4, IPv6 */
	struct {
		struct prefix prefix;
		uint64_t allowed;
		int owner; /* index, or -1 */
	} around[DEPTH_MAX];
	size_t depth;
	bool taken[TABLES_MOST];
	uint32_t beyond; /* tables for which there was no place */
};

static uint32_t table_take(struct sweep *sweep, uint64_t digest)
{
	for (uint32_t i = 0; i < TABLES_MOST; i++) {
		uint32_t at = (uint32_t)((digest + i) % TABLES_MOST);

		if (!sweep->taken[at]) {
			sweep->taken[at] = true;
			return EXIT_TABLE + 1 + at;
		}
	}
	return EXIT_TABLE + 1 + TABLES_MOST + sweep->beyond++;
}

static uint64_t name_digest(const struct conf_exit *exit)
{
	return exit_digest(EXIT_DIGEST, exit->name, strlen(exit->name));
}

static void exits_number(struct sweep *sweep, struct exit_order *order)
{
	const struct conf_exit *exits = sweep->conf->exits;

	for (size_t i = 0; i < sweep->conf->exit_count; i++)
		order->tables[i] = table_take(sweep, name_digest(&exits[i]));
}

/* Of several exits, in whatever order. */
static uint64_t choice_digest(const struct conf *conf,
			      const struct exit_choice *choice)
{
	uint64_t digest = 0;

	for (size_t i = 0; i < choice->count; i++)
		digest += name_digest(&conf->exits[choice->exits[i]]);
	if (choice->owner >= 0)
		digest = exit_digest(digest, conf->exits[choice->owner].name,
				     strlen(conf->exits[choice->owner].name));
	return digest;
}

static int entry_compare(const void *left, const void *right)
{
	const struct entry *a = left, *b = right;
	int order = (a->prefix.family > b->prefix.family) -
		    (a->prefix.family < b->prefix.family);

	if (!order)
		order = memcmp(a->prefix.bytes, b->prefix.bytes,
			       sizeof(a->prefix.bytes));
	return order ? order :
		       (a->prefix.bits > b->prefix.bits) -
			       (a->prefix.bits < b->prefix.bits);
}

static size_t entries_take(struct entry *out, const struct prefix *list,
			   size_t count, size_t exit, bool own)
{
	for (size_t i = 0; i < count; i++)
		out[i] = (struct entry){ list[i], (uint8_t)exit, own };
	return count;
}

static int entries_make(const struct conf *conf, struct entry **out,
			size_t *count)
{
	struct entry *entries;
	size_t room = 1, used = 0;

	for (size_t i = 0; i < conf->exit_count; i++)
		room += conf->exits[i].prefix_count +
			conf->exits[i].authorised_count;
	entries = calloc(room, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	for (size_t i = 0; i < conf->exit_count; i++) {
		const struct conf_exit *exit = &conf->exits[i];

		if (!exit_leads(exit))
			continue;
		used += entries_take(entries + used, exit->prefixes,
				     exit->prefix_count, i, true);
		used += entries_take(entries + used, exit->authorised,
				     exit->authorised_count, i, false);
	}
	qsort(entries, used, sizeof(*entries), entry_compare);
	*out = entries;
	*count = used;
	return 0;
}

/* With next hops of the other family alone there is no way for this one. */
static bool family_goes(const struct conf_exit *exit, sa_family_t family)
{
	for (size_t i = 0; i < exit->next_hop_count; i++)
		if (addr_family(&exit->next_hops[i]) == family)
			return true;
	return !exit->next_hop_count;
}

static void unchecked_find(struct sweep *sweep)
{
	for (size_t i = 0; i < sweep->conf->exit_count; i++) {
		const struct conf_exit *exit = &sweep->conf->exits[i];

		if (!exit_leads(exit) || !exit->unchecked)
			continue;
		if (family_goes(exit, AF_INET))
			sweep->unchecked[0] |= UINT64_C(1) << i;
		if (family_goes(exit, AF_INET6))
			sweep->unchecked[1] |= UINT64_C(1) << i;
	}
}

static bool prefix_within(const struct prefix *outer,
			  const struct prefix *inner)
{
	union addr first;

	addr_from_bytes(&first, inner->family, inner->bytes, 0);
	return outer->bits <= inner->bits && prefix_contains(outer, &first);
}

/* Goes on to a prefix: what is around it stays. */
static void sweep_enter(struct sweep *sweep, const struct prefix *prefix)
{
	size_t at;

	while (sweep->depth &&
	       !prefix_within(&sweep->around[sweep->depth - 1].prefix, prefix))
		sweep->depth--;
	at = sweep->depth++;
	sweep->around[at].prefix = *prefix;
	sweep->around[at].allowed =
		at ? sweep->around[at - 1].allowed :
		     sweep->unchecked[prefix->family == AF_INET6];
	sweep->around[at].owner = at ? sweep->around[at - 1].owner : -1;
}

/* Does exit a come before b, neither of them being the owner? */
static bool comes_before(const struct conf *conf, size_t a, size_t b)
{
	unsigned int left = conf->exits[a].weight,
		     right = conf->exits[b].weight;

	return left != right ? left > right : a < b;
}

static void choice_fill(const struct conf *conf, struct exit_choice *choice)
{
	for (size_t i = 0; i < conf->exit_count; i++) {
		size_t at = choice->count;

		if (!(choice->allowed >> i & 1))
			continue;
		while (at && (int)choice->exits[at - 1] != choice->owner &&
		       ((int)i == choice->owner ||
			comes_before(conf, i, choice->exits[at - 1]))) {
			choice->exits[at] = choice->exits[at - 1];
			at--;
		}
		choice->exits[at] = (uint8_t)i;
		choice->count++;
	}
}

static int choice_find(struct sweep *sweep, struct exit_order *order,
		       size_t *out)
{
	uint64_t allowed = sweep->around[sweep->depth - 1].allowed;
	int owner = sweep->around[sweep->depth - 1].owner;
	struct exit_choice *choice;

	for (size_t i = 0; i < order->choice_count; i++) {
		choice = &order->choices[i];
		if (choice->allowed == allowed && choice->owner == owner) {
			*out = i;
			return 0;
		}
	}
	choice = exit_array_add((void **)&order->choices, &order->choice_count,
				sizeof(*choice));
	if (!choice)
		return -ENOMEM;
	choice->allowed = allowed;
	choice->owner = owner;
	choice_fill(sweep->conf, choice);
	/* Of one exit alone it is that exit's, whatever else there is. */
	choice->table =
		choice->count == 1 ?
			order->tables[choice->exits[0]] :
			table_take(sweep, choice_digest(sweep->conf, choice));
	*out = order->choice_count - 1;
	return 0;
}

static int source_add(struct sweep *sweep, struct exit_order *order)
{
	struct exit_source *source = exit_array_add((void **)&order->sources,
						    &order->source_count,
						    sizeof(*source));
	int err;

	if (!source)
		return -ENOMEM;
	source->prefix = sweep->around[sweep->depth - 1].prefix;
	err = choice_find(sweep, order, &source->choice);
	if (!err && source->prefix.family == AF_INET)
		order->choices[source->choice].ipv4 = true;
	return err;
}

/* Entries of one prefix stand together and make one source. */
static int entries_sweep(struct sweep *sweep, const struct entry *entries,
			 size_t count, struct exit_order *order)
{
	int err = 0;

	for (size_t i = 0; i < count && !err; i++) {
		const struct entry *entry = &entries[i];

		if (!i ||
		    prefix_compare(&entries[i - 1].prefix, &entry->prefix) != 0)
			sweep_enter(sweep, &entry->prefix);
		sweep->around[sweep->depth - 1].allowed |= UINT64_C(1)
							   << entry->exit;
		if (entry->own)
			sweep->around[sweep->depth - 1].owner = entry->exit;
		if (i + 1 == count ||
		    prefix_compare(&entries[i + 1].prefix, &entry->prefix) != 0)
			err = source_add(sweep, order);
	}
	return err;
}

int exit_order_make(const struct conf *conf, struct exit_order *out)
{
	struct exit_order order = { 0 };
	struct sweep sweep = { .conf = conf };
	struct entry *entries;
	size_t count;
	int err = entries_make(conf, &entries, &count);

	if (err)
		return err;
	unchecked_find(&sweep);
	exits_number(&sweep, &order);
	err = entries_sweep(&sweep, entries, count, &order);
	free(entries);
	if (err)
		exit_order_clear(&order);
	else
		*out = order;
	return err;
}

void exit_order_clear(struct exit_order *order)
{
	free(order->sources);
	free(order->choices);
	*order = (struct exit_order){ 0 };
}
