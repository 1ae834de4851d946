/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engines of one worker, tried in the configured order.
 *
 * A set is made whole: every engine named is opened once, here, and what cannot
 * be opened stays as a row with its reason. Attaching asks the open ones in
 * order; the first that takes the link keeps it until it is detached.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/syscalls.h"
#include "engine/private.h"

SYSCALLS_EQUAL(SYSCALLS_RELAY, "rt_sigaction", 0, SIGPIPE);

const struct engine_ops *const engine_all[] = {
	&engine_splice, &engine_uring, &engine_sockmap, &engine_copy, NULL,
};

struct entry {
	const char *name;
	const struct engine_ops *ops; /* NULL: not in this build */
	unsigned int
		position; /* in the order as it was given, from 1; 0: extra */
	struct engine *engine; /* NULL: not available */
	int error;
};

struct engine_set {
	size_t count;
	size_t ordered; /* so many of them are in the order */
	int ktls; /* 0: seals may be handed to the kernel */
	uint64_t *seals; /* of the parameters */
	struct entry entries[];
};

void engine_ignore_sigpipe(void)
{
	struct sigaction now;

	if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL)
		signal(SIGPIPE, SIG_IGN);
}

static const struct engine_ops *ops_find(const char *name)
{
	for (size_t i = 0; engine_all[i]; i++)
		if (!strcmp(engine_all[i]->name, name))
			return engine_all[i];
	return NULL;
}

static struct entry *entry_find(struct engine_set *set, const char *name)
{
	for (size_t i = 0; i < set->count; i++)
		if (!strcmp(set->entries[i].name, name))
			return &set->entries[i];
	return NULL;
}

/* The name of an engine that a build may lack, or NULL. */
static const char *name_optional(const char *name)
{
	static const char sockmap[] = "sockmap";

	return strcmp(name, sockmap) == 0 ? sockmap : NULL;
}

/*
 * Adds those not there yet. -EINVAL when a name is unknown. "wire" moves no flows
 * and is no engine of a set: it takes a pair before the set is asked.
 */
static int names_resolve(struct engine_set *set, const char *const *names,
			 size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct entry *entry = &set->entries[set->count];

		if (!strcmp(names[i], "wire") || entry_find(set, names[i]))
			continue;
		entry->ops = ops_find(names[i]);
		entry->name = entry->ops ? entry->ops->name :
					   name_optional(names[i]);
		if (!entry->name)
			return -EINVAL;
		entry->position = (unsigned int)i + 1;
		set->count++;
	}
	return 0;
}

/* A name that comes twice is a mistake in the order, none among the extras. */
static bool names_differ(const char *const *names, size_t count)
{
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < i; k++)
			if (!strcmp(names[k], names[i]))
				return false;
	return true;
}

/* 0 when it can be used. */
static int entry_open(struct entry *entry, struct loop *loop,
		      const struct engine_params *params)
{
	if (!entry->ops)
		return -ENOSYS;
	return entry->ops->open(loop, params, &entry->engine);
}

int engine_set_new(struct loop *loop, const struct engine_params *params,
		   const char *const *order, size_t count,
		   void (*unavailable)(void *arg, const char *name, int error),
		   void *arg, struct engine_set **out)
{
	struct engine_set *set;
	size_t open = 0;
	int err;

	if (!names_differ(order, count))
		return -EINVAL;
	set = calloc(1, sizeof(*set) + (count + params->extra_count) *
					       sizeof(set->entries[0]));
	if (!set)
		return -ENOMEM;
	err = names_resolve(set, order, count);
	set->ordered = set->count;
	if (!err)
		err = names_resolve(set, params->extra, params->extra_count);
	if (err)
		goto free_set;
	engine_ignore_sigpipe();
	set->ktls = params->ktls ? engine_ktls_probe() : -ECANCELED;
	set->seals = params->seals;
	for (size_t i = 0; i < set->count; i++) {
		struct entry *entry = &set->entries[i];

		entry->error = entry_open(entry, loop, params);
		if (!entry->error)
			open += i < set->ordered;
		else if (unavailable)
			unavailable(arg, entry->name, entry->error);
	}
	err = -ENODEV;
	if (!open)
		goto free_set;
	*out = set;
	return 0;

free_set:
	engine_set_free(set);
	return err;
}

void engine_set_free(struct engine_set *set)
{
	if (!set)
		return;
	for (size_t i = 0; i < set->count; i++)
		if (set->entries[i].engine)
			set->entries[i].ops->close(set->entries[i].engine);
	free(set);
}

static bool link_sealed(const struct engine_link *link)
{
	return link->flow[0].from_seal || link->flow[0].to_seal;
}

static bool link_paced(const struct engine_link *link)
{
	for (int i = 0; i < 2; i++)
		if (link->flow[i].rates && link->flow[i].rates->count)
			return true;
	return false;
}

