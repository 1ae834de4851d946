/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The order of source addresses, after RFC 6724 section 5.
 *
 * At Allocate no peer is known. Rules that compare with a destination are asked for one
 * of the Internet at large, of global scope and with the label of ::/0 or ::ffff:0:0/96:
 *
 *   1    same address            no destination, no rule
 *   2    appropriate scope       global before link-local and loopback
 *   3    deprecated addresses    last: they would end under a new allocation
 *   4    home addresses          first
 *   5    outgoing interface      the exit of a source is where it leaves (that is what
 *                                exits are for), so that any would do; the client's
 *                                own leg is known, and an exit that works for it
 *                                comes first
 *   5.5  prefix of the next hop  holds for all: each source leaves by its exit
 *   6    matching label          native before ULA, 6to4, Teredo, site-local and others
 *   7    temporary addresses     last, against the default and as the rule allows: what
 *                                peers are given must not end within days (RFC 8981)
 *   8    longest prefix          no destination, no rule
 *
 * An exit that the administrator has made the last resort comes behind rule 5. What is
 * equal after all this chance decides, by weights, as section 5 leaves it open. Between
 * families nothing is chosen: what a request does not name is IPv4 (RFC 8656 7.2).
 */
#include "turn/rank.h"

#include <linux/if_addr.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* RFC 6724 2.1: what has another label than those; ::1 rule 2 has put last. */
static const struct prefix foreign_labels[] = {
	{ AF_INET6, 96, { 0 } }, /* IPv4-compatible */
	{ AF_INET6, 16, { 0x20, 0x02 } }, /* 6to4 */
	{ AF_INET6, 32, { 0x20, 0x01 } }, /* Teredo */
	{ AF_INET6, 7, { 0xfc } }, /* ULA */
	{ AF_INET6, 10, { 0xfe, 0xc0 } }, /* site-local */
	{ AF_INET6, 16, { 0x3f, 0xfe } }, /* 6bone */
};

/* Section 3.1 and 3.2: that of loopback is link-local. */
static const struct prefix near_scopes[] = {
	{ AF_INET6, 128, { [15] = 1 } },
	{ AF_INET6, 10, { 0xfe, 0x80 } },
	{ AF_INET, 8, { 127 } },
	{ AF_INET, 16, { 169, 254 } },
};

static bool any_contains(const struct prefix *list, size_t count,
			 const union addr *host)
{
	for (size_t i = 0; i < count; i++)
		if (prefix_contains(&list[i], host))
			return true;
	return false;
}

bool turn_candidate_usable(const struct turn_candidate *candidate)
{
	if (candidate->flags & IFA_F_DADFAILED)
		return false;
	return !(candidate->flags & IFA_F_TENTATIVE) ||
	       candidate->flags & IFA_F_OPTIMISTIC;
}

unsigned int turn_candidate_rank(const struct turn_candidate *candidate)
{
	const union addr *host = candidate->host;
	const bool better[] = {
		!any_contains(near_scopes, COUNT(near_scopes),
			      host), /* rule 2 */
		!(candidate->flags & (IFA_F_DEPRECATED | IFA_F_OPTIMISTIC)),
		(candidate->flags & IFA_F_HOMEADDRESS) != 0, /* rule 4 */
		candidate->near, /* rule 5 */
		!candidate->last_resort,
		!any_contains(foreign_labels, COUNT(foreign_labels), host),
		!(candidate->flags & IFA_F_TEMPORARY), /* rule 7 */
	};
	unsigned int rank = 0;

	for (size_t i = 0; i < COUNT(better); i++)
		rank = rank << 1 | better[i];
	return rank;
}
