/* SPDX-License-Identifier: BSD-2-Clause */
/* PostgreSQL: making the tables and changing what is in them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/postgresql.h"

#define EXISTS "SELECT to_regclass('culvert_schema') IS NOT NULL"
/* Two who make them at the same time: the second waits, and finds them made. */
#define CREATE                                                           \
	"BEGIN; SELECT pg_advisory_xact_lock(7635); "                    \
	"CREATE TABLE IF NOT EXISTS culvert_schema "                     \
	"(version integer NOT NULL); "                                   \
	"CREATE TABLE IF NOT EXISTS culvert_users ("                     \
	"realm text NOT NULL, hash bytea NOT NULL, name text NOT NULL, " \
	"md5 bytea NOT NULL, sha256 bytea NOT NULL, "                    \
	"PRIMARY KEY (realm, hash)); "                                   \
	"INSERT INTO culvert_schema SELECT 1 "                           \
	"WHERE NOT EXISTS (SELECT 1 FROM culvert_schema); COMMIT"
#define VERSION "SELECT version FROM culvert_schema"
#define PUT                                                           \
	"INSERT INTO culvert_users (realm, hash, name, md5, sha256) " \
	"VALUES ($1, $2, $3, $4, $5) ON CONFLICT (realm, hash) DO "   \
	"UPDATE SET name = $3, md5 = $4, sha256 = $5 "                \
	"RETURNING xmax <> 0"
#define REMOVE "DELETE FROM culvert_users WHERE realm = $1 AND hash = $2"
#define EACH   "SELECT realm, name FROM culvert_users ORDER BY realm, name"

_Static_assert(STORE_SCHEMA == 1, "the statement above says so");

/* Runs one without parameters; *out is the caller's to clear. */
static int simple(PGconn *conn, const char *sql, ExecStatusType wanted,
		  PGresult **out, char why[STORE_WHY_SIZE])
{
	PGresult *result = PQexec(conn, sql);

	if (PQresultStatus(result) == wanted) {
		*out = result;
		return 0;
	}
	store_postgresql_why(conn, result, why);
	PQclear(result);
	return -EIO;
}

static int tables_make(PGconn *conn, char why[STORE_WHY_SIZE])
{
	PGresult *result;
	int err = simple(conn, EXISTS, PGRES_TUPLES_OK, &result, why);
	bool exist;

	if (err)
		return err;
	exist = PQgetvalue(result, 0, 0)[0] == 't';
	PQclear(result);
	/* Who may not make them may well use those that are there. */
	if (exist)
		return 0;
	err = simple(conn, CREATE, PGRES_COMMAND_OK, &result, why);
	if (!err)
		PQclear(result);
	return err;
}

static int tables_check(PGconn *conn, char why[STORE_WHY_SIZE])
{
	PGresult *result;
	int err = simple(conn, VERSION, PGRES_TUPLES_OK, &result, why);

	if (err)
		return err;
	err = store_postgresql_version(result, why);
	PQclear(result);
	return err;
}

int store_postgresql_admin_open(const char *url,
				const struct store_owner *owner, bool make,
				void **out, char why[STORE_WHY_SIZE])
{
	PGconn *conn = store_postgresql_dial(url);
	int err = 0;

	(void)owner;
	if (!conn) {
		store_why(why, "", "out of memory");
		return -ENOMEM;
	}
	if (PQstatus(conn) != CONNECTION_OK)
		err = store_postgresql_why(conn, NULL, why);
	if (!err && make)
		err = tables_make(conn, why);
	if (!err)
		err = tables_check(conn, why);
	if (err)
		PQfinish(conn);
	else
		*out = conn;
	return err;
}

void store_postgresql_admin_close(void *admin)
{
	PQfinish(admin);
}

/* Runs one about a user: as many parameters of it as there are. */
static int statement_run(PGconn *conn, const char *sql, int count,
			 const struct store_key *key,
			 const struct store_user *user, ExecStatusType wanted,
			 PGresult **out, char why[STORE_WHY_SIZE])
{
	const char *values[] = {
		key->realm,
		(const char *)key->hash,
		user ? user->name : NULL,
		user ? (const char *)user->md5 : NULL,
		user ? (const char *)user->sha256 : NULL,
	};
	const int lengths[] = { 0, STORE_HASH_LEN, 0, STORE_MD5_LEN,
				STORE_SHA256_LEN };
	const int formats[] = { 0, 1, 0, 1, 1 };
	PGresult *result = PQexecParams(conn, sql, count, NULL, values, lengths,
					formats, 0);

	if (PQresultStatus(result) == wanted) {
		*out = result;
		return 0;
	}
	store_postgresql_why(conn, result, why);
	PQclear(result);
	return -EIO;
}

int store_postgresql_put(void *admin, const struct store_key *key,
			 const struct store_user *user, bool *replaced,
			 char why[STORE_WHY_SIZE])
{
	PGresult *result;
	int err = statement_run(admin, PUT, 5, key, user, PGRES_TUPLES_OK,
				&result, why);

	if (err)
		return err;
	*replaced = PQgetvalue(result, 0, 0)[0] == 't';
	PQclear(result);
	return 0;
}

int store_postgresql_remove(void *admin, const struct store_key *key,
			    char why[STORE_WHY_SIZE])
{
	PGresult *result;
	int err = statement_run(admin, REMOVE, 2, key, NULL, PGRES_COMMAND_OK,
				&result, why);

	if (err)
		return err;
	if (!strcmp(PQcmdTuples(result), "0"))
		err = -ENOENT;
	PQclear(result);
	return err;
}

/* Row by row, for there may be many. */
int store_postgresql_each(void *admin,
			  bool (*fn)(void *arg, const char *realm,
				     const char *name),
			  void *arg, char why[STORE_WHY_SIZE])
{
	PGconn *conn = admin;
	PGresult *result;
	bool more = true;
	int err = 0;

	if (!PQsendQuery(conn, EACH) || !PQsetSingleRowMode(conn))
		return store_postgresql_why(conn, NULL, why);
	while ((result = PQgetResult(conn)) != NULL) {
		ExecStatusType status = PQresultStatus(result);

		if (status == PGRES_SINGLE_TUPLE && more)
			more = fn(arg, PQgetvalue(result, 0, 0),
				  PQgetvalue(result, 0, 1));
		else if (status != PGRES_SINGLE_TUPLE &&
			 status != PGRES_TUPLES_OK)
			err = store_postgresql_why(conn, result, why);
		PQclear(result);
	}
	return err;
}
