/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the store reads of others: the URL of the configuration, and the answers of
 * a Redis server, of which each is taken for a user and for one of the login. The
 * first byte chooses.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/redis.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Unlike assert() it stays in every build. */
static void must(bool truth)
{
	if (!truth)
		abort();
}

static void url_read(const uint8_t *data, size_t len)
{
	struct redis_url url;
	char text[1024];
	int err;

	if (len >= sizeof(text))
		return;
	memcpy(text, data, len);
	text[len] = '\0';
	err = redis_url_parse(text, &url);
	must(!err || err == -EINVAL);
	if (err)
		return;
	must(!url.host[0] == (url.path[0] == '/'));
	must(url.port >= 1 && url.port <= 65535);
	must(!url.user[0] || url.password[0]);
	must(memchr(url.host, 0, sizeof(url.host)));
	must(memchr(url.path, 0, sizeof(url.path)));
}

static void answer_read(const redisReply *reply)
{
	char why[STORE_WHY_SIZE] = "";
	struct store_user user;
	int err = store_redis_read(reply, &user, why);

	must(!err || err == -ENOENT || err == -EBADMSG || err == -EIO);
	must(err || store_name_ok(user.name, strlen(user.name)));
	must(!strpbrk(why, "\"\n\r"));
	err = store_redis_login_answer(reply, true, why);
	must(!err || err == -EIO);
	must(!strpbrk(why, "\"\n\r"));
}

static void answers_read(const uint8_t *data, size_t len)
{
	redisReader *reader = redisReaderCreate();
	redisReplyObjectFunctions functions;
	void *reply;

	must(reader);
	store_redis_bound(reader, &functions);
	if (redisReaderFeed(reader, (const char *)data, len) == REDIS_OK)
		while (redisReaderGetReply(reader, &reply) == REDIS_OK &&
		       reply) {
			answer_read(reply);
			freeReplyObject(reply);
		}
	redisReaderFree(reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!len)
		return 0;
	if (data[0] & 1)
		url_read(data + 1, len - 1);
	else
		answers_read(data + 1, len - 1);
	return 0;
}
