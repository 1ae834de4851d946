/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SQLite: making the file and changing what is in it.
 *
 * The file is made with the group of the relay's user, which may read it, and
 * closed to all others. Its directory is made, too, when only that is missing.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "store/sqlite.h"

#define BUSY_MS \
	5000 /* for which a reader's or another writer's lock is waited for */

#define SCHEMA                                                          \
	"CREATE TABLE users ("                                          \
	"realm TEXT NOT NULL, hash BLOB NOT NULL, name TEXT NOT NULL, " \
	"md5 BLOB NOT NULL, sha256 BLOB NOT NULL, "                     \
	"PRIMARY KEY (realm, hash)) WITHOUT ROWID; "                    \
	"PRAGMA user_version = 1;"

_Static_assert(STORE_SCHEMA == 1, "the statement above says so");

#define PUT                                                         \
	"INSERT INTO users (realm, hash, name, md5, sha256) "       \
	"VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (realm, hash) DO " \
	"UPDATE SET name = ?3, md5 = ?4, sha256 = ?5"
#define HAS    "SELECT 1 FROM users WHERE realm = ?1 AND hash = ?2"
#define REMOVE "DELETE FROM users WHERE realm = ?1 AND hash = ?2"
#define EACH   "SELECT realm, name FROM users ORDER BY realm, name"

static int why_errno(char why[STORE_WHY_SIZE], const char *what)
{
	int err = -errno;

	store_why(why, what, strerror(-err));
	return err;
}

/* The directory that the file will be in, by whoever makes the file. */
static int directory_make(const char *path, const struct store_owner *owner,
			  char why[STORE_WHY_SIZE])
{
	const char *slash = strrchr(path, '/');
	char name[PATH_MAX];

	if (slash == path || (size_t)(slash - path) >= sizeof(name))
		return 0;
	memcpy(name, path, (size_t)(slash - path));
	name[slash - path] = '\0';
	if (mkdir(name, 0750) < 0)
		return errno == EEXIST ? 0 : why_errno(why, name);
	if (owner->set && chown(name, (uid_t)-1, owner->gid) < 0)
		return why_errno(why, name);
	return 0;
}

/* Makes an empty file, which is then checked like any other. */
static int file_make(const char *path, const struct store_owner *owner,
		     char why[STORE_WHY_SIZE])
{
	int err = directory_make(path, owner, why);
	int fd;

	if (err)
		return err;
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno == EEXIST ? 0 : why_errno(why, path);
	if ((owner->set && fchown(fd, (uid_t)-1, owner->gid) < 0) ||
	    fchmod(fd, 0640) < 0)
		err = why_errno(why, path);
	fd_close(&fd);
	return err;
}

static int file_check(const char *path, char why[STORE_WHY_SIZE])
{
	struct stat st;
	char fault[STORE_WHY_SIZE];
	int err;

	if (stat(path, &st) < 0)
		return why_errno(why, path);
	err = store_sqlite_check(&st, fault);
	if (!err && st.st_uid != geteuid() && st.st_uid != 0) {
		store_why(fault, "", "it belongs to somebody else: chown it");
		err = -EPERM;
	}
	if (err)
		store_why(why, path, fault);
	return err;
}

static int simple(sqlite3 *db, const char *sql, char why[STORE_WHY_SIZE])
{
	return store_sqlite_error(db, sqlite3_exec(db, sql, NULL, NULL, NULL),
				  why);
}

/* Two who make it at the same time: the second finds it made. */
static int schema_make(sqlite3 *db, bool make, char why[STORE_WHY_SIZE])
{
	int version, err = simple(db, "BEGIN IMMEDIATE", why);

	if (!err)
		err = store_sqlite_version(db, &version, why);
	if (err)
		return err;
	if (version == 0 && make)
		err = simple(db, SCHEMA, why);
	else if (version != STORE_SCHEMA) {
		store_why(why, "",
			  version ? "it is of another version of culvert" :
				    "it is no user database of culvert");
		err = -EBADMSG;
	}
	if (!err)
		return simple(db, "COMMIT", why);
	sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	return err;
}

