/* SPDX-License-Identifier: BSD-2-Clause */
/* Which exits a source may leave by, and in which order they are tried. */
#ifndef EXIT_ORDER_H
#define EXIT_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/conf.h"

/* The exits that lead somewhere and let a source pass, the best first. */
struct exit_choice {
	uint8_t exits[CONF_EXITS_MAX]; /* indices in the configuration */
	size_t count;
	uint64_t allowed; /* the same as bits */
	int owner; /* index, or -1 */
	uint32_t table; /* of IPv4, or of many prefixes */
	bool ipv4; /* some source of IPv4 has it */
};

/* A prefix that some exit is authorised for, and the place of its choice. */
struct exit_source {
	struct prefix prefix;
	size_t choice;
};

struct exit_order {
	struct exit_source *sources;
	struct exit_choice *choices; /* each once */
	size_t source_count, choice_count;
	uint32_t tables[CONF_EXITS_MAX]; /* of exits alone, by index */
};

/*
 * Tables are numbered by the names of their exits: what a reload does not touch keeps
 * its number, and so its packets their way, in whatever order sections stand.
 *
 * Each prefix of an exit that leads somewhere, its own or authorised there, once. Of
 * prefixes around an address the longest says all: what the others allow is in its
 * choice. Pure. 0 or -ENOMEM.
 */
int exit_order_make(const struct conf *conf, struct exit_order *out);
void exit_order_clear(struct exit_order *order);

#endif
