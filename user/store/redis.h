/* SPDX-License-Identifier: BSD-2-Clause */
/* The two halves of Redis: looking up, and changing. Private to store. */
#ifndef STORE_REDIS_H
#define STORE_REDIS_H

#include <hiredis/hiredis.h>

#include "store/internal.h"
#include "store/url.h"

#define REDIS_SCHEMA_KEY "culvert:schema"
#define REDIS_PREFIX     "culvert:user:"
/* culvert:user:REALM:HASH, the hash in hexadecimal, and NUL */
#define REDIS_KEY_SIZE \
	(sizeof(REDIS_PREFIX) - 1 + STORE_REALM_SIZE + 2 * STORE_HASH_LEN + 1)

/* The name of a user's hash; its length. */
size_t store_redis_key(const struct store_key *key, char out[REDIS_KEY_SIZE]);
/*
 * Queues what a connection begins with: AUTH, SELECT, and asking for the version
 * of the schema. How many answers there will be; negative: no memory.
 */
int store_redis_login(redisContext *context, const struct redis_url *url);
/* One of these answers; the last is the schema's. 0 or -EIO. */
int store_redis_login_answer(const redisReply *reply, bool last,
			     char why[STORE_WHY_SIZE]);
/* A user out of an answer: 0, -ENOENT, -EBADMSG (malformed) or -EIO. */
int store_redis_read(const redisReply *reply, struct store_user *out,
		     char why[STORE_WHY_SIZE]);
/*
 * Answers with arrays larger than ours, or arrays in them, fail as without memory:
 * hiredis makes room for as many elements as each head says. `functions` must outlive
 * the reader.
 */
void store_redis_bound(redisReader *reader,
		       redisReplyObjectFunctions *functions);
/* What is wrong with the connection. -EIO. */
int store_redis_why(const redisContext *context, char why[STORE_WHY_SIZE]);

int store_redis_admin_open(const char *url, const struct store_owner *owner,
			   bool make, void **out, char why[STORE_WHY_SIZE]);
void store_redis_admin_close(void *admin);
int store_redis_put(void *admin, const struct store_key *key,
		    const struct store_user *user, bool *replaced,
		    char why[STORE_WHY_SIZE]);
int store_redis_remove(void *admin, const struct store_key *key,
		       char why[STORE_WHY_SIZE]);
int store_redis_each(void *admin,
		     bool (*fn)(void *arg, const char *realm, const char *name),
		     void *arg, char why[STORE_WHY_SIZE]);

#endif
