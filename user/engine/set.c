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

#include "engine/private.h"

const struct engine_ops *const engine_all[] = {
	&engine_splice,
	&engine_uring,
	&engine_copy,
	NULL,
};

struct entry {
	const struct engine_ops *ops;
	struct engine *engine; /* NULL: not available */
	int error;
};

struct engine_set {
	size_t count;
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

/* -EINVAL when a name is unknown or comes twice. */
static int names_resolve(struct engine_set *set, const char *const *order,
			 size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct engine_ops *ops = ops_find(order[i]);

		if (!ops)
			return -EINVAL;
		for (size_t k = 0; k < i; k++)
			if (set->entries[k].ops == ops)
				return -EINVAL;
		set->entries[i].ops = ops;
	}
	set->count = count;
	return 0;
}

int engine_set_new(struct loop *loop, const struct engine_params *params,
		   const char *const *order, size_t count,
		   void (*unavailable)(void *arg, const char *name, int error),
		   void *arg, struct engine_set **out)
{
	struct engine_set *set;
	size_t open = 0;
	int err;

	set = calloc(1, sizeof(*set) + count * sizeof(set->entries[0]));
	if (!set)
		return -ENOMEM;
	err = names_resolve(set, order, count);
	if (err)
		goto free_set;
	engine_ignore_sigpipe();
	for (size_t i = 0; i < count; i++) {
		struct entry *entry = &set->entries[i];

		entry->error = entry->ops->open(loop, params, &entry->engine);
		if (!entry->error)
			open++;
		else if (unavailable)
			unavailable(arg, entry->ops->name, entry->error);
	}
	err = -ENODEV;
	if (!open)
		goto free_set;
	*out = set;
	return 0;

free_set:
	free(set);
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

int engine_set_attach(struct engine_set *set, struct engine_link *link)
{
	int err = -ENODEV;

	for (size_t i = 0; i < set->count; i++) {
		struct entry *entry = &set->entries[i];

		if (!entry->engine)
			continue;
		err = entry->ops->attach(entry->engine, link);
		if (!err)
			return 0;
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
		.name = entry->ops->name,
		.position = (unsigned int)i + 1,
		.error = entry->error,
	};
	if (entry->engine) {
		out->links_now = entry->engine->links_now;
		out->links_total = entry->engine->links_total;
	}
	return true;
}
