/* SPDX-License-Identifier: BSD-2-Clause */
/* Which peers a client may reach and be reached by. */
#ifndef TURN_POLICY_H
#define TURN_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "conf/conf.h"
#include "turn/own.h"

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
