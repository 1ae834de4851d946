/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The TURN-TCP client: one control connection, one allocation (RFC 6062 4).
 *
 *   dialing -> [connected] -> allocating -> ready -> [closing] -> ended
 *   dialing <- redirected <-
 *
 * connected waits for the owner (options.manual); redirected is on its way to
 * another server, at the end of the tick; closing waits for the answer to
 * Refresh 0. Whatever fails leads to ended, once: first the requests in flight
 * hear of it, then events.ended.
 *
 * Callbacks of the owner run from the loop only. They may free the client, so
 * freeing closes everything at once and sets `freed`, after which nobody is called
 * any more, and gives the memory back at the end of the tick: the callers up the
 * stack look at `state`, which is ended then.
 */
#include "client/turn_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DIAL_TIMEOUT_MS      10000
#define REQUEST_TIMEOUT_MS   39500
#define CONNECT_TIMEOUT_MS   60000
#define PERMISSION_REFRESH_S 240
#define ACCEPTS_MAX          64

static void default_set(unsigned int *value, unsigned int otherwise)
{
	if (!*value)
		*value = otherwise;
}

static void options_fill(struct culvert_options *options)
{
	default_set(&options->dial_timeout_ms, DIAL_TIMEOUT_MS);
	default_set(&options->request_timeout_ms, REQUEST_TIMEOUT_MS);
	default_set(&options->connect_timeout_ms, CONNECT_TIMEOUT_MS);
	default_set(&options->permission_refresh_s, PERMISSION_REFRESH_S);
	default_set(&options->accepts_max, ACCEPTS_MAX);
	if (!options->family)
		options->family = AF_INET;
	/* Copied elsewhere or not to be kept. */
	options->server = NULL;
	options->user = options->password = NULL;
	options->tls_authorities = options->tls_name = NULL;
}

static bool options_valid(const struct culvert_options *options,
			  const struct culvert_events *events)
{
	const struct culvert_server *server = options->server;

	if (!events->ready || !events->ended || !server || !server->count ||
	    server->count > CULVERT_SERVER_ADDRESSES)
		return false;
	if (options->manual && !events->connected)
		return false;
	return !options->family || options->family == AF_INET ||
	       options->family == AF_INET6;
}

static void client_release(struct deferred *release)
{
	struct culvert_client *client =
		list_entry(release, struct culvert_client, release);

	client_calls_free(client);
	client_permissions_free(client);
	client_data_free(client);
	table_destroy(&client->by_txid);
	client_auth_wipe(&client->auth);
	tls_client_unref(client->tls);
	free(client);
}

static int tls_init(struct culvert_client *client, struct culvert_loop *loop,
		    const struct culvert_options *options)
{
	const char *name = options->tls_name ? options->tls_name :
					       options->server->host;

	if (!options->server->tls)
		return 0;
	if (!*name || strlen(name) >= sizeof(client->tls_name))
		return -EINVAL;
	memcpy(client->tls_name, name, strlen(name) + 1);
	return client_loop_tls(loop, options, &client->tls);
}

static void client_init(struct culvert_client *client,
			struct culvert_loop *library,
			const struct culvert_options *options,
			const struct culvert_events *events, void *arg)
{
	client->library = library;
	client->loop = library->loop;
	client->watch.fd = -1;
	client->events = *events;
	client->arg = arg;
	client->server_count = options->server->count;
	for (size_t i = 0; i < client->server_count; i++)
		memcpy(&client->server[i], &options->server->address[i],
		       sizeof(client->server[i]));
	client->options = *options;
	options_fill(&client->options);
	list_init(&client->transactions);
	list_init(&client->calls);
	list_init(&client->permissions);
	list_init(&client->data);
	list_init(&client->attempts);
	client_transaction_init(&client->allocate, client);
	client_transaction_init(&client->refresh, client);
}

int culvert_client_new(struct culvert_loop *loop,
		       const struct culvert_options *options,
		       const struct culvert_events *events, void *arg,
		       struct culvert_client **out)
{
	struct culvert_client *client;
	int err;

	if (!options_valid(options, events))
		return -EINVAL;
	client = calloc(1, sizeof(*client));
	if (!client)
		return -ENOMEM;
	err = client_auth_init(&client->auth, options->user, options->password);
	if (err)
		goto free_client;
	err = table_init(&client->by_txid);
	if (err)
		goto wipe_auth;
	err = tls_init(client, loop, options);
	if (err)
		goto destroy_table;
	client_init(client, loop, options, events, arg);
	loop_update(client->loop);
	client_control_dial(client);
	*out = client;
	return 0;

destroy_table:
	table_destroy(&client->by_txid);
wipe_auth:
	client_auth_wipe(&client->auth);
free_client:
	free(client);
	return err;
}

