/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Redis, by hiredis's functions that do not wait: commands are appended to its
 * buffer, and answers taken from its reader, as far as they have come.
 *
 *   opening -> logging in (AUTH, SELECT, the schema's version) -> ready
 *
 * A user is a hash culvert:user:REALM:HASH with the fields realm, name, md5 and
 * sha256, of which the keys are bytes and not text. An error answer ends the
 * connection, but one that the record is of another type, which is that user's own.
 */
#include "store/redis.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/syscalls.h"
#include "store/remote.h"

SYSCALLS_SOCKET(SYSCALLS_REMOTE, AF_UNIX, 0);
SYSCALLS_SOCKET(SYSCALLS_REMOTE, AF_INET, 0);
SYSCALLS_SOCKET(SYSCALLS_REMOTE, AF_INET, IPPROTO_TCP);
SYSCALLS_SOCKET(SYSCALLS_REMOTE, AF_INET6, 0);
SYSCALLS_SOCKET(SYSCALLS_REMOTE, AF_INET6, IPPROTO_TCP);
SYSCALLS_SOCKET(SYSCALLS_REMOTE, AF_NETLINK, NETLINK_ROUTE);
SYSCALLS_EQUAL(SYSCALLS_REMOTE, "fcntl", 1, F_GETFL);
SYSCALLS_EQUAL(SYSCALLS_REMOTE, "fcntl", 1, F_SETFL);
SYSCALLS_EQUAL(SYSCALLS_REMOTE, "ioctl", 1, FIONREAD);
SYSCALLS(SYSCALLS_REMOTE, "connect setsockopt getsockopt read write close");
/* Names of hosts. */
SYSCALLS_WHERE(SYSCALLS_REMOTE, "openat", 2, O_ACCMODE | O_CREAT | O_TRUNC,
	       O_RDONLY);
SYSCALLS(SYSCALLS_REMOTE, "newfstatat fstat stat lstat lseek uname bind "
			  "getsockname sendto sendmmsg recvmsg recvfrom poll "
			  "ppoll");

enum {
	ELEMENTS_MAX = 8, /* of an array */
	UNREAD_MAX = 64 * 1024, /* bytes of answers */
};

struct redis {
	redisContext *context; /* NULL: none */
	redisReplyObjectFunctions functions; /* of its reader */
	bool open; /* connected */
	int login_left; /* answers */
	struct redis_url url;
};

size_t store_redis_key(const struct store_key *key, char out[REDIS_KEY_SIZE])
{
	static const char digits[] = "0123456789abcdef";
	size_t len = (size_t)snprintf(out, REDIS_KEY_SIZE,
				      REDIS_PREFIX "%s:", key->realm);

	for (size_t i = 0; i < sizeof(key->hash); i++) {
		out[len++] = digits[key->hash[i] >> 4];
		out[len++] = digits[key->hash[i] & 0xf];
	}
	out[len] = '\0';
	return len;
}

#if HIREDIS_MAJOR < 1
#define REDIS_COUNT int
#else
#define REDIS_COUNT size_t
#endif

static void *array_create(const redisReadTask *task, REDIS_COUNT count)
{
	const redisReplyObjectFunctions *unbounded = task->privdata;

	/* In an array there is none: what is read of it is no longer unread. */
	if (task->parent || count > ELEMENTS_MAX)
		return NULL;
	return unbounded->createArray(task, count);
}

void store_redis_bound(redisReader *reader,
		       redisReplyObjectFunctions *functions)
{
	*functions = *reader->fn;
	functions->createArray = array_create;
	reader->privdata = reader->fn;
	reader->fn = functions;
}

int store_redis_why(const redisContext *context, char why[STORE_WHY_SIZE])
{
	store_why(why, "", context ? context->errstr : "out of memory");
	return context ? -EIO : -ENOMEM;
}

int store_redis_login(redisContext *context, const struct redis_url *url)
{
	int count = 0, bad = 0;

	if (url->user[0])
		bad |= redisAppendCommand(context, "AUTH %s %s", url->user,
					  url->password);
	else if (url->password[0])
		bad |= redisAppendCommand(context, "AUTH %s", url->password);
	count += url->password[0] != '\0';
	if (url->db) {
		bad |= redisAppendCommand(context, "SELECT %u", url->db);
		count++;
	}
	bad |= redisAppendCommand(context, "GET " REDIS_SCHEMA_KEY);
	return bad ? -ENOMEM : count + 1;
}

int store_redis_login_answer(const redisReply *reply, bool last,
			     char why[STORE_WHY_SIZE])
{
	char version[16];

	if (reply->type == REDIS_REPLY_ERROR) {
		store_why(why, "", reply->str);
		return -EIO;
	}
	/* Nobody has been added yet, or it is ours. */
	snprintf(version, sizeof(version), "%d", STORE_SCHEMA);
	if (!last || reply->type == REDIS_REPLY_NIL ||
	    (reply->type == REDIS_REPLY_STRING && !strcmp(reply->str, version)))
		return 0;
	store_why(why, "", "its records are of another version of culvert");
	return -EIO;
}

static int redis_connect(void *own, char why[STORE_WHY_SIZE])
{
	struct redis *redis = own;
	const struct redis_url *url = &redis->url;

	redis->context = url->host[0] ?
				 redisConnectNonBlock(url->host, url->port) :
				 redisConnectUnixNonBlock(url->path);
	if (!redis->context || redis->context->err)
		return store_redis_why(redis->context, why);
	store_redis_bound(redis->context->reader, &redis->functions);
	return 0;
}

static int redis_flush(void *own, char why[STORE_WHY_SIZE])
{
	struct redis *redis = own;
	int done = 0;

	if (redisBufferWrite(redis->context, &done) != REDIS_OK)
		return store_redis_why(redis->context, why);
	return done ? 0 : -EAGAIN;
}

static int redis_receive(void *own, char why[STORE_WHY_SIZE])
{
	struct redis *redis = own;

	if (redisBufferRead(redis->context) != REDIS_OK)
		return store_redis_why(redis->context, why);
	if (redis->context->reader->len <= UNREAD_MAX)
		return 0;
	store_why(why, "", "an answer without end");
	return -EIO;
}

/* The next answer, the caller's to free. -EAGAIN: it is not there yet. */
static int reply_next(struct redis *redis, redisReply **out,
		      char why[STORE_WHY_SIZE])
{
	void *reply = NULL;

	if (redisGetReplyFromReader(redis->context, &reply) != REDIS_OK)
		return store_redis_why(redis->context, why);
	*out = reply;
	return reply ? 0 : -EAGAIN;
}

/* Is the connection there? Then it begins with the login. */
static int redis_opened(struct redis *redis, char why[STORE_WHY_SIZE])
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(redis->context->fd, SOL_SOCKET, SO_ERROR, &err, &len))
		err = errno;
	if (err) {
		store_why(why, "", strerror(err));
		return -err;
	}
	redis->login_left = store_redis_login(redis->context, &redis->url);
	if (redis->login_left < 0) {
		store_why(why, "", "out of memory");
		return -ENOMEM;
	}
	redis->open = true;
	return 0;
}

