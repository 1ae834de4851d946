/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests whose answer is for the caller alone: Refresh now, Binding. */
#include <errno.h>
#include <stdlib.h>

#include "client/turn_client.h"

struct client_call {
	struct list link; /* client->calls */
	struct client_transaction transaction;
	culvert_done_fn done; /* one of the two, */
	culvert_binding_fn binding;
	void *arg;
	bool cancelled; /* or none any more */
};

static void call_free(struct client_call *call)
{
	client_transaction_cancel(&call->transaction);
	list_del(&call->link);
	free(call);
}

static bool call_silent(const struct client_call *call)
{
	return call->cancelled || call->transaction.client->freed;
}

static void refresh_answered(struct client_transaction *t,
			     const struct stun_msg *msg,
			     const struct culvert_error *error)
{
	struct client_call call =
		*list_entry(t, struct client_call, transaction);
	struct culvert_client *client = t->client;
	bool silent = call_silent(&call);
	struct client_failure failure;

	call_free(list_entry(t, struct client_call, transaction));
	if (!error && client->state == CLIENT_READY &&
	    !client_allocation_refreshed(client, msg)) {
		client_failure_set(&failure, -EPROTO, "Refresh",
				   "the answer grants no lifetime");
		error = &failure.error;
	}
	if (!silent)
		call.done(call.arg, error);
	if (error && error->code == STUN_CODE_ALLOCATION_MISMATCH)
		client_control_end(client, error);
}

static void binding_answered(struct client_transaction *t,
			     const struct stun_msg *msg,
			     const struct culvert_error *error)
{
	struct client_call call =
		*list_entry(t, struct client_call, transaction);
	bool silent = call_silent(&call);
	struct client_failure failure;
	struct stun_attr attr;
	union addr mapped;

	call_free(list_entry(t, struct client_call, transaction));
	if (!error && (!stun_find(msg, STUN_ATTR_XOR_MAPPED_ADDRESS, &attr) ||
		       stun_get_xor_address(msg, &attr, &mapped))) {
		client_failure_set(&failure, -EPROTO, "Binding",
				   "the answer has no mapped address");
		error = &failure.error;
	}
	if (!silent)
		call.binding(call.arg, error, error ? NULL : &mapped.sa);
}

static int call_new(struct culvert_client *client, void *arg,
		    struct client_call **out)
{
	struct client_call *call;

	if (client->by_txid.count >= CLIENT_INFLIGHT_MAX)
		return -ENOBUFS;
	call = calloc(1, sizeof(*call));
	if (!call)
		return -ENOMEM;
	client_transaction_init(&call->transaction, client);
	call->arg = arg;
	list_add_tail(&call->link, &client->calls);
	loop_update(client->loop);
	*out = call;
	return 0;
}

int culvert_client_refresh(struct culvert_client *client, culvert_done_fn fn,
			   void *arg)
{
	struct client_call *call;
	int err;

	if (client->state != CLIENT_READY)
		return -ENOTCONN;
	err = call_new(client, arg, &call);
	if (err)
		return err;
	call->done = fn;
	err = client_transaction_start(&call->transaction, STUN_REFRESH,
				       client_allocation_fill,
				       client->options.request_timeout_ms,
				       refresh_answered);
	if (err)
		call_free(call);
	return err;
}

int culvert_client_binding(struct culvert_client *client, culvert_binding_fn fn,
			   void *arg)
{
	struct client_call *call;
	int err;

	if (client->watch.fd < 0)
		return -ENOTCONN;
	err = call_new(client, arg, &call);
	if (err)
		return err;
	call->binding = fn;
	err = client_transaction_start(&call->transaction, STUN_BINDING, NULL,
				       client->options.request_timeout_ms,
				       binding_answered);
	if (err)
		call_free(call);
	return err;
}

void client_calls_cancel(struct culvert_client *client, const void *arg)
{
	struct list *pos;

	list_for_each(pos, &client->calls) {
		struct client_call *call =
			list_entry(pos, struct client_call, link);

		if (call->arg == arg)
			call->cancelled = true;
	}
}

void client_calls_free(struct culvert_client *client)
{
	struct list *pos, *tmp;

	list_for_each_safe(pos, tmp, &client->calls)
		call_free(list_entry(pos, struct client_call, link));
}
