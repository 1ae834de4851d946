/* SPDX-License-Identifier: BSD-2-Clause */
/* Intrusive hash table with chaining, and SipHash-1-3 for its keys. */
#include "base/table.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"

#define TABLE_MIN_BUCKETS 16

static uint64_t hash_key[2];
static pthread_once_t hash_once = PTHREAD_ONCE_INIT;

static void hash_key_init(void)
{
	random_bytes(hash_key, sizeof(hash_key));
}

static inline uint64_t rotl(uint64_t x, int b)
{
	return x << b | x >> (64 - b);
}

static inline void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotl(v[1], 13) ^ v[0];
	v[0] = rotl(v[0], 32);
	v[2] += v[3];
	v[3] = rotl(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotl(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotl(v[1], 17) ^ v[2];
	v[2] = rotl(v[2], 32);
}

uint64_t table_hash(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t m, v[4];
	size_t left = len;

	pthread_once(&hash_once, hash_key_init);
	v[0] = hash_key[0] ^ 0x736f6d6570736575u;
	v[1] = hash_key[1] ^ 0x646f72616e646f6du;
	v[2] = hash_key[0] ^ 0x6c7967656e657261u;
	v[3] = hash_key[1] ^ 0x7465646279746573u;
	for (; left >= 8; left -= 8, p += 8) {
		memcpy(&m, p, 8);
		v[3] ^= m;
		sip_round(v);
		v[0] ^= m;
	}
	m = 0;
	memcpy(&m, p, left);
	m |= (uint64_t)len << 56;
	v[3] ^= m;
	sip_round(v);
	v[0] ^= m;
	v[2] ^= 0xff;
	sip_round(v);
	sip_round(v);
	sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

int table_init(struct table *table)
{
	struct table_node **buckets;

	buckets = calloc(TABLE_MIN_BUCKETS, sizeof(struct table_node *));
	if (!buckets)
		return -ENOMEM;
	table->buckets = buckets;
	table->mask = TABLE_MIN_BUCKETS - 1;
	table->count = 0;
	return 0;
}

void table_destroy(struct table *table)
{
	free(table->buckets);
	memset(table, 0, sizeof(*table));
}

static void bucket_push(struct table_node **buckets, size_t mask,
			struct table_node *node)
{
	struct table_node **head = &buckets[node->hash & mask];

	node->next = *head;
	*head = node;
}

static void table_grow(struct table *table)
{
	size_t mask = table->mask * 2 + 1;
	struct table_node **buckets;

	buckets = calloc(mask + 1, sizeof(struct table_node *));
	if (!buckets)
		return;
	for (size_t i = 0; i <= table->mask; i++) {
		struct table_node *node = table->buckets[i], *next;

		for (; node; node = next) {
			next = node->next;
			bucket_push(buckets, mask, node);
		}
	}
	free(table->buckets);
	table->buckets = buckets;
	table->mask = mask;
}

void table_insert(struct table *table, struct table_node *node, uint64_t hash)
{
	node->hash = hash;
	if (table->count > table->mask)
		table_grow(table);
	bucket_push(table->buckets, table->mask, node);
	table->count++;
}

void table_remove(struct table *table, struct table_node *node)
{
	struct table_node **at = &table->buckets[node->hash & table->mask];

	for (; *at; at = &(*at)->next) {
		if (*at != node)
			continue;
		*at = node->next;
		node->next = NULL;
		table->count--;
		return;
	}
}

static struct table_node *chain_match(struct table_node *node, uint64_t hash)
{
	while (node && node->hash != hash)
		node = node->next;
	return node;
}

struct table_node *table_first(const struct table *table, uint64_t hash)
{
	return chain_match(table->buckets[hash & table->mask], hash);
}

struct table_node *table_next(const struct table_node *node)
{
	return chain_match(node->next, node->hash);
}
