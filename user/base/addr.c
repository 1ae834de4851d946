/* SPDX-License-Identifier: BSD-2-Clause */
/* Transport addresses and prefixes: parsing, printing, comparing. */
#include "base/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

sa_family_t addr_family(const union addr *addr)
{
	return addr->sa.sa_family;
}

socklen_t addr_len(const union addr *addr)
{
	if (addr->sa.sa_family == AF_INET6)
		return sizeof(addr->in6);
	return sizeof(addr->in4);
}

uint16_t addr_port(const union addr *addr)
{
	if (addr->sa.sa_family == AF_INET6)
		return ntohs(addr->in6.sin6_port);
	return ntohs(addr->in4.sin_port);
}

void addr_set_port(union addr *addr, uint16_t port)
{
	if (addr->sa.sa_family == AF_INET6)
		addr->in6.sin6_port = htons(port);
	else
		addr->in4.sin_port = htons(port);
}

const uint8_t *addr_bytes(const union addr *addr, size_t *len)
{
	switch (addr->sa.sa_family) {
	case AF_INET:
		*len = 4;
		return (const uint8_t *)&addr->in4.sin_addr;
	case AF_INET6:
		*len = 16;
		return addr->in6.sin6_addr.s6_addr;
	default:
		*len = 0;
		return NULL;
	}
}

void addr_from_bytes(union addr *out, sa_family_t family, const uint8_t *bytes,
		     uint16_t port)
{
	memset(out, 0, sizeof(*out));
	out->sa.sa_family = family;
	if (family == AF_INET6)
		memcpy(&out->in6.sin6_addr, bytes, 16);
	else
		memcpy(&out->in4.sin_addr, bytes, 4);
	addr_set_port(out, port);
}

bool addr_same_host(const union addr *a, const union addr *b)
{
	size_t alen, blen;
	const uint8_t *ab = addr_bytes(a, &alen);
	const uint8_t *bb = addr_bytes(b, &blen);

	return ab && bb && alen == blen && memcmp(ab, bb, alen) == 0;
}

int addr_compare_host(const union addr *a, const union addr *b)
{
	size_t alen, blen;
	const uint8_t *ab = addr_bytes(a, &alen);
	const uint8_t *bb = addr_bytes(b, &blen);

	if (alen != blen)
		return alen < blen ? -1 : 1;
	return alen ? memcmp(ab, bb, alen) : 0;
}

bool addr_equal(const union addr *a, const union addr *b)
{
	return addr_same_host(a, b) && addr_port(a) == addr_port(b);
}

bool addr_is_any(const union addr *addr)
{
	size_t len;
	const uint8_t *bytes = addr_bytes(addr, &len);

	for (size_t i = 0; i < len; i++)
		if (bytes[i])
			return false;
	return len > 0;
}

void addr_unmap(union addr *addr)
{
	if (addr->sa.sa_family != AF_INET6 ||
	    !IN6_IS_ADDR_V4MAPPED(&addr->in6.sin6_addr))
		return;
	uint8_t v4[4];

	memcpy(v4, &addr->in6.sin6_addr.s6_addr[12], sizeof(v4));
	addr_from_bytes(addr, AF_INET, v4, addr_port(addr));
}

void addr_site(const union addr *addr, union addr *out)
{
	union addr plain = *addr;

	addr_unmap(&plain);
	addr_set_port(&plain, 0);
	if (addr_family(&plain) == AF_INET6) {
		memset(&plain.in6.sin6_addr.s6_addr[7], 0, 9);
		plain.in6.sin6_scope_id = 0;
	}
	*out = plain;
}

static int port_parse(const char *text, uint16_t *out)
{
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	unsigned long v = strtoul(text, &end, 10);
	if (errno || *end || v > 65535)
		return -EINVAL;
	*out = (uint16_t)v;
	return 0;
}

static int host_parse(const char *host, uint16_t port, union addr *out)
{
	uint8_t bytes[16];

	if (inet_pton(AF_INET, host, bytes) == 1) {
		addr_from_bytes(out, AF_INET, bytes, port);
		return 0;
	}
	if (inet_pton(AF_INET6, host, bytes) == 1) {
		addr_from_bytes(out, AF_INET6, bytes, port);
		return 0;
	}
	return -EINVAL;
}

