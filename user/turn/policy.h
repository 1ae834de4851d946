/* SPDX-License-Identifier: BSD-2-Clause */
/* Which peers a client may reach and be reached by. */
#ifndef TURN_POLICY_H
#define TURN_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "conf/conf.h"

/* The addresses of this machine, read again at most once a second. */
struct own_addresses {
	union addr *list;
	size_t count;
	uint64_t next_ms; /* not read again before */
};

/* 0 or a negative errno; what was known stays on failure. */
int turn_own_addresses_read(struct own_addresses *own);
void turn_own_addresses_clear(struct own_addresses *own);

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

/* May this address be a peer? Pure; what is relayed here is not considered. */
bool turn_policy_allows(const struct conf_peers *peers,
			const struct own_addresses *own,
			const union addr *addr);

#endif
