/* SPDX-License-Identifier: BSD-2-Clause */
/* This machine's addresses and links, as the kernel tells of them. */
#ifndef TURN_OWN_H
#define TURN_OWN_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

struct own_flags {
	union addr host;
	uint32_t flags; /* IFA_F_*; of several devices all that one has */
};

/*
 * The addresses of this machine, and what is as good as one: its networks'
 * broadcast addresses; and its links. Read again at most once a second.
 */
struct own_addresses {
	union addr *list;
	size_t count;
	struct own_flags
		*flags; /* of addresses with any that matters, see rank.h */
	size_t flags_count;
	char (*up)[IF_NAMESIZE]; /* names of links that are up, with a carrier */
	size_t up_count;
	uint64_t next_ms; /* not read again before */
};

/*
 * 0; -ENOMEM; -EINTR when somebody changed addresses or links in each of ten dumps;
 * -EMSGSIZE when the kernel tells more of one link than is read at a time; -EPROTO
 * of what is no dump; what socket(2), send(2), recv(2) or the kernel's dump say.
 * What was known stays on failure.
 */
int turn_own_addresses_read(struct own_addresses *own, bool *changed);
void turn_own_addresses_clear(struct own_addresses *own);
/* Is there such a link, up and with a carrier? */
bool turn_own_link_up(const struct own_addresses *own, const char *name);
/* IFA_F_DEPRECATED and such, of an address of this machine; 0 of another one. */
uint32_t turn_own_flags(const struct own_addresses *own,
			const union addr *host);

/*
 * The lowest address of the network with so many bits that this one is in and, of
 * IPv4, the highest. Returns how many there are: none when the network has no more
 * than two addresses. Pure.
 */
size_t turn_own_edges(const union addr *addr, unsigned int bits,
		      union addr out[2]);

#endif
