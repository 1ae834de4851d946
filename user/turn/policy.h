/* SPDX-License-Identifier: BSD-2-Clause */
/* Which peers a client may reach and be reached by. */
#ifndef TURN_POLICY_H
#define TURN_POLICY_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "conf/conf.h"

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

/* 0 or a negative errno; what was known stays on failure. */
int turn_own_addresses_read(struct own_addresses *own, bool *changed);
void turn_own_addresses_clear(struct own_addresses *own);
/* Is there such a link, up and with a carrier? */
bool turn_own_link_up(const struct own_addresses *own, const char *name);
/* IFA_F_DEPRECATED and such, of an address of this machine; 0 of another one. */
uint32_t turn_own_flags(const struct own_addresses *own,
			const union addr *host);
/* Asks the kernel for those; the list is the caller's. 0 or a negative errno. */
int turn_own_flags_read(struct own_flags **out, size_t *count);

/*
 * The lowest address of the network and, of IPv4, the highest. Returns how many
 * there are: none when the network has no more than two addresses. Pure.
 */
size_t turn_policy_edges(const union addr *addr, const union addr *mask,
			 union addr out[2]);

/* Loopback, link-local, multicast, 0/8, ::, broadcast, 240/4. Pure. */
bool turn_policy_special(const union addr *addr);

/*
 * The IPv4 addresses that an IPv6 address may be another spelling of: mapped,
 * compatible, translated, 6to4, Teredo (server and client), NAT64, ISATAP.
 * Returns how many were stored, at most TURN_POLICY_EMBEDDED_MAX. Pure.
 */
#define TURN_POLICY_EMBEDDED_MAX 8
size_t turn_policy_embedded(const union addr *addr,
			    union addr out[TURN_POLICY_EMBEDDED_MAX]);

/* What holds for one allocation. */
#define TURN_POLICY_LISTS 3
struct turn_policy {
	/* Of its user, its realm, of all, in the order asked; NULL: none. */
	const struct conf_rules *rules[TURN_POLICY_LISTS];
	const struct conf_peers *peers;
	const struct own_addresses *own;
};

/* From good to bad. */
enum turn_verdict {
	TURN_ALLOWED, /* by a list */
	TURN_UNNAMED, /* by no list, nor refused by default: allowed */
	TURN_REFUSED, /* by default */
	TURN_DENIED, /* by a list */
};

/*
 * May this address be a peer's? Port 0: its host, for a permission. Pure; what is
 * relayed here is not considered.
 */
enum turn_verdict turn_policy_judge(const struct turn_policy *policy,
				    const union addr *addr);

#endif
