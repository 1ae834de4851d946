/* SPDX-License-Identifier: BSD-2-Clause */
/* The rendezvous table: token -> waiting leg (a CONNECTION-ID, for TURN). */
#ifndef PAIR_RENDEZVOUS_H
#define PAIR_RENDEZVOUS_H

#include <stddef.h>
#include <stdint.h>

#include "base/table.h"

#define RENDEZVOUS_TOKEN_MAX 128

struct rendezvous {
	struct table table;
};

/* A leg that waits for its other half. Embedded in its owner. */
struct waiting_leg {
	struct table_node node;
	const uint8_t *token; /* stays valid while the leg waits */
	size_t token_len; /* 0: not waiting */
};

int rendezvous_init(struct rendezvous *rendezvous); /* 0 or -ENOMEM */
void rendezvous_destroy(struct rendezvous *rendezvous);
/* 0, -EEXIST when the token is taken, -EINVAL for a bad length. */
int rendezvous_add(struct rendezvous *rendezvous, struct waiting_leg *leg,
		   const void *token, size_t len);
struct waiting_leg *rendezvous_find(const struct rendezvous *rendezvous,
				    const void *token, size_t len);
/* Harmless on a leg that does not wait. */
void rendezvous_remove(struct rendezvous *rendezvous, struct waiting_leg *leg);

#endif
