/* SPDX-License-Identifier: BSD-2-Clause */
/* Addresses given to the command: peers, local listeners, services. */
#include "client/place.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/say.h"

/* The first IPv4 address, else the first: what every relay can reach. */
static const struct addrinfo *endpoint_choose(const struct addrinfo *list)
{
	for (const struct addrinfo *at = list; at; at = at->ai_next)
		if (at->ai_family == AF_INET)
			return at;
	return list;
}

static int endpoint_look_up(const char *what, const char *text,
			    const struct client_place *place, union addr *out)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC,
				  .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_NUMERICSERV };
	const struct addrinfo *chosen;
	struct addrinfo *list;
	int err;

	err = getaddrinfo(place->host, place->port, &hints, &list);
	if (err) {
		client_error("%s %s: %s: %s", what, text, place->host,
			     gai_strerror(err));
		return -ENOENT;
	}
	chosen = endpoint_choose(list);
	memset(out, 0, sizeof(*out));
	memcpy(out, chosen->ai_addr, chosen->ai_addrlen);
	freeaddrinfo(list);
	return 0;
}

int client_endpoint_find(const char *what, const char *text,
			 const char *default_host, union addr *out)
{
	struct client_place place;
	char full[300];
	const char *used = text;

	if (default_host && *text &&
	    strspn(text, "0123456789") == strlen(text)) {
		snprintf(full, sizeof(full), "%s:%s", default_host, text);
		used = full;
	}
	/* Port 0 lets the kernel choose one to listen on; no peer has it. */
	if (client_place_split(&place, used, strlen(used)) || !*place.port ||
	    (!default_host && !strtoul(place.port, NULL, 10))) {
		client_error("%s %s: %s is wanted", what, text,
			     default_host ? "[HOST:]PORT" : "HOST:PORT");
		return -EINVAL;
	}
	if (!strcmp(place.host, "*"))
		snprintf(place.host, sizeof(place.host), "0.0.0.0");
	return endpoint_look_up(what, text, &place, out);
}

int client_allow_read(const char *text, union addr *out, size_t max,
		      size_t *count)
{
	char one[ADDR_STRLEN];
	size_t n = 0;

	for (const char *at = text; *at;) {
		size_t len = strcspn(at, ",");

		if (n >= max) {
			client_error("--allow: at most %zu addresses", max);
			return -EINVAL;
		}
		snprintf(one, sizeof(one), "%.*s", (int)len, at);
		if (len >= sizeof(one) || addr_parse(one, 0, &out[n]) ||
		    addr_port(&out[n])) {
			client_error("--allow %s: %s is no IP address", text,
				     one);
			return -EINVAL;
		}
		addr_unmap(&out[n]);
		if (addr_family(&out[n]) != addr_family(&out[0])) {
			client_error(
				"--allow %s: an allocation has one address "
				"family; run one command for IPv4 and one "
				"for IPv6",
				text);
			return -EINVAL;
		}
		n++;
		at += len + (at[len] == ',');
	}
	if (!n) {
		client_error("--allow: no address given");
		return -EINVAL;
	}
	*count = n;
	return 0;
}
