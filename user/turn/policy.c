/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which peers a client may reach.
 *
 * A relay stands inside networks that its clients do not: what it may connect to
 * decides who can attack whom. The lists of the user, of the realm and of [peers]
 * are asked in this order, `allow` before `deny`; the first that names the peer
 * decides. What none names is refused when it is the machine itself or an address
 * that means "here", in every spelling: an IPv6 address that a translator or
 * tunnel would turn into a refused or denied IPv4 one is so, too.
 *
 * Broadcasts of a network of this machine's are refused with its own addresses:
 * the highest address, the lowest, which kernels before 5.14 take for one as
 * well, and of IPv6 the lowest, which each router answers (RFC 4291 2.6.1).
 */
#include "turn/policy.h"

#include <arpa/inet.h>

/* Known at build time: built-in refusals as text would have to be parsed. */
static const struct prefix special[] = {
	{ AF_INET, 8, { 0 } },
	{ AF_INET, 8, { 127 } },
	{ AF_INET, 16, { 169, 254 } },
	{ AF_INET, 4, { 224 } },
	{ AF_INET, 4, { 240 } }, /* 255.255.255.255 too */
	{ AF_INET6, 128, { 0 } },
	{ AF_INET6, 128, { [15] = 1 } },
	{ AF_INET6, 10, { 0xfe, 0x80 } },
	{ AF_INET6, 8, { 0xff } },
};

/*
 * Where IPv4 bytes stand in IPv6 addresses of a kind. From `tail` on the bytes
 * should be zero (RFC 6052 2.2), but translators do not look at them (2.3): when
 * they are not, only what is no unicast address is taken for another layout's
 * prefix. With `not_zero` an IPv4 address of zeros is another layout's tail.
 */
struct embedding {
	struct prefix prefix;
	uint8_t at[4];
	uint8_t invert; /* Teredo hides the client from translators */
	uint8_t tail; /* 0: no condition */
	bool not_zero;
};

#define LOCAL_NAT64                               \
	{                                         \
		AF_INET6, 48,                     \
		{                                 \
			0, 0x64, 0xff, 0x9b, 0, 1 \
		}                                 \
	}

static const struct embedding embeddings[] = {
	/* IPv4-mapped, -compatible (RFC 4291), -translated (RFC 2765) */
	{ { AF_INET6, 96, { [10] = 0xff, 0xff } }, { 12, 13, 14, 15 }, 0, 0, 0 },
	{ { AF_INET6, 96, { 0 } }, { 12, 13, 14, 15 }, 0, 0, 0 },
	{ { AF_INET6, 96, { [8] = 0xff, 0xff } }, { 12, 13, 14, 15 }, 0, 0, 0 },
	/* 6to4 (RFC 3056); Teredo's server and client (RFC 4380) */
	{ { AF_INET6, 16, { 0x20, 0x02 } }, { 2, 3, 4, 5 }, 0, 0, 0 },
	{ { AF_INET6, 32, { 0x20, 0x01 } }, { 4, 5, 6, 7 }, 0, 0, 0 },
	{ { AF_INET6, 32, { 0x20, 0x01 } }, { 12, 13, 14, 15 }, 0xff, 0, 0 },
	/* NAT64's well-known prefix (RFC 6052), the local one (RFC 8215) */
	{ { AF_INET6, 96, { 0, 0x64, 0xff, 0x9b } },
	  { 12, 13, 14, 15 },
	  0,
	  0,
	  0 },
	{ LOCAL_NAT64, { 12, 13, 14, 15 }, 0, 0, true },
	{ LOCAL_NAT64, { 6, 7, 9, 10 }, 0, 11, false },
	{ LOCAL_NAT64, { 7, 9, 10, 11 }, 0, 12, false },
	{ LOCAL_NAT64, { 9, 10, 11, 12 }, 0, 13, false },
};

bool turn_policy_special(const union addr *addr)
{
	for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++)
		if (prefix_contains(&special[i], addr))
			return true;
	return false;
}

static bool tail_is_zero(const uint8_t bytes[16], uint8_t tail)
{
	for (size_t i = tail; tail && i < 16; i++)
		if (bytes[i])
			return false;
	return true;
}

/* Can the layout be meant, given the IPv4 address that it finds? */
static bool embedded_meant(const struct embedding *how, const uint8_t bytes[16],
			   const union addr *v4)
{
	uint32_t host = ntohl(v4->in4.sin_addr.s_addr);

	if (how->not_zero)
		return host != 0;
	return tail_is_zero(bytes, how->tail) ||
	       (host >> 24 != 0 && host >> 24 < 224);
}

static void embedded_take(const struct embedding *how, const uint8_t bytes[16],
			  union addr *out)
{
	uint8_t v4[4];

	for (size_t i = 0; i < sizeof(v4); i++)
		v4[i] = bytes[how->at[i]] ^ how->invert;
	addr_from_bytes(out, AF_INET, v4, 0);
}

/* ISATAP (RFC 5214 6.1): any prefix, the interface says 0[02]00:5efe. */
static bool isatap(const uint8_t bytes[16])
{
	return (bytes[8] & ~2) == 0 && bytes[9] == 0 && bytes[10] == 0x5e &&
	       bytes[11] == 0xfe;
}

