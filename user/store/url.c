/* SPDX-License-Identifier: BSD-2-Clause */
/* The URL of a Redis server. */
#include "store/url.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PORT   6379
#define TCP    "redis://"
#define UNIX   "redis+unix://"
#define DB_MAX 1000000

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One part, decoded; a NUL in it would end it early. */
static int part_take(const char *text, size_t len, char out[URL_PART_SIZE])
{
	size_t at = 0;

	for (size_t i = 0; i < len; i++) {
		char c = text[i];

		if (c == '%') {
			int high = i + 2 < len ? hex_value(text[i + 1]) : -1;
			int low = high < 0 ? -1 : hex_value(text[i + 2]);

			if (low < 0)
				return -EINVAL;
			c = (char)(high << 4 | low);
			i += 2;
		}
		if (!c || at + 1 == URL_PART_SIZE)
			return -EINVAL;
		out[at++] = c;
	}
	out[at] = '\0';
	return 0;
}

/* Nothing but digits, up to the end. */
static int number_take(const char *text, size_t len, unsigned int max,
		       unsigned int *out)
{
	unsigned int n = 0;

	if (!len || len > 7)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		n = n * 10 + (unsigned int)(text[i] - '0');
	}
	if (n > max)
		return -EINVAL;
	*out = n;
	return 0;
}

/* USER:PASSWORD@, if it is there; *text behind it. */
static int login_take(const char **text, size_t authority,
		      struct redis_url *out)
{
	const char *at = memchr(*text, '@', authority), *colon;
	size_t len;

	if (!at)
		return 0;
	len = (size_t)(at - *text);
	colon = memchr(*text, ':', len);
	if (!colon || colon + 1 == at ||
	    part_take(*text, (size_t)(colon - *text), out->user) ||
	    part_take(colon + 1, (size_t)(at - colon - 1), out->password))
		return -EINVAL;
	*text = at + 1;
	return 0;
}

/* HOST[:PORT]; an IPv6 address is in brackets. */
static int host_take(const char *text, size_t len, struct redis_url *out)
{
	const char *end = memchr(text, ':', len), *start = text;
	unsigned int port = PORT;
	size_t host;

	if (len && *text == '[') {
		const char *close = memchr(text, ']', len);

		if (!close)
			return -EINVAL;
		start = text + 1;
		host = (size_t)(close - start);
		end = close + 1 == text + len ? NULL : close + 1;
		if (end && *end != ':')
			return -EINVAL;
	} else {
		host = end ? (size_t)(end - text) : len;
	}
	if (!host || part_take(start, host, out->host))
		return -EINVAL;
	if (end && (number_take(end + 1, (size_t)(text + len - end - 1), 65535,
				&port) ||
		    !port))
		return -EINVAL;
	out->port = (int)port;
	return 0;
}

static int tcp_take(const char *text, struct redis_url *out)
{
	size_t authority = strcspn(text, "/");
	const char *db = text + authority;

	if (login_take(&text, authority, out) ||
	    host_take(text, (size_t)(db - text), out))
		return -EINVAL;
	if (!*db || !db[1])
		return 0;
	return number_take(db + 1, strlen(db + 1), DB_MAX, &out->db);
}

static int unix_take(const char *text, struct redis_url *out)
{
	static const char query[] = "?db=";
	const char *db;

	if (login_take(&text, strcspn(text, "/"), out) || *text != '/')
		return -EINVAL;
	db = text + strcspn(text, "?");
	if (part_take(text, (size_t)(db - text), out->path))
		return -EINVAL;
	if (!*db)
		return 0;
	if (strncmp(db, query, sizeof(query) - 1) != 0)
		return -EINVAL;
	db += sizeof(query) - 1;
	return number_take(db, strlen(db), DB_MAX, &out->db);
}

int redis_url_parse(const char *url, struct redis_url *out)
{
	struct redis_url parsed = { .port = PORT };
	int err = -EINVAL;

	if (!strncmp(url, TCP, sizeof(TCP) - 1))
		err = tcp_take(url + sizeof(TCP) - 1, &parsed);
	else if (!strncmp(url, UNIX, sizeof(UNIX) - 1))
		err = unix_take(url + sizeof(UNIX) - 1, &parsed);
	if (!err)
		*out = parsed;
	explicit_bzero(&parsed, sizeof(parsed));
	return err;
}
