/* SPDX-License-Identifier: BSD-2-Clause */
/* The two halves of PostgreSQL: looking up, and changing. Private to store. */
#ifndef STORE_POSTGRESQL_H
#define STORE_POSTGRESQL_H

#include <postgresql/libpq-fe.h>

#include "store/internal.h"

/* What went wrong, in the server's or the library's words. -EIO. */
int store_postgresql_why(const PGconn *conn, const PGresult *result,
			 char why[STORE_WHY_SIZE]);
/* Is the one number of this result our version? 0 or -EIO. */
int store_postgresql_version(const PGresult *result, char why[STORE_WHY_SIZE]);
/* Connects, and waits for that. NULL without memory. */
PGconn *store_postgresql_dial(const char *url);

int store_postgresql_admin_open(const char *url,
				const struct store_owner *owner, bool make,
				void **out, char why[STORE_WHY_SIZE]);
void store_postgresql_admin_close(void *admin);
int store_postgresql_put(void *admin, const struct store_key *key,
			 const struct store_user *user, bool *replaced,
			 char why[STORE_WHY_SIZE]);
int store_postgresql_remove(void *admin, const struct store_key *key,
			    char why[STORE_WHY_SIZE]);
int store_postgresql_each(void *admin,
			  bool (*fn)(void *arg, const char *realm,
				     const char *name),
			  void *arg, char why[STORE_WHY_SIZE]);

#endif
