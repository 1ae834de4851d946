/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Transactions on the control connection: many at once, found by their id.
 *
 * idle -> in flight -> idle. Each write of a request is a new STUN transaction,
 * the second after a challenge too, but one client_transaction with one time
 * limit. What client_request_judge ignores is as if it had never come; the time
 * limit then says that there was something.
 */
#include <errno.h>
#include <string.h>

#include "client/turn_client.h"
#include "crypto/crypto.h"

void client_transaction_init(struct client_transaction *t,
			     struct culvert_client *client)
{
	memset(t, 0, sizeof(*t));
	list_init(&t->link);
	t->client = client;
}

bool client_transaction_active(const struct client_transaction *t)
{
	return !list_empty(&t->link);
}

void client_transaction_cancel(struct client_transaction *t)
{
	struct culvert_client *client = t->client;

	timer_cancel(client->loop, &t->timer);
	if (!client_transaction_active(t))
		return;
	list_del(&t->link);
	table_remove(&client->by_txid, &t->node);
	crypto_wipe(&t->request.key, sizeof(t->request.key));
}

static int transaction_write(struct client_transaction *t)
{
	struct culvert_client *client = t->client;
	uint8_t buf[CLIENT_REQUEST_MAX];
	ssize_t len;
	int err;

	len = client_request_write(&t->request, &client->auth, t->fill, t, buf,
				   sizeof(buf));
	if (len < 0)
		return (int)len;
	err = client_control_send(client, buf, (size_t)len);
	if (err)
		return err;
	table_insert(&client->by_txid, &t->node,
		     table_hash(t->request.txid, STUN_TXID_LEN));
	list_add_tail(&t->link, &client->transactions);
	return 0;
}

static void transaction_fail(struct client_transaction *t,
			     const struct stun_msg *msg,
			     const struct culvert_error *error)
{
	client_transaction_cancel(t);
	t->done(t, msg, error);
}

static void transaction_expired(struct timer *timer)
{
	struct client_transaction *t =
		list_entry(timer, struct client_transaction, timer);
	struct client_failure failure;

	client_failure_set(&failure, -ETIMEDOUT,
			   stun_method_name(t->request.method),
			   t->request.discarded ?
				   CLIENT_NOT_SIGNED :
				   "the server did not answer in time");
	transaction_fail(t, NULL, &failure.error);
}

int client_transaction_start(struct client_transaction *t, uint16_t method,
			     client_fill_fn fill, uint64_t timeout_ms,
			     void (*done)(struct client_transaction *t,
					  const struct stun_msg *msg,
					  const struct culvert_error *error))
{
	int err;

	memset(&t->request, 0, sizeof(t->request));
	t->request.method = method;
	t->fill = fill;
	t->done = done;
	err = transaction_write(t);
	if (!err)
		timer_arm(t->client->loop, &t->timer, timeout_ms,
			  transaction_expired);
	return err;
}

static struct client_transaction *
transaction_find(struct culvert_client *client, const uint8_t *txid)
{
	uint64_t hash = table_hash(txid, STUN_TXID_LEN);
	struct table_node *node = table_first(&client->by_txid, hash);

	for (; node; node = table_next(node)) {
		struct client_transaction *t =
			list_entry(node, struct client_transaction, node);

		if (!memcmp(t->request.txid, txid, STUN_TXID_LEN))
			return t;
	}
	return NULL;
}

/* Once more, as the challenge asked; the time limit runs on. */
static void transaction_again(struct client_transaction *t)
{
	struct client_failure failure;
	int err;

	list_del(&t->link);
	table_remove(&t->client->by_txid, &t->node);
	err = transaction_write(t);
	if (!err)
		return;
	client_failure_set(&failure, err, stun_method_name(t->request.method),
			   "the request could not be sent again: %s",
			   strerror(-err));
	transaction_fail(t, NULL, &failure.error);
}

void client_transaction_answer(struct culvert_client *client,
			       const struct stun_msg *msg)
{
	struct client_transaction *t = transaction_find(client, msg->txid);
	struct client_failure failure;

	if (!t)
		return;
	switch (client_request_judge(&t->request, &client->auth, msg,
				     &failure)) {
	case CLIENT_VERDICT_DISCARD:
		break;
	case CLIENT_VERDICT_AGAIN:
		transaction_again(t);
		break;
	case CLIENT_VERDICT_ERROR:
		/* Nobody acts on an answer that does not count: a 300, say. */
		transaction_fail(t, failure.error.code > 0 ? msg : NULL,
				 &failure.error);
		break;
	case CLIENT_VERDICT_SUCCESS:
		client_transaction_cancel(t);
		t->done(t, msg, NULL);
		break;
	}
}

void client_transactions_fail(struct culvert_client *client,
			      const struct culvert_error *error)
{
	/* One by one from the head: `done` may free any of them. */
	while (!list_empty(&client->transactions))
		transaction_fail(list_entry(client->transactions.next,
					    struct client_transaction, link),
				 NULL, error);
}
