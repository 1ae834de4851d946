/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables with sets of ranges (see sets.h): what changes is elements, within one
 * transaction.
 *
 *   unknown -> (looked at) none, nobody's, known
 *   none, nobody's, known -> (a change) known, or if it has failed, unknown
 *
 * The kernel is asked for the elements once: the table is ours alone from then on.
 * Where kernels know no owners, somebody else may change it, and we are told (nft.h);
 * it is made anew then, for nothing in it is certain. What it should have but for elements
 * is told by its comment, and what an earlier process has left is compared with that.
 */
#include "exit/sets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "exit/nft_digest.h"

#define READS        8 /* while others change nftables */
#define BLOCKS_SPARE 16384 /* places of a hash, 16 bytes each */
#define SAMPLE       "culvert_sample" /* of a table, to compare it with */

void sets_name(const char *name, unsigned int bits, char out[BATCH_NAME])
{
	if (bits)
		snprintf(out, BATCH_NAME, "%.20s_%u", name, bits);
	else
		snprintf(out, BATCH_NAME, "%s", name);
}

struct range_set *sets_add(struct range_sets *sets, const char *name,
			   sa_family_t family, unsigned int bits)
{
	struct range_set *set =
		exit_array_add((void **)&sets->all, &sets->count, sizeof(*set));

	if (!set)
		return NULL;
	snprintf(set->name, sizeof(set->name), "%s", name);
	set->family = family;
	set->bits = (uint8_t)bits;
	return set;
}

void sets_clear(struct range_sets *sets)
{
	for (size_t i = 0; i < sets->count; i++)
		free(sets->all[i].ranges);
	free(sets->all);
	*sets = (struct range_sets){ .state = SETS_UNKNOWN };
}

int sets_union(const struct range_sets *one, const struct range_sets *other,
	       struct range_sets *out)
{
	struct range_sets both = { .state = SETS_KNOWN };
	int err = 0;

	for (size_t i = 0; i < one->count && !err; i++) {
		const struct range_set *a = &one->all[i], *b = &other->all[i];
		struct range_set *set =
			sets_add(&both, a->name, a->family, a->bits);

		err = set ? ranges_union(a->ranges, a->count, b->ranges,
					 b->count, &set->ranges, &set->count) :
			    -ENOMEM;
	}
	if (err)
		sets_clear(&both);
	else
		*out = both;
	return err;
}

/* Of a set and the one beside it, if there is, or of that one alone. */
static int ranges_read(struct nft *nft, const struct sets_table *table,
		       const struct range_set *set, unsigned int bits,
		       struct addr_range **out, size_t *count)
{
	const struct prefix block = { .family = set->family,
				      .bits = (uint8_t)bits };
	char name[BATCH_NAME];
	int err = -EAGAIN;

	sets_name(set->name, bits, name);
	for (int i = 0; i < READS && err == -EAGAIN; i++)
		err = nft_ranges_read(nft, table->name, name,
				      bits ? &block : NULL, table->read, out,
				      count);
	return err;
}

/* What is in the set, and beside it. */
static int set_read(struct nft *nft, const struct sets_table *table,
		    struct range_set *set)
{
	struct addr_range *wide, *blocks = NULL;
	size_t wide_count, block_count = 0;
	int err = ranges_read(nft, table, set, 0, &wide, &wide_count);

	if (err)
		return err;
	if (set->bits)
		err = ranges_read(nft, table, set, set->bits, &blocks,
				  &block_count);
	if (!err)
		err = ranges_union(wide, wide_count, blocks, block_count,
				   &set->ranges, &set->count);
	free(blocks);
	free(wide);
	return err;
}

/* The sets that `want` has, as they are. */
static int sets_read(struct nft *nft, const struct sets_table *table,
		     const struct range_sets *want, struct range_sets *out)
{
	struct range_sets read = { .state = SETS_KNOWN };
	int err = 0;

	for (size_t i = 0; i < want->count && !err; i++) {
		struct range_set *set = sets_add(&read, want->all[i].name,
						 want->all[i].family,
						 want->all[i].bits);

		err = set ? set_read(nft, table, set) : -ENOMEM;
	}
	if (err)
		sets_clear(&read);
	else
		*out = read;
	return err;
}

/* What a transaction changes of a set: the ranges that are one's, not the other's. */
struct part {
	struct addr_range *gone, *come;
	size_t gone_count, come_count;
	size_t gone_blocks, come_blocks; /* of them, which are the first */
};

struct filling {
	const struct sets_table *table;
	const struct conf *conf;
	const struct range_sets *want;
	struct part *parts; /* one for each set */
	size_t gone, come; /* in all */
	bool whole;
	bool alone; /* without what goes with the table */
};

static void filling_clear(struct filling *filling)
{
	for (size_t i = 0; filling->parts && i < filling->want->count; i++) {
		free(filling->parts[i].gone);
		free(filling->parts[i].come);
	}
	free(filling->parts);
}

