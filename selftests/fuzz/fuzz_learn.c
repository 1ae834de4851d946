/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ICMPv6 errors that a host learns exits from: what is taken for one is whole, of the
 * right kind, and its addresses are those of the packet that it quotes.
 */
#include <netinet/icmp6.h>
#include <netinet/ip6.h>
#include <stdlib.h>
#include <string.h>

#include "exit/learn.h"

#define QUOTED (sizeof(struct ip6_hdr) + sizeof(struct icmp6_hdr))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Unlike assert() it stays in every build. */
static void must(bool truth)
{
	if (!truth)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	union addr from, to, untouched;
	struct ip6_hdr inner;

	memset(&from, 0x5a, sizeof(from));
	to = untouched = from;
	if (learn_parse(data, len, &from, &to)) {
		must(!memcmp(&from, &untouched, sizeof(from)) &&
		     !memcmp(&to, &untouched, sizeof(to)));
		return 0;
	}
	must(len >= QUOTED + sizeof(inner));
	must(data[0] >> 4 == 6 && data[6] == IPPROTO_ICMPV6);
	must(data[40] == ICMP6_DST_UNREACH && data[41] == 5);
	memcpy(&inner, data + QUOTED, sizeof(inner));
	must(from.sa.sa_family == AF_INET6 && to.sa.sa_family == AF_INET6);
	must(!memcmp(&from.in6.sin6_addr, &inner.ip6_src, 16));
	must(!memcmp(&to.in6.sin6_addr, &inner.ip6_dst, 16));
	return 0;
}
