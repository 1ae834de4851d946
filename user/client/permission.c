/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Permissions: installed, and refreshed before their five minutes are over (RFC
 * 8656 9, 10).
 *
 * One request per address: in a request for several, one address that the
 * server's policy refuses would take the others with it. A permission that was
 * there once is kept in the list and tried again whatever becomes of a refresh;
 * one that never was is dropped with its error.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/turn_client.h"

#define RETRY_MS 15000

struct client_permission {
	struct list link; /* client->permissions */
	union addr peer; /* the port is 0 */
	struct client_transaction transaction;
	struct timer timer;
	bool installed, lost; /* was there once; could not be refreshed */
	culvert_done_fn fn; /* waits for the answer under way; or NULL */
	void *arg;
};

static void permission_free(struct client_permission *permission)
{
	struct culvert_client *client = permission->transaction.client;

	client_transaction_cancel(&permission->transaction);
	timer_cancel(client->loop, &permission->timer);
	list_del(&permission->link);
	client->permission_count--;
	free(permission);
}

static void permission_fill(struct stun_writer *w, const void *arg)
{
	const struct client_permission *permission =
		list_entry(arg, struct client_permission, transaction);

	stun_put_xor_address(w, STUN_ATTR_XOR_PEER_ADDRESS, &permission->peer);
}

static int permission_request(struct client_permission *permission);

static void permission_due(struct timer *timer)
{
	struct client_permission *permission =
		list_entry(timer, struct client_permission, timer);

	if (client_transaction_active(&permission->transaction))
		return;
	if (permission_request(permission))
		timer_arm(permission->transaction.client->loop,
			  &permission->timer, RETRY_MS, permission_due);
}

/* The refresh of one that was there failed: told once, tried on. */
static void permission_lose(struct client_permission *permission,
			    const struct culvert_error *error)
{
	struct culvert_client *client = permission->transaction.client;
	bool told = permission->lost;

	timer_arm(client->loop, &permission->timer, RETRY_MS, permission_due);
	permission->lost = true;
	if (!told && client->events.permission_lost)
		client->events.permission_lost(client->arg,
					       &permission->peer.sa, error);
}

static void permission_done(struct client_transaction *t,
			    const struct stun_msg *msg,
			    const struct culvert_error *error)
{
	struct client_permission *permission =
		list_entry(t, struct client_permission, transaction);
	struct culvert_client *client = t->client;
	culvert_done_fn fn = permission->fn;
	void *arg = permission->arg;

	(void)msg;
	permission->fn = NULL;
	if (client->freed)
		return;
	if (!error && client->state == CLIENT_READY) {
		permission->installed = true;
		permission->lost = false;
		timer_arm(client->loop, &permission->timer,
			  client->options.permission_refresh_s * 1000ull,
			  permission_due);
	} else if (!permission->installed) {
		permission_free(permission);
	} else if (!fn && client->state == CLIENT_READY) {
		permission_lose(permission, error);
		return;
	}
	if (fn)
		fn(arg, error);
}

static int permission_request(struct client_permission *permission)
{
	struct culvert_client *client = permission->transaction.client;

	return client_transaction_start(&permission->transaction,
					STUN_CREATE_PERMISSION, permission_fill,
					client->options.request_timeout_ms,
					permission_done);
}

static struct client_permission *permission_find(struct culvert_client *client,
						 const union addr *peer)
{
	struct list *pos;

	list_for_each(pos, &client->permissions) {
		struct client_permission *permission =
			list_entry(pos, struct client_permission, link);

		if (addr_same_host(&permission->peer, peer))
			return permission;
	}
	return NULL;
}

static int permission_new(struct culvert_client *client, const union addr *peer,
			  struct client_permission **out)
{
	struct client_permission *permission;

	if (client->permission_count >= CULVERT_PERMISSIONS_MAX)
		return -ENOSPC;
	permission = calloc(1, sizeof(*permission));
	if (!permission)
		return -ENOMEM;
	permission->peer = *peer;
	addr_set_port(&permission->peer, 0);
	client_transaction_init(&permission->transaction, client);
	list_add_tail(&permission->link, &client->permissions);
	client->permission_count++;
	*out = permission;
	return 0;
}

int culvert_client_permit(struct culvert_client *client,
			  const struct sockaddr *peer, culvert_done_fn fn,
			  void *arg)
{
	struct client_permission *permission;
	union addr addr;
	int err;

	if (client->state != CLIENT_READY)
		return -ENOTCONN;
	if (client_addr_take(&addr, peer))
		return -EINVAL;
	loop_update(client->loop);
	permission = permission_find(client, &addr);
	if (permission && client_transaction_active(&permission->transaction))
		return -EALREADY;
	if (!permission) {
		err = permission_new(client, &addr, &permission);
		if (err)
			return err;
	}
	permission->fn = fn;
	permission->arg = arg;
	err = permission_request(permission);
	if (!err)
		return 0;
	permission->fn = NULL;
	if (!permission->installed)
		permission_free(permission);
	return err;
}

void client_permissions_cancel(struct culvert_client *client, const void *arg)
{
	struct list *pos;

	list_for_each(pos, &client->permissions) {
		struct client_permission *permission =
			list_entry(pos, struct client_permission, link);

		if (permission->arg == arg)
			permission->fn = NULL;
	}
}

void client_permissions_stop(struct culvert_client *client)
{
	struct list *pos;

	list_for_each(pos, &client->permissions)
		timer_cancel(
			client->loop,
			&list_entry(pos, struct client_permission, link)->timer);
}

void client_permissions_free(struct culvert_client *client)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &client->permissions)
		permission_free(
			list_entry(pos, struct client_permission, link));
}
