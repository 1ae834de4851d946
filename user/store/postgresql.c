/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PostgreSQL, by libpq's functions that do not wait, in its pipeline mode: each
 * question is a statement prepared once for the connection, and a sync behind it,
 * so that each has an end of its own.
 *
 *   opening -> preparing (the statement, and the version of the tables) -> ready
 *
 * An error of the server ends the connection: whatever it is, it is none of a
 * single user. libpq looks up names of hosts at the start of a connection, and
 * waits for that; here it is the store's thread that does.
 */
#include "store/postgresql.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/syscalls.h"
#include "store/remote.h"

SYSCALLS_SOCKET(SYSCALLS_REMOTE, AF_UNIX, 0);
SYSCALLS_SOCKET(SYSCALLS_REMOTE, AF_INET, 0);
SYSCALLS_SOCKET(SYSCALLS_REMOTE, AF_INET6, 0);
SYSCALLS_SOCKET(SYSCALLS_REMOTE, AF_NETLINK, NETLINK_ROUTE);
SYSCALLS_EQUAL(SYSCALLS_REMOTE, "fcntl", 1, F_GETFL);
SYSCALLS_EQUAL(SYSCALLS_REMOTE, "fcntl", 1, F_SETFL);
SYSCALLS_EQUAL(SYSCALLS_REMOTE, "fcntl", 1, F_SETFD);
SYSCALLS_EQUAL(SYSCALLS_REMOTE, "ioctl", 1, FIONREAD);
SYSCALLS(SYSCALLS_REMOTE, "connect setsockopt getsockopt getpeername sendto "
			  "recvfrom close");
/* Names of hosts, certificates, and who the user is. */
SYSCALLS_WHERE(SYSCALLS_REMOTE, "openat", 2, O_ACCMODE | O_CREAT | O_TRUNC,
	       O_RDONLY);
SYSCALLS(SYSCALLS_REMOTE, "newfstatat fstat stat lstat access faccessat read "
			  "lseek uname bind getsockname sendmmsg recvmsg poll "
			  "ppoll getuid geteuid");

#define STATEMENT "culvert_find"
#define SELECT \
	"SELECT name, md5, sha256 FROM culvert_users WHERE realm = $1 AND hash = $2"
#define VERSION   "SELECT version FROM culvert_schema"
#define OID_BYTEA 17
#define OID_TEXT  25

struct postgresql {
	PGconn *conn; /* NULL: none */
	bool preparing;
	int answer; /* to the oldest question, if `answered` */
	bool answered; /* but its sync has not come */
	struct store_user user; /* of that answer */
	char url[];
};

int store_postgresql_why(const PGconn *conn, const PGresult *result,
			 char why[STORE_WHY_SIZE])
{
	const char *text = result ? PQresultErrorMessage(result) : "";

	store_why(why, "", *text ? text : PQerrorMessage(conn));
	return -EIO;
}

/* Its warnings would go to standard error. */
static void notice_ignore(void *arg, const PGresult *result)
{
	(void)arg;
	(void)result;
}

/* The URL, and what it may leave unsaid. */
static const char *const connect_keys[] = { "connect_timeout",
					    "fallback_application_name",
					    "dbname", NULL };

PGconn *store_postgresql_dial(const char *url)
{
	const char *values[] = { "10", "culvertctl", url, NULL };
	PGconn *conn = PQconnectdbParams(connect_keys, values, 1);

	if (conn)
		PQsetNoticeReceiver(conn, notice_ignore, NULL);
	return conn;
}

static int pg_connect(void *own, char why[STORE_WHY_SIZE])
{
	struct postgresql *pg = own;
	const char *values[] = { "10", "culvertd", pg->url, NULL };

	pg->conn = PQconnectStartParams(connect_keys, values, 1);
	if (!pg->conn) {
		store_why(why, "", "out of memory");
		return -ENOMEM;
	}
	PQsetNoticeReceiver(pg->conn, notice_ignore, NULL);
	if (PQstatus(pg->conn) == CONNECTION_BAD)
		return store_postgresql_why(pg->conn, NULL, why);
	return 0;
}