size_t turn_policy_embedded(const union addr *addr,
			    union addr out[TURN_POLICY_EMBEDDED_MAX])
{
	static const struct embedding in_isatap = { .at = { 12, 13, 14, 15 } };
	size_t len, count = 0;
	const uint8_t *bytes = addr_bytes(addr, &len);

	if (len != 16)
		return 0;
	for (size_t i = 0; i < sizeof(embeddings) / sizeof(embeddings[0]);
	     i++) {
		const struct embedding *how = &embeddings[i];

		if (!prefix_contains(&how->prefix, addr))
			continue;
		embedded_take(how, bytes, &out[count]);
		if (embedded_meant(how, bytes, &out[count]))
			count++;
	}
	if (isatap(bytes))
		embedded_take(&in_isatap, bytes, &out[count++]);
	return count;
}

/* Where a prefix of this length has the IPv4 bytes (RFC 6052 2.2); byte 8 is 0. */
static struct embedding nat64_embedding(const struct prefix *prefix)
{
	struct embedding how = { .prefix = *prefix };
	uint8_t at = prefix->bits / 8;

	for (size_t i = 0; i < sizeof(how.at); i++, at++) {
		if (at == 8)
			at++;
		how.at[i] = at;
	}
	return how;
}

/* Is it the rule's? Without a port, for a permission, it is a host. */
static bool rule_names(const struct conf_rule *rule, const union addr *addr,
		       bool any_port)
{
	const uint16_t port = addr_port(addr);

	if (!prefix_contains(&rule->prefix, addr))
		return false;
	if (!port)
		return any_port ||
		       (rule->port_min <= 1 && rule->port_max == UINT16_MAX);
	return rule->port_min <= port && port <= rule->port_max;
}

/*
 * Of a host one port that is allowed is enough to get the permission, and it is
 * denied when all are.
 */
static bool rules_name(const struct conf_rule *rules, size_t count,
		       const union addr *addr, bool any_port)
{
	for (size_t i = 0; i < count; i++)
		if (rule_names(&rules[i], addr, any_port))
			return true;
	return false;
}

static bool is_own(const struct own_addresses *own, const union addr *addr)
{
	for (size_t i = 0; i < own->count; i++)
		if (addr_same_host(&own->list[i], addr))
			return true;
	return false;
}

/* What the lists say of the address as it is written. */
static enum turn_verdict lists_judge(const struct turn_policy *policy,
				     const union addr *addr)
{
	for (size_t i = 0; i < TURN_POLICY_LISTS; i++) {
		const struct conf_rules *rules = policy->rules[i];

		if (!rules)
			continue;
		if (rules_name(rules->allow, rules->allow_count, addr, true))
			return TURN_ALLOWED;
		if (rules_name(rules->deny, rules->deny_count, addr, false))
			return TURN_DENIED;
	}
	return TURN_UNNAMED;
}

static enum turn_verdict literal_judge(const struct turn_policy *policy,
				       const union addr *addr)
{
	enum turn_verdict verdict = lists_judge(policy, addr);

	if (verdict == TURN_UNNAMED &&
	    (turn_policy_special(addr) || is_own(policy->own, addr)))
		return TURN_REFUSED;
	return verdict;
}

/* An address inside another one: what forbids it forbids that. */
static enum turn_verdict worse(enum turn_verdict verdict,
			       const struct turn_policy *policy,
			       union addr *inside, uint16_t port)
{
	enum turn_verdict other;

	addr_set_port(inside, port);
	other = literal_judge(policy, inside);
	return other > verdict ? other : verdict;
}

/* Not named as it is written, nor refused: as what it may be a spelling of. */
static enum turn_verdict spellings_judge(const struct turn_policy *policy,
					 const union addr *addr)
{
	const struct conf_peers *peers = policy->peers;
	enum turn_verdict verdict = TURN_UNNAMED;
	union addr inside[TURN_POLICY_EMBEDDED_MAX];
	const uint16_t port = addr_port(addr);
	size_t len, count = turn_policy_embedded(addr, inside);
	const uint8_t *bytes = addr_bytes(addr, &len);

	for (size_t i = 0; i < count; i++)
		verdict = worse(verdict, policy, &inside[i], port);
	for (size_t i = 0; i < peers->nat64_count; i++) {
		const struct embedding how = nat64_embedding(&peers->nat64[i]);

		if (!prefix_contains(&how.prefix, addr))
			continue;
		embedded_take(&how, bytes, &inside[0]);
		verdict = worse(verdict, policy, &inside[0], port);
	}
	return verdict;
}

enum turn_verdict turn_policy_judge(const struct turn_policy *policy,
				    const union addr *addr)
{
	enum turn_verdict verdict = literal_judge(policy, addr);

	if (verdict != TURN_UNNAMED)
		return verdict;
	/* A mapped address is IPv4 on the wire: never an IPv6 peer. */
	if (addr_family(addr) == AF_INET6 &&
	    IN6_IS_ADDR_V4MAPPED(&addr->in6.sin6_addr))
		return TURN_REFUSED;
	return spellings_judge(policy, addr);
}
