/* SPDX-License-Identifier: BSD-2-Clause */
/* The URL of a Redis server, taken apart. Private to store. */
#ifndef STORE_URL_H
#define STORE_URL_H

#include <stdbool.h>

#define URL_PART_SIZE 256

struct redis_url {
	char user[URL_PART_SIZE]; /* empty: the default one */
	char password[URL_PART_SIZE]; /* empty: none */
	char host[URL_PART_SIZE]; /* empty: a UNIX socket */
	char path[URL_PART_SIZE]; /* of that */
	int port;
	unsigned int db;
};

/*
 * redis://[[USER]:PASSWORD@]HOST[:PORT][/DB] or
 * redis+unix://[[USER]:PASSWORD@]/PATH[?db=DB]; what %XX stands for is decoded in
 * all but the numbers. A pure function. 0 or -EINVAL.
 */
int redis_url_parse(const char *url, struct redis_url *out);

#endif
