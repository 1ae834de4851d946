/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the store room share. */
#ifndef STORE_INTERNAL_H
#define STORE_INTERNAL_H

#include "base/log.h"
#include "store/store.h"

#define ROOM "store"

/* What the tables, keys and statements of this version are called. */
#define STORE_SCHEMA 1

/* A user that is being looked up, for all who asked for him meanwhile. */
struct lookup {
	struct list link; /* of whoever has it to do */
	struct list all; /* of the store's */
	struct list asks;
	struct store *store;
	uint64_t since_ms; /* when the first of them asked */
	unsigned int generation; /* of the cache */
	struct store_key key;
};

/* Hands over what was found; the lookup is gone then. user: of result 0. */
void store_lookup_done(struct lookup *lookup, int result,
		       const struct store_user *user);

/* A database that is looked into. Lives on the store's thread. */
struct backend;

struct backend_env {
	struct loop *loop;
	const char *url;
	uint64_t timeout_ms;
};

struct backend_ops {
	const char *scheme; /* what its URLs begin with */
	bool (*url_ok)(const char *url);
	/* Opens nothing yet; from any thread. 0 or -ENOMEM. */
	int (*open)(const struct backend_env *env, struct backend **out);
	/* Takes the lookup: store_lookup_done follows, at once or later. */
	void (*find)(struct backend *backend, struct lookup *lookup);
	/* Answers all it has with -ECANCELED. */
	void (*close)(struct backend *backend);

	/* What store_admin_* do. */
	int (*admin_open)(const char *url, const struct store_owner *owner,
			  bool make, void **out, char why[STORE_WHY_SIZE]);
	void (*admin_close)(void *admin);
	int (*put)(void *admin, const struct store_key *key,
		   const struct store_user *user, bool *replaced,
		   char why[STORE_WHY_SIZE]);
	int (*remove)(void *admin, const struct store_key *key,
		      char why[STORE_WHY_SIZE]);
	int (*each)(void *admin,
		    bool (*fn)(void *arg, const char *realm, const char *name),
		    void *arg, char why[STORE_WHY_SIZE]);
};

struct backend {
	const struct backend_ops *ops;
};

extern const struct backend_ops store_sqlite, store_postgresql, store_redis;

/* The one for a URL; NULL: there is none. */
const struct backend_ops *store_backend(const char *url);

/*
 * Takes one user from the values of a row: 0, or -EBADMSG when a length is wrong
 * or the name is not fit for a user of ours. Nothing is taken on trust: whoever can
 * write to the database is not the one who reads the log.
 */
int store_user_read(const void *name, size_t name_len, const void *md5,
		    size_t md5_len, const void *sha256, size_t sha256_len,
		    struct store_user *out);

/* The words of a foreign library as part of a log line: one line, no quotes. */
void store_why(char why[STORE_WHY_SIZE], const char *what, const char *text);

/* The answers that are remembered (cache.c). */
struct cache;

int cache_new(struct cache **out);
void cache_free(struct cache *cache); /* accepts NULL */
/* Empties it; these from now on. */
void cache_configure(struct cache *cache, const struct store_params *params);
void cache_clear(struct cache *cache);
/* Changes whenever what was asked before may be out of date. */
unsigned int cache_generation(struct cache *cache);
/* 0 and *out, -ENOENT: known not to be there, -EAGAIN: not known. */
int cache_find(struct cache *cache, const struct store_key *key,
	       uint64_t now_ms, struct store_user *out);
/* user NULL: there is none. Not kept when the generation is another one now. */
void cache_put(struct cache *cache, const struct store_key *key,
	       const struct store_user *user, unsigned int generation,
	       uint64_t now_ms);

#endif