static int filling_make(struct filling *filling, const struct range_sets *have)
{
	const struct range_sets *want = filling->want;
	const struct range_set none = { .count = 0 };
	int err = 0;

	filling->parts = calloc(want->count + 1, sizeof(*filling->parts));
	if (!filling->parts)
		return -ENOMEM;
	for (size_t i = 0; i < want->count && !err; i++) {
		const struct range_set *is = filling->whole ? &none :
							      &have->all[i];
		const struct range_set *be = &want->all[i];
		struct part *part = &filling->parts[i];

		err = ranges_beyond(is->ranges, is->count, be->ranges,
				    be->count, &part->gone, &part->gone_count);
		if (!err)
			err = ranges_beyond(be->ranges, be->count, is->ranges,
					    is->count, &part->come,
					    &part->come_count);
		if (err)
			break;
		part->gone_blocks = ranges_part(part->gone, part->gone_count,
						be->family, be->bits);
		part->come_blocks = ranges_part(part->come, part->come_count,
						be->family, be->bits);
		filling->gone += part->gone_count;
		filling->come += part->come_count;
	}
	return err;
}

/*
 * Room for thousands to come, for a table that does not suffice is made anew: Linux 6.18
 * puts its rules in force a few milliseconds before the ranges that they look at (the
 * array behind nft_rbtree_lookup() comes last), and packets are refused meanwhile. A hash
 * that grows by itself does so in a thread of the kernel, which may wait for a processor
 * while we fill it: 140 to 490 ms for 10,000 prefixes.
 */
static uint32_t blocks_room(const struct part *part)
{
	return (uint32_t)(2 * part->come_blocks + BLOCKS_SPARE);
}

static void table_fill(struct nft_batch *batch, const struct filling *filling)
{
	const struct range_sets *want = filling->want;

	bool map = filling->table->format != NULL;
	char name[BATCH_NAME];

	for (size_t i = 0; i < want->count; i++) {
		const struct range_set *set = &want->all[i];

		batch_set(batch, set->name, set->family, 0, map);
		sets_name(set->name, set->bits, name);
		if (set->bits)
			batch_set(batch, name, set->family,
				  blocks_room(&filling->parts[i]), map);
	}
	filling->table->make(batch, filling->conf);
	if (filling->table->beside && !filling->alone)
		filling->table->beside(batch, filling->conf);
}

/* Takes these ranges of a set out, or puts them in. */
static void ranges_put(struct nft_batch *batch, const struct filling *filling,
		       const struct range_set *set,
		       const struct addr_range *ranges, size_t count,
		       size_t blocks, bool there)
{
	char name[BATCH_NAME];
	struct batch_elements what = { .set = name,
				       .family = set->family,
				       .format = filling->table->format,
				       .ranges = ranges,
				       .count = blocks,
				       .blocks = true };

	sets_name(set->name, set->bits, name);
	batch_elements(batch, &what, there);
	what.set = set->name;
	what.ranges += blocks;
	what.count = count - blocks;
	what.blocks = false;
	batch_elements(batch, &what, there);
}

static void filling_put(struct nft_batch *batch, void *arg)
{
	const struct filling *filling = arg;
	const struct range_sets *want = filling->want;

	if (filling->whole)
		table_fill(batch, filling);
	else if (filling->table->adopt && !filling->alone)
		filling->table->adopt(batch, filling->conf);
	for (size_t i = 0; i < want->count; i++) {
		const struct part *part = &filling->parts[i];

		ranges_put(batch, filling, &want->all[i], part->gone,
			   part->gone_count, part->gone_blocks, false);
		ranges_put(batch, filling, &want->all[i], part->come,
			   part->come_count, part->come_blocks, true);
	}
}

static void removal_put(struct nft_batch *batch, void *arg)
{
	const struct filling *filling = arg;

	if (filling->table->forget)
		filling->table->forget(batch);
}

/* Sets that change by elements, which are looked at one by one. */
static bool is_range_set(void *arg, const char *set)
{
	const struct range_sets *want = arg;
	char name[BATCH_NAME];

	for (size_t i = 0; i < want->count; i++) {
		const struct range_set *one = &want->all[i];

		sets_name(one->name, one->bits, name);
		if (!strcmp(set, one->name) || !strcmp(set, name))
			return true;
	}
	return false;
}

static void sample_fill(struct nft_batch *batch, void *arg)
{
	table_fill(batch, arg);
}

/*
 * Has a table that was nobody's for a while the chains and rules that it should have?
 * Another one is made for that, which no packet sees: the kernel's words for both must be
 * the same.
 */