int store_sqlite_admin_open(const char *url, const struct store_owner *owner,
			    bool make, void **out, char why[STORE_WHY_SIZE])
{
	const char *path = store_sqlite_path(url);
	char fault[STORE_WHY_SIZE];
	sqlite3 *db = NULL;
	int err = make ? file_make(path, owner, why) : 0;

	if (!err)
		err = file_check(path, why);
	if (err)
		return err;
	err = store_sqlite_error(db,
				 sqlite3_open_v2(path, &db,
						 SQLITE_OPEN_READWRITE |
							 SQLITE_OPEN_NOMUTEX,
						 NULL),
				 fault);
	if (!err) {
		sqlite3_extended_result_codes(db, 1);
		sqlite3_busy_timeout(db, BUSY_MS);
		store_sqlite_distrust(db);
		err = schema_make(db, make, fault);
	}
	if (err) {
		store_why(why, path, fault);
		sqlite3_close(db);
		return err;
	}
	*out = db;
	return 0;
}

void store_sqlite_admin_close(void *admin)
{
	sqlite3_close(admin);
}

static void key_bind(sqlite3_stmt *stmt, const struct store_key *key)
{
	sqlite3_bind_text(stmt, 1, key->realm, -1, SQLITE_STATIC);
	sqlite3_bind_blob(stmt, 2, key->hash, sizeof(key->hash), SQLITE_STATIC);
}

/* Runs one statement about a user; *row tells whether it brought a row. */
static int statement_run(sqlite3 *db, const char *sql,
			 const struct store_key *key,
			 const struct store_user *user, bool *row,
			 char why[STORE_WHY_SIZE])
{
	sqlite3_stmt *stmt;
	int code = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);

	if (code)
		return store_sqlite_error(db, code, why);
	key_bind(stmt, key);
	if (user) {
		sqlite3_bind_text(stmt, 3, user->name, -1, SQLITE_STATIC);
		sqlite3_bind_blob(stmt, 4, user->md5, sizeof(user->md5),
				  SQLITE_STATIC);
		sqlite3_bind_blob(stmt, 5, user->sha256, sizeof(user->sha256),
				  SQLITE_STATIC);
	}
	code = sqlite3_step(stmt);
	*row = code == SQLITE_ROW;
	sqlite3_finalize(stmt);
	return code == SQLITE_ROW || code == SQLITE_DONE ?
		       0 :
		       store_sqlite_error(db, code, why);
}

int store_sqlite_put(void *admin, const struct store_key *key,
		     const struct store_user *user, bool *replaced,
		     char why[STORE_WHY_SIZE])
{
	sqlite3 *db = admin;
	bool had = false, row;
	int err = simple(db, "BEGIN IMMEDIATE", why);

	if (err)
		return err;
	err = statement_run(db, HAS, key, NULL, &had, why);
	if (!err)
		err = statement_run(db, PUT, key, user, &row, why);
	if (!err)
		err = simple(db, "COMMIT", why);
	if (err)
		sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	else
		*replaced = had;
	return err;
}

int store_sqlite_remove(void *admin, const struct store_key *key,
			char why[STORE_WHY_SIZE])
{
	sqlite3 *db = admin;
	bool row;
	int err = statement_run(db, REMOVE, key, NULL, &row, why);

	return err ? err : sqlite3_changes(db) ? 0 : -ENOENT;
}

int store_sqlite_each(void *admin,
		      bool (*fn)(void *arg, const char *realm,
				 const char *name),
		      void *arg, char why[STORE_WHY_SIZE])
{
	sqlite3 *db = admin;
	sqlite3_stmt *stmt;
	bool more = true;
	int code = sqlite3_prepare_v2(db, EACH, -1, &stmt, NULL);

	if (code)
		return store_sqlite_error(db, code, why);
	while (more && (code = sqlite3_step(stmt)) == SQLITE_ROW) {
		const char *realm = (const char *)sqlite3_column_text(stmt, 0);
		const char *name = (const char *)sqlite3_column_text(stmt, 1);

		more = fn(arg, realm ? realm : "", name ? name : "");
	}
	sqlite3_finalize(stmt);
	return code == SQLITE_ROW || code == SQLITE_DONE ?
		       0 :
		       store_sqlite_error(db, code, why);
}
