/* SPDX-License-Identifier: BSD-2-Clause */
/* Intrusive hash table with chaining; the caller supplies hash and equality. */
#ifndef BASE_TABLE_H
#define BASE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct table_node {
	struct table_node *next;
	uint64_t hash;
};

struct table {
	struct table_node **buckets;
	size_t mask; /* buckets - 1, a power of two less one */
	size_t count; /* nodes */
};

/* Hash of a byte string under a random per-process key: not to be flooded. */
uint64_t table_hash(const void *data, size_t len);

/* Returns 0 or -ENOMEM. */
int table_init(struct table *table);
/* Frees the buckets; the nodes belong to the caller. Accepts an empty table. */
void table_destroy(struct table *table);

/* Never fails: growing is tried and skipped without memory. */
void table_insert(struct table *table, struct table_node *node, uint64_t hash);
void table_remove(struct table *table, struct table_node *node);

/* The first node with this hash, or the next one after `node`; NULL at the end. */
struct table_node *table_first(const struct table *table, uint64_t hash);
struct table_node *table_next(const struct table_node *node);

#endif
