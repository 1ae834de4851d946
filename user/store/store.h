/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The user database: users that are not in culvert.conf, in SQLite, PostgreSQL or
 * Redis. It holds keys, never passwords.
 *
 * A worker reads the cache (store_find); what is not in there it asks for
 * (store_ask) and goes on, for the database is the business of a thread of its
 * own. Keys and names of users are found by the value of USERHASH (RFC 8489 14.4).
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/list.h"
#include "loop/loop.h"

#define STORE_HASH_LEN   32
#define STORE_MD5_LEN    16
#define STORE_SHA256_LEN 32
#define STORE_NAME_SIZE  513 /* a user name (RFC 8489 14.3) and NUL */
#define STORE_REALM_SIZE 509 /* a realm (14.9) and NUL */
#define STORE_WHY_SIZE   256

/* What the database knows of a user. */
struct store_user {
	char name[STORE_NAME_SIZE];
	uint8_t md5[STORE_MD5_LEN]; /* MD5(name ":" realm ":" password) */
	uint8_t sha256[STORE_SHA256_LEN]; /* the same with SHA-256 */
};

/* Whom to look up. */
struct store_key {
	char realm[STORE_REALM_SIZE];
	uint8_t hash[STORE_HASH_LEN]; /* of the name and realm */
};

struct store_params {
	const char *url; /* "sqlite:/path", "postgresql://...", "redis://..." */
	uint64_t timeout_ms; /* for an answer of a server, > 0 */
	uint64_t cache_ms; /* how long an answer is good; 0: not at all */
	uint64_t absent_ms; /* the same of one that there is no such user */
	size_t cache_users; /* answers kept, of each of the two kinds */
};

struct store;

/* What a URL may look like, in words. */
#define STORE_URLS                                                       \
	"none, sqlite:/PATH, postgresql://USER:PASSWORD@HOST/DATABASE, " \
	"redis://USER:PASSWORD@HOST/NUMBER, redis+unix:///PATH"

/* Is it fit for a user's name: UTF-8 that a log line and a JSON text can carry? */
bool store_name_ok(const char *name, size_t len);

/* Is this the URL of a database, or "none"? Looks at its form only. */
bool store_url_ok(const char *url);

/* Starts the thread, with nothing to look into yet. 0 or a negative errno. */
int store_new(struct store **out);
/*
 * From now on these; the cache is emptied. The same as before are taken for no
 * change. 0 or -ENOMEM.
 */
int store_configure(struct store *store, const struct store_params *params);
/*
 * Ends the thread. What is still asked is answered with -ECANCELED, by letters to
 * the loops of those who asked; nobody is found any more. Accepts NULL.
 */
void store_stop(struct store *store);
/* Stops it, unless that is done, and frees it. Accepts NULL. */
void store_free(struct store *store);

/*
 * What is known at once; from any thread. 0 and *out, -ENOENT (there is no such
 * user, or no database), or -EAGAIN: store_ask.
 */
int store_find(struct store *store, const struct store_key *key,
	       struct store_user *out);
/* Forgets all answers: somebody has changed the database. From any thread. */
void store_forget(struct store *store);

/* A question. Embedded in what the asker allocates; wiped by him. */
struct store_ask {
	struct store_key key;
	bool answered;
	/* 0 and user, -ENOENT, or what went wrong: -EHOSTDOWN, -ETIMEDOUT, ... */
	int result;
	struct store_user user;

	/* Of the store, until it calls done. */
	struct letter letter;
	struct list link;
	struct store *store;
	struct loop *loop;
	void (*done)(struct store_ask *ask);
};

/* Asks the database; done is called on that loop's thread, once, with the answer. */
void store_ask(struct store *store, struct store_ask *ask, struct loop *loop,
	       void (*done)(struct store_ask *ask));

/*
 * Changing the database, as culvertctl does: these wait for the database. On
 * failure `why` says in words what went wrong.
 */
struct store_admin;

struct store_owner {
	bool set; /* a new file is given to this group, which may read it */
	gid_t gid;
};

/* make: create what is missing. 0 or a negative errno. */
int store_admin_open(const char *url, const struct store_owner *owner,
		     bool make, struct store_admin **out,
		     char why[STORE_WHY_SIZE]);
void store_admin_close(struct store_admin *admin); /* accepts NULL */
/* Adds a user or replaces his keys; *replaced tells which. */
int store_admin_put(struct store_admin *admin, const struct store_key *key,
		    const struct store_user *user, bool *replaced,
		    char why[STORE_WHY_SIZE]);
/* -ENOENT: there is none. */
int store_admin_remove(struct store_admin *admin, const struct store_key *key,
		       char why[STORE_WHY_SIZE]);
/* Calls fn for each user, in no order, until it returns false. */
int store_admin_each(struct store_admin *admin,
		     bool (*fn)(void *arg, const char *realm, const char *name),
		     void *arg, char why[STORE_WHY_SIZE]);

#endif