static bool table_genuine(struct nft *nft, const struct sets_table *table,
			  const struct conf *conf,
			  const struct range_sets *want)
{
	struct filling filling = { .table = table, .conf = conf, .want = want };
	struct nft_change sample = { .how = NFT_REPLACE,
				     .table = SAMPLE,
				     .comment = table->comment,
				     .fill = sample_fill,
				     .arg = &filling,
				     .asleep = true };
	const struct nft_digest what = { is_range_set, (void *)want };
	uint64_t is = 0, should = 0;
	int err;

	filling.parts = calloc(want->count + 1, sizeof(*filling.parts));
	if (!filling.parts)
		return false;
	err = nft_commit(nft, &sample);
	/* As in filling_commit. */
	if (err && table->without) {
		filling.alone = true;
		err = nft_commit(nft, &sample);
	}
	filling_clear(&filling);
	if (err)
		return false;
	err = nft_digest(table->name, &what, &is);
	if (!err)
		err = nft_digest(SAMPLE, &what, &should);
	sample.how = NFT_REMOVE;
	sample.fill = removal_put;
	nft_commit(nft, &sample);
	if (!err && is == should)
		return true;
	log_warn(ROOM,
		 "event=nftables_strange table=\"inet %s\" reason=\"%s\" "
		 "effect=\"it is made anew\"",
		 table->name,
		 err ? "it cannot be compared with what it should be" :
		       "somebody has changed it while no culvertd had it");
	return false;
}

int sets_look(struct nft *nft, const struct sets_table *table,
	      const struct conf *conf, bool again, bool dry,
	      const struct range_sets *want, struct range_sets *have)
{
	bool known = have->state == SETS_KNOWN;
	struct nft_found found;
	int err = nft_table_read(nft, table->name, &found);

	if (!err && (strcmp(found.comment, table->comment) != 0 ||
		     !nft_keepable(nft, &found) ||
		     (known && again && !nft_owned(nft, &found))))
		err = -ENOENT;
	if (!err && known)
		return 0;
	sets_clear(have);
	if (!err && !dry && !found.owner &&
	    !table_genuine(nft, table, conf, want))
		err = -ENOENT;
	if (!err)
		err = sets_read(nft, table, want, have);
	if (err && err != -ENOENT)
		return err;
	have->state = err                        ? SETS_NONE :
		      nft_adoptable(nft, &found) ? SETS_NOBODYS :
						   SETS_KNOWN;
	return 0;
}

static void change_told(struct exit_change *change, char sign,
			const struct filling *filling, int err)
{
	const struct sets_table *table = filling->table;

	change->count++;
	if (change->out)
		fprintf(change->out, "%c table inet %s: ranges +%zu -%zu\n",
			sign, table->name, filling->come, filling->gone);
	if (!err)
		return;
	log_error(ROOM,
		  "event=nftables_failed table=\"inet %s\" error=\"%s\" "
		  "effect=\"%s\" hint=\"%s\"",
		  table->name, strerror(-err), table->effect,
		  err == -EPERM ?
			  "another process owns it: see nft list tables" :
			  "see nft list ruleset");
	if (!change->error)
		change->error = err;
}

/* With what goes with the table, or else without. */
static int filling_commit(struct nft *nft, const struct nft_change *what,
			  struct filling *filling)
{
	int err = nft_commit(nft, what);

	if (!err || !filling->table->without)
		return err;
	filling->alone = true;
	if (nft_commit(nft, what))
		return err;
	filling->table->without(filling->conf, err);
	return 0;
}

int sets_commit(struct nft *nft, const struct sets_table *table,
		const struct conf *conf, struct range_sets *want,
		struct range_sets *have, struct exit_change *change)
{
	struct filling filling = { .table = table,
				   .conf = conf,
				   .want = want,
				   .whole = have->state == SETS_NONE };
	const struct nft_change what = { .how = filling.whole ? NFT_REPLACE :
						have->state == SETS_NOBODYS ?
								NFT_ADOPT :
								NFT_CHANGE,
					 .table = table->name,
					 .comment = table->comment,
					 .fill = filling_put,
					 .arg = &filling,
					 .dry = change->dry };
	int err = filling_make(&filling, have);
	bool differs = filling.whole || filling.come || filling.gone;

	if (!err && (differs || (have->state == SETS_NOBODYS && !what.dry))) {
		err = filling_commit(nft, &what, &filling);
		if (err == -ENFILE && !filling.whole) {
			filling_clear(&filling);
			have->state = SETS_NONE;
			return sets_commit(nft, table, conf, want, have,
					   change);
		}
		/* A plan beside the helper, whose table this is. */
		if (what.dry && err == -EPERM)
			err = 0;
		if (differs || err)
			change_told(change, filling.whole ? '+' : '~', &filling,
				    err);
	}
	filling_clear(&filling);
	if (err) {
		have->state = SETS_UNKNOWN;
	} else if (!change->dry) {
		sets_clear(have);
		*have = *want;
		have->state = SETS_KNOWN;
		*want = (struct range_sets){ .state = SETS_UNKNOWN };
	}
	return err;
}

int sets_remove(struct nft *nft, const struct sets_table *table,
		struct range_sets *have, struct exit_change *change)
{
	struct filling filling = { .table = table };
	struct nft_found found;
	const struct nft_change what = { .how = NFT_REMOVE,
					 .table = table->name,
					 .comment = "",
					 .fill = removal_put,
					 .arg = &filling,
					 .dry = change->dry };
	int err = nft_table_read(nft, table->name, &found);

	if (err)
		return err == -ENOENT ? 0 : err;
	err = nft_commit(nft, &what);
	if (what.dry && err == -EPERM)
		err = 0;
	sets_clear(have);
	change_told(change, '-', &filling, err);
	return err;
}