/* Stops everything that could call back. */
static void client_stop(struct culvert_client *client)
{
	client->state = CLIENT_ENDED;
	client_allocation_stop(client);
	client_permissions_stop(client);
	client_control_stop(client);
	timer_cancel(client->loop, &client->close_timer);
	loop_undefer(&client->redirect);
}

void culvert_client_free(struct culvert_client *client)
{
	if (!client || client->freed)
		return;
	client->freed = true;
	client_stop(client);
	client_data_end(client, NULL);
	while (!list_empty(&client->transactions))
		client_transaction_cancel(list_entry(client->transactions.next,
						     struct client_transaction,
						     link));
	if (client->end.queued) {
		list_del(&client->end.link);
		client->end.queued = false;
	}
	loop_defer(client->loop, &client->release, client_release);
}

void client_control_end(struct culvert_client *client,
			const struct culvert_error *error)
{
	struct client_failure closed, copy;
	const struct culvert_error *told = error;

	if (client->state == CLIENT_ENDED)
		return;
	client_stop(client);
	if (error) {
		/* The original may lie in what the callbacks free. */
		client_failure_set(&copy, error->code, error->during, "%s",
				   error->reason);
		told = error = &copy.error;
	} else {
		client_failure_set(&closed, -ECANCELED, "closing",
				   "the client was closed");
		told = &closed.error;
	}
	client_transactions_fail(client, told);
	client_data_end(client, told);
	if (!client->freed)
		client->events.ended(client->arg, error);
}

static void end_now(struct deferred *end)
{
	struct culvert_client *client =
		list_entry(end, struct culvert_client, end);

	client_control_end(client, NULL);
}

static void close_expired(struct timer *timer)
{
	client_control_end(
		list_entry(timer, struct culvert_client, close_timer), NULL);
}

void culvert_client_close(struct culvert_client *client)
{
	if (client->state == CLIENT_ENDED || client->state == CLIENT_CLOSING)
		return;
	loop_update(client->loop);
	if (client->state != CLIENT_READY) {
		loop_defer(client->loop, &client->end, end_now);
		return;
	}
	client->state = CLIENT_CLOSING;
	client_permissions_stop(client);
	timer_arm(client->loop, &client->close_timer, CLIENT_CLOSE_TIMEOUT_MS,
		  close_expired);
	client_allocation_release(client);
}

static void allocate_or_end(struct culvert_client *client)
{
	struct client_failure failure;
	int err = client_allocation_start(client);

	if (!err)
		return;
	client_failure_set(&failure, err, "Allocate", "%s", strerror(-err));
	client_control_end(client, &failure.error);
}

void client_control_connected(struct culvert_client *client)
{
	if (!client->options.manual) {
		client->state = CLIENT_ALLOCATING;
		allocate_or_end(client);
		return;
	}
	client->state = CLIENT_CONNECTED;
	client->events.connected(client->arg);
}

int culvert_client_allocate(struct culvert_client *client)
{
	int err;

	if (client->state != CLIENT_CONNECTED)
		return -EINVAL;
	loop_update(client->loop);
	err = client_allocation_start(client);
	if (!err)
		client->state = CLIENT_ALLOCATING;
	return err;
}

void culvert_client_cancel(struct culvert_client *client, void *arg)
{
	client_calls_cancel(client, arg);
	client_permissions_cancel(client, arg);
	client_data_cancel(client, arg);
}

static void storage_set(struct sockaddr_storage *out, const union addr *addr)
{
	memset(out, 0, sizeof(*out));
	memcpy(out, addr, sizeof(*addr));
}

void culvert_client_info(const struct culvert_client *client,
			 struct culvert_info *out)
{
	socklen_t len = sizeof(out->local);

	memset(out, 0, sizeof(*out));
	storage_set(&out->server, &client->server[client->server_index]);
	if (client->watch.fd >= 0)
		getsockname(client->watch.fd, (struct sockaddr *)&out->local,
			    &len);
	storage_set(&out->mapped, &client->mapped);
	storage_set(&out->relayed, &client->relayed);
	out->lifetime_s = client->lifetime_s;
	out->realm = client->auth.realm;
	out->software = client->software;
}

int client_addr_take(union addr *out, const struct sockaddr *addr)
{
	union addr taken;

	memset(&taken, 0, sizeof(taken));
	if (!addr)
		return -EINVAL;
	if (addr->sa_family == AF_INET)
		memcpy(&taken.in4, addr, sizeof(taken.in4));
	else if (addr->sa_family == AF_INET6)
		memcpy(&taken.in6, addr, sizeof(taken.in6));
	else
		return -EINVAL;
	addr_unmap(&taken);
	*out = taken;
	return 0;
}
