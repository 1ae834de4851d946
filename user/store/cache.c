/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Answers of the database that are still good.
 *
 * There are two kinds, with a lifetime and a place of their own each: users, and
 * that there is no such user. So whoever asks for names that do not exist pushes
 * out only what others of his kind left behind. The longest unused one goes first.
 *
 * A mutex guards it: workers read it, the store's thread writes. An answer that was
 * asked for before the cache was cleared may be older than the change it was
 * cleared for: the generation tells, and such a one is not kept.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/table.h"
#include "store/internal.h"

struct kind {
	struct list used; /* the longest unused first */
	size_t count;
	uint64_t lifetime_ms;
};

struct entry {
	struct table_node node; /* under the hash */
	struct list link; /* of its kind's */
	struct kind *kind;
	uint64_t until_ms;
	uint8_t hash[STORE_HASH_LEN];
	uint8_t md5[STORE_MD5_LEN];
	uint8_t sha256[STORE_SHA256_LEN];
	const char *name; /* behind the realm's NUL; of users */
	char realm[];
};

struct cache {
	pthread_mutex_t lock;
	struct table entries;
	struct kind users, absent;
	size_t max; /* of each kind */
	unsigned int generation;
};

int cache_new(struct cache **out)
{
	struct cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return -ENOMEM;
	if (table_init(&cache->entries)) {
		free(cache);
		return -ENOMEM;
	}
	pthread_mutex_init(&cache->lock, NULL);
	list_init(&cache->users.used);
	list_init(&cache->absent.used);
	*out = cache;
	return 0;
}

static void entry_drop(struct cache *cache, struct entry *entry)
{
	table_remove(&cache->entries, &entry->node);
	list_del(&entry->link);
	entry->kind->count--;
	explicit_bzero(entry->md5, sizeof(entry->md5));
	explicit_bzero(entry->sha256, sizeof(entry->sha256));
	free(entry);
}

static struct entry *entry_oldest(const struct kind *kind)
{
	return list_entry(kind->used.next, struct entry, link);
}

static void kind_shrink(struct cache *cache, struct kind *kind, size_t count)
{
	while (kind->count > count)
		entry_drop(cache, entry_oldest(kind));
}

static void all_drop(struct cache *cache)
{
	kind_shrink(cache, &cache->users, 0);
	kind_shrink(cache, &cache->absent, 0);
	cache->generation++;
}

void cache_free(struct cache *cache)
{
	if (!cache)
		return;
	all_drop(cache);
	table_destroy(&cache->entries);
	pthread_mutex_destroy(&cache->lock);
	free(cache);
}

void cache_configure(struct cache *cache, const struct store_params *params)
{
	pthread_mutex_lock(&cache->lock);
	all_drop(cache);
	cache->users.lifetime_ms = params->cache_ms;
	cache->absent.lifetime_ms = params->absent_ms;
	cache->max = params->cache_users;
	pthread_mutex_unlock(&cache->lock);
}

void cache_clear(struct cache *cache)
{
	pthread_mutex_lock(&cache->lock);
	all_drop(cache);
	pthread_mutex_unlock(&cache->lock);
}

unsigned int cache_generation(struct cache *cache)
{
	unsigned int generation;

	pthread_mutex_lock(&cache->lock);
	generation = cache->generation;
	pthread_mutex_unlock(&cache->lock);
	return generation;
}

static struct entry *entry_find(const struct cache *cache,
				const struct store_key *key)
{
	uint64_t hash = table_hash(key->hash, sizeof(key->hash));
	struct table_node *node = table_first(&cache->entries, hash);

	for (; node; node = table_next(node)) {
		struct entry *entry = list_entry(node, struct entry, node);

		if (!memcmp(entry->hash, key->hash, sizeof(key->hash)) &&
		    !strcmp(entry->realm, key->realm))
			return entry;
	}
	return NULL;
}

static int entry_read(const struct cache *cache, const struct entry *entry,
		      struct store_user *out)
{
	if (entry->kind == &cache->absent)
		return -ENOENT;
	memcpy(out->name, entry->name, strlen(entry->name) + 1);
	memcpy(out->md5, entry->md5, sizeof(out->md5));
	memcpy(out->sha256, entry->sha256, sizeof(out->sha256));
	return 0;
}

int cache_find(struct cache *cache, const struct store_key *key,
	       uint64_t now_ms, struct store_user *out)
{
	struct entry *entry;
	int result = -EAGAIN;

	pthread_mutex_lock(&cache->lock);
	entry = entry_find(cache, key);
	if (entry && entry->until_ms <= now_ms) {
		entry_drop(cache, entry);
	} else if (entry) {
		list_del(&entry->link);
		list_add_tail(&entry->link, &entry->kind->used);
		result = entry_read(cache, entry, out);
	}
	pthread_mutex_unlock(&cache->lock);
	return result;
}

static struct entry *entry_new(const struct store_key *key,
			       const struct store_user *user)
{
	size_t realm_size = strlen(key->realm) + 1;
	size_t name_size = user ? strlen(user->name) + 1 : 0;
	struct entry *entry =
		calloc(1, sizeof(*entry) + realm_size + name_size);

	if (!entry)
		return NULL;
	memcpy(entry->hash, key->hash, sizeof(entry->hash));
	memcpy(entry->realm, key->realm, realm_size);
	if (user) {
		entry->name = memcpy(entry->realm + realm_size, user->name,
				     name_size);
		memcpy(entry->md5, user->md5, sizeof(entry->md5));
		memcpy(entry->sha256, user->sha256, sizeof(entry->sha256));
	}
	return entry;
}

static void entry_add(struct cache *cache, struct entry *entry,
		      struct kind *kind, uint64_t now_ms)
{
	kind_shrink(cache, kind, cache->max - 1);
	entry->kind = kind;
	entry->until_ms = now_ms + kind->lifetime_ms;
	list_add_tail(&entry->link, &kind->used);
	kind->count++;
	table_insert(&cache->entries, &entry->node,
		     table_hash(entry->hash, sizeof(entry->hash)));
}

void cache_put(struct cache *cache, const struct store_key *key,
	       const struct store_user *user, unsigned int generation,
	       uint64_t now_ms)
{
	struct kind *kind = user ? &cache->users : &cache->absent;
	struct entry *entry;

	pthread_mutex_lock(&cache->lock);
	entry = entry_find(cache, key);
	if (entry)
		entry_drop(cache, entry);
	if (generation == cache->generation && kind->lifetime_ms &&
	    cache->max) {
		entry = entry_new(key, user);
		if (entry)
			entry_add(cache, entry, kind, now_ms);
	}
	pthread_mutex_unlock(&cache->lock);
}
