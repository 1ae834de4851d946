/* SPDX-License-Identifier: BSD-2-Clause */
/* Finding the server: HOST:PORT and turn: URIs (RFC 7065), and its addresses. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/addr.h"
#include "client/place.h"
#include "culvert/client.h"

/* Copies a piece of text; -EINVAL when it is empty or too long. */
static int piece_copy(char *out, size_t size, const char *from, size_t len)
{
	if (len == 0 || len >= size)
		return -EINVAL;
	memcpy(out, from, len);
	out[len] = '\0';
	return 0;
}

static int port_copy(struct client_place *place, const char *from, size_t len)
{
	unsigned long port;
	char *end;

	if (piece_copy(place->port, sizeof(place->port), from, len) ||
	    strspn(place->port, "0123456789") != len)
		return -EINVAL;
	port = strtoul(place->port, &end, 10);
	return port <= 65535 ? 0 : -EINVAL;
}

int client_place_split(struct client_place *place, const char *text, size_t len)
{
	const char *end = text + len, *colon, *bracket;

	place->port[0] = '\0';
	if (len && *text == '[') {
		bracket = memchr(text, ']', len);
		if (!bracket ||
		    piece_copy(place->host, sizeof(place->host), text + 1,
			       (size_t)(bracket - text - 1)))
			return -EINVAL;
		if (bracket + 1 == end)
			return 0;
		if (bracket[1] != ':')
			return -EINVAL;
		return port_copy(place, bracket + 2,
				 (size_t)(end - bracket - 2));
	}
	colon = memchr(text, ':', len);
	/* More than one colon and no bracket: an IPv6 address alone. */
	if (!colon || memchr(colon + 1, ':', (size_t)(end - colon - 1)))
		return piece_copy(place->host, sizeof(place->host), text, len);
	if (piece_copy(place->host, sizeof(place->host), text,
		       (size_t)(colon - text)))
		return -EINVAL;
	return port_copy(place, colon + 1, (size_t)(end - colon - 1));
}

static int place_parse(struct client_place *place, const char *text, bool *tls)
{
	const char *query;

	*tls = !strncasecmp(text, "turns:", 6);
	if (!strncasecmp(text, "stun:", 5) || !strncasecmp(text, "stuns:", 6))
		return -EPROTONOSUPPORT;
	if (!*tls && strncasecmp(text, "turn:", 5) != 0)
		return client_place_split(place, text, strlen(text));
	text += *tls ? 6 : 5;
	query = strchr(text, '?');
	/* RFC 7065: without the query a client may choose; we speak TCP. */
	if (query && strcasecmp(query, "?transport=tcp") != 0)
		return strncasecmp(query, "?transport=", 11) ? -EINVAL :
							       -EPROTONOSUPPORT;
	return client_place_split(
		place, text, query ? (size_t)(query - text) : strlen(text));
}

static int resolver_error(int code)
{
	switch (code) {
	case EAI_AGAIN:
		return -EAGAIN;
	case EAI_MEMORY:
		return -ENOMEM;
	case EAI_SYSTEM:
		return errno ? -errno : -EAGAIN;
	default:
		return -ENOENT;
	}
}

int culvert_resolve(const char *text, int family, struct culvert_server *out)
{
	struct addrinfo hints = { .ai_family = family,
				  .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_NUMERICSERV };
	struct addrinfo *list, *at;
	struct culvert_server found;
	struct client_place place;
	bool tls;
	int err = place_parse(&place, text, &tls);

	if (err)
		return err;
	if (!*place.port)
		snprintf(place.port, sizeof(place.port), "%d",
			 tls ? CULVERT_PORT_TLS : CULVERT_PORT);
	if (!strtoul(place.port, NULL, 10))
		return -EINVAL;
	err = getaddrinfo(place.host, place.port, &hints, &list);
	if (err)
		return resolver_error(err);
	memset(&found, 0, sizeof(found));
	snprintf(found.name, sizeof(found.name), "%s", text);
	snprintf(found.host, sizeof(found.host), "%s", place.host);
	found.tls = tls;
	for (at = list; at && found.count < CULVERT_SERVER_ADDRESSES;
	     at = at->ai_next)
		if (at->ai_addrlen <= sizeof(union addr))
			memcpy(&found.address[found.count++], at->ai_addr,
			       at->ai_addrlen);
	freeaddrinfo(list);
	if (!found.count)
		return -ENOENT;
	*out = found;
	return 0;
}
