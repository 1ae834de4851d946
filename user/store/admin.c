/* SPDX-License-Identifier: BSD-2-Clause */
/* Changing the database, whichever it is. */
#include <errno.h>
#include <stdlib.h>

#include "store/internal.h"

struct store_admin {
	const struct backend_ops *ops;
	void *own;
};

int store_admin_open(const char *url, const struct store_owner *owner,
		     bool make, struct store_admin **out,
		     char why[STORE_WHY_SIZE])
{
	const struct backend_ops *ops = store_backend(url);
	struct store_admin *admin;
	int err;

	if (!ops) {
		store_why(why, "",
			  "[database] url is none: there is no database");
		return -EINVAL;
	}
	admin = calloc(1, sizeof(*admin));
	if (!admin) {
		store_why(why, "", "out of memory");
		return -ENOMEM;
	}
	admin->ops = ops;
	err = ops->admin_open(url, owner, make, &admin->own, why);
	if (err)
		free(admin);
	else
		*out = admin;
	return err;
}

void store_admin_close(struct store_admin *admin)
{
	if (!admin)
		return;
	admin->ops->admin_close(admin->own);
	free(admin);
}

int store_admin_put(struct store_admin *admin, const struct store_key *key,
		    const struct store_user *user, bool *replaced,
		    char why[STORE_WHY_SIZE])
{
	return admin->ops->put(admin->own, key, user, replaced, why);
}

int store_admin_remove(struct store_admin *admin, const struct store_key *key,
		       char why[STORE_WHY_SIZE])
{
	return admin->ops->remove(admin->own, key, why);
}

int store_admin_each(struct store_admin *admin,
		     bool (*fn)(void *arg, const char *realm, const char *name),
		     void *arg, char why[STORE_WHY_SIZE])
{
	return admin->ops->each(admin->own, fn, arg, why);
}
