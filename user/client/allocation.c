/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The allocation of a client: made, refreshed, given back (RFC 8656 6, 7).
 *
 * It is refreshed after half of the granted lifetime. A refresh that fails is
 * tried again while the allocation may still exist; 437 (the server has none) and
 * the end of the lifetime end the client.
 */
#include <errno.h>
#include <string.h>

#include "client/turn_client.h"

#define RETRY_MAX_MS 10000

static void refresh_due(struct timer *timer);

static void allocate_fill(struct stun_writer *w, const void *arg)
{
	const struct client_transaction *t = arg;
	const struct culvert_options *options = &t->client->options;

	stun_put_u8(w, STUN_ATTR_REQUESTED_TRANSPORT, STUN_TRANSPORT_TCP);
	if (options->lifetime_s)
		stun_put_u32(w, STUN_ATTR_LIFETIME, options->lifetime_s);
	/* IPv4 is what a server gives unasked; older ones know no other. */
	if (options->family == AF_INET6)
		stun_put_u8(w, STUN_ATTR_REQUESTED_ADDRESS_FAMILY,
			    STUN_FAMILY_IPV6);
}

void client_allocation_fill(struct stun_writer *w, const void *arg)
{
	const struct client_transaction *t = arg;

	if (t->client->state == CLIENT_CLOSING)
		stun_put_u32(w, STUN_ATTR_LIFETIME, 0);
	else if (t->client->options.lifetime_s)
		stun_put_u32(w, STUN_ATTR_LIFETIME,
			     t->client->options.lifetime_s);
}

static int address_find(const struct stun_msg *msg, uint16_t type,
			union addr *out)
{
	struct stun_attr attr;

	if (!stun_find(msg, type, &attr))
		return -EBADMSG;
	return stun_get_xor_address(msg, &attr, out);
}

bool client_allocation_refreshed(struct culvert_client *client,
				 const struct stun_msg *msg)
{
	struct stun_attr attr;
	uint32_t lifetime_s;

	if (!stun_find(msg, STUN_ATTR_LIFETIME, &attr) ||
	    stun_get_u32(&attr, &lifetime_s) || !lifetime_s)
		return false;
	client->lifetime_s = lifetime_s;
	client->expires_ms = loop_now(client->loop) + lifetime_s * 1000ull;
	timer_arm(client->loop, &client->refresh_timer, lifetime_s * 500ull,
		  refresh_due);
	return true;
}

static void refresh_failed(struct culvert_client *client,
			   const struct culvert_error *error)
{
	uint64_t now = loop_now(client->loop), left;

	left = client->expires_ms > now ? client->expires_ms - now : 0;
	if (error->code == STUN_CODE_ALLOCATION_MISMATCH || left < 100) {
		client_control_end(client, error);
		return;
	}
	timer_arm(client->loop, &client->refresh_timer,
		  left / 4 < RETRY_MAX_MS ? left / 4 : RETRY_MAX_MS,
		  refresh_due);
}

static void refresh_done(struct client_transaction *t,
			 const struct stun_msg *msg,
			 const struct culvert_error *error)
{
	struct culvert_client *client = t->client;
	struct client_failure failure;

	switch (client->state) {
	case CLIENT_CLOSING:
		client_control_end(client, NULL);
		return;
	case CLIENT_READY:
		break;
	case CLIENT_DIALING:
	case CLIENT_CONNECTED:
	case CLIENT_ALLOCATING:
	case CLIENT_REDIRECTED:
	case CLIENT_ENDED:
		return;
	}
	if (error) {
		refresh_failed(client, error);
	} else if (!client_allocation_refreshed(client, msg)) {
		client_failure_set(&failure, -EPROTO, "Refresh",
				   "the answer grants no lifetime");
		client_control_end(client, &failure.error);
	}
}

static void refresh_due(struct timer *timer)
{
	struct culvert_client *client =
		list_entry(timer, struct culvert_client, refresh_timer);
	struct client_failure failure;
	uint64_t now = loop_now(client->loop);
	uint64_t timeout = client->options.request_timeout_ms;
	int err;

	if (client->state != CLIENT_READY ||
	    client_transaction_active(&client->refresh))
		return;
	/* The answer must come while it still helps. */
	if (client->expires_ms > now && client->expires_ms - now < timeout)
		timeout = client->expires_ms - now;
	err = client_transaction_start(&client->refresh, STUN_REFRESH,
				       client_allocation_fill, timeout,
				       refresh_done);
	if (!err)
		return;
	client_failure_set(&failure, err, "Refresh", "%s", strerror(-err));
	refresh_failed(client, &failure.error);
}

void client_allocation_release(struct culvert_client *client)
{
	timer_cancel(client->loop, &client->refresh_timer);
	client_transaction_cancel(&client->refresh);
	if (client_transaction_start(&client->refresh, STUN_REFRESH,
				     client_allocation_fill,
				     CLIENT_CLOSE_TIMEOUT_MS, refresh_done))
		return; /* close_timer ends it */
}

static void allocate_done(struct client_transaction *t,
			  const struct stun_msg *msg,
			  const struct culvert_error *error)
{
	struct culvert_client *client = t->client;
	struct client_failure failure;
	union addr mapped;

	if (client->state != CLIENT_ALLOCATING)
		return;
	if (error) {
		if (!msg || client_redirect(client, t, msg))
			client_control_end(client, error);
		return;
	}
	if (address_find(msg, STUN_ATTR_XOR_RELAYED_ADDRESS,
			 &client->relayed) ||
	    !client_allocation_refreshed(client, msg)) {
		client_failure_set(&failure, -EPROTO, "Allocate",
				   "the answer lacks the relayed address or "
				   "the lifetime");
		client_control_end(client, &failure.error);
		return;
	}
	if (!address_find(msg, STUN_ATTR_XOR_MAPPED_ADDRESS, &mapped))
		client->mapped = mapped;
	client->state = CLIENT_READY;
	client->events.ready(client->arg);
}

int client_allocation_start(struct culvert_client *client)
{
	return client_transaction_start(&client->allocate, STUN_ALLOCATE,
					allocate_fill,
					client->options.request_timeout_ms,
					allocate_done);
}

void client_allocation_stop(struct culvert_client *client)
{
	timer_cancel(client->loop, &client->refresh_timer);
}
