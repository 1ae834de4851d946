/* SPDX-License-Identifier: BSD-2-Clause */
/* Transport addresses (IPv4, IPv6) and prefixes. */
#ifndef BASE_ADDR_H
#define BASE_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* An IP address with a port. family is AF_INET, AF_INET6 or AF_UNSPEC (none). */
union addr {
	struct sockaddr sa;
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;
};

/* Room for "[address%scope]:port" and its NUL. */
#define ADDR_STRLEN 72

sa_family_t addr_family(const union addr *addr);
socklen_t addr_len(const union addr *addr);
uint16_t addr_port(const union addr *addr); /* host byte order */
void addr_set_port(union addr *addr, uint16_t port);

/* The address's bytes (4 or 16), their count in *len; NULL for AF_UNSPEC. */
const uint8_t *addr_bytes(const union addr *addr, size_t *len);

/* Builds an address from 4 or 16 network-order bytes; family gives the count. */
void addr_from_bytes(union addr *out, sa_family_t family, const uint8_t *bytes,
		     uint16_t port);

bool addr_equal(const union addr *a, const union addr *b); /* with port */
bool addr_same_host(const union addr *a, const union addr *b); /* without */
/* Orders by family, then by the bytes, whatever the port: as memcmp. */
int addr_compare_host(const union addr *a, const union addr *b);
bool addr_is_any(const union addr *addr); /* 0.0.0.0 or :: */

/*
 * Where it belongs to, for limits: the IPv4 address, or the /56 of IPv6 that a site
 * has for itself; without a port.
 */
void addr_site(const union addr *addr, union addr *out);

/* Turns an IPv4-mapped IPv6 address into plain IPv4; others stay. */
void addr_unmap(union addr *addr);

/*
 * Parses "192.0.2.1", "192.0.2.1:3478", "2001:db8::1", "[2001:db8::1]:3478".
 * Numeric only, no name look-up. Returns 0 or -EINVAL; *out changes on success.
 */
int addr_parse(const char *text, uint16_t default_port, union addr *out);

/* Writes "192.0.2.1:3478" or "[2001:db8::1]:3478"; returns buf. */
const char *addr_format(const union addr *addr, char buf[ADDR_STRLEN]);
/* The same without the port and without brackets. */
const char *addr_format_host(const union addr *addr, char buf[ADDR_STRLEN]);

struct prefix {
	sa_family_t family;
	uint8_t bits;
	uint8_t bytes[16]; /* host bits are zero */
};

/* "192.0.2.0/24", or an address alone (/32, /128). Returns 0 or -EINVAL. */
int prefix_parse(const char *text, struct prefix *out);
bool prefix_contains(const struct prefix *prefix, const union addr *addr);
/* Orders by family, then the longer first, then by the bits: as memcmp. */
int prefix_compare(const struct prefix *a, const struct prefix *b);
const char *prefix_format(const struct prefix *prefix, char buf[ADDR_STRLEN]);

/* From one address to another; IPv4 is in the first four bytes, the others are 0. */
struct addr_span {
	sa_family_t family;
	uint8_t first[16], last[16];
};

/* Where an address is: -1 before it, 0 in it, 1 behind it; by family, then as memcmp. */
int addr_span_place(const struct addr_span *span, const union addr *addr);
/* Orders spans that do not overlap; 0: they do. */
int addr_span_compare(const struct addr_span *a, const struct addr_span *b);

#endif
