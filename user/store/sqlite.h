/* SPDX-License-Identifier: BSD-2-Clause */
/* The two halves of SQLite: looking up, and changing. Private to store. */
#ifndef STORE_SQLITE_H
#define STORE_SQLITE_H

#include <sqlite3.h>
#include <sys/stat.h>

#include "store/internal.h"

const char *store_sqlite_path(const char *url);
/* May this file be trusted? 0, -EINVAL or -EPERM, and why not. */
int store_sqlite_check(const struct stat *st, char why[STORE_WHY_SIZE]);
/* A result code as an errno, 0 for SQLITE_OK, with what it means here. */
int store_sqlite_error(sqlite3 *db, int code, char why[STORE_WHY_SIZE]);
/* Which version of the tables it has; 0: none of ours. */
int store_sqlite_version(sqlite3 *db, int *out, char why[STORE_WHY_SIZE]);
void store_sqlite_distrust(sqlite3 *db);

int store_sqlite_admin_open(const char *url, const struct store_owner *owner,
			    bool make, void **out, char why[STORE_WHY_SIZE]);
void store_sqlite_admin_close(void *admin);
int store_sqlite_put(void *admin, const struct store_key *key,
		     const struct store_user *user, bool *replaced,
		     char why[STORE_WHY_SIZE]);
int store_sqlite_remove(void *admin, const struct store_key *key,
			char why[STORE_WHY_SIZE]);
int store_sqlite_each(void *admin,
		      bool (*fn)(void *arg, const char *realm,
				 const char *name),
		      void *arg, char why[STORE_WHY_SIZE]);

#endif
