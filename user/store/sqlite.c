/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SQLite: a file that is opened for reading only, and looked into at once.
 *
 * A file that is not there has no users; it is looked for again at every lookup,
 * as is one that has been replaced. While culvertctl commits a change the file is
 * locked for a moment: lookups then wait in line, and are tried again every few
 * milliseconds until timeout_ms is over. The thread never waits for a lock.
 *
 * What may fail: whoever can write to the file can let himself in, so one that
 * others may write to is not opened. A change that was interrupted by a crash must
 * be undone before the file can be read, which needs somebody who may write to it.
 */
#include "store/sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/syscalls.h"

SYSCALLS_WHERE(SYSCALLS_STORE, "openat", 2, O_ACCMODE | O_CREAT | O_TRUNC,
	       O_RDONLY);
SYSCALLS_EQUAL(SYSCALLS_STORE, "fcntl", 1, F_GETLK);
SYSCALLS_EQUAL(SYSCALLS_STORE, "fcntl", 1, F_SETLK);
SYSCALLS(SYSCALLS_STORE, "newfstatat stat lstat fstat access faccessat");
SYSCALLS(SYSCALLS_STORE, "pread64 read lseek close");

#define RETRY_MS 10
#define SELECT \
	"SELECT name, md5, sha256 FROM users WHERE realm = ?1 AND hash = ?2"

struct sqlite {
	struct backend backend;
	struct loop *loop;
	uint64_t timeout_ms;
	sqlite3 *db; /* NULL: not open */
	sqlite3_stmt *select;
	dev_t dev; /* of the file that is open */
	ino_t ino;
	struct list waiting; /* lookups, for the lock */
	struct timer retry;
	struct log_limit limit;
	char path[];
};

static struct sqlite *sqlite_of(struct backend *backend)
{
	return list_entry(backend, struct sqlite, backend);
}

int store_sqlite_check(const struct stat *st, char why[STORE_WHY_SIZE])
{
	if (!S_ISREG(st->st_mode)) {
		store_why(why, "", "it is no ordinary file");
		return -EINVAL;
	}
	if (st->st_mode & (S_IWGRP | S_IWOTH)) {
		store_why(why, "",
			  "others than its owner may write to it: chmod go-w");
		return -EPERM;
	}
	return 0;
}

/* -EBADMSG: not a database of ours; the others as they are. */
int store_sqlite_error(sqlite3 *db, int code, char why[STORE_WHY_SIZE])
{
	switch (code & 0xff) {
	case SQLITE_OK:
		return 0;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		store_why(why, "", "it is locked by another program");
		return -EBUSY;
	case SQLITE_NOMEM:
		store_why(why, "", "out of memory");
		return -ENOMEM;
	case SQLITE_FULL:
		store_why(why, "", "the disk is full: make room");
		return -EBADMSG;
	case SQLITE_NOTADB:
		store_why(why, "", "it is no user database of culvert");
		return -EBADMSG;
	default:
		break;
	}
	if (code == SQLITE_READONLY_ROLLBACK)
		store_why(why, "",
			  "a change was interrupted: culvertctl user list "
			  "undoes it");
	else
		store_why(why, "",
			  db ? sqlite3_errmsg(db) : "cannot be opened");
	return -EBADMSG;
}

int store_sqlite_version(sqlite3 *db, int *out, char why[STORE_WHY_SIZE])
{
	sqlite3_stmt *stmt;
	int code =
		sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &stmt, NULL);

	if (code)
		return store_sqlite_error(db, code, why);
	code = sqlite3_step(stmt);
	if (code == SQLITE_ROW)
		*out = sqlite3_column_int(stmt, 0);
	sqlite3_finalize(stmt);
	return code == SQLITE_ROW ? 0 : store_sqlite_error(db, code, why);
}

/* What the file says is data, whoever has written it. */
void store_sqlite_distrust(sqlite3 *db)
{
	sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
	sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
}

static void db_close(struct sqlite *sqlite)
{
	sqlite3_finalize(sqlite->select);
	sqlite3_close(sqlite->db);
	sqlite->select = NULL;
	sqlite->db = NULL;
}

static int db_prepare(struct sqlite *sqlite, char why[STORE_WHY_SIZE])
{
	int version, err = store_sqlite_version(sqlite->db, &version, why);

	if (err)
		return err;
	if (version != STORE_SCHEMA) {
		store_why(why, "",
			  version ? "it is of another version of culvert" :
				    "it is no user database of culvert");
		return -EBADMSG;
	}
	return store_sqlite_error(sqlite->db,
				  sqlite3_prepare_v3(sqlite->db, SELECT, -1,
						     SQLITE_PREPARE_PERSISTENT,
						     &sqlite->select, NULL),
				  why);
}

static int db_open(struct sqlite *sqlite, const struct stat *st,
		   char why[STORE_WHY_SIZE])
{
	int err = store_sqlite_check(st, why), code;

	if (err)
		return err;
	code = sqlite3_open_v2(sqlite->path, &sqlite->db,
			       SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX,
			       NULL);
	err = store_sqlite_error(sqlite->db, code, why);
	if (!err) {
		sqlite3_extended_result_codes(sqlite->db, 1);
		store_sqlite_distrust(sqlite->db);
		err = db_prepare(sqlite, why);
	}
	if (err) {
		db_close(sqlite);
		return err;
	}
	sqlite->dev = st->st_dev;
	sqlite->ino = st->st_ino;
	return 0;
}

