/* SPDX-License-Identifier: BSD-2-Clause */
/* A database on a server, whatever it speaks. Private to store. */
#ifndef STORE_REMOTE_H
#define STORE_REMOTE_H

#include "store/internal.h"

/*
 * What a foreign library has to do for one connection. Nothing here waits. On
 * failure, which is any negative errno but those named, `why` says what it is.
 */
struct remote_driver {
	/* Begins to connect, which `connecting` goes on with. */
	int (*connect)(void *own, char why[STORE_WHY_SIZE]);
	/* 0: questions may be asked; -EAGAIN: when one of *events has come. */
	int (*connecting)(void *own, uint32_t *events,
			  char why[STORE_WHY_SIZE]);
	int (*fd)(const void *own); /* may be another after `connecting` */
	/* Queues a question behind the others. */
	int (*ask)(void *own, const struct store_key *key,
		   char why[STORE_WHY_SIZE]);
	/* Sends what is queued. -EAGAIN: there is more. */
	int (*flush)(void *own, char why[STORE_WHY_SIZE]);
	/* Reads what has come. */
	int (*receive)(void *own, char why[STORE_WHY_SIZE]);
	/*
	 * The answer to the oldest question: 0, -ENOENT, -EBADMSG (the user's
	 * record is malformed), or -EAGAIN: it has not come yet.
	 */
	int (*next)(void *own, struct store_user *out,
		    char why[STORE_WHY_SIZE]);
	/* Harmless when there is no connection. */
	void (*disconnect)(void *own);
	void (*free)(void *own);
};

/* Takes `own` over on success. 0 or -ENOMEM. */
int remote_new(const struct backend_env *env, const struct backend_ops *ops,
	       const struct remote_driver *driver, void *own,
	       struct backend **out);
void remote_find(struct backend *backend, struct lookup *lookup);
void remote_close(struct backend *backend);

#endif