static int pg_flush(void *own, char why[STORE_WHY_SIZE])
{
	struct postgresql *pg = own;
	int left = PQflush(pg->conn);

	if (left < 0)
		return store_postgresql_why(pg->conn, NULL, why);
	return left ? -EAGAIN : 0;
}

static int pg_receive(void *own, char why[STORE_WHY_SIZE])
{
	struct postgresql *pg = own;

	return PQconsumeInput(pg->conn) ?
		       0 :
		       store_postgresql_why(pg->conn, NULL, why);
}

static int prepare_send(struct postgresql *pg, char why[STORE_WHY_SIZE])
{
	const Oid types[] = { OID_TEXT, OID_BYTEA };

	if (PQsetnonblocking(pg->conn, 1) || !PQenterPipelineMode(pg->conn) ||
	    !PQsendPrepare(pg->conn, STATEMENT, SELECT, 2, types) ||
	    !PQsendQueryParams(pg->conn, VERSION, 0, NULL, NULL, NULL, NULL,
			       0) ||
	    !PQpipelineSync(pg->conn))
		return store_postgresql_why(pg->conn, NULL, why);
	pg->preparing = true;
	return 0;
}

/*
 * The next result, which the caller clears. -EAGAIN: it is not there yet. NULLs,
 * which end each statement's, are passed over.
 */
static int result_next(struct postgresql *pg, PGresult **out)
{
	for (int i = 0; i < 2; i++) {
		if (PQisBusy(pg->conn))
			return -EAGAIN;
		*out = PQgetResult(pg->conn);
		if (*out)
			return 0;
	}
	return -EAGAIN;
}

int store_postgresql_version(const PGresult *result, char why[STORE_WHY_SIZE])
{
	if (PQntuples(result) == 1 && PQnfields(result) == 1 &&
	    atoi(PQgetvalue(result, 0, 0)) == STORE_SCHEMA)
		return 0;
	store_why(why, "", "its tables are of another version of culvert");
	return -EIO;
}

/* 0: all is prepared. */
static int prepare_receive(struct postgresql *pg, char why[STORE_WHY_SIZE])
{
	PGresult *result;
	int err;

	while (!(err = result_next(pg, &result))) {
		ExecStatusType status = PQresultStatus(result);

		if (status == PGRES_TUPLES_OK)
			err = store_postgresql_version(result, why);
		else if (status != PGRES_COMMAND_OK &&
			 status != PGRES_PIPELINE_SYNC)
			err = store_postgresql_why(pg->conn, result, why);
		PQclear(result);
		if (err || status == PGRES_PIPELINE_SYNC)
			return err;
	}
	return err;
}

static int pg_preparing(struct postgresql *pg, uint32_t *events,
			char why[STORE_WHY_SIZE])
{
	int err = pg_flush(pg, why);

	if (err && err != -EAGAIN)
		return err;
	*events = err ? EPOLLIN | EPOLLOUT : EPOLLIN;
	err = pg_receive(pg, why);
	return err ? err : prepare_receive(pg, why);
}

static int pg_opening(struct postgresql *pg, uint32_t *events,
		      char why[STORE_WHY_SIZE])
{
	switch (PQconnectPoll(pg->conn)) {
	case PGRES_POLLING_READING:
		*events = EPOLLIN;
		return -EAGAIN;
	case PGRES_POLLING_WRITING:
	case PGRES_POLLING_ACTIVE:
		*events = EPOLLOUT;
		return -EAGAIN;
	case PGRES_POLLING_OK:
		return prepare_send(pg, why);
	case PGRES_POLLING_FAILED:
		break;
	}
	return store_postgresql_why(pg->conn, NULL, why);
}

static int pg_connecting(void *own, uint32_t *events, char why[STORE_WHY_SIZE])
{
	struct postgresql *pg = own;
	int err = 0;

	if (!pg->preparing)
		err = pg_opening(pg, events, why);
	return err ? err : pg_preparing(pg, events, why);
}

static int pg_fd(const void *own)
{
	const struct postgresql *pg = own;

	return PQsocket(pg->conn);
}