/* Does the kernel seal, if there is anything to? It is asked once. */
static bool seal_moves(const struct engine_set *set, struct seal *seal)
{
	if (!seal)
		return true;
	if (seal->place == SEAL_UNDECIDED && set->ktls == -ECANCELED)
		seal->place = SEAL_KEPT_OFF;
	else if (seal->place == SEAL_UNDECIDED && set->ktls)
		seal->place = SEAL_KEPT_ABSENT;
	else if (seal->place == SEAL_UNDECIDED)
		seal->ops->offload(seal);
	return seal->place == SEAL_IN_KERNEL;
}

static bool entry_unseals(const struct engine_set *set,
			  const struct entry *entry,
			  const struct engine_link *link)
{
	switch (entry->ops->seals) {
	case ENGINE_SEALS_NONE:
		return false;
	case ENGINE_SEALS_KERNEL:
		return seal_moves(set, link->flow[0].from_seal) &&
		       seal_moves(set, link->flow[0].to_seal);
	case ENGINE_SEALS_ANY:
		break;
	}
	return true;
}

static void seal_count(struct engine_set *set, struct seal *seal)
{
	if (!seal)
		return;
	if (seal->place == SEAL_UNDECIDED)
		seal->place = SEAL_KEPT_ORDER;
	if (set->seals)
		set->seals[seal->place]++;
}

static int entry_attach(struct engine_set *set, struct entry *entry,
			struct engine_link *link)
{
	int err;

	if (!entry->engine)
		return -ENODEV;
	if ((link_sealed(link) && !entry_unseals(set, entry, link)) ||
	    (link_paced(link) && !entry->ops->paces))
		return -EOPNOTSUPP;
	err = entry->ops->attach(entry->engine, link);
	if (err)
		return err;
	seal_count(set, link->flow[0].from_seal);
	seal_count(set, link->flow[0].to_seal);
	return 0;
}

/* Four bits an engine, its place from 1, the first one lowest. */
#define PREFER_BITS 4

uint32_t engine_set_prefer(const struct engine_set *set,
			   const char *const *names, size_t count)
{
	uint32_t prefer = 0;
	unsigned int shift = 0;

	for (size_t i = 0; i < count && shift < 32; i++) {
		const struct entry *entry =
			entry_find((struct engine_set *)set, names[i]);
		size_t place = entry ? (size_t)(entry - set->entries) + 1 : 0;

		if (!place || place >= 1u << PREFER_BITS)
			continue;
		prefer |= (uint32_t)place << shift;
		shift += PREFER_BITS;
	}
	return prefer;
}

int engine_set_attach_prefer(struct engine_set *set, struct engine_link *link,
			     uint32_t prefer)
{
	for (; prefer; prefer >>= PREFER_BITS) {
		size_t place = prefer & ((1u << PREFER_BITS) - 1);

		if (!entry_attach(set, &set->entries[place - 1], link))
			return 0;
	}
	return engine_set_attach(set, link);
}

int engine_set_attach(struct engine_set *set, struct engine_link *link)
{
	size_t count = link_sealed(link) || link_paced(link) ? set->count :
							       set->ordered;
	int err = -ENODEV;

	for (size_t i = 0; i < count; i++) {
		int failed = entry_attach(set, &set->entries[i], link);

		if (!failed)
			return 0;
		if (set->entries[i].engine)
			err = failed;
	}
	return err;
}

void engine_link_detach(struct engine_link *link)
{
	struct link_state *state = link->state;

	link->ops->detach(state->engine, link);
}

size_t engine_link_held(const struct engine_link *link, const struct flow *f)
{
	return link->ops ? link->ops->held(link, f) : 0;
}

void engine_link_refresh(const struct engine_link *link)
{
	if (link->ops && link->ops->refresh)
		link->ops->refresh(link);
}

const char *engine_link_name(const struct engine_link *link)
{
	return link->ops ? link->ops->name : "-";
}

bool engine_set_usage(const struct engine_set *set, size_t i,
		      struct engine_usage *out)
{
	const struct entry *entry;

	if (i >= set->count)
		return false;
	entry = &set->entries[i];
	*out = (struct engine_usage){
		.name = entry->name,
		.position = i < set->ordered ? entry->position : 0,
		.error = entry->error,
	};
	if (entry->engine) {
		out->links_now = entry->engine->links_now;
		out->links_total = entry->engine->links_total;
	}
	return true;
}

int engine_set_ktls(const struct engine_set *set)
{
	return set->ktls;
}

uint64_t engine_set_sealed(const struct engine_set *set)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < set->count; i++)
		if (set->entries[i].engine)
			sum += set->entries[i].engine->kernel_now;
	return sum;
}
