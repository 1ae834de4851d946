/* SPDX-License-Identifier: BSD-2-Clause */
/* A user database in a file of the test's own. */
#ifndef UNIT_STORE_FILE_H
#define UNIT_STORE_FILE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "store/store.h"
#include "stun/stun.h"

#define REALM    "example.org"
#define PASSWORD "sesame"

struct store_file {
	char dir[32], path[64], url[80];
	sqlite3 *db; /* whoever locks it */
};

static inline void file_begin(struct store_file *file)
{
	*file = (struct store_file){ .dir = "/tmp/culvert-store-XXXXXX" };
	assert_non_null(mkdtemp(file->dir));
	snprintf(file->path, sizeof(file->path), "%s/users.db", file->dir);
	snprintf(file->url, sizeof(file->url), "sqlite:%s", file->path);
}

static inline void file_end(struct store_file *file)
{
	sqlite3_close(file->db);
	unlink(file->path);
	rmdir(file->dir);
}

static inline struct store_key key_of(const char *name)
{
	struct store_key key = { .realm = REALM };

	assert_int_equal(stun_userhash(name, strlen(name), REALM, strlen(REALM),
				       key.hash),
			 0);
	return key;
}

/* Adds a user, with PASSWORD; what store_admin_put says is checked. */
static inline void file_add(const struct store_file *file, const char *name)
{
	const struct store_owner nobody = { .set = false };
	struct store_key key = key_of(name);
	struct store_admin *admin;
	struct store_user user;
	char why[STORE_WHY_SIZE];
	bool replaced;

	snprintf(user.name, sizeof(user.name), "%s", name);
	stun_long_term_key(name, REALM, PASSWORD, user.md5);
	stun_long_term_key_sha256(name, REALM, PASSWORD, user.sha256);
	if (store_admin_open(file->url, &nobody, true, &admin, why))
		fail_msg("%s", why);
	if (store_admin_put(admin, &key, &user, &replaced, why))
		fail_msg("%s", why);
	store_admin_close(admin);
}

static inline void file_run(struct store_file *file, const char *sql)
{
	char *error = NULL;

	if (!file->db)
		assert_int_equal(sqlite3_open(file->path, &file->db), 0);
	if (sqlite3_exec(file->db, sql, NULL, NULL, &error))
		fail_msg("%s: %s", sql, error);
}

/* Nobody reads it until file_unlock. */
static inline void file_lock(struct store_file *file)
{
	file_run(file, "BEGIN EXCLUSIVE");
}

static inline void file_unlock(struct store_file *file)
{
	file_run(file, "COMMIT");
}

#endif