static int login_receive(struct redis *redis, char why[STORE_WHY_SIZE])
{
	redisReply *reply;
	int err = 0;

	while (!err && redis->login_left) {
		err = reply_next(redis, &reply, why);
		if (err)
			return err;
		redis->login_left--;
		err = store_redis_login_answer(reply, !redis->login_left, why);
		freeReplyObject(reply);
	}
	return err;
}

static int redis_connecting(void *own, uint32_t *events,
			    char why[STORE_WHY_SIZE])
{
	struct redis *redis = own;
	int err = redis->open ? 0 : redis_opened(redis, why);

	if (err)
		return err;
	err = redis_flush(redis, why);
	if (err && err != -EAGAIN)
		return err;
	*events = err ? EPOLLIN | EPOLLOUT : EPOLLIN;
	err = redis_receive(redis, why);
	return err ? err : login_receive(redis, why);
}

static int redis_fd(const void *own)
{
	const struct redis *redis = own;

	return redis->context->fd;
}

static int redis_ask(void *own, const struct store_key *key,
		     char why[STORE_WHY_SIZE])
{
	struct redis *redis = own;
	char name[REDIS_KEY_SIZE];
	const char *words[] = { "HMGET", name, "name", "md5", "sha256" };
	const size_t lengths[] = { 5, store_redis_key(key, name), 4, 3, 6 };

	if (redisAppendCommandArgv(redis->context, 5, words, lengths) ==
	    REDIS_OK)
		return 0;
	return store_redis_why(redis->context, why);
}

