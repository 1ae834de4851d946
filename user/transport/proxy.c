/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Headers of the PROXY protocol, as HAProxy's proxy-protocol.txt has it.
 *
 *   1: "PROXY TCP4 192.0.2.1 192.0.2.2 40000 3478\r\n", 107 bytes at most
 *   2: 12 bytes of signature, version and command, family, length; addresses; TLVs
 *
 * Who sends them is trusted, but what does not look as it must is refused rather
 * than guessed at. TLVs are passed over.
 */
#include "transport/proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/syscalls.h"

SYSCALLS(SYSCALLS_RELAY, "recvfrom");

#define V1_MAX     ((size_t)107)
#define V1_START   "PROXY "
#define V2_HEADER  ((size_t)16)
#define V2_TCP4    0x11
#define V2_TCP6    0x21
#define V2_UNSPEC  0x00
#define V2_LOCAL   0x20
#define V2_PROXIED 0x21

static const uint8_t signature[12] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
				       0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a };

static void source_set(union addr *source, sa_family_t family,
		       const uint8_t *bytes, uint16_t port)
{
	union addr named;

	addr_from_bytes(&named, family, bytes, port);
	addr_unmap(&named);
	*source = named;
}

/* A decimal port without a sign, space or leading zero. 0 or -EBADMSG. */
static int port_parse(const char *text, uint16_t *out)
{
	unsigned int value = 0;
	size_t digits = strspn(text, "0123456789");

	if (!digits || digits > 5 || text[digits] ||
	    (digits > 1 && *text == '0'))
		return -EBADMSG;
	for (; *text; text++)
		value = value * 10 + (unsigned int)(*text - '0');
	if (value > UINT16_MAX)
		return -EBADMSG;
	*out = (uint16_t)value;
	return 0;
}

/* Cuts a line at its single spaces into exactly so many words. */
static int words_cut(char *line, char *words[], size_t count)
{
	for (size_t i = 0; i < count; i++) {
		char *space = strchr(line, ' ');

		if (!*line || (space != NULL) != (i + 1 < count))
			return -EBADMSG;
		words[i] = line;
		if (space) {
			*space = '\0';
			line = space + 1;
		}
	}
	return 0;
}

/* What stands behind "PROXY ". 0 or -EBADMSG. */
static int line_parse(char *line, union addr *source)
{
	char *words[5];
	uint8_t from[16], to[16];
	uint16_t from_port, to_port;
	sa_family_t family;

	if (!strncmp(line, "UNKNOWN", 7) && (!line[7] || line[7] == ' ')) {
		*source = (union addr){ .sa.sa_family = AF_UNSPEC };
		return 0;
	}
	if (words_cut(line, words, 5))
		return -EBADMSG;
	if (strcmp(words[0], "TCP4") != 0 && strcmp(words[0], "TCP6") != 0)
		return -EBADMSG;
	family = words[0][3] == '4' ? AF_INET : AF_INET6;
	if (inet_pton(family, words[1], from) != 1 ||
	    inet_pton(family, words[2], to) != 1 ||
	    port_parse(words[3], &from_port) || port_parse(words[4], &to_port))
		return -EBADMSG;
	source_set(source, family, from, from_port);
	return 0;
}

static ssize_t v1_parse(const uint8_t *data, size_t len, union addr *source)
{
	const size_t start = sizeof(V1_START) - 1;
	const size_t seen = len < V1_MAX ? len : V1_MAX;
	const uint8_t *end = memchr(data, '\n', seen);
	char line[V1_MAX];
	size_t text;

	if (memcmp(data, V1_START, len < start ? len : start) != 0)
		return -EBADMSG;
	if (!end)
		return len < V1_MAX ? 0 : -EBADMSG;
	text = (size_t)(end - data);
	if (text <= start || data[text - 1] != '\r' || memchr(data, '\0', text))
		return -EBADMSG;
	memcpy(line, data, text - 1);
	line[text - 1] = '\0';
	return line_parse(line + start, source) ? -EBADMSG : (ssize_t)text + 1;
}

static int block_parse(const uint8_t *data, size_t body, union addr *source)
{
	const uint8_t *addresses = data + V2_HEADER;

	if (data[12] == V2_LOCAL ||
	    (data[12] == V2_PROXIED && data[13] == V2_UNSPEC))
		*source = (union addr){ .sa.sa_family = AF_UNSPEC };
	else if (data[12] == V2_PROXIED && data[13] == V2_TCP4 && body >= 12)
		source_set(source, AF_INET, addresses, get_be16(addresses + 8));
	else if (data[12] == V2_PROXIED && data[13] == V2_TCP6 && body >= 36)
		source_set(source, AF_INET6, addresses,
			   get_be16(addresses + 32));
	else
		return -EBADMSG;
	return 0;
}

static ssize_t v2_parse(const uint8_t *data, size_t len, union addr *source)
{
	const size_t known = sizeof(signature);
	size_t body;

	if (memcmp(data, signature, len < known ? len : known) != 0)
		return -EBADMSG;
	if (len < V2_HEADER)
		return 0;
	body = get_be16(data + 14);
	if (V2_HEADER + body > PROXY_HEADER_MAX)
		return -EBADMSG;
	if (len < V2_HEADER + body)
		return 0;
	return block_parse(data, body, source) ? -EBADMSG :
						 (ssize_t)(V2_HEADER + body);
}

ssize_t proxy_parse(const uint8_t *data, size_t len, union addr *source)
{
	if (!len)
		return 0;
	return *data == signature[0] ? v2_parse(data, len, source) :
				       v1_parse(data, len, source);
}

int proxy_read(struct proxy_reader *reader, int fd, union addr *source)
{
	for (;;) {
		uint8_t *at = reader->bytes + reader->have;
		ssize_t n = recv(fd, at, PROXY_HEADER_MAX - reader->have,
				 MSG_PEEK | MSG_DONTWAIT);
		ssize_t len;
		size_t take;

		if (n <= 0)
			return n ? -errno : -ECONNABORTED;
		len = proxy_parse(reader->bytes, reader->have + (size_t)n,
				  source);
		if (len < 0)
			return (int)len;
		/* Behind the header is the client's, perhaps for TLS to read. */
		take = len ? (size_t)len - reader->have : (size_t)n;
		if (recv(fd, at, take, MSG_DONTWAIT) != (ssize_t)take)
			return -EIO;
		reader->have += take;
		if (len)
			return 0;
	}
}
