/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the client library share; see turn_client.c for the whole. */
#ifndef CLIENT_TURN_CLIENT_H
#define CLIENT_TURN_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/list.h"
#include "base/table.h"
#include "client/dial.h"
#include "client/request.h"
#include "culvert/client.h"
#include "loop/loop.h"
#include "stun/stun.h"

/* Longest message understood; a longer one is skipped. */
#define CLIENT_IN_MAX 4096
/* Bytes that may wait to be sent on the control connection. */
#define CLIENT_OUT_MAX 131072
/* Requests of the caller in flight, and connections of peers waiting. */
#define CLIENT_INFLIGHT_MAX     1024
#define CLIENT_CLOSE_TIMEOUT_MS 2000
/* A peer that answered with 447 is left alone for so long (RFC 6062 4.3). */
#define CLIENT_REST_MS 10000
#define CLIENT_RESTS   32
/* The server keeps an unbound connection for so long (RFC 6062 5.2). */
#define CLIENT_BIND_MS 30000
/* Servers that may send us on, one after the other (RFC 8489 10). */
#define CLIENT_REDIRECTS 2

struct culvert_loop {
	struct loop *loop;
	/* Of connections over TLS (tunnel.c); engines NULL: none so far. */
	struct engine_set *engines;
	struct list tunnels;
	/* The last one that a client has asked for, for the next like it. */
	struct tls_client *tls;
	char *tls_authorities; /* NULL: the system's */
	bool tls_unverified;
};

/* A request on the control connection. Embedded in who asks. */
struct client_transaction {
	struct table_node node; /* by transaction id */
	struct list link; /* client->transactions; self-linked when idle */
	struct culvert_client *client;
	struct client_request request;
	struct timer timer;
	client_fill_fn fill;
	/*
	 * With error NULL msg is a success, else the server's answer that says
	 * so, or NULL. The transaction is idle again: it may be started anew,
	 * or freed.
	 */
	void (*done)(struct client_transaction *t, const struct stun_msg *msg,
		     const struct culvert_error *error);
};

enum client_state {
	CLIENT_DIALING,
	CLIENT_CONNECTED, /* options.manual: waiting for the owner */
	CLIENT_ALLOCATING,
	CLIENT_REDIRECTED, /* to another server, to be dialled */
	CLIENT_READY,
	CLIENT_CLOSING, /* Refresh 0 is under way */
	CLIENT_ENDED,
};

/* A peer not to be asked for before a time. */
struct client_rest {
	union addr peer;
	uint64_t until_ms;
};

struct culvert_client {
	struct culvert_loop *library;
	struct loop *loop; /* the same */
	enum client_state state;
	bool freed; /* culvert_client_free was called: nobody is to hear more */
	struct deferred end; /* asked to end before it was ready */
	struct deferred redirect;
	unsigned int redirects; /* followed so far */
	struct deferred release; /* gives the memory back */

	struct culvert_options options; /* defaults filled in; no pointers */
	struct culvert_events events;
	void *arg;
	union addr server[CULVERT_SERVER_ADDRESSES];
	size_t server_count, server_index; /* the address in use */
	struct tls_client *tls; /* NULL: without TLS */
	char tls_name[sizeof(((struct culvert_server *)0)->host)];
	union addr visited[CLIENT_REDIRECTS]; /* that have sent us on */
	struct client_auth auth;

	struct client_dial dial;
	struct watch watch; /* the control connection */
	struct seal *seal; /* its; NULL: none */
	struct timer close_timer;
	uint8_t in[CLIENT_IN_MAX];
	size_t in_len, skip; /* skip: bytes of a message too long to keep */
	uint8_t *out; /* what could not be sent at once */
	size_t out_len, out_cap;

	struct table by_txid;
	struct list transactions;
	struct list calls; /* struct client_call */
	struct list permissions; /* struct client_permission */
	size_t permission_count;
	struct list data; /* struct client_data */
	struct list attempts; /* struct client_data: accepts_max reached */
	size_t data_count, accepting;
	struct client_rest rest[CLIENT_RESTS];
	size_t rest_next;

