/* SPDX-License-Identifier: BSD-2-Clause */
/* Redis: changing what is in it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "store/redis.h"

#define WAIT_S 10
#define COUNT  "1000" /* of keys that SCAN looks at at a time */

/* Waits for one answer, of this type; the caller's to free. */
static int answer_wait(redisContext *context, int type, redisReply **out,
		       char why[STORE_WHY_SIZE])
{
	void *reply = NULL;

	if (redisGetReply(context, &reply) != REDIS_OK || !reply) {
		store_redis_why(context, why);
		return -EIO;
	}
	*out = reply;
	if ((*out)->type == type)
		return 0;
	store_why(why, "",
		  (*out)->type == REDIS_REPLY_ERROR ?
			  (*out)->str :
			  "it has answered with something else");
	freeReplyObject(reply);
	return -EIO;
}

static int login(redisContext *context, const struct redis_url *url,
		 char why[STORE_WHY_SIZE])
{
	int left = store_redis_login(context, url), err = 0;

	if (left < 0) {
		store_why(why, "", "out of memory");
		return -ENOMEM;
	}
	while (left-- && !err) {
		void *reply = NULL;

		if (redisGetReply(context, &reply) != REDIS_OK || !reply)
			return store_redis_why(context, why);
		err = store_redis_login_answer(reply, !left, why);
		freeReplyObject(reply);
	}
	return err;
}

static int dial(const struct redis_url *url, redisContext **out,
		char why[STORE_WHY_SIZE])
{
	const struct timeval wait = { .tv_sec = WAIT_S };
	redisContext *context =
		url->host[0] ?
			redisConnectWithTimeout(url->host, url->port, wait) :
			redisConnectUnixWithTimeout(url->path, wait);
	int err = 0;

	if (!context || context->err)
		err = store_redis_why(context, why);
	else if (redisSetTimeout(context, wait) != REDIS_OK)
		err = store_redis_why(context, why);
	if (!err)
		err = login(context, url, why);
	if (!err)
		*out = context;
	else if (context)
		redisFree(context);
	return err;
}

int store_redis_admin_open(const char *url, const struct store_owner *owner,
			   bool make, void **out, char why[STORE_WHY_SIZE])
{
	struct redis_url parsed;
	redisContext *context;
	int err = redis_url_parse(url, &parsed);

	(void)owner;
	(void)make; /* what is missing comes with the first user */
	if (err) {
		store_why(why, "", "the URL is not one of Redis");
		return err;
	}
	err = dial(&parsed, &context, why);
	explicit_bzero(&parsed, sizeof(parsed));
	if (!err)
		*out = context;
	return err;
}

void store_redis_admin_close(void *admin)
{
	redisFree(admin);
}

static int integer_wait(redisContext *context, long long *out,
			char why[STORE_WHY_SIZE])
{
	redisReply *reply;
	int err = answer_wait(context, REDIS_REPLY_INTEGER, &reply, why);

	if (err)
		return err;
	*out = reply->integer;
	freeReplyObject(reply);
	return 0;
}

int store_redis_put(void *admin, const struct store_key *key,
		    const struct store_user *user, bool *replaced,
		    char why[STORE_WHY_SIZE])
{
	redisContext *context = admin;
	char name[REDIS_KEY_SIZE];
	long long made, fresh;
	int err;

	store_redis_key(key, name);
	if (redisAppendCommand(context, "SETNX " REDIS_SCHEMA_KEY " %d",
			       STORE_SCHEMA) != REDIS_OK ||
	    redisAppendCommand(
		    context, "HSET %s realm %s name %s md5 %b sha256 %b", name,
		    key->realm, user->name, user->md5, sizeof(user->md5),
		    user->sha256, sizeof(user->sha256)) != REDIS_OK)
		return store_redis_why(context, why);
	err = integer_wait(context, &made, why);
	if (!err)
		err = integer_wait(context, &fresh, why);
	if (!err)
		*replaced = fresh == 0;
	return err;
}

int store_redis_remove(void *admin, const struct store_key *key,
		       char why[STORE_WHY_SIZE])
{
	redisContext *context = admin;
	char name[REDIS_KEY_SIZE];
	long long gone;
	int err;

	store_redis_key(key, name);
	if (redisAppendCommand(context, "DEL %s", name) != REDIS_OK)
		return store_redis_why(context, why);
	err = integer_wait(context, &gone, why);
	return err ? err : gone ? 0 : -ENOENT;
}

/* Of one key that SCAN has named. */
static int user_tell(redisContext *context, const redisReply *key,
		     bool (*fn)(void *arg, const char *realm, const char *name),
		     void *arg, bool *more, char why[STORE_WHY_SIZE])
{
	redisReply *reply, **field;
	int err;

	if (redisAppendCommand(context, "HMGET %b realm name", key->str,
			       key->len) != REDIS_OK)
		return store_redis_why(context, why);
	err = answer_wait(context, REDIS_REPLY_ARRAY, &reply, why);
	if (err)
		return err;
	field = reply->element;
	if (reply->elements == 2 && field[0]->type == REDIS_REPLY_STRING &&
	    field[1]->type == REDIS_REPLY_STRING)
		*more = fn(arg, field[0]->str, field[1]->str);
	freeReplyObject(reply);
	return 0;
}

/* SCAN's answer: where to go on, and keys. */
static int page_tell(redisContext *context, redisReply *page, char cursor[32],
		     bool (*fn)(void *arg, const char *realm, const char *name),
		     void *arg, bool *more, char why[STORE_WHY_SIZE])
{
	const redisReply *keys;
	int err = 0;

	if (page->elements != 2 ||
	    page->element[0]->type != REDIS_REPLY_STRING ||
	    page->element[0]->len >= 32 ||
	    page->element[1]->type != REDIS_REPLY_ARRAY) {
		store_why(why, "", "SCAN has answered with something else");
		return -EIO;
	}
	memcpy(cursor, page->element[0]->str, page->element[0]->len + 1);
	keys = page->element[1];
	for (size_t i = 0; i < keys->elements && *more && !err; i++)
		if (keys->element[i]->type == REDIS_REPLY_STRING)
			err = user_tell(context, keys->element[i], fn, arg,
					more, why);
	return err;
}

int store_redis_each(void *admin,
		     bool (*fn)(void *arg, const char *realm, const char *name),
		     void *arg, char why[STORE_WHY_SIZE])
{
	redisContext *context = admin;
	char cursor[32] = "0";
	bool more = true;
	int err = 0;

	do {
		redisReply *page;

		if (redisAppendCommand(context,
				       "SCAN %s MATCH " REDIS_PREFIX
				       "* COUNT " COUNT,
				       cursor) != REDIS_OK)
			return store_redis_why(context, why);
		err = answer_wait(context, REDIS_REPLY_ARRAY, &page, why);
		if (err)
			return err;
		err = page_tell(context, page, cursor, fn, arg, &more, why);
		freeReplyObject(page);
	} while (!err && more && strcmp(cursor, "0") != 0);
	return err;
}