int addr_parse(const char *text, uint16_t default_port, union addr *out)
{
	char host[INET6_ADDRSTRLEN + 1];
	uint16_t port = default_port;
	const char *start = text, *end, *colon = strchr(text, ':');

	if (*text == '[') {
		start = text + 1;
		end = strchr(start, ']');
		if (!end || (end[1] && end[1] != ':'))
			return -EINVAL;
		colon = end[1] ? end + 1 : NULL;
	} else if (colon && !strchr(colon + 1, ':')) {
		end = colon;
	} else {
		end = text + strlen(text);
		colon = NULL;
	}
	size_t len = (size_t)(end - start);
	if (len == 0 || len >= sizeof(host))
		return -EINVAL;
	memcpy(host, start, len);
	host[len] = '\0';
	if (*text == '[' && !strchr(host, ':'))
		return -EINVAL;
	if (colon && port_parse(colon + 1, &port))
		return -EINVAL;
	return host_parse(host, port, out);
}

const char *addr_format_host(const union addr *addr, char buf[ADDR_STRLEN])
{
	size_t len;
	const uint8_t *bytes = addr_bytes(addr, &len);

	if (!bytes || !inet_ntop(addr->sa.sa_family, bytes, buf, ADDR_STRLEN))
		snprintf(buf, ADDR_STRLEN, "none");
	return buf;
}

const char *addr_format(const union addr *addr, char buf[ADDR_STRLEN])
{
	char host[ADDR_STRLEN];

	addr_format_host(addr, host);
	switch (addr->sa.sa_family) {
	case AF_INET:
		snprintf(buf, ADDR_STRLEN, "%.*s:%u", INET_ADDRSTRLEN, host,
			 addr_port(addr));
		break;
	case AF_INET6:
		snprintf(buf, ADDR_STRLEN, "[%.*s]:%u", INET6_ADDRSTRLEN, host,
			 addr_port(addr));
		break;
	default:
		snprintf(buf, ADDR_STRLEN, "none");
	}
	return buf;
}

static void prefix_mask(struct prefix *prefix)
{
	for (unsigned i = 0; i < 16; i++) {
		unsigned have = prefix->bits > i * 8 ? prefix->bits - i * 8 : 0;

		if (have < 8)
			prefix->bytes[i] &= (uint8_t)(0xff00 >> have);
	}
}

int prefix_parse(const char *text, struct prefix *out)
{
	char host[INET6_ADDRSTRLEN + 1];
	const char *slash = strchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	union addr addr;
	size_t width;
	uint16_t bits;

	if (len == 0 || len >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, len);
	host[len] = '\0';
	if (host_parse(host, 0, &addr))
		return -EINVAL;
	const uint8_t *bytes = addr_bytes(&addr, &width);
	bits = (uint16_t)(width * 8);
	if (slash && (port_parse(slash + 1, &bits) || bits > width * 8))
		return -EINVAL;
	memset(out, 0, sizeof(*out));
	out->family = addr_family(&addr);
	out->bits = (uint8_t)bits;
	memcpy(out->bytes, bytes, width);
	prefix_mask(out);
	return 0;
}

bool prefix_contains(const struct prefix *prefix, const union addr *addr)
{
	size_t len;
	const uint8_t *bytes = addr_bytes(addr, &len);
	unsigned whole = prefix->bits / 8, rest = prefix->bits % 8;

	if (!bytes || addr_family(addr) != prefix->family)
		return false;
	if (memcmp(bytes, prefix->bytes, whole) != 0)
		return false;
	if (!rest)
		return true;
	return ((bytes[whole] ^ prefix->bytes[whole]) & (0xff00 >> rest) &
		0xff) == 0;
}

int prefix_compare(const struct prefix *a, const struct prefix *b)
{
	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	if (a->bits != b->bits)
		return a->bits > b->bits ? -1 : 1;
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

const char *prefix_format(const struct prefix *prefix, char buf[ADDR_STRLEN])
{
	char host[INET6_ADDRSTRLEN];

	if (!inet_ntop(prefix->family, prefix->bytes, host, sizeof(host)))
		snprintf(buf, ADDR_STRLEN, "none");
	else
		snprintf(buf, ADDR_STRLEN, "%s/%u", host, prefix->bits);
	return buf;
}

int addr_span_place(const struct addr_span *span, const union addr *addr)
{
	size_t len;
	const uint8_t *bytes = addr_bytes(addr, &len);

	if (addr_family(addr) != span->family)
		return addr_family(addr) < span->family ? -1 : 1;
	if (memcmp(bytes, span->first, len) < 0)
		return -1;
	return memcmp(bytes, span->last, len) > 0;
}

int addr_span_compare(const struct addr_span *a, const struct addr_span *b)
{
	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	if (memcmp(a->last, b->first, sizeof(a->last)) < 0)
		return -1;
	return memcmp(a->first, b->last, sizeof(a->first)) > 0;
}