	struct client_transaction allocate, refresh;
	struct timer refresh_timer;
	uint64_t expires_ms;
	uint32_t lifetime_s;
	union addr relayed, mapped;
	char software[128];
};

/* ---- event_loop.c ---- */

/* The TLS context for these options, counted. 0, -ENOMEM, or -EINVAL: they cannot
 * be used.
 */
int client_loop_tls(struct culvert_loop *loop,
		    const struct culvert_options *options,
		    struct tls_client **out);

/* ---- transaction.c ---- */

void client_transaction_init(struct client_transaction *t,
			     struct culvert_client *client);
/* 0, -ENOBUFS, -ENOMEM, -EIO; done is never called from inside. */
int client_transaction_start(struct client_transaction *t, uint16_t method,
			     client_fill_fn fill, uint64_t timeout_ms,
			     void (*done)(struct client_transaction *t,
					  const struct stun_msg *msg,
					  const struct culvert_error *error));
/* done is not called. Harmless on an idle one. */
void client_transaction_cancel(struct client_transaction *t);
bool client_transaction_active(const struct client_transaction *t);
/* A response arrived; one nobody waits for is ignored. */
void client_transaction_answer(struct culvert_client *client,
			       const struct stun_msg *msg);
/* Every one in flight is done with this error. */
void client_transactions_fail(struct culvert_client *client,
			      const struct culvert_error *error);

/* ---- control.c ---- */

/* Dials the server's addresses in order. */
void client_control_dial(struct culvert_client *client);
/* Closes the connection and what waits for it; calls nobody. */
void client_control_stop(struct culvert_client *client);
/* Sends or queues. 0, -ENOBUFS, -ENOMEM, -ENOTCONN. */
int client_control_send(struct culvert_client *client, const void *data,
			size_t len);

/* ---- turn_client.c ---- */

/* The control connection stands. */
void client_control_connected(struct culvert_client *client);
/* The client is over; error NULL: as it was asked to. Calls callbacks. */
void client_control_end(struct culvert_client *client,
			const struct culvert_error *error);

/* ---- allocation.c ---- */

int client_allocation_start(struct culvert_client *client);
void client_allocation_stop(struct culvert_client *client);
/* Gives it back; the client ends when that is answered, or with the timer. */
void client_allocation_release(struct culvert_client *client);
/* What a Refresh request says; arg is its transaction. */
void client_allocation_fill(struct stun_writer *w, const void *arg);
/* Takes the granted LIFETIME of a Refresh success; false: there is none. */
bool client_allocation_refreshed(struct culvert_client *client,
				 const struct stun_msg *msg);

/* ---- redirect.c ---- */

/*
 * The server's answer to Allocate sends us to another one, which is dialled at the
 * end of the tick: 0. -ENOENT: it does not; -ELOOP: too often, or to where we have
 * been; -EPERM: we do not follow.
 */
int client_redirect(struct culvert_client *client,
		    const struct client_transaction *t,
		    const struct stun_msg *msg);

/* ---- call.c, permission.c, data.c ---- */

void client_calls_cancel(struct culvert_client *client, const void *arg);
void client_calls_free(struct culvert_client *client);
void client_permissions_cancel(struct culvert_client *client, const void *arg);
void client_permissions_stop(struct culvert_client *client);
void client_permissions_free(struct culvert_client *client);
/* A ConnectionAttempt indication. */
void client_data_attempt(struct culvert_client *client,
			 const struct stun_msg *msg);
void client_data_cancel(struct culvert_client *client, const void *arg);
/* Fails those not handed over yet; with error NULL nobody is told. */
void client_data_end(struct culvert_client *client,
		     const struct culvert_error *error);
void client_data_free(struct culvert_client *client);

/* Copies a sockaddr of the caller: 0, or -EINVAL when it is not IPv4 or IPv6. */
int client_addr_take(union addr *out, const struct sockaddr *addr);

#endif
