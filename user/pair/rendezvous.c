/* SPDX-License-Identifier: BSD-2-Clause */
/* The rendezvous table: token -> waiting leg. */
#include "pair/rendezvous.h"

#include <errno.h>

#include "base/list.h"
#include "base/secret.h"

static struct waiting_leg *leg_of(struct table_node *node)
{
	return list_entry(node, struct waiting_leg, node);
}

int rendezvous_init(struct rendezvous *rendezvous)
{
	return table_init(&rendezvous->table);
}

void rendezvous_destroy(struct rendezvous *rendezvous)
{
	table_destroy(&rendezvous->table);
}

static struct waiting_leg *leg_find(const struct rendezvous *rendezvous,
				    const void *token, size_t len,
				    uint64_t hash)
{
	struct table_node *node = table_first(&rendezvous->table, hash);

	for (; node; node = table_next(node)) {
		struct waiting_leg *leg = leg_of(node);

		if (leg->token_len == len &&
		    secret_equal(leg->token, token, len))
			return leg;
	}
	return NULL;
}

struct waiting_leg *rendezvous_find(const struct rendezvous *rendezvous,
				    const void *token, size_t len)
{
	if (!len || len > RENDEZVOUS_TOKEN_MAX)
		return NULL;
	return leg_find(rendezvous, token, len, table_hash(token, len));
}

int rendezvous_add(struct rendezvous *rendezvous, struct waiting_leg *leg,
		   const void *token, size_t len)
{
	uint64_t hash;

	if (!len || len > RENDEZVOUS_TOKEN_MAX)
		return -EINVAL;
	hash = table_hash(token, len);
	if (leg_find(rendezvous, token, len, hash))
		return -EEXIST;
	leg->token = token;
	leg->token_len = len;
	table_insert(&rendezvous->table, &leg->node, hash);
	return 0;
}

void rendezvous_remove(struct rendezvous *rendezvous, struct waiting_leg *leg)
{
	if (!leg->token_len)
		return;
	table_remove(&rendezvous->table, &leg->node);
	leg->token = NULL;
	leg->token_len = 0;
}