static int pg_ask(void *own, const struct store_key *key,
		  char why[STORE_WHY_SIZE])
{
	struct postgresql *pg = own;
	const char *values[] = { key->realm, (const char *)key->hash };
	const int lengths[] = { 0, sizeof(key->hash) };
	const int formats[] = { 0, 1 };

	if (PQsendQueryPrepared(pg->conn, STATEMENT, 2, values, lengths,
				formats, 1) &&
	    PQpipelineSync(pg->conn))
		return 0;
	return store_postgresql_why(pg->conn, NULL, why);
}

static int tuple_read(const PGresult *result, struct store_user *out,
		      char why[STORE_WHY_SIZE])
{
	int err;

	if (!PQntuples(result))
		return -ENOENT;
	err = PQnfields(result) == 3 ?
		      store_user_read(PQgetvalue(result, 0, 0),
				      (size_t)PQgetlength(result, 0, 0),
				      PQgetvalue(result, 0, 1),
				      (size_t)PQgetlength(result, 0, 1),
				      PQgetvalue(result, 0, 2),
				      (size_t)PQgetlength(result, 0, 2), out) :
		      -EBADMSG;
	if (err)
		store_why(why, "", "a row of culvert_users is malformed");
	return err;
}

static int pg_next(void *own, struct store_user *out, char why[STORE_WHY_SIZE])
{
	struct postgresql *pg = own;
	PGresult *result;
	int err;

	while (!(err = result_next(pg, &result))) {
		ExecStatusType status = PQresultStatus(result);

		if (status == PGRES_TUPLES_OK) {
			pg->answer = tuple_read(result, &pg->user, why);
			pg->answered = true;
		} else if (status != PGRES_PIPELINE_SYNC || !pg->answered) {
			err = store_postgresql_why(pg->conn, result, why);
		}
		PQclear(result);
		if (err)
			return err;
		if (status != PGRES_PIPELINE_SYNC)
			continue;
		pg->answered = false;
		if (!pg->answer)
			*out = pg->user;
		explicit_bzero(&pg->user, sizeof(pg->user));
		return pg->answer;
	}
	return err;
}

static void pg_disconnect(void *own)
{
	struct postgresql *pg = own;

	PQfinish(pg->conn);
	pg->conn = NULL;
	pg->preparing = pg->answered = false;
	explicit_bzero(&pg->user, sizeof(pg->user));
}

static void pg_free(void *own)
{
	struct postgresql *pg = own;

	explicit_bzero(pg->url, strlen(pg->url));
	free(pg);
}

static const struct remote_driver driver = {
	.connect = pg_connect,
	.connecting = pg_connecting,
	.fd = pg_fd,
	.ask = pg_ask,
	.flush = pg_flush,
	.receive = pg_receive,
	.next = pg_next,
	.disconnect = pg_disconnect,
	.free = pg_free,
};

/* libpq's own words about a URL may have parts of it in them: they are dropped. */
static bool pg_url_ok(const char *url)
{
	char *error = NULL;
	PQconninfoOption *options = PQconninfoParse(url, &error);
	bool ok = options != NULL;

	PQconninfoFree(options);
	PQfreemem(error);
	return ok;
}

static int pg_open(const struct backend_env *env, struct backend **out)
{
	size_t size = strlen(env->url) + 1;
	struct postgresql *pg = calloc(1, sizeof(*pg) + size);
	int err;

	if (!pg)
		return -ENOMEM;
	memcpy(pg->url, env->url, size);
	err = remote_new(env, &store_postgresql, &driver, pg, out);
	if (err)
		pg_free(pg);
	return err;
}

const struct backend_ops store_postgresql = {
	.scheme = "postgresql:",
	.url_ok = pg_url_ok,
	.open = pg_open,
	.find = remote_find,
	.close = remote_close,
	.admin_open = store_postgresql_admin_open,
	.admin_close = store_postgresql_admin_close,
	.put = store_postgresql_put,
	.remove = store_postgresql_remove,
	.each = store_postgresql_each,
};
