/* SPDX-License-Identifier: BSD-2-Clause */
/* Counts by source: a place in the table while the count is above 0. */
#include "turn/source.h"

#include <errno.h>
#include <stdlib.h>

#include "base/list.h"

struct source {
	struct table_node node;
	union addr site;
	unsigned int count; /* > 0 */
};

int turn_sources_init(struct turn_sources *sources)
{
	int err = table_init(&sources->table);

	if (err)
		return err;
	pthread_mutex_init(&sources->lock, NULL);
	return 0;
}

void turn_sources_destroy(struct turn_sources *sources)
{
	table_destroy(&sources->table);
	pthread_mutex_destroy(&sources->lock);
}

static uint64_t site_hash(const union addr *site)
{
	size_t len;
	const uint8_t *bytes = addr_bytes(site, &len);

	return table_hash(bytes, len);
}

static struct source *source_find(const struct turn_sources *sources,
				  const union addr *site)
{
	struct table_node *node = table_first(&sources->table, site_hash(site));

	for (; node; node = table_next(node)) {
		struct source *source = list_entry(node, struct source, node);

		if (addr_same_host(&source->site, site))
			return source;
	}
	return NULL;
}

static struct source *source_add(struct turn_sources *sources,
				 const union addr *site)
{
	struct source *source = calloc(1, sizeof(*source));

	if (!source)
		return NULL;
	source->site = *site;
	table_insert(&sources->table, &source->node, site_hash(site));
	return source;
}

bool turn_source_take(struct turn_sources *sources, const union addr *client,
		      unsigned int limit)
{
	struct source *source;
	union addr site;
	bool taken;

	addr_site(client, &site);
	pthread_mutex_lock(&sources->lock);
	source = source_find(sources, &site);
	if (!source)
		source = source_add(sources, &site);
	taken = source && (!limit || source->count < limit);
	if (taken)
		source->count++;
	pthread_mutex_unlock(&sources->lock);
	return taken;
}

void turn_source_release(struct turn_sources *sources, const union addr *client)
{
	struct source *source;
	union addr site;

	addr_site(client, &site);
	pthread_mutex_lock(&sources->lock);
	source = source_find(sources, &site);
	if (source && --source->count == 0) {
		table_remove(&sources->table, &source->node);
		free(source);
	}
	pthread_mutex_unlock(&sources->lock);
}
