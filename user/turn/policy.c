/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which peers a client may reach.
 *
 * A relay stands inside networks that its clients do not: what it may connect to
 * decides who can attack whom. Refused are the machine itself and the addresses
 * that mean "here", in every spelling: an IPv6 address that a translator or
 * tunnel would turn into a refused IPv4 one is refused as that one is, and so is
 * what `deny` names. `allow` beats every refusal.
 */
#include "turn/policy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

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

static bool prefixes_contain(const struct prefix *prefixes, size_t count,
			     const union addr *addr)
{
	for (size_t i = 0; i < count; i++)
		if (prefix_contains(&prefixes[i], addr))
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

/* The address as it is written, whatever else it may mean. */
static bool literally_allowed(const struct conf_peers *peers,
			      const struct own_addresses *own,
			      const union addr *addr)
{
	if (prefixes_contain(peers->allow, peers->allow_count, addr))
		return true;
	return !prefixes_contain(peers->deny, peers->deny_count, addr) &&
	       !turn_policy_special(addr) && !is_own(own, addr);
}

bool turn_policy_allows(const struct conf_peers *peers,
			const struct own_addresses *own, const union addr *addr)
{
	union addr embedded[TURN_POLICY_EMBEDDED_MAX];
	size_t count;

	if (prefixes_contain(peers->allow, peers->allow_count, addr))
		return true;
	if (!literally_allowed(peers, own, addr))
		return false;
	/* A mapped address is IPv4 on the wire: never an IPv6 peer. */
	if (addr_family(addr) == AF_INET6 &&
	    IN6_IS_ADDR_V4MAPPED(&addr->in6.sin6_addr))
		return false;
	count = turn_policy_embedded(addr, embedded);
	for (size_t i = 0; i < count; i++)
		if (!literally_allowed(peers, own, &embedded[i]))
			return false;
	return true;
}

static size_t interfaces_count(const struct ifaddrs *all)
{
	size_t count = 0;

	for (; all; all = all->ifa_next)
		count++;
	return count;
}

static size_t interfaces_copy(const struct ifaddrs *all, union addr *out)
{
	size_t count = 0;

	for (; all; all = all->ifa_next) {
		if (!all->ifa_addr)
			continue;
		if (all->ifa_addr->sa_family == AF_INET)
			memcpy(&out[count++], all->ifa_addr,
			       sizeof(struct sockaddr_in));
		else if (all->ifa_addr->sa_family == AF_INET6)
			memcpy(&out[count++], all->ifa_addr,
			       sizeof(struct sockaddr_in6));
	}
	return count;
}

int turn_own_addresses_read(struct own_addresses *own)
{
	struct ifaddrs *all;
	union addr *list;

	if (getifaddrs(&all) < 0)
		return -errno;
	list = calloc(interfaces_count(all) + 1, sizeof(*list));
	if (!list) {
		freeifaddrs(all);
		return -ENOMEM;
	}
	own->count = interfaces_copy(all, list);
	freeifaddrs(all);
	free(own->list);
	own->list = list;
	return 0;
}

void turn_own_addresses_clear(struct own_addresses *own)
{
	free(own->list);
	*own = (struct own_addresses){ 0 };
}