static bool is_text(const redisReply *reply)
{
	return reply->type == REDIS_REPLY_STRING;
}

static int fields_read(const redisReply *reply, struct store_user *out)
{
	redisReply *const *field = reply->element;

	if (field[0]->type == REDIS_REPLY_NIL &&
	    field[1]->type == REDIS_REPLY_NIL &&
	    field[2]->type == REDIS_REPLY_NIL)
		return -ENOENT;
	if (!is_text(field[0]) || !is_text(field[1]) || !is_text(field[2]))
		return -EBADMSG;
	return store_user_read(field[0]->str, field[0]->len, field[1]->str,
			       field[1]->len, field[2]->str, field[2]->len,
			       out);
}

int store_redis_read(const redisReply *reply, struct store_user *out,
		     char why[STORE_WHY_SIZE])
{
	static const char wrong_type[] = "WRONGTYPE";
	int err = -EBADMSG;

	if (reply->type == REDIS_REPLY_ERROR) {
		store_why(why, "", reply->str);
		return strncmp(reply->str, wrong_type,
			       sizeof(wrong_type) - 1) == 0 ?
			       -EBADMSG :
			       -EIO;
	}
	if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 3)
		err = fields_read(reply, out);
	if (err == -EBADMSG)
		store_why(why, "", "a record " REDIS_PREFIX "* is malformed");
	return err;
}

static int redis_next(void *own, struct store_user *out,
		      char why[STORE_WHY_SIZE])
{
	redisReply *reply;
	int err = reply_next(own, &reply, why);

	if (err)
		return err;
	err = store_redis_read(reply, out, why);
	freeReplyObject(reply);
	return err;
}

static void redis_disconnect(void *own)
{
	struct redis *redis = own;

	if (redis->context)
		redisFree(redis->context);
	redis->context = NULL;
	redis->open = false;
}

static void redis_free(void *own)
{
	struct redis *redis = own;

	explicit_bzero(redis, sizeof(*redis));
	free(redis);
}

static const struct remote_driver driver = {
	.connect = redis_connect,
	.connecting = redis_connecting,
	.fd = redis_fd,
	.ask = redis_ask,
	.flush = redis_flush,
	.receive = redis_receive,
	.next = redis_next,
	.disconnect = redis_disconnect,
	.free = redis_free,
};

static bool redis_url_ok(const char *url)
{
	struct redis_url parsed;
	bool ok = !redis_url_parse(url, &parsed);

	explicit_bzero(&parsed, sizeof(parsed));
	return ok;
}

static int redis_open(const struct backend_env *env, struct backend **out)
{
	struct redis *redis = calloc(1, sizeof(*redis));
	int err;

	if (!redis)
		return -ENOMEM;
	err = redis_url_parse(env->url, &redis->url);
	if (!err)
		err = remote_new(env, &store_redis, &driver, redis, out);
	if (err)
		redis_free(redis);
	return err;
}

const struct backend_ops store_redis = {
	.scheme = "redis",
	.url_ok = redis_url_ok,
	.open = redis_open,
	.find = remote_find,
	.close = remote_close,
	.admin_open = store_redis_admin_open,
	.admin_close = store_redis_admin_close,
	.put = store_redis_put,
	.remove = store_redis_remove,
	.each = store_redis_each,
};