/* Opens what is at the path now. 0, -ENOENT: nothing is, or what is wrong. */
static int db_ready(struct sqlite *sqlite, char why[STORE_WHY_SIZE])
{
	struct stat st;

	if (stat(sqlite->path, &st) < 0) {
		int err = -errno;

		db_close(sqlite);
		store_why(why, "", strerror(-err));
		return err == -ENOTDIR ? -ENOENT : err;
	}
	if (sqlite->db &&
	    (sqlite->dev != st.st_dev || sqlite->ino != st.st_ino))
		db_close(sqlite);
	return sqlite->db ? 0 : db_open(sqlite, &st, why);
}

static int row_read(sqlite3_stmt *row, struct store_user *out)
{
	const void *name = sqlite3_column_blob(row, 0);
	const void *md5 = sqlite3_column_blob(row, 1);
	const void *sha256 = sqlite3_column_blob(row, 2);

	return store_user_read(name, (size_t)sqlite3_column_bytes(row, 0), md5,
			       (size_t)sqlite3_column_bytes(row, 1), sha256,
			       (size_t)sqlite3_column_bytes(row, 2), out);
}

static int select_run(struct sqlite *sqlite, const struct store_key *key,
		      struct store_user *out, char why[STORE_WHY_SIZE])
{
	sqlite3_stmt *select = sqlite->select;
	int code, err;

	sqlite3_bind_text(select, 1, key->realm, -1, SQLITE_STATIC);
	sqlite3_bind_blob(select, 2, key->hash, sizeof(key->hash),
			  SQLITE_STATIC);
	code = sqlite3_step(select);
	if (code == SQLITE_ROW)
		err = row_read(select, out);
	else if (code == SQLITE_DONE)
		err = -ENOENT;
	else
		err = store_sqlite_error(sqlite->db, code, why);
	if (code == SQLITE_ROW && err)
		store_why(why, "", "a row of the table users is malformed");
	sqlite3_reset(select);
	sqlite3_clear_bindings(select);
	return err;
}

static void failure_log(struct sqlite *sqlite, int err, const char *why)
{
	uint64_t suppressed;

	if (log_allow(&sqlite->limit, clock_ms(), &suppressed))
		log_error(ROOM,
			  "event=database_failed database=\"%s\" error=%s "
			  "reason=\"%s\" suppressed=%ju",
			  sqlite->path, strerrorname_np(-err), why,
			  (uintmax_t)suppressed);
}

/* False: it is locked, and there is time left. */
static bool lookup_try(struct sqlite *sqlite, struct lookup *lookup)
{
	char why[STORE_WHY_SIZE] = "";
	struct store_user user;
	int err = db_ready(sqlite, why);

	if (!err)
		err = select_run(sqlite, &lookup->key, &user, why);
	if (err == -EBUSY && clock_ms() < lookup->since_ms + sqlite->timeout_ms)
		return false;
	if (err && err != -ENOENT) {
		failure_log(sqlite, err, why);
		db_close(sqlite);
	}
	store_lookup_done(lookup, err, &user);
	explicit_bzero(&user, sizeof(user));
	return true;
}

static void retry_expired(struct timer *timer)
{
	struct sqlite *sqlite = list_entry(timer, struct sqlite, retry);
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &sqlite->waiting) {
		struct lookup *lookup = list_entry(pos, struct lookup, link);

		list_del(pos);
		if (lookup_try(sqlite, lookup))
			continue;
		/* In front again: the others need the same lock. */
		lookup->link.next = sqlite->waiting.next;
		lookup->link.prev = &sqlite->waiting;
		sqlite->waiting.next->prev = &lookup->link;
		sqlite->waiting.next = &lookup->link;
		timer_arm(sqlite->loop, &sqlite->retry, RETRY_MS,
			  retry_expired);
		return;
	}
}

static void sqlite_find(struct backend *backend, struct lookup *lookup)
{
	struct sqlite *sqlite = sqlite_of(backend);

	if (list_empty(&sqlite->waiting) && lookup_try(sqlite, lookup))
		return;
	list_add_tail(&lookup->link, &sqlite->waiting);
	if (!sqlite->retry.armed)
		timer_arm(sqlite->loop, &sqlite->retry, RETRY_MS,
			  retry_expired);
}

static void sqlite_close(struct backend *backend)
{
	struct sqlite *sqlite = sqlite_of(backend);
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &sqlite->waiting)
		store_lookup_done(list_entry(pos, struct lookup, link),
				  -ECANCELED, NULL);
	timer_cancel(sqlite->loop, &sqlite->retry);
	db_close(sqlite);
	free(sqlite);
}

const char *store_sqlite_path(const char *url)
{
	return url + strlen(store_sqlite.scheme);
}

static bool sqlite_url_ok(const char *url)
{
	return store_sqlite_path(url)[0] == '/';
}

static int sqlite_open(const struct backend_env *env, struct backend **out)
{
	const char *path = store_sqlite_path(env->url);
	size_t size = strlen(path) + 1;
	struct sqlite *sqlite = calloc(1, sizeof(*sqlite) + size);

	if (!sqlite)
		return -ENOMEM;
	sqlite->backend.ops = &store_sqlite;
	sqlite->loop = env->loop;
	sqlite->timeout_ms = env->timeout_ms;
	list_init(&sqlite->waiting);
	memcpy(sqlite->path, path, size);
	*out = &sqlite->backend;
	return 0;
}

const struct backend_ops store_sqlite = {
	.scheme = "sqlite:",
	.url_ok = sqlite_url_ok,
	.open = sqlite_open,
	.find = sqlite_find,
	.close = sqlite_close,
	.admin_open = store_sqlite_admin_open,
	.admin_close = store_sqlite_admin_close,
	.put = store_sqlite_put,
	.remove = store_sqlite_remove,
	.each = store_sqlite_each,
};
